"""A SOPS document: its rule, its data key, its leaves and its MAC."""

from __future__ import annotations

import hmac
import os
import re
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import attrs

from shiftable.errors import IntegrityError, InvalidArgument, OperationError, Resource, Unsupported
from shiftable.sops._age import Identities, unwrapped, wrapped
from shiftable.sops._comments import Comment
from shiftable.sops._exposure import NAME, PLACE, Exposure
from shiftable.sops._leaves import Rule, RuleKind, Sealed, Sealing, encrypted_leaves, is_encrypted, open_leaf, open_tree
from shiftable.sops._seal import is_secret
from shiftable.sops._text import Format, parsed, rendered

__all__ = ["Document", "Inspection", "dump", "from_plain", "inspect", "load", "recipients", "to_plain"]

_VERSION = "3.9.0"
"""The version of sops whose format this is."""

_OTHER_KEYS = ("kms", "gcp_kms", "azure_kv", "hc_vault", "hckms", "pgp")
_SHAMIR = ("key_groups", "shamir_threshold")
_REFUSED = (*_SHAMIR, "encrypted_comment_regex", "unencrypted_comment_regex")
_RULES: tuple[RuleKind, ...] = ("unencrypted_suffix", "encrypted_suffix", "unencrypted_regex", "encrypted_regex")


@attrs.define
class Document:
    """A decrypted document. Change ``data`` and ``dump`` it: what did not change keeps its ciphertext.

    Args:
        data: nested dicts with text keys, lists, and the values; never shown.
        recipients: ``age1…``, ``ssh-ed25519 …`` or ``ssh-rsa …``; see ``for_recipients``.
        mac_only_encrypted: leave values in clear out of the MAC, so that they can be edited without a key.
        lastmodified: RFC 3339, when it was last written.
        comments: kept in YAML, dotenv and INI and encrypted where the values around them are. No MAC covers them: one
            that is encrypted can be dropped or moved within its mapping, one in clear can say anything.
    """

    data: dict[str, Any] = attrs.field(repr=False)
    recipients: tuple[str, ...] = attrs.field(kw_only=True)
    rule: Rule = attrs.field(kw_only=True, default=Rule())
    mac_only_encrypted: bool = attrs.field(kw_only=True, default=False)
    lastmodified: str = attrs.field(kw_only=True, default="")
    _key: bytes = attrs.field(kw_only=True, factory=lambda: os.urandom(32), repr=False, eq=False)
    comments: tuple[Comment, ...] = attrs.field(kw_only=True, default=())
    _exposure: Exposure = attrs.field(kw_only=True, factory=Exposure, repr=False, eq=False)
    _mac: str = attrs.field(kw_only=True, default="", repr=False, eq=False)
    _wraps: dict[str, str] = attrs.field(kw_only=True, factory=dict, repr=False, eq=False)
    _sealed: Sealed = attrs.field(kw_only=True, factory=Sealed, repr=False, eq=False)
    _others: dict[str, Any] = attrs.field(kw_only=True, factory=dict, repr=False, eq=False)

    def for_recipients(self, recipients: tuple[str, ...]) -> Document:
        """Return the document for others.

        Who joins is given the data key. When somebody leaves, there is a new one, so that what they kept opens
        nothing of the new file. They have read the values nevertheless: change those.

        Raises:
            Unsupported: somebody leaves, and the file is also encrypted for keys that are not age.
        """
        if set(recipients) >= set(self.recipients):
            return attrs.evolve(self, recipients=recipients)
        if any(self._others.get(kind) for kind in _OTHER_KEYS):
            raise Unsupported("the file is also encrypted for keys other than age; remove recipients with sops")
        kept: dict[str, Any] = {name: getattr(self, name) for name in ("rule", "mac_only_encrypted", "comments")}
        return Document(self.data, recipients=recipients, exposure=self._exposure, **kept)

    @property
    def exposed(self) -> dict[str, str]:
        """Where values are that ``expose`` has noted and that are still the same, and since when."""
        return self._exposure.places(encrypted_leaves(self.data, self.rule))

    def expose(self, now: datetime) -> None:
        """Note in the file that somebody knows all of its values who should not any more."""
        since = now.astimezone(UTC).isoformat()
        self._exposure = self._exposure.with_all(encrypted_leaves(self.data, self.rule), since)

    def note_exposed(self, seen: Document, places: Iterable[str], since: str) -> None:
        """Note that somebody knows the values that another state of the document has at those places."""
        wanted = set(places)
        leaves = (leaf for leaf in encrypted_leaves(seen.data, seen.rule) if leaf[0] in wanted)
        self._exposure = self._exposure.with_all(leaves, since)

    @property
    def fingerprint(self) -> str:
        """Tell this content from every other one of the file; without its key it tells nothing."""
        return hmac.digest(self._key, self._mac.encode(), "sha256").hex()[:16]


def recipients(content: bytes, *, format: Format = "yaml") -> tuple[str, ...]:
    """Say for whom a file is encrypted, without a key. Nothing vouches for the answer but the file."""
    return tuple(recipient for recipient, _ in _wraps(_section(parsed(content, format)[0])))


def from_plain(content: bytes, *, format: Format) -> tuple[dict[str, Any], tuple[Comment, ...]]:
    """Read a file that is not encrypted: its values and comments, for a ``Document``.

    Raises:
        IntegrityError: it is malformed; names the line, not what stands there.
        InvalidArgument: it is encrypted already.
    """
    if format == "binary":
        return {"data": content}, ()
    tree, found = parsed(content, format)
    if "sops" in tree:
        raise InvalidArgument("it is encrypted already, or uses the key 'sops', which is the format's own")
    return tree, tuple(Comment(each.text, *each.places[0]) for each in found)


def to_plain(document: Document, *, format: Format) -> bytes:
    """Write a document as a file that is not encrypted.

    Raises:
        InvalidArgument: the format cannot hold a value in clear; names its place.
    """
    if format == "binary":
        value = document.data.get("data")
        if set(document.data) != {"data"} or not isinstance(value, bytes | str):
            raise InvalidArgument("a binary file has one value, 'data'")
        return value if isinstance(value, bytes) else value.encode()
    return rendered(document.data, document.comments, format)


@attrs.frozen
class Inspection:
    """What a file shows to who has no key. Nothing vouches for it but the file.

    Args:
        in_clear: places of values that are in clear where the rule says that they are encrypted.
        secret: whether it is the file of one secret, with its versions, of which always the values are encrypted.
    """

    recipients: tuple[str, ...]
    rule: Rule
    mac_only_encrypted: bool
    lastmodified: str
    in_clear: tuple[str, ...]
    secret: bool = False


def inspect(content: bytes, *, format: Format = "yaml", name: str = "") -> Inspection:
    """Look at a file without a key.

    Args:
        name: of the file, for errors.

    Raises:
        IntegrityError: it is no SOPS file.
        Unsupported: it uses a part of the format that is not supported here.
    """
    try:
        tree, found = parsed(content, format)
        meta = _section(tree)
        rule = _rule(meta)
        values = [place.removesuffix(":") for place, plain in encrypted_leaves(tree, rule) if not is_encrypted(plain)]
        comments = [
            f"a comment in {'.'.join(map(str, each.places[0][0])) or 'the document'}"
            for each in found
            if each.text and rule.covers(each.places[0][0]) and not is_encrypted(each.text.encode())
        ]
        readers = tuple(recipient for recipient, _ in _wraps(meta))
        _text(meta, "mac")
        lastmodified = _text(meta, "lastmodified")
    except RecursionError:
        raise IntegrityError("it is nested too deeply", resource=_file(name)) from None
    except OperationError as exc:
        exc.resource = exc.resource or _file(name)
        raise
    only_encrypted = meta.get("mac_only_encrypted") is True
    return Inspection(readers, rule, only_encrypted, lastmodified, (*values, *comments), is_secret(tree))


def load(content: bytes, identities: Identities, *, format: Format = "yaml", name: str = "") -> Document:
    """Decrypt a file and check it.

    Args:
        name: of the file, for errors.

    Raises:
        Unauthenticated: none of the identities opens it.
        IntegrityError: it is malformed, or something in it was changed, moved, added or dropped.
        Unsupported: it uses a part of the format that is not supported here.
    """
    try:
        return _loaded(content, identities, format)
    except RecursionError:
        raise IntegrityError("it is nested too deeply", resource=_file(name)) from None
    except OperationError as exc:
        exc.resource = exc.resource or _file(name)
        raise


def _loaded(content: bytes, identities: Identities, format: Format) -> Document:
    tree, found = parsed(content, format)
    meta = _section(tree)
    wraps = _wraps(meta)
    key, rule, lastmodified = unwrapped(wraps, identities), _rule(meta), _text(meta, "lastmodified")
    only_encrypted = meta.get("mac_only_encrypted") is True
    raw = format == "binary"
    opened = open_tree(tree, found, key, rule, only_encrypted=only_encrypted, raw=raw)
    opened.sealed.add(lastmodified, _text(meta, "mac"))
    expected = open_leaf(key, _text(meta, "mac"), lastmodified)
    if not isinstance(expected, str) or not hmac.compare_digest(opened.mac.encode(), expected.encode()):
        raise IntegrityError("its MAC does not fit: something in it was changed, moved, added or dropped")
    if raw and set(tree) != {"data"}:
        raise IntegrityError("it is no binary file: it has more than the one value 'data'")
    if NAME in meta:
        opened.sealed.add(PLACE, _text(meta, NAME))
    return Document(
        tree,
        recipients=tuple(recipient for recipient, _ in wraps),
        rule=rule,
        mac_only_encrypted=only_encrypted,
        lastmodified=lastmodified,
        comments=tuple(each if each.before != "sops" or each.place else Comment(each.text) for each in opened.comments),
        key=key,
        exposure=Exposure.parsed(open_leaf(key, _text(meta, NAME), PLACE)) if NAME in meta else Exposure(),
        mac=opened.mac,
        wraps=dict(wraps),
        sealed=opened.sealed,
        others={name: value for name, value in meta.items() if name in _OTHER_KEYS},
    )


def dump(document: Document, *, format: Format = "yaml", now: datetime | None = None) -> bytes:
    """Encrypt a document.

    Args:
        now: aware; the time of the change.

    Raises:
        InvalidArgument: there is no recipient, or a value that the format cannot hold; names its place, not the value.
    """
    if not document.recipients:
        raise InvalidArgument("there is no recipient to encrypt for; give a public key, age1…")
    if "sops" in document.data:
        raise InvalidArgument("the key 'sops' is the format's own")
    raw = format == "binary"
    if raw and (set(document.data) != {"data"} or not document.rule.covers(("data",))):
        raise InvalidArgument("a binary file has one value, 'data', and a rule that encrypts it")
    key, wraps = document._key, document._wraps  # noqa: SLF001  the other half of this module
    for recipient in document.recipients:
        wraps[recipient] = wraps.get(recipient) or wrapped(key, recipient)
    sealing = Sealing(
        key,
        document.rule,
        document._sealed,  # noqa: SLF001  the other half of this module
        only_encrypted=document.mac_only_encrypted,
        json=format == "json",
        raw=raw,
    )
    tree = sealing.tree(document.data)
    comments = sealing.comments(document.comments)
    exposed = document._exposure.rendered(encrypted_leaves(document.data, document.rule))  # noqa: SLF001  as above
    document.lastmodified = (now or datetime.now(UTC)).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    tree["sops"] = {
        **document._others,  # noqa: SLF001  the other half of this module
        "age": [{"recipient": recipient, "enc": wraps[recipient]} for recipient in document.recipients],
        "lastmodified": document.lastmodified,
        "mac": sealing.encrypted("str", sealing.mac().encode(), document.lastmodified),
        document.rule.kind: document.rule.pattern,
        **({"mac_only_encrypted": True} if document.mac_only_encrypted else {}),
        **({NAME: sealing.encrypted("str", exposed.encode(), PLACE)} if exposed else {}),
        "version": _VERSION,
    }
    document._mac = sealing.mac()  # noqa: SLF001  the other half of this module
    at_end = [
        attrs.evolve(each, before="sops") if not each.place and each.before is None else each for each in comments
    ]
    return rendered(tree, at_end, format)


# the section `sops`


def _section(tree: dict[str, Any]) -> dict[str, Any]:
    """Take the section out of a tree."""
    meta = tree.pop("sops", None)
    if not isinstance(meta, dict):
        raise IntegrityError("it is no SOPS file: it has no section 'sops'; `shiftable secrets encrypt` makes it one")
    if any(meta.get(name) for name in _SHAMIR):
        raise Unsupported(
            "it has key_groups: its data key is divided among them (Shamir), which is not supported here; "
            "read it with sops, or encrypt it for one group with `sops updatekeys`"
        )
    refused = [name for name in _REFUSED if meta.get(name)]
    if refused:
        raise Unsupported(f"it uses {', '.join(refused)}, which is not supported here; use sops")
    return meta


def _wraps(meta: dict[str, Any]) -> list[tuple[str, str]]:
    entries = meta.get("age") or []
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise IntegrityError("'age' in its section 'sops' is no list of recipients")
    return [(_text(entry, "recipient"), _text(entry, "enc")) for entry in entries]


def _rule(meta: dict[str, Any]) -> Rule:
    rules = [Rule(kind, _text(meta, kind)) for kind in _RULES if meta.get(kind)]
    if len(rules) > 1:
        raise IntegrityError(f"it has {len(rules)} rules of what is encrypted; one is possible")
    rule = rules[0] if rules else Rule()
    if rule.kind.endswith("regex"):
        try:
            re.compile(rule.pattern)
        except re.error as exc:
            raise IntegrityError(f"its {rule.kind} is no regular expression") from exc
    return rule


def _text(meta: dict[str, Any], name: str) -> str:
    value = meta.get(name)
    if not isinstance(value, str):
        raise IntegrityError(f"'{name}' in its section 'sops' is missing or no text")
    return value


def _file(name: str) -> Resource | None:
    return Resource("file", name) if name else None

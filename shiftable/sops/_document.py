"""A SOPS document: its rule, its data key, its leaves and its MAC."""

from __future__ import annotations

import binascii
import functools
import hashlib
import hmac
import math
import os
import re
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Literal, NoReturn, cast

import attrs

from shiftable.errors import IntegrityError, InvalidArgument, OperationError, Resource, Unsupported
from shiftable.sops._age import Identities, needed, unwrapped, wrapped
from shiftable.sops._text import Format, parsed, rendered

__all__ = ["Document", "Rule", "dump", "load", "recipients"]

_VERSION = "3.9.0"
"""The version of sops whose format this is."""

_LEAF = re.compile(r"ENC\[AES256_GCM,data:([^,]+),iv:([^,]+),tag:([^,]+),type:([a-z0-9]+)\]")
_OTHER_KEYS = ("kms", "gcp_kms", "azure_kv", "hc_vault", "pgp")
_REFUSED = ("key_groups", "shamir_threshold", "encrypted_comment_regex", "unencrypted_comment_regex")
_ONLY_ENCRYPTED = hashlib.sha256(b"sops").digest()
"""What the MAC begins with when it leaves out values in clear, so that nobody can switch that on unseen."""

RuleKind = Literal["unencrypted_suffix", "encrypted_suffix", "unencrypted_regex", "encrypted_regex"]
_RULES: tuple[RuleKind, ...] = ("unencrypted_suffix", "encrypted_suffix", "unencrypted_regex", "encrypted_regex")

_unbase64 = binascii.a2b_base64

Leaf = str | int | float | bool | bytes
Visit = Callable[[Leaf, str, bool], Leaf]


@attrs.frozen
class Rule:
    """Which values are encrypted. A key that matches decides for all that is below it."""

    kind: RuleKind = "unencrypted_suffix"
    pattern: str = "_unencrypted"

    @property
    def encrypts(self) -> bool:
        """Whether it is encrypted what a matching key holds; else all but that."""
        return self.kind.startswith("encrypted")

    def matcher(self) -> Callable[[str], object]:
        """Return what answers something true for a key that matches."""
        if self.kind.endswith("regex"):
            return re.compile(self.pattern).search
        pattern = self.pattern
        return lambda key: key.endswith(pattern)


@attrs.define
class Document:
    """A decrypted document. Change ``data`` and ``dump`` it: what did not change keeps its ciphertext.

    Args:
        data: nested dicts with text keys, lists, and the values; never shown.
        recipients: ``age1…``, ``ssh-ed25519 …`` or ``ssh-rsa …``; see ``for_recipients``.
        mac_only_encrypted: leave values in clear out of the MAC, so that they can be edited without a key.
        lastmodified: RFC 3339, when it was last written.
    """

    data: dict[str, Any] = attrs.field(repr=False)
    recipients: tuple[str, ...] = attrs.field(kw_only=True)
    rule: Rule = attrs.field(kw_only=True, default=Rule())
    mac_only_encrypted: bool = attrs.field(kw_only=True, default=False)
    lastmodified: str = attrs.field(kw_only=True, default="")
    _key: bytes = attrs.field(kw_only=True, factory=lambda: os.urandom(32), repr=False, eq=False)
    _wraps: dict[str, str] = attrs.field(kw_only=True, factory=dict, repr=False, eq=False)
    _sealed: list[tuple[str, str]] = attrs.field(kw_only=True, factory=list, repr=False, eq=False)
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
        kept = {"rule": self.rule, "mac_only_encrypted": self.mac_only_encrypted}
        return Document(self.data, recipients=recipients, **cast("dict[str, Any]", kept))


def recipients(content: bytes, *, format: Format = "yaml") -> tuple[str, ...]:
    """Say for whom a file is encrypted, without a key. Nothing vouches for the answer but the file."""
    return tuple(recipient for recipient, _ in _wraps(_split(parsed(content, format))[1]))


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
    tree, meta = _split(parsed(content, format))
    wraps = _wraps(meta)
    document = Document(
        {},
        recipients=tuple(recipient for recipient, _ in wraps),
        rule=_rule(meta),
        mac_only_encrypted=meta.get("mac_only_encrypted") is True,
        lastmodified=_text(meta, "lastmodified"),
        key=unwrapped(wraps, identities),
        wraps=dict(wraps),
        others={name: value for name, value in meta.items() if name in _OTHER_KEYS},
    )
    leaves = _Leaves(document)
    document.data = _mapped(tree, leaves.read, document.rule)
    expected = leaves.decrypted(_text(meta, "mac"), document.lastmodified)
    if not isinstance(expected, str) or not hmac.compare_digest(leaves.mac().encode(), expected.encode()):
        raise IntegrityError("its MAC does not fit: something in it was changed, moved, added or dropped")
    return document


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
    key, wraps = document._key, document._wraps  # noqa: SLF001  the other half of this module
    for recipient in document.recipients:
        wraps[recipient] = wraps.get(recipient) or wrapped(key, recipient)
    leaves = _Leaves(document)
    tree = _mapped(document.data, leaves.write_json if format == "json" else leaves.write, document.rule)
    document.lastmodified = (now or datetime.now(UTC)).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    tree["sops"] = {
        **document._others,  # noqa: SLF001  the other half of this module
        "age": [{"recipient": recipient, "enc": wraps[recipient]} for recipient in document.recipients],
        "lastmodified": document.lastmodified,
        "mac": leaves.encrypted("str", leaves.mac().encode(), document.lastmodified),
        document.rule.kind: document.rule.pattern,
        **({"mac_only_encrypted": True} if document.mac_only_encrypted else {}),
        "version": _VERSION,
    }
    return rendered(tree, format)


class _Leaves:
    """The leaves of one document on their way in or out: encrypts or decrypts each, and hashes it for the MAC."""

    def __init__(self, document: Document) -> None:
        self._cipher = needed("cryptography.hazmat.primitives.ciphers.aead").AESGCM(document._key)  # noqa: SLF001
        self._invalid = needed("cryptography.exceptions").InvalidTag
        self._sealed = document._sealed  # noqa: SLF001  the document keeps them from load to dump
        self._only_encrypted = document.mac_only_encrypted
        self._hash = hashlib.sha512(_ONLY_ENCRYPTED if self._only_encrypted else b"")

    def mac(self) -> str:
        """Return the hash over the leaves so far."""
        return self._hash.hexdigest().upper()

    def read(self, leaf: Leaf, place: str, encrypted: bool) -> Leaf:  # noqa: FBT001  a visitor
        """Decrypt one leaf of a file and remember its ciphertext."""
        if not encrypted or leaf == "":
            if encrypted or not self._only_encrypted:
                self._hash.update(_plain(leaf, place)[1])
            return leaf
        kind, plain = self._opened(leaf, place)
        value = _typed(kind, plain)
        if value is None:
            return _broken(place)
        self._hash.update(plain if kind == "str" else _plain(value, place)[1])
        self._sealed.append((place, cast("str", leaf)))
        return value

    def write(self, leaf: Leaf, place: str, encrypted: bool) -> Leaf:  # noqa: FBT001  a visitor
        """Encrypt one leaf for a file. The empty text stays as it is, as in sops."""
        kind, plain = _plain(leaf, place)
        if not encrypted and (kind == "bytes" or (kind == "float" and not math.isfinite(cast("float", leaf)))):
            raise InvalidArgument(f"the value at {place!r} can only be stored encrypted")
        if encrypted or not self._only_encrypted:
            self._hash.update(plain)
        return leaf if not encrypted or leaf == "" else self.encrypted(kind, plain, place)

    def write_json(self, leaf: Leaf, place: str, encrypted: bool) -> Leaf:  # noqa: FBT001  a visitor
        """Encrypt one leaf for a JSON file, whose numbers in clear sops reads as floats."""
        if not encrypted and isinstance(leaf, int) and abs(leaf) > 2**53:
            raise InvalidArgument(f"the value at {place!r} is too large a number for JSON in clear")
        return self.write(leaf, place, encrypted)

    def encrypted(self, kind: str, plain: bytes, place: str) -> str:
        """Encrypt one value, or return what it was encrypted as before."""
        known = self._known.get((place, kind, plain))
        if known is not None:
            return known
        iv = os.urandom(32)
        sealed = self._cipher.encrypt(iv, plain, place.encode())
        data, iv64, tag = (
            binascii.b2a_base64(part, newline=False).decode() for part in (sealed[:-16], iv, sealed[-16:])
        )
        text = f"ENC[AES256_GCM,data:{data},iv:{iv64},tag:{tag},type:{kind}]"
        self._sealed.append((place, text))
        self._known[place, kind, plain] = text
        return text

    def decrypted(self, text: str, place: str) -> Leaf:
        """Decrypt one value and remember its ciphertext."""
        value = _typed(*self._opened(text, place))
        self._sealed.append((place, text))
        return _broken(place) if value is None else value

    @functools.cached_property
    def _known(self) -> dict[tuple[str, str, bytes], str]:
        """What was encrypted before, by what it is; made when something is written, so that reading is fast."""
        return {(place, *self._opened(text, place)): text for place, text in self._sealed}

    def _opened(self, text: Leaf, place: str) -> tuple[str, bytes]:
        """Return the type and the bytes of one encrypted value."""
        match = _LEAF.fullmatch(text) if isinstance(text, str) else None
        if match is None:
            return _broken(place)
        data, iv, tag, kind = match.groups()
        try:
            sealed = _unbase64(data, strict_mode=True) + _unbase64(tag, strict_mode=True)
            return kind, self._cipher.decrypt(_unbase64(iv, strict_mode=True), sealed, place.encode())
        except (self._invalid, ValueError):  # ValueError: no base64, or an IV of no length
            pass
        return _broken(place)


def _broken(place: str) -> NoReturn:
    raise IntegrityError(
        f"the value at {place!r} is not what was encrypted there: it, its place or its key was changed"
    )


def _mapped(node: Any, visit: Visit, rule: Rule) -> Any:  # noqa: ANN401  nested dicts, lists and leaves
    """Copy a tree with every leaf visited, in order; ``place`` is the leaf's keys, each ended by a colon."""
    matches, encrypts = rule.matcher(), rule.encrypts

    def walk(node: Any, place: str, encrypted: bool) -> Any:  # noqa: ANN401, FBT001  the same
        if isinstance(node, dict):
            copy = {}
            for key, value in node.items():
                if not isinstance(key, str):
                    raise InvalidArgument(f"a key below {place!r} is not text")
                below = encrypts if matches(key) else encrypted
                here = f"{place}{key}:"
                copy[key] = visit(value, here, below) if type(value) is str else walk(value, here, below)
            return copy
        if isinstance(node, list | tuple):
            return [walk(item, place, encrypted) for item in node]
        return None if node is None else visit(node, place, encrypted)

    return walk(node, "", not encrypts)


def _plain(leaf: object, place: str) -> tuple[str, bytes]:
    """Return a leaf's type and bytes, both as sops notes them."""
    match leaf:
        case str() if (plain := _utf8(leaf)) is not None:
            return "str", plain
        case bool():
            return "bool", str(leaf).encode()
        case int() if -(2**63) <= leaf < 2**63:
            return "int", str(leaf).encode()
        case float():
            return "float", _decimal(leaf).encode()
        case bytes():
            return "bytes", leaf
    why = "is a number of more than 64 bits" if isinstance(leaf, int) else f"is a {type(leaf).__name__} (quote dates)"
    raise InvalidArgument(f"the value at {place!r} {'is not Unicode text' if isinstance(leaf, str) else why}")


def _utf8(text: str) -> bytes | None:
    try:
        return text.encode()
    except UnicodeEncodeError:  # which holds the text, so nothing may be raised here
        return None


def _decimal(value: float) -> str:
    """Write a float as Go does: the shortest digits, never an exponent, no ``.0``."""
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else "+Inf" if value > 0 else "-Inf"
    return format(Decimal(repr(value)), "f").removesuffix(".0")


def _typed(kind: str, plain: bytes) -> Leaf | None:
    """Return the value of a decrypted leaf; ``None`` if it is not of that type. No error may hold the value."""
    try:
        if kind == "str":  # most are
            return plain.decode()
        if kind in {"int", "int64"}:
            return int(plain)
        if kind == "float":
            return float(plain)
    except ValueError:
        return None
    if kind == "bytes":
        return plain
    return {b"true": True, b"false": False}.get(plain.lower()) if kind == "bool" else None


# the section `sops`


def _split(tree: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    meta = tree.pop("sops", None)
    if not isinstance(meta, dict):
        raise IntegrityError("it is no SOPS file: it has no section 'sops'")
    refused = [name for name in _REFUSED if meta.get(name)]
    if refused:
        raise Unsupported(f"it uses {', '.join(refused)}, which is not supported here; use sops")
    return tree, meta


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

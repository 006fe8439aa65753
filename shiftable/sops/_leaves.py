"""The leaves of a document on their way in and out: each is decrypted or encrypted, and all are hashed for the MAC."""

from __future__ import annotations

import binascii
import functools
import hashlib
import math
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from decimal import Decimal
from typing import Any, Literal, NoReturn

import attrs

from shiftable.errors import IntegrityError, InvalidArgument
from shiftable.sops._age import needed
from shiftable.sops._comments import Comment, Found, Place

__all__ = [
    "Leaf",
    "Opened",
    "Rule",
    "RuleKind",
    "Sealed",
    "Sealing",
    "encrypted_leaves",
    "is_encrypted",
    "open_leaf",
    "open_tree",
]

RuleKind = Literal["unencrypted_suffix", "encrypted_suffix", "unencrypted_regex", "encrypted_regex"]

Leaf = str | int | float | bool | bytes


@attrs.frozen
class Sealed:
    """What is encrypted, and where."""

    places: list[str] = attrs.Factory(list)
    texts: list[str] = attrs.Factory(list)

    def add(self, place: str, text: str) -> None:
        self.places.append(place)
        self.texts.append(text)


_HEAD = "ENC[AES256_GCM,data:"
_TAIL = ",type:str]"
_LEAF = re.compile(r"ENC\[AES256_GCM,data:([^,]+),iv:([^,]+),tag:([^,]+),type:([a-z0-9]+)\]")
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")
_ONLY_ENCRYPTED = hashlib.sha256(b"sops").digest()
"""What the MAC begins with when it leaves out values in clear, so that nobody can switch that on unseen."""

_unbase64 = binascii.a2b_base64


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

    def any_matcher(self) -> Callable[[Iterable[str]], bool]:
        """Return what answers false only if no key of a mapping matches, faster than one after the other."""
        if self.kind.endswith("regex"):
            matches = self.matcher()
            return lambda keys: any(map(matches, keys))
        pattern = self.pattern
        return lambda keys: pattern in "\0".join(keys)

    def covers(self, place: Place) -> bool:
        """Tell whether a value there is encrypted."""
        matches = self.matcher()
        return any(matches(key) for key in place if isinstance(key, str)) is self.encrypts


# reading


@attrs.frozen
class Opened:
    """What reading has found: the mac, as hash over the values, and what was encrypted where."""

    mac: str
    sealed: Sealed = attrs.field(repr=False)
    comments: tuple[Comment, ...] = ()
    in_clear: tuple[Comment, ...] = ()


def _cipher(key: bytes) -> Any:  # noqa: ANN401  of cryptography, which is imported where it is used
    """Return AES-GCM with a data key."""
    return needed("cryptography.hazmat.primitives.ciphers.aead").AESGCM(key)


def open_tree(
    tree: dict[str, Any], found: Iterable[Found], key: bytes, rule: Rule, *, only_encrypted: bool, raw: bool
) -> Opened:
    """Decrypt all leaves of a tree in place, and its comments.

    Values are collected first and decrypted together, as calls for each cost more than the decryption.

    Args:
        only_encrypted: the MAC leaves out what is in clear.
        raw: texts are bytes: the file is binary.
    """
    aes = _cipher(key)
    gathered = _Gathered(rule, only_encrypted=only_encrypted)
    gathered.walk(tree, "", encrypted=not rule.encrypts)
    kinds, plains = _decrypted(aes, gathered.places, gathered.texts)
    values = plains if raw else _typed_all(kinds, plains, gathered.places)
    mac = gathered.mac(plains if raw or _only_text(kinds) else [_plain(value, "")[1] for value in values])
    left = iter(values)
    for node, keys in gathered.targets:
        node.update(zip(keys, left, strict=False)) if isinstance(node, dict) else _fill(node, keys, left)
    sealed = Sealed(gathered.places, gathered.texts)
    comments, in_clear = _opened_comments(aes, found, rule, sealed)
    return Opened(mac, sealed, comments, in_clear)


def _fill(node: list[Any], keys: Sequence[int], values: Iterator[Any]) -> None:
    for key in keys:
        node[key] = next(values)


class _Gathered:
    """All encrypted leaves of a tree in order, where they belong, and what in clear the MAC has between them."""

    def __init__(self, rule: Rule, *, only_encrypted: bool) -> None:
        self.places: list[str] = []
        self.texts: list[str] = []
        self.targets: list[tuple[Any, Sequence[Any]]] = []
        self._only_encrypted = only_encrypted
        self._clear: list[tuple[int, bytes]] = []
        self._encrypts = rule.encrypts
        self._matches = rule.matcher()
        self._any_matches = rule.any_matcher()

    def walk(self, node: Any, place: str, *, encrypted: bool) -> None:  # noqa: ANN401  nested dicts, lists and leaves
        if type(node) is dict:
            if not self._any_matches(node) and self._plainly(node, place, encrypted=encrypted):
                return
            matches, encrypts = self._matches, self._encrypts
            for key, value in node.items():
                self._step(node, key, value, f"{place}{key}:", encrypted=encrypts if matches(key) else encrypted)
        else:
            for number, value in enumerate(node):
                self._step(node, number, value, place, encrypted=encrypted)

    def _plainly(self, node: dict[str, Any], place: str, *, encrypted: bool) -> bool:
        """Take a whole mapping whose values are all encrypted; most of a large file are such."""
        values = node.values()
        if not encrypted or set(map(type, values)) != {str} or "" in values:
            return False
        self.texts.extend(values)
        self.places.extend([f"{place}{key}:" for key in node])
        self.targets.append((node, list(node)))
        return True

    def _step(self, node: Any, key: str | int, value: Any, place: str, *, encrypted: bool) -> None:  # noqa: ANN401  the same
        if isinstance(value, dict | list):
            self.walk(value, place, encrypted=encrypted)
        elif value is None or (encrypted and value == ""):
            return
        elif encrypted:
            if not isinstance(value, str):
                _broken(place)
            self.texts.append(value)
            self.places.append(place)
            self.targets.append((node, (key,)))
        elif not self._only_encrypted:
            self._clear.append((len(self.texts), _plain(value, place)[1]))

    def mac(self, hashed: Sequence[bytes]) -> str:
        """Hash all values in the order of the document."""
        digest = hashlib.sha512(_ONLY_ENCRYPTED if self._only_encrypted else b"")
        start = 0
        for count, clear in self._clear:
            digest.update(b"".join(hashed[start:count]))
            digest.update(clear)
            start = count
        digest.update(b"".join(hashed[start:] if start else hashed))
        return digest.hexdigest().upper()


def _decrypted(aes: Any, places: Sequence[str], texts: Sequence[str]) -> tuple[list[str], list[bytes]]:  # noqa: ANN401  see _cipher
    """Return the types and the bytes of encrypted values."""
    invalid = needed("cryptography.exceptions").InvalidTag
    if _usual(texts):
        try:
            return ["str"] * len(texts), _decrypted_usual(aes.decrypt, places, texts)
        except (invalid, ValueError):  # ValueError: no base64
            pass  # slowly, which finds the place
    kinds, plains = [], []
    for place, text in zip(places, texts, strict=True):
        kind, plain = _decrypted_one(aes.decrypt, place, text, invalid)
        kinds.append(kind)
        plains.append(plain)
    return kinds, plains


def _usual(texts: Sequence[str]) -> bool:
    """Tell whether all values are text in the form of sops, whose parts have their places; a few searches for all.

    The words between the parts are not looked at one by one: nothing depends on them.
    """
    joined = "\n".join(texts)
    ends = joined.startswith(_HEAD) and joined.endswith(_TAIL)
    count = len(texts)
    return ends and joined.count(f"{_TAIL}\n{_HEAD}") == count - 1 and joined.count(",") == 4 * count


def _decrypted_usual(
    decrypt: Callable[[bytes, bytes, bytes], bytes], places: Sequence[str], texts: Sequence[str]
) -> list[bytes]:
    """Decrypt texts whose last 87 characters are ``,iv:``, 44 of base64, ``,tag:``, 24 of base64 and the tail.

    In two passes: base64 and AES by turns take a fifth longer than one after the other.
    """
    unbase64 = _unbase64
    ivs = [unbase64(text[-83:-39], strict_mode=True) for text in texts]
    sealed = [unbase64(text[20:-87], strict_mode=True) + unbase64(text[-34:-10], strict_mode=True) for text in texts]
    return list(map(decrypt, ivs, sealed, map(str.encode, places)))


def _decrypted_one(
    decrypt: Callable[[bytes, bytes, bytes], bytes], place: str, text: str, invalid: type[Exception]
) -> tuple[str, bytes]:
    match = _LEAF.fullmatch(text)
    if match is None:
        return _broken(place)
    data, iv, tag, kind = match.groups()
    try:
        sealed = _unbase64(data, strict_mode=True) + _unbase64(tag, strict_mode=True)
        return kind, decrypt(_unbase64(iv, strict_mode=True), sealed, place.encode())
    except (invalid, ValueError):  # ValueError: no base64, or an IV of no length
        pass
    return _broken(place)


def _only_text(kinds: Sequence[str]) -> bool:
    return set(kinds) <= {"str"}


def _typed_all(kinds: Sequence[str], plains: Sequence[bytes], places: Sequence[str]) -> list[Any]:
    try:
        if _only_text(kinds):
            return [plain.decode() for plain in plains]
    except UnicodeDecodeError:  # which holds the value, so nothing may be raised here
        pass
    values = [_typed(kind, plain) for kind, plain in zip(kinds, plains, strict=True)]
    if None in values:
        _broken(next(place for place, value in zip(places, values, strict=True) if value is None))
    return values


def _typed(kind: str, plain: bytes) -> Leaf | None:
    """Return the value of a decrypted leaf; ``None`` if it is not of that type. No error may hold the value."""
    try:
        if kind == "str":
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


def _broken(place: str) -> NoReturn:
    raise IntegrityError(
        f"the value at {place!r} is not what was encrypted there: it, its place or its key was changed"
    )


def _opened_comments(
    aes: Any,  # noqa: ANN401  see _cipher
    found: Iterable[Found],
    rule: Rule,
    sealed: Sealed,
) -> tuple[tuple[Comment, ...], tuple[Comment, ...]]:
    """Return all comments, and those of them that stand in clear where the rule says that they are encrypted."""
    comments: list[Comment] = []
    in_clear: list[Comment] = []
    for each in found:
        for place, before in each.places if each.text.startswith("ENC[") else ():
            if rule.covers(place):
                try:
                    kinds, plains = _decrypted(aes, [_aad(place)], [each.text])
                    text = plains[0].decode() if kinds == ["comment"] else None
                except (IntegrityError, UnicodeDecodeError):
                    continue
                if text is not None:
                    comments.append(Comment(text, place, before))
                    sealed.add(_aad(place), each.text)
                    break
        else:
            comments.append(Comment(each.text, *each.places[0]))
            if each.text and rule.covers(each.places[0][0]):
                in_clear.append(comments[-1])
    return tuple(comments), tuple(in_clear)


def _aad(place: Place) -> str:
    """Return what a comment is bound to: the keys on the way to it, each ended by a colon, and at least the colon."""
    return "".join(f"{key}:" for key in place if isinstance(key, str)) or ":"


# writing


class Sealing:
    """Encrypts leaf by leaf; what was encrypted before keeps its ciphertext."""

    def __init__(self, key: bytes, rule: Rule, sealed: Sealed, *, only_encrypted: bool, json: bool, raw: bool) -> None:
        self._aes = _cipher(key)
        self._rule = rule
        self._sealed = sealed
        self._only_encrypted = only_encrypted
        self._json = json
        self._raw = raw
        self._hash = hashlib.sha512(_ONLY_ENCRYPTED if only_encrypted else b"")

    def mac(self) -> str:
        """Return the hash over the leaves so far."""
        return self._hash.hexdigest().upper()

    def tree(self, node: dict[str, Any]) -> dict[str, Any]:
        """Copy a tree with every leaf as it is written."""
        matches, encrypts = self._rule.matcher(), self._rule.encrypts

        def walk(node: Any, place: str, encrypted: bool) -> Any:  # noqa: ANN401, FBT001  nested dicts, lists and leaves
            if isinstance(node, dict):
                copy = {}
                for key, value in node.items():
                    if not isinstance(key, str) or _utf8(key) is None:
                        raise InvalidArgument(f"a key below {place!r} is not text")
                    copy[key] = walk(value, f"{place}{key}:", encrypts if matches(key) else encrypted)
                return copy
            if isinstance(node, list | tuple):
                return [walk(item, place, encrypted) for item in node]
            return None if node is None else self._leaf(node, place, encrypted=encrypted)

        copy: dict[str, Any] = walk(node, "", not encrypts)
        return copy

    def comments(self, comments: Iterable[Comment]) -> list[Comment]:
        """Return comments as they are written: encrypted where values are."""
        written = []
        for comment in comments:
            plain = _utf8(comment.text)
            if plain is None or _UNPRINTABLE.search(comment.text):
                raise InvalidArgument("a comment is not one line of text")
            if comment.text and self._rule.covers(comment.place):
                written.append(attrs.evolve(comment, text=self.encrypted("comment", plain, _aad(comment.place))))
            else:
                written.append(comment)
        return written

    def _leaf(self, leaf: Leaf, place: str, *, encrypted: bool) -> Leaf:
        """Encrypt one leaf for a file. The empty text stays as it is, as in sops."""
        kind, plain = _plain(leaf, place)
        if kind == "bytes" and self._raw:
            kind = "str"
        elif leaf == b"":
            raise InvalidArgument(f"the value at {place!r} is bytes, and none; sops reads no such")
        if not encrypted and (kind == "bytes" or (isinstance(leaf, float) and not math.isfinite(leaf))):
            raise InvalidArgument(f"the value at {place!r} can only be stored encrypted")
        if not encrypted and self._json and isinstance(leaf, int) and abs(leaf) > 2**53:  # sops reads floats there
            raise InvalidArgument(f"the value at {place!r} is too large a number for JSON in clear")
        if encrypted or not self._only_encrypted:
            self._hash.update(plain)
        return leaf if not encrypted else self.encrypted(kind, plain, place) if plain else ""

    def encrypted(self, kind: str, plain: bytes, place: str) -> str:
        """Encrypt one value, or return what it was encrypted as before."""
        known = self._known.get((place, kind, plain))
        if known is not None:
            return known
        iv = os.urandom(32)
        sealed = self._aes.encrypt(iv, plain, place.encode())
        data, iv64, tag = (
            binascii.b2a_base64(part, newline=False).decode() for part in (sealed[:-16], iv, sealed[-16:])
        )
        text = f"{_HEAD}{data},iv:{iv64},tag:{tag},type:{kind}]"
        self._sealed.add(place, text)
        self._known[place, kind, plain] = text
        return text

    @functools.cached_property
    def _known(self) -> dict[tuple[str, str, bytes], str]:
        """What was encrypted before, by what it is; made when something is written, so that reading is fast."""
        places, texts = self._sealed.places, self._sealed.texts
        kinds, plains = _decrypted(self._aes, places, texts)
        return dict(zip(zip(places, kinds, plains, strict=True), texts, strict=True))


def encrypted_leaves(tree: dict[str, Any], rule: Rule) -> Iterator[tuple[str, bytes]]:
    """Yield the places and the bytes of all values that are encrypted, in order."""
    matches, encrypts = rule.matcher(), rule.encrypts

    def walk(node: Any, place: str, encrypted: bool) -> Iterator[tuple[str, bytes]]:  # noqa: ANN401, FBT001  nested
        if isinstance(node, dict):
            for key, value in node.items():
                yield from walk(value, f"{place}{key}:", encrypts if matches(key) else encrypted)
        elif isinstance(node, list | tuple):
            for item in node:
                yield from walk(item, place, encrypted)
        elif encrypted and node not in (None, "", b""):
            yield place, _plain(node, place)[1]

    return walk(tree, "", not encrypts)


def is_encrypted(text: bytes) -> bool:
    """Tell whether a text has the form of an encrypted value."""
    return _LEAF.fullmatch(text.decode(errors="replace")) is not None


def open_leaf(key: bytes, text: str, place: str) -> Leaf:
    """Decrypt one value."""
    places = [place]
    value: Leaf = _typed_all(*_decrypted(_cipher(key), places, [text]), places)[0]
    return value


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

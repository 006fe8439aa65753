"""How one secret with stages lies in a KV v2 store. Nothing here sends anything.

A path of KV v2 has numbered versions, of which the newest is what every reader gets. The rules:

* **The newest is the current one, for everybody.** A version is the number under which it was stored, ``7``. To
  promote an older one stores its fields again as the newest, with a mark that says which version it is.
* **A pending version lies beside**, at the same path with the suffix ``.shiftable-pending``, and is ``p3`` there. The
  secret's custom metadata says which of those is pending.
* **The mark** is one more field, ``shiftable = "9 7 Xk3…"``: what is stored as 9 is version 7, and this is the digest
  of the idempotency key that it was stored with. A copy by another tool (rollback, patch) has a mark of another
  number, which does not count. What has nothing to say has no mark.
* **The index** in the custom metadata repeats the marks, so that nobody reads all versions to know them, and so that
  they are known of versions that are deleted. Versions newer than it reaches are read.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

import attrs

from shiftable.errors import Conflict, Fault, OperationError
from shiftable.masking import Masked

__all__ = [
    "MARK",
    "OWN",
    "SUFFIX",
    "CasMismatch",
    "Document",
    "Mark",
    "Meta",
    "Refusal",
    "Track",
    "digest",
    "fields_of",
    "marked",
    "moment",
    "ranges",
    "unranged",
]

OWN = "shiftable-"
"""How the names of this driver's custom metadata begin."""

SUFFIX = ".shiftable-pending"

MARK = "shiftable"
"""The field of the mark."""

_VALUE, _ENCODING = "value", "encoding"
_BASE64 = "base64"
_MARK_TEXT = re.compile(r"(\d+) (p?\d+)(?: ([\w-]{12}))?", re.ASCII)
_INDEX = f"{OWN}index"
_INDEX_TEXT = re.compile(r"(\d+)-(\d+)((?: \d+=p?\d+(?:#[\w-]{12})?)*)", re.ASCII)
_LONGEST = 512
_SECOND = timedelta(seconds=1)


class Refusal(Exception):
    """What this driver answers in place of an error of hvac's; ``fault`` says what it means."""

    def __init__(self, error: type[OperationError], message: str, code: str = "") -> None:
        super().__init__(message)
        self.fault = Fault(error, message, code)


class CasMismatch(Refusal):
    """Somebody else has written since; nothing was stored."""

    def __init__(self) -> None:
        super().__init__(Conflict, "other writers were faster, again and again")


@attrs.frozen
class Mark:
    """Which version something stored is, and the digest of its idempotency key."""

    version: str
    key: str = ""


@attrs.frozen
class Stored:
    """What the metadata of a path tells of one number."""

    created: str
    deleted: datetime | None
    destroyed: bool

    @property
    def readable(self) -> bool:
        return self.deleted is None and not self.destroyed


@attrs.frozen
class Meta:
    """What the metadata of a path tell: its numbers, and what goes with it."""

    newest: int
    numbers: Mapping[int, Stored]
    custom: Mapping[str, str]
    updated: datetime | None

    @classmethod
    def of(cls, answer: Mapping[str, Any]) -> Meta:
        told, now = answer["data"], answer["date"]
        numbers = {
            int(number): Stored(each["created_time"], _past(each["deletion_time"], now), bool(each["destroyed"]))
            for number, each in (told["versions"] or {}).items()
        }
        return cls(
            int(told["current_version"]), numbers, told.get("custom_metadata") or {}, moment(told["updated_time"])
        )


@attrs.frozen
class Document:
    """What one number holds; ``fields`` is ``None`` where it cannot be read any more."""

    number: int
    created: str
    destroyed: bool
    fields: Mapping[str, Any] | None = attrs.field(repr=False)
    custom: Mapping[str, str]

    @classmethod
    def of(cls, answer: Mapping[str, Any]) -> Document:
        told = answer["data"]
        about = told["metadata"]
        custom = about.get("custom_metadata") or {}
        return cls(int(about["version"]), about["created_time"], bool(about["destroyed"]), told["data"], custom)

    @property
    def mark(self) -> Mark | None:
        """The mark, if it is of this number."""
        found = _MARK_TEXT.fullmatch(str((self.fields or {}).get(MARK, "")))
        return Mark(found[2], found[3] or "") if found and int(found[1]) == self.number else None

    @property
    def content(self) -> dict[str, Any]:
        """The fields without a mark, also one that was copied from another number."""
        marked = _MARK_TEXT.fullmatch(str((self.fields or {}).get(MARK, "")))
        return {name: each for name, each in (self.fields or {}).items() if name != MARK or not marked}

    @property
    def value(self) -> Masked:
        """The field ``value``, decoded where ``encoding`` says so; of other fields all, as the text of an object."""
        content = self.content
        value = content.get(_VALUE)
        if isinstance(value, str):
            if set(content) == {_VALUE}:
                return Masked(value)
            if set(content) == {_VALUE, _ENCODING} and content[_ENCODING] == _BASE64:
                try:
                    return Masked(base64.b64decode(value, validate=True))
                except binascii.Error:
                    pass
        return Masked(json.dumps(content, ensure_ascii=False, sort_keys=True, separators=(",", ":")))


@attrs.frozen
class Track:
    """One path: its numbers, oldest first, and which version each is."""

    meta: Meta
    marks: Mapping[int, Mark]
    indexed: bool
    letter: str = ""

    @classmethod
    def read(
        cls, meta: Meta, read: Callable[[int], Document | None], *, letter: str = "", whole: bool = False
    ) -> Track:
        """Take the marks from the index, and from what is newer or older than it.

        Args:
            whole: without an index look at all that is kept: whoever stored the first mark may not have got further,
                and another tool may have dropped the index.
        """
        kept = sorted(meta.numbers)
        index = _INDEX_TEXT.fullmatch(meta.custom.get(_INDEX, ""))
        marks: dict[int, Mark] = {}
        unread = kept if whole else []
        if index is not None:
            first, last = int(index[1]), int(index[2])
            for entry in index[3].split():
                number, _, rest = entry.partition("=")
                version, _, key = rest.partition("#")
                marks[int(number)] = Mark(version, key)
            unread = [number for number in kept if not first <= number <= last]
        for number in unread:
            document = read(number) if meta.numbers[number].readable else None
            if document is not None and document.mark is not None:
                marks[number] = document.mark
        kept_marks = {number: mark for number, mark in marks.items() if number in meta.numbers}
        return cls(meta, kept_marks, index is not None, letter)

    def version(self, number: int) -> str:
        """Return which version a number is."""
        mark = self.marks.get(number)
        return mark.version if mark else f"{self.letter}{number}"

    def numbers(self, version: str) -> tuple[int, ...]:
        """Return the numbers under which a version is stored."""
        return tuple(number for number in sorted(self.meta.numbers) if self.version(number) == version)

    def keyed(self, key: str) -> str | None:
        """Return the version that was stored with an idempotency key, unless it is destroyed."""
        for number, mark in sorted(self.marks.items()):
            if mark.key == key and not self.meta.numbers[number].destroyed:
                return mark.version
        return None

    def with_mark(self, number: int, mark: Mark | None) -> Track:
        """Return the path with one number more."""
        return attrs.evolve(self, marks={**self.marks, number: mark} if mark else self.marks)

    def index(self, newest: int) -> dict[str, str | None]:
        """Return the custom metadata that repeat the marks; the oldest are left out where they are too long."""
        first = min(self.meta.numbers, default=1)
        entries = [
            (number, f" {number}={mark.version}{'#' + mark.key if mark.key else ''}")
            for number, mark in sorted(self.marks.items())
        ]
        while sum(len(text) for _, text in entries) > _LONGEST - 24:
            first = entries.pop(0)[0] + 1
        return {_INDEX: f"{first}-{newest}{''.join(text for _, text in entries)}"}


def fields_of(value: Masked) -> dict[str, Any]:
    """Return the fields that hold a value: text as it is, bytes in base64, and a field that says so."""
    if value.is_text:
        return {_VALUE: value.reveal()}
    return {_VALUE: base64.b64encode(value.reveal_bytes()).decode(), _ENCODING: _BASE64}


def marked(fields: Mapping[str, Any], number: int, mark: Mark | None) -> dict[str, Any]:
    """Return fields with the mark of the number that they will be stored as."""
    if mark is None:
        return dict(fields)
    return {**fields, MARK: f"{number} {mark.version}{' ' + mark.key if mark.key else ''}"}


def digest(idempotency_key: str) -> str:
    """Return what is kept of an idempotency key."""
    return base64.urlsafe_b64encode(hashlib.sha256(idempotency_key.encode()).digest()[:9]).decode()


def ranges(numbers: Iterable[int]) -> str:
    """Write numbers as ``1-4,7``."""
    found: list[tuple[int, int]] = []
    for number in sorted(numbers):
        if found and found[-1][1] == number - 1:
            found[-1] = (found[-1][0], number)
        else:
            found.append((number, number))
    return ",".join(f"{first}-{last}" if first < last else f"{first}" for first, last in found)


def unranged(text: str) -> list[int]:
    """Read what ``ranges`` wrote; nothing else is any."""
    if not re.fullmatch(r"\d+(-\d+)?(,\d+(-\d+)?)*", text, re.ASCII):
        return []
    pairs = (part.partition("-") for part in text.split(","))
    return [number for first, _, last in pairs for number in range(int(first), int(last or first) + 1)]


def moment(text: str) -> datetime | None:
    """Read a time as the server writes them."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found.astimezone(UTC) if found.tzinfo else None


def _past(deletion: str, date: str) -> datetime | None:
    """Return when something was deleted; a time that is yet to come (``delete_version_after``) is none.

    The server's own clock decides, from the ``Date`` of the same answer, which is cut to seconds.
    """
    at = moment(deletion)
    try:
        now = parsedate_to_datetime(date)
    except ValueError:
        now = datetime.now(UTC)
    return at if at is not None and at < now + _SECOND else None

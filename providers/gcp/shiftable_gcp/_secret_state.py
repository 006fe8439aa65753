"""What stands beside the versions of a secret in Secret Manager: its stages, labels and expiry, and who wrote what.

Aliases are the stages. What Secret Manager has no place for stands in annotations whose names begin with
``shiftable-``; everybody else's are left alone.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import attrs

from shiftable.secrets.driver import STAGES, Stage
from shiftable.secrets.names import NAME_LABEL, NameMap
from shiftable.tokens import Token

__all__ = [
    "EMPTY",
    "EXPIRES",
    "LABELS",
    "MAX_LABELS_TEXT",
    "WRITES",
    "Entry",
    "Journal",
    "State",
    "label_facts",
    "labels_text",
    "mark_of",
    "read_time",
]

EXPIRES = "shiftable-expires"
LABELS = "shiftable-labels"
WRITES = "shiftable-writes"
EMPTY = "-"
"""What ``WRITES`` says of a secret that was made, and whose first version is not settled."""

MAX_LABELS_TEXT = 6 * 1024
_MAX_WRITES_TEXT = 6 * 1024  # both, the name and the rest stay well below the 16 KiB of all annotations
_EPOCH, _MICROSECOND = datetime(1970, 1, 1, tzinfo=UTC), timedelta(microseconds=1)
_ENTRY = re.compile(r"(\d{1,18})(?:@([0-9a-f]{1,14}))?(?:=([\w-]{12}))?", re.ASCII)
_LABEL_NAME = re.compile(r"[a-z][a-z0-9_-]{0,62}")
_LABEL_VALUE = re.compile(r"[a-z0-9_-]{0,63}")


@attrs.frozen
class Entry:
    """One version that became part of a secret.

    Args:
        made: when.
        mark: of the write that made it so: see ``mark_of``.
    """

    version: int
    made: datetime | None = None
    mark: str = ""

    @property
    def text(self) -> str:
        """The entry as a word."""
        made = f"@{(self.made - _EPOCH) // _MICROSECOND:x}" if self.made else ""
        return f"{self.version}{made}{'=' if self.mark else ''}{self.mark}"


def mark_of(key: str | None) -> str:
    """Return what tells a write from all others: made of its idempotency key, or of chance.

    72 bits of a hash, as keys have up to 128 characters and many have to stand in one annotation.
    """
    digest = secrets.token_bytes(9) if key is None else hashlib.sha256(key.encode()).digest()[:9]
    return base64.urlsafe_b64encode(digest).decode()


@attrs.frozen
class Journal:
    """Which versions became part of a secret, oldest first.

    >>> Journal.read("1 2@6442d2d4f8b40=kFuK9kSvJCKL").added(4, None, "").text
    '1 2@6442d2d4f8b40=kFuK9kSvJCKL 4'
    """

    entries: tuple[Entry, ...] = ()

    @classmethod
    def read(cls, text: str) -> Journal:
        """Read an annotation; what is no entry is none."""
        words = (_ENTRY.fullmatch(word) for word in text.split())
        found = (
            Entry(int(word[1]), _EPOCH + int(word[2], 16) * _MICROSECOND if word[2] else None, word[3] or "")
            for word in words
            if word
        )
        return cls(tuple(found))

    @property
    def text(self) -> str:
        """The annotation; of a long history its end."""
        text = " ".join(entry.text for entry in self.entries) or EMPTY
        return text if len(text) <= _MAX_WRITES_TEXT else text[-_MAX_WRITES_TEXT:].partition(" ")[2]

    @property
    def newest(self) -> int:
        """The highest version; 0 if there is none."""
        return max((entry.version for entry in self.entries), default=0)

    def __contains__(self, version: int) -> bool:
        return any(version == entry.version for entry in self.entries)

    def made(self, version: int) -> datetime | None:
        """Return when a version was made, if that is noted."""
        return next((entry.made for entry in self.entries if entry.version == version), None)

    def find(self, mark: str) -> int | None:
        """Return the version that a write with that mark made part of the secret."""
        return next((entry.version for entry in reversed(self.entries) if entry.mark == mark), None)

    def added(self, version: int, made: datetime | None, mark: str) -> Journal:
        """Return it with one more version."""
        return Journal((*self.entries, Entry(version, made, mark)))


@attrs.frozen(kw_only=True)
class State:
    """A secret without its values.

    Args:
        name: ours; ``native`` is the id.
        newest: the newest enabled version; looked for only where no alias says what is current.
        exists: whether there is any version; looked for only there, too.
    """

    native: str
    name: str
    etag: str
    aliases: Mapping[str, int]
    native_labels: Mapping[str, str]
    annotations: Mapping[str, str]
    expire_time: datetime | None
    newest: int | None = None
    exists: bool = False

    @classmethod
    def read(cls, answer: Mapping[str, Any], names: NameMap) -> State:
        """Read what the service tells of a secret."""
        native = answer["name"].rpartition("/")[2]
        annotations = answer.get("annotations") or {}
        return cls(
            native=native,
            name=names.name(native, annotations.get(NAME_LABEL)),
            etag=answer.get("etag", ""),
            aliases={alias: int(number) for alias, number in (answer.get("versionAliases") or {}).items()},
            native_labels=answer.get("labels") or {},
            annotations=annotations,
            expire_time=read_time(answer.get("expireTime")),
        )

    @property
    def is_pinned(self) -> bool:
        """Whether an alias says what is current."""
        return "current" in self.aliases

    @property
    def is_half_made(self) -> bool:
        """Whether somebody made it for a first version, which has not become current yet."""
        return not self.is_pinned and self.annotations.get(WRITES) == EMPTY

    @property
    def is_alive(self) -> bool:
        """Whether there is anything to read: a secret without versions is as if it were not there."""
        return self.is_pinned or (self.exists and not self.is_half_made)

    @property
    def current(self) -> int | None:
        """The current version."""
        return self.aliases.get("current", None if self.is_half_made else self.newest)

    @property
    def stages(self) -> dict[Stage, int]:
        """Which version has which stage."""
        found: dict[Stage, int] = {stage: self.aliases[stage] for stage in STAGES if stage in self.aliases}
        if self.current is not None:
            found["current"] = self.current
        if "pending" in found and found["pending"] == found.get("current"):
            del found["pending"]
        return found

    def stages_of(self, version: int) -> frozenset[Stage]:
        """Return the stages of a version."""
        return frozenset(stage for stage, number in self.stages.items() if number == version)

    def moved(self, number: int, stage: Literal["current", "pending"]) -> dict[str, int]:
        """Return the aliases with one stage moved, as the contract of promote and put says."""
        aliases = dict(self.aliases)
        if stage == "pending":
            return aliases | {"pending": number}
        if self.current is not None and self.current != number:
            aliases["previous"] = self.current
        if aliases.get("pending") == number:
            del aliases["pending"]
        return aliases | {"current": number}

    @property
    def token(self) -> Token:
        """The etag; and the current version, as the etag does not change with a version that another tool adds."""
        return Token(f"{self.etag} {self.current or ''}")

    @property
    def labels(self) -> dict[str, str]:
        """All labels: those that are native, and those that could not be."""
        return _folded_labels(self.annotations.get(LABELS)) | dict(self.native_labels)

    @property
    def expires(self) -> datetime | None:
        """When it should no longer be used: what we noted, or when Google deletes it, whichever comes first."""
        moments = [read_time(self.annotations.get(EXPIRES)), self.expire_time]
        return min((moment.replace(microsecond=0) for moment in moments if moment is not None), default=None)

    @property
    def journal(self) -> Journal:
        """Which versions became part of it."""
        return Journal.read(self.annotations.get(WRITES, ""))

    @property
    def known(self) -> int:
        """The highest version of which we know how it came here."""
        return max(self.journal.newest, self.newest or 0, *self.aliases.values(), 0)


def label_facts(
    annotations: Mapping[str, str],
    labels: Mapping[str, str] | None,
    expires: datetime | Literal["never"] | None,
) -> dict[str, Any]:
    """Return the fields of a secret that keep labels and expiry, beside the annotations that it has."""
    kept, facts = dict(annotations), dict[str, Any]()
    if labels is not None:
        facts["labels"] = {name: value for name, value in labels.items() if _is_native(name, value)}
        folded = {name: value for name, value in labels.items() if name not in facts["labels"]}
        kept.pop(LABELS, None)
        if folded:
            kept[LABELS] = labels_text(folded)
    if expires == "never":
        kept.pop(EXPIRES, None)
    elif expires is not None:
        kept[EXPIRES] = expires.strftime("%Y-%m-%dT%H:%M:%SZ")
    return facts | {"annotations": kept}


def labels_text(labels: Mapping[str, str]) -> str:
    """Write those labels that cannot be native as one annotation."""
    folded = {name: value for name, value in labels.items() if not _is_native(name, value)}
    return json.dumps(folded, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def read_time(text: str | None) -> datetime | None:
    """Read a time; ``None`` if it is none, or has no zone."""
    try:
        found = datetime.fromisoformat(text or "")
    except ValueError:
        return None
    return found.astimezone(UTC) if found.tzinfo else None


def _is_native(name: str, value: str) -> bool:
    """Tell whether Secret Manager could have it as a label, by the ASCII part of its rules."""
    return bool(_LABEL_NAME.fullmatch(name) and _LABEL_VALUE.fullmatch(value))


def _folded_labels(text: str | None) -> dict[str, str]:
    try:
        found = json.loads(text or "{}")
    except ValueError:
        return {}
    return {str(name): str(value) for name, value in found.items()} if isinstance(found, dict) else {}

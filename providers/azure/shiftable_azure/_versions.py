"""What Key Vault keeps of a secret's versions, and what is kept in a tag since it has no place for it."""

from __future__ import annotations

import base64
import binascii
import re
import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import attrs

from shiftable.masking import Masked
from shiftable.secrets.names import NAME_LABEL

if TYPE_CHECKING:
    from azure.keyvault.secrets import DeletedSecret, SecretProperties

__all__ = ["ENCODING_TAG", "RESERVED", "STATE_TAG", "Record", "Version", "in_order", "kept_as", "micros"]

STATE_TAG = "shiftable-state"
ENCODING_TAG = "file-encoding"
"""What ``az keyvault secret set --file --encoding base64`` writes, and ``az keyvault secret download`` obeys."""

_ID = re.compile("[0-9a-f]{32}")
_SECONDS = re.compile("[0-9]{1,11}")
_MICROS = re.compile("[0-9]{1,17}")

RESERVED = frozenset({NAME_LABEL, STATE_TAG, ENCODING_TAG})


@attrs.frozen
class Record:
    """What shiftable notes at each version that it writes, in one tag: ``previous=… made=… write=…``.

    Args:
        of: the version whose value was set again here, which is how an older one becomes current.
        born: when that one was made, in seconds.
        previous: the version that was current before.
        pending: the one that waits beside, as it is now.
        made: when this was written, in microseconds of the writer's clock: Key Vault's times are whole seconds.
        write: of the write, by which it is recognised when its answer is lost, and of an idempotency key.
    """

    of: str | None = None
    born: int | None = None
    previous: str | None = None
    pending: str | None = None
    made: int | None = None
    write: str | None = None

    @classmethod
    def read(cls, tags: Mapping[str, str]) -> Record | None:
        """Return what a version's tags say; ``None`` if another tool wrote it."""
        if STATE_TAG not in tags:
            return None
        found = dict(part.partition("=")[::2] for part in tags[STATE_TAG].split())
        return cls(
            of=_matched(_ID, found.get("of")),
            born=_number(_SECONDS, found.get("born")),
            previous=_matched(_ID, found.get("previous")),
            pending=_matched(_ID, found.get("pending")),
            made=_number(_MICROS, found.get("made")),
            write=_matched(_ID, found.get("write")),
        )

    def __str__(self) -> str:
        facts = attrs.asdict(self)
        return " ".join(f"{name}={value}" for name, value in facts.items() if value is not None)


@attrs.frozen(kw_only=True)
class Version:
    """One version as Key Vault has it.

    Args:
        id: Key Vault's own.
        text: its value, where it was asked for.
        level: what the vault says of the recovery of deleted secrets.
        days: how long it keeps them.
    """

    id: str
    set_at: datetime | None
    modified: datetime | None
    expires: datetime | None
    enabled: bool
    managed: bool
    content_type: str | None
    tags: Mapping[str, str]
    record: Record | None
    level: str
    days: int
    text: Masked | None = None

    @classmethod
    def read(cls, properties: SecretProperties, text: Masked | None = None) -> Version:
        """Take apart what the SDK answers."""
        tags = properties.tags or {}
        return cls(
            id=properties.version or "",
            set_at=_utc(properties.created_on),
            modified=_utc(properties.updated_on),
            expires=_utc(properties.expires_on),
            enabled=properties.enabled is not False,
            managed=bool(properties.managed),
            content_type=properties.content_type,
            tags=tags,
            record=Record.read(tags),
            level=str(getattr(properties.recovery_level, "value", properties.recovery_level) or ""),
            days=properties.recoverable_days or 0,
            text=text,
        )

    @property
    def logical(self) -> str:
        """The version that this is to users: the one whose value was set again here, or itself."""
        return (self.record.of if self.record else None) or self.id

    @property
    def created(self) -> datetime | None:
        """When the version was made that this is to users."""
        born = self.record.born if self.record else None
        return self.set_at if born is None else datetime.fromtimestamp(born, UTC)

    @property
    def labels(self) -> dict[str, str]:
        """The tags that are users'."""
        return {name: value for name, value in self.tags.items() if name not in RESERVED}

    @property
    def encoding(self) -> str | None:
        """How bytes are kept in the text, if they are."""
        return self.tags.get(ENCODING_TAG)

    def value(self) -> Masked:
        """Return the value, bytes where the tags say so and the text is of that kind."""
        text = self.text or Masked("")
        try:
            if self.encoding == "base64":
                return Masked(base64.b64decode(text.reveal(), validate=True))
            if self.encoding == "hex":
                return Masked(bytes.fromhex(text.reveal()))
        except (binascii.Error, ValueError):
            pass  # somebody copied the tag
        return text


def kept_as(value: Masked) -> tuple[Masked, str | None]:
    """Return a value as the text that Key Vault takes, and how bytes are encoded in it; text needs nothing."""
    try:
        return Masked(value.reveal()), None
    except ValueError:
        return Masked(base64.b64encode(value.reveal_bytes()).decode()), "base64"


def in_order(versions: Iterable[Version], latest: str | None = None) -> list[Version]:
    """Return versions, oldest first: by Key Vault's seconds, and within one by the writers' own clocks.

    Args:
        latest: the id of the one that Key Vault takes for the latest, which decides where other tools' clocks are
            not known.
    """

    def place(version: Version) -> tuple[float, float, str]:
        made = version.record.made if version.record else None
        unknown = float("inf") if version.id == latest else 0.0
        return (
            version.set_at.timestamp() if version.set_at else 0.0,
            unknown if made is None else float(made),
            version.id,
        )

    return sorted(versions, key=place)


def micros(after: Version | None = None) -> int:
    """Return the time for a record, later than that of the version before."""
    before = after.record.made if after and after.record else None
    return max(time.time_ns() // 1000, (before or 0) + 1)


def deleted_at(secret: DeletedSecret) -> datetime | None:
    """Return when a secret was deleted."""
    return _utc(secret.deleted_date)


def _matched(pattern: re.Pattern[str], text: str | None) -> str | None:
    """Return what others may have written over only if it can have been ours."""
    return text if text and pattern.fullmatch(text) else None


def _number(pattern: re.Pattern[str], text: str | None) -> int | None:
    found = _matched(pattern, text)
    return None if found is None else int(found)


def _utc(moment: datetime | None) -> datetime | None:
    return moment.astimezone(UTC) if moment else None

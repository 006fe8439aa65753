"""What is known of a secret on a Vault server without its values: stages, history, what goes with it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Literal

import attrs

from shiftable.secrets.driver import STAGES, SecretInfo, Stage
from shiftable.tokens import Token
from shiftable_baremetal._vault_layout import OWN, Meta, Track, moment

__all__ = [
    "DELETED",
    "DISABLED",
    "EXPIRES",
    "NONE",
    "PENDING",
    "About",
    "State",
    "announced",
    "changed",
    "expires_of",
    "info_of",
    "is_deletion",
    "labels_of",
    "number_of",
    "settled",
    "token_of",
]

PENDING = f"{OWN}pending"
"""Which version is pending, ``p3``; ``-3``: none, and what lies beside up to 3 has been promoted or replaced."""

EXPIRES = f"{OWN}expires"

DELETED = f"{OWN}deleted"
"""What ``delete`` deleted, so that ``restore`` undeletes no more: ``1-4,7 1``, at the path and beside."""

DISABLED = f"{OWN}disabled"
"""The newest number, where it is disabled and the secret is not deleted."""

NONE = "-"
"""What stands where nothing does: a value of custom metadata is not empty."""


_LONG_AGO = datetime(1, 1, 1, tzinfo=UTC)


@attrs.frozen
class State:
    """All that is known of a secret without its values."""

    main: Track
    beside: Track | None

    @property
    def _custom(self) -> Mapping[str, str]:
        return self.main.meta.custom

    @property
    def newest(self) -> int:
        return self.main.meta.newest

    @property
    def current(self) -> str:
        return self.main.version(self.newest)

    @property
    def previous(self) -> str | None:
        """The one that was current before, unless it is destroyed."""
        for number in sorted(self.main.meta.numbers, reverse=True):
            if self.main.version(number) != self.current:
                return self._kept(self.main.version(number))
        return None

    @property
    def named(self) -> str | None:
        """The one that the metadata say is pending."""
        found = self._custom.get(PENDING, NONE)
        return found if found.startswith("p") else None

    @property
    def pending(self) -> str | None:
        """That one, unless it was promoted since, or is destroyed."""
        named = self.named
        promoted = named in {mark.version for mark in self.main.marks.values()}
        return None if named is None or promoted else self._kept(named)

    @property
    def is_deleted(self) -> bool:
        """Whether it is deleted, and its newest version not only disabled."""
        newest = self.main.meta.numbers.get(self.newest)
        readable = newest is not None and newest.readable
        return not readable and is_deletion(self._custom, self.newest, destroyed=newest is None or newest.destroyed)

    @property
    def token(self) -> Token:
        newest = self.main.meta.numbers.get(self.newest)
        return token_of(self.newest, newest.created if newest else "", self._custom)

    @property
    def tracks(self) -> tuple[Track, ...]:
        return (self.main,) if self.beside is None else (self.main, self.beside)

    def version(self, stage: Stage) -> str | None:
        return {"current": self.current, "previous": self.previous, "pending": self.pending}[stage]

    def stages_of(self, version: str) -> frozenset[Stage]:
        return frozenset(stage for stage in STAGES if self.version(stage) == version)

    def readable(self, version: str) -> tuple[Track, int] | None:
        """Return where the value of a version can be read; of the current one where all others read it."""
        if version == self.current:
            newest = self.main.meta.numbers.get(self.newest)
            return (self.main, self.newest) if newest and newest.readable else None
        places = ((track, number) for track in self.tracks for number in track.numbers(version))
        return next(((track, number) for track, number in places if track.meta.numbers[number].readable), None)

    def known(self, version: str) -> bool:
        return any(track.numbers(version) for track in self.tracks)

    def keyed(self, key: str) -> str | None:
        return next((found for track in self.tracks if (found := track.keyed(key))), None)

    def history(self) -> Iterator[tuple[str, datetime | None]]:
        """Yield all versions and when they were stored, newest first: by number, and between both paths by time."""
        versions = {track.version(number) for track in self.tracks for number in track.meta.numbers}
        newest_first = sorted(versions, key=number_of, reverse=True)
        left = [[each for each in newest_first if each.startswith("p") is beside] for beside in (False, True)]
        while any(left):
            ahead = max((some for some in left if some), key=lambda some: self.created(some[0]) or _LONG_AGO)
            version = ahead.pop(0)
            yield version, self.created(version)

    def created(self, version: str) -> datetime | None:
        """Return when a version was stored first; ``None`` where only a later copy is kept."""
        track = self.beside if version.startswith("p") else self.main
        stored = track.meta.numbers.get(number_of(version)) if track is not None else None
        return moment(stored.created) if stored is not None else None

    def _kept(self, version: str) -> str | None:
        places = [(track, number) for track in self.tracks for number in track.numbers(version)]
        if places and all(track.meta.numbers[number].destroyed for track, number in places):
            return None
        return version


@attrs.frozen
class About:
    """What goes with a secret: labels that replace all, and an expiry; ``None`` leaves them."""

    labels: Mapping[str, str] | None
    expires: datetime | Literal["never"] | None

    def changes(self, before: Mapping[str, str]) -> dict[str, str | None]:
        """Return the changes of custom metadata; ``None`` removes one."""
        changes: dict[str, str | None] = {}
        if self.labels is not None:
            changes |= {name: None for name in labels_of(before) if name not in self.labels}
            changes |= {name: value for name, value in self.labels.items() if before.get(name) != value}
        if self.expires == "never":
            changes |= {EXPIRES: None} if EXPIRES in before else {}
        elif self.expires is not None:
            changes[EXPIRES] = self.expires.strftime("%Y-%m-%dT%H:%M:%SZ")
        return changes


def number_of(version: str | None) -> int:
    digits = (version or "").removeprefix("p")
    return int(digits) if digits.isdigit() else 0


def announced(custom: Mapping[str, str]) -> int:
    """Return up to which number the versions beside were once said to be pending."""
    return number_of(custom.get(PENDING, "").replace("-", "p"))


def settled(version: str) -> str:
    """Return what stands for a version that is no longer pending."""
    return version.replace("p", "-")


def is_deletion(custom: Mapping[str, str], newest: int, *, destroyed: bool) -> bool:
    """Tell whether a newest version that cannot be read means that the secret is deleted, not that one version is."""
    return DELETED in custom or not (destroyed or custom.get(DISABLED) == str(newest))


def token_of(number: int, created: str, custom: Mapping[str, str]) -> Token:
    """Name the newest version, the life of the secret (by when it was stored), and which version is pending."""
    return Token(f"{number}/{created}/{custom.get(PENDING, NONE)}")


def labels_of(custom: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in custom.items() if not name.startswith(OWN)}


def expires_of(custom: Mapping[str, str]) -> datetime | None:
    return moment(custom.get(EXPIRES, ""))


def changed(before: Mapping[str, str], changes: Mapping[str, str | None]) -> dict[str, str]:
    after = {**before, **changes}
    return {name: value for name, value in after.items() if value is not None}


def info_of(name: str, meta: Meta) -> SecretInfo:
    """Tell what the metadata tell; the version only where the index reaches, or where there never was a mark."""
    unread: list[int] = []
    state = State(Track.read(meta, unread.append), None)
    newest = meta.numbers.get(meta.newest)
    return SecretInfo(
        name=name,
        version=None if meta.newest in unread else state.current,
        modified=moment(newest.created) if newest else meta.updated,
        labels=labels_of(meta.custom),
        expires=expires_of(meta.custom),
        deleted=newest.deleted if newest is not None and state.is_deleted else None,
    )

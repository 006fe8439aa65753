"""Base backups and the log of a server that others run: what is the same whatever its engine."""

from __future__ import annotations

import contextlib
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Generic, TypeVar

import attrs

from shiftable.database.driver import ArchiveProgress, BaseBackup
from shiftable.errors import InvalidArgument, OperationError
from shiftable_baremetal._archive import Archive
from shiftable_baremetal._servers_engine import ServerEngine, fail

__all__ = ["ServerArchive"]

E = TypeVar("E", bound=ServerEngine)
S = TypeVar("S", bound=Archive[Any])

_PATIENCE = 30.0  # seconds for the archive to come to a time that has just passed
_STEP = 0.5
_TOLD = "%Y-%m-%d %H:%M:%S"


@attrs.frozen
class ServerArchive(ABC, Generic[E, S]):
    """The archive of one server, and what is done with it.

    Args:
        folder: on this machine, for an archiver and for servers that are being restored.
        days: for how long any time can be restored.
    """

    _engine: E
    _store: S
    _folder: Path
    days: int

    @abstractmethod
    def back_up(self) -> BaseBackup:
        """Make a base backup, and delete what is too old."""

    @abstractmethod
    def run(
        self,
        every: timedelta,
        on_progress: Callable[[ArchiveProgress], None],
        stopped: Callable[[], bool],
        *,
        over_gap: bool,
    ) -> None:
        """Archive the log until ``stopped``."""

    @abstractmethod
    def end(self) -> None:
        """Have the server keep its log no longer."""

    @abstractmethod
    def at(self, when: datetime) -> AbstractContextManager[tuple[ServerEngine, str]]:
        """Run the server as it was at a time, and return how it is asked, and its version."""

    def backups(self) -> list[BaseBackup]:
        """Return all base backups, the oldest first."""
        return [base.backup for base in self._store.bases()]

    def delete(self, name: str) -> None:
        """Delete a base backup."""
        self._store.remove(name)

    def restorable(self) -> tuple[datetime, datetime] | None:
        """Return the earliest and the latest time that can be restored."""
        names, until = self._store.names_of_bases(), self._store.until()
        if not names or until is None:
            return None
        first = self._store.base(names[0]).backup.restorable_from
        return (first, max(first, until.astimezone(UTC)))

    def _prune(self) -> None:
        """Delete what is too old: by this machine's clock and the server's, in case one of them runs ahead."""
        now = datetime.now(UTC)
        self._store.prune(min(now, self._store.until() or now) - timedelta(days=self.days))

    def _make_room(self) -> None:
        """Delete what is too old before there is more; what cannot be deleted now is afterwards."""
        with contextlib.suppress(OperationError):
            self._prune()

    def _place(self, name: str) -> Path:
        """Make a folder that only this user reads."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return self._folder / name

    def _base_for(self, when: datetime) -> Any:  # noqa: ANN401  of the archive's kind
        """Return the last base backup that is older than a time, which the archive has reached."""
        restorable = self.restorable()
        if restorable is None:
            missing = "base backup: `shiftable db backup` makes one"
            if not self._store.owner():
                missing = "archive of its log: `shiftable db archive` begins one"
            fail(InvalidArgument, f"no time can be restored: the server has no {missing}")
        first = min(base.backup.restorable_from for base in self._store.bases())
        if when < first:
            fail(InvalidArgument, f"the earliest time that can be restored is {first:{_TOLD}} UTC")
        if when > datetime.now(UTC):
            fail(InvalidArgument, "that time has not come yet")
        self._wait_until(when)
        return max(
            (base for base in self._store.bases() if base.backup.restorable_from <= when),
            key=lambda base: base.backup.restorable_from,
        )

    def _wait_until(self, when: datetime) -> None:
        """Wait for an archiver that is at work to come to a time."""
        end = time.monotonic() + _PATIENCE
        while (until := self._store.until()) is None or until < when:
            if time.monotonic() > end:
                told = f"{until.astimezone(UTC):{_TOLD}} UTC" if until else "no time"
                why = f"its log is archived until {told}, and that does not change"
                fail(InvalidArgument, f"{why}: does `shiftable db archive` run? That time can be restored meanwhile")
            time.sleep(_STEP)

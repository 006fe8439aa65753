"""One moment of the source, seen by several sessions; and what each thread works with."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import attrs

from shiftable.errors import MigrationError
from shiftable.migrate._mysql._facts import Facts
from shiftable.migrate._mysql._side import Session, Side, cut_off, raw, rows

__all__ = ["Pair", "Snapshot"]

_BEGIN = "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY"


@attrs.define
class Pair:
    """A plain session on each side. The source's sees the snapshot; the target's is in autocommit, or sees its own."""

    source: Session
    target: Session

    @property
    def is_good(self) -> bool:
        """Whether both are connected."""
        return bool(self.source.open and self.target.open)

    def cancel(self) -> None:
        """End what runs in them."""
        for each in (self.source, self.target):
            cut_off(each)

    def close(self) -> None:
        """Close both, without a farewell: an answer may be half read."""
        for each in (self.source, self.target):
            with contextlib.suppress(Exception):
                each._force_close()  # type: ignore[attr-defined]  # noqa: SLF001  close() would write into the middle of one


@attrs.define
class Snapshot:
    """Sessions of one side that all see the same moment. A server gives no name to it, so none can join later.

    Args:
        control: for questions to its catalogue, and for one thread more.
        waiting: sessions that no thread has taken.
    """

    side: Side
    control: Session
    waiting: list[Session]
    _lock: threading.Lock = attrs.field(factory=threading.Lock, init=False)

    @classmethod
    @contextlib.contextmanager
    def taken(cls, side: Side, facts: Facts, jobs: int) -> Iterator[Snapshot]:
        """Stop all writes for a moment and begin so many sessions in it.

        Where the account may stop neither the server nor the tables, it is one session.
        """
        freeze = _freeze(facts)
        with contextlib.ExitStack() as stack:
            sessions: list[Session] = []
            for _ in range(jobs + 1 if freeze else 2):
                sessions.append(side.connect(plain=True))
                stack.callback(_end, sessions[-1])
            if freeze is None:
                # A single thread reads rows, and it alone sees a snapshot; the catalogue has none anyway.
                raw(sessions[1], side.name, _BEGIN)
            else:
                with contextlib.closing(side.connect()) as gate:
                    for statement in freeze:
                        rows(gate, side.name, statement)
                    for session in sessions:
                        raw(session, side.name, _BEGIN)
                    rows(gate, side.name, "UNLOCK TABLES")
            found = cls(side, sessions[0], sessions[1:])
            found._hold(facts)
            yield found

    def _hold(self, facts: Facts) -> None:
        """Keep others from altering tables: no snapshot outlives that."""
        session = self.control if len(self.waiting) > 1 else self.waiting[0]
        for table in facts.tables:
            if not table.is_elsewhere:
                raw(session, self.side.name, f"SELECT 1 FROM {table.sql} LIMIT 0")

    @property
    def jobs(self) -> int:
        """How many threads can read at once."""
        return max(1, len(self.waiting))

    @property
    def reader(self) -> Session:
        """A session that sees the moment, for who reads before threads do."""
        return self.waiting[0]

    def take(self) -> Session:
        """Return a session for one thread.

        Raises:
            MigrationError: all are taken: one was lost, and its moment with it.
        """
        with self._lock:
            if self.waiting:
                return self.waiting.pop()
        raise MigrationError(
            f"{self.side.name}: a connection was lost, and what it saw cannot be seen again; run the same again"
        )


def _freeze(facts: Facts) -> list[str] | None:
    """Return what stops all writes, if the account may."""
    if facts.rights.has("RELOAD"):
        return ["FLUSH TABLES WITH READ LOCK"]
    if facts.tables and not facts.rights.lacks("LOCK TABLES"):
        names = ", ".join(f"{table.sql} READ" for table in facts.tables if not table.is_elsewhere)
        return [f"LOCK TABLES {names}"] if names else None
    return None


def _end(session: Session) -> None:
    with contextlib.suppress(Exception):
        session._force_close()  # type: ignore[attr-defined]  # noqa: SLF001  an answer may be half read

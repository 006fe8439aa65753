"""What each thread has: a session on both sides that see a snapshot, or write."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from functools import partial

import attrs
import psycopg
from psycopg import pq

from shiftable.migrate._database_engine import Lanes
from shiftable.migrate._postgresql._side import Session, Side, Snapshot

__all__ = ["Builder", "Pair", "builders", "lanes"]

_SOURCE = {"lock_timeout": "60s"}  # who waits for our locks to change a table would make us wait for him


@attrs.define
class Builder:
    """A session on the target, in autocommit."""

    target: Session

    @property
    def sessions(self) -> Sequence[Session]:
        """All that there are."""
        return (self.target,)

    @property
    def is_good(self) -> bool:
        """Whether all are connected."""
        return all(not each.closed and each.pgconn.status == pq.ConnStatus.OK for each in self.sessions)

    def cancel(self) -> None:
        """End what runs in them."""
        for each in self.sessions:
            with contextlib.suppress(Exception):  # it may have ended meanwhile
                each.cancel_safe(timeout=5)

    def close(self) -> None:
        """Close all."""
        for each in self.sessions:
            with contextlib.suppress(psycopg.Error):
                each.close()


@attrs.define
class Pair(Builder):
    """A session on each side. The source's sees the snapshot; the target's is in autocommit, or sees its own."""

    source: Session

    @property
    def sessions(self) -> Sequence[Session]:
        """Both."""
        return (self.source, self.target)


def builders(target: Side, jobs: int, settings: Mapping[str, str]) -> Lanes[Builder]:
    """Return threads that each keep a session on the target."""
    return Lanes(lambda: Builder(target.connect(settings)), jobs)


def lanes(
    snapshot: Snapshot,
    target: Side,
    jobs: int,
    *,
    target_snapshot: Snapshot | None = None,
    settings: Mapping[str, str] | None = None,
) -> Lanes[Pair]:
    """Return threads that each keep a pair of sessions.

    Args:
        target_snapshot: what the target's sessions see; ``None``: they write.
        settings: of the target's sessions.
    """
    return Lanes(partial(_opened, snapshot, target, target_snapshot, settings or {}), jobs)


def _opened(snapshot: Snapshot, target: Side, target_snapshot: Snapshot | None, settings: Mapping[str, str]) -> Pair:
    source = snapshot.side.connect(_SOURCE)
    try:
        snapshot.begin(source)
        pair = Pair(target.connect(settings), source)
    except BaseException:
        source.close()
        raise
    try:
        if target_snapshot is not None:
            target_snapshot.begin(pair.target)
    except BaseException:
        pair.close()
        raise
    return pair

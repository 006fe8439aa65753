"""Threads that each keep a session on both sides, for as long as these are good."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Self, TypeVar

import attrs
import psycopg
from psycopg import pq

from shiftable.migrate._postgresql._side import Session, Side, Snapshot

__all__ = ["Lanes", "Pair"]

T = TypeVar("T")
_ATTEMPTS = 3
_SOURCE = {"lock_timeout": "60s"}  # who waits for our locks to change a table would make us wait for him


@attrs.define
class Pair:
    """A session on each side. The source's sees the snapshot; the target's is in autocommit, or sees its own."""

    source: Session
    target: Session

    @property
    def is_good(self) -> bool:
        """Whether both are connected."""
        return all(not each.closed and each.pgconn.status == pq.ConnStatus.OK for each in (self.source, self.target))

    def close(self) -> None:
        """Close both."""
        for each in (self.source, self.target):
            with contextlib.suppress(psycopg.Error):
                each.close()


@attrs.define
class Lanes:
    """Runs functions of a pair of sessions in threads.

    Args:
        target_snapshot: what the target's sessions see; ``None``: they write.
        settings: of the target's sessions.
    """

    snapshot: Snapshot
    target: Side
    jobs: int
    target_snapshot: Snapshot | None = None
    settings: Mapping[str, str] = attrs.Factory(dict)
    _pool: ThreadPoolExecutor = attrs.field(init=False)
    _own: threading.local = attrs.field(factory=threading.local, init=False)
    _lock: threading.Lock = attrs.field(factory=threading.Lock, init=False)
    _pairs: list[Pair] = attrs.field(factory=list, init=False)

    def __attrs_post_init__(self) -> None:
        self._pool = ThreadPoolExecutor(self.jobs, "shiftable-database")

    def submit(self, function: Callable[[Pair], T]) -> Future[T]:
        """Run a function when a thread is free; again with new sessions, if one of its own was lost."""
        return self._pool.submit(self._run, function)

    def close(self) -> None:
        """Drop what waits, end what runs, and close all sessions."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        with self._lock:
            pairs = list(self._pairs)
        for pair in pairs:
            for session in (pair.source, pair.target):
                with contextlib.suppress(Exception):  # it may have ended meanwhile
                    session.cancel_safe(timeout=5)
        self._pool.shutdown(wait=True)
        for pair in pairs:
            pair.close()

    def _run(self, function: Callable[[Pair], T]) -> T:
        for attempt in range(1, _ATTEMPTS + 1):
            pair = self._pair()
            try:
                return function(pair)
            except BaseException:
                lost = not pair.is_good
                self._forget(pair)  # its transactions are of no more use
                if not lost or attempt == _ATTEMPTS:
                    raise
        raise AssertionError  # the last attempt has returned or raised

    def _pair(self) -> Pair:
        found: Pair | None = getattr(self._own, "pair", None)
        if found is not None and found.is_good:
            return found
        source = self.snapshot.side.connect(_SOURCE)
        try:
            self.snapshot.begin(source)
            target = self.target.connect(self.settings)
        except BaseException:
            source.close()
            raise
        pair = Pair(source, target)
        try:
            if self.target_snapshot is not None:
                self.target_snapshot.begin(target)
        except BaseException:
            pair.close()
            raise
        self._own.pair = pair
        with self._lock:
            self._pairs.append(pair)
        return pair

    def _forget(self, pair: Pair) -> None:
        self._own.pair = None
        with self._lock:
            self._pairs = [each for each in self._pairs if each is not pair]
        pair.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

"""Batches of items that other processes work on: what is sent, what is done there, what comes back.

Whoever keeps the journal lists, decides, writes down and counts, as ever. What travels is a batch of items, each with
what is to be done and with the versions that were seen. A worker opens the clouds for itself. It is safe to run a batch
again whenever a worker is lost: every write has its condition, and what has arrived is recognised.
"""

from __future__ import annotations

import os
import pickle
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, wait
from types import TracebackType
from typing import Any, Generic, Self, TypeVar
from uuid import uuid4

import attrs

from shiftable import __version__
from shiftable.errors import MigrationError, ShiftableError
from shiftable.migrate._engine import Engine
from shiftable.migrate._limits import Pace
from shiftable.migrate._window import Window
from shiftable.migrate._workers import Pool, Workers
from shiftable.migrate.mover import Item, Mover, Options
from shiftable.parallel import Done, Ended

__all__ = ["Crew", "Job", "work"]

T = TypeVar("T")
R = TypeVar("R")

_ITEMS = 256
_BYTES = 64 * 1024 * 1024
"""A batch is no larger: it is what a lost worker costs, and what Ctrl-C waits for."""
_TRIES = 5
_JOBS = 4
"""A worker of a cluster lives on after a move, and does not keep the clients of all moves there ever were."""


@attrs.frozen(kw_only=True)
class Job:
    """What all batches of one drive have in common.

    Args:
        app: an ``App``, or what can be pickled and has as much of it as a move needs.
        verb: the mover's method, and ``more`` what it is told beside the item.
        share: of the limits in bytes and requests a second, for one worker.
        run: different for each drive, so that a worker that lives on reads credentials anew.
    """

    app: Any
    mover: type[Mover[Any]]
    label: str
    source: str
    target: str
    options: Options
    verb: str
    more: Mapping[str, Any] = attrs.field(factory=dict)
    share: float = 1.0
    run: str = attrs.field(factory=lambda: uuid4().hex)


# where the items are


@attrs.define(eq=False)
class _Batch(Generic[T]):
    tasks: Sequence[T]
    pool: Pool
    tries: int = 0


class Crew(Generic[T, R]):
    """A lane as ``Lane`` is, whose items are run by workers elsewhere, in batches.

    Workers are reached with the first item. Those that are lost are borne a few times.

    Args:
        takes: whether an item may leave this process.
        arguments: what the mover's method is called with.
        again: an item whose worker was lost, as it is to be tried once more.
    """

    def __init__(
        self,
        workers: Workers,
        job: Job,
        *,
        takes: Callable[[T], bool],
        arguments: Callable[[T], tuple[Any, ...]],
        again: Callable[[T], T] = lambda task: task,
        size: Callable[[T], int],
    ) -> None:
        self.takes = takes
        self._workers = workers
        self._job = job
        self._arguments = arguments
        self._again = again
        self._size = size
        self._pool: Pool | None = None
        self._message = b""
        self._open: list[T] = []
        self._bytes = 0
        self._out: dict[Future[bytes], _Batch[T]] = {}
        self._ready: deque[tuple[T, Done[R]]] = deque()

    def put(self, item: T) -> Iterator[tuple[T, Done[R]]]:
        """Hand over an item, and yield what has finished meanwhile; wait for that while the workers have enough."""
        self._open.append(item)
        self._bytes += self._size(item)
        if len(self._open) >= _ITEMS or self._bytes >= _BYTES:
            self._send_open()
            while len(self._out) >= self._room:
                self._await()
            yield from self.finished()

    def finished(self) -> Iterator[tuple[T, Done[R]]]:
        """Yield what has finished, and wait for nothing."""
        for future in [future for future in self._out if future.done()]:
            self._take(future)
        while self._ready:
            yield self._ready.popleft()

    def finish(self) -> Iterator[tuple[T, Done[R]]]:
        """Yield everything that is still under way, as it ends."""
        if self._open:
            self._send_open()
        yield from self.finished()
        while self._out:
            self._await()
            yield from self.finished()

    def stop(self) -> Iterator[tuple[T, Done[R]]]:
        """Drop what has not begun, and yield the rest as it ends."""
        self._open = []
        cancels = self._pool is not None and self._pool.cancels
        for future in [future for future in self._out if cancels and future.cancel()]:
            del self._out[future]
        while self._out:
            for future in wait(self._out, return_when=FIRST_COMPLETED).done:
                batch = self._out.pop(future)
                answer = _Refused("lost") if _failed(future) else pickle.loads(future.result())  # noqa: S301  as below
                if not isinstance(answer, _Refused):
                    self._ready += _told(batch.tasks, answer)
        while self._ready:
            yield self._ready.popleft()

    @property
    def running(self) -> int:
        """Items that are elsewhere, or wait there."""
        return sum(len(batch.tasks) for batch in self._out.values())

    @property
    def _room(self) -> int:
        """Batches that may be out: one in reserve for each worker, unless that could be more than the limits allow."""
        assert self._pool is not None  # noqa: S101  there is one since the first batch was sent
        return self._pool.slots * (1 if self._is_limited else 2)

    @property
    def _is_limited(self) -> bool:
        options = self._job.options
        return options.bandwidth is not None or options.requests is not None

    def _send_open(self) -> None:
        tasks, self._open, self._bytes = self._open, [], 0
        self._send(_Batch(tasks, self._opened()))

    def _opened(self) -> Pool:
        if self._pool is None:
            self._pool = self._workers.open()
            # The process that keeps the journal moves the large objects, and is one more.
            share = 1 / (self._pool.slots + 1)
            try:
                self._message = pickle.dumps(attrs.evolve(self._job, share=share))
            except (pickle.PicklingError, AttributeError, TypeError) as exc:
                raise MigrationError(f"this application cannot be sent to other processes: {exc}") from exc
        return self._pool

    def _send(self, batch: _Batch[T]) -> None:
        payload = pickle.dumps([self._arguments(task) for task in batch.tasks])
        while True:
            batch.pool = self._opened()
            try:
                future = batch.pool.executor.submit(work, __version__, self._message, payload)
            except batch.pool.lost as exc:
                self._lose(batch, exc)
            else:
                self._out[future] = batch
                return

    def _await(self) -> None:
        wait(self._out, return_when=FIRST_COMPLETED)
        for future in [future for future in self._out if future.done()]:
            self._take(future)

    def _take(self, future: Future[bytes]) -> None:
        batch = self._out.pop(future)
        try:
            answer = pickle.loads(future.result())  # noqa: S301  from processes that we sent our work to
        except batch.pool.lost as exc:
            self._lose(batch, exc)
            batch.tasks = [self._again(task) for task in batch.tasks]
            self._send(batch)
            return
        except Exception as exc:
            raise MigrationError(
                f"a worker of {self._workers} could not do its part: {type(exc).__name__}: {exc}; every worker needs"
                f" shiftable {__version__} and the providers in the same version"
            ) from exc
        if isinstance(answer, _Refused):
            raise MigrationError(answer.why)
        self._ready += _told(batch.tasks, answer)

    def _lose(self, batch: _Batch[T], exc: BaseException) -> None:
        """Bear that a worker is gone, and make new ones where all are gone with it."""
        batch.tries += 1
        if batch.tries >= _TRIES:
            raise MigrationError(
                f"workers of {self._workers} were lost {_TRIES} times with the same items ({type(exc).__name__}): look"
                " at their memory and at their logs; the next run goes on where this one stopped"
            ) from exc
        if batch.pool.breaks and batch.pool is self._pool:
            self._pool = None
            batch.pool.close(False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, cls: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.close(not isinstance(exc, KeyboardInterrupt))


def _failed(future: Future[bytes]) -> bool:
    try:
        return future.exception() is not None
    except CancelledError:
        return True


def _told(tasks: Sequence[T], results: Sequence[tuple[int, bool, Any]]) -> Iterator[tuple[T, Done[Any]]]:
    """Make of a batch's results what a lane yields."""
    for place, good, value in results:
        yield tasks[place], Ended(value) if good else Ended(error=value)


# where they are worked on


@attrs.frozen
class _Refused:
    """A worker cannot do anything, whatever the items are."""

    why: str


def work(version: str, job: bytes, batch: bytes) -> bytes:
    """Do one batch; runs in a worker.

    Nothing is unpickled before it is known that both sides mean the same by it.
    """
    name = f"the worker {socket.gethostname()}, process {os.getpid()}"
    try:
        if version != __version__:
            why = f"{name}, has shiftable {__version__}, and {version} is asked for; install the same version there"
            return pickle.dumps(_Refused(why))
        return _place(job).run(pickle.loads(batch))  # noqa: S301  from whoever may run code here anyway
    except ShiftableError as exc:
        return pickle.dumps(_Refused(f"{name}: {exc}"))


class _Place:
    """One job in one worker: clients, limits and what was learnt are shared by all of its batches."""

    def __init__(self, job: Job) -> None:
        self._job = job
        options = job.options
        limits = [None if limit is None else limit * job.share for limit in (options.bandwidth, options.requests)]
        self._pace = Pace(*limits)
        self._window = Window(options.concurrency)

    def run(self, tasks: Sequence[tuple[Any, ...]]) -> bytes:
        """Do the items in threads and say how each ended, in that order."""
        mover = self._mover()
        engine = Engine(self._job.options, window=self._window)
        mover.stopping = engine.stopping
        call, more = getattr(mover, self._job.verb), self._job.more
        found: list[tuple[int, bool, Any]] = []
        try:
            engine.drive(
                enumerate(tasks),
                lambda each: call(*each[1], **more),
                begun=lambda _: None,
                ended=lambda each, result: found.append((each[0], True, result)),
                failed=lambda each, error: found.append((each[0], False, _portable(error))),
                size=lambda each: _size(each[1]),
                gives_way=mover.gives_way,
            )
        except MigrationError as exc:
            # Where the results are counted the same rule ends the move, by the same failures; these are behind them.
            tried = {place for place, _, _ in found}
            found += [(place, False, exc) for place in range(len(tasks)) if place not in tried]
        if mover.notes.keys():
            mover.tidy()  # what has become large meanwhile and failed: nobody else knows of its upload
        return pickle.dumps(found)

    def _mover(self) -> Mover[Any]:
        job = self._job
        declared = job.app.declared()
        spec = next(each.spec for each in declared if (each.service, each.label) == (job.mover.service, job.label))
        clouds = (job.app.cloud(label) for label in (job.source, job.target))
        source, target = (self._pace.applied(cloud.service(job.mover.service)) for cloud in clouds)
        return job.mover(source, target, spec, job.options)


_places: dict[bytes, _Place] = {}
_lock = threading.Lock()


def _place(job: bytes) -> _Place:
    """Return the one of this job in this process."""
    with _lock:
        if job not in _places:
            while len(_places) >= _JOBS:
                del _places[next(iter(_places))]
            _places[job] = _Place(pickle.loads(job))  # noqa: S301  as for a batch
        return _places[job]


def _size(arguments: tuple[Any, ...]) -> int:
    item: Item = arguments[0]
    return item.size


def _portable(error: Exception) -> Exception:
    """Return an error that can be sent; of those that are not ours nobody knows."""
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301  our own
    except Exception:  # noqa: BLE001  whatever its author forgot
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error

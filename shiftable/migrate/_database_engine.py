"""What moves of databases have in common, whatever the engine, and what each engine has to bring."""

from __future__ import annotations

import contextlib
import hashlib
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, ClassVar, Generic, Protocol, Self, TypeVar

import attrs

from shiftable.errors import MigrationError
from shiftable.wording import counted

__all__ = [
    "Arguments",
    "Engine",
    "Facts",
    "Given",
    "Lane",
    "Lanes",
    "Lost",
    "Move",
    "Moving",
    "Place",
    "Rows",
    "Sides",
    "Verification",
    "some",
    "token",
]

T = TypeVar("T")
L = TypeVar("L", bound="Lane")

_ATTEMPTS = 3
_SHOWN = 5

Arguments = Callable[[], Mapping[str, Any]]
"""Returns what a client library's ``connect`` takes, the password too."""


@attrs.frozen
class Lost:
    """Something that does not reach the target.

    Args:
        facet: what ``degrade`` names.
        refuses: nothing moves until it is given up, if ``facet`` can be; else it is only told.
        fatal: nothing can be given up for it.
    """

    facet: str
    detail: str
    refuses: bool = False
    fatal: bool = False


@attrs.frozen(kw_only=True)
class Given:
    """How a database is moved, whatever its engine.

    Args:
        jobs: threads, each with a session on both sides; indexes built at once.
        degrade: what is given up.
        frozen: nobody writes to the source, whoever says so: a killed move goes on under a new snapshot.
        stopping: ends it early, when it is set.
    """

    jobs: int = 2
    degrade: frozenset[str] = frozenset()
    frozen: bool = False
    stopping: threading.Event = attrs.field(factory=threading.Event, eq=False)

    @classmethod
    def of(cls, given: Given) -> Self:
        """Return the same as an engine takes it."""
        return cls(**{field.name: getattr(given, field.name) for field in attrs.fields(Given)})


@attrs.frozen
class Place:
    """One database on one server.

    Args:
        arguments: returns what the client library's ``connect`` takes, the password too; asked for each connection.
        name: as people know it, ``orders on frankfurt``.
        refused: called when the server did not take a password, which may just have been rotated; then it is asked for
            once more.
    """

    arguments: Arguments = attrs.field(repr=False)
    name: str
    refused: Callable[[], object] | None = attrs.field(default=None, repr=False, eq=False)


@attrs.frozen(kw_only=True)
class Rows:
    """The rows of one table of the target, which may be those of several of the source.

    Args:
        parts: what the move calls them at the source.
        names: of the same tables: schema, if the engine has such, and name.
        size: bytes, as the side stores them.
        version: changes with what is written, as far as a server tells it.
        home: changes when others' rows are in their place.
    """

    label: str
    parts: tuple[str, ...]
    names: tuple[tuple[str, str], ...]
    size: int
    version: str
    home: str


class Facts(Protocol):
    """One side at the moment when it was asked."""

    @property
    def phase(self) -> str | None:
        """How far a move into this database is."""

    @property
    def present(self) -> tuple[str, ...]:
        """The first things of users."""

    @property
    def objects(self) -> int:
        """How many large objects there are, where an engine has such."""

    @property
    def hidden(self) -> int:
        """How many of them may not be read."""


class Move(Protocol):
    """The move of one database. After a kill at any point the same is done again."""

    notes: list[str]

    def begin(self) -> None:
        """Make the tables, or find how far a killed move has come."""

    def start(self) -> None:
        """Set the copy of all rows going."""

    def table(self, label: str) -> int:
        """Wait until the rows of a table have arrived; return their bytes as they travelled."""

    def large_objects(self) -> int:
        """Wait until all large objects have arrived; return their bytes."""

    def finish(self) -> None:
        """Make the rest."""

    def tidy(self) -> None:
        """Take the marks away."""

    def close(self) -> None:
        """End everything that runs, and close all sessions."""


class Verification(Protocol):
    """Compares two databases by what both servers say of them."""

    def begin(self) -> None:
        """Take a snapshot of both."""

    def start(self, labels: Iterable[str]) -> Mapping[str, Any]:
        """Let both servers add up the rows of some tables."""

    def table(self, label: str, parts: Any, /) -> str | None:  # noqa: ANN401  what start returned for it
        """Wait for the sums of a table, and say how its rows differ; ``None`` if they do not."""

    def large_objects(self) -> str | None:
        """Compare all large objects; ``None`` if they are equal."""

    def rest(self) -> str | None:
        """Compare all the rest; ``None`` if it is equal."""

    def close(self) -> None:
        """Close all sessions."""


class Engine(ABC):
    """One kind of database server, as the mover of databases needs it.

    Attributes:
        always: databases that are moved where none is declared.
        maintenance: the one that every server has.
        ignored: what providers keep beside the databases of their customers, and what the server has for itself.
    """

    always: ClassVar[tuple[str, ...]] = ()
    maintenance: ClassVar[str] = ""
    ignored: ClassVar[frozenset[str]] = frozenset()

    @abstractmethod
    def side(self, arguments: Arguments, name: str, refused: Callable[[], object]) -> Any:  # noqa: ANN401  the engine's own
        """Return one database on one server."""

    @abstractmethod
    def databases(self, side: Any) -> tuple[str, ...]:  # noqa: ANN401
        """Name the databases that a server has."""

    @abstractmethod
    def create(self, side: Any, name: str, like: Any) -> None:  # noqa: ANN401
        """Make a database for text as the source's facts have it, through the maintenance database."""

    @abstractmethod
    def facts(self, side: Any) -> Facts:  # noqa: ANN401
        """Ask one side for all of it."""

    @abstractmethod
    def losses(self, source: Any, target: Any) -> Iterator[Lost]:  # noqa: ANN401
        """Say what of the source the target cannot hold, or would lose."""

    @abstractmethod
    def rows(self, facts: Any) -> Mapping[str, Rows]:  # noqa: ANN401
        """Return the tables with rows of their own."""

    @abstractmethod
    def home(self, side: Any, rows: Rows) -> str:  # noqa: ANN401
        """Return where rows that have just been written lie on the target, as ``rows`` tells it."""

    @abstractmethod
    def schema(self, facts: Any) -> str:  # noqa: ANN401
        """Return what changes when tables do."""

    @abstractmethod
    def move(self, source: Any, target: Any, given: Given) -> Move:  # noqa: ANN401
        """Prepare the move of one database."""

    @abstractmethod
    def verification(self, source: Any, target: Any, given: Given) -> Verification:  # noqa: ANN401
        """Prepare the comparison of two."""


class Sides:
    """Two databases and the sessions that are kept until it is closed."""

    def __init__(self, source: Any, target: Any) -> None:  # noqa: ANN401  the engine's own
        self.source = source
        self.target = target
        self._stack = contextlib.ExitStack()

    def close(self) -> None:
        """End everything that runs, and close all sessions."""
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.source.name} and {self.target.name}>"


class Moving(Sides):
    """A move whose tables come in parts, each of which some thread brings.

    Attributes:
        notes: what is told when it is done.
    """

    how: Given
    _marks: Any  # the engine's own

    def __init__(self, source: Any, target: Any) -> None:  # noqa: ANN401  the engine's own
        super().__init__(source, target)
        self.notes: list[str] = []
        self._futures: dict[str, list[Future[tuple[int, int]]]] = {}
        self._failed: dict[str, Exception] = {}
        self._phase = ""

    def table(self, label: str) -> int:
        """Wait until the rows of a table have arrived; return their bytes as they travelled."""
        total = 0
        for future in self._futures.get(label, ()):
            try:
                total += future.result()[1]
            except Exception as exc:
                self._failed[label] = exc
                raise
        return total

    def tidy(self) -> None:
        """Take the marks away: nothing but what was moved is left on the target."""
        self._marks.drop()

    def _wait_for_all(self) -> None:
        """Wait until all rows have arrived."""
        for label in self._futures:
            with contextlib.suppress(Exception):  # told by its own item
                self.table(label)
        if self._failed:
            first, tables = next(iter(self._failed.items())), counted(len(self._failed), "table")
            raise MigrationError(f"{tables} did not arrive, so indexes wait; the first is {first[0]}: {first[1]}")
        self._check_stopping()

    def _check_stopping(self) -> None:
        if self.how.stopping.is_set():
            raise MigrationError("stopped; run the same again: it goes on where it stopped")


class Lane(Protocol):
    """What one thread works with: sessions on both sides."""

    @property
    def is_good(self) -> bool:
        """Whether all are connected."""

    def cancel(self) -> None:
        """End what runs in them, from another thread."""

    def close(self) -> None:
        """Close all."""


@attrs.define
class Lanes(Generic[L]):
    """Threads that each keep a lane, for as long as it is good, and run functions of it.

    Args:
        opened: makes the lane of a thread.
    """

    opened: Callable[[], L]
    jobs: int
    _pool: ThreadPoolExecutor = attrs.field(init=False)
    _own: threading.local = attrs.field(factory=threading.local, init=False)
    _lock: threading.Lock = attrs.field(factory=threading.Lock, init=False)
    _lanes: list[L] = attrs.field(factory=list, init=False)
    _closing: bool = attrs.field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        self._pool = ThreadPoolExecutor(self.jobs, "shiftable-database")

    def submit(self, function: Callable[[L], T]) -> Future[T]:
        """Run a function when a thread is free; again with a new lane, if its own was lost."""
        return self._pool.submit(self._run, function)

    def close(self) -> None:
        """Drop what waits, end what runs, and close all sessions."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        with self._lock:
            self._closing = True
            lanes = list(self._lanes)
        for lane in lanes:
            with contextlib.suppress(Exception):  # it may have ended meanwhile
                lane.cancel()
        self._pool.shutdown(wait=True)
        for lane in self._lanes:
            lane.close()

    def _run(self, function: Callable[[L], T]) -> T:
        for attempt in range(1, _ATTEMPTS + 1):
            lane = self._lane()
            try:
                return function(lane)
            except BaseException:
                lost = not lane.is_good
                self._forget(lane)  # its transactions are of no more use
                if not lost or attempt == _ATTEMPTS:
                    raise
        raise AssertionError  # the last attempt has returned or raised

    def _lane(self) -> L:
        found: L | None = getattr(self._own, "lane", None)
        if found is not None and found.is_good:
            return found
        lane = self.opened()
        with self._lock:
            if not self._closing:
                self._own.lane = lane
                self._lanes.append(lane)
                return lane
        lane.close()  # nobody would end what runs in it
        raise MigrationError("the move has ended")

    def _forget(self, lane: L) -> None:
        self._own.lane = None
        with self._lock:
            self._lanes = [each for each in self._lanes if each is not lane]
        lane.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def token(parts: Iterable[object]) -> str:
    """Return what changes when parts do."""
    return hashlib.blake2b(repr([*parts]).encode(), digest_size=16).hexdigest()


def some(names: Sequence[str], shown: int = _SHOWN) -> str:
    """Name the first of many."""
    first = ", ".join(names[:shown])
    return f"{first} and {len(names) - shown:,} more" if len(names) > shown else first

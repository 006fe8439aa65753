"""A move under running writers: slot, copy, catching up, cutover, or back. Each step may be killed and made again.

What is done to the source is written down before it is done: a slot, a publication, replica identities of tables
without a key, and the stop of its writes. How far the target is stands on the target.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, TypeVar
from urllib.parse import quote

import attrs
import psycopg

from shiftable.errors import MigrationError
from shiftable.migrate._capture._apply import Applier, Moved, Stale, Visible
from shiftable.migrate._capture._server import Connection, Server, closing_quietly, is_lost, quoted
from shiftable.migrate._capture._slot import Slot, drop_slot, slot_name
from shiftable.migrate._capture._source import Finding, Kept, Source
from shiftable.migrate._steps import StepFile

__all__ = ["Cut", "Lag", "Online", "OnlineOptions", "OnlineState", "Phase"]

T = TypeVar("T")

FORMAT = 1

Phase = Literal["new", "copying", "following", "freezing", "drained", "verified", "handed", "done"]

_SHAPE_EACH = 30.0
_WATCH_EACH = 5.0
_QUIET_BYTES = 1024 * 1024
"""Log of others, of which nothing is to be applied, that may gather before the target is told that it has passed it."""
_GROWTH = 32
"""Each peek decodes again from where the source's oldest open transaction began, so many small ones cost much."""
_TRIES = 10
_ROUNDS = 20


@attrs.frozen(kw_only=True)
class OnlineOptions:
    """How a move goes.

    Args:
        may_identify: tables without a key may be given another replica identity for the time of the move.
        binary: values in their types' own binary form: faster, but both servers must mean the same by it, so only
            where both are of one major version.
        changes: in one batch, unless one transaction has more: transactions come whole. Far behind, batches grow.
        pause: seconds between two looks where there was nothing.
        patience: seconds that a server may be away, or transactions of the source may keep a step waiting.
        stop_patience: seconds in which the source's writers have to be gone; else they may write again.
        max_retained: bytes that the source may keep for the move; more ends it, and the slot with it.
        ready_bytes: how near the target has to be before writes are stopped.
    """

    may_identify: bool = False
    binary: bool = False
    changes: int = 20_000
    pause: float = 0.1
    patience: float = 300.0
    stop_patience: float = 10.0
    max_retained: int | None = None
    ready_bytes: int = 1024 * 1024


@attrs.frozen(kw_only=True)
class OnlineState:
    """What is written down between two steps. Times are of ISO 8601, in UTC; places are numbers.

    Args:
        kept: replica identities of the source as they were.
        start: where the slot begins; 0: there is none yet.
        visible: of a snapshot that the slot was not tied to, and until which place that matters.
        read_only_before: what the source's database said of read-only transactions.
        drained: the place up to which the target has everything, behind the last write.
        stopped_at: when the stop of writes began; drained_at: when the target had everything, and its sequences.
        stopped, verified: seconds that the stop of writes and the comparison took.
        going_back: it is being rolled back.
    """

    format: int = FORMAT
    name: str
    source: str
    target: str
    slot: str
    phase: Phase = "new"
    kept: tuple[Kept, ...] = ()
    start: int = 0
    visible: str = ""
    until: int = 0
    read_only_before: str = ""
    drained: int = 0
    stopped_at: str = ""
    drained_at: str = ""
    stopped: float = 0.0
    verified: float = 0.0
    going_back: bool = False


@attrs.frozen(kw_only=True)
class Lag:
    """How far the target is behind.

    Args:
        place: up to there the target has everything.
        bytes: of the source's write-ahead log behind that.
        seconds: the age of what is not there yet.
        retained: bytes that the source keeps for the move.
        transactions, changes: that came with the last step.
    """

    place: int
    bytes: int
    seconds: float
    retained: int
    transactions: int
    changes: int


@attrs.frozen(kw_only=True)
class Cut:
    """How a cutover went.

    Args:
        stopped: seconds from the stop of writes until the target had everything, its sequences too: before it was
            verified. Of the run that came to that end, if others were killed before.
        verified: seconds that the verification took.
    """

    stopped: float
    verified: float


class _Session:
    """What following needs: a session on the source, the target's, and where the target is."""

    def __init__(self, source: Source, slot: Slot, applier: Applier, options: OnlineOptions) -> None:
        self._source = source
        self._slot = slot
        self._applier = applier
        self._options = options
        self._connection: Connection | None = None
        self._changes = options.changes
        self.at = 0

    def open(self) -> Connection:
        if self._connection is None:
            self._connection = self._source.server.connect("follow")
            self.at = self._applier.open()
        return self._connection

    def close(self) -> None:
        closing_quietly(self._connection)
        self._connection = None
        self._applier.close()

    def step(self, upto: int = 0) -> Lag:
        """Bring the target what there is, at most one batch.

        Args:
            upto: bring it to that place, even if there is nothing to apply.
        """
        connection = self.open()
        began, place = time.monotonic(), self._source.place(connection)
        written = upto or place.written
        if written <= self.at:
            return self._lag(connection, self.at, max(place.inserted - self.at, 0), 0.0)
        batch = _Counted(self._slot.peek(connection, upto=written, changes=self._changes))
        quiet = not upto and written - self.at < _QUIET_BYTES
        done = self._applier.apply(batch, since=self.at, upto=lambda: self._passed(batch, written, quiet=quiet))
        complete = batch.count < self._changes
        self._changes = self._options.changes if complete else min(self._changes * 2, self._options.changes * _GROWTH)
        if done.lsn > self.at:
            self.at = done.lsn
            self._slot.advance(connection, self.at)
        now = self._source.place(connection)
        seconds = time.monotonic() - began
        if not complete and done.at is not None:
            seconds = max((now.at - done.at).total_seconds(), 0.0)
        known = max(self.at, written) if complete else self.at
        return self._lag(connection, known, max(now.inserted - known, 0), seconds, done.transactions, done.changes)

    def _passed(self, batch: _Counted, written: int, *, quiet: bool) -> int:
        """Return the place that the target has passed, though nothing of it was to be applied."""
        return 0 if quiet or batch.count >= self._changes else written

    def _lag(
        self, connection: Connection, place: int, left: int, seconds: float, transactions: int = 0, changes: int = 0
    ) -> Lag:
        retained = self._slot.state(connection).retained
        return Lag(
            place=place, bytes=left, seconds=seconds, retained=retained, transactions=transactions, changes=changes
        )


class _Counted:
    """An iterator that knows how many there were."""

    def __init__(self, messages: Iterator[bytes]) -> None:
        self._messages = messages
        self.count = 0

    def __iter__(self) -> Iterator[bytes]:
        for message in self._messages:
            self.count += 1
            yield message


class Online:
    """The move of one database from a source that is written to all the time.

    Args:
        folder: where it is written down, ``.shiftable``.
        copy: is called with the name of a snapshot, brings schema and rows of the source in it to the target. After a
            kill it is called again with another one: then it has to begin anew. Foreign keys and triggers may be there
            afterwards, and indexes of keys should.
        ready: finds what keeps the target from being copied into, before anything is done to the source.
        tidy: removes what the copy keeps to know itself again, when it will not be called any more; may come twice.
        verify: compares both sides before the hand-over; raises if they differ.
    """

    def __init__(
        self,
        name: str,
        source: Server,
        target: Server,
        folder: Path,
        *,
        copy: Callable[[str], object],
        ready: Callable[[], Iterable[Finding]] = tuple,
        tidy: Callable[[], object] = lambda: None,
        verify: Callable[[], object] = lambda: None,
        options: OnlineOptions | None = None,
    ) -> None:
        if source.label == target.label:
            raise MigrationError("a move goes between two databases")
        self.name = name
        self.path = folder / f"online-{quote(name, safe='')}.json"
        self._file = StepFile[OnlineState](self.path, "move", ("format", "name", "source", "target", "slot"), _is_over)
        self.verify = verify
        self._copy = copy
        self._ready = ready
        self._tidy = tidy
        self._options = options or OnlineOptions()
        self._slot_name = slot_name(name, source.label, target.label)
        self._source = Source(source, self._slot_name)
        self._target = target
        self._slot = Slot(self._slot_name, self._slot_name, self._options.binary)

    # looking

    def status(self) -> OnlineState:
        """Say where it is. Calls nobody."""
        return self._read()

    def moved(self) -> Moved | None:
        """Ask the target where it is."""
        with self._target.session() as connection:
            return self._applier(self._read()).moved(connection)

    def check(self) -> tuple[Finding, ...]:
        """Find all that stands in the way, and all that will stay behind."""
        with self._translated(), self._source.server.session() as connection:
            found = [
                *self._source.check(connection, may_identify=self._options.may_identify),
                *self._source.may_freeze(connection),
            ]
            if self._read().phase in {"new", "copying"}:
                found += self._ready()
        return tuple(found)

    # the way there

    def start(self) -> None:
        """Publish, make the slot, and copy; nothing if that is done."""
        with self._locked():
            state = self._read()
            self._unless_going_back(state)
            if state.phase in {"new", "copying"}:
                self._start(state)

    def follow(
        self, *, until: Callable[[Lag], bool] | None = None, tell: Callable[[Lag], object] = lambda _: None
    ) -> Lag:
        """Bring the target what the source writes; tell after each batch.

        Args:
            until: that is enough; ``None``: when the target has what the source had at the beginning.
        """
        with self._locked():
            state = self._read()
            self._unless_going_back(state)
            if state.phase != "following":
                raise MigrationError(f"{self.name}: there is nothing to follow: it is {state.phase}")
            if until is None:
                with self._source.server.session() as connection:
                    goal = self._source.place(connection).inserted
                return self._follow(state, lambda lag: lag.place >= goal, tell)
            return self._follow(state, until, tell)

    def cutover(
        self,
        *,
        hand_over: Callable[[], object],
        verify: Callable[[], object] | None = None,
        tell: Callable[[Lag], object] = lambda _: None,
    ) -> Cut:
        """Stop the source's writers, bring over the rest and the sequences, verify, hand over, clean up.

        Args:
            hand_over: lets the application use the target; may be called twice.
            verify: instead of the move's own. Where it raises, all stays as it is: correct that and run it again, or
                roll back.
        """
        with self._locked():
            state = self._read()
            self._unless_going_back(state)
            if state.phase in {"new", "copying", "done"}:
                raise MigrationError(f"{self.name}: there is nothing to cut over: it is {state.phase}")
            return self._cutover(state, verify or self.verify, hand_over, tell)

    def rollback(self) -> None:
        """Let the source be written, and remove all that was made on both sides but the copy itself.

        Raises:
            MigrationError: the target was handed over; what was written to it since is not on the source.
        """
        with self._locked():
            state = self._read()
            if state.phase in {"handed", "done"}:
                raise MigrationError(
                    f"{self.name}: the target was handed over, and what was written to it is not on the source; to go"
                    " back is a move of its own"
                )
            state = self._write(attrs.evolve(state, going_back=True))
            with self._source.server.session("rollback") as connection:
                if state.stopped_at:
                    self._source.thaw(connection, state.read_only_before)
                self._clean_source(connection, state)
            self._applier(state).forget()
            self._write(self._fresh())

    # below: one step each

    def _start(self, state: OnlineState) -> None:
        with self._source.server.session("start") as connection:
            findings = [*self._source.check(connection, may_identify=self._options.may_identify), *self._ready()]
            problems = [each.message for each in findings if each.blocks]
            if problems:
                raise MigrationError(f"{self.name} cannot be moved online:\n" + "\n".join(problems))
            known = {(each.schema, each.table) for each in state.kept}
            more = [each for each in self._source.unidentified(connection) if (each.schema, each.table) not in known]
            state = self._write(
                attrs.evolve(state, phase="copying", kept=(*state.kept, *more), start=0, visible="", until=0)
            )
            drop_slot(connection, self._slot_name)
            self._applier(state).forget()
            self._source.identify(connection, state.kept)
            self._source.publish(connection)
        held: list[Connection] = []
        try:
            snapshot = self._slot.create(self._source.server, self._options.patience, held.append)
            state = self._write(
                attrs.evolve(state, start=snapshot.start, visible=snapshot.visible, until=snapshot.until)
            )
            with self._watched():
                self._copy(snapshot.name)
        finally:
            for connection in held:
                closing_quietly(connection)
        self._applier(state).prepare(state.start)
        self._write(attrs.evolve(state, phase="following"))
        self._tidy()

    def _follow(self, state: OnlineState, until: Callable[[Lag], bool], tell: Callable[[Lag], object]) -> Lag:
        looked = float("-inf")
        with self._session(state) as session:
            while True:
                if time.monotonic() - looked > _SHAPE_EACH:
                    self._patiently(session, self._check_shape)
                    looked = time.monotonic()
                lag = self._patiently(session, session.step)
                tell(lag)
                self._check_retained(lag)
                if until(lag):
                    return lag
                if not lag.changes:
                    time.sleep(self._options.pause)

    def _cutover(
        self,
        state: OnlineState,
        verify: Callable[[], object],
        hand_over: Callable[[], object],
        tell: Callable[[Lag], object],
    ) -> Cut:
        if state.phase in {"following", "freezing"}:
            self._tidy()  # what is handed over must not look like a copy that was killed
            if state.phase == "following":
                self._approach(state, tell)
            state = self._stop(state, tell)
        if state.phase == "drained":
            began = time.monotonic()
            verify()
            state = self._settled(attrs.evolve(state, verified=time.monotonic() - began))
        if state.phase == "verified":
            with self._target.session("identities") as connection:  # what the copy took over from the source
                self._source.forget_identities(connection, state.kept)
            hand_over()
            state = self._write(attrs.evolve(state, phase="handed"))
        if state.phase == "handed":
            with self._source.server.session("finish") as connection:
                self._clean_source(connection, state)
            self._tidy()
            self._applier(state).forget()
            self._write(attrs.evolve(state, phase="done"))
        return Cut(stopped=state.stopped, verified=state.verified)

    def _approach(self, state: OnlineState, tell: Callable[[Lag], object]) -> None:
        """Come so near that the stop is short; check all that could fail during it."""
        with self._source.server.session() as connection:
            problems = [each.message for each in self._source.may_freeze(connection) if each.blocks]
        if problems:
            raise MigrationError(f"{self.name}: the source's writes cannot be stopped:\n" + "\n".join(problems))
        steps = itertools.count(1)
        last = self._follow(state, lambda lag: lag.bytes <= self._options.ready_bytes or next(steps) > _ROUNDS, tell)
        if last.bytes > self._options.ready_bytes:
            raise MigrationError(
                f"{self.name}: the target does not come nearer than {last.bytes:,} bytes: the source writes faster than"
                " it can take; cut over at a quieter time"
            )

    def _stop(self, state: OnlineState, tell: Callable[[Lag], object]) -> OnlineState:
        """Stop the writers, and bring the rest."""
        with self._session(state) as session:
            self._patiently(session, session.step)
            with self._source.server.session("freeze") as connection:
                before = state.read_only_before if state.stopped_at else self._source.read_only_before(connection)
                began = time.monotonic()
                state = self._write(attrs.evolve(state, phase="freezing", read_only_before=before, stopped_at=_now()))
                try:
                    self._source.freeze(connection, patience=self._options.stop_patience)
                except MigrationError:
                    self._source.thaw(connection, before)
                    self._write(attrs.evolve(state, phase="following", stopped_at=""))
                    raise
                end = self._source.seal(connection)
                while session.at < end:
                    tell(self._patiently(session, lambda: session.step(upto=end)))
                self._check_shape()
                self._set_sequences(connection)
            self._applier(state).unshield()
        stopped = time.monotonic() - began
        return self._write(attrs.evolve(state, phase="drained", drained=end, drained_at=_now(), stopped=stopped))

    def _settled(self, state: OnlineState) -> OnlineState:
        """Make sure that nobody wrote after the stop."""
        with self._source.server.session("settle") as connection:
            end = self._source.seal(connection)
            found = _changes(self._slot, connection, state.drained, end)
        if found:
            self._write(attrs.evolve(state, phase="freezing"))
            raise MigrationError(
                f"{self.name}: {found:,} changes were written to the source after its writes were stopped: by a session"
                " or a role that sets default_transaction_read_only off itself; stop it, and run the same again"
            )
        return self._write(attrs.evolve(state, phase="verified"))

    def _set_sequences(self, connection: Connection) -> None:
        found = self._source.sequences(connection)
        if not found:
            return
        calls = ", ".join(
            f"setval({_literal(quoted(each.schema, each.name))}, {each.value}, {str(each.called).lower()})"
            for each in found
        )
        with self._target.session("sequences") as target:
            try:
                target.execute(f"SELECT {calls}".encode())
            except psycopg.Error as exc:
                raise MigrationError(
                    f"the sequences of {self._target.label} cannot be set: {exc.diag.message_primary or exc}"
                ) from exc

    def _clean_source(self, connection: Connection, state: OnlineState) -> None:
        drop_slot(connection, self._slot_name)
        self._source.unpublish(connection)
        self._source.forget_identities(connection, state.kept)

    def _check_shape(self) -> None:
        """Notice tables and columns that came, went or changed since the move began.

        Raises:
            MigrationError: both sides have no longer the same ones.
        """
        with self._source.server.session() as source, self._target.session() as target:
            published = {
                f"{schema}.{name}"
                for schema, name in source.execute(
                    "SELECT schemaname, tablename FROM pg_publication_tables WHERE pubname = %s", (self._slot_name,)
                ).fetchall()
            }
            here, there = self._source.shape(source), self._source.shape(target)
            roots = {str(table) for table in self._source.tables(source) if table.kind == "p"}
        new = sorted(name for name in here if name not in published | roots)
        other = sorted(name for name in here if here[name] != there.get(name))
        if new or other:
            named = ", ".join(new or other)
            what = "was made after the move began, so is not followed" if new else "is not the same on both sides"
            raise MigrationError(
                f"{self.name}: {named} {what}: a schema is not to change during a move; make the same change on the"
                " target and run the same again, or roll back and begin again"
            )

    def _check_retained(self, lag: Lag) -> None:
        limit = self._options.max_retained
        if limit is not None and lag.retained > limit and lag.bytes:
            with self._source.server.session() as connection:
                drop_slot(connection, self._slot_name)
            raise MigrationError(_too_much(self.name, lag.retained, limit))

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """While there is a copy, watch what the source keeps, and end it where that is too much."""
        limit, ended = self._options.max_retained, threading.Event()
        if limit is None:
            yield
            return
        dropped: list[int] = []

        def watch() -> None:
            while not dropped and not ended.wait(_WATCH_EACH):
                with contextlib.suppress(psycopg.Error), self._source.server.session("watch") as connection:
                    retained = self._slot.state(connection).retained
                    if retained > limit:
                        drop_slot(connection, self._slot_name)
                        dropped.append(retained)

        thread = threading.Thread(target=watch, name="shiftable-online-watch", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
        if dropped:
            raise MigrationError(_too_much(self.name, dropped[0], limit))

    @contextmanager
    def _session(self, state: OnlineState) -> Iterator[_Session]:
        session = _Session(self._source, self._slot, self._applier(state), self._options)
        try:
            yield session
        finally:
            session.close()

    def _patiently(self, session: _Session, call: Callable[[], T]) -> T:
        """Do one step, again in new sessions where a server was away meanwhile."""
        tries, at = 0, -1
        while True:
            try:
                return call()
            except (psycopg.Error, Stale) as exc:
                where, tries = session.at, tries + 1
                session.close()
                if not isinstance(exc, Stale) and not _may_do_better(exc):
                    raise MigrationError(f"{self.name}: {_told(exc)}") from exc
                if where == at and tries > _TRIES:
                    raise MigrationError(
                        f"{self.name}: the same step failed {tries} times: {_told(exc)}; run the same again"
                    ) from exc
                at = where
            except BaseException:
                session.close()
                raise
            self._source.server.wait(self._options.patience)
            self._target.wait(self._options.patience)

    def _applier(self, state: OnlineState) -> Applier:
        visible = Visible.read(state.visible, state.until) if state.visible else None
        return Applier(self._target, self._slot_name, visible=visible)

    def _unless_going_back(self, state: OnlineState) -> None:
        if state.going_back:
            raise MigrationError(f"{self.name}: it is being rolled back; run the rollback again until it has ended")

    # on the disk

    def _fresh(self) -> OnlineState:
        return OnlineState(
            name=self.name, source=self._source.server.label, target=self._target.label, slot=self._slot_name
        )

    def _read(self) -> OnlineState:
        return self._file.read(self._fresh())

    def _write(self, state: OnlineState) -> OnlineState:
        self._file.write(state)
        return state

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Let nobody else work at the same move."""
        with self._file.locked(), self._translated():
            yield

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Turn a server's errors into one sentence, without the rows that they may tell of."""
        try:
            yield
        except psycopg.Error as exc:
            raise MigrationError(f"{self.name}: {_told(exc)}; correct that and run the same again") from exc

    def __repr__(self) -> str:
        return f"<Online move of {self.name!r} from {self._source.server.label} to {self._target.label}>"


def _is_over(state: OnlineState) -> bool:
    return state.phase in {"new", "done"} and not state.going_back


def _changes(slot: Slot, connection: Connection, since: int, upto: int) -> int:
    """Count the changes of transactions behind a place."""
    from shiftable.migrate._capture._pgoutput import Begin, Decoder, Delete, Insert, Truncate, Update

    decoder, found, counts = Decoder(), 0, False
    for data in slot.peek(connection, upto=upto, changes=0):
        message = decoder.decode(data)
        if isinstance(message, Begin):
            counts = message.lsn >= since
        found += counts and isinstance(message, Insert | Update | Delete | Truncate)
    return found


def _may_do_better(exc: psycopg.Error) -> bool:
    return is_lost(exc) or (exc.sqlstate or "").startswith("40")


def _told(exc: psycopg.Error | Stale) -> str:
    if isinstance(exc, Stale):
        return "another mover applies the same changes"
    return exc.diag.message_primary or " ".join(str(exc).split())


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _too_much(name: str, retained: int, limit: int) -> str:
    return (
        f"{name}: the source kept {retained:,} bytes of its write-ahead log for the move, more than {limit:,}: the slot"
        " was dropped; roll back, and begin again"
    )


def _now() -> str:
    return datetime.now(UTC).isoformat()

"""Changing over to the machines that a move has made: prepare, switch names, stop the old ones; or go back.

Each step may be killed and made again. What is changed is written down before it is.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal
from urllib.parse import quote

import attrs

from shiftable.compute import Compute, Fleet, FleetSpec, Machine, MachineInfo
from shiftable.compute._rules import in_order
from shiftable.dns import Zone
from shiftable.errors import MigrationError, NotFound
from shiftable.fibers import sleep
from shiftable.migrate._compute_health import HealthCheck, ailing
from shiftable.migrate._compute_hooks import Pair, copy_path, run_for_fleet, run_for_machine
from shiftable.migrate._compute_names import NamedRecord, Pointer, aimed, moved_back, point
from shiftable.migrate._steps import StepFile

__all__ = ["FleetCutover", "FleetStatus", "NamedRecord"]

FORMAT = 1
_GLANCE = 30.0
_SHOWN = 5


@attrs.frozen(kw_only=True)
class Addresses:
    """Where a machine of the old side was reached."""

    name: str
    public: tuple[str, ...]
    private: tuple[str, ...]


@attrs.frozen(kw_only=True)
class State:
    """What is written down between two steps. Times are of ISO 8601, in UTC.

    Args:
        old: where the machines of the old side were when names led to them.
        pointers: record sets with what they held, and what they were to hold.
        hooks: machines for which a command has been run, and ``*`` for the fleet.
        switched_at: when the last record set was changed.
        keep_until: until then resolvers may lead to the side that the names left.
        stopped: machines of the old side that ran before they were stopped.
        finished_at: when it was ended; the old machines may be there still.
        going_back: names are to lead to the old side again.
        returned_at: when they did.
    """

    format: int = FORMAT
    fleet: str
    source: str
    target: str
    old: tuple[Addresses, ...] = ()
    pointers: tuple[Pointer, ...] = ()
    hooks: tuple[str, ...] = ()
    switched_at: str = ""
    keep_until: str = ""
    stopped: tuple[str, ...] = ()
    stopped_at: str = ""
    finished_at: str = ""
    going_back: bool = False
    returned_at: str = ""


@attrs.frozen(kw_only=True)
class FleetStatus:
    """Where a change over is, and what comes next.

    Args:
        names: record sets that were switched, as text.
        next: ``switch``, ``stop``, ``finish``, ``rollback`` or nothing.
    """

    fleet: str
    names: tuple[str, ...]
    switched_at: datetime | None
    keep_until: datetime | None
    stopped_at: datetime | None
    finished_at: datetime | None
    going_back: bool
    returned_at: datetime | None
    next: str
    why: str


def _now() -> datetime:
    return datetime.now(UTC)


class FleetCutover:
    """The change from the machines of one provider to those that a move has made at another.

    The old side is stopped and started again, and deleted only by ``finish(delete_old=True)``.

    Args:
        spec: the fleet as the target is to have it; how many machines there must be.
        folder: where it is written down, ``.shiftable``.
        labels: of both sides.
        zones: opens a zone by its label, at a provider by its label.
        checks: how machines are looked at from here.
        health_timeout: seconds until they must be well.
        clock: the time, aware.
        pause: waits so many seconds.
    """

    def __init__(
        self,
        source: Compute,
        target: Compute,
        spec: FleetSpec,
        folder: Path,
        *,
        labels: tuple[str, str],
        zones: Callable[[str, str], Zone],
        checks: Sequence[HealthCheck] = (),
        health_timeout: float = 300.0,
        clock: Callable[[], datetime] = _now,
        pause: Callable[[float], object] = sleep,
    ) -> None:
        if labels[0] == labels[1]:
            raise MigrationError(f"source and target are both {labels[0]!r}; name two providers")
        self.source = source
        self.target = target
        self.spec = spec
        self.path = folder / f"fleet-{quote(spec.name, safe='')}.json"
        self._stage = folder / f"fleet-{quote(spec.name, safe='')}"
        self._file = StepFile[State](self.path, "change over", ("format", "fleet", "source", "target"), _is_over)
        self._labels = labels
        self._zones = zones
        self.checks = tuple(checks)
        self._timeout = health_timeout
        self._clock = clock
        self._pause = pause

    # looking

    def status(self) -> FleetStatus:
        """Say where it is. Calls nobody."""
        state = self._read()
        step, why = _next(state, self._clock())
        return FleetStatus(
            fleet=self.spec.name,
            names=tuple(map(str, state.pointers)),
            switched_at=_time(state.switched_at),
            keep_until=_time(state.keep_until),
            stopped_at=_time(state.stopped_at),
            finished_at=_time(state.finished_at),
            going_back=state.going_back,
            returned_at=_time(state.returned_at),
            next=step,
            why=why,
        )

    def check(self) -> None:
        """Look at the new machines: all are there, run, and are well.

        Raises:
            MigrationError: they are not; says which.
        """
        self._check_well(self._new(), "the new side")

    # before

    def prepare(
        self, *, command: str | None = None, each: str | None = None, paths: Iterable[str] = (), again: bool = False
    ) -> None:
        """Copy paths from old machines to new ones, then run commands; one that has ended well is not run again.

        A command that was killed, or failed, is. Paths are brought up to date each time.

        Args:
            command: run once, with all names and addresses in its environment.
            each: run for each machine, with its own.
            again: run commands that have ended well already.
        """
        with self._file.locked():
            state = self._begun()
            old = {machine.name: machine for machine in self._old()}
            sides = self.source.provider, self.target.provider
            pairs = [Pair(new=machine, old=old.get(machine.name), providers=sides) for machine in self._new()]
            for path in paths:
                for pair in pairs:
                    copy_path(path, pair, self._stage / pair.name)
            done = set() if again else {*state.hooks}
            jobs: list[tuple[str, Callable[[], None]]] = []
            if command is not None:
                jobs.append(("*", lambda text=command: run_for_fleet(text, self.spec.name, pairs)))  # type: ignore[misc]
            if each is not None:
                jobs += [
                    (pair.name, lambda text=each, pair=pair: run_for_machine(text, self.spec.name, pair))  # type: ignore[misc]
                    for pair in pairs
                ]
            for name, job in jobs:
                if name not in done:
                    job()
                    state = attrs.evolve(state, hooks=tuple(sorted({*state.hooks, name})))
                    self._write(state)

    # over

    def switch(self, records: Sequence[NamedRecord] = (), *, force: bool = False) -> int:
        """Look at the new machines, then let names lead to them; return how many record sets were changed.

        While one of them is not well nothing is changed, and the old side runs on.

        Args:
            records: names; those of an earlier call are remembered.
            force: also names that lead to something that is no machine of the old side.

        Raises:
            MigrationError: a machine is not well; a name leads elsewhere, or somebody has changed it meanwhile.
        """
        with self._file.locked():
            state, new = self._begun(), self._new()
            self._check_well(new, "the new side")
            state = attrs.evolve(state, old=_remembered(state.old, self._old()))
            known = frozenset(address for each in state.old for address in (*each.public, *each.private))
            pointers = aimed(records, state.pointers, self._zones, old=known, new=new, force=force)
            state = attrs.evolve(state, pointers=pointers)
            self._write(state)
            changed = point(state.pointers, self._zones)
            if changed or not state.switched_at:
                now = self._clock()
                longest = max((each.before.ttl for each in state.pointers if each.before), default=0)
                keep = now + timedelta(seconds=longest)
                self._write(attrs.evolve(state, switched_at=now.isoformat(), keep_until=keep.isoformat()))
            return changed

    def stop(self, *, force: bool = False, tell: Callable[[timedelta], object] = lambda _: None) -> tuple[str, ...]:
        """Wait until nobody is led to the old side any more, then stop its machines; return which.

        Where the provider stops none, they run on until ``finish(delete_old=True)``.

        Args:
            force: do not wait.
            tell: called from time to time with what is left to wait.

        Raises:
            MigrationError: names were not switched; they do not lead to the new side any more; that is not well.
        """
        with self._file.locked():
            state = self._begun()
            if not state.switched_at:
                raise MigrationError(f"{self.spec.name}: names do not lead to the new machines yet; switch first")
            if not force:
                self._wait(state, tell)
            self._check_well(self._new(), "the new side")
            self._check_ours(state)
            can = self.source.features.stop
            running = [machine for machine in self._machines(self.source) if can and machine.seen.state in _RUNNING]
            names = tuple(sorted({*state.stopped, *(machine.name for machine in running)}))
            state = attrs.evolve(state, stopped=names)
            self._write(state)
            for machine in running:
                machine.stop()
            for machine in self._machines(self.source):
                if machine.name in names:
                    machine.wait("stopped")
            self._write(attrs.evolve(state, stopped_at=state.stopped_at or self._clock().isoformat()))
            return names

    def finish(self, *, delete_old: bool = False) -> None:
        """End it: what was copied here is deleted, and the old machines if that is said, now or by a later call.

        Raises:
            MigrationError: the old side was not stopped; a machine of it runs again.
        """
        with self._file.locked():
            state = self._unless_half_way_back()
            if not state.stopped_at or state.going_back:
                raise MigrationError(f"{self.spec.name}: the old side was not stopped; stop it first")
            if delete_old:
                running = [each.name for each in self._old() if each.state not in {"stopped", "failed"}]
                if running and self.source.features.stop:
                    raise MigrationError(
                        f"{_told(running)} of the old side run again; nothing was deleted: look at them, or roll back"
                    )
                with contextlib.suppress(NotFound):
                    self.source.delete(self.spec.name)
            shutil.rmtree(self._stage, ignore_errors=True)
            self._write(attrs.evolve(state, finished_at=state.finished_at or self._clock().isoformat()))

    # back

    def rollback(
        self,
        *,
        new: Literal["keep", "stop", "delete"] = "keep",
        force: bool = False,
        tell: Callable[[timedelta], object] = lambda _: None,
    ) -> int:
        """Start the old machines, let names lead to them again, then do with the new ones as told.

        Names hold what they held, with the addresses that the old machines have now. The new machines are stopped or
        deleted when nobody is led to them any more.

        Args:
            force: go back though the old side is not well, and do not wait.

        Returns:
            How many record sets were changed.

        Raises:
            MigrationError: the old machines are gone, or not well; somebody has changed a name meanwhile.
        """
        with self._file.locked():
            state = attrs.evolve(self._read(), going_back=True, finished_at="")
            if {each.name for each in state.old} - {each.name for each in self._old()}:
                raise MigrationError(f"{self.spec.name}: machines of the old side are gone; there is no way back")
            self._write(state)
            now = self._started(state)
            if not force:
                self._check_well(now, "the old side")
            before = [_as_machine(each, now) for each in state.old]
            pointers = tuple(moved_back(each, before, now) for each in state.pointers)
            state = attrs.evolve(state, pointers=pointers)
            self._write(state)
            changed = point(pointers, self._zones)
            if not state.returned_at or changed:
                at = self._clock()
                longest = max((held.ttl for each in pointers for held in each.written if held), default=0)
                keep = at + timedelta(seconds=longest if pointers else 0)
                state = attrs.evolve(state, returned_at=at.isoformat(), keep_until=keep.isoformat())
                self._write(state)
            if new != "keep":
                if not force:
                    self._wait(state, tell)
                self._end_new(new)
            return changed

    def _end_new(self, what: Literal["stop", "delete"]) -> None:
        if what == "delete":
            with contextlib.suppress(NotFound):
                self.target.delete(self.spec.name)
            return
        fleet = self.target.fleet(self.spec.name)
        fleet.stop()
        fleet.wait("stopped")

    # below: one step each

    def _started(self, state: State) -> list[MachineInfo]:
        """Start what was stopped, and wait for it."""
        for machine in self._machines(self.source):
            if machine.name in state.stopped and machine.seen.state not in _RUNNING:
                if machine.seen.state == "stopping":
                    machine.wait("stopped")
                machine.start()
        for machine in self._machines(self.source):
            if machine.name in state.stopped:
                machine.wait("running")
        return [machine for machine in self._old() if machine.state == "running"]

    def _check_well(self, machines: Sequence[MachineInfo], side: str) -> None:
        found = ailing(self.checks, machines, timeout=self._timeout, pause=self._pause)
        if found:
            told = "; ".join(f"{name}: {why}" for name, why in list(found.items())[:_SHOWN])
            more = f"; and {len(found) - _SHOWN:,} more" if len(found) > _SHOWN else ""
            raise MigrationError(f"{side} of {self.spec.name} is not well: {told}{more}; nothing was changed")

    def _check_ours(self, state: State) -> None:
        """Refuse to go on if a name does not lead where it was led."""
        for pointer in state.pointers:
            point([attrs.evolve(pointer, before=pointer.wanted, written=(pointer.wanted,))], self._zones)

    def _new(self) -> list[MachineInfo]:
        """Return the new machines.

        Raises:
            MigrationError: there are too few, or not all of them run.
        """
        found = [machine.seen for machine in self._machines(self.target)]
        idle = [machine.name for machine in found if machine.state != "running"]
        if len(found) < self.spec.count or idle or not found:
            what = f"{_told(idle)} do not run" if idle else f"there are {len(found):,} of {self.spec.count:,} machines"
            raise MigrationError(
                f"{self.spec.name} on {self._labels[1]}: {what}; move it first: shiftable migrate --apply"
            )
        return found

    def _old(self) -> list[MachineInfo]:
        return [machine.seen for machine in self._machines(self.source)]

    def _machines(self, side: Compute) -> list[Machine]:
        fleet: Fleet = side.fleet(self.spec.name)
        found = {machine.id: machine for machine in fleet.machines() if machine.seen.state not in _GONE}
        return [found[seen.id] for seen in in_order(fleet.name, [machine.seen for machine in found.values()])]

    def _wait(self, state: State, tell: Callable[[timedelta], object]) -> None:
        until = _time(state.keep_until)
        while until is not None and (left := until - self._clock()) > timedelta(0):
            tell(left)
            self._pause(min(left.total_seconds(), _GLANCE))

    # on the disk

    def _begun(self) -> State:
        """Return where it is, to go on; anew after it was rolled back.

        Raises:
            MigrationError: it is being rolled back.
        """
        state = self._unless_half_way_back()
        return self._fresh() if state.going_back else state

    def _unless_half_way_back(self) -> State:
        state = self._read()
        if state.going_back and not state.returned_at:
            raise MigrationError(f"{self.spec.name}: it is being rolled back; run rollback to its end first")
        return state

    def _fresh(self) -> State:
        return State(fleet=self.spec.name, source=self._labels[0], target=self._labels[1])

    def _read(self) -> State:
        return self._file.read(self._fresh())

    def _write(self, state: State) -> None:
        self._file.write(state)

    def __repr__(self) -> str:
        return f"<FleetCutover of {self.spec.name!r} from {self._labels[0]} to {self._labels[1]}>"


_RUNNING = frozenset({"creating", "running", "starting", "rebooting"})
_GONE = frozenset({"deleting", "deleted"})


def _remembered(known: tuple[Addresses, ...], now: Sequence[MachineInfo]) -> tuple[Addresses, ...]:
    """Return where the old machines were: as they are seen first, since one that is stopped may have lost them."""
    found = {each.name: each for each in known}
    for machine in now:
        if machine.name not in found and (machine.public_addresses or machine.addresses):
            found[machine.name] = Addresses(
                name=machine.name, public=machine.public_addresses, private=machine.addresses
            )
    return tuple(found.values())


def _as_machine(known: Addresses, now: Sequence[MachineInfo]) -> MachineInfo:
    """Return a machine as it was reached."""
    here = next((each for each in now if each.name == known.name), None)
    blank = MachineInfo(
        id="", name=known.name, fleet=None, state="unknown", raw_state="", size="", cpus=0, memory=0, image=""
    )
    return attrs.evolve(here or blank, public_addresses=known.public, addresses=known.private)


def _is_over(state: State) -> bool:
    return bool(state.finished_at) or (state.going_back and bool(state.returned_at))


def _next(state: State, now: datetime) -> tuple[str, str]:
    """Say which step comes next, and why."""
    keep = _time(state.keep_until)
    if state.going_back:
        back = "names lead to the old side again" if state.pointers else "it was given up before a name was changed"
        found = ("", back) if state.returned_at else ("rollback", "it is half way back")
    elif state.finished_at:
        found = "", "it is finished; rollback is possible while the old machines are there"
    elif state.stopped_at:
        found = "finish", "the old side is stopped; rollback is still possible"
    elif not state.switched_at:
        found = "switch", "names do not lead to the new machines yet"
    elif keep is not None and keep > now:
        found = "stop", f"resolvers may lead to the old side until {keep:%Y-%m-%d %H:%M:%S} UTC; stop waits for that"
    else:
        found = "stop", "nobody is led to the old side any more"
    return found


def _told(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else "")


def _time(text: str) -> datetime | None:
    return datetime.fromisoformat(text) if text else None

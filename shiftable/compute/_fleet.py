"""A fleet of machines and what one does with all of them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import ClassVar, TypeVar

from shiftable.compute._machine import TIMEOUT, Machine
from shiftable.compute._rules import in_order
from shiftable.compute._ssh import Completed
from shiftable.compute.driver import ComputeDriver, ComputeFeatures, Disk, FleetSpec, MachineInfo, MachineState
from shiftable.errors import NotFound, Resource
from shiftable.paging import Page, paged
from shiftable.parallel import parallel
from shiftable.service import Handle
from shiftable.waiting import Timing

__all__ = ["Fleet"]

T = TypeVar("T")

_ON_THE_WAY: frozenset[MachineState] = frozenset({"creating", "starting", "rebooting", "stopping", "deleting"})
_AT_ONCE = 16  # calls, sessions of ssh


class Fleet(Handle[ComputeDriver]):
    """The machines of one name. What a verb does, it does to each of them."""

    service: ClassVar[str] = "compute"
    resource_type: ClassVar[str] = "fleet"

    def __init__(
        self, driver: ComputeDriver, name: str, *, declared: FleetSpec | None = None, timing: Timing | None = None
    ) -> None:
        super().__init__(driver, name)
        self.declared = declared
        self._timing = timing or Timing()

    @property
    def features(self) -> ComputeFeatures:
        """What the driver can do."""
        return self._driver.features

    def machines(self, *, limit: int | None = None) -> Iterator[Machine]:
        """Iterate over the fleet's machines, those included that are being made or deleted; in the provider's order."""

        def fetch(cursor: str | None, left: int | None) -> Page[MachineInfo]:
            with self._translated("machines", self.resource):
                return self._driver.machines(self.name, cursor=cursor, limit=left)

        return (Machine(self._driver, seen, timing=self._timing) for seen in paged(fetch, limit=limit))

    def machine(self, name: str) -> Machine:
        """Return one machine, ``web-0``.

        Raises:
            NotFound: the fleet has none of that name.
        """
        for machine in self.machines():
            if machine.name == name and machine.seen.state != "deleting":
                return machine
        raise NotFound(
            "the fleet has no such machine",
            provider=self.provider,
            operation="compute.machine",
            resource=Resource("machine", name, self.resource),
        )

    # state

    def start(self) -> None:
        """Begin to start all machines. Those that run are left alone."""
        self._each(Machine.start)

    def stop(self) -> None:
        """Begin to stop all machines, so that they cost less. Those that are stopped are left alone."""
        self._each(Machine.stop)

    def reboot(self) -> None:
        """Restart the machines one after another, each when the one before runs again."""
        for machine in self._living():
            machine.reboot()
            machine.wait()

    def resize(self, *, cpus: int | None = None, memory_gib: int | None = None) -> None:
        """Make the machines larger or smaller, one after another; those that run are stopped for it meanwhile.

        What is declared stays declared: the next ``apply`` goes back to it.
        """
        for machine in self._living():
            machine.resize(cpus=cpus, memory_gib=memory_gib)

    def relabel(self, labels: Mapping[str, str] | None = None, *, remove: Collection[str] = ()) -> None:
        """Give all machines labels, and take others from them. All that are not named stay.

        What is declared stays declared: the next ``apply`` gives its labels back.
        """
        self._each(lambda machine: machine.relabel(labels, remove=remove))

    def wait(self, state: MachineState = "running", *, timeout: timedelta = TIMEOUT) -> tuple[MachineInfo, ...]:
        """Wait until all machines are in a state, and return what they are then.

        Raises:
            Conflict: one failed.
            NotFound: one that was there when the waiting began is gone.
            Timeout: it took longer.
        """
        deadline = self._timing.clock() + timeout.total_seconds()

        def left() -> timedelta:
            return timedelta(seconds=max(0.0, deadline - self._timing.clock()))

        there: dict[str, MachineInfo] = {}
        before: list[Machine] = []
        while True:  # what is there by now is told by one listing, not by a call for each machine
            living = self._living()
            for machine in before:
                if machine.id not in {other.id for other in living}:
                    machine.info()  # one that is gone tells why
            before = living
            there.update({machine.id: machine.seen for machine in living if machine.seen.state == state})
            waiting = [machine for machine in living if machine.id not in there]
            if not waiting:
                return tuple(there[machine.id] for machine in living)
            first = next((machine for machine in waiting if machine.seen.state == "failed"), waiting[0])
            there[first.id] = first.wait(state, timeout=left())

    def settle(self, *, timeout: timedelta = TIMEOUT) -> tuple[MachineInfo, ...]:
        """Wait until no machine is on its way to another state, and return what they are then.

        Raises:
            Conflict: one failed.
            Timeout: it took longer.
        """

        def probe() -> tuple[MachineInfo, ...] | None:
            found = list(self.machines())
            for machine in found:
                machine.refuse_failed(machine.seen, "running")
            moving = any(machine.seen.state in _ON_THE_WAY for machine in found)
            return None if moving else tuple(in_order(self.name, [machine.seen for machine in found]))

        return self._timing.until(probe, f"the machines of {self.resource} to be there", timeout)

    # inside and around

    def info(self) -> tuple[MachineInfo, ...]:
        """Return what the machines are now, in the order of their numbers, without those that are being deleted."""
        return tuple(machine.seen for machine in self._living())

    def console(self) -> dict[str, bytes]:
        """Return what each machine wrote to its console, by name."""
        return self._each(Machine.console)

    def run(
        self, command: str | Sequence[str], *, stdin: bytes = b"", timeout: timedelta = timedelta(minutes=5)
    ) -> dict[str, Completed]:
        """Run a command over ssh on all machines at once, and return what each said, by name.

        Raises:
            Unavailable: a machine cannot be reached; the command may have run on others.
        """
        return self._each(lambda machine: machine.run(command, stdin=stdin, timeout=timeout))

    def attach(self, machine: str, disk: str) -> Disk:
        """Attach a disk, by its id, to one machine, by its name."""
        return self.machine(machine).attach(disk)

    def detach(self, machine: str, disk: str) -> Disk:
        """Detach a disk, by its id, from one machine, by its name."""
        return self.machine(machine).detach(disk)

    # below: one step each

    def _living(self) -> list[Machine]:
        found = {
            machine.id: machine for machine in self.machines() if machine.seen.state not in {"deleting", "deleted"}
        }
        return [found[seen.id] for seen in in_order(self.name, [machine.seen for machine in found.values()])]

    def _each(self, act: Callable[[Machine], T]) -> dict[str, T]:
        """Do something to all machines at once; if one fails, the others are still done."""
        machines = self._living()
        done = {machine.name: future for machine, future in parallel(act, machines, workers=_AT_ONCE)}
        return {machine.name: done[machine.name].result() for machine in machines}

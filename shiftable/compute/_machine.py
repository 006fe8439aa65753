"""One machine and what one does with it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import timedelta
from typing import ClassVar, TypeVar

from shiftable.compute import _ssh
from shiftable.compute._ssh import Completed
from shiftable.compute.driver import (
    GIB,
    ComputeDriver,
    ComputeFeatures,
    Disk,
    DiskSnapshot,
    FleetSpec,
    Image,
    MachineInfo,
    MachineState,
    Size,
)
from shiftable.errors import Conflict, NotFound, OperationError, Resource, ShiftableError, Unsupported
from shiftable.service import Handle
from shiftable.waiting import Timing

__all__ = ["COPYING", "TIMEOUT", "Machine", "until_ready"]

TIMEOUT = timedelta(minutes=15)
COPYING = timedelta(hours=1)  # what is on a disk

E = TypeVar("E", bound=OperationError)
T = TypeVar("T")
R = TypeVar("R", Image, Disk, DiskSnapshot)


def until_ready(timing: Timing, made: R, find: Callable[[], R], what: str, timeout: timedelta) -> R:
    """Return what was made, when it can be used."""
    return made if made.ready else timing.until(lambda: seen if (seen := find()).ready else None, what, timeout)


class Machine(Handle[ComputeDriver]):
    """One machine. It keeps its id; what ``info`` told when it was listed is in ``seen``."""

    service: ClassVar[str] = "compute"
    resource_type: ClassVar[str] = "machine"

    def __init__(self, driver: ComputeDriver, seen: MachineInfo, *, timing: Timing | None = None) -> None:
        super().__init__(driver, seen.name)
        if seen.fleet is not None:
            self.resource = Resource("machine", seen.name, Resource("fleet", seen.fleet))
        self.id = seen.id
        self.seen = seen
        self._timing = timing or Timing()

    @property
    def features(self) -> ComputeFeatures:
        """What the driver can do."""
        return self._driver.features

    def info(self) -> MachineInfo:
        """Return the machine's state and addresses, as they are now.

        Raises:
            NotFound: it is gone.
        """
        with self._translated("info", self.resource):
            return self._driver.machine(self.id)

    # state

    def start(self) -> None:
        """Begin to start the machine. One that runs is left alone.

        Raises:
            Conflict: its state forbids it.
        """
        self._require(self.features.stop, "start", self.resource, "way to stop and start a machine")
        if self.info().state not in {"running", "starting"}:
            with self._translated("start", self.resource):
                self._driver.start(self.id)

    def stop(self) -> None:
        """Begin to stop the machine, so that it costs less. One that is stopped is left alone.

        Raises:
            Conflict: its state forbids it.
        """
        self._require(self.features.stop, "stop", self.resource, "way to stop and start a machine")
        if self.info().state not in {"stopped", "stopping"}:
            with self._translated("stop", self.resource):
                self._driver.stop(self.id)

    def reboot(self) -> None:
        """Begin to restart the machine.

        Raises:
            Conflict: it does not run.
        """
        with self._translated("reboot", self.resource):
            self._driver.reboot(self.id)

    def resize(
        self, *, cpus: int | None = None, memory_gib: int | None = None, timeout: timedelta = TIMEOUT
    ) -> MachineInfo:
        """Make the machine larger or smaller, and wait for it. One that runs is stopped for it and started again.

        Raises:
            InvalidArgument: no size is large enough.
        """
        info = self.info()
        spec = FleetSpec(
            name=info.fleet or info.name,
            image=info.image,
            cpus=cpus or info.cpus,
            memory_gib=memory_gib or max(1, info.memory // GIB),
            arch=info.arch,
            gpus=info.gpus,
            zone=info.zone,
        )
        try:
            with self._translated("resize", self.resource):
                size = self._driver.choose(spec).size
        except OperationError:
            raise
        except ValueError as exc:
            raise self._invalid("resize", self.resource, str(exc)) from exc
        return self.resize_to(size, timeout=timeout)

    def resize_to(self, size: Size, *, timeout: timedelta = TIMEOUT) -> MachineInfo:
        """Give the machine that size, and wait for it. One that runs is stopped for it and started again.

        It is also started if it could not be resized; only if starting it fails, it stays stopped.
        """
        self._require(self.features.resize, "resize", self.resource, "way to change the size of a machine")
        info = self.info()
        if (info.size, info.cpus, info.memory) == (size.name, size.cpus, size.memory):
            return info
        if info.state in {"creating", "starting", "rebooting"}:
            info = self.wait("running", timeout=timeout)
        ran = info.state not in {"stopped", "stopping"}
        try:
            self.stop()
            self.wait("stopped", timeout=timeout)
            with self._translated("resize", self.resource):
                self._driver.resize(self.id, size)
        except BaseException as exc:
            if ran:  # it was stopped for nothing
                with contextlib.suppress(ShiftableError):
                    if isinstance(exc, Exception) and self.info().state == "stopping":
                        self.wait("stopped", timeout=timeout)
                    self.start()
            raise
        if not ran:
            return self.info()
        self.start()
        return self.wait("running", timeout=timeout)

    def relabel(self, labels: Mapping[str, str] | None = None, *, remove: Collection[str] = ()) -> None:
        """Give the machine labels, and take others from it. All that are not named stay.

        What is declared stays declared: the next ``apply`` gives its labels back.

        Args:
            labels: new ones, and others in the place of those of the same name.
            remove: names; one that it does not have is no error.

        Raises:
            NotFound: it is gone.
            InvalidArgument: the provider has no room for so many, or there is nothing to change. Nothing was sent.
            Unsupported: the provider's labels do not change, or cannot be such. Nothing was sent.
        """
        given, taken = dict(labels or {}), frozenset(remove)
        why = "" if given or taken else "there is nothing to change; give labels, remove or both"
        for name in sorted(taken):
            if name in given:
                why = f"the label {name!r} cannot be given and taken away at once"
            elif self._driver.is_own_label(name):
                why = f"the label {name!r} is shiftable's own"
        if why:
            raise self._invalid("relabel", self.resource, why)
        self._require(self.features.relabel, "relabel", self.resource, "way to change labels of a machine")
        lacking = self._driver.missing_labels(given)
        self._require(not lacking, "relabel", self.resource, " and no ".join(lacking))
        self._require_room(given, taken)
        with self._translated("relabel", self.resource):
            self._driver.relabel(self.id, labels=given, remove=taken)

    def _require_room(self, labels: Mapping[str, str], remove: frozenset[str]) -> None:
        """Refuse labels that would be too many with those that the machine has."""
        limit = self.features.max_labels
        if limit is None or not labels:
            return
        has = self.info().labels.keys()
        would = (has | labels.keys()) - remove
        if len(would) > max(limit.value, len(has)):
            why = f"it would have {len(would):,} labels with the fleet's own; the limit is {limit} ({limit.source})"
            raise self._invalid("relabel", self.resource, why)

    def delete(self) -> None:
        """Begin to delete the machine, with the disk that it starts from; other disks stay. One gone is no error.

        A machine of a declared fleet comes back with the next ``apply``.
        """
        try:
            with self._translated("delete", self.resource):
                self._driver.delete_machine(self.id)
        except NotFound:
            return

    def wait(self, state: MachineState = "running", *, timeout: timedelta = TIMEOUT) -> MachineInfo:
        """Wait until the machine is in a state, and return what it is then.

        Raises:
            Conflict: it failed.
            NotFound: it is gone.
            Timeout: it took longer.
        """

        def probe() -> MachineInfo | None:
            info = self.info()
            self.refuse_failed(info, state)
            return info if info.state == state else None

        return self._timing.until(probe, f"{self.resource} to be {state}", timeout)

    def refuse_failed(self, info: MachineInfo, wanted: MachineState) -> None:
        """End the waiting for a machine that will never be as wanted."""
        if info.state == "failed" != wanted:
            why = f"it failed (the provider says {info.raw_state!r}); look at its console, then delete it"
            raise self._refusal(Conflict, "wait", why)

    def wait_deleted(self, *, timeout: timedelta = TIMEOUT) -> None:
        """Wait until the machine is gone.

        Raises:
            Timeout: it took longer.
        """

        def probe() -> bool | None:
            try:
                return self.info().state == "deleted" or None
            except NotFound:
                return True

        self._timing.until(probe, f"{self.resource} to be deleted", timeout)

    # inside and around

    def console(self) -> bytes:
        """Return what the machine wrote to its console, the last of it."""
        self._require(self.features.console, "console", self.resource, "console")
        with self._translated("console", self.resource):
            return self._driver.console(self.id)

    def run(
        self, command: str | Sequence[str], *, stdin: bytes = b"", timeout: timedelta = timedelta(minutes=5)
    ) -> Completed:
        """Run a command over ssh as the machine's user, with the caller's own keys.

        Args:
            command: for the user's shell there; a sequence is quoted for it.

        Returns:
            what it said, and its exit code; another than 0 is no error.

        Raises:
            Unavailable: the machine cannot be reached, or lets nobody in.
            Conflict: it has no address.
            Timeout: it took longer.
            Unsupported: the machine is only simulated.
        """
        return _ssh.run(self._reachable("run"), self.provider, command, stdin=stdin, timeout=timeout)

    def ssh_command(self, command: Sequence[str] = (), *, options: Sequence[str] = ()) -> tuple[str, ...]:
        """Return the arguments with which ssh opens a session on the machine, for a program that starts it.

        Args:
            command: what to run there instead of a shell, as it is, without a shell's rules.
            options: of ssh_config(5), ``LocalForward=8080 localhost:80``.

        Raises:
            Conflict: it has no address.
            Unsupported: the machine is only simulated.
        """
        return tuple(_ssh.command_line(self._reachable("ssh"), self.provider, command, options=options))

    def _reachable(self, operation: str) -> MachineInfo:
        if not self.features.ssh:
            why = "it is only simulated: there is no machine to log in to; the provider baremetal runs one"
            raise self._refusal(Unsupported, operation, why)
        info = self.info()
        if _ssh.destination(info) is None:
            raise self._refusal(Conflict, operation, f"it has no address (it is {info.state})")
        return info

    def attach(self, disk: str, *, timeout: timedelta = TIMEOUT) -> Disk:
        """Attach a disk, by its id, and wait until it is. One that is attached to it already is no error."""
        self._require(self.features.disks, "attach", self.resource, "disks to attach")
        with self._translated("attach", self.resource):
            self._driver.attach(self.id, disk)
            return self._disk_at(self.id, disk, timeout)

    def detach(self, disk: str, *, timeout: timedelta = TIMEOUT) -> Disk:
        """Detach a disk, by its id, and wait until it is. One that is attached to none is no error."""
        self._require(self.features.disks, "detach", self.resource, "disks to detach")
        with self._translated("detach", self.resource):
            self._driver.detach(self.id, disk)
            return self._disk_at(None, disk, timeout)

    def snapshot(self, name: str, *, timeout: timedelta = COPYING) -> Image:
        """Make an image of the machine, to make others from, and wait for it."""
        self._require(self.features.snapshots, "snapshot", self.resource, "images of machines")
        with self._translated("snapshot", self.resource):
            made = self._driver.snapshot(self.id, name)
            what = f"image {name!r} of {self.resource} to be made"
            return until_ready(self._timing, made, lambda: self._driver.image(made.id), what, timeout)

    def _disk_at(self, machine: str | None, disk: str, timeout: timedelta) -> Disk:
        def probe() -> Disk | None:
            found = self._driver.disk(disk)
            return found if found.ready and found.machine == machine else None

        where = "attached" if machine else "detached"
        return self._timing.until(probe, f"disk {disk!r} to be {where}", timeout)

    def _refusal(self, error: type[E], operation: str, why: str) -> E:
        return error(why, provider=self.provider, operation=f"compute.{operation}", resource=self.resource)

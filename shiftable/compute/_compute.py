"""The portable service object of compute."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import islice
from typing import ClassVar, cast

import attrs

from shiftable.compute._fleet import Fleet
from shiftable.compute._machine import COPYING, TIMEOUT, Machine, until_ready
from shiftable.compute._rules import (
    FIREWALL,
    LABELS,
    MADE_ANEW,
    SIZE,
    as_declared,
    failed,
    import_token,
    in_order,
    machine_name,
    missing,
    number_of,
    of_machine,
    steps,
    surplus,
    token_of,
    wrongly_labelled,
    wrongly_made,
    wrongly_sized,
)
from shiftable.compute.driver import (
    Choice,
    ComputeDriver,
    ComputeFeatures,
    Debris,
    Disk,
    DiskImage,
    DiskSnapshot,
    FleetSpec,
    Image,
    MachineInfo,
    Size,
)
from shiftable.errors import AlreadyExists, ConfigError, Conflict, InvalidArgument, NotFound, OperationError, Resource
from shiftable.paging import Page, paged
from shiftable.service import Change, Service
from shiftable.waiting import Timing

__all__ = ["Compute"]


class Compute(Service[FleetSpec, ComputeDriver, Fleet]):
    """The fleets of one account.

    ``create`` and ``apply`` return when the machines are on their way; ``wait`` on the handle when they run.

    >>> from shiftable.memory.compute import MemoryComputeDriver
    >>> compute = Compute(MemoryComputeDriver())
    >>> spec = FleetSpec(name="web", image="debian-12", cpus=2, memory_gib=4, count=2)
    >>> fleet = compute.create(spec)
    >>> [(machine.name, machine.state, machine.size) for machine in fleet.wait()]
    [('web-0', 'running', 'm2-4'), ('web-1', 'running', 'm2-4')]
    """

    service: ClassVar[str] = "compute"
    resource_type: ClassVar[str] = "fleet"

    def __init__(
        self,
        driver: ComputeDriver,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        super().__init__(driver)
        self._timing = Timing(clock, sleep)

    @property
    def features(self) -> ComputeFeatures:
        """What the driver can do."""
        return self._driver.features

    def fleet(self, name: str) -> Fleet:
        """Return the handle of a fleet, whether or not it has machines. Calls nobody.

        Raises:
            InvalidArgument: the provider cannot hold a fleet of that name.
        """
        self._checked("fleet", name)
        return self._handle(name)

    def open(self, spec: FleetSpec) -> Fleet:
        """Return the handle of a declared fleet. Calls nobody."""
        self._checked("fleet", spec.name)
        return Fleet(self._driver, spec.name, declared=spec, timing=self._timing)

    # what there is to choose from

    def sizes(self, *, limit: int | None = None) -> Iterator[Size]:
        """Iterate over the sizes that this account can have."""

        def fetch(cursor: str | None, left: int | None) -> Page[Size]:
            with self._translated("sizes", None):
                return self._driver.sizes(cursor=cursor, limit=left)

        return paged(fetch, limit=limit)

    def images(self, *, limit: int | None = None) -> Iterator[Image]:
        """Iterate over images: the newest of each alias, and the account's own."""

        def fetch(cursor: str | None, left: int | None) -> Page[Image]:
            with self._translated("images", None):
                return self._driver.images(cursor=cursor, limit=left)

        return paged(fetch, limit=limit)

    def import_image(self, name: str, source: DiskImage, *, timeout: timedelta = COPYING) -> Image:
        """Make an image of the account's own of the image of a disk that lies in a bucket, and wait for it.

        Experimental: providers refuse many disks, and whether a machine starts from an image depends on the drivers,
        the boot loader and the agents that are in it. The same call, again, goes on after whatever interrupted it, and
        makes no second image.

        Args:
            source: in a bucket of the same provider, which must be able to read it.

        Raises:
            AlreadyExists: there is an image of that name, made of something else.
            InvalidArgument: the provider cannot make an image of that. Nothing is left.
            Timeout: it took longer, and goes on at the provider.
            Unsupported: the provider does not import such.
        """
        resource, forms = Resource("image", name), self.features.imports
        others = f" (it has one of {', '.join(sorted(forms))})" if forms else ""
        self._require(
            source.form in forms, "import_image", resource, f"importer of disk images in the form {source.form}{others}"
        )
        self._require(source.arch in self.features.arches, "import_image", resource, f"machines of {source.arch}")
        token = import_token(name, source)

        def step() -> Image:
            return self._driver.import_image(name, source, token=token)

        with self._translated("import_image", resource):
            return until_ready(self._timing, step(), step, f"{resource} to be imported", timeout)

    def delete_image(self, image: str) -> None:
        """Delete an image of the account's own, by its id. Machines that were made of it stay."""
        resource = Resource("image", image)
        self._require(self.features.snapshots, "delete_image", resource, "images of machines")
        with self._translated("delete_image", resource):
            self._driver.delete_image(image)

    # disks

    def disks(self, *, limit: int | None = None) -> Iterator[Disk]:
        """Iterate over the disks that live longer than their machines."""

        def fetch(cursor: str | None, left: int | None) -> Page[Disk]:
            with self._translated("disks", None):
                return self._driver.disks(cursor=cursor, limit=left)

        self._require(self.features.disks, "disks", Resource("disk", "*"), "disks")
        return paged(fetch, limit=limit)

    def create_disk(
        self,
        name: str,
        size_gib: int,
        *,
        zone: str | None = None,
        snapshot: str | None = None,
        timeout: timedelta = TIMEOUT,
    ) -> Disk:
        """Make a disk, to be attached to a machine, and wait for it. Clouds encrypt it.

        Args:
            zone: where it is; that of the machine.
            snapshot: id of a snapshot of a disk, whose contents it has.
        """
        resource = Resource("disk", name)
        self._require(self.features.disks, "create_disk", resource, "disks")
        self._require(self.features.disk_snapshots or snapshot is None, "create_disk", resource, "snapshots of disks")
        if size_gib < 1:
            raise self._invalid("create_disk", resource, f"size_gib must be at least 1, not {size_gib}")
        with self._translated("create_disk", resource):
            made = self._driver.create_disk(name, size_gib, zone=zone, snapshot=snapshot)
            what = f"{resource} to be made"
            return until_ready(self._timing, made, lambda: self._driver.disk(made.id), what, timeout)

    def delete_disk(self, disk: str) -> None:
        """Delete a disk, by its id.

        Raises:
            Conflict: it is attached to a machine.
        """
        resource = Resource("disk", disk)
        self._require(self.features.disks, "delete_disk", resource, "disks")
        with self._translated("delete_disk", resource):
            self._driver.delete_disk(disk)

    def disk_snapshots(self, *, limit: int | None = None) -> Iterator[DiskSnapshot]:
        """Iterate over the account's snapshots of disks."""

        def fetch(cursor: str | None, left: int | None) -> Page[DiskSnapshot]:
            with self._translated("disk_snapshots", None):
                return self._driver.disk_snapshots(cursor=cursor, limit=left)

        self._require(
            self.features.disk_snapshots, "disk_snapshots", Resource("disk snapshot", "*"), "snapshots of disks"
        )
        return paged(fetch, limit=limit)

    def snapshot_disk(self, disk: str, name: str, *, timeout: timedelta = COPYING) -> DiskSnapshot:
        """Keep what is on a disk, by its id, and wait until disks can be made of it.

        Of a disk that is in use it has what a machine that lost its power would find.
        """
        resource = Resource("disk", disk)
        self._require(self.features.disk_snapshots, "snapshot_disk", resource, "snapshots of disks")
        with self._translated("snapshot_disk", resource):
            made = self._driver.snapshot_disk(disk, name)
            what = f"snapshot {name!r} of {resource} to be made"
            return until_ready(self._timing, made, lambda: self._driver.disk_snapshot(made.id), what, timeout)

    def delete_disk_snapshot(self, snapshot: str) -> None:
        """Delete a snapshot of a disk, by its id. Disks that were made of it stay."""
        resource = Resource("disk snapshot", snapshot)
        self._require(self.features.disk_snapshots, "delete_disk_snapshot", resource, "snapshots of disks")
        with self._translated("delete_disk_snapshot", resource):
            self._driver.delete_disk_snapshot(snapshot)

    # what failed creations and deletions left

    def debris(self, *, older_than: timedelta = timedelta(0), limit: int | None = None) -> Iterator[Debris]:
        """Iterate over what was made for machines and belongs to none; also of those that are being made just now.

        Args:
            older_than: leaves out what is younger, and what has no age that the provider tells, unless this is zero.
        """

        def fetch(cursor: str | None, left: int | None) -> Page[Debris]:
            with self._translated("debris", None):
                return self._driver.debris(cursor=cursor, limit=left)

        self._require(self.features.debris, "debris", Resource("debris", "*"), "way to find what failures left")
        last = datetime.now(UTC) - older_than
        found = (each for each in paged(fetch) if not older_than or (each.created is not None and each.created <= last))
        return islice(found, limit)

    def sweep(self, *, older_than: timedelta = timedelta(hours=1)) -> tuple[Debris, ...]:
        """Delete what failed creations and deletions left behind, and return it.

        Args:
            older_than: younger things may belong to a machine that is being made, and stay; so do things whose age the
                provider does not tell, unless this is zero.

        Raises:
            Conflict: a machine has it by now; call it again.
        """
        old = tuple(self.debris(older_than=older_than))
        for found in old:
            with self._translated("sweep", Resource(found.kind, found.name)):
                self._driver.delete_debris(found)
        return old

    def choose(self, spec: FleetSpec) -> Choice:
        """Say which size a declaration gets, why, and what it costs.

        Raises:
            InvalidArgument: no size is large enough.
            Unsupported: the provider has no such machines, whatever their size.
        """
        resource = self._checked("choose", spec.name)
        self._require(spec.arch in self.features.arches, "choose", resource, f"machines of {spec.arch}")
        self._require(self.features.gpus or not spec.gpus, "choose", resource, "machines with GPUs")
        try:
            with self._translated("choose", resource):
                return self._driver.choose(of_machine(spec, 0))
        except OperationError:
            raise
        except ValueError as exc:
            raise self._invalid("choose", resource, str(exc)) from exc

    # fleets

    def machines(self, *, limit: int | None = None) -> Iterator[Machine]:
        """Iterate over all machines of the account, of all fleets and of none, in the provider's order."""

        def fetch(cursor: str | None, left: int | None) -> Page[MachineInfo]:
            with self._translated("machines", None):
                return self._driver.machines(None, cursor=cursor, limit=left)

        return (self._machine(seen) for seen in paged(fetch, limit=limit))

    def create(self, spec: FleetSpec) -> Fleet:
        """Begin to make all machines of a fleet.

        Raises:
            AlreadyExists: it has machines.
            InvalidArgument: no size is large enough, or the provider cannot hold such a name.
            Unsupported: the declaration needs what the provider does not have.
            QuotaExceeded: not all could be made; ``diff`` and ``apply`` go on from there.
        """
        resource = self._possible("create", spec)
        if self._living(spec.name):
            why = "it has machines; `shiftable apply`, or apply() of each diff(), changes them"
            raise self._refusal(AlreadyExists, "create", resource, why)
        self._fill(spec, resource)
        return self.open(spec)

    def delete(self, name: str, *, timeout: timedelta = TIMEOUT) -> None:
        """Delete all machines of a fleet and what they shared, and wait until they are gone. Other disks stay.

        Raises:
            NotFound: it has no machines.
            Timeout: it took longer; call it again.
        """
        resource = self._checked("delete", name)
        machines = list(self._handle(name).machines())
        for machine in machines:
            if machine.seen.state != "deleting":
                machine.delete()
        for machine in machines:
            machine.wait_deleted(timeout=timeout)
        with self._translated("delete", resource):
            self._driver.destroy(name)  # also when a deletion that was interrupted left nothing but this
        if not machines:
            raise self._refusal(NotFound, "delete", resource, "no machine belongs to it")

    def missing_features(self, spec: FleetSpec) -> tuple[str, ...]:
        """Say what a declaration needs and this provider does not have, a way to take its user data too."""
        lacking = super().missing_features(spec)
        if not lacking:
            with contextlib.suppress(ConfigError):  # that it cannot be read is said when a machine is to be made
                try:
                    self._wrapped(spec, _last(spec))
                except ValueError as exc:
                    return (f"way to take the user data: {exc}",)
        return lacking

    def diff(self, spec: FleetSpec) -> tuple[Change[FleetSpec], ...]:
        """Say in which steps the fleet would become as declared: fewer or more machines, others, larger ones.

        A machine that failed is made anew by a step of its own, which destroys it.

        Raises:
            ConfigError: new machines need user data that cannot be read.
            InvalidArgument: the provider cannot hold such a name.
        """
        self._checked("diff", spec.name)
        living = self._living(spec.name)
        if not living:
            if spec.count:
                spec.read_user_data()  # to say now what else fails when other resources are made
            made = Change(service=self.service, before=None, after=spec, monthly_cost=self._monthly(spec))
            return (made,) if spec.count else ()
        size = self.choose(spec).size
        current = self._as_declared(spec, living, size)
        changes = [self._change(before, after, living, size) for before, after in steps(current, spec, self._made_anew)]
        if broken := failed(spec, living):
            rest = attrs.evolve(spec, count=min(current.count, spec.count))
            place = 1 if spec.count < current.count else 0  # after those that are too many
            changes.insert(place, self._repair(rest, broken))
        if broken or spec.count > current.count or any(_names(change) & self._made_anew for change in changes):
            spec.read_user_data()
        return tuple(changes)

    def apply(self, change: Change[FleetSpec]) -> None:
        """Carry out one step. It may be done again after a failure: what is done already is not done twice.

        Machines are deleted only by a change that ``destroys``. Those that are made anew or resized are taken one after
        another, each when the one before runs. Where one cannot be made again, the others stay, and the next attempt
        begins with that one.

        Raises:
            Conflict: the fleet is no longer what the change starts from.
        """
        match change:
            case Change(before=None, after=spec) if spec is not None:
                self._begin(change, spec)
            case Change(before=before, after=after) if before is not None and after is not None:
                self._go_on(change, before, after)
            case _:
                super().apply(change)

    def settle(self, spec: FleetSpec) -> None:
        """Wait until no machine of the fleet is on its way anywhere.

        Raises:
            Conflict: one failed.
            Timeout: it took longer than such things take.
        """
        self.open(spec).settle()

    # below: one step each

    def _handle(self, name: str) -> Fleet:
        return Fleet(self._driver, name, timing=self._timing)

    def _machine(self, seen: MachineInfo) -> Machine:
        return Machine(self._driver, seen, timing=self._timing)

    def _living(self, name: str) -> list[MachineInfo]:
        return [machine.seen for machine in self._handle(name).machines() if machine.seen.state != "deleting"]

    def _begin(self, change: Change[FleetSpec], spec: FleetSpec) -> None:
        """Make a fleet, or go on with one that was begun."""
        try:
            super().apply(change)
        except AlreadyExists:
            rest = self.diff(spec)
            if any(each.destroys or _names(each) != {"count"} for each in rest):
                raise
            for each in rest:
                self.apply(each)

    def _go_on(self, change: Change[FleetSpec], before: FleetSpec, after: FleetSpec) -> None:
        """Carry out one step of a fleet that has machines."""
        resource, living, fields = self._possible("update", after), self._living(after.name), _names(change)
        size = self.choose(after).size
        repairs = change.destroys and after.count > before.count
        broken = failed(after, living) if repairs else []
        healthy = [seen for seen in living if seen.state != "failed"] if repairs else living
        self._require_unmoved(change, self._as_declared(after, healthy, size), resource)
        if repairs:
            with self._translated("update", resource):
                self._driver.create(after)  # refuses what cannot be made, while those that failed are still there
            self._remove(broken)
        if fields & self._made_anew:
            self._make_anew(after, living, size, resource)
        if fields & SIZE - self._made_anew:
            for seen in wrongly_sized(after, [seen for seen in living if seen.state != "failed"], size):
                self._machine(seen).resize_to(size)
        if fields & FIREWALL:
            with self._translated("update", resource):
                self._driver.update(before, after)
        for seen in wrongly_labelled(after, living) if fields & LABELS else ():
            self._machine(seen).relabel(after.labels)
        if "count" in fields:
            for seen in surplus(after, healthy):
                self._machine(seen).delete()
        if "count" in fields:
            with _gone(broken, "deleted"):
                self._fill(after, resource)

    @property
    def _made_anew(self) -> frozenset[str]:
        """What no machine of this provider changes while it lives."""
        return MADE_ANEW if self.features.resize else MADE_ANEW | SIZE

    def _wrong(self, spec: FleetSpec, machines: Sequence[MachineInfo], size: Size) -> list[MachineInfo]:
        """Return the machines that would have to be made anew to be as declared."""
        wrong = wrongly_made(spec, machines)
        if self.features.resize:
            return wrong
        small = [seen for seen in wrongly_sized(spec, machines, size) if seen.state != "failed"]
        return in_order(spec.name, [*wrong, *(seen for seen in small if seen not in wrong)])

    def _as_declared(self, spec: FleetSpec, machines: Sequence[MachineInfo], size: Size) -> FleetSpec:
        """Return the fleet in the declaration's words; labels that nobody can change are as they should be."""
        found = as_declared(spec, machines, size)
        return found if self.features.relabel else attrs.evolve(found, labels=spec.labels)

    def _possible(self, operation: str, spec: FleetSpec) -> Resource:
        """Refuse what the provider cannot hold or does not have, before anything is sent."""
        resource = self._checked(operation, spec.name)
        lacking = self._driver.missing_features(spec)
        self._require(not lacking, operation, resource, " and no ".join(lacking))
        self._user_data(spec, _last(spec), operation, resource)
        return resource

    def _user_data(self, spec: FleetSpec, name: str, operation: str, resource: Resource) -> bytes | None:
        """Return what cloud-init of one machine gets, unless the provider cannot take it."""
        try:
            return self._wrapped(spec, name)
        except ValueError as exc:
            raise self._invalid(operation, resource, str(exc)) from exc

    def _wrapped(self, spec: FleetSpec, name: str) -> bytes | None:
        given, limit = spec.read_user_data() or None, self.features.max_user_data
        wrapped = self._driver.user_data(spec, name, given)
        size, added = len(wrapped or b""), len(wrapped or b"") - len(given or b"")
        if limit is not None and size > limit.value:
            with_what = f", {added:,} of them for its user and keys" if added > 0 else ""
            raise ValueError(f"the user data has {size:,} bytes{with_what}; the limit is {limit} ({limit.source})")
        return wrapped

    def _require_unmoved(self, change: Change[FleetSpec], now: FleetSpec, resource: Resource) -> None:
        """Refuse a change if the fleet is neither as before it nor on the way that it goes."""
        before, after = cast("FleetSpec", change.before), cast("FleetSpec", change.after)
        names = _names(change)
        makes = "count" in names or bool(names & self._made_anew)
        least, most = sorted((before.count, after.count))
        if change.destroys and names & self._made_anew:
            least = 0  # one may be deleted and not made again yet
        moved = {
            name
            for name in names - {"count"}
            if getattr(now, name) not in (getattr(before, name), getattr(after, name))
        }
        if makes and not least <= now.count <= most:
            moved.add("count")
        if makes and not change.destroys and (now.count > after.count or names & self._made_anew):
            moved.add("what it would delete, as it is no change that destroys")
        if moved:
            why = f"it is no longer what the change starts from: {', '.join(sorted(moved))}; compare again"
            raise self._refusal(Conflict, "update", resource, why)

    def _fill(self, spec: FleetSpec, resource: Resource) -> list[Machine]:
        """Make the machines that are missing, each with the token that it always has, and return them."""
        choice = self.choose(spec)
        with self._translated("create", resource):
            self._driver.create(spec)
        seen = [machine.seen for machine in self._handle(spec.name).machines()]
        living = [machine for machine in seen if machine.state != "deleting"]
        names = missing(spec, living, frozenset(machine.name for machine in seen))
        return [self._make(spec, name, choice.size) for name in names]

    def _make(self, spec: FleetSpec, name: str, size: Size) -> Machine:
        resource = Resource("machine", name, Resource("fleet", spec.name))
        user_data = self._user_data(spec, name, "create", resource)
        with self._translated("create", resource):
            own = of_machine(spec, number_of(spec.name, name))
            return self._machine(
                self._driver.create_machine(own, name, size=size, token=token_of(name), user_data=user_data)
            )

    def _make_anew(self, spec: FleetSpec, living: Sequence[MachineInfo], size: Size, resource: Resource) -> None:
        """Make machines anew, one after another, once all that are missing run, so that two are never gone at once."""
        wrong = self._wrong(spec, living, size)
        coming = [seen for seen in living if seen not in wrong and seen.state in {"creating", "starting", "failed"}]
        for machine in (*self._fill(spec, resource), *map(self._machine, coming)):
            machine.wait()
        for number, seen in enumerate(wrong, 1):
            machine = self._machine(seen)
            machine.delete()
            with _gone([seen], "being deleted", wrong[number:]):
                machine.wait_deleted()
            with _gone([seen], "deleted", wrong[number:]):
                self._make(spec, seen.name, size).wait()

    def _remove(self, machines: Iterable[MachineInfo]) -> None:
        removed = [self._machine(seen) for seen in machines]
        for machine in removed:
            machine.delete()
        for machine in removed:
            machine.wait_deleted()

    def _repair(self, spec: FleetSpec, broken: list[MachineInfo]) -> Change[FleetSpec]:
        """Return the change that makes machines anew which failed; the others are left alone."""
        return Change(
            service=self.service,
            before=attrs.evolve(spec, count=spec.count - len(broken)),
            after=spec,
            destroys=True,
            reason=f"{_listed(broken)} failed, and {_are(broken)} made anew",
            monthly_cost=Decimal(0) if self.features.prices else None,
        )

    def _change(self, before: FleetSpec, after: FleetSpec, living: list[MachineInfo], size: Size) -> Change[FleetSpec]:
        fields = frozenset(field.name for field in Change(service=self.service, before=before, after=after).fields)
        reason = ""
        if after.count < before.count:
            gone = surplus(after, living)
            reason = f"{_listed(gone)} {_are(gone)} deleted"
        elif fields & self._made_anew:
            wrong = self._wrong(after, living, size)
            reason = f"{_listed(wrong)} {_are(wrong)} made anew"
        there = min(before.count, len(living))  # the others are a step of their own
        was = self._monthly(attrs.evolve(before, count=there))
        will = self._monthly(attrs.evolve(after, count=there + after.count - before.count))
        return Change(
            service=self.service,
            before=before,
            after=after,
            destroys=bool(reason),
            reason=reason,
            monthly_cost=None if was is None or will is None else will - was,
        )

    def _monthly(self, spec: FleetSpec) -> Decimal | None:
        """Return what a fleet costs a month, where prices are known."""
        if not self.features.prices:
            return None
        try:
            price = self.choose(spec).monthly
        except InvalidArgument:  # as it is, it has what is no longer sold
            return None
        return None if price is None else price * spec.count

    def _refusal(self, error: type[OperationError], operation: str, resource: Resource, why: str) -> OperationError:
        return error(why, provider=self.provider, operation=f"compute.{operation}", resource=resource)


def _last(spec: FleetSpec) -> str:
    """Return the longest name of its machines."""
    return machine_name(spec.name, max(0, spec.count - 1))


def _listed(machines: Sequence[MachineInfo]) -> str:
    return ", ".join(machine.name for machine in machines)


def _are(machines: Sequence[MachineInfo]) -> str:
    return "is" if len(machines) == 1 else "are"


@contextlib.contextmanager
def _gone(machines: Sequence[MachineInfo], state: str, left: Sequence[MachineInfo] = ()) -> Iterator[None]:
    """Say with what fails now which machines are gone for it, which are as they were, and what goes on from there."""
    try:
        yield
    except OperationError as exc:
        if machines:
            kept = f", and {_listed(left)} {_are(left)} as before" if left else ""
            exc.message = (
                f"{exc.message.rstrip('.')}; the old {_listed(machines)} {_are(machines)} {state}{kept}; "
                "`shiftable compute replace`, or apply() of each diff(), goes on with what is missing"
            )
        raise


def _names(change: Change[FleetSpec]) -> frozenset[str]:
    return frozenset(field.name for field in change.fields)

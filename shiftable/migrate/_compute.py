"""Moves fleets: the same machines are made at the target, from the same declaration. Their disks do not move."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, cast

import attrs

from shiftable.compute import ALIASES, Choice, Compute, Fleet, FleetSpec, Machine, MachineInfo
from shiftable.compute._machine import TIMEOUT
from shiftable.compute._rules import in_order, machine_name
from shiftable.compute.driver import GIB, ComputeDriver
from shiftable.errors import Conflict, NotFound, OperationError, Resource, Timeout, translated
from shiftable.migrate._compute_health import HealthCheck, ailing
from shiftable.migrate._compute_notes import Sides, notes
from shiftable.migrate._compute_wanted import Fitting, Wanted, labels_that_differ, labels_that_fit, misfits
from shiftable.migrate._movers import FACETS
from shiftable.migrate._shards import Shard
from shiftable.migrate.mover import (
    Action,
    Finding,
    Item,
    Loss,
    Mover,
    Options,
    Outcome,
    Pin,
    Record,
    Refusal,
    Step,
    Trouble,
)
from shiftable.service import Change, Service, Spec
from shiftable.wording import counted

__all__ = ["FleetItem", "FleetsMover"]

_Task = tuple["FleetItem", Step]

_AT_ONCE = 8
_ASKED = 8  # by themselves, of the machines that a listing shows as not made yet: some fail, and it does not tell
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 15.0


@attrs.frozen(kw_only=True)
class FleetItem(Item):
    """A machine: as the source has it, and as the target has it.

    Args:
        twice: the target has several of that name.
    """

    left: MachineInfo | None = None
    right: MachineInfo | None = None
    twice: bool = False


class FleetsMover(Mover[FleetItem]):
    """Makes the machines of one declared fleet at the target, each with the token that it always has.

    What is declared is made, not what the source has become meanwhile: the plan tells where these differ. But labels
    that a machine of the source has beside the declared ones come along, also when they change later. Names of the
    source's provider (an image of its own, a zone, a network, an identity) are mapped, given up by name, or refused.

    The source is only listed. To switch to the new machines, and to stop the old ones, is ``FleetCutover``'s.

    Permissions: list machines, sizes and images on the source; the same, and to make machines, on the target.
    """

    service: ClassVar[str] = "compute"
    bulk: ClassVar[bool] = True
    exact: ClassVar[bool] = True
    native: ClassVar[bool] = True
    facets: ClassVar[Mapping[str, str]] = FACETS["compute"]

    def __init__(
        self, source: Service[Any, Any, Any], target: Service[Any, Any, Any], spec: Spec, options: Options
    ) -> None:
        self._from, self._to = cast("Compute", source), cast("Compute", target)
        super().__init__(source, target, spec, options)
        self._spec = self._wanted.spec
        self.lanes = min(_AT_ONCE, options.concurrency)
        self._source: Fleet = self._from.fleet(self._spec.name)
        self._target: Fleet = self._to.fleet(self._spec.name)
        self._driver = self._target.unwrap(ComputeDriver)  # type: ignore[type-abstract]  # whichever it is
        self._checks = tuple(HealthCheck.parse(text) for text in options.health)
        self._items: list[FleetItem] | None = None
        self._findings: list[Finding] = []
        self._made: dict[str, Machine] = {}

    # before and around the items

    def wanted(self, target: Service[Any, Any, Any], spec: Spec, options: Options) -> Spec:
        """Return the declaration as the target can have it, for plans: a path says nothing on another machine."""
        self._declared = frozenset(cast("FleetSpec", spec).labels)
        fitting = Fitting(self._from.provider, cast("Compute", target), options.equivalents, options.degrade)
        self._wanted: Wanted = fitting.fitted(cast("FleetSpec", spec))
        user_data = self._wanted.spec.user_data
        return attrs.evolve(self._wanted.spec, user_data=None if user_data is None else Path(user_data.name))

    def objections(self) -> tuple[str, ...]:
        """Refuse what the target cannot have, or what the source does not."""
        found = list(self._wanted.refused)
        if not self._left and self._spec.count:
            found.append(f"the source has no machine of the fleet {self._spec.name}; shiftable apply makes what is new")
        found += [f"{lost}; --degrade labels gives it up" for lost in self._lost_labels if not self._gives_up_labels]
        if {*map(_identity, self._left)} & {*map(_identity, self._right)}:
            found.append("source and target show the same machines: they are one account in one region")
        if found:
            return tuple(found)
        if self._spec.image in ALIASES:
            there = {image.name for image in self._to.images() if image.arch == self._spec.arch}
            if self._spec.image not in there:
                lacking = f"the target has no image {self._spec.image} for {self._spec.arch}"
                return (f"{lacking}; name another of its images, --map {self._spec.image}=NAME",)
        self._to._possible("create", self._spec)  # noqa: SLF001  of the same library; what it raises is the refusal
        self._choice  # noqa: B018  the same
        return ()

    def changes(self) -> tuple[Change[Any], ...]:
        """Make the fleet, where there is none; machines that it lacks are items."""
        if any(machine.state != "deleting" for machine in self._right) or not self._spec.count:
            return ()
        return (Change(service=self.service, before=None, after=cast("FleetSpec", self.spec)),)

    def prepare(self) -> None:
        """Make what its machines share, if any is to be made."""
        if any(self.delta(item).action is Action.CREATE for item in self._items or ()):
            with self._translated("create"):
                self._driver.create(self._spec)

    def general_losses(self) -> Iterable[Loss]:
        """Tell sizes and prices of both sides, and what does not move."""
        yield from self._wanted.losses
        yield from (Loss("labels", lost, accepted=True) for lost in self._lost_labels)
        beside = sorted({key for labels in self._labels_beside[0].values() for key in labels})
        if beside:
            yield Loss("labels", f"{', '.join(beside)}: not declared, and on the source's machines: they come along")
        yield from notes(Sides(self._from, self._to, self._left, self._spec, self._choice, self.beside))

    def guard(self) -> str | None:
        """Refuse to make more machines than the source has, unless so many are allowed."""
        made = sum(1 for item in self._items or () if self.delta(item).action is Action.CREATE)
        most = self.options.change_limit
        if made <= (len(self._left) if most is None else most):
            return None
        limit = f"as many as the source has, {len(self._left):,}" if most is None else f"{most:,}"
        return (
            f"{counted(made, 'machine')} would be made, and a move makes at most {limit}; look at count and at the"
            " source, or raise that limit (--change-limit)"
        )

    # the five steps

    def inventory(self, records: Iterable[Record], shard: Shard = Shard()) -> Iterator[FleetItem]:  # noqa: ARG002, B008  there is one
        """Join both sides, which are listed once."""
        if self._items is None:
            known = {record.key: record for record in records}
            keys = {*self._names, *(machine.name for machine in self._right)}
            self._items = [self._item(key, known.get(key)) for key in sorted(keys, key=str.encode)]
        return iter(self._items)

    def _with_source(self, item: FleetItem) -> Step:
        known, right = item.record, item.right
        if right is None:
            return Step(action=Action.CREATE)
        if item.twice:
            why = "the target has several machines of that name; delete those that are too many"
            return Step(action=Action.REFUSE, reason=why, trouble=Trouble.CONFLICT)
        if right.state in {"deleting", "deleted"}:
            why = "the target deletes a machine of that name; run it again when that is gone"
            return Step(action=Action.REFUSE, reason=why, trouble=Trouble.FAILED)
        done = item.is_ours and known is not None and known.done and known.source == item.source
        if done and right.state == "running":
            return Step(action=Action.UNCHANGED)
        return self._against(item, right)

    def _against(self, item: FleetItem, right: MachineInfo) -> Step:
        """Say what is to be done with a machine that the target has."""
        wanted = self._spec_of(item.key)
        changed = labels_that_differ(right, wanted) if item.is_ours and self._to.features.relabel else []
        held = attrs.evolve(wanted, labels={}) if changed else wanted
        why = "; ".join(misfits(right, held, ours=item.is_ours))
        if why:
            return Step(action=Action.REFUSE, reason=f"the target's machine: {why}", trouble=Trouble.CONFLICT)
        if changed:
            return Step(action=Action.REPLACE, reason=f"labels are others: {', '.join(changed)}; they are changed")
        return Step(action=Action.COMPARE)

    def objection(self, item: FleetItem) -> str | None:  # noqa: ARG002  what there is concerns all of them
        """Refuse nothing by itself."""
        return None

    def plan(self, item: FleetItem, step: Step) -> Step:  # noqa: ARG002  it said everything
        """Return what ``delta`` said."""
        return step

    def copy(self, item: FleetItem, step: Step) -> Outcome:
        """Begin one machine, or adopt, label or delete it; ``confirm`` waits for all of them."""
        if step.action is Action.CREATE:
            made = self._to._make(self._spec_of(item.key), item.key, self._choice.size)
            self._made[item.key] = made
            return Outcome(action=Action.CREATE, target=made.id)
        right = cast("MachineInfo", item.right)
        machine = Machine(self._driver, right)
        if step.action is Action.DELETE:
            machine.delete()
            return Outcome(action=Action.DELETE)
        if step.action is Action.REPLACE:
            machine.relabel(self._spec_of(item.key).labels)
        if right.state in {"stopped", "stopping"}:
            machine.wait("stopped")
            machine.start()
        return Outcome(action=step.action, target=right.id)

    def verify(self, item: FleetItem, *, quick: bool) -> str | None:
        """Compare one machine with what is wanted."""
        ((_, found),) = self.verify_many([item], quick=quick)
        if isinstance(found, Exception):
            raise found
        return found

    # many at once

    def copy_many(self, tasks: Sequence[_Task]) -> Sequence[Outcome | Exception]:
        """Carry out one step: what one call makes is one machine."""
        return [self.copy(item, step) for item, step in tasks]

    def confirm(self, items: Sequence[FleetItem]) -> Iterator[tuple[FleetItem, Exception]]:
        """Wait until all machines run, and say which do not."""
        waited, interval = 0.0, _FIRST_PAUSE
        left = {item.key: item for item in items if item.source is not None}
        while left:
            for key, why in list(self._looked_over(left)):
                item = left.pop(key)
                if why is not None:
                    yield item, why
            if not left:
                return
            if waited >= TIMEOUT.total_seconds():
                break
            self.pause(interval)
            waited, interval = waited + interval, min(interval * 1.5, _LONGEST_PAUSE)
        for key, item in left.items():
            yield item, self._refusal(Timeout, key, f"waited {TIMEOUT} for it to run; run this again")

    def _looked_over(self, keys: Iterable[str]) -> Iterator[tuple[str, OperationError | None]]:
        """List the machines, and yield those that run, and those that never will, with why."""
        asked, now = 0, {each.name: each for each in self._listed(self._target) if each.state != "deleting"}
        for key in keys:
            seen = now.get(key)
            found: MachineInfo | OperationError = seen or self._refusal(NotFound, key, "it is gone")
            if seen is None or (seen.state == "creating" and asked < _ASKED):
                asked += 1
                found = self._asked(key) or found
            if isinstance(found, OperationError):
                yield key, found
            elif found.state == "running":
                yield key, None
            elif found.state == "failed":
                why = f"it failed ({found.raw_state!r}); look at its console, delete it, and run this again"
                yield key, self._refusal(Conflict, key, why)

    def _asked(self, key: str) -> MachineInfo | OperationError | None:
        """Ask for a machine that was just made, or say why it is gone: some providers' listings lag behind."""
        made = self._made.get(key)
        if made is None:
            return None
        try:
            found = made.info()
        except OperationError as exc:  # it is gone; or why it could not be made, which some providers tell once
            return exc
        if found.state in {"deleting", "deleted"}:
            return self._refusal(NotFound, key, "it is gone")
        return found

    def verify_many(
        self, items: Sequence[FleetItem], *, quick: bool
    ) -> Iterator[tuple[FleetItem, str | Exception | None]]:
        """List the target anew and compare its machines; look at those that are as they should be from outside."""
        now = self._listed(self._target)
        living = {machine.name: machine for machine in now if machine.state != "deleting"}
        found: dict[str, str | Exception | None] = {}
        for item in items:
            machine = living.get(item.key)
            found[item.key] = (
                Refusal("it is not on the target", Trouble.MISSING) if machine is None else self._compared(machine)
            )
        count = sum(1 for machine in now if machine.state != "deleting")
        if count > self._spec.count:
            why = f"the target has {counted(count, 'machine')} of the fleet, and {self._spec.count:,} are wanted"
            self._findings.append(Finding(self._spec.name, why, Trouble.DIFFERS))
        well = [living[key] for key, why in found.items() if why is None]
        found |= self._looked_at(well, quick=quick)
        yield from ((item, found[item.key]) for item in items)

    def _compared(self, machine: MachineInfo) -> str | None:
        why = [*misfits(machine, self._spec_of(machine.name), ours=True)]
        if machine.state != "running":
            why.append(f"it is {machine.state}")
        sold = self._sizes_of_target.get(machine.size)
        if sold is not None and sold < (self._spec.cpus, self._spec.memory_gib * GIB):
            why.append(f"its size {machine.size} is smaller than what is wanted")
        return "; ".join(why) or None

    def _looked_at(self, machines: Sequence[MachineInfo], *, quick: bool) -> Mapping[str, str]:
        if not machines:
            return {}
        if quick or not self._checks:
            why = "--quick believes the provider" if self._checks else "name a check, --health ssh"
            self._findings.append(Finding("", f"NOT looked at from outside, whether they do their work: {why}"))
            return {}
        told = ", ".join(map(str, self._checks))
        self._findings.append(Finding("", f"looked at {counted(len(machines), 'machine')} from here: {told}"))
        return ailing(self._checks, machines, timeout=self.options.health_timeout, pause=self.pause)

    def verified(self) -> Iterable[Finding]:
        """Say what was looked at, and that there are too many."""
        return self._findings

    # both sides

    @cached_property
    def _left(self) -> list[MachineInfo]:
        return [machine for machine in self._listed(self._source) if machine.state not in {"deleting", "deleted"}]

    @cached_property
    def _right(self) -> list[MachineInfo]:
        return self._listed(self._target)

    @staticmethod
    def _listed(fleet: Fleet) -> list[MachineInfo]:
        return in_order(fleet.name, [machine.seen for machine in fleet.machines()])

    def _spec_of(self, key: str) -> FleetSpec:
        """Return what one machine of the target is to be: as declared, with what else its like at the source bears."""
        return attrs.evolve(self._spec, labels={**self._labels_beside[0].get(key, {}), **self._spec.labels})

    @property
    def _gives_up_labels(self) -> bool:
        return "labels" in self.options.degrade

    @property
    def _lost_labels(self) -> tuple[str, ...]:
        """What is said of labels of the source that nobody declared and the target cannot keep."""
        return self._labels_beside[1]

    @cached_property
    def _labels_beside(self) -> tuple[Mapping[str, Mapping[str, str]], tuple[str, ...]]:
        """Return the labels that machines of the source have beside the declared ones, and what is lost of them."""
        found, lost = dict[str, Mapping[str, str]](), dict[str, None]()
        for machine in self._left:
            beside = {key: value for key, value in machine.user_labels.items() if key not in self._declared}
            kept, left = labels_that_fit(self._to, self._spec, beside) if beside else ({}, ())
            found.setdefault(machine.name, kept)
            lost |= dict.fromkeys(left)
        return found, tuple(lost)

    @cached_property
    def _choice(self) -> Choice:
        return self._to.choose(self._spec)

    @cached_property
    def _sizes_of_target(self) -> Mapping[str, tuple[int, int]]:
        return {size.name: (size.cpus, size.memory) for size in self._to.sizes()}

    @cached_property
    def _names(self) -> tuple[str, ...]:
        """Return what the target's machines are called: as the source's are, and the lowest numbers that are free."""
        proper = re.compile(rf"{re.escape(self._spec.name)}-(0|[1-9][0-9]*)")
        kept = list(dict.fromkeys(each.name for each in self._left if proper.fullmatch(each.name)))[: self._spec.count]
        every = (machine_name(self._spec.name, number) for number in range(2 * self._spec.count))
        free = [name for name in every if name not in kept]
        return (*kept, *free[: self._spec.count - len(kept)])

    def _item(self, key: str, record: Record | None) -> FleetItem:
        left = next((machine for machine in self._left if machine.name == key), None)
        right = [machine for machine in self._right if machine.name == key]
        living = [machine for machine in right if machine.state != "deleting"]
        chosen = next(iter([*living, *right]), None)
        return FleetItem(
            key=key,
            source=Pin(token=self._pin(key, left)) if key in self._names else None,
            target=Pin(token=chosen.id) if chosen else None,
            record=record,
            left=left,
            right=chosen,
            twice=len(living) > 1,
        )

    def _pin(self, key: str, left: MachineInfo | None) -> str:
        """Name all that makes a machine what it is to be, and what the source has; user data may be a secret."""
        hidden = {"user_data", "user_data_text", "native", "count"}
        facts = {name: value for name, value in attrs.asdict(self._spec_of(key)).items() if name not in hidden}
        size = self._choice.size
        here = (left.size, left.image, left.disk_gib, left.zone, left.spot, sorted(left.disks)) if left else ()
        there = (size.name, size.cpus, size.memory, self._choice.price)
        told = json.dumps([key, facts, there, here], sort_keys=True, default=str)
        return hashlib.sha256(told.encode()).hexdigest()[:32]

    def _translated(self, operation: str) -> translated:
        return translated(
            self._driver.classify,
            provider=self._driver.named,
            operation=f"compute.{operation}",
            resource=self._target.resource,
        )

    def _refusal(self, error: type[OperationError], key: str, why: str) -> OperationError:
        resource = Resource("machine", key, self._target.resource)
        return error(why, provider=self._to.provider, operation="compute.create", resource=resource)


def _identity(machine: MachineInfo) -> tuple[object, ...]:
    """Tell a machine from those of other accounts, whose ids may be the same."""
    return machine.id, machine.created, machine.addresses

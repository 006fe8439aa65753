"""Moves the record sets of one zone."""

from __future__ import annotations

import hashlib
import itertools
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property, partial
from typing import Any, ClassVar, cast

import attrs

from shiftable.dns import Dns, RecordChange, RecordKey, RecordSet, Zone, ZoneSpec
from shiftable.dns._rules import too_many
from shiftable.dns._wire import canonical_rdata
from shiftable.dns.driver import SERVER_TYPES, DnsDriver
from shiftable.errors import (
    AlreadyExists,
    Conflict,
    IntegrityError,
    InvalidArgument,
    NotFound,
    OperationError,
    PreconditionFailed,
    Resource,
    Unsupported,
    translated,
)
from shiftable.features import Limit
from shiftable.migrate._dns_ask import NameServer, Unreachable, ask
from shiftable.migrate._dns_checks import Heard, ServerCheck, Told, told
from shiftable.migrate._dns_lowering import Lowering, Wanted
from shiftable.migrate._dns_message import Question, record_type, wire_name
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

__all__ = ["ZoneItem", "ZonesMover", "comparable", "state_of"]

_OWN = 2  # an SOA and NS, which a zone has that is new
_SINGLE = 50
"""Record sets of one call, where a provider takes no call as a whole: what a kill leaves to be compared."""
_FEW = 5  # up to so many names are asked for one by one; for more the whole zone is listed
_SHOWN = 3
_BESIDE_CNAME = frozenset({"CNAME", "KEY"})

_UNCHANGED = Step(action=Action.UNCHANGED)
_WRITTEN = frozenset({Action.CREATE, Action.REPLACE, Action.DELETE})

_Task = tuple["ZoneItem", Step]


@attrs.frozen(kw_only=True)
class ZoneItem(Item):
    """A record set: as the source has it, as the target shall have it, and as the target has it."""

    wanted: Wanted | None = None
    right: RecordSet | None = None

    @property
    def after(self) -> RecordSet | None:
        """As the target shall have it; ``None`` if it shall not, or cannot."""
        return self.wanted.record if self.wanted else None


class ZonesMover(Mover[ZoneItem]):
    """Moves the record sets of a zone, all of one name in one call; a CNAME and an A change places at once.

    Both zones are read once and kept in memory. What a signing server makes, and the SOA of the zone itself, are never
    copied, nor are its NS without ``apex``. Routing and aliases of a provider's own are refused, unless they are given
    up by name.

    Nothing is believed: after the last call the target is read back, and a verification reads both sides and asks the
    target's name servers for every record set.

    Permissions: list zones and records on the source; the same and change records, and to create the zone, on the
    target.
    """

    service: ClassVar[str] = "dns"
    bulk: ClassVar[bool] = True
    exact: ClassVar[bool] = True
    deletes_last: ClassVar[bool] = False
    facets: ClassVar[Mapping[str, str]] = FACETS["dns"]

    def __init__(
        self, source: Service[Any, Any, Any], target: Service[Any, Any, Any], spec: Spec, options: Options
    ) -> None:
        super().__init__(source, target, spec, options)
        self._from, self._to = cast("Dns", source), cast("Dns", target)
        zone = cast("ZoneSpec", self.spec)
        self._source: Zone = self._from.open(zone)
        self._target: Zone = self._to.open(zone)
        self._own_types = frozenset({"SOA"} if self.options.apex else {"SOA", "NS"})
        self._driver = self._target.unwrap(DnsDriver)  # type: ignore[type-abstract]  # whichever it is
        self.lanes = 1 if self._target.features.atomic_batch else None
        self._items: list[ZoneItem] | None = None
        self._writes: list[_Task] | None = None
        self._steps: dict[str, Step] = {}
        self._made: dict[str, RecordChange] = {}
        self._findings: list[Finding] = []
        self._ahead: dict[NameServer, Future[Told]] = {}

    # before and around the items

    def objections(self) -> tuple[str, ...]:
        """Refuse a zone that the source has not, and one that nobody can make on the target."""
        name = self._source.name
        if not self._from.exists(name):
            return (f"the source has no zone {name}",)
        if not self._target.features.zones and not self._to.exists(name):
            return (f"the target has no zone {name}, and its zones are made elsewhere; make it there first",)
        return ()

    def changes(self) -> tuple[Change[Any], ...]:
        """Make the zone, where there is none."""
        return self._to.diff(cast("ZoneSpec", self.spec))

    def prepare(self) -> None:
        """Make it."""
        for change in self.changes():
            self._to.apply(change)
            if self.options.apex:  # a zone that is new has NS that nobody knew
                self._items = None
                for known in ("_reading", "_wanted"):
                    self.__dict__.pop(known, None)

    def general_losses(self) -> Iterable[Loss]:
        """Tell of what is the provider's own on both sides."""
        records, _ = self._reading
        own = {record.type for record in records if self._is_own(record)}
        if "NS" in own:
            yield Loss("apex", "the NS of the zone itself stay the target's own; --apex takes over the source's")
        if "SOA" in own:
            yield Loss("apex", "the SOA of the zone stays the target's own")
        made = sorted({record.type for record in records if record.type in SERVER_TYPES})
        if made:
            yield Loss("dnssec", f"{', '.join(made)}: a signing server makes them itself; the target signs anew or not")

    def guard(self) -> str | None:
        """Refuse what a zone has no room for, and to replace or delete much of one that is not small."""
        return self._without_room() or self._much_changed()

    def _without_room(self) -> str | None:
        """Say that the zone may not have so many record sets. Its provider is asked where the usual limit is passed."""
        usual = self._target.features.max_record_sets
        counts = Counter(step.action for _, step in self._to_write())
        there = len(self._reading[1].result()) or _OWN
        after = there + counts[Action.CREATE] - counts[Action.DELETE]
        if usual is None or after <= usual.value or not counts[Action.CREATE]:
            return None
        try:
            most, more = self._target.max_record_sets(), ""
        except NotFound:
            most, more = usual, "; if your account has more, make the zone first, and plan again"
        if most is None or after <= most.value:
            return None
        return f"the target's zone would have {after:,} record sets, and may have {most} ({most.source}){more}"

    def _much_changed(self) -> str | None:
        there = sum(1 for item in self._items or () if item.right is not None)
        touched = sum(1 for item, step in self._to_write() if item.right is not None)
        most = too_many(touched, there, limit=self.options.change_limit, share=self.options.change_share)
        return most and (
            f"{touched:,} of the {there:,} record sets that the target has would be replaced or deleted, and a move"
            f" does that to at most {most}; look at both sides, or raise that limit (--change-limit)"
        )

    def _to_write(self) -> list[_Task]:
        """Return what the last inventory found to be written."""
        if self._writes is None:
            tasks = ((item, self.delta(item)) for item in self._items or ())
            self._writes = [task for task in tasks if task[1].action in _WRITTEN]
        return self._writes

    @property
    def calls(self) -> tuple[int, int]:
        """Calls that would write, and record sets that they would write, as far as the last inventory tells."""
        changes = [self._change(*task) for task in self._to_write()]
        return sum(1 for _ in self._batches(changes)), len(changes)

    @property
    def per_minute(self) -> Limit | None:
        """Record sets that the target lets be written in a minute."""
        return self._target.features.writes_per_minute

    # the five steps

    def inventory(self, records: Iterable[Record], shard: Shard = Shard()) -> Iterator[ZoneItem]:  # noqa: ARG002, B008  there is one
        """Join both sides, which are read once."""
        if self._items is None:
            self._items = self._joined({record.key: record for record in records})
        return iter(self._items)

    def delta(self, item: ZoneItem) -> Step:
        """Say what is to be done, to the end: both record sets are known."""
        step = self._steps.get(item.key)
        if step is None:
            step = self._steps[item.key] = super().delta(item)
        return step

    def _with_source(self, item: ZoneItem) -> Step:
        known, wanted = item.record, cast("Wanted", item.wanted)
        if known is not None and known.done and known.source == item.source and item.is_ours:
            return _UNCHANGED
        why = wanted.why or self.objection(item)
        if why:
            return Step(action=Action.REFUSE, reason=why, losses=wanted.losses)
        if item.right is None:
            return Step(action=Action.CREATE, losses=wanted.losses)
        if item.right == wanted.record:
            return Step(action=Action.COMPARE, losses=wanted.losses)
        if item.is_ours or self.options.overwrite:
            return Step(action=Action.REPLACE, losses=wanted.losses)
        why = f"the target has another there, which is not ours: {_difference(wanted.record, item.right)}"
        return Step(action=Action.REFUSE, reason=why, trouble=Trouble.CONFLICT)

    def objection(self, item: ZoneItem) -> str | None:
        """Say why the target cannot hold a record set."""
        record = item.after
        if record is None:
            return item.wanted.why if item.wanted else None
        if self._is_apex_ns(record) and not self._target.features.apex_ns:
            return "this provider changes the NS of the zone itself for nobody"
        return self._target.check_record(record)

    def plan(self, item: ZoneItem, step: Step) -> Step:  # noqa: ARG002  it said everything
        """Return what ``delta`` said."""
        return step

    def copy(self, item: ZoneItem, step: Step) -> Outcome:
        """Carry out one step."""
        (found,) = self.copy_many([(item, step)])
        if isinstance(found, Exception):
            raise found
        return found

    def verify(self, item: ZoneItem, *, quick: bool) -> str | None:
        """Compare one record set on both sides, and ask the target's name servers for it."""
        ((_, found),) = self.verify_many([item], quick=quick)
        if isinstance(found, Exception):
            raise found
        return found

    # many at once

    def gathered(self, tasks: Iterable[_Task]) -> Iterator[tuple[_Task, ...]]:
        """Gather what one call of the target's provider can carry out; what is equal already needs none."""
        equal, writes, changes = list[_Task](), dict[RecordKey, _Task](), list[RecordChange]()
        for task in tasks:
            if task[1].action is Action.COMPARE:
                equal.append(task)
                continue
            change = self._change(*task)
            writes[change.key] = task
            changes.append(change)
        if equal:
            yield tuple(equal)
        for batch in self._batches(changes):
            yield tuple(writes[change.key] for change in batch)

    def copy_many(self, tasks: Sequence[_Task]) -> Sequence[Outcome | Exception]:
        """Send one batch; where it is refused, find out which record set it was, and send the others."""
        outcomes = dict[str, Outcome | Exception]()
        jobs = list[_Job]()
        for item, step in tasks:
            if step.action is Action.COMPARE:
                outcomes[item.key] = _outcome(item, step)
            else:
                jobs.append(_Job(item, step, self._change(item, step)))
        if jobs:
            self._carry_out(jobs, outcomes)
        return [outcomes[item.key] for item, _ in tasks]

    def confirm(self, items: Sequence[ZoneItem]) -> Iterator[tuple[ZoneItem, Exception]]:
        """Read back: name servers answer NOERROR to changes that they ignore."""
        if not items:
            return
        found = self._state({_key(item).name for item in items})
        for item in items:
            if found.get(_key(item)) != item.after:
                why = "the provider answered success and keeps something else"
                told = _difference(item.after, found.get(_key(item)))
                yield item, self._refusal(IntegrityError, f"{why}: {told}", _key(item))

    def before_verify(self, *, quick: bool) -> None:
        """Ask the target's name servers, all at once, while the target lists its zone; they are judged by that."""
        plain = [each.record for each in self._wanted if each.record is not None and each.record.policy is None]
        asking = []
        for server in () if quick else _servers(self.options.ask, self._target):
            self._ahead[server] = Future()
            asking.append(partial(_ask_ahead, server, plain, self._ahead[server]))
        for work in asking[1:]:
            threading.Thread(target=work, name="shiftable-ask", daemon=True).start()  # Ctrl-C does not wait for it
        for work in asking[:1]:
            work()

    def verify_many(
        self, items: Sequence[ZoneItem], *, quick: bool
    ) -> Iterator[tuple[ZoneItem, str | Exception | None]]:
        """Compare what both drivers read, then ask the target's name servers for everything that is equal."""
        found: dict[str, str | Exception | None] = {item.key: self._compared(item) for item in items}
        equal = [item for item in items if found[item.key] is None and item.after is not None]
        if quick:
            self._note("NOT verified by queries: --quick believes what the provider tells")
        else:
            for heard in self._heard([cast("RecordSet", item.after) for item in equal]):
                for item in equal:
                    found[item.key] = found[item.key] or heard.differences.get(_key(item))
        yield from ((item, found[item.key]) for item in items)

    def verified(self) -> Iterable[Finding]:
        """Say who was asked, and what was wrong with names that nobody has written."""
        return tuple(self._findings)

    # reading

    @cached_property
    def _reading(self) -> tuple[list[RecordSet], Future[list[RecordSet]]]:
        """Read both zones at the same time, and wait for the source's."""
        pool = ThreadPoolExecutor(1, thread_name_prefix="shiftable-zone")
        there = pool.submit(self._read_target)
        try:
            return list(self._source.records()), there
        except BaseException:
            there.exception()  # which is not interesting any more, but nothing is left running
            raise
        finally:
            pool.shutdown(wait=False)

    @cached_property
    def _wanted(self) -> list[Wanted]:
        """Say what the target shall have, by what the source has."""
        left, _ = self._reading
        lowering = Lowering(self._driver.provider, self._target.features, self.options.degrade, self._resolved)
        return [self._with_own_ns(each) for each in lowering.wanted(self._moving(left))]

    def _read_target(self) -> list[RecordSet]:
        try:
            return list(self._target.records())
        except NotFound:
            return []

    def _state(self, names: set[str]) -> dict[RecordKey, RecordSet]:
        """Return what the target has now of some names."""
        owners = sorted(names) if len(names) <= _FEW else [None]
        found = (record for owner in owners for record in self._target.records(name=owner))
        return {record.key: record for record in found if record.name in names}

    def _joined(self, known: Mapping[str, Record]) -> list[ZoneItem]:
        wanted = {str(each.key): each for each in self._wanted}
        there = {str(record.key): record for record in self._moving(self._reading[1].result())}
        items = [self._item(key, wanted.get(key), there.get(key), known.get(key)) for key in sorted({*wanted, *there})]
        self._steps.clear()
        self._made.clear()
        self._writes = None
        self._check_neighbours(items)
        return items

    def _with_own_ns(self, wanted: Wanted) -> Wanted:
        """Leave a provider's own name servers among the zone's, where they cannot be taken out."""
        record = wanted.record
        if record is None or not self._is_apex_ns(record) or not self._target.features.apex_ns_kept:
            return wanted
        try:
            own = self._target.record("@", "NS", self._target.info().nameservers)
        except NotFound:  # it is made first, and then they are known
            return wanted
        beside = [rdata for rdata in own.rdatas if canonical_rdata("NS", rdata) not in record.canonical]
        loss = Loss("apex", "the target's own NS stay among those of the zone")
        both = attrs.evolve(record, rdatas=(*record.rdatas, *beside))
        return attrs.evolve(wanted, record=both, losses=(*wanted.losses, loss))

    def _item(self, key: str, wanted: Wanted | None, right: RecordSet | None, record: Record | None) -> ZoneItem:
        source = None
        if wanted is not None:
            after = state_of(wanted.record) if wanted.record else ""
            only = len(wanted.sources) == 1 and wanted.sources[0] is wanted.record
            source = Pin(token=after if only else _digest(map(state_of, wanted.sources)), content=after)
        target = None
        if right is not None:
            token = source.content if source and wanted and wanted.record == right else state_of(right)
            target = Pin(token=token, content=token)
        return ZoneItem(key=key, source=source, target=target, record=record, wanted=wanted, right=right)

    def _check_neighbours(self, items: list[ZoneItem]) -> None:
        """Refuse what could not stand beside what the target keeps at the same name."""
        named = (item for item in items if _key(item).type in {"CNAME", "DS"})
        crowded = {_key(item).name for item in named}
        groups: dict[str, list[ZoneItem]] = {name: [] for name in sorted(crowded)}
        for item in items if groups else ():
            if (name := _key(item).name) in groups:
                groups[name].append(item)
        for group in groups.values():
            present = {_key(item).type for item in group if self._will_be(item)}
            if not self._target.features.lone_ds and "NS" not in present:
                for item in group:
                    if _key(item).type == "DS" and self.delta(item).action in {Action.CREATE, Action.REPLACE}:
                        why = "the target keeps a DS only beside NS of that name"
                        self._steps[item.key] = Step(action=Action.REFUSE, reason=why)
            if "CNAME" not in present or present <= _BESIDE_CNAME:
                continue
            for item in group:
                if self.delta(item).action in {Action.CREATE, Action.REPLACE}:
                    others = present - {_key(item).type} if _key(item).type == "CNAME" else {"CNAME"}
                    why = (
                        f"the target has {', '.join(sorted(others))} at that name, and a CNAME cannot stand beside"
                        " anything; delete that there, or with --delete if it was moved earlier"
                    )
                    self._steps[item.key] = Step(action=Action.REFUSE, reason=why, trouble=Trouble.CONFLICT)

    def _will_be(self, item: ZoneItem) -> bool:
        action = self.delta(item).action
        return action is not Action.DELETE and (
            item.right is not None or action in {Action.CREATE, Action.REPLACE, Action.COMPARE}
        )

    def _moving(self, records: Iterable[RecordSet]) -> list[RecordSet]:
        """Leave out what is never moved, nor looked at on the target."""
        return [record for record in records if record.type not in SERVER_TYPES and not self._is_own(record)]

    def _is_own(self, record: RecordSet) -> bool:
        return record.name == self._source.origin and record.type in self._own_types

    def _is_apex_ns(self, record: RecordSet) -> bool:
        return record.name == self._source.origin and record.type == "NS"

    def _resolved(self, name: str, kind: str) -> RecordSet | None:
        """Ask the source's name servers what an alias stands for now."""
        question = Question(wire_name(name), record_type(kind))
        fault: OSError = Unreachable("the source tells no name server")
        for server in _servers(self.options.ask_source, self._source):
            try:
                ((_, answer),) = ask(server, [question])
            except Unreachable as exc:
                fault = exc
                continue
            found = [each for each in answer.answer if each.type == question.type] if answer else []
            if not found:
                return None
            return RecordSet(
                name=name, type=kind, ttl=min(each.ttl for each in found), rdatas=[each.rdata for each in found]
            )
        raise fault

    # writing

    def _change(self, item: ZoneItem, step: Step) -> RecordChange:
        made = self._made.get(item.key)
        if made is None:
            after = None if step.action is Action.DELETE else item.after
            made = self._made[item.key] = RecordChange(before=item.right, after=after)
        return made

    def _batches(self, changes: Sequence[RecordChange]) -> Iterator[tuple[RecordChange, ...]]:
        """Split changes into calls; shorter ones where a call is nothing that happens as a whole."""
        for batch in self._driver.batches(tuple(changes)):
            if self._target.features.atomic_batch:
                yield batch
                continue
            part = list[RecordChange]()
            for _, group in itertools.groupby(batch, key=lambda change: change.key.name):
                part += group
                if len(part) >= _SINGLE:
                    yield tuple(part)
                    part = []
            if part:
                yield tuple(part)

    def _carry_out(self, jobs: list[_Job], outcomes: dict[str, Outcome | Exception]) -> None:
        """Send changes; what is refused again and again is refused by name, and the rest is sent without it."""
        try:
            with translated(
                self._driver.classify,
                provider=self._driver.named,
                operation="dns.change",
                resource=self._target.resource,
            ):
                self._driver.change(self._target.name, tuple(job.change for job in jobs))
        except (PreconditionFailed, NotFound, AlreadyExists) as exc:
            left = self._still_open(jobs, outcomes)
            if len(left) == len(jobs):
                self._split(left, outcomes, exc)
            elif left:
                self._carry_out(left, outcomes)
        except (InvalidArgument, Conflict, Unsupported, IntegrityError) as exc:
            self._split(jobs, outcomes, exc)
        else:
            for job in jobs:
                outcomes[job.item.key] = _outcome(job.item, job.step)

    def _still_open(self, jobs: list[_Job], outcomes: dict[str, Outcome | Exception]) -> list[_Job]:
        """Look what has become of record sets since they were read: our own lost answer, or somebody else."""
        found = self._state({job.change.key.name for job in jobs})
        left = []
        for job in jobs:
            now = found.get(job.change.key)
            if now == job.change.after:
                outcomes[job.item.key] = _outcome(job.item, job.step)
            elif now == job.change.before:
                left.append(job)
            else:
                why = "somebody changed it on the target meanwhile; run again"
                outcomes[job.item.key] = Refusal(why, Trouble.FAILED)
        return left

    def _split(self, jobs: list[_Job], outcomes: dict[str, Outcome | Exception], exc: OperationError) -> None:
        """Halve a batch that was refused, between names; at one name between record sets, where they may be apart."""
        owners = sorted({job.change.key.name for job in jobs})
        parts: Iterable[list[_Job]]
        if len(owners) > 1:
            first = {*owners[: len(owners) // 2]}
            parts = ([job for job in jobs if (job.change.key.name in first) is half] for half in (True, False))
        elif len(jobs) > 1 and not any(job.change.after is None or job.change.key.type == "CNAME" for job in jobs):
            parts = ([job] for job in sorted(jobs, key=lambda job: job.change.key.type != "NS"))  # a DS needs them
        else:
            for job in jobs:
                outcomes[job.item.key] = exc
            return
        for part in parts:
            self._carry_out(part, outcomes)

    # verifying

    def _compared(self, item: ZoneItem) -> str | Exception | None:
        if item.after is None:
            return Refusal(f"it is not on the target: {item.wanted.why if item.wanted else ''}", Trouble.MISSING)
        if item.right is None:
            return Refusal("it is not on the target", Trouble.MISSING)
        return None if item.right == item.after else _difference(item.after, item.right)

    def _heard(self, records: Sequence[RecordSet]) -> Iterator[Heard]:
        """Ask each name server of the target, and tell of those that could not be asked."""
        plain = [record for record in records if record.policy is None]
        routed = len(records) - len(plain)
        check = ServerCheck(self._target.origin, self._reading[1].result(), pause=self.pause)
        given = bool(self.options.ask)
        silent, heard = list[str](), list[Heard]()
        for server in _servers(self.options.ask, self._target):
            ahead = self._ahead.pop(server, None)
            try:
                found = check.hear(server, plain, None if ahead is None else ahead.result())
            except Unreachable as exc:
                silent.append(str(exc))
                if given:
                    self._findings.append(Finding(str(server), f"it could not be asked: {exc}", Trouble.FAILED))
                continue
            heard.append(found)
            cut = f", {found.by_tcp:,} of them by TCP" if found.by_tcp else ""
            self._note(
                f"asked {server} for {found.asked:,} record sets{cut}, for a name that nobody has, and wildcards"
            )
            self._findings += [Finding(what, why, Trouble.DIFFERS) for what, why in found.probes.items()]
        if not heard:
            why = "nobody was to be asked" if self.options.ask is None else "no name server could be asked"
            told = f" ({'; '.join(silent[:_SHOWN])})" if silent else ""
            self._note(f"NOT verified by queries: {why}{told}; name one with --ask server@port")
        elif silent and not given:
            self._findings += [
                Finding("name server", f"it could not be asked: {why}", Trouble.FAILED) for why in silent
            ]
        if routed and heard:
            self._note(f"{routed:,} record sets were not asked for: they are answered by rules, and not always alike")
        return iter(heard)

    def _note(self, text: str) -> None:
        self._findings.append(Finding("", text))

    def _refusal(self, error: type[OperationError], why: str, key: RecordKey) -> OperationError:
        resource = Resource("record", str(key), self._target.resource)
        return error(why, provider=self._target.provider, operation="dns.change", resource=resource)


@attrs.frozen
class _Job:
    """A task and the change that carries it out."""

    item: ZoneItem
    step: Step
    change: RecordChange


def comparable(record: RecordSet, origin: str) -> bool:
    """Tell whether a record set belongs to whoever wrote the zone, and not to its provider."""
    return record.type not in SERVER_TYPES and not (record.name == origin and record.type in {"NS", "SOA"})


def state_of(record: RecordSet) -> str:
    """Name what a record set holds: equal sets have equal names, on all providers and in all runs."""
    policy = record.policy
    routing = () if policy is None else (policy.provider.encode(), policy.data.encode(), (policy.set_id or "").encode())
    values = [value.hex() for value in (*sorted(record.canonical), b"", *routing)]
    return _digest([record.name, record.type, str(record.ttl), *values])


def _digest(parts: Iterable[str]) -> str:
    return hashlib.blake2b("\0".join(parts).encode(), digest_size=16).hexdigest()


def _servers(given: tuple[str, ...] | None, zone: Zone) -> Iterator[NameServer]:
    """Yield the name servers to be asked: those that were named, else those that the provider tells."""
    if given is not None:
        yield from (NameServer.parse(text) for text in (given or zone.info().nameservers))


def _ask_ahead(server: NameServer, records: Iterable[RecordSet], answer: Future[Told]) -> None:
    try:
        answer.set_result(told(server, records))
    except Exception as exc:  # noqa: BLE001  it is raised where the future is asked
        answer.set_exception(exc)


def _key(item: ZoneItem) -> RecordKey:
    return item.wanted.key if item.wanted else cast("RecordSet", item.right).key


def _outcome(item: ZoneItem, step: Step) -> Outcome:
    after = None if step.action is Action.DELETE else item.after
    target = item.source.content if after is not None and item.source else None
    return Outcome(action=step.action, target=target, losses=step.losses)


def _difference(wanted: RecordSet | None, found: RecordSet | None) -> str:
    """Say how a record set differs from what is wanted; records of DNS are no secret."""
    if found is None or wanted is None:
        return "it is missing" if found is None else f"it is still there: {_values(found)}"
    if found.policy != wanted.policy:
        return "it is answered by other rules" if found.policy else "it is not answered by rules any more"
    if found.canonical == wanted.canonical:
        return f"its TTL is {found.ttl:,} s and not {wanted.ttl:,} s"
    return f"it has {_values(found)} and not {_values(wanted)}"


def _values(record: RecordSet) -> str:
    shown = ", ".join(text if len(text) <= 60 else f"{text[:60]}…" for text in record.texts[:_SHOWN])
    return shown + (f" and {len(record.rdatas) - _SHOWN} more" if len(record.rdatas) > _SHOWN else "")

"""The whole move: which resources, in which passes, what is pinned, written down and told."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

import attrs

from shiftable.config import as_in_file, did_you_mean
from shiftable.errors import MigrationError, OperationError, ShiftableError, Unauthenticated
from shiftable.migrate._engine import Engine
from shiftable.migrate._estimate import Estimate, Limits, Sizes, estimated, estimated_secrets, estimated_zone, place_of
from shiftable.migrate._filters import Filter
from shiftable.migrate._journal import Journal, Named, Row
from shiftable.migrate._limits import Pace
from shiftable.migrate._movers import FACETS, mover_of
from shiftable.migrate._plan import Fingerprint, Plan, ResourcePlan
from shiftable.migrate._progress import Observer, Phase, PhaseName, Progress, Silent, Telling
from shiftable.migrate._report import Counter, Report, ResourceReport, Tally
from shiftable.migrate._shards import Shard, interleaved
from shiftable.migrate._workers import Workers
from shiftable.migrate.mover import Action, Item, Mover, Options, Outcome, Pin, Record, Refusal, Step, Trouble
from shiftable.service import Change, Service, Spec
from shiftable.wording import counted

if TYPE_CHECKING:
    from shiftable.blob import BlobFeatures, BlobStore
    from shiftable.migrate._crew import Crew, Job
    from shiftable.migrate._dns import ZonesMover
    from shiftable.spool import Spool

__all__ = ["AppLike", "CloudLike", "DeclaredLike", "Migration"]

_ACTIVE = frozenset({Action.CREATE, Action.REPLACE, Action.COMPARE, Action.DELETE})
_EVERY = 64
_ALWAYS_PRUNED = 10


class DeclaredLike(Protocol):
    """A resource that the application declares."""

    @property
    def service(self) -> str:
        """``blob``."""

    @property
    def label(self) -> str:
        """What the application calls it."""

    @property
    def spec(self) -> Spec:
        """What it is to be."""


class CloudLike(Protocol):
    """The services of one provider."""

    def service(self, name: str) -> Service[Any, Any, Any]:
        """Return one of them."""


class AppLike(Protocol):
    """As much of an ``App`` as a move needs."""

    @property
    def state_dir(self) -> Path:
        """Where the journal is kept."""

    def declared(self) -> Sequence[DeclaredLike]:
        """Return what the application declares."""

    def cloud(self, label: str) -> CloudLike:
        """Return a provider by its label."""


_Task = tuple[Any, Step]


class Migration:
    """Moves an application's resources from one of its providers to another.

    Nothing is ever written to the source. On the target nothing is replaced that the move did not write itself, unless
    ``overwrite`` says so, and then only the version that was seen. Every call may be killed at any point and made
    again.

    Changes are found by what listings tell: tokens, sizes, times of the source. What they do not tell (tags of an
    object that were changed in place) is found by ``verify``.

    Args:
        source: label of the provider to move from.
        target: label of the provider to move to.
        resources: ``blob.assets``, or ``blob`` for all of a service; all that are declared, if none is named.
        workers: other processes that copy and verify too.
    """

    def __init__(
        self,
        app: AppLike,
        source: str,
        target: str,
        resources: tuple[str, ...] = (),
        options: Options | None = None,
        *,
        engine: Engine | None = None,
        pace: Pace | None = None,
        workers: Workers | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        if source == target:
            raise MigrationError(f"source and target are both {source!r}; name two providers")
        self._app = app
        self.source = source
        self.target = target
        self.options = options or Options()
        _check_degrade(self.options)
        self._chosen = _chosen(app.declared(), resources)
        _check_filter(self.options, self._movable())
        self._engine = engine or Engine(self.options)
        self._pace = pace or Pace(self.options.bandwidth, self.options.requests)
        self._workers = workers
        self._clock = clock

    @property
    def journal_path(self) -> Path:
        """Where the journal is."""
        return self._app.state_dir / "migrate.sqlite"

    @property
    def skipped(self) -> tuple[str, ...]:
        """Chosen resources that nobody can move yet."""
        return tuple(_address(found) for found in self._chosen if found.service not in FACETS)

    def plan(self, observer: Observer | None = None) -> Plan:
        """Say what a move would do. Writes nothing, neither to source or target nor to the journal."""
        observer = Telling(observer or Silent(), self._engine)
        self._connect()
        with Journal.reading(self.journal_path) as journal:
            plan = self._planned(journal, observer, inspect=self.options.inspect, pinned="")
        observer.on_done(plan)
        return plan

    def apply(self, plan: Plan | None = None, observer: Observer | None = None) -> Report:
        """Move everything that is not moved yet.

        Items that fail or are refused do not stop the others; the report names them.

        Args:
            plan: do exactly this, in the world it was made for. What this move itself has written since, before it was
                killed, is no change of that world. ``None``: do what is to be done now, for a source that lives on.

        Raises:
            MigrationError: the world is not the plan's any more, and in what; another move is going on; the journal
                cannot be used; too many failures of one kind.
        """
        observer = Telling(observer or Silent(), self._engine)
        self._connect()
        with Journal.open(self.journal_path) as journal:
            if plan is not None:
                self._check_pin(plan, journal)
            report = self._applied(plan, journal, observer)
        observer.on_done(report)
        return report

    def verify(self, observer: Observer | None = None, *, quick: bool = False) -> Report:
        """Read everything on both sides and compare, whatever the journal says.

        Args:
            quick: where both sides tell a digest of the content, believe it instead of reading.
        """
        observer = Telling(observer or Silent(), self._engine)
        self._connect()
        began = time.monotonic()
        reports: list[ResourceReport] = []
        under_way: list[Counter] = []
        try:
            for found in self._movable():
                under_way = [Counter(_address(found))]
                reports.append(self._verified(found, observer, under_way[0], quick=quick))
                under_way = []
        except (Exception, KeyboardInterrupt) as exc:
            self._tell_stopped("verification", "", reports, under_way, began, exc, observer)
            raise
        report = attrs.evolve(self._report("", reports, began), kind="verification")
        observer.on_done(report)
        return report

    def named(self) -> Iterator[Named]:
        """Iterate over all items that the last ``apply`` names, however many there are."""
        with Journal.reading(self.journal_path) as journal:
            if journal is not None:
                yield from journal.named()

    # planning

    def _planned(self, journal: Journal | None, observer: Observer, *, inspect: bool, pinned: str) -> Plan:
        plans = [self._plan_of(found, journal, observer, inspect=inspect, pinned=pinned) for found in self._movable()]
        return Plan(
            source=self.source,
            target=self.target,
            options=self.options,
            resources=tuple(plans),
            skipped=self.skipped,
        )

    def _plan_of(
        self, found: DeclaredLike, journal: Journal | None, observer: Observer, *, inspect: bool, pinned: str
    ) -> ResourcePlan:
        address = _address(found)
        observer.on_phase(Phase("plan", address))
        mover, refused = self._mover(found)
        if mover is None:
            return ResourcePlan(address=address, spec=repr(found.spec), refused=refused)
        fingerprint, counter = Fingerprint(), Counter(address)
        watch = _Watch(mover, counter, observer, "plan")
        looks = inspect and not mover.exact
        records = journal.records(self._scope(found)) if journal else ()

        def tasks() -> Iterator[_Task]:
            for item in mover.inventory(records):
                step = mover.delta(item)
                if step.action is not Action.HIDDEN:
                    fingerprint.add(item, pinned)
                if looks and step.action in _ACTIVE and step.action is not Action.DELETE:
                    yield item, step
                else:
                    watch.planned(item, step)

        self._engine.drive(
            tasks(),
            lambda task: mover.plan(*task),
            begun=lambda _: None,
            ended=lambda task, step: watch.planned(task[0], step),
            failed=lambda task, error: watch.failed(task[0].key, error),
            gives_way=mover.gives_way,
        )
        self._name_unmet(mover, watch)
        if inspect:
            for loss in mover.general_losses():
                counter.losses.add("", (loss,))
        report, guard = counter.report(), mover.guard()
        return ResourcePlan(
            address=address,
            spec=repr(mover.spec),
            refused=(guard,) if guard else (),
            changes=tuple(_described(change) for change in mover.changes()),
            actions=report.done,
            losses=report.losses,
            troubles=report.troubles,
            named=report.named,
            inspected=inspect,
            segments=fingerprint.segments(),
            estimate=self._estimate(found, counter.sizes, mover),
        )

    def _estimate(self, found: DeclaredLike, sizes: Sizes, mover: Mover[Any]) -> Estimate | None:
        """Say what moving a bucket would ask for and cost; secrets and zones too, of which no prices are known."""
        if found.service in {"compute", "database"}:  # it is the servers' work, and nobody charges for requests
            return None
        here, there = (self._app.cloud(label) for label in (self.source, self.target))
        if found.service == "dns":
            zones = cast("ZonesMover", mover)
            return estimated_zone(
                sizes,
                writes=zones.calls,
                per_minute=zones.per_minute,
                labels=(self.source, self.target),
                places=(place_of(here)[0], place_of(there)[0]),
                limits=Limits(requests=self.options.requests),
            )
        if found.service == "secrets":
            return estimated_secrets(
                sizes,
                labels=(self.source, self.target),
                places=(place_of(here)[0], place_of(there)[0]),
                limits=Limits(requests=self.options.requests),
            )
        return estimated(
            sizes,
            labels=(self.source, self.target),
            places=(place_of(here), place_of(there)),
            features=(_features(here, found), _features(there, found)),
            limits=Limits(bandwidth=self.options.bandwidth, requests=self.options.requests),
        )

    def _check_pin(self, plan: Plan, journal: Journal) -> None:
        now = self._planned(journal, Silent(), inspect=False, pinned=plan.digest)
        differences = plan.differences(now)
        if differences:
            shown = "; ".join(differences)
            raise MigrationError(f"the plan {plan.digest[:12]} is out of date, nothing was moved: {shown}; plan again")

    # moving

    def _applied(self, plan: Plan | None, journal: Journal, observer: Observer) -> Report:
        began, digest = time.monotonic(), plan.digest if plan else ""
        expected = {found.address: found.everything for found in plan.resources} if plan else {}
        route = {"source": self.source, "target": self.target}
        run = journal.start(plan=digest, options=route | self.options.facts, at=self._clock().isoformat())
        reports: list[ResourceReport] = []
        under_way: list[Counter] = []
        try:
            # All are asked before the first is touched: what stops one of them is told while nothing is written yet.
            for found, (mover, refused) in [(found, self._mover(found)) for found in self._movable()]:
                address = _address(found)
                if mover is None:
                    reports.append(ResourceReport(address=address, refused=refused))
                    continue
                phase = _phase("copy", address, expected.get(address))
                under_way = [Counter(address)]
                reports.append(self._moved(found, mover, digest, journal, run, observer, phase, under_way[0]))
                under_way = []
        except (Exception, KeyboardInterrupt) as exc:
            stopped = "interrupted" if isinstance(exc, KeyboardInterrupt) else type(exc).__name__
            self._tell_stopped("move", digest, reports, under_way, began, exc, observer)
            with contextlib.suppress(MigrationError):  # the journal may be what failed
                journal.finish(run, outcome={"stopped": stopped}, at=self._clock().isoformat())
            raise
        report = self._report(digest, reports, began)
        outcome = {"complete": report.complete, "changed": report.changed}
        journal.finish(run, outcome=outcome, at=self._clock().isoformat())
        return report

    def _moved(
        self,
        found: DeclaredLike,
        mover: Mover[Any],
        digest: str,
        journal: Journal,
        run: int,
        observer: Observer,
        phase: Phase,
        counter: Counter,
    ) -> ResourceReport:
        from shiftable.spool import Spool

        address, scope = _address(found), self._scope(found)
        observer.on_phase(Phase("prepare", address))
        if self.options.prune:
            self._check_prune(address, mover, journal.records(scope))
        if mover.bulk:
            self._check_guard(address, mover, journal.records(scope))
        mover.notes, mover.stopping = journal.notes(scope), self._engine.stopping
        mover.pause = lambda seconds: self._engine.pause(self._engine.stopping, seconds)
        mover.prepare()
        observer.on_phase(phase)
        watch = _Watch(mover, counter, observer, "copy", lambda named: journal.name(run, scope, named))

        copying = _Copying(journal, scope, digest, watch)
        with Spool[_Task]("migrate") as deletions:

            def at_once(items: Iterable[Item]) -> Iterator[_Task]:
                for item in items:
                    step = mover.delta(item)
                    if step.action is Action.DELETE and mover.deletes_last:
                        deletions.add((item, step))
                    elif step.action in _ACTIVE:
                        yield item, step
                    else:
                        watch.planned(item, step)

            with self._listed(mover, lambda shard: journal.records_behind(scope, shard.start)) as items:
                self._drive(mover, at_once(items), copying, self._copying_away(found, mover, digest))
            if deletions.count:
                self._drive(mover, _unless_failed(deletions, watch), copying)
        mover.tidy()
        self._name_unmet(mover, watch)
        watch.report_progress()
        for loss in mover.general_losses():
            counter.losses.add("", (loss,))
        return counter.report()

    def _drive(
        self, mover: Mover[Any], tasks: Iterable[_Task], copying: _Copying, away: Crew[_Task, Outcome] | None = None
    ) -> None:
        if mover.bulk:
            self._engine.drive(
                mover.gathered(tasks),
                mover.copy_many,
                begun=lambda batches: copying.begun([task for batch in batches for task in batch]),
                ended=copying.all_ended,
                failed=copying.all_failed,
                workers=mover.lanes,
                ahead=1,
            )
            copying.correct(mover.confirm)
        else:
            self._engine.drive(
                tasks,
                lambda task: mover.copy(*task),
                begun=copying.begun,
                ended=copying.ended,
                failed=copying.failed,
                size=lambda task: task[0].size,
                away=away,
                gives_way=mover.gives_way,
            )

    def _check_prune(self, address: str, mover: Mover[Any], records: Iterable[Record]) -> None:
        """Count before anything is done what would be deleted."""
        ours = gone = 0
        for item in mover.inventory(records):
            action = mover.delta(item).action
            ours += item.is_ours and action is not Action.HIDDEN
            gone += action is Action.DELETE
        limit, share = self.options.prune_limit, self.options.prune_share
        if gone > (max(_ALWAYS_PRUNED, ours * share) if limit is None else limit):
            most = f"{share:.0%} of them" if limit is None else f"{limit:,} items"
            raise MigrationError(
                f"{address}: the source has no more {gone:,} of {ours:,} items that were moved, and a move deletes at"
                f" most {most}; look at the source, or raise that limit; nothing was done to it"
            )

    def _check_guard(self, address: str, mover: Mover[Any], records: Iterable[Record]) -> None:
        """Let the mover look at all that is to be done before anything is."""
        for _ in mover.inventory(records):
            pass
        why = mover.guard()
        if why is not None:
            raise MigrationError(f"{address}: {why}; nothing was done to it")

    # verifying

    def _verified(self, found: DeclaredLike, observer: Observer, counter: Counter, *, quick: bool) -> ResourceReport:
        address = _address(found)
        observer.on_phase(Phase("verify", address))
        mover, refused = self._mover(found)
        if mover is None:
            return ResourceReport(address=address, refused=refused)
        mover.pause = lambda seconds: self._engine.pause(self._engine.stopping, seconds)
        watch = _Watch(mover, counter, observer, "verify")
        mover.before_verify(quick=quick)

        with self._listed(mover, lambda _: ()) as items:
            shown = (item for item in items if item.source is not None and self.options.filter.shows(item))
            if mover.bulk:
                for item, found_out in mover.verify_many(list(shown), quick=quick):
                    if isinstance(found_out, Exception):
                        watch.failed(item.key, found_out)
                    else:
                        watch.compared(item, found_out)
            else:
                self._engine.drive(
                    shown,
                    lambda item: mover.verify(item, quick=quick),
                    begun=lambda _: None,
                    ended=watch.compared,
                    failed=lambda item, error: watch.failed(item.key, error),
                    size=lambda item: item.size,
                    away=self._verifying_away(found, mover, quick=quick),
                    gives_way=mover.gives_way,
                )
        self._name_unmet(mover, watch)
        for finding in mover.verified():
            if finding.trouble is None:
                counter.notes.append(finding.text)
            else:
                watch.name(finding.key, finding.trouble, finding.text)
        watch.report_progress()
        return watch.counter.report()

    # elsewhere

    def _copying_away(self, found: DeclaredLike, mover: Mover[Any], digest: str) -> Crew[_Task, Outcome] | None:
        if self._workers is None:
            return None
        from shiftable.migrate._crew import Crew

        def again(task: _Task) -> _Task:
            item, step = task
            return attrs.evolve(item, record=_intent(item, digest)), step  # what is found half done is known as ours

        return Crew(
            self._workers,
            self._job(found, mover, "copy"),
            takes=lambda task: mover.travels(*task),
            arguments=lambda task: task,
            again=again,
            size=lambda task: task[0].size,
        )

    def _verifying_away(self, found: DeclaredLike, mover: Mover[Any], *, quick: bool) -> Crew[Any, str | None] | None:
        if self._workers is None:
            return None
        from shiftable.migrate._crew import Crew

        return Crew(
            self._workers,
            self._job(found, mover, "verify", quick=quick),
            takes=lambda item: mover.travels(item, None),
            arguments=lambda item: (item,),
            size=lambda item: item.size,
        )

    def _job(self, found: DeclaredLike, mover: Mover[Any], verb: str, **more: object) -> Job:
        from shiftable.migrate._crew import Job

        return Job(
            app=self._app,
            mover=type(mover),
            label=found.label,
            source=self.source,
            target=self.target,
            # What is moved was chosen here, perhaps by files that only this machine has.
            options=attrs.evolve(self.options, filter=Filter(), inventory=None),
            verb=verb,
            more=more,
        )

    # what they share

    def _listed(
        self, mover: Mover[Any], records: Callable[[Shard], Iterable[Record]]
    ) -> contextlib.closing[Generator[Item, None, None]]:
        """List both sides in several ranges at once: in order within each, mixed among them."""

        def source(shard: Shard) -> Callable[[], Iterator[Item]]:
            return lambda: mover.inventory(records(shard), shard)

        shards = mover.shards()
        workers = min(len(shards), self.options.listers)
        return contextlib.closing(interleaved([source(shard) for shard in shards], workers))

    def _name_unmet(self, mover: Mover[Any], watch: _Watch) -> None:
        """Name what was listed and is nowhere; of several buckets nobody can say in which one it should be."""
        for key in mover.unmet() if len(self._movable()) == 1 else ():
            watch.name(key, Trouble.VANISHED, "the list of keys has it, and the source does not")

    def _connect(self) -> None:
        """Make all clients: what is wrong with the settings of one is told before anything is done with another."""
        for found in self._movable():
            for label in (self.source, self.target):
                with contextlib.suppress(OperationError):  # such a resource is refused by name
                    self._app.cloud(label).service(found.service)

    def _movable(self) -> list[DeclaredLike]:
        return [found for found in self._chosen if found.service in FACETS]

    def _mover(self, found: DeclaredLike) -> tuple[Mover[Any] | None, tuple[str, ...]]:
        """Return what moves a resource, or why nothing can."""
        try:
            source = self._app.cloud(self.source).service(found.service)
            target = self._app.cloud(self.target).service(found.service)
            source, target = self._pace.applied(source), self._pace.applied(target)
            kind = mover_of(found.service)
            mover = kind(source, target, self._spec(found) if kind.native else found.spec, self.options)
            mover.beside = frozenset(each.spec.name for each in self._app.declared() if each.service == found.service)
            refused = mover.objections()
        except Unauthenticated:
            raise  # it says nothing of this resource: none can be moved
        except OperationError as exc:
            if exc.retryable or isinstance(exc, Unauthenticated):
                raise
            return None, (str(exc),)
        return (None, refused) if refused else (mover, ())

    def _spec(self, found: DeclaredLike) -> Spec:
        """Return what is declared for the target, where the application tells providers apart."""
        tell: Callable[[DeclaredLike, str], Spec] | None = getattr(self._app, "spec", None)
        return tell(found, self.target) if callable(tell) else found.spec

    def _scope(self, found: DeclaredLike) -> str:
        name = found.spec.name
        renamed = f" {self.options.names[name]}" if name in self.options.names else ""
        return f"{_address(found)} {self.source}>{self.target} {name}{renamed}"

    def _tell_stopped(
        self,
        kind: str,
        digest: str,
        reports: Sequence[ResourceReport],
        under_way: Sequence[Counter],
        began: float,
        exc: BaseException,
        observer: Observer,
    ) -> None:
        """Tell the observer what was done until now; what it raises, as it may have been it that failed, is dropped."""
        if isinstance(exc, KeyboardInterrupt):
            why = "interrupted"
        else:  # the texts of our own errors hold no secret; of others nobody knows
            why = f"{type(exc).__name__}: {exc}" if isinstance(exc, ShiftableError) else type(exc).__name__
        report = self._report(digest, [*reports, *(counter.report() for counter in under_way)], began)
        with contextlib.suppress(Exception):
            observer.on_done(attrs.evolve(report, kind=kind, stopped=why))

    def _report(self, digest: str, reports: Sequence[ResourceReport], began: float) -> Report:
        return Report(
            source=self.source,
            target=self.target,
            plan=digest,
            resources=tuple(reports),
            skipped=self.skipped,
            degraded=tuple(sorted(self.options.degrade)),
            seconds=round(time.monotonic() - began, 3),
        )

    def __repr__(self) -> str:
        return f"<Migration from {self.source} to {self.target}>"


@attrs.define
class _Watch:
    """Counts one resource's items in one phase, tells the observer, and writes down what has to be named."""

    mover: Mover[Any]
    counter: Counter
    observer: Observer
    phase: PhaseName
    record: Callable[[Named], None] = lambda _: None
    _told: int = attrs.field(default=0, init=False)

    def planned(self, item: Item, step: Step) -> None:
        """Take what is to be done with an item."""
        here, there = item.source is not None, item.target is not None
        self.counter.sizes.add(step.action, item.size, here=here, there=there, versions=item.versions)
        if step.action is Action.REFUSE:
            self.name(item.key, step.trouble, step.reason, step.losses)
            return
        self.counter.seen(step.action, item.size)
        if step.losses:
            self.counter.losses.add(item.key, step.losses)
        if step.action is Action.STALE:
            self.name(item.key, Trouble.STALE, step.reason)
        self._tell()

    def moved(self, key: str, outcome: Outcome) -> None:
        """Take what became of an item."""
        self.counter.done(key, outcome)
        if outcome.action is None:
            self.name(key, Trouble.VANISHED, "its source was deleted before it was read")
        elif outcome.changed is not None:
            self.name(key, Trouble.CHANGED, "its source changed while it was read; the newer version was moved")
        self._tell()

    def compared(self, item: Item, difference: str | None) -> None:
        """Take what verification says."""
        if difference is not None:
            self.name(item.key, Trouble.DIFFERS, difference)
            return
        self.counter.verified(item.size)
        self._tell()

    def failed(self, key: str, error: Exception) -> None:
        """Take an item's error."""
        if isinstance(error, Refusal):
            self.name(key, error.trouble, error.reason, error.losses)
            return
        told = isinstance(error, ShiftableError) or not self.mover.confidential
        self.name(key, Trouble.FAILED, f"{type(error).__name__}: {error}" if told else type(error).__name__)

    def name(self, key: str, trouble: Trouble, reason: str, losses: Iterable[Any] = ()) -> None:
        """Put an item into the report by name."""
        named = Named(self.counter.address, key, trouble, reason)
        self.counter.losses.add(key, tuple(losses))
        self.counter.named(named)
        self.record(named)
        self.observer.on_item_failed(named)
        self._tell()

    def report_progress(self) -> None:
        """Tell how far it is."""
        counter = self.counter
        self.observer.on_progress(Progress(self.phase, counter.address, counter.items, counter.bytes))

    def _tell(self) -> None:
        if self.counter.items - self._told >= _EVERY:
            self._told = self.counter.items
            self.report_progress()


@attrs.define
class _Copying:
    """Writes down what is begun and how it ends, of the items of one resource."""

    journal: Journal
    scope: str
    digest: str
    watch: _Watch
    copied: list[Item] = attrs.Factory(list)
    """Those that arrived in calls of many, and nobody has confirmed yet."""

    def begun(self, tasks: Iterable[_Task]) -> None:
        """Take what is about to be done."""
        self.journal.begin(self.scope, (_intent(item, self.digest) for item, _ in tasks))

    def ended(self, task: _Task, outcome: Outcome) -> None:
        """Take what became of an item."""
        self._write([(task, outcome)])
        self.watch.moved(task[0].key, outcome)

    def failed(self, task: _Task, error: Exception) -> None:
        """Take an item's error."""
        self.watch.failed(task[0].key, error)

    def all_ended(self, tasks: Sequence[_Task], outcomes: Sequence[Outcome | Exception]) -> None:
        """Take what became of the items of one call."""
        told = list(zip(tasks, outcomes, strict=True))
        self._write([(task, outcome) for task, outcome in told if isinstance(outcome, Outcome)])
        for task, outcome in told:
            if isinstance(outcome, Outcome):
                self.watch.moved(task[0].key, outcome)
                self.copied.append(task[0])
            else:
                self.failed(task, outcome)

    def _write(self, told: Sequence[tuple[_Task, Outcome]]) -> None:
        rows = [
            Row(key=item.key, source=outcome.changed or _pin(item), target=outcome.target, sha256=outcome.sha256)
            for (item, _), outcome in told
            if outcome.action is not None
        ]
        self.journal.arrived(self.scope, *rows)

    def all_failed(self, tasks: Sequence[_Task], error: Exception) -> None:
        """Take the error of a call."""
        for task in tasks:
            self.failed(task, error)

    def correct(self, confirm: Callable[[Sequence[Any]], Iterable[tuple[Item, Exception]]]) -> None:
        """Take back what was said to have arrived and did not: the next run has to look."""
        copied, self.copied = self.copied, []
        for item, error in confirm(copied):
            self.journal.flush()
            self.journal.begin(self.scope, (_intent(item, self.digest),))
            self.watch.failed(item.key, error)


def _unless_failed(deletions: Spool[_Task], watch: _Watch) -> Iterator[_Task]:
    """Yield what is to be deleted; where something could not be copied, leave it, and name it."""
    failed = watch.counter.failed
    for item, step in deletions:
        if failed:
            reason = f"{step.reason}; not deleted, as {counted(failed, 'item')} could not be copied"
            watch.planned(item, attrs.evolve(step, action=Action.STALE, reason=reason))
        else:
            yield item, step


def _intent(item: Item, digest: str) -> Record:
    """Return what the journal has to know before an item is touched."""
    known = item.record
    resumed = known is not None and digest and known.plan == digest
    here = item.target.token if item.target else None
    return Record(
        key=item.key,
        done=False,
        source=_pin(item) if known is None or known.done else _pin(item).after(known.source),
        target=here if item.is_ours and not item.may_have_arrived else known.target if known else None,
        before=known.before if resumed and known else here,
        plan=digest,
    )


def _pin(item: Item) -> Pin:
    """Return the source's version; of a source that is gone, the one that we had copied."""
    if item.source is not None:
        return item.source
    return item.record.source if item.record else Pin(token="")


def _described(change: Change[Any]) -> str:
    fields = ", ".join(
        f"{field.name}: {as_in_file(field.after)}"
        if field.before is None
        else f"{field.name}: {as_in_file(field.before)} → {as_in_file(field.after)}"
        for field in change.fields
    )
    return f"{change.action} {change.service} {change.name}" + (f" ({fields})" if fields else "")


def _features(cloud: CloudLike, found: DeclaredLike) -> BlobFeatures:
    return cast("BlobStore", cloud.service("blob")).bucket(found.spec.name).features


def _phase(name: PhaseName, address: str, expected: Tally | None) -> Phase:
    return Phase(name, address, expected.count, expected.bytes) if expected else Phase(name, address)


def _address(found: DeclaredLike) -> str:
    return f"{found.service}.{found.label}"


def _chosen(declared: Sequence[DeclaredLike], names: tuple[str, ...]) -> list[DeclaredLike]:
    known = {name for found in declared for name in (found.service, _address(found))}
    for name in names:
        if name not in known:
            raise MigrationError(f"no resource {name!r} is declared{did_you_mean(name, known)}")
    return [found for found in declared if not names or {found.service, _address(found)} & {*names}]


def _check_degrade(options: Options) -> None:
    facets = {facet for own in FACETS.values() for facet in own}
    for facet in sorted(options.degrade - facets):
        raise MigrationError(f"nothing can be degraded by {facet!r}{did_you_mean(facet, facets)}")


def _check_filter(options: Options, chosen: Sequence[DeclaredLike]) -> None:
    """Refuse to move whole what a filter cannot choose from, and what an inventory does not tell of."""
    if options.inventory is not None:
        if len(chosen) != 1 or chosen[0].service != "blob":
            found = ", ".join(_address(each) for each in chosen)
            raise MigrationError(f"an inventory tells of one bucket; name it, of these: {found}")
        if options.prune:
            raise MigrationError(
                "an inventory is older than its bucket, and what it does not tell of may be new: it goes without delete"
            )
    if options.filter.is_open:
        return
    beside = [_address(found) for found in chosen if not mover_of(found.service).filtered]
    if beside:
        raise MigrationError(
            f"a filter chooses objects of buckets and says nothing of {', '.join(beside)};"
            " name what is to be moved with it: blob, or blob.assets"
        )

"""Changing a zone's name servers: lower TTLs, wait, have the parent changed, watch it, put TTLs right; or go back.

Each step may be killed and made again. Of the old side nothing but TTLs is ever changed, and what they were is written
down before the first is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import quote

import attrs

from shiftable.dns import RecordChange, RecordKey, RecordSet, Zone
from shiftable.dns.driver import labels, zone_name
from shiftable.errors import MigrationError
from shiftable.fibers import sleep
from shiftable.migrate._dns import comparable
from shiftable.migrate._dns_ask import NameServer, Unreachable, ask
from shiftable.migrate._dns_message import Answer, Question, Record, record_type, wire_name
from shiftable.migrate._steps import StepFile

__all__ = ["Cutover", "Delegation", "Drift", "Parent", "Status", "parents_of"]

FORMAT = 1
LOWERED = 300
"""Seconds: as short as most providers allow without being asked twice as often as they like."""
_GLANCE = 30.0


@attrs.frozen(kw_only=True)
class Lowered:
    """A record set of the old side whose TTL is lower for a while: what it was, and what it was made."""

    name: str
    type: str
    set_id: str = ""
    before: int
    after: int

    @property
    def key(self) -> RecordKey:
        """Which record set it is."""
        return RecordKey(self.name, self.type, self.set_id)


@attrs.frozen(kw_only=True)
class State:
    """What is written down between two steps. Times are of ISO 8601, in UTC.

    Args:
        lowered: record sets of the old side with the TTLs that they had; one that was lowered twice stands there twice.
        lowered_at: when the last of them was changed.
        old: name servers that the parent gave when it was first asked.
        parent_ttl: of those, at the parent.
        ds_ttl: of a DS that the parent had, and when that was last seen.
        switched_at: when all of the parent's servers gave the new name servers or, on the way back, the old ones.
        keep_until: until then resolvers may ask the old side.
        restored_at: when all TTLs were what they had been.
        going_back: the parent is to give the old name servers again.
    """

    format: int = FORMAT
    zone: str
    source: str
    target: str
    lowered: tuple[Lowered, ...] = ()
    lowered_at: str = ""
    old: tuple[str, ...] = ()
    parent_ttl: int = 0
    ds_ttl: int = 0
    ds_seen_at: str = ""
    switched_at: str = ""
    keep_until: str = ""
    restored_at: str = ""
    going_back: bool = False


@attrs.frozen(kw_only=True)
class Parent:
    """What one of the parent's name servers gives for the zone.

    Args:
        error: why it could not be asked.
    """

    server: NameServer
    nameservers: frozenset[str] = frozenset()
    ttl: int = 0
    ds: int = 0
    ds_ttl: int = 0
    error: str = ""


@attrs.frozen(kw_only=True)
class Delegation:
    """The change that the parent's operator, mostly a registrar, is to make.

    Args:
        glue: addresses that go with name servers whose names are in the zone itself.
    """

    zone: str
    before: frozenset[str]
    after: frozenset[str]
    glue: tuple[RecordSet, ...] = ()

    @property
    def is_made(self) -> bool:
        """Whether there is nothing to be changed any more."""
        return self.before == self.after

    @property
    def lines(self) -> tuple[str, ...]:
        """The change as lines, ``-`` for what goes and ``+`` for what comes."""
        gone = [f"- {self.zone}. NS {name}" for name in sorted(self.before - self.after)]
        come = [f"+ {self.zone}. NS {name}" for name in sorted(self.after - self.before)]
        return (*gone, *come, *(f"+ {line}" for record in self.glue for line in str(record).splitlines()))


@attrs.frozen(kw_only=True)
class Drift:
    """How the two sides differ. TTLs that are lower for a while do not count.

    Args:
        changes: what would make the new side the old one.
        beside: record sets that were not compared, as one side answers them by rules of its own.
    """

    changes: tuple[RecordChange, ...]
    beside: tuple[str, ...]


@attrs.frozen(kw_only=True)
class Status:
    """Where a cutover is, and what comes next.

    Args:
        wait_until: until then resolvers may have record sets with their old TTLs.
        next: ``lower``, ``wait``, ``parent``, ``poll``, ``drift``, ``restore``, ``rollback`` or nothing.
    """

    zone: str
    lowered: int
    lowered_at: datetime | None
    wait_until: datetime | None
    switched_at: datetime | None
    keep_until: datetime | None
    restored_at: datetime | None
    going_back: bool
    next: str
    why: str


def _now() -> datetime:
    return datetime.now(UTC)


class Cutover:
    """The cutover of one zone from an old side to a new one, which has been moved to already.

    Args:
        folder: where it is written down, ``.shiftable``.
        labels: of both sides.
        parents: the parent's name servers; ``None``: they are looked for.
        clock: the time, aware.
        pause: waits so many seconds.
    """

    def __init__(
        self,
        source: Zone,
        target: Zone,
        folder: Path,
        *,
        labels: tuple[str, str],
        parents: Iterable[NameServer] | None = None,
        clock: Callable[[], datetime] = _now,
        pause: Callable[[float], object] = sleep,
    ) -> None:
        if labels[0] == labels[1] or source.name != target.name:
            raise MigrationError("a cutover goes between two providers of one zone")
        self.source = source
        self.target = target
        self.path = folder / f"cutover-{quote(source.name, safe='')}.json"
        self._file = StepFile[State](self.path, "cutover", ("format", "zone", "source", "target"), _is_over)
        self._labels = labels
        self._parents = None if parents is None else tuple(parents)
        self._clock = clock
        self._pause = pause

    # looking

    def status(self) -> Status:
        """Say where it is. Calls nobody."""
        state, now = self._read(), self._clock()
        wait, keep = self._wait_until(state), _time(state.keep_until)
        step, why = _next(state, now, wait, keep)
        return Status(
            zone=self.source.name,
            lowered=_count(state.lowered),
            lowered_at=_time(state.lowered_at),
            wait_until=wait,
            switched_at=_time(state.switched_at),
            keep_until=keep,
            restored_at=_time(state.restored_at),
            going_back=state.going_back,
            next=step,
            why=why,
        )

    def drift(self) -> Drift:
        """Compare both sides as they are now."""
        lowered: dict[RecordKey, set[int]] = {}
        for each in self._read().lowered:
            lowered.setdefault(each.key, set()).update((each.before, each.after))
        sides = [
            {record.key: record for record in zone.records() if comparable(record, zone.origin)}
            for zone in (self.source, self.target)
        ]
        ruled = {(record.name, record.type) for side in sides for record in side.values() if record.policy}
        here, there = (
            {key: record for key, record in side.items() if (record.name, record.type) not in ruled} for side in sides
        )
        changes = [
            RecordChange(before=there.get(key), after=here.get(key))
            for key in sorted({*here, *there})
            if not _is_same(here.get(key), there.get(key), lowered.get(key, set()))
        ]
        return Drift(changes=tuple(changes), beside=tuple(f"{name} {kind}" for name, kind in sorted(ruled)))

    # the old side's TTLs

    def lower(self, ttl: int = LOWERED) -> int:
        """Lower the TTLs of the old side that are longer, and return how many are lower than they were.

        What is routed by rules of its provider is left alone, and so is the SOA.
        """
        with self._file.locked():
            state = self._read()
            if state.going_back:
                state = attrs.evolve(self._fresh(), lowered=() if state.restored_at else state.lowered)
            if state.switched_at:
                raise MigrationError(
                    f"{self.source.name}: the parent gives the new name servers; nothing is to be lowered"
                )
            ttl = max(ttl, self.source.features.min_ttl.value)
            known, changes = {(each.key, each.after): each for each in state.lowered}, list[RecordChange]()
            for record in self._timed():
                if record.ttl <= ttl:
                    continue
                entry = known.get((record.key, record.ttl))
                known[record.key, ttl] = _lowered(record, entry.before if entry else record.ttl, ttl)
                changes.append(RecordChange(before=record, after=attrs.evolve(record, ttl=ttl)))
            # What they were is on the disk before the first is changed, and no time is until the last one is.
            at = state.lowered_at if state.lowered_at and not changes else ""
            state = attrs.evolve(state, lowered=tuple(known.values()), lowered_at=at)
            self._write(state)
            self.source.change(changes, apex=True)
            if not at:
                self._write(attrs.evolve(state, lowered_at=self._clock().isoformat()))
            return _count(state.lowered)

    def wait(self, tell: Callable[[timedelta], object] = lambda _: None) -> None:
        """Wait until nobody has a record set with its old TTL any more; tell from time to time how long that is."""
        state = self._read()
        until = self._wait_until(state)
        if until is None:
            raise MigrationError(f"{self.source.name}: there is nothing to wait for; lower the TTLs first")
        self._wait(until, tell)

    def restore(self, *, force: bool = False) -> int:
        """Give both sides the TTLs that the old one had, and return how many record sets were changed.

        Args:
            force: also while resolvers may ask the old side.
        """
        with self._file.locked():
            state = self._read()
            keep = _time(state.keep_until)
            if not state.switched_at or keep is None:
                raise MigrationError(
                    f"{self.source.name}: the parent does not give the new name servers yet; poll it, or roll back"
                )
            if keep > self._clock() and not force:
                raise MigrationError(f"{self.source.name}: resolvers may ask the old side until {_told(keep)}; wait")
            changed = self._put_back(self.source, state) + self._put_back(self.target, state)
            self._write(attrs.evolve(state, restored_at=state.restored_at or self._clock().isoformat()))
            return changed

    # the parent

    def delegation(self) -> Delegation:
        """Ask the parent, and return what has to be changed there.

        Raises:
            MigrationError: it has a DS, so the zone has to go insecure first; it cannot be asked.
        """
        with self._file.locked():
            state = self._read()
            asked = self._ask_parents()
            heard = [each for each in asked if not each.error]
            if not heard:
                raise MigrationError(_unheard(self.source.name, asked))
            state = self._seen(state, heard)
            self._check_insecure(state, heard)
            after = frozenset(state.old) if state.going_back else self._new()
            before = frozenset[str]().union(*(each.nameservers for each in heard))
            mine = () if state.going_back else tuple(self._glue(after))
            return Delegation(zone=self.source.name, before=before, after=after, glue=mine)

    def poll(
        self,
        *,
        timeout: float | None = None,
        interval: float = _GLANCE,
        tell: Callable[[tuple[Parent, ...]], object] = lambda _: None,
    ) -> bool:
        """Ask all of the parent's servers until they give the name servers that they shall; tell after each round.

        Args:
            timeout: seconds; ``None``: for ever.

        Returns:
            Whether they do; not within the time that was given, if they do not.
        """
        until = None if timeout is None else self._clock() + timedelta(seconds=timeout)
        while True:
            asked = self._ask_parents()
            tell(asked)
            with self._file.locked():
                state = self._seen(self._read(), [each for each in asked if not each.error])
                if state.going_back and not state.old:
                    raise MigrationError(f"{self.source.name}: {_next(state, self._clock(), None, None)[1]}")
                wanted = frozenset(state.old) if state.going_back else self._new()
                if asked and all(each.nameservers == wanted and not each.error for each in asked):
                    self._write(self._switched(state, asked))
                    return True
            if until is not None and self._clock() >= until:
                return False
            self._pause(interval)

    def rollback(self) -> Delegation | None:
        """Give the old side its TTLs again, and return what has to be changed at the parent, if it was asked before."""
        with self._file.locked():
            state = attrs.evolve(self._read(), going_back=True, switched_at="", keep_until="", restored_at="")
            self._write(state)
            self._put_back(self.source, state)
            self._write(attrs.evolve(state, restored_at=self._clock().isoformat()))
        return self.delegation() if state.old else None

    # below: one step each

    def _timed(self) -> Iterator[RecordSet]:
        """Yield the record sets of the old side whose TTLs may be changed."""
        for record in self.source.records():
            own_ns = record.name == self.source.origin and record.type == "NS" and self.source.features.apex_ns
            if not record.policy and (own_ns or comparable(record, self.source.origin)):
                yield record

    def _wait_until(self, state: State) -> datetime | None:
        """Return when nobody knows an old TTL any more, nor a DS that the parent had."""
        lowered, seen = _time(state.lowered_at), _time(state.ds_seen_at)
        if lowered is None:
            return None
        longest = max((each.before for each in state.lowered), default=0)
        until = lowered + timedelta(seconds=longest)
        return max(until, seen + timedelta(seconds=state.ds_ttl)) if seen else until

    def _wait(self, until: datetime, tell: Callable[[timedelta], object]) -> None:
        while (left := until - self._clock()) > timedelta(0):
            tell(left)
            self._pause(min(left.total_seconds(), _GLANCE))

    def _put_back(self, zone: Zone, state: State) -> int:
        """Give record sets of one side the TTL that they had, where it still is the lowered one."""
        here, features = {record.key: record for record in zone.records()}, zone.features
        changes = []
        for each in state.lowered:
            record = here.get(each.key)
            ttl = min(max(each.before, features.min_ttl.value), features.max_ttl.value)
            own_ns = each.type == "NS" and each.name == zone.origin
            if own_ns and zone is self.target:
                continue
            if record is not None and record.ttl == each.after and not record.policy and record.ttl != ttl:
                changes.append(RecordChange(before=record, after=attrs.evolve(record, ttl=ttl)))
        zone.change(changes, apex=True)
        return len(changes)

    def _new(self) -> frozenset[str]:
        """Return the new side's name servers, as its provider tells them."""
        found = _servers(self.target)
        if not found:
            raise MigrationError(
                f"{self.target.name}: {self._labels[1]} tells no name servers that the parent could give"
            )
        return found

    def _glue(self, names: Iterable[str]) -> Iterator[RecordSet]:
        """Yield the addresses of name servers that nobody finds without the parent."""
        for name in sorted(names):
            if name.endswith(f".{self.target.origin}"):
                yield from (each for each in self.target.records(name=name) if each.type in {"A", "AAAA"})

    def _ask_parents(self) -> tuple[Parent, ...]:
        servers = self._parents if self._parents is not None else parents_of(self.source.name)
        return tuple(_asked(server, self.source.origin) for server in servers)

    def _seen(self, state: State, heard: list[Parent]) -> State:
        """Write down what the parent gave at first, and a DS with the time at which it was seen."""
        if heard and not state.old and not state.going_back:
            old = frozenset[str]().union(*(each.nameservers for each in heard))
            if old == _servers(self.target):  # it was changed before it was first asked
                old = _servers(self.source) or old
            state = attrs.evolve(state, old=tuple(sorted(old)), parent_ttl=max(each.ttl for each in heard))
        if any(each.ds for each in heard):
            ttl = max(each.ds_ttl for each in heard)
            state = attrs.evolve(state, ds_ttl=ttl, ds_seen_at=self._clock().isoformat())
        self._write(state)
        return state

    def _check_insecure(self, state: State, heard: list[Parent]) -> None:
        name, seen = self.source.name, _time(state.ds_seen_at)
        if any(each.ds for each in heard):
            raise MigrationError(
                f"{name}: the parent has a DS, so resolvers would refuse all that the new name servers answer; go"
                f" insecure first: have the DS removed, wait {state.ds_ttl:,} s, and ask again"
            )
        gone = seen + timedelta(seconds=state.ds_ttl) if seen else None
        if gone is not None and gone > self._clock():
            raise MigrationError(f"{name}: resolvers may know the parent's DS until {_told(gone)}; wait until then")

    def _switched(self, state: State, asked: tuple[Parent, ...]) -> State:
        if state.switched_at:
            return state
        now = self._clock()
        if state.going_back:
            return attrs.evolve(state, switched_at=now.isoformat())
        here = max((record.ttl for record in self.source.records()), default=0)
        longest = max([state.parent_ttl, here, *(each.ttl for each in asked)])
        keep = max(now + timedelta(seconds=longest), self._wait_until(state) or now)
        return attrs.evolve(state, switched_at=now.isoformat(), keep_until=keep.isoformat())

    # on the disk

    def _fresh(self) -> State:
        return State(zone=self.source.name, source=self._labels[0], target=self._labels[1])

    def _read(self) -> State:
        return self._file.read(self._fresh())

    def _write(self, state: State) -> None:
        self._file.write(state)

    def __repr__(self) -> str:
        return f"<Cutover of {self.source.name!r} from {self._labels[0]} to {self._labels[1]}>"


def parents_of(zone: str, resolver: NameServer | None = None) -> tuple[NameServer, ...]:
    """Find the name servers of the zone above, with the system's resolver or another one.

    Raises:
        MigrationError: they cannot be found.
    """
    resolver = resolver or _resolver()
    above = [".".join(part.decode("ascii", "replace") for part in rest) + "." for rest in _above(f"{zone}.")]
    for name in above:
        question = Question(wire_name(name), record_type("NS"))
        try:
            ((_, answer),) = ask(resolver, [question], recursive=True)
        except Unreachable as exc:
            raise MigrationError(
                f"the parent of {zone} cannot be found: {exc}; name its servers with --ask-parent server@port"
            ) from exc
        names = [_spelt(each.rdata) for each in answer.answer if each.type == question.type] if answer else []
        if names:
            return tuple(NameServer(found.removesuffix(".")) for found in sorted(names))
    raise MigrationError(f"the parent of {zone} cannot be found; name its servers with --ask-parent server@port")


def _above(name: str) -> Iterator[tuple[bytes, ...]]:
    parts = labels(name)
    return (parts[at:] for at in range(1, len(parts)))


def _resolver() -> NameServer:
    """Return the first resolver that the system uses."""
    import dns.resolver

    try:
        found = dns.resolver.Resolver()
    except dns.resolver.NoResolverConfiguration as exc:
        raise MigrationError("this system has no resolver; name the parent's servers with --ask-parent") from exc
    return NameServer(str(found.nameservers[0]), int(found.port))


def _asked(server: NameServer, origin: str) -> Parent:
    """Ask one of the parent's servers for the delegation and for a DS."""
    owner = wire_name(origin)
    questions = [Question(owner, record_type(kind)) for kind in ("NS", "DS")]
    try:
        found = dict(ask(server, questions))
    except Unreachable as exc:
        return Parent(server=server, error=str(exc))
    delegation, signed = (found[question] for question in questions)
    if delegation is None or signed is None:
        return Parent(server=server, error=f"{server} does not answer all")
    if delegation.rcode not in {0, 3}:
        return Parent(server=server, error=f"{server} answers {delegation.status}")
    names = _held(delegation, owner, record_type("NS"))
    keys = [each for each in signed.answer if each.type == record_type("DS") and each.name == owner]
    return Parent(
        server=server,
        nameservers=frozenset(_spelt(each.rdata) for each in names),
        ttl=max((each.ttl for each in names), default=0),
        ds=len(keys),
        ds_ttl=max((each.ttl for each in keys), default=0),
    )


def _held(answer: Answer, owner: bytes, kind: int) -> list[Record]:
    """Return the records of one name and type, of a referral or of an answer."""
    section = (*answer.answer, *answer.authority)
    return [each for each in section if (each.name, each.type) == (owner, kind)]


def _spelt(wire: bytes) -> str:
    """Return the name of a server as text, in lower case."""
    record = RecordSet(name=".", type="NS", ttl=0, rdatas=[wire])
    return _server_name(record.texts[0])


def _servers(zone: Zone) -> frozenset[str]:
    """Return a side's name servers, as its provider tells them."""
    return frozenset(_server_name(name) for name in zone.info().nameservers)


def _server_name(name: str) -> str:
    return f"{zone_name(name)}."


def _lowered(record: RecordSet, before: int, after: int) -> Lowered:
    return Lowered(name=record.name, type=record.type, set_id=record.key.set_id, before=before, after=after)


def _count(lowered: Iterable[Lowered]) -> int:
    return len({each.key for each in lowered})


def _is_same(here: RecordSet | None, there: RecordSet | None, lowered: set[int]) -> bool:
    """Tell whether both sides have the same, but for a TTL that is lower on one of them for a while."""
    if here is None or there is None or here.canonical != there.canonical:
        return False
    return here.ttl == there.ttl or {here.ttl, there.ttl} <= lowered


def _is_over(state: State) -> bool:
    return bool(state.restored_at) and not (state.going_back and state.old and not state.switched_at)


def _next(state: State, now: datetime, wait: datetime | None, keep: datetime | None) -> tuple[str, str]:
    """Say which step comes next, and why."""
    if state.going_back and not state.restored_at:
        found = "rollback", "it was not done to its end: TTLs of the old side may still be low"
    elif state.going_back and not state.old:
        found = "", "it was rolled back, and the parent was never to change"
    elif state.going_back and state.switched_at:
        found = "", "it was rolled back, and the parent gives the old name servers"
    elif state.going_back:
        found = "poll", "it was rolled back: the parent has to give the old name servers"
    elif state.restored_at:
        found = "", "it is done; the old zone may be deleted"
    elif keep is not None and keep > now:
        found = "drift", f"resolvers may ask the old side until {_told(keep)}: write to both, and compare"
    elif keep is not None:
        found = "restore", "nobody asks the old side any more"
    elif wait is None:
        found = "lower", "the TTLs of the old side are as long as ever"
    elif wait > now:
        found = "wait", f"resolvers may know the old TTLs until {_told(wait)}"
    else:
        found = ("poll", "the parent has to give the new name servers") if state.old else ("parent", "the TTLs are low")
    return found


def _unheard(zone: str, asked: tuple[Parent, ...]) -> str:
    why = "; ".join(each.error for each in asked) or "it has no name server"
    return f"the parent of {zone} cannot be asked: {why}; name its servers with --ask-parent server@port"


def _time(text: str) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


def _told(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S} UTC"

"""DNS of hosters that keep single records, through libcloud: DigitalOcean, Linode, Vultr."""

from __future__ import annotations

import itertools
import json
import threading
from bisect import bisect_right
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import attrs
from libcloud.dns.base import Record, Zone

from shiftable.dns.driver import (
    DnsDriver,
    DnsFeatures,
    Policy,
    RecordChange,
    RecordKey,
    RecordSet,
    ZoneInfo,
    ZoneSpec,
    absolute,
    canonical_rdata,
)
from shiftable.errors import AlreadyExists, Conflict, Fault, NotFound, PreconditionFailed
from shiftable.features import Limit
from shiftable.paging import Page
from shiftable.wording import counted
from shiftable_libcloud import LibcloudSettings
from shiftable_libcloud import _dns_digitalocean as digitalocean
from shiftable_libcloud import _dns_linode as linode
from shiftable_libcloud import _dns_vultr as vultr
from shiftable_libcloud._connection import Broken, Pool, Refusal
from shiftable_libcloud._dns_hoster import Fields, HosterDns, Words
from shiftable_libcloud._token import token_of_account
from shiftable_libcloud.errors import HosterFault, classify

__all__ = ["FEATURES", "LibcloudDnsDriver", "open_dns"]

FEATURES: Mapping[str, DnsFeatures] = {
    "digitalocean": DnsFeatures(
        title="DigitalOcean",
        zones=True,
        types=frozenset({"A", "AAAA", "CAA", "CNAME", "MX", "NS", "SRV", "TXT"}),
        any_name=False,
        policy=False,
        apex_ns=True,
        if_match=True,
        atomic_if_match=False,
        atomic_batch=False,
        writes_per_minute=Limit(83, "DigitalOcean API reference: 5,000 requests an hour; one for each value"),
        min_ttl=Limit(30, "DigitalOcean API reference, Domain Records"),
    ),
    "linode": DnsFeatures(
        title="Linode",
        zones=True,
        types=frozenset({"A", "AAAA", "CAA", "CNAME", "MX", "NS", "SRV", "TXT"}),
        any_name=False,
        policy=False,
        apex_ns=False,
        if_match=True,
        atomic_if_match=False,
        atomic_batch=False,
        max_record_sets=Limit(12_000, "Linode API reference, Create a domain record: 12,000 records of a domain"),
        writes_per_minute=Limit(1600, "Linode API reference, Rate limits; one call for each value"),
        min_ttl=Limit(linode.TTLS[0], linode.TTL_SOURCE),
        max_ttl=Limit(linode.TTLS[-1], linode.TTL_SOURCE),
    ),
    "vultr": DnsFeatures(
        title="Vultr",
        zones=True,
        types=frozenset({"A", "AAAA", "CAA", "CNAME", "MX", "NS", "SRV", "SSHFP", "TXT"}),
        any_name=False,
        policy=False,
        apex_ns=True,
        if_match=True,
        atomic_if_match=False,
        atomic_batch=False,
        writes_per_minute=Limit(1800, "Vultr API reference, Introduction: 30 requests a second; one for each value"),
        min_ttl=Limit(vultr.LEAST_TTL, vultr.TTL_SOURCE),
    ),
}

_HOSTERS: Mapping[str, tuple[Words, Callable[..., Any]]] = {
    "digitalocean": (digitalocean, digitalocean.DigitalOceanDns),
    "linode": (linode, linode.LinodeDns),
    "vultr": (vultr, vultr.VultrDns),
}

_PAGE, _KEPT = 1000, 8
_TRIES = 4
_MISSING = 404

Held = Mapping[RecordKey, tuple[Record, ...]]


@attrs.define
class LibcloudDnsDriver(DnsDriver):
    """DNS of a hoster that keeps records one by one: a record set is several calls, and a batch is many.

    Nothing of it is atomic, and the hoster knows no conditions: that a record set is what it was is seen by a read just
    before. A set that changes keeps the records that stay, replaces others in place, and adds before it deletes, so
    that its name is never without an answer; a CNAME alone goes before something else comes. When a call fails, what
    was done of the batch is taken back, as far as the hoster answers and nobody else wrote meanwhile; what was not is
    named.

    When the answer to a creation is lost, it is looked for before it is sent again. Should the hoster execute the lost
    one later still, there are two equal records: they are read as one, and the next change of their set removes one.

    Records of one set with different TTLs are read with the shortest. A record that cannot be understood is shown with
    a policy, so that nobody takes its set for a plain one.
    """

    _pool: Pool[HosterDns] = attrs.field(repr=False)
    _words: Words = attrs.field(repr=False)
    _features: DnsFeatures = attrs.field(repr=lambda features: features.title)
    _kept: OrderedDict[str, tuple[RecordSet, ...]] = attrs.field(factory=OrderedDict, init=False, repr=False)
    _numbers: itertools.count[int] = attrs.field(factory=itertools.count, init=False, repr=False)
    _lock: threading.Lock = attrs.field(factory=threading.Lock, init=False, repr=False, eq=False)

    @property
    def provider(self) -> str:
        """The provider's name in errors."""
        return "libcloud"

    @property
    def features(self) -> DnsFeatures:
        """What this driver can do."""
        return self._features

    def classify(self, exc: Exception) -> Fault | None:
        """Say what a native exception means."""
        if isinstance(exc, _RecordFailure):
            fault = classify(exc.cause)
            left = f"; not taken back: {', '.join(map(str, exc.left))}" if exc.left else ""
            return fault and attrs.evolve(fault, message=f"{exc.key}: {fault.message}{left}")
        return classify(exc)

    def close(self) -> None:
        """Close the connections."""
        self._pool.close()

    def check_name(self, name: str) -> str | None:
        """Say why the hoster could not hold a zone of that name."""
        return super().check_name(name) or self._words.name_problem(name)

    def check_record(self, zone: str, record: RecordSet) -> str | None:
        """Say why the hoster could not keep that record set exactly."""
        return super().check_record(zone, record) or self._words.record_problem(zone, record)

    # zones

    def create(self, spec: ZoneSpec) -> None:
        """Make a zone with its SOA and NS."""
        with self._pool.one() as api:
            doubtful = False
            for left in reversed(range(_TRIES)):
                try:
                    api.create_zone(spec.name)
                except (Refusal, Broken) as exc:
                    fault = classify(exc)
                    taken = doubtful and fault is not None and fault.error is AlreadyExists
                    if not (exc.is_executed_perhaps or taken):
                        raise
                    doubtful = True
                    if self._is_new(api, spec.name):
                        break
                    if taken or not left:
                        raise
                else:
                    break
            api.complete_zone(spec.name)

    def describe(self, name: str) -> ZoneSpec:
        """Return the zone."""
        with self._pool.one() as api:
            _zone(api, name)
        return ZoneSpec(name=name)

    def update(self, current: ZoneSpec, spec: ZoneSpec) -> None:
        """Do nothing: a zone has no settings of ours."""

    def destroy(self, name: str) -> None:
        """Delete a zone that has only its SOA and NS. The hoster would delete any: it is looked at before."""
        with self._pool.one() as api:
            zone = _zone(api, name)
            others = {(each.name, each.type) for each in api.list_records(zone)} - {("@", "SOA"), ("@", "NS")}
            if others:
                raise HosterFault(
                    Fault(Conflict, f"it still has {counted(len(others), 'record set')}; delete them first")
                )
            with _in_zone(), _gone():
                api.delete_zone(zone)

    def names(self, cursor: str | None, limit: int | None) -> Page[str]:  # noqa: ARG002  a page has 200
        """Return one page of the names of zones, in the hoster's order."""
        with self._pool.one() as api:
            return api.page_of_zones(cursor)

    def info(self, zone: str) -> ZoneInfo:
        """Return the NS of the zone itself: the hosters tell of no others."""
        key = RecordKey(f"{zone}.", "NS")
        with self._pool.one() as api:
            found = self._read(api, _zone(api, zone), [key.name]).get(key)
        return ZoneInfo(name=zone, nameservers=tuple(sorted(found.texts if found else ())), id=zone)

    # reading

    def records(self, zone: str, *, name: str | None, cursor: str | None, limit: int | None) -> Page[RecordSet]:
        """Return one page of record sets, by name and type.

        The records of one set may stand on different pages of the hoster's, so all of those are read for the first one.
        """
        listing, _, last = (cursor or "").partition(" ")
        with self._lock:
            found = self._kept.pop(listing, None)
        if found is None:
            with self._pool.one() as api:
                records = self._read(api, _zone(api, zone), None if name is None else [name])
            found, listing = tuple(records[key] for key in sorted(records)), str(next(self._numbers))
        start = bisect_right(found, tuple(last.rsplit(" ", 1)), key=lambda each: each.key[:2]) if last else 0
        shown = found[start : start + min(_PAGE, _PAGE if limit is None else limit)]
        if start + len(shown) == len(found) or not shown:
            return Page(shown)
        with self._lock:
            self._kept[listing] = found
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        return Page(shown, f"{listing} {shown[-1].name} {shown[-1].type}")

    # writing

    def change(self, zone: str, changes: tuple[RecordChange, ...]) -> None:
        """Carry out a batch, record by record; take back what happened if one is refused."""
        names = sorted({change.key.name for change in changes})
        with self._pool.one() as api:
            home = _zone(api, zone)
            held = _sets(home, self._list(api, home, names))
            read = {key: _record_set(self._words, home, key, records) for key, records in held.items()}
            moved = [str(change.key) for change in changes if read.get(change.key) != change.before]
            if moved:
                why = f"not as it was when the change was made: {', '.join(moved)}"
                raise HosterFault(Fault(PreconditionFailed, why))
            begun = list[RecordChange]()
            for change in sorted(changes, key=lambda each: (each.key.name, each.after is not None, each.key)):
                begun.append(change)
                try:
                    _write(self._words, api, home, held.get(change.key, ()), change.after)
                except (Refusal, Broken, HosterFault) as exc:
                    left = tuple(self._taken_back(api, home, begun))
                    raise _RecordFailure(change.key, exc, left) from exc

    def _taken_back(self, api: HosterDns, zone: Zone, begun: list[RecordChange]) -> Iterator[RecordKey]:
        """Undo what was begun, the last first; yield what could not be. Once nobody answers, no more is tried."""
        answers = True
        for change in reversed(begun):
            try:
                if answers and self._is_taken_back(api, zone, change):
                    continue
            except (Refusal, Broken, HosterFault):
                answers = False
            yield change.key

    def _is_taken_back(self, api: HosterDns, zone: Zone, change: RecordChange) -> bool:
        """Undo one change, unless the set has by now a value that neither its old nor its new state has."""
        now = _sets(zone, self._list(api, zone, [change.key.name])).get(change.key, ())
        found = _record_set(self._words, zone, change.key, now) if now else None
        if change.before is not None and change.before.policy:
            return found == change.before
        known = frozenset[bytes]().union(*(each.canonical for each in (change.before, change.after) if each))
        if found is not None and not found.canonical <= known:
            return False
        _write(self._words, api, zone, now, change.before)
        return True

    # below: what the hoster has

    def _is_new(self, api: HosterDns, name: str) -> bool:
        """Tell whether there is such a zone, with nothing but its SOA and NS."""
        try:
            records = api.list_records(_zone(api, name))
        except HosterFault as exc:
            if exc.fault.error is NotFound:
                return False
            raise
        return {(each.name, each.type) for each in records} <= {("@", "SOA"), ("@", "NS")}

    def _read(self, api: HosterDns, zone: Zone, names: list[str] | None) -> dict[RecordKey, RecordSet]:
        sets = _sets(zone, self._list(api, zone, names))
        return {key: _record_set(self._words, zone, key, records) for key, records in sets.items()}

    def _list(self, api: HosterDns, zone: Zone, names: list[str] | None) -> list[Record]:
        """Return the records of some names, or of all."""
        with _in_zone():
            if names is None or len(names) > api.most_names:
                return list(api.list_records(zone))
            return [each for name in names for each in api.list_records(zone, name.removesuffix("."))]


def _zone(api: HosterDns, name: str) -> Zone:
    with _in_zone():
        found: Zone = api.get_zone(name)
    return found


@contextmanager
def _in_zone() -> Iterator[None]:
    """Say of what is missing that it is the zone."""
    try:
        yield
    except Refusal as exc:
        fault = classify(exc)
        if fault is None or fault.error is not NotFound:
            raise
        raise HosterFault(attrs.evolve(fault, missing="zone")) from exc


class _RecordFailure(Exception):
    """A change that failed, and which changes of its batch were not taken back."""

    def __init__(self, key: RecordKey, cause: Exception, left: tuple[RecordKey, ...]) -> None:
        super().__init__(f"{key}: {cause}")
        self.key = key
        self.cause = cause
        self.left = left


# record sets out of records


def _sets(zone: Zone, records: Iterable[Record]) -> dict[RecordKey, tuple[Record, ...]]:
    found = defaultdict[RecordKey, list[Record]](list)
    for record in records:
        owner = absolute(str(record.name).lower(), f"{zone.domain}.")
        found[RecordKey(owner, str(record.type).upper())].append(record)
    return {key: tuple(each) for key, each in found.items()}


def _record_set(words: Words, zone: Zone, key: RecordKey, records: tuple[Record, ...]) -> RecordSet:
    ttl = min((int(each.ttl) for each in records if each.ttl is not None), default=1800)
    try:
        if key.type == "SOA":
            rdatas: Iterable[bytes] = [words.soa_in(zone, records[0].extra)]
        else:
            rdatas = _distinct(key.type, (_rdata(words, zone, each) for each in records))
    except ValueError:
        data = json.dumps([_shown(each) for each in records], sort_keys=True, separators=(",", ":"))
        policy = Policy(provider="libcloud", data=data)
        return RecordSet(name=key.name, type=key.type, ttl=ttl, rdatas=(), policy=policy)
    return RecordSet(name=key.name, type=key.type, ttl=ttl, rdatas=rdatas)


def _distinct(type: str, rdatas: Iterable[bytes]) -> Iterable[bytes]:
    """Return each value once: a creation that was executed late leaves two."""
    return {canonical_rdata(type, rdata): rdata for rdata in rdatas}.values()


def _rdata(words: Words, zone: Zone, record: Record) -> bytes:
    return words.rdata_in(zone.domain, record.extra)


def _known(words: Words, zone: Zone, record: Record) -> bytes | None:
    """Return a value as it is compared; ``None`` if it cannot be understood."""
    try:
        return canonical_rdata(str(record.type), _rdata(words, zone, record))
    except ValueError:
        return None


def _shown(record: Record) -> dict[str, Any]:
    return {name: value for name, value in record.extra.items() if name != "id" and value is not None}


# one record set


def _write(words: Words, api: HosterDns, zone: Zone, held: tuple[Record, ...], after: RecordSet | None) -> None:
    """Make the records of one set those of another, or none: replace, add, delete, in this order."""
    wanted = {canonical_rdata(after.type, rdata): rdata for rdata in after.rdatas} if after is not None else {}
    spare, stale = list[Record](), list[tuple[Record, bytes]]()
    for record in held:
        rdata = wanted.pop(_known(words, zone, record) or b"", None)
        if rdata is None:
            spare.append(record)
        elif after is not None and record.ttl != after.ttl:
            stale.append((record, rdata))
    missing = list(wanted.values())
    stale += zip(spare, missing, strict=False)
    if after is not None:
        for record, rdata in stale:
            _replace(api, record, words.told(zone.domain, after, rdata))
        for rdata in missing[len(spare) :]:
            _create(words, api, zone, after, rdata)
    for record in spare[len(missing) :]:
        _delete(api, record)


def _create(words: Words, api: HosterDns, zone: Zone, after: RecordSet, rdata: bytes) -> None:
    """Make a record; when the answer is lost, look for it before it is sent again."""
    wanted = canonical_rdata(after.type, rdata)
    for left in reversed(range(_TRIES)):
        try:
            api.add_record(zone, words.told(zone.domain, after, rdata))
        except (Refusal, Broken) as exc:
            if not exc.is_executed_perhaps:
                raise
            found = _sets(zone, api.list_records(zone, after.name.removesuffix("."))).get(after.key, ())
            made = next((each for each in found if wanted == _known(words, zone, each)), None)
            if made is not None:
                if made.ttl != after.ttl:
                    _replace(api, made, words.told(zone.domain, after, rdata))
                return
            if not left:
                raise
        else:
            return


def _replace(api: HosterDns, record: Record, fields: Fields) -> None:
    with _there():
        api.replace_record(record, fields)


def _delete(api: HosterDns, record: Record) -> None:
    with _there(), _gone():
        api.delete_record(record)


@contextmanager
def _gone() -> Iterator[None]:
    """Delete something: if it is missing after a try whose answer was lost, that one did it."""
    try:
        yield
    except Refusal as exc:
        if not (exc.code == _MISSING and exc.doubtful):
            raise


@contextmanager
def _there() -> Iterator[None]:
    """Say of a record that is missing that somebody else was faster."""
    try:
        yield
    except Refusal as exc:
        if exc.code != _MISSING:
            raise
        why = "others deleted a record of it meanwhile"
        raise HosterFault(Fault(PreconditionFailed, why, exc.id, exc.request_id)) from exc


def open_dns(settings: LibcloudSettings) -> LibcloudDnsDriver:
    """Make the driver that the settings describe. Connects to nobody.

    Raises:
        ConfigError: there is no token.
    """
    token = token_of_account(settings)

    words, driver = _HOSTERS[settings.hoster]

    def make() -> HosterDns:
        found: HosterDns = driver(token.reveal(), endpoint=settings.endpoint, patience=settings.retry_seconds)
        return found

    pool = Pool(make, lambda api: api.connection.hang_up())
    return LibcloudDnsDriver(pool, words, FEATURES[settings.hoster])

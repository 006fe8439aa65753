"""DNS in Amazon Route 53."""

from __future__ import annotations

import hashlib
import json
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import attrs
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError
from botocore.parsers import ResponseParserError

from shiftable.dns.driver import (
    DnsDriver,
    DnsFeatures,
    RecordChange,
    RecordKey,
    RecordSet,
    ZoneInfo,
    ZoneSpec,
    absolute,
    zone_name,
)
from shiftable.errors import Fault, PreconditionFailed
from shiftable.features import Limit
from shiftable.paging import Page
from shiftable.waiting import Timing
from shiftable_aws import _dns_batch
from shiftable_aws._dns_batch import Entry
from shiftable_aws._dns_records import dns_name, native_name, record_of, unfit
from shiftable_aws._errors import classify_dns

if TYPE_CHECKING:
    from mypy_boto3_route53 import Route53Client

    from shiftable_aws._session import Session

__all__ = ["FEATURES", "Route53Driver"]

_QUOTAS = "Amazon Route 53 quotas"
_API = "Amazon Route 53 API reference"

FEATURES = DnsFeatures(
    title="Amazon Route 53",
    zones=True,
    types=frozenset(
        {
            *("A", "AAAA", "CAA", "CNAME", "DS", "HTTPS", "MX", "NAPTR", "NS", "PTR", "SOA", "SPF", "SRV", "SSHFP"),
            *("SVCB", "TLSA", "TXT"),
        }
    ),
    any_name=True,
    policy=True,
    apex_ns=True,
    if_match=True,
    atomic_if_match=True,
    atomic_batch=True,
    max_batch=Limit(1000, f"{_QUOTAS}, ChangeResourceRecordSets: 1,000 values and 32,000 characters"),
    max_values=Limit(400, f"{_QUOTAS}, records"),
    max_rdata=Limit(4000, f"{_API}, ResourceRecord: 4,000 characters of text"),
    max_record_sets=Limit(10_000, f"{_QUOTAS}, records; more on request"),
)

_PAGE = 300
_PAGE_OF_A_NAME = 20
_ZONES_PAGE = 100
_REFUSALS = frozenset({"InvalidChangeBatch", "InvalidInput", "NoSuchHealthCheck"})
_IN_SYNC = timedelta(minutes=5)  # "generally within 60 seconds", says the API reference of GetChange
_REFERENCES = 8
_BY_NAME = 5

# The client's stubs type each argument; these are filled step by step.
_Arguments = dict[str, Any]
T = TypeVar("T")


@attrs.define(eq=False)
class Route53Driver(DnsDriver):
    r"""DNS in Amazon Route 53, through boto3.

    Credentials and permissions are those of ``AwsProvider``. Zones are public ones; private zones are neither listed
    nor found. Route 53 allows many zones of one name: two are an error that names both ids, as nobody can say which is
    meant.

    * An update is the deletion of exactly what was and a creation, in one request: so Route 53 itself decides whether a
      record set still is what it was. It compares to the letter, so what it listed is repeated as it listed it.
    * Two kinds of update are an UPSERT after a read, without that certainty: of the NS and SOA of the zone itself,
      which it cannot be without, and of a record set whose old and new values are more than one request takes.
    * ``change`` returns when the name servers have it (INSYNC). Who asks them before that may get either state.
    * A refused batch leaves the zone as it was. Where Route 53 does not say which record set it means, it is asked
      again for parts of the batch, each with a deletion that must fail, so that nothing of it can happen.
    * Aliases and weighted, regional, geographic, failover, multi-value and CIDR record sets have a policy with Route
      53's own words as JSON. An alias has no values, and the TTL 0.

    Args:
        timing: how it waits for the name servers.
    """

    _session: Session
    _timing: Timing = attrs.field(factory=Timing)
    _ids: dict[str, str] = attrs.field(factory=dict, init=False, repr=False)
    _lock: threading.Lock = attrs.field(factory=threading.Lock, init=False, repr=False)

    @property
    def provider(self) -> str:
        """The provider's name in errors."""
        return "aws"

    @property
    def features(self) -> DnsFeatures:
        """What this driver can do."""
        return FEATURES

    @property
    def client(self) -> Route53Client:
        """The client that does the work."""
        return self._session.client("route53")

    def classify(self, exc: Exception) -> Fault | None:
        """Say what a native exception means."""
        return classify_dns(exc)

    def check_record(self, zone: str, record: RecordSet) -> str | None:
        """Apply the rules for values and for routing policies; no request holds more than so many characters."""
        return super().check_record(zone, record) or unfit(record) or _too_long(record)

    def batches(self, changes: tuple[RecordChange, ...]) -> Iterator[tuple[RecordChange, ...]]:
        """Split changes into requests of 1,000 values and 32,000 characters."""
        return _dns_batch.split(changes)

    # zones

    def create(self, spec: ZoneSpec) -> None:
        """Make a public zone. The caller reference is made of name and day, so that of two creators one wins.

        Route 53 may remember the reference of a zone that is deleted; then the next one is tried.
        """
        if self._found(spec.name):
            raise _failure("HostedZoneAlreadyExists", "there is a public zone of that name")
        day = f"{datetime.now(UTC):%Y-%m-%d}"
        for number in range(_REFERENCES):
            seed = f"{spec.name} {day} {number}" if number < _REFERENCES - 1 else str(uuid.uuid4())
            reference = f"shiftable-{hashlib.sha256(seed.encode()).hexdigest()[:32]}"
            try:
                self.client.create_hosted_zone(Name=_native_zone(spec.name), CallerReference=reference)
            except ClientError as exc:
                if _code(exc) != "HostedZoneAlreadyExists":
                    raise
                made = [zone for zone in self._found(spec.name) if zone["CallerReference"] == reference]
                if made and _retried(exc):  # by the first attempt, whose answer was lost
                    return
                if made or number == _REFERENCES - 1:
                    raise
            else:
                return

    def describe(self, name: str) -> ZoneSpec:
        """Return the zone."""
        self._id(name, fresh=True)
        return ZoneSpec(name=name)

    def update(self, current: ZoneSpec, spec: ZoneSpec) -> None:
        """Do nothing: a zone has no settings."""

    def destroy(self, name: str) -> None:
        """Delete a zone that has only its SOA and NS."""
        zone_id = self._id(name, fresh=True)
        try:
            self.client.delete_hosted_zone(Id=zone_id)
        except ClientError as exc:  # gone by the first attempt, whose answer was lost
            if _code(exc) != "NoSuchHostedZone" or not _retried(exc):
                raise
        finally:
            self._forget(name)

    def names(self, cursor: str | None, limit: int | None) -> Page[str]:
        """Return one page of the names of public zones, in the order of their ids."""
        arguments: _Arguments = {"MaxItems": str(min(limit or _ZONES_PAGE, _ZONES_PAGE))}
        if cursor is not None:
            arguments["Marker"] = cursor
        answer = self.client.list_hosted_zones(**arguments)
        found = tuple(_zone_name(zone["Name"]) for zone in answer["HostedZones"] if _is_public(zone))
        return Page(found, answer.get("NextMarker") if answer["IsTruncated"] else None)

    def info(self, zone: str) -> ZoneInfo:
        """Return the zone's id and the name servers of its delegation set."""
        zone_id = self._id(zone, fresh=True)
        servers = self.client.get_hosted_zone(Id=zone_id)["DelegationSet"]["NameServers"]
        return ZoneInfo(name=zone, nameservers=tuple(f"{server.removesuffix('.')}." for server in servers), id=zone_id)

    def max_record_sets(self, zone: str) -> Limit | None:
        """Return the limit of that zone, which Route 53 raises on request; the usual one to who may not see it."""
        zone_id = self._id(zone, fresh=True)
        try:
            told = self.client.get_hosted_zone_limit(Type="MAX_RRSETS_BY_ZONE", HostedZoneId=zone_id)["Limit"]["Value"]
        except ClientError as exc:
            if _code(exc) != "AccessDenied":
                raise
            return FEATURES.max_record_sets
        return Limit(told, f"{_API}, GetHostedZoneLimit")

    # reading

    def records(self, zone: str, *, name: str | None, cursor: str | None, limit: int | None) -> Page[RecordSet]:
        """Return one page of record sets, by name with the labels reversed, and type."""
        size = _PAGE if name is None else _PAGE_OF_A_NAME
        arguments: _Arguments = {"MaxItems": str(min(limit or size, size))}
        if cursor is not None:
            arguments |= json.loads(cursor)
        elif name is not None:
            arguments["StartRecordName"] = native_name(name)
        answer = self._with_id(
            zone, lambda zone_id: self.client.list_resource_record_sets(HostedZoneId=zone_id, **arguments)
        )
        found = [record_of(native) for native in answer["ResourceRecordSets"]]
        following = _next(answer)
        if name is not None:
            kept = [record for record in found if record.name == name]
            return Page(tuple(kept), following if len(kept) == len(found) else None)
        return Page(tuple(found), following)

    # writing

    def change(self, zone: str, changes: tuple[RecordChange, ...]) -> None:
        """Send one batch, and wait until the name servers have it."""
        try:
            batch = _dns_batch.entries(zone, changes)
        except _dns_batch.TooBig as exc:
            raise _failure("InvalidChangeBatch", f"limit of one request: {exc}") from exc
        self._check_read_first(zone, batch)
        try:
            change_id = self._send(zone, batch)
        except (ClientError, HTTPClientError, ResponseParserError) as exc:
            if _is_unsure(exc) and self._happened(zone, changes, exc):
                return
            if not isinstance(exc, ClientError) or _code(exc) not in _REFUSALS:
                raise
            change_id = self._send_as_listed(zone, changes, batch, exc)
        self._wait(zone, change_id)

    # zones by name

    def _found(self, name: str) -> list[Any]:
        """Return the public zones of that name."""
        found = list[Any]()
        arguments: _Arguments = {"DNSName": _native_zone(name), "MaxItems": "10"}
        while True:
            answer = self.client.list_hosted_zones_by_name(**arguments)
            same = [zone for zone in answer["HostedZones"] if _zone_name(zone["Name"]) == name]
            found += filter(_is_public, same)
            if not answer["IsTruncated"] or len(same) < len(answer["HostedZones"]):
                return found
            arguments |= {"DNSName": answer["NextDNSName"], "HostedZoneId": answer["NextHostedZoneId"]}

    def _id(self, name: str, *, fresh: bool = False) -> str:
        """Return the id of the one public zone of that name."""
        with self._lock:
            known = self._ids.get(name)
        if known is not None and not fresh:
            return known
        ids = [str(zone["Id"]).removeprefix("/hostedzone/") for zone in self._found(name)]
        if not ids:
            self._forget(name)
            raise _failure("NoSuchHostedZone", "there is no public zone of that name", status=404)
        if len(ids) > 1:
            self._forget(name)
            raise _failure(
                "ConflictingDomainExists",
                f"there are {len(ids)} public zones of that name, {' and '.join(sorted(ids))}; delete all but one",
            )
        with self._lock:
            self._ids[name] = ids[0]
        return ids[0]

    def _forget(self, name: str) -> None:
        with self._lock:
            self._ids.pop(name, None)

    def _with_id(self, zone: str, call: Callable[[str], T]) -> T:
        """Make a call with the zone's id, and once more if it was deleted and made anew under another id."""
        with self._lock:
            known = zone in self._ids
        try:
            return call(self._id(zone))
        except ClientError as exc:
            if not known or _code(exc) != "NoSuchHostedZone":
                raise
        return call(self._id(zone, fresh=True))

    # batches

    def _send(self, zone: str, batch: Iterable[Entry]) -> str:
        sent: Any = [entry.sent for entry in batch]
        answer = self._with_id(
            zone,
            lambda zone_id: self.client.change_resource_record_sets(
                HostedZoneId=zone_id, ChangeBatch={"Changes": sent}
            ),
        )
        return str(answer["ChangeInfo"]["Id"]).removeprefix("/change/")

    def _wait(self, zone: str, change_id: str) -> None:
        def in_sync() -> bool | None:
            return self.client.get_change(Id=change_id)["ChangeInfo"]["Status"] == "INSYNC" or None

        self._timing.until(
            in_sync, f"the name servers of {zone} to have change {change_id}, which is accepted", _IN_SYNC
        )

    def _check_read_first(self, zone: str, batch: list[Entry]) -> None:
        """Refuse an UPSERT of what is no longer as it was: Route 53 would not."""
        upserts = [entry.change for entry in batch if entry.action == "UPSERT"]
        if upserts:
            _check_unmoved(upserts, self._current(zone, upserts))

    def _happened(self, zone: str, changes: tuple[RecordChange, ...], exc: Exception) -> bool:
        """Tell whether the zone shows what the changes should have made of it, although an error came back."""
        try:
            current = self._current(zone, changes)
        except (BotoCoreError, ClientError):
            raise exc from None
        return all(current.get(change.key) == change.after for change in changes)

    def _current(self, zone: str, changes: Iterable[RecordChange]) -> dict[RecordKey, RecordSet]:
        """Return all record sets of the names that change; the whole zone, where those are many."""
        names = {change.key.name for change in changes}
        found, wanted = dict[RecordKey, RecordSet](), [None] if len(names) > _BY_NAME else sorted(names)
        for name in wanted:
            cursor: str | None = None
            while True:
                page = self.records(zone, name=name, cursor=cursor, limit=None)
                found |= {record.key: record for record in page.items}
                cursor = page.next
                if cursor is None:
                    break
        return found

    def _send_as_listed(
        self, zone: str, changes: tuple[RecordChange, ...], batch: list[Entry], refused: ClientError
    ) -> str:
        """Find out why a batch was refused. If only the spelling of what is deleted differs, send it in Route 53's."""
        fault = classify_dns(refused)
        if _dns_batch.blamed(_message(refused), batch) and fault and fault.error is not PreconditionFailed:
            raise self._explained(zone, batch, refused) from refused
        current = self._current(zone, changes)
        _check_unmoved(changes, current, refused)
        listed = tuple(attrs.evolve(change, before=current.get(change.key)) for change in changes)
        again = _dns_batch.entries(zone, listed)
        if [entry.sent for entry in again] == [entry.sent for entry in batch]:
            raise self._explained(zone, batch, refused) from refused
        try:
            return self._send(zone, again)
        except ClientError as exc:
            if _code(exc) not in _REFUSALS:
                raise
            raise self._explained(zone, again, exc) from exc

    # whose fault it is

    def _explained(self, zone: str, batch: list[Entry], refused: ClientError) -> ClientError:
        """Return the refusal with the record sets that it is about."""
        message = _message(refused)
        keys = _dns_batch.blamed(message, batch) or self._bisected(zone, batch)
        named = ", ".join(map(str, keys)) if keys else f"one of {len(batch):,} elements"
        response: Any = {**refused.response, "Error": {"Code": _code(refused), "Message": f"{named}: {message}"}}
        return ClientError(response, refused.operation_name)

    def _bisected(self, zone: str, batch: list[Entry]) -> list[RecordKey]:
        """Find the first element that makes the batch wrong, by asking for parts that cannot happen."""
        keys = list(dict.fromkeys(entry.change.key for entry in batch))
        if len(keys) == 1:
            return keys
        probe = f"shiftable-probe-{uuid.uuid4().hex[:12]}.{zone}."
        if self._is_refused(zone, [], probe):  # then its answers tell nothing
            return []
        good, bad = 0, len(batch)  # the first so many are right; the first so many are wrong
        while bad - good > 1:
            middle = (good + bad) // 2
            if self._is_refused(zone, batch[:middle], probe):
                bad = middle
            else:
                good = middle
        return [batch[bad - 1].change.key]

    def _is_refused(self, zone: str, part: list[Entry], probe: str) -> bool:
        """Tell whether Route 53 has anything against a part, beside the deletion of what is not there."""
        zone_id = self._id(zone)
        target = {"HostedZoneId": zone_id, "DNSName": probe, "EvaluateTargetHealth": False}
        absent = {"Name": native_name(probe), "Type": "A", "AliasTarget": target}
        sent: Any = [*(entry.sent for entry in part), {"Action": "DELETE", "ResourceRecordSet": absent}]
        try:
            self.client.change_resource_record_sets(HostedZoneId=zone_id, ChangeBatch={"Changes": sent})
        except ClientError as exc:
            if _code(exc) not in _REFUSALS:
                raise
            return not _dns_batch.is_only_about(_message(exc), probe)
        raise AssertionError(f"Route 53 deleted {probe}, which never was")


def _check_unmoved(
    changes: Iterable[RecordChange], current: dict[RecordKey, RecordSet], cause: ClientError | None = None
) -> None:
    moved = [str(change.key) for change in changes if current.get(change.key) != change.before]
    if moved:
        raise _failure("PreconditionFailed", f"no longer as it was: {', '.join(moved)}") from cause


def _too_long(record: RecordSet) -> str | None:
    size = _dns_batch.characters(record)
    if size > _dns_batch.MAX_CHARACTERS:
        return f"its values have {size:,} characters; one request takes {_dns_batch.MAX_CHARACTERS:,} ({_QUOTAS})"
    return None


def _next(answer: Any) -> str | None:  # noqa: ANN401
    if not answer["IsTruncated"]:
        return None
    names = {"NextRecordName": "StartRecordName", "NextRecordType": "StartRecordType"}
    names["NextRecordIdentifier"] = "StartRecordIdentifier"
    return json.dumps({start: answer[name] for name, start in names.items() if name in answer})


def _native_zone(name: str) -> str:
    return native_name(f"{name}.")


def _zone_name(native: str) -> str:
    """Return a zone's name as ``Dns`` spells it."""
    return zone_name(absolute(dns_name(native), "."))


def _is_public(zone: Any) -> bool:  # noqa: ANN401
    return not zone.get("Config", {}).get("PrivateZone", False)


def _code(exc: ClientError) -> str:
    return exc.response.get("Error", {}).get("Code", "")


def _message(exc: ClientError) -> str:
    return exc.response.get("Error", {}).get("Message", "")


def _is_unsure(exc: Exception) -> bool:
    """Tell whether what was asked for may have happened nonetheless, by this attempt or by one before it."""
    if not isinstance(exc, ClientError):
        return True
    status = exc.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return _retried(exc) or status >= 500 or _code(exc) == "RequestTimeoutException"  # an answer that ended early


def _retried(exc: ClientError) -> bool:
    return exc.response.get("ResponseMetadata", {}).get("RetryAttempts", 0) > 0


def _failure(code: str, message: str, *, status: int = 400) -> ClientError:
    """Return what the service would answer."""
    response: Any = {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(response, "shiftable")

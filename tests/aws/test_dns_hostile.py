"""Route 53 when something goes wrong: lost answers, other writers, limits, and batches with one refused change."""

from __future__ import annotations

import threading
from typing import Any

import attrs
import pytest

from shiftable.config import Credential
from shiftable.dns import Dns, Policy, RecordChange, RecordSet, Zone, ZoneSpec
from shiftable.errors import (
    AlreadyExists,
    Conflict,
    InvalidArgument,
    NotFound,
    ParentNotFound,
    PreconditionFailed,
    QuotaExceeded,
    Throttled,
    Timeout,
    Unauthenticated,
    Unavailable,
)
from shiftable.testing.harness import Call
from shiftable.waiting import Timing
from shiftable_aws import AwsProvider, AwsSettings, _strict_dns
from shiftable_aws._strict_dns_rules import changed
from shiftable_aws._strict_refused import Refused
from shiftable_aws.dns import Route53Driver
from shiftable_aws.double import AwsDouble

from .hostile import body_of, calls_of, is_

CHANGE = "ChangeResourceRecordSets"


def ids(double: AwsDouble, name: str) -> list[str]:
    zones = double.backend("route53", "aws").zones.values()
    return sorted(zone.resource_id for zone in zones if zone.name == f"{name}.")


def held(double: AwsDouble, name: str = "shop.example") -> dict[tuple[str, str, str], dict[str, Any]]:
    (found,) = ids(double, name)
    return {key: record for key, record in double.dns.records(found).items() if key[1] not in {"NS", "SOA"}}


def native(name: str, kind: str, *values: str, ttl: int = 300) -> dict[str, Any]:
    return {"Name": name, "Type": kind, "TTL": ttl, "ResourceRecords": [{"Value": value} for value in values]}


@pytest.fixture
def service(provider: AwsProvider) -> Dns:
    return Dns(provider.dns())


@pytest.fixture
def zone(service: Dns) -> Zone:
    return service.create(ZoneSpec(name="shop.example"))


@pytest.fixture
def impatient(hasty: AwsProvider) -> Dns:
    """Return a client that tries once."""
    return Dns(hasty.dns())


# answers that are lost


@pytest.mark.parametrize("kind", ["drop_before", "drop_after", "truncate"])
def test_a_lost_answer_changes_nothing_of_what_happens(aws_double: AwsDouble, zone: Zone, kind: Any) -> None:
    for step in (
        lambda: zone.set("www", "A", "192.0.2.1", if_absent=True),
        lambda: zone.set("www", "A", "192.0.2.2"),
        lambda: zone.change([RecordChange(before=zone.get("www", "A"), after=None)]),
        lambda: zone.set("@", "NS", "ns1.example.net.", apex=True),
    ):
        fault = aws_double.inject(kind, match=is_(CHANGE))
        step()
        assert fault.hits == 1

    assert held(aws_double) == {}
    assert zone.get("@", "NS").texts == ("ns1.example.net.",)


@pytest.mark.parametrize("operation", ["ListResourceRecordSets", "ListHostedZonesByName", "GetChange", "GetHostedZone"])
@pytest.mark.parametrize("kind", ["drop_before", "drop_after", "truncate"])
def test_what_reads_is_asked_again(aws_double: AwsDouble, service: Dns, operation: str, kind: Any) -> None:
    zone = service.create(ZoneSpec(name="shop.example"))
    fault = aws_double.inject(kind, match=is_(operation))

    zone.set("www", "A", "192.0.2.1")
    zone.info()

    assert fault.hits == 1
    assert zone.get("www", "A").texts == ("192.0.2.1",)


@pytest.mark.parametrize("kind", ["drop_before", "drop_after", "truncate"])
def test_a_zone_is_made_and_deleted_once(aws_double: AwsDouble, service: Dns, kind: Any) -> None:
    made = aws_double.inject(kind, match=is_("CreateHostedZone"))
    service.create(ZoneSpec(name="shop.example"))
    assert len(ids(aws_double, "shop.example")) == 1
    gone = aws_double.inject(kind, match=is_("DeleteHostedZone"))
    service.delete("shop.example")
    assert ids(aws_double, "shop.example") == []
    assert (made.hits, gone.hits) == (1, 1)


@pytest.mark.parametrize("kind", ["drop_after", "truncate"])
def test_whoever_tries_once_looks_whether_it_happened(
    aws_double: AwsDouble, zone: Zone, impatient: Dns, kind: Any
) -> None:
    aws_double.inject(kind, match=is_(CHANGE))
    impatient.zone(zone.name).set("www", "A", "192.0.2.1")
    assert list(held(aws_double)) == [("www.shop.example.", "A", "")]


def test_what_did_not_happen_is_an_error(aws_double: AwsDouble, zone: Zone, impatient: Dns) -> None:
    aws_double.inject("drop_before", match=is_(CHANGE))
    with pytest.raises(Unavailable):
        impatient.zone(zone.name).set("www", "A", "192.0.2.1")
    assert held(aws_double) == {}


def test_a_service_that_is_gone_is_unavailable(aws_double: AwsDouble, zone: Zone, impatient: Dns) -> None:
    there = impatient.zone(zone.name)
    assert not there.exists("www", "A")
    gone = aws_double.inject("drop_before", match=is_(CHANGE))
    aws_double.inject("status", match=lambda _call: gone.hits > 0, times=None)
    with pytest.raises(Unavailable):
        there.set("www", "A", "192.0.2.1")


def test_a_lost_answer_and_another_writer_are_a_failed_precondition(aws_double: AwsDouble, zone: Zone) -> None:
    """Ours did happen, and somebody replaced it before it was asked for again."""
    before = zone.set("www", "A", "192.0.2.1")
    (zone_id,) = ids(aws_double, zone.name)
    seen = 0

    def overtaken(call: Call) -> bool:
        nonlocal seen
        seen += call.operation == CHANGE
        if seen == 1:  # the attempt that is dropped is not asked about here
            aws_double.dns.put(zone_id, native("www.shop.example.", "A", "192.0.2.9"))
        return False

    aws_double.inject("drop_after", match=is_(CHANGE))
    aws_double.inject("status", match=overtaken)
    with pytest.raises(PreconditionFailed):
        zone.change([RecordChange(before=before, after=zone.record("www", "A", "192.0.2.2"))])
    assert zone.get("www", "A").texts == ("192.0.2.9",)


# too many requests, and services that fail


@pytest.mark.parametrize("code", ["Throttling", "PriorRequestNotComplete", "ThrottlingException"])
def test_a_throttled_request_is_tried_again(aws_double: AwsDouble, zone: Zone, code: str) -> None:
    refusal = aws_double.inject("status", status=400, body=body_of(code), times=2, match=is_(CHANGE))
    zone.set("www", "A", "192.0.2.1")
    assert refusal.hits == 2
    assert list(held(aws_double)) == [("www.shop.example.", "A", "")]


@pytest.mark.parametrize("code", ["Throttling", "PriorRequestNotComplete"])
def test_throttling_that_does_not_end_is_throttled(
    aws_double: AwsDouble, zone: Zone, impatient: Dns, code: str
) -> None:
    headers = [("Retry-After", "3")]
    aws_double.inject("status", status=400, body=body_of(code), headers=headers, match=is_(CHANGE), times=None)
    with pytest.raises(Throttled) as caught:
        impatient.zone(zone.name).set("www", "A", "192.0.2.1")
    assert (caught.value.code, caught.value.retry_after, caught.value.retryable) == (code, 3.0, True)


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_failing_service_is_tried_again(aws_double: AwsDouble, zone: Zone, status: int) -> None:
    body = body_of("TooManyRequestsException" if status == 429 else "InternalFailure")
    for operation in (CHANGE, "ListResourceRecordSets", "GetChange"):
        fault = aws_double.inject("status", status=status, body=body, match=is_(operation))
        zone.set(operation, "A", "192.0.2.1")
        assert fault.hits == 1
    assert len(held(aws_double)) == 3


def test_an_answer_of_a_proxy_is_no_answer(aws_double: AwsDouble, zone: Zone, impatient: Dns) -> None:
    aws_double.inject("status", status=200, body=b"<html>please log in", times=None)
    with pytest.raises(Unavailable):
        list(impatient.zone(zone.name).records())


# on the way to the name servers


class Watch:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def watch() -> Watch:
    return Watch()


@pytest.fixture
def watched(provider: AwsProvider, watch: Watch, zone: Zone) -> Zone:
    timing = Timing(clock=lambda: watch.now, sleep=watch.sleep)
    return Dns(Route53Driver(provider.session, timing)).zone(zone.name)


def test_a_change_is_waited_for_until_the_name_servers_have_it(
    aws_double: AwsDouble, watched: Zone, watch: Watch
) -> None:
    aws_double.dns.polls = 3
    watched.set("www", "A", "192.0.2.1")
    assert watch.slept == [1.0, 1.5, 2.25]
    assert len(calls_of(aws_double, "GetChange")) == 4


def test_the_wait_ends(aws_double: AwsDouble, watched: Zone, watch: Watch) -> None:
    aws_double.dns.polls = 10**6
    with pytest.raises(Timeout, match=r"0:05:00 for the name servers of shop\.example .*, which is accepted"):
        watched.set("www", "A", "192.0.2.1")
    assert watch.now == 300
    assert watched.exists("www", "A")


# who asks


@pytest.mark.parametrize("wrong", ["access_key", "secret_key"])
def test_wrong_credentials_are_unauthenticated(aws_double: AwsDouble, zone: Zone, wrong: str) -> None:
    config = {**aws_double.config, wrong: Credential.literal("AKIACANARYCANARY0000")}
    provider = AwsProvider(AwsSettings(**config))
    with pytest.raises(Unauthenticated) as caught:
        Dns(provider.dns()).zone(zone.name).set("www", "A", "192.0.2.1")
    provider.close()
    assert wrong == "access_key" or "CANARY" not in f"{caught.value} {caught.value.__cause__!r}"
    assert held(aws_double) == {}


# zones


def test_a_zone_that_vanished_is_missing(aws_double: AwsDouble, zone: Zone, service: Dns) -> None:
    zone.set("www", "A", "192.0.2.1")
    (zone_id,) = ids(aws_double, zone.name)
    del aws_double.backend("route53", "aws").zones[zone_id]

    with pytest.raises(ParentNotFound):
        zone.get("www", "A")
    with pytest.raises(NotFound):
        list(zone.records())
    with pytest.raises(NotFound):
        service.delete(zone.name)


def test_a_zone_that_vanishes_between_read_and_write_is_missing(aws_double: AwsDouble, zone: Zone) -> None:
    (zone_id,) = ids(aws_double, zone.name)

    def vanish(call: Call) -> bool:
        if call.operation == CHANGE:
            aws_double.backend("route53", "aws").zones.pop(zone_id, None)
        return False

    aws_double.inject("status", match=vanish)
    with pytest.raises(ParentNotFound):
        zone.set("www", "A", "192.0.2.1")


def test_a_zone_that_was_made_anew_is_found_under_its_new_id(
    aws_double: AwsDouble, zone: Zone, provider: AwsProvider
) -> None:
    zone.set("www", "A", "192.0.2.1")
    (zone_id,) = ids(aws_double, zone.name)
    del aws_double.backend("route53", "aws").zones[zone_id]
    provider.session.client("route53").create_hosted_zone(Name=zone.name, CallerReference="another")

    assert not zone.exists("www", "A")
    zone.set("www", "A", "192.0.2.2")
    assert zone.info().id == ids(aws_double, zone.name)[0] != zone_id


def test_two_zones_of_one_name_are_an_error_with_both_ids(
    aws_double: AwsDouble, zone: Zone, provider: AwsProvider, service: Dns
) -> None:
    provider.session.client("route53").create_hosted_zone(Name=zone.name, CallerReference="another")
    both = ids(aws_double, zone.name)

    for act in (zone.info, lambda: service.delete(zone.name), lambda: service.get(zone.name)):
        with pytest.raises(Conflict, match=" and ".join(both)):
            act()
    with pytest.raises(AlreadyExists):
        service.create(ZoneSpec(name=zone.name))


def test_many_zones_of_one_name_are_counted_over_pages(provider: AwsProvider, service: Dns) -> None:
    for number in range(12):
        provider.session.client("route53").create_hosted_zone(Name="shop.example", CallerReference=str(number))
    provider.session.client("route53").create_hosted_zone(Name="shoq.example", CallerReference="other")
    with pytest.raises(Conflict, match="there are 12 public zones"):
        service.get("shop.example")


def test_private_zones_are_none_of_ours(aws_double: AwsDouble, provider: AwsProvider, service: Dns) -> None:
    vpc: Any = {"VPCId": "vpc-1", "VPCRegion": "eu-central-1"}
    client = provider.session.client("route53")
    client.create_hosted_zone(Name="shop.example", CallerReference="p", VPC=vpc, HostedZoneConfig={"PrivateZone": True})

    assert not service.exists("shop.example")
    assert list(service.list()) == []
    zone = service.create(ZoneSpec(name="shop.example"))
    zone.set("www", "A", "192.0.2.1")
    zone.delete("www", "A")
    service.delete("shop.example")
    assert len(ids(aws_double, "shop.example")) == 1


def test_a_zone_can_be_made_and_deleted_many_times_a_day(aws_double: AwsDouble, service: Dns) -> None:
    for _ in range(10):
        service.create(ZoneSpec(name="shop.example"))
        service.delete("shop.example")
    assert ids(aws_double, "shop.example") == []


def test_of_two_creators_one_wins(
    aws_double: AwsDouble, provider: AwsProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both look before either has created."""
    looked, looks = threading.Barrier(2), Route53Driver._found
    first_looks = threading.local()

    def look(driver: Route53Driver, name: str) -> list[Any]:
        found = looks(driver, name)
        if not hasattr(first_looks, "done"):
            first_looks.done = True
            looked.wait(timeout=30)
        return found

    monkeypatch.setattr(Route53Driver, "_found", look)
    ended = list[str]()

    def create() -> None:
        try:
            Dns(provider.dns()).create(ZoneSpec(name="shop.example"))
            ended.append("made")
        except AlreadyExists:
            ended.append("exists")

    threads = [threading.Thread(target=create) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(ended) == ["exists", "made"]
    assert len(ids(aws_double, "shop.example")) == 1


# other writers


def test_of_many_writers_of_one_version_one_wins(zone: Zone) -> None:
    token = zone.set("www", "A", "192.0.2.100").token
    won, lost, start = list[int](), list[int](), threading.Barrier(6)

    def write(number: int) -> None:
        start.wait()
        try:
            zone.set("www", "A", f"192.0.2.{number}", if_match=token)
            won.append(number)
        except PreconditionFailed:
            lost.append(number)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(won), len(lost)) == (1, 5)
    assert zone.get("www", "A").texts == (f"192.0.2.{won[0]}",)


def test_a_write_between_read_and_change_is_never_lost(aws_double: AwsDouble, zone: Zone) -> None:
    """Route 53 refuses, and the write without a condition starts again from what is there."""
    zone.set("www", "A", "192.0.2.1", ttl=60)
    (zone_id,) = ids(aws_double, zone.name)
    done = False

    def overtake(call: Call) -> bool:
        nonlocal done
        if call.operation == CHANGE and not done:
            done = True
            aws_double.dns.put(zone_id, native("www.shop.example.", "A", "192.0.2.9", ttl=77))
        return False

    aws_double.inject("status", match=overtake)
    assert zone.set("www", "A", "192.0.2.2").ttl == 77
    assert len(calls_of(aws_double, CHANGE)) == 3


def test_a_cname_that_another_made_meanwhile_is_a_conflict(aws_double: AwsDouble, zone: Zone) -> None:
    (zone_id,) = ids(aws_double, zone.name)

    def overtake(call: Call) -> bool:
        if call.operation == CHANGE:
            aws_double.dns.put(zone_id, native("www.shop.example.", "CNAME", "a.example."))
        return False

    aws_double.inject("status", match=overtake)
    with pytest.raises(Conflict, match=r"www\.shop\.example\. A: .*conflicting"):
        zone.set("www", "A", "192.0.2.1")
    assert list(held(aws_double)) == [("www.shop.example.", "CNAME", "")]


# limits


def test_a_huge_zone_is_listed_whole(aws_double: AwsDouble, zone: Zone) -> None:
    names = [f"n{number}.shop.example." for number in range(9998)]
    zone.change(RecordChange(before=None, after=zone.record(name, "A", "192.0.2.1")) for name in names)

    assert len(calls_of(aws_double, CHANGE)) == 10
    before = len(aws_double.calls)
    found = [record.name for record in zone.records(type="A")]
    assert len(aws_double.calls) - before == 34
    assert (len(found), set(found)) == (9998, set(names))
    with pytest.raises(QuotaExceeded, match=r"one-more\.shop\.example\. A"):
        zone.set("one-more", "A", "192.0.2.1")


def sizes(zone: Zone, changes: list[RecordChange]) -> list[int]:
    return [len(batch) for batch in zone.unwrap(Route53Driver).batches(tuple(changes))]


def made(zone: Zone, count: int, *values: str, type: str = "A") -> list[RecordChange]:
    return [
        RecordChange(before=None, after=zone.record(f"n{number:04}", type, values or ["192.0.2.1"]))
        for number in range(count)
    ]


def test_1000_values_are_one_request_and_1001_are_two(aws_double: AwsDouble, zone: Zone) -> None:
    assert sizes(zone, made(zone, 1000)) == [1000]
    assert sizes(zone, made(zone, 1001)) == [1000, 1]
    assert sizes(zone, made(zone, 501, "192.0.2.1", "192.0.2.2")) == [500, 1]
    with pytest.raises(NotImplementedError, match="no way to change 1,001"):
        zone.change(made(zone, 1001), atomic=True)
    zone.change(made(zone, 1000), atomic=True)
    assert len(calls_of(aws_double, CHANGE)) == 1


def test_an_update_costs_what_was_and_what_will_be(zone: Zone) -> None:
    zone.change(made(zone, 600))
    updates = [
        RecordChange(before=record, after=attrs.evolve(record, ttl=60)) for record in list(zone.records(type="A"))
    ]
    assert sizes(zone, updates) == [500, 100]
    zone.change(updates)
    assert {record.ttl for record in zone.records(type="A")} == {60}


def test_32000_characters_are_one_request_and_32001_are_two(aws_double: AwsDouble, zone: Zone) -> None:
    text = f'"{"x" * 198}"'  # 200 characters
    full = made(zone, 160, text, type="TXT")
    one_more = RecordChange(before=None, after=zone.record("z", "A", "1.1.1.1"))
    assert sizes(zone, full) == [160]
    assert sizes(zone, [*full, one_more]) == [160, 1]
    zone.change(full)
    assert len(calls_of(aws_double, CHANGE)) == 1


def test_escapes_are_counted_as_they_are_sent(zone: Zone) -> None:
    text = r'"' + r"\200" * 99 + '"'  # 99 bytes of wire form, 398 characters
    assert sizes(zone, made(zone, 81, text, type="TXT")) == [80, 1]


def texts(count: int, letter: str) -> list[str]:
    return [f'"{number:04}{letter * 94}"' for number in range(count)]  # 100 characters each


def test_more_than_a_request_takes_is_refused_before(aws_double: AwsDouble, zone: Zone) -> None:
    with pytest.raises(InvalidArgument, match="its values have 32,100 characters"):
        zone.set("big", "TXT", texts(321, "x"))
    assert calls_of(aws_double, CHANGE) == []
    zone.set("big", "TXT", texts(320, "x"))


def test_a_big_update_is_an_upsert_or_refused(aws_double: AwsDouble, zone: Zone) -> None:
    zone.set("big", "TXT", texts(320, "x"))
    with pytest.raises(QuotaExceeded, match=r"big\.shop\.example\. TXT: .*delete it first"):
        zone.set("big", "TXT", texts(320, "y"))
    assert zone.get("big", "TXT").texts[0].startswith('"0000x')
    zone.set("big", "TXT", texts(160, "y"))
    assert zone.get("big", "TXT").texts[0].startswith('"0000y')


def test_all_changes_of_one_name_are_in_one_request(zone: Zone) -> None:
    changes = made(zone, 999)
    both = [RecordChange(before=None, after=zone.record("zz", kind, value)) for kind, value in (("A", "192.0.2.1"),)]
    both += [RecordChange(before=None, after=zone.record("zz", "TXT", '"x"'))]
    assert sizes(zone, [*changes, *both]) == [999, 2]


def test_what_one_request_cannot_hold_of_one_name_is_split_with_deletions_first(zone: Zone) -> None:
    kinds = {"A": [f"10.0.{n // 250}.{n % 250}" for n in range(400)], "TXT": [f'"{n}"' for n in range(400)]}
    kinds["AAAA"] = [f"2001:db8::{n:x}" for n in range(400)]
    changes = [RecordChange(before=None, after=zone.record("big", kind, values)) for kind, values in kinds.items()]
    assert sizes(zone, changes) == [2, 1]
    zone.change(changes)
    gone = [RecordChange(before=record, after=None) for record in zone.records(name="big")]
    zone.change(gone)
    assert not list(zone.records(name="big"))


def test_400_values_are_held_and_401_refused(zone: Zone) -> None:
    values = [f"10.0.{number // 250}.{number % 250}" for number in range(401)]
    zone.set("many", "A", values[:400])
    with pytest.raises(InvalidArgument, match="401 values; the limit is 400"):
        zone.set("many", "A", values)
    assert len(zone.get("many", "A").rdatas) == 400


# one bad change among many


def five_hundred(zone: Zone, bad: RecordSet) -> list[RecordChange]:
    changes = made(zone, 499)
    changes.insert(237, RecordChange(before=None, after=bad))
    return changes


def test_the_bad_one_of_500_is_named_by_its_name(aws_double: AwsDouble, zone: Zone) -> None:
    aws_double.dns.protected.add(("bad.shop.example.", "A"))

    with pytest.raises(Conflict, match=r"bad\.shop\.example\. A: \[.*protected"):
        zone.change(five_hundred(zone, zone.record("bad", "A", "192.0.2.1")))

    assert held(aws_double) == {}
    assert len(calls_of(aws_double, CHANGE)) == 1


def test_the_bad_one_of_500_is_named_by_its_value(
    aws_double: AwsDouble, zone: Zone, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Route 53 quotes a value that it does not like, and not where it stands."""
    from shiftable_aws import _strict_dns_rules

    monkeypatch.setattr(
        _strict_dns_rules, "_fault_of_value", lambda _kind, value: "IllegalValue" if value == "203.0.113.9" else None
    )
    with pytest.raises(InvalidArgument, match=r"dns\.change .*: bad\.shop\.example\. A: \[Invalid Resource Record"):
        zone.change(five_hundred(zone, zone.record("bad", "A", ["192.0.2.1", "203.0.113.9"])))
    assert held(aws_double) == {}
    assert len(calls_of(aws_double, CHANGE)) == 1


def test_an_alias_without_its_target_is_named(aws_double: AwsDouble, zone: Zone) -> None:
    (own,) = ids(aws_double, zone.name)
    target = f'{{"DNSName":"none.shop.example.","EvaluateTargetHealth":false,"HostedZoneId":"{own}"}}'
    data = f'{{"AliasTarget":{target}}}'
    bad = RecordSet(name="bad.shop.example.", type="A", ttl=0, rdatas=(), policy=Policy(provider="aws", data=data))
    with pytest.raises(InvalidArgument, match=r"bad\.shop\.example\. A: .*target was not found"):
        zone.change(five_hundred(zone, bad))
    assert held(aws_double) == {}


def test_a_missing_health_check_is_refused(aws_double: AwsDouble, zone: Zone) -> None:
    policy = Policy(provider="aws", data='{"HealthCheckId":"none","Weight":1}', set_id="a")
    bad = attrs.evolve(zone.record("bad", "A", "192.0.2.1"), policy=policy)
    with pytest.raises(InvalidArgument, match=r"bad\.shop\.example\. A 'a': .*health check"):
        zone.change(five_hundred(zone, bad))
    assert held(aws_double) == {}


@pytest.fixture
def tight_lipped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the double not say which change it refuses, unless that is for another reason than protection."""

    def changed_silently(state: Any, changes: Any) -> Any:
        try:
            return changed(state, changes)
        except Refused as exc:
            told = exc.message.strip("[]").split(", The resource")[0] if "The resource" in exc.message else exc.message
            silent = "protected" in exc.message
            others = "" if told.startswith("The resource") or not silent else f", {told}"
            if silent and "Tried to delete" in exc.message and not others:
                others = ", " + exc.message[exc.message.index("Tried") :].strip("]") + "]"
            message = f"[Not permitted{others}]" if silent else exc.message
            raise Refused(exc.code, message) from exc

    monkeypatch.setattr(_strict_dns, "changed", changed_silently)


@pytest.mark.usefixtures("tight_lipped")
@pytest.mark.parametrize("place", [0, 237, 498])
def test_the_bad_one_of_500_is_found_where_route_53_does_not_name_it(
    aws_double: AwsDouble, zone: Zone, place: int
) -> None:
    """By asking for parts that cannot happen: ten requests, and the zone never changes."""
    changes = made(zone, 499)
    changes.insert(place, RecordChange(before=None, after=zone.record(f"n{place:04}x", "A", "192.0.2.1")))
    aws_double.dns.protected.add((f"n{place:04}x.shop.example.", "A"))
    seen = list[int]()
    aws_double.validators.append(lambda request, response: seen.append(len(held(aws_double))) or ())

    try:
        with pytest.raises(InvalidArgument, match=rf": n{place:04}x\.shop\.example\. A: \[Not permitted\]"):
            zone.change(changes)
    finally:
        aws_double.validators.pop()

    assert set(seen) == {0}
    assert len(calls_of(aws_double, CHANGE)) <= 12


@pytest.mark.usefixtures("tight_lipped")
def test_one_change_alone_is_named_without_asking_again(aws_double: AwsDouble, zone: Zone) -> None:
    aws_double.dns.protected.add(("www.shop.example.", "A"))
    with pytest.raises(InvalidArgument, match=r": www\.shop\.example\. A: \[Not permitted\]"):
        zone.set("www", "A", "192.0.2.1")
    assert len(calls_of(aws_double, CHANGE)) == 1


def test_where_nothing_tells_them_apart_the_error_says_of_how_many(aws_double: AwsDouble, zone: Zone) -> None:
    body = body_of("InvalidChangeBatch", "[Something]")
    aws_double.inject("status", status=400, body=body, match=is_(CHANGE), times=None)
    with pytest.raises(InvalidArgument, match=r"one of 3 elements: \[Something\]"):
        zone.change(made(zone, 3))
    assert len(calls_of(aws_double, CHANGE)) == 2


def test_a_stale_change_among_500_is_named(aws_double: AwsDouble, zone: Zone, provider: AwsProvider) -> None:
    stale = zone.set("bad", "A", "192.0.2.1")
    zone.set("bad", "A", "192.0.2.2")
    driver = provider.dns()
    changes = [*made(zone, 499), RecordChange(before=stale, after=None)]
    before = held(aws_double)

    with pytest.raises(Exception, match=r"no longer as it was: bad\.shop\.example\. A") as caught:
        driver.change(zone.name, tuple(changes))

    fault = driver.classify(caught.value)
    assert fault is not None
    assert fault.error is PreconditionFailed
    assert held(aws_double) == before


def test_a_message_that_was_cut_short_names_what_it_still_has(aws_double: AwsDouble, zone: Zone) -> None:
    text = (
        "Message was too long, it was truncated. [RRSet with DNS name n0001.shop.example. is not permitted in zone x."
    )
    aws_double.inject("status", status=400, body=body_of("InvalidChangeBatch", text), match=is_(CHANGE))
    with pytest.raises(InvalidArgument, match=r": n0001\.shop\.example\. A: Message was too long"):
        zone.change(made(zone, 3))


# limits


def test_a_zone_tells_the_limit_that_it_has_been_granted(aws_double: AwsDouble, zone: Zone) -> None:
    usual = zone.features.max_record_sets
    found = zone.max_record_sets()
    assert usual is not None
    assert found is not None
    assert found.value == usual.value == 10_000
    aws_double.dns.record_sets = 4
    found = zone.max_record_sets()
    assert found is not None
    assert found.value == 4
    with pytest.raises(QuotaExceeded, match="limit of 4 resource record sets"):
        zone.change(made(zone, 3))
    zone.change(made(zone, 2))
    assert len(held(aws_double)) == 2
    with pytest.raises(NotFound):
        Dns(zone.unwrap(Route53Driver)).zone("missing.example").max_record_sets()


def test_who_may_not_see_the_limit_has_the_usual_one(aws_double: AwsDouble, zone: Zone) -> None:
    aws_double.dns.record_sets = 20_000
    met = aws_double.inject("status", status=403, body=body_of("AccessDenied"), match=is_("GetHostedZoneLimit"))
    assert zone.max_record_sets() == zone.features.max_record_sets
    assert met.hits == 1

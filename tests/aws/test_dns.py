"""Route 53 keeps the rules for DNS, at a double that keeps Route 53's."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import botocore.session
import dns.name
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from shiftable.dns import Dns, Policy, RecordChange, RecordSet, Zone, ZoneSpec
from shiftable.dns.driver import DnsDriver
from shiftable.testing.conformance.dns import DnsConformance, Observed, dns_machine
from shiftable_aws import AwsProvider
from shiftable_aws.dns import FEATURES, Route53Driver
from shiftable_aws.double import AwsDouble

Client = Any


def zone_id(double: AwsDouble, name: str) -> str:
    (found,) = [zone.resource_id for zone in double.backend("route53", "aws").zones.values() if zone.name == f"{name}."]
    return str(found)


def held(double: AwsDouble, name: str) -> dict[tuple[str, str, str], dict[str, Any]]:
    """Return what the double holds, in Route 53's words."""
    return double.dns.records(zone_id(double, name))


def decimal(text: str) -> str:
    """Read Route 53's octal escapes; a backslash that is escaped stays."""
    pieces = re.split(r"(\\\\|\\[0-7]{3})", text)
    return "".join(f"\\{int(p[1:], 8):03d}" if re.fullmatch(r"\\[0-7]{3}", p) else p for p in pieces)


def look(double: AwsDouble, zone: str) -> Observed:
    found = {}
    for (name, kind, _), record in held(double, zone).items():
        number = dns.rdatatype.from_text(kind)
        values = [decimal(entry["Value"]) for entry in record.get("ResourceRecords", ())]
        owner = dns.name.from_text(decimal(name)).to_text().lower()
        parsed = frozenset(dns.rdata.from_text(dns.rdataclass.IN, number, value) for value in values)
        found[owner, kind] = (record.get("TTL", 0), parsed)
    return found


@pytest.fixture
def zone(provider: AwsProvider) -> Zone:
    return Dns(provider.dns()).create(ZoneSpec(name="shop.example"))


class TestRoute53(DnsConformance):
    @pytest.fixture
    def driver(self, provider: AwsProvider) -> DnsDriver:
        return provider.dns()

    @pytest.fixture
    def oracle(self, aws_double: AwsDouble) -> Callable[[str], Observed]:
        return lambda zone: look(aws_double, zone)


def test_the_driver_does_what_the_model_does(provider: AwsProvider, aws_double: AwsDouble) -> None:
    def make_driver() -> DnsDriver:
        aws_double.reset()
        return provider.dns()

    run_state_machine_as_test(dns_machine(make_driver), settings=settings.get_profile("machine"))


# what is Route 53's own


def routed(zone: Zone, name: str, value: str | None, set_id: str | None, data: str, *, type: str = "A") -> RecordSet:
    plain = zone.record(name, type, [] if value is None else value, ttl=0 if value is None else 60)
    return RecordSet(
        name=plain.name,
        type=plain.type,
        ttl=plain.ttl,
        rdatas=plain.rdatas,
        policy=Policy(provider="aws", data=data, set_id=set_id),
    )


def created(*records: RecordSet) -> list[RecordChange]:
    return [RecordChange(before=None, after=record) for record in records]


class Sent:
    """The batches that a double got, in Route 53's words: action, name, type and values."""

    def __init__(self) -> None:
        self.batches: list[list[tuple[str, str, str, tuple[str, ...]]]] = []

    def __call__(self, request: Any, response: Any) -> list[str]:
        if request.path.endswith("/rrset/"):
            text = request.body.decode()
            self.batches.append([self._read(change) for change in re.findall(r"<Change>.*?</Change>", text, re.DOTALL)])
        return []

    @staticmethod
    def _read(change: str) -> tuple[str, str, str, tuple[str, ...]]:
        action, name, kind = (re.findall(f"<{tag}>(.*?)</{tag}>", change)[0] for tag in ("Action", "Name", "Type"))
        return action, name, kind, tuple(re.findall("<Value>(.*?)</Value>", change))


@pytest.fixture
def sent(aws_double: AwsDouble) -> Any:
    log = Sent()
    aws_double.validators.append(log)
    yield log
    aws_double.validators.remove(log)


def test_the_types_are_those_of_the_model() -> None:
    shape = botocore.session.get_session().get_service_model("route53").shape_for("RRType")
    assert set(shape.enum) == FEATURES.types


def test_route_53_decides_by_a_deletion_of_what_was(zone: Zone, sent: Sent) -> None:
    zone.set("www", "A", ["192.0.2.1", "192.0.2.2"], ttl=60)
    zone.set("www", "A", "192.0.2.3", ttl=60)
    zone.delete("www", "A")

    name = "www.shop.example."
    assert sent.batches == [
        [("CREATE", name, "A", ("192.0.2.1", "192.0.2.2"))],
        [("DELETE", name, "A", ("192.0.2.1", "192.0.2.2")), ("CREATE", name, "A", ("192.0.2.3",))],
        [("DELETE", name, "A", ("192.0.2.3",))],
    ]


def test_a_deletion_repeats_what_was_listed_to_the_letter(zone: Zone, aws_double: AwsDouble, sent: Sent) -> None:
    native = {
        "Name": "odd.shop.example.",
        "Type": "MX",
        "TTL": 60,
        "ResourceRecords": [{"Value": "10  MX.Example.net"}],
    }
    aws_double.dns.put(zone_id(aws_double, zone.name), native)
    assert zone.get("odd", "MX").texts == ("10 MX.Example.net.",)

    zone.set("odd", "MX", "20 mx", ttl=60)

    assert sent.batches[-1][0] == ("DELETE", "odd.shop.example.", "MX", ("10  MX.Example.net",))


def test_a_change_that_was_made_elsewhere_is_sent_in_route_53s_spelling(zone: Zone, sent: Sent) -> None:
    zone.set("mail", "MX", ["10 MX.example.net.", "20 b.example.net."], ttl=60)
    same = zone.record("mail", "MX", ["20 B.example.net.", "10 mx.example.net."], ttl=60)

    zone.change([RecordChange(before=same, after=None)])

    assert not zone.exists("mail", "MX")
    assert [batch[0][3] for batch in sent.batches[1:]] == [
        ("20 B.example.net.", "10 mx.example.net."),
        ("10 MX.example.net.", "20 b.example.net."),
    ]


@pytest.mark.parametrize(
    ("name", "listed"),
    [
        ("*", r"\052"),
        (r"\@", r"\100"),
        (r"with\.dot", r"with\056dot"),
        (r"with\032space", r"with\040space"),
        (r"\200\201", r"\310\311"),
        ("0/25", r"0\05725"),
        ("x.*.w", r"x.\052.w"),
        ("_dmarc", "_dmarc"),
        (r"back\\slash", r"back\134slash"),
    ],
)
def test_names_are_octal_there_and_decimal_here(zone: Zone, aws_double: AwsDouble, name: str, listed: str) -> None:
    zone.set(name, "A", "192.0.2.1")

    assert (f"{listed}.shop.example.", "A", "") in held(aws_double, zone.name)
    assert zone.exists(name, "A")
    zone.delete(name, "A")
    assert len(held(aws_double, zone.name)) == 2


@pytest.mark.parametrize("name", ["0/25.2.0.192.in-addr.arpa", r"a\.b.example", "_tcp.example", r"\200.example"])
def test_a_zone_may_have_an_odd_name(provider: AwsProvider, aws_double: AwsDouble, name: str) -> None:
    service = Dns(provider.dns())
    zone = service.create(ZoneSpec(name=name))
    zone.set("www", "A", "192.0.2.1")

    assert [found.name for found in service.list()] == [name]
    assert zone.get("www", "A").texts == ("192.0.2.1",)
    zone.delete("www", "A")
    service.delete(name)
    assert list(service.list()) == []


@pytest.mark.parametrize(
    ("listed", "texts"),
    [
        (r'"gr\303\274n"', (r'"gr\195\188n"',)),
        (r'"a\\052"', (r'"a\\052"',)),
        (r'"say \"hello\""', (r'"say \"hello\""',)),
        ('"a""b"', ('"a" "b"',)),
    ],
)
def test_values_of_other_writers_are_understood(
    zone: Zone, aws_double: AwsDouble, listed: str, texts: tuple[str, ...]
) -> None:
    native = {"Name": "t.shop.example.", "Type": "TXT", "TTL": 60, "ResourceRecords": [{"Value": listed}]}
    aws_double.dns.put(zone_id(aws_double, zone.name), native)
    assert zone.get("t", "TXT").texts == texts


def test_a_value_that_nobody_can_read_is_listed_and_deleted(zone: Zone, aws_double: AwsDouble) -> None:
    native = {"Name": "t.shop.example.", "Type": "HTTPS", "TTL": 60, "ResourceRecords": [{"Value": "1 . new=x"}]}
    aws_double.dns.put(zone_id(aws_double, zone.name), native)

    found = zone.get("t", "HTTPS")
    assert (found.rdatas, found.policy) == (
        (),
        Policy(provider="aws", data='{"ResourceRecords":[{"Value":"1 . new=x"}]}'),
    )
    zone.change([RecordChange(before=found, after=None)])
    assert not zone.exists("t", "HTTPS")


ALIAS = '{"AliasTarget":{"DNSName":"%s","EvaluateTargetHealth":false,"HostedZoneId":"%s"}%s}'
COLLECTION = "cccccccc-0000-4000-8000-cccccccccccc"
FOREIGN = "d-1.execute-api.eu-central-1.amazonaws.com."
POLICIES = [
    ('{"Weight":0}', "192.0.2.1", "w0"),
    ('{"Region":"eu-central-1"}', "192.0.2.1", "r"),
    ('{"GeoLocation":{"ContinentCode":"EU"}}', "192.0.2.1", "g"),
    ('{"GeoLocation":{"CountryCode":"US","SubdivisionCode":"CA"}}', "192.0.2.1", "g2"),
    ('{"Failover":"PRIMARY"}', "192.0.2.1", "f"),
    ('{"MultiValueAnswer":true}', "192.0.2.1", "m"),
    (f'{{"CidrRoutingConfig":{{"CollectionId":"{COLLECTION}","LocationName":"*"}}}}', "192.0.2.1", "c"),
    ('{"GeoProximityLocation":{"AWSRegion":"eu-central-1","Bias":10}}', "192.0.2.1", "p"),
    (ALIAS % (FOREIGN, "Z1U9ULNL0V5AJ3", ""), None, None),
    (ALIAS % (FOREIGN, "Z1U9ULNL0V5AJ3", ',"Weight":10'), None, "aw"),
]


@pytest.mark.parametrize(("data", "value", "set_id"), POLICIES, ids=[data[2:12] + str(s) for data, _, s in POLICIES])
def test_routing_comes_back_byte_for_byte(
    zone: Zone, data: str, value: str | None, set_id: str | None, aws_double: AwsDouble
) -> None:
    record = routed(zone, "www", value, set_id, data)
    zone.change(created(record))

    found = zone.get("www", "A", set_id=set_id or "")
    assert found == record
    assert found.policy is not None
    assert (found.policy.data, found.policy.set_id) == (data, set_id)

    zone.change([RecordChange(before=found, after=None)])
    zone.change(created(found))
    assert zone.get("www", "A", set_id=set_id or "") == record


def test_a_health_check_stays_with_its_record_set(zone: Zone, provider: AwsProvider) -> None:
    config: Any = {"Type": "TCP", "IPAddress": "192.0.2.1", "Port": 80}
    check = provider.session.client("route53").create_health_check(CallerReference="x", HealthCheckConfig=config)
    data = f'{{"HealthCheckId":"{check["HealthCheck"]["Id"]}","Weight":1}}'

    zone.change(created(routed(zone, "www", "192.0.2.1", "a", data)))

    policy = zone.get("www", "A", set_id="a").policy
    assert policy is not None
    assert policy.data == data


def test_one_of_many_with_set_ids_is_changed_alone(zone: Zone) -> None:
    sets = [routed(zone, name, "192.0.2.1", "a", '{"Weight":1}') for name in ("one", "two")]
    sets += [routed(zone, "one", "192.0.2.2", "b", '{"Weight":2}')]
    zone.change(created(*sets))

    zone.delete("one", "A", set_id="a")

    assert {record.key for record in zone.records(type="A")} == {record.key for record in sets[1:]}


def test_an_alias_is_created_after_its_target_and_deleted_before_it(
    zone: Zone, aws_double: AwsDouble, sent: Sent
) -> None:
    own = zone_id(aws_double, zone.name)
    first = routed(zone, "a", None, None, ALIAS % ("b.shop.example.", own, ""))
    second = routed(zone, "b", None, None, ALIAS % ("c.shop.example.", own, ""))
    plain = zone.record("c", "A", "192.0.2.1")

    zone.change(created(first, second, plain))
    zone.change(RecordChange(before=record, after=None) for record in (plain, second, first))

    letters = [[name[0] for _, name, _, _ in batch] for batch in sent.batches]
    assert letters == [["c", "b", "a"], ["a", "b", "c"]]


def test_aliases_that_need_another_request_come_after_their_targets(zone: Zone, aws_double: AwsDouble) -> None:
    own = zone_id(aws_double, zone.name)
    alias = [routed(zone, f"a{n}", None, None, ALIAS % (f"z{n}.shop.example.", own, "")) for n in range(600)]
    plain = [zone.record(f"z{n}", "A", "192.0.2.1") for n in range(600)]

    zone.change(created(*alias, *plain))

    assert len(held(aws_double, zone.name)) == 1202


def test_a_plain_record_set_becomes_weighted_in_one_request(zone: Zone, sent: Sent) -> None:
    plain = zone.set("www", "A", "192.0.2.1")
    zone.change(
        [
            RecordChange(before=plain, after=None),
            *created(routed(zone, "www", "192.0.2.2", "b", '{"Weight":2}')),
        ]
    )
    assert [action for action, *_ in sent.batches[-1]] == ["DELETE", "CREATE"]
    assert [record.key.set_id for record in zone.records(type="A")] == ["b"]


@pytest.mark.parametrize(
    ("record", "why"),
    [
        (("www", "192.0.2.1", "a", "not json"), "no JSON"),
        (("www", "192.0.2.1", "a", '{"Weight": 1}'), "sorted names and no spaces"),
        (("www", "192.0.2.1", "a", '{"TrafficPolicyInstanceId":"x"}'), "TrafficPolicyInstanceId"),
        (("www", "192.0.2.1", "a", '{"Weight":1,"AliasTarget":{}}'), "sorted names"),
        (("www", "192.0.2.1", None, ALIAS % (FOREIGN, "Z1U9ULNL0V5AJ3", "")), "neither values nor a TTL"),
        (("www", None, "a", '{"Weight":1}'), "no value"),
    ],
)
def test_routing_that_cannot_be_written_is_refused(
    zone: Zone, record: tuple[str, str | None, str | None, str], why: str, sent: Sent
) -> None:
    assert why in str(zone.check_record(routed(zone, *record)))
    assert sent.batches == []


def test_a_zone_file_has_no_aliases_unless_they_are_left_out(zone: Zone) -> None:
    zone.change(created(routed(zone, "www", None, None, ALIAS % (FOREIGN, "Z1U9ULNL0V5AJ3", ""))))
    with pytest.raises(NotImplementedError, match=r"www\.shop\.example\. A"):
        zone.export_file()
    assert "www" not in zone.export_file(omit_policies=True)


def test_the_ns_and_soa_of_the_zone_are_replaced_by_upsert_after_a_read(
    zone: Zone, provider: AwsProvider, sent: Sent
) -> None:
    driver = provider.dns()
    stale = zone.get("@", "NS")
    zone.set("@", "NS", ["ns1.example.net.", "ns2.example.net."], apex=True)
    zone.set("@", "SOA", "ns1.example.net. admin.example.net. 7 7200 900 1209600 60", ttl=60, apex=True)

    with pytest.raises(Exception, match="no longer as it was") as caught:
        driver.change(zone.name, (RecordChange(before=stale, after=zone.record("@", "NS", "ns3.example.net.")),))
    fault = driver.classify(caught.value)
    assert fault is not None
    assert fault.error.__name__ == "PreconditionFailed"
    assert [action for batch in sent.batches for action, *_ in batch] == ["UPSERT", "UPSERT"]
    assert zone.get("@", "NS").texts == ("ns1.example.net.", "ns2.example.net.")


def test_a_delegation_is_replaced_under_its_condition(zone: Zone, sent: Sent) -> None:
    zone.set("child", "NS", "ns1.example.net.")
    zone.set("child", "NS", "ns2.example.net.")
    assert [action for action, *_ in sent.batches[-1]] == ["DELETE", "CREATE"]


def test_a_zone_with_a_delegation_is_not_empty(zone: Zone, provider: AwsProvider) -> None:
    zone.set("child", "NS", "ns1.example.net.")
    with pytest.raises(Exception, match="non-required"):
        Dns(provider.dns()).delete(zone.name)
    assert zone.exists("child", "NS")


def test_a_zone_tells_its_id_and_name_servers(zone: Zone, aws_double: AwsDouble) -> None:
    info = zone.info()
    assert (info.id, len(info.nameservers)) == (zone_id(aws_double, zone.name), 4)
    assert set(info.nameservers) == set(zone.get("@", "NS").texts)


def test_a_write_costs_a_read_a_change_a_poll_and_the_read_back(zone: Zone, aws_double: AwsDouble) -> None:
    zone.records(limit=1)
    zone.set("www", "A", "192.0.2.1")
    before = len(aws_double.calls)
    zone.set("www", "A", "192.0.2.2")

    assert [call.operation for call in aws_double.calls[before:]] == [
        "ListResourceRecordSets",
        "ChangeResourceRecordSets",
        "GetChange",
        "ListResourceRecordSets",
    ]


def test_the_driver_can_be_reached(zone: Zone) -> None:
    assert zone.unwrap(Route53Driver).client.meta.service_model.service_name == "route53"

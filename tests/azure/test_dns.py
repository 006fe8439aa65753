"""Azure DNS keeps the rules for DNS, at a double that keeps Azure's."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from typing import Any

import attrs
import dns.name
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rdtypes.ANY.TXT
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from shiftable.dns import Dns, Policy, RecordChange, RecordSet, Zone, ZoneSpec
from shiftable.errors import InvalidArgument
from shiftable.testing.conformance.dns import DnsConformance, Observed, dns_machine
from shiftable_azure import AzureProvider, AzureSettings
from shiftable_azure._arm import ArmSession
from shiftable_azure._features import SIGNED_DNS
from shiftable_azure.dns import AzureDnsDriver
from shiftable_azure.double import AzureDouble

FIELDS = {
    "A": ("ARecords", "{ipv4Address}"),
    "AAAA": ("AAAARecords", "{ipv6Address}"),
    "CAA": ("caaRecords", '{flags} {tag} "{value}"'),
    "CNAME": ("CNAMERecord", "{cname}"),
    "DS": ("DSRecords", "{keyTag} {algorithm} {digest[algorithmType]} {digest[value]}"),
    "MX": ("MXRecords", "{preference} {exchange}"),
    "NAPTR": ("NAPTRRecords", '{order} {preference} "{flags}" "{services}" "{regexp}" {replacement}'),
    "NS": ("NSRecords", "{nsdname}"),
    "PTR": ("PTRRecords", "{ptrdname}"),
    "SOA": ("SOARecord", "{host} {email} {serialNumber} {refreshTime} {retryTime} {expireTime} {minimumTTL}"),
    "SRV": ("SRVRecords", "{priority} {weight} {port} {target}"),
    "TLSA": ("TLSARecords", "{usage} {selector} {matchingType} {certificateAssociationData}"),
}


def parsed(kind: str, value: Any) -> Any:
    """Return what dnspython makes of a value in Azure's words."""
    number = dns.rdatatype.from_text(kind)
    if kind == "TXT":
        strings = tuple(part.encode() for part in value["value"])
        return dns.rdtypes.ANY.TXT.TXT(dns.rdataclass.IN, number, strings)
    escaped = {name: part.replace("\\", "\\\\") if isinstance(part, str) else part for name, part in value.items()}
    text = FIELDS[kind][1].format(**escaped)
    return dns.rdata.from_text(dns.rdataclass.IN, number, text, origin=dns.name.root, relativize=False)


def held(double: AzureDouble, zone: str) -> Observed:
    """Read a zone out of the double's state."""
    found: dict[tuple[str, str], tuple[int, frozenset[Any]]] = {}
    for (name, kind), stored in double.dns.zone(zone).sets.items():
        values = stored.properties["TXTRecords" if kind == "TXT" else FIELDS[kind][0]]
        owner = f"{zone}." if name == "@" else f"{name}.{zone}."
        rdatas = frozenset(parsed(kind, value) for value in (values if isinstance(values, list) else [values]))
        found[owner, kind] = (stored.properties["TTL"], rdatas)
    return found


class AzureDns(DnsConformance):
    @pytest.fixture
    def oracle(self, azure_double: AzureDouble) -> Callable[[str], Observed]:
        return lambda zone: held(azure_double, zone)


class TestAzureDns(AzureDns):
    @pytest.fixture
    def driver(self, dns_driver: AzureDnsDriver) -> AzureDnsDriver:
        return dns_driver


class TestSignedAzureDns(AzureDns):
    @pytest.fixture
    def driver(self, arm: ArmSession, azure_double: AzureDouble) -> AzureDnsDriver:
        azure_double.dns.signs = True
        return AzureDnsDriver(arm, SIGNED_DNS)


def test_the_driver_does_what_the_model_does(arm: ArmSession, azure_double: AzureDouble) -> None:
    def make_driver() -> AzureDnsDriver:
        azure_double.reset()
        return AzureDnsDriver(arm)

    quick = settings(
        max_examples=12,
        stateful_step_count=12,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(dns_machine(make_driver), settings=quick)


# what is Azure's own


@pytest.fixture
def zone(dns_driver: AzureDnsDriver) -> Zone:
    return Dns(dns_driver).create(ZoneSpec(name="shop.example"))


def stored(double: AzureDouble, name: str, kind: str) -> dict[str, Any]:
    return dict(double.dns.zone("shop.example").sets[name, kind].properties)


def operations(double: AzureDouble) -> list[str]:
    return [call.operation for call in double.calls]


ALIAS = {"targetResource": {"id": "/subscriptions/s/resourceGroups/g/providers/Microsoft.Network/publicIPAddresses/ip"}}


@pytest.mark.parametrize(
    ("kind", "target"),
    [
        ("A", ALIAS),
        ("AAAA", ALIAS),
        ("CNAME", ALIAS),
        ("CNAME", {"trafficManagementProfile": {"id": "/subscriptions/s/providers/x/trafficManagerProfiles/t"}}),
    ],
)
def test_an_alias_is_listed_with_its_target_and_written_back_as_it_was(
    azure_double: AzureDouble, zone: Zone, kind: str, target: dict[str, Any]
) -> None:
    azure_double.dns.put_raw("shop.example", "www", kind, **target)
    found = zone.get("www", kind)
    assert (found.rdatas, found.ttl) == ((), 3600)
    assert found.policy == Policy(provider="azure", data=json.dumps(target, separators=(",", ":")))
    before = stored(azure_double, "www", kind)
    zone.delete("www", kind)
    zone.change([RecordChange(before=None, after=found)])
    assert stored(azure_double, "www", kind) == before
    assert zone.get("www", kind) == found


def test_an_alias_becomes_a_plain_record_and_again_an_alias(azure_double: AzureDouble, zone: Zone) -> None:
    azure_double.dns.put_raw("shop.example", "www", "A", **ALIAS)
    alias = zone.get("www", "A")
    zone.set("www", "A", "192.0.2.1")
    assert stored(azure_double, "www", "A") == {"TTL": 3600, "ARecords": [{"ipv4Address": "192.0.2.1"}]}
    zone.change([RecordChange(before=zone.get("www", "A"), after=alias)])
    assert stored(azure_double, "www", "A") == {"TTL": 3600, **ALIAS}


@pytest.mark.parametrize(
    ("kind", "data", "why"),
    [
        ("A", "no json", "none of Azure DNS"),
        ("A", "[]", "none of Azure DNS"),
        ("A", "{}", "none of Azure DNS"),
        ("A", '{"TTL":5}', "none of Azure DNS"),
        ("MX", json.dumps(ALIAS), "aliases for A, AAAA, CNAME alone"),
    ],
)
def test_a_policy_that_azure_could_not_have_is_refused(zone: Zone, kind: str, data: str, why: str) -> None:
    record = RecordSet(
        name="www.shop.example.", type=kind, ttl=60, rdatas=(), policy=Policy(provider="azure", data=data)
    )
    assert why in str(zone.check_record(record))


def test_a_policy_with_values_is_refused(zone: Zone) -> None:
    policy = Policy(provider="azure", data=json.dumps(ALIAS))
    record = attrs.evolve(zone.record("www", "A", "192.0.2.1"), policy=policy)
    assert "no values of its own" in str(zone.check_record(record))


def test_metadata_stay_when_a_record_set_changes_and_go_along_to_another_zone(
    azure_double: AzureDouble, zone: Zone, dns_driver: AzureDnsDriver
) -> None:
    azure_double.dns.put_raw("shop.example", "www", "A", ARecords=[{"ipv4Address": "192.0.2.1"}], metadata={"of": "x"})
    zone.set("www", "A", "192.0.2.2", ttl=60)
    assert stored(azure_double, "www", "A")["metadata"] == {"of": "x"}
    zone.change(
        [RecordChange(before=zone.record("www", "A", "192.0.2.2", ttl=60), after=zone.record("www", "A", "192.0.2.3"))]
    )
    assert stored(azure_double, "www", "A")["metadata"] == {"of": "x"}
    other = Dns(dns_driver).create(ZoneSpec(name="shop2.example"))
    moved = attrs.evolve(zone.get("www", "A"), name="www.shop2.example.")
    other.change([RecordChange(before=None, after=moved)])
    assert azure_double.dns.zone("shop2.example").sets["www", "A"].properties["metadata"] == {"of": "x"}


def test_the_zones_ns_take_others_and_another_ttl(azure_double: AzureDouble, zone: Zone) -> None:
    own = zone.get("@", "NS")
    zone.set("@", "NS", [*own.texts, "ns.elsewhere.example."], ttl=60, apex=True)
    assert len(stored(azure_double, "@", "NS")["NSRecords"]) == 5
    with pytest.raises(InvalidArgument, match=r"Azure's own name servers stay; add others to ns1-01\.azure-dns\.com\."):
        zone.set("@", "NS", [*own.texts[1:], "ns.elsewhere.example."], apex=True)
    zone.set("@", "NS", own.texts, ttl=300, apex=True)
    assert stored(azure_double, "@", "NS")["TTL"] == 300


def test_the_soa_changes_but_for_its_host(azure_double: AzureDouble, zone: Zone) -> None:
    host, _, rest = zone.get("@", "SOA").texts[0].split(" ", 2)
    zone.set("@", "SOA", f"{host} admin.shop.example. {rest}", ttl=60, apex=True)
    assert stored(azure_double, "@", "SOA")["SOARecord"]["email"] == "admin.shop.example."
    with pytest.raises(InvalidArgument, match="SOA.*primary name server"):
        zone.set("@", "SOA", f"ns.shop.example. admin.shop.example. {rest}", apex=True)


@pytest.mark.parametrize(
    ("name", "kind", "values", "why"),
    [
        ("t", "TXT", ['"ü"'], "printable ASCII"),
        ("t", "TXT", ['"a" ""'], "empty strings"),
        ("t", "TXT", [f'"{number}"' for number in range(401)], "of TXT the limit is 400"),
        ("t", "TXT", [" ".join(['"' + "x" * 250 + '"'] * 16) + ' "' + "x" * 97 + '"'], "4,097 characters"),
        ("m", "MX", ["0 ."], "mail host"),
        ("m", "MX", [r"10 a\032b.example."], "in a value"),
        ("a", "A", [f"192.0.2.{number}" for number in range(21)], "21 values"),
        ("*", "NS", ["ns.example."], "no wildcards"),
        ("s", "SSHFP", ["1 1 123456789abcdef67890123456789abcdef67890"], "holds no SSHFP"),
        ("d", "DS", ["60485 5 2 " + "d4" * 32], "holds no DS"),
        (r"with\.dot", "A", ["192.0.2.1"], "cannot hold the name"),
    ],
)
def test_what_azure_could_not_keep_is_refused_before_it_is_sent(
    azure_double: AzureDouble, zone: Zone, name: str, kind: str, values: list[str], why: str
) -> None:
    assert why in str(zone.check_record(zone.record(name, kind, values)))
    with pytest.raises(InvalidArgument, match=kind):
        zone.set(name, kind, values)
    assert not any("CreateOrUpdate" in found for found in operations(azure_double)[1:])


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("TXT", [f'"{number}"' for number in range(400)]),
        ("TXT", [" ".join(['"' + "x" * 255 + '"'] * 16) + ' "' + "x" * 16 + '"']),
        ("TXT", [" ".join(['"x"'] * 4096)]),
        ("TXT", [r'"a\\b\"c;d"']),
        ("A", [f"192.0.2.{number}" for number in range(20)]),
        ("SRV", ["0 0 0 ."]),
        ("CNAME", ["_Under.Score.example."]),
    ],
)
def test_what_is_just_within_the_limits_is_kept(
    azure_double: AzureDouble, zone: Zone, kind: str, values: list[str]
) -> None:
    record = zone.set("edge", kind, values)
    assert zone.get("edge", kind).rdatas == record.rdatas
    field, _ = FIELDS.get(kind, ("TXTRecords", ""))
    assert stored(azure_double, "edge", kind)[field]


def test_zones_are_those_of_the_resource_group_that_are_public(
    azure_double: AzureDouble, zone: Zone, dns_driver: AzureDnsDriver
) -> None:
    azure_double.arm.groups["other"] = "other"
    azure_double.dns._made("elsewhere.example", "other")
    azure_double.dns._made("private.example", str(azure_double.config["resource_group"])).zone_type = "Private"
    assert [found.name for found in Dns(dns_driver).list()] == ["shop.example"]


@pytest.mark.parametrize("name", ["example", "a b.example", "0/25.2.0.192.in-addr.arpa", ".".join(["x"] * 35)])
def test_a_zone_that_azure_could_not_hold_is_refused(dns_driver: AzureDnsDriver, name: str) -> None:
    with pytest.raises(InvalidArgument):
        Dns(dns_driver).create(ZoneSpec(name=name))


def test_a_zone_tells_its_id_and_name_servers(zone: Zone) -> None:
    info = zone.info()
    assert str(info.id).endswith("/providers/Microsoft.Network/dnszones/shop.example")
    assert info.nameservers == tuple(zone.get("@", "NS").texts)


# what is in a zone that nobody of us wrote


@pytest.mark.parametrize(
    ("kind", "properties"),
    [
        ("A", {"ARecords": []}),
        ("A", {"ARecords": [{"ipv4Address": "none"}]}),
        ("A", {}),
        ("TXT", {"TXTRecords": [{"value": ["ü"]}]}),
        ("TXT", {"TXTRecords": [{"value": ["x" * 300]}]}),
        ("MX", {"MXRecords": [{"preference": None, "exchange": "a"}]}),
        ("CAA", {"caaRecords": [{"flags": 300, "tag": "issue", "value": "x"}]}),
        ("CNAME", {"CNAMERecord": {"cname": ""}}),
        ("SVCB", {"SVCBRecords": [{"x": 1}]}),
    ],
)
def test_what_cannot_be_read_is_listed_as_azure_has_it(
    azure_double: AzureDouble, zone: Zone, kind: str, properties: dict[str, Any]
) -> None:
    azure_double.violations.clear()
    azure_double.dns.put_raw("shop.example", "odd", kind, **properties)
    (found,) = [record for record in zone.records() if record.name == "odd.shop.example."]
    assert (found.type, found.rdatas) == (kind, ())
    assert found.policy is not None
    assert json.loads(found.policy.data) == (properties or {"ARecords": []})
    zone.set("www", "A", "192.0.2.1")
    if kind != "SVCB":
        zone.delete("odd", kind)
    azure_double.violations.clear()  # definitions have no such answers


def test_an_empty_record_set_is_written_back_as_one(azure_double: AzureDouble, zone: Zone) -> None:
    azure_double.dns.put_raw("shop.example", "later", "A", ARecords=[])
    found = zone.get("later", "A")
    zone.change([RecordChange(before=found, after=attrs.evolve(found, ttl=60))])
    assert stored(azure_double, "later", "A") == {"TTL": 60, "ARecords": []}


@pytest.mark.parametrize(
    ("name", "owner"), [("a b", r"a\032b"), ("ü", r"\195\188"), ("a..b", r"a\.\.b"), ("WWW", "www")]
)
def test_a_name_that_azure_should_not_have_does_not_break_a_listing(
    azure_double: AzureDouble, zone: Zone, name: str, owner: str
) -> None:
    azure_double.dns.put_raw("shop.example", name, "A", ARecords=[{"ipv4Address": "192.0.2.1"}])
    found = [record.name for record in zone.records(type="A")]
    assert found == [f"{owner}.shop.example."]


# how often it asks


def test_a_small_zone_is_read_in_one_call_and_a_large_one_by_type(
    azure_double: AzureDouble, zone: Zone, dns_driver: AzureDnsDriver
) -> None:
    zone.set("www", "A", "192.0.2.1")
    assert operations(azure_double)[1:] == ["RecordSets_List", "RecordSets_CreateOrUpdate", "RecordSets_List"]
    for number in range(100):
        azure_double.dns.put_raw("shop.example", f"r{number}", "A", ARecords=[])
    before = len(azure_double.calls)
    assert zone.get("www", "A").texts == ("192.0.2.1",)
    assert zone.get("r7", "A").policy is not None
    assert Counter(operations(azure_double)[before:]) == {"RecordSets_List": 1, "RecordSets_Get": 2 * 13}
    for name in (r"with\.dot", "x.*.w", "0/25"):
        assert not zone.exists(name, "A")


def test_listings_that_azure_would_refuse_become_calls_by_type(azure_double: AzureDouble, zone: Zone) -> None:
    for _ in range(70):
        zone.exists("www", "A")
    asked = Counter(operations(azure_double)[1:])
    assert asked == {"RecordSets_List": 60, "RecordSets_Get": 10 * 13}


def test_writes_keep_azures_pace_and_none_is_refused(azure_double: AzureDouble, zone: Zone) -> None:
    before = azure_double.clock.now()
    records = [zone.record(f"r{number}", "A", "192.0.2.1") for number in range(450)]
    zone.change(RecordChange(before=None, after=record) for record in records)
    took = (azure_double.clock.now() - before).total_seconds()
    assert 429 not in {call.status for call in azure_double.calls}
    assert 120 <= took
    assert len(azure_double.dns.zone("shop.example").sets) == 452


def test_drivers_of_one_session_share_the_pace(azure_double: AzureDouble, zone: Zone, arm: ArmSession) -> None:
    for _ in range(200):
        AzureDnsDriver(arm)._pace("shop.example", "create").take()
    before = azure_double.clock.now()
    zone.set("www", "A", "192.0.2.1")
    assert (azure_double.clock.now() - before).total_seconds() >= 60


def test_another_process_that_uses_up_the_limit_is_waited_for(
    azure_double: AzureDouble, zone: Zone, make_arm: Callable[..., ArmSession]
) -> None:
    other = Dns(AzureDnsDriver(make_arm())).zone("shop.example")
    for target, first in ((other, 0), (zone, 150)):
        records = [target.record(f"r{first + number}", "A", "192.0.2.1") for number in range(150)]
        target.change(RecordChange(before=None, after=record) for record in records)
    assert 429 in {call.status for call in azure_double.calls}
    assert len(azure_double.dns.zone("shop.example").sets) == 302


def test_one_write_is_one_call(azure_double: AzureDouble, zone: Zone, dns_driver: AzureDnsDriver) -> None:
    found = zone.set("www", "A", "192.0.2.1")
    (held_now,) = dns_driver.records("shop.example", name="www.shop.example.", cursor=None, limit=None).items
    before = len(azure_double.calls)
    dns_driver.change("shop.example", (RecordChange(before=held_now, after=None),))
    dns_driver.change("shop.example", (RecordChange(before=None, after=found),))
    assert operations(azure_double)[before:] == ["RecordSets_Delete", "RecordSets_CreateOrUpdate"]


def test_the_provider_makes_the_driver_that_the_settings_say(
    provider: AzureProvider, azure_double: AzureDouble
) -> None:
    assert provider.dns().features.title == "Azure DNS"
    signed = AzureProvider(AzureSettings(**azure_double.config, dns_signed=True))
    assert signed.dns().features.types == (provider.dns().features.types or frozenset()) | {"DS", "TLSA"}
    assert Dns(provider.dns()).create(ZoneSpec(name="shop.example")).info().name == "shop.example"
    signed.close()

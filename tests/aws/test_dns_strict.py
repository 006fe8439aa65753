"""The double keeps Route 53's rules where moto does not; asked with plain boto3, without anything of ours."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from shiftable_aws.double import AwsDouble

Client = Any
Change = dict[str, Any]


@pytest.fixture
def client(aws_double: AwsDouble, monkeypatch: pytest.MonkeyPatch) -> Client:
    for name, value in aws_double.environ.items():
        monkeypatch.setenv(name, value)
    session: Any = boto3.Session()
    once = Config(retries={"total_max_attempts": 1}, parameter_validation=False)
    return session.client("route53", config=once)


@pytest.fixture
def zone(client: Client) -> str:
    return made(client, "conf.test", "1")


@pytest.fixture
def change(client: Client, zone: str) -> Callable[..., str]:
    """Return what sends a batch and returns Route 53's message; empty if it was accepted."""

    def send(*changes: Change) -> str:
        try:
            client.change_resource_record_sets(HostedZoneId=zone, ChangeBatch={"Changes": list(changes)})
        except ClientError as exc:
            error = exc.response["Error"]
            return f"{error['Code']}: {error['Message']}"
        return ""

    return send


def made(client: Client, name: str, reference: str, **more: Any) -> str:
    answer = client.create_hosted_zone(Name=name, CallerReference=reference, **more)
    return str(answer["HostedZone"]["Id"]).removeprefix("/hostedzone/")


def of(action: str, name: str, kind: str, *values: str, ttl: int = 60, **more: Any) -> Change:
    record = {"Name": name, "Type": kind, "TTL": ttl, "ResourceRecords": [{"Value": value} for value in values]}
    return {"Action": action, "ResourceRecordSet": record | more}


def alias(action: str, name: str, kind: str, target: str, zone: str, **more: Any) -> Change:
    aliased = {"HostedZoneId": zone, "DNSName": target, "EvaluateTargetHealth": False}
    return {"Action": action, "ResourceRecordSet": {"Name": name, "Type": kind, "AliasTarget": aliased} | more}


def held(client: Client, zone: str) -> dict[tuple[str, str, str], Any]:
    pages = client.get_paginator("list_resource_record_sets").paginate(HostedZoneId=zone)
    records = [record for page in pages for record in page["ResourceRecordSets"]]
    return {(r["Name"], r["Type"], r.get("SetIdentifier", "")): r for r in records if r["Type"] not in {"NS", "SOA"}}


def refused(act: Callable[..., object], **arguments: Any) -> tuple[str, int]:
    with pytest.raises(ClientError) as caught:
        act(**arguments)
    return caught.value.response["Error"]["Code"], caught.value.response["ResponseMetadata"]["HTTPStatusCode"]


# values


@pytest.mark.parametrize(
    ("kind", "value", "why"),
    [
        ("A", "192.0.2.256", "ARRDATAIllegalIPv4Address"),
        ("A", "192.0.2", "ARRDATAIllegalIPv4Address"),
        ("A", "192.0.2.01", "ARRDATAIllegalIPv4Address"),
        ("A", "2001:db8::1", "ARRDATAIllegalIPv4Address"),
        ("AAAA", "2001:db8::g", "AAAARRDATAIllegalIPv6Address"),
        ("TXT", "unquoted", "InvalidCharacterString"),
        ("SPF", "v=spf1 -all", "InvalidCharacterString"),
        ("TXT", '"open', "InvalidCharacterString"),
        ("TXT", f'"{"x" * 256}"', "CharacterStringTooLong"),
        ("TXT", '"grüße"', "UnsupportedCharacter"),
        ("TXT", r'"\400"', "NotValid|InvalidCharacterString"),
        ("MX", "mail.example.", "MXRRDATANotValid"),
        ("MX", "ten mail.example.", "MXRRDATANotValid"),
        ("SRV", "1 2 host.example.", "SRVRRDATANotValid"),
        ("CAA", "0 issue", "CAARRDATANotValid"),
        ("NAPTR", "1 2 u", "NAPTRRRDATANotValid"),
        ("DS", "1 8 2 zz", "DSRRDATANotValid"),
        ("TLSA", "3 1 1 xyz", "TLSARRDATANotValid"),
        ("SSHFP", "1 1 xyz", "SSHFPRRDATANotValid"),
        ("HTTPS", "1 . alpn", "HTTPSRRDATANotValid"),
        ("CNAME", "a..b", "CNAMERRDATANotValid"),
    ],
)
def test_a_value_that_is_none_is_refused(change: Callable[..., str], kind: str, value: str, why: str) -> None:
    found = change(of("CREATE", "x.conf.test", kind, value))
    assert found.startswith("InvalidChangeBatch: [Invalid Resource Record: 'FATAL problem: ")
    assert any(part in found for part in why.split("|"))
    assert f"encountered with '{value}'" in found


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("A", "192.0.2.1"),
        ("AAAA", "2001:0DB8:85a3:0:0:8a2e:0370:7334"),
        ("TXT", r'"a\042b" "c\134d" "\303\274" "say \"hi\""'),
        ("MX", "10 Mail.Example"),
        ("SRV", "1 10 5269 xmpp.example."),
        ("CAA", '0 issue "ca.example"'),
        ("NAPTR", '100 50 "u" "E2U+sip" "!^.*$!sip:a@example.com!" .'),
        ("HTTPS", '1 . alpn="h2,h3" port=8443'),
        ("SVCB", "0 pool.example."),
        ("TLSA", f"3 1 1 {'ab' * 32}"),
        ("SSHFP", f"4 2 {'ab' * 32}"),
        ("DS", f"60485 5 2 {'d4' * 32}"),
        ("SPF", '"v=spf1 -all"'),
        ("PTR", "host.example."),
    ],
)
def test_a_value_is_kept_as_it_came(
    client: Client, zone: str, change: Callable[..., str], kind: str, value: str
) -> None:
    assert change(of("CREATE", "x.conf.test", kind, value)) == ""
    assert held(client, zone)["x.conf.test.", kind, ""]["ResourceRecords"] == [{"Value": value}]


def test_a_value_stands_once_and_one_alone_in_a_cname(change: Callable[..., str]) -> None:
    assert "Duplicate Resource Record: '192.0.2.1'" in change(
        of("CREATE", "x.conf.test", "A", "192.0.2.1", "192.0.2.1")
    )
    assert "only one value" in change(of("CREATE", "x.conf.test", "CNAME", "a.example.", "b.example."))


@pytest.mark.parametrize("kind", ["LOC", "DNAME", "URI", "TYPE65400", "a"])
def test_only_the_models_types_exist(change: Callable[..., str], kind: str) -> None:
    assert change(of("CREATE", "x.conf.test", kind, "x")).startswith("InvalidInput: Invalid XML")


@pytest.mark.parametrize(
    "wrong",
    [
        of("REPLACE", "x.conf.test", "A", "192.0.2.1"),
        of("CREATE", "x.conf.test", "A", "192.0.2.1", ttl=-1),
        of("CREATE", "x.conf.test", "A", "192.0.2.1", ttl=2**31),
        of("CREATE", "x.conf.test", "TXT", f'"{"x" * 3999}"'),
        of("CREATE", "x.conf.test", "A", "192.0.2.1", SetIdentifier="a", Weight=256),
        of("CREATE", "x.conf.test", "A", "192.0.2.1", SetIdentifier="a" * 129, Weight=1),
        of("CREATE", "x.conf.test", "A", "192.0.2.1", SetIdentifier="a", Region="eu-nowhere-1"),
        of("CREATE", "x.conf.test", "A", "192.0.2.1", SetIdentifier="a", Failover="THIRD"),
        of("CREATE", "x.conf.test", "A"),
    ],
    ids=["action", "ttl-1", "ttl+", "long", "weight", "id", "region", "failover", "none"],
)
def test_what_the_model_forbids_is_refused(change: Callable[..., str], wrong: Change) -> None:
    assert change(wrong).startswith("InvalidInput: Invalid XML")


# names


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ("WwW.Conf.Test", "www.conf.test."),
        ("*.conf.test.", r"\052.conf.test."),
        (r"\052.conf.test.", r"\052.conf.test."),
        ("@.conf.test", r"\100.conf.test."),
        (r"with\056dot.conf.test", r"with\056dot.conf.test."),
        (r"f\374\040.conf.test", r"f\374\040.conf.test."),
        (r"\127.conf.test", "w.conf.test."),
        ("0/25.conf.test", r"0\05725.conf.test."),
        ("_x-y.conf.test", "_x-y.conf.test."),
    ],
)
def test_names_are_kept_in_lower_case_with_octal_escapes(
    client: Client, zone: str, change: Callable[..., str], written: str, kept: str
) -> None:
    assert change(of("CREATE", written, "A", "192.0.2.1")) == ""
    assert [name for name, _, _ in held(client, zone)] == [kept]
    assert "already exists" in change(of("CREATE", kept, "A", "192.0.2.1"))


@pytest.mark.parametrize("name", ["a b.conf.test", "ü.conf.test", "a..conf.test", f"{'x' * 64}.conf.test"])
def test_a_name_that_is_none_is_refused(change: Callable[..., str], name: str) -> None:
    assert change(of("CREATE", name, "A", "192.0.2.1")).startswith("InvalidChangeBatch")


@pytest.mark.parametrize(
    "name", ["evilconf.test", "www.evilconf.test", "conf.test.example", r"evil\056conf.test", "test"]
)
def test_membership_goes_by_labels(change: Callable[..., str], name: str) -> None:
    assert "is not permitted in zone conf.test." in change(of("CREATE", name, "A", "192.0.2.1"))


# what is there already


def test_a_cname_stands_alone_and_never_at_the_apex(change: Callable[..., str]) -> None:
    assert "at apex" in change(of("CREATE", "conf.test", "CNAME", "a.example."))
    assert change(of("CREATE", "www.conf.test", "A", "192.0.2.1"), of("CREATE", "c.conf.test", "CNAME", "a.")) == ""
    assert "conflicts with other records" in change(of("CREATE", "www.conf.test", "CNAME", "a.example."))
    assert "conflicting RRSet of type CNAME" in change(of("UPSERT", "c.conf.test", "TXT", '"x"'))


def test_create_is_refused_over_what_exists(client: Client, zone: str, change: Callable[..., str]) -> None:
    assert change(of("CREATE", "www.conf.test", "A", "192.0.2.1")) == ""
    assert change(of("CREATE", "www.conf.test", "A", "192.0.2.2")) == (
        "InvalidChangeBatch: [Tried to create resource record set [name='www.conf.test.', type='A'] "
        "but it already exists]"
    )
    assert [r["ResourceRecords"] for r in held(client, zone).values()] == [[{"Value": "192.0.2.1"}]]


@pytest.mark.parametrize(
    "wrong",
    [
        of("DELETE", "www.conf.test", "A", "192.0.2.1", "192.0.2.2", ttl=61),
        of("DELETE", "www.conf.test", "A", "192.0.2.1"),
        of("DELETE", "www.conf.test", "A", "192.0.2.1", "192.0.2.3"),
        of("DELETE", "www.conf.test", "A", "192.0.2.1", "192.0.2.2", "192.0.2.3"),
    ],
    ids=["ttl", "fewer", "other", "more"],
)
def test_a_deletion_repeats_ttl_and_values(
    client: Client, zone: str, change: Callable[..., str], wrong: Change
) -> None:
    change(of("CREATE", "www.conf.test", "A", "192.0.2.1", "192.0.2.2"))
    assert "the values provided do not match the current values" in change(wrong)
    assert len(held(client, zone)) == 1
    assert change(of("DELETE", "www.conf.test", "A", "192.0.2.2", "192.0.2.1")) == ""
    assert "but it was not found" in change(of("DELETE", "www.conf.test", "A", "192.0.2.2", "192.0.2.1"))


def test_a_set_identifier_is_deleted_of_its_name_only(client: Client, zone: str, change: Callable[..., str]) -> None:
    for name in ("one.conf.test", "two.conf.test"):
        change(of("CREATE", name, "A", "192.0.2.1", SetIdentifier="blue", Weight=1))

    assert change(of("DELETE", "one.conf.test", "A", "192.0.2.1", SetIdentifier="blue", Weight=1)) == ""
    assert list(held(client, zone)) == [("two.conf.test.", "A", "blue")]


def test_a_batch_happens_whole_or_not_at_all(client: Client, zone: str, change: Callable[..., str]) -> None:
    change(of("CREATE", "old.conf.test", "A", "192.0.2.1"))
    good = [of("CREATE", f"n{n}.conf.test", "A", "192.0.2.1") for n in range(5)]
    before = held(client, zone)

    for bad in (
        of("CREATE", "x.example.org", "A", "192.0.2.1"),
        of("CREATE", "old.conf.test", "A", "192.0.2.1"),
        of("DELETE", "missing.conf.test", "A", "192.0.2.1"),
        of("CREATE", "x.conf.test", "A", "192.0.2.256"),
    ):
        assert change(*good, bad).startswith("InvalidChangeBatch")
        assert held(client, zone) == before


def test_all_that_is_wrong_is_told_at_once(change: Callable[..., str]) -> None:
    found = change(
        of("DELETE", "a.conf.test", "A", "192.0.2.1"),
        of("CREATE", "b.example.org", "A", "192.0.2.1"),
    )
    assert "name='a.conf.test.'" in found
    assert "b.example.org. is not permitted" in found


def test_deletions_come_before_what_takes_their_place(change: Callable[..., str]) -> None:
    change(of("CREATE", "www.conf.test", "A", "192.0.2.1"))
    old, new = of("DELETE", "www.conf.test", "A", "192.0.2.1"), of("CREATE", "www.conf.test", "CNAME", "a.example.")
    assert "conflicts" in change(new, old)
    assert change(old, new) == ""


def test_a_record_set_is_changed_once_in_a_batch(change: Callable[..., str]) -> None:
    one, two = of("UPSERT", "www.conf.test", "A", "192.0.2.1"), of("CREATE", "www.conf.test", "A", "192.0.2.1")
    for pair in ((one, one), (one, two), (two, two)):
        assert "an invalid set of changes for a resource record set 'A www.conf.test.'" in change(*pair)


@pytest.mark.parametrize("kind", ["NS", "SOA"])
def test_a_zone_is_not_without_its_ns_and_soa(client: Client, zone: str, change: Callable[..., str], kind: str) -> None:
    records = client.list_resource_record_sets(HostedZoneId=zone)["ResourceRecordSets"]
    (own,) = [record for record in records if record["Type"] == kind]
    assert "A HostedZone must contain" in change({"Action": "DELETE", "ResourceRecordSet": own})
    assert change({"Action": "UPSERT", "ResourceRecordSet": own | {"TTL": 60}}) == ""


def test_protected_record_sets_are_not_changed(
    aws_double: AwsDouble, client: Client, zone: str, change: Callable[..., str]
) -> None:
    aws_double.dns.protected.add(("www.conf.test.", "A"))
    assert "protected" in change(
        of("CREATE", "x.conf.test", "A", "192.0.2.1"), of("CREATE", "www.conf.test", "A", "192.0.2.1")
    )
    assert held(client, zone) == {}


# routing


def test_an_alias_needs_its_target_first(zone: str, change: Callable[..., str]) -> None:
    made_alias = alias("CREATE", "a.conf.test", "A", "b.conf.test", zone)
    target = of("CREATE", "b.conf.test", "A", "192.0.2.1")
    assert "that target was not found" in change(made_alias)
    assert "that target was not found" in change(made_alias, target)
    assert change(target, made_alias) == ""
    assert change(alias("CREATE", "c.conf.test", "A", "x.cloudfront.net", "Z2FDTNDATAQYW2")) == ""


@pytest.mark.parametrize(
    "record",
    [
        of("CREATE", "www.conf.test", "A", "192.0.2.1", Weight=1),
        of("CREATE", "www.conf.test", "A", "192.0.2.1", SetIdentifier="a"),
        of("CREATE", "www.conf.test", "A", "192.0.2.1", SetIdentifier="a", Weight=1, Region="eu-west-1"),
        alias("CREATE", "www.conf.test", "A", "x.example.", "Z1", TTL=60),
        alias("CREATE", "www.conf.test", "A", "x.example.", "Z1", SetIdentifier="a", MultiValueAnswer=True),
        {"Action": "CREATE", "ResourceRecordSet": {"Name": "www.conf.test", "Type": "A", "TTL": 60}},
    ],
    ids=["no-id", "no-policy", "two-policies", "alias-ttl", "alias-multi", "no-values"],
)
def test_a_record_set_has_one_of_the_forms_that_exist(change: Callable[..., str], record: Change) -> None:
    assert change(record).startswith("InvalidInput: Invalid request")


def test_forms_are_not_mixed_under_one_name_and_type(change: Callable[..., str]) -> None:
    change(of("CREATE", "www.conf.test", "A", "192.0.2.1", SetIdentifier="a", Weight=1))
    for other in ({"SetIdentifier": "b", "Region": "eu-west-1"}, {}):
        assert "with the same name and type" in change(of("CREATE", "www.conf.test", "A", "192.0.2.2", **other))
    other_ttl = of("CREATE", "www.conf.test", "A", "192.0.2.2", ttl=300, SetIdentifier="b", Weight=1)
    assert "must have one TTL" in change(other_ttl)


def test_a_health_check_must_exist(change: Callable[..., str]) -> None:
    record = of("CREATE", "www.conf.test", "A", "192.0.2.1", SetIdentifier="a", Weight=1, HealthCheckId="none")
    assert change(record).startswith("NoSuchHealthCheck")


def test_a_wildcard_is_not_delegated(change: Callable[..., str]) -> None:
    assert "no wildcard can be delegated" in change(of("CREATE", "*.conf.test", "NS", "ns.example."))


def test_routing_by_cidr_comes_back(client: Client, zone: str, change: Callable[..., str]) -> None:
    cidr = {"CollectionId": "c" * 8 + "-0000-4000-8000-" + "c" * 12, "LocationName": "*"}
    change(of("CREATE", "www.conf.test", "A", "192.0.2.1", SetIdentifier="a", CidrRoutingConfig=cidr))
    assert held(client, zone)["www.conf.test.", "A", "a"]["CidrRoutingConfig"] == cidr


# limits


def addresses(count: int) -> Iterable[str]:
    return (f"10.{number // 65536}.{number // 256 % 256}.{number % 256}" for number in range(count))


def test_400_values_are_the_most(change: Callable[..., str]) -> None:
    assert "limit of 400" in change(of("CREATE", "x.conf.test", "A", *addresses(401)))
    assert change(of("CREATE", "x.conf.test", "A", *addresses(400))) == ""


@pytest.mark.parametrize(("action", "count"), [("CREATE", 1000), ("UPSERT", 500)])
def test_1000_elements_are_the_most_and_upsert_counts_twice(
    change: Callable[..., str], action: str, count: int
) -> None:
    records = [of(action, f"n{number}.conf.test", "A", "192.0.2.1") for number in range(count + 1)]
    assert "Number of records limit of 1000 exceeded" in change(*records)
    assert change(*records[:-1]) == ""


@pytest.mark.parametrize(("action", "count"), [("CREATE", 160), ("UPSERT", 80)])
def test_32000_characters_are_the_most_and_upsert_counts_twice(
    change: Callable[..., str], action: str, count: int
) -> None:
    records = [of(action, f"n{number}.conf.test", "TXT", f'"{"x" * 198}"') for number in range(count)]
    assert "Number of characters limit of 32000 exceeded" in change(*records, of(action, "y.conf.test", "TXT", '""'))
    assert change(*records) == ""


def test_a_zone_holds_10000_record_sets(change: Callable[..., str]) -> None:
    names = [of("CREATE", f"n{number}.conf.test", "A", "192.0.2.1") for number in range(9998)]
    for start in range(0, len(names), 1000):
        assert change(*names[start : start + 1000]) == ""
    assert "limit of 10000" in change(of("CREATE", "one-more.conf.test", "A", "192.0.2.1"))


# listing


def test_pages_have_at_most_300_and_go_on_where_they_ended(
    client: Client, zone: str, change: Callable[..., str]
) -> None:
    names = [f"n{number}.conf.test" for number in range(400)]
    change(*(of("CREATE", name, "A", "192.0.2.1", SetIdentifier="a", Weight=1) for name in names))

    first = client.list_resource_record_sets(HostedZoneId=zone, MaxItems="1000")
    assert (len(first["ResourceRecordSets"]), first["IsTruncated"], first["MaxItems"]) == (300, True, "300")
    start = {f"Start{name.removeprefix('Next')}": first[name] for name in first if name.startswith("NextRecord")}
    assert start["StartRecordIdentifier"] == "a"
    second = client.list_resource_record_sets(HostedZoneId=zone, **start)
    assert second["IsTruncated"] is False
    found = [r["Name"] for page in (first, second) for r in page["ResourceRecordSets"] if r["Type"] == "A"]
    assert sorted(found) == sorted(f"{name}." for name in names)


def test_listings_are_sorted_by_reversed_labels(client: Client, zone: str, change: Callable[..., str]) -> None:
    change(*(of("CREATE", name, "A", "192.0.2.1") for name in ("b.conf.test", "a.z.conf.test", "*.conf.test")))
    found = [r["Name"] for r in client.list_resource_record_sets(HostedZoneId=zone)["ResourceRecordSets"]]
    assert found == ["conf.test.", "conf.test.", "\\052.conf.test.", "b.conf.test.", "a.z.conf.test."]


def test_a_type_or_identifier_alone_is_no_start(client: Client, zone: str) -> None:
    assert refused(client.list_resource_record_sets, HostedZoneId=zone, StartRecordType="A") == ("InvalidInput", 400)


# zones


def test_a_name_may_be_taken_twice_and_a_reference_once(client: Client, zone: str) -> None:
    assert made(client, "conf.test", "2") != zone
    again = refused(client.create_hosted_zone, Name="other.test", CallerReference="1")
    assert again == ("HostedZoneAlreadyExists", 409)
    client.delete_hosted_zone(Id=zone)
    again = refused(client.create_hosted_zone, Name="conf.test", CallerReference="1")
    assert again == ("HostedZoneAlreadyExists", 409)


def test_zones_are_listed_by_name_and_by_id_in_pages(client: Client, zone: str) -> None:
    ids = {made(client, f"z{number}.test", f"r{number}") for number in range(130)} | {zone}
    first = client.list_hosted_zones(MaxItems="500")
    assert (len(first["HostedZones"]), first["MaxItems"], first["IsTruncated"]) == (100, "100", True)
    rest = client.list_hosted_zones(Marker=first["NextMarker"])["HostedZones"]
    assert {entry["Id"].removeprefix("/hostedzone/") for entry in first["HostedZones"] + rest} == ids
    by_name = client.list_hosted_zones_by_name(DNSName="Z5.test", MaxItems="2")
    assert [entry["Name"] for entry in by_name["HostedZones"]] == ["z5.test.", "z50.test."]
    assert by_name["NextDNSName"] == "z51.test."


def test_a_zone_is_deleted_only_with_nothing_but_its_own(client: Client, zone: str, change: Callable[..., str]) -> None:
    change(of("CREATE", "child.conf.test", "NS", "ns.example."))
    assert refused(client.delete_hosted_zone, Id=zone) == ("HostedZoneNotEmpty", 400)
    change(of("DELETE", "child.conf.test", "NS", "ns.example."))
    client.delete_hosted_zone(Id=zone)
    assert refused(client.get_hosted_zone, Id=zone) == ("NoSuchHostedZone", 404)
    assert refused(client.list_resource_record_sets, HostedZoneId=zone) == ("NoSuchHostedZone", 404)


def test_a_private_zone_has_a_vpc_and_no_delegation_set(client: Client) -> None:
    config = {"PrivateZone": True}
    assert refused(client.create_hosted_zone, Name="p.test", CallerReference="p", HostedZoneConfig=config) == (
        *("InvalidInput", 400),
    )
    vpc = {"VPCId": "vpc-1", "VPCRegion": "eu-central-1"}
    zone = made(client, "p.test", "p", HostedZoneConfig=config, VPC=vpc)
    found = client.get_hosted_zone(Id=zone)
    assert ("DelegationSet" in found, found["VPCs"]) == (False, [vpc])


@pytest.mark.parametrize("name", ["com", "a..test", "ü.test"])
def test_a_zone_name_that_is_none_is_refused(client: Client, name: str) -> None:
    assert refused(client.create_hosted_zone, Name=name, CallerReference="x") == ("InvalidDomainName", 400)


def test_moto_sees_the_same_zone(aws_double: AwsDouble, client: Client, zone: str, change: Callable[..., str]) -> None:
    change(of("CREATE", "www.conf.test", "A", "192.0.2.1"))
    (seen,) = aws_double.backend("route53", "aws").zones.values()
    assert [(record.name, record.type) for record in seen.rrsets][2:] == [("www.conf.test.", "A")]
    assert client.get_hosted_zone(Id=zone)["HostedZone"]["ResourceRecordSetCount"] == 3
    assert client.get_hosted_zone_count()["HostedZoneCount"] == 1


# changes on their way


def test_a_change_is_pending_for_some_polls(aws_double: AwsDouble, client: Client, zone: str) -> None:
    aws_double.dns.polls = 2
    batch = {"Changes": [of("CREATE", "www.conf.test", "A", "192.0.2.1")]}
    info = client.change_resource_record_sets(HostedZoneId=zone, ChangeBatch=batch)["ChangeInfo"]
    assert info["Status"] == "PENDING"
    assert [client.get_change(Id=info["Id"])["ChangeInfo"]["Status"] for _ in range(3)] == [
        *("PENDING", "PENDING", "INSYNC"),
    ]
    assert refused(client.get_change, Id="C0") == ("NoSuchChange", 404)


def test_a_body_that_is_no_xml_is_refused(aws_double: AwsDouble, client: Client, zone: str) -> None:
    def broken(request: Any, **_: Any) -> None:
        request.data = b"<ChangeResourceRecordSetsRequest><Chan"

    client.meta.events.register("before-sign.route53.ChangeResourceRecordSets", broken)
    found = refused(client.change_resource_record_sets, HostedZoneId=zone, ChangeBatch={"Changes": []})
    assert found == ("InvalidInput", 400)

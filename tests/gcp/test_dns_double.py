"""The double's Cloud DNS refuses what the service refuses, and what Google's description does not allow."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files
from typing import Any

import httplib2
import pytest
import requests
from googleapiclient.discovery import build_from_document
from googleapiclient.errors import HttpError

from shiftable.dns import Dns, ZoneSpec
from shiftable.testing.harness import Response
from shiftable_gcp import GcpProvider
from shiftable_gcp._discovery import Discovery
from shiftable_gcp.double import GcpDouble

from .wire import Ask, Json, Refused, asking, violations_of

ZONE = {"name": "one", "dnsName": "one.test.", "description": "for a test"}


@pytest.fixture
def ask(gcp_double: GcpDouble) -> Ask:
    """Return a way to ask over the wire."""
    return asking(f"{gcp_double.url}/dns/v1/projects/{gcp_double.project}/managedZones")


@pytest.fixture
def zone(ask: Ask) -> str:
    """Return the path of a zone with two record sets of its own and two others."""
    ask("POST", "", ZONE)
    ask("POST", "/one/changes", {"additions": [rrset("www", "A", "192.0.2.1"), rrset("txt", "TXT", '"a"', '"b c"')]})
    return "/one"


def rrset(name: str, kind: str, *rrdatas: str, ttl: object = 300, **more: Any) -> Json:
    owner = f"{name}.one.test." if name and not name.endswith(".") else name or "one.test."
    return {"name": owner, "type": kind, "ttl": ttl, **({"rrdatas": list(rrdatas)} if rrdatas else {}), **more}


def sets(ask: Ask) -> dict[tuple[str, str], Json]:
    return {(each["name"], each["type"]): each for each in ask("GET", "/one/rrsets")["rrsets"]}


def refused(ask: Ask, *arguments: Any, **query: Any) -> tuple[int, str]:
    with pytest.raises(Refused) as caught:
        ask(*arguments, **query)
    return caught.value.args[:2]


WRR = {"wrr": {"items": [{"weight": 0.25, "rrdatas": ["192.0.2.1"]}, {"weight": 3, "rrdatas": ["192.0.2.2"]}]}}
GEO = {"geo": {"items": [{"location": "europe-west3", "rrdatas": ["192.0.2.1"]}]}}
BACKUP = {
    "healthCheck": "https://www.googleapis.com/compute/v1/projects/p/global/healthChecks/h",
    "primaryBackup": {
        "primaryTargets": {"externalEndpoints": ["192.0.2.1"]},
        "backupGeoTargets": {"items": [{"location": "us-east1", "rrdatas": ["192.0.2.2"]}]},
        "trickleTraffic": 0.1,
    },
}

# zones


@pytest.mark.parametrize(
    ("body", "refusal"),
    [
        (ZONE, (409, "alreadyExists")),
        ({"name": "two", "dnsName": "two.test."}, (400, "required")),
        ({"name": "two", "description": "x"}, (400, "required")),
        ({"dnsName": "two.test.", "description": "x"}, (400, "required")),
        *(
            ({**ZONE, "name": name}, (400, "invalidFieldValue"))
            for name in ("1a", "A", "a_b", "a-", "-a", "a.b", "a" * 64)
        ),
        *(
            ({**ZONE, "name": "two", "dnsName": name}, (400, "invalid"))
            for name in ("two.test", "a..test.", "*.test.", "a b.test.", "ü.test.")
        ),
        ({**ZONE, "name": "two", "dnsName": "test."}, (400, "managedZoneDnsNameNotAvailable")),
        ({**ZONE, "name": "two", "description": "x" * 1025}, (400, "invalid")),
    ],
)
def test_a_zone_that_cannot_be_is_refused(ask: Ask, zone: str, body: Json, refusal: tuple[int, str]) -> None:
    assert refusal == refused(ask, "POST", "", body)
    assert ["one"] == [each["name"] for each in ask("GET")["managedZones"]]
    assert "one.test." == ask("GET", zone)["dnsName"]


@pytest.mark.parametrize("name", ["a", "a" * 63, "a-1", "zone-2"])
def test_a_zone_s_id_has_up_to_63_letters_digits_and_hyphens(ask: Ask, name: str) -> None:
    made = ask("POST", "", {**ZONE, "name": name})
    assert (name, "one.test.", "public") == (made["name"], made["dnsName"], made["visibility"])
    assert ask("GET", f"/{name}") == made


def test_a_new_zone_has_its_ns_and_soa(ask: Ask) -> None:
    servers = ask("POST", "", ZONE)["nameServers"]
    assert 4 == len(servers)
    found = sets(ask)
    assert [("one.test.", "NS"), ("one.test.", "SOA")] == list(found)
    assert servers == found["one.test.", "NS"]["rrdatas"]
    assert found["one.test.", "SOA"]["rrdatas"][0].startswith(f"{servers[0]} cloud-dns-hostmaster.google.com. 1 ")


def test_zones_of_one_name_have_other_name_servers_and_there_are_five_at_most(ask: Ask) -> None:
    servers = [tuple(ask("POST", "", {**ZONE, "name": f"z{number}"})["nameServers"]) for number in range(5)]
    assert 5 == len(set(servers))
    assert (400, "managedZoneDnsNameNotAvailable") == refused(ask, "POST", "", {**ZONE, "name": "z5"})
    assert 5 == len(ask("GET", dnsName="one.test.")["managedZones"])
    assert "managedZones" not in ask("GET", dnsName="two.test.")
    assert (400, "invalid") == refused(ask, "GET", dnsName="one.test")


def test_a_zone_is_deleted_when_it_holds_nothing_of_anybody(ask: Ask, zone: str) -> None:
    assert (400, "containerNotEmpty") == refused(ask, "DELETE", zone)
    ask("DELETE", f"{zone}/rrsets/www.one.test./A")
    ask("DELETE", f"{zone}/rrsets/txt.one.test./TXT")
    assert 204 == ask("DELETE", zone)
    assert (404, "notFound") == refused(ask, "DELETE", zone)
    assert (404, "notFound") == refused(ask, "GET", f"{zone}/rrsets")


def test_a_zone_s_description_can_be_changed_and_its_name_cannot(ask: Ask, zone: str) -> None:
    assert "done" == ask("PATCH", zone, {"description": "new", "labels": {"a": "b"}})["status"]
    assert ("new", {"a": "b"}) == (ask("GET", zone)["description"], ask("GET", zone)["labels"])
    assert (400, "invalid") == refused(ask, "PATCH", zone, {"dnsName": "two.test."})


def test_what_was_done_is_found_by_the_caller_s_own_id(ask: Ask) -> None:
    ask("POST", "", ZONE, clientOperationId="mine")
    assert ("mine", "create") == tuple(ask("GET", "/one/operations/mine")[name] for name in ("id", "type"))
    assert (404, "notFound") == refused(ask, "GET", "/one/operations/yours")


def test_a_project_tells_its_limits(gcp_double: GcpDouble) -> None:
    found = requests.get(f"{gcp_double.url}/dns/v1/projects/{gcp_double.project}", timeout=10).json()
    limits = ("rrsetAdditionsPerChange", "rrsetDeletionsPerChange", "totalRrdataSizePerChange")
    assert [1000, 1000, 100_000] == [found["quota"][limit] for limit in limits]
    assert (100, 10_000) == (found["quota"]["resourceRecordsPerRrset"], found["quota"]["rrsetsPerManagedZone"])


# record sets


@pytest.mark.parametrize(
    ("addition", "reason"),
    [
        (rrset("x.one.test", "A", "192.0.2.1") | {"name": "x.one.test"}, "invalid"),
        (rrset("x.two.test.", "A", "192.0.2.1"), "invalid"),
        (rrset("evilone.test.", "A", "192.0.2.1"), "invalid"),
        (rrset("a..b", "A", "192.0.2.1"), "invalid"),
        (rrset("a b", "A", "192.0.2.1"), "invalid"),
        (rrset("x.*.w", "A", "192.0.2.1"), "invalid"),
        (rrset("l" * 64, "A", "192.0.2.1"), "invalid"),
        (rrset("0/25", "NS", "ns.example."), "invalid"),
        (rrset("x", "A"), "invalid"),
        (rrset("x", "A", "192.0.2.256"), "invalid"),
        (rrset("x", "A", "192.0.2.1", "192.0.2.1"), "invalid"),
        (rrset("x", "A", r"\# 4 c0000201"), "invalid"),
        (rrset("x", "A", "192.0.2.1", ttl=-1), "invalid"),
        (rrset("x", "A", "192.0.2.1", ttl=2**31), "invalid"),
        (rrset("x", "AAAA", "192.0.2.1"), "invalid"),
        (rrset("x", "CNAME", "target"), "invalid"),
        (rrset("x", "CNAME", "target.example"), "invalid"),
        (rrset("x", "CNAME", "a.", "b."), "invalidRecordCount"),
        (rrset("", "CNAME", "a."), "recordTypeDisallowedAtZoneApex"),
        (rrset("www", "CNAME", "a."), "cnameResourceRecordSetConflict"),
        (rrset("x", "MX", "mail.example."), "invalid"),
        (rrset("x", "MX", "10 mail"), "invalid"),
        (rrset("x", "SRV", "1 1 1 host"), "invalid"),
        (rrset("x", "TXT", f'"{"x" * 256}"'), "invalid"),
        (rrset("x", "TXT", '"open'), "invalid"),
        (rrset("x", "TXT", "ü"), "invalid"),
        (rrset("x", "LOC", "52 22 23.000 N 4 53 32.000 E -2.00m"), "invalid"),
        (rrset("x", "URI", '10 1 "ftp://a/"'), "invalid"),
        (rrset("x", "TYPE65400", r"\# 1 00"), "invalid"),
        (rrset("x", "DNSKEY", "256 3 8 AQ=="), "invalid"),
        (rrset("x", "SOA", "a. b. 1 2 3 4 5"), "invalidZoneApex"),
        (rrset("x", "ALIAS", "a.example."), "invalidZoneApex"),
        (rrset("*", "NS", "a.example."), "wildcardNotAllowed"),
        (rrset("x", "NS", *(f"ns{number}.example." for number in range(9))), "quotaExceeded"),
        (rrset("x", "A", *(f"10.0.0.{number}" for number in range(101))), "quotaExceeded"),
        (rrset("x", "A", "192.0.2.1", routingPolicy=WRR), "invalid"),
        (rrset("x", "A", routingPolicy={**WRR, **GEO}), "invalid"),
        (rrset("x", "A", routingPolicy={}), "invalid"),
        (rrset("x", "A", routingPolicy={"wrr": {"items": []}}), "invalid"),
        (rrset("x", "A", routingPolicy={"wrr": {"items": [{"weight": 1}]}}), "invalid"),
        (rrset("x", "A", routingPolicy={"wrr": {"items": [{"weight": -1, "rrdatas": ["192.0.2.1"]}]}}), "invalid"),
        (rrset("x", "A", routingPolicy={"geo": {"items": [{"rrdatas": ["192.0.2.1"]}]}}), "invalid"),
        (rrset("x", "A", routingPolicy={"wrr": {"items": [{"weight": 1, "rrdatas": ["x"]}]}}), "invalid"),
        (rrset("x", "CAA", routingPolicy=WRR), "invalid"),
    ],
)
def test_a_record_set_that_cannot_be_refuses_the_whole_change(
    ask: Ask, gcp_double: GcpDouble, zone: str, addition: Json, reason: str
) -> None:
    before, good = sets(ask), rrset("good", "A", "192.0.2.9")
    with pytest.raises(Refused) as caught:
        ask(
            "POST", f"{zone}/changes", {"additions": [good, addition], "deletions": [rrset("txt", "TXT", "a", '"b c"')]}
        )
    assert reason == caught.value.args[1]
    assert f"entity.change.additions[{addition['name']}][{addition['type']}]" in caught.value.args[2]
    assert before == sets(ask)

    gcp_double.dns.indexes = True
    with pytest.raises(Refused, match=r"entity\.change\.additions\[1\]"):
        ask("POST", f"{zone}/changes", {"additions": [good, addition]})
    assert (caught.value.args[0], reason) == refused(ask, "POST", f"{zone}/rrsets", addition)
    assert before == sets(ask)


@pytest.mark.parametrize(
    ("addition", "told"),
    [
        (rrset("WwW2", "A", "192.0.2.1"), ["192.0.2.1"]),
        (rrset("*", "A", "192.0.2.1", ttl=0), ["192.0.2.1"]),
        (rrset("_x._tcp", "SRV", "1 1 1 Host.example."), ["1 1 1 Host.example."]),
        (rrset("x", "TXT", "bare words"), ['"bare" "words"']),
        (rrset("x", "TXT", '"one string" "two"'), ['"one string" "two"']),
        (rrset("x", "SPF", "v=spf1"), ['"v=spf1"']),
        (rrset("x", "HTTPS", "1 . alpn=h2,h3 port=8443"), ["1 . alpn=h2,h3 port=8443"]),
        (rrset("", "ALIAS", "a.example."), ["a.example."]),
        (rrset("x", "IPSECKEY", "10 1 2 192.0.2.38 AQNRU3mG"), ["10 1 2 192.0.2.38 AQNRU3mG"]),
        (rrset("x", "A", *(f"10.0.0.{n}" for n in range(100))), [f"10.0.0.{n}" for n in range(100)]),
        (rrset("x", "NS", *(f"ns{n}.example." for n in range(8))), [f"ns{n}.example." for n in range(8)]),
    ],
)
def test_a_record_set_that_can_be_is_told_as_it_was_sent(ask: Ask, zone: str, addition: Json, told: list[str]) -> None:
    ask("POST", f"{zone}/changes", {"additions": [addition]})
    found = sets(ask)[addition["name"].lower(), addition["type"]]
    assert (told, addition["ttl"]) == (found["rrdatas"], found["ttl"])


@pytest.mark.parametrize("policy", [WRR, GEO, BACKUP], ids=["wrr", "geo", "primaryBackup"])
def test_a_routing_policy_is_kept(ask: Ask, zone: str, policy: Json) -> None:
    ask("POST", f"{zone}/changes", {"additions": [rrset("x", "A", routingPolicy=policy)]})
    found = sets(ask)["x.one.test.", "A"]
    assert policy == found["routingPolicy"]
    assert "rrdatas" not in found
    wrong = json.loads(json.dumps(policy).replace("192.0.2.1", "192.0.2.99"))
    deletion = rrset("x", "A", routingPolicy=wrong)
    assert (412, "conditionNotMet") == refused(ask, "POST", f"{zone}/changes", {"deletions": [deletion]})
    ask("POST", f"{zone}/changes", {"deletions": [found]})


# changes


@pytest.mark.parametrize(
    ("deletion", "refusal"),
    [
        (rrset("www", "A", "192.0.2.2"), (412, "conditionNotMet")),
        (rrset("www", "A", "192.0.2.1", ttl=301), (412, "conditionNotMet")),
        (rrset("www", "A", "192.0.2.1", "192.0.2.2"), (412, "conditionNotMet")),
        (rrset("txt", "TXT", '"a"'), (412, "conditionNotMet")),
        (rrset("txt", "TXT", '"a"', '"b" "c"'), (412, "conditionNotMet")),
        (rrset("www", "AAAA", "::1"), (404, "notFound")),
        (rrset("nobody", "A", "192.0.2.1"), (404, "notFound")),
    ],
)
def test_a_deletion_must_match_exactly(ask: Ask, zone: str, deletion: Json, refusal: tuple[int, str]) -> None:
    before = sets(ask)
    body = {"deletions": [deletion], "additions": [rrset("new", "A", "192.0.2.1")]}
    assert refusal == refused(ask, "POST", f"{zone}/changes", body)
    assert before == sets(ask)


def test_a_deletion_matches_by_what_it_means_unless_the_double_is_told_otherwise(
    ask: Ask, gcp_double: GcpDouble, zone: str
) -> None:
    reordered = rrset("txt", "TXT", '"b c"', "a")
    gcp_double.dns.literal = True
    assert (412, "conditionNotMet") == refused(ask, "POST", f"{zone}/changes", {"deletions": [reordered]})
    gcp_double.dns.literal = False
    ask("POST", f"{zone}/changes", {"deletions": [reordered]})
    assert ("txt.one.test.", "TXT") not in sets(ask)


def test_an_addition_must_be_new_unless_the_change_deletes_the_old_one(ask: Ask, zone: str) -> None:
    new = rrset("www", "A", "192.0.2.2")
    with pytest.raises(Refused) as caught:
        ask("POST", f"{zone}/changes", {"additions": [new]})
    assert (409, "alreadyExists") == caught.value.args[:2]
    assert caught.value.args[2] == (
        "The resource 'entity.change.additions[www.one.test.][A]' named 'www.one.test. (A)' already exists"
    )
    ask("POST", f"{zone}/changes", {"additions": [new], "deletions": [rrset("www", "A", "192.0.2.1")]})
    assert ["192.0.2.2"] == sets(ask)["www.one.test.", "A"]["rrdatas"]
    twice = {"additions": [rrset("x", "A", "192.0.2.1"), rrset("x", "A", "192.0.2.2")]}
    assert (409, "alreadyExists") == refused(ask, "POST", f"{zone}/changes", twice)


def test_a_cname_and_an_a_change_places_in_one_change(ask: Ask, zone: str) -> None:
    swap = {"additions": [rrset("www", "CNAME", "a.example.")], "deletions": [rrset("www", "A", "192.0.2.1")]}
    ask("POST", f"{zone}/changes", swap)
    again = {"additions": [rrset("www", "A", "192.0.2.1")]}
    assert (400, "cnameResourceRecordSetConflict") == refused(ask, "POST", f"{zone}/changes", again)


def test_the_zone_s_own_sets_are_replaced_and_never_deleted(ask: Ask, zone: str) -> None:
    found = sets(ask)
    for kind, new in (("NS", "ns.example."), ("SOA", "ns.example. a.example. 2 3 4 5 6")):
        own = found["one.test.", kind]
        assert (400, "invalidZoneApex") == refused(ask, "POST", f"{zone}/changes", {"deletions": [own]})
        assert (400, "invalidZoneApex") == refused(ask, "DELETE", f"{zone}/rrsets/one.test./{kind}")
        ask("POST", f"{zone}/changes", {"additions": [rrset("", kind, new)], "deletions": [own]})
        assert [new] == sets(ask)["one.test.", kind]["rrdatas"]


@pytest.mark.parametrize("body", [{}, {"additions": []}, {"additions": [], "deletions": []}])
def test_a_change_of_nothing_is_refused(ask: Ask, zone: str, body: Json) -> None:
    assert (400, "required") == refused(ask, "POST", f"{zone}/changes", body)


def test_a_change_has_1000_additions_and_1000_deletions_and_not_one_more(ask: Ask, zone: str) -> None:
    old = [rrset(f"r{number}", "A", "192.0.2.1") for number in range(1001)]
    new = [rrset(f"r{number}", "A", "192.0.2.2") for number in range(1001)]
    assert (403, "quotaExceeded") == refused(ask, "POST", f"{zone}/changes", {"additions": old})
    ask("POST", f"{zone}/changes", {"additions": old[:1000]})
    ask("POST", f"{zone}/changes", {"additions": old[1000:]})
    assert (403, "quotaExceeded") == refused(ask, "POST", f"{zone}/changes", {"deletions": old})
    ask("POST", f"{zone}/changes", {"additions": new[:1000], "deletions": old[:1000]})


def test_a_change_has_100000_bytes_of_rdata_and_not_one_more(ask: Ask, zone: str) -> None:
    def texts(last: int) -> list[Json]:
        """Return record sets of 99,750 bytes and those of a last one; a string of 248 takes 250 with its quotes."""
        full = [rrset(f"t{number}", "TXT", f'"{"x" * 248}"') for number in range(399)]
        return [*full, rrset("last", "TXT", f'"{"y" * (last - 2)}"')]

    assert (403, "quotaExceeded") == refused(ask, "POST", f"{zone}/changes", {"additions": texts(251)})
    ask("POST", f"{zone}/changes", {"additions": texts(250)})
    ask("POST", f"{zone}/changes", {"deletions": texts(250)})


def test_a_zone_has_as_many_record_sets_as_its_quota(ask: Ask, gcp_double: GcpDouble, zone: str) -> None:
    gcp_double.dns.quota["rrsetsPerManagedZone"] = 5
    ask("POST", f"{zone}/rrsets", rrset("five", "A", "192.0.2.1"))
    assert (403, "quotaExceeded") == refused(ask, "POST", f"{zone}/rrsets", rrset("six", "A", "192.0.2.1"))
    swap = {"additions": [rrset("six", "A", "192.0.2.1")], "deletions": [rrset("five", "A", "192.0.2.1")]}
    ask("POST", f"{zone}/changes", swap)


def test_a_change_is_pending_for_as_many_looks_as_it_is_told(ask: Ask, gcp_double: GcpDouble, zone: str) -> None:
    gcp_double.dns.polls = 2
    made = ask("POST", f"{zone}/changes", {"additions": [rrset("x", "A", "192.0.2.1")]})
    looks = [ask("GET", f"{zone}/changes/{made['id']}")["status"] for _ in range(3)]
    assert ["pending", "pending", "done", "done"] == [made["status"], *looks]
    assert (404, "notFound") == refused(ask, "GET", f"{zone}/changes/99")


def test_changes_are_listed_in_their_order_or_backwards(ask: Ask, gcp_double: GcpDouble, zone: str) -> None:
    for number in range(3):
        ask("POST", f"{zone}/rrsets", rrset(f"x{number}", "A", "192.0.2.1"))
    assert ["0", "1", "2", "3", "4"] == [each["id"] for each in ask("GET", f"{zone}/changes")["changes"]]
    gcp_double.page_size = 2
    found, token = list[str](), None
    while True:
        more = {"pageToken": token} if token else {}
        page = ask("GET", f"{zone}/changes", sortBy="changeSequence", sortOrder="descending", **more)
        found += [each["id"] for each in page["changes"]]
        token = page.get("nextPageToken")
        if token is None:
            break
    assert ["4", "3", "2", "1", "0"] == found
    assert (400, "invalid") == refused(ask, "GET", f"{zone}/changes", sortOrder="sideways")


# one record set at a time, as the console does


def test_one_record_set_is_made_read_changed_and_deleted(ask: Ask, zone: str) -> None:
    place = f"{zone}/rrsets/x.one.test./A"
    ask("POST", f"{zone}/rrsets", rrset("x", "A", "192.0.2.1"))
    with pytest.raises(Refused, match=r"'entity\.rrset' named 'x\.one\.test\. \(A\)' already exists"):
        ask("POST", f"{zone}/rrsets", rrset("x", "A", "192.0.2.2"))
    assert 60 == ask("PATCH", place, {"ttl": 60})["ttl"]
    ask("PATCH", place, {"rrdatas": ["192.0.2.3"]})
    assert (60, ["192.0.2.3"]) == tuple(ask("GET", place)[name] for name in ("ttl", "rrdatas"))
    assert WRR == ask("PATCH", place, {"routingPolicy": WRR})["routingPolicy"]
    assert {} == ask("DELETE", place)
    for verb, body in (("GET", None), ("PATCH", {"ttl": 1}), ("DELETE", None)):
        assert (404, "notFound") == refused(ask, verb, place, body)


def test_record_sets_are_listed_page_by_page_by_name_and_type(ask: Ask, gcp_double: GcpDouble, zone: str) -> None:
    everything = list(sets(ask))
    gcp_double.page_size = 3
    first = ask("GET", f"{zone}/rrsets")
    second = ask("GET", f"{zone}/rrsets", pageToken=first["nextPageToken"])
    assert everything == [(each["name"], each["type"]) for each in (*first["rrsets"], *second["rrsets"])]
    assert "nextPageToken" not in second
    assert 1 == len(ask("GET", f"{zone}/rrsets", maxResults=1)["rrsets"])
    assert 2 == len(ask("GET", f"{zone}/rrsets", name="one.test.")["rrsets"])
    assert 1 == len(ask("GET", f"{zone}/rrsets", name="one.test.", type="NS")["rrsets"])
    assert "rrsets" not in ask("GET", f"{zone}/rrsets", name="nobody.one.test.")


@pytest.mark.parametrize(
    "query", [{"type": "A"}, {"name": "www.one.test"}, {"maxResults": 0}, {"maxResults": "-1"}, {"pageToken": "x"}]
)
def test_a_listing_that_makes_no_sense_is_refused(ask: Ask, zone: str, query: Json) -> None:
    assert (400, "invalid") == refused(ask, "GET", f"{zone}/rrsets", **query)


def test_of_many_writers_one_wins(ask: Ask, zone: str) -> None:
    def replace(number: int) -> bool:
        body = {
            "deletions": [rrset("www", "A", "192.0.2.1")],
            "additions": [rrset("www", "A", f"192.0.2.{100 + number}")],
        }
        try:
            ask("POST", f"{zone}/changes", body)
        except Refused:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert 1 == sum(pool.map(replace, range(8)))


@pytest.mark.parametrize("token", ["ya29.wrong", ""])
def test_a_wrong_token_is_refused(gcp_double: GcpDouble, token: str) -> None:
    url = f"{gcp_double.url}/dns/v1/projects/p/managedZones"
    answer = requests.get(url, headers={"Authorization": f"Bearer {token}"}, timeout=10)
    error = answer.json()["error"]
    assert (401, "UNAUTHENTICATED", "authError") == (answer.status_code, error["status"], error["errors"][0]["reason"])


@pytest.mark.parametrize("body", [b"{", b"[]", b'"x"'])
def test_a_body_that_is_no_message_is_refused(gcp_double: GcpDouble, zone: str, body: bytes) -> None:
    url = f"{gcp_double.url}/dns/v1/projects/{gcp_double.project}/managedZones{zone}/changes"
    error = requests.post(url, data=body, timeout=10).json()["error"]
    assert (400, "badRequest", "INVALID_ARGUMENT") == (error["code"], error["errors"][0]["reason"], error["status"])
    assert gcp_double.violations  # the description has seen it, too
    gcp_double.violations.clear()


def test_what_the_double_does_not_have_it_says(ask: Ask, zone: str) -> None:
    assert (501, "notImplemented") == refused(ask, "GET", f"{zone}/dnsKeys")


def test_an_emptied_double_is_as_the_service_is(ask: Ask, gcp_double: GcpDouble, zone: str) -> None:
    gcp_double.dns.quota["managedZones"] = 1
    assert (403, "quotaExceeded") == refused(ask, "POST", "", {**ZONE, "name": "two"})
    gcp_double.reset()
    assert {"kind": "dns#managedZonesListResponse"} == ask("GET")
    assert 10_000 == gcp_double.dns.quota["managedZones"]


# Google's own client


@pytest.fixture
def client(gcp_double: GcpDouble) -> Iterator[Any]:
    place = files("googleapiclient.discovery_cache") / "documents" / "dns.v1.json"
    http = httplib2.Http()
    options = {"api_endpoint": gcp_double.url}
    yield build_from_document(json.loads(place.read_text(encoding="utf-8")), http=http, client_options=options)
    http.close()


def test_google_s_own_client_reads_what_shiftable_wrote_and_the_other_way_round(
    provider: GcpProvider, gcp_double: GcpDouble, client: Any
) -> None:
    where = {"project": gcp_double.project, "managedZone": "shop-example"}
    zone = Dns(provider.dns()).create(ZoneSpec(name="shop.example"))
    zone.set("www", "A", ["192.0.2.1", "192.0.2.2"], ttl=60)
    zone.set("txt", "TXT", r'"say \"hi\"" "a\\b"')

    theirs = [
        {"name": "api.shop.example.", "type": "CNAME", "ttl": 30, "rrdatas": ["www.shop.example."]},
        {"name": "geo.shop.example.", "type": "A", "ttl": 30, "routingPolicy": GEO},
    ]
    made = client.changes().create(**where, body={"additions": theirs}).execute()
    while made["status"] != "done":
        made = client.changes().get(**where, changeId=made["id"]).execute()

    listed = client.resourceRecordSets().list(**where, maxResults=2).execute()
    assert 2 == len(listed["rrsets"])
    assert "nextPageToken" in listed
    www = client.resourceRecordSets().get(**where, name="www.shop.example.", type="A").execute()
    assert (60, ["192.0.2.1", "192.0.2.2"]) == (www["ttl"], www["rrdatas"])
    txt = client.resourceRecordSets().get(**where, name="txt.shop.example.", type="TXT").execute()
    assert [r'"say \"hi\"" "a\\b"'] == txt["rrdatas"]
    assert ("www.shop.example.",) == zone.get("api", "CNAME").texts
    policy = zone.get("geo", "A").policy
    assert policy is not None
    assert {"routingPolicy": GEO} == json.loads(policy.data)
    assert zone.info().nameservers == tuple(client.managedZones().get(**where).execute()["nameServers"])


def test_google_s_own_client_manages_zones(gcp_double: GcpDouble, client: Any) -> None:
    project = gcp_double.project
    assert 1000 == client.projects().get(project=project).execute()["quota"]["rrsetAdditionsPerChange"]
    client.managedZones().create(project=project, body=ZONE).execute()
    where = {"project": project, "managedZone": "one"}
    client.managedZones().patch(**where, body={"description": "new"}).execute()
    client.resourceRecordSets().create(**where, body=rrset("x", "A", "192.0.2.1")).execute()
    one = {**where, "name": "x.one.test.", "type": "A"}
    assert 5 == client.resourceRecordSets().patch(**one, body={"ttl": 5}).execute()["ttl"]
    with pytest.raises(HttpError) as caught:
        client.managedZones().delete(**where).execute()
    assert (400, "containerNotEmpty") == (caught.value.status_code, caught.value.error_details[0]["reason"])
    assert 3 == len(client.changes().list(**where, sortBy="changeSequence").execute()["changes"])
    client.resourceRecordSets().delete(**one).execute()
    client.managedZones().delete(**where).execute()
    assert "managedZones" not in client.managedZones().list(project=project).execute()


# the description


def violations(verb: str, target: str, body: object = None, answer: Response | None = None) -> list[str]:
    return violations_of(Discovery("dns.v1"), verb, target, body, answer)


ZONES = "/dns/v1/projects/p/managedZones"


@pytest.mark.parametrize(
    ("verb", "target", "body", "answer", "expected"),
    [
        ("GET", f"{ZONES}?pageSize=1", None, None, "no parameter 'pageSize'"),
        ("GET", f"{ZONES}?maxResults=x", None, None, "not an integer"),
        ("POST", ZONES, {"dns_name": "a."}, None, "unknown field 'dns_name'"),
        ("POST", ZONES, {"visibility": "secret"}, None, "none of"),
        ("POST", f"{ZONES}/z/changes", {"additions": [{"ttl": "300"}]}, None, "is str, not integer"),
        ("POST", f"{ZONES}/z/changes", {"additions": [{"rrdatas": "a"}]}, None, "is str, not array"),
        ("POST", f"{ZONES}/z/changes", {"additions": [{"rrdata": ["a"]}]}, None, "unknown field 'rrdata'"),
        ("GET", f"{ZONES}/z/changes?sortBy=id", None, None, "none of"),
        ("GET", f"{ZONES}/z/changes/1", {}, None, "takes no body"),
        ("GET", f"{ZONES}/z/changes/1", None, b'{"status": "DONE"}', "none of"),
        ("GET", f"{ZONES}/z/rrsets", None, b'{"rrsets": [{"ttl": 1.5}]}', "is float, not integer"),
        ("DELETE", f"{ZONES}/z", None, b"{}", "answers no body"),
    ],
)
def test_what_the_description_does_not_allow_is_a_violation(
    verb: str, target: str, body: object, answer: bytes | None, expected: str
) -> None:
    (found,) = violations(verb, target, body, Response("200 OK", body=answer or b""))
    assert expected in found


@pytest.mark.parametrize(
    ("verb", "path", "expected"),
    [
        ("GET", "", "managedZones.list"),
        ("POST", "", "managedZones.create"),
        ("DELETE", "/z", "managedZones.delete"),
        ("POST", "/z/changes", "changes.create"),
        ("GET", "/z/changes/1", "changes.get"),
        ("GET", "/z/rrsets", "resourceRecordSets.list"),
        ("PATCH", "/z/rrsets/a./A", "resourceRecordSets.patch"),
        ("GET", "/z/operations/1", "managedZoneOperations.get"),
    ],
)
def test_a_call_is_known_by_the_method_that_the_description_names(
    gcp_double: GcpDouble, verb: str, path: str, expected: str
) -> None:
    requests.request(verb, f"{gcp_double.url}/dns/v1/projects/p/managedZones{path}", timeout=10)
    assert ("dns", f"dns.{expected}") == (gcp_double.calls[-1].service, gcp_double.calls[-1].operation)

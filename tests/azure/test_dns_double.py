"""The double keeps Azure DNS's rules, asked by bare HTTP requests."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import attrs
import pytest
import requests

from shiftable_azure.double import AzureDouble

ZONE = "shop.example"
OLD, NEW = "2018-05-01", "2023-07-01-preview"


@attrs.define
class Client:
    """Asks the double as Azure's tools do."""

    double: AzureDouble
    http: requests.Session

    def __call__(
        self, method: str, path: str, body: Any = None, *, version: str = NEW, group: bool = True, **headers: str
    ) -> requests.Response:
        config = self.double.config
        base = f"{self.double.url}/subscriptions/{config['subscription']}"
        if group:
            base += f"/resourceGroups/{config['resource_group']}"
        if not path.startswith("http"):
            joint = "&" if "?" in path else "?"
            path = f"{base}/providers/Microsoft.Network/dnsZones{path}{joint}api-version={version}"
        sent = {"Authorization": f"Bearer {self.double.token}"}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        return self.http.request(method, path, json=body, headers=sent, timeout=10)

    def put(self, name: str, kind: str = "A", properties: Mapping[str, Any] | None = None, **headers: str) -> Any:
        body = {"properties": {"TTL": 300, **(properties or {"ARecords": [{"ipv4Address": "192.0.2.1"}]})}}
        return self("PUT", f"/{ZONE}/{kind}/{name}", body, **headers)

    def next(self, page: Mapping[str, Any]) -> Any:
        return self("GET", page["nextLink"].replace("https://management.azure.com", self.double.url)).json()


@pytest.fixture
def azure(azure_double: AzureDouble) -> Iterator[Client]:
    with requests.Session() as http:
        client = Client(azure_double, http)
        assert client("PUT", f"/{ZONE}", {"location": "global"}).status_code == 201
        yield client


def refusal(answer: requests.Response) -> tuple[int, str]:
    """Return status and code; services put the code at the top, Resource Manager into ``error``."""
    content = answer.json()
    return answer.status_code, content.get("error", content)["code"]


# who asks, and for what


def test_resource_manager_asks_for_a_token(azure: Client) -> None:
    answer = azure("GET", "", Authorization="")
    assert refusal(answer) == (401, "AuthenticationFailed")
    assert "authorization_uri=" in answer.headers["WWW-Authenticate"]
    assert refusal(azure("GET", "", Authorization="Bearer of-another")) == (401, "InvalidAuthenticationToken")


def test_resource_manager_asks_for_an_api_version_that_it_has(azure: Client) -> None:
    assert refusal(azure("GET", "", version="")) == (400, "MissingApiVersionParameter")
    assert refusal(azure("GET", "", version="2016-04-01")) == (400, "NoRegisteredProviderFound")


def test_what_is_missing_says_what_it_is(azure: Client) -> None:
    assert refusal(azure("GET", "/none.example")) == (404, "ResourceNotFound")
    assert refusal(azure("GET", "/none.example/recordsets")) == (404, "ResourceNotFound")
    assert refusal(azure("PUT", "/none.example/A/www", {"properties": {"TTL": 1}})) == (404, "ParentResourceNotFound")
    absent = azure("GET", f"/{ZONE}/A/www")
    assert (absent.status_code, absent.json()["code"]) == (404, "NotFound")
    config = azure.double.config
    elsewhere = f"{azure.double.url}/subscriptions/{config['subscription']}/resourceGroups/none"
    missing = azure("GET", f"{elsewhere}/providers/Microsoft.Network/dnsZones?api-version={NEW}")
    assert refusal(missing) == (404, "ResourceGroupNotFound")


def test_an_action_that_is_denied_is_named(azure: Client) -> None:
    azure.double.arm.denied.add("Microsoft.Network/dnsZones/TXT/write")
    answer = azure.put("www", "TXT", {"TXTRecords": [{"value": ["x"]}]})
    assert refusal(answer) == (403, "AuthorizationFailed")
    assert "'Microsoft.Network/dnsZones/TXT/write'" in answer.json()["error"]["message"]
    assert azure.put("www").status_code == 201


# zones


def test_a_zone_is_made_once_with_its_soa_and_ns(azure: Client) -> None:
    again = azure("PUT", f"/{ZONE}", {"location": "global"}, If_None_Match="*")
    assert refusal(again) == (412, "PreconditionFailed")
    assert azure("PUT", f"/{ZONE}", {"location": "global"}).status_code == 200
    zone = azure("GET", f"/{ZONE.upper()}").json()["properties"]
    sets = azure("GET", f"/{ZONE}/recordsets").json()["value"]
    assert zone["numberOfRecordSets"] == 2
    assert [each["type"].rpartition("/")[2] for each in sets] == ["NS", "SOA"]
    assert [each["nsdname"] for each in sets[0]["properties"]["NSRecords"]] == zone["nameServers"]
    assert len(zone["nameServers"]) == 4


@pytest.mark.parametrize("name", ["example", "a%20b.example", "bücher.example", ".".join(["x"] * 35)])
def test_a_zone_has_two_to_34_plain_labels(azure: Client, name: str) -> None:
    assert refusal(azure("PUT", f"/{name}", {"location": "global"})) == (400, "BadRequest")


def test_a_zone_is_global(azure: Client) -> None:
    answer = azure("PUT", "/other.example", {"location": "westeurope"})
    assert refusal(answer) == (400, "LocationNotAvailableForResourceType")


def test_zones_are_listed_by_group_and_by_subscription(azure: Client) -> None:
    azure.double.arm.groups["other"] = "other"
    config = azure.double.config
    there = f"{azure.double.url}/subscriptions/{config['subscription']}/resourceGroups/other/providers"
    azure("PUT", f"{there}/Microsoft.Network/dnsZones/there.example?api-version={NEW}", {"location": "global"})
    assert [zone["name"] for zone in azure("GET", "").json()["value"]] == [ZONE]
    everywhere = azure("GET", "", group=False).json()["value"]
    assert sorted(zone["name"] for zone in everywhere) == [ZONE, "there.example"]


def test_a_deletion_of_a_zone_is_looked_at_until_it_has_ended(azure: Client) -> None:
    azure.double.arm.operations.looks = 2
    begun = azure("DELETE", f"/{ZONE}")
    assert (begun.status_code, begun.headers["Retry-After"]) == (202, "2")
    link = begun.headers["Azure-AsyncOperation"].replace("https://management.azure.com", azure.double.url)
    assert [azure("GET", link).json()["status"] for _ in range(3)] == ["InProgress", "InProgress", "Succeeded"]
    assert azure("DELETE", f"/{ZONE}").status_code == 204


# paging


def test_listings_come_in_pages(azure: Client) -> None:
    azure.double.dns.page_size = 3
    for number in range(6):
        azure.put(f"r{number}")
    page = azure("GET", f"/{ZONE}/recordsets").json()
    sizes, names = [len(page["value"])], [each["name"] for each in page["value"]]
    while "nextLink" in page:
        page = azure.next(page)
        sizes.append(len(page["value"]))
        names += [each["name"] for each in page["value"]]
    assert sizes == [3, 3, 2]
    assert names == ["@", "@", *(f"r{number}" for number in range(6))]
    first = azure("GET", f"/{ZONE}/recordsets?$top=1").json()
    assert (len(first["value"]), len(azure.next(first)["value"])) == (1, 1)


def test_record_sets_are_listed_by_type_and_by_what_they_are_below(azure: Client) -> None:
    azure.put("www")
    azure.put("www", "TXT", {"TXTRecords": [{"value": ["x"]}]})
    azure.put("a.www")
    azure.put("awww")

    def listed(path: str) -> list[str]:
        return [each["id"].rpartition("dnszones/")[2] for each in azure("GET", f"/{ZONE}/{path}").json()["value"]]

    assert listed("A") == [f"{ZONE}/A/a.www", f"{ZONE}/A/awww", f"{ZONE}/A/www"]
    assert listed("all?$recordsetnamesuffix=www") == [f"{ZONE}/A/a.www"]
    assert refusal(azure("GET", f"/{ZONE}/LOC")) == (404, "InvalidResourceType")


# conditions


def test_each_write_makes_another_etag(azure: Client) -> None:
    made = azure.put("www", If_None_Match="*")
    first = made.json()["etag"]
    assert (made.status_code, azure("GET", f"/{ZONE}/A/www").json()["etag"]) == (201, first)
    changed = azure.put("www", If_Match=first)
    assert changed.status_code == 200
    assert changed.json()["etag"] != first
    assert refusal(azure.put("www", If_Match=first)) == (412, "PreconditionFailed")
    assert refusal(azure.put("www", If_None_Match="*")) == (412, "PreconditionFailed")
    assert refusal(azure("DELETE", f"/{ZONE}/A/www", If_Match=first)) == (412, "PreconditionFailed")
    assert azure("DELETE", f"/{ZONE}/A/www", If_Match=changed.json()["etag"]).status_code == 200
    assert azure("DELETE", f"/{ZONE}/A/www").status_code == 204
    assert refusal(azure.put("www", If_Match="*")) == (412, "PreconditionFailed")


def test_a_patch_keeps_what_it_does_not_name(azure: Client) -> None:
    azure.put("www", "A", {"ARecords": [{"ipv4Address": "192.0.2.1"}], "metadata": {"team": "web"}})
    azure("PATCH", f"/{ZONE}/A/www", {"properties": {"TTL": 60}})
    kept = azure("GET", f"/{ZONE}/A/www").json()["properties"]
    assert (kept["TTL"], kept["metadata"], len(kept["ARecords"])) == (60, {"team": "web"}, 1)
    azure.put("www")
    assert "metadata" not in azure("GET", f"/{ZONE}/A/www").json()["properties"]


# what a record set may be


@pytest.mark.parametrize(
    ("kind", "properties"),
    [
        ("A", {"ARecords": [{"ipv4Address": "192.0.2.256"}]}),
        ("A", {"ARecords": [{"ipv4Address": "192.0.2.1"}] * 2}),
        ("A", {"ARecords": [{"ipv4Address": f"192.0.2.{number}"} for number in range(21)]}),
        ("A", {"TXTRecords": [{"value": ["x"]}]}),
        ("A", {"ARecords": [{"ipv4Address": "192.0.2.1"}], "targetResource": {"id": "/subscriptions/0"}}),
        ("MX", {"MXRecords": [{"preference": 0, "exchange": "."}]}),
        ("MX", {"MXRecords": [{"preference": 70_000, "exchange": "mx.example"}]}),
        ("MX", {"targetResource": {"id": "/subscriptions/0"}}),
        ("TXT", {"TXTRecords": [{"value": ["x" * 256]}]}),
        ("TXT", {"TXTRecords": [{"value": [""]}]}),
        ("TXT", {"TXTRecords": [{"value": ["ü"]}]}),
        ("TXT", {"TXTRecords": [{"value": ["x" * 250] * 16 + ["x" * 97]}]}),
        ("TXT", {"TXTRecords": [{"value": [str(number)]} for number in range(401)]}),
        ("CAA", {"caaRecords": [{"flags": 256, "tag": "issue", "value": "ca.example"}]}),
        ("CNAME", {"CNAMERecord": {"cname": "not a name"}}),
        ("SOA", {"SOARecord": {}}),
        ("DS", {"DSRecords": [{"keyTag": 1, "algorithm": 8, "digest": {"algorithmType": 2, "value": "AB"}}]}),
    ],
)
def test_what_azure_does_not_hold_is_refused(azure: Client, kind: str, properties: dict[str, Any]) -> None:
    assert refusal(azure.put("www", kind, properties)) == (400, "BadRequest")
    assert len(azure("GET", f"/{ZONE}/recordsets").json()["value"]) == 2
    azure.double.violations.clear()  # of the requests, which were to be wrong


@pytest.mark.parametrize(
    ("kind", "properties"),
    [
        ("A", {"ARecords": [{"ipv4Address": f"192.0.2.{number}"} for number in range(20)]}),
        ("A", {"ARecords": []}),
        ("TXT", {"TXTRecords": [{"value": ["x" * 250] * 16 + ["x" * 96]}]}),
        ("TXT", {"TXTRecords": [{"value": [str(number)]} for number in range(400)]}),
        ("SRV", {"SRVRecords": [{"priority": 0, "weight": 0, "port": 0, "target": "."}]}),
        ("CNAME", {"targetResource": {"id": "/subscriptions/0/x"}}),
    ],
)
def test_what_is_just_within_the_limits_is_held(azure: Client, kind: str, properties: dict[str, Any]) -> None:
    made = azure.put("www", kind, properties)
    assert made.status_code == 201
    assert {name: made.json()["properties"][name] for name in properties} == properties


@pytest.mark.parametrize(("ttl", "status"), [(0, 400), (1, 201), (2**31 - 1, 201), (2**31, 400), (-1, 400)])
def test_a_ttl_is_1_to_2147483647(azure: Client, ttl: int, status: int) -> None:
    assert azure.put("www", "A", {"TTL": ttl, "ARecords": []}).status_code == status


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("@", 201), ("*", 201), ("*.www", 201), ("_x._tcp", 201), ("WWW", 201), ("x.*.w", 400), ("a%20b", 400),
        ("a%2Fb", 400), ("www.", 400), ("l" * 63, 201), ("l" * 64, 400), (".".join(["l" * 60] * 4), 400),
    ],
)  # fmt: skip
def test_names_are_relative_and_plain(azure: Client, name: str, status: int) -> None:
    assert azure.put(name).status_code == status


def test_names_are_the_same_in_any_case_and_kept_as_they_came(azure: Client) -> None:
    azure.put("WwW")
    assert azure("GET", f"/{ZONE}/a/www").json()["name"] == "WwW"
    assert azure.put("www").status_code == 200


@pytest.mark.parametrize(("first", "second"), [("A", "CNAME"), ("CNAME", "A")])
def test_a_cname_stands_alone(azure: Client, first: str, second: str) -> None:
    of = {"A": {"ARecords": []}, "CNAME": {"CNAMERecord": {"cname": "www.example"}}}
    azure.put("www", first, of[first])
    answer = azure.put("www", second, of[second])
    assert (answer.status_code, answer.json()["code"]) == (409, "Conflict")


def test_the_zones_own_name_servers_stay_and_others_may_be_added(azure: Client) -> None:
    own = azure("GET", f"/{ZONE}/NS/@").json()["properties"]["NSRecords"]
    more = [*own, {"nsdname": "ns.elsewhere.example."}]
    assert azure.put("@", "NS", {"NSRecords": more}).status_code == 200
    assert refusal(azure.put("@", "NS", {"NSRecords": more[1:]})) == (400, "BadRequest")
    assert azure.put("@", "NS", {"TTL": 60, "NSRecords": own}).status_code == 200
    assert refusal(azure("DELETE", f"/{ZONE}/NS/@")) == (400, "BadRequest")


def test_the_host_of_the_soa_stays_and_the_rest_changes(azure: Client) -> None:
    soa = azure("GET", f"/{ZONE}/SOA/@").json()["properties"]["SOARecord"]
    changed = azure.put("@", "SOA", {"SOARecord": {**soa, "email": "admin.shop.example", "refreshTime": 60}})
    assert changed.status_code == 200
    assert refusal(azure.put("@", "SOA", {"SOARecord": {**soa, "host": "ns.example."}})) == (400, "BadRequest")
    assert refusal(azure("DELETE", f"/{ZONE}/SOA/@")) == (400, "BadRequest")
    assert refusal(azure.put("www", "SOA", {"SOARecord": soa})) == (400, "BadRequest")


def test_later_types_need_a_later_version_and_some_a_signed_zone(azure: Client) -> None:
    tlsa = {"usage": 3, "selector": 1, "matchingType": 1, "certificateAssociationData": "AB" * 32}
    naptr = {"order": 1, "preference": 1, "flags": "s", "services": "x", "regexp": "", "replacement": "a.example"}
    assert azure.put("n", "NAPTR", {"NAPTRRecords": [naptr]}).status_code == 201
    assert refusal(azure.put("t", "TLSA", {"TLSARecords": [tlsa]})) == (400, "BadRequest")
    assert refusal(azure("PUT", f"/{ZONE}/dnssecConfigs/default", version=OLD)) == (404, "InvalidResourceType")
    assert azure("PUT", f"/{ZONE}/dnssecConfigs/default").status_code == 200
    assert azure.put("t", "TLSA", {"TLSARecords": [tlsa]}).status_code == 201
    assert refusal(azure("GET", f"/{ZONE}/NAPTR/n", version=OLD)) == (404, "InvalidResourceType")
    listed = [azure("GET", f"/{ZONE}/recordsets", version=version).json()["value"] for version in (OLD, NEW)]
    assert [len(value) for value in listed] == [2, 4]


def test_a_zone_takes_so_many_record_sets(azure: Client) -> None:
    assert azure("GET", f"/{ZONE}").json()["properties"]["maxNumberOfRecordSets"] == 10_000
    azure.double.dns.sets = 3
    assert azure.put("a").status_code == 201
    assert refusal(azure.put("b")) == (400, "QuotaExceeded")
    assert azure.put("a").status_code == 200


# how often


@pytest.mark.parametrize(("kind", "limit"), [("create", 200), ("update", 200), ("delete", 200), ("list", 60)])
def test_a_zone_takes_so_many_calls_of_a_kind_in_a_minute(azure: Client, kind: str, limit: int) -> None:
    zone = azure.double.dns.zone(ZONE)
    for number in range(limit + 1):
        if kind in {"update", "delete"}:
            azure.double.dns.put_raw(ZONE, f"r{number}", "A", ARecords=[])

    def ask(number: int) -> requests.Response:
        if kind == "list":
            return azure("GET", f"/{ZONE}/recordsets?$top=1")
        return azure("DELETE", f"/{ZONE}/A/r{number}") if kind == "delete" else azure.put(f"r{number}")

    assert {ask(number).ok for number in range(limit)} == {True}
    before = dict(zone.sets)
    refused = ask(limit)
    assert refusal(refused) == (429, "TooManyRequests")
    assert 1 <= int(refused.headers["Retry-After"]) <= 60
    assert zone.sets == before
    azure.double.clock.advance(int(refused.headers["Retry-After"]))
    assert ask(limit).ok


def test_kinds_and_zones_are_counted_apart(azure: Client) -> None:
    assert {azure.put(f"r{number}").status_code for number in range(200)} == {201}
    assert azure.put("one-more").status_code == 429
    assert azure.put("r0").status_code == 200
    assert azure("DELETE", f"/{ZONE}/A/r1").status_code == 200
    azure("PUT", "/other.example", {"location": "global"})
    assert azure("PUT", "/other.example/A/www", {"properties": {"TTL": 1, "ARecords": []}}).status_code == 201


# Azure's own definitions are the judge of all that is sent and answered


def test_azures_definitions_find_what_is_wrong(azure_dns_definitions: Any) -> None:
    kind = "Microsoft.Network/dnsZones/A"
    good = {"properties": {"TTL": 1, "ARecords": [{"ipv4Address": "192.0.2.1"}], "metadata": {"a": "b"}}}
    assert azure_dns_definitions(kind, good, sent=True) == []
    assert azure_dns_definitions("Microsoft.Network/dnsZones", {"location": "global"}, sent=True) == []
    wrong: list[tuple[str, Any]] = [
        (kind, {"properties": {"TTL": "1"}}),
        (kind, {"properties": {"ttl": 1}}),
        (kind, {"properties": {"TTL": True}}),
        (kind, {"properties": {"ARecords": {"ipv4Address": "192.0.2.1"}}}),
        (kind, {"properties": {"ARecords": [{"ipv4address": "192.0.2.1"}]}}),
        (kind, {"properties": {"fqdn": "www.shop.example."}}),
        (kind, {"properties": {"metadata": {"a": 1}}}),
        (kind, {"etags": "x"}),
        ("Microsoft.Network/dnsZones", {}),
        ("Microsoft.Network/dnsZones", {"location": "global", "properties": {"zoneType": "Hidden"}}),
        ("Microsoft.Network/dnsZones/LOC", {"properties": {}}),
    ]
    assert [len(azure_dns_definitions(kind, body, sent=True)) for kind, body in wrong] == [1] * len(wrong)


def test_a_wrong_request_is_a_violation(azure: Client, azure_dns_definitions: Any) -> None:
    azure.put("www", "A", {"ARecords": [], "ttl": 5})
    assert any("has no ttl" in found for found in azure.double.violations)
    azure.double.violations.clear()

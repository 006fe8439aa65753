"""The double's Secret Manager refuses what the service refuses, and what Google's description does not allow."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from typing import Any

import httplib2
import pytest
import requests
from googleapiclient.discovery import build_from_document

from shiftable.secrets import Secrets
from shiftable.testing.harness import Response
from shiftable_gcp import GcpProvider
from shiftable_gcp._crc32c import crc32c
from shiftable_gcp._discovery import Discovery
from shiftable_gcp.double import GcpDouble

from .wire import Ask, Refused, asking, violations_of

AUTOMATIC = {"replication": {"automatic": {}}}


@pytest.fixture
def ask(gcp_double: GcpDouble) -> Ask:
    """Return a way to ask over the wire."""
    return asking(f"{gcp_double.url}/v1/projects/{gcp_double.project}/secrets")


def payload(value: bytes) -> dict[str, Any]:
    return {"payload": {"data": base64.b64encode(value).decode(), "dataCrc32c": str(crc32c(value))}}


@pytest.fixture
def secret(ask: Ask) -> str:
    """Return the path of a secret with three versions."""
    ask("POST", "", AUTOMATIC, secretId="one")
    for value in (b"a", b"b", b"c"):
        ask("POST", "/one:addVersion", payload(value))
    return "/one"


@pytest.mark.parametrize(
    ("verb", "path", "body", "query", "refusal"),
    [
        ("POST", "", AUTOMATIC, {"secretId": "one"}, (409, "ALREADY_EXISTS")),
        ("POST", "", AUTOMATIC, {"secretId": "a.b"}, (400, "INVALID_ARGUMENT")),
        ("POST", "", AUTOMATIC, {"secretId": "a" * 256}, (400, "INVALID_ARGUMENT")),
        ("POST", "", AUTOMATIC, {}, (400, "INVALID_ARGUMENT")),
        ("POST", "", {}, {"secretId": "two"}, (400, "INVALID_ARGUMENT")),
        ("POST", "", {"replication": {"userManaged": {}}}, {"secretId": "two"}, (400, "INVALID_ARGUMENT")),
        ("GET", "/two", None, {}, (404, "NOT_FOUND")),
        ("DELETE", "/two", None, {}, (404, "NOT_FOUND")),
        ("DELETE", "/one", None, {"etag": '"1"'}, (400, "FAILED_PRECONDITION")),
        ("PATCH", "/one", {"labels": {}}, {}, (400, "INVALID_ARGUMENT")),
        ("PATCH", "/one", {"replication": {}}, {"updateMask": "replication"}, (400, "INVALID_ARGUMENT")),
        ("PATCH", "/one", {"etag": '"1"'}, {"updateMask": "labels"}, (400, "FAILED_PRECONDITION")),
        ("PATCH", "/one", {"versionAliases": {"a": "9"}}, {"updateMask": "versionAliases"}, (400, "INVALID_ARGUMENT")),
        (
            "PATCH",
            "/one",
            {"versionAliases": {"latest": "1"}},
            {"updateMask": "version_aliases"},
            (400, "INVALID_ARGUMENT"),
        ),
        ("POST", "/two:addVersion", payload(b"x"), {}, (404, "NOT_FOUND")),
        ("POST", "/one:addVersion", {}, {}, (400, "INVALID_ARGUMENT")),
        ("POST", "/one:addVersion", {"payload": {"data": "%"}}, {}, (400, "INVALID_ARGUMENT")),
        ("POST", "/one:addVersion", payload(b"x" * 65_537), {}, (400, "INVALID_ARGUMENT")),
        ("POST", "/one:addVersion", {"payload": {"data": "eA==", "dataCrc32c": "1"}}, {}, (400, "INVALID_ARGUMENT")),
        ("GET", "/one/versions/9", None, {}, (404, "NOT_FOUND")),
        ("GET", "/one/versions/9:access", None, {}, (404, "NOT_FOUND")),
        ("GET", "/one/versions/nobody:access", None, {}, (404, "NOT_FOUND")),
        ("POST", "/one/versions/latest:disable", {}, {}, (404, "NOT_FOUND")),
        ("POST", "/one/versions/1:destroy", {"etag": '"1"'}, {}, (400, "FAILED_PRECONDITION")),
        ("GET", "", None, {"filter": "labels.a=b"}, (400, "INVALID_ARGUMENT")),
        ("GET", "/one/versions", None, {"pageSize": -1}, (400, "INVALID_ARGUMENT")),
        ("GET", "/one/versions", None, {"pageToken": "x"}, (400, "INVALID_ARGUMENT")),
        ("GET", "/one:getIamPolicy", None, {}, (501, "UNIMPLEMENTED")),
    ],
)
def test_what_the_service_refuses_is_refused(
    ask: Ask, secret: str, verb: str, path: str, body: object, query: dict[str, Any], refusal: tuple[int, str]
) -> None:
    before = ask("GET", secret)

    with pytest.raises(Refused) as caught:
        ask(verb, path, body, **query)

    assert caught.value.args == refusal
    assert before == ask("GET", secret)
    assert ["3", "2", "1"] == [each["name"].rpartition("/")[2] for each in ask("GET", "/one/versions")["versions"]]


@pytest.mark.parametrize(
    ("facts", "fits"),
    [
        ({"labels": {"a": ""}}, True),
        ({"labels": {"a" * 63: "b" * 63}}, True),
        ({"labels": {"ä": "ß-1_"}}, True),
        ({"labels": {"a" * 64: "b"}}, False),
        ({"labels": {"a": "b" * 64}}, False),
        ({"labels": {"ä" * 63: "b"}}, True),
        ({"labels": {"鍵" * 43: "b"}}, False),
        ({"labels": {"A": "b"}}, False),
        ({"labels": {"a": "B"}}, False),
        ({"labels": {"1": "b"}}, False),
        ({"labels": {"a.b": "b"}}, False),
        ({"labels": {f"a{n}": "b" for n in range(64)}}, True),
        ({"labels": {f"a{n}": "b" for n in range(65)}}, False),
        ({"annotations": {"a.B_c-1": "anything\n€"}}, True),
        ({"annotations": {"a" * 63: ""}}, True),
        ({"annotations": {"a" * 64: ""}}, False),
        ({"annotations": {"-a": ""}}, False),
        ({"annotations": {"a.": ""}}, False),
        ({"annotations": {"ü": ""}}, False),
        ({"annotations": {"a": "x" * (16 * 1024 - 2)}}, True),
        ({"annotations": {"a": "x" * (16 * 1024 - 1)}}, False),
        ({"versionAliases": {"a-B_9": "1", "current": "2"}}, True),
        ({"versionAliases": {"9": "1"}}, False),
        ({"versionAliases": {"NEW": "1"}}, False),
        ({"versionAliases": {"a" * 64: "1"}}, False),
        ({"versionAliases": {f"a{n}": "1" for n in range(50)}}, True),
        ({"versionAliases": {f"a{n}": "1" for n in range(51)}}, False),
    ],
)
def test_limits_are_google_s(ask: Ask, secret: str, facts: dict[str, Any], fits: bool) -> None:  # noqa: FBT001
    (name,) = facts
    if not fits:
        with pytest.raises(Refused, match="INVALID_ARGUMENT"):
            ask("PATCH", secret, facts, updateMask=name)
        return
    assert facts[name] == ask("PATCH", secret, facts, updateMask=name)[name]


def test_a_change_of_a_secret_changes_its_etag_alone_and_a_version_its_own(ask: Ask, secret: str) -> None:
    one, other = ask("GET", secret)["etag"], ask("GET", f"{secret}/versions/1")["etag"]

    ask("POST", f"{secret}:addVersion", payload(b"d"))
    ask("POST", f"{secret}/versions/1:enable", {})
    assert (one, False) == (ask("GET", secret)["etag"], other == ask("GET", f"{secret}/versions/1")["etag"])

    etags = {one} | {ask("PATCH", secret, {"labels": {"a": "b"}}, updateMask="labels")["etag"] for _ in range(3)}
    assert len(etags) == 4


def test_latest_is_the_newest_whatever_its_state(ask: Ask, secret: str) -> None:
    assert "Yw==" == ask("GET", f"{secret}/versions/latest:access")["payload"]["data"]
    ask("POST", f"{secret}/versions/3:disable", {})
    with pytest.raises(Refused, match="FAILED_PRECONDITION"):
        ask("GET", f"{secret}/versions/latest:access")
    ask("POST", f"{secret}/versions/3:destroy", {})
    for verb in ("enable", "disable", "destroy"):
        with pytest.raises(Refused, match="FAILED_PRECONDITION"):
            ask("POST", f"{secret}/versions/3:{verb}", {})
    assert "DESTROYED" == ask("GET", f"{secret}/versions/latest")["state"]
    assert ["2", "1"] == [
        each["name"].rpartition("/")[2] for each in ask("GET", "/one/versions", filter="state:ENABLED")["versions"]
    ]
    ask("POST", "", AUTOMATIC, secretId="empty")
    with pytest.raises(Refused, match="NOT_FOUND"):
        ask("GET", "/empty/versions/latest:access")


def test_answers_name_the_project_by_its_number(ask: Ask, secret: str, gcp_double: GcpDouble) -> None:
    number = ask("GET", secret)["name"].split("/")[1]
    assert number.isdigit()
    answer = requests.get(f"{gcp_double.url}/v1/projects/{number}/secrets/one", timeout=10)
    assert answer.json() == ask("GET", secret)
    other = requests.get(f"{gcp_double.url}/v1/projects/another/secrets/one", timeout=10)
    assert other.status_code == 404


def test_listings_have_pages_newest_first_also_when_something_is_deleted_in_between(
    ask: Ask, gcp_double: GcpDouble
) -> None:
    for number in range(7):
        ask("POST", "", AUTOMATIC, secretId=f"s-{number}")
        gcp_double.clock.advance(timedelta(seconds=1))
    gcp_double.page_size = 3
    first = ask("GET", pageSize=100)
    ask("DELETE", "/s-4")
    second = ask("GET", pageToken=first["nextPageToken"])
    third = ask("GET", pageToken=second["nextPageToken"])

    shown = [[each["name"].rpartition("/")[2] for each in page["secrets"]] for page in (first, second, third)]
    assert [["s-6", "s-5", "s-4"], ["s-3", "s-2", "s-1"], ["s-0"]] == shown
    assert (7, "nextPageToken" in third) == (first["totalSize"], False)
    assert ["s-3"] == [each["name"].rpartition("/")[2] for each in ask("GET", filter="name:s*3")["secrets"]]


def test_what_expires_is_gone(ask: Ask, gcp_double: GcpDouble) -> None:
    ends = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    ask("POST", "", {**AUTOMATIC, "expireTime": ends}, secretId="a")
    ask("POST", "", {**AUTOMATIC, "ttl": "7200s"}, secretId="b")

    gcp_double.clock.advance(timedelta(minutes=90))
    assert ["b"] == [each["name"].rpartition("/")[2] for each in ask("GET")["secrets"]]
    gcp_double.clock.advance(timedelta(minutes=60))
    assert "secrets" not in ask("GET")


def test_quotas_are_counted_by_kind_and_minute(ask: Ask, secret: str, gcp_double: GcpDouble) -> None:
    gcp_double.clock.advance(timedelta(minutes=1))
    gcp_double.limit_secrets(read=1, write=1, access=1)
    acts: list[Callable[[], object]] = [
        lambda: ask("GET", secret),
        lambda: ask("POST", f"{secret}/versions/1:disable", {}),
        lambda: ask("GET", f"{secret}/versions/2:access"),
    ]
    for act in acts:
        act()
    for act in acts:
        with pytest.raises(Refused, match="RESOURCE_EXHAUSTED"):
            act()
    gcp_double.clock.advance(timedelta(minutes=1))
    for act in acts:
        act()


def test_of_many_changes_under_one_etag_one_is_made(ask: Ask, secret: str) -> None:
    etag = ask("GET", secret)["etag"]

    def change(number: int) -> bool:
        try:
            ask("PATCH", secret, {"labels": {"by": str(number)}, "etag": etag}, updateMask="labels")
        except Refused:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert 1 == sum(pool.map(change, range(8)))


@pytest.mark.parametrize("token", ["ya29.wrong", ""])
def test_a_wrong_token_is_refused(gcp_double: GcpDouble, token: str) -> None:
    url = f"{gcp_double.url}/v1/projects/p/secrets"
    answer = requests.get(url, headers={"Authorization": f"Bearer {token}"}, timeout=10)
    assert (answer.status_code, answer.json()["error"]["status"]) == (401, "UNAUTHENTICATED")


def test_google_s_own_client_reads_what_shiftable_wrote_and_the_other_way_round(
    provider: GcpProvider, gcp_double: GcpDouble
) -> None:
    place = files("googleapiclient.discovery_cache") / "documents" / "secretmanager.v1.json"
    http = httplib2.Http()
    options = {"api_endpoint": gcp_double.url}
    built = build_from_document(json.loads(place.read_text(encoding="utf-8")), http=http, client_options=options)
    client, project = built.projects().secrets(), f"projects/{gcp_double.project}"
    store = Secrets(provider.secrets()).store("shop")

    store.put("key", "ours", labels={"team": "core"})
    client.create(parent=project, secretId="shop__theirs", body=AUTOMATIC).execute()
    for value in (b"one", b"two"):
        client.addVersion(parent=f"{project}/secrets/shop__theirs", body=payload(value)).execute()

    listed = client.list(parent=project, filter="name:shop__", pageSize=1).execute()
    assert (2, True) == (len(list(store.list())), "nextPageToken" in listed)
    found = client.versions().access(name=f"{project}/secrets/shop__key/versions/current").execute()
    assert b"ours" == base64.b64decode(found["payload"]["data"])
    assert {"team": "core"} == client.get(name=f"{project}/secrets/shop__key").execute()["labels"]
    assert "two" == store.get("theirs").reveal()
    http.close()


# the description


def violations(verb: str, target: str, body: object = None, answer: Response | None = None) -> list[str]:
    return violations_of(Discovery("secretmanager.v1"), verb, target, body, answer)


@pytest.mark.parametrize(
    ("verb", "target", "body", "answer", "expected"),
    [
        ("GET", "/v1/projects/p/secrets?page=1", None, None, "no parameter 'page'"),
        ("GET", "/v1/projects/p/secrets?pageSize=x", None, None, "not an integer"),
        ("POST", "/v1/projects/p/secrets?secretId=a", {"alias": {}}, None, "unknown field 'alias'"),
        ("POST", "/v1/projects/p/secrets/a:addVersion", {"payload": {"data": 1}}, None, "is int, not string"),
        ("PATCH", "/v1/projects/p/secrets/a?updateMask=x", {"expireTime": "soon"}, None, "not a time"),
        ("PATCH", "/v1/projects/p/secrets/a", {"versionAliases": {"a": "x"}}, None, "not int64"),
        ("GET", "/v1/projects/p/secrets/a/versions/1:access", {}, None, "takes no body"),
        ("GET", "/v1/projects/p/secrets/a/versions/1", None, b'{"state": "GONE"}', "none of"),
        ("GET", "/v1/projects/p/secrets/a", None, b'{"labels": {"a": 1}}', "is int, not string"),
    ],
)
def test_what_the_description_does_not_allow_is_a_violation(
    verb: str, target: str, body: object, answer: bytes | None, expected: str
) -> None:
    (found,) = violations(verb, target, body, Response("200 OK", body=answer) if answer else None)
    assert expected in found


@pytest.mark.parametrize(
    "error",
    [
        {"code": 404, "message": "said", "errors": [{"reason": "notFound"}]},
        {"code": 400, "message": "said", "status": "NOT_FOUND"},
        {"code": 404, "status": "NOT_FOUND"},
    ],
)
def test_an_error_must_look_like_the_service_s(error: dict[str, Any]) -> None:
    answer = Response("404 Not Found", body=json.dumps({"error": error}).encode())
    assert "has no body like the service's" in violations("GET", "/v1/projects/p/secrets/a", None, answer)[0]


@pytest.mark.parametrize(
    ("verb", "path", "expected"),
    [
        ("GET", "secrets/a/versions/1:access", "versions.access"),
        ("GET", "secrets/a/versions/1", "versions.get"),
        ("GET", "secrets/a", "get"),
        ("POST", "secrets/a:addVersion", "addVersion"),
        ("POST", "secrets", "create"),
    ],
)
def test_a_call_is_known_by_the_method_that_the_description_names(
    gcp_double: GcpDouble, verb: str, path: str, expected: str
) -> None:
    requests.request(verb, f"{gcp_double.url}/v1/projects/p/{path}", timeout=10)
    assert ("secretmanager", f"secretmanager.projects.secrets.{expected}") == (
        gcp_double.calls[-1].service,
        gcp_double.calls[-1].operation,
    )
    gcp_double.violations.clear()

"""The double's Cloud SQL refuses what Google refuses, in Google's words, and Google's own client can use it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from importlib.resources import files
from typing import Any

import attrs
import httplib2
import pytest
import requests
from googleapiclient.discovery import build_from_document
from googleapiclient.errors import HttpError

from shiftable.database import Databases
from shiftable.testing.conformance.database import small_spec
from shiftable.testing.harness import Response
from shiftable_gcp import GcpProvider
from shiftable_gcp._discovery import Discovery
from shiftable_gcp.double import GcpDouble

from .wire import Ask, Json, Refused, asking, violations_of


@pytest.fixture
def ask(gcp_double: GcpDouble) -> Ask:
    """Return a way to ask over the wire."""
    return asking(f"{gcp_double.url}/v1/projects/{gcp_double.project}")


def instance(name: str = "one", version: str = "POSTGRES_16", **settings: Any) -> Json:
    base = {"tier": "db-custom-2-8192", "edition": "ENTERPRISE"}
    return {"name": name, "databaseVersion": version, "settings": base | settings}


def done(ask: Ask, operation: Json) -> Json:
    while operation["status"] != "DONE":
        operation = ask("GET", f"/operations/{operation['name']}")
    return operation


@pytest.fixture
def one(ask: Ask) -> str:
    """Return the path of an instance that runs."""
    done(ask, ask("POST", "/instances", instance()))
    return "/instances/one"


def refused(ask: Ask, *arguments: Any, **query: Any) -> tuple[int, str]:
    with pytest.raises(Refused) as caught:
        ask(*arguments, **query)
    return caught.value.args[:2]


def words(ask: Ask, *arguments: Any, **query: Any) -> str:
    with pytest.raises(Refused) as caught:
        ask(*arguments, **query)
    return str(caught.value.args[2])


BACKUPS = {"enabled": True, "pointInTimeRecoveryEnabled": True}
LOGS = {"enabled": True, "binaryLogEnabled": True}

# instances


@pytest.mark.parametrize(
    ("body", "said"),
    [
        *((instance(name), "name") for name in ("Upper", "a_b", "1a", "a-", "", "x" * 98)),
        (instance("two", "MYSQL_5_6"), "database version"),
        ({"name": "two", "databaseVersion": "POSTGRES_15"}, "Tier"),
        *(
            (instance("two", tier=tier), "machine type")
            for tier in (
                "db-custom-3-8192",
                "db-custom-2-8000",
                "db-custom-1-3584",
                "db-custom-2-13568",
                "db-custom-8-7168",
                "db-custom-98-98304",
            )
        ),
        (instance("two", tier="db-custom-2"), "Invalid Tier"),
        (instance("two", tier="db-n1-standard-2"), "Only custom or shared-core"),
        (instance("two", tier="db-perf-optimized-N-2"), "for \\(ENTERPRISE\\) Edition"),
        (instance("two", edition="ENTERPRISE_PLUS"), "for \\(ENTERPRISE_PLUS\\) Edition"),
        ({**instance("two"), "settings": {"tier": "db-custom-2-8192"}}, "for \\(ENTERPRISE_PLUS\\) Edition"),
        (instance("two", dataDiskSizeGb="9"), "disk size"),
        (instance("two", dataDiskSizeGb="65537"), "disk size"),
        (instance("two", availabilityType="REGIONAL"), "Regional"),
        (instance("two", availabilityType="REGIONAL", backupConfiguration={"enabled": True}), "Regional"),
        (instance("two", backupConfiguration=LOGS), "not supported for PostgreSQL"),
        (instance("two", "MYSQL_8_4", backupConfiguration=BACKUPS), "binary log"),
        (instance("two", backupConfiguration={"pointInTimeRecoveryEnabled": True}), "need backups"),
        (instance("two", backupConfiguration={**BACKUPS, "transactionLogRetentionDays": 8}), "between 1 and 7"),
        (
            instance("two", backupConfiguration={**BACKUPS, "backupRetentionSettings": {"retainedBackups": 366}}),
            "between 1 and 365",
        ),
        (
            instance("two", backupConfiguration={**BACKUPS, "backupRetentionSettings": {"retainedBackups": 3}}),
            "as many retained backups",
        ),
        (instance("two", ipConfiguration={"ipv4Enabled": False}), "At least one of"),
        (
            instance("two", ipConfiguration={"privateNetwork": "projects/p/global/networks/other"}),
            "SERVICE_NETWORKING_NOT_ENABLED",
        ),
        (instance("two", ipConfiguration={"authorizedNetworks": [{"value": "here"}]}), "CIDR"),
        (instance("two", databaseFlags=[{"name": "no_such", "value": "1"}]), "not supported"),
        (instance("two", databaseFlags=[{"name": "work_mem", "value": "8MB"}]), "not valid"),
        (instance("two", databaseFlags=[{"name": "work_mem", "value": "63"}]), "not valid"),
        (instance("two", databaseFlags=[{"name": "cloudsql.logical_decoding", "value": "true"}]), "not valid"),
        (instance("two", userLabels={"Team": "a"}), "label"),
        (instance("two", userLabels={"team": "A"}), "label"),
    ],
)
def test_an_instance_that_cannot_be_is_refused(ask: Ask, one: str, body: Json, said: str) -> None:
    with pytest.raises(Refused, match=said) as caught:
        ask("POST", "/instances", body)
    assert (400, "invalid") == caught.value.args[:2]
    assert ["one"] == [each["name"] for each in ask("GET", "/instances")["items"]]
    assert "RUNNABLE" == ask("GET", one)["state"]


@pytest.mark.parametrize("tier", ["db-custom-1-3840", "db-custom-96-638976", "db-g1-small", "db-custom-2-13312"])
def test_machine_types_at_the_limits_are_taken(ask: Ask, tier: str) -> None:
    done(ask, ask("POST", "/instances", instance(tier=tier)))
    assert tier == ask("GET", "/instances/one")["settings"]["tier"]


def test_an_instance_comes_into_being_while_its_operation_is_looked_at(gcp_double: GcpDouble, ask: Ask) -> None:
    gcp_double.sql.polls = 2
    operation = ask("POST", "/instances", instance())
    assert ("sql#operation", "CREATE", "PENDING", "one") == tuple(
        operation[name] for name in ("kind", "operationType", "status", "targetId")
    )
    states = [ask("GET", f"/operations/{operation['name']}")["status"] for _ in range(4)]
    assert ["PENDING", "PENDING", "DONE", "DONE"] == states
    told = ask("GET", "/instances/one")
    assert ("RUNNABLE", "POSTGRES_16_4") == (told["state"], told["databaseInstalledVersion"])


def test_one_operation_at_a_time(gcp_double: GcpDouble, ask: Ask, one: str) -> None:
    gcp_double.sql.polls = 10**6
    ask("POST", f"{one}/restart")
    busy = (409, "operationInProgress")
    for verb, path, body in (
        ("PATCH", one, {"settings": {"tier": "db-custom-4-16384"}}),
        ("DELETE", one, None),
        ("POST", f"{one}/restart", None),
        ("POST", f"{one}/users", {"name": "a"}),
        ("POST", f"{one}/databases", {"name": "a"}),
        ("POST", f"{one}/backupRuns", {}),
        ("POST", "/backups", {"instance": "one"}),
        ("POST", f"{one}/clone", {"cloneContext": {"destinationInstanceName": "two"}}),
    ):
        assert busy == refused(ask, verb, path, body), path
    assert "PENDING" == ask("GET", "/operations", instance="one")["items"][0]["status"]


def test_a_name_is_nobody_s_for_a_week_after_its_instance(gcp_double: GcpDouble, ask: Ask, one: str) -> None:
    assert (409, "instanceAlreadyExists") == refused(ask, "POST", "/instances", instance())
    done(ask, ask("DELETE", one))
    assert (404, "instanceDoesNotExist") == refused(ask, "GET", one)
    gcp_double.clock.advance(timedelta(days=6, hours=23))
    assert "one week" in words(ask, "POST", "/instances", instance())
    gcp_double.clock.advance(timedelta(hours=2))
    done(ask, ask("POST", "/instances", instance()))


def test_settings_are_changed_under_their_version_only(ask: Ask, one: str) -> None:
    version = ask("GET", one)["settings"]["settingsVersion"]
    done(ask, ask("PATCH", one, {"settings": {"settingsVersion": version, "storageAutoResize": False}}))
    stale = {"settings": {"settingsVersion": version, "storageAutoResize": True}}
    assert (412, "staleData") == refused(ask, "PATCH", one, stale)
    assert ask("GET", one)["settings"]["storageAutoResize"] is False


def test_a_patch_keeps_what_it_does_not_name_and_an_update_does_not(ask: Ask, one: str) -> None:
    done(ask, ask("PATCH", one, {"settings": {"backupConfiguration": {"enabled": True}, "dataDiskSizeGb": "30"}}))
    held = ask("GET", one)["settings"]
    assert ("30", True, "12:00") == (
        held["dataDiskSizeGb"],
        held["backupConfiguration"]["enabled"],
        held["backupConfiguration"]["startTime"],
    )
    whole = {"tier": "db-custom-2-8192", "edition": "ENTERPRISE", "dataDiskSizeGb": "30"}
    done(ask, ask("PUT", one, {"settings": whole}))
    assert ask("GET", one)["settings"]["backupConfiguration"]["enabled"] is False


@pytest.mark.parametrize(
    "body",
    [
        {"settings": {"dataDiskSizeGb": "9"}},
        {"databaseVersion": "POSTGRES_15"},
        {"databaseVersion": "MYSQL_8_4"},
        {"settings": {"tier": "db-custom-3-8192"}},
        {"region": "us-east1"},
    ],
)
def test_an_instance_does_not_become_what_it_cannot_be(ask: Ask, one: str, body: Json) -> None:
    assert (400, "invalid") == refused(ask, "PATCH", one, body)


def test_a_private_network_stays(ask: Ask) -> None:
    network = "projects/p/global/networks/default"
    address = {"ipv4Enabled": False, "privateNetwork": network}
    done(ask, ask("POST", "/instances", instance(ipConfiguration=address)))
    (told,) = ask("GET", "/instances/one")["ipAddresses"]
    assert "PRIVATE" == told["type"]
    body = {"settings": {"ipConfiguration": {"privateNetwork": None, "ipv4Enabled": True}}}
    assert (400, "invalid") == refused(ask, "PATCH", "/instances/one", body)


def test_a_protected_instance_is_not_deleted(ask: Ask, one: str) -> None:
    done(ask, ask("PATCH", one, {"settings": {"deletionProtectionEnabled": True}}))
    assert "deletion protection" in words(ask, "DELETE", one)
    done(ask, ask("PATCH", one, {"settings": {"deletionProtectionEnabled": False}}))
    done(ask, ask("DELETE", one))


def test_a_stopped_instance_is_runnable_and_tells_neither_users_nor_databases(ask: Ask, one: str) -> None:
    done(ask, ask("PATCH", one, {"settings": {"activationPolicy": "NEVER"}}))
    told = ask("GET", one)
    assert ("RUNNABLE", "NEVER") == (told["state"], told["settings"]["activationPolicy"])
    for path in ("users", "databases"):
        assert "instance is not running" in words(ask, "GET", f"{one}/{path}")
    assert (400, "invalid") == refused(ask, "POST", f"{one}/restart")
    done(ask, ask("PATCH", one, {"settings": {"activationPolicy": "ALWAYS"}}))
    assert ask("GET", f"{one}/databases")["items"]


def test_a_project_has_so_many_instances(gcp_double: GcpDouble, ask: Ask, one: str) -> None:
    gcp_double.sql.quota = 1
    assert (403, "errorMaxInstancePerLabel") == refused(ask, "POST", "/instances", instance("two"))
    clone = {"cloneContext": {"destinationInstanceName": "two"}}
    assert (403, "errorMaxInstancePerLabel") == refused(ask, "POST", f"{one}/clone", clone)


def test_an_operation_may_end_in_an_error(gcp_double: GcpDouble, ask: Ask, one: str) -> None:
    gcp_double.sql.fail_next("UPDATE", "QUOTA_EXCEEDED", "no more")
    ended = done(ask, ask("PATCH", one, {"settings": {"dataDiskSizeGb": "30"}}))
    (error,) = ended["error"]["errors"]
    assert ("QUOTA_EXCEEDED", "no more") == (error["code"], error["message"])
    assert "10" == ask("GET", one)["settings"]["dataDiskSizeGb"]
    gcp_double.sql.fail_next("DELETE")
    done(ask, ask("DELETE", one))
    assert "RUNNABLE" == ask("GET", one)["state"]


# users and databases


def test_users_have_passwords_that_nobody_is_told(ask: Ask, one: str) -> None:
    done(ask, ask("POST", f"{one}/users", {"name": "app", "password": "secret"}))
    done(ask, ask("PUT", f"{one}/users", {"password": "other"}, name="app"))
    told = ask("GET", f"{one}/users")["items"]
    assert {"postgres", "app"} == {user["name"] for user in told}
    assert "password" not in ask("GET", f"{one}/users/app")
    done(ask, ask("DELETE", f"{one}/users", name="app"))
    for verb, query in (("PUT", {"name": "app"}), ("DELETE", {"name": "app"})):
        assert (404, "userDoesNotExist") == refused(ask, verb, f"{one}/users", {} if verb == "PUT" else None, **query)
    assert (404, "userDoesNotExist") == refused(ask, "GET", f"{one}/users/app")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"password": "x"}, "name"),
        ({"name": "app@p.iam.gserviceaccount.com", "type": "CLOUD_IAM_SERVICE_ACCOUNT"}, "without .gserviceaccount"),
        ({"name": "app", "type": "CLOUD_IAM_USER"}, "valid format"),
        ({"name": "me@example.com", "type": "CLOUD_IAM_USER", "password": "x"}, "no password"),
    ],
)
def test_a_user_that_cannot_be_is_refused(ask: Ask, body: Json, said: str) -> None:
    flags = [{"name": "cloudsql.iam_authentication", "value": "on"}]
    done(ask, ask("POST", "/instances", instance(databaseFlags=flags)))
    assert said in words(ask, "POST", "/instances/one/users", body)


def test_an_account_logs_in_only_where_the_flag_says_so(ask: Ask, one: str) -> None:
    body = {"name": "me@example.com", "type": "CLOUD_IAM_USER"}
    assert "cloudsql.iam_authentication is not on" in words(ask, "POST", f"{one}/users", body)


def test_databases_are_made_once(ask: Ask, one: str) -> None:
    done(ask, ask("POST", f"{one}/databases", {"name": "shop"}))
    assert (409, "databaseAlreadyExists") == refused(ask, "POST", f"{one}/databases", {"name": "shop"})
    assert ["postgres", "shop"] == [each["name"] for each in ask("GET", f"{one}/databases")["items"]]
    assert "shop" == ask("GET", f"{one}/databases/shop")["name"]
    done(ask, ask("DELETE", f"{one}/databases/shop"))
    assert (404, "databaseDoesNotExist") == refused(ask, "GET", f"{one}/databases/shop")
    assert (404, "databaseDoesNotExist") == refused(ask, "DELETE", f"{one}/databases/shop")
    for name in ("", "x" * 64):
        assert (400, "invalid") == refused(ask, "POST", f"{one}/databases", {"name": name})


# backups


def test_a_backup_is_one_of_the_project_and_one_of_its_instance(ask: Ask, one: str) -> None:
    operation = ask("POST", "/backups", {"instance": "one", "description": "first"})
    assert "RUNNING" == ask("GET", f"/backups/{operation['backupContext']['name'].rpartition('/')[2]}")["state"]
    done(ask, operation)
    done(ask, ask("POST", f"{one}/backupRuns", {"description": "second"}))
    told = ask("GET", "/backups", filter="instance:one")["backups"]
    assert [("second", "SUCCESSFUL"), ("first", "SUCCESSFUL")] == [(b["description"], b["state"]) for b in told]
    runs = ask("GET", f"{one}/backupRuns")["items"]
    assert ["second", "first"] == [run["description"] for run in runs]
    assert runs[0] == ask("GET", f"{one}/backupRuns/{runs[0]['id']}")
    ask("DELETE", f"{one}/backupRuns/{runs[0]['id']}")
    assert (404, "backupRunDoesNotExist") == refused(ask, "GET", f"{one}/backupRuns/{runs[0]['id']}")
    assert 1 == len(ask("GET", "/backups")["backups"])
    assert "backups" not in ask("GET", "/backups", filter="instance:two")


def test_backups_go_with_their_instance_unless_it_retains_them(ask: Ask, one: str) -> None:
    done(ask, ask("POST", "/backups", {"instance": "one"}))
    done(ask, ask("DELETE", one, enableFinalBackup="true", finalBackupDescription="last", finalBackupTtlDays="365"))
    (told,) = ask("GET", "/backups")["backups"]
    assert ("last", "FINAL", "SUCCESSFUL") == (told["description"], told["type"], told["state"])
    assert timedelta(days=364) < datetime.fromisoformat(told["expiryTime"]) - datetime.fromisoformat(
        told["instanceDeletionTime"]
    )


def test_a_last_backup_is_kept_for_a_year_at_most(ask: Ask, one: str) -> None:
    query = {"enableFinalBackup": "true", "finalBackupTtlDays": "366"}
    assert (400, "invalid") == refused(ask, "DELETE", one, **query)


@pytest.mark.parametrize("by", ["backup", "run"])
def test_a_restore_overwrites_all_of_an_instance_of_the_same_version(ask: Ask, one: str, by: str) -> None:
    done(ask, ask("POST", f"{one}/databases", {"name": "shop"}))
    done(ask, ask("POST", "/backups", {"instance": "one"}))
    (backup,) = ask("GET", "/backups")["backups"]
    (run,) = ask("GET", f"{one}/backupRuns")["items"]
    done(ask, ask("POST", "/instances", instance("two")))
    done(ask, ask("POST", "/instances/two/databases", {"name": "theirs"}))
    context = {"backupRunId": run["id"], "instanceId": "one", "project": "p"}
    body = {"backup": backup["name"]} if by == "backup" else {"restoreBackupContext": context}
    done(ask, ask("POST", "/instances/two/restoreBackup", body))
    assert ["postgres", "shop"] == [each["name"] for each in ask("GET", "/instances/two/databases")["items"]]
    done(ask, ask("POST", "/instances", instance("three", "POSTGRES_17")))
    assert (400, "invalid") == refused(ask, "POST", "/instances/three/restoreBackup", body)
    assert (404, "backupDoesNotExist") == refused(
        ask, "POST", "/instances/two/restoreBackup", {"backup": "projects/p/backups/none"}
    )
    assert (400, "invalid") == refused(ask, "POST", "/instances/two/restoreBackup", {})


def test_a_clone_is_of_a_time_that_there_are_logs_of(gcp_double: GcpDouble, ask: Ask) -> None:
    done(ask, ask("POST", "/instances", instance(backupConfiguration=BACKUPS)))
    created = datetime.fromisoformat(ask("GET", "/instances/one")["createTime"])
    gcp_double.clock.advance(timedelta(days=10))

    def clone(name: str, **context: str) -> Any:
        return ask("POST", "/instances/one/clone", {"cloneContext": {"destinationInstanceName": name, **context}})

    for moment in (created - timedelta(days=1), created + timedelta(days=1), created + timedelta(days=11)):
        with pytest.raises(Refused, match="recovered"):
            clone("two", pointInTime=moment.isoformat())
    done(ask, clone("two", pointInTime=(created + timedelta(days=5)).isoformat()))
    assert "RUNNABLE" == ask("GET", "/instances/two")["state"]
    assert (409, "instanceAlreadyExists") == refused(
        ask, "POST", "/instances/one/clone", {"cloneContext": {"destinationInstanceName": "two"}}
    )


def test_an_instance_without_logs_has_no_times(ask: Ask, one: str) -> None:
    now = ask("GET", one)["createTime"]
    body = {"cloneContext": {"destinationInstanceName": "two", "pointInTime": now}}
    assert "not enabled" in words(ask, "POST", f"{one}/clone", body)


# lists


def test_machine_types_and_flags_are_told(ask: Ask, gcp_double: GcpDouble) -> None:
    tiers = {tier["tier"]: int(tier["RAM"]) for tier in ask("GET", "/tiers")["items"]}
    assert 64 * 2**30 == tiers["db-perf-optimized-N-8"]
    every = requests.get(f"{gcp_double.url}/v1/flags", timeout=10).json()["items"]
    mine = requests.get(f"{gcp_double.url}/v1/flags?databaseVersion=POSTGRES_16", timeout=10).json()["items"]
    assert "work_mem" in {flag["name"] for flag in mine}
    assert len(mine) < len(every)


def test_lists_come_in_pages(gcp_double: GcpDouble, ask: Ask) -> None:
    for number in range(5):
        done(ask, ask("POST", "/instances", instance(f"i{number}")))
        done(ask, ask("POST", "/backups", {"instance": f"i{number}"}))
    gcp_double.page_size = 2
    for path, key, size in (("/instances", "items", "maxResults"), ("/operations", "items", "maxResults")):
        seen, token = list[str](), None
        while True:
            told = ask("GET", path, **{size: 2}, **({"pageToken": token} if token else {}))
            seen += [each["name"] for each in told[key]]
            token = told.get("nextPageToken")
            if token is None:
                break
        assert len(seen) == len(set(seen)) >= 5
    assert (400, "invalid") == refused(ask, "GET", "/instances", pageToken="rubbish")


# Google's own client


@pytest.fixture
def client(gcp_double: GcpDouble) -> Iterator[Any]:
    place = files("googleapiclient.discovery_cache") / "documents" / "sqladmin.v1.json"
    http = httplib2.Http()
    options = {"api_endpoint": gcp_double.url}
    yield build_from_document(json.loads(place.read_text(encoding="utf-8")), http=http, client_options=options)
    http.close()


def test_google_s_own_client_sees_what_shiftable_made_and_the_other_way_round(
    provider: GcpProvider, gcp_double: GcpDouble, client: Any
) -> None:
    databases = Databases(provider.database(), sleep=lambda _: None)
    where = {"project": gcp_double.project, "instance": "shop"}
    spec = attrs.evolve(small_spec("shop"), public=True, allow_from=("192.0.2.0/24",), labels={"team": "shop"})
    databases.create(spec).wait()
    told = client.instances().get(**where).execute()
    assert ("POSTGRES_16", "db-custom-2-8192", "shop") == (
        told["databaseVersion"],
        told["settings"]["tier"],
        told["settings"]["userLabels"]["team"],
    )
    assert {"postgres", "shop"} == {each["name"] for each in client.databases().list(**where).execute()["items"]}
    assert {"postgres", "shiftadmin"} == {each["name"] for each in client.users().list(**where).execute()["items"]}

    def ended(operation: Any) -> None:
        while operation["status"] != "DONE":
            operation = client.operations().get(project=gcp_double.project, operation=operation["name"]).execute()

    ended(client.databases().insert(**where, body={"name": "theirs"}).execute())
    ended(client.instances().patch(**where, body={"settings": {"dataDiskSizeGb": "40"}}).execute())
    held = databases.describe("shop")
    assert (40, ("shop", "theirs")) == (held.storage_gib, held.databases)
    databases.database("shop").snapshot("first")
    (run,) = client.backupRuns().list(**where).execute()["items"]
    assert "first" == run["description"]
    with pytest.raises(HttpError) as caught:
        client.instances().get(project=gcp_double.project, instance="missing").execute()
    assert (404, "instanceDoesNotExist") == (caught.value.status_code, caught.value.error_details[0]["reason"])


# the description


def violations(verb: str, target: str, body: object = None, answer: Response | None = None) -> list[str]:
    return violations_of(Discovery("sqladmin.v1", reasons=True), verb, target, body, answer)


AT = "/v1/projects/p/instances"


@pytest.mark.parametrize(
    ("verb", "target", "body", "answer", "expected"),
    [
        ("GET", f"{AT}?pageSize=1", None, None, "no parameter 'pageSize'"),
        ("GET", f"{AT}?maxResults=x", None, None, "not an integer"),
        ("POST", AT, {"database_version": "POSTGRES_16"}, None, "unknown field 'database_version'"),
        ("POST", AT, {"databaseVersion": "PG_16"}, None, "none of"),
        ("POST", AT, {"settings": {"tier": 2}}, None, "is int, not string"),
        ("POST", AT, {"settings": {"dataDiskSizeGb": "20 GB"}}, None, "not int64"),
        ("POST", AT, {"settings": {"ipConfiguration": {"sslMode": "ON"}}}, None, "none of"),
        ("POST", AT, {"settings": {"databaseFlags": {"a": "b"}}}, None, "is dict, not array"),
        ("POST", f"{AT}/i/clone", {"cloneContext": {"pointInTime": "yesterday"}}, None, "not a time"),
        ("GET", f"{AT}/i", {}, None, "takes no body"),
        ("GET", f"{AT}/i", None, b'{"state": "STOPPED"}', "none of"),
        ("GET", f"{AT}/i", None, b'{"settings": {"settingsVersion": 1}}', "is int, not string"),
        ("GET", "/v1/projects/p/operations/o", None, b'{"status": "FAILED"}', "none of"),
        ("DELETE", f"{AT}/i?final=true", None, None, "no parameter 'final'"),
    ],
)
def test_what_the_description_does_not_allow_is_a_violation(
    verb: str, target: str, body: object, answer: bytes | None, expected: str
) -> None:
    (found,) = violations(verb, target, body, Response("200 OK", body=answer or b"{}"))
    assert expected in found


@pytest.mark.parametrize(
    ("error", "right"),
    [
        ({"code": 404, "message": "said", "errors": [{"reason": "instanceDoesNotExist"}]}, True),
        ({"code": 404, "message": "said", "status": "NOT_FOUND"}, False),
        ({"code": 400, "message": "said", "errors": [{"reason": "instanceDoesNotExist"}]}, False),
    ],
)
def test_an_error_must_look_like_cloud_sql_s(error: Json, right: bool) -> None:  # noqa: FBT001  of the table
    answer = Response("404 Not Found", body=json.dumps({"error": error}).encode())
    assert right is (violations("GET", f"{AT}/i", None, answer) == [])


@pytest.mark.parametrize(
    ("verb", "path", "expected"),
    [
        ("GET", "/instances", "instances.list"),
        ("POST", "/instances", "instances.insert"),
        ("PATCH", "/instances/i", "instances.patch"),
        ("POST", "/instances/i/clone", "instances.clone"),
        ("POST", "/instances/i/restoreBackup", "instances.restoreBackup"),
        ("GET", "/instances/i/users", "users.list"),
        ("GET", "/operations/o", "operations.get"),
        ("GET", "/backups", "Backups.ListBackups"),
        ("GET", "/tiers", "tiers.list"),
    ],
)
def test_a_call_is_known_by_the_method_that_the_description_names(
    gcp_double: GcpDouble, verb: str, path: str, expected: str
) -> None:
    requests.request(verb, f"{gcp_double.url}/v1/projects/p{path}", json=None, timeout=10)
    assert ("sql", f"sql.{expected}") == (gcp_double.calls[-1].service, gcp_double.calls[-1].operation)


def test_who_has_a_wrong_token_is_let_in_nowhere(gcp_double: GcpDouble) -> None:
    wrong = {"Authorization": "Bearer wrong"}
    answer = requests.get(f"{gcp_double.url}/v1/projects/p/instances", headers=wrong, timeout=10)
    assert (401, "authError") == (answer.status_code, answer.json()["error"]["errors"][0]["reason"])

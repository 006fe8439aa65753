"""Azure Database that drops, throttles, truncates, refuses or fails later: nothing is doubled, lost, or another's."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import attrs
import pytest
from azure.core import exceptions as native
from azure.core.pipeline.transport import HttpRequest

from shiftable.config import Credential
from shiftable.database import Database, Databases, DatabaseSpec
from shiftable.errors import (
    AlreadyExists,
    ConfigError,
    Conflict,
    IntegrityError,
    InvalidArgument,
    NotFound,
    OperationError,
    PermissionDenied,
    QuotaExceeded,
    Throttled,
    Timeout,
    Unauthenticated,
    Unavailable,
    Unsupported,
)
from shiftable.testing.harness import Call
from shiftable_azure import AzureDatabaseSettings
from shiftable_azure._arm import ArmAnswer
from shiftable_azure._errands import Errand, Step
from shiftable_azure.database import AzureDatabaseDriver
from shiftable_azure.double import AzureDouble
from shiftable_azure.errors import DATABASE_CODES, ArmFailure, classify_database

PASSWORD = "Ab3-" + "canary" * 3

Make = Callable[..., AzureDatabaseDriver]


def declared(name: str = "orders", **changed: Any) -> DatabaseSpec:
    plain = DatabaseSpec(
        name=name,
        engine="postgresql",
        version="16",
        cpus=2,
        memory_gib=8,
        storage_gib=32,
        deletion_protection=False,
        databases=("shop",),
        password=Credential.literal(PASSWORD),
    )
    return attrs.evolve(plain, **changed)


@pytest.fixture
def databases(azure_double: AzureDouble, database_driver: AzureDatabaseDriver) -> Databases:
    return Databases(database_driver, sleep=azure_double.clock.advance)


@pytest.fixture
def orders(databases: Databases) -> Database:
    made = databases.create(declared())
    made.wait()
    return made


def is_(*operations: str) -> Callable[[Call], bool]:
    return lambda call: call.operation in operations


def sent(double: AzureDouble, operation: str) -> int:
    return sum(call.operation == operation and call.status not in {None, 429, 503} for call in double.calls)


# answers that do not arrive


@pytest.mark.parametrize("kind", ["drop_before", "drop_after", "truncate"])
@pytest.mark.parametrize("minutes", [0, 5])
def test_a_server_whose_creation_is_not_heard_of_is_made_once_and_is_ours(
    azure_double: AzureDouble, databases: Databases, kind: Any, minutes: int
) -> None:
    azure_double.databases.delay = timedelta(minutes=minutes)
    lost = azure_double.inject(kind, match=is_("Servers_Create"), times=1)
    database = databases.create(declared())
    assert database.wait().state == "available"
    assert databases.describe("orders").databases == ("shop",)
    assert [server.password for server in azure_double.databases.servers.values()] == [PASSWORD]
    assert lost.hits == 1


def test_somebody_elses_server_that_comes_meanwhile_is_not_ours(
    azure_double: AzureDouble, databases: Databases
) -> None:
    databases.create(declared("template")).wait()
    template = azure_double.databases.server("template")
    properties = {**template.properties, "administratorLogin": "somebody", "state": "Provisioning"}
    busy = azure_double.clock.now() + timedelta(hours=1)

    def meanwhile(call: Call) -> bool:
        if call.operation == "Servers_Create":
            other = attrs.evolve(template, name="orders", properties=properties, tags={"team": "x"}, until=busy)
            azure_double.databases.add(other, None)
        return call.operation == "Servers_Create"

    azure_double.inject("drop_before", match=meanwhile, times=1)
    with pytest.raises(AlreadyExists, match="somebody else"):
        databases.create(declared())
    assert azure_double.databases.server("orders").properties["administratorLogin"] == "somebody"
    assert databases.database("orders").info().state == "creating"


@pytest.mark.parametrize("kind", ["drop_before", "drop_after", "truncate"])
@pytest.mark.parametrize(
    "operation",
    ["Databases_Create", "FirewallRules_Create", "Configurations_Update", "Locks_Create", "GetOperationStatus"],
)
def test_what_comes_after_the_server_comes_through_a_bad_line(
    azure_double: AzureDouble, databases: Databases, kind: Any, operation: str
) -> None:
    azure_double.databases.delay = timedelta(seconds=30)
    spec = declared(
        public=True, allow_from=("192.0.2.0/24",), parameters={"work_mem": "8192"}, deletion_protection=True
    )
    lost = azure_double.inject(kind, match=is_(operation), times=1)
    databases.create(spec).wait()
    assert databases.diff(spec) == ()
    assert lost.hits == 1


@pytest.mark.parametrize("kind", ["drop_before", "drop_after", "truncate"])
@pytest.mark.parametrize("minutes", [0, 5])
def test_a_server_is_stopped_started_and_deleted_through_a_bad_line(
    azure_double: AzureDouble, databases: Databases, orders: Database, kind: Any, minutes: int
) -> None:
    azure_double.databases.delay = timedelta(minutes=minutes)
    operations = ("Servers_Stop", "Servers_Start", "Servers_Restart", "Servers_Update", "Servers_Delete")
    lost = [azure_double.inject(kind, match=is_(operation), times=1) for operation in operations]
    orders.stop()
    assert orders.wait("stopped").state == "stopped"
    orders.start()
    orders.wait()
    orders.restart()
    orders.wait()
    orders.resize(storage_gib=64)
    orders.wait()
    assert databases.describe("orders").storage_gib == 64
    databases.delete("orders", final_snapshot=False)
    orders.wait_deleted()
    assert azure_double.databases.servers == {}
    assert [each.hits for each in lost] == [1] * 5


@pytest.mark.parametrize("kind", ["drop_before", "drop_after", "truncate"])
def test_a_snapshot_whose_answer_is_lost_is_taken_once(azure_double: AzureDouble, orders: Database, kind: Any) -> None:
    azure_double.databases.delay = timedelta(minutes=1)
    azure_double.inject(kind, match=is_("Backups_Create"), times=1)
    orders.snapshot("first")
    assert orders.wait_snapshot("first").state == "available"
    orders.wait()
    assert [snapshot.name for snapshot in orders.snapshots()] == ["first"]


def test_a_network_that_stays_away_is_unavailable_and_loses_no_errand(
    azure_double: AzureDouble, make_databases: Make
) -> None:
    databases = Databases(make_databases(max_attempts=2), sleep=azure_double.clock.advance)
    azure_double.databases.delay = timedelta(minutes=1)
    database = databases.create(declared())
    away = azure_double.inject("drop_before", times=2)
    with pytest.raises(Unavailable):
        database.info()
    assert away.hits == 2
    database.wait()
    assert databases.describe("orders").databases == ("shop",)


@pytest.mark.parametrize(("status", "error"), [(403, PermissionDenied), (500, Unavailable), (429, Throttled)])
def test_a_look_that_is_refused_loses_no_errand(
    azure_double: AzureDouble, make_databases: Make, status: int, error: type[OperationError]
) -> None:
    databases = Databases(make_databases(max_attempts=1), sleep=azure_double.clock.advance)
    azure_double.databases.delay = timedelta(minutes=1)
    database = databases.create(declared())
    for operation in ("Servers_Get", "GetOperationStatus"):
        if (status, operation) != (403, "GetOperationStatus"):
            azure_double.inject("status", status=status, body=b"{}", match=is_(operation), times=1)
            with pytest.raises(error):
                database.info()
    database.wait()
    assert databases.describe("orders").databases == ("shop",)


@pytest.mark.parametrize("status", [429, 503])
def test_azure_is_given_the_time_that_it_asks_for(azure_double: AzureDouble, databases: Databases, status: int) -> None:
    body = b'{"error": {"code": "TooManyRequests", "message": "slow down"}}'
    refused = azure_double.inject("status", status=status, headers=[("Retry-After", "40")], body=body, times=2)
    before = azure_double.clock.now()
    databases.create(declared()).wait()
    assert (azure_double.clock.now() - before).total_seconds() >= 80
    assert refused.hits == 2


def test_a_throttled_service_is_throttled_in_the_end(azure_double: AzureDouble, make_databases: Make) -> None:
    driver = make_databases(max_attempts=2)
    azure_double.arm.throttled = 100
    with pytest.raises(Throttled):
        Databases(driver).describe("orders")


def test_a_body_that_is_no_json_is_no_answer(azure_double: AzureDouble, make_databases: Make) -> None:
    databases = Databases(make_databases(max_attempts=1))
    azure_double.inject("status", status=200, body=b"<html>proxy</html>", times=1)
    with pytest.raises(Unavailable):
        databases.describe("orders")


# operations that end badly


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("InsufficientCapacity", Unavailable),
        ("ZonalAllocationFailed", Unavailable),
        ("ServerNameAlreadyExists", AlreadyExists),
        ("InvalidParameterValue", InvalidArgument),
        ("SubscriptionQuotaExceeded", QuotaExceeded),
        ("InternalServerError", Unavailable),
        ("NeverHeardOf", OperationError),
    ],
)
@pytest.mark.parametrize("minutes", [0, 5])
def test_a_creation_that_fails_later_is_the_error_of_who_waits(
    azure_double: AzureDouble, databases: Databases, code: str, error: type[OperationError], minutes: int
) -> None:
    azure_double.databases.delay = timedelta(minutes=minutes)
    azure_double.databases.fail("Servers_Create", code, "it did not work out")
    database = databases.create(declared())
    with pytest.raises(error, match="it did not work out") as caught:
        database.wait()
    assert caught.value.code == code
    assert not databases.exists("orders")
    databases.create(declared()).wait()


def test_an_operation_that_is_told_of_by_location_alone_fails_too(
    azure_double: AzureDouble, databases: Databases
) -> None:
    azure_double.databases.location_only = True
    azure_double.databases.delay = timedelta(minutes=1)
    azure_double.databases.fail("Servers_Create", "ServerNameAlreadyExists", "it is taken")
    database = databases.create(declared())
    with pytest.raises(AlreadyExists):
        database.wait()
    databases.create(declared()).wait()
    assert databases.describe("orders").databases == ("shop",)


def test_a_step_that_fails_is_raised_once_and_the_next_plan_says_what_is_missing(
    azure_double: AzureDouble, databases: Databases
) -> None:
    azure_double.databases.fail("Databases_Create", "InvalidParameterValue", "not that one")
    database = databases.create(declared())
    with pytest.raises(InvalidArgument, match="the database shop: not that one"):
        database.wait()
    assert database.info().state == "available"
    (change,) = databases.diff(declared())
    assert [field.name for field in change.fields] == ["databases"]
    databases.apply(change)
    database.wait()
    assert databases.diff(declared()) == ()


@pytest.mark.parametrize(
    ("parameters", "match"),
    [
        ({"nonsense": "1"}, "does not exist"),
        ({"work_mem": "8MB"}, "not allowed"),
        ({"data_directory": "/x"}, "allowed"),
    ],
)
def test_a_parameter_that_azure_refuses_is_named(databases: Databases, parameters: dict[str, str], match: str) -> None:
    database = databases.create(declared(parameters=parameters))
    with pytest.raises(InvalidArgument, match=match):
        database.wait()


def test_a_deletion_that_fails_is_the_error_of_who_waits(
    azure_double: AzureDouble, databases: Databases, orders: Database
) -> None:
    azure_double.databases.delay = timedelta(minutes=1)
    azure_double.databases.fail("Servers_Delete", "InternalServerError", "try again")
    databases.delete("orders", final_snapshot=False)
    assert orders.info().state == "deleting"
    with pytest.raises(Unavailable, match="the deletion of the server orders: try again"):
        orders.wait_deleted()
    databases.delete("orders", final_snapshot=False)
    orders.wait_deleted()


def test_an_operation_that_never_ends_is_a_timeout(azure_double: AzureDouble, databases: Databases) -> None:
    azure_double.databases.delay = timedelta(days=1)
    clock = iter(range(0, 10**6, 60))
    database = Databases(databases.unwrap(AzureDatabaseDriver), clock=lambda: next(clock), sleep=lambda _: None).create(
        declared()
    )
    with pytest.raises(Timeout, match="orders"):
        database.wait(timeout=timedelta(minutes=10))


def test_a_snapshot_is_told_of_while_it_is_taken_and_not_if_it_fails(
    azure_double: AzureDouble, databases: Databases, orders: Database
) -> None:
    azure_double.databases.delay = timedelta(minutes=3)
    orders.snapshot("first")
    assert [(one.name, one.state) for one in orders.snapshots()] == [("first", "creating")]
    assert orders.wait_snapshot("first").state == "available"
    orders.wait()
    azure_double.databases.fail("Backups_Create", "InternalServerError", "no backup now")
    orders.snapshot("second")
    with pytest.raises(Unavailable, match="no backup now"):
        orders.wait_snapshot("second")
    assert [one.name for one in orders.snapshots()] == ["first"]
    assert databases.describe("orders").databases == ("shop",)


# names, quotas, locations


def test_a_name_that_somebody_else_has_is_taken(azure_double: AzureDouble, databases: Databases) -> None:
    azure_double.databases.taken.add("orders")
    with pytest.raises(AlreadyExists, match="names are global"):
        databases.create(declared())
    assert sent(azure_double, "Servers_Create") == 0


def test_a_server_of_another_engine_has_the_name_too(databases: Databases, orders: Database) -> None:
    with pytest.raises(AlreadyExists, match="resource group"):
        databases.create(declared(engine="mysql", version="8.4"))
    assert orders.info().engine == "postgresql"


def test_one_name_for_both_engines_is_never_guessed_about(
    azure_double: AzureDouble, databases: Databases, make_databases: Make, orders: Database
) -> None:
    held = azure_double.databases.server("orders")
    Databases(make_databases()).create(declared("other", engine="mysql", version="8.4")).wait()
    servers = azure_double.databases.servers
    (other,) = [server for server in servers.values() if server.name == "other"]
    servers["mysql", held.group.lower(), "orders"] = attrs.evolve(other, name="orders")
    fresh = Databases(make_databases())
    for call in (lambda: fresh.describe("orders"), lambda: fresh.delete("orders", final_snapshot=False)):
        with pytest.raises(Conflict, match="two resource groups"):
            call()
    assert orders.info().engine == "postgresql"
    del servers["mysql", held.group.lower(), "orders"]


def test_a_quota_is_a_quota_whatever_azure_calls_it(azure_double: AzureDouble, databases: Databases) -> None:
    azure_double.databases.cpus = 3
    databases.create(declared("first")).wait()
    with pytest.raises(QuotaExceeded):
        databases.create(declared("second"))


def test_a_location_that_is_closed_to_the_subscription_says_so(azure_double: AzureDouble, databases: Databases) -> None:
    azure_double.databases.restricted.add("germanywestcentral")
    with pytest.raises(Unsupported, match="choose another location"):
        databases.create(declared())


def test_without_a_location_nothing_is_made(azure_double: AzureDouble, make_databases: Make) -> None:
    with pytest.raises(ConfigError, match="location"):
        Databases(make_databases(location=None)).create(declared())
    assert azure_double.databases.servers == {}


def test_an_eighth_snapshot_is_refused_with_the_limit(orders: Database) -> None:
    for number in range(7):
        orders.snapshot(f"s{number}")
        orders.wait()
    with pytest.raises(QuotaExceeded):
        orders.snapshot("s7")
    orders.delete_snapshot("s0")
    assert orders.snapshot("s7").name == "s7"


def test_150_servers_are_listed_in_pages_that_are_throttled(azure_double: AzureDouble, databases: Databases) -> None:
    azure_double.databases.page_size = 20
    azure_double.databases.cpus = 1000
    for number in range(150):
        spec = declared(
            f"s{number:03}", engine="postgresql" if number % 2 else "mysql", version=("8.4", "16")[number % 2]
        )
        databases.create(spec)
    azure_double.inject(
        "status", status=429, headers=[("Retry-After", "20")], times=3, match=lambda call: "skiptoken" in call.query
    )
    found = [database.name for database in databases.list()]
    assert sorted(found) == [f"s{number:03}" for number in range(150)]


# states


def test_one_operation_at_a_time(azure_double: AzureDouble, databases: Databases, orders: Database) -> None:
    azure_double.databases.delay = timedelta(minutes=5)
    orders.resize(storage_gib=64)
    assert orders.info().state == "updating"
    calls: list[Callable[[], object]] = [
        lambda: orders.resize(cpus=4, memory_gib=16),
        orders.stop,
        orders.restart,
        lambda: orders.snapshot("x"),
        lambda: databases.delete("orders", final_snapshot=False),
    ]
    for call in calls:
        with pytest.raises(Conflict):
            call()
    orders.wait()
    assert databases.describe("orders").storage_gib == 64


def test_what_another_program_does_meanwhile_is_waited_for(
    azure_double: AzureDouble, databases: Databases, make_databases: Make
) -> None:
    azure_double.databases.delay = timedelta(minutes=2)
    other = Databases(make_databases(), sleep=azure_double.clock.advance)
    database = databases.create(declared())
    azure_double.clock.advance(130)
    other.database("orders").resize(storage_gib=64)
    assert database.info().state == "creating"
    assert database.wait().state == "available"
    assert databases.describe("orders").databases == ("shop",)


def test_a_server_that_somebody_stops_meanwhile_is_stopped(
    azure_double: AzureDouble, databases: Databases, make_databases: Make
) -> None:
    database = databases.create(declared())
    other = Databases(make_databases(), sleep=azure_double.clock.advance).database("orders")
    other.stop()
    assert database.info().state == "stopped"
    database.start()
    database.wait()
    (change,) = databases.diff(declared())
    assert [field.name for field in change.fields] == ["databases"]


@pytest.mark.parametrize(
    ("raw", "state"),
    [
        ("Ready", "available"), ("Provisioning", "creating"), ("Updating", "updating"), ("Restarting", "updating"),
        ("Starting", "starting"), ("Stopping", "stopping"), ("Stopped", "stopped"), ("Dropping", "deleting"),
        ("Disabled", "failed"), ("Inaccessible", "failed"), ("SomethingNew", "unknown"),
    ],
)  # fmt: skip
def test_each_state_of_azure_has_one_of_ours(azure_double: AzureDouble, orders: Database, raw: str, state: str) -> None:
    azure_double.databases.server("orders").state = raw
    info = orders.info()
    assert (info.state, info.raw_state) == (state, raw)
    azure_double.databases.server("orders").state = "Ready"


def test_what_a_stopped_server_does_not_tell_does_not_keep_it_from_being_deleted(
    azure_double: AzureDouble, databases: Databases, orders: Database
) -> None:
    orders.stop()
    body = b'{"error": {"code": "ServerIsStopped", "message": "start it first"}}'
    azure_double.inject("status", status=409, body=body, match=is_("Databases_List", "Configurations_List"), times=None)
    assert databases.describe("orders").databases == ()
    databases.delete("orders", final_snapshot=False)
    orders.wait_deleted()


def test_what_a_process_left_undone_the_next_one_does(
    azure_double: AzureDouble, databases: Databases, make_databases: Make
) -> None:
    azure_double.databases.delay = timedelta(minutes=1)
    spec = declared(
        public=True, allow_from=("192.0.2.0/24",), parameters={"work_mem": "8192"}, deletion_protection=True
    )
    databases.create(spec)
    later = Databases(make_databases(), sleep=azure_double.clock.advance)
    database = later.open(spec)
    database.wait()
    (change,) = later.diff(spec)
    missing = ["deletion_protection", "allow_from", "databases", "parameters"]
    assert [field.name for field in change.fields] == missing
    later.apply(change)
    database.wait()
    assert later.diff(spec) == ()


def test_an_errand_may_have_more_steps_than_pythons_stack_is_deep() -> None:
    class Willing:
        """Takes everything at once."""

        taken = 0

        def call(self, *_: object, **__: object) -> ArmAnswer:
            self.taken += 1
            return ArmAnswer(200, {}, {})

    session: Any = Willing()
    errand = Errand("updating", lambda: [Step(f"d{number}", "PUT", "/d", "v") for number in range(5_000)])
    assert errand.is_done(session)
    assert session.taken == 5_000


def test_threads_that_wait_for_the_same_server_send_each_request_once(
    azure_double: AzureDouble, databases: Databases
) -> None:
    azure_double.databases.delay = timedelta(seconds=20)
    spec = declared(databases=tuple(f"d{number}" for number in range(8)))
    database = databases.create(spec)
    failed: list[Exception] = []

    def look() -> None:
        try:
            for _ in range(25):
                database.info()
                azure_double.clock.advance(2)
        except Exception as exc:  # noqa: BLE001  told below
            failed.append(exc)

    threads = [threading.Thread(target=look) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    database.wait()
    assert failed == []
    accepted = [call for call in azure_double.calls if call.operation == "Databases_Create" and call.status == 202]
    assert len(accepted) == 8


# locks


def test_a_lock_of_the_resource_group_protects_and_is_not_ours_to_remove(
    azure_double: AzureDouble, databases: Databases, orders: Database
) -> None:
    azure_double.databases.group_locks["all"] = "CanNotDelete"
    assert databases.describe("orders").deletion_protection
    with pytest.raises(Conflict, match="protected"):
        databases.delete("orders")
    with pytest.raises(Conflict, match="lock"):
        orders.protect(on=False)
    azure_double.databases.group_locks.clear()


def test_a_server_that_is_locked_by_somebody_meanwhile_is_not_deleted(
    azure_double: AzureDouble, databases: Databases, orders: Database
) -> None:
    azure_double.databases.server("orders").locks["theirs"] = {"level": "CanNotDelete"}
    driver = databases.unwrap(AzureDatabaseDriver)
    with pytest.raises(native.HttpResponseError) as caught:
        driver.delete("orders", final_snapshot=None)
    fault = driver.classify(caught.value)
    assert fault is not None
    assert (fault.error, "remove the lock" in fault.message) == (Conflict, True)
    assert orders.info().state == "available"


def test_a_network_leaves_a_protected_server_which_is_protected_again(
    azure_double: AzureDouble, databases: Databases
) -> None:
    spec = declared(public=True, allow_from=("192.0.2.0/24", "198.51.100.7/32"), deletion_protection=True)
    database = databases.create(spec)
    database.wait()
    fewer = attrs.evolve(spec, allow_from=("198.51.100.7/32",))
    for change in databases.diff(fewer):
        databases.apply(change)
    database.wait()
    held = azure_double.databases.server("orders")
    assert [rule["properties"]["startIpAddress"] for rule in held.rules.values()] == ["198.51.100.7"]
    assert [lock["level"] for lock in held.locks.values()] == ["CanNotDelete"]
    assert databases.diff(fewer) == ()


# who asks


@pytest.mark.parametrize(
    "action",
    ["read", "write", "delete", "stop/action", "databases/write", "backups/write", "configurations/read"],
)
def test_a_missing_permission_is_named(
    azure_double: AzureDouble, databases: Databases, orders: Database, action: str
) -> None:
    name = f"Microsoft.DBforPostgreSQL/flexibleServers/{action}"
    azure_double.arm.denied.add(name)
    calls: dict[str, Callable[[], object]] = {
        "read": orders.info,
        "write": lambda: orders.resize(storage_gib=64),
        "delete": lambda: databases.delete("orders", final_snapshot=False),
        "stop/action": orders.stop,
        "databases/write": lambda: (_apply(databases, declared(databases=("shop", "more"))), orders.wait()),
        "backups/write": lambda: orders.snapshot("x"),
        "configurations/read": lambda: databases.describe("orders"),
    }
    with pytest.raises(PermissionDenied, match=name):
        calls[action]()
    azure_double.arm.denied.clear()
    assert orders.info().state == "available"


def _apply(databases: Databases, spec: DatabaseSpec) -> None:
    for change in databases.diff(spec):
        databases.apply(change)


def test_who_may_not_lock_hears_it_and_the_server_stands(azure_double: AzureDouble, databases: Databases) -> None:
    azure_double.arm.denied.add("Microsoft.Authorization/locks/write")
    database = databases.create(declared(deletion_protection=True))
    with pytest.raises(PermissionDenied, match="Microsoft.Authorization/locks/write"):
        database.wait()
    assert database.info().state == "available"


def test_a_wrong_token_a_wrong_group_and_a_wrong_subscription_are_three_errors(
    azure_double: AzureDouble, make_databases: Make
) -> None:
    cases: list[tuple[dict[str, Any], type[OperationError], str]] = [
        ({"arm_token": Credential.literal("tok" + "en-of-another")}, Unauthenticated, "token"),
        ({"resource_group": "elsewhere"}, InvalidArgument, "resource_group"),
        ({"subscription": "11111111-1111-1111-1111-111111111111"}, InvalidArgument, "subscription"),
    ]
    for changed, error, match in cases:
        with pytest.raises(error, match=match) as caught:
            Databases(make_databases(**changed)).describe("orders")
        assert "en-of-another" not in str(caught.value)
    assert azure_double.databases.servers == {}


def test_a_resource_provider_that_is_not_registered_has_no_servers(
    azure_double: AzureDouble, databases: Databases, orders: Database, make_databases: Make
) -> None:
    body = b'{"error": {"code": "MissingSubscriptionRegistration", "message": "register Microsoft.DBforMySQL"}}'
    azure_double.inject(
        "status", status=409, body=body, match=lambda call: "Microsoft.DBforMySQL" in call.path, times=None
    )
    fresh = Databases(make_databases())
    assert [database.name for database in fresh.list()] == ["orders"]
    assert fresh.describe("orders").engine == "postgresql"
    assert not fresh.exists("missing")
    with pytest.raises(Conflict, match=r"register Microsoft\.DBforMySQL"):
        fresh.create(declared("other", engine="mysql", version="8.4"))
    assert orders.info().state == "available"


def test_a_link_to_another_host_is_not_followed(azure_double: AzureDouble, databases: Databases) -> None:
    link = [("Azure-AsyncOperation", "https://evil.example/op"), ("Location", "https://evil.example/op")]
    azure_double.inject("status", status=202, headers=link, match=is_("Servers_Create"), times=1)
    database = databases.create(declared())
    with pytest.raises(IntegrityError, match=r"evil\.example"):
        database.info()


def test_the_password_is_in_no_error_and_no_log(
    azure_double: AzureDouble, databases: Databases, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    databases.create(declared()).wait()
    database = databases.open(declared())
    azure_double.inject("status", status=400, body=b'{"error": {"code": "x", "message": "y"}}', times=1)
    with pytest.raises(OperationError) as caught:
        database.set_password(database.password())
    shown = f"{caught.value!r} {caught.value.__cause__!r} {databases.unwrap(AzureDatabaseDriver)!r} {caplog.text}"
    assert "canary" not in shown
    for password in ("short", "all-small-and-" + "canary", "Xx1-shiftadmin-" + "canary"):
        with pytest.raises(InvalidArgument, match="password") as refused:
            databases.create(declared("other", password=Credential.literal(password)))
        assert "canary" not in f"{refused.value!r}"
    assert "canary" not in repr(azure_double.calls)


# codes


def answered(status: int, code: str, message: str = "m") -> native.HttpResponseError:
    """Return what the SDK raises for an answer; whatever class it makes of it."""
    response: Any = SimpleNamespace(status_code=status, headers={}, reason="because", request=HttpRequest("GET", "/"))
    exc = native.ResourceExistsError(message="the SDK's words", response=response)
    exc.error = SimpleNamespace(code=code, message=message)  # type: ignore[assignment]  # as the SDK would parse it
    return exc


@pytest.mark.parametrize("code", sorted(DATABASE_CODES))
def test_a_code_means_the_same_in_an_answer_and_in_an_operation(code: str) -> None:
    refused, failed = classify_database(answered(409, code)), classify_database(ArmFailure(code, "m"))
    assert refused is not None
    assert failed is not None
    assert (refused.error, failed.error) == (DATABASE_CODES[code], DATABASE_CODES[code])


def test_what_azure_calls_not_allowed_is_a_quota_where_it_says_so() -> None:
    plain = classify_database(answered(409, "OperationNotAllowed", "The operation is not allowed now."))
    quota = classify_database(answered(409, "OperationNotAllowed", "exceeding approved Cores Quota"))
    assert [fault and fault.error for fault in (plain, quota)] == [Conflict, QuotaExceeded]


def test_a_table_of_more_than_forty_codes_says_no_403_is_a_404() -> None:
    assert len(DATABASE_CODES) > 40
    for code in ("NeverHeardOf", "AuthorizationFailed"):
        fault = classify_database(answered(403, code))
        assert fault is not None
        assert fault.error is PermissionDenied


def test_what_is_none_of_azures_is_not_claimed() -> None:
    assert classify_database(KeyError("x")) is None


def test_times_that_cannot_be_restored_are_refused_before_anything_is_made(
    azure_double: AzureDouble, databases: Databases, orders: Database
) -> None:
    for when in (datetime.now(UTC) - timedelta(days=40), datetime.now(UTC) + timedelta(days=40)):
        with pytest.raises(InvalidArgument):
            orders.restore("older", at=when)
    with pytest.raises(InvalidArgument, match="administrator"):
        orders.restore(declared("older", admin="another"), at=azure_double.clock.now())
    with pytest.raises(InvalidArgument, match="mysql"):
        orders.restore(declared("older", engine="mysql", version="8.4"), at=azure_double.clock.now())
    assert not databases.exists("older")


def test_the_times_that_can_be_restored_end_now_by_azures_clock(azure_double: AzureDouble, orders: Database) -> None:
    azure_double.clock.advance(timedelta(days=3))
    times = orders.restorable()
    assert times is not None
    assert timedelta(days=3, seconds=-1) <= times[1] - times[0] < timedelta(days=3, minutes=5)
    assert "available" == orders.restore(declared("copy"), at=times[1]).wait().state


def test_a_missing_server_is_missing_for_everything_that_the_driver_adds(
    databases: Databases, database_driver: AzureDatabaseDriver
) -> None:
    missing = databases.database("missing")
    for call in (missing.restart, lambda: missing.set_password(PASSWORD)):
        with pytest.raises(NotFound):
            call()
    assert list(Databases(database_driver).database("missing").snapshots()) == []
    assert AzureDatabaseSettings() == AzureDatabaseSettings.of(declared())

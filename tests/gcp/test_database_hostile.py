"""Lost answers, other callers, operations that end badly, quotas, names: a server is ours and whole, or we say so."""

from __future__ import annotations

import json
import logging
import re
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import attrs
import pytest

from shiftable.config import Credential
from shiftable.database import Database, Databases, DatabaseSpec
from shiftable.errors import (
    AlreadyExists,
    Conflict,
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
from shiftable.testing.conformance.database import CANARY, small_spec
from shiftable.testing.harness import Call, Kind
from shiftable_gcp import GcpDatabaseSettings, GcpProvider
from shiftable_gcp._sql_state import StoredInstance
from shiftable_gcp.database import CloudSqlDriver
from shiftable_gcp.double import GcpDouble

from .hostile import opened
from .wire import Json, Outsider


@pytest.fixture(autouse=True)
def _short_waits(short_waits: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


@pytest.fixture
def driver(provider: GcpProvider) -> CloudSqlDriver:
    return CloudSqlDriver(provider.session)


@pytest.fixture
def databases(driver: CloudSqlDriver) -> Databases:
    return Databases(driver, sleep=lambda _: None)


@pytest.fixture
def shop(databases: Databases) -> Database:
    made = databases.create(small_spec("shop"))
    made.wait()
    return made


@pytest.fixture
def impatient(hasty: GcpProvider) -> Databases:
    """Return the service, to somebody who gives up soon."""
    return Databases(hasty.database(), sleep=lambda _: None)


@pytest.fixture
def elsewhere(another: GcpProvider) -> Databases:
    """Return the service as another process has it."""
    return Databases(another.database(), sleep=lambda _: None)


class Foreign(Outsider):
    def __init__(self, double: GcpDouble) -> None:
        super().__init__(double.sql, f"/v1/projects/{double.project}")

    def create(self, name: str, **settings: Any) -> None:
        tier = {"tier": "db-custom-2-8192", "edition": "ENTERPRISE"}
        self.ask("POST", "/instances", {"name": name, "databaseVersion": "POSTGRES_16", "settings": tier | settings})
        self.ask("GET", f"/instances/{name}")
        self.ask("GET", f"/instances/{name}")


@pytest.fixture
def foreign(gcp_double: GcpDouble) -> Foreign:
    return Foreign(gcp_double)


def stored(double: GcpDouble, name: str = "shop") -> StoredInstance:
    return double.sql.instances[double.project, name]


def of(operation: str) -> Callable[[Call], bool]:
    return lambda call: call.operation == f"sql.{operation}"


def to_sql(call: Call) -> bool:
    return call.service == "sql"


def calls_of(double: GcpDouble) -> list[str]:
    return [call.operation.removeprefix("sql.") for call in double.calls if call.service == "sql"]


def operations_of(double: GcpDouble, name: str = "shop") -> list[str]:
    return [operation.kind for operation in double.sql.operations.values() if operation.target == name]


def error(code: int, reason: str, message: str = "said") -> Json:
    detail = {"reason": reason, "domain": "global", "message": message}
    return {
        "status": code,
        "body": json.dumps({"error": {"code": code, "message": message, "errors": [detail]}}).encode(),
    }


# faults on the way

FAULTS: list[tuple[Kind, Json]] = [
    ("drop_before", {}),
    ("drop_after", {}),
    ("truncate", {}),
    ("status", {"status": 429, "headers": [("Retry-After", "0")]}),
    ("status", {"status": 503, "headers": [("Retry-After", "0")]}),
    ("status", {"status": 500}),
    ("status", error(403, "rateLimitExceeded")),
    ("status", error(503, "backendError")),
]
FAULT_IDS = ["before", "after", "truncated", "429", "503", "500", "403-rate", "backend"]


@pytest.mark.parametrize(("kind", "more"), FAULTS, ids=FAULT_IDS)
@pytest.mark.parametrize(
    "operation",
    [
        "instances.insert",
        "instances.get",
        "operations.get",
        "operations.list",
        "users.list",
        "users.insert",
        "databases.list",
        "databases.insert",
        "instances.patch",
    ],
)
def test_a_server_is_made_whole_and_once_whatever_is_lost_on_the_way(
    gcp_double: GcpDouble, databases: Databases, kind: Kind, more: Json, operation: str
) -> None:
    met = [gcp_double.inject(kind, match=of(operation), **more) for _ in range(2)]
    spec = small_spec("shop")
    databases.create(spec).wait()
    assert all(each.hits for each in met)
    held = stored(gcp_double)
    assert {"postgres", "shop"} == held.databases
    assert CANARY == held.users["shiftadmin"]["password"]
    assert ["CREATE", "CREATE_USER", "CREATE_DATABASE", "UPDATE"] == list(dict.fromkeys(operations_of(gcp_double)))
    assert 1 == operations_of(gcp_double).count("CREATE")
    assert () == databases.diff(spec)


@pytest.mark.parametrize(("kind", "more"), FAULTS, ids=FAULT_IDS)
def test_a_fault_that_stays_is_told_as_what_it_is(
    gcp_double: GcpDouble, shop: Database, impatient: Databases, kind: Kind, more: Json
) -> None:
    gcp_double.inject(kind, match=to_sql, times=None, **more)
    with pytest.raises(Throttled if "rate" in str(more) or more.get("status") == 429 else Unavailable):
        impatient.database(shop.name).info()


@pytest.mark.parametrize("kind", ["drop_before", "drop_after", "truncate"])
def test_a_server_that_somebody_else_made_meanwhile_is_not_taken_for_ours(
    gcp_double: GcpDouble, databases: Databases, foreign: Foreign, kind: Kind
) -> None:
    made = list[bool]()

    def meanwhile(call: Call) -> bool:
        if call.operation != "sql.instances.insert" or made:
            return False
        made.append(True)
        foreign.create("shop")
        return True

    gcp_double.inject(kind, match=meanwhile)
    with pytest.raises(AlreadyExists):
        databases.create(small_spec("shop"))
    assert {"postgres"} == stored(gcp_double).users.keys()


@pytest.mark.parametrize("kind", ["drop_before", "drop_after", "truncate"])
@pytest.mark.parametrize("polls", [0, 3])
def test_a_server_whose_deletion_was_in_doubt_is_gone(
    gcp_double: GcpDouble, databases: Databases, shop: Database, kind: Kind, polls: int
) -> None:
    gcp_double.sql.polls = polls
    gcp_double.inject(kind, match=of("instances.delete"), times=2)
    databases.delete("shop", final_snapshot=False)
    shop.wait_deleted()
    assert {} == gcp_double.sql.instances
    assert 1 == operations_of(gcp_double).count("DELETE")
    with pytest.raises(NotFound):
        databases.delete("shop", final_snapshot=False)


@pytest.mark.parametrize("kind", ["drop_before", "drop_after", "truncate"])
def test_a_last_snapshot_in_doubt_is_taken_once(
    gcp_double: GcpDouble, databases: Databases, shop: Database, kind: Kind
) -> None:
    gcp_double.inject(kind, match=of("instances.delete"), times=2)
    databases.delete("shop", final_snapshot="last")
    shop.wait_deleted()
    assert [("last", "available")] == [(each.name, each.state) for each in shop.snapshots()]


@pytest.mark.parametrize("kind", ["drop_before", "drop_after", "truncate"])
def test_a_snapshot_in_doubt_is_taken_once(gcp_double: GcpDouble, shop: Database, kind: Kind) -> None:
    gcp_double.inject(kind, match=of("Backups.CreateBackup"), times=2)
    shop.snapshot("first")
    assert ["first"] == [each.description for each in gcp_double.sql.backups.values()]


@pytest.mark.parametrize("kind", ["drop_before", "drop_after", "truncate"])
def test_the_deletion_of_a_snapshot_in_doubt_succeeds(gcp_double: GcpDouble, shop: Database, kind: Kind) -> None:
    shop.snapshot("first")
    shop.wait()
    _complete(shop)
    gcp_double.inject(kind, match=of("Backups.DeleteBackup"), times=2)
    shop.delete_snapshot("first")
    assert {} == gcp_double.sql.backups


@pytest.mark.parametrize("kind", ["drop_before", "drop_after", "truncate"])
def test_a_change_in_doubt_happens_once(
    gcp_double: GcpDouble, databases: Databases, shop: Database, kind: Kind
) -> None:
    before = operations_of(gcp_double).count("UPDATE")
    gcp_double.inject(kind, match=of("instances.patch"), times=2)
    became = shop.resize(cpus=4, memory_gib=16)
    shop.wait()
    assert "db-custom-4-16384" == stored(gcp_double).settings["tier"]
    assert (before + 1, became) == (operations_of(gcp_double).count("UPDATE"), databases.describe("shop"))


def test_a_change_in_doubt_that_somebody_else_s_overtook_is_a_conflict(
    gcp_double: GcpDouble, shop: Database, foreign: Foreign
) -> None:
    met = list[bool]()

    def meanwhile(call: Call) -> bool:
        if call.operation != "sql.instances.patch" or met:
            return False
        met.append(True)
        foreign.ask("PATCH", "/instances/shop", {"settings": {"userLabels": {"theirs": "1"}}})
        return True

    gcp_double.inject("drop_before", match=meanwhile)
    shop.resize(cpus=4, memory_gib=16)
    with pytest.raises(Conflict, match="another writer"):
        shop.wait()
    assert "db-custom-2-8192" == stored(gcp_double).settings["tier"]


@pytest.mark.parametrize("kind", ["drop_before", "drop_after", "truncate"])
def test_stopping_and_starting_in_doubt_happen(gcp_double: GcpDouble, shop: Database, kind: Kind) -> None:
    gcp_double.inject(kind, match=of("instances.patch"), times=2)
    shop.stop()
    assert "stopped" == shop.wait("stopped").state
    gcp_double.inject(kind, match=of("instances.patch"), times=2)
    shop.start()
    assert "available" == shop.wait().state


@pytest.mark.parametrize("kind", ["drop_before", "drop_after", "truncate"])
def test_a_restore_in_doubt_overwrites_the_new_server_once_and_no_other(
    gcp_double: GcpDouble, shop: Database, kind: Kind
) -> None:
    shop.snapshot("first")
    _complete(shop)
    for operation in ("instances.insert", "instances.restoreBackup", "users.update"):
        gcp_double.inject(kind, match=of(operation), times=2)
    copy = shop.restore(small_spec("copy", password="new"), snapshot="first")
    copy.wait()
    (backup,) = gcp_double.sql.backups.values()
    held = stored(gcp_double, "copy")
    assert (backup.id, 1, "new") == (held.restored_from, held.overwritten, held.users["shiftadmin"]["password"])
    assert (None, 0) == (stored(gcp_double).restored_from, stored(gcp_double).overwritten)


def test_a_clone_whose_answer_was_lost_is_neither_asked_for_again_nor_taken_for_ours(
    gcp_double: GcpDouble, shop: Database
) -> None:
    created = shop.info().created
    assert created is not None
    gcp_double.inject("drop_after", match=of("instances.clone"))
    with pytest.raises(Unavailable):
        shop.restore(small_spec("copy"), at=created)
    assert 1 == calls_of(gcp_double).count("instances.clone")
    with pytest.raises(AlreadyExists):
        shop.restore(small_spec("copy"), at=created)


def test_the_times_that_can_be_restored_are_those_that_google_tells(
    gcp_double: GcpDouble, databases: Databases, shop: Database
) -> None:
    created = shop.info().created
    assert created is not None
    times = shop.restorable()
    assert times is not None
    assert abs(times[0] - created) < timedelta(seconds=1)
    gcp_double.clock.advance(timedelta(days=40))
    times = shop.restorable()
    assert times is not None
    assert abs(times[1] - gcp_double.clock.now()) < timedelta(seconds=5)
    assert times[1] - times[0] == timedelta(days=databases.describe("shop").backup_days)
    with pytest.raises(InvalidArgument):
        shop.restore(small_spec("older"), at=times[0] - timedelta(seconds=5))
    assert "available" == shop.restore(small_spec("copy"), at=times[0] + timedelta(seconds=5)).wait().state


def test_a_server_without_a_log_has_no_times(gcp_double: GcpDouble, databases: Databases) -> None:
    made = databases.create(attrs.evolve(small_spec("bare"), backup_days=0))
    made.wait()
    assert made.restorable() is None
    assert "projects.instances.getLatestRecoveryTime" not in calls_of(gcp_double)


def test_a_server_whose_first_backup_is_not_made_has_no_times_yet(gcp_double: GcpDouble, shop: Database) -> None:
    met = gcp_double.inject("status", match=of("projects.instances.getLatestRecoveryTime"), status=400, body=b"{}")
    assert shop.restorable() is None
    assert met.hits == 1


# names


def test_a_name_that_was_used_lately_is_told_apart_from_one_that_is_taken(
    gcp_double: GcpDouble, databases: Databases, shop: Database
) -> None:
    with pytest.raises(AlreadyExists, match="already exists"):
        databases.create(small_spec("shop"))
    databases.delete("shop", final_snapshot=False)
    shop.wait_deleted()
    with pytest.raises(AlreadyExists, match="deleted less than a week ago"):
        databases.create(small_spec("shop"))
    gcp_double.clock.advance(timedelta(days=7, seconds=1))
    assert "available" == databases.create(small_spec("shop")).wait().state


def test_a_restore_into_a_name_that_is_taken_overwrites_nothing(
    gcp_double: GcpDouble, databases: Databases, shop: Database, foreign: Foreign
) -> None:
    shop.snapshot("first")
    _complete(shop)
    foreign.create("theirs")
    for name, at in (("theirs", None), ("theirs", shop.info().created)):
        with pytest.raises(AlreadyExists):
            shop.restore(small_spec(name), snapshot=None if at else "first", at=at)
    assert 0 == stored(gcp_double, "theirs").overwritten
    assert "instances.restoreBackup" not in calls_of(gcp_double)
    assert "available" == databases.database("theirs").info().state


def test_a_server_that_took_the_place_of_the_one_to_be_restored_is_not_overwritten(
    gcp_double: GcpDouble, shop: Database, foreign: Foreign
) -> None:
    shop.snapshot("first")
    _complete(shop)
    gcp_double.sql.name_delay = timedelta(0)
    copy = shop.restore(small_spec("copy"), snapshot="first")
    for _ in range(3):
        foreign.ask("GET", "/instances/copy")
    foreign.ask("DELETE", "/instances/copy")
    for _ in range(2):
        foreign.ask("GET", "/operations")
    foreign.create("copy")
    with pytest.raises(Conflict, match="nothing was overwritten"):
        copy.wait()
    assert 0 == stored(gcp_double, "copy").overwritten


@pytest.mark.parametrize("name", ["a" * 67, "a", "a-1"])
def test_names_up_to_the_limit_are_taken(gcp_double: GcpDouble, databases: Databases, name: str) -> None:
    databases.create(small_spec(name)).wait()
    assert [name] == [each.name for each in databases.list()]


# operations that end in an error


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("QUOTA_EXCEEDED", QuotaExceeded),
        ("ZONE_RESOURCE_POOL_EXHAUSTED", QuotaExceeded),
        ("INVALID_NETWORK", InvalidArgument),
        ("INTERNAL_ERROR", OperationError),
        ("ERROR_RDBMS", OperationError),
    ],
)
def test_a_server_whose_making_failed_says_why_and_then_is_failed(
    gcp_double: GcpDouble, databases: Databases, code: str, expected: type[OperationError]
) -> None:
    gcp_double.sql.fail_next("CREATE", code, "there is no room")
    database = databases.create(small_spec("shop"))
    with pytest.raises(expected, match="there is no room") as caught:
        database.wait()
    assert (code, False) == (caught.value.code, caught.value.retryable)
    assert "failed" == database.info().state
    with pytest.raises(Conflict, match="failed"):
        database.wait()
    databases.delete("shop", final_snapshot=False)
    database.wait_deleted()
    assert {} == gcp_double.sql.instances


def test_a_failed_server_is_failed_to_other_processes_too(
    gcp_double: GcpDouble, databases: Databases, elsewhere: Databases
) -> None:
    gcp_double.sql.fail_next("CREATE")
    databases.create(small_spec("shop"))
    for _ in range(3):
        elsewhere.database("shop").info()
    with pytest.raises(Conflict, match="FAILED, INTERNAL_ERROR: An unknown error"):
        elsewhere.database("shop").wait()


def test_a_change_that_failed_says_so_once_and_the_server_goes_on(
    gcp_double: GcpDouble, databases: Databases, shop: Database
) -> None:
    before = databases.describe("shop")
    gcp_double.sql.fail_next("UPDATE", "QUOTA_EXCEEDED", "no more CPUs")
    shop.resize(cpus=8, memory_gib=32)
    with pytest.raises(QuotaExceeded, match="no more CPUs"):
        shop.wait()
    assert ("available", before) == (shop.wait().state, databases.describe("shop"))
    shop.resize(cpus=8, memory_gib=32)
    assert "available" == shop.wait().state


@pytest.mark.parametrize("kind", ["CREATE_USER", "CREATE_DATABASE", "UPDATE"])
def test_a_server_whose_setting_up_failed_is_failed_and_can_be_mended_by_its_declaration(
    gcp_double: GcpDouble, databases: Databases, elsewhere: Databases, kind: str
) -> None:
    gcp_double.sql.fail_next(kind, "INTERNAL_ERROR", "broken")
    spec = attrs.evolve(small_spec("shop"), databases=("shop", "other"))
    database = databases.create(spec)
    with pytest.raises(OperationError, match="broken"):
        database.wait()
    assert "failed" == database.info().state
    assert "creating" == elsewhere.database("shop").info().state
    (change,) = databases.diff(spec)
    databases.apply(change)
    assert "available" == database.wait().state
    assert {"postgres", "shop", "other"} == stored(gcp_double).databases
    assert CANARY == stored(gcp_double).users["shiftadmin"]["password"]
    assert () == elsewhere.diff(spec)
    assert "available" == elsewhere.database("shop").info().state


def test_a_restore_that_failed_is_nobody_s_server_and_goes_on_when_it_is_asked_for_again(
    gcp_double: GcpDouble, databases: Databases, elsewhere: Databases, shop: Database
) -> None:
    shop.snapshot("first")
    _complete(shop)
    gcp_double.sql.fail_next("RESTORE_VOLUME", "INTERNAL_ERROR", "broken")
    copy = shop.restore(small_spec("copy"), snapshot="first")
    with pytest.raises(OperationError, match="broken"):
        copy.wait()
    assert "creating" == elsewhere.database("copy").info().state  # to nobody it looks like a server with its data
    (change,) = elsewhere.diff(small_spec("copy"))
    with pytest.raises(Conflict, match="restore again"):
        elsewhere.apply(change)
    bigger = attrs.evolve(small_spec("copy", password="new"), storage_gib=30)
    again = elsewhere.database("shop").restore(bigger, snapshot="first")
    assert "available" == again.wait().state
    held = stored(gcp_double, "copy")
    assert (1, "30", "new") == (
        held.overwritten,
        held.settings["dataDiskSizeGb"],
        held.users["shiftadmin"]["password"],
    )
    with pytest.raises(AlreadyExists):
        shop.restore(small_spec("copy"), snapshot="first")


@pytest.mark.parametrize("looks", range(7))
def test_a_restore_whose_process_died_goes_on_and_overwrites_once(
    gcp_double: GcpDouble, databases: Databases, elsewhere: Databases, shop: Database, looks: int
) -> None:
    shop.snapshot("first")
    shop.snapshots()
    _complete(shop)
    dying = shop.restore(small_spec("copy"), snapshot="first")
    for _ in range(looks):  # and then this process is never heard of again
        dying.info()
    if "available" == elsewhere.database("copy").info().state:
        assert "done" == stored(gcp_double, "copy").settings["userLabels"]["shiftable-setup"]
        return
    assert "available" == elsewhere.database("shop").restore(small_spec("copy"), snapshot="first").wait().state
    assert 1 == stored(gcp_double, "copy").overwritten
    assert {"postgres", "shop"} == stored(gcp_double, "copy").databases


def test_another_snapshot_does_not_go_where_a_restore_was_given_up(
    gcp_double: GcpDouble, shop: Database, elsewhere: Databases
) -> None:
    for name in ("first", "second"):
        shop.snapshot(name)
        _complete(shop)
    shop.restore(small_spec("copy"), snapshot="first")
    with pytest.raises(AlreadyExists):
        elsewhere.database("shop").restore(small_spec("copy"), snapshot="second")
    with pytest.raises(AlreadyExists):  # nor does this process begin twice
        shop.restore(small_spec("copy"), snapshot="first")
    ids = {backup.description: id_ for id_, backup in gcp_double.sql.backups.items()}
    assert stored(gcp_double, "copy").restored_from in {None, ids["first"]}
    assert stored(gcp_double, "copy").overwritten <= 1


def test_a_snapshot_that_failed_is_failed_and_not_restored(gcp_double: GcpDouble, shop: Database) -> None:
    gcp_double.sql.fail_next("BACKUP_VOLUME")
    shop.snapshot("first")
    assert ["failed"] == [each.state for each in shop.snapshots()]
    with pytest.raises(Conflict, match="not complete"):
        shop.restore(small_spec("copy"), snapshot="first")


# who died on the way


def test_a_server_whose_maker_died_is_creating_until_its_declaration_is_applied_again(
    gcp_double: GcpDouble, databases: Databases, elsewhere: Databases
) -> None:
    spec = small_spec("shop")
    databases.create(spec)  # and this process is never heard of again
    for _ in range(4):
        assert "creating" == elsewhere.database("shop").info().state
    assert {"postgres"} == stored(gcp_double).databases
    (change,) = elsewhere.diff(spec)
    assert ["databases"] == [field.name for field in change.fields]
    with pytest.raises(Conflict, match="apply its declaration"):
        elsewhere.database("shop").resize(storage_gib=40)
    elsewhere.apply(change)
    assert "available" == elsewhere.open(spec).wait().state
    assert {"postgres", "shop"} == stored(gcp_double).databases
    assert CANARY == stored(gcp_double).users["shiftadmin"]["password"]


def test_what_others_do_to_a_server_shows_in_its_state(
    gcp_double: GcpDouble, databases: Databases, shop: Database, foreign: Foreign
) -> None:
    gcp_double.sql.polls = 10**6
    foreign.ask("POST", "/instances/shop/restart")
    info = shop.info()
    assert ("updating", "RUNNABLE, updating") == (info.state, info.raw_state)
    with pytest.raises(Conflict) as caught:
        shop.resize(cpus=4, memory_gib=16)
    assert "operationInProgress" == caught.value.code
    with pytest.raises(Conflict):
        databases.delete("shop", final_snapshot=False)


def test_an_operation_of_google_s_between_two_steps_is_waited_for(
    gcp_double: GcpDouble, databases: Databases, foreign: Foreign
) -> None:
    def between(call: Call) -> bool:
        if call.operation == "sql.users.insert" and "RESTART" not in operations_of(gcp_double):
            foreign.ask("POST", "/instances/shop/restart")
        return False

    gcp_double.inject("latency", match=between)
    assert "available" == databases.create(small_spec("shop")).wait().state
    assert "RESTART" in operations_of(gcp_double)


@pytest.mark.parametrize("polls", [0, 1, 7])
def test_operations_are_waited_for_however_long_they_take(
    gcp_double: GcpDouble, databases: Databases, polls: int
) -> None:
    gcp_double.sql.polls = polls
    spec = small_spec("shop")
    database = databases.create(spec)
    assert "available" == database.wait().state
    database.stop()
    assert "stopped" == database.wait("stopped").state
    database.start()
    assert "available" == database.wait().state
    database.restart()
    assert "available" == database.wait().state
    databases.delete("shop", final_snapshot=False)
    database.wait_deleted()
    assert not databases.exists("shop")


def test_an_operation_that_is_never_done_is_waited_for_only_so_long(
    gcp_double: GcpDouble, driver: CloudSqlDriver
) -> None:
    gcp_double.sql.polls = 10**9
    moments = iter(range(10**6))
    service = Databases(driver, clock=lambda: float(next(moments)), sleep=lambda _: None)
    with pytest.raises(Timeout, match="to be available"):
        service.create(small_spec("shop")).wait(timeout=timedelta(seconds=20))


def test_many_threads_that_wait_for_one_server_take_each_step_once(gcp_double: GcpDouble, databases: Databases) -> None:
    gcp_double.sql.polls = 3
    database = databases.create(small_spec("shop"))
    with ThreadPoolExecutor(8) as pool:
        states = {future.result().state for future in [pool.submit(database.wait) for _ in range(8)]}
    assert {"available"} == states
    assert ["CREATE", "CREATE_USER", "CREATE_DATABASE", "UPDATE"] == operations_of(gcp_double)


def test_of_many_who_make_one_server_one_succeeds(gcp_double: GcpDouble) -> None:
    barrier = threading.Barrier(4)

    def create() -> str:
        provider = opened(gcp_double)
        try:
            barrier.wait()
            Databases(provider.database(), sleep=lambda _: None).create(small_spec("shop")).wait()
        except AlreadyExists:
            return "taken"
        finally:
            provider.close()
        return "made"

    with ThreadPoolExecutor(4) as pool:
        ended = sorted(future.result() for future in [pool.submit(create) for _ in range(4)])
    assert ["made", "taken", "taken", "taken"] == ended
    assert 1 == operations_of(gcp_double).count("CREATE")


# writers


def test_settings_that_another_writer_changed_meanwhile_are_not_overwritten(
    gcp_double: GcpDouble, shop: Database, foreign: Foreign
) -> None:
    met = list[bool]()

    def meanwhile(call: Call) -> bool:
        if call.operation == "sql.instances.patch" and not met:
            met.append(True)
            foreign.ask("PATCH", "/instances/shop", {"settings": {"userLabels": {"theirs": "1"}}})
            for _ in range(2):
                foreign.ask("GET", "/instances/shop")
        return False

    gcp_double.inject("latency", match=meanwhile)
    with pytest.raises(Conflict) as caught:
        shop.resize(cpus=4, memory_gib=16)
    assert "staleData" == caught.value.code
    assert "db-custom-2-8192" == stored(gcp_double).settings["tier"]


def test_what_is_not_declared_is_left_alone(
    gcp_double: GcpDouble, databases: Databases, shop: Database, foreign: Foreign
) -> None:
    flags = [{"name": "max_connections", "value": "200"}]
    window = {"backupConfiguration": {"startTime": "03:00"}, "databaseFlags": flags}
    labels = stored(gcp_double).settings["userLabels"] | {"theirs": "1"}
    foreign.ask("PATCH", "/instances/shop", {"settings": {**window, "userLabels": labels}})
    for _ in range(2):
        foreign.ask("GET", "/instances/shop")
    spec = attrs.evolve(small_spec("shop"), backup_days=14, parameters={"work_mem": "8192"}, labels={"ours": "2"})
    (change,) = databases.diff(spec)
    assert {"backup_days", "parameters", "labels"} == {field.name for field in change.fields}
    databases.apply(change)
    shop.wait()
    held = stored(gcp_double).settings
    assert ("03:00", 14) == (
        held["backupConfiguration"]["startTime"],
        held["backupConfiguration"]["backupRetentionSettings"]["retainedBackups"],
    )
    assert [*flags, {"name": "work_mem", "value": "8192"}] == held["databaseFlags"]
    assert {"theirs": "1", "ours": "2"}.items() <= held["userLabels"].items()
    assert () == databases.diff(spec)


def test_a_stopped_server_is_compared_without_its_databases(databases: Databases, shop: Database) -> None:
    shop.stop()
    shop.wait("stopped")
    wider = attrs.evolve(small_spec("shop"), databases=("shop", "other"))
    assert () == databases.diff(wider)
    shop.start()
    shop.wait()
    (change,) = databases.diff(wider)
    assert ["databases"] == [field.name for field in change.fields]


# what is refused


def test_no_more_servers_than_the_project_may_have(gcp_double: GcpDouble, databases: Databases, shop: Database) -> None:
    gcp_double.sql.quota = 1
    with pytest.raises(QuotaExceeded, match="max instance per project"):
        databases.create(small_spec("other"))


def test_wrong_credentials_and_missing_rights_are_told_apart(
    gcp_double: GcpDouble, databases: Databases, shop: Database
) -> None:
    gcp_double.inject("status", match=to_sql, **error(403, "notAuthorized", "The client is not authorized."))
    with pytest.raises(PermissionDenied):
        databases.exists("shop")
    gcp_double.inject("status", match=to_sql, times=None, **error(401, "authError", "Invalid Credentials"))
    with pytest.raises(Unauthenticated):
        shop.info()


@pytest.mark.parametrize(
    "change",
    [
        {"labels": {"Team": "shop"}},
        {"labels": {"team": "Shop"}},
        {"labels": {"shiftable-admin": "x"}},
        {"labels": {"a" * 64: "x"}},
        {"admin": "Admin"},
        {"admin": "a.b"},
        {"cpus": 97},
        {"memory_gib": 625},
        {"high_availability": True, "backup_days": 0},
        {"backup_days": 366},
        {"storage_gib": 9},
        {"storage_gib": 65_537},
        {"version": "8"},
        {"engine": "mariadb", "version": "11"},
        {"password": None},
    ],
    ids=lambda change: "-".join(f"{key}" for key in change),
)
def test_what_cloud_sql_cannot_hold_is_refused_before_anything_is_sent(
    gcp_double: GcpDouble, databases: Databases, change: Json
) -> None:
    with pytest.raises(Unsupported):
        databases.create(attrs.evolve(small_spec("shop"), **change))
    assert [] == calls_of(gcp_double)


@pytest.mark.parametrize(
    "change",
    [
        {"parameters": {"no_such_flag": "1"}},
        {"parameters": {"work_mem": "8MB"}},
        {"native": GcpDatabaseSettings(network="nowhere")},
        {"native": GcpDatabaseSettings(tier="db-custom-3-8192")},
        {"native": GcpDatabaseSettings(edition="enterprise-plus", tier="db-custom-2-8192")},
        {"native": GcpDatabaseSettings(tier="db-n1-standard-2")},
        {"native": GcpDatabaseSettings(tier="huge")},
        {"native": GcpDatabaseSettings(edition="enterprise-plus"), "cpus": 200},
    ],
    ids=["flag", "unit", "network", "odd", "edition", "standard", "unknown", "large"],
)
def test_what_google_refuses_is_an_invalid_argument_and_nothing_is_left_of_it(
    gcp_double: GcpDouble, databases: Databases, change: Json
) -> None:
    with pytest.raises(InvalidArgument):
        databases.create(attrs.evolve(small_spec("shop"), **change))
    assert {} == gcp_double.sql.instances


def test_a_server_of_sql_server_is_not_ours(gcp_double: GcpDouble, databases: Databases, shop: Database) -> None:
    stored(gcp_double).version = "SQLSERVER_2022_STANDARD"
    assert [] == [each.name for each in databases.list()]
    with pytest.raises(Unsupported, match="SQLSERVER_2022_STANDARD"):
        shop.info()


def test_a_server_without_backups_has_no_times_to_restore(databases: Databases) -> None:
    database = databases.create(attrs.evolve(small_spec("shop"), backup_days=0))
    created = database.wait().created
    assert created is not None
    with pytest.raises(InvalidArgument, match="not enabled"):
        database.restore(small_spec("copy"), at=created)
    assert not databases.exists("copy")


def test_a_snapshot_goes_into_no_other_engine_version_or_smaller_disk(databases: Databases, shop: Database) -> None:
    shop.snapshot("first")
    _complete(shop)
    for change in ({"version": "17"}, {"engine": "mysql", "version": "8.4"}, {"storage_gib": 10}):
        with pytest.raises(InvalidArgument):
            shop.restore(attrs.evolve(small_spec("copy"), **change), snapshot="first")
    assert not databases.exists("copy")


# what is sent


def sizes() -> list[tuple[int, int, str]]:
    return [
        (1, 1, "db-custom-1-3840"),
        (1, 4, "db-custom-1-4096"),
        (1, 6, "db-custom-1-6144"),
        (1, 7, "db-custom-2-7168"),
        (2, 8, "db-custom-2-8192"),
        (3, 8, "db-custom-4-8192"),
        (6, 1, "db-custom-6-5632"),
        (2, 14, "db-custom-4-14336"),
        (96, 624, "db-custom-96-638976"),
    ]


@pytest.mark.parametrize(("cpus", "memory", "tier"), sizes())
def test_a_machine_is_made_to_measure_and_google_takes_it(
    gcp_double: GcpDouble, databases: Databases, cpus: int, memory: int, tier: str
) -> None:
    spec = attrs.evolve(small_spec("shop"), cpus=cpus, memory_gib=memory)
    databases.create(spec).wait()
    assert tier == stored(gcp_double).settings["tier"]
    assert () == databases.diff(spec)
    held = databases.describe("shop")
    assert held.cpus >= cpus
    assert held.memory_gib >= memory


def test_every_machine_to_measure_is_one_that_google_takes(gcp_double: GcpDouble) -> None:
    from shiftable_gcp._sql_rules import check_instance, defaults
    from shiftable_gcp._sql_sizes import fitting_custom

    base = defaults("POSTGRES_15")
    network = {**base["ipConfiguration"], "ipv4Enabled": True}
    for cpus in range(1, 97):
        for memory in (1, 3, 4, 7, 13, 100, 400, 624):
            found = fitting_custom(cpus, memory)
            assert found is not None
            assert found.cpus >= cpus
            assert found.memory >= memory * 2**30
            check_instance("POSTGRES_15", {**base, "tier": found.name, "ipConfiguration": network}, ())


def test_the_larger_edition_has_steps(gcp_double: GcpDouble, databases: Databases) -> None:
    native = GcpDatabaseSettings(edition="enterprise-plus")
    spec = attrs.evolve(small_spec("shop"), cpus=3, memory_gib=40, native=native, backup_days=20)
    database = databases.create(spec)
    database.wait()
    held = stored(gcp_double).settings
    assert ("db-perf-optimized-N-8", "ENTERPRISE_PLUS") == (held["tier"], held["edition"])
    assert 20 == held["backupConfiguration"]["transactionLogRetentionDays"]
    assert () == databases.diff(spec)
    became = database.resize(cpus=10)  # the edition stays, although nobody says it here
    database.wait()
    assert (16, 128, "db-perf-optimized-N-16") == (
        became.cpus,
        became.memory_gib,
        stored(gcp_double).settings["tier"],
    )
    choice = databases.unwrap(CloudSqlDriver).size(spec)
    assert "tiers.list" in choice.reason


def test_what_is_declared_is_what_google_hears(gcp_double: GcpDouble, databases: Databases) -> None:
    spec = attrs.evolve(
        small_spec("shop"),
        high_availability=True,
        public=True,
        allow_from=("192.0.2.0/24", "198.51.100.7/32"),
        tls="optional",
        deletion_protection=True,
        storage_autogrow=False,
        backup_days=3,
        labels={"team": "shop"},
        parameters={"max_connections": "200"},
        token_login=True,
        native=GcpDatabaseSettings(zone="europe-west3-b", disk="hdd"),
    )
    info = databases.create(spec).wait()
    held, region = stored(gcp_double).settings, stored(gcp_double).region
    assert "europe-west3" == region
    assert {
        "availabilityType": "REGIONAL",
        "storageAutoResize": False,
        "deletionProtectionEnabled": True,
        "retainBackupsOnDelete": True,
        "dataDiskSizeGb": "20",
        "dataDiskType": "PD_HDD",
        "edition": "ENTERPRISE",
    }.items() <= held.items()
    assert {"name": "cloudsql.iam_authentication", "value": "on"} in held["databaseFlags"]
    address = held["ipConfiguration"]
    assert (True, "ALLOW_UNENCRYPTED_AND_ENCRYPTED", None) == (
        address["ipv4Enabled"],
        address["sslMode"],
        address.get("privateNetwork"),
    )
    assert list(spec.allow_from) == [entry["value"] for entry in address["authorizedNetworks"]]
    backups = held["backupConfiguration"]
    assert (True, True, 3) == (
        backups["enabled"],
        backups["pointInTimeRecoveryEnabled"],
        backups["transactionLogRetentionDays"],
    )
    assert ("16.4", f"{gcp_double.project}:europe-west3:shop") == (info.version, info.id)
    assert () == databases.diff(spec)
    described = databases.describe("shop")
    assert attrs.evolve(spec, native=None) == described
    assert (described.admin, described.labels) == ("shiftadmin", {"team": "shop"})


@pytest.mark.parametrize(
    "change",
    [
        {"public": True, "allow_from": ("192.0.2.0/24",)},
        {"tls": "optional"},
        {"high_availability": True},
        {"backup_days": 0},
        {"backup_days": 365},
        {"storage_autogrow": False},
        {"storage_gib": 21},
        {"deletion_protection": True},
        {"cpus": 3},
        {"memory_gib": 1},
        {"token_login": True},
        {"parameters": {"max_connections": "50"}},
        {"labels": {"team": "a"}},
        {"databases": ("shop", "a b", "ü")},
        {"version": "18"},
    ],
    ids="-".join,
)
def test_whatever_changes_is_as_declared_then_and_nothing_else_changed(
    gcp_double: GcpDouble, databases: Databases, shop: Database, change: Json
) -> None:
    before = databases.describe("shop")
    spec = attrs.evolve(small_spec("shop"), **change)
    (planned,) = databases.diff(spec)
    assert change.keys() == {field.name for field in planned.fields}
    databases.apply(planned)
    shop.wait()
    assert () == databases.diff(spec)
    after = databases.describe("shop")
    same = [field.name for field in attrs.fields(DatabaseSpec) if field.eq and field.name not in change]
    assert [getattr(before, name) for name in same] == [getattr(after, name) for name in same]
    network = f"projects/{gcp_double.project}/global/networks/default"
    assert network == stored(gcp_double).settings["ipConfiguration"]["privateNetwork"]
    back = databases.unwrap(CloudSqlDriver)
    if not change.keys() & {"storage_gib", "version", "databases", "labels", "parameters"}:
        back.update(after, attrs.evolve(before, password=spec.password))
        shop.wait()
        assert before == databases.describe("shop")


def test_a_private_server_has_its_address_in_the_default_network(gcp_double: GcpDouble, shop: Database) -> None:
    address = stored(gcp_double).settings["ipConfiguration"]
    network = f"projects/{gcp_double.project}/global/networks/default"
    assert (False, network, "ENCRYPTED_ONLY") == (
        address["ipv4Enabled"],
        address["privateNetwork"],
        address["sslMode"],
    )


def test_mysql_has_binary_logs_for_its_times_and_an_administrator_from_anywhere(
    gcp_double: GcpDouble, databases: Databases
) -> None:
    spec = attrs.evolve(small_spec("shop"), engine="mysql", version="8.4", high_availability=True, token_login=True)
    database = databases.create(spec)
    info = database.wait()
    held = stored(gcp_double)
    assert ("MYSQL_8_4", True, None) == (
        held.version,
        held.settings["backupConfiguration"]["binaryLogEnabled"],
        held.settings["backupConfiguration"].get("pointInTimeRecoveryEnabled"),
    )
    assert "%" == held.users["shiftadmin"]["host"]
    assert gcp_double.email.partition("@")[0] in held.users
    assert ("shop",) == databases.describe("shop").databases
    assert () == databases.diff(spec)
    assert info.created is not None
    copy = database.restore("copy", at=info.created)
    assert "available" == copy.wait().state
    assert () == databases.diff(attrs.evolve(spec, name="copy"))


@pytest.mark.parametrize(
    ("engine", "version", "native", "told"),
    [
        ("postgresql", "16", "POSTGRES_16", "16"),
        ("postgresql", "16.4", "POSTGRES_16", "16"),
        ("postgresql", "9.6", "POSTGRES_9_6", "9.6"),
        ("postgresql", "18", "POSTGRES_18", "18"),
        ("mysql", "8", "MYSQL_8_4", "8.4"),
        ("mysql", "8.0", "MYSQL_8_0", "8.0"),
        ("mysql", "8.0.36", "MYSQL_8_0_36", "8.0.36"),
        ("mysql", "5.7", "MYSQL_5_7", "5.7"),
    ],
)
def test_versions_are_google_s_majors(
    gcp_double: GcpDouble, databases: Databases, engine: Any, version: str, native: str, told: str
) -> None:
    spec = attrs.evolve(small_spec("shop"), engine=engine, version=version)
    databases.create(spec).wait()
    assert (native, told) == (stored(gcp_double).version, databases.describe("shop").version)
    assert () == databases.diff(spec)


def test_a_server_becomes_one_of_the_next_version(gcp_double: GcpDouble, databases: Databases, shop: Database) -> None:
    (change,) = databases.diff(attrs.evolve(small_spec("shop"), version="17"))
    databases.apply(change)
    shop.wait()
    assert "POSTGRES_17" == stored(gcp_double).version


def test_a_server_of_another_tool_is_described_and_its_first_administrator_named(
    databases: Databases, foreign: Foreign
) -> None:
    foreign.create("theirs", tier="db-g1-small")
    described, info = databases.describe("theirs"), databases.database("theirs").info()
    assert (1, 1, 10, "postgres", 0) == (
        described.cpus,
        described.memory_gib,
        described.storage_gib,
        described.admin,
        described.backup_days,
    )
    assert ("available", "db-g1-small") == (info.state, info.size)
    assert info.server is not None
    assert "postgres" == info.server.admin
    assert () == databases.diff(attrs.evolve(described, databases=()))


def test_times_are_sent_in_utc_whatever_zone_they_are_of(gcp_double: GcpDouble, shop: Database) -> None:
    created = shop.info().created
    assert created is not None
    bodies = list[Json]()
    gcp_double.validators.append(lambda request, _: bodies.append(json.loads(request.body or b"{}")) or ())  # type: ignore[func-returns-value]  # it notes
    try:
        shop.restore(small_spec("copy"), at=created.astimezone(datetime.fromisoformat("2026-01-01T00:00+05:30").tzinfo))
    finally:
        gcp_double.validators.pop()
    (sent,) = [body["cloneContext"]["pointInTime"] for body in bodies if "cloneContext" in body]
    assert created == datetime.fromisoformat(sent)
    assert sent.endswith("Z")


# snapshots


def test_snapshots_outlive_their_server_and_automatic_ones_have_google_s_name(
    gcp_double: GcpDouble, databases: Databases, shop: Database
) -> None:
    shop.snapshot("mine")
    _complete(shop)
    automatic = gcp_double.sql.take_automatic(gcp_double.project, "shop")
    databases.delete("shop", final_snapshot="last")
    shop.wait_deleted()
    found = {each.name: each for each in shop.snapshots()}
    assert {"mine", "last", automatic.id} == found.keys()
    assert [automatic.id] == [name for name, each in found.items() if each.automatic]
    assert {("postgresql", "16", 20, "available")} == {
        (each.engine, each.version, each.storage_gib, each.state) for each in found.values()
    }
    copy = shop.restore(small_spec("copy"), snapshot=automatic.id)
    assert "available" == copy.wait().state
    gcp_double.clock.advance(timedelta(days=366))
    assert {"mine", automatic.id} == {each.name for each in shop.snapshots()}  # Google keeps a last one for a year


def test_the_snapshots_of_all_servers_are_listed_page_by_page(
    gcp_double: GcpDouble, databases: Databases, driver: CloudSqlDriver
) -> None:
    for name in ("one", "two"):
        databases.create(small_spec(name)).wait()
        for number in range(3):
            databases.database(name).snapshot(f"s{number}")
            _complete(databases.database(name))
    gcp_double.page_size = 4
    first = driver.snapshots(None, cursor=None, limit=None)
    assert first.next is not None
    second = driver.snapshots(None, cursor=first.next, limit=None)
    assert (4, 2, None) == (len(first.items), len(second.items), second.next)
    assert 6 == len({(each.database, each.name) for each in (*first.items, *second.items)})
    with pytest.raises(AlreadyExists):
        databases.database("one").snapshot("s0")  # which stands on the second page


def test_150_servers_are_listed_in_pages(gcp_double: GcpDouble, databases: Databases, foreign: Foreign) -> None:
    gcp_double.page_size = 40
    for number in range(150):
        foreign.create(f"server-{number}")
    before = len(calls_of(gcp_double))
    assert {f"server-{number}" for number in range(150)} == {each.name for each in databases.list()}
    assert ["instances.list"] * 4 == calls_of(gcp_double)[before:]


# passwords


def test_no_password_shows_in_logs_errors_calls_or_files(
    gcp_double: GcpDouble, databases: Databases, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    caplog.set_level(logging.DEBUG)
    gcp_double.inject("status", match=of("users.insert"), **error(400, "invalid", "no"))
    database = databases.create(small_spec("shop"))
    with pytest.raises(InvalidArgument) as caught:
        database.wait()
    seen = [repr(caught.value), str(caught.value), repr(caught.value.__cause__), caplog.text, repr(gcp_double.calls)]
    chain: BaseException | None = caught.value
    while chain is not None:
        trace = chain.__traceback__
        while trace is not None:
            if "shiftable_gcp" not in trace.tb_frame.f_code.co_filename:
                seen.append(str(trace.tb_frame.f_locals))
            trace = trace.tb_next
        chain = chain.__cause__
    seen += [path.read_text(errors="replace") for path in tmp_path.rglob("*") if path.is_file()]
    assert not re.search("c4n4ry", "".join(seen))


def test_a_password_that_cannot_be_read_makes_no_server(gcp_double: GcpDouble, databases: Databases) -> None:
    spec = attrs.evolve(small_spec("shop"), password=Credential.env("SHIFTABLE_NO_SUCH_VARIABLE"))
    with pytest.raises(Exception, match="SHIFTABLE_NO_SUCH_VARIABLE"):
        databases.create(spec)
    assert {} == gcp_double.sql.instances


def test_google_s_own_administrator_has_a_password_that_nobody_knows(gcp_double: GcpDouble, shop: Database) -> None:
    own = stored(gcp_double).users["postgres"]["password"]
    assert own
    assert own != CANARY
    assert len(own) >= 32


def test_the_administrator_may_be_google_s_own(gcp_double: GcpDouble, databases: Databases) -> None:
    spec: DatabaseSpec = attrs.evolve(small_spec("shop"), admin="postgres")
    databases.create(spec).wait()
    assert CANARY == stored(gcp_double).users["postgres"]["password"]
    assert ["CREATE", "UPDATE_USER", "CREATE_DATABASE", "UPDATE"] == operations_of(gcp_double)


def _complete(database: Database) -> None:
    while any(each.state == "creating" for each in database.snapshots()):
        database.info()
    database.wait()

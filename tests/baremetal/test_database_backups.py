"""Private servers are restored to any time of the last days, from a daily base backup and the WAL after it."""

import contextlib
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import attrs
import pytest

from shiftable.database import Database, Databases, DatabaseSpec
from shiftable.errors import InvalidArgument
from shiftable.postgresql import all_binaries
from shiftable.testing.conformance.database import small_spec
from shiftable_baremetal import _private_backups
from shiftable_baremetal._private_files import Files
from shiftable_baremetal.database import PrivateDatabaseDriver

VERSION = str(max(found.major for found in all_binaries()))


def spec_of(name: str, **fields: Any) -> DatabaseSpec:
    return attrs.evolve(small_spec(name), **{"version": VERSION, **fields})


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "database"


@pytest.fixture
def databases(root: Path) -> Iterator[Databases]:
    service = Databases(PrivateDatabaseDriver(root, fsync=False))
    yield service
    for database in service.list():
        service.delete(database.name, final_snapshot=False)


@pytest.fixture
def orders(databases: Databases) -> Database:
    return databases.create(spec_of("orders"))


def ask(database: Database, query: str) -> Any:
    with contextlib.closing(database.connect()) as connection, connection.cursor() as cursor:
        cursor.execute(query)
        row = cursor.fetchone() if cursor.description else None
        connection.commit()
        return row[0] if row else None


def now_in(database: Database) -> datetime:
    """Return the server's time, later than all commits before and earlier than all after."""
    time.sleep(0.01)
    found: datetime = ask(database, "SELECT clock_timestamp()")
    time.sleep(0.01)
    return found


def test_each_time_is_restored_with_what_was_committed_then(orders: Database) -> None:
    ask(orders, "CREATE TABLE t (a int)")
    times = []
    for _ in range(3):
        ask(orders, "INSERT INTO t VALUES (1)")
        times.append(now_in(orders))
    ask(orders, "DROP TABLE t")
    for number, when in enumerate(times):
        copy = orders.restore(spec_of(f"copy-{number}"), at=when)
        assert ask(copy, "SELECT count(*) FROM t") == number + 1
        ask(copy, "INSERT INTO t VALUES (9)")
    assert ask(orders, "SELECT to_regclass('t')") is None


@pytest.mark.parametrize("state", ["idle", "stopped"])
def test_a_server_that_does_not_run_is_restored_to_its_last_moment(orders: Database, root: Path, state: str) -> None:
    ask(orders, "CREATE TABLE t AS SELECT generate_series(1, 1000) AS a")
    orders.stop()
    if state == "idle":
        orders.start()
    copy = orders.restore(spec_of("copy"), at=datetime.now(UTC))
    assert ask(copy, "SELECT count(*) FROM t") == 1000
    assert orders.info().state == ("available" if state == "idle" else "stopped")


def test_a_restored_server_is_restored_again(orders: Database) -> None:
    ask(orders, "CREATE TABLE t AS SELECT 1 AS a")
    copy = orders.restore(spec_of("copy"), at=now_in(orders))
    ask(copy, "INSERT INTO t VALUES (2)")
    then = now_in(copy)
    ask(copy, "DELETE FROM t")
    again = copy.restore(spec_of("again"), at=then)
    assert ask(again, "SELECT sum(a) FROM t") == 3


def test_what_can_be_restored_is_told(orders: Database) -> None:
    info = orders.info()
    assert info.restorable_from is not None
    assert info.restorable_until is not None
    assert info.created is not None
    assert info.restorable_from <= info.created <= info.restorable_until
    with pytest.raises(InvalidArgument, match="there are backups from"):
        orders.restore(spec_of("copy"), at=info.restorable_from - timedelta(seconds=1))
    with pytest.raises(InvalidArgument, match="until now"):
        orders.restore(spec_of("copy"), at=datetime.now(UTC) + timedelta(hours=1))


def test_a_day_later_a_base_backup_is_made_and_what_is_too_old_goes(databases: Databases, root: Path) -> None:
    orders = databases.create(spec_of("orders", backup_days=1))
    driver, files = orders.unwrap(PrivateDatabaseDriver), Files(root / "orders")
    ask(orders, "CREATE TABLE t AS SELECT 1 AS a")
    files.backups.add(driver._cluster(files))
    first, second = files.backups.times()
    for when, days in ((first, 3), (second, 2)):  # as if they were so old
        files.backups._place(when).rename(files.backups._place(when - timedelta(days=days)))
    ask(orders, "INSERT INTO t VALUES (2)")
    times = files.backups.times()
    assert len(times) == 2
    assert times[0] == second - timedelta(days=2)
    assert datetime.now(UTC) - times[1] < timedelta(hours=1)
    then = now_in(orders)
    ask(orders, "DROP TABLE t")
    assert ask(orders.restore(spec_of("copy"), at=then), "SELECT sum(a) FROM t") == 3
    assert files.backups.times() == times


def test_wal_that_no_backup_needs_is_deleted(databases: Databases, root: Path) -> None:
    orders = databases.create(spec_of("orders", backup_days=1))
    driver, files = orders.unwrap(PrivateDatabaseDriver), Files(root / "orders")
    for _ in range(3):
        ask(orders, "SELECT 1")
        files.backups.archive_all(driver._cluster(files))
    (first,) = files.backups.times()
    before = {segment.name for segment in files.backups.archive.iterdir()}
    files.backups.add(driver._cluster(files))
    files.backups.forget_before(driver._cluster(files), datetime.now(UTC))
    assert len(files.backups.times()) == 1
    assert files.backups.times() != [first]
    after = {segment.name for segment in files.backups.archive.iterdir() if "backup" not in segment.name}
    assert len(before) >= 3
    assert not before & after
    then = now_in(orders)
    assert ask(orders.restore(spec_of("copy"), at=then), "SELECT 1") == 1


def test_without_backup_days_there_are_none_until_they_are_declared(databases: Databases, root: Path) -> None:
    orders = databases.create(spec_of("orders", backup_days=0))
    assert orders.info().restorable_from is None
    assert ask(orders, "SHOW archive_mode") == "off"
    with pytest.raises(InvalidArgument, match="declare backup_days"):
        orders.restore(spec_of("copy"), at=datetime.now(UTC))
    ask(orders, "CREATE TABLE t AS SELECT 1 AS a")
    (change,) = databases.diff(spec_of("orders", backup_days=2))
    databases.apply(change)
    assert ask(orders, "SHOW archive_mode") == "on"
    copy = orders.restore(spec_of("copy"), at=now_in(orders))
    assert ask(copy, "SELECT a FROM t") == 1
    (change,) = databases.diff(spec_of("orders", backup_days=0))
    databases.apply(change)
    assert Files(root / "orders").backups.times() == []
    assert ask(orders, "SHOW archive_mode") == "off"


def test_a_backup_that_fails_does_not_keep_anybody_from_connecting(
    orders: Database, root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    backups = Files(root / "orders").backups
    (first,) = backups.times()
    backups._place(first).rename(backups._place(first - timedelta(days=2)))

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(_private_backups.Backups, "add", full)
    assert ask(orders, "SELECT 1") == 1
    assert "the daily backup of the private server orders failed" in caplog.text

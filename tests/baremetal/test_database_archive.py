"""Any time of a server that others run is restored, from base backups and its log, one database at a time."""

from __future__ import annotations

import contextlib
import gzip
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from shiftable.blob import BlobStore
from shiftable.config import BucketReference
from shiftable.database import ArchiveProgress, Databases
from shiftable.errors import (
    Conflict,
    IntegrityError,
    InvalidArgument,
    NotFound,
    OperationError,
    QuotaExceeded,
    Unavailable,
)
from shiftable.postgresql import Cluster
from shiftable_baremetal import _archiver, _recovery, _servers_archive
from shiftable_baremetal.blob import FilesDriver

from .archived_server import (
    CANARY,
    MANAGER,
    act,
    archiving,
    ask,
    driver_of,
    now_in,
    serving,
    spec_of,
    stored,
    whole_segments,
    within,
)


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with serving(log_statement="all", max_wal_size="64MB", min_wal_size="32MB") as server:
        yield server


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "servers"


@pytest.fixture
def databases(cluster: Cluster, root: Path) -> Databases:
    return Databases(driver_of(cluster, root))


def fill(cluster: Cluster, segments: int = 1) -> None:
    """Have the server finish segments of its log."""
    for _ in range(segments):
        act(cluster, "SELECT pg_logical_emit_message(false, 'filler', repeat('x', 1000)) FROM generate_series(1, 100)")
        act(cluster, "SELECT pg_switch_wal()")


def slots(cluster: Cluster) -> list[str]:
    return sorted(row[0] for row in act(cluster, "SELECT slot_name FROM pg_replication_slots"))


# times


def test_each_time_has_what_was_committed_then_and_nothing_later(
    databases: Databases, cluster: Cluster, root: Path
) -> None:
    orders, times = databases.create(spec_of("orders", databases=("shop", "stock"))), []
    with archiving(databases):
        databases.back_up()
        ask(orders, "CREATE TABLE t (a int)")
        for number in range(4):
            ask(orders, "INSERT INTO t VALUES (1)")
            times.append(now_in(cluster))
            if number == 1:
                fill(cluster, 2)
            if number == 2:
                databases.back_up()
        ask(orders, "DROP TABLE t")
        for number, when in enumerate(times):
            copy = orders.restore(spec_of(f"copy-{number}"), at=when)
            assert number + 1 == ask(copy, "SELECT count(*) FROM t")
            ask(copy, "INSERT INTO t VALUES (9)")
            assert {"shop", "stock"} == set(databases.describe(copy.name).databases)
    assert ask(orders, "SELECT to_regclass('t')") is None
    assert [] == [each.name for each in root.with_name("servers-archive").glob("restored/at-*")]


def test_a_server_on_which_nobody_has_committed_since_is_restored_to_that_moment(
    databases: Databases, cluster: Cluster
) -> None:
    orders = databases.create(spec_of("orders"))
    with archiving(databases) as told:
        databases.back_up()
        ask(orders, "CREATE TABLE t AS SELECT 1 AS a")
        when = now_in(cluster)
        within(lambda: told[-1].until >= when, "the archive to come to that time")
    times = orders.restorable()
    assert times is not None
    assert times[0] < when <= times[1]
    assert 1 == ask(orders.restore(spec_of("copy"), at=when), "SELECT a FROM t")


def test_a_database_that_did_not_exist_then_is_not_found(databases: Databases, cluster: Cluster) -> None:
    with archiving(databases):
        databases.back_up()
        when = now_in(cluster)
        orders = databases.create(spec_of("orders"))
        with pytest.raises(NotFound, match="none of that name at 20"):
            orders.restore(spec_of("copy"), at=when)
    assert not databases.exists("copy")


def test_one_that_was_deleted_is_restored_by_its_declaration(databases: Databases, cluster: Cluster) -> None:
    with archiving(databases):
        databases.back_up()
        orders = databases.create(spec_of("orders"))
        ask(orders, "CREATE TABLE t AS SELECT 42 AS a")
        when = now_in(cluster)
        databases.delete("orders", final_snapshot=False)
        copy = orders.restore(spec_of("again"), at=when)
        assert 42 == ask(copy, "SELECT a FROM t")


def test_times_that_cannot_be_restored_are_told(
    databases: Databases, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_servers_archive, "_PATIENCE", 0.5)
    orders, now = databases.create(spec_of("orders")), datetime.now(UTC)
    with pytest.raises(InvalidArgument, match="no archive of its log"):
        orders.restore("copy", at=now)
    with pytest.raises(Conflict, match="start `shiftable db archive` first"):
        databases.back_up()
    with archiving(databases):
        with pytest.raises(InvalidArgument, match="no base backup"):
            orders.restore("copy", at=now)
        databases.back_up()
    with pytest.raises(InvalidArgument, match="the earliest time that can be restored is 20"):
        orders.restore("copy", at=now)
    with pytest.raises(InvalidArgument, match="has not come yet"):
        orders.restore("copy", at=now + timedelta(days=1))
    with pytest.raises(InvalidArgument, match="that does not change: does `shiftable db archive` run"):
        orders.restore("copy", at=now_in(cluster))
    assert ["orders"] == [each.name for each in databases.list()]


def test_what_a_killed_restore_has_left_is_deleted_by_the_next(
    databases: Databases, cluster: Cluster, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    orders = databases.create(spec_of("orders"))
    left = root.with_name("servers-archive") / "restored" / "at-killed"
    (left / "data").mkdir(parents=True)
    with archiving(databases):
        databases.back_up()
        with monkeypatch.context() as patch:
            patch.setattr(_recovery, "_ROOM", 2**60)
            with pytest.raises(QuotaExceeded, match="GiB are needed"):
                orders.restore("copy", at=now_in(cluster))
        orders.restore(spec_of("copy"), at=now_in(cluster))
    assert not left.exists()


def test_applications_connect_while_the_bucket_cannot_be_reached(
    databases: Databases, monkeypatch: pytest.MonkeyPatch
) -> None:
    orders = databases.create(spec_of("orders"))
    with archiving(databases):
        databases.back_up()
    monkeypatch.setattr(BlobStore, "bucket", broken_bucket)
    assert 1 == ask(orders, "SELECT 1")
    with pytest.raises(Unavailable, match="nobody answers"):
        orders.restorable()


def broken_bucket(*_: object) -> Any:
    raise ConnectionRefusedError(111, "nobody answers")


# without this library


def test_what_is_stored_is_restored_by_the_stock_programs(
    databases: Databases, cluster: Cluster, root: Path, tmp_path: Path
) -> None:
    orders = databases.create(spec_of("orders"))
    with archiving(databases) as told:
        made = databases.back_up()
        ask(orders, "CREATE TABLE t AS SELECT 1 AS a")
        fill(cluster, 2)
        when = now_in(cluster)
        ask(orders, "INSERT INTO t VALUES (2)")
        after = now_in(cluster)
        within(lambda: told[-1].until > after, "the archive to come to that time")
    other = Cluster(tmp_path / "other", cluster.binaries, durable=False)
    other.data.mkdir(parents=True, mode=0o700)
    store, wal = root / "snapshots" / "server", tmp_path / "other" / "wal"
    subprocess.run(["tar", "-xzf", store / f"base/{made.name}.tar.gz", "-C", other.data], check=True)
    wal.mkdir(mode=0o755)
    for each in (store / "wal").glob("*.gz"):
        (wal / each.name.removesuffix(".gz").removesuffix(".partial")).write_bytes(gzip.decompress(each.read_bytes()))
    (other.data / "recovery.signal").touch()
    for path in (other.data, *other.data.rglob("*"), wal, *wal.iterdir()):
        cluster.owner.take(path)
    other.parameters = {
        "restore_command": 'cp "../wal/%f" "%p"',
        "recovery_target_time": f"{when:%Y-%m-%d %H:%M:%S.%f+00}",
        "recovery_target_action": "promote",
        "hot_standby": "off",
    }
    try:
        with other:
            other.wait_recovered(timeout=120)
            with other.connect(orders.url().database) as connection:
                assert [(1,)] == connection.execute("SELECT a FROM t").fetchall()
    finally:
        other.remove()


# secrets


def test_no_password_is_stored_or_shown(databases: Databases, cluster: Cluster, root: Path, tmp_path: Path) -> None:
    orders = databases.create(spec_of("orders"))
    seen = set()

    def look() -> None:
        for place in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                seen.add(place.read_bytes())

    with archiving(databases):
        databases.back_up()
        look()
        orders.restore(spec_of("copy"), at=now_in(cluster))
        look()
    assert any(b"pg_receivewal" in each for each in seen)
    for secret in (MANAGER.encode(), CANARY.encode()):
        assert not any(secret in each for each in seen)
        for path in (each for each in tmp_path.rglob("*") if each.is_file()):
            content = path.read_bytes()
            assert secret not in (gzip.decompress(content) if path.suffix == ".gz" else content)
        assert secret not in cluster.log.read_bytes()
    assert 0 == root.with_name("servers-archive").stat().st_mode & 0o077


# what archivers survive


def test_only_one_archives(databases: Databases, cluster: Cluster, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_archiver, "_PATIENCE", 0.5)
    bucket = BucketReference("backups", lambda _: BlobStore(FilesDriver(root)).bucket("snapshots"), "")
    elsewhere = Databases(driver_of(cluster, root.with_name("elsewhere"), bucket))
    with archiving(databases) as told:
        with pytest.raises(Conflict, match="another process archives into"):
            databases.archive()
        with pytest.raises(Conflict, match="another process archives the server"):
            elsewhere.archive()
        with pytest.raises(Conflict, match="a process archives it"):
            databases.end_archive()
        count = len(told)
        within(lambda: len(told) > count, "the first archiver to go on")


def test_another_machine_goes_on_where_the_first_was_lost(databases: Databases, cluster: Cluster, root: Path) -> None:
    orders = databases.create(spec_of("orders"))
    with archiving(databases) as told:
        databases.back_up()
        count = len(whole_segments(root))
        fill(cluster, 2)
        within(lambda: len(whole_segments(root)) >= count + 2, "segments")
        assert told
    ask(orders, "CREATE TABLE t AS SELECT 42 AS a")
    fill(cluster, 5)
    act(cluster, "CHECKPOINT")
    archive = root.with_name("servers-archive")
    archive.rename(root.with_name("lost"))
    with archiving(databases):
        when = now_in(cluster)
        copy = orders.restore(spec_of("copy"), at=when)
    assert 42 == ask(copy, "SELECT a FROM t")
    numbers = [int(name[16:], 16) for name in whole_segments(root)]
    assert list(range(numbers[0], numbers[-1] + 1)) == numbers


def test_the_server_keeps_what_is_not_stored_and_no_more(databases: Databases, cluster: Cluster, root: Path) -> None:
    with archiving(databases):
        fill(cluster, 3)
        within(lambda: len(whole_segments(root)) >= 3, "segments")
    last = whole_segments(root)[-1]

    def kept() -> str:
        query = "SELECT min(pg_walfile_name(restart_lsn + 1)) FROM pg_replication_slots WHERE slot_name !~ 'stream'"
        return str(act(cluster, query)[0][0])

    assert last[16:] == f"{int(kept()[16:], 16) - 1:08X}"
    fill(cluster, 6)
    act(cluster, "CHECKPOINT")
    there = {row[0] for row in act(cluster, "SELECT pg_ls_dir('pg_wal')")}
    assert kept() in there
    databases.end_archive()
    assert [] == slots(cluster)


def test_a_gap_is_refused_and_gone_over_only_if_told(databases: Databases, cluster: Cluster, root: Path) -> None:
    orders = databases.create(spec_of("orders"))
    with archiving(databases):
        databases.back_up()
        before = now_in(cluster)
        act(cluster, "CREATE TABLE committed ()")
        fill(cluster, 2)
        within(lambda: len(whole_segments(root)) >= 2, "segments")
    old = whole_segments(root)
    databases.end_archive()
    for _ in range(3):
        fill(cluster, 6)
        act(cluster, "CHECKPOINT")
    with pytest.raises(Conflict, match="does not have the log any more that comes after 0000"):
        databases.archive()
    assert old == whole_segments(root)[: len(old)]
    with archiving(databases, over_gap=True):
        inside = now_in(cluster)
        with pytest.raises(IntegrityError, match="has a gap: segment"):
            orders.restore("never", at=inside)
        assert orders.restore(spec_of("early"), at=before).info().state == "available"
    with archiving(databases):  # the gap is known now
        databases.back_up()
        assert orders.restore(spec_of("late"), at=now_in(cluster)).info().state == "available"
    assert {"orders", "early", "late"} == {each.name for each in databases.list()}


def test_what_a_base_backup_needs_is_missed_also_before_a_first_segment_was_stored(
    databases: Databases, cluster: Cluster, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    orders = databases.create(spec_of("orders"))
    with monkeypatch.context() as patched:
        patched.setattr(_archiver._Follow, "_store_finished", lambda _: None)  # a backup finishes one
        with archiving(databases):
            databases.back_up()
    assert [] == whole_segments(root)
    databases.end_archive()  # a standby that was promoted has no slot either
    for _ in range(3):
        fill(cluster, 6)
        act(cluster, "CHECKPOINT")
    with pytest.raises(Conflict, match="does not have the log any more that comes after 0000"):
        databases.archive()
    with archiving(databases, over_gap=True):
        inside = now_in(cluster)
        with pytest.raises(IntegrityError, match="has a gap: segment"):
            orders.restore("never", at=inside)
        databases.back_up()
    with archiving(databases):
        assert orders.restore("late", at=now_in(cluster)).info().state == "available"


def test_a_slot_that_the_server_gave_up_is_a_gap(cluster: Cluster, databases: Databases, root: Path) -> None:
    with archiving(databases):
        fill(cluster)
        within(lambda: bool(whole_segments(root)), "a segment")
    act(cluster, "ALTER SYSTEM SET max_slot_wal_keep_size = '16MB'")
    act(cluster, "SELECT pg_reload_conf()")

    def lost() -> bool:
        fill(cluster, 4)
        act(cluster, "CHECKPOINT")
        states = act(cluster, "SELECT wal_status FROM pg_replication_slots WHERE slot_name !~ 'stream'")
        return bool(states == [("lost",)])

    within(lost, "the server to give the slot up")
    with pytest.raises(Conflict, match="max_slot_wal_keep_size"):
        databases.archive()
    with archiving(databases, over_gap=True):
        databases.back_up()


def test_an_archiver_that_is_told_to_end_while_it_begins_ends_well(
    databases: Databases, cluster: Cluster, root: Path
) -> None:
    with archiving(databases):
        pass
    driver = driver_of(cluster, root)
    for _ in range(5):
        driver.archive(every=timedelta(0), over_gap=False, on_progress=lambda _: None, stopped=lambda: True)


def test_a_server_that_restarts_is_waited_for(databases: Databases, cluster: Cluster) -> None:
    troubles: list[OperationError] = []
    with archiving(databases, on_trouble=troubles.append) as told:
        cluster.stop(immediately=True)
        within(lambda: bool(troubles), "the archiver to notice")
        cluster.start()
        count = len(told)
        within(lambda: len(told) > count, "the archiver to go on")
    assert {Unavailable} == {type(each) for each in troubles}
    assert not any(MANAGER in str(each) for each in troubles)


def test_a_bucket_that_cannot_be_reached_is_waited_for(
    databases: Databases, cluster: Cluster, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, broken, troubles = FilesDriver.put, [False], []

    def put(self: FilesDriver, *args: Any, **options: Any) -> Any:
        if broken[0]:
            raise ConnectionResetError(104, "the connection was reset")
        return real(self, *args, **options)

    monkeypatch.setattr(FilesDriver, "put", put)
    with archiving(databases, on_trouble=troubles.append):
        count = len(whole_segments(root))
        broken[0] = True
        fill(cluster, 3)
        within(lambda: bool(troubles), "the archiver to notice")
        broken[0] = False
        within(lambda: len(whole_segments(root)) >= count + 3, "all segments")


def test_another_servers_archive_is_left_alone(databases: Databases, root: Path) -> None:
    with archiving(databases):
        pass
    before = stored(root, "wal")
    with serving() as other:
        for call in (Databases(driver_of(other, root)).archive, Databases(driver_of(other, root)).back_up):
            with pytest.raises(Conflict, match="archive of another server"):
                call()
        assert [] == slots(other)
    assert before == stored(root, "wal")


def test_a_segment_that_differs_from_what_is_stored_stops_the_archiver(
    databases: Databases, cluster: Cluster, root: Path
) -> None:
    with archiving(databases):
        fill(cluster)
        within(lambda: bool(whole_segments(root)), "a segment")
    last = whole_segments(root)[-1]
    following = f"server/wal/{last[:16]}{int(last[16:], 16) + 1:08X}.gz"
    bucket = BlobStore(FilesDriver(root)).bucket("snapshots")

    def part(_: ArchiveProgress) -> None:
        if not bucket.exists(following):
            bucket.put(following, gzip.compress(b"another server's"))
            fill(cluster)

    with pytest.raises(Conflict, match="two servers that were one have parted"):
        databases.archive(every=timedelta(0), on_progress=part)
    assert b"another server's" == gzip.decompress(bucket.get(following))

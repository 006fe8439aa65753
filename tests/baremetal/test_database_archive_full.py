"""Full disks under PostgreSQL's archive: that of the bucket, and that of a restore."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from shiftable.database import Databases
from shiftable.errors import QuotaExceeded
from shiftable.postgresql import Cluster
from shiftable_baremetal import _recovery

from ..small_disk import left, small_disk
from .archived_server import act, archiving, ask, driver_of, now_in, serving, spec_of, stored


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", 400) as place:
        yield place


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with serving(max_wal_size="64MB", min_wal_size="32MB") as server:
        yield server


NOISE = (
    "INSERT INTO noise SELECT string_agg(gen_random_uuid()::text, '')"
    " FROM generate_series(1, 200000) AS n GROUP BY n % 2"
)


def test_a_bucket_that_becomes_full_is_told_and_the_archive_goes_on(
    cluster: Cluster, disk: Path, tmp_path: Path
) -> None:
    root = disk / "servers"
    (tmp_path / "roomy").mkdir()
    (disk / "servers-archive").symlink_to(tmp_path / "roomy")
    databases = Databases(driver_of(cluster, root))
    orders = databases.create(spec_of("orders"))
    ask(orders, "CREATE TABLE noise (t text)")
    ask(orders, NOISE)
    with archiving(databases):
        pass
    with left(disk, 3):
        with pytest.raises(QuotaExceeded, match="server/base/.*No space left"):
            databases.back_up()
        assert [] == stored(root, "base") == stored(root, "backups")
    with archiving(databases):
        databases.back_up()
    times = []
    for room in (4, 0):
        with left(disk, room):
            ask(orders, NOISE)
            times.append(now_in(cluster))
            act(cluster, "SELECT pg_switch_wal()")
            with pytest.raises(QuotaExceeded, match="No space left"):
                databases.archive()
    with archiving(databases):
        for number, when in enumerate(times):
            copy = orders.restore(spec_of("copy"), at=when)
            assert 4 + 2 * number == ask(copy, "SELECT count(*) FROM noise")
            databases.delete("copy", final_snapshot=False)


def test_a_restore_whose_disk_becomes_full_is_told_and_leaves_nothing(
    cluster: Cluster, disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    databases = Databases(driver_of(cluster, tmp_path / "servers"))
    (tmp_path / "servers-archive").mkdir()
    (tmp_path / "servers-archive/restored").symlink_to(disk)
    orders = databases.create(spec_of("orders"))
    ask(orders, "CREATE TABLE noise (t text)")
    with archiving(databases):
        databases.back_up()
        for _ in range(3):
            ask(orders, NOISE)
        when = now_in(cluster)
        act(cluster, "SELECT pg_current_xact_id()")
        monkeypatch.setattr(_recovery, "check_room", lambda *_: None)
        for room in (10, 40, 60):  # in the base backup, in the log, in the replay
            with left(disk, room), pytest.raises(QuotaExceeded, match="became full"):
                orders.restore(spec_of("copy"), at=when)
            assert not databases.exists("copy")
            assert [] == list(disk.glob("at-*"))
        assert 6 == ask(orders.restore(spec_of("copy"), at=when), "SELECT count(*) FROM noise")

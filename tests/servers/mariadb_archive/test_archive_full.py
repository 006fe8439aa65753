"""Full disks: that of the bucket in the middle of a base backup and of the log, and that of a restore."""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from shiftable.database import Databases
from shiftable.errors import QuotaExceeded
from shiftable_baremetal import _binlog_recovery

from ...baremetal.archived_server import archiving, stored, within
from ...small_disk import MIB, left, small_disk
from ..archived_mariadb import ask, declared, driver_of, numbers, orders_with, second
from ..mysql_pair import MariaDb

pytestmark = pytest.mark.usefixtures("programs_find_their_libraries")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", 400) as place:
        yield place


def noise(server: MariaDb, mebibytes: int, engine: str = "InnoDB") -> None:
    """Write what does not pack."""
    server.execute(f"CREATE TABLE IF NOT EXISTS shop.noise (n INT AUTO_INCREMENT KEY, t LONGBLOB) ENGINE={engine}")
    for _ in range(mebibytes):
        server.execute(f"INSERT INTO shop.noise (t) VALUES (0x{random.randbytes(MIB).hex()})")  # noqa: S311, S608


@contextlib.contextmanager
def emptied(server: MariaDb, databases: Databases) -> Iterator[None]:
    """Begin a file of the log, as a whole one is archived, and forget all databases afterwards."""
    server.execute("FLUSH BINARY LOGS")
    try:
        yield
    finally:
        for database in databases.list():
            databases.delete(database.name, final_snapshot=False)


def dumps() -> bytes:
    """Return the numbers of the programs that this process has started to dump and that have not ended."""
    command = ("pgrep", "--parent", str(os.getpid()), "mariadb-dump")
    return subprocess.run(command, check=False, capture_output=True).stdout


@pytest.fixture
def root(disk: Path, tmp_path: Path) -> Path:
    """Return a root on the small disk; times are restored on another one."""
    (tmp_path / "roomy").mkdir()
    (disk / "servers-archive").symlink_to(tmp_path / "roomy")
    return disk / "servers"


def test_a_bucket_that_becomes_full_in_a_base_backup_is_told_and_nothing_is_left(
    server: MariaDb, disk: Path, root: Path
) -> None:
    databases = Databases(driver_of(server, root))
    with emptied(server, databases):
        orders = orders_with(databases, 1)
        noise(server, 20)
        with archiving(databases):
            pass
        with left(disk, 8):
            with pytest.raises(QuotaExceeded, match=r"server/base/.*No space left") as caught:
                databases.back_up()
            assert [] == stored(root, "base") == stored(root, "backups")
            assert b"" == dumps(), caught.value
        with archiving(databases):
            databases.back_up()
            ask(orders, "INSERT INTO t VALUES (2)")
            assert [1, 2] == numbers(orders.restore(declared("copy"), at=second()))


def test_a_bucket_that_becomes_full_in_the_log_is_told_and_the_archive_goes_on(
    server: MariaDb, disk: Path, root: Path
) -> None:
    databases = Databases(driver_of(server, root))
    with emptied(server, databases):
        orders, times = orders_with(databases, 1), []
        with archiving(databases):
            databases.back_up()
        for number, room in enumerate((24, 3, 0)):  # in a finished part, in one that is written, and in notes
            with left(disk, room):
                noise(server, 10)
                ask(orders, f"INSERT INTO t VALUES ({number + 2})")  # noqa: S608  a number
                times.append(second())
                noise(server, 10)
                with pytest.raises(QuotaExceeded, match="No space left"), archiving(databases) as told:
                    within(lambda: told[-1].until > times[-1], "the disk to become full")
        with archiving(databases):
            for number, when in enumerate(times):
                copy = orders.restore(declared("copy"), at=when)
                assert list(range(1, number + 3)) == numbers(copy)
                assert 10 + 20 * number == ask(copy, "SELECT COUNT(*) FROM noise")
                databases.delete("copy", final_snapshot=False)


@pytest.mark.parametrize("engine", ["InnoDB", "MyISAM"])
def test_a_restore_whose_disk_becomes_full_is_told_and_leaves_nothing(
    server: MariaDb, tmp_path: Path, disk: Path, monkeypatch: pytest.MonkeyPatch, engine: str
) -> None:
    databases = Databases(driver_of(server, tmp_path / "servers"))
    (tmp_path / "servers-archive").symlink_to(disk)
    with emptied(server, databases):
        orders = orders_with(databases, 1)
        noise(server, 10, engine)
        with archiving(databases) as told:
            databases.back_up()
            noise(server, 20, engine)
            when = second()
            within(lambda: told[-1].until > when, "the time")
        with left(disk, 70), pytest.raises(QuotaExceeded, match="GiB left, and 1.. GiB are needed"):
            orders.restore(declared("copy"), at=when)
        monkeypatch.setattr(_binlog_recovery, "_ROOM", -(2**30))
        with left(disk, 200), pytest.raises(QuotaExceeded, match="GiB left, and 0.2 GiB are needed"):
            orders.restore(declared("copy"), at=when)
        monkeypatch.setattr(_binlog_recovery, "_OWN", 0)
        full = "became full: make room there|failed with error 28"  # which InnoDB says when it begins
        for room in (10, 200, 230):  # in relay logs, in the dump, in the replay
            with left(disk, room), pytest.raises(QuotaExceeded, match=full):
                orders.restore(declared("copy"), at=when)
            assert not databases.exists("copy")
            assert [] == list(disk.rglob("at-*"))
        assert 30 == ask(orders.restore(declared("copy"), at=when), "SELECT COUNT(*) FROM noise")

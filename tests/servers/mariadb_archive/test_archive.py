"""Base backups of a real MariaDB server, its archived log, and databases as they were at a time."""

from __future__ import annotations

import contextlib
import json
import random
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from shiftable.config import Credential
from shiftable.database import Database, Databases
from shiftable.errors import ConfigError, Conflict, IntegrityError, InvalidArgument, OperationError, PermissionDenied
from shiftable_baremetal import _binlog_archiver, _servers_archive
from shiftable_baremetal._servers_archive_mariadb import MariadbArchive

from ...baremetal import archived_server
from ...baremetal.archived_server import archiving, archiving_until_killed, stored, within
from ..archived_mariadb import PROCESS, ask, declared, driver_of, numbers, orders_with, second
from ..conftest import Debian
from ..mysql_pair import MariaDb

pytestmark = pytest.mark.usefixtures("programs_find_their_libraries")


def test_any_second_is_restored_of_all_that_a_database_has(databases: Databases, server: MariaDb) -> None:
    orders = databases.create(declared("orders"))
    for statement in ("CREATE TABLE t (n INT PRIMARY KEY)", "INSERT INTO t VALUES (1)"):
        ask(orders, statement)
    with archiving(databases, timedelta(seconds=2)):
        made = databases.back_up()
        assert [made] == list(databases.backups())
        ask(orders, "INSERT INTO t VALUES (2)")
        times = [second()]
        server.execute("FLUSH BINARY LOGS")
        for statement in (
            "CREATE TABLE m (n INT) ENGINE=MyISAM",
            "INSERT INTO m VALUES (1)",
            "CREATE VIEW v AS SELECT n FROM t",
            "CREATE PROCEDURE p() SELECT COUNT(*) FROM t",
            "CREATE TRIGGER g BEFORE INSERT ON t FOR EACH ROW SET NEW.n = NEW.n + 10",
            "CREATE EVENT e ON SCHEDULE EVERY 1 YEAR DO DELETE FROM t",
            "INSERT INTO t VALUES (3)",
        ):
            ask(orders, statement)
        server.execute("CREATE USER somebody@'%'", "GRANT SELECT ON *.* TO somebody@'%'", "DROP USER somebody@'%'")
        times.append(second())
        ask(orders, "DELETE FROM t")
        times.append(second())
        expected = [[1, 2], [1, 2, 13], []]
        for number, (when, rows) in enumerate(zip(times, expected, strict=True)):
            copy = orders.restore(declared(f"copy-{number}"), at=when)
            assert rows == numbers(copy)
        assert [1] == numbers(databases.open(declared("copy-1")), "m")
        copy = databases.open(declared("copy-1"))
        assert 2 == ask(copy, "SELECT COUNT(*) FROM v WHERE n < 10")
        assert 3 == ask(copy, "CALL p()")
        assert "ENABLED" == ask(copy, "SELECT status FROM information_schema.events WHERE event_schema = DATABASE()")
        ask(copy, "INSERT INTO t VALUES (4)")
        assert [1, 2, 13, 14] == numbers(copy)


# what a time is


def test_what_was_not_committed_is_not_there_although_its_statement_had_begun(databases: Databases) -> None:
    orders = orders_with(databases, 1)
    with archiving(databases):
        databases.back_up()
        thread = threading.Thread(target=ask, args=(orders, "INSERT INTO t SELECT 2 + SLEEP(3)"))
        thread.start()
        time.sleep(1)
        when = second()
        thread.join()
        ask(orders, "INSERT INTO t VALUES (3)")
        after = second()
        assert [1] == numbers(orders.restore(declared("copy"), at=when))
        assert [1, 2, 3] == numbers(orders.restore(declared("later"), at=after))


def ask_at(database: Database, seconds: int, statement: str) -> None:
    """Ask in a session that sets its time to so many seconds since 1970."""
    with contextlib.closing(database.connect()) as connection, connection.cursor() as cursor:
        cursor.execute(f"SET TIMESTAMP = {seconds}")
        cursor.execute(statement)
        connection.commit()


def test_a_session_that_sets_its_time_moves_nothing(databases: Databases) -> None:
    orders = orders_with(databases, 1)
    with archiving(databases):
        databases.back_up()
        ask_at(orders, 2000000000, "INSERT INTO t VALUES (2)")
        ask(orders, "INSERT INTO t VALUES (3)")
        between = second()
        time.sleep(1)  # the archiver looks
        ask_at(orders, 1, "INSERT INTO t VALUES (4)")
        time.sleep(1)
        after = second()
        assert [1, 2, 3] == numbers(orders.restore(declared("copy"), at=between))
        assert [1, 2, 3, 4] == numbers(orders.restore(declared("later"), at=after))


def test_a_second_that_was_not_watched_is_told_by_the_log_alone(databases: Databases) -> None:
    orders = orders_with(databases, 1)
    with archiving(databases):
        databases.back_up()
    ask(orders, "INSERT INTO t VALUES (2)")
    when = second()
    ask(orders, "INSERT INTO t VALUES (3)")
    with archiving(databases):
        assert [1, 2] == numbers(orders.restore(declared("copy"), at=when))


def test_a_session_that_sets_its_time_in_a_second_that_was_not_watched_moves_nothing(
    databases: Databases, server: MariaDb
) -> None:
    orders = orders_with(databases, 1)
    with archiving(databases):
        databases.back_up()
    ask_at(orders, 2000000000, "INSERT INTO t VALUES (2)")
    ask(orders, "INSERT INTO t VALUES (3)")
    when = second()
    ask_at(orders, 2000000000, "INSERT INTO t VALUES (4)")
    server.execute("FLUSH BINARY LOGS")
    with archiving(databases):
        assert [1, 2, 3] == numbers(orders.restore(declared("copy"), at=when))
        ask(orders, "INSERT INTO t VALUES (5)")
        after = second()
        time.sleep(1)
        assert [1, 2, 3, 4, 5] == numbers(orders.restore(declared("later"), at=after))


def test_a_time_outside_is_refused(databases: Databases, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_servers_archive, "_PATIENCE", 0.5)
    orders = orders_with(databases, 1)
    with pytest.raises(Conflict, match="not archived"):
        databases.back_up()
    with archiving(databases):
        before = datetime.now(UTC)
        databases.back_up()
        with pytest.raises(InvalidArgument, match="earliest time"):
            orders.restore(declared("copy"), at=before - timedelta(seconds=1))
    with pytest.raises(InvalidArgument, match="does `shiftable db archive` run"):
        orders.restore(declared("copy"), at=second())
    assert ["orders"] == [each.name for each in databases.list()]


# kills


def test_archivers_and_servers_that_are_killed_anywhere_under_writers_lose_nothing(
    databases: Databases, server: MariaDb, root: Path
) -> None:
    orders = orders_with(databases)
    server.execute("CREATE TABLE shop.filler (n INT AUTO_INCREMENT PRIMARY KEY, t LONGTEXT)")
    told = {"port": server.port, "password": server.password, "root": str(root)}
    chance, times, ended = random.Random(7), [], threading.Event()  # noqa: S311  where to kill

    def write() -> None:
        while not ended.is_set():
            with contextlib.suppress(Exception):
                server.execute("INSERT INTO shop.filler (t) VALUES (REPEAT('x', 700000))")
            if chance.random() < 0.1:
                with contextlib.suppress(Exception):
                    server.execute("FLUSH BINARY LOGS")

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for number in range(6):
            with archiving_until_killed(PROCESS, told, chance.randrange(1, 4)):
                if number == 0:
                    databases.back_up()
                ask(orders, f"INSERT INTO t VALUES ({number})")  # noqa: S608  a number
                times.append(second())
                time.sleep(chance.random())
            if number == 3:
                server.kill()
                server.start()
    finally:
        ended.set()
        writer.join()
    with archiving(databases):
        for number in (0, 3, 5):
            copy = orders.restore(declared(f"copy-{number}"), at=times[number])
            assert list(range(number + 1)) == numbers(copy)
            there = ask(copy, "SELECT COUNT(*) FROM filler")
            assert ask(copy, "SELECT MAX(n) FROM filler") >= there > number
        assert "binlog" not in [path.name for path in root.with_name("servers-archive").rglob("*")]
    assert any(name.endswith("-last.gz") for name in stored(root, "binlog"))


def test_an_archiver_waits_for_a_server_that_is_killed_and_goes_on(databases: Databases, server: MariaDb) -> None:
    orders = orders_with(databases, 1)
    troubles: list[OperationError] = []
    with archiving(databases, on_trouble=troubles.append) as told:
        databases.back_up()
        ask(orders, "INSERT INTO t VALUES (2)")
        server.kill()
        within(lambda: bool(troubles), "the archiver to notice")
        server.start()
        ask(orders, "INSERT INTO t VALUES (3)")
        when, seen = second(), len(told)
        within(lambda: len(told) > seen + 1, "the archiver to go on")
        assert [1, 2, 3] == numbers(orders.restore(declared("copy"), at=when))


def test_a_restore_that_is_killed_leaves_no_server_and_begins_anew(
    databases: Databases, server: MariaDb, root: Path
) -> None:
    orders = orders_with(databases, 1)
    with archiving(databases):
        databases.back_up()
        when = second()
        time.sleep(1)
    folder = root.with_name("servers-archive") / "restored"
    told = {"port": server.port, "password": server.password, "root": str(root), "at": when.isoformat()}

    def servers() -> list[str]:
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):  # it has ended meanwhile
                found.append(path.read_text(errors="replace"))
        return [line for line in found if str(folder) in line]

    process = subprocess.Popen([sys.executable, PROCESS], stdin=subprocess.PIPE)
    try:
        assert process.stdin is not None
        process.stdin.write(json.dumps(told).encode() + b"\n")
        process.stdin.flush()
        within(lambda: any("--relay-log=relay" in line for line in servers()), "the private server")
    finally:
        process.kill()
        process.communicate()
    within(lambda: not servers(), "the private server to end")
    assert [1] == numbers(orders.restore(declared("copy"), at=when))
    assert [] == list(folder.glob("at-*"))


def test_only_one_archiver_works(
    databases: Databases, server: MariaDb, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_binlog_archiver, "_PATIENCE", 0.5)
    with archiving(databases):
        with pytest.raises(Conflict, match="another process archives"), archiving(Databases(driver_of(server, root))):
            pass
        with pytest.raises(Conflict, match="stop that first"):
            databases.end_archive()
    databases.end_archive()


# gaps


def test_a_log_that_was_reset_is_a_gap_and_times_before_it_stay(
    databases: Databases, server: MariaDb, root: Path
) -> None:
    orders = orders_with(databases, 1)
    with archiving(databases):
        databases.back_up()
        ask(orders, "INSERT INTO t VALUES (2)")
        before = second()
        time.sleep(1)
    ask(orders, "INSERT INTO t VALUES (3)")
    server.execute("RESET MASTER")
    with pytest.raises(Conflict, match=r"RESET MASTER.*--over-gap"), archiving(databases):
        pass
    lost = second()
    with archiving(databases, over_gap=True):
        ask(orders, "INSERT INTO t VALUES (4)")
        after = second()
        assert [1, 2] == numbers(orders.restore(declared("copy"), at=before))
        for when in (lost, after):
            with pytest.raises(IntegrityError, match="has a gap"):
                orders.restore(declared("none"), at=when)
            assert not databases.exists("none")
        databases.back_up()
        ask(orders, "INSERT INTO t VALUES (5)")
        assert [1, 2, 3, 4, 5] == numbers(orders.restore(declared("later"), at=second()))
    with archiving(databases):
        assert {"0001", "0002"} == {name[:4] for name in stored(root, "binlog")}


def test_a_log_that_is_reset_while_it_is_archived_is_a_gap(
    databases: Databases, server: MariaDb, monkeypatch: pytest.MonkeyPatch
) -> None:
    orders_with(databases, 1)

    def reset() -> None:
        with archiving(databases) as told:
            server.execute("RESET MASTER", "FLUSH BINARY LOGS", "FLUSH BINARY LOGS")
            seen = len(told)
            with contextlib.suppress(AssertionError):
                within(lambda: len(told) > seen + 5, "the archiver to go on")

    monkeypatch.setattr(archived_server, "PATIENCE", 10)
    with pytest.raises(Conflict, match="RESET MASTER"):
        reset()


def test_a_log_that_was_purged_is_a_gap(databases: Databases, server: MariaDb) -> None:
    orders = orders_with(databases, 1)
    with archiving(databases):
        pass
    ask(orders, "INSERT INTO t VALUES (2)")
    server.execute("FLUSH BINARY LOGS", "FLUSH BINARY LOGS")
    ((name, *_),) = server.execute("SHOW MASTER STATUS")

    def purged() -> bool:  # what InnoDB has not flushed yet stays
        server.execute(f"PURGE BINARY LOGS TO '{name}'")
        return 1 == len(server.execute("SHOW BINARY LOGS"))

    within(purged, "the purge")
    with pytest.raises(Conflict, match="does not have its log .*--over-gap"), archiving(databases):
        pass


def test_another_servers_archive_is_left_alone(databases: Databases, server: MariaDb) -> None:
    with archiving(databases):
        pass
    server.execute("UPDATE shiftable.archive SET id = 'another'")
    with pytest.raises(Conflict, match="archive of another server"), archiving(databases):
        pass


# base backups


def test_a_dump_that_is_of_more_than_one_moment_is_made_again(
    databases: Databases, server: MariaDb, monkeypatch: pytest.MonkeyPatch, root: Path
) -> None:
    orders = orders_with(databases, 1)
    meanwhile = ["CREATE TABLE shop.made (n INT)", "INSERT INTO shop.t VALUES (2)", "INSERT INTO shop.t VALUES (3)"]
    real = MariadbArchive._finish

    def finish(self: MariadbArchive, head: bytes) -> dict[str, Any]:
        if meanwhile:
            server.execute(meanwhile.pop(0))
        return real(self, head)

    monkeypatch.setattr(MariadbArchive, "_finish", finish)
    with archiving(databases):
        databases.back_up()
        assert 1 == len(stored(root, "base"))
        assert 1 == len(meanwhile)
        assert [1, 2] == numbers(orders.restore(declared("copy"), at=second()))
        meanwhile[:] = ["CREATE TABLE shop.m (n INT) ENGINE=MyISAM", *["INSERT INTO shop.m VALUES (1)"] * 2]
        with pytest.raises(Conflict, match="more than one moment"):
            databases.back_up()
        assert [] == meanwhile
        assert 1 == len(stored(root, "base"))


def test_what_is_too_old_goes_and_what_is_needed_stays(databases: Databases, server: MariaDb, root: Path) -> None:
    orders = orders_with(databases, 1)
    with archiving(databases):
        first = databases.back_up()
        server.execute("FLUSH BINARY LOGS")
        ask(orders, "INSERT INTO t VALUES (2)")
        second_one = databases.back_up()
        within(lambda: any("last" in name for name in stored(root, "binlog")), "the first file")
        files = {name[5:15] for name in stored(root, "binlog")}
        databases.delete_backup(first.name)
        assert [second_one] == list(databases.backups())
        assert {max(files)} == {name[5:15] for name in stored(root, "binlog")}
        assert {max(files)} == {name[5:15] for name in stored(root, "times")}
        assert [1, 2] == numbers(orders.restore(declared("copy"), at=second()))


# what is damaged, and what is missing


def test_what_is_damaged_in_the_bucket_makes_nothing(databases: Databases, root: Path, server: MariaDb) -> None:
    orders = orders_with(databases, 1)
    with archiving(databases):
        databases.back_up()
        server.execute("FLUSH BINARY LOGS")
        ask(orders, "INSERT INTO t VALUES (2)")
        server.execute("FLUSH BINARY LOGS")
        when = second()
        time.sleep(1)
    folder = root / "snapshots/server"
    for damaged in (*folder.glob("base/*.gz"), sorted(folder.glob("binlog/*-last.gz"))[1]):
        kept = damaged.read_bytes()
        for content in (kept[: len(kept) // 2], kept[:-20] + bytes(20), None):
            damaged.unlink() if content is None else damaged.write_bytes(content)
            with pytest.raises(IntegrityError):
                orders.restore(declared("copy"), at=when)
            assert not databases.exists("copy")
            damaged.write_bytes(kept)
    assert [1, 2] == numbers(orders.restore(declared("copy"), at=when))
    assert [] == list(root.with_name("servers-archive").rglob("at-*"))


def test_without_a_server_program_it_is_told_what_to_install(
    databases: Databases, server: MariaDb, root: Path, debian: Debian, tmp_path: Path
) -> None:
    orders = orders_with(databases, 1)
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("mariadb", "mariadb-dump"):
        (programs / name).symlink_to(debian.root / "usr/bin" / name)
    with archiving(databases):
        databases.back_up()
        lacking = Databases(driver_of(server, root, programs=programs))
        with pytest.raises(ConfigError, match=r"apt-get install mariadb-server-core, 10\.11 or later"):
            lacking.open(declared("orders")).restore(declared("copy"), at=second())
    assert 1 == len(numbers(orders))


def test_a_log_that_cannot_be_replayed_is_refused(databases: Databases, server: MariaDb) -> None:
    server.execute("SET GLOBAL binlog_format = 'MIXED'")
    try:
        with pytest.raises(Conflict, match="SET GLOBAL binlog_format = 'ROW'"), archiving(databases):
            pass
    finally:
        server.execute("SET GLOBAL binlog_format = 'ROW'")


def test_a_user_who_may_not_is_told_what_he_lacks(server: MariaDb, root: Path) -> None:
    server.execute("CREATE USER lesser@'127.0.0.1' IDENTIFIED BY 'x'")
    server.execute("GRANT ALL PRIVILEGES ON *.* TO lesser@'127.0.0.1' WITH GRANT OPTION")
    server.execute("REVOKE REPLICATION SLAVE ON *.* FROM lesser@'127.0.0.1'")
    try:
        lesser = Databases(driver_of(server, root, user="lesser", password=Credential.literal("x")))
        with pytest.raises(PermissionDenied, match="no REPLICATION SLAVE"), archiving(lesser):
            pass
    finally:
        server.execute("DROP USER lesser@'127.0.0.1'")

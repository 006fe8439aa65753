"""MariaDB's archive where nothing goes well: kills anywhere, dropped connections, two archivers, clocks and names."""

from __future__ import annotations

import contextlib
import json
import random
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Self

import pytest

from shiftable.database import Database, Databases
from shiftable.errors import AlreadyExists, Conflict, OperationError, Unavailable
from shiftable_baremetal import _binlog_archiver
from shiftable_baremetal._binlog import Mark, Part
from shiftable_baremetal._binlog_session import BinlogSession
from shiftable_baremetal._binlog_store import BinlogStore

from ...baremetal.archived_server import archiving, archiving_until_killed, within
from ..archived_mariadb import PROCESS, ask, declared, driver_of, numbers, orders_with, second
from ..mysql_pair import MariaDb

pytestmark = pytest.mark.usefixtures("programs_find_their_libraries")

KILLS = 24


# kills


class Ledger:
    """Transfers in a database, each of which says how many there are: one that is lost or doubled shows at any time."""

    def __init__(self, server: MariaDb) -> None:
        self._server = server
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._write)
        self.sure = 0  # transfers that the server has confirmed
        statements = (
            "CREATE TABLE shop.ledger (n INT PRIMARY KEY, total BIGINT, t LONGTEXT)",
            "CREATE TABLE shop.account (total BIGINT, moves INT)",
            "INSERT INTO shop.account VALUES (0, 0)",
        )
        server.execute(*statements)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _write(self) -> None:
        chance = random.Random(1)  # noqa: S311  what is written
        while not self._ended.is_set():
            size = chance.choice((10, 1000, 300_000))
            with contextlib.suppress(Exception):  # the server was killed: whether this was committed nobody has told
                self._server.execute(
                    "BEGIN",
                    "UPDATE shop.account SET moves = moves + 1, total = total + moves",
                    f"INSERT INTO shop.ledger SELECT moves, total, REPEAT('x', {size}) FROM shop.account",  # noqa: S608
                    "COMMIT",
                    autocommit=False,
                )
                ((self.sure,),) = self._server.execute("SELECT moves FROM shop.account")
                if chance.random() < 0.03:
                    self._server.execute("FLUSH BINARY LOGS")

    def wait(self, moves: int) -> None:
        """Wait until there are some more."""
        wanted = self.sure + moves
        within(lambda: self.sure >= wanted, "transfers")


def is_whole(copy: Database, least: int, most: int) -> bool:
    """Tell whether a copy has each transfer once, of the ones that were there at its time."""
    moves = ask(copy, "SELECT moves FROM account")
    assert least <= moves <= most
    sums = (
        "SELECT COUNT(*) = {0} AND COUNT(DISTINCT n) = {0} AND COALESCE(MAX(n), 0) = {0} AND COALESCE(MAX(total), 0) = "
        "{0} * ({0} + 1) / 2 AND SUM(total <> n * (n + 1) / 2) <=> IF({0}, 0, NULL) FROM ledger"
    )
    assert 1 == ask(copy, sums.format(moves))
    return 1 == ask(copy, f"SELECT total = {moves} * ({moves} + 1) / 2 FROM account")  # noqa: S608  a number


@pytest.mark.parametrize("seed", [1, 2])
def test_whatever_is_killed_anywhere_no_transaction_is_lost_or_doubled(
    databases: Databases, server: MariaDb, root: Path, seed: int
) -> None:
    orders = orders_with(databases, 1)
    told = {"port": server.port, "password": server.password, "root": str(root)}
    chance = random.Random(seed)  # noqa: S311  where to kill
    times: list[tuple[datetime, int, int]] = []
    with Ledger(server) as ledger:
        for number in range(KILLS // 2):
            with archiving_until_killed(PROCESS, told, chance.randrange(1, 3)):
                if number == 0:
                    databases.back_up()
                ledger.wait(chance.randrange(3))
                least = ledger.sure
                when = second()
                times.append((when, least, ledger.sure + 1))
                time.sleep(chance.random() / 2)
                if chance.random() < 0.3:
                    server.kill()
                    time.sleep(chance.random() / 4)
            server.start()
    with archiving(databases) as heard:
        end = second()
        within(lambda: heard[-1].until > end, "the rest")
    for number, (when, least, most) in enumerate([*chance.sample(times, 3), (end, ledger.sure, ledger.sure + 1)]):
        restoring = {**told, "at": when.isoformat(), "name": f"copy-{number}"}
        with subprocess.Popen([sys.executable, PROCESS], stdin=subprocess.PIPE) as process:  # a restore is killed, too
            assert process.stdin is not None
            process.stdin.write(json.dumps(restoring).encode() + b"\n")
            process.stdin.flush()
            time.sleep(chance.random() * 4)
            process.kill()
        try:
            copy = orders.restore(declared(f"copy-{number}"), at=when)
        except AlreadyExists:  # it had been restored when it was to be killed
            copy = databases.open(declared(f"copy-{number}"))
        assert is_whole(copy, least, most), number
        databases.delete(copy.name, final_snapshot=False)


# two archivers


def test_an_archiver_that_loses_its_connection_gives_way_to_another_one_and_nothing_is_lost(
    databases: Databases, server: MariaDb, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_binlog_archiver, "_PATIENCE", 2)
    orders, other = orders_with(databases, 1), Databases(driver_of(server, root))
    troubles = list[OperationError | None]()
    with archiving(databases):
        databases.back_up()
    paused, told, going_on = threading.Event(), threading.Event(), threading.Event()
    real = BinlogStore.write_times

    def write_times(self: BinlogStore, part: Part, marks: Sequence[Mark]) -> None:
        if threading.current_thread().name == "first" and told.is_set() and not paused.is_set():
            paused.set()
            going_on.wait(120)
        real(self, part, marks)

    def first() -> None:
        with pytest.raises(Conflict, match="another process archives the server"):
            databases.archive(every=timedelta(0), on_progress=lambda _: told.set(), on_trouble=troubles.append)
        troubles.append(None)

    monkeypatch.setattr(BinlogStore, "write_times", write_times)
    thread = threading.Thread(target=first, name="first")
    thread.start()
    within(told.is_set, "the first archiver")
    ask(orders, "INSERT INTO t VALUES (2)")
    within(paused.is_set, "the first archiver to store that")
    owner = json.loads((root / "snapshots/server/archive.json").read_text())["id"]
    ((holder,),) = server.execute(f"SELECT IS_USED_LOCK('shiftable archive {owner}')")
    server.execute(f"KILL {holder}")
    with archiving(other) as heard:
        ask(orders, "INSERT INTO t VALUES (3)")
        server.execute("FLUSH BINARY LOGS")
        ask(orders, "INSERT INTO t VALUES (4)")
        between = second()
        within(lambda: heard[-1].until > between, "the second archiver")
        going_on.set()
        within(lambda: not thread.is_alive(), "the first archiver to end")
        ask(orders, "INSERT INTO t VALUES (5)")
        after = second()
        within(lambda: heard[-1].until > after, "the second archiver")
    thread.join()
    assert {Unavailable} == {type(each) for each in troubles[:-1]}
    assert troubles[-1] is None
    with archiving(databases):
        assert [1, 2, 3, 4] == numbers(orders.restore(declared("copy"), at=between))
        assert [1, 2, 3, 4, 5] == numbers(orders.restore(declared("later"), at=after))


# clocks


def test_a_servers_clock_that_is_set_back_loses_nothing_and_moves_nothing(
    databases: Databases, server: MariaDb, monkeypatch: pytest.MonkeyPatch
) -> None:
    behind, real = [timedelta(hours=1)], BinlogSession._time
    monkeypatch.setattr(BinlogSession, "_time", lambda self: real(self) - behind[0])
    orders = orders_with(databases)

    def add(row: int) -> datetime:
        """Add a row by the server's clock, and return the second after by that."""
        began = int(time.time()) - int(behind[0].total_seconds())
        with contextlib.closing(orders.connect()) as connection, connection.cursor() as cursor:
            cursor.execute(f"SET TIMESTAMP = {began}")
            cursor.execute(f"INSERT INTO t VALUES ({row})")  # noqa: S608  a number
            connection.commit()
        return second() - behind[0]

    with archiving(databases) as told:
        databases.back_up()
        add(1)
        first = add(2)
        within(lambda: told[-1].until > first, "the first hours")
        time.sleep(1)
        behind[0] = timedelta(hours=3)
        databases.back_up()
        add(3)
        later = add(4)
        within(lambda: first > told[-1].until > later, "the clock that was set back")
        for name, when, last in (("first", first, 2), ("later", later, 4)):
            assert list(range(1, last + 1)) == numbers(orders.restore(declared(name), at=when))


@pytest.mark.parametrize("zone", ["Pacific/Kiritimati", "Pacific/Pago_Pago"])
def test_machines_far_from_utc_restore_the_same_times(
    databases: Databases, server: MariaDb, monkeypatch: pytest.MonkeyPatch, zone: str
) -> None:
    ahead = {"Pacific/Kiritimati": "+13:00", "Pacific/Pago_Pago": "-11:00"}[zone]
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    server.execute(f"SET GLOBAL time_zone = '{ahead}'")
    try:
        orders = orders_with(databases, 1)
        ask(orders, "CREATE TABLE moments (n INT, at TIMESTAMP, day DATETIME)")
        with archiving(databases):
            ask(orders, "INSERT INTO moments VALUES (1, '2026-06-01 23:30:00', '2026-06-01 23:30:00')")
            databases.back_up()
            ask(orders, "INSERT INTO moments VALUES (2, '2026-06-01 23:30:00', '2026-06-01 23:30:00')")
            ask(orders, "CREATE EVENT e ON SCHEDULE EVERY 1 YEAR STARTS '2026-06-01 23:30:00' DO DELETE FROM t")
            when = second()
            ask(orders, "INSERT INTO moments VALUES (3, NOW(), NOW())")
            copy = orders.restore(declared("copy"), at=when)
        query = "SELECT GROUP_CONCAT(CONCAT_WS(' ', n, UNIX_TIMESTAMP(at), day) ORDER BY n) FROM moments WHERE n < 3"
        assert ask(orders, query) == ask(copy, query)
        starts = "SELECT CONCAT(starts, ' ', time_zone) FROM information_schema.events WHERE event_schema = DATABASE()"
        assert f"2026-06-01 23:30:00 {ahead}" == ask(orders, starts) == ask(copy, starts)
        assert 2 == ask(copy, "SELECT COUNT(*) FROM moments")
    finally:
        server.execute("SET GLOBAL time_zone = 'SYSTEM'")
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize("where", ["base backup", "log"])
def test_time_zones_that_have_names_are_there_when_a_time_is_restored(
    databases: Databases, server: MariaDb, where: str
) -> None:
    zone = f"Far/{where.title().replace(' ', '_')}"
    orders, number = orders_with(databases, 1), 9000 + len(zone)
    rows = {"": f"{number}, 'N'", "_name": f"'{zone}', {number}", "_transition_type": f"{number}, 0, 45000, 0, 'FAR'"}
    server.execute(*(f"INSERT INTO mysql.time_zone{table} VALUES ({row})" for table, row in rows.items()))  # noqa: S608

    def name_it() -> None:
        with contextlib.closing(orders.connect()) as connection, connection.cursor() as cursor:
            cursor.execute(f"SET time_zone = '{zone}'")
            cursor.execute("CREATE EVENT e ON SCHEDULE EVERY 1 YEAR STARTS '2026-06-01 23:30:00' DO DELETE FROM t")
            cursor.execute("CREATE TABLE u (n INT, at TIMESTAMP DEFAULT '2026-06-01 23:30:00')")
            cursor.execute("INSERT INTO u (n) VALUES (1)")
            connection.commit()

    with archiving(databases):
        if where == "base backup":
            name_it()
        databases.back_up()
        if where == "log":
            name_it()
        copy = orders.restore(declared("copy"), at=second())
    event = "SELECT CONCAT(starts, ' ', time_zone) FROM information_schema.events WHERE event_schema = DATABASE()"
    assert f"2026-06-01 23:30:00 {zone}" == ask(orders, event) == ask(copy, event)
    when = "SELECT SUM(UNIX_TIMESTAMP(at)) FROM u"
    assert ask(orders, when) == ask(copy, when)
    for database in (orders, copy):  # by the default of the table
        ask(database, "INSERT INTO u (n) VALUES (2)")
    assert ask(orders, when) == ask(copy, when)


# names

NAMES = ("it's", 'a "b"', "back`tick", "50%s %d", "_%", "a b/c.d", "-- x", "ä漢字", "a\\b", "a\nb", "${HOME}")


def test_whatever_databases_and_users_are_called_they_are_restored(databases: Databases, server: MariaDb) -> None:
    orders = databases.create(declared("orders", databases=NAMES, admin="o'b`r\"i%en"))
    content = '🐿 it\'s `50%` \\ "x"\n-- DEFINER=`o\'b``r"i%en`@`%`'

    def act(database: Database, name: str, statement: str, *values: str) -> Any:
        with contextlib.closing(database.connect(name)) as connection, connection.cursor() as cursor:
            cursor.execute(statement, values)
            connection.commit()
            return cursor.fetchall()

    server.execute("CREATE DATABASE IF NOT EXISTS `else's ``%`", "CREATE TABLE `else's ``%`.`t``%` (n INT)")
    server.execute("CREATE USER IF NOT EXISTS `some@b'o`@`%`", "GRANT ALL ON *.* TO `some@b'o`@`%`")
    with archiving(databases):
        for name in NAMES[::2]:
            act(orders, name, "CREATE TABLE `t``%%'` (`n``%%` VARCHAR(200) KEY) COMMENT %s", content)
            act(orders, name, "INSERT INTO `t``%%'` VALUES (%s)", content)
        databases.back_up()
        for name in NAMES[1::2]:
            act(orders, name, "CREATE TABLE `t``%%'` (`n``%%` VARCHAR(200) KEY) COMMENT %s", content)
        for name in NAMES:
            act(orders, name, "CREATE VIEW `v``%%` AS SELECT * FROM `t``%%'`")
            act(orders, name, "INSERT INTO `t``%%'` VALUES (%s)", content + "2")
            quoted = "`" + name.replace("`", "``") + "`"
            server.execute(f"CREATE DEFINER = `some@b'o`@`%` PROCEDURE {quoted}.`p``%`() SELECT 42")
        when = second()
        for name in NAMES:
            act(orders, name, "DELETE FROM `t``%%'`")
        copy = orders.restore(declared("copy"), at=when)
    for name in NAMES:
        expected = {(content + "2",)} | ({(content,)} if name in NAMES[::2] else set())
        assert expected == set(act(copy, name, "SELECT * FROM `v``%%`")), name
        assert ((42,),) == act(copy, name, "CALL `p``%%`()")
    server.execute("DROP DATABASE `else's ``%`", "DROP USER `some@b'o`@`%`")

"""A MariaDB server fails, and a replica of it takes over: its archive goes on by GTIDs, or says what is missing."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest

from shiftable.database import Database, Databases
from shiftable.errors import Conflict

from ...baremetal.archived_server import archiving, stored, within
from ..archived_mariadb import OPTIONS, ask, declared, driver_of, numbers, orders_with, second
from ..conftest import Debian
from ..mysql_pair import MariaDb, maria_db

pytestmark = pytest.mark.usefixtures("programs_find_their_libraries")


def follow(replica: MariaDb, primary: MariaDb) -> None:
    """Have a server replicate another one."""
    where = f"MASTER_HOST = '127.0.0.1', MASTER_PORT = {primary.port}, MASTER_USER = 'admin'"
    how = f'MASTER_PASSWORD = "{primary.password}", MASTER_CONNECT_RETRY = 1, MASTER_USE_GTID = current_pos'
    replica.execute(f"CHANGE MASTER TO {where}, {how}", "START SLAVE")


def caught_up(replica: MariaDb, primary: MariaDb) -> None:
    """Wait until a replica has what its primary has."""
    ((there,),) = primary.execute("SELECT @@gtid_binlog_pos")
    assert [(0,)] == replica.execute(f"SELECT MASTER_GTID_WAIT('{there}', 60)")


def take_over(replica: MariaDb) -> None:
    """Make a replica a primary."""
    replica.execute("STOP SLAVE", "RESET SLAVE ALL")


@pytest.fixture
def primary(debian: Debian, _somebody_else: None, tmp_path: Path) -> Iterator[MariaDb]:
    with maria_db(debian, tmp_path / "office", *OPTIONS, "--log-slave-updates") as made:
        yield made


@pytest.fixture
def replica(debian: Debian, primary: MariaDb, tmp_path: Path) -> Iterator[MariaDb]:
    options = [each for each in OPTIONS if not each.startswith(("--log-bin=", "--server-id"))]
    own = ("--log-bin=other-bin", "--server-id=8", "--log-slave-updates")
    with maria_db(debian, tmp_path / "other", *options, *own) as made:
        follow(made, primary)
        yield made


def add(orders: Database, *rows: int) -> datetime:
    """Add rows, each in a transaction of its own; return the second after."""
    for row in rows:
        ask(orders, f"INSERT INTO t VALUES ({row})")  # noqa: S608  a number
    return second()


def test_the_archive_goes_on_with_a_server_that_took_over_and_back(
    primary: MariaDb, replica: MariaDb, root: Path
) -> None:
    here, there = Databases(driver_of(primary, root)), Databases(driver_of(replica, root))
    orders, times = orders_with(here, 1), []
    replica.execute("FLUSH BINARY LOGS")
    with archiving(here) as told:
        here.back_up()
        times.append(add(orders, 2, 3))
        replica.execute("FLUSH BINARY LOGS")
        times.append(add(orders, 4))
        within(lambda: told[-1].until > times[-1], "the time")
    times.append(add(orders, 5))  # which nobody archives of this server
    caught_up(replica, primary)
    primary.kill()
    take_over(replica)
    orders = there.open(declared("orders"))
    times.append(add(orders, 6))
    with pytest.raises(Conflict, match="is another one than is archived"):
        there.back_up()
    with archiving(there) as told:
        times.append(add(orders, 7))
        replica.execute("FLUSH BINARY LOGS")
        times.append(add(orders, 8, 9))
        within(lambda: told[-1].until > times[-1], "the time")
        for number, (when, last) in enumerate(zip(times, (3, 4, 5, 6, 7, 9), strict=True)):
            copy = orders.restore(declared(f"copy-{number}"), at=when)
            assert list(range(1, last + 1)) == numbers(copy), number
    with archiving(there) as told:
        times.append(add(orders, 10))
        within(lambda: told[-1].until > times[-1], "the time")
    primary.start()
    follow(primary, replica)
    caught_up(primary, replica)
    replica.kill()
    take_over(primary)
    orders = here.open(declared("orders"))
    with archiving(here) as told:
        times.append(add(orders, 11))
        within(lambda: told[-1].until > times[-1], "the time")
        made = here.back_up()
        times.append(add(orders, 12))
        for number in (1, 4, 6, 7, 8):
            copy = orders.restore(declared(f"again-{number}"), at=times[number])
            assert list(range(1, (0, 4, 0, 0, 7, 0, 10, 11, 12)[number] + 1)) == numbers(copy), number
        assert ["0002.json", "0003.json"] == stored(root, "joins")
        for backup in list(here.backups())[:-1]:
            here.delete_backup(backup.name)
        assert [made] == list(here.backups())
        assert [] == stored(root, "joins")
        assert {"0003"} == {name[:4] for name in stored(root, "binlog")}
        assert list(range(1, 13)) == numbers(orders.restore(declared("last"), at=times[-1]))


def stopped_at(databases: Databases, orders: Database, *rows: int) -> datetime:
    """Archive, back up, add rows, and archive no more when they are stored."""
    with archiving(databases) as told:
        databases.back_up()
        when = add(orders, *rows)
        within(lambda: told[-1].until > when, "the time")
    return when


def test_a_server_that_took_over_without_what_is_stored_is_a_gap(
    primary: MariaDb, replica: MariaDb, root: Path
) -> None:
    here, there = Databases(driver_of(primary, root)), Databases(driver_of(replica, root))
    orders = orders_with(here, 1)
    with archiving(here):
        pass
    caught_up(replica, primary)
    replica.execute("STOP SLAVE")
    when = stopped_at(here, orders, 2)
    primary.kill()
    take_over(replica)
    orders = there.open(declared("orders"))
    ask(orders, "INSERT INTO t VALUES (3)")
    with (
        pytest.raises(Conflict, match=r"its transaction 0-8-\d+ is not stored, and later ones are.*--over-gap"),
        archiving(there),
    ):
        pass
    with archiving(there, over_gap=True):
        assert [1, 2] == numbers(orders.restore(declared("copy"), at=when))
        there.back_up()
        assert [1, 3] == numbers(orders.restore(declared("later"), at=second()))


def test_a_server_that_was_written_before_it_took_over_is_a_gap(primary: MariaDb, replica: MariaDb, root: Path) -> None:
    here, there = Databases(driver_of(primary, root)), Databases(driver_of(replica, root))
    orders = orders_with(here, 1)
    caught_up(replica, primary)
    replica.execute("INSERT INTO shop.t VALUES (99)")
    ask(orders, "INSERT INTO t VALUES (2)")
    stopped_at(here, orders, 3)
    caught_up(replica, primary)
    primary.kill()
    take_over(replica)
    with pytest.raises(Conflict, match=r"its transaction 0-8-\d+ is not stored, and later ones are"), archiving(there):
        pass


def test_a_log_that_was_reset_and_counts_as_far_again_is_a_gap(primary: MariaDb, root: Path) -> None:
    here = Databases(driver_of(primary, root))
    orders = orders_with(here, 1)
    stopped_at(here, orders, 2)
    ((before,),) = primary.execute("SELECT @@gtid_binlog_pos")
    primary.execute("RESET MASTER")
    number = 100
    while primary.execute("SELECT @@gtid_binlog_pos") != [(before,)]:
        ask(orders, f"INSERT INTO t VALUES ({number})")  # noqa: S608  a number
        number += 1
    ask(orders, "INSERT INTO t VALUES (3)")
    with pytest.raises(Conflict, match="it lacks the transaction 0-7-"), archiving(here):
        pass

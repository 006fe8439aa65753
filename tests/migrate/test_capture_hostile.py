# ruff: noqa: S608  names and numbers are the test's own
"""Moves that are killed, cut off, or whose servers stop, under writers: no transaction is lost, none comes twice."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from shiftable.errors import MigrationError
from shiftable.postgresql import Cluster

from .capturing import LEDGER, Moving, Writer, mover, moving, two_clusters


@pytest.fixture(scope="module")
def clusters() -> Iterator[tuple[Cluster, Cluster]]:
    with two_clusters() as found:
        yield found


@pytest.fixture
def move(clusters: tuple[Cluster, Cluster], tmp_path: Path) -> Iterator[Moving]:
    with moving(clusters, tmp_path) as found:
        found.both(LEDGER, "CREATE TABLE keyless (note text)")
        found.both("TRUNCATE account")
        found.run("INSERT INTO account SELECT id, 1000, repeat(md5(id::text), 100) FROM generate_series(1, 50) AS id")
        yield found


def run_mover(move: Moving, *, ends: int = 0, **more: Any) -> str:
    """Run a mover until it ends as it has to, and return what it says."""
    process = mover(move, **more)
    said, _ = process.communicate(timeout=120)
    assert ends == process.returncode, said
    return said


def assert_whole(move: Moving, *writers: Writer) -> None:
    """See that both servers have the same, and in it each transaction that a writer knows of, once."""
    move.verify()
    move.assert_clean()
    assert [(50_000,)] == move.ask(move.target, "SELECT sum(balance) FROM account")
    for each in writers:
        query = f"SELECT number FROM ledger WHERE writer = {each.number}"
        there = [number for (number,) in move.ask(move.target, query)]
        booked = each.committed | each.unsure
        gone = {number - 4 for number in booked if not number % 5}
        kept = {number for number in each.committed if number not in gone}
        assert len(there) == len(set(there))
        assert kept <= set(there) <= booked


KILLS = [
    ("journal", "after", 1),
    ("create", "after", 1),
    ("prepare", "before", 1),
    ("answers", "after", 2),
    ("advance", "before", 1),
    ("freeze", "after", 1),
    ("seal", "after", 1),
    ("unshield", "before", 1),
    ("settle", "after", 1),
    ("drop", "after", 2),
    ("forget", "after", 2),
]
"""One for each phase; tests/servers has them all."""


@pytest.mark.parametrize("kill", KILLS, ids=lambda kill: " ".join(str(each) for each in kill))
def test_a_mover_that_is_killed_anywhere_goes_on_and_nothing_is_lost_or_doubled(
    move: Moving, kill: tuple[str, str, int]
) -> None:
    with Writer(lambda: move.on(move.source), 1) as first, Writer(lambda: move.on(move.source), 2) as second:
        first.wait_for(10)
        run_mover(move, die=kill, ends=-9)
        if not first.refused:
            first.wait_for(10)
        run_mover(move)
    assert_whole(move, first, second)


def test_a_mover_that_is_killed_at_any_time_goes_on_again_and_again(move: Moving) -> None:
    with Writer(lambda: move.on(move.source), 1) as first, Writer(lambda: move.on(move.source), 2) as second:
        for _ in range(3):
            process = mover(move, follow=True)
            assert process.stdout is not None
            assert "following\n" == process.stdout.readline()
            first.wait_for(25)
            process.kill()
            process.communicate()
        run_mover(move)
    assert_whole(move, first, second)


@pytest.mark.parametrize("which", ["source", "target"])
@pytest.mark.parametrize("how", ["sessions", "server"])
def test_a_server_that_goes_away_in_the_middle_loses_nothing(move: Moving, which: str, how: str) -> None:
    cluster: Cluster = getattr(move, which)
    online = move.online(may_identify=True)
    ended, failures = threading.Event(), []

    def follow() -> None:
        try:
            online.follow(until=lambda _lag: ended.is_set())
        except BaseException as exc:  # noqa: BLE001  shown by the test
            failures.append(exc)

    with Writer(lambda: move.on(move.source), 1) as first, Writer(lambda: move.on(move.source), 2) as second:
        online.start()
        thread = threading.Thread(target=follow)
        thread.start()
        for _ in range(3):
            first.wait_for(20)
            if how == "server":
                cluster.stop(immediately=True)
                cluster.start()
            else:
                with cluster.connect(autocommit=True) as connection:
                    connection.execute(
                        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE"
                        " 'shiftable online%'"
                    )
        first.wait_for(20)
        ended.set()
        thread.join()
        assert [] == failures
        move.finish(online)
    assert_whole(move, first, second)


def test_a_server_that_stays_away_ends_the_step_and_the_next_run_goes_on(move: Moving) -> None:
    online = move.online(may_identify=True, patience=0.3)
    online.start()
    move.run("INSERT INTO keyless VALUES ('x')")
    move.target.stop(immediately=True)
    try:
        with pytest.raises(MigrationError, match="target cannot be reached.*run the same again"):
            online.follow()
    finally:
        move.target.start()
    move.finish(online)


def test_two_movers_at_once_bring_each_transaction_once(move: Moving, tmp_path: Path) -> None:
    """Two folders on two machines: no lock keeps them apart but the target's own."""
    with Writer(lambda: move.on(move.source), 1) as first, Writer(lambda: move.on(move.source), 2) as second:
        online = move.online(may_identify=True)
        online.start()
        other = tmp_path / "other"
        other.mkdir()
        (other / online.path.name).write_text(online.path.read_text())
        processes = [mover(move, follow=True)]
        move.folder = other
        processes.append(mover(move, follow=True))
        first.wait_for(200)
        for process in processes:
            process.kill()
            process.communicate()
        move.folder = tmp_path
        move.finish(online)
    assert_whole(move, first, second)


@pytest.mark.parametrize("phase", ["copying", "following", "freezing", "drained"])
def test_a_rollback_leaves_the_source_as_it_was_and_nothing_on_the_target(move: Moving, phase: str) -> None:
    kill = {
        "copying": ("create", "after", 1),
        "following": ("advance", "after", 1),
        "freezing": ("seal", "after", 1),
        "drained": ("settle", "before", 1),
    }[phase]
    identity = "SELECT relreplident::text FROM pg_class WHERE relname = 'keyless'"
    with Writer(lambda: move.on(move.source), 1) as writer:
        writer.wait_for(5)
        run_mover(move, die=kill, ends=-9)
        online = move.online(may_identify=True)
        assert phase == online.status().phase
        assert [("f",)] == move.ask(move.source, identity)
        online.rollback()
        writer.wait_for(5)
        assert "new" == online.status().phase
    move.assert_clean()
    assert [("d",)] == move.ask(move.source, identity)
    assert [] == move.ask(
        move.source, "SELECT setconfig FROM pg_db_role_setting s WHERE setconfig::text LIKE '%read_only%'"
    )


def test_a_rollback_gives_the_database_its_own_setting_back(move: Moving) -> None:
    move.run(f"ALTER DATABASE {move.name} SET default_transaction_read_only = off")
    online = move.online(may_identify=True)
    online.start()
    with pytest.raises(ZeroDivisionError):
        online.cutover(verify=lambda: 1 / 0, hand_over=lambda: None)
    assert [("on",)] == move.ask(move.source, "SHOW default_transaction_read_only")
    online.rollback()
    query = "SELECT unnest(setconfig) FROM pg_db_role_setting JOIN pg_database d ON d.oid = setdatabase WHERE datname ="
    assert [("default_transaction_read_only=off",)] == move.ask(move.source, f"{query} '{move.name}'")


def test_what_was_handed_over_is_not_rolled_back(move: Moving) -> None:
    online = move.online(may_identify=True)
    online.start()

    def fails() -> None:
        raise ConnectionError("the configuration cannot be written")

    with pytest.raises(ConnectionError):
        online.cutover(verify=move.verify, hand_over=fails)
    assert "verified" == online.status().phase
    online.cutover(verify=move.verify, hand_over=lambda: None)
    with pytest.raises(MigrationError, match="handed over"):
        online.rollback()


def test_what_is_written_despite_the_stop_is_found_before_the_target_is_handed_over(move: Moving) -> None:
    online = move.online(may_identify=True)
    online.start()

    def writes() -> None:
        with move.on(move.source) as connection:
            connection.execute("SET default_transaction_read_only = off")
            connection.execute("INSERT INTO keyless VALUES ('late')")

    with pytest.raises(MigrationError, match="1 changes were written to the source after its writes were stopped"):
        online.cutover(verify=writes, hand_over=lambda: pytest.fail("it was handed over"))
    online.cutover(verify=move.verify, hand_over=lambda: None)
    assert [("late",)] == move.ask(move.target, "SELECT note FROM keyless")


def test_a_prepared_transaction_stops_the_cutover(move: Moving) -> None:
    online = move.online(may_identify=True)
    online.start()
    move.run("BEGIN; INSERT INTO keyless VALUES ('prepared'); PREPARE TRANSACTION 'open'")
    with pytest.raises(MigrationError, match="1 prepared transactions are open on source"):
        online.cutover(verify=move.verify, hand_over=lambda: None)
    move.run("COMMIT PREPARED 'open'")
    move.finish(online)
    assert [("prepared",)] == move.ask(move.target, "SELECT note FROM keyless")


def test_a_huge_transaction_takes_little_memory(move: Moving) -> None:
    move.both("CREATE TABLE large (id int PRIMARY KEY, v text)")
    online = move.online(may_identify=True)
    online.start()
    move.run("INSERT INTO large SELECT n, repeat(md5(n::text), 32) FROM generate_series(1, 80000) AS n")
    said = run_mover(move)
    assert json.loads(said.splitlines()[-1])["peak"] < 120 * 1024 * 1024
    assert_whole(move)


def test_rows_of_many_megabytes_arrive(move: Moving) -> None:
    move.both("CREATE TABLE large (id int PRIMARY KEY, v bytea)")
    online = move.online(may_identify=True, binary=True)
    online.start()
    block = "decode(repeat('00ff5c27', 2500000), 'hex')"
    move.run(*(f"INSERT INTO large VALUES ({number}, {block})" for number in range(3)), "UPDATE large SET id = id + 10")
    move.finish(online)


def test_sequences_are_where_they_were(move: Moving) -> None:
    move.both(
        'CREATE SEQUENCE "Order no" INCREMENT 5 MINVALUE -100 START 3', "CREATE SEQUENCE never", "CREATE SEQUENCE s"
    )
    move.run("SELECT nextval('\"Order no\"') FROM generate_series(1, 7)", "SELECT nextval('s')")
    move.run("INSERT INTO ledger (writer, number) SELECT 9, n FROM generate_series(1, 33) AS n")
    move.finish(move.online(may_identify=True))
    for name in ('"Order no"', "never", "s", "ledger_id_seq"):
        query = f"SELECT last_value, is_called FROM {name}"
        assert move.ask(move.source, query) == move.ask(move.target, query)
    with move.on(move.source) as connection, pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        connection.execute("SELECT nextval('s')")


def test_a_move_is_not_begun_twice_at_once(move: Moving) -> None:
    online = move.online(may_identify=True)

    def copy(_snapshot: str) -> None:
        with pytest.raises(MigrationError, match="another move is using"):
            move.online().start()

    online._copy = copy
    began = time.monotonic()
    online.start()
    assert began < time.monotonic()
    online.rollback()


def test_a_state_that_is_not_ours_is_left_alone(move: Moving) -> None:
    online = move.online()
    online.path.write_text('{"format": 99}')
    with pytest.raises(MigrationError, match="no move that this shiftable knows"):
        online.start()
    assert '{"format": 99}' == online.path.read_text()

"""A move of a database is killed, or one of its servers is: the next run ends with the same contents."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psycopg
import pytest

from shiftable.errors import MigrationError
from shiftable.migrate._postgresql._move import DatabaseMove, How, moved
from shiftable.migrate._postgresql._verification import differences
from shiftable.postgresql import Cluster, temporary_cluster

from .databases import pair, target_cluster
from .killed_moves import ON_WITH, ran
from .pairs import Pair

__all__ = ["pair", "target_cluster"]

SMALL = 64 * 1024
PATIENCE = 60
# Autovacuum writes to the source whenever it wants, and then a killed move has to begin anew.
QUIET = {"autovacuum": "off"}

MARKS = "SELECT key, xmin::text FROM shiftable_migrate.chunk WHERE key NOT LIKE 'public.unlogged %'"
STAGES = {
    "before its first mark": (["make"], 0),
    "between its mark and the tables": (["restore"], 0),
    "before the rows": (["enter"], 0),
    "before the first chunk": (["copied"], 0),
    "after some rows, before their mark": (["marked"], 2),
    "among the chunks": (["copied"], 9),
    "before the first index beside the rows": (["script"], 0),
    "among indexes beside the rows": (["script"], 4),
    "before the other indexes": (["restore"], 1),
    "before sequences": (["_set_sequences"], 0),
    "before materialised views": (["_refresh"], 0),
    "before statistics": (["_analyze"], 0),
    "before grants": (["_give"], 0),
    "before its marks are dropped": (["drop"], 0),
}


def run(pair: Pair, stages: Sequence[str] = (), after: int = 0) -> subprocess.CompletedProcess[str]:
    sides = (dict(pair.arguments(cluster)) for cluster in (pair.source_cluster, pair.target_cluster))
    return ran("postgresql", sides, stages, after, chunk=SMALL)


def assert_equal(pair: Pair) -> None:
    assert pair.contents(pair.source_cluster) == pair.contents(pair.target_cluster)
    assert pair.schema(pair.source_cluster) == pair.schema(pair.target_cluster)
    assert {} == differences(pair.source, pair.target)
    assert [] == pair.on_target("SELECT nspname FROM pg_namespace WHERE nspname LIKE 'shiftable%'")


@pytest.fixture(scope="module")
def quiet_cluster() -> Iterator[Cluster]:
    """A source to which nobody writes, not even its own vacuum."""
    with temporary_cluster(parameters=QUIET) as cluster:
        yield cluster


@pytest.fixture
def quiet(quiet_cluster: Cluster, target_cluster: Cluster) -> Iterator[Pair]:
    found = Pair(quiet_cluster, target_cluster)
    found.make()
    found.fill()
    yield found
    found.drop()


def test_a_move_that_is_stopped_says_so_and_goes_on_later(quiet: Pair) -> None:
    stopping = threading.Event()
    stopping.set()
    with pytest.raises(MigrationError, match="stopped; run the same again"):
        moved(quiet.source, quiet.target, How(stopping=stopping))

    move = moved(quiet.source, quiet.target)
    assert [ON_WITH] == move.notes
    assert_equal(quiet)


@pytest.mark.parametrize("stage", STAGES)
def test_a_mover_that_is_killed_goes_on_and_nothing_comes_twice(quiet: Pair, stage: str) -> None:
    killed = run(quiet, *STAGES[stage])
    assert (-signal.SIGKILL, "") == (killed.returncode, killed.stdout), killed.stderr

    again = run(quiet)
    assert (0, "") == (again.returncode, again.stderr)
    began = stage in {"before its first mark", "between its mark and the tables", "before the rows"}
    assert ([] if began else [ON_WITH]) == json.loads(again.stdout)
    assert_equal(quiet)


def test_a_mover_that_is_killed_again_and_again_comes_to_its_end(quiet: Pair) -> None:
    chosen = random.Random(6)  # noqa: S311  any will do, the same each time
    names = [
        "marked",
        "copied",
        "script",
        "restore",
        "enter",
        "make",
        "wipe",
        "_refresh",
        "_analyze",
        "_give",
        "_set_sequences",
    ]
    kills = 0
    for _ in range(12):
        killed = run(quiet, names, chosen.randrange(24))
        kills += killed.returncode == -signal.SIGKILL
        if killed.returncode == 0:
            break
        assert -signal.SIGKILL == killed.returncode, killed.stderr
    else:
        assert 0 == run(quiet).returncode

    assert kills > 2
    assert_equal(quiet)


def test_what_had_arrived_is_not_sent_again(quiet: Pair) -> None:
    run(quiet, ["copied"], 9)
    before = dict(quiet.on_target(MARKS))
    run(quiet, ["enter"], 0)  # to the next phase
    after = dict(quiet.on_target(MARKS))

    assert 0 < len(before) < len(after)
    assert before == {key: after[key] for key in before}, "each mark is the transaction's that brought the rows"


def test_a_source_that_was_written_to_meanwhile_is_copied_anew(quiet: Pair) -> None:
    run(quiet, ["copied"], 9)
    quiet.fill(
        "UPDATE computed SET a = a + 1; DELETE FROM measured WHERE place = 1; INSERT INTO without_key VALUES (9)"
    )
    quiet.fill("REFRESH MATERIALIZED VIEW by_place")

    again = run(quiet)
    (note,) = json.loads(again.stdout)
    assert "begun anew: its snapshot is gone" in note
    assert_equal(quiet)


def test_a_source_whose_schema_changed_meanwhile_is_copied_anew(quiet: Pair) -> None:
    run(quiet, ["_refresh"], 0)
    quiet.fill("ALTER TABLE computed ADD COLUMN more int DEFAULT 4")

    again = run(quiet)
    assert ["a killed move was begun anew: the schema is another one now"] == json.loads(again.stdout)
    assert_equal(quiet)


def test_a_transaction_that_was_open_at_the_first_snapshot_spoils_it(quiet: Pair) -> None:
    with psycopg.connect(**quiet.source.arguments()) as writer:
        writer.execute("INSERT INTO without_key VALUES (7, 'open')")
        run(quiet, ["copied"], 9)
    (note,) = moved(quiet.source, quiet.target, How(chunk=SMALL)).notes

    assert "begun anew" in note
    assert_equal(quiet)


def test_a_source_that_somebody_declares_frozen_need_not_prove_it(quiet: Pair) -> None:
    run(quiet, ["copied"], 9)
    with quiet.source_cluster.connect(autocommit=True) as connection:
        connection.execute("CREATE TABLE elsewhere (a int); DROP TABLE elsewhere")  # it takes a number all the same

    assert [ON_WITH] == moved(quiet.source, quiet.target, How(chunk=SMALL, frozen=True)).notes
    assert_equal(quiet)


def test_vacuum_between_two_runs_moves_no_chunk(quiet: Pair) -> None:
    quiet.fill("INSERT INTO without_key SELECT n, md5(n::text) FROM generate_series(1, 20000) AS s (n)")
    quiet.fill("DELETE FROM without_key WHERE a > 12000; DELETE FROM heavy WHERE id % 3 = 0")
    run(quiet, ["copied"], 9)
    size = quiet.on_source("SELECT pg_table_size('without_key')")
    quiet.fill("VACUUM without_key", "VACUUM heavy", "VACUUM computed")

    assert size != quiet.on_source("SELECT pg_table_size('without_key')")
    assert [ON_WITH] == moved(quiet.source, quiet.target, How(chunk=SMALL * 3, frozen=True)).notes
    assert_equal(quiet)


def test_a_table_that_was_written_anew_between_two_runs_is_copied_anew(quiet: Pair) -> None:
    quiet.fill("INSERT INTO without_key SELECT n, md5(n::text) FROM generate_series(1, 20000) AS s (n)")
    quiet.fill("DELETE FROM without_key WHERE a % 2 = 0")
    run(quiet, ["copied"], 9)
    quiet.fill("VACUUM FULL without_key")

    (note,) = moved(quiet.source, quiet.target, How(chunk=SMALL, frozen=True)).notes
    assert note.endswith("tables of the source were written anew meanwhile")
    assert_equal(quiet)


def test_a_source_that_is_set_to_read_only_need_not_prove_it_either(quiet: Pair) -> None:
    quiet.fill(f"ALTER DATABASE {quiet.name} SET default_transaction_read_only = on")
    run(quiet, ["copied"], 9)
    with quiet.source_cluster.connect(autocommit=True) as connection:
        connection.execute("CREATE TABLE elsewhere (a int); DROP TABLE elsewhere")

    assert [ON_WITH] == moved(quiet.source, quiet.target, How(chunk=SMALL)).notes
    with quiet.target_cluster.connect(autocommit=True) as connection:
        connection.execute(f"ALTER DATABASE {quiet.name} RESET default_transaction_read_only")
    with quiet.source_cluster.connect(autocommit=True) as connection:
        connection.execute(f"ALTER DATABASE {quiet.name} RESET default_transaction_read_only")
    assert_equal(quiet)


def test_what_a_killed_move_has_left_running_is_ended(quiet: Pair) -> None:
    arguments = {**quiet.target.arguments(), "application_name": "shiftable migrate"}
    with psycopg.connect(**arguments, autocommit=True) as left_behind:
        left_behind.execute("SELECT 1")
        moved(quiet.source, quiet.target)
        with pytest.raises(psycopg.OperationalError):
            left_behind.execute("SELECT 1")

    assert_equal(quiet)


# servers


@pytest.mark.parametrize("side", ["source", "target"])
@pytest.mark.parametrize("after", [0, 7])
def test_a_server_that_is_killed_while_rows_travel_costs_a_run(quiet: Pair, side: str, after: int) -> None:
    cluster = quiet.source_cluster if side == "source" else quiet.target_cluster
    if side == "source":
        quiet.fill("DROP TABLE unlogged")  # the crash would empty it, perhaps when it has arrived
    with DatabaseMove(quiet.source, quiet.target, How(chunk=SMALL)) as move:
        move.begin()
        move.start()
        labels = [table.label for table in move.tables]
        for label in labels[:after]:
            move.table(label)
        crash(cluster)
        with pytest.raises(MigrationError, match=f"the {side}|lost|closed|terminat"):
            move.finish()
    cluster.start()

    moved(quiet.source, quiet.target, How(chunk=SMALL))
    assert_equal(quiet)


@pytest.mark.parametrize("side", ["source", "target"])
def test_a_server_that_is_killed_while_indexes_are_built_costs_a_run(
    quiet: Pair, side: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = quiet.source_cluster if side == "source" else quiet.target_cluster
    quiet.fill("DROP TABLE unlogged")
    real = DatabaseMove._refresh

    def refresh(self: Any) -> None:
        crash(cluster)
        real(self)

    monkeypatch.setattr(DatabaseMove, "_refresh", refresh)
    with pytest.raises(MigrationError, match=f"the {side}: "):
        moved(quiet.source, quiet.target, How(chunk=SMALL))
    monkeypatch.undo()
    cluster.start()

    assert [ON_WITH] == moved(quiet.source, quiet.target, How(chunk=SMALL)).notes
    assert_equal(quiet)


def test_unlogged_tables_come_again_in_whole(quiet: Pair) -> None:
    quiet.fill("INSERT INTO unlogged SELECT generate_series(1, 20000)")
    run(quiet, ["enter"], 1)  # all rows are there, and the next phase has not begun

    assert [ON_WITH] == moved(quiet.source, quiet.target, How(chunk=SMALL)).notes
    assert_equal(quiet)


def test_a_crash_that_empties_an_unlogged_table_of_the_target_is_noticed(
    quiet: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refresh(self: Any) -> None:
        crash(quiet.target_cluster)
        raise MigrationError("the server is gone")

    monkeypatch.setattr(DatabaseMove, "_refresh", refresh)
    with pytest.raises(MigrationError, match="gone"):
        moved(quiet.source, quiet.target)
    monkeypatch.undo()
    quiet.target_cluster.start()

    (note,) = moved(quiet.source, quiet.target).notes
    assert note.endswith("a crash of the target has emptied its unlogged tables")
    assert_equal(quiet)


def crash(cluster: Cluster) -> None:
    """End a server as a power failure does, and wait until it is gone."""
    number = cluster.pid
    assert number is not None
    os.kill(number, signal.SIGKILL)
    end = time.monotonic() + PATIENCE
    while cluster.running:
        assert time.monotonic() < end
        time.sleep(0.02)


# memory


MEMORY = """
import json, sys
from shiftable.migrate._postgresql._move import How, moved
from shiftable.migrate._postgresql._side import Side

sides = [Side(lambda each=each: each, "a side") for each in json.loads(sys.argv[1])]
moved(*sides, How(chunk=16 * 1024 * 1024))
# What getrusage tells begins with what the parent had when it forked.
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


def test_memory_does_not_grow_with_what_is_moved(quiet: Pair, tmp_path: Path) -> None:
    sides = json.dumps([dict(quiet.arguments(each)) for each in (quiet.source_cluster, quiet.target_cluster)])
    peaks = []
    for rows in (1_000, 100_000):
        quiet.fill("DROP TABLE IF EXISTS bulk", "CREATE TABLE bulk (id int, body text)")
        quiet.fill("ALTER TABLE bulk ALTER body SET STORAGE EXTERNAL")
        quiet.fill(f"INSERT INTO bulk SELECT n, repeat(md5(n::text), 50) FROM generate_series(1, {rows}) AS s (n)")  # noqa: S608
        with quiet.target_cluster.connect(autocommit=True) as connection:
            connection.execute(f"DROP DATABASE {quiet.name} WITH (FORCE)")
            connection.execute(f"CREATE DATABASE {quiet.name}")
        done = subprocess.run([sys.executable, "-c", MEMORY, sides], capture_output=True, text=True, check=True)
        peaks.append(int(done.stdout))

    assert [(100_000,)] == quiet.on_target("SELECT count(*) FROM bulk")  # 160 MB
    assert peaks[1] < peaks[0] + 20_000
    assert peaks[1] < 200_000  # kB

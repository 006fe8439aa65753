"""A move of MariaDB is killed, or one of its servers is: the next run ends with the same contents."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator, Sequence
from typing import Any

import pymysql
import pytest

from shiftable.errors import MigrationError
from shiftable.migrate._mysql._move import DatabaseMove, How, moved
from shiftable.migrate._mysql._verification import differences

from ..migrate.killed_moves import ON_WITH, ran
from .mysql_pair import MariaDb, Pair, equal, servers

__all__ = ["servers"]

SMALL = 16 * 1024

STAGES = {
    "before its first mark": (["make"], 0),
    "between its mark and the tables": (["defined"], 0),
    "among the tables": (["defined"], 9),
    "before the rows": (["enter"], 0),
    "before the first chunk": (["copied"], 0),
    "after some rows, before their mark": (["marked"], 5),
    "among the chunks": (["copied"], 30),
    "after the rows": (["enter"], 1),
    "among the indexes": (["_keys"], 9),
    "before foreign keys": (["_foreign"], 0),
    "before the counters": (["_count"], 0),
    "before sequences": (["_set_sequences"], 0),
    "among the code": (["made"], 6),
    "before statistics": (["_analyze"], 0),
    "before grants": (["apply_grants"], 0),
    "before its marks are dropped": (["drop"], 1),
}
ANEW = {
    "before its first mark",
    "between its mark and the tables",
    "among the tables",
    "before the rows",
}


@pytest.fixture
def pair(servers: tuple[MariaDb, MariaDb]) -> Iterator[Pair]:
    found = Pair(*servers)
    found.make()
    found.fill()
    yield found
    found.drop()


def run(pair: Pair, stages: Sequence[str] = (), after: int = 0, **how: Any) -> subprocess.CompletedProcess[str]:
    sides = (dict(server.arguments(pair.name)) for server in (pair.source_server, pair.target_server))
    return ran("mysql", sides, stages, after, chunk=SMALL, **how)


def assert_equal(pair: Pair) -> None:
    assert equal(pair)
    assert {} == differences(pair.source, pair.target, How(chunk=SMALL))
    assert [] == pair.on_target("SHOW TABLES LIKE 'shiftable%'")


@pytest.mark.parametrize("stage", STAGES)
def test_a_mover_that_is_killed_goes_on_and_nothing_comes_twice(pair: Pair, stage: str) -> None:
    killed = run(pair, *STAGES[stage])
    assert (-signal.SIGKILL, "") == (killed.returncode, killed.stdout), killed.stderr

    again = run(pair)
    assert (0, "") == (again.returncode, again.stderr)
    assert ([] if stage in ANEW else [ON_WITH]) == json.loads(again.stdout)
    assert_equal(pair)


def test_a_mover_that_is_killed_again_and_again_comes_to_its_end(pair: Pair) -> None:
    names = ["marked", "copied", "defined", "enter", "make", "wipe", "_keys", "made", "apply_grants", "drop"]
    kills = 0
    for after in (3, 60, 1, 90, 20, 40, 30, 15):
        killed = run(pair, names, after)
        kills += killed.returncode == -signal.SIGKILL
        if killed.returncode == 0:
            break
        assert -signal.SIGKILL == killed.returncode, killed.stderr
    else:
        assert 0 == run(pair).returncode

    assert kills > 2
    assert_equal(pair)


def arrived(pair: Pair) -> set[str]:
    return {name for (name,) in pair.on_target("SELECT name FROM shiftable_migrate_chunk")}


def test_what_had_arrived_is_not_sent_again(pair: Pair) -> None:
    run(pair, ["copied"], 30)
    before = arrived(pair)
    pair.on_target("CREATE TABLE shiftable_migrate_seen AS SELECT name FROM shiftable_migrate_chunk")
    pair.on_target(
        "CREATE TRIGGER shiftable_migrate_twice BEFORE INSERT ON shiftable_migrate_chunk FOR EACH ROW"
        " IF EXISTS (SELECT 1 FROM shiftable_migrate_seen WHERE name = NEW.name) THEN"
        " SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'it came twice'; END IF"
    )
    killed = run(pair, ["enter"], 0)  # to the next phase

    assert -signal.SIGKILL == killed.returncode, killed.stderr
    assert 10 < len(before) < len(arrived(pair))
    assert before <= arrived(pair)
    pair.on_target("DROP TRIGGER shiftable_migrate_twice", "DROP TABLE shiftable_migrate_seen")


CHANGES = (
    "UPDATE heavy SET txt = 'changed' WHERE id = 3",
    "DELETE FROM computed WHERE id = 100",
    "UPDATE computed SET a = a + 1 WHERE id > 1500",
    "INSERT INTO bytes_key VALUES ('zzz', 1, '2020-01-01', 'new')",
    "INSERT INTO keyless VALUES (9, 'new')",
    "INSERT INTO isam (area, t) VALUES (3, 'new')",
)


@pytest.mark.parametrize("stage", ["among the chunks", "after the rows", "before statistics"])
def test_a_source_that_was_written_to_meanwhile_sends_again_what_has_changed(pair: Pair, stage: str) -> None:
    """Also where indexes and triggers are there already: those must not fire."""
    run(pair, *STAGES[stage])
    pair.fill(*CHANGES)

    again = run(pair)
    assert "" == again.stderr
    (note,) = json.loads(again.stdout)
    assert note.startswith(ON_WITH if stage == "among the chunks" else f"{ON_WITH}, but for ")
    assert_equal(pair)


def test_a_source_that_somebody_declares_frozen_is_not_added_up(pair: Pair) -> None:
    run(pair, *STAGES["after the rows"])
    pair.fill("UPDATE heavy SET txt = 'changed' WHERE id = 3")

    assert [ON_WITH] == json.loads(run(pair, frozen=True).stdout)
    assert ["heavy"] == list(differences(pair.source, pair.target))


def test_a_source_whose_schema_changed_meanwhile_is_copied_anew(pair: Pair) -> None:
    run(pair, *STAGES["before statistics"])
    pair.fill("ALTER TABLE heavy ADD COLUMN more INT DEFAULT 4")

    again = run(pair)
    assert "" == again.stderr
    assert ["a killed move was begun anew: the schema is another one now"] == json.loads(again.stdout)
    assert_equal(pair)


# servers


@pytest.mark.parametrize("side", ["source", "target"])
@pytest.mark.parametrize("after", [0, 7])
def test_a_server_that_is_killed_while_rows_travel_costs_a_run(pair: Pair, side: str, after: int) -> None:
    server = pair.source_server if side == "source" else pair.target_server
    with DatabaseMove(pair.source, pair.target, How(chunk=SMALL)) as move:
        move.begin()
        move.start()
        for table in list(move.tables)[:after]:
            move.table(table.name)
        server.kill()
        with pytest.raises(MigrationError, match=f"the {side}|lost"):
            move.finish()
    server.start()

    moved(pair.source, pair.target, How(chunk=SMALL))
    assert_equal(pair)


@pytest.mark.parametrize("side", ["source", "target"])
def test_a_server_that_is_killed_while_indexes_are_built_costs_a_run(
    pair: Pair, side: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = pair.source_server if side == "source" else pair.target_server
    real = DatabaseMove._count

    def count(self: Any) -> None:
        server.kill()
        real(self)

    monkeypatch.setattr(DatabaseMove, "_count", count)
    with pytest.raises(MigrationError, match=f"the {side}"):
        moved(pair.source, pair.target, How(chunk=SMALL))
    monkeypatch.undo()
    server.start()

    moved(pair.source, pair.target, How(chunk=SMALL))
    assert_equal(pair)


def test_what_a_killed_mover_has_left_running_is_waited_for(pair: Pair) -> None:
    """A lane of a killed mover may still be in its transaction: its lock goes with its session."""
    left_behind = pymysql.connect(**pair.target_server.arguments(pair.name))
    run(pair, *STAGES["among the chunks"])
    from shiftable.migrate._mysql._marks import _lock

    with left_behind.cursor() as cursor:
        cursor.execute("SELECT GET_LOCK(%s, 60)", (_lock(pair.name, "0"),))  # the killed lane may have it still
        assert ((1,),) == cursor.fetchall()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("shiftable.migrate._mysql._marks._PATIENCE", 1)
        with pytest.raises(MigrationError, match="sessions of a killed move do not end"):
            moved(pair.source, pair.target, How(chunk=SMALL))
    left_behind.close()

    moved(pair.source, pair.target, How(chunk=SMALL))
    assert_equal(pair)

"""`shiftable migrate` of a MariaDB database: plans, refusals, reports, verification, what is left in files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

from shiftable.database import Server
from shiftable.migrate import Action, Trouble
from shiftable.migrate._mysql._move import DatabaseMove
from shiftable.testing.conformance.database import small_spec

from ..migrate.database_moves import DatabaseMoves, World, the
from .mysql_pair import MariaDb, Pair, servers

__all__ = ["servers"]

SMALL = (
    "CREATE TABLE goods (id INT AUTO_INCREMENT PRIMARY KEY, name VARCHAR(20), KEY (name))",
    "INSERT INTO goods (name) SELECT CONCAT('n', seq) FROM seq_1_to_1000",
    "CREATE TABLE keyless (a INT)",
    "CREATE VIEW names AS SELECT name FROM goods",
)


@pytest.fixture
def world(servers: tuple[MariaDb, MariaDb], tmp_path: Path) -> Iterator[World]:
    pair = Pair(*servers)
    pair.make()
    spec = attrs.evolve(small_spec("shop"), engine="mariadb", version="10.11")
    source, target = (Server(host="127.0.0.1", port=each.port, admin="admin", tls=False) for each in servers)
    yield World(pair, tmp_path, spec, (source, target), servers[0].password)
    pair.drop()


class TestMariaDb(DatabaseMoves):
    small = SMALL
    items = 3
    schema = ""
    move = DatabaseMove
    late = "_count"


def test_a_plan_says_what_moves_and_writes_nothing(world: World) -> None:
    world.pair.fill(*SMALL)
    plan = world.migration().plan()

    resource = the(plan)
    assert (3, True) == (resource.actions[Action.CREATE].count, plan.complete), resource.refused
    assert {"keys", "accounts"} == {loss.facet for loss in resource.losses}
    assert [] == world.pair.on_target("SHOW TABLES")
    assert not (world.state_dir / "migrate.sqlite").exists()


def test_a_missing_database_is_made_as_the_source_has_it(world: World) -> None:
    world.pair.fill(*SMALL, f"ALTER DATABASE {world.pair.name} CHARACTER SET latin1 COLLATE latin1_german2_ci")
    world.pair.target_server.execute(f"DROP DATABASE {world.pair.name}")
    assert world.migration().apply().complete
    here, there = world.pair.both
    assert here == there
    assert [("latin1_german2_ci",)] == world.pair.on_target("SELECT @@collation_database")


def test_verify_finds_one_flipped_byte_and_says_where_it_is(world: World) -> None:
    world.pair.fill(*SMALL)
    assert world.migration().apply().complete
    world.pair.on_target("UPDATE goods SET name = 'm500' WHERE id = 500")
    report = world.migration().verify()

    (named,) = the(report).named
    assert (Trouble.DIFFERS, f"{world.pair.name}/goods") == (named.trouble, named.key)
    assert "rows differ: otherwise on both sides id = 500 in the only chunk of goods" == named.reason
    assert 2 == the(report).verified.count


def test_a_server_without_a_declared_database_is_refused(world: World) -> None:
    world.spec = attrs.evolve(world.spec, databases=())
    assert ("no database of shop is declared: name them, `databases = [...]`",) == the(world.migration().plan()).refused
    world.spec = attrs.evolve(world.spec, databases=("nowhere",))
    assert ("the source's server shop has no database nowhere",) == the(world.migration().plan()).refused


def test_what_would_be_lost_is_refused_until_it_is_given_up(world: World) -> None:
    world.pair.fill(
        "CREATE TABLE kept (id INT PRIMARY KEY, n INT) WITH SYSTEM VERSIONING", "INSERT INTO kept VALUES (1, 1)"
    )
    (why,) = the(world.migration().plan()).refused
    assert why.endswith(": earlier rows of kept are not moved; --degrade history gives that up")
    assert not world.migration().apply().complete
    assert [] == world.pair.on_target("SHOW TABLES")

    report = world.migration(degrade=["history"]).apply()
    assert report.complete
    assert [("history", True)] == [(loss.facet, loss.accepted) for loss in the(report).losses if loss.accepted]
    assert world.migration(degrade=["history"]).verify().complete

"""The mover of databases: plans, losses, refusals, reports, verification; and runs that end early."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from shiftable.database import Server
from shiftable.memory.database import FEATURES
from shiftable.migrate import Action, Trouble
from shiftable.migrate._postgresql._move import DatabaseMove
from shiftable.testing.conformance.database import small_spec

from .database_moves import DatabaseMoves, Real, World, the
from .databases import pair, target_cluster
from .pairs import Pair

__all__ = ["pair", "target_cluster"]

CANARY = "canary-" + "5e11"
SMALL = (
    "CREATE TABLE goods (id serial PRIMARY KEY, name text)",
    "INSERT INTO goods (name) SELECT 'n' || n FROM generate_series(1, 1000) AS s (n)",
    "CREATE TABLE keyless (a int)",
    "SELECT lo_from_bytea(5, 'x')",
)


def world_of(pair: Pair, folder: Path) -> World:
    clusters = pair.source_cluster, pair.target_cluster
    source, target = (Server(host=each.host, port=each.port, admin="postgres", tls=False) for each in clusters)
    return World(pair, folder, small_spec("shop"), (source, target), CANARY)


@pytest.fixture
def world(pair: Pair, tmp_path: Path) -> World:
    return world_of(pair, tmp_path)


class TestPostgresql(DatabaseMoves):
    small = SMALL
    items = 4
    schema = "public."
    move = DatabaseMove
    late = "_refresh"


def test_a_plan_says_what_moves_and_writes_nothing(world: World) -> None:
    world.pair.fill(*SMALL)
    before = world.pair.schema(world.pair.target_cluster)
    plan = world.migration().plan()

    resource = the(plan)
    assert (4, True) == (resource.actions[Action.CREATE].count, plan.complete)
    assert resource.actions[Action.CREATE].bytes > 50_000
    assert {"keys"} == {loss.facet for loss in resource.losses}
    assert before == world.pair.schema(world.pair.target_cluster)
    assert not (world.state_dir / "migrate.sqlite").exists()


def test_a_missing_server_and_a_missing_database_are_made(pair: Pair, tmp_path: Path) -> None:
    world = world_of(pair, tmp_path)
    world.spec = attrs.evolve(world.spec, deletion_protection=False)
    world.right = Real(world.features, server=world.right.server)
    with pair.target_cluster.connect(autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {pair.name}")
    pair.fill(*SMALL)
    plan = world.migration().plan()

    assert the(plan).changes[0].startswith("create database shop")
    assert world.migration().apply().complete
    here, there = world.pair.both
    assert here == there


def test_a_source_that_went_on_after_its_move_is_told_and_the_target_kept(world: World) -> None:
    world.pair.fill(*SMALL)
    assert world.migration().apply().complete
    world.pair.fill("DELETE FROM goods WHERE id = 7", "SELECT pg_stat_force_next_flush()")
    report = world.migration().apply()

    (named,) = the(report).named
    assert (Trouble.CONFLICT, f"{world.pair.name}/public.goods") == (named.trouble, named.key)
    assert [(1000,)] == world.pair.on_target("SELECT count(*) FROM goods")


def test_verify_finds_one_flipped_byte_and_says_where_it_is(world: World) -> None:
    world.pair.fill(*SMALL)
    assert world.migration().apply().complete
    world.pair.on_target("UPDATE goods SET name = 'm500' WHERE id = 500")
    report = world.migration().verify()

    (named,) = the(report).named
    assert (Trouble.DIFFERS, f"{world.pair.name}/public.goods") == (named.trouble, named.key)
    assert named.reason.startswith("rows differ: only the source has the row at (")
    assert "in its only chunk of public.goods" in named.reason
    assert 3 == the(report).verified.count


# what cannot be moved, and what is lost


def test_a_provider_that_only_simulates_is_refused(world: World) -> None:
    world.right = Real(FEATURES, server=world.right.server)
    assert ("the provider memory only simulates databases: there is nothing to connect to",) == the(
        world.migration().plan()
    ).refused


def test_a_server_or_database_that_the_source_has_not_is_named(world: World) -> None:
    world.spec = attrs.evolve(world.spec, databases=("nowhere",))
    assert ("the source's server shop has no database nowhere",) == the(world.migration().plan()).refused
    world.spec = attrs.evolve(world.spec, name="other")
    assert ("the source has no database server other",) == the(world.migration().plan()).refused


@pytest.fixture
def stranger(pair: Pair) -> Iterator[str]:
    """A role that only the source has."""
    with pair.source_cluster.connect(autocommit=True) as connection:
        connection.execute("CREATE ROLE stranger")
    yield "stranger"
    with pair.source_cluster.connect(pair.name, autocommit=True) as connection:
        connection.execute("DROP OWNED BY stranger")
        connection.execute("DROP ROLE stranger")


def test_roles_that_the_target_has_not_are_a_refusal_until_they_are_given_up(world: World, stranger: str) -> None:
    world.pair.fill(*SMALL, "GRANT SELECT ON goods TO stranger", "CREATE POLICY p ON goods TO stranger USING (true)")
    (why,) = the(world.migration().plan()).refused
    assert why.endswith(
        "the target has no role stranger: table public.goods, row security; --degrade roles gives that up"
    )
    assert not world.migration().apply().complete
    assert [] == world.pair.on_target("SELECT 1 FROM pg_tables WHERE schemaname = 'public'")

    report = world.migration(degrade=["roles"]).apply()
    assert report.complete
    assert [("roles", True)] == [(loss.facet, loss.accepted) for loss in the(report).losses if loss.accepted]
    assert world.migration(degrade=["roles"]).verify().complete


def test_an_extension_that_the_target_has_not_is_a_refusal(world: World) -> None:
    world.pair.fill(*SMALL)
    facts = "shiftable.migrate._postgresql._engine.facts_of"
    with pytest.MonkeyPatch.context() as patch:
        import shiftable.migrate._postgresql._engine as home

        real = home.facts_of

        def facts_of(session: Any, name: str) -> Any:
            found = real(session, name)
            if session.info.port == world.pair.source_cluster.port:
                return attrs.evolve(found, extensions={**found.extensions, "postgis": "3.4"})
            return found

        patch.setattr(facts, facts_of)
        (why,) = the(world.migration().plan()).refused
    assert why.endswith("the target has no extension postgis; allow or install it there")


def test_what_is_lost_is_told_before_and_after(world: World) -> None:
    world.pair.fill(*SMALL, "CREATE PUBLICATION news FOR TABLE goods", "ANALYZE")
    plan, report = world.migration().plan(), world.migration().apply()

    for found in (the(plan), the(report)):
        assert {"keys", "publications", "statistics"} == {loss.facet for loss in found.losses}
    assert "news" in next(loss.detail for loss in the(report).losses if loss.facet == "publications")


# runs that end early


def test_one_table_that_fails_stops_no_other_and_is_named(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.pair.fill(*SMALL)
    real = DatabaseMove.start

    def start(self: DatabaseMove) -> None:
        world.pair.on_target("ALTER TABLE goods ADD CHECK (id < 500)")
        real(self)

    with monkeypatch.context() as patch:
        patch.setattr(DatabaseMove, "start", start)
        report = world.migration().apply()
    told = {each.key: each.reason for each in the(report).named}
    assert {f"{world.pair.name}/public.goods", world.pair.name} == {*told}
    assert "violates check constraint" in told[f"{world.pair.name}/public.goods"]
    world.pair.on_target("ALTER TABLE goods DROP CONSTRAINT goods_id_check")

    assert world.migration().apply().complete
    assert world.migration().verify().complete

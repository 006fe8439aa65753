"""The mover of databases: plans, losses, refusals, reports, verification; and runs that end early."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from shiftable.config import Credential
from shiftable.database import DatabaseInfo, Databases, DatabaseSpec, Server
from shiftable.masking import Masked
from shiftable.memory.database import FEATURES, MemoryDatabaseDriver
from shiftable.migrate import Action, Migration, Options, Plan, Trouble
from shiftable.migrate._postgresql._move import DatabaseMove
from shiftable.postgresql import Cluster
from shiftable.service import Service
from shiftable.testing.conformance.database import small_spec

from .databases import pair, target_cluster
from .pairs import Pair

__all__ = ["pair", "target_cluster"]


@attrs.define
class Real(MemoryDatabaseDriver):
    """Databases whose server is a private cluster's."""

    cluster: Cluster | None = attrs.field(kw_only=True, default=None)
    user: str = attrs.field(kw_only=True, default="postgres")
    secret: str = attrs.field(kw_only=True, default="")

    def info(self, name: str) -> DatabaseInfo:
        info = MemoryDatabaseDriver.info(self, name)
        assert self.cluster is not None
        server = Server(host=self.cluster.host, port=self.cluster.port, admin=self.user, tls=False)
        return attrs.evolve(info, server=server)

    def password(self, name: str, given: Credential | None, *, fresh: bool) -> Masked:
        return Masked(self.secret)


@attrs.frozen
class Declared:
    service: str
    label: str
    spec: DatabaseSpec


@attrs.frozen
class Cloud:
    databases: Databases

    def service(self, name: str) -> Service[Any, Any, Any]:
        return self.databases


class World:
    """An application with one database, a server on each side."""

    def __init__(self, pair: Pair, folder: Path) -> None:
        self.pair = pair
        self.state_dir = folder
        self.features = attrs.evolve(FEATURES, connect=True)
        self.spec = attrs.evolve(small_spec("shop"), databases=(pair.name,))
        self.left = Real(self.features, cluster=pair.source_cluster)
        self.right = Real(self.features, cluster=pair.target_cluster)
        Databases(self.left).create(self.spec)
        self.make_target()

    def make_target(self) -> None:
        Databases(self.right).create(self.spec)

    def declared(self) -> tuple[Declared, ...]:
        return (Declared("database", "orders", self.spec),)

    def cloud(self, label: str) -> Any:
        return Cloud(Databases({"frankfurt": self.left, "local": self.right}[label]))

    def migration(self, **options: Any) -> Migration:
        return Migration(self, "frankfurt", "local", (), Options(**options))


@pytest.fixture
def world(pair: Pair, tmp_path: Path) -> World:
    return World(pair, tmp_path)


def contents(world: World) -> tuple[Any, Any]:
    pair = world.pair
    return pair.contents(pair.source_cluster), pair.contents(pair.target_cluster)


def the(report: Any) -> Any:
    (found,) = report.resources
    return found


SMALL = (
    "CREATE TABLE goods (id serial PRIMARY KEY, name text)",
    "INSERT INTO goods (name) SELECT 'n' || n FROM generate_series(1, 1000) AS s (n)",
    "CREATE TABLE keyless (a int)",
    "SELECT lo_from_bytea(5, 'x')",
)


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


def test_the_awkward_database_moves_is_verified_and_a_second_run_does_nothing(world: World) -> None:
    world.pair.fill()
    report = world.migration().apply()

    here, there = contents(world)
    assert here == there
    assert report.complete
    assert [] == list(world.migration().named())
    tables = the(report).done[Action.CREATE].count
    again = world.migration().apply()
    assert (0, True) == (again.changed, again.complete)
    assert {Action.UNCHANGED: tables} == {action: tally.count for action, tally in the(again).done.items()}
    verified = world.migration().verify()
    assert (tables, True) == (the(verified).verified.count, verified.complete)
    (note,) = the(verified).notes
    assert "added up in both servers, by hashes of their contents" in note


def test_a_plan_that_was_saved_is_done_as_it_was_made_and_refused_when_the_source_changed(world: World) -> None:
    world.pair.fill(*SMALL)
    saved = Plan.from_json(world.migration().plan().to_json())
    world.pair.fill("ALTER TABLE goods ADD COLUMN more int")
    with pytest.raises(Exception, match="is out of date, nothing was moved: .*public.goods' changed"):
        world.migration().apply(saved)

    assert world.migration().apply(Plan.from_json(world.migration().plan().to_json())).complete


def test_a_missing_server_and_a_missing_database_are_made(pair: Pair, tmp_path: Path) -> None:
    world = World(pair, tmp_path)
    world.spec = attrs.evolve(world.spec, deletion_protection=False)
    world.right = Real(world.features, cluster=pair.target_cluster)
    with pair.target_cluster.connect(autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {pair.name}")
    pair.fill(*SMALL)
    plan = world.migration().plan()

    assert the(plan).changes[0].startswith("create database shop")
    assert world.migration().apply().complete
    here, there = contents(world)
    assert here == there


def test_a_target_that_holds_something_else_is_a_conflict_and_left_alone(world: World) -> None:
    world.pair.fill(*SMALL)
    world.pair.on_target("CREATE TABLE goods (id int, name text)", "INSERT INTO goods VALUES (1, 'mine')")
    report = world.migration().apply()

    assert not report.complete
    assert {Trouble.CONFLICT} == {named.trouble for named in the(report).named}
    assert "move into an empty database" in the(report).named[0].reason
    assert [(1, "mine")] == world.pair.on_target("SELECT * FROM goods")


def test_a_target_that_holds_the_same_is_adopted(world: World, tmp_path: Path) -> None:
    world.pair.fill(*SMALL)
    assert world.migration().apply().complete
    for each in tmp_path.iterdir():
        each.unlink()  # the journal
    report = world.migration().apply()

    assert report.complete
    assert {Action.COMPARE: 4} == {action: tally.count for action, tally in the(report).done.items()}


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


def test_verify_says_what_is_missing(world: World) -> None:
    world.pair.fill(*SMALL)
    report = world.migration().verify()

    assert {Trouble.MISSING} == {each.trouble for each in the(report).named if "/public." in each.key}
    assert not report.complete


# what cannot be moved, and what is lost


def test_a_provider_that_only_simulates_is_refused(world: World) -> None:
    world.right = Real(FEATURES, cluster=world.pair.target_cluster)
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


def test_databases_that_are_not_declared_are_told(world: World) -> None:
    with world.pair.source_cluster.connect(autocommit=True) as connection:
        connection.execute("CREATE DATABASE forgotten")
    try:
        (loss,) = (loss for loss in the(world.migration().plan()).losses if loss.facet == "databases")
        assert "forgotten" in loss.detail
        assert world.pair.name not in loss.detail
    finally:
        with world.pair.source_cluster.connect(autocommit=True) as connection:
            connection.execute("DROP DATABASE forgotten")


def test_what_is_lost_is_told_before_and_after(world: World) -> None:
    world.pair.fill(*SMALL, "CREATE PUBLICATION news FOR TABLE goods", "ANALYZE")
    plan, report = world.migration().plan(), world.migration().apply()

    for found in (the(plan), the(report)):
        assert {"keys", "publications", "statistics"} == {loss.facet for loss in found.losses}
    assert "news" in next(loss.detail for loss in the(report).losses if loss.facet == "publications")


# runs that end early


def test_a_run_that_fails_after_the_rows_is_gone_on_with(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.pair.fill(*SMALL)
    with monkeypatch.context() as patch:
        patch.setattr(DatabaseMove, "_refresh", lambda _: 1 / 0)
        report = world.migration().apply()
    assert [(world.pair.name, Trouble.FAILED, "ZeroDivisionError")] == [
        (each.key, each.trouble, each.reason) for each in the(report).named
    ]

    again = world.migration().apply()
    assert again.complete
    assert "a killed move went on where it had stopped" in [
        loss.detail.partition(": ")[2] for loss in the(again).losses
    ]
    assert world.migration().verify().complete


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


def test_no_password_is_in_plan_report_or_journal(world: World) -> None:
    canary = "canary-" + "5e11"
    world.left.secret = world.right.secret = canary
    world.pair.fill(*SMALL)
    plan, report = world.migration().plan(), world.migration().apply()

    told = f"{plan.to_json()}{report.to_json()}{plan!r}{report!r}"
    assert canary not in told
    assert canary.encode() not in b"".join(each.read_bytes() for each in world.state_dir.iterdir())
    assert json.loads(report.to_json())["complete"] is True

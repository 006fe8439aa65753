"""`shiftable migrate` of a MariaDB database: plans, refusals, reports, verification, what is left in files."""

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
from shiftable.migrate._mysql._move import DatabaseMove
from shiftable.service import Service
from shiftable.testing.conformance.database import small_spec

from .mysql_pair import MariaDb, Pair, servers

__all__ = ["servers"]

SMALL = (
    "CREATE TABLE goods (id INT AUTO_INCREMENT PRIMARY KEY, name VARCHAR(20), KEY (name))",
    "INSERT INTO goods (name) SELECT CONCAT('n', seq) FROM seq_1_to_1000",
    "CREATE TABLE keyless (a INT)",
    "CREATE VIEW names AS SELECT name FROM goods",
)


@attrs.define
class Real(MemoryDatabaseDriver):
    """Databases whose server is a real one."""

    at: MariaDb | None = attrs.field(kw_only=True, default=None)

    def info(self, name: str) -> DatabaseInfo:
        assert self.at is not None
        server = Server(host="127.0.0.1", port=self.at.port, admin="admin", tls=False)
        return attrs.evolve(MemoryDatabaseDriver.info(self, name), server=server)

    def password(self, name: str, given: Credential | None, *, fresh: bool) -> Masked:
        assert self.at is not None
        return Masked(self.at.password)


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
        features = attrs.evolve(FEATURES, connect=True)
        self.orders = attrs.evolve(small_spec("shop"), engine="mariadb", version="10.11", databases=(pair.name,))
        self.left, self.right = Real(features, at=pair.source_server), Real(features, at=pair.target_server)
        for each in (self.left, self.right):
            Databases(each).create(self.orders)

    def declared(self) -> tuple[Declared, ...]:
        return (Declared("database", "orders", self.orders),)

    def cloud(self, label: str) -> Any:
        return Cloud(Databases({"frankfurt": self.left, "local": self.right}[label]))

    def migration(self, **options: Any) -> Migration:
        return Migration(self, "frankfurt", "local", (), Options(**options))

    @property
    def equal(self) -> bool:
        return self.pair.contents(self.pair.source_server) == self.pair.contents(self.pair.target_server)


@pytest.fixture
def world(servers: tuple[MariaDb, MariaDb], tmp_path: Path) -> Iterator[World]:
    pair = Pair(*servers)
    pair.make()
    yield World(pair, tmp_path)
    pair.drop()


def the(report: Any) -> Any:
    (found,) = report.resources
    return found


def test_a_plan_says_what_moves_and_writes_nothing(world: World) -> None:
    world.pair.fill(*SMALL)
    plan = world.migration().plan()

    resource = the(plan)
    assert (3, True) == (resource.actions[Action.CREATE].count, plan.complete), resource.refused
    assert {"keys", "accounts"} == {loss.facet for loss in resource.losses}
    assert [] == world.pair.on_target("SHOW TABLES")
    assert not (world.state_dir / "migrate.sqlite").exists()


def test_the_awkward_database_moves_is_verified_and_a_second_run_does_nothing(world: World) -> None:
    world.pair.fill()
    report = world.migration().apply()

    assert world.equal
    assert report.complete, the(report).named
    tables = the(report).done[Action.CREATE].count
    assert tables > 20
    again = world.migration().apply()
    assert (0, True) == (again.changed, again.complete)
    verified = world.migration().verify()
    assert (tables, True) == (the(verified).verified.count, verified.complete)
    (note,) = the(verified).notes
    assert "added up in both servers, by hashes of their contents" in note


def test_a_plan_that_was_saved_is_done_as_it_was_made_and_refused_when_the_source_changed(world: World) -> None:
    world.pair.fill(*SMALL)
    saved = Plan.from_json(world.migration().plan().to_json())
    world.pair.fill("ALTER TABLE goods ADD COLUMN more INT")
    with pytest.raises(Exception, match="is out of date, nothing was moved: .*goods' changed"):
        world.migration().apply(saved)

    assert world.migration().apply(Plan.from_json(world.migration().plan().to_json())).complete


def test_a_missing_database_is_made_as_the_source_has_it(world: World) -> None:
    world.pair.fill(*SMALL, f"ALTER DATABASE {world.pair.name} CHARACTER SET latin1 COLLATE latin1_german2_ci")
    world.pair.target_server.execute(f"DROP DATABASE {world.pair.name}")
    assert world.migration().apply().complete
    assert world.equal
    assert [("latin1_german2_ci",)] == world.pair.on_target("SELECT @@collation_database")


def test_a_target_that_holds_something_else_is_a_conflict_and_left_alone(world: World) -> None:
    world.pair.fill(*SMALL)
    world.pair.on_target("CREATE TABLE goods (id INT PRIMARY KEY, name TEXT)", "INSERT INTO goods VALUES (1, 'mine')")
    report = world.migration().apply()

    assert not report.complete
    assert {Trouble.CONFLICT} == {named.trouble for named in the(report).named}
    assert "move into an empty database" in the(report).named[0].reason
    assert [(1, "mine")] == world.pair.on_target("SELECT * FROM goods")


def test_a_target_that_holds_the_same_is_adopted(world: World) -> None:
    world.pair.fill(*SMALL)
    assert world.migration().apply().complete
    for each in world.state_dir.iterdir():
        each.unlink()  # the journal
    report = world.migration().apply()

    assert report.complete
    assert {Action.COMPARE: 3} == {action: tally.count for action, tally in the(report).done.items()}


def test_verify_finds_one_flipped_byte_and_says_where_it_is(world: World) -> None:
    world.pair.fill(*SMALL)
    assert world.migration().apply().complete
    world.pair.on_target("UPDATE goods SET name = 'm500' WHERE id = 500")
    report = world.migration().verify()

    (named,) = the(report).named
    assert (Trouble.DIFFERS, f"{world.pair.name}/goods") == (named.trouble, named.key)
    assert "rows differ: otherwise on both sides id = 500 in the only chunk of goods" == named.reason
    assert 2 == the(report).verified.count


def test_verify_says_what_is_missing(world: World) -> None:
    world.pair.fill(*SMALL)
    report = world.migration().verify()

    assert {Trouble.MISSING} == {each.trouble for each in the(report).named if "/" in each.key}
    assert not report.complete


def test_a_server_without_a_declared_database_is_refused(world: World) -> None:
    world.orders = attrs.evolve(world.orders, databases=())
    assert ("no database of shop is declared: name them, `databases = [...]`",) == the(world.migration().plan()).refused
    world.orders = attrs.evolve(world.orders, databases=("nowhere",))
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


def test_databases_that_are_not_declared_are_told(world: World) -> None:
    world.pair.source_server.execute("CREATE DATABASE forgotten")
    try:
        (loss,) = (loss for loss in the(world.migration().plan()).losses if loss.facet == "databases")
        assert "forgotten" in loss.detail
        assert "information_schema" not in loss.detail
    finally:
        world.pair.source_server.execute("DROP DATABASE forgotten")


def test_a_run_that_fails_after_the_rows_is_gone_on_with(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.pair.fill(*SMALL)
    with monkeypatch.context() as patch:
        patch.setattr(DatabaseMove, "_count", lambda _: 1 / 0)
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


def test_no_password_is_in_plan_report_or_journal(world: World) -> None:
    world.pair.fill(*SMALL)
    plan, report = world.migration().plan(), world.migration().apply()

    secret = world.pair.source_server.password
    assert secret not in f"{plan.to_json()}{report.to_json()}{plan!r}{report!r}"
    assert secret.encode() not in b"".join(each.read_bytes() for each in world.state_dir.iterdir())
    assert json.loads(report.to_json())["complete"] is True

"""An application with one database and a server on each side, and what holds of its move whatever the engine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

import attrs
import pytest

from shiftable.config import Credential
from shiftable.database import DatabaseInfo, Databases, DatabaseSpec, Server
from shiftable.masking import Masked
from shiftable.memory.database import FEATURES, MemoryDatabaseDriver
from shiftable.migrate import Action, Migration, Options, Plan, Trouble
from shiftable.service import Service

__all__ = ["DatabaseMoves", "Real", "World", "the"]


@attrs.define
class Real(MemoryDatabaseDriver):
    """Databases whose server is a real one."""

    server: Server | None = attrs.field(kw_only=True, default=None)
    secret: str = attrs.field(kw_only=True, default="")

    def info(self, name: str) -> DatabaseInfo:
        return attrs.evolve(MemoryDatabaseDriver.info(self, name), server=self.server)

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
    """An application with one database, a server on each side.

    Args:
        pair: a database of the engine on each of two servers.
        servers: the source's and the target's.
        secret: the administrator's password on both.
    """

    def __init__(
        self, pair: Any, folder: Path, spec: DatabaseSpec, servers: tuple[Server, Server], secret: str
    ) -> None:
        self.pair = pair
        self.state_dir = folder
        self.spec = attrs.evolve(spec, databases=(pair.name,))
        self.secret = secret
        self.features = attrs.evolve(FEATURES, connect=True)
        self.left, self.right = (Real(self.features, server=server, secret=secret) for server in servers)
        for each in (self.left, self.right):
            Databases(each).create(self.spec)

    def declared(self) -> tuple[Declared, ...]:
        return (Declared("database", "orders", self.spec),)

    def cloud(self, label: str) -> Any:
        return Cloud(Databases({"frankfurt": self.left, "local": self.right}[label]))

    def migration(self, **options: Any) -> Migration:
        return Migration(self, "frankfurt", "local", (), Options(**options))


def the(report: Any) -> Any:
    (found,) = report.resources
    return found


class DatabaseMoves:
    """What holds of every move of a database; the module has a fixture ``world``.

    Attributes:
        small: statements that make few things, among them a table ``goods`` with 1,000 numbered rows.
        items: how many things of a plan those are.
        schema: what stands before a table's name in a report.
        move: of one database.
        late: the name of a step of it that comes after the rows.
    """

    small: ClassVar[tuple[str, ...]]
    items: ClassVar[int]
    schema: ClassVar[str]
    move: ClassVar[type[Any]]
    late: ClassVar[str]

    def test_the_awkward_database_moves_is_verified_and_a_second_run_does_nothing(self, world: World) -> None:
        world.pair.fill()
        report = world.migration().apply()

        here, there = world.pair.both
        assert here == there
        assert report.complete, the(report).named
        assert [] == list(world.migration().named())
        tables = the(report).done[Action.CREATE].count
        assert tables > 20
        again = world.migration().apply()
        assert (0, True) == (again.changed, again.complete)
        assert {Action.UNCHANGED: tables} == {action: tally.count for action, tally in the(again).done.items()}
        verified = world.migration().verify()
        assert (tables, True) == (the(verified).verified.count, verified.complete)
        (note,) = the(verified).notes
        assert "added up in both servers, by hashes of their contents" in note

    def test_a_plan_that_was_saved_is_done_as_it_was_made_and_refused_when_the_source_changed(
        self, world: World
    ) -> None:
        world.pair.fill(*self.small)
        saved = Plan.from_json(world.migration().plan().to_json())
        world.pair.fill("ALTER TABLE goods ADD COLUMN more int")
        with pytest.raises(Exception, match=f"is out of date, nothing was moved: .*{self.schema}goods' changed"):
            world.migration().apply(saved)

        assert world.migration().apply(Plan.from_json(world.migration().plan().to_json())).complete

    def test_a_target_that_holds_something_else_is_a_conflict_and_left_alone(self, world: World) -> None:
        world.pair.fill(*self.small)
        world.pair.on_target(
            "CREATE TABLE goods (id int PRIMARY KEY, name text)", "INSERT INTO goods VALUES (1, 'mine')"
        )
        report = world.migration().apply()

        assert not report.complete
        assert {Trouble.CONFLICT} == {named.trouble for named in the(report).named}
        assert "move into an empty database" in the(report).named[0].reason
        assert [(1, "mine")] == world.pair.on_target("SELECT * FROM goods")

    def test_a_target_that_holds_the_same_is_adopted(self, world: World) -> None:
        world.pair.fill(*self.small)
        assert world.migration().apply().complete
        for each in world.state_dir.iterdir():
            each.unlink()  # the journal
        report = world.migration().apply()

        assert report.complete
        assert {Action.COMPARE: self.items} == {action: tally.count for action, tally in the(report).done.items()}

    def test_verify_says_what_is_missing(self, world: World) -> None:
        world.pair.fill(*self.small)
        report = world.migration().verify()

        tables = f"{world.pair.name}/{self.schema}"
        assert {Trouble.MISSING} == {each.trouble for each in the(report).named if each.key.startswith(tables)}
        assert not report.complete

    def test_databases_that_are_not_declared_are_told(self, world: World) -> None:
        world.pair.on_source("CREATE DATABASE forgotten")
        try:
            (loss,) = (loss for loss in the(world.migration().plan()).losses if loss.facet == "databases")
            assert "forgotten" in loss.detail
            assert world.pair.name not in loss.detail
            assert "information_schema" not in loss.detail
        finally:
            world.pair.on_source("DROP DATABASE forgotten")

    def test_a_run_that_fails_after_the_rows_is_gone_on_with(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        world.pair.fill(*self.small)
        with monkeypatch.context() as patch:
            patch.setattr(self.move, self.late, lambda _: 1 / 0)
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

    def test_no_password_is_in_plan_report_or_journal(self, world: World) -> None:
        world.pair.fill(*self.small)
        plan, report = world.migration().plan(), world.migration().apply()

        assert world.secret
        assert world.secret not in f"{plan.to_json()}{report.to_json()}{plan!r}{report!r}"
        assert world.secret.encode() not in b"".join(each.read_bytes() for each in world.state_dir.iterdir())
        assert json.loads(report.to_json())["complete"] is True

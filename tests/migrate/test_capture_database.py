"""The whole move under writers: schema, rows, everything else, with the copy and the comparison of the offline move."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from shiftable.config import Credential
from shiftable.database import DatabaseInfo, Databases
from shiftable.database import Server as AtServer
from shiftable.errors import MigrationError
from shiftable.masking import Masked
from shiftable.memory.database import FEATURES, MemoryDatabaseDriver
from shiftable.migrate.online import Online, OnlineOptions, Server, postgresql
from shiftable.postgresql import Cluster
from shiftable.testing.conformance.database import small_spec

from .capturing import LEDGER, Moving, Writer, moving, two_clusters

SCHEMA = """
CREATE TYPE colour AS ENUM ('red', 'green');
CREATE TABLE parent (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, colour colour, area int,
    twice int GENERATED ALWAYS AS (area * 2) STORED);
CREATE TABLE child (id bigserial PRIMARY KEY, parent int NOT NULL REFERENCES parent ON DELETE CASCADE, v jsonb);
CREATE MATERIALIZED VIEW totals AS SELECT colour, sum(area) AS area FROM parent GROUP BY colour;
CREATE TABLE part (id int, region text, PRIMARY KEY (id, region)) PARTITION BY LIST (region);
CREATE TABLE part_a PARTITION OF part FOR VALUES IN ('a');
CREATE TABLE part_b PARTITION OF part DEFAULT;
CREATE TABLE keyless (at timestamptz DEFAULT now(), v json);
CREATE FUNCTION counted() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN INSERT INTO public.keyless (v) VALUES ('{"a":  1}'); RETURN NEW; END $$;
CREATE TRIGGER counting AFTER INSERT ON child FOR EACH ROW EXECUTE FUNCTION counted();
INSERT INTO parent (colour, area) SELECT 'red', n FROM generate_series(1, 100) AS n;
INSERT INTO child (parent, v) SELECT 1 + n % 100, '{}' FROM generate_series(1, 500) AS n;
INSERT INTO part SELECT n, CASE n % 2 WHEN 0 THEN 'a' ELSE 'b' END FROM generate_series(1, 100) AS n;
REFRESH MATERIALIZED VIEW totals;
"""
CHANGES = (
    "DELETE FROM parent WHERE id % 10 = 0",
    "UPDATE parent SET area = -area, colour = 'green' WHERE id % 3 = 0",
    "INSERT INTO child (parent, v) SELECT 1, '{\"n\": 1}' FROM generate_series(1, 20)",
    "UPDATE part SET region = 'b' WHERE id < 30",
    "REFRESH MATERIALIZED VIEW totals",
)


@pytest.fixture(scope="module")
def clusters() -> Iterator[tuple[Cluster, Cluster]]:
    with two_clusters() as found:
        yield found


@pytest.fixture
def move(clusters: tuple[Cluster, Cluster], tmp_path: Path) -> Iterator[Moving]:
    with moving(clusters, tmp_path) as found:
        yield found


def online(move: Moving, **options: Any) -> Online:
    return postgresql(
        move.name,
        move.server(move.source),
        move.server(move.target),
        move.folder,
        options=OnlineOptions(may_identify=True, pause=0.01, patience=30.0, **options),
    )


def test_a_whole_database_moves_while_it_is_written_to(move: Moving) -> None:
    move.run(SCHEMA, LEDGER)
    with Writer(lambda: move.on(move.source), 1) as writer:
        writer.wait_for(10)
        found = online(move)
        found.start()
        move.run(*CHANGES)
        writer.wait_for(10)
        found.follow()
        handed: list[str] = []
        found.cutover(hand_over=lambda: handed.append("over"))
    assert ["over"] == handed
    move.verify()
    move.assert_clean()
    assert [(0,)] == move.ask(move.target, "SELECT count(*) FROM pg_namespace WHERE nspname LIKE '%shiftable%'")
    totals = "SELECT colour::text, area FROM totals ORDER BY 1"
    assert move.ask(move.source, totals) == move.ask(move.target, totals)
    with move.on(move.target) as connection:
        connection.execute("INSERT INTO child (parent, v) VALUES (1, 'null')")
    counted = "SELECT count(*) FROM keyless"
    ((here,),), ((there,),) = move.ask(move.source, counted), move.ask(move.target, counted)
    assert here + 1 == there  # the trigger acts again, for the first time on the target


def test_a_copy_that_was_killed_is_begun_anew_in_the_new_snapshot(move: Moving) -> None:
    move.run(SCHEMA, LEDGER)
    first = online(move)
    real = first._copy

    def killed(snapshot: str) -> None:
        real(snapshot)
        raise KeyboardInterrupt

    first._copy = killed
    with pytest.raises(KeyboardInterrupt):
        first.start()
    move.run(*CHANGES)
    second = online(move)
    second.start()
    second.follow()
    second.cutover(hand_over=lambda: None)
    move.verify()
    move.assert_clean()


@attrs.define
class Real(MemoryDatabaseDriver):
    """Databases whose server is a private cluster's; the first password is an old one."""

    cluster: Cluster | None = attrs.field(kw_only=True, default=None)
    given: int = attrs.field(init=False, default=0)

    def info(self, name: str) -> DatabaseInfo:
        assert self.cluster is not None
        server = AtServer(host="127.0.0.1", port=self.cluster.port, admin="changing", tls=False)
        return attrs.evolve(MemoryDatabaseDriver.info(self, name), server=server)

    def password(self, name: str, given: Credential | None, *, fresh: bool) -> Masked:
        self.given += 1
        return Masked("new-" + "one" if self.given > 1 else "old-" + "one")


def test_a_declared_server_is_moved_by_its_handle_and_a_changed_password_asked_for_again(move: Moving) -> None:
    with move.source.connect(autocommit=True) as connection:
        connection.execute("CREATE ROLE changing SUPERUSER LOGIN PASSWORD 'new-one'")
    try:
        move.run(LEDGER)
        driver = Real(attrs.evolve(FEATURES, connect=True), cluster=move.source)
        handle = Databases(driver).create(attrs.evolve(small_spec("shop"), databases=(move.name,)))
        source = Server.of(handle, move.name, label="declared")
        found = postgresql(move.name, source, move.server(move.target), move.folder)
        found.start()
        move.run("UPDATE account SET balance = 1")
        found.follow()
        found.cutover(hand_over=lambda: None)
        move.verify()
        assert driver.given == 2
    finally:
        with move.source.connect(autocommit=True) as connection:
            connection.execute("DROP ROLE changing")


def test_what_differs_keeps_the_target_from_being_handed_over(move: Moving) -> None:
    move.run(SCHEMA)
    found = online(move)
    found.start()
    found.follow()
    with move.on(move.target) as connection:
        connection.execute("UPDATE child SET v = '1' WHERE id = 7")
    with pytest.raises(MigrationError, match=r"child.*differ"):
        found.cutover(hand_over=lambda: pytest.fail("it was handed over"))
    found.rollback()
    move.assert_clean()
    move.run("INSERT INTO parent (colour, area) VALUES ('red', 1)")


IDENTITIES = "SELECT relname::text, relreplident::text FROM pg_class WHERE relname IN ('keyless', 'parent') ORDER BY 1"


def test_the_target_names_its_rows_as_the_source_did_before_the_move(move: Moving) -> None:
    move.run(SCHEMA)
    found = online(move)
    found.start()
    assert [("keyless", "f"), ("parent", "d")] == move.ask(move.source, IDENTITIES)
    handed: list[object] = []
    found.cutover(hand_over=lambda: handed.append(move.ask(move.target, IDENTITIES)))
    assert [[("keyless", "d"), ("parent", "d")]] == handed
    assert [("keyless", "d"), ("parent", "d")] == move.ask(move.source, IDENTITIES)


def test_a_target_that_is_not_empty_is_told_before_anything_is_done_to_the_source(move: Moving) -> None:
    move.run(SCHEMA)
    with move.on(move.target) as connection:
        connection.execute("CREATE TABLE mine (id int)")
    (found,) = (each for each in online(move).check() if each.blocks)
    assert "target is not empty: table public.mine; move into an empty database" == found.message
    with pytest.raises(MigrationError, match="cannot be moved online:\ntarget is not empty"):
        online(move).start()
    assert "new" == online(move).status().phase
    move.assert_clean()
    assert [("keyless", "d"), ("parent", "d")] == move.ask(move.source, IDENTITIES)


def test_a_target_that_cannot_be_reached_stands_in_the_way_beside_all_else(move: Moving) -> None:
    move.run(SCHEMA)
    gone = Server("gone", lambda: move.arguments(move.target) | {"dbname": "nowhere"})
    found = postgresql(move.name, move.server(move.source), gone, move.folder).check()
    first, second = (each.message for each in found if each.blocks)
    assert "public.keyless has no key" in first
    assert "gone: " in second
    assert 'database "nowhere" does not exist' in second


def test_a_cutover_tells_how_long_writes_stood_still_also_if_it_was_handed_over_later(move: Moving) -> None:
    move.run(SCHEMA)
    found = online(move)
    found.start()
    with pytest.raises(ZeroDivisionError):
        found.cutover(hand_over=lambda: 1 / 0)
    cut = online(move).cutover(hand_over=lambda: None)
    assert 0 < cut.stopped < 30
    assert 0 < cut.verified < 30


@pytest.mark.parametrize("step", ["cutover", "rollback"])
def test_a_move_that_is_over_gives_way_to_the_next_one(move: Moving, step: str) -> None:
    move.run(SCHEMA)
    first = online(move)
    back = postgresql(move.name, move.server(move.target), move.server(move.source), move.folder)
    first.start()
    with pytest.raises(MigrationError, match="tells of a move from source to target; finish it, or move it away"):
        back.status()
    if step == "cutover":
        first.cutover(hand_over=lambda: None)
    else:
        first.rollback()
    assert "new" == back.status().phase
    with pytest.raises(MigrationError, match="source is not empty"):
        back.start()

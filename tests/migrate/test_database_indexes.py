"""Indexes of large tables are made while the rows of others travel."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from shiftable.errors import MigrationError
from shiftable.migrate._postgresql import _move
from shiftable.migrate._postgresql._move import DatabaseMove, How, moved
from shiftable.migrate._postgresql._tools import Archive, Entry
from shiftable.migrate._postgresql._verification import differences

from .databases import pair, target_cluster
from .pairs import Pair

__all__ = ["pair", "target_cluster"]

SMALL = How(chunk=64 * 1024)
PATIENCE = 120
INDEXES = "SELECT indexname FROM pg_indexes WHERE schemaname = 'public' ORDER BY indexname"
TABLES = """
CREATE TABLE first (id int PRIMARY KEY, a int UNIQUE, b text);
INSERT INTO first SELECT n, -n, md5(n::text) FROM generate_series(1, 5000) AS s (n);
CREATE INDEX first_b ON first (b);
CREATE TABLE last (id int, b text);
INSERT INTO last SELECT n, md5(n::text) FROM generate_series(1, 5000) AS s (n);
CREATE TABLE little (id int PRIMARY KEY);
"""


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return what is made beside the rows, as it is made."""
    real, found = Archive.script, list[str]()

    def script(self: Archive, entry: Entry) -> bytes:
        found.append(entry.kind.split()[-2])
        return real(self, entry)

    monkeypatch.setattr(Archive, "script", script)
    return found


def test_they_are_there_while_rows_of_others_still_travel(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    pair.fill(TABLES)
    real, seen = _move.copied, list[tuple[str, ...]]()

    def copied(source: Any, target: Any, chunk: Any, **more: Any) -> tuple[int, int]:
        if chunk.table.name == "last" and not seen:
            end = time.monotonic() + PATIENCE
            while len(found := pair.on_target(INDEXES)) < 3 and time.monotonic() < end:
                time.sleep(0.05)
            seen[:] = found
        return real(source, target, chunk, **more)

    monkeypatch.setattr(_move, "copied", copied)
    moved(pair.source, pair.target, SMALL)

    assert [("first_a_key",), ("first_b",), ("first_pkey",)] == seen
    assert {} == differences(pair.source, pair.target)


def test_small_tables_wait_for_the_end_where_all_are_made_at_once(pair: Pair, scripts: list[str]) -> None:
    pair.fill(TABLES)
    moved(pair.source, pair.target, SMALL)
    assert {"first_a_key", "first_b", "first_pkey"} == set(scripts)

    scripts.clear()
    pair.on_target("DROP TABLE first, last, little")
    moved(pair.source, pair.target)
    assert [] == scripts
    assert {} == differences(pair.source, pair.target)


def test_what_may_read_other_tables_or_changes_its_own_waits_for_all_rows(pair: Pair, scripts: list[str]) -> None:
    pair.fill(
        TABLES,
        # It is declared to be what it is not, as people do; and is wrong if the other table is empty.
        """CREATE FUNCTION known(text) RETURNS bool LANGUAGE sql IMMUTABLE
        RETURN EXISTS (SELECT FROM public.last WHERE last.b = $1)""",
        "CREATE INDEX first_known ON first (known(b))",
        "CREATE INDEX first_where ON first (a) WHERE known(b)",
        "CREATE UNIQUE INDEX first_ordered ON first (id, b)",
        "ALTER TABLE first CLUSTER ON first_ordered",
        "ALTER TABLE first ALTER a SET NOT NULL",
        "ALTER TABLE first REPLICA IDENTITY USING INDEX first_a_key",
    )
    moved(pair.source, pair.target, SMALL)

    assert {"first_b", "first_pkey"} == set(scripts)
    assert {} == differences(pair.source, pair.target)
    count = "SET enable_seqscan = off; SELECT count(*) FROM first WHERE known(b)"
    assert [(5000,)] == pair.on_target(*count.split("; "))
    told = "SELECT indexrelid::regclass::text FROM pg_index WHERE indisclustered OR indisreplident ORDER BY 1"
    assert [("first_a_key",), ("first_ordered",)] == pair.on_target(told)


def test_a_name_that_looks_like_the_end_of_a_script_is_kept(pair: Pair, scripts: list[str]) -> None:
    odd = 'a\n--\n-- Name: x\n--\n\n;\n\\c\n-- PostgreSQL database dump complete "" %s'
    pair.fill(
        f'CREATE TABLE t (id int, "{odd}" int)', "INSERT INTO t SELECT n, n FROM generate_series(1, 5000) AS s (n)"
    )
    pair.fill(f'CREATE INDEX t_odd ON t ("{odd}")')
    moved(pair.source, pair.target, SMALL)

    assert ["t_odd"] == scripts
    assert {} == differences(pair.source, pair.target)
    assert [("t_odd",)] == pair.on_target(INDEXES)


def test_one_that_cannot_be_made_is_told_once_and_made_by_the_next_run(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair.fill(TABLES)
    with monkeypatch.context() as broken:
        broken.setattr(Archive, "script", lambda *_: b"SELECT 1 / 0")
        with pytest.raises(MigrationError, match=r"^the target: division by zero \[22012\]$"):
            moved(pair.source, pair.target, SMALL)

    moved(pair.source, pair.target, SMALL)
    assert {} == differences(pair.source, pair.target)


def test_a_move_that_is_closed_ends_those_that_are_being_made(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    pair.fill(TABLES)
    made = threading.Event()

    def endless(*_: object) -> bytes:
        made.set()
        return b"SELECT pg_sleep(100000)"

    with monkeypatch.context() as slow:
        slow.setattr(Archive, "script", endless)
        with DatabaseMove(pair.source, pair.target, SMALL) as move:
            move.begin()
            move.start()
            assert made.wait(PATIENCE)
    sleeping = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(1000%' AND state = 'active'"
    assert [(1,)] == pair.on_target(sleeping)  # who asks

    moved(pair.source, pair.target, SMALL)
    assert {} == differences(pair.source, pair.target)

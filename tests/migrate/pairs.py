"""Two private PostgreSQL clusters, a database on each, and what the servers themselves say of them.

What is compared here is asked in other ways than the code under test asks: by ``COPY … TO`` in text, row by row.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, LiteralString, cast

import attrs
import psycopg
from psycopg import sql

from shiftable.migrate._postgresql._side import Side
from shiftable.postgresql import Cluster

__all__ = ["AWKWARD", "Pair"]

AWKWARD = Path(__file__).with_name("awkward.sql")
_numbers = itertools.count()
_TABLES = """
SELECT n.nspname, c.relname FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'm') AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast') AND c.relispopulated
ORDER BY 1, 2
"""


@attrs.define
class Pair:
    """A database on each of two clusters, made for one test."""

    source_cluster: Cluster
    target_cluster: Cluster
    name: str = attrs.field(factory=lambda: f"moved_{next(_numbers)}")

    def make(self) -> None:
        """Make both databases, empty."""
        for cluster in (self.source_cluster, self.target_cluster):
            with cluster.connect(autocommit=True) as connection:
                connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(self.name)))

    def drop(self) -> None:
        """Drop both."""
        for cluster in (self.source_cluster, self.target_cluster):
            cluster.start()
            with cluster.connect(autocommit=True) as connection:
                connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(self.name)))

    def fill(self, *statements: str) -> None:
        """Carry out statements on the source, the awkward schema's if none are given."""
        self.on_source(*(statements or (AWKWARD.read_text(),)))

    def on_source(self, *statements: str) -> list[tuple[Any, ...]]:
        """Carry out statements on the source; return the last one's rows."""
        return self._on(self.source_cluster, statements)

    def on_target(self, *statements: str) -> list[tuple[Any, ...]]:
        """Carry out statements on the target; return the last one's rows."""
        return self._on(self.target_cluster, statements)

    @cached_property
    def source(self) -> Side:
        """The source, as its superuser."""
        return self.side(self.source_cluster, "the source")

    @cached_property
    def target(self) -> Side:
        """The target, as its superuser."""
        return self.side(self.target_cluster, "the target")

    def side(self, cluster: Cluster, name: str, **more: Any) -> Side:
        """One side, as whoever is to connect."""
        return Side(lambda: self.arguments(cluster, **more), name)

    def arguments(self, cluster: Cluster, **more: Any) -> Mapping[str, Any]:
        """What psycopg's ``connect`` takes."""
        return {"host": cluster.host, "port": cluster.port, "user": "postgres", "dbname": self.name, **more}

    @property
    def both(self) -> tuple[dict[str, tuple[int, str]], dict[str, tuple[int, str]]]:
        """The contents of the source and of the target."""
        return self.contents(self.source_cluster), self.contents(self.target_cluster)

    def contents(self, cluster: Cluster) -> dict[str, tuple[int, str]]:
        """Return how many rows each table has and a digest of them, in text and in any order."""
        with cluster.connect(self.name) as connection:
            connection.execute("SET search_path = ''; SET timezone = 'UTC'; SET extra_float_digits = 3")
            tables = connection.execute(_TABLES).fetchall()
            found = {f"{schema}.{name}": _digest(_rows(connection, schema, name)) for schema, name in tables}
            numbers = connection.execute(
                "SELECT oid, encode(lo_get(oid), 'hex') FROM pg_largeobject_metadata ORDER BY 1"
            ).fetchall()
            sequences = connection.execute("SELECT schemaname, sequencename, last_value FROM pg_sequences").fetchall()
        found["large objects"] = _digest(repr(row).encode() for row in numbers)
        found["sequences"] = _digest(repr(row).encode() for row in sequences)
        return {name: told for name, told in found.items() if not name.startswith("public.by_mood_")} | {
            "by_mood": _digest(self._by_mood(cluster))
        }

    def _by_mood(self, cluster: Cluster) -> Iterator[bytes]:
        with cluster.connect(self.name) as connection:
            if connection.execute("SELECT to_regclass('public.by_mood') IS NOT NULL").fetchone() == (True,):
                yield from (repr(row).encode() for row in connection.execute("SELECT id, m FROM public.by_mood"))

    def schema(self, cluster: Cluster) -> list[str]:
        """Return what ``pg_dump -s`` writes, without what differs from run to run."""
        text = cluster.run("pg_dump", "-s", "-d", self.name).decode()
        return [line for line in text.splitlines() if line and not line.startswith(("--", "\\"))]

    def _on(self, cluster: Cluster, statements: Iterable[str]) -> list[tuple[Any, ...]]:
        found: list[tuple[Any, ...]] = []
        with cluster.connect(self.name, autocommit=True) as connection:
            for statement in statements:
                cursor = connection.execute(cast("LiteralString", statement))
                found = cursor.fetchall() if cursor.description else []
        return found


def _rows(connection: psycopg.Connection[Any], schema: str, name: str) -> Iterator[bytes]:
    select = sql.SQL("COPY (SELECT * FROM ONLY {}) TO STDOUT").format(sql.Identifier(schema, name))
    with connection.cursor().copy(select) as copy:
        yield from (bytes(row) for row in copy)


def _digest(rows: Iterable[bytes]) -> tuple[int, str]:
    found = sorted(rows)
    return len(found), hashlib.sha256(b"\0".join(found)).hexdigest()

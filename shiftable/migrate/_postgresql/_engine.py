"""PostgreSQL, as the mover of databases needs it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import ClassVar

from psycopg import sql

from shiftable.migrate._database_engine import Arguments, Engine, Given, Lost, Rows, token
from shiftable.migrate._postgresql._facts import Facts, facts_of, losses
from shiftable.migrate._postgresql._move import DatabaseMove, How
from shiftable.migrate._postgresql._side import Side, asking
from shiftable.migrate._postgresql._side import rows as asked
from shiftable.migrate._postgresql._tables import Table, named
from shiftable.migrate._postgresql._verification import Verification

__all__ = ["Postgresql"]

_NAMES = "SELECT datname AS name FROM pg_database WHERE datallowconn AND NOT datistemplate ORDER BY 1"

_NODES = """
SELECT n.nspname AS schema, c.relname AS name, c.relfilenode::bigint AS node
FROM unnest(%s::text[], %s::text[]) AS wanted (schema, name) JOIN pg_namespace AS n ON n.nspname = wanted.schema
JOIN pg_class AS c ON c.relnamespace = n.oid AND c.relname = wanted.name
"""


class Postgresql(Engine):
    """PostgreSQL moves to PostgreSQL."""

    always: ClassVar[tuple[str, ...]] = ("postgres",)
    maintenance: ClassVar[str] = "postgres"
    ignored: ClassVar[frozenset[str]] = frozenset({"rdsadmin", "cloudsqladmin", "azure_maintenance", "azure_sys"})

    def side(self, arguments: Arguments, name: str, refused: Callable[[], object]) -> Side:
        """Return one database on one server."""
        return Side(arguments, name, refused=refused)

    def databases(self, side: Side) -> tuple[str, ...]:
        """Name the databases that a server has."""
        with contextlib.closing(side.connect()) as session:
            return tuple(row["name"] for row in asked(session, side.name, _NAMES))

    def create(self, side: Side, name: str, like: Facts) -> None:
        """Make a database with the source's encoding."""
        words = "CREATE DATABASE {} TEMPLATE template0 ENCODING {}"
        with contextlib.closing(side.connect()) as session, asking(side.name):
            session.execute(sql.SQL(words).format(sql.Identifier(name), sql.Literal(like.server["encoding"])))

    def facts(self, side: Side) -> Facts:
        """Ask one side for all of it."""
        with contextlib.closing(side.connect()) as session:
            return facts_of(session, side.name)

    def losses(self, source: Facts, target: Facts) -> Iterator[Lost]:
        """Say what of the source the target cannot hold, or would lose."""
        return losses(source, target)

    def rows(self, facts: Facts) -> Mapping[str, Rows]:
        """Return tables by the one that takes their rows."""
        grouped: dict[str, tuple[Table, ...]] = {}
        for table in facts.tables:
            label = named(*table.into)
            grouped[label] = (*grouped.get(label, ()), table)
        return {
            label: Rows(
                label=label,
                parts=tuple(table.label for table in tables),
                names=tuple((table.schema, table.name) for table in tables),
                size=sum(table.size for table in tables),
                version=token((*_shape(table), table.node, table.writes) for table in tables),
                home=token((table.label, table.node) for table in tables),  # other files, others' rows
            )
            for label, tables in grouped.items()
        }

    def home(self, side: Side, rows: Rows) -> str:
        """Return in which files rows of the target lie, which bear the names that they have at the source."""
        with contextlib.closing(side.connect()) as session:
            nodes = asked(session, side.name, _NODES, [list(each) for each in zip(*rows.names, strict=True)])
        found = {(row["schema"], row["name"]): row["node"] for row in nodes}
        return token((named(*name), found[name]) for name in rows.names)

    def schema(self, facts: Facts) -> str:
        """Return what changes when tables do."""
        return token(_shape(table) for table in facts.tables)

    def move(self, source: Side, target: Side, given: Given) -> DatabaseMove:
        """Prepare the move of one database."""
        return DatabaseMove(source, target, How.of(given))

    def verification(self, source: Side, target: Side, given: Given) -> Verification:
        """Prepare the comparison of two."""
        return Verification(source, target, How.of(given))


def _shape(table: Table) -> tuple[object, ...]:
    return table.label, *(column.name for column in table.columns)

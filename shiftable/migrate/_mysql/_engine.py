"""MySQL and MariaDB, as the mover of databases needs them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import ClassVar

from shiftable.migrate._database_engine import Arguments, Engine, Given, Lost, Rows, token
from shiftable.migrate._mysql._facts import Facts, facts_of, losses
from shiftable.migrate._mysql._move import DatabaseMove, How
from shiftable.migrate._mysql._side import Side
from shiftable.migrate._mysql._side import rows as asked
from shiftable.migrate._mysql._tables import Table
from shiftable.migrate._mysql._verification import Verification
from shiftable.migrate._mysql._words import quoted

__all__ = ["Mysql"]


class Mysql(Engine):
    """MySQL and MariaDB move to MySQL and MariaDB."""

    ignored: ClassVar[frozenset[str]] = frozenset(
        {"mysql", "information_schema", "performance_schema", "sys", "innodb", "tmp"}
    )

    def side(self, arguments: Arguments, name: str, refused: Callable[[], object]) -> Side:
        """Return one database on one server."""
        return Side(arguments, name, refused=refused)

    def databases(self, side: Side) -> tuple[str, ...]:
        """Name the databases that a server has."""
        with contextlib.closing(side.connect()) as session:
            return tuple(str(value) for row in asked(session, side.name, "SHOW DATABASES") for value in row.values())

    def create(self, side: Side, name: str, like: Facts) -> None:
        """Make a database with the source's character set."""
        charset, collation = like.server["charset"], like.server["collation"]
        with contextlib.closing(side.connect()) as session:
            words = f"CREATE DATABASE {quoted(name)} CHARACTER SET {charset}"
            asked(session, side.name, f"{words} COLLATE {collation}")

    def facts(self, side: Side) -> Facts:
        """Ask one side for all of it."""
        with contextlib.closing(side.connect()) as session:
            return facts_of(session, side.name)

    def losses(self, source: Facts, target: Facts) -> Iterator[Lost]:
        """Say what of the source the target cannot hold, or would lose."""
        return losses(source, target)

    def rows(self, facts: Facts) -> Mapping[str, Rows]:
        """Return the tables with rows of their own."""
        return {
            table.name: Rows(
                label=table.name,
                parts=(table.name,),
                names=(("", table.name),),
                size=table.size,
                version=token((*_shape(table), table.version)),
                home=token((table.name,)),
            )
            for table in facts.tables
            if not table.is_elsewhere
        }

    def home(self, side: Side, rows: Rows) -> str:  # noqa: ARG002  the server tells nothing that stays as it is
        """Return that there is such a table: what is in it, a verification finds."""
        return token(rows.parts)

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
    return table.name, *(column.name for column in table.columns)

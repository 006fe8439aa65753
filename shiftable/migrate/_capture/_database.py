"""The copy under a snapshot, and the comparison before the hand-over: what the offline move of a database does."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import attrs

from shiftable.errors import MigrationError, NotFound
from shiftable.migrate._capture._server import Server
from shiftable.migrate._capture._source import Finding
from shiftable.migrate._postgresql._facts import facts_of
from shiftable.migrate._postgresql._marks import OWN_SCHEMA, Marks
from shiftable.migrate._postgresql._move import LARGE_OBJECTS, DatabaseMove, How
from shiftable.migrate._postgresql._side import Side, asking, rows
from shiftable.migrate._postgresql._verification import differences
from shiftable.migrate._postgresql._wipe import wipe

__all__ = ["Copying"]

_VIEWS = """
SELECT quote_ident(n.nspname) || '.' || quote_ident(c.relname) AS name
FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.relkind = 'm' AND c.relispopulated ORDER BY c.oid
"""


@attrs.frozen
class Copying:
    """Schema, rows, large objects, owners and grants of a database, into an empty one.

    Args:
        how: threads, sizes of chunks, and what is given up.
    """

    source: Server
    target: Server
    how: How = attrs.field(factory=How)

    def check(self) -> Iterator[Finding]:
        """Find what keeps the target from being copied into; of a server that is still to be made, nothing."""
        target = _side(self.target)
        try:
            with contextlib.closing(target.connect()) as session:
                found = facts_of(session, target.name).not_empty
        except NotFound:
            return
        except MigrationError as exc:
            found = str(exc)
        if found:
            yield Finding(message=found, blocks=True)

    def copy(self, snapshot: str) -> None:
        """Copy everything in a snapshot. What a killed copy in another one has left is dropped before."""
        source, target = _side(self.source), _side(self.target)
        with contextlib.closing(target.connect()) as session:
            marks = Marks(session, target.name)
            marks.lock()
            if marks.phase is not None:
                wipe(session, target.name)
                marks.drop()
        with DatabaseMove(source, target, self.how, snapshot=snapshot) as move:
            move.begin()
            move.start()
            for table in move.tables:
                move.table(table.label)
            if move.copies_objects:
                move.large_objects()
            move.finish()

    def tidy(self) -> None:
        """Take the marks of the copy from the target, by which a killed one is known; not how far it has followed."""
        target = _side(self.target)
        with contextlib.closing(target.connect()) as session, asking(target.name):
            session.execute(f"DROP TABLE IF EXISTS {OWN_SCHEMA}.run, {OWN_SCHEMA}.chunk")

    def verify(self) -> None:
        """Bring materialised views up to date, and compare both sides by what their servers say.

        Raises:
            MigrationError: they differ; it says where.
        """
        source, target = _side(self.source), _side(self.target)
        with contextlib.closing(target.connect()) as session:
            for row in rows(session, target.name, _VIEWS):
                with asking(target.name):
                    session.execute(f"REFRESH MATERIALIZED VIEW {row['name']}")
        found = differences(source, target, self.how)
        if found:
            told = "; ".join(f"{label or 'the rest'}: {why}" for label, why in found.items())
            raise MigrationError(f"{target.name} is not what {source.name} is: {told}{_large(found)}")


def _side(server: Server) -> Side:
    return Side(server.arguments, server.label, refused=server.refused)


def _large(found: dict[str, str]) -> str:
    return "; changes of large objects are not followed" if LARGE_OBJECTS in found else ""

"""The tables of a database and the pieces in which their rows travel."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence

import attrs

from shiftable.migrate._postgresql._side import Session, rows

__all__ = ["CHUNK_BYTES", "Chunk", "Column", "Cut", "Table", "chunks_of", "cut_of", "named", "quoted", "tables_of"]

CHUNK_BYTES = 128 * 1024 * 1024
_PLAIN = re.compile(r"\w+")
_TID_SCAN = 140000  # the first version that finds a range of rows by their place without reading the whole table
_RELAXED = 140000  # the first one that takes binary arrays and rows whose types have another number at the source

# Equal for the server means equal byte by byte, so that its own hash misses no change. Others are hashed as text:
# 1.0 and 1.00, 0.0 and -0.0, 1 day and 24 hours are equal to a server, and an enum's hash is its number.
_EXACT = (
    *("bool", "bytea", "char", "name", "int8", "int2", "int4", "text", "oid", "varchar", "bpchar"),
    *("date", "time", "timestamp", "timestamptz", "uuid", "macaddr", "inet", "cidr"),
)

_MEMBERS_OF_EXTENSIONS = """
    SELECT objid FROM pg_depend WHERE classid = 'pg_class'::regclass AND deptype = 'e'
"""

# Types whose values cannot travel in binary: no send or receive function, or a number that means something else on the
# other side; alone or within arrays, domains, ranges and rows. What is made of types of users is told apart.
_COLUMNS = """
WITH RECURSIVE part (type, inner_type, depth) AS (
    SELECT DISTINCT atttypid, atttypid, 0 FROM pg_attribute WHERE attnum > 0 AND NOT attisdropped
    UNION
    SELECT part.type, found.inner_type, depth + 1 FROM part JOIN pg_type AS t ON t.oid = part.inner_type
    CROSS JOIN LATERAL (
        SELECT t.typelem WHERE t.typelem <> 0 AND t.typlen = -1
        UNION ALL SELECT t.typbasetype WHERE t.typbasetype <> 0
        UNION ALL SELECT rngsubtype FROM pg_range WHERE rngtypid = t.oid
        UNION ALL SELECT atttypid FROM pg_attribute WHERE attrelid = t.typrelid AND attnum > 0 AND NOT attisdropped
    ) AS found (inner_type) WHERE depth < 16
), kind AS (
    SELECT part.type,
        bool_and(t.typsend <> 0 AND t.typreceive <> 0 AND t.typname NOT LIKE 'reg%%') AS is_binary,
        bool_or(depth > 0 AND part.inner_type >= 16384 AND outer_type.typtype <> 'd') AS is_made_of_own
    FROM part JOIN pg_type AS t ON t.oid = part.inner_type JOIN pg_type AS outer_type ON outer_type.oid = part.type
    GROUP BY part.type
)
SELECT a.attrelid::bigint AS oid, a.attname AS name, k.is_binary, k.is_made_of_own,
    a.attgenerated <> '' AS is_generated,
    t.typname = ANY (%(exact)s) AND t.typnamespace = 'pg_catalog'::regnamespace
        AND coalesce(c.collisdeterministic, true) AS is_exact,
    t.typname IN ('text', 'varchar', 'bpchar', 'name', 'char')
        AND t.typnamespace = 'pg_catalog'::regnamespace AS is_text
FROM pg_attribute AS a JOIN kind AS k ON k.type = a.atttypid JOIN pg_type AS t ON t.oid = a.atttypid
LEFT JOIN pg_collation AS c ON c.oid = a.attcollation
WHERE a.attnum > 0 AND NOT a.attisdropped AND a.attrelid = ANY (%(tables)s)
ORDER BY a.attrelid, a.attnum
"""

_TABLES = f"""
SELECT c.oid::bigint AS oid, n.nspname AS schema, c.relname AS name, c.relrowsecurity AS guarded,
    pg_relation_size(c.oid) AS heap, pg_table_size(c.oid) AS size, pg_indexes_size(c.oid) AS indexes,
    coalesce(am.amname, '') AS method, c.relfilenode::bigint AS node,
    coalesce(pg_stat_get_tuples_inserted(c.oid), 0) + coalesce(pg_stat_get_tuples_updated(c.oid), 0)
        + coalesce(pg_stat_get_tuples_deleted(c.oid), 0) AS writes,
    c.relpersistence = 'u' AS is_unlogged,
    EXISTS (
        SELECT 1 FROM pg_index AS i WHERE i.indrelid = c.oid AND i.indisvalid AND (i.indisprimary OR i.indisreplident)
    ) AS has_key,
    row_security_active(c.oid) AS hides_rows,
    has_table_privilege(c.oid, 'SELECT') AS is_readable
FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace LEFT JOIN pg_am AS am ON am.oid = c.relam
WHERE c.relkind = 'r' AND c.relpersistence <> 't' AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
    AND n.nspname <> %(own)s AND c.oid NOT IN ({_MEMBERS_OF_EXTENSIONS})
ORDER BY 2, 3
"""

# Partitions by hash of an enum: its hash is its number, which is another one on the target.
_MISPLACED = """
WITH RECURSIVE below (leaf, root) AS (
    SELECT i.inhrelid, i.inhparent FROM pg_inherits AS i JOIN pg_partitioned_table AS p ON p.partrelid = i.inhparent
    WHERE p.partstrat = 'h' AND EXISTS (
        SELECT 1 FROM pg_attribute AS a JOIN pg_type AS t ON t.oid = a.atttypid
        WHERE a.attrelid = p.partrelid AND a.attnum = ANY (p.partattrs::int2[]) AND t.typtype = 'e'
    )
    UNION SELECT i.inhrelid, below.root FROM below JOIN pg_inherits AS i ON i.inhparent = below.leaf
)
SELECT leaf::bigint AS oid, n.nspname AS schema, c.relname AS name FROM below
JOIN pg_class AS c ON c.oid = below.root JOIN pg_namespace AS n ON n.oid = c.relnamespace
"""


def quoted(*names: str) -> str:
    """Return a name as SQL has it."""
    return ".".join('"' + name.replace('"', '""') + '"' for name in names)


def named(*names: str) -> str:
    """Return a name as people write it: quoted where two others would look the same."""
    return ".".join(name if _PLAIN.fullmatch(name) else quoted(name) for name in names)


@attrs.frozen(kw_only=True)
class Column:
    """A column, and what may be done with its values.

    Args:
        binary: they travel in binary.
        own: they are arrays or rows of types that users made.
        exact: the server's hash tells all values apart.
        text: they are characters, which are other bytes in another encoding.
    """

    name: str
    generated: bool
    binary: bool
    own: bool
    exact: bool
    text: bool


@attrs.frozen(kw_only=True)
class Table:
    """A table that has rows of its own: no partitioned one, no view.

    Args:
        heap: bytes without what is stored beside the rows.
        size: bytes with it.
        indexes: bytes of its indexes.
        is_unlogged: a crash empties it.
        writes: how many rows were ever written, as far as statistics tell.
        into: the table that takes the rows on the target, where it is not this one.
    """

    oid: int
    schema: str
    name: str
    columns: tuple[Column, ...]
    heap: int
    size: int
    indexes: int
    node: int
    writes: int
    is_unlogged: bool
    has_key: bool
    hides_rows: bool
    is_readable: bool
    has_places: bool
    into: tuple[str, str]

    @property
    def label(self) -> str:
        """As people know it."""
        return named(self.schema, self.name)

    @property
    def sql(self) -> str:
        """As SQL has it."""
        return quoted(self.schema, self.name)

    @property
    def stored(self) -> tuple[Column, ...]:
        """Columns whose values are not made from others."""
        return tuple(column for column in self.columns if not column.generated)

    def is_binary(self, target: int) -> bool:
        """Tell whether its rows travel in binary to a server of that version."""
        return all(column.binary and (target >= _RELAXED or not column.own) for column in self.stored)


@attrs.frozen
class Cut:
    """Where a table is cut, which a killed move has to keep to though vacuum changes the table's size.

    Args:
        blocks: how many the table had.
        step: blocks of each chunk.
        node: the file that they were blocks of; in another one rows lie elsewhere.
    """

    blocks: int
    step: int
    node: int


@attrs.frozen
class Chunk:
    """Rows of a table that lie in some of its blocks.

    Args:
        first: the first block.
        last: the first one behind it; ``None``: to the end.
        alone: it is the whole table.
    """

    table: Table
    number: int
    first: int
    last: int | None
    alone: bool

    @property
    def condition(self) -> str:
        """What SQL says of its rows."""
        if self.alone:
            return "true"
        upper = "" if self.last is None else f" AND ctid < '({self.last},0)'::tid"
        return f"ctid >= '({self.first},0)'::tid{upper}"

    @property
    def blocks(self) -> str:
        """As people know it."""
        if self.alone:
            return "its only chunk"
        last = "the last" if self.last is None else f"{self.last - 1:,}"
        return f"chunk {self.number} (blocks {self.first:,} to {last})"


def tables_of(session: Session, name: str, own: str) -> tuple[Table, ...]:
    """Return all tables with rows of their own, as the session sees them.

    Args:
        own: the schema that holds our marks.
    """
    found = rows(session, name, _TABLES, {"own": own})
    oids = [row["oid"] for row in found]
    columns: dict[int, list[Column]] = {oid: [] for oid in oids}
    for row in rows(session, name, _COLUMNS, {"tables": oids, "exact": [*_EXACT]}):
        columns[row["oid"]].append(
            Column(
                name=row["name"],
                generated=row["is_generated"],
                binary=row["is_binary"],
                own=row["is_made_of_own"],
                exact=row["is_exact"],
                text=row["is_text"],
            )
        )
    misplaced = {row["oid"]: (row["schema"], row["name"]) for row in rows(session, name, _MISPLACED)}
    return tuple(
        Table(
            oid=row["oid"],
            schema=row["schema"],
            name=row["name"],
            columns=tuple(columns[row["oid"]]),
            heap=row["heap"],
            size=row["size"],
            indexes=row["indexes"],
            node=row["node"],
            writes=row["writes"],
            is_unlogged=row["is_unlogged"],
            has_key=row["has_key"],
            hides_rows=row["hides_rows"],
            is_readable=row["is_readable"],
            has_places=row["method"] == "heap",
            into=misplaced.get(row["oid"], (row["schema"], row["name"])),
        )
        for row in found
    )


def cut_of(table: Table, version: int, block: int, size: int = CHUNK_BYTES) -> Cut | None:
    """Say how to cut a table into pieces of about equal size, by what is stored beside its rows too; ``None``: not.

    Args:
        version: of the server that reads it.
        block: bytes of one of its blocks.
    """
    blocks = table.heap // block
    count = min(math.ceil(table.size / size), blocks) if version >= _TID_SCAN and table.has_places else 1
    return Cut(blocks, math.ceil(blocks / count), table.node) if count > 1 else None


def chunks_of(table: Table, cut: Cut | None) -> Sequence[Chunk]:
    """Return the pieces of a table; the last one goes to the end, wherever that is by now."""
    if cut is None:
        return (Chunk(table, 1, 0, None, alone=True),)
    starts = range(0, cut.blocks, cut.step)
    ends: Iterable[int | None] = [*starts[1:], None]
    return tuple(
        Chunk(table, number, first, last, alone=False)
        for number, (first, last) in enumerate(zip(starts, ends, strict=True), 1)
    )

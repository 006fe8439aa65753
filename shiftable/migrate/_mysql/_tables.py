"""The tables of a database, the texts of their rows, and the pieces in which these travel."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import attrs

from shiftable.migrate._mysql._side import Session, decoded, raw, rows
from shiftable.migrate._mysql._words import quoted

__all__ = ["CHUNK_BYTES", "OWN", "Chunk", "Column", "Table", "chunks_of", "cut_of", "tables_of", "unknown_types"]

CHUNK_BYTES = 32 * 1024 * 1024
OWN = "shiftable_migrate"
"""How names begin of tables that are our own."""

_INTEGERS = frozenset({"tinyint", "smallint", "mediumint", "int", "bigint"})
_NUMBERS = _INTEGERS | {"decimal", "numeric", "year"}
_TIMES = frozenset({"date", "datetime", "timestamp", "time"})
_TEXTS = frozenset({"char", "varchar"})
_LONG_TEXTS = frozenset({"tinytext", "text", "mediumtext", "longtext"})
_BYTES = frozenset({"binary", "varbinary"})
_LONG_BYTES = frozenset({"tinyblob", "blob", "mediumblob", "longblob"})
_SHAPES = frozenset(
    {
        *("geometry", "point", "linestring", "polygon", "multipoint", "multilinestring", "multipolygon"),
        *("geometrycollection", "geomcollection"),
    }
)
_AS_TEXT = frozenset({"uuid", "inet6", "inet4"})
_KNOWN = _NUMBERS | _TIMES | _TEXTS | _LONG_TEXTS | _BYTES | _LONG_BYTES | _SHAPES | _AS_TEXT
_KNOWN |= {"float", "double", "bit", "enum", "set", "json"}
_LONG = _LONG_TEXTS | _LONG_BYTES | _SHAPES | {"json"}
_ORDERED = _NUMBERS | _TIMES | _TEXTS | _BYTES
"""Types whose values, written as literals, are found in an index in its order."""

_TRANSACTIONAL = frozenset({"INNODB", "ROCKSDB", "TOKUDB"})
ELSEWHERE = frozenset({"FEDERATED", "CONNECT", "SPIDER", "MRG_MYISAM", "BLACKHOLE", "SPHINX", "S3", "NDBCLUSTER"})
"""Engines whose tables keep no rows of their own."""

_DENSE = 4  # numbers of a key for each row, at most, for its range to be cut evenly
_MOST = 4096

_TABLES = """
SELECT table_name AS name, engine, table_type AS kind, coalesce(table_rows, 0) AS count,
    coalesce(data_length, 0) AS size, coalesce(index_length, 0) AS more, create_time AS created,
    update_time AS updated, create_options AS options, table_collation AS collation
FROM information_schema.tables WHERE table_schema = DATABASE() AND table_type IN ('BASE TABLE', 'SYSTEM VERSIONED')
ORDER BY table_name
"""
_COLUMNS = """
SELECT table_name AS owner, column_name AS name, LOWER(data_type) AS type, LOWER(column_type) AS whole,
    LOWER(character_set_name) AS charset, collation_name AS collation, is_nullable = 'YES' AS nullable,
    LOWER(extra) AS extra, coalesce(generation_expression, '') AS expression
FROM information_schema.columns WHERE table_schema = DATABASE() ORDER BY table_name, ordinal_position
"""
_KEYS = """
SELECT table_name AS owner, index_name AS name, column_name AS part, non_unique = 0 AS uniq, sub_part AS prefix,
    nullable = 'YES' AS nullable, index_type AS type, seq_in_index AS place
FROM information_schema.statistics WHERE table_schema = DATABASE() ORDER BY table_name, index_name, seq_in_index
"""


@attrs.frozen(kw_only=True)
class Column:
    """A column, and how its values are written."""

    name: str
    type: str
    charset: str | None = None
    nullable: bool = True
    computed: bool = False

    @property
    def text(self) -> str:
        """An expression for the value as a literal of ``INSERT``; a whole text, byte by byte, also for no value."""
        name = quoted(self.name)
        if self.type in _NUMBERS:
            return self._number(name)
        if self.type == "bit":
            return self._number(f"({name} + 0)")
        if self.type in {"enum", "set"}:
            return self._number(f"CAST({name} AS UNSIGNED)")
        if self.type == "json":
            return f"IF({name} IS NULL, 'NULL', CONCAT('_utf8mb4', {self._bytes}))"
        if self.type in _AS_TEXT:
            return f"IF({name} IS NULL, 'NULL', CONCAT('_latin1', QUOTE({name})))"
        return self._bytes

    def _number(self, expression: str) -> str:
        return f"IFNULL({expression}, 'NULL')" if self.nullable else expression

    @property
    def _bytes(self) -> str:
        return f"QUOTE({self.value})"

    @property
    def value(self) -> str:
        """An expression for the value itself, byte by byte."""
        name = quoted(self.name)
        if self.type == "float":
            return f"({name} * 1e0)"  # a FLOAT's own text has six digits
        if self.type == "json":
            return f"CAST(CAST({name} AS CHAR CHARACTER SET utf8mb4) AS BINARY)"
        return f"CAST({name} AS BINARY)" if self.type in _TEXTS | _LONG_TEXTS else name

    @property
    def apart(self) -> str:
        """An expression for the value of a row that is too long for one text; ``quote`` says what it is."""
        return self.text if self.quote is None else self.value

    @property
    def quote(self) -> bytes | None:
        """What stands before the quotes of a value that is taken ``apart``; ``None``: it is a literal already."""
        if self.type == "json":
            return b"_utf8mb4"
        return b"" if self.type in _TEXTS | _LONG_TEXTS | _BYTES | _LONG_BYTES | _SHAPES else None

    @property
    def sum(self) -> str:
        """An expression that tells values apart, of which a row's sum is made."""
        return f"IFNULL(MD5({self.value}), 'NULL')" if self.type in _LONG else self.text

    @property
    def bound(self) -> str:
        """An expression for the value as a literal that compares as the column does."""
        name = quoted(self.name)
        if self.type in _NUMBERS:
            return name
        if self.type in _TIMES:
            return f"QUOTE({name})"
        before = f"_{self.charset} X" if self.type in _TEXTS else "X"
        return f"CONCAT('{before}', CHAR(39), HEX({name}), CHAR(39))"


@attrs.frozen(kw_only=True)
class Table:
    """A table with rows of its own.

    Args:
        count: how many rows there are, about.
        size: bytes, without keys.
        key: columns by whose values it is cut; none: it travels as a whole.
        index: that leads there.
        unique: the columns of its primary key, or another one that tells rows apart, as far as they can be shown.
        counted: a key that its counter needs.
        versioned: the server keeps what rows were.
        version: changes with what is written, as far as the server tells it.
    """

    name: str
    engine: str
    columns: tuple[Column, ...]
    count: int = 0
    size: int = 0
    key: tuple[Column, ...] = ()
    index: str = ""
    unique: bool = False
    kept: frozenset[str] = frozenset()
    has_key: bool = False
    versioned: bool = False
    version: str = ""

    @property
    def sql(self) -> str:
        """As SQL has it."""
        return quoted(self.name)

    @property
    def stored(self) -> tuple[Column, ...]:
        """Columns whose values travel: computed ones are computed again."""
        return tuple(column for column in self.columns if not column.computed)

    @property
    def is_transactional(self) -> bool:
        """Whether a snapshot holds its rows, and a transaction brings them as a whole."""
        return self.engine.upper() in _TRANSACTIONAL

    @property
    def is_elsewhere(self) -> bool:
        """Whether its rows are somebody else's."""
        return self.engine.upper() in ELSEWHERE

    @property
    def names(self) -> str:
        """The columns that travel."""
        return ", ".join(quoted(column.name) for column in self.stored)

    @property
    def row(self) -> str:
        """An expression for a row as ``INSERT`` takes it; no value, if it is longer than a text of the server."""
        return f"CONCAT('(', {_listed(column.text for column in self.stored)}, ')')"

    @property
    def row_sum(self) -> str:
        """An expression for the sum of a row."""
        return f"MD5(CONCAT({_listed(column.sum for column in self.stored)}))"


@attrs.frozen
class Chunk:
    """Rows of a table whose key lies between two bounds; the lower one is not among them, the upper one is.

    Args:
        number: of the chunk, from 0.
        after: literals of the key's columns, or the first of them; none: from the beginning.
        upto: the same; none: to the end.
    """

    table: Table
    number: int = 0
    of: int = 1
    after: tuple[str, ...] = ()
    upto: tuple[str, ...] = ()

    def of_table(self, table: Table) -> Chunk:
        """Return the same rows of another side's table; its own key may be another one, and the bounds are the same."""
        return attrs.evolve(self, table=attrs.evolve(table, key=self.table.key, index=self.table.index))

    @property
    def alone(self) -> bool:
        """Whether it is the whole table."""
        return not self.after and not self.upto

    @property
    def label(self) -> str:
        """The name of its mark."""
        return f"{self.table.name} {self.number}"

    @property
    def place(self) -> str:
        """As people know it; keys that are numbers or times may be shown."""
        if self.alone:
            return f"the only chunk of {self.table.name}"
        shown = not any(each.type in _TEXTS | _BYTES for each in self.table.key)
        bounds = [f"after {_told(self.after)}" if self.after else "", f"up to {_told(self.upto)}" if self.upto else ""]
        where = f", {' and '.join(each for each in bounds if each)}" if shown else ""
        return f"chunk {self.number + 1} of {self.of} of {self.table.name}{where}"

    @property
    def where(self) -> str:
        """The condition for its rows."""
        names = [quoted(column.name) for column in self.table.key]
        found = [_beyond(names, self.after)] if self.after else []
        found += [_within(names, self.upto)] if self.upto else []
        return " AND ".join(found) or "TRUE"

    @property
    def source(self) -> str:
        """Its rows as ``FROM`` and ``WHERE`` have them."""
        hint = f" FORCE INDEX ({quoted(self.table.index)})" if not self.alone else ""
        return f"{self.table.sql}{hint} WHERE {self.where}"


def _listed(expressions: Iterable[str]) -> str:
    return ", ',', ".join(expressions)


def _told(bound: Sequence[str]) -> str:
    return f"({', '.join(each.strip(chr(39)) for each in bound)})" if len(bound) > 1 else bound[0].strip("'")


def _beyond(names: Sequence[str], bound: Sequence[str]) -> str:
    """Say that a key is greater than a bound."""
    name, value = names[0], bound[0]
    if len(bound) == 1:
        return f"{name} > {value}"
    return f"({name} > {value} OR ({name} = {value} AND {_beyond(names[1:], bound[1:])}))"


def _within(names: Sequence[str], bound: Sequence[str]) -> str:
    """Say that a key is not greater than a bound."""
    name, value = names[0], bound[0]
    if len(bound) == 1:
        return f"{name} <= {value}"
    return f"({name} < {value} OR ({name} = {value} AND {_within(names[1:], bound[1:])}))"


def tables_of(session: Session, name: str) -> tuple[Table, ...]:
    """Return all tables of users."""
    columns: dict[str, list[Column]] = {}
    for row in rows(session, name, _COLUMNS):
        columns.setdefault(row["owner"], []).append(_column(row))
    keys: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for row in rows(session, name, _KEYS):
        keys.setdefault(row["owner"], {}).setdefault(row["name"], []).append(row)
    counters = {row["owner"]: row["name"] for row in rows(session, name, _COLUMNS) if "auto_increment" in row["extra"]}
    return tuple(
        _table(row, columns[row["name"]], keys.get(row["name"], {}), counters.get(row["name"]))
        for row in rows(session, name, _TABLES)
        if not row["name"].startswith(OWN)
    )


def _column(row: Mapping[str, Any]) -> Column:
    return Column(
        name=row["name"],
        type=row["type"],
        charset=row["charset"],
        nullable=bool(row["nullable"]),
        computed=bool(row["expression"]),
    )


def _table(
    row: Mapping[str, Any],
    columns: Sequence[Column],
    keys: Mapping[str, Sequence[Mapping[str, Any]]],
    counter: str | None,
) -> Table:
    by_name = {column.name: column for column in columns}
    index = _telling(keys)
    chosen: list[Column] = []
    for part in keys[index] if index else ():
        column = by_name[part["part"]]
        if column.type not in _ORDERED or column.computed or part["prefix"] is not None:
            break
        chosen.append(column)
    engine = row["engine"] or ""
    # A counter needs a key that it leads; one of MyISAM any that it is in.
    kept = {key for key, parts in keys.items() if counter in {part["part"] for part in parts}} if counter else set()
    return Table(
        name=row["name"],
        engine=engine,
        columns=tuple(columns),
        count=int(row["count"]),
        size=int(row["size"]),
        key=tuple(chosen) if engine.upper() in _TRANSACTIONAL and row["kind"] == "BASE TABLE" else (),
        index=index or "",
        unique=bool(chosen) and len(chosen) == len(keys[index or ""]),
        kept=frozenset({*kept, *([index] if index else [])}),
        has_key=index is not None,
        versioned=row["kind"] == "SYSTEM VERSIONED",
        version=f"{row['created']} {row['updated']}",
    )


def _telling(keys: Mapping[str, Sequence[Mapping[str, Any]]]) -> str | None:
    """Name the key that tells rows apart: the primary one, else the shortest."""
    if "PRIMARY" in keys:
        return "PRIMARY"
    fit = [
        (len(parts), key)
        for key, parts in keys.items()
        if all(
            part["uniq"]
            and not part["nullable"]
            and part["prefix"] is None
            and part["part"]
            and part["type"] == "BTREE"
            for part in parts
        )
    ]
    return min(fit)[1] if fit else None


def unknown_types(tables: Iterable[Table]) -> Iterator[str]:
    """Name columns of types that nobody knows here."""
    for table in tables:
        for column in table.stored:
            if column.type not in _KNOWN:
                yield f"{table.name}.{column.name} ({column.type})"


Cut = list[list[str]]
"""The bounds between chunks, as literals."""


def cut_of(session: Session, name: str, table: Table, chunk: int) -> Cut:
    """Say where a table is cut, in a plain session that sees the snapshot."""
    if not table.key or table.size <= chunk or table.count <= 1:
        return []
    pieces = min(_MOST, -(-table.size // chunk))
    if len(table.key) == 1 and table.key[0].type in _INTEGERS:
        column = quoted(table.key[0].name)
        ((low, high),) = raw(session, name, f"SELECT MIN({column}), MAX({column}) FROM {table.sql}")
        if low is None or high is None:
            return []
        first, last = int(low), int(high)
        if last - first + 1 <= _DENSE * table.count:
            step = max(1, (last - first + 1) // pieces)
            return [[str(first + step * number - 1)] for number in range(1, pieces) if first + step * number - 1 < last]
    return list(_walked(session, name, table, max(1, table.count // pieces)))


def _walked(session: Session, name: str, table: Table, step: int) -> Iterator[list[str]]:
    """Walk through the key and yield each so manieth."""
    columns = ", ".join(column.bound for column in table.key)
    order = ", ".join(quoted(column.name) for column in table.key)
    after: tuple[str, ...] = ()
    for _ in range(_MOST * _DENSE):
        chunk = Chunk(table, after=after)
        where = f"{table.sql} FORCE INDEX ({quoted(table.index)}) WHERE {chunk.where}"
        found = raw(session, name, f"SELECT {columns} FROM {where} ORDER BY {order} LIMIT 1 OFFSET {step - 1}")
        if not found:
            return
        after = tuple(decoded(value or b"NULL") for value in found[0])
        yield list(after)


def chunks_of(table: Table, cut: Cut | None) -> list[Chunk]:
    """Return the chunks of a table that is cut somewhere."""
    bounds = [(), *map(tuple, cut or ()), ()]
    return [Chunk(table, number, len(bounds) - 1, after, upto) for number, (after, upto) in enumerate(pairwise(bounds))]

"""Decodes pgoutput, the output plugin that every PostgreSQL has: protocol version 1, strictly.

Version 2 would send large transactions before they commit. It is not asked for: whoever peeks at a slot gets the
beginning of an open transaction again with every peek, and would have to keep what may yet be rolled back. In version 1
the source's server keeps it, on its disk, and nothing is sent before the commit.

The format is that of PostgreSQL's documentation, "Logical Replication Message Formats".
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from struct import Struct
from struct import error as struct_error
from typing import ClassVar, Literal

import attrs

from shiftable.errors import MigrationError

__all__ = [
    "Begin",
    "Change",
    "Column",
    "Commit",
    "Decoder",
    "Delete",
    "Identity",
    "Insert",
    "LogicalMessage",
    "Message",
    "Origin",
    "Relation",
    "Row",
    "Truncate",
    "TypeName",
    "Update",
    "lsn_number",
    "lsn_text",
]

Identity = Literal["default", "nothing", "full", "index"]
_IDENTITIES: dict[int, Identity] = {ord("d"): "default", ord("n"): "nothing", ord("f"): "full", ord("i"): "index"}
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)

_BEGIN = Struct(">QqI")
_COMMIT = Struct(">BQQq")
_U64 = Struct(">Q")
_U32 = Struct(">I")
_U16 = Struct(">H")
_COLUMN_TYPE = Struct(">Ii")
_MESSAGE = Struct(">BQ")

_UNCHANGED = ord("u")
_VALUED, _EMPTY = frozenset(b"tb"), frozenset(b"nu")
_NEW, _KEY, _OLD = b"NKO"
_OLDER = frozenset(b"KO")


def lsn_text(lsn: int) -> str:
    """Write a place in the write-ahead log as PostgreSQL does: ``0/16B3748``."""
    return f"{lsn >> 32:X}/{lsn & 0xFFFFFFFF:X}"


def lsn_number(text: str) -> int:
    """Read a place in the write-ahead log."""
    high, _, low = text.partition("/")
    return int(high, 16) << 32 | int(low, 16)


@attrs.frozen
class Column:
    """A column of a relation, as the source has it.

    Args:
        is_key: it is part of the replica identity.
        type_name: schema and name of a type that is not built in, of a domain those of its base type.
    """

    name: str
    type_oid: int
    type_modifier: int
    is_key: bool
    type_name: tuple[str, str] | None = None


@attrs.frozen
class Relation:
    """A table whose rows follow."""

    oid: int
    schema: str
    name: str
    identity: Identity
    columns: tuple[Column, ...]

    def __str__(self) -> str:
        return f"{self.schema}.{self.name}"


@attrs.frozen
class Row:
    """The values of one row.

    Args:
        kinds: for each column ``n`` null, ``u`` toasted and not changed (so not sent), ``t`` text, ``b`` binary.
        values: as the server wrote them; ``None`` where there is none.
    """

    kinds: bytes
    values: tuple[bytes | None, ...] = attrs.field(repr=False)


@attrs.frozen
class Begin:
    """A transaction begins.

    Args:
        lsn: where its commit is.
    """

    lsn: int
    at: datetime
    xid: int


@attrs.frozen
class Commit:
    """The transaction has ended.

    Args:
        end: the place behind its commit: whoever has that has the transaction.
    """

    lsn: int
    end: int
    at: datetime


@attrs.frozen
class Origin:
    """The transaction came to the source by replication."""

    lsn: int
    name: str


@attrs.frozen
class TypeName:
    """The name of a type that is not built in."""

    oid: int
    schema: str
    name: str


@attrs.frozen
class Insert:
    """A row came."""

    relation: Relation
    new: Row


@attrs.frozen
class Update:
    """A row changed.

    Args:
        old: its key before, if that changed, or all of it where the replica identity is full.
        whole: ``old`` is all of it.
    """

    relation: Relation
    old: Row | None
    new: Row
    whole: bool = False


@attrs.frozen
class Delete:
    """A row went.

    Args:
        whole: ``old`` is all of it, not its key alone.
    """

    relation: Relation
    old: Row
    whole: bool = False


@attrs.frozen
class Truncate:
    """All rows of some tables went."""

    relations: tuple[Relation, ...]
    cascade: bool
    restart_identity: bool


@attrs.frozen
class LogicalMessage:
    """What a session wrote with ``pg_logical_emit_message``."""

    transactional: bool
    lsn: int
    prefix: str
    content: bytes


Change = Insert | Update | Delete | Truncate
Message = Begin | Commit | Origin | Relation | TypeName | Change | LogicalMessage


class Decoder:
    """Decodes the messages of one peek, in their order.

    Raises:
        MigrationError: a message is not what the protocol allows. Nothing is guessed.
    """

    _TAGS: ClassVar[dict[int, Callable[[Decoder, bytes], Message]]]

    def __init__(self) -> None:
        self.relations: dict[int, Relation] = {}
        self._types: dict[int, tuple[str, str]] = {}
        self._begun: Begin | None = None

    @property
    def in_transaction(self) -> bool:
        """Whether a commit is still to come."""
        return self._begun is not None

    def decode(self, data: bytes) -> Message:
        """Decode one message."""
        try:
            decoded = self._TAGS[data[0]](self, data)
        except KeyError:
            raise _broken(data, "is of no kind that version 1 of the protocol has") from None
        except (IndexError, struct_error):
            raise _broken(data, "ends too early") from None
        except UnicodeDecodeError:
            raise _broken(data, "has a name that is not UTF-8") from None
        except OverflowError:
            raise _broken(data, "has a time that no calendar has") from None
        return decoded

    # transactions

    def _begin(self, data: bytes) -> Begin:
        if self._begun is not None:
            raise _broken(data, "begins a transaction within another")
        lsn, at, xid = _BEGIN.unpack_from(data, 1)
        _ended(data, 1 + _BEGIN.size)
        self._begun = Begin(lsn, _time(at), xid)
        return self._begun

    def _commit(self, data: bytes) -> Commit:
        flags, lsn, end, at = _COMMIT.unpack_from(data, 1)
        _ended(data, 1 + _COMMIT.size)
        if self._begun is None or self._begun.lsn != lsn:
            raise _broken(data, "commits a transaction that has not begun")
        if flags or end <= lsn:
            raise _broken(data, "is a commit as none should be")
        self._begun = None
        return Commit(lsn, end, _time(at))

    def _origin(self, data: bytes) -> Origin:
        self._inside(data)
        name, at = _text(data, 9)
        _ended(data, at)
        return Origin(_U64.unpack_from(data, 1)[0], name)

    def _message(self, data: bytes) -> LogicalMessage:
        flags, lsn = _MESSAGE.unpack_from(data, 1)
        if flags & 1:
            self._inside(data)
        prefix, at = _text(data, 1 + _MESSAGE.size)
        end = at + 4 + _U32.unpack_from(data, at)[0]
        _ended(data, end)
        return LogicalMessage(bool(flags & 1), lsn, prefix, data[at + 4 : end])

    # what things are

    def _type(self, data: bytes) -> TypeName:
        self._inside(data)
        oid = _U32.unpack_from(data, 1)[0]
        schema, at = _text(data, 5)
        name, at = _text(data, at)
        _ended(data, at)
        schema = schema or "pg_catalog"
        self._types[oid] = schema, name
        return TypeName(oid, schema, name)

    def _relation(self, data: bytes) -> Relation:
        self._inside(data)
        oid = _U32.unpack_from(data, 1)[0]
        schema, at = _text(data, 5)
        name, at = _text(data, at)
        identity = _IDENTITIES.get(data[at])
        if identity is None:
            raise _broken(data, "has a replica identity that nobody knows")
        count = _U16.unpack_from(data, at + 1)[0]
        at += 3
        columns = []
        for _ in range(count):
            flags = data[at]
            column, at = _text(data, at + 1)
            type_oid, modifier = _COLUMN_TYPE.unpack_from(data, at)
            at += _COLUMN_TYPE.size
            columns.append(Column(column, type_oid, modifier, bool(flags & 1), self._types.get(type_oid)))
        _ended(data, at)
        found = Relation(oid, schema or "pg_catalog", name, identity, tuple(columns))
        self.relations[oid] = found
        return found

    # rows

    def _insert(self, data: bytes) -> Insert:
        relation = self._known(data, 1)
        if data[5] != _NEW:
            raise _broken(data, "is an insert without a row")
        row, at = _row(data, 6, len(relation.columns))
        if at != len(data) or _UNCHANGED in row.kinds:
            raise _broken(data, "is an insert with more than a row, or less")
        return Insert(relation, row)

    def _update(self, data: bytes) -> Update:
        relation = self._known(data, 1)
        count = len(relation.columns)
        mark, at, old = data[5], 6, None
        if mark in _OLDER:
            old, at = _row(data, 6, count)
            at += 1
        if data[at - 1] != _NEW:
            raise _broken(data, "is an update without a row")
        new, at = _row(data, at, count)
        _ended(data, at)
        return Update(relation, old, new, mark == _OLD)

    def _delete(self, data: bytes) -> Delete:
        relation, mark = self._known(data, 1), data[5]
        if mark not in _OLDER:
            raise _broken(data, "is a deletion that names no row")
        old, at = _row(data, 6, len(relation.columns))
        _ended(data, at)
        return Delete(relation, old, mark == _OLD)

    def _truncate(self, data: bytes) -> Truncate:
        count, options = _U32.unpack_from(data, 1)[0], data[5]
        _ended(data, 6 + 4 * count)
        relations = tuple(self._known(data, 6 + 4 * each) for each in range(count))
        return Truncate(relations, bool(options & 1), bool(options & 2))

    # rules

    def _inside(self, data: bytes) -> None:
        if self._begun is None:
            raise _broken(data, "stands outside a transaction")

    def _known(self, data: bytes, at: int) -> Relation:
        if self._begun is None:
            raise _broken(data, "stands outside a transaction")
        relation = self.relations.get(_U32.unpack_from(data, at)[0])
        if relation is None:
            raise _broken(data, "is of a table that was not described")
        return relation


Decoder._TAGS = {  # noqa: SLF001  the table of its own methods
    ord("B"): Decoder._begin,  # noqa: SLF001
    ord("C"): Decoder._commit,  # noqa: SLF001
    ord("O"): Decoder._origin,  # noqa: SLF001
    ord("M"): Decoder._message,  # noqa: SLF001
    ord("Y"): Decoder._type,  # noqa: SLF001
    ord("R"): Decoder._relation,  # noqa: SLF001
    ord("I"): Decoder._insert,  # noqa: SLF001
    ord("U"): Decoder._update,  # noqa: SLF001
    ord("D"): Decoder._delete,  # noqa: SLF001
    ord("T"): Decoder._truncate,  # noqa: SLF001
}


def _row(data: bytes, at: int, columns: int) -> tuple[Row, int]:
    """Read the values of a row, and return where they end."""
    if data[at] << 8 | data[at + 1] != columns:
        raise _broken(data, f"has {data[at] << 8 | data[at + 1]} values for {columns} columns")
    at += 2
    kinds = bytearray()
    values: list[bytes | None] = []
    length = _U32.unpack_from
    for _ in range(columns):
        kind = data[at]
        kinds.append(kind)
        if kind in _VALUED:
            start = at + 5
            at = start + length(data, at + 1)[0]
            values.append(data[start:at])
        elif kind in _EMPTY:
            at += 1
            values.append(None)
        else:
            raise _broken(data, "has a value of a kind that nobody knows")
    if at > len(data):
        raise IndexError  # the last value is longer than what is left
    return Row(bytes(kinds), tuple(values)), at


def _text(data: bytes, at: int) -> tuple[str, int]:
    """Read a text that ends with a zero, and return where the next begins."""
    end = data.find(0, at)
    if end < 0:
        raise IndexError
    return data[at:end].decode(), end + 1


def _time(microseconds: int) -> datetime:
    return _EPOCH + timedelta(microseconds=microseconds)


def _ended(data: bytes, at: int) -> None:
    if at != len(data):
        raise _broken(data, "is longer than it should be" if at < len(data) else "ends too early")


def _broken(data: bytes, why: str) -> MigrationError:
    kind = repr(data[:1].decode("ascii", "backslashreplace"))
    return MigrationError(f"the source sent a change that cannot be read: a message {kind} of {len(data)} bytes {why}")

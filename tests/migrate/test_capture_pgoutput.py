"""pgoutput, decoded: messages made by hand, of every kind, cut and lengthened anywhere."""

from __future__ import annotations

import struct
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shiftable.errors import MigrationError
from shiftable.migrate._capture._pgoutput import (
    Begin,
    Column,
    Commit,
    Decoder,
    Delete,
    Insert,
    LogicalMessage,
    Origin,
    Relation,
    Row,
    Truncate,
    TypeName,
    Update,
    lsn_number,
    lsn_text,
)

LSN, END, XID = 0x1_0000_0010, 0x1_0000_0040, 4_000_000_000
HALF = 500_000
"""Microseconds since the year 2000: half a second."""
AT = datetime(2000, 1, 1, 0, 0, 0, HALF, UTC)
ENUM = 16_500

BEGIN = b"B" + struct.pack(">QqI", LSN, HALF, XID)
COMMIT = b"C" + struct.pack(">BQQq", 0, LSN, END, HALF)
TYPE = b"Y" + struct.pack(">I", ENUM) + b"shop\0colour\0"
RELATION = (
    b"R"
    + struct.pack(">I", 77)
    + b'shop\0or"ders\0d'
    + struct.pack(">H", 3)
    + b"\x01id\0"
    + struct.pack(">Ii", 20, -1)
    + b"\x00text\0"
    + struct.pack(">Ii", 1043, 14)
    + b"\x00colour\0"
    + struct.pack(">Ii", ENUM, -1)
)
DESCRIBED = Relation(
    77,
    "shop",
    'or"ders',
    "default",
    (
        Column("id", 20, -1, is_key=True),
        Column("text", 1043, 14, is_key=False),
        Column("colour", ENUM, -1, is_key=False, type_name=("shop", "colour")),
    ),
)


def values(*found: tuple[str, bytes] | str) -> bytes:
    """Write a row as the server does."""
    parts = [struct.pack(">H", len(found))]
    for each in found:
        if isinstance(each, str):
            parts.append(each.encode())
        else:
            parts.append(each[0].encode() + struct.pack(">I", len(each[1])) + each[1])
    return b"".join(parts)


NEW = values(("t", b"5"), ("t", "grüß".encode()), "n")
KEY = values(("t", b"4"), "n", "n")
INSERT = b"I" + struct.pack(">I", 77) + b"N" + NEW
UPDATE = b"U" + struct.pack(">I", 77) + b"N" + values(("t", b"5"), "u", ("b", b"\x00\xff"))
UPDATE_KEY = b"U" + struct.pack(">I", 77) + b"K" + KEY + b"N" + NEW
UPDATE_OLD = b"U" + struct.pack(">I", 77) + b"O" + NEW + b"N" + NEW
DELETE = b"D" + struct.pack(">I", 77) + b"K" + KEY
DELETE_OLD = b"D" + struct.pack(">I", 77) + b"O" + NEW
TRUNCATE = b"T" + struct.pack(">IBII", 2, 3, 77, 77)
ORIGIN = b"O" + struct.pack(">Q", LSN) + b"elsewhere\0"
MESSAGE = b"M" + struct.pack(">BQ", 1, LSN) + b"prefix\0" + struct.pack(">I", 3) + b"\0a\xff"
LOOSE = b"M" + struct.pack(">BQ", 0, LSN) + b"p\0" + struct.pack(">I", 0)

ROW = Row(b"ttn", (b"5", "grüß".encode(), None))
OLD = Row(b"tnn", (b"4", None, None))


def begun(*more: bytes) -> Decoder:
    """Return a decoder within a transaction that knows the table."""
    decoder = Decoder()
    for data in (BEGIN, TYPE, RELATION, *more):
        decoder.decode(data)
    return decoder


WHOLE = {
    "insert": (INSERT, Insert(DESCRIBED, ROW)),
    "update": (UPDATE, Update(DESCRIBED, None, Row(b"tub", (b"5", None, b"\x00\xff")))),
    "update of the key": (UPDATE_KEY, Update(DESCRIBED, OLD, ROW)),
    "update with the whole row": (UPDATE_OLD, Update(DESCRIBED, ROW, ROW, whole=True)),
    "delete": (DELETE, Delete(DESCRIBED, OLD)),
    "delete with the whole row": (DELETE_OLD, Delete(DESCRIBED, ROW, whole=True)),
    "truncate": (TRUNCATE, Truncate((DESCRIBED, DESCRIBED), cascade=True, restart_identity=True)),
    "origin": (ORIGIN, Origin(LSN, "elsewhere")),
    "message": (MESSAGE, LogicalMessage(True, LSN, "prefix", b"\0a\xff")),
    "message outside transactions": (LOOSE, LogicalMessage(False, LSN, "p", b"")),
    "type": (TYPE, TypeName(ENUM, "shop", "colour")),
    "relation": (RELATION, DESCRIBED),
    "commit": (COMMIT, Commit(LSN, END, AT)),
}


@pytest.mark.parametrize("kind", WHOLE)
def test_every_kind_of_message_is_decoded(kind: str) -> None:
    data, expected = WHOLE[kind]
    assert expected == begun().decode(data)


def test_a_transaction_has_its_number_and_its_time() -> None:
    decoder = Decoder()
    assert Begin(LSN, AT, XID) == decoder.decode(BEGIN)
    assert decoder.in_transaction
    decoder.decode(COMMIT)
    assert not decoder.in_transaction


@pytest.mark.parametrize("kind", WHOLE)
def test_a_message_cut_anywhere_is_refused(kind: str) -> None:
    data, _ = WHOLE[kind]
    for length in range(1, len(data)):
        with pytest.raises(MigrationError, match="cannot be read"):
            begun().decode(data[:length])


@pytest.mark.parametrize("kind", WHOLE)
def test_a_message_with_more_behind_it_is_refused(kind: str) -> None:
    data, _ = WHOLE[kind]
    with pytest.raises(MigrationError, match="cannot be read"):
        begun().decode(data + b"\0")


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "ends too early"),
        (BEGIN, "within another"),
        (b"S" + bytes(5), "of no kind"),
        (b"I" + struct.pack(">I", 78) + b"N" + NEW, "not described"),
        (b"I" + struct.pack(">I", 77) + b"K" + NEW, "without a row"),
        (b"I" + struct.pack(">I", 77) + b"N" + values("n", "n"), "2 values for 3 columns"),
        (b"I" + struct.pack(">I", 77) + b"N" + values(("t", b"1"), "u", "n"), "more than a row, or less"),
        (b"I" + struct.pack(">I", 77) + b"N" + values(("x", b"1"), "n", "n"), "a kind that nobody knows"),
        (b"U" + struct.pack(">I", 77) + b"K" + KEY, "ends too early"),
        (b"D" + struct.pack(">I", 77) + b"N" + NEW, "names no row"),
        (b"C" + struct.pack(">BQQq", 0, LSN + 1, END, 0), "has not begun"),
        (b"C" + struct.pack(">BQQq", 1, LSN, END, 0), "as none should be"),
        (b"C" + struct.pack(">BQQq", 0, LSN, LSN, 0), "as none should be"),
        (b"Y" + struct.pack(">I", 5) + b"\xff\0a\0", "not UTF-8"),
        (RELATION.replace(b"\0d\0", b"\0x\0"), "nobody knows"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_the_protocol_does_not_allow_is_refused(data: bytes, why: str) -> None:
    with pytest.raises(MigrationError, match=why):
        begun().decode(data)


def test_a_time_that_no_calendar_has_is_refused() -> None:
    with pytest.raises(MigrationError, match="no calendar"):
        Decoder().decode(b"B" + struct.pack(">QqI", LSN, 2**62, XID))


@pytest.mark.parametrize("kind", [name for name in WHOLE if name != "message outside transactions"])
def test_nothing_stands_outside_a_transaction_but_a_message(kind: str) -> None:
    decoder = begun(COMMIT)
    with pytest.raises(MigrationError, match="outside a transaction|has not begun"):
        decoder.decode(WHOLE[kind][0])


def test_a_table_that_changes_is_described_again() -> None:
    decoder = begun()
    narrower = RELATION.replace(struct.pack(">Ii", 1043, 14), struct.pack(">Ii", 25, -1))
    changed: Any = decoder.decode(narrower)
    assert 25 == changed.columns[1].type_oid
    found: Any = decoder.decode(INSERT)
    assert changed is found.relation


def test_a_schema_without_a_name_is_pg_catalog() -> None:
    found: Any = begun().decode(RELATION.replace(b"shop\0or", b"\0or"))
    assert "pg_catalog" == found.schema


def test_values_do_not_show_in_repr() -> None:
    assert "gr" not in repr(begun().decode(INSERT)).replace('or"ders', "")


ANY_VALUE = st.one_of(st.sampled_from(["n", "u"]), st.tuples(st.sampled_from(["t", "b"]), st.binary(max_size=300)))


@given(rows=st.lists(st.tuples(ANY_VALUE, ANY_VALUE, ANY_VALUE), min_size=1, max_size=5))
def test_any_row_comes_out_as_it_went_in(rows: list[tuple[Any, Any, Any]]) -> None:
    decoder = begun()
    for row in rows:
        message: Any = decoder.decode(b"U" + struct.pack(">I", 77) + b"N" + values(*row))
        kinds = "".join(each if isinstance(each, str) else each[0] for each in row)
        assert kinds.encode() == message.new.kinds
        assert tuple(None if isinstance(each, str) else each[1] for each in row) == message.new.values


@given(data=st.binary(max_size=80))
def test_nonsense_is_refused_and_never_anything_else(data: bytes) -> None:
    decoder = begun()
    try:
        decoder.decode(data)
    except MigrationError:
        return
    assert data[:1] in {b"C", b"M", b"O", b"Y", b"R", b"I", b"U", b"D", b"T"}


@given(st.integers(min_value=0, max_value=2**64 - 1))
def test_places_are_written_as_postgresql_writes_them(place: int) -> None:
    assert place == lsn_number(lsn_text(place))


def test_a_place_looks_as_it_does_in_postgresql() -> None:
    assert "16/B374D848" == lsn_text(0x16_B374_D848)

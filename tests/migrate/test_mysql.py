"""Moves of MySQL and MariaDB without a server: names, statements taken apart, chunks, values, rights, losses."""

# ruff: noqa: S608  names are the test's own

from __future__ import annotations

import operator
import sqlite3
import threading
from typing import Any

import attrs
import pymysql
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shiftable.errors import MigrationError
from shiftable.migrate import FACETS
from shiftable.migrate._mysql._copying import Ends, _batches, _joined, copied, escaped
from shiftable.migrate._mysql._facts import Facts, losses
from shiftable.migrate._mysql._rights import Grant, Rights, rights_told, split_account
from shiftable.migrate._mysql._schema import Thing, definers
from shiftable.migrate._mysql._side import decoded, encoded, said
from shiftable.migrate._mysql._tables import Chunk, Column, Table, chunks_of, unknown_types
from shiftable.migrate._mysql._words import accounts_in, literal, quoted, split, stated, with_definer

names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)


# names and statements


@given(names)
def test_a_quoted_name_is_read_as_one(name: str) -> None:
    text = f"KEY {quoted(name)} (a), {quoted(name)} int"
    assert [f"KEY {quoted(name)} (a)", f"{quoted(name)} int"] == list(split(text))


@given(st.lists(st.tuples(names, st.text(max_size=20)), min_size=1, max_size=6))
def test_parts_of_a_statement_are_found_whatever_stands_in_quotes(parts: list[tuple[str, str]]) -> None:
    """The server writes a quote in a text twice, and a backslash, too."""
    wanted = [
        f"{quoted(name)} varchar(3) DEFAULT '{text.strip().translate({92: chr(92) * 2, 39: chr(39) * 2})}'"
        for name, text in parts
    ]
    assert wanted == list(split(",\n  ".join(wanted)))


TABLE = """CREATE TABLE `a``b (` (
  `id` int(11) NOT NULL AUTO_INCREMENT COMMENT 'it''s, (a \\\\ AUTO_INCREMENT=9',
  `KEY ``x`` (` int(11) DEFAULT NULL CHECK (`id` > ')(,'),
  `v` int(11) GENERATED ALWAYS AS (`id` + 1) VIRTUAL,
  PRIMARY KEY (`id`),
  UNIQUE KEY `one, two` (`KEY ``x`` (`),
  KEY `three` (`v`,`id`) COMMENT 'FOREIGN KEY (`a`)',
  FULLTEXT KEY `four` (`KEY ``x`` (`),
  CONSTRAINT `own` CHECK (`v` <> 'CONSTRAINT `x` FOREIGN KEY'),
  CONSTRAINT `to``other` FOREIGN KEY (`v`) REFERENCES `other` (`id`) ON DELETE CASCADE,
  CONSTRAINT `last` FOREIGN KEY (`id`, `v`) REFERENCES `other` (`id`, `x`)
) ENGINE=InnoDB AUTO_INCREMENT=77 DEFAULT CHARSET=utf8mb4 COMMENT='AUTO_INCREMENT=5 )'
 PARTITION BY HASH (`id`)
PARTITIONS 4"""


def test_a_table_is_taken_apart_into_what_comes_before_the_rows_and_after_them() -> None:
    found = stated(TABLE)

    assert ["one, two", "three", "four"] == list(found.keys)
    assert 2 == len(found.foreign)
    assert 77 == found.counter
    assert ["`id`", "`KEY", "`v`", "PRIMARY", "CONSTRAINT"] == [part.split()[0] for part in found.parts]
    assert "AUTO_INCREMENT=77" not in found.options
    assert "COMMENT='AUTO_INCREMENT=5 )'" in found.options
    made = found.create()
    assert "FOREIGN KEY (`v`)" not in made
    assert "`one, two`" not in made
    assert "AUTO_INCREMENT=77\n PARTITION BY" in made
    assert made.startswith("CREATE TABLE `a``b (` (\n")


def test_all_parts_together_are_the_table_again() -> None:
    found = stated(TABLE)
    again = stated(found.create(whole=True))
    assert (found.parts, found.keys) == ((*again.parts,), again.keys)
    assert (found.counter, "".join(found.options.split())) == (again.counter, "".join(again.options.split()))


def test_keys_that_a_table_needs_from_its_beginning_stay_and_keep_those_before_them() -> None:
    found = stated(TABLE, frozenset({"three"}))
    assert ["four"] == list(found.keys)
    assert ["UNIQUE KEY `one, two` (`KEY ``x`` (`)", "KEY `three` (`v`,`id`) COMMENT 'FOREIGN KEY (`a`)'"] == [
        part for part in found.parts if " KEY `" in f" {part}" and not part.startswith("`")
    ]


@given(names, names)
def test_a_definer_is_found_and_replaced_once(user: str, host: str) -> None:
    who = f"{quoted(user)}@{quoted(host)}"
    text = f"CREATE DEFINER={who} VIEW v AS select 'DEFINER=`x`@`y`'"
    assert who == accounts_in(text)
    assert "CREATE DEFINER=`a`@`b` VIEW v AS select 'DEFINER=`x`@`y`'" == with_definer(text, "`a`@`b`")


def test_events_are_left_disabled_whatever_their_texts_say() -> None:
    side = facts("s")
    text = (
        "CREATE DEFINER=`m`@`%` EVENT `ON COMPLETION PRESERVE` ON SCHEDULE EVERY 1 DAY STARTS '2020-01-01 00:00:00'"
        " ON COMPLETION NOT PRESERVE ENABLE COMMENT 'ON COMPLETION PRESERVE ENABLE' DO select 1"
    )
    event = Thing("EVENT", "e", text, "", "utf8mb4", "utf8mb4_bin", "SYSTEM")
    made = definers(side, side, frozenset())(event).text
    assert text.replace("NOT PRESERVE ENABLE", "NOT PRESERVE DISABLE") == made


@given(st.binary())
def test_texts_of_any_character_set_come_back_as_they_were(data: bytes) -> None:
    assert data == encoded(decoded(data))


@given(st.text())
def test_a_literal_holds_any_text(text: str) -> None:
    head, body, tail = literal(text).split("'")
    assert text == bytes.fromhex(body).decode()
    assert ("CONVERT(X", " USING utf8mb4)") == (head, tail)


# values


def unescaped(text: bytes) -> bytes:
    """Read a quoted value as the server's manual says."""
    assert text[:1] == text[-1:] == b"'"
    out, at = b"", 1
    while at < len(text) - 1:
        assert text[at : at + 1] != b"'"
        at += text[at : at + 1] == b"\\"
        out += text[at : at + 1]
        at += 1
    return out


@given(st.binary(max_size=200))
def test_bytes_between_quotes_are_read_as_they_were(value: bytes) -> None:
    assert value == unescaped(b"'" + escaped(value) + b"'")


@given(st.lists(st.one_of(st.none(), st.binary(max_size=30)), min_size=1, max_size=5))
def test_a_row_taken_apart_is_one_again(values: list[bytes | None]) -> None:
    text = _joined([*reversed(values)], [b""] * len(values))
    wanted = [b"NULL" if value is None else b"'" + escaped(value) + b"'" for value in values]
    assert b"(" + b",".join(wanted) + b")" == text


@given(st.lists(st.integers(1, 400), max_size=60), st.integers(50, 300))
def test_statements_hold_all_rows_in_order_and_are_as_long_as_they_may_be(sizes: list[int], most: int) -> None:
    texts = [b"%d" % (number % 10) * size for number, size in enumerate(sizes)]
    found = [[*batch] for batch in _batches(iter(texts), most)]
    assert texts == [text for batch in found for text in batch]
    assert all(sum(map(len, batch)) + len(batch) <= most or len(batch) == 1 for batch in found)


@attrs.define
class Warned:
    warning_count: int


@attrs.define
class Server:
    """A session that answers what it is told to."""

    arrive: int | None = None
    warnings: tuple[tuple[str, int, bytes], ...] = ()
    rows: tuple[tuple[bytes | None, ...], ...] = ()
    statements: list[bytes] = attrs.Factory(list)
    _result: Any = None

    def query(self, statement: Any) -> int:
        self.statements.append(bytes(statement))
        self._result = Warned(len(self.warnings))
        return len(self.rows) if self.arrive is None else self.arrive

    def show_warnings(self) -> Any:
        return self.warnings

    def cursor(self, _: object = None) -> Any:
        return self

    def __enter__(self) -> Any:
        self._left = iter(self.rows)
        return self

    def __exit__(self, *_: object) -> None:
        pass

    _left: Any = None

    def execute(self, statement: bytes) -> None:
        self.statements.append(statement)

    def fetchone(self) -> Any:
        return next(self._left, None)


PLAIN = Table(
    name="t",
    engine="InnoDB",
    columns=(
        Column(name="id", type="int", nullable=False),
        Column(name="e", type="enum"),
        Column(name="v", type="text"),
    ),
)


def copy(target: Server, packet: int = 1 << 24) -> tuple[int, int]:
    source: Any = Server(rows=((b"(1,1,'a')",), (b"(2,2,'b')",)))
    return copied(source, target, Chunk(PLAIN), Ends("the source", "the target", packet), threading.Event())  # type: ignore[arg-type]


def test_rows_go_into_one_statement_with_the_names_of_their_columns() -> None:
    target = Server(arrive=2)
    assert (2, 18) == copy(target)
    assert [b"INSERT INTO `t` (`id`, `e`, `v`) VALUES (1,1,'a'),(2,2,'b')"] == target.statements


def test_a_target_that_takes_fewer_rows_is_an_error() -> None:
    with pytest.raises(MigrationError, match="2 rows were sent and 1 arrived"):
        copy(Server(arrive=1))


@pytest.mark.parametrize(
    ("warning", "ends"),
    [
        (("Warning", 1265, b"Data truncated for column 'e' at row 1"), True),  # an ENUM that was never a value
        (("Warning", 1265, b"Data truncated for column 'v' at row 1"), False),
        (("Warning", 1366, b"Incorrect string value: 'secret' for column `t`.`v`"), False),
        (("Note", 1265, b"Data truncated for column 'id' at row 1"), False),
    ],
)
def test_a_value_that_would_be_changed_is_an_error_and_not_told(warning: Any, ends: bool) -> None:  # noqa: FBT001
    target = Server(arrive=2, warnings=(warning,))
    if ends:
        assert (2, 18) == copy(target)
        return
    with pytest.raises(MigrationError, match="the target would change a value") as caught:
        copy(target)
    assert "secret" not in str(caught.value)


def test_a_row_that_no_packet_takes_is_an_error_that_says_what_to_raise() -> None:
    with pytest.raises(MigrationError, match="takes 9 bytes, and max_allowed_packet there is 40; raise it"):
        copy(Server(), packet=40)


def test_a_move_that_is_told_to_stop_does() -> None:
    stopping = threading.Event()
    stopping.set()
    source: Any = Server(rows=((b"(1,1,'a')",),))
    target: Any = Server()
    with pytest.raises(MigrationError, match="stopped; run the same again"):
        copied(source, target, Chunk(PLAIN), Ends("a", "b", 1 << 20), stopping)


@pytest.mark.parametrize("kind", ["int", "decimal", "bit", "enum", "set", "year"])
def test_numbers_are_written_without_quotes(kind: str) -> None:
    assert "QUOTE" not in Column(name="n", type=kind).text
    assert "NULL" in Column(name="n", type=kind).text
    assert "NULL" not in Column(name="n", type=kind, nullable=False).text


@pytest.mark.parametrize("kind", ["char", "varchar", "text", "longtext", "tinytext", "mediumtext"])
def test_texts_are_written_byte_by_byte(kind: str) -> None:
    assert "QUOTE(CAST(`v``` AS BINARY))" == Column(name="v`", type=kind).text


def test_a_float_is_written_to_its_last_bit() -> None:
    """A FLOAT's own text has six digits, whatever is in it."""
    assert "QUOTE((`f` * 1e0))" == Column(name="f", type="float").text


def test_computed_columns_do_not_travel() -> None:
    table = attrs.evolve(PLAIN, columns=(*PLAIN.columns, Column(name="c", type="int", computed=True)))
    assert "`id`, `e`, `v`" == table.names
    assert "`c`" not in table.row


def test_a_type_that_nobody_knows_is_named() -> None:
    table = attrs.evolve(PLAIN, columns=(Column(name="x", type="vector"),))
    assert ["t.x (vector)"] == list(unknown_types([table]))
    assert [] == list(unknown_types([PLAIN]))


# chunks

KEY = tuple(Column(name=name, type="int", nullable=False) for name in "abc")
keys = st.lists(st.tuples(*[st.integers(0, 4)] * 3), unique=True, max_size=40)


@given(keys, st.integers(1, 3), st.lists(st.tuples(*[st.integers(0, 4)] * 3), unique=True, max_size=6))
def test_each_row_is_in_exactly_one_chunk(
    rows: list[tuple[int, ...]], width: int, bounds: list[tuple[int, ...]]
) -> None:
    """Also where the bounds hold only the first columns of a key; SQLite says which rows a condition takes."""
    table = attrs.evolve(PLAIN, key=KEY[:width])
    cut = sorted({bound[:width] for bound in bounds})
    chunks = chunks_of(table, [[*map(str, bound)] for bound in cut])
    with sqlite3.connect(":memory:") as base:
        base.execute("CREATE TABLE t (a INT, b INT, c INT)")
        base.executemany("INSERT INTO t VALUES (?, ?, ?)", rows)
        found = [base.execute(f"SELECT a, b, c FROM t WHERE {chunk.where}").fetchall() for chunk in chunks]
    base.close()

    assert sorted(rows) == sorted(row for part in found for row in part)
    tops = [max(part)[:width] for part in found if part]
    assert tops == sorted(tops)
    assert len(cut) + 1 == len(chunks)
    for part, bound in zip(found, cut, strict=False):
        assert all(operator.le(row[:width], bound) for row in part)


def test_a_table_without_bounds_is_one_chunk_and_needs_no_index() -> None:
    (chunk,) = chunks_of(PLAIN, None)
    assert chunk.alone
    assert "`t` WHERE TRUE" == chunk.source
    assert "the only chunk of t" == chunk.place


def test_a_chunk_names_its_bounds_unless_they_are_texts() -> None:
    numbers = attrs.evolve(PLAIN, key=KEY[:1], index="PRIMARY")
    texts = attrs.evolve(PLAIN, key=(Column(name="mail", type="varchar", charset="utf8mb4"),), index="PRIMARY")
    assert "chunk 2 of 3 of t, after 10 and up to 20" == chunks_of(numbers, [["10"], ["20"]])[1].place
    assert "chunk 2 of 2 of t" == chunks_of(texts, [["_utf8mb4 X'61'"]])[1].place


# rights


@pytest.mark.parametrize(
    ("line", "here", "everywhere"),
    [
        ("GRANT SELECT, SHOW VIEW ON `shop`.* TO `m`@`%`", {"SELECT", "SHOW VIEW"}, set()),
        ("GRANT SELECT ON `shop`.`t` TO `m`@`%`", set(), set()),
        ("GRANT SELECT (`a`, `b`), INSERT ON `shop`.`t` TO `m`@`%`", set(), set()),
        ("GRANT SELECT ON `other`.* TO `m`@`%`", set(), set()),
        ("GRANT SELECT ON `sh%`.* TO `m`@`%` WITH GRANT OPTION", {"SELECT"}, set()),
        ("GRANT SELECT ON `sh_p`.* TO `m`@`%`", {"SELECT"}, set()),
        ("GRANT SELECT ON `sh\\_p`.* TO `m`@`%`", set(), set()),
        (
            "GRANT RELOAD, SELECT ON *.* TO `m`@`%` IDENTIFIED BY PASSWORD '*00'",
            {"RELOAD", "SELECT"},
            {"RELOAD", "SELECT"},
        ),
        ("GRANT PROXY ON ''@'%' TO 'root'@'localhost'", set(), set()),
        ("GRANT `reader` TO `m`@`%`", set(), set()),
        ("GRANT EXECUTE ON PROCEDURE `shop`.`p` TO `m`@`%`", set(), set()),
    ],
)
def test_what_a_grant_gives_is_understood(line: str, here: set[str], everywhere: set[str]) -> None:
    found = rights_told([line], "shop")
    assert (here, everywhere) == (set(found.here), set(found.everywhere))


def test_all_privileges_are_all() -> None:
    found = rights_told(["GRANT ALL PRIVILEGES ON `shop`.* TO `m`@`%`"], "shop")
    assert [] == found.lacks("SELECT", "EVENT")
    assert not found.has("RELOAD")


@given(names.filter(lambda name: "@" not in name))
def test_an_account_is_a_user_and_a_host(host: str) -> None:
    assert ("a@b", host) == split_account(f"a@b@{host}")


def test_a_grant_is_the_statement_that_gives_it() -> None:
    column = Grant("u`", "%", "column", "t", "c", "UPDATE", more=True)
    assert "GRANT UPDATE (`c`) ON `db`.`t` TO `u```@`%` WITH GRANT OPTION" == column.sql("db")
    assert "GRANT EXECUTE ON FUNCTION `db`.`f` TO `u`@`h`" == Grant("u", "h", "FUNCTION", "f", "", "EXECUTE").sql("db")
    assert "GRANT SELECT ON `db`.* TO `u`@`h`" == Grant("u", "h", "database", "", "", "SELECT").sql("db")


# losses


def facts(name: str, **more: Any) -> Facts:
    """A side that lacks nothing."""
    server: dict[str, Any] = {"version": "10.11.6-MariaDB", "who": "m@%", "modes": "", "zone": "SYSTEM"}
    server |= {"folds": 0, "packet": 1 << 24, "logs": 0, "trusts": 0, "read_only": 0, "system_zone": "UTC"}
    server |= {"charset": "utf8mb4", "collation": "utf8mb4_bin", **more.pop("server", {})}
    kinds = ("views", "routines", "triggers", "events", "sequences", "broken")
    things = dict.fromkeys(kinds, ()) | more.pop("things", {})
    every: dict[str, Any] = {
        "rights": Rights(frozenset({"ALL PRIVILEGES"}), frozenset({"ALL PRIVILEGES"})),
        "tables": (attrs.evolve(PLAIN, has_key=True),),
        "definers": {},
        "accounts": frozenset({"m@%"}),
        "grants": (),
        "engines": frozenset({"INNODB", "MYISAM"}),
        "collations": frozenset({"utf8mb4_bin"}),
        "used": frozenset({"utf8mb4_bin"}),
        "abroad": (),
        "phase": None,
    }
    return Facts(name=name, server=server, things=things, **{**every, **more})


MYSQL = {"version": "8.4.3"}


@pytest.mark.parametrize(
    ("here", "there", "facet", "words"),
    [
        ({"used": frozenset({"utf8mb4_0900_ai_ci"})}, {}, "collations", "does not know utf8mb4_0900_ai_ci"),
        ({"tables": (attrs.evolve(PLAIN, engine="ROCKSDB"),)}, {}, "engines", "no engine ROCKSDB: t"),
        ({"tables": (attrs.evolve(PLAIN, name="Orders"),)}, {"server": {"folds": 1}}, "names", "Orders"),
        ({"things": {"sequences": ("s",)}}, {"server": MYSQL}, "sequences", "MySQL has no sequences: s"),
        ({"tables": (attrs.evolve(PLAIN, versioned=True),)}, {"server": MYSQL}, "history", "no system versions: t"),
        (
            {"tables": (attrs.evolve(PLAIN, columns=(Column(name="u", type="uuid"),)),)},
            {"server": MYSQL},
            "types",
            "MySQL has no such types: t.u (uuid)",
        ),
        ({"abroad": ("t to other",)}, {}, "keys", "t to other"),
        ({}, {"server": {"version": "5.7.44"}}, "version", "MySQL 5.7"),
        (
            {},
            {"server": {"read_only": 1}, "rights": Rights(frozenset(), frozenset({"ALL PRIVILEGES"}))},
            "target",
            "read-only",
        ),
        (
            {"things": {"triggers": ("x",)}},
            {"server": {"logs": 1}, "rights": Rights(frozenset(), frozenset({"ALL PRIVILEGES"}))},
            "target",
            "log_bin_trust_function_creators",
        ),
    ],
)
def test_what_a_target_cannot_hold_is_refused(here: Any, there: Any, facet: str, words: str) -> None:
    found = [each for each in losses(facts("s", **here), facts("t", **there)) if each.fatal]
    assert [facet] == [each.facet for each in found]
    assert words in found[0].detail


@pytest.mark.parametrize(
    ("here", "there", "facet", "words"),
    [
        (
            {},
            {"server": {"version": "10.6.1-MariaDB"}},
            "version",
            "the target is MariaDB 10.6 and the source MariaDB 10.11",
        ),
        ({"server": MYSQL}, {}, "version", "the target is MariaDB 10.11 and the source MySQL 8.4"),
        ({"definers": {"a@%": ("view v",)}}, {}, "roles", "no account a@%: view v"),
        ({"tables": (attrs.evolve(PLAIN, versioned=True),)}, {}, "history", "earlier rows of t"),
        (
            {"definers": {"a@%": ("view v",)}},
            {"accounts": frozenset({"a@%"}), "rights": Rights(frozenset(), frozenset({"ALL PRIVILEGES"}))},
            "roles",
            "m@% may make nothing that runs as a@%",
        ),
    ],
)
def test_what_may_be_given_up_is_refused_until_it_is(here: Any, there: Any, facet: str, words: str) -> None:
    found = [each for each in losses(facts("s", **here), facts("t", **there)) if each.refuses]
    assert [facet] == [each.facet for each in found]
    assert words in found[0].detail
    assert facet in FACETS["database"]


@pytest.mark.parametrize(
    ("here", "there", "words"),
    [
        ({"server": {"modes": "ANSI_QUOTES"}}, {}, "sql_mode is ANSI_QUOTES here and  there"),
        ({}, {"server": {"packet": 1 << 20}}, "max_allowed_packet is only 1,048,576 there"),
        ({"things": {"events": ("e",)}}, {}, "e: made, and left disabled"),
        ({"tables": (attrs.evolve(PLAIN, engine="MyISAM", has_key=True),)}, {}, "no snapshot holds t"),
        ({"tables": (PLAIN,)}, {}, "t: no primary key"),
        ({"grants": None}, {}, "no grants are moved"),
        ({"rights": Rights(frozenset(), frozenset({"ALL PRIVILEGES"}))}, {}, "by LOCK TABLES for a moment"),
        (
            {"rights": Rights(frozenset(), frozenset({"SELECT", "SHOW VIEW", "TRIGGER", "EVENT"}))},
            {},
            "the snapshot is taken by one connection",
        ),
    ],
)
def test_what_is_lost_is_told(here: Any, there: Any, words: str) -> None:
    found = list(losses(facts("s", **here), facts("t", **there)))
    assert [] == [each for each in found if each.fatal or each.refuses]
    assert any(words in each.detail for each in found), found


def test_two_sides_that_are_alike_lose_nothing_but_accounts() -> None:
    assert ["accounts"] == [each.facet for each in losses(facts("s"), facts("t"))]


def test_what_ran_as_the_mover_runs_as_the_mover_there() -> None:
    thing = Thing("VIEW", "v", "CREATE DEFINER=`m`@`%` VIEW `v` AS select 1", None, "utf8mb4", "utf8mb4_bin")
    placed = definers(facts("s"), facts("t", server={"who": "chief@localhost"}), frozenset())
    assert "CREATE DEFINER=`chief`@`localhost` VIEW `v` AS select 1" == placed(thing).text


# errors


@pytest.mark.parametrize(
    ("exc", "words"),
    [
        (
            pymysql.err.IntegrityError(1062, "Duplicate entry 'secret' for key 'PRIMARY'"),
            "Duplicate entry '…' for key '…' [1062]",
        ),
        (pymysql.err.DataError(1406, "Data too long 'secret"), "Data too long '…' [1406]"),
        (
            pymysql.err.OperationalError(1142, "SELECT command denied for table 't'"),
            "SELECT command denied for table 't' [1142]",
        ),
        (pymysql.err.InterfaceError(0, ""), "the connection was lost"),
        (pymysql.err.ProgrammingError(1064, "error near 'secret'"), "it does not understand a statement"),
    ],
)
def test_what_a_server_says_is_told_without_values(exc: Exception, words: str) -> None:
    assert said(exc).startswith(words)
    assert "secret" not in said(exc)

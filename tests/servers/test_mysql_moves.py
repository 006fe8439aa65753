"""What of a MariaDB database arrives elsewhere: every type, names, code, rights; and what is found to differ."""

# ruff: noqa: S608  names are the test's own

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pymysql
import pytest

from shiftable.errors import MigrationError
from shiftable.migrate._mysql._facts import facts_of, losses
from shiftable.migrate._mysql._move import DatabaseMove, How, moved
from shiftable.migrate._mysql._side import Side
from shiftable.migrate._mysql._verification import differences

from .mysql_pair import MariaDb, Pair, equal, servers

__all__ = ["servers"]

SMALL = How(chunk=16 * 1024)
CANARY = "canary-" + "c0ffee"


@pytest.fixture
def pair(servers: tuple[MariaDb, MariaDb]) -> Iterator[Pair]:
    found = Pair(*servers)
    found.make()
    yield found
    found.drop()


def facts(side: Side) -> Any:
    session = side.connect()
    try:
        return facts_of(session, side.name)
    finally:
        session.close()


def told(source: Side, target: Side, *, only: str = "") -> list[str]:
    return [each.detail for each in losses(facts(source), facts(target)) if only in {"", each.facet}]


# what arrives


@pytest.mark.parametrize("chunk", [2048, 16 * 1024, 1 << 30])
def test_the_awkward_database_arrives_as_it_is(pair: Pair, chunk: int) -> None:
    pair.fill()
    move = moved(pair.source, pair.target, How(chunk=chunk))

    assert [] == move.notes
    assert equal(pair)
    assert {} == differences(pair.source, pair.target, How(chunk=chunk))
    assert [] == pair.on_target("SHOW TABLES LIKE 'shiftable%'")


def test_triggers_do_not_fire_and_events_sleep_until_the_application_is_there(pair: Pair) -> None:
    pair.fill()
    before = pair.on_source("SELECT COUNT(*) FROM fired")
    moved(pair.source, pair.target, SMALL)

    assert before == pair.on_target("SELECT COUNT(*) FROM fired")
    states = "SELECT event_name, status FROM information_schema.events WHERE event_schema = DATABASE() ORDER BY 1"
    assert [("asleep", "DISABLED"), ("every_day", "ENABLED")] == pair.on_source(states)
    assert [("asleep", "DISABLED"), ("every_day", "DISABLED")] == pair.on_target(states)
    assert [every for every in told(pair.source, pair.target, only="events") if "every_day" in every]


def test_numbers_go_on_where_the_source_stands(pair: Pair) -> None:
    pair.fill()
    moved(pair.source, pair.target, SMALL)

    for statement in ("INSERT INTO computed (a) VALUES (77)", "INSERT INTO listed (r) VALUES (1)"):
        pair.on_source(statement)
        pair.on_target(statement)
    for query in ("SELECT MAX(id) FROM computed", "SELECT MAX(id) FROM listed"):
        assert pair.on_source(query) == pair.on_target(query)
    ((here,),), ((there,),) = pair.on_source("SELECT NEXTVAL(numbers)"), pair.on_target("SELECT NEXTVAL(numbers)")
    assert here <= there < here + 7 * 10 * 2  # what a server has in its cache is left out


def test_rows_that_are_larger_than_a_text_of_either_server_arrive(pair: Pair) -> None:
    """QUOTE of 40 MB is no text of a server with max_allowed_packet = 16 MB; then values are taken apart here."""
    for server in (pair.source_server, pair.target_server):
        server.execute("SET GLOBAL max_allowed_packet = 100 * 1024 * 1024")
    pair.fill(
        "CREATE TABLE big (id INT PRIMARY KEY, body LONGBLOB, t LONGTEXT CHARACTER SET utf16, n DOUBLE, j JSON)",
        "INSERT INTO big SELECT seq, REPEAT(UNHEX(CONCAT(MD5(seq), '275C001A')), 2000000), REPEAT('ü''', seq), seq / 7,"
        " '{}' FROM seq_1_to_3",
        "INSERT INTO big VALUES (4, NULL, NULL, NULL, NULL)",
    )
    pair.source_server.execute("SET GLOBAL max_allowed_packet = 16 * 1024 * 1024")
    try:
        sides = json.dumps([dict(server.arguments(pair.name)) for server in (pair.source_server, pair.target_server)])
        done = subprocess.run([sys.executable, "-c", MOVE, sides], capture_output=True, text=True, check=True)
    finally:
        pair.source_server.execute("SET GLOBAL max_allowed_packet = 100 * 1024 * 1024")

    assert equal(pair)
    assert {} == differences(pair.source, pair.target)
    assert int(done.stdout) < 200_000  # kB
    pair.on_target("UPDATE big SET body = INSERT(body, 30000000, 1, 'x') WHERE id = 2")
    found = differences(pair.source, pair.target, How(chunk=1 << 30))
    assert {"big": "rows differ: otherwise on both sides id = 2 in the only chunk of big"} == found


def test_a_row_that_the_target_takes_in_no_packet_is_an_error_that_says_so(pair: Pair) -> None:
    pair.target_server.execute("SET GLOBAL max_allowed_packet = 1024 * 1024")
    try:
        pair.fill(
            "CREATE TABLE big (id INT PRIMARY KEY, body LONGBLOB)", "INSERT INTO big VALUES (1, REPEAT('x', 2000000))"
        )
        assert any("max_allowed_packet is only 1,048,576 there" in each for each in told(pair.source, pair.target))
        with pytest.raises(MigrationError, match="big takes 2,000,.* bytes, and max_allowed_packet there is 1,048,576"):
            moved(pair.source, pair.target)
    finally:
        pair.target_server.execute("SET GLOBAL max_allowed_packet = 100 * 1024 * 1024")


MOVE = """
import json, sys
from shiftable.migrate._mysql._move import How, moved
from shiftable.migrate._mysql._side import Side

sides = [Side(lambda each=each: each, "a side") for each in json.loads(sys.argv[1])]
moved(*sides, How(chunk=16 * 1024 * 1024))
# What getrusage tells begins with what the parent had when it forked.
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


def test_memory_does_not_grow_with_what_is_moved(pair: Pair) -> None:
    sides = json.dumps([dict(server.arguments(pair.name)) for server in (pair.source_server, pair.target_server)])
    peaks = []
    for rows in (1_000, 100_000):
        pair.fill("DROP TABLE IF EXISTS bulk", "CREATE TABLE bulk (id INT, body TEXT)")
        pair.fill(f"INSERT INTO bulk SELECT seq, REPEAT(MD5(seq), 40) FROM seq_1_to_{rows}")
        pair.on_target("DROP TABLE IF EXISTS bulk")
        done = subprocess.run([sys.executable, "-c", MOVE, sides], capture_output=True, text=True, check=True)
        peaks.append(int(done.stdout))

    assert [(100_000,)] == pair.on_target("SELECT COUNT(*) FROM bulk")  # 130 MB
    assert peaks[1] < peaks[0] + 20_000
    assert peaks[1] < 200_000  # kB


def test_one_moment_is_copied_whoever_writes_meanwhile(pair: Pair) -> None:
    """Two tables whose sum is always the same, changed in one transaction over and over."""
    pair.fill("CREATE TABLE a (id INT PRIMARY KEY, n BIGINT)", "CREATE TABLE b LIKE a")
    pair.fill("INSERT INTO a SELECT seq, 100 FROM seq_1_to_5000", "INSERT INTO b SELECT seq, 100 FROM seq_1_to_5000")
    over, done, failures = threading.Event(), [0], []

    def write() -> None:
        try:
            with (
                pymysql.connect(**pair.source_server.arguments(pair.name)) as connection,
                connection.cursor() as cursor,
            ):
                while not over.is_set():
                    cursor.execute(f"UPDATE a SET n = n - 1 WHERE id = {1 + done[0] % 5000}")
                    cursor.execute(f"UPDATE b SET n = n + 1 WHERE id = {1 + done[0] * 7 % 5000}")
                    connection.commit()
                    done[0] += 1
        except Exception as exc:  # noqa: BLE001  told below
            failures.append(exc)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        while not done[0] and writer.is_alive():
            over.wait(0.01)
        moved(pair.source, pair.target, How(chunk=8 * 1024, jobs=3))
    finally:
        over.set()
        writer.join()

    assert [] == failures
    assert [(1_000_000,)] == pair.on_target("SELECT (SELECT SUM(n) FROM a) + (SELECT SUM(n) FROM b)")
    assert pair.on_source("SELECT SUM(n) FROM a") != pair.on_target("SELECT SUM(n) FROM a") or done[0] < 3


# what is found to differ


FLIPS = {
    "a byte of a blob": (
        "UPDATE heavy SET body = INSERT(body, 17000, 1, CHAR(ASCII(SUBSTRING(body, 17000, 1)) ^ 1)) WHERE id = 77",
        "heavy",
        "otherwise on both sides id = 77 in ",
    ),
    "a space at the end": ("UPDATE `every type` SET v = CONCAT(v, ' ') WHERE id = 1", "every type", "id = 1 in "),
    "an empty text for nothing": ("UPDATE `every type` SET v = '' WHERE id = 5", "every type", "id = 1, 5 in "),
    "the last bit of a float": ("UPDATE `every type` SET f = -16777218 WHERE id = 7", "every type", "id = 1, 5, 7 in "),
    "a microsecond": (
        "UPDATE `every type` SET ti = '-838:59:59.000002' WHERE id = 0",
        "every type",
        "id = 0, 1, 5, 7 in ",
    ),
    "an accent": ("UPDATE unique_only SET c = 'ç' WHERE b = 1000", "unique_only", "in chunk "),
    "two pairs of rows": ("UPDATE keyless SET a = 2 WHERE a = 1 LIMIT 2", "keyless", "in the only chunk of keyless"),
    "one of two rows that are the same": (
        "DELETE FROM keyless WHERE a = 1 LIMIT 1",
        "keyless",
        "301 rows here and 300",
    ),
    "a row more": ("INSERT INTO egg VALUES (3, NULL)", "egg", "only the target has id = 3"),
    "a comment": ("ALTER TABLE egg COMMENT = 'mine'", "", "table egg has "),
    "an index": ("ALTER TABLE parted DROP KEY what", "", "table parted has "),
    "a foreign key": ("ALTER TABLE chicken DROP FOREIGN KEY laid", "", "table chicken has "),
    "a trigger": ("DROP TRIGGER loud", "", "trigger loud is missing"),
    "a view": ("CREATE OR REPLACE VIEW zz_base AS SELECT id, 4 AS size FROM heavy", "", "view zz_base is not that"),
    "a routine": ("DROP FUNCTION twice", "", "function twice is missing"),
    "a sequence": ("DO SETVAL(numbers, 9000)", "", "sequence numbers is at "),
}


@pytest.fixture(scope="module")
def moved_once(servers: tuple[MariaDb, MariaDb]) -> Iterator[Pair]:
    found = Pair(*servers)
    found.make()
    found.fill()
    moved(found.source, found.target, SMALL)
    yield found
    found.drop()


@pytest.mark.parametrize("flip", FLIPS)
def test_one_change_is_found_and_located(moved_once: Pair, flip: str) -> None:
    statement, table, words = FLIPS[flip]
    before = differences(moved_once.source, moved_once.target, SMALL)
    moved_once.on_target("SET sql_mode = 'NO_AUTO_VALUE_ON_ZERO,ALLOW_INVALID_DATES', time_zone = '+00:00'", statement)
    found = differences(moved_once.source, moved_once.target, SMALL)

    assert found.keys() - before.keys() <= {table}
    assert words in found[table], found
    assert found != before


# what is refused


def user(pair: Pair, server: MariaDb, *grants: str) -> dict[str, Any]:
    """Make an account that may do so much, and return how it logs in."""
    server.execute(f"CREATE OR REPLACE USER mover@'127.0.0.1' IDENTIFIED BY '{CANARY}'")
    for grant in grants:
        server.execute(f"GRANT {grant} TO mover@'127.0.0.1'")
    return {"user": "mover", "password": CANARY}


def test_an_account_that_sees_only_a_part_is_refused(pair: Pair) -> None:
    pair.fill("CREATE TABLE a (id INT PRIMARY KEY)", "CREATE TABLE b (id INT PRIMARY KEY)")
    login = user(pair, pair.source_server, f"SELECT ON {pair.name}.a")
    (why,) = (
        each for each in told(pair.side(pair.source_server, "the source", **login), pair.target) if "lacks S" in each
    )
    assert why.startswith("mover@127.0.0.1 lacks SELECT, SHOW VIEW, TRIGGER, EVENT on all of the source")


def test_an_account_that_may_not_write_is_refused(pair: Pair) -> None:
    pair.fill()
    login = user(pair, pair.target_server, f"SELECT, CREATE, INSERT ON {pair.name}.*")
    found = told(pair.source, pair.side(pair.target_server, "the target", **login), only="target")
    missing = "UPDATE, DELETE, DROP, ALTER, INDEX, REFERENCES, CREATE VIEW, SHOW VIEW, CREATE ROUTINE, ALTER ROUTINE"
    assert [f"mover@127.0.0.1 lacks {missing}, EXECUTE, TRIGGER, EVENT on all of the target"] == found


@pytest.mark.parametrize("rights", ["LOCK TABLES, ", ""])
def test_an_account_without_reload_moves_all_the_same(pair: Pair, rights: str) -> None:
    pair.fill()
    pair.fill("DROP PROCEDURE do_it", "DROP FUNCTION `fun``c ü`")
    login = user(
        pair,
        pair.source_server,
        f"{rights}SELECT, SHOW VIEW, TRIGGER, EVENT ON `{pair.name.replace('_', chr(92) + '_')}`.*",
        "SELECT ON mysql.*",
    )
    source = pair.side(pair.source_server, "the source", **login)
    how = "LOCK TABLES for a moment" if rights else "one connection"
    assert [f"mover@127.0.0.1 lacks RELOAD: the snapshot is taken by {how}"] == told(source, pair.target, only="source")

    moved(source, pair.target, SMALL)
    assert equal(pair)
    assert {} == differences(source, pair.target, SMALL)


def test_a_routine_whose_text_may_not_be_read_is_an_error_that_says_so(pair: Pair) -> None:
    pair.fill()
    login = user(
        pair, pair.source_server, f"SELECT, SHOW VIEW, TRIGGER, EVENT ON {pair.name}.*", f"EXECUTE ON {pair.name}.*"
    )
    with pytest.raises(MigrationError, match="may not read the text of .*: grant SELECT on mysql"):
        moved(pair.side(pair.source_server, "the source", **login), pair.target)


def test_a_target_that_is_not_empty_is_left_alone(pair: Pair) -> None:
    pair.fill()
    pair.on_target("CREATE TABLE mine (id INT)", "INSERT INTO mine VALUES (4)")
    with pytest.raises(MigrationError, match="the target is not empty: table mine; move into an empty database"):
        moved(pair.source, pair.target)
    assert [("mine",)] == pair.on_target("SHOW TABLES")
    assert [(4,)] == pair.on_target("SELECT * FROM mine")


@pytest.fixture
def stranger(pair: Pair) -> Iterator[str]:
    """An account that only the source has."""
    pair.source_server.execute("CREATE USER stranger@localhost")
    yield "stranger@localhost"
    pair.source_server.execute("DROP USER stranger@localhost")


def test_accounts_that_the_target_has_not_are_a_refusal_until_they_are_given_up(pair: Pair, stranger: str) -> None:
    pair.fill("CREATE TABLE a (id INT PRIMARY KEY)", f"CREATE DEFINER = {stranger} VIEW v AS SELECT * FROM a")
    pair.fill(f"GRANT SELECT ON {pair.name}.a TO {stranger}")
    found = [each for each in losses(facts(pair.source), facts(pair.target)) if each.refuses]
    assert ["the target has no account stranger@localhost: view v, SELECT on a of stranger@localhost"] == [
        each.detail for each in found
    ]

    degraded = How(degrade=frozenset({"roles"}))
    moved(pair.source, pair.target, degraded)
    assert {} == differences(pair.source, pair.target, degraded)
    definer = "SELECT definer FROM information_schema.views WHERE table_schema = DATABASE()"
    assert [("stranger@localhost",)] == pair.on_source(definer)
    assert [("admin@127.0.0.1",)] == pair.on_target(definer)


def test_what_others_may_do_is_theirs_again_where_they_are(pair: Pair, stranger: str) -> None:
    pair.fill("CREATE TABLE a (id INT PRIMARY KEY, b INT)", "CREATE FUNCTION f() RETURNS INT RETURN 1")
    pair.fill(
        f"GRANT SELECT, INSERT ON {pair.name}.* TO {stranger} WITH GRANT OPTION",
        f"GRANT UPDATE (b), REFERENCES (id) ON a TO {stranger}",
        f"GRANT DELETE ON a TO {stranger}",
        f"GRANT EXECUTE ON FUNCTION f TO {stranger}",
    )
    pair.target_server.execute(f"CREATE USER {stranger}")
    try:
        assert [] == moved(pair.source, pair.target).notes
        shown = [server.execute(f"SHOW GRANTS FOR {stranger}") for server in (pair.source_server, pair.target_server)]
        assert 4 < len(shown[0]) + 1
        assert sorted(shown[0]) == sorted(shown[1])
        assert {} == differences(pair.source, pair.target)
        pair.target_server.execute(f"REVOKE DELETE ON {pair.name}.a FROM {stranger}")
        assert {"": f"DELETE on a of {stranger} is missing"} == differences(pair.source, pair.target)
    finally:
        pair.target_server.execute(f"DROP USER {stranger}")


def test_earlier_rows_of_a_versioned_table_are_given_up_or_it_is_refused(pair: Pair) -> None:
    pair.fill("CREATE TABLE kept (id INT PRIMARY KEY, n INT) WITH SYSTEM VERSIONING", "INSERT INTO kept VALUES (1, 1)")
    pair.fill("UPDATE kept SET n = 2")
    assert ["earlier rows of kept are not moved"] == [
        each.detail for each in losses(facts(pair.source), facts(pair.target)) if each.refuses
    ]
    moved(pair.source, pair.target, How(degrade=frozenset({"history"})))
    assert [(1, 2)] == pair.on_target("SELECT * FROM kept")
    assert {} == differences(pair.source, pair.target)


def test_a_view_that_reads_nothing_stays_and_is_told(pair: Pair) -> None:
    pair.fill("CREATE TABLE a (id INT PRIMARY KEY)", "CREATE VIEW v AS SELECT * FROM a", "DROP TABLE a")
    assert ["v read what does not exist, and are not moved"] == told(pair.source, pair.target, only="views")
    moved(pair.source, pair.target)
    assert {} == differences(pair.source, pair.target)
    assert [] == pair.on_target("SHOW TABLES")


def test_two_moves_into_one_database_do_not_meet(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    pair.fill("CREATE TABLE a (id INT PRIMARY KEY)")
    monkeypatch.setattr("shiftable.migrate._mysql._marks._PATIENCE", 1)
    with DatabaseMove(pair.source, pair.target) as first:
        first.begin()
        with pytest.raises(MigrationError, match="another move writes to it"):
            moved(pair.source, pair.target)


def test_no_password_and_no_value_is_in_an_error(pair: Pair) -> None:
    secret = "tok" + "en-8472"
    with pytest.raises(MigrationError, match="Access denied") as refused:
        pair.side(pair.source_server, "the source", password=CANARY).connect()
    pair.fill("CREATE TABLE a (v VARCHAR(30) NOT NULL, UNIQUE KEY (v))", f"INSERT INTO a VALUES ('{secret}')")
    with DatabaseMove(pair.source, pair.target) as move:
        move.begin()
        pair.on_target("ALTER TABLE a ADD CHECK (v <> 'x'), MODIFY v VARCHAR(3) NOT NULL")
        move.start()
        with pytest.raises(MigrationError, match="the target would change a value of v") as changed:
            move.table("a")

    for caught in (refused, changed):
        assert CANARY not in f"{caught.value!r} {caught.value}"
        assert secret not in f"{caught.value!r} {caught.value} {caught.value.__cause__!r}"
    assert CANARY not in repr(pair.side(pair.source_server, "the source", password=CANARY))


def test_what_the_move_needs_no_program_for_is_in_no_list_of_processes(pair: Pair) -> None:
    """Nothing is started that could be seen with a password among its arguments."""
    pair.fill()
    before = {each.name for each in Path("/proc").iterdir() if each.name.isdigit()}
    with DatabaseMove(pair.source, pair.target, SMALL) as move:
        move.begin()
        move.start()
        children = Path(f"/proc/self/task/{threading.get_native_id()}/children").read_text().split()
        move.finish()
        move.tidy()
    assert {*children} <= before

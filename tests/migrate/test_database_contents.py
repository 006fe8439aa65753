"""What of a database arrives: every type, partitions, cycles, names, large objects, rights; what is found to differ."""

from __future__ import annotations

import logging
import time
from typing import Any

import psycopg
import pytest
from psycopg import sql

from shiftable.errors import MigrationError
from shiftable.migrate._postgresql._move import DatabaseMove, How, moved
from shiftable.migrate._postgresql._side import Side, Snapshot
from shiftable.migrate._postgresql._tables import chunks_of, cut_of, tables_of
from shiftable.migrate._postgresql._verification import differences

from .databases import pair, target_cluster
from .pairs import Pair

__all__ = ["pair", "target_cluster"]

PASSWORD = "canary-" + "c0ffee"
SMALL = How(chunk=64 * 1024)
WIDE = "CREATE TABLE wide (id int PRIMARY KEY, " + ", ".join(f"c{n} int" for n in range(1599)) + ")"


def equal(pair: Pair) -> bool:
    """Whether both sides are the same as they themselves tell, row by row."""
    return pair.contents(pair.source_cluster) == pair.contents(pair.target_cluster)


@pytest.mark.parametrize("chunk", [8 * 1024, 64 * 1024, 128 * 1024 * 1024], ids=["tiny", "small", "usual"])
def test_an_awkward_database_arrives_whole(pair: Pair, chunk: int) -> None:
    pair.fill()
    move = moved(pair.source, pair.target, How(chunk=chunk, jobs=3))

    assert [] == move.notes
    assert pair.contents(pair.source_cluster) == pair.contents(pair.target_cluster)
    assert pair.schema(pair.source_cluster) == pair.schema(pair.target_cluster)
    assert {} == differences(pair.source, pair.target, How(chunk=chunk))


def test_triggers_rules_and_checks_do_nothing_to_rows_that_move(pair: Pair) -> None:
    pair.fill()
    moved(pair.source, pair.target)

    assert [(0,)] == pair.on_target("SELECT count(*) FROM tree WHERE note LIKE '%touched%touched%'")
    assert [(5,)] == pair.on_target("SELECT count(*) FROM shrunk WHERE a <= 5")  # of a constraint that came later


def test_names_that_look_alike_when_they_are_joined_are_two(pair: Pair) -> None:
    pair.fill('CREATE SCHEMA a; CREATE SCHEMA "a.b"; CREATE TABLE a."b.c" (x int); CREATE TABLE "a.b".c (x int)')
    pair.fill('INSERT INTO a."b.c" VALUES (1); INSERT INTO "a.b".c VALUES (2); CREATE SEQUENCE a."b.d"')
    pair.fill('CREATE SEQUENCE "a.b".d START 9')
    moved(pair.source, pair.target)

    assert pair.schema(pair.source_cluster) == pair.schema(pair.target_cluster)
    assert {} == differences(pair.source, pair.target)
    assert [(1, 2)] == pair.on_target('SELECT (SELECT x FROM a."b.c"), (SELECT x FROM "a.b".c)')
    pair.on_target('UPDATE "a.b".c SET x = 3')
    assert ['"a.b".c'] == list(differences(pair.source, pair.target))


def test_a_database_may_be_called_what_a_connection_string_looks_like(pair: Pair) -> None:
    odd = f"host=nowhere dbname={pair.name}'\\"
    with pair.target_cluster.connect(autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(odd)))
    pair.fill("CREATE TABLE t (a int PRIMARY KEY)", "INSERT INTO t VALUES (1)")
    target = pair.side(pair.target_cluster, "the target", dbname=odd)
    try:
        moved(pair.source, target)
        assert {} == differences(pair.source, target)
    finally:
        with pair.target_cluster.connect(autocommit=True) as connection:
            connection.execute(sql.SQL("DROP DATABASE {}").format(sql.Identifier(odd)))


def test_sequences_go_on_where_they_stood(pair: Pair) -> None:
    pair.fill()
    expected = pair.on_source(
        "SELECT last_value, is_called FROM plain UNION ALL SELECT last_value, is_called FROM unused"
    )
    moved(pair.source, pair.target)

    told = "SELECT last_value, is_called FROM plain UNION ALL SELECT last_value, is_called FROM unused"
    assert expected == pair.on_target(told)
    assert [(42,)] == pair.on_target("INSERT INTO every_type DEFAULT VALUES RETURNING id")


def test_materialised_views_are_filled_in_the_order_in_which_they_need_each_other(pair: Pair) -> None:
    pair.fill()
    moved(pair.source, pair.target)

    assert [(200,)] == pair.on_target("SELECT most FROM above")
    assert [(False,)] == pair.on_target("SELECT relispopulated FROM pg_class WHERE relname = 'never'")


def test_nothing_of_the_move_is_left_on_the_target(pair: Pair) -> None:
    pair.fill()
    moved(pair.source, pair.target)

    assert [] == pair.on_target("SELECT nspname FROM pg_namespace WHERE nspname LIKE 'shiftable%'")
    ours = "application_name = 'shiftable migrate' AND datname = current_database()"
    deadline = time.monotonic() + 30
    while pair.on_target(f"SELECT pid FROM pg_stat_activity WHERE {ours}"):  # noqa: S608
        assert time.monotonic() < deadline, "a server ends a session a moment after its client, and not much later"
        time.sleep(0.05)


def test_a_table_of_1600_columns_moves(pair: Pair) -> None:
    names = ", ".join(f"c{n}" for n in range(1599))
    pair.fill(WIDE)
    pair.fill(f"INSERT INTO wide (id, {names}) SELECT n{', n' * 1599} FROM generate_series(1, 20) AS s (n)")  # noqa: S608
    moved(pair.source, pair.target)

    assert equal(pair)
    assert {} == differences(pair.source, pair.target)


def test_indexes_of_many_partitions_are_valid_though_they_are_built_side_by_side(pair: Pair) -> None:
    pair.fill("CREATE TABLE parted (id int PRIMARY KEY, a int) PARTITION BY HASH (id)", "CREATE INDEX ON parted (a)")
    pair.fill(
        *(f"CREATE TABLE parted_{n} PARTITION OF parted FOR VALUES WITH (MODULUS 24, REMAINDER {n})" for n in range(24))
    )
    pair.fill("CREATE TABLE child (id int REFERENCES parted)")
    moved(pair.source, pair.target, How(jobs=4))

    assert [] == pair.on_target("SELECT indexrelid::regclass::text FROM pg_index WHERE NOT indisvalid")
    assert {} == differences(pair.source, pair.target)


def test_rows_that_change_after_the_snapshot_do_not_arrive_in_part(pair: Pair) -> None:
    pair.fill()
    before = pair.contents(pair.source_cluster)
    with DatabaseMove(pair.source, pair.target) as move:
        move.begin()
        pair.fill(
            "UPDATE heavy SET body = '\\x00'; UPDATE ring_b SET a = 1; DELETE FROM measured; SELECT lo_unlink(70001)"
        )
        move.start()
        move.finish()
        move.tidy()

    after = pair.contents(pair.target_cluster)
    assert {name: told for name, told in before.items() if name != "sequences"} == {
        name: told for name, told in after.items() if name != "sequences"
    }


def test_a_copy_runs_under_a_snapshot_that_somebody_else_exported(pair: Pair) -> None:
    pair.fill("CREATE TABLE t (a int)", "INSERT INTO t VALUES (1)")
    with Snapshot.taken(pair.source) as (snapshot, _):
        pair.fill("INSERT INTO t VALUES (2)")
        moved(pair.source, pair.target, snapshot=snapshot.name)

    assert [(1,)] == pair.on_target("SELECT a FROM t")


def test_a_target_that_is_not_empty_is_refused_and_left_alone(pair: Pair) -> None:
    pair.fill()
    pair.on_target("CREATE TABLE mine (a int)", "INSERT INTO mine VALUES (1)")

    with pytest.raises(
        MigrationError, match=r"the target is not empty: table public\.mine; move into an empty database"
    ):
        moved(pair.source, pair.target)

    assert [(1,)] == pair.on_target("SELECT a FROM mine")
    assert [] == pair.on_target("SELECT nspname FROM pg_namespace WHERE nspname LIKE 'shiftable%'")


def test_large_objects_alone_make_a_target_one_that_is_not_empty(pair: Pair) -> None:
    pair.on_target("SELECT lo_from_bytea(5, 'x')")

    with pytest.raises(MigrationError, match="not empty: 1 large objects"):
        moved(pair.source, pair.target)


# verification


ODD = {
    "one bit of a value that is stored beside its row": (
        "UPDATE heavy SET body = set_byte(body, 30000, get_byte(body, 30000) # 1) WHERE id = 77",
        "public.heavy",
    ),
    "a number that is equal for the server": ("UPDATE every_type SET d = 1.0 WHERE id = 2", "public.every_type"),
    "the sign of zero": ("UPDATE every_type SET f = '-0' WHERE id = 1", "public.every_type"),
    "a label of an enum": ("UPDATE every_type SET an = 'sad' WHERE id = 1", "public.every_type"),
    "an interval of the same length": (
        "UPDATE every_type SET r = r + interval '1 day -24 hours' WHERE id = 3",
        "public.every_type",
    ),
    "the order within an object": ('UPDATE every_type SET aj = \'{"a": [1.00, null],   "b": 1}\'', "public.every_type"),
    "a row more among equal ones": ("INSERT INTO without_key VALUES (1, 'same')", "public.without_key"),
    "a row less": ("DELETE FROM measured_old WHERE place = 1", "public.measured_old"),
    "rows without columns": ("INSERT INTO without_columns DEFAULT VALUES", "public.without_columns"),
    "two swapped values": (
        "UPDATE computed SET a = CASE id WHEN 1 THEN 2 ELSE 1 END WHERE id IN (1, 2)",
        "public.computed",
    ),
    "NULL in place of nothing": (
        'UPDATE "Odd ""Schema"""."t.t" SET v = NULL WHERE k = \'x\'',
        '"Odd ""Schema"""."t.t"',
    ),
    "a partition by hash of an enum": ("UPDATE by_mood SET id = 1000 WHERE id = 1", "public.by_mood"),
    "a byte of a large object": ("SELECT lo_put(70003, 2500000, '\\x00')", "large objects"),
    "a large object more": ("SELECT lo_from_bytea(9, '')", "large objects"),
    "a sequence": ("SELECT nextval('plain')", ""),
    "an index less": ("DROP INDEX heavy_doc", ""),
    "a constraint less": ("ALTER TABLE shrunk DROP CONSTRAINT not_yet", ""),
    "a column's default": ("ALTER TABLE computed ALTER halved SET DEFAULT 1", ""),
    "a column that may be NULL": ("ALTER TABLE measured ALTER value SET NOT NULL", ""),
    "a function's body": (
        "CREATE OR REPLACE FUNCTION half(a int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1'",
        "",
    ),
    "a trigger that sleeps": ("ALTER TABLE tree DISABLE TRIGGER touch", ""),
    "row security": ("ALTER TABLE tree DISABLE ROW LEVEL SECURITY", ""),
    "a policy": ("DROP POLICY roots ON tree", ""),
    "a view": ("CREATE OR REPLACE VIEW moods AS SELECT an, 1::bigint AS how_many FROM every_type GROUP BY an", ""),
    "a label more": ("ALTER TYPE mood ADD VALUE 'new'", ""),
    "a comment": ("COMMENT ON TABLE tree IS 'other'", ""),
    "a grant": ("GRANT SELECT ON tree TO PUBLIC", ""),
    "a grant less": ("REVOKE EXECUTE ON FUNCTION half FROM PUBLIC", ""),
}


@pytest.fixture(scope="module")
def moved_pair(postgresql_cluster: Any, target_cluster: Any) -> Any:
    """A pair that was moved once."""
    found = Pair(postgresql_cluster, target_cluster)
    found.make()
    found.fill()
    moved(found.source, found.target)
    yield found
    found.drop()


@pytest.mark.parametrize("what", ODD)
def test_what_differs_is_found_where_it_is_and_nowhere_else(moved_pair: Pair, what: str) -> None:
    statement, place = ODD[what]
    name = f"{moved_pair.name}_odd"
    with moved_pair.target_cluster.connect(autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {moved_pair.name}")
    try:
        with moved_pair.target_cluster.connect(name, autocommit=True) as connection:
            connection.execute("ALTER TABLE tree DISABLE TRIGGER USER; ALTER TABLE tree ENABLE ALWAYS TRIGGER touch")
            connection.execute("SET session_replication_role = replica")
            connection.execute(statement)
        other = moved_pair.side(moved_pair.target_cluster, "the target", dbname=name)
        assert [place] == list(differences(moved_pair.source, other))
    finally:
        with moved_pair.target_cluster.connect(autocommit=True) as connection:
            connection.execute(f"DROP DATABASE {name}")


def test_a_flipped_byte_is_located_to_its_row_and_its_chunk_on_both_sides(pair: Pair) -> None:
    pair.fill()
    pair.fill("INSERT INTO without_key SELECT n, md5(n::text) FROM generate_series(1, 20000) AS s (n)")
    moved(pair.source, pair.target, SMALL)
    (place,) = pair.on_target("SELECT ctid::text FROM without_key WHERE a = 15000")[0]
    (origin,) = pair.on_source("SELECT ctid::text FROM without_key WHERE a = 15000")[0]
    pair.on_target(
        "SET session_replication_role = replica; UPDATE without_key SET b = 'x' || substr(b, 2) WHERE a = 15000"
    )
    (now,) = pair.on_target("SELECT ctid::text FROM without_key WHERE a = 15000")[0]

    with Snapshot.taken(pair.source) as (_, session):
        (table,) = (each for each in tables_of(session, "", "") if each.name == "without_key")
        pieces = chunks_of(table, cut_of(table, session.info.server_version, 8192, SMALL.chunk))
    block = int(origin.strip("()").split(",")[0])
    (chunk,) = (each for each in pieces if each.first <= block < (each.last or 1_000_000))
    (told,) = differences(pair.source, pair.target, SMALL).values()
    assert place != now
    assert len(pieces) > 10
    assert f"only the source has the row at {origin} in {chunk.blocks} of public.without_key" in told
    assert f"only the target has the row at {now} in chunk" in told


def test_a_difference_in_most_rows_is_told_by_numbers(pair: Pair) -> None:
    pair.fill("CREATE TABLE t (a int)", "INSERT INTO t SELECT generate_series(1, 1000)")
    moved(pair.source, pair.target)
    pair.on_target("TRUNCATE t")

    (told,) = differences(pair.source, pair.target).values()
    assert told.startswith("1,000 rows here and 0 there: only the source has the row at (0,")


def test_encodings_may_differ(pair: Pair) -> None:
    with pair.source_cluster.connect(autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {pair.name}_latin ENCODING 'LATIN1' TEMPLATE template0 LOCALE 'C'")
    latin = pair.side(pair.source_cluster, "the source", dbname=f"{pair.name}_latin")
    try:
        with pair.source_cluster.connect(f"{pair.name}_latin", autocommit=True) as connection:
            connection.execute("CREATE TABLE t (a text, b varchar(9), c jsonb, d bytea)")
            connection.execute("INSERT INTO t VALUES ('Bär £', 'ÿ', '{\"ü\": 1}', '\\xff00')")
        moved(latin, pair.target)
        assert [("Bär £", "ÿ", {"ü": 1}, b"\xff\x00")] == pair.on_target("SELECT * FROM t")
        assert {} == differences(latin, pair.target)
        pair.on_target("UPDATE t SET a = 'Bar £'")
        assert ["public.t"] == list(differences(latin, pair.target))
    finally:
        with pair.source_cluster.connect(autocommit=True) as connection:
            connection.execute(f"DROP DATABASE {pair.name}_latin")


# errors


def test_an_error_of_a_row_names_the_table_and_shows_no_value(pair: Pair, caplog: pytest.LogCaptureFixture) -> None:
    canary = "canary-" + "7f3e"
    pair.fill("CREATE TABLE fine (a int)", f"CREATE TABLE held AS SELECT '{canary}' AS a")
    with caplog.at_level(logging.DEBUG), DatabaseMove(pair.source, pair.target) as move:
        move.begin()
        pair.on_target("ALTER TABLE held ADD CHECK (length(a) < 3)")
        move.start()
        with pytest.raises(MigrationError, match=r"public\.held: the target ended COPY: .*violates check") as caught:
            move.table("public.held")
        with pytest.raises(MigrationError, match="1 table did not arrive, so indexes wait; the first is public.held"):
            move.finish()

    assert canary not in f"{caught.value} {caplog.text}"


def test_definitions_are_not_repeated_in_errors(pair: Pair) -> None:
    canary = "canary-" + "91aa"
    pair.fill("CREATE TABLE t (a int)", f"CREATE INDEX t_index ON t ((a || '{canary}'))")
    with DatabaseMove(pair.source, pair.target) as move:
        move.begin()
        move.start()
        pair.on_target("CREATE TABLE t_index (a int)")
        with pytest.raises(
            MigrationError, match=r'CREATE INDEX t_index ON: relation "t_index" already exists'
        ) as caught:
            move.finish()

    assert canary not in str(caught.value)


def test_a_password_is_in_no_text(pair: Pair) -> None:
    secret = "hunter" + "2-canary"
    wrong = pair.side(pair.source_cluster, "the source", password=secret, user="nobody_there")

    with pytest.raises(MigrationError, match="the source: ") as caught:
        moved(wrong, pair.target)

    assert secret not in f"{caught.value!r} {wrong!r} {caught.value.__cause__}"
    assert secret in wrong.environment(15).values()


def test_a_password_that_was_just_rotated_is_asked_for_once_more(pair: Pair, people: Any) -> None:
    now = ["old-" + "canary"]
    refused: list[str] = []
    pair.fill("CREATE TABLE t (a int)", "GRANT pg_read_all_data TO shop_mover")

    def arguments() -> Any:
        return pair.arguments(pair.source_cluster, user="shop_mover", password=now[0])

    def fresh() -> None:
        refused.append(now[0])
        now[0] = PASSWORD

    moved(Side(arguments, "the source", refused=fresh), pair.target)
    assert (["old-canary"], True) == (refused, equal(pair))


def test_two_moves_do_not_write_to_one_target(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    pair.fill("CREATE TABLE t (a int)")
    monkeypatch.setattr("shiftable.migrate._postgresql._marks._PATIENCE", 0.0)
    with DatabaseMove(pair.source, pair.target) as move:
        move.begin()
        with pytest.raises(MigrationError, match="another move writes to it; wait until it has ended"):
            moved(pair.source, pair.target)
        move.start()
        move.finish()
        move.tidy()

    assert equal(pair)


# rights


@pytest.fixture
def people(pair: Pair) -> Any:
    """Roles on both servers: an owner, a reader, a mover without rights beyond his database; and one at the source."""
    roles = ("shop_owner", "shop_reader", "shop_mover")
    for cluster in (pair.source_cluster, pair.target_cluster):
        with cluster.connect(autocommit=True) as connection:
            for role in roles:
                connection.execute(f"CREATE ROLE {role} LOGIN PASSWORD '{PASSWORD}'")
            connection.execute("GRANT shop_owner TO shop_mover")
    yield roles
    for cluster in (pair.source_cluster, pair.target_cluster):
        with cluster.connect(pair.name, autocommit=True) as connection:
            for role in roles:
                connection.execute(f"DROP OWNED BY {role} CASCADE")
        with cluster.connect(autocommit=True) as connection:
            connection.execute(f"ALTER DATABASE {pair.name} OWNER TO postgres")
            connection.execute(f"DROP ROLE {', '.join(roles)}")


GRANTED = """
CREATE SCHEMA shop AUTHORIZATION shop_owner;
CREATE TABLE shop.goods (id serial PRIMARY KEY, price int, secret text);
ALTER TABLE shop.goods OWNER TO shop_owner;
CREATE FUNCTION shop.sum() RETURNS int LANGUAGE sql AS 'SELECT 1';
REVOKE EXECUTE ON FUNCTION shop.sum FROM PUBLIC;
GRANT USAGE ON SCHEMA shop TO shop_reader;
GRANT SELECT (id, price) ON shop.goods TO shop_reader;
GRANT INSERT, UPDATE ON shop.goods TO shop_reader WITH GRANT OPTION;
GRANT EXECUTE ON FUNCTION shop.sum TO shop_reader;
REVOKE DELETE ON shop.goods FROM shop_owner;
ALTER DEFAULT PRIVILEGES FOR ROLE shop_owner IN SCHEMA shop GRANT SELECT ON TABLES TO shop_reader;
CREATE POLICY own ON shop.goods TO shop_reader USING (price > 0);
SELECT lo_from_bytea(4711, 'x');
GRANT SELECT ON LARGE OBJECT 4711 TO shop_reader;
INSERT INTO shop.goods (price) VALUES (1);
"""


def test_owners_grants_policies_and_default_privileges_arrive(pair: Pair, people: Any) -> None:
    pair.fill(GRANTED, f"ALTER DATABASE {pair.name} SET work_mem = '7MB'")
    pair.fill(f'ALTER ROLE shop_reader IN DATABASE {pair.name} SET search_path = shop, "$user"')
    move = moved(pair.source, pair.target)

    assert [] == move.notes
    assert sorted(pair.schema(pair.source_cluster)) == sorted(pair.schema(pair.target_cluster))
    assert {} == differences(pair.source, pair.target)
    told = (
        "SELECT setrole = 0, setconfig FROM pg_db_role_setting JOIN pg_database AS d ON d.oid = setdatabase"
        " WHERE datname = current_database() ORDER BY 1"
    )
    assert [(False, ['search_path=shop, "$user"']), (True, ["work_mem=7MB"])] == pair.on_target(told)


def test_a_mover_who_is_no_superuser_on_the_target_moves_everything(pair: Pair, people: Any) -> None:
    pair.fill(GRANTED)
    with pair.target_cluster.connect(autocommit=True) as connection:
        connection.execute(f"ALTER DATABASE {pair.name} OWNER TO shop_mover")
    target = pair.side(pair.target_cluster, "the target", user="shop_mover", password=PASSWORD)
    move = moved(pair.source, target)

    assert [] == move.notes
    assert equal(pair)
    assert {} == differences(pair.source, target)
    assert [("shop_owner",)] == pair.on_target("SELECT pg_get_userbyid(relowner) FROM pg_class WHERE relname = 'goods'")


def test_the_awkward_database_moves_to_a_mover_who_is_no_superuser(pair: Pair, people: Any) -> None:
    pair.fill()
    with pair.target_cluster.connect(autocommit=True) as connection:
        connection.execute(f"ALTER DATABASE {pair.name} OWNER TO shop_mover")
    target = pair.side(pair.target_cluster, "the target", user="shop_mover", password=PASSWORD)
    move = moved(pair.source, target)

    assert [] == move.notes
    assert equal(pair)
    assert {} == differences(pair.source, target)


def test_reading_everything_is_enough_at_the_source(pair: Pair, people: Any) -> None:
    pair.fill(GRANTED, "GRANT SELECT ON LARGE OBJECT 4711 TO shop_mover", "GRANT pg_read_all_data TO shop_mover")
    pair.fill("ALTER ROLE shop_mover BYPASSRLS")
    source = pair.side(pair.source_cluster, "the source", user="shop_mover", password=PASSWORD)
    moved(source, pair.target)

    assert equal(pair)


def test_connections_are_made_with_psycopg_arguments_alone(pair: Pair) -> None:
    with psycopg.connect(**pair.source.arguments()) as connection:
        assert (pair.name,) == connection.execute("SELECT current_database()").fetchone()

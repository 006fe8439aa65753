# ruff: noqa: S608  names are the test's own
"""Moves under writers: what is written is what arrives, of every type, in every table, however rows change."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from shiftable.errors import MigrationError
from shiftable.migrate._capture import drop_slot, slots
from shiftable.migrate._capture._apply import Applier, Stale, Visible
from shiftable.migrate._capture._pgoutput import Begin, Decoder
from shiftable.migrate._capture._slot import Slot
from shiftable.migrate._capture._source import Source
from shiftable.postgresql import Cluster, temporary_cluster

from .capturing import LEDGER, PARAMETERS, Moving, Writer, moving, two_clusters

CANARY = "no-message-holds-" + "this"


@pytest.fixture(scope="module")
def clusters() -> Iterator[tuple[Cluster, Cluster]]:
    with two_clusters() as found:
        yield found


@pytest.fixture
def move(clusters: tuple[Cluster, Cluster], tmp_path: Path) -> Iterator[Moving]:
    with moving(clusters, tmp_path) as found:
        yield found


@pytest.fixture
def owner(clusters: tuple[Cluster, Cluster], tmp_path: Path) -> Iterator[Moving]:
    """A move by users who are no superusers: of the source one who may replicate, of the target one who owns it."""
    with moving(clusters, tmp_path, user="mover", target_user="mover", password=CANARY) as found:
        for cluster, option in zip(clusters, ("REPLICATION", "NOREPLICATION"), strict=True):
            with cluster.connect(autocommit=True) as connection:
                connection.execute(f"CREATE ROLE mover LOGIN {option} PASSWORD '{CANARY}'".encode())
                connection.execute("GRANT pg_signal_backend, pg_read_all_stats TO mover")
                connection.execute(f"ALTER DATABASE {found.name} OWNER TO mover".encode())
        found.both("ALTER SCHEMA public OWNER TO mover")
        yield found
    for cluster in clusters:
        with cluster.connect(autocommit=True) as connection:
            connection.execute("DROP ROLE mover")


def caught_up(move: Moving, *statements: str, **options: Any) -> None:
    """Copy, run statements on the source, follow, and compare."""
    online = move.online(**options)
    online.start()
    move.run(*statements)
    online.follow()
    move.verify()


# rows

AWKWARD = """
CREATE SCHEMA "Sh""op";
CREATE TYPE "Sh""op".colour AS ENUM ('red', 'grün');
CREATE DOMAIN "Sh""op".price AS numeric(12, 3) CHECK (value >= 0);
CREATE TYPE "Sh""op".place AS (street text, number int);
CREATE TABLE "Sh""op"."Or ders" (
    "the id" bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, a smallint, b int, c numeric, d numeric(10, 2), e real,
    f double precision, g boolean, h char(7), i varchar(20), j text, k bytea, l date, m time, n timetz, o timestamp,
    p timestamptz, q interval, r uuid, s json, t jsonb, u xml, v inet, w cidr, x macaddr, y bit(5), z varbit,
    aa money, bb point, cc box, dd polygon, ee circle, ff int4range, gg tstzrange, hh tsvector, ii tsquery,
    jj "Sh""op".colour, kk "Sh""op".colour[], ll "Sh""op".price, mm "Sh""op".place, nn int[], oo text[][],
    pp oid, qq name, rr "char", ss int4multirange, tt pg_lsn,
    uu int GENERATED ALWAYS AS (b * 2) STORED
);
ALTER TABLE "Sh""op"."Or ders" ALTER j SET STORAGE EXTERNAL;
"""
FILL = """
INSERT INTO "Sh""op"."Or ders" (a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, q, r, s, t, v, w, x, y, z, aa, bb, cc,
    dd, ee, ff, gg, hh, ii, jj, kk, ll, mm, nn, oo, pp, qq, rr, ss, tt)
SELECT n, n * 10, n / 3.0, n / 7.0, n / 3.0::real, CASE n % 5 WHEN 0 THEN 'NaN' WHEN 1 THEN '-Infinity'
    WHEN 2 THEN 5e-324 ELSE n / 3.0 END, n % 2 = 0, 'x' || n, 'é' || n, repeat(md5(n::text), 200),
    decode(repeat('00ff5c27', n), 'hex'), date '2024-02-29' + n, time '23:59:59.999999', timetz '12:00+05:30',
    CASE n % 3 WHEN 0 THEN 'infinity' ELSE timestamp '0044-03-15 12:00 BC' END, '2024-01-01 00:00:00.000001+00',
    '1 year -2 days 03:04:05.6', md5(n::text)::uuid, '{"b": 1,   "a": [1, null]}', '{"b": 1, "a": "\\u0041\\\\"}',
    '10.0.0.1/8', '2001:db8::/32', '08:00:2b:01:02:03', b'10101', b'1', 12.34, point(n, 0.1), '((0,0),(1,1))',
    '((0,0),(1,1),(2,0))', '<(1,2),3>', int4range(n, NULL), tstzrange(NULL, '2024-01-01'), 'a:1 b''s:2', 'a & !b',
    'grün', ARRAY['red', NULL]::"Sh""op".colour[], n, '("a ""quoted"", street",5)', '[0:2]={1,NULL,3}',
    ARRAY[['a', 'NULL'], ['', 'c"d']], n, 'name', 'q', '{[1,2),[5,7)}', '16/B374D848'
FROM generate_series(1, 20) AS n
"""


@pytest.mark.parametrize("binary", [False, True], ids=["text", "binary"])
def test_rows_of_every_type_arrive_as_they_are(move: Moving, *, binary: bool) -> None:
    move.both(AWKWARD)
    move.run(FILL)
    table = '"Sh""op"."Or ders"'
    caught_up(
        move,
        FILL,
        f"INSERT INTO {table} DEFAULT VALUES",
        f"UPDATE {table} SET b = -b, jj = 'red' WHERE b > 50",
        f"UPDATE {table} SET j = j || 'x', uu = DEFAULT WHERE a % 3 = 0",
        f"UPDATE {table} SET (c, f, k, t, ff) = (NULL, NULL, NULL, NULL, 'empty') WHERE a % 4 = 0",
        f"DELETE FROM {table} WHERE a % 5 = 0",
        binary=binary,
    )


def test_a_table_of_1600_columns_is_followed(move: Moving) -> None:
    columns = ", ".join(f"c{at} int" for at in range(1, 1600))
    move.both(f"CREATE TABLE wide (id int PRIMARY KEY, {columns})")
    caught_up(
        move,
        "INSERT INTO wide SELECT n FROM generate_series(1, 100) AS n",
        "UPDATE wide SET c700 = id, c1599 = -id",
        "DELETE FROM wide WHERE id % 2 = 0",
    )


def test_a_value_that_did_not_change_is_kept_though_it_is_not_sent(move: Moving) -> None:
    move.both(
        "CREATE TABLE t (id int PRIMARY KEY, big text, small int)", "ALTER TABLE t ALTER big SET STORAGE EXTERNAL"
    )
    move.run("INSERT INTO t SELECT n, repeat('x', 10000) || n, n FROM generate_series(1, 10) AS n")
    caught_up(
        move,
        "UPDATE t SET small = small + 1",
        "UPDATE t SET id = id + 100 WHERE id > 5",
        "UPDATE t SET big = big || 'more' WHERE id = 1",
    )


def test_keys_may_change_and_be_taken_over_in_one_statement(move: Moving) -> None:
    move.both(
        "CREATE TABLE t (id int, v text, PRIMARY KEY (id))",
        "CREATE TABLE d (id int UNIQUE DEFERRABLE, k int PRIMARY KEY)",
    )
    move.run("INSERT INTO t SELECT n, n FROM generate_series(1, 5) AS n", "INSERT INTO d VALUES (1, 1), (2, 2), (3, 3)")
    caught_up(
        move, "UPDATE t SET id = id + 10", "UPDATE d SET id = id + 1", "UPDATE t SET id = 12 WHERE id = 11 AND false"
    )


def test_partitions_are_followed_also_where_rows_go_from_one_to_another(move: Moving) -> None:
    move.both(
        "CREATE TABLE p (id int, region text, v text, PRIMARY KEY (id, region)) PARTITION BY LIST (region)",
        "CREATE TABLE p_a PARTITION OF p FOR VALUES IN ('a')",
        "CREATE TABLE p_b PARTITION OF p FOR VALUES IN ('b') PARTITION BY RANGE (id)",
        "CREATE TABLE p_b1 PARTITION OF p_b FOR VALUES FROM (0) TO (50)",
        "CREATE TABLE p_b2 PARTITION OF p_b DEFAULT",
    )
    move.run("INSERT INTO p SELECT n, CASE n % 2 WHEN 0 THEN 'a' ELSE 'b' END, n FROM generate_series(1, 100) AS n")
    caught_up(
        move,
        "UPDATE p SET region = 'b' WHERE id < 20",
        "UPDATE p SET v = 'x' WHERE region = 'a'",
        "DELETE FROM p WHERE id % 7 = 0",
        "TRUNCATE p_b2",
        "INSERT INTO p VALUES (1000, 'b', 'last')",
    )


def test_truncates_are_followed_with_the_tables_that_go_with_them(move: Moving) -> None:
    move.both(
        "CREATE TABLE parent (id int PRIMARY KEY)",
        "CREATE TABLE child (id int PRIMARY KEY, parent int REFERENCES parent)",
        "CREATE TABLE other (id int PRIMARY KEY)",
    )
    move.run(
        "INSERT INTO parent SELECT generate_series(1, 10)",
        "INSERT INTO child SELECT n, n FROM generate_series(1, 10) AS n",
        "INSERT INTO other VALUES (1)",
    )
    caught_up(move, "INSERT INTO parent VALUES (11)", "TRUNCATE parent CASCADE", "INSERT INTO parent VALUES (12)")
    assert [(1,)] == move.ask(move.target, "SELECT count(*) FROM parent")


def test_rows_without_a_key_are_found_by_all_of_their_columns(move: Moving) -> None:
    move.both(
        "CREATE TABLE log (at json, n numeric, x float, note text, p point)",
        "CREATE INDEX ON log (note)",
        "CREATE TABLE marks (a int NOT NULL, b text NOT NULL, c int)",
        "CREATE UNIQUE INDEX by_both ON marks (b, a)",
        "CREATE TABLE empty ()",
    )
    move.run(
        "INSERT INTO log SELECT '{\"n\":  1}', n % 3, 'NaN', CASE n % 2 WHEN 0 THEN 'x' END, point(n % 2, 0)"
        " FROM generate_series(1, 40) AS n",
        "INSERT INTO marks SELECT n, n, n FROM generate_series(1, 10) AS n",
    )
    caught_up(
        move,
        "INSERT INTO log VALUES ('1', 1.0, 0, 'same'), ('1', 1.00, 0, 'same'), ('1', 1.00, 0, 'same')",
        "UPDATE log SET note = 'changed' WHERE n::text = '1.00' AND ctid = (SELECT max(ctid) FROM log WHERE n = 1)",
        "DELETE FROM log WHERE ctid = (SELECT min(ctid) FROM log WHERE note = 'same')",
        "DELETE FROM log WHERE ctid IN (SELECT ctid FROM log WHERE note IS NULL LIMIT 7)",
        "UPDATE marks SET c = -c, b = b || 'x' WHERE a < 4",
        "DELETE FROM marks WHERE a > 8",
        "INSERT INTO empty DEFAULT VALUES",
        may_identify=True,
    )
    query = "SELECT relname, relreplident::text FROM pg_class WHERE relname IN ('log', 'marks') ORDER BY 1"
    assert [("log", "f"), ("marks", "i")] == move.ask(move.source, query)
    move.online(may_identify=True).rollback()
    assert [("log", "d"), ("marks", "d")] == move.ask(move.source, query)


def test_a_table_without_a_key_is_refused_unless_it_may_be_changed(move: Moving) -> None:
    move.both("CREATE TABLE log (note text)")
    with pytest.raises(MigrationError, match=r"public\.log has no key.*the source would refuse them"):
        move.online().start()
    assert [] == move.ask(move.source, "SELECT pubname FROM pg_publication")


IDENTITY = """
SELECT relreplident::text,
    ARRAY(SELECT indexrelid::regclass::text FROM pg_index WHERE indrelid = c.oid AND indisreplident)
FROM pg_class c WHERE relname = 't'
"""


@pytest.mark.parametrize(
    ("generated", "key"),
    [
        ("a * 1000 + b", "PRIMARY KEY (g)"),
        ("length(v)", "PRIMARY KEY (a, g)"),
        ("a * 1000 + b", "UNIQUE (g)"),
        ("a * 1000 + b", "UNIQUE (g); ALTER TABLE t REPLICA IDENTITY USING INDEX t_g_key"),
    ],
    ids=["whole", "half", "unique", "chosen"],
)
def test_a_key_with_a_generated_column_names_no_row(move: Moving, generated: str, key: str) -> None:
    """Changes come without generated columns: half of such a key could mean another row."""
    column = f"g int NOT NULL GENERATED ALWAYS AS ({generated}) STORED"
    key, _, chosen = key.partition("; ")
    move.both(f"CREATE TABLE t (a int, b int, v text, w text, {column}, {key})", chosen)
    move.run("INSERT INTO t (a, b, v) VALUES (1, 1, 'a'), (1, 2, 'bb'), (2, 3, 'b')")
    before = move.ask(move.source, IDENTITY)
    told = "a key with a generated column, which is not sent" if "PRIMARY" in key or chosen else "no key"
    with pytest.raises(MigrationError, match=rf"public\.t has {told}.* named by all of its columns"):
        move.online().start()
    caught_up(move, "UPDATE t SET w = 'x' WHERE v = 'a'", "DELETE FROM t WHERE v = 'bb'", may_identify=True)
    move.online(may_identify=True).rollback()
    assert before == move.ask(move.source, IDENTITY)


def test_rows_that_differ_where_a_collation_sees_no_difference_are_told_apart(move: Moving) -> None:
    move.both(
        "CREATE COLLATION careless (provider = icu, locale = 'und-u-ks-level2', deterministic = false)",
        "CREATE TABLE t (name text COLLATE careless, v text)",
    )
    move.run("INSERT INTO t VALUES ('Abc', 'x'), ('aBC', 'x')")
    caught_up(move, """UPDATE t SET v = 'y' WHERE name COLLATE "C" = 'aBC'""", may_identify=True)


@pytest.mark.parametrize("who", ["move", "owner"])
def test_a_number_that_the_source_gave_anew_arrives(who: str, request: pytest.FixtureRequest) -> None:
    """Of a column that is always the server's to fill, the target takes the source's value, until the move ends."""
    found: Moving = request.getfixturevalue(who)
    found.both(
        "CREATE TABLE t (k int PRIMARY KEY, n int GENERATED ALWAYS AS IDENTITY)",
        "CREATE TABLE u (n int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, v text)",
    )
    if who == "owner":
        found.both("ALTER TABLE t OWNER TO mover", "ALTER TABLE u OWNER TO mover")
    found.run("INSERT INTO t (k) VALUES (1), (2)", "INSERT INTO u (v) VALUES ('a'), ('b')")
    online = found.online()
    online.start()
    found.run("UPDATE t SET n = DEFAULT WHERE k = 1", "UPDATE u SET n = DEFAULT", "UPDATE u SET v = 'c' WHERE v = 'a'")
    found.finish(online)
    identities = (
        "SELECT attidentity::text FROM pg_attribute WHERE attname = 'n' AND attrelid IN ('t'::regclass, 'u'::regclass)"
    )
    assert [("a",), ("a",)] == found.ask(found.target, identities)


def test_what_is_rolled_back_never_arrives_and_what_is_nested_does(move: Moving) -> None:
    move.both("CREATE TABLE t (id int PRIMARY KEY)")
    online = move.online()
    online.start()
    move.run(
        "BEGIN; INSERT INTO t VALUES (1); ROLLBACK",
        "BEGIN; INSERT INTO t VALUES (2); SAVEPOINT a; INSERT INTO t VALUES (3); SAVEPOINT b; INSERT INTO t VALUES (5);"
        " ROLLBACK TO a; SAVEPOINT c; INSERT INTO t VALUES (4); RELEASE c; COMMIT",
    )
    online.follow()
    assert [(2,), (4,)] == move.ask(move.target, "SELECT id FROM t ORDER BY 1")


def test_one_transaction_may_be_much_larger_than_a_batch(move: Moving) -> None:
    move.both("CREATE TABLE t (id int PRIMARY KEY, v text)")
    caught_up(
        move,
        "INSERT INTO t SELECT n, repeat('v', 100) FROM generate_series(1, 30000) AS n",
        "UPDATE t SET v = v || id WHERE id % 3 = 0",
        "INSERT INTO t SELECT -n, 'small' FROM generate_series(1, 100) AS n",
        changes=500,
    )


# triggers, rules and foreign keys

ACTING = """
CREATE TABLE parent (id int PRIMARY KEY, v text);
CREATE TABLE child (id int PRIMARY KEY, parent int REFERENCES parent ON DELETE CASCADE, v text);
CREATE TABLE loose (id int PRIMARY KEY, parent int REFERENCES parent ON DELETE SET NULL);
CREATE TABLE tree (id int PRIMARY KEY, above int REFERENCES tree);
CREATE TABLE audit (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, what text);
"""
TRIGGERS = """
CREATE FUNCTION audited() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN INSERT INTO public.audit (what) VALUES (TG_NAME || TG_OP); RETURN coalesce(NEW, OLD); END $$;
CREATE FUNCTION never() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
CREATE TRIGGER usual AFTER INSERT OR UPDATE OR DELETE ON parent FOR EACH ROW EXECUTE FUNCTION audited();
CREATE TRIGGER always AFTER INSERT OR UPDATE ON child FOR EACH ROW EXECUTE FUNCTION audited();
ALTER TABLE child ENABLE ALWAYS TRIGGER always;
CREATE TRIGGER off BEFORE INSERT ON child FOR EACH ROW EXECUTE FUNCTION never();
ALTER TABLE child DISABLE TRIGGER off;
CREATE RULE twice AS ON INSERT TO loose DO ALSO INSERT INTO audit (what) VALUES ('rule');
"""
SWITCHES = """
SELECT tgname::text, tgenabled::text, NULL::bool, NULL::bool FROM pg_trigger WHERE NOT tgisinternal
UNION ALL SELECT rulename, ev_enabled::text, NULL, NULL FROM pg_rewrite WHERE rulename = 'twice'
UNION ALL SELECT conname, contype::text, condeferrable, condeferred FROM pg_constraint WHERE contype = 'f' ORDER BY 1
"""
ACTS = (
    "INSERT INTO parent SELECT n, n FROM generate_series(1, 20) AS n",
    "INSERT INTO child SELECT n, 1 + n % 20, n FROM generate_series(1, 100) AS n",
    "INSERT INTO loose SELECT n, 1 + n % 20 FROM generate_series(1, 100) AS n",
    "INSERT INTO tree VALUES (1, 2), (2, 3), (3, NULL), (4, 1)",
    "UPDATE child SET v = v || 'x' WHERE id % 2 = 0",
    "DELETE FROM parent WHERE id % 4 = 0",
    "DELETE FROM tree",
    """
    BEGIN; DELETE FROM child WHERE parent = 1; DELETE FROM parent WHERE id = 1;
    INSERT INTO parent VALUES (1, 'again'); INSERT INTO child VALUES (1000, 1, 'again'); COMMIT
    """,
)


@pytest.mark.parametrize("who", ["move", "owner"], ids=["superuser", "owner"])
def test_no_trigger_rule_or_key_acts_a_second_time(who: str, request: pytest.FixtureRequest) -> None:
    move: Moving = request.getfixturevalue(who)
    role = "SET ROLE mover" if who == "owner" else "RESET ROLE"
    move.both(role, ACTING)
    move.run(*ACTS[:4])
    online = move.online()
    online.start()
    move.both(role, TRIGGERS)
    before = move.ask(move.target, SWITCHES)
    move.run("TRUNCATE tree", "DELETE FROM child", "DELETE FROM loose", "DELETE FROM parent", *ACTS)
    online.follow()
    move.verify()
    assert before != move.ask(move.target, SWITCHES)
    online.cutover(verify=move.verify, hand_over=lambda: None)
    assert before == move.ask(move.target, SWITCHES)
    move.assert_clean()


def test_a_key_that_an_owner_cannot_keep_off_is_refused(owner: Moving) -> None:
    owner.both(
        "SET ROLE mover",
        "CREATE TABLE parent (id int PRIMARY KEY)",
        "CREATE TABLE child (parent int PRIMARY KEY REFERENCES parent ON UPDATE CASCADE)",
    )
    owner.run("INSERT INTO parent VALUES (1)", "INSERT INTO child VALUES (1)")
    with pytest.raises(
        MigrationError, match=r"public\.child: its foreign key child_parent_fkey.*session_replication_role"
    ):
        caught_up(owner, "UPDATE parent SET id = 2")


def test_switches_are_put_back_also_by_a_rollback(owner: Moving) -> None:
    owner.both("SET ROLE mover", ACTING, TRIGGERS)
    before = owner.ask(owner.target, SWITCHES)
    caught_up(owner, *ACTS)
    owner.online().rollback()
    assert before == owner.ask(owner.target, SWITCHES)
    owner.assert_clean()


# what goes wrong


def test_a_row_that_the_target_lacks_stops_the_move_and_is_named(move: Moving) -> None:
    move.both("CREATE TABLE t (id int, region text, v int, PRIMARY KEY (id, region))")
    move.run("INSERT INTO t SELECT n, 'eu', n FROM generate_series(1, 10) AS n")
    online = move.online()
    online.start()
    with move.on(move.target) as connection:
        connection.execute("DELETE FROM t WHERE id = 7")
    move.run("BEGIN; UPDATE t SET v = 0 WHERE id = 6; UPDATE t SET v = 0 WHERE id = 7; COMMIT")
    with pytest.raises(
        MigrationError, match=r"updating id = '7', region = 'eu' of public\.t: the target has 0 such rows"
    ):
        online.follow()
    assert [(6,)] == move.ask(move.target, "SELECT v FROM t WHERE id = 6")


def test_a_row_that_the_target_has_already_is_named(move: Moving) -> None:
    move.both("CREATE TABLE t (id int PRIMARY KEY)")
    online = move.online()
    online.start()
    with move.on(move.target) as connection:
        connection.execute("INSERT INTO t VALUES (7)")
    move.run("INSERT INTO t VALUES (7)")
    with pytest.raises(MigrationError, match=r"inserting id = '7' of public\.t: the target says: duplicate key"):
        online.follow()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("ALTER TABLE t ADD more int; INSERT INTO t VALUES (2, 'a', 1)", "the source has a column more"),
        ("ALTER TABLE t DROP v; INSERT INTO t VALUES (2)", "the target has a column v"),
        ("ALTER TABLE t ALTER v TYPE varchar(5); INSERT INTO t VALUES (2, 'a')", "its column v is of another type"),
        ("ALTER TABLE t RENAME TO u; INSERT INTO u VALUES (2, 'a')", "the target does not have it"),
    ],
    ids=["added", "dropped", "altered", "renamed"],
)
def test_a_schema_that_changes_in_the_middle_is_noticed_with_the_next_row(move: Moving, change: str, told: str) -> None:
    move.both("CREATE TABLE t (id int PRIMARY KEY, v varchar(9))")
    online = move.online()
    online.start()
    steps = iter(range(3))

    def change_it(_lag: object) -> None:
        if next(steps, 0) == 1:
            move.run(*change.split(";"))

    with pytest.raises(MigrationError, match=told):
        online.follow(tell=change_it, until=lambda _lag: False)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("CREATE TABLE late (id int PRIMARY KEY)", r"public\.late was made after the move began"),
        ("ALTER TABLE t ADD more int", r"public\.t is not the same on both sides"),
    ],
    ids=["table", "column"],
)
def test_a_schema_that_changes_without_a_row_is_noticed_too(move: Moving, change: str, told: str) -> None:
    move.both("CREATE TABLE t (id int PRIMARY KEY)")
    online = move.online()
    online.start()
    online.follow()
    move.run(change)
    with pytest.raises(MigrationError, match=told):
        online.cutover(verify=move.verify, hand_over=lambda: None)


def test_the_same_change_on_both_sides_lets_the_move_go_on(move: Moving) -> None:
    move.both("CREATE TABLE t (id int PRIMARY KEY, v int)")
    online = move.online()
    online.start()
    move.run("INSERT INTO t VALUES (1, 1)")
    online.follow()
    move.both("ALTER TABLE t ADD more text DEFAULT 'x'")
    move.run("INSERT INTO t VALUES (2, 2, 'y')", "UPDATE t SET more = 'z' WHERE id = 1")
    online.follow()
    move.verify()


def test_the_place_is_a_fence_so_that_nothing_is_applied_twice(move: Moving) -> None:
    move.both("CREATE TABLE t (id int PRIMARY KEY)")
    online = move.online()
    online.start()
    state = online.status()
    move.run("INSERT INTO t VALUES (1)")
    slot = Slot(state.slot, state.slot)
    with move.on(move.source) as connection:
        end = Source(move.server(move.source), state.slot).seal(connection)
        messages = list(slot.peek(connection, upto=end, changes=100))
    applier = Applier(move.server(move.target), state.slot)
    at = applier.open()
    assert at == state.start
    assert 1 == applier.apply(messages, since=at).changes
    late = Applier(move.server(move.target), state.slot)
    assert late.open() > at
    with pytest.raises(Stale):
        late.apply(messages, since=at)
    for each in (applier, late):
        each.close()
    online.follow()
    move.verify()


def test_no_password_shows_anywhere(owner: Moving) -> None:
    owner.both("SET ROLE mover", "CREATE TABLE t (id int PRIMARY KEY)")
    online = owner.online()
    caught_up(owner, "INSERT INTO t VALUES (1)")
    shown = [repr(online), repr(owner.server(owner.source)), repr(online.status()), online.path.read_text()]
    owner.password = "wrong" + CANARY
    with pytest.raises(MigrationError, match="password authentication failed.*run the same again") as caught:
        online.follow()
    error: BaseException | None = caught.value
    while error is not None:
        shown += [str(error), repr(vars(error)), str(getattr(error, "pgconn", None))]
        error = error.__cause__ or error.__context__
    assert isinstance(caught.value.__cause__, psycopg.OperationalError)
    assert caught.value.__cause__.pgconn is None
    assert not [each for each in shown if CANARY in each]


def test_a_session_that_cannot_be_ended_lets_the_source_be_written_again(owner: Moving) -> None:
    owner.both("SET ROLE mover", "CREATE TABLE t (id int PRIMARY KEY)")
    online = owner.online(stop_patience=0.3)
    online.start()
    with owner.on(owner.source) as connection:
        pid = connection.info.backend_pid
        with pytest.raises(MigrationError, match=f"sessions on source do not end .process {pid} of postgres"):
            online.cutover(verify=owner.verify, hand_over=lambda: pytest.fail("it was handed over"))
        assert "following" == online.status().phase
    owner.run("INSERT INTO t VALUES (1)")
    owner.finish(online)


# without a replication connection


@pytest.fixture(scope="module")
def without_walsenders(clusters: tuple[Cluster, Cluster]) -> Iterator[tuple[Cluster, Cluster]]:
    with temporary_cluster(parameters=PARAMETERS | {"max_wal_senders": "0"}, tcp=True) as source:
        yield source, clusters[1]


def test_a_slot_made_by_a_function_loses_and_doubles_nothing(
    without_walsenders: tuple[Cluster, Cluster], tmp_path: Path
) -> None:
    for _ in range(3):
        with moving(without_walsenders, tmp_path) as move:
            move.both(LEDGER)
            with (
                Writer(lambda move=move: move.on(move.source), 1) as first,  # type: ignore[misc]  mypy and defaults
                Writer(lambda move=move: move.on(move.source), 2) as second,  # type: ignore[misc]
            ):
                first.wait_for(20)
                online = move.online()
                online.start()
                assert online.status().visible
                first.wait_for(50)
                second.wait_for(50)
                move.finish(online)


@pytest.mark.parametrize(
    ("xid", "lsn", "seen"),
    [
        (99, 10, True),
        (100, 10, False),
        (103, 10, True),
        (105, 10, False),
        (107, 10, True),
        (108, 10, False),
        (99, 1000, False),
        (2**32 - 5, 10, True),
    ],
)
def test_a_snapshot_tells_which_changes_it_saw(xid: int, lsn: int, *, seen: bool) -> None:
    visible = Visible.read(f"{2**32 + 100}:{2**32 + 108}:{2**32 + 100},{2**32 + 105}", 1000)
    begin = Decoder().decode(b"B" + lsn.to_bytes(8, "big") + bytes(8) + xid.to_bytes(4, "big"))
    assert isinstance(begin, Begin)
    assert seen == visible.has(begin)


# slots


def test_a_slot_that_nobody_knows_of_is_found_and_dropped(move: Moving) -> None:
    move.both("CREATE TABLE t (id int PRIMARY KEY)")
    online = move.online()
    online.start()
    online.path.unlink()
    with move.server(move.source).session() as connection:
        (found,) = [each for each in slots(connection) if each.database == move.name]
        assert (online.status().slot, "pgoutput", False) == (found.name, found.plugin, found.lost)
        assert drop_slot(connection, found.name)
        assert not drop_slot(connection, found.name)


def test_the_next_run_takes_the_place_of_a_slot_that_was_left(move: Moving) -> None:
    move.both("CREATE TABLE t (id int PRIMARY KEY)")
    online = move.online()
    online.start()
    online.path.unlink()
    move.run("INSERT INTO t VALUES (1)")
    move.finish()
    assert 2 == len(move.copies)


def test_a_slot_that_is_gone_is_said_to_be(move: Moving) -> None:
    move.both("CREATE TABLE t (id int PRIMARY KEY)")
    online = move.online()
    online.start()
    move.run("INSERT INTO t VALUES (1)")
    with move.on(move.source) as connection:
        drop_slot(connection, online.status().slot)
    with pytest.raises(MigrationError, match="does not exist|is gone"):
        online.follow()
    online.rollback()
    move.assert_clean()


def test_more_log_than_allowed_ends_the_move_and_the_slot(move: Moving) -> None:
    move.both("CREATE TABLE t (id int PRIMARY KEY, v text)")
    online = move.online(max_retained=1, changes=1)
    online.start()
    move.run(*(f"INSERT INTO t VALUES ({n}, repeat('x', 1000))" for n in range(20)))
    with pytest.raises(MigrationError, match="more than 1: the slot was dropped"):
        online.follow()
    with move.on(move.source) as connection:
        assert () == slots(connection)
    online.rollback()


@pytest.mark.parametrize("which", ["clusters", "without_walsenders"], ids=["by replication", "by function"])
def test_a_copy_may_take_longer_than_the_source_lets_sessions_idle(
    which: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    with moving(request.getfixturevalue(which), tmp_path) as move:
        move.both("CREATE TABLE t (id int PRIMARY KEY)")
        move.run(
            "INSERT INTO t VALUES (1)",
            f"ALTER DATABASE {move.name} SET idle_in_transaction_session_timeout = 500",
            f"ALTER DATABASE {move.name} SET idle_session_timeout = 500",
            f"ALTER DATABASE {move.name} SET statement_timeout = 500",
        )
        online = move.online()
        real = move.copy

        def slowly(snapshot: str) -> None:
            move.ask(move.target, "SELECT pg_sleep(1.2)")
            real(snapshot)

        online._copy = slowly
        online.start()
        online.follow()
        move.verify()


# what the source must allow


def test_each_thing_that_is_missing_is_a_sentence(tmp_path: Path, clusters: tuple[Cluster, Cluster]) -> None:
    parameters = {"wal_level": "replica", "max_replication_slots": "0", "max_wal_senders": "0"}
    with (
        temporary_cluster(parameters=parameters, tcp=True) as source,
        moving((source, clusters[1]), tmp_path, user="nobody", password=CANARY) as move,
    ):
        with source.connect(autocommit=True) as connection:
            connection.execute(f"CREATE ROLE nobody LOGIN PASSWORD '{CANARY}'".encode())
        move.both(
            "CREATE TABLE owned (id int PRIMARY KEY)",
            "CREATE UNLOGGED TABLE fast (id int)",
            "CREATE TABLE keyless (id int)",
            "SELECT lo_create(0)",
        )
        move.run(f"ALTER DATABASE {move.name} SET \"rds.extensions\" = ''")
        found = {each.message: each.blocks for each in move.online().check()}
        expected = {
            "source has wal_level replica: set rds.logical_replication = 1 in the parameter group, and restart it": (
                True
            ),
            "source has all its 0 replication slots in use: raise max_replication_slots": True,
            'nobody may not use replication slots on source: GRANT rds_replication TO "nobody"': True,
            f'nobody may not make a publication: GRANT CREATE ON DATABASE "{move.name}" TO "nobody"': True,
            "nobody does not own public.owned, so cannot publish it: grant its owner to nobody": True,
            "public.fast is unlogged: what is written to it after the copy stays behind": False,
            "there are large objects: what is written to them after the copy stays behind": False,
            "the user does not own the database on source, so cannot make it read-only: grant its owner's role": True,
            "only the user's own sessions on source can be ended: grant pg_signal_backend": False,
        }
        assert expected == {message: blocks for message, blocks in found.items() if message in expected}
        assert "public.keyless has no key" in "\n".join(found)
        with pytest.raises(MigrationError, match="cannot be moved online"):
            move.online().start()
        with source.connect(autocommit=True) as connection:
            connection.execute(f"REVOKE ALL ON DATABASE {move.name} FROM nobody".encode())
            connection.execute("DROP ROLE nobody")


# anything

ANYTHING = """
CREATE TABLE keyed (id int PRIMARY KEY, a text, b bytea, c numeric, big text);
ALTER TABLE keyed ALTER big SET STORAGE EXTERNAL;
CREATE TABLE keyless (id int, a text, b float8, c json);
CREATE TABLE part (id int, region int, a text, PRIMARY KEY (id, region)) PARTITION BY RANGE (region);
CREATE TABLE part_low PARTITION OF part FOR VALUES FROM (MINVALUE) TO (5);
CREATE TABLE part_high PARTITION OF part DEFAULT;
"""
KEYED = [
    "INSERT INTO keyed VALUES ({n}, '{n} é', '\\x00ff{b:02x}', {n}.{b}0, repeat('{b}', 9000)) ON CONFLICT DO NOTHING",
    "UPDATE keyed SET a = a || '{b}' WHERE id % 7 = {b} % 7",
    "UPDATE keyed SET big = repeat('x{b}', 3000), c = -c WHERE id = {n}",
    (
        "UPDATE keyed SET id = id + 1000 * {b} WHERE id = {n} AND NOT EXISTS"
        " (SELECT FROM keyed k WHERE k.id = {n} + 1000 * {b})"
    ),
    "DELETE FROM keyed WHERE id % 11 = {b}",
]
KEYLESS = [
    "INSERT INTO keyless SELECT {b}, NULL, '{f}', '{{\"b\":  {b}}}' FROM generate_series(1, 3)",
    "UPDATE keyless SET b = b * {b}, a = '{n}' WHERE ctid = (SELECT min(ctid) FROM keyless WHERE id = {b})",
    "UPDATE keyless SET c = NULL WHERE id = {b}",
    "DELETE FROM keyless WHERE ctid IN (SELECT ctid FROM keyless WHERE id = {b} LIMIT 2)",
]
PARTS = [
    "INSERT INTO part VALUES ({n}, {b}, 'new') ON CONFLICT DO NOTHING",
    (
        "UPDATE part SET region = (region + {b}) % 13 WHERE id = {n} AND NOT EXISTS"
        " (SELECT FROM part p WHERE p.id = {n} AND p.region = (part.region + {b}) % 13)"
    ),
    "UPDATE part SET a = a || '{b}' WHERE region = {b}",
    "DELETE FROM part WHERE id % 13 = {b}",
    "TRUNCATE part_high",
]


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_whatever_is_done_in_whatever_order_arrives(move: Moving, seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311  a test's
    move.both(ANYTHING)
    online = move.online(may_identify=True, changes=50)
    online.start()
    for _ in range(4):
        for _ in range(40):
            statements = []
            for _ in range(chance.randint(1, 8)):
                facts = {"n": chance.randint(1, 40), "b": chance.randint(0, 12)}
                facts["f"] = chance.choice(["NaN", "-0", "1e300", "0.1"])
                statements.append(chance.choice(chance.choice([KEYED, KEYED, KEYLESS, PARTS])).format(**facts))
            end = chance.choice(["COMMIT", "COMMIT", "COMMIT", "ROLLBACK"])
            move.run(f"BEGIN; {'; '.join(statements)}; {end}")
        online.follow()
        move.verify()
    move.finish(online)

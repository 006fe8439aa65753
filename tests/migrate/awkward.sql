-- What makes moves of databases fail. It needs no extension, and PostgreSQL 14 or newer.
CREATE SCHEMA "Odd ""Schema""";
CREATE SCHEMA empty_one;
CREATE TYPE mood AS ENUM ('sad', 'it''s ok', 'Happy "quoted"');
CREATE DOMAIN positive AS int CHECK (VALUE > 0);
CREATE DOMAIN email AS text COLLATE "C" NOT NULL CHECK (VALUE LIKE '%@%');
CREATE TYPE point3 AS (x float8, y float8, tag mood);
CREATE TYPE span AS RANGE (subtype = numeric);

CREATE FUNCTION half(a int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1 / 2';
CREATE FUNCTION stamp() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.note := coalesce(NEW.note, '') || ' touched';  -- runs twice, if a move lets it
    RETURN NEW;
END $$;
CREATE PROCEDURE nothing() LANGUAGE sql AS 'SELECT 1';
CREATE AGGREGATE product (numeric) (sfunc = numeric_mul, stype = numeric, initcond = '1');

CREATE TABLE every_type (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    a smallint, b int, c bigint, d numeric, e numeric(30, 10), f real, g double precision, h money,
    i char(5), j varchar(20), k text, l bytea, m date, n time, o timetz, p timestamp, q timestamptz, r interval,
    s boolean, t point, u line, v lseg, w box, x path, y polygon, z circle, aa inet, ab cidr, ac macaddr, ad macaddr8,
    ae bit(7), af varbit, ag tsvector, ah tsquery, ai uuid, aj json, ak jsonb, al int[], am text[][], an mood,
    ao mood[], ap positive, aq point3, ar point3[], "as" int4range, at tstzrange, au span, av nummultirange, aw oid,
    ax regclass, ay "char", az name, ba pg_lsn, bb xml, bc aclitem, bd regprocedure, be int4multirange[], bf email[]
);
INSERT INTO every_type (a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, q, r, s, t, u, v, w, x, y, z, aa, ab, ac, ad,
    ae, af, ag, ah, ai, aj, ak, al, am, an, ao, ap, aq, ar, "as", at, au, av, aw, ax, ay, az, ba, bb, bc, bd, be, bf)
SELECT n, -n, n * 1e12::bigint, CASE n WHEN 1 THEN 'NaN' WHEN 2 THEN '1.00' ELSE n / 3.0 END, n / 7.0,
    CASE n WHEN 1 THEN '-0' WHEN 2 THEN 'Infinity' ELSE n / 9.0 END, CASE n WHEN 3 THEN 'NaN' ELSE 1 / n::float8 END,
    n::money, 'ab', 'vär' || n, E'line\nbreak\ttab \\. \\N "quote" — ☃' || n, decode('00ff27225c' || to_hex(n + 16), 'hex'),
    CASE n WHEN 4 THEN 'infinity' ELSE date '1999-12-31' + n END, '23:59:59.999999', '01:02:03+05:30',
    timestamp '4713-01-01 BC' + n * interval '1 day', timestamptz '2026-03-29 02:30:00+01' + n * interval '1 hour',
    n * interval '1 month -2 days 3.5 seconds', n % 2 = 0, point(n, -n), '{1,2,3}', '[(0,0),(1,1)]', '(2,2),(0,0)',
    '[(0,0),(1,1),(2,0)]', '((0,0),(1,1),(2,0))', '<(1,1),3>', '192.0.2.1/24', '2001:db8::/32', '08:00:2b:01:02:03',
    '08:00:2b:01:02:03:04:05', B'1010101', B'101', 'a:1 fat:2,4 cat:3', 'fat & (rat | cat)',
    md5(n::text)::uuid, '{"b": 1,   "a": [1.00, null]}', '{"b": 1.00, "a": [null, "\u2603"]}',
    CASE n WHEN 5 THEN '{}' ELSE ARRAY[n, NULL, -n] END, '[2:3][0:1]={{a,"b,c"},{NULL,"\"d\""}}',
    (ARRAY['sad', 'it''s ok', 'Happy "quoted"'])[n % 3 + 1]::mood, ARRAY['sad', NULL]::mood[], n,
    (1.5, -0.0, 'sad')::point3, ARRAY[(n, 2, 'it''s ok')::point3, NULL], int4range(n, n + 5), 'empty',
    span(1.10, 2), '{[1,2),(5,)}', n, 'every_type'::regclass, 'q', 'name' || n, '16/B374D848', NULL,
    'postgres=r/postgres'::aclitem, 'half(int)'::regprocedure, ARRAY['{[1,3)}'::int4multirange], ARRAY['a@b']::email[]
FROM generate_series(1, 40) AS s (n);
INSERT INTO every_type DEFAULT VALUES;

CREATE TABLE "Weird ""Name"" ; --" ("Id""x" serial PRIMARY KEY, "select" text, "a b" int, "ünï" text DEFAULT 'x''y');
INSERT INTO "Weird ""Name"" ; --" ("select", "a b") SELECT 'v' || n, n FROM generate_series(1, 100) AS s (n);
CREATE TABLE "Odd ""Schema"""."t.t" (k text PRIMARY KEY, v text);
INSERT INTO "Odd ""Schema"""."t.t" VALUES ('', NULL), ('x', '');

CREATE TABLE computed (
    id int PRIMARY KEY, a int, twice int GENERATED ALWAYS AS (a * 2) STORED, name text,
    low text GENERATED ALWAYS AS (lower(name)) STORED, halved int DEFAULT half(10)
);
INSERT INTO computed (id, a, name) SELECT n, n, 'N' || n FROM generate_series(1, 1000) AS s (n);
CREATE INDEX computed_half ON computed (half(a)) WHERE a > 10;
CREATE STATISTICS computed_stats (dependencies) ON a, name FROM computed;

CREATE TABLE ring_a (id int PRIMARY KEY, b int);
CREATE TABLE ring_b (id int PRIMARY KEY, a int REFERENCES ring_a DEFERRABLE INITIALLY DEFERRED);
ALTER TABLE ring_a ADD FOREIGN KEY (b) REFERENCES ring_b DEFERRABLE INITIALLY DEFERRED;
CREATE TABLE tree (id int PRIMARY KEY, parent int REFERENCES tree, note text);
BEGIN;
INSERT INTO ring_a SELECT n, n FROM generate_series(1, 50) AS s (n);
INSERT INTO ring_b SELECT n, n FROM generate_series(1, 50) AS s (n);
COMMIT;
INSERT INTO tree SELECT n, nullif(n / 2, 0) FROM generate_series(1, 200) AS s (n);
CREATE TRIGGER touch BEFORE INSERT OR UPDATE ON tree FOR EACH ROW EXECUTE FUNCTION stamp();
ALTER TABLE tree ENABLE ALWAYS TRIGGER touch;

CREATE TABLE measured (at date NOT NULL, place int NOT NULL, value text, PRIMARY KEY (at, place))
    PARTITION BY RANGE (at);
CREATE TABLE measured_25 PARTITION OF measured FOR VALUES FROM ('2025-01-01') TO ('2026-01-01')
    PARTITION BY LIST (place);
CREATE TABLE measured_25_1 PARTITION OF measured_25 FOR VALUES IN (1);
CREATE TABLE measured_25_rest PARTITION OF measured_25 DEFAULT;
CREATE TABLE measured_old PARTITION OF measured DEFAULT;
INSERT INTO measured SELECT date '2024-12-01' + n, n % 3, 'v' || n FROM generate_series(1, 300) AS s (n);
CREATE INDEX measured_value ON measured (value);
CREATE TABLE by_mood (id int, m mood, PRIMARY KEY (id, m)) PARTITION BY HASH (m);
CREATE TABLE by_mood_0 PARTITION OF by_mood FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE by_mood_1 PARTITION OF by_mood FOR VALUES WITH (MODULUS 2, REMAINDER 1);
INSERT INTO by_mood SELECT n, (ARRAY['sad', 'it''s ok', 'Happy "quoted"'])[n % 3 + 1]::mood
FROM generate_series(1, 90) AS s (n);

CREATE TABLE parent (id int, what text);
CREATE TABLE child (more int) INHERITS (parent);
INSERT INTO parent VALUES (1, 'p');
INSERT INTO child VALUES (2, 'c', 3);
CREATE TABLE without_key (a int, b text);
INSERT INTO without_key SELECT n % 5, repeat('x', n) FROM generate_series(1, 500) AS s (n);
INSERT INTO without_key SELECT 1, 'same' FROM generate_series(1, 7);
CREATE TABLE without_columns ();
INSERT INTO without_columns SELECT FROM generate_series(1, 3);
CREATE TABLE without_rows (id uuid PRIMARY KEY, EXCLUDE USING btree (id WITH =));
CREATE UNLOGGED TABLE unlogged (id int);
INSERT INTO unlogged VALUES (1);
CREATE TABLE shrunk (a int, gone text, b int);
INSERT INTO shrunk SELECT n, 'g', n FROM generate_series(1, 10) AS s (n);
ALTER TABLE shrunk DROP COLUMN gone;
ALTER TABLE shrunk ADD COLUMN late int DEFAULT 7;
ALTER TABLE shrunk ADD CONSTRAINT not_yet CHECK (a > 5) NOT VALID;

CREATE TABLE heavy (id int PRIMARY KEY, body bytea, doc jsonb);
ALTER TABLE heavy ALTER body SET STORAGE EXTERNAL;
INSERT INTO heavy SELECT n, decode(repeat(md5(n::text), 2000), 'hex'),
    jsonb_build_object('n', n, 'text', repeat(md5(n::text), 100)) FROM generate_series(1, 120) AS s (n);
CREATE INDEX heavy_doc ON heavy USING gin (doc jsonb_path_ops);

CREATE VIEW moods AS SELECT an, count(*) AS how_many FROM every_type GROUP BY an;
CREATE MATERIALIZED VIEW by_place AS SELECT place, count(*) AS how_many FROM measured GROUP BY place;
CREATE UNIQUE INDEX by_place_key ON by_place (place);
CREATE VIEW over_it AS SELECT max(how_many) AS most FROM by_place;
CREATE MATERIALIZED VIEW above AS SELECT most * 2 AS most FROM over_it;
CREATE MATERIALIZED VIEW never AS SELECT 1 AS one WITH NO DATA;
CREATE VIEW grouped AS SELECT id, name FROM computed GROUP BY id;
CREATE RULE nothing_there AS ON DELETE TO without_key DO INSTEAD NOTHING;

CREATE SEQUENCE plain INCREMENT 5 MINVALUE -100 START -50 CACHE 3;
SELECT nextval('plain');
CREATE SEQUENCE unused START 77;
CREATE SEQUENCE turning CYCLE MAXVALUE 3;
SELECT nextval('turning') FROM generate_series(1, 5);

ALTER TABLE tree ENABLE ROW LEVEL SECURITY;
CREATE POLICY roots ON tree FOR SELECT USING (parent IS NULL);
COMMENT ON TABLE tree IS 'It''s a tree; of "nodes".';
COMMENT ON COLUMN tree.note IS 'multi
line';
COMMENT ON INDEX measured_value IS 'an index';

SELECT lo_from_bytea(70001, decode(repeat('00ff', 8000), 'hex'));
SELECT lo_from_bytea(70002, '');
SELECT lo_from_bytea(70003, decode(repeat('ab', 3000000), 'hex'));

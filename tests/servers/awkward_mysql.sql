-- A database that has something of everything; the stock client carries it out.
SET NAMES utf8mb4;
SET time_zone = '+00:00';
SET sql_mode = 'NO_AUTO_VALUE_ON_ZERO';
SET foreign_key_checks = 0;

CREATE SEQUENCE numbers START WITH 100 INCREMENT BY 7 CACHE 10;
SELECT NEXTVAL(numbers), NEXTVAL(numbers);
CREATE SEQUENCE downwards START WITH -5 INCREMENT BY -3 MINVALUE -1000 MAXVALUE 0 CYCLE NOCACHE;
SELECT NEXTVAL(downwards);

CREATE TABLE `every type` (
    id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
    t TINYINT, s SMALLINT UNSIGNED, m MEDIUMINT, i INT(10) ZEROFILL, b BIGINT, bu BIGINT UNSIGNED, bo BOOLEAN,
    n DECIMAL(65, 30), f FLOAT, fd FLOAT(7, 2), d DOUBLE, dd DOUBLE(12, 3), bits BIT(64), one BIT(1), y YEAR,
    da DATE, ti TIME(6), dt DATETIME(6), ts TIMESTAMP(3) NULL, ts0 TIMESTAMP NOT NULL DEFAULT '0000-00-00 00:00:00',
    c CHAR(10), v VARCHAR(200), tt TINYTEXT, tx TEXT, mt MEDIUMTEXT, lt LONGTEXT,
    bi BINARY(6), vb VARBINARY(100), tb TINYBLOB, bl BLOB, mb MEDIUMBLOB, lb LONGBLOB,
    e ENUM('a', 'it''s', 'ü', ''), es SET('x', 'y;''z', 'ß') , e2 ENUM('only') NOT NULL DEFAULT 'only',
    j JSON, u UUID, i6 INET6, i4 INET4, g GEOMETRY, p POINT, po POLYGON
) COMMENT = 'it''s\na "comment" with `ticks`, 日本 and \\ backslashes';
INSERT INTO `every type` (id, t, s, m, i, b, bu, bo, n, f, fd, d, dd, bits, one, y, da, ti, dt, ts, c, v, tt, tx, mt, lt,
    bi, vb, tb, bl, mb, lb, e, es, e2, j, u, i6, i4, g, p, po) VALUES
    (0, -128, 65535, -8388608, 7, -9223372036854775808, 18446744073709551615, TRUE,
    -12345678901234567890123456789012345.123456789012345678901234567890, 3.402823466e38, 12345.67, 0.1 + 0.2e0,
    -0.001, b'1111111111111111111111111111111111111111111111111111111111111111', b'1', 1901, '0000-00-00',
    '-838:59:59.000001', '0000-00-00 00:00:00', '2038-01-19 03:14:07.999', 'pad  ', 'a''b"c`d\\e\nf\rg\th\0i\Zj%_',
    '', ' ', '😀 𝒳 é', REPEAT('ü', 70000), X'00FF27005C1A', X'00275C22600A0D1A', '', X'00', REPEAT(X'C3', 70000), '',
    'it''s', 'x,ß', 'only', '{"b": 1, "a": "\\"\\u00e9\\\\", "n": null}', '123e4567-e89b-12d3-a456-426614174000', '2001:db8::1',
    '192.0.2.1', ST_GeomFromText('LINESTRING(0 0, 1.5 -2.25)', 4326), POINT(1e-300, -1e300),
    ST_GeomFromText('POLYGON((0 0, 10 0, 10 10, 0 10, 0 0), (1 1, 2 1, 2 2, 1 2, 1 1))')),
    (1, 0, 0, 0, 0, 0, 0, FALSE, 0.000000000000000000000000000001, 1.17549435e-38, -0.01, 2.2250738585072014e-308, 0, 0,
    0, 0, '2024-02-00', '838:59:59', '9999-12-31 23:59:59.999999', '1970-01-01 00:00:00.001', '', '', 'x', 'y', 'z', 'NULL', '', '', 'a', 'b', 'c',
    'd', '', '', 'only', '[]', NULL, '::', '0.0.0.0', NULL, NULL, NULL),
    (5, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
    NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 'only', NULL, NULL, NULL, NULL,
    NULL, NULL, NULL);
INSERT IGNORE INTO `every type` (id, e, e2, es, f, d) VALUES (7, 'nothing of that', 'neither', '', -16777217, -1.7976931348623157e308);
INSERT INTO `every type` (id, f, d, n) SELECT 100 + seq, seq / 7, 1 / seq, seq / 3 FROM seq_1_to_500;
INSERT INTO `every type` (id) VALUES (18446744073709551);
SET sql_mode = 'NO_AUTO_VALUE_ON_ZERO,ALLOW_INVALID_DATES';
INSERT INTO `every type` (id, da, dt) VALUES (8, '2023-02-31', '2023-02-31 01:02:03');
SET sql_mode = 'NO_AUTO_VALUE_ON_ZERO';

CREATE TABLE `charsets` (
    id INT PRIMARY KEY, l VARCHAR(50) CHARACTER SET latin1 DEFAULT 'é', s VARCHAR(50) CHARACTER SET sjis,
    g VARCHAR(50) CHARACTER SET gbk, w VARCHAR(50) CHARACTER SET utf16, k TEXT CHARACTER SET koi8r,
    u VARCHAR(50) CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci DEFAULT 'ß', a VARCHAR(20) CHARACTER SET ascii,
    q CHAR(5) CHARACTER SET ucs2 COLLATE ucs2_bin, e ENUM('grün', 'blau') CHARACTER SET latin1
) DEFAULT CHARACTER SET cp1251;
INSERT INTO charsets VALUES (1, 'é''\\ÿ', '表ソ\\''', '縗''\\乗', 'a😀\\''é', 'Привет''', '😀''', 'x''\\', 'ü''', 'grün'),
    (2, DEFAULT, X'95', NULL, '', '', DEFAULT, '', '', NULL);

CREATE TABLE `na``me "with' ünï 漢` (
    `id``"'%s{}` INT NOT NULL, `select` INT, `a
b` INT DEFAULT 3 COMMENT 'a, (b', `FOREIGN KEY (` VARCHAR(20) DEFAULT 'KEY `x` (`y`)',
    PRIMARY KEY (`id``"'%s{}`), UNIQUE KEY `uni``que (` (`select`), KEY `KEY` (`a
b`, `select`)
) COMMENT = ') AUTO_INCREMENT=77 (';
INSERT INTO `na``me "with' ünï 漢` VALUES (1, 1, NULL, 'x'), (2, NULL, 5, DEFAULT);

CREATE TABLE computed (
    id INT AUTO_INCREMENT PRIMARY KEY, a INT, b INT, v INT AS (a + b) VIRTUAL, st INT AS (a * b) STORED,
    name VARCHAR(40), up VARCHAR(40) AS (UPPER(name)) STORED, hidden INT INVISIBLE DEFAULT 9,
    doc JSON, city VARCHAR(20) AS (JSON_VALUE(doc, '$.city')) VIRTUAL,
    made TIMESTAMP DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP, key_ VARCHAR(36) DEFAULT (CONCAT('k', a)),
    KEY (v), KEY (city), UNIQUE KEY (st, a), CONSTRAINT positive CHECK (a >= 0 AND name <> ',)('),
    KEY down_ (a DESC, b), KEY part (name(3)), KEY gone (b) IGNORED
) AUTO_INCREMENT = 5000;
INSERT INTO computed (a, b, name, doc, made) SELECT seq, seq + 1, CONCAT('n', seq), CONCAT('{"city": "c', seq % 10, '"}'),
    '2020-01-01' + INTERVAL seq SECOND FROM seq_1_to_2000;
UPDATE computed SET hidden = id WHERE id % 3 = 0;

CREATE TABLE parted (
    id INT NOT NULL, at DATE NOT NULL, what VARCHAR(40), PRIMARY KEY (id, at), KEY (what)
) PARTITION BY RANGE (YEAR(at)) SUBPARTITION BY HASH (id) SUBPARTITIONS 2 (
    PARTITION p0 VALUES LESS THAN (2020), PARTITION p1 VALUES LESS THAN (2022), PARTITION p2 VALUES LESS THAN MAXVALUE);
INSERT INTO parted SELECT seq, '2019-01-01' + INTERVAL seq DAY, MD5(seq) FROM seq_1_to_2000;
CREATE TABLE listed (id INT AUTO_INCREMENT, r INT NOT NULL, KEY (id), UNIQUE KEY (r, id)) AUTO_INCREMENT = 90
    PARTITION BY LIST (r) (PARTITION a VALUES IN (1, 2), PARTITION b VALUES IN (3, NULL));
INSERT INTO listed (r) VALUES (1), (2), (3);

CREATE TABLE chicken (id INT PRIMARY KEY, egg INT, self INT, KEY (egg),
    CONSTRAINT laid FOREIGN KEY (egg) REFERENCES egg (id) ON DELETE SET NULL ON UPDATE CASCADE,
    CONSTRAINT `own, (one` FOREIGN KEY (self) REFERENCES chicken (id));
CREATE TABLE egg (id INT PRIMARY KEY, chicken INT, FOREIGN KEY (chicken) REFERENCES chicken (id) ON DELETE CASCADE);
INSERT INTO chicken VALUES (1, 2, 1), (2, 1, 1);
INSERT INTO egg VALUES (1, 1), (2, 2);

CREATE TABLE keyless (a INT, b VARCHAR(20));
INSERT INTO keyless SELECT seq % 3, 'twice' FROM seq_1_to_300;
INSERT INTO keyless VALUES (NULL, NULL);
CREATE TABLE nobody (a INT PRIMARY KEY);
CREATE TABLE unique_only (a VARCHAR(30) COLLATE utf8mb4_unicode_ci NOT NULL, b INT NOT NULL, c TEXT, UNIQUE KEY (a, b));
INSERT INTO unique_only SELECT CONCAT(CHAR(65 + seq % 26), IF(seq % 2, 'é', 'E'), seq DIV 100), seq, 'c' FROM seq_1_to_2000;
CREATE TABLE bytes_key (k VARBINARY(20), d DECIMAL(20, 5), at DATETIME(3), v TEXT, PRIMARY KEY (k, d, at));
INSERT INTO bytes_key SELECT UNHEX(LEFT(MD5(seq DIV 4), 6)), seq / 8 - 50, '2000-01-01' + INTERVAL seq * 7 MICROSECOND, seq
    FROM seq_1_to_2000;
INSERT INTO bytes_key VALUES ('', -1, '0000-00-00', 'first'), (X'27005C', 1, '2001-01-01', 'quotes');
CREATE TABLE uuid_key (u UUID PRIMARY KEY, n INT);
INSERT INTO uuid_key SELECT CONCAT('00000000-0000-1000-8000-', LPAD(HEX(seq * 977), 12, '0')), seq FROM seq_1_to_500;
CREATE TABLE enum_key (e ENUM('z', 'a', 'm'), n INT, PRIMARY KEY (e, n));
INSERT INTO enum_key SELECT 1 + seq % 3, seq FROM seq_1_to_500;
CREATE TABLE padded (k CHAR(8) COLLATE utf8mb4_bin, n SMALLINT, PRIMARY KEY (k, n));
INSERT INTO padded SELECT CONCAT('k', seq % 7, REPEAT(' ', seq % 3)), seq FROM seq_1_to_2000;
CREATE TABLE isam (area INT NOT NULL, n INT NOT NULL AUTO_INCREMENT, t TEXT, PRIMARY KEY (area, n), FULLTEXT KEY (t)) ENGINE = MyISAM;
INSERT INTO isam (area, t) SELECT seq % 5, CONCAT('words and numbers ', seq) FROM seq_1_to_300;
CREATE TABLE crash (id INT PRIMARY KEY, v INT) ENGINE = Aria;
INSERT INTO crash SELECT seq, seq FROM seq_1_to_300;
CREATE TABLE gone (id INT PRIMARY KEY) ENGINE = MEMORY;
CREATE TABLE nowhere (id INT) ENGINE = BLACKHOLE;
CREATE TABLE searched (
    id INT PRIMARY KEY, body TEXT, more TEXT, place POINT NOT NULL, FULLTEXT KEY ft (body), FULLTEXT KEY both_ (body, more),
    SPATIAL KEY (place), UNIQUE KEY long_ (more) USING HASH
);
INSERT INTO searched SELECT seq, CONCAT('some words ', seq), CONCAT('more ', seq, REPEAT('x', 500)), POINT(seq, -seq) FROM seq_1_to_200;
CREATE TABLE packed (id INT PRIMARY KEY, body LONGTEXT COMPRESSED) ROW_FORMAT = COMPRESSED KEY_BLOCK_SIZE = 8;
INSERT INTO packed SELECT seq, REPEAT(MD5(seq), 20) FROM seq_1_to_200;
CREATE TABLE booked (room INT, a DATE NOT NULL, b DATE NOT NULL, PERIOD FOR stay (a, b), UNIQUE KEY (room, stay WITHOUT OVERLAPS));
INSERT INTO booked VALUES (1, '2020-01-01', '2020-02-01'), (1, '2020-02-01', '2020-03-01');
CREATE TABLE heavy (id INT PRIMARY KEY, body LONGBLOB, txt VARCHAR(100));
INSERT INTO heavy SELECT seq, REPEAT(UNHEX(MD5(seq)), 2000), seq FROM seq_1_to_100;
CREATE TABLE counted (n INT DEFAULT NEXTVAL(numbers), at DATETIME DEFAULT (CURRENT_TIMESTAMP + INTERVAL 1 DAY), id INT PRIMARY KEY);
INSERT INTO counted (id, at) VALUES (1, '2020-01-01');
CREATE TABLE fired (id INT AUTO_INCREMENT PRIMARY KEY, what TEXT);

DELIMITER //
CREATE TRIGGER first_one BEFORE INSERT ON nobody FOR EACH ROW SET NEW.a = NEW.a + 1//
CREATE TRIGGER second_one BEFORE INSERT ON nobody FOR EACH ROW PRECEDES first_one SET NEW.a = NEW.a * 10//
CREATE TRIGGER loud AFTER INSERT ON heavy FOR EACH ROW INSERT INTO fired (what) VALUES (CONCAT('heavy; ', NEW.id, ' ü'))//
CREATE FUNCTION twice(x INT) RETURNS INT DETERMINISTIC RETURN x * 2//
CREATE FUNCTION `fun``c ü`(x VARCHAR(20)) RETURNS VARCHAR(40) CHARACTER SET latin1 DETERMINISTIC COMMENT 'a; comment'
BEGIN
    -- a comment; with 'quotes' and "others" ü
    RETURN CONCAT(x, '; ''', "d");
END//
CREATE PROCEDURE do_it(IN a INT, OUT b INT) SQL SECURITY INVOKER
BEGIN
    DECLARE EXIT HANDLER FOR SQLEXCEPTION BEGIN END;
    SELECT COUNT(*) INTO b FROM heavy WHERE id > a;
END//
SET sql_mode = 'ANSI_QUOTES,PIPES_AS_CONCAT,NO_BACKSLASH_ESCAPES'//
CREATE PROCEDURE "oth""er"() SELECT 'a\' || "id" FROM "heavy"//
SET sql_mode = 'ORACLE'//
CREATE PACKAGE pack AS FUNCTION f RETURN INT; END//
CREATE PACKAGE BODY pack AS FUNCTION f RETURN INT AS BEGIN RETURN 4; END; END//
SET sql_mode = 'NO_AUTO_VALUE_ON_ZERO'//
SET time_zone = '+02:00'//
CREATE EVENT every_day ON SCHEDULE EVERY 1 DAY STARTS '2020-01-01 03:00:00' ON COMPLETION PRESERVE ENABLE
    COMMENT 'ON COMPLETION PRESERVE ENABLE' DO INSERT INTO fired (what) VALUES ('event')//
SET time_zone = '+00:00'//
CREATE EVENT asleep ON SCHEDULE EVERY 1 HOUR DISABLE DO BEGIN SET @a = 1; END//
DELIMITER ;

CREATE VIEW zz_base AS SELECT id, LENGTH(body) AS size FROM heavy;
CREATE ALGORITHM = MERGE SQL SECURITY INVOKER VIEW aa_above AS SELECT id, size FROM zz_base WHERE size > 3 WITH LOCAL CHECK OPTION;
CREATE VIEW `ab "ove ü` AS SELECT twice(id) AS `i``d`, 'it''s ü 😀' AS t FROM aa_above;

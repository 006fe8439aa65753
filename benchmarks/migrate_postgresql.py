"""A PostgreSQL database moves between two servers on this machine, beside pg_dump | pg_restore and pgcopydb.

    python benchmarks/migrate_postgresql.py --scale 1 --rounds 5

Scale 1 is about 1.7 GB: pgbench's tables with foreign keys, documents, orders, partitions, large objects. All run in
turn, each into an empty database, on servers that wait for the disk; ratios are those of one round, and their median is
told. pg_restore makes no planner statistics, so our move makes none either when it is compared (--analyze: it does);
pgcopydb clone makes them always. Verification is timed apart. A line per method: wall seconds, CPU seconds.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import attrs

from shiftable.postgresql import Cluster, find_binaries

PARAMETERS = {
    "shared_buffers": "1GB",
    "max_wal_size": "4GB",
    "wal_level": "logical",
    "max_connections": "60",
    "checkpoint_timeout": "15min",
}
EXTENSIONS = ("citext", "hstore", "pg_trgm", "pgcrypto")

SCHEMA = """
CREATE TABLE branches (bid int PRIMARY KEY, bbalance int, filler char(88));
CREATE TABLE tellers (tid int PRIMARY KEY, bid int REFERENCES branches, tbalance int, filler char(84));
CREATE TABLE accounts (aid int PRIMARY KEY, bid int REFERENCES branches, abalance int, filler char(84));
CREATE TABLE customers (
    id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, email {citext} UNIQUE, name text, tags text[], doc jsonb,
    created timestamptz
);
CREATE TABLE orders (
    id bigserial PRIMARY KEY, customer int REFERENCES customers, placed timestamptz, amount numeric(12, 2), state text,
    total numeric GENERATED ALWAYS AS (amount * 1.19) STORED
);
CREATE TABLE documents (id uuid PRIMARY KEY, body bytea, attributes {hstore});
CREATE TABLE events (id bigint, at date, what text, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
CREATE TABLE events_1 PARTITION OF events FOR VALUES FROM ('2025-01-01') TO ('2025-07-01');
CREATE TABLE events_2 PARTITION OF events FOR VALUES FROM ('2025-07-01') TO ('2026-01-01');
"""
ROWS = """
INSERT INTO branches SELECT n, 0, '' FROM generate_series(1, 50) AS s (n);
INSERT INTO tellers SELECT n, n % 50 + 1, 0, '' FROM generate_series(1, 500) AS s (n);
INSERT INTO accounts SELECT n, n % 50 + 1, 0, '' FROM generate_series(1, {accounts}) AS s (n);
INSERT INTO customers (email, name, tags, doc, created)
SELECT 'user' || n || '@shop.example', 'Name ' || md5(n::text), ARRAY['a' || n % 9, 'b' || n % 7],
    jsonb_build_object('n', n, 'city', md5((n % 1000)::text), 'flags', jsonb_build_array(n % 2, n % 3)),
    now() - n * interval '1 minute' FROM generate_series(1, {customers}) AS s (n);
INSERT INTO orders (customer, placed, amount, state)
SELECT n % {customers} + 1, now() - n * interval '10 seconds', n % 10000 / 7.0,
    (ARRAY['new', 'paid', 'sent'])[n % 3 + 1]
FROM generate_series(1, {orders}) AS s (n);
INSERT INTO documents
SELECT md5(n::text)::uuid, decode(string_agg(md5(n::text || k), ''), 'hex'), {attributes}
FROM generate_series(1, {documents}) AS s (n), generate_series(1, 400) AS t (k) GROUP BY n;
INSERT INTO events SELECT n, date '2025-01-01' + n % 365, md5(n::text) FROM generate_series(1, {events}) AS s (n);
CREATE INDEX ON orders (customer);
CREATE INDEX ON orders (placed) WHERE state <> 'sent';
CREATE INDEX ON customers USING gin (doc);
{trigrams}
CREATE INDEX ON events (what);
CREATE VIEW busy AS SELECT customer, count(*) AS orders FROM orders GROUP BY customer;
CREATE MATERIALIZED VIEW revenue AS SELECT date_trunc('month', placed) AS month, sum(amount) FROM orders GROUP BY 1;
SELECT count(lo_from_bytea(0, decode(repeat('00ff', 8192), 'hex'))) FROM generate_series(1, {objects});
ANALYZE;
"""
_REAPED = 2.0  # seconds for the servers' processes of a run to end, and to be counted
MOVE = """
import json, sys
from shiftable.migrate._postgresql._move import How, moved
from shiftable.migrate._postgresql._side import Side

sides = [Side(lambda each=each: each, "a side") for each in json.loads(sys.argv[1])]
moved(*sides, How(jobs=int(sys.argv[2]), analyze=sys.argv[3] == "yes"))
"""
VERIFY = """
import json, sys
from shiftable.migrate._postgresql._move import How
from shiftable.migrate._postgresql._side import Side
from shiftable.migrate._postgresql._verification import differences

sides = [Side(lambda each=each: each, "a side") for each in json.loads(sys.argv[1])]
odd = differences(*sides, How(jobs=int(sys.argv[2])))
sys.exit(f"they differ: {odd}" if odd else 0)
"""


@attrs.frozen
class Cost:
    """What one run took: seconds, CPU seconds of client and servers, the most memory of a client's process in MB."""

    wall: float
    cpu: float
    memory: float
    source: float = 0.0
    target: float = 0.0


@attrs.frozen
class Bench:
    """Both servers, and the programs of PostgreSQL."""

    source: Cluster
    target: Cluster
    jobs: int
    analyze: bool

    def arguments(self, cluster: Cluster, database: str) -> dict[str, Any]:
        """What psycopg's ``connect`` takes."""
        return {"host": cluster.host, "port": cluster.port, "user": "postgres", "dbname": database}

    def uri(self, cluster: Cluster, database: str) -> str:
        """The same for programs."""
        return f"host={cluster.host} port={cluster.port} user=postgres dbname={database}"

    def program(self, name: str) -> str:
        """Return the path of a program of PostgreSQL."""
        return str(self.source.binaries.program(name))

    def pipe(self) -> Cost:
        """pg_dump -Fc -Z0 | pg_restore."""
        dump = [self.program("pg_dump"), "-Fc", "-Z0", "-d", self.uri(self.source, "bench")]
        restore = [self.program("pg_restore"), "-d", self.uri(self.target, "bench")]

        def run() -> None:
            with subprocess.Popen(dump, stdout=subprocess.PIPE) as reading:
                subprocess.run(restore, stdin=reading.stdout, check=True)

        return measured(run)

    def ours(self) -> Cost:
        """Our own move, in a process of its own."""
        import json

        sides = json.dumps([self.arguments(each, "bench") for each in (self.source, self.target)])
        told = [sys.executable, "-c", MOVE, sides, str(self.jobs), "yes" if self.analyze else "no"]
        return measured(lambda: subprocess.run(told, check=True))

    def verification(self) -> Cost:
        """Compare both sides, which have to be equal."""
        import json

        sides = json.dumps([self.arguments(each, "bench") for each in (self.source, self.target)])
        return measured(lambda: subprocess.run([sys.executable, "-c", VERIFY, sides, str(self.jobs)], check=True))

    def pgcopydb(self) -> Cost:
        """Run pgcopydb clone, with as many jobs."""
        folder = tempfile.mkdtemp()
        jobs = str(self.jobs)
        told = [
            "pgcopydb",
            "clone",
            "--source",
            self.uri(self.source, "bench"),
            "--target",
            self.uri(self.target, "bench"),
        ]
        told += ["--table-jobs", jobs, "--index-jobs", jobs, "--dir", folder, "--restart"]
        try:
            return measured(lambda: subprocess.run(told, check=True, capture_output=True))
        finally:
            shutil.rmtree(folder)

    def empty(self) -> None:
        """Make the target anew, and let neither server owe the disk anything."""
        with self.target.connect(autocommit=True) as connection:
            connection.execute("DROP DATABASE IF EXISTS bench WITH (FORCE)")
            connection.execute("CREATE DATABASE bench")
            connection.execute("CHECKPOINT")


def measured(function: Callable[[], object]) -> Cost:
    """Run a function whose work children do, and say what they took."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    function()
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Cost(wall, cpu, after.ru_maxrss / 1024)


def served(bench: Bench, method: Callable[[], Cost]) -> Cost:
    """Run a method, and add what both servers took for it; those of their processes that have ended."""
    before = [spent(each) for each in (bench.source, bench.target)]
    cost = method()
    time.sleep(_REAPED)
    source, target = (spent(each) - was for each, was in zip((bench.source, bench.target), before, strict=True))
    return attrs.evolve(cost, source=source, target=target)


def spent(cluster: Cluster) -> float:
    """Return CPU seconds of a server and of its processes that have ended, as Linux tells them."""
    path = Path(f"/proc/{cluster.pid}/stat")
    if not path.exists():
        return 0.0
    fields = path.read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def fill(cluster: Cluster, scale: float) -> int:
    """Make the source, and return its bytes."""
    with cluster.connect(autocommit=True) as connection:
        connection.execute("CREATE DATABASE bench")
    with cluster.connect("bench", autocommit=True) as connection:
        found = connection.execute("SELECT name FROM pg_available_extensions").fetchall()
        has = all((name,) in found for name in EXTENSIONS)
        for name in EXTENSIONS if has else ():
            connection.execute(f"CREATE EXTENSION {name}")
        words = {
            "citext": "citext" if has else "text",
            "hstore": "hstore" if has else "jsonb",
            "attributes": "hstore('n', n::text)" if has else "jsonb_build_object('n', n)",
            "trigrams": "CREATE INDEX ON customers USING gin (name gin_trgm_ops);" if has else "",
        }
        numbers = {"accounts": 5_000_000, "customers": 400_000, "orders": 1_500_000, "documents": 30_000}
        counts = {name: max(1, int(count * scale)) for name, count in {**numbers, "events": 300_000}.items()}
        connection.execute(SCHEMA.format(**words))
        for statement in ROWS.format(**words, **counts, objects=max(1, int(2_000 * scale))).split(";\n"):
            if statement.strip():
                connection.execute(statement)
        connection.execute("CHECKPOINT")
        row = connection.execute("SELECT pg_database_size('bench')").fetchone()
        return int(row[0]) if row else 0


@contextmanager
def clusters() -> Iterator[tuple[Cluster, Cluster]]:
    """Run both servers, which wait for the disk as they would anywhere."""
    with ExitStack() as stack:
        found = []
        for _ in range(2):
            folder = Path(tempfile.mkdtemp(prefix="shiftable-bench-"))
            cluster = Cluster(folder, find_binaries(), parameters=PARAMETERS)
            stack.callback(cluster.remove)
            found.append(stack.enter_context(cluster))
        yield found[0], found[1]


def main() -> None:
    """Run all methods in turn and print what they took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=1.0, help="1 is 1.7 GB")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=max(2, min(8, os.cpu_count() or 2)))
    parser.add_argument("--analyze", action="store_true", help="make planner statistics too")
    chosen = parser.parse_args()
    with clusters() as (source, target):
        bench = Bench(source, target, chosen.jobs, chosen.analyze)
        size = fill(source, chosen.scale)
        print(f"{size / 1e6:,.0f} MB, PostgreSQL {source.binaries.version}, {chosen.jobs} jobs, {os.cpu_count()} CPUs")
        methods = {"pg_dump -Fc -Z0 | pg_restore": bench.pipe, "shiftable": bench.ours}
        if shutil.which("pgcopydb"):
            methods["pgcopydb clone"] = bench.pgcopydb
        else:
            print("pgcopydb is not on this machine: not compared (apt-get install pgcopydb)")
        costs: dict[str, list[Cost]] = {name: [] for name in [*methods, "verification"]}
        for number in range(chosen.rounds):
            order = list(methods.items())
            for name, method in order if number % 2 else reversed(order):
                bench.empty()
                costs[name].append(served(bench, method))
                if name == "shiftable":
                    costs["verification"].append(served(bench, bench.verification))
    first = next(iter(methods))
    for name, found in costs.items():
        ratios = [base.wall / each.wall for base, each in zip(costs[first], found, strict=True)]
        wall, cpu, source_cpu, target_cpu = (
            statistics.median(getattr(each, what) for each in found) for what in ("wall", "cpu", "source", "target")
        )
        ratio = f"{statistics.median(ratios):5.2f} x ({min(ratios):.2f}-{max(ratios):.2f})" if name in methods else ""
        told = f"CPU: client {cpu:5.2f} source {source_cpu:5.2f} target {target_cpu:6.2f}"
        print(f"{name:32} {wall:8.2f} s  {told}  {ratio}")
    print(f"most memory of one process: {max(each.memory for found in costs.values() for each in found):.0f} MB")


if __name__ == "__main__":
    main()

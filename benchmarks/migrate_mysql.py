"""MariaDB to MariaDB: our move beside `mariadb-dump | mariadb`, in turn, on two servers of Debian's package.

    python benchmarks/migrate_mysql.py [--scale 1] [--rounds 3] [--jobs 2]

Scale 1 is about 130 MB of tables and keys: three million rows would be more than a shared machine should be asked for.
The servers are those of tests/servers (`python tests/servers/install.py` once). Both are on this machine, so that
client and servers share its CPUs; the pipe has two programs, ours is one process. Verification is timed apart. A line
per method: wall seconds, CPU seconds of client and servers, and how much faster than the pipe, by pairs of runs.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import runpy
import secrets
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs
import pymysql

ROOT: Path = runpy.run_path(str(Path(__file__).parent.parent / "tests/servers/install.py"))["ROOT"]
UNPRIVILEGED = ("unshare", "--user", "--map-user=1000", "--map-group=1000") if os.geteuid() == 0 else ()
SETTINGS = (
    "--innodb-buffer-pool-size=1G",
    "--innodb-log-file-size=512M",
    "--skip-name-resolve",
    "--bind-address=127.0.0.1",
)
_PATIENCE = 120.0

SCHEMA = """
CREATE TABLE customers (
    id INT AUTO_INCREMENT PRIMARY KEY, email VARCHAR(80) NOT NULL, name VARCHAR(60), doc JSON, created DATETIME(6),
    UNIQUE KEY (email), KEY (name)
);
CREATE TABLE orders (
    id BIGINT AUTO_INCREMENT PRIMARY KEY, customer INT, placed DATETIME, amount DECIMAL(12, 2), state VARCHAR(10),
    total DECIMAL(14, 4) AS (amount * 1.19) STORED, KEY (customer, placed), KEY (placed), KEY (state),
    FOREIGN KEY (customer) REFERENCES customers (id)
);
CREATE TABLE items (
    `order` BIGINT, n INT, product VARCHAR(40), price DOUBLE, PRIMARY KEY (`order`, n), KEY (product),
    FOREIGN KEY (`order`) REFERENCES orders (id)
);
CREATE TABLE documents (id BINARY(16) PRIMARY KEY, body LONGBLOB, words TEXT);
CREATE VIEW busy AS SELECT customer, COUNT(*) AS orders FROM orders GROUP BY customer;
INSERT INTO customers (email, name, doc, created)
SELECT CONCAT('user', seq, '@shop.example'), CONCAT('Name ', MD5(seq)),
    JSON_OBJECT('n', seq, 'city', MD5(seq % 1000)), '2025-01-01' + INTERVAL seq SECOND FROM seq_1_to_{customers};
INSERT INTO orders (customer, placed, amount, state)
SELECT 1 + seq % {customers}, '2024-01-01' + INTERVAL seq * 10 SECOND, seq % 10000 / 7,
    ELT(1 + seq % 3, 'new', 'paid', 'sent')
FROM seq_1_to_{orders};
INSERT INTO items SELECT 1 + seq DIV 3, seq % 3, CONCAT('product ', MD5(seq % 5000)), seq / 7 FROM seq_1_to_{items};
INSERT INTO documents SELECT UNHEX(MD5(seq)), REPEAT(UNHEX(SHA1(seq)), 400), REPEAT(MD5(seq), 20)
FROM seq_1_to_{documents};
"""
MOVE = """
import json, sys
from shiftable.migrate._mysql._move import How, moved
from shiftable.migrate._mysql._side import Side

sides = [Side(lambda each=each: each, "a side") for each in json.loads(sys.stdin.read())]
moved(*sides, How(jobs=int(sys.argv[1])))
"""
VERIFY = """
import json, sys
from shiftable.migrate._mysql._move import How
from shiftable.migrate._mysql._side import Side
from shiftable.migrate._mysql._verification import differences

sides = [Side(lambda each=each: each, "a side") for each in json.loads(sys.stdin.read())]
odd = differences(*sides, How(jobs=int(sys.argv[1])))
sys.exit(f"they differ: {odd}" if odd else 0)
"""


@attrs.frozen
class Cost:
    """What one run took: seconds, CPU seconds of clients and servers, the most memory of a client's process in MB."""

    wall: float
    client: float
    memory: float
    source: float = 0.0
    target: float = 0.0


@attrs.define
class Server:
    """One MariaDB in a folder of its own, which waits for the disk as it would anywhere."""

    folder: Path
    port: int
    process: subprocess.Popen[bytes]
    password: str

    def arguments(self, database: str | None = None) -> Mapping[str, Any]:
        """What PyMySQL's ``connect`` takes."""
        where = {"host": "127.0.0.1", "port": self.port, "user": "admin", "password": self.password}
        return {**where, "database": database}

    def execute(self, *statements: str, database: str | None = None) -> list[tuple[Any, ...]]:
        """Carry out statements; return the last one's rows."""
        found: list[tuple[Any, ...]] = []
        with contextlib.closing(pymysql.connect(**self.arguments(database), autocommit=True)) as connection:
            for statement in statements:
                with connection.cursor() as cursor:
                    cursor.execute(statement)
                    found = list(cursor.fetchall())
        return found

    def client(self, program: str, *arguments: str) -> list[str]:
        """Return the command of a stock client."""
        file = self.folder / "client.cnf"
        file.touch(0o600)
        file.write_text(f'[client]\nuser=admin\npassword="{self.password}"\nhost=127.0.0.1\nport={self.port}\n')
        return [str(ROOT / "usr/bin" / program), f"--defaults-file={file}", *arguments]

    @property
    def spent(self) -> float:
        """CPU seconds so far, as Linux tells them."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")


def environ() -> Mapping[str, str]:
    """Let unpacked programs find their libraries."""
    libraries = next((ROOT / "usr/lib").glob("*-linux-gnu"))
    return {**os.environ, "LD_LIBRARY_PATH": f"{libraries}:{ROOT / 'lib' / libraries.name}"}


@contextlib.contextmanager
def running() -> Iterator[Server]:
    """Make a server and run it until the end of the block."""
    folder = Path(tempfile.mkdtemp(prefix="shiftable-bench-"))
    share, program = ROOT / "usr/share/mysql", ROOT / "usr/sbin/mariadbd"
    plain = ("--no-defaults", f"--datadir={folder}/data", f"--lc-messages-dir={share}", f"--tmpdir={folder}")
    plain += (f"--plugin-dir={ROOT}/usr/lib/mysql/plugin",)
    (folder / "data").mkdir()
    names = ("mysql_system_tables.sql", "mysql_performance_tables.sql", "mysql_system_tables_data.sql")
    tables = b"".join((share / each).read_bytes() for each in names)
    password = secrets.token_hex(16)
    admin = f"CREATE USER admin@'127.0.0.1' IDENTIFIED BY '{password}';\n"
    admin += "GRANT ALL ON *.* TO admin@'127.0.0.1' WITH GRANT OPTION;\n"
    script = b"CREATE DATABASE mysql;\nUSE mysql;\n" + tables + f"\nFLUSH PRIVILEGES;\n{admin}".encode()
    subprocess.run(
        [*UNPRIVILEGED, program, *plain, "--bootstrap"], env=environ(), input=script, capture_output=True, check=True
    )
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [*UNPRIVILEGED, program, *plain, *SETTINGS, f"--port={port}", f"--socket={folder}/socket"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, env=environ(), stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    server = Server(folder, port, process, password)
    try:
        until = time.monotonic() + _PATIENCE
        while not _answers(server):
            if process.poll() is not None or time.monotonic() > until:
                sys.exit((folder / "log").read_text()[-2000:])
            time.sleep(0.1)
        yield server
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()
        shutil.rmtree(folder)


def _answers(server: Server) -> bool:
    try:
        server.execute("SELECT 1")
    except pymysql.err.OperationalError:
        return False
    return True


@attrs.frozen
class Bench:
    """Both servers."""

    source: Server
    target: Server
    jobs: int

    def pipe(self) -> None:
        """mariadb-dump | mariadb."""
        dump = self.source.client("mariadb-dump", "--single-transaction", "--quick", "--routines", "bench")
        with subprocess.Popen(dump, stdout=subprocess.PIPE, env=environ()) as reading:
            subprocess.run(self.target.client("mariadb", "bench"), stdin=reading.stdout, check=True, env=environ())
        if reading.returncode:
            sys.exit("mariadb-dump failed")

    def ours(self) -> None:
        """Our own move, in a process of its own."""
        self._run(MOVE)

    def verification(self) -> None:
        """Compare both sides, which have to be equal."""
        self._run(VERIFY)

    def _run(self, program: str) -> None:
        sides = json.dumps([dict(each.arguments("bench")) for each in (self.source, self.target)])
        subprocess.run([sys.executable, "-c", program, str(self.jobs)], input=sides.encode(), check=True)

    def empty(self) -> None:
        """Make the target anew."""
        self.target.execute("DROP DATABASE IF EXISTS bench", "CREATE DATABASE bench")

    def measured(self, method: Callable[[], None]) -> Cost:
        """Run a method whose work children and servers do, and say what they took."""
        servers = [self.source.spent, self.target.spent]
        before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        method()
        wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
        client = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        source, target = self.source.spent - servers[0], self.target.spent - servers[1]
        return Cost(wall, client, after.ru_maxrss / 1024, source, target)


def fill(server: Server, scale: float) -> int:
    """Make the source, and return its bytes."""
    numbers = {"customers": 40_000, "orders": 250_000, "items": 500_000, "documents": 3_000}
    script = SCHEMA.format(**{name: max(3, int(count * scale)) for name, count in numbers.items()})
    server.execute("CREATE DATABASE bench CHARACTER SET utf8mb4")
    server.execute(*(each for each in script.split(";\n") if each.strip()), database="bench")
    server.execute("ANALYZE TABLE customers, orders, items, documents", database="bench")
    query = "SELECT SUM(data_length + index_length) FROM information_schema.tables WHERE table_schema = 'bench'"
    return int(server.execute(query)[0][0])


def main() -> None:
    """Run both methods in turn and print what they took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=1.0, help="1 is about 130 MB")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=max(2, min(8, os.cpu_count() or 2)))
    chosen = parser.parse_args()
    with running() as source, running() as target:
        bench = Bench(source, target, chosen.jobs)
        size = fill(source, chosen.scale)
        ((version,),) = source.execute("SELECT VERSION()")
        load = os.getloadavg()[0]
        print(f"{size / 1e6:,.0f} MB, {version}, {chosen.jobs} jobs, {os.cpu_count()} CPUs, load {load:.1f} before")
        methods = {"mariadb-dump | mariadb": bench.pipe, "shiftable": bench.ours}
        costs: dict[str, list[Cost]] = {name: [] for name in [*methods, "verification"]}
        for number in range(chosen.rounds):
            order = list(methods.items())
            for name, method in order if number % 2 else reversed(order):
                bench.empty()
                costs[name].append(bench.measured(method))
                if name == "shiftable":
                    costs["verification"].append(bench.measured(bench.verification))
    first = next(iter(methods))
    for name, found in costs.items():
        ratios = [base.wall / each.wall for base, each in zip(costs[first], found, strict=True)]
        wall, client, source_cpu, target_cpu = (
            statistics.median(getattr(each, what) for each in found) for what in ("wall", "client", "source", "target")
        )
        ratio = f"{statistics.median(ratios):5.2f} x ({min(ratios):.2f}-{max(ratios):.2f})" if name in methods else ""
        told = f"CPU: client {client:5.2f} source {source_cpu:5.2f} target {target_cpu:6.2f}"
        print(f"{name:24} {wall:8.2f} s  {told}  {ratio}")
    print(f"most memory of one process: {max(each.memory for found in costs.values() for each in found):.0f} MB")


if __name__ == "__main__":
    main()

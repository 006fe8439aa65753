"""Two MariaDB servers of Debian's package that may be killed, a database on each, and what the servers say of them.

What is compared here is asked in another way than the code under test asks: by ``mariadb-dump`` and ``SELECT`` of all
rows, values as the server sends them.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import signal
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs
import pymysql
import pytest

from shiftable.migrate._mysql._side import Side

from .conftest import UNPRIVILEGED, Debian, free_ports, wait_until

__all__ = ["AWKWARD", "MariaDb", "Pair", "equal", "maria_db", "servers"]

AWKWARD = Path(__file__).with_name("awkward_mysql.sql")
_numbers = itertools.count()
_PATIENCE = 60
_ADMIN = "admin"
_SOMEBODY = (*UNPRIVILEGED, "--map-group=1000") if UNPRIVILEGED else ()
"""MariaDB gives copies of its files to their group, which has to have a number in there."""


@attrs.define
class MariaDb:
    """A server in a folder of its own, which can be killed and started again."""

    debian: Debian
    folder: Path
    port: int
    options: tuple[str, ...] = ()
    password: str = "an administrator's"
    _process: subprocess.Popen[bytes] | None = None

    @property
    def program(self) -> Path:
        """The server."""
        return self.debian.root / "usr/sbin/mariadbd"

    def make(self) -> None:
        """Make its data directory, with one administrator."""
        share = self.debian.root / "usr/share/mysql"
        (self.folder / "data").mkdir(parents=True)
        names = ("mysql_system_tables.sql", "mysql_performance_tables.sql", "mysql_system_tables_data.sql")
        tables = b"".join((share / each).read_bytes() for each in names)
        admin = f"CREATE USER {_ADMIN}@'127.0.0.1' IDENTIFIED BY \"{self.password}\";\n"
        rights = f"GRANT ALL ON *.* TO {_ADMIN}@'127.0.0.1' WITH GRANT OPTION;\n"
        script = b"CREATE DATABASE mysql;\nUSE mysql;\n" + tables + f"\nFLUSH PRIVILEGES;\n{admin}{rights}".encode()
        self.debian.run(*_SOMEBODY, self.program, *self._plain, "--bootstrap", data=script)

    def start(self) -> None:
        """Start it, unless it runs."""
        if self._process is not None and self._process.poll() is None:
            return
        more = (f"--port={self.port}", "--bind-address=127.0.0.1", f"--socket={self.folder}/socket")
        command = (self.program, *self._plain, *more, "--skip-name-resolve", *self.options)
        log = self.folder / "log"
        with log.open("ab") as out:
            self._process = subprocess.Popen(
                [*_SOMEBODY, "setpriv", "--pdeathsig", "KILL", *command],
                env=self.debian.environ,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
            )
        wait_until(self._answers, "MariaDB", log, self._process)

    def kill(self) -> None:
        """End it as a power failure does."""
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        self._process.wait(_PATIENCE)

    def stop(self) -> None:
        """End it."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            self._process.wait(_PATIENCE)

    def arguments(self, database: str | None = None, **more: Any) -> Mapping[str, Any]:
        """What PyMySQL's ``connect`` takes."""
        where = {"host": "127.0.0.1", "port": self.port, "user": _ADMIN, "password": self.password}
        return {**where, "database": database, **more}

    def execute(self, *statements: str, database: str | None = None, **more: Any) -> list[tuple[Any, ...]]:
        """Carry out statements; return the last one's rows."""
        found: list[tuple[Any, ...]] = []
        given = {"autocommit": True, "charset": "utf8mb4", **self.arguments(database, **more)}
        with contextlib.closing(pymysql.connect(**given)) as connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
                found = list(cursor.fetchall())
        return found

    def script(self, text: str, database: str) -> None:
        """Have the stock client carry out a script."""
        self.client("mariadb", "--default-character-set=utf8mb4", database, data=text.encode())

    def client(self, program: str, *arguments: str, data: bytes = b"") -> bytes:
        """Run a stock client."""
        file = self.folder / "client.cnf"
        file.touch(0o600)
        file.write_text(f'[client]\nuser={_ADMIN}\npassword="{self.password}"\nhost=127.0.0.1\nport={self.port}\n')
        return self.debian.run(program, f"--defaults-file={file}", *arguments, data=data)

    def _answers(self) -> bool:
        try:
            self.execute("SELECT 1")
        except pymysql.err.OperationalError:
            return False
        return True

    @property
    def _plain(self) -> tuple[str, ...]:
        share = self.debian.root / "usr/share/mysql"
        plain = ("--no-defaults", f"--datadir={self.folder}/data", f"--lc-messages-dir={share}")
        plugins = f"--plugin-dir={self.debian.root}/usr/lib/mysql/plugin"
        return (*plain, f"--tmpdir={self.folder}", plugins, "--innodb-flush-log-at-trx-commit=0")


@contextlib.contextmanager
def maria_db(debian: Debian, folder: Path, *options: str) -> Iterator[MariaDb]:
    """Run a server until the end of the block."""
    (port,) = free_ports(1)
    server = MariaDb(debian, folder, port, options)
    server.make()
    server.start()
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="module")
def servers(
    debian: Debian, _somebody_else: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[MariaDb, MariaDb]]:
    """Two servers, whose tests may kill them."""
    folder = tmp_path_factory.mktemp("mariadb")
    with maria_db(debian, folder / "source") as source, maria_db(debian, folder / "target") as target:
        yield source, target


@attrs.define
class Pair:
    """A database on each of two servers, made for one test."""

    source_server: MariaDb
    target_server: MariaDb
    name: str = attrs.field(factory=lambda: f"moved_{next(_numbers)}")

    def make(self) -> None:
        """Make both databases, empty."""
        for server in (self.source_server, self.target_server):
            server.execute(f"CREATE DATABASE `{self.name}` CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci")

    def drop(self) -> None:
        """Drop both."""
        for server in (self.source_server, self.target_server):
            server.start()
            server.execute(f"DROP DATABASE IF EXISTS `{self.name}`")

    def fill(self, *statements: str) -> None:
        """Carry out statements on the source; the awkward script if none are given."""
        if statements:
            self.on_source(*statements)
        else:
            self.source_server.script(AWKWARD.read_text(), self.name)

    def on_source(self, *statements: str) -> list[tuple[Any, ...]]:
        """Carry out statements on the source; return the last one's rows."""
        return self.source_server.execute(*statements, database=self.name)

    def on_target(self, *statements: str) -> list[tuple[Any, ...]]:
        """Carry out statements on the target; return the last one's rows."""
        return self.target_server.execute(*statements, database=self.name)

    @property
    def source(self) -> Side:
        """The source, as its administrator."""
        return self.side(self.source_server, "the source")

    @property
    def target(self) -> Side:
        """The target, as its administrator."""
        return self.side(self.target_server, "the target")

    def side(self, server: MariaDb, name: str, **more: Any) -> Side:
        """One side, as whoever is to connect."""
        return Side(lambda: server.arguments(self.name, **more), name)

    @property
    def both(self) -> tuple[dict[str, tuple[int, str]], dict[str, tuple[int, str]]]:
        """The contents of the source and of the target."""
        return self.contents(self.source_server), self.contents(self.target_server)

    def contents(self, server: MariaDb) -> dict[str, tuple[int, str]]:
        """Return how many rows each table has and a digest of them, as the server sends them and in any order."""
        found = {}
        names = server.execute(
            "SELECT table_name FROM information_schema.tables WHERE table_schema = DATABASE()"
            " AND table_type IN ('BASE TABLE', 'SYSTEM VERSIONED', 'SEQUENCE') ORDER BY 1",
            database=self.name,
        )
        for (name,) in names:
            quoted = "`" + name.replace("`", "``") + "`"
            rows = server.execute("SET time_zone = '+00:00'", f"SELECT * FROM {quoted}", database=self.name, conv={})  # noqa: S608
            found[name] = _digest(repr(row).encode() for row in rows)
        return found

    def schema(self, server: MariaDb) -> list[str]:
        """Return what ``mariadb-dump`` writes of the schema, without what differs from run to run."""
        parts = ("--no-data", "--routines", "--triggers", "--events", "--skip-comments", "--skip-dump-date")
        text = server.client("mariadb-dump", *parts, self.name).decode()
        return text.splitlines()


def equal(pair: Pair) -> bool:
    """Whether both sides are the same as they themselves tell, row by row and line by line."""
    contents = pair.both
    schemas = [
        [line.replace(" PRESERVE ENABLE ", " PRESERVE DISABLE ", 1) for line in pair.schema(each)]
        for each in (pair.source_server, pair.target_server)
    ]
    odd = [name for name in contents[0].keys() | contents[1].keys() if contents[0].get(name) != contents[1].get(name)]
    assert [] == odd
    assert schemas[0] == schemas[1]
    return True


def _digest(rows: Iterable[bytes]) -> tuple[int, str]:
    found = sorted(rows)
    return len(found), hashlib.sha256(b"\0".join(found)).hexdigest()

"""A database server on another machine, through the system's ssh and a real sshd on loopback."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest
import sqlalchemy

from shiftable.config import Credential
from shiftable.database import Databases, DatabaseSpec, Engine
from shiftable.errors import OperationError, Unauthenticated, Unavailable
from shiftable.postgresql import Cluster, find_binaries, temporary_cluster
from shiftable.testing.conformance.database import small_spec
from shiftable_baremetal import MariadbSettings, PostgresqlSettings, _servers_archive_mariadb, database_servers
from shiftable_baremetal._servers_programs import Command
from shiftable_baremetal._servers_tunnel import Tunnel
from shiftable_baremetal.database_servers import ServerDatabaseDriver, open_server

from ..baremetal.archived_server import archiving, stored, within
from .archived_mariadb import OPTIONS, ask, declared, driver_of, numbers, orders_with, second
from .conftest import DatabaseServer, Debian, free_ports, wait_until
from .mysql_pair import maria_db

USER = "daemon" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name


@attrs.frozen
class Sshd:
    """An sshd, and the configuration with which ssh reaches it as ``db``."""

    port: int
    log: Path
    config: Path
    process: subprocess.Popen[bytes]

    def drop(self) -> None:
        """Kill all who serve a connection."""
        for number in _descendants(self.process.pid):
            with contextlib.suppress(ProcessLookupError):  # it has ended with another one
                os.kill(number, signal.SIGKILL)


def _descendants(process: int) -> Iterator[int]:
    children = Path(f"/proc/{process}/task/{process}/children")
    for line in children.read_text().split() if children.exists() else ():
        yield from _descendants(int(line))
        yield int(line)


@pytest.fixture(scope="module")
def sshd(debian: Debian) -> Iterator[Sshd]:
    """Start an sshd of an ordinary user, who needs no shell for what is carried."""
    with tempfile.TemporaryDirectory(prefix="sshd-") as name:
        folder, (port,) = Path(name), free_ports(1)
        folder.chmod(0o755)
        for key in ("host", "client"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / key)], check=True)
        (folder / "authorized").write_text((folder / "client.pub").read_text())
        if os.geteuid() == 0:
            shutil.chown(folder / "host", USER)
            shutil.chown(folder / "authorized", USER)
        options = {
            "Port": port,
            "ListenAddress": "127.0.0.1",
            "HostKey": folder / "host",
            "AuthorizedKeysFile": folder / "authorized",
            "PidFile": "none",
            "UsePAM": "no",
            "StrictModes": "no",
        }
        (folder / "sshd_config").write_text("".join(f"{key} {value}\n" for key, value in options.items()))
        client = {
            "HostName": "127.0.0.1",
            "Port": port,
            "User": USER,
            "IdentityFile": folder / "client",
            "UserKnownHostsFile": folder / "known",
        }
        (folder / "config").write_text("Host db\n" + "".join(f"  {key} {value}\n" for key, value in client.items()))
        as_user = ("setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups") if os.geteuid() == 0 else ()
        program = folder / "sshd"  # what root has unpacked lies in a folder that others do not enter
        shutil.copy(debian.root / "usr/sbin/sshd", program)
        libraries = folder / "libraries"
        libraries.mkdir()
        for library in debian.libraries.glob("libwrap.so.0*"):
            shutil.copy(library, libraries)
        log = folder / "log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *as_user, program, "-D", "-e", "-f", folder / "sshd_config"],
                env={**os.environ, "LD_LIBRARY_PATH": str(libraries)},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
            )
        try:
            wait_until(lambda: _listens(port), "sshd", log, process)
            yield Sshd(port, log, folder / "config", process)
        finally:
            process.terminate()
            process.wait(10)


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5):
        return True
    return False


@pytest.fixture(autouse=True)
def _ssh_reads_the_tests_configuration(sshd: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ssh looks for its configuration in the home that the system knows, not in ``HOME``."""
    folder, real = tmp_path / "bin", shutil.which("ssh")
    folder.mkdir()
    (folder / "ssh").write_text(f'#!/bin/sh\nexec {real} -F {sshd.config} "$@"\n')
    (folder / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with temporary_cluster(find_binaries(), tcp=True) as server:
        with server.connect(autocommit=True) as connection:
            connection.execute("CREATE ROLE manager LOGIN CREATEDB CREATEROLE PASSWORD 'the manager''s'")
        yield server


@contextlib.contextmanager
def closing(driver: ServerDatabaseDriver) -> Iterator[Databases]:
    """End the tunnel afterwards, which would live on for ten minutes."""
    service, tunnel = Databases(driver), driver._engine.access.tunnel
    assert tunnel is not None
    try:
        yield service
    finally:
        tunnel.close()
        shutil.rmtree(tunnel._folder, ignore_errors=True)


def drop_at(monkeypatch: pytest.MonkeyPatch, sshd: Sshd) -> None:
    """Drop all connections once, when the next program has written or read its first megabyte."""
    real, dropped = database_servers.dumped, list[bool]()

    def dumped(command: Command) -> Iterator[bytes]:
        for number, piece in enumerate(real(command)):
            if number == 1 and not dropped:
                dropped.append(True)
                sshd.drop()
            yield piece

    for module in (database_servers, _servers_archive_mariadb):
        monkeypatch.setattr(module, "dumped", dumped)


def spec_of(name: str, engine: Engine, version: str) -> DatabaseSpec:
    return attrs.evolve(small_spec(name), engine=engine, version=version)


def test_postgresql_is_reached_through_a_port_that_only_the_other_machine_sees(
    cluster: Cluster, tmp_path: Path
) -> None:
    known = PostgresqlSettings(
        host="127.0.0.1",
        port=cluster.port,
        user="manager",
        password=Credential.literal("the manager's"),
        ssh="db",
        programs=cluster.binaries.folder,
    )
    with closing(open_server(known, tmp_path / "servers")) as databases:
        orders = databases.create(spec_of("orders", "postgresql", str(cluster.binaries.major)))
        assert orders.url().host.startswith("/")
        engine = orders.engine()
        with engine.begin() as connection:
            connection.execute(sqlalchemy.text("CREATE TABLE t AS SELECT 42 AS n"))
            who = "SELECT inet_server_port()"
            assert cluster.port == connection.execute(sqlalchemy.text(who)).scalar()
        engine.dispose()
        tunnel = databases.unwrap(ServerDatabaseDriver)._engine.access.tunnel
        assert tunnel is not None
        tunnel.close()  # as if ssh had ended: the next connection opens it again
        with contextlib.closing(orders.connect()) as connection:
            assert 42 == connection.cursor().execute("SELECT n FROM t").fetchone()[0]
        orders.snapshot("first")
        copy = orders.restore("copy", snapshot="first")
        with contextlib.closing(copy.connect()) as connection:
            assert 42 == connection.cursor().execute("SELECT n FROM t").fetchone()[0]
        for name in ("copy", "orders"):
            databases.delete(name, final_snapshot=False)
        assert 0o700 == tunnel._folder.stat().st_mode & 0o777


def test_mariadb_is_reached_through_a_port_that_only_the_other_machine_sees(
    mariadb: DatabaseServer, tmp_path: Path
) -> None:
    secret = Credential.literal(mariadb.password)
    known = MariadbSettings(host="127.0.0.1", port=mariadb.port, user=mariadb.admin, password=secret, ssh="db")
    with closing(open_server(known, tmp_path / "servers")) as databases:
        orders = databases.create(spec_of("orders", "mariadb", "10"))
        with contextlib.closing(orders.connect()) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT DATABASE()")
            assert ("shop",) == cursor.fetchone()
        databases.delete("orders", final_snapshot=False)


@pytest.mark.usefixtures("_somebody_else")
def test_mariadb_is_archived_and_restored_over_ssh_and_connections_that_drop_cost_nothing(
    debian: Debian, sshd: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, troubles = tmp_path / "servers", list[OperationError]()
    monkeypatch.setenv("PATH", f"{os.environ['PATH']}:{debian.environ['PATH']}")
    monkeypatch.setenv("LD_LIBRARY_PATH", debian.environ["LD_LIBRARY_PATH"])
    with (
        maria_db(debian, tmp_path / "office", *OPTIONS) as server,
        closing(driver_of(server, root, ssh="db")) as databases,
    ):
        orders = orders_with(databases, 1)
        server.execute("CREATE TABLE shop.large (t LONGTEXT)")
        server.execute("INSERT INTO large SELECT REPEAT(seq, 200000) FROM seq_1_to_100", database="shop")
        with archiving(databases, on_trouble=troubles.append) as told:
            drop_at(monkeypatch, sshd)
            with pytest.raises(Unavailable):
                databases.back_up()
            assert [] == stored(root, "base") == stored(root, "backups")
            within(lambda: bool(troubles), "the archiver to notice")
            assert {Unavailable} == {type(each) for each in troubles}
            databases.back_up()
            ask(orders, "INSERT INTO t VALUES (2)")
            when = second()
            sshd.drop()
            ask(orders, "INSERT INTO t VALUES (3)")
            after = second()
            within(lambda: told[-1].until > after, "the archiver to go on")
            drop_at(monkeypatch, sshd)
            with pytest.raises(Unavailable):
                orders.restore(declared("copy"), at=when)
            assert [1, 2] == numbers(orders.restore(declared("copy"), at=when))
            later = orders.restore(declared("later"), at=after)
            assert [1, 2, 3] == numbers(later)
            assert 100 == ask(later, "SELECT COUNT(*) FROM large")


def test_a_machine_that_lets_nobody_in_is_told(sshd: Sshd, tmp_path: Path) -> None:
    sshd.config.write_text(
        sshd.config.read_text() + f"Host other\n  HostName 127.0.0.1\n  Port {sshd.port}\n  User x\n"
    )
    known = PostgresqlSettings(ssh="other")
    with (
        closing(open_server(known, tmp_path / "servers")) as databases,
        pytest.raises(Unauthenticated, match="Permission"),
    ):
        list(databases.list())


def test_one_tunnel_serves_many_processes_and_ends_with_the_last(tmp_path: Path) -> None:
    tunnel = Tunnel("db", str(tmp_path / "nothing.sock"), "s", is_folder=False)
    try:
        tunnel.open()
        first = tunnel._ssh("-O", "check").stderr
        Tunnel("db", str(tmp_path / "nothing.sock"), "s", is_folder=False).open()
        assert first == tunnel._ssh("-O", "check").stderr
        assert b"Master running" in first
    finally:
        tunnel.close()
        shutil.rmtree(tunnel._folder, ignore_errors=True)

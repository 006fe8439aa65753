"""The way to a database server over ssh: opened when it is needed, once for all, through nobody else's socket.

A stand-in for ssh carries the socket here; tests/servers does it with OpenSSH's own on both sides.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

from shiftable.config import Credential
from shiftable.database import Databases
from shiftable.errors import ConfigError, Unauthenticated, Unavailable
from shiftable.postgresql import all_binaries, temporary_cluster
from shiftable.testing.conformance.database import small_spec
from shiftable_baremetal import MariadbSettings, PostgresqlSettings
from shiftable_baremetal._servers_tunnel import Tunnel
from shiftable_baremetal.database_servers import ServerDatabaseDriver, open_server

from ..certificates import certificate

BINARIES = max((found for found in all_binaries() if (found.folder / "pg_restore").exists()), key=lambda it: it.major)

SSH = f"""#!{sys.executable}
import os, pathlib, signal, socket, sys, threading

words = sys.argv[1:]
log = pathlib.Path(os.environ["SSH_LOG"])
with log.open("a") as file:
    print(*words, file=file)
master = pathlib.Path(words[words.index("-S") + 1] + ".pid")
if "-O" in words:
    if not master.exists():
        sys.exit("Control socket connect: No such file or directory")
    if words[words.index("-O") + 1] == "exit":
        os.kill(int(master.read_text()), signal.SIGTERM)
        master.unlink()
    sys.exit(0)
if words[-1] == "closed":
    print("Permission denied (publickey).", file=sys.stderr)
    sys.exit(255)
if words[-1] == "gone":
    sys.exit("ssh: connect to host gone port 22: Connection refused")
if words[-1] == "changed":
    sys.exit("@@@@@\\r\\n@ WARNING: IT HAS CHANGED!  @\\r\\n@@@@@\\r\\nHost key verification failed.")
here, _, target = words[words.index("-L") + 1].partition(":")
pathlib.Path(here).unlink(missing_ok=True)
listening = socket.socket(socket.AF_UNIX)
listening.bind(here)
listening.listen()
if child := os.fork():
    master.write_text(str(child))  # ssh, too, is there to be asked before it goes into the background
    os._exit(0)
os.setsid()


def carry(source, sink):
    while data := source.recv(65536):
        sink.sendall(data)
    sink.shutdown(socket.SHUT_WR)


def serve(near):
    if target.startswith("/"):
        far = socket.socket(socket.AF_UNIX)
        far.connect(target)
    else:
        host, _, port = target.rpartition(":")
        far = socket.create_connection((host, int(port)))
    threading.Thread(target=carry, args=(near, far), daemon=True).start()
    carry(far, near)


while True:
    threading.Thread(target=serve, args=(listening.accept()[0],), daemon=True).start()
"""


@pytest.fixture(autouse=True)
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Have the stand-in be the only ssh; return what it was called with."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/ssh").write_text(SSH)
    (tmp_path / "bin/ssh").chmod(0o755)
    (tmp_path / "log").touch()
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    monkeypatch.setenv("SSH_LOG", str(tmp_path / "log"))
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    return tmp_path / "log"


@contextlib.contextmanager
def closing(tunnel: Tunnel) -> Iterator[Tunnel]:
    try:
        yield tunnel
    finally:
        tunnel.close()
        shutil.rmtree(tunnel._folder, ignore_errors=True)


def tunnel_of(databases: Databases) -> Tunnel:
    tunnel = databases.unwrap(ServerDatabaseDriver)._engine.access.tunnel
    assert tunnel is not None
    return tunnel


def test_a_server_whose_socket_another_machine_has_is_used_as_any_other(log: Path, tmp_path: Path) -> None:
    with temporary_cluster(BINARIES) as cluster:
        known = PostgresqlSettings(host=cluster.host, ssh="me@db", programs=BINARIES.folder)
        databases = Databases(open_server(known, tmp_path / "servers"))
        with closing(tunnel_of(databases)) as tunnel:
            orders = databases.create(attrs.evolve(small_spec("orders"), version=str(BINARIES.major)))
            assert str(tunnel._folder) == orders.url().host != cluster.host
            engine = orders.engine()
            with engine.begin() as connection:
                connection.exec_driver_sql("CREATE TABLE t AS SELECT 42 AS n")
            engine.dispose()
            tunnel.close()  # the next connection opens it again
            with engine.begin() as connection:
                assert 42 == connection.exec_driver_sql("SELECT n FROM t").scalar()
            engine.dispose()
            orders.snapshot("first")
            with contextlib.closing(orders.restore("copy", snapshot="first").connect()) as connection:
                connection.cursor().execute("SELECT n FROM t")
    opened = [line for line in log.read_text().splitlines() if " -L " in line]
    assert 2 == len(opened)
    for option in ("BatchMode=yes", "ExitOnForwardFailure=yes", "ControlMaster=yes", "ControlPersist=600", "-- me@db"):
        assert option in opened[0]


def test_many_threads_open_one(log: Path, tmp_path: Path) -> None:
    with closing(Tunnel("db", str(tmp_path / "nowhere"), "s", is_folder=False)) as tunnel:
        threads = [threading.Thread(target=tunnel.open) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert 1 == log.read_text().count(" -L ")
        assert 0o700 == tunnel._folder.stat().st_mode & 0o777


def test_a_machine_that_lets_nobody_in_is_told(tmp_path: Path) -> None:
    databases = Databases(open_server(PostgresqlSettings(ssh="closed"), tmp_path))
    with closing(tunnel_of(databases)), pytest.raises(Unauthenticated, match="ssh to closed failed: Permission"):
        list(databases.list())


def test_a_machine_that_is_not_there_may_come_back(tmp_path: Path) -> None:
    databases = Databases(open_server(PostgresqlSettings(ssh="gone"), tmp_path))
    with closing(tunnel_of(databases)), pytest.raises(Unavailable, match="ssh to gone failed: ssh: connect to host"):
        list(databases.list())


def test_what_ssh_says_is_one_line(tmp_path: Path) -> None:
    """Of its warnings without their frame, and the control characters at their ends."""
    databases = Databases(open_server(PostgresqlSettings(ssh="changed"), tmp_path))
    with closing(tunnel_of(databases)), pytest.raises(Unauthenticated) as caught:
        list(databases.list())
    assert "ssh to changed failed: WARNING: IT HAS CHANGED! Host key verification failed." in str(caught.value)


@pytest.mark.parametrize("kind", [PostgresqlSettings, MariadbSettings])
def test_a_server_that_does_not_listen_beyond_ssh_is_told(
    tmp_path: Path, kind: type[PostgresqlSettings | MariadbSettings]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
    databases = Databases(open_server(kind(ssh="db", host="127.0.0.1", port=port, user="me", tls=False), tmp_path))
    why = f"ssh to db is open; does the server listen at 127.0.0.1:{port} there"
    with closing(tunnel_of(databases)), pytest.raises(Unavailable, match=why):
        list(databases.list())


def test_without_ssh_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    databases = Databases(open_server(PostgresqlSettings(ssh="db"), tmp_path))
    with closing(tunnel_of(databases)), monkeypatch.context() as patch:
        patch.setenv("PATH", str(tmp_path / "empty"))
        with pytest.raises(ConfigError, match="OpenSSH"):
            list(databases.list())


def test_a_folder_that_others_can_write_to_is_refused(tmp_path: Path) -> None:
    tunnel = Tunnel("db", str(tmp_path / "nowhere"), "s", is_folder=False)
    for make in (lambda: tunnel._folder.mkdir(0o777), lambda: tunnel._folder.symlink_to(tmp_path)):
        make()
        try:
            if not tunnel._folder.is_symlink():
                tunnel._folder.chmod(0o777)
            with pytest.raises(ConfigError, match="not this user's alone"):
                tunnel.open()
        finally:
            if tunnel._folder.is_symlink():
                tunnel._folder.unlink()
            else:
                tunnel._folder.rmdir()


@pytest.mark.parametrize(
    ("settings", "target", "host"),
    [
        (PostgresqlSettings(ssh="db"), "/run/postgresql/.s.PGSQL.5432", ""),
        (PostgresqlSettings(ssh="db", host="10.0.0.1", port=5433), "10.0.0.1:5433", ""),
        (MariadbSettings(ssh="db"), "/run/mysqld/mysqld.sock", "/mysqld.sock"),
        (MariadbSettings(ssh="db", host="db2"), "db2:3306", "/mysqld.sock"),
    ],
    ids=["socket", "address", "file", "name"],
)
def test_what_is_carried_is_what_the_settings_say(
    settings: PostgresqlSettings | MariadbSettings, target: str, host: str, tmp_path: Path
) -> None:
    access = open_server(settings, tmp_path)._engine.access
    assert access.tunnel is not None
    assert target == access.tunnel.target
    assert f"{access.tunnel._folder}{host}" == access.server("x", {}).host
    assert not access.server("x", {}).tls


def test_over_a_network_all_is_encrypted_unless_it_is_said_otherwise(tmp_path: Path) -> None:
    authority, _ = certificate(tmp_path)
    for tls, mode in ((True, "verify-full"), (False, None)):
        known = PostgresqlSettings(
            host="db.example",
            tls=tls,
            ca_bundle=authority,
            programs=BINARIES.folder,
            password=Credential.literal("c4n4ry"),
        )
        engine = open_server(known, tmp_path)._engine
        assert mode == engine.access.arguments("postgresql").get("sslmode")
        command = engine.dump("shop", BINARIES.version)
        assert mode == command.variables.get("PGSSLMODE")
        assert "c4n4ry" not in f"{command!r}"
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "mariadb-dump").write_text("#!/bin/sh\n")
    (programs / "mariadb-dump").chmod(0o755)
    for tls, lines in ((True, ['ssl-verify-server-cert="1"']), (False, [])):
        other = MariadbSettings(host="db.example", tls=tls, ca_bundle=authority, programs=programs)
        command = open_server(other, tmp_path)._engine.dump("shop", "10.11")
        found = command.secret.reveal().splitlines()
        assert lines == [line for line in found if line.startswith("ssl-verify")]
        assert 'protocol="tcp"' in found


def test_this_ssh_is_a_stand_in() -> None:
    done = subprocess.run(["ssh", "-S", "/nonexistent/x", "-O", "check", "--", "db"], check=False, capture_output=True)
    assert 1 == done.returncode

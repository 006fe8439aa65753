"""Real servers: programs of Debian's packages and npm's, started on loopback and stopped again."""

from __future__ import annotations

import contextlib
import functools
import os
import runpy
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs
import psycopg
import pymysql
import pytest

from . import nameservers

INSTALL = Path(__file__).with_name("install.py")
_INSTALLED = runpy.run_path(str(INSTALL))  # now: each test has a home of its own
ROOT: Path = _INSTALLED["ROOT"]
ARM64: Path = _INSTALLED["ARM64"] / "root"
NPM: Path = _INSTALLED["NPM"]
PATIENCE = 120
"""Seconds after which a server that has not answered never will."""


@attrs.frozen
class Debian:
    """Programs out of packages that were unpacked and not installed."""

    root: Path

    @property
    def libraries(self) -> Path:
        """Where the packages keep what they load."""
        return next((self.root / "usr/lib").glob("*-linux-gnu"))

    @property
    def environ(self) -> Mapping[str, str]:
        """Let programs find each other and their libraries here first."""
        libraries = self.libraries
        known = (libraries, libraries / "ceph", self.root / "lib" / libraries.name)
        path = f"{self.root}/usr/bin:{self.root}/usr/sbin:{os.environ['PATH']}"
        return {**os.environ, "PATH": path, "LD_LIBRARY_PATH": ":".join(map(str, known))}

    def run(self, *command: str | Path, data: bytes = b"") -> bytes:
        """Run a program to its end and return what it printed."""
        done = subprocess.run(command, env=self.environ, input=data, capture_output=True, check=False, timeout=PATIENCE)
        assert done.returncode == 0, f"{command} failed:\n{done.stderr.decode(errors='replace')[-4000:]}"
        return done.stdout

    def running(
        self, log: Path, *command: str | Path, unprivileged: bool = False
    ) -> contextlib.AbstractContextManager[subprocess.Popen[bytes]]:
        """Run a server until the end of the block."""
        return running(log, *command, environ=self.environ, unprivileged=unprivileged)


UNPRIVILEGED = ("unshare", "--user", "--map-user=1000") if os.geteuid() == 0 else ()
"""What databases want: they refuse root. A user namespace has another one, who may read what root unpacked."""


@contextlib.contextmanager
def running(
    log: Path, *command: str | Path, environ: Mapping[str, str], unprivileged: bool = False
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server until the end of the block; it ends as well when these tests are killed."""
    with log.open("wb") as out:
        server = subprocess.Popen(
            [*(UNPRIVILEGED if unprivileged else ()), "setpriv", "--pdeathsig", "KILL", *command],
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
        )
    try:
        yield server
    finally:
        server.terminate()
        try:
            server.wait(10)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


@pytest.fixture(scope="session")
def debian() -> Debian:
    if not ROOT.is_dir():
        pytest.fail(f"the servers are not here: run `nox -s servers`, or python {INSTALL} once", pytrace=False)
    return Debian(ROOT)


@pytest.fixture
def programs_find_their_libraries(debian: Debian, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have what the product starts be Debian's programs, by the environment, as on a machine that has the packages."""
    for name in ("PATH", "LD_LIBRARY_PATH"):
        monkeypatch.setenv(name, debian.environ[name])


def free_ports(count: int) -> list[int]:
    """Have the kernel choose ports of loopback that nobody uses now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [each.getsockname()[1] for each in sockets]


def wait_until(answers: Callable[[], bool], what: str, log: Path, server: subprocess.Popen[bytes]) -> None:
    """Wait until a server answers; fail with the end of its log if it ends or does not."""
    deadline = time.monotonic() + PATIENCE
    while not answers():
        if server.poll() is not None or time.monotonic() > deadline:
            end = log.read_text(errors="replace")[-4000:]
            pytest.fail(f"{what} does not answer (status {server.poll()}); its log ends with:\n{end}", pytrace=False)
        time.sleep(0.05)


# Ceph


@attrs.frozen
class Ceph:
    """One cluster: a monitor, an object store in memory, and the gateway that speaks S3.

    Args:
        folder: of its configuration and logs.
        processes: id of each, by program.
    """

    debian: Debian
    folder: Path
    endpoint: str
    processes: Mapping[str, int]
    access_key: str = "access"
    secret_key: str = "secret"

    def admin(self, *arguments: str) -> bytes:
        """Run the operator's own command, which goes to the object store and not through the gateway."""
        return self.debian.run("radosgw-admin", "--conf", self.folder / "ceph.conf", *arguments)


# Nobody has to log in inside the cluster: it ends with the tests and listens on loopback. One copy of everything, in
# memory, and a monitor that decides at once: the gateway answers after three seconds instead of forty.
CONFIG = """
[global]
fsid = {fsid}
mon_host = v2:127.0.0.1:{monitor}
public_addr = 127.0.0.1
cluster_addr = 127.0.0.1
auth_cluster_required = none
auth_service_required = none
auth_client_required = none
ms_mon_client_mode = crc

run_dir = {folder}
crash_dir = {folder}
admin_socket =
log_file =
log_to_stderr = true
err_to_stderr = true
log_max_recent = 100
plugin_dir = {libraries}/ceph
erasure_code_dir = {libraries}/ceph/erasure-code
osd_class_dir = {libraries}/rados-classes

mon_data = {folder}/mon
mon_osd_auto_mark_in = true
mon_allow_pool_size_one = true
mon_max_pg_per_osd = 1000
paxos_propose_interval = 0.02

osd_data = {folder}/osd
osd_objectstore = memstore
memstore_device_bytes = 4294967296
osd_crush_update_on_start = false
osd_crush_chooseleaf_type = 0
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_pool_default_pg_num = 1
osd_pool_default_pgp_num = 1
osd_pool_default_pg_autoscale_mode = off

rgw_data = {folder}/rgw
rgw_frontends = beast endpoint=127.0.0.1:{gateway}
rgw_thread_pool_size = 64
rgw_dynamic_resharding = false
"""


@pytest.fixture(scope="session")
def ceph(debian: Debian) -> Iterator[Ceph]:
    """Start a cluster with one user."""
    with tempfile.TemporaryDirectory(prefix="ceph-") as name, contextlib.ExitStack() as stack:
        folder, (monitor, gateway) = Path(name), free_ports(2)
        _prepare(debian, folder, monitor, gateway)
        servers = {}
        for program, identity in (("ceph-mon", ("-i", "a")), ("ceph-osd", ("-i", "0")), ("radosgw", ())):
            command = (program, "-f", "--conf", folder / "ceph.conf", *identity)
            servers[program] = stack.enter_context(debian.running(folder / f"{program}.log", *command))
        cluster = Ceph(
            debian,
            folder,
            f"http://127.0.0.1:{gateway}",
            {program: server.pid for program, server in servers.items()},
        )
        wait_until(lambda: _answers(cluster.endpoint), "radosgw", folder / "radosgw.log", servers["radosgw"])
        keys = ("--access-key", cluster.access_key, "--secret-key", cluster.secret_key)
        cluster.admin("user", "create", "--uid", "tests", "--display-name", "tests", *keys)
        yield cluster


def _prepare(debian: Debian, folder: Path, monitor: int, gateway: int) -> None:
    """Write the configuration and the empty stores: a map with one monitor, one with one object store."""
    for part in ("mon", "osd", "rgw"):
        (folder / part).mkdir()
    fsid, conf = str(uuid.uuid4()), folder / "ceph.conf"
    known = {"fsid": fsid, "folder": folder, "libraries": debian.libraries, "monitor": monitor, "gateway": gateway}
    conf.write_text(CONFIG.format(**known))
    monmap, osdmap, conf_ = folder / "monmap", folder / "osdmap", ("--conf", conf)
    debian.run("monmaptool", *conf_, "--create", "--fsid", fsid, "--addv", "a", f"[v2:127.0.0.1:{monitor}]", monmap)
    debian.run("osdmaptool", *conf_, "--createsimple", "1", "--osd_crush_chooseleaf_type", "0", osdmap)
    debian.run("ceph-mon", *conf_, "-i", "a", "--mkfs", "--monmap", monmap, "--osdmap", osdmap)
    debian.run("ceph-osd", *conf_, "-i", "0", "--mkfs", "--osd-uuid", fsid, "--no-mon-config")


def _answers(endpoint: str) -> bool:
    try:
        with urllib.request.urlopen(endpoint, timeout=5):  # noqa: S310  the gateway's
            return True
    except OSError:
        return False


# Azurite


@pytest.fixture(scope="session")
def azurite() -> Iterator[str]:
    """Start Microsoft's emulator of Azure Storage, in memory; return the URL of its account."""
    node, program = shutil.which("node"), NPM / "node_modules/azurite/dist/src/blob/main.js"
    if node is None or shutil.which("npm") is None:
        pytest.skip("Azurite comes from npm and runs on Node.js, which is not on the PATH")
    if not program.is_file():
        pytest.fail(f"Azurite is not here: run `nox -s servers`, or python {INSTALL} once", pytrace=False)
    (port,) = free_ports(1)
    options = ("--blobHost", "127.0.0.1", "--blobPort", str(port), "--inMemoryPersistence", "--silent")
    with tempfile.TemporaryDirectory(prefix="azurite-") as name:
        log, endpoint = Path(name) / "log", f"http://127.0.0.1:{port}"
        command = (node, program, *options, "--skipApiVersionCheck", "--disableTelemetry")
        with running(log, *command, environ={**os.environ, "HOME": name}) as server:
            wait_until(lambda: _listens(port), "Azurite", log, server)
            yield f"{endpoint}/devstoreaccount1"


def _listens(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5):
            return True
    except OSError:
        return False


# PostgreSQL


@attrs.frozen
class DatabaseServer:
    """A database server on loopback, and its administrator.

    Args:
        log: of the server, with every statement.
        client: connects as who is given.
        everything: a query for the names of its databases and users.
    """

    port: int
    log: Path
    client: Callable[..., Any]
    everything: str
    admin: str = "admin"
    password: str = "an administrator's"

    def holds(self) -> set[str]:
        """Return the names of all databases and users."""
        connection = self.client(host="127.0.0.1", port=self.port, user=self.admin, password=self.password)
        with contextlib.closing(connection), connection.cursor() as cursor:
            cursor.execute(self.everything)
            return {name for (name,) in cursor.fetchall()}


_SHARED = dict[DatabaseServer, set[str]]()
"""The servers that run for all tests, and what is known of what they hold."""
_KEPT = {"shiftable"}
"""The notes that shiftable keeps on a MariaDB of whose databases and users are its own: they outlast these."""


@contextlib.contextmanager
def _shared(server: DatabaseServer) -> Iterator[None]:
    _SHARED[server] = server.holds()
    yield
    del _SHARED[server]


@pytest.fixture(scope="module", autouse=True)
def _left_as_found() -> Iterator[None]:
    """Have each file of tests leave these servers as it found them: other files come in any order."""
    yield
    left = set[str]()
    for server, known in _SHARED.items():
        left |= server.holds() - known - _KEPT
        known.update(left)  # it is told once, and not of each file that comes after
    assert not left, f"databases or users are left behind: {', '.join(sorted(left))}"


@pytest.fixture(scope="session")
def _somebody_else() -> None:
    """Leave out databases where root can be nobody else: they would not start."""
    if UNPRIVILEGED and subprocess.run([*UNPRIVILEGED, "true"], check=False, capture_output=True).returncode:
        pytest.skip("this machine makes no user namespaces, and databases refuse to run as root")


@pytest.fixture(scope="session")
def own_mounts() -> None:
    """Leave out servers that have users of their own where nobody may mount these over the machine's."""
    probe = ["unshare", "--mount", "mount", "-t", "tmpfs", "tmpfs", "/run"]
    if os.geteuid() != 0 or subprocess.run(probe, check=False, capture_output=True).returncode:
        pytest.skip("only root, where it may mount, gives each server users of its own")


@pytest.fixture(scope="session")
def postgresql(debian: Debian, _somebody_else: None) -> Iterator[DatabaseServer]:
    """Start PostgreSQL, whose users log in with SCRAM and which logs each statement."""
    with tempfile.TemporaryDirectory(prefix="postgresql-") as name:
        folder, (port,) = Path(name), free_ports(1)
        client = functools.partial(psycopg.connect, dbname="postgres")
        everything = "SELECT datname FROM pg_database UNION SELECT rolname FROM pg_roles"
        server = DatabaseServer(port, folder / "log", client, everything)
        (folder / "password").write_text(server.password)
        programs = next((debian.root / "usr/lib/postgresql").glob("*/bin"))
        options = (f"--username={server.admin}", f"--pwfile={folder}/password", "--auth=scram-sha-256")
        debian.run(*UNPRIVILEGED, programs / "initdb", "--no-sync", "--no-locale", *options, folder / "data")
        settings = {
            "port": port,
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "fsync": "off",
            "log_statement": "all",
            "log_connections": "on",
        }
        command = (programs / "postgres", "-D", folder / "data", *(f"--{key}={each}" for key, each in settings.items()))
        with debian.running(server.log, *command, unprivileged=True) as process:
            wait_until(lambda: _lets_in(server), "PostgreSQL", server.log, process)
            with _shared(server):
                yield server


def _lets_in(server: DatabaseServer) -> bool:
    """Tell whether PostgreSQL has started up; it listens before."""
    where = {"host": "127.0.0.1", "port": server.port, "dbname": "postgres", "connect_timeout": 10}
    try:
        psycopg.connect(user=server.admin, password=server.password, **where).close()
    except psycopg.OperationalError:
        return False
    return True


# MariaDB


@pytest.fixture(scope="session")
def mariadb(debian: Debian, _somebody_else: None) -> Iterator[DatabaseServer]:
    """Start MariaDB, which logs each statement."""
    with tempfile.TemporaryDirectory(prefix="mariadb-") as name:
        folder, (port,) = Path(name), free_ports(1)
        everything = "SELECT schema_name FROM information_schema.schemata UNION SELECT user FROM mysql.user"
        server = DatabaseServer(port, folder / "statements", pymysql.connect, everything)
        (folder / "data").mkdir()
        share, program = debian.root / "usr/share/mysql", debian.root / "usr/sbin/mariadbd"
        plain = ("--no-defaults", f"--datadir={folder}/data", f"--lc-messages-dir={share}", f"--tmpdir={folder}")
        plain += (f"--plugin-dir={debian.root}/usr/lib/mysql/plugin", "--innodb-flush-log-at-trx-commit=0")
        names = ("mysql_system_tables.sql", "mysql_performance_tables.sql", "mysql_system_tables_data.sql")
        tables = b"".join((share / each).read_bytes() for each in names)
        admin = f"CREATE USER {server.admin}@'127.0.0.1' IDENTIFIED BY \"{server.password}\";\n"
        rights = f"GRANT ALL ON *.* TO {server.admin}@'127.0.0.1' WITH GRANT OPTION;\n"
        script = b"CREATE DATABASE mysql;\nUSE mysql;\n" + tables + f"\nFLUSH PRIVILEGES;\n{admin}{rights}".encode()
        debian.run(*UNPRIVILEGED, program, *plain, "--bootstrap", data=script)
        options = (f"--port={port}", "--bind-address=127.0.0.1", f"--socket={folder}/socket", "--skip-name-resolve")
        options += ("--general-log", f"--general-log-file={server.log}")
        log = folder / "log"
        with debian.running(log, program, *plain, *options, unprivileged=True) as process:
            wait_until(lambda: _listens(port), "MariaDB", log, process)
            with _shared(server):
                yield server


# Name servers


@pytest.fixture(scope="session")
def _name_server_folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="dns-") as name:
        yield Path(name)


@pytest.fixture(scope="session")
def bind(debian: Debian, _name_server_folder: Path) -> Iterator[Any]:
    """Start BIND, which has no zones: see `Bind` of nameservers.py."""
    folder, (port, control) = _name_server_folder / "bind", free_ports(2)
    folder.mkdir()
    with nameservers.bind(debian, folder, (port, control), wait_until) as server:
        yield server


@pytest.fixture(scope="session")
def knot(debian: Debian, _name_server_folder: Path) -> Iterator[Any]:
    """Start Knot, which has no zones."""
    folder, (port,) = _name_server_folder / "knot", free_ports(1)
    folder.mkdir()
    with nameservers.knot(debian, folder, port, wait_until) as server:
        yield server


@pytest.fixture(scope="session")
def powerdns(debian: Debian, _name_server_folder: Path) -> Iterator[Any]:
    """Start PowerDNS on SQLite, which has no zones."""
    folder, (port, web) = _name_server_folder / "powerdns", free_ports(2)
    folder.mkdir()
    with nameservers.powerdns(debian, folder, (port, web), wait_until) as server:
        yield server


class Servers:
    """Name servers of one's own, to be killed: each runs in a folder that the test keeps."""

    def bind(self, debian: Debian, folder: Path) -> Any:
        """Run BIND until the end of the block."""
        port, control = free_ports(2)
        return nameservers.bind(debian, folder, (port, control), wait_until)

    def knot(self, debian: Debian, folder: Path) -> Any:
        """Run Knot until the end of the block."""
        return nameservers.knot(debian, folder, free_ports(1)[0], wait_until)

    def powerdns(self, debian: Debian, folder: Path) -> Any:
        """Run PowerDNS until the end of the block."""
        port, web = free_ports(2)
        return nameservers.powerdns(debian, folder, (port, web), wait_until)


@pytest.fixture(scope="session")
def servers() -> Servers:
    return Servers()

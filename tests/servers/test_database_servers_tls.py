"""A PostgreSQL server over a network: everything is encrypted, and the server proves who it is."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import attrs
import psycopg
import pytest

from shiftable.config import Credential
from shiftable.database import Databases
from shiftable.errors import ConfigError, Unavailable
from shiftable.testing.conformance.database import small_spec
from shiftable_baremetal import PostgresqlSettings
from shiftable_baremetal.database_servers import open_server

from ..certificates import certificate
from .conftest import DatabaseServer, Debian

pytestmark = pytest.mark.usefixtures("programs_find_their_libraries")


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return certificate(tmp_path_factory.mktemp("tls"), address=None)[0]


@pytest.fixture(scope="module")
def encrypting(postgresql: DatabaseServer, authority: Path) -> Iterator[DatabaseServer]:
    """Have Debian's PostgreSQL speak TLS."""
    for path, name in ((authority.with_suffix(".key"), "key"), (authority, "certificate")):
        shutil.copy(path, postgresql.log.parent / "data" / name)
        (postgresql.log.parent / "data" / name).chmod(0o600)
    where = {"host": "127.0.0.1", "port": postgresql.port, "user": postgresql.admin, "password": postgresql.password}
    with psycopg.connect(dbname="postgres", autocommit=True, **where) as connection:  # type: ignore[arg-type]
        settings = {"ssl_key_file": "key", "ssl_cert_file": "certificate", "ssl": "on"}
        for name, value in settings.items():
            connection.execute(f"ALTER SYSTEM SET {name} = '{value}'".encode())
        connection.execute("SELECT pg_reload_conf()")
        yield postgresql
        for name in reversed(settings):
            connection.execute(f"ALTER SYSTEM RESET {name}".encode())
        connection.execute("SELECT pg_reload_conf()")


def databases_on(server: DatabaseServer, host: str, authority: Path, debian: Debian, root: Path) -> Databases:
    known = PostgresqlSettings(
        host=host,
        port=server.port,
        user=server.admin,
        password=Credential.literal(server.password),
        ca_bundle=authority,
        programs=next((debian.root / "usr/lib/postgresql").glob("*/bin")),
    )
    return Databases(open_server(known, root))


def test_connections_and_programs_are_encrypted_and_check_the_server(
    encrypting: DatabaseServer, authority: Path, debian: Debian, tmp_path: Path
) -> None:
    databases = databases_on(encrypting, "localhost", authority, debian, tmp_path / "servers")
    orders = databases.create(attrs.evolve(small_spec("orders"), version="15"))
    with contextlib.closing(orders.connect()) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
        assert (True,) == cursor.fetchone()
        cursor.execute("CREATE TABLE t AS SELECT 42 AS n")
        connection.commit()
    orders.snapshot("first")
    copy = orders.restore("copy", snapshot="first")
    with contextlib.closing(copy.connect()) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT n FROM t")
        assert (42,) == cursor.fetchone()
    for name in ("orders", "copy"):
        databases.delete(name, final_snapshot=False)


def test_a_server_that_is_another_one_is_not_talked_to(
    encrypting: DatabaseServer, authority: Path, debian: Debian, tmp_path: Path
) -> None:
    other, _ = certificate(tmp_path, address=None)
    for host, trusted, advice in (("127.0.0.1", authority, "`host` must"), ("localhost", other, "`ca_bundle` names")):
        databases = databases_on(encrypting, host, trusted, debian, tmp_path / "servers")
        with pytest.raises(Unavailable, match=f"certificate.*; {advice}") as caught:
            list(databases.list())
        assert isinstance(caught.value.__cause__, psycopg.OperationalError)


def test_authorities_that_are_none_are_told_by_their_setting(
    encrypting: DatabaseServer, authority: Path, debian: Debian, tmp_path: Path
) -> None:
    for path in (tmp_path / "nowhere.pem", authority.with_suffix(".key")):
        databases = databases_on(encrypting, "localhost", path, debian, tmp_path / "servers")
        with pytest.raises(ConfigError, match=rf"^postgresql\.ca_bundle: {path} is no file of certificates"):
            list(databases.list())

"""A MariaDB server over a network: all that talks to it is encrypted, and the server proves who it is."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import attrs
import pymysql
import pytest

from shiftable.config import Credential
from shiftable.database import Database, Databases, DatabaseSpec
from shiftable.errors import ConfigError, OperationError, Unavailable
from shiftable.masking import Masked
from shiftable.rotation import MysqlUser
from shiftable.testing.conformance.database import small_spec
from shiftable_baremetal import MariadbSettings
from shiftable_baremetal.database_servers import open_server

from ..baremetal.archived_server import archiving, within
from ..certificates import certificate
from .conftest import DatabaseServer, Debian
from .mysql_pair import MariaDb, maria_db

pytestmark = pytest.mark.usefixtures("programs_find_their_libraries")


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return certificate(tmp_path_factory.mktemp("tls"), address=None)[0]


@pytest.fixture(scope="module")
def encrypting(
    debian: Debian, _somebody_else: None, authority: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[MariaDb]:
    """Run a server that talks to nobody in clear."""
    folder = tmp_path_factory.mktemp("encrypting")
    for path, name in ((authority, "certificate"), (authority.with_suffix(".key"), "key")):
        shutil.copy(path, folder / name)
        (folder / name).chmod(0o644)
    options = (f"--ssl-cert={folder}/certificate", f"--ssl-key={folder}/key", "--log-bin=office-bin", "--server-id=7")
    more = (
        "--binlog-format=ROW",
        "--innodb-flush-log-at-trx-commit=1",
        "--sync-binlog=1",
        "--require-secure-transport",
    )
    with maria_db(debian, folder / "server", *options, *more) as server:
        with pytest.raises(pymysql.err.OperationalError, match="denied|secure"):
            server.execute("SELECT 1", ssl_disabled=True)
        yield server


def databases_on(server: MariaDb, root: Path, **options: Any) -> Databases:
    known = {"user": "admin", "password": Credential.literal(server.password), "archive_days": 7, **options}
    return Databases(open_server(MariadbSettings(port=server.port, **known), root))


def declared(name: str) -> DatabaseSpec:
    return attrs.evolve(small_spec(name), engine="mariadb", version="10")


def ask(database: Database, query: str) -> Any:
    with contextlib.closing(database.connect()) as connection, connection.cursor() as cursor:
        cursor.execute(query)
        row = cursor.fetchone()
        connection.commit()
        return row[-1] if row else None


def test_connections_programs_and_the_log_are_encrypted_and_check_the_server(
    encrypting: MariaDb, authority: Path, tmp_path: Path
) -> None:
    databases = databases_on(encrypting, tmp_path / "servers", host="localhost", ca_bundle=authority)
    orders = databases.create(declared("orders"))
    assert str(ask(orders, "SHOW STATUS LIKE 'Ssl_version'")).startswith("TLSv1.")
    ask(orders, "CREATE TABLE t (n INT PRIMARY KEY)")
    orders.snapshot("first")
    assert ask(orders.restore(declared("copy"), snapshot="first"), "SELECT COUNT(*) FROM t") == 0
    with archiving(databases, timedelta(seconds=2)) as told:
        databases.back_up()
        ask(orders, "INSERT INTO t VALUES (42)")
        when = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=1)
        within(lambda: told[-1].until >= when, "the archive to come to that time")
        ask(orders, "DELETE FROM t")
        assert ask(orders.restore(declared("then"), at=when), "SELECT n FROM t") == 42
    for database in list(databases.list()):
        databases.delete(database.name, final_snapshot=False)


def test_a_server_that_is_another_one_is_not_talked_to(encrypting: MariaDb, authority: Path, tmp_path: Path) -> None:
    other, _ = certificate(tmp_path, address=None)
    for host, trusted, advice in (("127.0.0.1", authority, "`host` must"), ("localhost", other, "`ca_bundle` names")):
        databases = databases_on(encrypting, tmp_path / "servers", host=host, ca_bundle=trusted)
        with pytest.raises(Unavailable, match=f"(?i)certificate.*; {advice}"):
            list(databases.list())
        with pytest.raises(Unavailable, match="(?i)certificate"):
            databases.back_up()
        told = list[OperationError]()
        databases.archive(on_trouble=told.append, stopped=lambda told=told: bool(told))
        assert "certificate" in str(told[0]).lower()


def test_a_rotator_tells_no_password_to_a_server_that_does_not_prove_itself(
    encrypting: MariaDb, authority: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shiftable.rotation._mysql.stays_here", lambda _host: False)
    other, _ = certificate(tmp_path, address=None)
    rotator = MysqlUser(admin=Credential.literal(encrypting.password), user="admin", port=encrypting.port)
    for options, why in (
        ({"host": "localhost"}, "certificate verify failed"),
        ({"host": "localhost", "ssl_ca": other}, "certificate verify failed"),
        ({"host": "127.0.0.1", "ssl_ca": authority}, "(?i)mismatch"),
        ({"host": "localhost", "ssl_mode": "disabled"}, "denied|insecure"),
    ):
        with pytest.raises(pymysql.err.OperationalError, match=why):
            attrs.evolve(rotator, **options).test(Masked(encrypting.password))
    for options in (
        {"host": "localhost", "ssl_ca": authority},
        {"host": "127.0.0.1", "ssl_ca": authority, "ssl_mode": "verify_ca"},
        {"host": "127.0.0.1", "ssl_mode": "required"},
    ):
        attrs.evolve(rotator, **options).test(Masked(encrypting.password))


def test_a_rotator_asks_a_server_without_tls_for_none(mariadb: DatabaseServer, monkeypatch: pytest.MonkeyPatch) -> None:
    value = Masked(mariadb.password)
    rotator = MysqlUser(admin=Credential.literal("x"), user=mariadb.admin, port=mariadb.port)
    rotator.test(value)
    attrs.evolve(rotator, ssl_mode="disabled").test(value)
    monkeypatch.setattr("shiftable.rotation._mysql.stays_here", lambda _host: False)
    with pytest.raises(pymysql.err.OperationalError, match="server doesn't support it"):
        rotator.test(value)
    attrs.evolve(rotator, ssl_mode="preferred").test(value)


def test_authorities_that_are_none_are_told_by_their_setting(
    encrypting: MariaDb, authority: Path, tmp_path: Path
) -> None:
    for path in (tmp_path / "nowhere.pem", authority.with_suffix(".key")):
        databases = databases_on(encrypting, tmp_path / "servers", host="localhost", ca_bundle=path)
        with pytest.raises(ConfigError, match=rf"^mariadb\.ca_bundle: {path} is no file of certificates"):
            list(databases.list())

"""Declarations, addresses and connections of databases."""

from __future__ import annotations

import socket
import struct
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
from sqlalchemy.engine import make_url

from shiftable.config import Place, structure
from shiftable.database import ENGINES, Databases, DatabaseSpec, DatabaseUrl, Engine, Login
from shiftable.database._rules import impossible_updates, merged
from shiftable.database.driver import DatabaseInfo, Server
from shiftable.errors import ConfigError, Conflict, InvalidArgument
from shiftable.masking import Masked
from shiftable.memory.database import FEATURES, MemoryDatabaseDriver
from shiftable.testing.conformance.database import small_spec

# declarations

TABLE = {"name": "orders", "engine": "postgresql", "version": "16", "cpus": 2, "memory_gib": 8, "storage_gib": 50}


def _read(**more: object) -> DatabaseSpec:
    return structure(DatabaseSpec, {**TABLE, **more}, Place("database.orders"))


def test_a_declaration_is_read_from_the_file() -> None:
    spec = _read(allow_from=["192.0.2.0/24"], parameters={"work_mem": "8MB"}, databases=["shop"], backup_days=0)
    assert (spec.allow_from, spec.parameters, spec.databases) == (("192.0.2.0/24",), {"work_mem": "8MB"}, ("shop",))
    assert (spec.deletion_protection, spec.public, spec.backup_days) == (True, False, 0)


def test_all_that_is_wrong_with_a_declaration_is_told() -> None:
    with pytest.raises(ConfigError) as caught:
        _read(engine="oracle", version=16, storage_gib="50", password="hunter2", color="red")
    for wrong in ("engine", "version", "storage_gib", "credential", "color"):
        assert wrong in str(caught.value)
    assert "hunter2" not in str(caught.value)
    with pytest.raises(ConfigError, match="16-beta"):
        _read(version="16-beta")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("engine", "oracle"),
        ("version", ""),
        ("cpus", 0),
        ("memory_gib", -1),
        ("backup_days", -1),
        ("allow_from", ("x",)),
    ],
)
def test_a_value_that_cannot_be_is_refused(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=field):
        attrs.evolve(small_spec("a"), **{field: value})


@pytest.mark.parametrize(
    ("engine", "name", "why"),
    [
        ("postgresql", "", "empty"),
        ("mysql", "", "empty"),
        ("postgresql", "a\0b", "NUL"),
        ("postgresql", "a\udcff", "no text"),
        ("postgresql", "x" * 64, "64 bytes"),
        ("postgresql", "\u00e9" * 32, "64 bytes"),
        ("mysql", "x" * 65, "65 characters"),
        ("mariadb", "\U0001f600", r"U\+FFFF"),
        ("mariadb", "shop ", "ends in a space"),
    ],
)
def test_a_name_that_an_engine_would_change_is_refused_before_anything_is_sent(
    engine: Engine, name: str, why: str
) -> None:
    for field in ("databases", "admin") if name else ("databases",):
        with pytest.raises(ValueError, match=f"{field}: .*{why}"):
            attrs.evolve(small_spec("a"), engine=engine, **{field: ("shop", name) if field == "databases" else name})
    databases = Databases(MemoryDatabaseDriver())
    found = databases.create(attrs.evolve(small_spec("a"), engine=engine))
    if engine != "postgresql" and not name:  # one connects there to no database
        assert "" == found.url(name).database
        return
    with pytest.raises(InvalidArgument, match=why):
        found.url(name)


@pytest.mark.parametrize("engine", ENGINES)
def test_the_longest_names_and_odd_ones_are_kept(engine: Engine) -> None:
    names = ("x" * 63, "\u00e9" * 31, "we\"ird %\\db'", "new\nline", " shop", "select")
    assert names == attrs.evolve(small_spec("a"), engine=engine, databases=names, admin="x" * 63).databases


def test_a_database_is_declared_once() -> None:
    with pytest.raises(ConfigError, match=r"databases: 'b' stands there twice"):
        _read(databases=["a", "b", "b"])


def test_a_declaration_leaves_open_what_it_does_not_say() -> None:
    wanted = attrs.evolve(small_spec("a"), labels={"a": "1"}, parameters={"p": "1"}, allow_from=("::/0", "0.0.0.0/0"))
    current = attrs.evolve(
        wanted,
        version="16.4",
        storage_gib=100,
        labels={"a": "1", "b": "2"},
        parameters={"p": "1", "q": "2"},
        databases=("other", "shop"),
        allow_from=("0.0.0.0/0", "::/0"),
    )
    assert merged(current, wanted) == current
    assert merged(current, attrs.evolve(wanted, version="17")).version == "17"
    assert merged(current, attrs.evolve(wanted, version="1")).version == "1"
    assert merged(current, attrs.evolve(wanted, storage_gib=200)).storage_gib == 200
    assert merged(current, attrs.evolve(wanted, databases=("new",))).databases == ("other", "shop", "new")


def test_only_what_needs_a_new_server_is_impossible() -> None:
    current = attrs.evolve(small_spec("a"), version="16.4")
    for possible in ({"version": "16"}, {"version": "17"}, {"version": "16.10"}, {"cpus": 1}, {"storage_gib": 21}):
        assert list(impossible_updates(current, attrs.evolve(current, **possible))) == []
    for impossible in ({"version": "15"}, {"version": "16.3"}, {"engine": "mysql"}, {"storage_gib": 19}):
        assert len(list(impossible_updates(current, attrs.evolve(current, **impossible)))) == 1


def test_sizes_that_are_rounded_up_are_no_difference() -> None:
    class Steps(MemoryDatabaseDriver):
        def rounded(self, spec: DatabaseSpec) -> DatabaseSpec:
            return attrs.evolve(spec, cpus=-(-spec.cpus // 2) * 2, memory_gib=-(-spec.memory_gib // 8) * 8)

        def create(self, spec: DatabaseSpec) -> None:
            super().create(self.rounded(spec))

    databases = Databases(Steps())
    spec = attrs.evolve(small_spec("a"), cpus=3, memory_gib=9)
    database = databases.create(spec)
    assert databases.describe("a").cpus == 4
    assert databases.diff(spec) == ()
    assert database.resize(cpus=3).cpus == 4
    assert database.info().state == "available"


# addresses


def _url(**more: Any) -> DatabaseUrl:
    given = {"engine": "postgresql", "host": "db.example", "port": 5432, "user": "shift@admin", "database": "shop"}
    return DatabaseUrl(**{**given, "login": lambda: Login(None, Masked("p/w")), **more})


@pytest.mark.parametrize(
    ("url", "text"),
    [
        (_url(), "postgresql://shift%40admin:***@db.example:5432/shop"),
        (_url(ca="/ca.pem"), "…@db.example:5432/shop?sslmode=verify-full&sslrootcert=%2Fca.pem"),
        (_url(host="2001:db8::1"), "…@[2001:db8::1]:5432/shop"),
        (_url(host="/run/pg"), "…@:5432/shop?host=%2Frun%2Fpg"),
        (
            _url(engine="mysql", port=3306, ca="/ca.pem"),
            "…@db.example:3306/shop?ssl_ca=%2Fca.pem&ssl_check_hostname=true",
        ),
        (_url(engine="mariadb", port=3306, host="/run/my.sock"), "…@:3306/shop?unix_socket=%2Frun%2Fmy.sock"),
    ],
)
def test_an_address_as_text_is_one_that_sqlalchemy_reads(url: DatabaseUrl, text: str) -> None:
    assert str(url) == text.replace("…", f"{url.engine}://shift%40admin:***")
    theirs, ours = make_url(url.reveal()), url.sqlalchemy()
    assert theirs.password == "p/w"
    assert ours.password is None
    assert (theirs.username, theirs.port, theirs.database) == (ours.username, ours.port, ours.database)
    assert ((theirs.host or "").strip("[]"), theirs.query) == (ours.host or "", ours.query)


def test_arguments_are_in_the_client_librarys_words() -> None:
    where = {"host": "db.example", "user": "shift@admin"}
    assert _url(ca="system").arguments() == {
        **where,
        "port": 5432,
        "dbname": "shop",
        "sslmode": "verify-full",
        "sslrootcert": "system",
    }
    assert _url(engine="mysql", database="", ca="/c").arguments() == {
        **where,
        "port": 5432,
        "database": None,
        "ssl": {"ca": "/c", "check_hostname": True},
    }
    assert _url(engine="mysql", host="/s").arguments() == {
        "unix_socket": "/s",
        "user": "shift@admin",
        "database": "shop",
    }
    assert _url(host="/run").arguments() == {"host": "/run", "port": 5432, "dbname": "shop", "user": "shift@admin"}


# connections


class _Postgres:
    """The first words of PostgreSQL's protocol: asks for a password in clear text and takes one."""

    def __init__(self) -> None:
        self.password = "first"
        self.asked: list[str] = []
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._socket.accept()
            except OSError:
                return
            with client, client.makefile("rwb") as stream:
                self._welcome(stream)

    def _welcome(self, stream: Any) -> None:
        while True:
            length, kind = struct.unpack("!ii", stream.read(8))
            stream.read(length - 8)
            if kind not in {80877103, 80877104}:  # wants TLS or GSS first
                break
            stream.write(b"N")
            stream.flush()
        self._send(stream, b"R", struct.pack("!i", 3))
        stream.read(1)
        (length,) = struct.unpack("!i", stream.read(4))
        self.asked.append(stream.read(length - 4).rstrip(b"\0").decode())
        if self.asked[-1] != self.password:
            fields = (b"SFATAL", b"VFATAL", b"C28P01", b'Mpassword authentication failed for user "shiftadmin"')
            self._send(stream, b"E", b"\0".join(fields) + b"\0\0")
            return
        self._send(stream, b"R", struct.pack("!i", 0))
        for setting in (b"client_encoding\0UTF8\0", b"server_version\00016.4\0", b"integer_datetimes\0on\0"):
            self._send(stream, b"S", setting)
        self._send(stream, b"K", struct.pack("!ii", 1, 1))
        self._send(stream, b"Z", b"I")
        stream.read(1)  # whatever comes next ends it

    def _send(self, stream: Any, kind: bytes, body: bytes) -> None:
        stream.write(kind + struct.pack("!i", len(body) + 4) + body)
        stream.flush()

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join()


@pytest.fixture
def postgres() -> Iterator[_Postgres]:
    pytest.importorskip("psycopg", reason="the client library is not installed")
    server = _Postgres()
    yield server
    server.close()


@attrs.define
class Rotating(MemoryDatabaseDriver):
    """Databases at a server that is there; keeps a password until it is told that it is wrong."""

    port: int = attrs.field(default=0, kw_only=True)
    current: Callable[[], str] = attrs.field(default=lambda: "", kw_only=True)
    kept: str = attrs.field(default="", kw_only=True)

    def info(self, name: str) -> DatabaseInfo:
        server = Server(host="127.0.0.1", port=self.port, admin="shiftadmin", tls=False)
        return attrs.evolve(MemoryDatabaseDriver.info(self, name), server=server)

    def password(self, name: str, given: object, *, fresh: bool) -> Masked:
        if fresh or not self.kept:
            self.kept = self.current()
        return Masked(self.kept)


def test_connections_outlive_a_rotation(postgres: _Postgres) -> None:
    features = attrs.evolve(FEATURES, connect=True)
    driver = Rotating(features, port=postgres.port, current=lambda: postgres.password)
    database = Databases(driver).create(small_spec("conf"))
    database.connect().close()
    postgres.password = "second"
    database.connect().close()
    assert postgres.asked == ["first", "first", "second"]
    engine = database.engine()
    assert "second" not in f"{engine!r} {engine.url!r}"
    postgres.password = "third"
    with pytest.raises(Exception) as caught:  # noqa: PT011  our server knows no queries; the password is all we test
        engine.connect()
    assert "password" not in str(caught.value)
    assert postgres.asked[3:] == ["second", "third"]


@pytest.mark.parametrize(
    ("engine", "version", "module", "told"),
    [
        ("mysql", "8.4", "pymysql", r'mysql needs PyMySQL: pip install "shiftable\[mysql\]"'),
        ("postgresql", "16", "psycopg", r'postgresql needs psycopg: pip install "shiftable\[postgresql\]"'),
    ],
)
def test_a_client_library_that_is_missing_is_named_with_the_extra_that_has_all_of_it(
    monkeypatch: pytest.MonkeyPatch, engine: Any, version: str, module: str, told: str
) -> None:
    driver = MemoryDatabaseDriver(attrs.evolve(FEATURES, connect=True))
    database = Databases(driver).create(attrs.evolve(small_spec("conf"), engine=engine, version=version))
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigError, match=told):
        database.connect()
    with pytest.raises(ConfigError, match=told):
        database.engine()


def test_sqlalchemy_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sqlalchemy", None)
    with pytest.raises(ConfigError, match=r"pip install 'shiftable\[sql\]'"):
        _url().sqlalchemy()


def test_tls_checks_the_certificate_and_the_name(tmp_path: Path) -> None:
    class Tls(MemoryDatabaseDriver):
        def info(self, name: str) -> DatabaseInfo:
            info = super().info(name)
            assert info.server is not None
            return attrs.evolve(info, server=attrs.evolve(info.server, ca=tmp_path / "ca.pem"))

    url = Databases(Tls()).create(small_spec("conf")).url()
    assert url.arguments()["sslmode"] == "verify-full"
    assert url.arguments()["sslrootcert"] == str(tmp_path / "ca.pem")


def test_the_systems_certificates_are_a_file_that_is_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What libpq calls `system` is a folder that its builder had: psycopg's wheel has one that is on no machine."""
    bundle = tmp_path / "bundle.pem"
    bundle.write_text("")
    monkeypatch.setenv("SSL_CERT_FILE", str(bundle))
    mysql = attrs.evolve(small_spec("conf"), engine="mysql", version="8.4")
    for spec in (small_spec("conf"), mysql):
        assert Databases(MemoryDatabaseDriver()).create(spec).url().ca == str(bundle)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "missing"))
    monkeypatch.setattr("shiftable.database._tls._BUNDLES", (str(bundle),))
    assert Databases(MemoryDatabaseDriver()).create(mysql).url().ca == str(bundle)
    monkeypatch.setattr("shiftable.database._tls._BUNDLES", ())
    assert Databases(MemoryDatabaseDriver()).create(small_spec("conf")).url().ca == "system"
    assert Databases(MemoryDatabaseDriver()).create(mysql).url().ca not in {None, "", "system"}


def test_an_address_is_refused_until_there_is_one() -> None:
    driver = MemoryDatabaseDriver(failing={"conf"})
    with pytest.raises(Conflict, match="it is failed"):
        Databases(driver).create(small_spec("conf")).url()


def test_a_database_that_the_server_calls_otherwise_is_asked_for_by_its_declared_name() -> None:
    class Shared(MemoryDatabaseDriver):
        def info(self, name: str) -> DatabaseInfo:
            server = Server(host="db.test", port=5432, admin="shiftadmin", databases={"shop": "conf--shop"})
            return attrs.evolve(super().info(name), server=server)

    database = Databases(Shared()).create(small_spec("conf"))
    assert "conf--shop" == database.url().database
    assert "conf--shop" == database.url("shop").database
    assert "other" == database.url("other").database

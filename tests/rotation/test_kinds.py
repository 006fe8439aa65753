"""Tokens, keys and accounts: what is made, what it is made of, and what is stored beside."""

from __future__ import annotations

import base64
import json
import re
import shutil
import ssl
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import attrs
import psycopg
import pymysql
import pytest
from cryptography.hazmat.primitives.serialization import load_ssh_private_key, load_ssh_public_key

from shiftable import sops
from shiftable.accounts import Account, password, read_account
from shiftable.config import Credential
from shiftable.errors import (
    ConfigError,
    Conflict,
    InvalidArgument,
    OperationError,
    PermissionDenied,
    Timeout,
    Unauthenticated,
    Unavailable,
)
from shiftable.masking import Masked
from shiftable.memory.secrets import MemorySecretsDriver
from shiftable.postgresql import Cluster
from shiftable.rotation import (
    AgeKey,
    MysqlAlternating,
    MysqlUser,
    PostgresqlAlternating,
    PostgresqlUser,
    RandomToken,
    Rotation,
    SshKey,
)
from shiftable.rotation._account import admin_account
from shiftable.secrets import Secrets, SecretStore
from shiftable.secrets.rotator import Rotator

from ..certificates import Encrypting, certificate, serving_tls
from .world import Clock, Killed

ADMIN = Credential.literal("an administrator's")


def made(rotator: Rotator) -> str:
    return rotator.create(None).reveal()


# tokens


@pytest.mark.parametrize(
    ("options", "pattern"),
    [
        ({}, r"[A-Za-z0-9]{40}"),
        ({"length": 64, "alphabet": "01"}, r"[01]{64}"),
        ({"length": 16, "format": "hex"}, r"[0-9a-f]{32}"),
        ({"length": 33, "format": "base64"}, r"[A-Za-z0-9+/]{44}"),
        ({"length": 32, "format": "base64url", "prefix": "sk_"}, r"sk_[A-Za-z0-9_-]{43}"),
    ],
    ids=["letters and digits", "an alphabet", "hex", "base64", "base64url with a prefix"],
)
def test_a_token_has_the_length_and_the_characters_that_are_declared(options: dict[str, Any], pattern: str) -> None:
    rotator = RandomToken(**options)
    found = {made(rotator) for _ in range(50)}
    assert 50 == len(found)
    assert all(re.fullmatch(pattern, token) for token in found)


def test_base64_tokens_are_as_many_bytes_as_are_declared() -> None:
    assert 33 == len(base64.b64decode(made(RandomToken(length=33, format="base64"))))


def test_each_character_of_the_alphabet_comes_about_equally_often() -> None:
    text = "".join(made(RandomToken(length=100, alphabet="abcd")) for _ in range(400))
    assert all(9_000 < text.count(letter) < 11_000 for letter in "abcd"), "40,000 in all; 7 sigma are 600"


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"length": 0}, "length must be at least 1"),
        ({"length": 10}, "length 10 makes 60 bits, which can be guessed; 64 are needed"),
        ({"length": 7, "format": "hex"}, "56 bits"),
        ({"alphabet": "aa"}, "each once"),
        ({"alphabet": "a"}, "at least two characters"),
    ],
    ids=["empty", "short", "few bytes", "twice", "one"],
)
def test_a_token_that_can_be_guessed_is_refused(options: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        RandomToken(**options)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"every": timedelta(0)}, "every must be longer than nothing"),
        ({"grace": -timedelta(seconds=1)}, "grace must not be negative"),
        ({"before": -timedelta(seconds=1)}, "before must not be negative"),
        ({"every": timedelta(hours=3), "grace": timedelta(hours=2)}, "at least twice as long as grace"),
    ],
    ids=["every", "grace", "before", "both"],
)
def test_times_that_make_no_sense_are_refused(options: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        RandomToken(**options)


def test_a_password_meets_the_usual_rules_and_needs_no_escaping() -> None:
    found = {password() for _ in range(200)}
    assert 200 == len(found)
    for each in found:
        assert re.fullmatch(r"[A-Za-z0-9._~]{40}", each)
        assert all(re.search(wanted, each) for wanted in ("[a-z]", "[A-Z]", "[0-9]", "[._~]"))


# keys


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(clock: Clock) -> SecretStore:
    return Secrets(MemorySecretsDriver(clock=clock)).store("shop")


def public_of_age(private: Masked) -> str:
    return sops.parse_identities(private).recipients[0]


def public_of_ssh(private: Masked) -> str:
    key = load_ssh_private_key(private.reveal_bytes(), None)
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return f"{key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()} shop@example.net"


KEYS: list[Any] = [
    pytest.param(AgeKey(public="key-public", grace=timedelta(hours=1)), public_of_age, id="age"),
    pytest.param(
        SshKey(public="key-public", comment="shop@example.net", grace=timedelta(hours=1)), public_of_ssh, id="ssh"
    ),
]


@pytest.mark.parametrize(("rotator", "public_of"), KEYS)
def test_both_public_halves_stand_beside_while_both_private_ones_are_in_use(
    rotator: Rotator, public_of: Callable[[Masked], str], store: SecretStore, clock: Clock
) -> None:
    rotation = Rotation(store, "key", rotator, clock)
    rotation.run(now=True)
    first = public_of(store.get("key").value)
    assert f"{first}\n" == store.get("key-public").reveal()
    rotation.run(now=True)
    second = public_of(store.get("key").value)
    assert first != second
    assert f"{second}\n{first}\n" == store.get("key-public").reveal()
    clock.advance(timedelta(hours=2))
    assert ("retire",) == rotation.run().steps
    assert f"{second}\n" == store.get("key-public").reveal()
    before = store.get("key-public").version
    rotation.run()
    assert before == store.get("key-public").version


@pytest.mark.parametrize(("rotator", "public_of"), KEYS)
def test_a_public_half_that_a_killed_run_left_out_is_stored_by_the_next(
    rotator: Rotator, public_of: Callable[[Masked], str], store: SecretStore, clock: Clock
) -> None:
    store.put("key", rotator.create(None))
    Rotation(store, "key", rotator, clock).run()
    assert f"{public_of(store.get('key').value)}\n" == store.get("key-public").reveal()


def test_an_ssh_key_is_one_that_openssh_reads() -> None:
    rotator = SshKey(public="beside", comment="me@here")
    private = rotator.create(None)
    assert private.reveal().startswith("-----BEGIN OPENSSH " + "PRIVATE KEY-----\n")
    (line,) = rotator.beside((private,))["beside"].splitlines()
    assert line.startswith("ssh-ed25519 ")
    assert line.endswith(" me@here")
    load_ssh_public_key(line.encode())


@pytest.mark.parametrize("rotator", [AgeKey(), SshKey()], ids=["age", "ssh"])
@pytest.mark.parametrize("value", ["", "text", "AGE-SECRET-KEY-1NONSENSE"], ids=["empty", "text", "nearly"])
def test_a_value_that_is_no_private_key_is_refused(rotator: Rotator, value: str) -> None:
    assert "it is no private key of that kind, or it has a passphrase" == rotator.check(Masked(value))
    assert rotator.check(rotator.create(None)) is None


def test_a_comment_of_two_lines_is_refused() -> None:
    with pytest.raises(ValueError, match="one line"):
        SshKey(comment="a\nssh-ed25519 AAAA")


# accounts


def test_a_document_is_read_as_aws_writes_it() -> None:
    text = '{"engine": "postgres", "username": "shop", "password": "x", "host": "h", "port": "5432", "dbname": "d"}'
    found = read_account(Masked(text), None)
    assert isinstance(found, Account)
    assert ("shop", "x", "h", 5432, "d") == (
        found.username,
        found.password.reveal(),
        found.host,
        found.port,
        found.dbname,
    )
    following = json.loads(found.following("other", "y").reveal())
    assert json.loads(text) | {"username": "other", "password": "y"} == following
    assert "x" not in repr(found)


@pytest.mark.parametrize("text", ["plain", "{not json", '["a"]', "12", '"quoted"'])
def test_what_is_no_json_object_is_a_password(text: str) -> None:
    found = read_account(Masked(text), "shop")
    assert isinstance(found, Account)
    assert ("shop", text) == (found.username, found.password.reveal())
    assert "new" == found.following("shop", "new").reveal()
    assert "it is no JSON document, and `user` is not given" == read_account(Masked(text), None)


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        '{"username": "shop"}',
        '{"username": 1, "password": "canary"}',
        '{"username": "", "password": "canary"}',
        '{"username": "shop", "password": "canary", "port": "x"}',
        '{"username": "shop", "password": "canary", "host": 1}',
    ],
)
def test_a_document_that_is_not_right_is_refused_without_showing_it(text: str) -> None:
    found = read_account(Masked(text), "shop")
    assert isinstance(found, str)
    assert "canary" not in found


def test_bytes_are_no_credential() -> None:
    assert "it is not text" == read_account(Masked(b"\xff"), "shop")


def test_an_administrator_without_a_name_is_told_which_key_gives_it() -> None:
    with pytest.raises(ConfigError, match="the credential `admin`: it is no JSON document, and `admin_user`"):
        admin_account(ADMIN, None)


DATABASES: list[Any] = [
    pytest.param(PostgresqlUser(user="shop"), id="postgresql"),
    pytest.param(MysqlUser(user="shop", admin=ADMIN, admin_user="admin"), id="mysql"),
]
ALTERNATING: list[Any] = [
    pytest.param(PostgresqlAlternating(users=("a", "b"), role="shop", admin=ADMIN), id="postgresql"),
    pytest.param(MysqlAlternating(users=("a", "b"), role="shop", admin=ADMIN), id="mysql"),
]


@pytest.mark.parametrize("rotator", ALTERNATING)
def test_the_user_who_is_not_current_has_the_next_turn(rotator: Rotator) -> None:
    def following(user: str) -> str:
        value = Masked(json.dumps({"username": user, "password": "x"}))
        assert rotator.check(value) is None
        found: str = json.loads(rotator.create(value).reveal())["username"]
        return found

    assert ["b", "a", "a"] == [following(user) for user in ("a", "b", "somebody else")]


@pytest.mark.parametrize("rotator", ALTERNATING)
def test_two_users_need_a_document(rotator: Rotator) -> None:
    assert "it is no JSON document with username and password" == rotator.check(Masked("a password"))


@pytest.mark.parametrize("rotator", ALTERNATING)
def test_a_pending_value_of_the_wrong_user_is_never_set(rotator: Rotator) -> None:
    old = Masked('{"username": "a", "password": "x"}')
    for user in ("a", "postgres"):
        with pytest.raises(Conflict, match="whose turn it is not"):
            rotator.set(Masked(json.dumps({"username": user, "password": "y"})), old, lambda: None)


@pytest.mark.parametrize("rotator", [*DATABASES, *ALTERNATING])
def test_a_credential_of_a_database_does_not_begin_from_nothing(rotator: Rotator) -> None:
    with pytest.raises(Conflict, match="store that one first"):
        rotator.create(None)


@pytest.mark.parametrize("kind", [PostgresqlAlternating, MysqlAlternating])
@pytest.mark.parametrize("users", [(), ("a",), ("a", "a"), ("a", "b", "c"), ("a", "")])
def test_users_that_are_not_two_are_refused(kind: Any, users: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="users|1 to 63 bytes"):
        kind(users=users, role="shop", admin=ADMIN)


def test_names_that_postgresql_would_cut_off_are_refused() -> None:
    with pytest.raises(ValueError, match="1 to 63 bytes"):
        PostgresqlUser(user="x" * 64)


@pytest.mark.parametrize("rotator", [*DATABASES, *ALTERNATING])
def test_the_password_in_a_document_is_a_part_that_no_message_shows(rotator: Rotator) -> None:
    value = Masked('{"username": "a", "password": "canary"}')
    assert ["canary"] == [part.reveal() for part in rotator.parts(value)[1:]]


# errors


class Connection:
    """What psycopg hangs on an error of a connection that failed."""

    def __init__(self, *, used_password: bool) -> None:
        self.used_password = used_password


@pytest.mark.parametrize(
    ("text", "used", "expected"),
    [
        ('FATAL:  password authentication failed for user "shop"', True, Unauthenticated),
        ('FATAL:  role "shop" is not permitted to log in', True, Unauthenticated),
        ("FATAL:  Passwort-Authentifizierung für Benutzer fehlgeschlagen", True, Unauthenticated),
        ('FATAL:  no pg_hba.conf entry for host "192.0.2.1"', False, PermissionDenied),
        ("FATAL:  sorry, too many clients already: remaining connection slots are reserved", True, OperationError),
        ("FATAL:  sorry, too many connections", True, Unavailable),
        ("connection to server failed: Connection refused", False, Unavailable),
        ("connection timeout expired", False, Timeout),
    ],
)
def test_a_connection_to_postgresql_that_fails_says_why(text: str, used: bool, expected: Any) -> None:  # noqa: FBT001
    error = psycopg.OperationalError(text, pgconn=Connection(used_password=used))  # type: ignore[arg-type]
    fault = PostgresqlUser().classify(error)
    assert fault is not None
    assert issubclass(fault.error, expected)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (1045, Unauthenticated),
        (4151, Unauthenticated),
        (1226, Unavailable),
        (1227, PermissionDenied),
        (1290, PermissionDenied),
        (1820, Unauthenticated),
        (2003, Unavailable),
        (3159, InvalidArgument),
        (9, OperationError),
    ],
)
def test_an_error_of_mysql_has_its_class(code: int, expected: type[OperationError]) -> None:
    fault = MysqlUser(admin=ADMIN).classify(pymysql.err.OperationalError(code, "told"))
    assert fault is not None
    assert (expected, "told", str(code)) == (fault.error, fault.message, fault.code)


@pytest.mark.parametrize("rotator", DATABASES)
def test_a_host_that_cannot_be_is_an_argument_and_no_bug(rotator: Rotator) -> None:
    with pytest.raises(UnicodeError) as caught:
        attrs.evolve(rotator, host=".shiftable/socket").test(Masked("a password"))  # type: ignore[call-arg]  # of both
    fault = rotator.classify(caught.value)
    assert fault is not None
    assert InvalidArgument is fault.error


@pytest.mark.parametrize("rotator", DATABASES)
def test_other_errors_are_not_the_servers(rotator: Rotator) -> None:
    assert rotator.classify(ValueError("a bug")) is None


@pytest.mark.parametrize(
    ("said", "postgresql", "mysql"),
    [
        ("certificate verify failed: unable to get local issuer certificate", "`sslrootcert` names", "`ssl_ca` names"),
        ("certificate verify failed: certificate has expired", "the server needs a new", "the server needs a new"),
        ("certificate verify failed: Hostname mismatch, certificate is", "`host` must be", "`host` must be"),
        ('server certificate for "b" does not match host name "a"', "`host` must be", "`host` must be"),
        ("server does not support SSL, but SSL was required", '`sslmode = "prefer"`', '`ssl_mode = "preferred"`'),
        ("SSL is required but the server doesn't support it", '`sslmode = "prefer"`', '`ssl_mode = "preferred"`'),
        ("no pg_hba.conf entry for host, no encryption", '`sslmode = "verify-full"`', '`ssl_mode = "verify_identity"`'),
        (
            "Connections using insecure transport are prohibited",
            '`sslmode = "verify-full"`',
            '`ssl_mode = "verify_identity"`',
        ),
    ],
)
def test_what_keeps_a_client_out_names_the_setting(said: str, postgresql: str, mysql: str) -> None:
    for rotator, error, advice in (
        (PostgresqlUser(), psycopg.OperationalError(said), postgresql),
        (MysqlUser(admin=ADMIN), pymysql.err.OperationalError(2003, said), mysql),
    ):
        fault = rotator.classify(error)
        assert fault is not None
        assert fault.message.startswith(f"{said}; ")
        assert advice in fault.message


@pytest.mark.parametrize("rotator", DATABASES)
def test_authorities_that_are_none_are_told_by_their_setting(rotator: Rotator, tmp_path: Path) -> None:
    setting = "ssl_ca" if isinstance(rotator, MysqlUser | MysqlAlternating) else "sslrootcert"
    trusting = attrs.evolve(rotator, **{setting: tmp_path / "nowhere.pem"})
    with pytest.raises(ConfigError, match=f"^{setting}: .*nowhere.pem is no file of certificates"):
        trusting.test(Masked(json.dumps({"username": "shop", "password": "a password"})))


HERE = ("localhost", "127.0.0.1", "127.8.9.10", "::1", "LOCALHOST.")
ELSEWHERE = ("db.example", "192.0.2.1", "2001:db8::1", "localhost.example", "127.1")


@pytest.mark.parametrize(
    ("hosts", "options", "mode"),
    [
        ((*HERE, None, "/run/postgresql", "@socket", "127.0.0.1,localhost"), {}, "prefer"),
        ((*ELSEWHERE, "127.0.0.1,db.example"), {}, "verify-full"),
        (ELSEWHERE, {"sslmode": "disable"}, "disable"),
        (HERE, {"sslrootcert": Path("ca.pem")}, "verify-full"),
    ],
)
def test_a_postgresql_elsewhere_proves_itself_unless_it_is_said_otherwise(
    hosts: tuple[str | None, ...], options: dict[str, Any], mode: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(certificate(tmp_path)[0], "ca.pem")
    for host in hosts:
        found = PostgresqlUser(**options)._tls(host)
        assert mode == found.pop("sslmode"), host
        if mode == "verify-full":
            assert Path(found.pop("sslrootcert")).is_file()
        assert {} == found


def test_what_the_environment_says_of_tls_stays_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    rotator = PostgresqlUser()
    for name in ("PGHOST", "PGHOSTADDR"):
        with monkeypatch.context() as patch:
            patch.setenv(name, "192.0.2.1")
            assert "verify-full" == rotator._tls(None)["sslmode"]
    monkeypatch.setenv("PGSSLMODE", "require")
    assert {"sslmode": "require"} == rotator._tls("192.0.2.1")
    ca, _ = certificate(tmp_path)
    assert {"sslmode": "verify-full", "sslrootcert": str(ca)} == PostgresqlUser(sslrootcert=ca)._tls("192.0.2.1")
    monkeypatch.setenv("PGSSLMODE", "verify-ca")
    monkeypatch.setenv("PGSSLROOTCERT", "/ca.pem")
    assert {"sslmode": "verify-ca"} == rotator._tls("localhost")
    monkeypatch.delenv("PGSSLROOTCERT")
    own = tmp_path / ".postgresql" / "root.crt"
    own.parent.mkdir()
    own.touch()
    monkeypatch.setenv("HOME", str(tmp_path))
    assert {"sslmode": "verify-ca", "sslrootcert": str(own)} == rotator._tls("localhost")


def test_a_mysql_elsewhere_proves_itself_unless_it_is_said_otherwise(tmp_path: Path) -> None:
    ca, _ = certificate(tmp_path)
    for host in HERE:
        assert {} == MysqlUser(admin=ADMIN)._tls(host)
    for host in ELSEWHERE:
        found = MysqlUser(admin=ADMIN)._tls(host)
        context = found.pop("ssl")
        assert {} == found
        assert (ssl.CERT_REQUIRED, True) == (context.verify_mode, context.check_hostname)
    context = MysqlUser(admin=ADMIN, ssl_ca=ca)._tls("localhost")["ssl"]
    assert [ca.stem] == [part[0][1] for each in context.get_ca_certs() for part in each["subject"]]
    assert (ssl.CERT_REQUIRED, True) == (context.verify_mode, context.check_hostname)
    modes = {"verify_ca": (ssl.CERT_REQUIRED, False), "required": (ssl.CERT_NONE, False)}
    for mode, wanted in modes.items():
        context = MysqlUser(admin=ADMIN, ssl_mode=mode)._tls("db.example")["ssl"]  # type: ignore[arg-type]
        assert wanted == (context.verify_mode, context.check_hostname)
    assert {"ssl_disabled": True} == MysqlUser(admin=ADMIN, ssl_mode="disabled")._tls("db.example")
    assert {} == MysqlUser(admin=ADMIN, ssl_mode="preferred")._tls("db.example")


def test_nobody_gets_a_password_who_does_not_prove_who_it_is(
    postgresql_cluster: Cluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("shiftable.rotation._postgresql.stays_here", lambda host: host is None)
    ca, key = certificate(tmp_path)
    other, its_key = certificate(tmp_path, "db.example", "192.0.2.1")
    value = Masked(json.dumps({"username": "nobody", "password": "a password"}))
    with (
        Encrypting(serving_tls(ca, key), postgresql_cluster.port) as right,
        Encrypting(serving_tls(other, its_key), postgresql_cluster.port) as wrong,
        Encrypting(None, postgresql_cluster.port) as clear,
    ):
        rotator = PostgresqlUser(host="127.0.0.1")
        for port, options, why in (
            (right.port, {}, "certificate verify failed"),
            (right.port, {"sslrootcert": other}, "certificate verify failed"),
            (wrong.port, {"sslrootcert": other}, "does not match host name"),
            (clear.port, {"sslrootcert": ca}, "server does not support SSL"),
            (right.port, {"sslrootcert": ca}, "authentication failed"),
            (right.port, {"sslmode": "require"}, "authentication failed"),
        ):
            with pytest.raises(psycopg.OperationalError, match=why):
                attrs.evolve(rotator, port=port, **options).test(value)  # type: ignore[arg-type]  # of several types


# MySQL, of which Debian has no server: what it is told


class Told:
    """A cursor of a MySQL 8 that lets only some passwords in."""

    def __init__(self, version: str = "8.4.3", accepted: tuple[str, ...] = ("old",)) -> None:
        self.version, self.accepted, self.statements = version, accepted, list[tuple[str, Any]]()

    def execute(self, statement: str, values: Any = ()) -> None:
        self.statements.append((statement, values))

    def fetchone(self) -> tuple[Any, ...] | None:
        last = self.statements[-1][0]
        told = {"SELECT VERSION()": self.version, "SELECT GET_LOCK(%s, %s)": 1, "SELECT CURRENT_USER()": "shop@%"}
        return (told[last],) if last in told else None

    def fetchall(self) -> list[tuple[Any, ...]]:
        return []

    def connect(self, *, user: str, password: str, **_: Any) -> Told:
        if user == "shop" and password not in self.accepted:
            raise pymysql.err.OperationalError(1045, "Access denied")
        return self

    cursor = __enter__ = lambda self: self

    def __exit__(self, *_: object) -> None: ...

    @property
    def changes(self) -> list[tuple[str, Any]]:
        return [each for each in self.statements if not each[0].startswith("SELECT")]


class Dual(Told):
    """One whose user may have two passwords, as the manual of MySQL 8.4 says of ALTER USER (Dual Password)."""

    def __init__(self, first: str, second: str | None = None, *, readable: bool = True) -> None:
        super().__init__()
        self.passwords, self.readable = (first, second), readable

    def execute(self, statement: str, values: Any = ()) -> None:
        super().execute(statement, values)
        first, second = self.passwords
        if "mysql.user" in statement and not self.readable:
            raise pymysql.err.OperationalError(1142, "SELECT command denied to user 'admin'@'%' for table 'user'")
        if statement.endswith("RETAIN CURRENT PASSWORD"):
            self.passwords = (values[2], first)
        elif statement.startswith("ALTER USER %s@%s IDENTIFIED BY"):
            self.passwords = (values[2], second)
        self.accepted = tuple(each for each in self.passwords if each)

    def fetchone(self) -> tuple[Any, ...] | None:
        if "additional_password" in self.statements[-1][0]:
            return (int(self.passwords[1] is not None),)
        return super().fetchone()


def test_mysql_keeps_the_old_password_as_the_second_one_and_only_once(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Told()
    monkeypatch.setattr(pymysql, "connect", server.connect)
    rotator = MysqlUser(user="shop", admin=ADMIN, admin_user="admin")
    rotator.set(Masked("new"), Masked("old"), lambda: None)
    wanted = ("ALTER USER %s@%s IDENTIFIED BY %s RETAIN CURRENT PASSWORD", ("shop", "%", "new"))
    assert [wanted] == server.changes
    server.accepted = ("old", "new")
    rotator.set(Masked("new"), Masked("old"), lambda: None)
    assert [wanted] == server.changes, "a second time the new one would take the place of the old one"
    rotator.retire(Masked("old"), Masked("new"), lambda: None)
    assert ("ALTER USER %s@%s DISCARD OLD PASSWORD", ("shop", "%")) == server.changes[-1]


@pytest.mark.parametrize("readable", [True, False])
@pytest.mark.parametrize("passwords", [("given up", "old"), ("old", "older"), ("old", None)])
def test_mysql_keeps_the_old_password_also_where_a_pending_value_was_given_up(
    passwords: tuple[str, str | None], monkeypatch: pytest.MonkeyPatch, *, readable: bool
) -> None:
    server = Dual(*passwords, readable=readable)
    server.accepted = tuple(each for each in passwords if each)
    monkeypatch.setattr(pymysql, "connect", server.connect)
    refused: list[str] = []

    def execute(statement: str, values: Any = (), real: Any = server.execute) -> None:
        real(statement, values)
        refused.extend([] if "old" in server.passwords else [statement])

    monkeypatch.setattr(server, "execute", execute)
    MysqlUser(user="shop", admin=ADMIN, admin_user="admin").set(Masked("new"), Masked("old"), lambda: None)
    assert ("new", "old") == server.passwords
    assert [] == refused, "at no moment a client that has the current value"
    assert [1, 2][passwords[1] is not None or not readable] == len(server.changes)


def test_a_password_that_mysql_refuses_by_now_is_not_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Dual("by hand", "older")
    monkeypatch.setattr(pymysql, "connect", server.connect)
    MysqlUser(user="shop", admin=ADMIN, admin_user="admin").set(Masked("new"), Masked("old"), lambda: None)
    assert ("new", "by hand") == server.passwords


def test_mysql_makes_a_user_who_is_missing_with_the_password_that_its_rules_want(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server = Told()
    monkeypatch.setattr(pymysql, "connect", server.connect)
    rotator = MysqlAlternating(users=("a", "b"), role="r", admin=ADMIN, admin_user="admin")
    old, new = (Masked(json.dumps({"username": user, "password": user * 3})) for user in "ba")
    rotator.set(new, old, lambda: None)
    assert [
        ("CREATE USER IF NOT EXISTS %s@%s IDENTIFIED BY %s ACCOUNT LOCK", ("a", "%", "aaa")),
        ("ALTER USER %s@%s IDENTIFIED BY %s ACCOUNT UNLOCK", ("a", "%", "aaa")),
        ("GRANT %s TO %s@%s", ("r", "a", "%")),
        ("ALTER USER %s@%s DEFAULT ROLE %s", ("a", "%", "r")),
    ] == server.changes


def test_a_lock_that_is_not_had_in_time_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Told()
    monkeypatch.setattr(server, "fetchone", lambda: (0,))
    monkeypatch.setattr(pymysql, "connect", server.connect)
    with pytest.raises(Timeout, match="waited 10 seconds for another run that changes 'shop'"):
        MysqlUser(user="shop", admin=ADMIN, admin_user="admin").set(Masked("new"), Masked("old"), lambda: None)
    assert [] == server.changes


def test_a_run_that_ends_inside_is_no_error_of_the_target(store: SecretStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def ends(*_: Any) -> Masked:
        raise Killed

    monkeypatch.setattr(RandomToken, "create", ends)
    with pytest.raises(Killed):
        Rotation(store, "key", RandomToken()).run(now=True)


def test_what_postgresql_says_of_a_login_that_fails_is_told(store: SecretStore, postgresql_cluster: Cluster) -> None:
    """The exceptions of psycopg hold the password, and what shows a value is withheld."""
    where = {"host": postgresql_cluster.host, "port": postgresql_cluster.port}
    store.put("login", json.dumps({"username": "nobody", "password": "a canary that is wrong", **where}))
    with pytest.raises(Unauthenticated, match='password authentication failed for user "nobody"') as caught:
        Rotation(store, "login", PostgresqlUser()).run(now=True)
    told = f"{caught.value}{caught.value.__cause__!r}{vars(caught.value.__cause__ or caught.value)}"
    assert "canary" not in told


def test_what_the_administrator_lacks_is_told() -> None:
    class Denied(psycopg.errors.InsufficientPrivilege):
        diag = SimpleNamespace(  # type: ignore[assignment]
            message_primary="permission denied to alter role",
            message_detail='You lack ADMIN of "old".',
        )

    fault = PostgresqlUser().classify(Denied("told"))
    assert fault is not None
    assert (PermissionDenied, "42501") == (fault.error, fault.code)
    assert 'permission denied to alter role: You lack ADMIN of "old".' == fault.message

"""Passwords change on real servers, while clients log in all the time; and no server ever logs one."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import attrs
import psycopg
import pymysql
import pytest
from psycopg import sql

from shiftable.app import App, load
from shiftable.config import Credential
from shiftable.errors import Conflict, OperationError, PermissionDenied, Unauthenticated, Unavailable
from shiftable.masking import Masked
from shiftable.rotation import MysqlAlternating, MysqlUser, PostgresqlAlternating, PostgresqlUser, rotations
from shiftable.secrets import Secret
from shiftable.secrets.rotator import Rotator

ROTATIONS = 10
GRACE = timedelta(hours=1)
CLIENTS = 4


def nothing() -> None:
    pass


def document(user: str, password: str, port: int, dbname: str) -> str:
    facts = {
        "username": user,
        "password": password,
        "host": "127.0.0.1",
        "port": port,
        "dbname": dbname,
        "team": "core",
    }
    return json.dumps(facts)


# the servers, each by its own client


@attrs.frozen
class Postgresql:
    """PostgreSQL, with a database and the role that owns its table."""

    port: int
    admin: str
    password: str
    log: Path
    dbname: str = "shop"
    role: str = 'sh"op; --'
    users: tuple[str, str] = ("shop_a'", 'Shop "B"')

    def connect(self, user: str, password: str) -> psycopg.Connection:
        where = {"host": "127.0.0.1", "port": self.port, "dbname": self.dbname}
        return psycopg.connect(user=user, password=password, connect_timeout=10, **where)

    def query(self, user: str, password: str) -> None:
        """Log in, and use the application's table, whoever made it."""
        with self.connect(user, password) as connection:
            row = connection.execute("UPDATE orders SET count = count + 1 RETURNING count").fetchone()
            assert row is not None

    def lets_in(self, user: str, password: str) -> bool:
        try:
            self.connect(user, password).close()
        except psycopg.OperationalError:
            return False
        return True

    def cut_off(self) -> None:
        """End the connections of rotators."""
        where = {"host": "127.0.0.1", "port": self.port, "user": self.admin, "password": self.password}
        with psycopg.connect(dbname="postgres", **where) as connection:
            wanted = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = %s"
            assert connection.execute(wanted, ["shiftable rotation"]).fetchall()

    def clear(self) -> None:
        where = {"host": "127.0.0.1", "port": self.port, "user": self.admin, "password": self.password}
        with psycopg.connect(dbname="postgres", autocommit=True, **where) as connection:
            connection.execute("DROP DATABASE IF EXISTS shop WITH (FORCE)")
            for name in (*self.users, "shop", "changer", self.role):
                connection.execute(sql.SQL("DROP ROLE IF EXISTS {}").format(sql.Identifier(name)))

    def prepare(self) -> None:
        self.clear()
        where = {"host": "127.0.0.1", "port": self.port, "user": self.admin, "password": self.password}
        with psycopg.connect(dbname="postgres", autocommit=True, **where) as connection:
            connection.execute(sql.SQL("CREATE ROLE {}").format(sql.Identifier(self.role)))
            connection.execute("CREATE ROLE shop LOGIN PASSWORD 'the first one'")
            connection.execute(sql.SQL("GRANT {} TO shop").format(sql.Identifier(self.role)))
            connection.execute("CREATE ROLE changer LOGIN CREATEROLE PASSWORD 'a changer''s'")
            connection.execute(sql.SQL("CREATE DATABASE shop OWNER {}").format(sql.Identifier(self.role)))
        with psycopg.connect(dbname="shop", **where) as connection:
            connection.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(self.role)))
            connection.execute("CREATE TABLE orders AS SELECT 0 AS count")

    def alternating(self, **options: Any) -> PostgresqlAlternating:
        options = {"admin": Credential.literal("a changer's"), "admin_user": "changer"} | options
        return PostgresqlAlternating(users=self.users, role=self.role, **options)

    def single(self, **options: Any) -> PostgresqlUser:
        return PostgresqlUser(**options)


@attrs.frozen
class Mariadb:
    """MariaDB, with a database and the role that may use its table."""

    port: int
    admin: str
    password: str
    log: Path
    dbname: str = "shop"
    role: str = "sh'op"
    users: tuple[str, str] = ("shop_a'", "Shop `B`")

    def connect(self, user: str, password: str) -> Any:
        return pymysql.connect(
            host="127.0.0.1", port=self.port, user=user, password=password, database=self.dbname, connect_timeout=10
        )

    def query(self, user: str, password: str) -> None:
        with self.connect(user, password) as connection, connection.cursor() as cursor:
            assert 1 == cursor.execute("UPDATE orders SET count = count + 1")
            connection.commit()

    def lets_in(self, user: str, password: str) -> bool:
        try:
            self.connect(user, password).close()
        except pymysql.err.OperationalError:
            return False
        return True

    def cut_off(self) -> None:
        """End the connections of rotators."""
        connection = pymysql.connect(host="127.0.0.1", port=self.port, user=self.admin, password=self.password)
        with connection, connection.cursor() as cursor:
            wanted = "SELECT id FROM information_schema.processlist WHERE user IN (%s, %s) AND id <> CONNECTION_ID()"
            assert cursor.execute(wanted, (self.admin, "changer"))
            for (number,) in cursor.fetchall():
                cursor.execute("KILL CONNECTION %s", (number,))

    def clear(self) -> None:
        connection = pymysql.connect(host="127.0.0.1", port=self.port, user=self.admin, password=self.password)
        with connection, connection.cursor() as cursor:
            cursor.execute("DROP DATABASE IF EXISTS shop")
            for name in (*self.users, "shop", "changer"):
                cursor.execute("DROP USER IF EXISTS %s@'%%'", (name,))
            for host in ("127.0.0.1", "localhost"):
                for name in (self.users[0], "shop"):
                    cursor.execute("DROP USER IF EXISTS %s@%s", (name, host))
            cursor.execute("DROP ROLE IF EXISTS %s", (self.role,))

    def prepare(self) -> None:
        self.clear()
        connection = pymysql.connect(host="127.0.0.1", port=self.port, user=self.admin, password=self.password)
        with connection, connection.cursor() as cursor:
            cursor.execute("CREATE DATABASE shop")
            cursor.execute("CREATE TABLE shop.orders AS SELECT 0 AS count")
            cursor.execute("CREATE ROLE %s", (self.role,))
            cursor.execute("GRANT ALL ON shop.* TO %s", (self.role,))
            cursor.execute("CREATE USER shop@'%%' IDENTIFIED BY 'the first one'", ())
            cursor.execute("GRANT ALL ON shop.* TO shop@'%%'", ())
            cursor.execute("CREATE USER changer@'%%' IDENTIFIED BY 'a changer''s'", ())
            cursor.execute("GRANT CREATE USER ON *.* TO changer@'%%'", ())
            cursor.execute("GRANT %s TO changer@'%%' WITH ADMIN OPTION", (self.role,))

    def execute(self, *statements: str) -> None:
        """Carry out statements as the administrator."""
        connection = pymysql.connect(host="127.0.0.1", port=self.port, user=self.admin, password=self.password)
        with connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)

    def alternating(self, **options: Any) -> MysqlAlternating:
        return MysqlAlternating(users=self.users, role=self.role, **self._admin(options))

    def single(self, **options: Any) -> MysqlUser:
        return MysqlUser(**self._admin(options))

    def _admin(self, options: dict[str, Any]) -> dict[str, Any]:
        return {"admin": Credential.literal("a changer's"), "admin_user": "changer"} | options


Server = Postgresql | Mariadb


@pytest.fixture(params=["postgresql", "mariadb"])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    running = request.getfixturevalue(request.param)
    kind = Postgresql if request.param == "postgresql" else Mariadb
    made = kind(running.port, running.admin, running.password, running.log)
    made.prepare()
    yield made
    made.clear()


def facts(value: Masked) -> tuple[str, str]:
    content = json.loads(value.reveal())
    return content["username"], content["password"]


def logged(server: Server) -> str:
    return server.log.read_text(errors="replace")


# the steps, each more than once


def test_alternating_users_take_turns_and_only_the_old_one_is_refused_when_it_is_retired(server: Server) -> None:
    rotator = server.alternating()
    values = [Masked(document("shop", "the first one", server.port, server.dbname))]
    for turn in range(3):
        old, new = values[-1], rotator.create(values[-1])
        assert server.users[turn % 2] == facts(new)[0]
        assert "core" == json.loads(new.reveal())["team"]
        for _ in range(2):
            rotator.set(new, old, nothing)
        rotator.test(new)
        server.query(*facts(new))
        server.query(*facts(old))
        for _ in range(2):
            rotator.retire(old, new, nothing)
        assert not server.lets_in(*facts(old))
        server.query(*facts(new))
        values.append(new)


def test_an_application_that_had_the_administrators_login_does_not_end_it(server: Server) -> None:
    rotator = server.alternating(**_own_admin(server))
    old = Masked(document(server.admin, server.password, server.port, server.dbname))
    new = rotator.create(old)
    rotator.set(new, old, nothing)
    rotator.retire(old, new, nothing)
    assert server.lets_in(server.admin, server.password)
    assert server.lets_in(*facts(new))


def test_no_password_is_in_the_log_of_the_server(server: Server) -> None:
    value = Masked(document("shop", "the first one", server.port, server.dbname))
    seen = []
    for rotator in (server.single(**_own_admin(server)), server.alternating()):
        new = rotator.create(value)
        rotator.set(new, value, nothing)
        rotator.test(new)
        rotator.retire(value, new, nothing)
        seen.append(facts(new)[1])
        value = new
    log = logged(server)
    assert "ALTER" in log, "the server logs statements"
    assert [] == [password for password in seen if password in log]


def _own_admin(server: Server) -> dict[str, Any]:
    return {"admin": Credential.literal(server.password), "admin_user": server.admin}


@pytest.mark.parametrize("form", ["document", "password"])
def test_a_single_user_gets_a_new_password(server: Server, form: str) -> None:
    is_document = form == "document"
    options = {} if is_document else {"user": "shop", "host": "127.0.0.1", "port": server.port, "dbname": "shop"}
    rotator = server.single(**options, **_own_admin(server))
    old = Masked(document("shop", "the first one", server.port, "shop") if is_document else "the first one")
    new = rotator.create(old)
    for _ in range(2):
        rotator.set(new, old, nothing)
        rotator.test(new)
    password = facts(new)[1] if is_document else new.reveal()
    server.query("shop", password)
    assert isinstance(server, Mariadb) is server.lets_in("shop", "the first one"), "MariaDB takes both for a while"
    for _ in range(2):
        rotator.retire(old, new, nothing)
    assert not server.lets_in("shop", "the first one")
    server.query("shop", password)


@pytest.mark.parametrize("server", ["postgresql"], indirect=True)
def test_a_user_of_postgresql_changes_the_own_password_also_when_the_answer_was_lost(server: Server) -> None:
    rotator = server.single()
    old = Masked(document("shop", "the first one", server.port, "shop"))
    new = rotator.create(old)
    rotator.set(new, old, nothing)
    rotator.set(new, old, nothing)  # the old password is refused by now
    rotator.test(new)
    assert not server.lets_in("shop", "the first one")


def test_a_run_that_lost_changes_nothing(server: Server) -> None:
    def lost() -> None:
        raise Conflict("another run was faster")

    value = Masked(document("shop", "the first one", server.port, server.dbname))
    for rotator in (server.alternating(), server.single(**_own_admin(server))):
        new = rotator.create(value)
        with pytest.raises(Conflict):
            rotator.set(new, value, lost)
        assert not server.lets_in(*facts(new))
        with contextlib.suppress(Conflict):  # a single user of PostgreSQL is retired without a change
            rotator.retire(value, rotator.create(value), lost)
        server.query("shop", "the first one")


def test_a_connection_that_is_cut_off_before_the_change_leaves_everything_and_again_goes_on(server: Server) -> None:
    value = Masked(document("shop", "the first one", server.port, server.dbname))
    for rotator in (server.single(**_own_admin(server)), server.alternating()):
        new = rotator.create(value)
        with pytest.raises(Exception) as caught:  # noqa: PT011  of two clients
            rotator.set(new, value, server.cut_off)
        fault = rotator.classify(caught.value)
        assert fault is not None
        assert fault.error is Unavailable
        server.query(*facts(value))
        assert not server.lets_in(*facts(new))
        rotator.set(new, value, nothing)
        rotator.test(new)
        rotator.retire(value, new, nothing)
        value = new


def test_whoever_comes_second_waits_for_the_lock_and_then_asks_again(server: Server) -> None:
    """The first one sleeps between its question and its change; the second may not change anything meanwhile."""
    value = Masked(document("shop", "the first one", server.port, server.dbname))
    rotator = server.alternating()
    first, second = rotator.create(value), rotator.create(value)
    order: list[str] = []
    inside, go_on = threading.Event(), threading.Event()

    def slow() -> None:
        inside.set()
        assert go_on.wait(60)
        order.append("first")

    with ThreadPoolExecutor(2) as pool:
        one = pool.submit(rotator.set, first, value, slow)
        assert inside.wait(60)
        two = pool.submit(rotator.set, second, value, lambda: order.append("second"))
        time.sleep(0.5)
        go_on.set()
        one.result(60)
        two.result(60)
    assert ["first", "second"] == order
    assert server.lets_in(*facts(second))
    assert not server.lets_in(*facts(first))


def test_errors_of_the_server_have_their_classes_and_show_no_password(server: Server) -> None:
    value = Masked(document("shop", "the first one", server.port, server.dbname))
    wrong = Masked(document("shop", "a canary that is wrong", server.port, server.dbname))
    nobody = Masked(document("shop", "the first one", 1, server.dbname))
    powerless = server.alternating(admin=Credential.literal("the first one"), admin_user="shop")
    rotator = server.alternating()

    def kind(rotator: Rotator, act: Callable[[], None]) -> type[OperationError] | None:
        with pytest.raises(Exception) as caught:  # noqa: PT011  of several classes
            act()
        fault = rotator.classify(caught.value)
        assert fault is not None
        assert "canary" not in fault.message
        return fault.error

    assert Unauthenticated is kind(rotator, lambda: rotator.test(wrong))
    assert Unavailable is kind(rotator, lambda: rotator.test(nobody))
    assert PermissionDenied is kind(powerless, lambda: powerless.set(rotator.create(value), value, nothing))


@pytest.mark.parametrize("server", ["mariadb"], indirect=True)
def test_another_account_of_that_name_that_comes_first_is_told(server: Mariadb) -> None:
    """The server takes the account whose host is the most exact, whatever password was given."""
    value = Masked(document("shop", "the first one", server.port, server.dbname))
    rotator = server.single()
    new = rotator.create(value)
    rotator.set(new, value, nothing)
    with pymysql.connect(host="127.0.0.1", port=server.port, user=server.admin, password=server.password) as connection:
        connection.cursor().execute("CREATE USER shop@'127.0.0.1' IDENTIFIED BY 'another one'")
        with pytest.raises(pymysql.err.OperationalError, match="that shop@% has: another account") as caught:
            rotator.test(new)
        connection.cursor().execute("DROP USER shop@'127.0.0.1'")
    fault = rotator.classify(caught.value)
    assert fault is not None
    assert (Unauthenticated, "1045") == (fault.error, fault.code)
    rotator.test(new)


class Unconfirmed:
    """Notes whether a change was about to be made."""

    called = False

    def __call__(self) -> None:
        self.called = True


UNREADABLE = {"admin": Credential.literal("a changer's"), "admin_user": "changer"}
READABLE = {"admin": Credential.literal("an administrator's"), "admin_user": "admin"}
PAM = """INSERT INTO mysql.global_priv VALUES ('localhost', 'shop', '{"plugin": "pam"}')"""


@pytest.mark.parametrize("server", ["mariadb"], indirect=True)
@pytest.mark.parametrize(
    ("admin", "host", "passwords", "told"),
    [
        pytest.param(
            READABLE, "localhost", ("the first one", "the first one"), "shop@localhost has the same", id="same"
        ),
        pytest.param(
            READABLE, "localhost", ("another", "the first one"), r"another account \(shop@localhost", id="its"
        ),
        pytest.param(UNREADABLE, "localhost", ("another", "the first one"), "not SELECT from mysql.user", id="hidden"),
        pytest.param(UNREADABLE, "127.0.0.1", ("the first one", "the first one"), "as shop@127.0.0.1", id="preferred"),
        pytest.param(READABLE, "127.0.0.1", ("the first one", "another"), "shop@127.0.0.1", id="in front"),
    ],
)
def test_a_user_who_may_log_in_as_another_account_is_left_as_it_is(
    server: Mariadb, admin: dict[str, Any], host: str, passwords: tuple[str, str], told: str
) -> None:
    """Clients may connect to a Unix socket, where the server takes them for that of localhost; the rotator does not."""
    server.execute(f"CREATE USER shop@'{host}' IDENTIFIED BY '{passwords[1]}'")
    server.execute(f"ALTER USER shop@'%' IDENTIFIED BY '{passwords[0]}'")
    value, confirm = Masked(document("shop", "the first one", server.port, server.dbname)), Unconfirmed()
    rotator = server.single(**admin)
    with pytest.raises(Conflict, match=f"^nothing was changed: .*{told}"):
        rotator.set(rotator.create(value), value, confirm)
    assert not confirm.called


@pytest.mark.parametrize("server", ["mariadb"], indirect=True)
@pytest.mark.parametrize(
    ("admin", "statement", "warned"),
    [
        pytest.param(READABLE, "CREATE USER shop@localhost IDENTIFIED BY 'another'", "", id="another password"),
        pytest.param(READABLE, "CREATE USER shop@localhost IDENTIFIED VIA unix_socket", "", id="no password"),
        pytest.param(READABLE, PAM, "shop@localhost has the same", id="pam"),
        pytest.param(READABLE, "ALTER USER shop@'%' IDENTIFIED BY 'by hand'", "", id="changed by hand"),
        pytest.param(READABLE, "ALTER USER shop@'%' PASSWORD EXPIRE", "", id="expired"),
        pytest.param(UNREADABLE, "ALTER USER shop@'%' PASSWORD EXPIRE", "not SELECT from mysql.user", id="hidden"),
    ],
)
def test_accounts_beside_are_no_matter_and_what_is_not_known_is_told(
    server: Mariadb, admin: dict[str, Any], statement: str, warned: str, caplog: pytest.LogCaptureFixture
) -> None:
    server.execute(statement)
    value = Masked(document("shop", "the first one", server.port, server.dbname))
    rotator = server.single(**admin)
    new = rotator.create(value)
    rotator.set(new, value, nothing)
    rotator.test(new)
    assert bool(warned) == len(caplog.messages)
    assert all(warned in message for message in caplog.messages)


@pytest.mark.parametrize("server", ["mariadb"], indirect=True)
def test_alternating_users_have_one_account_each(server: Mariadb, caplog: pytest.LogCaptureFixture) -> None:
    value, confirm = Masked(document("shop", "the first one", server.port, server.dbname)), Unconfirmed()
    server.execute("CREATE USER `shop_a'`@localhost IDENTIFIED BY 'another'")
    rotator = server.alternating(**READABLE)
    with pytest.raises(Conflict, match="^nothing was changed: shop_a'@localhost is another account"):
        rotator.set(rotator.create(value), value, confirm)
    assert not confirm.called
    assert [] == caplog.messages
    powerless = server.alternating()
    powerless.set(powerless.create(value), value, confirm)
    assert confirm.called
    assert ["mysql.user" in message for message in caplog.messages] == [True]


@pytest.mark.parametrize("server", ["mariadb"], indirect=True)
@pytest.mark.parametrize(("host", "admin"), [("127.0.0.1", UNREADABLE), ("localhost", READABLE)])
def test_an_old_login_that_another_account_still_lets_in_is_not_retired(
    server: Mariadb, host: str, admin: dict[str, Any]
) -> None:
    """The first login of an application may be of any account; that of a socket is seen by its hash only."""
    value = Masked(document("shop", "the first one", server.port, server.dbname))
    rotator = server.alternating(**admin)
    new = rotator.create(value)
    rotator.set(new, value, nothing)
    server.execute(f"CREATE USER shop@'{host}' IDENTIFIED BY 'the first one'")
    for _ in range(2):
        with pytest.raises(
            Conflict, match=f"^shop@% is locked, and the old value still lets clients in as shop@{host};"
        ):
            rotator.retire(value, new, nothing)
    server.execute(f"ALTER USER shop@'{host}' IDENTIFIED BY 'another'")
    rotator.retire(value, new, nothing)
    server.query(*facts(new))


def test_a_user_who_is_not_in_the_role_is_no_good(server: Server) -> None:
    with pytest.raises(PermissionDenied, match="role"):
        server.alternating().test(Masked(document("shop", "the first one", server.port, server.dbname)))


# under a running application

FILE = """
[project]
name = "shop"
[environments.production]
provider = "here"
[providers.here]
type = "baremetal"
root = "data"
[secrets.app.rotate]
"db/login" = {{ kind = "{kind}", {settings}, grace = "{grace}" }}
"""


@attrs.define
class Application:
    """Clients that log in for each query, and count what fails.

    Args:
        cached: they keep the credential for an hour, and ask for another one when it is refused; else they read it each
            time.
    """

    app: App
    server: Server
    cached: bool = False
    done: int = 0
    failed: list[str] = attrs.Factory(list)
    used: set[str] = attrs.Factory(set)
    stop: threading.Event = attrs.Factory(threading.Event)
    lock: threading.Lock = attrs.Factory(threading.Lock)

    def client(self) -> None:
        query = self.query
        if self.cached:
            cache = self.app.secrets("app").cached(ttl=timedelta(hours=1))
            refused = (psycopg.OperationalError, pymysql.err.OperationalError)
            query = cache.retrying("db/login", on=refused)(self.query)
        while not self.stop.is_set():
            try:
                password = query() if self.cached else query(self.app.secrets("app").get("db/login"))
            except Exception as exc:  # noqa: BLE001  each is a query that failed
                with self.lock:
                    self.failed.append(f"{type(exc).__name__}: {exc}")
            else:
                with self.lock:
                    self.done += 1
                    self.used.add(password)
            self.stop.wait(0.01)  # the rotator is to have its turn

    def query(self, secret: Secret) -> str:
        user, password = facts(secret.value)
        self.server.query(user, password)
        return password

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        with ThreadPoolExecutor(CLIENTS) as pool:
            for _ in range(CLIENTS):
                pool.submit(self.client)
            try:
                yield
            finally:
                self.stop.set()

    def wait(self) -> None:
        """Wait until each client has had a few queries more."""
        wanted, deadline = self.done + 3 * CLIENTS, time.monotonic() + 120
        while self.done < wanted and not self.failed and time.monotonic() < deadline:
            time.sleep(0.01)


@contextlib.contextmanager
def declared(folder: Path, server: Server, kind: str) -> Iterator[App]:
    """Write the file of an application whose login rotates, and store the first one."""
    name = "postgresql" if isinstance(server, Postgresql) else "mysql"
    users = f"users = {json.dumps(server.users)}, role = {json.dumps(server.role)}, " if kind == "alternating" else ""
    settings = users + 'admin = { secret = "app/db/admin" }'
    kind = f"{name}-{'user' if kind == 'single' else kind}"
    (folder / "shiftable.toml").write_text(FILE.format(kind=kind, settings=settings, grace="1h"))
    with load(folder) as app:
        for resource in app.declared("secrets"):
            for change in app.diff(resource):
                app.apply(resource, change)
        store = app.secrets("app")
        store.put("db/admin", json.dumps({"username": server.admin, "password": server.password}))
        store.put("db/login", document("shop", "the first one", server.port, server.dbname))
        yield app


def started(*arguments: str) -> subprocess.Popen[str]:
    command = [str(Path(sys.executable).parent / "shiftable"), "secrets", "rotate", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def rotated(*arguments: str) -> str:
    """Run the command to its end."""
    process = started(*arguments)
    out, err = process.communicate(timeout=120)
    assert 0 == process.returncode, err
    return out


def killed(after: str, *arguments: str) -> bool:
    """Run the command, and kill it when it has told of a step; tell whether it was still at work."""
    process = started(*arguments)
    assert process.stdout is not None
    for line in process.stdout:
        if line.endswith(f"{after}: done\n"):
            break
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=120)
    assert process.returncode in (0, -signal.SIGKILL)
    return process.returncode != 0


def test_an_application_whose_password_stops_working_is_noticed(server: Server, folder: Path) -> None:
    """What follows counts failures: there are some to count where there should be."""
    with declared(folder, server, "alternating") as app:
        application = Application(app, server)
        with application.running():
            application.wait()
            rotator = server.single(**_own_admin(server))
            old = app.secrets("app").get("db/login").value
            new = rotator.create(old)
            rotator.set(new, old, nothing)
            rotator.retire(old, new, nothing)
            deadline = time.monotonic() + 120
            while not application.failed and time.monotonic() < deadline:
                time.sleep(0.01)
        assert application.failed


@pytest.mark.parametrize(
    ("server", "kind", "cached"),
    [
        pytest.param(*case, id="-".join((*case[:2], "cached" if case[2] else "read each time")))
        for case in (
            ("postgresql", "alternating", False),
            ("postgresql", "alternating", True),
            ("postgresql", "single", True),  # one password: whoever is refused must ask for the pending one
            ("mariadb", "alternating", False),
            ("mariadb", "alternating", True),
            ("mariadb", "single", False),
        )
    ],
    indirect=["server"],
)
def test_no_query_fails_while_passwords_rotate_and_the_rotator_is_killed(
    server: Server, kind: str, folder: Path, *, cached: bool
) -> None:
    with declared(folder, server, kind) as app:
        store = app.secrets("app")
        ((_, rotation),) = rotations(app, "app", "db/login")
        ((_, retirement),) = rotations(app, "app", "db/login", clock=lambda: datetime.now(UTC) + 2 * GRACE)
        application, kills = Application(app, server, cached), 0
        with application.running():
            application.wait()
            for turn in range(ROTATIONS):
                if turn in KILLED:
                    kills += killed(KILLED[turn], "app", "db/login")
                    application.wait()
                    rotated("app", "--due")
                else:
                    rotation.run(now=True)
                application.wait()
                assert ("retire",) == retirement.run().steps
                assert [{"current"}] == [each.stages for each in store.history("db/login") if each.enabled]
                application.wait()
        assert kills, "a rotator was killed at work"
        assert [] == application.failed
        if not cached:
            assert ROTATIONS + 1 == len(application.used), "clients logged in with each of them"
        assert not server.lets_in("shop", "the first one")


KILLED = {2: "create", 4: "set", 6: "test", 8: "finish"}
"""In which rotations the rotator is killed, and after which step."""

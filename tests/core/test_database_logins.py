"""What connections log in with: once for all threads, again when it is refused, and never in an error."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import attrs
import psycopg
import pytest

from shiftable.app import App, load
from shiftable.config import Credential
from shiftable.database import Databases, DatabaseSpec, Login, LoginToken
from shiftable.database._connecting import connected, refusal
from shiftable.database._logins import Logins
from shiftable.errors import ConfigError, Conflict, InvalidArgument, NotFound, PermissionDenied, Unavailable
from shiftable.masking import Masked
from shiftable.memory.database import FEATURES, MemoryDatabaseDriver
from shiftable.testing.conformance.database import small_spec
from shiftable.waiting import Timing

WRONG = 'connection failed: FATAL:  password authentication failed for user "shiftadmin"'


class Refused(Exception):
    """As a client library says it."""


class Server:
    """Takes one password, as it is now."""

    def __init__(self, password: str, said: Exception | None = None) -> None:
        self.password, self.said = password, said or Refused(WRONG)
        self.tried: list[str] = []

    def connect(self, *, password: str, user: str = "-") -> str:
        self.tried.append(password)
        if password != self.password:
            raise self.said
        return f"{user} is in"


@attrs.define
class Time:
    """Passes when somebody sleeps."""

    now: float = 1000.0
    slept: list[float] = attrs.Factory(list)
    then: Callable[[], object] = attrs.field(default=lambda: None)

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds
        self.then()

    def date(self) -> datetime:
        return datetime.fromtimestamp(self.now, UTC)

    @property
    def timing(self) -> Timing:
        return Timing(self, self.sleep)


def _of(*passwords: str) -> Iterator[Login]:
    for password in passwords:
        yield Login(None, Masked(password))


def _logins(time: Time, *passwords: str) -> Logins:
    """Answer these one after the other; one call too many fails the test."""
    answers = _of(*passwords)
    return Logins(lambda *, fresh: next(answers), timing=time.timing, clock=time.date)


# refusals


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (Refused(WRONG), "certain"),
        (Refused('FATAL:  PAM authentication failed for user "iam"'), "certain"),
        (Refused('FATAL:  role "shop_a" is not permitted to log in'), "certain"),
        (Refused(1045, "Access denied for user"), "certain"),
        (Refused(1698, "Access denied for user"), "certain"),
        (Refused(3118, "Account is locked"), "certain"),
        (Refused(4151, "Access denied, this account is locked"), "certain"),
        (Refused(1862, "Your password has expired"), "certain"),
        (Refused(1044, "Access denied to database"), None),
        (Refused(1130, "Host is not allowed"), None),
        (Refused(2003, "Can't connect to MySQL server"), None),
        (Refused(1040, "Too many connections"), None),
        (Refused("FATAL:  the database system is starting up"), None),
        (Refused('FATAL:  database "nope" does not exist'), None),
        (Refused("connection refused"), None),
        (Refused(), None),
    ],
)
def test_only_a_refused_login_is_a_refusal(said: Exception, told: str | None) -> None:
    assert told == refusal(said)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("FATAL:  Passwort-Authentifizierung für Benutzer »shiftadmin« fehlgeschlagen", "likely"),
        ("ВАЖНО:  пользователь не прошёл проверку подлинности", "likely"),
        ("FATAL:  sorry, too many clients already", None),
        ("FATAL:  the database system is shutting down", None),
        ("FATAL:  terminating connection due to administrator command", None),
        ('FATAL:  permission denied for database "x"', None),
        ("server closed the connection unexpectedly", None),
    ],
)
def test_a_server_that_speaks_another_language_is_understood_by_what_it_had_asked_for(
    text: str, told: str | None
) -> None:
    said = Refused(text)
    said.pgconn = psycopg.errors.FinishedPGconn(used_password=True)  # type: ignore[attr-defined]
    assert told == refusal(said)
    said.pgconn.used_password = False  # type: ignore[attr-defined]
    assert refusal(said) is None


# refreshing


def test_a_replaced_password_is_fetched_and_tried_once() -> None:
    time, server = Time(), Server("new")
    logins = _logins(time, "old", "new")
    assert "- is in" == connected(server.connect, {}, logins)
    assert ["old", "new"] == server.tried
    assert "- is in" == connected(server.connect, {}, logins)
    assert ["old", "new", "new"] == server.tried
    assert [] == time.slept


def test_a_password_between_server_and_store_is_waited_for_and_the_old_one_is_not_tried_again() -> None:
    time, server, stored = Time(), Server("new"), ["old"]
    time.then = lambda: stored.append("new") if len(time.slept) == 3 else None
    logins = Logins(lambda *, fresh: next(_of(stored[-1])), timing=time.timing)
    assert "- is in" == connected(server.connect, {}, logins)
    assert ["old", "new"] == server.tried
    assert [0.1, 0.2, 0.4] == time.slept


def test_a_password_that_is_pending_needs_no_waiting() -> None:
    time, server = Time(), Server("new")
    logins = Logins(lambda *, fresh: next(_of("old")), lambda: next(_of("new")), timing=time.timing)
    connected(server.connect, {}, logins)
    assert (["old", "new"], []) == (server.tried, time.slept)


def test_what_becomes_current_while_the_pending_one_is_asked_for_is_seen() -> None:
    time, server, stored = Time(), Server("new"), ["old"]

    def pending() -> None:
        stored.append("new")  # it was promoted right after the current one had been read

    connected(server.connect, {}, Logins(lambda *, fresh: next(_of(stored[-1])), pending, timing=time.timing))
    assert (["old", "new"], []) == (server.tried, time.slept)


def test_a_pending_password_that_the_server_does_not_have_yet_is_given_up_for_the_current_one() -> None:
    time, server = Time(), Server("new")
    logins = Logins(lambda *, fresh: next(_of("old")), lambda: next(_of("new")), timing=time.timing)
    connected(server.connect, {}, logins)
    server.password = "old"  # the rotation was taken back
    connected(server.connect, {}, logins)
    assert ["old", "new", "new", "old"] == server.tried


def test_a_wrong_password_is_refused_by_the_servers_own_error_and_patience_is_not_had_twice() -> None:
    time, server = Time(), Server("right")
    logins = Logins(lambda *, fresh: next(_of("wrong")), timing=time.timing)
    for _ in range(3):
        with pytest.raises(Refused, match="password authentication failed"):
            connected(server.connect, {}, logins)
    assert ["wrong"] * 3 == server.tried
    assert [0.1, 0.2, 0.4, 0.8, 1.6] == time.slept
    time.now += 31
    with pytest.raises(Refused):
        connected(server.connect, {}, logins)
    assert 10 == len(time.slept)


def test_another_failure_is_not_tried_again() -> None:
    server = Server("x", Refused("FATAL:  the database system is starting up"))
    with pytest.raises(Refused, match="starting up"):
        connected(server.connect, {}, _logins(Time(), "old"))
    assert ["old"] == server.tried


def test_a_failure_of_the_second_attempt_is_the_one_that_is_told() -> None:
    def connect(*, password: str) -> str:
        raise Refused(WRONG if password == "old" else "FATAL:  sorry, too many clients already")

    with pytest.raises(Refused, match="too many clients"):
        connected(connect, {}, _logins(Time(), "old", "new"))


def test_the_store_that_is_down_is_told_when_the_password_was_refused(caplog: pytest.LogCaptureFixture) -> None:
    def fetch(*, fresh: bool) -> Login:
        if fresh:
            raise Unavailable("the store is down")
        return Login(None, Masked("old"))

    with pytest.raises(Unavailable, match="store is down") as caught:
        connected(Server("new").connect, {}, Logins(fetch, timing=Time().timing))
    assert "password authentication failed" in str(caught.value.__context__)


# keeping


def test_a_password_is_kept_for_minutes_and_longer_while_the_store_is_down() -> None:
    time, calls, down = Time(), [], [False]

    def fetch(*, fresh: bool) -> Login:
        calls.append(time.now)
        if down[0]:
            raise Unavailable("the store is down")
        return Login(None, Masked(f"v{len(calls)}"))

    logins = Logins(fetch, timing=time.timing)
    assert "v1" == logins.current().password.reveal()
    time.now += 299
    assert "v1" == logins.current().password.reveal()
    down[0] = True
    for _ in range(3):  # asked once, not for each connection
        time.now += 2
        assert "v1" == logins.current().password.reveal()
    assert [1000.0, 1301.0] == calls
    down[0] = False
    time.now += 15
    assert "v3" == logins.current().password.reveal()


def test_a_password_that_may_no_longer_be_read_is_not_used_on() -> None:
    time, answers = Time(), [Login(None, Masked("v1"))]

    def fetch(*, fresh: bool) -> Login:
        if not answers:
            raise PermissionDenied("no longer")
        return answers.pop()

    logins = Logins(fetch, timing=time.timing)
    logins.current()
    time.now += 301
    with pytest.raises(PermissionDenied):
        logins.current()


def test_a_token_is_replaced_a_minute_before_it_expires_and_never_used_after() -> None:
    time, made, down = Time(), [], [False]

    def fetch(*, fresh: bool) -> Login:
        if down[0]:
            raise Unavailable("no tokens")
        made.append(time.now)
        return Login("iam", Masked(f"t{len(made)}"), time.date() + timedelta(minutes=15))

    logins = Logins(fetch, timing=time.timing, clock=time.date)
    seen = []
    for _ in range(4):
        seen.append(logins.current().password.reveal())
        time.now += 419
    assert ["t1", "t1", "t1", "t2"] == seen
    down[0] = True
    time.now = made[-1] + 899
    assert "t2" == logins.current().password.reveal()
    time.now = made[-1] + 900
    with pytest.raises(Unavailable):
        logins.current()


def test_a_token_that_is_refused_is_made_anew_once() -> None:
    time = Time()
    made: list[Login] = []

    def fetch(*, fresh: bool) -> Login:
        made.append(Login("iam", Masked(f"t{len(made)}"), time.date() + timedelta(minutes=15)))
        return made[-1]

    server = Server("another")
    with pytest.raises(Refused):
        connected(server.connect, {}, Logins(fetch, timing=time.timing, clock=time.date))
    assert (["t0", "t1"], []) == (server.tried, time.slept)


def test_threads_that_need_it_at_once_fetch_it_once() -> None:
    begun, go, calls = threading.Barrier(8), threading.Event(), []

    def fetch(*, fresh: bool) -> Login:
        calls.append(fresh)
        go.wait(10)
        return Login(None, Masked("new" if fresh else "old"))

    logins, server = Logins(fetch), Server("new")

    def work() -> str:
        begun.wait(10)
        return connected(server.connect, {}, logins)

    with ThreadPoolExecutor(8) as pool:
        jobs = [pool.submit(work) for _ in range(8)]
        go.set()
        assert ["- is in"] * 8 == [job.result(10) for job in jobs]
    assert [False, True] == calls


# what is declared


@attrs.define
class Telling(MemoryDatabaseDriver):
    """Databases that say what they were asked for, and let users log in with tokens."""

    asked: list[Any] = attrs.field(factory=list, init=False)

    def create(self, spec: DatabaseSpec) -> None:
        self.asked.append(spec.password.reveal() if spec.password else None)
        MemoryDatabaseDriver.create(self, spec)

    def login_token(self, name: str, user: str | None) -> LoginToken:
        self.asked.append(user)
        expires = datetime.now(UTC) + timedelta(minutes=15)
        return LoginToken(user=user or "me@example", value=Masked("t0ken"), expires=expires)


FILE = """
[project]
name = "shop"
[environments.production]
provider = "memory"
[secrets.app]
prefix = "shop"
[database.orders]
engine = "postgresql"
version = "16"
cpus = 2
memory_gib = 8
storage_gib = 50
"""


def _app(folder: Path, more: str) -> App:
    (folder / "shiftable.toml").write_text(FILE + more)
    return load(folder)


def test_a_password_that_does_not_exist_is_made_and_goes_to_the_declared_store_alone(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(0)
    app = _app(folder, 'password = { secret = "app/db/orders" }\n')
    (declared,) = app.declared("database")
    (change,) = app.diff(declared)
    assert not app.secrets("app").exists("db/orders")
    app.apply(declared, change)
    made = app.secrets("app").get("db/orders").reveal()
    assert 40 == len(made)
    assert made == app.database("orders").password().reveal()
    (folder / "shown").write_text(f"{caplog.text} {change!r} {app.spec(declared)!r} {app.database('orders').url()!r}")
    for path in folder.rglob("*"):
        assert path.is_dir() or made not in path.read_text(errors="replace"), path


def test_a_password_that_exists_is_taken_as_it_is(folder: Path) -> None:
    app = _app(folder, 'password = { secret = "app/db/orders" }\n')
    app.secrets("app").put("db/orders", "mine")
    (declared,) = app.declared("database")
    app.service(declared).create(app.spec(declared))
    assert "mine" == app.secrets("app").get("db/orders").reveal()
    assert "mine" == app.database("orders").password().reveal()


def test_of_two_that_make_a_password_at_once_the_stored_one_counts(folder: Path) -> None:
    app = _app(folder, 'password = { secret = "app/db/orders" }\n')
    (declared,) = app.declared("database")
    spec = app.spec(declared)
    assert isinstance(spec, DatabaseSpec)
    assert spec.password is not None

    def other() -> str:
        app.secrets("app").put("db/orders", "theirs")
        return "ours"

    assert "theirs" == spec.password.reveal_or_make(other)
    assert "theirs" == app.secrets("app").get("db/orders").reveal()


def test_a_pending_secret_is_what_a_refused_connection_tries_next(folder: Path) -> None:
    app = _app(folder, 'password = { secret = "app/db/orders" }\n')
    store = app.secrets("app")
    store.put("db/orders", "old")
    spec = app.spec(app.declared("database")[0])
    assert isinstance(spec, DatabaseSpec)
    assert spec.password is not None
    assert spec.password.pending() is None
    store.put("db/orders", "new", stage="pending")
    assert "new" == spec.password.pending()
    assert Credential.literal("x").pending() is None


def test_nothing_is_made_where_the_declaration_cannot_be_carried_out(folder: Path) -> None:
    app = _app(folder, 'password = { secret = "app/db/orders" }\n')
    spec = attrs.evolve(app.spec(app.declared("database")[0]), name="Not_A_Name")
    with pytest.raises(InvalidArgument):
        app.cloud("memory").database.create(spec)  # type: ignore[arg-type]
    assert not app.secrets("app").exists("db/orders")


def test_a_document_gives_its_password_to_the_provider_and_its_user_to_connections() -> None:
    document = Credential.literal('{"username": "shop_a", "password": "p1", "host": "elsewhere"}')
    driver = Telling()
    spec = attrs.evolve(small_spec("conf"), password=document, login=document)
    database = Databases(driver).create(spec)
    assert ["p1"] == driver.asked
    assert "postgresql://shop_a:p1@conf.memory.invalid:5432/shop" == database.url().reveal().partition("?")[0]
    assert "shop_a:***@" in str(database.url())


@pytest.mark.parametrize("value", ['{"username": "a"}', '{"password": 5, "username": "a"}'])
def test_a_document_that_says_nothing_is_told_without_showing_it(value: str) -> None:
    spec = attrs.evolve(small_spec("conf"), login=Credential.literal(value))
    database = Databases(MemoryDatabaseDriver()).create(spec)
    with pytest.raises(Conflict, match="database 'conf': the value is no credential") as caught:
        database.password()
    assert value not in str(caught.value)


def test_a_password_alone_needs_a_user() -> None:
    spec = attrs.evolve(small_spec("conf"), login=Credential.literal("p"))
    with pytest.raises(Conflict, match="the database has no `user`"):
        Databases(MemoryDatabaseDriver()).create(spec).password()
    known = Databases(MemoryDatabaseDriver()).create(attrs.evolve(spec, user="shop"))
    assert "postgresql://shop:p@" in known.url().reveal()


def test_a_token_is_made_for_the_declared_user_and_shared_by_all_handles() -> None:
    driver = Telling(attrs.evolve(FEATURES, token_login=True))
    databases = Databases(driver)
    spec = attrs.evolve(small_spec("conf"), token_login=True, user="shop", password=None)
    first = databases.create(spec)
    assert "t0ken" == databases.open(spec).password().reveal() == first.password().reveal()
    assert [None, "shop"] == driver.asked
    nobody = databases.open(attrs.evolve(spec, user=None))
    assert "me@example" == nobody.url().user
    with pytest.raises(ValueError, match="either token_login or login"):
        attrs.evolve(spec, login=Credential.literal("x"))


def test_a_missing_secret_is_told_by_its_name(folder: Path) -> None:
    app = _app(folder, 'login = { secret = "app/db/login" }\n')
    (declared,) = app.declared("database")
    app.service(declared).create(app.spec(declared))
    with pytest.raises(NotFound, match="db/login"):
        app.database("orders").password()
    spec = attrs.evolve(small_spec("conf"), password=Credential.env("NOPE"))
    with pytest.raises(ConfigError, match="NOPE"):
        Databases(MemoryDatabaseDriver()).create(spec)


def test_psycopgs_error_keeps_no_password() -> None:
    """Its exception holds all that the connection was to be made with, in plain text."""

    def connect(**arguments: Any) -> Any:
        return psycopg.connect(host="127.0.0.1", port=1, connect_timeout=2, **arguments)

    with pytest.raises(psycopg.OperationalError) as caught:
        connected(connect, {}, _logins(Time(), "c4n4ry"))
    assert "c4n4ry" not in f"{caught.value} {caught.value!r} {caught.value.pgconn!r} {vars(caught.value)}"
    with pytest.raises(psycopg.OperationalError) as naive:
        connect(password="c4n4ry")
    assert "c4n4ry" in repr(naive.value.pgconn)  # so that this test notices when psycopg stops doing so

"""What a private server is beyond the rules of all databases: reached by nobody else, started on demand, never half."""

import contextlib
import errno
import os
import pwd
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import psycopg
import pytest
import sqlalchemy
from hypothesis import Phase, settings
from hypothesis.stateful import run_state_machine_as_test

import shiftable
from shiftable.config import Credential
from shiftable.database import Database, Databases, DatabaseSpec
from shiftable.errors import (
    AlreadyExists,
    ConfigError,
    Conflict,
    InvalidArgument,
    NotFound,
    OperationError,
    PermissionDenied,
    QuotaExceeded,
    Unauthenticated,
    Unavailable,
    Unsupported,
)
from shiftable.masking import Masked
from shiftable.postgresql import Cluster, all_binaries, find_binaries
from shiftable.testing.conformance import database as conformance
from shiftable.testing.conformance.database import database_machine, small_spec
from shiftable_baremetal import BaremetalProvider, BaremetalSettings, PrivatePostgresqlSettings, _private_errors
from shiftable_baremetal.database import PrivateDatabaseDriver

VERSION = str(max(found.major for found in all_binaries()))
CANARY = "c4n4ry-p@ss/w:rd%é"

TOML = f"""
[project]
name = "shop"
[environments.development]
provider = "baremetal"
[database.orders]
engine = "postgresql"
version = "{VERSION}"
cpus = 1
memory_gib = 1
storage_gib = 1
databases = ["orders"]
deletion_protection = false
"""


def spec_of(name: str, **fields: Any) -> DatabaseSpec:
    return attrs.evolve(small_spec(name, password=CANARY), **{"version": VERSION, **fields})


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "database"


@pytest.fixture
def databases(root: Path) -> Iterator[Databases]:
    service = Databases(PrivateDatabaseDriver(root, fsync=False))
    yield service
    for database in service.list():
        with contextlib.suppress(Conflict):
            database.protect(on=False)
        service.delete(database.name, final_snapshot=False)


@pytest.fixture
def orders(databases: Databases) -> Database:
    return databases.create(spec_of("orders"))


def ask(database: Database, query: str, name: str | None = None) -> Any:
    with contextlib.closing(database.connect(name)) as connection, connection.cursor() as cursor:
        cursor.execute(query)
        row = cursor.fetchone() if cursor.description else None
        connection.commit()
        return row[0] if row else None


def cluster_of(root: Path, name: str) -> Cluster:
    return Cluster(root / name / "cluster", find_binaries(version=VERSION))


@contextlib.contextmanager
def python(script: str, *arguments: str | Path) -> Iterator[subprocess.Popen[str]]:
    """Run a script, and tell what it prints."""
    with subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)], stdout=subprocess.PIPE, text=True
    ) as it:
        yield it


def told(script: str, *arguments: str | Path) -> str:
    with python(script, *arguments) as process:
        return process.communicate()[0]


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, "it took longer than a minute"
        time.sleep(0.02)


# an application


def test_an_application_declares_a_database_and_has_an_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "shiftable.toml").write_text(TOML)
    with shiftable.load(tmp_path) as app:
        resource = app.config.resources["database.orders"]
        for change in app.diff(resource):
            app.service(resource).apply(change)
        assert app.diff(resource) == ()
        engine = app.database("orders").engine()
        with engine.begin() as connection:
            connection.execute(sqlalchemy.text("CREATE TABLE bought (id int PRIMARY KEY)"))
            connection.execute(sqlalchemy.text("INSERT INTO bought VALUES (1), (2)"))
        folder = app.state_dir / "data/database/orders/cluster"
    with engine.connect() as connection:  # it outlives the application object
        assert connection.execute(sqlalchemy.text("SELECT count(*) FROM bought")).scalar() == 2
    engine.dispose()
    script = """if True:
        import sys, shiftable, sqlalchemy
        with shiftable.load(sys.argv[1]) as app, app.database("orders").engine().connect() as connection:
            print(connection.execute(sqlalchemy.text("SELECT sum(id) FROM bought")).scalar())
    """
    assert told(script, tmp_path) == "3\n"
    Cluster(folder, until_exit=True).stop()
    assert told(script, tmp_path) == "3\n"
    wait_for(lambda: not Cluster(folder).running)


def test_the_connections_that_an_engine_keeps_are_closed_with_the_application(tmp_path: Path) -> None:
    (tmp_path / "shiftable.toml").write_text(TOML)
    with shiftable.load(tmp_path) as app:
        resource = app.config.resources["database.orders"]
        for change in app.diff(resource):
            app.service(resource).apply(change)
        engine, other = app.database("orders").engine(), app.database("orders").engine()
        with engine.connect(), other.connect():
            pass
        assert [1, 1] == [each.pool.checkedin() for each in (engine, other)]  # type: ignore[attr-defined]
        used = other.connect()
        used.detach()
    assert [0, 0] == [each.pool.checkedin() for each in (engine, other)]  # type: ignore[attr-defined]
    assert 1 == used.execute(sqlalchemy.text("SELECT 1")).scalar()  # what is in use is left alone
    used.close()
    engine.dispose()
    other.dispose()


def test_a_server_runs_while_somebody_uses_it_and_no_longer(root: Path, orders: Database) -> None:
    assert orders.info().raw_state == "idle"
    assert ask(orders, "SELECT 1") == 1
    assert orders.info().raw_state == "running"
    assert orders.info().state == "available"


def test_a_server_that_was_killed_is_started_for_the_next_connection(root: Path, orders: Database) -> None:
    engine = orders.engine()
    with engine.begin() as connection:
        connection.execute(sqlalchemy.text("CREATE TABLE kept AS SELECT 7 AS number"))
    pid = cluster_of(root, "orders").pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not cluster_of(root, "orders").running)
    with engine.connect() as connection:
        assert connection.execute(sqlalchemy.text("SELECT number FROM kept")).scalar() == 7
    engine.dispose()


# who gets in


def test_the_administrator_is_no_superuser_and_owns_what_is_declared(orders: Database) -> None:
    assert ask(orders, "SELECT current_user || ' ' || current_setting('is_superuser')") == "shiftadmin off"
    assert ask(orders, "SELECT datdba::regrole::text FROM pg_database WHERE datname = 'shop'") == "shiftadmin"
    ask(orders, "CREATE ROLE clerk LOGIN PASSWORD 'a clerk''s'")
    ask(orders, "CREATE TABLE public.t (a int)")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        ask(orders, "COPY (SELECT 1) TO PROGRAM 'true'")


def test_without_a_declared_database_the_administrator_works_in_the_first_one(databases: Databases) -> None:
    orders = databases.create(spec_of("orders", databases=()))
    ask(orders, "CREATE TABLE t AS SELECT 7 AS number")
    ask(orders, "CREATE SCHEMA more")
    assert ask(orders, "SELECT current_database() || number FROM t") == "postgres7"


def test_nobody_gets_in_without_the_password(orders: Database) -> None:
    url = orders.url()
    for password in ("wrong", ""):
        with pytest.raises(psycopg.OperationalError, match="password"):
            psycopg.connect(**url.arguments(), password=password)


def test_the_server_listens_on_its_socket_alone(orders: Database) -> None:
    assert ask(orders, "SHOW listen_addresses") == ""
    server = orders.info().server
    assert server is not None
    assert Path(server.host).stat().st_mode & 0o777 == 0o700


def test_the_password_lies_in_one_file_that_only_its_owner_reads(root: Path, orders: Database) -> None:
    ask(orders, "SELECT 1")
    orders.set_password(f"{CANARY}2")
    orders.snapshot("first")
    holding = [path for path in root.rglob("*") if path.is_file() and CANARY.encode() in path.read_bytes()]
    assert holding == [root / "orders/password"]
    assert holding[0].stat().st_mode & 0o777 == 0o600
    assert (root / "orders").stat().st_mode & 0o777 == 0o700
    assert root.stat().st_mode & 0o777 == 0o700
    orders.delete_snapshot("first")


def test_a_password_of_its_own_is_long_and_stays(databases: Databases, root: Path) -> None:
    made = databases.create(spec_of("made", password=None))
    password = made.password().reveal()
    assert len(password) >= 32
    assert made.password(fresh=True).reveal() == password
    assert ask(made, "SELECT 1") == 1


# changing


def test_a_changed_password_is_the_only_one(databases: Databases) -> None:
    made = databases.create(spec_of("made", password=None))
    first, arguments = made.password().reveal(), made.url().arguments()
    made.set_password("another é")
    assert ask(made, "SELECT 1") == 1
    assert made.password().reveal() == "another é"
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(**arguments, password=first)
    made.set_password()
    assert ask(made, "SELECT 1") == 1
    assert len(made.password().reveal()) >= 32


@pytest.mark.parametrize("reached_server", [False, True], ids=["before", "after"])
def test_a_password_whose_change_was_cut_short_is_changed_by_the_next_start(
    root: Path, databases: Databases, orders: Database, *, reached_server: bool
) -> None:
    driver = databases.database("orders").unwrap(PrivateDatabaseDriver)
    files = driver._area.files("orders")
    files.write_pending_password(Masked("the next"))
    if reached_server:
        with cluster_of(root, "orders") as cluster, cluster.connect(autocommit=True) as connection:
            connection.execute("ALTER ROLE shiftadmin PASSWORD 'the next'")
    assert driver.pending_password("orders") == Masked("the next")
    assert ask(databases.database("orders"), "SELECT 1") == 1
    assert driver.pending_password("orders") is None
    assert files.password() == Masked("the next")


def test_parameters_count_at_once_and_those_that_need_it_restart_the_server(
    databases: Databases, orders: Database
) -> None:
    wanted = spec_of("orders", parameters={"work_mem": "5MB"})
    ask(orders, "SELECT 1")
    began = ask(orders, "SELECT pg_postmaster_start_time()::text")
    for change in databases.diff(wanted):
        databases.apply(change)
    assert ask(orders, "SHOW work_mem") == "5MB"
    assert ask(orders, "SELECT pg_postmaster_start_time()::text") == began
    for change in databases.diff(attrs.evolve(wanted, parameters={"max_connections": "33", "wal_level": "logical"})):
        databases.apply(change)
    assert ask(orders, "SHOW max_connections") == "33"
    assert ask(orders, "SHOW work_mem") == "5MB"
    assert ask(orders, "SELECT pg_postmaster_start_time()::text") != began
    assert databases.describe("orders").parameters == {
        "max_connections": "33",
        "wal_level": "logical",
        "work_mem": "5MB",
    }


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("work_mem", "much", "work_mem"),
        ("max_connections", "0", "max_connections"),
        ("shared_buffers", "99999GB", "shared_buffers"),
        ("no_such_parameter", "1", "no parameter no_such_parameter"),
        ("listen_addresses", "*", "cannot be declared"),
        ("archive_command", "rm -rf /", "cannot be declared"),
    ],
)
def test_a_parameter_that_cannot_be_changes_nothing(
    databases: Databases, orders: Database, name: str, value: str, why: str
) -> None:
    before = databases.describe("orders")
    (change,) = databases.diff(spec_of("orders", parameters={name: value}, labels={"a": "b"}))
    with pytest.raises(OperationError, match=why) as caught:
        databases.apply(change)
    assert isinstance(caught.value, InvalidArgument | Unavailable)
    assert databases.describe("orders") == before
    assert ask(orders, "SHOW work_mem") == "4MB"
    with pytest.raises(OperationError, match=name.lower()):
        databases.create(spec_of("fresh", parameters={name: value}))
    assert not databases.exists("fresh")


def test_new_databases_are_made_also_in_a_stopped_server_which_stays_stopped(
    root: Path, databases: Databases, orders: Database
) -> None:
    orders.stop()
    (change,) = databases.diff(spec_of("orders", databases=("shop", 'odd "name" é')))
    databases.apply(change)
    assert orders.info().state == "stopped"
    assert not cluster_of(root, "orders").running
    orders.start()
    assert ask(orders, "SELECT current_database()", 'odd "name" é') == 'odd "name" é'


def test_a_stopped_server_is_stopped_for_all_and_not_started_on_demand(root: Path, orders: Database) -> None:
    ask(orders, "SELECT 1")
    script = """if True:
        import sys, pathlib
        from shiftable.database import Databases
        from shiftable_baremetal.database import PrivateDatabaseDriver
        Databases(PrivateDatabaseDriver(pathlib.Path(sys.argv[1]))).database("orders").stop()
    """
    assert told(script, root) == ""
    assert orders.info().state == "stopped"
    for connect in (lambda: ask(orders, "SELECT 1"), orders.connect, orders.engine().connect):
        with pytest.raises(Conflict, match="it is stopped; `shiftable db start baremetal:orders` starts it"):
            connect()
    orders.start()
    assert ask(orders, "SELECT 1") == 1


def test_a_connection_that_meets_a_restart_is_opened_after_it(
    root: Path, orders: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server ends between the question whether it runs and the connection."""
    connect, tried = psycopg.connect, list[bool]()

    def later(*arguments: Any, **options: Any) -> Any:
        if not tried:
            cluster_of(root, "orders").stop()
        tried.append(True)
        return connect(*arguments, **options)

    ask(orders, "SELECT 1")
    monkeypatch.setattr(psycopg, "connect", later)
    assert ask(orders, "SELECT 1") == 1
    assert 2 == len(tried)
    tried.clear()
    engine = orders.engine()
    with engine.connect() as connection:
        assert 1 == connection.execute(sqlalchemy.text("SELECT 1")).scalar()
    engine.dispose()
    assert 2 == len(tried)
    with pytest.raises(psycopg.OperationalError, match="does not exist"):
        orders.connect("nowhere")
    assert 4 == len(tried), "what fails again is told"


def test_whose_a_folder_is_that_is_closed_is_told(
    root: Path, databases: Databases, orders: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    def closed(self: Path) -> str:
        raise PermissionError(errno.EACCES, "Permission denied", str(self))

    monkeypatch.setattr(Path, "read_text", lambda self, **_: closed(self))
    file, mine = root / "orders" / "spec.json", os.geteuid()
    with pytest.raises(PermissionDenied, match=rf"Permission denied: {file} \[EACCES"):
        databases.describe("orders")
    monkeypatch.setattr(os, "geteuid", lambda: 4242)
    owner = pwd.getpwuid(mine).pw_name
    why = f"; {file} belongs to {owner}: run this as {owner}, or"
    with pytest.raises(PermissionDenied, match=re.escape(f"{why} declare another root")):
        databases.describe("orders")
    monkeypatch.setattr(_private_errors, "_is_of", lambda uid, folder: (uid, folder) == (4242, file.parent))
    with pytest.raises(PermissionDenied, match=re.escape(f"{why} have root `chown -R 4242 {file}`")):
        databases.describe("orders")
    monkeypatch.setattr(Path, "is_dir", closed)
    with pytest.raises(PermissionDenied, match=re.escape(f"/nowhere; {root} belongs to {owner}: run this as {owner}")):
        databases.describe("nowhere")  # what lies in a folder that is closed is not there to be looked at
    monkeypatch.undo()


def test_a_restart_is_one(orders: Database) -> None:
    began = ask(orders, "SELECT pg_postmaster_start_time()::text")
    orders.restart()
    assert ask(orders, "SELECT pg_postmaster_start_time()::text") != began
    orders.stop()
    with pytest.raises(Conflict, match="stopped"):
        orders.restart()


# snapshots


@pytest.mark.parametrize("state", ["running", "idle", "stopped"])
def test_a_snapshot_holds_what_was_committed_and_nothing_later(
    root: Path, databases: Databases, orders: Database, state: str
) -> None:
    ask(orders, "CREATE TABLE t AS SELECT generate_series(1, 5000) AS a")
    if state == "idle":
        cluster_of(root, "orders").stop()
    if state == "stopped":
        orders.stop()
    assert orders.snapshot("first").state == "available"
    if state == "stopped":
        orders.start()
    ask(orders, "DELETE FROM t")
    copy = orders.restore(spec_of("copy", password=Credential.literal("the copy's")), snapshot="first")
    assert ask(copy, "SELECT count(*) FROM t") == 5000
    assert ask(orders, "SELECT count(*) FROM t") == 0
    assert copy.password().reveal() == "the copy's"
    identity = "SELECT system_identifier::text FROM pg_control_system()"
    assert ask(copy, identity) != ask(orders, identity)
    orders.delete_snapshot("first")


def test_a_last_snapshot_holds_the_last_commit(databases: Databases, orders: Database) -> None:
    ask(orders, "CREATE TABLE t AS SELECT 1 AS a")
    databases.delete("orders", final_snapshot="last")
    again = orders.restore(spec_of("again"), snapshot="last")
    assert ask(again, "SELECT a FROM t") == 1
    assert [taken.name for taken in orders.snapshots()] == ["last"]


def test_a_snapshot_of_ones_own_is_not_replaced_by_a_delete(root: Path, databases: Databases, orders: Database) -> None:
    (root / "orders/last-snapshot").write_text("mine")  # as if a delete had been killed before it took it
    orders.snapshot("mine")
    with pytest.raises(AlreadyExists, match="mine"):
        databases.delete("orders", final_snapshot="mine")
    assert databases.exists("orders")
    orders.delete_snapshot("mine")


@pytest.mark.parametrize("name", ["../x", "a/b", ".x", "x" * 200])
def test_an_impossible_name_of_a_snapshot_is_refused(root: Path, orders: Database, name: str) -> None:
    with pytest.raises(InvalidArgument, match="letters, digits"):
        orders.snapshot(name)
    with pytest.raises(NotFound):
        orders.delete_snapshot(name)


def test_a_snapshot_of_another_version_or_larger_storage_is_refused(databases: Databases, orders: Database) -> None:
    orders.snapshot("first")
    with pytest.raises(InvalidArgument, match="20 GiB"):
        orders.restore(spec_of("copy", storage_gib=10), snapshot="first")
    assert not databases.exists("copy")


# what this machine has


def test_a_version_that_is_not_here_is_refused_with_those_that_are(databases: Databases) -> None:
    with pytest.raises(Unsupported) as caught:
        databases.create(spec_of("old", version="9"))
    for found in all_binaries():
        assert found.version in str(caught.value)
    assert "apt-get install postgresql-9" in str(caught.value)


def test_a_server_whose_programs_are_gone_has_failed_and_can_be_deleted(
    root: Path, databases: Databases, orders: Database
) -> None:
    driver = PrivateDatabaseDriver(root)
    driver._found = ()
    without = Databases(driver)
    info = without.database("orders").info()
    assert (info.state, info.raw_state) == ("failed", f"without PostgreSQL {VERSION}")
    with pytest.raises(OperationError, match="PostgreSQL"):
        without.database("orders").connect()
    without.delete("orders", final_snapshot=False)
    assert not databases.exists("orders")


def test_the_settings_say_where_the_programs_are_and_whether_servers_linger(tmp_path: Path) -> None:
    found = find_binaries(version=VERSION)
    private = PrivatePostgresqlSettings(programs=found.folder, linger=True)
    settings = BaremetalSettings(root=tmp_path / "data", fsync=False, private_postgresql=private)
    databases = Databases(BaremetalProvider(settings).database())
    made = databases.create(spec_of("orders"))
    assert ask(made, "SELECT 1") == 1
    cluster = Cluster(tmp_path / "data/database/orders/cluster", found, linger=True)
    assert cluster.running
    databases.delete("orders", final_snapshot=False)
    assert not cluster.running
    with pytest.raises(ConfigError, match="has no PostgreSQL"):
        Databases(PrivateDatabaseDriver(tmp_path, tmp_path)).create(spec_of("orders"))


@pytest.mark.parametrize(
    ("state", "error"),
    [
        ("08006", Unavailable),
        ("22023", InvalidArgument),
        ("28P01", Unauthenticated),
        ("42501", PermissionDenied),
        ("42704", InvalidArgument),
        ("42P04", AlreadyExists),
        ("53100", QuotaExceeded),
        ("53300", Unavailable),
        ("55006", Conflict),
        ("57P03", Unavailable),
        ("XX001", Unavailable),
        ("XX000", OperationError),
    ],
)
def test_what_postgresql_says_is_told_in_our_words(tmp_path: Path, state: str, error: type[OperationError]) -> None:
    native = psycopg.errors.lookup(state)("it says so")
    fault = PrivateDatabaseDriver(tmp_path).classify(native)
    assert fault is not None
    assert (fault.error, fault.message, fault.code) == (error, "it says so", state)


def test_an_error_of_the_operating_system_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "database").touch()
    with pytest.raises(OperationError, match=rf"File exists: {tmp_path}/database"):
        Databases(PrivateDatabaseDriver(tmp_path / "database")).create(spec_of("orders"))
    fault = PrivateDatabaseDriver(tmp_path).classify(OSError(errno.ENOSPC, "No space left on device"))
    assert fault is not None
    assert (fault.error, fault.message) == (QuotaExceeded, "No space left on device")


def test_an_error_that_is_a_bug_is_nobodys(tmp_path: Path) -> None:
    assert PrivateDatabaseDriver(tmp_path).classify(ValueError("a bug")) is None


# who is killed, who is late, what is full

CREATE = """if True:
    import os, pathlib, sys
    from shiftable.database import Databases
    from shiftable.errors import AlreadyExists
    from shiftable.testing.conformance.database import small_spec
    from shiftable_baremetal.database import PrivateDatabaseDriver
    import attrs, resource, shiftable.postgresql, psycopg

    root, version, die_at, limit = pathlib.Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    seen = 0

    def count(event, arguments):
        global seen
        if event in {"os.rename", "os.mkdir", "subprocess.Popen", "socket.connect", "fcntl.flock", "shutil.copyfile"}:
            seen += 1
            if seen == die_at:
                os.kill(os.getpid(), 9)

    sys.addaudithook(count)
    if limit:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    try:
        Databases(PrivateDatabaseDriver(root, fsync=False)).create(attrs.evolve(small_spec("orders"), version=version))
    except AlreadyExists:
        print("exists")
    except Exception as exc:
        print(type(exc).__name__)
    else:
        print("made", seen)
"""


@pytest.fixture(scope="module")
def steps(tmp_path_factory: pytest.TempPathFactory) -> int:
    """Return in how many steps a server is made."""
    whole = told(CREATE, tmp_path_factory.mktemp("steps") / "database", VERSION, "0", "0")
    assert whole.startswith("made ")
    return int(whole.split()[1])


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.97, 0.99])
def test_a_create_that_is_killed_has_made_the_server_or_nothing(
    root: Path, databases: Databases, steps: int, share: float
) -> None:
    with python(CREATE, root, VERSION, str(max(1, round(steps * share))), "0") as process:
        assert process.wait() == -signal.SIGKILL
    if not databases.exists("orders"):
        databases.create(spec_of("orders"))
    assert [*root.glob(".new*"), *root.glob(".gone*")] == []
    assert ask(databases.database("orders"), "SELECT current_user::text", "shop") == "shiftadmin"


def test_two_processes_make_one_server(root: Path, databases: Databases) -> None:
    with contextlib.ExitStack() as stack:
        processes = [stack.enter_context(python(CREATE, root, VERSION, "0", "0")) for _ in range(3)]
        said = sorted(process.communicate()[0].split()[0] for process in processes)
    assert said == ["exists", "exists", "made"]
    assert ask(databases.database("orders"), "SELECT 1") == 1


def test_a_full_disk_leaves_nothing_behind(root: Path, databases: Databases) -> None:
    assert told(CREATE, root, VERSION, "0", "100000") == f"{QuotaExceeded.__name__}\n"
    assert [path.name for path in root.iterdir()] == [".lock~orders"]
    databases.create(spec_of("orders"))


def test_a_server_that_is_half_deleted_is_gone_and_its_name_free(root: Path, databases: Databases) -> None:
    databases.create(spec_of("orders"))
    (root / "orders").rename(root / ".gone~orders~x")
    assert not databases.exists("orders")
    databases.create(spec_of("orders"))
    assert not (root / ".gone~orders~x").exists()


def test_the_leftovers_of_another_server_with_a_longer_name_are_left_alone(root: Path, databases: Databases) -> None:
    root.mkdir()
    (root / ".new~orders-2~x").mkdir()
    databases.create(spec_of("orders"))
    assert (root / ".new~orders-2~x").exists()


def test_a_name_is_taken_also_for_a_restore(databases: Databases, orders: Database) -> None:
    orders.snapshot("first")
    with pytest.raises(AlreadyExists, match="snapshot"):
        orders.snapshot("first")
    databases.create(spec_of("copy"))
    with pytest.raises(AlreadyExists):
        orders.restore(spec_of("copy"), snapshot="first")


CHANGE = """if True:
    import os, pathlib, sys
    import attrs, psycopg, shiftable.postgresql
    from shiftable.config import Credential
    from shiftable.database import Databases
    from shiftable.masking import Masked
    from shiftable.testing.conformance.database import small_spec
    from shiftable_baremetal.database import PrivateDatabaseDriver

    root, version, verb, die_at = pathlib.Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])
    seen = 0

    def count(event, arguments):
        global seen
        if event in {"os.rename", "os.mkdir", "os.remove", "subprocess.Popen", "socket.connect", "fcntl.flock"}:
            seen += 1
            if seen == die_at:
                os.kill(os.getpid(), 9)

    databases = Databases(PrivateDatabaseDriver(root, fsync=False))
    spec = attrs.evolve(small_spec("orders"), version=version, parameters={"work_mem": "6MB"}, databases=("shop", "b"))
    orders = databases.database("orders")
    sys.addaudithook(count)
    if verb == "update":
        for change in databases.diff(spec):
            databases.apply(change)
    if verb == "password":
        orders.set_password("the next")
    if verb == "snapshot":
        orders.snapshot("first")
    if verb == "restore":
        orders.restore(attrs.evolve(spec, name="copy"), snapshot="zeroth")
    if verb == "delete":
        databases.delete("orders", final_snapshot="last")
    print(seen)
"""


@pytest.mark.parametrize("verb", ["update", "password", "snapshot", "restore", "delete"])
def test_a_change_that_is_killed_loses_nothing_and_is_done_by_the_next_try(
    root: Path, databases: Databases, verb: str
) -> None:
    orders = databases.create(spec_of("orders", password=None))
    ask(orders, "CREATE TABLE t AS SELECT 7 AS a")
    orders.snapshot("zeroth")
    for die_at in (1, 2, 3, 5, 8, 13, 21):
        with python(CHANGE, root, VERSION, verb, str(die_at)) as process:
            assert process.wait() in {0, 1, -signal.SIGKILL}
        if databases.exists("orders"):
            assert ask(orders, "SELECT a FROM t") == 7
            assert ask(orders, "SHOW work_mem") in {"4MB", "6MB"}
        for taken in orders.snapshots():
            assert (root / ".snapshots/orders" / taken.name / "data/PG_VERSION").read_text() == f"{VERSION}\n"
    with python(CHANGE, root, VERSION, verb, "0") as process:
        assert process.wait() in {0, 1}  # 1: it is done, and there is such a one
    copy, snapshots = (
        databases.open(spec_of("copy", password=Credential.literal(conformance.CANARY))),
        {taken.name for taken in orders.snapshots()},
    )
    outcome = {
        "update": lambda: ask(orders, "SELECT current_setting('work_mem')", "b") == "6MB",
        "password": lambda: orders.password(fresh=True).reveal() == "the next" and ask(orders, "SELECT 1") == 1,
        "snapshot": lambda: snapshots == {"zeroth", "first"},
        "restore": lambda: ask(copy, "SELECT a FROM t") == 7,
        "delete": lambda: not databases.exists("orders") and snapshots == {"zeroth", "last"},
    }
    assert outcome[verb]()
    if not databases.exists("orders"):
        databases.create(spec_of("orders"))
    databases.delete("orders", final_snapshot=False)
    assert [*root.glob(".new~orders*"), *root.glob(".gone~orders*")] == []


def test_any_sequence_of_calls_leaves_what_a_dictionary_would(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = small_spec

    def spec(name: str, **options: str) -> DatabaseSpec:
        return attrs.evolve(plain(name, **options), version=VERSION)

    monkeypatch.setattr(conformance, "small_spec", spec)
    driver = PrivateDatabaseDriver(tmp_path / "database", fsync=False, page_size=2)
    machine = database_machine(lambda: driver)
    few = settings(max_examples=4, stateful_step_count=10, deadline=None, database=None, phases=[Phase.generate])
    run_state_machine_as_test(machine, settings=few)

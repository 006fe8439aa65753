"""Who connects to a server of the double's reaches a private PostgreSQL; Cloud SQL's certificates are checked."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import psycopg
import pytest
from cryptography import x509

from shiftable.database import Database, Databases, DatabaseSpec, Login
from shiftable.database._url import url_of
from shiftable.errors import ConfigError, InvalidArgument
from shiftable.postgresql import Cluster, ClusterError
from shiftable.testing import databases as testing_databases
from shiftable.testing.conformance.database import small_spec
from shiftable.testing.databases import PATIENCE
from shiftable_gcp import GcpDatabaseSettings, GcpProvider, GcpSettings
from shiftable_gcp._sql_ca import keep
from shiftable_gcp._sql_state import Authority
from shiftable_gcp.double import GcpDouble

PASSWORD = "it's-a-\\secret"


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def databases(provider: GcpProvider) -> Databases:
    return Databases(provider.database(), sleep=lambda _: None)


@pytest.fixture
def shop(databases: Databases) -> Database:
    made = databases.create(small_spec("shop", password=PASSWORD))
    made.wait()
    return made


def ask(database: Database, query: str, name: str | None = None) -> Any:
    engine = database.engine(name, connect_timeout=PATIENCE)
    with engine.connect() as connection:
        found = connection.exec_driver_sql(query).all()
    engine.dispose()
    return found


def run(database: Database, statement: str) -> None:
    engine = database.engine(connect_timeout=PATIENCE)
    with engine.begin() as connection:
        connection.exec_driver_sql(statement)
    engine.dispose()


def test_an_engine_reaches_a_real_server_as_an_administrator_who_is_no_superuser(shop: Database) -> None:
    assert [("shiftadmin", "shop", "off")] == ask(
        shop, "select current_user, current_database(), current_setting('is_superuser')"
    )
    run(shop, "create table orders (id int primary key)")
    run(shop, "insert into orders values (1), (2)")
    assert [(2,)] == ask(shop, "select count(*) from orders")
    connection: Any = shop.connect("postgres", connect_timeout=PATIENCE)
    assert ("postgres",) == connection.execute("select current_database()").fetchone()
    connection.close()


def test_a_wrong_password_is_refused_by_the_server(shop: Database, databases: Databases) -> None:
    other = databases.open(small_spec("shop", password="wrong"))
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        other.connect(connect_timeout=PATIENCE)


def test_a_database_that_is_declared_later_is_there_when_the_change_is_done(
    shop: Database, databases: Databases
) -> None:
    run(shop, "select 1")
    wider = attrs.evolve(small_spec("shop", password=PASSWORD), databases=("shop", "Ordérs 2"))
    (change,) = databases.diff(wider)
    databases.apply(change)
    shop.wait()
    assert [("Ordérs 2",)] == ask(shop, "select current_database()", "Ordérs 2")


def test_a_snapshot_holds_what_the_server_held_and_the_original_goes_on(shop: Database, databases: Databases) -> None:
    run(shop, "create table orders as select generate_series(1, 1000) as id")
    shop.snapshot("before")
    shop.wait()
    run(shop, "delete from orders where id > 10")
    while any(each.state != "available" for each in shop.snapshots()):
        shop.info()
    copy = shop.restore(attrs.evolve(small_spec("copy", password="another"), storage_gib=30), snapshot="before")
    copy.wait()
    assert [(1000,)] == ask(copy, "select count(*) from orders")
    assert [(10,)] == ask(shop, "select count(*) from orders")
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        databases.open(small_spec("copy", password=PASSWORD)).connect(connect_timeout=PATIENCE)


def test_a_clone_of_a_time_holds_what_the_server_holds(shop: Database) -> None:
    run(shop, "create table orders as select 1 as id")
    info = shop.info()
    assert info.created is not None
    copy = shop.restore(small_spec("copy", password="another"), at=info.created)
    copy.wait()
    assert [(1,)] == ask(copy, "select id from orders")


def test_a_password_that_is_changed_there_counts_at_once(shop: Database, databases: Databases) -> None:
    run(shop, "select 1")
    shop.set_password("rotated")
    shop.wait()
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        shop.connect(connect_timeout=PATIENCE)
    assert [(1,)] == ask(databases.open(small_spec("shop", password="rotated")), "select 1")


def test_a_stopped_server_lets_nobody_in_and_keeps_its_data(shop: Database) -> None:
    run(shop, "create table orders as select 1 as id")
    shop.stop()
    shop.wait("stopped")
    with pytest.raises(psycopg.OperationalError, match="stopped"):
        shop.connect(connect_timeout=PATIENCE)
    shop.start()
    shop.wait()
    assert [(1,)] == ask(shop, "select id from orders")


def test_who_connects_where_there_is_no_postgresql_is_told_so(shop: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(**_options: object) -> Iterator[Cluster]:
        raise ConfigError("no PostgreSQL on this machine")

    monkeypatch.setattr(testing_databases, "temporary_cluster", missing)
    with pytest.raises(psycopg.OperationalError, match="no PostgreSQL on this machine"):
        shop.connect(connect_timeout=PATIENCE)


def test_flags_are_the_server_s_parameters_and_let_users_replicate(databases: Databases) -> None:
    flags = {"work_mem": "8192", "cloudsql.logical_decoding": "on"}
    shop = databases.create(attrs.evolve(small_spec("shop", password=PASSWORD), parameters=flags))
    shop.wait()
    assert [("8MB", "logical")] == ask(shop, "select current_setting('work_mem'), current_setting('wal_level')")
    assert [(True,)] == ask(shop, "select rolreplication from pg_roles where rolname = current_user")
    (change,) = databases.diff(
        attrs.evolve(small_spec("shop", password=PASSWORD), parameters={**flags, "work_mem": "4096"})
    )
    databases.apply(change)
    shop.wait()
    assert [("4MB",)] == ask(shop, "select current_setting('work_mem')")


def test_many_who_come_at_once_reach_one_server(shop: Database) -> None:
    found = list[Any]()

    def come() -> None:
        connection: Any = shop.connect(connect_timeout=PATIENCE)
        found.append(connection.execute("select system_identifier::text from pg_control_system()").fetchone())
        connection.close()

    threads = [threading.Thread(target=come) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (6, 1) == (len(found), len(set(found)))


def test_nothing_is_left_of_the_servers_when_the_double_forgets_them(shop: Database, gcp_double: GcpDouble) -> None:
    run(shop, "select 1")
    (behind,) = gcp_double.sql.servers._private._behind.values()
    assert behind.cluster is not None
    cluster, folder = behind.cluster, behind.folder
    assert cluster.running
    gcp_double.reset()
    assert [False, False, False] == [cluster.running, cluster.folder.exists(), folder.exists()]


# certificates


def nobody() -> Login:
    raise AssertionError("no password is asked for")


@pytest.fixture
def tls(tmp_path: Path) -> Iterator[tuple[Authority, Cluster]]:
    """Run a server whose certificate has an instance's name and no host's."""
    authority = Authority.make()
    names = {"ssl_cert_file": "server.crt", "ssl_key_file": "server.key"}
    cluster = Cluster(tmp_path / "pg", parameters={"ssl": "on", **names}, tcp=True, durable=False)
    cluster.create()
    for name, text in zip(names.values(), authority.sign("shiftable-double:shop"), strict=True):
        path = cluster.data / name
        path.write_text(text)
        path.chmod(0o600)
        cluster.owner.take(path)
    try:
        cluster.start()
    except ClusterError as exc:
        if "SSL is not supported" not in str(exc):
            raise
        pytest.skip("this PostgreSQL was built without TLS")
    with cluster.connect(autocommit=True) as connection:
        connection.execute("create role shiftadmin login password 'x'")
    yield authority, cluster
    cluster.remove()


def test_the_instance_s_own_ca_is_checked_and_another_s_refused_without_a_host_s_name(
    shop: Database, tls: tuple[Authority, Cluster]
) -> None:
    authority, cluster = tls
    info = shop.info()
    assert info.server is not None
    mine = attrs.evolve(info.server, host="127.0.0.1", port=cluster.port, ca=keep(authority.pem))
    assert (True, False) == (mine.tls, mine.check_name)

    def connect(server: Any) -> Any:
        url = url_of(info, server, "postgres", "shiftadmin", nobody)
        return psycopg.connect(**url.arguments(), password="x")

    with connect(mine) as connection:
        assert ("t",) == connection.execute(
            "select case when ssl then 't' end from pg_stat_ssl where pid = pg_backend_pid()"
        ).fetchone()
    with pytest.raises(psycopg.OperationalError, match="certificate verify failed"):
        connect(attrs.evolve(mine, ca=info.server.ca))  # the CA of another instance
    with pytest.raises(psycopg.OperationalError, match="does not match host name"):
        connect(attrs.evolve(mine, check_name=True))


def test_the_ca_of_each_server_is_its_own_and_lies_in_a_file_of_ours_alone(
    shop: Database, databases: Databases, gcp_double: GcpDouble
) -> None:
    databases.create(small_spec("other")).wait()
    paths = []
    for name in ("shop", "other"):
        server = databases.database(name).info().server
        assert server is not None
        assert server.ca is not None
        found = x509.load_pem_x509_certificate(server.ca.read_bytes())
        assert gcp_double.sql.instances[gcp_double.project, name].authority.certificate == found
        paths.append(server.ca)
    assert paths[0] != paths[1]
    assert {0o600} == {path.stat().st_mode & 0o777 for path in paths}
    assert 0o700 == paths[0].parent.stat().st_mode & 0o777


def test_a_ca_file_that_somebody_changed_is_written_anew(tmp_path: Path) -> None:
    pem = Authority.make().pem
    path = keep(pem, tmp_path / "a")
    path.write_text("forged")
    assert path == keep(pem, tmp_path / "a")
    assert pem == path.read_text()
    path.unlink()
    path.symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").write_text(pem)
    assert not keep(pem, tmp_path / "a").is_symlink()


@pytest.mark.parametrize("mode", [0o777, 0o770])
def test_a_folder_that_others_may_write_to_is_not_trusted_with_cas(tmp_path: Path, mode: int) -> None:
    folder = tmp_path / "open"
    folder.mkdir()
    folder.chmod(mode)
    first, second = (keep(Authority.make().pem, folder) for _ in range(2))
    assert folder != first.parent
    assert 0o700 == first.parent.stat().st_mode & 0o777
    assert first.parent == second.parent  # one folder of the process


def test_a_server_of_a_shared_ca_has_to_bear_its_dns_name(databases: Databases) -> None:
    spec = attrs.evolve(small_spec("shop"), native=GcpDatabaseSettings(server_ca="shared"))
    server = databases.create(spec).wait().server
    assert server is not None
    assert server.host.endswith(".europe-west3.sql.goog")
    assert server.check_name
    arguments = databases.open(spec).url().arguments()
    assert ("verify-full", str(server.ca)) == (arguments["sslmode"], arguments["sslrootcert"])


def test_a_server_of_mysql_is_checked_in_the_same_way(databases: Databases) -> None:
    spec = attrs.evolve(small_spec("shop"), engine="mysql", version="8.4")
    info = databases.create(spec).wait()
    assert info.server is not None
    assert (3306, False) == (info.server.port, info.server.check_name)
    url = url_of(info, attrs.evolve(info.server, host="192.0.2.1"), "shop", "root", nobody)
    assert {"ca": str(info.server.ca), "check_hostname": False} == url.arguments()["ssl"]
    context = ssl.create_default_context(cafile=str(info.server.ca))  # it is one
    assert 1 == len(context.get_ca_certs())


# tokens


def test_who_logs_in_by_token_is_the_account_of_the_credentials(databases: Databases, gcp_double: GcpDouble) -> None:
    spec: DatabaseSpec = attrs.evolve(small_spec("shop"), token_login=True)
    databases.create(spec).wait()
    driver: Any = databases.database("shop")._driver
    token = driver.login_token("shop", None)
    me = gcp_double.email.removesuffix(".gserviceaccount.com")
    assert me == token.user
    assert token.value.reveal().startswith("ya29.")
    assert token.expires.tzinfo is not None
    assert token.value.reveal() not in repr(token)
    held = gcp_double.sql.instances[gcp_double.project, "shop"].users[me]
    assert ("CLOUD_IAM_SERVICE_ACCOUNT", ["cloudsqlsuperuser"], None) == (
        held["type"],
        held["databaseRoles"],
        held["password"],
    )
    assert databases.describe("shop").token_login
    assert databases.diff(spec) == ()


def test_an_application_that_logs_in_by_token_needs_no_password(databases: Databases, gcp_double: GcpDouble) -> None:
    spec = attrs.evolve(small_spec("shop"), token_login=True)
    shop = databases.create(spec)
    shop.wait()
    me = gcp_double.email.removesuffix(".gserviceaccount.com")
    for _ in range(3):
        assert [(me,)] == ask(shop, "select current_user")
    run(shop, "create table orders (id int)")


@pytest.mark.parametrize(
    ("declared", "held", "kind"),
    [
        ("me@example.com", "me@example.com", "CLOUD_IAM_USER"),
        ("app@shop.iam.gserviceaccount.com", "app@shop.iam", "CLOUD_IAM_SERVICE_ACCOUNT"),
        ("app@shop.iam", "app@shop.iam", "CLOUD_IAM_SERVICE_ACCOUNT"),
    ],
)
def test_the_declared_account_may_log_in_by_token(
    databases: Databases, gcp_double: GcpDouble, declared: str, held: str, kind: str
) -> None:
    spec = attrs.evolve(small_spec("shop"), token_login=True, user=declared)
    databases.create(spec).wait()
    users = gcp_double.sql.instances[gcp_double.project, "shop"].users
    assert {"postgres", "shiftadmin", held} == users.keys()
    assert kind == users[held]["type"]
    assert declared == databases.open(spec).url().user


def test_who_does_not_know_its_own_name_makes_no_server_to_log_in_by_token(gcp_double: GcpDouble) -> None:
    provider = GcpProvider(GcpSettings(**{**gcp_double.config, "service_account": None}))
    with pytest.raises(InvalidArgument, match="whose they are"):
        Databases(provider.database()).create(attrs.evolve(small_spec("shop"), token_login=True))
    provider.close()
    assert {} == gcp_double.sql.instances

"""Azure Database keeps the rules for databases, at a double that keeps Azure's."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import attrs
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from shiftable.database import Databases, DatabaseSpec
from shiftable.errors import AlreadyExists, InvalidArgument, Unsupported
from shiftable.testing.conformance.database import DatabaseConformance, Sleep, database_machine, small_spec
from shiftable_azure import AzureDatabaseSettings, AzureProvider, AzureSettings
from shiftable_azure.database import AzureDatabaseDriver
from shiftable_azure.double import AzureDouble

VERSIONS: dict[str, dict[str, Any]] = {
    "postgresql": {"engine": "postgresql", "version": "16"},
    "mysql": {"engine": "mysql", "version": "8.0"},
}


@pytest.fixture
def databases(azure_double: AzureDouble, database_driver: AzureDatabaseDriver) -> Databases:
    return Databases(database_driver, sleep=azure_double.clock.advance)


def apply(databases: Databases, spec: DatabaseSpec) -> None:
    """Make a server as declared, and wait for it."""
    for change in databases.diff(spec):
        databases.apply(change)
    databases.database(spec.name).wait()


class AzureDatabases(DatabaseConformance):
    @pytest.fixture
    def driver(self, azure_double: AzureDouble, database_driver: AzureDatabaseDriver) -> AzureDatabaseDriver:
        azure_double.databases.on_demand = 1000
        azure_double.databases.cpus = 1_000_000
        azure_double.databases.page_size = 60
        return database_driver

    @pytest.fixture
    def sleep(self, azure_double: AzureDouble) -> Sleep:
        return azure_double.clock.advance


class TestAzureDatabases(AzureDatabases):
    """Everything is done at once."""


class TestSlowAzureDatabases(AzureDatabases):
    """Each operation takes its time, and pages are small."""

    many = 25

    @pytest.fixture
    def driver(self, azure_double: AzureDouble, database_driver: AzureDatabaseDriver) -> AzureDatabaseDriver:
        azure_double.databases.delay = timedelta(seconds=4)
        azure_double.databases.on_demand = 1000
        azure_double.databases.page_size = 7
        return database_driver


def test_the_driver_does_what_the_model_does(azure_double: AzureDouble, database_driver: AzureDatabaseDriver) -> None:
    def make_driver() -> AzureDatabaseDriver:
        azure_double.reset()
        azure_double.databases.delay = timedelta(seconds=4)
        return database_driver

    quick = settings(
        max_examples=8,
        stateful_step_count=10,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    )
    run_state_machine_as_test(database_machine(make_driver, sleep=azure_double.clock.advance), settings=quick)


# sizes


@pytest.mark.parametrize(
    ("wants", "sku"),
    [
        ({"cpus": 2, "memory_gib": 8}, "Standard_D2ds_v5"),
        ({"cpus": 1, "memory_gib": 2}, "Standard_B1ms"),
        ({"cpus": 1, "memory_gib": 4}, "Standard_B2s"),
        ({"cpus": 1, "memory_gib": 2, "high_availability": True}, "Standard_D2ds_v5"),
        ({"cpus": 2, "memory_gib": 9}, "Standard_E2ds_v5"),
        ({"cpus": 3, "memory_gib": 1}, "Standard_D4ds_v5"),
        ({"cpus": 8, "memory_gib": 64}, "Standard_E8ds_v5"),
        ({"cpus": 2, "memory_gib": 4, "native": AzureDatabaseSettings(sku="Standard_B2s")}, "Standard_B2s"),
        ({"cpus": 4, "memory_gib": 4, "native": AzureDatabaseSettings(sku="Standard_B2s")}, "Standard_D4ds_v5"),
    ],
)
def test_the_smallest_size_that_has_its_cpus_to_itself_is_chosen(
    databases: Databases, azure_double: AzureDouble, wants: dict[str, Any], sku: str
) -> None:
    spec = attrs.evolve(small_spec("orders"), **wants)
    choice = databases.size(spec)
    assert choice is not None
    assert choice.size.name == sku
    assert "germanywestcentral" in choice.reason
    databases.create(spec).wait()
    assert azure_double.databases.server("orders").sku["name"] == sku
    assert databases.diff(spec) == ()


@pytest.mark.parametrize("engine", ["postgresql", "mysql"])
@pytest.mark.parametrize(
    ("storage", "postgresql", "mysql"), [(1, 32, 20), (33, 64, 33), (4095, 4095, 4095), (5000, 8192, 5000)]
)
def test_storage_is_rounded_up_to_what_azure_has(
    databases: Databases, engine: Any, storage: int, postgresql: int, mysql: int
) -> None:
    spec = attrs.evolve(small_spec("orders"), storage_gib=storage, **VERSIONS[engine])
    databases.create(spec).wait()
    assert databases.describe("orders").storage_gib == {"postgresql": postgresql, "mysql": mysql}[engine]
    assert databases.diff(spec) == ()


def test_storage_that_nobody_has_is_refused(databases: Databases) -> None:
    with pytest.raises(Unsupported, match="40,000 GiB"):
        databases.create(attrs.evolve(small_spec("orders"), storage_gib=40_000))
    with pytest.raises(InvalidArgument, match="16,384 GiB"):
        databases.create(attrs.evolve(small_spec("orders"), storage_gib=20_000, **VERSIONS["mysql"]))


def test_a_size_that_is_offered_no_more_stays_until_another_is_wanted(
    databases: Databases, azure_double: AzureDouble
) -> None:
    databases.create(small_spec("orders")).wait()
    azure_double.databases.server("orders").sku = {"name": "Standard_D2as_v1", "tier": "GeneralPurpose"}
    assert (databases.describe("orders").cpus, databases.describe("orders").memory_gib) == (2, 8)
    assert databases.diff(small_spec("orders")) == ()
    databases.database("orders").resize(cpus=4, memory_gib=16)
    databases.database("orders").wait()
    assert azure_double.databases.server("orders").sku["name"] == "Standard_D4ds_v5"


def test_a_change_of_something_else_leaves_a_size_that_nobody_would_choose(
    databases: Databases, azure_double: AzureDouble
) -> None:
    databases.create(small_spec("orders")).wait()
    azure_double.databases.server("orders").sku = {"name": "Standard_B2s", "tier": "Burstable"}
    databases.database("orders").protect(on=True)
    databases.database("orders").wait()
    assert azure_double.databases.server("orders").sku["name"] == "Standard_B2s"
    databases.database("orders").protect(on=False)


# high availability, networks, parameters


@pytest.mark.parametrize(
    ("cpus", "memory", "wanted", "mode"),
    [(2, 8, None, "ZoneRedundant"), (2, 8, "SameZone", "SameZone"), (8, 64, None, "SameZone")],
)
def test_a_second_server_is_in_another_zone_where_that_is_offered(
    databases: Databases, azure_double: AzureDouble, cpus: int, memory: int, wanted: Any, mode: str
) -> None:
    native = AzureDatabaseSettings(high_availability_mode=wanted)
    spec = attrs.evolve(small_spec("orders"), cpus=cpus, memory_gib=memory, high_availability=True, native=native)
    databases.create(spec).wait()
    assert azure_double.databases.server("orders").properties["highAvailability"]["mode"] == mode
    assert databases.diff(spec) == ()
    apply(databases, attrs.evolve(spec, high_availability=False))
    assert azure_double.databases.server("orders").properties["highAvailability"]["mode"] == "Disabled"


def test_a_size_without_the_mode_is_passed_over_and_refused_by_name(databases: Databases) -> None:
    native = AzureDatabaseSettings(high_availability_mode="ZoneRedundant")
    spec = attrs.evolve(small_spec("orders"), cpus=8, memory_gib=64, high_availability=True, native=native)
    choice = databases.size(spec)
    assert choice is not None
    assert choice.size.name == "Standard_D16ds_v5"
    with pytest.raises(Unsupported, match="ZoneRedundant for the size Standard_E8ds_v5"):
        databases.create(attrs.evolve(spec, native=attrs.evolve(native, sku="Standard_E8ds_v5")))


@pytest.mark.parametrize("engine", ["postgresql", "mysql"])
def test_networks_become_firewall_rules_and_back(databases: Databases, azure_double: AzureDouble, engine: Any) -> None:
    spec = attrs.evolve(
        small_spec("orders"), public=True, allow_from=("192.0.2.0/24", "198.51.100.7/32"), **VERSIONS[engine]
    )
    databases.create(spec).wait()
    rules = azure_double.databases.server("orders").rules
    ends = {(rule["properties"]["startIpAddress"], rule["properties"]["endIpAddress"]) for rule in rules.values()}
    assert ends == {("192.0.2.0", "192.0.2.255"), ("198.51.100.7", "198.51.100.7")}
    changed = attrs.evolve(spec, allow_from=("203.0.113.128/25", "192.0.2.0/24"))
    apply(databases, changed)
    assert databases.describe("orders").allow_from == ("192.0.2.0/24", "203.0.113.128/25")
    apply(databases, attrs.evolve(changed, allow_from=()))
    assert rules == {}


def test_a_rule_of_another_tool_is_told_in_networks_and_goes_as_a_whole(
    databases: Databases, azure_double: AzureDouble
) -> None:
    spec = attrs.evolve(small_spec("orders"), public=True)
    databases.create(spec).wait()
    rules = azure_double.databases.server("orders").rules
    rules["office"] = {"properties": {"startIpAddress": "192.0.2.1", "endIpAddress": "192.0.2.4"}}
    everywhere = ".".join("0000")
    rules["azure"] = {"properties": {"startIpAddress": everywhere, "endIpAddress": everywhere}}
    told = (f"{everywhere}/32", "192.0.2.1/32", "192.0.2.2/31", "192.0.2.4/32")
    assert databases.describe("orders").allow_from == told
    apply(databases, attrs.evolve(spec, allow_from=told[1:3]))
    assert databases.describe("orders").allow_from == told[1:3]
    assert "office" not in rules


def test_a_server_becomes_public_and_private_again(databases: Databases) -> None:
    spec = small_spec("orders")
    databases.create(spec).wait()
    public = attrs.evolve(spec, public=True, allow_from=("192.0.2.0/24",))
    apply(databases, public)
    assert databases.diff(public) == ()
    apply(databases, spec)
    assert (databases.describe("orders").public, databases.describe("orders").allow_from) == (False, ())


@pytest.mark.parametrize("engine", ["postgresql", "mysql"])
def test_a_server_in_a_subnet_stays_in_it_and_its_copy_too(
    databases: Databases, azure_double: AzureDouble, engine: Any
) -> None:
    native = AzureDatabaseSettings(subnet="/subscriptions/s/subnets/db", private_dns_zone="/subscriptions/s/zones/z")
    spec = attrs.evolve(small_spec("orders"), native=native, **VERSIONS[engine])
    databases.create(spec).wait()
    database = databases.database("orders")
    network = azure_double.databases.server("orders").properties["network"]
    assert network["delegatedSubnetResourceId"] == native.subnet
    assert native.private_dns_zone in network.values()
    assert databases.diff(spec) == ()
    database.restore("again", at=azure_double.clock.now()).wait()
    assert azure_double.databases.server("again").properties["network"] == network


@pytest.mark.parametrize(
    ("changed", "match"),
    [
        ({"allow_from": ("192.0.2.0/24",)}, "public = true"),
        ({"allow_from": ("2001:db8::/32",), "public": True}, "IPv4"),
        ({"public": True, "native": AzureDatabaseSettings(subnet="/s")}, "subnet is not public"),
        ({"parameters": {"require_secure_transport": "off"}}, "tls ="),
        ({"labels": {"Team": "a", "team": "b"}}, "by case"),
        ({"labels": {"a/b": "c"}}, "label"),
        ({"labels": {f"l{number}": "" for number in range(51)}}, "50 labels"),
        *(
            ({"admin": name}, "administrator")
            for name in ("admin", "ROOT", "postgres", "azure_superuser", "pg_me", "1a", "a b")
        ),
        ({"admin": "x" * 33, "engine": "mysql", "version": "8.4"}, "administrator"),
        ({"token_login": True, "engine": "mysql", "version": "8.4"}, "logins by token to MySQL"),
    ],
)
def test_what_azure_forbids_is_refused_before_anything_is_made(
    databases: Databases, azure_double: AzureDouble, changed: dict[str, Any], match: str
) -> None:
    with pytest.raises((InvalidArgument, Unsupported), match=match):
        databases.create(attrs.evolve(small_spec("orders"), **changed))
    assert azure_double.databases.servers == {}


@pytest.mark.parametrize("engine", ["postgresql", "mysql"])
def test_parameters_count_at_once_or_after_a_restart(databases: Databases, engine: Any) -> None:
    dynamic = {"postgresql": ("work_mem", "8192"), "mysql": ("max_connections", "500")}[engine]
    static = {"postgresql": ("wal_level", "logical"), "mysql": ("innodb_buffer_pool_size", "1073741824")}[engine]
    spec = attrs.evolve(small_spec("orders"), parameters=dict([dynamic]), **VERSIONS[engine])
    databases.create(spec).wait()
    database = databases.database("orders")
    assert not database.info().restart_needed
    apply(databases, attrs.evolve(spec, parameters=dict([dynamic, static])))
    assert database.info().restart_needed
    database.restart()
    assert not database.wait().restart_needed
    assert databases.describe("orders").parameters == dict([dynamic, static])


def test_clients_without_tls_are_let_in_only_where_declared(databases: Databases, azure_double: AzureDouble) -> None:
    spec = attrs.evolve(small_spec("orders"), tls="optional")
    databases.create(spec).wait()
    held = azure_double.databases.server("orders").configurations["require_secure_transport"]
    assert (held["value"], databases.diff(spec)) == ("off", ())
    apply(databases, attrs.evolve(spec, tls="required"))
    assert (held["value"], databases.describe("orders").parameters) == ("on", {})


def test_a_connection_checks_the_servers_certificate_and_name(
    make_databases: Callable[..., AzureDatabaseDriver],
) -> None:
    for number, ca in enumerate((None, "/etc/roots.pem")):
        databases = Databases(make_databases(database_endpoint=None, database_ca=ca))
        database = databases.create(small_spec(f"orders-{number}"))
        database.wait()
        arguments = database.url().arguments()
        assert arguments["host"] == f"orders-{number}.postgres.database.azure.com"
        assert arguments["sslmode"] == "verify-full"
        assert (arguments["sslrootcert"] == "/etc/roots.pem") is (ca is not None)


# versions, backups, MySQL


def test_a_major_version_goes_up_and_a_minor_one_is_azures(databases: Databases, azure_double: AzureDouble) -> None:
    spec = small_spec("orders")
    databases.create(spec).wait()
    assert databases.describe("orders").version == "16.11"
    with pytest.raises(InvalidArgument, match="declare 16"):
        apply(databases, attrs.evolve(spec, version="16.12"))
    apply(databases, attrs.evolve(spec, version="17"))
    assert azure_double.databases.server("orders").properties["version"] == "17"


def test_backups_are_kept_for_seven_days_at_least(databases: Databases) -> None:
    spec = attrs.evolve(small_spec("orders"), backup_days=0)
    databases.create(spec).wait()
    assert databases.describe("orders").backup_days == 7
    assert databases.diff(spec) == ()


def test_an_automatic_backup_is_told_restored_and_not_deleted(databases: Databases, azure_double: AzureDouble) -> None:
    database = databases.create(small_spec("orders"))
    database.wait()
    azure_double.clock.advance(timedelta(days=1))
    azure_double.databases.put_backup("orders", "backup_639", azure_double.clock.now())
    (found,) = database.snapshots()
    assert (found.name, found.automatic, found.state) == ("backup_639", True, "available")
    assert database.restore("again", snapshot="backup_639").wait().state == "available"
    with pytest.raises(InvalidArgument, match="itself"):
        database.delete_snapshot("backup_639")


def test_a_burstable_server_has_no_snapshots(databases: Databases) -> None:
    databases.create(attrs.evolve(small_spec("orders"), cpus=1, memory_gib=2)).wait()
    with pytest.raises(Unsupported, match="burstable"):
        databases.database("orders").snapshot("first")


def test_a_server_for_mysql_lives_as_one_for_postgresql_does(databases: Databases, azure_double: AzureDouble) -> None:
    spec = attrs.evolve(small_spec("orders"), labels={"team": "shop"}, deletion_protection=True, **VERSIONS["mysql"])
    database = databases.create(spec)
    assert database.wait().version == "8.0.42"
    assert databases.diff(spec) == ()
    server = database.info().server
    assert server is not None
    assert server.port == 3306
    database.stop()
    database.wait("stopped")
    database.start()
    database.wait()
    azure_double.databases.delay = timedelta(minutes=3)
    database.snapshot("first")
    assert [(one.name, one.state) for one in database.snapshots()] == [("first", "creating")]
    assert database.wait_snapshot("first").automatic is False
    with pytest.raises(AlreadyExists):
        database.snapshot("first")
    with pytest.raises(Unsupported, match="7 days"):
        database.delete_snapshot("first")
    restored = database.restore("again", snapshot="first")
    restored.wait()
    assert databases.describe("again") == attrs.evolve(databases.describe("orders"), name="again")
    assert azure_double.databases.server("orders").flavour.engine == "mysql"


def test_snapshots_of_all_servers_are_told(databases: Databases, database_driver: AzureDatabaseDriver) -> None:
    for name, engine in (("one", "postgresql"), ("two", "mysql"), ("three", "postgresql")):
        database = databases.create(attrs.evolve(small_spec(name), **VERSIONS[engine]))
        database.wait()
        database.snapshot(f"of-{name}")
        database.wait()
    found, cursor = list[str](), None
    while True:
        page = database_driver.snapshots(None, cursor=cursor, limit=None)
        found += [one.name for one in page.items]
        if (cursor := page.next) is None:
            break
    assert sorted(found) == ["of-one", "of-three", "of-two"]


def test_one_change_of_many_things_is_one_request(databases: Databases, azure_double: AzureDouble) -> None:
    spec = small_spec("orders")
    databases.create(spec).wait()
    apply(
        databases,
        attrs.evolve(spec, cpus=4, memory_gib=16, storage_gib=64, backup_days=14, labels={"a": "b"}, public=True),
    )
    assert sum(call.operation == "Servers_Update" for call in azure_double.calls) == 1
    held = azure_double.databases.server("orders")
    assert (held.sku["name"], held.properties["storage"]["storageSizeGB"]) == ("Standard_D4ds_v5", 64)


def test_the_settings_of_one_server_are_checked() -> None:
    with pytest.raises(ValueError, match="entra_admin_id"):
        AzureDatabaseSettings(entra_admin="me")
    with pytest.raises(ValueError, match="subnet"):
        AzureDatabaseSettings(private_dns_zone="/z")
    with pytest.raises(ValueError, match="/path"):
        AzureSettings(database_endpoint="http://127.0.0.1:1")


def test_the_comparison_with_azures_definitions_finds_what_is_wrong(azure_server_definitions: Any) -> None:
    kind = "microsoft.dbforpostgresql/flexibleservers"
    good = {"location": "x", "sku": {"name": "a", "tier": "GeneralPurpose"}, "properties": {"version": "16"}}
    assert azure_server_definitions("microsoft.dbforpostgresql", kind, good, sent="PUT") == []
    for wrong in (
        {**good, "propertis": {}},
        {**good, "sku": {"name": "a"}},
        {**good, "properties": {"state": "Ready"}},
        {**good, "properties": {"storage": {"storageSizeGB": "32"}}},
        {"properties": {}},
    ):
        assert azure_server_definitions("microsoft.dbforpostgresql", kind, wrong, sent="PUT") != []


def test_a_database_that_azure_makes_itself_is_no_difference(databases: Databases, azure_double: AzureDouble) -> None:
    spec = attrs.evolve(small_spec("orders"), databases=("postgres", "shop"))
    databases.create(spec).wait()
    assert databases.describe("orders").databases == ("shop",)
    assert databases.diff(spec) == ()
    assert sorted(azure_double.databases.server("orders").databases) == ["shop"]


def test_an_engine_that_azure_does_not_have_is_told_and_not_tripped_over(databases: Databases) -> None:
    spec = attrs.evolve(small_spec("orders"), engine="mariadb", version="11")
    with pytest.raises(Unsupported, match="mariadb 11"):
        databases.create(spec)
    with pytest.raises(Unsupported, match="no mariadb"):
        databases.size(spec)
    databases.create(small_spec("orders")).wait()
    (change,) = databases.diff(spec)
    assert "does not become mariadb" in change.reason


def test_a_size_that_is_closed_is_not_chosen(databases: Databases, azure_double: AzureDouble) -> None:
    azure_double.databases.closed.add("Standard_D2ds_v5")
    choice = databases.size(small_spec("orders"))
    assert choice is not None
    assert choice.size.name == "Standard_D2s_v3"


def test_drivers_of_one_provider_share_what_is_left_to_do(azure_double: AzureDouble, provider: AzureProvider) -> None:
    azure_double.databases.delay = timedelta(seconds=30)
    Databases(provider.database()).create(small_spec("orders"))
    Databases(provider.database(), sleep=azure_double.clock.advance).database("orders").wait()
    assert sorted(azure_double.databases.server("orders").databases) == ["shop"]

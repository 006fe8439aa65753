"""The table of instance classes, the choice among them, and the rules of storage."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import attrs
import pytest

from shiftable.database import Databases, DatabaseSpec
from shiftable.database.driver import Engine
from shiftable.errors import InvalidArgument
from shiftable.testing.conformance.database import small_spec
from shiftable_aws import AwsProvider, AwsSettings, RdsSettings, _rds_classes
from shiftable_aws._rds_storage import enlarged, grown, problems
from shiftable_aws._rds_told import STATUSES
from shiftable_aws.database import RdsDriver
from shiftable_aws.double import AwsDouble

SPEC = small_spec("orders")
TABLE = Path(_rds_classes.__file__).with_name("_rds_classes.json")

# "Viewing Amazon RDS DB instance status" in the RDS user guide, all of the table.
DOCUMENTED = (
    "available backing-up configuring-enhanced-monitoring configuring-iam-database-auth configuring-log-exports"
    " converting-to-vpc creating delete-precheck deleting failed inaccessible-encryption-credentials"
    " inaccessible-encryption-credentials-recoverable incompatible-create incompatible-network"
    " incompatible-option-group incompatible-parameters incompatible-restore insufficient-capacity maintenance"
    " modifying moving-to-vpc rebooting resetting-master-credentials renaming restore-error starting stopped stopping"
    " storage-config-upgrade storage-full storage-initialization storage-optimization upgrading"
)


@pytest.fixture
def driver(provider: AwsProvider) -> RdsDriver:
    made = provider.database()
    assert isinstance(made, RdsDriver)
    return made


def chosen(driver: RdsDriver, **declared: Any) -> str:
    return driver.size(attrs.evolve(SPEC, **declared)).size.name


# the table


def test_the_table_says_where_it_is_from_and_when() -> None:
    held = json.loads(TABLE.read_text())
    assert date.fromisoformat(held["date"]) >= date(2026, 11, 21)
    assert "DescribeInstanceTypes" in held["source"]
    assert len(held["classes"]) > 150


def test_every_class_is_as_the_machine_behind_it(aws_double: AwsDouble) -> None:
    machines = aws_double.backend("ec2").describe_instance_types()  # moto's copy of what AWS answers
    known = {found["InstanceType"]: found for found in machines}
    checked = 0
    for name, size in _rds_classes.classes().sizes.items():
        machine = known.get(name.removeprefix("db."))
        if machine is not None:
            checked += 1
            assert machine["VCpuInfo"]["DefaultVCpus"] == size.cpus, name
            assert machine["MemoryInfo"]["SizeInMiB"] * 2**20 == size.memory, name
    assert checked > 150


def test_the_table_is_made_anew_from_what_aws_answers(
    provider: AwsProvider, aws_double: AwsDouble, tmp_path: Path
) -> None:
    file = tmp_path / "classes.json"
    file.write_text(json.dumps({"date": "2000-01-01", "source": "kept", "classes": {"db.old.large": [1, 1]}}))
    everywhere = AwsProvider(AwsSettings(**{**aws_double.config, "region": "us-east-1"}))  # sells all of them
    _rds_classes.main(provider.session.client("rds"), everywhere.session.client("ec2"), file, "2026-11-22")
    everywhere.close()
    made = json.loads(file.read_text())
    assert (made["date"], made["source"]) == ("2026-11-22", "kept")
    assert made["classes"] == json.loads(TABLE.read_text())["classes"]


# the choice


@pytest.mark.parametrize(
    ("cpus", "memory", "name"),
    [
        (1, 1, "db.t4g.micro"),
        (2, 4, "db.t4g.medium"),
        (2, 8, "db.m7g.large"),
        (2, 9, "db.r7g.large"),
        (3, 16, "db.m7g.xlarge"),
        (4, 33, "db.x2g.xlarge"),
        (65, 128, "db.m8g.24xlarge"),
        (128, 512, "db.m6i.32xlarge"),
    ],
)
def test_the_smallest_class_is_chosen(driver: RdsDriver, cpus: int, memory: int, name: str) -> None:
    assert chosen(driver, cpus=cpus, memory_gib=memory) == name


def test_a_choice_says_its_reason_with_the_date_of_the_table(driver: RdsDriver) -> None:
    reason = driver.size(SPEC).reason
    assert "at least 2 CPUs and 8 GiB" in reason
    assert "the table of RDS classes of 2026-" in reason


def test_a_class_that_the_version_does_not_run_on_is_passed_over(driver: RdsDriver, aws_double: AwsDouble) -> None:
    assert chosen(driver, cpus=65, version="14") == "db.m7i.24xlarge"
    asked = [call for call in aws_double.calls if call.operation == "DescribeOrderableDBInstanceOptions"]
    assert len(asked) == 2
    chosen(driver, cpus=65, version="14")
    assert len([call for call in aws_double.calls if call.operation == asked[0].operation]) == 2


def test_a_declared_class_counts(provider: AwsProvider, driver: RdsDriver) -> None:
    spec = attrs.evolve(SPEC, native=RdsSettings(instance_class="db.m6gd.xlarge"))
    databases = Databases(driver)
    databases.create(spec).wait()
    held = databases.describe("orders")
    assert (held.cpus, held.memory_gib) == (4, 16)
    assert databases.diff(spec) == ()
    assert driver.size(spec).reason == "it is declared"
    with pytest.raises(InvalidArgument, match=r"db\.nope is not in the table"):
        databases.create(attrs.evolve(small_spec("other"), native=RdsSettings(instance_class="db.nope")))
    provider.close()


def test_a_class_that_is_newer_than_the_table_is_told_by_ec2(driver: RdsDriver, aws_double: AwsDouble) -> None:
    databases = Databases(driver)
    databases.create(SPEC).wait()
    aws_double.rds.server("orders")["DBInstanceClass"] = "db.m9g.2xlarge"
    held = databases.describe("orders")
    assert (held.cpus, held.memory_gib) == (8, 32)
    aws_double.rds.server("orders")["DBInstanceClass"] = "db.z99.large"
    with pytest.raises(InvalidArgument, match="EC2 knows no such machine"):
        databases.describe("orders")


def test_the_newest_version_of_the_declared_one_is_made(driver: RdsDriver) -> None:
    databases = Databases(driver)
    wanted: tuple[tuple[str, Engine, str, str], ...] = (
        ("a", "postgresql", "16", "16.10"),
        ("b", "postgresql", "16.4", "16.4"),
        ("c", "mysql", "8.4", "8.4.7"),
        ("d", "mariadb", "11", "11.8.3"),
    )
    for name, engine, version, made in wanted:
        spec = attrs.evolve(small_spec(name), engine=engine, version=version)
        assert databases.create(spec).wait().version == made
        assert databases.diff(spec) == ()


def test_a_server_of_a_version_that_is_no_longer_offered_is_still_changed_and_restored(
    driver: RdsDriver, aws_double: AwsDouble
) -> None:
    databases = Databases(driver)
    database = databases.create(SPEC)
    database.wait()
    aws_double.rds.server("orders")["EngineVersion"] = "16.1"
    database.resize(cpus=4, memory_gib=16)
    assert database.info().size == "db.m7g.xlarge"
    (change,) = databases.diff(attrs.evolve(SPEC, cpus=4, memory_gib=16, parameters={"work_mem": "8192"}))
    databases.apply(change)
    database.snapshot("first")
    copy = database.restore("copy", snapshot="first")
    copy.wait()
    assert databases.describe("copy").parameters == {"work_mem": "8192"}
    with pytest.raises(InvalidArgument, match=r"RDS has no postgresql 16\.1 here"):
        databases.create(attrs.evolve(small_spec("new"), version="16.1"))


# storage


@pytest.mark.parametrize(
    ("gib", "settings", "why"),
    [
        (20, RdsSettings(), None),
        (399, RdsSettings(iops=12_000), "from 400 GiB on"),
        (400, RdsSettings(iops=12_000, throughput=500), None),
        (400, RdsSettings(iops=3_000), "12,000 to 64,000"),
        (400, RdsSettings(throughput=125), "500 to 4,000"),
        (99, RdsSettings(storage_type="io2", iops=1_000), "at least 100 GiB"),
        (100, RdsSettings(storage_type="io2"), "needs iops"),
        (100, RdsSettings(storage_type="io2", iops=100_000), None),
        (100, RdsSettings(storage_type="io1", iops=5_001), "at most 50 iops"),
        (100, RdsSettings(storage_type="io1", iops=5_000, throughput=500), "only gp3"),
        (100, RdsSettings(storage_type="gp2", iops=1_000), "cannot be chosen"),
        (100, RdsSettings(max_storage_gib=105), "max_storage_gib must be 110"),
        (100, RdsSettings(max_storage_gib=110), None),
    ],
)
def test_storage_is_refused_before_it_is_sent_where_rds_refuses_it(
    driver: RdsDriver, aws_double: AwsDouble, gib: int, settings: RdsSettings, why: str | None
) -> None:
    spec = attrs.evolve(SPEC, storage_gib=gib, native=settings)
    found = list(problems(spec, settings))
    if why is None:
        assert found == []
        Databases(driver).create(spec).wait()
        return
    assert why in "; ".join(found)
    with pytest.raises(InvalidArgument, match=why):
        Databases(driver).create(spec)
    assert aws_double.rds.servers() == ()


@pytest.mark.parametrize(
    ("current", "wanted", "becomes"), [(20, 21, 22), (20, 22, 22), (100, 105, 110), (100, 200, 200)]
)
def test_storage_grows_by_a_tenth_at_least(driver: RdsDriver, current: int, wanted: int, becomes: int) -> None:
    databases = Databases(driver)
    database = databases.create(attrs.evolve(SPEC, storage_gib=current))
    database.wait()
    assert database.resize(storage_gib=wanted).storage_gib == becomes
    assert databases.describe("orders").storage_gib == becomes
    assert (
        databases.diff(attrs.evolve(SPEC, storage_gib=wanted, storage_autogrow=False))[0].fields[0].name
        != "storage_gib"
    )
    assert grown(current, wanted) == becomes


def test_storage_that_crosses_400_gib_takes_the_performance_of_large_storage(driver: RdsDriver) -> None:
    databases = Databases(driver)
    database = databases.create(SPEC)
    database.wait()
    database.resize(storage_gib=500)
    found = driver.client.describe_db_instances(DBInstanceIdentifier="orders")["DBInstances"][0]
    assert (found["AllocatedStorage"], found["Iops"], found["StorageThroughput"]) == (500, 12_000, 500)
    assert enlarged({"StorageType": "io2", "Iops": 5_000}, 200) == {"AllocatedStorage": 200, "Iops": 5_000}


def test_autogrow_is_switched_and_keeps_its_ceiling(driver: RdsDriver, aws_double: AwsDouble) -> None:
    databases = Databases(driver)
    spec = attrs.evolve(SPEC, native=RdsSettings(max_storage_gib=200))
    database = databases.create(spec)
    database.wait()
    database.resize(storage_gib=40)
    assert aws_double.rds.server("orders")["MaxAllocatedStorage"] == 200
    for on in (False, True):
        wanted = attrs.evolve(spec, storage_gib=40, storage_autogrow=on)
        (change,) = databases.diff(wanted)
        databases.apply(change)
        assert databases.diff(wanted) == ()


# states


def test_every_documented_status_is_known() -> None:
    assert sorted(STATUSES) == sorted(DOCUMENTED.split())


@pytest.mark.parametrize(("status", "state"), sorted(STATUSES.items()))
def test_a_status_is_told_in_our_words_and_theirs(
    driver: RdsDriver, aws_double: AwsDouble, status: str, state: str
) -> None:
    database = Databases(driver).create(SPEC)
    aws_double.rds.server("orders")["DBInstanceStatus"] = status
    assert (database.info().state, database.info().raw_state) == (state, status)


def test_a_status_that_is_new_is_unknown_and_no_error(driver: RdsDriver, aws_double: AwsDouble) -> None:
    database = Databases(driver).create(SPEC)
    aws_double.rds.server("orders")["DBInstanceStatus"] = "polishing"
    assert (database.info().state, database.info().raw_state) == ("unknown", "polishing")


# settings


def test_settings_are_declared_in_the_file_and_typed(tmp_path: Path, aws_double: AwsDouble) -> None:
    import shiftable

    (tmp_path / "shiftable.toml").write_text(
        '[project]\nname = "x"\n[environments.d]\nprovider = "a"\n'
        f'[providers.a]\ntype = "aws"\nregion = "eu-central-1"\nendpoint = "{aws_double.url}"\nrds_ca = "rds.pem"\n'
        '[database.orders]\nengine = "postgresql"\nversion = "16"\ncpus = 2\nmemory_gib = 8\nstorage_gib = 400\n'
        '[database.orders.aws]\nstorage_type = "gp3"\niops = 20000\nsecurity_groups = ["sg-1"]\n'
    )
    with shiftable.load(tmp_path / "shiftable.toml", environment="d") as app:
        (declared,) = [one for one in app.declared() if one.service == "database"]
        spec = app.spec(declared)
        assert isinstance(spec, DatabaseSpec)
        assert spec.native == RdsSettings(iops=20_000, security_groups=("sg-1",))


def test_members_of_clusters_are_no_servers(driver: RdsDriver, aws_double: AwsDouble) -> None:
    databases = Databases(driver)
    for name in ("alone", "member"):
        databases.create(small_spec(name))
    aws_double.rds.server("member")["DBClusterIdentifier"] = "many"
    assert [database.name for database in databases.list()] == ["alone"]


def test_a_server_is_checked_against_the_certificates_of_rds(aws_double: AwsDouble, tmp_path: Path) -> None:
    own = tmp_path / "rds.pem"
    for declared, ca in ((None, Path("~/.aws/rds-global-bundle.pem").expanduser()), (own, own)):
        provider = AwsProvider(AwsSettings(**aws_double.config, rds_ca=declared))
        databases = Databases(provider.database())
        if not databases.exists("orders"):
            databases.create(SPEC)
        server = databases.database("orders").info().server
        assert server is not None
        assert (server.ca, server.tls) == (ca, True)
        provider.close()


def test_a_token_is_for_one_user_and_a_quarter_of_an_hour(driver: RdsDriver) -> None:
    Databases(driver).create(attrs.evolve(SPEC, token_login=True))
    token = driver.login_token("orders", "app")
    query = parse_qs(token.value.reveal().partition("?")[2])
    assert (query["Action"], query["DBUser"], query["X-Amz-Expires"]) == (["connect"], ["app"], ["900"])
    assert "/eu-central-1/rds-db/aws4_request" in query["X-Amz-Credential"][0]
    assert timedelta(minutes=14) < token.expires - datetime.now(UTC) <= timedelta(minutes=15)
    assert driver.login_token("orders", None).user == "shiftadmin"

"""RDS when something goes wrong: lost answers, states, quotas, other people's groups, secrets that are gone."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import attrs
import pytest

from shiftable.config import Credential
from shiftable.database import Database, Databases, DatabaseSpec
from shiftable.errors import (
    AlreadyExists,
    Conflict,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    QuotaExceeded,
    Throttled,
    Unauthenticated,
    Unavailable,
)
from shiftable.testing.conformance.database import small_spec
from shiftable_aws import AwsProvider, AwsSettings
from shiftable_aws.database import RdsDriver
from shiftable_aws.double import AwsDouble

from .hostile import FAULTS, body_of, calls_of, firewalls, is_

DELAY = timedelta(seconds=2)
SPEC = small_spec("orders")


@pytest.fixture
def driver(provider: AwsProvider) -> RdsDriver:
    made = provider.database()
    assert isinstance(made, RdsDriver)
    return made


@pytest.fixture
def databases(driver: RdsDriver, aws_double: AwsDouble) -> Databases:
    aws_double.rds.delay = DELAY
    return Databases(driver, sleep=aws_double.clock.advance)


@pytest.fixture
def database(databases: Databases) -> Database:
    made = databases.create(SPEC)
    made.wait()
    return made


@pytest.fixture
def impatient(hasty: AwsProvider, aws_double: AwsDouble) -> Databases:
    """Return a client that tries once."""
    return Databases(hasty.database(), sleep=aws_double.clock.advance)


# answers that are lost


@pytest.mark.parametrize("kind", FAULTS)
def test_a_server_is_made_once_though_the_answer_is_lost(
    databases: Databases, aws_double: AwsDouble, kind: Any
) -> None:
    injected = aws_double.inject(kind, match=is_("CreateDBInstance"))
    databases.create(attrs.evolve(SPEC, allow_from=("192.0.2.0/24",), parameters={"work_mem": "8192"})).wait()
    assert injected.hits == 1
    assert len(calls_of(aws_double, "CreateDBInstance")) == 2
    assert aws_double.rds.servers() == ("orders",)
    assert databases.describe("orders").allow_from == ("192.0.2.0/24",)


def test_somebody_elses_server_of_the_moment_of_a_lost_answer_is_not_taken_for_ours(
    databases: Databases, provider: AwsProvider, aws_double: AwsDouble
) -> None:
    other = AwsProvider(AwsSettings(**aws_double.config))

    def meanwhile(**_: object) -> None:
        if not aws_double.rds.servers():
            other.session.client("rds").create_db_instance(
                DBInstanceIdentifier="orders",
                Engine="postgres",
                EngineVersion="16.10",
                DBInstanceClass="db.m7g.large",
                AllocatedStorage=20,
                MasterUsername="them",
                ManageMasterUserPassword=True,
                Tags=[{"Key": "shiftable-request", "Value": "theirs"}],
            )
            aws_double.inject("drop_before", match=is_("CreateDBInstance"))

    provider.session.client("rds").meta.events.register("before-send.rds.CreateDBInstance", meanwhile)
    with pytest.raises(AlreadyExists):
        databases.create(attrs.evolve(SPEC, allow_from=("192.0.2.0/24",)))
    assert aws_double.rds.server("orders")["MasterUsername"] == "them"
    assert firewalls(aws_double) == []
    other.close()


@pytest.mark.parametrize("kind", FAULTS)
def test_every_verb_happens_once_though_its_answer_is_lost(
    databases: Databases, database: Database, aws_double: AwsDouble, kind: Any
) -> None:
    steps: list[tuple[str, Callable[[], object]]] = [
        ("ModifyDBInstance", lambda: database.resize(cpus=4, memory_gib=16)),
        ("StopDBInstance", database.stop),
        ("StartDBInstance", database.start),
        ("RebootDBInstance", database.restart),
        ("CreateDBSnapshot", lambda: database.snapshot("first")),
        ("RestoreDBInstanceFromDBSnapshot", lambda: database.restore("copy", snapshot="first")),
        ("DeleteDBSnapshot", lambda: database.delete_snapshot("first")),
        ("DeleteDBInstance", lambda: databases.delete("orders", final_snapshot="last")),
    ]
    for operation, step in steps:
        injected = aws_double.inject(kind, match=is_(operation))
        step()
        assert injected.hits == 1, operation
        if operation != "DeleteDBInstance":
            database.wait("stopped" if operation == "StopDBInstance" else "available")
    database.wait_deleted()
    assert [snapshot.name for snapshot in database.snapshots()] == ["last"]
    assert aws_double.rds.servers() == ("copy",)
    assert databases.describe("copy").cpus == 4


@pytest.mark.parametrize("kind", FAULTS)
def test_groups_are_made_once_though_answers_are_lost(databases: Databases, aws_double: AwsDouble, kind: Any) -> None:
    operations = ["CreateDBParameterGroup", "ModifyDBParameterGroup", "CreateSecurityGroup"]
    operations += ["AuthorizeSecurityGroupIngress"]
    injected = [aws_double.inject(kind, match=is_(operation)) for operation in operations]
    spec = attrs.evolve(SPEC, allow_from=("192.0.2.0/24", "2001:db8::/32"), parameters={"work_mem": "8192"})
    databases.create(spec).wait()
    assert [one.hits for one in injected] == [1, 1, 1, 1]
    assert databases.diff(spec) == ()
    assert firewalls(aws_double) == ["shiftable-orders"]


def test_an_answer_that_ends_early_is_asked_for_again(database: Database, aws_double: AwsDouble) -> None:
    injected = aws_double.inject("truncate", match=is_("DescribeDBInstances"), times=2)
    assert database.info().name == "orders"
    assert injected.hits == 2


# what AWS answers instead


def test_throttling_is_told_with_its_time(impatient: Databases, aws_double: AwsDouble) -> None:
    aws_double.inject("status", status=400, body=body_of("Throttling", "Rate exceeded"), headers=[("Retry-After", "7")])
    with pytest.raises(Throttled) as caught:
        impatient.get("orders")
    assert caught.value.retry_after == 7.0
    assert caught.value.retryable


def test_throttling_is_waited_for(database: Database, aws_double: AwsDouble) -> None:
    body = body_of("Throttling", "Rate exceeded")
    injected = aws_double.inject("status", status=400, body=body, times=2)
    assert database.info().state == "available"
    assert injected.hits == 2


@pytest.mark.parametrize(
    ("status", "code", "error"),
    [
        (403, "AccessDenied", PermissionDenied),
        (403, "InvalidClientTokenId", Unauthenticated),
        (403, "SignatureDoesNotMatch", Unauthenticated),
        (503, "ServiceUnavailable", Unavailable),
        (500, "InternalFailure", Unavailable),
    ],
)
def test_a_refusal_is_never_a_missing_server(
    impatient: Databases, aws_double: AwsDouble, status: int, code: str, error: Any
) -> None:
    aws_double.inject("status", status=status, body=body_of(code))
    with pytest.raises(error):
        impatient.exists("orders")


def test_wrong_keys_are_told_as_such(aws_double: AwsDouble) -> None:
    keys = {"access_key": Credential.literal("nobody"), "secret_key": Credential.literal("nothing")}
    provider = AwsProvider(AwsSettings(**{**aws_double.config, **keys}))
    with pytest.raises(Unauthenticated):
        list(Databases(provider.database()).list())
    provider.close()


def test_a_full_account_says_so_and_keeps_no_groups(databases: Databases, aws_double: AwsDouble) -> None:
    aws_double.rds.quota = 1
    databases.create(SPEC).wait()
    spec = attrs.evolve(small_spec("more"), allow_from=("192.0.2.0/24",), parameters={"work_mem": "8192"})
    with pytest.raises(QuotaExceeded):
        databases.create(spec)
    assert firewalls(aws_double) == []
    assert aws_double.rds.parameter_groups() == {}


def test_groups_stay_where_it_is_not_known_what_happened(impatient: Databases, aws_double: AwsDouble) -> None:
    spec = attrs.evolve(SPEC, allow_from=("192.0.2.0/24",))
    aws_double.inject("status", status=503, body=body_of("ServiceUnavailable"), match=is_("CreateDBInstance"))
    with pytest.raises(Unavailable):
        impatient.create(spec)
    assert firewalls(aws_double) == ["shiftable-orders"]
    impatient.create(spec).wait()
    assert impatient.diff(spec) == ()


@pytest.mark.parametrize(
    "status", ["failed", "incompatible-network", "incompatible-restore", "insufficient-capacity", "storage-full"]
)
def test_a_server_that_failed_ends_the_wait(databases: Databases, aws_double: AwsDouble, status: str) -> None:
    aws_double.rds.failing["orders"] = status
    made = databases.create(SPEC)
    with pytest.raises(Conflict, match=status):
        made.wait()
    databases.delete("orders", final_snapshot=False)
    made.wait_deleted()


def test_a_name_that_is_being_deleted_is_taken_and_then_free(databases: Databases, database: Database) -> None:
    databases.delete("orders", final_snapshot=False)
    with pytest.raises(AlreadyExists):
        databases.create(SPEC)
    with pytest.raises(Conflict):
        databases.delete("orders", final_snapshot=False)
    database.wait_deleted()
    databases.create(SPEC).wait()


def test_150_servers_come_in_pages(databases: Databases, aws_double: AwsDouble) -> None:
    aws_double.rds.quota, aws_double.rds.delay = 200, timedelta(0)
    for number in range(150):
        databases.create(small_spec(f"server-{number}"))
    before = len(aws_double.calls)
    assert len({database.name for database in databases.list()}) == 150
    assert len(aws_double.calls) - before == 2


def test_protection_is_kept_by_rds_itself(driver: RdsDriver, databases: Databases, database: Database) -> None:
    database.protect(on=True)
    database.wait()
    with pytest.raises(Conflict, match="protect"), databases._translated("delete", None):
        driver.delete("orders", final_snapshot=None)


# what is pending is not done


def test_a_change_that_has_not_begun_is_not_taken_for_done(database: Database) -> None:
    became = database.resize(storage_gib=40)
    info = database.info()
    assert (info.state, info.raw_state) == ("updating", "available (pending: AllocatedStorage)")
    assert database.wait().state == "available"
    assert became.storage_gib == 40


def test_what_somebody_put_off_counts_as_pending(
    database: Database, provider: AwsProvider, aws_double: AwsDouble
) -> None:
    client = provider.session.client("rds")
    client.modify_db_instance(DBInstanceIdentifier="orders", MultiAZ=True, ApplyImmediately=False)
    assert database.info().raw_state == "available (pending: MultiAZ)"
    with pytest.raises(Conflict, match="MultiAZ"):
        database.resize(storage_gib=40)
    aws_double.rds.carry_out("orders")
    assert database.info().state == "available"


# groups


def test_a_server_takes_its_groups_along(databases: Databases, aws_double: AwsDouble) -> None:
    spec = attrs.evolve(SPEC, allow_from=("192.0.2.0/24",), parameters={"work_mem": "8192"}, public=True)
    made = databases.create(spec)
    made.wait()
    assert firewalls(aws_double) == ["shiftable-orders"]
    assert aws_double.rds.parameter_groups() == {"shiftable-orders-postgres16": {"work_mem": "8192"}}
    databases.delete("orders", final_snapshot=False)
    assert firewalls(aws_double) == ["shiftable-orders"]
    made.wait_deleted()
    assert firewalls(aws_double) == []
    assert aws_double.rds.parameter_groups() == {}


def test_who_has_no_groups_needs_no_permission_for_them(databases: Databases, aws_double: AwsDouble) -> None:
    made = databases.create(SPEC)
    made.wait()
    databases.describe("orders")
    databases.delete("orders", final_snapshot=False)
    made.wait_deleted()
    assert {call.service for call in aws_double.calls} == {"rds"}
    operations = {call.operation for call in aws_double.calls}
    assert {name for name in operations if "ParameterGroup" in name} == set()


def test_a_server_is_gone_though_its_groups_cannot_be_deleted(
    databases: Databases, driver: RdsDriver, aws_double: AwsDouble, caplog: pytest.LogCaptureFixture
) -> None:
    made = databases.create(attrs.evolve(SPEC, allow_from=("192.0.2.0/24",)))
    made.wait()
    databases.delete("orders", final_snapshot=False)
    body = b"<Response><Errors><Error><Code>UnauthorizedOperation</Code></Error></Errors></Response>"
    aws_double.inject("status", status=403, body=body, match=is_("DeleteSecurityGroup"))
    made.wait_deleted()
    assert "RdsDriver.sweep" in caplog.text
    assert firewalls(aws_double) == ["shiftable-orders"]
    driver.sweep("orders")
    assert firewalls(aws_double) == []


def test_groups_that_a_process_left_behind_are_swept_or_taken_over(
    databases: Databases, driver: RdsDriver, aws_double: AwsDouble, provider: AwsProvider
) -> None:
    spec = attrs.evolve(SPEC, allow_from=("192.0.2.0/24",), parameters={"work_mem": "8192"})
    for name in ("orders", "orders-b"):
        databases.create(attrs.evolve(spec, name=name)).wait()
        databases.delete(name, final_snapshot=False)
    aws_double.clock.advance(60)
    another = provider.database()
    assert isinstance(another, RdsDriver)
    databases.create(attrs.evolve(spec, allow_from=("198.51.100.0/24",), parameters={"autovacuum": "1"})).wait()
    held = databases.describe("orders")
    assert (held.allow_from, held.parameters) == (("198.51.100.0/24",), {"autovacuum": "1"})
    another.sweep("orders")
    assert firewalls(aws_double) == ["shiftable-orders", "shiftable-orders-b"]
    another.sweep("orders-b")
    assert firewalls(aws_double) == ["shiftable-orders"]
    assert list(aws_double.rds.parameter_groups()) == ["shiftable-orders-postgres16"]


def test_groups_of_others_are_never_touched(databases: Databases, provider: AwsProvider, aws_double: AwsDouble) -> None:
    vpc = aws_double.backend("ec2").get_default_vpc().id
    provider.session.client("ec2").create_security_group(GroupName="shiftable-orders", Description="x", VpcId=vpc)
    with pytest.raises(AlreadyExists, match="not of shiftable"):
        databases.create(attrs.evolve(SPEC, allow_from=("192.0.2.0/24",)))
    provider.session.client("rds").create_db_parameter_group(
        DBParameterGroupName="shiftable-orders-postgres16", DBParameterGroupFamily="postgres16", Description="x"
    )
    with pytest.raises(AlreadyExists, match="not of shiftable"):
        databases.create(attrs.evolve(SPEC, parameters={"work_mem": "8192"}))
    assert aws_double.rds.parameter_groups() == {"shiftable-orders-postgres16": {}}
    assert aws_double.rds.servers() == ()


def test_who_may_connect_is_exactly_who_is_declared(
    databases: Databases, database: Database, aws_double: AwsDouble, provider: AwsProvider
) -> None:
    ec2 = provider.session.client("ec2")
    for networks in (("192.0.2.0/24",), ("192.0.2.0/24", "198.51.100.0/24"), ("2001:db8::/32",), ()):
        spec = attrs.evolve(SPEC, allow_from=networks, public=bool(networks))
        (change,) = databases.diff(spec)
        databases.apply(change)
        database.wait()
        assert databases.diff(spec) == ()
        filters: Any = [{"Name": "group-name", "Values": ["shiftable-orders"]}]
        (group,) = ec2.describe_security_groups(Filters=filters)["SecurityGroups"]
        rules = group["IpPermissions"]
        assert {(rule["IpProtocol"], rule["FromPort"], rule["ToPort"]) for rule in rules} <= {("tcp", 5432, 5432)}
        opened = [entry["CidrIp"] for rule in rules for entry in rule["IpRanges"]]
        opened += [entry["CidrIpv6"] for rule in rules for entry in rule["Ipv6Ranges"]]
        assert sorted(opened) == sorted(networks)
        used = aws_double.rds.server("orders")["VpcSecurityGroups"]
        assert group["GroupId"] in {one["VpcSecurityGroupId"] for one in used}


def test_a_shared_parameter_group_is_copied_not_changed(
    databases: Databases, provider: AwsProvider, aws_double: AwsDouble
) -> None:
    client = provider.session.client("rds")
    client.create_db_parameter_group(DBParameterGroupName="ours", DBParameterGroupFamily="postgres16", Description="x")
    shared: Any = [{"ParameterName": "work_mem", "ParameterValue": "4096", "ApplyMethod": "immediate"}]
    client.modify_db_parameter_group(DBParameterGroupName="ours", Parameters=shared)
    made = databases.create(SPEC)
    made.wait()
    client.modify_db_instance(DBInstanceIdentifier="orders", DBParameterGroupName="ours", ApplyImmediately=True)
    (change,) = databases.diff(attrs.evolve(SPEC, parameters={"autovacuum": "0"}))
    databases.apply(change)
    assert made.wait().restart_needed
    groups = aws_double.rds.parameter_groups()
    assert groups["ours"] == {"work_mem": "4096"}
    assert groups["shiftable-orders-postgres16"] == {"work_mem": "4096", "autovacuum": "0"}
    made.restart()
    made.wait()
    assert databases.diff(attrs.evolve(SPEC, parameters={"autovacuum": "0"})) == ()


def test_a_major_version_takes_its_parameters_along(databases: Databases, aws_double: AwsDouble) -> None:
    spec = attrs.evolve(SPEC, parameters={"work_mem": "8192"})
    made = databases.create(spec)
    made.wait()
    wanted = attrs.evolve(spec, version="17")
    (change,) = databases.diff(wanted)
    databases.apply(change)
    made.wait()
    assert databases.diff(wanted) == ()
    assert made.info().version == "17.6"
    databases.delete("orders", final_snapshot=False)
    made.wait_deleted()
    assert aws_double.rds.parameter_groups() == {}


def test_an_unknown_parameter_is_refused_and_leaves_nothing(databases: Databases, aws_double: AwsDouble) -> None:
    with pytest.raises(InvalidArgument, match="no parameter 'work_memory'"):
        databases.create(attrs.evolve(SPEC, parameters={"work_memory": "8192"}))
    assert aws_double.rds.parameter_groups() == {}
    assert not databases.exists("orders")


# passwords


def test_a_kept_password_is_fetched_from_secrets_manager(databases: Databases, aws_double: AwsDouble) -> None:
    made = databases.create(attrs.evolve(SPEC, password=None))
    made.wait()
    assert made.password().reveal() == aws_double.rds.password("orders")
    aws_double.rds.rotate("orders", "by-aws-itself")
    assert made.password(fresh=True).reveal() == "by-aws-itself"


def test_a_password_is_changed_kept_and_given_back(databases: Databases, aws_double: AwsDouble) -> None:
    made = databases.create(attrs.evolve(SPEC, password=None))
    made.wait()
    first = aws_double.rds.password("orders")
    made.set_password()
    made.wait()
    assert made.password(fresh=True).reveal() == aws_double.rds.password("orders") != first
    made.set_password("given-by-us-1")
    made.wait()
    assert aws_double.rds.password("orders") == "given-by-us-1"
    with pytest.raises(Conflict, match="declare password"):
        made.password(fresh=True)
    made.set_password()
    made.wait()
    assert made.password(fresh=True).reveal() == aws_double.rds.password("orders")


def test_a_secret_that_is_gone_is_a_conflict_not_a_missing_server(databases: Databases, aws_double: AwsDouble) -> None:
    made = databases.create(attrs.evolve(SPEC, password=None))
    made.wait()
    aws_double.backend("secretsmanager").secrets.clear()
    with pytest.raises(Conflict):
        made.password()
    assert databases.exists("orders")


def test_a_secret_that_is_none_is_told_without_showing_it(
    databases: Databases, aws_double: AwsDouble, provider: AwsProvider
) -> None:
    made = databases.create(attrs.evolve(SPEC, password=None))
    made.wait()
    arn = aws_double.rds.server("orders")["MasterUserSecret"]["SecretArn"]
    canary = "c4n" + "4ry no json"
    provider.session.client("secretsmanager").put_secret_value(SecretId=arn, SecretString=canary)
    with pytest.raises(Conflict) as caught:
        made.password(fresh=True)
    chain: BaseException | None = caught.value
    while chain is not None:
        assert "c4n4ry" not in f"{chain} {chain!r} {vars(chain)}"
        chain = chain.__cause__ or chain.__context__


@pytest.mark.parametrize("password", ["c4n4ry/slash", "c4n4ry@at", 'c4n4ry"quote', "c4n4ry é space", "c4n4ry" * 30])
def test_a_password_that_rds_refuses_does_not_show(
    databases: Databases, password: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO), pytest.raises(InvalidArgument) as caught:
        databases.create(attrs.evolve(SPEC, password=Credential.literal(password)))
    assert "c4n4ry" not in f"{caught.value} {caught.value!r} {caught.value.__cause__!r} {caplog.text}"
    assert not databases.exists("orders")


# restores


def test_a_restore_says_what_the_snapshot_needs(databases: Databases, database: Database) -> None:
    database.resize(storage_gib=40)
    database.wait()
    database.snapshot("first")
    database.wait()
    with pytest.raises(InvalidArgument, match="needs 40 GiB"):
        database.restore(attrs.evolve(SPEC, name="copy", storage_gib=20), snapshot="first")
    spec = attrs.evolve(SPEC, name="copy", engine="mysql", version="8.4", storage_gib=40)
    with pytest.raises(InvalidArgument, match="snapshot is of postgres"):
        database.restore(spec, snapshot="first")
    assert not databases.exists("copy")


def test_a_restore_has_all_that_is_declared(databases: Databases, database: Database, aws_double: AwsDouble) -> None:
    database.snapshot("first")
    database.wait()
    spec = attrs.evolve(
        SPEC,
        name="copy",
        cpus=4,
        memory_gib=32,
        storage_gib=50,
        high_availability=True,
        backup_days=3,
        deletion_protection=True,
        public=True,
        allow_from=("192.0.2.0/24",),
        parameters={"work_mem": "8192"},
        labels={"team": "shop"},
        token_login=True,
    )
    for name, how in (("copy", {"snapshot": "first"}), ("again", {"at": database.info().created})):
        wanted = attrs.evolve(spec, name=name)
        copy = database.restore(wanted, **how)
        copy.wait()
        assert databases.diff(wanted) == ()
        assert aws_double.rds.server(name)["MaxAllocatedStorage"] == 65_536
    assert databases.describe("orders").parameters == {}


def test_a_snapshot_of_another_server_is_not_this_ones(databases: Databases, database: Database) -> None:
    database.snapshot("first")
    other = databases.create(small_spec("other"))
    other.wait()
    with pytest.raises(NotFound):
        other.restore("copy", snapshot="first")
    with pytest.raises(NotFound):
        other.delete_snapshot("first")
    with pytest.raises(AlreadyExists):  # a name is taken once in the account and region
        other.snapshot("first")


def test_no_backups_no_point_in_time(databases: Databases) -> None:
    made = databases.create(attrs.evolve(SPEC, backup_days=0))
    made.wait()
    created = made.info().created
    assert created is not None
    with pytest.raises(Conflict):
        made.restore("copy", at=created)
    assert made.restorable() is None
    for change in databases.diff(attrs.evolve(SPEC, backup_days=3)):
        databases.apply(change)
    made.wait()
    assert made.restorable() is not None


def test_times_that_can_be_restored_are_those_of_the_servers_own_backups(
    databases: Databases, database: Database, aws_double: AwsDouble
) -> None:
    databases.create(small_spec("other"))
    assert databases.database("other").restorable() is None  # there is no backup before there is a server
    created = database.info().created
    now = aws_double.clock.now()
    assert created is not None
    times = database.restorable()
    assert times is not None
    assert times[0] == created
    assert abs(times[1] - now) <= timedelta(seconds=5)
    aws_double.clock.advance(timedelta(days=40))
    times = database.restorable()
    assert times is not None
    assert times[1] - times[0] == timedelta(days=databases.describe("orders").backup_days)
    database.restore("copy", at=times[0] + timedelta(minutes=1))  # the first one is too old by now
    with pytest.raises(InvalidArgument):
        database.restore("older", at=times[0] - timedelta(seconds=1))


def test_who_may_not_see_the_backups_sees_the_rest(
    databases: Databases, database: Database, aws_double: AwsDouble
) -> None:
    denied = (
        b"<ErrorResponse><Error><Type>Sender</Type><Code>AccessDenied</Code><Message>User: x is not authorized"
        b"</Message></Error></ErrorResponse>"
    )
    met = aws_double.inject("status", match=is_("DescribeDBInstanceAutomatedBackups"), status=403, body=denied)
    assert database.restorable() is None
    assert met.hits == 1
    assert database.restorable() is not None
    with pytest.raises(NotFound):
        databases.database("missing").restorable()


# declarations that AWS refuses


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        (attrs.evolve(SPEC, version="99"), "RDS has no postgresql 99 here; it has postgres13, "),
        (attrs.evolve(SPEC, cpus=1000), "no size has 1,000 CPUs"),
        (attrs.evolve(SPEC, parameters={"rds.force_ssl": "0"}), "declare tls"),
        (attrs.evolve(SPEC, admin="admin"), "reserved word"),
    ],
    ids=["version", "size", "switch", "admin"],
)
def test_what_cannot_be_is_refused_with_the_reason(
    databases: Databases, aws_double: AwsDouble, spec: DatabaseSpec, why: str
) -> None:
    with pytest.raises(InvalidArgument, match=why):
        databases.create(spec)
    assert aws_double.rds.servers() == ()

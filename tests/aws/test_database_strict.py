"""The double of RDS says no where AWS does; and the documentation names every permission that the driver needs."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from shiftable_aws import AwsProvider, AwsSettings
from shiftable_aws.double import AwsDouble

README = Path(__file__).parents[2] / "providers" / "aws" / "README.md"

NEW: dict[str, Any] = {
    "DBInstanceIdentifier": "orders",
    "Engine": "postgres",
    "EngineVersion": "16.10",
    "DBInstanceClass": "db.m7g.large",
    "AllocatedStorage": 20,
    "StorageType": "gp3",
    "MasterUsername": "shiftadmin",
    "MasterUserPassword": "long-enough-1",
}


@pytest.fixture
def rds(provider: AwsProvider) -> Any:
    return provider.session.client("rds")


@pytest.fixture
def made(rds: Any) -> Any:
    rds.create_db_instance(**NEW)
    return rds


def refused(call: Callable[..., object], **arguments: Any) -> tuple[str, int]:
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    return caught.value.response["Error"]["Code"], caught.value.response["ResponseMetadata"]["HTTPStatusCode"]


# creating


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"DBInstanceIdentifier": "a--b"}, "InvalidParameterValue"),
        ({"DBInstanceIdentifier": "1a"}, "InvalidParameterValue"),
        ({"DBInstanceIdentifier": "x" * 64}, "InvalidParameterValue"),
        ({"Engine": "oracle-ee"}, "InvalidParameterValue"),
        ({"EngineVersion": "99.9"}, "InvalidParameterCombination"),
        ({"DBInstanceClass": "db.nope"}, "InvalidParameterValue"),
        ({"EngineVersion": "13.22", "DBInstanceClass": "db.m8g.large"}, "InvalidParameterCombination"),
        ({"AllocatedStorage": 19}, "InvalidParameterValue"),
        ({"AllocatedStorage": 65_537}, "InvalidParameterValue"),
        ({"StorageType": "floppy"}, "InvalidParameterValue"),
        ({"StorageType": "io2", "AllocatedStorage": 100}, "InvalidParameterCombination"),
        ({"StorageType": "gp3", "Iops": 12_000}, "InvalidParameterCombination"),
        ({"MaxAllocatedStorage": 21}, "InvalidParameterCombination"),
        ({"MasterUserPassword": "short"}, "InvalidParameterValue"),
        ({"MasterUserPassword": "has/a/slash"}, "InvalidParameterValue"),
        ({"MasterUserPassword": "x" * 129}, "InvalidParameterValue"),
        ({"Engine": "mysql", "EngineVersion": "8.4.7", "MasterUserPassword": "x" * 42}, "InvalidParameterValue"),
        ({"ManageMasterUserPassword": True}, "InvalidParameterCombination"),
        ({"MasterUsername": "admin"}, "InvalidParameterValue"),
        ({"BackupRetentionPeriod": 36}, "InvalidParameterValue"),
        ({"DBParameterGroupName": "nope"}, "DBParameterGroupNotFound"),
        ({"DBSubnetGroupName": "nope"}, "DBSubnetGroupNotFoundFault"),
        ({"VpcSecurityGroupIds": ["sg-0123456789"]}, "InvalidParameterValue"),
        ({"Tags": [{"Key": f"k{number}", "Value": ""} for number in range(51)]}, "InvalidParameterValue"),
        ({"Tags": [{"Key": "aws:x", "Value": ""}]}, "InvalidParameterValue"),
    ],
)
def test_a_wrong_declaration_is_refused(rds: Any, aws_double: AwsDouble, changed: dict[str, Any], code: str) -> None:
    assert refused(rds.create_db_instance, **{**NEW, **changed})[0] == code
    assert aws_double.rds.servers() == ()


def test_a_name_is_taken_whatever_its_case(made: Any) -> None:
    assert refused(made.create_db_instance, **{**NEW, "DBInstanceIdentifier": "Orders"}) == (
        "DBInstanceAlreadyExists",
        400,
    )


def test_forty_servers_are_the_quota(rds: Any) -> None:
    for number in range(40):
        rds.create_db_instance(**{**NEW, "DBInstanceIdentifier": f"s{number}"})
    assert refused(rds.create_db_instance, **NEW) == ("InstanceQuotaExceeded", 400)


def test_what_is_missing_is_404(rds: Any) -> None:
    assert refused(rds.describe_db_instances, DBInstanceIdentifier="x") == ("DBInstanceNotFound", 404)
    assert refused(rds.describe_db_snapshots, DBSnapshotIdentifier="x") == ("DBSnapshotNotFound", 404)
    assert refused(rds.describe_db_parameter_groups, DBParameterGroupName="x") == ("DBParameterGroupNotFound", 404)


def test_a_page_has_20_to_100_entries(rds: Any) -> None:
    assert refused(rds.describe_db_instances, MaxRecords=19)[0] == "InvalidParameterValue"
    assert refused(rds.describe_db_instances, MaxRecords=101)[0] == "InvalidParameterValue"


# states


def test_a_server_takes_its_time_and_forbids_much_meanwhile(rds: Any, aws_double: AwsDouble) -> None:
    aws_double.rds.delay = timedelta(minutes=5)
    rds.create_db_instance(**NEW)
    found = rds.describe_db_instances()["DBInstances"][0]
    assert found["DBInstanceStatus"] == "creating"
    assert "Endpoint" not in found
    calls: list[tuple[Callable[..., object], dict[str, Any]]] = [
        (rds.modify_db_instance, {"MultiAZ": True}),
        (rds.stop_db_instance, {}),
        (rds.start_db_instance, {}),
        (rds.reboot_db_instance, {}),
        (rds.create_db_snapshot, {"DBSnapshotIdentifier": "x"}),
        (rds.delete_db_instance, {"FinalDBSnapshotIdentifier": "x"}),
    ]
    for call, arguments in calls:
        assert refused(call, DBInstanceIdentifier="orders", **arguments)[0] == "InvalidDBInstanceState"
    aws_double.clock.advance(timedelta(minutes=5))
    found = rds.describe_db_instances()["DBInstances"][0]
    assert found["DBInstanceStatus"] == "available"
    assert found["Endpoint"]["Port"] == 5432


def test_a_change_is_pending_then_modifying_then_done(made: Any, aws_double: AwsDouble) -> None:
    aws_double.rds.delay = timedelta(minutes=8)
    made.modify_db_instance(DBInstanceIdentifier="orders", AllocatedStorage=40, ApplyImmediately=True)

    def seen() -> tuple[str, int, dict[str, Any]]:
        found = made.describe_db_instances()["DBInstances"][0]
        return found["DBInstanceStatus"], found["AllocatedStorage"], found["PendingModifiedValues"]

    assert seen() == ("available", 20, {"AllocatedStorage": 40})
    aws_double.clock.advance(timedelta(minutes=2))
    assert seen() == ("modifying", 20, {"AllocatedStorage": 40})
    aws_double.clock.advance(timedelta(minutes=6))
    assert seen() == ("available", 40, {})


def test_a_password_that_is_pending_is_stars(made: Any, aws_double: AwsDouble) -> None:
    answer = made.modify_db_instance(DBInstanceIdentifier="orders", MasterUserPassword="another-one-2")
    assert answer["DBInstance"]["PendingModifiedValues"] == {"MasterUserPassword": "****"}
    assert aws_double.rds.password("orders") == "long-enough-1"


def test_a_stopped_server_is_started_after_seven_days(made: Any, aws_double: AwsDouble) -> None:
    made.stop_db_instance(DBInstanceIdentifier="orders")
    assert refused(made.modify_db_instance, DBInstanceIdentifier="orders", MultiAZ=True)[0] == "InvalidDBInstanceState"
    aws_double.clock.advance(timedelta(days=6, hours=23))
    assert made.describe_db_instances()["DBInstances"][0]["DBInstanceStatus"] == "stopped"
    aws_double.clock.advance(timedelta(hours=2))
    assert made.describe_db_instances()["DBInstances"][0]["DBInstanceStatus"] == "available"


def test_deleting_wants_to_know_of_a_last_snapshot(made: Any) -> None:
    delete = made.delete_db_instance
    assert refused(delete, DBInstanceIdentifier="orders")[0] == "InvalidParameterCombination"
    both = {"SkipFinalSnapshot": True, "FinalDBSnapshotIdentifier": "x"}
    assert refused(delete, DBInstanceIdentifier="orders", **both)[0] == "InvalidParameterCombination"
    made.modify_db_instance(DBInstanceIdentifier="orders", DeletionProtection=True)
    assert refused(delete, DBInstanceIdentifier="orders", SkipFinalSnapshot=True)[0] == "InvalidParameterCombination"


def test_a_major_version_wants_a_yes_and_never_goes_back(made: Any) -> None:
    modify = made.modify_db_instance
    for version in ("17.6", "15.14"):
        assert refused(modify, DBInstanceIdentifier="orders", EngineVersion=version)[0] == "InvalidParameterCombination"
    modify(DBInstanceIdentifier="orders", EngineVersion="17.6", AllowMajorVersionUpgrade=True, ApplyImmediately=True)
    found = made.describe_db_instances()["DBInstances"][0]
    assert (found["EngineVersion"], found["DBParameterGroups"][0]["DBParameterGroupName"]) == (
        "17.6",
        "default.postgres17",
    )


# groups


def test_groups_in_use_are_not_deleted(rds: Any, provider: AwsProvider, aws_double: AwsDouble) -> None:
    ec2 = provider.session.client("ec2")
    vpc = aws_double.backend("ec2").get_default_vpc().id
    group = ec2.create_security_group(GroupName="g", Description="g", VpcId=vpc)["GroupId"]
    rds.create_db_parameter_group(DBParameterGroupName="p", DBParameterGroupFamily="postgres16", Description="p")
    rds.create_db_instance(**NEW, VpcSecurityGroupIds=[group], DBParameterGroupName="p")
    assert refused(ec2.delete_security_group, GroupId=group)[0] == "DependencyViolation"
    assert refused(rds.delete_db_parameter_group, DBParameterGroupName="p")[0] == "InvalidDBParameterGroupState"
    rds.delete_db_instance(DBInstanceIdentifier="orders", SkipFinalSnapshot=True)
    ec2.delete_security_group(GroupId=group)
    rds.delete_db_parameter_group(DBParameterGroupName="p")


def test_a_parameter_group_fits_its_version_only(rds: Any) -> None:
    rds.create_db_parameter_group(DBParameterGroupName="p", DBParameterGroupFamily="postgres15", Description="p")
    assert refused(rds.create_db_instance, **NEW, DBParameterGroupName="p")[0] == "InvalidParameterCombination"


@pytest.mark.parametrize(
    ("name", "value", "how", "code"),
    [
        ("no_such", "1", "immediate", "InvalidParameterValue"),
        ("max_connections", "10", "immediate", "InvalidParameterCombination"),
        ("rds.force_ssl", "maybe", "immediate", "InvalidParameterValue"),
    ],
)
def test_a_wrong_parameter_is_refused(rds: Any, name: str, value: str, how: str, code: str) -> None:
    rds.create_db_parameter_group(DBParameterGroupName="p", DBParameterGroupFamily="postgres16", Description="p")
    given = [{"ParameterName": name, "ParameterValue": value, "ApplyMethod": how}]
    assert refused(rds.modify_db_parameter_group, DBParameterGroupName="p", Parameters=given)[0] == code


def test_a_kept_password_is_not_set_by_hand(rds: Any) -> None:
    rds.create_db_instance(**{k: v for k, v in NEW.items() if k != "MasterUserPassword"}, ManageMasterUserPassword=True)
    modify = rds.modify_db_instance
    given = {"MasterUserPassword": "long-enough-1"}
    assert refused(modify, DBInstanceIdentifier="orders", **given)[0] == "InvalidParameterCombination"
    modify(DBInstanceIdentifier="orders", ManageMasterUserPassword=False, **given)
    assert (
        refused(modify, DBInstanceIdentifier="orders", RotateMasterUserPassword=True)[0]
        == "InvalidParameterCombination"
    )


def test_regions_are_apart(aws_double: AwsDouble, made: Any) -> None:
    other = AwsProvider(AwsSettings(**{**aws_double.config, "region": "us-east-1"}))
    assert other.session.client("rds").describe_db_instances()["DBInstances"] == []
    other.close()
    assert len(made.describe_db_instances()["DBInstances"]) == 1

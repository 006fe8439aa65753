"""The double of EC2 says no where AWS does; and the documentation names every permission that the driver needs."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from shiftable_aws import AwsProvider, AwsSettings
from shiftable_aws._strict_ec2_rules import IMAGES
from shiftable_aws.double import AwsDouble

README = Path(__file__).parents[2] / "providers" / "aws" / "README.md"


def image(arch: str = "x86_64") -> str:
    found = (id_ for id_, held in IMAGES.items() if held["Architecture"] == arch)
    return next(found)


NEW: dict[str, Any] = {"ImageId": image(), "InstanceType": "m7i.large", "MinCount": 1, "MaxCount": 1}


@pytest.fixture
def ec2(provider: AwsProvider) -> Any:
    return provider.session.client("ec2")


def run(ec2: Any, **changed: Any) -> Any:
    return ec2.run_instances(**{**NEW, **changed})["Instances"][0]


def state(ec2: Any, id_: str) -> str:
    found = ec2.describe_instances(InstanceIds=[id_])["Reservations"][0]["Instances"][0]
    return str(found["State"]["Name"])


def refused(call: Callable[..., object], **arguments: Any) -> str:
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    return str(caught.value.response["Error"]["Code"])


# making


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"ImageId": "ami-00000000"}, "InvalidAMIID.NotFound"),
        ({"ImageId": "debian"}, "InvalidAMIID.Malformed"),
        ({"InstanceType": "m7i.tiny"}, "InvalidParameterValue"),
        ({"InstanceType": "x2gd.large", "ImageId": image("arm64")}, "Unsupported"),
        ({"InstanceType": "m7g.large"}, "InvalidParameterValue"),
        ({"ImageId": image("arm64")}, "InvalidParameterValue"),
        ({"SubnetId": "subnet-00000000"}, "InvalidSubnetID.NotFound"),
        ({"SecurityGroupIds": ["sg-00000000"]}, "InvalidGroup.NotFound"),
        ({"Placement": {"AvailabilityZone": "eu-central-1z"}}, "InvalidParameterValue"),
        ({"Placement": {"GroupName": "none"}}, "InvalidPlacementGroup.Unknown"),
        ({"KeyName": "none"}, "InvalidKeyPair.NotFound"),
        ({"IamInstanceProfile": {"Name": "none"}}, "InvalidParameterValue"),
        ({"UserData": "x" * 16_385}, "InvalidParameterValue"),
        ({"MetadataOptions": {"HttpPutResponseHopLimit": 65}}, "InvalidParameterValue"),
        ({"CreditSpecification": {"CpuCredits": "unlimited"}}, "InvalidParameterCombination"),
        (
            {"NetworkInterfaces": [{"DeviceIndex": 0}], "SecurityGroupIds": ["sg-00000000"]},
            "InvalidParameterCombination",
        ),
        ({"NetworkInterfaces": [{"DeviceIndex": 0}], "SubnetId": "subnet-1"}, "InvalidSubnetID.NotFound"),
        ({"BlockDeviceMappings": [{"DeviceName": "/dev/xvda", "Ebs": {"VolumeSize": 4}}]}, "InvalidBlockDeviceMapping"),
        ({"BlockDeviceMappings": [{"DeviceName": "/dev/xvda", "Ebs": {"VolumeType": "io2"}}]}, "MissingParameter"),
        (
            {"BlockDeviceMappings": [{"DeviceName": "/dev/xvda", "Ebs": {"VolumeType": "gp2", "Throughput": 300}}]},
            "InvalidParameterCombination",
        ),
        (
            {"BlockDeviceMappings": [{"DeviceName": "/dev/xvda", "Ebs": {"KmsKeyId": "alias/x"}}]},
            "InvalidParameterDependency",
        ),
        (
            {"TagSpecifications": [{"ResourceType": "instance", "Tags": [{"Key": "aws:x", "Value": ""}]}]},
            "InvalidParameterValue",
        ),
        (
            {
                "TagSpecifications": [
                    {"ResourceType": "instance", "Tags": [{"Key": f"k{number}", "Value": ""} for number in range(51)]}
                ]
            },
            "TagLimitExceeded",
        ),
        (
            {"TagSpecifications": [{"ResourceType": "spot-instances-request", "Tags": [{"Key": "k", "Value": ""}]}]},
            "InvalidParameterCombination",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(value),
)
def test_a_wrong_request_is_refused(ec2: Any, aws_double: AwsDouble, changed: dict[str, Any], code: str) -> None:
    assert refused(ec2.run_instances, **{**NEW, **changed}) == code
    assert aws_double.ec2.machines() == {}


def test_a_group_of_another_network_is_refused(ec2: Any) -> None:
    vpc = ec2.create_vpc(CidrBlock="10.9.0.0/16")["Vpc"]["VpcId"]
    group = ec2.create_security_group(GroupName="other", Description="other", VpcId=vpc)["GroupId"]
    assert refused(ec2.run_instances, **NEW, SecurityGroupIds=[group]) == "InvalidParameter"


def test_without_a_default_network_one_has_to_be_named(ec2: Any) -> None:
    for subnet in ec2.describe_subnets()["Subnets"]:
        ec2.delete_subnet(SubnetId=subnet["SubnetId"])
    assert refused(ec2.run_instances, **NEW) == "MissingInput"
    ec2.delete_vpc(VpcId=ec2.describe_vpcs()["Vpcs"][0]["VpcId"])
    assert refused(ec2.run_instances, **NEW) == "VPCIdNotSpecified"


def test_the_quota_counts_cpus_that_run(ec2: Any, aws_double: AwsDouble) -> None:
    aws_double.ec2.quota = 4
    first = run(ec2)["InstanceId"]
    run(ec2)
    assert refused(ec2.run_instances, **NEW) == "VcpuLimitExceeded"
    ec2.stop_instances(InstanceIds=[first])
    run(ec2)
    assert refused(ec2.start_instances, InstanceIds=[first]) == "VcpuLimitExceeded"
    spot = {"MarketType": "spot"}
    run(ec2, InstanceMarketOptions=spot)
    aws_double.ec2.spot_quota = 2
    assert refused(ec2.run_instances, **NEW, InstanceMarketOptions=spot) == "MaxSpotInstanceCountExceeded"


# tokens


def test_a_token_makes_one_machine_and_no_other(ec2: Any, aws_double: AwsDouble) -> None:
    made = run(ec2, ClientToken="t")
    assert run(ec2, ClientToken="t")["InstanceId"] == made["InstanceId"]
    assert refused(ec2.run_instances, **{**NEW, "InstanceType": "m7i.xlarge"}, ClientToken="t") == (
        "IdempotentParameterMismatch"
    )
    assert len(aws_double.ec2.machines()) == 1


def test_a_token_is_remembered_for_a_day_after_the_end(ec2: Any, aws_double: AwsDouble) -> None:
    made = run(ec2, ClientToken="t")["InstanceId"]
    ec2.terminate_instances(InstanceIds=[made])
    assert refused(ec2.run_instances, **NEW, ClientToken="t") == "IdempotentInstanceTerminated"
    aws_double.clock.advance(timedelta(hours=2))
    assert refused(ec2.describe_instances, InstanceIds=[made]) == "InvalidInstanceID.NotFound"
    assert refused(ec2.run_instances, **NEW, ClientToken="t") == "IdempotentInstanceTerminated"
    aws_double.clock.advance(timedelta(hours=23))
    assert run(ec2, ClientToken="t")["InstanceId"] != made


def test_a_token_is_of_its_zone_where_one_is_named(ec2: Any, aws_double: AwsDouble) -> None:
    for zone in ("eu-central-1a", "eu-central-1b", "eu-central-1a"):
        run(ec2, ClientToken="t", Placement={"AvailabilityZone": zone})
    run(ec2, ClientToken="t")
    assert len(aws_double.ec2.machines()) == 3


# states


def test_a_machine_takes_its_time(ec2: Any, aws_double: AwsDouble) -> None:
    aws_double.ec2.delay = timedelta(minutes=1)
    id_ = run(ec2, NetworkInterfaces=[{"DeviceIndex": 0, "AssociatePublicIpAddress": True}])["InstanceId"]
    seen = [state(ec2, id_)]
    for call in (None, ec2.stop_instances, ec2.start_instances, ec2.terminate_instances):
        if call is not None:
            call(InstanceIds=[id_])
            seen.append(state(ec2, id_))
        aws_double.clock.advance(timedelta(minutes=1))
        seen.append(state(ec2, id_))
    assert seen == [
        *("pending", "running", "stopping", "stopped", "pending", "running", "shutting-down", "terminated"),
    ]


def test_a_public_address_goes_with_the_power(ec2: Any) -> None:
    id_ = run(ec2, NetworkInterfaces=[{"DeviceIndex": 0, "AssociatePublicIpAddress": True}])["InstanceId"]

    def address() -> str | None:
        found = ec2.describe_instances(InstanceIds=[id_])["Reservations"][0]["Instances"][0]
        return found.get("PublicIpAddress")  # type: ignore[no-any-return]

    first = address()
    ec2.stop_instances(InstanceIds=[id_])
    assert address() is None
    ec2.start_instances(InstanceIds=[id_])
    assert address() not in {None, first}


def test_what_a_state_forbids_is_refused(ec2: Any, aws_double: AwsDouble) -> None:
    aws_double.ec2.delay = timedelta(minutes=1)
    id_ = run(ec2)["InstanceId"]
    one = {"InstanceIds": [id_]}
    assert refused(ec2.stop_instances, **one) == "IncorrectInstanceState"
    aws_double.clock.advance(timedelta(minutes=1))
    larger = {"InstanceId": id_, "InstanceType": {"Value": "m7i.xlarge"}}
    assert refused(ec2.modify_instance_attribute, **larger) == "IncorrectInstanceState"
    ec2.stop_instances(**one)
    assert refused(ec2.start_instances, **one) == "IncorrectInstanceState"
    aws_double.clock.advance(timedelta(minutes=1))
    assert refused(ec2.reboot_instances, **one) == "IncorrectInstanceState"
    assert (
        refused(ec2.modify_instance_attribute, InstanceId=id_, InstanceType={"Value": "m7g.large"})
        == "InvalidParameterValue"
    )
    ec2.modify_instance_attribute(**larger)
    ec2.terminate_instances(**one)
    aws_double.clock.advance(timedelta(minutes=1))
    ec2.reboot_instances(**one)  # passed over
    ec2.terminate_instances(**one)
    for call in (ec2.start_instances, ec2.stop_instances):
        assert refused(call, **one) == "IncorrectInstanceState"


def test_what_is_no_id_is_malformed_and_what_is_not_there_is_missing(ec2: Any) -> None:
    for id_, code in (("web-0", "InvalidInstanceID.Malformed"), ("i-00000000", "InvalidInstanceID.NotFound")):
        for call in (ec2.describe_instances, ec2.start_instances, ec2.terminate_instances):
            assert refused(call, InstanceIds=[id_]) == code


def test_listings_are_paged_and_filtered_by_what_ec2_knows(ec2: Any, aws_double: AwsDouble) -> None:
    aws_double.ec2.page_size = 4
    tags = [{"ResourceType": "instance", "Tags": [{"Key": "team", "Value": "shop"}]}]
    shop = {run(ec2, TagSpecifications=tags)["InstanceId"] for _ in range(6)}
    run(ec2)
    pages = list(ec2.get_paginator("describe_instances").paginate(Filters=[{"Name": "tag:team", "Values": ["sho*"]}]))
    found = [machine["InstanceId"] for page in pages for held in page["Reservations"] for machine in held["Instances"]]
    assert (len(pages), sorted(found)) == (2, sorted(shop))
    assert refused(ec2.describe_instances, Filters=[{"Name": "colour", "Values": ["x"]}]) == "InvalidParameterValue"
    many = [{"Name": "tag:team", "Values": [str(number) for number in range(201)]}]
    assert refused(ec2.describe_instances, Filters=many) == "FilterLimitExceeded"
    assert refused(ec2.describe_instances, MaxResults=4) == "InvalidParameterValue"
    assert refused(ec2.describe_instances, NextToken="!") == "InvalidPaginationToken"
    both = {"MaxResults": 10, "InstanceIds": found[:1]}
    assert refused(ec2.describe_instances, **both) == "InvalidParameterCombination"


# disks and images


def test_a_disk_in_use_is_not_deleted_and_not_attached_twice(ec2: Any, aws_double: AwsDouble) -> None:
    zone = {"Placement": {"AvailabilityZone": "eu-central-1a"}}
    first, second = run(ec2, **zone)["InstanceId"], run(ec2, **zone)["InstanceId"]
    disk = ec2.create_volume(AvailabilityZone="eu-central-1a", Size=10)["VolumeId"]
    ec2.attach_volume(InstanceId=first, VolumeId=disk, Device="/dev/sdf")
    assert refused(ec2.delete_volume, VolumeId=disk) == "VolumeInUse"
    assert refused(ec2.attach_volume, InstanceId=second, VolumeId=disk, Device="/dev/sdf") == "VolumeInUse"
    other = ec2.create_volume(AvailabilityZone="eu-central-1a", Size=10)["VolumeId"]
    taken = {"InstanceId": first, "VolumeId": other, "Device": "/dev/sdf"}
    assert refused(ec2.attach_volume, **taken) == "InvalidParameterValue"
    far = ec2.create_volume(AvailabilityZone="eu-central-1b", Size=10)["VolumeId"]
    assert refused(ec2.attach_volume, InstanceId=first, VolumeId=far, Device="/dev/sdg") == "InvalidVolume.ZoneMismatch"
    assert refused(ec2.detach_volume, InstanceId=second, VolumeId=disk) == "InvalidAttachment.NotFound"
    ec2.detach_volume(VolumeId=disk)
    assert refused(ec2.detach_volume, VolumeId=disk) == "IncorrectState"
    aws_double.ec2.disks.delay = timedelta(minutes=1)
    made = ec2.create_volume(AvailabilityZone="eu-central-1a", Size=10)["VolumeId"]
    assert refused(ec2.attach_volume, InstanceId=first, VolumeId=made, Device="/dev/sdh") == "IncorrectState"


def test_a_disk_is_made_once_for_a_token(ec2: Any) -> None:
    given = {"AvailabilityZone": "eu-central-1a", "Size": 10, "ClientToken": "t"}
    assert ec2.create_volume(**given)["VolumeId"] == ec2.create_volume(**given)["VolumeId"]
    assert refused(ec2.create_volume, **{**given, "Size": 11}) == "IdempotentParameterMismatch"
    assert refused(ec2.create_volume, AvailabilityZone="eu-central-1z", Size=1) == "InvalidZone.NotFound"
    assert refused(ec2.create_volume, AvailabilityZone="eu-central-1a", SnapshotId="snap-1") == (
        "InvalidSnapshot.NotFound"
    )


def test_a_snapshot_of_an_image_is_in_use(ec2: Any, aws_double: AwsDouble) -> None:
    aws_double.ec2.disks.delay = timedelta(minutes=1)
    id_ = run(ec2)["InstanceId"]
    made = ec2.create_image(InstanceId=id_, Name="golden")["ImageId"]
    assert refused(ec2.create_image, InstanceId=id_, Name="golden") == "InvalidAMIName.Duplicate"
    assert refused(ec2.create_image, InstanceId=id_, Name="a|b") == "InvalidAMIName.Malformed"
    assert refused(ec2.run_instances, **{**NEW, "ImageId": made}) == "InvalidAMIID.Unavailable"
    aws_double.clock.advance(timedelta(minutes=1))
    (snapshot,) = ec2.describe_snapshots(OwnerIds=["self"])["Snapshots"]
    assert refused(ec2.delete_snapshot, SnapshotId=snapshot["SnapshotId"]) == "InvalidSnapshot.InUse"
    run(ec2, ImageId=made)
    ec2.deregister_image(ImageId=made)
    ec2.delete_snapshot(SnapshotId=snapshot["SnapshotId"])
    assert refused(ec2.run_instances, **{**NEW, "ImageId": made}) == "InvalidAMIID.NotFound"


def test_images_that_only_moto_has_are_still_there(ec2: Any) -> None:
    (theirs, *_) = ec2.describe_images(Owners=["amazon"])["Images"]
    assert ec2.describe_images(ImageIds=[theirs["ImageId"]])["Images"][0]["Name"] == theirs["Name"]
    fitting = [m for m in ec2.describe_images(Owners=["amazon"])["Images"] if m["Architecture"] == "x86_64"]
    assert run(ec2, ImageId=fitting[0]["ImageId"])["State"]["Name"] == "pending"


# groups


def test_a_group_in_use_is_not_deleted(ec2: Any) -> None:
    vpc = ec2.describe_vpcs()["Vpcs"][0]["VpcId"]
    group = ec2.create_security_group(GroupName="g", Description="g", VpcId=vpc)["GroupId"]
    id_ = run(ec2, SecurityGroupIds=[group])["InstanceId"]
    assert refused(ec2.delete_security_group, GroupId=group) == "DependencyViolation"
    subnet = ec2.describe_instances()["Reservations"][0]["Instances"][0]["SubnetId"]
    assert refused(ec2.delete_subnet, SubnetId=subnet) == "DependencyViolation"
    ec2.terminate_instances(InstanceIds=[id_])
    ec2.delete_security_group(GroupId=group)
    for name, about in (("ü", "x"), ("x", "ü"), ("x" * 256, "x")):
        assert refused(ec2.create_security_group, GroupName=name, Description=about, VpcId=vpc) == (
            "InvalidParameterValue"
        )


def test_a_placement_group_has_its_strategy_and_its_types(ec2: Any) -> None:
    ec2.create_placement_group(GroupName="near", Strategy="cluster")
    assert (
        refused(ec2.create_placement_group, GroupName="near", Strategy="cluster") == "InvalidPlacementGroup.Duplicate"
    )
    near = {"Placement": {"GroupName": "near"}}
    assert refused(ec2.run_instances, **{**NEW, "InstanceType": "t3.micro"}, **near) == "InvalidParameterCombination"
    run(ec2, **near)
    assert refused(ec2.delete_placement_group, GroupName="near") == "InvalidPlacementGroup.InUse"
    assert refused(ec2.delete_placement_group, GroupName="far") == "InvalidPlacementGroup.Unknown"


def test_tags_are_changed_where_they_are_kept(ec2: Any) -> None:
    id_ = run(ec2)["InstanceId"]
    vpc = ec2.describe_vpcs()["Vpcs"][0]["VpcId"]
    for resource in (id_, vpc):
        ec2.create_tags(Resources=[resource], Tags=[{"Key": "a", "Value": "1"}, {"Key": "b", "Value": "2"}])
        ec2.delete_tags(Resources=[resource], Tags=[{"Key": "a"}])
    (machine,) = ec2.describe_instances()["Reservations"][0]["Instances"]
    assert machine["Tags"] == [{"Key": "b", "Value": "2"}] == ec2.describe_vpcs()["Vpcs"][0]["Tags"]


def test_user_data_is_read_back(ec2: Any) -> None:
    id_ = run(ec2, UserData="#!/bin/sh\n")["InstanceId"]
    found = ec2.describe_instance_attribute(InstanceId=id_, Attribute="userData")["UserData"]["Value"]
    assert found == "IyEvYmluL3NoCg=="


def test_types_are_those_of_the_region(ec2: Any) -> None:
    assert refused(ec2.describe_instance_types, InstanceTypes=["x2gd.large"]) == "InvalidInstanceType"
    assert refused(ec2.describe_instance_types, MaxResults=101) == "InvalidParameterValue"
    assert ec2.describe_instance_types(MaxResults=100)["NextToken"]


def test_regions_are_apart(aws_double: AwsDouble, ec2: Any) -> None:
    run(ec2)
    other = AwsProvider(AwsSettings(**{**aws_double.config, "region": "us-east-1"}))
    assert other.session.client("ec2").describe_instances()["Reservations"] == []
    other.close()

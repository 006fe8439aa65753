"""What a policy of IAM allows is what the drivers call for a purpose, and no more."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs
import botocore.session
import pytest

import shiftable_aws
from shiftable.blob import BucketSpec
from shiftable.database import DatabaseSpec
from shiftable.dns.driver import ZoneSpec
from shiftable.errors import InvalidArgument
from shiftable.provider import Purpose
from shiftable.secrets import SecretsSpec
from shiftable.service import Spec
from shiftable_aws import AwsProvider, AwsSettings
from shiftable_aws.double import AwsDouble
from shiftable_s3.driver import S3Driver
from tests.policies import SERVER, WEB, Buckets, Machines, Servers, Stored, Work, Zones

from .iam import SEEN, Call

PACKAGE = Path(shiftable_aws.__file__).parent
PLAIN = BucketSpec(name="shop-assets")
KEEPING = BucketSpec(name="shop-kept", versioning=True, object_lock=True)
PURPOSES: tuple[Purpose, ...] = ("apply", "plan", "write", "read")
"""In an order in which each finds what it needs."""
WALLED = attrs.evolve(SERVER, allow_from=("192.0.2.0/24",), parameters={"work_mem": "8192"})
KEPT: list[tuple[str, Spec]] = [("database", SERVER)]
"""A server whose administrator's password AWS keeps."""


def actions(policy: Mapping[str, Any]) -> set[str]:
    return {action for statement in policy["Statement"] for action in statement["Action"]}


def allows(policy: Mapping[str, Any], call: Call) -> bool:
    return any(
        call.action in statement["Action"]
        and (call.resource is None or any(fnmatch.fnmatchcase(call.resource, each) for each in statement["Resource"]))
        for statement in policy["Statement"]
    )


@pytest.fixture
def called(provider: AwsProvider) -> list[Call]:
    """Return what the drivers of the provider call, from now on."""
    found: list[Call] = []
    for service, read in SEEN.items():

        def heard(model: Any, params: Mapping[str, Any], read: Any = read, **_: object) -> None:
            found.extend(read(model.name, params))

        provider.session.client(service).meta.events.register(f"before-parameter-build.{service}", heard)  # type: ignore[call-overload]
    return found


def compared(
    provider: AwsProvider, called: list[Call], service: str, spec: Spec, purpose: Purpose, work: Work
) -> set[str]:
    """Do some work; fail if a call of it is not allowed for the purpose; return what is allowed and was not called."""
    policy = provider.policy([(service, spec)], [purpose])
    called.clear()
    getattr(work, purpose)()
    assert [] == [call for call in called if not allows(policy, call)]
    return actions(policy) - {call.action for call in called}


# what is done


@pytest.mark.parametrize("spec", [PLAIN, KEEPING], ids=["plain", "with everything"])
def test_buckets(provider: AwsProvider, called: list[Call], spec: BucketSpec) -> None:
    work = Buckets(provider.blob(), spec)
    for purpose in PURPOSES:
        assert set() == compared(provider, called, "blob", spec, purpose, work)


def test_secrets(provider: AwsProvider, called: list[Call]) -> None:
    spec = SecretsSpec(name="shop")
    work = Stored(provider.secrets(), spec)
    for purpose in PURPOSES:
        assert set() == compared(provider, called, "secrets", spec, purpose, work)


def test_zones(provider: AwsProvider, called: list[Call]) -> None:
    spec = ZoneSpec(name="shop.example")
    work = Zones(provider.dns(), spec)
    for purpose in PURPOSES:
        assert set() == compared(provider, called, "dns", spec, purpose, work)


@pytest.mark.parametrize("spec", [SERVER, WALLED], ids=["plain", "with groups"])
def test_servers(provider: AwsProvider, aws_double: AwsDouble, called: list[Call], spec: DatabaseSpec) -> None:
    work = Servers(provider.database(), spec, aws_double.clock.advance)
    left = {purpose: compared(provider, called, "database", spec, purpose, work) for purpose in PURPOSES}
    assert left["read"] == left["write"] == set()  # the rest by the source, below


def test_machines(provider: AwsProvider, aws_double: AwsDouble, called: list[Call]) -> None:
    work = Machines(provider.compute(), WEB, aws_double.clock.advance)
    left = {purpose: compared(provider, called, "compute", WEB, purpose, work) for purpose in PURPOSES}
    assert left["read"] == left["write"] == {"ec2:DescribeInstanceTypes"}  # which are known by now, for an hour


def test_who_logs_in_with_a_token_reads_no_password(provider: AwsProvider) -> None:
    spec = attrs.evolve(SERVER, token_login=True, user="app")
    policy = provider.policy([("database", spec)], ["read"])
    assert actions(policy) == {"rds:DescribeDBInstances", "rds-db:connect"}
    assert allows(policy, Call("rds-db:connect", "arn:aws:rds-db:eu-central-1:123456789012:dbuser:db-ABC/app"))
    assert not allows(policy, Call("rds-db:connect", "arn:aws:rds-db:eu-central-1:123456789012:dbuser:db-ABC/root"))


# what is called by nobody's scenario: by the drivers' source


def test_servers_are_allowed_all_that_the_driver_calls_and_no_more(provider: AwsProvider) -> None:
    tokens = attrs.evolve(SERVER, token_login=True)
    allowed = actions(provider.policy([("database", tokens), *KEPT], ["write", "apply"]))
    source = "".join(path.read_text() for path in (PACKAGE / "database.py", *PACKAGE.glob("_rds_*.py")))
    called = {call for service in ("rds", "ec2", "secretsmanager") for call in in_source(source, service)}
    # What RDS and EC2 do on behalf of who calls: create and rotate a secret, ask for its key, tag what is made.
    behalf = {"CreateSecret", "RotateSecret", "TagResource"}
    others = {f"secretsmanager:{name}" for name in behalf} | {"kms:DescribeKey", "ec2:CreateTags", "rds-db:connect"}
    assert allowed == (called - {"ec2:DeleteSnapshot"}) | others  # a method of the driver's is called so
    assert len(called) >= 30


def test_machines_are_allowed_all_that_the_driver_calls_and_no_more(provider: AwsProvider) -> None:
    allowed = actions(provider.policy([("compute", attrs.evolve(WEB, identity="web"))], ["write", "apply"]))
    source = "".join(path.read_text() for path in (PACKAGE / "compute.py", *PACKAGE.glob("_ec2_*.py")))
    called = set(in_source(source, "ec2", r"(client\.|get_paginator\(\")"))
    assert allowed == called | {"ec2:CreateTags", "iam:PassRole"}
    assert len(called) >= 25


def test_the_provider_names_every_permission(provider: AwsProvider) -> None:
    everything = [("blob", KEEPING), ("secrets", SecretsSpec(name="shop")), ("dns", ZoneSpec(name="shop.example"))]
    servers = [("database", attrs.evolve(SERVER, token_login=True)), ("compute", attrs.evolve(WEB, identity="web"))]
    allowed = actions(provider.policy([*everything, *servers, *KEPT], ["write", "apply"]))
    told = (AwsProvider.__doc__ or "") + (S3Driver.__doc__ or "")
    assert not [action for action in allowed if action.rpartition(":")[2] not in told]


def in_source(source: str, service: str, before: str = "") -> Iterator[str]:
    for name in botocore.session.get_session().get_service_model(service).operation_names:
        if re.search(rf"{before}\b{botocore.xform_name(name)}\b", source):
            yield f"{service}:{name}"


# where


@pytest.mark.parametrize(
    ("region", "partition"),
    [("eu-central-1", "aws"), ("cn-north-1", "aws-cn"), ("us-gov-west-1", "aws-us-gov"), (None, "aws")],
)
def test_resources_are_those_of_the_region(region: str | None, partition: str) -> None:
    provider = AwsProvider(AwsSettings(region=region))
    policy = provider.policy([("secrets", SecretsSpec(name="shop")), ("blob", PLAIN)], ["write"])
    named = {resource for statement in policy["Statement"] for resource in statement["Resource"]}
    secrets = f"arn:{partition}:secretsmanager:{region or '*'}:*:secret:shop/*"
    assert named == {"*", secrets, f"arn:{partition}:s3:::shop-assets", f"arn:{partition}:s3:::shop-assets/*"}


def test_the_oldest_region_asks_first_whether_a_bucket_exists() -> None:
    def allowed(region: str | None) -> set[str]:
        return actions(AwsProvider(AwsSettings(region=region)).policy([("blob", PLAIN)], ["apply"]))

    assert {"s3:ListBucket"} == allowed("us-east-1") - allowed("eu-central-1")
    assert allowed("us-east-1") == allowed(None)


def test_a_zone_is_changed_at_its_own_names_only(provider: AwsProvider) -> None:
    policy = provider.policy([("dns", ZoneSpec(name="shop.example"))], ["write"])
    (changes,) = [each for each in policy["Statement"] if "route53:ChangeResourceRecordSets" in each["Action"]]
    names = {"route53:ChangeResourceRecordSetsNormalizedRecordNames": ["shop.example", "*.shop.example"]}
    assert changes["Condition"] == {"ForAllValues:StringLike": names}


def test_machines_of_other_fleets_are_left_alone(provider: AwsProvider) -> None:
    policy = provider.policy([("compute", WEB)], ["apply"])
    (ends,) = [each for each in policy["Statement"] if "ec2:TerminateInstances" in each["Action"]]
    assert ends["Condition"] == {"StringEquals": {"aws:ResourceTag/shiftable-fleet": "web"}}


def test_several_resources_are_one_policy_without_repetition(provider: AwsProvider) -> None:
    buckets = [("blob", attrs.evolve(PLAIN, name=f"shop-{number}")) for number in range(50)]
    statements = provider.policy([*buckets, *buckets], ["read", "write"])["Statement"]
    assert [50, 50] == [len(each["Resource"]) for each in statements]
    assert [each["Action"] for each in statements] == [sorted({*each["Action"]}) for each in statements]


def test_a_policy_that_iam_would_not_take_is_refused(provider: AwsProvider) -> None:
    buckets = [("blob", attrs.evolve(PLAIN, name=f"shop-{number}")) for number in range(500)]
    with pytest.raises(InvalidArgument, match=r"characters; IAM takes at most 10,240 for a role.*name fewer resources"):
        provider.policy(buckets, ["read"])

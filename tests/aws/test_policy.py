"""What a policy of IAM allows is what the drivers call for a purpose, and no more."""

from __future__ import annotations

import fnmatch
import io
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import attrs
import botocore.session
import pytest

import shiftable_aws
from shiftable.blob import BlobStore, BucketSpec, CorsRule, LifecycleRule, Retention
from shiftable.blob.driver import PutOptions
from shiftable.compute import Compute, FleetSpec
from shiftable.database import Databases, DatabaseSpec
from shiftable.dns import Dns
from shiftable.dns.driver import ZoneSpec
from shiftable.provider import Purpose
from shiftable.secrets import Secrets, SecretsSpec
from shiftable.service import Spec
from shiftable_aws import AwsProvider, AwsSettings
from shiftable_aws.double import AwsDouble
from shiftable_s3.driver import S3Driver

from .iam import SEEN, Call

MIB = 1024 * 1024
PACKAGE = Path(shiftable_aws.__file__).parent
PLAIN = BucketSpec(name="shop-assets")
RULES = (LifecycleRule(prefix="tmp/", expire_days=7),)
PAGES = (CorsRule(origins=("https://shop.example",), methods=("GET",)),)
KEEPING = BucketSpec(name="shop-kept", versioning=True, object_lock=True, lifecycle=RULES, cors=PAGES)
SERVER = DatabaseSpec(name="orders", engine="postgresql", version="16", cpus=2, memory_gib=4, storage_gib=20)
WALLED = attrs.evolve(SERVER, allow_from=("192.0.2.0/24",), parameters={"work_mem": "8192"})
KEPT: list[tuple[str, Spec]] = [("database", SERVER)]
"""A server whose administrator's password AWS keeps."""
WEB = FleetSpec(name="web", image="debian-12", cpus=2, memory_gib=4)


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
    provider: AwsProvider, called: list[Call], service: str, spec: Spec, purpose: Purpose, work: Callable[[], object]
) -> set[str]:
    """Do some work; fail if a call of it is not allowed for the purpose; return what is allowed and was not called."""
    policy = provider.policy([(service, spec)], [purpose])
    called.clear()
    work()
    assert [] == [call for call in called if not allows(policy, call)]
    return actions(policy) - {call.action for call in called}


# objects


def read(store: BlobStore, spec: BucketSpec) -> None:
    bucket = store.bucket(spec.name)
    assert "a" in [item.key for item in bucket.list()]
    assert bucket.exists("a")
    assert not bucket.exists("missing")
    assert bucket.get("a") == b"2"
    assert bucket.stat("large").size == 17 * MIB
    assert b"".join(bucket.stream("large", start=5, stop=10)) == bytes(5)
    bucket.tags("a")
    for version in list(bucket.versions("a")) if spec.versioning else ():
        if version.version:
            bucket.stat("a", version=version.version)
            bucket.get("a", version=version.version)
            bucket.tags("a", version=version.version)
    if spec.object_lock:
        bucket.lock_of("a")


def write(store: BlobStore, spec: BucketSpec) -> None:
    bucket = store.bucket(spec.name)
    bucket.put("a", b"1", tags={"team": "core"})
    bucket.put("a", b"2", tags={"team": "core"})
    bucket.put("large", io.BytesIO(bytes(17 * MIB)))
    bucket.copy("a", "b")
    bucket.set_tags("b", {"team": "shop"})
    bucket.set_tags("b", {})
    bucket.unwrap(S3Driver).upload_begin(bucket.name, "left", PutOptions())
    bucket.abort_uploads(older_than=timedelta(0))
    if spec.object_lock:
        tomorrow = datetime.now(UTC) + timedelta(days=1)
        kept = bucket.put("kept", b"1", retain=Retention(until=tomorrow), hold=True)
        bucket.release("kept", version=kept.version)
        bucket.retain("kept", tomorrow + timedelta(days=1), version=kept.version)
    if spec.versioning:
        for version in list(bucket.versions("b")):
            bucket.delete("b", version=version.version)
    bucket.put("c", b"1")
    bucket.delete("c")
    list(bucket.delete_many(["d", "e"]))
    read(store, spec)


@pytest.mark.parametrize("spec", [PLAIN, KEEPING], ids=["plain", "with everything"])
def test_buckets(provider: AwsProvider, called: list[Call], spec: BucketSpec) -> None:
    store = BlobStore(provider.blob())
    rules, pages = () if spec.lifecycle else RULES, () if spec.cors else PAGES
    other = attrs.evolve(spec, versioning=True, lifecycle=rules, cors=pages)

    def made_to_be(wanted: BucketSpec) -> None:
        for change in store.diff(wanted):
            store.apply(change)

    def plan() -> None:
        assert store.exists(spec.name)
        assert not store.diff(spec)

    def apply() -> None:
        for wanted in (spec, other, spec):
            made_to_be(wanted)
        plan()
        store.delete(spec.name)

    assert set() == compared(provider, called, "blob", spec, "apply", apply)
    store.create(spec)
    assert set() == compared(provider, called, "blob", spec, "plan", plan)
    assert set() == compared(provider, called, "blob", spec, "write", lambda: write(store, spec))
    assert set() == compared(provider, called, "blob", spec, "read", lambda: read(store, spec))


# secrets


def test_secrets(provider: AwsProvider, called: list[Call]) -> None:
    spec = SecretsSpec(name="shop")
    service = Secrets(provider.secrets())
    store = service.open(spec)

    def plan() -> None:
        service.exists(spec.name)
        assert not service.diff(spec)

    def read() -> None:
        assert store.get("a/key").reveal() == "two"
        assert store.get("a/key", stage="previous").reveal() == "one"
        assert [info.name for info in store.list()] == ["a/key"]
        assert len(list(store.history("a/key"))) == 3

    def write() -> None:
        first = store.put("a/key", "one", labels={"team": "core"})
        second = store.put("a/key", "two", expires=datetime.now(UTC) + timedelta(days=9))
        store.update("a/key", labels={"owner": "core"})
        store.promote("a/key", first.version)
        store.promote("a/key", second.version)
        store.put("a/key", "three", stage="pending")
        store.delete("a/key", recovery=timedelta(days=7))
        store.restore("a/key")
        read()
        store.put("b", "1")
        store.purge("b")

    assert set() == compared(provider, called, "secrets", spec, "plan", plan)
    assert set() == compared(provider, called, "secrets", spec, "write", write)
    assert set() == compared(provider, called, "secrets", spec, "read", read)


# zones


def test_zones(provider: AwsProvider, called: list[Call]) -> None:
    spec = ZoneSpec(name="shop.example")
    service = Dns(provider.dns())

    def plan() -> None:
        assert service.exists(spec.name)
        assert not service.diff(spec)

    def apply() -> None:
        (change,) = service.diff(spec)
        service.apply(change)
        plan()
        service.delete(spec.name)

    assert set() == compared(provider, called, "dns", spec, "apply", apply)
    zone = service.create(spec)

    def read() -> None:
        assert zone.get("www", "A").texts == ("192.0.2.1",)
        assert len(list(zone.records())) == 3
        assert zone.info().nameservers

    def write() -> None:
        zone.set("www", "A", ["192.0.2.1"])
        zone.set("*", "TXT", ["any"])
        zone.delete("*", "TXT")
        assert zone.max_record_sets()
        read()

    assert set() == compared(provider, called, "dns", spec, "plan", plan)
    assert set() == compared(provider, called, "dns", spec, "write", write)
    assert set() == compared(provider, called, "dns", spec, "read", read)


# servers


@pytest.mark.parametrize("spec", [SERVER, WALLED], ids=["plain", "with groups"])
def test_servers(provider: AwsProvider, aws_double: AwsDouble, called: list[Call], spec: DatabaseSpec) -> None:
    service = Databases(provider.database(), sleep=aws_double.clock.advance)

    def plan() -> None:
        assert service.exists(spec.name)
        assert not service.diff(spec)
        assert service.size(spec)

    def apply() -> None:
        found = service.create(attrs.evolve(spec, deletion_protection=False, backup_days=1))
        found.wait()
        for change in service.diff(spec):
            service.apply(change)
        found.wait()
        plan()

    def read() -> None:
        found = service.get(spec.name)
        assert found.password().reveal()
        assert found.url().host

    left = compared(provider, called, "database", spec, "apply", apply)
    assert {action.partition(":")[0] for action in left} <= {"rds", "ec2", "secretsmanager", "kms"}
    compared(provider, called, "database", spec, "plan", plan)
    assert set() == compared(provider, called, "database", spec, "read", read)
    assert actions(provider.policy([("database", spec)], ["read"])) == actions(
        provider.policy([("database", spec)], ["write"])
    )


def test_who_logs_in_with_a_token_reads_no_password(provider: AwsProvider) -> None:
    spec = attrs.evolve(SERVER, token_login=True, user="app")
    policy = provider.policy([("database", spec)], ["read"])
    assert actions(policy) == {"rds:DescribeDBInstances", "rds:DescribeDBParameters", "rds-db:connect"}
    assert allows(policy, Call("rds-db:connect", "arn:aws:rds-db:eu-central-1:123456789012:dbuser:db-ABC/app"))
    assert not allows(policy, Call("rds-db:connect", "arn:aws:rds-db:eu-central-1:123456789012:dbuser:db-ABC/root"))


# machines


def test_machines(provider: AwsProvider, hasty: AwsProvider, aws_double: AwsDouble, called: list[Call]) -> None:
    service = Compute(provider.compute(), sleep=aws_double.clock.advance)
    Compute(hasty.compute(), sleep=aws_double.clock.advance).create(WEB).wait()  # and what types have is asked anew

    def plan() -> None:
        assert service.exists(WEB.name)
        assert not service.diff(WEB)

    def apply() -> None:
        fleet = service.create(attrs.evolve(WEB, open_ports=(80,), labels={"team": "core"}))
        fleet.wait()
        for change in service.diff(WEB):
            service.apply(change)
        fleet.wait()
        plan()

    def read() -> None:
        (machine,) = service.get(WEB.name).machines()
        machine.console()

    def write() -> None:
        (machine,) = service.get(WEB.name).machines()
        machine.reboot()
        machine.wait()
        machine.stop()
        machine.wait("stopped")
        machine.start()
        read()

    assert set() == compared(provider, called, "compute", WEB, "read", read)
    assert {"ec2:DescribeInstanceTypes"} == compared(provider, called, "compute", WEB, "write", write)  # known by now
    compared(provider, called, "compute", WEB, "plan", plan)
    compared(provider, called, "compute", WEB, "apply", lambda: service.delete(WEB.name))
    compared(provider, called, "compute", WEB, "apply", apply)
    compared(provider, called, "compute", WEB, "apply", lambda: service.delete(WEB.name))


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
    specs = [("blob", PLAIN), ("blob", PLAIN), ("blob", attrs.evolve(PLAIN, name="other"))]
    statements = provider.policy(specs, ["read", "write"])["Statement"]
    assert len(statements) == 4
    assert [each["Action"] for each in statements] == [sorted({*each["Action"]}) for each in statements]

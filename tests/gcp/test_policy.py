"""What a role of IAM allows is what the drivers call for a purpose, and no more."""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import parse_qs

import attrs
import pytest

from shiftable.blob import BucketSpec
from shiftable.compute import FleetSpec
from shiftable.config import Credential
from shiftable.dns.driver import ZoneSpec
from shiftable.provider import Purpose
from shiftable.secrets import SecretsSpec
from shiftable.service import Spec
from shiftable.testing.harness import Call
from shiftable_gcp import GcpProvider
from shiftable_gcp.double import GcpDouble
from tests.policies import SERVER, WEB, Buckets, Machines, Servers, Stored, Work, Zones

PURPOSES: tuple[Purpose, ...] = ("apply", "plan", "write", "read")
"""In an order in which each finds what it needs."""
LOCKED = BucketSpec(name="shop-kept", versioning=True, object_lock=True)
KEPT = attrs.evolve(SERVER, password=Credential.literal("a-long-password"))
EVERYTHING = attrs.evolve(WEB, public_ip=True, placement="spread", identity="web@shop.iam.gserviceaccount.com")
VERBS = {"insert": "create", "patch": "update", "aggregatedList": "list", "wait": "get"}
RECORDS = {f"dns.resourceRecordSets.{what}" for what in ("create", "delete", "update")}
OTHERS = {
    "compute.firewalls.delete": {"compute.firewalls.delete", "compute.networks.updatePolicy"},
    "compute.firewalls.insert": {"compute.firewalls.create", "compute.networks.updatePolicy"},
    "compute.instances.insert": {
        *(f"compute.instances.{what}" for what in ("create", "setLabels", "setMetadata", "setTags")),
        *("compute.disks.create", "compute.images.useReadOnly", "compute.subnetworks.use"),
    },
    "secretmanager.projects.secrets.addVersion": {"secretmanager.versions.add"},
    "sql.Backups.CreateBackup": {"cloudsql.backupRuns.create", "cloudsql.instances.createBackup"},
    "sql.Backups.DeleteBackup": {"cloudsql.backupRuns.delete"},
    "sql.Backups.GetBackup": {"cloudsql.backupRuns.get"},
    "sql.Backups.ListBackups": {"cloudsql.backupRuns.list"},
    "sql.operations.get": {"cloudsql.instances.get"},
    "sql.operations.list": {"cloudsql.instances.get"},
    "storage.objects.insert": {"storage.objects.create", "storage.objects.delete"},  # over another one
    "storage.objects.rewrite": {"storage.objects.create", "storage.objects.delete", "storage.objects.get"},
    "batch": {"storage.objects.delete"},
    "dns.changes.create": {"dns.changes.create", *RECORDS},
}


def needed(call: Call) -> set[str]:
    """Say what a call has to be allowed, by Google's references of permissions."""
    if call.operation in OTHERS:
        return OTHERS[call.operation]
    if call.operation == "xml":
        return set(of_xml(call))
    operation = call.operation.replace("secretmanager.projects.secrets.versions", "secretmanager.versions")
    operation = operation.replace("secretmanager.projects.", "secretmanager.").replace("sql.", "cloudsql.")
    kind, _, verb = operation.rpartition(".")
    return {f"{kind}.{VERBS.get(verb, verb)}"}


def of_xml(call: Call) -> Iterator[str]:
    query = parse_qs(call.query, keep_blank_values=True)
    if "uploads" in query or "uploadId" in query:
        verbs = {
            "POST": "create",
            "PUT": "create",
            "DELETE": "abort",
            "GET": "list" if "uploads" in query else "listParts",
        }
        yield f"storage.multipartUploads.{verbs[call.method]}"
    else:
        yield f"storage.objects.{({'GET': 'get', 'HEAD': 'get', 'PUT': 'create', 'DELETE': 'delete'})[call.method]}"


def compared(
    provider: GcpProvider, double: GcpDouble, service: str, spec: Spec, purpose: Purpose, work: Work
) -> set[str]:
    """Do some work; fail if a call of it is not allowed for the purpose; return what is allowed and was not called."""
    allowed = {*provider.policy([(service, spec)], [purpose])["includedPermissions"]}
    before = len(double.calls)
    getattr(work, purpose)()
    called = {each for call in double.calls[before:] if call.path != "/token" for each in needed(call)}
    assert set() == called - allowed
    return allowed - called


def left_of(provider: GcpProvider, double: GcpDouble, service: str, spec: Spec, work: Work) -> dict[Purpose, set[str]]:
    return {purpose: compared(provider, double, service, spec, purpose, work) for purpose in PURPOSES}


@pytest.mark.parametrize("spec", [BucketSpec(name="shop-assets"), LOCKED], ids=["plain", "with locks"])
def test_buckets(provider: GcpProvider, gcp_double: GcpDouble, spec: BucketSpec) -> None:
    left = left_of(provider, gcp_double, "blob", spec, Buckets(provider.blob(), spec))
    known, wider = {"storage.buckets.get"}, {"storage.objects.update"}  # headers of uploads in parts
    retention = {"storage.objects.setRetention"}  # which comes with the request, also of a bucket
    assert (set(), known) == (left["plan"], left["read"])
    assert known | (retention if spec.object_lock else wider) == left["write"]
    assert ({"storage.buckets.enableObjectRetention"} if spec.object_lock else set()) == left["apply"]


def test_secrets(provider: GcpProvider, gcp_double: GcpDouble) -> None:
    spec = SecretsSpec(name="shop")
    left = left_of(provider, gcp_double, "secrets", spec, Stored(provider.secrets(), spec))
    seldom = {"secretmanager.versions.enable"}  # of a version whose stage was never set
    assert {"apply": set(), "plan": set(), "write": seldom, "read": set()} == left


def test_zones(provider: GcpProvider, gcp_double: GcpDouble) -> None:
    spec = ZoneSpec(name="shop.example")
    left = left_of(provider, gcp_double, "dns", spec, Zones(provider.dns(), spec))
    seldom = {"dns.changes.list", "dns.managedZoneOperations.get"}  # to find a call again whose answer was lost
    assert {"apply": set(), "plan": set(), "write": seldom, "read": set()} == left


def test_servers(provider: GcpProvider, gcp_double: GcpDouble) -> None:
    work = Servers(provider.database(), KEPT, gcp_double.clock.advance)
    left = left_of(provider, gcp_double, "database", KEPT, work)
    assert set() == left["read"] == left["write"]
    assert {"cloudsql.instances.clone", "compute.networks.get"} < left["apply"]  # points in time, private addresses
    assert len(left["apply"]) < 6


@pytest.mark.parametrize("spec", [WEB, EVERYTHING], ids=["plain", "with everything"])
def test_machines(provider: GcpProvider, gcp_double: GcpDouble, spec: FleetSpec) -> None:
    work = Machines(provider.compute(), spec, gcp_double.clock.advance)
    left = left_of(provider, gcp_double, "compute", spec, work)
    assert set() == left["read"]
    assert {"compute.instances.resume"} == left["write"]  # of a machine that is suspended


def test_the_provider_names_every_permission_and_no_other(provider: GcpProvider) -> None:
    everything: list[tuple[str, Spec]] = [
        ("blob", LOCKED),
        ("secrets", SecretsSpec(name="shop")),
        ("dns", ZoneSpec(name="shop.example")),
        ("database", attrs.evolve(SERVER, token_login=True)),
        ("compute", EVERYTHING),
    ]
    allowed = {*provider.policy(everything, ["write", "apply"])["includedPermissions"]}
    told = set(re.findall(r"``([a-z]+\.[A-Za-z]+\.[A-Za-z]+)``", GcpProvider.__doc__ or ""))
    of_nothing_declared = {"storage.buckets.list", "iam.serviceAccounts.signBlob"}
    assert allowed == told - of_nothing_declared


def test_who_logs_in_with_a_token_may(provider: GcpProvider) -> None:
    role = provider.policy([("database", attrs.evolve(SERVER, token_login=True))], ["read"])
    assert ["cloudsql.instances.get", "cloudsql.instances.login"] == role["includedPermissions"]
    assert ("shiftable read", "GA") == (role["title"], role["stage"])

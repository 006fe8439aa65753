"""The least that a login must be allowed, as a custom role of IAM. Tests compare it with what the drivers call."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from shiftable.provider import PURPOSES, Purpose, contained

if TYPE_CHECKING:
    from shiftable.blob.driver import BucketSpec
    from shiftable.compute.driver import FleetSpec
    from shiftable.database.driver import DatabaseSpec
    from shiftable.dns.driver import ZoneSpec
    from shiftable.secrets.driver import SecretsSpec
    from shiftable.service import Spec

__all__ = ["policy"]

_Grant = tuple[frozenset[Purpose], str]
"""For whom, and permissions between blanks."""


def policy(declared: Iterable[tuple[str, Spec]], purposes: Iterable[Purpose]) -> dict[str, Any]:
    """Write it: one role with everything that is declared."""
    named = sorted(set(purposes), key=PURPOSES.index)
    wanted = contained(named)
    found = {
        permission
        for service, spec in declared
        for who, permissions in _GRANTS[service](spec)
        if who & wanted
        for permission in permissions.split()
    }
    return {
        "title": f"shiftable {', '.join(named)}",
        "description": "What shiftable needs for the resources of a shiftable.toml.",
        "stage": "GA",
        "includedPermissions": sorted(found),
    }


_READ, _WRITE = frozenset[Purpose]({"read"}), frozenset[Purpose]({"write"})
_PLAN, _APPLY = frozenset[Purpose]({"plan"}), frozenset[Purpose]({"apply"})


def _each(kind: str, verbs: str) -> str:
    return " ".join(f"{kind}.{verb}" for verb in verbs.split())


def _blob(spec: BucketSpec) -> Iterator[_Grant]:
    yield _READ | _PLAN, "storage.buckets.get"  # without it an object does not tell its version
    yield _READ, _each("storage.objects", "get list")
    yield _PLAN, "storage.objects.list"  # of a bucket that may be somebody else's
    yield _WRITE, _each("storage.objects", "create delete move update")
    yield _WRITE, _each("storage.multipartUploads", "abort create list")
    yield _APPLY, _each("storage.buckets", "create delete update")
    if spec.object_lock:
        yield _WRITE, "storage.objects.setRetention"
        yield _APPLY, "storage.buckets.enableObjectRetention"


def _secrets(_spec: SecretsSpec) -> Iterator[_Grant]:
    yield _READ | _PLAN, "secretmanager.secrets.list"
    yield _READ, "secretmanager.secrets.get"
    yield _READ, _each("secretmanager.versions", "access list")
    yield _WRITE, _each("secretmanager.secrets", "create delete update")  # stages are aliases, which take an update
    yield _WRITE, _each("secretmanager.versions", "add destroy disable enable get")


def _dns(_spec: ZoneSpec) -> Iterator[_Grant]:
    yield _READ | _PLAN, "dns.managedZones.list"
    yield _READ, "dns.resourceRecordSets.list"
    yield _WRITE, _each("dns.resourceRecordSets", "create delete update")
    yield _WRITE, _each("dns.changes", "create get list")
    yield _WRITE, "dns.managedZoneOperations.get dns.projects.get"
    yield _APPLY, _each("dns.managedZones", "create delete")


def _database(spec: DatabaseSpec) -> Iterator[_Grant]:
    yield _READ | _PLAN, "cloudsql.instances.get"
    if spec.token_login:
        yield _READ, "cloudsql.instances.login"
    yield _PLAN, "cloudsql.databases.list cloudsql.users.list"
    yield _APPLY, _each("cloudsql.instances", "clone create createBackup delete list restart restoreBackup update")
    yield _APPLY, _each("cloudsql.backupRuns", "create delete get list")
    yield _APPLY, "cloudsql.databases.create cloudsql.users.create cloudsql.users.update"
    if not spec.public:
        yield _APPLY, "compute.networks.get"


def _compute(spec: FleetSpec) -> Iterator[_Grant]:
    yield _READ | _PLAN, _each("compute", "firewalls.list instances.list")
    yield _READ, "compute.instances.getSerialPortOutput"
    yield _WRITE, _each("compute.instances", "get reset resume start stop")
    yield _WRITE, "compute.zoneOperations.get"
    looks = "disks.list images.list machineTypes.get machineTypes.list resourcePolicies.list snapshots.list zones.list"
    yield _PLAN, _each("compute", looks)
    instances = (
        "attachDisk create delete detachDisk get reset resume setLabels setMachineType setMetadata setServiceAccount"
        " setTags start stop"
    )
    yield _APPLY, _each("compute.instances", instances)
    yield _APPLY, _each("compute.disks", "create createSnapshot delete get setLabels use useReadOnly")
    yield _APPLY, _each("compute.images", "create delete get setLabels useReadOnly")
    yield _APPLY, _each("compute.snapshots", "create delete get useReadOnly")
    yield _APPLY, _each("compute.firewalls", "create delete update")
    yield _APPLY, _each("compute", "globalOperations.get globalOperations.list networks.updatePolicy subnetworks.use")
    yield _APPLY, _each("compute", "zoneOperations.get zoneOperations.list")
    yield _APPLY, "storage.objects.get"  # of an image that is imported
    if spec.public_ip:
        yield _APPLY, "compute.subnetworks.useExternalIp"
    if spec.placement is not None:
        yield _APPLY, _each("compute", "regionOperations.get")
        yield _APPLY, _each("compute.resourcePolicies", "create delete use")
    if spec.identity is not None:
        yield _APPLY, "iam.serviceAccounts.actAs"


_GRANTS: Mapping[str, Callable[[Any], Iterator[_Grant]]] = {
    "blob": _blob,
    "secrets": _secrets,
    "dns": _dns,
    "database": _database,
    "compute": _compute,
}

"""The least that a login must be allowed, as a custom role. Tests compare it with what the drivers call."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal

from shiftable.provider import PURPOSES, Purpose, contained

if TYPE_CHECKING:
    from shiftable.blob.driver import BucketSpec
    from shiftable.compute.driver import FleetSpec
    from shiftable.database.driver import DatabaseSpec
    from shiftable.dns.driver import ZoneSpec
    from shiftable.secrets.driver import SecretsSpec
    from shiftable.service import Spec
    from shiftable_azure import AzureSettings

__all__ = ["policy"]

_Grant = tuple[frozenset[Purpose], Literal["Actions", "DataActions"], str, str]
"""For whom, of which plane, of what, and what may be done with it, between blanks."""

_DATABASES = {"postgresql": ("DBforPostgreSQL", "backups"), "mysql": ("DBforMySQL", "backupsV2")}


def policy(
    declared: Iterable[tuple[str, Spec]], purposes: Iterable[Purpose], settings: AzureSettings
) -> dict[str, Any]:
    """Write it: one role with everything that is declared, to be given in the resource group."""
    named = sorted(set(purposes), key=PURPOSES.index)
    wanted, found = contained(named), dict[str, set[str]]()
    for service, spec in declared:
        for who, plane, of, actions in _GRANTS[service](spec, settings):
            if who & wanted:
                found.setdefault(plane, set()).update(f"Microsoft.{of}/{action}" for action in actions.split())
    scope = f"/subscriptions/{settings.subscription or 'SUBSCRIPTION'}"
    group = f"/resourceGroups/{settings.resource_group}" if settings.resource_group else ""
    return {
        "Name": f"shiftable {', '.join(named)}",
        "IsCustom": True,
        "Description": "What shiftable needs for the resources of a shiftable.toml.",
        "Actions": sorted(found.get("Actions", ())),
        "NotActions": [],
        "DataActions": sorted(found.get("DataActions", ())),
        "NotDataActions": [],
        "AssignableScopes": [f"{scope}{group}"],
    }


_READ, _WRITE = frozenset[Purpose]({"read"}), frozenset[Purpose]({"write"})
_PLAN, _APPLY = frozenset[Purpose]({"plan"}), frozenset[Purpose]({"apply"})


def _blob(spec: BucketSpec, settings: AzureSettings) -> Iterator[_Grant]:
    account = "Storage/storageAccounts"
    containers = f"{account}/blobServices/containers"
    yield _READ, "DataActions", f"{containers}/blobs", "read tags/read"
    yield _WRITE, "DataActions", f"{containers}/blobs", "add/action delete tags/write write"
    if spec.versioning:
        yield _WRITE, "DataActions", f"{containers}/blobs", "deleteBlobVersion/action"
    yield _WRITE | _PLAN, "Actions", containers, "read"
    yield _APPLY, "Actions", containers, "delete write"
    yield _APPLY, "DataActions", f"{containers}/blobs", "read"  # whether it is empty
    if settings.account_key is None and settings.connection_string is None:
        yield _READ, "Actions", f"{account}/blobServices", "generateUserDelegationKey/action"  # to sign URLs
    if settings.blob_lifecycle:
        yield _PLAN, "Actions", f"{account}/managementPolicies", "read"
        yield _APPLY, "Actions", f"{account}/managementPolicies", "delete write"


def _secrets(_spec: SecretsSpec, _settings: AzureSettings) -> Iterator[_Grant]:
    yield _READ | _PLAN, "DataActions", "KeyVault/vaults/secrets", "readMetadata/action"
    yield _READ, "DataActions", "KeyVault/vaults/secrets", "getSecret/action"
    writes = "delete purge/action recover/action setSecret/action update/action"
    yield _WRITE, "DataActions", "KeyVault/vaults/secrets", writes


def _dns(_spec: ZoneSpec, _settings: AzureSettings) -> Iterator[_Grant]:
    zones, kinds = "Network/dnsZones", ("A", "AAAA", "CAA", "CNAME", "MX", "NS", "PTR", "SOA", "SRV", "TXT")
    yield _READ | _PLAN, "Actions", zones, "read"
    yield _READ, "Actions", zones, f"recordsets/read {' '.join(f'{kind}/read' for kind in kinds)}"
    yield _WRITE, "Actions", zones, " ".join(f"{kind}/write" for kind in kinds)
    yield _WRITE, "Actions", zones, " ".join(f"{kind}/delete" for kind in kinds if kind != "SOA")
    yield _APPLY, "Actions", zones, "delete recordsets/read write"
    yield _APPLY, "Actions", "Network", "dnsOperationResults/read dnsOperationStatuses/read"


def _database(spec: DatabaseSpec, _settings: AzureSettings) -> Iterator[_Grant]:
    engine, backups = _DATABASES.get(spec.engine, _DATABASES["mysql"])
    servers = f"{engine}/flexibleServers"
    yield _READ | _PLAN, "Actions", servers, "configurations/read read"
    for other, _ in _DATABASES.values():  # a name alone does not say which it is
        yield _APPLY, "Actions", f"{other}/flexibleServers", "read"
    yield _PLAN, "Actions", servers, f"{backups}/read databases/read firewallRules/read"
    yield _PLAN, "Actions", engine, "locations/*/read"
    yield _PLAN, "Actions", "Authorization", "locks/read"
    yield _APPLY, "Actions", engine, "checkNameAvailability/action"
    makes = (
        f"{backups}/write configurations/write databases/write delete firewallRules/delete firewallRules/write write"
    )
    yield _APPLY, "Actions", servers, f"{makes} restart/action start/action stop/action"
    if engine == "DBforPostgreSQL":
        yield _APPLY, "Actions", servers, f"{backups}/delete"
    if spec.deletion_protection:
        yield _APPLY, "Actions", "Authorization", "locks/delete locks/write"
    if spec.token_login:
        yield _PLAN, "Actions", servers, "administrators/read"
        yield _APPLY, "Actions", servers, "administrators/write"
    if not spec.public:
        yield _APPLY, "Actions", "Network", "privateDnsZones/join/action virtualNetworks/subnets/join/action"


def _all(kinds: str, actions: str) -> str:
    return " ".join(f"{kind}/{action}" for kind in kinds.split() for action in actions.split())


def _compute(spec: FleetSpec, _settings: AzureSettings) -> Iterator[_Grant]:
    around = "networkInterfaces networkSecurityGroups publicIPAddresses"
    yield _READ | _PLAN, "Actions", "Compute", "virtualMachines/read"
    yield _PLAN, "Actions", "Network", _all(around, "read")
    yield _READ, "Actions", "Network", "networkInterfaces/read networkSecurityGroups/read"  # the one tells the other
    if spec.public_ip:
        yield _READ, "Actions", "Network", "publicIPAddresses/read"
    yield _READ, "Actions", "Compute/virtualMachines", "retrieveBootDiagnosticsData/action"
    yield _WRITE, "Actions", "Compute/virtualMachines", _all("deallocate restart start", "action")
    kept = (
        "availabilitySets disks galleries galleries/images galleries/images/versions proximityPlacementGroups snapshots"
    )
    yield _PLAN, "Actions", "Compute", f"{_all(kept, 'read')} skus/read"
    yield _PLAN, "Actions", "Compute/locations/publishers/artifacttypes/offers/skus", "versions/read"
    yield _PLAN, "Actions", "Network", "virtualNetworks/read"
    yield _PLAN, "Actions", "Features", "providers/features/read"
    yield _APPLY, "Actions", "Compute", f"{_all(kept, 'delete write')} {_all('virtualMachines', 'delete write')}"
    yield _APPLY, "Actions", "Compute/virtualMachines", _all("attachDetachDataDisks deallocate restart start", "action")
    yield _APPLY, "Actions", "Compute/disks", "beginGetAccess/action endGetAccess/action"
    yield _APPLY, "Actions", "Network", _all(around, "delete join/action write")
    yield _APPLY, "Actions", "Network/virtualNetworks", "delete subnets/join/action write"
    yield _APPLY, "Actions", "Network", "locations/operations/read"
    if spec.identity is not None:
        yield _APPLY, "Actions", "ManagedIdentity/userAssignedIdentities", "assign/action"


_GRANTS: Mapping[str, Callable[[Any, AzureSettings], Iterator[_Grant]]] = {
    "blob": _blob,
    "secrets": _secrets,
    "dns": _dns,
    "database": _database,
    "compute": _compute,
}

"""What RDS tells of servers and snapshots, in our words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from shiftable.database.driver import ENGINES, DatabaseState, Engine, Snapshot
from shiftable_aws import _rds_storage
from shiftable_aws._rds_groups import failure
from shiftable_aws._rds_settings import RdsSettings

__all__ = [
    "NAMES",
    "NATIVE",
    "PORTS",
    "STATUSES",
    "engine_of",
    "parameter_group_of",
    "pending_of",
    "settings_of",
    "snapshot_of",
    "state_of",
    "utc",
]

# All statuses of the RDS user guide, "Viewing Amazon RDS DB instance status". A server that is backed up can be used
# but not changed; one whose storage is still optimized or filled can be both.
STATUSES: Mapping[str, DatabaseState] = {
    "available": "available",
    "backing-up": "updating",
    "configuring-enhanced-monitoring": "updating",
    "configuring-iam-database-auth": "updating",
    "configuring-log-exports": "updating",
    "converting-to-vpc": "updating",
    "creating": "creating",
    "delete-precheck": "deleting",
    "deleting": "deleting",
    "failed": "failed",
    "inaccessible-encryption-credentials": "failed",
    "inaccessible-encryption-credentials-recoverable": "failed",
    "incompatible-create": "failed",
    "incompatible-network": "failed",
    "incompatible-option-group": "failed",
    "incompatible-parameters": "failed",
    "incompatible-restore": "failed",
    "insufficient-capacity": "failed",
    "maintenance": "updating",
    "modifying": "updating",
    "moving-to-vpc": "updating",
    "rebooting": "updating",
    "renaming": "updating",
    "resetting-master-credentials": "updating",
    "restore-error": "failed",
    "starting": "starting",
    "stopped": "stopped",
    "stopping": "stopping",
    "storage-config-upgrade": "updating",
    "storage-full": "failed",
    "storage-initialization": "available",
    "storage-optimization": "available",
    "upgrading": "updating",
}
_SNAPSHOT_STATUSES: Mapping[str, DatabaseState] = {
    "available": "available",
    "creating": "creating",
    "copying": "creating",
    "deleting": "deleting",
    "failed": "failed",
}

NATIVE: Mapping[Engine, str] = {"postgresql": "postgres", "mysql": "mysql", "mariadb": "mariadb"}
NAMES: Mapping[str, Engine] = {native: engine for engine, native in NATIVE.items()}
PORTS: Mapping[Engine, int] = {"postgresql": 5432, "mysql": 3306, "mariadb": 3306}


def engine_of(found: Any) -> Engine:  # noqa: ANN401
    """Return the engine of a server or snapshot."""
    engine = NAMES.get(found["Engine"])
    if engine is None:
        raise failure("InvalidParameterValue", f"it runs {found['Engine']}, which is none of {', '.join(ENGINES)}")
    return engine


def state_of(found: Any) -> DatabaseState:  # noqa: ANN401
    """Return the state of a server."""
    state = STATUSES.get(found["DBInstanceStatus"], "unknown")
    return "updating" if state == "available" and any(pending_of(found)) else state


def pending_of(found: Any) -> Iterator[str]:  # noqa: ANN401
    """Name what RDS has still to carry out."""
    yield from (
        name for name, value in (found.get("PendingModifiedValues") or {}).items() if value not in (None, [], {})
    )
    groups = (*found.get("DBParameterGroups", ()), *found.get("VpcSecurityGroups", ()))
    for group in groups:
        status = group.get("ParameterApplyStatus") or group.get("Status")
        if status in {"applying", "adding", "removing"}:
            yield group.get("DBParameterGroupName") or group["VpcSecurityGroupId"]


def parameter_group_of(found: Any) -> str:  # noqa: ANN401
    """Return the name of a server's parameter group."""
    return str(found["DBParameterGroups"][0]["DBParameterGroupName"])


def settings_of(found: Any, engine: Engine, firewall: str | None) -> RdsSettings:  # noqa: ANN401
    """Return what a server was made with, so that a restored one is made with it too."""
    kind, storage = found.get("StorageType"), found["AllocatedStorage"]
    chosen = kind in {"io1", "io2"} or (kind == "gp3" and storage >= _rds_storage.STRIPED_GIB)
    most = found.get("MaxAllocatedStorage", 0)
    port = found.get("Endpoint", {}).get("Port")
    groups = [group["VpcSecurityGroupId"] for group in found.get("VpcSecurityGroups", ())]
    return RdsSettings(
        storage_type=kind if kind in {"gp2", "gp3", "io1", "io2"} else "gp3",
        iops=found.get("Iops") if chosen else None,
        throughput=(found.get("StorageThroughput") or None) if chosen and kind == "gp3" else None,
        max_storage_gib=most if storage < most < _rds_storage.MAX_GIB else None,
        subnet_group=(found.get("DBSubnetGroup") or {}).get("DBSubnetGroupName"),
        security_groups=tuple(group for group in groups if group != firewall),
        port=port if port != PORTS[engine] else None,
        ca_certificate=found.get("CACertificateIdentifier"),
        backup_window=found.get("PreferredBackupWindow"),
        maintenance_window=found.get("PreferredMaintenanceWindow"),
        auto_minor_upgrades=found.get("AutoMinorVersionUpgrade", True),
    )


def snapshot_of(found: Any) -> Snapshot:  # noqa: ANN401
    """Return a snapshot."""
    return Snapshot(
        name=found["DBSnapshotIdentifier"],
        database=found["DBInstanceIdentifier"],
        state=_SNAPSHOT_STATUSES.get(found["Status"], "unknown"),
        engine=engine_of(found),
        version=found["EngineVersion"],
        created=utc(found.get("SnapshotCreateTime")),
        storage_gib=found["AllocatedStorage"],
        automatic=found["SnapshotType"] != "manual",
    )


def utc(moment: datetime | None) -> datetime | None:
    """Return a time in UTC."""
    return None if moment is None else moment.astimezone(UTC)

"""Declarations of databases in the words of the Cloud SQL Admin API, and back."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from shiftable.database.driver import (
    GIB,
    DatabaseInfo,
    DatabaseSpec,
    DatabaseState,
    Engine,
    Server,
    ServerSize,
    Snapshot,
)
from shiftable_gcp import GcpDatabaseSettings
from shiftable_gcp._sql_ca import keep

__all__ = [
    "ADMIN",
    "BUSY",
    "DONE",
    "SETUP",
    "VERSIONS",
    "changed_settings",
    "engine_of",
    "impossible_labels",
    "info_of",
    "is_hidden",
    "native_of",
    "own_engine",
    "settings_of",
    "snapshot_of",
    "spec_of",
    "state_of",
    "version_of",
]

Json = Mapping[str, Any]

VERSIONS: tuple[tuple[Engine, str], ...] = (
    *(("postgresql", version) for version in ("9.6", *map(str, range(10, 19)))),
    *(("mysql", version) for version in ("5.7", "8.0", "8.4")),
)
"""What Cloud SQL offers (instance settings, database version, November 2026)."""

ADMIN = "shiftable-admin"
"""The label that names the administrator: Cloud SQL itself does not tell one user from another."""

SETUP = "shiftable-setup"
"""The label that says whether users, databases and restored data are in place: a mark of who sees to it, or done."""

DONE = "done"

_OURS = {ADMIN, SETUP}
_PREFIX: Mapping[Engine, str] = {"postgresql": "POSTGRES", "mysql": "MYSQL"}
_FIRST_ADMIN: Mapping[Engine, str] = {"postgresql": "postgres", "mysql": "root"}
_PORT: Mapping[Engine, int] = {"postgresql": 5432, "mysql": 3306}
_TOKEN_FLAG: Mapping[Engine, str] = {
    "postgresql": "cloudsql.iam_authentication",
    "mysql": "cloudsql_iam_authentication",
}
_HIDDEN = {"postgres", "template0", "template1", "cloudsqladmin"}
_HIDDEN_MYSQL = {"mysql", "sys", "information_schema", "performance_schema"}
_EDITION = {"enterprise": "ENTERPRISE", "enterprise-plus": "ENTERPRISE_PLUS"}
_MOST_LOG_DAYS = {"ENTERPRISE": 7, "ENTERPRISE_PLUS": 35}
_LABEL_KEY, _LABEL_VALUE = re.compile(r"[a-z][a-z0-9_-]{0,62}"), re.compile(r"[a-z0-9_-]{0,63}")

_STATES: Mapping[str, DatabaseState] = {
    "PENDING_CREATE": "creating",
    "PENDING_DELETE": "deleting",
    "RUNNABLE": "available",
    "ONLINE_MAINTENANCE": "available",
    "MAINTENANCE": "updating",
    "REPAIRING": "updating",
    "FAILED": "failed",
}

BUSY: Mapping[str, DatabaseState] = {
    "CREATE": "creating",
    "CLONE": "creating",
    "CREATE_CLONE": "creating",
    "DELETE": "deleting",
    "UPDATE": "updating",
    "RESTART": "updating",
    "AUTO_RESTART": "updating",
    "RESTORE_VOLUME": "updating",
    "RECREATE_REPLICA": "updating",
    "FAILOVER": "updating",
    "SWITCHOVER": "updating",
    "MAINTENANCE": "updating",
    "SELF_SERVICE_MAINTENANCE": "updating",
    "MAJOR_VERSION_UPGRADE": "updating",
    "REENCRYPT": "updating",
    "ENABLE_PRIVATE_IP": "updating",
}
"""What an instance is while such an operation is carried out on it. Backups, users and databases do not show."""

_SNAPSHOT_STATES: Mapping[str, DatabaseState] = {
    "ENQUEUED": "creating",
    "RUNNING": "creating",
    "SUCCESSFUL": "available",
    "FAILED": "failed",
    "DELETING": "deleting",
}


def native_of(spec: DatabaseSpec) -> GcpDatabaseSettings:
    """Return what ``[database.x.gcp]`` says."""
    return spec.native if isinstance(spec.native, GcpDatabaseSettings) else GcpDatabaseSettings()


# engines and versions


def engine_of(database_version: str) -> Engine | None:
    """Return the engine; ``None``: it is none of ours, SQL Server."""
    name = database_version.partition("_")[0]
    return next((engine for engine, prefix in _PREFIX.items() if prefix == name), None)


def own_engine(instance: Json) -> Engine:
    """Return the engine of an instance that is known to have one of ours."""
    engine = engine_of(instance["databaseVersion"])
    if engine is None:
        raise ValueError(f"{instance['databaseVersion']} is neither PostgreSQL nor MySQL")
    return engine


def _numbers(database_version: str) -> str:
    """Return ``16`` of ``POSTGRES_16``, ``8.0.36`` of ``MYSQL_8_0_36``."""
    return ".".join(part for part in database_version.split("_")[1:] if part.isdigit())


def version_of(spec: DatabaseSpec) -> str:
    """Return ``POSTGRES_16``: the newest version that Cloud SQL offers within what is declared, or around it."""
    held = [
        version
        for engine, version in VERSIONS
        if engine == spec.engine and (_is_within(version, spec.version) or _is_within(spec.version, version))
    ]
    exact = spec.engine == "mysql" and spec.version.count(".") > 1  # MySQL alone has its updates as versions
    chosen = spec.version if exact or not held else held[-1]
    return "_".join((_PREFIX[spec.engine], *chosen.split(".")))


def _is_within(version: str, wider: str) -> bool:
    return f"{version}.".startswith(f"{wider}.")


# what is declared


def impossible_labels(spec: DatabaseSpec) -> Iterator[str]:
    """Say what is no label of Google's."""
    for key, value in spec.labels.items():
        if key in _OURS:
            yield f"labels named {key}, which is reserved"
        elif not (_LABEL_KEY.fullmatch(key) and _LABEL_VALUE.fullmatch(value)):
            yield f"labels as {key} = {value}: lower-case letters, digits, _ and - only, 63 at most"
    if not _LABEL_VALUE.fullmatch(spec.admin) or not spec.admin:
        yield f"administrators named {spec.admin}: lower-case letters, digits, _ and - only, 63 at most"


def settings_of(spec: DatabaseSpec, tier: str, project: str, *, edition: str | None = None) -> dict[str, Any]:
    """Return the settings of a new instance.

    Args:
        edition: of an instance that exists.
    """
    native = native_of(spec)
    edition = edition or _EDITION[native.edition]
    flags = [{"name": name, "value": value} for name, value in sorted(spec.parameters.items())]
    if spec.token_login:
        flags.append({"name": _TOKEN_FLAG[spec.engine], "value": "on"})
    address: dict[str, Any] = {
        "ipv4Enabled": spec.public,
        "authorizedNetworks": [{"kind": "sql#aclEntry", "value": network} for network in spec.allow_from],
        "sslMode": "ENCRYPTED_ONLY" if spec.tls == "required" else "ALLOW_UNENCRYPTED_AND_ENCRYPTED",
        "serverCaMode": "GOOGLE_MANAGED_CAS_CA" if native.server_ca == "shared" else "GOOGLE_MANAGED_INTERNAL_CA",
    }
    network = native.network or (None if spec.public else "default")
    if network is not None:
        plain = f"projects/{project}/global/networks/{network}"
        address["privateNetwork"] = network if "/" in network else plain
    settings: dict[str, Any] = {
        "tier": tier,
        "edition": edition,
        "activationPolicy": "ALWAYS",
        "availabilityType": "REGIONAL" if spec.high_availability else "ZONAL",
        "dataDiskSizeGb": str(spec.storage_gib),
        "dataDiskType": f"PD_{native.disk.upper()}",
        "storageAutoResize": spec.storage_autogrow,
        "deletionProtectionEnabled": spec.deletion_protection,
        "retainBackupsOnDelete": True,
        "backupConfiguration": _backups(spec, edition),
        "ipConfiguration": address,
        "databaseFlags": flags,
        "userLabels": {**spec.labels, ADMIN: spec.admin},
    }
    if native.zone:
        settings["locationPreference"] = {"zone": native.zone}
    return settings


def _backups(spec: DatabaseSpec, edition: str) -> dict[str, Any]:
    recovery = "binaryLogEnabled" if spec.engine == "mysql" else "pointInTimeRecoveryEnabled"
    if not spec.backup_days:
        return {"enabled": False, recovery: False}
    return {
        "enabled": True,
        recovery: True,
        "transactionLogRetentionDays": min(spec.backup_days, _MOST_LOG_DAYS[edition]),
        "backupRetentionSettings": {"retainedBackups": spec.backup_days, "retentionUnit": "COUNT"},
    }


def recovers(instance: Json) -> bool:
    """Tell whether an instance keeps a log by which any time can be recovered."""
    backups = instance["settings"].get("backupConfiguration", {})
    return bool(backups.get("pointInTimeRecoveryEnabled") or backups.get("binaryLogEnabled"))


_ONCE = {"activationPolicy", "dataDiskType", "edition", "locationPreference", "retainBackupsOnDelete", "userLabels"}


def changed_settings(
    instance: Json, current: DatabaseSpec, spec: DatabaseSpec, tier: str, project: str
) -> dict[str, Any]:
    """Return what of an instance's settings has to change; what is said once, when it is made, does not."""
    edition = str(instance["settings"].get("edition") or "ENTERPRISE")
    same = str(instance["settings"]["tier"])
    before = settings_of(current, same, project, edition=edition)
    after = settings_of(spec, tier, project, edition=edition)
    changed = {name: value for name, value in after.items() if name not in _ONCE and value != before[name]}
    if "ipConfiguration" in changed:
        address = changed["ipConfiguration"]
        address.pop("serverCaMode")
        if instance["settings"].get("ipConfiguration", {}).get("privateNetwork"):
            address.pop("privateNetwork", None)  # it stays: Cloud SQL does not take it away
    if "databaseFlags" in changed:
        own = set(_TOKEN_FLAG.values())
        kept = {flag["name"]: flag for flag in instance["settings"].get("databaseFlags", ()) if flag["name"] not in own}
        changed["databaseFlags"] = list((kept | {flag["name"]: flag for flag in changed["databaseFlags"]}).values())
    labels = dict(instance["settings"].get("userLabels", {}))
    if spec.labels.items() - labels.items():
        changed["userLabels"] = labels | dict(spec.labels)
    return changed


# what there is


def is_hidden(engine: Engine, database: str) -> bool:
    """Tell whether a database is the engine's or Google's own."""
    return database in (_HIDDEN_MYSQL if engine == "mysql" else _HIDDEN)


def spec_of(instance: Json, size: ServerSize, databases: tuple[str, ...]) -> DatabaseSpec:
    """Return an instance as a declaration would say it."""
    settings, engine = instance["settings"], own_engine(instance)
    backups, address = settings.get("backupConfiguration", {}), settings.get("ipConfiguration", {})
    flags = {flag["name"]: flag.get("value", "") for flag in settings.get("databaseFlags", ())}
    login = flags.pop(_TOKEN_FLAG[engine], "off")
    labels = settings.get("userLabels", {})
    kept = backups.get("backupRetentionSettings", {}).get("retainedBackups", 7)
    return DatabaseSpec(
        name=instance["name"],
        engine=engine,
        version=_numbers(instance["databaseVersion"]),
        cpus=size.cpus,
        memory_gib=max(1, size.memory // GIB),
        storage_gib=int(settings.get("dataDiskSizeGb", 10)),
        storage_autogrow=bool(settings.get("storageAutoResize", True)),
        high_availability=settings.get("availabilityType") == "REGIONAL",
        backup_days=kept if backups.get("enabled") else 0,
        deletion_protection=bool(settings.get("deletionProtectionEnabled", False)),
        public=bool(address.get("ipv4Enabled", False)),
        allow_from=tuple(entry["value"] for entry in address.get("authorizedNetworks", ())),
        tls="optional" if address.get("sslMode", "ALLOW").startswith("ALLOW") else "required",
        databases=databases,
        parameters=flags,
        labels={key: value for key, value in labels.items() if key not in _OURS},
        admin=_admin(instance, engine),
        token_login=login == "on",
    )


def _admin(instance: Json, engine: Engine) -> str:
    return str(instance["settings"].get("userLabels", {}).get(ADMIN) or _FIRST_ADMIN[engine])


def state_of(instance: Json) -> DatabaseState:
    """Return what an instance is when nothing is done to it. A stopped one is RUNNABLE, too."""
    found = _STATES.get(instance.get("state", ""), "unknown")
    stopped = instance.get("settings", {}).get("activationPolicy") == "NEVER"
    return "stopped" if found == "available" and stopped else found


def info_of(instance: Json, doing: DatabaseState | None, error: str = "") -> DatabaseInfo:
    """Return what is told of an instance.

    Args:
        doing: what is being done to it, if anything.
        error: why it failed.
    """
    engine = own_engine(instance)
    state, raw = state_of(instance), str(instance.get("state", ""))
    if doing is not None and state in {"available", "stopped"}:
        raw = f"{raw}, {doing}"
        state = doing
    elif state == "stopped":
        raw = f"{raw}, activationPolicy NEVER"
    elif error:
        raw = f"{raw}, {error}"
    created = instance.get("createTime")
    return DatabaseInfo(
        name=instance["name"],
        state=state,
        raw_state=raw,
        engine=engine,
        version=_numbers(instance.get("databaseInstalledVersion") or instance["databaseVersion"]),
        size=instance["settings"].get("tier"),
        server=_server(instance, engine),
        created=datetime.fromisoformat(created) if created else None,
        id=instance.get("connectionName"),
    )


def _server(instance: Json, engine: Engine) -> Server | None:
    """Return where an instance listens, and what proves that it is this one.

    Google makes a CA for each instance alone, unless a shared one was chosen. Such a certificate bears no host name,
    only the instance's; and need not: what this CA signed is this instance. A shared CA signs for a whole region, so
    there the name is checked, which is the instance's DNS name then.
    """
    found = {each["type"]: each["ipAddress"] for each in instance.get("ipAddresses", ()) if each.get("ipAddress")}
    public = instance["settings"].get("ipConfiguration", {}).get("ipv4Enabled", False)
    host = found.get("PRIMARY" if public else "PRIVATE") or found.get("PRIMARY") or found.get("PRIVATE")
    if host is None:
        return None
    mode = instance["settings"].get("ipConfiguration", {}).get("serverCaMode", "GOOGLE_MANAGED_INTERNAL_CA")
    alone = mode in {"GOOGLE_MANAGED_INTERNAL_CA", "CA_MODE_UNSPECIFIED"}
    certificate = instance.get("serverCaCert", {}).get("cert")
    name = str(instance.get("dnsName") or host).removesuffix(".")
    return Server(
        host=host if alone else name,
        port=_PORT[engine],
        admin=_admin(instance, engine),
        ca=keep(certificate) if certificate else None,
        tls=True,
        check_name=not (alone and certificate),
    )


def snapshot_of(backup: Json) -> Snapshot | None:
    """Return a backup as a snapshot; ``None``: it is on its way out, or of SQL Server."""
    engine = engine_of(str(backup.get("databaseVersion", "")))
    state = _SNAPSHOT_STATES.get(str(backup.get("state")), "unknown")
    if engine is None or state == "deleting":
        return None
    started = backup.get("backupInterval", {}).get("startTime")
    storage = backup.get("instanceSettings", {}).get("settings", {}).get("dataDiskSizeGb")
    return Snapshot(
        name=backup.get("description") or str(backup["name"]).rpartition("/")[2],
        database=str(backup["instance"]),
        state=state,
        engine=engine,
        version=_numbers(backup["databaseVersion"]),
        created=datetime.fromisoformat(started) if started else None,
        storage_gib=int(storage) if storage else None,
        automatic=backup.get("type") == "AUTOMATED",
    )

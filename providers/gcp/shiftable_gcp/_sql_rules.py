"""What Cloud SQL accepts, as the double enforces it: names, machine types, editions, backups, networks, flags."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from ipaddress import ip_network
from typing import Any

from shiftable_gcp._state import Refused

__all__ = ["TIERS", "VERSIONS", "absent", "check_instance", "check_name", "defaults", "exists", "flag_rows", "invalid"]

Json = Mapping[str, Any]

VERSIONS = (
    *(f"POSTGRES_{version}" for version in ("9_6", *range(10, 19))),
    *(f"MYSQL_{version}" for version in ("5_7", "8_0", "8_0_36", "8_4")),
)

_GIB = 2**30
TIERS: Mapping[str, int] = {  # bytes of memory
    "db-f1-micro": 644_245_094,
    "db-g1-small": 1_825_361_100,
    **{f"db-perf-optimized-N-{cpus}": cpus * 8 * _GIB for cpus in (2, 4, 8, 16, 32, 48, 64, 80, 96, 128)},
    **{f"db-n1-standard-{cpus}": cpus * 4_026_531_840 for cpus in (1, 2, 4, 8, 16, 32, 64, 96)},
}

Flag = tuple[str, str, int | None, int | None]
FLAGS: Mapping[str, Mapping[str, Flag]] = {  # by engine and name: type, an allowed value, smallest, largest
    "POSTGRES": {
        "cloudsql.iam_authentication": ("BOOLEAN", "on", None, None),
        "cloudsql.logical_decoding": ("BOOLEAN", "on", None, None),
        "log_min_duration_statement": ("INTEGER", "1000", -1, 2_147_483_647),
        "max_connections": ("INTEGER", "100", 14, 262_143),
        "random_page_cost": ("FLOAT", "1.1", None, None),
        "work_mem": ("INTEGER", "8192", 64, 2_147_483_647),
    },
    "MYSQL": {
        "cloudsql_iam_authentication": ("BOOLEAN", "on", None, None),
        "long_query_time": ("FLOAT", "1", None, None),
        "max_connections": ("INTEGER", "100", 1, 100_000),
        "slow_query_log": ("BOOLEAN", "on", None, None),
        "sql_mode": ("STRING", "ANSI", None, None),
    },
}
_RESTART = {"max_connections", "cloudsql.logical_decoding"}

_NAME = re.compile(r"[a-z](?:[a-z0-9-]*[a-z0-9])?")
_CUSTOM = re.compile(r"db-custom-([1-9]\d*)-([1-9]\d*)")
_LABEL_KEY, _LABEL_VALUE = re.compile(r"[a-z][a-z0-9_-]{0,62}"), re.compile(r"[a-z0-9_-]{0,63}")
_PLUS = "ENTERPRISE_PLUS"


def invalid(why: str) -> Refused:
    """Refuse as Cloud SQL refuses most."""
    return Refused(400, "invalid", "", f"Invalid request: {why}.")


def exists(what: str) -> Refused:
    """Refuse a name that is taken."""
    if what == "instance":
        message = (
            "The Cloud SQL instance already exists. When you delete an instance, you can't reuse the name of the"
            " deleted instance until one week from the deletion date."
        )
        return Refused(409, "instanceAlreadyExists", "", message)
    return Refused(409, f"{what}AlreadyExists", "", f"The {what} already exists.")


def absent(what: str) -> Refused:
    """Say that something is not there."""
    return Refused(404, f"{what}DoesNotExist", "", f"The Cloud SQL {what} does not exist.")


def check_name(project: str, name: object) -> str:
    """Return the name of a new instance."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise invalid(
            f"Instance name ({name}) must be lower-case letters, numbers and hyphens, and start with a letter"
        )
    if len(f"{project}:{name}") > 98:
        raise invalid(f"Instance name ({name}) is too long: project and instance have 98 characters at most")
    return name


def defaults(version: str, edition: str | None = None) -> dict[str, Any]:
    """Return the settings of an instance of which nothing is said but the edition."""
    major = version.split("_")
    newer = major[0] == "POSTGRES" and int(major[1]) >= 16  # Cloud SQL, editions: the default from PostgreSQL 16 on
    plus = edition == _PLUS if edition else newer
    return {
        "kind": "sql#settings",
        "activationPolicy": "ALWAYS",
        "availabilityType": "ZONAL",
        "connectorEnforcement": "NOT_REQUIRED",
        "dataDiskSizeGb": "10",
        "dataDiskType": "PD_SSD",
        "deletionProtectionEnabled": False,
        "edition": _PLUS if plus else "ENTERPRISE",
        "pricingPlan": "PER_USE",
        "replicationType": "SYNCHRONOUS",
        "storageAutoResize": True,
        "storageAutoResizeLimit": "0",
        "backupConfiguration": {
            "kind": "sql#backupConfiguration",
            "enabled": False,
            "startTime": "12:00",
            "transactionLogRetentionDays": 14 if plus else 7,
            "backupRetentionSettings": {"retainedBackups": 15 if plus else 7, "retentionUnit": "COUNT"},
        },
        "ipConfiguration": {
            "authorizedNetworks": [],
            "ipv4Enabled": True,
            "requireSsl": False,
            "sslMode": "ALLOW_UNENCRYPTED_AND_ENCRYPTED",
            "serverCaMode": "GOOGLE_MANAGED_INTERNAL_CA",
        },
    }


def check_instance(version: str, settings: Json, networks: Collection[str]) -> None:
    """Refuse what cannot be.

    Args:
        networks: those that have private services access.
    """
    for why in _problems(version, settings, networks):
        raise invalid(why)


def _problems(version: str, settings: Json, networks: Collection[str]) -> Iterator[str]:
    if version not in VERSIONS:
        yield f"Unknown database version {version}"
    engine, edition = version.partition("_")[0], settings["edition"]
    yield from _tier_problems(engine, edition, settings.get("tier"))
    size = int(settings["dataDiskSizeGb"])
    if not 10 <= size <= 65_536:
        yield f"The disk size {size} GB is not between 10 and 65536"
    yield from _backup_problems(engine, edition, settings)
    yield from _network_problems(settings["ipConfiguration"], networks)
    for flag in settings.get("databaseFlags", ()):
        yield from _flag_problems(engine, flag)
    for key, value in settings.get("userLabels", {}).items():
        if not (_LABEL_KEY.fullmatch(key) and _LABEL_VALUE.fullmatch(value)):
            yield f"The label {key}={value} is invalid"


def _tier_problems(engine: str, edition: str, tier: str | None) -> Iterator[str]:
    if tier is None:
        yield "Missing parameter: Tier"
        return
    custom = _CUSTOM.fullmatch(tier)
    if custom is None and tier not in TIERS:
        yield f"Invalid Tier ({tier})"
    elif edition == _PLUS and not tier.startswith("db-perf-optimized-"):
        yield f"Invalid Tier ({tier}) for ({edition}) Edition. Use a predefined Tier like db-perf-optimized-N-* instead"
    elif edition != _PLUS and tier.startswith("db-perf-optimized-"):
        yield f"Invalid Tier ({tier}) for ({edition}) Edition"
    elif engine == "POSTGRES" and tier.startswith("db-n1-"):
        yield "Only custom or shared-core instance Billing Tier type allowed for PostgreSQL database"
    elif custom is not None:
        cpus, memory = int(custom[1]), int(custom[2])
        odd = cpus > 1 and cpus % 2 == 1
        per_cpu = memory / 1024 / cpus
        if odd or cpus > 96 or memory % 256 or memory < 3840 or per_cpu < 0.9 or per_cpu > 6.5:
            yield f"Invalid custom machine type {tier}"


def _backup_problems(engine: str, edition: str, settings: Json) -> Iterator[str]:
    backups = settings["backupConfiguration"]
    if engine == "POSTGRES" and backups.get("binaryLogEnabled"):
        yield "Binary log is not supported for PostgreSQL"
    if engine == "MYSQL" and backups.get("pointInTimeRecoveryEnabled"):
        yield "Point in time recovery of MySQL is enabled by its binary log"
    recovery = backups.get("binaryLogEnabled") or backups.get("pointInTimeRecoveryEnabled")
    if recovery and not backups.get("enabled"):
        yield "Point in time recovery and binary logs need backups to be enabled"
    if settings["availabilityType"] == "REGIONAL" and not (backups.get("enabled") and recovery):
        yield "Regional instances need backups and point in time recovery (binary logs) to be enabled"
    days, most = backups.get("transactionLogRetentionDays", 7), 35 if edition == _PLUS else 7
    if not 1 <= days <= most:
        yield f"The number of transaction log retention days must be between 1 and {most}"
    kept = backups["backupRetentionSettings"]["retainedBackups"]
    if not 1 <= kept <= 365:
        yield "The number of retained backups must be between 1 and 365"
    if backups.get("enabled") and recovery and days > kept:
        yield "There must be as many retained backups as days of transaction logs"


def _network_problems(address: Json, networks: Collection[str]) -> Iterator[str]:
    private = address.get("privateNetwork")
    if not address.get("ipv4Enabled") and not private:
        yield "At least one of Public IP or Private IP or PSC connectivity must be enabled"
    if private and private.rpartition("/")[2] not in networks:
        yield f"Incorrect Service Networking config for instance: {private}:SERVICE_NETWORKING_NOT_ENABLED"
    for entry in address.get("authorizedNetworks", ()):
        try:
            ip_network(entry["value"])
        except ValueError:
            yield f"The network {entry['value']} is not in CIDR notation"


def _flag_problems(engine: str, flag: Json) -> Iterator[str]:
    known = FLAGS[engine].get(flag["name"])
    if known is None:
        yield f"Flag {flag['name']} is not supported"
        return
    kind, _, least, most = known
    value = flag.get("value", "")
    good = {
        "BOOLEAN": lambda: value in {"on", "off"},
        "INTEGER": lambda: bool(re.fullmatch(r"-?\d+", value)) and (least or 0) <= int(value) <= (most or 0),
        "FLOAT": lambda: bool(re.fullmatch(r"\d+(\.\d+)?", value)),
        "STRING": lambda: bool(value),
    }[kind]
    if not good():
        yield f"The value {value} is not valid for the flag {flag['name']}"


def flag_rows(version: str | None) -> Iterator[dict[str, Any]]:
    """Return the flags as the API tells them."""
    for engine, flags in FLAGS.items():
        versions = [each for each in VERSIONS if each.startswith(engine)]
        if version is not None and version not in versions:
            continue
        for name, (kind, example, least, most) in flags.items():
            row: dict[str, Any] = {
                "kind": "sql#flag",
                "name": name,
                "type": kind,
                "appliesTo": versions,
                "requiresRestart": name in _RESTART,
                "flagScope": "SQL_FLAG_SCOPE_DATABASE",
            }
            if kind == "STRING":
                row["allowedStringValues"] = [example]
            if least is not None:
                row |= {"minValue": str(least), "maxValue": str(most)}
            yield row

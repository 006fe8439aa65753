"""What Amazon RDS has and what it refuses: engines, parameters, classes, storage, names and passwords.

Numbers and texts are those of the API reference and the user guide; the versions are some of those of 2026-11.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

import attrs

from shiftable_aws import _rds_classes
from shiftable_aws._strict_refused import Refused

__all__ = [
    "FAMILIES",
    "MAX_BACKUP_DAYS",
    "PARAMETERS",
    "Kind",
    "check_admin",
    "check_class",
    "check_name",
    "check_password",
    "check_storage",
    "family_of",
    "grown",
    "options",
    "resolved",
    "versions",
]

Arguments = Mapping[str, Any]

FAMILIES: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "postgres": {
        "postgres13": ("13.22",),
        "postgres14": ("14.19",),
        "postgres15": ("15.13", "15.14"),
        "postgres16": ("16.4", "16.9", "16.10"),
        "postgres17": ("17.4", "17.6"),
        "postgres18": ("18.1",),
    },
    "mysql": {"mysql8.0": ("8.0.42", "8.0.43"), "mysql8.4": ("8.4.6", "8.4.7")},
    "mariadb": {
        "mariadb10.6": ("10.6.23",),
        "mariadb10.11": ("10.11.14",),
        "mariadb11.4": ("11.4.8",),
        "mariadb11.8": ("11.8.3",),
    },
}

MAX_BACKUP_DAYS = 35
_PROVISIONED = {"io1": 50, "io2": 1_000}  # most IOPS for one GiB
_STORAGE_TYPES = ("gp2", "gp3", "io1", "io2", "standard")
_RESERVED = {
    "postgres": {"admin", "rdsadmin", "rdsrepladmin", "rdstopmgr"},
    "mysql": {"rdsadmin", "rdsrepladmin"},
    "mariadb": {"rdsadmin", "rdsrepladmin"},
}
_LONGEST_PASSWORD = {"postgres": 128, "mysql": 41, "mariadb": 41}


@attrs.frozen
class Kind:
    """What is known of a parameter.

    Args:
        default: unless somebody sets it; ``None``: the engine's own.
        allowed: a pattern, if not anything goes.
    """

    is_static: bool
    default: str | None = None
    allowed: str | None = None


def _parameters(family: str) -> dict[str, Kind]:
    if family.startswith("postgres"):
        forced = "1" if int(family.removeprefix("postgres")) >= 15 else "0"
        return {
            "autovacuum": Kind(is_static=False, default="1", allowed="[01]"),
            "log_min_duration_statement": Kind(is_static=False, allowed=r"-?\d+"),
            "max_connections": Kind(is_static=True, default="LEAST({DBInstanceClassMemory/9531392},5000)"),
            "rds.force_ssl": Kind(is_static=False, default=forced, allowed="[01]"),
            "rds.logical_replication": Kind(is_static=True, default="0", allowed="[01]"),
            "shared_buffers": Kind(is_static=True, default="{DBInstanceClassMemory/32768}"),
            "shared_preload_libraries": Kind(is_static=True, default="pg_stat_statements"),
            "work_mem": Kind(is_static=False, allowed=r"\d+"),
        }
    forced = "1" if family in {"mysql8.4", "mariadb11.8"} else "0"
    return {
        "character_set_server": Kind(is_static=False),
        "innodb_buffer_pool_size": Kind(is_static=False, default="{DBInstanceClassMemory*3/4}"),
        "max_connections": Kind(is_static=False, default="{DBInstanceClassMemory/12582880}"),
        "performance_schema": Kind(is_static=True, default="0", allowed="[01]"),
        "require_secure_transport": Kind(is_static=False, default=forced, allowed="0|1|ON|OFF"),
    }


PARAMETERS: Mapping[str, Mapping[str, Kind]] = {
    family: _parameters(family) for families in FAMILIES.values() for family in families
}


def versions(engine: str) -> Iterator[tuple[str, str]]:
    """Yield each version of an engine and its family."""
    for family, names in FAMILIES.get(engine, {}).items():
        yield from ((name, family) for name in names)


def resolved(engine: str, version: str) -> str:
    """Return the version of a request: a whole one, or the newest of a major one."""
    fitting = [name for name, _ in versions(engine) if f"{name}.".startswith(f"{version}.")]
    if engine not in FAMILIES:
        raise Refused("InvalidParameterValue", "Invalid DB engine")
    if not fitting:
        raise Refused("InvalidParameterCombination", f"Cannot find version {version} for {engine}")
    return max(fitting, key=lambda name: [int(number) for number in name.split(".")])


def family_of(engine: str, version: str) -> str:
    """Return the family of the parameter groups of a version, also of one that is no longer offered."""
    major = version.rpartition(".")[0]
    return next(family for name, family in versions(engine) if name.startswith(f"{major}."))


def options(engine: str, version: str) -> Iterator[dict[str, Any]]:
    """Yield what DescribeOrderableDBInstanceOptions tells of a version."""
    for name in _rds_classes.classes().sizes:
        if not _has_class(engine, version, name):
            continue
        for kind in _STORAGE_TYPES:
            provisioned = kind in _PROVISIONED
            yield {
                "Engine": engine,
                "EngineVersion": version,
                "DBInstanceClass": name,
                "LicenseModel": "postgresql-license" if engine == "postgres" else "general-public-license",
                "AvailabilityZones": [{"Name": "eu-central-1a"}, {"Name": "eu-central-1b"}],
                "MultiAZCapable": True,
                "Vpc": True,
                "SupportsStorageEncryption": True,
                "StorageType": kind,
                "SupportsIops": provisioned,
                "MinStorageSize": 100 if provisioned else 20,
                "MaxStorageSize": 65_536,
                "SupportsIAMDatabaseAuthentication": True,
                "SupportsStorageAutoscaling": True,
            }


def _has_class(engine: str, version: str, name: str) -> bool:
    """Tell whether a version runs on a class: Graviton 4 came late."""
    major = int(version.partition(".")[0])
    return not re.match(r"db\.[mr]8g", name) or engine != "postgres" or major >= 15


def check_class(engine: str, version: str, name: str) -> None:
    """Refuse a class that there is not, or not for this version."""
    if name not in _rds_classes.classes().sizes:
        raise Refused("InvalidParameterValue", f"Invalid DB Instance class: {name}")
    if not _has_class(engine, version, name):
        text = "RDS does not support creating a DB instance with the following combination:"
        raise Refused(
            "InvalidParameterCombination", f"{text} DBInstanceClass={name}, Engine={engine}, EngineVersion={version}."
        )


def check_name(name: str, what: str, longest: int) -> None:
    """Refuse an identifier that is none."""
    if not re.fullmatch(r"[A-Za-z](-?[A-Za-z0-9])*", name) or len(name) > longest:
        text = (
            f"The parameter {what} is not a valid identifier. Identifiers must begin with a letter; must contain only"
            " ASCII letters, digits, and hyphens; and must not end with a hyphen or contain two consecutive hyphens."
        )
        raise Refused("InvalidParameterValue", text)


def check_password(engine: str, arguments: Arguments) -> None:
    """Refuse what cannot be the administrator's password."""
    password = arguments.get("MasterUserPassword")
    if arguments.get("ManageMasterUserPassword"):
        if password is not None:
            text = "You can't specify MasterUserPassword for an instance with ManageMasterUserPassword enabled."
            raise Refused("InvalidParameterCombination", text)
        return
    if not password:
        raise Refused(
            "InvalidParameterValue", "The parameter MasterUserPassword must be provided and must not be blank."
        )
    if not re.fullmatch(r"[!-~]+", password) or set(password) & set('/@"'):
        text = (
            "The parameter MasterUserPassword is not a valid password. Only printable ASCII characters besides"
            " '/', '@', '\"', ' ' may be used."
        )
        raise Refused("InvalidParameterValue", text)
    longest = _LONGEST_PASSWORD[engine]
    if not 8 <= len(password) <= longest:
        text = f"The parameter MasterUserPassword is not a valid password because it is not 8 to {longest} characters."
        raise Refused("InvalidParameterValue", text)


def check_admin(engine: str, name: str) -> None:
    """Refuse an administrator who cannot be."""
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,62}", name):
        raise Refused("InvalidParameterValue", "The parameter MasterUsername is not a valid name.")
    if name in _RESERVED[engine]:
        text = f"MasterUsername {name} cannot be used as it is a reserved word used by the engine"
        raise Refused("InvalidParameterValue", text)


def check_storage(engine: str, data: Arguments) -> None:
    """Refuse storage that a type does not take."""
    kind, gib = data.get("StorageType", "gp2"), data["AllocatedStorage"]
    if kind not in _STORAGE_TYPES:
        raise Refused("InvalidParameterValue", f"Invalid storage type: {kind}")
    if not (100 if kind in _PROVISIONED else 20) <= gib <= 65_536:
        text = f"Invalid storage size for engine name {engine} and storage type {kind}: {gib}"
        raise Refused("InvalidParameterValue", text)
    _check_iops(engine, kind, gib, data.get("Iops"))
    most = data.get("MaxAllocatedStorage")
    if most is not None and most != gib and most < math.ceil(gib * 110 / 100):
        text = "Max storage size must be at least 10 percent greater than storage size."
        raise Refused("InvalidParameterCombination", text)


def _check_iops(engine: str, kind: str, gib: int, iops: int | None) -> None:
    if kind in _PROVISIONED:
        if iops is None:
            raise Refused("InvalidParameterCombination", f"You must specify the iops parameter for {kind}.")
        if not 1_000 <= iops <= 256_000 or iops > gib * _PROVISIONED[kind]:
            text = f"The IOPS to GiB ratio must be between 0.5 and {_PROVISIONED[kind]}"
            raise Refused("InvalidParameterCombination", text)
    elif iops is not None and kind != "gp3":
        raise Refused("InvalidParameterCombination", f"You can't specify IOPS for storage type {kind}.")
    elif iops is not None and gib < 400:
        text = f"You can't specify IOPS or storage throughput for engine {engine} and a storage size less than 400."
        raise Refused("InvalidParameterCombination", text)
    elif iops is not None and not 12_000 <= iops <= 64_000:
        raise Refused("InvalidParameterCombination", "Invalid IOPS for gp3: 12000 to 64000")


def grown(current: int, wanted: int) -> int:
    """Return what storage becomes."""
    if wanted < current:
        text = f"Requested storage size ({wanted}) cannot be less than the current storage size ({current})"
        raise Refused("InvalidParameterCombination", text)
    return current if wanted == current else max(wanted, math.ceil(current * 110 / 100))

"""The flexible servers of Azure Database in Azure's words: two engines, their resources, and what these say in ours."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from ipaddress import IPv4Address, IPv4Network, ip_network, summarize_address_range
from typing import Any

import attrs

from shiftable.database.driver import DatabaseSpec, DatabaseState, Engine
from shiftable_azure._database_settings import AzureDatabaseSettings
from shiftable_azure.errors import ArmFailure

__all__ = [
    "FLAVOURS",
    "LOCK",
    "LOCKS",
    "MYSQL",
    "POSTGRESQL",
    "TLS",
    "Flavour",
    "Rule",
    "check_admin",
    "check_declaration",
    "check_password",
    "moment",
    "networks_of",
    "rule_name",
    "rules_to_change",
    "shown",
    "state_of",
    "time_text",
]

LOCKS = "2020-05-01"
"""The api-version of resource locks: Azure Resource Manager, Management Locks; read 2026-11-21."""

LOCK = "shiftable"
TLS = "require_secure_transport"


@attrs.frozen
class Flavour:
    """What differs between the two kinds of flexible servers.

    Args:
        version: the api-version.
        capabilities: path of what a location offers.
        backups: path of the backups that are taken on demand.
        point: name of the property with the time to restore.
        dns_zone: name of the property with the private DNS zone.
        own: databases that Azure makes itself.
        database: what is said of a new database.
    """

    engine: Engine
    namespace: str
    version: str
    port: int
    capabilities: str
    backups: str
    point: str
    dns_zone: str
    own: frozenset[str]
    database: Mapping[str, str]

    @property
    def type(self) -> str:
        """The resource type."""
        return f"{self.namespace}/flexibleServers"


POSTGRESQL = Flavour(
    engine="postgresql",
    namespace="Microsoft.DBforPostgreSQL",
    version="2025-08-01",  # Azure REST API specifications, newest stable one on 2026-11-21
    port=5432,
    capabilities="capabilities",
    backups="backups",
    point="pointInTimeUTC",
    dns_zone="privateDnsZoneArmResourceId",
    own=frozenset({"azure_maintenance", "azure_sys", "postgres", "template0", "template1"}),
    database={"charset": "UTF8", "collation": "en_US.utf8"},
)

MYSQL = Flavour(
    engine="mysql",
    namespace="Microsoft.DBforMySQL",
    version="2024-12-30",  # Azure REST API specifications, newest stable one on 2026-11-21
    port=3306,
    capabilities="capabilitySets/default",
    backups="backupsV2",
    point="restorePointInTime",
    dns_zone="privateDnsZoneResourceId",
    own=frozenset({"information_schema", "mysql", "performance_schema", "sys"}),
    database={"charset": "utf8mb4", "collation": "utf8mb4_0900_ai_ci"},
)

FLAVOURS: Mapping[str, Flavour] = {"postgresql": POSTGRESQL, "mysql": MYSQL}


# states

_STATES: Mapping[str, DatabaseState] = {
    "Ready": "available",
    "Provisioning": "creating",
    "Updating": "updating",
    "Restarting": "updating",
    "Starting": "starting",
    "Stopping": "stopping",
    "Stopped": "stopped",
    "Dropping": "deleting",
    "Disabled": "failed",
    "Inaccessible": "failed",  # the key that it is encrypted with cannot be had
}


def state_of(raw: str) -> DatabaseState:
    """Return a state in our words."""
    return _STATES.get(raw, "unknown")


def shown(version: str, minor: str | None) -> str:
    """Return the whole version: PostgreSQL tells the minor one apart, MySQL tells the whole one beside."""
    if not minor:
        return "8.0" if version == "8.0.21" else version
    return minor if minor.startswith(version.partition(".")[0] + ".") else f"{version}.{minor}"


def moment(text: str | None) -> datetime | None:
    """Read a time; Azure writes seven decimals."""
    if not text:
        return None
    cut = re.sub(r"(\.\d{6})\d+", r"\1", text)
    found = datetime.fromisoformat(cut)
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)


def time_text(when: datetime) -> str:
    """Write a time."""
    return when.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


# networks and firewall rules


@attrs.frozen
class Rule:
    """A firewall rule: a range of addresses under a name."""

    name: str
    first: IPv4Address
    last: IPv4Address

    @property
    def networks(self) -> tuple[str, ...]:
        """The range in networks."""
        return tuple(map(str, summarize_address_range(self.first, self.last)))

    @classmethod
    def read(cls, item: Mapping[str, Any]) -> Rule:
        """Read Azure's."""
        said = item["properties"]
        return cls(str(item["name"]), IPv4Address(said["startIpAddress"]), IPv4Address(said["endIpAddress"]))


def networks_of(rules: Iterable[Rule]) -> tuple[str, ...]:
    """Return all networks of some rules, in order."""
    found = {network for rule in rules for network in rule.networks}
    return tuple(sorted(found, key=lambda network: (IPv4Network(network), network)))


def rules_to_change(
    rules: Iterable[Rule], wanted: Iterable[str]
) -> tuple[tuple[str, ...], tuple[tuple[str, IPv4Network], ...]]:
    """Return which rules go and which come, so that the rules that stay and come are for just those networks."""
    nets = {str(ip_network(network)) for network in wanted}
    stay = {rule.name: rule for rule in rules if set(rule.networks) <= nets}
    gone = tuple(rule.name for rule in rules if rule.name not in stay)
    held = {network for rule in stay.values() for network in rule.networks}
    come = tuple((rule_name(net), IPv4Network(net)) for net in sorted(nets - held))
    return gone, come


def rule_name(network: str) -> str:
    """Return what a rule of ours is called."""
    return f"shiftable-{re.sub('[./]', '-', network)}"


# what Azure would refuse only after minutes, or in words that do not help

_RESERVED = frozenset(
    {"admin", "administrator", "azure_pg_admin", "azure_superuser", "azuresu", "guest", "postgres", "public", "root"}
)  # Azure Database for PostgreSQL and for MySQL, create a server: administrator login
_LOGIN = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_LOGIN_LENGTHS = {"postgresql": 63, "mysql": 32}
_PASSWORD = range(8, 129)  # Azure Database, create a server: password
_KINDS = 3
_TAGS, _TAG_NAME, _TAG_VALUE = 50, 512, 256  # Azure Resource Manager, limitations of tags
_TAG_FORBIDDEN = frozenset("<>%&\\?/")


def check_declaration(spec: DatabaseSpec) -> None:
    """Refuse what Azure cannot hold, before anything is sent.

    Raises:
        ArmFailure: names what.
    """
    problems = [*_network_problems(spec), *_tag_problems(spec.labels)]
    if TLS in spec.parameters:
        problems.append(f'{TLS} is declared as tls = "required" or "optional"')
    if problems:
        raise ArmFailure("InvalidParameterValue", "; ".join(problems))


def check_admin(spec: DatabaseSpec) -> None:
    """Refuse an administrator's name that Azure forbids.

    Raises:
        ArmFailure: says what may be one.
    """
    name, most = spec.admin, _LOGIN_LENGTHS[spec.engine]
    if name.lower() in _RESERVED or name.lower().startswith("pg_"):
        raise ArmFailure("ReservedUserName", f"Azure does not let the administrator be called {name}")
    if not _LOGIN.fullmatch(name) or len(name) > most:
        why = f"an administrator's name has at most {most} letters, digits and underscores, and begins with no digit"
        raise ArmFailure("InvalidParameterValue", why)


def check_password(password: str, admin: str) -> None:
    """Refuse a password that Azure would not take; says why, and nothing of it.

    Raises:
        ArmFailure: it is too short, too long, too simple, or holds the name.
    """
    kinds = (str.isupper, str.islower, str.isdigit, lambda letter: not letter.isalnum())
    if len(password) not in _PASSWORD:
        why = f"the password has {len(password)} characters; Azure takes {_PASSWORD.start} to {_PASSWORD.stop - 1}"
    elif sum(any(map(kind, password)) for kind in kinds) < _KINDS:
        why = "the password needs three of: capital letters, small letters, digits, other characters"
    elif admin.lower() in password.lower():
        why = "the password must not hold the administrator's name"
    else:
        return
    raise ArmFailure("InvalidParameterValue", why)


def _network_problems(spec: DatabaseSpec) -> Iterator[str]:
    native = AzureDatabaseSettings.of(spec)
    if spec.allow_from and not spec.public:
        yield "allow_from is for servers with public = true; who reaches a private one, its network says"
    if spec.public and native.subnet is not None:
        yield "a server in a subnet is not public"
    for network in spec.allow_from:
        if not isinstance(ip_network(network), IPv4Network):
            yield f"Azure's firewall rules are for IPv4, and {network} is not"


def _tag_problems(labels: Mapping[str, str]) -> Iterator[str]:
    if len(labels) > _TAGS:
        yield f"Azure keeps {_TAGS} labels, not {len(labels)}"
    if len({name.lower() for name in labels}) < len(labels):
        yield "Azure does not tell labels apart by case"
    for name, value in labels.items():
        if not 0 < len(name) <= _TAG_NAME or len(value) > _TAG_VALUE or _TAG_FORBIDDEN & set(name):
            yield f"the label {name!r} is too long, or has one of {' '.join(sorted(_TAG_FORBIDDEN))} in its name"

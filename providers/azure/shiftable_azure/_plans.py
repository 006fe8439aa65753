"""What has to be sent to a server for it to become as declared, request by request."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from ipaddress import IPv4Network
from typing import Any
from urllib.parse import quote

import attrs

from shiftable.database.driver import DatabaseSpec
from shiftable_azure._database_settings import AzureDatabaseSettings
from shiftable_azure._errands import Step
from shiftable_azure._flexible import LOCK, LOCKS, TLS, Flavour, Rule, rules_to_change
from shiftable_azure._sizes import Offer
from shiftable_azure.errors import ArmFailure

__all__ = ["LEAST_BACKUP_DAYS", "Plan"]

logger = logging.getLogger(__name__)

LEAST_BACKUP_DAYS = 7


@attrs.frozen
class Plan:
    """Makes the requests for one server.

    Args:
        path: of the server.
        tenant: of Microsoft Entra, where it is known.
        offer: of the server's location.
    """

    flavour: Flavour
    path: str
    tenant: str | None
    offer: Offer

    def creation(self, spec: DatabaseSpec, password: str) -> dict[str, Any]:
        """Return what makes the server itself."""
        flavour, offer, native = self.flavour, self.offer, AzureDatabaseSettings.of(spec)
        choice = offer.choose(spec)
        logger.info("%s: %s, %s", spec.name, choice.size, choice.reason)
        return {
            "location": offer.location,
            "sku": offer.body(choice.size.name),
            "tags": dict(spec.labels),
            "properties": {
                "createMode": "Create" if flavour.engine == "postgresql" else "Default",
                "version": _azures_version(spec),
                "administratorLogin": spec.admin,
                "administratorLoginPassword": password,
                "storage": {
                    "storageSizeGB": offer.storage(spec.storage_gib),
                    "autoGrow": _switch(on=spec.storage_autogrow),
                },
                "backup": {
                    "backupRetentionDays": max(spec.backup_days, LEAST_BACKUP_DAYS),
                    "geoRedundantBackup": _switch(on=native.geo_redundant_backup),
                },
                "highAvailability": {"mode": self._mode(choice.size.name, spec)},
                "network": self._network(spec),
                **({"availabilityZone": native.zone} if native.zone else {}),
                **(self._auth(spec) if spec.token_login else {}),
            },
        }

    def restoration(self, spec: DatabaseSpec, source: str, when: str) -> dict[str, Any]:
        """Return what makes the server out of another one."""
        return {
            "location": self.offer.location,
            "tags": dict(spec.labels),
            "properties": {
                "createMode": "PointInTimeRestore",
                "sourceServerResourceId": source,
                self.flavour.point: when,
                "network": self._network(spec),
            },
        }

    def furnishing(self, spec: DatabaseSpec) -> Iterator[Step]:
        """Say what a new server lacks."""
        yield from self._rule_steps((), rules_to_change((), spec.allow_from)[1])
        yield from self._database_steps(spec.databases)
        yield from self._parameter_steps({**spec.parameters, **({TLS: "off"} if spec.tls == "optional" else {})})
        yield from self._entra_steps(spec)
        if spec.deletion_protection:
            yield self._lock_step()

    def password(self, password: str) -> Step:
        """Change the administrator's password."""
        return self._patch("the password", {"properties": {"administratorLoginPassword": password}})

    def changes(
        self,
        current: DatabaseSpec,
        spec: DatabaseSpec,
        *,
        sku: str,
        rules: Iterable[Rule],
        locks: tuple[str, ...],
    ) -> Iterator[Step]:
        """Say what has to change.

        A lock protects what belongs to the server too: it is taken off while firewall rules go.

        Args:
            sku: the size that the server has.
            locks: that protect it, by id.

        Raises:
            ArmFailure: Azure cannot do it.
        """
        gone, come = rules_to_change(rules, spec.allow_from) if spec.public else ((), ())
        unlocked = bool(locks) and (not spec.deletion_protection or bool(gone))
        if unlocked:
            yield from self._unlock_steps(locks)
        body = self._changed(current, spec, sku)
        if body:
            yield self._patch("the change", body)
        yield from self._rule_steps(gone, come)
        yield from self._database_steps(name for name in spec.databases if name not in current.databases)
        wanted = {name: value for name, value in spec.parameters.items() if current.parameters.get(name) != value}
        if spec.tls != current.tls:
            wanted[TLS] = "off" if spec.tls == "optional" else "on"
        yield from self._parameter_steps(wanted)
        if not current.token_login:
            yield from self._entra_steps(spec)
        if spec.deletion_protection and (unlocked or not locks):
            yield self._lock_step()

    # the server itself

    def _changed(self, current: DatabaseSpec, spec: DatabaseSpec, sku: str) -> dict[str, Any]:
        """Return what is to be changed of the server itself."""
        body, said = dict[str, Any](), dict[str, Any]()
        if (current.cpus, current.memory_gib) != (spec.cpus, spec.memory_gib):
            choice = self.offer.choose(spec)
            logger.info("%s: %s, %s", spec.name, choice.size, choice.reason)
            sku = choice.size.name
            body["sku"] = self.offer.body(sku)
        if current.labels != spec.labels:
            body["tags"] = dict(spec.labels)
        if storage := self._changed_storage(current, spec):
            said["storage"] = storage
        if current.backup_days != spec.backup_days:
            said["backup"] = {"backupRetentionDays": max(spec.backup_days, LEAST_BACKUP_DAYS)}
        if current.high_availability != spec.high_availability:
            said["highAvailability"] = {"mode": self._mode(sku, spec)}
        if current.public != spec.public:
            said["network"] = self._network(spec)
        if current.version != spec.version:
            said["version"] = self._next_version(current, spec)
        if current.token_login != spec.token_login:
            said |= self._auth(spec)
        return {**body, **({"properties": said} if said else {})}

    def _changed_storage(self, current: DatabaseSpec, spec: DatabaseSpec) -> dict[str, Any]:
        found = dict[str, Any]()
        if current.storage_gib != spec.storage_gib:
            found["storageSizeGB"] = self.offer.storage(spec.storage_gib)
        if current.storage_autogrow != spec.storage_autogrow:
            found["autoGrow"] = _switch(on=spec.storage_autogrow)
        return found

    def _next_version(self, current: DatabaseSpec, spec: DatabaseSpec) -> str:
        if _azures_version(current) == _azures_version(spec):
            major = ".".join(spec.version.split(".")[: 1 if spec.engine == "postgresql" else 2])
            why = f"Azure brings {current.version} to {spec.version} itself; declare {major}"
            raise ArmFailure("InvalidParameterValue", why)
        return _azures_version(spec)

    def _mode(self, sku: str, spec: DatabaseSpec) -> str:
        if not spec.high_availability:
            return "Disabled"
        return self.offer.mode(sku, AzureDatabaseSettings.of(spec).high_availability_mode)

    def _network(self, spec: DatabaseSpec) -> dict[str, str]:
        native = AzureDatabaseSettings.of(spec)
        if native.subnet is None:
            return {"publicNetworkAccess": _switch(on=spec.public)}
        zone = {self.flavour.dns_zone: native.private_dns_zone} if native.private_dns_zone else {}
        return {"delegatedSubnetResourceId": native.subnet, **zone}

    def _auth(self, spec: DatabaseSpec) -> dict[str, Any]:
        """Return how users log in."""
        tenant = {"tenantId": self.tenant} if self.tenant and spec.token_login else {}
        said = {"activeDirectoryAuth": _switch(on=spec.token_login), "passwordAuth": "Enabled", **tenant}
        return {"authConfig": said}

    def _patch(self, what: str, body: Mapping[str, Any]) -> Step:
        return Step(what, "PATCH", self.path, self.flavour.version, body)

    # what belongs to it

    def _rule_steps(self, gone: Iterable[str], come: Iterable[tuple[str, IPv4Network]]) -> Iterator[Step]:
        base = f"{self.path}/firewallRules"
        for name in gone:
            what = f"the end of the firewall rule {name}"
            yield Step(what, "DELETE", f"{base}/{quote(name, safe='')}", self.flavour.version)
        for name, network in come:
            ends = {"startIpAddress": str(network[0]), "endIpAddress": str(network[-1])}
            yield Step(f"the network {network}", "PUT", f"{base}/{name}", self.flavour.version, {"properties": ends})

    def _database_steps(self, names: Iterable[str]) -> Iterator[Step]:
        body = {"properties": dict(self.flavour.database)}
        for name in names:
            if name not in self.flavour.own:
                path = f"{self.path}/databases/{quote(name, safe='')}"
                yield Step(f"the database {name}", "PUT", path, self.flavour.version, body)

    def _parameter_steps(self, wanted: Mapping[str, str]) -> Iterator[Step]:
        for name, value in sorted(wanted.items()):
            body = {"properties": {"value": value, "source": "user-override"}}
            path = f"{self.path}/configurations/{quote(name, safe='')}"
            yield Step(f"the parameter {name}", "PATCH", path, self.flavour.version, body)

    def _entra_steps(self, spec: DatabaseSpec) -> Iterator[Step]:
        native = AzureDatabaseSettings.of(spec)
        if spec.token_login and native.entra_admin_id is not None:
            tenant = {"tenantId": self.tenant} if self.tenant else {}
            said = {"principalName": native.entra_admin, "principalType": native.entra_admin_type, **tenant}
            path = f"{self.path}/administrators/{native.entra_admin_id}"
            what = f"the administrator {native.entra_admin}"
            yield Step(what, "PUT", path, self.flavour.version, {"properties": said})

    def _lock_step(self) -> Step:
        said = {"level": "CanNotDelete", "notes": "deletion_protection of shiftable"}
        path = f"{self.path}/providers/Microsoft.Authorization/locks/{LOCK}"
        return Step("the deletion protection", "PUT", path, LOCKS, {"properties": said})

    def _unlock_steps(self, locks: tuple[str, ...]) -> Iterator[Step]:
        above = [lock for lock in locks if not lock.lower().startswith(f"{self.path}/".lower())]
        if above:
            why = f"it is protected by {above[0]}, which is not the server's own; remove that lock"
            raise ArmFailure("ScopeLocked", why)
        yield from (Step("the end of the deletion protection", "DELETE", lock, LOCKS) for lock in locks)


def _switch(*, on: bool) -> str:
    return "Enabled" if on else "Disabled"


def _azures_version(spec: DatabaseSpec) -> str:
    """Return the version as Azure has it: of PostgreSQL the major one; 8.0 of MySQL is always called 8.0.21."""
    if spec.engine == "postgresql":
        return spec.version.partition(".")[0]
    found = ".".join(spec.version.split(".")[:2])
    return "8.0.21" if found == "8.0" else found

"""Azure's networks in memory: virtual networks, security groups, interfaces, public addresses; and DNS beside them."""

from __future__ import annotations

import ipaddress
import re
import uuid
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import quote

import attrs

from shiftable.testing.harness import Clock, Response
from shiftable_azure._double_arm import HOST, ArmAsked, ArmRefusalAnswer, arm_json
from shiftable_azure._double_dns import DnsService
from shiftable_azure._machine_network import same_id

__all__ = ["Endings", "NetworkService", "StoredResource", "page_of"]

_VERSION = "2025-09-01"
_NAME = re.compile(r"[A-Za-z0-9](?:[\w.-]{0,78}\w)?", re.ASCII)
_KINDS = {
    "virtualnetworks": "virtualNetworks",
    "networksecuritygroups": "networkSecurityGroups",
    "networkinterfaces": "networkInterfaces",
    "publicipaddresses": "publicIPAddresses",
}
_OPERATIONS = {
    "virtualNetworks": "VirtualNetworks",
    "networkSecurityGroups": "NetworkSecurityGroups",
    "networkInterfaces": "NetworkInterfaces",
    "publicIPAddresses": "PublicIPAddresses",
}
_METHODS = {"GET": "Get", "PUT": "CreateOrUpdate", "DELETE": "Delete"}
_PRIORITIES = range(100, 4097)
_RESERVED_ADDRESSES = 4  # of each subnet, at its beginning


@attrs.define(eq=False)
class StoredResource:
    """A resource as it is told, but for what a service computes.

    Attributes:
        kept_until: before then, nobody but its former machine gets it.
    """

    kind: str
    name: str
    group: str
    location: str
    tags: dict[str, str]
    properties: dict[str, Any]
    zones: list[str] = attrs.field(factory=list)
    sku: dict[str, str] | None = None
    etag: str = attrs.field(factory=lambda: str(uuid.uuid4()))
    kept_until: datetime | None = None

    def id(self, subscription: str) -> str:
        """The id, with the resource group as it was made."""
        return f"/subscriptions/{subscription}/resourceGroups/{self.group}/providers/{self.kind}/{self.name}"


@attrs.define
class _Ending:
    until: datetime
    effect: Callable[[], None]
    error: tuple[str, str] | None
    result: Callable[[], Any] | None = None
    done: bool = False


class Endings:
    """Long operations of one double: each ends at its time, whoever looks.

    Attributes:
        delay: how long each takes, by the clock.
        failures: code and message that the next operation of a name ends with.
    """

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self._all: dict[str, _Ending] = {}
        self.reset()

    def reset(self) -> None:
        """Forget all; let them end at once."""
        self._all.clear()
        self.delay = timedelta(0)
        self.failures: dict[str, tuple[str, str]] = {}

    def begin(
        self,
        asked: ArmAsked,
        namespace: str,
        effect: Callable[[], None],
        *,
        error: tuple[str, str] | None = None,
        body: Any = None,  # noqa: ANN401  JSON
        status: int = 202,
        result: Callable[[], Any] | None = None,
    ) -> Response:
        """Begin one; return the answer that tells where to look, and where its result will be if it has one."""
        id_ = str(uuid.uuid4())
        self._all[id_] = _Ending(self.clock.now() + self.delay, effect, error, result)
        self.settle()
        base = f"{HOST}/subscriptions/{asked.subscription}/providers/{namespace}/locations/here"
        link = f"{base}/azureAsyncOperation/{id_}?api-version={asked.version}"
        content = body() if callable(body) else body
        wait = "5" if self.delay else "0"
        told = {"Azure-AsyncOperation": link, "Retry-After": wait}
        if result is not None:
            told["Location"] = f"{base}/results/{id_}?api-version={asked.version}"
        return arm_json(status, content, told)

    def result(self, id_: str) -> Response:
        """Answer with what one has made."""
        found = self._all.get(id_)
        if found is None or found.result is None:
            raise ArmRefusalAnswer(404, "NotFound", "There is no such operation.")
        return arm_json(200, found.result()) if found.done else arm_json(202, None, {"Retry-After": "5"})

    def look(self, id_: str) -> Response:
        """Answer a look at one."""
        found = self._all.get(id_)
        if found is None:
            raise ArmRefusalAnswer(404, "NotFound", "There is no such operation.")
        if not found.done:
            return arm_json(200, {"name": id_, "status": "InProgress"}, {"Retry-After": "5"})
        if found.error is None:
            return arm_json(200, {"name": id_, "status": "Succeeded"})
        error = {"code": found.error[0], "message": found.error[1]}
        return arm_json(200, {"name": id_, "status": "Failed", "error": error})

    def settle(self) -> None:
        """Let happen what has ended by now, in its order."""
        now = self.clock.now()
        for each in sorted(self._all.values(), key=lambda ending: ending.until):
            if not each.done and each.until <= now:
                each.done = True
                each.effect()


class NetworkService:
    """Executes requests for networks, one at a time; those for zones are the DNS service's.

    How long Azure keeps the interface of a machine that failed is in its documentation of ``NicReservedForAnotherVm``:
    180 seconds. What it answers where its quota of addresses is reached is told by those who were shown it.

    Attributes:
        resources: by kind, resource group and name, all in lower case.
        page_size: the most that a listing has in one page.
        addresses: the quota of public addresses.
        expands: a security group tells its interfaces as a whole, if it is asked to.
    """

    namespace = "Microsoft.Network"
    versions = frozenset({_VERSION, *DnsService.versions})

    def __init__(self, dns: DnsService, endings: Endings) -> None:
        self._dns = dns
        self._endings = endings
        self.resources: dict[tuple[str, str, str], StoredResource] = {}
        self.reset()

    def reset(self) -> None:
        """Forget all networks and zones."""
        self._dns.reset()
        self.resources.clear()
        self._numbers: dict[str, int] = {}
        self._public = 0
        self.page_size = 1000
        self.addresses = 1000
        self.expands = True

    def of_kind(self, kind: str) -> list[StoredResource]:
        """Return all resources of a kind: ``networkInterfaces``."""
        return [found for found in self.resources.values() if found.kind == f"{self.namespace}/{kind}"]

    def operation(self, method: str, parts: tuple[str, ...]) -> tuple[str, str]:
        """Name an operation and the action that it takes."""
        if parts and parts[0] == "locations":
            return "GetOperationStatus", f"{self.namespace}/locations/operations/read"
        kind = _KINDS.get(parts[0].lower()) if parts else None
        if kind is None:
            return self._dns.operation(method, parts)
        verb = {"GET": "read", "DELETE": "delete"}.get(method, "write")
        name = "List" if len(parts) == 1 else _METHODS.get(method, "")
        return f"{_OPERATIONS[kind]}_{name}", f"{self.namespace}/{kind}/{verb}"

    def execute(self, asked: ArmAsked) -> Response:
        """Answer a request."""
        self._endings.settle()
        parts = asked.parts
        if parts and parts[0] == "locations" and len(parts) == 4:
            return self._endings.look(parts[3])
        if not parts or parts[0].lower() not in _KINDS:
            return self._dns.execute(asked)
        if asked.version != _VERSION or len(parts) > 2:
            raise ArmRefusalAnswer(404, "InvalidResourceType", "The resource type could not be found.")
        kind = _KINDS[parts[0].lower()]
        if len(parts) == 1 and asked.method == "GET":
            return self._list(asked, kind)
        run: Callable[[ArmAsked, str], Response] | None = {"GET": self._get, "DELETE": self._delete}.get(asked.method)
        if asked.method == "PUT" and kind in {"virtualNetworks", "networkSecurityGroups"}:
            run = self._put
        if run is None or asked.group is None:
            raise ArmRefusalAnswer(405, "MethodNotAllowed", "The double has no such operation.")
        return run(asked, kind)

    def _list(self, asked: ArmAsked, kind: str) -> Response:
        group = None if asked.group is None else asked.group.lower()
        here = [each for each in self.of_kind(kind) if group in (None, each.group.lower())]
        return page_of(asked, here, self.page_size, lambda each: self.shown(asked.subscription, each))

    def _get(self, asked: ArmAsked, kind: str) -> Response:
        found, expand = self._found(asked, kind), asked.query.get("$expand", "")
        content = self.shown(asked.subscription, found)
        if kind == "networkSecurityGroups" and expand == "networkInterfaces":
            users = self._users(found.id(asked.subscription))
            if self.expands:
                content["properties"]["networkInterfaces"] = [self.shown(asked.subscription, each) for each in users]
        elif kind == "networkInterfaces" and expand == "ipConfigurations/publicIPAddress":
            for each in content["properties"]["ipConfigurations"]:
                public = each["properties"].get("publicIPAddress")
                if public is not None:
                    held = self.by_id(public["id"])
                    each["properties"]["publicIPAddress"] = self.shown(asked.subscription, held)
        elif expand:
            raise ArmRefusalAnswer(400, "InvalidExpandQueryOptionValue", f"The value '{expand}' is not supported.")
        return arm_json(200, content)

    def _put(self, asked: ArmAsked, kind: str) -> Response:
        content, key = asked.content, self._key(asked, kind)
        if not _NAME.fullmatch(asked.parts[1]):
            raise ArmRefusalAnswer(400, "InvalidResourceName", f"Resource name {asked.parts[1]} is invalid.")
        if not content.get("location"):
            raise ArmRefusalAnswer(400, "LocationRequired", "The location property is required.")
        properties = dict(content.get("properties") or {})
        _check_rules(properties.get("securityRules") or ())
        found = self.resources.get(key)
        error = self._endings.failures.pop(f"{_OPERATIONS[kind]}_CreateOrUpdate", None)
        properties["provisioningState"] = "Updating"
        if found is None:
            made = StoredResource(
                f"{self.namespace}/{kind}", asked.parts[1], str(asked.group), content["location"], {}, {}
            )
            self.resources[key] = made
        else:
            made = found
        made.tags, made.properties = dict(content.get("tags") or {}), properties
        made.etag = str(uuid.uuid4())

        def ended() -> None:
            made.properties["provisioningState"] = "Succeeded" if error is None else "Failed"

        status = 200 if found is not None else 201

        def told() -> dict[str, Any]:
            return self.shown(asked.subscription, made)

        return self._endings.begin(asked, self.namespace, ended, error=error, body=told, status=status)

    def _delete(self, asked: ArmAsked, kind: str) -> Response:
        key = self._key(asked, kind)
        found = self.resources.get(key)
        if found is None:
            return arm_json(204, None)
        self._check_free(found, found.id(asked.subscription))
        error = self._endings.failures.pop(f"{_OPERATIONS[kind]}_Delete", None)

        def ended() -> None:
            if error is None:
                self.forget(found)

        return self._endings.begin(asked, self.namespace, ended, error=error)

    def _check_free(self, found: StoredResource, id_: str) -> None:
        kind = found.kind.rpartition("/")[2]
        if kind == "networkInterfaces":
            if found.properties.get("virtualMachine"):
                raise ArmRefusalAnswer(400, "NicInUse", f"Network Interface {id_} is used by existing resource.")
            if found.kept_until is not None and found.kept_until > self._endings.clock.now():
                message = f"Nic(s) in request is reserved for another Virtual Machine for 180 seconds: {id_}"
                raise ArmRefusalAnswer(400, "NicReservedForAnotherVm", message)
        elif kind == "publicIPAddresses" and found.properties.get("ipConfiguration"):
            message = f"Public IP address {id_} can not be deleted since it is still allocated."
            raise ArmRefusalAnswer(400, "PublicIPAddressCannotBeDeleted", message)
        elif kind == "networkSecurityGroups" and self._users(id_):
            message = f"Network security group {id_} cannot be deleted because it is in use."
            raise ArmRefusalAnswer(400, "InUseNetworkSecurityGroupCannotBeDeleted", message)
        elif kind == "virtualNetworks":
            inside = same_id(f"{id_}/subnets/")
            if any(same_id(_subnet_of(each)).startswith(inside) for each in self.of_kind("networkInterfaces")):
                message = f"Subnet of {id_} is in use and cannot be deleted."
                raise ArmRefusalAnswer(400, "InUseSubnetCannotBeDeleted", message)

    # for machines

    def check_interface(self, said: Mapping[str, Any], *, api: str | None) -> None:
        """Refuse an interface of a machine that cannot be made."""
        if api not in {"2020-11-01", "2022-11-01"}:
            raise ArmRefusalAnswer(400, "InvalidParameter", "The value of parameter networkApiVersion is invalid.")
        properties = said.get("properties") or {}
        for each in properties.get("ipConfigurations") or ():
            subnet = str(((each.get("properties") or {}).get("subnet") or {}).get("id"))
            network, _, name = subnet.rpartition("/subnets/")
            held = self.resources.get(_key_of(network))
            names = {one["name"] for one in (held.properties.get("subnets") or ())} if held else set()
            if held is None or name not in names:
                raise ArmRefusalAnswer(400, "InvalidResourceReference", f"Resource {subnet} was not found.")
            self._check_provisioned(held)
            if (each["properties"].get("publicIPAddressConfiguration")
                    and len(self.of_kind("publicIPAddresses")) >= self.addresses):  # fmt: skip
                message = "Cannot create more than the quota of public IP addresses for this subscription."
                raise ArmRefusalAnswer(400, "PublicIPCountLimitReached", message)
        wall = properties.get("networkSecurityGroup")
        if wall is not None:
            held = self.resources.get(_key_of(wall["id"]))
            if held is None:
                raise ArmRefusalAnswer(400, "InvalidResourceReference", f"Resource {wall['id']} was not found.")
            self._check_provisioned(held)

    def _check_provisioned(self, held: StoredResource) -> None:
        if held.properties.get("provisioningState") != "Succeeded":
            message = f"Cannot proceed because resource {held.name} is not in Succeeded state."
            raise ArmRefusalAnswer(409, "ReferencedResourceNotProvisioned", message)

    def make_address(self, said: Mapping[str, Any], group: str, location: str) -> StoredResource:
        """Make the public address that an interface's configuration describes."""
        self._public += 1
        properties = {
            "publicIPAllocationMethod": (said.get("properties") or {}).get("publicIPAllocationMethod", "Dynamic"),
            "publicIPAddressVersion": "IPv4",
            "deleteOption": (said.get("properties") or {}).get("deleteOption", "Detach"),
            "ipAddress": f"203.0.113.{self._public % 250 + 1}",
            "provisioningState": "Succeeded",
        }
        made = StoredResource(
            f"{self.namespace}/publicIPAddresses",
            said["name"],
            group,
            location,
            dict(said.get("tags") or {}),
            properties,
        )
        made.sku = {"name": (said.get("sku") or {}).get("name", "Basic"), "tier": "Regional"}
        self.resources[self._own_key(made)] = made
        return made

    def make_interface(
        self, subscription: str, said: Mapping[str, Any], group: str, location: str, address: StoredResource | None
    ) -> StoredResource:
        """Make an interface, with the next address of its subnet."""
        configured = said["properties"]
        inside = configured["ipConfigurations"][0]
        made = StoredResource(
            f"{self.namespace}/networkInterfaces", said["name"], group, location, dict(said.get("tags") or {}), {}
        )
        subnet = inside["properties"]["subnet"]["id"]
        ip: dict[str, Any] = {
            "privateIPAddress": self._next_address(subnet),
            "privateIPAllocationMethod": "Dynamic",
            "subnet": {"id": subnet},
            "primary": True,
            "provisioningState": "Succeeded",
        }
        configuration = f"{made.id(subscription)}/ipConfigurations/{inside['name']}"
        if address is not None:
            ip["publicIPAddress"] = {"id": address.id(subscription)}
            address.properties["ipConfiguration"] = {"id": configuration}
        made.properties = {
            "provisioningState": "Succeeded",
            "ipConfigurations": [{"name": inside["name"], "id": configuration, "properties": ip}],
            "enableAcceleratedNetworking": bool(configured.get("enableAcceleratedNetworking")),
            "primary": True,
        }
        if configured.get("networkSecurityGroup"):
            made.properties["networkSecurityGroup"] = dict(configured["networkSecurityGroup"])
        self.resources[self._own_key(made)] = made
        return made

    def forget(self, found: StoredResource) -> None:
        """Take a resource away, and what others say of it."""
        self.resources.pop(self._own_key(found), None)
        if found.kind.endswith("networkInterfaces"):
            for each in found.properties["ipConfigurations"]:
                public = each["properties"].get("publicIPAddress")
                held = self.resources.get(_key_of(public["id"])) if public else None
                if held is not None:
                    held.properties.pop("ipConfiguration", None)

    def by_id(self, id_: str) -> StoredResource:
        """Return the resource of an id."""
        return self.resources[_key_of(id_)]

    def shown(self, subscription: str, found: StoredResource) -> dict[str, Any]:
        """Return what is told of a resource."""
        content: dict[str, Any] = {
            "id": found.id(subscription),
            "name": found.name,
            "type": found.kind,
            "etag": f'W/"{found.etag}"',
            "location": found.location,
            "tags": found.tags,
            "properties": _copied(found.properties),
        }
        if found.sku is not None:
            content["sku"] = found.sku
        if found.zones:
            content["zones"] = found.zones
        if found.kind.endswith("networkSecurityGroups"):
            users = self._users(found.id(subscription))
            content["properties"]["networkInterfaces"] = [{"id": each.id(subscription)} for each in users]
        return content

    def _users(self, wall: str) -> list[StoredResource]:
        return [
            each
            for each in self.of_kind("networkInterfaces")
            if same_id((each.properties.get("networkSecurityGroup") or {}).get("id", "")) == same_id(wall)
        ]

    def _next_address(self, subnet: str) -> str:
        network, _, name = subnet.rpartition("/subnets/")
        held = self.resources[_key_of(network)]
        prefix = next(one["properties"]["addressPrefix"] for one in held.properties["subnets"] if one["name"] == name)
        number = self._numbers[subnet] = self._numbers.get(subnet, _RESERVED_ADDRESSES - 1) + 1
        return str(ipaddress.ip_network(prefix)[number])

    def _found(self, asked: ArmAsked, kind: str) -> StoredResource:
        found = self.resources.get(self._key(asked, kind))
        if found is None:
            message = f"The Resource 'Microsoft.Network/{kind}/{asked.parts[1]}' under resource group '{asked.group}'"
            raise ArmRefusalAnswer(404, "ResourceNotFound", f"{message} was not found.")
        return found

    def _key(self, asked: ArmAsked, kind: str) -> tuple[str, str, str]:
        return kind.lower(), str(asked.group).lower(), asked.parts[1].lower()

    def _own_key(self, found: StoredResource) -> tuple[str, str, str]:
        return found.kind.rpartition("/")[2].lower(), found.group.lower(), found.name.lower()


def page_of(asked: ArmAsked, items: list[Any], size: int, shown: Callable[[Any], dict[str, Any]]) -> Response:
    """Return one page of what is told of items, in their order."""
    after = int(asked.query.get("$skiptoken", 0))
    content: dict[str, Any] = {"value": [shown(each) for each in items[after : after + size]]}
    if len(items) > after + size:
        kept = "".join(
            f"&{name}={quote(value, safe='')}"
            for name, value in asked.query.items()
            if name not in {"api-version", "$skiptoken"}
        )
        content["nextLink"] = f"{HOST}{asked.url}?api-version={asked.version}{kept}&$skiptoken={after + size}"
    return arm_json(200, content)


def _key_of(id_: str) -> tuple[str, str, str]:
    """Return the key of what an id names."""
    parts = [part.lower() for part in id_.split("/")]
    if len(parts) < 9:
        raise ArmRefusalAnswer(400, "LinkedInvalidPropertyId", f"Property id '{id_}' is invalid.")
    return parts[-2], parts[4], parts[-1]


def _subnet_of(interface: StoredResource) -> str:
    return str(interface.properties["ipConfigurations"][0]["properties"]["subnet"]["id"])


def _copied(value: Any) -> Any:  # noqa: ANN401  JSON
    if isinstance(value, dict):
        return {name: _copied(each) for name, each in value.items()}
    return [_copied(each) for each in value] if isinstance(value, list) else value


def _check_rules(rules: Any) -> None:  # noqa: ANN401  JSON
    """Refuse what Azure refuses of security rules."""
    seen = set[tuple[str, int]]()
    for rule in rules:
        said = rule.get("properties") or {}
        place = (str(said.get("direction")), int(said.get("priority", 0)))
        if place[1] not in _PRIORITIES or place in seen:
            message = f"Security rule {rule.get('name')} has a priority that is taken or out of range."
            raise ArmRefusalAnswer(400, "SecurityRuleInvalidPriority", message)
        seen.add(place)
        for one, several in (
            ("sourceAddressPrefix", "sourceAddressPrefixes"),
            ("destinationPortRange", "destinationPortRanges"),
        ):
            if bool(said.get(one)) is bool(said.get(several)):
                message = f"Security rule {rule.get('name')} needs one of {one} and {several}."
                raise ArmRefusalAnswer(400, "SecurityRuleParameterContainsUnsupportedValue", message)
        families = {ipaddress.ip_network(each).version for each in said.get("sourceAddressPrefixes") or ()}
        if len(families) > 1:
            message = f"Security rule {rule.get('name')} has addresses of both families."
            raise ArmRefusalAnswer(400, "SecurityRuleParameterContainsUnsupportedValue", message)

"""Networks of machines: what Azure calls a firewall, and where machines and their interfaces are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from ipaddress import ip_network
from typing import Any

import attrs

from shiftable.compute._firewall import ANYWHERE, Protocol, Rule, normal

__all__ = ["ADDRESSES", "Interface", "network_body", "read_wall", "same_id", "wall_body"]

ADDRESSES = "10.64.0.0/16"
"""Of the network that is made where none is named: room for 65,531 machines."""

_EVERYWHERE = {"*", "internet", "any"}
_FIRST, _LAST = (
    100,
    4096,
)  # priorities of rules; the last one stands before Azure's own, which let in all of the network
_PROTOCOLS: tuple[tuple[Protocol, str], ...] = (("tcp", "Tcp"), ("udp", "Udp"))


def read_wall(group: Mapping[str, Any]) -> tuple[Rule, ...]:
    """Read a network security group, whoever wrote its rules: what is let in."""
    return normal(rule for each in group["properties"].get("securityRules") or () for rule in _read(each["properties"]))


def _read(said: Mapping[str, Any]) -> Iterator[Rule]:
    if said.get("access") != "Allow" or said.get("direction") != "Inbound":
        return
    networks = tuple(_networks(_all(said, "sourceAddressPrefix", "sourceAddressPrefixes")))
    for protocol, name in _PROTOCOLS:
        if not networks or str(said.get("protocol")).lower() not in {name.lower(), "*"}:
            continue
        for ports in _all(said, "destinationPortRange", "destinationPortRanges"):
            first, _, last = ("1-65535" if ports == "*" else ports).partition("-")
            yield Rule(port=max(1, int(first)), last_port=int(last) if last else None, protocol=protocol,
                       allow_from=networks)  # fmt: skip


def _all(said: Mapping[str, Any], one: str, several: str) -> tuple[str, ...]:
    """Return what Azure has in one of two fields."""
    return ((str(said[one]),) if said.get(one) else ()) + tuple(map(str, said.get(several) or ()))


def _networks(prefixes: Iterable[str]) -> Iterator[str]:
    """Yield networks; of Azure's own words for networks, those that mean everywhere."""
    for each in prefixes:
        if each.lower() in _EVERYWHERE:
            yield from ANYWHERE
        elif each[:1].isdecimal() or ":" in each:
            yield str(ip_network(each, strict=False))


def wall_body(location: str, tags: Mapping[str, str], rules: Iterable[Rule]) -> dict[str, Any]:
    """Return a network security group: what is open, and nothing else, not even to the rest of the network.

    One rule has networks of one family, as Azure wants it, and all ports of the same networks.
    """
    ports: dict[tuple[Protocol, tuple[str, ...]], list[str]] = {}
    for rule in rules:
        span = str(rule.port) if rule.last == rule.port else f"{rule.port}-{rule.last}"
        for version in (4, 6):
            networks = tuple(each for each in rule.allow_from if ip_network(each).version == version)
            if networks:
                ports.setdefault((rule.protocol, networks), []).append(span)
    names = dict(_PROTOCOLS)
    opened = [
        _rule(f"shiftable-{number}", _FIRST + number, "Allow", names[protocol], list(networks), spans)
        for number, ((protocol, networks), spans) in enumerate(ports.items())
    ]
    last = _rule("shiftable-nothing-else", _LAST, "Deny", "*", None, None)
    return {"location": location, "tags": dict(tags), "properties": {"securityRules": [*opened, last]}}


def _rule(
    name: str, priority: int, access: str, protocol: str, sources: list[str] | None, ports: list[str] | None
) -> dict[str, Any]:
    said: dict[str, Any] = {
        "priority": priority,
        "direction": "Inbound",
        "access": access,
        "protocol": protocol,
        "sourcePortRange": "*",
        "destinationAddressPrefix": "*",
    }
    said |= {"sourceAddressPrefix": "*"} if sources is None else {"sourceAddressPrefixes": sources}
    said |= {"destinationPortRange": "*"} if ports is None else {"destinationPortRanges": ports}
    return {"name": name, "properties": said}


def network_body(location: str, tags: Mapping[str, str], subnet: str) -> dict[str, Any]:
    """Return a virtual network with one subnet; from there, nobody gets out without a public address."""
    inside = {"addressPrefix": ADDRESSES, "defaultOutboundAccess": False}
    return {
        "location": location,
        "tags": dict(tags),
        "properties": {
            "addressSpace": {"addressPrefixes": [ADDRESSES]},
            "subnets": [{"name": subnet, "properties": inside}],
        },
    }


@attrs.frozen
class Interface:
    """A network interface.

    Args:
        id: of Azure.
        machine: id of its machine, ``None``: it has none.
        addresses: inside the network.
        public: ids of the public addresses.
        subnet: id.
        wall: id of the network security group.
    """

    id: str
    machine: str | None
    addresses: tuple[str, ...]
    public: tuple[str, ...]
    subnet: str | None
    wall: str

    @classmethod
    def read(cls, found: Mapping[str, Any]) -> Interface:
        """Read a network interface, also one inside of something else."""
        said = found.get("properties") or {}
        inside = [each.get("properties") or {} for each in said.get("ipConfigurations") or ()]
        return cls(
            id=str(found["id"]),
            machine=(said.get("virtualMachine") or {}).get("id"),
            addresses=tuple(each["privateIPAddress"] for each in inside if each.get("privateIPAddress")),
            public=tuple(each["publicIPAddress"]["id"] for each in inside if each.get("publicIPAddress")),
            subnet=next((each["subnet"]["id"] for each in inside if each.get("subnet")), None),
            wall=str((said.get("networkSecurityGroup") or {}).get("id") or ""),
        )


def same_id(id: str) -> str:
    """Return an id to compare: Azure writes names of resource groups and types now so, now so."""
    return id.lower().rstrip("/")

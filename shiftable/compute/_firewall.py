"""Who may connect to a fleet's machines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from ipaddress import ip_network
from typing import Any, Literal

import attrs

from shiftable.checks import are_networks

__all__ = ["ANYWHERE", "Protocol", "Rule", "as_declared_ports", "normal"]

Protocol = Literal["tcp", "udp"]

ANYWHERE = ("0.0.0.0/0", "::/0")


def _is_port(_: object, field: attrs.Attribute[Any], value: int | None) -> None:
    if value is not None and not 0 < value < 65536:
        raise ValueError(f"{field.name} must be 1 to 65535, not {value}")


@attrs.frozen(kw_only=True)
class Rule:
    """Lets networks connect to one port, or to some that follow each other.

    Args:
        port: the one, or the first.
        last_port: the last one of several.
        protocol: ``tcp`` or ``udp``.
        allow_from: networks that may connect, as ``192.0.2.0/24``.
    """

    port: int = attrs.field(validator=_is_port)
    last_port: int | None = attrs.field(default=None, validator=_is_port)
    protocol: Protocol = "tcp"
    allow_from: tuple[str, ...] = attrs.field(default=ANYWHERE, validator=are_networks)

    def __attrs_post_init__(self) -> None:
        if self.last_port is not None and self.last_port < self.port:
            raise ValueError(f"last_port must not be below port, {self.port}, but is {self.last_port}")

    @property
    def last(self) -> int:
        """The last port, of one as of several."""
        return self.port if self.last_port is None else self.last_port

    def __str__(self) -> str:
        ports = str(self.port) if self.last == self.port else f"{self.port}-{self.last}"
        return f"{ports}/{self.protocol} from {', '.join(self.allow_from)}"


def normal(rules: Iterable[Rule]) -> tuple[Rule, ...]:
    """Write what rules allow in the one way in which it can be compared: one rule for the same ports, all sorted."""
    sources: dict[tuple[int, int, Protocol], set[str]] = {}
    for rule in rules:
        key = rule.port, rule.last, rule.protocol
        sources.setdefault(key, set()).update(str(ip_network(network)) for network in rule.allow_from)
    return tuple(
        Rule(port=port, last_port=None if last == port else last, protocol=protocol, allow_from=_in_order(networks))
        for (port, last, protocol), networks in sorted(sources.items())
        if networks
    )


def _in_order(networks: Iterable[str]) -> tuple[str, ...]:
    parsed = sorted(map(ip_network, networks), key=lambda n: (n.version, int(n.network_address), n.prefixlen))
    return tuple(map(str, parsed))


def as_declared_ports(rules: tuple[Rule, ...], preferred: tuple[str, ...]) -> dict[str, Any]:
    """Say rules in a declaration's words: the single TCP ports of one set of networks, and the others.

    Args:
        preferred: networks as the declaration has them; others stand in their place only if no rule has these.
    """
    single = [rule for rule in rules if rule.protocol == "tcp" and rule.last_port is None]
    found = Counter(rule.allow_from for rule in single)
    wanted = _in_order(preferred)
    common = wanted if wanted in found or not found else found.most_common(1)[0][0]
    ports = tuple(rule.port for rule in single if rule.allow_from == common)
    rest = tuple(rule for rule in rules if rule not in single or rule.allow_from != common)
    return {"open_ports": ports, "allow_from": preferred if common == wanted else common, "rules": rest}

"""What is declared of hosts that are there already."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import attrs

from shiftable.checks import Arch, is_positive

__all__ = ["HostSettings"]

_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,61}[A-Za-z0-9])?")
_ADDRESS = re.compile(r"[A-Za-z0-9:_][A-Za-z0-9:._%-]*")
_USER = re.compile(r"[A-Za-z_][A-Za-z0-9._-]{0,31}")


def _fits(pattern: re.Pattern[str], what: str) -> Callable[[object, attrs.Attribute[str], str], None]:
    def check(_: object, field: attrs.Attribute[str], value: str) -> None:
        if not pattern.fullmatch(value):
            raise ValueError(f"{field.name} must be {what}, not {value!r}")

    return check


@attrs.frozen(kw_only=True)
class HostSettings:
    """One of ``[[providers.x.hosts]]``: a machine that is claimed by ssh, by one fleet at a time, and released.

    Args:
        name: of the host, in this inventory.
        address: as ssh takes it: a name, also one of ``ssh_config``, or an IP address.
        user: who logs in, always the same: the claim lies in his home folder.
        port: of its ssh server, if it is not 22 and ``ssh_config`` does not say it.
        cpus: that it has.
        memory_gib: that it has.
        disk_gib: that it has, where that matters.
        image: what is installed on it, if only declarations that ask for this shall get it.
        labels: shown with those of the fleet.
    """

    name: str = attrs.field(validator=_fits(_NAME, "a name of letters, digits, dots and hyphens"))
    address: str = attrs.field(validator=_fits(_ADDRESS, "a name or an IP address"))
    user: str = attrs.field(validator=_fits(_USER, "the name of a user"))
    port: int = attrs.field(default=22, validator=is_positive)
    cpus: int = attrs.field(validator=is_positive)
    memory_gib: int = attrs.field(validator=is_positive)
    disk_gib: int | None = None
    arch: Arch = "x86_64"
    image: str | None = None
    labels: Mapping[str, str] = attrs.field(factory=dict)

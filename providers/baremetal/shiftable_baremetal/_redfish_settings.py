"""What is declared of servers that are controlled by Redfish, and of what they boot."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import attrs

from shiftable.checks import Arch, is_positive
from shiftable.config import BucketReference, Credential

__all__ = ["RedfishImageSettings", "RedfishServerSettings", "RedfishSettings"]

_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,61}[A-Za-z0-9])?")


def _is_name(_: object, field: attrs.Attribute[str], value: str) -> None:
    if not _NAME.fullmatch(value):
        raise ValueError(f"{field.name} must be a name of letters, digits, dots and hyphens, not {value!r}")


def _is_address(_: object, field: attrs.Attribute[str], value: str) -> None:
    parts = urlsplit(value)
    plain = parts.path in {"", "/"} and not parts.query and not parts.fragment
    if parts.scheme not in {"http", "https"} or not parts.hostname or "@" in parts.netloc or not plain:
        raise ValueError(f"{field.name} must be an address like https://r1u07-bmc.example, without user and path")


def _is_system(_: object, field: attrs.Attribute[str | None], value: str | None) -> None:
    if value is not None and not value.startswith("/redfish/"):
        raise ValueError(f"{field.name} must be a path like /redfish/v1/Systems/1, not {value!r}")


def _is_url(_: object, field: attrs.Attribute[str | None], value: str | None) -> None:
    if value is not None and ("@" in urlsplit(value).netloc or not urlsplit(value).scheme):
        raise ValueError(f"{field.name} must be a URL without user and password, which have fields of their own")


@attrs.frozen(kw_only=True)
class RedfishServerSettings:
    """One of ``[[providers.x.redfish.servers]]``: a real server that is claimed by one fleet at a time, and released.

    Args:
        name: of the server, in this inventory; its claim bears it.
        bmc: address of its BMC, ``https://r1u07-bmc.example``.
        system: which of several systems behind that BMC, ``/redfish/v1/Systems/1``.
        host: where the system that runs on it is reached by ssh, if it is.
        cpus: that it has; else what the BMC tells of it.
        memory_gib: that it has; else what the BMC tells of it.
        disk_gib: that it has, where that matters.
        zone: the part of the data centre that it is in, a rack or a room.
        username: at this BMC, if it is not that of all.
        password: at this BMC, if it is not that of all.
        labels: shown with those of the fleet.
    """

    name: str = attrs.field(validator=_is_name)
    bmc: str = attrs.field(validator=_is_address)
    system: str | None = attrs.field(default=None, validator=_is_system)
    host: str | None = None
    cpus: int | None = attrs.field(default=None, validator=attrs.validators.optional(is_positive))
    memory_gib: int | None = attrs.field(default=None, validator=attrs.validators.optional(is_positive))
    disk_gib: int | None = attrs.field(default=None, validator=attrs.validators.optional(is_positive))
    arch: Arch = "x86_64"
    zone: str | None = None
    username: str | None = None
    password: Credential | None = None
    labels: Mapping[str, str] = attrs.field(factory=dict)


@attrs.frozen(kw_only=True)
class RedfishImageSettings:
    """One of ``[[providers.x.redfish.images]]``: what ``image`` in a declaration means for servers.

    Args:
        name: in declarations; ``debian-12`` and the other aliases too have to be said here.
        boot: ``media``: the ISO at ``url``, which the BMC fetches itself; ``network``: whatever the PXE server gives;
            ``disk``: what is installed. For the first start only; later ones are the server's own affair.
        url: of the ISO, as the BMC reaches it; with a signature it is a secret.
        username: who fetches it, if that needs one.
        password: of who fetches it.
        user: who logs in by ssh to what it starts.
        arch: of the processors.
    """

    name: str
    boot: Literal["media", "network", "disk"] = "media"
    url: str | None = attrs.field(default=None, repr=False, validator=_is_url)
    username: str | None = None
    password: Credential | None = None
    user: str = "root"
    arch: Arch = "x86_64"

    def __attrs_post_init__(self) -> None:
        if (self.boot == "media") is not (self.url is not None):
            raise ValueError("url goes with boot = 'media', which needs it")
        if (self.username is None) is not (self.password is None):
            raise ValueError("username and password go together")


@attrs.frozen(kw_only=True)
class RedfishSettings:
    """``[providers.x.redfish]``: real servers, whose power and boot are controlled through their BMCs.

    Args:
        servers: in the order in which they are claimed.
        images: what they can boot.
        username: at the BMCs: may change power, boot and virtual media (the role ``Operator``).
        password: of that user.
        tls: whether a BMC must prove by its certificate who it is, and all is encrypted.
        ca_bundle: certificates to trust in place of the public ones: most BMCs sign their own.
        claims: a declared bucket for who has which server, if that is decided on more than one computer; else it lies
            below ``root``.
        force_after: seconds after which a server that does not shut down is turned off, and a command to a BMC that
            shows no effect is given again.
    """

    servers: tuple[RedfishServerSettings, ...]
    images: tuple[RedfishImageSettings, ...]
    username: str
    password: Credential
    tls: bool = True
    ca_bundle: Path | None = None
    claims: BucketReference | None = None
    force_after: int = attrs.field(default=120, validator=is_positive)

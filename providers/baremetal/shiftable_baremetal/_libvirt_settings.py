"""What is declared of a hypervisor that libvirt drives."""

from __future__ import annotations

import re
from typing import Literal
from urllib.parse import urlsplit

import attrs

from shiftable_baremetal._qemu_settings import QemuImageSettings

__all__ = ["LibvirtSettings"]

_HERE = frozenset({"qemu", "qemu+unix"})


def _is_uri(_: object, field: attrs.Attribute[str], value: str) -> None:
    found = urlsplit(value)
    if found.scheme == "qemu+tcp":
        raise ValueError(f"{field.name} leads over a network without encryption: use qemu+ssh or qemu+tls")
    if not re.fullmatch(r"qemu(\+[a-z0-9]+)?", found.scheme) or found.path not in {"/system", "/session"}:
        example = "qemu:///system, qemu:///session or qemu+ssh://user@host/system"
        raise ValueError(f"{field.name} must be the address of a hypervisor as libvirt has it: {example}")
    if found.password is not None:
        raise ValueError(f"{field.name} must hold no password: log in by ssh's keys, or by libvirt's auth.conf")


@attrs.frozen(kw_only=True)
class LibvirtSettings:
    """``[providers.x.libvirt]``: machines of a hypervisor, in place of those of QEMU alone.

    Args:
        uri: of the hypervisor, ``qemu+ssh://user@host/system``.
        pool: a storage pool of files there, which holds all disks, images and seeds.
        network: one of libvirt's networks there, for machines that name none; ``user``: each machine has one of its
            own, whose ports are led to 127.0.0.1, as an ordinary user may have it on this computer.
        accelerator: what runs machines; ``auto`` takes KVM if the hypervisor says that it has it, else software.
        images: beside the aliases.
    """

    uri: str = attrs.field(default="qemu:///system", validator=_is_uri)
    pool: str = "default"
    network: str = "default"
    accelerator: Literal["auto", "kvm", "tcg"] = "auto"
    images: tuple[QemuImageSettings, ...] = ()

    def __attrs_post_init__(self) -> None:
        if self.network == "user" and urlsplit(self.uri).scheme not in _HERE:
            raise ValueError("network = 'user' leads ports to 127.0.0.1 of the hypervisor: it goes with this computer")

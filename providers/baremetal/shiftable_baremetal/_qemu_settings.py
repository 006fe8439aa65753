"""What is declared of QEMU."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import attrs

from shiftable.checks import Arch

__all__ = ["QemuImageSettings", "QemuMachineSettings", "QemuSettings"]


@attrs.frozen(kw_only=True)
class QemuImageSettings:
    """One of ``[[providers.x.qemu.images]]``: an image under a name of one's own, or in place of an alias.

    Args:
        name: what ``image`` in a declaration says.
        arch: of the machines that start from it; one of arm64 starts by UEFI, one of x86_64 if it has nothing for BIOS.
        file: a qcow2 or raw file, which must not change while machines live that were made from it.
        url: of a qcow2 file, in place of ``file``.
        digest: its SHA-256 or SHA-512, in hexadecimal.
    """

    name: str
    arch: Arch = "x86_64"
    file: Path | None = None
    url: str | None = None
    digest: str | None = None

    def __attrs_post_init__(self) -> None:
        if (self.file is None) is (self.url is None):
            raise ValueError(f"the image {self.name!r} needs either a file or a url")
        if self.url is not None and len(self.digest or "") not in (64, 128):
            raise ValueError(f"the image {self.name!r} needs its digest: SHA-256 or SHA-512, in hexadecimal")


@attrs.frozen(kw_only=True)
class QemuSettings:
    """``[providers.x.qemu]``: machines on this computer.

    Args:
        programs: the folder of ``qemu-system-x86_64``, ``qemu-system-aarch64`` and ``qemu-img``; else they are on the
            ``PATH``.
        accelerator: what runs machines; ``auto`` takes KVM or HVF if it boots one, else software.
        images: beside the aliases.
    """

    programs: Path | None = None
    accelerator: Literal["auto", "kvm", "hvf", "tcg"] = "auto"
    images: tuple[QemuImageSettings, ...] = ()


@attrs.frozen(kw_only=True)
class QemuMachineSettings:
    """``[compute.x.baremetal]``: what only QEMU knows of a machine.

    Args:
        kernel: a kernel of Linux that is started in place of the boot loader on the disk.
        initrd: its initial RAM disk.
        append: its command line.
    """

    kernel: Path | None = None
    initrd: Path | None = None
    append: str = ""

    def __attrs_post_init__(self) -> None:
        if self.kernel is None and (self.initrd is not None or self.append):
            raise ValueError("initrd and append go with a kernel")

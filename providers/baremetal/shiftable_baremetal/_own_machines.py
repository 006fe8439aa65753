"""What machines of QEMU and of libvirt share: sizes that are chosen freely, and what is declared of them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import TypeVar

from shiftable.compute import Rule
from shiftable.compute.driver import GIB, Arch, Choice, FleetSpec, Size
from shiftable.errors import Fault, InvalidArgument
from shiftable.paging import Page
from shiftable.wording import counted
from shiftable_baremetal._faults import FilesError
from shiftable_baremetal._qemu_settings import QemuMachineSettings

__all__ = ["any_size", "check_disk", "disk_gib", "forwarded", "native", "page", "size", "sizes"]

_MOST_PORTS = 512  # each is an open file, of which a process has 1,024
_MOST_DISK_GIB = 2 * 1024**2  # of qcow2 with clusters of 64 KiB, as qemu-img makes it; its room is what is written

T = TypeVar("T")


def size(cpus: int, memory_gib: int, arch: Arch = "x86_64") -> Size:
    """Return a size, which has no name but its numbers."""
    name = f"{cpus}-{memory_gib}" + ("-arm64" if arch == "arm64" else "")
    return Size(name=name, cpus=cpus, memory=memory_gib * GIB, arch=arch)


def sizes(arch: Arch = "x86_64") -> list[Size]:
    """Return some of the sizes; any other can be had."""
    return [size(cpus, cpus * per_cpu, arch) for cpus in (1, 2, 4, 8, 16) for per_cpu in (1, 2, 4)]


def any_size(spec: FleetSpec, most_cpus: int, most_memory_gib: int) -> Choice:
    """Take what is asked for.

    Raises:
        ValueError: no machine is so large.
        FilesError: no disk is.
    """
    if spec.cpus > most_cpus or spec.memory_gib > most_memory_gib:
        needed = f"{counted(spec.cpus, 'CPU')}, {spec.memory_gib} GiB"
        raise ValueError(f"no size has {needed}; the largest has {counted(most_cpus, 'CPU')}, {most_memory_gib} GiB")
    check_disk(spec.disk_gib)
    return Choice(size(spec.cpus, spec.memory_gib, spec.arch), "any size can be had")


def check_disk(size_gib: int) -> None:
    """Refuse a disk that is larger than QEMU makes any, whatever room there is.

    Raises:
        FilesError: it is.
    """
    if size_gib > _MOST_DISK_GIB:
        why = f"no disk has {size_gib:,} GiB; the largest that QEMU makes has {_MOST_DISK_GIB:,} GiB"
        raise FilesError(Fault(InvalidArgument, why))


def forwarded(spec: FleetSpec) -> tuple[Rule, ...]:
    """Return what is open, where QEMU leads each port to a machine."""
    ports = sum(rule.last - rule.port + 1 for rule in spec.firewall)
    if ports > _MOST_PORTS:
        why = f"{ports:,} ports are open; QEMU leads at most {_MOST_PORTS} to a machine, one by one"
        raise FilesError(Fault(InvalidArgument, why))
    return spec.firewall


def native(spec: FleetSpec) -> QemuMachineSettings:
    """Return what is declared of the provider's own."""
    return spec.native if isinstance(spec.native, QemuMachineSettings) else QemuMachineSettings()


def disk_gib(spec: FleetSpec, image: int) -> int:
    """Return the size of a disk: a smaller one than the image's, in bytes, would cut it off."""
    return max(spec.disk_gib, -(-image // GIB))


def page(items: Sequence[T], cursor: str | None, count: int) -> Page[T]:
    """Return so many items from where the cursor, a number, is."""
    start = int(cursor or 0)
    shown = tuple(islice(items, start, start + count))
    end = start + len(shown)
    return Page(shown, str(end) if end < len(items) else None)

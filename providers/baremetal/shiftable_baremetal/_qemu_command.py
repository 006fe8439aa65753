"""The command line of one machine's QEMU. No secret is in it: what cloud-init reads is on a disk."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from shiftable_baremetal._qemu_files import Definition
from shiftable_baremetal._qemu_probe import Accelerator, board

__all__ = ["command"]

_MIB = 2**20


def command(
    program: str, firmware: Path | None, machine: Definition, chosen: Accelerator, disks: Mapping[str, Path]
) -> list[str]:
    """Return it; paths of the machine's own files are relative to its folder.

    Args:
        firmware: what the machine starts by, in place of what QEMU takes.
        disks: those that are attached, by their ids.
    """
    return [
        *(program, "-name", machine.name, "-nodefaults", "-no-user-config"),
        *board(machine.arch, chosen),
        *_firmware(machine, firmware),
        *("-smp", str(machine.cpus), "-m", str(machine.memory // _MIB)),
        *_disk("root", "disk", "virtio-blk-pci,drive=root,bootindex=1"),
        *_seed(),
        *("-device", "virtio-scsi-pci,id=scsi"),
        *(word for id_, path in disks.items() for word in _disk(id_, str(path), _data_device(id_))),
        *("-device", "virtio-rng-pci"),
        *_network(machine),
        *("-chardev", "file,id=console,path=console", "-serial", "chardev:console"),
        *("-qmp", "unix:monitor,server=on,wait=off", "-pidfile", "pid"),
        *_kernel(machine),
    ]


def _firmware(machine: Definition, path: Path | None) -> tuple[str, ...]:
    """Return what it starts by. What UEFI would keep until the next start is not kept."""
    if path is None:
        return ()
    if machine.arch == "arm64":
        return ("-bios", str(path))
    escaped = str(path).replace(",", ",,")  # larger ones than 2 MiB are no BIOS of this board, and all are its flash
    return ("-drive", f"if=pflash,unit=0,format=raw,readonly=on,file={escaped}")


def _disk(id_: str, path: str, device: str) -> tuple[str, ...]:
    """Return a disk. Where the computer's is full, the machine stands still instead of losing data."""
    escaped = path.replace(",", ",,")
    content = f"driver=qcow2,node-name={id_},discard=unmap,file.driver=file,file.filename={escaped}"
    return ("-blockdev", content, "-device", device)


def _data_device(id_: str) -> str:
    return f"scsi-hd,bus=scsi.0,drive={id_},id={id_},serial={id_}"


def _seed() -> tuple[str, ...]:
    content = "driver=raw,node-name=seed,read-only=on,file.driver=file,file.filename=seed"
    return ("-blockdev", content, "-device", "virtio-blk-pci,drive=seed")


def _network(machine: Definition) -> tuple[str, ...]:
    """Return a network of the machine's own. The firmware starts nothing from it."""
    forwards = "".join(f",hostfwd={protocol}:127.0.0.1:0-:{port}" for protocol, port in sorted(machine.forwarded))
    return ("-netdev", f"user,id=net{forwards}", "-device", "virtio-net-pci,netdev=net,romfile=")


def _kernel(machine: Definition) -> tuple[str, ...]:
    if machine.kernel is None:
        return ()
    initrd = ("-initrd", machine.initrd) if machine.initrd is not None else ()
    return ("-kernel", machine.kernel, *initrd, "-append", machine.append)

"""Machines of x86_64 whose image has nothing for BIOS: UEFI starts them."""

from __future__ import annotations

import shutil
import struct
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from shiftable.compute import DiskImage
from shiftable_baremetal import QemuMachineSettings

from ..baremetal import gpt
from . import guest
from .guest import PATIENCE, says
from .qemu_lab import Lab, opened, programs


@pytest.fixture(scope="module")
def _made(debian: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = programs(debian, tmp_path_factory.mktemp("qemu"))
    guest.initrd(debian.root, guest.libraries(debian), folder / "initrd")
    return folder


@pytest.fixture
def lab(debian: Any, _made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    with opened(_made, guest.kernel(debian.root), tmp_path, monkeypatch) as made:
        yield made


def bootable(debian: Any, folder: Path, files: Path) -> Path:
    """Return a disk whose one partition is UEFI's, with these files."""
    fat, disk = folder / "fat", folder / "disk"
    debian.run("qemu-img", "convert", "-f", "vvfat", "-O", "raw", f"fat:{files}", fat)
    with fat.open("rb") as file:
        first, count = struct.unpack("<II", file.read(512)[454:462])
        file.seek(first * 512)
        content = file.read(count * 512)
    gpt.write(folder / "raw", [(gpt.SYSTEM, content)])
    debian.run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", "-c", folder / "raw", disk)
    for path in (fat, folder / "raw"):
        path.unlink()
    return disk


def test_a_machine_lives_its_whole_life(debian: Any, lab: Lab) -> None:
    """The kernel is a program of UEFI, and UEFI's shell, where there is no boot loader, starts it with its RAM disk."""
    files = lab.folder / "files"
    files.mkdir()
    shutil.copy(lab.kernel, files / "kernel.efi")
    shutil.copy(lab.initrd, files / "initrd")
    (files / "startup.nsh").write_text("kernel.efi initrd=\\initrd console=ttyS0 quiet panic=1\r\n")
    disk = bootable(debian, lab.folder, files)
    compute = lab.compute()
    spec = lab.spec(image=str(disk), native=QemuMachineSettings())
    machine = compute.create(spec).machine("web-0")

    assert says(machine, "hostname; ls -d /sys/firmware/efi").split() == ["web-0", "/sys/firmware/efi"]
    boot = says(machine, "cat /proc/sys/kernel/random/boot_id")
    machine.reboot()
    while says(machine, "cat /proc/sys/kernel/random/boot_id") == boot:
        time.sleep(0.1)
    says(machine, "echo kept | dd of=/dev/vda bs=512 seek=40 conv=fsync 2>/dev/null")
    machine.stop()
    machine.wait("stopped", timeout=timedelta(seconds=PATIENCE))
    assert b"powering down" in machine.console()
    machine.start()
    assert says(machine, "dd if=/dev/vda bs=512 skip=40 count=1 2>/dev/null | head -c 4") == "kept"

    image = machine.snapshot("golden")
    compute.delete("web")
    copy = compute.create(lab.spec(image=image.id, native=QemuMachineSettings())).machine("web-0")
    assert says(copy, "ls -d /sys/firmware/efi") == "/sys/firmware/efi"


def test_an_imported_image_starts_by_its_boot_loader(debian: Any, lab: Lab) -> None:
    (lab.folder / "files/EFI/BOOT").mkdir(parents=True)
    shutil.copy(lab.kernel, lab.folder / "files/EFI/BOOT/BOOTX64.EFI")
    blobs = guest.bucket_with_file(bootable(debian, lab.folder, lab.folder / "files"))
    compute = lab.compute(blobs=lambda: blobs)
    image = compute.import_image("booting", DiskImage(bucket="images", key="disk", form="qcow2", firmware="uefi"))
    machine = compute.create(lab.spec(image=image.id, native=QemuMachineSettings())).machine("web-0")
    end = time.monotonic() + PATIENCE
    while b"BdsDxe: starting Boot" not in machine.console():  # then the kernel says nothing: it has no console
        assert time.monotonic() < end, machine.console()
        time.sleep(0.2)


def test_an_image_for_both_starts_by_bios(lab: Lab) -> None:
    disk = gpt.write(lab.folder / "both", [(gpt.BIOS_BOOT, bytes(512)), (gpt.SYSTEM, bytes(2**20))])
    machine = lab.compute().create(lab.spec(image=str(disk), native=QemuMachineSettings())).machine("web-0")
    machine.wait()
    assert b"BdsDxe" not in machine.console()
    (number,) = lab.processes()
    assert b"pflash" not in Path(f"/proc/{number}/cmdline").read_bytes()

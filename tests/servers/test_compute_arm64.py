"""Machines of arm64, simulated by QEMU: they start by UEFI, and live as all others do."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from shiftable.compute import DiskImage
from shiftable.errors import InvalidArgument
from shiftable_baremetal import QemuMachineSettings, _qemu_probe
from shiftable_baremetal._qemu_process import Programs

from . import guest
from .conftest import ARM64
from .guest import PATIENCE, says
from .qemu_lab import Lab, opened, programs

pytestmark = pytest.mark.skipif(
    not ARM64.is_dir(), reason="apt knows no packages of arm64: run `python tests/servers/install.py` as root"
)


@pytest.fixture(scope="module")
def _made(debian: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = programs(debian, tmp_path_factory.mktemp("qemu"))
    guest.initrd(ARM64, guest.foreign_libraries(ARM64), folder / "initrd")
    return folder


@pytest.fixture
def lab(_made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    with opened(_made, guest.kernel(ARM64), tmp_path, monkeypatch, "arm64") as made:
        yield made


def test_a_machine_lives_its_whole_life(lab: Lab) -> None:
    compute = lab.compute()
    machine = compute.create(lab.spec(user_data_text="#!/bin/sh\necho made\n", cpus=2)).machine("web-0")

    assert says(machine, "uname -m; hostname; nproc").split() == ["aarch64", "web-0", "2"]
    assert "echo made" in says(machine, "cat /run/user-data")
    info = machine.info()
    assert (info.arch, info.size) == ("arm64", "2-1-arm64")
    boot = says(machine, "cat /proc/sys/kernel/random/boot_id")
    says(machine, "echo kept | dd of=/dev/vda conv=fsync 2>/dev/null")
    disk = compute.create_disk("data", size_gib=1)
    machine.attach(disk.id)
    there = "/sys/block/sda/device/vpd_pg80"
    assert says(machine, f"until [ -e {there} ]; do sleep 0.1; done; tail -c +5 {there}") == disk.id
    machine.detach(disk.id)

    machine.reboot()
    while says(machine, "cat /proc/sys/kernel/random/boot_id") == boot:
        time.sleep(0.1)
    machine.stop()
    assert machine.wait("stopped", timeout=timedelta(seconds=PATIENCE)).addresses == ()
    assert b"powering down" in machine.console()
    image = machine.snapshot("golden")
    assert image.arch == "arm64"
    machine.start()
    assert says(machine, "head -c 4 /dev/vda") == "kept"
    compute.delete("web")
    assert lab.processes() == []

    with pytest.raises(InvalidArgument, match="'golden' is for arm64, not x86_64"):
        compute.create(lab.spec(image="golden", arch="x86_64", native=None))
    copy = compute.create(lab.spec(image="golden")).machine("web-0")
    assert says(copy, "head -c 4 /dev/vda") == "kept"


def test_a_machine_starts_from_its_disk_alone(debian: Any, lab: Lab) -> None:
    """The kernel is a program of UEFI, too, and where UEFI looks for a boot loader."""
    (lab.folder / "efi/EFI/BOOT").mkdir(parents=True)
    shutil.copy(lab.kernel, lab.folder / "efi/EFI/BOOT/BOOTAA64.EFI")
    debian.run("qemu-img", "convert", "-f", "vvfat", "-O", "qcow2", f"fat:{lab.folder}/efi", lab.folder / "disk")
    blobs = guest.bucket_with_file(lab.folder / "disk")
    compute = lab.compute(blobs=lambda: blobs)
    image = compute.import_image("booting", DiskImage(bucket="images", key="disk", form="qcow2", arch="arm64"))
    machine = compute.create(lab.spec(image=image.id, native=QemuMachineSettings())).machine("web-0")

    end = time.monotonic() + PATIENCE
    while b"Unable to mount root" not in machine.console():  # it is a kernel alone
        assert time.monotonic() < end, machine.console()
        time.sleep(0.2)
    assert image.arch == "arm64"
    assert b"EFI stub: Booting Linux Kernel" in machine.console()


def test_the_probe_ends_in_software(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    program = Programs(lab.programs).system("arm64")
    assert _qemu_probe._seconds(program, "arm64", "tcg", PATIENCE) is not None
    monkeypatch.setattr(_qemu_probe, "_FIRMWARE", (0x14000000).to_bytes(4, "little"))  # b .
    assert _qemu_probe._seconds(program, "arm64", "tcg", 3) is None


def test_nothing_accelerates_another_architecture(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    lab.root.mkdir()
    monkeypatch.setattr(_qemu_probe, "_candidate", lambda: "kvm")
    monkeypatch.setattr(_qemu_probe.platform, "machine", lambda: "x86_64")
    program = Programs(lab.programs).system("arm64")
    assert _qemu_probe.accelerator(program, lab.root / "note", "arm64") == "tcg"
    assert not (lab.root / "note").exists()  # it was not even tried
    monkeypatch.setattr(_qemu_probe.platform, "machine", lambda: "aarch64")
    assert _qemu_probe.accelerator(program, lab.root / "note", "arm64") == "tcg"  # this one knows no KVM
    assert json.loads((lab.root / "note").read_text())["accelerator"] == "tcg"

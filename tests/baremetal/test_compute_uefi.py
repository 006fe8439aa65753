"""Images of x86_64 that have nothing for BIOS start by UEFI; QEMU's programs are stood in for."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import attrs
import pytest

from shiftable.blob import BlobStore, BucketSpec
from shiftable.compute import Compute, DiskImage, FleetSpec
from shiftable.errors import ConfigError, InvalidArgument
from shiftable.memory.blob import MemoryBlobDriver
from shiftable.testing.conformance.compute import small_fleet
from shiftable_baremetal import QemuMachineSettings
from shiftable_baremetal._libvirt_settings import LibvirtSettings
from shiftable_baremetal._partitions import HEAD, needs_uefi
from shiftable_baremetal.compute_libvirt import open_libvirt

from . import gpt

ONLY_UEFI = [(gpt.DATA, bytes(512)), (gpt.SYSTEM, bytes(512))]


def head(path: Path) -> bytes:
    return path.read_bytes()[: HEAD * 512]


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return gpt.write(tmp_path / "only,uefi", ONLY_UEFI)


@pytest.fixture
def compute(qemu: Any) -> Compute:
    found: Compute = qemu.compute()
    return found


def of(image: Path | str, **more: Any) -> FleetSpec:
    return attrs.evolve(small_fleet(), image=str(image), **more)


def flashes(qemu: Any) -> list[str | None]:
    """Return what each machine that was started had for its firmware."""
    calls = [json.loads(line) for line in qemu.calls().splitlines()]
    return [dict(itertools.pairwise(call)).get("-drive") for call in calls if "-daemonize" in call]


# the disk


def test_a_disk_needs_uefi_that_has_nothing_for_bios(image: Path) -> None:
    assert needs_uefi(head(image))


def test_the_last_of_all_partitions_counts(tmp_path: Path) -> None:
    many = [*itertools.repeat((gpt.DATA, bytes(512)), 127), (gpt.SYSTEM, bytes(512))]
    assert needs_uefi(head(gpt.write(tmp_path / "disk", many)))


@pytest.mark.parametrize(
    ("partitions", "boot_code"),
    [
        ([*ONLY_UEFI, (gpt.BIOS_BOOT, bytes(512))], b""),
        (ONLY_UEFI, b"\xeb\x63"),
        ([(gpt.DATA, bytes(512))], b""),
        ([], b""),
    ],
    ids=["for both", "boot code", "no system partition", "empty"],
)
def test_a_disk_that_may_be_for_bios_does_not(tmp_path: Path, partitions: Any, boot_code: bytes) -> None:
    assert not needs_uefi(head(gpt.write(tmp_path / "disk", partitions, boot_code)))


def test_boot_code_alone_is_that(tmp_path: Path) -> None:
    """Behind it lie the signature of the disk, which partitioners write, and the old table."""
    assert needs_uefi(head(gpt.write(tmp_path / "disk", ONLY_UEFI, bytes(440) + b"\x12\x34\x56\x78")))
    assert not needs_uefi(head(gpt.write(tmp_path / "disk", ONLY_UEFI, bytes(439) + b"\x90")))


def test_a_table_that_is_none_is_none_of_uefi(image: Path) -> None:
    whole = head(image)
    for odd in (b"", whole[:512], whole[:600], whole[:1024], bytes(HEAD * 512), b"\xff" * HEAD * 512):
        assert not needs_uefi(odd)
    for place, odd in ((72, b"\xff" * 8), (80, bytes(4)), (84, bytes(4)), (84, b"\xff" * 4), (0, b"EFI PARK")):
        assert not needs_uefi(whole[: 512 + place] + odd + whole[512 + place + len(odd) :])


# the machine


def test_such_a_machine_starts_by_uefi_each_time(qemu: Any, compute: Compute, image: Path) -> None:
    machine = compute.create(of(image)).machine("conf-0")
    machine.wait()
    machine.stop()
    machine.wait("stopped")
    machine.start()
    path = f"{qemu.programs}/edk2-x86_64-code.fd"
    assert flashes(qemu) == [f"if=pflash,unit=0,format=raw,readonly=on,file={path}"] * 2


def test_others_start_by_bios(qemu: Any, compute: Compute, tmp_path: Path) -> None:
    both = gpt.write(tmp_path / "both", [*ONLY_UEFI, (gpt.BIOS_BOOT, bytes(512))])
    for name, spec in {"a": of(both), "b": small_fleet()}.items():
        compute.create(attrs.evolve(spec, name=name)).wait()
    assert flashes(qemu) == [None, None]


def test_a_kernel_that_is_declared_needs_no_firmware(qemu: Any, compute: Compute, image: Path) -> None:
    native = QemuMachineSettings(kernel=image)
    machine = compute.create(of(image, native=native)).machine("conf-0")
    machine.wait()
    assert flashes(qemu) == [None]
    machine.snapshot("golden")  # which may start without the kernel
    assert "firmware" not in json.loads(next(qemu.root.rglob("facts.json")).read_text())


def test_a_snapshot_starts_as_its_machine_did(qemu: Any, compute: Compute, image: Path) -> None:
    machine = compute.create(of(image)).machine("conf-0")
    machine.wait()
    machine.snapshot("golden")
    compute.create(of("golden", name="copy")).wait()
    assert None not in flashes(qemu)
    assert len(flashes(qemu)) == 2


@pytest.mark.parametrize(("arch", "firmware"), [("x86_64", "bios"), ("arm64", "uefi")])
def test_a_machine_of_before_starts_as_it_did(qemu: Any, compute: Compute, arch: Any, firmware: str) -> None:
    machine = compute.create(attrs.evolve(small_fleet(), arch=arch)).machine("conf-0")
    machine.wait()
    machine.stop()
    machine.wait("stopped")
    file = next(qemu.root.rglob("machine.json"))
    told = json.loads(file.read_text())
    assert told.pop("firmware") == firmware
    file.write_text(json.dumps(told))
    machine.start()  # the board says no if it has not what it needs
    assert flashes(qemu) == [None, None]


@pytest.mark.parametrize("firmware", ["bios", "uefi"])
def test_an_image_is_imported_for_what_is_said_or_seen(qemu: Any, tmp_path: Path, firmware: Any) -> None:
    blobs = MemoryBlobDriver()
    bucket = BlobStore(blobs).create(BucketSpec(name="images"))
    bucket.put("both", gpt.write(tmp_path / "both", [*ONLY_UEFI, (gpt.BIOS_BOOT, bytes(512))]))
    bucket.put("only", gpt.write(tmp_path / "only", ONLY_UEFI))
    compute = qemu.compute(blobs=lambda: blobs)
    for key in ("both", "only"):
        compute.import_image(key, DiskImage(bucket="images", key=key, form="raw", firmware=firmware))
        compute.create(of(key, name=key)).wait()
    assert [flash is not None for flash in flashes(qemu)] == [firmware == "uefi", True]


def test_without_uefi_it_is_said_how_to_get_it_and_nothing_is_left(qemu: Any, compute: Compute, image: Path) -> None:
    (qemu.programs / "edk2-x86_64-code.fd").unlink()
    assert compute.missing_features(of(image)) == ()  # the image may not be here yet
    why = "machines of an image that has nothing for BIOS need UEFI, which is not beside QEMU: apt install ovmf, or"
    with pytest.raises(ConfigError, match=why):
        compute.create(of(image))
    assert qemu.left() == []
    compute.create(small_fleet()).wait()


@pytest.mark.parametrize(
    "place", ["OVMF/OVMF_CODE_4M.fd", "edk2/ovmf/OVMF_CODE.fd", "edk2/x64/OVMF_CODE.4m.fd", "qemu/edk2-x86_64-code.fd"]
)
def test_uefi_is_found_where_distributions_have_it(qemu: Any, compute: Compute, image: Path, place: str) -> None:
    (qemu.programs / "edk2-x86_64-code.fd").unlink()
    path = qemu.folder / "share" / place
    path.parent.mkdir(parents=True)
    path.write_bytes(b"UEFI")
    (qemu.folder / "share/qemu").mkdir(exist_ok=True)
    qemu.order("data", f"{qemu.folder}/nowhere\n{qemu.folder}/share/qemu\n")
    compute.create(of(image)).wait()
    (flash,) = flashes(qemu)
    assert flash is not None
    assert flash.endswith(f",file={path}")


def test_a_hypervisor_refuses_what_starts_by_uefi(tmp_path: Path) -> None:
    driver = open_libvirt(LibvirtSettings(), tmp_path, MemoryBlobDriver)
    source = DiskImage(bucket="images", key="disk", form="raw", firmware="uefi")
    with pytest.raises(InvalidArgument, match="machines here start by bios, not by uefi"):
        Compute(driver).import_image("golden", source)

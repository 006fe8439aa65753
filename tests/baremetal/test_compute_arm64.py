"""Machines of arm64 on a workstation: another QEMU, UEFI, images of their own; QEMU's programs are stood in for."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import attrs
import pytest

from shiftable import load
from shiftable.blob import BlobStore, BucketSpec
from shiftable.compute import ALIASES, Compute, DiskImage, FleetSpec
from shiftable.errors import ConfigError, InvalidArgument, Unsupported
from shiftable.memory.blob import MemoryBlobDriver
from shiftable.testing.conformance.compute import small_fleet
from shiftable_baremetal import _qemu_probe
from shiftable_baremetal._qemu_images import SOURCES, SOURCES_ARM64


def small() -> FleetSpec:
    return attrs.evolve(small_fleet(), arch="arm64")


@pytest.fixture
def compute(qemu: Any) -> Compute:
    found: Compute = qemu.compute()
    return found


def commands(qemu: Any) -> list[list[str]]:
    calls = [json.loads(line) for line in qemu.calls().splitlines()]
    return [call for call in calls if "-daemonize" in call]


def arch_of(compute: Compute, name: str) -> str:
    (arch,) = (image.arch for image in compute.images() if image.name == name)
    return arch


def test_a_machine_has_another_qemu_and_uefi(qemu: Any, compute: Compute) -> None:
    (info,) = compute.create(small()).wait()
    (command,) = commands(qemu)
    assert command[0] == "qemu-system-aarch64"
    words = dict(itertools.pairwise(command))
    assert words["-machine"] == "virt,gic-version=max,accel=tcg"
    assert words["-cpu"] == "max,pauth-impdef=on"
    assert words["-bios"] == str(qemu.programs / "edk2-aarch64-code.fd")
    assert (info.arch, info.size) == ("arm64", "1-1-arm64")

    machine = compute.fleet("conf").machine("conf-0")
    machine.stop()
    machine.wait("stopped")
    machine.resize(cpus=2, memory_gib=2)
    machine.start()
    assert machine.info().size == "2-2-arm64"
    assert [each[0] for each in commands(qemu)] == ["qemu-system-aarch64"] * 2


def test_machines_of_both_kinds_live_side_by_side(compute: Compute) -> None:
    compute.create(small_fleet("one")).wait()
    compute.create(attrs.evolve(small_fleet("two"), arch="arm64")).wait()
    assert {each.name: each.info().arch for fleet in compute.list() for each in fleet.machines()} == {
        "one-0": "x86_64",
        "two-0": "arm64",
    }


@pytest.mark.parametrize("gone", ["qemu-system-aarch64", "qemu-img", "edk2-aarch64-code.fd"])
def test_what_is_missing_is_said_with_how_to_get_it(qemu: Any, compute: Compute, gone: str) -> None:
    assert compute.missing_features(small()) == ()
    (qemu.programs / gone).unlink()
    (why,) = compute.missing_features(small())
    assert "apt install qemu-system-arm qemu-efi-aarch64 qemu-utils" in why
    assert ("UEFI" in why) is gone.endswith(".fd")
    with pytest.raises(Unsupported, match="apt install qemu-system-arm"):
        compute.create(small())
    if gone != "qemu-img":
        assert compute.missing_features(small_fleet()) == ()


def test_a_machine_whose_firmware_has_gone_says_so(qemu: Any, compute: Compute) -> None:
    machine = compute.create(small()).machine("conf-0")
    machine.wait()
    machine.stop()
    machine.wait("stopped")
    (qemu.programs / "edk2-aarch64-code.fd").rename(qemu.folder / "elsewhere")
    with pytest.raises(ConfigError, match="machines of arm64 need UEFI, which is not beside QEMU: apt install"):
        machine.start()


@pytest.mark.parametrize(
    "place", ["share/qemu-efi-aarch64/QEMU_EFI.fd", "share/edk2/aarch64/QEMU_EFI.fd", "share/qemu/edk2-aarch64-code.fd"]
)
def test_uefi_is_found_where_distributions_have_it(qemu: Any, compute: Compute, place: str) -> None:
    (qemu.programs / "edk2-aarch64-code.fd").unlink()
    path = qemu.folder / place
    path.parent.mkdir(parents=True)
    path.write_bytes(b"UEFI")
    (qemu.folder / "share/qemu").mkdir(exist_ok=True)
    qemu.order("data", f"{qemu.folder}/nowhere\n{qemu.folder}/share/qemu\n")
    compute.create(small()).wait()
    (command,) = commands(qemu)
    assert command[command.index("-bios") + 1] == str(path)


def test_images_are_of_one_kind(qemu: Any, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.write_bytes(bytes(2**20))
    arm = {alias: qemu.folder / "images" / alias for alias in ALIASES} | {"mine": mine}
    compute = qemu.compute(own_arm64=arm)
    listed = [(image.name, image.arch) for image in compute.images()]
    assert listed == [*((alias, "x86_64") for alias in ALIASES), *((alias, "arm64") for alias in [*ALIASES, "mine"])]

    with pytest.raises(InvalidArgument, match="there is no image 'mine': it is debian-12"):
        compute.create(attrs.evolve(small_fleet(), image="mine"))
    machine = compute.create(attrs.evolve(small(), image="mine")).machine("conf-0")
    machine.wait()
    with pytest.raises(InvalidArgument, match="mine is the name of another image already"):
        machine.snapshot("mine")
    taken = machine.snapshot("golden")
    assert (taken.arch, arch_of(compute, "golden")) == ("arm64", "arm64")
    with pytest.raises(InvalidArgument, match="the image 'golden' is for arm64, not x86_64"):
        compute.create(attrs.evolve(small_fleet("other"), image="golden"))
    (copy,) = compute.create(attrs.evolve(small(), name="copy", image="golden")).wait()
    assert copy.arch == "arm64"


def test_a_snapshot_that_says_no_architecture_is_of_x86_64(qemu: Any, compute: Compute) -> None:
    """As those that were made before there was another."""
    machine = compute.create(small_fleet()).machine("conf-0")
    machine.wait()
    machine.snapshot("golden")
    facts = next(qemu.root.rglob("facts.json"))
    told = json.loads(facts.read_text())
    assert told.pop("arch") == "x86_64"
    facts.write_text(json.dumps(told))
    assert arch_of(compute, "golden") == "x86_64"
    compute.create(attrs.evolve(small_fleet("more"), image="golden")).wait()


def test_an_image_is_imported_for_arm64(qemu: Any, tmp_path: Path) -> None:
    blobs = MemoryBlobDriver()
    (tmp_path / "disk").write_bytes(bytes(2**20))
    BlobStore(blobs).create(BucketSpec(name="images")).put("disk", tmp_path / "disk")
    compute = qemu.compute(blobs=lambda: blobs)
    image = compute.import_image("golden", DiskImage(bucket="images", key="disk", form="raw", arch="arm64"))
    assert (image.arch, image.ready) == ("arm64", True)
    (info,) = compute.create(attrs.evolve(small(), image="golden")).wait()
    assert info.arch == "arm64"


def test_an_alias_is_published_for_both() -> None:
    assert SOURCES.keys() == SOURCES_ARM64.keys() == set(ALIASES)
    for alias, source in SOURCES_ARM64.items():
        assert source.url == SOURCES[alias].url.replace("amd64", "arm64")
        assert source.sums == SOURCES[alias].sums


def test_an_image_of_ones_own_is_declared_with_its_architecture(tmp_path: Path) -> None:
    (tmp_path / "shiftable.toml").write_text(
        """
        [project]
        name = "shop"
        [environments.production]
        provider = "here"
        [providers.here]
        type = "baremetal"
        [[providers.here.qemu.images]]
        name = "golden"
        file = "/images/x86"
        [[providers.here.qemu.images]]
        name = "golden"
        arch = "arm64"
        file = "/images/arm"
        [compute.web]
        image = "golden"
        cpus = 1
        memory_gib = 1
        """
    )
    driver: Any = load(tmp_path / "shiftable.toml").compute("web")._driver
    assert (driver._own, driver._own_arm64) == ({"golden": Path("/images/x86")}, {"golden": Path("/images/arm")})


def test_each_architecture_has_an_acceleration_of_its_own(qemu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_qemu_probe, "_candidate", lambda: "kvm")
    monkeypatch.setattr(_qemu_probe.platform, "machine", lambda: "aarch64")
    compute = qemu.compute(accelerator="auto")
    compute.create(small()).wait()
    compute.create(small_fleet("one")).wait()
    calls = [json.loads(line) for line in qemu.calls().splitlines()]
    probes = [call for call in calls if "stdio" in call or any("isa-debug-exit" in word for word in call)]
    assert [(call[0], call[call.index("-machine") + 1]) for call in probes] == [
        ("qemu-system-aarch64", "virt,gic-version=max,accel=tcg"),
        ("qemu-system-aarch64", "virt,gic-version=max,accel=kvm"),
    ]
    machine = next(call for call in calls if "-daemonize" in call)
    assert "virt,gic-version=max,accel=tcg" in machine  # KVM said nothing
    assert (qemu.root / ".accelerator-arm64.json").is_file()
    assert not (qemu.root / ".accelerator.json").exists()

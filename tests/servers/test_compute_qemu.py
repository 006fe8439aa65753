"""Machines of QEMU itself: booted, logged in to, rebooted, stopped, started, copied, deleted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import attrs
import pytest

from shiftable.blob import BlobStore
from shiftable.compute import DiskImage, Machine
from shiftable.errors import InvalidArgument, OperationError
from shiftable_baremetal import QemuMachineSettings
from shiftable_baremetal._qemu_probe import accelerator
from shiftable_baremetal._qemu_process import ProgramError, Programs

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


def up(machine: Machine) -> None:
    end = time.monotonic() + PATIENCE
    while b" is up" not in machine.console():
        assert time.monotonic() < end, machine.console()
        time.sleep(0.1)


def test_a_machine_lives_its_whole_life(lab: Lab) -> None:
    compute = lab.compute()
    fleet = compute.create(lab.spec(user_data_text="#!/bin/sh\necho made\n"))
    machine = fleet.machine("web-0")
    assert machine.wait().addresses == ("127.0.0.1",)
    up(machine)
    assert b"web-0 is up" in machine.console()

    assert says(machine, "hostname") == "web-0"
    assert says(machine, "whoami; cat ~/.ssh/authorized_keys") == f"ops\n{lab.key}"
    assert "echo made" in says(machine, "cat /run/user-data")
    assert machine.run(["sh", "-c", "echo no >&2; exit 3"]).exit_code == 3

    boot = says(machine, "cat /proc/sys/kernel/random/boot_id")
    says(machine, "echo kept | dd of=/dev/vda conv=fsync 2>/dev/null")
    machine.reboot()
    while says(machine, "cat /proc/sys/kernel/random/boot_id") == boot:
        time.sleep(0.1)
    assert says(machine, "head -c 4 /dev/vda") == "kept"

    machine.stop()
    assert machine.wait("stopped", timeout=timedelta(seconds=PATIENCE)).addresses == ()
    assert b"powering down" in machine.console()
    assert lab.processes() == []
    machine.resize(cpus=2, memory_gib=2)
    machine.start()
    assert says(machine, "head -c 4 /dev/vda; echo; nproc").split() == ["kept", "2"]
    assert int(says(machine, "sed -n 's/MemTotal: *\\([0-9]*\\) kB/\\1/p' /proc/meminfo")) > 1_500_000

    assert len(lab.processes()) == 1
    compute.delete("web")
    assert lab.processes() == []
    assert [path.name for path in lab.root.iterdir() if path.is_dir() or path.stat().st_size] == []
    assert not compute.exists("web")


def test_disks_are_attached_while_a_machine_runs_and_copied(lab: Lab) -> None:
    compute = lab.compute()
    machine = compute.create(lab.spec()).machine("web-0")
    says(machine, "true")
    disk = compute.create_disk("data", 2)
    machine.attach(disk.id)
    assert says(machine, "until [ -e /sys/block/sda/size ]; do sleep 1; done; cat /sys/block/sda/size") == "4194304"
    assert disk.id in says(machine, "tr -cd a-z0-9- < /sys/block/sda/device/vpd_pg80")
    says(
        machine, "echo data | dd of=/dev/sda conv=fsync 2>/dev/null; echo root | dd of=/dev/vda conv=fsync 2>/dev/null"
    )
    snapshot = compute.snapshot_disk(disk.id, "daily")
    image = machine.snapshot("golden")
    assert machine.info().raw_state == "running"
    machine.detach(disk.id)
    assert says(machine, "until [ ! -e /sys/block/sda ]; do sleep 1; done; echo gone") == "gone"

    copy = compute.create_disk("copy", 3, zone=None, snapshot=snapshot.id)
    twin = compute.create(attrs.evolve(lab.spec(image=image.id), name="twin")).machine("twin-0")
    says(twin, "true")
    twin.attach(copy.id)
    assert says(twin, "until [ -e /sys/block/sda/size ]; do sleep 1; done; cat /sys/block/sda/size") == "6291456"
    assert says(twin, "head -c 4 /dev/sda; head -c 4 /dev/vda; hostname") == "dataroottwin-0"
    twin.stop()
    twin.wait("stopped", timeout=timedelta(seconds=PATIENCE))
    twin.start()
    assert says(twin, "head -c 4 /dev/sda") == "data"
    assert machine.run("hostname").stdout == b"web-0\n"  # each is known by its own key


def test_a_port_is_opened_and_closed_while_a_machine_runs(lab: Lab) -> None:
    compute = lab.compute()
    machine = compute.create(lab.spec()).machine("web-0")
    says(machine, "echo hello > /tmp/index.html; httpd -p 8080 -h /tmp")
    assert sorted(machine.info().ports) == [22]
    spec = lab.spec(open_ports=(8080,))
    for change in compute.diff(spec):
        compute.apply(change)
    outside = machine.info().ports[8080]
    call = [sys.executable, "-c", "import sys, urllib.request as r; print(r.urlopen(sys.argv[1], timeout=60).read())"]
    url = f"http://127.0.0.1:{outside}/index.html"
    assert "hello" in subprocess.run([*call, url], check=True, capture_output=True, text=True).stdout
    for change in compute.diff(lab.spec()):
        compute.apply(change)
    assert sorted(machine.info().ports) == [22]
    assert subprocess.run([*call, url], check=False, capture_output=True).returncode == 1


def test_what_accelerates_is_found_by_booting(lab: Lab) -> None:
    lab.root.mkdir()
    chosen = accelerator(Programs(lab.programs).system(), lab.root / "note")
    candidate = os.access("/dev/kvm", os.R_OK | os.W_OK)
    assert chosen in ({"tcg", "kvm"} if candidate else {"tcg"})
    if candidate:
        assert json.loads((lab.root / "note").read_text())["accelerator"] == chosen
    machine = lab.compute(accelerator="auto").create(lab.spec()).machine("web-0")
    assert says(machine, "hostname") == "web-0"


def test_the_probe_ends_in_software(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    from shiftable_baremetal import _qemu_probe

    program = Programs(lab.programs).system()
    assert _qemu_probe._seconds(program, "x86_64", "tcg", PATIENCE) is not None
    monkeypatch.setattr(_qemu_probe, "_SECTOR", b"\xf4" * 500)  # hlt, and nothing that ends QEMU
    assert _qemu_probe._seconds(program, "x86_64", "tcg", 3) is None


def test_what_qemu_itself_refuses_is_told_and_leaves_nothing(lab: Lab) -> None:
    compute = lab.compute()
    broken = lab.folder / "broken"
    broken.write_bytes(b"QFI\xfb" + bytes(1000))
    with pytest.raises(OperationError, match="broken"):
        compute.create(lab.spec(image=str(broken)))
    with pytest.raises(OperationError, match="could not open kernel file|No such file"):
        compute.create(lab.spec(native=QemuMachineSettings(kernel=lab.folder / "nowhere")))
    assert (lab.processes(), [path for path in lab.root.iterdir() if path.is_dir()]) == ([], [])


@pytest.mark.parametrize("form", ["raw", "qcow2"])
def test_a_machine_starts_from_an_imported_image(debian: Any, lab: Lab, form: Any) -> None:
    blobs = guest.bucket_with_disk(debian, lab.folder, form)
    compute = lab.compute(blobs=lambda: blobs)
    image = compute.import_image("golden", DiskImage(bucket="images", key="disk", form=form))
    machine = compute.create(lab.spec(image=image.id)).machine("web-0")
    assert says(machine, guest.READ_DISK) == guest.ON_DISK
    compute.delete("web")
    compute.delete_image(image.id)
    with pytest.raises(InvalidArgument, match="there is no image 'golden'"):
        compute.create(lab.spec(image=image.id))


def test_a_disk_that_qemu_cannot_open_is_no_image(debian: Any, lab: Lab) -> None:
    blobs = guest.bucket_with_disk(debian, lab.folder, "qcow2")
    bucket = BlobStore(blobs).bucket("images")
    good = bucket.get("disk")
    bucket.put("disk", good[:72] + b"\x80" + good[73:])  # needs something that no QEMU has yet
    compute = lab.compute(blobs=lambda: blobs)
    with pytest.raises(
        InvalidArgument, match="'disk' holds no disk that QEMU could read: .*Unknown incompatible feature"
    ):
        compute.import_image("golden", DiskImage(bucket="images", key="disk", form="qcow2"))
    assert [image for image in compute.images() if image.own] == list(compute.debris()) == []


def test_the_largest_disk_is_the_largest_that_qemu_makes(lab: Lab) -> None:
    largest = 2 * 1024**2
    disk = lab.compute().create_disk("data", largest)
    assert disk.size_gib == largest
    with pytest.raises(ProgramError, match="too large for file format"):
        Programs(lab.programs).image("create", "-q", "-f", "qcow2", lab.folder / "larger", f"{largest + 1}G")
    with pytest.raises(InvalidArgument, match="no disk has 2,097,153 GiB"):
        lab.compute().create_disk("larger", largest + 1)
    lab.compute().delete_disk(disk.id)

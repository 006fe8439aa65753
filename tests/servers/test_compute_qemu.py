"""Machines of QEMU itself: booted, logged in to, rebooted, stopped, started, copied, deleted."""

from __future__ import annotations

import json
import os
import shutil
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
from shiftable.compute import Compute, DiskImage, FleetSpec, Machine
from shiftable.errors import InvalidArgument, OperationError
from shiftable_baremetal import QemuMachineSettings
from shiftable_baremetal._qemu_probe import accelerator
from shiftable_baremetal._qemu_process import Programs
from shiftable_baremetal.compute import QemuComputeDriver

from . import guest
from .guest import PATIENCE, says


@attrs.frozen
class Lab:
    """A root for machines, and what they start from."""

    folder: Path
    programs: Path
    kernel: Path
    initrd: Path
    key: str

    @property
    def root(self) -> Path:
        return self.folder / "root"

    def compute(self, **more: Any) -> Compute:
        own = {"debian-12": self.folder / "empty"}
        given = {"own": own, "accelerator": "tcg", **more}
        return Compute(QemuComputeDriver(self.root, self.programs, **given), sleep=lambda _: time.sleep(0.1))

    def spec(self, **more: Any) -> FleetSpec:
        native = QemuMachineSettings(kernel=self.kernel, initrd=self.initrd, append="console=ttyS0 quiet panic=1")
        given: dict[str, Any] = {"image": "debian-12", "cpus": 1, "memory_gib": 1, "disk_gib": 1, "native": native}
        return FleetSpec(name="web", user="ops", ssh_keys=(self.key,), **{**given, **more})

    def processes(self) -> list[int]:
        """Return the QEMUs of this root, as the system knows them."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdecimal():
                try:
                    descriptors = [str(each.readlink()) for each in (entry / "fd").iterdir()]
                except OSError:
                    continue
                if any(each.startswith(str(self.root)) and each.endswith("/disk") for each in descriptors):
                    found.append(int(entry.name))
        return found


@pytest.fixture(scope="module")
def _made(debian: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make what all machines start from: programs that find their libraries, the RAM disk, an empty image."""
    folder = tmp_path_factory.mktemp("qemu")
    (folder / "programs").mkdir()
    for name in ("qemu-system-x86_64", "qemu-img"):
        program = folder / "programs" / name
        libraries = debian.environ["LD_LIBRARY_PATH"]
        program.write_text(f'#!/bin/sh\nLD_LIBRARY_PATH={libraries} exec {debian.root}/usr/bin/{name} "$@"\n')
        program.chmod(0o755)
    Programs(folder / "programs").image("create", "-q", "-f", "qcow2", folder / "empty", "1G")
    guest.initrd(debian, folder / "initrd")
    return folder


@pytest.fixture
def lab(debian: Any, _made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    """Return a root of one's own, and an ssh that takes the test's key and keeps hosts for the test alone."""
    ssh = shutil.which("ssh")
    assert ssh is not None
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "key"], check=True)
    (tmp_path / "bin").mkdir()
    options = f"-F none -i {tmp_path}/key -o UserKnownHostsFile={tmp_path}/known_hosts"
    (tmp_path / "bin" / "ssh").write_text(f'#!/bin/sh\nexec {ssh} {options} "$@"\n')
    (tmp_path / "bin" / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    shutil.copy(_made / "empty", tmp_path / "empty")
    key = (tmp_path / "key.pub").read_text().strip()
    made = Lab(tmp_path, _made / "programs", guest.kernel(debian.root), _made / "initrd", key)
    yield made
    compute = made.compute()
    for fleet in list(compute.list()):
        compute.delete(fleet.name)


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
    assert _qemu_probe._seconds(program, "tcg", PATIENCE) is not None
    monkeypatch.setattr(_qemu_probe, "_SECTOR", b"\xf4" * 500)  # hlt, and nothing that ends QEMU
    assert _qemu_probe._seconds(program, "tcg", 3) is None


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
    bucket.put("disk", good[:40] + b"\xff" * 8 + good[48:])
    compute = lab.compute(blobs=lambda: blobs)
    with pytest.raises(InvalidArgument, match="'disk' holds no disk that QEMU could read: .*L1 table offset invalid"):
        compute.import_image("golden", DiskImage(bucket="images", key="disk", form="qcow2"))
    assert [image for image in compute.images() if image.own] == list(compute.debris()) == []

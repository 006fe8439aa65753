"""Machines of libvirt in software: booted, logged in to, stopped, copied, deleted; and daemons that are killed."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import attrs
import pytest

from shiftable.compute import Compute, FleetSpec, Machine
from shiftable.errors import Unavailable
from shiftable_baremetal import QemuMachineSettings
from shiftable_baremetal._libvirt_session import Session
from shiftable_baremetal.compute_libvirt import LibvirtComputeDriver

PATIENCE = 180
"""Seconds after which a machine that has not come up never will, on a busy computer that simulates another."""


def beside(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


guest, hypervisor = beside("guest"), beside("hypervisor")


@attrs.frozen
class Lab:
    """A hypervisor, and what its machines start from."""

    host: Any
    folder: Path
    kernel: Path
    initrd: Path
    image: Path
    key: str

    def driver(self, **more: Any) -> LibvirtComputeDriver:
        own = {"debian-12": self.image}
        given = {"network": "user", "accelerator": "tcg", "own": own, **more}
        return LibvirtComputeDriver(Session(given.pop("uri", self.host.uri)), self.folder / "cache", **given)

    def compute(self, **more: Any) -> Compute:
        return Compute(self.driver(**more), sleep=lambda _: time.sleep(0.1))

    def spec(self, **more: Any) -> FleetSpec:
        native = QemuMachineSettings(kernel=self.kernel, initrd=self.initrd, append="console=ttyS0 quiet panic=1")
        given: dict[str, Any] = {"image": "debian-12", "cpus": 1, "memory_gib": 1, "disk_gib": 1, "native": native}
        return FleetSpec(name="web", user="ops", ssh_keys=(self.key,), **{**given, **more})

    def left(self) -> list[str]:
        """Return what is in the pool beside what was uploaded to be shared."""
        return [name for name in self.host.volumes() if ".base." not in name]


@pytest.fixture(scope="module")
def libvirt(debian: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return hypervisor.binding(debian, tmp_path_factory.mktemp("binding"))


@pytest.fixture(scope="module")
def _made(debian: Any, libvirt: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    assert libvirt is not None
    folder = tmp_path_factory.mktemp("guest")
    debian.run("qemu-img", "create", "-q", "-f", "qcow2", folder / "empty", "1G")
    guest.initrd(debian, folder / "initrd")
    return folder


@pytest.fixture
def lab(debian: Any, libvirt: Any, _made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    """Run a hypervisor, and have an ssh that takes the test's key and keeps hosts for the test alone."""
    ssh = shutil.which("ssh")
    assert ssh is not None
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "key"], check=True)
    (tmp_path / "bin").mkdir()
    options = f"-F none -i {tmp_path}/key -o UserKnownHostsFile={tmp_path}/known_hosts"
    (tmp_path / "bin" / "ssh").write_text(f'#!/bin/sh\nexec {ssh} {options} "$@"\n')
    (tmp_path / "bin" / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    key = (tmp_path / "key.pub").read_text().strip()
    with hypervisor.hypervisor(debian, libvirt) as host:
        yield Lab(host, tmp_path, guest.kernel(debian.root), _made / "initrd", _made / "empty", key)


def eventually(act: Callable[[], Any], machine: Machine) -> Any:
    """Do something until it does not fail because the machine is not up yet."""
    end = time.monotonic() + PATIENCE
    while True:
        try:
            return act()
        except Unavailable as exc:
            if time.monotonic() > end:
                console = machine.console().decode(errors="replace")
                pytest.fail(f"{machine} does not come up: {exc}; its console:\n{console}")
            time.sleep(0.2)


def says(machine: Machine, command: str) -> str:
    """Run a command there, and return what it says."""
    done = eventually(lambda: machine.run(command, timeout=timedelta(seconds=60)), machine)
    assert done.exit_code == 0, done
    return str(done.stdout.decode().strip())


def test_a_machine_lives_its_whole_life(lab: Lab) -> None:
    compute = lab.compute()
    machine = compute.create(lab.spec(user_data_text="#!/bin/sh\necho made\n", labels={"a\"<&'\x01é": "]]>\ud7ff"}))
    machine = machine.machine("web-0")
    assert machine.wait().addresses == ("127.0.0.1",)
    assert machine.info().labels["a\"<&'\x01é"] == "]]>\ud7ff"

    assert says(machine, "hostname") == "web-0"
    assert says(machine, "whoami; cat ~/.ssh/authorized_keys") == f"ops\n{lab.key}"
    assert "echo made" in says(machine, "cat /run/user-data")
    assert b"web-0 is up" in machine.console()

    boot = says(machine, "cat /proc/sys/kernel/random/boot_id")
    says(machine, "echo kept | dd of=/dev/vda conv=fsync 2>/dev/null")
    machine.reboot()
    while says(machine, "cat /proc/sys/kernel/random/boot_id") == boot:
        time.sleep(0.1)
    disk = compute.create_disk("data", 2)
    machine.attach(disk.id)
    assert says(machine, "until [ -e /sys/block/sda/size ]; do sleep 1; done; cat /sys/block/sda/size") == "4194304"
    assert disk.id in says(machine, "tr -cd a-z0-9- < /sys/block/sda/device/vpd_pg80")
    says(machine, "echo data | dd of=/dev/sda conv=fsync 2>/dev/null")
    image = machine.snapshot("golden")
    assert machine.info().state == "running"

    machine.stop()
    assert machine.info().state in {"stopping", "stopped"}
    assert machine.wait("stopped", timeout=timedelta(seconds=PATIENCE)).addresses == ()
    assert b"powering down" in machine.console()
    assert lab.host.processes() == []
    machine.resize(cpus=2, memory_gib=2)
    compute.delete("web")
    assert (compute.exists("web"), [found.machine for found in compute.disks()]) == (False, [None])

    twin = compute.create(lab.spec(image=image.id, cpus=2, memory_gib=2)).machine("web-0")
    twin.attach(disk.id)
    assert says(twin, "head -c 4 /dev/vda; head -c 4 /dev/sda; nproc").split() == ["keptdata2"]
    assert int(says(twin, "sed -n 's/MemTotal: *\\([0-9]*\\) kB/\\1/p' /proc/meminfo")) > 1_500_000
    assert len(lab.host.processes()) == 1
    compute.delete("web")
    compute.delete_disk(disk.id)
    compute.delete_image(image.id)
    assert (lab.host.processes(), lab.left(), lab.host.connect().listAllDomains()) == ([], [], [])
    assert not compute.exists("web")
    assert list(compute.debris(older_than=timedelta(0))) == []

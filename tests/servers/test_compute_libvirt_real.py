"""Machines of libvirt in software: booted, logged in to, stopped, copied, deleted; and daemons that are killed."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import attrs
import pytest

from shiftable.compute import Compute, DiskImage, FleetSpec
from shiftable.errors import Conflict, InvalidArgument, Unauthenticated, Unavailable
from shiftable_baremetal import QemuMachineSettings
from shiftable_baremetal._libvirt_session import Session
from shiftable_baremetal.compute_libvirt import LibvirtComputeDriver

from . import guest, hypervisor
from .guest import PATIENCE, says, ssh_of_its_own

SSHD = """
Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host
PidFile none
UsePAM no
StrictModes no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin yes
AuthorizedKeysFile {folder}/key.pub
SetEnv PATH={path} LD_LIBRARY_PATH={libraries}
"""
# A name space of mounts of its own, in which the hypervisor's socket is where libvirt looks for it.
START = """
set -e
mount -t tmpfs tmpfs /run
mkdir /run/sshd
ln -s {host}/run/libvirt /run/libvirt
mount --bind {folder}/passwd /etc/passwd
exec {sshd} -D -e -f {folder}/sshd_config
"""


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
    guest.initrd(debian.root, guest.libraries(debian), folder / "initrd")
    return folder


@pytest.fixture
def lab(debian: Any, libvirt: Any, _made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    """Run a hypervisor, and have an ssh that takes the test's key and keeps hosts for the test alone."""
    key = ssh_of_its_own(tmp_path, monkeypatch)
    with hypervisor.hypervisor(debian, libvirt) as host:
        yield Lab(host, tmp_path, guest.kernel(debian.root), _made / "initrd", _made / "empty", key)


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


@pytest.mark.parametrize("form", ["raw", "qcow2"])
def test_a_machine_starts_from_an_imported_image(debian: Any, lab: Lab, form: Any) -> None:
    blobs = guest.bucket_with_disk(debian, lab.folder, form)
    compute = lab.compute(blobs=lambda: blobs)
    image = compute.import_image("golden", DiskImage(bucket="images", key="disk", form=form))
    machine = compute.create(lab.spec(image=image.id)).machine("web-0")
    assert says(machine, guest.READ_DISK) == guest.ON_DISK
    says(machine, "echo mine | dd of=/dev/vda conv=fsync 2>/dev/null")
    copy = machine.snapshot("copy")
    compute.delete("web")
    compute.delete_image(image.id)
    twin = compute.create(lab.spec(image=copy.id)).machine("web-0")
    assert says(twin, "head -c 4 /dev/vda") == "mine"
    assert says(twin, guest.READ_DISK) == guest.ON_DISK
    compute.delete("web")
    compute.delete_image(copy.id)
    assert (lab.host.processes(), lab.left()) == ([], [])


@pytest.fixture
def by_ssh(debian: Any, own_mounts: None, lab: Lab, request: pytest.FixtureRequest) -> Iterator[str]:
    """Run an ssh server before the hypervisor, and return the address of the two."""
    beside = request.config.pluginmanager.get_plugin(str(Path(__file__).with_name("conftest.py")))
    assert beside is not None
    folder, (port,) = lab.folder, beside.free_ports(1)
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / "host"], check=True)
    kind, key, _ = (folder / "host.pub").read_text().split(" ", 2)
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {kind} {key}\n")
    (folder / "passwd").write_text("root:x:0:0::/root:/bin/sh\nsshd:x:74:74::/run/sshd:/bin/false\n")
    environ = debian.environ
    given = {"path": environ["PATH"], "libraries": environ["LD_LIBRARY_PATH"], "port": port, "folder": folder}
    (folder / "sshd_config").write_text(SSHD.format(**given))
    script = START.format(folder=folder, host=lab.host.folder, sshd=debian.root / "usr/sbin/sshd")
    with debian.running(folder / "log", "unshare", "--mount", "sh", "-c", script) as server:
        beside.wait_until(lambda: beside._listens(port), "sshd", folder / "log", server)
        yield f"qemu+ssh://root@127.0.0.1:{port}/session"


def test_a_hypervisor_is_driven_by_ssh(debian: Any, lab: Lab, by_ssh: str) -> None:
    compute = lab.compute(uri=by_ssh)
    machine = compute.create(lab.spec()).machine("web-0")
    end = time.monotonic() + PATIENCE
    while b"web-0 is up" not in machine.console():
        assert time.monotonic() < end, machine.console()
        time.sleep(0.1)
    machine.stop()
    machine.wait("stopped", timeout=timedelta(seconds=PATIENCE))
    assert [found.seen.state for found in lab.compute().fleet("web").machines()] == ["stopped"]
    compute.delete("web")
    blobs = guest.bucket_with_disk(debian, lab.folder, "raw")
    compute = lab.compute(uri=by_ssh, blobs=lambda: blobs)
    compute.import_image("golden", DiskImage(bucket="images", key="disk", form="raw"))
    (part,) = lab.host.pool.glob("shiftable.import.*")
    assert part.read_bytes() == (lab.folder / "disk.raw").read_bytes()
    compute.delete_image("golden")
    assert (lab.host.processes(), lab.left()) == ([], [])

    (lab.folder / "known_hosts").write_text("")
    with pytest.raises(Unauthenticated, match="Host key verification failed"):
        list(lab.compute(uri=by_ssh).machines())
    with pytest.raises(Unavailable):
        list(lab.compute(uri="qemu+ssh://root@127.0.0.1:1/session").machines())


def test_the_largest_disk_is_the_largest_that_the_hypervisor_makes(lab: Lab) -> None:
    compute, largest = lab.compute(), 2 * 1024**2
    disk = compute.create_disk("data", largest)
    assert disk.size_gib == largest
    for act in (
        lambda: compute.create_disk("larger", largest + 1),
        lambda: compute.create(lab.spec(disk_gib=largest + 1)),
    ):
        with pytest.raises(InvalidArgument, match="no disk has 2,097,153 GiB; the largest that QEMU makes"):
            act()
    compute.delete_disk(disk.id)
    assert lab.left() == []


def test_while_the_pool_is_not_active_it_is_said_how_to_start_it_and_no_machine_is_deleted(lab: Lab) -> None:
    compute = lab.compute()
    machine = compute.create(lab.spec()).machine("web-0")
    pool = lab.host.connect().storagePoolLookupByName("default")
    pool.destroy()
    for act in (
        lambda: compute.create(attrs.evolve(lab.spec(), name="other")),
        lambda: list(compute.images()),
        machine.delete,
        lambda: compute.delete("web"),
    ):
        with pytest.raises(Conflict, match="'default' is not active; `virsh pool-start default` starts it"):
            act()
    assert machine.info().state == "running"
    pool.create()
    compute.delete("web")
    assert (lab.host.processes(), lab.left()) == ([], [])

"""Machines of libvirt keep the rules of compute: on its own test driver, and on a hypervisor that runs them."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from shiftable.blob import BlobStore, BucketSpec
from shiftable.compute.driver import ComputeDriver
from shiftable.memory.blob import MemoryBlobDriver
from shiftable.testing.conformance.compute import ComputeConformance, Sleep, compute_machine
from shiftable_baremetal import _libvirt_xml as xml
from shiftable_baremetal._libvirt_session import Session
from shiftable_baremetal._libvirt_xml import Files, Kind, read_domain
from shiftable_baremetal._qemu_files import Definition
from shiftable_baremetal.compute_libvirt import FEATURES, LibvirtComputeDriver

from . import hypervisor

NODE = """
<node>
  <cpu><mhz>3000</mhz><model>i686</model><active>64</active><nodes>1</nodes><sockets>1</sockets><cores>64</cores>
    <threads>1</threads></cpu>
  <memory>1073741824</memory>
  <network><name>default</name><forward mode='nat'/><bridge name='virbr0'/>
    <ip address='192.168.122.1' netmask='255.255.255.0'/></network>
  <pool type='dir'><name>default</name><target><path>/pool</path></target></pool>
</node>
"""


class Simulated(Session):
    """A session with libvirt's test driver: what that has not is done here as libvirt does it."""

    def kind(self, accelerator: str) -> Kind:
        assert accelerator == "auto"
        return Kind(type="test", arch="i686", machine=None, most_cpus=255)

    def upload(self, volume: Any, content: Any, size: int) -> None:
        assert len(content.read()) == size == volume.info()[1]

    def download(self, volume: Any, offset: int, length: int = 0) -> bytes:
        assert offset + length <= volume.info()[1]
        return b""

    def undefine(self, domain: Any) -> None:
        domain.undefine()

    def reset(self, domain: Any) -> None:
        domain.reboot(0)

    def leases(self, network: Any) -> dict[str, tuple[str, ...]]:
        assert network.name() == "default"
        every = [read_domain(domain.XMLDesc(0)) for domain in self.connection.listAllDomains(0)]
        macs = [mac for facts in every for mac in facts.networks]
        return {mac: (f"192.168.122.{number % 250}",) for number, mac in enumerate(macs, 2)}


def soon(seconds: float) -> None:
    time.sleep(min(seconds, 0.02))


@pytest.fixture(scope="session")
def libvirt(debian: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return hypervisor.binding(debian, tmp_path_factory.mktemp("binding"))


@pytest.fixture(scope="session")
def images(debian: Any, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """Make images without anything on them, each another."""
    folder = tmp_path_factory.mktemp("images")
    for name, size in (("debian-12", "1M"), ("ubuntu-24.04", "2M")):
        debian.run("qemu-img", "create", "-q", "-f", "qcow2", folder / name, size)
    return {path.name: path for path in folder.iterdir()}


@pytest.fixture
def make_simulated(libvirt: Any, tmp_path: Path, images: Mapping[str, Path]) -> Callable[[], LibvirtComputeDriver]:
    """Return what makes drivers of empty hypervisors of libvirt's test driver."""
    assert libvirt.getVersion() >= 9_000_000
    made = iter(range(1000))
    features = attrs.evolve(FEATURES, disks=False, snapshots=False, disk_snapshots=False)  # it attaches and copies none

    def make() -> LibvirtComputeDriver:
        path = tmp_path / f"node-{next(made)}.xml"
        path.write_text(NODE)
        return LibvirtComputeDriver(Simulated(f"test://{path}"), tmp_path, own=images, features=features)

    return make


@pytest.fixture(scope="module")
def host(debian: Any, libvirt: Any) -> Iterator[Any]:
    """Run a hypervisor."""
    with hypervisor.hypervisor(debian, libvirt) as made:
        yield made


class _Real:
    """Machines of QEMU that find nothing to start from, each in a network of its own."""

    larger = (2, 2)  # any host has as much
    compute = ComputeConformance.compute
    disk_image = ComputeConformance.disk_image
    fleet = ComputeConformance.fleet
    machine = ComputeConformance.machine
    _nothing_is_left = ComputeConformance._nothing_is_left

    @pytest.fixture
    def driver(self, host: Any, tmp_path: Path, images: Mapping[str, Path]) -> Iterator[ComputeDriver]:
        blobs = MemoryBlobDriver()
        BlobStore(blobs).create(BucketSpec(name="images")).put("web.raw", bytes(2**20))
        more: dict[str, Any] = {"network": "user", "accelerator": "tcg", "own": images, "patience": 0.5, "page_size": 3}
        more["blobs"] = lambda: blobs
        yield LibvirtComputeDriver(Session(host.uri), tmp_path, **more)
        assert host.processes() == []
        assert [name for name in host.volumes() if ".base." not in name] == []

    @pytest.fixture
    def sleep(self) -> Sleep:
        return soon


# Of the rules those that libvirt's test driver cannot show, since QEMU takes seconds for each machine.
_SHOWN = (
    "test_a_lost_answer_never_makes_a_second_machine",
    "test_larger_machines_are_the_same_machines_where_they_can_be",
    "test_nothing_is_open_unless_it_is_declared",
    "test_each_port_has_its_own_networks_and_its_protocol",
    "test_a_machine_that_is_gone_is_missing_everywhere",
    "test_labels_of_a_machine_change_while_it_lives",
    "test_labels_of_a_stopped_machine_change",
    "test_writers_of_different_labels_do_not_lose_each_others",
    "test_machines_are_stopped_and_started",
    "test_what_the_state_forbids_is_a_conflict",
    "test_the_console_is_read_or_refused",
    "test_a_disk_outlives_its_machine",
    "test_a_disk_belongs_to_one_machine",
    "test_machines_are_made_from_an_image_of_another",
    "test_machines_are_made_from_an_imported_image",
    "test_the_same_import_makes_one_image",
    "test_an_import_takes_no_name_of_another_image",
    "test_a_form_that_is_not_imported_is_refused",
    "test_a_snapshot_of_a_disk_makes_others",
    "test_what_is_in_use_is_no_debris",
    "test_machines_of_all_fleets_are_listed_once_each",
)
TestLibvirt = type("TestLibvirt", (_Real,), {name: getattr(ComputeConformance, name) for name in _SHOWN})


@pytest.mark.parametrize("network", [None, "default"])
@pytest.mark.parametrize("accelerator", ["auto", "tcg"])
def test_what_libvirt_is_told_is_as_its_schemas_want(host: Any, network: str | None, accelerator: str) -> None:
    session = Session(host.uri)
    machine = Definition(
        id=str(uuid.uuid4()),
        name="web-0",
        fleet="web",
        token="5d0a",
        image="debian-12",
        cpus=2,
        memory=2**30,
        disk_gib=20,
        user="ops",
        labels={"<a>&\x00": "]]>"},
        append="console=ttyS0 <&>",
        created=datetime(2026, 11, 21, tzinfo=UTC),
    )
    files = Files(disk="/p/disk", seed="/p/seed", console="/p/console", kernel="/p/kernel", initrd="/p/initrd")
    text = xml.domain(machine, session.kind(accelerator), files, network)
    made = session.connection.defineXMLFlags(text, 1)  # VIR_DOMAIN_DEFINE_VALIDATE
    found = xml.read_domain(made.XMLDesc(2))
    assert (found.definition, found.cpus, found.memory, len(found.disks)) == (machine, 2, 2**30, 2)
    larger = attrs.evolve(machine, cpus=4, memory=2**31)
    again = session.connection.defineXMLFlags(xml.changed(made.XMLDesc(2), larger), 1)
    found = xml.read_domain(again.XMLDesc(2))
    assert (found.definition, found.cpus, found.memory) == (larger, 4, 2**31)
    made.undefine()
    pool = session.connection.storagePoolLookupByName("default")
    for name, more in (("a<&>", {}), ("b", {"kind": "raw"}), ("c", {"backing": (f"{host.pool}/b", "raw")})):
        pool.createXML(xml.volume(name, 2**20, **more), 0)  # 9.0 takes no flag to have it validated
    assert {"a<&>", "b", "c"} <= set(host.volumes())
    for name in ("a<&>", "b", "c"):
        pool.storageVolLookupByName(name).delete(0)


class TestSimulatedLibvirt(ComputeConformance):
    many = 250

    @pytest.fixture
    def driver(self, make_simulated: Callable[[], LibvirtComputeDriver]) -> ComputeDriver:
        return make_simulated()

    @pytest.fixture
    def sleep(self) -> Sleep:
        return soon


def test_any_sequence_leaves_what_is_declared(make_simulated: Callable[[], LibvirtComputeDriver]) -> None:
    machine = compute_machine(make_simulated, soon)
    run_state_machine_as_test(machine, settings=settings.get_profile("machine"))

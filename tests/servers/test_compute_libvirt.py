"""Machines of libvirt keep the rules of compute: on its own test driver, and on a hypervisor that runs them."""

from __future__ import annotations

import importlib.util
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from shiftable.compute import Compute
from shiftable.compute.driver import ComputeDriver
from shiftable.testing.conformance.compute import ComputeConformance, Sleep, compute_machine, small_fleet
from shiftable_baremetal._libvirt_session import Session
from shiftable_baremetal._libvirt_xml import Kind, read_domain
from shiftable_baremetal.compute_libvirt import FEATURES, LibvirtComputeDriver

_SPEC = importlib.util.spec_from_file_location("hypervisor", Path(__file__).with_name("hypervisor.py"))
assert _SPEC is not None
assert _SPEC.loader is not None
hypervisor: Any = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(hypervisor)

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

    def download(self, volume: Any, offset: int) -> bytes:
        assert offset <= volume.info()[1]
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


def image(path: Path) -> Path:
    """Write an image without anything in it: QEMU's docs/interop/qcow2.txt, the header of version 2."""
    with path.open("wb") as file:
        file.write(b"QFI\xfb" + (2).to_bytes(4, "big") + bytes(12) + (16).to_bytes(4, "big") + (2**20).to_bytes(8, "big"))
        file.truncate(512)
    return path


@pytest.fixture(scope="session")
def libvirt(debian: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return hypervisor.binding(debian, tmp_path_factory.mktemp("binding"))


@pytest.fixture
def make_simulated(libvirt: Any, tmp_path: Path) -> Callable[[], LibvirtComputeDriver]:
    """Return what makes drivers of empty hypervisors of libvirt's test driver."""
    assert libvirt.getVersion() >= 9_000_000
    own = {name: image(tmp_path / name) for name in ("debian-12", "ubuntu-24.04")}
    made = iter(range(1000))
    features = attrs.evolve(FEATURES, disks=False, snapshots=False, disk_snapshots=False)  # it attaches and copies none

    def make() -> LibvirtComputeDriver:
        path = tmp_path / f"node-{next(made)}.xml"
        path.write_text(NODE)
        return LibvirtComputeDriver(Simulated(f"test://{path}"), tmp_path, own=own, features=features)

    return make


class TestSimulatedLibvirt(ComputeConformance):
    many = 250

    @pytest.fixture
    def driver(self, make_simulated: Callable[[], LibvirtComputeDriver]) -> ComputeDriver:
        return make_simulated()

    @pytest.fixture
    def sleep(self) -> Sleep:
        return soon


def test_any_sequence_leaves_what_is_declared(make_simulated: Callable[[], LibvirtComputeDriver]) -> None:
    few = settings(max_examples=15, stateful_step_count=15, deadline=None, database=None, derandomize=True)
    machine = compute_machine(make_simulated, soon)
    run_state_machine_as_test(machine, settings=settings(few, phases=[Phase.generate]))

"""The providers of a move of machines as everybody else sees them: bare clients, what the doubles hold, processes.

Filling goes through drivers, which is what they are for; what machines there are is read past them.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import stat
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import attrs

import shiftable
from shiftable.compute import FLEET_LABEL, Compute, FleetSpec

from .sides import Aws, Files, Side
from .zones import AwsZones, AzureZones, FileZones, GcpZones, Zones

if TYPE_CHECKING:
    from shiftable_aws.double import AwsDouble
    from shiftable_azure.double import AzureDouble
    from shiftable_gcp.double import GcpDouble

__all__ = ["DECLARED", "FLEET", "KEY", "SPEC", "YARDS", "Machine", "Yard"]

FLEET = "web"
KEY = "ssh-ed25519 " + "AAAAC3NzaC1lZDI1NTE5AAAAI" + "A" * 43 + " ops@example"
COUNT = 3
LABELS = {"team": "payments", "Cost-Center": "4711"}
DECLARED = (
    f"[compute.{FLEET}]",
    'image = "debian-12"',
    "cpus = 2",
    "memory_gib = 4",
    f"count = {COUNT}",
    "disk_gib = 30",
    "public_ip = true",
    "open_ports = [22, 443]",
    'allow_from = ["192.0.2.0/24"]',
    f'ssh_keys = ["{KEY}"]',
    f"labels = {{ {', '.join(f'{name} = {json.dumps(value)}' for name, value in LABELS.items())} }}",
)
SPEC = FleetSpec(
    name=FLEET,
    image="debian-12",
    cpus=2,
    memory_gib=4,
    count=COUNT,
    disk_gib=30,
    public_ip=True,
    open_ports=(22, 443),
    allow_from=("192.0.2.0/24",),
    ssh_keys=(KEY,),
    labels=LABELS,
)


@attrs.frozen(kw_only=True)
class Machine:
    """One machine, as little as all providers tell.

    Args:
        id: by which two of one name are told apart.
        running: whether it is, in the provider's own words.
    """

    name: str
    id: str
    running: bool
    labels: Mapping[str, str] = attrs.Factory(dict)


class Yard(ABC):
    """One provider and its machines.

    Attributes:
        gives_up: what has to be given up to move the fleet there, and what the plan says of each.
        priced: whether its prices are known.
    """

    name: ClassVar[str]
    zones_type: ClassVar[type[Zones]]
    gives_up: ClassVar[Mapping[str, str]] = {}
    priced: ClassVar[bool] = False

    def __init__(self, side: Side) -> None:
        self.zones = self.zones_type(side)
        self.side = side

    @property
    def settings(self) -> Mapping[str, Any]:
        """What stands in ``[providers.NAME]``."""
        return self.zones.settings

    @property
    def environ(self) -> Mapping[str, str]:
        """What the settings refer to."""
        return self.zones.environ

    @property
    def double(self) -> Any:
        """The double."""
        return self.side.double  # type: ignore[attr-defined]  # of those that have one

    @cached_property
    def service(self) -> Compute:
        """The provider's machines."""
        return shiftable.connect(self.name, **self.double.config).compute

    @property
    def spec(self) -> FleetSpec:
        """The fleet as far as the provider can have it."""
        spec = SPEC
        if "public_ip" in self.gives_up:
            spec = attrs.evolve(spec, public_ip=False)
        return attrs.evolve(spec, labels={"team": "payments"}) if "labels" in self.gives_up else spec

    def fill(self) -> None:
        """Make the fleet and wait for it."""
        self.service.create(self.spec).wait()

    @abstractmethod
    def machines(self) -> Sequence[Machine]:
        """Return the machines that there are, by name."""

    def close(self) -> None:
        """End what runs, and give back connections."""
        self.service.close()


class AwsYard(Yard):
    name = "aws"
    zones_type = AwsZones
    priced = True
    double: AwsDouble

    def machines(self) -> Sequence[Machine]:
        import boto3

        assert isinstance(self.side, Aws)
        client = boto3.client(
            "ec2",
            endpoint_url=self.side.bare_url,
            region_name=self.double.region,
            aws_access_key_id=self.double.environ["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=self.double.environ["AWS_SECRET_ACCESS_KEY"],
        )
        found = [each for held in client.describe_instances()["Reservations"] for each in held["Instances"]]
        told = []
        for each in found:
            tags = {tag["Key"]: tag["Value"] for tag in each.get("Tags", ())}
            if each["State"]["Name"] not in {"terminated", "shutting-down"} and tags.get(FLEET_LABEL) == FLEET:
                running = each["State"]["Name"] == "running"
                told.append(Machine(name=tags["Name"], id=each["InstanceId"], running=running, labels=tags))
        return sorted(told, key=lambda each: each.name)


class GcpYard(Yard):
    name = "gcp"
    zones_type = GcpZones
    gives_up: ClassVar[Mapping[str, str]] = {"labels": "the label Cost-Center"}
    priced = True
    double: GcpDouble

    def machines(self) -> Sequence[Machine]:
        found = [
            Machine(
                name=each["name"],
                id=str(each["id"]),
                running=each["status"] == "RUNNING",
                labels=each.get("labels", {}),
            )
            for each in self.double.compute.of("instances").values()
        ]
        return sorted(found, key=lambda each: each.name)


class AzureYard(Yard):
    name = "azure"
    zones_type = AzureZones
    double: AzureDouble

    @property
    def settings(self) -> Mapping[str, Any]:
        return {**super().settings, "location": self.double.config["location"]}

    def machines(self) -> Sequence[Machine]:
        found = [
            Machine(name=each.name, id=each.properties["vmId"], running=each.power == "running", labels=each.tags)
            for each in self.double.machines.machines.values()
        ]
        return sorted(found, key=lambda each: each.name)


class QemuYard(Yard):
    """QEMU, whose programs are stood in for as its own tests do."""

    name = "baremetal"
    zones_type = FileZones
    gives_up: ClassVar[Mapping[str, str]] = {"public_ip": "cannot be reached from the internet"}

    STANDIN: ClassVar[Path] = Path(__file__).parent.parent / "baremetal" / "qemu_standin.py"

    def __init__(self, side: Side) -> None:
        super().__init__(side)
        assert isinstance(side, Files)
        self.root = side.root
        self.programs = side.root.parent / "programs"
        self.programs.mkdir()
        (self.programs / "debian-12.raw").write_bytes(bytes(2**20))
        for name in ("qemu-system-x86_64", "qemu-img"):
            call = f'QEMU_STANDIN="{self.programs}" exec "{sys.executable}" -I -S "{self.STANDIN}" {name} "$@"'
            (self.programs / name).write_text(f"#!/bin/sh\n{call}\n")
            (self.programs / name).chmod(stat.S_IRWXU)

    @property
    def settings(self) -> Mapping[str, Any]:
        images = [{"name": "debian-12", "file": str(self.programs / "debian-12.raw")}]
        qemu = {"programs": str(self.programs), "accelerator": "tcg", "images": images}
        return {**super().settings, "qemu": qemu}

    @cached_property
    def service(self) -> Compute:
        from shiftable_baremetal import BaremetalProvider, BaremetalSettings
        from shiftable_baremetal._qemu_settings import QemuImageSettings, QemuSettings

        images = (QemuImageSettings(name="debian-12", file=self.programs / "debian-12.raw"),)
        qemu = QemuSettings(programs=self.programs, accelerator="tcg", images=images)
        return Compute(BaremetalProvider(BaremetalSettings(root=self.root, fsync=False, qemu=qemu)).compute())

    def machines(self) -> Sequence[Machine]:
        """Return what the machines' folders define, with whether a process lives for each."""
        living = self._living()
        told = []
        for path in (self.root / "compute").glob("[!.]*/machine.json"):
            found = json.loads(path.read_text())
            pid = path.with_name("pid")
            running = pid.exists() and int(pid.read_text()) in living
            told.append(Machine(name=found["name"], id=found["id"], running=running, labels=found["labels"]))
        return sorted(told, key=lambda each: each.name)

    def _living(self) -> list[int]:
        born = self.programs / "born"
        return [pid for pid in map(int, born.read_text().split()) if _lives(pid)] if born.exists() else []

    def close(self) -> None:
        super().close()
        for pid in self._living():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        while self._living():
            time.sleep(0.01)


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


YARDS: Mapping[str, type[Yard]] = {yard.name: yard for yard in (AwsYard, GcpYard, AzureYard, QemuYard)}

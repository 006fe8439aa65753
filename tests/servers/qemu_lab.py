"""Machines of QEMU itself, simulated on any computer, in folders of a test's own."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest

from shiftable.compute import Arch, Compute, FleetSpec
from shiftable_baremetal import QemuMachineSettings
from shiftable_baremetal._qemu_process import Programs
from shiftable_baremetal.compute import QemuComputeDriver

from .guest import ssh_of_its_own

__all__ = ["Lab", "opened", "programs"]

_PROGRAMS = ("qemu-system-x86_64", "qemu-system-aarch64", "qemu-img")
_CONSOLES = {"x86_64": "ttyS0", "arm64": "ttyAMA0"}


@attrs.frozen
class Lab:
    """A root for machines, and what they start from."""

    folder: Path
    programs: Path
    kernel: Path
    initrd: Path
    key: str
    arch: Arch

    @property
    def root(self) -> Path:
        return self.folder / "root"

    def compute(self, **more: Any) -> Compute:
        own = {"debian-12": self.folder / "empty"}
        given = {"own": own, "own_arm64": own, "accelerator": "tcg", **more}
        return Compute(QemuComputeDriver(self.root, self.programs, **given), sleep=lambda _: time.sleep(0.1))

    def spec(self, **more: Any) -> FleetSpec:
        append = f"console={_CONSOLES[self.arch]} quiet panic=1"
        native = QemuMachineSettings(kernel=self.kernel, initrd=self.initrd, append=append)
        given: dict[str, Any] = {"image": "debian-12", "cpus": 1, "memory_gib": 1, "disk_gib": 1, "native": native}
        given |= {"arch": self.arch, "ssh_keys": (self.key,)}
        return FleetSpec(name="web", user="ops", **{**given, **more})

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


def programs(debian: Any, folder: Path) -> Path:
    """Make what all machines start from: programs that find their libraries, and an empty image beside them."""
    (folder / "programs").mkdir()
    for name in _PROGRAMS:
        program = folder / "programs" / name
        libraries = debian.environ["LD_LIBRARY_PATH"]
        program.write_text(f'#!/bin/sh\nLD_LIBRARY_PATH={libraries} exec {debian.root}/usr/bin/{name} "$@"\n')
        program.chmod(0o755)
    Programs(folder / "programs").image("create", "-q", "-f", "qcow2", folder / "empty", "1G")
    return folder


@contextmanager
def opened(
    made: Path, kernel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arch: Arch = "x86_64"
) -> Iterator[Lab]:
    """Return a root of one's own, and an ssh that takes the test's key and keeps hosts for the test alone."""
    key = ssh_of_its_own(tmp_path, monkeypatch)
    shutil.copy(made / "empty", tmp_path / "empty")
    lab = Lab(tmp_path, made / "programs", kernel, made / "initrd", key, arch)
    yield lab
    compute = lab.compute()
    for fleet in list(compute.list()):
        compute.delete(fleet.name)

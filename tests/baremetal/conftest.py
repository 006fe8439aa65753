"""A QEMU that PyPI alone suffices for."""

from __future__ import annotations

import os
import signal
import stat
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from shiftable.compute import ALIASES, Compute
from shiftable_baremetal.compute import QemuComputeDriver

STANDIN = Path(__file__).with_name("qemu_standin.py")


@attrs.frozen
class Qemu:
    """QEMU's programs as qemu_standin.py stands in for them, an image for each alias, and a root for machines."""

    folder: Path

    @property
    def programs(self) -> Path:
        return self.folder / "programs"

    @property
    def root(self) -> Path:
        return self.folder / "root"

    def driver(self, **more: Any) -> QemuComputeDriver:
        """Make a driver, as another process would."""
        own = {alias: self.folder / "images" / alias for alias in ALIASES}
        given = {"own": own, "own_arm64": own, "accelerator": "tcg", "patience": 2, "page_size": 5, **more}
        return QemuComputeDriver(self.root, self.programs, **given)

    def compute(self, **more: Any) -> Compute:
        return Compute(self.driver(**more), sleep=lambda seconds: time.sleep(min(seconds, 0.05)))

    def order(self, what: str, text: str = "") -> None:
        """Have something go wrong from now on."""
        (self.programs / what).write_text(text)

    def cancel(self, what: str) -> None:
        (self.programs / what).unlink()

    def calls(self) -> str:
        return (self.programs / "calls").read_text()

    def living(self) -> list[int]:
        """Return the processes of machines, as the system knows them."""
        born = self.programs / "born"
        return [pid for pid in map(int, born.read_text().split()) if _lives(pid)] if born.exists() else []

    def kill(self) -> None:
        """Kill all machines, as a restart of the computer does."""
        for pid in self.living():
            os.kill(pid, signal.SIGKILL)
        while self.living():
            time.sleep(0.01)

    def left(self) -> list[str]:
        """Return what lies below the root, but for locks, which are empty files."""
        found = sorted(path for path in self.root.rglob("*") if path.is_file() or path.parent == self.root)
        return [str(path.relative_to(self.root)) for path in found if not path.name.startswith(".lock~")]


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    if not Path("/proc/self/exe").exists():
        return True
    try:
        Path(f"/proc/{pid}/exe").readlink()  # gone before its files are closed, and so its locks
    except OSError:
        return False
    return True


@pytest.fixture
def make_qemu() -> Iterator[Callable[[Path], Qemu]]:
    """Return what makes one in a new folder; whatever runs in it ends with the test."""
    made: list[Qemu] = []

    def make(folder: Path) -> Qemu:
        qemu = Qemu(folder)
        for name in ("programs", "images"):
            (folder / name).mkdir(parents=True)
        for alias in ALIASES:
            (folder / "images" / alias).write_bytes(bytes(2**20))
        for arch in ("aarch64", "x86_64"):
            (folder / "programs" / f"edk2-{arch}-code.fd").write_bytes(b"UEFI")
        for name in ("qemu-system-x86_64", "qemu-system-aarch64", "qemu-img"):
            call = f'QEMU_STANDIN="{qemu.programs}" exec "{sys.executable}" -I -S "{STANDIN}" {name} "$@"'
            (qemu.programs / name).write_text(f"#!/bin/sh\n{call}\n")
            (qemu.programs / name).chmod(stat.S_IRWXU)
        made.append(qemu)
        return qemu

    yield make
    for qemu in made:
        qemu.kill()


@pytest.fixture
def qemu(make_qemu: Callable[[Path], Qemu], tmp_path: Path) -> Qemu:
    return make_qemu(tmp_path / "qemu")

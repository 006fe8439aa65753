"""One QEMU: how it is started, found again by any process, and ended.

It leaves the process that starts it (``-daemonize``) and outlives it. It inherits the lock on the file ``alive``, which
the system releases however it ends: so nobody takes another process for it, and after a restart of the computer it is
known not to run.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import attrs

from shiftable.compute.driver import Arch, Firmware
from shiftable.errors import ConfigError
from shiftable_baremetal._qemu_monitor import Monitor, MonitorError

__all__ = ["HOW_TO_GET", "Process", "ProgramError", "Programs"]

_STEP = 0.01
_START = 60.0  # seconds for QEMU to open its files and leave
_END = 10.0  # seconds for one that was killed to end

_ELSEWHERE = "or brew install qemu; where it lies elsewhere, name the folder: [providers.x.qemu] programs"
HOW_TO_GET: Mapping[Arch, str] = {
    "x86_64": f"apt install qemu-system-x86 qemu-utils, or dnf install qemu-system-x86 qemu-img, {_ELSEWHERE}",
    "arm64": "apt install qemu-system-arm qemu-efi-aarch64 qemu-utils, or dnf install qemu-system-aarch64 edk2-aarch64 "
    f"qemu-img, {_ELSEWHERE}",
}
"""What to do where QEMU is missing, for machines of an architecture."""

_HOW_TO_GET_UEFI: Mapping[Arch, str] = {
    "x86_64": f"apt install ovmf, or dnf install edk2-ovmf, {_ELSEWHERE}",
    "arm64": HOW_TO_GET["arm64"],
}

_SYSTEMS: Mapping[Arch, str] = {"x86_64": "qemu-system-x86_64", "arm64": "qemu-system-aarch64"}
_IMAGE = "qemu-img"
_UEFI: Mapping[Arch, tuple[str, ...]] = {
    "x86_64": (
        "edk2-x86_64-code.fd",
        "../OVMF/OVMF_CODE_4M.fd",
        "../edk2/ovmf/OVMF_CODE.fd",
        "../edk2/x64/OVMF_CODE.4m.fd",
    ),
    "arm64": ("edk2-aarch64-code.fd", "../qemu-efi-aarch64/QEMU_EFI.fd", "../edk2/aarch64/QEMU_EFI.fd"),
}
"""UEFI, seen from QEMU's own folders of data: of QEMU itself, of Debian, of Fedora, of Arch."""


class ProgramError(Exception):
    """What one of QEMU's programs said when it failed."""


@attrs.frozen
class Programs:
    """QEMU's programs.

    Args:
        folder: where they lie; else they are on the ``PATH``.
    """

    folder: Path | None = None

    def missing(self, arch: Arch) -> str | None:
        """Say what is not here of what machines of an architecture need, and how to get it."""
        if not all(self._path(program) for program in (_SYSTEMS[arch], _IMAGE)):
            return f"QEMU on this computer ({HOW_TO_GET[arch]})"
        if arch == "arm64" and self._uefi(arch) is None:
            return f"UEFI for machines of arm64 beside QEMU ({HOW_TO_GET[arch]})"
        return None

    def system(self, arch: Arch = "x86_64") -> str:
        """Return the path of what runs machines.

        Raises:
            ConfigError: it is not here; says how to get it.
        """
        return self._found(_SYSTEMS[arch], arch)

    def firmware(self, arch: Arch, kind: Firmware) -> Path | None:
        """Return what machines start by, unless it is QEMU's own BIOS.

        Raises:
            ConfigError: it is not here; says how to get it.
        """
        if kind == "bios":
            return None
        found = self._uefi(arch)
        if found is None:
            which = "of arm64" if arch == "arm64" else "of an image that has nothing for BIOS"
            raise ConfigError(f"machines {which} need UEFI, which is not beside QEMU: {_HOW_TO_GET_UEFI[arch]}")
        return found

    def image(self, *arguments: str | Path) -> bytes:
        """Run ``qemu-img`` and return what it printed.

        Raises:
            ConfigError: it is not here; says how to get it.
            ProgramError: it failed.
        """
        command = [self._found(_IMAGE), *map(str, arguments)]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False, umask=0o077)  # noqa: S603  QEMU's own
        if done.returncode:
            raise ProgramError(_told(done.stderr, done.returncode))
        return done.stdout

    def head(self, path: Path, form: str, sectors: int) -> bytes:
        """Return the first sectors of the disk in a file."""
        with tempfile.NamedTemporaryFile(prefix="head-") as file:
            self.image("dd", "-f", form, "-O", "raw", "bs=512", f"count={sectors}", f"if={path}", f"of={file.name}")
            return file.read()

    def _found(self, program: str, arch: Arch = "x86_64") -> str:
        found = self._path(program)
        if found is None:
            raise ConfigError(f"machines on this computer need QEMU: {HOW_TO_GET[arch]}")
        return found

    def _uefi(self, arch: Arch) -> Path | None:
        """Ask QEMU where its data lies, and look there and beside it."""
        done = subprocess.run(  # noqa: S603  QEMU's own
            [self.system(arch), "-L", "help"], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
        places = (Path(line) / name for line in done.stdout.splitlines() for name in _UEFI[arch])
        return next((place.resolve() for place in places if place.is_file()), None)

    def _path(self, program: str) -> str | None:
        return shutil.which(program, path=None if self.folder is None else str(self.folder))


@attrs.frozen
class Process:
    """The QEMU of one folder, whether or not it runs."""

    folder: Path

    @property
    def runs(self) -> bool:
        """Whether it does."""
        try:
            descriptor = os.open(self.folder / "alive", os.O_RDWR | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False

    def monitor(self) -> Monitor:
        """Talk to it."""
        return Monitor(self.folder / "monitor")

    def start(self, command: Sequence[str]) -> None:
        """Start it, and return when it runs.

        Args:
            command: its paths may be relative to the folder.

        Raises:
            ProgramError: it does not start.
        """
        with self._alive() as descriptor:
            for name in ("monitor", "pid", "stopping", "copying"):
                (self.folder / name).unlink(missing_ok=True)
            try:
                done = subprocess.run(  # noqa: S603  QEMU's own
                    [*command, "-daemonize"],
                    cwd=self.folder,
                    stdin=subprocess.DEVNULL,
                    capture_output=True,
                    pass_fds=(descriptor,),
                    umask=0o077,
                    timeout=_START,
                    check=False,
                )
            except subprocess.TimeoutExpired:
                self._signal()
                raise ProgramError(f"QEMU did not start within {_START:.0f} s") from None
        if done.returncode:
            raise ProgramError(_told(done.stderr, done.returncode))

    def kill(self) -> bool:
        """End it at once; tell whether it has ended."""
        end = time.monotonic() + _END
        while self.runs:
            self._signal()
            if time.monotonic() > end:
                return False
            time.sleep(_STEP)
        return True

    def _signal(self) -> None:
        """Kill whoever holds the lock: he has written his number, or is about to."""
        try:
            number = int((self.folder / "pid").read_text())
        except (OSError, ValueError):
            with contextlib.suppress(MonitorError), self.monitor() as monitor:
                monitor.ask("quit")
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(number, signal.SIGKILL)

    @contextlib.contextmanager
    def _alive(self) -> Iterator[int]:
        """Take the lock that a new QEMU inherits; whoever just looks at it holds it for a moment."""
        descriptor = os.open(self.folder / "alive", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        end = time.monotonic() + _END
        try:
            while True:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > end:
                        raise ProgramError("another QEMU is still running here") from None
                    time.sleep(_STEP)
            yield descriptor
        finally:
            os.close(descriptor)


def _told(stderr: bytes, status: int) -> str:
    """Return what a program said, without its name and the warnings."""
    lines = [line for line in stderr.decode(errors="replace").splitlines() if line and "warning:" not in line]
    return "; ".join(line.partition(": ")[2] or line for line in lines[-3:]) or f"it ended with status {status}"

"""libvirt out of Debian's packages: its binding for this Python, and daemons of an ordinary user in private folders."""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs
import pytest

__all__ = ["PATIENCE", "Hypervisor", "binding", "hypervisor"]

PATIENCE = 120
"""Seconds after which a daemon that has not answered never will."""

_loaded: list[ctypes.CDLL] = []


def binding(debian: Any, folder: Path) -> Any:
    """Load Debian's binding into this process, which must be the Python that Debian built it for."""
    packages = debian.root / "usr/lib/python3/dist-packages"
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    if not (packages / f"libvirtmod{suffix}").exists():
        pytest.skip(f"Debian's python3-libvirt has no module for this Python ({suffix}), and PyPI has no wheel of it")
    if "libvirt" not in sys.modules:
        for name in ("libvirt.py", "libvirt_qemu.py", f"libvirtmod{suffix}", f"libvirtmod_qemu{suffix}"):
            (folder / name).symlink_to(packages / name)
        _load(debian, packages / f"libvirtmod_qemu{suffix}")
        sys.path.insert(0, str(folder))
        try:
            for name in ("libvirt", "libvirt_qemu"):
                importlib.import_module(name)
        finally:
            sys.path.remove(str(folder))
    return sys.modules["libvirt"]


def _load(debian: Any, module: Path) -> None:
    """Load what a module needs of the unpacked libraries: later ones are found by their names, whatever the path."""
    told = subprocess.run(["ldd", module], env=debian.environ, capture_output=True, text=True, check=True).stdout
    left = [path for path in re.findall(r"(/\S+) \(0x", told) if path.startswith(str(debian.root))]
    while left:
        tried = len(left)
        for path in list(left):
            with contextlib.suppress(OSError):  # it needs one of the others first
                _loaded.append(ctypes.CDLL(path))
                left.remove(path)
        assert len(left) < tried, f"{left} cannot be loaded"


@attrs.define
class Hypervisor:
    """A daemon of an ordinary user, which runs machines in software, and its storage pool ``default``.

    Args:
        room: bytes of the pool, which is then a file system of its own.
    """

    debian: Any
    libvirt: Any
    folder: Path
    room: int | None = None
    _daemon: subprocess.Popen[bytes] | None = None

    @property
    def socket(self) -> Path:
        return self.folder / "run/libvirt/libvirt-sock"

    @property
    def uri(self) -> str:
        return f"qemu+unix:///session?socket={self.socket}"

    @property
    def pool(self) -> Path:
        return self.folder / "pool"

    @property
    def environ(self) -> Mapping[str, str]:
        libraries = self.debian.libraries / "libvirt"
        own = {
            "HOME": self.folder,
            "XDG_RUNTIME_DIR": self.folder / "run",
            "XDG_CONFIG_HOME": self.folder / "config",
            "XDG_CACHE_HOME": self.folder / "cache",
            "XDG_DATA_HOME": self.folder / "data",
            "LIBVIRT_DRIVER_DIR": libraries / "connection-driver",
            "LIBVIRT_STORAGE_BACKEND_DIR": libraries / "storage-backend",
            "LIBVIRT_STORAGE_FILE_DIR": libraries / "storage-file",
            "LIBVIRT_LOCK_MANAGER_PLUGIN_DIR": libraries / "lock-driver",
        }
        return {**self.debian.environ, **{name: str(value) for name, value in own.items()}}

    def start(self) -> None:
        """Start the daemon, and wait until it answers."""
        self.socket.unlink(missing_ok=True)
        share = self.debian.root / "usr/share/libvirt"
        script = f"mount -t tmpfs none /usr/share && ln -s {share} /usr/share/libvirt"  # it looks for processors there
        if self.room is not None:
            script += f" && mount -t tmpfs -o size={self.room},mode=777 none {self.pool}"
        script += " && exec unshare --user --map-user=1000 setpriv --pdeathsig KILL libvirtd"
        command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script]
        with (self.folder / "log").open("ab") as log:
            self._daemon = subprocess.Popen(
                command, env=self.environ, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.folder
            )
        end = time.monotonic() + PATIENCE
        while True:
            try:
                self.connect().close()
            except self.libvirt.libvirtError:
                if self._daemon.poll() is None and time.monotonic() < end:
                    time.sleep(0.05)
                    continue
                told = (self.folder / "log").read_text(errors="replace")[-4000:]
                pytest.fail(f"libvirtd does not answer (status {self._daemon.poll()}):\n{told}", pytrace=False)
            return

    def connect(self) -> Any:
        """Return a connection of the test's own."""
        self.libvirt.registerErrorHandler(lambda *_: None, None)
        return self.libvirt.open(self.uri)

    def kill(self) -> None:
        """End the daemon as a crash does; machines go on."""
        assert self._daemon is not None
        self._daemon.kill()
        self._daemon.wait()

    def stop(self) -> None:
        """End the daemon and whatever machine still runs."""
        if self._daemon is not None and self._daemon.poll() is None:
            self._daemon.terminate()
            try:
                self._daemon.wait(20)
            except subprocess.TimeoutExpired:
                self.kill()
        for process in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)

    def processes(self) -> list[int]:
        """Return the QEMUs of machines, as the system knows them."""
        found = []
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if entry.name.isdecimal() and (entry / "exe").readlink().name.startswith("qemu-system"):
                    words = (entry / "cmdline").read_bytes().decode(errors="replace")
                    found += [int(entry.name)] if str(self.folder) in words and "-name\0" in words else []
        return found

    def volumes(self) -> list[str]:
        """Return the names of all files of the pool, as the daemon sees them."""
        connection = self.connect()
        try:
            pool = connection.storagePoolLookupByName("default")
            pool.refresh(0)
            return sorted(volume.name() for volume in pool.listAllVolumes(0))
        finally:
            connection.close()


@contextlib.contextmanager
def hypervisor(debian: Any, libvirt: Any, *, room: int | None = None) -> Iterator[Hypervisor]:
    """Run one until the end of the block."""
    probe = ["unshare", "--user", "--map-root-user", "--mount", "mount", "-t", "tmpfs", "none", "/usr/share"]
    if subprocess.run(probe, check=False, capture_output=True).returncode:
        pytest.skip("this machine lets no user mount anything for itself, and libvirt's data lie in /usr/share")
    folder = Path(tempfile.mkdtemp(prefix="lv-"))  # short: names of sockets have 108 bytes
    for name in ("run", "config/libvirt", "cache", "data", "pool"):
        (folder / name).mkdir(parents=True, mode=0o700)
    (folder / "config/libvirt/qemu.conf").write_text('stdio_handler = "file"\nsecurity_driver = "none"\n')
    made = Hypervisor(debian, libvirt, folder, room)
    try:
        made.start()
        connection = made.connect()
        order = f"<pool type='dir'><name>default</name><target><path>{made.pool}</path></target></pool>"
        connection.storagePoolDefineXML(order, 0)
        connection.storagePoolLookupByName("default").setAutostart(1)
        connection.storagePoolLookupByName("default").create(0)
        connection.close()
        yield made
    finally:
        made.stop()
        shutil.rmtree(folder, ignore_errors=True)

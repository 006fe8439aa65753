"""A machine that starts in seconds: Debian's kernel for clouds, and a RAM disk that reads the seed and runs sshd.

What it makes of the seed is what cloud-init does: the host name, the user, his keys.
"""

from __future__ import annotations

import gzip
import os
import re
import shutil
import stat
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from shiftable.blob import BlobStore, BucketSpec
from shiftable.compute import Machine
from shiftable.errors import Unavailable
from shiftable.memory.blob import MemoryBlobDriver

__all__ = [
    "ON_DISK",
    "PATIENCE",
    "READ_DISK",
    "bucket_with_disk",
    "bucket_with_file",
    "eventually",
    "foreign_libraries",
    "initrd",
    "kernel",
    "libraries",
    "says",
    "ssh_of_its_own",
]

PATIENCE = 180
"""Seconds after which a machine that has not come up never will, on a busy computer that simulates another."""

_MODULES = (  # in the order in which they need each other
    *("virtio_ring", "virtio", "virtio_pci_modern_dev", "virtio_pci_legacy_dev", "virtio_pci", "virtio_blk"),
    *("failover", "net_failover", "virtio_net", "cdrom", "isofs", "scsi_common", "scsi_mod", "virtio_scsi", "sd_mod"),
    *("virtio-rng", "button", "evdev"),
)

_INIT = """#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mkdir -p /dev/pts /seed /run /root /tmp /etc/dropbear /var/log
mount -t devpts devpts /dev/pts
for module in {modules}; do
    [ ! -f /modules/$module.ko ] || insmod /modules/$module.ko || echo "no module $module"
done

ifconfig lo 127.0.0.1
ifconfig eth0 10.0.2.15 netmask 255.255.255.0 up

for disk in /dev/vda /dev/vdb; do
    mount -t iso9660 -o ro $disk /seed 2>/dev/null && break
done
hostname "$(sed -n 's/.*"local-hostname": "\\([^"]*\\)".*/\\1/p' /seed/meta-data)"
user=$(sed -n 's/^ *"name": "\\([^"]*\\)",$/\\1/p' /seed/user-data)
mkdir -p /home/$user/.ssh
grep -o '"ssh-[^"]*"' /seed/user-data | tr -d '"' > /home/$user/.ssh/authorized_keys
chmod 700 /home/$user /home/$user/.ssh
echo "$user:x:0:0::/home/$user:/bin/sh" > /etc/passwd
echo /bin/sh > /etc/shells
cp /seed/user-data /run/user-data
instance=$(sed -n 's/.*"instance-id": "\\([^"]*\\)".*/\\1/p' /seed/meta-data)
umount /seed

# the key of the host is the machine's for its life, and another's is not that of a machine made from its image
if [ "$(dd if=/dev/vda bs=512 skip=128 count=1 2>/dev/null | head -n 1)" = "$instance" ]; then
    dd if=/dev/vda bs=512 skip=129 count=1 of=/etc/dropbear/key 2>/dev/null
else
    dropbearkey -t ed25519 -f /etc/dropbear/key >/dev/null
    echo "$instance" | dd of=/dev/vda bs=512 seek=128 conv=notrunc,fsync 2>/dev/null
    dd if=/etc/dropbear/key of=/dev/vda bs=512 seek=129 conv=notrunc,fsync 2>/dev/null
fi

for event in /sys/class/input/event*; do
    if grep -q 'Power Button' $event/device/name; then
        (dd if=/dev/input/${{event##*/}} of=/dev/null bs=24 count=1 2>/dev/null; echo "powering down"; poweroff -f) &
    fi
done
dropbear -r /etc/dropbear/key -s -E -p 22
echo "$(hostname) is up"
while :; do sleep 3600; done
"""


ON_DISK = "in the middle"
"""What is on the disk of ``bucket_with_disk``."""
READ_DISK = f"dd if=/dev/vda bs=1M skip=100 count=1 2>/dev/null | head -c {len(ON_DISK)}"
"""The command that reads it in a machine."""


def bucket_with_disk(debian: Any, folder: Path, form: str) -> MemoryBlobDriver:
    """Return a bucket, ``images``, with the image of a disk of 128 MiB, ``disk``, which holds something."""
    raw, made = folder / "disk.raw", folder / f"disk.{form}"
    with raw.open("wb") as file:
        file.truncate(128 * 2**20)
        file.seek(100 * 2**20)
        file.write(ON_DISK.encode())
    if form != "raw":
        debian.run("qemu-img", "convert", "-f", "raw", "-O", form, "-c", raw, made)
    return bucket_with_file(made)


def bucket_with_file(file: Path) -> MemoryBlobDriver:
    """Return a bucket, ``images``, with a file as its object ``disk``."""
    blobs = MemoryBlobDriver()
    BlobStore(blobs).create(BucketSpec(name="images")).put("disk", file)
    return blobs


def kernel(root: Path) -> Path:
    """Return the kernel."""
    (found,) = (root / "boot").glob("vmlinuz-*-cloud-*")
    return found


def initrd(root: Path, libraries: Iterable[Path], to: Path) -> Path:
    """Write the RAM disk.

    Args:
        root: where the packages were unpacked.
        libraries: what its sshd loads.
    """
    files = dict(_files(root, libraries))
    with gzip.open(to, "wb", compresslevel=1) as file:
        for number, (name, (mode, content)) in enumerate(sorted(files.items()), 1):
            file.write(_entry(number, name, mode, content))
        file.write(_entry(0, "TRAILER!!!", 0, b""))
    return to


def _files(root: Path, libraries: Iterable[Path]) -> Iterator[tuple[str, tuple[int, bytes]]]:
    folders = ("bin", "dev", "etc", "proc", "sys", "modules", "lib", "lib64", "usr", "usr/lib", "home", "var")
    for folder in folders:
        yield folder, (stat.S_IFDIR | 0o755, b"")
    yield "init", (stat.S_IFREG | 0o755, _INIT.format(modules=" ".join(_MODULES)).encode())
    yield "bin/busybox", (stat.S_IFREG | 0o755, (root / "bin/busybox").read_bytes())
    yield "bin/dropbear", (stat.S_IFREG | 0o755, (root / "usr/sbin/dropbear").read_bytes())
    yield "bin/dropbearkey", (stat.S_IFREG | 0o755, (root / "usr/bin/dropbearkey").read_bytes())
    for library in libraries:
        place = "lib64" if library.name == "ld-linux-x86-64.so.2" else "lib"
        yield f"{place}/{library.name}", (stat.S_IFREG | 0o755, library.read_bytes())
    for module in _MODULES:
        for path in (root / "lib/modules").rglob(f"{module}.ko"):  # else it is a part of the kernel, or missed at once
            yield f"modules/{module}.ko", (stat.S_IFREG | 0o644, path.read_bytes())


def libraries(debian: Any) -> list[Path]:
    """Return what the sshd of this computer's architecture loads."""
    program = debian.root / "usr/sbin/dropbear"
    done = subprocess.run(["ldd", program], env=debian.environ, capture_output=True, text=True, check=True)
    return [Path(found) for found in re.findall(r"(/\S+) \(0x", done.stdout)]


def foreign_libraries(root: Path) -> list[Path]:
    """Return all libraries of packages of another architecture, whose programs cannot be asked here."""
    return [path for path in root.rglob("lib*/**/*.so.*") if path.is_file()] + [*root.glob("lib/ld-linux-*")]


def _entry(number: int, name: str, mode: int, content: bytes) -> bytes:
    """Return one file as cpio's format newc has it."""
    fields = (number, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0)
    head = b"070701" + b"".join(b"%08X" % field for field in fields) + name.encode() + b"\0"
    return head + bytes(-len(head) % 4) + content + bytes(-len(content) % 4)


def ssh_of_its_own(folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Have an ssh that takes a new key and keeps hosts in a folder, and return the public half of the key."""
    ssh = shutil.which("ssh")
    assert ssh is not None
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / "key"], check=True)
    (folder / "bin").mkdir()
    options = f"-F none -i {folder}/key -o UserKnownHostsFile={folder}/known_hosts"
    (folder / "bin" / "ssh").write_text(f'#!/bin/sh\nexec {ssh} {options} "$@"\n')
    (folder / "bin" / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}/bin:{os.environ['PATH']}")
    return (folder / "key.pub").read_text().strip()


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

"""Fetch the servers of ``tests/servers`` from Debian and npm into a folder of the user's own.

Nothing is installed on the system: packages are downloaded by apt and unpacked beside each other, and the tests start
what is in them from there. Run it again at any time: it does something only where Debian has newer packages. What comes
from npm is fetched where npm is at hand; where it is not, the tests that need it say so.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

PACKAGES = (
    *("age", "openssh-client"),  # test_age_interop.py
    *(
        "bind9",
        "bind9-utils",
        "knot",
        "knot-dnssecutils",
        "nsd",
        "pdns-server",
        "pdns-backend-sqlite3",
    ),  # test_dns_*.py
    "cloud-init",  # test_compute_cloud_init.py
    "openssh-server",  # test_compute_hosts.py, test_database_servers_ssh.py
    *("ceph-mon", "ceph-osd", "ceph-base", "radosgw"),  # test_s3_radosgw.py
    *("postgresql-15", "mariadb-server-core", "mariadb-client"),  # test_rotation_*.py, test_database_servers.py
    *(
        "qemu-system-x86",
        "qemu-system-arm",
        "qemu-efi-aarch64",
        "ovmf",
        "qemu-utils",
        "linux-image-cloud-amd64",
        "busybox-static",
        "dropbear-bin",
    ),  # test_compute_*.py
    *("libvirt-daemon", "libvirt-daemon-driver-qemu", "libvirt-clients", "python3-libvirt"),  # test_compute_libvirt*.py
)

FOREIGN = (
    *("linux-image-cloud-arm64", "busybox-static", "dropbear-bin"),
    *("libc6", "libcrypt1", "libgmp10", "libtomcrypt1", "libtommath1", "zlib1g"),
)
"""What a machine of arm64 is made of: test_compute_arm64.py."""

AZURITE = "azurite@3.35"  # test_blob_azurite.py

FOLDER = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "shiftable" / "servers"
ROOT = FOLDER / "root"
ARM64 = FOLDER / "arm64"
NPM = FOLDER / "npm"
_LIST = FOLDER / "packages.txt"
_BOTH = ("--option", "APT::Architectures::=amd64", "--option", "APT::Architectures::=arm64")
_PLANNED = re.compile(r"^Inst (\S+) (?:\[\S+\] )?\((\S+) ", re.MULTILINE)


def main() -> None:
    """Bring the folder up to date."""
    if shutil.which("apt-get") is None or shutil.which("dpkg") is None:
        sys.exit("tests on real servers need Debian's packages, and here is no apt-get: use Debian 12 or a container")
    if os.geteuid() == 0:
        _update()
    _fetch_from_npm(AZURITE)
    wanted = _wanted()
    _fetch_foreign()
    if ROOT.is_dir() and _LIST.is_file() and _LIST.read_text().split() == wanted:
        return
    print(f"fetching {len(wanted)} packages into {ROOT}", flush=True)  # noqa: T201  a script's output
    FOLDER.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=FOLDER) as new:
        _unpack(wanted, Path(new))
        shutil.rmtree(ROOT, ignore_errors=True)
        (Path(new) / "root").rename(ROOT)
    _LIST.write_text("\n".join(wanted))


def _fetch_from_npm(package: str) -> None:
    """Have npm fetch a package into a folder of its own, without running anything of it."""
    npm = shutil.which("npm")
    known = NPM / "packages.txt"
    if npm is None or (known.is_file() and known.read_text() == package):
        return
    print(f"fetching {package} into {NPM}", flush=True)  # noqa: T201  a script's output
    NPM.mkdir(parents=True, exist_ok=True)
    command = [npm, "install", "--prefix", str(NPM), "--ignore-scripts", "--no-audit", "--no-fund", package]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr.strip()}")
    known.write_text(package)


def _update() -> None:
    """Have apt know the newest packages, those of the other architecture too where its servers have them."""
    if _tried("apt-get", "--quiet", "--quiet", *_BOTH, "update") is None:
        _apt("update")


def _fetch_foreign() -> None:
    """Unpack packages of another architecture, which nobody runs here; a machine does that simulates one."""
    meta, *rest = (f"{name}:arm64" for name in FOREIGN)
    told = _tried("apt-cache", *_BOTH, "show", "--no-all-versions", meta)
    kernel = re.search(r"^Depends: (\S+)", told or "", re.MULTILINE)
    if kernel is None:
        return
    wanted, known = [f"{kernel[1]}:arm64", *rest], ARM64 / "packages.txt"
    if known.is_file() and known.read_text().split() == wanted:
        return
    print(f"fetching {len(wanted)} packages of arm64 into {ARM64}", flush=True)  # noqa: T201  a script's output
    shutil.rmtree(ARM64, ignore_errors=True)
    ARM64.mkdir(parents=True)
    _apt("download", *_BOTH, *wanted, folder=ARM64)
    for package in sorted(ARM64.glob("*.deb")):
        subprocess.run(["dpkg", "--extract", str(package), str(ARM64 / "root")], check=True)
        package.unlink()
    known.write_text("\n".join(wanted))


def _wanted() -> list[str]:
    """Ask apt which packages would be installed: those that are named, and what of their needs is not here yet."""
    planned = _apt("install", "--simulate", "--reinstall", "--no-install-recommends", *PACKAGES)
    return sorted({f"{name}={version}" for name, version in _PLANNED.findall(planned)})


def _unpack(wanted: list[str], folder: Path) -> None:
    _apt("download", *wanted, folder=folder)
    (folder / "root").mkdir()
    for package in sorted(folder.glob("*.deb")):
        subprocess.run(["dpkg", "--extract", str(package), str(folder / "root")], check=True)


def _tried(*command: str) -> str | None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return None if done.returncode else done.stdout


def _apt(*arguments: str, folder: Path | None = None) -> str:
    # As root apt would download as its own user, who must not write here; and it would say so on each file.
    command = ["apt-get", "--quiet", "--quiet", "--option", "APT::Sandbox::User=root", *arguments]
    environ = {**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, check=False)
    if done.returncode:
        hint = "" if os.geteuid() == 0 else " (not root: run `apt-get update` yourself if packages are not found)"
        sys.exit(f"{' '.join(command)} failed{hint}:\n{done.stderr.strip()}")
    return done.stdout


if __name__ == "__main__":
    main()

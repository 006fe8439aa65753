"""Hosts that are claimed by ssh: OpenSSH's own server on loopback, one for each host, each with a home of its own."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from shiftable.compute import Compute, FleetSpec
from shiftable.errors import QuotaExceeded, Unavailable
from shiftable_baremetal import HostSettings
from shiftable_baremetal.compute_hosts import HostsComputeDriver

CONFIG = """
Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host
PidFile none
UsePAM no
StrictModes no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin yes
AuthorizedKeysFile {folder}/let-in .ssh/authorized_keys
"""
# A name space of mounts of its own: the user of the host is one of its, and the system's folders stay as they are.
START = """
set -e
mount -t tmpfs tmpfs /run
mkdir /run/sshd
mount --bind {folder}/passwd /etc/passwd
exec {sshd} -D -e -f {folder}/sshd_config
"""


@attrs.frozen
class Inventory:
    """Hosts on loopback.

    Args:
        servers: by the names of the hosts.
    """

    folder: Path
    hosts: tuple[HostSettings, ...]
    servers: dict[str, contextlib.ExitStack]
    key: str

    def compute(self) -> Compute:
        return Compute(HostsComputeDriver(self.hosts), sleep=lambda _: time.sleep(0.1))


@pytest.fixture
def inventory(
    debian: Any, own_mounts: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Iterator[Inventory]:
    beside = request.config.pluginmanager.get_plugin(str(Path(__file__).with_name("conftest.py")))
    assert beside is not None
    ssh = shutil.which("ssh")
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "key"], check=True)
    (tmp_path / "bin").mkdir()
    options = f"-F none -i {tmp_path}/key -o UserKnownHostsFile={tmp_path}/known_hosts"
    (tmp_path / "bin" / "ssh").write_text(f'#!/bin/sh\nexec {ssh} {options} "$@"\n')
    (tmp_path / "bin" / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    hosts, servers = [], {}
    with contextlib.ExitStack() as all_of_them:
        for name, port in zip(("one", "two"), beside.free_ports(2), strict=True):
            folder = tmp_path / name
            (folder / "home").mkdir(parents=True)
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / "host"], check=True)
            shutil.copy(tmp_path / "key.pub", folder / "let-in")
            users = f"root:x:0:0::/root:/bin/sh\nops:x:0:0::{folder}/home:/bin/sh\nsshd:x:74:74::/run/sshd:/bin/false\n"
            (folder / "passwd").write_text(users)
            (folder / "sshd_config").write_text(CONFIG.format(port=port, folder=folder))
            script = START.format(folder=folder, sshd=debian.root / "usr/sbin/sshd")
            servers[name] = all_of_them.enter_context(contextlib.ExitStack())
            log = folder / "log"
            command = ("unshare", "--mount", "sh", "-c", script)
            server = servers[name].enter_context(debian.running(log, *command))
            beside.wait_until(lambda port=port: beside._listens(port), "sshd", log, server)
            hosts.append(HostSettings(name=name, address="127.0.0.1", port=port, user="ops", cpus=2, memory_gib=4))
        yield Inventory(tmp_path, tuple(hosts), servers, (tmp_path / "key.pub").read_text().strip())


def spec(name: str, **more: Any) -> FleetSpec:
    return FleetSpec(name=name, image="debian-12", cpus=1, memory_gib=1, **more)


def test_hosts_are_claimed_used_and_released(inventory: Inventory) -> None:
    compute = inventory.compute()
    script = "#!/bin/sh\necho made by $(id -un) > ~/made\n"
    other = inventory.folder / "other"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", other], check=True)
    key = other.with_suffix(".pub").read_text().strip()
    (web,) = compute.create(spec("web", user_data_text=script, ssh_keys=(key,))).wait()
    (jobs,) = compute.create(spec("jobs")).wait()
    assert [web.id.split("/")[0], jobs.id.split("/")[0]] == ["one", "two"]
    with pytest.raises(QuotaExceeded, match="all 2 hosts"):
        compute.create(spec("more"))

    machine = compute.fleet("web").machine("web-0")
    assert machine.run("cat ~/made").stdout in {b"made by root\n", b"made by ops\n"}
    assert machine.run(["sh", "-c", "cat; exit 3"], stdin=b"x\0y").exit_code == 3
    guest = ["ssh", "-F", "none", "-o", "IdentitiesOnly=yes", "-o", f"IdentityFile={other}", "-o", "BatchMode=yes"]
    guest += ["-o", f"UserKnownHostsFile={inventory.folder}/others", "-o", "StrictHostKeyChecking=accept-new"]
    guest += ["-p", str(inventory.hosts[0].port), "ops@127.0.0.1", "true"]
    real = [shutil.which("ssh", path="/usr/bin:/bin") or "ssh", *guest[1:]]
    assert subprocess.run(real, check=False, capture_output=True).returncode == 0
    for value in ("shop", "it's data"):
        machine.relabel({"team": value}, remove=["stage"])
        assert machine.info().user_labels == {"team": value}
    assert inventory.compute().diff(spec("web", labels={"team": "it's data"})) == ()

    compute.delete("web")
    assert subprocess.run(real, check=False, capture_output=True).returncode == 255
    home = inventory.folder / "one" / "home"
    left = sorted(str(path.relative_to(home)) for path in home.rglob("*") if path.is_file())
    assert left == [".shiftable/claim.1", ".shiftable/released.1", ".ssh/authorized_keys", "made"]
    assert (home / ".ssh" / "authorized_keys").read_text() == ""
    (more,) = compute.create(spec("more")).wait()
    assert more.id.startswith("one/")


def test_a_host_that_is_down_stops_everything_until_it_is_back(inventory: Inventory) -> None:
    compute = inventory.compute()
    machine = compute.create(spec("web")).machine("web-0")
    inventory.servers["one"].close()
    assert machine.info().state == "unknown"
    with pytest.raises(Unavailable, match="the host one cannot be reached"):
        compute.create(spec("jobs"))
    left = Compute(HostsComputeDriver(inventory.hosts[1:]))  # taken out of the inventory
    assert [found.id.split("/")[0] for found in left.create(spec("jobs")).wait()] == ["two"]

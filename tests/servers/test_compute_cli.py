"""``shiftable compute`` on a machine of QEMU itself, each command a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from . import guest
from . import test_compute_qemu as qemu
from .guest import PATIENCE

lab, _made = qemu.lab, qemu._made

Done = subprocess.CompletedProcess[str]
Shiftable = Callable[..., Done]


@pytest.fixture
def shiftable(lab: Any, tmp_path: Path) -> Shiftable:
    """Return what runs the command beside a file that declares one machine."""
    quoted = {name: json.dumps(str(getattr(lab, name))) for name in ("root", "programs", "kernel", "initrd")}
    (tmp_path / "shiftable.toml").write_text(f"""
[project]
name = "shop"
[environments.development]
provider = "here"
[providers.here]
type = "baremetal"
root = {json.dumps(str(lab.root.parent / "place"))}
[providers.here.qemu]
programs = {quoted["programs"]}
accelerator = "tcg"
images = [{{ name = "debian-12", file = {json.dumps(str(lab.folder / "empty"))} }}]
[compute.web]
image = "debian-12"
cpus = 1
memory_gib = 1
disk_gib = 1
user = "ops"
ssh_keys = [{json.dumps(lab.key)}]
[compute.web.baremetal]
kernel = {quoted["kernel"]}
initrd = {quoted["initrd"]}
append = "console=ttyS0 quiet panic=1"
""")
    program = str(Path(sys.executable).parent / "shiftable")

    def run(*arguments: str, **more: Any) -> Done:
        command = (program, *arguments)
        return subprocess.run(
            command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=PATIENCE * 2, **more
        )

    return run


def test_a_declared_machine_is_made_entered_and_deleted_by_commands(shiftable: Shiftable) -> None:
    applied = shiftable("apply")
    assert (applied.returncode, applied.stdout) == (0, "create compute.web (web): done\n"), applied.stderr
    try:
        end = time.monotonic() + PATIENCE
        while (said := shiftable("compute", "ssh", "web-0", "-o", "BatchMode=yes", "--", "hostname")).returncode == 255:
            assert time.monotonic() < end, (said, shiftable("compute", "console", "web-0").stdout)
        assert (said.returncode, said.stdout) == (0, "web-0\n")
        assert shiftable("compute", "ssh", "web-0", "--", "sh", "-c", "exit 7").returncode == 7
        words = shiftable("compute", "run", "web", "--", "echo", "a  b", "$(id)", ";", "'")
        assert words.stdout == "web-0: a  b $(id) ; '\n"
        piped = shiftable("compute", "run", "web-0", "--stdin", "--", "cat", input="through\n")
        assert (piped.returncode, piped.stdout) == (0, "through\n")
        assert "web-0 is up" in shiftable("compute", "console", "web-0").stdout
        (fact,) = map(json.loads, shiftable("compute", "list", "--json").stdout.splitlines())
        assert (fact["name"], fact["state"], fact["addresses"]) == ("web-0", "running", ["127.0.0.1"])
        assert shiftable("plan", "--exit-code").returncode == 0
        stopped = shiftable("compute", "stop", "web")
        assert (stopped.returncode, stopped.stdout) == (0, "web: stopped\n"), stopped.stderr
        assert "is stopped" in shiftable("compute", "ssh", "web-0").stderr
    finally:
        deleted = shiftable("compute", "delete", "web", "--yes", "web")
    assert (deleted.returncode, deleted.stdout) == (0, "web: deleted\n"), deleted.stderr
    assert shiftable("compute", "list", "--all").stdout == ""
    assert shiftable("compute", "sweep", "-n", "--older-than", "0s").stdout == ""


def test_a_file_here_becomes_an_image_by_one_command(
    debian: Any, shiftable: Shiftable, lab: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{lab.programs}:{os.environ['PATH']}")
    guest.bucket_with_disk(debian, tmp_path, "raw")
    file = tmp_path / "shiftable.toml"
    text = file.read_text().replace('image = "debian-12"\n', 'image = "golden"\n')
    file.write_text(f'{text}\n[blob.assets]\nbucket = "shop-assets"\n')
    assert shiftable("apply", "blob.assets").returncode == 0
    order = ("compute", "import-image", "disk.raw", "here:golden", "--via", "assets:images", "--experimental")
    made = shiftable(*order)
    assert (made.returncode, made.stdout) == (0, 'golden: imported; image = "golden" makes machines of it\n'), made
    assert "disk.raw: converting to qcow2" in made.stderr
    assert shiftable("blob", "ls", "assets:images/").stdout == ""
    again = shiftable(*order)
    assert (again.returncode, "there is one of that name, golden" in again.stderr) == (1, True), again
    applied = shiftable("apply")
    assert applied.returncode == 0, applied
    try:
        end = time.monotonic() + PATIENCE
        while (said := shiftable("compute", "ssh", "web-0", "--", "sh", "-c", guest.READ_DISK)).returncode == 255:
            assert time.monotonic() < end, (said, shiftable("compute", "console", "web-0").stdout)
        assert said.stdout == guest.ON_DISK
    finally:
        assert shiftable("compute", "delete", "web", "--yes", "web").returncode == 0

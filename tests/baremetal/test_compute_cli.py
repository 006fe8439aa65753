"""``shiftable compute`` on this computer: the declaration that the clouds take, in QEMU."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from shiftable.cli._main import cli

FLEET = """
[project]
name = "shop"
[environments.development]
provider = "here"
[compute.web]
image = "debian-12"
cpus = 2
memory_gib = 4
count = 2
open_ports = [443]
"""


def told(*arguments: str, code: int = 0) -> str:
    """Run a command, and return what it said."""
    answer = CliRunner().invoke(cli, arguments, catch_exceptions=False)
    assert answer.exit_code == code, answer.output
    return answer.stdout


@pytest.fixture
def here(qemu: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the table of the provider, and work in a folder of one's own."""
    monkeypatch.chdir(tmp_path)
    image = json.dumps(str(qemu.folder / "images" / "debian-12"))
    return f"""
[providers.here]
type = "baremetal"
root = "{tmp_path}/data"
[providers.here.qemu]
programs = "{qemu.programs}"
accelerator = "tcg"
images = [{{ name = "debian-12", file = {image} }}]
"""


def test_a_fleet_is_made_changed_and_deleted(qemu: Any, here: str, tmp_path: Path) -> None:
    file = tmp_path / "shiftable.toml"
    file.write_text(FLEET + here)
    assert "create 'web' on here" in told("plan")
    assert told("apply") == "create compute.web (web): done\n"
    assert "everything is as declared" in told("plan", "--exit-code")
    rows = sorted(tuple(line.split("\t")[:2]) for line in told("compute", "list").splitlines())
    assert rows == [("here:web-0", "running"), ("here:web-1", "running")]
    assert told("compute", "console", "web-0") == "booting\n"
    assert told("compute", "stop", "web-1") == "web-1: stopped\n"
    assert len(qemu.living()) == 1
    assert told("compute", "start", "web") == "web: started\n"
    file.write_text(FLEET.replace("count = 2", "count = 3").replace("[443]", "[443, 8080]") + here)
    assert told("apply").count("update compute.web (web): done\n") == 2
    infos = json.loads(told("compute", "show", "web", "--json"))["machines"]
    assert [(info["name"], len(info["firewall"])) for info in infos] == [("web-0", 2), ("web-1", 2), ("web-2", 2)]
    qemu.kill()  # as a restart of the computer
    assert {line.split("\t")[1] for line in told("compute", "list").splitlines()} == {"stopped"}
    told("compute", "start", "web")
    assert len(qemu.living()) == 3
    assert told("compute", "delete", "web", "--yes", "web") == "web: deleted\n"
    assert (told("compute", "list", "--all"), told("compute", "sweep", "-n", "--older-than", "0s")) == ("", "")
    assert qemu.living() == []


def test_without_qemu_it_is_said_how_to_get_it(here: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    text = (FLEET + here).splitlines()
    changed = [f'programs = "{tmp_path}/empty"' if line.startswith("programs") else line for line in text]
    (tmp_path / "shiftable.toml").write_text("\n".join(changed))
    for command in (["check"], ["check", "--offline"], ["apply"]):
        answer = CliRunner().invoke(cli, command, catch_exceptions=False)
        assert answer.exit_code == 1, command
        assert "no QEMU on this computer (apt install qemu-system-x86 qemu-utils" in answer.output
    assert told("compute", "list") == ""


def test_a_disk_that_is_larger_than_any_is_refused_before_anything_is_made(here: str, tmp_path: Path) -> None:
    (tmp_path / "shiftable.toml").write_text((FLEET + here).replace("count = 2", "disk_gib = 2097153"))
    why = "no disk has 2,097,153 GiB; the largest that QEMU makes has 2,097,152 GiB"
    new = ("--image=debian-12", "--cpus=1", "--memory=1", "--disk-gib=2097153")
    for command in (
        ["compute", "create", "here:batch", *new],
        ["apply"],
        ["compute", "disk", "create", "here:data", "--size=2097153"],
    ):
        answer = CliRunner().invoke(cli, command, catch_exceptions=False)
        assert (1, True) == (answer.exit_code, answer.stderr.rstrip().endswith(f": {why}"))
    assert told("compute", "list", "--all") == told("compute", "sweep", "-n", "--older-than", "0s") == ""
    assert told("compute", "disk", "list", "here") == ""

"""``shiftable compute`` on every cloud, against its double: the same declaration, made, changed and gone."""

from __future__ import annotations

import json
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from shiftable.cli._main import cli

CLOUDS = ("aws", "azure", "gcp")
KEY = "ssh-ed25519 " + "AAAAC3NzaC1lZDI1NTE5AAAAI" + "A" * 43 + " ops@example"

FLEET = f"""
[project]
name = "shop"
[environments.development]
provider = "there"
[compute.web]
image = "debian-12"
cpus = 2
memory_gib = 4
count = 2
open_ports = [443]
ssh_keys = ["{KEY}"]
"""


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments, catch_exceptions=False)


def told(*arguments: str) -> str:
    """Run a command that succeeds, and return what it said."""
    answer = run(*arguments)
    assert 0 == answer.exit_code, answer.output
    return answer.stdout


@pytest.mark.parametrize("cloud", CLOUDS)
def test_a_fleet_is_made_changed_and_deleted(cloud: str, table: Callable[[str, str], str], folder: Path) -> None:
    file, there = folder / "shiftable.toml", table("there", cloud)
    file.write_text(FLEET + there)
    assert "create 'web' on there" in told("plan")
    assert "create compute.web (web): done\n" == told("apply")
    assert "everything is as declared" in told("plan", "--exit-code")
    rows = [line.split("\t") for line in told("compute", "list").splitlines()]
    assert [("there:web-0", "running"), ("there:web-1", "running")] == sorted((row[0], row[1]) for row in rows)
    assert "firewall: 443/tcp from 0.0.0.0/0, ::/0\n" in told("compute", "show", "web")
    assert "web-1: stopped\n" == told("compute", "stop", "web-1")
    assert "stopped" == json.loads(told("compute", "show", "web-1", "--json"))["state"]
    assert "web: started\n" == told("compute", "start", "web")
    file.write_text(FLEET.replace("count = 2", "count = 3").replace("[443]", "[443, 22]") + there)
    assert 2 == told("apply").count("update compute.web (web): done\n")
    infos = json.loads(told("compute", "show", "web", "--json"))["machines"]
    assert ["web-0", "web-1", "web-2"] == [info["name"] for info in infos]
    assert {2} == {len(info["firewall"]) for info in infos}
    file.write_text(FLEET + there)
    assert 1 == run("apply").exit_code  # it deletes nothing
    assert "web: as declared\n" == told("compute", "replace", "web", "--yes", "web")
    assert "everything is as declared" in told("plan", "--exit-code")
    assert "web: deleted\n" == told("compute", "delete", "web", "--yes", "web")
    assert "" == told("compute", "list", "--all")
    assert "" == told("compute", "sweep", "-n", "--older-than", "0s")


def test_sizes_of_all_clouds_stand_side_by_side(table: Callable[[str, str], str], folder: Path) -> None:
    tables = "".join(table(f"my-{cloud}", cloud) for cloud in CLOUDS)
    (folder / "shiftable.toml").write_text(FLEET.replace('"there"', '"my-aws"') + tables)
    found = [
        json.loads(line) for line in told("compute", "sizes", "--cpus", "2", "--memory", "4", "--json").splitlines()
    ]
    assert {f"my-{cloud}" for cloud in CLOUDS} == {offer["provider"] for offer in found}
    for offer in found:
        assert (True, True) == (offer["cpus"] >= 2, offer["memory_gib"] >= 4)
        assert offer["reason"]
    priced = [Decimal(offer["monthly"]) for offer in found if offer["monthly"] is not None]
    assert len(priced) >= 2
    assert sorted(priced) == priced
    assert all(10 < price < 200 for price in priced)
    human = run("compute", "sizes", "--cpus", "2", "--memory", "4")
    assert 3 == len(human.stdout.splitlines())
    assert "months old" in human.stderr

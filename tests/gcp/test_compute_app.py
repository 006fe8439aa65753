"""An application has its machines in Compute Engine by configuration only, and the real command works there."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from shiftable import load
from shiftable.errors import ConfigError
from shiftable_gcp import GcpComputeSettings
from shiftable_gcp.double import GcpDouble

FILE = """
[project]
name = "shop"
[environments.development]
provider = "frankfurt"
[providers.frankfurt]
type = "gcp"
endpoint = "{url}"
project = "{project}"
region = "europe-west3"
service_account = {{ env = "SHOP_KEY" }}
[compute.web]
image = "debian-12"
cpus = 2
memory_gib = 4
count = 2
zones = ["europe-west3-b", "europe-west3-c"]
open_ports = [443]
ssh_keys = ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGNvbmZvcm1hbmNlLCB3aG9zZSBzZWNyZXQgbm9ib2R5 ops"]
user_data = "cloud-init.yaml"
labels = {{ team = "shop" }}
[[compute.web.rules]]
port = 22
allow_from = ["192.0.2.0/24"]
[compute.web.gcp]
disk_type = "pd-ssd"
scopes = ["https://www.googleapis.com/auth/devstorage.read_only"]
"""
CANARY = "c4n4ry-in-cloud-init"

Command = Callable[..., "CompletedProcess[str]"]


@pytest.fixture
def shop(folder: Path, gcp_double: GcpDouble, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SHOP_KEY", gcp_double.config["service_account"].reveal())
    path = folder / "shiftable.toml"
    path.write_text(FILE.format(url=gcp_double.url, project=gcp_double.project))
    (folder / "cloud-init.yaml").write_text(f"#cloud-config\nruncmd: ['echo {CANARY}']\n")
    gcp_double.compute.polls = 0
    return path


def test_an_application_has_its_machines_there_by_configuration_only(shop: Path, gcp_double: GcpDouble) -> None:
    with load(shop) as app:
        (declared,) = app.declared("compute")
        spec: Any = app.spec(declared)
        scopes = ("https://www.googleapis.com/auth/devstorage.read_only",)
        assert GcpComputeSettings(disk_type="pd-ssd", scopes=scopes) == spec.native
        (change,) = app.diff(declared)
        assert ("create", True) == (change.action, change.monthly_cost is not None)
        app.apply(declared, change)
        machines = app.compute("web").wait()
        assert ["europe-west3-b", "europe-west3-c"] == [machine.zone for machine in machines]
        assert {"e2-medium"} == {machine.size for machine in machines}
        assert () == app.diff(declared)
    held = gcp_double.compute.of("instances")
    assert ["europe-west3-b/web-0", "europe-west3-c/web-1"] == sorted(held)
    items = {each["key"]: each["value"] for each in held["europe-west3-b/web-0"]["metadata"]["items"]}
    assert CANARY in items["user-data"]
    assert {"shiftable-fleet": "web", "team": "shop"} == held["europe-west3-b/web-0"]["labels"]
    assert {"pd-ssd"} == {disk["type"].rpartition("/")[2] for disk in gcp_double.compute.of("disks").values()}
    opened = [
        (each["sourceRanges"], each["allowed"][0]["ports"]) for each in gcp_double.compute.of("firewalls").values()
    ]
    assert [(["0.0.0.0/0"], ["443"]), (["192.0.2.0/24"], ["22"]), (["::/0"], ["443"])] == sorted(opened)


def test_what_only_google_knows_is_checked_with_the_file(shop: Path) -> None:
    shop.write_text(shop.read_text().replace("disk_type =", "disk_kind ="))
    with pytest.raises(ConfigError, match="disk_kind"), load(shop) as app:
        app.spec(app.declared("compute")[0])


def test_the_command_makes_what_is_declared_and_no_more(shop: Path, gcp_double: GcpDouble, shiftable: Command) -> None:
    done = shiftable("apply")
    assert 0 == done.returncode, done.stderr
    assert ["europe-west3-b/web-0", "europe-west3-c/web-1"] == sorted(gcp_double.compute.of("instances"))
    again = shiftable("apply", "--json")
    assert (0, []) == (again.returncode, json.loads(again.stdout)["changes"])
    said = f"{done.stdout}{done.stderr}{again.stdout}{again.stderr}"
    journal = shop.parent / ".shiftable"
    said += "".join(path.read_text(errors="replace") for path in journal.rglob("*") if path.is_file())
    assert CANARY not in said


@pytest.mark.usefixtures("shop")
def test_the_command_tells_why_a_machine_could_not_be_made(gcp_double: GcpDouble, shiftable: Command) -> None:
    gcp_double.compute.polls = 1
    gcp_double.compute.exhausted.add("europe-west3-c")
    failed = shiftable("apply")
    assert failed.returncode
    assert "ZONE_RESOURCE_POOL_EXHAUSTED" in failed.stderr
    assert "Traceback" not in failed.stderr
    gcp_double.compute.exhausted.clear()
    done = shiftable("apply")
    assert 0 == done.returncode, done.stderr
    assert ["europe-west3-b/web-0", "europe-west3-c/web-1"] == sorted(gcp_double.compute.of("instances"))


@pytest.mark.usefixtures("shop")
def test_the_commands_for_machines_work_there(gcp_double: GcpDouble, shiftable: Command) -> None:
    def answer(*arguments: str) -> str:
        done = shiftable(*arguments)
        assert 0 == done.returncode, (arguments, done.stderr)
        return done.stdout

    answer("apply")
    assert "web-1" in answer("compute", "list")
    assert "e2-medium" in answer("compute", "sizes", "--cpus", "2", "--memory", "4")
    assert "debian-12" in answer("compute", "images")
    assert "Booting" in answer("compute", "console", "web-0")
    answer("compute", "stop", "web")
    assert {"TERMINATED"} == {each["status"] for each in gcp_double.compute.of("instances").values()}
    answer("compute", "start", "web")
    assert {"RUNNING"} == {each["status"] for each in gcp_double.compute.of("instances").values()}
    answer("compute", "delete", "web", "--yes", "web")
    assert [{}, {}, {}] == [gcp_double.compute.of(kind) for kind in ("instances", "disks", "firewalls")]

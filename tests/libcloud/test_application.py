"""An application runs at DigitalOcean by configuration only: its zone and its machines; the zone moves both ways."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from shiftable import load
from shiftable.cli._main import cli
from shiftable.dns import ZoneSpec
from shiftable.migrate import Migration
from shiftable.testing.conformance.dns import RECORDS
from shiftable_libcloud.double import DigitalOceanDouble

KEY = "ssh-ed25519 " + "AAAAC3NzaC1lZDI1NTE5AAAAI" + "A" * 43 + " ops@example"
FILE = """
[project]
name = "shop"
[environments.development]
provider = "amsterdam"
[providers.amsterdam]
type = "libcloud"
hoster = "digitalocean"
region = "fra1"
endpoint = "{url}"
token = {{ env = "SHOP_TOKEN" }}
[providers.here]
type = "memory"
[dns.shop]
zone = "shop.example"
ttl = 60
"""
FLEET = f"""
[compute.web]
image = "debian-12"
cpus = 2
memory_gib = 4
count = 2
open_ports = [443]
ssh_keys = ["{KEY}"]
"""


@pytest.fixture
def shop(folder: Path, digitalocean: DigitalOceanDouble, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SHOP_TOKEN", digitalocean.token)
    path = folder / "shiftable.toml"
    path.write_text(FILE.format(url=digitalocean.url))
    return path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments, catch_exceptions=False)


def told(*arguments: str) -> str:
    answer = run(*arguments)
    assert 0 == answer.exit_code, answer.output
    return answer.stdout


def test_an_application_has_its_zone_there_by_configuration_only(shop: Path, digitalocean: DigitalOceanDouble) -> None:
    with load(shop) as app:
        declared = next(iter(app.declared()))
        (change,) = app.diff(declared)
        app.apply(declared, change)
        assert () == app.diff(declared)
        app.dns("shop").set("www", "A", ["192.0.2.1", "192.0.2.2"])
    rows = digitalocean.domains.all["shop.example"].records.values()
    assert {("192.0.2.1", 60), ("192.0.2.2", 60)} == {(row["data"], row["ttl"]) for row in rows if row["type"] == "A"}


def test_a_zone_moves_there_and_back_and_nothing_of_it_differs(shop: Path) -> None:
    with load(shop) as app:
        here, there = app.cloud("here").dns, app.cloud("amsterdam").dns
        source = here.create(ZoneSpec(name="shop.example"))
        records = [source.record(name, kind, values, ttl=600) for name, kind, values in RECORDS]
        held = [record for record in records if there.zone("shop.example").check_record(record) is None]
        assert 20 < len(held) < len(records)
        source.change(source.diff(held))

        out: Any = Migration(app, "here", "amsterdam")
        assert out.apply(out.plan()).complete
        assert {record.key: record for record in held}.items() <= {
            record.key: record for record in there.zone("shop.example").records()
        }.items()

        source.change(source.diff([]))
        back: Any = Migration(app, "amsterdam", "here")
        assert back.apply(back.plan()).complete
        kept = {record.key: record for record in source.records()}
        assert [] == [str(record.key) for record in held if kept.get(record.key) != record]


def test_what_the_hoster_cannot_hold_stops_a_move_and_is_named(shop: Path, digitalocean: DigitalOceanDouble) -> None:
    with load(shop) as app:
        source = app.cloud("here").dns.create(ZoneSpec(name="shop.example"))
        source.set("loc", "LOC", "52 22 23.000 N 4 53 32.000 E -2.00m")
        source.set("txt", "TXT", r'"a\\b"')
        source.set("www", "A", "192.0.2.1")
        move: Any = Migration(app, "here", "amsterdam")
        plan = repr(move.plan())
        assert not move.apply().complete
    assert "it holds no LOC records" in plan
    assert "of a TXT DigitalOcean keeps" in plan
    rows = digitalocean.domains.all["shop.example"].records.values()
    assert {"SOA", "NS", "A"} == {row["type"] for row in rows}


def test_a_fleet_is_made_changed_and_deleted_by_the_command(shop: Path, digitalocean: DigitalOceanDouble) -> None:
    base = shop.read_text().split("[dns.shop]")[0]
    shop.write_text(base + FLEET)
    plan = told("plan")
    assert "create 'web' on amsterdam" in plan
    assert "create compute.web (web): done\n" == told("apply")
    assert "everything is as declared" in told("plan", "--exit-code")
    rows = [line.split("\t") for line in told("compute", "list").splitlines()]
    assert [("amsterdam:web-0", "running"), ("amsterdam:web-1", "running")] == sorted((row[0], row[1]) for row in rows)
    assert "firewall: 443/tcp from 0.0.0.0/0, ::/0\n" in told("compute", "show", "web")
    assert "s-2vcpu-4gb" == json.loads(told("compute", "show", "web-1", "--json"))["size"]
    refused = run("compute", "stop", "web-1")
    assert 0 != refused.exit_code
    assert "Traceback" not in refused.output
    shop.write_text(base + FLEET.replace("count = 2", "count = 3").replace("[443]", "[443, 22]"))
    told("apply")
    assert 3 == len(digitalocean.machines.droplets)
    assert "web: deleted\n" == told("compute", "delete", "web", "--yes", "web")
    assert "" == told("compute", "sweep", "-n", "--older-than", "0s")
    assert ({}, {}) == (digitalocean.machines.droplets, digitalocean.machines.firewalls)

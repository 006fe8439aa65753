"""An application runs at a hoster by configuration only: its zone and its machines; the zone moves both ways."""

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
from shiftable_libcloud.double import DigitalOceanDouble, HosterDouble, LinodeDouble

from .hostile import machines, names, walls

KEY = "ssh-ed25519 " + "AAAAC3NzaC1lZDI1NTE5AAAAI" + "A" * 43 + " ops@example"
FILE = """
[project]
name = "shop"
[environments.development]
provider = "amsterdam"
[providers.amsterdam]
type = "libcloud"
hoster = "{hoster}"
region = "{region}"
endpoint = "{url}"
token = {{ env = "SHOP_TOKEN" }}
[providers.here]
type = "memory"
[dns.shop]
zone = "shop.example"
ttl = 300
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


def written(folder: Path, double: HosterDouble, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SHOP_TOKEN", double.token)
    path = folder / "shiftable.toml"
    path.write_text(
        FILE.format(url=double.url, hoster=double.config["hoster"], region=double.config.get("region", "ams"))
    )
    return path


@pytest.fixture
def shop(folder: Path, digitalocean: DigitalOceanDouble, monkeypatch: pytest.MonkeyPatch) -> Path:
    return written(folder, digitalocean, monkeypatch)


@pytest.fixture
def anywhere(folder: Path, hoster: HosterDouble, monkeypatch: pytest.MonkeyPatch) -> Path:
    return written(folder, hoster, monkeypatch)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments, catch_exceptions=False)


def told(*arguments: str) -> str:
    answer = run(*arguments)
    assert 0 == answer.exit_code, answer.output
    return answer.stdout


def test_an_application_has_its_zone_there_by_configuration_only(anywhere: Path, hoster: HosterDouble) -> None:
    with load(anywhere) as app:
        declared = next(iter(app.declared()))
        (change,) = app.diff(declared)
        app.apply(declared, change)
        assert () == app.diff(declared)
        app.dns("shop").set("www", "A", ["192.0.2.1", "192.0.2.2"])
    value, ttl = ("target", "ttl_sec") if isinstance(hoster, LinodeDouble) else ("data", "ttl")
    rows = [row for row in hoster.domains.all["shop.example"].records.values() if row["type"] == "A"]
    assert [("192.0.2.1", 300), ("192.0.2.2", 300)] == sorted((row[value], row[ttl]) for row in rows)


def test_a_zone_moves_there_and_back_and_nothing_of_it_differs(anywhere: Path) -> None:
    with load(anywhere) as app:
        here, there = app.cloud("here").dns, app.cloud("amsterdam").dns
        source = here.create(ZoneSpec(name="shop.example"))
        records = [source.record(name, kind, values, ttl=3600) for name, kind, values in RECORDS]
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


@pytest.mark.parametrize(
    ("hoster", "size"), [("digitalocean", "s-2vcpu-4gb"), ("linode", "g6-standard-2")], indirect=["hoster"]
)
def test_a_fleet_is_made_changed_and_deleted_by_the_command(anywhere: Path, hoster: HosterDouble, size: str) -> None:
    shop = anywhere
    base = shop.read_text().split("[dns.shop]")[0]
    shop.write_text(base + FLEET)
    plan = told("plan")
    assert "create 'web' on amsterdam" in plan
    assert "create compute.web (web): done\n" == told("apply")
    assert "everything is as declared" in told("plan", "--exit-code")
    rows = [line.split("\t") for line in told("compute", "list").splitlines()]
    assert [("amsterdam:web-0", "running"), ("amsterdam:web-1", "running")] == sorted((row[0], row[1]) for row in rows)
    assert "firewall: 443/tcp from 0.0.0.0/0, ::/0\n" in told("compute", "show", "web")
    assert size == json.loads(told("compute", "show", "web-1", "--json"))["size"]
    refused = run("compute", "stop", "web-1")
    assert 0 != refused.exit_code
    assert "Traceback" not in refused.output
    shop.write_text(base + FLEET.replace("count = 2", "count = 3").replace("[443]", "[443, 22]"))
    told("apply")
    assert 3 == len(machines(hoster))
    assert "web: deleted\n" == told("compute", "delete", "web", "--yes", "web")
    assert "" == told("compute", "sweep", "-n", "--older-than", "0s")
    assert ({}, {}) == (machines(hoster), walls(hoster))


def test_a_ttl_that_linode_would_round_stops_a_move_and_is_named(
    folder: Path, linode: LinodeDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    with load(written(folder, linode, monkeypatch)) as app:
        source = app.cloud("here").dns.create(ZoneSpec(name="shop.example"))
        source.set("www", "A", "192.0.2.1", ttl=3600)
        source.set("quick", "A", "192.0.2.1", ttl=301)
        move: Any = Migration(app, "here", "amsterdam")
        plan = repr(move.plan())
        assert not move.apply().complete
    assert "the TTL is 301 s; Linode rounds what is none of" in plan
    assert ["www"] == [row["name"] for row in linode.domains.all["shop.example"].records.values()]


MOVE = FILE.replace(
    "[providers.here]",
    """[providers.frankfurt]
type = "libcloud"
hoster = "linode"
region = "eu-central"
endpoint = "{other}"
token = {{ env = "OTHER_TOKEN" }}
[providers.here]""",
).split("[dns.shop]")[0]


@pytest.mark.parametrize(("source", "target"), [("amsterdam", "frankfurt"), ("frankfurt", "amsterdam")])
def test_a_fleet_moves_from_one_hoster_to_the_other(
    folder: Path,
    digitalocean: DigitalOceanDouble,
    linode: LinodeDouble,
    monkeypatch: pytest.MonkeyPatch,
    source: str,
    target: str,
) -> None:
    monkeypatch.setenv("OTHER_TOKEN", linode.token)
    path = written(folder, digitalocean, monkeypatch)
    text = MOVE.format(url=digitalocean.url, hoster="digitalocean", region="fra1", other=linode.url)
    path.write_text(text.replace('provider = "amsterdam"', f'provider = "{source}"') + FLEET)
    there: dict[str, HosterDouble] = {"amsterdam": digitalocean, "frankfurt": linode}
    told("apply")
    left = {number: row["tags"] for number, row in machines(there[source]).items()}
    plan = told("migrate", "--from", source, "--to", target)
    assert all(part in plan for part in ("52.14 USD", "52.56 USD", "s-2vcpu-4gb", "g6-standard-2"))
    told("migrate", "--from", source, "--to", target, "--apply")
    assert ["web-0", "web-1"] == names(there[target])
    assert left == {number: row["tags"] for number, row in machines(there[source]).items()}
    path.write_text(path.read_text().replace(f'provider = "{source}"', f'provider = "{target}"'))
    assert "everything is as declared" in told("plan", "--exit-code")

"""An application's zone is in Cloud DNS by configuration only; the real command works there, and moves do."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import attrs
import pytest

from shiftable import load
from shiftable.dns import Policy, RecordChange, ZoneSpec
from shiftable.migrate import Migration
from shiftable.migrate.mover import Options
from shiftable.testing.conformance.dns import RECORDS
from shiftable_gcp.double import GcpDouble

FILE = """
[project]
name = "shop"
[environments.development]
provider = "berlin"
[providers.berlin]
type = "gcp"
endpoint = "{url}"
project = "{project}"
service_account = {{ env = "SHOP_KEY" }}
[providers.here]
type = "memory"
[dns.shop]
zone = "shop.example"
ttl = 60
"""

Command = Callable[..., "CompletedProcess[str]"]


@pytest.fixture
def shop(folder: Path, gcp_double: GcpDouble, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SHOP_KEY", gcp_double.config["service_account"].reveal())
    path = folder / "shiftable.toml"
    path.write_text(FILE.format(url=gcp_double.url, project=gcp_double.project))
    return path


def stored(double: GcpDouble) -> dict[tuple[str, str], tuple[int, tuple[str, ...]]]:
    sets = double.dns.zones[double.project, "shop-example"].sets
    return {key: (each.ttl, each.rrdatas) for key, each in sets.items() if each.type not in {"NS", "SOA"}}


def test_an_application_has_its_zone_there_by_configuration_only(shop: Path, gcp_double: GcpDouble) -> None:
    with load(shop) as app:
        declared = next(iter(app.declared()))
        (change,) = app.diff(declared)
        assert "create" == change.action
        app.apply(declared, change)
        assert () == app.diff(declared)
        app.dns("shop").set("www", "A", "192.0.2.1")
        assert ("192.0.2.1",) == app.dns("shop").get("www", "A").texts
    assert {("www.shop.example.", "A"): (60, ("192.0.2.1",))} == stored(gcp_double)


def test_the_command_makes_writes_shows_exports_imports_and_deletes(
    shop: Path, gcp_double: GcpDouble, shiftable: Command
) -> None:
    def answer(*arguments: str, **options: Any) -> str:
        done = shiftable(*arguments, **options)
        assert done.returncode == 0, done.stderr
        return done.stdout

    answer("apply")
    answer("dns", "set", "shop", "www", "A", "192.0.2.1", "192.0.2.2")
    answer("dns", "set", "shop", "txt", "TXT", r'"a\\b" "\"c\""')
    assert {
        ("txt.shop.example.", "TXT"): (60, (r'"a\\b" "\"c\""',)),
        ("www.shop.example.", "A"): (60, ("192.0.2.1", "192.0.2.2")),
    } == stored(gcp_double)
    listed = [json.loads(line) for line in answer("dns", "records", "shop", "--json").splitlines()]
    assert {"www.shop.example.", "txt.shop.example.", "shop.example."} == {each["name"] for each in listed}
    text = answer("dns", "export", "shop")
    answer("dns", "rm", "shop", "www", "--yes")
    assert [("txt.shop.example.", "TXT")] == list(stored(gcp_double))
    answer("dns", "import", "shop", "-", stdin=text)
    assert ("www.shop.example.", "A") in stored(gcp_double)
    assert "shop.example" in answer("dns", "zones")


def test_the_command_tells_a_refusal_in_one_sentence(shop: Path, gcp_double: GcpDouble, shiftable: Command) -> None:
    assert 0 == shiftable("apply").returncode
    refused = shiftable("dns", "set", "shop", "x", "LOC", "52 22 23.000 N 4 53 32.000 E -2.00m")
    assert refused.returncode
    assert "holds no LOC records" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert {} == stored(gcp_double)


def test_a_zone_moves_there_and_back_and_nothing_of_it_differs(shop: Path, gcp_double: GcpDouble) -> None:
    with load(shop) as app:
        here, there = app.cloud("here").dns, app.cloud("berlin").dns
        source = here.create(ZoneSpec(name="shop.example"))
        records = [source.record(name, kind, values, ttl=600) for name, kind, values in RECORDS]
        held = [record for record in records if there.zone("shop.example").check_record(record) is None]
        assert 40 < len(held) < len(records)
        source.change(source.diff(held))

        out: Any = Migration(app, "here", "berlin")
        assert out.apply(out.plan()).complete
        assert {record.key: record for record in held}.items() <= {
            record.key: record for record in there.zone("shop.example").records()
        }.items()
        assert {(record.name, record.type) for record in held if record.type != "NS"} == stored(gcp_double).keys()

        source.change(source.diff([]))
        back: Any = Migration(app, "berlin", "here")
        assert back.apply(back.plan()).complete
        kept = {record.key: record for record in source.records()}
        assert [] == [str(record.key) for record in held if kept.get(record.key) != record]


def test_routing_stays_or_becomes_a_plain_set_with_all_values_where_that_is_accepted(
    shop: Path, gcp_double: GcpDouble
) -> None:
    items = [{"weight": weight, "rrdatas": [f"192.0.2.{weight}"]} for weight in (1, 3)]
    with load(shop) as app:
        zone = app.cloud("berlin").dns.create(ZoneSpec(name="shop.example"))
        values = [f"192.0.2.{weight}" for weight in (1, 3)]
        data = json.dumps({"routingPolicy": {"wrr": {"items": items}}}, sort_keys=True, separators=(",", ":"))
        routed = attrs.evolve(zone.record("www", "A", values), policy=Policy(provider="gcp", data=data))
        zone.change([RecordChange(before=None, after=routed)])

        refused: Any = Migration(app, "berlin", "here").apply()
        assert not refused.complete
        assert not app.cloud("here").dns.zone("shop.example").exists("www", "A")
        moved: Any = Migration(app, "berlin", "here", (), Options(degrade={"policy"})).apply()
        assert moved.complete
        found = app.cloud("here").dns.zone("shop.example").get("www", "A")
        assert (set(values), None) == (set(found.texts), found.policy)
    assert {("www.shop.example.", "A"): (300, ())} == stored(gcp_double)

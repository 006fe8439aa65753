"""An application whose zone is in Azure DNS by configuration only, the command line beside it, and moves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import shiftable
from shiftable.dns import ZoneSpec
from shiftable.migrate import Migration
from shiftable.testing.conformance.dns import RECORDS
from shiftable_azure.double import AzureDouble

from .projects import command, project

TOML = """
[project]
name = "shop"
[environments.development]
provider = "here"
[environments.production]
provider = "there"
[providers.here]
type = "memory"
[providers.there]
type = "azure"
subscription = "{subscription}"
resource_group = "{resource_group}"
arm_endpoint = "{arm_endpoint}"
[dns.shop]
zone = "shop.example"
"""


@pytest.fixture
def folder(azure_double: AzureDouble, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a project that reaches Azure with the double's managed identity: no credential is in the file."""
    return project(tmp_path, TOML.format(**azure_double.config), azure_double, monkeypatch)


def test_a_line_of_the_file_puts_the_zone_into_azure(folder: Path, azure_double: AzureDouble) -> None:
    with shiftable.load(folder, environment="production") as app:
        app.cloud("there").dns.create(ZoneSpec(name="shop.example"))
        app.dns("shop").set("www", "A", "192.0.2.1", ttl=60)
        assert app.dns("shop").get("www", "A").texts == ("192.0.2.1",)
    stored = azure_double.dns.zone("shop.example").sets["www", "A"]
    assert stored.properties == {"TTL": 60, "ARecords": [{"ipv4Address": "192.0.2.1"}]}
    assert "GetToken" in {call.operation for call in azure_double.calls}


def test_the_command_line_reads_and_writes_the_zone(folder: Path, azure_double: AzureDouble) -> None:
    with shiftable.load(folder, environment="production") as app:
        app.cloud("there").dns.create(ZoneSpec(name="shop.example"))
    written = command(folder, "dns", "set", "shop", "www", "A", "192.0.2.1")
    assert written.returncode == 0, written.stderr
    assert ("www", "A") in azure_double.dns.zone("shop.example").sets
    assert "192.0.2.1" in command(folder, "dns", "records", "shop").stdout
    refused = command(folder, "dns", "set", "shop", "www", "TXT", '"ü"')
    assert refused.returncode != 0
    assert "printable ASCII" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_zone_moves_to_azure_and_back(folder: Path, azure_double: AzureDouble) -> None:
    with shiftable.load(folder) as app:
        source = app.cloud("here").dns.create(ZoneSpec(name="shop.example"))
        records = [source.record(name, kind, values, ttl=600) for name, kind, values in RECORDS]
        held = [
            record for record in records if app.cloud("there").dns.zone("shop.example").check_record(record) is None
        ]
        assert len(held) > 30
        source.change(source.diff(held))
        out: Any = Migration(app, "here", "there")
        assert out.apply(out.plan()).complete
        assert {record.key for record in app.cloud("there").dns.zone("shop.example").records()} > {
            record.key for record in held
        }
        source.change(source.diff([]))
        back: Any = Migration(app, "there", "here")
        assert back.apply(back.plan()).complete
        kept = {record.key: record for record in source.records()}
        assert [str(record.key) for record in held if kept.get(record.key) != record] == []

"""An application on Azure by configuration only, and its way there and back."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from azure.storage.blob import BlobServiceClient

import shiftable
from shiftable.blob import Bucket, BucketSpec, Headers
from shiftable.migrate import Migration, Trouble
from shiftable.testing.conformance.blob import AWKWARD_KEYS, ORDINARY_KEYS
from shiftable_azure.double import AzureDouble

MIB = 1024 * 1024

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
storage_account = "{account}"
endpoint = "{endpoint}"
account_key = {{ env = "STORAGE_KEY" }}
[providers.back]
type = "memory"
[blob.assets]
bucket = "shop-assets"
"""


@pytest.fixture
def app(azure_double: AzureDouble, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[shiftable.App]:
    config = azure_double.config
    monkeypatch.setenv("STORAGE_KEY", config["account_key"].reveal())
    text = TOML.format(account=config["storage_account"], endpoint=config["endpoint"])
    (tmp_path / "shiftable.toml").write_text(text)
    with shiftable.load(tmp_path) as made:
        yield made


@pytest.fixture
def native(azure_double: AzureDouble) -> Iterator[Any]:
    with BlobServiceClient.from_connection_string(azure_double.connection_string) as client:
        yield client


def filled(bucket: Bucket) -> dict[str, bytes]:
    """Write some hundred objects: every key that memory has, all that an object carries, and one in parts."""
    chance = random.Random(5)  # noqa: S311  content, not a secret
    keys = [key for key in (*ORDINARY_KEYS, *AWKWARD_KEYS) if bucket.check_key(key) is None]
    contents = {key: chance.randbytes(number * 31) for number, key in enumerate(keys)}
    contents |= {f"2026/{number % 12:02d}/{number:04d} é+&.bin": chance.randbytes(1_000) for number in range(200)}
    contents["a large one"] = chance.randbytes(17 * MIB + 5)
    for number, (key, data) in enumerate(contents.items()):
        carried: Any = {"metadata": {"n": str(number)}, "tags": {"team": f"a b+{number}"}} if number % 3 else {}
        bucket.put(key, data, headers=Headers(content_type="text/x-test", cache_control="no-store"), **carried)
    return contents


def everything(bucket: Bucket) -> dict[str, Any]:
    infos = {item.key: bucket.stat(item.key) for item in bucket.list()}
    return {key: (bucket.tags(key), info.headers, info.metadata, bucket.get(key)) for key, info in infos.items()}


def test_a_line_of_the_file_puts_the_application_on_azure(
    app: shiftable.App, azure_double: AzureDouble, tmp_path: Path, native: Any
) -> None:
    with shiftable.load(tmp_path, environment="production") as production:
        spec = BucketSpec(name="shop-assets")
        production.cloud("there").blob.create(spec)
        production.blob("assets").put("a//b", b"logo", content_type="image/png")
    blob = native.get_blob_client("shop-assets", "a//b")
    assert blob.download_blob().readall() == b"logo"
    assert blob.get_blob_properties().content_settings.content_type == "image/png"


def test_an_application_moves_to_azure_and_back(app: shiftable.App, native: Any) -> None:
    source = app.cloud("here").blob.create(BucketSpec(name="shop-assets"))
    contents = filled(source)
    there = app.cloud("there").blob.bucket("shop-assets")
    held = {key: data for key, data in contents.items() if there.check_key(key) is None}
    assert len(contents) > len(held) > 250

    out = Migration(app, "here", "there")
    report = out.apply(out.plan())
    assert {named.key for named in out.named()} == set(contents) - set(held)
    assert {named.trouble for named in out.named()} <= {Trouble.REFUSED}
    assert report.changed == len(held)
    container = native.get_container_client("shop-assets")
    assert set(container.list_blob_names()) == set(held)
    for key, data in held.items():
        assert container.get_blob_client(key).download_blob().readall() == data, key
    for listed in container.list_blobs(include=["metadata", "tags"]):
        info = source.stat(listed.name)
        assert (listed.metadata or {}, listed.tags or {}) == (info.metadata, source.tags(listed.name)), listed.name
        assert listed.content_settings.content_type == "text/x-test"
    assert out.verify().resources[0].verified.count == len(held)
    assert out.apply().changed == 0

    back = Migration(app, "there", "back")
    assert back.apply(back.plan()).complete
    assert back.verify().complete
    kept = {key: found for key, found in everything(source).items() if key in held}
    assert everything(app.cloud("back").blob.bucket("shop-assets")) == kept

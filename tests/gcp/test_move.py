"""An application on Google Cloud by configuration only, and its objects on their way there and back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

import shiftable
from shiftable.blob import Bucket, Headers
from shiftable.migrate import Action, Migration, Options
from shiftable_gcp import _session
from shiftable_gcp.double import GcpDouble

MIB = 1024 * 1024
KEYS = (
    "plain", "a//b", "../x", "trailing/", "q?x=1", "h#x", "50%", "a+b", "a b", "\N{ROCKET}.txt", "x" * 1024,
    "case", "Case", "é", "e\u0301", "/leading", "a/../b", "tab\tx",
)  # fmt: skip
FILE = """
[project]
name = "shop"
[environments.production]
provider = "{here}"
[providers.berlin]
type = "gcp"
endpoint = "{url}"
project = "{project}"
region = "europe-west10"
service_account = {{ env = "SHOP_KEY" }}
retry_seconds = 2
[providers.local]
type = "memory"
[blob.assets]
bucket = "shop-assets"
"""


def write(folder: Path, double: GcpDouble, here: str) -> Path:
    path = folder / "shiftable.toml"
    path.write_text(FILE.format(here=here, url=double.url, project=double.project))
    return path


@pytest.fixture
def app(tmp_path: Path, gcp_double: GcpDouble, monkeypatch: pytest.MonkeyPatch) -> Iterator[shiftable.App]:
    monkeypatch.setattr(_session, "_FIRST_WAIT", 0.01)
    monkeypatch.setenv("SHOP_KEY", gcp_double.config["service_account"].reveal())
    with shiftable.load(write(tmp_path, gcp_double, "berlin")) as loaded:
        yield loaded


def side(app: shiftable.App, label: str) -> Bucket:
    bucket: Bucket = app.cloud(label).blob.bucket("shop-assets")
    return bucket


def filled(bucket: Bucket) -> None:
    headers = Headers(content_type="text/plain", cache_control="no-store", content_language="de")
    for number, key in enumerate(KEYS):
        bucket.put(key, b"%d" % number, headers=headers, metadata={"number": str(number)})
    bucket.put("long", iter([bytes(range(256)) * 4096 * 20]), content_type="application/x-long", metadata={"n": "é"})
    bucket.put("empty", b"")


def contents(bucket: Bucket) -> Mapping[str, Any]:
    found = {}
    for item in bucket.list():
        info = bucket.stat(item.key)
        headers = info.headers if info.headers.content_type else Headers(content_type="application/octet-stream")
        found[item.key] = (bucket.get(item.key), headers, dict(info.metadata))
    return found


def test_an_application_runs_there_by_configuration_only(app: shiftable.App, gcp_double: GcpDouble) -> None:
    (declared,) = app.declared()
    (change,) = app.diff(declared)
    app.apply(declared, change)
    assert app.diff(declared) == ()
    assets = app.blob("assets")
    token = assets.put("logo", b"1", if_absent=True).token
    assets.put("logo", b"2", if_match=token)
    assert assets.get("logo") == b"2"
    assert gcp_double.state.bucket("shop-assets").location == "EUROPE-WEST10"
    assert assets.sign("logo").startswith(f"{gcp_double.url}/shop-assets/logo?X-Goog-Algorithm=GOOG4-RSA-SHA256")


@pytest.mark.parametrize(("source", "target"), [("berlin", "local"), ("local", "berlin")])
def test_a_move_brings_everything_over(app: shiftable.App, gcp_double: GcpDouble, source: str, target: str) -> None:
    app.cloud(source).blob.create(app.declared()[0].spec)
    filled(side(app, source))
    expected = contents(side(app, source))
    for match in ("insert", "rewrite", "move", "get", "list", "xml"):
        for kind in ("drop_before", "drop_after"):
            seen = iter(range(10**6))
            gcp_double.inject(
                kind,  # type: ignore[arg-type]  # both are kinds
                match=lambda call, match=match, seen=seen: call.operation.endswith(match) and next(seen) % 3 == 2,
                times=2,
            )

    report = Migration(app, source, target, (), Options()).apply()

    assert report.complete
    assert contents(side(app, target)) == expected
    assert contents(side(app, source)) == expected
    assert report.resources[0].done[Action.CREATE].count == len(KEYS) + 2
    again = Migration(app, source, target, (), Options()).apply()
    assert (again.complete, again.changed) == (True, 0)
    assert not gcp_double.state.bucket("shop-assets").uploads

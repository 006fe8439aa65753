"""The same commands on every cloud, against its double: with a file, and with URLs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner, Result

import shiftable as library
from shiftable.cli._main import cli
from shiftable.config import Credential

if TYPE_CHECKING:
    from shiftable.testing.harness import Double

URLS = {"aws": "s3", "gcp": "gs", "azure": "az"}


def run(*arguments: str, stdin: str = "") -> Result:
    return CliRunner().invoke(cli, ["blob", *arguments], input=stdin, catch_exceptions=False)


@pytest.fixture(params=list(URLS))
def cloud(
    request: pytest.FixtureRequest,
    shiftable_double: Callable[[str], Double],
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> tuple[str, Double]:
    name = request.param
    pytest.importorskip(f"shiftable_{name}", reason=f"needs shiftable-{name}")
    double = shiftable_double(name)
    lines = []
    for key, value in double.config.items():
        if isinstance(value, Credential):
            monkeypatch.setenv(f"DOUBLE_{key}", value.reveal())
            lines.append(f'{key} = {{ env = "DOUBLE_{key}" }}')
        else:
            lines.append(f"{key} = {json.dumps(value)}")
    (folder / "shiftable.toml").write_text(
        f'[project]\nname = "shop"\n[environments.development]\nprovider = "there"\n'
        f'[providers.there]\ntype = "{name}"\n{chr(10).join(lines)}\n'
        '[blob.assets]\nbucket = "shop-assets"\n[blob.logs]\n'
    )
    with library.load() as app:
        for declared in app.declared():
            app.service(declared).create(app.spec(declared))
    return URLS[name], double


def keys(place: str) -> list[str]:
    return [json.loads(line)["key"] for line in run("ls", "-r", "--json", place).stdout.splitlines()]


def test_objects_come_go_and_move(cloud: tuple[str, Any], folder: Path) -> None:
    scheme, _ = cloud
    (folder / "tree/sub").mkdir(parents=True)
    (folder / "tree/sub/ü %+#?").write_text("1")
    (folder / "tree/a").write_text("22")
    assert 0 == run("cp", "-r", "tree/", "assets:x").exit_code
    assert ["x/a", "x/sub/ü %+#?"] == keys("assets") == keys(f"{scheme}://shop-assets")
    assert {"logs", "shop-assets"} == set(run("ls", f"{scheme}://").stdout.split())
    assert 0 == run("mv", "-r", f"{scheme}://shop-assets/x", "logs:").exit_code
    assert ([], ["x/a", "x/sub/ü %+#?"]) == (keys("assets"), keys("logs"))
    assert (2, 3) == tuple(json.loads(run("du", "logs", "--json").stdout)[name] for name in ("objects", "bytes"))
    assert 0 == run("mv", "-r", "logs:x/", "down").exit_code
    assert "1" == (folder / "down/sub/ü %+#?").read_text()
    assert [] == keys("logs")
    assert 1 == run("cat", "logs:x/a").exit_code
    assert 1 == run("rm", "logs:x/a").exit_code


def test_a_signed_url_opens_an_object(cloud: tuple[str, Any]) -> None:
    run("cp", "-", "assets:a", stdin="hello")
    answer = run("sign", "assets:a", "--json")
    if answer.exit_code:
        assert "presigned" in answer.stderr or "sign" in answer.stderr
        return
    about = json.loads(answer.stdout)
    request = urllib.request.Request(about["url"], headers=about["headers"])  # noqa: S310  the double's
    with urllib.request.urlopen(request) as response:  # noqa: S310  the same
        assert b"hello" == response.read()


def test_ctrl_c_leaves_nothing_that_was_begun(cloud: tuple[str, Any], folder: Path) -> None:
    _, double = cloud
    (folder / "large").write_bytes(b"")
    os.truncate(folder / "large", 200 << 20)
    begun = len(double.calls)
    double.inject("latency", times=None, seconds=0.1)
    command = [str(Path(sys.executable).parent / "shiftable"), "blob", "cp", "large", "assets:large"]
    with subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True) as process:
        while process.poll() is None and len(double.calls) < begun + 5:
            time.sleep(0.005)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=120)
    assert (130, False) == (process.returncode, "Traceback" in errors)
    with library.load() as app:
        bucket = app.blob("assets")
        assert [] == list(bucket.list())
        if bucket.features.uploads:
            assert [] == list(bucket.uploads())

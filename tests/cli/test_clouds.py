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


def test_a_life_of_a_url_that_is_too_long_is_told_in_days(cloud: tuple[str, Any]) -> None:
    for given, told in (("8d", "8 days"), ("180h", "7.5 days")):
        answer = run("sign", "assets:a", "--expires", given)
        assert 1 == answer.exit_code
        assert f"a URL is to be valid for {told}; the limit is 7 days (" in answer.stderr


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


def make_kept(folder: Path) -> None:
    """Declare and make a bucket with versioning."""
    with (folder / "shiftable.toml").open("a") as file:
        file.write("[blob.kept]\nversioning = true\n")
    assert 0 == CliRunner().invoke(cli, ["apply", "blob.kept"]).exit_code


def history(place: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in run("versions", "--json", place).stdout.splitlines()]


@pytest.mark.parametrize("cloud", ["aws", "gcp"], indirect=True)
def test_versions_are_listed_read_and_restored(cloud: tuple[str, Any], folder: Path) -> None:
    make_kept(folder)
    for place, content in (("kept:a", "1"), ("kept:a", "22"), ("kept:a/b", "3")):
        run("cp", "-", place, stdin=content)
    assert [("a", 2, True, False), ("a", 1, False, False), ("a/b", 1, True, False)] == [
        (each["key"], each["size"], each["latest"], each["deleted"]) for each in history("kept:a")
    ]
    first = history("kept:a")[1]["version"]
    states = [line.split()[2:] for line in run("versions", "--limit", "2", "kept").stdout.splitlines()]
    assert [["latest", history("kept:a")[0]["version"], "a"], ["older", first, "a"]] == states
    assert "1" == run("cat", "kept:a", "--version", first).stdout
    assert (1, first) == tuple(
        json.loads(run("stat", "kept:a", "--version", first, "--json").stdout)[name] for name in ("size", "version")
    )
    assert 2 == CliRunner().invoke(cli, ["blob", "cat", "kept:a", "kept:a/b", "--version", first]).exit_code
    run("rm", "kept:a")
    assert not any(each["latest"] and not each["deleted"] for each in history("kept:a") if each["key"] == "a")
    restored = json.loads(run("restore", "kept:a", first, "--json").stdout)
    assert (first, "1") == (restored["restored"], run("cat", "kept:a").stdout)
    assert history("kept:a")[0]["version"] == restored["version"] != first


@pytest.mark.parametrize("cloud", ["aws", "gcp"], indirect=True)
def test_a_bucket_with_versions_is_emptied_and_destroyed_as_the_refusal_says(
    cloud: tuple[str, Any], folder: Path
) -> None:
    make_kept(folder)
    for content in "12":
        run("cp", "-", "kept:a", stdin=content)
    run("cp", "-", "kept:a.b", stdin="3")
    run("rm", "kept:a")
    command = ["destroy", "blob.kept", "--yes", "kept"]
    refused = CliRunner().invoke(cli, command)
    assert 1 == refused.exit_code
    assert "not empty; `shiftable blob rm -r --versions kept:` empties it" in refused.stderr
    run("rm", "-r", "kept:", "--yes")
    assert 1 == CliRunner().invoke(cli, command).exit_code

    asked = run("rm", "--versions", "kept:a")
    assert (2, True) == (
        asked.exit_code,
        "would be deleted from kept:a for good; without a terminal, say --yes" in asked.stderr,
    )
    before = history("kept")
    told = [json.loads(line) for line in run("rm", "--versions", "kept:a", "--yes", "--json").stdout.splitlines()]
    mine = [each["version"] for each in before if each["key"] == "a"]
    assert (mine, {"a"}) == ([each["version"] for each in told], {each["key"] for each in told})
    assert [each for each in before if each["key"] != "a"] == history("kept")
    assert "nor an older version" in run("rm", "--versions", "kept:a", "--yes").stderr

    shown = run("rm", "-r", "--versions", "kept:", "--dry-run").stdout.splitlines()
    assert [f"delete kept:a.b version {each['version']}" for each in history("kept")] == shown
    assert 0 == run("rm", "-r", "--versions", "kept:", "--yes").exit_code
    assert 0 == CliRunner().invoke(cli, command).exit_code


@pytest.mark.parametrize("cloud", ["aws", "gcp"], indirect=True)
def test_one_version_is_deleted(cloud: tuple[str, Any], folder: Path) -> None:
    make_kept(folder)
    for content in ("1", "22", "333"):
        run("cp", "-", "kept:a", stdin=content)
    second = history("kept:a")[1]["version"]
    assert "1 version (2 B) would be deleted" in run("rm", "kept:a", "--version", second).stderr
    assert 0 == run("rm", "kept:a", "--version", second, "--yes").exit_code
    assert [3, 1] == [each["size"] for each in history("kept:a")]
    again = run("rm", "kept:a", "--version", second, "--yes")
    assert (1, True) == (again.exit_code, f"there is no version '{second}' of it" in again.stderr)
    for more in (["-r"], ["--glob"], ["--versions"], ["kept:b"]):
        wrong = CliRunner().invoke(cli, ["blob", "rm", "kept:a", *more, "--version", second, "--yes"])
        assert (2, True) == (wrong.exit_code, "--version is of one object" in wrong.stderr)


@pytest.mark.parametrize("cloud", ["aws", "gcp"], indirect=True)
def test_versions_go_by_folder_and_pattern(cloud: tuple[str, Any], folder: Path) -> None:
    make_kept(folder)
    for key in ("x/1.log", "x/1.log", "x/2.txt", "xy"):
        run("cp", "-", f"kept:{key}", stdin=key)
    assert 0 == run("rm", "--glob", "--versions", "kept:x/*.log", "--yes").exit_code
    assert ["x/2.txt", "xy"] == [each["key"] for each in history("kept")]
    assert 0 == run("rm", "-r", "--versions", "kept:x", "--yes").exit_code
    assert ["xy"] == [each["key"] for each in history("kept")]


def test_a_bucket_without_versions_is_emptied_as_the_refusal_says(cloud: tuple[str, Any], folder: Path) -> None:
    run("cp", "-", "logs:a", stdin="1")
    refused = CliRunner().invoke(cli, ["destroy", "blob.logs", "--yes", "logs"])
    advice = refused.stderr.split("`shiftable blob ")[1].split("`")[0]
    assert ("rm -r logs:" if cloud[0] == "az" else "rm -r --versions logs:") == advice
    assert 0 == run(*advice.split(), "--yes").exit_code
    assert 0 == CliRunner().invoke(cli, ["destroy", "blob.logs", "--yes", "logs"]).exit_code


@pytest.mark.parametrize("cloud", ["azure"], indirect=True)
def test_what_a_provider_does_not_have_is_told_by_the_plan(cloud: tuple[str, Double], folder: Path) -> None:
    with (folder / "shiftable.toml").open("a") as file:
        file.write('[blob.kept]\nversioning = true\n[compute.web]\nimage = "debian-12"\ncpus = 1\nmemory_gib = 1\n')
    why = "there has no versioning without the setting blob_versioning, of an account that keeps versions"
    sent = len(cloud[1].calls)
    for command in ("plan", "apply"):
        told = CliRunner().invoke(cli, [command, "blob.kept"])
        assert (1, f"error: blob.kept: {why}\n") == (told.exit_code, told.stderr)
        assert "create" not in told.stdout
    told = CliRunner().invoke(cli, ["plan", "compute.web"])
    assert "there has no Linux machine without an ssh key: declare ssh_keys" in told.stderr
    assert {"GET", "HEAD"} >= {call.method for call in cloud[1].calls[sent:]}
    told = CliRunner().invoke(cli, ["plan", "blob.kept", "--json"])
    about = json.loads(told.stdout)
    assert ([], why) == (about["changes"], about["failures"][0]["error"])


@pytest.mark.parametrize("cloud", ["azure"], indirect=True)
def test_an_account_that_keeps_versions_says_what_to_declare(cloud: tuple[str, Double], folder: Path) -> None:
    file = folder / "shiftable.toml"
    file.write_text(file.read_text().replace('type = "azure"\n', 'type = "azure"\nblob_versioning = true\n'))
    told = CliRunner().invoke(cli, ["apply", "blob.logs"])
    assert 1 == told.exit_code
    assert (
        "keeps versions of blobs (setting blob_versioning), in all containers: declare versioning = true" in told.stderr
    )


@pytest.mark.parametrize("cloud", ["gcp"], indirect=True)
def test_a_zone_and_secrets_that_are_left_say_how_they_are_deleted(cloud: tuple[str, Any], folder: Path) -> None:
    with (folder / "shiftable.toml").open("a") as file:
        file.write('[dns.shop]\nzone = "shop.example"\n[secrets.app]\nprefix = "shop"\n')

    def command(*arguments: str) -> Result:
        return CliRunner().invoke(cli, list(arguments), input="value")

    assert 0 == command("apply", "dns", "secrets").exit_code
    assert 0 == command("dns", "set", "shop", "www", "A", "192.0.2.1").exit_code
    assert 0 == command("secrets", "put", "app", "key").exit_code
    told = command("destroy", "dns.shop", "--yes", "shop.example")
    assert (1, True) == (told.exit_code, "; `shiftable dns rm shop NAME` deletes the record sets" in told.stderr)
    told = command("destroy", "secrets.app", "--yes", "shop")
    assert (1, True) == (told.exit_code, "; `shiftable secrets rm app KEY` deletes one" in told.stderr)
    assert 0 == command("dns", "rm", "shop", "www", "--yes").exit_code
    assert 0 == command("secrets", "rm", "app", "key", "--yes").exit_code
    assert 0 == command("destroy", "dns.shop", "secrets.app", "--yes", "shop.example", "--yes", "shop").exit_code


@pytest.mark.parametrize("cloud", ["gcp"], indirect=True)
def test_a_version_that_stays_is_told_and_the_others_go(cloud: tuple[str, Any], folder: Path) -> None:
    make_kept(folder)
    with library.load() as app:
        app.blob("kept").put("held", b"1", hold=True)
    run("cp", "-", "kept:a", stdin="2")
    answer = run("rm", "-r", "--versions", "kept:", "--yes")
    assert (1, True) == (answer.exit_code, "kept:held" in answer.stderr)
    assert ["held"] == [each["key"] for each in history("kept")]

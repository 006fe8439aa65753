"""``shiftable blob`` with s3:// and no file: the provider's own credentials, and nothing left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner, Result

from shiftable.cli._main import cli

if TYPE_CHECKING:
    from shiftable_aws.double import AwsDouble


@pytest.fixture
def bucket(aws_double: AwsDouble, folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    for name, value in aws_double.environ.items():
        monkeypatch.setenv(name, value)
    from shiftable import BucketSpec, connect

    with connect("aws") as cloud:
        cloud.blob.create(BucketSpec(name="shop-assets"))
    return "s3://shop-assets"


def run(*arguments: str, stdin: str = "") -> Result:
    return CliRunner().invoke(cli, ["blob", *arguments], input=stdin, catch_exceptions=False)


def test_a_url_needs_no_file(bucket: str, folder: Path, aws_double: AwsDouble) -> None:
    assert 0 == run("cp", "-", f"{bucket}/a//b c?#%", stdin="hello").exit_code
    assert "hello" == run("cat", f"{bucket}/a//b c?#%").stdout
    assert ["a//b c?#%"] == list(aws_double.backend("s3", "aws").buckets["shop-assets"].keys)
    assert "shop-assets\n" == run("ls", "s3://").stdout
    assert "a/\n" == run("ls", bucket).stdout
    assert 5 == json.loads(run("stat", f"{bucket}/a//b c?#%", "--json").stdout)["size"]
    assert 1 == json.loads(run("du", bucket, "--json").stdout)["objects"]
    assert 0 == run("mv", f"{bucket}/a//b c?#%", f"{bucket}/z").exit_code
    assert ["z"] == list(aws_double.backend("s3", "aws").buckets["shop-assets"].keys)


def test_a_key_that_is_no_path_is_named_and_stays(bucket: str, folder: Path, aws_double: AwsDouble) -> None:
    for key in ("x//a", "x//b", "x/good"):
        assert 0 == run("cp", "-", f"{bucket}/{key}", stdin="x").exit_code
    answer = run("mv", "-r", f"{bucket}/x/", "down")
    assert 1 == answer.exit_code
    assert 2 == answer.stderr.count("a folder cannot hold this name")
    assert ["down/good"] == [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    assert ["x//a", "x//b"] == list(aws_double.backend("s3", "aws").buckets["shop-assets"].keys)


def test_a_signed_url_opens_the_object(bucket: str, aws_double: AwsDouble) -> None:
    import urllib.request

    run("cp", "-", f"{bucket}/a", stdin="hello")
    answer = run("sign", f"{bucket}/a", "--expires", "5m")
    with urllib.request.urlopen(answer.stdout.strip()) as response:  # noqa: S310  the double's
        assert b"hello" == response.read()
    about = json.loads(run("sign", f"{bucket}/a", "--method", "DELETE", "--expires", "7d", "--json").stdout)
    assert ("DELETE", 604_800.0, {}) == (about["method"], about["expires_in"], about["headers"])
    assert 1 == run("sign", f"{bucket}/a", "--expires", "0s").exit_code


def test_objects_are_locked_told_and_released(bucket: str, folder: Path, aws_double: AwsDouble) -> None:
    from shiftable import BucketSpec, connect

    with connect("aws") as cloud:
        cloud.blob.create(BucketSpec(name="shop-ledger", versioning=True, object_lock=True))
    (folder / "a").write_text("hello")
    until = ["--retain-until", "2040-01-01", "--mode", "compliance"]
    assert 0 == run("cp", "a", "s3://shop-ledger/a", *until, "--hold").exit_code
    assert 0 == run("cp", "s3://shop-ledger/a", "s3://shop-ledger/b").exit_code
    assert 0 == run("cp", "s3://shop-ledger/a", "s3://shop-ledger/c", "--hold").exit_code
    told = run("stat", "s3://shop-ledger/a").stdout.splitlines()
    assert ["retention: compliance until 2040-01-01T00:00:00Z", "hold: yes"] == told[-2:]
    about = {key: json.loads(run("stat", f"s3://shop-ledger/{key}", "--json").stdout) for key in "abc"}
    retention = {"until": "2040-01-01T00:00:00+00:00", "mode": "compliance"}
    assert [(retention, True), (None, False), (None, True)] == [
        (about[key]["retention"], about[key]["hold"]) for key in "abc"
    ]
    assert 0 == run("release", "s3://shop-ledger/a", "s3://shop-ledger/c").exit_code
    assert 0 == run("retain", "s3://shop-ledger/b", "s3://shop-ledger/c", "--until", "2035-01-01T12:00+02:00").exit_code
    shorter = run("retain", "s3://shop-ledger/a", "s3://shop-ledger/b", "--until", "2030-01-01")
    assert 1 == shorter.exit_code
    assert 2 == shorter.stderr.count("error: s3://shop-ledger/")
    version = json.loads(run("stat", "s3://shop-ledger/b", "--json").stdout)["version"]
    assert 0 == run("retain", "s3://shop-ledger/b", "--remove", "--bypass", "--version", version).exit_code
    assert 0 == run("hold", "s3://shop-ledger/b").exit_code
    told = run("stat", "s3://shop-ledger/b").stdout
    assert ("hold: yes" in told, "retention" in told) == (True, False)


def test_what_cannot_be_locked_is_wrong_usage(bucket: str, folder: Path) -> None:
    run("cp", "-", f"{bucket}/a", stdin="x")
    for arguments in (
        ("cp", f"{bucket}/a", "down", "--hold"),
        ("retain", f"{bucket}/a"),
        ("retain", f"{bucket}/a", "--until", "2040-01-01", "--remove"),
        ("retain", f"{bucket}/a", "--until", "soon"),
        ("hold", f"{bucket}/a", f"{bucket}/b", "--version", "1"),
    ):
        assert 2 == run(*arguments).exit_code, arguments
    assert 1 == run("hold", f"{bucket}/a").exit_code
    assert 1 == run("retain", f"{bucket}/a", "--remove").exit_code


def test_a_move_of_a_large_object_is_compared_by_its_content(bucket: str, folder: Path, aws_double: AwsDouble) -> None:
    (folder / "large").write_bytes(bytes(range(256)) * 50_000)
    content = (folder / "large").read_bytes()
    assert 0 == run("mv", "large", f"{bucket}/large").exit_code
    assert not (folder / "large").exists()
    assert 0 == run("mv", f"{bucket}/large", f"{bucket}/larger").exit_code
    assert 0 == run("mv", f"{bucket}/larger", "back").exit_code
    assert content == (folder / "back").read_bytes()
    assert [] == list(aws_double.backend("s3", "aws").buckets["shop-assets"].keys)


def test_ctrl_c_leaves_no_upload_in_parts(bucket: str, folder: Path, aws_double: AwsDouble) -> None:
    (folder / "large").write_bytes(b"")
    os.truncate(folder / "large", 400 << 20)
    aws_double.inject("latency", match=lambda call: call.operation == "UploadPart", times=None, seconds=0.2)
    command = [str(Path(sys.executable).parent / "shiftable"), "blob", "cp", "large", f"{bucket}/large"]
    uploads = aws_double.backend("s3", "aws").buckets["shop-assets"].multiparts
    with subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True) as process:
        while process.poll() is None and not uploads:
            time.sleep(0.005)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=120)
    assert 130 == process.returncode
    assert "Traceback" not in errors
    assert ([], {}) == (list(aws_double.backend("s3", "aws").buckets["shop-assets"].keys), dict(uploads))

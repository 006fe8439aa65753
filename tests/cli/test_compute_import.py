"""``shiftable compute import-image``: from an object or a file, once, and nothing is left of what fails."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import attrs
import pytest
from click.testing import CliRunner, Result

from shiftable.blob import BlobStore, Bucket, BucketSpec
from shiftable.cli._main import cli
from shiftable.errors import PermissionDenied, Unavailable
from shiftable.memory import MemoryProvider
from shiftable.memory.blob import MemoryBlobDriver
from shiftable.memory.compute import FEATURES, MemoryComputeDriver

FILE = """
[project]
name = "shop"
[environments.production]
provider = "memory"
[providers.memory]
type = "memory"
[providers.elsewhere]
type = "baremetal"
root = "elsewhere"
[providers.claimed]
type = "baremetal"
hosts = [{ name = "one", address = "one.example", user = "ops", cpus = 1, memory_gib = 1 }]
[blob.assets]
bucket = "shop-assets"
[blob.others]
bucket = "others"
[environments.production.overrides]
"blob.others" = "elsewhere"
"""
YES = "--experimental"

Run = Callable[..., Result]


@pytest.fixture
def compute(monkeypatch: pytest.MonkeyPatch) -> MemoryComputeDriver:
    """Let what one command has made be there for the next one, which the memory of a process is not."""
    made = MemoryComputeDriver(attrs.evolve(FEATURES, imports=frozenset({"vmdk", "raw"})))
    monkeypatch.setattr(MemoryProvider, "compute", lambda _: made)
    return made


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Bucket:
    driver = MemoryBlobDriver()
    monkeypatch.setattr(MemoryProvider, "blob", lambda _: driver)
    return BlobStore(driver).create(BucketSpec(name="shop-assets"))


@pytest.fixture
def run(folder: Path, compute: MemoryComputeDriver, bucket: Bucket, programs: Path) -> Run:
    (folder / "shiftable.toml").write_text(FILE)
    assert compute.features.imports
    assert bucket.name
    assert programs.is_dir()

    def start(*arguments: str, **more: Any) -> Result:
        result = CliRunner().invoke(cli, ["compute", "import-image", *arguments], **more)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result

    return start


@pytest.fixture
def disk(folder: Path) -> Path:
    path = folder / "web.img"
    path.write_bytes(b"a disk".ljust(1024, b"."))
    return path


def images(driver: MemoryComputeDriver) -> list[str]:
    return [image.name for image in driver.images(cursor=None, limit=None).items if image.own]


def keys(bucket: Bucket) -> list[str]:
    return [item.key for item in bucket.list()]


def refused(answer: Result, code: int, why: str) -> None:
    assert (code, "", True) == (answer.exit_code, answer.stdout, why in answer.stderr), answer.output


def test_without_the_flag_it_says_why_not(run: Run, compute: MemoryComputeDriver, bucket: Bucket, disk: Path) -> None:
    for source in ("assets:web.vmdk", str(disk)):
        refused(run(source, "memory:golden", "--via", "assets:"), 2, "is experimental: providers refuse many disks")
    assert ([], []) == (images(compute), keys(bucket))


def test_an_object_becomes_an_image(run: Run, compute: MemoryComputeDriver, bucket: Bucket) -> None:
    bucket.put("images/web.vmdk", b"a disk")
    made = run("assets:images/web.vmdk", "memory:golden", YES)
    assert (0, 'golden: imported; image = "image-1" makes machines of it\n') == (made.exit_code, made.stdout)
    facts = json.loads(run("assets:images/web.vmdk", "memory:golden", YES, "--json").stdout)
    assert ("memory", "image-1", True, True) == tuple(facts[name] for name in ("provider", "id", "own", "ready"))
    assert (["golden"], ["images/web.vmdk"]) == (images(compute), keys(bucket))
    bucket.put("images/web.vmdk", b"another disk")
    refused(run("assets:images/web.vmdk", "memory:golden", YES), 1, "there is an image 'golden' of something else")
    assert (
        "arm64"
        == json.loads(run("assets:images/web.vmdk", "memory:a", YES, "--arch", "arm64", "--json").stdout)["arch"]
    )


def test_a_file_is_converted_uploaded_imported_and_the_object_deleted(
    run: Run, compute: MemoryComputeDriver, bucket: Bucket, disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = list[tuple[str, bytes, dict[str, str]]]()
    imported = compute.import_image

    def look(name: str, source: Any, **more: Any) -> Any:
        info = bucket.stat(source.key)
        seen.append((source.key, bucket.get(source.key), dict(info.metadata)))
        assert (str(info.token), "vmdk", bucket.name) == (source.version, source.form, source.bucket)
        return imported(name, source, **more)

    monkeypatch.setattr(MemoryComputeDriver, "import_image", lambda _, *given, **more: look(*given, **more))
    answer = run(str(disk), "memory:golden", YES, "--via", "assets:images")
    assert (0, ["golden"], []) == (answer.exit_code, images(compute), keys(bucket)), answer.output
    ((key, content, metadata),) = seen
    assert key.startswith("images/golden-")
    assert key.endswith(".vmdk")
    assert content.endswith(disk.read_bytes())
    assert f"sha256 {metadata['sha256']}" in answer.stderr
    refused(run(str(disk), "memory:golden", YES, "--via", "assets:images"), 1, "there is one of that name, image-1")
    assert 0 == run(str(disk), "memory:kept", YES, "--via", "assets:", "--keep").exit_code
    assert ["kept"] == [key.partition("-")[0] for key in keys(bucket)]


def test_what_an_interrupted_call_uploaded_is_not_uploaded_again(
    run: Run, compute: MemoryComputeDriver, bucket: Bucket, disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = datetime.now(UTC)
    compute._clock = lambda: now
    compute._delay = timedelta(hours=1)
    late = run(str(disk), "memory:golden", YES, "--via", "assets:", "--timeout", "0s")
    refused(late, 1, "stays, as it may still be read; the same command goes on")
    (key,) = keys(bucket)
    token = bucket.stat(key).token
    with monkeypatch.context() as patched:
        patched.setattr("shiftable.compute.Compute.import_image", pressed)
        answer = run(str(disk), "memory:golden", YES, "--via", "assets:")
    assert (130, [key], token) == (answer.exit_code, keys(bucket), bucket.stat(key).token)
    assert "interrupted; golden: it may go on at the provider; the same command goes on with it\n" in answer.stderr
    now += timedelta(hours=1)
    answer = run(str(disk), "memory:golden", YES, "--via", "assets:")
    assert (0, "", []) == (answer.exit_code, answer.stderr, keys(bucket)), answer.output
    assert ["golden"] == images(compute)


def pressed(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def test_an_import_that_is_refused_leaves_nothing(
    run: Run, compute: MemoryComputeDriver, bucket: Bucket, disk: Path
) -> None:
    compute._failing = {"golden"}
    refused(run(str(disk), "memory:golden", YES, "--via", "assets:"), 1, "holds no disk that it could import")
    assert ([], []) == (images(compute), keys(bucket))
    refused(run(str(disk), "memory:golden", YES, "--via", "assets:", "--keep"), 1, "holds no disk")
    assert 1 == len(keys(bucket))


def test_while_the_provider_is_away_the_object_stays(
    run: Run, bucket: Bucket, disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object, **__: object) -> None:
        raise Unavailable("try again", provider="memory")

    monkeypatch.setattr("shiftable.compute.Compute.import_image", away)
    refused(run(str(disk), "memory:golden", YES, "--via", "assets:"), 1, "stays, as it may still be read")
    assert 1 == len(keys(bucket))


def test_an_image_that_is_there_is_told_also_if_the_object_cannot_be_deleted(
    run: Run, compute: MemoryComputeDriver, bucket: Bucket, disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def kept(*_: object, **__: object) -> None:
        raise PermissionDenied("no", provider="memory")

    monkeypatch.setattr("shiftable.blob.Bucket.delete", kept)
    answer = run(str(disk), "memory:golden", YES, "--via", "assets:")
    assert (0, ["golden"]) == (answer.exit_code, images(compute))
    assert 'golden: imported; image = "image-1"' in answer.stdout
    assert f"assets:{keys(bucket)[0]} stays; delete it: " in answer.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "why"),
    [
        (["web.img", "memory:golden"], 2, "web.img is a file here: say --via LABEL:FOLDER"),
        (["web.img", "memory:golden", "--via", "assets:", "--form", "raw"], 2, "--form is for objects"),
        (["none.img", "memory:golden", "--via", "assets:"], 2, "none.img cannot be read: No such file"),
        (["web.img", "memory:golden", "--via", "others:"], 2, "is at elsewhere, and the image is to be at memory"),
        (["others:web.vmdk", "memory:golden"], 2, "`shiftable blob cp` brings it there"),
        (["assets:", "memory:golden", "--form", "raw"], 2, "assets: names no object"),
        (["assets:web", "memory:golden"], 2, "assets:web does not say its form; say --form raw or --form vmdk"),
        (
            ["assets:web.qcow2", "memory:golden"],
            1,
            "no importer of disk images in the form qcow2 (it has one of raw, vm",
        ),
        (["assets:none.vmdk", "memory:golden"], 1, "object 'none.vmdk' in bucket 'shop-assets'"),
        (["assets:web.raw", "memory:golden", "--arch", "arm64", "--firmware", "bios"], 2, "start by uefi, not by bios"),
        (["assets:web.raw", "claimed:golden"], 1, "this provider has no importer of disk images"),
        (["assets:web.raw", "golden"], 2, "'golden' is no image; say PROVIDER:NAME"),
    ],
)
def test_what_cannot_be_is_refused_with_what_to_do(
    run: Run, compute: MemoryComputeDriver, bucket: Bucket, disk: Path, arguments: list[str], code: int, why: str
) -> None:
    bucket.put("web.qcow2", b"a disk")
    assert disk.exists()
    refused(run(*arguments, YES), code, why)
    assert ([], ["web.qcow2"]) == (images(compute), keys(bucket))

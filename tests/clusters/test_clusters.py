"""Moves on real clusters of several processes, Dask's and Ray's; one worker is killed in the middle."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

from shiftable import load

FILE = """
[project]
name = "shop"
[environments.production]
provider = "there"
[providers.there]
type = "baremetal"
root = "there"
fsync = false
[providers.here]
type = "baremetal"
root = "here"
fsync = false
[blob.assets]
bucket = "shop-assets"
"""
COUNT = 3000
PATIENCE = 120
BIN = Path(sys.executable).parent


@attrs.frozen
class Process:
    """A process of this machine, as /proc shows it."""

    pid: int
    parent: int
    command: str

    @classmethod
    def all(cls) -> Iterator[Process]:
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):  # it has ended meanwhile
                parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
                command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                yield cls(int(folder.name), parent, command)

    @classmethod
    def below(cls, pid: int) -> list[Process]:
        """Return what a process has started, and what these have."""
        everything, found, family = list(cls.all()), [], {pid}
        while new := [each for each in everything if each.parent in family and each not in found]:
            found += new
            family |= {each.pid for each in new}
        return found


@contextlib.contextmanager
def running(log: Path, *command: str) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("ab") as out, subprocess.Popen(command, stdout=out, stderr=out) as process:
        try:
            yield process
        finally:
            process.terminate()
            process.wait(PATIENCE)


def until(done: object, what: str, log: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while not done():  # type: ignore[operator]
        assert time.monotonic() < deadline, f"{what}: never\n{log.read_text()[-4000:]}"
        time.sleep(0.01)


@attrs.frozen
class Cluster:
    engine: str
    pid: int | None
    """Above all of its processes; ``None``: whoever moves starts them."""
    mark: str
    """What the command of a worker has."""


@contextlib.contextmanager
def dask(folder: Path) -> Iterator[Cluster]:
    place, log = folder / "scheduler.json", folder / "dask.log"
    here = ("--host", "127.0.0.1", "--no-dashboard", "--scheduler-file", str(place))
    with running(log, str(BIN / "dask"), "scheduler", "--port", "0", *here):
        until(lambda: place.exists() and place.read_text().endswith("}"), "a scheduler", log)
        workers = ("worker", *here, "--nworkers", "3", "--nthreads", "1", "--local-directory", str(folder))
        with running(log, str(BIN / "dask"), *workers) as process:
            until(lambda: log.read_text().count("Registered to:") >= 3, "three workers", log)
            address = json.loads(place.read_text())["address"]
            yield Cluster(f"dask={address}", process.pid, "spawn_main")


@contextlib.contextmanager
def ray(_folder: Path) -> Iterator[Cluster]:
    yield Cluster("ray", None, "ray::")


@pytest.fixture(params=[dask, ray])
def cluster(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Cluster]:
    with request.param(tmp_path) as found:
        yield found


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    folder = tmp_path / "shop"
    folder.mkdir()
    (folder / "shiftable.toml").write_text(FILE)
    with load(folder) as app:
        (declared,) = app.declared("blob")
        app.service(declared).create(declared.spec)
    for number in range(COUNT):
        path = folder / "there/blob/shop-assets" / f"{number % 7}" / f"{number:05}"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(f"{number}".encode() * 100)
    return folder


def files(root: Path) -> dict[str, bytes]:
    found = (path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): path.read_bytes() for path in found}


def command(cluster: Cluster) -> list[str]:
    return [
        str(BIN / "shiftable"), "migrate", "--from", "there", "--to", "here", "--apply", "--json",
        "--engine", cluster.engine,
    ]  # fmt: skip


def test_a_cluster_moves_everything_although_a_worker_is_killed(cluster: Cluster, shop: Path) -> None:
    target, out = shop / "here/blob/shop-assets", shop.parent / "out"
    with out.open("wb") as log:
        process = subprocess.Popen(command(cluster), cwd=shop, stdout=log, stderr=log)
    try:
        until(lambda: len(list(target.glob("[0-9]/0*"))) >= 60 or process.poll() is not None, "60 objects", out)
        arrived = {path: path.stat().st_ino for path in target.glob("[0-9]/0*")}
        theirs = max(arrived, key=lambda path: path.stat().st_mtime_ns)
        newer = shop / "newer"
        newer.write_bytes(b"somebody's, and newer")
        newer.replace(theirs)
        arrived[theirs] = theirs.stat().st_ino
        workers = [each for each in Process.below(cluster.pid or process.pid) if cluster.mark in each.command]
        busiest = max(workers, key=lambda each: _ticks(each.pid))
        os.kill(busiest.pid, signal.SIGKILL)
        code = process.wait(PATIENCE)
    finally:
        process.kill()
        process.wait()

    key = str(theirs.relative_to(target))
    events = [json.loads(line) for line in out.read_text().splitlines() if line.startswith("{")]
    reports = [event["report"] for event in events if event["event"] == "report"]
    named = {event["key"] for event in events if event["event"] == "item"}
    assert code == 1, out.read_text()[-4000:]  # for verification finds theirs
    assert len(reports) == 2
    assert len(workers) >= 2
    assert len(arrived) < COUNT
    assert named == {key}
    assert files(target) == files(shop / "there/blob/shop-assets") | {key: b"somebody's, and newer"}
    assert {path: path.stat().st_ino for path in arrived} == arrived


def _ticks(pid: int) -> int:
    """Return the processor time that a process took, in ticks."""
    fields = (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def test_a_scheduler_that_does_not_answer_is_told_of(shop: Path) -> None:
    found = Cluster("dask=tcp://127.0.0.1:9", None, "")
    done = subprocess.run(command(found), cwd=shop, capture_output=True, text=True, check=False, timeout=PATIENCE)

    assert done.returncode == 2
    assert "no Dask scheduler answers at tcp://127.0.0.1:9" in done.stderr

"""A move into files is killed at random points, again and again: nothing is lost and nothing is written twice."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from shiftable.blob import BlobStore, Bucket, BucketSpec
from shiftable_baremetal.blob import FilesDriver

SCRIPT = """
import itertools, os, signal, sys, threading, types
from pathlib import Path

from shiftable.blob import BlobStore, BucketSpec
from shiftable.migrate import Migration, Options
from shiftable_baremetal.blob import FilesDriver

folder, deadline = Path(sys.argv[1]), int(sys.argv[2])
clouds = {
    name: types.SimpleNamespace(service=lambda _, name=name: BlobStore(FilesDriver(folder / name, fsync=False)))
    for name in ("source", "target")
}
spec = BucketSpec(name="shop", versioning=True)
app = types.SimpleNamespace(
    state_dir=folder / "state",
    declared=lambda: (types.SimpleNamespace(service="blob", label="assets", spec=spec),),
    cloud=clouds.__getitem__,
)
migration = Migration(app, "source", "target", options=Options(concurrency=4))
calls = itertools.count(1)


def count(frame, event, argument):
    if next(calls) == deadline:
        os.kill(os.getpid(), signal.SIGKILL)


if deadline:
    threading.setprofile(count)
    sys.setprofile(count)
report = migration.apply()
sys.setprofile(None)
print(report.complete, report.changed, next(calls))
"""


def run(folder: Path, deadline: int) -> tuple[int, list[str]]:
    command = [sys.executable, "-c", SCRIPT, str(folder), str(deadline)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode in {0, -signal.SIGKILL}, done.stderr
    return done.returncode, done.stdout.split()


def contents(root: Path) -> dict[str, bytes]:
    """Read the files as any tool does."""
    bucket = root / "shop"
    return {str(path.relative_to(bucket)): path.read_bytes() for path in bucket.rglob("*") if path.is_file()}


def calls_of_a_whole_run(folder: Path) -> int:
    """Move a copy of the source, and return how many calls that took."""
    shutil.copytree(folder / "source", folder / "elsewhere" / "source")
    (folder / "elsewhere" / "target").mkdir()
    return int(run(folder / "elsewhere", sys.maxsize)[1][2])


def versions(bucket: Bucket) -> dict[str, int]:
    return dict(Counter(version.key for version in bucket.versions()))


@pytest.mark.parametrize("seed", range(5))
def test_a_move_that_is_killed_anywhere_loses_nothing_and_doubles_nothing(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311  chooses where to kill
    for name in ("source", "target"):
        (tmp_path / name).mkdir()
    source = BlobStore(FilesDriver(tmp_path / "source", fsync=False)).create(BucketSpec(name="shop", versioning=True))
    target = BlobStore(FilesDriver(tmp_path / "target", fsync=False)).bucket("shop")
    for number in range(40):
        source.put(
            f"folder {number % 3}/{number}", chance.randbytes(chance.randrange(2000)), metadata={"n": str(number)}
        )
    source.put("large", chance.randbytes(9 * 1024 * 1024))
    calls = calls_of_a_whole_run(tmp_path)
    written = dict.fromkeys([found.key for found in source.list()], 1)

    for share in (0.9, 0.2):  # the second move is a delta, and shorter
        statuses = [run(tmp_path, chance.randrange(1, int(calls * share)))[0] for _ in range(2)]
        assert statuses[0] == -signal.SIGKILL
        assert run(tmp_path, 0)[1][0] == "True"
        assert contents(tmp_path / "target") == contents(tmp_path / "source")
        assert {found.key: found.metadata for found in map(target.stat, written)} == {
            found.key: found.metadata for found in map(source.stat, written)
        }
        assert versions(target) == written
        assert run(tmp_path, 0)[1][:2] == ["True", "0"]
        for key in chance.sample(sorted(written), 15):
            source.put(key, chance.randbytes(100))
            written[key] += 1

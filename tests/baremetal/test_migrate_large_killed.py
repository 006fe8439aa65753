"""A move is killed inside a large object: the next run sends the parts that are missing, and no other."""

from __future__ import annotations

import contextlib
import random
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from shiftable.blob import BlobStore, BucketSpec
from shiftable_baremetal.blob import FilesDriver

MIB = 1024 * 1024
PART = 8 * MIB
SCRIPT = """
import os, signal, sys, threading, types
from pathlib import Path

from shiftable.blob import BlobStore, BucketSpec
from shiftable.migrate import Migration
from shiftable_baremetal.blob import FilesDriver

folder, where, after = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
lock, seen = threading.Lock(), {}


def die(place):
    with lock:
        seen[place] = seen.get(place, 0) + 1
        if place == where and seen[place] == after:
            os.kill(os.getpid(), signal.SIGKILL)


class Counting(FilesDriver):
    def upload_begin(self, *args):
        upload = super().upload_begin(*args)
        die("begun")
        return upload

    def upload_part(self, upload, number, data, offset):
        die("before a part")
        part = super().upload_part(upload, number, data, offset)
        with open(folder / "sent", "a") as log:
            log.write(f"{number} {len(data)}\\n")
        die("after a part")
        return part

    def upload_complete(self, upload, parts):
        die("before the end")
        info = super().upload_complete(upload, parts)
        die("after the end")
        return info


drivers = {"source": FilesDriver, "target": Counting}
clouds = {
    name: types.SimpleNamespace(service=lambda _, name=name: BlobStore(drivers[name](folder / name, fsync=False)))
    for name in drivers
}
app = types.SimpleNamespace(
    state_dir=folder / "state",
    declared=lambda: (types.SimpleNamespace(service="blob", label="assets", spec=BucketSpec(name="shop")),),
    cloud=clouds.__getitem__,
)
report = Migration(app, "source", "target").apply()
print(report.complete, report.changed)
"""


def run(folder: Path, where: str = "", after: int = 0) -> tuple[int, list[str], list[tuple[int, int]]]:
    """Move; return how it ended, what it said, and the number and size of each part that the target took."""
    log = folder / "sent"
    log.unlink(missing_ok=True)
    command = [sys.executable, "-c", SCRIPT, str(folder), where, str(after)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode in {0, -signal.SIGKILL}, done.stderr
    sent = (
        [(int(number), int(size)) for number, size in map(str.split, log.read_text().splitlines())]
        if log.exists()
        else []
    )
    return done.returncode, done.stdout.split(), sent


def prepared(folder: Path, size: int) -> bytes:
    for name in ("source", "target"):
        (folder / name).mkdir()
    content = random.Random(size).randbytes(size)  # noqa: S311  makes up a content
    BlobStore(FilesDriver(folder / "source", fsync=False)).create(BucketSpec(name="shop")).put("large", content)
    return content


def unfinished(folder: Path) -> list[str]:
    driver = FilesDriver(folder / "target", fsync=False)
    return [upload.key for upload in BlobStore(driver).bucket("shop").uploads()]


def noted(folder: Path) -> set[int]:
    """Return the parts of which the journal says that they arrived."""
    with contextlib.closing(sqlite3.connect(folder / "state/migrate.sqlite")) as db:
        return {int(name[5:]) for (name,) in db.execute("SELECT name FROM note WHERE name LIKE 'part %'")}


@pytest.mark.parametrize(
    ("where", "after"),
    [("begun", 1), ("before a part", 1), ("after a part", 6), ("after a part", 12), ("before the end", 1)],
)
def test_parts_that_arrived_and_were_noted_are_not_sent_again(tmp_path: Path, where: str, after: int) -> None:
    content = prepared(tmp_path, 11 * PART + 5 * MIB)

    killed, _, _ = run(tmp_path, where, after)
    arrived = noted(tmp_path)
    ended, said, again = run(tmp_path)

    assert (killed, ended, said) == (-signal.SIGKILL, 0, ["True", "1"])
    assert sorted(number for number, _ in again) == sorted({*range(1, 13)} - arrived)
    assert len(arrived) >= after - 8 if where == "after a part" else len(arrived) in {0, 12}
    assert (tmp_path / "target/shop/large").read_bytes() == content
    assert noted(tmp_path) == set()
    assert run(tmp_path) == (0, ["True", "0"], [])


def test_an_object_that_was_finished_before_the_kill_is_adopted_and_nothing_sent(tmp_path: Path) -> None:
    content = prepared(tmp_path, 3 * PART)

    run(tmp_path, "after the end", 1)
    _, said, again = run(tmp_path)

    assert (said, again) == (["True", "0"], [])
    assert (tmp_path / "target/shop/large").read_bytes() == content
    assert noted(tmp_path) == set()


def test_a_move_that_is_killed_again_and_again_sends_each_part_once_but_those_under_way(tmp_path: Path) -> None:
    content = prepared(tmp_path, 24 * PART)
    sent: list[int] = []

    for _ in range(3):
        arrived = noted(tmp_path) if sent else set()
        status, _, parts = run(tmp_path, "after a part", 6)
        assert status == -signal.SIGKILL
        assert not arrived & {number for number, _ in parts}
        sent += [size for _, size in parts]
    _, said, parts = run(tmp_path)
    sent += [size for _, size in parts]

    assert said[0] == "True"
    assert len(content) <= sum(sent) <= len(content) + 3 * 8 * PART
    assert (tmp_path / "target/shop/large").read_bytes() == content


def test_a_source_that_was_replaced_is_sent_anew_and_the_old_upload_is_dropped(tmp_path: Path) -> None:
    prepared(tmp_path, 6 * PART)
    run(tmp_path, "after a part", 4)
    newer = random.Random(1).randbytes(6 * PART)  # noqa: S311  makes up a content
    BlobStore(FilesDriver(tmp_path / "source", fsync=False)).bucket("shop").put("large", newer)

    _, said, sent = run(tmp_path)

    assert said[0] == "True"
    assert sorted(number for number, _ in sent) == [1, 2, 3, 4, 5, 6]
    assert (tmp_path / "target/shop/large").read_bytes() == newer
    assert unfinished(tmp_path) == []


def test_the_upload_of_an_object_that_is_gone_is_dropped(tmp_path: Path) -> None:
    prepared(tmp_path, 6 * PART)
    run(tmp_path, "after a part", 4)
    before = unfinished(tmp_path)
    BlobStore(FilesDriver(tmp_path / "source", fsync=False)).bucket("shop").delete("large")

    run(tmp_path)

    assert (before, unfinished(tmp_path)) == (["large"], [])

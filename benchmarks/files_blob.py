"""What objects in plain files cost, compared with the plain files.

Three peers, all bare ``pathlib`` and ``os``: one writes in place; a careful one writes aside, syncs and renames, as
shiftable does; for listings, one walks, sorts and stats. Each round times all of them on fresh
folders of one disk, in turns, and yields one ratio; the table shows the medians. 1.00 means: no more than the peer.

    python benchmarks/files_blob.py [rounds [folder]]
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from shiftable.blob import BlobStore, Bucket, BucketSpec
from shiftable_baremetal.blob import FilesDriver

BODY = bytes(range(256)) * 16
SMALL = [f"d{number % 20:02d}/{number:05d}" for number in range(1_000)]
SYNCED = SMALL[:100]
LISTED = 20_000

Timings = dict[str, float]


def timed(action: Callable[[], object]) -> float:
    """Return how long it takes, in seconds."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def write_in_place(folder: Path, key: str) -> None:
    """Write a file as most programs do."""
    path = folder / key
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(BODY)


def write_carefully(folder: Path, key: str) -> None:
    """Write a file so that it is whole after a power failure."""
    path = folder / key
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(path.name + ".new")
    with aside.open("wb") as file:
        file.write(BODY)
        file.flush()
        os.fsync(file.fileno())
    aside.rename(path)
    fd = os.open(path.parent, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)


def walked(folder: Path) -> list[tuple[str, os.stat_result]]:
    """List a tree in order, with sizes and times."""
    paths = (os.path.join(parent, name) for parent, _, names in os.walk(folder) for name in names)  # noqa: PTH118  fast
    return sorted((path, os.lstat(path)) for path in paths)


def bucket_in(folder: Path, *, fsync: bool) -> Bucket:
    """Make an empty bucket."""
    return BlobStore(FilesDriver(folder, fsync=fsync)).create(BucketSpec(name="bench"))


def plain(folder: Path) -> Timings:
    """Time the plain files."""
    folder.mkdir()
    careful = folder / "careful"
    found = {
        "put": timed(lambda: [write_in_place(folder, key) for key in SMALL]),
        "put again": timed(lambda: [write_in_place(folder, key) for key in SMALL]),
        "put, synced": timed(lambda: [write_carefully(careful, key) for key in SYNCED]),
        "get": timed(lambda: [(folder / key).read_bytes() for key in SMALL]),
        "stat": timed(lambda: [(folder / key).stat() for key in SMALL]),
        "delete": timed(lambda: [(folder / key).unlink() for key in SMALL]),
    }
    fill(folder / "flat")
    return found | {f"list {LISTED:,}": timed(lambda: walked(folder / "flat"))}


def shiftable(folder: Path) -> Timings:
    """Time the same through a bucket."""
    folder.mkdir()
    bucket, synced = bucket_in(folder / "fast", fsync=False), bucket_in(folder / "synced", fsync=True)
    found = {
        "put": timed(lambda: [bucket.put(key, BODY) for key in SMALL]),
        "put again": timed(lambda: [bucket.put(key, BODY) for key in SMALL]),
        "put, synced": timed(lambda: [synced.put(key, BODY) for key in SYNCED]),
        "get": timed(lambda: [bucket.get(key) for key in SMALL]),
        "stat": timed(lambda: [bucket.stat(key) for key in SMALL]),
        "delete": timed(lambda: [bucket.delete(key) for key in SMALL]),
    }
    fill(folder / "fast/bench/flat")
    return found | {f"list {LISTED:,}": timed(lambda: list(bucket.list()))}


def fill(folder: Path) -> None:
    """Make many small files."""
    folder.mkdir()
    for number in range(LISTED):
        os.close(os.open(folder / f"{number:06d}", os.O_CREAT))


def main() -> None:
    """Print the table."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    ratios: dict[str, list[float]] = {}
    costs: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory(dir=sys.argv[2] if len(sys.argv) > 2 else None) as top:
        for number in range(rounds):
            sides = [("plain", plain), ("shiftable", shiftable)]
            timings = {
                name: run(Path(top, f"{name}{number}")) for name, run in (sides if number % 2 else reversed(sides))
            }
            for operation, seconds in timings["plain"].items():
                ratios.setdefault(operation, []).append(timings["shiftable"][operation] / seconds)
                costs.setdefault(operation, []).append(timings["shiftable"][operation])
    counts = {"put, synced": len(SYNCED), f"list {LISTED:,}": LISTED}
    print(f"{'operation':<16}{'ratio':>8}{'us each':>10}   {rounds} rounds")
    for operation, found in ratios.items():
        each = statistics.median(costs[operation]) / counts.get(operation, len(SMALL)) * 1e6
        print(f"{operation:<16}{statistics.median(found):>8.2f}{each:>10.1f}")


if __name__ == "__main__":
    main()

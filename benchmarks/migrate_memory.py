"""Move 200,000 objects that exist only as a listing, and print how much memory that takes.

    python benchmarks/migrate_memory.py [objects]

Each number of objects runs in a process of its own; what counts is that the last line is about 1. The time of the
processor for each object is that of the engine and the portable classes: the made-up driver does next to nothing.
"""

# ruff: noqa: ANN401, ARG002  the made-up driver takes what the contract passes, and needs little of it

from __future__ import annotations

import bisect
import subprocess
import sys
import tempfile
import time
import types
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from _memory import peak_rss

from shiftable.blob import BlobStore, BucketSpec, ObjectInfo, ObjectSummary
from shiftable.blob.driver import CommonPrefix, Download, PutOptions
from shiftable.memory.blob import MemoryBlobDriver
from shiftable.migrate import Migration, Options
from shiftable.paging import Page
from shiftable.tokens import Token

WHEN = datetime(2026, 1, 1, tzinfo=UTC)
NAME = "shop"
FOLDER = "some/folder/"


class Synthetic(MemoryBlobDriver):
    """A bucket whose objects are made up as they are asked for; what is written is only counted, in order of keys."""

    def __init__(self, count: int, *, filled: bool) -> None:
        super().__init__()
        self.create(BucketSpec(name=NAME))
        self.count = count
        self.present = bytearray(b"\1" if filled else b"\0") * count  # a byte an object, and nothing else

    def list(
        self,
        bucket: str,
        *,
        prefix: str,
        delimiter: str | None,
        start_after: str | None,
        cursor: str | None,
        limit: int | None,
    ) -> Page[Any]:
        """Make up one page."""
        first = int(cursor) if cursor else self._first(max(start_after or "", prefix))
        if delimiter and len(prefix) < len(FOLDER):
            return Page((CommonPrefix(FOLDER[: FOLDER.index(delimiter, len(prefix)) + 1]),))
        last = min(first + min(limit or 1000, 1000), self.count)
        items = tuple(_summary(number) for number in range(first, last) if self.present[number])
        return Page(items, str(last) if last < self.count else None)

    def _first(self, behind: str) -> int:
        """Return the number of the first object behind a key."""
        return bisect.bisect_left(range(self.count), x=True, key=lambda number: _key(number) > behind)

    def stat(self, bucket: str, key: str, *, version: str | None) -> ObjectInfo:
        """Make up an object."""
        return _info(int(key[-9:]))

    def get(self, bucket: str, key: str, **_: Any) -> Download:
        """Make up its content."""
        return Download(info=_info(int(key[-9:])), chunks=iter((b"x",)))

    def tags(self, bucket: str, key: str) -> dict[str, str]:
        """Say that there are none."""
        return {}

    def put(self, bucket: str, key: str, data: bytes, options: PutOptions) -> ObjectInfo:
        """Take an object, and forget it."""
        self.present[int(key[-9:])] = 1
        return _info(int(key[-9:]))


def _key(number: int) -> str:
    return f"{FOLDER}{number:09}"


def _summary(number: int) -> ObjectSummary:
    return ObjectSummary(key=_key(number), size=1, token=Token(str(number)), modified=WHEN)


def _info(number: int) -> ObjectInfo:
    return ObjectInfo(key=_key(number), size=1, token=Token(str(number)), modified=WHEN)


def passes(count: int, folder: Path) -> Iterator[tuple[str, tuple[float, float]]]:
    """Plan, move, move again and verify; yield each pass and its seconds."""
    sides = {"a": Synthetic(count, filled=True), "b": Synthetic(count, filled=False)}
    clouds = {name: types.SimpleNamespace(service=lambda _, d=side: BlobStore(d)) for name, side in sides.items()}
    declared = types.SimpleNamespace(service="blob", label="assets", spec=BucketSpec(name=NAME))
    app: Any = types.SimpleNamespace(state_dir=folder, declared=lambda: (declared,), cloud=clouds.__getitem__)
    migration = Migration(app, "a", "b", options=Options(concurrency=4))
    began = _now()
    plan = migration.plan()
    yield "plan", _since(began)
    for name, changed in (("move", count), ("again", 0)):
        began = _now()
        report = migration.apply(plan if name == "move" else None)
        if not report.complete or report.changed != changed:
            raise SystemExit(f"{name}: {report.changed} of {changed} changed, complete: {report.complete}")
        yield name, _since(began)
    began = _now()
    if migration.verify().resources[0].verified.count != count:
        raise SystemExit("verify: not everything")
    yield "verify", _since(began)


def _now() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def _since(began: tuple[float, float]) -> tuple[float, float]:
    """Return seconds on the clock, and of the processor."""
    return time.perf_counter() - began[0], time.process_time() - began[1]


def run(count: int) -> None:
    """Run in this process; print the peak of its memory in bytes at the end."""
    with tempfile.TemporaryDirectory() as folder:
        for name, (seconds, busy) in passes(count, Path(folder)):
            rate, each = count / seconds, busy / count * 1e6
            print(f"{count:>9,} objects  {name:<7}{seconds:7.2f} s  {rate:>9,.0f}/s  {each:5.0f} us each", flush=True)
    print(peak_rss())


def peak(count: int) -> int:
    """Run in a process of its own; return the peak of its memory in bytes."""
    command = [sys.executable, __file__, str(count), "here"]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    *lines, last = output.splitlines()
    print("\n".join(lines))
    return int(last)


def main() -> None:
    """Compare a tenth with the whole."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 200_000
    if len(sys.argv) > 2:
        run(count)
        return
    small, large = peak(count // 10), peak(count)
    print(f"peak of memory: {small / 2**20:.1f} MiB for {count // 10:,}, {large / 2**20:.1f} MiB for {count:,} objects")
    print(f"ratio {large / small:.2f}")


if __name__ == "__main__":
    main()

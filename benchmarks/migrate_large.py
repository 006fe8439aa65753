"""Move one object of 2 GiB whose content is made up, and print how much memory that takes.

python benchmarks/migrate_large.py [mebibytes]
"""

# ruff: noqa: ANN401, ARG002  the made-up driver takes what the contract passes, and needs little of it

from __future__ import annotations

import hashlib
import itertools
import sys
import tempfile
import time
import types
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from _memory import peak_rss

from shiftable.blob import BlobStore, BucketSpec, ObjectInfo
from shiftable.blob.driver import Download, Part, Range, Upload
from shiftable.memory.blob import MemoryBlobDriver
from shiftable.migrate import Migration
from shiftable.paging import Page
from shiftable.tokens import Token

NAME, KEY = "shop", "large"
BLOCK = bytes(range(256)) * 4096
WHEN = datetime(2026, 1, 1, tzinfo=UTC)


class Large(MemoryBlobDriver):
    """A bucket with one large object; parts that arrive are measured, digested and dropped."""

    def __init__(self, blocks: int, *, filled: bool) -> None:
        super().__init__()
        self.create(BucketSpec(name=NAME))
        self.blocks = blocks
        self.filled = filled
        self.digests: dict[int, tuple[int, str]] = {}

    @property
    def info(self) -> ObjectInfo:
        """The object."""
        return ObjectInfo(key=KEY, size=self.blocks * len(BLOCK), token=Token("1"), modified=WHEN)

    def list(self, bucket: str, **_: Any) -> Page[Any]:
        """List the one object."""
        return Page((self.info,) if self.filled else ())

    def stat(self, bucket: str, key: str, *, version: str | None) -> ObjectInfo:
        """Describe it."""
        return self.info

    def get(self, bucket: str, key: str, *, range_: Range | None, **_: Any) -> Download:
        """Make up its content."""
        first = range_.start // len(BLOCK) if range_ else 0
        last = range_.stop // len(BLOCK) if range_ and range_.stop else self.blocks
        return Download(info=self.info, chunks=itertools.repeat(BLOCK, last - first))

    def tags(self, bucket: str, key: str) -> dict[str, str]:
        """Say that there are none."""
        return {}

    def upload_part(self, upload: Upload, number: int, data: bytes, offset: int) -> Part:
        """Take a part and keep what it was."""
        self.digests[number] = len(data), hashlib.sha256(data).hexdigest()
        return Part(number=number, size=len(data), token=str(number))

    def upload_complete(self, upload: Upload, parts: tuple[Part, ...]) -> ObjectInfo:
        """Make the object."""
        self.filled = True
        arrived = [self.digests[part.number] for part in parts]
        wanted = [(size, hashlib.sha256(BLOCK * (size // len(BLOCK))).hexdigest()) for size, _ in arrived]
        if arrived != wanted or sum(size for size, _ in arrived) != self.info.size:
            raise SystemExit("what arrived is not what was sent")
        return self.info


def main() -> None:
    """Move it and verify it."""
    blocks = int(sys.argv[1]) if len(sys.argv) > 1 else 2048
    sides = {"a": Large(blocks, filled=True), "b": Large(blocks, filled=False)}
    clouds = {name: types.SimpleNamespace(service=lambda _, d=side: BlobStore(d)) for name, side in sides.items()}
    declared = types.SimpleNamespace(service="blob", label="assets", spec=BucketSpec(name=NAME))
    with tempfile.TemporaryDirectory() as folder:
        app: Any = types.SimpleNamespace(state_dir=Path(folder), declared=lambda: (declared,), cloud=clouds.__getitem__)
        migration = Migration(app, "a", "b")
        began = time.perf_counter()
        report = migration.apply()
        copied = time.perf_counter() - began
        began = time.perf_counter()
        verified = migration.verify()
    checked = time.perf_counter() - began
    if not (report.complete and report.changed == 1 and verified.complete):
        raise SystemExit(report.to_json())
    print(f"{blocks:,} MiB copied at {blocks / copied:,.0f} MiB/s, verified at {blocks / checked:,.0f} MiB/s")
    print(f"peak of memory {peak_rss() / 1024**2:.1f} MiB")


if __name__ == "__main__":
    main()

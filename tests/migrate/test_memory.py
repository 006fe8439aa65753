"""Memory does not grow with the number of objects, nor with the size of one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def lines(script: str, *arguments: str) -> list[str]:
    command = [sys.executable, str(BENCHMARKS / script), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()


def test_four_times_as_many_objects_take_the_same_memory() -> None:
    few = int(lines("migrate_memory.py", "10000", "here")[-1])  # as many as are read ahead in all ranges of keys
    many = int(lines("migrate_memory.py", "40000", "here")[-1])

    assert many - few < 30_000 * 300  # an item that is kept takes about 1,000 bytes


def test_an_object_that_is_larger_than_the_memory_that_is_used_is_moved_whole() -> None:
    peak = float(lines("migrate_large.py", "512")[-1].split()[-2])

    assert peak < 200

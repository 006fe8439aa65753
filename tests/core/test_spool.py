"""What is kept for later."""

from __future__ import annotations

import tempfile
import tracemalloc
from pathlib import Path

import pytest

from shiftable.blob import SyncStep
from shiftable.errors import OperationError
from shiftable.spool import Spool
from tests.small_disk import small_disk


def test_many_things_take_no_memory_and_come_in_their_order() -> None:
    tracemalloc.start()
    with Spool[SyncStep]("blob.sync") as kept:
        for number in range(20_000):
            kept.add(SyncStep(name=f"{number:0400}\n\udcff", action="delete", size=number))
        assert tracemalloc.get_traced_memory()[0] < 2 * 1024 * 1024
        for number, step in enumerate(kept):
            assert (f"{number:0400}\n\udcff", number) == (step.name, step.size)
        assert tracemalloc.get_traced_memory()[1] < 12 * 1024 * 1024
    tracemalloc.stop()
    assert number + 1 == kept.count == 20_000


def test_few_things_are_in_no_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    with Spool[int]("migrate") as kept:
        for number in range(1000):
            kept.add(number)
        assert list(range(1000)) == list(kept) == list(kept)


def fill(kept: Spool[bytes]) -> None:
    for _ in range(8):
        kept.add(bytes(1024 * 1024))
    list(kept)


def test_a_full_disk_is_told_by_its_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 5) as disk:
        monkeypatch.setattr(tempfile, "tempdir", str(disk))
        with Spool[bytes]("migrate") as kept, pytest.raises(OperationError, match=f"on folder '{disk}'.*No space left"):
            fill(kept)
        assert [] == list(disk.iterdir())


def test_what_has_no_folder_for_its_file_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    monkeypatch.setattr(tempfile, "tempdir", str(missing))
    with (
        Spool[bytes]("migrate") as kept,
        pytest.raises(OperationError, match=f"migrate on folder '{missing}'.*No such"),
    ):
        fill(kept)

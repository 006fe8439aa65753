"""Programs that fill a disk, or that do not end when they are told to, are ended."""

from __future__ import annotations

import errno
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from shiftable.errors import IntegrityError, QuotaExceeded
from shiftable.masking import Masked
from shiftable_baremetal import _recovery_places
from shiftable_baremetal._faults import FilesError
from shiftable_baremetal._recovery_places import watched_room
from shiftable_baremetal._servers_engine import fail
from shiftable_baremetal._servers_programs import Command, leashed

DEAF = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.SIG_IGN)
open(sys.argv[1], "w").close()
time.sleep(600)
"""


@pytest.mark.parametrize("patience", [0, 1])
def test_a_program_that_does_not_end_when_it_is_told_to_is_killed(tmp_path: Path, patience: float) -> None:
    ready = tmp_path / "ready"
    command = Command(program=Path(sys.executable), arguments=("-c", DEAF, str(ready)), secret=Masked(""))
    with leashed(command, patience=patience) as process:
        while not ready.exists():
            time.sleep(0.01)
        for number in (signal.SIGINT, signal.SIGTERM):  # as to all that a terminal has started
            process.send_signal(number)
        began = time.monotonic()
    assert patience <= time.monotonic() - began < 20
    running = [each.read_bytes() for each in Path("/proc").glob("[0-9]*/cmdline") if each.exists()]
    assert not any(str(ready).encode() in line for line in running)


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Say how many bytes each disk has left."""
    left = [2**30]

    def disk_usage(_: Path) -> Any:
        return shutil._ntuple_diskusage(2**40, 0, left[0])  # type: ignore[attr-defined]

    monkeypatch.setattr(_recovery_places.shutil, "disk_usage", disk_usage)
    monkeypatch.setattr(_recovery_places, "_LOOK", 0.01)
    return left


def test_what_fills_a_disk_is_ended_and_that_is_told(tmp_path: Path, room: list[int]) -> None:
    ended = list[bool]()

    def fill() -> None:
        with watched_room(tmp_path) as ends:
            time.sleep(0.1)
            room[0] = 2**20
            time.sleep(0.1)
            ends.append(lambda: ended.append(True))  # which has begun when the disk was full already
            end = time.monotonic() + 30
            while not ended and time.monotonic() < end:
                time.sleep(0.01)
            fail(IntegrityError, "the server that was to replay the log has ended")

    with pytest.raises(FilesError, match="became full: make room there") as caught:
        fill()
    assert caught.value.fault.error is QuotaExceeded
    assert ended


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_disk_that_is_full_is_named(tmp_path: Path, room: list[int], number: int) -> None:
    with pytest.raises(FilesError, match=str(tmp_path.parent)), watched_room(tmp_path):
        raise OSError(number, "full")
    assert 2**30 == room[0]


def test_what_fails_otherwise_is_told_as_it_is(tmp_path: Path, room: list[int]) -> None:
    with pytest.raises(PermissionError), watched_room(tmp_path):
        raise PermissionError
    assert 2**30 == room[0]

"""Backups of a private server, to restore any time since: base backups, and the WAL that was written after them.

    orders/
        backups/20261121T150000.123456Z/    a data directory, and the time from which on it can be rolled forward
        cluster/archive/                    WAL, as the server has archived it

A new base backup is made when the last one is a day old, by whoever connects then.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import attrs

from shiftable.errors import Fault, Unavailable
from shiftable.postgresql import Cluster
from shiftable_baremetal._faults import FilesError

__all__ = ["PARAMETERS", "Backups"]

# The server's working directory is its data. A segment that was archived before a crash may come once more.
PARAMETERS: Mapping[str, str] = {
    "archive_mode": "on",
    "archive_command": 'cp "%p" "../archive/%f.part" && mv "../archive/%f.part" "../archive/%f"',
}

_DAY = timedelta(days=1)
_STAMP = "%Y%m%dT%H%M%S.%fZ"
_SEGMENT = re.compile(r"[0-9A-F]{24}")
_PATIENCE = 300  # seconds, for the last segment to be archived
_RECOVERY = 24 * 3600  # seconds, for WAL to be replayed


@attrs.frozen
class Backups:
    """The backups of one server.

    Args:
        folder: of the base backups.
        archive: of the WAL.
    """

    folder: Path
    archive: Path

    def prepare(self, cluster: Cluster) -> None:
        """Make the folders of a new server."""
        self.folder.mkdir(mode=0o700)
        self.archive.mkdir(mode=0o700, exist_ok=True)
        cluster.owner.take(self.archive)

    def clear(self) -> None:
        """Delete all backups: WAL was not archived from now on, or until now."""
        for place in (*self.folder.iterdir(), *self.archive.iterdir()):
            if place.is_dir():
                shutil.rmtree(place)
            else:
                place.unlink()

    def times(self) -> list[datetime]:
        """Return the times from which on a base backup can be rolled forward, the earliest first."""
        if not self.folder.is_dir():
            return []
        names = sorted(place.name for place in self.folder.iterdir() if place.name[0] != ".")
        return [datetime.strptime(name, _STAMP).replace(tzinfo=UTC) for name in names]

    def due(self, now: datetime) -> bool:
        """Tell whether the newest base backup is a day old."""
        times = self.times()
        return bool(times) and now - times[-1] >= _DAY

    def add(self, cluster: Cluster) -> None:
        """Make a base backup."""
        with tempfile.TemporaryDirectory(prefix=".new-", dir=self.folder) as name:
            cluster.back_up(Path(name) / "data")
            (Path(name) / "data").rename(self._place(datetime.now(UTC)))

    def forget_before(self, cluster: Cluster, earliest: datetime) -> None:
        """Delete what no restore to that time or a later one needs."""
        old = [when for when in self.times() if when <= earliest]
        for when in old[:-1]:
            shutil.rmtree(self._place(when))
        for left in self.folder.glob(".new-*"):
            shutil.rmtree(left)
        first = _first_segment(cluster, self._place(self.times()[0]))
        for segment in self.archive.iterdir():
            if _SEGMENT.fullmatch(segment.name[:24]) and segment.name[8:24] < first[8:]:
                segment.unlink()

    def archive_all(self, cluster: Cluster) -> None:
        """Have a running server archive what it has written until now, with a commit after it to stop at."""
        with cluster.connect(autocommit=True) as connection:
            connection.execute("SELECT pg_current_xact_id()")
            query = "SELECT pg_walfile_name(pg_current_wal_insert_lsn()), pg_switch_wal()"
            row: Any = connection.execute(query).fetchone()
        end = time.monotonic() + _PATIENCE
        while not (self.archive / row[0]).exists():
            if time.monotonic() > end:
                raise FilesError(Fault(Unavailable, f"the server has not archived its WAL in {_PATIENCE} s"))
            time.sleep(0.02)

    def roll_forward(self, cluster: Cluster, when: datetime) -> None:
        """Fill a new cluster with what there was at that time; it does not run afterwards."""
        cluster.fill(self._place(max(base for base in self.times() if base <= when)))
        wal = cluster.folder / "restore"
        wal.mkdir(mode=0o700)
        cluster.owner.take(wal)
        for segment in self.archive.iterdir():
            if segment.is_file() and not segment.is_symlink() and segment.suffix != ".part":
                _link(segment, wal / segment.name)
                cluster.owner.take(wal / segment.name)
        (cluster.data / "recovery.signal").touch(mode=0o600)
        cluster.owner.take(cluster.data / "recovery.signal")
        recovery = {
            "restore_command": 'cp "../restore/%f" "%p"',
            "recovery_target_time": when.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f+00"),
            "recovery_target_action": "promote",
            "hot_standby": "off",  # which would ask for parameters as large as they once were
            "archive_mode": "off",
        }
        recovering = attrs.evolve(cluster, parameters={**cluster.parameters, **recovery})
        with recovering:
            recovering.wait_recovered(timeout=_RECOVERY)
        shutil.rmtree(wal)

    def _place(self, when: datetime) -> Path:
        return self.folder / when.strftime(_STAMP)


def _link(path: Path, new: Path) -> None:
    try:
        os.link(path, new)
    except OSError:  # not on this file system
        shutil.copyfile(path, new)


def _first_segment(cluster: Cluster, data: Path) -> str:
    """Return the first segment of WAL that a base backup needs."""
    label = data / "backup_label"
    if label.exists():
        found = re.search(r"^START WAL LOCATION: .*\(file ([0-9A-F]{24})\)", label.read_text(), re.MULTILINE)
    else:
        told = cluster.run("pg_controldata", "--pgdata", data).decode()
        found = re.search(r"REDO WAL file: +([0-9A-F]{24})", told)
    return found[1] if found else ""

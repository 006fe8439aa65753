"""A process that archives MariaDB until it is killed: its orders come as JSON on standard input. Run by path."""

from __future__ import annotations

import json
import sys
from datetime import timedelta
from pathlib import Path

from shiftable.config import Credential
from shiftable.database import ArchiveProgress, Databases
from shiftable_baremetal import MariadbSettings
from shiftable_baremetal.database_servers import open_server


def told(progress: ArchiveProgress) -> None:
    sys.stdout.write(f"{progress.until.isoformat()}\n")
    sys.stdout.flush()


orders = json.loads(sys.stdin.readline())
settings = MariadbSettings(
    host="127.0.0.1",
    port=orders["port"],
    tls=False,
    user="admin",
    password=Credential.literal(orders["password"]),
    archive_days=7,
)
Databases(open_server(settings, Path(orders["root"]))).archive(every=timedelta(0), on_progress=told)

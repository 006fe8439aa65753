"""A process that archives MariaDB, or restores a time, until it is killed: its orders come as JSON. Run by path."""

from __future__ import annotations

import json
import sys
from datetime import datetime, timedelta
from pathlib import Path

import attrs

from shiftable.config import Credential
from shiftable.database import ArchiveProgress, Databases
from shiftable.testing.conformance.database import small_spec
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
databases = Databases(open_server(settings, Path(orders["root"])))
if "at" in orders:
    spec = attrs.evolve(small_spec(orders.get("name", "copy")), engine="mariadb", version="10")
    databases.database("orders").restore(spec, at=datetime.fromisoformat(orders["at"]))
else:
    databases.archive(every=timedelta(0), on_progress=told)

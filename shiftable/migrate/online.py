"""A PostgreSQL database moves while it is written to: copied, followed, and cut over with a short stop of writes.

::

    source = Server.of(frankfurt.database.get("orders"), "orders", label="orders on frankfurt")
    target = Server("orders on gcp", lambda: {"host": …, "dbname": "orders", "user": …, "password": …})
    move = postgresql("orders", source, target, Path(".shiftable"))
    for finding in move.check():
        print(finding.message)
    move.start()                      # publication, slot, copy
    move.follow(tell=print)           # until the target has what the source had
    move.cutover(hand_over=switch_the_application)

Each step may be killed and run again; ``move.rollback()`` undoes what was done to the source. It needs psycopg, and
``pg_dump`` of the source's version or a newer one.
"""

from __future__ import annotations

from pathlib import Path

from shiftable.migrate._capture._follow import Cut, Lag, Online, OnlineOptions, OnlineState
from shiftable.migrate._capture._server import Server
from shiftable.migrate._capture._slot import SlotState, drop_slot, slots
from shiftable.migrate._capture._source import Finding

__all__ = [
    "Cut",
    "Finding",
    "Lag",
    "Online",
    "OnlineOptions",
    "OnlineState",
    "Server",
    "SlotState",
    "drop_slot",
    "postgresql",
    "slots",
]


def postgresql(
    name: str, source: Server, target: Server, folder: Path, *, jobs: int = 2, options: OnlineOptions | None = None
) -> Online:
    """Return the move of one database into an empty one, wherever it is.

    Args:
        name: of the move; with the labels of both servers it gives the slot its name.
        folder: where it is written down, ``.shiftable``.
        jobs: threads of the copy and of the comparison.
    """
    from shiftable.migrate._capture._database import Copying
    from shiftable.migrate._postgresql._move import How

    copying = Copying(source, target, How(jobs=jobs))
    return Online(
        name,
        source,
        target,
        folder,
        copy=copying.copy,
        ready=copying.check,
        tidy=copying.tidy,
        verify=copying.verify,
        options=options,
    )

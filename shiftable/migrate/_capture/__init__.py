"""Moves of PostgreSQL under running writers: client-driven change capture over ordinary connections.

``Online`` is the move; it needs psycopg. The source's changes are read with ``pg_logical_slot_peek_binary_changes``,
decoded here and applied to the target, so that neither server has to reach the other, and no superuser is needed.
"""

from __future__ import annotations

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
    "slots",
]

"""What this process has begun to do to machines: Google tells how an operation ended only to who asks for it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable

import attrs

from shiftable.compute.driver import MachineInfo, MachineState
from shiftable_gcp._compute_api import Json

__all__ = ["Begun", "Works"]

_AVOIDED = 600.0  # seconds for which a zone that had no more machines of a type is tried last


@attrs.define(kw_only=True)
class Begun:
    """What was begun to be done to a machine.

    Args:
        state: what the machine is told to be meanwhile.
        until: the provider's states in which it is done.
        made: of a machine that is being made, what it is to be.
        since: by our clock.
        listed: the number of the listing in which it was seen last.
    """

    operation: Json
    state: MachineState
    until: frozenset[str]
    made: MachineInfo | None = None
    since: float = attrs.Factory(time.monotonic)
    listed: int = 0


@attrs.define(eq=False)
class Works:
    """What was begun, by the ids of machines. It may be used from many threads."""

    _begun: dict[str, Begun] = attrs.field(factory=dict, init=False)
    _exhausted: dict[tuple[str, str], float] = attrs.field(factory=dict, init=False)
    _listings: int = attrs.field(default=0, init=False)
    _lock: threading.Lock = attrs.field(factory=threading.Lock, init=False)

    def begin(self, id: str, begun: Begun) -> None:
        """Note what was begun; it takes the place of what was before."""
        with self._lock:
            self._begun[id] = begun

    def find(self, id: str) -> Begun | None:
        """Return what was begun last, unless it is known to be done."""
        with self._lock:
            return self._begun.get(id)

    def forget(self, id: str, begun: Begun | None = None) -> None:
        """Forget what was begun, unless that is no longer the last."""
        with self._lock:
            if begun is None or self._begun.get(id) is begun:
                self._begun.pop(id, None)

    def making(self, fleet: str | None) -> dict[str, Begun]:
        """Return the machines of a fleet, or of all, that are being made."""
        with self._lock:
            return {
                id_: begun
                for id_, begun in self._begun.items()
                if begun.made is not None and fleet in (None, begun.made.fleet)
            }

    def listing(self) -> int:
        """Return the number of a new listing."""
        with self._lock:
            self._listings += 1
            return self._listings

    def avoid(self, zone: str, size: str) -> None:
        """Note that a zone has no more machines of a size."""
        with self._lock:
            self._exhausted[zone, size] = time.monotonic()

    def in_order(self, zones: Iterable[str], size: str) -> list[str]:
        """Sort zones: those that had no more machines of a size lately come last, the longest known first."""
        now = time.monotonic()
        with self._lock:
            since = {
                zone: moment
                for (zone, kind), moment in self._exhausted.items()
                if kind == size and now - moment < _AVOIDED
            }
        return sorted(zones, key=lambda zone: (since.get(zone, 0.0), zone))

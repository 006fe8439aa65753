"""Who watches a move: observers. Nothing here prints; the command line and machines bring their own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, Protocol, TextIO

import attrs

from shiftable.migrate._journal import Named

if TYPE_CHECKING:
    from shiftable.migrate._plan import Plan
    from shiftable.migrate._report import Report

__all__ = ["JsonEvents", "Observer", "Phase", "Progress", "Silent"]

PhaseName = Literal["plan", "prepare", "copy", "verify"]


@attrs.frozen
class Phase:
    """A stretch of the work on one resource.

    Args:
        items: how many there will be, where a plan has told; with ``bytes`` enough for an estimate of the time.
    """

    name: PhaseName
    resource: str
    items: int | None = None
    bytes: int | None = None


@attrs.frozen
class Progress:
    """How far a phase is."""

    phase: PhaseName
    resource: str
    items: int
    bytes: int


class Observer(Protocol):
    """Told what happens, always from the thread that called the migration. What it raises ends the move."""

    def on_phase(self, phase: Phase) -> None:
        """Take note that a phase begins."""

    def on_progress(self, progress: Progress) -> None:
        """Take note of a batch of items."""

    def on_item_failed(self, named: Named) -> None:
        """Take note of an item that will be named in the report."""

    def on_done(self, result: Plan | Report) -> None:
        """Take the result."""


class Silent:
    """Looks away. Also a base for observers that want only some of the events."""

    def on_phase(self, phase: Phase) -> None:
        """Ignore it."""

    def on_progress(self, progress: Progress) -> None:
        """Ignore it."""

    def on_item_failed(self, named: Named) -> None:
        """Ignore it."""

    def on_done(self, result: Plan | Report) -> None:
        """Ignore it."""


class JsonEvents:
    """Writes one JSON object a line: ``{"event": "progress", "phase": "copy", …}``."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def on_phase(self, phase: Phase) -> None:
        """Write ``phase``."""
        self._write("phase", attrs.asdict(phase))

    def on_progress(self, progress: Progress) -> None:
        """Write ``progress``."""
        self._write("progress", attrs.asdict(progress))

    def on_item_failed(self, named: Named) -> None:
        """Write ``item``."""
        self._write("item", attrs.asdict(named))

    def on_done(self, result: Plan | Report) -> None:
        """Write ``plan`` or ``report``, whole."""
        kind = type(result).__name__.lower()
        self._write(kind, {kind: json.loads(result.to_json())})

    def _write(self, event: str, fields: Mapping[str, Any]) -> None:
        self._stream.write(json.dumps({"event": event, **fields}) + "\n")
        self._stream.flush()

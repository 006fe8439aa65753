"""Who watches a move: observers. Nothing here prints; the command line and machines bring their own."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal, Protocol, TextIO

import attrs

from shiftable.migrate._journal import Named

if TYPE_CHECKING:
    from shiftable.migrate._plan import Plan
    from shiftable.migrate._report import Report

__all__ = ["JsonEvents", "Observer", "Phase", "Progress", "Recorder", "Sample", "Silent"]

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
    """How far a phase is.

    Args:
        in_flight: items that are under way, if that is told.
        throttled: whether a provider asked to go slower within the last ten seconds.
    """

    phase: PhaseName
    resource: str
    items: int
    bytes: int
    in_flight: int | None = None
    throttled: bool = False


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


class Flow(Protocol):
    """What regulates how many items are under way."""

    @property
    def running(self) -> int:
        """Items that are under way."""

    @property
    def throttled(self) -> bool:
        """Whether a provider asked for less lately."""


class Telling:
    """Passes everything on to another observer, and says with progress what is under way and what holds it back."""

    def __init__(self, observer: Observer, flow: Flow) -> None:
        self._flow = flow
        self._observer = observer
        self.on_phase = observer.on_phase
        self.on_item_failed = observer.on_item_failed
        self.on_done = observer.on_done

    def on_progress(self, progress: Progress) -> None:
        """Add to it."""
        flow = self._flow
        self._observer.on_progress(attrs.evolve(progress, in_flight=flow.running, throttled=flow.throttled))


@attrs.frozen
class Sample:
    """How far a phase was at a moment, in seconds since the beginning."""

    seconds: float
    phase: PhaseName
    resource: str
    items: int
    bytes: int


class Recorder:
    """Passes everything on to another observer and keeps what a final report tells: results, and samples over time.

    However long a move is, only some hundreds of samples are kept: when there are too many, every second one is
    dropped and from then on half as many are taken.
    """

    def __init__(self, observer: Observer, *, clock: Callable[[], float] = time.monotonic, most: int = 512) -> None:
        self._observer = observer
        self._clock = clock
        self._began = clock()
        self._most = most
        self._every = 0.2
        self._next = 0.0
        self._samples: list[Sample] = []
        self._last: Sample | None = None
        self.results: list[Plan | Report] = []

    @property
    def samples(self) -> tuple[Sample, ...]:
        """What was sampled, the newest state last."""
        last = self._last
        return (*self._samples, *((last,) if last is not None and self._samples[-1:] != [last] else ()))

    def on_phase(self, phase: Phase) -> None:
        """Keep where a phase begins: nothing of it is done yet."""
        self._keep_last()
        if phase.name != "prepare":
            self._sample(Sample(self._now(), phase.name, phase.resource, 0, 0), always=True)
        self._observer.on_phase(phase)

    def on_progress(self, progress: Progress) -> None:
        """Keep how far it is, now and then."""
        self._sample(Sample(self._now(), progress.phase, progress.resource, progress.items, progress.bytes))
        self._observer.on_progress(progress)

    def on_item_failed(self, named: Named) -> None:
        """Pass it on; the results name it."""
        self._observer.on_item_failed(named)

    def on_done(self, result: Plan | Report) -> None:
        """Keep the result."""
        self._keep_last()
        self.results.append(result)
        self._observer.on_done(result)

    def _now(self) -> float:
        return round(self._clock() - self._began, 3)

    def _sample(self, sample: Sample, *, always: bool = False) -> None:
        self._last = sample
        if always or sample.seconds >= self._next:
            self._next = sample.seconds + self._every
            self._samples.append(sample)
        if len(self._samples) >= self._most:
            self._samples = _thinned(self._samples)
            self._every *= 2

    def _keep_last(self) -> None:
        if self._last is not None and self._samples[-1:] != [self._last]:
            self._samples.append(self._last)
        self._last = None


def _thinned(samples: list[Sample]) -> list[Sample]:
    """Drop every second sample, but none that begins or ends a phase, unless there are too many of those too."""
    inner = [
        before is not None
        and after is not None
        and (before.phase, before.resource) == (here.phase, here.resource) == (after.phase, after.resource)
        for before, here, after in zip([None, *samples[:-1]], samples, [*samples[1:], None], strict=True)
    ]
    kept = [here for number, here in enumerate(samples) if not inner[number] or number % 2]
    return kept if len(kept) < len(samples) * 3 // 4 else samples[len(samples) // 2 :]


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

"""What a move looks like while it goes on: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Self

import attrs
import click

from shiftable.cli._context import items_text, shown, size_text
from shiftable.migrate import Named, Phase, Progress, Silent

if TYPE_CHECKING:
    from rich.progress import TaskID

__all__ = ["Bars", "Lines", "Pace", "duration_text"]

WORDS = {"plan": "comparing", "prepare": "preparing", "copy": "copying", "verify": "verifying"}
_WINDOW = 30.0
_FIRST = 5.0
"""Seconds before a speed says anything of the time that is left: at the beginning connections are made."""


def duration_text(seconds: float) -> str:
    """Say a time for people, no more exactly than it is known: ``40 s``, ``3 min``, ``2 h 10 min``."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    hours, rest = divmod(minutes, 60)
    return f"{hours} h {rest // 10 * 10:02} min" if hours < 48 else f"{hours // 24} days"


@attrs.define
class Pace:
    """How fast a phase is, over the last half minute, and how long it still takes.

    The time that is left is told only where a plan has told the end, and only after a few seconds; it is the longer
    one of those that items and bytes ask for, as small objects cost by number and large ones by size.
    """

    phase: Phase
    clock: Callable[[], float] = time.monotonic
    _seen: deque[tuple[float, int, int]] = attrs.field(factory=deque, init=False)
    _began: float = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        """Begin at nothing."""
        self._began = self.clock()
        self._seen.append((self._began, 0, 0))

    def add(self, progress: Progress) -> None:
        """Take how far it is."""
        now = self.clock()
        self._seen.append((now, progress.items, progress.bytes))
        while len(self._seen) > 2 and self._seen[1][0] <= now - _WINDOW:
            self._seen.popleft()

    @property
    def items(self) -> float:
        """Items a second."""
        return self._rate(1)

    @property
    def bytes(self) -> float:
        """Bytes a second."""
        return self._rate(2)

    @property
    def left(self) -> float | None:
        """Seconds that are left; ``None``: nobody can know."""
        _, items, size = self._seen[-1]
        if self.phase.items is None or self.phase.bytes is None or self.clock() - self._began < _FIRST:
            return None
        needs = [(self.phase.items - items, self.items), (self.phase.bytes - size, self.bytes)]
        open_ = [(rest, rate) for rest, rate in needs if rest > 0]
        if any(rate <= 0 for _, rate in open_):
            return None
        return max((rest / rate for rest, rate in open_), default=0.0)

    def text(self, progress: Progress) -> str:
        """Say speed, what is under way, what holds it back and how long it takes."""
        parts = [f"{self.items:,.0f}/s"]
        parts += [f"{size_text(int(self.bytes))}/s"] if progress.bytes else []
        parts += [f"{progress.in_flight} in flight"] if progress.in_flight is not None else []
        parts += ["throttled"] if progress.throttled else []
        left = self.left
        parts += [f"about {duration_text(left)} left"] if left is not None else []
        return ", ".join(parts)

    def _rate(self, field: int) -> float:
        first, last = self._seen[0], self._seen[-1]
        seconds = self.clock() - first[0]
        return (last[field] - first[field]) / seconds if seconds > 0 else 0.0


class Lines(Silent):
    """A line when a phase begins, and one every few seconds while it lasts."""

    def __init__(self, *, every: float = 10.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._every = every
        self._clock = clock
        self._next = clock() + every
        self._pace: Pace | None = None

    def on_phase(self, phase: Phase) -> None:
        """Write what begins."""
        click.echo(f"{WORDS[phase.name]} {phase.resource}", err=True)
        self._next = self._clock() + self._every
        self._pace = Pace(phase, self._clock)

    def on_progress(self, progress: Progress) -> None:
        """Write how far it is, now and then."""
        if self._pace is None:
            return
        self._pace.add(progress)
        if self._clock() >= self._next:
            self._next = self._clock() + self._every
            words = WORDS[progress.phase]
            done = f"{items_text(progress.items)}, {size_text(progress.bytes)}"
            click.echo(f"{words} {progress.resource}: {done} ({self._pace.text(progress)})", err=True)

    def on_item_failed(self, named: Named) -> None:
        """Write it at once."""
        click.echo(f"{named.trouble}: {shown(named.key)}: {shown(named.reason)}", err=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, cls: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        return


class Bars(Silent):
    """One bar for each phase, with items, bytes and speed; on standard error, so that results can be piped."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as RichProgress

        self._progress = RichProgress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed:,.0f} items  {task.fields[size]}  {task.fields[pace]}"),
            TimeElapsedColumn(),
            console=Console(stderr=True, highlight=False, emoji=False),  # a key may hold ":x:"
        )
        self._task: TaskID | None = None
        self._pace: Pace | None = None

    def on_phase(self, phase: Phase) -> None:
        """Begin a bar; it has an end where a plan has told how much there is."""
        self._end()
        if phase.name == "prepare":  # it has no items, and is over at once
            return
        self._pace = Pace(phase)
        self._task = self._progress.add_task(
            f"{WORDS[phase.name]} {phase.resource}", total=phase.items, size="", pace=""
        )

    def on_progress(self, progress: Progress) -> None:
        """Move it."""
        if self._task is not None and self._pace is not None:
            self._pace.add(progress)
            size = size_text(progress.bytes) if progress.bytes else ""
            pace = self._pace.text(progress)
            self._progress.update(self._task, completed=progress.items, size=size, pace=pace)

    def on_item_failed(self, named: Named) -> None:
        """Write it above the bars."""
        self._progress.console.print(f"{named.trouble}: {shown(named.key)}: {shown(named.reason)}", markup=False)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, cls: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self._end()
        self._progress.stop()

    def _end(self) -> None:
        if self._task is not None:
            done = next(task.completed for task in self._progress.tasks if task.id == self._task)
            self._progress.update(self._task, total=done or 1, completed=done or 1)
            self._task = None

"""What a move looks like while it goes on: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Self

import click

from shiftable.cli._context import items_text, size_text
from shiftable.migrate import Named, Phase, Progress, Silent

if TYPE_CHECKING:
    from rich.progress import TaskID

__all__ = ["Bars", "Lines"]

WORDS = {"plan": "comparing", "prepare": "preparing", "copy": "copying", "verify": "verifying"}


class Lines(Silent):
    """A line when a phase begins, and one every few seconds while it lasts."""

    def __init__(self, *, every: float = 10.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._every = every
        self._clock = clock
        self._next = clock() + every

    def on_phase(self, phase: Phase) -> None:
        """Write what begins."""
        click.echo(f"{WORDS[phase.name]} {phase.resource}", err=True)
        self._next = self._clock() + self._every

    def on_progress(self, progress: Progress) -> None:
        """Write how far it is, now and then."""
        if self._clock() >= self._next:
            self._next = self._clock() + self._every
            words = WORDS[progress.phase]
            text = f"{words} {progress.resource}: {items_text(progress.items)}, {size_text(progress.bytes)}"
            click.echo(text, err=True)

    def on_item_failed(self, named: Named) -> None:
        """Write it at once."""
        click.echo(f"{named.trouble}: {named.key}: {named.reason}", err=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, cls: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        return


class Bars(Silent):
    """One bar for each phase, with items, bytes and speed; on standard error, so that results can be piped."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, SpinnerColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress

        self._progress = RichProgress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed:,.0f} items  {task.fields[size]}  {task.fields[speed]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True, highlight=False),
        )
        self._task: TaskID | None = None
        self._began = 0.0

    def on_phase(self, phase: Phase) -> None:
        """Begin a bar; it has an end where a plan has told how much there is."""
        self._end()
        if phase.name == "prepare":  # it has no items, and is over at once
            return
        self._began = time.monotonic()
        self._task = self._progress.add_task(
            f"{WORDS[phase.name]} {phase.resource}", total=phase.items, size="", speed=""
        )

    def on_progress(self, progress: Progress) -> None:
        """Move it."""
        if self._task is not None:
            seconds = max(time.monotonic() - self._began, 0.001)
            size = size_text(progress.bytes) if progress.bytes else ""
            speed = f"{size_text(int(progress.bytes / seconds))}/s" if size else ""
            self._progress.update(self._task, completed=progress.items, size=size, speed=speed)

    def on_item_failed(self, named: Named) -> None:
        """Write it above the bars."""
        self._progress.console.print(f"{named.trouble}: {named.key}: {named.reason}", markup=False)

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

"""What a move did, as values: counts, losses, and every item that did not go as planned."""

from __future__ import annotations

import heapq
import json
from collections.abc import Mapping
from typing import Any

import attrs

from shiftable.migrate._estimate import Sizes
from shiftable.migrate._journal import Named
from shiftable.migrate.mover import Action, Loss, Outcome, Trouble

__all__ = ["Counter", "Large", "LossCount", "Losses", "Report", "ResourceReport", "Tally"]

SHOWN_EXAMPLES = 5
SHOWN_ITEMS = 1_000
SHOWN_LARGE = 20
SHOWN_LOSSES = 200
"""Different losses that are told; a loss may name what is lost, and then every item may have its own."""


@attrs.frozen
class Tally:
    """A number of items and their bytes."""

    count: int = 0
    bytes: int = 0


@attrs.frozen(kw_only=True)
class LossCount:
    """How many items lose the same thing, and the first of them.

    Args:
        accepted: by ``degrade``; ``None``: it is no data, and only told.
    """

    facet: str
    detail: str
    accepted: bool | None
    count: int
    examples: tuple[str, ...]


class Losses:
    """Gathers losses item by item; keeps counts and the first examples only."""

    def __init__(self) -> None:
        self._found: dict[Loss, tuple[int, tuple[str, ...]]] = {}

    def add(self, key: str, losses: tuple[Loss, ...]) -> None:
        """Take the losses of one item."""
        for loss in losses:
            if loss not in self._found and len(self._found) >= SHOWN_LOSSES:
                loss = Loss(loss.facet, "and others", loss.accepted)  # noqa: PLW2901  it stands for the rest of its facet
            count, examples = self._found.get(loss, (0, ()))
            shown = (*examples, key) if len(examples) < SHOWN_EXAMPLES else examples
            self._found[loss] = count + 1, shown

    def counted(self) -> tuple[LossCount, ...]:
        """Return what was gathered, by facet."""
        return tuple(
            LossCount(facet=loss.facet, detail=loss.detail, accepted=loss.accepted, count=count, examples=examples)
            for loss, (count, examples) in sorted(self._found.items(), key=lambda found: found[0].facet)
        )


@attrs.frozen
class Large:
    """An item and its bytes."""

    key: str
    bytes: int


@attrs.frozen(kw_only=True)
class ResourceReport:
    """What was done with one resource.

    Args:
        done: by action; adopted items stand under ``compare``.
        verified: items that were read on both sides and found equal.
        troubles: how many items are named, by why.
        named: the first of them; all stand in the journal.
        refused: why the resource as a whole was not moved.
        largest: the largest items that were written, largest first.
        notes: what was found that belongs to no item and counts for nothing.
    """

    address: str
    done: Mapping[Action, Tally] = attrs.Factory(dict)
    verified: Tally = Tally()
    troubles: Mapping[Trouble, int] = attrs.Factory(dict)
    losses: tuple[LossCount, ...] = ()
    named: tuple[Named, ...] = ()
    refused: tuple[str, ...] = ()
    largest: tuple[Large, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def changed(self) -> int:
        """Items of the target that were written or deleted."""
        wrote = (Action.CREATE, Action.REPLACE, Action.DELETE)
        return sum(self.done.get(action, Tally()).count for action in wrote)

    @property
    def complete(self) -> bool:
        """Whether every item of the source is on the target."""
        return not self.refused and not any(trouble.counts for trouble in self.troubles)


@attrs.frozen(kw_only=True)
class Report:
    """What a move or a verification did.

    Args:
        skipped: declared resources that nobody can move yet.
        degraded: facets whose loss was accepted.
        seconds: how long it took.
        kind: ``move`` or ``verification``.
        stopped: why it ended before its end, if it did; then the counts are those until then.
    """

    source: str
    target: str
    plan: str
    resources: tuple[ResourceReport, ...]
    skipped: tuple[str, ...] = ()
    degraded: tuple[str, ...] = ()
    seconds: float = 0.0
    kind: str = "move"
    stopped: str = ""

    @property
    def complete(self) -> bool:
        """Whether everything arrived: the source may be left. Skipped resources do not count."""
        return not self.stopped and all(resource.complete for resource in self.resources)

    @property
    def changed(self) -> int:
        """Items of the target that were written or deleted; 0 for a move that was done already."""
        return sum(resource.changed for resource in self.resources)

    @property
    def rollback(self) -> str:
        """How to go back."""
        return (
            f"{self.source} was not touched: to go back, set the environment's provider to {self.source!r} again;"
            f" what was written to {self.target} since then stays there"
        )

    def to_json(self) -> str:
        """Return the report for machines."""
        found = attrs.asdict(self, value_serializer=lambda _, __, value: _plain(value))
        extra = {"complete": self.complete, "changed": self.changed, "rollback": self.rollback}
        return json.dumps(found | extra, indent=2)


def _plain(value: Any) -> Any:  # noqa: ANN401  any attribute of any value
    return {str(key): item for key, item in value.items()} if isinstance(value, Mapping) else value


@attrs.define
class _Sum:
    """A tally that grows."""

    count: int = 0
    bytes: int = 0

    def add(self, size: int) -> None:
        self.count += 1
        self.bytes += size

    @property
    def tally(self) -> Tally:
        return Tally(self.count, self.bytes)


class Counter:
    """Gathers what becomes of the items of one resource."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.losses = Losses()
        self.notes: list[str] = []
        self.items = 0
        self.bytes = 0
        self.sizes = Sizes()
        self._done: dict[Action, _Sum] = {}
        self._verified = _Sum()
        self._troubles: dict[Trouble, int] = {}
        self._named: list[Named] = []
        self._large: list[tuple[int, str]] = []

    def done(self, key: str, outcome: Outcome) -> None:
        """Count an item that ended well."""
        if outcome.action is not None:
            self.seen(outcome.action, outcome.size)
        if outcome.action in {Action.CREATE, Action.REPLACE} and outcome.size:
            self._keep_large(key, outcome.size)
        self.losses.add(key, outcome.losses)

    def seen(self, action: Action, size: int) -> None:
        """Count an item by what was, or is to be, done with it."""
        self.items += 1
        self.bytes += size
        (self._done.get(action) or self._done.setdefault(action, _Sum())).add(size)

    def verified(self, size: int) -> None:
        """Count an item that is equal on both sides."""
        self.items += 1
        self.bytes += size
        self._verified.add(size)

    def named(self, named: Named) -> None:
        """Count an item that has to be named; what was moved nevertheless is counted already."""
        self.items += named.trouble not in {Trouble.CHANGED, Trouble.STALE}
        self._troubles[named.trouble] = self._troubles.get(named.trouble, 0) + 1
        if len(self._named) < SHOWN_ITEMS:
            self._named.append(named)

    @property
    def tallies(self) -> Mapping[Action, Tally]:
        """Items and bytes by action."""
        return {action: found.tally for action, found in self._done.items()}

    @property
    def failed(self) -> int:
        """Items that the next run tries again."""
        return self._troubles.get(Trouble.FAILED, 0)

    def _keep_large(self, key: str, size: int) -> None:
        if len(self._large) < SHOWN_LARGE:
            heapq.heappush(self._large, (size, key))
        else:
            heapq.heappushpop(self._large, (size, key))

    def report(self) -> ResourceReport:
        """Return what was gathered."""
        return ResourceReport(
            address=self.address,
            done=self.tallies,
            verified=self._verified.tally,
            troubles=dict(self._troubles),
            losses=self.losses.counted(),
            named=tuple(self._named),
            notes=tuple(self.notes),
            largest=tuple(Large(key, size) for size, key in sorted(self._large, key=lambda each: (-each[0], each[1]))),
        )

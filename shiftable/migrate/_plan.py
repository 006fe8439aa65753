"""The plan: a value to be shown, saved, compared and pinned by its digest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import attrs

from shiftable.errors import MigrationError
from shiftable.migrate._estimate import Estimate
from shiftable.migrate._filters import KeyList
from shiftable.migrate._journal import Named
from shiftable.migrate._report import LossCount, Tally
from shiftable.migrate.mover import Action, Item, Options, Trouble

if TYPE_CHECKING:
    from cattrs.preconf.json import JsonConverter

__all__ = ["Fingerprint", "Plan", "ResourcePlan", "Segment"]

FORMAT = 2
_quoted = json.encoder.encode_basestring_ascii
_SINGLE = 1_000
_SHOWN = 20


@attrs.frozen
class Segment:
    """A run of neighbouring items and their digest; the first thousand items are segments of their own.

    Longer ones end where an item's own digest says so, about every 256 items: an item more or less changes one
    segment and not all that follow, so that two plans show where they differ without keeping every item.
    """

    last: str
    count: int
    digest: str


class Fingerprint:
    """Digests the world that a plan saw: every item of the source, and what the target had in its place."""

    def __init__(self) -> None:
        self._segments: list[Segment] = []
        self._digest = hashlib.sha256()
        self._open = 0
        self._items = 0
        self._last = ""

    def add(self, item: Item, pinned: str) -> None:
        """Take the next item.

        Args:
            pinned: the plan that is being carried out, if one is: what it has written itself already is no change of
                the world, and the journal knows what was there before.
        """
        if item.source is None:
            return
        record = item.record
        resumed = record is not None and pinned and record.plan == pinned
        there = item.target.token if item.target else None
        before = record.before if resumed and record else there
        here = item.source
        known = "null" if before is None else _quoted(before)
        told = f"[{_quoted(item.key)}, {_quoted(here.token)}, {here.size}, {_quoted(here.modified)}"
        line = hashlib.sha256(f"{told}, {_quoted(here.content)}, {known}]".encode()).digest()
        self._digest.update(line)
        self._open += 1
        self._items += 1
        self._last = item.key
        if self._items <= _SINGLE or not line[0]:
            self._close()

    def segments(self) -> tuple[Segment, ...]:
        """Return what was gathered."""
        if self._open:
            self._close()
        return tuple(self._segments)

    def _close(self) -> None:
        self._segments.append(Segment(self._last, self._open, self._digest.hexdigest()[:32]))
        self._digest = hashlib.sha256()
        self._open = 0


@attrs.frozen(kw_only=True)
class ResourcePlan:
    """What is to be done with one resource.

    Args:
        address: ``blob.assets``.
        spec: what the target's resource is to be, as text.
        changes: what has to be made on the target first.
        actions: items and bytes by what is to be done with them.
        losses: what does not reach the target, field by field.
        troubles: how many items are named, by why; ``named`` are the first of them.
        refused: why the resource as a whole cannot be moved.
        inspected: whether every item to be written was looked at; else refusals may still turn up.
        segments: the world that this was made for.
        estimate: what moving and verifying it would ask for and cost; ``None`` for what no prices are known of.
    """

    address: str
    spec: str
    changes: tuple[str, ...] = ()
    actions: Mapping[Action, Tally] = attrs.Factory(dict)
    losses: tuple[LossCount, ...] = ()
    troubles: Mapping[Trouble, int] = attrs.Factory(dict)
    named: tuple[Named, ...] = ()
    refused: tuple[str, ...] = ()
    inspected: bool = True
    segments: tuple[Segment, ...] = ()
    estimate: Estimate | None = None

    @property
    def everything(self) -> Tally:
        """All items that a move will look at."""
        beside = sum(count for trouble, count in self.troubles.items() if trouble is not Trouble.STALE)
        tallies = self.actions.values()
        return Tally(beside + sum(tally.count for tally in tallies), sum(tally.bytes for tally in tallies))

    @property
    def to_do(self) -> Tally:
        """Items that will be written or compared."""
        found = [self.actions.get(action, Tally()) for action in (Action.CREATE, Action.REPLACE, Action.COMPARE)]
        return Tally(sum(tally.count for tally in found), sum(tally.bytes for tally in found))


@attrs.frozen(kw_only=True)
class Plan:
    """What a move would do, and the world it would do it in.

    Args:
        skipped: declared resources that nobody can move yet.
    """

    source: str
    target: str
    options: Options
    resources: tuple[ResourcePlan, ...]
    skipped: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """Name this plan and the world it was made for; it does not depend on the machine or the time."""
        pinned = [
            [found.address, found.spec, found.refused, [attrs.astuple(segment) for segment in found.segments]]
            for found in self.resources
        ]
        facts = [FORMAT, self.source, self.target, _decisive(self.options), pinned]
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()

    @property
    def complete(self) -> bool:
        """Whether everything would arrive."""
        return not any(found.refused or any(trouble.counts for trouble in found.troubles) for found in self.resources)

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to do."""
        active = (Action.CREATE, Action.REPLACE, Action.COMPARE, Action.DELETE)
        return not any(found.changes or any(found.actions.get(action) for action in active) for found in self.resources)

    def differences(self, now: Plan) -> tuple[str, ...]:
        """Say in sentences how another plan's world differs from this one's; nothing, if the digests are equal."""
        return tuple(_differences(self, now))

    def to_json(self) -> str:
        """Return the plan for a file."""
        return json.dumps({"format": FORMAT, "digest": self.digest, **_converter().unstructure(self)}, indent=2)

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """Read a saved plan.

        Raises:
            MigrationError: it is none, or was changed by hand.
        """
        try:
            found = json.loads(text)
            format_, digest = found.pop("format"), found.pop("digest")
            plan = _converter().structure(found, Plan) if format_ == FORMAT else None
        except Exception as exc:  # cattrs groups whatever is wrong with any field
            raise MigrationError("this is no saved plan of shiftable migrate; plan again") from exc
        if plan is None:
            raise MigrationError(f"the saved plan has format {format_!r}, this shiftable knows {FORMAT}; plan again")
        if plan.digest != digest:
            raise MigrationError("the saved plan is not what its digest says: it was changed; plan again")
        return plan


def _decisive(options: Options) -> list[object]:
    """Return the options that change what is done, not how."""
    return [
        options.overwrite,
        sorted(options.degrade),
        options.prune,
        options.prune_share,
        options.prune_limit,
        options.include_pending,
        options.history,
        options.origin,
        options.filter.facts,
        *([["apex", options.apex]] if options.apex else []),
        *([["equivalents", sorted(options.equivalents.items())]] if options.equivalents else []),
    ]


def _converter() -> JsonConverter:
    from cattrs.preconf.json import make_converter

    converter = make_converter(forbid_extra_keys=True)
    converter.register_unstructure_hook(KeyList, lambda keys: {"digest": keys.digest, "count": keys.count})
    return converter


def _differences(plan: Plan, now: Plan) -> Iterator[str]:
    if plan.digest == now.digest:
        return
    if (plan.source, plan.target) != (now.source, now.target):
        yield f"the plan moves from {plan.source} to {plan.target}, not from {now.source} to {now.target}"
        return
    if _decisive(plan.options) != _decisive(now.options):
        yield "the options are others than the plan's"
        return
    planned = {found.address: found for found in plan.resources}
    present = {found.address: found for found in now.resources}
    for address in planned | present:
        if address not in present or address not in planned:
            yield f"{address} is {'not chosen any more' if address in planned else 'not in the plan'}"
        elif (planned[address].spec, planned[address].refused) != (present[address].spec, present[address].refused):
            yield f"{address} is declared or refused otherwise than in the plan"
        else:
            found = _moved(planned[address].segments, present[address].segments)
            yield from (f"{address}: {sentence}" for sentence in found)


def _moved(planned: tuple[Segment, ...], present: tuple[Segment, ...]) -> Iterator[str]:
    before = {segment.last: segment for segment in planned}
    after = {segment.last: segment for segment in present}
    changed = [key for key in sorted({*before, *after}) if before.get(key) != after.get(key)]
    yield from (_sentence(key, before.get(key), after.get(key)) for key in changed[:_SHOWN])
    if len(changed) > _SHOWN:
        yield f"and so on, in {len(changed) - _SHOWN:,} more places"


def _sentence(key: str, before: Segment | None, after: Segment | None) -> str:
    counts = [segment.count for segment in (before, after) if segment]
    where = repr(key) if max(counts) == 1 else f"something among the {max(counts):,} items up to {key!r}"
    if before and after:
        return f"{where} changed"
    return f"{where} is new" if after else f"{where} is gone"

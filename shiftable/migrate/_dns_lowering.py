"""What of a zone's record sets another provider gets: as they are, lowered as far as was accepted, or not at all."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator

import attrs

from shiftable.dns import DnsFeatures, RecordKey, RecordSet
from shiftable.migrate.mover import Loss

__all__ = ["Lowering", "Resolve", "Wanted"]

_ADDRESSES = ("A", "AAAA")
_OFF = re.compile(r'"disabled"\s*:\s*true\b', re.IGNORECASE)

Resolve = Callable[[str, str], "RecordSet | None"]
"""Return what the source's name servers answer now for a name and a type; ``None``, if nothing. May raise OSError."""


@attrs.frozen(kw_only=True)
class Wanted:
    """What the target shall have for one or, where routing is given up, several record sets of the source.

    Args:
        record: ``None``: it cannot be there, and ``why``.
    """

    key: RecordKey
    sources: tuple[RecordSet, ...]
    record: RecordSet | None
    why: str = ""
    losses: tuple[Loss, ...] = ()


@attrs.define
class Lowering:
    """Says what a provider gets, by what it can hold and by what may be lost.

    Args:
        provider: of the target.
        degrade: facets that may be lost.
    """

    provider: str
    features: DnsFeatures
    degrade: frozenset[str]
    resolve: Resolve

    def wanted(self, records: Iterable[RecordSet]) -> Iterator[Wanted]:
        """Yield what the target shall have, in no order."""
        routed: dict[tuple[str, str], list[RecordSet]] = {}
        for record in records:
            if record.policy is None or (record.policy.provider == self.provider and self.features.policy):
                yield self._timed(record.key, (record,), record, ())
            else:
                routed.setdefault((record.name, record.type), []).append(record)
        for group in routed.values():
            yield from self._routed(group)

    def _timed(
        self, key: RecordKey, sources: tuple[RecordSet, ...], record: RecordSet, losses: tuple[Loss, ...]
    ) -> Wanted:
        """Bring the TTL into the target's limits, if that was accepted."""
        least, most = self.features.min_ttl, self.features.max_ttl
        if least.value <= record.ttl <= most.value:
            return Wanted(key=key, sources=sources, record=record, losses=losses)
        nearest = least if record.ttl < least.value else most
        if "ttl" not in self.degrade:
            why = (
                f"the TTL is {record.ttl:,} s, and the target keeps {least} to {most} ({nearest.source});"
                f" accept {nearest} with degrade 'ttl'"
            )
            loss = Loss("ttl", f"the TTL would be {nearest} s", accepted=False)
            return Wanted(key=key, sources=sources, record=None, why=why, losses=(*losses, loss))
        loss = Loss("ttl", f"the TTL is {nearest} s", accepted=True)
        lowered = attrs.evolve(record, ttl=nearest.value)
        return Wanted(key=key, sources=sources, record=lowered, losses=(*losses, loss))

    def _routed(self, group: list[RecordSet]) -> Iterator[Wanted]:
        """Lower the sets of one name and type that are answered by rules."""
        owner = group[0].policy.provider if group[0].policy else ""
        for why, loss in self._obstacles(group, owner):
            for record in group:
                yield Wanted(key=record.key, sources=(record,), record=None, why=why, losses=(loss,))
            return
        if not all(record.rdatas for record in group):
            yield from self._resolved(group, owner)
            return
        told = f"routing of {owner} is given up"
        if len(group) > 1:
            told += f": everybody gets the values of all {len(group)} sets"
        yield self._timed(
            RecordKey(group[0].name, group[0].type), tuple(group), _plain(group), (Loss("policy", told, accepted=True),)
        )

    def _obstacles(self, group: list[RecordSet], owner: str) -> Iterator[tuple[str, Loss]]:
        if any(_is_off(record) for record in group):
            what = f"it is switched off at {owner}, and a plain set would switch it on; delete it there, or leave it"
            yield what, Loss("policy", "record sets that are switched off stay where they are")
        elif not all(record.rdatas for record in group):
            if len(group) > 1:
                what = f"aliases of {owner} with routing have no values that can stand alone; write a plain set there"
                yield what, Loss("alias", "aliases with routing are not moved")
            elif "alias" not in self.degrade:
                what = (
                    f"it is an alias of {owner}, which nobody else can follow; the addresses that it has now are"
                    " written with degrade 'alias'"
                )
                yield what, Loss("alias", "an alias would become the addresses that it has now", accepted=False)
        elif "policy" not in self.degrade:
            what = f"it is answered by rules of {owner}; accept a plain set with degrade 'policy'"
            yield what, Loss("policy", f"routing of {owner} would be given up", accepted=False)

    def _resolved(self, group: list[RecordSet], owner: str) -> Iterator[Wanted]:
        """Ask for the addresses that an alias has now."""
        (record,) = group
        loss = Loss("alias", f"an alias of {owner} becomes the addresses that it has now", accepted=True)
        found = False
        for kind in (record.type,) if record.type in _ADDRESSES else _ADDRESSES:
            try:
                answer = self.resolve(record.name, kind)
            except OSError as exc:
                why = f"its addresses cannot be asked for: {exc}; name a server of the source with --ask-source"
                yield Wanted(key=record.key, sources=(record,), record=None, why=why, losses=(loss,))
                return
            if answer is not None:
                found = True
                yield self._timed(RecordKey(record.name, kind), (record,), answer, (loss,))
        if not found:
            why = f"it is an alias of {owner} that has no addresses now"
            yield Wanted(key=record.key, sources=(record,), record=None, why=why, losses=(loss,))


def _plain(group: list[RecordSet]) -> RecordSet:
    """Return a set with the values of all, each once, and the shortest of their TTLs."""
    values = {value: None for record in group for value in record.rdatas}
    first = group[0]
    return RecordSet(name=first.name, type=first.type, ttl=min(record.ttl for record in group), rdatas=tuple(values))


def _is_off(record: RecordSet) -> bool:
    """Tell whether a provider says that it does not answer with this set: its policy has no other reason to say so."""
    return record.policy is not None and _OFF.search(record.policy.data) is not None

"""Everything moves between all providers; what a target cannot keep is in the plan, and nothing else differs."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from .command import Answer, Move, facets
from .corpus import Scale, Thing, candidates
from .sides import SIDES, Side

DIRECTIONS = [*itertools.permutations(SIDES, 2)]

KINDS = {
    "content": ("data",),
    "headers": ("content_type", "cache_control", "content_disposition", "content_encoding", "content_language"),
    "metadata": ("metadata",),
    "tags": ("tags",),
    "storage class": ("storage_class",),
}
"""What an object loses, by the names that plans use."""


def held(side: Side, scale: Scale) -> dict[str, Thing]:
    """Return so many awkward objects that a provider can hold, and see that it refuses or changes the others.

    A file cannot lie where a folder does: of two such keys the first one counts.
    """
    found: dict[str, Thing] = {}
    wrong: dict[str, str] = {}
    for key, neutral in candidates(large=scale.large):
        thing = side.localized(neutral)
        why = side.holds(key, thing) or side.blocked(key, found)
        if why is None:
            found[key] = thing
        elif side.attempt(key, thing) == "kept" and not why.startswith(side.lenient):
            wrong[key] = why
        if len(found) == scale.objects:
            break
    assert wrong == {}, "the provider itself keeps what shiftable says it could not"
    return found


def differing(wanted: Thing, found: Thing) -> set[str]:
    """Return in which facets two objects differ."""
    return {kind for kind, names in KINDS.items() if any(getattr(wanted, n) != getattr(found, n) for n in names)}


def degrading(plan: Answer) -> list[str]:
    """Return the arguments that accept every loss that a plan asks about."""
    asked = {facet for _, reason in plan.named().values() for facet in facets(reason)}
    return [f"--degrade={facet}" for facet in sorted(asked)]


class Expected:
    """What the plans announce: which objects do not move, and what the others lose."""

    def __init__(self, strict: Answer, lax: Answer) -> None:
        named = strict.named()
        self.facets = {key: facets(reason) for key, (_, reason) in named.items()}
        self.stay = {key for key, found in self.facets.items() if not found}
        assert {k: v for k, v in named.items() if v[0] != "refused"} == {}
        assert set(lax.named()) == self.stay
        self.losses = lax.losses()

    def check(self, lost: Mapping[str, set[str]]) -> None:
        """See that the losses are those that were announced: object by object, or by their number and the first."""
        by_facet = {facet: {key for key, found in lost.items() if facet in found} for facet in KINDS}
        counts = {facet: len(keys) for facet, keys in by_facet.items() if keys}
        assert counts == {facet: count for facet, (count, _) in self.losses.items()}
        assert all(examples <= by_facet[facet] for facet, (_, examples) in self.losses.items())
        # What a class is called is no data: a plan tells it, and asks nobody.
        asked = {key: found - {"storage class"} for key, found in lost.items()}
        announced = {key: set(found) for key, found in self.facets.items()}
        assert {key: found for key, found in asked.items() if found != announced.get(key, set())} == {}


def compare(things: Mapping[str, Thing], found: Mapping[str, Thing], expected: Expected) -> None:
    """See that what arrived is what was sent, less exactly what was announced."""
    assert sorted(found) == sorted(set(things) - expected.stay)
    expected.check({key: differing(things[key], found[key]) for key in found})
    for key, thing in found.items():  # of what is lost, no more than must be
        assert thing.metadata.items() <= things[key].metadata.items()
        assert thing.tags.items() <= things[key].tags.items()


def flipped(data: bytes) -> bytes:
    """Change one bit in the middle."""
    at = len(data) // 2
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


@pytest.mark.parametrize(("source_name", "target_name"), DIRECTIONS, ids=[f"{a}-{b}" for a, b in DIRECTIONS])
def test_what_arrives_is_what_was_sent_less_what_the_plan_announced(
    side: Callable[[str], Side], folder: Path, scale: Scale, source_name: str, target_name: str
) -> None:
    source, target = side(source_name), side(target_name)
    things = held(source, scale)
    source.fill(things)
    untouched = source.writes()
    move = Move(source, target, folder, inside=scale.inside)

    strict = move.run()
    degrade = degrading(strict)
    lax = move.run(*degrade, "--save-plan", "plan.json")
    expected = Expected(strict, lax)
    assert target.writes() == []
    applied = move.run(*degrade, "--apply", "--no-verify", "--plan", "plan.json")

    assert set(applied.named()) == expected.stay
    assert applied.code == (1 if expected.stay else 0)
    compare(things, target.read(), expected)

    written = target.writes()
    again = move.run(*degrade, "--apply", "--no-verify")
    assert again.results[0]["changed"] == 0
    assert target.writes() == written

    victim = next(key for key in sorted(things) if key not in expected.stay and things[key].data)
    target.tamper(victim, flipped(things[victim].data))
    verified = move.run(*degrade, "--verify")
    troubles = {key: trouble for key, (trouble, _) in verified.named().items()}
    assert troubles == dict.fromkeys(expected.stay, "missing") | {victim: "differs"}
    assert verified.results[0]["resources"][0]["verified"]["count"] == len(things) - len(troubles)
    assert source.writes() == untouched

"""The same rotations on the stores of all providers, whose doubles speak to the real clients."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta

import pytest

import shiftable
from shiftable.errors import Conflict, OperationError
from shiftable.secrets.driver import SecretsDriver
from shiftable.testing.harness import Double, Kind

from .world import Alternating, Clock, Killed, World, accepts, kill

GRACE = timedelta(seconds=30)
"""Short: time at a double only goes on, and doubles refuse signatures that are a quarter of an hour old."""

NEEDS = {"aws": "moto", "azure": "azure.keyvault.secrets", "gcp": "google.auth", "vault": "hvac"}


class DoubleClock(Clock):
    """The time at a double."""

    def __init__(self, double: Double) -> None:
        self.double = double

    def __call__(self) -> datetime:
        return self.double.clock.now()

    def advance(self, by: timedelta) -> None:
        self.double.clock.advance(by)


@pytest.fixture(params=sorted(NEEDS))
def made(request: pytest.FixtureRequest) -> Iterator[Callable[[str], World]]:
    """Make worlds whose secrets lie below a prefix of their own, all in one store."""
    name: str = request.param
    pytest.importorskip(NEEDS[name], reason=f"this store needs shiftable's provider for {name}, with [testing]")
    double = request.getfixturevalue("shiftable_double")(name)
    with shiftable.connect("baremetal" if name == "vault" else name, **double.config) as cloud:
        driver = cloud.secrets.unwrap(SecretsDriver)  # type: ignore[type-abstract]  # whichever it is

        def world(prefix: str) -> World:
            return World(driver, DoubleClock(double), grace=GRACE, prefix=prefix)

        yield world


def test_a_whole_rotation(made: Callable[[str], World]) -> None:
    world = made("shop")
    world.begin()
    for turn in range(3):
        before = world.look()
        assert ("create", "set", "test", "finish") == world.rotation().run(now=True).steps
        world.check()
        assert () == world.rotation().run().steps
        assert "ba"[turn % 2] == world.look()[0]
        world.clock.advance(2 * GRACE + timedelta(seconds=1))
        assert ("retire",) == world.rotation().run().steps
        assert not accepts(world.target, before)
        assert accepts(world.target, world.plain.get("key").reveal())
        assert () == world.rotation().run().steps


@pytest.mark.parametrize("retire", [False, True], ids=["rotate", "retire"])
def test_a_run_that_is_killed_at_any_point_is_gone_on_with(made: Callable[[str], World], *, retire: bool) -> None:
    number, was_killed = 0, True
    while was_killed:
        world = made(f"shop-{number}")
        world.begin()
        if retire:
            world.rotation().run(now=True)
            world.clock.advance(2 * GRACE + timedelta(seconds=1))
        world.again({number: kill})
        was_killed = False
        try:
            world.rotation().run(now=not retire)
        except Killed:
            was_killed = True
        assert accepts(world.target, world.plain.get("key").reveal())
        world.again()
        world.rotation().run(now=not retire)
        assert accepts(world.target, world.plain.get("key").reveal())
        assert "b" == world.plain.get("key").reveal()[0]
        assert accepts(world.target, "a:first") is not retire
        assert () == world.rotation().run(now=not retire).steps
        number += 3
    assert number > 9, "it was killed more than a few times"


@pytest.mark.parametrize("kind", ["drop_before", "drop_after", "truncate"])
def test_a_call_whose_answer_is_lost_keeps_nothing_from_its_end(made: Callable[[str], World], *, kind: Kind) -> None:
    """The client asks again, or the run fails and the next one goes on: either way there is one new version."""
    number, met = 0, True
    while met:
        world = made(f"shop-{number}")
        world.begin()
        double, calls = world.clock.double, itertools.count()  # type: ignore[attr-defined]  # a DoubleClock
        wanted = number
        injection = double.inject(kind, match=lambda _, calls=calls, wanted=wanted: next(calls) == wanted)
        with contextlib.suppress(OperationError):
            world.rotation().run(now=True)
        met = bool(injection.hits)
        injection.times = 0
        world.rotation().run(now=True)
        world.check()
        assert "b" == world.plain.get("key").reveal()[0]
        assert 2 == len(list(world.plain.history("key"))), "what was stored is stored once"
        number += 4
    assert number > 8, "it met more than a few calls"


def test_of_two_that_begin_at_once_one_wins(made: Callable[[str], World]) -> None:
    """The other one begins where the first one has looked and not yet stored."""
    world = made("shop")
    world.begin()
    other = made("shop")
    other.target = world.target

    def meanwhile() -> None:
        other.rotation().run(now=True)

    world.again({_point(made, "before put"): meanwhile})
    with pytest.raises(Conflict, match="another run is at work on it and was faster"):
        world.rotation().run(now=True)
    assert accepts(world.target, world.plain.get("key").reveal())
    assert 2 == sum(bool(version.stages) for version in world.plain.history("key"))


def _point(made: Callable[[str], World], name: str) -> int:
    twin = made("twin")
    twin.begin()
    twin.again()
    twin.rotation().run(now=True)
    return twin.seen.index(name)


def test_a_pending_version_that_waited_is_stored_again(made: Callable[[str], World]) -> None:
    world = made("shop")
    world.begin()
    world.again({_point(made, "test"): kill})
    with contextlib.suppress(Killed):
        world.rotation().run(now=True)
    waited = world.plain.get("key", stage="pending")
    world.clock.advance(GRACE + timedelta(seconds=2))
    assert ("set", "test", "finish") == world.rotation().run().steps
    current = world.plain.get("key")
    assert waited.reveal() == current.reveal()
    assert waited.version != current.version
    assert isinstance(world.rotation(Alternating).status().retire_at, datetime)

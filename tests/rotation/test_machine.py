"""Rotations end, lose their connection or meet each other at every point, and nobody is ever locked out."""

from __future__ import annotations

import contextlib
import functools
import traceback
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shiftable import sops
from shiftable.errors import ConfigError, Conflict, InvalidArgument, NotFound, Timeout, Unavailable, Unsupported
from shiftable.masking import Masked
from shiftable.memory.secrets import FEATURES, MemorySecretsDriver
from shiftable.rotation import RandomToken, Rotation
from shiftable.secrets import Secrets, SecretsSpec
from shiftable.secrets.driver import SecretsDriver
from shiftable.secrets.rotator import EXPOSED_LABEL, Absent
from shiftable.testing.wrap import Recorded

from .world import GRACE, START, Alternating, Clock, Killed, MemoryTarget, Single, Users, World, accepts, drop, kill

ENDS: dict[str, Callable[[], None]] = {"killed": kill, "dropped": drop}
EVERY = timedelta(days=30)


def memory(**options: Any) -> World:
    clock = Clock()
    return World(MemorySecretsDriver(clock=clock, page_size=2), clock, **options)


@functools.cache
def identity() -> tuple[Masked, str]:
    return sops.generate_identity()


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], World]:
    baremetal = pytest.importorskip("shiftable_baremetal.secrets", reason="files need shiftable-baremetal")
    private, public = identity()
    monkeypatch.setenv("SHIFTABLE_AGE_KEY", private.reveal())
    numbers = iter(range(10**6))

    def made() -> World:
        clock = Clock()
        root = tmp_path / str(next(numbers))
        driver = baremetal.SopsDriver(root, (public,), clock=clock)
        driver.create(SecretsSpec(name="shop"))
        return World(driver, clock)

    return made


def length(kind: type[Users], *, retire: bool) -> int:
    """Count the points of a whole run."""
    world = memory()
    world.begin()
    if retire:
        world.rotation(kind).run(now=True)
        world.clock.advance(2 * GRACE)
    world.again()
    world.rotation(kind).run(now=not retire)
    return len(world.seen)


def points(kind: type[Users]) -> list[Any]:
    cases = [(retire, number) for retire in (False, True) for number in range(length(kind, retire=retire))]
    return [pytest.param(*case, id=f"{'retire' if case[0] else 'rotate'}-{case[1]}") for case in cases]


# a run, whole


def test_a_rotation_goes_through_its_steps_and_the_old_credential_ends_after_the_grace() -> None:
    world = memory()
    world.begin()
    told: list[str] = []
    outcome = world.rotation().run(now=True, on_step=told.append)
    assert ("create", "set", "test", "finish") == outcome.steps == tuple(told)
    new = world.look()
    assert "a:first" != new
    assert accepts(world.target, new)
    assert accepts(world.target, "a:first")
    world.clock.advance(2 * GRACE - timedelta(seconds=1))
    assert () == world.rotation().run().steps
    assert accepts(world.target, "a:first")
    world.clock.advance(timedelta(seconds=1))
    assert ("retire",) == world.rotation().run().steps
    assert not accepts(world.target, "a:first")
    assert accepts(world.target, new)
    with pytest.raises(Conflict):
        world.plain.get("key", stage="previous")


@pytest.mark.parametrize("now", [True, False], ids=["asked", "due"])
def test_a_second_run_right_after_changes_nothing(*, now: bool) -> None:
    world = memory()
    world.begin()
    world.clock.advance(EVERY)
    world.rotation(every=EVERY).run(now=now)
    world.recorded.calls.clear()
    before = world.target.read()
    outcome = world.rotation(every=EVERY).run(now=now)
    assert () == outcome.steps
    assert {"get", "history"} == {call.name for call in world.recorded.calls}
    assert before == world.target.read()
    assert ("the version before may be in use until 2026-03-31 02:00:00Z" if now else "") == outcome.before.held


def test_force_retires_the_version_before_at_once_and_begins_anew() -> None:
    world = memory()
    world.begin()
    world.rotation().run(now=True)
    second = world.look()
    outcome = world.rotation().run(now=True, force=True)
    assert ("retire", "create", "set", "test", "finish") == outcome.steps
    assert not accepts(world.target, "a:first")
    assert accepts(world.target, second)
    assert accepts(world.target, world.look())


def test_without_a_grace_the_old_credential_ends_with_the_rotation() -> None:
    world = memory(grace=timedelta(0))
    world.begin()
    assert ("create", "set", "test", "finish", "retire") == world.rotation().run(now=True).steps
    assert not accepts(world.target, "a:first")
    assert accepts(world.target, world.plain.get("key").reveal())


def test_what_a_test_refuses_does_not_become_current_and_the_next_run_goes_on_with_it() -> None:
    world = memory()
    world.begin()
    lost = world.target.read()
    world.again()
    ahead = list(_names(world))
    world.again({ahead.index("was set"): lambda: world.target.write(lost)})
    with pytest.raises(
        Exception, match=r"rotation.test on secret 'key' in prefix 'shop' \(test-alternating\): refused"
    ):
        world.rotation().run(now=True)
    assert "a:first" == world.plain.get("key").reveal()
    pending = world.plain.get("key", stage="pending")
    assert ("set", "test", "finish") == world.rotation().run().steps
    assert pending.version == world.plain.get("key").version


def _names(world: World) -> list[str]:
    """Return the points that a run would have."""
    twin = memory(grace=world.grace)
    twin.begin()
    twin.again()
    twin.rotation().run(now=True)
    return twin.seen


# what is due


def test_a_version_is_due_when_it_is_old_enough() -> None:
    world = memory()
    world.begin()
    world.clock.advance(EVERY - timedelta(seconds=1))
    status = world.rotation(every=EVERY).status()
    assert ("", START + EVERY, ()) == (status.due, status.next_due, status.steps)
    world.clock.advance(timedelta(seconds=1))
    status = world.rotation(every=EVERY).status()
    assert "it was made at 2026-03-01 00:00Z, and lasts 30 days" == status.due
    assert ("create", "set", "test", "finish") == status.steps


def test_a_version_is_due_before_it_expires_and_the_next_one_lives_as_long() -> None:
    world = memory()
    world.begin()
    world.plain.update("key", expires=START + EVERY)
    world.clock.advance(EVERY - timedelta(days=2))
    assert "" == world.rotation(before=timedelta(days=1)).status().due
    world.clock.advance(timedelta(days=1))
    assert "it expires at 2026-03-31 00:00Z" == world.rotation(before=timedelta(days=1)).status().due
    world.rotation(before=timedelta(days=1)).run()
    assert world.clock() + EVERY == world.plain.get("key").expires
    assert "" == world.rotation(before=timedelta(days=1)).status().due


def test_an_exposed_version_is_due_until_it_is_replaced() -> None:
    world = memory()
    world.begin()
    world.clock.advance(timedelta(days=1))
    world.plain.update("key", labels={EXPOSED_LABEL: world.clock().isoformat()})
    world.clock.advance(timedelta(seconds=1))
    assert "it was exposed at 2026-03-02 00:00Z" == world.rotation().status().due
    world.rotation().run()
    assert "" == world.rotation().status().due
    assert {EXPOSED_LABEL: "2026-03-02T00:00:00+00:00"} == dict(world.plain.get("key").labels)


def test_after_a_rollback_nothing_is_begun_or_retired_unless_it_is_forced() -> None:
    world = memory()
    world.begin()
    first = world.plain.get("key").version
    world.clock.advance(EVERY)
    world.rotation(every=EVERY).run()
    world.plain.promote("key", first)
    world.clock.advance(EVERY)
    outcome = world.rotation(every=EVERY).run()
    assert () == outcome.steps
    assert "went back to version" in outcome.before.held
    assert () == world.rotation(every=EVERY).run(now=True).steps
    assert ("create", "set", "test", "finish") == world.rotation(every=EVERY).run(now=True, force=True).steps


def test_a_pending_version_that_waited_is_stored_again_so_that_the_grace_begins_when_it_is_current() -> None:
    world = memory()
    world.begin()
    world.again()
    ahead = _names(world)
    world.again({ahead.index("test"): kill})
    with pytest.raises(Killed):
        world.rotation().run(now=True)
    waited = world.plain.get("key", stage="pending")
    world.clock.advance(10 * GRACE)
    world.rotation().run()
    current = world.plain.get("key")
    assert (waited.reveal(), world.clock()) == (current.reveal(), current.created)
    enabled = {version.version: version.enabled for version in world.plain.history("key")}
    assert [True, False, True] == list(enabled.values())
    assert enabled[waited.version] is False, "what has no stage any more can no longer be read"
    world.clock.advance(GRACE)
    assert () == world.rotation().run().steps
    assert accepts(world.target, "a:first")


# runs that end


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize(("retire", "point"), points(Alternating))
def test_a_run_that_ends_at_any_point_is_gone_on_with(end: str, *, retire: bool, point: int) -> None:
    _ends_and_goes_on(memory(), Alternating, ENDS[end], point, retire=retire)


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize(("retire", "point"), points(Single))
def test_a_single_user_comes_through_any_end_as_well(end: str, *, retire: bool, point: int) -> None:
    _ends_and_goes_on(memory(), Single, ENDS[end], point, retire=retire)


@pytest.mark.parametrize(("retire", "point"), points(Alternating))
def test_the_same_on_files(files: Callable[[], World], *, retire: bool, point: int) -> None:
    _ends_and_goes_on(files(), Alternating, kill, point, retire=retire)


def _ends_and_goes_on(world: World, kind: type[Users], end: Callable[[], None], point: int, *, retire: bool) -> None:
    world.begin()
    if retire:
        world.rotation(kind).run(now=True)
        world.clock.advance(2 * GRACE)
    world.again({point: end})
    with pytest.raises((Killed, Unavailable)):
        world.rotation(kind).run(now=not retire)
    if kind is Alternating:
        world.check()
    world.again()
    world.rotation(kind).run(now=not retire)
    world.check() if kind is Alternating else world.look()
    found = list(world.plain.history("key"))
    assert 2 == sum(bool(version.stages) for version in found)
    assert 2 == len(found), "a run that ends leaves no version behind, and the next one makes none where one was made"
    assert accepts(world.target, world.plain.get("key").reveal())
    assert () == world.rotation(kind).run(now=not retire).steps
    if retire:
        assert not accepts(world.target, "a:first")
        assert [True, False] == [version.enabled for version in found]


ACTIONS = st.lists(
    st.tuples(
        st.sampled_from(("run", "now", "force")),
        st.one_of(st.none(), st.tuples(st.integers(0, 60), st.sampled_from(sorted(ENDS)))),
        st.sampled_from((timedelta(0), timedelta(minutes=40), GRACE, 2 * GRACE, EVERY)),
    ),
    max_size=12,
)


@given(ACTIONS)
@settings(max_examples=300, derandomize=True, database=None)
def test_whatever_was_current_within_the_grace_is_never_refused(actions: list[Any]) -> None:
    _survives(memory(), actions)


@given(ACTIONS)
@settings(max_examples=12, derandomize=True, database=None)
def _on_files(make: Callable[[], World], actions: list[Any]) -> None:
    _survives(make(), actions)


def test_nor_on_files(files: Callable[[], World]) -> None:
    _on_files(files)


def _survives(world: World, actions: list[Any]) -> None:
    world.begin()
    for how, end, wait in actions:
        world.again({end[0]: ENDS[end[1]]} if end else {})
        with contextlib.suppress(Killed, Unavailable):
            world.rotation(every=EVERY).run(now=how != "run", force=how == "force")
        if how == "force":  # what is forced ends the value before early, as its user was told
            world.was_current.clear()
        world.check()
        world.clock.advance(wait)
        world.check()
    world.again()
    world.rotation(every=EVERY).run()
    world.check()
    assert "pending" not in {stage for version in world.plain.history("key") for stage in version.stages}


# runs that meet


def _meet(world: World, point: int, other: Callable[[], None], *, now: bool = True) -> None:
    """Let another run happen at a point of this one, which may say that the other was faster, and nothing else."""

    def meanwhile() -> None:
        with contextlib.suppress(Conflict, Timeout):
            other()

    world.again({point: meanwhile})
    try:
        world.rotation().run(now=now)
    except Conflict as exc:
        if "another run is at work on it and was faster" not in str(exc):
            raise


@pytest.mark.parametrize("point", range(length(Alternating, retire=False)))
def test_of_two_runs_at_once_one_wins_and_both_leave_one_new_version(point: int) -> None:
    world = memory()
    world.begin()

    def other() -> None:
        world.rotation().run(now=True)

    _meet(world, point, other)
    world.again()
    world.rotation().run(now=True)
    world.check()
    assert 2 == len([version for version in world.plain.history("key") if version.stages])
    assert accepts(world.target, world.plain.get("key").reveal())
    assert "b:" == world.plain.get("key").reveal()[:2], "one rotation took place, not two"


def test_the_loser_of_two_that_begin_at_once_says_so_and_gives_up_what_it_made() -> None:
    world = memory()
    world.begin()
    given_up: list[str] = []

    @attrs.frozen(kw_only=True)
    class Discarding(Alternating):
        def discard(self, value: Masked) -> None:
            given_up.append(value.reveal())

    def other() -> None:
        assert "finish" in world.rotation().run(now=True).steps

    world.again({_names(world).index("before put"): other})
    with pytest.raises(Conflict, match="another run is at work on it and was faster; nothing more was done here"):
        world.rotation(Discarding).run(now=True)
    assert 1 == len(given_up)
    assert not accepts(world.target, given_up[0])
    world.check()


class ForgetsConditions(MemorySecretsDriver):
    """A store that reads before it writes, and two of which have read the same."""

    def put(self, name: str, value: Any, **options: Any) -> Any:
        return super().put(name, value, **{**options, "if_match": None})


def test_the_idempotency_key_lets_one_win_where_a_store_only_reads_before_it_writes() -> None:
    clock = Clock()
    world = World(ForgetsConditions(clock=clock), clock)
    world.begin()

    def other() -> None:
        inner = World(world.driver, clock, world.target)
        inner.again({_names(inner).index("after put"): kill})
        with pytest.raises(Killed):
            inner.rotation().run(now=True)

    world.again({_names(world).index("before put"): other})
    with pytest.raises(Conflict, match="was faster"):
        world.rotation().run(now=True)
    assert 2 == len(list(world.plain.history("key")))


@pytest.mark.parametrize("point", range(length(Alternating, retire=False)))
def test_a_run_that_slept_while_others_went_on_undoes_nothing(point: int) -> None:
    world = memory()
    world.begin()
    world.was_current.clear()

    def other() -> None:
        for wait in (2 * GRACE, 2 * GRACE, timedelta(0)):
            world.rotation().run(now=True)
            world.clock.advance(wait)

    _meet(world, point, other)
    world.check()
    assert accepts(world.target, world.plain.get("key").reveal())


@pytest.mark.parametrize("point", range(length(Alternating, retire=True)))
def test_a_retirement_that_slept_does_not_lock_out_the_user_whose_turn_it_is_again(point: int) -> None:
    world = memory()
    world.begin()
    world.rotation().run(now=True)
    world.clock.advance(2 * GRACE)

    def other() -> None:
        world.rotation().run()
        world.rotation().run(now=True)
        world.look()

    _meet(world, point, other, now=False)
    world.check()


def test_a_secret_that_changes_whenever_it_is_read_is_told_and_not_guessed() -> None:
    world = memory()
    world.begin()

    def changing(_call: Any, proceed: Callable[[], Any]) -> Any:
        world.plain.put("key", f"a:{len(world.seen)}")
        world.seen.append("changed")
        return proceed()

    world.recorded.on("history", changing)
    with pytest.raises(Conflict, match="it changes whenever it is read; look again"):
        world.rotation().run(now=True)


def test_a_change_between_two_reads_is_read_again() -> None:
    world = memory()
    world.begin()
    once = iter([lambda: world.plain.put("key", "a:second")])

    def changing(_call: Any, proceed: Callable[[], Any]) -> Any:
        for change in once:
            change()
        return proceed()

    world.target.write({"a": ["second"]})
    world.recorded.on("history", changing)
    assert world.plain.get("key").version != world.rotation().status().current
    assert world.plain.get("key").version == world.rotation().status().current


def test_a_pending_version_that_somebody_disabled_is_replaced() -> None:
    world = memory()
    world.begin()
    given_up = world.plain.put("key", f"b:{'x' * 20}", stage="pending")
    world.plain.disable("key", given_up.version)
    assert ("create", "set", "test", "finish") == world.rotation().run().steps
    assert given_up.version not in (world.plain.get("key").version, world.plain.get("key", stage="previous").version)
    assert accepts(world.target, world.plain.get("key").reveal())


def test_a_secret_that_is_deleted_meanwhile_is_missing_and_nothing_is_changed() -> None:
    world = memory()
    world.begin()
    before = world.target.read()
    world.again({_names(world).index("set"): lambda: world.plain.delete("key")})
    with pytest.raises(NotFound):
        world.rotation().run(now=True)
    assert before == world.target.read()


# what is refused


def test_a_store_without_stages_or_conditions_is_refused() -> None:
    poor = attrs.evolve(FEATURES, pending=False, if_match=False)
    store = Secrets(Recorded(MemorySecretsDriver(), features=poor).driver).store("shop")
    wanted = "no pending versions and no compare-and-swap writes of secrets, which rotation stands on"
    with pytest.raises(Unsupported, match=wanted):
        Rotation(store, "key", RandomToken()).run(now=True)


def test_a_kind_that_is_not_installed_says_so_when_it_is_used() -> None:
    store = Secrets(MemorySecretsDriver()).store("shop")
    for act in ("status", "run"):
        with pytest.raises(ConfigError, match='pip install "shiftable-x"'):
            getattr(Rotation(store, "key", Absent(reason='pip install "shiftable-x"')), act)()


def test_a_value_of_another_kind_is_refused_without_showing_it() -> None:
    world = memory()
    world.plain.put("key", "canary-without-a-colon")
    with pytest.raises(
        InvalidArgument, match="the value is none that test-alternating replaces: it has no colon"
    ) as caught:
        world.rotation().run(now=True)
    assert "canary" not in "".join(traceback.format_exception(caught.value))


@attrs.frozen(kw_only=True)
class Telling(Alternating):
    """A target whose errors tell what it was given."""

    def set(self, new: Masked, old: Masked, confirm: Callable[[], object]) -> None:
        word = new.reveal()
        raise Unavailable(f"cannot set {word}")


def test_an_error_of_the_target_shows_no_value_and_keeps_no_frame_that_holds_it() -> None:
    world = memory()
    world.begin()
    with pytest.raises(Unavailable, match="is withheld, because it shows the value") as caught:
        world.rotation(Telling).run(now=True)
    pending = world.plain.get("key", stage="pending").reveal()
    assert pending
    frames = [frame for frame, _ in traceback.walk_tb(caught.value.__traceback__)]
    assert not any("word" in frame.f_locals for frame in frames)
    assert pending not in "".join(traceback.format_exception(caught.value))


def test_a_secret_that_is_not_there_is_made_only_when_asked_and_by_kinds_that_can() -> None:
    world = memory()
    token = Rotation(world.store, "token", RandomToken(length=50), world.clock)
    assert () == token.run().steps
    assert "there is no such secret yet" == token.status().due
    assert ("create", "finish") == token.run(now=True).steps
    assert 50 == len(world.plain.get("token").reveal())
    with pytest.raises(Conflict, match="it begins from something"):
        world.rotation(Single).run(now=True)


def test_a_store_that_cannot_disable_a_version_keeps_a_label_of_what_is_retired() -> None:
    clock = Clock()
    driver: SecretsDriver = MemorySecretsDriver(clock=clock)
    poor = attrs.evolve(FEATURES, disable=False, update=True)
    store = Secrets(Recorded(driver, features=poor).driver).store("shop")
    target = MemoryTarget({"a": ["first"]})
    store.put("key", "a:first", labels={"team": "core"})
    rotation = Rotation(store, "key", Alternating(target=target, grace=GRACE), clock)
    rotation.run(now=True)
    clock.advance(2 * GRACE)
    assert ("retire",) == rotation.run().steps
    previous = store.get("key", stage="previous").version
    assert {"team": "core", "shiftable-retired": previous} == dict(store.get("key").labels)
    assert () == rotation.run().steps
    assert ("create", "set", "test", "finish") == rotation.run(now=True).steps

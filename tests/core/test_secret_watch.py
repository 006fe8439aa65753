"""A watch tells each value that a secret gets, outlasts outages, and ends when it is stopped."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shiftable.errors import (
    Conflict,
    Fault,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    Throttled,
    Unavailable,
    Unsupported,
)
from shiftable.memory.secrets import FEATURES, MemorySecretsDriver
from shiftable.secrets import Secret, Secrets, SecretStore, SecretWatch
from shiftable.secrets.driver import SecretsDriver
from shiftable.testing.wrap import Call, Injected, Recorded, fault

EVERY = timedelta(seconds=30)


@pytest.fixture
def recorded() -> Recorded[SecretsDriver]:
    return Recorded[SecretsDriver](MemorySecretsDriver())


@pytest.fixture
def store(recorded: Recorded[SecretsDriver]) -> SecretStore:
    return Secrets(recorded.driver).store("shop")


@attrs.define
class Pauses:
    """Passes the time at once, does in each pause what a test wants, and stops when there is no more to do."""

    script: list[Callable[[], object]]
    lasted: list[float] = attrs.Factory(list)

    def __call__(self, seconds: float) -> bool:
        self.lasted.append(seconds)
        if not self.script:
            return True
        self.script.pop(0)()
        return False


def watched(
    store: SecretStore, *script: Callable[[], object], keys: tuple[str, ...] = ("key",), **options: Any
) -> tuple[list[str], list[float]]:
    """Return the values that a watch tells, and its pauses."""
    pauses = Pauses(list(script))
    watch = SecretWatch(store, keys, every=EVERY, wait=pauses, **{"chance": lambda: 0.5, **options})
    return [secret.reveal() for secret in watch], pauses.lasted


def nothing() -> None:
    """Let a pause pass."""


def test_it_begins_with_the_present_value_and_tells_each_new_one(store: SecretStore) -> None:
    store.put("key", "one")
    values, pauses = watched(
        store, nothing, lambda: store.put("key", "two"), nothing, lambda: store.put("key", "three")
    )
    assert ["one", "two", "three"] == values
    assert [30.0] * 5 == pauses


def test_what_is_known_already_is_no_news(store: SecretStore) -> None:
    one = store.put("key", "one")
    assert ["two"] == watched(store, nothing, lambda: store.put("key", "two"), since=[one])[0]
    assert ["two"] == watched(store, nothing, nothing, since=[one])[0]


def test_labels_pending_versions_and_promotions_of_the_current_one_are_no_news(store: SecretStore) -> None:
    version = store.put("key", "one").version
    script: list[Callable[[], object]] = [
        lambda: store.update("key", labels={"team": "core"}),
        lambda: store.put("key", "two", stage="pending"),
        lambda: store.promote("key", version),
    ]
    assert ["one"] == watched(store, *script)[0]


def test_a_promotion_and_a_rollback_are_told(store: SecretStore) -> None:
    old = store.put("key", "old")
    new = store.put("key", "new", stage="pending")
    script = (lambda: store.promote("key", new.version), lambda: store.promote("key", old.version))
    assert ["old", "new", "old"] == watched(store, *script)[0]


def test_a_version_with_the_same_value_is_told(store: SecretStore) -> None:
    store.put("key", "same")
    assert ["same", "same"] == watched(store, lambda: store.put("key", "same"))[0]


def test_another_stage_can_be_watched(store: SecretStore) -> None:
    store.put("key", "one")
    store.put("key", "two", stage="pending")
    values, _ = watched(store, lambda: store.put("key", "three", stage="pending"), stage="pending")
    assert ["two", "three"] == values


def test_several_secrets_are_told_in_the_order_of_their_keys(store: SecretStore) -> None:
    for key in ("a", "b"):
        store.put(key, f"{key}1")

    def change() -> None:
        store.put("b", "b2")
        store.put("a", "a2")

    assert ["b1", "a1", "b2", "a2"] == watched(store, change, keys=("b", "a", "b"))[0]


def test_the_first_reading_raises_what_it_meets(recorded: Recorded[SecretsDriver], store: SecretStore) -> None:
    with pytest.raises(NotFound):
        next(store.watch("missing"))
    with pytest.raises(NotFound):
        store.watch("missing").start(print)
    recorded.on("get", fault(Unavailable))
    with pytest.raises(Unavailable):
        next(store.watch("key"))


def test_it_outlasts_an_outage_and_asks_ever_more_rarely(
    recorded: Recorded[SecretsDriver], store: SecretStore, caplog: pytest.LogCaptureFixture
) -> None:
    store.put("key", "one")

    def fail() -> None:
        store.put("key", "two")
        recorded.on("get", fault(Unavailable, times=6))

    with caplog.at_level(logging.INFO):
        values, pauses = watched(store, fail, *[nothing] * 7)
    assert ["one", "two"] == values
    assert [30, 60, 120, 240, 300, 300, 300, 30, 30] == pauses
    assert ["key cannot be read (Unavailable)", "key can be read again"] == [
        record.getMessage() for record in caplog.records
    ]


def test_a_pause_that_the_provider_asks_for_is_kept(recorded: Recorded[SecretsDriver], store: SecretStore) -> None:
    store.put("key", "one")

    def throttle(call: Call, proceed: Callable[[], Any]) -> Any:
        raise Injected(Fault(Throttled, "slow down", retry_after=1000))

    script = (lambda: recorded.on("get", throttle), lambda: recorded.on("get", fault(Unavailable, times=0)), nothing)
    assert [30, 1000, 30, 30] == watched(store, *script)[1]


@pytest.mark.parametrize("error", [NotFound, Conflict, PermissionDenied])
def test_a_secret_that_is_away_may_come_back_and_is_asked_for_as_often(
    recorded: Recorded[SecretsDriver], store: SecretStore, error: type[Any], caplog: pytest.LogCaptureFixture
) -> None:
    store.put("key", "one")

    def fail() -> None:
        recorded.on("get", fault(error, times=3))
        store.put("key", "two")

    values, pauses = watched(store, fail, *[nothing] * 4)
    assert ["one", "two"] == values
    assert [30] * 6 == pauses
    assert ["key cannot be read (made up by a test)"] == [record.getMessage() for record in caplog.records]


def test_a_secret_that_is_away_does_not_hide_the_others(store: SecretStore) -> None:
    store.put("a", "a1")
    store.put("b", "b1")
    script: tuple[Callable[[], object], ...] = (lambda: store.delete("a"), lambda: store.put("b", "b2"))
    assert ["a1", "b1", "b2"] == watched(store, *script, keys=("a", "b"))[0]


def test_a_secret_made_anew_is_told_even_if_its_versions_have_the_same_ids(store: SecretStore) -> None:
    class Numbered(MemorySecretsDriver):
        """Numbers the versions of each secret from 1, as some providers do."""

        def get(self, name: str, **options: Any) -> Secret:
            return attrs.evolve(super().get(name, **options), version="1")

    store = Secrets(Numbered()).store("shop")
    store.put("key", "one")

    def anew() -> None:
        store.purge("key")
        store.put("key", "two")

    assert ["one", "two"] == watched(store, anew)[0]


@given(chance=st.floats(0, 1), failures=st.integers(0, 3000))
def test_a_pause_is_never_longer_nor_shorter_than_it_may_be(chance: float, failures: int) -> None:
    store = Secrets(MemorySecretsDriver()).store("shop")
    watch = SecretWatch(store, ["key"], every=EVERY, chance=lambda: chance)
    watch._failures = failures
    assert 24 <= watch._pause() <= 360


def test_it_is_stopped_in_the_middle_of_a_pause(store: SecretStore) -> None:
    store.put("key", "one")
    watch = store.watch("key", every=timedelta(days=1))
    found: list[str] = []
    reader = threading.Thread(target=lambda: found.extend(secret.reveal() for secret in watch))
    reader.start()
    watch.stop()
    watch.stop()
    reader.join(60)
    assert not reader.is_alive()
    assert [] == list(watch)


def test_a_callback_is_called_from_a_thread_until_the_end_of_the_block(store: SecretStore) -> None:
    store.put("key", "one")
    told, threads, arrived = list[str](), set[bool](), threading.Semaphore(0)

    def callback(secret: Secret) -> None:
        told.append(secret.reveal())
        threads.add(threading.current_thread() is threading.main_thread())
        arrived.release()

    with store.watch("key", every=timedelta(milliseconds=1)).start(callback) as watch:
        assert arrived.acquire(timeout=60)
        store.put("key", "two")
        assert arrived.acquire(timeout=60)
    assert (["one", "two"], {False}) == (told, threads)
    assert watch._thread is not None
    assert not watch._thread.is_alive()


def test_a_callback_that_fails_hears_of_the_next_change_too(
    store: SecretStore, caplog: pytest.LogCaptureFixture
) -> None:
    store.put("key", "canary-4b825dc6")
    arrived = threading.Semaphore(0)

    def callback(secret: Secret) -> None:
        arrived.release()
        raise ValueError(secret.reveal())

    with store.watch("key", every=timedelta(milliseconds=1)).start(callback):
        assert arrived.acquire(timeout=60)
        store.put("key", "canary-5eb9a060")
        assert arrived.acquire(timeout=60)
    assert ["the callback for key failed with ValueError"] * 2 == [record.getMessage() for record in caplog.records]
    assert "canary" not in caplog.text


def test_a_watch_is_started_once(store: SecretStore) -> None:
    one = store.put("key", "one")
    watch = store.watch("key", every=timedelta(days=1), since=[one])
    with watch.start(print), pytest.raises(RuntimeError, match="make another one"):
        watch.start(print)


def test_a_callback_may_stop_its_own_watch(store: SecretStore) -> None:
    store.put("key", "one")
    done = threading.Event()

    def callback(secret: Secret) -> None:
        with watch:
            pass
        done.set()

    watch = store.watch("key", every=timedelta(days=1))
    watch.start(callback)
    assert done.wait(60)


def test_what_cannot_be_watched_is_refused_before_anything_is_read(
    recorded: Recorded[SecretsDriver], store: SecretStore
) -> None:
    for keys in (("/a",), ("a", "")):
        with pytest.raises(InvalidArgument):
            store.watch(*keys)
    with pytest.raises(ValueError, match="positive"):
        store.watch("a", every=timedelta(0))
    less = Recorded[SecretsDriver](MemorySecretsDriver(), features=attrs.evolve(FEATURES, pending=False))
    with pytest.raises(Unsupported):
        Secrets(less.driver).store("shop").watch("a", stage="pending")
    assert [] == recorded.calls == less.calls


def test_a_watch_shows_no_value(store: SecretStore) -> None:
    one = store.put("key", "canary-4b825dc6")
    assert "<SecretWatch of key in <SecretStore 'shop' on memory>>" == repr(store.watch("key", since=[one]))


@given(
    changes=st.lists(st.sampled_from(("put", "delete", "restore", "fail", "pass")), max_size=30),
)
def test_each_value_that_stays_is_told_once_and_in_order(changes: list[str]) -> None:
    recorded = Recorded[SecretsDriver](MemorySecretsDriver())
    store = Secrets(recorded.driver).store("shop")
    store.put("key", "0")
    expected, living = ["0"], True

    def script() -> Iterator[Callable[[], object]]:
        nonlocal living
        value, told = "0", "0"
        for number, change in enumerate(changes, 1):
            reachable = change != "fail"
            match change:
                case "put" if living:
                    value = str(number)
                    yield partial(store.put, "key", value)
                case "delete" if living:
                    living = False
                    yield lambda: store.delete("key")
                case "restore" if not living:
                    living = True
                    yield lambda: store.restore("key")
                case "fail":
                    yield lambda: recorded.on("get", fault(Unavailable, times=1))
                case _:
                    yield nothing
            if living and reachable and value != told:
                told = value
                expected.append(value)

    steps = script()
    ended = False

    def wait(seconds: float) -> bool:
        nonlocal ended
        step = next(steps, None)
        if step is None:
            ended = True
            return True
        step()
        return False

    found = [secret.reveal() for secret in SecretWatch(store, ["key"], every=EVERY, wait=wait)]
    assert ended
    assert expected == found

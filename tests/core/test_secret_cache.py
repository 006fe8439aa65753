"""A cache keeps values for a while: no longer than its time to live, unless the provider cannot be reached."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import random
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shiftable.errors import (
    Conflict,
    Fault,
    NotFound,
    OperationError,
    PermissionDenied,
    Throttled,
    Timeout,
    Unauthenticated,
    Unavailable,
)
from shiftable.memory.secrets import FEATURES, MemorySecretsDriver
from shiftable.secrets import Secret, SecretCache, Secrets, SecretStore
from shiftable.secrets.driver import SecretsDriver
from shiftable.testing.wrap import Call, Injected, Recorded, fault

TTL, STALE = 300.0, 3600.0
START = datetime(2031, 1, 1, tzinfo=UTC)


class RefusedError(Exception):
    """What a server says to a wrong password."""


@attrs.define
class Clock:
    """Time that passes only when a test says so, or when somebody sleeps."""

    now: float = 1000.0
    slept: list[float] = attrs.Factory(list)

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds

    def date(self) -> datetime:
        return START + timedelta(seconds=self.now - 1000)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def recorded() -> Recorded[SecretsDriver]:
    return Recorded[SecretsDriver](MemorySecretsDriver())


@pytest.fixture
def store(recorded: Recorded[SecretsDriver]) -> SecretStore:
    return Secrets(recorded.driver).store("shop")


def made(store: SecretStore, clock: Clock, *, chance: float = 0.0) -> SecretCache:
    return SecretCache(
        store,
        ttl=timedelta(seconds=TTL),
        stale=timedelta(seconds=STALE),
        clock=clock,
        sleep=clock.sleep,
        now=clock.date,
        chance=lambda: chance,
    )


@pytest.fixture
def cache(store: SecretStore, clock: Clock) -> SecretCache:
    return made(store, clock)


def reads(recorded: Recorded[SecretsDriver]) -> int:
    return len(recorded.named("get"))


# the time to live


def test_a_value_is_read_once_in_its_time_to_live(
    recorded: Recorded[SecretsDriver], store: SecretStore, cache: SecretCache, clock: Clock
) -> None:
    store.put("key", "old")
    assert {"old"} == {cache.get("key").reveal() for _ in range(9)}
    store.put("key", "new")
    clock.now += TTL - 1
    assert "old" == cache.get("key").reveal()
    clock.now += 1
    assert ["new", "new"] == [cache.get("key").reveal() for _ in range(2)]
    assert 2 == reads(recorded)


def test_keys_and_stages_are_kept_apart(store: SecretStore, cache: SecretCache) -> None:
    store.put("a", "one")
    store.put("a", "two")
    store.put("b", "three")
    found = [cache.get("a"), cache.get("a", stage="previous"), cache.get("b")]
    assert ["two", "one", "three"] == [secret.reveal() for secret in found]


def test_a_tenth_of_the_time_to_live_is_left_to_chance(
    recorded: Recorded[SecretsDriver], store: SecretStore, clock: Clock
) -> None:
    store.put("key", "value")
    cache = made(store, clock, chance=1.0)
    cache.get("key")
    clock.now += 0.9 * TTL - 0.1
    cache.get("key")
    assert 1 == reads(recorded)
    clock.now += 0.1
    cache.get("key")
    assert 2 == reads(recorded)


def test_a_value_is_not_kept_beyond_its_expiry(store: SecretStore, cache: SecretCache, clock: Clock) -> None:
    store.put("key", "old", expires=START + timedelta(seconds=10))
    cache.get("key")
    store.put("key", "new", expires=START - timedelta(days=1))
    clock.now += 9
    assert "old" == cache.get("key").reveal()
    clock.now += 1
    assert "new" == cache.get("key").reveal()
    store.put("key", "newest")
    clock.now += 1
    assert "new" == cache.get("key").reveal()


def test_what_is_forgotten_is_read_again(store: SecretStore, cache: SecretCache) -> None:
    for key in ("a", "b"):
        store.put(key, "old")
        cache.get(key)
        store.put(key, "new")
    cache.forget("a")
    assert ["new", "old"] == [cache.get(key).reveal() for key in ("a", "b")]
    cache.forget()
    assert "new" == cache.get("b").reveal()


def test_nothing_is_left_of_what_is_forgotten(store: SecretStore, cache: SecretCache) -> None:
    def use(key: str) -> weakref.ref[Secret]:
        store.put(key, "value")
        with contextlib.suppress(RefusedError):
            cache.retrying(key, on=RefusedError)(refuse)()
        return weakref.ref(cache.get(key))

    gone, stays = use("a"), use("b")
    gc.collect()
    assert gone() is not None
    cache.forget("a")
    gc.collect()
    assert (True, False) == (gone() is None, stays() is None)


def test_a_refresh_reads_at_once(store: SecretStore, cache: SecretCache) -> None:
    store.put("key", "old")
    cache.get("key")
    store.put("key", "new")
    assert ["old", "new", "new"] == [
        secret.reveal() for secret in (cache.get("key"), cache.refresh("key"), cache.get("key"))
    ]


def test_times_that_make_no_sense_are_refused(store: SecretStore) -> None:
    for times in ({"ttl": timedelta(0)}, {"ttl": timedelta(seconds=-1)}, {"stale": timedelta(seconds=-1)}):
        with pytest.raises(ValueError, match="ttl must be positive"):
            store.cached(**times)


def test_a_cache_shows_no_value(store: SecretStore) -> None:
    store.put("key", "canary-4b825dc6")
    cache = store.cached()
    cache.get("key")
    assert "<SecretCache of <SecretStore 'shop' on memory>, 1 kept>" == repr(cache)


# outages


@pytest.mark.parametrize("error", [Unavailable, Throttled, Timeout, Unauthenticated])
def test_in_an_outage_the_last_value_is_good_for_longer_and_then_no_more(
    recorded: Recorded[SecretsDriver],
    store: SecretStore,
    cache: SecretCache,
    clock: Clock,
    error: type[OperationError],
    caplog: pytest.LogCaptureFixture,
) -> None:
    store.put("key", "canary-4b825dc6")
    cache.get("key")
    recorded.on("get", fault(error))
    for _ in range(3):
        clock.now += STALE / 3
        assert "canary-4b825dc6" == cache.get("key").reveal()
    assert [f"key cannot be read ({error.__name__}); its last value is used"] == [
        record.getMessage() for record in caplog.records
    ]
    clock.now += TTL
    with pytest.raises(error):
        cache.get("key")
    assert "canary" not in caplog.text


def test_in_an_outage_the_provider_is_asked_ever_more_rarely(
    recorded: Recorded[SecretsDriver], store: SecretStore, cache: SecretCache, clock: Clock
) -> None:
    store.put("key", "value")
    cache.get("key")
    recorded.on("get", fault(Unavailable))
    clock.now += TTL
    asked: list[float] = []
    begin, seen = clock.now, reads(recorded)
    while clock.now < begin + 100:
        cache.get("key")
        if reads(recorded) > seen:
            seen = reads(recorded)
            asked.append(clock.now - begin)
        clock.now += 0.25
    assert [0, 1, 3, 7, 15, 31, 61, 91] == asked


def test_in_an_outage_the_providers_own_pause_is_kept(
    recorded: Recorded[SecretsDriver], store: SecretStore, cache: SecretCache, clock: Clock
) -> None:
    def throttle(call: Call, proceed: Callable[[], Any]) -> Any:
        raise Injected(Fault(Throttled, "slow down", retry_after=40))

    store.put("key", "value")
    cache.get("key")
    recorded.on("get", throttle)
    clock.now += TTL
    cache.get("key")
    seen = reads(recorded)
    clock.now += 39
    cache.get("key")
    assert seen == reads(recorded)
    clock.now += 1
    cache.get("key")
    assert seen + 1 == reads(recorded)


def test_after_an_outage_the_new_value_is_read(
    recorded: Recorded[SecretsDriver],
    store: SecretStore,
    cache: SecretCache,
    clock: Clock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    store.put("key", "old")
    cache.get("key")
    store.put("key", "new")
    recorded.on("get", fault(Unavailable, times=1))
    clock.now += TTL
    with caplog.at_level(logging.INFO):
        assert "old" == cache.get("key").reveal()
        clock.now += 1
        assert "new" == cache.get("key").reveal()
    assert "key can be read again" == caplog.records[-1].getMessage()


def test_what_says_something_of_the_secret_is_no_outage(
    recorded: Recorded[SecretsDriver], store: SecretStore, cache: SecretCache, clock: Clock
) -> None:
    store.put("key", "value")
    for error in (NotFound, PermissionDenied, Conflict):
        cache.get("key")
        recorded.on("get", fault(error, times=1))
        clock.now += TTL
        with pytest.raises(error):
            cache.get("key")
        assert "value" == cache.get("key").reveal()


def test_an_error_is_not_kept(recorded: Recorded[SecretsDriver], store: SecretStore, cache: SecretCache) -> None:
    with pytest.raises(NotFound):
        cache.get("key")
    store.put("key", "value")
    assert "value" == cache.get("key").reveal()


def test_a_refresh_that_fails_keeps_what_there_is(
    recorded: Recorded[SecretsDriver], store: SecretStore, cache: SecretCache
) -> None:
    store.put("key", "value")
    cache.get("key")
    recorded.on("get", fault(Unavailable))
    with pytest.raises(Unavailable):
        cache.refresh("key")
    assert "value" == cache.get("key").reveal()


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("wait"), st.integers(1, 5000)),
        st.tuples(st.sampled_from(("put", "get", "refresh", "fail", "heal")), st.just(0)),
    ),
    max_size=40,
)


@given(steps=STEPS, chance=st.floats(0, 1))
def test_a_value_is_never_older_than_it_may_be(steps: list[tuple[str, int]], chance: float) -> None:
    """The value that is answered was current at some time in the window that its age may have."""
    recorded = Recorded[SecretsDriver](MemorySecretsDriver())
    store, clock = Secrets(recorded.driver).store("shop"), Clock()
    cache = made(store, clock, chance=chance)
    written = [(clock.now, store.put("key", "0").reveal())]
    out, last = False, float("-inf")
    for number, (step, seconds) in enumerate(steps, 1):
        match step:
            case "wait":
                clock.now += seconds
            case "put":
                written.append((clock.now, store.put("key", str(number)).reveal()))
            case "fail" | "heal":
                out = step == "fail"
                recorded.on("get", fault(Unavailable, times=None if out else 0))
            case _:
                try:
                    found = (cache.refresh if step == "refresh" else cache.get)("key").reveal()
                except Unavailable:
                    assert out
                    assert step == "refresh" or clock.now >= last + 0.9 * TTL + STALE
                    continue
                oldest = clock.now if step == "refresh" else clock.now - TTL - (STALE if out else 30)
                last = max(last, clock.now if not out and step == "refresh" else last)
                assert found in current_since(written, oldest)
                if not out and found == written[-1][1]:
                    last = max(last, last_read(recorded, clock, last))


def current_since(written: list[tuple[float, str]], oldest: float) -> set[str]:
    ends = [at for at, _ in written[1:]] + [float("inf")]
    return {value for (_, value), end in zip(written, ends, strict=True) if end >= oldest}


def last_read(recorded: Recorded[SecretsDriver], clock: Clock, before: float) -> float:
    """Return when the last value that was read was read, as far as the calls tell: now, or before."""
    return clock.now if recorded.calls and recorded.calls[-1].name == "get" else before


# threads


class Gate:
    """Lets readings begin, and holds them until a test opens it."""

    def __init__(self, recorded: Recorded[SecretsDriver]) -> None:
        self.entered, self.open = threading.Semaphore(0), threading.Event()
        recorded.on("get", self)

    def __call__(self, call: Call, proceed: Callable[[], Any]) -> Any:
        found = proceed()
        self.entered.release()
        assert self.open.wait(60)
        return found


def together(act: Callable[[], Any], count: int) -> tuple[list[threading.Thread], list[Any]]:
    answers: list[Any] = []

    def run() -> None:
        try:
            answers.append(act())
        except Exception as exc:  # noqa: BLE001  it is the answer
            answers.append(exc)

    threads = [threading.Thread(target=run) for _ in range(count)]
    for thread in threads:
        thread.start()
    return threads, answers


def _waiters(future: Any) -> int:
    """Count who waits for a result: nothing public tells."""
    return len(future._condition._waiters)


def waiting(cache: SecretCache, count: int) -> None:
    """Wait until so many threads wait for a reading of another one."""
    deadline = time.monotonic() + 60
    while sum(_waiters(flight.done) for flight in list(cache._flights.values())) < count:
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_of_many_threads_one_reads_and_all_get_its_answer(
    recorded: Recorded[SecretsDriver], store: SecretStore
) -> None:
    store.put("key", "value")
    cache, gate = store.cached(), Gate(recorded)
    threads, answers = together(lambda: cache.get("key").reveal(), 20)
    waiting(cache, 19)
    gate.open.set()
    for thread in threads:
        thread.join()
    assert ["value"] * 20 == answers
    assert 1 == reads(recorded)


def test_of_many_threads_one_reads_and_all_get_its_error(recorded: Recorded[SecretsDriver], store: SecretStore) -> None:
    cache, gate = store.cached(), threading.Event()

    def fail(call: Call, proceed: Callable[[], Any]) -> Any:
        assert gate.wait(60)
        raise Injected(Fault(Unavailable, "made up"))

    recorded.on("get", fail)
    threads, answers = together(lambda: cache.get("key"), 10)
    waiting(cache, 9)
    gate.set()
    for thread in threads:
        thread.join()
    assert [Unavailable] * 10 == [type(answer) for answer in answers]
    assert 1 == reads(recorded)


def test_a_refresh_does_not_take_what_began_to_be_read_before_it(
    recorded: Recorded[SecretsDriver], store: SecretStore
) -> None:
    store.put("key", "old")
    cache, gate = store.cached(), Gate(recorded)
    first, before = together(lambda: cache.refresh("key").reveal(), 1)
    assert gate.entered.acquire(timeout=60)
    store.put("key", "new")
    later, after = together(lambda: cache.refresh("key").reveal(), 8)
    waiting(cache, 8)
    gate.open.set()
    for thread in (*first, *later):
        thread.join()
    assert ["old"] == before
    assert ["new"] * 8 == after
    assert reads(recorded) == 2


@pytest.mark.parametrize("late", ["value", "missing", "outage"])
def test_what_was_asked_for_earlier_and_comes_later_is_not_kept(
    recorded: Recorded[SecretsDriver], store: SecretStore, cache: SecretCache, clock: Clock, late: str
) -> None:
    store.put("key", "old")
    cache.get("key")
    clock.now += TTL
    entered, gate, first = threading.Event(), threading.Event(), [True]

    def slow(call: Call, proceed: Callable[[], Any]) -> Any:
        found = proceed()
        if first and first.pop():
            entered.set()
            assert gate.wait(60)
            if late != "value":
                raise Injected(Fault(NotFound if late == "missing" else Unavailable, "made up"))
        return found

    recorded.on("get", slow)
    threads, answers = together(lambda: cache.get("key").reveal(), 1)
    assert entered.wait(60)
    store.put("key", "new")
    clock.now += 1
    assert "new" == cache.refresh("key").reveal()
    gate.set()
    for thread in threads:
        thread.join()
    assert [NotFound] == [type(answer) for answer in answers] if late == "missing" else ["new"] == answers
    asked = reads(recorded)
    assert "new" == cache.get("key").reveal()
    assert asked == reads(recorded)


def test_who_reads_and_is_interrupted_leaves_it_to_the_next(
    recorded: Recorded[SecretsDriver], store: SecretStore
) -> None:
    store.put("key", "value")
    cache, entered, gate = store.cached(), threading.Event(), threading.Event()
    first = [True]

    def interrupt(call: Call, proceed: Callable[[], Any]) -> Any:
        if first and first.pop():
            entered.set()
            assert gate.wait(60)
            raise KeyboardInterrupt
        return proceed()

    recorded.on("get", interrupt)
    answers: list[Any] = []

    def interrupted() -> None:
        with pytest.raises(KeyboardInterrupt):
            cache.get("key")
        answers.append("interrupted")

    leader = threading.Thread(target=interrupted)
    leader.start()
    assert entered.wait(60)
    threads, found = together(lambda: cache.get("key").reveal(), 5)
    waiting(cache, 5)
    gate.set()
    for thread in (leader, *threads):
        thread.join()
    assert (["interrupted"], ["value"] * 5) == (answers, found)


def test_threads_that_do_everything_at_once_end_and_see_nothing_but_values_and_outages(
    recorded: Recorded[SecretsDriver], store: SecretStore
) -> None:
    keys = [f"key-{number}" for number in range(4)]
    for key in keys:
        store.put(key, "0")
    brief = timedelta(microseconds=50)
    cache = SecretCache(store, ttl=brief, stale=brief, sleep=lambda _: None)
    chance, failing = random.Random(7), iter([True, False, False] * 100_000)  # noqa: S311  no secret
    seeds = [chance.random() for _ in range(12)]

    def fail_at_times(call: Call, proceed: Callable[[], Any]) -> Any:
        if next(failing):
            raise Injected(Fault(Unavailable, "made up"))
        return proceed()

    recorded.on("get", fail_at_times)
    wrong: list[object] = []

    acts: list[Callable[[str], object]] = [
        lambda key: store.put(key, "1"),
        cache.forget,
        lambda key: cache.retrying(key, on=RefusedError)(refuse)(),
        lambda key: int(cache.refresh(key).reveal()),
        lambda key: int(cache.get(key).reveal()),
    ]

    def use(seed: float) -> None:
        own = random.Random(seed)  # noqa: S311  the same
        for _ in range(300):
            try:
                own.choice(acts)(own.choice(keys))
            except (Unavailable, RefusedError):
                pass
            except BaseException as exc:  # noqa: BLE001  it is looked at below
                wrong.append(exc)

    threads = [threading.Thread(target=use, args=(seed,)) for seed in seeds]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert [] == wrong
    assert [] == [thread for thread in threads if thread.is_alive()]
    assert {} == cache._flights


def test_a_forked_child_waits_for_no_thread_of_its_parent() -> None:
    code = """
import os, threading
from datetime import timedelta
from shiftable.memory.secrets import MemorySecretsDriver
from shiftable.secrets import Secrets
from shiftable.testing.wrap import Recorded
recorded = Recorded(MemorySecretsDriver())
store = Secrets(recorded.driver).store("shop")
store.put("key", "value")
store.put("kept", "kept")
cache = store.cached()
cache.get("kept")
entered, gate = threading.Event(), threading.Event()
def wait(call, proceed):
    if threading.current_thread() is not threading.main_thread():
        entered.set()
        gate.wait()
    return proceed()
recorded.on("get", wait)
thread = threading.Thread(target=cache.get, args=("key",))
thread.start()
entered.wait()
child = os.fork()
if child == 0:
    calls = len(recorded.calls)
    print(cache.get("key").reveal(), cache.get("kept").reveal(), len(recorded.calls) - calls, flush=True)
    os._exit(0)
os.waitpid(child, 0)
gate.set()
thread.join()
"""
    command = [sys.executable, "-W", "ignore", "-c", code]
    answer = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert ("value kept 1\n", "") == (answer.stdout, answer.stderr)


# refused values


@attrs.define
class Server:
    """Takes one password, and counts the tries."""

    password: str
    tries: list[str] = attrs.Factory(list)

    def connect(self, password: str) -> str:
        self.tries.append(password)
        if password != self.password:
            raise RefusedError
        return f"connected after {len(self.tries)}"


def refuse(secret: Secret) -> None:
    raise RefusedError


def connected(cache: SecretCache, server: Server, **options: Any) -> str:
    for attempt in cache.retrying("key", on=RefusedError, **options):
        with attempt as secret:
            answer = server.connect(secret.reveal())
    return answer


def test_a_value_that_was_rotated_is_read_anew(
    recorded: Recorded[SecretsDriver], store: SecretStore, cache: SecretCache
) -> None:
    store.put("key", "old")
    cache.get("key")
    store.put("key", "new")
    server = Server("new")
    assert "connected after 2" == connected(cache, server)
    assert ["old", "new"] == server.tries
    assert "new" == cache.get("key").reveal()


def test_a_pending_value_is_tried_as_the_server_may_have_it_already(store: SecretStore, cache: SecretCache) -> None:
    store.put("key", "old")
    store.put("key", "new", stage="pending")
    server = Server("new")
    assert "connected after 2" == connected(cache, server)
    assert "old" == cache.get("key").reveal()


def test_a_pending_value_is_not_tried_if_that_is_not_wanted(store: SecretStore, cache: SecretCache) -> None:
    store.put("key", "old")
    store.put("key", "new", stage="pending")
    server = Server("new")
    with pytest.raises(RefusedError):
        connected(cache, server, pending=False)
    assert ["old"] == server.tries


def test_a_value_that_is_promoted_while_it_is_looked_for_is_found(
    recorded: Recorded[SecretsDriver], store: SecretStore, cache: SecretCache
) -> None:
    store.put("key", "old")
    pending = store.put("key", "new", stage="pending").version
    cache.get("key")
    seen: list[str] = []

    def promote(call: Call, proceed: Callable[[], Any]) -> Any:
        seen.append(call.kwargs["stage"])
        found = proceed()
        if seen == ["pending"]:
            store.promote("key", pending)
        return found

    recorded.on("get", promote)
    assert "connected after 2" == connected(cache, Server("new"))
    assert ["pending", "current"] == seen


def test_a_value_that_is_really_wrong_is_the_servers_error(
    recorded: Recorded[SecretsDriver], store: SecretStore, cache: SecretCache, clock: Clock
) -> None:
    store.put("key", "old")
    server = Server("nobody knows")
    with pytest.raises(RefusedError):
        connected(cache, server)
    assert ["old"] == server.tries
    assert [] == clock.slept


def test_the_store_is_asked_about_refused_values_once_a_second(
    recorded: Recorded[SecretsDriver], store: SecretStore, cache: SecretCache, clock: Clock
) -> None:
    store.put("key", "old")
    for _ in range(5):
        with pytest.raises(RefusedError):
            connected(cache, Server("nobody knows"))
    assert [1.0] * 4 == clock.slept
    assert 1 + 5 * 2 == reads(recorded)


def test_what_another_thread_has_found_is_tried_without_asking(
    recorded: Recorded[SecretsDriver], store: SecretStore, cache: SecretCache, clock: Clock
) -> None:
    store.put("key", "old")
    late = next(iter(cache.retrying("key", on=RefusedError)))
    store.put("key", "new")
    assert "connected after 2" == connected(cache, Server("new"))
    asked = reads(recorded)
    with late:
        raise RefusedError
    assert late.following is not None
    assert "new" == late.following.secret.reveal()
    assert (asked, []) == (reads(recorded), clock.slept)


def test_all_threads_of_a_rotation_get_through_with_one_question(
    recorded: Recorded[SecretsDriver], store: SecretStore
) -> None:
    store.put("key", "old")
    cache = store.cached()
    cache.get("key")
    store.put("key", "new")
    barrier = threading.Barrier(16)

    def connect(secret: Secret) -> str:
        if secret.reveal() == "old":
            barrier.wait(60)
            raise RefusedError
        return secret.reveal()

    call = cache.retrying("key", on=RefusedError)(connect)
    threads, answers = together(call, 16)
    for thread in threads:
        thread.join()
    assert ["new"] * 16 == answers
    assert reads(recorded) <= 1 + 2 * 2


def test_who_is_refused_while_another_asks_asks_again_if_that_answer_is_too_old(
    recorded: Recorded[SecretsDriver], store: SecretStore, clock: Clock
) -> None:
    store.put("key", "old")
    cache = made(store, clock)
    cache.get("key")
    gate = Gate(recorded)
    first, refused = together(lambda: connected(cache, Server("new"), pending=False), 1)
    assert gate.entered.acquire(timeout=60)
    store.put("key", "new")
    clock.now += 0.1
    second, answers = together(lambda: connected(cache, Server("new"), pending=False), 1)
    waiting(cache, 1)
    gate.open.set()
    for thread in (*first, *second):
        thread.join()
    assert [RefusedError] == [type(answer) for answer in refused]
    assert ["connected after 2"] == answers


def test_no_client_fails_while_a_password_is_rotated_in_place_again_and_again(store: SecretStore) -> None:
    store.put("key", "password-0")
    cache = SecretCache(store, ttl=timedelta(hours=1), sleep=lambda _: None)
    accepted, done = ["password-0"], threading.Event()
    connections: list[str] = []
    failures: list[BaseException] = []

    @cache.retrying("key", on=RefusedError)
    def connect(secret: Secret) -> str:
        if secret.reveal() != accepted[0]:
            raise RefusedError(f"{secret.version} was refused")
        return secret.reveal()

    def use() -> None:
        while not done.is_set():
            try:
                connections.append(connect())
            except Exception as exc:  # noqa: BLE001  it is looked at below
                failures.append(exc)

    clients = [threading.Thread(target=use) for _ in range(6)]
    for client in clients:
        client.start()
    for number in range(1, 40):
        pending = store.put("key", f"password-{number}", stage="pending")
        accepted[0] = pending.reveal()
        seen = len(connections)
        deadline = time.monotonic() + 60
        while number % 2 and len(connections) < seen + 6 and not failures and time.monotonic() < deadline:
            time.sleep(0.001)
        store.promote("key", pending.version)
    done.set()
    for client in clients:
        client.join(60)
    assert [] == failures
    assert len(set(connections)) > 19


def test_an_error_that_says_something_else_passes_at_once(
    recorded: Recorded[SecretsDriver], store: SecretStore, cache: SecretCache
) -> None:
    store.put("key", "old")
    cache.get("key")
    store.put("key", "new")

    @cache.retrying("key", on=RefusedError)
    def divide(secret: Secret) -> float:
        return 1 / 0

    with pytest.raises(ZeroDivisionError):
        divide()
    assert 1 == reads(recorded)


def test_a_function_may_tell_which_errors_say_that_a_value_was_refused(store: SecretStore, cache: SecretCache) -> None:
    store.put("key", "old")
    cache.get("key")
    store.put("key", "new")
    seen = []
    for attempt in cache.retrying("key", on=lambda error: "28P01" in str(error)):
        with attempt as secret:
            seen.append(secret.reveal())
            if secret.reveal() == "old":
                raise OSError("28P01")
    assert ["old", "new"] == seen


def test_an_outage_of_the_store_leaves_the_servers_error(
    recorded: Recorded[SecretsDriver], store: SecretStore, cache: SecretCache, caplog: pytest.LogCaptureFixture
) -> None:
    store.put("key", "old")
    cache.get("key")
    recorded.on("get", fault(Unavailable))
    with pytest.raises(RefusedError):
        connected(cache, Server("new"))
    assert "key was refused, and cannot be read anew (Unavailable)" == caplog.records[-1].getMessage()


def test_a_store_without_pending_versions_is_not_asked_for_one(clock: Clock) -> None:
    driver = MemorySecretsDriver()
    recorded = Recorded[SecretsDriver](driver, features=attrs.evolve(FEATURES, pending=False))
    store = Secrets(recorded.driver).store("shop")
    store.put("key", "old")
    with pytest.raises(RefusedError):
        connected(made(store, clock), Server("nobody knows"))
    assert ["current", "current"] == [call.kwargs["stage"] for call in recorded.named("get")]


def test_a_decorated_function_gets_the_value_first_and_keeps_its_name(store: SecretStore, cache: SecretCache) -> None:
    store.put("key", "old")
    cache.get("key")
    store.put("key", "new")

    @cache.retrying("key", on=RefusedError)
    def connect(secret: Secret, database: str, *, port: int) -> str:
        if secret.reveal() == "old":
            raise RefusedError
        return f"{secret.reveal()} {database} {port}"

    assert "new orders 5432" == connect("orders", port=5432)
    assert "connect" == connect.__name__


def test_a_decorated_coroutine_function_is_tried_again_too(store: SecretStore, cache: SecretCache) -> None:
    store.put("key", "old")
    cache.get("key")
    store.put("key", "new")
    seen: list[tuple[str, bool]] = []

    @cache.retrying("key", on=RefusedError)
    async def connect(secret: Secret, database: str) -> str:
        await asyncio.sleep(0)
        seen.append((secret.reveal(), threading.current_thread() is threading.main_thread()))
        if secret.reveal() == "old":
            raise RefusedError
        return database

    @cache.retrying("key", on=RefusedError)
    async def refused(secret: Secret) -> None:
        raise RefusedError

    assert "orders" == asyncio.run(connect("orders"))
    assert [("old", True), ("new", True)] == seen
    with pytest.raises(RefusedError):
        asyncio.run(refused())


def test_a_block_is_not_run_again_but_the_next_one_has_the_new_value(
    recorded: Recorded[SecretsDriver], store: SecretStore, cache: SecretCache
) -> None:
    store.put("key", "old")
    cache.get("key")
    store.put("key", "new")
    server, retrying = Server("new"), cache.retrying("key", on=RefusedError)
    with pytest.raises(RefusedError), retrying as secret:
        server.connect(secret.reveal())
    with retrying as secret:
        assert "connected after 2" == server.connect(secret.reveal())
    asked = reads(recorded)
    with pytest.raises(ZeroDivisionError), retrying:
        raise ZeroDivisionError
    assert asked == reads(recorded)


def test_a_loop_that_does_not_use_its_attempt_ends(store: SecretStore, cache: SecretCache) -> None:
    store.put("key", "value")
    attempts: Iterator[Any] = iter(cache.retrying("key", on=RefusedError))
    assert 1 == len(list(attempts))

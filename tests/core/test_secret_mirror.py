"""A mirror: two stores that are written as one, and what is said when only one of them was."""

from __future__ import annotations

import itertools
import logging
import random
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from shiftable.app import load
from shiftable.errors import (
    ConfigError,
    Conflict,
    NotFound,
    PermissionDenied,
    PreconditionFailed,
    Throttled,
    Timeout,
    Unavailable,
    Unsupported,
)
from shiftable.memory.secrets import FEATURES, MemorySecretsDriver
from shiftable.secrets import Drift, Masked, Mirror, Secrets, SecretStore
from shiftable.secrets._mirror import BEHIND
from shiftable.testing.conformance.secrets import SecretsConformance, SecretsOracle
from shiftable.testing.wrap import Recorded, fault

CANARY = "canary-51ab"


class Pair:
    """Two memories, each with a record of its calls, and their mirror."""

    def __init__(self) -> None:
        self.first, self.second = Recorded(MemorySecretsDriver()), Recorded(MemorySecretsDriver())
        self.primary, self.secondary = (Secrets(each.driver).store("shop") for each in (self.first, self.second))
        self.mirror = Mirror(self.primary, self.secondary)


@pytest.fixture
def pair() -> Pair:
    return Pair()


def kept(recorded: Any, key: str = "a") -> list[tuple[str, list[str]]]:
    """Return values and stages, oldest first, past everything."""
    entry = recorded.inner._entries[f"shop/{key}"]
    return [(each.value.reveal(), sorted(entry.stages_of(id_))) for id_, each in entry.versions.items()]


class TestMirror(SecretsConformance):
    """A mirror is a store like any other."""

    @pytest.fixture
    def driver(self) -> Any:
        stores = (Secrets(MemorySecretsDriver(page_size=7)).store("x") for _ in range(2))
        return Mirror(*stores)._driver

    @pytest.fixture
    def oracle(self, driver: Any) -> SecretsOracle:
        class Primary:
            def value(self, name: str) -> bytes | None:
                entry = driver._first._entries.get(name)
                if entry is None or entry.deleted is not None:
                    return None
                found: bytes = entry.versions[entry.stages["current"]].value.reveal_bytes()
                return found

            def names(self) -> list[str]:
                return [name for name, entry in driver._first._entries.items() if entry.deleted is None]

        return Primary()


def test_what_is_written_is_in_both(pair: Pair) -> None:
    expires = datetime(2031, 1, 1, tzinfo=UTC)
    pair.mirror.put("a", "one", labels={"team": "core"}, expires=expires)
    pending = pair.mirror.put("a", "two", stage="pending")
    pair.mirror.promote("a", pending.version)
    pair.mirror.update("a", labels={"team": "web"}, expires="never")

    assert kept(pair.first) == kept(pair.second) == [("one", ["previous"]), ("two", ["current"])]
    found = pair.secondary.get("a")
    assert (found.labels, found.expires) == ({"team": "web"}, None)
    pair.mirror.delete("a")
    assert [info.name for info in pair.secondary.list(deleted=True)] == ["a"]
    pair.mirror.restore("a")
    assert pair.secondary.get("a").reveal() == "two"
    assert list(pair.mirror.drift()) == []


def test_a_rollback_is_one_in_both_and_makes_no_version(pair: Pair) -> None:
    versions = [pair.mirror.put("a", value).version for value in ("one", "two", "three")]
    pair.mirror.promote("a", versions[0])

    assert kept(pair.second) == [("one", ["current"]), ("two", []), ("three", ["previous"])]


def test_the_primary_s_conditions_decide_and_then_nothing_is_written(pair: Pair) -> None:
    stored = pair.mirror.put("a", "one")
    pair.mirror.put("a", "two", if_match=stored.token)

    for refused in ({"if_absent": True}, {"if_match": stored.token}):
        with pytest.raises(PreconditionFailed):
            pair.mirror.put("a", "three", **refused)  # type: ignore[arg-type]  # one of two

    assert [value for value, _ in kept(pair.second)] == ["one", "two"]


@pytest.mark.parametrize("error", [Unavailable, Throttled, PermissionDenied, Timeout])
def test_a_write_that_reaches_only_the_primary_says_so_and_can_be_repaired(pair: Pair, error: Any) -> None:
    pair.mirror.put("a", "one")
    pair.second.on("put", fault(error, times=1))

    with pytest.raises(Conflict, match=r"stored as version \d+ at memory, but not at its mirror memory") as caught:
        pair.mirror.put("a", f"{CANARY}-two")

    assert caught.value.code == BEHIND
    assert not caught.value.retryable
    assert error.__name__ in caught.value.message
    assert CANARY not in f"{caught.value!r}{caught.value.__cause__!r}"
    assert pair.primary.get("a").reveal() == f"{CANARY}-two"
    assert list(pair.mirror.drift()) == [Drift("a", ("current",))]
    pair.mirror.repair("a")
    assert list(pair.mirror.drift()) == []
    assert len(kept(pair.second)) == 2


def test_the_same_write_again_under_its_key_mends_it_without_a_second_version(pair: Pair) -> None:
    pair.second.on("put", fault(Unavailable, times=1))
    for _ in range(2):
        try:
            pair.mirror.put("a", "one", idempotency_key="key")
        except Conflict:
            continue

    assert kept(pair.first) == kept(pair.second) == [("one", ["current"])]


def test_a_write_that_the_primary_refuses_reaches_nobody(pair: Pair) -> None:
    pair.first.on("put", fault(Unavailable))

    with pytest.raises(Unavailable):
        pair.mirror.put("a", "one")

    assert pair.second.named("put") == []


@pytest.mark.parametrize("error", [Unavailable, Throttled, Timeout])
def test_who_reads_gets_an_answer_from_the_secondary_when_the_primary_is_away(
    pair: Pair, error: Any, caplog: pytest.LogCaptureFixture
) -> None:
    for key in ("a", "b"):
        pair.mirror.put(key, CANARY)
    for name in ("get", "list", "history"):
        pair.first.on(name, fault(error))

    with caplog.at_level(logging.WARNING):
        found = pair.mirror.get("a")
        names = sorted(info.name for info in pair.mirror.list())
        (version,) = pair.mirror.history("a")

    assert found.reveal() == CANARY
    assert names == ["a", "b"]
    assert pair.mirror.get("a", version=version.version).reveal() == CANARY
    assert f"memory is {error.__name__}; reading from memory" in caplog.text
    assert CANARY not in caplog.text


def test_what_was_read_from_the_secondary_is_no_base_for_a_write(pair: Pair) -> None:
    pair.mirror.put("a", "one")
    pair.first.on("get", fault(Unavailable, times=1))
    found = pair.mirror.get("a")

    with pytest.raises(PreconditionFailed):
        pair.mirror.put("a", "two", if_match=found.token)
    with pytest.raises(NotFound):
        pair.mirror.promote("a", found.version)


@pytest.mark.parametrize("error", [NotFound, PermissionDenied])
def test_an_answer_of_the_primary_is_an_answer(pair: Pair, error: Any) -> None:
    pair.secondary.put("a", "only there")
    if error is PermissionDenied:
        pair.first.on("get", fault(error))

    with pytest.raises(error):
        pair.mirror.get("a")


def test_when_both_are_away_the_primary_s_error_is_told(pair: Pair) -> None:
    pair.first.on("get", fault(Throttled))
    pair.second.on("get", fault(PermissionDenied))

    with pytest.raises(Throttled):
        pair.mirror.get("a")


def test_listings_stay_with_the_side_that_they_began_with() -> None:
    first, second = Recorded(MemorySecretsDriver(page_size=2)), Recorded(MemorySecretsDriver(page_size=2))
    mirror = Mirror(*(Secrets(each.driver).store("shop") for each in (first, second)))
    for key in "abcde":
        mirror.put(key, "x")
    first.on("list", fault(Unavailable, times=1))

    assert sorted(info.name for info in mirror.list()) == [*"abcde"]
    assert (len(first.named("list")), len(second.named("list"))) == (1, 3)
    first.on("list", fault(Unavailable, after=1))
    with pytest.raises(Unavailable):
        list(mirror.list())


def test_drift_names_what_differs_and_no_value(pair: Pair) -> None:
    for key in ("same", "value", "label", "missing", "pending"):
        pair.mirror.put(key, f"{CANARY}-{key}", labels={"team": "core"})
    pair.secondary.put("value", f"{CANARY}-else")
    pair.secondary.update("label", labels={"team": "web"}, expires=datetime(2031, 1, 1, tzinfo=UTC))
    pair.secondary.delete("missing", recovery=None)
    pair.secondary.put("foreign", f"{CANARY}-foreign")
    pair.primary.put("pending", f"{CANARY}-next", stage="pending")

    found = list(pair.mirror.drift())

    assert found == [
        Drift("foreign", ("current",)),
        Drift("label", ("label team", "expiry")),
        Drift("missing", ("current", "label team")),
        Drift("pending", ("pending",)),
        Drift("value", ("current",)),
    ]
    assert CANARY not in repr(found)
    for drift in found[1:]:
        pair.mirror.repair(drift.key)
    with pytest.raises(NotFound):
        pair.mirror.repair("foreign")
    assert list(pair.mirror.drift()) == found[:1]


def test_the_last_one_of_many_writers_is_the_last_one_in_both(pair: Pair) -> None:
    chance = random.Random(5)  # noqa: S311  lets one or the other wait
    gate = threading.Barrier(4)

    def write(number: int) -> None:
        gate.wait(30)
        for turn in range(8):
            threading.Event().wait(chance.random() / 1000)
            pair.mirror.put("a", f"{number} {turn}")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))

    assert pair.primary.get("a").reveal() == pair.secondary.get("a").reveal()
    assert sorted(value for value, _ in kept(pair.first)) == sorted({value for value, _ in kept(pair.first)})
    assert len(kept(pair.second)) == len({value for value, _ in kept(pair.second)})


def test_a_copy_that_was_disabled_at_the_secondary_is_written_once_more(pair: Pair) -> None:
    versions = [pair.mirror.put("a", value).version for value in ("one", "two")]
    copy = [version.version for version in pair.secondary.history("a")][-1]
    pair.secondary.disable("a", copy)

    pair.mirror.promote("a", versions[0])

    assert pair.secondary.get("a").reveal() == "one"
    assert list(pair.mirror.drift()) == []


def test_who_is_overtaken_all_the_time_says_so(pair: Pair) -> None:
    numbers = itertools.count()

    def write(call: Any, proceed: Any) -> Any:
        stored = proceed()
        pair.primary.put("a", f"theirs {next(numbers)}")
        return stored

    pair.second.on("put", write)
    with pytest.raises(Conflict, match="others write faster than the mirror follows"):
        pair.mirror.put("a", "one")


def test_versions_are_neither_disabled_nor_destroyed(pair: Pair) -> None:
    version = pair.mirror.put("a", "one").version

    for act in (pair.mirror.disable, pair.mirror.destroy):
        with pytest.raises(Unsupported):
            act("a", version)


def test_a_mirror_promises_the_less_of_both() -> None:
    class Small(MemorySecretsDriver):
        @property
        def features(self) -> Any:
            import attrs

            from shiftable.features import Limit

            return attrs.evolve(FEATURES, max_value=Limit(10, "here"), binary=False, max_versions=Limit(3, "here"))

        def check_secret(self, name: str) -> str | None:
            return "no such name here" if "x" in name else None

    mirror = Mirror(Secrets(MemorySecretsDriver()).store("shop"), Secrets(Small()).store("shop"))

    features = mirror.features
    assert (features.max_value.value, features.binary, features.expiry) == (10, False, True)
    assert features.max_versions is not None
    assert features.title == "this process, mirrored to this process"
    assert mirror.check_key("x") == "no such name here"


def test_two_prefixes_are_no_mirror() -> None:
    secrets = Secrets(MemorySecretsDriver())

    with pytest.raises(ConfigError, match="one prefix"):
        Mirror(secrets.store("shop"), secrets.store("other"))


# by configuration

FILE = """
[project]
name = "shop"
[environments.production]
provider = "one"
[environments.production.mirrors]
"secrets.app" = "two"
[providers.one]
type = "memory"
[providers.two]
type = "memory"
[secrets.app]
prefix = "shop"
[secrets.other]
prefix = "other"
"""


def test_an_application_gets_a_mirror_by_its_file(folder: Path) -> None:
    (folder / "shiftable.toml").write_text(FILE)
    with load() as app:
        app.secrets("app").put("a", Masked("one"))
        there = app.cloud("two").secrets.store("shop")

        assert there.get("a").reveal() == "one"
        assert isinstance(app.secrets("app"), Mirror)
        assert type(app.secrets("other")) is SecretStore


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('"secrets.ap" = "two"', "no such secrets are declared; did you mean secrets.app"),
        ('"blob.assets" = "two"', "no such secrets are declared"),
        ('"secrets.app" = "tow"', "there is no \\[providers.tow\\]"),
        ('"secrets.app" = "one"', "one is their provider; name another one"),
    ],
)
def test_a_wrong_mirror_is_told_with_its_place(folder: Path, line: str, problem: str) -> None:
    (folder / "shiftable.toml").write_text(FILE.replace('"secrets.app" = "two"', line))

    with pytest.raises(ConfigError, match=problem):
        load()

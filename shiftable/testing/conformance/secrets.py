"""The rules for drivers of secrets.

Subclass ``SecretsConformance`` and override its fixtures ``driver`` and ``oracle``. ``secrets_machine`` makes a state
machine that drives a store and the memory model with the same calls.
"""

# ruff: noqa: SIM300  the expected value stands first

from __future__ import annotations

import itertools
import logging
import pickle
import threading
import traceback
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from functools import partial
from typing import Any, ClassVar, Literal, Protocol, cast

import attrs
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, multiple, rule

from shiftable.errors import (
    Conflict,
    InvalidArgument,
    NotFound,
    OperationError,
    PreconditionFailed,
    ShiftableError,
    Unsupported,
)
from shiftable.memory.secrets import MemorySecretsDriver
from shiftable.secrets import Secret, Secrets, SecretStore, SecretWatch, Stage, Token
from shiftable.secrets.driver import SecretsDriver
from shiftable.testing.conformance import Conformance

__all__ = ["SecretsConformance", "SecretsOracle", "secrets_machine"]

TEXTS = {
    "one byte": "x",
    "unicode": "Schlüssel 🔑 鍵 \u00a0",
    "newlines": "first\nsecond\r\n\tthird\n",
    "spaces around": "  padded  ",
    "json": '{"user": "a", "password": "b\\"c\\\\d"}',
    "yaml": "- a: 'b'\n  c: |\n    d\n# e\n---\n",
    "a number": "0012345678901234567890",
    "a word that formats know": "null",
    "pem": "-----BEGIN PRIVATE KEY-----\n" + "MIIEvQIBADANBgkqhkiG9w0B\n" * 40 + "-----END PRIVATE KEY-----\n",
}
PORTABLE_KEYS = ("a", "a/b/c", "stripe-key-1", "db/orders/password")
CURIOUS_KEYS = (
    *("UPPER", "with space", "dots.and_under-scores", "a@b+c=d", "ünïcode", "a%2Fb", "a--b", "a__b", "a:b", "a\\b"),
    *(".", "..", "../up", "a/../b", ".hidden", "-dash", "tail-AbCdEf", "key.yaml", "con", "name\n", "a\x00b", "~", "*"),
)
MALFORMED_KEYS = ("", "/", "/a", "a/", "a//b", "\ud800")
YEAR = timedelta(days=365)


class SecretsOracle(Protocol):
    """What the provider's own client, or the file on disk, tells: never by way of the driver."""

    def value(self, name: str) -> bytes | None:
        """Return the current value; ``None`` if there is no living secret of that full name."""

    def names(self) -> list[str]:
        """Return the full names of all living secrets."""


class Untouched:
    """A driver that may be asked what it can do, and nothing else."""

    ALLOWED = frozenset({"features", "named", "classify", "check_name", "check_secret", "check_labels"})

    def __init__(self, driver: SecretsDriver) -> None:
        self._driver = driver

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401  whatever the driver has
        if name not in self.ALLOWED:
            raise AssertionError(f"{name}() reached the driver")
        return getattr(self._driver, name)


class SecretsConformance(Conformance):
    """All rules for a driver of secrets.

    Attributes:
        many: secrets in the test of paging; fewer for slow doubles, but more than one page.
        versions: versions in the test of a long history.
        threads: writers in the races.
        foreign_loggers: loggers of SDKs that are known to show values at DEBUG, and which the provider's page warns of.
    """

    many: ClassVar[int] = 120
    versions: ClassVar[int] = 12
    threads: ClassVar[int] = 8
    foreign_loggers: ClassVar[tuple[str, ...]] = ()

    @pytest.fixture
    def driver(self) -> SecretsDriver:
        """Return the driver to be tested."""
        raise TypeError(f"override the fixture `driver` in {type(self).__name__}")

    @pytest.fixture
    def oracle(self) -> SecretsOracle:
        """Return who knows the truth."""
        raise TypeError(f"override the fixture `oracle` in {type(self).__name__}")

    @pytest.fixture
    def prefix(self) -> str:
        """Return a prefix that no other test has."""
        return f"conformance-{uuid.uuid4().hex[:12]}"

    @pytest.fixture
    def store(self, driver: SecretsDriver, prefix: str) -> SecretStore:
        """Return the store that the tests fill."""
        return Secrets(driver).store(prefix)

    @pytest.fixture
    def untouched(self, driver: SecretsDriver, prefix: str) -> SecretStore:
        """Return a store whose every call of the driver fails the test."""
        return SecretStore(cast("SecretsDriver", Untouched(driver)), prefix)

    # values

    @pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
    def test_text_is_kept_exactly(self, store: SecretStore, oracle: SecretsOracle, text: str) -> None:
        stored = store.put("key", text)
        found = store.get("key")
        assert text == found.reveal()
        assert text == stored.reveal()
        assert text.encode() == oracle.value(f"{store.name}/key")

    def test_what_is_found_is_what_was_stored(self, store: SecretStore) -> None:
        before = datetime.now(UTC) - timedelta(minutes=5)
        stored = store.put("key", "value")
        found = store.get("key")
        assert ("key", "key") == (stored.name, found.name)
        assert stored.version == found.version
        assert stored.token == found.token
        assert frozenset({"current"}) == stored.stages == found.stages
        assert {} == dict(found.labels)
        assert found.expires is None
        assert found.created is None or before < found.created

    def test_a_value_of_the_greatest_size_is_kept(self, store: SecretStore, oracle: SecretsOracle) -> None:
        text = "0123456789abcdef" * (store.features.max_value.value // 16 + 1)
        text = text[: store.features.max_value.value]
        store.put("key", text)
        assert text == store.get("key").reveal()
        assert text.encode() == oracle.value(f"{store.name}/key")

    def test_a_greater_value_is_refused_before_anything_is_sent(self, untouched: SecretStore) -> None:
        limit = untouched.features.max_value.value
        for value in ("x" * (limit + 1), "é" * (limit // 2 + 1), b"x" * (limit + 1)):
            with pytest.raises(InvalidArgument, match="the limit is"):
                untouched.put("key", value)

    def test_an_empty_value_is_refused_before_anything_is_sent(self, untouched: SecretStore) -> None:
        for value in ("", b""):
            with pytest.raises(InvalidArgument, match="empty"):
                untouched.put("key", value)

    def test_bytes_are_kept_exactly_or_refused(
        self, store: SecretStore, untouched: SecretStore, oracle: SecretsOracle
    ) -> None:
        value = bytes(range(256))
        if not store.features.binary:
            with pytest.raises(Unsupported):
                untouched.put("key", value)
            return
        store.put("key", value)
        assert value == store.get("key").reveal_bytes()
        assert value == oracle.value(f"{store.name}/key")

    def test_bytes_that_are_text_are_kept_everywhere(self, store: SecretStore, oracle: SecretsOracle) -> None:
        store.put("key", "grün\n".encode())
        assert "grün\n" == store.get("key").reveal()
        assert "grün\n".encode() == oracle.value(f"{store.name}/key")

    def test_text_is_told_from_bytes_where_that_is_a_feature(self, store: SecretStore) -> None:
        store.put("key", "grün")
        assert store.features.text is store.get("key").value.is_text

    # names

    @pytest.mark.parametrize("key", PORTABLE_KEYS)
    def test_portable_keys_are_taken(self, store: SecretStore, key: str) -> None:
        assert store.check_key(key) is None

    @pytest.mark.parametrize("key", PORTABLE_KEYS + CURIOUS_KEYS, ids=ascii)
    def test_a_key_is_kept_byte_for_byte_or_refused(
        self, store: SecretStore, untouched: SecretStore, oracle: SecretsOracle, key: str
    ) -> None:
        if store.check_key(key) is not None:
            with pytest.raises(InvalidArgument):
                untouched.put(key, "value")
            return
        store.put(key, "value")
        assert "value" == store.get(key).reveal()
        assert [key] == [info.name for info in store.list()]
        assert f"{store.name}/{key}" in oracle.names()

    @pytest.mark.parametrize("key", MALFORMED_KEYS, ids=ascii)
    def test_a_malformed_key_is_refused_before_anything_is_sent(self, untouched: SecretStore, key: str) -> None:
        for act in (untouched.get, untouched.exists, untouched.history, untouched.delete, untouched.restore):
            with pytest.raises(InvalidArgument):
                act(key)
        with pytest.raises(InvalidArgument):
            untouched.put(key, "value")

    def test_a_name_above_the_limit_is_refused_before_anything_is_sent(self, untouched: SecretStore) -> None:
        room = untouched.features.max_name.value - len(untouched.name)
        with pytest.raises(InvalidArgument):
            untouched.put("x" * room, "value")

    def test_keys_that_differ_only_in_case_are_two_secrets_or_refused(self, store: SecretStore) -> None:
        if store.check_key("Key") is not None:
            with pytest.raises(InvalidArgument):
                store.put("Key", "upper")
            return
        store.put("Key", "upper")
        store.put("key", "lower")
        assert ("upper", "lower") == (store.get("Key").reveal(), store.get("key").reveal())

    # listing

    def test_a_listing_has_all_pages(self, store: SecretStore, oracle: SecretsOracle) -> None:
        keys = [f"k/{number:04}" for number in range(self.many)]
        for key in keys:
            store.put(key, "value")
        listed = [info.name for info in store.list()]
        assert keys == sorted(listed)
        assert sorted(f"{store.name}/{key}" for key in keys) == sorted(
            name for name in oracle.names() if name.startswith(f"{store.name}/")
        )

    def test_a_listing_ends_at_its_limit(self, store: SecretStore) -> None:
        for key in ("a", "b", "c"):
            store.put(key, "value")
        assert [0, 1, 2, 3] == [len(list(store.list(limit=limit))) for limit in (0, 1, 2, 9)]

    def test_a_store_lists_only_what_is_below_its_prefix(self, driver: SecretsDriver, store: SecretStore) -> None:
        near = [Secrets(driver).store(f"{store.name}{tail}") for tail in ("foo", "-foo", "/sub")]
        store.put("a", "value")
        for other in near:
            other.put("b", "value")
        assert ["a", "sub/b"] == sorted(info.name for info in store.list())
        assert [["b"]] * 3 == [[info.name for info in other.list()] for other in near]

    def test_a_prefix_of_keys_need_not_end_at_a_slash(self, store: SecretStore) -> None:
        for key in ("db/a", "db/ab", "dba", "x/db/a"):
            store.put(key, "value")
        found = {prefix: sorted(info.name for info in store.list(prefix)) for prefix in ("db", "db/", "db/a", "y")}
        assert {"db": ["db/a", "db/ab", "dba"], "db/": ["db/a", "db/ab"], "db/a": ["db/a", "db/ab"], "y": []} == found

    def test_a_listing_of_nothing_is_empty(self, store: SecretStore) -> None:
        assert [] == list(store.list())

    def test_a_listing_tells_of_the_current_version(self, store: SecretStore) -> None:
        store.put("key", "first")
        current = store.put("key", "second").version
        assert all(info.version in (None, current) for info in store.list())
        assert [None] == [info.deleted for info in store.list()]

    def test_the_empty_prefix_holds_all_secrets(self, driver: SecretsDriver, store: SecretStore) -> None:
        everything = Secrets(driver).store("")
        store.put("key", "value")
        assert "value" == everything.get(f"{store.name}/key").reveal()
        assert [f"{store.name}/key"] == [info.name for info in everything.list(f"{store.name}/")]

    # prefixes

    def test_a_prefix_is_deleted_only_when_nothing_lives_below_it(
        self, driver: SecretsDriver, store: SecretStore
    ) -> None:
        secrets = Secrets(driver)
        secrets.create(secrets.describe(store.name))
        store.put("key", "value")
        with pytest.raises(Conflict):
            secrets.delete(store.name)
        assert store.exists("key")
        store.delete("key", recovery=None)
        secrets.delete(store.name)

    def test_every_secret_is_below_a_listed_prefix(self, driver: SecretsDriver, store: SecretStore) -> None:
        store.put("a/b", "value")
        listed = [handle.name for handle in Secrets(driver).list()]
        assert len(set(listed)) == len(listed)
        assert any(f"{store.name}/a/b".startswith(f"{prefix}/") for prefix in listed)

    def test_a_declared_prefix_is_as_declared_once_created(self, driver: SecretsDriver, store: SecretStore) -> None:
        secrets = Secrets(driver)
        spec = attrs.evolve(secrets.describe(store.name), env={"KEY": "key"})
        for change in secrets.diff(spec):
            secrets.apply(change)
        assert () == secrets.diff(spec)
        assert store.name == secrets.open(spec).name

    # versions and stages

    def test_a_new_value_makes_the_one_before_it_previous(self, store: SecretStore, oracle: SecretsOracle) -> None:
        self._needs(store, "history")
        first, second, third = (store.put("key", value) for value in ("one", "two", "three"))
        assert len({first.version, second.version, third.version}) == 3
        assert "three" == store.get("key").reveal()
        assert "two" == store.get("key", stage="previous").reveal()
        assert "one" == store.get("key", version=first.version).reveal()
        assert b"three" == oracle.value(f"{store.name}/key")
        assert [
            (third.version, frozenset({"current"})),
            (second.version, frozenset({"previous"})),
            (first.version, frozenset()),
        ] == _history(store, "key")

    def test_the_same_value_again_is_a_new_version(self, store: SecretStore) -> None:
        assert store.put("key", "same").version != store.put("key", "same").version

    def test_a_long_history_has_all_pages_newest_first(self, store: SecretStore) -> None:
        self._needs(store, "history")
        limit = store.features.max_versions
        count = self.versions if limit is None else min(self.versions, limit.value)
        ids = [store.put("key", f"value {number}").version for number in range(count)]
        assert ids[::-1] == [entry.version for entry in store.history("key")]
        assert {"key"} == {entry.name for entry in store.history("key")}
        assert all(entry.enabled for entry in store.history("key"))

    def test_a_pending_version_leaves_the_current_one_in_use(self, store: SecretStore, oracle: SecretsOracle) -> None:
        self._needs(store, "pending")
        current = store.put("key", "old")
        pending = store.put("key", "new", stage="pending")
        assert frozenset({"pending"}) == pending.stages
        assert "old" == store.get("key").reveal()
        assert "new" == store.get("key", stage="pending").reveal()
        assert b"old" == oracle.value(f"{store.name}/key")
        assert current.version == store.get("key").version
        _raises(NotFound, lambda: store.get("key", stage="previous"))

    def test_a_promoted_version_is_no_longer_pending(self, store: SecretStore, oracle: SecretsOracle) -> None:
        self._needs(store, "pending")
        old = store.put("key", "old")
        new = store.put("key", "new", stage="pending")
        store.promote("key", new.version)
        assert "new" == store.get("key").reveal()
        assert "old" == store.get("key", stage="previous").reveal()
        assert b"new" == oracle.value(f"{store.name}/key")
        _raises(NotFound, lambda: store.get("key", stage="pending"))
        assert [(new.version, frozenset({"current"})), (old.version, frozenset({"previous"}))] == _history(store, "key")

    def test_a_second_pending_version_takes_the_stage(self, store: SecretStore) -> None:
        self._needs(store, "pending")
        store.put("key", "current")
        first = store.put("key", "first", stage="pending")
        second = store.put("key", "second", stage="pending")
        assert "second" == store.get("key", stage="pending").reveal()
        assert {first.version: frozenset(), second.version: frozenset({"pending"})} == {
            version: stages for version, stages in _history(store, "key") if stages != {"current"}
        }

    def test_a_pending_version_outlives_a_put_and_a_rollback(self, store: SecretStore) -> None:
        self._needs(store, "pending")
        first = store.put("key", "first")
        pending = store.put("key", "pending", stage="pending")
        store.put("key", "second")
        assert pending.version == store.get("key", stage="pending").version
        store.promote("key", first.version)
        assert pending.version == store.get("key", stage="pending").version
        assert ("first", "second") == (store.get("key").reveal(), store.get("key", stage="previous").reveal())

    def test_a_pending_version_needs_a_secret(self, store: SecretStore, oracle: SecretsOracle) -> None:
        self._needs(store, "pending")
        _raises(NotFound, lambda: store.put("key", "value", stage="pending"))
        assert not store.exists("key")
        assert oracle.value(f"{store.name}/key") is None

    def test_a_rollback_exchanges_current_and_previous(self, store: SecretStore, oracle: SecretsOracle) -> None:
        self._needs(store, "history")
        first, second = store.put("key", "one"), store.put("key", "two")
        for current, previous in ((first, second), (second, first)):
            store.promote("key", current.version)
            assert current.version == store.get("key").version
            assert previous.version == store.get("key", stage="previous").version
            assert current.reveal_bytes() == oracle.value(f"{store.name}/key")

    def test_a_version_is_promoted_only_over_what_was_seen(self, store: SecretStore, oracle: SecretsOracle) -> None:
        """Whoever slept in between does not bring an old value back."""
        self._needs(store, "pending")
        old = store.put("key", "old")
        pending = store.put("key", "pending", stage="pending")
        if not store.features.if_match:
            _raises(Unsupported, lambda: store.promote("key", pending.version, if_match=old.token))
            return
        store.put("key", "meanwhile")
        _raises(PreconditionFailed, lambda: store.promote("key", pending.version, if_match=old.token))
        assert b"meanwhile" == oracle.value(f"{store.name}/key")
        assert pending.version == store.get("key", stage="pending").version
        store.promote("key", pending.version, if_match=store.get("key").token)
        assert b"pending" == oracle.value(f"{store.name}/key")
        store.promote("key", pending.version, if_match=old.token)  # it is current: again, after a lost answer

    def test_promoting_the_current_version_changes_nothing(self, store: SecretStore) -> None:
        self._needs(store, "history")
        store.put("key", "one")
        current = store.put("key", "two")
        before = _history(store, "key")
        store.promote("key", current.version)
        assert before == _history(store, "key")
        assert current.token == store.get("key").token

    # seeing new values

    def test_a_watch_tells_the_present_value_and_each_new_one(self, store: SecretStore) -> None:
        with SecretWatch(store, ["key"], wait=lambda _: False) as changes:
            for value in ("one", "two", "three"):
                version = store.put("key", value).version
                found = next(changes)
                assert (version, value, "key") == (found.version, found.reveal(), found.name)

    def test_whoever_is_refused_with_a_kept_value_gets_the_one_that_replaced_it(self, store: SecretStore) -> None:
        store.put("key", "old")
        cache = store.cached()
        assert "old" == cache.get("key").reveal()
        accepted, tried = "pending", list[str]()
        if store.features.pending:
            store.put("key", "pending", stage="pending")
        else:
            store.put("key", "pending")
        for _ in range(2):
            for attempt in cache.retrying("key", on=ConnectionRefusedError):
                with attempt as secret:
                    tried.append(secret.reveal())
                    if tried[-1] != accepted:
                        raise ConnectionRefusedError
            store.put("key", accepted := "new")
        assert "old" == tried[0]
        assert "pending" in tried[1:]
        assert "new" == tried[-1]

    # compare and swap

    def test_if_absent_writes_once(self, store: SecretStore, untouched: SecretStore, oracle: SecretsOracle) -> None:
        if not store.features.if_absent:
            _raises(Unsupported, lambda: untouched.put("key", "value", if_absent=True))
            return
        store.put("key", "first", if_absent=True)
        _raises(PreconditionFailed, lambda: store.put("key", "second", if_absent=True))
        assert "first" == store.get("key").reveal()
        assert b"first" == oracle.value(f"{store.name}/key")

    def test_if_match_writes_only_over_that_version(self, store: SecretStore, untouched: SecretStore) -> None:
        if not store.features.if_match:
            _raises(Unsupported, lambda: untouched.put("key", "value", if_match=Token("1")))
            return
        first = store.put("key", "first")
        second = store.put("key", "second", if_match=first.token)
        _raises(PreconditionFailed, lambda: store.put("key", "third", if_match=first.token))
        assert "second" == store.get("key").reveal()
        store.put("key", "fourth", if_match=second.token)
        assert "fourth" == store.get("key").reveal()

    def test_if_match_does_not_make_a_secret(self, store: SecretStore) -> None:
        self._needs(store, "if_match")
        token = store.put("other", "value").token
        with pytest.raises((PreconditionFailed, NotFound)):
            store.put("key", "value", if_match=token)
        assert not store.exists("key")

    def test_every_put_and_promote_makes_a_new_token(self, store: SecretStore) -> None:
        self._needs(store, "if_match")
        first = store.put("key", "one")
        tokens = [first.token, store.put("key", "one").token]
        if store.features.pending:
            pending = store.put("key", "two", stage="pending")
            tokens.append(store.get("key").token)
            assert pending.token == tokens[-1]
            store.promote("key", pending.version)
            tokens.append(store.get("key").token)
        if store.features.history:
            store.promote("key", first.version)
            tokens.append(store.get("key").token)
        assert len(set(tokens)) == len(tokens)
        assert tokens[-1] == store.get("key").token

    def test_of_many_creators_one_wins(self, store: SecretStore) -> None:
        self._needs(store, "atomic_if_match", "if_absent")
        outcomes = self._race(lambda number: store.put("key", f"writer {number}", if_absent=True))
        self._one_winner(store, outcomes)

    def test_of_many_writers_over_one_version_one_wins(self, store: SecretStore) -> None:
        self._needs(store, "atomic_if_match", "if_match")
        token = store.put("key", "before").token
        outcomes = self._race(lambda number: store.put("key", f"writer {number}", if_match=token))
        self._one_winner(store, outcomes)

    def test_writers_without_conditions_all_leave_a_version(self, store: SecretStore) -> None:
        store.put("key", "before")
        outcomes = self._race(lambda number: store.put("key", f"writer {number}"))
        written = [outcome for outcome in outcomes if isinstance(outcome, Secret)]
        refused = [type(outcome) for outcome in outcomes if not isinstance(outcome, Secret)]
        assert {Conflict} >= set(refused)
        assert len(written) == len({secret.version for secret in written})
        assert store.get("key").reveal() in {secret.reveal() for secret in written}

    # idempotency

    def test_the_same_idempotency_key_and_value_make_one_version(self, store: SecretStore) -> None:
        first = store.put("key", "value", idempotency_key="token-1")
        again = store.put("key", "value", idempotency_key="token-1")
        assert first.version == again.version
        assert first.token == again.token
        if store.features.history:
            assert [first.version] == [entry.version for entry in store.history("key")]

    def test_a_late_repetition_does_not_bring_the_old_value_back(self, store: SecretStore) -> None:
        self._needs(store, "history")
        first = store.put("key", "old", idempotency_key="token-1")
        store.put("key", "new", idempotency_key="token-2")
        assert first.version == store.put("key", "old", idempotency_key="token-1").version
        assert "new" == store.get("key").reveal()

    def test_an_idempotency_key_is_good_for_one_value(self, store: SecretStore) -> None:
        store.put("key", "value", idempotency_key="token-1")
        _raises(Conflict, lambda: store.put("key", "another", idempotency_key="token-1"))
        assert "value" == store.get("key").reveal()

    def test_an_idempotency_key_belongs_to_one_secret(self, store: SecretStore) -> None:
        store.put("a", "one", idempotency_key="token-1")
        store.put("b", "two", idempotency_key="token-1")
        assert ("one", "two") == (store.get("a").reveal(), store.get("b").reveal())

    def test_a_repeated_create_is_no_failed_precondition(self, store: SecretStore) -> None:
        self._needs(store, "if_absent")
        first = store.put("key", "value", if_absent=True, idempotency_key="token-1")
        assert first.version == store.put("key", "value", if_absent=True, idempotency_key="token-1").version

    def test_a_repeated_pending_put_stays_pending(self, store: SecretStore) -> None:
        self._needs(store, "pending")
        store.put("key", "value")
        first = store.put("key", "new", stage="pending", idempotency_key="token-1")
        again = store.put("key", "new", stage="pending", idempotency_key="token-1")
        assert (first.version, frozenset({"pending"})) == (again.version, again.stages)

    def test_idempotency_keys_of_any_length_are_taken(self, store: SecretStore) -> None:
        for key in ("x", "!~" * 64, str(uuid.uuid4())):
            version = store.put("key", "value", idempotency_key=key).version
            assert version == store.put("key", "value", idempotency_key=key).version

    # labels and expiry

    def test_labels_are_kept_until_they_are_replaced(self, store: SecretStore, untouched: SecretStore) -> None:
        labels = {"team": "core", "cost-centre": "4711"}
        if not store.features.labels:
            _raises(Unsupported, lambda: untouched.put("key", "value", labels=labels))
            return
        assert labels == dict(store.put("key", "one", labels=labels).labels)
        assert labels == dict(store.get("key").labels)
        assert [labels] == [dict(info.labels) for info in store.list()]
        assert labels == dict(store.put("key", "two").labels)
        assert labels == dict(store.get("key").labels)
        assert {"team": "web"} == dict(store.put("key", "three", labels={"team": "web"}).labels)
        assert {"team": "web"} == dict(store.get("key").labels)
        store.put("key", "four", labels={})
        assert {} == dict(store.get("key").labels)

    def test_labels_that_cannot_be_kept_are_refused_before_anything_is_sent(self, untouched: SecretStore) -> None:
        self._needs(untouched, "labels")
        too_many = {f"label-{number}": "x" for number in range((untouched.features.max_labels or _FEW).value + 1)}
        refused = [{"": "x"}, *([too_many] if untouched.features.max_labels else [])]
        for labels in refused:
            _raises(InvalidArgument, partial(untouched.put, "key", "value", labels=labels))

    def test_as_many_labels_as_the_limit_says_are_kept(self, store: SecretStore) -> None:
        self._needs(store, "labels")
        labels = {f"label-{number}": f"value-{number}" for number in range((store.features.max_labels or _FEW).value)}
        store.put("key", "value", labels=labels)
        assert labels == dict(store.get("key").labels)

    def test_an_expiry_is_kept_until_it_is_replaced(self, store: SecretStore, untouched: SecretStore) -> None:
        expires = datetime.now(UTC).replace(microsecond=0) + YEAR
        if not store.features.expiry:
            _raises(Unsupported, lambda: untouched.put("key", "value", expires=expires))
            return
        store.put("key", "one", expires=expires.astimezone(timezone(timedelta(hours=5))))
        assert expires == store.get("key").expires
        assert [expires] == [info.expires for info in store.list()]
        store.put("key", "two")
        assert expires == store.get("key").expires
        store.put("key", "three", expires=expires + YEAR)
        assert expires + YEAR == store.get("key").expires

    # changes without a new version

    def test_labels_change_without_a_new_version_or_not_at_all(
        self, store: SecretStore, untouched: SecretStore
    ) -> None:
        if not store.features.update:
            _raises(Unsupported, lambda: untouched.update("key", labels={"team": "core"}))
            return
        self._needs(store, "labels")
        store.put("key", "one", labels={"team": "core", "cost-centre": "4711"})
        store.put("key", "two")
        history = _history(store, "key")
        for labels in ({"team": "web"}, {"team": "web", "shop": "north"}, {}):
            store.update("key", labels=labels)
            found = store.get("key")
            assert labels == dict(found.labels)
            assert ("two", frozenset({"current"})) == (found.reveal(), found.stages)
            assert history == _history(store, "key")

    def test_an_expiry_changes_without_a_new_version(self, store: SecretStore) -> None:
        self._needs(store, "update", "expiry")
        expires = datetime.now(UTC).replace(microsecond=0) + YEAR
        labels = {"team": "core"} if store.features.labels else None
        version = store.put("key", "value", labels=labels, expires=expires).version
        store.update("key", expires=(expires + YEAR).astimezone(timezone(timedelta(hours=5))))
        assert expires + YEAR == store.get("key").expires
        if labels is not None:
            store.update("key", labels={"team": "web"})
            assert expires + YEAR == store.get("key").expires
        for _ in range(2):
            store.update("key", expires="never")
            assert store.get("key").expires is None
        assert (version, {"team": "web"} if labels else {}) == (store.get("key").version, dict(store.get("key").labels))

    def test_a_change_of_labels_obeys_if_match(self, store: SecretStore) -> None:
        self._needs(store, "update", "labels", "if_match")
        old = store.put("key", "one", labels={"team": "core"}).token
        new = store.put("key", "two").token
        _raises(PreconditionFailed, lambda: store.update("key", labels={}, if_match=old))
        assert {"team": "core"} == dict(store.get("key").labels)
        store.update("key", labels={"team": "web"}, if_match=new)
        assert {"team": "web"} == dict(store.get("key").labels)

    def test_what_is_missing_or_deleted_has_no_labels_to_change(self, store: SecretStore) -> None:
        self._needs(store, "update", "labels")
        _raises(NotFound, lambda: store.update("missing", labels={"team": "core"}))
        if store.features.recovery:
            store.put("key", "value")
            store.delete("key", recovery=self._recovery(store))
            _raises(NotFound, lambda: store.update("key", labels={"team": "core"}))

    def test_changes_that_cannot_be_kept_are_refused_before_anything_is_sent(self, untouched: SecretStore) -> None:
        self._needs(untouched, "update", "labels")
        _raises(InvalidArgument, lambda: untouched.update("key"))
        _raises(InvalidArgument, lambda: untouched.update("key", labels={"": "x"}))
        _raises(InvalidArgument, lambda: untouched.update("key", expires=datetime(2100, 1, 1)))  # noqa: DTZ001

    # destroy

    def test_a_destroyed_version_is_gone_with_its_stage(self, store: SecretStore, untouched: SecretStore) -> None:
        if not store.features.destroy:
            _raises(Unsupported, lambda: untouched.destroy("key", "1"))
            return
        oldest, old, new = (store.put("key", value) for value in ("one", "two", "three"))
        pending = store.put("key", "four", stage="pending") if store.features.pending else old
        for gone in (old, pending):
            if gone.version in {entry.version for entry in store.history("key") if entry.enabled}:
                store.destroy("key", gone.version)
            with pytest.raises((NotFound, Conflict)):
                store.get("key", version=gone.version)
            with pytest.raises((NotFound, Conflict)):
                store.promote("key", gone.version)
        _raises(NotFound, lambda: store.get("key", stage="previous"))
        if store.features.pending:
            _raises(NotFound, lambda: store.get("key", stage="pending"))
        assert ("three", "one") == (store.get("key").reveal(), store.get("key", version=oldest.version).reveal())
        assert {new.version, oldest.version} == {entry.version for entry in store.history("key") if entry.enabled}

    def test_the_current_version_is_not_destroyed(self, store: SecretStore) -> None:
        self._needs(store, "destroy")
        current = store.put("key", "value")
        _raises(Conflict, lambda: store.destroy("key", current.version))
        assert "value" == store.get("key").reveal()

    # disable

    def test_a_disabled_version_is_not_readable(self, store: SecretStore, untouched: SecretStore) -> None:
        if not store.features.disable:
            _raises(Unsupported, lambda: untouched.disable("key", "1"))
            return
        old, new = store.put("key", "old"), store.put("key", "new")
        for _ in range(2):
            store.disable("key", old.version)
        _raises(Conflict, lambda: store.get("key", version=old.version))
        _raises(Conflict, lambda: store.get("key", stage="previous"))
        _raises(Conflict, lambda: store.promote("key", old.version))
        assert "new" == store.get("key").reveal()
        assert {old.version: False, new.version: True} == {
            entry.version: entry.enabled for entry in store.history("key")
        }

    def test_an_idempotency_key_of_a_disabled_version_is_refused(self, store: SecretStore) -> None:
        self._needs(store, "disable")
        first = store.put("key", "value", idempotency_key="token-1")
        store.put("key", "another")
        store.disable("key", first.version)
        before = _history(store, "key")
        _raises(Conflict, lambda: store.put("key", "value", idempotency_key="token-1"))
        assert before == _history(store, "key")

    # deletion

    def test_a_secret_deleted_for_good_is_gone(self, store: SecretStore, oracle: SecretsOracle) -> None:
        first = store.put("key", "value", idempotency_key="token-1")
        store.delete("key", recovery=None)
        assert not store.exists("key")
        assert oracle.value(f"{store.name}/key") is None
        assert [] == list(store.list())
        _raises(NotFound, lambda: store.get("key"))
        if store.features.recovery:
            assert [] == list(store.list(deleted=True))
            _raises(NotFound, lambda: store.restore("key"))
        store.put("key", "another", idempotency_key="token-1")
        assert "another" == store.get("key").reveal()
        if store.features.history:
            assert len(list(store.history("key"))) == 1
        if store.features.if_match:
            with pytest.raises(PreconditionFailed):
                store.put("key", "value", if_match=first.token)

    def test_recovery_is_offered_or_refused(self, store: SecretStore, untouched: SecretStore) -> None:
        if store.features.recovery:
            store.put("key", "value")
            store.delete("key", recovery=self._recovery(store))
            store.restore("key")
            assert "value" == store.get("key").reveal()
            return
        _raises(Unsupported, lambda: untouched.delete("key"))
        _raises(Unsupported, lambda: untouched.restore("key"))
        _raises(Unsupported, lambda: untouched.list(deleted=True))

    def test_a_secret_in_recovery_is_as_if_it_were_not_there(self, store: SecretStore, oracle: SecretsOracle) -> None:
        self._needs(store, "recovery")
        version = store.put("key", "value").version
        store.put("other", "value")
        store.delete("key", recovery=self._recovery(store))
        assert not store.exists("key")
        assert ["other"] == [info.name for info in store.list()]
        assert oracle.value(f"{store.name}/key") is None
        _raises(NotFound, lambda: store.get("key"))
        _raises(NotFound, lambda: store.get("key", version=version))
        _raises(NotFound, lambda: store.delete("key", recovery=self._recovery(store)))
        if store.features.history:
            _raises(NotFound, lambda: list(store.history("key")))
            _raises(NotFound, lambda: store.promote("key", version))

    def test_a_listing_of_deleted_secrets_tells_when(self, store: SecretStore) -> None:
        self._needs(store, "recovery")
        store.put("key", "value")
        store.put("other", "value")
        store.delete("key", recovery=self._recovery(store))
        (info,) = store.list(deleted=True)
        assert "key" == info.name
        assert info.deleted is not None
        assert info.deleted.tzinfo is not None

    def test_a_name_in_recovery_is_taken(self, store: SecretStore) -> None:
        self._needs(store, "recovery")
        store.put("key", "value")
        store.delete("key", recovery=self._recovery(store))
        refused = [_raises(Conflict, lambda: store.put("key", "another"))]
        if store.features.if_absent:
            refused.append(_raises(Conflict, lambda: store.put("key", "another", if_absent=True)))
        assert all("restore it, or purge it" in error.message for error in refused)
        store.delete("key", recovery=None)
        store.put("key", "another")
        assert "another" == store.get("key").reveal()

    def test_a_restored_secret_is_as_it_was(self, store: SecretStore) -> None:
        self._needs(store, "recovery")
        labels = {"team": "core"} if store.features.labels else None
        store.put("key", "one", labels=labels)
        store.put("key", "two")
        if store.features.pending:
            store.put("key", "three", stage="pending")
        before, history = store.get("key"), _history(store, "key")
        store.delete("key", recovery=self._recovery(store))
        for _ in range(2):  # a living one: no change
            store.restore("key")
        after = store.get("key")
        assert (before.version, before.stages, before.labels) == (after.version, after.stages, after.labels)
        assert "two" == after.reveal()
        assert history == _history(store, "key")
        assert [] == list(store.list(deleted=True))

    def test_a_recovery_above_the_limit_is_refused_before_anything_is_sent(self, untouched: SecretStore) -> None:
        self._needs(untouched, "recovery")
        _raises(InvalidArgument, lambda: untouched.delete("key", recovery=timedelta(0)))
        limit = untouched.features.max_recovery
        if limit is not None:
            _raises(InvalidArgument, lambda: untouched.delete("key", recovery=timedelta(days=limit.value + 1)))

    # what is missing

    def test_what_is_missing_is_not_found(self, store: SecretStore) -> None:
        features = store.features
        other = [store.put("other", f"value {number}") for number in range(3)][-1].version
        store.put("key", "value")
        acts: list[Callable[[], object]] = [
            lambda: store.get("missing"),
            lambda: store.get("missing", version=other),
            lambda: store.get("key", version=other),
            lambda: store.delete("missing", recovery=None),
        ]
        if features.history:
            acts += [
                lambda: store.get("key", stage="previous"),
                lambda: list(store.history("missing")),
                lambda: store.promote("missing", other),
                lambda: store.promote("key", other),
            ]
        if features.pending:
            acts += [lambda: store.get("key", stage="pending")]
        if features.disable:
            acts += [lambda: store.disable("missing", other), lambda: store.disable("key", other)]
        if features.destroy:
            acts += [lambda: store.destroy("missing", other), lambda: store.destroy("key", other)]
        if features.recovery:
            acts += [
                lambda: store.delete("missing", recovery=self._recovery(store)),
                lambda: store.restore("missing"),
            ]
        for act in acts:
            _raises(NotFound, act)
        assert "value" == store.get("key").reveal()

    def test_exists_tells_the_missing_from_the_present(self, store: SecretStore) -> None:
        store.put("key", "value")
        assert (True, False, False) == (store.exists("key"), store.exists("missing"), store.exists("key/below"))

    def test_a_missing_variable_of_an_environment_is_named_with_all_others(self, store: SecretStore) -> None:
        store.put("key", "value")
        assert {"A": "value", "B": "value"} == {
            name: value.reveal() for name, value in store.environment({"A": "key", "B": "key"}).items()
        }
        with pytest.raises(NotFound, match=r"missing-1 \(for B\), missing-2 \(for C\)"):
            store.environment({"A": "key", "B": "missing-1", "C": "missing-2"})

    def test_an_error_says_what_failed_on_what_and_where(self, store: SecretStore) -> None:
        error = _raises(NotFound, lambda: store.get("missing"))
        assert store.provider == error.provider
        assert "secrets.get" == error.operation
        assert f"secret 'missing' in prefix '{store.name}'" == str(error.resource)
        assert str(error.resource) in str(error)

    # features say no

    def test_what_the_features_deny_is_refused_before_anything_is_sent(self, untouched: SecretStore) -> None:
        features = untouched.features
        denied: list[tuple[bool, Callable[[], object]]] = [
            (features.pending, lambda: untouched.get("key", stage="pending")),
            (features.pending, lambda: untouched.put("key", "value", stage="pending")),
            (features.history, lambda: untouched.get("key", stage="previous")),
            (features.history, lambda: untouched.history("key")),
            (features.history or features.pending, lambda: untouched.promote("key", "1")),
        ]
        for supported, act in denied:
            if not supported:
                _raises(Unsupported, act)

    def test_contradicting_options_are_refused_before_anything_is_sent(self, untouched: SecretStore) -> None:
        stage = cast("Literal['current']", "previous")
        _raises(InvalidArgument, lambda: untouched.put("key", "value", stage=stage))
        _raises(InvalidArgument, lambda: untouched.put("key", "value", if_absent=True, if_match=Token("1")))
        _raises(InvalidArgument, lambda: untouched.put("key", "value", expires=datetime(2100, 1, 1)))  # noqa: DTZ001
        for key in ("", "a b", "ü", "x" * 129):
            _raises(InvalidArgument, partial(untouched.put, "key", "value", idempotency_key=key))

    # canaries

    def test_no_value_ever_shows(self, store: SecretStore, caplog: pytest.LogCaptureFixture) -> None:
        canaries = tuple(f"canary{number}-{uuid.uuid4().hex}" for number in range(3))
        with caplog.at_level(logging.DEBUG):
            said = [text for act in _acts(store, canaries) for text in _said(act)]
        said += [
            record.getMessage() + repr(record.args) + (record.exc_text or "")
            for record in caplog.records
            if not record.name.startswith(self.foreign_loggers or ("\x00",))
        ]
        for canary, text in itertools.product(canaries, said):
            assert canary not in text

    # what the tests share

    def _needs(self, store: SecretStore, *features: str) -> None:
        for name in features:
            if not getattr(store.features, name):
                pytest.skip(f"{type(self).__name__}: features.{name} is false")

    def _recovery(self, store: SecretStore) -> timedelta:
        limit = store.features.max_recovery
        return timedelta(days=min(30, limit.value) if limit else 30)

    def _race(self, act: Callable[[int], Secret]) -> list[Secret | OperationError]:
        barrier = threading.Barrier(self.threads)

        def run(number: int) -> Secret | OperationError:
            barrier.wait()
            try:
                return act(number)
            except OperationError as error:
                return error

        with ThreadPoolExecutor(self.threads) as pool:
            return list(pool.map(run, range(self.threads)))

    def _one_winner(self, store: SecretStore, outcomes: list[Secret | OperationError]) -> None:
        won = [outcome.reveal() for outcome in outcomes if isinstance(outcome, Secret)]
        lost = {type(outcome) for outcome in outcomes if not isinstance(outcome, Secret)}
        assert [store.get("key").reveal()] == won
        assert lost <= {PreconditionFailed, Conflict}


@attrs.frozen
class _Few:
    value: int = 3


_FEW = _Few()
"""Labels to try where no limit is known."""


def _history(store: SecretStore, key: str) -> list[tuple[str, frozenset[Stage]]]:
    return [(entry.version, entry.stages) for entry in store.history(key)] if store.features.history else []


def _raises(expected: type[OperationError], act: Callable[[], object]) -> OperationError:
    """Demand that class and no subclass of it: a missing secret is no missing parent."""
    with pytest.raises(expected) as caught:
        act()
    assert expected is type(caught.value)
    return caught.value


def _acts(store: SecretStore, canaries: tuple[str, ...]) -> Iterator[Callable[[], object]]:
    """Yield every operation, done well and done wrong, with values that must not show."""
    one, two, three = canaries
    huge = one * (store.features.max_value.value // len(one) + 1)
    known: list[Secret] = []

    def put(key: str, value: str | bytes, **options: Any) -> Secret:  # noqa: ANN401  the options of put
        known.append(store.put(key, value, **options))
        return known[-1]

    yield lambda: put("key", one, idempotency_key="token-1")
    yield lambda: put("key", two, idempotency_key="token-1")
    yield lambda: put("key", three.encode())
    yield lambda: put("key", two, if_absent=True)
    yield lambda: put("key", two, if_match=known[0].token)
    yield lambda: put("key", two, if_match=Token("no such token"))
    yield lambda: put("key", two, stage="pending")
    yield lambda: put("missing", two, stage="pending")
    yield lambda: put("key", two, stage="nonsense")
    yield lambda: put("key", two, labels={"": "x"})
    yield lambda: put("key", two, expires=datetime(2100, 1, 1))  # noqa: DTZ001
    yield lambda: put("key", two, idempotency_key="not a key")
    yield lambda: put("key", huge)
    yield lambda: put("key", b"\xff" + two.encode())
    yield lambda: put("key", f"{two}\ud800")
    yield lambda: put("/key", two)
    yield lambda: store.get("key")
    yield lambda: store.get("key", stage="previous")
    yield lambda: store.get("key", stage="pending")
    yield lambda: store.get("key", version=known[0].version)
    yield lambda: store.get("missing")
    yield lambda: store.environment({"A": "key"})
    yield lambda: store.environment({"A": "key", "B": "missing"})
    yield lambda: list(store.list())
    yield lambda: list(store.history("key"))
    yield lambda: store.promote("key", known[0].version)
    yield lambda: store.promote("key", "no-such-version")
    yield lambda: store.update("key", labels={"team": "core"})
    yield lambda: store.update("key", expires="never", if_match=Token("no such token"))
    yield lambda: store.disable("key", known[-1].version)
    yield lambda: store.destroy("key", known[-1].version)
    yield lambda: store.get("key", version=known[-1].version)
    yield lambda: store.delete("key", recovery=timedelta(days=7))
    yield lambda: put("key", two)
    yield lambda: store.restore("key")
    yield lambda: store.delete("key", recovery=None)
    yield lambda: put("key", two, if_match=known[0].token)


def _said(act: Callable[[], object]) -> Iterator[str]:
    """Do it, and yield everything that its result or its error tells."""
    try:
        told: object = act()
    except ShiftableError as error:
        told = error
        yield "".join(traceback.format_exception(error))
        chain: BaseException | None = error
        while chain is not None:
            yield f"{chain} {chain!r} {chain.args!r}"
            chain = chain.__cause__ or chain.__context__
    yield f"{told} {told!r} {told:}"
    try:
        yield pickle.dumps(told).decode("latin-1")
    except TypeError as refusal:  # a masked value is not pickled
        yield f"{refusal}"


KEYS = ("a", "b", "a/b")
_VALUES = st.one_of(
    st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1, max_size=20), st.just("same")
)


@attrs.frozen
class _Outcome:
    """What a call answered, in words that two stores share, and the ids and tokens that they do not."""

    answer: object
    version: str = ""
    token: Token | None = None


@attrs.frozen
class _Pair:
    """The same version in the store and in the model.

    Args:
        life: how often the secret had been deleted for good: ids may come again after that.
        epoch: how often its state had changed without a write: that may change the token, or not.
    """

    key: str
    life: int
    epoch: int
    real: _Outcome
    model: _Outcome


class SecretsMachine(RuleBasedStateMachine):
    """Does the same to a store and to the memory model, and compares all answers."""

    versions = Bundle("versions")

    def make_store(self) -> SecretStore:
        """Return the empty store of one run."""
        raise TypeError("make the machine with secrets_machine(make_store)")

    @initialize()
    def begin(self) -> None:
        self.real = self.make_store()
        self.model = Secrets(MemorySecretsDriver()).store(self.real.name)
        self.features = self.real.features
        self.lives, self.epochs = Counter[str](), Counter[str]()
        self.ids: dict[tuple[str, int, str], str] = {}

    def both(self, act: Callable[[SecretStore], object]) -> tuple[_Outcome, _Outcome]:
        real, model = _outcome(self.real, act), _outcome(self.model, act)
        assert model.answer == real.answer
        return real, model

    @rule(
        target=versions,
        key=st.sampled_from(KEYS),
        value=_VALUES,
        pending=st.booleans(),
        if_absent=st.booleans(),
        token=st.sampled_from((None, "1", "2")),
    )
    def put(self, key: str, value: str, *, pending: bool, if_absent: bool, token: str | None) -> Any:  # noqa: ANN401
        stage: Literal["current", "pending"] = "pending" if pending and self.features.pending else "current"
        absent = if_absent and self.features.if_absent and stage == "current"
        real, model = self.both(
            lambda store: store.put(key, value, stage=stage, if_absent=absent, idempotency_key=token)
        )
        return self.paired(key, real, model)

    def paired(self, key: str, real: _Outcome, model: _Outcome) -> Any:  # noqa: ANN401  hypothesis' own
        if not real.version:
            return multiple()
        life = self.lives[key]
        assert self.ids.setdefault((key, life, real.version), model.version) == model.version
        return _Pair(key, life, self.epochs[key], real, model)

    @rule(target=versions, before=versions, value=_VALUES)
    def put_if_match(self, before: _Pair, value: str) -> Any:  # noqa: ANN401
        if not self.features.if_match or before.epoch != self.epochs[before.key]:
            return multiple()
        real = _outcome(self.real, lambda store: store.put(before.key, value, if_match=before.real.token))
        model = _outcome(self.model, lambda store: store.put(before.key, value, if_match=before.model.token))
        if model.answer is PreconditionFailed and not self.model.exists(before.key):
            assert real.answer in (PreconditionFailed, NotFound)
        else:
            assert model.answer == real.answer
        return self.paired(before.key, real, model)

    @rule(key=st.sampled_from(KEYS), stage=st.sampled_from(("current", "previous", "pending")))
    def get(self, key: str, stage: Stage) -> None:
        if getattr(self.features, {"previous": "history"}.get(stage, stage), True):
            self.both(lambda store: store.get(key, stage=stage))

    @rule(version=versions)
    def get_version(self, version: _Pair) -> None:
        self.same(version, lambda store, id_: store.get(version.key, version=id_))

    @rule(version=versions)
    def promote(self, version: _Pair) -> None:
        if self.features.history:
            self.same(version, lambda store, id_: store.promote(version.key, id_))

    @rule(version=consumes(versions))
    def disable(self, version: _Pair) -> None:
        if self.features.disable:
            self.epochs[version.key] += 1
            self.same(version, lambda store, id_: store.disable(version.key, id_))

    def same(self, version: _Pair, act: Callable[[SecretStore, str], object]) -> None:
        """Do the same to one version, unless the provider has dropped it as too old or may have given its id anew."""
        kept = self.features.max_versions
        ids = [entry[0] for entry in _living_history(self.model, version.key)]
        dropped = kept is not None and version.model.version in ids[kept.value :]
        if dropped or version.life != self.lives[version.key]:
            return
        real = _outcome(self.real, lambda store: act(store, version.real.version))
        model = _outcome(self.model, lambda store: act(store, version.model.version))
        assert model.answer == real.answer

    @rule(key=st.sampled_from(KEYS), labels=st.sampled_from(({}, {"team": "core"}, {"team": "web", "shop": "north"})))
    def update(self, key: str, labels: dict[str, str]) -> None:
        if self.features.update and self.features.labels:
            self.both(lambda store: store.update(key, labels=labels))
            self.epochs[key] += 1

    @rule(key=st.sampled_from(KEYS))
    def labels(self, key: str) -> None:
        if self.features.labels:
            self.both(lambda store: sorted(store.get(key).labels.items()))

    @rule(key=st.sampled_from(KEYS), forever=st.booleans())
    def delete(self, key: str, *, forever: bool) -> None:
        window = None if forever or not self.features.recovery else timedelta(days=7)
        real, _ = self.both(lambda store: store.delete(key, recovery=window))
        if real.answer is None:
            self.epochs[key] += 1
            self.lives[key] += window is None

    @rule(key=st.sampled_from(KEYS))
    def restore(self, key: str) -> None:
        if self.features.recovery:
            self.both(lambda store: store.restore(key))

    @rule(prefix=st.sampled_from(("", "a", "a/", "c")))
    def list_(self, prefix: str) -> None:
        self.both(lambda store: sorted(info.name for info in store.list(prefix)))
        if self.features.recovery:
            self.both(lambda store: sorted(info.name for info in store.list(prefix, deleted=True)))

    @invariant()
    def histories_are_the_same(self) -> None:
        if not hasattr(self, "real") or not self.features.history:
            return
        kept = self.features.max_versions
        for key in KEYS:
            real, model = _living_history(self.real, key), _living_history(self.model, key)
            stop = kept.value if kept is not None else None
            named = [(self.ids[key, self.lives[key], version], *rest) for version, *rest in real]
            assert [tuple(entry) for entry in model[:stop]] == named[:stop]


def secrets_machine(make_store: Callable[[], SecretStore]) -> type[SecretsMachine]:
    """Make the state machine for a driver; run it with ``secrets_machine(make_store).TestCase``.

    Args:
        make_store: called for each run; the store must be empty.
    """
    return type("Secrets", (SecretsMachine,), {"make_store": lambda _: make_store()})


def _living_history(store: SecretStore, key: str) -> list[tuple[str, frozenset[Stage], bool]]:
    try:
        return [(entry.version, entry.stages, entry.enabled) for entry in store.history(key)]
    except NotFound:
        return []


def _outcome(store: SecretStore, act: Callable[[SecretStore], object]) -> _Outcome:
    try:
        answer = act(store)
    except OperationError as error:
        return _Outcome(type(error))
    if isinstance(answer, Secret):
        return _Outcome((answer.name, answer.reveal_bytes(), answer.stages), answer.version, answer.token)
    return _Outcome(answer)

"""The driver of secrets on Vault and OpenBao: the rules for all drivers, and what a server and other tools do to it."""

from __future__ import annotations

import base64
import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import attrs
import hvac
import pytest
import requests
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

import shiftable
from shiftable.config import Credential
from shiftable.errors import (
    ConfigError,
    Conflict,
    InvalidArgument,
    NotFound,
    OperationError,
    ParentNotFound,
    PermissionDenied,
    PreconditionFailed,
    Throttled,
    Timeout,
    Unauthenticated,
    Unavailable,
    Unsupported,
)
from shiftable.provider import Purpose
from shiftable.secrets import Secrets, SecretsSpec, SecretStore
from shiftable.testing.conformance.secrets import SecretsConformance, SecretsOracle, secrets_machine
from shiftable.testing.harness import Call, Double
from shiftable_baremetal import BaremetalProvider, BaremetalSettings, VaultSettings, _vault_session
from shiftable_baremetal._vault_engine import KvEngine
from shiftable_baremetal._vault_session import VaultSession
from shiftable_baremetal.double_vault import Login, Rule, VaultDouble
from shiftable_baremetal.secrets_vault import FEATURES, VaultDriver, open_vault

BESIDE = ".shiftable-pending"


@attrs.define
class Backend:
    """Reads what ``vault kv get`` shows: the double's own state."""

    double: VaultDouble

    def value(self, name: str) -> bytes | None:
        fields = self.double.fields(name)
        if fields is None:
            return None
        return base64.b64decode(fields["value"]) if fields.get("encoding") == "base64" else fields["value"].encode()

    def names(self) -> list[str]:
        return [name for name in self.double.names() if not name.endswith(".shiftable-pending")]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep the tests away from the servers and tokens of who runs them."""
    for name in ("ADDR", "TOKEN", "NAMESPACE", "CACERT", "CAPATH"):
        monkeypatch.delenv(f"VAULT_{name}", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(_vault_session, "_RETRIES", _vault_session._RETRIES.new(backoff_factor=0, backoff_jitter=0))
    return tmp_path / "home"


@pytest.fixture
def double(shiftable_double: Callable[[str], Double]) -> VaultDouble:
    return cast("VaultDouble", shiftable_double("vault"))


@pytest.fixture
def provider(double: VaultDouble) -> Iterator[BaremetalProvider]:
    made = BaremetalProvider(BaremetalSettings(vault=VaultSettings(**double.config["vault"])))
    yield made
    made.close()


@pytest.fixture
def driver(provider: BaremetalProvider) -> Iterator[VaultDriver]:
    made = provider.secrets()
    assert isinstance(made, VaultDriver)
    yield made
    made.close()


@pytest.fixture
def shop(driver: VaultDriver) -> SecretStore:
    return Secrets(driver).store("shop")


class TestConformance(SecretsConformance):
    @pytest.fixture
    def driver(self, driver: VaultDriver) -> VaultDriver:
        return driver

    @pytest.fixture
    def oracle(self, double: VaultDouble) -> SecretsOracle:
        return Backend(double)


@pytest.mark.parametrize("kept", [1000, 0])
def test_any_sequence_of_calls_answers_as_the_memory_model(driver: VaultDriver, double: VaultDouble, kept: int) -> None:
    def make_store() -> SecretStore:
        double.reset()
        double.max_versions = kept
        return Secrets(driver).store("machine")

    quick = settings(
        max_examples=25,
        stateful_step_count=20 if kept else 8,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(secrets_machine(make_store), settings=quick)


# what other tools see, and what they do


@pytest.fixture
def kv(double: VaultDouble) -> Iterator[Any]:
    """Return what stands for the ``vault kv`` command: hvac itself."""
    client: Any = hvac.Client(url=double.url, token=double.token)
    yield client.secrets.kv.v2
    client.adapter.close()


def test_a_text_is_the_field_value_and_nothing_else(shop: SecretStore, double: VaultDouble) -> None:
    shop.put("key", "one")
    shop.put("key", "two")
    assert {"value": "two"} == double.fields("shop/key")
    assert {} == double.custom("shop/key")


def test_bytes_are_base64_and_say_so(shop: SecretStore, double: VaultDouble) -> None:
    shop.put("key", b"\x00\xff")
    assert {"value": "AP8=", "encoding": "base64"} == double.fields("shop/key")


def test_other_tools_never_see_a_pending_version(shop: SecretStore, double: VaultDouble) -> None:
    shop.put("key", "old")
    pending = shop.put("key", "new", stage="pending")
    assert {"value": "old"} == double.fields("shop/key")
    assert ["shop/key@1"] == double.stored("old")
    assert [f"shop/key{BESIDE}@1"] == double.stored("new")
    shop.promote("key", pending.version)
    assert {"value": "new", "shiftable": "2 p1"} == double.fields("shop/key")


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"password": "x"}, '{"password":"x"}'),
        ({"user": "ü", "password": "x"}, '{"password":"x","user":"ü"}'),
        ({"value": "x", "user": "u"}, '{"user":"u","value":"x"}'),
        ({"value": 5}, '{"value":5}'),
        ({"value": "x", "encoding": "utf-8"}, '{"encoding":"utf-8","value":"x"}'),
        ({"value": "no base64", "encoding": "base64"}, '{"encoding":"base64","value":"no base64"}'),
        ({"value": {"deep": [1, None, True]}}, '{"value":{"deep":[1,null,true]}}'),
        ({}, "{}"),
    ],
    ids=[
        "one field",
        "two",
        "value and another",
        "a number",
        "text",
        "no base64",
        "deep",
        "none",
    ],
)
def test_fields_of_other_tools_are_read_as_the_text_of_an_object(
    shop: SecretStore, kv: Any, double: VaultDouble, fields: dict[str, Any], text: str
) -> None:
    kv.create_or_update_secret("shop/key", fields)
    shop.put("key", "ours")
    assert text == shop.get("key", stage="previous").reveal()
    shop.promote("key", "1")
    assert text == shop.get("key").reveal()
    assert {**fields, "shiftable": "3 1"} == double.fields("shop/key")


def test_a_field_of_another_tool_that_is_called_as_ours_is_kept(
    shop: SecretStore, kv: Any, double: VaultDouble
) -> None:
    fields = {"shiftable": "mine", "value": "x"}
    kv.create_or_update_secret("shop/key", fields)
    assert '{"shiftable":"mine","value":"x"}' == shop.get("key").reveal()
    shop.put("key", "ours")
    with pytest.raises(Conflict, match="has a field 'shiftable' of its own"):
        shop.promote("key", "1")
    assert {"value": "ours"} == double.fields("shop/key")


def test_a_version_of_another_tool_is_current_and_keeps_what_is_pending(shop: SecretStore, kv: Any) -> None:
    first = shop.put("key", "one", idempotency_key="first")
    pending = shop.put("key", "two", stage="pending", idempotency_key="second")
    kv.create_or_update_secret("shop/key", {"value": "theirs"})
    assert ("theirs", "2") == (shop.get("key").reveal(), shop.get("key").version)
    assert ("one", "two") == tuple(shop.get("key", stage=stage).reveal() for stage in ("previous", "pending"))
    assert first.version == shop.put("key", "one", idempotency_key="first").version
    assert pending.version == shop.put("key", "two", stage="pending", idempotency_key="second").version


def test_what_another_tool_copied_or_patched_is_a_version_of_its_own(
    shop: SecretStore, kv: Any, double: VaultDouble
) -> None:
    for value in ("one", "two"):
        shop.put("key", value, idempotency_key=value)
    shop.promote("key", "1")
    copied = dict(double.fields("shop/key") or {})
    kv.create_or_update_secret("shop/key", copied)  # vault kv rollback
    assert ("4", "one") == (shop.get("key").version, shop.get("key").reveal())
    kv.create_or_update_secret("shop/key", copied | {"value": "three"})  # vault kv patch
    assert ("5", "three") == (shop.get("key").version, shop.get("key").reveal())
    assert ["5", "4", "2", "1"] == [entry.version for entry in shop.history("key")]
    assert "2" == shop.put("key", "two", idempotency_key="two").version


def test_custom_metadata_that_another_tool_replaced_leave_the_current_version(shop: SecretStore, kv: Any) -> None:
    shop.put("key", "one", idempotency_key="one")
    shop.put("key", "two", stage="pending")
    kv.update_metadata("shop/key", custom_metadata={"team": "core"})
    assert ("one", {"team": "core"}) == (shop.get("key").reveal(), dict(shop.get("key").labels))
    with pytest.raises(NotFound):
        shop.get("key", stage="pending")
    fresh = shop.put("key", "three", stage="pending")
    assert ("three", "p2") == (shop.get("key", stage="pending").reveal(), fresh.version)
    assert "1" == shop.put("key", "one", idempotency_key="one").version
    shop.promote("key", fresh.version)
    kv.update_metadata("shop/key", custom_metadata={"team": "core"})
    shop.promote("key", "1")
    assert "p2" == shop.get("key", stage="previous").version


def test_what_another_tool_deleted_can_be_restored(shop: SecretStore, kv: Any) -> None:
    shop.put("key", "one")
    shop.put("key", "two")
    kv.delete_latest_version_of_secret("shop/key")
    with pytest.raises(NotFound, match="can still be restored"):
        shop.get("key")
    with pytest.raises(Conflict):
        shop.put("key", "three")
    assert ["key"] == [info.name for info in shop.list(deleted=True)]
    shop.restore("key")
    assert "two" == shop.get("key").reveal()


def test_what_another_tool_undeleted_or_stored_anew_lives(shop: SecretStore, kv: Any) -> None:
    for key in ("a", "b"):
        shop.put(key, "one")
        shop.delete(key)
    kv.undelete_secret_versions("shop/a", [1])
    kv.create_or_update_secret("shop/b", {"value": "two"})
    assert ("one", "two") == (shop.get("a").reveal(), shop.get("b").reveal())
    assert ["a", "b"] == [info.name for info in shop.list()]
    shop.put("a", "three")
    kv.delete_secret_versions("shop/a", [1])
    assert [True, False] == [entry.enabled for entry in shop.history("a")]


def test_a_destroyed_newest_version_is_disabled_and_can_be_replaced(shop: SecretStore, kv: Any) -> None:
    shop.put("key", "one")
    shop.put("key", "two")
    kv.destroy_secret_versions("shop/key", [2])
    with pytest.raises(Conflict, match="disabled"):
        shop.get("key")
    shop.promote("key", "1")
    assert "one" == shop.get("key").reveal()


def test_a_disabled_current_version_is_no_deleted_secret(shop: SecretStore) -> None:
    current = shop.put("key", "one")
    shop.disable("key", current.version)
    assert shop.exists("key")
    with pytest.raises(Conflict):
        shop.get("key")
    assert [] == list(shop.list(deleted=True))
    shop.delete("key")
    assert ["key"] == [info.name for info in shop.list(deleted=True)]
    shop.restore("key")
    with pytest.raises(Conflict):
        shop.get("key")


def test_a_deleted_secret_is_unreadable_for_all_versions_and_comes_back_as_it_was(
    shop: SecretStore, double: VaultDouble, kv: Any
) -> None:
    shop.put("key", "one")
    shop.put("key", "two")
    shop.put("key", "three")
    shop.put("key", "four", stage="pending")
    shop.disable("key", "1")
    before = [(entry.version, entry.stages, entry.enabled) for entry in shop.history("key")]
    shop.delete("key")
    for path, count in (("shop/key", 3), (f"shop/key{BESIDE}", 1)):
        told = kv.read_secret_metadata(path)["data"]["versions"]
        assert count == sum(1 for each in told.values() if each["deletion_time"])
    shop.restore("key")
    assert before == [(entry.version, entry.stages, entry.enabled) for entry in shop.history("key")]


def test_a_version_that_will_be_deleted_later_can_be_read(shop: SecretStore, double: VaultDouble) -> None:
    double.delete_after = timedelta(hours=1)
    shop.put("key", "one")
    shop.put("key", "two")
    assert ("two", "one") == (shop.get("key").reveal(), shop.get("key", stage="previous").reveal())
    double.clock.advance(timedelta(hours=2))
    assert not shop.exists("key")


def test_the_engine_keeps_ten_and_what_is_current_stays(shop: SecretStore) -> None:
    first = shop.put("key", "first")
    shop.put("key", "second")
    shop.promote("key", first.version)
    for number in range(9):
        shop.put("key", f"value {number}", idempotency_key=str(number))
    assert first.version not in [entry.version for entry in shop.history("key")][:9]
    shop.promote("key", "5")
    for _ in range(12):
        shop.promote("key", "6")
        shop.promote("key", "5")
    assert ["6", "5"] == [entry.version for entry in shop.history("key")]
    assert ("value 1", "value 2") == (shop.get("key").reveal(), shop.get("key", stage="previous").reveal())


def test_idempotency_keys_of_many_versions_are_known(shop: SecretStore, double: VaultDouble) -> None:
    double.max_versions = 60
    for number in range(50):
        shop.put("key", f"value {number}", idempotency_key=str(number))
    assert max(map(len, double.custom("shop/key").values())) <= 512
    for number in (0, 20, 49):
        assert str(number + 1) == shop.put("key", f"value {number}", idempotency_key=str(number)).version


def test_a_lost_answer_of_a_first_write_is_no_reason_to_bring_its_value_back(
    shop: SecretStore, double: VaultDouble
) -> None:
    double.inject("drop_after", match=lambda call: call.operation == "post data")
    with pytest.raises(Unavailable):
        shop.put("key", "old", idempotency_key="once")
    shop.put("key", "new")
    assert "1" == shop.put("key", "old", idempotency_key="once").version
    assert "new" == shop.get("key").reveal()


def test_a_late_repetition_makes_nothing_pending_again(shop: SecretStore, double: VaultDouble) -> None:
    shop.put("key", "one")
    pending = shop.put("key", "two", stage="pending", idempotency_key="rotation")
    shop.promote("key", pending.version)
    for number in range(12):  # so that what says that it was promoted is no longer kept
        shop.put("key", f"later {number}")
    again = shop.put("key", "two", stage="pending", idempotency_key="rotation")
    assert (pending.version, frozenset()) == (again.version, again.stages)
    with pytest.raises(NotFound):
        shop.get("key", stage="pending")


def test_a_destroyed_version_is_nowhere(shop: SecretStore, double: VaultDouble) -> None:
    shop.put("key", "one")
    pending = shop.put("key", "canary", stage="pending")
    shop.promote("key", pending.version)
    shop.put("key", "three")
    assert {"shop/key@2", f"shop/key{BESIDE}@1"} == set(double.stored("canary"))
    shop.destroy("key", pending.version)
    assert [] == double.stored("canary")


# names and listings


@pytest.mark.parametrize(
    "name", ["a", "a/b", "ü/ñ", "a b/c", "a%2Fb", "a?b#c", "*", "+/x", "~", "a\\b", "A", "x" * 200]
)
def test_a_name_is_a_path_as_it_is(driver: VaultDriver, double: VaultDouble, name: str) -> None:
    everything = Secrets(driver).store("")
    everything.put(name, "value")
    assert [name] == double.names()
    assert [name] == [info.name for info in everything.list()]
    assert "value" == everything.get(name).reveal()


@pytest.mark.parametrize(
    "name", [".", "..", "a/../b", "./a", " a", "a ", "a /b", "a\n", "a\x00", "a\u200b", f"a{BESIDE}"], ids=ascii
)
def test_a_name_that_would_be_another_path_is_refused(shop: SecretStore, double: VaultDouble, name: str) -> None:
    with pytest.raises(InvalidArgument):
        shop.put(name, "value")
    assert () == double.calls


def test_a_secret_and_a_folder_may_have_one_name_and_all_pages_are_in_order(
    shop: SecretStore, double: VaultDouble
) -> None:
    keys = [*(f"many/{number:03}" for number in range(230)), "a", "a/b", "a/b/c", "a-b", "a.b", "a0", "ü", "😀/x", "z"]
    for key in keys:
        shop.put(key, "value")
    shop.put("a", "next", stage="pending")
    shop.put("a/b", "next", stage="pending")
    assert sorted(keys) == [info.name for info in shop.list()]
    assert ["a", "a-b", "a.b", "a/b", "a/b/c", "a0"] == [info.name for info in shop.list("a")]
    assert ["many/229"] == [info.name for info in shop.list("many/229")]
    assert 230 == len(list(shop.list("many/")))


def test_a_listing_asks_for_no_more_than_its_limit(shop: SecretStore, double: VaultDouble) -> None:
    for number in range(20):
        shop.put(f"k{number:02}", "value")
    before = len(double.calls)
    assert ["k00", "k01"] == [info.name for info in shop.list(limit=2)]
    assert ["list metadata", "get metadata", "get metadata"] == [call.operation for call in double.calls[before:]]


@pytest.mark.parametrize(
    "labels",
    [{"a": ""}, {"a": "\n"}, {"a\x00": "x"}, {"x" * 129: "x"}, {"ü" * 65: "x"}, {"a": "x" * 513}, {"shiftable-x": "y"}],
    ids=["empty", "a newline", "a null", "long", "long in bytes", "a long value", "reserved"],
)
def test_labels_that_custom_metadata_cannot_be_are_refused(
    shop: SecretStore, double: VaultDouble, labels: dict[str, str]
) -> None:
    with pytest.raises(InvalidArgument):
        shop.put("key", "value", labels=labels)
    assert () == double.calls


def test_the_longest_labels_are_kept_beside_all_that_the_driver_notes(shop: SecretStore, double: VaultDouble) -> None:
    limit = FEATURES.max_labels
    assert limit is not None
    labels = {f"{number:03}".ljust(128, "x"): "ü" * 256 for number in range(limit.value)}
    shop.put("key", "one", labels=labels, idempotency_key="x")
    pending = shop.put("key", "two", stage="pending", expires=double.clock.now())
    shop.promote("key", pending.version)
    shop.disable("key", pending.version)
    shop.delete("key")
    shop.restore("key")
    shop.promote("key", "1")
    assert labels == dict(shop.get("key").labels)


# what a call costs


def test_reading_the_current_version_is_one_call(shop: SecretStore, double: VaultDouble) -> None:
    shop.put("key", "one", labels={"team": "core"})
    shop.put("key", "two", stage="pending")
    before = len(double.calls)
    found = shop.get("key")
    assert ({"team": "core"}, "1") == (dict(found.labels), found.version)
    assert ["get data"] == [call.operation for call in double.calls[before:]]


def test_a_plain_write_is_a_look_and_a_write(shop: SecretStore, double: VaultDouble) -> None:
    shop.put("key", "one")
    before = len(double.calls)
    shop.put("key", "two")
    assert ["get metadata", "post data"] == [call.operation for call in double.calls[before:]]


# lost answers and crashes: the same again ends as if nothing had happened


def _rotation(shop: SecretStore) -> None:
    fresh = shop.put("key", "new", stage="pending", idempotency_key="rotation-1", labels={"team": "core"})
    shop.promote("key", fresh.version)


def _outcome(shop: SecretStore, double: VaultDouble) -> object:
    stages: list[Any] = []
    for stage in ("current", "previous", "pending"):
        try:
            stages.append(shop.get("key", stage=cast("Any", stage)).reveal())
        except OperationError as error:
            stages.append(type(error))
    fields = double.fields("shop/key")
    deleted = [info.name for info in shop.list(deleted=True)]
    return stages, dict(fields or {}).get("value"), deleted


ACTS: dict[str, Callable[[SecretStore], object]] = {
    "a rotation": _rotation,
    "a put": lambda shop: shop.put("key", "new", idempotency_key="once", labels={"team": "core"}),
    "a first put": lambda shop: shop.put("key", "new", idempotency_key="once"),
    "a rollback": lambda shop: shop.promote("key", "1"),
    "a disabling": lambda shop: shop.disable("key", "1"),
    "a destruction": lambda shop: shop.destroy("key", "1"),
}


@pytest.mark.parametrize("kind", ["drop_before", "drop_after", "truncate"])
@pytest.mark.parametrize("act", ACTS.values(), ids=ACTS)
def test_what_broke_off_at_any_call_and_is_done_again_ends_the_same(
    shop: SecretStore, double: VaultDouble, kind: Any, act: Callable[[SecretStore], object]
) -> None:
    def prepared() -> None:
        double.reset()
        if act is not ACTS["a first put"]:
            shop.put("key", "one")
            shop.put("key", "two")

    shop.put("other", "value")  # which looks at the engine, once
    prepared()
    before = len(double.calls)
    act(shop)
    calls, expected = len(double.calls) - before, _outcome(shop, double)
    versions = [(entry.version, entry.stages, entry.enabled) for entry in shop.history("key")]
    for number in range(calls):
        prepared()
        left = [number]

        def is_it(_call: Call, left: list[int] = left) -> bool:
            left[0] -= 1
            return left[0] == -1

        broken = double.inject(kind, match=is_it, times=None)
        try:
            act(shop)
        except Unavailable:
            act(shop)
        assert broken.hits == 1
        assert expected == _outcome(shop, double)
        assert versions == [(entry.version, entry.stages, entry.enabled) for entry in shop.history("key")]


@pytest.mark.parametrize("kind", ["drop_before", "drop_after"])
def test_a_deletion_that_broke_off_is_whole_after_a_second_one(
    shop: SecretStore, double: VaultDouble, kind: Any
) -> None:
    for number in range(9):
        double.reset()
        shop.put("key", "one", idempotency_key="x")
        shop.put("key", "two", stage="pending")
        left = [number]

        def is_it(_call: Call, left: list[int] = left) -> bool:
            left[0] -= 1
            return left[0] == -1

        double.inject(kind, match=is_it, times=None)
        for _ in range(2):
            try:
                shop.delete("key")
            except (Unavailable, NotFound):
                continue
        assert not shop.exists("key")
        assert double.fields("shop/key") is None
        shop.restore("key")
        assert "one" == shop.get("key").reveal()


def test_two_writers_that_compare_and_swap_lose_no_step(provider: BaremetalProvider, double: VaultDouble) -> None:
    double.max_versions = 100
    drivers = [provider.secrets() for _ in range(2)]
    stores = [Secrets(driver).store("shop") for driver in drivers]
    stores[0].put("counter", "0")

    def count(store: SecretStore) -> None:
        for _ in range(15):
            while True:
                found = store.get("counter")
                try:
                    store.put("counter", str(int(found.reveal()) + 1), if_match=found.token)
                    break
                except PreconditionFailed:
                    pass

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(count, stores))
    for driver in drivers:
        driver.close()
    assert {"value": "30"} == double.fields("shop/counter")
    assert 31 == len(list(stores[0].history("counter")))


def test_of_two_pending_writers_over_one_version_one_wins(shop: SecretStore, double: VaultDouble) -> None:
    token = shop.put("key", "one").token
    shop.put("key", "first", stage="pending", if_match=token)
    with pytest.raises(PreconditionFailed):
        shop.put("key", "second", stage="pending", if_match=token)
    assert "first" == shop.get("key", stage="pending").reveal()


# what servers answer


@pytest.mark.parametrize(
    ("status", "errors", "expected"),
    [
        (400, ["1 error occurred: custom_metadata validation failed"], InvalidArgument),
        (400, ["Upgrading from non-versioned to versioned data. This backend will be unavailable"], Unavailable),
        (400, ["missing client token"], Unauthenticated),
        (401, ["unauthorized"], Unauthenticated),
        (404, ['no handler for route "secret/data/shop/key". route entry not found.'], ParentNotFound),
        (405, ["unsupported operation"], Conflict),
        (412, ["required index state not present"], Unavailable),
        (413, ["http: request body too large"], InvalidArgument),
        (415, ["unsupported media type"], Conflict),
        (429, ['request path "secret/data/shop/key": rate limit quota exceeded'], Throttled),
        (472, [], Unavailable),
        (473, [], Unavailable),
        (500, ["1 error occurred: put failed due to value being too large"], InvalidArgument),
        (500, ["internal error"], Unavailable),
        (501, ["Vault is not initialized"], Unavailable),
        (502, [], Unavailable),
        (503, ["Vault is sealed"], Unavailable),
        (504, [], Unavailable),
        (418, ["a teapot"], OperationError),
    ],
)
def test_a_refusal_is_what_it_means(
    shop: SecretStore, double: VaultDouble, status: int, errors: list[str], expected: type[OperationError]
) -> None:
    body = json.dumps({"errors": errors}).encode()
    headers = [("Content-Type", "application/json"), ("Retry-After", "7")]
    double.inject("status", status=status, body=body, headers=headers, times=None)
    with pytest.raises(expected) as caught:
        shop.get("key")
    assert expected is type(caught.value)
    assert str(status) == caught.value.code
    assert 7.0 == caught.value.retry_after


def test_a_page_of_a_proxy_is_no_secret_and_no_crash(shop: SecretStore, double: VaultDouble) -> None:
    double.inject("status", status=200, body=b"<html>welcome</html>", times=None)
    with pytest.raises(Unavailable):
        shop.get("key")
    double.reset()
    double.inject("status", status=502, body=b"<html>bad gateway</html>", times=None)
    with pytest.raises(Unavailable):
        shop.put("key", "value")


def test_a_sealed_server_is_unavailable_and_says_so(shop: SecretStore, double: VaultDouble) -> None:
    shop.put("key", "value")
    double.sealed = True
    for act in (lambda: shop.get("key"), lambda: shop.put("key", "x"), lambda: list(shop.list())):
        with pytest.raises(Unavailable, match="the server is sealed") as caught:
            act()
        assert caught.value.retryable
    double.sealed = False
    assert "value" == shop.get("key").reveal()


@pytest.mark.parametrize("status", [412, 429, 500, 502, 503, 504])
def test_reading_is_tried_again_and_writing_is_not(shop: SecretStore, double: VaultDouble, status: int) -> None:
    shop.put("key", "value")
    refusal = double.inject("status", status=status, times=2)
    assert "value" == shop.get("key").reveal()
    assert 2 == refusal.hits
    again = double.inject("status", status=status, match=lambda call: call.operation == "post data")
    with pytest.raises(OperationError) as caught:
        shop.put("key", "another")
    assert caught.value.retryable
    assert (1, {"value": "value"}) == (again.hits, double.fields("shop/key"))


@pytest.mark.parametrize("kind", ["drop_before", "drop_after", "truncate"])
def test_a_broken_reading_is_tried_again(shop: SecretStore, double: VaultDouble, kind: Any) -> None:
    shop.put("key", "value")
    broken = double.inject(kind, match=lambda call: call.method == "GET")
    outcome = shop.get("key").reveal() if kind != "truncate" else None
    if kind == "truncate":
        with pytest.raises(Unavailable):  # its head had come already; what is half is never taken for whole
            shop.get("key")
        outcome = shop.get("key").reveal()
    assert ("value", 1) == (outcome, broken.hits)


def test_a_server_that_does_not_answer_is_a_timeout(
    shop: SecretStore, double: VaultDouble, driver: VaultDriver
) -> None:
    driver.session.client.adapter._kwargs["timeout"] = (1.0, 0.2)
    double.inject("latency", seconds=3.0, match=lambda call: call.operation == "post data")
    with pytest.raises(Timeout):
        shop.put("key", "value")


def test_a_server_that_is_not_there_is_unavailable(double: VaultDouble) -> None:
    settings_ = VaultSettings(address="http://127.0.0.1:1", token=Credential.literal("x"))
    driver = open_vault(settings_)
    with pytest.raises(Unavailable, match="cannot be reached"):
        Secrets(driver).store("shop").get("key")
    driver.close()


def test_a_standby_sends_us_to_the_active_node(shop: SecretStore, double: VaultDouble) -> None:
    shop.put("key", "value")
    there = [("Location", f"{double.url}/v1/secret/data/shop/key")]
    double.inject("status", status=307, headers=there, match=lambda call: call.operation == "post data")
    shop.put("key", "another")
    assert {"value": "another"} == double.fields("shop/key")


def test_nobody_is_followed_from_tls_into_the_clear() -> None:
    response = requests.Response()
    response.status_code, response.url = 307, "https://standby.example/v1/x"
    response.headers["Location"] = "https://active.example/v1/x"
    _vault_session._stays_private(response)
    response.headers["Location"] = "http://active.example/v1/x"
    with pytest.raises(Exception, match="without TLS; correct its api_addr") as caught:
        _vault_session._stays_private(response)
    fault = _vault_session.classify(cast("Exception", caught.value))
    assert fault is not None
    assert Conflict is fault.error


def test_an_engine_of_version_1_is_refused_before_anything_is_written(double: VaultDouble) -> None:
    driver = open_vault(VaultSettings(address=double.url, token=Credential.literal(double.token), mount="old"))
    shop = Secrets(driver).store("shop")
    with pytest.raises(Conflict, match="no KV engine of version 2"):
        shop.put("key", "value")
    assert not [call for call in double.calls if call.method in ("POST", "PUT")]
    double._old["data/shop/key"] = {"data": {"value": "x"}}
    with pytest.raises(Conflict, match="no KV engine of version 2"):
        shop.get("key")
    driver.close()


def test_a_mount_that_is_not_there_is_no_missing_secret(double: VaultDouble) -> None:
    driver = open_vault(VaultSettings(address=double.url, token=Credential.literal(double.token), mount="none"))
    with pytest.raises(ParentNotFound, match="check the mount"):
        Secrets(driver).store("shop").get("key")
    driver.close()


def test_namespaces_are_apart(double: VaultDouble) -> None:
    double.namespaces.add("team/a")
    settings_ = VaultSettings(address=double.url, token=Credential.literal(double.token))
    for namespace in (None, "team/a"):
        driver = open_vault(attrs.evolve(settings_, namespace=namespace))
        Secrets(driver).store("shop").put("key", f"of {namespace}")
        driver.close()
    assert {"value": "of None"} == double.fields("shop/key")
    assert {"value": "of team/a"} == double.fields("shop/key", "team/a")
    driver = open_vault(attrs.evolve(settings_, namespace="absent"))
    with pytest.raises(ParentNotFound, match="namespace"):
        Secrets(driver).store("shop").get("key")
    driver.close()


# policies


def test_who_may_read_data_alone_reads_current_values(double: VaultDouble, shop: SecretStore) -> None:
    shop.put("key", "value", labels={"team": "core"})
    reader, driver = _store(double, Rule("secret/data/shop/*", {"read"}))
    assert ("value", {"team": "core"}) == (reader.get("key").reveal(), dict(reader.get("key").labels))
    with pytest.raises(PermissionDenied, match='path "secret/metadata/shop/key" { capabilities = \\["read"\\] }'):
        list(reader.history("key"))
    driver.close()


def _policy(*purposes: Purpose) -> tuple[Rule, ...]:
    """Return the rules of the policy that is written for secrets below ``shop``."""
    provider = BaremetalProvider(BaremetalSettings(vault=VaultSettings()))
    found = provider.policy([("secrets", SecretsSpec(name="shop"))], purposes)["path"]
    return tuple(Rule(path, {*rule["capabilities"]}) for path, rule in found.items())


POLICY = _policy("write", "plan")


def _everything(shop: SecretStore) -> None:
    old = shop.put("a/key", "one", labels={"team": "core"}, idempotency_key="x", if_absent=True)
    shop.put("a/key", "two", if_match=old.token)
    pending = shop.put("a/key", "three", stage="pending")
    shop.promote("a/key", pending.version)
    shop.update("a/key", labels={})
    shop.disable("a/key", old.version)
    shop.destroy("a/key", "2")
    assert 3 == len(list(shop.history("a/key")))
    assert ["a/key"] == [info.name for info in shop.list()]
    shop.delete("a/key")
    shop.restore("a/key")
    shop.delete("a/key", recovery=None)


def test_the_policy_that_is_written_is_enough_and_each_rule_of_it_is_needed(double: VaultDouble) -> None:
    shop, driver = _store(double, *POLICY)
    _everything(shop)
    driver.close()
    documented = VaultDriver.__doc__ or ""
    for rule in POLICY:
        for capability in sorted(rule.capabilities):
            double.reset()
            less = (
                attrs.evolve(each, capabilities=set(rule.capabilities) - {capability}) if each is rule else each
                for each in POLICY
            )
            shop, driver = _store(double, *less)
            with pytest.raises(PermissionDenied, match="a policy of the token must allow it: path") as caught:
                _everything(shop)
            assert f'capabilities = ["{capability}"]' in str(caught.value)
            assert rule.path.removesuffix("*") in str(caught.value) + "/"
            assert f'"{capability}"' in documented
            driver.close()


def test_who_only_reads_or_plans_needs_less(double: VaultDouble, shop: SecretStore) -> None:
    shop.put("key", "one")
    shop.put("key", "two")
    reader, driver = _store(double, *_policy("read"))
    assert ("two", 2) == (reader.get("key").reveal(), len(list(reader.history("key"))))
    assert ["key"] == [info.name for info in reader.list()]
    with pytest.raises(PermissionDenied):
        reader.put("key", "three")
    driver.close()
    token = double.make_token(*_policy("plan"))
    driver = open_vault(VaultSettings(address=double.url, token=Credential.literal(token)))
    assert Secrets(driver).exists("shop")
    with pytest.raises(PermissionDenied):
        Secrets(driver).store("shop").get("key")
    driver.close()
    assert ["secret/metadata/shop/*"] == [rule.path for rule in _policy("apply")]


def test_only_secrets_in_a_vault_have_policies() -> None:
    vault = VaultSettings(mount="kv")
    provider = BaremetalProvider(BaremetalSettings(vault=vault))
    two = [("secrets", SecretsSpec(name=prefix)) for prefix in ("a", "b")]
    assert {f"kv/{area}/{prefix}/*" for area in ("data", "metadata") for prefix in "ab"} == {
        *provider.policy(two, ["read"])["path"]
    }
    for given, service in ((BaremetalSettings(vault=vault), "blob"), (BaremetalSettings(), "secrets")):
        with pytest.raises(Unsupported, match="only secrets in Vault or OpenBao have policies here"):
            BaremetalProvider(given).policy([(service, SecretsSpec(name="shop"))], ["read"])


def _store(double: VaultDouble, *rules: Rule, **how: Any) -> tuple[SecretStore, VaultDriver]:
    token = double.make_token(*rules, **how)
    driver = open_vault(VaultSettings(address=double.url, token=Credential.literal(token)))
    return Secrets(driver).store("shop"), driver


# logins and tokens


@attrs.define
class Seconds:
    """A clock of the session that moves only when it is told to, and moves the double's as well."""

    double: VaultDouble
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now

    def pass_(self, seconds: float) -> None:
        self.now += seconds
        self.double.clock.advance(seconds)


def _with_clock(settings_: VaultSettings, clock: Seconds) -> tuple[SecretStore, VaultDriver]:
    session = VaultSession(settings_, monotonic=clock)
    driver = VaultDriver(session, KvEngine(session))
    return Secrets(driver).store("shop"), driver


def _operations(double: VaultDouble) -> list[str]:
    return [call.operation for call in double.calls]


@pytest.fixture
def approle(double: VaultDouble) -> VaultSettings:
    double.allow_approle("role", "canary-secret-id", Login(ttl=600))
    return VaultSettings(
        address=double.url,
        auth="approle",
        role_id=Credential.literal("role"),
        secret_id=Credential.literal("canary-secret-id"),
    )


def test_an_approle_logs_in_once_for_all_threads(double: VaultDouble, approle: VaultSettings) -> None:
    driver = open_vault(approle)
    shop = Secrets(driver).store("shop")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: shop.put(f"k{number}", "value"), range(8)))
    assert 1 == _operations(double).count("post login")
    driver.close()


def test_a_token_is_renewed_after_two_thirds_of_its_life(double: VaultDouble, approle: VaultSettings) -> None:
    clock = Seconds(double)
    shop, driver = _with_clock(approle, clock)
    shop.put("key", "value")
    for _ in range(4):
        clock.pass_(401)
        assert "value" == shop.get("key").reveal()
    assert (1, 4) == (_operations(double).count("post login"), _operations(double).count("post renew-self"))
    clock.pass_(10_000)  # asleep for too long
    assert "value" == shop.get("key").reveal()
    assert 2 == _operations(double).count("post login")
    driver.close()


def test_a_token_that_cannot_live_longer_is_replaced(double: VaultDouble, approle: VaultSettings) -> None:
    double.allow_approle("role", "canary-secret-id", Login(ttl=600, greatest_ttl=700))
    clock = Seconds(double)
    shop, driver = _with_clock(approle, clock)
    shop.put("key", "value")
    clock.pass_(401)
    assert "value" == shop.get("key").reveal()
    assert (2, 1) == (_operations(double).count("post login"), _operations(double).count("post renew-self"))
    driver.close()


def test_a_login_that_cannot_be_renewed_is_made_again(double: VaultDouble, approle: VaultSettings) -> None:
    double.allow_approle("role", "canary-secret-id", Login(ttl=600, renewable=False))
    clock = Seconds(double)
    shop, driver = _with_clock(approle, clock)
    shop.put("key", "value")
    clock.pass_(401)
    assert "value" == shop.get("key").reveal()
    assert (2, 0) == (_operations(double).count("post login"), _operations(double).count("post renew-self"))
    driver.close()


def test_a_token_that_was_revoked_is_replaced_and_the_call_is_made_again(
    double: VaultDouble, approle: VaultSettings
) -> None:
    driver = open_vault(approle)
    shop = Secrets(driver).store("shop")
    shop.put("key", "one")
    double.revoke(driver.session.client.token)
    shop.put("key", "two")
    assert ["2", "1"] == [entry.version for entry in shop.history("key")]
    double.revoke(driver.session.client.token)
    double._approles.clear()
    with pytest.raises(Unauthenticated, match="the login at auth/approle failed: invalid role or secret ID") as caught:
        shop.get("key")
    assert "canary" not in str(caught.value)
    driver.close()


@pytest.mark.parametrize("auth", ["jwt", "kubernetes"])
def test_a_jwt_logs_in_and_is_read_anew_each_time(double: VaultDouble, tmp_path: Path, auth: Any) -> None:
    file = tmp_path / "jwt"
    file.write_text("first")
    for jwt in ("first", "second"):
        double.allow_jwt("app", jwt, Login(ttl=600, renewable=False), mount="k8s" if auth == "kubernetes" else "jwt")
    settings_ = VaultSettings(
        address=double.url,
        auth=auth,
        role="app",
        jwt=Credential.file(file),
        auth_mount="k8s" if auth == "kubernetes" else None,
    )
    clock = Seconds(double)
    shop, driver = _with_clock(settings_, clock)
    shop.put("key", "value")
    file.write_text("second")
    del double._jwts["k8s" if auth == "kubernetes" else "jwt", "app", "first"]
    clock.pass_(500)
    assert "value" == shop.get("key").reveal()
    driver.close()


def test_the_service_account_is_the_default_of_kubernetes(
    double: VaultDouble, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_vault_session, "_SERVICE_ACCOUNT", tmp_path / "token")
    settings_ = VaultSettings(address=double.url, auth="kubernetes", role="app")
    driver = open_vault(settings_)
    shop = Secrets(driver).store("shop")
    with pytest.raises(Unauthenticated, match="no token of a service account"):
        shop.get("key")
    (tmp_path / "token").write_text("pod\n")
    double.allow_jwt("app", "pod", Login(), mount="kubernetes")
    shop.put("key", "value")
    driver.close()


def test_a_token_that_was_given_is_kept_alive_once_it_has_been_in_use(double: VaultDouble) -> None:
    token = double.make_token(Rule("*", {"create", "read", "update", "patch"}), ttl=600)
    clock = Seconds(double)
    shop, driver = _with_clock(VaultSettings(address=double.url, token=Credential.literal(token)), clock)
    shop.put("key", "value")
    assert "get lookup-self" not in _operations(double)
    for seconds in (61, 401, 401, 401):
        clock.pass_(seconds)
        assert "value" == shop.get("key").reveal()
    assert (1, 3) == (_operations(double).count("get lookup-self"), _operations(double).count("post renew-self"))
    driver.close()


def test_a_token_in_a_file_is_read_again_when_it_is_refused(double: VaultDouble, tmp_path: Path) -> None:
    file = tmp_path / "sink"  # as Vault's agent keeps it
    file.write_text(double.make_token(Rule("*", {"create", "read", "update"})))
    driver = open_vault(VaultSettings(address=double.url, token=Credential.file(file)))
    shop = Secrets(driver).store("shop")
    shop.put("key", "one")
    double.revoke(file.read_text())
    file.write_text(double.make_token(Rule("*", {"create", "read", "update"})))
    shop.put("key", "two")
    assert {"value": "two"} == double.fields("shop/key")
    driver.close()


def test_a_token_that_cannot_be_renewed_is_used_until_it_ends(double: VaultDouble) -> None:
    token = double.make_token(Rule("*", {"create", "read", "update"}), ttl=600, renewable=False)
    clock = Seconds(double)
    shop, driver = _with_clock(VaultSettings(address=double.url, token=Credential.literal(token)), clock)
    shop.put("key", "value")
    for seconds in (61, 500):
        clock.pass_(seconds)
        assert "value" == shop.get("key").reveal()
    clock.pass_(100)
    with pytest.raises(Unauthenticated, match="has expired"):
        shop.get("key")
    driver.close()


def test_a_wrong_token_is_no_missing_permission(double: VaultDouble) -> None:
    driver = open_vault(VaultSettings(address=double.url, token=Credential.literal("wrong")))
    with pytest.raises(Unauthenticated, match="the token is wrong"):
        Secrets(driver).store("shop").get("key")
    driver.close()


def test_the_native_chain_finds_address_token_and_namespace(
    double: VaultDouble, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match="VAULT_ADDR is not set"):
        open_vault(VaultSettings())
    monkeypatch.setenv("VAULT_ADDR", double.url)
    driver = open_vault(VaultSettings())
    shop = Secrets(driver).store("shop")
    with pytest.raises(Unauthenticated, match="set VAULT_TOKEN, run `vault login`"):
        shop.get("key")
    home.mkdir()
    (home / ".vault-token").write_text(f"{double.token}\n")
    shop.put("key", "file")
    driver.close()
    double.namespaces.add("a")
    monkeypatch.setenv("VAULT_NAMESPACE", "a")
    monkeypatch.setenv("VAULT_TOKEN", double.make_token(Rule("*", {"create", "read", "update"})))
    driver = open_vault(VaultSettings())
    Secrets(driver).store("shop").put("key", "variable")
    driver.close()
    assert ({"value": "file"}, {"value": "variable"}) == (double.fields("shop/key"), double.fields("shop/key", "a"))


# settings


TOML = """
[project]
name = "shop"
[environments.development]
provider = "cellar"
[providers.cellar]
type = "baremetal"
[providers.cellar.vault]
address = "{address}"
token = {token}
[secrets.app]
prefix = "shop"
"""


def test_a_file_names_the_server_and_refers_to_its_token(
    double: VaultDouble, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHOP_TOKEN", double.token)
    file = tmp_path / "shiftable.toml"
    file.write_text(TOML.format(address=double.url, token='{ env = "SHOP_TOKEN" }'))
    with shiftable.load(tmp_path) as app:
        app.secrets("app").put("key", "value")
    assert {"value": "value"} == double.fields("shop/key")
    file.write_text(TOML.format(address=double.url, token='"hunter2"'))
    with pytest.raises(ConfigError, match=r"line 10") as caught:
        shiftable.load(tmp_path)
    assert "hunter2" not in str(caught.value)


def test_code_gives_the_settings_as_a_table(double: VaultDouble) -> None:
    with shiftable.connect("baremetal", **double.config) as cloud:
        cloud.secrets.store("shop").put("key", "value")
    assert {"value": "value"} == double.fields("shop/key")


@pytest.mark.parametrize(
    ("settings_", "said"),
    [
        (VaultSettings(address="http://127.0.0.1:1", auth="kubernetes"), "vault.role is missing"),
        (VaultSettings(address="http://127.0.0.1:1", auth="approle"), "vault.role_id is missing"),
        (VaultSettings(address="http://127.0.0.1:1", auth="jwt"), "vault.jwt is missing"),
    ],
    ids=["kubernetes", "approle", "jwt"],
)
def test_a_login_that_lacks_something_says_what(settings_: VaultSettings, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Secrets(open_vault(settings_)).store("shop").get("key")


@pytest.mark.parametrize("address", ["vault.example:8200", "ftp://vault.example", "http://", "http://vault.example?a"])
@pytest.mark.parametrize("place", ["vault.address", "VAULT_ADDR"])
def test_an_address_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch, address: str, place: str) -> None:
    monkeypatch.setenv("VAULT_ADDR", address)
    with pytest.raises(ConfigError, match=f"{place} is not '.*': write it https://vault.example:8200"):
        open_vault(VaultSettings(address=address if place == "vault.address" else None))


def test_an_address_with_a_password_is_refused_and_does_not_show_it() -> None:
    with pytest.raises(ConfigError, match=r"vault.address is not to hold a user or password") as caught:
        open_vault(VaultSettings(address="https://me:canary@vault.example"))
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize("token", ["s.1\ns.2", "s.ä"])
def test_a_token_that_no_header_can_hold_is_told(
    double: VaultDouble, monkeypatch: pytest.MonkeyPatch, token: str
) -> None:
    monkeypatch.setenv("VAULT_TOKEN", token)
    for given, place in ((Credential.literal(token), "vault.token"), (None, "VAULT_TOKEN")):
        with pytest.raises(ConfigError, match=f"{place}.* holds what no header can") as caught:
            Secrets(open_vault(VaultSettings(address=double.url, token=given))).store("shop").get("key")
        assert token not in str(caught.value)


def test_without_hvac_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "shiftable_baremetal._vault_engine", None)
    with pytest.raises(ConfigError, match=r'pip install "shiftable-baremetal\[vault\]"'):
        open_vault(VaultSettings(address="http://127.0.0.1:1"))


def test_the_features_are_told_without_hvac() -> None:
    code = (
        "import sys; sys.modules['hvac'] = None\nfrom shiftable_baremetal import BaremetalProvider as P; P.features()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# nothing shows


def test_no_value_and_no_token_shows_when_a_connection_breaks(
    shop: SecretStore, double: VaultDouble, caplog: pytest.LogCaptureFixture
) -> None:
    shop.put("key", "one")
    double.inject("drop_after", match=lambda call: call.method == "POST")
    with caplog.at_level(logging.DEBUG), pytest.raises(Unavailable) as caught:
        shop.put("key", "canary")
    link: BaseException | None = caught.value
    while link is not None:
        if isinstance(link, requests.RequestException):
            assert (None, None) == (link.request, link.response)
        assert "canary" not in f"{link!r}{vars(link)}"
        link = link.__cause__ or link.__context__
    for record in caplog.records:
        assert "canary" not in record.getMessage()
        assert double.token not in record.getMessage()


def test_the_command_line_speaks_to_the_server(double: VaultDouble, tmp_path: Path) -> None:
    file = tmp_path / "shiftable.toml"
    file.write_text(TOML.format(address=double.url, token='{ env = "SHOP_TOKEN" }'))
    environ = {**os.environ, "SHOP_TOKEN": double.token}

    def run(*arguments: str, stdin: str = "") -> str:
        done = subprocess.run(
            [str(Path(sys.executable).parent / "shiftable"), *arguments],
            cwd=tmp_path,
            env=environ,
            input=stdin,
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout

    run("secrets", "set", "app", "stripe/key", stdin="sk_one")
    run("secrets", "set", "app", "stripe/key", stdin="sk_two")
    assert {"value": "sk_two"} == double.fields("shop/stripe/key")
    assert "stripe/key" in run("secrets", "list", "app")
    assert "sk_two" in run("secrets", "get", "app", "stripe/key", "--reveal")


def test_a_server_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "shiftable.toml").write_text(TOML.format(address="http://127.0.0.1:1", token='{ env = "SHOP_TOKEN" }'))
    done = subprocess.run(
        [str(Path(sys.executable).parent / "shiftable"), "secrets", "get", "app", "key"],
        cwd=tmp_path,
        env={**os.environ, "SHOP_TOKEN": "x"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (1, 1) == (done.returncode, done.stderr.count("\n")), done.stderr
    assert "the server cannot be reached" in done.stderr

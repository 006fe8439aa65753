"""Azure Key Vault keeps the rules for secrets, at a double that keeps Key Vault's."""

from __future__ import annotations

import base64
import contextlib
import itertools
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import attrs
import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from shiftable.errors import (
    Conflict,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    PreconditionFailed,
    Unsupported,
)
from shiftable.secrets import Secrets, SecretStore, Stage
from shiftable.secrets.names import NAME_LABEL
from shiftable.testing.conformance.secrets import SecretsConformance, SecretsOracle, secrets_machine
from shiftable.testing.harness import Call
from shiftable_azure import AzureProvider
from shiftable_azure._double_vault import ALL
from shiftable_azure.double import AzureDouble


@attrs.define
class Vault:
    """Reads the double's own objects."""

    double: AzureDouble

    def living(self) -> dict[str, Any]:
        found = {name: secret for name, secret in self.double.vault.secrets.items() if secret.deleted is None}
        return {self.name_of(name, secret): secret for name, secret in found.items() if "---pending" not in name}

    def name_of(self, name: str, secret: Any) -> str:
        return str(secret.latest.tags.get(NAME_LABEL, name.replace("--", "/")))

    def value(self, name: str) -> bytes | None:
        secret = self.living().get(name)
        if secret is None or not secret.latest.enabled:
            return None
        text = secret.latest.value
        return base64.b64decode(text) if "file-encoding" in secret.latest.tags else text.encode()

    def names(self) -> list[str]:
        return list(self.living())


@pytest.fixture
def oracle(azure_double: AzureDouble) -> Vault:
    return Vault(azure_double)


@pytest.fixture
def store(provider: AzureProvider) -> SecretStore:
    return Secrets(provider.secrets()).store("shop")


def is_(operation: str) -> Callable[[Call], bool]:
    return lambda call: call.operation == operation


class TestKeyVault(SecretsConformance):
    @pytest.fixture
    def driver(self, provider: AzureProvider) -> Any:
        return provider.secrets()

    @pytest.fixture
    def oracle(self, azure_double: AzureDouble) -> SecretsOracle:
        return Vault(azure_double)


def test_the_driver_does_what_the_model_does(provider: AzureProvider, azure_double: AzureDouble) -> None:
    def make_store() -> SecretStore:
        azure_double.reset()
        return Secrets(provider.secrets()).store("machine")

    run_state_machine_as_test(secrets_machine(make_store), settings=settings.get_profile("machine"))


# stages: what other readers see, and what they do


def az_set(double: AzureDouble, name: str, value: str, **facts: Any) -> str:
    """Write as another tool does: no tag of ours."""
    return double.vault.put_raw(name, value, **facts).id


def tags_of(double: AzureDouble, name: str) -> dict[str, str]:
    return dict(double.vault.secrets[name].latest.tags)


def test_every_other_reader_sees_the_current_version(
    azure_double: AzureDouble, store: SecretStore, provider: AzureProvider
) -> None:
    def native() -> tuple[str, str]:
        found = provider.vault.client.get_secret("shop--key")
        return str(found.value), str(found.properties.version)

    first = store.put("key", "one")
    assert native() == ("one", first.version)
    second = store.put("key", "two")
    assert native() == ("two", second.version)
    third = store.put("key", "three", stage="pending")
    assert native() == ("two", second.version)
    store.promote("key", third.version)
    assert native()[0] == "three"
    store.promote("key", first.version)
    assert native()[0] == "one"
    assert store.get("key").version == first.version
    assert [entry.version for entry in store.history("key")] == [third.version, second.version, first.version]
    assert len(azure_double.vault.secrets["shop--key"].versions) == 4


def test_the_current_version_costs_one_call_and_a_new_one_two(azure_double: AzureDouble, store: SecretStore) -> None:
    store.put("key", "one")
    store.put("key", "two")
    store.get("key")
    store.get("key", stage="previous")
    store.put("key", "three", stage="pending")

    after_challenge = [call.operation for call in azure_double.calls if call.status != 401]
    assert after_challenge == [
        *("GetSecret", "SetSecret"),
        *("GetSecret", "SetSecret"),
        "GetSecret",
        *("GetSecret", "GetSecret"),
        *("GetSecret", "SetSecret", "UpdateSecret", "GetSecret"),
    ]


def test_a_version_keeps_its_date_when_it_becomes_current_again(azure_double: AzureDouble, store: SecretStore) -> None:
    first = store.put("key", "one")
    store.put("key", "two")
    azure_double.clock.advance(timedelta(days=3))
    store.promote("key", first.version)

    assert store.get("key").created == first.created
    assert {entry.version: entry.created for entry in store.history("key")}[first.version] == first.created
    assert store.get("key", version=first.version).reveal() == "one"


def test_a_history_is_in_order_although_times_are_seconds_and_ids_are_random(
    azure_double: AzureDouble, store: SecretStore
) -> None:
    ids = [store.put("key", str(number)).version for number in range(40)]

    times = {version.created for version in azure_double.vault.secrets["shop--key"].versions.values()}
    assert len(times) < len(ids)
    assert ids != sorted(ids)
    assert [entry.version for entry in store.history("key")] == ids[::-1]


def test_what_lies_beside_is_no_secret(azure_double: AzureDouble, store: SecretStore) -> None:
    store.put("key", "one")
    store.put("key", "two", stage="pending")
    assert sorted(azure_double.vault.secrets) == ["shop--key", "shop--key---pending"]
    assert [info.name for info in store.list()] == ["key"]

    store.delete("key", recovery=timedelta(days=7))
    assert all(secret.deleted for secret in azure_double.vault.secrets.values())
    assert [info.name for info in store.list(deleted=True)] == ["key"]
    store.restore("key")
    assert store.get("key", stage="pending").reveal() == "two"
    store.delete("key", recovery=None)
    assert azure_double.vault.secrets == {}


def test_a_secret_may_be_called_pending(azure_double: AzureDouble, store: SecretStore) -> None:
    for key in ("key-pending", "key/pending", "key---pending", "pending"):
        store.put(key, key)
        store.delete(key, recovery=timedelta(days=7))
        with pytest.raises(Conflict, match="restore it"):
            store.put(key, "another")
        store.restore(key)
        store.put(key, "new", stage="pending")
        assert (store.get(key).reveal(), store.get(key, stage="pending").reveal()) == (key, "new")
    assert len(list(store.list())) == 4


def test_what_is_left_beside_of_an_earlier_secret_does_not_count(azure_double: AzureDouble, store: SecretStore) -> None:
    store.put("key", "one")
    store.put("key", "two", stage="pending")
    del azure_double.vault.secrets["shop--key"]  # another tool deleted and purged what it saw
    azure_double.clock.advance(60)
    store.put("key", "another")

    assert [entry.stages for entry in store.history("key")] == [{"current"}]
    with pytest.raises(NotFound):
        store.get("key", stage="pending")
    store.put("key", "fresh", stage="pending")
    assert store.get("key", stage="pending").reveal() == "fresh"


def test_a_promoted_version_is_found_when_what_lay_beside_is_gone(
    azure_double: AzureDouble, store: SecretStore
) -> None:
    store.put("key", "one")
    second = store.put("key", "two", stage="pending")
    store.promote("key", second.version)
    store.put("key", "three")
    del azure_double.vault.secrets["shop--key---pending"]

    assert store.get("key", version=second.version).reveal() == "two"
    assert store.get("key", stage="previous").version == second.version
    store.promote("key", second.version)
    assert store.get("key").reveal() == "two"


def test_a_pending_put_that_was_cut_short_left_nothing_pending(azure_double: AzureDouble, store: SecretStore) -> None:
    store.put("key", "one")
    azure_double.inject("status", status=403, match=is_("UpdateSecret"))
    with pytest.raises(PermissionDenied):
        store.put("key", "two", stage="pending", idempotency_key="rotation")

    with pytest.raises(NotFound):
        store.get("key", stage="pending")
    assert store.put("key", "three", stage="pending").stages == {"pending"}


def test_a_pending_put_that_was_cut_short_is_finished_by_its_repetition(
    azure_double: AzureDouble, store: SecretStore
) -> None:
    store.put("key", "one")
    azure_double.inject("status", status=403, match=is_("UpdateSecret"))
    with pytest.raises(PermissionDenied):
        store.put("key", "two", stage="pending", idempotency_key="rotation")
    assert [set(entry.stages) for entry in store.history("key")] == [{"current"}]

    again = store.put("key", "two", stage="pending", labels={"team": "core"}, idempotency_key="rotation")
    assert (again.stages, dict(again.labels)) == (frozenset({"pending"}), {"team": "core"})
    assert list(azure_double.vault.secrets["shop--key---pending"].versions) == [again.version]
    store.promote("key", again.version)
    late = store.put("key", "two", stage="pending", idempotency_key="rotation")
    assert (late.version, set(late.stages)) == (again.version, {"current"})
    store.put("key", "three", stage="pending", idempotency_key="next")
    store.put("key", "four", stage="pending", idempotency_key="later")
    assert store.put("key", "three", stage="pending", idempotency_key="next").stages == set()
    assert store.get("key", stage="pending").reveal() == "four"


@pytest.mark.parametrize("value", ["two", "another"])
def test_of_two_pending_puts_with_one_key_at_once_the_first_counts(
    azure_double: AzureDouble, store: SecretStore, value: str
) -> None:
    """Both looked before either wrote: a rotation whose lock is a look alone would go on with two values."""
    store.put("key", "one")
    store.put("other", "one")
    mark = store.put("other", "x", stage="pending", idempotency_key="rotation").version
    state = azure_double.vault.secrets["shop--other---pending"].versions[mark].tags["shiftable-state"]

    def overtake(call: Call) -> bool:
        if call.operation == "SetSecret":
            az_set(azure_double, "shop--key---pending", value, tags={"shiftable-state": state})
        return False

    azure_double.inject("status", match=overtake)
    if value == "two":
        stored = store.put("key", "two", stage="pending", idempotency_key="rotation")
        first, _ = azure_double.vault.secrets["shop--key---pending"].versions
        assert (stored.version, stored.stages) == (first, frozenset({"pending"}))
    else:
        with pytest.raises(Conflict, match="just now"):
            store.put("key", "two", stage="pending", idempotency_key="rotation")
        with pytest.raises(NotFound):
            store.get("key", stage="pending")


def test_of_two_pending_puts_over_one_token_the_later_is_refused(azure_double: AzureDouble, store: SecretStore) -> None:
    token = store.put("key", "one").token
    tags = azure_double.vault.secrets["shop--key"].latest.tags

    def overtake(call: Call) -> bool:
        if call.operation == "SetSecret":  # another has stored its version, and notes it just now
            another = az_set(azure_double, "shop--key---pending", "another")
            tags["shiftable-state"] += f" pending={another}"
        return False

    azure_double.inject("status", match=overtake)
    with pytest.raises(PreconditionFailed, match="meanwhile"):
        store.put("key", "two", stage="pending", if_match=token)
    assert store.get("key", stage="pending").reveal() == "another"


def test_a_history_asks_for_no_value_unless_a_second_has_two_versions(
    azure_double: AzureDouble, store: SecretStore
) -> None:
    for number in range(3):
        store.put("key", str(number))
        azure_double.clock.advance(2.0)
    azure_double.vault.tokens[azure_double.token] = frozenset({"list"})
    assert [set(entry.stages) for entry in store.history("key")] == [{"current"}, {"previous"}, set()]
    assert store.exists("key")
    assert not store.exists("missing")


@pytest.mark.parametrize(
    "tag",
    [
        "", "=", "of= previous= made=", "of=../x previous=versions pending=%2e%2e made=x born=-1",
        f"born={'9' * 200} made={'9' * 40}", f"born={'9' * 11} made={'9' * 17}", "\x00\n\u2028 of=\u0661",
        f"of={'0' * 32} previous={'0' * 32} pending={'0' * 32}",
    ],
    ids=["empty", "a sign", "nothing", "paths", "huge", "large", "controls", "strangers"],
)  # fmt: skip
def test_a_state_that_others_wrote_over_harms_nobody(azure_double: AzureDouble, store: SecretStore, tag: str) -> None:
    az_set(azure_double, "shop--key", "one")
    az_set(azure_double, "shop--key", "two", tags={"shiftable-state": tag})

    assert store.get("key").reveal() == "two"
    assert len(list(store.history("key"))) == 2
    stages: tuple[Stage, ...] = ("previous", "pending")
    for stage in stages:
        with contextlib.suppress(NotFound):
            assert store.get("key", stage=stage).reveal() in {"one", "two"}
    store.put("key", "three")
    pending = store.put("key", "four", stage="pending")
    store.promote("key", pending.version)
    assert (store.get("key").reveal(), store.get("key", stage="previous").reveal()) == ("four", "three")
    assert {call.path.split("/")[2] for call in azure_double.calls} == {"shop--key", "shop--key---pending"}


def test_a_pending_version_is_noted_at_the_version_that_came_meanwhile(
    azure_double: AzureDouble, store: SecretStore, provider: AzureProvider
) -> None:
    store.put("key", "one")
    overtaken: list[str] = []

    def overtake(call: Call) -> bool:
        if call.operation == "UpdateSecret" and not overtaken:
            overtaken.append(az_set(azure_double, "shop--key", "by another tool"))
        return False

    azure_double.inject("status", match=overtake)
    pending = store.put("key", "two", stage="pending")

    assert overtaken == [store.get("key").version]
    assert store.get("key", stage="pending").version == pending.version


# what other tools made


def test_a_secret_of_another_tool_is_read_by_its_name_in_lower_case(
    azure_double: AzureDouble, provider: AzureProvider
) -> None:
    everything = Secrets(provider.secrets()).store("")
    az_set(azure_double, "DbPassword", "one", tags={"Team": "core"}, exp=2_000_000_000)

    (info,) = everything.list()
    found = everything.get(info.name)
    assert (info.name, dict(info.labels), info.expires) == ("dbpassword", {"Team": "core"}, found.expires)
    assert (found.reveal(), set(found.stages), dict(found.labels)) == ("one", {"current"}, {"Team": "core"})
    second = everything.put("dbpassword", "two")
    assert dict(second.labels) == {"Team": "core"}
    assert everything.get("dbpassword", stage="previous").version == found.version
    assert list(azure_double.vault.secrets) == ["dbpassword"]


def test_stages_outlive_a_write_by_another_tool(azure_double: AzureDouble, store: SecretStore) -> None:
    first = store.put("key", "one", labels={"team": "core"})
    second = store.put("key", "two")
    pending = store.put("key", "three", stage="pending")
    token = store.get("key").token
    azure_double.clock.advance(1.0)
    foreign = az_set(azure_double, "shop--key", "by another tool")

    found = store.get("key")
    assert (found.reveal(), found.version, dict(found.labels)) == ("by another tool", foreign, {})
    assert found.token != token
    assert store.get("key", stage="previous").version == second.version
    assert store.get("key", stage="pending").version == pending.version
    assert [(entry.version, set(entry.stages)) for entry in store.history("key")] == [
        (foreign, {"current"}), (pending.version, {"pending"}), (second.version, {"previous"}), (first.version, set())
    ]  # fmt: skip
    with pytest.raises(PreconditionFailed):
        store.put("key", "four", if_match=token)
    store.put("key", "four", if_match=found.token)
    assert store.get("key", stage="pending").version == pending.version
    store.promote("key", pending.version)
    assert (store.get("key").reveal(), store.get("key", stage="previous").reveal()) == ("three", "four")
    with pytest.raises(NotFound):
        store.get("key", stage="pending")


def test_the_latest_version_counts_also_within_a_second(azure_double: AzureDouble, store: SecretStore) -> None:
    now = int(azure_double.clock.now().timestamp())
    first = az_set(azure_double, "shop--key", "one", id="f" * 32, created=now)
    second = az_set(azure_double, "shop--key", "two", id="0" * 32, created=now)

    assert [entry.version for entry in store.history("key")] == [second, first]
    assert store.get("key", stage="previous").version == first


def test_a_latest_version_that_another_tool_disabled_is_a_conflict_and_can_be_replaced(
    azure_double: AzureDouble, store: SecretStore
) -> None:
    first = store.put("key", "one", labels={"team": "core"})
    second = store.put("key", "two")
    azure_double.vault.secrets["shop--key"].latest.enabled = False

    acts: list[Callable[[], object]] = [
        lambda: store.get("key"),
        lambda: store.get("key", version=second.version),
    ]
    for act in acts:
        with pytest.raises(Conflict, match="disabled"):
            act()
    assert store.exists("key")
    assert [(set(entry.stages), entry.enabled) for entry in store.history("key")] == [
        ({"current"}, False), ({"previous"}, True)
    ]  # fmt: skip
    assert store.get("key", stage="previous").version == first.version
    third = store.put("key", "three")
    assert (store.get("key").reveal(), dict(third.labels)) == ("three", {"team": "core"})
    with pytest.raises(Conflict, match="disabled"):
        store.get("key", stage="previous")


def test_what_is_not_yet_valid_or_has_expired_is_still_read(azure_double: AzureDouble, store: SecretStore) -> None:
    now = int(azure_double.clock.now().timestamp())
    az_set(azure_double, "shop--early", "one", nbf=now + 86_400)
    az_set(azure_double, "shop--late", "two", exp=now - 86_400)

    assert (store.get("early").reveal(), store.get("late").reveal()) == ("one", "two")
    expired = store.get("late").expires
    assert expired is not None
    assert int(expired.timestamp()) == now - 86_400
    store.put("early", "three")
    assert azure_double.vault.secrets["shop--early"].latest.nbf is None


def test_a_certificates_secret_is_read_and_not_written(azure_double: AzureDouble, store: SecretStore) -> None:
    pem = "-----BEGIN CERTIFICATE-----"
    version = az_set(azure_double, "shop--tls", pem, content_type="application/x-pem-file")
    azure_double.vault.secrets["shop--tls"].managed = True

    assert store.get("tls").reveal() == pem
    assert [info.name for info in store.list()] == ["tls"]
    writes: list[Callable[[], object]] = [
        lambda: store.put("tls", "x"),
        lambda: store.put("tls", "x", stage="pending"),
        lambda: store.update("tls", labels={"a": "b"}),
        lambda: store.disable("tls", version),
        lambda: store.delete("tls", recovery=timedelta(days=7)),
    ]
    for write in writes:
        with pytest.raises(Conflict, match="belongs to the certificate 'shop--tls'"):
            write()
    assert [version] == list(azure_double.vault.secrets["shop--tls"].versions)


def test_the_content_type_goes_with_the_value(azure_double: AzureDouble, store: SecretStore) -> None:
    first = az_set(azure_double, "shop--key", "{}", content_type="application/json")
    store.put("key", "[]")
    azure_double.vault.secrets["shop--key"].latest.content_type = "text/plain"
    store.put("key", "text")
    store.put("key", b"\xff")
    store.promote("key", first)
    told = [version.content_type for version in azure_double.vault.secrets["shop--key"].versions.values()]
    assert told == ["application/json", "text/plain", "text/plain", None, "application/json"]


def test_bytes_are_kept_as_the_azure_cli_keeps_files(azure_double: AzureDouble, store: SecretStore) -> None:
    raw = bytes(range(256))
    first = store.put("key", raw)
    assert azure_double.vault.secrets["shop--key"].latest.value == base64.b64encode(raw).decode()
    assert tags_of(azure_double, "shop--key")["file-encoding"] == "base64"
    store.put("key", "text")
    assert "file-encoding" not in tags_of(azure_double, "shop--key")
    store.promote("key", first.version)
    assert (store.get("key").reveal_bytes(), dict(store.get("key").labels)) == (raw, {})

    az_set(azure_double, "shop--hex", "00ff10", tags={"file-encoding": "hex"})
    az_set(azure_double, "shop--text", "grün", tags={"file-encoding": "utf-8"})
    az_set(azure_double, "shop--copied", "no base64!", tags={"file-encoding": "base64"})
    assert [store.get(key).reveal_bytes() for key in ("hex", "text", "copied")] == [
        b"\x00\xff\x10", "grün".encode(), b"no base64!"
    ]  # fmt: skip


def test_bytes_are_kept_up_to_three_quarters_of_the_limit(azure_double: AzureDouble, store: SecretStore) -> None:
    raw = b"\xff" * 19_200
    store.put("key", raw)
    assert store.get("key").reveal_bytes() == raw
    with pytest.raises(InvalidArgument, match="as base64"):
        store.put("key", raw + b"\xff")
    assert len(azure_double.vault.secrets["shop--key"].versions) == 1


# names


def test_names_that_key_vault_does_not_have_are_told_by_a_tag(azure_double: AzureDouble, store: SecretStore) -> None:
    keys = ("Stripe.Key", "stripe.key", "stripe_key", "db/Pässword", "a--b")
    for key in keys:
        store.put(key, key)
    assert sorted(keys) == sorted(info.name for info in store.list())
    assert all(set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-") for name in azure_double.vault.secrets)
    assert {tags_of(azure_double, name)["shiftable-name"] for name in azure_double.vault.secrets} == {
        f"shop/{key}" for key in keys
    }
    for key in keys:
        store.put(key, f"new {key}", stage="pending")
        store.delete(key, recovery=timedelta(days=7))
    assert sorted(keys) == sorted(info.name for info in store.list(deleted=True))
    for key in keys:
        store.restore(key)
        assert (store.get(key).reveal(), dict(store.get(key).labels)) == (key, {})


def test_an_escaped_name_is_read_and_healed_when_another_tool_dropped_its_tag(
    azure_double: AzureDouble, store: SecretStore
) -> None:
    store.put("Stripe.Key", "one")
    (native,) = azure_double.vault.secrets
    az_set(azure_double, native, "two")

    assert store.get("Stripe.Key").reveal() == "two"
    store.put("Stripe.Key", "three")
    assert [info.name for info in store.list()] == ["Stripe.Key"]


def test_two_names_of_one_id_are_refused(azure_double: AzureDouble, provider: AzureProvider) -> None:
    everything = Secrets(provider.secrets()).store("")
    everything.put("Stripe.Key", "one")
    (native,) = azure_double.vault.secrets

    with pytest.raises(Conflict, match=r"belongs to the secret 'Stripe\.Key'"):
        everything.put(f"~{native}", "two")
    assert azure_double.vault.secrets[native].latest.value == "one"


@pytest.mark.parametrize("length", [127, 128])
def test_a_name_is_as_long_as_its_id_may_be(azure_double: AzureDouble, provider: AzureProvider, length: int) -> None:
    everything = Secrets(provider.secrets()).store("")
    name = "a/" * 20 + "x" * (length - 60)
    if length == 127:
        everything.put(name, "value")
        everything.put(name, "next", stage="pending")
        assert everything.get(name, stage="pending").reveal() == "next"
        assert all(len(native) <= 127 for native in azure_double.vault.secrets)
        return
    with pytest.raises(InvalidArgument, match="127"):
        everything.put(name, "value")
    assert azure_double.calls == ()


# labels and expiry


@pytest.mark.parametrize(
    "labels",
    [
        {"shiftable-state": "x"}, {"Shiftable-Name": "x"}, {"file-encoding": "x"},
        {"x" * 513: "y"}, {"x": "y" * 513}, {"a": "1", "A": "2"},
    ],
    ids=["state", "name", "encoding", "long name", "long value", "case"],
)  # fmt: skip
def test_labels_that_are_no_tags_are_refused(
    azure_double: AzureDouble, store: SecretStore, labels: dict[str, str]
) -> None:
    with pytest.raises(InvalidArgument):
        store.put("key", "value", labels=labels)
    assert azure_double.calls == ()


def test_all_labels_fit_beside_all_of_our_tags(azure_double: AzureDouble, store: SecretStore) -> None:
    labels = {f"{number:02}{'n' * 510}": "v" * 512 for number in range(12)}
    store.put("Escaped.Name", b"\xff", labels=labels)
    store.put("Escaped.Name", b"\xfe", stage="pending")
    (main,) = (name for name in azure_double.vault.secrets if "pending" not in name)
    assert len(tags_of(azure_double, main)) == 15
    assert dict(store.get("Escaped.Name").labels) == labels


def test_more_tags_than_are_left_are_refused_and_nothing_is_lost(azure_double: AzureDouble, store: SecretStore) -> None:
    az_set(azure_double, "shop--key", "one", tags={f"t{number}": "x" for number in range(15)})
    with pytest.raises(InvalidArgument, match="more than 15"):
        store.put("key", "two")
    store.put("key", "two", labels={"t0": "x"})
    assert dict(store.get("key").labels) == {"t0": "x"}


def test_an_expiry_that_is_taken_away_is_gone_for_other_readers_too(
    azure_double: AzureDouble, store: SecretStore
) -> None:
    first = store.put("key", "one")
    second = store.put("key", "two", expires=datetime(2031, 5, 6, 7, 8, 9, tzinfo=UTC))
    pending = store.put("key", "three", stage="pending")
    secret = azure_double.vault.secrets["shop--key"]
    assert [version.exp for version in secret.versions.values()] == [None, 1_935_817_689]

    store.update("key", expires="never")
    assert [version.exp for version in secret.versions.values()] == [None, 1_935_817_689, None]
    assert [(entry.version, set(entry.stages)) for entry in store.history("key")] == [
        (pending.version, {"pending"}), (second.version, {"current"}), (first.version, {"previous"})
    ]  # fmt: skip


# deletion


def test_nothing_is_purged_under_purge_protection_and_nothing_is_deleted_in_the_attempt(
    azure_double: AzureDouble, store: SecretStore
) -> None:
    azure_double.vault.purge_protection = True
    store.put("key", "value")
    with pytest.raises(Conflict, match="purge protection"):
        store.delete("key", recovery=None)
    assert store.get("key").reveal() == "value"
    store.delete("key", recovery=timedelta(days=30))
    with pytest.raises(PermissionDenied, match="purge protection"):
        store.purge("key")
    assert [info.name for info in store.list(deleted=True)] == ["key"]
    azure_double.clock.advance(timedelta(days=91))
    assert list(store.list(deleted=True)) == []


def test_a_recovery_that_the_vault_does_not_have_is_refused(azure_double: AzureDouble, store: SecretStore) -> None:
    azure_double.vault.retention = 7
    store.put("key", "value")
    with pytest.raises(InvalidArgument, match="for 7 days"):
        store.delete("key")
    assert store.exists("key")
    store.delete("key", recovery=timedelta(days=7))
    store.restore("key")
    assert store.get("key").reveal() == "value"


def test_a_vault_without_soft_delete_deletes_only_for_good(azure_double: AzureDouble, store: SecretStore) -> None:
    azure_double.vault.retention = None
    store.put("key", "value")
    store.put("key", "next", stage="pending")
    with pytest.raises(Unsupported, match="no soft delete.*; purge it"):
        store.delete("key", recovery=timedelta(days=7))
    store.delete("key", recovery=None)
    assert azure_double.vault.secrets == {}


def test_deletion_purge_and_recovery_are_waited_for(azure_double: AzureDouble, store: SecretStore) -> None:
    azure_double.vault.looks = 2
    store.put("key", "one")
    store.delete("key", recovery=timedelta(days=7))
    assert [info.name for info in store.list(deleted=True)] == ["key"]
    store.restore("key")
    assert store.get("key").reveal() == "one"
    store.delete("key", recovery=None)
    assert list(store.list(deleted=True)) == []
    store.put("key", "two", if_absent=True)  # the name is taken for two more looks, as at Azure for some seconds
    assert store.get("key").reveal() == "two"


@pytest.mark.parametrize("skipped", [0, 1])
@pytest.mark.parametrize("operation", ["DeleteSecret", "GetDeletedSecret", "PurgeDeletedSecret"])
def test_a_deletion_that_was_cut_short_is_finished_by_its_repetition(
    azure_double: AzureDouble, store: SecretStore, operation: str, skipped: int
) -> None:
    store.put("key", "one")
    store.put("key", "two", stage="pending")
    seen = itertools.count()
    refusal = azure_double.inject(
        "status", status=403, match=lambda call: is_(operation)(call) and next(seen) == skipped
    )
    with pytest.raises(PermissionDenied):
        store.delete("key", recovery=None)
    store.delete("key", recovery=None)
    assert (refusal.hits, azure_double.vault.secrets) == (1, {})


def test_a_restoration_that_was_cut_short_is_finished_by_its_repetition(
    azure_double: AzureDouble, store: SecretStore
) -> None:
    store.put("key", "one")
    store.put("key", "two", stage="pending")
    store.delete("key", recovery=timedelta(days=7))
    seen = itertools.count()
    azure_double.inject("status", status=403, match=lambda call: is_("RecoverDeletedSecret")(call) and next(seen) == 1)
    with pytest.raises(PermissionDenied):
        store.restore("key")
    store.restore("key")
    assert store.get("key", stage="pending").reveal() == "two"


def test_a_deleted_name_says_how_to_go_on(store: SecretStore) -> None:
    store.put("key", "value")
    store.delete("key")
    with pytest.raises(Conflict, match="restore it, or purge it"):
        store.put("key", "another")


def test_what_lies_deleted_beside_does_not_stop_a_pending_version(
    azure_double: AzureDouble, store: SecretStore
) -> None:
    store.put("key", "one")
    store.put("key", "two", stage="pending")
    azure_double.vault.secrets["shop--key---pending"].deleted = azure_double.clock.now()

    with pytest.raises(NotFound):
        store.get("key", stage="pending")
    assert store.put("key", "three", stage="pending").stages == {"pending"}
    assert store.get("key", stage="pending").reveal() == "three"


def test_credentials_that_may_not_purge_leave_a_secret_that_can_be_restored(
    azure_double: AzureDouble, store: SecretStore
) -> None:
    store.put("key", "value")
    azure_double.vault.tokens[azure_double.token] = ALL - {"purge"}
    with pytest.raises(PermissionDenied, match="deleted, and can be restored, but not purged: .*purge/action"):
        store.delete("key", recovery=None)
    store.restore("key")
    assert store.get("key").reveal() == "value"

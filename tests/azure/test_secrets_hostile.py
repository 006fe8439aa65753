"""A vault that drops, throttles, truncates or refuses: no version is doubled, none is lost, no value shows."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import subprocess
import sys
import traceback
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from shiftable.config import Credential
from shiftable.errors import (
    ConfigError,
    Conflict,
    NotFound,
    OperationError,
    PermissionDenied,
    PreconditionFailed,
    Throttled,
    Timeout,
    Unauthenticated,
    Unavailable,
)
from shiftable.rotation import RandomToken, Rotation
from shiftable.secrets import Secrets, SecretStore
from shiftable.testing.harness import Call
from shiftable_azure import AzureProvider, AzureSettings
from shiftable_azure._double_vault import ALL
from shiftable_azure._vault import VaultRetries
from shiftable_azure.double import AzureDouble
from shiftable_azure.secrets import KeyVaultDriver

WRITES = ["SetSecret", "UpdateSecret", "DeleteSecret", "RecoverDeletedSecret", "PurgeDeletedSecret"]


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(VaultRetries, "pause", lambda _self, _failures: 0.0)


@pytest.fixture
def store(provider: AzureProvider) -> SecretStore:
    return Secrets(provider.secrets()).store("shop")


@pytest.fixture
def quick(azure_double: AzureDouble) -> Iterator[SecretStore]:
    made = AzureProvider(AzureSettings(**azure_double.config, max_attempts=2))
    yield Secrets(made.secrets()).store("shop")
    made.close()


def is_(operation: str) -> Callable[[Call], bool]:
    return lambda call: call.operation == operation and call.status is None


def versions(double: AzureDouble, name: str = "shop--key") -> list[str]:
    return [version.value for version in double.vault.secrets[name].versions.values()]


# what goes wrong on the way


def test_a_throttled_vault_is_asked_again(azure_double: AzureDouble, store: SecretStore) -> None:
    store.put("key", "one")
    azure_double.vault.throttled = 1
    body = json.dumps({"error": {"code": "Throttled", "message": "slow down"}}).encode()
    refusals = [
        azure_double.inject("status", status=429, headers=[("Retry-After", "0")], body=body, times=2, match=is_(name))
        for name in ("SetSecret", "GetSecret")
    ]
    store.put("key", "two")

    assert [refusal.hits for refusal in refusals] == [2, 2]
    assert versions(azure_double) == ["one", "two"]


def test_throttling_that_does_not_end_is_throttled(azure_double: AzureDouble, quick: SecretStore) -> None:
    azure_double.vault.throttled = 1_000
    with pytest.raises(Throttled) as caught:
        quick.get("key")
    assert (caught.value.code, caught.value.retry_after, caught.value.retryable) == ("Throttled", 1.0, True)


@pytest.mark.parametrize("status", [500, 502, 503, 504])
@pytest.mark.parametrize("operation", ["GetSecret", "SetSecret"])
def test_a_failing_vault_is_asked_again(
    azure_double: AzureDouble, store: SecretStore, operation: str, status: int
) -> None:
    failure = azure_double.inject("status", status=status, body=b"<html>oops</html>", match=is_(operation))
    store.put("key", "value")
    assert store.get("key").reveal() == "value"
    assert (failure.hits, versions(azure_double)) == (1, ["value"])


def test_a_vault_that_stays_away_is_unavailable(azure_double: AzureDouble, quick: SecretStore) -> None:
    azure_double.inject("status", status=503, times=None)
    with pytest.raises(Unavailable):
        quick.get("key")
    assert len(azure_double.calls) == 2


@pytest.mark.parametrize(
    ("method", "status", "again"),
    [
        ("GET", 503, True), ("GET", 429, True), ("GET", 404, False), ("DELETE", 500, True), ("PATCH", 503, True),
        ("POST", 503, True), ("PUT", 429, True), ("PUT", 503, False), ("PUT", 500, False), ("PUT", 200, False),
    ],
)  # fmt: skip
@pytest.mark.parametrize("asked", [None, "7", "3600"])
def test_only_what_did_nothing_is_sent_again_by_itself(
    method: str, status: int, asked: str | None, *, again: bool
) -> None:
    retries = VaultRetries(3)
    headers = {} if asked is None else {"Retry-After": asked}
    answer: Any = SimpleNamespace(
        http_request=SimpleNamespace(method=method),
        http_response=SimpleNamespace(status_code=status, headers=headers),
    )
    assert retries.is_retry(retries.configure_retries({}), answer) is again
    assert retries.get_retry_after(answer) == {None: None, "7": 7.0, "3600": 60.0}[asked]


@pytest.mark.parametrize("kind", ["drop_before", "drop_after"])
def test_a_lost_connection_makes_no_second_version(azure_double: AzureDouble, store: SecretStore, kind: Any) -> None:
    for number in range(3):
        lost = azure_double.inject(kind, match=is_("SetSecret"))
        stored = store.put("key", f"value {number}", stage="current" if number < 2 else "pending")
        assert lost.hits == 1
        assert store.get("key", version=stored.version).reveal() == f"value {number}"

    assert versions(azure_double) == ["value 0", "value 1"]
    assert versions(azure_double, "shop--key---pending") == ["value 2"]
    assert [entry.stages for entry in store.history("key")] == [{"pending"}, {"current"}, {"previous"}]


def test_a_write_whose_answer_is_lost_is_not_sent_over_one_that_came_since(
    azure_double: AzureDouble, store: SecretStore
) -> None:
    store.put("key", "one")
    azure_double.inject("drop_after", match=is_("SetSecret"))

    def overtake(call: Call) -> bool:
        if call.operation == "GetSecretVersions" and len(versions(azure_double)) == 2:
            azure_double.vault.put_raw("shop--key", "three")
        return False

    azure_double.inject("status", match=overtake)
    store.put("key", "two")

    assert versions(azure_double) == ["one", "two", "three"]


def test_a_create_whose_answer_was_lost_is_no_failed_precondition(
    azure_double: AzureDouble, store: SecretStore
) -> None:
    azure_double.inject("drop_after", match=is_("SetSecret"))
    assert store.put("key", "value", if_absent=True).stages == {"current"}
    assert versions(azure_double) == ["value"]


@pytest.mark.parametrize("operation", WRITES)
@pytest.mark.parametrize("kind", ["drop_before", "drop_after"])
def test_a_lost_answer_is_no_failure(azure_double: AzureDouble, store: SecretStore, operation: str, kind: Any) -> None:
    first = store.put("key", "one")
    store.put("key", "two")
    lost = azure_double.inject(kind, match=is_(operation))

    pending = store.put("key", "three", stage="pending")
    store.promote("key", first.version)
    store.update("key", labels={"team": "core"})
    store.delete("key", recovery=timedelta(days=7))
    store.restore("key")
    assert (store.get("key").reveal(), dict(store.get("key").labels)) == ("one", {"team": "core"})
    assert [set(entry.stages) for entry in store.history("key")] == [{"pending"}, {"previous"}, {"current"}]
    assert store.get("key", stage="pending").version == pending.version
    store.delete("key", recovery=None)

    assert lost.hits == 1
    assert azure_double.vault.secrets == {}


@pytest.mark.parametrize("operation", ["GetSecret", "SetSecret", "UpdateSecret", "GetSecretVersions", "GetSecrets"])
def test_a_truncated_answer_is_asked_for_again(azure_double: AzureDouble, store: SecretStore, operation: str) -> None:
    store.put("key", "one", labels={"team": "core"})
    cut = azure_double.inject("truncate", match=is_(operation))

    store.put("key", "two")
    store.put("key", "three", stage="pending")
    found = store.get("key")

    assert (found.reveal(), dict(found.labels), set(found.stages)) == ("two", {"team": "core"}, {"current"})
    assert [info.name for info in store.list()] == ["key"]
    assert len(list(store.history("key"))) == 3
    assert cut.hits == 1


@pytest.mark.parametrize("operation", ["GetSecret", "GetSecrets", "GetSecretVersions"])
def test_answers_that_always_end_early_are_never_taken_for_whole(
    azure_double: AzureDouble, quick: SecretStore, store: SecretStore, operation: str
) -> None:
    store.put("key", "value")
    azure_double.inject("truncate", match=is_(operation), times=None)

    with pytest.raises(Unavailable, match="ends early"):
        list(quick.list()), list(quick.history("key")), quick.get("key")


def test_a_write_that_never_arrives_says_so(azure_double: AzureDouble, quick: SecretStore) -> None:
    quick.put("key", "one")
    lost = azure_double.inject("drop_before", match=is_("SetSecret"), times=None)
    with pytest.raises(Unavailable):
        quick.put("key", "two")
    assert (lost.hits, versions(azure_double)) == (2, ["one"])


KILLED = """
import sys, shiftable
with shiftable.connect("azure", vault="shop-vault", vault_endpoint=sys.argv[1]) as cloud:
    store = cloud.secrets.store("shop")
    print(*sorted(store.put("key", "two", stage=sys.argv[2], idempotency_key="rotation").stages))
"""


@pytest.mark.parametrize("executed", [False, True], ids=["not executed", "executed"])
@pytest.mark.parametrize(
    ("stage", "operation"), [("current", "SetSecret"), ("pending", "SetSecret"), ("pending", "UpdateSecret")]
)
def test_a_writer_that_was_killed_is_finished_by_its_repetition(
    azure_double: AzureDouble, store: SecretStore, stage: str, operation: str, *, executed: bool
) -> None:
    store.put("key", "one")
    environ = {**os.environ, **azure_double.environ}
    command = [sys.executable, "-c", KILLED, azure_double.url, stage]
    first = subprocess.Popen(command, env=environ, stdout=subprocess.PIPE)

    def kill(call: Call) -> bool:
        if call.operation != operation or first.poll() is not None:
            return False
        first.kill()
        first.wait()
        return True

    azure_double.inject("drop_after" if executed else "drop_before", match=kill)
    assert first.wait(timeout=60) == -9
    assert first.stdout is not None
    first.stdout.close()

    second = subprocess.run(command, env=environ, capture_output=True, text=True, check=True, timeout=60)
    assert second.stdout == f"{stage}\n"
    assert versions(azure_double) == (["one", "two"] if stage == "current" else ["one"])
    if stage == "pending":
        assert versions(azure_double, "shop--key---pending") == ["two"]
    assert store.get("key", stage="pending" if stage == "pending" else "current").reveal() == "two"


# two writers


def test_writers_at_once_leave_all_their_versions_and_one_current(
    azure_double: AzureDouble, store: SecretStore
) -> None:
    store.put("key", "before")
    with ThreadPoolExecutor(8) as pool:
        stored = list(pool.map(lambda number: store.put("key", f"writer {number}"), range(8)))

    listed = {entry.version: entry.stages for entry in store.history("key")}
    assert len({secret.version for secret in stored}) == 8
    assert {secret.version for secret in stored} < set(listed)
    assert sum(stages == {"current"} for stages in listed.values()) == 1
    assert store.get("key").reveal() == versions(azure_double)[-1]


def test_a_rotation_and_a_write_by_hand_do_not_undo_each_other(azure_double: AzureDouble, store: SecretStore) -> None:
    store.put("key", "before")
    with ThreadPoolExecutor(2) as pool:
        futures = [
            pool.submit(store.put, "key", "by hand"),
            pool.submit(store.put, "key", "rotated", stage="pending"),
        ]
        by_hand, rotated = (future.result() for future in futures)

    assert store.get("key").version == by_hand.version
    assert rotated.version in {entry.version for entry in store.history("key")}
    assert store.get("key", version=rotated.version).reveal() == "rotated"


def test_a_write_between_the_look_and_the_write_is_seen_by_the_next_condition(
    azure_double: AzureDouble, store: SecretStore
) -> None:
    token = store.put("key", "one").token
    azure_double.vault.put_raw("shop--key", "by another tool")
    with pytest.raises(PreconditionFailed):
        store.put("key", "two", if_match=token)
    assert versions(azure_double) == ["one", "by another tool"]


# who asks


@pytest.mark.parametrize("access", ["rbac", "policy"])
@pytest.mark.parametrize("missing", sorted(ALL))
def test_a_missing_permission_is_said_in_one_sentence(
    azure_double: AzureDouble, store: SecretStore, access: str, missing: str
) -> None:
    store.put("key", "value")
    store.put("deleted", "value")
    store.delete("deleted")
    azure_double.vault.access = access
    azure_double.vault.tokens[azure_double.token] = ALL - {missing}
    acts: dict[str, Callable[[], object]] = {
        "get": lambda: store.get("key"),
        "list": lambda: list(store.list()),
        "set": lambda: store.put("key", "another"),
        "delete": lambda: store.delete("key"),
        "recover": lambda: store.restore("deleted"),
        "purge": lambda: store.purge("key"),
    }
    with pytest.raises(PermissionDenied) as caught:
        acts[missing]()
    named = {"rbac": "Microsoft.KeyVault/vaults/secrets/", "policy": f"the permission secrets {missing}"}[access]
    assert named in caught.value.message
    assert "\n" not in str(caught.value)
    assert caught.value.code == (
        "Forbidden" if missing == "purge" else {"rbac": "ForbiddenByRbac"}.get(access, "AccessDenied")
    )


def test_a_wrong_token_is_unauthenticated_and_not_shown(azure_double: AzureDouble) -> None:
    wrong = {**azure_double.config, "vault_token": Credential.literal("canary-of-a-token")}
    provider = AzureProvider(AzureSettings(**wrong))
    with pytest.raises(Unauthenticated) as caught:
        Secrets(provider.secrets()).store("shop").put("key", "value")
    provider.close()
    said = "".join(traceback.format_exception(caught.value)) + repr(provider.vault)
    assert "canary" not in said
    assert azure_double.vault.secrets == {}


def test_a_token_goes_to_no_vault_that_asks_for_one_of_another_domain(azure_double: AzureDouble) -> None:
    settings = AzureSettings(**{**azure_double.config, "vault": "vault.shop.example"})
    provider = AzureProvider(settings)
    with pytest.raises(Unauthenticated, match="tokens of another domain"):
        Secrets(provider.secrets()).store("shop").get("key")
    provider.close()
    assert [call.status for call in azure_double.calls] == [401]


def test_no_vault_is_a_problem_of_the_file(azure_double: AzureDouble) -> None:
    provider = AzureProvider(AzureSettings())
    with pytest.raises(ConfigError, match="secrets need vault"):
        Secrets(provider.secrets()).store("shop").get("key")


@pytest.mark.parametrize(
    ("vault", "url"),
    [
        ("shop-vault", "https://shop-vault.vault.azure.net"),
        ("shop.vault.azure.cn", "https://shop.vault.azure.cn"),
        ("shop.vault.usgovcloudapi.net", "https://shop.vault.usgovcloudapi.net"),
        ("https://shop.vault.azure.net/", "https://shop.vault.azure.net"),
    ],
    ids=["name", "host", "government", "url"],
)
def test_a_vault_is_named_by_its_name_its_host_or_its_url(azure_double: AzureDouble, vault: str, url: str) -> None:
    session = AzureProvider(AzureSettings(**{**azure_double.config, "vault": vault})).vault
    assert session.client.vault_url == url
    session.close()


@pytest.mark.parametrize(
    "settings",
    [
        {"vault": "http://shop.vault.azure.net"}, {"vault": "https://shop.vault.azure.net/secrets"}, {"vault": "a b"},
        {"vault": "https://shop.managedhsm.azure.net"}, {"vault_endpoint": "http://192.0.2.1:80"},
        {"vault_endpoint": "https://127.0.0.1:80"}, {"vault_endpoint": "http://127.0.0.1:80@example.org"},
    ],
    ids=["no TLS", "a path", "no name", "an HSM", "another machine", "TLS", "a trick"],
)  # fmt: skip
def test_what_is_no_vault_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="vault"):
        AzureSettings(**settings)


# nothing shows


def test_no_logger_and_no_frame_shows_a_value_or_a_token(
    azure_double: AzureDouble, quick: SecretStore, caplog: pytest.LogCaptureFixture
) -> None:
    canary = uuid.uuid4().hex
    with caplog.at_level(logging.DEBUG):
        first = quick.put("key", canary)
        quick.put("key", "x", labels={"team": "core"})
        quick.get("key", version=first.version)
        azure_double.inject("drop_before", times=None, match=is_("SetSecret"))
        errors = []
        acts: list[Callable[[], object]] = [
            lambda: quick.put("key", canary),
            lambda: quick.promote("key", first.version),
        ]
        for act in acts:
            with pytest.raises(OperationError) as caught:
                act()
            errors.append(caught.value)

    told = [record.getMessage() + repr(record.args) for record in caplog.records]
    assert told
    assert not [text for text in told if canary in text or azure_double.token in text]
    for error in errors:
        link: BaseException | None = error.__cause__
        while link is not None:
            frames = traceback.walk_tb(link.__traceback__)
            assert not [name for frame, _ in frames for name, value in frame.f_locals.items() if canary in repr(value)]
            link = link.__cause__ or link.__context__


def test_a_driver_shows_no_credential(azure_double: AzureDouble, store: SecretStore) -> None:
    driver = store.unwrap(KeyVaultDriver)
    assert azure_double.token not in repr(driver) + repr(vars(driver.client)) + repr(store)


def test_an_operation_that_nobody_knows_of_keeps_its_code(azure_double: AzureDouble, store: SecretStore) -> None:
    body = json.dumps({"error": {"code": "BrandNew", "message": "surprise"}}).encode()
    azure_double.inject("status", status=418, body=body, headers=[("Content-Type", "application/json")])
    with pytest.raises(OperationError) as caught:
        store.get("key")
    assert (type(caught.value), caught.value.code, caught.value.message) == (OperationError, "BrandNew", "surprise")


def test_versions_that_are_no_ids_reach_no_url(azure_double: AzureDouble, store: SecretStore) -> None:
    store.put("key", "value")
    for version in ("versions", "..", "../other", "A" * 32, "", "0" * 33):
        with pytest.raises(NotFound):
            store.get("key", version=version)
        with pytest.raises(NotFound):
            store.promote("key", version)
    assert all(call.path in {"/secrets/shop--key", "/secrets/shop--key/"} for call in azure_double.calls)


def test_a_prefix_is_not_said_to_exist_by_credentials_that_do_not_work(
    azure_double: AzureDouble, provider: AzureProvider
) -> None:
    secrets = Secrets(provider.secrets())
    assert secrets.exists("shop")
    azure_double.vault.tokens[azure_double.token] = ALL - {"list"}
    with pytest.raises(PermissionDenied):
        secrets.exists("shop")


def test_a_vault_that_is_not_there_is_no_missing_secret(azure_double: AzureDouble, quick: SecretStore) -> None:
    body = json.dumps({"error": {"code": "VaultNotFound", "message": "no such vault"}}).encode()
    azure_double.inject("status", status=404, body=body, headers=[("Content-Type", "application/json")], times=None)
    acts: list[Callable[[], object]] = [
        lambda: quick.get("key"),
        lambda: quick.exists("key"),
        lambda: quick.put("key", "value", if_absent=True),
        lambda: quick.purge("key"),
        lambda: quick.restore("key"),
    ]
    for act in acts:
        with pytest.raises(Unavailable, match="no such vault"):
            act()


def test_what_never_settles_says_what_was_waited_for(
    azure_double: AzureDouble, store: SecretStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shiftable_azure.secrets._SETTLING", timedelta(milliseconds=300))
    store.put("key", "value")
    azure_double.vault.looks = 1_000
    with pytest.raises(Timeout, match="for the deletion of 'shop--key'") as caught:
        store.delete("key")
    assert (caught.value.operation, str(caught.value.resource)) == ("secrets.delete", "secret 'key' in prefix 'shop'")
    azure_double.vault.secrets.clear()
    azure_double.vault.gone["shop--key"] = 1_000
    with pytest.raises(Timeout, match="for the name 'shop--key' to be free"):
        store.put("key", "another")


def test_of_many_rotations_at_once_one_replaces_the_value(azure_double: AzureDouble, store: SecretStore) -> None:
    first = store.put("key", "before", idempotency_key="first")

    def rotate(_: int) -> bool:
        with contextlib.suppress(Conflict):
            Rotation(store, "key", RandomToken()).run(now=True)
            return True
        return False

    with ThreadPoolExecutor(4) as pool:
        finished = list(pool.map(rotate, range(8)))

    assert any(finished)
    assert store.get("key").version != first.version
    assert store.get("key", stage="previous").version == first.version
    with pytest.raises(NotFound):
        store.get("key", stage="pending")

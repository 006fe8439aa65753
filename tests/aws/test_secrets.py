"""AWS Secrets Manager keeps the rules for secrets, at a double that keeps AWS's."""

from __future__ import annotations

import base64
import logging
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

import attrs
import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from shiftable.config import Credential
from shiftable.errors import (
    Conflict,
    InvalidArgument,
    NotFound,
    OperationError,
    PreconditionFailed,
    Throttled,
    Timeout,
    Unauthenticated,
    Unavailable,
)
from shiftable.secrets import Secrets, SecretStore
from shiftable.testing.conformance.secrets import SecretsConformance, SecretsOracle, secrets_machine
from shiftable.testing.harness import Call
from shiftable_aws import AwsProvider, AwsSettings
from shiftable_aws.double import AwsDouble
from shiftable_aws.secrets import SecretsManagerDriver

from .hostile import is_


@attrs.define
class Backend:
    """Reads the double's own objects."""

    double: AwsDouble

    def secrets(self) -> dict[str, Any]:
        return dict(self.double.backend("secretsmanager").secrets)

    def version(self, name: str, label: str) -> dict[str, Any]:
        found = [entry for entry in self.secrets()[name].versions.values() if label in entry["version_stages"]]
        (only,) = found
        return dict(only)

    def value(self, name: str) -> bytes | None:
        secret = self.secrets().get(name)
        if secret is None or secret.deleted_date is not None:
            return None
        entry = self.version(name, "AWSCURRENT")
        return entry["secret_string"].encode() if "secret_string" in entry else base64.b64decode(entry["secret_binary"])

    def names(self) -> list[str]:
        return [name for name, secret in self.secrets().items() if secret.deleted_date is None]


@pytest.fixture
def oracle(aws_double: AwsDouble) -> Backend:
    return Backend(aws_double)


@pytest.fixture
def store(provider: AwsProvider) -> SecretStore:
    return Secrets(provider.secrets()).store("shop")


def calls_of(double: AwsDouble) -> list[str]:
    return [call.operation for call in double.calls]


class TestSecretsManager(SecretsConformance):
    foreign_loggers: ClassVar[tuple[str, ...]] = ("botocore",)  # the driver's documentation warns of it

    @pytest.fixture
    def driver(self, provider: AwsProvider) -> Any:
        return provider.secrets()

    @pytest.fixture
    def oracle(self, aws_double: AwsDouble) -> SecretsOracle:
        return Backend(aws_double)


def test_the_driver_does_what_the_model_does(provider: AwsProvider, aws_double: AwsDouble) -> None:
    def make_store() -> SecretStore:
        aws_double.reset()
        return Secrets(provider.secrets()).store("machine")

    run_state_machine_as_test(secrets_machine(make_store), settings=settings.get_profile("machine"))


# what goes wrong on the way


def test_all_times_are_utc_wherever_the_machine_is(store: SecretStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        store.put("key", "value")
        made = store.get("key")  # a write does not tell when it was
        (listed,), (version,) = store.list(), store.history("key")
    finally:
        monkeypatch.undo()
        time.tzset()
    found = (made.created, listed.modified, version.created)
    assert [moment.tzinfo if moment else None for moment in found] == [UTC, UTC, UTC]


def test_a_throttled_call_is_tried_again(aws_double: AwsDouble, store: SecretStore, oracle: Backend) -> None:
    body = b'{"__type": "ThrottlingException", "message": "Rate exceeded"}'
    refusal = aws_double.inject("status", status=400, body=body, times=2, match=is_("CreateSecret"))

    store.put("key", "value")

    assert refusal.hits == 2
    assert oracle.value("shop/key") == b"value"


def test_throttling_that_does_not_end_is_throttled(aws_double: AwsDouble, store: SecretStore) -> None:
    body = b'{"__type": "ThrottlingException", "message": "Rate exceeded"}'
    aws_double.inject("status", status=400, body=body, headers=[("Retry-After", "3")], times=None)
    store.unwrap(SecretsManagerDriver)  # the default of five attempts would wait too long
    quick = AwsProvider(AwsSettings(**aws_double.config, max_attempts=1))

    with pytest.raises(Throttled) as caught:
        Secrets(quick.secrets()).store("shop").get("key")

    quick.close()
    assert (caught.value.code, caught.value.retry_after, caught.value.retryable) == ("ThrottlingException", 3.0, True)


@pytest.mark.parametrize("status", [500, 503])
def test_a_failing_service_is_tried_again(aws_double: AwsDouble, store: SecretStore, status: int) -> None:
    store.put("key", "value")
    aws_double.inject("status", status=status, body=b"<html>oops</html>")

    assert store.get("key").reveal() == "value"


def test_a_service_that_stays_away_is_unavailable(aws_double: AwsDouble) -> None:
    aws_double.inject("status", status=503, times=None)
    quick = AwsProvider(AwsSettings(**aws_double.config, max_attempts=2))

    with pytest.raises(Unavailable):
        Secrets(quick.secrets()).store("shop").get("key")

    quick.close()
    assert len(aws_double.calls) == 2


@pytest.mark.parametrize("kind", ["drop_before", "drop_after"])
def test_a_lost_connection_makes_no_second_version(
    aws_double: AwsDouble, store: SecretStore, oracle: Backend, kind: Any
) -> None:
    for operation in ("CreateSecret", "PutSecretValue"):
        drop = aws_double.inject(kind, match=is_(operation))
        store.put("key", operation)
        assert drop.hits == 1

    assert len(oracle.secrets()["shop/key"].versions) == 2
    assert [entry.stages for entry in store.history("key")] == [{"current"}, {"previous"}]


def test_a_create_whose_answer_was_lost_is_no_failed_precondition(aws_double: AwsDouble, store: SecretStore) -> None:
    aws_double.inject("drop_after", match=is_("CreateSecret"))

    assert store.put("key", "value", if_absent=True).stages == {"current"}


@pytest.mark.parametrize("operation", ["DeleteSecret", "RestoreSecret", "UpdateSecretVersionStage"])
def test_a_lost_answer_is_no_failure(aws_double: AwsDouble, store: SecretStore, operation: str) -> None:
    first = store.put("key", "one")
    store.put("key", "two")
    drop = aws_double.inject("drop_after", match=is_(operation))

    store.promote("key", first.version)
    store.delete("key", recovery=timedelta(days=7))
    store.restore("key")

    assert drop.hits == 1
    assert store.get("key").reveal() == "one"
    assert [set(entry.stages) for entry in store.history("key")] == [{"previous"}, {"current"}]


@pytest.mark.parametrize("operation", ["DescribeSecret", "GetSecretValue", "PutSecretValue"])
def test_a_truncated_answer_is_asked_for_again(aws_double: AwsDouble, store: SecretStore, operation: str) -> None:
    store.put("key", "one", labels={"team": "core"})
    cut = aws_double.inject("truncate", match=is_(operation))

    store.put("key", "two")

    found = store.get("key")
    assert (found.reveal(), dict(found.labels), set(found.stages)) == ("two", {"team": "core"}, {"current"})
    assert (cut.hits, len(list(store.history("key")))) == (1, 2)


@pytest.mark.parametrize("operation", ["DescribeSecret", "GetSecretValue", "ListSecrets", "ListSecretVersionIds"])
def test_answers_that_always_end_early_are_never_taken_for_whole(
    aws_double: AwsDouble, store: SecretStore, operation: str
) -> None:
    store.put("key", "value")
    aws_double.inject("truncate", match=is_(operation), times=None)
    quick = AwsProvider(AwsSettings(**aws_double.config, max_attempts=2))
    half = Secrets(quick.secrets()).store("shop")

    # botocore below 1.43 notices by itself, and says that the connection was closed
    with pytest.raises((Timeout, Unavailable), match="ends early|closed before"):
        list(half.list()), list(half.history("key")), half.get("key")

    quick.close()


def test_a_promotion_that_another_overtakes_is_done_anyway(aws_double: AwsDouble, store: SecretStore) -> None:
    first, second, third = (store.put("key", value) for value in ("one", "two", "three"))
    overtaken: list[str] = []

    def overtake(call: Call) -> bool:
        if call.operation == "UpdateSecretVersionStage" and not overtaken:
            overtaken.append(second.version)
            versions = aws_double.backend("secretsmanager").secrets["shop/key"].versions
            versions[third.version]["version_stages"] = ["AWSPREVIOUS"]
            versions[second.version]["version_stages"] = ["AWSCURRENT"]
        return False

    aws_double.inject("status", match=overtake)
    store.promote("key", first.version)

    assert (store.get("key").reveal(), store.get("key", stage="previous").reveal()) == ("one", "two")


# who asks


@pytest.mark.parametrize("wrong", ["access_key", "secret_key"])
def test_wrong_credentials_are_unauthenticated(aws_double: AwsDouble, wrong: str) -> None:
    config = {**aws_double.config, wrong: Credential.literal("AKIACANARYCANARY0000")}
    provider = AwsProvider(AwsSettings(**config))

    with pytest.raises(Unauthenticated) as caught:
        Secrets(provider.secrets()).store("shop").put("key", "value")

    provider.close()
    codes = {"access_key": "UnrecognizedClientException", "secret_key": "InvalidSignatureException"}
    assert caught.value.code == codes[wrong]
    assert wrong == "access_key" or "CANARY" not in f"{caught.value} {caught.value.__cause__!r}"


def test_no_logger_of_ours_shows_a_value_or_a_key(
    aws_double: AwsDouble, store: SecretStore, caplog: pytest.LogCaptureFixture
) -> None:
    canary, key = uuid.uuid4().hex, aws_double.config["secret_key"].reveal()
    with caplog.at_level(logging.DEBUG):
        aws_double.inject("status", status=503, times=1)
        store.put("key", canary)
        store.get("key")
        with pytest.raises(PreconditionFailed):
            store.put("key", canary, if_absent=True)

    ours = [record.getMessage() for record in caplog.records if record.name.startswith("shiftable")]
    assert ours
    assert not [text for text in ours if canary in text or key in text]


# what is AWS's own


def test_of_many_creators_one_wins(store: SecretStore, oracle: Backend) -> None:
    """The conformance suite asks it only where ``if_match`` is atomic too."""

    def create(number: int) -> str | None:
        try:
            return store.put("key", f"writer {number}", if_absent=True).reveal()
        except PreconditionFailed:
            return None

    with ThreadPoolExecutor(8) as pool:
        won = [value for value in pool.map(create, range(8)) if value is not None]

    assert [value.encode() for value in won] == [oracle.value("shop/key")]


def test_labels_are_tags_and_the_expiry_is_one_of_its_own(store: SecretStore, oracle: Backend) -> None:
    store.put("key", "value", labels={"team": "core"}, expires=datetime(2031, 5, 6, 7, 8, 9, tzinfo=UTC))

    tags = {tag["Key"]: tag["Value"] for tag in oracle.secrets()["shop/key"].tags}
    assert tags == {"team": "core", "shiftable-expires": "2031-05-06T07:08:09Z"}
    assert oracle.value("shop/key") == b"value"


def test_tags_of_aws_and_an_unreadable_expiry_are_left_alone(store: SecretStore, oracle: Backend) -> None:
    store.put("key", "value", labels={"team": "core"})
    foreign = [{"Key": "aws:cloudformation:stack", "Value": "s"}, {"Key": "shiftable-expires", "Value": "soon"}]
    oracle.secrets()["shop/key"].tags += foreign

    found = store.put("key", "new", labels={"team": "web"})

    assert (dict(found.labels), found.expires) == ({"team": "web"}, None)
    assert {tag["Key"] for tag in oracle.secrets()["shop/key"].tags} >= {"aws:cloudformation:stack"}


def test_a_pending_label_that_rotation_left_on_the_current_version_does_not_count(
    store: SecretStore, oracle: Backend
) -> None:
    current = store.put("key", "value")
    oracle.secrets()["shop/key"].versions[current.version]["version_stages"] += ["AWSPENDING", "mine"]

    assert store.get("key").stages == {"current"}
    with pytest.raises(NotFound):
        store.get("key", stage="pending")


def test_the_same_idempotency_key_is_the_same_version_id_everywhere(store: SecretStore) -> None:
    assert store.put("key", "value", idempotency_key="rotation-7").version == "edd3b698-55ab-5512-bd83-0e14ac0f8e59"


@pytest.mark.parametrize(("asked", "days"), [(timedelta(hours=1), 7), (timedelta(days=7, seconds=1), 8)])
def test_a_recovery_is_rounded_up_to_what_aws_has(
    aws_double: AwsDouble, store: SecretStore, asked: timedelta, days: int
) -> None:
    store.put("key", "value")
    store.delete("key", recovery=asked)

    aws_double.clock.advance(timedelta(days=days, seconds=-60))
    assert [info.name for info in store.list(deleted=True)] == ["key"]
    aws_double.clock.advance(timedelta(seconds=120))
    assert list(store.list(deleted=True)) == []
    store.put("key", "another", if_absent=True)


@pytest.mark.parametrize(
    "labels", [{"aws:x": "y"}, {"shiftable-expires": "y"}, {"x" * 129: "y"}, {"x": "y" * 257}, {"x": "a;b"}]
)
def test_labels_that_are_no_tags_are_refused(aws_double: AwsDouble, store: SecretStore, labels: dict[str, str]) -> None:
    with pytest.raises(InvalidArgument):
        store.put("key", "value", labels=labels)
    assert aws_double.calls == ()


def test_a_new_value_costs_two_calls_and_reading_it_two(aws_double: AwsDouble, store: SecretStore) -> None:
    store.put("key", "one")
    store.put("key", "two")
    store.get("key")

    assert calls_of(aws_double) == [
        *("PutSecretValue", "CreateSecret", "DescribeSecret"),
        *("PutSecretValue", "DescribeSecret"),
        *("DescribeSecret", "GetSecretValue"),
    ]


def test_versions_beyond_a_hundred_are_dropped_after_a_day(aws_double: AwsDouble, store: SecretStore) -> None:
    for number in range(103):
        store.put("key", f"value {number}")
    assert len(list(store.history("key"))) == 103

    aws_double.clock.advance(timedelta(hours=25))
    newest = store.put("key", "last")

    kept = list(store.history("key"))
    assert (len(kept), kept[0].version) == (100, newest.version)


def test_a_name_that_is_taken_by_a_secret_without_a_value_is_no_crash(
    store: SecretStore, provider: AwsProvider
) -> None:
    provider.session.client("secretsmanager").create_secret(Name="shop/empty")

    with pytest.raises(NotFound):
        store.get("empty")
    assert store.put("empty", "value").stages == {"current"}
    assert store.get("empty").reveal() == "value"


def test_an_operation_that_nobody_knows_of_keeps_its_code(aws_double: AwsDouble, store: SecretStore) -> None:
    aws_double.inject("status", status=418, body=b'{"__type": "BrandNewException", "message": "surprise"}')

    with pytest.raises(OperationError) as caught:
        store.get("key")

    assert (type(caught.value), caught.value.code) == (OperationError, "BrandNewException")


def test_a_deleted_name_says_how_to_go_on(store: SecretStore) -> None:
    store.put("key", "value")
    store.delete("key")

    with pytest.raises(Conflict, match="restore it, or purge it"):
        store.put("key", "another")


def test_a_prefix_is_not_said_to_exist_by_credentials_that_do_not_work(
    provider: AwsProvider, aws_double: AwsDouble
) -> None:
    secrets = Secrets(provider.secrets())
    assert secrets.exists("shop")
    assert ["ListSecrets"] == calls_of(aws_double)
    aws_double.inject("status", status=403)
    with pytest.raises(OperationError):
        secrets.exists("shop")

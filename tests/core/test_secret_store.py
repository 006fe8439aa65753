"""What the portable store does by itself, whatever the driver does."""

from __future__ import annotations

import base64
import json
import pickle
import traceback
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from urllib.parse import quote

import attrs
import pytest

from shiftable.errors import (
    Fault,
    InvalidArgument,
    NotFound,
    OperationError,
    PermissionDenied,
    Unavailable,
    Unsupported,
)
from shiftable.features import Limit
from shiftable.memory._faults import MemoryFault
from shiftable.memory.secrets import FEATURES, MemorySecretsDriver
from shiftable.secrets import Masked, Secret, SecretInfo, Secrets, SecretsFeatures, SecretsSpec, SecretStore
from shiftable.secrets.driver import SecretsDriver

CANARY = "canary-\"4b82\n5dc642cb6eb9a060e54bf8d69288fbee4904'ü"


@attrs.define
class Recorder(MemorySecretsDriver):
    """Notes the calls that arrive."""

    calls: list[tuple[str, Any]] = attrs.field(factory=list, init=False)

    def put(self, name: str, value: Masked, **options: Any) -> Secret:
        self.calls.append((f"put {name}", {"value": value, **options}))
        return super().put(name, value, **options)

    def get(self, name: str, **options: Any) -> Secret:
        self.calls.append((f"get {name}", options))
        return super().get(name, **options)

    def list(self, **options: Any) -> Any:
        self.calls.append(("list", options))
        return super().list(**options)


@pytest.fixture
def driver() -> Recorder:
    return Recorder(page_size=2)


@pytest.fixture
def store(driver: Recorder) -> SecretStore:
    return Secrets(driver).store("shop")


# names


@pytest.mark.parametrize(
    ("prefix", "name"), [("shop", "shop/db/password"), ("a/b", "a/b/db/password"), ("", "db/password")]
)
def test_a_name_is_prefix_slash_key(driver: Recorder, prefix: str, name: str) -> None:
    stored = Secrets(driver).store(prefix).put("db/password", "value")
    assert [call for call, _ in driver.calls] == [f"put {name}"]
    assert stored.name == "db/password"


def test_results_have_keys_and_not_names(store: SecretStore) -> None:
    store.put("a/b", "value")
    assert store.get("a/b").name == "a/b"
    assert [info.name for info in store.list()] == ["a/b"]
    assert [entry.name for entry in store.history("a/b")] == ["a/b"]


def test_a_listing_asks_for_what_is_below_the_slash(driver: Recorder, store: SecretStore) -> None:
    list(store.list("db"))
    assert [options["prefix"] for _, options in driver.calls] == ["shop/db"]


def test_a_listing_with_a_limit_makes_no_call_too_many(driver: Recorder, store: SecretStore) -> None:
    for key in "abcdef":
        store.put(key, "value")
    driver.calls.clear()
    assert [info.name for info in store.list(limit=4)] == ["a", "b", "c", "d"]
    assert [options["limit"] for _, options in driver.calls] == [4, 2]


@pytest.mark.parametrize("prefix", ["/", "/a", "a/", "a//b", "\ud800"], ids=ascii)
def test_a_malformed_prefix_is_refused_at_once(driver: Recorder, prefix: str) -> None:
    with pytest.raises(InvalidArgument, match="the prefix"):
        Secrets(driver).store(prefix)


def test_the_limit_of_names_counts_the_prefix(driver: Recorder) -> None:
    store = Secrets(driver).store("p" * 500)
    assert store.check_key("k" * 11) is None
    assert store.check_key("k" * 12) == "the name has 513 characters; the limit is 512 (chosen, as AWS Secrets Manager)"


def test_a_declared_prefix_opens_the_store_of_that_name(driver: Recorder) -> None:
    store = Secrets(driver).open(SecretsSpec(name="shop", env={"KEY": "key"}))
    assert repr(store) == "<SecretStore 'shop' on memory>"


def test_an_error_of_the_empty_prefix_does_not_speak_of_a_prefix(driver: Recorder) -> None:
    with pytest.raises(NotFound, match=r"^secrets\.get on secret 'a/b' \(memory\): there is no such secret$"):
        Secrets(driver).store("").get("a/b")


# what the driver gets


def test_the_driver_gets_masked_values_and_utc(driver: Recorder, store: SecretStore) -> None:
    noon = datetime(2031, 1, 1, 12, tzinfo=timezone(timedelta(hours=2)))
    for value in ("text", b"bytes", Masked("masked")):
        store.put("key", value, expires=noon)
    assert [options["value"] for _, options in driver.calls] == [Masked("text"), Masked(b"bytes"), Masked("masked")]
    assert {options["expires"].tzinfo for _, options in driver.calls} == {UTC}
    assert driver.calls[0][1]["expires"] == noon


def test_a_version_is_asked_for_without_a_stage(driver: Recorder, store: SecretStore) -> None:
    version = store.put("key", "value").version
    store.get("key")
    store.get("key", version=version)
    assert [options for call, options in driver.calls if call.startswith("get")] == [
        {"stage": "current", "version": None},
        {"stage": None, "version": version},
    ]


# features


@attrs.define
class Limited(Recorder):
    """The same driver, which says that it can do less."""

    limited: SecretsFeatures = FEATURES

    @property
    def features(self) -> SecretsFeatures:
        return self.limited


DENIED: list[tuple[str, Callable[[SecretStore], object]]] = [
    ("binary", lambda store: store.put("key", b"\xff")),
    ("labels", lambda store: store.put("key", "value", labels={"a": "b"})),
    ("expiry", lambda store: store.put("key", "value", expires=datetime(2031, 1, 1, tzinfo=UTC))),
    ("if_absent", lambda store: store.put("key", "value", if_absent=True)),
    ("if_match", lambda store: store.put("key", "value", if_match=store.get("seen").token)),
    ("pending", lambda store: store.put("key", "value", stage="pending")),
    ("pending", lambda store: store.get("key", stage="pending")),
    ("history", lambda store: store.get("key", stage="previous")),
    ("history", lambda store: store.history("key")),
    ("disable", lambda store: store.disable("key", "1")),
    ("destroy", lambda store: store.destroy("key", "1")),
    ("update", lambda store: store.update("key", labels={"a": "b"})),
    ("labels", lambda store: store.update("key", labels={"a": "b"})),
    ("expiry", lambda store: store.update("key", expires="never")),
    ("if_match", lambda store: store.update("key", labels={}, if_match=store.get("seen").token)),
    ("recovery", lambda store: store.delete("key")),
    ("recovery", lambda store: store.restore("key")),
    ("recovery", lambda store: store.list(deleted=True)),
]


@pytest.mark.parametrize(("feature", "act"), DENIED)
def test_what_the_features_deny_never_reaches_the_driver(feature: str, act: Callable[[SecretStore], object]) -> None:
    denied: dict[str, Any] = {feature: False}
    driver = Limited(limited=attrs.evolve(FEATURES, **denied))
    store = Secrets(driver).store("shop")
    seen = store.put("seen", "value").token
    driver.calls.clear()
    with pytest.raises(Unsupported, match="this provider has no"):
        act(store)
    assert [call for call in driver.calls if call[0] != "get shop/seen"] == []
    assert store.get("seen").token == seen


def test_a_promotion_needs_history_or_pending() -> None:
    store = Secrets(Limited(limited=attrs.evolve(FEATURES, history=False, pending=False))).store("shop")
    with pytest.raises(Unsupported, match="versions"):
        store.promote("key", "1")


def test_existence_is_told_without_a_history_too() -> None:
    store = Secrets(Limited(limited=attrs.evolve(FEATURES, history=False))).store("shop")
    store.put("key", "value")
    assert [store.exists("key"), store.exists("missing")] == [True, False]


def test_bytes_that_are_text_go_as_text_to_a_driver_without_binary() -> None:
    driver = Limited(limited=attrs.evolve(FEATURES, binary=False))
    Secrets(driver).store("shop").put("key", "grün".encode())
    assert driver.calls[0][1]["value"] == Masked("grün")


def test_a_value_is_measured_in_bytes_of_utf8() -> None:
    store = Secrets(Limited(limited=attrs.evolve(FEATURES, max_value=Limit(4, "here")))).store("shop")
    store.put("key", "éé")
    with pytest.raises(InvalidArgument, match=r"the value has 5 bytes; the limit is 4 \(here\)"):
        store.put("key", "ééx")


def test_a_recovery_is_positive_and_within_the_limit() -> None:
    store = Secrets(Limited(limited=attrs.evolve(FEATURES, max_recovery=Limit(30, "here")))).store("shop")
    for recovery in (timedelta(0), timedelta(days=-1), timedelta(days=30, seconds=1)):
        with pytest.raises(InvalidArgument, match="recovery"):
            store.delete("key", recovery=recovery)


def test_labels_are_checked_by_the_driver(store: SecretStore) -> None:
    assert store.check_labels({"team": "core"}) is None
    assert store.check_labels({"": "core"}) == "a label's name is empty"
    many = {str(number): "x" for number in range(51)}
    assert store.check_labels(many) == "there are 51 labels; the limit is 50 (chosen, as AWS Secrets Manager)"


# environments


def test_an_environment_has_masked_values(driver: Recorder, store: SecretStore) -> None:
    store.put("db/password", "value")
    environment = store.environment({"PASSWORD": "db/password", "PGPASSWORD": "db/password"})
    assert environment == {"PASSWORD": Masked("value"), "PGPASSWORD": Masked("value")}
    assert [call for call, _ in driver.calls if call.startswith("get")] == ["get shop/db/password"]


def test_all_missing_secrets_of_an_environment_are_named_at_once(store: SecretStore) -> None:
    store.put("here", "value")
    with pytest.raises(NotFound) as caught:
        store.environment({"A": "missing/1", "B": "here", "C": "missing/2", "D": "missing/1"})
    assert str(caught.value) == (
        "secrets.environment on prefix 'shop' (memory): these secrets do not exist: "
        "missing/1 (for A), missing/2 (for C), missing/1 (for D)"
    )


def test_a_refused_permission_is_not_a_missing_secret(driver: Recorder, store: SecretStore) -> None:
    store = Secrets(Failing(MemoryFault(Fault(PermissionDenied, "not yours")))).store("shop")
    for act in (store.exists, lambda key: store.environment({"A": key})):
        with pytest.raises(PermissionDenied, match="not yours"):
            act("key")


# values in errors


class Failing(MemorySecretsDriver):
    """Fails as it was told."""

    def __init__(self, error: Exception, cause: Exception | None = None) -> None:
        super().__init__()
        self.error, self.cause = error, cause

    def put(self, name: str, value: Masked, **options: Any) -> Secret:
        body = {"SecretString": value.reveal_bytes()}  # what the frames of an SDK hold
        assert body
        raise self.error from self.cause

    def get(self, name: str, **options: Any) -> Secret:
        raise self.error

    def history(self, name: str, **options: Any) -> Any:
        raise self.error


def failure(error: Exception, cause: Exception | None = None, *, value: str | bytes = CANARY) -> Exception:
    with pytest.raises(type(error) if not isinstance(error, MemoryFault) else OperationError) as caught:
        Secrets(Failing(error, cause)).store("shop").put("key", value)
    return caught.value


def told(error: BaseException, *, capture_locals: bool = False) -> str:
    """Return everything that an error tells, and the frames of this library below the test's own."""
    report = traceback.TracebackException.from_exception(error, capture_locals=capture_locals)
    report.stack[:] = [frame for frame in report.stack if frame.filename != __file__]
    return "".join(report.format()) + repr(error) + pickle.dumps(error).decode("latin-1")


def chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def test_a_native_error_stays_as_the_cause_and_loses_its_frames() -> None:
    native = MemoryFault(Fault(Unavailable, "try again", code="Busy"))
    error = failure(native)
    assert isinstance(error, Unavailable)
    assert error.__cause__ is native
    assert native.__traceback__ is None
    assert "canary" not in told(error, capture_locals=True)


@pytest.mark.parametrize(
    "echo",
    [
        CANARY,
        repr(CANARY),
        json.dumps({"SecretString": CANARY}),
        repr(CANARY.encode()),
        base64.b64encode(CANARY.encode()).decode(),
        CANARY.encode().hex(),
        quote(CANARY),
        f"{CANARY[:30]}...",
    ],
)
def test_an_error_that_shows_the_value_is_replaced_by_one_that_stands_alone(echo: str) -> None:
    error = failure(
        MemoryFault(Fault(Unavailable, f"cannot store {echo}", code="Busy", retry_after=7, request_id="r1"))
    )
    assert isinstance(error, Unavailable)
    assert str(error) == (
        "secrets.put on secret 'key' in prefix 'shop' (memory): "
        "the message of MemoryFault is withheld, because it shows the value [Busy, request r1]"
    )
    assert error.retry_after == 7
    assert list(chain(error)) == [error]
    assert echo not in told(error, capture_locals=True)


def test_a_value_that_is_a_part_of_the_name_may_stand_in_the_name() -> None:
    native = MemoryFault(Fault(Unavailable, "the secret shop/db/user/app is busy"))
    with pytest.raises(Unavailable, match="the secret shop/db/user/app is busy") as caught:
        Secrets(Failing(native)).store("shop").put("db/user/app", "app")
    assert caught.value.__cause__ is native
    with pytest.raises(Unavailable, match="withheld"):
        Secrets(Failing(MemoryFault(Fault(Unavailable, "shop/db/user/app: bad value app")))).store("shop").put(
            "db/user/app", "app"
        )


@pytest.mark.parametrize(
    ("value", "message"),
    [("e", "the server is busy, request 65 failed"), ("ok", "it looked OK, the token is not"), ("hunter", "hunters")],
)
def test_a_short_value_withholds_no_message_that_has_it_by_chance(value: str, message: str) -> None:
    with pytest.raises(Unavailable, match=message):
        Secrets(Failing(MemoryFault(Fault(Unavailable, message)))).store("shop").put("key", value)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("e", "the value 'e' is too short"),
        ("e", '{"SecretString": "e"}'),
        ("e", "ZQ is the base64 of 'ZQ'"),
        ("42", "no value `42`"),
        ("hunter", "bad password: hunter"),
        ("hunter", "password=hunter&user=app"),
        ("hunter2!", "xxhunter2!xx"),
    ],
)
def test_a_short_value_that_stands_alone_is_found(value: str, message: str) -> None:
    native = MemoryFault(Fault(Unavailable, message))
    with pytest.raises(Unavailable, match="withheld") as caught:
        Secrets(Failing(native)).store("shop").put("key", value)
    assert [caught.value] == list(chain(caught.value))


def test_a_code_that_is_the_value_is_withheld_however_short_it_is() -> None:
    native = MemoryFault(Fault(Unavailable, "no", code="e", request_id="e1"))
    with pytest.raises(Unavailable, match="withheld") as caught:
        Secrets(Failing(native)).store("shop").put("key", "e")
    assert ("", "e1") == (caught.value.code, caught.value.request_id)


def test_a_note_that_shows_the_value_is_found() -> None:
    native = MemoryFault(Fault(Unavailable, "no"))
    native.add_note(f"the body was {CANARY}")
    assert list(chain(error := failure(native))) == [error]


def test_an_error_of_ours_that_a_driver_raises_is_looked_at_too() -> None:
    error = failure(Unavailable(f"cannot store {CANARY}"))
    assert isinstance(error, Unavailable)
    assert CANARY not in told(error)
    assert failure(same := Unavailable("no")) is same


def test_a_code_that_shows_the_value_is_withheld() -> None:
    error = failure(MemoryFault(Fault(Unavailable, "no", code=f"Bad{CANARY}", request_id=CANARY)))
    assert isinstance(error, Unavailable)
    assert (error.code, error.request_id) == ("", None)
    assert CANARY not in told(error)


def test_a_value_deep_in_the_chain_is_found() -> None:
    error = failure(MemoryFault(Fault(Unavailable, "no")), ValueError("bad body", {"SecretString": CANARY}))
    assert isinstance(error, Unavailable)
    assert list(chain(error)) == [error]


def test_a_value_in_an_attribute_is_found() -> None:
    native = MemoryFault(Fault(Unavailable, "no"))
    native.request = {"body": CANARY}  # type: ignore[attr-defined]  # as SDKs do
    assert list(chain(error := failure(native))) == [error]


def test_a_value_in_a_group_is_found() -> None:
    group = ExceptionGroup("all regions failed", [OSError("timed out"), ValueError(CANARY)])
    assert list(chain(error := failure(MemoryFault(Fault(Unavailable, "no")), group))) == [error]


def test_binary_values_are_found() -> None:
    value = b"\xff\x00binary canary\xfe" * 4
    error = failure(MemoryFault(Fault(Unavailable, f"cannot store {value!r}")), value=value)
    assert list(chain(error)) == [error]


def test_an_error_that_no_table_knows_passes_with_its_frames() -> None:
    bug = ZeroDivisionError("division by zero")
    error = failure(bug)
    assert error is bug
    assert [frame.name for frame in traceback.extract_tb(error.__traceback__) if frame.filename == __file__][
        -1
    ] == "put"


def test_an_error_that_no_table_knows_and_that_shows_the_value_is_replaced() -> None:
    with pytest.raises(OperationError) as caught:
        Secrets(Failing(KeyError(CANARY))).store("shop").put("key", CANARY)
    assert type(caught.value) is OperationError
    assert "the message of KeyError is withheld" in str(caught.value)
    assert list(chain(caught.value)) == [caught.value]


@pytest.mark.parametrize("value", ["", b"", CANARY * 5000, CANARY + "\ud800"], ids=["", "b", "huge", "surrogate"])
def test_a_refused_value_shows_nowhere(store: SecretStore, value: str | bytes) -> None:
    with pytest.raises(InvalidArgument) as caught:
        store.put("key", value)
    assert "canary" not in told(caught.value, capture_locals=True)
    assert list(chain(caught.value)) == [caught.value]


def test_a_secret_is_not_pickled_and_shows_stars(store: SecretStore) -> None:
    store.put("key", CANARY)
    secret = store.get("key")
    assert "value=Masked(***)" in repr(secret)
    assert "canary" not in f"{secret} {secret!r} {attrs.asdict(secret)}"
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(secret)


def test_the_driver_is_within_reach(driver: Recorder, store: SecretStore) -> None:
    reached: SecretsDriver = store.unwrap(Recorder)
    assert reached is driver
    assert store.features is FEATURES


def test_a_listing_tells_everything_but_values(store: SecretStore) -> None:
    expires = datetime(2031, 1, 1, tzinfo=UTC)
    version = store.put("key", "value", labels={"team": "core"}, expires=expires).version
    (info,) = store.list()
    assert (info.version, dict(info.labels), info.expires) == (version, {"team": "core"}, expires)
    assert isinstance(info, SecretInfo)
    assert not hasattr(info, "value")

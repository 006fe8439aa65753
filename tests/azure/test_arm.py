"""The session of Resource Manager: who it talks to, what it repeats, how long it waits, what its errors mean."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from azure.core.credentials import AccessToken
from azure.core.exceptions import DecodeError, HttpResponseError

from shiftable.config import Credential
from shiftable.errors import (
    ConfigError,
    Conflict,
    InvalidArgument,
    OperationError,
    PermissionDenied,
    PreconditionFailed,
    QuotaExceeded,
    Throttled,
    Timeout,
    Unauthenticated,
    Unavailable,
)
from shiftable.testing.harness import Call
from shiftable_azure import AzureProvider, AzureSettings
from shiftable_azure._arm import ArmAnswer, ArmRefusal, ArmSession
from shiftable_azure._identity import Identity
from shiftable_azure._pace import Pace
from shiftable_azure.double import AzureDouble
from shiftable_azure.errors import ARM_CODES, ArmFailure, classify_arm

VERSION = "2018-05-01"
CANARY = "tok" + "en-of-a-canary"


def zones(session: ArmSession) -> str:
    return f"{session.group}/providers/Microsoft.Network/dnsZones"


def made(session: ArmSession, name: str = "shop.example", **headers: str) -> ArmAnswer:
    return session.call("PUT", f"{zones(session)}/{name}", VERSION, body={"location": "global"}, headers=headers)


def is_(operation: str) -> Callable[[Call], bool]:
    return lambda call: call.operation == operation


# where it goes


def test_a_stand_in_is_told_resource_managers_own_name(arm: ArmSession, azure_double: AzureDouble) -> None:
    made(arm)
    (call,) = azure_double.calls
    assert (call.host, call.service, call.operation) == ("management.azure.com", "arm", "Zones_CreateOrUpdate")
    assert call.query == f"api-version={VERSION}"


def test_another_cloud_has_its_own_host_and_its_own_tokens() -> None:
    asked = list[str]()

    class Known:
        def get_token(self, *scopes: str, **_: Any) -> AccessToken:
            asked.extend(scopes)
            raise RuntimeError("no further")

    settings = AzureSettings(subscription="s", resource_group="g", arm_endpoint="https://management.chinacloudapi.cn/")
    session = ArmSession(settings, Identity(settings, Known()))
    with pytest.raises(RuntimeError, match="no further"):
        session.call("GET", session.group, VERSION)
    assert asked == ["https://management.chinacloudapi.cn/.default"]
    assert session.url == "https://management.chinacloudapi.cn"


@pytest.mark.parametrize(
    "link",
    [
        "https://elsewhere.example/subscriptions/x?api-version=1",
        "http://management.azure.com/subscriptions/x?api-version=1",
        "https://management.azure.com.evil.example/subscriptions/x?api-version=1",
        "//elsewhere.example/x",
    ],
)
def test_a_link_to_another_host_is_not_followed(arm: ArmSession, azure_double: AzureDouble, link: str) -> None:
    with pytest.raises(ArmFailure, match="which is not asked"):
        arm.call("GET", link, VERSION)
    assert azure_double.calls == ()


@pytest.mark.parametrize("host", ["https://management.azure.com:443", "https://Management.Azure.com"])
def test_a_link_may_spell_the_host_otherwise(arm: ArmSession, azure_double: AzureDouble, host: str) -> None:
    made(arm)
    assert arm.call("GET", f"{host}{zones(arm)}?api-version={VERSION}", VERSION).body["value"]


@pytest.mark.parametrize("status", [301, 307])
def test_nobody_is_followed_elsewhere(arm: ArmSession, azure_double: AzureDouble, status: int) -> None:
    azure_double.inject("status", status=status, headers=[("Location", "https://elsewhere.example/")])
    with pytest.raises(ArmRefusal):
        made(arm)
    assert len(azure_double.calls) == 1


@pytest.mark.parametrize("missing", ["subscription", "resource_group"])
def test_what_is_not_named_is_asked_for(make_arm: Callable[..., ArmSession], missing: str) -> None:
    session = make_arm(**{missing: None})
    with pytest.raises(ConfigError, match=missing):
        made(session)


@pytest.mark.parametrize(
    "endpoint", ["management.azure.com", "http://management.azure.com", "https://x.example/path", "ftp://x.example"]
)
def test_an_endpoint_is_https_or_on_this_machine(endpoint: str) -> None:
    with pytest.raises(ValueError, match="arm_endpoint"):
        AzureSettings(arm_endpoint=endpoint)


def test_settings_need_no_sdk() -> None:
    loaded = "[name for name in sys.modules if name.split('.')[0] in ('azure', 'requests', 'dns')]"
    code = f"import sys, shiftable_azure; shiftable_azure.AzureProvider.features(); print({loaded})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_blobs_and_secrets_need_no_session_of_resource_manager(provider: AzureProvider) -> None:
    provider.blob()
    provider.secrets()
    assert provider._arm is None
    assert provider.arm is provider.arm


# what it repeats


@pytest.mark.parametrize("status", [408, 500, 502, 503, 504])
def test_a_failing_manager_is_asked_again(arm: ArmSession, azure_double: AzureDouble, status: int) -> None:
    failure = azure_double.inject("status", status=status, body=b"<html>oops</html>")
    answer = made(arm)
    assert (failure.hits, answer.status, answer.doubtful) == (1, 201, True)


@pytest.mark.parametrize("seconds", [7, 3600])
def test_throttling_is_waited_for_as_long_as_is_asked_and_within_reason(
    azure_double: AzureDouble, seconds: int
) -> None:
    waited = list[float]()
    settings = AzureSettings(**azure_double.config)
    session = ArmSession(settings, Identity(settings), pause=waited.append)
    azure_double.inject("status", status=429, headers=[("Retry-After", str(seconds))], times=2)
    answer = made(session)
    session.close()
    assert (answer.status, answer.doubtful) == (201, False)
    assert waited == [min(seconds, 60.0)] * 2


def test_throttling_that_does_not_end_is_told(make_arm: Callable[..., ArmSession], azure_double: AzureDouble) -> None:
    session = make_arm(max_attempts=3)
    azure_double.arm.throttled = 100
    with pytest.raises(ArmRefusal) as caught:
        made(session)
    fault = classify_arm(caught.value)
    assert fault is not None
    assert (fault.error, fault.code, fault.retry_after) == (Throttled, "SubscriptionRequestsThrottled", 5.0)
    assert len(azure_double.calls) == 3


@pytest.mark.parametrize("kind", ["drop_before", "drop_after", "truncate"])
def test_an_answer_that_does_not_arrive_is_asked_for_again_and_leaves_a_doubt(
    arm: ArmSession, azure_double: AzureDouble, kind: Any
) -> None:
    lost = azure_double.inject(kind)
    answer = made(arm)
    assert lost.hits == 1
    assert (answer.status, answer.doubtful) == (201 if kind == "drop_before" else 200, True)


def test_a_refusal_after_a_lost_answer_leaves_a_doubt(arm: ArmSession, azure_double: AzureDouble) -> None:
    azure_double.inject("drop_after")
    with pytest.raises(ArmRefusal) as caught:
        made(arm, **{"If-None-Match": "*"})
    assert caught.value.doubtful
    with pytest.raises(ArmRefusal) as caught:
        made(arm, **{"If-None-Match": "*"})
    assert not caught.value.doubtful


def test_a_refusal_is_not_asked_again_whatever_its_headers_say(arm: ArmSession, azure_double: AzureDouble) -> None:
    azure_double.inject("status", status=400, headers=[("Retry-After", "5")], body=b"{}", times=None)
    with pytest.raises(ArmRefusal):
        made(arm)
    assert len(azure_double.calls) == 1


@pytest.mark.parametrize("body", [b"<html>a portal</html>", b"[]", b'"text"'])
def test_an_answer_that_is_no_object_is_no_success(arm: ArmSession, azure_double: AzureDouble, body: bytes) -> None:
    azure_double.inject("status", status=200, body=body)
    with pytest.raises(DecodeError) as caught:
        made(arm)
    fault = classify_arm(caught.value)
    assert fault is not None
    assert fault.error is Unavailable


def test_a_closed_session_opens_again(arm: ArmSession) -> None:
    made(arm)
    arm.close()
    arm.close()
    assert made(arm).status == 200


# long operations


def deleted(session: ArmSession, timeout: float = 600) -> None:
    answer = session.call("DELETE", f"{zones(session)}/shop.example", VERSION)
    session.finish(answer, VERSION, what="the deletion", timeout=timeout)


def test_a_long_operation_is_looked_at_when_it_asks_to_be(arm: ArmSession, azure_double: AzureDouble) -> None:
    made(arm)
    azure_double.arm.operations.looks = 3
    before = azure_double.clock.now()
    deleted(arm)
    looks = [call for call in azure_double.calls if call.operation == "GetOperationStatus"]
    assert len(looks) == 4
    assert 11 <= (azure_double.clock.now() - before).total_seconds() < 15  # 2 s, then 3 s each


def test_what_a_long_operation_failed_with_is_told(arm: ArmSession, azure_double: AzureDouble) -> None:
    made(arm)
    azure_double.arm.operations.failure = ("ScopeLocked", "The scope is locked.")
    with pytest.raises(ArmFailure, match="the deletion: The scope is locked") as caught:
        deleted(arm)
    fault = classify_arm(caught.value)
    assert fault is not None
    assert (fault.error, fault.code) == (Conflict, "ScopeLocked")


def test_a_long_operation_has_a_deadline(arm: ArmSession, azure_double: AzureDouble) -> None:
    made(arm)
    azure_double.arm.operations.looks = 1_000
    with pytest.raises(ArmFailure, match="waited 60 s for the deletion") as caught:
        deleted(arm, timeout=60)
    fault = classify_arm(caught.value)
    assert fault is not None
    assert fault.error is Timeout


def test_a_look_that_is_lost_is_repeated(arm: ArmSession, azure_double: AzureDouble) -> None:
    made(arm)
    azure_double.arm.operations.looks = 1
    lost = azure_double.inject("drop_after", match=is_("GetOperationStatus"))
    deleted(arm)
    assert lost.hits == 1


def test_an_operation_that_has_only_a_location_is_done_when_that_answers(
    arm: ArmSession, azure_double: AzureDouble
) -> None:
    made(arm)
    place = f"https://management.azure.com{zones(arm)}/shop.example?api-version={VERSION}"
    azure_double.inject("status", status=202, headers=[("Location", place)], times=2, match=lambda c: c.method == "GET")
    answer = ArmAnswer(202, {}, {"Location": place})
    arm.finish(answer, VERSION, what="it", timeout=60)
    assert [call.status for call in azure_double.calls] == [201, 202, 202, 200]


def test_what_is_done_at_once_is_not_looked_at(arm: ArmSession, azure_double: AzureDouble) -> None:
    for status in (200, 201, 204):
        arm.finish(ArmAnswer(status, {}, {}), VERSION, what="it", timeout=0)
    assert azure_double.calls == ()


# what errors mean, and what they do not say


@pytest.mark.parametrize(
    ("status", "code", "expected", "told"),
    [
        (400, "BadRequest", InvalidArgument, "as it is"),
        (401, "ExpiredAuthenticationToken", Unauthenticated, "as it is"),
        (403, "AuthorizationFailed", PermissionDenied, "has no role that allows x/read"),
        (403, "ResourceNotFound", None, ""),
        (404, "ResourceGroupNotFound", InvalidArgument, "no such resource_group"),
        (404, "SubscriptionNotFound", InvalidArgument, "no such subscription"),
        (409, "ScopeLocked", Conflict, "remove the lock"),
        (409, "QuotaExceeded", QuotaExceeded, "as it is"),
        (412, "PreconditionFailed", PreconditionFailed, "as it is"),
        (403, "of-nobody", PermissionDenied, "as it is"),
        (418, "of-nobody", OperationError, "as it is"),
    ],
)
@pytest.mark.parametrize("flat", [False, True])
def test_the_code_decides_and_not_the_status(
    arm: ArmSession, azure_double: AzureDouble, status: int, code: str, expected: Any, told: str, *, flat: bool
) -> None:
    import json

    error = {"code": code, "message": "as it is, perform action 'x/read'\nmore"}
    body = json.dumps(error if flat else {"error": error}).encode()
    azure_double.inject("status", status=status, body=body, headers=[("x-ms-request-id", "r-1")])
    with pytest.raises(HttpResponseError) as caught:
        made(arm)
    fault = classify_arm(caught.value)
    assert fault is not None
    assert (fault.error, fault.code, fault.request_id) == (expected or ARM_CODES[code], code, "r-1")
    assert told in fault.message
    assert "\n" not in fault.message


def test_every_code_has_a_row_and_every_row_an_error() -> None:
    assert len(ARM_CODES) >= 40
    for code, error in ARM_CODES.items():
        fault = classify_arm(ArmFailure(code, "text"))
        assert fault is not None
        assert (fault.error, fault.message, fault.code) == (error, "text", code)
    assert classify_arm(ValueError("not ours")) is None


def test_a_wrong_token_is_told_and_never_shown(
    make_arm: Callable[..., ArmSession], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    session = make_arm(arm_token=Credential.literal(CANARY))
    with pytest.raises(HttpResponseError) as caught:
        made(session)
    fault = classify_arm(caught.value)
    assert fault is not None
    assert (fault.error, fault.code) == (Unauthenticated, "InvalidAuthenticationToken")
    shown = f"{caught.value!s} {caught.value!r} {fault} {session!r} {session._settings!r} {caplog.text}"
    assert CANARY not in shown


# the pace


class Time:
    """A clock that moves when somebody waits."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self._lock = threading.Lock()

    def pause(self, seconds: float) -> None:
        with self._lock:
            self.now += seconds


@pytest.fixture
def time() -> Iterator[Time]:
    return Time()


def test_no_window_has_more_than_the_limit(time: Time) -> None:
    pace = Pace(20, 60.0, clock=lambda: time.now, pause=time.pause)
    seen = list[float]()
    for number in range(200):
        pace.take()
        seen.append(time.now)
        time.pause(0.1 if number % 7 else 9.0)
    assert max(sum(1 for each in seen if start <= each < start + 60) for start in seen) == 20


def test_the_first_of_a_window_do_not_wait_and_the_next_waits_for_the_oldest(time: Time) -> None:
    pace = Pace(3, 60.0, clock=lambda: time.now, pause=time.pause)
    for _ in range(3):
        pace.take()
    assert time.now == 1_000.0
    assert not pace.try_take()
    pace.take()
    assert time.now == 1_060.0
    assert pace.try_take()


def test_threads_share_a_pace(time: Time) -> None:
    turns = list[float]()
    pace = Pace(10, 60.0, clock=lambda: 0.0, pause=turns.append)
    threads = [threading.Thread(target=lambda: [pace.take() for _ in range(10)]) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Counter(turns) == {60.0: 10, 120.0: 10, 180.0: 10, 240.0: 10}


def test_a_session_has_one_pace_for_each_name(arm: ArmSession) -> None:
    assert arm.pace("a", 5) is arm.pace("a", 5)
    assert arm.pace("a", 5) is not arm.pace("b", 5)


def test_a_turn_is_free_while_the_clock_runs() -> None:
    ticks = iter(range(1_000))
    pace = Pace(2, 60.0, clock=lambda: float(next(ticks)), pause=lambda _: None)
    assert [pace.try_take() for _ in range(3)] == [True, True, False]

"""Every code of a hoster's becomes one of our errors, and keeps what support asks for."""

from __future__ import annotations

import json
import pickle
from typing import Any

import pytest
import requests
from libcloud.common.types import InvalidCredsError, LibcloudError, MalformedResponseError

from shiftable.errors import (
    AlreadyExists,
    Conflict,
    InvalidArgument,
    NotFound,
    OperationError,
    PermissionDenied,
    QuotaExceeded,
    Resource,
    Throttled,
    Timeout,
    Unauthenticated,
    Unavailable,
    Unsupported,
    translated,
)
from shiftable_libcloud._connection import Broken, Refusal, SafeResponse
from shiftable_libcloud._linode import LinodeResponse
from shiftable_libcloud._vultr import VultrResponse
from shiftable_libcloud.errors import IDS, STATUSES, classify


class _Answer(SafeResponse):
    def __init__(self, status: int, body: str, **headers: str) -> None:
        self.status, self.body, self.headers = status, body, headers


def refused(status: int, body: str, **headers: str) -> Refusal:
    with pytest.raises(Refusal) as caught:
        _Answer(status, body, **headers).parse_error()
    return caught.value


@pytest.mark.parametrize(
    ("status", "id", "message", "error"),
    [
        (400, "bad_request", "invalid json body", InvalidArgument),
        (401, "Unauthorized", "Unable to authenticate you", Unauthenticated),
        (403, "Forbidden", "You are not authorized to perform this operation", PermissionDenied),
        (404, "not_found", "The resource you were accessing could not be found.", NotFound),
        (409, "conflict", "The request could not be completed due to a conflict.", Conflict),
        (412, "precondition_failed", "The resource has changed", Conflict),
        (422, "unprocessable_entity", "domain 'a.example': name already exists", AlreadyExists),
        (422, "unprocessable_entity", "CNAME records cannot share a name with other records", Conflict),
        (422, "unprocessable_entity", "Droplet already has a pending event.", Conflict),
        (422, "unprocessable_entity", "creating this/these droplet(s) will exceed your droplet limit", QuotaExceeded),
        (422, "unprocessable_entity", "Data needs to end with a dot (.)", InvalidArgument),
        (429, "too_many_requests", "API Rate limit exceeded.", Throttled),
        (500, "server_error", "Unexpected server-side error", Unavailable),
        (500, "internal_server_error", "Server was unable to give you a response.", Unavailable),
        (503, "service_unavailable", "Server is down", Unavailable),
        (504, "gateway_timeout", "", Unavailable),
        # the status has the last word where the two are of different kinds
        (404, "forbidden", "", NotFound),
        (403, "not_found", "", PermissionDenied),
        (403, "forbidden", "name already exists", PermissionDenied),
        # no word at all, or one that nobody knows
        (422, "", "", InvalidArgument),
        (418, "teapot", "short and stout", OperationError),
        (599, "", "", Unavailable),
        (302, "", "", OperationError),
    ],
)
def test_a_refusal_is_told_as_what_it_is(status: int, id: str, message: str, error: type[OperationError]) -> None:
    fault = classify(refused(status, json.dumps({"id": id, "message": message}), **{"x-request-id": "r-1"}))
    assert fault is not None
    assert (error, id or str(status), "r-1") == (fault.error, fault.code, fault.request_id)


class _VultrAnswer(VultrResponse):
    def __init__(self, status: int, body: str) -> None:
        self.status, self.body, self.headers = status, body, {}


@pytest.mark.parametrize(
    ("status", "body", "error", "message"),
    [
        (400, {"error": "Domain already exists", "status": 400}, AlreadyExists, "Domain already exists"),
        (400, {"error": "Unable to add record: Invalid TTL"}, InvalidArgument, "Unable to add record: Invalid TTL"),
        (401, {"error": "Invalid API token.", "status": 401}, Unauthenticated, "Invalid API token."),
        (403, {"error": "Forbidden"}, PermissionDenied, "Forbidden"),
        (404, {"error": "Invalid domain", "status": 404}, NotFound, "Invalid domain"),
        (429, {"error": "Rate limit reached"}, Throttled, "Rate limit reached"),
        (503, {"errors": "x"}, Unavailable, "the answer was 503"),
        (503, ["x"], Unavailable, "the answer was 503"),
        (503, None, Unavailable, "the answer was 503"),
    ],
)
def test_a_refusal_of_vultrs_is_told_by_its_status_and_its_reason(
    status: int, body: Any, error: type[OperationError], message: str
) -> None:
    with pytest.raises(Refusal) as caught:
        _VultrAnswer(status, json.dumps(body)).parse_error()
    fault = classify(caught.value)
    assert fault is not None
    assert (error, str(status), message) == (fault.error, fault.code, fault.message)


class _LinodeAnswer(LinodeResponse):
    def __init__(self, status: int, body: str) -> None:
        self.status, self.body, self.headers = status, body, {}


@pytest.mark.parametrize(
    ("status", "errors", "error", "message"),
    [
        (
            400,
            [{"reason": "DNS zone already exists.", "field": "domain"}],
            AlreadyExists,
            "domain: DNS zone already exists.",
        ),
        (400, [{"reason": "Must be 25-500", "field": "page_size"}], InvalidArgument, "page_size: Must be 25-500"),
        (400, [{"reason": "one"}, {"reason": "two", "field": None}], InvalidArgument, "one; two"),
        (401, [{"reason": "Invalid Token"}], Unauthenticated, "Invalid Token"),
        (403, [{"reason": "Unauthorized"}], PermissionDenied, "Unauthorized"),
        (404, [{"reason": "Not found"}], NotFound, "Not found"),
        (429, [{"reason": "Too many requests"}], Throttled, "Too many requests"),
        (500, [{"reason": "Internal Server Error"}], Unavailable, "Internal Server Error"),
        (503, None, Unavailable, "the answer was 503"),
        (503, [None], Unavailable, "the answer was 503"),
        (503, ["x"], Unavailable, "the answer was 503"),
        (503, [], Unavailable, "the answer was 503"),
    ],
)
def test_a_refusal_of_linodes_is_told_by_its_status_and_its_reasons(
    status: int, errors: list[Any] | None, error: type[OperationError], message: str
) -> None:
    with pytest.raises(Refusal) as caught:
        _LinodeAnswer(status, json.dumps({"errors": errors})).parse_error()
    fault = classify(caught.value)
    assert fault is not None
    assert (error, str(status), message) == (fault.error, fault.code, fault.message)


@pytest.mark.parametrize("status", sorted(STATUSES))
def test_a_page_of_a_proxy_is_told_by_its_status(status: int) -> None:
    fault = classify(refused(status, "<html>no JSON</html>"))
    assert fault is not None
    assert (STATUSES[status], f"the answer was {status}") == (fault.error, fault.message)


@pytest.mark.parametrize("id", sorted(IDS))
def test_every_word_is_known_whatever_its_case(id: str) -> None:
    fault = classify(refused(418, json.dumps({"id": id.upper(), "message": "said"})))
    assert fault is not None
    assert IDS[id] is fault.error


@pytest.mark.parametrize("body", ["[]", "null", '"text"', "{", "", '{"id": null, "message": 7}'])
def test_an_odd_body_is_no_other_error(body: str) -> None:
    fault = classify(refused(503, body))
    assert fault is not None
    assert Unavailable is fault.error


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("17", 17.0), ("soon", None), ("-1", None), ("", None), ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0)],
)
def test_a_retry_after_is_read_or_ignored(value: str, seconds: float | None) -> None:
    assert seconds == refused(429, "{}", **{"retry-after": value}).retry_after


@pytest.mark.parametrize(
    ("exc", "error"),
    [
        (Broken("the connection broke"), Unavailable),
        (Broken("the hoster did not answer in time", late=True), Timeout),
        (InvalidCredsError(), Unauthenticated),
        (LibcloudError("x", driver=None), OperationError),
        (MalformedResponseError("Failed to parse JSON", body="a canary", driver=None), OperationError),
    ],
    ids=["broken", "late", "credentials", "libcloud", "malformed"],
)
def test_what_is_no_answer_has_its_error_too(exc: Exception, error: type[OperationError]) -> None:
    fault = classify(exc)
    assert fault is not None
    assert error is fault.error
    assert "canary" not in fault.message


@pytest.mark.parametrize("exc", [ValueError("x"), KeyError("x"), requests.exceptions.InvalidURL("x"), OSError("x")])
def test_what_is_no_hosters_is_not_claimed(exc: Exception) -> None:
    assert classify(exc) is None


def test_our_error_says_where_what_and_which_request_and_pickles() -> None:
    native = refused(405, json.dumps({"id": "method_not_allowed", "message": "no"}), **{"x-request-id": "r-1"})
    resource = Resource("zone", "shop.example")
    with (
        pytest.raises(Unsupported) as caught,
        translated(classify, provider="libcloud", operation="dns.create", resource=resource),
    ):
        raise native
    expected = "dns.create on zone 'shop.example' (libcloud): no [method_not_allowed, request r-1]"
    assert expected == str(caught.value)
    again: Any = pickle.loads(pickle.dumps(caught.value))  # noqa: S301  our own
    assert expected == str(again)

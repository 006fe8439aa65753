"""The table of native errors: documented reasons and codes, Google's own exceptions, and what no row knows."""

from __future__ import annotations

import http.client
import json
import pickle
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import google.api_core.exceptions as api
import google.auth.exceptions as auth
import pytest
import requests
import urllib3.exceptions
from google.cloud.storage.exceptions import DataCorruption, InvalidResponse

from shiftable.errors import (
    AlreadyExists,
    Conflict,
    IntegrityError,
    InvalidArgument,
    NotFound,
    NotModified,
    OperationError,
    ParentNotFound,
    PermissionDenied,
    PreconditionFailed,
    QuotaExceeded,
    Resource,
    Throttled,
    Timeout,
    Unauthenticated,
    Unavailable,
    Unsupported,
    translated,
)
from shiftable_gcp.errors import REASONS, classify, is_retryable, status_of

OBJECT = Resource("object", "a.txt", Resource("bucket", "shop"))
HOST = "https://storage.googleapis.com"


def answer(status: int, body: bytes, *, url: str = f"{HOST}/storage/v1/b/shop/o/a", method: str = "GET") -> Any:
    response = requests.Response()
    response.status_code = status
    response._content = body
    response.headers["x-guploader-uploadid"] = "R1"
    response.request = requests.Request(method, url).prepare()
    return response


def in_json(status: int, reason: str, message: str = "said", **more: Any) -> Exception:
    error = {"code": status, "message": message, "errors": [{"domain": "global", "reason": reason, "message": message}]}
    found: Exception = api.from_http_response(answer(status, json.dumps({"error": error}).encode(), **more))
    return found


def in_xml(status: int, code: str, message: str = "said") -> Exception:
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()
    found: Exception = api.from_http_response(answer(status, body))
    return found


def in_status(status: int, name: str, *reasons: str) -> Exception:
    details = [{"@type": "type.googleapis.com/google.rpc.Help"}, *({"reason": reason} for reason in reasons)]
    error = {"code": status, "message": "said", "status": name, "details": details}
    found: Exception = api.from_http_response(answer(status, json.dumps({"error": error}).encode()))
    return found


# Status and reason as in the documentation of the JSON API's status and error codes.
JSON = [
    (400, "badRequest", InvalidArgument),
    (400, "customerEncryptionKeyIsIncorrect", InvalidArgument),
    (400, "invalid", InvalidArgument),
    (400, "invalidArgument", InvalidArgument),
    (400, "invalidParameter", InvalidArgument),
    (400, "parseError", InvalidArgument),
    (400, "required", InvalidArgument),
    (400, "resourceIsEncryptedWithCustomerEncryptionKey", InvalidArgument),
    (400, "userProjectMissing", PermissionDenied),
    (400, "wrongUrlForUpload", InvalidArgument),
    (401, "authError", Unauthenticated),
    (401, "lockedDomainExpired", Unauthenticated),
    (401, "required", Unauthenticated),
    (403, "accountDisabled", PermissionDenied),
    (403, "accessNotConfigured", PermissionDenied),
    (403, "countryBlocked", PermissionDenied),
    (403, "dailyLimitExceeded", QuotaExceeded),
    (403, "forbidden", PermissionDenied),
    (403, "insufficientPermissions", PermissionDenied),
    (403, "objectUnderActiveHold", Conflict),
    (403, "quotaExceeded", QuotaExceeded),
    (403, "rateLimitExceeded", Throttled),
    (403, "retentionPolicyNotMet", Conflict),
    (403, "userProjectAccessDenied", PermissionDenied),
    (403, "userRateLimitExceeded", Throttled),
    (404, "notFound", NotFound),
    (405, "methodNotAllowed", InvalidArgument),
    (408, "uploadBrokenConnection", Unavailable),
    (409, "conflict", Conflict),
    (410, "gone", Conflict),
    (400, "cnameResourceRecordSetConflict", Conflict),
    (400, "containerNotEmpty", Conflict),
    (400, "invalidFieldValue", InvalidArgument),
    (400, "invalidRecordCount", InvalidArgument),
    (400, "invalidValue", InvalidArgument),
    (400, "invalidZoneApex", InvalidArgument),
    (400, "managedZoneDnsNameNotAvailable", Conflict),
    (400, "recordTypeDisallowedAtZoneApex", InvalidArgument),
    (400, "verifyManagedZoneDnsNameOwnership", PermissionDenied),
    (400, "wildcardNotAllowed", InvalidArgument),
    (403, "inactiveBillingState", PermissionDenied),
    (409, "alreadyExists", AlreadyExists),
    (412, "preconditionFailed", PreconditionFailed),
    (412, "conditionNotMet", PreconditionFailed),
    (412, "orgPolicyConstraintFailed", PermissionDenied),
    (413, "uploadTooLarge", InvalidArgument),
    (416, "requestedRangeNotSatisfiable", InvalidArgument),
    (429, "rateLimitExceeded", Throttled),
    (429, "usageLimits.rateLimitExceeded", Throttled),
    (500, "backendError", Unavailable),
    (500, "internalError", Unavailable),
    (501, "notImplemented", Unsupported),
    (503, "backendError", Unavailable),
    (504, "gatewayTimeout", Timeout),
    # Cloud SQL
    (400, "invalidOperation", Conflict),
    (403, "errorMaxInstancePerLabel", QuotaExceeded),
    (403, "notAuthorized", PermissionDenied),
    (404, "databaseDoesNotExist", NotFound),
    (404, "instanceDoesNotExist", NotFound),
    (404, "operationDoesNotExist", NotFound),
    (404, "userDoesNotExist", NotFound),
    (409, "databaseAlreadyExists", AlreadyExists),
    (409, "instanceAlreadyExists", AlreadyExists),
    (409, "invalidState", Conflict),
    (409, "operationInProgress", Conflict),
    (412, "staleData", Conflict),
    # Compute Engine
    (400, "fieldSizeTooLarge", InvalidArgument),
    (400, "invalidUsage", InvalidArgument),
    (400, "resourceInUseByAnotherResource", Conflict),
    (400, "resourceNotReady", Conflict),
    (403, "limitExceeded", QuotaExceeded),
]
# The documentation of the XML API's status and error codes.
XML = [
    (400, "BadDigest", IntegrityError),
    (400, "EntityTooLarge", InvalidArgument),
    (400, "EntityTooSmall", InvalidArgument),
    (400, "ExpiredToken", Unauthenticated),
    (400, "IncompleteBody", IntegrityError),
    (400, "InvalidArgument", InvalidArgument),
    (400, "InvalidBucketName", InvalidArgument),
    (400, "InvalidDigest", InvalidArgument),
    (400, "InvalidPart", InvalidArgument),
    (400, "InvalidPartOrder", InvalidArgument),
    (400, "KeyTooLong", InvalidArgument),
    (400, "MalformedXML", InvalidArgument),
    (400, "MetadataTooLarge", InvalidArgument),
    (400, "NotImplemented", Unsupported),
    (400, "RequestTimeout", Timeout),
    (400, "TooManyBuckets", QuotaExceeded),
    (401, "AuthenticationRequired", Unauthenticated),
    (403, "AccessDenied", PermissionDenied),
    (403, "AccountProblem", PermissionDenied),
    (403, "InvalidSecurity", Unauthenticated),
    (403, "RequestTimeTooSkewed", Unauthenticated),
    (403, "SignatureDoesNotMatch", Unauthenticated),
    (404, "NoSuchBucket", NotFound),
    (404, "NoSuchKey", NotFound),
    (404, "NoSuchUpload", NotFound),
    (404, "NoSuchVersion", NotFound),
    (405, "MethodNotAllowed", InvalidArgument),
    (409, "BucketAlreadyExists", AlreadyExists),
    (409, "BucketAlreadyOwnedByYou", AlreadyExists),
    (409, "BucketNotEmpty", Conflict),
    (409, "OperationAborted", Conflict),
    (412, "PreconditionFailed", PreconditionFailed),
    (416, "InvalidRange", InvalidArgument),
    (429, "SlowDown", Throttled),
    (500, "InternalError", Unavailable),
    (503, "ServiceUnavailable", Unavailable),
    (503, "SlowDown", Throttled),
]
# google.rpc.Code, as the newer APIs answer it, and google.api.ErrorReason in its details.
STATUSES = [
    (400, "FAILED_PRECONDITION", Conflict),
    (400, "INVALID_ARGUMENT", InvalidArgument),
    (400, "OUT_OF_RANGE", InvalidArgument),
    (401, "UNAUTHENTICATED", Unauthenticated),
    (403, "PERMISSION_DENIED", PermissionDenied),
    (404, "NOT_FOUND", NotFound),
    (409, "ABORTED", Conflict),
    (409, "ALREADY_EXISTS", AlreadyExists),
    (429, "RESOURCE_EXHAUSTED", Throttled),
    (499, "CANCELLED", Unavailable),
    (500, "DATA_LOSS", IntegrityError),
    (500, "INTERNAL", Unavailable),
    (500, "UNKNOWN", Unavailable),
    (501, "UNIMPLEMENTED", Unsupported),
    (503, "UNAVAILABLE", Unavailable),
    (504, "DEADLINE_EXCEEDED", Timeout),
]
DETAILS = [
    (400, "INVALID_ARGUMENT", "API_KEY_EXPIRED", Unauthenticated),
    (400, "INVALID_ARGUMENT", "API_KEY_INVALID", Unauthenticated),
    (401, "UNAUTHENTICATED", "ACCESS_TOKEN_EXPIRED", Unauthenticated),
    (401, "UNAUTHENTICATED", "ACCESS_TOKEN_TYPE_UNSUPPORTED", Unauthenticated),
    (401, "UNAUTHENTICATED", "ACCOUNT_STATE_INVALID", Unauthenticated),
    (401, "UNAUTHENTICATED", "CREDENTIALS_MISSING", Unauthenticated),
    (401, "UNAUTHENTICATED", "SESSION_COOKIE_INVALID", Unauthenticated),
    (403, "PERMISSION_DENIED", "ACCESS_TOKEN_SCOPE_INSUFFICIENT", PermissionDenied),
    (403, "PERMISSION_DENIED", "API_KEY_SERVICE_BLOCKED", PermissionDenied),
    (403, "PERMISSION_DENIED", "BILLING_DISABLED", PermissionDenied),
    (403, "PERMISSION_DENIED", "CONSUMER_INVALID", PermissionDenied),
    (403, "PERMISSION_DENIED", "CONSUMER_SUSPENDED", PermissionDenied),
    (403, "PERMISSION_DENIED", "IAM_PERMISSION_DENIED", PermissionDenied),
    (403, "PERMISSION_DENIED", "LOCATION_POLICY_VIOLATED", PermissionDenied),
    (400, "FAILED_PRECONDITION", "LOCATION_ORG_POLICY_VIOLATED", PermissionDenied),
    (403, "PERMISSION_DENIED", "ORG_RESTRICTION_VIOLATION", PermissionDenied),
    (400, "INVALID_ARGUMENT", "RESOURCE_PROJECT_INVALID", PermissionDenied),
    (403, "PERMISSION_DENIED", "SECURITY_POLICY_VIOLATED", PermissionDenied),
    (403, "PERMISSION_DENIED", "SERVICE_DISABLED", PermissionDenied),
    (403, "PERMISSION_DENIED", "SERVICE_NOT_VISIBLE", PermissionDenied),
    (403, "PERMISSION_DENIED", "USER_PROJECT_DENIED", PermissionDenied),
    (429, "RESOURCE_EXHAUSTED", "RATE_LIMIT_EXCEEDED", Throttled),
    (429, "RESOURCE_EXHAUSTED", "RESOURCE_QUOTA_EXCEEDED", QuotaExceeded),
]
EXCEPTIONS: list[tuple[Exception, type[OperationError]]] = [
    (requests.ConnectionError("reset"), Unavailable),
    (requests.exceptions.ConnectTimeout("slow"), Timeout),
    (requests.exceptions.ReadTimeout("slow"), Timeout),
    (requests.exceptions.SSLError("certificate"), Unavailable),
    (requests.exceptions.ProxyError("proxy"), Unavailable),
    (requests.exceptions.ChunkedEncodingError("half"), Unavailable),
    (requests.exceptions.ContentDecodingError("half"), Unavailable),
    (requests.exceptions.JSONDecodeError("half", "{", 1), Unavailable),
    (requests.exceptions.InvalidURL("no"), InvalidArgument),
    (requests.exceptions.MissingSchema("no"), InvalidArgument),
    (requests.exceptions.TooManyRedirects("round"), Unavailable),
    (requests.exceptions.UnrewindableBodyError("no"), OperationError),
    (urllib3.exceptions.ProtocolError("reset"), Unavailable),
    (urllib3.exceptions.IncompleteRead(1, 2), Unavailable),
    (urllib3.exceptions.SSLError("certificate"), Unavailable),
    (urllib3.exceptions.ReadTimeoutError(None, "", "slow"), Timeout),  # type: ignore[arg-type]  # no pool at hand
    (http.client.IncompleteRead(b"x"), Unavailable),
    (http.client.BadStatusLine("x"), Unavailable),
    (ConnectionResetError(104, "reset"), Unavailable),
    (TimeoutError("slow"), Timeout),
    (auth.DefaultCredentialsError("none"), Unauthenticated),
    (auth.RefreshError("invalid_grant"), Unauthenticated),
    (auth.RefreshError("busy", retryable=True), Unavailable),
    (auth.TransportError("no route"), Unavailable),
    (auth.TransportError(requests.exceptions.ReadTimeout("slow")), Timeout),
    (auth.MalformedError("no key"), Unauthenticated),
    (auth.ReauthFailError("password"), Unauthenticated),
    (auth.MutualTLSChannelError("certificate"), Unauthenticated),
    (api.RetryError("gave up", requests.ConnectionError("reset")), Unavailable),
    (api.RetryError("gave up", in_json(429, "rateLimitExceeded")), Throttled),
    (api.Forbidden("no"), PermissionDenied),
    (api.NotFound("no"), NotFound),
    (api.TooManyRequests("no"), Throttled),
    (api.ServiceUnavailable("no"), Unavailable),
    (api.PreconditionFailed("no"), PreconditionFailed),
    (api.from_http_status(304, "same"), NotModified),
    (api.GoogleAPIError("odd"), OperationError),
    (InvalidResponse(answer(503, b""), "status"), Unavailable),
    (DataCorruption(answer(200, b""), "checksum"), IntegrityError),
]


@pytest.mark.parametrize(("status", "reason", "error"), JSON)
def test_a_reason_of_the_json_api_has_its_class(status: int, reason: str, error: type[OperationError]) -> None:
    fault = classify(in_json(status, reason))
    assert fault is not None
    assert (fault.error, fault.code, fault.message, fault.request_id) == (error, reason, "said", "R1")


@pytest.mark.parametrize(("status", "code", "error"), XML)
def test_a_code_of_the_xml_api_has_its_class(status: int, code: str, error: type[OperationError]) -> None:
    fault = classify(in_xml(status, code))
    assert fault is not None
    assert (fault.error, fault.code, fault.message, fault.request_id) == (error, code, "said", "R1")


@pytest.mark.parametrize(("status", "name", "error"), STATUSES)
def test_a_status_of_the_newer_apis_has_its_class(status: int, name: str, error: type[OperationError]) -> None:
    for exc in (in_status(status, name), in_status(status, name, "BRAND_NEW")):
        fault = classify(exc)
        assert fault is not None
        assert (fault.error, fault.code, fault.message) == (error, name, "said")


@pytest.mark.parametrize(("status", "name", "reason", "error"), DETAILS)
def test_a_reason_of_the_newer_apis_tells_more_than_their_status(
    status: int, name: str, reason: str, error: type[OperationError]
) -> None:
    fault = classify(in_status(status, name, "BRAND_NEW", reason))
    assert fault is not None
    assert (fault.error, fault.code, fault.message) == (error, reason, "said")


@pytest.mark.parametrize(("exc", "error"), EXCEPTIONS, ids=lambda value: type(value).__name__)
def test_an_exception_of_the_libraries_has_its_class(exc: Exception, error: type[OperationError]) -> None:
    fault = classify(exc)
    assert fault is not None
    assert fault.error is error
    assert is_retryable(exc) == error.retryable


def test_every_exception_of_googles_libraries_is_claimed() -> None:
    kinds = [
        kind
        for module, base in ((api, api.GoogleAPIError), (auth, auth.GoogleAuthError))
        for kind in vars(module).values()
        if isinstance(kind, type) and issubclass(kind, base) and kind is not api.RetryError  # above, with its cause
    ]
    assert len(kinds) > 40
    assert [kind for kind in kinds if classify(kind("x")) is None] == []


@pytest.mark.parametrize(
    "exc", [ValueError("x"), KeyError("x"), RuntimeError("x"), AssertionError("x"), OSError(2, "x")]
)
def test_what_is_not_theirs_passes_through(exc: Exception) -> None:
    assert classify(exc) is None
    assert not is_retryable(exc)
    assert status_of(exc) == 0


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (401, Unauthenticated),
        (403, PermissionDenied),
        (404, NotFound),
        (408, Timeout),
        (409, Conflict),
        (412, PreconditionFailed),
        (429, Throttled),
        (500, Unavailable),
        (502, Unavailable),
        (503, Unavailable),
        (504, Timeout),
        (418, OperationError),
    ],
)
@pytest.mark.parametrize("body", [b"", b"<html>a proxy's page</html>", b"{", b"[]", b'{"error": "invalid_grant"}'])
def test_an_unknown_answer_goes_by_its_status(status: int, error: type[OperationError], body: bytes) -> None:
    fault = classify(api.from_http_status(status, "said", response=answer(status, body)))
    assert fault is not None
    assert (fault.error, fault.code) == (error, str(status))


def test_a_reason_that_nobody_knows_keeps_its_name() -> None:
    fault = classify(in_json(400, "brandNewThing"))
    assert fault is not None
    assert (fault.error, fault.code) == (InvalidArgument, "brandNewThing")


def test_a_403_is_never_a_404() -> None:
    for exc in (
        in_json(403, "brandNewThing"),
        api.Forbidden("no"),
        *(in_json(status, reason) for status, reason, _ in JSON if status == 403),
        *(in_xml(status, code) for status, code, _ in XML if status == 403),
    ):
        fault = classify(exc)
        assert fault is not None
        assert not issubclass(fault.error, NotFound)


@pytest.mark.parametrize(
    ("exc", "expected"),
    [
        (in_json(404, "notFound", "The specified bucket does not exist."), ParentNotFound),
        (in_json(404, "notFound", "No such object: shop/a.txt"), NotFound),
        (in_json(404, "notFound", "Not Found"), NotFound),
        (in_xml(404, "NoSuchBucket"), ParentNotFound),
        (in_xml(404, "NoSuchKey"), NotFound),
    ],
)
def test_a_missing_bucket_is_not_a_missing_key(exc: Exception, expected: type[OperationError]) -> None:
    with (
        pytest.raises(NotFound) as caught,
        translated(classify, provider="gcp", operation="blob.get", resource=OBJECT),
    ):
        raise exc
    assert type(caught.value) is expected
    assert type(pickle.loads(pickle.dumps(caught.value))) is expected  # noqa: S301  our own


def test_the_one_reason_conflict_is_told_apart_by_what_was_asked() -> None:
    made = in_json(409, "conflict", url=f"{HOST}/storage/v1/b?project=p", method="POST")
    emptied = in_json(409, "conflict", url=f"{HOST}/storage/v1/b/shop", method="DELETE")
    assert [getattr(classify(exc), "error", None) for exc in (made, emptied)] == [AlreadyExists, Conflict]


@pytest.mark.parametrize("name", ["MD5 hash", "CRC32C"])
def test_a_hash_that_does_not_match_is_an_integrity_error(name: str) -> None:
    fault = classify(in_json(400, "invalid", f'Provided {name} "a" doesn\'t match calculated {name} "b".'))
    assert fault is not None
    assert fault.error is IntegrityError


def test_retry_after_is_read_as_seconds_and_as_a_date() -> None:
    found = []
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True)
    for value in ("7", "0", later, "soon"):
        response = answer(429, b"")
        response.headers["Retry-After"] = value
        found.append(getattr(classify(api.from_http_response(response)), "retry_after", "no fault"))
    assert found[:2] == [7.0, 0.0]
    assert isinstance(found[2], float)
    assert 60 < found[2] <= 90
    assert found[3] is None


def test_no_query_and_no_answer_of_the_issuer_is_in_a_message() -> None:
    url = f"{HOST}/upload/storage/v1/b/shop/o?uploadType=resumable&upload_id=CANARY"
    for exc in (
        requests.ConnectionError(f"HTTPSConnectionPool(host='x', port=443): Max retries exceeded with url: {url}"),
        api.from_http_response(answer(502, b"<html/>", url=url)),
        auth.RefreshError("invalid_grant: no", {"error": "invalid_grant", "assertion": "CANARY"}),
    ):
        fault = classify(exc)
        assert fault is not None
        assert "CANARY" not in fault.message
        assert fault.message


def test_the_table_is_as_wide_as_promised() -> None:
    assert len(JSON) >= 40
    assert len(XML) >= 35
    assert len(STATUSES) + len(DETAILS) >= 39
    assert len(REASONS) >= 120
    stated = {reason for _, reason, _ in JSON} | {code for _, code, _ in XML}
    assert stated | {name for _, name, _ in STATUSES} | {reason for _, _, reason, _ in DETAILS} <= set(REASONS)

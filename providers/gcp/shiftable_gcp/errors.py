"""What the exceptions of Google's libraries mean: one table for JSON's reasons and statuses and for XML's codes."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from html import unescape
from http.client import HTTPException
from typing import Any

import attrs
import requests.exceptions as requests_errors
import urllib3.exceptions as urllib3_errors
from google.api_core import exceptions as api_errors
from google.auth import exceptions as auth_errors
from google.cloud.storage import exceptions as storage_errors

from shiftable.errors import (
    AlreadyExists,
    Conflict,
    Fault,
    IntegrityError,
    InvalidArgument,
    NotFound,
    NotModified,
    OperationError,
    PermissionDenied,
    PreconditionFailed,
    QuotaExceeded,
    Throttled,
    Timeout,
    Unauthenticated,
    Unavailable,
    Unsupported,
)
from shiftable.waiting import retry_after

__all__ = ["REASONS", "classify", "is_retryable", "status_of"]

REASONS: Mapping[str, type[OperationError]] = {
    # what does not exist
    "NoSuchBucket": NotFound,
    "NoSuchKey": NotFound,
    "NoSuchUpload": NotFound,
    "NoSuchVersion": NotFound,
    "databaseDoesNotExist": NotFound,
    "instanceDoesNotExist": NotFound,
    "notFound": NotFound,
    "operationDoesNotExist": NotFound,
    "userDoesNotExist": NotFound,
    # what exists already
    "alreadyExists": AlreadyExists,
    "databaseAlreadyExists": AlreadyExists,
    "instanceAlreadyExists": AlreadyExists,
    "BucketAlreadyExists": AlreadyExists,
    "BucketAlreadyOwnedByYou": AlreadyExists,
    "BucketNameUnavailable": AlreadyExists,
    # another writer, or the wrong state
    "BucketNotEmpty": Conflict,
    "InvalidObjectState": Conflict,
    "OperationAborted": Conflict,
    "aborted": Conflict,
    "cloudKmsDisabledKey": Conflict,
    "cloudKmsKeyDestroyed": Conflict,
    "cnameResourceRecordSetConflict": Conflict,
    "conflict": Conflict,
    "containerNotEmpty": Conflict,
    "gone": Conflict,
    "invalidOperation": Conflict,
    "invalidState": Conflict,
    "managedZoneDnsNameNotAvailable": Conflict,
    "objectUnderActiveHold": Conflict,
    "operationInProgress": Conflict,
    "resourceInUseByAnotherResource": Conflict,
    "resourceNotReady": Conflict,
    "retentionPolicyNotMet": Conflict,
    "staleData": Conflict,
    "PreconditionFailed": PreconditionFailed,
    "conditionNotMet": PreconditionFailed,
    "preconditionFailed": PreconditionFailed,
    # what the caller got wrong
    "EntityTooLarge": InvalidArgument,
    "EntityTooSmall": InvalidArgument,
    "InvalidArgument": InvalidArgument,
    "InvalidBucketName": InvalidArgument,
    "InvalidDigest": InvalidArgument,
    "InvalidLocationConstraint": InvalidArgument,
    "InvalidPart": InvalidArgument,
    "InvalidPartOrder": InvalidArgument,
    "InvalidRange": InvalidArgument,
    "InvalidStorageClass": InvalidArgument,
    "InvalidURI": InvalidArgument,
    "KeyTooLong": InvalidArgument,
    "MalformedXML": InvalidArgument,
    "MetadataTooLarge": InvalidArgument,
    "MethodNotAllowed": InvalidArgument,
    "MissingContentLength": InvalidArgument,
    "badRequest": InvalidArgument,
    "customerEncryptionKeyIsIncorrect": InvalidArgument,
    "fieldSizeTooLarge": InvalidArgument,
    "invalid": InvalidArgument,
    "invalidArgument": InvalidArgument,
    "invalidFieldValue": InvalidArgument,
    "invalidParameter": InvalidArgument,
    "invalidRecordCount": InvalidArgument,
    "invalidUsage": InvalidArgument,
    "invalidValue": InvalidArgument,
    "invalidZoneApex": InvalidArgument,
    "methodNotAllowed": InvalidArgument,
    "parseError": InvalidArgument,
    "recordTypeDisallowedAtZoneApex": InvalidArgument,
    "requestedRangeNotSatisfiable": InvalidArgument,
    "resourceIsEncryptedWithCustomerEncryptionKey": InvalidArgument,
    "uploadTooLarge": InvalidArgument,
    "wildcardNotAllowed": InvalidArgument,
    "wrongUrlForUpload": InvalidArgument,
    # content that is not what was promised
    "BadDigest": IntegrityError,
    "IncompleteBody": IntegrityError,
    # who asks, and whether they may
    "AccessDenied": PermissionDenied,
    "AccountProblem": PermissionDenied,
    "UserProjectAccessDenied": PermissionDenied,
    "accessNotConfigured": PermissionDenied,
    "accountDisabled": PermissionDenied,
    "cloudKmsKeyAccessDenied": PermissionDenied,
    "countryBlocked": PermissionDenied,
    "domainPolicy": PermissionDenied,
    "forbidden": PermissionDenied,
    "inactiveBillingState": PermissionDenied,
    "insufficientPermissions": PermissionDenied,
    "notAuthorized": PermissionDenied,
    "orgPolicyConstraintFailed": PermissionDenied,
    "userProjectAccessDenied": PermissionDenied,
    "userProjectAccountProblem": PermissionDenied,
    "userProjectMissing": PermissionDenied,
    "verifyManagedZoneDnsNameOwnership": PermissionDenied,
    "AuthenticationRequired": Unauthenticated,
    "ExpiredToken": Unauthenticated,
    "InvalidSecurity": Unauthenticated,
    "RequestTimeTooSkewed": Unauthenticated,
    "SignatureDoesNotMatch": Unauthenticated,
    "authError": Unauthenticated,
    "expired": Unauthenticated,
    "lockedDomainExpired": Unauthenticated,
    "required": InvalidArgument,  # a parameter; of a missing login the status 401 is said
    # how much
    "TooManyBuckets": QuotaExceeded,
    "dailyLimitExceeded": QuotaExceeded,
    "errorMaxInstancePerLabel": QuotaExceeded,
    "limitExceeded": QuotaExceeded,
    "quotaExceeded": QuotaExceeded,
    "SlowDown": Throttled,
    "rateLimitExceeded": Throttled,
    "usageLimits.rateLimitExceeded": Throttled,
    "userRateLimitExceeded": Throttled,
    # the service's own trouble
    "InternalError": Unavailable,
    "ServiceUnavailable": Unavailable,
    "backendError": Unavailable,
    "internalError": Unavailable,
    "uploadBrokenConnection": Unavailable,
    "RequestTimeout": Timeout,
    "gatewayTimeout": Timeout,
    "NotImplemented": Unsupported,
    "notImplemented": Unsupported,
    # the reasons of the newer APIs (google.api.ErrorReason), which tell more than their status
    "API_KEY_EXPIRED": Unauthenticated,
    "API_KEY_INVALID": Unauthenticated,
    "ACCESS_TOKEN_EXPIRED": Unauthenticated,
    "ACCESS_TOKEN_TYPE_UNSUPPORTED": Unauthenticated,
    "ACCOUNT_STATE_INVALID": Unauthenticated,
    "CREDENTIALS_MISSING": Unauthenticated,
    "SESSION_COOKIE_INVALID": Unauthenticated,
    "ACCESS_TOKEN_SCOPE_INSUFFICIENT": PermissionDenied,
    "API_KEY_SERVICE_BLOCKED": PermissionDenied,
    "BILLING_DISABLED": PermissionDenied,
    "CONSUMER_INVALID": PermissionDenied,
    "CONSUMER_SUSPENDED": PermissionDenied,
    "IAM_PERMISSION_DENIED": PermissionDenied,
    "LOCATION_ORG_POLICY_VIOLATED": PermissionDenied,
    "LOCATION_POLICY_VIOLATED": PermissionDenied,
    "ORG_RESTRICTION_VIOLATION": PermissionDenied,
    "RESOURCE_PROJECT_INVALID": PermissionDenied,
    "SECURITY_POLICY_VIOLATED": PermissionDenied,
    "SERVICE_DISABLED": PermissionDenied,
    "SERVICE_NOT_VISIBLE": PermissionDenied,
    "USER_PROJECT_DENIED": PermissionDenied,
    "RATE_LIMIT_EXCEEDED": Throttled,
    "RESOURCE_QUOTA_EXCEEDED": QuotaExceeded,
    # their statuses (google.rpc.Code)
    "ABORTED": Conflict,
    "ALREADY_EXISTS": AlreadyExists,
    "CANCELLED": Unavailable,
    "DATA_LOSS": IntegrityError,
    "DEADLINE_EXCEEDED": Timeout,
    "FAILED_PRECONDITION": Conflict,
    "INTERNAL": Unavailable,
    "INVALID_ARGUMENT": InvalidArgument,
    "NOT_FOUND": NotFound,
    "OUT_OF_RANGE": InvalidArgument,
    "PERMISSION_DENIED": PermissionDenied,
    "RESOURCE_EXHAUSTED": Throttled,
    "UNAUTHENTICATED": Unauthenticated,
    "UNAVAILABLE": Unavailable,
    "UNIMPLEMENTED": Unsupported,
    "UNKNOWN": Unavailable,
}

_STATUS: Mapping[int, type[OperationError]] = {
    304: NotModified,
    400: InvalidArgument,
    401: Unauthenticated,
    403: PermissionDenied,
    404: NotFound,
    405: InvalidArgument,
    408: Timeout,
    409: Conflict,
    410: Conflict,
    411: InvalidArgument,
    412: PreconditionFailed,
    413: InvalidArgument,
    416: InvalidArgument,
    429: Throttled,
    500: Unavailable,
    501: Unsupported,
    502: Unavailable,
    503: Unavailable,
    504: Timeout,
}

_MISSING: Mapping[str, str] = {"NoSuchBucket": "bucket", "NoSuchKey": "object", "NoSuchVersion": "object"}
# Where one exception is also another, the more telling row comes first.
_CLIENT: tuple[tuple[type[Exception], type[OperationError]], ...] = (
    (requests_errors.Timeout, Timeout),  # also ConnectTimeout, which is a ConnectionError too
    (requests_errors.SSLError, Unavailable),
    (requests_errors.ConnectionError, Unavailable),
    (requests_errors.ChunkedEncodingError, Unavailable),
    (requests_errors.ContentDecodingError, Unavailable),
    (requests_errors.JSONDecodeError, Unavailable),  # half an answer, or a proxy's page
    (requests_errors.RetryError, Unavailable),
    (requests_errors.TooManyRedirects, Unavailable),
    (requests_errors.InvalidURL, InvalidArgument),
    (requests_errors.MissingSchema, InvalidArgument),
    (requests_errors.InvalidSchema, InvalidArgument),
    (requests_errors.InvalidHeader, InvalidArgument),
    (requests_errors.RequestException, OperationError),
    (urllib3_errors.TimeoutError, Timeout),
    (urllib3_errors.LocationParseError, InvalidArgument),
    (urllib3_errors.HTTPError, Unavailable),
    (HTTPException, Unavailable),
    (ConnectionError, Unavailable),
    (TimeoutError, Timeout),
    (storage_errors.DataCorruption, IntegrityError),
    (auth_errors.TransportError, Unavailable),
    (auth_errors.TimeoutError, Timeout),
    (auth_errors.ResponseError, Unavailable),
    (auth_errors.GoogleAuthError, Unauthenticated),
    (api_errors.GoogleAPIError, OperationError),
)

_QUERY = re.compile(r"\?[^\s'\")]*")
_XML = re.compile(r"<(Code|Message|Details)>(.*?)</\1>", re.DOTALL)
_CREATES_BUCKET = re.compile(r"/storage/v1/b(\?|$)")


def classify(exc: Exception) -> Fault | None:
    """Claim the exceptions of google-cloud-storage, google-api-core, google-auth, requests and urllib3."""
    if isinstance(exc, api_errors.RetryError) and isinstance(exc.cause, Exception):
        return classify(exc.cause)
    if isinstance(exc, auth_errors.TransportError) and exc.args and isinstance(exc.args[0], Exception):
        return classify(exc.args[0])
    if isinstance(exc, auth_errors.RefreshError):
        return Fault(Unavailable if exc.retryable else Unauthenticated, _text(exc), type(exc).__name__)
    if isinstance(exc, api_errors.GoogleAPICallError | storage_errors.InvalidResponse):
        return _answered(exc)
    for kind, error in _CLIENT:
        if isinstance(exc, kind):
            return Fault(error, _text(exc), type(exc).__name__)
    return None


def is_retryable(exc: Exception) -> bool:
    """Tell whether the same call may succeed later."""
    fault = classify(exc)
    return fault is not None and fault.error.retryable


def status_of(exc: BaseException) -> int:
    """Return the HTTP status that an exception stands for; 0 if it stands for none."""
    if isinstance(exc, api_errors.GoogleAPICallError):
        return int(exc.code or 0)
    return int(getattr(getattr(exc, "response", None), "status_code", 0) or 0)


@attrs.frozen
class _Stated:
    """What the body of an answer says of an error."""

    code: str = ""
    message: str = ""


def _answered(exc: Exception) -> Fault:
    response: Any = getattr(exc, "response", None)
    stated, status = _stated(response), status_of(exc)
    error = REASONS.get(stated.code) or _STATUS.get(status) or OperationError
    if "doesn't match calculated" in stated.message:
        error = IntegrityError  # a hash that was sent along; its reason is `invalid`, as of everything else
    if status == 401:
        error = Unauthenticated  # `required` is a missing login here, and a missing parameter elsewhere
    elif status == 409 and error is Conflict and _creates_bucket(response):
        error = AlreadyExists  # the JSON API has one reason, `conflict`, for this and for a bucket that is not empty
    headers: Mapping[str, str] = getattr(response, "headers", None) or {}
    return Fault(
        error,
        message=stated.message or (_text(exc) if response is not None else str(getattr(exc, "message", exc))),
        code=stated.code or (str(status) if status else type(exc).__name__),
        request_id=headers.get("x-guploader-uploadid"),
        retry_after=retry_after(headers.get("retry-after")),
        missing=_missing(stated) if error is NotFound else None,
    )


def _missing(stated: _Stated) -> str | None:
    """Say what does not exist. The JSON API tells a missing bucket from a missing object by its message alone."""
    if stated.code != "notFound":
        return _MISSING.get(stated.code)
    if "bucket does not exist" in stated.message:
        return "bucket"
    return "object" if stated.message.startswith("No such object") else None


def _stated(response: Any) -> _Stated:  # noqa: ANN401  a response of requests, which has no types
    try:
        text: str = response.content.decode("utf-8", "replace")
    except (AttributeError, RuntimeError, requests_errors.RequestException, urllib3_errors.HTTPError):
        return _Stated()  # none, a body that broke off, or one that was streamed away
    if text.lstrip().startswith("<"):
        found = {name: unescape(value).strip() for name, value in _XML.findall(text)}
        return _Stated(found.get("Code", ""), found.get("Message", ""))
    try:
        error = json.loads(text)["error"]
        first = (error.get("errors") or [{}])[0]
        reason = first.get("reason") or _reason(error) or error.get("status", "")
        return _Stated(str(reason), str(error.get("message") or first.get("message", "")))
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        return _Stated()


def _reason(error: Mapping[str, Any]) -> str | None:
    """Return the reason in the details of a newer API's error, if a row knows it: else its status tells more."""
    reasons = (str(detail.get("reason", "")) for detail in error.get("details") or ())
    return next((reason for reason in reasons if reason in REASONS), None)


def _creates_bucket(response: Any) -> bool:  # noqa: ANN401  the same
    request = getattr(response, "request", None)
    return getattr(request, "method", "") == "POST" and bool(_CREATES_BUCKET.search(getattr(request, "url", "") or ""))


def _text(exc: Exception) -> str:
    """Return the message without the queries of URLs: a session's address and a signature are as good as a key.

    Of google-auth's errors only the first argument counts; the second is the whole answer of the token's issuer.
    """
    said = exc.args[0] if isinstance(exc, auth_errors.GoogleAuthError) and exc.args else exc
    return _QUERY.sub("", str(said)).strip()

"""What Azure's errors become, by the service's own code, whatever the SDK makes of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from types import SimpleNamespace
from typing import Any

import pytest
import requests.exceptions
import urllib3.exceptions
from azure.core import exceptions as native
from azure.core.pipeline.transport import HttpRequest
from azure.identity import CredentialUnavailableError

from shiftable import errors
from shiftable.blob import BlobStore, Bucket, BucketSpec
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
    Throttled,
    Timeout,
    Unauthenticated,
    Unavailable,
    Unsupported,
)
from shiftable.testing.harness import Call
from shiftable_azure.blob import AzureBlobDriver
from shiftable_azure.double import AzureDouble
from shiftable_azure.errors import CODES, VAULT_CODES, VaultFailure, classify, classify_vault

# Statuses as the REST reference has them beside the codes.
ANSWERS: dict[tuple[int, str], type[OperationError]] = {
    (304, "ConditionNotMet"): NotModified,
    (400, "InvalidBlobOrBlock"): Conflict,
    (400, "InvalidBlockId"): InvalidArgument,
    (400, "InvalidBlockList"): Conflict,
    (400, "BlockListTooLong"): InvalidArgument,
    (400, "EmptyMetadataKey"): InvalidArgument,
    (400, "InvalidHeaderValue"): InvalidArgument,
    (400, "InvalidInput"): InvalidArgument,
    (400, "InvalidMd5"): InvalidArgument,
    (400, "InvalidMetadata"): InvalidArgument,
    (400, "InvalidQueryParameterValue"): InvalidArgument,
    (400, "InvalidResourceName"): InvalidArgument,
    (400, "InvalidTag"): InvalidArgument,
    (400, "InvalidUri"): InvalidArgument,
    (400, "InvalidXmlDocument"): InvalidArgument,
    (400, "MetadataTooLarge"): InvalidArgument,
    (400, "MissingRequiredHeader"): InvalidArgument,
    (400, "OutOfRangeQueryParameterValue"): InvalidArgument,
    (400, "Md5Mismatch"): IntegrityError,
    (400, "Crc64Mismatch"): IntegrityError,
    (401, "InvalidAuthenticationInfo"): Unauthenticated,
    (401, "NoAuthenticationInformation"): Unauthenticated,
    (403, "AuthenticationFailed"): Unauthenticated,
    (403, "AuthorizationFailure"): PermissionDenied,
    (403, "AuthorizationPermissionMismatch"): PermissionDenied,
    (403, "AuthorizationSourceIPMismatch"): PermissionDenied,
    (403, "AccountIsDisabled"): PermissionDenied,
    (403, "InsufficientAccountPermissions"): PermissionDenied,
    (403, "KeyBasedAuthenticationNotPermitted"): PermissionDenied,
    (403, "UnauthorizedBlobOverwrite"): PermissionDenied,
    (403, "ResourceNotFound"): PermissionDenied,
    (404, "BlobNotFound"): NotFound,
    (404, "ContainerNotFound"): NotFound,
    (404, "ResourceNotFound"): NotFound,
    (404, "CannotVerifyCopySource"): NotFound,
    (403, "CannotVerifyCopySource"): PermissionDenied,
    (500, "CannotVerifyCopySource"): Unavailable,
    (409, "BlobAlreadyExists"): PreconditionFailed,
    (409, "ContainerAlreadyExists"): AlreadyExists,
    (409, "ContainerBeingDeleted"): Conflict,
    (409, "BlobArchived"): Conflict,
    (409, "BlobImmutableDueToPolicy"): Conflict,
    (409, "BlockCountExceedsLimit"): QuotaExceeded,
    (409, "FeatureNotSupportedForAccount"): Unsupported,
    (409, "InvalidBlobType"): Conflict,
    (409, "OperationNotAllowedOnRootBlob"): Conflict,
    (409, "PublicAccessNotPermitted"): PermissionDenied,
    (409, "SnapshotsPresent"): Conflict,
    (409, "SnapshotOperationRateExceeded"): Throttled,
    (411, "MissingContentLengthHeader"): InvalidArgument,
    (412, "ConditionNotMet"): PreconditionFailed,
    (412, "LeaseIdMissing"): Conflict,
    (412, "SourceConditionNotMet"): PreconditionFailed,
    (413, "RequestBodyTooLarge"): InvalidArgument,
    (416, "InvalidRange"): InvalidArgument,
    (429, "TooManyRequests"): Throttled,
    (500, "InternalError"): Unavailable,
    (500, "OperationTimedOut"): Timeout,
    (501, "APINotImplemented"): Unsupported,
    (503, "ServerBusy"): Throttled,
    (400, "NeverHeardOf"): InvalidArgument,
    (403, "NeverHeardOf"): PermissionDenied,
    (404, "NeverHeardOf"): NotFound,
    (409, "NeverHeardOf"): Conflict,
    (429, ""): Throttled,
    (502, ""): Unavailable,
    (503, ""): Unavailable,
}

SDK_CLASSES = (
    native.HttpResponseError,
    native.ResourceExistsError,
    native.ResourceNotFoundError,
    native.ResourceModifiedError,
    native.ClientAuthenticationError,
)


def answered(
    status: int, code: str, headers: dict[str, str] | None = None, kind: type[native.HttpResponseError] = SDK_CLASSES[0]
) -> native.HttpResponseError:
    """Return what the SDK raises for an answer."""
    named = {"x-ms-error-code": code, "x-ms-request-id": "r-1", **(headers or {})}
    response: Any = SimpleNamespace(
        status_code=status, headers=named, reason="because", request=HttpRequest("GET", "/")
    )
    return kind(message="the SDK's words", response=response)


@pytest.mark.parametrize("kind", SDK_CLASSES)
@pytest.mark.parametrize(("status", "code"), ANSWERS)
def test_an_answer_is_told_by_its_code_whatever_class_the_sdk_makes_of_it(
    status: int, code: str, kind: type[native.HttpResponseError]
) -> None:
    fault = classify(answered(status, code, kind=kind))
    assert fault is not None
    assert (fault.error, fault.code, fault.request_id) == (ANSWERS[status, code], code, "r-1")


def test_the_table_has_more_than_forty_codes_and_no_403_becomes_a_404() -> None:
    assert len(CODES) > 40
    for code in CODES:
        fault = classify(answered(403, code))
        assert fault is not None
        assert not issubclass(fault.error, NotFound), code


def test_what_a_copy_says_of_its_source_counts() -> None:
    told = {"x-ms-copy-source-error-code": "ContainerNotFound"}
    fault = classify(answered(404, "CannotVerifyCopySource", told))
    assert fault is not None
    assert (fault.error, fault.code, fault.missing) == (NotFound, "ContainerNotFound", "bucket")


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "7"}, 7.0),
        ({"retry-after-ms": "250"}, 0.25),
        ({"x-ms-retry-after-ms": "1500", "Retry-After": "7"}, 1.5),
        ({"Retry-After": "-3"}, None),
        ({"Retry-After": "soon"}, None),
        ({}, None),
    ],
)
@pytest.mark.parametrize(("status", "code"), [(503, "ServerBusy"), (429, "TooManyRequests")])
def test_throttling_says_how_long_to_wait(
    status: int, code: str, headers: dict[str, str], seconds: float | None
) -> None:
    fault = classify(answered(status, code, headers))
    assert fault is not None
    assert (fault.error, fault.retry_after) == (Throttled, seconds)


def test_a_date_to_wait_for_becomes_seconds() -> None:
    until = datetime.now(UTC) + timedelta(minutes=5)
    fault = classify(answered(503, "ServerBusy", {"Retry-After": format_datetime(until, usegmt=True)}))
    assert fault is not None
    assert fault.retry_after is not None
    assert 200 < fault.retry_after <= 300


@pytest.mark.parametrize(
    ("exc", "expected"),
    [
        (native.ServiceRequestError("refused"), Unavailable),
        (native.ServiceRequestTimeoutError("slow"), Timeout),
        (native.ServiceResponseError("reset"), Unavailable),
        (native.ServiceResponseTimeoutError("slow"), Timeout),
        (native.IncompleteReadError("half"), Unavailable),
        (native.DecodeError("no XML"), Unavailable),
        (native.ClientAuthenticationError("no token"), Unauthenticated),
        (CredentialUnavailableError("nobody is logged in"), Unauthenticated),
        (native.HttpResponseError("no answer"), Unavailable),
        (native.AzureError("?"), OperationError),
        (requests.exceptions.ConnectionError("reset"), Unavailable),
        (requests.exceptions.ReadTimeout("slow"), Timeout),
        (requests.exceptions.ChunkedEncodingError("half"), Unavailable),
        (requests.exceptions.InvalidURL("?"), InvalidArgument),
        (urllib3.exceptions.ProtocolError("half"), Unavailable),
        (urllib3.exceptions.ReadTimeoutError(None, None, "slow"), Timeout),  # type: ignore[arg-type]  # no pool is needed
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else type(value).__name__,
)
def test_errors_without_an_answer_are_told_too(exc: Exception, expected: type[OperationError]) -> None:
    fault = classify(exc)
    assert fault is not None
    assert fault.error is expected


def test_without_credentials_one_line_says_what_to_do() -> None:
    fault = classify(native.ClientAuthenticationError("DefaultAzureCredential failed to retrieve a token\nmore"))
    assert fault is not None
    assert "run `az login`" in fault.message
    assert "\n" not in fault.message


@pytest.mark.parametrize("exc", [ValueError("a bug"), KeyError("x"), OSError(5, "disk")])
def test_other_errors_are_not_claimed(exc: Exception) -> None:
    assert classify(exc) is None


def test_no_signature_is_in_a_message() -> None:
    exc = native.ServiceRequestError("cannot reach https://a.blob.core.windows.net/c/b?sp=r&sig=c2VjcmV0")
    fault = classify(exc)
    assert fault is not None
    assert "c2VjcmV0" not in fault.message
    assert "a.blob.core.windows.net" in fault.message


# the same through the SDK


@pytest.fixture
def bucket(driver: AzureBlobDriver) -> Bucket:
    return BlobStore(driver).create(BucketSpec(name="shop"))


READS: dict[str, Callable[[Bucket], object]] = {
    "HEAD": lambda bucket: bucket.stat("key"),
    "GET": lambda bucket: bucket.get("key"),
    "PUT": lambda bucket: bucket.put("key", b"x"),
    "DELETE": lambda bucket: bucket.delete("key"),
}


@pytest.mark.parametrize("method", READS)
@pytest.mark.parametrize(
    ("status", "code"),
    [(403, "AuthorizationFailure"), (403, "AuthenticationFailed"), (409, "ContainerBeingDeleted"), (400, "InvalidUri")],
)
def test_the_sdk_hands_the_code_through_also_of_a_head(
    bucket: Bucket, azure_double: AzureDouble, method: str, status: int, code: str
) -> None:
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>said</Message></Error>".encode()
    headers = [("x-ms-error-code", code), ("x-ms-request-id", "r-2"), ("Content-Type", "application/xml")]
    azure_double.inject("status", match=_to(method), status=status, headers=headers, body=body)
    with pytest.raises(OperationError) as caught:
        READS[method](bucket)
    assert type(caught.value) is ANSWERS.get((status, code))
    assert (caught.value.code, caught.value.request_id) == (code, "r-2")


def test_a_missing_container_is_a_missing_parent_and_a_missing_blob_is_not(
    driver: AzureBlobDriver, bucket: Bucket
) -> None:
    with pytest.raises(NotFound) as caught:
        bucket.get("absent")
    assert (type(caught.value), caught.value.code) == (NotFound, "BlobNotFound")
    with pytest.raises(NotFound, match="The resource does not exist") as caught:
        bucket.stat("absent")  # to which the service has no words
    assert (type(caught.value), caught.value.code) == (NotFound, "BlobNotFound")
    with pytest.raises(ParentNotFound) as caught:
        Bucket(driver, "no-such-container").get("absent")
    assert caught.value.code == "ContainerNotFound"


@pytest.mark.parametrize(("status", "code"), [(503, "ServerBusy"), (429, "TooManyRequests")])
def test_throttling_that_does_not_end_is_throttled(
    bucket: Bucket, azure_double: AzureDouble, status: int, code: str
) -> None:
    headers = [("x-ms-error-code", code), ("Retry-After", "0")]
    azure_double.inject("status", match=_to("PUT"), times=None, status=status, headers=headers)
    with pytest.raises(Throttled) as caught:
        bucket.put("key", b"x")
    assert (caught.value.code, caught.value.retry_after, caught.value.retryable) == (code, 0.0, True)


def test_every_error_of_the_table_is_one_of_ours() -> None:
    ours = {getattr(errors, name) for name in errors.__all__ if isinstance(getattr(errors, name), type)}
    assert set(CODES.values()) <= ours


def _to(method: str) -> Callable[[Call], bool]:
    return lambda call: call.method == method and call.path.endswith("/key")


# Key Vault


VAULT: dict[tuple[int, str, str], type[OperationError]] = {
    (400, "BadParameter", ""): InvalidArgument,
    (400, "BadRequest", ""): InvalidArgument,
    (401, "Unauthorized", ""): Unauthenticated,
    (403, "Forbidden", ""): PermissionDenied,
    (403, "Forbidden", "AccessDenied"): PermissionDenied,
    (403, "Forbidden", "ForbiddenByConnection"): PermissionDenied,
    (403, "Forbidden", "ForbiddenByFirewall"): PermissionDenied,
    (403, "Forbidden", "ForbiddenByPolicy"): PermissionDenied,
    (403, "Forbidden", "ForbiddenByRbac"): PermissionDenied,
    (403, "Forbidden", "InsufficientPermissions"): PermissionDenied,
    (403, "Forbidden", "SecretDisabled"): Conflict,
    (403, "SecretNotFound", ""): PermissionDenied,
    (403, "Forbidden", "NeverHeardOf"): PermissionDenied,
    (404, "SecretNotFound", ""): NotFound,
    (404, "ResourceNotFound", ""): NotFound,
    (404, "VaultNotFound", ""): Unavailable,
    (404, "NeverHeardOf", ""): NotFound,
    (405, "MethodNotAllowed", ""): Unsupported,
    (409, "Conflict", ""): Conflict,
    (409, "Conflict", "ObjectIsBeingDeleted"): Conflict,
    (409, "Conflict", "ObjectIsBeingRecovered"): Conflict,
    (409, "Conflict", "ObjectIsDeletedButRecoverable"): Conflict,
    (413, "RequestBodyTooLarge", ""): InvalidArgument,
    (429, "Throttled", ""): Throttled,
    (429, "TooManyRequests", "VaultRequestTypeLimitReached"): Throttled,
    (429, "", ""): Throttled,
    (500, "InternalServerError", ""): Unavailable,
    (503, "ServiceUnavailable", ""): Unavailable,
    (502, "", ""): Unavailable,
    (504, "RequestTimeout", ""): Timeout,
    (418, "NeverHeardOf", ""): OperationError,
}


def of_a_vault(
    status: int, code: str, inner: str, message: str = "said", kind: type[native.HttpResponseError] = SDK_CLASSES[0]
) -> native.HttpResponseError:
    """Return what the SDK raises for a vault's answer."""
    error: dict[str, Any] = {"code": code, "message": message} | ({"innererror": {"code": inner}} if inner else {})
    response: Any = SimpleNamespace(
        status_code=status,
        headers={"x-ms-request-id": "r-3"},
        reason="because",
        text=lambda: json.dumps({"error": error} if code else {}),
    )
    return kind(response=response)


@pytest.mark.parametrize("kind", SDK_CLASSES)
@pytest.mark.parametrize(("status", "code", "inner"), VAULT)
def test_an_answer_of_a_vault_is_told_by_its_inner_code_whatever_class_the_sdk_makes_of_it(
    status: int, code: str, inner: str, kind: type[native.HttpResponseError]
) -> None:
    fault = classify_vault(of_a_vault(status, code, inner, kind=kind))
    assert fault is not None
    assert (fault.error, fault.request_id) == (VAULT[status, code, inner], "r-3")
    assert fault.code == (inner or code)
    assert fault.message
    assert "\n" not in fault.message


def test_every_error_of_the_vaults_table_is_one_of_ours_and_no_403_becomes_a_404() -> None:
    ours = {getattr(errors, name) for name in errors.__all__ if isinstance(getattr(errors, name), type)}
    assert set(VAULT_CODES.values()) <= ours
    for code in VAULT_CODES:
        fault = classify_vault(of_a_vault(403, code, ""))
        assert fault is not None
        assert not issubclass(fault.error, NotFound), code


@pytest.mark.parametrize(
    ("inner", "message", "said"),
    [
        (
            "ForbiddenByRbac",
            "Caller is not authorized.\r\nCaller: appid=0\r\nAction: 'Microsoft.KeyVault/vaults/secrets/delete'",
            "no role on the vault that allows Microsoft.KeyVault/vaults/secrets/delete; there are Key Vault",
        ),
        ("ForbiddenByRbac", "something new", "no role on the vault that allows this"),
        (
            "AccessDenied",
            "The user 'appid=0' does not have secrets purge permission on key vault 'shop'.",
            "does not give the identity the permission secrets purge",
        ),
        ("ForbiddenByFirewall", "Client address is not authorized", "the vault's firewall lets nobody in"),
        (
            "ObjectIsDeletedButRecoverable",
            "Secret is in a deleted state",
            "restore it, or purge it",
        ),
    ],
    ids=["role", "an unknown text", "policy", "firewall", "deleted"],
)
def test_a_vaults_refusal_says_what_to_do(inner: str, message: str, said: str) -> None:
    fault = classify_vault(of_a_vault(403, "Forbidden", inner, message))
    assert fault is not None
    assert said in fault.message


@pytest.mark.parametrize(
    ("exc", "expected"),
    [
        (VaultFailure("PreconditionFailed", "changed"), PreconditionFailed),
        (ValueError("The challenge resource 'x' does not match the requested domain."), Unauthenticated),
        (native.ServiceResponseError("reset"), Unavailable),
        (native.ClientAuthenticationError("no token"), Unauthenticated),
        (native.HttpResponseError("no answer"), Unavailable),
    ],
    ids=["ours", "challenge", "reset", "no token", "no answer"],
)
def test_errors_of_a_vault_without_an_answer_are_told_too(exc: Exception, expected: type[OperationError]) -> None:
    fault = classify_vault(exc)
    assert fault is not None
    assert fault.error is expected


@pytest.mark.parametrize("exc", [ValueError("a bug"), KeyError("x")])
def test_other_errors_are_no_vaults(exc: Exception) -> None:
    assert classify_vault(exc) is None

"""What botocore's exceptions mean: the one table of error codes that S3, its relatives and AWS share."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import botocore.exceptions as native
from botocore.parsers import ResponseParserError

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

__all__ = ["CODES", "classify"]

CODES: Mapping[str, type[OperationError]] = {
    # what does not exist
    "NoSuchBucket": NotFound,
    "NoSuchBucketPolicy": NotFound,
    "NoSuchCORSConfiguration": NotFound,
    "NoSuchEntity": NotFound,
    "NoSuchKey": NotFound,
    "NoSuchLifecycleConfiguration": NotFound,
    "NoSuchObjectLockConfiguration": NotFound,
    "NoSuchPublicAccessBlockConfiguration": NotFound,
    "NoSuchTagSet": NotFound,
    "NoSuchTagSetError": NotFound,
    "NoSuchUpload": NotFound,
    "NoSuchVersion": NotFound,
    "ObjectLockConfigurationNotFoundError": NotFound,
    "ReplicationConfigurationNotFoundError": NotFound,
    "ResourceNotFoundException": NotFound,
    "ServerSideEncryptionConfigurationNotFoundError": NotFound,
    # what exists already
    "BucketAlreadyExists": AlreadyExists,
    "BucketAlreadyOwnedByYou": AlreadyExists,
    "ResourceAlreadyExistsException": AlreadyExists,
    "ResourceExistsException": AlreadyExists,
    # another writer, or the wrong state
    "BucketNotEmpty": Conflict,
    "ConcurrentModification": Conflict,
    "ConcurrentModificationException": Conflict,
    "ConditionalRequestConflict": Conflict,
    "ConflictException": Conflict,
    "InvalidBucketState": Conflict,
    "InvalidObjectState": Conflict,
    "OperationAborted": Conflict,
    "ResourceInUseException": Conflict,
    "RestoreAlreadyInProgress": Conflict,
    "KMS.DisabledException": Conflict,
    "KMS.KMSInvalidStateException": Conflict,
    "KMS.NotFoundException": Conflict,
    "PreconditionFailed": PreconditionFailed,
    # what the caller got wrong
    "AuthorizationHeaderMalformed": InvalidArgument,
    "EntityTooLarge": InvalidArgument,
    "EntityTooSmall": InvalidArgument,
    "IllegalLocationConstraintException": InvalidArgument,
    "IllegalVersioningConfigurationException": InvalidArgument,
    "InvalidArgument": InvalidArgument,
    "InvalidBucketName": InvalidArgument,
    "InvalidDigest": InvalidArgument,
    "InvalidLocationConstraint": InvalidArgument,
    "InvalidParameter": InvalidArgument,
    "InvalidParameterCombination": InvalidArgument,
    "InvalidParameterException": InvalidArgument,
    "InvalidParameterValue": InvalidArgument,
    "InvalidPart": InvalidArgument,
    "InvalidPartOrder": InvalidArgument,
    "InvalidRange": InvalidArgument,
    "InvalidRequest": InvalidArgument,
    "InvalidStorageClass": InvalidArgument,
    "InvalidTag": InvalidArgument,
    "InvalidURI": InvalidArgument,
    "KeyTooLongError": InvalidArgument,
    "MalformedPolicy": InvalidArgument,
    "MalformedXML": InvalidArgument,
    "MetadataTooLarge": InvalidArgument,
    "MethodNotAllowed": InvalidArgument,
    "MissingContentLength": InvalidArgument,
    "MissingParameter": InvalidArgument,
    "PermanentRedirect": InvalidArgument,
    "SerializationException": InvalidArgument,
    "ValidationError": InvalidArgument,
    "ValidationException": InvalidArgument,
    # content that is not what was promised
    "BadDigest": IntegrityError,
    "IncompleteBody": IntegrityError,
    "XAmzContentChecksumMismatch": IntegrityError,
    "XAmzContentSHA256Mismatch": IntegrityError,
    # who asks, and whether they may
    "AccessDenied": PermissionDenied,
    "AccessDeniedException": PermissionDenied,
    "AccountProblem": PermissionDenied,
    "AllAccessDisabled": PermissionDenied,
    "KMS.AccessDeniedException": PermissionDenied,
    "NotSignedUp": PermissionDenied,
    "ObjectLocked": PermissionDenied,  # MinIO's for what Amazon calls AccessDenied
    "OptInRequired": PermissionDenied,
    "UnauthorizedOperation": PermissionDenied,
    "AuthFailure": Unauthenticated,
    "CredentialsNotSupported": Unauthenticated,
    "ExpiredToken": Unauthenticated,
    "ExpiredTokenException": Unauthenticated,
    "IncompleteSignature": Unauthenticated,
    "IncompleteSignatureException": Unauthenticated,
    "InvalidAccessKeyId": Unauthenticated,
    "InvalidClientTokenId": Unauthenticated,
    "InvalidSecurity": Unauthenticated,
    "InvalidSignatureException": Unauthenticated,
    "InvalidToken": Unauthenticated,
    "MissingAuthenticationToken": Unauthenticated,
    "MissingAuthenticationTokenException": Unauthenticated,
    "MissingSecurityHeader": Unauthenticated,
    "RequestExpired": Unauthenticated,
    "RequestTimeTooSkewed": Unauthenticated,
    "SignatureDoesNotMatch": Unauthenticated,
    "TokenRefreshRequired": Unauthenticated,
    "UnrecognizedClientException": Unauthenticated,
    # how much
    "InsufficientStorage": QuotaExceeded,
    "LimitExceededException": QuotaExceeded,
    "QuotaExceeded": QuotaExceeded,
    "QuotaExceededException": QuotaExceeded,
    "ServiceQuotaExceededException": QuotaExceeded,
    "TooManyBuckets": QuotaExceeded,
    "XMinioStorageFull": QuotaExceeded,
    "BandwidthLimitExceeded": Throttled,
    "EC2ThrottledException": Throttled,
    "LimitExceeded": Throttled,
    "PriorRequestNotComplete": Throttled,
    "RequestLimitExceeded": Throttled,
    "RequestThrottled": Throttled,
    "RequestThrottledException": Throttled,
    "SlowDown": Throttled,
    "SlowDownRead": Throttled,
    "SlowDownWrite": Throttled,
    "ThrottledException": Throttled,
    "Throttling": Throttled,
    "ThrottlingException": Throttled,
    "TooManyRequests": Throttled,
    "TooManyRequestsException": Throttled,
    # the service's own trouble
    "InternalError": Unavailable,
    "InternalFailure": Unavailable,
    "InternalServerError": Unavailable,
    "InternalServerException": Unavailable,
    "InternalServiceError": Unavailable,
    "ServiceException": Unavailable,
    "ServiceFailure": Unavailable,
    "ServiceUnavailable": Unavailable,
    "ServiceUnavailableException": Unavailable,
    "RequestTimeout": Timeout,
    "RequestTimeoutException": Timeout,
    "NotImplemented": Unsupported,
}

# For codes that no row knows, and for HEAD, whose answers have no body and so no code but the number itself.
_STATUS: Mapping[int, type[OperationError]] = {
    401: Unauthenticated,
    403: PermissionDenied,
    404: NotFound,
    408: Timeout,
    409: Conflict,
    412: PreconditionFailed,
    304: NotModified,
    416: InvalidArgument,
    429: Throttled,
    500: Unavailable,
    501: Unsupported,
    502: Unavailable,
    503: Unavailable,
    504: Unavailable,
}

_MISSING: Mapping[str, str] = {"NoSuchBucket": "bucket", "NoSuchKey": "object", "NoSuchVersion": "object"}

# Exceptions that botocore raises itself, without an answer of a service; the first row that fits counts.
_CLIENT: tuple[tuple[type[Exception], type[OperationError]], ...] = (
    (native.ConnectTimeoutError, Timeout),
    (native.ReadTimeoutError, Timeout),
    (native.EndpointConnectionError, Unavailable),
    (native.ConnectionClosedError, Unavailable),
    (native.ProxyConnectionError, Unavailable),
    (native.SSLError, Unavailable),
    (native.ResponseStreamingError, Unavailable),
    (native.IncompleteReadError, Unavailable),  # broken off: whoever reads on from there may still succeed
    (native.HTTPClientError, Unavailable),
    (native.ConnectionError, Unavailable),
    (ResponseParserError, Unavailable),  # half an XML document, or a proxy's page
    (native.CapacityNotAvailableError, Throttled),  # the client's own rate limit
    (native.FlexibleChecksumError, IntegrityError),
    (native.ChecksumError, IntegrityError),
    (native.NoCredentialsError, Unauthenticated),
    (native.PartialCredentialsError, Unauthenticated),
    (native.CredentialRetrievalError, Unauthenticated),
    (native.UnknownCredentialError, Unauthenticated),
    (native.MetadataRetrievalError, Unauthenticated),
    (native.NoAuthTokenError, Unauthenticated),
    (native.TokenRetrievalError, Unauthenticated),
    (native.RefreshWithMFAUnsupportedError, Unauthenticated),
    (native.ProfileNotFound, Unauthenticated),
    (native.SSOError, Unauthenticated),  # also SSOTokenLoadError and UnauthorizedSSOTokenError
    (native.ParamValidationError, InvalidArgument),
    (native.ValidationError, InvalidArgument),
    (native.InvalidDNSNameError, InvalidArgument),
    (native.NoRegionError, InvalidArgument),
    (native.UnsupportedS3ArnError, InvalidArgument),
    (native.BotoCoreError, OperationError),
)

# What to do, where botocore says only what there is not.
_ADVICE: tuple[tuple[type[Exception], str], ...] = (
    (
        native.NoCredentialsError,
        (
            "name a profile (AWS_PROFILE, or profile in the settings), set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY,"
            " or refer to access_key and secret_key in the settings"
        ),
    ),
    (native.NoRegionError, "say region in the settings, or set AWS_DEFAULT_REGION"),
)

_VALUE = re.compile(r", value: .*?(?=, (?:type|valid [a-z ]+): |\Z)", re.DOTALL)


def classify(exc: Exception, codes: Mapping[str, type[OperationError]] = CODES) -> Fault | None:
    """Claim botocore's and boto3's exceptions.

    Args:
        codes: the table of one service; what it does not know is decided by the HTTP status.
    """
    if isinstance(exc, native.ClientError):
        return _answered(exc, codes)
    for kind, error in _CLIENT:
        if isinstance(exc, kind):
            return Fault(error, _text(exc), type(exc).__name__)
    return Fault(OperationError, _text(exc), type(exc).__name__) if _is_of_boto3(exc) else None


def _is_of_boto3(exc: Exception) -> bool:
    """Tell it by the name of its module: boto3's exceptions come with all of boto3, which takes long to import."""
    return any(each.__module__ == "boto3.exceptions" for each in type(exc).__mro__)


def _answered(exc: native.ClientError, codes: Mapping[str, type[OperationError]]) -> Fault:
    answer: Mapping[str, Any] = exc.response
    stated, meta = answer.get("Error", {}), answer.get("ResponseMetadata", {})
    code, status = str(stated.get("Code") or ""), int(meta.get("HTTPStatusCode") or 0)
    error = codes.get(code) or _STATUS.get(status) or _STATUS.get(_number(code)) or OperationError
    if error is NotFound and has_no_reason(exc.operation_name, code):
        error = Unavailable
    headers: Mapping[str, str] = meta.get("HTTPHeaders", {})
    return Fault(
        error,
        message=str(stated.get("Message") or "").strip(),
        code=code,
        request_id=meta.get("RequestId") or headers.get("x-amz-request-id"),
        retry_after=retry_after(headers.get("retry-after")),
        missing=_MISSING.get(code),
    )


def has_no_reason(operation: str, code: str) -> bool:
    """Tell whether the document that says why was lost on the way. Answers to HEAD have none."""
    return code.isdigit() and not operation.startswith("Head")


def _number(code: str) -> int:
    return int(code) if code.isdecimal() else 0


def _text(exc: Exception) -> str:
    """Return the message without the values of parameters, as they may be secret, and what to do."""
    said = _VALUE.sub("", str(exc))
    advice = [text for kind, text in _ADVICE if isinstance(exc, kind)]
    return "; ".join([said.rstrip("."), *advice]) if advice else said

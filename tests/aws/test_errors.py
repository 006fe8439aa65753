"""The table of native errors: AWS's documented codes, botocore's own exceptions, and what no row knows."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import boto3.exceptions
import botocore.exceptions as native
import botocore.session
import pytest
from botocore.exceptions import ClientError
from botocore.parsers import ResponseParserError

from shiftable.errors import (
    AlreadyExists,
    Conflict,
    IntegrityError,
    InvalidArgument,
    NotFound,
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
from shiftable_aws import database
from shiftable_aws._errors import (
    COMPUTE_CODES,
    DATABASE_CODES,
    DNS_CODES,
    SECRETS_CODES,
    classify_compute,
    classify_database,
    classify_dns,
    classify_secrets,
)
from shiftable_s3.errors import CODES, classify

OBJECT = Resource("object", "a.txt", Resource("bucket", "shop"))


def answer(
    code: str, status: int = 400, *, message: str = "said", headers: dict[str, str] | None = None
) -> ClientError:
    response: Any = {
        "Error": {"Code": code, "Message": message},
        "ResponseMetadata": {"HTTPStatusCode": status, "RequestId": "R1", "HTTPHeaders": headers or {}},
    }
    return ClientError(response, "HeadObject" if code.isdigit() else "PutObject")


# Code and status as in the API references of S3 (Error responses) and Secrets Manager, and in "Common Errors".
S3 = [
    ("AccessDenied", 403, PermissionDenied),
    ("AccountProblem", 403, PermissionDenied),
    ("AllAccessDisabled", 403, PermissionDenied),
    ("AuthorizationHeaderMalformed", 400, InvalidArgument),
    ("BadDigest", 400, IntegrityError),
    ("BucketAlreadyExists", 409, AlreadyExists),
    ("BucketAlreadyOwnedByYou", 409, AlreadyExists),
    ("BucketNotEmpty", 409, Conflict),
    ("ConditionalRequestConflict", 409, Conflict),
    ("EntityTooLarge", 400, InvalidArgument),
    ("EntityTooSmall", 400, InvalidArgument),
    ("ExpiredToken", 400, Unauthenticated),
    ("IllegalLocationConstraintException", 400, InvalidArgument),
    ("IncompleteBody", 400, IntegrityError),
    ("InternalError", 500, Unavailable),
    ("InvalidAccessKeyId", 403, Unauthenticated),
    ("InvalidArgument", 400, InvalidArgument),
    ("InvalidBucketName", 400, InvalidArgument),
    ("InvalidBucketState", 409, Conflict),
    ("InvalidDigest", 400, InvalidArgument),
    ("InvalidObjectState", 403, Conflict),
    ("InvalidPart", 400, InvalidArgument),
    ("InvalidPartOrder", 400, InvalidArgument),
    ("InvalidRange", 416, InvalidArgument),
    ("InvalidRequest", 400, InvalidArgument),
    ("InvalidSecurity", 403, Unauthenticated),
    ("InvalidStorageClass", 400, InvalidArgument),
    ("InvalidToken", 400, Unauthenticated),
    ("KeyTooLongError", 400, InvalidArgument),
    ("MalformedXML", 400, InvalidArgument),
    ("MetadataTooLarge", 400, InvalidArgument),
    ("MethodNotAllowed", 405, InvalidArgument),
    ("NoSuchBucket", 404, NotFound),
    ("NoSuchKey", 404, NotFound),
    ("NoSuchUpload", 404, NotFound),
    ("NoSuchVersion", 404, NotFound),
    ("NotImplemented", 501, Unsupported),
    ("NotSignedUp", 403, PermissionDenied),
    ("OperationAborted", 409, Conflict),
    ("PermanentRedirect", 301, InvalidArgument),
    ("PreconditionFailed", 412, PreconditionFailed),
    ("RequestTimeTooSkewed", 403, Unauthenticated),
    ("RequestTimeout", 400, Timeout),
    ("ServiceUnavailable", 503, Unavailable),
    ("SignatureDoesNotMatch", 403, Unauthenticated),
    ("SlowDown", 503, Throttled),
    ("TooManyBuckets", 400, QuotaExceeded),
    ("XAmzContentSHA256Mismatch", 400, IntegrityError),
]
SECRETS = [
    ("AccessDeniedException", 400, PermissionDenied),
    ("DecryptionFailure", 400, Conflict),
    ("EncryptionFailure", 400, Conflict),
    ("ExpiredTokenException", 400, Unauthenticated),
    ("IncompleteSignature", 400, Unauthenticated),
    ("InternalFailure", 500, Unavailable),
    ("InternalServiceError", 500, Unavailable),
    ("InvalidNextTokenException", 400, InvalidArgument),
    ("InvalidParameterException", 400, InvalidArgument),
    ("InvalidRequestException", 400, Conflict),
    ("InvalidSignatureException", 400, Unauthenticated),
    ("LimitExceededException", 400, QuotaExceeded),
    ("MalformedPolicyDocumentException", 400, InvalidArgument),
    ("MissingAuthenticationTokenException", 400, Unauthenticated),
    ("OptInRequired", 403, PermissionDenied),
    ("PreconditionNotMetException", 400, Conflict),
    ("PublicPolicyException", 400, PermissionDenied),
    ("RequestExpired", 400, Unauthenticated),
    ("ResourceExistsException", 400, Conflict),
    ("ResourceNotFoundException", 400, NotFound),
    ("ServiceUnavailable", 503, Unavailable),
    ("ThrottlingException", 400, Throttled),
    ("UnrecognizedClientException", 400, Unauthenticated),
    ("ValidationException", 400, InvalidArgument),
]
# As in the API references of RDS and, of groups, EC2: a thing that a declaration names wrongly is no missing server.
COMPUTE = [
    ("AttachmentLimitExceeded", 400, QuotaExceeded),
    ("AuthFailure", 401, Unauthenticated),
    ("Blocked", 403, PermissionDenied),
    ("DependencyViolation", 400, Conflict),
    ("IdempotentInstanceTerminated", 400, Conflict),
    ("IdempotentParameterMismatch", 400, Conflict),
    ("IncorrectInstanceState", 400, Conflict),
    ("IncorrectState", 400, Conflict),
    ("InstanceLimitExceeded", 400, QuotaExceeded),
    ("InsufficientAddressCapacity", 500, Unavailable),
    ("InsufficientFreeAddressesInSubnet", 400, QuotaExceeded),
    ("InsufficientInstanceCapacity", 500, Unavailable),
    ("InternalError", 500, Unavailable),
    ("InvalidAMIID.Malformed", 400, InvalidArgument),
    ("InvalidAMIID.NotFound", 400, InvalidArgument),
    ("InvalidAMIID.Unavailable", 400, Conflict),
    ("InvalidAMIName.Duplicate", 400, AlreadyExists),
    ("InvalidAMIName.Malformed", 400, InvalidArgument),
    ("InvalidAttachment.NotFound", 400, Conflict),
    ("InvalidBlockDeviceMapping", 400, InvalidArgument),
    ("InvalidGroup.Duplicate", 400, AlreadyExists),
    ("InvalidGroup.NotFound", 400, InvalidArgument),
    ("InvalidInstanceID.Malformed", 400, NotFound),
    ("InvalidInstanceID.NotFound", 400, NotFound),
    ("InvalidInstanceType", 400, InvalidArgument),
    ("InvalidKeyPair.NotFound", 400, InvalidArgument),
    ("InvalidParameter", 400, InvalidArgument),
    ("InvalidParameterCombination", 400, InvalidArgument),
    ("InvalidPermission.Duplicate", 400, AlreadyExists),
    ("InvalidPlacementGroup.Duplicate", 400, AlreadyExists),
    ("InvalidPlacementGroup.InUse", 400, Conflict),
    ("InvalidPlacementGroup.Unknown", 400, InvalidArgument),
    ("InvalidSnapshot.InUse", 400, Conflict),
    ("InvalidSnapshot.NotFound", 400, NotFound),
    ("InvalidSubnetID.NotFound", 400, InvalidArgument),
    ("InvalidVolume.NotFound", 400, NotFound),
    ("InvalidVolume.ZoneMismatch", 400, InvalidArgument),
    ("MaxSpotInstanceCountExceeded", 400, QuotaExceeded),
    ("OperationNotPermitted", 400, Conflict),
    ("OptInRequired", 400, PermissionDenied),
    ("PendingVerification", 400, PermissionDenied),
    ("RequestExpired", 400, Unauthenticated),
    ("RequestLimitExceeded", 503, Throttled),
    ("SecurityGroupLimitExceeded", 400, QuotaExceeded),
    ("TagLimitExceeded", 400, InvalidArgument),
    ("UnauthorizedOperation", 403, PermissionDenied),
    ("Unavailable", 503, Unavailable),
    ("Unsupported", 400, InvalidArgument),
    ("UnsupportedOperation", 400, Conflict),
    ("VPCIdNotSpecified", 400, InvalidArgument),
    ("VcpuLimitExceeded", 400, QuotaExceeded),
    ("VolumeInUse", 400, Conflict),
    ("VolumeLimitExceeded", 400, QuotaExceeded),
]

DATABASE = [
    ("AccessDenied", 403, PermissionDenied),
    ("AuthorizationNotFound", 404, InvalidArgument),
    ("BackupPolicyNotFoundFault", 404, InvalidArgument),
    ("CertificateNotFound", 404, InvalidArgument),
    ("DBClusterNotFoundFault", 404, InvalidArgument),
    ("DBInstanceAlreadyExists", 400, AlreadyExists),
    ("DBInstanceAutomatedBackupNotFound", 404, InvalidArgument),
    ("DBInstanceAutomatedBackupQuotaExceeded", 400, QuotaExceeded),
    ("DBInstanceNotFound", 404, NotFound),
    ("DBInstanceNotReady", 400, Conflict),
    ("DBParameterGroupAlreadyExists", 400, AlreadyExists),
    ("DBParameterGroupNotFound", 404, InvalidArgument),
    ("DBParameterGroupQuotaExceeded", 400, QuotaExceeded),
    ("DBSecurityGroupNotFound", 404, InvalidArgument),
    ("DBSnapshotAlreadyExists", 400, AlreadyExists),
    ("DBSnapshotNotFound", 404, NotFound),
    ("DBSubnetGroupDoesNotCoverEnoughAZs", 400, InvalidArgument),
    ("DBSubnetGroupNotFoundFault", 404, InvalidArgument),
    ("DBUpgradeDependencyFailure", 400, Conflict),
    ("DependencyViolation", 400, Conflict),
    ("DomainNotFoundFault", 404, InvalidArgument),
    ("ExpiredToken", 403, Unauthenticated),
    ("InstanceQuotaExceeded", 400, QuotaExceeded),
    ("InsufficientDBInstanceCapacity", 400, Unavailable),
    ("InvalidClientTokenId", 403, Unauthenticated),
    ("InvalidDBInstanceState", 400, Conflict),
    ("InvalidDBParameterGroupState", 400, Conflict),
    ("InvalidDBSnapshotState", 400, Conflict),
    ("InvalidDBSubnetGroupStateFault", 400, Conflict),
    ("InvalidGroup.Duplicate", 400, AlreadyExists),
    ("InvalidGroup.NotFound", 400, InvalidArgument),
    ("InvalidPermission.Duplicate", 400, AlreadyExists),
    ("InvalidParameterCombination", 400, InvalidArgument),
    ("InvalidParameterValue", 400, InvalidArgument),
    ("InvalidRestoreFault", 400, InvalidArgument),
    ("InvalidSubnet", 400, InvalidArgument),
    ("InvalidVPCNetworkStateFault", 400, InvalidArgument),
    ("KMSKeyNotAccessibleFault", 400, InvalidArgument),
    ("OptionGroupNotFoundFault", 404, InvalidArgument),
    ("PointInTimeRestoreNotEnabled", 400, Conflict),
    ("ProvisionedIopsNotAvailableInAZFault", 400, InvalidArgument),
    ("ResourceNotFoundException", 400, Conflict),
    ("RulesPerSecurityGroupLimitExceeded", 400, QuotaExceeded),
    ("SecurityGroupLimitExceeded", 400, QuotaExceeded),
    ("SnapshotQuotaExceeded", 400, QuotaExceeded),
    ("StorageQuotaExceeded", 400, QuotaExceeded),
    ("StorageTypeNotSupported", 400, InvalidArgument),
    ("Throttling", 400, Throttled),
    ("UnauthorizedOperation", 403, PermissionDenied),
    ("UnsupportedDBEngineVersion", 400, InvalidArgument),
    ("BrandNewFault", 404, NotFound),
    ("BrandNewFault", 503, Unavailable),
]

DNS = [
    ("AccessDenied", 403, PermissionDenied),
    ("ConflictingDomainExists", 400, Conflict),
    ("DelegationSetNotAvailable", 400, QuotaExceeded),
    ("ExpiredToken", 403, Unauthenticated),
    ("HostedZoneAlreadyExists", 409, AlreadyExists),
    ("HostedZoneNotEmpty", 400, Conflict),
    ("InvalidChangeBatch", 400, InvalidArgument),
    ("InvalidClientTokenId", 403, Unauthenticated),
    ("InvalidDomainName", 400, InvalidArgument),
    ("InvalidInput", 400, InvalidArgument),
    ("LimitsExceeded", 400, QuotaExceeded),
    ("NoSuchChange", 404, NotFound),
    ("NoSuchDelegationSet", 400, NotFound),
    ("NoSuchHealthCheck", 404, InvalidArgument),
    ("NoSuchHostedZone", 404, NotFound),
    ("NotAuthorizedException", 401, PermissionDenied),
    ("PriorRequestNotComplete", 400, Throttled),
    ("ProtectionAlreadyExists", 409, AlreadyExists),
    ("ServiceUnavailable", 503, Unavailable),
    ("Throttling", 400, Throttled),
    ("ThrottlingException", 400, Throttled),
    ("TooManyHostedZones", 400, QuotaExceeded),
]
BATCHES = [  # what Route 53 says of a batch: one code, and the rest in words
    ("[Tried to create resource record set [name='a.', type='A'] but it already exists]", PreconditionFailed),
    ("[Tried to delete resource record set [name='a.', type='A'] but it was not found]", PreconditionFailed),
    ("[Tried to delete [name='a.'] but the values provided do not match the current values]", PreconditionFailed),
    ("[RRSet of type CNAME with DNS name a.b. is not permitted at apex in zone a.b.]", InvalidArgument),
    ("[RRSet of type CNAME with DNS name a. is not permitted as it conflicts with other records in zone .]", Conflict),
    ("[RRSet with DNS name a. is not permitted because a conflicting RRSet already exists in zone .]", Conflict),
    ("[RRSet with DNS name a.b. is not permitted in zone c.]", InvalidArgument),
    ("[Invalid Resource Record: 'FATAL problem: X encountered with 'a limit of b'']", InvalidArgument),
    ("[The request contains an invalid set of changes for a resource record set 'A a.']", InvalidArgument),
    ("[Number of records limit of 1000 exceeded.]", QuotaExceeded),
    ("[Something new]", InvalidArgument),
]
EXCEPTIONS: list[tuple[Exception, type[OperationError]]] = [
    (native.ConnectTimeoutError(endpoint_url="http://x"), Timeout),
    (native.ReadTimeoutError(endpoint_url="http://x"), Timeout),
    (native.EndpointConnectionError(endpoint_url="http://x"), Unavailable),
    (native.ConnectionClosedError(endpoint_url="http://x"), Unavailable),
    (native.ProxyConnectionError(proxy_url="http://x"), Unavailable),
    (native.SSLError(endpoint_url="http://x", error=ValueError("bad certificate")), Unavailable),
    (native.HTTPClientError(error="broken"), Unavailable),
    (native.ResponseStreamingError(error="broken"), Unavailable),
    (native.IncompleteReadError(actual_bytes=1, expected_bytes=2), Unavailable),
    (ResponseParserError("half"), Unavailable),
    (native.CapacityNotAvailableError(), Throttled),
    (native.FlexibleChecksumError(error_msg="differs"), IntegrityError),
    (native.ChecksumError(checksum_type="crc32", expected_checksum="1", actual_checksum="2"), IntegrityError),
    (native.NoCredentialsError(), Unauthenticated),
    (native.PartialCredentialsError(provider="env", cred_var="key"), Unauthenticated),
    (native.CredentialRetrievalError(provider="x", error_msg="y"), Unauthenticated),
    (native.MetadataRetrievalError(error_msg="y"), Unauthenticated),
    (native.TokenRetrievalError(provider="sso", error_msg="y"), Unauthenticated),
    (native.NoAuthTokenError(), Unauthenticated),
    (native.SSOTokenLoadError(error_msg="y"), Unauthenticated),
    (native.UnauthorizedSSOTokenError(), Unauthenticated),
    (native.RefreshWithMFAUnsupportedError(), Unauthenticated),
    (native.ProfileNotFound(profile="x"), Unauthenticated),
    (native.ParamValidationError(report="Missing required parameter"), InvalidArgument),
    (native.NoRegionError(), InvalidArgument),
    (native.UnseekableStreamError(stream_object=io.BytesIO()), OperationError),
    (boto3.exceptions.S3UploadFailedError(), OperationError),
]


@pytest.mark.parametrize(("code", "status", "error"), S3)
def test_an_s3_code_has_its_class(code: str, status: int, error: type[OperationError]) -> None:
    fault = classify(answer(code, status))

    assert fault is not None
    assert (fault.error, fault.code, fault.message, fault.request_id) == (error, code, "said", "R1")


@pytest.mark.parametrize(("code", "status", "error"), SECRETS)
def test_a_secrets_manager_code_has_its_class(code: str, status: int, error: type[OperationError]) -> None:
    fault = classify_secrets(answer(code, status))

    assert fault is not None
    assert (fault.error, fault.code) == (error, code)


@pytest.mark.parametrize(("code", "status", "error"), DATABASE)
def test_a_code_of_rds_means_this(code: str, status: int, error: type[OperationError]) -> None:
    fault = classify_database(answer(code, status))
    assert fault is not None
    assert (fault.error, fault.code) == (error, code)


@pytest.mark.parametrize(("code", "status", "error"), COMPUTE)
def test_a_code_of_ec2_means_this(code: str, status: int, error: type[OperationError]) -> None:
    fault = classify_compute(answer(code, status))
    assert fault is not None
    assert (fault.error, fault.code) == (error, code)


def test_protection_has_no_code_of_its_own() -> None:
    text = "Cannot delete protected DB Instance, please disable deletion protection and try again."
    fault = classify_database(answer("InvalidParameterCombination", message=text))
    assert fault is not None
    assert fault.error is Conflict


def test_every_code_of_every_call_to_rds_has_a_row() -> None:
    files = Path(database.__file__), *Path(database.__file__).parent.glob("_rds_*.py")
    source = "".join(path.read_text() for path in files)
    model = botocore.session.get_session().get_service_model("rds")
    # Tags are of every kind of resource, with codes of each.
    called = [name for name in model.operation_names if botocore.xform_name(name) in source and "Tags" not in name]
    faults: list[Any] = [error for name in called for error in model.operation_model(name).error_shapes]
    codes = {fault.error_code for fault in faults}
    assert len(called) >= 20
    assert len(codes) >= 39
    assert codes - set(DATABASE_CODES) == set()


@pytest.mark.parametrize(("code", "status", "error"), DNS)
def test_a_route_53_code_has_its_class(code: str, status: int, error: type[OperationError]) -> None:
    fault = classify_dns(answer(code, status))

    assert fault is not None
    assert (fault.error, fault.code, fault.missing) == (error, code, "zone" if code == "NoSuchHostedZone" else None)


@pytest.mark.parametrize(("message", "error"), BATCHES, ids=[f"{n}" for n in range(len(BATCHES))])
def test_what_is_wrong_with_a_batch_is_in_its_message(message: str, error: type[OperationError]) -> None:
    fault = classify_dns(answer("InvalidChangeBatch", message=message))

    assert fault is not None
    assert (fault.error, fault.code, fault.message) == (error, "InvalidChangeBatch", message)


@pytest.mark.parametrize(("exc", "error"), EXCEPTIONS, ids=lambda value: type(value).__name__)
def test_an_exception_of_the_sdk_has_its_class(exc: Exception, error: type[OperationError]) -> None:
    for table in (classify, classify_secrets, classify_dns, classify_database, classify_compute):
        fault = table(exc)
        assert fault is not None
        assert (fault.error, fault.code) == (error, type(exc).__name__)


@pytest.mark.parametrize(
    ("exc", "advice"),
    [(native.NoCredentialsError(), "; name a profile (AWS_PROFILE"), (native.NoRegionError(), "; say region in the")],
    ids=lambda value: type(value).__name__,
)
def test_what_is_not_configured_is_told_with_what_to_do(exc: Exception, advice: str) -> None:
    fault = classify(exc)
    assert fault is not None
    assert advice in fault.message


def test_every_exception_of_botocore_is_claimed() -> None:
    kinds = [
        kind for kind in vars(native).values() if isinstance(kind, type) and issubclass(kind, native.BotoCoreError)
    ]
    made = [kind.__new__(kind) for kind in kinds]

    assert len(kinds) > 80
    assert [type(exc) for exc in made if classify(exc) is None] == []


@pytest.mark.parametrize("exc", [ValueError("x"), KeyError("x"), RuntimeError("x"), AssertionError("x")])
def test_what_is_not_the_sdks_passes_through(exc: Exception) -> None:
    assert classify(exc) is None
    assert classify_secrets(exc) is None
    assert classify_dns(exc) is None


def test_a_code_that_nobody_knows_keeps_its_code() -> None:
    fault = classify(answer("BrandNewThing", 400))

    assert fault is not None
    assert (fault.error, fault.code) == (OperationError, "BrandNewThing")


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
        (504, Unavailable),
        (418, OperationError),
    ],
)
def test_an_unknown_code_and_a_head_without_a_body_go_by_the_status(status: int, error: type[OperationError]) -> None:
    for code in ("BrandNewThing", str(status)):  # botocore makes the number the code of an answer to HEAD
        fault = classify(answer(code, status))
        assert fault is not None
        assert fault.error is error


def test_a_404_whose_reason_was_lost_does_not_say_what_is_missing() -> None:
    fault = classify(ClientError(answer("404", 404).response, "GetBucketLifecycleConfiguration"))
    assert fault is not None
    assert fault.error is Unavailable


def test_a_403_is_never_a_404() -> None:
    for code in ("403", "BrandNewThing", *(code for code, status, _ in S3 + SECRETS + DNS + DATABASE if status == 403)):
        fault = classify(answer(code, 403))
        assert fault is not None
        assert not issubclass(fault.error, NotFound)


@pytest.mark.parametrize(
    ("code", "expected"), [("NoSuchBucket", ParentNotFound), ("NoSuchKey", NotFound), ("404", NotFound)]
)
def test_a_missing_bucket_is_not_a_missing_key(code: str, expected: type[OperationError]) -> None:
    with (
        pytest.raises(NotFound) as caught,
        translated(classify, provider="aws", operation="blob.get", resource=OBJECT),
    ):
        raise answer(code, 404)

    assert type(caught.value) is expected


def test_retry_after_is_read_as_seconds_and_as_a_date() -> None:
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True)
    found = [
        getattr(classify(answer("SlowDown", 503, headers={"retry-after": value})), "retry_after", "no fault")
        for value in ("7", "0", later, "soon")
    ]

    assert found[:2] == [7.0, 0.0]
    assert isinstance(found[2], float)
    assert 60 < found[2] <= 90
    assert found[3] is None


def test_an_answer_without_anything_is_still_claimed() -> None:
    empty: Any = {}
    fault = classify(ClientError(empty, "PutObject"))

    assert fault is not None
    assert (fault.error, fault.code, fault.request_id) == (OperationError, "", None)


def test_values_of_parameters_are_not_in_the_message() -> None:
    report = (
        "Invalid type for parameter SecretString, value: CANARY-1\nCANARY-2, type: <class 'bytes'>, valid types: "
        "<class 'str'>\nInvalid length for parameter SecretBinary, value: 0, valid min length: 1"
    )
    fault = classify(native.ParamValidationError(report=report))

    assert fault is not None
    assert "CANARY" not in fault.message
    assert "SecretString, type" in fault.message


def test_the_tables_are_as_wide_as_promised() -> None:
    assert len(S3) >= 40
    assert len(CODES) >= 100
    assert set(CODES) < set(SECRETS_CODES)
    assert set(CODES) < set(DNS_CODES)
    assert set(CODES) < set(DATABASE_CODES)
    assert set(CODES) < set(COMPUTE_CODES)
    assert len(COMPUTE) >= 40

"""What the error codes of Secrets Manager and Route 53 mean, on top of the table that all of AWS shares."""

from __future__ import annotations

import re
from collections.abc import Mapping

import attrs

from shiftable.errors import (
    AlreadyExists,
    Conflict,
    Fault,
    InvalidArgument,
    NotFound,
    OperationError,
    PermissionDenied,
    PreconditionFailed,
    QuotaExceeded,
)
from shiftable_s3 import errors

__all__ = ["DNS_CODES", "SECRETS_CODES", "classify_dns", "classify_secrets"]

SECRETS_CODES: Mapping[str, type[OperationError]] = {
    **errors.CODES,
    "DecryptionFailure": Conflict,  # the KMS key is disabled or gone; a missing permission is AccessDeniedException
    "EncryptionFailure": Conflict,
    "InvalidNextTokenException": InvalidArgument,
    "InvalidRequestException": Conflict,  # in this service: the secret's state forbids it
    "MalformedPolicyDocumentException": InvalidArgument,
    "PreconditionNotMetException": Conflict,
    "PublicPolicyException": PermissionDenied,
    "ResourceExistsException": Conflict,  # a ClientRequestToken that was used with another value
}

DNS_CODES: Mapping[str, type[OperationError]] = {
    **errors.CODES,
    "CannotDelete": Conflict,
    "ConflictingDomainExists": Conflict,
    "ConflictingTypes": InvalidArgument,
    "DelegationSetAlreadyCreated": AlreadyExists,
    "DelegationSetInUse": Conflict,
    "DelegationSetNotAvailable": QuotaExceeded,  # too many zones of that name, in all accounts
    "DelegationSetNotReusable": InvalidArgument,
    "HealthCheckAlreadyExists": AlreadyExists,
    "HealthCheckInUse": Conflict,
    "HostedZoneAlreadyExists": AlreadyExists,
    "HostedZoneNotEmpty": Conflict,
    "HostedZoneNotFound": NotFound,
    "HostedZoneNotPrivate": InvalidArgument,
    "InvalidChangeBatch": InvalidArgument,  # unless its message says otherwise, below
    "InvalidDomainName": InvalidArgument,
    "InvalidInput": InvalidArgument,
    "InvalidPaginationToken": InvalidArgument,
    "InvalidSigningStatus": Conflict,
    "LimitsExceeded": QuotaExceeded,
    "NoSuchChange": NotFound,
    "NoSuchDelegationSet": NotFound,
    "NoSuchGeoLocation": InvalidArgument,
    "NoSuchHealthCheck": InvalidArgument,  # of a record set that names it
    "NoSuchHostedZone": NotFound,
    "NotAuthorizedException": PermissionDenied,
    "ProtectionAlreadyExists": AlreadyExists,
    "TooManyHealthChecks": QuotaExceeded,
    "TooManyHostedZones": QuotaExceeded,
}

# Route 53 has one code for all that is wrong with a batch; the message tells the rest. The first row that fits counts.
_BATCH: tuple[tuple[re.Pattern[str], type[OperationError]], ...] = (
    (re.compile("FATAL problem|Duplicate Resource Record|invalid set of changes|is not permitted in"), InvalidArgument),
    (re.compile("limit of|maximum number of", re.IGNORECASE), QuotaExceeded),
    (re.compile("but it (already exists|was not found)|do not match the current values"), PreconditionFailed),
    (re.compile("conflict|with the same name and type|protect", re.IGNORECASE), Conflict),
)


def classify_dns(exc: Exception) -> Fault | None:
    """Claim botocore's exceptions, as raised by a client of Route 53."""
    fault = errors.classify(exc, DNS_CODES)
    if fault is not None and fault.code == "NoSuchHostedZone":
        return attrs.evolve(fault, missing="zone")
    if fault is not None and fault.code == "InvalidChangeBatch":
        error = next((kind for pattern, kind in _BATCH if pattern.search(fault.message)), fault.error)
        return attrs.evolve(fault, error=error)
    return fault


def classify_secrets(exc: Exception) -> Fault | None:
    """Claim botocore's exceptions, as raised by a client of Secrets Manager."""
    return errors.classify(exc, SECRETS_CODES)

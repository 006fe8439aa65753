"""What the exceptions of Azure's SDKs mean: one table of a service's own error codes for each."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import attrs
import requests.exceptions
import urllib3.exceptions
from azure.core import exceptions as native

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

__all__ = [
    "ARM_CODES",
    "CODES",
    "COMPUTE_CODES",
    "DATABASE_CODES",
    "VAULT_CODES",
    "ArmFailure",
    "VaultFailure",
    "classify",
    "classify_arm",
    "classify_compute",
    "classify_database",
    "classify_vault",
    "code_of",
    "fault_of",
    "seconds_asked",
]

# Status and error codes of the Blob service and those that all of Azure Storage shares, in the REST reference's words.
CODES: Mapping[str, type[OperationError]] = {
    # what does not exist
    "BlobNotFound": NotFound,
    "ContainerNotFound": NotFound,
    "ResourceNotFound": NotFound,
    "CopyIdMismatch": NotFound,
    # what exists already
    "ContainerAlreadyExists": AlreadyExists,
    "ResourceAlreadyExists": AlreadyExists,
    "AccountAlreadyExists": AlreadyExists,
    # conditions: a create-only write over a blob is answered with 409 BlobAlreadyExists, not with 412
    "BlobAlreadyExists": PreconditionFailed,
    "ConditionNotMet": PreconditionFailed,
    "SourceConditionNotMet": PreconditionFailed,
    "TargetConditionNotMet": PreconditionFailed,
    "AppendPositionConditionNotMet": PreconditionFailed,
    "MaxBlobSizeConditionNotMet": PreconditionFailed,
    "SequenceNumberConditionNotMet": PreconditionFailed,
    # another writer, or the wrong state
    "AccountBeingCreated": Conflict,
    "BlobArchived": Conflict,
    "BlobBeingRehydrated": Conflict,
    "BlobImmutableDueToLegalHold": Conflict,
    "BlobImmutableDueToPolicy": Conflict,
    "BlobNotArchived": Conflict,
    "BlobOverwritten": Conflict,
    "BlobUsesCustomerSpecifiedEncryption": Conflict,
    "BlockListTooLong": InvalidArgument,
    "ContainerBeingDeleted": Conflict,
    "ContainerDisabled": Conflict,
    "ContainerImmutableDueToPolicy": Conflict,
    "InvalidBlobOrBlock": Conflict,  # uncommitted blocks of another tool, whose ids have another length
    "InvalidBlobTier": InvalidArgument,
    "InvalidBlobType": Conflict,  # an append or page blob of that key
    "InvalidBlockList": Conflict,  # another write to that key dropped the blocks, or Azure did, after a week
    "InvalidSourceBlobType": Conflict,
    "InvalidVersionForPageBlobOperation": InvalidArgument,
    "LeaseAlreadyPresent": Conflict,
    "LeaseIdMismatchWithBlobOperation": Conflict,
    "LeaseIdMismatchWithContainerOperation": Conflict,
    "LeaseIdMissing": Conflict,
    "LeaseLost": Conflict,
    "LeaseNotPresentWithBlobOperation": Conflict,
    "LeaseNotPresentWithContainerOperation": Conflict,
    "NoPendingCopyOperation": Conflict,
    "OperationNotAllowedOnIncrementalCopyBlob": Conflict,
    "OperationNotAllowedOnRootBlob": Conflict,
    "PendingCopyOperation": Conflict,
    "ResourceTypeMismatch": Conflict,
    "SnapshotsPresent": Conflict,
    "SystemInUse": Conflict,
    "UncommittedBlockCountExceedsLimit": QuotaExceeded,
    # what the caller got wrong
    "ContentLengthLargerThanTierLimit": InvalidArgument,
    "CopyAcrossAccountsNotSupported": Unsupported,
    "EmptyMetadataKey": InvalidArgument,
    "InvalidBlockId": InvalidArgument,
    "InvalidHeaderValue": InvalidArgument,
    "InvalidHttpVerb": InvalidArgument,
    "InvalidInput": InvalidArgument,
    "InvalidMetadata": InvalidArgument,
    "InvalidOperation": InvalidArgument,
    "InvalidQueryParameterValue": InvalidArgument,
    "InvalidRange": InvalidArgument,
    "InvalidResourceName": InvalidArgument,
    "InvalidSourceBlobUrl": InvalidArgument,
    "InvalidTag": InvalidArgument,
    "InvalidUri": InvalidArgument,
    "InvalidVersionId": InvalidArgument,
    "InvalidXmlDocument": InvalidArgument,
    "InvalidXmlNodeValue": InvalidArgument,
    "MetadataTooLarge": InvalidArgument,
    "MissingContentLengthHeader": InvalidArgument,
    "MissingRequiredHeader": InvalidArgument,
    "MissingRequiredQueryParameter": InvalidArgument,
    "MissingRequiredXmlNode": InvalidArgument,
    "MultipleConditionHeadersNotSupported": InvalidArgument,
    "OutOfRangeInput": InvalidArgument,
    "OutOfRangeQueryParameterValue": InvalidArgument,
    "RequestBodyTooLarge": InvalidArgument,
    "RequestUrlFailedToParse": InvalidArgument,
    "TagsTooLarge": InvalidArgument,
    "UnsupportedHeader": InvalidArgument,
    "UnsupportedHttpVerb": InvalidArgument,
    "UnsupportedQueryParameter": InvalidArgument,
    "UnsupportedXmlNode": InvalidArgument,
    # content that is not what was promised
    "BlockCountExceedsLimit": QuotaExceeded,
    "Crc64Mismatch": IntegrityError,
    "InvalidMd5": InvalidArgument,
    "Md5Mismatch": IntegrityError,
    # who asks, and whether they may
    "AccountIsDisabled": PermissionDenied,
    "AccountRequiresHttps": PermissionDenied,
    "AuthorizationFailure": PermissionDenied,
    "AuthorizationPermissionMismatch": PermissionDenied,
    "AuthorizationProtocolMismatch": PermissionDenied,
    "AuthorizationResourceTypeMismatch": PermissionDenied,
    "AuthorizationServiceMismatch": PermissionDenied,
    "AuthorizationSourceIPMismatch": PermissionDenied,
    "InsufficientAccountPermissions": PermissionDenied,
    "KeyBasedAuthenticationNotPermitted": PermissionDenied,
    "PublicAccessNotPermitted": PermissionDenied,
    "UnauthorizedBlobOverwrite": PermissionDenied,
    "AuthenticationFailed": Unauthenticated,
    "InvalidAuthenticationInfo": Unauthenticated,
    "NoAuthenticationInformation": Unauthenticated,
    # how much
    "AccountLimitExceeded": QuotaExceeded,
    "SnapshotCountExceeded": QuotaExceeded,
    "SnapshotOperationRateExceeded": Throttled,
    "ServerBusy": Throttled,
    "TooManyRequests": Throttled,
    # the service's own trouble
    "InternalError": Unavailable,
    "CannotVerifyCopySource": Unavailable,
    "OperationTimedOut": Timeout,
    "APINotImplemented": Unsupported,
    "FeatureNotSupportedForAccount": Unsupported,
    "BlobTypeNotSupported": Unsupported,
    "FeatureVersionMismatch": Unsupported,
    "NotImplemented": Unsupported,
}

# For codes that no row knows: Azure states one in all of its answers, a proxy or an emulator may not.
_STATUS: Mapping[int, type[OperationError]] = {
    304: NotModified,
    400: InvalidArgument,
    401: Unauthenticated,
    403: PermissionDenied,
    404: NotFound,
    408: Timeout,
    409: Conflict,
    411: InvalidArgument,
    412: PreconditionFailed,
    413: InvalidArgument,
    416: InvalidArgument,
    429: Throttled,
    500: Unavailable,
    501: Unsupported,
    502: Unavailable,
    503: Unavailable,
    504: Unavailable,
}

_MISSING: Mapping[str, str] = {"ContainerNotFound": "bucket", "BlobNotFound": "object"}

# A copy's target states what its source answered in a header of its own.
_OF_SOURCE = "x-ms-copy-source-error-code"
_UNTOLD = "Operation returned an invalid status"
"""What the SDK says of an answer to HEAD, which has no words."""

# Exceptions that come from no answer of the service; the first row that fits counts.
_CLIENT: tuple[tuple[type[Exception], type[OperationError]], ...] = (
    (native.ServiceRequestTimeoutError, Timeout),
    (native.ServiceResponseTimeoutError, Timeout),
    (native.ServiceRequestError, Unavailable),
    (native.ServiceResponseError, Unavailable),
    (native.IncompleteReadError, Unavailable),  # broken off: whoever reads on from there may still succeed
    (native.DecodeError, Unavailable),  # half an XML document, or a proxy's page
    (native.ClientAuthenticationError, Unauthenticated),  # also azure-identity's CredentialUnavailableError
    (native.HttpResponseError, Unavailable),
    (native.AzureError, OperationError),
    (requests.exceptions.Timeout, Timeout),
    (requests.exceptions.InvalidURL, InvalidArgument),
    (requests.exceptions.RequestException, Unavailable),
    (urllib3.exceptions.TimeoutError, Timeout),
    (urllib3.exceptions.HTTPError, Unavailable),
)


# Codes of Key Vault, the inner ones, which say more, among them. Sources: Key Vault, REST API error codes; common error
# codes; the messages that its clients were shown.
VAULT_CODES: Mapping[str, type[OperationError]] = {
    # what does not exist
    "SecretNotFound": NotFound,
    "ResourceNotFound": NotFound,
    "VaultNotFound": Unavailable,  # as a wrong host name is: not the secret is missing
    # another writer, or the wrong state
    "Conflict": Conflict,
    "ObjectIsBeingDeleted": Conflict,
    "ObjectIsBeingRecovered": Conflict,
    "ObjectIsDeletedButRecoverable": Conflict,
    "ObjectMustBePurged": Conflict,
    "SecretDisabled": Conflict,
    "PreconditionFailed": PreconditionFailed,
    # what the caller got wrong
    "BadParameter": InvalidArgument,
    "BadRequest": InvalidArgument,
    "InvalidSecretName": InvalidArgument,
    "MethodNotAllowed": Unsupported,
    "NotSupported": Unsupported,
    "RequestBodyTooLarge": InvalidArgument,
    # who asks, and whether they may
    "AccessDenied": PermissionDenied,
    "Forbidden": PermissionDenied,
    "ForbiddenByConnection": PermissionDenied,
    "ForbiddenByFirewall": PermissionDenied,
    "ForbiddenByPolicy": PermissionDenied,
    "ForbiddenByRbac": PermissionDenied,
    "InsufficientPermissions": PermissionDenied,
    "Unauthorized": Unauthenticated,
    "InvalidAuthenticationToken": Unauthenticated,
    # how much
    "QuotaExceeded": QuotaExceeded,
    "Throttled": Throttled,
    "TooManyRequests": Throttled,
    "VaultRequestTypeLimitReached": Throttled,
    # the service's own trouble
    "InternalServerError": Unavailable,
    "ServiceUnavailable": Unavailable,
    "RequestTimeout": Timeout,
}

# What to do about a refused permission, by the inner code; the vault's own text says little of that, in many lines.
_ACTION = re.compile(r"Action: '([^']+)'")
_PERMISSION = re.compile(r"does not have (secrets \w+) permission")
_ROLES = "Key Vault Secrets User to read, Key Vault Secrets Officer to write and to delete"


class VaultFailure(native.AzureError):
    """What a vault would answer, found out without asking it.

    Args:
        code: a row of ``VAULT_CODES``.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def classify_vault(exc: Exception) -> Fault | None:
    """Claim the exceptions of azure-core and of the HTTP clients beneath it, by the vault's codes and not by class."""
    if isinstance(exc, VaultFailure):
        return Fault(VAULT_CODES[exc.code], str(exc), exc.code)
    if isinstance(exc, ValueError) and str(exc).startswith("The challenge"):  # the SDK's words for it
        return Fault(Unauthenticated, f"the vault asks for tokens of another domain: {_first_line(exc)}", "Challenge")
    response = getattr(exc, "response", None) if isinstance(exc, native.HttpResponseError) else None
    if response is None or response.status_code < 300:
        return classify(exc)
    code, inner, message = _vault_codes(exc)
    error = VAULT_CODES.get(inner) or VAULT_CODES.get(code) or _STATUS.get(response.status_code) or OperationError
    if response.status_code == 403 and issubclass(error, NotFound):
        error = PermissionDenied
    return Fault(
        error,
        _advised(inner, message) or _first_line(exc),
        inner or code,
        response.headers.get("x-ms-request-id"),
        seconds_asked(response.headers),
    )


def _vault_codes(exc: Any) -> tuple[str, str, str]:  # noqa: ANN401  azure-core's error, untyped
    """Return the code, the inner code and the message of a vault's answer, empty where it has none."""
    stated = getattr(exc, "error", None)
    inner = getattr(stated, "innererror", None)
    return (
        str(getattr(stated, "code", None) or ""),
        str(inner.get("code") or "") if isinstance(inner, dict) else "",
        str(getattr(stated, "message", None) or ""),
    )


def _advised(inner: str, message: str) -> str:
    """Return one line that says what to do, or the first line of the vault's own message."""
    if inner == "ForbiddenByRbac":
        found = _ACTION.search(message)
        what = found.group(1) if found else "this"
        return f"the identity has no role on the vault that allows {what}; there are {_ROLES}"
    if inner == "AccessDenied":
        denied = _PERMISSION.search(message)
        what = denied.group(1) if denied else "this"
        return f"the vault's access policy does not give the identity the permission {what}"
    if inner in {"ForbiddenByFirewall", "ForbiddenByConnection"}:
        return "the vault's firewall lets nobody in from this address; use a private endpoint or allow the address"
    if inner == "ObjectIsDeletedButRecoverable":
        return "the name belongs to a deleted secret; restore it, or purge it"
    if inner == "SecretDisabled":
        return "the version is disabled"
    return message.partition("\n")[0].strip()


# Codes of Resource Manager and of the services behind it. Sources: Azure Resource Manager, common deployment errors and
# request limits; the messages that clients of Azure DNS were shown.
ARM_CODES: Mapping[str, type[OperationError]] = {
    # what does not exist
    "NotFound": NotFound,
    "ParentResourceNotFound": NotFound,
    "ResourceGroupNotFound": InvalidArgument,  # a wrong setting: not the zone is missing
    "ResourceNotFound": NotFound,
    "InvalidSubscriptionId": InvalidArgument,
    "SubscriptionNotFound": InvalidArgument,
    # another writer, or the wrong state
    "AnotherOperationInProgress": Conflict,
    "Canceled": Conflict,
    "Conflict": Conflict,
    "CannotDeleteResource": Conflict,
    "InUse": Conflict,
    "MissingSubscriptionRegistration": Conflict,
    "OperationNotAllowed": Conflict,
    "PreconditionFailed": PreconditionFailed,
    "ReadOnlyDisabledSubscription": Conflict,
    "ResourceGroupBeingDeleted": Conflict,
    "ScopeLocked": Conflict,
    "SubscriptionNotRegistered": Conflict,
    # what exists already
    "AlreadyExists": AlreadyExists,
    # what the caller got wrong
    "BadRequest": InvalidArgument,
    "ForeignLink": IntegrityError,
    "InvalidApiVersionParameter": InvalidArgument,
    "InvalidAuthenticationTokenTenant": Unauthenticated,
    "InvalidRequestContent": InvalidArgument,
    "InvalidRequestFormat": InvalidArgument,
    "InvalidResourceName": InvalidArgument,
    "InvalidResourceType": InvalidArgument,
    "LinkedInvalidPropertyId": InvalidArgument,
    "LocationNotAvailableForResourceType": InvalidArgument,
    "MissingApiVersionParameter": InvalidArgument,
    "NoRegisteredProviderFound": InvalidArgument,
    "RequestDisallowedByPolicy": PermissionDenied,
    # who asks, and whether they may
    "AuthenticationFailed": Unauthenticated,
    "AuthorizationFailed": PermissionDenied,
    "ExpiredAuthenticationToken": Unauthenticated,
    "Forbidden": PermissionDenied,
    "InvalidAuthenticationToken": Unauthenticated,
    "LinkedAuthorizationFailed": PermissionDenied,
    # how much
    "QuotaExceeded": QuotaExceeded,
    "ResourceQuotaExceeded": QuotaExceeded,
    "OperationThrottled": Throttled,
    "ResourceCollectionRequestsThrottled": Throttled,
    "ResourceRequestsThrottled": Throttled,
    "SubscriptionRequestsThrottled": Throttled,
    "TooManyRequests": Throttled,
    # the service's own trouble
    "GatewayTimeout": Timeout,
    "InternalServerError": Unavailable,
    "OperationTimedOut": Timeout,
    "RetryableError": Unavailable,
    "ServerBusy": Throttled,
    "ServiceUnavailable": Unavailable,
}

# What to do about a refusal, by its code; Resource Manager's own text names ids, in many words.
_MISPLACED: Mapping[str, str] = {"ResourceGroupNotFound": "resource_group", "SubscriptionNotFound": "subscription"}
_ARM_ACTION = re.compile(r"perform action '([^']+)'")


class ArmFailure(native.AzureError):
    """What Resource Manager would answer, found out without asking it; or what an operation ended with.

    Args:
        code: a row of ``ARM_CODES``, or what the operation says.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def classify_arm(exc: Exception) -> Fault | None:
    """Claim the exceptions of azure-core and of the HTTP clients beneath it, by Resource Manager's codes."""
    if isinstance(exc, ArmFailure):
        return Fault(ARM_CODES.get(exc.code, OperationError), str(exc), exc.code)
    response = getattr(exc, "response", None) if isinstance(exc, native.HttpResponseError) else None
    if response is None or response.status_code < 300:
        return classify(exc)
    stated: Any = getattr(exc, "error", None)
    code, message = str(getattr(stated, "code", None) or ""), str(getattr(stated, "message", None) or "")
    error = ARM_CODES.get(code) or _STATUS.get(response.status_code) or OperationError
    return Fault(
        error,
        _arm_advised(code, message) or _first_line(exc),
        code,
        response.headers.get("x-ms-request-id"),
        seconds_asked(response.headers),
    )


def _arm_advised(code: str, message: str) -> str:
    """Return one line that says what to do, or the first line of the answer's own message."""
    if code == "AuthorizationFailed":
        found = _ARM_ACTION.search(message)
        what = found.group(1) if found else "this"
        return f"the identity has no role that allows {what}; assign one on the resource group"
    if code in _MISPLACED:
        return f"there is no such {_MISPLACED[code]}; correct the setting, or make it"
    if code == "ScopeLocked":
        return "a lock on the resource or its resource group forbids it; remove the lock"
    return message.partition("\n")[0].strip()


# Codes of Azure Database, beside those of Resource Manager; some say something else here. Sources: Azure Database,
# error codes of management operations; the messages that its clients were shown.
DATABASE_CODES: Mapping[str, type[OperationError]] = {
    # what does not exist
    "BackupNotFound": NotFound,
    "ConfigurationNotFound": InvalidArgument,  # the declaration names a parameter that the engine does not have
    "FlexibleServerNotFound": NotFound,
    "ServerDoesNotExist": NotFound,
    "ServerNotFound": NotFound,
    # what exists already
    "BackupAlreadyExists": AlreadyExists,
    "NameAlreadyExists": AlreadyExists,
    "ResourceAlreadyExists": AlreadyExists,
    "ServerAlreadyExists": AlreadyExists,
    "ServerNameAlreadyExists": AlreadyExists,
    # another operation, or the wrong state
    "ConflictingServerOperation": Conflict,
    "InvalidServerState": Conflict,
    "OperationNotAllowedOnServer": Conflict,
    "OperationPreempted": Conflict,
    "ServerBusy": Conflict,
    "ServerGroupDropping": Conflict,
    "ServerIsBusy": Conflict,
    "ServerIsNotReady": Conflict,
    "ServerIsStopped": Conflict,
    "ServerNotReady": Conflict,
    "ServerStateNotReady": Conflict,
    "UpsertServerRequestWithoutServerFound": Conflict,
    # what the caller got wrong
    "InvalidParameterValue": InvalidArgument,
    "InvalidRestoreTime": InvalidArgument,
    "InvalidServerName": InvalidArgument,
    "InvalidSku": InvalidArgument,
    "PasswordNotComplex": InvalidArgument,
    "PasswordTooLong": InvalidArgument,
    "PasswordTooShort": InvalidArgument,
    "ReservedUserName": InvalidArgument,
    "ServerParameterToCMSUnAllowedParameterValue": InvalidArgument,
    "StorageSizeDecreaseNotSupported": InvalidArgument,
    # what there is not here
    "FeatureNotSupported": Unsupported,
    "LocationIsOfferRestricted": Unsupported,
    "OnDemandBackupNotSupported": Unsupported,
    "ProvisionNotSupportedForRegion": Unsupported,
    "RegionIsOfferRestricted": Unsupported,
    "SkuNotAvailable": Unsupported,
    # how much
    "BackupLimitExceeded": QuotaExceeded,
    "FirewallRuleLimitExceeded": QuotaExceeded,
    "MaximumOnDemandBackupsReached": QuotaExceeded,
    "ServerQuotaExceeded": QuotaExceeded,
    "SubscriptionQuotaExceeded": QuotaExceeded,
    # the service's own trouble
    "AllocationFailed": Unavailable,
    "InsufficientCapacity": Unavailable,
    "InternalError": Unavailable,
    "OperationTimeout": Timeout,
    "ZonalAllocationFailed": Unavailable,
}


def classify_database(exc: Exception) -> Fault | None:
    """Claim what ``classify_arm`` claims, by the codes of Azure Database first."""
    return _of_service(exc, DATABASE_CODES)


# Codes of virtual machines, disks and networks, beside those of Resource Manager; some say something else here.
# Sources: Azure Virtual Machines, allocation failures and error codes; the messages that its clients were shown.
COMPUTE_CODES: Mapping[str, type[OperationError]] = {
    # what does not exist
    "DiskNotFound": NotFound,
    "GalleryImageNotFound": InvalidArgument,  # as an image that somebody named
    "ImageNotFound": InvalidArgument,
    "InvalidResourceReference": InvalidArgument,  # a network, an identity that the declaration names
    "PlatformImageNotFound": InvalidArgument,
    "VMImageNotFound": InvalidArgument,
    "VirtualMachineNotFound": NotFound,
    # what exists already
    "GalleryImageAlreadyExists": AlreadyExists,
    "VirtualMachineAlreadyExists": AlreadyExists,
    "DiskAlreadyExists": AlreadyExists,
    "SnapshotAlreadyExists": AlreadyExists,
    # another operation, or the wrong state
    "AttachDiskWhileBeingDetached": Conflict,
    "ConcurrentUpdateError": Conflict,
    "DiskAttachedToVM": Conflict,
    "DiskIsAttached": Conflict,
    "InUseNetworkSecurityGroupCannotBeDeleted": Conflict,
    "InUseSubnetCannotBeDeleted": Conflict,
    "NicInUse": Conflict,
    "NicReservedForAnotherVm": Conflict,
    "OperationPreempted": Conflict,
    "PublicIPAddressCannotBeDeleted": Conflict,
    "ReferencedResourceNotProvisioned": Conflict,
    "VMNotRunning": Conflict,
    "VirtualMachineIsBeingDeleted": Conflict,
    # what the caller got wrong
    "ImageNotSupported": InvalidArgument,
    "InvalidParameter": InvalidArgument,
    "InvalidParameterConflict": InvalidArgument,
    "InvalidRequestFormat": InvalidArgument,
    "InvalidVhd": InvalidArgument,
    "InvalidVirtualMachineName": InvalidArgument,
    "OSProvisioningClientError": InvalidArgument,
    "OperationNotSupported": Unsupported,
    "PropertyChangeNotAllowed": Conflict,
    "SourceConditionNotMet": PreconditionFailed,  # of a blob that is imported
    "SecurityRuleParameterContainsUnsupportedValue": InvalidArgument,
    "UnsupportedVMSize": InvalidArgument,
    # what there is not here
    "AvailabilityZoneNotSupported": Unsupported,
    "InvalidAvailabilityZone": InvalidArgument,
    "NotAvailableForSubscription": Unsupported,
    "SkuNotAvailable": Unsupported,
    # how much
    "PublicIPCountLimitReached": QuotaExceeded,
    "StaticPublicIPCountLimitReached": QuotaExceeded,
    # the service's own trouble
    "AllocationFailed": Unavailable,
    "ConsoleUnavailable": Unavailable,
    "InternalExecutionError": Unavailable,
    "InternalOperationError": Unavailable,
    "OSProvisioningTimedOut": Timeout,
    "OverconstrainedAllocationRequest": Unavailable,
    "OverconstrainedZonalAllocationRequest": Unavailable,
    "SpotAllocationFailed": Unavailable,
    "SubnetIsFull": QuotaExceeded,
    "ZonalAllocationFailed": Unavailable,
}


def classify_compute(exc: Exception) -> Fault | None:
    """Claim what ``classify_arm`` claims, by the codes of virtual machines first; and what Blob Storage answers."""
    if getattr(exc, "error_code", None) is not None:  # by which its client marks them
        return classify(exc)
    return _of_service(exc, COMPUTE_CODES)


def _of_service(exc: Exception, codes: Mapping[str, type[OperationError]]) -> Fault | None:
    """Claim what ``classify_arm`` claims, by a service's own codes first."""
    fault = classify_arm(exc)
    if fault is None or not isinstance(exc, (ArmFailure, native.HttpResponseError)):
        return fault
    error = codes.get(fault.code or "", fault.error)
    if fault.code == "OperationNotAllowed" and "quota" in fault.message.lower():
        error = QuotaExceeded
    return attrs.evolve(fault, error=error)


def classify(exc: Exception) -> Fault | None:
    """Claim the exceptions of azure-core and of the HTTP clients beneath it, by the service's code and not by class.

    The SDK's classes mislead: a full quota may come as ``ResourceExistsError``.
    """
    response = getattr(exc, "response", None) if isinstance(exc, native.HttpResponseError) else None
    if response is not None and response.status_code >= 300:
        return fault_of(response.status_code, response.headers, code_of(exc), _first_line(exc))
    for kind, error in _CLIENT:
        if isinstance(exc, kind):
            return Fault(error, _credential_advised(exc) or _first_line(exc), type(exc).__name__)
    return None


def _credential_advised(exc: Exception) -> str:
    """Return one line that says what to do when azure-identity, in a dozen of them, has found no credentials."""
    if isinstance(exc, native.ClientAuthenticationError) and str(exc).startswith("DefaultAzureCredential failed"):
        return (
            "no credentials were found: run `az login`, set AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET,"
            " or give the machine a managed identity"
        )
    return ""


def fault_of(status: int, headers: Mapping[str, str], code: str, message: str = "") -> Fault:
    """Say what an answer means that is no success: an exception's, or one part of a batch."""
    source = headers.get(_OF_SOURCE, "")
    if code == "CannotVerifyCopySource" and source:
        code = source
    error = CODES.get(code) or _STATUS.get(status) or OperationError
    if code == "CannotVerifyCopySource":  # says nothing but that the source answered so
        error = _STATUS.get(status, Unavailable)
    if status == 304:
        error = NotModified
    if status == 403 and issubclass(error, NotFound):
        error = PermissionDenied
    return Fault(
        error,
        message="" if message.startswith(_UNTOLD) and error is not OperationError else message,
        code=code,
        request_id=headers.get("x-ms-request-id"),
        retry_after=seconds_asked(headers),
        missing=_MISSING.get(code),
    )


def code_of(exc: Exception) -> str:
    """Return the service's own code of an exception, empty if it has none."""
    stated = getattr(exc, "error_code", None)
    response: Any = getattr(exc, "response", None)
    if not stated and response is not None:
        stated = response.headers.get("x-ms-error-code")
    return str(getattr(stated, "value", stated) or "")


def _first_line(exc: Exception) -> str:
    """Return the message without what the SDK appends to it, and without a URL that may carry a signature."""
    line = str(exc).partition("\n")[0]
    return line if "sig=" not in line else line.partition("?")[0]


def seconds_asked(headers: Mapping[str, str]) -> float | None:
    """Read ``Retry-After``: seconds, or a date; Azure also has milliseconds in a header of its own."""
    millis = retry_after(headers.get("x-ms-retry-after-ms") or headers.get("retry-after-ms"))
    return retry_after(headers.get("Retry-After")) if millis is None else millis / 1000

"""What the error codes of Secrets Manager, Route 53, RDS and EC2 mean, on top of the table that all of AWS shares."""

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
    Unavailable,
)
from shiftable_s3 import errors

__all__ = [
    "COMPUTE_CODES",
    "DATABASE_CODES",
    "DNS_CODES",
    "SECRETS_CODES",
    "classify_compute",
    "classify_database",
    "classify_dns",
    "classify_secrets",
]

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


# Only a server or a snapshot is missing; anything else that is not found was named wrongly, and a server whose secret
# is gone is in the wrong state.
DATABASE_CODES: Mapping[str, type[OperationError]] = {
    **errors.CODES,
    "AuthorizationNotFound": InvalidArgument,
    "BackupPolicyNotFoundFault": InvalidArgument,
    "CertificateNotFound": InvalidArgument,
    "DBCapacityReservationNotFound": InvalidArgument,
    "DBClusterNotFoundFault": InvalidArgument,
    "DBClusterSnapshotNotFoundFault": InvalidArgument,
    "DBInstanceAlreadyExists": AlreadyExists,
    "DBInstanceAutomatedBackupNotFound": InvalidArgument,
    "DBInstanceAutomatedBackupQuotaExceeded": QuotaExceeded,
    "DBInstanceNotFound": NotFound,
    "DBInstanceNotReady": Conflict,
    "DBParameterGroupAlreadyExists": AlreadyExists,
    "DBParameterGroupNotFound": InvalidArgument,
    "DBParameterGroupQuotaExceeded": QuotaExceeded,
    "DBSecurityGroupNotFound": InvalidArgument,
    "DBSecurityGroupNotSupported": InvalidArgument,
    "DBSnapshotAlreadyExists": AlreadyExists,
    "DBSnapshotNotFound": NotFound,
    "DBSubnetGroupDoesNotCoverEnoughAZs": InvalidArgument,
    "DBSubnetGroupNotAllowedFault": InvalidArgument,
    "DBSubnetGroupNotFoundFault": InvalidArgument,
    "DBSubnetGroupQuotaExceeded": QuotaExceeded,
    "DBSubnetQuotaExceededFault": QuotaExceeded,
    "DBUpgradeDependencyFailure": Conflict,
    "DependencyViolation": Conflict,  # EC2: a security group in use
    "DomainNotFoundFault": InvalidArgument,
    "InstanceQuotaExceeded": QuotaExceeded,
    "InsufficientAvailableIPsInSubnetFault": QuotaExceeded,
    "InsufficientDBInstanceCapacity": Unavailable,  # here and now; another class or zone may have it
    "InvalidDBCapacityReservationState": Conflict,
    "InvalidDBClusterStateFault": Conflict,
    "InvalidDBInstanceAutomatedBackupState": Conflict,
    "InvalidDBInstanceState": Conflict,
    "InvalidDBParameterGroupState": Conflict,
    "InvalidDBSecurityGroupState": Conflict,
    "InvalidDBSnapshotState": Conflict,
    "InvalidDBSubnetGroupFault": InvalidArgument,
    "InvalidDBSubnetGroupStateFault": Conflict,
    "InvalidDBSubnetStateFault": Conflict,
    "InvalidGroup.Duplicate": AlreadyExists,
    "InvalidGroup.InUse": Conflict,
    "InvalidGroup.NotFound": InvalidArgument,
    "InvalidGroupId.Malformed": InvalidArgument,
    "InvalidPermission.Duplicate": AlreadyExists,
    "InvalidPermission.NotFound": Conflict,
    "InvalidResourceStateFault": Conflict,
    "InvalidRestoreFault": InvalidArgument,
    "InvalidSubnet": InvalidArgument,
    "InvalidVPCNetworkStateFault": InvalidArgument,
    "InvalidVpcID.NotFound": InvalidArgument,
    "KMSKeyNotAccessibleFault": InvalidArgument,  # the declared one; of a key that is off the server's state tells
    "MasterUserSecretNotFound": Conflict,  # the driver's own
    "NetworkTypeNotSupported": InvalidArgument,
    "OptionGroupNotFoundFault": InvalidArgument,
    "PointInTimeRestoreNotEnabled": Conflict,  # there are no backups
    "ProvisionedIopsNotAvailableInAZFault": InvalidArgument,
    "ResourceNotFoundException": Conflict,  # Secrets Manager: the kept password is gone
    "ResourceNotFoundFault": NotFound,
    "RulesPerSecurityGroupLimitExceeded": QuotaExceeded,
    "SecurityGroupLimitExceeded": QuotaExceeded,
    "SharedSnapshotQuotaExceeded": QuotaExceeded,
    "SnapshotQuotaExceeded": QuotaExceeded,
    "StorageQuotaExceeded": QuotaExceeded,
    "StorageTypeNotAvailableFault": InvalidArgument,
    "StorageTypeNotSupported": InvalidArgument,
    "SubnetAlreadyInUse": Conflict,
    "TenantDatabaseQuotaExceeded": QuotaExceeded,
    "UnauthorizedOperation": PermissionDenied,  # EC2
    "UnsupportedDBEngineVersion": InvalidArgument,
    "VpcEncryptionControlViolationException": InvalidArgument,
}

# Only a machine, a disk or a snapshot is missing; anything else that is not found was named wrongly.
COMPUTE_CODES: Mapping[str, type[OperationError]] = {
    **errors.CODES,
    "AttachmentLimitExceeded": QuotaExceeded,
    "Blocked": PermissionDenied,
    "ConcurrentSnapshotLimitExceeded": QuotaExceeded,
    "ConcurrentTagAccess": Conflict,
    "DependencyViolation": Conflict,
    "EncryptedVolumesNotSupported": InvalidArgument,
    "FilterLimitExceeded": InvalidArgument,
    "IdempotentInstanceTerminated": Conflict,
    "IdempotentParameterMismatch": Conflict,
    "IncorrectInstanceState": Conflict,
    "IncorrectSpotRequestState": Conflict,
    "IncorrectState": Conflict,
    "InstanceAlreadyLinked": Conflict,
    "InstanceLimitExceeded": QuotaExceeded,
    "InsufficientAddressCapacity": Unavailable,
    "InsufficientCapacity": Unavailable,
    "InsufficientFreeAddressesInSubnet": QuotaExceeded,
    "InsufficientHostCapacity": Unavailable,
    "InsufficientInstanceCapacity": Unavailable,  # here and now; another type or zone may have it
    "InsufficientReservedInstanceCapacity": Unavailable,
    "InsufficientVolumeCapacity": Unavailable,
    "InternetGatewayLimitExceeded": QuotaExceeded,
    "InvalidAMIAttributeItemValue": InvalidArgument,
    "InvalidAMIID.Malformed": InvalidArgument,
    "InvalidAMIID.NotFound": InvalidArgument,
    "InvalidAMIID.Unavailable": Conflict,  # it is still being made
    "InvalidAMIName.Duplicate": AlreadyExists,
    "InvalidAMIName.Malformed": InvalidArgument,
    "InvalidAttachment.NotFound": Conflict,
    "InvalidBlockDeviceMapping": InvalidArgument,
    "InvalidFilter": InvalidArgument,
    "InvalidGroup.Duplicate": AlreadyExists,
    "InvalidGroup.InUse": Conflict,
    "InvalidGroup.NotFound": InvalidArgument,
    "InvalidGroupId.Malformed": InvalidArgument,
    "InvalidIamInstanceProfile.NotFound": InvalidArgument,
    "InvalidID": InvalidArgument,
    "InvalidInstanceAttributeValue": InvalidArgument,
    "InvalidInstanceID": Conflict,
    "InvalidInstanceID.Malformed": NotFound,  # no machine is called so
    "InvalidInstanceID.NotFound": NotFound,
    "InvalidInstanceType": InvalidArgument,
    "InvalidInterface.IpAddressLimitExceeded": QuotaExceeded,
    "InvalidKeyPair.NotFound": InvalidArgument,
    "InvalidNetworkInterface.InUse": Conflict,
    "InvalidNetworkInterfaceID.NotFound": InvalidArgument,
    "InvalidPaginationToken": InvalidArgument,
    "InvalidPermission.Duplicate": AlreadyExists,
    "InvalidPermission.Malformed": InvalidArgument,
    "InvalidPermission.NotFound": Conflict,
    "InvalidPlacementGroup.Duplicate": AlreadyExists,
    "InvalidPlacementGroup.InUse": Conflict,
    "InvalidPlacementGroup.Unknown": InvalidArgument,
    "InvalidSecurityGroupID.NotFound": InvalidArgument,
    "InvalidSnapshot.InUse": Conflict,
    "InvalidSnapshot.NotFound": NotFound,
    "InvalidState": Conflict,
    "InvalidSubnet": InvalidArgument,
    "InvalidSubnetID.NotFound": InvalidArgument,
    "InvalidTagKey.Malformed": InvalidArgument,
    "InvalidUserData.Malformed": InvalidArgument,
    "InvalidVolume.NotFound": NotFound,
    "InvalidVolume.ZoneMismatch": InvalidArgument,
    "InvalidVolumeID.Malformed": NotFound,
    "InvalidVolumeID.ZoneMismatch": InvalidArgument,
    "InvalidVpcID.NotFound": InvalidArgument,
    "InvalidVpcId.NotFound": InvalidArgument,
    "InvalidZone.NotFound": InvalidArgument,
    "MaxIOPSLimitExceeded": QuotaExceeded,
    "MaxSpotFleetRequestCountExceeded": QuotaExceeded,
    "MaxSpotInstanceCountExceeded": QuotaExceeded,
    "NetworkInterfaceLimitExceeded": QuotaExceeded,
    "PlacementGroupLimitExceeded": QuotaExceeded,
    "OperationNotPermitted": Conflict,  # protected from being terminated or stopped
    "PendingSnapshotLimitExceeded": QuotaExceeded,
    "PendingVerification": PermissionDenied,
    "RequestResourceCountExceeded": InvalidArgument,
    "ResourceCountExceeded": QuotaExceeded,
    "ResourceLimitExceeded": QuotaExceeded,
    "RulesPerSecurityGroupLimitExceeded": QuotaExceeded,
    "SecurityGroupLimitExceeded": QuotaExceeded,
    "SecurityGroupsPerInstanceLimitExceeded": QuotaExceeded,
    "SecurityGroupsPerInterfaceLimitExceeded": QuotaExceeded,
    "SnapshotLimitExceeded": QuotaExceeded,
    "SpotMaxPriceTooLow": Unavailable,
    "TagLimitExceeded": InvalidArgument,
    "Unsupported": InvalidArgument,  # the type, in that zone or with that option
    "UnsupportedOperation": Conflict,  # of what this machine is: a spot machine is not stopped
    "VPCIdNotSpecified": InvalidArgument,
    "VPCResourceNotSpecified": InvalidArgument,
    "VcpuLimitExceeded": QuotaExceeded,
    "VolumeInUse": Conflict,
    "VolumeLimitExceeded": QuotaExceeded,
    "VolumeTypeNotAvailableInZone": InvalidArgument,
}

_PROTECTED = re.compile("protect", re.IGNORECASE)
_DELETED = re.compile("(marked|scheduled) for deletion", re.IGNORECASE)


def classify_compute(exc: Exception) -> Fault | None:
    """Claim botocore's exceptions, as raised by a client of EC2."""
    return errors.classify(exc, COMPUTE_CODES)


def classify_database(exc: Exception) -> Fault | None:
    """Claim botocore's exceptions, as raised by a client of RDS, of EC2 or of Secrets Manager for a database."""
    fault = errors.classify(exc, DATABASE_CODES)
    if fault is not None and fault.code == "InvalidParameterCombination" and _PROTECTED.search(fault.message):
        return attrs.evolve(fault, error=Conflict)  # RDS has no code of its own for deletion protection
    return fault


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
    fault = errors.classify(exc, SECRETS_CODES)
    if fault is not None and fault.code == "InvalidRequestException" and _DELETED.search(fault.message):
        return attrs.evolve(fault, message="the secret is deleted; restore it, or purge it")
    return fault

"""Amazon Web Services: S3, Secrets Manager, Route 53, RDS and EC2."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import attrs

from shiftable.config import Credential
from shiftable.features import Features
from shiftable.provider import Provider
from shiftable_aws._ec2_settings import Ec2Settings
from shiftable_aws._rds_settings import RdsSettings

if TYPE_CHECKING:
    from shiftable.blob.driver import BlobDriver
    from shiftable.compute.driver import ComputeDriver
    from shiftable.database.driver import DatabaseDriver
    from shiftable.dns.driver import DnsDriver
    from shiftable.provider import Purpose
    from shiftable.secrets.driver import SecretsDriver
    from shiftable.service import Spec
    from shiftable_aws._session import Session

__all__ = ["AwsProvider", "AwsSettings", "Ec2Settings", "RdsSettings"]

__version__ = "0.1.0"


@attrs.frozen(kw_only=True)
class AwsSettings:
    """``type = "aws"``. Without any setting everything comes from boto3's own chain.

    Args:
        region: ``eu-central-1``; else that of the environment or the profile.
        profile: of ``~/.aws/config``.
        endpoint: URL of all services, for a stand-in or a private endpoint.
        access_key: with ``secret_key``, instead of the credential chain.
        session_token: of temporary credentials.
        role_arn: the role to assume with the credentials found; renewed before it expires.
        external_id: what the role's owner asks for.
        max_attempts: how often a call is tried in all.
        rds_ca: the certificates that servers of RDS are checked against; else ``~/.aws/rds-global-bundle.pem``. AWS
            has it at https://truststore.pki.rds.amazonaws.com/global/global-bundle.pem; nothing fetches it by itself.
    """

    region: str | None = None
    profile: str | None = None
    endpoint: str | None = None
    access_key: Credential | None = None
    secret_key: Credential | None = attrs.field(default=None)
    session_token: Credential | None = attrs.field(default=None)
    role_arn: str | None = None
    external_id: str | None = attrs.field(default=None)
    max_attempts: int = attrs.field(default=5, validator=attrs.validators.ge(1))
    rds_ca: Path | None = None

    @secret_key.validator
    def _pair(self, _field: object, value: Credential | None) -> None:
        if (self.access_key is None) != (value is None):
            raise ValueError("access_key and secret_key go together")

    @session_token.validator
    def _needs_pair(self, _field: object, value: Credential | None) -> None:
        if value is not None and self.access_key is None:
            raise ValueError("session_token goes with access_key and secret_key")

    @external_id.validator
    def _needs_role(self, _field: object, value: str | None) -> None:
        if value is not None and self.role_arn is None:
            raise ValueError("external_id goes with role_arn")


class AwsProvider(Provider[AwsSettings]):
    """S3, Secrets Manager, Route 53, RDS and EC2 through boto3.

    Credentials come from the settings, or else from boto3's own chain, in its order: the environment
    (``AWS_ACCESS_KEY_ID``), web identity, SSO and profiles (``AWS_PROFILE``), the container's role, the instance's
    role (IMDS). With ``role_arn`` that role is assumed with them, which needs ``sts:AssumeRole``.

    Permissions, no more than these:

    * blob: ``s3:ListAllMyBuckets``, and on the buckets ``s3:CreateBucket``, ``s3:DeleteBucket``, ``s3:ListBucket``,
      ``s3:ListBucketVersions``, ``s3:ListBucketMultipartUploads``, ``s3:GetBucketVersioning``,
      ``s3:PutBucketVersioning``, ``s3:GetBucketPublicAccessBlock``, ``s3:PutBucketPublicAccessBlock``,
      ``s3:GetLifecycleConfiguration``, ``s3:PutLifecycleConfiguration``, ``s3:GetBucketCORS``, ``s3:PutBucketCORS``,
      ``s3:GetEncryptionConfiguration``; on their objects ``s3:GetObject``,
      ``s3:GetObjectVersion``, ``s3:PutObject``, ``s3:DeleteObject``, ``s3:DeleteObjectVersion``,
      ``s3:GetObjectTagging``, ``s3:GetObjectVersionTagging``, ``s3:PutObjectTagging``, ``s3:DeleteObjectTagging``,
      ``s3:AbortMultipartUpload``.
      Without ``s3:ListBucket`` S3 answers 403 for a missing key, and so does shiftable.
    * secrets: ``secretsmanager:ListSecrets`` (on ``*``, it knows no resources), and on the secrets
      ``secretsmanager:`` ``GetSecretValue``, ``DescribeSecret``, ``ListSecretVersionIds``, ``CreateSecret``,
      ``PutSecretValue``, ``UpdateSecretVersionStage``, ``TagResource``, ``UntagResource``, ``DeleteSecret``,
      ``RestoreSecret``; with a customer's key also ``kms:Decrypt`` and ``kms:GenerateDataKey``.
    * dns: ``route53:`` ``ListHostedZones``, ``ListHostedZonesByName`` and ``CreateHostedZone`` (on ``*``); on the zones
      ``GetHostedZone``, ``DeleteHostedZone``, ``ListResourceRecordSets`` and ``ChangeResourceRecordSets``, and
      ``GetHostedZoneLimit`` to move more than 10,000 record sets into one; on changes ``GetChange``.
    * database: on ``*`` ``rds:DescribeDBInstances``, ``rds:DescribeDBSnapshots``, ``rds:DescribeDBEngineVersions``,
      ``rds:DescribeOrderableDBInstanceOptions``, and to see which times can be restored
      ``rds:DescribeDBInstanceAutomatedBackups``; on the servers and their snapshots ``rds:`` ``CreateDBInstance``,
      ``ModifyDBInstance``, ``DeleteDBInstance``, ``StartDBInstance``, ``StopDBInstance``, ``RebootDBInstance``,
      ``CreateDBSnapshot``, ``DeleteDBSnapshot``, ``RestoreDBInstanceFromDBSnapshot``,
      ``RestoreDBInstanceToPointInTime``, ``AddTagsToResource``, ``RemoveTagsFromResource``, ``ListTagsForResource``.
      For parameters, and for ``tls`` where the version's default is the other, on ``pg:shiftable-*`` ``rds:``
      ``CreateDBParameterGroup``, ``ModifyDBParameterGroup``, ``ResetDBParameterGroup``, ``DeleteDBParameterGroup``, and
      on all groups ``DescribeDBParameterGroups`` and ``DescribeDBParameters``. For ``allow_from`` ``ec2:``
      ``DescribeSecurityGroups``, ``DescribeVpcs``, ``CreateSecurityGroup``, ``CreateTags``,
      ``AuthorizeSecurityGroupIngress``, ``RevokeSecurityGroupIngress``, ``DeleteSecurityGroup`` and
      ``rds:DescribeDBSubnetGroups``. For passwords that AWS keeps ``secretsmanager:CreateSecret``,
      ``secretsmanager:TagResource``, ``secretsmanager:RotateSecret``, ``kms:DescribeKey``, and to read them
      ``secretsmanager:GetSecretValue``. To log in with tokens ``rds-db:connect``.
    * compute: on ``*`` ``ec2:`` ``DescribeInstances``, ``DescribeInstanceTypes``, ``DescribeInstanceTypeOfferings``,
      ``DescribeImages``, ``DescribeVolumes``, ``DescribeSnapshots``, ``DescribeSecurityGroups``,
      ``DescribePlacementGroups``, ``DescribeVpcs``, ``DescribeSubnets``; to make machines ``ec2:RunInstances`` (on
      images, instances, volumes, interfaces, security groups, subnets, placement groups and key pairs),
      ``ec2:CreateTags``, ``ec2:CreateSecurityGroup``, and where an identity is declared ``iam:PassRole`` on its role;
      on what has the tag
      ``shiftable-fleet`` ``ec2:`` ``TerminateInstances``, ``StartInstances``, ``StopInstances``, ``RebootInstances``,
      ``ModifyInstanceAttribute``, ``GetConsoleOutput``, ``AuthorizeSecurityGroupIngress``,
      ``RevokeSecurityGroupIngress``, ``DeleteSecurityGroup``, and to take labels away ``DeleteTags``; for a placement
      ``ec2:CreatePlacementGroup`` and
      ``ec2:DeletePlacementGroup``; for disks ``ec2:`` ``CreateVolume``, ``DeleteVolume``, ``AttachVolume``,
      ``DetachVolume``, ``CreateSnapshot``, ``DeleteSnapshot``; for images of machines ``ec2:CreateImage``,
      ``ec2:DeregisterImage``, ``ec2:DeleteSnapshot``; to import images ``ec2:ImportSnapshot``, ``ec2:RegisterImage``,
      ``s3:GetObject`` on the object and, in the account, the role ``vmimport``; for that and for sweeps
      ``ec2:DescribeImportSnapshotTasks``. Spot machines need the service-linked role
      ``AWSServiceRoleForEC2Spot`` in the account. With a key of one's own also ``kms:CreateGrant``, ``kms:Decrypt``,
      ``kms:GenerateDataKeyWithoutPlaintext`` and ``kms:DescribeKey`` on it.

    What only reads needs only the ``List…``, ``Get…`` and ``Describe…`` of these. ``policy`` writes down those that
    declared resources need.
    """

    name: ClassVar[str] = "aws"
    driver_api: ClassVar[int] = 1
    settings_type: ClassVar[type[AwsSettings]] = AwsSettings
    native_types: ClassVar[Mapping[str, type[Any]]] = {
        "compute": Ec2Settings,
        "database": RdsSettings,
    }

    def __init__(self, settings: AwsSettings) -> None:
        super().__init__(settings)
        self._session: Session | None = None

    @classmethod
    def features(cls) -> Mapping[str, tuple[Features, ...]]:
        """Say what each service's driver can do."""
        from shiftable_aws import blob, compute, database, dns, secrets

        return {
            "blob": (blob.FEATURES,),
            "secrets": (secrets.FEATURES,),
            "dns": (dns.FEATURES,),
            "database": (database.FEATURES,),
            "compute": (compute.FEATURES,),
        }

    @property
    def session(self) -> Session:
        """The session that all services share: ``cloud.unwrap(AwsProvider).session.client("sts")``."""
        if self._session is None:
            from shiftable_aws._session import Session

            self._session = Session(self.settings)
        return self._session

    def blob(self) -> BlobDriver:
        """Make the driver for S3."""
        from shiftable_aws.blob import blob_driver

        return blob_driver(self.session)

    def secrets(self) -> SecretsDriver:
        """Make the driver for Secrets Manager."""
        from shiftable_aws.secrets import SecretsManagerDriver

        return SecretsManagerDriver(self.session)

    def dns(self) -> DnsDriver:
        """Make the driver for Route 53."""
        from shiftable_aws.dns import Route53Driver

        return Route53Driver(self.session)

    def database(self) -> DatabaseDriver:
        """Make the driver for RDS."""
        from shiftable_aws.database import RdsDriver

        return RdsDriver(self.session, self.settings.rds_ca)

    def compute(self) -> ComputeDriver:
        """Make the driver for EC2."""
        from shiftable_aws.compute import Ec2Driver

        return Ec2Driver(self.session)

    def policy(self, declared: Iterable[tuple[str, Spec]], purposes: Iterable[Purpose]) -> Mapping[str, Any]:
        """Write a policy of IAM, for any account. Keys of one's own in KMS are not in it, nor the roles of imports."""
        from shiftable_aws._policy import policy

        return policy(declared, purposes, self.settings.region)

    def close(self) -> None:
        """Close the connections of all clients."""
        if self._session is not None:
            self._session.close()

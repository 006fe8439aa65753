"""The least that a login must be allowed, as a policy of IAM.

The actions are those of AWS's Service Authorization Reference; tests compare them with what the drivers call.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import attrs

from shiftable.errors import InvalidArgument
from shiftable.provider import Purpose, contained

if TYPE_CHECKING:
    from shiftable.blob.driver import BucketSpec
    from shiftable.compute.driver import FleetSpec
    from shiftable.database.driver import DatabaseSpec
    from shiftable.dns.driver import ZoneSpec
    from shiftable.secrets.driver import SecretsSpec
    from shiftable.service import Spec

__all__ = ["policy"]

_LONGEST = 10_240  # characters without blanks of all inline policies of a role (IAM and STS quotas)


@attrs.frozen
class _Grant:
    """What is allowed for some purposes.

    Args:
        actions: of one service of AWS, without its prefix, between blanks.
        condition: as IAM writes it.
    """

    purposes: frozenset[Purpose]
    prefix: str
    actions: str
    on: tuple[str, ...] = ("*",)
    condition: Mapping[str, Mapping[str, Any]] = attrs.Factory(dict)


@attrs.frozen
class _Arns:
    """Names of resources, in whichever account it is."""

    region: str

    def __call__(self, service: str, *names: str) -> tuple[str, ...]:
        return tuple(f"arn:{self._partition}:{service}:{self.region}:*:{name}" for name in names)

    def anywhere(self, service: str, *names: str) -> tuple[str, ...]:
        """Name what has neither region nor account."""
        return tuple(f"arn:{self._partition}:{service}:::{name}" for name in names)

    def in_account(self, service: str, *names: str) -> tuple[str, ...]:
        """Name what is in an account and in no region."""
        return tuple(f"arn:{self._partition}:{service}::*:{name}" for name in names)

    @property
    def _partition(self) -> str:
        special = {"cn": "aws-cn", "us-gov": "aws-us-gov"}
        return next((name for prefix, name in special.items() if self.region.startswith(f"{prefix}-")), "aws")


def policy(declared: Iterable[tuple[str, Spec]], purposes: Iterable[Purpose], region: str | None) -> dict[str, Any]:
    """Write it, in as few statements as say it.

    Raises:
        InvalidArgument: it would be longer than any policy may be.
    """
    wanted, arns = contained(purposes), _Arns(region or "*")
    by_place, by_actions = dict[tuple[tuple[str, ...], str], set[str]](), dict[tuple[tuple[str, ...], str], list[str]]()
    for service, spec in declared:
        for grant in _GRANTS[service](arns, spec):
            if grant.purposes & wanted:
                actions = {f"{grant.prefix}:{action}" for action in grant.actions.split()}
                place = grant.on, json.dumps(grant.condition, sort_keys=True)
                by_place.setdefault(place, set()).update(actions)
    for (on, condition), allowed in by_place.items():
        by_actions.setdefault((tuple(sorted(allowed)), condition), []).extend(on)
    statements = [
        {"Effect": "Allow", "Action": list(actions), "Resource": on}
        | ({"Condition": json.loads(condition)} if condition != "{}" else {})
        for (actions, condition), on in by_actions.items()
    ]
    written = {"Version": "2012-10-17", "Statement": statements}
    length = len(json.dumps(written, separators=(",", ":")))
    if length > _LONGEST:
        most = f"IAM takes at most {_LONGEST:,} for a role, or 6,144 in a managed policy"
        why = f"the policy has {length:,} characters; {most}: name fewer resources at once"
        raise InvalidArgument(why, provider="aws", operation="policy")
    return written


_READ, _WRITE = frozenset[Purpose]({"read"}), frozenset[Purpose]({"write"})
_PLAN, _APPLY = frozenset[Purpose]({"plan"}), frozenset[Purpose]({"apply"})


def _blob(arns: _Arns, spec: BucketSpec) -> Iterator[_Grant]:
    bucket, objects = arns.anywhere("s3", spec.name), arns.anywhere("s3", f"{spec.name}/*")
    yield _Grant(_READ, "s3", "ListBucket", bucket)
    yield _Grant(_READ, "s3", "GetObject GetObjectTagging", objects)
    yield _Grant(_WRITE, "s3", "ListBucketMultipartUploads", bucket)
    yield _Grant(
        _WRITE, "s3", "AbortMultipartUpload DeleteObject DeleteObjectTagging PutObject PutObjectTagging", objects
    )
    if spec.versioning or spec.object_lock:
        yield _Grant(_READ, "s3", "ListBucketVersions", bucket)
        yield _Grant(_READ, "s3", "GetObjectVersion GetObjectVersionTagging", objects)
        yield _Grant(_WRITE, "s3", "DeleteObjectVersion", objects)
    if spec.object_lock:
        yield _Grant(_READ, "s3", "GetObjectLegalHold GetObjectRetention", objects)
        yield _Grant(_WRITE, "s3", "PutObjectLegalHold PutObjectRetention", objects)
    looks = (
        "GetBucketCORS GetBucketObjectLockConfiguration GetBucketPublicAccessBlock GetBucketVersioning"
        " GetEncryptionConfiguration GetLifecycleConfiguration"
    )
    yield _Grant(_PLAN, "s3", looks, bucket)
    makes = "CreateBucket DeleteBucket PutBucketCORS PutBucketPublicAccessBlock PutBucketVersioning"
    yield _Grant(_APPLY, "s3", f"{makes} PutLifecycleConfiguration", bucket)
    if spec.object_lock:
        yield _Grant(_APPLY, "s3", "PutBucketObjectLockConfiguration", bucket)
    if arns.region in {"us-east-1", "*"}:  # where it is asked first whether the bucket exists
        yield _Grant(_APPLY, "s3", "ListBucket", bucket)


def _secrets(arns: _Arns, spec: SecretsSpec) -> Iterator[_Grant]:
    secrets = arns("secretsmanager", f"secret:{spec.name}/*")
    yield _Grant(_READ | _PLAN, "secretsmanager", "ListSecrets")  # which knows no resources
    yield _Grant(_READ, "secretsmanager", "DescribeSecret GetSecretValue ListSecretVersionIds", secrets)
    writes = "CreateSecret DeleteSecret PutSecretValue RestoreSecret TagResource UntagResource UpdateSecretVersionStage"
    yield _Grant(_WRITE, "secretsmanager", writes, secrets)


def _dns(arns: _Arns, spec: ZoneSpec) -> Iterator[_Grant]:
    zones, name = arns.anywhere("route53", "hostedzone/*"), spec.name.rstrip(".")
    yield _Grant(_READ | _PLAN, "route53", "ListHostedZonesByName")  # which knows no resources
    yield _Grant(_READ, "route53", "GetHostedZone ListResourceRecordSets", zones)
    names = {"route53:ChangeResourceRecordSetsNormalizedRecordNames": [name, f"*.{name}"]}
    yield _Grant(_WRITE, "route53", "ChangeResourceRecordSets", zones, {"ForAllValues:StringLike": names})
    yield _Grant(_WRITE, "route53", "GetHostedZoneLimit", zones)
    yield _Grant(_WRITE, "route53", "GetChange", arns.anywhere("route53", "change/*"))
    yield _Grant(_APPLY, "route53", "CreateHostedZone")
    yield _Grant(_APPLY, "route53", "DeleteHostedZone", zones)


def _database(arns: _Arns, spec: DatabaseSpec) -> Iterator[_Grant]:
    yield _Grant(_READ | _PLAN, "rds", "DescribeDBInstances")
    user = spec.user or spec.admin
    if spec.token_login:
        yield _Grant(_READ, "rds-db", "connect", arns("rds-db", f"dbuser:*/{user}"))
    elif spec.password is None and spec.login is None:  # AWS keeps it
        yield _Grant(_READ, "secretsmanager", "GetSecretValue", arns("secretsmanager", "secret:rds!db-*"))
    looks = (
        "DescribeDBEngineVersions DescribeDBInstanceAutomatedBackups DescribeDBParameterGroups DescribeDBParameters"
        " DescribeDBSnapshots DescribeDBSubnetGroups DescribeOrderableDBInstanceOptions ListTagsForResource"
    )
    yield _Grant(_PLAN, "rds", looks)
    yield _Grant(_PLAN, "ec2", "DescribeInstanceTypes DescribeSecurityGroups DescribeVpcs")
    makes = (
        "AddTagsToResource CreateDBInstance CreateDBSnapshot DeleteDBInstance DeleteDBSnapshot ModifyDBInstance"
        " RebootDBInstance RemoveTagsFromResource RestoreDBInstanceFromDBSnapshot RestoreDBInstanceToPointInTime"
        " StartDBInstance StopDBInstance"
    )
    around = ("og:*", "pg:*", "snapshot:*", "subgrp:*")
    # A restore makes a server of another name, of which nothing is known yet.
    yield _Grant(_APPLY, "rds", makes, arns("rds", "db:*", *around))
    groups = "CreateDBParameterGroup DeleteDBParameterGroup ModifyDBParameterGroup ResetDBParameterGroup"
    yield _Grant(_APPLY, "rds", f"AddTagsToResource {groups}", arns("rds", "pg:shiftable-*"))
    yield _Grant(_APPLY, "ec2", "CreateSecurityGroup CreateTags", arns("ec2", "security-group/*", "vpc/*"))
    ingress = "AuthorizeSecurityGroupIngress DeleteSecurityGroup RevokeSecurityGroupIngress"
    own = {"Null": {"aws:ResourceTag/shiftable-server": "false"}}
    yield _Grant(_APPLY, "ec2", ingress, arns("ec2", "security-group/*"), own)
    yield _Grant(_APPLY, "kms", "DescribeKey")
    kept = arns("secretsmanager", "secret:rds!db-*")
    if spec.password is None:
        yield _Grant(_APPLY, "secretsmanager", "CreateSecret RotateSecret TagResource", kept)


def _compute(arns: _Arns, spec: FleetSpec) -> Iterator[_Grant]:
    own = {"StringEquals": {"aws:ResourceTag/shiftable-fleet": spec.name}}
    yield _Grant(_READ | _PLAN, "ec2", "DescribeInstanceTypes DescribeInstances DescribeSecurityGroups")
    yield _Grant(_READ, "ec2", "GetConsoleOutput", condition=own)
    yield _Grant(_WRITE, "ec2", "RebootInstances StartInstances StopInstances", condition=own)
    looks = (
        "DescribeImages DescribeImportSnapshotTasks DescribeInstanceTypeOfferings DescribePlacementGroups"
        " DescribeSnapshots DescribeSubnets DescribeVolumes DescribeVpcs"
    )
    yield _Grant(_PLAN, "ec2", looks)
    makes = (
        "CreateImage CreatePlacementGroup CreateSecurityGroup CreateSnapshot CreateTags CreateVolume ImportSnapshot"
        " RegisterImage RunInstances"
    )
    yield _Grant(_APPLY, "ec2", makes)
    changes = (
        "AuthorizeSecurityGroupIngress DeletePlacementGroup DeleteSecurityGroup DeleteTags ModifyInstanceAttribute"
        " RebootInstances RevokeSecurityGroupIngress StartInstances StopInstances TerminateInstances"
    )
    yield _Grant(_APPLY, "ec2", changes, condition=own)
    yield _Grant(_APPLY, "ec2", "AttachVolume DeleteSnapshot DeleteVolume DeregisterImage DetachVolume")
    if spec.identity is not None:
        yield _Grant(_APPLY, "iam", "PassRole", arns.in_account("iam", f"role/{spec.identity}"))


_GRANTS: Mapping[str, Callable[[_Arns, Any], Iterator[_Grant]]] = {
    "blob": _blob,
    "secrets": _secrets,
    "dns": _dns,
    "database": _database,
    "compute": _compute,
}

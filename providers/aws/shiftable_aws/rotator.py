"""Rotation of AWS's own credentials: the access keys of IAM users."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, ClassVar

import attrs

from shiftable.config import Credential
from shiftable.errors import Conflict, Fault, OperationError, QuotaExceeded, Unauthenticated
from shiftable.masking import Masked
from shiftable.secrets.rotator import Rotator
from shiftable.waiting import wait_until
from shiftable_aws import AwsSettings

if TYPE_CHECKING:
    from mypy_boto3_iam import IAMClient
    from mypy_boto3_iam.type_defs import AccessKeyMetadataTypeDef

    from shiftable_aws._session import Session

__all__ = ["IamAccessKey"]

_MOST = 2
"""Access keys of one user, active or not: IAM and AWS STS quotas."""

_ORPHANED = timedelta(minutes=10)
"""After so long a key that nobody has used was left by a run that ended before it could store it."""


@attrs.frozen(kw_only=True)
class IamAccessKey(Rotator):
    """The access key of one IAM user.

    The value is a JSON document with ``AccessKeyId`` and ``SecretAccessKey``, as the AWS CLI reads it from a command:
    ``credential_process = shiftable secrets get app aws/key --reveal``. A user can have two keys, so the old one works
    beside the new one until ``grace`` is over; then it is deleted. A new key takes some seconds until it works
    everywhere; it is tried until it does.

    The user should be the rotation's alone: a second key that is neither current nor previous is deleted when its
    place is needed, if it was never used and is older than ten minutes, as a run that was killed may have left it; one
    that was used is a refusal. Where a role will do, use a role, which has no key.

    Credentials: those of ``aws``, settings as in ``[providers.x]``, else boto3's own chain. Permissions, on the user:
    ``iam:ListAccessKeys``, ``iam:CreateAccessKey``, ``iam:UpdateAccessKey``, ``iam:DeleteAccessKey``; and
    ``iam:GetAccessKeyLastUsed``.

    Args:
        user: the IAM user's name.
        aws: whose credentials change the user's.
        patience: how long a new key may take to work.
    """

    kind: ClassVar[str] = "aws-iam-access-key"

    user: str
    aws: AwsSettings = attrs.field(factory=AwsSettings)
    patience: timedelta = timedelta(minutes=1)

    def check(self, current: Masked) -> str | None:
        """Say why a value is no access key."""
        return None if _read(current) else "it is no JSON document with AccessKeyId and SecretAccessKey"

    def parts(self, value: Masked) -> tuple[Masked, ...]:
        """Return the value and the secret half in it."""
        found = _read(value)
        return (value, found[1]) if found else (value,)

    def create(self, current: Masked | None) -> Masked:
        """Make a key beside the current one."""
        mine = _read(current) if current else None
        with self._session() as session:
            iam = session.client("iam")
            self._make_room(iam, mine[0] if mine else "")
            made = iam.create_access_key(UserName=self.user)["AccessKey"]
        facts = {"Version": 1, "AccessKeyId": made["AccessKeyId"], "SecretAccessKey": made["SecretAccessKey"]}
        return Masked(json.dumps(facts))

    def usable(self, pending: Masked) -> bool:
        """Tell whether IAM still has the key."""
        found = _read(pending)
        with self._session() as session:
            keys = self._keys(session.client("iam"))
        return found is not None and any(key["AccessKeyId"] == found[0] and key["Status"] == "Active" for key in keys)

    def discard(self, value: Masked) -> None:
        """Delete the key."""
        self._delete(value)

    def test(self, new: Masked) -> None:
        """Ask who the new key belongs to, until it is known everywhere."""
        access_key, secret_key = _known(new)
        mine = attrs.evolve(
            self.aws,
            access_key=Credential.literal(access_key),
            secret_key=Credential.literal(secret_key.reveal()),
            profile=None,
            session_token=None,
            role_arn=None,
            external_id=None,
        )

        def works() -> bool | None:
            try:
                with _opened(mine) as session:
                    session.client("sts").get_caller_identity()
            except Exception as exc:
                fault = self.classify(exc)
                if fault is not None and fault.error is Unauthenticated:
                    return None
                raise
            return True

        wait_until(works, what=f"the access key {access_key} to work", timeout=self.patience)

    def retire(self, old: Masked, current: Masked, confirm: Callable[[], object]) -> None:
        """Delete the old key. Its id never comes again, so nobody else's can be meant."""
        confirm()
        if _known(old)[0] != _known(current)[0]:
            self._delete(old)

    def classify(self, exc: Exception) -> Fault | None:
        """Claim botocore's exceptions."""
        from shiftable_s3 import errors

        return errors.classify(exc, _codes())

    def _session(self) -> contextlib.AbstractContextManager[Session]:
        return _opened(self.aws)

    def _keys(self, iam: IAMClient) -> list[AccessKeyMetadataTypeDef]:
        pages = iam.get_paginator("list_access_keys").paginate(UserName=self.user)
        return [key for page in pages for key in page["AccessKeyMetadata"]]

    def _make_room(self, iam: IAMClient, current: str) -> None:
        """Delete what a run left that could not store it, if nothing else can be meant."""
        keys = self._keys(iam)
        if len(keys) < _MOST:
            return
        others = [key for key in keys if key["AccessKeyId"] != current]
        if len(others) >= _MOST:
            raise Conflict(
                f"the user {self.user!r} has {_MOST} access keys, and neither is the current one; delete one"
            )
        (other,) = others
        name = other["AccessKeyId"]
        used = iam.get_access_key_last_used(AccessKeyId=name)["AccessKeyLastUsed"].get("LastUsedDate")
        if used is not None:
            told = f"was last used at {used:%Y-%m-%d %H:%M}Z; see by whom, and delete it"
        elif datetime.now(UTC) - other["CreateDate"] < _ORPHANED:
            told = "was made within the last ten minutes, perhaps by another run; try again later"
        else:
            iam.delete_access_key(UserName=self.user, AccessKeyId=name)
            return
        raise Conflict(f"the user {self.user!r} has another access key, {name}, which {told}")

    def _delete(self, value: Masked) -> None:
        access_key, _ = _known(value)
        with self._session() as session:
            iam = session.client("iam")
            if any(key["AccessKeyId"] == access_key for key in self._keys(iam)):
                iam.update_access_key(UserName=self.user, AccessKeyId=access_key, Status="Inactive")
                iam.delete_access_key(UserName=self.user, AccessKeyId=access_key)


@contextlib.contextmanager
def _opened(settings: AwsSettings) -> Iterator[Session]:
    from shiftable_aws._session import Session

    session = Session(settings)
    try:
        yield session
    finally:
        session.close()


def _codes() -> dict[str, type[OperationError]]:
    from shiftable_s3 import errors

    return {**errors.CODES, "LimitExceeded": QuotaExceeded}  # IAM's; elsewhere it is a rate


def _read(value: Masked) -> tuple[str, Masked] | None:
    """Return the id and the secret half; ``None`` if it is no such document."""
    try:
        content = json.loads(value.reveal())
    except ValueError:
        return None
    match content:
        case {"AccessKeyId": str(name), "SecretAccessKey": str(secret)} if name and secret:
            return name, Masked(secret)
    return None


def _known(value: Masked) -> tuple[str, Masked]:
    found = _read(value)
    if found is None:
        raise Conflict("the value is no JSON document with AccessKeyId and SecretAccessKey")
    return found

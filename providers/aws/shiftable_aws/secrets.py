"""Secrets in AWS Secrets Manager."""

from __future__ import annotations

import math
import re
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

import attrs
from botocore.exceptions import ClientError

from shiftable.errors import Fault
from shiftable.features import Limit
from shiftable.masking import Masked
from shiftable.paging import Page
from shiftable.secrets.driver import (
    Secret,
    SecretInfo,
    SecretsDriver,
    SecretsFeatures,
    SecretVersion,
    Stage,
)
from shiftable.tokens import Token
from shiftable_aws._errors import classify_secrets

if TYPE_CHECKING:
    from mypy_boto3_secretsmanager import SecretsManagerClient

    from shiftable_aws._session import Session

__all__ = ["FEATURES", "SecretsManagerDriver"]

_QUOTAS = "AWS Secrets Manager quotas"
_API = "AWS Secrets Manager API reference"

FEATURES = SecretsFeatures(
    title="AWS Secrets Manager",
    binary=True,
    labels=True,
    expiry=True,
    if_absent=True,
    if_match=True,
    atomic_if_match=False,
    pending=True,
    history=True,
    disable=False,
    recovery=True,
    update=True,
    max_name=Limit(512, f"{_API}, CreateSecret"),
    max_value=Limit(65_536, _QUOTAS),
    max_labels=Limit(49, "50 tags of a resource (AWS tagging limits), less the one that keeps the expiry"),
    max_versions=Limit(100, _QUOTAS),
    max_recovery=Limit(30, f"{_API}, DeleteSecret"),
)

_EXPIRES_TAG = "shiftable-expires"
_NAMESPACE = uuid.UUID("5f9f8a2c-6a0e-5d0b-9f53-0c1b6f7b7a11")  # of idempotency keys; never to be changed
_NAME = re.compile(r"[A-Za-z0-9/_+=.@!-]+")
_VERSION = re.compile(r".{32,64}")
_TAG = re.compile(r"[\w .:/=+@-]*")
_PAGE = 100
_SHORTEST_RECOVERY = 7
_ATTEMPTS = 4

_LABELS: Mapping[str, Stage] = {"AWSCURRENT": "current", "AWSPREVIOUS": "previous", "AWSPENDING": "pending"}
_NATIVE: Mapping[Stage, str] = {stage: label for label, stage in _LABELS.items()}

# The client's stubs type each argument; these are filled step by step.
_Arguments = dict[str, Any]
_Tags = list[Any]


@attrs.frozen
class _State:
    """What DescribeSecret tells of a secret: which version has which stage, its tags, whether it is deleted."""

    stages: Mapping[Stage, str]
    changed: datetime | None
    tags: Mapping[str, str]
    deleted: bool

    @property
    def token(self) -> Token:
        """The stages name immutable versions; the time tells a stage that came back from one that never left."""
        moment = f"{self.changed.timestamp():.3f}" if self.changed else ""
        return Token(",".join([*(f"{stage}={self.stages[stage]}" for stage in sorted(self.stages)), moment]))

    @property
    def labels(self) -> dict[str, str]:
        return _labels(self.tags)

    @property
    def expires(self) -> datetime | None:
        return _expires(self.tags)

    def stages_of(self, version: str) -> frozenset[Stage]:
        return frozenset(stage for stage, id_ in self.stages.items() if id_ == version)


@attrs.frozen
class _Value:
    """What GetSecretValue tells of a version."""

    version: str
    value: Masked
    created: datetime | None = None


@attrs.frozen
class _Write:
    """What is to be stored: a version of that id, and the tags of the secret."""

    name: str
    version: str
    value: Masked
    tags: _Tags

    @property
    def content(self) -> _Arguments:
        if self.value.is_text:
            return {"ClientRequestToken": self.version, "SecretString": self.value.reveal()}
        return {"ClientRequestToken": self.version, "SecretBinary": self.value.reveal_bytes()}


@attrs.define(eq=False)
class SecretsManagerDriver(SecretsDriver):
    """Secrets in AWS Secrets Manager, through boto3.

    Credentials and permissions are those of ``AwsProvider``. A secret is read in two calls, as the one that tells its
    value tells neither its tags nor its state: ``DescribeSecret`` first, so that a token is never newer than the value.

    * Stages are the labels AWSCURRENT, AWSPREVIOUS and AWSPENDING; other labels are left alone.
    * Labels are the secret's tags, all but those of AWS (``aws:``) and ``shiftable-expires``, which keeps the expiry. A
      tag is metadata: the value stays what was put, for native tools too. Value and tags are two calls, value first.
    * ``if_match`` is a read before the write: Secrets Manager has no conditional writes, only conditional creation.
    * A recovery below seven days lasts seven; one above thirty is refused.
    * A secret deleted for good frees its name after a moment: AWS does it in the background.
    * A listing may miss the last five minutes, says AWS.

    botocore's own logger shows values at level DEBUG: leave it above in production.
    """

    _session: Session

    @property
    def provider(self) -> str:
        """The provider's name in errors."""
        return "aws"

    @property
    def features(self) -> SecretsFeatures:
        """What this driver can do."""
        return FEATURES

    @property
    def client(self) -> SecretsManagerClient:
        """The client that does the work."""
        return self._session.client("secretsmanager")

    def classify(self, exc: Exception) -> Fault | None:
        """Say what a native exception means."""
        return classify_secrets(exc)

    def check_secret(self, name: str) -> str | None:
        """Apply the rules for names."""
        if name and not _NAME.fullmatch(name):
            return f"a name has only ASCII letters, digits and the characters /_+=.@!- ({_API}, CreateSecret)"
        return super().check_secret(name)

    def check_labels(self, labels: Mapping[str, str]) -> str | None:
        """Apply the rules for tags."""
        for name, value in labels.items():
            if name == _EXPIRES_TAG or name.lower().startswith("aws:"):
                return f"the label {name!r} is reserved"
            if len(name) > 128 or len(value) > 256:
                return f"the label {name!r} is longer than 128 characters, or its value than 256 (AWS tagging limits)"
            if not (_TAG.fullmatch(name) and _TAG.fullmatch(value)):
                return (
                    f"the label {name!r} has other characters than letters, digits, spaces and _.:/=+-@ (AWS tagging)"
                )
        return super().check_labels(labels)

    # prefixes

    # secrets

    def get(self, name: str, *, stage: Stage | None, version: str | None) -> Secret:
        """Return one version, always asking for a stage or an id: without either AWS would choose."""
        for _ in range(_ATTEMPTS):
            state = self._living(name)
            wanted = state.stages.get(stage) if stage is not None else version
            if wanted is None or not _VERSION.fullmatch(wanted):
                raise _failure(
                    "ResourceNotFoundException", f"the secret has no {stage} version" if stage else "no such version"
                )
            how = {"VersionStage": _NATIVE[stage]} if stage is not None else {"VersionId": wanted}
            found = self._value(name, how)
            if found is not None and found.version == wanted:
                return self._secret(name, state, found)
            if stage is None:
                raise _failure("ResourceNotFoundException", "no such version")
        raise _failure("InvalidRequestException", "its stages move faster than they can be read")

    def put(
        self,
        name: str,
        value: Masked,
        *,
        stage: Literal["current", "pending"],
        if_absent: bool,
        if_match: Token | None,
        labels: Mapping[str, str] | None,
        expires: datetime | None,
        idempotency_key: str | None,
    ) -> Secret:
        """Store a new version. Its id is the ``ClientRequestToken``, so that a repeated request makes no other."""
        version = str(uuid.uuid4() if idempotency_key is None else uuid.uuid5(_NAMESPACE, idempotency_key))
        if idempotency_key is not None:
            found = self._value(name, {"VersionId": version})
            if found is not None:
                if found.value.reveal_bytes() != value.reveal_bytes():
                    raise _failure("ResourceExistsException", "the idempotency key was used with another value")
                return self._secret(name, self._state(name), found)
        if if_match is not None:
            self._check_match(name, if_match)
        write = _Write(name, version, value, _native_tags(labels, expires))
        if if_absent:
            self._create_absent(write)
        elif stage == "pending" or if_match is not None:
            self._put(write, stage)
            self._tag(name, labels, write.tags)
        elif not self._put_or_create(write):
            self._tag(name, labels, write.tags)
        return self._secret(name, self._state(name), _Value(version, value))

    def list(self, *, prefix: str, deleted: bool, cursor: str | None, limit: int | None) -> Page[SecretInfo]:
        """Return one page of secrets. AWS matches prefixes; case and life are looked at again here."""
        if prefix and not _NAME.fullmatch(prefix):
            return Page(())
        arguments: _Arguments = {"IncludePlannedDeletion": deleted, "MaxResults": _PAGE}
        if limit is not None and not deleted:
            arguments["MaxResults"] = min(limit, _PAGE)
        if prefix and not prefix.startswith("!"):  # there it would mean: all others
            arguments["Filters"] = [{"Key": "name", "Values": [prefix]}]
        if cursor is not None:
            arguments["NextToken"] = cursor
        answer = self.client.list_secrets(**arguments)
        infos = (_info(entry) for entry in answer["SecretList"])
        found = (info for info in infos if info.name.startswith(prefix) and (info.deleted is not None) is deleted)
        return Page(tuple(found), answer.get("NextToken") or None)

    def history(
        self,
        name: str,
        *,
        cursor: str | None,  # noqa: ARG002  one page holds all
        limit: int | None,  # noqa: ARG002
    ) -> Page[SecretVersion]:
        """Return all versions in one page: AWS keeps about a hundred, and lists them in no stated order."""
        state = self._living(name)
        entries = sorted(self._versions(name).items(), key=lambda entry: entry[1], reverse=True)
        items = (
            SecretVersion(name=name, version=id_, stages=state.stages_of(id_), created=created)
            for id_, created in entries
        )
        return Page(tuple(items))

    def promote(self, name: str, version: str, *, if_match: Token | None) -> None:
        """Move AWSCURRENT in one call; AWSPREVIOUS follows by itself. Then the version is no longer AWSPENDING."""
        for attempt in range(_ATTEMPTS):
            state = self._living(name)
            current = state.stages.get("current")
            if current == version:
                break
            if if_match is not None and state.token != if_match:
                raise _failure("PreconditionFailed", "the secret was changed")
            if version not in state.stages.values() and version not in self._versions(name):
                raise _failure("ResourceNotFoundException", "no such version")
            move: _Arguments = {"MoveToVersionId": version} | ({"RemoveFromVersionId": current} if current else {})
            try:
                self.client.update_secret_version_stage(SecretId=name, VersionStage="AWSCURRENT", **move)
            except ClientError as exc:  # another writer moved it since, or our own first attempt did
                if _code(exc) != "InvalidParameterException" or attempt == _ATTEMPTS - 1:
                    raise
            else:
                break
        if state.stages.get("pending") == version:
            self.client.update_secret_version_stage(
                SecretId=name, VersionStage="AWSPENDING", RemoveFromVersionId=version
            )

    def delete(self, name: str, *, recovery: timedelta | None) -> None:
        """Delete a secret, for good or with a recovery of whole days."""
        if recovery is None:
            self._state(name)  # AWS does not say that there was none
            self.client.delete_secret(SecretId=name, ForceDeleteWithoutRecovery=True)
            return
        self._living(name)
        days = max(_SHORTEST_RECOVERY, math.ceil(recovery / timedelta(days=1)))
        try:
            self.client.delete_secret(SecretId=name, RecoveryWindowInDays=days)
        except ClientError as exc:  # refused because the first attempt, whose answer was lost, did it
            if _code(exc) != "InvalidRequestException" or not (_retried(exc) and self._state(name).deleted):
                raise

    def relabel(
        self,
        name: str,
        *,
        labels: Mapping[str, str] | None,
        expires: datetime | Literal["never"] | None,
        if_match: Token | None,
    ) -> None:
        """Change the secret's tags."""
        if if_match is not None:
            self._check_match(name, if_match)
        state = self._living(name)
        if expires == "never":
            if _EXPIRES_TAG in state.tags:
                self.client.untag_resource(SecretId=name, TagKeys=[_EXPIRES_TAG])
            expires = None
        self._tag(name, labels, _native_tags(labels, expires))

    def restore(self, name: str) -> None:
        """Bring back a deleted secret."""
        if self._state(name).deleted:
            self.client.restore_secret(SecretId=name)

    # reading

    def _state(self, name: str) -> _State:
        answer = self.client.describe_secret(SecretId=name)
        stages = _stages(answer.get("VersionIdsToStages", {}))
        return _State(stages, answer.get("LastChangedDate"), _tags(answer), "DeletedDate" in answer)

    def _living(self, name: str) -> _State:
        state = self._state(name)
        if state.deleted:
            raise _failure("ResourceNotFoundException", "the secret is deleted; it can still be restored")
        return state

    def _value(self, name: str, how: Mapping[str, Any]) -> _Value | None:
        """Return a version's value; ``None`` if there is no such version or secret."""
        try:
            answer = self.client.get_secret_value(SecretId=name, **how)
        except ClientError as exc:
            if _code(exc) == "ResourceNotFoundException":
                return None
            if _code(exc) == "InvalidRequestException" and self._state(name).deleted:  # since it was found alive
                return None
            raise
        value = answer["SecretString"] if "SecretString" in answer else answer["SecretBinary"]
        return _Value(answer["VersionId"], Masked(value), answer["CreatedDate"])

    def _versions(self, name: str) -> dict[str, datetime]:
        """Return all versions and when they were made."""
        found: dict[str, datetime] = {}
        arguments: _Arguments = {"IncludeDeprecated": True, "MaxResults": _PAGE}
        while True:
            answer = self.client.list_secret_version_ids(SecretId=name, **arguments)
            found |= {entry["VersionId"]: entry["CreatedDate"].astimezone(UTC) for entry in answer.get("Versions", ())}
            if not answer.get("NextToken"):
                return found
            arguments["NextToken"] = answer["NextToken"]

    def _secret(self, name: str, state: _State, found: _Value) -> Secret:
        return Secret(
            name=name,
            value=found.value,
            version=found.version,
            stages=state.stages_of(found.version),
            token=state.token,
            created=_utc(found.created),
            labels=state.labels,
            expires=state.expires,
        )

    # writing

    def _check_match(self, name: str, if_match: Token) -> None:
        state = self._state(name)
        if state.deleted:
            raise _failure("InvalidRequestException", "the secret is deleted; restore it, or purge it")
        if state.token != if_match:
            raise _failure("PreconditionFailed", "the secret was changed")

    def _put(self, write: _Write, stage: Stage) -> None:
        self.client.put_secret_value(SecretId=write.name, VersionStages=[_NATIVE[stage]], **write.content)

    def _create(self, write: _Write) -> None:
        self.client.create_secret(Name=write.name, Tags=write.tags, **write.content)

    def _create_absent(self, write: _Write) -> None:
        try:
            self._create(write)
        except ClientError as exc:
            if _code(exc) != "ResourceExistsException":
                raise
            raise _failure("PreconditionFailed", "the secret exists") from exc

    def _put_or_create(self, write: _Write) -> bool:
        """Put a current version, and make the secret if there is none; tell whether it was made."""
        for _ in range(_ATTEMPTS):
            try:
                self._put(write, "current")
            except ClientError as exc:
                if _code(exc) != "ResourceNotFoundException":
                    raise
            else:
                return False
            try:
                self._create(write)
            except ClientError as exc:
                if _code(exc) != "ResourceExistsException":  # else somebody made it since
                    raise
            else:
                return True
        raise _failure("InvalidRequestException", "the secret is made and deleted faster than it can be written")

    def _tag(self, name: str, labels: Mapping[str, str] | None, tags: _Tags) -> None:
        """Add tags, and remove those of labels that are no longer wanted; ``None`` leaves them all."""
        if labels is not None:
            surplus = [key for key in self._state(name).labels if key not in labels]
            if surplus:  # before the new ones: both together may be more than AWS allows
                self.client.untag_resource(SecretId=name, TagKeys=surplus)
        if tags:
            self.client.tag_resource(SecretId=name, Tags=tags)


def _stages(labels: Mapping[str, Any]) -> dict[Stage, str]:
    """Turn version → labels into stage → version. What is current is no longer pending, whatever a label still says."""
    found = {_LABELS[label]: version for version, given in labels.items() for label in given if label in _LABELS}
    if found.get("pending") == found.get("current"):
        found.pop("pending", None)
    return found


def _info(entry: Mapping[str, Any]) -> SecretInfo:
    tags = _tags(entry)
    return SecretInfo(
        name=entry["Name"],
        version=_stages(entry.get("SecretVersionsToStages", {})).get("current"),
        modified=_utc(entry.get("LastChangedDate")),
        labels=_labels(tags),
        expires=_expires(tags),
        deleted=_utc(entry.get("DeletedDate")),
    )


def _tags(answer: Mapping[str, Any]) -> dict[str, str]:
    return {tag["Key"]: tag["Value"] for tag in answer.get("Tags") or ()}


def _labels(tags: Mapping[str, str]) -> dict[str, str]:
    return {key: value for key, value in tags.items() if key != _EXPIRES_TAG and not key.startswith("aws:")}


def _expires(tags: Mapping[str, str]) -> datetime | None:
    try:
        found = datetime.fromisoformat(tags.get(_EXPIRES_TAG, ""))
    except ValueError:  # absent, or somebody else wrote it
        return None
    return found.astimezone(UTC) if found.tzinfo else None


def _native_tags(labels: Mapping[str, str] | None, expires: datetime | None) -> _Tags:
    tags = dict(labels or {})
    if expires is not None:
        tags[_EXPIRES_TAG] = expires.strftime("%Y-%m-%dT%H:%M:%SZ")
    return [{"Key": key, "Value": value} for key, value in tags.items()]


def _utc(moment: datetime | None) -> datetime | None:
    return moment.astimezone(UTC) if moment else None


def _code(exc: ClientError) -> str:
    return exc.response.get("Error", {}).get("Code", "")


def _retried(exc: ClientError) -> bool:
    return exc.response.get("ResponseMetadata", {}).get("RetryAttempts", 0) > 0


def _failure(code: str, message: str) -> ClientError:
    """Return what the service would answer."""
    return ClientError({"Error": {"Code": code, "Message": message}}, "shiftable")

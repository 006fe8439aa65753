"""What AWS Secrets Manager does and moto 5.2 does not: limits, states, times, and the defects around stages."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

from moto.backends import get_backend
from moto.core.models import DEFAULT_ACCOUNT_ID

from shiftable.testing.harness import Clock, Headers, Response
from shiftable_aws._signatures import Refusal

__all__ = ["StrictSecrets", "json_error"]

_NAME = re.compile(r"[A-Za-z0-9/_+=.@!-]+")
_MAX_VALUE = 65_536
_MAX_STAGES = 20
_MAX_VERSIONS = 100
_MAX_TAGS = 50
_DEPRECATED_AFTER = timedelta(hours=24)
_REFUSED_WHEN_DELETED = {
    "GetSecretValue",
    "PutSecretValue",
    "TagResource",
    "UntagResource",
    "UpdateSecret",
    "UpdateSecretVersionStage",
}
_WRITES = {"CreateSecret", "PutSecretValue", "UpdateSecret"}

Arguments = Mapping[str, Any]


class _Refused(Exception):
    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.refusal = Refusal(code, message, 400)


def json_error(refusal: Refusal) -> Response:
    """Answer as services with a JSON protocol do: whatever it is, the status is 400."""
    body = json.dumps({"__type": refusal.code, "message": refusal.message}).encode()
    headers = Headers({"Content-Type": "application/x-amz-json-1.1", "x-amzn-RequestId": "double-request"})
    return Response("400 Bad Request", headers, body)


class StrictSecrets:
    """Stands in front of moto, sees each request to Secrets Manager first and the state afterwards.

    Not for use from several threads at once.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._gone_at: dict[str, datetime] = {}  # ARN → when a scheduled deletion happens
        self._last = 0.0

    def forget(self) -> None:
        """Forget all scheduled deletions, and the time: the clock may have been set back."""
        self._gone_at.clear()
        self._last = 0.0

    def answer(self, operation: str, region: str, body: bytes, forward: Callable[[], Response]) -> Response:
        """Refuse what AWS refuses, answer what moto cannot, and repair what moto leaves behind."""
        backend: Any = get_backend("secretsmanager")[DEFAULT_ACCOUNT_ID][region]
        arguments: Arguments = json.loads(body or b"{}")
        self._purge(backend)
        secret = backend.secrets.get(arguments.get("SecretId") or arguments.get("Name") or "")
        before = {version: _content(entry) for version, entry in secret.versions.items()} if secret else {}
        try:
            self._check(operation, arguments, secret)
            if operation == "ListSecretVersionIds":
                return self._versions(arguments, secret)
        except _Refused as exc:
            return json_error(exc.refusal)
        response = forward()
        if response.code >= 400:
            return Response("400 Bad Request", response.headers, response.body)
        secret = backend.secrets.get(arguments.get("SecretId") or arguments.get("Name") or "") or secret
        self._repair(operation, arguments, secret, before)
        return response

    # before

    def _check(self, operation: str, arguments: Arguments, secret: Any) -> None:  # noqa: ANN401  moto has no types
        if operation in _WRITES:
            _check_value(arguments)
        if operation == "CreateSecret":
            _check_name(arguments.get("Name", ""))
            if secret is not None and secret.is_deleted():
                _refuse(
                    "You can't create this secret because a secret with this name is already scheduled for deletion."
                )
        if operation in {"CreateSecret", "TagResource"}:
            _check_tags(arguments, secret)
        if operation in _REFUSED_WHEN_DELETED and secret is not None and secret.is_deleted():
            _refuse("You can't perform this operation on the secret because it was marked for deletion.")
        if operation == "PutSecretValue":
            _check_put(arguments, secret)
        if operation == "UpdateSecretVersionStage" and secret is not None:
            _check_move(arguments, secret)

    # instead

    def _versions(self, arguments: Arguments, secret: Any) -> Response:  # noqa: ANN401
        """List versions in pages, with their own times, deprecated ones on demand: moto does none of it."""
        if secret is None:
            raise _Refused("ResourceNotFoundException", "Secrets Manager can't find the specified secret.")
        entries = [
            {"VersionId": version, "VersionStages": entry["version_stages"], "CreatedDate": entry["createdate"]}
            for version, entry in secret.versions.items()
            if entry["version_stages"] or arguments.get("IncludeDeprecated")
        ]
        start = int(arguments.get("NextToken") or 0)
        stop = start + int(arguments.get("MaxResults") or _MAX_VERSIONS)
        answer: dict[str, Any] = {"ARN": secret.arn, "Name": secret.name, "Versions": entries[start:stop]}
        if stop < len(entries):
            answer["NextToken"] = str(stop)
        headers = Headers({"Content-Type": "application/x-amz-json-1.1", "x-amzn-RequestId": "double-request"})
        return Response("200 OK", headers, json.dumps(answer).encode())

    # after

    def _repair(self, operation: str, arguments: Arguments, secret: Any, before: Mapping[str, Any]) -> None:  # noqa: ANN401
        if secret is None:
            return
        for version, entry in secret.versions.items():
            if version not in before:
                entry["createdate"] = self._moment()  # moto's are whole seconds: versions could not be told apart
            entry["version_stages"] = list(dict.fromkeys(entry["version_stages"]))
        if operation == "UpdateSecretVersionStage":  # moto goes on to take the old version for the current one
            secret.set_default_version_id(_holder(secret, "AWSCURRENT"))
        if operation in _WRITES | {"UpdateSecretVersionStage", "TagResource", "UntagResource"}:
            secret.last_changed_date = self._moment()
            self._prune(secret)
        if operation == "DeleteSecret" and not arguments.get("ForceDeleteWithoutRecovery"):
            now = self._clock.now()
            secret.deleted_date = now.timestamp()
            self._gone_at[secret.arn] = now + timedelta(days=arguments.get("RecoveryWindowInDays") or 30)
        if operation in {"DeleteSecret", "RestoreSecret"} and not secret.is_deleted():
            self._gone_at.pop(secret.arn, None)

    def _purge(self, backend: Any) -> None:  # noqa: ANN401
        """Carry out the deletions whose window is over."""
        for arn in [arn for arn, at in self._gone_at.items() if at <= self._clock.now()]:
            if arn in backend.secrets:
                backend.secrets.pop(arn)
                del self._gone_at[arn]

    def _prune(self, secret: Any) -> None:  # noqa: ANN401
        """Drop versions without a stage when there are more than a hundred; the last day's stay."""
        old = (self._clock.now() - _DEPRECATED_AFTER).timestamp()
        surplus = len(secret.versions) - _MAX_VERSIONS
        for version, entry in list(secret.versions.items()):
            if surplus > 0 and not entry["version_stages"] and entry["createdate"] < old:
                del secret.versions[version]
                surplus -= 1

    def _moment(self) -> float:
        """Return the time; never the same twice, so that an order of creation can be told."""
        self._last = max(self._clock.now().timestamp(), self._last + 0.001)
        return self._last


def _refuse(message: str) -> None:
    raise _Refused("InvalidRequestException", message)


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        text = (
            "Invalid name. Must be a valid name containing alphanumeric characters, or any of the following: -/_+=.@!"
        )
        raise _Refused("ValidationException", text)
    if len(name) > 512:
        raise _Refused("ValidationException", "Value at 'name' must have length less than or equal to 512")


def _check_value(arguments: Arguments) -> None:
    text, binary = arguments.get("SecretString"), arguments.get("SecretBinary")
    if text is not None and binary is not None:
        raise _Refused("InvalidParameterException", "You can't specify both SecretString and SecretBinary.")
    for name, size in (
        ("secretString", None if text is None else len(text.encode())),
        ("secretBinary", None if binary is None else len(base64.b64decode(binary))),
    ):
        if size is not None and not 1 <= size <= _MAX_VALUE:
            bound = "less than or equal to 65536" if size else "greater than or equal to 1"
            raise _Refused("ValidationException", f"Value at '{name}' must have length {bound}")


def _check_tags(arguments: Arguments, secret: Any) -> None:  # noqa: ANN401
    present = {tag["Key"] for tag in (secret.tags or [])} if secret is not None else set()
    added = {tag["Key"] for tag in arguments.get("Tags") or []}
    if len(present | added) > _MAX_TAGS:
        raise _Refused("InvalidParameterException", f"A secret can have at most {_MAX_TAGS} tags.")
    if any(key.lower().startswith("aws:") for key in added):
        raise _Refused("InvalidParameterException", "Tag keys can't begin with aws:.")


def _check_put(arguments: Arguments, secret: Any) -> None:  # noqa: ANN401
    stages = arguments.get("VersionStages") or ["AWSCURRENT"]
    if len(stages) > _MAX_STAGES:
        raise _Refused("LimitExceededException", f"A version can have at most {_MAX_STAGES} staging labels.")
    token = arguments.get("ClientRequestToken")
    known = secret.versions.get(token) if secret is not None else None
    if known is not None and _content(known) not in {(None, None), _content_of(arguments)}:
        text = (
            f"You can't use ClientRequestToken {token} because that value is already in use for a version of a secret."
        )
        raise _Refused("ResourceExistsException", text)


def _check_move(arguments: Arguments, secret: Any) -> None:  # noqa: ANN401
    stage = arguments["VersionStage"]
    holder, target = _holder(secret, stage), arguments.get("MoveToVersionId")
    if holder and holder != target and arguments.get("RemoveFromVersionId") != holder:
        text = f"The staging label {stage} is attached to version {holder}; name it in RemoveFromVersionId."
        raise _Refused("InvalidParameterException", text)
    if target in secret.versions and len(secret.versions[target]["version_stages"]) >= _MAX_STAGES:
        raise _Refused("LimitExceededException", f"A version can have at most {_MAX_STAGES} staging labels.")


def _holder(secret: Any, stage: str) -> str | None:  # noqa: ANN401
    return next((version for version, entry in secret.versions.items() if stage in entry["version_stages"]), None)


def _content(entry: Mapping[str, Any]) -> tuple[Any, Any]:
    return entry.get("secret_string"), entry.get("secret_binary")


def _content_of(arguments: Arguments) -> tuple[Any, Any]:
    return arguments.get("SecretString"), arguments.get("SecretBinary")

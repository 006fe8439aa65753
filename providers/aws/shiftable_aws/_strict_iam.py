"""What IAM does with access keys and moto does not: at most two of a user, and a note of when one was used."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from urllib.parse import parse_qs

from moto.backends import get_backend
from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.iam.models import AccessKeyLastUsed

from shiftable.testing.harness import Headers, Response

__all__ = ["refusal", "used"]

_MOST = 2


def used(access_key: str, now: datetime) -> Any:  # noqa: ANN401  moto's own
    """Return the access key of a user, and note that it was used; ``None`` if no user has it."""
    for user in _users().values():
        for key in user.access_keys:
            if key.access_key_id == access_key:
                if key.status == "Active":
                    key.last_used = AccessKeyLastUsed(now, "sts", "us-east-1")
                return key
    return None


def refusal(body: bytes) -> Response | None:
    """Refuse a third key."""
    form = {name: values[0] for name, values in parse_qs(body.decode("utf-8", "replace")).items()}
    user = _users().get(form.get("UserName", ""))
    if form.get("Action") != "CreateAccessKey" or user is None or len(user.access_keys) < _MOST:
        return None
    told = f"<Code>LimitExceeded</Code><Message>Cannot exceed quota for AccessKeysPerUser: {_MOST}</Message>"
    text = f"<ErrorResponse><Error>{told}</Error><RequestId>double-request</RequestId></ErrorResponse>"
    return Response("409 Conflict", Headers({"Content-Type": "text/xml"}), text.encode())


def _users() -> dict[str, Any]:
    found: dict[str, Any] = get_backend("iam")[DEFAULT_ACCOUNT_ID]["aws"].users
    return found

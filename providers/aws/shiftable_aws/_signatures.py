"""Check the signatures of requests at the double, by botocore's own signers: moto believes everybody."""

from __future__ import annotations

import hmac
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from urllib.parse import parse_qsl

import attrs
from botocore.auth import S3SigV4Auth, S3SigV4QueryAuth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from shiftable.testing.harness import Request

__all__ = ["Refusal", "refusal", "scope_of"]

Keys = Callable[[str], Credentials | None]

_PREFIX = "AWS4-HMAC-SHA256 "


@attrs.frozen
class Refusal:
    """What the service would say to this request."""

    code: str
    message: str
    status: int = 403


@attrs.frozen
class Scope:
    """Who signs, for what: ``AKIA…/20261121/eu-central-1/s3/aws4_request``."""

    key: str
    region: str
    service: str


def scope_of(request: Request) -> Scope | None:
    """Read the scope of a request; ``None`` if it is anonymous."""
    credential = _authorization(request).get("Credential") or _query(request).get("X-Amz-Credential", "")
    key, _, rest = credential.partition("/")
    parts = rest.split("/")
    if len(parts) == 4:
        return Scope(key, parts[1], parts[2])
    key = _query(request).get("AWSAccessKeyId", "")
    return Scope(key, "", "s3") if key else None


def refusal(request: Request, keys: Keys, now: datetime) -> Refusal | None:
    """Say why the service would not serve this request; ``None`` if it would.

    Args:
        keys: the credentials of an access key, if it is known.
    """
    scope = scope_of(request)
    if scope is None:
        anonymous_read = request.method in {"GET", "HEAD"}  # moto knows public objects
        return None if anonymous_read else Refusal("AccessDenied", "Access Denied")
    credentials = keys(scope.key)
    if credentials is None:
        return Refusal("InvalidAccessKeyId", "The AWS Access Key Id you provided does not exist in our records.")
    query = _query(request)
    token = query.get("X-Amz-Security-Token") or query.get("x-amz-security-token")
    if credentials.token and credentials.token != (token or request.headers.get("X-Amz-Security-Token")):
        return Refusal("InvalidToken", "The provided token is malformed or otherwise invalid.", 400)
    if "X-Amz-Signature" in query:
        return _presigned(request, query, scope, credentials, now)
    if "AWSAccessKeyId" in query:  # signature version 2: regions opened after 2013 never knew it
        text = "The authorization mechanism you have provided is not supported. Please use AWS4-HMAC-SHA256."
        return Refusal("InvalidRequest", text, 400)
    return _signed(request, scope, credentials)


def _signed(request: Request, scope: Scope, credentials: Credentials) -> Refusal | None:
    given = _authorization(request)
    signer = S3SigV4Auth if scope.service == "s3" else SigV4Auth
    made = _signature(signer(credentials, scope.service, scope.region), request, given["SignedHeaders"], _date(request))
    if not hmac.compare_digest(made, given["Signature"]):
        return _mismatch()
    digest = request.headers.get("X-Amz-Content-SHA256", "")
    if len(digest) == 64 and digest != sha256(request.body).hexdigest():
        text = "The provided 'x-amz-content-sha256' header does not match what was computed."
        return Refusal("XAmzContentSHA256Mismatch", text, 400)
    return None


def _presigned(
    request: Request, query: dict[str, str], scope: Scope, credentials: Credentials, now: datetime
) -> Refusal | None:
    date = query["X-Amz-Date"]
    signed = datetime.strptime(date, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    if now > signed + timedelta(seconds=int(query["X-Amz-Expires"])):
        return Refusal("AccessDenied", "Request has expired")
    signer = S3SigV4QueryAuth(credentials, scope.service, scope.region)
    made = _signature(signer, request, query["X-Amz-SignedHeaders"], date)
    return None if hmac.compare_digest(made, query["X-Amz-Signature"]) else _mismatch()


def _signature(signer: SigV4Auth, request: Request, signed_headers: str, date: str) -> str:
    made = _aws_request(request, signed_headers.split(";"))
    made.context["timestamp"] = date
    return str(signer.signature(signer.string_to_sign(made, signer.canonical_request(made)), made))


def _aws_request(request: Request, signed: list[str]) -> AWSRequest:
    path, _, query = request.target.partition("?")
    kept = "&".join(part for part in query.split("&") if part.partition("=")[0] != "X-Amz-Signature")
    headers = {name: ",".join(request.headers.getlist(name)) for name in signed if name in request.headers}
    return AWSRequest(
        method=request.method,
        url=f"http://{request.host}{path}{'?' if kept else ''}{kept}",
        headers=headers,
        data=request.body,
    )


def _authorization(request: Request) -> dict[str, str]:
    value = request.headers.get("Authorization", "")
    if not value.startswith(_PREFIX):
        return {}
    pairs = (part.strip().partition("=") for part in value.removeprefix(_PREFIX).split(","))
    return {name: text for name, _, text in pairs}


def _date(request: Request) -> str:
    return str(request.headers.get("X-Amz-Date", ""))


def _query(request: Request) -> dict[str, str]:
    return dict(parse_qsl(request.query, keep_blank_values=True))


def _mismatch() -> Refusal:
    text = "The request signature we calculated does not match the signature you provided."
    return Refusal("SignatureDoesNotMatch", text)

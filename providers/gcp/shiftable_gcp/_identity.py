"""One service account of the double: its key, the tokens that it gets, the URLs that it signs."""

from __future__ import annotations

import base64
import binascii
import functools
import hashlib
import json
import re
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl, quote

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from shiftable.testing.harness import Headers, Request, Response
from shiftable_gcp._state import Refused

__all__ = ["Account"]

_GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
_AUDIENCE = "https://oauth2.googleapis.com/token"  # whatever the key's token_uri is
_LIFETIME = timedelta(hours=1)
_LONGEST = timedelta(days=7)
_SIGNATURE = "X-Goog-Signature"


class Account:
    """The one service account that exists."""

    def __init__(self, project: str) -> None:
        self.email = f"double@{project}.iam.gserviceaccount.com"
        self._project = project
        self._tokens: set[str] = set()
        self.latest = ""
        """The token that was made last."""

    def key(self, url: str) -> dict[str, str]:
        """Return the JSON key, as Google gives it for download, of an account whose tokens come from ``url``."""
        private = _key().private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return {
            "type": "service_account",
            "project_id": self._project,
            "private_key_id": "double",
            "private_key": private.decode(),
            "client_email": self.email,
            "client_id": "1",
            "token_uri": f"{url}/token",
        }

    def token(self, request: Request, now: datetime) -> Response:
        """Give a token for an assertion that is signed with the key."""
        form = dict(parse_qsl(request.body.decode()))
        try:
            head, body, signature = form.get("assertion", "").split(".")
            claims = json.loads(_decoded(body))
            _verify(_decoded(signature), f"{head}.{body}".encode())
            expires = datetime.fromtimestamp(claims["exp"], UTC)
        except (ValueError, KeyError, InvalidSignature):
            return _answer(400, {"error": "invalid_grant", "error_description": "Invalid JWT Signature."})
        if form.get("grant_type") != _GRANT or claims.get("iss") != self.email or claims.get("aud") != _AUDIENCE:
            return _answer(400, {"error": "invalid_grant", "error_description": "Invalid JWT: not for this issuer."})
        if expires < now:
            return _answer(400, {"error": "invalid_grant", "error_description": "Invalid JWT: expired."})
        made = self.make_token()
        seconds = int(_LIFETIME.total_seconds())
        return _answer(200, {"access_token": made, "expires_in": seconds, "token_type": "Bearer"})

    def make_token(self) -> str:
        """Return a token that is good for everything."""
        made = f"ya29.{uuid.uuid4().hex}"
        self._tokens.add(made)
        self.latest = made
        return made

    def sign(self, request: Request, *, permitted: bool) -> Response:
        """Sign what is sent, as the IAM Credentials API does."""
        stated = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if stated not in self._tokens:
            return _failed(401, "UNAUTHENTICATED", "Request had invalid authentication credentials.")
        if not permitted or request.path != f"/v1/projects/-/serviceAccounts/{self.email}:signBlob":
            why = "Permission 'iam.serviceAccounts.signBlob' denied on resource (or it may not exist)."
            return _failed(403, "PERMISSION_DENIED", why)
        payload = base64.b64decode(json.loads(request.body)["payload"])
        signature = _key().sign(payload, padding.PKCS1v15(), hashes.SHA256())
        return _answer(200, {"keyId": "double", "signedBlob": base64.b64encode(signature).decode()})

    def refusal(self, request: Request, now: datetime) -> Refused | None:
        """Say why a request is not served; ``None`` if it is."""
        query = dict(parse_qsl(request.query, keep_blank_values=True))
        if _SIGNATURE in query:
            return self._unsigned(request, query, now)
        stated = request.headers.get("Authorization")
        if stated is None or stated.removeprefix("Bearer ") in self._tokens:
            return None
        return Refused(401, "authError", "AuthenticationRequired", "Invalid Credentials")

    def _unsigned(self, request: Request, query: dict[str, str], now: datetime) -> Refused | None:
        """Compare a V4 signature."""
        try:
            signed = datetime.strptime(query["X-Goog-Date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
            lifetime = timedelta(seconds=int(query["X-Goog-Expires"]))
            account, scope = query["X-Goog-Credential"].split("/", 1)
            signature = binascii.unhexlify(query[_SIGNATURE])
            wanted = query["X-Goog-SignedHeaders"].split(";")
        except (KeyError, ValueError):
            return Refused(400, "invalid", "InvalidArgument", "Invalid argument.")
        if lifetime > _LONGEST:
            return Refused(400, "invalid", "InvalidArgument", "X-Goog-Expires must be at most 604800 seconds.")
        if not signed - timedelta(minutes=15) <= now <= signed + lifetime:
            return Refused(400, "expired", "ExpiredToken", "The provided token has expired.")
        if query.get("X-Goog-Algorithm") != "GOOG4-RSA-SHA256" or account != self.email:
            return Refused(403, "forbidden", "SignatureDoesNotMatch", "Access denied.")
        canonical = hashlib.sha256(_canonical(request, wanted).encode()).hexdigest()
        text = "\n".join(["GOOG4-RSA-SHA256", query["X-Goog-Date"], scope, canonical])
        try:
            _verify(signature, text.encode())
        except InvalidSignature:
            message = "Access denied. The request signature we calculated does not match the signature you provided."
            return Refused(403, "forbidden", "SignatureDoesNotMatch", message)
        return None


def _canonical(request: Request, wanted: list[str]) -> str:
    """Write a request as V4 signing defines it."""
    path, _, query = request.target.partition("?")
    pairs = sorted(pair for pair in parse_qsl(query, keep_blank_values=True) if pair[0] != _SIGNATURE)
    encoded = "&".join(f"{quote(name, safe='~')}={quote(value, safe='~')}" for name, value in pairs)
    headers = "".join(
        f"{name}:{re.sub(r' +', ' ', ','.join(request.headers.getlist(name)).strip())}\n" for name in wanted
    )
    return "\n".join([request.method, path, encoded, headers, ";".join(wanted), "UNSIGNED-PAYLOAD"])


def _verify(signature: bytes, text: bytes) -> None:
    _key().public_key().verify(signature, text, padding.PKCS1v15(), hashes.SHA256())


@functools.cache
def _key() -> rsa.RSAPrivateKey:
    """Make one key for the process: it takes a tenth of a second."""
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def _decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _failed(status: int, name: str, message: str) -> Response:
    return _answer(status, {"error": {"code": status, "status": name, "message": message}})


def _answer(status: int, value: dict[str, Any]) -> Response:
    headers = Headers({"Content-Type": "application/json"})
    return Response(f"{status} Answered", headers, json.dumps(value).encode())

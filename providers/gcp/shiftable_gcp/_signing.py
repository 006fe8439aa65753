"""Signatures in the name of a service account, with its key or through IAM."""

from __future__ import annotations

import base64

from google.auth.credentials import Signing
from google.auth.crypt import Signer
from google.auth.transport.requests import Request

from shiftable_gcp._rest import Rest
from shiftable_gcp._session import Session, Untyped

__all__ = ["HOST", "account_of", "signing"]

HOST = "https://iamcredentials.googleapis.com"


class _IamSigner(Signer):
    """Has IAM sign with a key that Google alone holds: one call for each signature."""

    def __init__(self, rest: Rest, email: str) -> None:
        self._rest = rest
        self._email = email

    @property
    def key_id(self) -> None:
        """IAM chooses the key."""

    def sign(self, message: bytes | str) -> bytes:
        data = message.encode() if isinstance(message, str) else message
        path = f"/v1/projects/-/serviceAccounts/{self._email}:signBlob"
        answer = self._rest.call("POST", path, body={"payload": base64.b64encode(data).decode()})
        return base64.b64decode(answer["signedBlob"])


class _ByIam(Signing):
    """What the SDK takes for credentials with a key."""

    def __init__(self, rest: Rest, email: str) -> None:
        self._email = email
        self._signer = _IamSigner(rest, email)

    @property
    def signer_email(self) -> str:
        return self._email

    @property
    def signer(self) -> Signer:
        return self._signer

    def sign_bytes(self, message: bytes) -> bytes:
        return self._signer.sign(message)


def signing(session: Session) -> Signing | None:
    """Return what signs URLs: the account of ``sign_as`` through IAM, the credentials' own key, or their account.

    ``None`` where the credentials belong to a person, and ``sign_as`` names no account.
    """
    credentials = session.transport.credentials
    if session.sign_as is None and isinstance(credentials, Signing):
        return credentials
    email = session.sign_as or account_of(credentials)
    return _ByIam(Rest(session, HOST), email) if email else None


def account_of(credentials: Untyped) -> str | None:
    """Return the account of credentials from a machine or a federation; a machine's tells it with its first token."""
    if getattr(credentials, "service_account_email", None) == "default":
        credentials.refresh(Request())
    found = getattr(credentials, "service_account_email", None)
    return found if isinstance(found, str) and "@" in found else None

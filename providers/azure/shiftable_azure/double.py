"""A stand-in for Azure on loopback: Blob Storage in memory, behind the harness."""

from __future__ import annotations

import threading
from typing import Any, ClassVar
from urllib.parse import urlsplit, urlunsplit
from wsgiref.types import WSGIEnvironment

from azure.core.pipeline.transport import RequestsTransport

from shiftable.config import Credential
from shiftable.testing.harness import Double, Request, Response
from shiftable_azure._double_auth import Keys
from shiftable_azure._double_blob import BlobService
from shiftable_azure._double_wire import Asked, Refusal, refused

__all__ = ["AzureDouble", "ToLoopback"]

_ACCOUNT = "shiftabledouble"
_ACCOUNT_KEY = "bm90LWEtc2VjcmV0LW9mLWFueWJvZHk="
_DELEGATION_KEY = "bm90LWEtZGVsZWdhdGlvbi1rZXk="
_TOKEN = "not-a-token-of-anybody"  # noqa: S105  the double's own


class AzureDouble(Double):
    """Azure in this process: Blob Storage of one account.

    Shared keys, shared access signatures and tokens are checked, signed URLs expire (by ``clock``), writes are atomic,
    listings come in the order of UTF-16 units, as Azure's do. It has block blobs alone, and neither leases nor
    snapshots. Azure publishes no definitions of the data plane in a form that bodies could be compared with, so what
    comes in is checked by the service's own rules only.

    Attributes:
        service: the state, to look behind the protocol: ``service.containers["shop"].blobs["key"].content``.
        token: what a bearer must present.
    """

    name: ClassVar[str] = "azure"
    account: ClassVar[str] = _ACCOUNT
    token: ClassVar[str] = _TOKEN

    def __init__(self) -> None:
        super().__init__(_never)
        self._state = threading.Lock()
        self.service = BlobService(Keys(_ACCOUNT, _ACCOUNT_KEY, _TOKEN, _DELEGATION_KEY), self.clock)

    @property
    def config(self) -> dict[str, Any]:
        """The settings for ``shiftable.connect("azure", **double.config)``."""
        return {
            "storage_account": _ACCOUNT,
            "endpoint": f"{self.url}/{_ACCOUNT}",
            "account_key": Credential.literal(_ACCOUNT_KEY),
        }

    @property
    def connection_string(self) -> str:
        """What any of Azure's clients takes."""
        return (
            f"DefaultEndpointsProtocol=http;AccountName={_ACCOUNT};AccountKey={_ACCOUNT_KEY};"
            f"BlobEndpoint={self.url}/{_ACCOUNT};"
        )

    @property
    def environ(self) -> dict[str, str]:
        """The environment variables that bring Azure's tools, in any process, to this double."""
        return {"AZURE_STORAGE_CONNECTION_STRING": self.connection_string}

    def identify(self, request: Request) -> tuple[str, str]:
        """Name the operation as the REST reference does."""
        try:
            return "blob", self.service.operation(Asked.read(request, _ACCOUNT))
        except Refusal:
            return "blob", ""

    def answer(self, request: Request, environ: WSGIEnvironment) -> Response:  # noqa: ARG002  the request says it all
        """Execute one request at a time, so that conditions hold."""
        with self._state:
            try:
                asked = Asked.read(request, _ACCOUNT)
            except Refusal as refusal:
                return refused(refusal)
            return self.service.execute(asked)

    def forget(self) -> None:
        """Empty the account."""
        with self._state:
            self.service.reset()


class ToLoopback(RequestsTransport):  # type: ignore[misc]  # azure-core hands it out untyped
    """Sends requests for Azure's own hosts to a double, over plain HTTP.

    The SDK sends tokens over https alone. With this transport it believes that it does: host, challenge and signatures
    are those of the real URL.

    >>> Session(settings, credential=..., transport=ToLoopback(double.url))  # doctest: +SKIP
    """

    def __init__(self, target: str, **options: Any) -> None:  # noqa: ANN401  as in azure-core
        super().__init__(**options)
        self._target = urlsplit(target)

    def send(self, request: Any, **options: Any) -> Any:  # noqa: ANN401  as in azure-core
        """Send a request to the double, and leave it as it was: retries and challenges read its URL."""
        url = request.url
        parts = urlsplit(url)
        request.headers["Host"] = parts.netloc
        request.url = urlunsplit((self._target.scheme, self._target.netloc, parts.path, parts.query, ""))
        try:
            return super().send(request, **options)
        finally:
            request.url = url


def _never(_environ: WSGIEnvironment, _start_response: object) -> list[bytes]:
    raise AssertionError("the double answers by itself")

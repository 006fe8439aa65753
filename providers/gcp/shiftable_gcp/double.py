"""A stand-in for Google Cloud on loopback: Storage, Compute Engine, Secrets, DNS and SQL, as strict as the services.

What goes over the wire is compared with Google's own descriptions of the JSON APIs; a violation fails the test.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from email.utils import format_datetime
from typing import Any, ClassVar, Self
from wsgiref.types import WSGIEnvironment

from shiftable.config import Credential
from shiftable.errors import ConfigError

try:
    from shiftable_gcp._discovery import Discovery

    _STORAGE, _SECRETS = Discovery("storage.v1"), Discovery("secretmanager.v1")
    _IAM, _DNS, _SQL = Discovery("iamcredentials.v1"), Discovery("dns.v1"), Discovery("sqladmin.v1", reasons=True)
    _COMPUTE = Discovery("compute.v1", reasons=True)
    from shiftable_gcp._cloud_dns import CloudDns
    from shiftable_gcp._cloud_sql import CloudSql
    from shiftable_gcp._compute_engine import ComputeEngine
    from shiftable_gcp._identity import Account
except ImportError as exc:
    raise ConfigError(
        f'the double of Google Cloud needs more than its driver: pip install "shiftable-gcp[testing]" ({exc})'
    ) from exc

from shiftable.testing.harness import Double, Request, Response
from shiftable_gcp._json_api import JsonApi, rendered
from shiftable_gcp._secret_manager import SecretManager
from shiftable_gcp._state import Refused, State
from shiftable_gcp._xml_api import XmlApi

__all__ = ["GcpDouble"]

_PAGE = 1000
_UPLOAD = "/upload/storage/v1/"


class GcpDouble(Double):
    """Google Cloud in this process: Storage, Compute, Secrets, DNS, SQL, and the issuer of tokens for one account.

    Callers without credentials are let in, as emulators do; a wrong token, key or signature is refused. Presigned URLs
    expire (by ``clock``), conditions hold under concurrent requests.

    Attributes:
        may_sign: whether IAM signs in the name of the service account for whoever has a token.
    """

    name: ClassVar[str] = "gcp"
    project: ClassVar[str] = "shiftable-double"
    region: ClassVar[str] = "europe-west3"

    def __init__(self) -> None:
        described = (_STORAGE, _SECRETS, _IAM, _DNS, _SQL)
        super().__init__(_never, validators=[*(each.violations for each in described), _compute_violations])
        self.may_sign = True
        self.state = State(self.clock.now)
        self._json = JsonApi(self.state, lambda: self.url)
        self._xml = XmlApi(self.state)
        self.secrets = SecretManager(self.clock.now)
        self.dns = CloudDns(self.clock.now)
        self.compute = ComputeEngine(self.clock.now, read=self.state.read)
        self._account = Account(self.project)
        self.sql = CloudSql(self.clock.now, token=lambda: self._account.latest)

    @property
    def config(self) -> dict[str, Any]:
        """The settings for ``shiftable.connect("gcp", **double.config)``, with little patience: five seconds."""
        return {
            "project": self.project,
            "region": self.region,
            "endpoint": self.url,
            "service_account": Credential.literal(json.dumps(self._account.key(self.url))),
            "retry_seconds": 5.0,
        }

    @property
    def environ(self) -> dict[str, str]:
        """The environment variables that bring any client of Cloud Storage, in any process, to this double."""
        return {"STORAGE_EMULATOR_HOST": self.url, "GOOGLE_CLOUD_PROJECT": self.project}

    @property
    def page_size(self) -> int:
        """How much a page of a listing holds at most; set it to have small pages."""
        return self._json.page_size

    @page_size.setter
    def page_size(self, size: int) -> None:
        self._json.page_size = self._xml.page_size = self.secrets.page_size = self.dns.page_size = size
        self.sql.page_size = self.compute.page_size = size

    @property
    def rewrite_bytes(self) -> int | None:
        """How many bytes one call of a rewrite copies; ``None``: all."""
        return self._json.rewrite_bytes

    @rewrite_bytes.setter
    def rewrite_bytes(self, size: int | None) -> None:
        self._json.rewrite_bytes = size

    @property
    def email(self) -> str:
        """The service account that exists."""
        return self._account.email

    def make_token(self) -> str:
        """Return an access token without a key, as people and machines have."""
        return self._account.make_token()

    def limit_writes(self) -> None:
        """From now on refuse a second write to one object within a second, as Cloud Storage does."""
        self.state.writes_limited = True

    def limit_secrets(self, *, access: int = 90_000, read: int = 600, write: int = 600) -> None:
        """From now on refuse more calls to Secret Manager in one minute of ``clock``, as it does."""
        self.secrets.quotas |= {"access": access, "read": read, "write": write}

    def identify(self, request: Request) -> tuple[str, str]:
        """Name the method of the JSON API, by its id in Google's description."""
        if _of_compute(request):
            found = _COMPUTE.method(request.method, request.target)
            return "compute", found.id if found else ""
        if _of_iam(request):
            found = _IAM.method(request.method, request.target)
            return "iamcredentials", found.id if found else ""
        if _of_sql(request):
            found = _SQL.method(request.method, request.target)
            return "sql", found.id if found else ""
        if _of_secrets(request):
            found = _SECRETS.method(request.method, request.target)
            return "secretmanager", found.id if found else ""
        if _of_dns(request):
            found = _DNS.method(request.method, request.target)
            return "dns", found.id if found else ""
        method = _STORAGE.method(request.method, request.target)
        return "storage", method.id if method else "batch" if request.path.startswith("/batch/") else "xml"

    def answer(self, request: Request, environ: WSGIEnvironment) -> Response:  # noqa: ARG002  there is no application
        """Check who asks, then execute, one request at a time, so that conditions hold."""
        response = self._answered(request)
        response.headers["Date"] = format_datetime(self.clock.now(), usegmt=True)
        return response

    def forget(self) -> None:
        """Delete all buckets, machines, secrets, zones and databases, and return to large pages."""
        with self.state.lock:
            self.state.forget()
            self.secrets.forget()
            self.dns.forget()
            self.sql.forget()
            self.compute.forget()
            self.may_sign = True
            self._json.page_size = self._xml.page_size = _PAGE
            self._json.rewrite_bytes = None

    def start(self) -> Self:
        """Begin to listen, without any bucket, machine, secret, zone or database."""
        super().start()
        self.forget()
        return self

    def close(self) -> None:
        """Stop, with all databases that somebody connected to."""
        super().close()
        self.sql.servers.close()

    def _answered(self, request: Request) -> Response:
        if request.path == "/token":
            given = self._account.token(request, self.clock.now())
            with self.state.lock:
                self.sql.renew_tokens()
            return given
        if _of_iam(request):
            return self._account.sign(request, permitted=self.may_sign)
        refused = self._account.refusal(request, self.clock.now())
        service = self._service(request)
        if service is not None:
            with self.state.lock:
                return service.answer(request, refused)
        known = _STORAGE.method(request.method, request.target) is not None or _UPLOAD in request.path
        with self.state.lock:
            if refused is not None and request.method != "OPTIONS":  # browsers sign nothing
                return rendered(refused) if known else self._xml.refuse(refused)
            if request.method == "POST" and request.path == "/batch/storage/v1":
                return self._json.batch(request)
            response = self._json.answer(request)
            if response is None:
                missing = Refused(501, "notImplemented", "NotImplemented", "not in the double")
                response = rendered(missing) if known else self._xml.answer(request)
        return response

    def _service(self, request: Request) -> ComputeEngine | CloudSql | CloudDns | SecretManager | None:
        """Return the service that a request is for; of storage, none."""
        if _of_compute(request):
            return self.compute
        if _of_sql(request):
            return self.sql
        if _of_dns(request):
            return self.dns
        return self.secrets if _of_secrets(request) else None


def _of_iam(request: Request) -> bool:
    return request.path.startswith("/v1/projects/-/serviceAccounts/")


def _of_secrets(request: Request) -> bool:
    return request.target.startswith("/v1/projects/") and not _of_iam(request)


def _of_sql(request: Request) -> bool:
    return _SQL.method(request.method, request.target) is not None


def _of_compute(request: Request) -> bool:
    return request.target.startswith("/compute/v1/")


def _compute_violations(request: Request, response: Response) -> Iterable[str]:
    """Look at what is Compute Engine's only: it has a thousand methods."""
    return _COMPUTE.violations(request, response) if _of_compute(request) else ()


def _of_dns(request: Request) -> bool:
    return request.target.startswith("/dns/v1/")


def _never(_environ: WSGIEnvironment, _start_response: object) -> list[bytes]:
    raise AssertionError("the double answers without an application")

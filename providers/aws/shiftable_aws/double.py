"""A stand-in for AWS on loopback: moto's server behind the harness, and the rules that moto does not keep.

S3, Secrets Manager, the zones of Route 53, the servers of RDS and the machines of EC2 are held to AWS's own rules, and
IAM where access keys are concerned; the other services are as lax as moto is.
"""

from __future__ import annotations

import functools
import threading
from typing import Any, ClassVar, Self
from wsgiref.types import WSGIEnvironment
from xml.sax.saxutils import escape

from shiftable.config import Credential
from shiftable.errors import ConfigError

try:
    import flask
    from botocore.credentials import Credentials
    from moto.backends import get_backend
    from moto.core.base_backend import BackendDict, BaseBackend
    from moto.core.models import DEFAULT_ACCOUNT_ID
    from moto.ec2.models.subnets import Subnet
    from moto.moto_api._internal.models import moto_api_backend
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
    from werkzeug.datastructures import ImmutableMultiDict
except ImportError as exc:
    raise ConfigError(f'the AWS double needs moto and flask: pip install "shiftable-aws[testing]" ({exc})') from exc

from shiftable.testing.harness import Double, Headers, Request, Response
from shiftable_aws import _strict_iam, _strict_s3
from shiftable_aws._signatures import Refusal, refusal, scope_of
from shiftable_aws._strict_dns import StrictDns
from shiftable_aws._strict_ec2 import StrictEc2
from shiftable_aws._strict_query import operation_of
from shiftable_aws._strict_rds import StrictRds
from shiftable_aws._strict_secrets import StrictSecrets, json_error

__all__ = ["AwsDouble"]

_ACCESS_KEY = "AKIASHIFTABLEDOUBLE0"
_SECRET_KEY = "not-a-secret-of-anybody"  # noqa: S105  the double's own
_JSON_CODES = {
    "AccessDenied": "AccessDeniedException",
    "InvalidAccessKeyId": "UnrecognizedClientException",
    "InvalidToken": "UnrecognizedClientException",
    "SignatureDoesNotMatch": "InvalidSignatureException",
}


def _moto(service: Any) -> flask.Flask:  # noqa: ANN401  one of a list of its own
    """Make moto's application of a service."""
    made: flask.Flask = create_backend_app(service)
    if service.startswith("s3"):
        made.before_request(_read_as_content)
    return made


def _read_as_content() -> None:
    """Keep moto from reading an object as a form because that is what it calls itself, as with many a client's PUT."""
    request = flask.request._get_current_object()  # type: ignore[attr-defined]  # noqa: SLF001  what the proxy stands for
    if request.method == "PUT":
        vars(request).update(form=ImmutableMultiDict(), files=ImmutableMultiDict())


class AwsDouble(Double):
    """AWS in this process: S3, Secrets Manager, Route 53, RDS, EC2 and whatever else moto serves.

    Signatures and access keys are checked, presigned URLs expire (by ``clock``), writes are atomic. The state is
    global to the process, as moto keeps it: only one may run at a time.

    Attributes:
        dns: Route 53, to look behind the protocol and to set how long its changes are pending.
        rds: RDS, to look behind the protocol and to set how long it takes.
        ec2: EC2, the same.
    """

    name: ClassVar[str] = "aws"
    region: ClassVar[str] = "eu-central-1"
    _runs: ClassVar[AwsDouble | None] = None

    def __init__(self) -> None:
        super().__init__(DomainDispatcherApplication(_moto), handler=MotoRequestHandler)
        self._secrets = StrictSecrets(self.clock)
        self.dns = StrictDns(self.clock)
        self.rds = StrictRds(self.clock)
        self.ec2 = StrictEc2(self.clock)
        self._state = threading.Lock()

    @property
    def config(self) -> dict[str, Any]:
        """The settings for ``shiftable.connect("aws", **double.config)``."""
        return {
            "region": self.region,
            "endpoint": self.url,
            "access_key": Credential.literal(_ACCESS_KEY),
            "secret_key": Credential.literal(_SECRET_KEY),
        }

    @property
    def environ(self) -> dict[str, str]:
        """The environment variables that bring any AWS client, in any process, to this double."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_DEFAULT_REGION": self.region,
            "AWS_ACCESS_KEY_ID": _ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": _SECRET_KEY,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def backend(self, service: str, region: str | None = None) -> Any:  # noqa: ANN401  moto's backends have no types
        """Return moto's own state of a service, to look behind the protocol: ``backend("s3").buckets``."""
        return get_backend(service)[DEFAULT_ACCOUNT_ID][region or self.region]  # type: ignore[call-overload]

    def identify(self, request: Request) -> tuple[str, str]:
        """Read the service from the signature, the operation from the target of a JSON protocol."""
        scope = scope_of(request)
        if scope is not None and scope.service == "route53":
            return scope.service, StrictDns.operation(request)
        if scope is not None and scope.service in {"rds", "ec2"}:
            return scope.service, operation_of(request.body)
        operation = request.headers.get("X-Amz-Target", "").rpartition(".")[2]
        return (scope.service if scope else "s3"), operation

    def answer(self, request: Request, environ: WSGIEnvironment) -> Response:
        """Check who asks, then let moto execute it, one request at a time, so that conditions hold."""
        if request.path.startswith("/moto-api"):
            return super().answer(request, environ)
        service, operation = self.identify(request)
        with self._state:
            refused = refusal(request, self._credentials, self.clock.now())
            if refused is not None and not (service == "s3" and request.method == "OPTIONS"):  # browsers sign nothing
                return _refused(request, refused, service)
            return self._served(service, operation, request, environ)

    def _served(self, service: str, operation: str, request: Request, environ: WSGIEnvironment) -> Response:
        forward = functools.partial(Double.answer, self, request, environ)
        if service == "s3":
            return _strict_s3.answer(request, environ, forward, self.clock.now())
        if service == "route53":
            return self.dns.answer(request, forward)
        scope = scope_of(request)
        region = scope.region if scope else self.region
        if service == "rds":
            return self.rds.answer(region, request.body, forward)
        if service == "secretsmanager":
            return self._secrets.answer(operation, region, request.body, forward)
        refused = None
        if service == "iam":
            refused = _strict_iam.refusal(request.body)
        elif service == "ec2":
            refused = self.rds.refusal(operation, region, request.body)
            return refused or self.ec2.answer(region, request.body, forward)
        return refused or forward()

    def forget(self) -> None:
        """Empty all services of all regions."""
        with self._state:
            _let_go()
            moto_api_backend.reset()
            self._secrets.forget()
            self.dns.forget()
            self.rds.forget()
            self.ec2.forget()

    def start(self) -> Self:
        """Begin to listen, with nothing in any service."""
        if AwsDouble._runs is not None:
            raise ConfigError(
                f"another AWS double runs in this process, on {AwsDouble._runs.url}; they share their state"
            )
        super().start()
        AwsDouble._runs = self
        self.forget()
        return self

    def close(self) -> None:
        """Stop. Closing twice is no error."""
        super().close()
        self.rds.private.close()
        if AwsDouble._runs is self:
            AwsDouble._runs = None

    def _credentials(self, access_key: str) -> Credentials | None:
        if access_key == _ACCESS_KEY:
            return Credentials(_ACCESS_KEY, _SECRET_KEY)
        key = _strict_iam.used(access_key, self.clock.now())
        if key is not None:
            return Credentials(access_key, key.secret_access_key) if key.status == "Active" else None
        role = get_backend("sts")[DEFAULT_ACCOUNT_ID]["aws"].get_assumed_role_from_access_key(access_key)
        return Credentials(access_key, role.secret_access_key, role.session_token) if role else None


def _let_go() -> None:
    """Let moto forget what it would make anew only to drop it, and what it would hold for ever.

    Its reset costs a twentieth of a second for each region of EC2 otherwise, and each of their subnets stays in memory
    with its whole region, 4 MB of it.
    """
    for service in tuple(getattr(BackendDict, "_instances", ())):  # there is no other list of what is used
        for account in service.values():
            for region, backend in tuple(account.items()):
                if type(backend).reset is BaseBackend.reset:  # it has nothing to close
                    del account[region]
    held = getattr(Subnet, "_base_avail_ip_iterator", None)
    if held is not None:
        held.cache_clear()


def _refused(request: Request, refused: Refusal, service: str) -> Response:
    if "X-Amz-Target" in request.headers:
        return json_error(Refusal(_JSON_CODES.get(refused.code, refused.code), refused.message))
    error = f"<Code>{refused.code}</Code><Message>{escape(refused.message)}</Message>"
    if service == "s3":
        body = f"<Error>{error}<RequestId>double-request</RequestId></Error>"
    else:
        body = f"<ErrorResponse><Error>{error}</Error><RequestId>double-request</RequestId></ErrorResponse>"
    headers = Headers({"Content-Type": "application/xml", "x-amz-request-id": "double-request"})
    line = {400: "400 Bad Request", 403: "403 Forbidden"}[refused.status]
    return Response(line, headers, f'<?xml version="1.0" encoding="UTF-8"?>{body}'.encode())

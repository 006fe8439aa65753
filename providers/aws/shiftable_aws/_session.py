"""One boto3 session for all services of a provider, and its clients, made when they are first used."""

from __future__ import annotations

import functools
import threading
from typing import TYPE_CHECKING, Any, Literal, overload

import attrs
import boto3
import botocore.session
from botocore.config import Config
from botocore.credentials import (
    AssumeRoleCredentialFetcher,
    CredentialProvider,
    Credentials,
    DeferredRefreshableCredentials,
)
from botocore.exceptions import BotoCoreError, ClientError

from shiftable.config import Credential
from shiftable.errors import ConfigError
from shiftable_aws import AwsSettings, __version__
from shiftable_s3.clients import AWS_CONFIG, fast_timestamps
from shiftable_s3.errors import classify
from shiftable_s3.models import shared_models

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client
    from mypy_boto3_iam import IAMClient
    from mypy_boto3_rds import RDSClient
    from mypy_boto3_route53 import Route53Client
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_secretsmanager import SecretsManagerClient
    from mypy_boto3_sts import STSClient

__all__ = ["Session"]

_CONNECTIONS = 64  # the bulk lane has up to 64 threads on one client; urllib3 throws surplus connections away

_HALVES = {
    "secretsmanager": b'{"__type": "RequestTimeoutException", "message": "the answer ends early"}',
    "route53": (
        b"<ErrorResponse><Error><Code>RequestTimeoutException</Code><Message>the answer ends early</Message></Error>"
        b"<RequestId/></ErrorResponse>"
    ),
}
_HALVES["rds"] = _HALVES["route53"]
_HALVES["ec2"] = (
    b"<Response><Errors><Error><Code>RequestTimeoutException</Code><Message>the answer ends early</Message></Error>"
    b"</Errors><RequestID/></Response>"
)


class Session:
    """The clients of one provider. They are thread-safe; making one is not, in boto3, and is done under a lock."""

    def __init__(self, settings: AwsSettings) -> None:
        self._settings = settings
        self._lock = threading.RLock()  # a key that refers to a secret of this session is then told, not waited for
        self._session: boto3.Session | None = None
        self._clients: dict[str, Any] = {}

    @overload
    def client(self, service: Literal["s3"]) -> S3Client: ...
    @overload
    def client(self, service: Literal["secretsmanager"]) -> SecretsManagerClient: ...
    @overload
    def client(self, service: Literal["route53"]) -> Route53Client: ...
    @overload
    def client(self, service: Literal["rds"]) -> RDSClient: ...
    @overload
    def client(self, service: Literal["ec2"]) -> EC2Client: ...
    @overload
    def client(self, service: Literal["iam"]) -> IAMClient: ...
    @overload
    def client(self, service: Literal["sts"]) -> STSClient: ...
    def client(self, service: str) -> Any:
        """Return the client of a service; the same one each time.

        Raises:
            ConfigError: no region, an unknown profile, credentials that are half there.
        """
        client = self._clients.get(service)
        if client is None:
            with self._lock:
                client = self._clients.get(service) or self._made(service)
                self._clients[service] = client
        return client

    def close(self) -> None:
        """Close all connections. A client that is used afterwards opens new ones."""
        with self._lock:
            clients, self._clients = self._clients, {}
        for client in clients.values():
            client.close()

    def __repr__(self) -> str:
        return f"<Session region={self._settings.region!r} profile={self._settings.profile!r}>"

    def _made(self, service: str) -> Any:  # noqa: ANN401  boto3 makes clients of many types
        try:
            if self._session is None:
                self._session = _session(self._settings)
            config = _config(self._settings)
            if service == "s3":
                config = config.merge(AWS_CONFIG)
            # The types know literal names of services only.
            client: Any = self._session.client(service, endpoint_url=self._settings.endpoint, config=config)  # type: ignore[call-overload]
        except (BotoCoreError, ValueError) as exc:  # an endpoint that is no URL is a ValueError
            known = classify(exc)
            raise ConfigError(f"aws: {known.message if known else exc}") from exc
        if service in _HALVES:
            client.meta.events.register("before-parse", _refuse_half)
            client.meta.events.register("after-call", _raise_refused)
        return client


def _refuse_half(response_dict: dict[str, Any], operation_model: Any, **_: object) -> None:  # noqa: ANN401  the same
    """Turn an answer that ends before its stated length into an error that the SDK's retries know as transient.

    botocore does not compare lengths, and reads JSON that it cannot parse as an empty answer: half of what
    DescribeSecret says would be a secret without versions. Half an XML document is an error that it does not retry.
    """
    body, stated = response_dict["body"], response_dict["headers"].get("content-length", "")
    if isinstance(body, bytes) and stated.isdecimal() and len(body) < int(stated):
        response_dict["status_code"] = 400
        response_dict["body"] = _HALVES[operation_model.service_model.service_name]


def _raise_refused(http_response: Any, parsed: Any, model: Any, **_: object) -> None:  # noqa: ANN401  botocore's own
    """Raise what the retries left of it: the client looks at the status that came, which was good."""
    if "Error" in parsed and http_response.status_code < 300:
        raise ClientError(parsed, model.name)


def _config(settings: AwsSettings) -> Config:
    return Config(
        retries={"mode": "standard", "total_max_attempts": settings.max_attempts},
        user_agent_extra=f"shiftable/{__version__}",
        tcp_keepalive=True,
        max_pool_connections=_CONNECTIONS,
    )


def _session(settings: AwsSettings) -> boto3.Session:
    inner = botocore.session.Session(profile=settings.profile)
    shared_models(inner)
    if settings.role_arn is not None:
        role = _Role(_session(attrs.evolve(settings, role_arn=None, external_id=None)), settings.role_arn, settings)
        inner.get_component("credential_provider").providers.insert(0, role)
    fast_timestamps(inner)
    if settings.role_arn is not None or settings.access_key is None:
        return boto3.Session(botocore_session=inner, region_name=settings.region)
    return boto3.Session(
        botocore_session=inner,
        region_name=settings.region,
        aws_access_key_id=_revealed(settings.access_key),
        aws_secret_access_key=_revealed(settings.secret_key),
        aws_session_token=_revealed(settings.session_token),
    )


class _Role(CredentialProvider):
    """Assume the role of the settings with another session's credentials, whenever it is about to expire."""

    METHOD = "shiftable-role"

    def __init__(self, source: boto3.Session, role_arn: str, settings: AwsSettings) -> None:
        super().__init__()
        self._source = source
        self._role_arn = role_arn
        self._settings = settings

    def load(self) -> Credentials:
        settings = self._settings
        extra = {"RoleSessionName": "shiftable"}
        if settings.external_id is not None:
            extra["ExternalId"] = settings.external_id
        make = functools.partial(self._source.client, endpoint_url=settings.endpoint, config=_config(settings))
        fetcher = AssumeRoleCredentialFetcher(make, self._source.get_credentials(), self._role_arn, extra_args=extra)
        return DeferredRefreshableCredentials(method=self.METHOD, refresh_using=fetcher.fetch_credentials)


def _revealed(credential: Credential | None) -> str | None:
    return None if credential is None else credential.reveal()

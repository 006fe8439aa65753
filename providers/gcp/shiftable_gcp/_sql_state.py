"""What the double's Cloud SQL holds: instances with their CAs, operations and backups."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import attrs
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

__all__ = ["Authority", "StoredBackup", "StoredInstance", "StoredOperation", "told_time"]

Json = dict[str, Any]


@attrs.define
class StoredOperation:
    """What is being done to an instance, and how many looks at it are left until it is done."""

    project: str
    id: str
    kind: str
    target: str
    started: datetime
    polls: int
    effect: Callable[[], None] = attrs.field(repr=False)
    failure: tuple[str, str] | None = None
    ended: datetime | None = None
    backup: str | None = None

    def told(self) -> Json:
        """Return it as the API tells it."""
        project = self.project
        told: Json = {
            "kind": "sql#operation",
            "name": self.id,
            "operationType": self.kind,
            "status": "PENDING" if self.ended is None else "DONE",
            "targetId": self.target,
            "targetProject": project,
            "user": f"double@{project}.iam.gserviceaccount.com",
            "insertTime": told_time(self.started),
        }
        if self.backup is not None:
            told["backupContext"] = {"kind": "sql#backupContext", "name": self.backup}
        if self.ended is not None:
            told |= {"startTime": told_time(self.started), "endTime": told_time(self.ended)}
            if self.failure is not None:
                code, message = self.failure
                error = {"kind": "sql#operationError", "code": code, "message": message}
                told["error"] = {"kind": "sql#operationErrors", "errors": [error]}
        return told


@attrs.frozen
class Authority:
    """The CA of one instance, which signs for that instance alone."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @classmethod
    def make(cls) -> Authority:
        """Make one."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name(
            [
                x509.NameAttribute(NameOID.COMMON_NAME, "Google Cloud SQL Server CA"),
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Google, Inc"),
                x509.NameAttribute(NameOID.DN_QUALIFIER, uuid.uuid4().hex),
            ]
        )
        return cls(key, _certificate(name, name, key, key, ca=True))

    @property
    def pem(self) -> str:
        """The certificate that clients check with."""
        return self.certificate.public_bytes(serialization.Encoding.PEM).decode()

    def sign(self, common_name: str) -> tuple[str, str]:
        """Return a server's certificate, which bears an instance's name and no host's, and its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
        made = _certificate(name, self.certificate.subject, key, self.key, ca=False)
        plain = serialization.NoEncryption()
        private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
        return made.public_bytes(serialization.Encoding.PEM).decode(), private.decode()


@attrs.define
class StoredInstance:
    """One instance. ``settings`` are those that a caller may set, as the API names them."""

    project: str
    name: str
    version: str
    region: str
    created: datetime
    settings: Json
    users: dict[str, Json] = attrs.Factory(dict)
    databases: set[str] = attrs.Factory(set)
    state: str = "PENDING_CREATE"
    settings_version: int = 1
    operations: list[StoredOperation] = attrs.Factory(list)
    restored_from: str | None = None
    overwritten: int = 0
    authority: Authority = attrs.field(factory=Authority.make, repr=False)

    @property
    def key(self) -> str:
        """Its name among those of all projects."""
        return f"{self.project}:{self.name}"

    @property
    def engine(self) -> str:
        """``POSTGRES`` or ``MYSQL``."""
        return self.version.split("_")[0]

    @property
    def running(self) -> bool:
        """Whether users and databases can be seen."""
        return self.state == "RUNNABLE" and self.settings["activationPolicy"] != "NEVER"

    @property
    def current(self) -> StoredOperation | None:
        """The operation that is being carried out."""
        return next((operation for operation in self.operations if operation.ended is None), None)


@attrs.define
class StoredBackup:
    """One backup, which belongs to the project, and so may outlive its instance."""

    project: str
    id: str
    number: int
    instance: str
    kind: str
    description: str
    started: datetime
    version: str
    settings: Json
    users: dict[str, Json]
    databases: set[str]
    state: str = "RUNNING"
    expires: datetime | None = None
    gone: datetime | None = None
    data: str | None = None


def _certificate(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    signer: ec.EllipticCurvePrivateKey,
    *,
    ca: bool,
) -> x509.Certificate:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=3650))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .sign(signer, hashes.SHA256())
    )


def told_time(moment: datetime) -> str:
    """Write a time as the API does."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")

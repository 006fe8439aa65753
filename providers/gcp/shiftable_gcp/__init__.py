"""Google Cloud: Cloud Storage, Secret Manager, Cloud DNS and Cloud SQL."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import attrs

from shiftable.config import Credential
from shiftable.features import Features
from shiftable.provider import Provider

if TYPE_CHECKING:
    from shiftable.blob.driver import BlobDriver
    from shiftable.database.driver import DatabaseDriver
    from shiftable.dns.driver import DnsDriver
    from shiftable.secrets.driver import SecretsDriver
    from shiftable_gcp._session import Session

__all__ = ["GcpDatabaseSettings", "GcpProvider", "GcpSettings"]

__version__ = "0.1.0"


@attrs.frozen(kw_only=True)
class GcpSettings:
    """``type = "gcp"``. Without any setting everything comes from Application Default Credentials.

    Args:
        project: the project id; else the one of the credentials.
        region: where buckets, secrets and databases are made, ``europe-west3``; else Google's default, the multi-region
            ``US``, for secrets the places that Google chooses, and for databases ``us-central1``.
        service_account: a service account's key as JSON; else Application Default Credentials.
        sign_as: the service account in whose name URLs are signed, through IAM; else the one of the credentials, with
            its key where they hold one.
        endpoint: URL of all services, for a stand-in; then no credentials are looked for.
        retry_seconds: for how long a call that may be repeated is tried again.
    """

    project: str | None = None
    region: str | None = None
    service_account: Credential | None = None
    sign_as: str | None = None
    endpoint: str | None = None
    retry_seconds: float = attrs.field(default=60.0, validator=attrs.validators.ge(0))


@attrs.frozen(kw_only=True)
class GcpDatabaseSettings:
    """``[database.x.gcp]``: what counts when a server is made.

    Args:
        edition: of Cloud SQL; the larger one has its own machine types, and keeps logs for up to 35 days.
        tier: a machine type by name, in place of the one that is chosen by ``cpus`` and ``memory_gib``.
        network: the VPC in which the server has its private address, by name or as a resource; else ``default``, and
            none for a public server. It needs private services access.
        zone: where the server is, ``europe-west3-a``; else Google chooses.
        disk: ``ssd`` or ``hdd``.
        server_ca: who signs the server's certificate: ``instance``, a CA that signs for this server alone, or
            ``shared``, one for all servers of the region, whose certificates bear the server's DNS name.
    """

    edition: Literal["enterprise", "enterprise-plus"] = "enterprise"
    tier: str | None = None
    network: str | None = None
    zone: str | None = None
    disk: Literal["ssd", "hdd"] = "ssd"
    server_ca: Literal["instance", "shared"] = "instance"


class GcpProvider(Provider[GcpSettings]):
    """Cloud Storage through google-cloud-storage, Secret Manager, Cloud DNS and Cloud SQL by REST.

    Credentials come from ``service_account``, or else from Application Default Credentials, in their order:
    ``GOOGLE_APPLICATION_CREDENTIALS`` (a key, or workload identity federation), ``gcloud auth application-default
    login``, the metadata server of Google's machines. With ``endpoint`` and no ``service_account`` there are none.

    Permissions, no more than these; ``roles/storage.admin``, ``roles/secretmanager.admin``, ``roles/dns.admin`` and
    ``roles/cloudsql.admin`` have them all:

    * blob: on the project ``storage.buckets.list`` and ``storage.buckets.create``; on the buckets
      ``storage.buckets.get``, ``storage.buckets.update``, ``storage.buckets.delete``, ``storage.objects.list``,
      ``storage.multipartUploads.list``; on their objects ``storage.objects.get``, ``storage.objects.create``,
      ``storage.objects.delete``, ``storage.objects.update``, ``storage.objects.move``,
      ``storage.multipartUploads.create``, ``storage.multipartUploads.abort``,
      ``storage.multipartUploads.listParts``. Without ``storage.objects.list`` Cloud Storage answers 403 for a missing
      key, and so does shiftable. Without ``storage.buckets.get`` a single object does not tell its version.
    * secrets: on the project ``secretmanager.secrets.list`` and ``secretmanager.secrets.create``; on the secrets
      ``secretmanager.secrets.get``, ``secretmanager.secrets.update``, ``secretmanager.secrets.delete``; on their
      versions ``secretmanager.versions.access``, ``secretmanager.versions.add``, ``secretmanager.versions.destroy``,
      ``secretmanager.versions.disable``, ``secretmanager.versions.enable``, ``secretmanager.versions.get``,
      ``secretmanager.versions.list``. Google's ``roles/secretmanager.secretVersionManager`` is not enough for writing:
      stages are aliases, which take ``secretmanager.secrets.update``.
    * dns: on the project ``dns.managedZones.list`` and ``dns.managedZones.create``; on the zones
      ``dns.managedZones.delete``, ``dns.resourceRecordSets.list``, ``dns.resourceRecordSets.create``,
      ``dns.resourceRecordSets.update``, ``dns.resourceRecordSets.delete``, ``dns.changes.create``, ``dns.changes.get``,
      and ``dns.changes.list`` and ``dns.managedZoneOperations.get``, by which a call whose answer was lost is found
      again. Google wants the owner of a domain to be verified before some zones are made.
    * database: on the project ``cloudsql.instances.create``, ``cloudsql.instances.list``, ``cloudsql.instances.get``,
      ``cloudsql.instances.update``, ``cloudsql.instances.delete``, ``cloudsql.instances.restart``,
      ``cloudsql.instances.clone``, ``cloudsql.instances.restoreBackup``, ``cloudsql.instances.createBackup``,
      ``cloudsql.backupRuns.create``, ``cloudsql.backupRuns.get``, ``cloudsql.backupRuns.list``,
      ``cloudsql.backupRuns.delete``, ``cloudsql.databases.create``, ``cloudsql.databases.list``,
      ``cloudsql.users.create``, ``cloudsql.users.list``, ``cloudsql.users.update``; for a private address also
      ``compute.networks.get``. Who only connects needs ``cloudsql.instances.get``, and to log in with a token
      ``cloudsql.instances.login`` (``roles/cloudsql.instanceUser``).

    What only reads needs only ``access``, ``get`` and ``list`` of these: of secrets
    ``roles/secretmanager.secretAccessor`` with ``roles/secretmanager.viewer``, of zones ``roles/dns.reader``,
    of databases ``roles/cloudsql.viewer``.

    Presigned URLs are signed with a service account's key, where there is one, else by IAM in the name of the account,
    or of ``sign_as``: that takes ``iam.serviceAccounts.signBlob`` on it (``roles/iam.serviceAccountTokenCreator``) and
    one call for each URL.
    """

    name: ClassVar[str] = "gcp"
    driver_api: ClassVar[int] = 1
    settings_type: ClassVar[type[GcpSettings]] = GcpSettings
    native_types: ClassVar[Mapping[str, type[Any]]] = {"database": GcpDatabaseSettings}

    def __init__(self, settings: GcpSettings) -> None:
        super().__init__(settings)
        self._session: Session | None = None

    @classmethod
    def features(cls) -> Mapping[str, tuple[Features, ...]]:
        """Say what each service's driver can do."""
        from shiftable_gcp import blob, database, dns, secrets

        return {
            "blob": (blob.FEATURES,),
            "database": (database.FEATURES,),
            "dns": (dns.FEATURES,),
            "secrets": (secrets.FEATURES,),
        }

    @property
    def session(self) -> Session:
        """The session that all services share: ``cloud.unwrap(GcpProvider).session.client``."""
        if self._session is None:
            from shiftable_gcp._session import Session

            self._session = Session(self.settings)
        return self._session

    def blob(self) -> BlobDriver:
        """Make the driver for Cloud Storage."""
        from shiftable_gcp.blob import GcsDriver

        return GcsDriver(self.session)

    def secrets(self) -> SecretsDriver:
        """Make the driver for Secret Manager."""
        from shiftable_gcp.secrets import SecretManagerDriver

        return SecretManagerDriver(self.session)

    def dns(self) -> DnsDriver:
        """Make the driver for Cloud DNS."""
        from shiftable_gcp.dns import CloudDnsDriver

        return CloudDnsDriver(self.session)

    def database(self) -> DatabaseDriver:
        """Make the driver for Cloud SQL."""
        from shiftable_gcp.database import CloudSqlDriver

        return CloudSqlDriver(self.session)

    def close(self) -> None:
        """Close all connections."""
        if self._session is not None:
            self._session.close()

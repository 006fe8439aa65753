"""Google Cloud: Cloud Storage, Compute Engine, Secret Manager, Cloud DNS and Cloud SQL."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import attrs

from shiftable.config import Credential
from shiftable.features import Features
from shiftable.provider import Provider

if TYPE_CHECKING:
    from shiftable.blob.driver import BlobDriver
    from shiftable.compute.driver import ComputeDriver
    from shiftable.database.driver import DatabaseDriver
    from shiftable.dns.driver import DnsDriver
    from shiftable.provider import Purpose
    from shiftable.secrets.driver import SecretsDriver
    from shiftable.service import Spec
    from shiftable_gcp._session import Session

__all__ = ["GcpComputeSettings", "GcpDatabaseSettings", "GcpProvider", "GcpSettings"]

__version__ = "0.1.0"


@attrs.frozen(kw_only=True)
class GcpSettings:
    """``type = "gcp"``. Without any setting everything comes from Application Default Credentials.

    Args:
        project: the project id; else the one of the credentials.
        region: where buckets, secrets, databases and machines are made, ``europe-west3``; else Google's default, the
            multi-region ``US``, for secrets the places that Google chooses, for databases and machines ``us-central1``.
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
class GcpComputeSettings:
    """``[compute.x.gcp]``: what counts when a machine is made.

    Args:
        machine_type: by name, in place of the one that is chosen by ``cpus`` and ``memory_gib``; also one made to
            measure, ``n2-custom-4-10240``, or one of N1 to which ``gpus`` of the kind ``gpu`` are added.
        image: by its resource, ``projects/p/global/images/i``, in place of the one of the alias.
        subnetwork: by name or as a resource; else that of the network in the region.
        scopes: of the access tokens that the machine gets for its ``identity``; else ``cloud-platform``, so that the
            account's roles alone count.
        disk_type: of the disk that it starts from; else ``pd-balanced``, or ``hyperdisk-balanced`` for the machine
            types that take no other.
        disk_kms_key: the key of Cloud KMS that encrypts that disk, as a resource; else one of Google's.
        secure_boot: only signed code starts; else so on the images of the aliases for machines of x86 without GPUs.
        vtpm: a virtual TPM; else so on those images, and on others that can have one.
        integrity_monitoring: what started is measured; needs the TPM; else as that.
        on_preemption: what becomes of a spot machine that Google takes away.
        resource_policies: for its placement, by name or as resources.
    """

    machine_type: str | None = None
    image: str | None = None
    subnetwork: str | None = None
    scopes: tuple[str, ...] = ()
    disk_type: str | None = None
    disk_kms_key: str | None = None
    secure_boot: bool | None = None
    vtpm: bool | None = None
    integrity_monitoring: bool | None = None
    on_preemption: Literal["stop", "delete"] = "stop"
    resource_policies: tuple[str, ...] = ()


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
    """Cloud Storage through google-cloud-storage; Compute Engine, Secret Manager, Cloud DNS and Cloud SQL by REST.

    Credentials come from ``service_account``, or else from Application Default Credentials, in their order:
    ``GOOGLE_APPLICATION_CREDENTIALS`` (a key, or workload identity federation), ``gcloud auth application-default
    login``, the metadata server of Google's machines. With ``endpoint`` and no ``service_account`` there are none.

    Permissions, no more than these; ``roles/storage.admin``, ``roles/secretmanager.admin``, ``roles/dns.admin``,
    ``roles/cloudsql.admin`` and ``roles/compute.admin`` have them all:

    * blob: on the project ``storage.buckets.list`` and ``storage.buckets.create``; on the buckets
      ``storage.buckets.get``, ``storage.buckets.update``, ``storage.buckets.delete``, ``storage.objects.list``,
      ``storage.multipartUploads.list``; on their objects ``storage.objects.get``, ``storage.objects.create``,
      ``storage.objects.delete``, ``storage.objects.update``, ``storage.objects.move``,
      ``storage.multipartUploads.create``, ``storage.multipartUploads.abort``; for locks
      ``storage.buckets.enableObjectRetention`` and ``storage.objects.setRetention``. Without ``storage.objects.list``
      Cloud Storage answers 403 for a missing key, and so does shiftable. Without ``storage.buckets.get`` a single
      object does not tell its version.
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
      again; to move more than 10,000 record sets into a zone ``dns.projects.get``. Google wants the owner of a domain
      to be verified before some zones are made.
    * database: on the project ``cloudsql.instances.create``, ``cloudsql.instances.list``, ``cloudsql.instances.get``,
      ``cloudsql.instances.update``, ``cloudsql.instances.delete``, ``cloudsql.instances.restart``,
      ``cloudsql.instances.clone``, ``cloudsql.instances.restoreBackup``, ``cloudsql.instances.createBackup``,
      ``cloudsql.backupRuns.create``, ``cloudsql.backupRuns.get``, ``cloudsql.backupRuns.list``,
      ``cloudsql.backupRuns.delete``, ``cloudsql.databases.create``, ``cloudsql.databases.list``,
      ``cloudsql.users.create``, ``cloudsql.users.list``, ``cloudsql.users.update``; for a private address also
      ``compute.networks.get``. Who only connects needs ``cloudsql.instances.get``, and to log in with a token
      ``cloudsql.instances.login`` (``roles/cloudsql.instanceUser``).

    * compute: on the project ``compute.zones.list``, ``compute.machineTypes.list``, ``compute.machineTypes.get``,
      ``compute.images.list``, ``compute.images.create``, ``compute.images.get``, ``compute.images.delete``,
      ``compute.images.useReadOnly``, ``compute.images.setLabels`` and, in the bucket, ``storage.objects.get`` to
      import one, ``compute.snapshots.list``, ``compute.snapshots.create``,
      ``compute.snapshots.get``, ``compute.snapshots.delete``, ``compute.snapshots.useReadOnly``,
      ``compute.instances.list``, ``compute.instances.create``, ``compute.instances.get``, ``compute.instances.delete``,
      ``compute.instances.start``, ``compute.instances.stop``, ``compute.instances.resume``,
      ``compute.instances.reset``, ``compute.instances.setMachineType``, ``compute.instances.setLabels``,
      ``compute.instances.setMetadata``, ``compute.instances.setTags``, ``compute.instances.setServiceAccount``,
      ``compute.instances.getSerialPortOutput``, ``compute.instances.attachDisk``, ``compute.instances.detachDisk``,
      ``compute.disks.list``, ``compute.disks.create``, ``compute.disks.get``, ``compute.disks.delete``,
      ``compute.disks.setLabels``, ``compute.disks.use``, ``compute.disks.useReadOnly``,
      ``compute.disks.createSnapshot``, ``compute.firewalls.list``, ``compute.subnetworks.use``, with public addresses
      ``compute.subnetworks.useExternalIp``, with open ports ``compute.firewalls.create``, ``compute.firewalls.update``,
      ``compute.firewalls.delete``, ``compute.networks.updatePolicy``, ``compute.resourcePolicies.list``, with a
      placement ``compute.resourcePolicies.create``, ``compute.resourcePolicies.delete``,
      ``compute.resourcePolicies.use``, and to see how it ends ``compute.regionOperations.get``,
      ``compute.zoneOperations.get``, ``compute.zoneOperations.list``, ``compute.globalOperations.get``,
      ``compute.globalOperations.list``. A machine with an ``identity`` takes ``iam.serviceAccounts.actAs`` on that
      account (``roles/iam.serviceAccountUser``).

    ``policy`` writes down those that declared resources need. What only reads needs only ``access``, ``get`` and
    ``list``: of secrets ``roles/secretmanager.secretAccessor`` with ``roles/secretmanager.viewer``, of zones
    ``roles/dns.reader``, of databases ``roles/cloudsql.viewer``, of machines ``roles/compute.viewer``.

    Presigned URLs are signed with a service account's key, where there is one, else by IAM in the name of the account,
    or of ``sign_as``: that takes ``iam.serviceAccounts.signBlob`` on it (``roles/iam.serviceAccountTokenCreator``) and
    one call for each URL.
    """

    name: ClassVar[str] = "gcp"
    driver_api: ClassVar[int] = 1
    settings_type: ClassVar[type[GcpSettings]] = GcpSettings
    native_types: ClassVar[Mapping[str, type[Any]]] = {
        "compute": GcpComputeSettings,
        "database": GcpDatabaseSettings,
    }

    def __init__(self, settings: GcpSettings) -> None:
        super().__init__(settings)
        self._session: Session | None = None

    @classmethod
    def features(cls) -> Mapping[str, tuple[Features, ...]]:
        """Say what each service's driver can do."""
        from shiftable_gcp import _features

        return {
            "blob": (_features.BLOB,),
            "compute": (_features.COMPUTE,),
            "database": (_features.DATABASE,),
            "dns": (_features.DNS,),
            "secrets": (_features.SECRETS,),
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

    def compute(self) -> ComputeDriver:
        """Make the driver for Compute Engine."""
        from shiftable_gcp.compute import GceDriver

        return GceDriver(self.session)

    def policy(self, declared: Iterable[tuple[str, Spec]], purposes: Iterable[Purpose]) -> Mapping[str, Any]:
        """Write a custom role, which names no resources: to be given on these, or under a condition."""
        from shiftable_gcp._policy import policy

        return policy(declared, purposes)

    def close(self) -> None:
        """Close all connections."""
        if self._session is not None:
            self._session.close()

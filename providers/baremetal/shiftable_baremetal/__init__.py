"""See README.md."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import attrs

from shiftable.checks import is_not_negative
from shiftable.config import BucketReference, Credential
from shiftable.errors import ConfigError, Problem, Unsupported
from shiftable.features import Features
from shiftable.provider import Provider
from shiftable_baremetal._hosts_settings import HostSettings
from shiftable_baremetal._libvirt_settings import LibvirtSettings
from shiftable_baremetal._qemu_settings import QemuImageSettings, QemuMachineSettings, QemuSettings
from shiftable_baremetal._redfish_settings import RedfishImageSettings, RedfishServerSettings, RedfishSettings

if TYPE_CHECKING:
    from shiftable.blob.driver import BlobDriver
    from shiftable.compute.driver import ComputeDriver
    from shiftable.database.driver import DatabaseDriver
    from shiftable.dns.driver import DnsDriver
    from shiftable.provider import Purpose
    from shiftable.secrets.driver import SecretsDriver
    from shiftable.service import Spec

__all__ = [
    "BaremetalProvider",
    "BaremetalSettings",
    "HostSettings",
    "LibvirtSettings",
    "MariadbSettings",
    "PostgresqlSettings",
    "PowerdnsSettings",
    "PrivatePostgresqlSettings",
    "QemuImageSettings",
    "QemuMachineSettings",
    "QemuSettings",
    "RedfishImageSettings",
    "RedfishServerSettings",
    "RedfishSettings",
    "Rfc2136Settings",
    "VaultSettings",
]

__version__ = "0.1.0"

_DEFAULT_ROOT = Path(".shiftable/data")
_NAME = re.compile(r"(?:[A-Za-z0-9_-]{1,63}\.)+")


@attrs.frozen(kw_only=True)
class VaultSettings:
    """``[providers.x.vault]``: a Vault or OpenBao server, which then holds the secrets instead of files.

    Args:
        address: of the server, ``https://vault.example:8200``; else ``VAULT_ADDR``.
        mount: where its KV engine of version 2 is mounted.
        namespace: of Vault Enterprise or OpenBao; else ``VAULT_NAMESPACE``.
        auth: how to log in.
        auth_mount: where that way of logging in is mounted, if not at its own name.
        token: with ``token``; else ``VAULT_TOKEN``, else ``~/.vault-token``.
        role_id: with ``approle``.
        secret_id: with ``approle``, unless the role needs none.
        role: with ``jwt`` and ``kubernetes``.
        jwt: with ``jwt``; with ``kubernetes`` in place of the service account's own.
        ca_bundle: certificates to trust in place of the system's; else ``VAULT_CACERT``.
    """

    address: str | None = None
    mount: str = "secret"
    namespace: str | None = None
    auth: Literal["token", "approle", "jwt", "kubernetes"] = "token"
    auth_mount: str | None = None
    token: Credential | None = None
    role_id: Credential | None = None
    secret_id: Credential | None = None
    role: str | None = None
    jwt: Credential | None = None
    ca_bundle: Path | None = None


@attrs.frozen(kw_only=True)
class Rfc2136Settings:
    """``[providers.x.rfc2136]``: a name server that takes updates and gives its zones, which are made there.

    Args:
        server: its primary, ``ns1.example:53``.
        zones: those that are listed; a name server tells nobody what it has.
        key_name: of the TSIG key; without one the server goes by our address.
        key_secret: of the TSIG key, in base64 as ``tsig-keygen`` prints it.
    """

    server: str
    zones: tuple[str, ...] = ()
    key_name: str | None = None
    key_secret: Credential | None = None
    key_algorithm: Literal["hmac-sha1", "hmac-sha224", "hmac-sha256", "hmac-sha384", "hmac-sha512"] = "hmac-sha256"


@attrs.frozen(kw_only=True)
class PowerdnsSettings:
    """``[providers.x.powerdns]``: a PowerDNS server with its HTTP API.

    Args:
        address: of the API, ``https://ns1.example:8081``.
        api_key: the server's ``api-key``.
        server_id: as the server calls itself in the API.
        kind: of new zones; ``Primary`` notifies secondaries.
        max_body: bytes of one request; the server's ``webserver-max-bodysize``, which counts in MiB.
        ca_bundle: certificates to trust in place of the system's.
    """

    address: str
    api_key: Credential
    server_id: str = "localhost"
    kind: Literal["Native", "Primary"] = "Native"
    max_body: int = 2 * 1024 * 1024
    ca_bundle: Path | None = None


@attrs.frozen(kw_only=True)
class PrivatePostgresqlSettings:
    """``[providers.x.private_postgresql]``: the private servers of databases.

    Args:
        programs: the folder of PostgreSQL's programs; else the ``PATH``, ``/usr/lib/postgresql`` and the wheel of
            ``shiftable[postgresql-server]`` are looked through for the declared version.
        linger: servers run until they are stopped, also if no process uses them.
    """

    programs: Path | None = None
    linger: bool = False


@attrs.frozen(kw_only=True)
class PostgresqlSettings:
    """``[providers.x.postgresql]``: a PostgreSQL server, 14 or later, which then holds the databases.

    Args:
        host: a name or address, or the folder of its Unix socket.
        user: makes roles and databases: CREATEDB and CREATEROLE.
        password: of that user; without one the socket or the client's certificate says who comes.
        tls: whether a server over a network must prove by its certificate who it is, and all is encrypted.
        ca_bundle: certificates to trust in place of the system's.
        ssh: the machine from which the server is reached, as ssh knows it; ``host`` is then as that machine sees it.
        snapshots: a declared bucket for snapshots and the archive; else they lie below ``root``.
        archive_days: for how long any time can be restored, from base backups of the whole server and its log, which
            `shiftable db archive` stores; 0: there are snapshots only.
        programs: the folder of PostgreSQL's programs; else as for private servers.
    """

    host: str = "/run/postgresql"
    port: int = 5432
    user: str = "postgres"
    password: Credential | None = None
    tls: bool = True
    ca_bundle: Path | None = None
    ssh: str | None = None
    snapshots: BucketReference | None = None
    archive_days: int = attrs.field(default=0, validator=is_not_negative)
    programs: Path | None = None


@attrs.frozen(kw_only=True)
class MariadbSettings:
    """``[providers.x.mariadb]``: a MariaDB server, 10.5 or later, which then holds the databases.

    Args:
        host: a name or address, or the path of its Unix socket.
        user: makes users and databases: ALL PRIVILEGES ON *.* WITH GRANT OPTION.
        password: of that user; without one the socket says who comes.
        tls: whether a server over a network must prove by its certificate who it is, and all is encrypted.
        ca_bundle: certificates to trust in place of the system's.
        ssh: the machine from which the server is reached, as ssh knows it; ``host`` is then as that machine sees it.
        snapshots: a declared bucket for snapshots and the archive; else they lie below ``root``.
        archive_days: for how long any time can be restored, from base backups of the whole server and its log, which
            `shiftable db archive` stores; 0: there are snapshots only.
        programs: the folder of mariadb-dump and mariadb, and of mariadbd to restore a time; else the ``PATH``.
    """

    host: str = "/run/mysqld/mysqld.sock"
    port: int = 3306
    user: str = "root"
    password: Credential | None = None
    tls: bool = True
    ca_bundle: Path | None = None
    ssh: str | None = None
    snapshots: BucketReference | None = None
    archive_days: int = attrs.field(default=0, validator=is_not_negative)
    programs: Path | None = None


def _are_nameservers(_: object, field: attrs.Attribute[tuple[str, ...]], value: tuple[str, ...]) -> None:
    """Refuse names that a zone file would complete with the zone."""
    if not value or not all(_NAME.fullmatch(name) and len(name) < 255 for name in value):
        raise ValueError(f"{field.name} must be names of servers with a dot at the end: ns1.example.net.")


@attrs.frozen(kw_only=True)
class BaremetalSettings:
    """``[providers.x]`` with ``type = "baremetal"``.

    Args:
        root: the folder of all data; buckets lie in ``blob`` below it, zone files in ``dns``, secrets in ``secrets``,
            private database servers in ``database``, machines in ``compute``.
        fsync: whether a write waits until the disk has it. Without it a power failure may cost the last writes.
        endpoint: address of an S3-compatible server, which then holds the buckets instead of files.
        access_key: the server's key, not a secret itself.
        secret_key: the secret that belongs to it.
        region: as the server calls itself; few care.
        ca_bundle: certificates to trust of that server, in place of the public ones; else ``AWS_CA_BUNDLE``.
        nameservers: the NS of new zones, fully qualified.
        sign_url: where presigned URLs of files lead: the server of ``shiftable blob serve``, or a proxy before it.
        recipients: age public keys that secrets are encrypted for.
        identity_file: the age private key that they are decrypted with.
        vault: a Vault or OpenBao server, which then holds the secrets instead of files.
        rfc2136: a name server that takes updates, which then holds the zones instead of files.
        powerdns: a PowerDNS server, which then holds the zones instead of files.
        private_postgresql: of the private database servers.
        postgresql: a PostgreSQL server, which then holds the databases instead of private ones.
        mariadb: a MariaDB server, which then holds the databases instead of private PostgreSQL.
        qemu: of the machines on this computer.
        libvirt: a hypervisor, whose machines are in place of those of QEMU alone.
        hosts: machines that are claimed by ssh, in place of those of QEMU.
        redfish: servers that are claimed and started through their BMCs, in place of those of QEMU.
    """

    root: Path = _DEFAULT_ROOT
    fsync: bool = True
    endpoint: str | None = None
    access_key: Credential | None = None
    secret_key: Credential | None = None
    region: str = "us-east-1"
    ca_bundle: Path | None = None
    nameservers: tuple[str, ...] = attrs.field(default=("localhost.",), validator=_are_nameservers)
    sign_url: str = "http://127.0.0.1:8759"
    recipients: tuple[str, ...] = ()
    identity_file: Path | None = None
    vault: VaultSettings | None = None
    rfc2136: Rfc2136Settings | None = None
    powerdns: PowerdnsSettings | None = None
    private_postgresql: PrivatePostgresqlSettings | None = None
    postgresql: PostgresqlSettings | None = None
    mariadb: MariadbSettings | None = None
    qemu: QemuSettings | None = None
    libvirt: LibvirtSettings | None = None
    hosts: tuple[HostSettings, ...] = ()
    redfish: RedfishSettings | None = None


class BaremetalProvider(Provider[BaremetalSettings]):
    """Your own machines: files or an S3-compatible server, zone files, SOPS files, private PostgreSQL, QEMU.

    Credentials: none for files, whose permissions decide who reads and writes; for a server its two keys; for secrets
    the age identity, or a login at the Vault. The user that runs the application needs to read and write ``root`` and
    what is below it.
    """

    name: ClassVar[str] = "baremetal"
    driver_api: ClassVar[int] = 1
    settings_type: ClassVar[type[BaremetalSettings]] = BaremetalSettings
    native_types: ClassVar[Mapping[str, type[Any]]] = {"compute": QemuMachineSettings}

    @classmethod
    def features(cls) -> Mapping[str, tuple[Features, ...]]:
        """Say what files, S3-compatible servers, zone files, SOPS files, Vault, databases and machines can do."""
        from shiftable_baremetal import (
            _servers_mariadb,
            _servers_postgresql,
            blob,
            blob_s3,
            compute,
            compute_hosts,
            compute_libvirt,
            compute_redfish,
            database,
            dns,
            dns_powerdns,
            dns_rfc2136,
            secrets,
            secrets_vault,
        )

        return {
            "blob": (blob.FEATURES, blob_s3.FEATURES),
            "compute": (
                compute.FEATURES,
                compute_libvirt.FEATURES,
                compute_libvirt.FEATURES_USER,
                compute_hosts.FEATURES,
                compute_redfish.FEATURES,
            ),
            "database": (
                database.FEATURES,
                _servers_postgresql.FEATURES,
                _servers_postgresql.FEATURES_ARCHIVED,
                _servers_mariadb.FEATURES,
                _servers_mariadb.FEATURES_ARCHIVED,
            ),
            "dns": (dns.FEATURES, dns_rfc2136.FEATURES, dns_powerdns.FEATURES),
            "secrets": (secrets.FEATURES, secrets_vault.FEATURES),
        }

    def blob(self) -> BlobDriver:
        """Make the driver for files, or for the server that ``endpoint`` names.

        Raises:
            ConfigError: the root cannot be used; the server's settings are wrong.
        """
        settings = self.settings
        if settings.endpoint is not None:
            from shiftable_baremetal.blob_s3 import open_s3

            keys = settings.access_key, settings.secret_key
            return open_s3(settings.endpoint, *keys, settings.region, ca_bundle=settings.ca_bundle)
        from shiftable_baremetal.blob import FilesDriver

        return FilesDriver(self._root() / "blob", fsync=settings.fsync, sign_url=settings.sign_url)

    def secrets(self) -> SecretsDriver:
        """Make the driver for SOPS files, or for the server that ``vault`` names.

        Raises:
            ConfigError: the root cannot be used; the server's settings are wrong.
        """
        settings = self.settings
        if settings.vault is not None:
            from shiftable_baremetal.secrets_vault import open_vault

            return open_vault(settings.vault)
        from shiftable_baremetal.secrets import SopsDriver

        return SopsDriver(self._root() / "secrets", settings.recipients, settings.identity_file)

    def dns(self) -> DnsDriver:
        """Make the driver for zone files, or for the server that ``rfc2136`` or ``powerdns`` names.

        Raises:
            ConfigError: the root cannot be used; the server's settings are wrong.
        """
        settings = self.settings
        if settings.rfc2136 is not None and settings.powerdns is not None:
            raise ConfigError("rfc2136 and powerdns are two places for the same zones: give one of them")
        if settings.rfc2136 is not None:
            from shiftable_baremetal.dns_rfc2136 import open_rfc2136

            return open_rfc2136(settings.rfc2136)
        if settings.powerdns is not None:
            from shiftable_baremetal.dns_powerdns import open_powerdns

            return open_powerdns(settings.powerdns, settings.nameservers)
        from shiftable_baremetal.dns import ZoneFilesDriver

        return ZoneFilesDriver(self._root() / "dns", settings.nameservers, fsync=settings.fsync)

    def database(self) -> DatabaseDriver:
        """Make the driver for private PostgreSQL servers, or for the server that ``postgresql`` or ``mariadb`` names.

        Raises:
            ConfigError: the root cannot be used; the server's settings are wrong.
        """
        servers = [each for each in (self.settings.postgresql, self.settings.mariadb) if each is not None]
        if len(servers) > 1:
            raise ConfigError("postgresql and mariadb are two places for the same databases: give each a provider")
        if servers:
            from shiftable_baremetal.database_servers import open_server

            return open_server(servers[0], self._root() / "database-servers")
        from shiftable_baremetal.database import PrivateDatabaseDriver

        settings, private = self.settings, self.settings.private_postgresql or PrivatePostgresqlSettings()
        root = self._root() / "database"
        return PrivateDatabaseDriver(root, private.programs, fsync=settings.fsync, linger=private.linger)

    def compute(self) -> ComputeDriver:
        """Make the driver for machines of QEMU, or for the hypervisor, hosts or servers that are named.

        Raises:
            ConfigError: the root cannot be used; the settings are wrong.
        """
        settings = self.settings
        kinds = {
            "hosts": settings.hosts or None,
            "libvirt": settings.libvirt,
            "qemu": settings.qemu,
            "redfish": settings.redfish,
        }
        given = [name for name, value in kinds.items() if value is not None]
        if len(given) > 1:
            raise ConfigError(f"{' and '.join(given)} are two kinds of machines: give one of them")
        if settings.hosts:
            from shiftable_baremetal.compute_hosts import HostsComputeDriver

            try:
                return HostsComputeDriver(settings.hosts)
            except ValueError as exc:
                raise ConfigError([Problem("hosts", str(exc))]) from exc
        if settings.libvirt is not None:
            from shiftable_baremetal.compute_libvirt import open_libvirt

            return open_libvirt(settings.libvirt, self._root() / "compute-libvirt", self.blob)
        if settings.redfish is not None:
            from shiftable_baremetal.compute_redfish import open_redfish

            return open_redfish(settings.redfish, self._root() / "compute-redfish", fsync=settings.fsync)
        from shiftable_baremetal._qemu_images import Source
        from shiftable_baremetal.compute import QemuComputeDriver

        qemu = settings.qemu or QemuSettings()
        own: dict[str, dict[str, Path | Source]] = {"x86_64": {}, "arm64": {}}
        for image in qemu.images:
            own[image.arch][image.name] = image.file or Source(image.url or "", digest=image.digest or "")
        return QemuComputeDriver(
            self._root() / "compute",
            qemu.programs,
            accelerator=qemu.accelerator,
            own=own["x86_64"],
            own_arm64=own["arm64"],
            blobs=self.blob,
        )

    def policy(self, declared: Iterable[tuple[str, Spec]], purposes: Iterable[Purpose]) -> Mapping[str, Any]:
        """Write a policy of the server that ``vault`` names. Nothing else here has such documents.

        Raises:
            Unsupported: something else than secrets in Vault is declared.
        """
        found = list(declared)
        if self.settings.vault is None or any(service != "secrets" for service, _ in found):
            why = "only secrets in Vault or OpenBao have policies here; name these alone"
            raise Unsupported(why, provider=self.name)
        from shiftable_baremetal._vault_policy import policy

        return policy((spec.name for _, spec in found), purposes, self.settings.vault.mount)

    def _root(self) -> Path:
        """Return the folder of all data, which need not exist yet: whoever creates something makes it.

        Raises:
            ConfigError: it can neither be read nor made. A read-only one is good for reading.
        """
        root = self.settings.root.absolute()
        if root.is_dir():
            if not os.access(root, os.R_OK | os.X_OK):
                raise _wrong(f"{root} cannot be read: give this user the permission, or choose another folder")
            return root
        parent = root.parent.parent if root.parts[-2:] == _DEFAULT_ROOT.parts else root.parent  # both are ours then
        if os.path.lexists(root):
            raise _wrong(f"{root} is no folder: remove it, or choose another")
        if os.path.lexists(parent) and not parent.is_dir():
            raise _wrong(f"{parent} is no folder: choose another place for {root.name}")
        if not parent.is_dir():
            raise _wrong(f"{root} has no parent: make the folder {parent} first, or choose another")
        if not os.access(parent, os.W_OK | os.X_OK):
            raise _wrong(f"{root} cannot be made: {parent} is not writable; make it, or choose another")
        return root


def _wrong(message: str) -> ConfigError:
    return ConfigError([Problem("root", message)])

"""Azure: Blob Storage, the secrets of Key Vault, Azure DNS, Azure Database, and virtual machines."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import attrs

from shiftable.config import Credential
from shiftable.features import Features
from shiftable.provider import Provider
from shiftable_azure._compute_settings import AzureComputeSettings
from shiftable_azure._database_settings import AzureDatabaseSettings

if TYPE_CHECKING:
    from shiftable.blob.driver import BlobDriver
    from shiftable.compute.driver import ComputeDriver
    from shiftable.database.driver import DatabaseDriver
    from shiftable.dns.driver import DnsDriver
    from shiftable.provider import Purpose
    from shiftable.secrets.driver import SecretsDriver
    from shiftable.service import Spec
    from shiftable_azure._arm import ArmSession
    from shiftable_azure._identity import Identity
    from shiftable_azure._session import Session
    from shiftable_azure._vault import VaultSession

__all__ = ["AzureComputeSettings", "AzureDatabaseSettings", "AzureProvider", "AzureSettings"]

__version__ = "0.1.0"

_VAULT = re.compile(r"[0-9A-Za-z-]{3,24}|(?:https://)?[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)+(?::\d+)?/?")
_MANAGER = re.compile(r"https://[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)+(?::\d+)?/?")
_LOOPBACK = re.compile(r"http://(?:127\.0\.0\.1|localhost|\[::1\]):\d+/?")


@attrs.frozen(kw_only=True)
class AzureSettings:
    """``type = "azure"``. Without a credential azure-identity's default chain is asked.

    Args:
        subscription: the subscription id.
        resource_group: where resources are made.
        location: ``germanywestcentral``.
        arm_endpoint: Resource Manager of another cloud, ``https://management.chinacloudapi.cn``; or a stand-in on this
            machine, ``http://127.0.0.1:…``, which then gets everything that is for Resource Manager.
        arm_token: a token for Resource Manager that was had elsewhere, ``az account get-access-token``; it lives for
            an hour or so.
        storage_account: for blobs; without hierarchical namespace.
        endpoint: URL of the account's blob service, for another cloud, a private endpoint, a stand-in or Azurite; else
            ``https://ACCOUNT.blob.core.windows.net``.
        account_key: of the storage account.
        connection_string: of the storage account, in place of its name, endpoint and key.
        sas_token: a shared access signature for the account or a container; URLs cannot be signed with it.
        blob_versioning: the storage account keeps versions of blobs, which is set on the account as a whole and which
            credentials for blobs cannot ask.
        blob_lifecycle: containers may have lifecycle rules: Resource Manager is asked for them, in ``subscription`` and
            ``resource_group``, which takes a credential of Microsoft Entra.
        vault: for secrets, a Key Vault: its name, or its host or URL, for other clouds (``shop.vault.azure.cn``). A
            managed HSM has keys and no secrets.
        vault_endpoint: a stand-in for the vault on this machine, ``http://127.0.0.1:…``. Nothing is sent to the vault
            then; the stand-in is told its name, and has to ask for tokens as it does.
        vault_token: a token for the vault that was had elsewhere, ``az account get-access-token --resource
            https://vault.azure.net``; it lives for an hour or so.
        dns_signed: the zones are signed (DNSSEC), which Azure needs for DS and TLSA records.
        database_ca: file of the certificates that database servers' are checked against, where the system's are not
            enough; Azure's end at DigiCert Global Root G2 and Microsoft RSA Root Certificate Authority 2017.
        database_token: a token for database servers that was had elsewhere, ``az account get-access-token
            --resource-type oss-rdbms``; it lives for an hour or so.
        database_endpoint: a stand-in for the database servers on this machine: a folder with one of that name for each,
            with the server's Unix socket in it.
        tenant: with ``client_id`` and ``client_secret``, a service principal.
        client_id: alone: the user-assigned managed identity.
        max_attempts: how often a call is tried in all.
    """

    subscription: str | None = None
    resource_group: str | None = None
    location: str | None = None
    arm_endpoint: str | None = attrs.field(default=None)
    arm_token: Credential | None = attrs.field(default=None)
    storage_account: str | None = None
    endpoint: str | None = attrs.field(default=None)
    account_key: Credential | None = attrs.field(default=None)
    connection_string: Credential | None = attrs.field(default=None)
    sas_token: Credential | None = attrs.field(default=None)
    blob_versioning: bool = False
    blob_lifecycle: bool = attrs.field(default=False)
    vault: str | None = attrs.field(default=None)
    vault_endpoint: str | None = attrs.field(default=None)
    vault_token: Credential | None = attrs.field(default=None)
    dns_signed: bool = False
    database_ca: str | None = None
    database_token: Credential | None = attrs.field(default=None)
    database_endpoint: str | None = attrs.field(default=None)
    tenant: str | None = None
    client_id: str | None = None
    client_secret: Credential | None = attrs.field(default=None)
    max_attempts: int = attrs.field(default=5, validator=attrs.validators.ge(1))

    @arm_endpoint.validator
    def _is_manager(self, _field: object, value: str | None) -> None:
        if value is not None and not (_MANAGER.fullmatch(value) or _LOOPBACK.fullmatch(value)):
            raise ValueError("arm_endpoint is an https URL without a path, or a stand-in: http://127.0.0.1:PORT")

    @endpoint.validator
    def _plain(self, _field: object, value: str | None) -> None:
        if value is not None and ("?" in value or "://" not in value):
            raise ValueError("endpoint is a URL without a query; a shared access signature is sas_token")

    @account_key.validator
    def _needs_account(self, _field: object, value: Credential | None) -> None:
        if value is not None and self.storage_account is None:
            raise ValueError("account_key goes with storage_account")

    @connection_string.validator
    def _says_all(self, _field: object, value: Credential | None) -> None:
        if value is not None and (self.account_key or self.endpoint):
            raise ValueError("connection_string takes the place of endpoint and account_key")

    @sas_token.validator
    def _alone(self, _field: object, value: Credential | None) -> None:
        if value is not None and (self.account_key or self.connection_string):
            raise ValueError("sas_token, account_key and connection_string exclude each other")

    @blob_lifecycle.validator
    def _needs_names(self, _field: object, value: bool) -> None:  # noqa: FBT001  as attrs calls it
        if value and not (self.subscription and self.resource_group and self.storage_account):
            raise ValueError("blob_lifecycle goes with subscription, resource_group and storage_account")

    @vault.validator
    def _is_vault(self, _field: object, value: str | None) -> None:
        if value is None:
            return
        if ".managedhsm." in value:
            raise ValueError("vault is a managed HSM, which has keys and no secrets; name a Key Vault")
        if not _VAULT.fullmatch(value):
            raise ValueError("vault is the name of a Key Vault, its host, or its https URL without a path")

    @vault_endpoint.validator
    def _stands_here(self, _field: object, value: str | None) -> None:
        if value is not None and not _LOOPBACK.fullmatch(value):
            raise ValueError("vault_endpoint is a stand-in on this machine: http://127.0.0.1:PORT")

    @database_endpoint.validator
    def _is_folder(self, _field: object, value: str | None) -> None:
        if value is not None and not value.startswith("/"):
            raise ValueError("database_endpoint is the folder of a stand-in on this machine: /path")

    @client_secret.validator
    def _needs_principal(self, _field: object, value: Credential | None) -> None:
        if value is not None and (self.tenant is None or self.client_id is None):
            raise ValueError("client_secret goes with tenant and client_id")


class AzureProvider(Provider[AzureSettings]):
    """Blob Storage and Key Vault through Microsoft's own clients; the other services through Resource Manager.

    Credentials for blobs: ``account_key``, ``connection_string`` or ``sas_token`` of the settings; or else of Microsoft
    Entra: a service principal by ``tenant``, ``client_id`` and ``client_secret``, or azure-identity's default chain
    (environment, workload identity, managed identity, ``az login``). The other services take one of Microsoft
    Entra, or ``vault_token`` and ``arm_token``.

    Permissions for blobs: the role *Storage Blob Data Contributor* on the storage account covers everything but tags,
    for which *Storage Blob Data Owner* or the actions ``blobs/tags/read`` and ``blobs/tags/write`` are needed. URLs are
    signed with the account's key or with a user delegation key, which takes ``generateUserDelegationKey/action``
    (*Storage Blob Delegator*, contained in both roles). What only reads needs *Storage Blob Data Reader*.

    Permissions for secrets: *Key Vault Secrets Officer* on the vault has them all; what only reads needs *Key Vault
    Secrets User*. In vaults with access policies these are ``get``, ``list``, ``set``, ``delete``, ``recover`` and, for
    deleting for good, ``purge``; what only reads needs ``get`` and ``list``.

    Permissions for DNS: *DNS Zone Contributor* on the resource group; ``AzureDnsDriver`` names the single actions.

    Permissions for databases: *Contributor* on the resource group, and ``Microsoft.Authorization/locks/*`` for deletion
    protection; the README names the single actions.

    Permissions for machines: *Contributor* on the resource group, and reading of virtual machines and sizes in the
    subscription; ``AzureComputeDriver`` names the single actions.

    ``policy`` writes down those that declared resources need.
    """

    name: ClassVar[str] = "azure"
    driver_api: ClassVar[int] = 1
    settings_type: ClassVar[type[AzureSettings]] = AzureSettings
    native_types: ClassVar[Mapping[str, type[Any]]] = {
        "compute": AzureComputeSettings,
        "database": AzureDatabaseSettings,
    }

    def __init__(self, settings: AzureSettings) -> None:
        super().__init__(settings)
        self._shared: Identity | None = None
        self._session: Session | None = None
        self._vault: VaultSession | None = None
        self._arm: ArmSession | None = None
        self._databases: DatabaseDriver | None = None
        self._machines: ComputeDriver | None = None

    @classmethod
    def features(cls) -> Mapping[str, tuple[Features, ...]]:
        """Say what each service's driver can do."""
        from shiftable_azure import _features

        return {
            "blob": (
                _features.BLOB,
                _features.VERSIONED_BLOB,
                _features.blob_features(versioning=True, lifecycle=True),
            ),
            "secrets": (_features.SECRETS,),
            "dns": (_features.DNS, _features.SIGNED_DNS),
            "compute": (_features.COMPUTE,),
            "database": (_features.DATABASE,),
        }

    @property
    def session(self) -> Session:
        """The session of blob storage: ``cloud.unwrap(AzureProvider).session.blobs``."""
        if self._session is None:
            from shiftable_azure._session import Session

            self._session = Session(self.settings, identity=self._identity)
        return self._session

    @property
    def vault(self) -> VaultSession:
        """The session of the vault: ``cloud.unwrap(AzureProvider).vault.client``."""
        if self._vault is None:
            from shiftable_azure._vault import VaultSession

            self._vault = VaultSession(self.settings, self._identity)
        return self._vault

    @property
    def arm(self) -> ArmSession:
        """The session of Resource Manager: ``cloud.unwrap(AzureProvider).arm.call(…)``."""
        if self._arm is None:
            from shiftable_azure._arm import ArmSession

            self._arm = ArmSession(self.settings, self._identity)
        return self._arm

    @property
    def _identity(self) -> Identity:
        """The credential that all services share."""
        if self._shared is None:
            from shiftable_azure._identity import Identity

            self._shared = Identity(self.settings)
        return self._shared

    def blob(self) -> BlobDriver:
        """Make the driver for Blob Storage."""
        from shiftable_azure import _features
        from shiftable_azure.blob import AzureBlobDriver

        settings = self.settings
        lifecycles = None
        if settings.blob_lifecycle and settings.storage_account is not None:  # the settings see to the second
            from shiftable_azure._lifecycle import Lifecycles

            lifecycles = Lifecycles(self.arm, settings.storage_account)
        features = _features.blob_features(versioning=settings.blob_versioning, lifecycle=settings.blob_lifecycle)
        return AzureBlobDriver(self.session, features, lifecycles=lifecycles)

    def secrets(self) -> SecretsDriver:
        """Make the driver for Key Vault."""
        from shiftable_azure.secrets import KeyVaultDriver

        return KeyVaultDriver(self.vault)

    def dns(self) -> DnsDriver:
        """Make the driver for Azure DNS."""
        from shiftable_azure import _features
        from shiftable_azure.dns import AzureDnsDriver

        return AzureDnsDriver(self.arm, _features.SIGNED_DNS if self.settings.dns_signed else _features.DNS)

    def database(self) -> DatabaseDriver:
        """Return the driver for Azure Database: one, since it knows what is left to do at servers that it made."""
        if self._databases is None:
            from shiftable_azure.database import AzureDatabaseDriver

            self._databases = AzureDatabaseDriver(self.arm, self._identity, self.settings)
        return self._databases

    def compute(self) -> ComputeDriver:
        """Return the driver for virtual machines: one, since it keeps the sizes of the location."""
        if self._machines is None:
            from shiftable_azure.compute import AzureComputeDriver

            self._machines = AzureComputeDriver(self.arm, lambda: self.session)
        return self._machines

    def policy(self, declared: Iterable[tuple[str, Spec]], purposes: Iterable[Purpose]) -> Mapping[str, Any]:
        """Write a custom role, which names no resources: it is given in the resource group, or on single ones of it."""
        from shiftable_azure._policy import policy

        return policy(declared, purposes, self.settings)

    def close(self) -> None:
        """Close the connections of all clients."""
        for session in (self._session, self._vault, self._arm):
            if session is not None:
                session.close()

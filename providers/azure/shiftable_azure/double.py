"""A stand-in for Azure on loopback: blobs, secrets, DNS, database servers and machines, behind the harness."""

from __future__ import annotations

import hmac
import json
import threading
from typing import Any, ClassVar
from urllib.parse import urlsplit, urlunsplit
from wsgiref.types import WSGIEnvironment

from azure.core.pipeline.transport import RequestsTransport

from shiftable.config import Credential
from shiftable.testing.harness import Double, Headers, Request, Response
from shiftable_azure._definitions import violations
from shiftable_azure._double_arm import ArmService, Operations, is_arm
from shiftable_azure._double_auth import Keys
from shiftable_azure._double_blob import BlobService
from shiftable_azure._double_dns import DnsService
from shiftable_azure._double_flexible import FlexibleServers, FlexibleService
from shiftable_azure._double_machines import SIGNED, FeatureService, MachineService
from shiftable_azure._double_network import Endings, NetworkService
from shiftable_azure._double_postgresql import Backends
from shiftable_azure._double_storage import StorageService
from shiftable_azure._double_vault import VaultService, is_vault
from shiftable_azure._double_wire import Asked, Refusal, refused
from shiftable_azure._flexible import FLAVOURS

__all__ = ["AzureDouble", "ToLoopback"]

_ACCOUNT = "shiftabledouble"
_ACCOUNT_KEY = "bm90LWEtc2VjcmV0LW9mLWFueWJvZHk="
_DELEGATION_KEY = "bm90LWEtZGVsZWdhdGlvbi1rZXk="
_TOKEN = "not-a-token-of-anybody"  # noqa: S105  the double's own
_VAULT = "shiftable-double"
_SUBSCRIPTION = "00000000-0000-0000-0000-0000000d0b1e"
_GROUP = "shiftable-double"
_LOCATION = "germanywestcentral"
_IDENTITY = "/identity/token"
_IDENTITY_HEADER = "not-a-header-of-anybody"


class AzureDouble(Double):
    """Azure in this process: blobs, a Key Vault's secrets, DNS, database servers, machines, and a managed identity.

    Shared keys, shared access signatures and tokens are checked, signed URLs expire (by ``clock``), writes are atomic,
    listings come in the order of UTF-16 units, as Azure's do. It has block blobs alone, and neither leases nor
    snapshots. There are no definitions of Blob Storage that its bodies could be compared with, so what comes in is
    checked by the service's own rules only.

    What goes to the vault and back is compared with the models of Microsoft's own client; a violation fails the test.
    The vault answers a request without a token with the challenge, has soft delete with the window and the purge
    protection that ``vault`` says, keeps times in whole seconds and lists versions in the order of their ids, as Key
    Vault does. What a vault says of a write to a certificate's secret is stated nowhere, and an assumption here.

    Resource Manager asks for tokens and api-versions, checks actions, throttles, and has long operations. Behind it is
    Azure DNS with the limits and the ETags of its public zones; it counts calls by ``clock``. So are the flexible
    servers of Azure Database, whose operations take ``databases.delay`` by that clock. A private PostgreSQL is started
    for a server when somebody connects to it, of whichever version this machine has. There is none for MySQL. A backup
    has what was there; a restore to another time has what is there now.

    Virtual machines come with what belongs to them: networks, security groups, interfaces, addresses, disks and images.
    They run nothing; what is done to them takes ``machines.endings.delay`` by that clock, and their creation and
    deletion can be made to fail at each point, with what Azure leaves behind then. Disks can be made by upload, and are
    page blobs meanwhile; ``machines.uploads`` says what of them is told.

    Attributes:
        service: the state, to look behind the protocol: ``service.containers["shop"].blobs["key"].content``.
        vault: the same of the vault: ``vault.secrets["shop--key"].latest.value``.
        arm: Resource Manager: ``arm.denied.add("Microsoft.Network/dnsZones/write")``.
        lifecycles: the lifecycle policy of the storage account: ``lifecycles.rules``. Nothing expires.
        dns: the state of Azure DNS: ``dns.zone("shop.example").sets["www", "A"].properties``.
        databases: the state of Azure Database: ``databases.server("orders").properties["state"]``.
        machines: the state of virtual machines: ``machines.machine("web-0").power``.
        network: the state of networks: ``network.of_kind("networkInterfaces")``.
        token: what a bearer must present.
    """

    name: ClassVar[str] = "azure"
    account: ClassVar[str] = _ACCOUNT
    token: ClassVar[str] = _TOKEN

    def __init__(self) -> None:
        super().__init__(_never, validators=[violations])
        self._state = threading.Lock()
        self.service = BlobService(Keys(_ACCOUNT, _ACCOUNT_KEY, _TOKEN, _DELEGATION_KEY), self.clock)
        self.vault = VaultService(_TOKEN, self.clock)
        operations = Operations()
        self.dns = DnsService(self.clock, operations)
        self._backends = Backends()
        self.databases = FlexibleServers(self.clock, self._backends)
        engines = [FlexibleService(flavour, self.databases) for flavour in FLAVOURS.values()]
        endings = Endings(self.clock)
        self.network = NetworkService(self.dns, endings)
        self.machines = MachineService(endings, self.network, self.service, lambda: self.url, _TOKEN)
        self.lifecycles = StorageService(_ACCOUNT)
        others = (self.network, self.machines, FeatureService(self.machines), self.lifecycles)
        self.arm = ArmService(_TOKEN, _SUBSCRIPTION, _GROUP, operations, *engines, *others)

    @property
    def config(self) -> dict[str, Any]:
        """The settings for ``shiftable.connect("azure", **double.config)``."""
        return {
            "storage_account": _ACCOUNT,
            "endpoint": f"{self.url}/{_ACCOUNT}",
            "account_key": Credential.literal(_ACCOUNT_KEY),
            "vault": _VAULT,
            "vault_endpoint": self.url,
            "vault_token": Credential.literal(_TOKEN),
            "subscription": _SUBSCRIPTION,
            "resource_group": _GROUP,
            "location": _LOCATION,
            "arm_endpoint": self.url,
            "arm_token": Credential.literal(_TOKEN),
            "database_token": Credential.literal(_TOKEN),
            "database_endpoint": self._backends.folder,
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
        """The environment variables that bring Azure's tools, in any process, to this double.

        The managed identity is the one of this double: without a credential in its settings, a provider's vault is
        reached with its token. Where the vault is, ``vault_endpoint`` must say.
        """
        return {
            "AZURE_STORAGE_CONNECTION_STRING": self.connection_string,
            "IDENTITY_ENDPOINT": f"{self.url}{_IDENTITY}",
            "IDENTITY_HEADER": _IDENTITY_HEADER,
        }

    def identify(self, request: Request) -> tuple[str, str]:
        """Name the operation as the REST reference does."""
        if request.path == _IDENTITY:
            return "identity", "GetToken"
        if request.path.startswith(SIGNED):
            return self.machines.signed_operation(request)
        if is_vault(request):
            return "secrets", self.vault.operation(request)
        if is_arm(request):
            return "arm", self.arm.operation(request)
        try:
            return "blob", self.service.operation(Asked.read(request, _ACCOUNT))
        except Refusal:
            return "blob", ""

    def answer(self, request: Request, environ: WSGIEnvironment) -> Response:  # noqa: ARG002  the request says it all
        """Execute one request at a time, so that conditions hold."""
        if request.path == _IDENTITY:
            return self._identity(request)
        with self._state:
            if request.path.startswith(SIGNED):
                return self.machines.execute_signed(request)
            if is_vault(request):
                return self.vault.execute(request)
            if is_arm(request):
                return self.arm.execute(request)
            try:
                asked = Asked.read(request, _ACCOUNT)
            except Refusal as refusal:
                return refused(refusal)
            return self.service.execute(asked)

    def close(self) -> None:
        """Stop, with the databases that somebody connected to."""
        super().close()
        self._backends.close()

    def forget(self) -> None:
        """Empty the account, the vault and the subscription."""
        with self._state:
            self.service.reset()
            self.vault.reset()
            self.arm.reset()

    def _identity(self, request: Request) -> Response:
        """Hand out the token as a managed identity of App Service does."""
        if not hmac.compare_digest(request.headers.get("X-IDENTITY-HEADER", ""), _IDENTITY_HEADER):
            return Response("401 Unauthorized", body=b'{"statusCode": 401, "message": "no identity header"}')
        expires = int(self.clock.now().timestamp()) + 86_400
        told = {"access_token": _TOKEN, "expires_on": str(expires), "token_type": "Bearer", "resource": "vault"}
        return Response("200 OK", Headers({"Content-Type": "application/json"}), json.dumps(told).encode())


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

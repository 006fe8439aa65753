"""The double of Azure, one for the whole run, emptied for each test.

Azure's definitions of its resource managers do not have the Blob service, so bodies cannot be compared with them. What
the service's own client has of definitions is the next best: no request may have a parameter or a header that this
client, which is generated from them, does not know.

Of Key Vault's secrets the double itself compares all bodies with the client's models. The resource manager's
definitions have the same fields of a secret that is deployed (``vaults/secrets``); where they lie beside the checkout,
they are compared as well.
"""

from __future__ import annotations

import contextlib
import functools
import gzip
import importlib.resources
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from shiftable_azure import AzureProvider, AzureSettings
from shiftable_azure._arm import ArmSession
from shiftable_azure._double_arm import is_arm
from shiftable_azure._double_machines import CONSOLE
from shiftable_azure._double_vault import is_vault
from shiftable_azure._flexible import FLAVOURS
from shiftable_azure._identity import Identity
from shiftable_azure._session import Session
from shiftable_azure.blob import AzureBlobDriver
from shiftable_azure.compute import AzureComputeDriver
from shiftable_azure.database import AzureDatabaseDriver
from shiftable_azure.dns import AzureDnsDriver

if TYPE_CHECKING:
    from shiftable.testing.harness import Request, Response
    from shiftable_azure.double import AzureDouble

# Of shared access signatures, from their documentation; and what the SDK adds to every request.
SIGNED = "sv sr sp se st spr sip sig ss srt si skoid sktid skt ske sks skv skdutid rscc rscd rsce rscl rsct"
COMMON = {"x-ms-date", "x-ms-client-request-id", "x-ms-version", "x-ms-return-client-request-id"}


@functools.cache
def defined() -> frozenset[str]:
    """Return the names of all parameters and headers that Microsoft's generated client sends, in lower case."""
    folder = importlib.resources.files("azure.storage.blob") / "_generated" / "operations"
    text = "".join(each.read_text() for each in folder.iterdir() if each.name.endswith("_operations.py"))
    names = re.findall(r'_(?:params|headers)\["([^"]+)"\]', text)
    assert {"comp", "startFrom", "x-ms-blob-type", "x-ms-source-if-match"} <= set(names)
    return frozenset(name.lower() for name in (*names, *SIGNED.split(), *COMMON))


def unknown_names(request: Request, _response: Response) -> Iterable[str]:
    """Find parameters and headers that no definition has."""
    if is_vault(request) or is_arm(request) or request.path.startswith(("/identity/token", CONSOLE)):
        return
    parameters = [part.partition("=")[0] for part in request.query.split("&") if part]
    headers = [name for name in request.headers.keys() if name.lower().startswith("x-ms-")]  # noqa: SIM118  several of a name
    for name in (*parameters, *headers):
        if name.lower() not in defined() and not name.lower().startswith("x-ms-meta-"):
            yield f"Azure knows no {name}"


@pytest.fixture(autouse=True)
def _only_what_azure_knows(request: pytest.FixtureRequest) -> Iterator[None]:
    if "azure_double" not in request.fixturenames:
        yield
        return
    double: AzureDouble = request.getfixturevalue("azure_double")
    validators = (unknown_names, undeployable, undefined, unlike_servers, unlike_machines, unlike_policies)
    double.validators += validators
    yield
    for validator in validators:
        double.validators.remove(validator)


def pytest_report_header() -> list[str]:
    """Say whether what is sent can be compared with the resource manager's definitions."""
    return (
        []
        if all(
            path.exists()
            for path in (DEFINITIONS, DNS_DEFINITIONS, POLICIES, *SERVER_DEFINITIONS.values(), *MACHINES.values())
        )
        else ["azure: definitions of its services are not here; the comparison with them is off"]
    )


@pytest.fixture
def provider(azure_double: AzureDouble) -> Iterator[AzureProvider]:
    made = AzureProvider(AzureSettings(**azure_double.config))
    yield made
    made.close()


@pytest.fixture
def session(provider: AzureProvider) -> Session:
    return provider.session


@pytest.fixture
def driver(provider: AzureProvider) -> AzureBlobDriver:
    made = provider.blob()
    assert isinstance(made, AzureBlobDriver)
    return made


# Key Vault's secrets: the double compares bodies with the models of Microsoft's client; the resource manager's
# definitions, which were made by other people, know the same fields of a secret that is deployed

SPECS = Path(__file__).parents[3] / "shared" / "specs" / "azure"
WITHOUT = (
    "what the double accepts is compared with Azure's own definitions (azure-rest-api-specs) where they lie beside the "
    "checkout: no package on PyPI has them"
)
DEFINITIONS = SPECS / "microsoft.keyvault@2026-02-01.json.gz"


def undeployable(request: Request, _response: Response) -> Iterable[str]:
    """Find what is sent of a secret and what the resource manager does not take for one."""
    if DEFINITIONS.exists() and is_vault(request) and request.method in {"PUT", "PATCH"} and request.body:
        yield from deployed_violations(json.loads(request.body))


@functools.cache
def deployed() -> dict[str, Any]:
    return {found.get("name", ""): found for found in json.loads(gzip.decompress(DEFINITIONS.read_bytes()))}


def deployed_violations(body: Any) -> list[str]:
    if not isinstance(body, dict):
        return ["no object"]
    known = {*deployed()["SecretProperties"]["properties"], "tags"}
    attributes = deployed()["SecretAttributes"]["properties"]
    given = body.get("attributes") or {}
    read_only = [name for name in given if name not in attributes or attributes[name]["flags"] & 2]
    return [f"vaults/secrets has no {name} to write" for name in (*(body.keys() - known), *read_only)]


@pytest.fixture
def resource_manager() -> Any:
    """Return the comparison with the resource manager's definitions."""
    if not DEFINITIONS.exists():
        pytest.skip(WITHOUT)
    return deployed_violations


# Azure DNS: what is sent and answered of zones and record sets, compared with the definitions of Resource Manager


@pytest.fixture
def make_arm(azure_double: AzureDouble) -> Iterator[Callable[..., ArmSession]]:
    """Return what makes sessions, with other settings, whose waiting is the double's time passing."""
    with contextlib.ExitStack() as stack:

        def make(**changed: Any) -> ArmSession:
            settings, clock = AzureSettings(**{**azure_double.config, **changed}), azure_double.clock
            made = ArmSession(settings, Identity(settings), pause=clock.advance, clock=lambda: clock.now().timestamp())
            stack.callback(made.close)
            return made

        yield make


@pytest.fixture
def arm(make_arm: Callable[..., ArmSession]) -> ArmSession:
    return make_arm()


@pytest.fixture
def dns_driver(arm: ArmSession) -> AzureDnsDriver:
    return AzureDnsDriver(arm)


DNS_DEFINITIONS = SPECS / "microsoft.network@2018-05-01.json.gz"
LATER = {"DSRecords", "NAPTRRecords", "TLSARecords", "trafficManagementProfile"}  # of a later version than the file
READ_ONLY = 2


def undefined(request: Request, response: Response) -> Iterable[str]:
    """Find what Azure's definitions of its DNS do not have, in what is sent and in what is answered."""
    if not DNS_DEFINITIONS.exists() or not is_arm(request):
        return
    parts = request.path.split("/")
    if "dnszones" not in request.path.lower() or "dnssecConfigs" in parts:
        return
    if request.body:
        yield from dns_violations(resource_type(parts), json.loads(request.body), sent=True)
    if response.code in {200, 201} and response.body:
        content = json.loads(response.body)
        for each in content.get("value", [content]):
            yield from dns_violations(each["type"], each)


def resource_type(parts: list[str]) -> str:
    at = [part.lower() for part in parts].index("dnszones")
    return "/".join(["Microsoft.Network/dnsZones", *parts[at + 2 : at + 3]])


def dns_violations(kind: str, body: Any, *, sent: bool = False) -> list[str]:
    found = dns_definitions().get(kind.lower())
    if found is None:
        return [] if kind.rpartition("/")[2] in {"DS", "NAPTR", "TLSA"} else [f"{kind} is not defined"]
    return list(_compared(found, body, kind, sent=sent))


@functools.cache
def dns_definitions() -> dict[str, Any]:
    kinds = json.loads(gzip.decompress(DNS_DEFINITIONS.read_bytes()))
    return {
        kind["name"].partition("@")[0].lower(): _resolved(kind["body"], kinds)
        for kind in kinds
        if kind["$type"] == "ResourceType" and "/dnsZones" in kind["name"]
    }


def _resolved(kind: Any, kinds: list[Any]) -> Any:
    """Replace references to other types by those types."""
    found = dict(kinds[int(kind["$ref"].removeprefix("#/"))])
    if "properties" in found:
        found["properties"] = {
            name: {**each, "type": _resolved(each["type"], kinds)} for name, each in found["properties"].items()
        }
    for name in ("itemType", "additionalProperties"):
        if name in found:
            found[name] = _resolved(found[name], kinds)
    if "elements" in found:
        found["elements"] = [_resolved(each, kinds) for each in found["elements"]]
    return found


def _compared(kind: Any, value: Any, place: str, *, sent: bool) -> Iterator[str]:
    simple = {"StringType": str, "IntegerType": int, "StringLiteralType": str, "BooleanType": bool}
    if kind["$type"] in simple:
        if type(value) is not simple[kind["$type"]]:
            yield f"{place} is {type(value).__name__}, not {kind['$type']}"
        elif kind["$type"] == "StringLiteralType" and str(value).lower() != kind["value"].lower():
            yield f"{place} is {value!r}, not {kind['value']!r}"
    elif kind["$type"] == "UnionType":
        if all(any(_compared(each, value, place, sent=sent)) for each in kind["elements"]):
            yield f"{place} is {value!r}, which is none of its kinds"
    elif kind["$type"] == "ArrayType":
        if type(value) is not list:
            yield f"{place} is no list"
            return
        for number, each in enumerate(value):
            yield from _compared(kind["itemType"], each, f"{place}[{number}]", sent=sent)
    elif type(value) is not dict:
        yield f"{place} is no object"
    else:
        yield from _compared_object(kind, value, place, sent=sent)


def _compared_object(kind: Any, value: dict[str, Any], place: str, *, sent: bool) -> Iterator[str]:
    for name, each in value.items():
        known = kind["properties"].get(name)
        if known is None and "additionalProperties" in kind:
            yield from _compared(kind["additionalProperties"], each, f"{place}.{name}", sent=sent)
        elif known is None and name not in LATER:
            yield f"{place} has no {name}"
        elif known is not None and sent and known["flags"] & READ_ONLY:
            yield f"{place}.{name} is not the caller's to say"
        elif known is not None:
            yield from _compared(known["type"], each, f"{place}.{name}", sent=sent)
    required = {name for name, each in kind["properties"].items() if each["flags"] & 1} - {"name"}
    yield from (f"{place} needs {name}" for name in sorted(required - value.keys()))


@pytest.fixture
def azure_dns_definitions() -> Any:
    """Return the comparison with Azure's definitions of its DNS."""
    if not DNS_DEFINITIONS.exists():
        pytest.skip(WITHOUT)
    return dns_violations


# Azure Database: what is sent and answered of servers and of what belongs to them


@pytest.fixture
def make_databases(make_arm: Callable[..., ArmSession]) -> Callable[..., AzureDatabaseDriver]:
    """Return what makes drivers, with other settings."""

    def make(**changed: Any) -> AzureDatabaseDriver:
        session = make_arm(**changed)
        settings = session._settings
        return AzureDatabaseDriver(session, Identity(settings), settings)

    return make


@pytest.fixture
def database_driver(make_databases: Callable[..., AzureDatabaseDriver]) -> AzureDatabaseDriver:
    return make_databases()


SERVER_DEFINITIONS = {
    flavour.namespace.lower(): SPECS / f"{flavour.namespace.lower()}@{flavour.version}.json.gz"
    for flavour in FLAVOURS.values()
}


def unlike_servers(request: Request, response: Response) -> Iterable[str]:
    """Find what Azure's definitions of flexible servers do not have, in what is sent and in what is answered."""
    parts = request.path.strip("/").split("/")
    namespace = next((part.lower() for part in parts if part.lower() in SERVER_DEFINITIONS), None)
    if namespace is None or not is_arm(request) or not SERVER_DEFINITIONS[namespace].exists():
        return
    if "Microsoft.Authorization" in parts or request.method == "POST":
        return
    below = [part.lower() for part in parts]
    first = next((each for each in ("flexibleservers", "locations") if each in below), None)
    below = below[below.index(first) :: 2] if first else []
    kind = "/".join([namespace, *below])
    if first == "locations" and kind not in server_definitions(namespace):
        return  # of what stands alone beside the servers, only some is defined
    if request.body.strip() not in {b"", b"null"}:
        yield from server_violations(namespace, kind, json.loads(request.body), sent=request.method)
    if response.code in {200, 201} and response.body:
        content = json.loads(response.body)
        for each in content.get("value", [content]):
            yield from server_violations(namespace, kind, each)


def server_violations(namespace: str, kind: str, body: Any, *, sent: str = "") -> list[str]:
    """Compare a body; one of a PATCH may leave out what a server needs."""
    found = server_definitions(namespace).get(kind)
    if found is None:
        return [f"{kind} is not defined"]
    findings = _compared(found, body, kind, sent=bool(sent))
    return [each for each in findings if not (sent == "PATCH" and each == f"{kind} needs location")]


@functools.cache
def server_definitions(namespace: str) -> dict[str, Any]:
    kinds = json.loads(gzip.decompress(SERVER_DEFINITIONS[namespace].read_bytes()))
    return {
        kind["name"].partition("@")[0].lower(): _resolved(kind["body"], kinds)
        for kind in kinds
        if kind["$type"] == "ResourceType"
    }


@pytest.fixture
def azure_server_definitions() -> Any:
    """Return the comparison with Azure's definitions of flexible servers."""
    if not all(path.exists() for path in SERVER_DEFINITIONS.values()):
        pytest.skip(WITHOUT)
    return server_violations


# The lifecycle policy of a storage account


POLICIES = SPECS / "microsoft.storage@2026-04-01.json.gz"


def unlike_policies(request: Request, response: Response) -> Iterable[str]:
    """Find what Azure's definitions of lifecycle policies do not have, in what is sent and in what is answered."""
    if "/managementPolicies/" not in request.path or not is_arm(request) or not POLICIES.exists():
        return
    if request.body:
        yield from policy_violations(json.loads(request.body), sent=True)
    if response.code == 200 and response.body:
        yield from policy_violations(json.loads(response.body))


def policy_violations(body: Any, *, sent: bool = False) -> list[str]:
    return list(_compared(policy_definition(), body, "the policy", sent=sent))


@functools.cache
def policy_definition() -> Any:
    kinds = json.loads(gzip.decompress(POLICIES.read_bytes()))
    (found,) = [
        kind
        for kind in kinds
        if kind["$type"] == "ResourceType" and kind["name"].partition("@")[0].endswith("/managementPolicies")
    ]
    return _resolved(found["body"], kinds)


@pytest.fixture
def azure_policy_definitions() -> Any:
    """Return the comparison with Azure's definitions of lifecycle policies."""
    if not POLICIES.exists():
        pytest.skip(WITHOUT)
    return policy_violations


# Virtual machines and networks: what is sent and answered of them


@pytest.fixture
def make_compute(make_arm: Callable[..., ArmSession]) -> Iterator[Callable[..., AzureComputeDriver]]:
    """Return what makes drivers, with other settings."""
    with contextlib.ExitStack() as stack:

        def make(**changed: Any) -> AzureComputeDriver:
            arm = make_arm(**changed)
            storage = Session(arm._settings)
            stack.callback(storage.close)
            return AzureComputeDriver(arm, lambda: storage)

        yield make


@pytest.fixture
def compute_driver(make_compute: Callable[..., AzureComputeDriver]) -> AzureComputeDriver:
    return make_compute()


MACHINES = {
    "microsoft.compute": SPECS / "microsoft.compute@2026-04-01.json.gz",
    "microsoft.network": SPECS / "microsoft.network@2025-09-01.json.gz",
}
DEFINED = {
    "microsoft.compute/availabilitysets",
    "microsoft.compute/proximityplacementgroups",
    "microsoft.compute/virtualmachines",
    "microsoft.network/virtualnetworks",
    "microsoft.network/networksecuritygroups",
    "microsoft.network/networkinterfaces",
    "microsoft.network/publicipaddresses",
}  # disks, galleries and sizes have versions of their own, whose definitions are not there
ACTIONS = {
    "attachDetachDataDisks": "AttachDetachDataDisksRequest",
    "retrieveBootDiagnosticsData": "RetrieveBootDiagnosticsDataResult",
}


def unlike_machines(request: Request, response: Response) -> Iterable[str]:
    """Find what Azure's definitions of machines and networks do not have, in what is sent and in what is answered."""
    parts = request.path.strip("/").split("/")
    namespace = next((part.lower() for part in parts if part.lower() in MACHINES), None)
    if namespace is None or not is_arm(request) or not MACHINES[namespace].exists():
        return
    below = parts[[part.lower() for part in parts].index(namespace) + 1 :]
    kind = f"{namespace}/{below[0].lower()}"
    if kind not in DEFINED:
        return
    said = json.loads(request.body) if request.body.strip() not in {b"", b"null"} else None
    answered = json.loads(response.body) if response.code in {200, 201} and response.body else None
    if len(below) == 3:
        yield from action_violations(below[2], said, answered)
        return
    if said is not None:
        yield from machine_violations(kind, said, sent=request.method)
    for each in [] if answered is None else answered.get("value", [answered]):
        yield from machine_violations(kind, each)


def action_violations(action: str, said: Any, answered: Any) -> Iterator[str]:
    """Compare what goes with an action of a machine, where it is defined."""
    for body, name in ((said, "AttachDetachDataDisksRequest"), (answered, "RetrieveBootDiagnosticsDataResult")):
        if body is not None and ACTIONS.get(action) == name:
            yield from _compared(named_definition(name), body, action, sent=body is said)


def machine_violations(kind: str, body: Any, *, sent: str = "") -> list[str]:
    """Compare a body; one of a PATCH may leave out what a machine needs."""
    findings = _compared(machine_definitions(kind.partition("/")[0])[kind], body, kind, sent=bool(sent))
    return [each for each in findings if not (sent == "PATCH" and each == f"{kind} needs location")]


class Lazy(Mapping[str, Any]):
    """A type whose references to others are followed when somebody looks: networks refer to each other in circles."""

    def __init__(self, found: Any, kinds: list[Any]) -> None:
        self._found = found
        self._kinds = kinds
        self._followed: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._followed:
            self._followed[name] = self._follow(name, self._found[name])
        return self._followed[name]

    def _follow(self, name: str, value: Any) -> Any:
        if name in {"itemType", "additionalProperties"}:
            return self._of(value)
        if name == "elements":
            return [self._of(each) for each in value]
        if name == "properties":
            return {field: {**each, "type": self._of(each["type"])} for field, each in value.items()}
        return value

    def _of(self, reference: Any) -> Lazy:
        return Lazy(self._kinds[int(reference["$ref"].removeprefix("#/"))], self._kinds)

    def __iter__(self) -> Iterator[str]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)


@functools.cache
def machine_kinds(namespace: str) -> list[Any]:
    found: list[Any] = json.loads(gzip.decompress(MACHINES[namespace].read_bytes()))
    return found


@functools.cache
def machine_definitions(namespace: str) -> dict[str, Any]:
    kinds = machine_kinds(namespace)
    return {
        kind["name"].partition("@")[0].lower(): Lazy(kinds[int(kind["body"]["$ref"].removeprefix("#/"))], kinds)
        for kind in kinds
        if kind["$type"] == "ResourceType"
    }


def named_definition(name: str) -> Any:
    kinds = machine_kinds("microsoft.compute")
    return Lazy(next(kind for kind in kinds if kind.get("name") == name), kinds)


@pytest.fixture
def azure_machine_definitions() -> Any:
    """Return the comparison with Azure's definitions of machines and networks."""
    if not all(path.exists() for path in MACHINES.values()):
        pytest.skip(WITHOUT)
    return machine_violations

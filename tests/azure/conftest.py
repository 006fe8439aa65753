"""The double of Azure, one for the whole run, emptied for each test.

Azure's definitions of its resource managers do not have the Blob service, so bodies cannot be compared with them. What
the service's own client has of definitions is the next best: no request may have a parameter or a header that this
client, which is generated from them, does not know.

Of Key Vault's secrets the double itself compares all bodies with the client's models. The resource manager's
definitions have the same fields of a secret that is deployed (``vaults/secrets``); where they lie beside the checkout,
they are compared as well.
"""

from __future__ import annotations

import functools
import gzip
import importlib.resources
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from shiftable_azure import AzureProvider, AzureSettings
from shiftable_azure._double_vault import is_vault
from shiftable_azure._session import Session
from shiftable_azure.blob import AzureBlobDriver

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
    if is_vault(request) or request.path == "/identity/token":
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
    double.validators += (unknown_names, undeployable)
    yield
    for validator in (unknown_names, undeployable):
        double.validators.remove(validator)


def pytest_report_header() -> list[str]:
    """Say whether what is sent can be compared with the resource manager's definitions."""
    return [] if DEFINITIONS.exists() else ["azure: the resource manager's definitions are not here; one check is off"]


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

DEFINITIONS = Path(__file__).parents[3] / "shared" / "specs" / "azure" / "microsoft.keyvault@2026-02-01.json.gz"


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
        pytest.skip("the resource manager's definitions are not beside the checkout: this one check is off")
    return deployed_violations

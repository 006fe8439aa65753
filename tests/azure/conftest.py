"""The double of Azure, one for the whole run, emptied for each test."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from shiftable_azure import AzureProvider, AzureSettings
from shiftable_azure._session import Session
from shiftable_azure.blob import AzureBlobDriver

if TYPE_CHECKING:
    from shiftable_azure.double import AzureDouble


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

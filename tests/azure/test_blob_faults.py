"""Azure Blob Storage while connections break and servers are busy."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from shiftable.blob import BlobStore
from shiftable.testing.harness import Double
from shiftable_azure import AzureProvider, AzureSettings
from shiftable_azure.blob import AzureBlobDriver
from shiftable_azure.double import AzureDouble

from ..blob_faults import BlobFaults


def opened(double: AzureDouble, lane: str, **more: Any) -> Iterator[BlobStore]:
    provider = AzureProvider(AzureSettings(**double.config, blob_versioning=True, **more))
    made = provider.blob()
    assert isinstance(made, AzureBlobDriver)
    yield BlobStore(made.lane() if lane == "lane" else made)
    provider.close()


class TestAzureBlob(BlobFaults):
    @pytest.fixture(params=["sdk", "lane"])
    def store(self, azure_double: AzureDouble, request: pytest.FixtureRequest) -> Iterator[BlobStore]:
        azure_double.service.versioning = azure_double.service.immutable = True  # what the management plane does
        yield from opened(azure_double, request.param)

    @pytest.fixture
    def hasty(self, azure_double: AzureDouble) -> Iterator[BlobStore]:
        yield from opened(azure_double, "sdk", max_attempts=2)

    @pytest.fixture
    def double(self, azure_double: AzureDouble) -> Double:
        return azure_double

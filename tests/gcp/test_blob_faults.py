"""Cloud Storage while connections break and servers are busy."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from shiftable.blob import BlobStore
from shiftable.testing.harness import Double
from shiftable_gcp import GcpSettings
from shiftable_gcp._session import Session
from shiftable_gcp.blob import GcsDriver

from ..blob_faults import BlobFaults


def opened(double: Double, lane: str, **more: Any) -> Iterator[BlobStore]:
    made = GcsDriver(Session(GcpSettings(**{**double.config, **more})))
    yield BlobStore(made.lane() if lane == "lane" else made)
    made.close()


@pytest.mark.usefixtures("short_waits")
class TestCloudStorage(BlobFaults):
    @pytest.fixture(params=["sdk", "lane"])
    def store(self, gcp_double: Double, request: pytest.FixtureRequest) -> Iterator[BlobStore]:
        yield from opened(gcp_double, request.param)

    @pytest.fixture
    def hasty(self, gcp_double: Double) -> Iterator[BlobStore]:
        yield from opened(gcp_double, "sdk", retry_seconds=0.05)

    @pytest.fixture
    def double(self, gcp_double: Double) -> Double:
        return gcp_double

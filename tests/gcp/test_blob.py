"""Cloud Storage through the conformance classes, and what is its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from shiftable.blob import BlobStore
from shiftable.testing.conformance.blob import BlobConformance, BlobOracle, blob_machine
from shiftable_gcp import GcpSettings
from shiftable_gcp._session import Session
from shiftable_gcp._state import Conditions, Stored
from shiftable_gcp.blob import GcsDriver
from shiftable_gcp.double import GcpDouble


class Inside:
    """Looks into the double's own tables."""

    def __init__(self, double: GcpDouble) -> None:
        self._state = double.state

    def put_raw(self, bucket: str, key: str, data: bytes) -> None:
        with self._state.lock:
            self._state.write(bucket, Stored(name=key, data=data), Conditions())

    def get_raw(self, bucket: str, key: str) -> bytes | None:
        found = self._state.bucket(bucket).live(key)
        return None if found is None else found.data

    def keys(self, bucket: str) -> list[str]:
        holder = self._state.bucket(bucket)
        return [name for name in holder.objects if holder.live(name) is not None]


@pytest.fixture
def driver(gcp_double: GcpDouble) -> Iterator[GcsDriver]:
    made = GcsDriver(Session(GcpSettings(**gcp_double.config)))
    yield made
    made.close()


class TestCloudStorage(BlobConformance):
    @pytest.fixture
    def driver(self, driver: GcsDriver) -> GcsDriver:
        return driver

    @pytest.fixture
    def oracle(self, gcp_double: GcpDouble) -> BlobOracle:
        return Inside(gcp_double)

    def test_the_machine_finds_no_difference_to_the_model(self, driver: GcsDriver) -> None:
        run_state_machine_as_test(
            blob_machine(lambda: BlobStore(driver)),
            settings=settings(max_examples=8, stateful_step_count=25, suppress_health_check=list(HealthCheck)),
        )

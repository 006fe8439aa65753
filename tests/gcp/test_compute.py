"""Compute Engine keeps the rules for machines, at a double that keeps Google's."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from shiftable.blob import BlobStore, BucketSpec
from shiftable.compute import Compute, DiskImage
from shiftable.compute.driver import ComputeDriver
from shiftable.testing.conformance import differs
from shiftable.testing.conformance.compute import ComputeConformance, Sleep, compute_machine
from shiftable_gcp import GcpProvider
from shiftable_gcp.double import GcpDouble

from .archives import archive


def _no_time(_seconds: float) -> None:
    """Let no time pass: operations are done after so many looks at them."""


class TestComputeEngine(ComputeConformance):
    unknown_images = ("debian-99", "projects/debian-cloud/global/images/debian-99-v1", "golden-99")
    images_take_time = True

    @pytest.fixture
    def driver(self, provider: GcpProvider, gcp_double: GcpDouble) -> ComputeDriver:
        gcp_double.compute.page_size = 100
        return provider.compute()

    @pytest.fixture
    def sleep(self) -> Sleep:
        return _no_time

    @pytest.fixture
    def disk_image(self, provider: GcpProvider) -> DiskImage:
        BlobStore(provider.blob()).create(BucketSpec(name="images")).put("linux/web.tar.gz", archive())
        return DiskImage(bucket="images", key="linux/web.tar.gz", form="gce")

    @differs("the table of prices does not know the families of ARM, those with GPUs and the newest ones")
    def test_sizes_are_listed_once_each(self, compute: Compute) -> None:
        sizes = list(compute.sizes())
        assert len(sizes) == len({size.name for size in sizes})
        assert set(compute.features.arches) <= {size.arch for size in sizes}
        unknown = {size.name.partition("-")[0] for size in sizes if size.price is None}
        assert unknown == {"a2", "g2", "n4", "t2a"}


class TestComputeEngineWhenItTakesLong(TestComputeEngine):
    many = 101

    @pytest.fixture(autouse=True)
    def _slow(self, gcp_double: GcpDouble) -> None:
        gcp_double.compute.polls = 9


def test_the_driver_does_what_the_model_does(provider: GcpProvider, gcp_double: GcpDouble) -> None:
    def make_driver() -> ComputeDriver:
        gcp_double.reset()
        return provider.compute()

    run_state_machine_as_test(compute_machine(make_driver, _no_time), settings=settings.get_profile("machine"))

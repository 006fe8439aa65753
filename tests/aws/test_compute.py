"""EC2 as the rules for all machines want it, by the double, and what is EC2's own."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from shiftable.blob import BlobStore, BucketSpec
from shiftable.compute import DiskImage
from shiftable.compute.driver import ComputeDriver
from shiftable.testing.conformance.compute import ComputeConformance, compute_machine
from shiftable_aws import AwsProvider
from shiftable_aws.double import AwsDouble

DELAY = timedelta(seconds=2)


class TestEc2(ComputeConformance):
    """The rules for all compute drivers, with machines that take their time, and pages of a hundred."""

    unknown_images = ("debian-99", "ami-0123456789abcdef0")
    images_take_time = True

    @pytest.fixture
    def driver(self, provider: AwsProvider, aws_double: AwsDouble) -> ComputeDriver:
        aws_double.ec2.delay = DELAY
        aws_double.ec2.disks.delay = aws_double.ec2.imports.delay = DELAY
        aws_double.ec2.page_size = 100
        return provider.compute()

    @pytest.fixture
    def sleep(self, aws_double: AwsDouble) -> Callable[[float], None]:
        return aws_double.clock.advance

    @pytest.fixture
    def disk_image(self, provider: AwsProvider, vmimport: str) -> DiskImage:
        assert vmimport
        BlobStore(provider.blob()).create(BucketSpec(name="images")).put("linux/web.raw", bytes(1024))
        return DiskImage(bucket="images", key="linux/web.raw", form="raw")


def test_any_sequence_of_calls_leaves_the_machines_that_are_declared(
    provider: AwsProvider, aws_double: AwsDouble
) -> None:
    def empty() -> ComputeDriver:
        aws_double.reset()
        aws_double.ec2.delay = DELAY
        return provider.compute()

    few = settings(
        max_examples=5, stateful_step_count=12, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
    )
    run_state_machine_as_test(compute_machine(empty, aws_double.clock.advance), settings=few)

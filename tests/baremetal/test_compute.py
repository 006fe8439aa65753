"""Machines of QEMU keep the rules of compute; here QEMU's programs are stood in for: see qemu_standin.py."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from shiftable.blob import BlobStore, BucketSpec
from shiftable.compute.driver import ComputeDriver
from shiftable.memory.blob import MemoryBlobDriver
from shiftable.testing.conformance.compute import ComputeConformance, Sleep, compute_machine


def soon(seconds: float) -> None:
    time.sleep(min(seconds, 0.05))


class TestQemuCompute(ComputeConformance):
    many = 12

    @pytest.fixture
    def driver(self, qemu: Any) -> ComputeDriver:
        blobs = MemoryBlobDriver()
        BlobStore(blobs).create(BucketSpec(name="images")).put("web.raw", bytes(2**20))
        driver: ComputeDriver = qemu.driver(blobs=lambda: blobs)
        return driver

    @pytest.fixture
    def sleep(self) -> Sleep:
        return soon


def test_any_sequence_leaves_what_is_declared(
    make_qemu: Callable[[Path], Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    def make() -> ComputeDriver:
        driver: ComputeDriver = make_qemu(tmp_path_factory.mktemp("qemu")).driver()
        return driver

    few = settings(max_examples=3, stateful_step_count=8, deadline=None, database=None, derandomize=True)
    run_state_machine_as_test(compute_machine(make, soon), settings=settings(few, phases=[Phase.generate]))

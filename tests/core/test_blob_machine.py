from typing import Any

import hypothesis
import pytest
from hypothesis.stateful import run_state_machine_as_test

from shiftable.blob import BlobStore
from shiftable.blob.driver import BlobDriver, Download, PutOptions
from shiftable.memory.blob import MemoryBlobDriver
from shiftable.paging import Page
from shiftable.testing.conformance.blob import blob_machine
from shiftable.testing.wrap import Call, Recorded

SETTINGS = hypothesis.settings(max_examples=100, stateful_step_count=40)
# A fault is to be found, each time the same, and not to be made small.
FINDING = hypothesis.settings(
    SETTINGS, phases=[hypothesis.Phase.generate], derandomize=True, report_multiple_bugs=False, database=None
)


def make_store() -> BlobStore:
    return BlobStore(MemoryBlobDriver(page_size=2))


TestMemory = blob_machine(make_store).TestCase
TestMemory.settings = SETTINGS


def test_the_machine_finds_a_store_that_forgets_the_condition() -> None:
    def make() -> BlobStore:
        recorded: Recorded[BlobDriver] = Recorded(MemoryBlobDriver())

        def put(call: Call, _proceed: object) -> object:
            bucket, key, data, _ = call.args
            return recorded.inner.put(bucket, key, data, PutOptions())

        recorded.on("put", put)
        return BlobStore(recorded.driver)

    with pytest.raises(AssertionError):
        run_state_machine_as_test(blob_machine(make), settings=FINDING)


def test_the_machine_finds_a_store_that_ignores_ranges() -> None:
    def make() -> BlobStore:
        recorded: Recorded[BlobDriver] = Recorded(MemoryBlobDriver())

        def get(call: Call, _proceed: object) -> Download:
            kwargs = {**call.kwargs, "range_": None}
            return recorded.inner.get(*call.args, **kwargs)

        recorded.on("get", get)
        return BlobStore(recorded.driver)

    with pytest.raises(AssertionError):
        run_state_machine_as_test(blob_machine(make), settings=FINDING)


def test_the_machine_finds_a_store_that_lists_in_another_order() -> None:
    def make() -> BlobStore:
        recorded: Recorded[BlobDriver] = Recorded(MemoryBlobDriver())

        def swapped(page: Page[Any]) -> Page[Any]:
            return Page((*page.items[1:2], *page.items[:1], *page.items[2:]), page.next)

        recorded.on("list", lambda _call, proceed: swapped(proceed()))
        return BlobStore(recorded.driver)

    with pytest.raises(AssertionError):
        run_state_machine_as_test(blob_machine(make), settings=FINDING)

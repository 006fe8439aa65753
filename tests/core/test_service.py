"""What all services share: changes as values."""

import pytest

from shiftable.blob import BlobStore, BucketSpec
from shiftable.database import DatabaseSpec
from shiftable.errors import Conflict, NotFound
from shiftable.memory.blob import MemoryBlobDriver
from shiftable.service import Change


def test_a_change_that_creates_names_the_fields_that_are_no_defaults() -> None:
    spec = DatabaseSpec(
        name="orders", engine="postgresql", version="16", cpus=1, memory_gib=2, storage_gib=10, labels={"a": "b"}
    )
    change = Change(service="database", before=None, after=spec)
    assert ["engine", "version", "cpus", "memory_gib", "storage_gib", "labels"] == [f.name for f in change.fields]


class Obedient(MemoryBlobDriver):
    """Does what it is told without a look at what is there, as most providers."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[str] = []

    def update(self, current: BucketSpec, spec: BucketSpec) -> None:
        self.sent.append("update")

    def destroy(self, name: str) -> None:
        self.sent.append("destroy")


@pytest.mark.parametrize("after", [None, BucketSpec(name="shop")])
def test_a_change_that_is_out_of_date_is_refused_and_nothing_is_sent(after: BucketSpec | None) -> None:
    driver = Obedient()
    blobs, plain, versioned = BlobStore(driver), BucketSpec(name="shop"), BucketSpec(name="shop", versioning=True)
    blobs.create(plain)
    with pytest.raises(Conflict, match=r"on bucket 'shop' \(memory\): it is no longer what the change starts from"):
        blobs.apply(Change(service="blob", before=versioned, after=after))
    assert [] == driver.sent
    assert plain == blobs.describe("shop")


@pytest.mark.parametrize("after", [None, BucketSpec(name="shop")])
def test_a_change_of_what_is_gone_is_refused(after: BucketSpec | None) -> None:
    driver = Obedient()
    with pytest.raises(NotFound):
        BlobStore(driver).apply(Change(service="blob", before=BucketSpec(name="shop", versioning=True), after=after))
    assert [] == driver.sent

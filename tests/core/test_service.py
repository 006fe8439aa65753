"""What all services share: changes as values."""

from shiftable.database import DatabaseSpec
from shiftable.service import Change


def test_a_change_that_creates_names_the_fields_that_are_no_defaults() -> None:
    spec = DatabaseSpec(
        name="orders", engine="postgresql", version="16", cpus=1, memory_gib=2, storage_gib=10, labels={"a": "b"}
    )
    change = Change(service="database", before=None, after=spec)
    assert ["engine", "version", "cpus", "memory_gib", "storage_gib", "labels"] == [f.name for f in change.fields]

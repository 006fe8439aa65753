"""Whatever is done in whatever order, files and the model in memory answer alike."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from shiftable.blob import BlobStore, Bucket, BucketSpec
from shiftable.errors import OperationError
from shiftable.memory.blob import MemoryBlobDriver
from shiftable_baremetal.blob import FilesDriver

KEYS = st.sampled_from(["a", "a-b", "b/c", "b/d/e", "b/é"])
CONTENTS = st.binary(max_size=3)
METADATA = st.dictionaries(st.sampled_from(["m", "n"]), st.sampled_from(["1", "ü"]), max_size=2)
CONDITIONS = st.sampled_from(["none", "absent", "match", "stale"])


class Both(RuleBasedStateMachine):
    """Does everything twice and compares."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp())
        stores = BlobStore(FilesDriver(self.root, fsync=False)), BlobStore(MemoryBlobDriver())
        self.stores = stores
        self.buckets: tuple[Bucket, ...] = ()
        self.first: dict[str, tuple[Any, ...]] = {}

    def teardown(self) -> None:
        self.stores[0].close()
        shutil.rmtree(self.root)

    def both(self, call: Callable[[Bucket, int], Any]) -> None:
        """Do it in both; each returns the same or raises the same class."""
        if not self.buckets:
            return
        answers = []
        for place, bucket in enumerate(self.buckets):
            try:
                answers.append(call(bucket, place))
            except OperationError as exc:
                answers.append(type(exc))
        assert answers[0] == answers[1]

    @initialize(versioning=st.booleans())
    def begin(self, versioning: bool) -> None:  # noqa: FBT001  hypothesis gives it by name
        self.buckets = tuple(store.create(BucketSpec(name="shop", versioning=versioning)) for store in self.stores)

    @rule(key=KEYS, data=CONTENTS, metadata=METADATA, condition=CONDITIONS)
    def put(self, key: str, data: bytes, metadata: dict[str, str], condition: str) -> None:
        tokens = [bucket.stat(key).token if bucket.exists(key) else None for bucket in self.buckets]

        def write(bucket: Bucket, place: int) -> tuple[int, bytes | None]:
            token = tokens[place] if condition == "match" else self.first.get(key, (None, None))[place]
            options: dict[str, Any] = {"if_absent": True} if condition == "absent" else {}
            if condition in {"match", "stale"} and token is not None:
                options = {"if_match": token}
            info = bucket.put(key, data, metadata=metadata, tags=metadata, **options)
            return info.size, info.md5

        self.both(write)
        if key not in self.first and all(bucket.exists(key) for bucket in self.buckets):
            self.first[key] = tuple(bucket.stat(key).token for bucket in self.buckets)

    @rule(key=KEYS, condition=CONDITIONS)
    def delete(self, key: str, condition: str) -> None:
        def remove(bucket: Bucket, place: int) -> None:
            token = self.first.get(key, (None, None))[place] if condition == "stale" else None
            bucket.delete(key, if_match=token)

        self.both(remove)

    @rule(key=KEYS, to_key=KEYS)
    def copy(self, key: str, to_key: str) -> None:
        self.both(lambda bucket, _: bucket.copy(key, to_key).size)

    @rule(key=KEYS, tags=METADATA)
    def set_tags(self, key: str, tags: dict[str, str]) -> None:
        self.both(lambda bucket, _: bucket.set_tags(key, tags))

    @rule()
    def switch_versioning_on(self) -> None:
        for store in self.stores:
            for change in store.diff(BucketSpec(name="shop", versioning=True)):
                store.apply(change)

    @rule(number=st.integers(0, 5))
    def delete_a_version(self, number: int) -> None:
        def remove(bucket: Bucket, _: int) -> None:
            rows = list(bucket.versions())
            if rows:
                row = rows[number % len(rows)]
                bucket.delete(row.key, version=row.version)

        self.both(remove)

    @invariant()
    def objects_are_the_same(self) -> None:
        def objects(bucket: Bucket, _: int) -> list[Any]:
            return [
                (item.key, bucket.get(item.key), dict(bucket.stat(item.key).metadata), bucket.tags(item.key))
                for item in bucket.list()
            ]

        self.both(objects)

    @invariant()
    def histories_are_the_same(self) -> None:
        def history(bucket: Bucket, _: int) -> list[Any]:
            return [
                (row.key, None if row.deleted else bucket.get(row.key, version=row.version), row.latest)
                for row in bucket.versions()
            ]

        self.both(history)

    @invariant()
    def files_are_the_objects_and_nothing_else(self) -> None:
        if not self.buckets:
            return
        folder = self.root / "shop"
        found = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
        assert found == sorted(item.key for item in self.buckets[1].list())
        assert all(any(path.iterdir()) for path in folder.rglob("*") if path.is_dir())


TestBoth = Both.TestCase
TestBoth.settings = settings(max_examples=60, stateful_step_count=30)

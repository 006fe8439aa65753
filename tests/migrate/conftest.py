"""Two clouds in memory and an application between them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import attrs
import pytest

from shiftable.blob import BlobFeatures, BlobStore, Bucket, BucketSpec, ObjectInfo
from shiftable.blob.driver import Download, PutOptions, Range
from shiftable.errors import Fault, OperationError
from shiftable.memory._faults import MemoryFault
from shiftable.memory.blob import MemoryBlobDriver
from shiftable.memory.secrets import MemorySecretsDriver
from shiftable.migrate import Migration, Options, Silent
from shiftable.migrate._engine import Engine
from shiftable.paging import Page
from shiftable.secrets import Secrets, SecretsFeatures, SecretsSpec, SecretStore
from shiftable.service import Spec
from shiftable.tokens import Token

BUCKET = "shop-assets"
PREFIX = "shop"


class Blobs(MemoryBlobDriver):
    """The memory driver with a hook before each call, a log of them, and features to choose."""

    def __init__(self, **features: Any) -> None:
        super().__init__(page_size=100)
        self.chosen = features
        self.hook: Callable[[str, str], None] = lambda _operation, _key: None
        self.damage: Callable[[str, bytes], bytes] = lambda _key, data: data
        self.keys_refused: Callable[[str], str | None] = lambda _key: None
        self.lists_md5 = True
        self.writes: list[tuple[str, str]] = []

    @property
    def features(self) -> BlobFeatures:
        return attrs.evolve(super().features, **self.chosen)

    def check_key(self, key: str) -> str | None:
        return super().check_key(key) or self.keys_refused(key)

    def list(self, bucket: str, **kwargs: Any) -> Page[Any]:
        page = super().list(bucket, **kwargs)
        return page if self.lists_md5 else Page(tuple(attrs.evolve(item, md5=None) for item in page.items), page.next)

    def put(self, bucket: str, key: str, data: bytes, options: PutOptions) -> ObjectInfo:
        self.hook("put", key)
        info = super().put(bucket, key, self.damage(key, data), options)
        self.writes.append(("put", key))
        return info

    def upload_complete(self, upload: Any, parts: Any) -> ObjectInfo:
        self.hook("put", upload.key)
        info = super().upload_complete(upload, parts)
        self.writes.append(("put", upload.key))
        return info

    def get(
        self, bucket: str, key: str, *, range_: Range | None, if_match: Token | None, version: str | None
    ) -> Download:
        self.hook("get", key)
        return super().get(bucket, key, range_=range_, if_match=if_match, version=version)

    def stat(self, bucket: str, key: str, *, version: str | None) -> ObjectInfo:
        self.hook("stat", key)
        return super().stat(bucket, key, version=version)

    def delete(self, bucket: str, key: str, *, if_match: Token | None, version: str | None) -> None:
        self.hook("delete", key)
        self.writes.append(("delete", key))
        super().delete(bucket, key, if_match=if_match, version=version)

    def set_tags(self, bucket: str, key: str, tags: Mapping[str, str]) -> None:
        self.writes.append(("set_tags", key))
        super().set_tags(bucket, key, tags)


class Hidden(MemorySecretsDriver):
    """The memory driver of secrets with a hook before each call, a log of writes, and features to choose."""

    def __init__(self, **features: Any) -> None:
        super().__init__()
        self.chosen = features
        self.hook: Callable[[str, str], None] = lambda _operation, _key: None
        self.writes: list[str] = []

    @property
    def features(self) -> SecretsFeatures:
        return attrs.evolve(super().features, **self.chosen)

    def get(self, name: str, **kwargs: Any) -> Any:
        self.hook("get", name)
        return super().get(name, **kwargs)

    def put(self, name: str, *args: Any, **kwargs: Any) -> Any:
        self.hook("put", name)
        stored = super().put(name, *args, **kwargs)
        self.writes.append(name)
        self.hook("stored", name)
        return stored

    def delete(self, name: str, **kwargs: Any) -> None:
        self.writes.append(name)
        super().delete(name, **kwargs)


def fault(error: type[OperationError], message: str = "as the test says", **more: Any) -> MemoryFault:
    return MemoryFault(Fault(error, message, **more))


@attrs.define
class Cloud:
    services: dict[str, Any]

    def service(self, name: str) -> Any:
        return self.services[name]


@attrs.frozen
class Declared:
    service: str
    label: str
    spec: Spec


class Watching(Silent):
    """Keeps the names of what happens."""

    def __init__(self) -> None:
        self.phases: list[tuple[str, str]] = []
        self.begun: list[Any] = []
        self.failed: list[Any] = []
        self.done: list[Any] = []

    def on_phase(self, phase: Any) -> None:
        self.phases.append((phase.name, phase.resource))
        self.begun.append(phase)

    def on_item_failed(self, named: Any) -> None:
        self.failed.append(named)

    def on_done(self, result: Any) -> None:
        self.done.append(result)


class World:
    """Source and target, each with blobs and secrets, and the application that declares one resource of each."""

    Watching = Watching
    fault = staticmethod(fault)

    def __init__(self, folder: Path) -> None:
        self.state_dir = folder / ".shiftable"
        self.left, self.right = Blobs(), Blobs()
        self.left_hidden, self.right_hidden = Hidden(), Hidden()
        self.bucket_spec = BucketSpec(name=BUCKET)
        self.clock = 0
        BlobStore(self.left).create(self.bucket_spec)

    # what an App is

    def declared(self) -> tuple[Declared, ...]:
        return (
            Declared("blob", "assets", self.bucket_spec),
            Declared("secrets", "app", SecretsSpec(name=PREFIX)),
        )

    def cloud(self, label: str) -> Cloud:
        blobs, hidden = {
            "frankfurt": (self.left, self.left_hidden),
            "local": (self.right, self.right_hidden),
        }[label]
        return Cloud({"blob": BlobStore(blobs), "secrets": Secrets(hidden)})

    # the two sides

    @property
    def source(self) -> Bucket:
        return BlobStore(self.left).bucket(BUCKET)

    @property
    def target(self) -> Bucket:
        return BlobStore(self.right).bucket(BUCKET)

    @property
    def source_secrets(self) -> SecretStore:
        return Secrets(self.left_hidden).store(PREFIX)

    @property
    def target_secrets(self) -> SecretStore:
        return Secrets(self.right_hidden).store(PREFIX)

    def make_target(self) -> Bucket:
        return BlobStore(self.right).create(self.bucket_spec)

    def contents(self, bucket: Bucket) -> dict[str, bytes]:
        return {found.key: bucket.get(found.key) for found in bucket.list()}

    def migration(self, *resources: str, **options: Any) -> Migration:
        chosen = Options(**options)
        engine = Engine(chosen, pause=lambda _stop, _seconds: None)
        return Migration(self, "frankfurt", "local", resources, chosen, engine=engine)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.fixture(scope="session")
def world_class() -> type[World]:
    return World

"""The providers of a move as everybody else sees them: through their own clients, and as files.

Nothing here reads through shiftable. Bare clients call their double by the name ``localhost`` and shiftable by its
number, so that the double's log, and faults, tell them apart.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast
from urllib.parse import urlencode

import attrs

from shiftable.blob import BlobStore, BucketSpec, Headers
from shiftable.blob.driver import BlobDriver
from shiftable.testing.harness import Call, Double

from .corpus import Thing

if TYPE_CHECKING:
    from shiftable_aws.double import AwsDouble
    from shiftable_azure.double import AzureDouble
    from shiftable_gcp.double import GcpDouble

__all__ = ["BUCKET", "SIDES", "Files", "OnDouble", "Side", "is_ours"]

BUCKET = "shop-assets"
_PROBES = "shop-probes"
_THREADS = 8
_HEADERS = tuple(attrs.fields_dict(Headers))
_WRITING = frozenset({"PUT", "POST", "PATCH", "DELETE"})


def is_ours(call: Call) -> bool:
    """Tell whether shiftable called, and not a bare client."""
    return not call.host.startswith("localhost")


class Side(ABC):
    """One provider with one bucket.

    Attributes:
        name: of the provider, in the file too.
        lenient: beginnings of the reasons for which shiftable does not write what the provider itself would keep.
    """

    name: ClassVar[str]
    lenient: ClassVar[tuple[str, ...]] = ()

    @property
    @abstractmethod
    def settings(self) -> Mapping[str, Any]:
        """What stands in ``[providers.NAME]``."""

    @property
    def environ(self) -> Mapping[str, str]:
        """What the settings refer to."""
        return {}

    @property
    @abstractmethod
    def driver(self) -> BlobDriver:
        """What says which objects the provider can hold; it is asked for nothing else."""

    @abstractmethod
    def create(self, bucket: str = BUCKET) -> None:
        """Make the bucket."""

    @abstractmethod
    def put(self, key: str, thing: Thing, bucket: str = BUCKET) -> None:
        """Write an object."""

    @abstractmethod
    def keys(self, bucket: str = BUCKET) -> list[str]:
        """Return all keys."""

    @abstractmethod
    def get(self, key: str, bucket: str = BUCKET) -> Thing:
        """Read an object."""

    @abstractmethod
    def tamper(self, key: str, data: bytes) -> None:
        """Put another content in the place of an object's, and leave all else as it is."""

    @abstractmethod
    def writes(self) -> list[str]:
        """Return what shiftable has written so far, in any form that is the longer the more it was."""

    @abstractmethod
    def pending(self) -> list[str]:
        """Return the keys of uploads in parts that have begun and did not end."""

    @abstractmethod
    def versions(self) -> Mapping[str, int]:
        """Return how often each key was written, as far as that is seen behind shiftable's back."""

    @abstractmethod
    def overwrite(self, key: str, data: bytes) -> None:
        """Write an object as a stranger does, if there is a bucket yet; else fail."""

    @abstractmethod
    def token(self, key: str) -> str:
        """Return the version of an object, as the journal has to have it."""

    def fill(self, things: Mapping[str, Thing]) -> None:
        """Make the bucket and write all of them."""
        self.create()
        with ThreadPoolExecutor(_THREADS) as pool:
            for _ in pool.map(lambda found: self.put(*found), things.items()):
                pass

    def read(self) -> dict[str, Thing]:
        """Read everything."""
        keys = self.keys()
        with ThreadPoolExecutor(_THREADS) as pool:
            return dict(zip(keys, pool.map(self.get, keys), strict=True))

    def holds(self, key: str, thing: Thing) -> str | None:
        """Say why the provider could not hold an object, as shiftable sees it."""
        return self.driver.check_key(key) or self.unfit(thing)

    def unfit(self, thing: Thing) -> str | None:
        """Say why it could not keep what goes with one."""
        features, bucket = self.driver.features, BlobStore(self.driver).bucket(BUCKET)
        if thing.tags and not features.tags:
            return "no tags"
        why = bucket.check_metadata(thing.metadata) or bucket.check_headers(thing.headers)
        return why or bucket.check_tags(thing.tags)

    def blocked(self, key: str, others: Collection[str]) -> str | None:
        """Say why it could not hold an object beside others."""
        return None

    def attempt(self, key: str, thing: Thing) -> str:
        """Have a bare client write an object to a bucket of its own: it is ``refused``, ``changed`` or ``kept``."""
        with contextlib.suppress(Exception):  # it is there after the first time
            self.create(_PROBES)
        before = {*self.keys(_PROBES)}
        try:
            self.put(key, thing, _PROBES)
        except Exception:  # noqa: BLE001  every client has its own ways to say no
            return "refused"
        try:
            found = self.get(key, _PROBES)
            same = found == thing and {*self.keys(_PROBES)} == before | {key}
        except Exception:  # noqa: BLE001  it is not there under its name
            same = False
        return "kept" if same else "changed"

    def localized(self, thing: Thing) -> Thing:
        """Return an object with the provider's own name of its class."""
        if thing.storage_class is None:
            return thing
        found = {each.tier: each.name for each in self.driver.features.storage_classes}
        return attrs.evolve(thing, storage_class=found[thing.storage_class])

    def unusual(self, name: str | None) -> str | None:
        """Return the name of a class, if it is none of the usual ones."""
        return next((each.name for each in self.driver.features.storage_classes[1:] if each.name == name), None)


class OnDouble(Side):
    """A provider that a double stands in for."""

    double: Double

    def __init__(self, double: Double, _folder: Path) -> None:
        self.double = double

    def overwrite(self, key: str, data: bytes) -> None:
        self.put(key, Thing(data=data, metadata={"by": "stranger"}))

    @property
    def bare_url(self) -> str:
        """Where bare clients call."""
        return self.double.url.replace("127.0.0.1", "localhost")

    @cached_property
    def driver(self) -> BlobDriver:
        import shiftable

        return shiftable.connect(self.name, **self.double.config).service("blob").unwrap(BlobDriver)

    def writes(self) -> list[str]:
        return [
            f"{call.method} {call.path}?{call.query}"
            for call in self.double.calls
            if is_ours(call) and call.method in _WRITING and call.path != "/token"
        ]


class Aws(OnDouble):
    name = "aws"
    lenient = (
        "the key has the character U+",  # it is kept, but not all of S3's operations can name it
        "Amazon S3 keeps the key 'soap'",  # moto does not
        "the key climbs out of the bucket",  # nor does it answer that with 400
        "the value of metadata",  # and it keeps blanks at the ends
    )
    double: AwsDouble

    @property
    def settings(self) -> Mapping[str, Any]:
        return {"type": "aws", "region": self.double.region, "endpoint": self.double.url}

    @property
    def environ(self) -> Mapping[str, str]:
        return {name: value for name, value in self.double.environ.items() if name != "AWS_ENDPOINT_URL"}

    @cached_property
    def client(self) -> Any:
        import boto3
        from botocore.config import Config

        options = Config(max_pool_connections=_THREADS, s3={"addressing_style": "path"}, retries={"max_attempts": 1})
        return boto3.client(
            "s3",
            endpoint_url=self.bare_url,
            config=options,
            region_name=self.double.region,
            aws_access_key_id=self.double.environ["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=self.double.environ["AWS_SECRET_ACCESS_KEY"],
        )

    def create(self, bucket: str = BUCKET) -> None:
        place = {"LocationConstraint": self.double.region}
        self.client.create_bucket(Bucket=bucket, CreateBucketConfiguration=place)

    def put(self, key: str, thing: Thing, bucket: str = BUCKET) -> None:
        told = attrs.asdict(thing.headers).items()
        more: dict[str, Any] = {name.title().replace("_", ""): value for name, value in told if value is not None}
        if thing.tags:
            more["Tagging"] = urlencode(thing.tags)
        if thing.storage_class is not None:
            more["StorageClass"] = thing.storage_class
        self.client.put_object(Bucket=bucket, Key=key, Body=thing.data, Metadata=dict(thing.metadata), **more)

    def keys(self, bucket: str = BUCKET) -> list[str]:
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=bucket)
        return [found["Key"] for page in pages for found in page.get("Contents", ())]

    def get(self, key: str, bucket: str = BUCKET) -> Thing:
        found = self.client.get_object(Bucket=bucket, Key=key)
        tags = self.client.get_object_tagging(Bucket=bucket, Key=key)["TagSet"] if found.get("TagCount") else ()
        return Thing(
            data=found["Body"].read(),
            content_type=found.get("ContentType"),
            cache_control=found.get("CacheControl"),
            content_disposition=found.get("ContentDisposition"),
            content_encoding=found.get("ContentEncoding"),
            content_language=found.get("ContentLanguage"),
            metadata=found["Metadata"],
            tags={tag["Key"]: tag["Value"] for tag in tags},
            storage_class=self.unusual(found.get("StorageClass")),
        )

    def tamper(self, key: str, data: bytes) -> None:
        self.put(key, attrs.evolve(self.get(key), data=data))

    def versions(self) -> Mapping[str, int]:
        pages = self.client.get_paginator("list_object_versions").paginate(Bucket=BUCKET)
        return Counter(found["Key"] for page in pages for found in page.get("Versions", ()))

    def pending(self) -> list[str]:
        return [found["Key"] for found in self.client.list_multipart_uploads(Bucket=BUCKET).get("Uploads", ())]

    def token(self, key: str) -> str:
        return cast("str", self.client.head_object(Bucket=BUCKET, Key=key)["ETag"])


class Gcp(OnDouble):
    name = "gcp"
    lenient = (
        "a metadata name is empty",  # the JSON API keeps every name and value; readers of the XML API see HTTP headers
        "the metadata name",
        "the metadata '",
        "the value of metadata",
    )
    double: GcpDouble

    @property
    def settings(self) -> Mapping[str, Any]:
        found = {name: self.double.config[name] for name in ("project", "region", "endpoint")}
        return {"type": "gcp", **found, "service_account": {"env": "MOVES_GCP_KEY"}, "retry_seconds": 30.0}

    @property
    def environ(self) -> Mapping[str, str]:
        return {"MOVES_GCP_KEY": self.double.config["service_account"].reveal()}

    @cached_property
    def client(self) -> Any:
        from google.auth.credentials import AnonymousCredentials
        from google.cloud import storage

        return storage.Client(
            project=self.double.project,
            credentials=AnonymousCredentials(),
            client_options={"api_endpoint": self.bare_url},
        )

    def create(self, bucket: str = BUCKET) -> None:
        self.client.create_bucket(bucket)

    def put(self, key: str, thing: Thing, bucket: str = BUCKET) -> None:
        blob = self.client.bucket(bucket).blob(key)
        for name in _HEADERS[1:]:
            if getattr(thing, name) is not None:
                setattr(blob, name, getattr(thing, name))
        if thing.metadata:
            blob.metadata = dict(thing.metadata)
        if thing.storage_class is not None:
            blob.storage_class = thing.storage_class
        content_type = thing.content_type or "application/octet-stream"
        blob.upload_from_string(thing.data, content_type=content_type, retry=None, checksum=None)

    def keys(self, bucket: str = BUCKET) -> list[str]:
        return [blob.name for blob in self.client.list_blobs(bucket)]

    def get(self, key: str, bucket: str = BUCKET) -> Thing:
        blob = self.client.bucket(bucket).get_blob(key)
        headers = {name: getattr(blob, name) for name in _HEADERS}  # a download overwrites what the client knows
        data = blob.download_as_bytes(raw_download=True, checksum=None)
        return Thing(data=data, metadata=blob.metadata or {}, storage_class=self.unusual(blob.storage_class), **headers)

    def tamper(self, key: str, data: bytes) -> None:
        self.put(key, attrs.evolve(self.get(key), data=data))

    def versions(self) -> Mapping[str, int]:
        return Counter(blob.name for blob in self.client.list_blobs(BUCKET, versions=True))

    def pending(self) -> list[str]:
        """Return uploads; one that has a condition goes to a staged key first, which is ours too."""
        bucket = self.double.state.bucket(BUCKET)
        return [*(upload.name for upload in bucket.uploads.values()), *(k for k in self.keys() if ".shiftable-" in k)]

    def token(self, key: str) -> str:
        return str(self.client.bucket(BUCKET).get_blob(key).generation)


class Azure(OnDouble):
    name = "azure"
    lenient = (
        "the key has a segment that ends with a dot",  # the double keeps them, Azure does not
        "the key has a backslash",
        "the value of metadata",  # some of them are kept, by a client that signs otherwise
        "the header",
    )
    double: AzureDouble

    @property
    def settings(self) -> Mapping[str, Any]:
        config = self.double.config
        found = {name: config[name] for name in ("storage_account", "endpoint")}
        return {"type": "azure", **found, "account_key": {"env": "MOVES_AZURE_KEY"}}

    @property
    def environ(self) -> Mapping[str, str]:
        return {"MOVES_AZURE_KEY": self.double.config["account_key"].reveal()}

    @cached_property
    def client(self) -> Any:
        from azure.storage.blob import BlobServiceClient

        config = self.double.config
        credential = {"account_name": config["storage_account"], "account_key": config["account_key"].reveal()}
        url = f"{self.bare_url}/{config['storage_account']}"
        return BlobServiceClient(url, credential=credential, retry_total=0)

    def create(self, bucket: str = BUCKET) -> None:
        self.client.create_container(bucket)

    def put(self, key: str, thing: Thing, bucket: str = BUCKET) -> None:
        from azure.storage.blob import ContentSettings, StandardBlobTier

        more: dict[str, Any] = {}
        if thing.storage_class is not None:
            more["standard_blob_tier"] = StandardBlobTier(thing.storage_class)
        blob = self.client.get_blob_client(bucket, key)
        blob.upload_blob(
            thing.data,
            overwrite=True,
            metadata=dict(thing.metadata) or None,
            tags=dict(thing.tags) or None,
            content_settings=ContentSettings(**{name: getattr(thing, name) for name in _HEADERS}),
            **more,
        )

    def keys(self, bucket: str = BUCKET) -> list[str]:
        return [*self.client.get_container_client(bucket).list_blob_names()]

    def get(self, key: str, bucket: str = BUCKET) -> Thing:
        blob = self.client.get_blob_client(bucket, key)
        found = blob.get_blob_properties()
        offline = found.blob_tier == "Archive"
        return Thing(
            data=b"" if offline else blob.download_blob(decompress=False).readall(),
            metadata=found.metadata,
            tags=blob.get_blob_tags() if found.tag_count else {},
            storage_class=self.unusual(found.blob_tier),
            **{name: getattr(found.content_settings, name) for name in _HEADERS},
        )

    def tamper(self, key: str, data: bytes) -> None:
        self.put(key, attrs.evolve(self.get(key), data=data))

    def versions(self) -> Mapping[str, int]:
        return Counter(blob.name for blob in self.client.get_container_client(BUCKET).list_blobs(include=["versions"]))

    def pending(self) -> list[str]:
        """Return keys with uncommitted blocks. Azure lists them only where there is no blob yet; hence the state."""
        return [key for key, blocks in self.double.service.containers[BUCKET].blocks.items() if blocks]

    def token(self, key: str) -> str:
        return cast("str", self.client.get_blob_client(BUCKET, key).get_blob_properties().etag).strip('"')


class Files(Side):
    name = "baremetal"
    lenient = (
        "names that begin with '.shiftable'",  # they could be, but are kept for shiftable's own
        "another object lies there",  # not in the bucket of attempts
    )

    def __init__(self, folder: Path) -> None:
        self.root = folder / "cellar"
        self.root.mkdir(parents=True)
        self.tree = self.root / "blob" / BUCKET

    @property
    def settings(self) -> Mapping[str, Any]:
        return {"type": "baremetal", "root": str(self.root), "fsync": False}

    @cached_property
    def driver(self) -> BlobDriver:
        from shiftable_baremetal.blob import FilesDriver

        return FilesDriver(self.root / "blob", fsync=False)

    def blocked(self, key: str, others: Collection[str]) -> str | None:
        if any(key.startswith(f"{other}/") or other.startswith(f"{key}/") for other in others):
            return "another object lies there"
        return None

    def create(self, bucket: str = BUCKET) -> None:
        BlobStore(self.driver).create(BucketSpec(name=bucket))

    def put(self, key: str, thing: Thing, bucket: str = BUCKET) -> None:
        """Write a file. What goes with it and is no file is the driver's own: nobody else can write that."""
        if bucket != BUCKET:
            path = self.root / "blob" / bucket / key
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(thing.data)
            return
        BlobStore(self.driver).bucket(bucket).put(
            key,
            thing.data,
            headers=thing.headers,
            metadata=thing.metadata,
            tags=thing.tags,
            storage_class=thing.storage_class,
        )

    def keys(self, bucket: str = BUCKET) -> list[str]:
        top = os.fsencode(self.root / "blob" / bucket)
        found = [os.path.join(folder, name) for folder, _, names in os.walk(top) for name in names]  # noqa: PTH118  bytes
        return [os.fsdecode(path[len(top) + 1 :]) for path in found]

    def get(self, key: str, bucket: str = BUCKET) -> Thing:
        data = (self.root / "blob" / bucket / key).read_bytes()
        about = self._about(key, bucket)
        headers = about.get("headers", {})
        return Thing(
            data=data,
            metadata=about.get("metadata", {}),
            tags=about.get("tags", {}),
            storage_class=self.unusual(about.get("storage_class")),
            **headers,
        )

    def _about(self, key: str, bucket: str) -> dict[str, Any]:
        file = (self.root / "blob" / bucket / key).stat()  # records of what was never put into place may lie beside
        identity = f"{file.st_mtime_ns:x}-{file.st_ino:x}-{file.st_size:x}"
        name = hashlib.sha256(key.encode()).hexdigest()[:40]
        folder = self.root / "blob/.shiftable/buckets" / bucket / "sidecars" / name[:3]
        record = folder / f"{name}.{identity}"
        return cast("dict[str, Any]", json.loads(record.read_bytes())) if record.exists() else {}

    def tamper(self, key: str, data: bytes) -> None:
        """Change the file in its place, and its times back: only who reads it sees it."""
        path = self.tree / key
        before = path.stat()
        path.write_bytes(data)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))

    def overwrite(self, key: str, data: bytes) -> None:
        """Put another file in its place, in one step, as careful programs do."""
        path = self.tree / key
        if not self.tree.is_dir():
            raise FileNotFoundError(self.tree)
        path.parent.mkdir(parents=True, exist_ok=True)
        new = self.root / f"new-{hashlib.sha256(key.encode()).hexdigest()}"
        new.write_bytes(data)
        new.replace(path)

    def writes(self) -> list[str]:
        return sorted(f"{path} {path.stat().st_ino} {path.stat().st_mtime_ns}" for path in self._own_files())

    def _own_files(self) -> Iterator[Path]:
        return (path for path in self.root.rglob("*") if path.is_file() and "locks" not in path.parts)

    def versions(self) -> Mapping[str, int]:
        top = self.root / "blob/.shiftable/buckets" / BUCKET / "versions"
        older = {
            (str(path.parent.relative_to(top)), path.name.partition(".shiftable-")[2].partition("-")[2])
            for path in top.rglob(".shiftable-*")
            if not path.name.endswith(".sidecar")
        }
        current = {(key, self.token(key)) for key in self.keys()}
        return Counter(key for key, _ in older | current)

    def pending(self) -> list[str]:
        folder = self.root / "blob/.shiftable/buckets" / BUCKET / "uploads"
        return [json.loads(path.read_bytes())["key"] for path in folder.rglob("upload.json")]

    def token(self, key: str) -> str:
        found = (self.tree / key).stat()
        return f"{found.st_mtime_ns:x}-{found.st_ino:x}-{found.st_size:x}"


SIDES: Mapping[str, type[Side]] = {side.name: side for side in (Aws, Gcp, Azure, Files)}

"""What `bulk.py` measures of the provider's own SDK in threads: SERVICE WORK FOLDER URL OTHER WORKERS."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol


class Sdk(Protocol):
    """The few calls of an SDK, to one endpoint."""

    def put(self, bucket: str, key: str, data: bytes, metadata: dict[str, str]) -> None:
        """Write an object."""

    def get(self, bucket: str, key: str) -> tuple[bytes, dict[str, str]]:
        """Return an object and its metadata."""

    def upload(self, bucket: str, key: str, path: Path) -> None:
        """Upload a large file."""

    def list(self, bucket: str) -> Iterator[tuple[str, object]]:
        """Yield keys and what the listing tells of the content."""


class Boto3:
    """Amazon's."""

    def __init__(self, url: str, workers: int) -> None:
        import boto3
        from botocore.config import Config

        self._s3: Any = boto3.client("s3", endpoint_url=url, config=Config(max_pool_connections=workers))

    def put(self, bucket: str, key: str, data: bytes, metadata: dict[str, str]) -> None:
        """Write an object."""
        self._s3.put_object(Bucket=bucket, Key=key, Body=data, Metadata=metadata)

    def get(self, bucket: str, key: str) -> tuple[bytes, dict[str, str]]:
        """Return an object and its metadata."""
        found = self._s3.get_object(Bucket=bucket, Key=key)
        return found["Body"].read(), found["Metadata"]

    def upload(self, bucket: str, key: str, path: Path) -> None:
        """Upload a large file."""
        self._s3.upload_file(str(path), bucket, key)

    def list(self, bucket: str) -> Iterator[tuple[str, object]]:
        """Yield keys and ETags."""
        for page in self._s3.get_paginator("list_objects_v2").paginate(Bucket=bucket):
            for entry in page["Contents"]:
                yield entry["Key"], entry["ETag"]


class Google:
    """Google's."""

    def __init__(self, url: str, workers: int) -> None:
        from google.auth.credentials import AnonymousCredentials
        from google.cloud import storage
        from requests.adapters import HTTPAdapter

        self._client: Any = storage.Client(
            project="bench", credentials=AnonymousCredentials(), client_options={"api_endpoint": url}
        )
        self._client._http.mount("http://", HTTPAdapter(pool_connections=4, pool_maxsize=workers))  # noqa: SLF001  as its docs say

    def put(self, bucket: str, key: str, data: bytes, metadata: dict[str, str]) -> None:
        """Write an object."""
        blob = self._client.bucket(bucket).blob(key)
        blob.metadata = metadata or None
        blob.upload_from_string(data, content_type="application/octet-stream")

    def get(self, bucket: str, key: str) -> tuple[bytes, dict[str, str]]:
        """Return an object and its metadata."""
        blob = self._client.bucket(bucket).get_blob(key)
        return blob.download_as_bytes(), blob.metadata or {}

    def upload(self, bucket: str, key: str, path: Path) -> None:
        """Upload a large file."""
        self._client.bucket(bucket).blob(key).upload_from_filename(str(path))

    def list(self, bucket: str) -> Iterator[tuple[str, object]]:
        """Yield keys and MD5s."""
        for blob in self._client.list_blobs(bucket):
            yield blob.name, blob.md5_hash


class Microsoft:
    """Microsoft's."""

    def __init__(self, url: str, workers: int) -> None:
        import requests
        from azure.core.credentials import AzureNamedKeyCredential
        from azure.core.pipeline.transport import RequestsTransport
        from azure.storage.blob import BlobServiceClient
        from requests.adapters import HTTPAdapter

        session = requests.Session()
        session.mount("http://", HTTPAdapter(pool_connections=4, pool_maxsize=workers))
        self._service: Any = BlobServiceClient(
            f"{url}/bench",
            AzureNamedKeyCredential("bench", "YmVuY2g="),
            transport=RequestsTransport(session=session, session_owner=False),
        )

    def put(self, bucket: str, key: str, data: bytes, metadata: dict[str, str]) -> None:
        """Write an object."""
        self._service.get_blob_client(bucket, key).upload_blob(data, metadata=metadata, overwrite=True)

    def get(self, bucket: str, key: str) -> tuple[bytes, dict[str, str]]:
        """Return an object and its metadata."""
        found = self._service.get_blob_client(bucket, key).download_blob()
        return found.readall(), found.properties.metadata

    def upload(self, bucket: str, key: str, path: Path) -> None:
        """Upload a large file."""
        with path.open("rb") as file:
            self._service.get_blob_client(bucket, key).upload_blob(file, overwrite=True, max_concurrency=4)

    def list(self, bucket: str) -> Iterator[tuple[str, object]]:
        """Yield keys and MD5s."""
        for entry in self._service.get_container_client(bucket).list_blobs():
            yield entry.name, entry.content_settings.content_md5


SDKS: dict[str, type[Boto3 | Google | Microsoft]] = {"s3": Boto3, "gcs": Google, "azure": Microsoft}


def main() -> None:
    """Do one work, and tell how long it took without the start."""
    service, work, place, url, other, count = sys.argv[1:]
    workers, folder = int(count), Path(place)
    here: Sdk = SDKS[service](url, workers)
    there: Sdk = SDKS[service](other, workers)
    began = time.perf_counter()
    if work == "list":
        found = sum(1 for _, told in here.list("shop-many") if told)
        assert found == 100_000, found  # noqa: S101  else it was fast because it did not do its work
    elif work == "large":
        for path in sorted(folder.iterdir()):
            here.upload("shop-large", path.name, path)
    else:
        _each(work, folder, here, there, workers)
    print("inside", time.perf_counter() - began)


def _each(work: str, folder: Path, here: Sdk, there: Sdk, workers: int) -> None:
    def upload(key: str) -> None:
        here.put("shop-uploads", key, (folder / key).read_bytes(), {})

    def download(key: str) -> None:
        path = folder / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(here.get("shop-assets", key)[0])

    def copy(key: str) -> None:
        there.put("shop-copies", key, *here.get("shop-assets", key))

    what = {"upload": upload, "download": download, "copy": copy, "migrate": copy}[work]
    files = (str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    keys = files if work == "upload" else (key for key, _ in here.list("shop-assets"))
    with ThreadPoolExecutor(min(workers, 64)) as pool:
        for _ in pool.map(what, keys):
            pass


if __name__ == "__main__":
    main()

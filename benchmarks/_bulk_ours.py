"""What `bulk.py` measures of shiftable: SERVICE WORK FOLDER URL OTHER WORKERS."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from pathlib import Path

from shiftable.blob import BlobStore, Bucket, sync
from shiftable.blob._bulk import copy_many
from shiftable.blob.driver import BlobDriver
from shiftable.config import Credential


def _driver(service: str, url: str) -> BlobDriver:
    if service == "gcs":
        from shiftable_gcp import GcpProvider, GcpSettings

        return GcpProvider(GcpSettings(endpoint=url, project="bench")).blob()
    if service == "azure":
        from shiftable_azure import AzureProvider, AzureSettings

        key = Credential.literal("YmVuY2g=")
        return AzureProvider(AzureSettings(storage_account="bench", account_key=key, endpoint=f"{url}/bench")).blob()
    from shiftable_aws import AwsProvider, AwsSettings

    return AwsProvider(AwsSettings(endpoint=url)).blob()


def _done(steps: Iterable[object]) -> None:
    for step in steps:
        error = getattr(step, "error", None)
        if error:
            raise error


def _bucket(service: str, url: str, name: str) -> Bucket:
    bucket = BlobStore(_driver(service, url)).bucket(name)
    bucket.lane()
    return bucket


def main() -> None:
    """Do one work, and tell how long it took without the start."""
    service, work, place, url, other, count = sys.argv[1:]
    workers, folder = int(count), Path(place)
    names = {"upload": "shop-uploads", "list": "shop-many", "large": "shop-large"}
    here = _bucket(service, url, names.get(work, "shop-assets"))
    there = _bucket(service, other, "shop-copies") if work == "copy" else here
    began = time.perf_counter()
    if work == "upload":
        _done(sync(folder, here, workers=workers))
    elif work == "download":
        _done(sync(here, folder, workers=workers))
    elif work == "copy":
        _done(copy_many(here, there, (item.key for item in here.lane().list()), concurrency=workers))
    elif work == "list":
        found = sum(1 for item in here.lane().list() if item.md5)
        assert found == 100_000, found  # noqa: S101  else it was fast because it did not do its work
    elif work == "large":
        _done(sync(folder, here, workers=4))
    print("inside", time.perf_counter() - began)


if __name__ == "__main__":
    main()

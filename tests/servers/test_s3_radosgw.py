"""The S3 driver against Ceph's gateway: a server that is neither Amazon's nor a double."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from botocore.config import Config

from shiftable.config import Credential
from shiftable.testing.conformance.blob import BlobConformance, BlobOracle
from shiftable_baremetal.blob_s3 import open_s3
from shiftable_s3.driver import S3Driver

BARE = Config(
    request_checksum_calculation="when_required",
    response_checksum_validation="when_required",
    s3={"addressing_style": "path"},
)


class Beside:
    """Writes and reads with a bare client; lists with the operator's command, which asks the object store."""

    def __init__(self, ceph: Any, client: Any) -> None:
        self._ceph = ceph
        self._client = client

    def put_raw(self, bucket: str, key: str, data: bytes) -> None:
        self._client.put_object(Bucket=bucket, Key=key, Body=data)

    def get_raw(self, bucket: str, key: str) -> bytes | None:
        try:
            return bytes(self._client.get_object(Bucket=bucket, Key=key)["Body"].read())
        except self._client.exceptions.NoSuchKey:
            return None

    def keys(self, bucket: str) -> list[str]:
        listed = json.loads(self._ceph.admin("bucket", "list", f"--bucket={bucket}", "--max-entries=100000"))
        return [entry["name"] for entry in listed]


@pytest.fixture(scope="module")
def bare(ceph: Any) -> Any:
    return boto3.client(
        "s3",
        endpoint_url=ceph.endpoint,
        region_name="us-east-1",
        aws_access_key_id=ceph.access_key,
        aws_secret_access_key=ceph.secret_key,
        config=BARE,
    )


@pytest.fixture
def driver(ceph: Any) -> Iterator[S3Driver]:
    made = open_s3(ceph.endpoint, Credential.literal(ceph.access_key), Credential.literal(ceph.secret_key))
    yield made
    made.close()


class TestRadosgw(BlobConformance):
    @pytest.fixture
    def driver(self, driver: S3Driver) -> S3Driver:
        return driver

    @pytest.fixture
    def oracle(self, ceph: Any, bare: Any) -> BlobOracle:
        return Beside(ceph, bare)

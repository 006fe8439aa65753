from collections.abc import Iterator
from typing import Any

import pytest

from shiftable.testing.conformance.blob import BlobConformance, BlobOracle
from shiftable_aws import AwsSettings
from shiftable_aws._session import Session
from shiftable_aws.blob import blob_driver
from shiftable_aws.double import AwsDouble
from shiftable_s3.driver import S3Driver


class Inside:
    """Looks into moto's own tables."""

    def __init__(self, double: AwsDouble) -> None:
        self._s3: Any = double.backend("s3", "aws")

    def put_raw(self, bucket: str, key: str, data: bytes) -> None:
        self._s3.put_object(bucket, key, data)

    def get_raw(self, bucket: str, key: str) -> bytes | None:
        found = self._s3.get_object(bucket, key)
        return None if found is None else found.value

    def keys(self, bucket: str) -> list[str]:
        return [key for key in self._s3.buckets[bucket].keys if self._s3.get_object(bucket, key) is not None]


@pytest.fixture
def driver(aws_double: AwsDouble) -> Iterator[S3Driver]:
    made = blob_driver(Session(AwsSettings(**aws_double.config)))
    yield made
    made.close()


class TestAmazonS3(BlobConformance):
    @pytest.fixture
    def driver(self, driver: S3Driver) -> S3Driver:
        return driver

    @pytest.fixture
    def oracle(self, aws_double: AwsDouble) -> BlobOracle:
        return Inside(aws_double)

"""Amazon S3 while connections break and servers are busy."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from shiftable.blob import BlobStore
from shiftable.testing.harness import Double
from shiftable_aws import AwsSettings
from shiftable_aws._session import Session
from shiftable_aws.blob import blob_driver

from ..blob_faults import BlobFaults


class TestAmazonS3(BlobFaults):
    DENIAL = b"<Error><Code>AccessDenied</Code><Message>no</Message></Error>"

    @pytest.fixture(params=["sdk", "lane"])
    def store(self, aws_double: Double, request: pytest.FixtureRequest) -> Iterator[BlobStore]:
        made = blob_driver(Session(AwsSettings(**aws_double.config)))
        yield BlobStore(made.lane() if request.param == "lane" else made)
        made.close()

    @pytest.fixture
    def hasty(self, store: BlobStore) -> BlobStore:
        return store  # three tries are soon over

    @pytest.fixture
    def double(self, aws_double: Double) -> Double:
        return aws_double

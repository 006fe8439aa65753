"""Between which drivers of S3 a server-side copy may be asked for."""

from __future__ import annotations

from typing import Any

import boto3
import pytest

from shiftable.memory.blob import MemoryBlobDriver
from shiftable_aws.blob import FEATURES
from shiftable_s3.driver import S3Driver


def driver(region: str, endpoint: str | None = None, **more: Any) -> S3Driver:
    client = boto3.client(
        "s3", region_name=region, endpoint_url=endpoint, aws_access_key_id="a", aws_secret_access_key="b"
    )
    return S3Driver(client, "aws", FEATURES, region, **more)


@pytest.mark.parametrize(
    ("here", "there", "expected"),
    [
        (("eu-central-1",), ("us-east-1",), True),
        (("eu-central-1",), ("cn-north-1",), False),
        (("eu-central-1", "http://127.0.0.1:1"), ("us-east-1", "http://127.0.0.1:1"), True),
        (("eu-central-1", "http://127.0.0.1:1"), ("eu-central-1",), False),
        (("eu-central-1", "http://127.0.0.1:1"), ("eu-central-1", "http://127.0.0.1:2"), False),
        (("eu-central-1", "https://evilamazonaws.com"), ("eu-central-1",), False),
    ],
)
def test_names_of_buckets_are_the_same_within_a_partition_or_an_endpoint(here: Any, there: Any, expected: Any) -> None:
    assert driver(*here).copies_from(driver(*there)) is expected


def test_other_providers_and_servers_that_only_speak_s3_are_none() -> None:
    amazon = driver("eu-central-1")

    assert amazon.copies_from(amazon.lane())
    assert not amazon.copies_from(MemoryBlobDriver())
    assert not amazon.copies_from(driver("eu-central-1", compatible=True))

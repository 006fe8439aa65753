"""The double of AWS, one for the whole run, emptied for each test."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from shiftable_aws import AwsProvider, AwsSettings

if TYPE_CHECKING:
    from shiftable_aws.double import AwsDouble

pytest.importorskip("moto", reason="the AWS double needs shiftable-aws[testing]")


@pytest.fixture
def provider(aws_double: AwsDouble) -> Iterator[AwsProvider]:
    made = AwsProvider(AwsSettings(**aws_double.config))
    yield made
    made.close()


@pytest.fixture
def hasty(aws_double: AwsDouble) -> Iterator[AwsProvider]:
    """Return a provider that tries once."""
    made = AwsProvider(AwsSettings(**aws_double.config, max_attempts=1))
    yield made
    made.close()

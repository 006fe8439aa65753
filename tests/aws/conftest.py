"""The double of AWS, one for the whole run, emptied for each test."""

from __future__ import annotations

import json
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


@pytest.fixture
def vmimport(provider: AwsProvider) -> str:
    """Return the name of the role that reads what is imported."""
    trusted = {"Effect": "Allow", "Principal": {"Service": "vmie.amazonaws.com"}, "Action": "sts:AssumeRole"}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [trusted]})
    provider.session.client("iam").create_role(RoleName="vmimport", AssumeRolePolicyDocument=policy)
    return "vmimport"

"""RDS as the rules for all databases want it, by the double, and what is RDS's own."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest

from shiftable.database.driver import DatabaseDriver
from shiftable.testing.conformance.database import DatabaseConformance
from shiftable_aws import AwsProvider
from shiftable_aws.double import AwsDouble

DELAY = timedelta(seconds=2)


class TestRds(DatabaseConformance):
    """The rules for all database drivers, with servers that take their time."""

    @pytest.fixture
    def driver(self, provider: AwsProvider, aws_double: AwsDouble) -> DatabaseDriver:
        aws_double.rds.quota = self.many + 10
        aws_double.rds.delay = DELAY
        return provider.database()

    @pytest.fixture
    def sleep(self, aws_double: AwsDouble) -> Callable[[float], None]:
        return aws_double.clock.advance

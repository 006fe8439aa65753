"""RDS as the rules for all databases want it, by the double, and what is RDS's own."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from shiftable.database.driver import DatabaseDriver
from shiftable.testing.conformance.database import DatabaseConformance, database_machine
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


def test_any_sequence_of_calls_leaves_the_servers_as_a_plain_dictionary_says(
    provider: AwsProvider, aws_double: AwsDouble
) -> None:
    def empty() -> DatabaseDriver:
        aws_double.reset()
        aws_double.rds.delay = DELAY
        return provider.database()

    few = settings(
        max_examples=5, stateful_step_count=12, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
    )
    run_state_machine_as_test(database_machine(empty, aws_double.clock.advance), settings=few)

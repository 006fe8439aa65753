"""AWS Secrets Manager keeps the rules for secrets, at a double that keeps AWS's."""

from __future__ import annotations

import base64
import logging
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

import attrs
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from shiftable.config import Credential
from shiftable.errors import (
    Conflict,
    InvalidArgument,
    NotFound,
    OperationError,
    PreconditionFailed,
    Throttled,
    Unauthenticated,
    Unavailable,
)
from shiftable.secrets import Secrets, SecretStore
from shiftable.testing.conformance.secrets import SecretsConformance, SecretsOracle, secrets_machine
from shiftable.testing.harness import Call
from shiftable_aws import AwsProvider, AwsSettings
from shiftable_aws.double import AwsDouble
from shiftable_aws.secrets import SecretsManagerDriver


@attrs.define
class Backend:
    """Reads the double's own objects."""

    double: AwsDouble

    def secrets(self) -> dict[str, Any]:
        return dict(self.double.backend("secretsmanager").secrets)

    def version(self, name: str, label: str) -> dict[str, Any]:
        found = [entry for entry in self.secrets()[name].versions.values() if label in entry["version_stages"]]
        (only,) = found
        return dict(only)

    def value(self, name: str) -> bytes | None:
        secret = self.secrets().get(name)
        if secret is None or secret.deleted_date is not None:
            return None
        entry = self.version(name, "AWSCURRENT")
        return entry["secret_string"].encode() if "secret_string" in entry else base64.b64decode(entry["secret_binary"])

    def names(self) -> list[str]:
        return [name for name, secret in self.secrets().items() if secret.deleted_date is None]


@pytest.fixture
def oracle(aws_double: AwsDouble) -> Backend:
    return Backend(aws_double)


@pytest.fixture
def store(provider: AwsProvider) -> SecretStore:
    return Secrets(provider.secrets()).store("shop")


def calls_of(double: AwsDouble) -> list[str]:
    return [call.operation for call in double.calls]


def is_(operation: str) -> Any:
    return lambda call: call.operation == operation


class TestSecretsManager(SecretsConformance):
    foreign_loggers: ClassVar[tuple[str, ...]] = ("botocore",)  # the driver's documentation warns of it

    @pytest.fixture
    def driver(self, provider: AwsProvider) -> Any:
        return provider.secrets()

    @pytest.fixture
    def oracle(self, aws_double: AwsDouble) -> SecretsOracle:
        return Backend(aws_double)


def test_the_driver_does_what_the_model_does(provider: AwsProvider, aws_double: AwsDouble) -> None:
    def make_store() -> SecretStore:
        aws_double.reset()
        return Secrets(provider.secrets()).store("machine")

    quick = settings(
        max_examples=15,
        stateful_step_count=15,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(secrets_machine(make_store), settings=quick)

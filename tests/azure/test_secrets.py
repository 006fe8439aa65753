"""Azure Key Vault keeps the rules for secrets, at a double that keeps Key Vault's."""

from __future__ import annotations

import base64
from typing import Any, ClassVar

import attrs
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from shiftable.secrets import Secrets, SecretStore
from shiftable.secrets.names import NAME_LABEL
from shiftable.testing.conformance.secrets import SecretsConformance, SecretsOracle, secrets_machine
from shiftable_azure import AzureProvider
from shiftable_azure.double import AzureDouble


@attrs.define
class Vault:
    """Reads the double's own objects."""

    double: AzureDouble

    def living(self) -> dict[str, Any]:
        found = {name: secret for name, secret in self.double.vault.secrets.items() if secret.deleted is None}
        return {self.name_of(name, secret): secret for name, secret in found.items() if "---pending" not in name}

    def name_of(self, name: str, secret: Any) -> str:
        return str(secret.latest.tags.get(NAME_LABEL, name.replace("--", "/")))

    def value(self, name: str) -> bytes | None:
        secret = self.living().get(name)
        if secret is None or not secret.latest.enabled:
            return None
        text = secret.latest.value
        return base64.b64decode(text) if "file-encoding" in secret.latest.tags else text.encode()

    def names(self) -> list[str]:
        return list(self.living())


@pytest.fixture
def oracle(azure_double: AzureDouble) -> Vault:
    return Vault(azure_double)


@pytest.fixture
def store(provider: AzureProvider) -> SecretStore:
    return Secrets(provider.secrets()).store("shop")


class TestKeyVault(SecretsConformance):
    @pytest.fixture
    def driver(self, provider: AzureProvider) -> Any:
        return provider.secrets()

    @pytest.fixture
    def oracle(self, azure_double: AzureDouble) -> SecretsOracle:
        return Vault(azure_double)


def test_the_driver_does_what_the_model_does(provider: AzureProvider, azure_double: AzureDouble) -> None:
    def make_store() -> SecretStore:
        azure_double.reset()
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

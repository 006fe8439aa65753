"""Secret Manager keeps the rules for secrets, at a double that keeps Google's."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from shiftable.secrets import Secrets, SecretStore
from shiftable.testing.conformance.secrets import SecretsConformance, SecretsOracle, secrets_machine
from shiftable_gcp import GcpProvider
from shiftable_gcp._secret_manager import StoredSecret
from shiftable_gcp.double import GcpDouble


@attrs.define
class Backend:
    """Reads the double's own objects, as ``gcloud`` would show them."""

    double: GcpDouble

    def stored(self, id_: str) -> StoredSecret:
        manager = self.double.secrets
        return manager.secrets[manager.number(self.double.project), id_]

    def all(self) -> dict[str, StoredSecret]:
        """Return the secrets by our names: what another tool would have to know of them."""
        found = self.double.secrets.secrets.values()
        return {each.facts["annotations"].get("shiftable-name", each.id.replace("__", "/")): each for each in found}

    def value(self, name: str) -> bytes | None:
        secret = self.all().get(name)
        return None if secret is None else secret.versions[secret.aliases["current"]].payload

    def names(self) -> list[str]:
        return list(self.all())


@pytest.fixture
def oracle(gcp_double: GcpDouble) -> Backend:
    return Backend(gcp_double)


@pytest.fixture
def store(provider: GcpProvider) -> SecretStore:
    return Secrets(provider.secrets()).store("shop")


class TestSecretManager(SecretsConformance):
    @pytest.fixture
    def driver(self, provider: GcpProvider) -> Any:
        return provider.secrets()

    @pytest.fixture
    def oracle(self, gcp_double: GcpDouble) -> SecretsOracle:
        return Backend(gcp_double)


def test_the_driver_does_what_the_model_does(provider: GcpProvider, gcp_double: GcpDouble) -> None:
    def make_store() -> SecretStore:
        gcp_double.reset()
        return Secrets(provider.secrets()).store("machine")

    run_state_machine_as_test(secrets_machine(make_store), settings=settings.get_profile("machine"))

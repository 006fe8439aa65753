"""An application whose secrets are in a Key Vault by configuration only, and the command line beside it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from azure.keyvault.secrets import SecretClient

import shiftable
from shiftable.migrate import Migration
from shiftable.secrets import Secrets
from shiftable_azure import AzureProvider, AzureSettings
from shiftable_azure.double import AzureDouble, ToLoopback
from shiftable_azure.secrets import KeyVaultDriver

from .projects import command, project

TOML = """
[project]
name = "shop"
[environments.development]
provider = "here"
[environments.production]
provider = "there"
[providers.here]
type = "memory"
[providers.there]
type = "azure"
vault = "shop-vault"
vault_endpoint = "{endpoint}"
[secrets.app]
prefix = "shop"
env = {{ STRIPE_KEY = "stripe/key" }}
"""


@pytest.fixture
def folder(azure_double: AzureDouble, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a project whose vault is reached with the double's managed identity: no credential is in the file."""
    return project(tmp_path, TOML.format(endpoint=azure_double.url), azure_double, monkeypatch)


@pytest.fixture
def native(azure_double: AzureDouble, provider: AzureProvider) -> Iterator[Any]:
    transport = ToLoopback(azure_double.url)
    with SecretClient(
        "https://native.vault.azure.net", provider.vault.client._client._config.credential, transport=transport
    ) as made:
        yield made


def test_a_line_of_the_file_puts_the_secrets_into_a_vault(folder: Path, azure_double: AzureDouble, native: Any) -> None:
    with shiftable.load(folder, environment="production") as app:
        secrets = app.secrets("app")
        secrets.put("stripe/key", "sk_one", labels={"team": "core"})
        assert app.secrets("app").get("stripe/key").reveal() == "sk_one"
        assert secrets.unwrap(KeyVaultDriver).client.vault_url == "https://shop-vault.vault.azure.net"
    found = native.get_secret("shop--stripe--key")
    assert (found.value, found.properties.tags["team"]) == ("sk_one", "core")
    assert "GetToken" in {call.operation for call in azure_double.calls}


def test_the_command_line_reads_and_writes_a_vault(folder: Path, azure_double: AzureDouble) -> None:
    stored = command(folder, "secrets", "set", "app", "stripe/key", stdin="sk_one\n")
    assert stored.returncode == 0, stored.stderr
    assert azure_double.vault.secrets["shop--stripe--key"].latest.value == "sk_one"
    assert command(folder, "secrets", "set", "app", "stripe/key", "--pending", stdin="sk_two\n").returncode == 0

    shown = command(folder, "secrets", "get", "app", "stripe/key")
    assert shown.returncode == 0
    assert "sk_one" not in shown.stdout + shown.stderr
    assert "sk_two" in command(folder, "secrets", "get", "app", "stripe/key", "--reveal", "--stage", "pending").stdout
    ran = command(folder, "run", "--", sys.executable, "-c", "import os; print(os.environ['STRIPE_KEY'] == 'sk_one')")
    assert (ran.stdout, ran.returncode) == ("True\n", 0)

    assert command(folder, "secrets", "rm", "app", "stripe/key", "--yes").returncode == 0
    assert "stripe/key" in command(folder, "secrets", "list", "app", "--deleted").stdout
    assert command(folder, "secrets", "restore", "app", "stripe/key").returncode == 0
    assert azure_double.vault.secrets["shop--stripe--key"].deleted is None
    missing = command(folder, "secrets", "get", "app", "no/such")
    assert missing.returncode != 0
    assert "no/such" in missing.stderr
    assert "Traceback" not in missing.stderr


def test_the_doubles_settings_are_all_that_is_needed(azure_double: AzureDouble) -> None:
    with shiftable.connect("azure", **azure_double.config) as cloud:
        cloud.secrets.store("shop").put("key", "value")
    assert azure_double.vault.secrets["shop--key"].latest.value == "value"


def test_a_provider_closes_its_connections_and_opens_new_ones(azure_double: AzureDouble) -> None:
    provider = AzureProvider(AzureSettings(**azure_double.config))
    store = Secrets(provider.secrets()).store("shop")
    store.put("key", "value")
    first = provider.vault.client
    provider.close()
    assert store.get("key").reveal() == "value"
    assert provider.vault.client is not first
    provider.close()


def test_loading_the_provider_imports_no_sdk() -> None:
    code = (
        "import sys, shiftable_azure; shiftable_azure.AzureProvider.features();"
        "print([name for name in sys.modules if name.split('.')[0] in ('azure', 'requests')])"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert told.stdout == "[]\n"


def test_secrets_move_into_a_vault(folder: Path, azure_double: AzureDouble) -> None:
    with shiftable.load(folder) as app:
        source = app.cloud("here").secrets.store("shop")
        for number in range(30):
            source.put(f"key-{number}", f"value {number}", labels={"n": str(number)})
        move = Migration(app, "here", "there")
        assert move.apply(move.plan()).complete
        assert move.verify().complete
    stored = {name: secret.latest.value for name, secret in azure_double.vault.secrets.items()}
    assert stored == {f"shop--key-{number}": f"value {number}" for number in range(30)}

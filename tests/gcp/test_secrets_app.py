"""An application's secrets are in Secret Manager by configuration only, and the real command works there."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from shiftable import load
from shiftable.errors import ConfigError
from shiftable_gcp import GcpProvider
from shiftable_gcp.double import GcpDouble
from shiftable_gcp.secrets import SecretManagerDriver

FILE = """
[project]
name = "shop"
[environments.development]
provider = "berlin"
[providers.berlin]
type = "gcp"
endpoint = "{url}"
project = "{project}"
region = "europe-west10"
service_account = {{ env = "SHOP_KEY" }}
[secrets.app]
prefix = "shop"
env = {{ STRIPE_KEY = "stripe/key", DB = "db.password" }}
"""

Command = Callable[..., "CompletedProcess[str]"]


@pytest.fixture
def shop(folder: Path, gcp_double: GcpDouble, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SHOP_KEY", gcp_double.config["service_account"].reveal())
    path = folder / "shiftable.toml"
    path.write_text(FILE.format(url=gcp_double.url, project=gcp_double.project))
    return path


def ids(double: GcpDouble) -> list[str]:
    return sorted(id_ for _, id_ in double.secrets.secrets)


def test_an_application_has_its_secrets_there_by_configuration_only(shop: Path, gcp_double: GcpDouble) -> None:
    with load(shop) as app:
        secrets = app.secrets("app")
        first = secrets.put("stripe/key", "one")
        secrets.put("stripe/key", "two", if_match=first.token)

        assert secrets.get("stripe/key").reveal() == "two"
        assert secrets.unwrap(SecretManagerDriver).session is app.cloud("berlin").unwrap(GcpProvider).session
        assert app.diff(next(iter(app.declared()))) == ()
    assert ids(gcp_double) == ["shop__stripe__key"]


def test_a_setting_can_refer_to_a_secret_there(shop: Path, gcp_double: GcpDouble) -> None:
    with load(shop) as app:
        app.secrets("app").put("keys/other", gcp_double.config["service_account"].reveal())
    shop.write_text(
        shop.read_text()
        + '[providers.other]\ntype = "gcp"\nservice_account = { secret = "app/keys/other" }\n'
        + f'endpoint = "{gcp_double.url}"\n[blob.assets]\nbucket = "assets"\n'
    )
    with load(shop) as app:
        assert app.cloud("other").unwrap(GcpProvider).session.require_project() == gcp_double.project


def test_the_command_sets_shows_lists_promotes_and_deletes(
    shop: Path, gcp_double: GcpDouble, shiftable: Command
) -> None:
    def answer(*arguments: str, **options: Any) -> str:
        done = shiftable("secrets", *arguments, **options)
        assert (0, "") == (done.returncode, done.stderr)
        return done.stdout

    assert "version 1 is current" in answer("set", "app", "stripe/key", stdin="one")
    assert "version 2 is pending" in answer("set", "app", "stripe/key", "--pending", stdin="two")
    about = json.loads(answer("get", "app", "stripe/key", "--json"))
    assert ("1", ["current"]) == (about["version"], about["stages"])
    assert about["created"]
    assert "one" == answer("get", "app", "stripe/key", "--reveal")
    assert "version 2 is current" in answer("promote", "app", "stripe/key", "2")
    assert "two" == answer("get", "app", "stripe/key", "--reveal")
    refused = shiftable("secrets", "rm", "app", "stripe/key")
    assert refused.returncode
    assert "final" in refused.stderr
    listed = json.loads(answer("list", "app", "--json"))
    assert ["stripe/key"] == [each["key"] for each in listed]
    history = json.loads(answer("history", "app", "stripe/key", "--json"))
    assert [("2", ["current"]), ("1", ["previous"])] == [(each["version"], each["stages"]) for each in history]
    answer("rm", "app", "stripe/key", "--purge", "--yes")
    assert [] == ids(gcp_double)


def test_the_command_hands_secrets_to_another(shop: Path, shiftable: Command) -> None:
    assert 0 == shiftable("secrets", "set", "app", "stripe/key", stdin="sk-1").returncode
    code = "import os; print(os.environ['STRIPE_KEY'], os.environ['DB'])"
    missing = shiftable("run", "--", sys.executable, "-c", code)
    assert "db.password (for DB)" in missing.stderr
    assert 0 == shiftable("secrets", "set", "app", "db.password", stdin="pw-1").returncode

    assert "sk-1 pw-1\n" == shiftable("run", "--", sys.executable, "-c", code).stdout


def test_a_wrong_key_is_told_by_the_command_without_showing_it(
    shop: Path, shiftable: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    canary = "canary-3f1c"
    monkeypatch.setenv("SHOP_KEY", json.dumps({"type": "service_account", "private_key": canary}))

    done = shiftable("secrets", "get", "app", "stripe/key")

    assert done.returncode
    assert "service_account is not the JSON key" in done.stderr
    assert canary not in done.stdout + done.stderr
    with pytest.raises(ConfigError), load(shop) as app:
        app.secrets("app").get("stripe/key")


def test_a_declared_rotation_rotates_there(shop: Path, gcp_double: GcpDouble, shiftable: Command) -> None:
    shop.write_text(shop.read_text() + '[secrets.app.rotate]\n"session/key" = { kind = "random", every = "30d" }\n')
    for _ in range(2):
        done = shiftable("secrets", "rotate", "app", "session/key")
        assert (0, "") == (done.returncode, done.stderr)
    idle = shiftable("secrets", "rotate", "--due")
    assert "nothing to do" in idle.stdout

    secret = gcp_double.secrets.secrets[gcp_double.secrets.number(gcp_double.project), "shop__session__key"]
    assert {"current": 2, "previous": 1} == secret.aliases
    assert ["ENABLED", "ENABLED"] == [each.state for each in secret.versions.values()]

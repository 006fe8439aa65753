"""Secrets move between SOPS files and a Vault, with versions, stages, labels and expiry, through the real command."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

import pytest

import shiftable as library
from shiftable.secrets import SecretStore
from shiftable.testing.harness import Double
from shiftable_baremetal.double_vault import VaultDouble

FILE = """
[project]
name = "shop"
[environments.development]
provider = "files"
[providers.files]
type = "baremetal"
root = "files"
[providers.other]
type = "baremetal"
root = "other"
[providers.cellar]
type = "baremetal"
[providers.cellar.vault]
address = "{address}"
token = {{ env = "SHOP_TOKEN" }}
[secrets.app]
prefix = "shop"
"""
EXPIRES = datetime(2031, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.fixture
def double(shiftable_double: Callable[[str], Double]) -> VaultDouble:
    return cast("VaultDouble", shiftable_double("vault"))


def facts(store: SecretStore) -> list[object]:
    """Return all that a move has to keep; ids are the store's own."""
    found: list[object] = []
    for info in sorted(store.list(), key=lambda info: info.name):
        for version in store.history(info.name):
            secret = store.get(info.name, version=version.version)
            found.append((info.name, secret.reveal_bytes(), version.stages, dict(info.labels), info.expires))
    return found


def test_secrets_move_to_a_vault_and_back_with_all_that_they_are(
    double: VaultDouble, folder: Path, shiftable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHOP_TOKEN", double.token)
    monkeypatch.setenv("HOME", str(folder / "home"))
    (folder / "shiftable.toml").write_text(FILE.format(address=double.url))
    assert 0 == shiftable("apply").returncode
    with library.load("shiftable.toml") as app:
        store = app.secrets("app")
        for number in range(3):
            store.put("db/password", f"canary-{number}", labels={"team": "core"}, expires=EXPIRES)
            store.put("key", bytes([number, 255]))
        store.put("a", "canary-once")
        store.promote("db/password", list(store.history("db/password"))[1].version)
        before = facts(store)
    for source, target in (("files", "cellar"), ("cellar", "other")):
        for _ in range(2):
            answer = shiftable("migrate", "--from", source, "--to", target, "secrets", "--history", "all", "--apply")
            assert 0 == answer.returncode, answer.stderr + answer.stdout
            assert "canary" not in answer.stdout + answer.stderr
        with library.load("shiftable.toml") as app:
            assert before == facts(cast("SecretStore", app.cloud(target).secrets.store("shop")))
    fields = double.fields("shop/db/password") or {}
    assert "canary-1" == fields["value"]
    assert ["shop/a", "shop/db/password", "shop/key"] == sorted(double.names())
    left = [path for path in folder.rglob("*") if path.is_file() and b"canary" in path.read_bytes()]
    assert [] == left

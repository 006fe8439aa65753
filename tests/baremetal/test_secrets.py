"""The driver of secrets in SOPS files: the rules for all drivers, and what files alone can suffer."""

from __future__ import annotations

import base64
import errno
import fcntl
import hashlib
import itertools
import json
import os
import random
import re
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import attrs
import pyrage
import pytest
import yaml
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import settings
from shiftable_baremetal.secrets import FEATURES, SopsDriver

from shiftable import sops
from shiftable.errors import (
    Conflict,
    IntegrityError,
    InvalidArgument,
    NotFound,
    OperationError,
    ParentNotFound,
    PermissionDenied,
    QuotaExceeded,
    Unauthenticated,
)
from shiftable.secrets import Secrets, SecretsSpec, SecretStore
from shiftable.testing.conformance.secrets import SecretsConformance, secrets_machine

START = datetime(2026, 1, 1, 12, tzinfo=UTC)


@attrs.define
class Clock:
    """A clock that moves only when it is told to."""

    now: datetime = START

    def __call__(self) -> datetime:
        return self.now


@attrs.frozen
class Decoder:
    """Reads the store's files with age, AES-GCM and a YAML parser: nothing of the code under test."""

    root: Path
    key: str = attrs.field(repr=False)

    def document(self, path: Path) -> dict[str, Any]:
        """Decrypt a file and check its MAC."""
        tree = yaml.safe_load(path.read_bytes())
        meta = tree.pop("sops")
        identity = pyrage.x25519.Identity.from_str(self.key)
        cipher = AESGCM(pyrage.decrypt(meta["age"][0]["enc"].encode(), [identity]))
        digest = hashlib.sha512()

        def opened(text: str, place: str) -> bytes:
            data, iv, tag = (base64.b64decode(text.split(f"{part}:")[1].split(",")[0]) for part in ("data", "iv", "tag"))
            return cipher.decrypt(iv, data + tag, place.encode())

        def walk(node: Any, place: str) -> Any:
            if isinstance(node, dict):
                return {key: walk(value, f"{place}{key}:") for key, value in node.items()}
            if node is None:
                return None
            value = opened(node, place).decode() if place.endswith("value:") else node
            digest.update(str(value).encode())
            return value

        plain = walk(tree, "")
        assert digest.hexdigest().upper().encode() == opened(meta["mac"], meta["lastmodified"])
        return plain

    def value(self, name: str) -> bytes | None:
        path = self.root / f"{name}.yaml"
        if not path.exists():
            return None
        tree = self.document(path)
        version = tree["versions"][tree["current"]]
        return base64.b64decode(version["value"]) if version["kind"] == "binary" else version["value"].encode()

    def names(self) -> list[str]:
        found = (path.relative_to(self.root) for path in self.root.rglob("*.yaml"))
        return [str(path).removesuffix(".yaml") for path in found if path.parts[0] != ".deleted"]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep the tests away from the keys of who runs them."""
    for owner, name in itertools.product(("SHIFTABLE", "SOPS"), ("AGE_KEY", "AGE_KEY_FILE")):
        monkeypatch.delenv(f"{owner}_{name}", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "secrets"


@pytest.fixture
def driver(root: Path, clock: Clock) -> SopsDriver:
    made = SopsDriver(root, clock=clock)
    made.create(SecretsSpec(name="shop"))
    return made


@pytest.fixture
def decoder(driver: SopsDriver, root: Path, home: Path) -> Decoder:
    return Decoder(root, (home / ".config/shiftable/age.key").read_text().splitlines()[1])


@pytest.fixture
def shop(driver: SopsDriver) -> SecretStore:
    return Secrets(driver).store("shop")


class TestConformance(SecretsConformance):
    @pytest.fixture
    def driver(self, root: Path) -> SopsDriver:
        made = SopsDriver(root)
        made.create(SecretsSpec(name="any"))
        return made

    @pytest.fixture
    def oracle(self, decoder: Decoder) -> Decoder:
        return decoder


# the state machine


def _empty_store(folder: Path) -> Callable[[], SecretStore]:
    def make() -> SecretStore:
        driver = SopsDriver(Path(tempfile.mkdtemp(dir=folder)), identity_file=folder / "age.key")
        driver.create(SecretsSpec(name="shop"))
        return Secrets(driver).store("shop")

    return make


def test_any_sequence_of_calls_answers_as_the_memory_model(tmp_path: Path) -> None:
    machine = secrets_machine(_empty_store(tmp_path)).TestCase
    machine.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
    machine().runTest()

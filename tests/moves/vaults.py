"""The providers of a move of secrets as everybody else sees them: through their own clients, and as files.

Nothing here goes through shiftable but the filling of files, which nobody else can write.
"""

from __future__ import annotations

import base64
import json
import os
import string
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import pyrage
import yaml
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from shiftable.secrets import Secrets, SecretsSpec
from shiftable.secrets.names import NameMap
from shiftable.testing.harness import Double

from .hidden import Hidden
from .sides import Side, is_ours

if TYPE_CHECKING:
    from shiftable_aws.double import AwsDouble
    from shiftable_azure.double import AzureDouble
    from shiftable_gcp.double import GcpDouble

__all__ = ["DECLARED", "VAULTS", "Vault", "VaultOnDouble", "all_values"]

PREFIX = "shop"
DECLARED = ("[secrets.app]", f'prefix = "{PREFIX}"')
_NAME = "shiftable-name"
_EXPIRES = "shiftable-expires"
_LABELS = "shiftable-labels"
_THREADS = 8
_GCP_NAMES = NameMap("__", string.ascii_letters + string.digits + "_-", longest=255)
_AZURE_NAMES = NameMap("--", string.ascii_letters + string.digits + "-", longest=127, folds=True)


class Vault(ABC):
    """One provider with the secrets below one prefix.

    Args:
        side: what stands in the file, and where the double is.
    """

    name: ClassVar[str]

    def __init__(self, side: Side) -> None:
        self.side = side

    @property
    def settings(self) -> Mapping[str, Any]:
        """What stands in ``[providers.NAME]``."""
        return self.side.settings

    @property
    def environ(self) -> Mapping[str, str]:
        """What the settings refer to."""
        return self.side.environ

    def fill(self, secrets: Mapping[str, Hidden]) -> None:
        """Make secrets as another tool does."""
        with ThreadPoolExecutor(_THREADS) as pool:
            for _ in pool.map(lambda found: self.put(*found), secrets.items()):
                pass

    @abstractmethod
    def put(self, key: str, secret: Hidden) -> None:
        """Make one secret."""

    @abstractmethod
    def read(self) -> dict[str, Hidden]:
        """Read everything, as it is kept."""

    @abstractmethod
    def tamper(self, key: str, version: int, value: str) -> None:
        """Put another value in the place of one of a version, counted from the oldest."""

    @abstractmethod
    def writes(self) -> list[str]:
        """Return what shiftable has written so far, in any form that is the longer the more it was."""


class VaultOnDouble(Vault):
    """A provider that a double stands in for."""

    double: Double
    reading: ClassVar[frozenset[str]]

    def __init__(self, side: Any) -> None:
        super().__init__(side)
        self.double = side.double

    def writes(self) -> list[str]:
        return [
            f"{call.method} {call.path} {call.operation}"
            for call in self.double.calls
            if is_ours(call) and call.service == self._service and not self._reads(call)
        ]

    _service: ClassVar[str] = "secrets"

    def _reads(self, call: Any) -> bool:
        return bool(call.method == "GET")


class AwsVault(VaultOnDouble):
    name = "aws"
    _service = "secretsmanager"
    double: AwsDouble

    def _reads(self, call: Any) -> bool:
        return call.operation.startswith(("Get", "List", "Describe", "BatchGet"))

    @cached_property
    def client(self) -> Any:
        import boto3
        from botocore.config import Config

        environ = self.double.environ
        return boto3.client(
            "secretsmanager",
            endpoint_url=self.double.url.replace("127.0.0.1", "localhost"),
            config=Config(max_pool_connections=_THREADS, retries={"max_attempts": 1}),
            region_name=self.double.region,
            aws_access_key_id=environ["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=environ["AWS_SECRET_ACCESS_KEY"],
        )

    def put(self, key: str, secret: Hidden) -> None:
        tags = dict(secret.labels)
        if secret.expires is not None:
            tags[_EXPIRES] = f"{secret.expires:%Y-%m-%dT%H:%M:%SZ}"
        kinds = [{"SecretString" if isinstance(value, str) else "SecretBinary": value} for value in secret.values]
        given, name = [{"Key": label, "Value": value} for label, value in tags.items()], f"{PREFIX}/{key}"
        ids = [self.client.create_secret(Name=name, Tags=given, **kinds[0])["VersionId"]]
        ids += [self.client.put_secret_value(SecretId=name, **kind)["VersionId"] for kind in kinds[1:]]
        if secret.current != len(ids) - 1:
            move = {"MoveToVersionId": ids[secret.current], "RemoveFromVersionId": ids[-1]}
            self.client.update_secret_version_stage(SecretId=name, VersionStage="AWSCURRENT", **move)
        if secret.pending is not None:
            self.client.put_secret_value(SecretId=name, SecretString=secret.pending, VersionStages=["AWSPENDING"])

    def read(self) -> dict[str, Hidden]:
        found = self.double.backend("secretsmanager").secrets
        return {name.removeprefix(f"{PREFIX}/"): self._hidden(secret) for name, secret in found.items()}

    def _hidden(self, secret: Any) -> Hidden:
        versions = list(secret.versions.values())
        stages = {stage: at for at, version in enumerate(versions) for stage in version["version_stages"]}
        tags = {tag["Key"]: tag["Value"] for tag in secret.tags or ()}
        expires = tags.pop(_EXPIRES, None)
        values = tuple(self._value(version) for version in versions)
        return _made(
            values,
            (stages["AWSCURRENT"], stages.get("AWSPREVIOUS"), stages.get("AWSPENDING")),
            tags,
            datetime.fromisoformat(expires) if expires else None,
        )

    @staticmethod
    def _value(version: Mapping[str, Any]) -> str | bytes:
        text = version.get("secret_string")
        return text if text is not None else base64.b64decode(version["secret_binary"])

    def tamper(self, key: str, version: int, value: str) -> None:
        secret = self.double.backend("secretsmanager").secrets[f"{PREFIX}/{key}"]
        found = list(secret.versions.values())[version]
        found.pop("secret_binary", None)
        found["secret_string"] = value


class GcpVault(VaultOnDouble):
    name = "gcp"
    _service = "secretmanager"
    double: GcpDouble

    def put(self, key: str, secret: Hidden) -> None:
        from shiftable_gcp._secret_manager import StoredSecret, StoredVersion

        manager, name = self.double.secrets, f"{PREFIX}/{key}"
        native, project = _GCP_NAMES.native(name), manager.number(self.double.project)
        annotations = {} if native == name.replace("/", "__") else {_NAME: name}
        if any(not value.isascii() or label != label.lower() for label, value in secret.labels.items()):
            annotations[_LABELS] = json.dumps(dict(secret.labels))
        if secret.expires is not None:
            annotations[_EXPIRES] = f"{secret.expires:%Y-%m-%dT%H:%M:%SZ}"
        stages = {"current": secret.current + 1}
        if secret.previous is not None:
            stages["previous"] = secret.previous + 1
        values = [*secret.values, *([secret.pending] if secret.pending is not None else [])]
        if secret.pending is not None:
            stages["pending"] = len(values)
        began = self.double.clock.now() - timedelta(days=1)
        manager.secrets[project, native] = StoredSecret(
            native,
            project,
            began,
            f'"{native}"',
            {"automatic": {}},
            {
                "annotations": annotations,
                "labels": {} if _LABELS in annotations else dict(secret.labels),
                "versionAliases": stages,
            },
            {
                at: StoredVersion(at, began + timedelta(hours=at), f'"{at}"', _raw(value))
                for at, value in enumerate(values, 1)
            },
        )

    def read(self) -> dict[str, Hidden]:
        found = {}
        for secret in self.double.secrets.secrets.values():
            annotations = secret.facts.get("annotations", {})
            name = annotations.get(_NAME) or secret.id.replace("__", "/")
            labels = dict(secret.facts.get("labels", {})) | json.loads(annotations.get(_LABELS, "{}"))
            numbers = sorted(number for number, version in secret.versions.items() if version.state == "ENABLED")
            places = {alias: numbers.index(number) for alias, number in secret.aliases.items()}
            found[name.removeprefix(f"{PREFIX}/")] = _made(
                tuple(_kind(secret.versions[number].payload) for number in numbers),
                (places["current"], places.get("previous"), places.get("pending")),
                labels,
                datetime.fromisoformat(annotations[_EXPIRES]) if _EXPIRES in annotations else None,
            )
        return found

    def tamper(self, key: str, version: int, value: str) -> None:
        manager = self.double.secrets
        secret = manager.secrets[manager.number(self.double.project), _GCP_NAMES.native(f"{PREFIX}/{key}")]
        secret.versions[sorted(secret.versions)[version]].payload = value.encode()


class AzureVault(VaultOnDouble):
    name = "azure"
    double: AzureDouble

    @property
    def settings(self) -> Mapping[str, Any]:
        config = self.double.config
        vault = {"vault": config["vault"], "vault_endpoint": config["vault_endpoint"]}
        return {**super().settings, **vault, "vault_token": {"env": "MOVES_VAULT_TOKEN"}}

    @property
    def environ(self) -> Mapping[str, str]:
        return {**super().environ, "MOVES_VAULT_TOKEN": self.double.config["vault_token"].reveal()}

    def put(self, key: str, secret: Hidden) -> None:
        name = f"{PREFIX}/{key}"
        native = _AZURE_NAMES.native(name)
        about = dict(secret.labels) | ({} if native == name.replace("/", "--") else {_NAME: name})
        facts = {"exp": int(secret.expires.timestamp()) if secret.expires else None}
        began = int(datetime.now(UTC).timestamp()) - 86_400
        ids = []
        for at, value in enumerate(secret.values):
            text, tags = _text(value)
            made = self.double.vault.put_raw(native, text, created=began + at, tags=about | tags, **facts)
            ids.append(made.id)
        if secret.current != len(ids) - 1:
            text, tags = _text(secret.values[secret.current])
            state = f"of={ids[secret.current]} born={began + secret.current} previous={ids[secret.previous or 0]}"
            tags |= about | {"shiftable-state": f"{state} made={(began + 60) * 1_000_000}"}
            self.double.vault.put_raw(native, text, created=began + 60, tags=tags, **facts)

    def read(self) -> dict[str, Hidden]:
        found = {}
        for native, secret in self.double.vault.secrets.items():
            if native.endswith("---pending"):
                continue
            tags = dict(secret.latest.tags)
            state = _state(tags.pop("shiftable-state", ""))
            name = tags.pop(_NAME, native.replace("--", "/"))
            tags.pop("file-encoding", None)
            own: dict[str, Any] = {}  # what was set again is the version that it was before, here or beside
            for id_, version in secret.versions.items():
                own.setdefault(_state(version.tags.get("shiftable-state", "")).get("of", id_), version)
            ids = list(own)
            # Of what another tool wrote, the version before the latest is the previous one.
            previous = state.get("previous") if state else next(iter(ids[-2:-1]), None)
            exp = secret.latest.exp
            found[name.removeprefix(f"{PREFIX}/")] = _made(
                tuple(_decoded(version) for version in own.values()),
                (ids.index(state.get("of") or secret.latest.id), ids.index(previous) if previous else None, None),
                tags,
                datetime.fromtimestamp(exp, UTC) if exp else None,
            )
        return found

    def tamper(self, key: str, version: int, value: str) -> None:
        found = list(self.double.vault.secrets[_AZURE_NAMES.native(f"{PREFIX}/{key}")].versions.values())[version]
        found.value = value
        found.tags.pop("file-encoding", None)


class FileVault(Vault):
    name = "baremetal"

    @property
    def root(self) -> Path:
        """Where the files are."""
        return Path(str(self.side.settings["root"])) / "secrets"

    @cached_property
    def _store(self) -> Any:
        from shiftable_baremetal.secrets import SopsDriver

        secrets = Secrets(SopsDriver(self.root))
        secrets.create(SecretsSpec(name=PREFIX))
        return secrets.store(PREFIX)

    def fill(self, secrets: Mapping[str, Hidden]) -> None:
        for key, secret in secrets.items():
            self.put(key, secret)

    def put(self, key: str, secret: Hidden) -> None:
        """Write a file: it is sealed, so only the driver can."""
        facts = {"labels": secret.labels, "expires": secret.expires}
        ids = [self._store.put(key, value, **facts).version for value in secret.values]
        if secret.current != len(ids) - 1:
            self._store.promote(key, ids[secret.current])
        if secret.pending is not None:
            self._store.put(key, secret.pending, stage="pending")

    def read(self) -> dict[str, Hidden]:
        top = self.root / PREFIX
        return {str(path.relative_to(top)).removesuffix(".yaml"): self._hidden(path) for path in top.rglob("*.yaml")}

    @property
    def _identity(self) -> Any:
        lines = (Path(os.environ["HOME"]) / ".config/shiftable/age.key").read_text().splitlines()
        return pyrage.x25519.Identity.from_str(next(line for line in lines if line.startswith("AGE-SECRET-KEY-")))

    def _hidden(self, path: Path) -> Hidden:
        """Decrypt with age, AES-GCM and a YAML parser."""
        tree = yaml.safe_load(path.read_bytes())
        cipher = AESGCM(pyrage.decrypt(tree["sops"]["age"][0]["enc"].encode(), [self._identity]))
        ids = sorted(tree["versions"], key=lambda id_: int(id_.partition("-")[0]))
        places = [ids.index(tree[stage]) if tree[stage] else None for stage in ("current", "previous", "pending")]
        return _made(
            tuple(_plain(cipher, id_, tree["versions"][id_]) for id_ in ids),
            (places[0] or 0, places[1], places[2]),
            tree["labels"],
            datetime.fromisoformat(tree["expires"]) if tree["expires"] else None,
        )

    def tamper(self, key: str, version: int, value: str) -> None:
        """Put another value: a file that was edited would not be read at all."""
        before = list(reversed(list(self._store.history(key))))
        facts = self._store.get(key)
        values = [self._store.get(key, version=each.version).value for each in before]
        stages = {stage: at for at, each in enumerate(before) for stage in each.stages}
        self._store.delete(key, recovery=None)
        ids = [
            self._store.put(key, value if at == version else kept, labels=facts.labels, expires=facts.expires).version
            for at, kept in enumerate(values)
        ]
        if stages["current"] != len(ids) - 1:
            self._store.promote(key, ids[stages["current"]])

    def writes(self) -> list[str]:
        files = (path for path in self.root.rglob("*.yaml") if path.is_file())
        return sorted(f"{path} {path.stat().st_ino} {path.stat().st_mtime_ns}" for path in files)


VAULTS: Mapping[str, Callable[[Any], Vault]] = {
    vault.name: vault for vault in (AwsVault, GcpVault, AzureVault, FileVault)
}


def _made(
    values: tuple[str | bytes, ...],
    stages: tuple[int, int | None, int | None],
    labels: Mapping[str, str],
    expires: datetime | None,
) -> Hidden:
    current, previous, pending = stages
    rest = tuple(value for at, value in enumerate(values) if at != pending)
    return Hidden(
        values=rest,
        current=current,
        previous=previous,
        pending=None if pending is None else values[pending],
        labels=dict(labels),
        expires=expires,
    )


def _state(tag: str) -> dict[str, str]:
    return dict(part.partition("=")[::2] for part in tag.split())


def _raw(value: str | bytes) -> bytes:
    return value.encode() if isinstance(value, str) else value


def _kind(raw: bytes | None) -> str | bytes:
    try:
        return (raw or b"").decode()
    except UnicodeDecodeError:
        return raw or b""


def _text(value: str | bytes) -> tuple[str, dict[str, str]]:
    """Return a value as the Azure CLI writes it."""
    if isinstance(value, str):
        return value, {}
    return base64.b64encode(value).decode(), {"file-encoding": "base64"}


def _decoded(version: Any) -> str | bytes:
    text: str = version.value
    return base64.b64decode(text) if version.tags.get("file-encoding") == "base64" else text


def _plain(cipher: AESGCM, id_: str, version: Mapping[str, Any]) -> str | bytes:
    text = version["value"]
    data, iv, tag = (base64.b64decode(text.split(f"{part}:")[1].split(",")[0]) for part in ("data", "iv", "tag"))
    plain = cipher.decrypt(iv, data + tag, f"versions:{id_}:value:".encode())
    return base64.b64decode(plain) if version["kind"] == "binary" else plain.decode()


def all_values(secrets: Mapping[str, Hidden]) -> Iterator[str | bytes]:
    """Yield every value."""
    return (value for secret in secrets.values() for value in secret.values)

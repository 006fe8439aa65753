"""What an application's file says of providers: settings of their own, and credentials that are its own secrets."""

import threading
from collections.abc import Iterator, Mapping
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, ClassVar, Literal, cast

import attrs
import jsonschema
import pytest

import shiftable
from shiftable import manifest, registry
from shiftable.app import load
from shiftable.blob.driver import BlobDriver
from shiftable.config import Credential
from shiftable.database import DatabaseSpec
from shiftable.errors import ConfigError
from shiftable.features import Features
from shiftable.memory import MemoryProvider, MemorySettings
from shiftable.provider import Provider
from shiftable.secrets.driver import SecretsDriver

START = """
[project]
name = "shop"
[environments.development]
provider = "here"
[providers.here]
type = "fake"
"""
DATABASE = """
[database.orders]
engine = "postgresql"
version = "16"
cpus = 1
memory_gib = 1
storage_gib = 10
"""


@attrs.frozen(kw_only=True)
class FakeSettings:
    key: Credential | None = None
    secrets_key: Credential | None = None
    folder: Path = Path("data")
    limit: int = 1


@attrs.frozen(kw_only=True)
class FakeBucket:
    tier: Literal["hot", "cold"] = "hot"
    key: Credential | None = None


class FakeProvider(Provider[FakeSettings]):
    """Memory, whose drivers want a credential when they are made, as those of servers do."""

    name: ClassVar[str] = "fake"
    driver_api: ClassVar[int] = 1
    settings_type: ClassVar[type[FakeSettings]] = FakeSettings
    native_types: ClassVar[Mapping[str, type[Any]]] = {"blob": FakeBucket}

    def __init__(self, settings: FakeSettings) -> None:
        super().__init__(settings)
        self.memory = MemoryProvider(MemorySettings())
        self.key = ""

    @classmethod
    def features(cls) -> Mapping[str, tuple[Features, ...]]:
        return MemoryProvider.features()

    def blob(self) -> BlobDriver:
        if self.settings.key is not None:
            self.key = self.settings.key.reveal()
        return self.memory.blob()

    def secrets(self) -> SecretsDriver:
        if self.settings.secrets_key is not None:
            self.settings.secrets_key.reveal()
        return self.memory.secrets()


@pytest.fixture(autouse=True)
def _installed(monkeypatch: pytest.MonkeyPatch) -> None:
    points = [*entry_points(group=registry.GROUP), EntryPoint("fake", f"{__name__}:FakeProvider", registry.GROUP)]
    monkeypatch.setattr(registry, "_entry_points", lambda: points)


@pytest.fixture
def write(tmp_path: Path) -> Iterator[Any]:
    def written(text: str) -> Path:
        path = tmp_path / "shiftable.toml"
        path.write_text(START + text)
        return path

    return written


def within_a_minute(work: Any) -> Any:
    """Run what might wait for itself for ever."""
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(work()), daemon=True)
    thread.start()
    thread.join(60)
    assert results, "it waits for itself"
    return results[0]


def error_of(work: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        work()
    return str(caught.value)


# credentials that are secrets


def test_a_provider_may_keep_its_own_credential_among_its_own_secrets(write: Any) -> None:
    app = load(write('key = { secret = "app/id" }\n[blob.assets]\n[secrets.app]\n'))
    app.secrets("app").put("id", "canary-92c1")
    within_a_minute(lambda: app.blob("assets"))
    assert "canary-92c1" == app.cloud("here").unwrap(FakeProvider).key


def test_a_credential_of_a_provider_that_is_missing_does_not_tell_that_resources_are(write: Any) -> None:
    app = load(write('key = { secret = "app/there/id" }\n[blob.assets]\n[secrets.app]\n'))
    said = error_of(lambda: app.blob("assets"))  # a NotFound would read as one of the bucket
    assert said.startswith("a provider's credential { secret = 'app/there/id' } cannot be read: secrets.get on secret ")
    assert said.endswith("; `shiftable secrets put app there/id` stores it")


def test_secrets_that_need_themselves_are_an_error(write: Any) -> None:
    app = load(write('secrets_key = { secret = "app/id" }\n[secrets.app]\n'))
    said = within_a_minute(lambda: error_of(lambda: app.secrets("app")))
    assert "the credential { secret = 'app/id' } needs itself to be read" == said


def test_two_providers_that_need_each_others_secrets_are_an_error_in_every_thread(write: Any) -> None:
    app = load(
        write(
            'secrets_key = { secret = "two/id" }\n[secrets.one]\n[secrets.two]\n'
            '[providers.there]\ntype = "fake"\nsecrets_key = { secret = "one/id" }\n'
            '[environments.development.overrides]\n"secrets.two" = "there"\n'
        )
    )
    said: list[str] = []
    threads = [
        threading.Thread(target=lambda label=label: said.append(error_of(lambda: app.secrets(label))), daemon=True)
        for label in ("one", "two") * 8
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert 16 == len(said)
    assert all("needs itself to be read" in each for each in said)


def test_a_service_is_the_same_for_all_threads() -> None:
    cloud = shiftable.connect("memory")
    barrier, found = threading.Barrier(16), []

    def use() -> None:
        barrier.wait()
        found.append(cloud.blob)

    threads = [threading.Thread(target=use) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 1 == len({id(each) for each in found})


def test_a_credential_of_a_resource_may_be_a_secret(write: Any) -> None:
    app = load(
        write('[secrets.app]\n[providers.m]\ntype = "memory"\n' + DATABASE + 'password = { secret = "app/db" }\n')
    )
    app.secrets("app").put("db", "canary-1b7e")
    spec = cast("DatabaseSpec", app.spec(app.declared("database")[0]))
    assert spec.password is not None
    assert "canary-1b7e" == spec.password.reveal()
    assert "canary" not in repr(spec)


def test_a_binary_secret_is_no_credential(write: Any) -> None:
    app = load(write('key = { secret = "app/id" }\n[blob.assets]\n[secrets.app]\n'))
    app.secrets("app").put("id", b"\xff\x00")
    assert "the credential { secret = 'app/id' } is binary; it must be text" == error_of(lambda: app.blob("assets"))


# settings of a resource that only one provider has


def test_what_only_one_provider_knows_of_a_resource_reaches_its_drivers(write: Any) -> None:
    app = load(write('[blob.assets]\n[blob.assets.fake]\ntier = "cold"\nkey = { secret = "app/id" }\n[secrets.app]\n'))
    app.secrets("app").put("id", "canary-77aa")
    (declared,) = app.declared("blob")
    native = cast("FakeBucket", app.spec(declared).native)
    assert "cold" == native.tier
    assert native.key is not None
    assert "canary-77aa" == native.key.reveal()
    assert app.spec(declared, "memory").native is None


def test_mistakes_in_them_are_told_when_the_file_is_read_whoever_is_in_use(write: Any) -> None:
    text = (
        '[blob.assets.fake]\ntier = "warm"\n[blob.logs]\nmemory.speed = 3\nfake = { colour = 1 }\n[secrets.app.fake]\n'
    )
    assert [
        "[blob.assets.fake] tier: must be one of 'hot', 'cold' (line 9)",
        "[blob.logs] memory: the provider memory has no settings of its own for blob (line 10)",
        "[blob.logs.fake] colour: unknown; there is: key, tier (line 12)",
        "[secrets.app] fake: the provider fake has no settings of its own for secrets (line 13)",
    ] == error_of(lambda: load(write(text))).splitlines()


def test_those_of_a_provider_that_is_not_installed_are_left_alone(write: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    points = [EntryPoint("fake", f"{__name__}:FakeProvider", registry.GROUP)]
    monkeypatch.setattr(registry, "_entry_points", lambda: points)
    text = '[blob.assets.aws]\nstorage_class = "x"\n[providers.far]\ntype = "aws"\nregion = "eu"\n'
    assert load(write(text))
    validator = jsonschema.Draft202012Validator(manifest.json_schema())
    document = {"project": {"name": "x"}, "environments": {"d": {"provider": "far"}}}
    document |= {"blob": {"assets": {"aws": {"storage_class": "x"}}}, "providers": {"far": {"type": "aws", "x": 1}}}
    assert [] == list(validator.iter_errors(document))
    document["blob"]["assets"]["fake"] = {"tier": "warm"}  # type: ignore[assignment]  # a table in it
    assert list(validator.iter_errors(document))


def test_a_mark_before_the_text_is_no_mistake(write: Any) -> None:
    path = write("")
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert "shop" == load(path).config.project.name


# the same settings in code


def test_settings_in_code_are_read_as_those_in_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("x", tmp_path / "x"):
        settings = shiftable.connect("fake", folder=folder, key=Credential.literal("k")).unwrap(FakeProvider).settings
        assert (tmp_path / "x", Credential.literal("k")) == (settings.folder, settings.key)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"folder": 5}, "connect('fake') folder: must be text, not a whole number"),
        ({"limit": "5"}, "connect('fake') limit: must be a whole number, not text"),
        ({"lmit": 5}, "connect('fake'): unknown setting 'lmit'; did you mean limit?"),
        ({"key": "canary"}, "connect('fake'): the setting 'key' is a credential: pass Credential.env(…)"),
    ],
)
def test_a_wrong_setting_in_code_is_named(settings: dict[str, Any], said: str) -> None:
    assert error_of(lambda: shiftable.connect("fake", **settings)).startswith(said)

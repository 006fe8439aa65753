"""``shiftable_app``: an application's own file, with all that it declares at a provider that a test brings."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import pytest

from shiftable.app import App
from shiftable.errors import ConfigError, NotFound

FILE = """
[project]
name = "shop"
[environments.production]
provider = "frankfurt"
[environments.production.overrides]
"secrets.app" = "cellar"
[environments.production.mirrors]
"secrets.app" = "frankfurt"
[environments.test]
provider = "cellar"
[providers.frankfurt]
type = "memory"
[providers.cellar]
type = "memory"
[blob.uploads]
bucket = "shop-uploads"
[secrets.app]
prefix = "shop"
[dns.shop]
zone = "shop.example"
[compute.web]
image = "debian-12"
cpus = 1
memory_gib = 1
user_data = "init.yaml"
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the application's folder, which is where one is."""
    made = tmp_path / "shop" / "tests"
    made.mkdir(parents=True)
    (made.parent / "shiftable.toml").write_text(FILE)
    (made.parent / "init.yaml").write_text("#cloud-config")
    monkeypatch.chdir(made)
    return made.parent


def test_all_that_is_declared_is_made_at_the_one_provider(folder: Path, shiftable_app: Callable[..., App]) -> None:
    app = shiftable_app("memory")
    assert [()] * 4 == [app.diff(declared) for declared in app.declared()]
    assert {"test"} == {app.provider_of(declared) for declared in app.declared()}
    assert ["running"] == [machine.info().state for machine in app.compute("web").machines()]
    app.blob("uploads").put("a", b"1")
    app.secrets("app").put("key", "value")
    app.dns("shop").set("www", "A", "192.0.2.1")
    assert "value" == app.secrets("app").get("key").reveal()


def test_nothing_of_the_file_itself_is_reached_and_nothing_is_written_beside_it(
    folder: Path, shiftable_app: Callable[..., App], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHIFTABLE_ENV", "production")
    app = shiftable_app("memory")
    for label in ("frankfurt", "cellar"):
        with pytest.raises(ConfigError, match=f"has no \\[providers.{label}\\]"):
            app.cloud(label)
    assert not (folder / ".shiftable").exists()
    assert (app.state_dir / "applied.jsonl").read_text().count('"state": "done"') == 3  # secrets need no making
    with pytest.raises(TypeError, match="stays in its process"):
        pickle.dumps(app)


def test_another_file_may_be_meant_and_nothing_be_made(
    folder: Path, tmp_path: Path, shiftable_app: Callable[..., App]
) -> None:
    other = tmp_path / "other.toml"
    other.write_text(FILE.replace("shop-uploads", "other-uploads").partition("[compute.web]")[0])
    app = shiftable_app("memory", other, make=False)
    assert "other-uploads" == app.blob("uploads").name
    with pytest.raises(NotFound):
        app.blob("uploads").put("a", b"1")
    assert len(app.declared()) == 3


def test_a_double_that_is_not_there_says_what_to_install(folder: Path, shiftable_app: Callable[..., App]) -> None:
    with pytest.raises(ConfigError, match="no double of 'nowhere'.*its provider brings it"):
        shiftable_app("nowhere")


def test_a_provider_that_is_installed_and_has_no_double_is_not_to_be_installed(
    folder: Path, shiftable_double: Callable[..., object]
) -> None:
    with pytest.raises(ConfigError, match="no double of 'memory'.*it is installed and has none of that name"):
        shiftable_double("memory")

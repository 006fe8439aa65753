"""The registry: unknown, broken, claimed twice, too old; and nothing hides anything else."""

import os
from importlib import metadata
from importlib.metadata import EntryPoint
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import pytest

from shiftable import registry
from shiftable.errors import ProviderError
from shiftable.memory import MemoryProvider
from shiftable.provider import Provider


class OldProvider(MemoryProvider):
    driver_api: ClassVar[int] = 0


class NewProvider(MemoryProvider):
    driver_api: ClassVar[int] = 99


class NoVersion(Provider[None]):  # type: ignore[type-var]  # only its version matters
    name = "x"


def point(name: str, value: str, distribution: str = "some-dist") -> EntryPoint:
    made = EntryPoint(name, value, registry.GROUP)
    vars(made)["dist"] = SimpleNamespace(name=distribution, version="1.0")
    return made


@pytest.fixture
def points(monkeypatch: pytest.MonkeyPatch) -> list[EntryPoint]:
    found = [point("memory", "shiftable.memory:MemoryProvider", "shiftable")]
    monkeypatch.setattr(registry, "_entry_points", lambda: found)
    return found


def test_an_installed_provider_is_loaded_by_name(points: list[EntryPoint]) -> None:
    assert MemoryProvider is registry.load("memory")
    assert ("memory",) == registry.names()


def test_an_unknown_name_is_answered_with_the_near_one_and_what_is_installed(points: list[EntryPoint]) -> None:
    with pytest.raises(ProviderError, match="unknown provider 'memroy'; did you mean memory.; installed: memory"):
        registry.load("memroy")


def test_a_known_provider_that_is_not_installed_says_how_to_install_it(points: list[EntryPoint]) -> None:
    with pytest.raises(ProviderError, match='pip install "shiftable-aws"'):
        registry.load("aws")


def test_a_broken_provider_shows_its_reason_and_hides_no_other(points: list[EntryPoint]) -> None:
    points.append(point("broken", "shiftable_no_such_module:Provider"))
    assert ("broken", "memory") == registry.names()
    assert MemoryProvider is registry.load("memory")
    with pytest.raises(
        ProviderError, match="'broken' of some-dist 1.0 cannot be imported: ModuleNotFoundError"
    ) as caught:
        registry.load("broken")
    assert isinstance(caught.value.__cause__, ModuleNotFoundError)


def test_two_distributions_that_claim_one_name_are_both_named(points: list[EntryPoint]) -> None:
    points.append(point("memory", "other:Provider", "other-dist"))
    with pytest.raises(ProviderError, match=r"shiftable 1.0 .*and other-dist 1.0 \(other:Provider\); uninstall one"):
        registry.load("memory")


def test_one_provider_seen_twice_on_the_path_is_one(points: list[EntryPoint]) -> None:
    points.append(points[0])
    assert MemoryProvider is registry.load("memory")


@pytest.mark.parametrize(
    ("cls", "advice"),
    [
        ("OldProvider", "upgrade that provider"),
        ("NewProvider", "upgrade shiftable"),
        ("NoVersion", "upgrade that provider"),
    ],
)
def test_another_driver_api_says_what_to_upgrade(
    points: list[EntryPoint], cls: str, advice: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    points.append(point("other", f"{__name__}:{cls}"))
    monkeypatch.setattr(EntryPoint, "load", lambda _: globals()[cls])
    with pytest.raises(ProviderError, match=advice):
        registry.load("other")


def test_an_entry_point_that_is_no_provider_is_refused(points: list[EntryPoint]) -> None:
    points.append(point("odd", "json:dumps"))
    with pytest.raises(ProviderError, match="json:dumps, which is no"):
        registry.load("odd")


def test_what_is_installed_while_a_process_runs_is_seen_and_nothing_else_is_looked_through_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked = []
    real = metadata.entry_points
    monkeypatch.setattr(metadata, "entry_points", lambda group: looked.append(group) or real(group=group))
    monkeypatch.syspath_prepend(tmp_path)
    before = registry.names()
    assert "late" not in before
    assert (before, 1) == (registry.names(), len(looked))
    written = tmp_path / "written"
    written.mkdir()
    (written / "METADATA").write_text("Metadata-Version: 2.1\nName: late\nVersion: 1.0\n")
    (written / "entry_points.txt").write_text(f"[{registry.GROUP}]\nlate = late:Provider\n")
    os.utime(tmp_path, ns=(0, 0))  # as if the folder had not changed for long: clocks of file systems are coarse
    registry.names()
    written.rename(tmp_path / "late-1.0.dist-info")
    assert "late" in registry.names()

"""A target that keeps ten versions, of which a promotion is one: deltas go on, and nothing is written in circles."""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from shiftable.memory.secrets import MemorySecretsDriver
from shiftable.migrate import Migration, Options
from shiftable.secrets import Secrets, SecretsSpec, SecretStore
from shiftable.testing.harness import Double


class World:
    """A memory and a Vault, and the application between them."""

    def __init__(self, double: Double, folder: Path) -> None:
        from shiftable_baremetal import BaremetalProvider, BaremetalSettings, VaultSettings

        self.state_dir = folder / ".shiftable"
        self.provider = BaremetalProvider(BaremetalSettings(vault=VaultSettings(**double.config["vault"])))
        self._clouds = {"here": Secrets(MemorySecretsDriver()), "there": Secrets(self.provider.secrets())}
        self.source, self.target = (self._clouds[label].store("shop") for label in ("here", "there"))

    def declared(self) -> tuple[Any, ...]:
        return (types.SimpleNamespace(service="secrets", label="app", spec=SecretsSpec(name="shop")),)

    def cloud(self, label: str) -> Any:
        return types.SimpleNamespace(service=lambda _: self._clouds[label])

    def move(self, verb: str = "apply", **options: Any) -> Any:
        return getattr(Migration(self, "here", "there", (), Options(history=None, **options)), verb)()


@pytest.fixture
def world(shiftable_double: Callable[[str], Double], folder: Path) -> Iterator[World]:
    made = World(shiftable_double("vault"), folder)
    yield made
    made.provider.close()


def staged(store: SecretStore) -> dict[str, str]:
    return {stage: store.get("a", stage=stage).reveal() for stage in ("current", "previous")}  # type: ignore[arg-type]


def test_versions_beyond_those_that_are_kept_are_asked_about_and_then_left(world: World) -> None:
    for number in range(14):
        world.source.put("a", str(number))

    refused = world.move()
    moved = world.move(degrade={"history"})

    assert "the target keeps 10" in refused.resources[0].named[0].reason
    assert moved.complete
    assert staged(world.target) == {"current": "13", "previous": "12"}
    assert world.move("verify", degrade={"history"}).complete
    assert world.move(degrade={"history"}).changed == 0


@pytest.mark.parametrize("back", [0, 5, 12])
def test_a_rollback_far_back_and_what_follows_it_arrive(world: World, back: int) -> None:
    versions = [world.source.put("a", str(number)).version for number in range(14)]
    world.source.promote("a", versions[back])

    assert world.move(degrade={"history"}).complete
    assert staged(world.target) == {"current": str(back), "previous": "13"}
    for number in range(3):
        world.source.put("a", f"new {number}")
        assert world.move(degrade={"history"}).complete
        assert staged(world.target) == staged(world.source)
        assert world.move(degrade={"history"}).changed == 0
    assert world.move("verify", degrade={"history"}).complete

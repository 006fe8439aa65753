"""A mirror between providers, while secrets move between the same two."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from shiftable.app import load
from shiftable.errors import Conflict
from shiftable.secrets import Mirror
from shiftable.testing.harness import Call

from .command import Move
from .hidden import CANARY, Hidden, leaks
from .sides import is_ours
from .vaults import DECLARED, Vault, VaultOnDouble

PAIRS = [("aws", "baremetal"), ("baremetal", "gcp"), ("gcp", "azure"), ("azure", "aws")]


@pytest.fixture
def mirrored(
    vault: Callable[[str], Vault], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Move[Vault]]:
    """Return the move between two providers, whose application writes to both."""

    def made(source_name: str, target_name: str) -> Move[Vault]:
        source, target = vault(source_name), vault(target_name)
        second = ("[environments.production.mirrors]", f'"secrets.app" = "{target_name}"')
        move = Move(source, target, folder, inside=True, declared=(*second, *DECLARED))
        for name, value in move.environ.items():
            monkeypatch.setenv(name, value)
        return move

    return made


@pytest.mark.parametrize(("source_name", "target_name"), PAIRS, ids=[f"{a}-{b}" for a, b in PAIRS])
def test_what_a_mirror_writes_and_what_a_move_writes_are_the_same_versions(
    mirrored: Callable[..., Move[Vault]], source_name: str, target_name: str
) -> None:
    move = mirrored(source_name, target_name)
    source, target = move.source, move.target
    source.fill({"before": Hidden.of(f"{CANARY}-1", f"{CANARY}-2"), "left": Hidden.of(f"{CANARY}-x")})
    first = move.run("--history", "all", "--apply")
    assert first.code == 0, first.named()

    with load() as app:
        both = app.secrets("app")
        assert isinstance(both, Mirror)
        both.put("before", f"{CANARY}-3", labels={"team": "core"})
        both.put("new", f"{CANARY}-a")
        pending = both.put("new", f"{CANARY}-b", stage="pending")
        both.promote("new", pending.version)
        assert list(both.drift()) == []

    again = move.run("--history", "all", "--apply")

    assert (again.code, again.results[0]["changed"]) == (0, 0), again.named()
    assert target.read() == {
        "before": Hidden.of(f"{CANARY}-1", f"{CANARY}-2", f"{CANARY}-3", labels={"team": "core"}),
        "left": Hidden.of(f"{CANARY}-x"),
        "new": Hidden.of(f"{CANARY}-a", f"{CANARY}-b"),
    }
    assert source.read() == target.read()


@pytest.mark.parametrize(("source_name", "target_name"), [("baremetal", "aws"), ("gcp", "azure")])
def test_a_secondary_that_is_down_is_told_and_repaired(
    mirrored: Callable[..., Move[Vault]], source_name: str, target_name: str, folder: Path
) -> None:
    move = mirrored(source_name, target_name)
    source, target = move.source, move.target
    source.fill({"a": Hidden.of(f"{CANARY}-1")})
    assert move.run("--apply").code == 0
    assert isinstance(target, VaultOnDouble)

    def asked(call: Call) -> bool:
        return is_ours(call) and call.path != "/token"

    with load() as app:
        both = app.secrets("app")
        assert isinstance(both, Mirror)
        down = target.double.inject("status", match=asked, times=None, status=403, body=b"{}")
        with pytest.raises(Conflict, match="but not at its mirror") as caught:
            both.put("a", f"{CANARY}-2")
        down.times = 0

        assert caught.value.code == "MirrorBehind"
        assert [drift.what for drift in both.drift()] == [("current",)]
        both.repair("a")
        assert list(both.drift()) == []

    assert target.read() == source.read() == {"a": Hidden.of(f"{CANARY}-1", f"{CANARY}-2")}
    assert leaks(iter([f"{CANARY}-2"]), f"{caught.value!r}{caught.value.__cause__!r}", folder) == []


@pytest.mark.parametrize("target_name", ["azure", "gcp"])
def test_names_that_are_alike_are_none_the_same_on_a_target_that_knows_fewer(
    vault: Callable[[str], Vault], folder: Path, target_name: str
) -> None:
    source, target = vault("aws"), vault(target_name)
    names = (
        "Key",
        "key",
        "KEY",
        "a/b",
        "a--b",
        "a__b",
        "a-b",
        "a---b",
        "a.b",
        "a+b",
        "A/b",
        "x/pending",
        "x---pending",
    )
    source.fill({name: Hidden.of(f"{CANARY}-{name}") for name in names})
    move = Move(source, target, folder, inside=True, declared=DECLARED)

    moved = move.run("--apply")

    assert moved.code == 0, moved.named()
    assert target.read() == source.read()

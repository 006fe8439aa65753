"""Processes that are killed with SIGKILL at every point of a rotation, on files; another process goes on."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("shiftable_baremetal", reason="files need shiftable-baremetal")

FOLDER = Path(__file__).parent

SCRIPT = """
import json, os, signal, sys
from pathlib import Path

sys.path.insert(0, sys.argv[1])
from world import GRACE, Alternating, Clock, FileTarget, World, accepts

from shiftable import sops
from shiftable.secrets import SecretsSpec
from shiftable_baremetal.secrets import SopsDriver

private, public = sops.generate_identity()
os.environ["SHIFTABLE_AGE_KEY"] = private.reveal()


def opened(folder, clock):
    return World(SopsDriver(folder / "store", (public,), clock=clock), clock, FileTarget(folder / "users.json"))


def in_a_process(act):
    child = os.fork()
    if child == 0:
        act()
        os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0


def case(folder, retire, point):
    clock = Clock()
    world = opened(folder, clock)
    world.driver.create(SecretsSpec(name="shop"))
    world.begin()
    if retire:
        world.rotation().run(now=True)
        clock.advance(2 * GRACE)

    def killed():
        mine = opened(folder, clock)
        mine.again({point: lambda: os.kill(os.getpid(), signal.SIGKILL)})
        mine.rotation().run(now=not retire)

    status = in_a_process(killed)
    between = world.plain.get("key").reveal()
    found = {"signal": status, "between": accepts(world.target, between)}
    after = opened(folder, clock)
    found["steps"] = after.rotation().run(now=not retire).steps
    found["again"] = after.rotation().run(now=not retire).steps
    versions = list(after.plain.history("key"))
    found["versions"] = [[sorted(version.stages), version.enabled] for version in versions]
    found["current"] = accepts(world.target, after.plain.get("key").reveal())
    found["first"] = accepts(world.target, "a:first")
    found["left"] = sorted(path.name for path in folder.rglob("*") if path.name.endswith(".new"))
    return found


retire = sys.argv[3] == "retire"
for point in range(1000):
    folder = Path(sys.argv[2]) / str(point)
    folder.mkdir()
    found = case(folder, retire, point)
    print(json.dumps(found), flush=True)
    if not found["signal"]:
        break
"""


def outcomes(folder: Path, what: str) -> list[dict[str, Any]]:
    command = [sys.executable, "-W", "error", "-c", SCRIPT, str(FOLDER), str(folder), what]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    assert 0 == done.returncode, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_a_process_that_is_killed_at_any_point_of_a_rotation_leaves_what_another_goes_on_with(tmp_path: Path) -> None:
    *killed, whole = outcomes(tmp_path, "rotate")
    assert 20 < len(killed)
    assert {signal.SIGKILL} == {found["signal"] for found in killed}
    assert 0 == whole["signal"]
    for found in [*killed, whole]:
        assert found["between"], "what is current is never refused"
        assert found["current"]
        assert found["first"], "the grace is not over"
        assert [[["current"], True], [["previous"], True]] == found["versions"]
        assert [] == found["again"]
    assert {(), ("set", "test", "finish"), ("create", "set", "test", "finish")} == {tuple(f["steps"]) for f in killed}


def test_nor_does_one_that_is_killed_while_it_retires(tmp_path: Path) -> None:
    *killed, whole = outcomes(tmp_path, "retire")
    assert 10 < len(killed)
    for found in [*killed, whole]:
        assert found["between"]
        assert found["current"]
        assert not found["first"]
        assert [[["current"], True], [["previous"], False]] == found["versions"]
        assert [] == found["again"]
    assert {(), ("retire",)} == {tuple(found["steps"]) for found in killed}

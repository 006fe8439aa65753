"""``shiftable secrets rotate``, as people and timers call it."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from shiftable import sops
from shiftable.app import load
from shiftable.manifest import parse
from shiftable.secrets import SecretStore
from shiftable.secrets.rotator import kinds as kinds_there_are

pytest.importorskip("shiftable_baremetal", reason="files need shiftable-baremetal")

Command = Callable[..., subprocess.CompletedProcess[str]]

FILE = """
[project]
name = "shop"
[environments.production]
provider = "here"
[providers.here]
type = "baremetal"
root = "data"
[secrets.app.rotate]
"session" = { kind = "random", every = "30d" }
"deploy/key" = { kind = "ssh-key", public = "deploy/key.pub", grace = "0s" }
[secrets.other.rotate]
"token" = { kind = "random", every = "1s", grace = "0s" }
"""

LOGINS = """
[secrets.logins.rotate]
"mysql/one" = { kind = "mysql-user", admin = { secret = "app/admin" } }
"mysql/two" = { kind = "mysql-alternating", admin = { secret = "app/admin" }, users = ["a", "b"], role = "r" }
"postgresql/one" = { kind = "postgresql-user" }
"postgresql/two" = { kind = "postgresql-alternating", admin = { secret = "app/admin" }, users = ["a", "b"], role = "r" }
"""


@pytest.fixture
def rotate(shiftable: Command, folder: Path) -> Command:
    (folder / "shiftable.toml").write_text(FILE)
    assert 0 == shiftable("apply").returncode

    def start(*arguments: str) -> subprocess.CompletedProcess[str]:
        return shiftable("secrets", "rotate", *arguments)

    return start


@pytest.fixture
def store(rotate: Command, folder: Path) -> SecretStore:
    return load(folder).secrets("app")


def lines(done: subprocess.CompletedProcess[str], code: int = 0) -> list[str]:
    assert (code, "") == (done.returncode, done.stderr) if not code else code == done.returncode, done.stderr
    return done.stdout.splitlines()


def test_a_secret_is_made_then_replaced_and_each_step_is_told(rotate: Command, store: SecretStore) -> None:
    made = lines(rotate("app", "session"))
    first = store.get("session")
    assert [
        "app/session: due: there is no such secret yet",
        "app/session: create: done",
        "app/session: finish: done",
        f"app/session: version {first.version} is current",
    ] == made
    replaced = lines(rotate("app", "session"))
    second = store.get("session")
    assert [f"app/session: {step}: done" for step in ("create", "set", "test", "finish")] == replaced[:4]
    assert replaced[4].startswith(f"app/session: version {second.version} is current; version {first.version} works un")
    assert first.reveal() not in "".join(made + replaced)
    assert second.reveal() not in "".join(replaced)


def test_the_same_command_right_after_leaves_it_as_it_is(rotate: Command, store: SecretStore) -> None:
    for _ in range(2):
        rotate("app", "session")
    version = store.get("session").version
    (told,) = lines(rotate("app", "session"))
    assert told.startswith("app/session: left as it is: the version before may be in use until ")
    assert told.endswith("; --force does it now")
    assert version == store.get("session").version
    assert "app/session: retire: done" in lines(rotate("app", "session", "--force"))
    assert version == store.get("session", stage="previous").version


def test_what_is_due_is_done_and_again_nothing_is(rotate: Command, folder: Path) -> None:
    for key in ("session", "deploy/key"):
        rotate("app", key)
    rotate("other", "token")
    before = load(folder).secrets("other").get("token").version
    time.sleep(1.1)
    told = lines(rotate("--due"))
    assert told[0].startswith("other/token: due: it was made at ")
    assert "other/token: retire: done" in told
    assert not [line for line in told if line.startswith("app")]
    assert before != load(folder).secrets("other").get("token").version
    assert ["production: nothing to do (2 rotations)"] == lines(rotate("app", "--due"))


def test_a_declared_secret_that_is_not_there_is_something_left_to_do(rotate: Command) -> None:
    told = lines(rotate("app", "--due"), 1)
    assert "app/session: left as it is: there is no such secret yet; name it to make it" == told[0]


def test_a_login_that_nobody_has_stored_is_not_made(rotate: Command, folder: Path) -> None:
    (folder / "shiftable.toml").write_text(FILE + LOGINS)
    keys = {"mysql/one", "mysql/two", "postgresql/one", "postgresql/two"}
    for way in (("--due",), ("--due", "--dry-run"), *((key,) for key in keys), *((key, "--dry-run") for key in keys)):
        told = lines(rotate("logins", *way), 1)
        would = "would be " if "--dry-run" in way else ""
        for line in told:
            head, _, why = line.partition(f": {would}left as it is: there is no such secret yet; ")
            assert head.removeprefix("logins/") in keys
            assert why.endswith("in use: store that one first, with `shiftable secrets put`")
        assert len(told) == (1 if way[0] in keys else len(keys))


def test_an_exposed_secret_is_due(rotate: Command, store: SecretStore) -> None:
    rotate("app", "session")
    store.update("session", labels={"shiftable-exposed": datetime.now(UTC).isoformat()})
    rotate("app", "deploy/key")
    told = lines(rotate("app", "--due"))
    assert told[0].startswith("app/session: due: it was exposed at ")
    assert ["production: nothing to do (2 rotations)"] == lines(rotate("app", "--due"))


def test_what_a_reader_who_left_has_read_is_replaced(
    shiftable: Command, rotate: Command, store: SecretStore, folder: Path
) -> None:
    rotate("app", "session")
    before = store.get("session")
    mine = [line for line in (folder / "data/secrets/.recipients").read_text().splitlines() if line.startswith("age1")]
    (folder / "data/secrets/.recipients").unlink()
    (folder / ".git").mkdir()
    _, alice = sops.generate_identity()
    for name, key in (("me", mine[0]), ("alice", alice)):
        done = shiftable("secrets", "recipients", "add", name, key, "--path", "data/secrets/**")
        assert 0 == done.returncode, done.stderr
    assert 0 == shiftable("secrets", "recipients", "remove", "alice").returncode
    told = rotate("app", "--due").stdout
    assert "app/session: due: it was exposed at " in told
    assert "app/session: finish: done" in told
    assert before.version != store.get("session").version
    assert "session: due" not in rotate("app", "--due").stdout


def test_a_dry_run_says_what_would_be_done_and_does_nothing(rotate: Command, store: SecretStore) -> None:
    assert [
        "app/session: due: there is no such secret yet",
        "app/session: would create, finish",
    ] == lines(rotate("app", "session", "--dry-run"))
    assert not store.exists("session")
    assert "app/session: would be left as it is: there is no such secret yet; name it to make it" in lines(
        rotate("app", "--due", "--dry-run"), 1
    )
    rotate("app", "session")
    rotate("app", "deploy/key")
    version = store.get("session").version
    told = lines(rotate("app", "--due", "--dry-run"))
    assert told[0].startswith("app/session: not due until ")
    assert "app/deploy/key: due only when it is named" == told[1]
    assert ["app/session: would create, set, test, finish"] == lines(rotate("app", "session", "--dry-run"))
    store.put("session", "x" * 40, stage="pending")
    pending = store.get("session", stage="pending").version
    assert [f"app/session: version {pending} is pending", "app/session: would set, test, finish"] == lines(
        rotate("app", "--due", "--dry-run")
    )[:2]
    assert version == store.get("session").version


def test_json_tells_where_each_stands_and_what_was_done(rotate: Command, store: SecretStore) -> None:
    rotate("app", "session")
    first = store.get("session").version
    done = rotate("app", "session", "--json")
    (found,) = json.loads(done.stdout)
    assert ("app/session", "random", ["create", "set", "test", "finish"]) == (
        found["secret"],
        found["kind"],
        found["steps"],
    )
    assert (store.get("session").version, None, first) == (found["current"], found["pending"], found["retire"])
    made = datetime.fromisoformat(found["created"])
    assert made + timedelta(days=30) == datetime.fromisoformat(found["next_due"])
    assert made + timedelta(days=2) == datetime.fromisoformat(found["retire_at"])


def test_a_secret_that_fails_keeps_no_other_from_its_turn(rotate: Command, store: SecretStore) -> None:
    rotate("app", "session")
    store.put("deploy/key", "no key at all")
    store.update("deploy/key", labels={"shiftable-exposed": datetime.now(UTC).isoformat()})
    store.update("session", labels={"shiftable-exposed": datetime.now(UTC).isoformat()})
    done = rotate("app", "--due", "--json")
    assert 1 == done.returncode
    session, key = json.loads(done.stdout)
    assert ["create", "set", "test", "finish"] == session["steps"]
    assert [] == key["steps"]
    assert "the value is none that ssh-key replaces" in key["error"]
    assert "error: app/deploy/key: rotation.create" in done.stderr
    assert "no key at all" not in done.stdout + done.stderr


def test_no_log_shows_a_value_however_much_is_logged(shiftable: Command, rotate: Command, store: SecretStore) -> None:
    seen, told = [], ""
    for _ in range(2):
        for key in ("session", "deploy/key"):
            done = shiftable("-vv", "secrets", "rotate", "app", key)
            assert 0 == done.returncode
            told += done.stdout + done.stderr
            value = store.get(key).reveal()
            seen += [value] if key == "session" else value.splitlines()[1:-1]
    assert len(seen) > 4
    assert [] == [value for value in seen if value in told]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "name one secret, LABEL KEY, or say --due"),
        (("app",), "name one secret, LABEL KEY, or say --due"),
        (("app", "session", "--due"), "name one secret, LABEL KEY, or say --due"),
        (("--due", "--force"), "--force is for one secret that is named"),
        (("app", "sesion"), "says nothing of 'sesion'; did you mean session?"),
        (("ap", "session"), "declares no [secrets.ap]; did you mean app?"),
    ],
    ids=["nothing", "no key", "both", "force for all", "unknown key", "unknown label"],
)
def test_wrong_usage_is_2(rotate: Command, arguments: tuple[str, ...], told: str) -> None:
    done = rotate(*arguments)
    assert 2 == done.returncode
    assert told in done.stderr


SLOW = """
import os, sys, time
from typing import ClassVar
import attrs
from shiftable.masking import Masked
from shiftable.secrets.rotator import Rotator


@attrs.frozen(kw_only=True)
class Slow(Rotator):
    kind: ClassVar[str] = "slow"

    def create(self, current):
        return Masked("made")

    def set(self, new, old, confirm):
        open("setting", "w").close()
        while not os.path.exists("go"):
            time.sleep(0.01)
"""


def test_ctrl_c_ends_it_between_steps_and_the_next_run_goes_on(rotate: Command, folder: Path) -> None:
    """The kind comes from a distribution of its own, as anybody's may."""
    (folder / "slow_rotator.py").write_text(SLOW)
    info = folder / "slow_rotator-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: slow-rotator\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[shiftable.rotators]\nslow = slow_rotator:Slow\n")
    store = load(folder).secrets("other")
    store.put("slow", "first")
    (folder / "shiftable.toml").write_text(FILE + '"slow" = { kind = "slow" }\n')
    command = [str(Path(sys.executable).parent / "shiftable"), "secrets", "rotate", "other"]
    environ = {**os.environ, "PYTHONPATH": str(folder)}
    process = subprocess.Popen(
        [*command, "slow"], env=environ, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 120
    while not (folder / "setting").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert 130 == process.returncode, err
    assert "other/slow: create: done\n" == out
    assert "Traceback" not in err
    assert ("first", "made") == (store.get("slow").reveal(), store.get("slow", stage="pending").reveal())
    (folder / "go").touch()
    done = subprocess.run([*command, "--due"], env=environ, capture_output=True, text=True, check=False, timeout=120)
    assert "other/slow: goes on with version" in done.stdout
    assert [f"other/slow: {step}: done" for step in ("set", "test", "finish")] == [
        line for line in done.stdout.splitlines() if line.startswith("other/slow") and line.endswith("done")
    ]
    assert "made" == store.get("slow").reveal()


# what the page on rotation shows

PAGE = Path(__file__).parents[2] / "docs/how-to/rotate.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


def test_the_units_for_systemd_are_right(tmp_path: Path) -> None:
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("there is no systemd-analyze here to read units with")
    units = {re.search(r"# /etc/systemd/system/(\S+)", text)[1]: text for text in blocks("ini")}  # type: ignore[index]
    assert {"shiftable-rotate.service", "shiftable-rotate.timer"} == set(units)
    for name, text in units.items():
        # The program and the user of the page need not be on this machine.
        here = text.replace("/opt/shop/venv/bin/shiftable", sys.executable).replace("User=shop", "User=root")
        (tmp_path / name).write_text(here.replace("/opt/shop", str(tmp_path)))
    for name in units:
        done = subprocess.run([program, "verify", tmp_path / name], capture_output=True, text=True, check=False)
        told = [line for line in done.stderr.splitlines() if str(tmp_path) in line or "shiftable" in line]
        assert [] == told
        assert 0 == done.returncode, done.stderr


def test_the_declarations_of_the_page_are_right(tmp_path: Path) -> None:
    texts = blocks("toml")
    assert len(texts) >= 3
    head = '[project]\nname = "shop"\n[environments.production]\nprovider = "memory"\n'
    for text in texts:
        found = parse(head + text, tmp_path / "shiftable.toml")
        for declared in found.resources.values():
            kinds = [rotator.kind for rotator in declared.spec.rotate.values()]  # type: ignore[attr-defined]
            assert set(kinds) <= {"absent", *kinds_there_are()}

"""``shiftable compute``: fleets from making one to a prompt on a machine, by the command line."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import attrs
import click
import pytest
from click.testing import CliRunner, Result

from shiftable.app import load
from shiftable.cli._compute import compute
from shiftable.cli._main import cli
from shiftable.compute import FleetSpec, PriceSource
from shiftable.compute.driver import ComputeDriver
from shiftable.errors import Fault, PermissionDenied, Unsupported
from shiftable.features import Features
from shiftable.memory import MemoryProvider
from shiftable.memory._faults import MemoryFault
from shiftable.memory.compute import FEATURES, MemoryComputeDriver
from shiftable.paging import Page

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5 ops@example"

FILE = f"""
[project]
name = "shop"
[environments.production]
provider = "memory"
[compute.web]
name = "shop-web"
image = "debian-12"
cpus = 2
memory_gib = 4
count = 2
open_ports = [443]
ssh_keys = ["{KEY}"]
labels = {{ team = "shop" }}
"""

Run = Callable[..., Result]


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> MemoryComputeDriver:
    """Let what one command has made be there for the next one, which the memory of a process is not."""
    made = MemoryComputeDriver(attrs.evolve(FEATURES, ssh=True))
    monkeypatch.setattr(MemoryProvider, "compute", lambda _: made)
    return made


@pytest.fixture
def run(folder: Path, driver: MemoryComputeDriver) -> Run:
    (folder / "shiftable.toml").write_text(FILE)

    def start(*arguments: str, **more: Any) -> Result:
        result = CliRunner().invoke(cli, ["compute", *arguments], **more)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result

    return start


@pytest.fixture
def web(run: Run) -> Run:
    made = run("create", "web")
    assert 0 == made.exit_code, made.output
    return run


def states(driver: MemoryComputeDriver) -> dict[str, str]:
    return {machine.name: machine.state for machine in driver.machines(None, cursor=None, limit=None).items}


# making and looking


def test_a_declared_fleet_is_made_waited_for_and_says_its_size_and_cost(run: Run, driver: MemoryComputeDriver) -> None:
    made = run("create", "web")
    assert (0, "shop-web: created\n") == (made.exit_code, made.stdout)
    assert (
        "2 of m2-4 (2 CPUs, 4 GiB), 146.00 USD a month: "
        "the cheapest of 23 sizes with at least 2 CPUs, 4 GiB of x86_64\n"
    ) == made.stderr
    assert {"shop-web-0": "running", "shop-web-1": "running"} == states(driver)
    again = run("create", "web")
    assert 1 == again.exit_code
    assert "compute.create on fleet 'shop-web' (memory): it has machines; `shiftable apply`, or" in again.stderr


def test_a_fleet_that_is_not_declared_is_made_by_options(run: Run, folder: Path, driver: MemoryComputeDriver) -> None:
    (folder / "keys").write_text(f"# of the team\n{KEY}\n\n")
    size = ("--image", "debian-12", "--cpus", "1", "--memory", "1")
    more = ("--open-port", "22", "--allow-from", "192.0.2.0/24", "--label", "a=b=c", "--public-ip", "--ssh-key", "keys")
    assert 0 == run("create", "memory:other", *size, *more).exit_code
    (info,) = driver.machines("other", cursor=None, limit=None).items
    assert ["22/tcp from 192.0.2.0/24"] == [str(rule) for rule in info.firewall]
    assert ("b=c", True) == (info.labels["a"], bool(info.public_addresses))
    for arguments, why in (
        (("memory:third", *size[:4]), "memory:third is not declared; say --memory-gib"),
        (("web", "--cpus", "4"), "[compute.web] says what it is"),
        (("memory:x", *size, "--open-port", "0"), "open_ports must be 1 to 65535"),
        (("memory:x", *size, "--label", "a"), "'a' is no label; write NAME=VALUE"),
        (("memory:x", *size, "--user", "-oProxyCommand=id"), "user must be"),
        (("memory:", *size), "'memory:' is no fleet and no machine"),
        (("wep",), "did you mean web?"),
    ):
        refused = run("create", *arguments)
        assert 2 == refused.exit_code
        assert why in refused.stderr


MANY = ("create", "memory:many", "--image", "debian-12", "--cpus", "1", "--memory", "1", "--count")


def test_so_many_machines_are_made_only_if_somebody_agrees(
    run: Run, driver: MemoryComputeDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver._page_size = 1000
    refused = run(*MANY, "1001")
    assert (2, {}) == (refused.exit_code, states(driver))
    assert "1001 of m1-1 (1 CPU, 1 GiB), 29,229.20 USD a month: " in refused.stderr
    assert "error: to make 1,001 machines on memory without a terminal, say --yes\n" in refused.stderr
    assert 0 == run(*MANY, "100").exit_code
    assert 0 == run("delete", "memory:many", "--yes=many").exit_code
    assert 0 == run(*MANY, "101", "--yes").exit_code
    assert 101 == len(states(driver))
    assert 0 == run("delete", "memory:many", "--yes=many").exit_code
    monkeypatch.setattr("click.testing._NamedTextIOWrapper.isatty", lambda _: True, raising=False)
    for answer, code, count in (("n", 1, 0), ("y", 0, 101)):
        asked = run(*MANY, "101", input=answer)
        assert "make 101 machines on memory? [y/N]: " in asked.stderr
        assert (code, count) == (asked.exit_code, len(states(driver)))


def test_a_fleet_of_no_machines_is_not_made(run: Run, folder: Path) -> None:
    change(folder, count="0")
    refused = run("create", "web")
    assert (2, "error: web has count = 0: there is no machine to make\n") == (refused.exit_code, refused.stderr)


MEND = "`shiftable compute replace web` makes what failed anew, and what is missing"
ANEW = "`shiftable compute delete memory:many` deletes all, to begin anew"


def test_what_was_made_of_a_fleet_is_told_if_the_rest_was_not(run: Run, driver: MemoryComputeDriver) -> None:
    driver._quota = 3
    for arguments, told in (
        (
            ("create", "web"),
            "shop-web: shop-web-0 is there, shop-web-1 is not there; `shiftable apply` makes what is missing\n",
        ),
        ((*MANY, "7"), f"many: many-0 is there, many-1, many-2, many-3 and 3 more are not there; {ANEW}\n"),
        ((*MANY[:1], "memory:none", *MANY[2:], "2"), ""),
    ):
        refused = run(*arguments)
        assert (1, True) == (refused.exit_code, f"{told}error: compute.create on machine" in refused.stderr)
        assert bool(told) is (" there" in refused.stderr)
    again = run(*MANY, "7")
    assert again.stderr.endswith("it has machines; `shiftable compute delete memory:many` deletes them\n")
    driver._quota = 6
    assert 0 == shiftable("apply").exit_code
    assert {"shop-web-0", "shop-web-1", "many-0"} == states(driver).keys()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (
            ("create", "web"),
            f"shop-web: shop-web-0 is there, shop-web-1 failed; {MEND}\n",
        ),
        ((*MANY, "4"), f"many: many-0, many-3 are there, many-1, many-2 failed; {ANEW}\n"),
    ],
    ids=["declared", "undeclared"],
)
def test_machines_that_fail_while_they_are_made_are_told_with_the_others(
    run: Run, driver: MemoryComputeDriver, arguments: tuple[str, ...], told: str
) -> None:
    driver._failing = {"shop-web-1", "many-1", "many-2"}
    failed = run(*arguments)
    assert (1, True) == (failed.exit_code, f"{told}error: compute.wait on machine" in failed.stderr)


def test_machines_that_take_too_long_are_told(run: Run, driver: MemoryComputeDriver) -> None:
    driver._delay = timedelta(minutes=9)
    late = run(*MANY, "2", "--timeout=1s")
    assert (1, True) == (late.exit_code, "error: waited 0:00:00" in late.stderr)
    assert "many: many-0, many-1 are there; `shiftable compute show memory:many` tells how they are\n" in late.stderr


def test_a_provider_that_fails_hides_none_of_the_others(web: Run) -> None:
    found = web("list", "nowhere", "memory")
    assert 1 == found.exit_code
    assert ["memory:shop-web-0", "memory:shop-web-1"] == [line.split("\t")[0] for line in found.stdout.splitlines()]
    assert found.stderr.startswith("error: nowhere: ")
    alone = web("list", "nowhere")
    assert (2, "") == (alone.exit_code, alone.stdout)  # its own error, as of any wrong name
    assert "error: nowhere" not in alone.stderr


@pytest.mark.parametrize(
    "command",
    [
        ("compute", "images"),
        ("compute", "disk", "list"),
        ("compute", "disk", "snapshots"),
        ("compute", "sweep", "-n"),
        ("db", "list"),
        ("dns", "zones"),
    ],
    ids=" ".join,
)
def test_lists_tell_each_provider_that_fails(web: Run, command: tuple[str, ...]) -> None:
    found = CliRunner().invoke(cli, [*command, "nowhere", "memory", "neither"])
    assert 1 == found.exit_code
    assert ["error: nowhere", "error: neither"] == [line[: len("error: nowhere")] for line in found.stderr.splitlines()]


def test_a_private_key_is_refused_and_shown_nowhere(run: Run, folder: Path) -> None:
    canary = "b3BlbnNzaC1rZXktdjEA"
    (folder / "id").write_text("-----BEGIN OPENSSH " + f"PRIVATE KEY-----\n{canary}\n")
    refused = run("create", "memory:x", "--image=debian-12", "--cpus=1", "--memory=1", "--ssh-key", "id")
    assert 2 == refused.exit_code
    assert "ssh_keys: number 1 is no public key" in refused.stderr
    assert canary not in refused.output


def test_machines_are_listed(web: Run, driver: MemoryComputeDriver) -> None:
    (entry, _) = driver._entries.values()
    entry.info = attrs.evolve(entry.info, ports={443: 40001, 22: 40000})
    lines = [line.split("\t") for line in web("list").stdout.splitlines()]
    assert [
        ["memory:shop-web-0", "running", "m2-4", "a", "10.0.0.1", "22=40000, 443=40001"],
        ["memory:shop-web-1", "running", "m2-4", "a", "10.0.0.2"],
    ] == lines
    entry.info = attrs.evolve(entry.info, fleet=None)
    assert 1 == len(web("list", "memory").stdout.splitlines())
    facts = [json.loads(line) for line in web("list", "--all", "--json").stdout.splitlines()]
    assert [("shop-web-0", None, 4.0), ("shop-web-1", "shop-web", 4.0)] == [
        (fact["name"], fact["fleet"], fact["memory_gib"]) for fact in facts
    ]
    assert 1 == len(web("list", "--all", "--limit", "1").stdout.splitlines())


def test_a_name_that_others_chose_is_one_cell_of_one_line(web: Run, driver: MemoryComputeDriver) -> None:
    (entry, _) = driver._entries.values()
    entry.info = attrs.evolve(entry.info, name="x\tstopped\nmemory:y\x1b[2J", fleet=None)
    lines = web("list", "--all").stdout.splitlines()
    assert 2 == len(lines)
    assert ["memory:x\\tstopped\\nmemory:y\\x1b[2J", "running", "m2-4", "a", "10.0.0.1"] == lines[0].split("\t")
    driver.snapshot("machine-1", "a\tb\n")
    assert "\ta\\tb\\n\t" in web("images", "--own").stdout


def test_a_fleet_and_a_machine_are_shown(web: Run) -> None:
    said = web("show", "web").stdout.splitlines()
    facts = dict(line.split(": ", 1) for line in said if ": " in line)
    assert ("2", "443/tcp from 0.0.0.0/0, ::/0", "team=shop") == (facts["count"], facts["firewall"], facts["labels"])
    assert ["shop-web-0\trunning\tm2-4\ta\t10.0.0.1", "shop-web-1\trunning\tm2-4\ta\t10.0.0.2"] == said[-2:]
    whole = json.loads(web("show", "memory:shop-web", "--json").stdout)
    assert (2, ["shop-web-0", "shop-web-1"]) == (whole["count"], [each["name"] for each in whole["machines"]])
    for name in ("web-1", "shop-web-1", "memory:shop-web-1", "memory:machine-2"):
        assert "name: shop-web-1\n" in web("show", name).stdout
        assert {"team": "shop"} == json.loads(web("show", name, "--json").stdout)["labels"]


def test_what_is_not_there_is_not_found(web: Run) -> None:
    for name, code, why in (
        ("web-7", 1, "machine 'shop-web-7' in fleet 'shop-web' (memory): the fleet has no such machine"),
        ("memory:none", 1, "fleet or machine 'none' (memory): there is none"),
        ("memory:No_Name", 1, "fleet or machine 'No_Name' (memory): there is none"),
        ("wab", 2, "did you mean web?"),
        ("memory:", 2, "is no fleet and no machine"),
    ):
        answer = web("show", name)
        assert (code, True) == (answer.exit_code, why in answer.stderr), answer.stderr
    web("delete", "web", "--yes", "shop-web")
    assert "it has no machines; `shiftable apply` makes them" in web("show", "web").stderr


# changing


def test_machines_are_stopped_started_restarted_and_resized(web: Run, driver: MemoryComputeDriver) -> None:
    assert "shop-web: stopped\n" == web("stop", "web").stdout
    assert {"stopped"} == set(states(driver).values())
    assert "shop-web-1: started\n" == web("start", "web-1").stdout
    assert {"shop-web-0": "stopped", "shop-web-1": "running"} == states(driver)
    assert "shop-web-1: resized\n" == web("resize", "web-1", "--cpus", "4").stdout
    assert ["m2-4", "m4-4"] == [machine.size for machine in driver.machines(None, cursor=None, limit=None).items]
    assert "running" == json.loads(web("reboot", "web-1", "--json").stdout)[0]["state"]
    refused = web("reboot", "web")
    assert (1, True) == (refused.exit_code, "it is stopped; it must be running" in refused.stderr)
    assert "shop-web: being started\n" == web("start", "web", "--no-wait").stdout
    assert "shop-web: restarted\n" == web("reboot", "web").stdout
    assert 2 == web("resize", "web").exit_code


def test_labels_of_machines_are_changed_and_shown(web: Run, driver: MemoryComputeDriver) -> None:
    changed = web("label", "web", "team=data", "note=a=b- c", "stage=")
    assert (0, "shop-web: labelled\n") == (changed.exit_code, changed.stdout), changed.output
    one = json.loads(web("label", "web-1", "note-", "missing-", "stage=live", "--json").stdout)
    assert [{"team": "data", "stage": "live"}] == [each["labels"] for each in one]
    both = [json.loads(line) for line in web("list", "--json").stdout.splitlines()]
    first = {"team": "data", "note": "a=b- c", "stage": ""}
    assert [first, {"team": "data", "stage": "live"}] == [each["labels"] for each in both]
    assert first == json.loads(web("show", "web-0", "--json").stdout)["labels"]
    assert "labels: team=data, note=a=b- c, stage=\n" in web("show", "web-0").stdout
    assert {"running"} == {entry.info.state for entry in driver._entries.values()}


def test_machines_are_listed_by_their_labels(web: Run) -> None:
    web("label", "web-1", "stage=live", "note=")
    found = {
        labels: [line.partition("\t")[0].rpartition("-")[2] for line in web("list", *labels).stdout.splitlines()]
        for labels in (
            ("--label", "team"),
            ("--label", "stage=live"),
            ("--label=stage=test",),
            ("--label=note=",),
            ("--label", "team=shop", "--label", "note"),
            ("--label=shiftable-fleet",),
            ("--label=team", "--limit=1"),
        )
    }
    assert [["0", "1"], ["1"], [], ["1"], ["1"], [], ["0"]] == list(found.values())


@pytest.mark.parametrize(
    ("changes", "code", "why"),
    [
        ([], 2, "Missing argument"),
        (["team"], 2, "'team' is no change of a label; write NAME=VALUE, or NAME- to take one away"),
        (["-"], 2, "no change of a label"),
        (["=x"], 2, "'' is no label"),
        (["team=a", "team=b"], 2, "given twice"),
        (["team=a", "team-"], 1, "cannot be given and taken away at once"),
        (["shiftable-fleet-"], 1, "the label 'shiftable-fleet' is shiftable's own"),
        (["shiftable-fleet=other"], 1, "no room for a label 'shiftable-fleet'"),
    ],
    ids=["none", "bare", "dash", "unnamed", "twice", "both", "own", "other"],
)
def test_what_is_no_change_of_labels_is_refused(
    web: Run, driver: MemoryComputeDriver, changes: list[str], code: int, why: str
) -> None:
    answer = web("label", "web", *changes)
    assert (code, True) == (answer.exit_code, why in " ".join(answer.stderr.split())), answer.output
    assert [{"team": "shop"}] * 2 == [entry.info.user_labels for entry in driver._entries.values()]


def test_declared_labels_are_planned_and_applied_in_place(web: Run, folder: Path, driver: MemoryComputeDriver) -> None:
    before = [entry.info.id for entry in driver._entries.values()]
    web("label", "web-0", "mine=x")
    assert 0 == shiftable("plan", "--exit-code").exit_code
    change(folder, labels='{ team = "data", stage = "live" }')
    planned = shiftable("plan").stdout
    assert '    labels: { team = "shop" } → { team = "data", stage = "live" }\n' in planned
    assert 1 == shiftable("apply").stdout.count("update compute.web (shop-web): done\n")
    after = [(entry.info.id, entry.info.user_labels) for entry in driver._entries.values()]
    declared = {"team": "data", "stage": "live"}
    assert [(before[0], {**declared, "mine": "x"}), (before[1], declared)] == after
    assert 0 == shiftable("plan", "--exit-code").exit_code


def test_only_who_types_the_name_deletes(web: Run, driver: MemoryComputeDriver) -> None:
    for arguments, why in (
        (("web",), "to delete the fleet shop-web with 2 machines on memory without a terminal, say --yes shop-web"),
        (("web", "--yes", "web"), "--yes says 'web', but this is 'shop-web'"),
        (("web-0", "--yes", "shop-web"), "this is 'shop-web-0'"),
    ):
        refused = web("delete", *arguments)
        assert (2, True) == (refused.exit_code, why in refused.stderr)
    assert 2 == len(states(driver))
    assert "shop-web-0: deleted\n" == web("delete", "web-0", "--yes", "shop-web-0").stdout
    assert ["shop-web-1"] == list(states(driver))
    assert "shop-web: deleted\n" == web("delete", "web", "--yes", "shop-web").stdout
    assert ({}, {}) == (states(driver), driver._firewalls)
    assert 1 == web("delete", "web", "--yes", "shop-web").exit_code


def test_a_deletion_need_not_be_waited_for(web: Run, driver: MemoryComputeDriver) -> None:
    said = web("delete", "web", "--yes", "shop-web", "--no-wait").stdout
    assert "shop-web: being deleted; run it again to delete what they shared\n" == said
    assert {} == states(driver)


# inside

SSH = """#!/usr/bin/env python3
import os, sys
host, command = sys.argv[-2:]
data = sys.stdin.read() if "BatchMode=yes" in sys.argv else ""
if host == "10.0.0.2" and command == "fail":
    sys.stderr.write("Connection refused\\r\\nby it\\r\\n")
    sys.exit(255)
print(f"{host} {command} {data}\\x1b[31mred")
print("warned", file=sys.stderr)
sys.exit(3 if command == "false" and host == "10.0.0.1" else 0)
"""


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put an ssh on the path that says what it was called with."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "ssh").write_text(SSH)
    (folder / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


@pytest.mark.usefixtures("path")
def test_a_command_runs_on_all_machines_of_a_fleet_or_on_one(web: Run) -> None:
    done = web("run", "web", "--", "echo", "a b;c")
    assert 0 == done.exit_code
    red = "echo 'a b;c' \x1b[31mred"
    assert [f"shop-web-0: 10.0.0.1 {red}", f"shop-web-1: 10.0.0.2 {red}"] == sorted(done.stdout.splitlines())
    assert {"shop-web-0: warned", "shop-web-1: warned"} == set(done.stderr.splitlines())
    one = web("run", "web-1", "--stdin", "--", "cat", "-n", input="given")
    assert ("10.0.0.2 cat -n given\x1b[31mred\n", "warned\n") == (one.stdout, one.stderr)


@pytest.mark.usefixtures("path")
def test_exit_codes_of_commands_are_told(web: Run) -> None:
    assert 3 == web("run", "web-0", "--", "false").exit_code
    fleet = web("run", "web", "--", "false")
    assert (1, True) == (fleet.exit_code, "shop-web-0: ended with 3\n" in fleet.stderr)
    broken = web("run", "web", "--", "fail")
    assert 1 == broken.exit_code
    assert "shop-web-0: 10.0.0.1 fail" in broken.stdout
    assert "ssh to 10.0.0.2 failed: Connection refused; by it\n" in broken.stderr
    facts = {fact["machine"]: fact for fact in map(json.loads, web("run", "web", "--json", "fail").stdout.splitlines())}
    assert (0, True) == (facts["shop-web-0"]["exit_code"], "ssh to 10.0.0.2 failed" in facts["shop-web-1"]["error"])
    assert 2 == web("run", "web").exit_code
    assert 2 == web("run", "web", "--").exit_code


def test_a_session_is_the_systems_ssh(web: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str, ...]] = []

    def replaced(program: str, arguments: tuple[str, ...]) -> None:
        calls.append((program, *arguments))

    monkeypatch.setattr(os, "execvp", replaced)
    web("ssh", "web-1")
    web("ssh", "-o", "LocalForward=8080 localhost:80", "web-1", "--", "ls", "$(id)", "-l")
    plain, forwarded = calls
    assert ("ssh", "ssh", "-o") == plain[:3]
    assert ("-l", "shift", "--", "10.0.0.2") == plain[-4:]
    assert ("-o", "LocalForward=8080 localhost:80") == forwarded[2:4]
    assert ("10.0.0.2", "ls '$(id)' -l") == forwarded[-2:]
    several = web("ssh", "web")
    assert (2, True) == (several.exit_code, "say which of its machines: shop-web-0, shop-web-1" in several.stderr)

    def missing(*_: object) -> None:
        raise FileNotFoundError

    monkeypatch.setattr(os, "execvp", missing)
    assert "OpenSSH" in web("ssh", "web-0").stderr


def test_a_session_replaces_the_command(path: Path, folder: Path) -> None:
    code = """
import attrs, sys
from shiftable.compute import Compute, FleetSpec
from shiftable.memory import MemoryProvider
from shiftable.memory.compute import FEATURES, MemoryComputeDriver
driver = MemoryComputeDriver(attrs.evolve(FEATURES, ssh=True))
Compute(driver).create(FleetSpec(name="web", image="debian-12", cpus=1, memory_gib=1))
MemoryProvider.compute = lambda _: driver
from shiftable.cli._main import cli
cli(["compute", "ssh", "memory:web-0", "--", "false"])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=folder)
    assert (3, "10.0.0.1 false \x1b[31mred\n", "warned\n") == (done.returncode, done.stdout, done.stderr)


def test_a_simulated_machine_has_no_session(web: Run, driver: MemoryComputeDriver) -> None:
    driver._features = FEATURES
    for command in (("ssh", "web-0"), ("run", "web-0", "--", "true")):
        refused = web(*command)
        assert (1, True) == (refused.exit_code, "it is only simulated" in refused.stderr)


HOSTILE = b"boot\r\n\x1b]0;title\x07\x1b[2Jlogin: \xff \xe2\x80\xae\n"


def test_a_console_cannot_move_the_cursor_of_a_terminal(
    web: Run, driver: MemoryComputeDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(driver), "console", lambda *_: HOSTILE)
    assert HOSTILE == web("console", "web-0").stdout_bytes
    assert HOSTILE.decode(errors="replace") == json.loads(web("console", "web-0", "--json").stdout)["console"]
    monkeypatch.setattr("click.testing._NamedTextIOWrapper.isatty", lambda _: True, raising=False)
    said = web("console", "web-0").stdout_bytes
    assert b"boot\n\\x1b]0;title\\x07\\x1b[2Jlogin: \xef\xbf\xbd \\u202e\n" == said


# choosing


@attrs.define
class Priced(MemoryComputeDriver):
    """Sizes at another price, of an old list."""

    factor: Decimal = attrs.field(default=Decimal(1), kw_only=True)

    def sizes(self, *, cursor: str | None, limit: int | None) -> Any:
        page = MemoryComputeDriver.sizes(self, cursor=cursor, limit=limit)
        items = tuple(attrs.evolve(s, price=s.price * self.factor if s.price else None) for s in page.items)
        return attrs.evolve(page, items=items)


class Broken(MemoryComputeDriver):
    """Lets nobody in."""

    def choose(self, spec: FleetSpec) -> Any:
        raise MemoryFault(Fault(PermissionDenied, "no permission"))


@pytest.fixture
def three(run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Three providers: one is cheaper and its prices are old, one lets nobody in."""
    old = attrs.evolve(FEATURES, price_list=PriceSource("a list", date(2020, 1, 1)))
    drivers: Mapping[str, ComputeDriver] = {"a": MemoryComputeDriver(), "b": Priced(old, factor=Decimal("0.5"))}
    left = iter([*drivers.values(), Broken()])
    monkeypatch.setattr(MemoryProvider, "compute", lambda _: next(left))
    monkeypatch.setattr("shiftable.cli._compute_choice.parallel", one_by_one)
    tables = "".join(f'[providers.{name}]\ntype = "memory"\n' for name in "abc")
    (folder / "shiftable.toml").write_text(FILE + tables)
    return run


def one_by_one(function: Callable[[str], Any], items: list[str], *, workers: int) -> Any:
    """Do what ``parallel`` does, in order."""
    from shiftable.parallel import parallel

    assert workers
    for item in items:
        yield from parallel(function, [item], workers=1)


def test_sizes_of_all_providers_stand_side_by_side(three: Run) -> None:
    found = three("sizes", "--cpus", "2", "--memory", "4")
    assert 0 == found.exit_code
    why = "the cheapest of 23 sizes with at least 2 CPUs, 4 GiB of x86_64"
    assert [
        ["b", "m2-4", "2 CPUs", "4 GiB", "", "36.50 USD/month", why],
        ["a", "m2-4", "2 CPUs", "4 GiB", "", "73.00 USD/month", why],
    ] == [line.split("\t") for line in found.stdout.splitlines()]
    assert "error: c: compute.choose on fleet 'sizes' (c): no permission\n" in found.stderr
    assert "b: the prices are " in found.stderr
    assert "months old (2020-01-01); what is charged may differ\n" in found.stderr


def test_a_provider_that_is_named_must_answer(three: Run) -> None:
    found = three("sizes", "a", "b", "c", "--cpus", "2", "--json")
    assert 1 == found.exit_code
    facts = [json.loads(line) for line in found.stdout.splitlines()]
    assert [("b", "m2-2", "0.040", "29.200"), ("a", "m2-2", "0.08", "58.40")] == [
        (fact["provider"], fact["size"], fact["hourly"], fact["monthly"]) for fact in facts
    ]


@pytest.fixture
def hosters(run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Two accounts at hosters: there are machines of the first one, if that says so, and none of the second."""
    (folder / "shiftable.toml").write_text(FILE + '[providers.b]\ntype = "memory"\n[providers.c]\ntype = "memory"\n')
    made = iter([MemoryComputeDriver()])

    def compute(_: MemoryProvider) -> ComputeDriver:
        for driver in made:
            return driver
        raise Unsupported("shiftable has no machines of c yet, only of b", provider="memory")

    monkeypatch.setattr(MemoryProvider, "compute", compute)
    monkeypatch.setattr("shiftable.cli._compute_choice.parallel", one_by_one)
    return run


def test_who_has_no_machines_is_left_out_of_a_comparison_unless_he_is_named(hosters: Run) -> None:
    found = hosters("sizes", "--cpus", "2")
    assert (0, "") == (found.exit_code, found.stderr)
    assert ["b"] == [line.split("\t")[0] for line in found.stdout.splitlines()]
    named = hosters("sizes", "c", "--cpus", "2")
    assert (1, "") == (named.exit_code, named.stdout)
    assert "error: c: shiftable has no machines of c yet, only of b\n" == named.stderr
    nobody = hosters("sizes", "--cpus", "2")
    assert (2, "") == (nobody.exit_code, nobody.stdout)
    assert "error: no provider of the file has machines; `shiftable providers` says which could\n" == nobody.stderr


def test_what_no_size_has_is_said(run: Run) -> None:
    found = run("sizes", "memory", "--cpus", "100")
    assert (1, "") == (found.exit_code, found.stdout)
    assert "no size has 100 CPUs, 1 GiB of x86_64; the largest is m64-512" in found.stderr
    assert "a4-4" in run("sizes", "memory", "--cpus=4", "--memory=4", "--arch=arm64").stdout
    assert "1 simulated" in run("sizes", "memory", "--gpus", "1").stdout


def test_sizes_of_one_architecture(run: Run, driver: MemoryComputeDriver) -> None:
    (every, arm, intel) = (run("sizes", *options).stdout for options in ((), ("--arch=arm64",), ("--arch=x86_64",)))
    assert arm.splitlines()
    assert sorted(every.splitlines()) == sorted((arm + intel).splitlines())
    driver._features = attrs.evolve(driver._features, arches=frozenset({"x86_64"}), gpus=False)
    for options, what in ((("--arch=arm64", "--cpus=1"), "machines of arm64"), (("--gpus=1",), "machines with GPUs")):
        refused = run("sizes", "memory", *options)
        assert (1, "") == (refused.exit_code, refused.stdout)
        assert f"this provider has no {what}" in refused.stderr
    driver.sizes = lambda **_: Page(())  # type: ignore[method-assign]  as one that has none
    refused = run("sizes", "memory", "--arch=arm64")
    assert (2, True) == (refused.exit_code, "no named provider has machines of arm64; " in refused.stderr)


def test_without_a_need_all_sizes_are_listed(run: Run) -> None:
    rows = [line.split("\t") for line in run("sizes", "memory").stdout.splitlines()]
    assert 57 == len(rows)
    assert "a1-1" == rows[0][1]


def test_without_a_file_the_installed_providers_are_asked(
    folder: Path, driver: MemoryComputeDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    features: Mapping[str, tuple[Features, ...]] = {"compute": (FEATURES,)}
    monkeypatch.setattr("shiftable.registry.names", lambda: ("memory",))
    monkeypatch.setattr(MemoryProvider, "features", classmethod(lambda _: features))
    found = CliRunner().invoke(cli, ["compute", "sizes", "--cpus", "1"])
    assert (0, True) == (found.exit_code, found.stdout.startswith("memory\tm1-1\t")), found.output


def test_images_are_listed(web: Run, driver: MemoryComputeDriver) -> None:
    lines = [line.split("\t") for line in web("images").stdout.splitlines()]
    assert ["memory", "debian-12", "x86_64", "debian-12-x86_64"] in lines
    made = driver.snapshot("machine-1", "golden\x1b")
    (own,) = [json.loads(line) for line in web("images", "memory", "--own", "--json").stdout.splitlines()]
    assert (made.id, "golden\x1b", True) == (own["id"], own["name"], own["ready"])


# sweeping


@pytest.fixture
def littered(run: Run, driver: MemoryComputeDriver) -> Run:
    driver._breaking = {"shop-web-1"}
    assert 1 == run("create", "web").exit_code
    return run


def test_only_old_debris_is_swept_and_only_with_a_yes(littered: Run, driver: MemoryComputeDriver) -> None:
    assert "" == littered("sweep", "--yes").stdout
    assert (
        "memory: disk shop-web-1-root of fleet shop-web: found\n" == littered("sweep", "-n", "--older-than=0s").stdout
    )
    refused = littered("sweep", "--older-than", "0s")
    assert (2, True) == (
        refused.exit_code,
        "to delete 1 thing at memory without a terminal, say --yes" in refused.stderr,
    )
    assert 1 == len(driver._debris)
    said = littered("sweep", "memory", "--older-than", "0s", "--yes", "--json").stdout
    assert ("disk", "deleted", "shop-web") == tuple(json.loads(said)[name] for name in ("kind", "state", "fleet"))
    assert {"shop-web-0": "running"} == states(driver)
    assert (0, "") == ((last := littered("sweep", "--older-than", "0s")).exit_code, last.output)


def test_where_nothing_can_be_found_is_not_swept_unless_it_is_named(run: Run, driver: MemoryComputeDriver) -> None:
    driver._features = attrs.evolve(FEATURES, debris=False)
    assert (0, "") == ((swept := run("sweep", "--yes")).exit_code, swept.output)
    assert "this provider has no way to find what failures left" in run("sweep", "memory", "--yes").stderr


def test_who_sits_at_a_terminal_is_asked(
    littered: Run, driver: MemoryComputeDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("click.testing._NamedTextIOWrapper.isatty", lambda _: True, raising=False)
    assert "disk shop-web-1-root" in littered("sweep", "--older-than", "0s", input="n\n").stderr
    assert 1 == len(driver._debris)
    assert 0 == littered("sweep", "--older-than", "0s", input="y\n").exit_code
    assert {} == driver._debris
    assert 1 == littered("delete", "web", input="other\n").exit_code
    assert 1 == len(states(driver))
    assert 0 == littered("delete", "web", input="shop-web\n").exit_code
    assert {} == states(driver)


# waiting


def test_an_interrupted_wait_says_that_it_goes_on(run: Run, driver: MemoryComputeDriver, monkeypatch: Any) -> None:
    def pressed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("shiftable.compute.Fleet.wait", pressed)
    answer = run("create", "web")
    assert 130 == answer.exit_code
    assert "interrupted; web: it goes on at the provider; `shiftable compute show web` tells\n" in answer.stderr
    assert 2 == len(states(driver))


def test_a_machine_that_failed_is_an_error(run: Run, driver: MemoryComputeDriver) -> None:
    driver._failing = {"shop-web-1"}
    answer = run("create", "web")
    assert 1 == answer.exit_code
    assert "machine 'shop-web-1' in fleet 'shop-web' (memory): it failed" in answer.stderr


def test_names_are_completed_without_asking(folder: Path, completed: Callable[..., list[str]]) -> None:
    (folder / "shiftable.toml").write_text(FILE)
    assert ["web", "web-0", "web-1"] == completed("shiftable compute ssh ")
    assert ["web"] == completed("shiftable compute create w")
    assert ["sizes", "snapshot", "ssh", "start", "stop", "sweep"] == completed("shiftable compute s")[1:]


# plan, apply, destroy


def change(folder: Path, **fields: str) -> None:
    text = FILE
    for name, value in fields.items():
        lines = [f"{name} = {value}" if line.startswith(f"{name} =") else line for line in text.splitlines()]
        text = "\n".join(lines if lines != text.splitlines() else [*lines, f"{name} = {value}"])
    (folder / "shiftable.toml").write_text(text)


def shiftable(*arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments)


def test_a_declared_fleet_is_planned_applied_and_destroyed(run: Run, folder: Path, driver: MemoryComputeDriver) -> None:
    planned = shiftable("plan").stdout
    assert "+ compute.web  create 'shop-web' on memory\n" in planned
    assert "    costs +146.00 USD a month\n" in planned
    assert "create compute.web (shop-web): done\n" == shiftable("apply").stdout
    assert {"shop-web-0": "running", "shop-web-1": "running"} == states(driver)
    assert "production: everything is as declared (1 resource)\n" == shiftable("plan").stdout
    change(folder, count="3", cpus="4", open_ports="[443, 22]")
    planned = shiftable("plan").stdout
    assert "    cpus: 2 → 4\n    costs +87.60 USD a month\n" in planned
    assert "    open_ports: [443] → [443, 22]\n" in planned
    assert "    count: 2 → 3\n    costs +116.80 USD a month\n" in planned
    assert planned.endswith("production: 3 to change; shiftable apply does it\n")
    assert 3 == shiftable("apply").stdout.count("update compute.web (shop-web): done\n")
    found = driver.machines("shop-web", cursor=None, limit=None).items
    assert [("m4-4", "running")] * 3 == [(machine.size, machine.state) for machine in found]
    assert 0 == shiftable("plan", "--exit-code").exit_code
    destroyed = shiftable("destroy", "compute.web", "--yes", "shop-web")
    assert (0, {}) == (destroyed.exit_code, states(driver)), destroyed.output


def test_apply_deletes_no_machine(web: Run, folder: Path, driver: MemoryComputeDriver) -> None:
    change(folder, count="1", image='"ubuntu-24.04"')
    planned = shiftable("plan").stdout
    assert "why: shop-web-1 is deleted\n    costs -73.00 USD a month\n" in planned
    assert "why: shop-web-0, shop-web-1 are made anew\n" in planned
    applied = shiftable("apply")
    skipped = "skipped: it would destroy something; `shiftable compute replace web` does it\n"
    assert (1, 2) == (applied.exit_code, applied.stdout.count(skipped))
    assert 2 == len(states(driver))


def test_apply_does_what_goes_without_what_it_leaves(web: Run, folder: Path, driver: MemoryComputeDriver) -> None:
    change(folder, count="1", open_ports="[22]", cpus="4")
    planned = shiftable("plan").stdout
    assert "why: shop-web-1 is deleted\n" in planned
    assert "    open_ports: [443] → [22]\nproduction: 3 to change" in planned  # which costs nothing
    assert planned.endswith("3 to change; shiftable apply does 2 of them, and skips what destroys\n")
    assert "on memory  destroys what it holds; `shiftable compute replace web` does it\n" in planned
    applied = shiftable("apply")
    assert (1, "") == (applied.exit_code, applied.stderr)
    assert [1, 2] == [applied.stdout.count(end) for end in ("skipped: it would destroy something", ": done\n")]
    found = driver.machines("shop-web", cursor=None, limit=None).items
    assert [("m4-4", 22)] * 2 == [(machine.size, machine.firewall[0].port) for machine in found]


def test_a_plan_refuses_a_name_that_cannot_be(run: Run, folder: Path) -> None:
    change(folder, name='"größe"')
    for command in ("plan", "apply"):
        refused = shiftable(command)
        assert 1 == refused.exit_code
        assert "error: compute.web: compute.diff on fleet 'größe' (memory): the name must be" in refused.stderr


def test_replace_does_what_apply_leaves_and_asks_first(web: Run, folder: Path, driver: MemoryComputeDriver) -> None:
    assert "shop-web: everything is as declared\n" == web("replace", "web").stdout
    change(folder, count="1", image='"ubuntu-24.04"')
    refused = web("replace", "web")
    assert 2 == refused.exit_code
    assert "shop-web: shop-web-1 is deleted\n" in refused.stderr
    assert "to delete machines of shop-web on memory without a terminal, say --yes shop-web" in refused.stderr
    assert 2 == len(states(driver))
    assert (0, "shop-web: as declared\n") == ((done := web("replace", "web", "--yes=shop-web")).exit_code, done.stdout)
    (found,) = driver.machines("shop-web", cursor=None, limit=None).items
    assert ("shop-web-0", "ubuntu-24.04", "running") == (found.name, found.image, found.state)
    assert "shop-web" in (folder / ".shiftable" / "applied.jsonl").read_text()
    undeclared = web("replace", "memory:shop-web")
    assert (2, True) == (undeclared.exit_code, "memory:shop-web is not declared" in undeclared.stderr)


def test_a_machine_that_failed_is_replaced(run: Run, folder: Path, driver: MemoryComputeDriver) -> None:
    driver._failing = {"shop-web-1"}
    assert 1 == shiftable("apply").exit_code
    driver._failing = ()
    assert "why: shop-web-1 failed, and is made anew\n" in shiftable("plan").stdout
    assert 0 == run("replace", "web", "--yes", "shop-web").exit_code
    assert {"shop-web-0": "running", "shop-web-1": "running"} == states(driver)


def test_apply_says_which_machine_failed_and_goes_on_later(run: Run, folder: Path, driver: MemoryComputeDriver) -> None:
    driver._quota = 2
    applied = shiftable("apply")
    assert 1 == applied.exit_code
    assert "machine 'shop-web-1' in fleet 'shop-web' (memory): the account has 2 CPUs" in applied.stderr
    assert ["shop-web-0"] == list(states(driver))
    driver._quota = 4
    assert "update compute.web (shop-web): done\n" == shiftable("apply").stdout
    assert ["shop-web-0", "shop-web-1"] == list(states(driver))


def test_apply_waits_for_machines_and_says_if_one_failed(run: Run, driver: MemoryComputeDriver) -> None:
    driver._failing = {"shop-web-1"}
    applied = shiftable("apply", "--json")
    assert 1 == applied.exit_code
    (result,) = json.loads(applied.stdout)["changes"]
    assert "it failed (the provider says 'FAILED')" in result["result"]


# the guide

GUIDE = (Path(__file__).parents[2] / "docs/how-to/machines.md").read_text("utf-8")


def test_the_commands_of_the_guide_exist_as_they_stand_there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prefix = "$ shiftable compute "
    lines = [line.removeprefix(prefix) for line in GUIDE.splitlines() if line.startswith(prefix)]
    assert 33 == len(lines)
    (folder / "id_ed25519.pub").write_text(KEY)
    for line in lines:
        words = shlex.split(line.replace("~/.ssh/", ""), comments=True)
        command: click.Command | None = compute
        while isinstance(command, click.Group):
            command = command.get_command(click.Context(command), name := words.pop(0))
        assert command is not None, line
        command.make_context(name, words)


def test_the_declarations_of_the_guide_are_right(folder: Path) -> None:
    first, *more = re.findall(r"```toml\n(.*?)```", GUIDE, re.DOTALL)
    head = '[project]\nname = "shop"\n[environments.production]\nprovider = "memory"\n'
    for text in (first, *more):
        added = text.removeprefix("[compute.web]\n# …\n")
        said = {line.partition(" = ")[0] for line in re.split("^\\[", added, flags=re.MULTILINE)[0].splitlines()}
        kept = [line for line in first.splitlines() if text is not first and line.partition(" = ")[0] not in said]
        (folder / "shiftable.toml").write_text("\n".join([head, *kept, added]))
        (declared,) = load(folder).declared("compute")
        assert ("web", "debian-12") == (declared.spec.name, declared.spec.image)


def test_the_programs_of_the_guide_run(driver: MemoryComputeDriver, capsys: pytest.CaptureFixture[str]) -> None:
    _, program = re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)
    exec(compile(program, "machines.md", "exec"), {})  # noqa: S102  the guide's own
    assert capsys.readouterr().out.startswith("/dev/disk/by-id/")
    assert {"data-0": "running", "twin-0": "running"} == states(driver)


def test_user_data_that_the_provider_cannot_take_is_told_before_anything_is_made(folder: Path) -> None:
    text = FILE.replace("[compute.web]", f'[compute.web]\nuser_data_text = "#!/bin/sh\\n{"x" * 20_000}"')
    (folder / "shiftable.toml").write_text(text)
    for command in (["check"], ["check", "--offline"], ["plan"]):
        said = shiftable(*command)
        assert 1 == said.exit_code
        assert "has no way to take the user data: the user data has 20," in said.output


def test_user_data_is_told_nowhere(run: Run, folder: Path, driver: MemoryComputeDriver) -> None:
    canary = "c4n4ry-of-user-data"
    text = FILE.replace("[compute.web]", f'[compute.web]\nuser_data_text = "#!/bin/sh\\n# {canary}"')
    said: list[Result] = []
    (folder / "shiftable.toml").write_text(text)
    said += [shiftable("plan"), shiftable("plan", "--json"), shiftable("-vv", "apply", "--json")]
    said += [run(*words) for words in (("show", "web"), ("show", "web-0", "--json"), ("list", "--json"))]
    assert {0} == {each.exit_code for each in said}
    driver._quota = 0
    (folder / "shiftable.toml").write_text(text.replace("count = 2", "count = 3"))
    said.append(shiftable("apply"))
    (folder / "shiftable.toml").write_text(text.replace(canary, canary + "x" * 20_000))
    said.append(run("replace", "web", "--yes", "shop-web"))
    (folder / "shiftable.toml").write_text(
        text.replace(canary, canary + "x" * 20_000).replace("count = 2", "count = 3")
    )
    said.append(shiftable("apply"))
    assert [1, 0, 1] == [each.exit_code for each in said[-3:]]
    assert "the user data has 20," in said[-1].stderr
    assert not [each.output for each in said if canary in each.output]
    assert canary not in (folder / ".shiftable" / "applied.jsonl").read_text()

"""``shiftable compute disk``: disks and their snapshots, from making one to deleting it, by the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import attrs
import pytest
from click.testing import CliRunner, Result

from shiftable.cli._main import cli
from shiftable.compute.driver import Disk, DiskSnapshot
from shiftable.memory import MemoryProvider
from shiftable.memory.compute import FEATURES, MemoryComputeDriver

KEY = "ssh-ed25519 " + "AAAAC3NzaC1lZDI1NTE5AAAAI" + "A" * 43 + " ops@example"
NOON = datetime(2026, 3, 31, 12, tzinfo=UTC)

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
ssh_keys = ["{KEY}"]
"""

Run = Callable[..., Result]


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> MemoryComputeDriver:
    """Let what one command has made be there for the next one, which the memory of a process is not."""
    made = MemoryComputeDriver(clock=lambda: NOON)
    monkeypatch.setattr(MemoryProvider, "compute", lambda _: made)
    return made


@pytest.fixture
def run(folder: Path, driver: MemoryComputeDriver) -> Run:
    """Return what runs a command of disks, of a file with a fleet of two machines that are there."""
    (folder / "shiftable.toml").write_text(FILE)

    def start(*arguments: str, **more: Any) -> Result:
        result = CliRunner().invoke(cli, ["compute", "disk", *arguments], **more)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result

    made = CliRunner().invoke(cli, ["compute", "create", "web"])
    assert 0 == made.exit_code, made.output
    return start


def disks(driver: MemoryComputeDriver) -> list[tuple[str, int, str | None]]:
    return [(disk.name, disk.size_gib, disk.machine) for disk in driver.disks(cursor=None, limit=None).items]


def snapshots(driver: MemoryComputeDriver) -> list[str]:
    return [each.name for each in driver.disk_snapshots(cursor=None, limit=None).items]


def refused(answer: Result, code: int, why: str) -> None:
    assert (code, "", True) == (answer.exit_code, answer.stdout, why in answer.stderr), answer.output


# looking


def test_without_disks_and_snapshots_the_listings_are_empty(run: Run) -> None:
    for arguments in (("list",), ("list", "--json"), ("list", "memory"), ("snapshots",), ("snapshots", "--json")):
        answer = run(*arguments)
        assert (0, "") == (answer.exit_code, answer.output)


def test_disks_are_listed_with_the_machines_that_have_them(run: Run, driver: MemoryComputeDriver) -> None:
    run("create", "memory:orders", "--size", "10", "--zone", "a")
    run("create", "memory:logs", "--size-gib", "20")
    run("attach", "memory:orders", "web-1")
    assert [
        ["memory:orders", "disk-3", "10 GiB", "a", "shop-web-1"],
        ["memory:logs", "disk-4", "20 GiB"],
    ] == [line.split("\t") for line in run("list").stdout.splitlines()]
    facts = [json.loads(line) for line in run("list", "memory", "--json").stdout.splitlines()]
    assert {
        "provider": "memory",
        "id": "disk-3",
        "name": "orders",
        "size_gib": 10,
        "zone": "a",
        "machine": "machine-2",
        "device": "/dev/disk/by-id/disk-3",
        "ready": True,
    } == facts[0]
    assert ["orders"] == [json.loads(line)["name"] for line in run("list", "--json", "--limit=1").stdout.splitlines()]
    driver._disks["disk-4"] = attrs.evolve(driver._disks["disk-4"], ready=False, machine="machine-99")
    assert ["memory:logs", "disk-4", "20 GiB", "", "machine-99", "not ready"] == (
        run("list").stdout.splitlines()[1].split("\t")
    )


def test_machines_are_asked_for_only_where_a_disk_is_attached(
    run: Run, driver: MemoryComputeDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("create", "memory:orders", "--size", "10")
    run("create", "memory:logs", "--size", "10")
    calls: list[object] = []
    real = MemoryComputeDriver.machines

    def counted(*arguments: Any, **named: Any) -> Any:
        calls.append(named)
        return real(*arguments, **named)

    monkeypatch.setattr(MemoryComputeDriver, "machines", counted)
    run("list")
    assert [] == calls
    for name in ("orders", "logs"):
        driver.attach("machine-1", next(disk.id for disk in driver._disks.values() if disk.name == name))
    run("list", "--json")
    assert [] == calls
    assert 2 == run("list").stdout.count("\tshop-web-0\n")
    assert 1 == len(calls)


def test_snapshots_are_listed(run: Run, driver: MemoryComputeDriver) -> None:
    run("create", "memory:orders", "--size", "10")
    run("snapshot", "memory:orders", "nightly")
    assert "memory:nightly\tsnapshot-4\t10 GiB\t2026-03-31 12:00:00Z\n" == run("snapshots").stdout
    (facts,) = map(json.loads, run("snapshots", "memory", "--json").stdout.splitlines())
    assert {
        "provider": "memory",
        "id": "snapshot-4",
        "name": "nightly",
        "size_gib": 10,
        "ready": True,
        "created": "2026-03-31T12:00:00+00:00",
    } == facts
    driver._snapshots["other"] = DiskSnapshot(id="other", name="", size_gib=1, ready=False)
    assert ["memory:other", "other", "1 GiB", "", "being made"] == run("snapshots").stdout.splitlines()[1].split("\t")
    assert 1 == len(run("snapshots", "--limit", "1").stdout.splitlines())


def test_a_name_that_others_chose_is_one_cell_of_one_line(run: Run, driver: MemoryComputeDriver) -> None:
    driver._disks["x"] = Disk(id="x", name="a\tb\nmemory:c\x1b[2J", size_gib=1)
    driver._snapshots["y"] = DiskSnapshot(id="y", name="\x1b]0;title\x07", size_gib=1)
    assert ["memory:a\\tb\\nmemory:c\\x1b[2J", "x", "1 GiB"] == run("list").stdout.removesuffix("\n").split("\t")
    assert "\x1b" not in run("snapshots").output
    wrong = run("delete", "memory:x", "--yes", "x")
    assert (2, False) == (wrong.exit_code, "\x1b" in wrong.output)
    assert "a\\tb\\nmemory:c\\x1b[2J: attached to no machine\n" == run("detach", "memory:x").output
    assert "a\\tb\\nmemory:c\\x1b[2J: deleted\n" == run("delete", "memory:x", "--yes", "a\tb\nmemory:c\x1b[2J").stdout


# making


def test_a_disk_is_made(run: Run, driver: MemoryComputeDriver) -> None:
    made = run("create", "memory:orders", "--size", "10", "--zone", "b")
    assert (0, "orders: created\n", "") == (made.exit_code, made.stdout, made.stderr)
    facts = json.loads(run("create", "memory:logs", "--size", "5", "--json").stdout)
    assert ("memory", "logs", 5, None, None) == tuple(
        facts[name] for name in ("provider", "name", "size_gib", "zone", "machine")
    )
    assert ["b", None] == [disk.zone for disk in driver._disks.values()]


def test_a_name_that_is_taken_makes_no_second_disk_and_no_second_snapshot(
    run: Run, driver: MemoryComputeDriver
) -> None:
    run("create", "memory:orders", "--size", "10")
    refused(
        run("create", "memory:orders", "--size", "10"),
        1,
        "compute.create_disk on disk 'orders' (memory): there is one of that name, disk-3\n",
    )
    driver._disks["disk-3"] = attrs.evolve(driver._disks["disk-3"], ready=False)
    refused(run("create", "memory:orders", "--size", "10"), 1, "disk-3, being made or deleted\n")
    assert 0 == run("snapshot", "memory:orders", "nightly").exit_code
    refused(
        run("snapshot", "memory:orders", "nightly"),
        1,
        "compute.snapshot_disk on disk snapshot 'nightly' (memory): there is one of that name, snapshot-4\n",
    )
    assert ([("orders", 10, None)], ["nightly"]) == (disks(driver), snapshots(driver))


def test_a_disk_is_made_of_a_snapshot_as_large_as_it_or_larger(run: Run, driver: MemoryComputeDriver) -> None:
    run("create", "memory:orders", "--size", "10")
    run("snapshot", "memory:orders", "nightly")
    asked: list[str | None] = []
    real = driver.create_disk

    def noted(name: str, size_gib: int, *, zone: str | None, snapshot: str | None) -> Disk:
        asked.append(snapshot)
        return real(name, size_gib, zone=zone, snapshot=snapshot)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(MemoryComputeDriver, "create_disk", lambda _, *given, **named: noted(*given, **named))
        assert 0 == run("create", "memory:same", "--snapshot", "nightly").exit_code
        assert 0 == run("create", "memory:larger", "--snapshot", "snapshot-4", "--size", "12").exit_code
        assert 0 == run("create", "memory:pasted", "--snapshot", "memory:nightly").exit_code
        refused(run("create", "memory:less", "--snapshot", "nightly", "--size", "9"), 1, "smaller than what it is made")
        refused(run("create", "memory:x", "--snapshot", "no"), 1, "disk snapshot 'no' (memory): there is none of that")
    assert ["snapshot-4"] * 4 == asked
    assert [("orders", 10), ("same", 10), ("larger", 12), ("pasted", 10)] == [each[:2] for each in disks(driver)]


def test_what_cannot_be_meant_is_wrong_usage(run: Run, driver: MemoryComputeDriver) -> None:
    for arguments, why in (
        (("create", "memory:orders"), "say --size or --snapshot"),
        (("create", "memory:orders", "--size", "0"), "--size"),
        (("create", "orders", "--size", "1"), "'orders' is no disk; say PROVIDER:NAME or PROVIDER:ID"),
        (("create", "memory:", "--size", "1"), "'memory:' is no disk"),
        (("delete", ":orders"), "':orders' is no disk"),
        (("delete-snapshot", "nightly"), "'nightly' is no disk snapshot"),
        (("attach", "memory:orders"), "MACHINE"),
        (("create", "nowhere:orders", "--size", "1"), "nowhere"),
    ):
        refused(run(*arguments), 2, why)
    assert [] == disks(driver)


def test_an_id_or_name_that_is_unknown_is_not_found(run: Run) -> None:
    for arguments in (("attach", "memory:no", "web-0"), ("detach", "memory:no"), ("delete", "memory:no", "--yes=no")):
        refused(run(*arguments), 1, "compute.find on disk 'no' (memory): there is none of that name or id\n")
    refused(run("snapshot", "memory:no", "nightly"), 1, "disk 'no' (memory)")
    refused(run("delete-snapshot", "memory:no", "--yes=no"), 1, "compute.find on disk snapshot 'no' (memory)")
    run("create", "memory:orders", "--size", "1")
    refused(run("attach", "memory:orders", "web-7"), 1, "the fleet has no such machine")
    refused(run("attach", "memory:orders", "web"), 2, "say which of its machines: shop-web-0, shop-web-1")


def test_of_two_disks_of_one_name_the_id_tells_which(run: Run, driver: MemoryComputeDriver) -> None:
    for _ in range(2):
        driver.create_disk("twin", 1, zone=None, snapshot=None)
    refused(run("delete", "memory:twin", "--yes", "twin"), 2, "memory:twin is the name of 2 of them; say which by its")
    assert "disk-3, disk-4" in run("detach", "memory:twin").stderr
    assert "twin: deleted\n" == run("delete", "memory:disk-4", "--yes", "twin").stdout
    assert ["disk-3"] == list(driver._disks)


# at machines


def test_a_disk_is_attached_and_detached(run: Run, driver: MemoryComputeDriver) -> None:
    run("create", "memory:orders", "--size", "10")
    said = "orders: attached to shop-web-0 as /dev/disk/by-id/disk-3\n"
    assert said == run("attach", "memory:orders", "web-0").stdout
    assert said == run("attach", "memory:disk-3", "memory:shop-web-0").stdout  # again: no error
    assert [("orders", 10, "machine-1")] == disks(driver)
    refused(
        run("attach", "memory:orders", "web-1"),
        1,
        "compute.attach on disk 'orders' (memory): it is attached to shop-web-0; unmount it there, then "
        "`shiftable compute disk detach memory:orders`\n",
    )
    assert "orders: detached from shop-web-0\n" == run("detach", "memory:orders").stdout
    assert "orders: attached to no machine\n" == run("detach", "memory:orders").stdout
    assert [("orders", 10, None)] == disks(driver)
    facts = json.loads(run("attach", "memory:orders", "web-1", "--json").stdout)
    assert ("memory", "machine-2", "/dev/disk/by-id/disk-3") == (facts["provider"], facts["machine"], facts["device"])
    for _ in range(2):
        facts = json.loads(run("detach", "memory:orders", "--json").stdout)
        assert ("orders", None, None) == (facts["name"], facts["machine"], facts["device"])


def test_a_disk_of_one_provider_is_not_attached_at_another(run: Run, folder: Path, driver: MemoryComputeDriver) -> None:
    (folder / "shiftable.toml").write_text(FILE + '[providers.other]\ntype = "memory"\n')
    run("create", "other:orders", "--size", "10")
    refused(run("attach", "other:orders", "web-0"), 2, "web-0 is at memory; a disk of other cannot be attached there")
    refused(run("attach", "memory:orders", "other:shop-web-0"), 2, "other:shop-web-0 is at other; a disk of memory")
    assert [("orders", 10, None)] == disks(driver)


def test_a_disk_whose_machine_is_not_seen_is_not_detached(run: Run, driver: MemoryComputeDriver) -> None:
    run("create", "memory:orders", "--size", "10")
    driver._disks["disk-3"] = attrs.evolve(driver._disks["disk-3"], machine="machine-99")
    refused(run("detach", "memory:orders"), 1, "the machine that has it is not seen: machine-99\n")


def test_a_disk_outlives_its_machine(run: Run, driver: MemoryComputeDriver) -> None:
    run("create", "memory:orders", "--size", "10")
    run("attach", "memory:orders", "web-0")
    assert 0 == CliRunner().invoke(cli, ["compute", "delete", "web", "--yes", "shop-web"]).exit_code
    assert [("orders", 10, None)] == disks(driver)


# deleting


def test_only_who_types_the_name_deletes(run: Run, driver: MemoryComputeDriver) -> None:
    run("create", "memory:orders", "--size", "10")
    run("snapshot", "memory:orders", "nightly")
    without = "on memory and all that is on it without a terminal, say --yes"
    for arguments, why in (
        (("delete", "memory:orders"), f"to delete the disk orders {without} orders\n"),
        (("delete", "memory:disk-3"), f"to delete the disk orders {without} orders\n"),
        (("delete", "memory:orders", "--yes", "disk-3"), "--yes says 'disk-3', but this is 'orders'\n"),
        (("delete-snapshot", "memory:nightly"), f"to delete the disk snapshot nightly {without} nightly\n"),
        (("delete-snapshot", "memory:nightly", "--yes", "orders"), "--yes says 'orders', but this is 'nightly'\n"),
    ):
        refused(run(*arguments), 2, why)
    assert ([("orders", 10, None)], ["nightly"]) == (disks(driver), snapshots(driver))
    assert "orders: deleted\n" == run("delete", "memory:orders", "--yes", "orders").stdout
    assert ([], ["nightly"]) == (disks(driver), snapshots(driver))
    assert "nightly: deleted\n" == run("delete-snapshot", "memory:snapshot-4", "--yes", "nightly").stdout
    assert [] == snapshots(driver)


def test_what_has_no_name_is_confirmed_by_its_id(run: Run, driver: MemoryComputeDriver) -> None:
    driver._disks["vol-1"] = Disk(id="vol-1", name="", size_gib=1)
    refused(run("delete", "memory:vol-1"), 2, "say --yes vol-1\n")
    assert "vol-1: deleted\n" == run("delete", "memory:vol-1", "--yes", "vol-1").stdout


def test_who_sits_at_a_terminal_is_asked(
    run: Run, driver: MemoryComputeDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("create", "memory:orders", "--size", "10")
    run("snapshot", "memory:orders", "nightly")
    monkeypatch.setattr("click.testing._NamedTextIOWrapper.isatty", lambda _: True, raising=False)
    asked = run("delete", "memory:orders", input="yes\n")
    assert 1 == asked.exit_code
    assert "the disk orders on memory and all that is on it: type orders to delete it" in asked.stderr
    assert 1 == run("delete-snapshot", "memory:nightly", input="\n" * 5).exit_code
    assert ([("orders", 10, None)], ["nightly"]) == (disks(driver), snapshots(driver))
    assert 0 == run("delete", "memory:orders", input="orders\n").exit_code
    assert 0 == run("delete-snapshot", "memory:nightly", input="nightly\n").exit_code
    assert ([], []) == (disks(driver), snapshots(driver))


def test_a_disk_that_is_attached_is_not_deleted_and_nobody_is_asked(run: Run, driver: MemoryComputeDriver) -> None:
    run("create", "memory:orders", "--size", "10")
    run("attach", "memory:orders", "web-0")
    why = (
        "compute.delete_disk on disk 'orders' (memory): it is attached to shop-web-0; unmount it there, then "
        "`shiftable compute disk detach memory:orders`\n"
    )
    for arguments in (("--yes", "orders"), ()):
        refused(run("delete", "memory:orders", *arguments), 1, why)
    assert [("orders", 10, "machine-1")] == disks(driver)


# snapshots


def test_a_snapshot_is_taken_of_a_disk_that_is_in_use(run: Run, driver: MemoryComputeDriver) -> None:
    run("create", "memory:orders", "--size", "10")
    run("attach", "memory:orders", "web-0")
    assert "nightly: taken\n" == run("snapshot", "memory:orders", "nightly").stdout
    facts = json.loads(run("snapshot", "memory:orders", "weekly", "--json").stdout)
    assert ("memory", "weekly", 10, True) == tuple(facts[name] for name in ("provider", "name", "size_gib", "ready"))
    assert ["nightly", "weekly"] == snapshots(driver)


# what a provider does not have, and Ctrl-C


def test_a_provider_without_disks_says_so(run: Run, driver: MemoryComputeDriver) -> None:
    driver._features = attrs.evolve(FEATURES, disks=False, disk_snapshots=False)
    for arguments in (
        ("list",),
        ("create", "memory:orders", "--size", "1"),
        ("delete", "memory:orders"),
        ("attach", "memory:orders", "web-0"),
        ("detach", "memory:orders"),
        ("snapshot", "memory:orders", "nightly"),
    ):
        refused(run(*arguments), 1, "(memory): this provider has no disks\n")
    for arguments in (("snapshots",), ("delete-snapshot", "memory:nightly", "--yes", "nightly")):
        refused(run(*arguments), 1, "(memory): this provider has no snapshots of disks\n")


def test_a_provider_without_snapshots_has_disks_all_the_same(run: Run, driver: MemoryComputeDriver) -> None:
    driver._features = attrs.evolve(FEATURES, disk_snapshots=False)
    assert 0 == run("create", "memory:orders", "--size", "1").exit_code
    for arguments in (("snapshot", "memory:orders", "nightly"), ("create", "memory:copy", "--snapshot", "nightly")):
        refused(run(*arguments), 1, "this provider has no snapshots of disks\n")
    assert "orders: deleted\n" == run("delete", "memory:orders", "--yes", "orders").stdout


@pytest.mark.parametrize(
    ("patched", "arguments", "hint"),
    [
        ("Compute.create_disk", ("create", "memory:x", "--size=1"), "memory:x: it may be made all the same; `{list}`"),
        ("Machine.attach", ("attach", "memory:orders", "web-0"), "memory:orders: it goes on at the provider; `{list}`"),
        ("Machine.detach", ("detach", "memory:logs"), "memory:logs: it goes on at the provider; `{list}`"),
        ("Compute.snapshot_disk", ("snapshot", "memory:logs", "n"), "n: it goes on at the provider; `{snapshots}`"),
    ],
    ids=["create", "attach", "detach", "snapshot"],
)
def test_an_interrupted_wait_says_that_it_goes_on(
    patched: str, arguments: tuple[str, ...], hint: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("orders", "logs"):
        run("create", f"memory:{name}", "--size", "1")
    run("attach", "memory:logs", "web-1")

    def pressed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(f"shiftable.compute.{patched}", pressed)
    told = {name: f"shiftable compute disk {name} memory" for name in ("list", "snapshots")}
    answer = run(*arguments)
    assert (130, f"interrupted; {hint.format(**told)} tells\n") == (answer.exit_code, answer.stderr)


# on the clouds


@pytest.fixture(params=["aws", "azure", "gcp"])
def cloud(request: pytest.FixtureRequest, table: Callable[[str, str], str], folder: Path) -> Callable[..., str]:
    """Return what runs a command against the double of a cloud, which is called there."""
    (folder / "shiftable.toml").write_text(FILE.replace('"memory"', '"there"') + table("there", request.param))

    def told(*arguments: str, code: int = 0) -> str:
        answer = CliRunner().invoke(cli, ["compute", *arguments], catch_exceptions=False)
        assert code == answer.exit_code, answer.output
        return answer.stdout + answer.stderr

    return told


def test_a_disk_is_kept_copied_and_deleted_on_every_cloud(cloud: Callable[..., str]) -> None:
    cloud("create", "web")
    machine = json.loads(cloud("show", "web-1", "--json"))
    zone = ("--zone", machine["zone"]) if machine["zone"] else ()
    assert "orders: created\n" == cloud("disk", "create", "there:orders", "--size", "10", *zone)
    assert "there is one of that name" in cloud("disk", "create", "there:orders", "--size", "10", *zone, code=1)
    assert "orders: attached to shop-web-1 as /dev/" in cloud("disk", "attach", "there:orders", "web-1")
    (row,) = [line.split("\t") for line in cloud("disk", "list").splitlines()]
    assert ["there:orders", "10 GiB", machine["zone"] or "", "shop-web-1"] == [row[0], *row[2:]]
    assert "it is attached to shop-web-1" in cloud("disk", "delete", f"there:{row[1]}", "--yes", "orders", code=1)
    assert "nightly: taken\n" == cloud("disk", "snapshot", "there:orders", "nightly")
    (kept,) = map(json.loads, cloud("disk", "snapshots", "--json").splitlines())
    assert ("there", "nightly", 10, True) == tuple(kept[name] for name in ("provider", "name", "size_gib", "ready"))
    assert "copy: created\n" == cloud("disk", "create", "there:copy", "--snapshot", "nightly", *zone)
    assert "orders: detached from shop-web-1\n" == cloud("disk", "detach", "there:orders")
    for name in ("orders", "copy"):
        assert f"{name}: deleted\n" == cloud("disk", "delete", f"there:{name}", "--yes", name)
    assert "nightly: deleted\n" == cloud("disk", "delete-snapshot", "there:nightly", "--yes", "nightly")
    assert "" == cloud("disk", "list") + cloud("disk", "snapshots")

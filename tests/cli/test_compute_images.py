"""``shiftable compute snapshot`` and ``delete-image``: images of machines, by the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest
from click.testing import CliRunner, Result

from shiftable.cli._main import cli
from shiftable.compute import FleetSpec
from shiftable.compute.driver import Image
from shiftable.memory import MemoryProvider
from shiftable.memory.compute import FEATURES, MemoryComputeDriver

FILE = """
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
"""

KEYS = 'ssh_keys = ["ssh-ed25519 ' + "AAAAC3NzaC1lZDI1NTE5AAAAI" + "A" * 43 + ' ops@example"]\n'

Run = Callable[..., Result]


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> MemoryComputeDriver:
    """Let what one command has made be there for the next one, which the memory of a process is not."""
    made = MemoryComputeDriver()
    monkeypatch.setattr(MemoryProvider, "compute", lambda _: made)
    return made


@pytest.fixture
def run(folder: Path, driver: MemoryComputeDriver) -> Run:
    """Return what runs a command, of a file with a fleet of two machines that are there."""
    (folder / "shiftable.toml").write_text(FILE)

    def start(*arguments: str, **more: Any) -> Result:
        result = CliRunner().invoke(cli, ["compute", *arguments], **more)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result

    made = start("create", "web")
    assert 0 == made.exit_code, made.output
    return start


def images(driver: MemoryComputeDriver) -> list[str]:
    return [image.name for image in driver.images(cursor=None, limit=None).items if image.own]


def refused(answer: Result, code: int, why: str) -> None:
    assert (code, "", True) == (answer.exit_code, answer.stdout, why in answer.stderr), answer.output


def test_an_image_of_a_machine_makes_others(run: Run, driver: MemoryComputeDriver) -> None:
    taken = run("snapshot", "web-0", "golden")
    assert (0, 'golden: taken; image = "image-3" makes machines of it\n') == (taken.exit_code, taken.stdout)
    assert 0 == run("create", "memory:twin", "--image", "image-3", "--cpus", "1", "--memory", "1").exit_code
    (twin,) = driver.machines("twin", cursor=None, limit=None).items
    assert "image-3" == twin.image
    facts = json.loads(run("snapshot", "memory:shop-web-1", "weekly", "--json").stdout)
    assert ("memory", "weekly", "x86_64", 20, True, True) == tuple(
        facts[name] for name in ("provider", "name", "arch", "disk_gib", "own", "ready")
    )
    assert ["golden", "weekly"] == images(driver)


def test_an_image_that_cannot_be_made_is_told(run: Run, driver: MemoryComputeDriver) -> None:
    run("snapshot", "web-0", "golden")
    refused(run("snapshot", "web-1", "golden"), 1, "machine 'shop-web-1' in fleet 'shop-web' (memory): there is an")
    refused(run("snapshot", "web", "other"), 2, "say which of its machines: shop-web-0, shop-web-1")
    refused(run("snapshot", "web-7", "other"), 1, "the fleet has no such machine")
    refused(run("snapshot", "web-0"), 2, "NAME")
    assert ["golden"] == images(driver)


def test_only_who_types_the_name_deletes_an_image(
    run: Run, driver: MemoryComputeDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("golden", "weekly"):
        run("snapshot", "web-0", name)
    why = "to delete the image golden on memory and all that is on it without a terminal, say --yes golden\n"
    refused(run("delete-image", "memory:golden"), 2, why)
    refused(run("delete-image", "memory:golden", "--yes", "image-3"), 2, "but this is 'golden'\n")
    refused(run("delete-image", "golden", "--yes", "golden"), 2, "'golden' is no image; say PROVIDER:NAME")
    assert ["golden", "weekly"] == images(driver)
    assert "golden: deleted\n" == run("delete-image", "memory:image-3", "--yes", "golden").stdout
    assert ["weekly"] == images(driver)
    monkeypatch.setattr("click.testing._NamedTextIOWrapper.isatty", lambda _: True, raising=False)
    assert 1 == run("delete-image", "memory:weekly", input="y\n").exit_code
    assert ["weekly"] == images(driver)
    assert 0 == run("delete-image", "memory:weekly", input="weekly\n").exit_code
    assert [] == images(driver)


def test_an_image_that_is_not_the_accounts_own_is_not_found(run: Run, driver: MemoryComputeDriver) -> None:
    for name in ("debian-12", "no"):
        refused(
            run("delete-image", f"memory:{name}", "--yes", name),
            1,
            f"compute.find on image {name!r} (memory): there is none of that name or id\n",
        )


def test_machines_of_an_image_outlive_it(run: Run, driver: MemoryComputeDriver) -> None:
    made = driver.snapshot("machine-1", "golden")
    spec = FleetSpec(name="twin", image=made.id, cpus=1, memory_gib=1)
    driver.create_machine(spec, "twin-0", size=driver.choose(spec).size, token="0", user_data=None)
    assert 0 == run("delete-image", "memory:golden", "--yes", "golden").exit_code
    assert "twin-0" in run("list").stdout


def test_a_name_that_others_chose_moves_no_cursor(run: Run, driver: MemoryComputeDriver) -> None:
    driver._images["x"] = Image(id="x", name="a\x1b[2J", own=True)
    answer = run("delete-image", "memory:x", "--yes", "a\x1b[2J")
    assert (0, "a\\x1b[2J: deleted\n") == (answer.exit_code, answer.stdout)


def test_a_provider_without_images_of_machines_says_so(run: Run, driver: MemoryComputeDriver) -> None:
    driver._features = attrs.evolve(FEATURES, snapshots=False)
    for arguments in (("snapshot", "web-0", "golden"), ("delete-image", "memory:golden", "--yes", "golden")):
        refused(run(*arguments), 1, "(memory): this provider has no images of machines\n")


def test_an_interrupted_wait_says_that_it_goes_on(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def pressed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("shiftable.compute.Machine.snapshot", pressed)
    answer = run("snapshot", "web-0", "golden")
    hint = "interrupted; golden: it goes on at the provider; `shiftable compute images --own memory` tells\n"
    assert (130, hint) == (answer.exit_code, answer.stderr)


@pytest.mark.parametrize("cloud", ["aws", "azure", "gcp"])
def test_an_image_is_made_and_deleted_on_every_cloud(
    cloud: str, table: Callable[[str, str], str], folder: Path
) -> None:
    (folder / "shiftable.toml").write_text(FILE.replace('"memory"', '"there"') + KEYS + table("there", cloud))

    def told(*arguments: str) -> str:
        answer = CliRunner().invoke(cli, ["compute", *arguments], catch_exceptions=False)
        assert 0 == answer.exit_code, answer.output
        return answer.stdout

    told("create", "web")
    made = json.loads(told("snapshot", "web-0", "golden", "--json"))
    assert ("there", "golden", True, True) == tuple(made[name] for name in ("provider", "name", "own", "ready"))
    (listed,) = map(json.loads, told("images", "--own", "--json").splitlines())
    assert made["id"] == listed["id"]
    assert "golden: deleted\n" == told("delete-image", "there:golden", "--yes", "golden")
    assert "" == told("images", "--own")

"""Servers behind BMCs: the rules, on sushy-tools' emulator and on a double that is faster and lags as it is told."""

from __future__ import annotations

import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import attrs
import bcrypt
import pytest
import requests
from hypothesis import Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from shiftable.compute import ALIASES, Compute
from shiftable.compute.driver import ComputeDriver
from shiftable.config import Credential
from shiftable.testing.conformance.compute import ComputeConformance, Sleep, compute_machine, small_fleet
from shiftable_baremetal import RedfishImageSettings, RedfishServerSettings, RedfishSettings
from shiftable_baremetal.compute_redfish import RedfishComputeDriver, open_redfish

from .redfish_double import RedfishDouble

IMAGES = tuple(RedfishImageSettings(name=alias, url=f"http://images.example/{alias}.iso") for alias in ALIASES)


def inventory(url: str, systems: list[str], **more: object) -> tuple[RedfishServerSettings, ...]:
    """Declare servers that are alike, and one of another architecture at the end."""
    given = {"cpus": 8, "memory_gib": 32, "disk_gib": 100, "zone": "rack-a", **more}
    last = len(systems) - 1
    return tuple(
        RedfishServerSettings(
            name=f"r{number:02}",
            bmc=url,
            system=system,
            host=f"192.0.2.{number + 1}",
            arch="arm64" if 0 < last == number else "x86_64",
            **given,
        )
        for number, system in enumerate(systems)
    )


def soon(seconds: float) -> None:
    time.sleep(min(seconds, 0.05))


@pytest.fixture
def bmc() -> Iterator[RedfishDouble]:
    with RedfishDouble(26) as double:
        yield double
        assert double.sessions == {}  # each test closes its driver


@pytest.fixture
def make(bmc: RedfishDouble, tmp_path: Path) -> Iterator[Callable[..., RedfishComputeDriver]]:
    """Return what makes a driver for the double's servers, as another process would; all are closed."""
    made: list[RedfishComputeDriver] = []

    def make(count: int = 3, **more: object) -> RedfishComputeDriver:
        servers = inventory(bmc.url, [f"/redfish/v1/Systems/{number}" for number in range(count)])
        given = {"servers": servers, "images": IMAGES, "username": bmc.user, "tls": False}
        told = RedfishSettings(**{**given, "password": Credential.literal(bmc.password), **more})
        made.append(open_redfish(told, tmp_path / "claims", fsync=False))
        return made[-1]

    yield make
    for driver in made:
        driver.close()


class TestRedfishCompute(ComputeConformance):
    many = 7

    @pytest.fixture
    def driver(self, make: Callable[..., RedfishComputeDriver], request: pytest.FixtureRequest) -> ComputeDriver:
        driver = make(26 if request.node.name == "test_fleets_are_listed_once_each" else 9)
        driver._page_size = 3
        return driver

    @pytest.fixture
    def sleep(self) -> Sleep:
        return soon


def test_any_sequence_leaves_what_is_declared(make: Callable[..., RedfishComputeDriver]) -> None:
    few = settings(max_examples=2, stateful_step_count=6, deadline=None, database=None, derandomize=True)
    machine = compute_machine(lambda: make(9), soon)
    run_state_machine_as_test(machine, settings=settings(few, phases=[Phase.generate]))


# sushy-tools' emulator, which nobody here wrote


@attrs.frozen
class Emulator:
    """The emulator in a process of its own, with systems that are off.

    Args:
        images: where an ISO is served that it can fetch.
    """

    url: str
    user: str
    password: str
    images: str
    count: int

    def system(self, number: int) -> str:
        return f"/redfish/v1/Systems/00000000-0000-4000-8000-{number:012}"

    def get(self, path: str) -> dict[str, object]:
        """Ask it without the code under test."""
        answer = requests.get(f"{self.url}{path}", auth=(self.user, self.password), timeout=30)
        answer.raise_for_status()
        found: dict[str, object] = answer.json()
        return found

    def power(self, number: int) -> object:
        return self.get(self.system(number))["PowerState"]

    def media(self, number: int) -> object:
        return self.get(f"{self.system(number)}/VirtualMedia/Cd")["Image"]


class _Iso(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Disposition", "attachment; filename=image.iso")
        self.end_headers()
        self.wfile.write(b"an image")

    def log_message(self, *_: object) -> None:
        """Print nothing."""


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    """Start one for all tests: each leaves its servers off."""
    user, password, count = "admin", secrets.token_hex(8), 26
    folder = tmp_path_factory.mktemp("emulator")
    (folder / "tmp").mkdir(parents=True)
    hashed = bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)).decode()
    (folder / "users").write_text(f"{user}:{hashed}\n")
    isos = ThreadingHTTPServer(("127.0.0.1", 0), _Iso)
    serving = threading.Thread(target=isos.serve_forever, args=(0.01,))
    serving.start()
    program = [sys.executable, str(Path(__file__).with_name("redfish_emulator.py")), str(folder), str(count)]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            program,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env={"TMPDIR": str(folder / "tmp"), "PATH": "/usr/bin:/bin"},
        )
    try:
        assert process.stdin is not None
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, (folder / "log").read_text()
        images = f"http://127.0.0.1:{isos.server_address[1]}"
        yield Emulator(f"http://127.0.0.1:{int(line)}", user, password, images, count)
    finally:
        process.stdin.close()
        process.wait()
        process.stdout.close()
        isos.shutdown()
        serving.join()
        isos.server_close()


@pytest.fixture
def emulated(emulator: Emulator, tmp_path: Path) -> Iterator[RedfishComputeDriver]:
    told = RedfishSettings(
        servers=inventory(emulator.url, [emulator.system(number) for number in range(emulator.count)]),
        images=tuple(RedfishImageSettings(name=name, url=f"{emulator.images}/{name}.iso") for name in ALIASES),
        username=emulator.user,
        password=Credential.literal(emulator.password),
        tls=False,
    )
    driver = open_redfish(told, tmp_path / "claims", fsync=False)
    driver._page_size = 3
    yield driver
    driver.close()


class TestEmulatedRedfishCompute(ComputeConformance):
    many = 7

    @pytest.fixture
    def driver(self, emulated: RedfishComputeDriver) -> ComputeDriver:
        return emulated

    @pytest.fixture
    def sleep(self) -> Sleep:
        return soon


def test_the_emulator_sees_power_and_media_change(emulator: Emulator, emulated: RedfishComputeDriver) -> None:
    compute = Compute(emulated, sleep=soon)
    assert [emulator.power(number) for number in range(3)] == ["Off", "Off", "Off"]
    fleet = compute.create(small_fleet(count=2))
    fleet.wait()
    image = f"{emulator.images}/debian-12.iso"
    assert [(emulator.power(number), emulator.media(number)) for number in range(3)] == [
        ("On", image),
        ("On", image),
        ("Off", ""),
    ]
    assert emulator.get(emulator.system(0))["Boot"]["BootSourceOverrideTarget"] == "Cd"  # type: ignore[index]
    fleet.stop()
    fleet.wait("stopped")
    assert [emulator.power(0), emulator.power(1)] == ["Off", "Off"]
    fleet.machine("conf-1").start()
    fleet.machine("conf-1").wait()
    assert [emulator.power(0), emulator.power(1)] == ["Off", "On"]
    compute.delete("conf")
    assert [(emulator.power(number), emulator.media(number)) for number in range(2)] == [("Off", ""), ("Off", "")]

"""Zone files that this library writes are loaded by BIND, Knot and NSD, and mean there what they say."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from shiftable.dns import Dns, Zone, ZoneSpec
from shiftable.memory.dns import MemoryDnsDriver
from shiftable.testing.conformance.dns import RECORDS, observed
from shiftable_baremetal.dns import ZoneFilesDriver

Check = Callable[[str, Path], str]
"""Loads a file as a zone; returns what is wrong with it, nothing if nothing is."""


@pytest.fixture(params=["bind", "knot", "nsd"])
def check(request: pytest.FixtureRequest, debian: Any) -> Check:
    """Make what a server's own checker says; its rules for what a zone should look like beyond DNS itself are off."""
    commands: dict[str, Callable[[str, Path], tuple[str | Path, ...]]] = {
        "bind": lambda zone, file: ("named-checkzone", "-i", "none", "-k", "ignore", zone, file),
        "knot": lambda zone, file: ("kzonecheck", "-o", zone, "--dnssec", "off", file),
        "nsd": lambda zone, file: (debian.root / "usr/sbin/nsd-checkzone", zone, file),
    }
    command = commands[request.param]

    def run(zone: str, file: Path) -> str:
        done = subprocess.run(command(zone, file), env=debian.environ, capture_output=True, text=True, check=False)
        return f"{done.stdout}{done.stderr}" if done.returncode else ""

    return run


@pytest.fixture(params=["exported", "embedded"])
def zone(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Zone, Callable[[], Path]]:
    """Make a zone, and what returns its file: one that is exported, or the one that the driver of files keeps."""
    if request.param == "exported":
        kept = Dns(MemoryDnsDriver()).create(ZoneSpec(name="conf.test"))
        exported = tmp_path / "conf.test.zone"

        def export() -> Path:
            kept.export_file(exported)
            return exported

        return kept, export
    driver = ZoneFilesDriver(tmp_path / "dns", ("ns1.outside.test.",), fsync=False)
    return Dns(driver).create(ZoneSpec(name="conf.test")), lambda: driver.folder.path("conf.test")


REFUSED = {("bind", "naptr"): "syntax error"}
"""BIND wants a group in an expression that a NAPTR refers to by ``\\1``; nobody else looks."""


@pytest.mark.parametrize(("name", "type", "values"), RECORDS, ids=[f"{name[:20]}-{kind}" for name, kind, _ in RECORDS])
def test_every_record_set_is_loaded(
    zone: tuple[Zone, Callable[[], Path]],
    check: Check,
    request: pytest.FixtureRequest,
    name: str,
    type: str,
    values: tuple[str, ...],
) -> None:
    held, file = zone
    if type == "DS":
        held.set(name, "NS", "ns.example.net.")
    held.set(name, type, values, ttl=600)
    said = check("conf.test", file())
    server = request.node.callspec.params["check"]
    why = REFUSED.get((server, name))
    assert (said == "") if why is None else (why in said), said


def test_all_of_them_together_are_loaded(zone: tuple[Zone, Callable[[], Path]], check: Check) -> None:
    held, file = zone
    for name, kind, values in RECORDS:
        if name != "naptr":
            held.set(name, kind, values)
    held.set("signed", "NS", "ns.example.net.")
    assert check("conf.test", file()) == ""


@pytest.fixture(params=["bind", "knot"])
def server(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(request.param)


@pytest.fixture
def loaded(server: Any) -> Iterator[Callable[[str], Any]]:
    def load(text: str) -> Any:
        server.create("conf.test", text=text)
        return server.held("conf.test")

    yield load
    server.delete("conf.test")


def test_a_server_that_loaded_it_holds_what_was_written(
    zone: tuple[Zone, Callable[[], Path]], loaded: Callable[[str], Any]
) -> None:
    held, file = zone
    for name, kind, values in RECORDS:
        if name not in {"naptr", "values-500", "-x-", "x.*.w"} and not name.startswith(("\\", "with")):
            held.set(name, kind, values)
    held.set("signed", "NS", "ns.example.net.")
    assert loaded(file().read_text()) == observed(list(held.records()))


def test_what_a_server_holds_is_read_from_its_text(zone: tuple[Zone, Callable[[], Path]], server: Any) -> None:
    """The other way round: what dnspython prints of a transfer is imported without a change in meaning."""
    held, _ = zone
    text = "".join(f"{name} 600 IN {kind} {value}\n" for name, kind, values in PLAIN for value in values)
    server.create("conf.test", text=f"{HEAD}{text}")
    try:
        printed = server.transfer("conf.test").to_text(relativize=False)
        held.import_file(printed, replace=True, apex=True)
        assert observed(list(held.records())).keys() == server.held("conf.test").keys()
        assert held.import_file(printed, replace=True, apex=True) == ()
    finally:
        server.delete("conf.test")


HEAD = "$ORIGIN conf.test.\n@ 900 IN SOA ns1 hostmaster 7 7200 900 1209600 300\n@ 900 IN NS ns1.outside.test.\n"
PLAIN = [
    each for each in RECORDS if each[0] in {"multi", "six", "mail", "txt-odd-chunks", "txt-control", "web", "unknown"}
]

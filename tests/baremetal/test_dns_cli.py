"""``shiftable dns`` on zone files, as people use it: looking, changing, comparing, files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

Command = Callable[..., CompletedProcess[str]]

FILE = """
[project]
name = "shop"
[environments.development]
provider = "here"
[providers.here]
type = "baremetal"
root = "data"
[providers.there]
type = "baremetal"
root = "other"
[dns.shop]
zone = "shop.example"
ttl = 60
"""


@pytest.fixture
def dns(folder: Path, shiftable: Command) -> Command:
    """Return ``shiftable dns``, with a zone that has only its SOA and NS."""
    (folder / "shiftable.toml").write_text(FILE)
    assert 0 == shiftable("apply").returncode

    def start(*arguments: str, stdin: str = "") -> CompletedProcess[str]:
        return shiftable("dns", *arguments, stdin=stdin)

    return start


def said(answer: CompletedProcess[str]) -> list[str]:
    """Return the lines of an answer, which must be a good one."""
    assert 0 == answer.returncode, answer.stderr
    return answer.stdout.splitlines()


def test_what_is_set_is_shown_as_in_a_zone_file(dns: Command) -> None:
    lines = ["www.shop.example. 60 IN A 192.0.2.1", "www.shop.example. 60 IN A 192.0.2.2"]
    assert lines == said(dns("set", "shop", "www", "A", "192.0.2.1", "192.0.2.2"))
    assert lines == said(dns("records", "shop", "www"))
    assert ["_x.shop.example. 5 IN SRV 1 2 3 www.shop.example."] == said(
        dns("set", "shop", "_x", "srv", "1 2 3 www", "--ttl", "5")
    )
    assert {"A", "NS", "SOA", "SRV"} == {line.split()[3] for line in said(dns("records", "shop"))}
    assert lines == said(dns("records", "shop", "--type", "a"))
    assert 1 == len(said(dns("records", "shop", "--limit", "1", "--json")))


def test_a_version_guards_a_write(dns: Command) -> None:
    said(dns("set", "shop", "www", "A", "192.0.2.1"))
    (line,) = said(dns("records", "shop", "www", "--json"))
    found = json.loads(line)
    assert ("www.shop.example.", "A", 60, ["192.0.2.1"]) == tuple(
        found[name] for name in ("name", "type", "ttl", "values")
    )
    said(dns("set", "shop", "www", "A", "192.0.2.2", "--if-match", found["token"]))
    answer = dns("set", "shop", "www", "A", "192.0.2.3", "--if-match", found["token"])
    assert (1, "") == (answer.returncode, answer.stdout)
    assert "www.shop.example. A" in answer.stderr
    assert 1 == dns("set", "shop", "www", "A", "192.0.2.3", "--if-absent").returncode
    assert ["www.shop.example. 60 IN A 192.0.2.2"] == said(dns("records", "shop", "www"))


def test_what_dns_forbids_is_one_clear_error(dns: Command) -> None:
    for arguments, why in (
        (("www", "A", "192.0.2.256"), "192.0.2.256"),
        (("elsewhere.example.", "A", "192.0.2.1"), "not in the zone"),
        (("@", "NS", "ns.example.net."), "apex"),
        (("www", "NOSUCH", "x"), "NOSUCH"),
    ):
        answer = dns("set", "shop", *arguments)
        assert (1, 1) == (answer.returncode, answer.stderr.count("error: ")), answer.stderr
        assert why in answer.stderr


def test_a_deletion_is_shown_and_needs_a_yes(dns: Command) -> None:
    said(dns("set", "shop", "www", "A", "192.0.2.1"))
    said(dns("set", "shop", "www", "TXT", '"x"'))
    assert ["-www.shop.example. 60 IN A 192.0.2.1"] == said(dns("rm", "shop", "www", "A", "--dry-run"))
    answer = dns("rm", "shop", "www")
    assert 2 == answer.returncode
    assert "without a terminal, say --yes" in answer.stderr
    assert 2 == len(said(dns("records", "shop", "www")))
    assert ['-www.shop.example. 60 IN TXT "x"'] == said(dns("rm", "shop", "www", "TXT", "--yes"))
    assert 1 == len(said(dns("rm", "shop", "www", "--yes")))
    answer = dns("rm", "shop", "www", "--yes")
    assert 2 == answer.returncode
    assert "no record sets of the name 'www'" in answer.stderr
    assert "no record sets" in dns("rm", "shop", "@", "--yes").stderr, "a zone keeps its own SOA and NS"


def test_a_zone_goes_into_a_file_and_back(dns: Command, folder: Path) -> None:
    said(dns("set", "shop", "www", "A", "192.0.2.1", "192.0.2.2"))
    said(dns("set", "shop", "t", "TXT", '"a\\\\b" "c"'))
    text = dns("export", "shop").stdout
    said(dns("export", "shop", "--out", "shop.zone"))
    assert text == (folder / "shop.zone").read_text()
    assert text.startswith("$ORIGIN shop.example.\n")
    said(dns("rm", "shop", "t", "--yes"))
    said(dns("set", "shop", "www", "A", "192.0.2.2", "192.0.2.3"))
    said(dns("set", "shop", "new", "A", "192.0.2.9"))
    changed = ["-www.shop.example. 60 IN A 192.0.2.3", "+www.shop.example. 60 IN A 192.0.2.1"]
    added = ['+t.shop.example. 60 IN TXT "a\\\\b" "c"']
    gone = ["-new.shop.example. 60 IN A 192.0.2.9"]
    assert sorted(added + changed) == sorted(said(dns("import", "shop", "shop.zone", "--dry-run")))
    assert sorted(added + changed + gone) == sorted(said(dns("diff", "shop", "shop.zone")))
    answer = dns("import", "shop", "shop.zone")
    assert 2 == answer.returncode
    assert "say --yes" in answer.stderr
    said(dns("import", "shop", "-", "--replace", "--yes", stdin=text))
    assert [] == said(dns("diff", "shop", "./shop.zone", "--exit-code"))
    assert text.splitlines()[2:] == dns("export", "shop").stdout.splitlines()[2:], "all but the serial"


def test_an_import_that_only_adds_asks_nobody(dns: Command) -> None:
    said(dns("import", "shop", "-", stdin="www 300 IN A 192.0.2.1\n"))
    assert ["www.shop.example. 300 IN A 192.0.2.1"] == said(dns("records", "shop", "www"))


def test_zones_of_two_providers_are_compared(dns: Command, shiftable: Command) -> None:
    said(dns("set", "shop", "www", "A", "192.0.2.1"))
    assert 0 == shiftable("migrate", "--from", "here", "--to", "there", "dns", "--apply").returncode
    assert [] == said(dns("diff", "shop", "there:shop.example", "--exit-code"))
    said(dns("set", "there:shop.example", "www", "A", "192.0.2.2", "--ttl", "60"))
    answer = dns("diff", "shop", "there:shop.example", "--exit-code")
    lines = ["-www.shop.example. 60 IN A 192.0.2.1", "+www.shop.example. 60 IN A 192.0.2.2"]
    assert (1, lines) == (answer.returncode, answer.stdout.splitlines())
    (line,) = said(dns("diff", "shop", "there:shop.example", "--json"))
    assert ("update", ["192.0.2.2"]) == (json.loads(line)["action"], json.loads(line)["after"]["values"])
    answer = dns("diff", "shop", "there:other.example")
    assert 2 == answer.returncode
    assert "another zone" in answer.stderr


def test_zones_are_listed(dns: Command) -> None:
    assert ["here:shop.example"] == said(dns("zones"))
    (line,) = said(dns("zones", "--json"))
    found = json.loads(line)
    assert ("here", "shop.example") == (found["provider"], found["zone"])
    assert [f"here:shop.example\t{' '.join(found['nameservers'])}"] == said(dns("zones", "-l"))
    assert [] == said(dns("zones", "there"))


def test_a_zone_that_is_not_there_is_one_clear_error(dns: Command) -> None:
    for place, code, why in (
        ("here:missing.example", 1, "missing.example"),
        ("nobody:shop.example", 2, "nobody"),
        ("shoop", 2, "shop"),
        (":x", 2, "PROVIDER:NAME"),
    ):
        answer = dns("records", place)
        assert (code, 1) == (answer.returncode, answer.stderr.count("error: ")), answer.stderr
        assert why in answer.stderr

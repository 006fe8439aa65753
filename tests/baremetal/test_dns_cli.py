"""``shiftable dns`` on zone files, as people use it: looking, changing, comparing, files."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import CompletedProcess

import dns.message
import dns.query
import dns.rcode
import dns.update
import dns.zone
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
def command(folder: Path, shiftable: Command) -> Command:
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


def test_what_is_set_is_shown_as_in_a_zone_file(command: Command) -> None:
    lines = ["www.shop.example. 60 IN A 192.0.2.1", "www.shop.example. 60 IN A 192.0.2.2"]
    assert lines == said(command("set", "shop", "www", "A", "192.0.2.1", "192.0.2.2"))
    assert lines == said(command("records", "shop", "www"))
    assert ["_x.shop.example. 5 IN SRV 1 2 3 www.shop.example."] == said(
        command("set", "shop", "_x", "srv", "1 2 3 www", "--ttl", "5")
    )
    assert {"A", "NS", "SOA", "SRV"} == {line.split()[3] for line in said(command("records", "shop"))}
    assert lines == said(command("records", "shop", "--type", "a"))
    assert 1 == len(said(command("records", "shop", "--limit", "1", "--json")))


def test_a_version_guards_a_write(command: Command) -> None:
    said(command("set", "shop", "www", "A", "192.0.2.1"))
    (line,) = said(command("records", "shop", "www", "--json"))
    found = json.loads(line)
    assert ("www.shop.example.", "A", 60, ["192.0.2.1"]) == tuple(
        found[name] for name in ("name", "type", "ttl", "values")
    )
    said(command("set", "shop", "www", "A", "192.0.2.2", "--if-match", found["token"]))
    answer = command("set", "shop", "www", "A", "192.0.2.3", "--if-match", found["token"])
    assert (1, "") == (answer.returncode, answer.stdout)
    assert "www.shop.example. A" in answer.stderr
    assert 1 == command("set", "shop", "www", "A", "192.0.2.3", "--if-absent").returncode
    assert ["www.shop.example. 60 IN A 192.0.2.2"] == said(command("records", "shop", "www"))


def test_what_dns_forbids_is_one_clear_error(command: Command) -> None:
    for arguments, why in (
        (("www", "A", "192.0.2.256"), "192.0.2.256"),
        (("elsewhere.example.", "A", "192.0.2.1"), "not in the zone"),
        (("@", "NS", "ns.example.net."), "apex"),
        (("www", "NOSUCH", "x"), "NOSUCH"),
    ):
        answer = command("set", "shop", *arguments)
        assert (1, 1) == (answer.returncode, answer.stderr.count("error: ")), answer.stderr
        assert why in answer.stderr


def test_a_deletion_is_shown_and_needs_a_yes(command: Command) -> None:
    said(command("set", "shop", "www", "A", "192.0.2.1"))
    said(command("set", "shop", "www", "TXT", '"x"'))
    assert ["-www.shop.example. 60 IN A 192.0.2.1"] == said(command("rm", "shop", "www", "A", "--dry-run"))
    answer = command("rm", "shop", "www")
    assert 2 == answer.returncode
    assert "without a terminal, say --yes" in answer.stderr
    assert 2 == len(said(command("records", "shop", "www")))
    assert ['-www.shop.example. 60 IN TXT "x"'] == said(command("rm", "shop", "www", "TXT", "--yes"))
    assert 1 == len(said(command("rm", "shop", "www", "--yes")))
    answer = command("rm", "shop", "www", "--yes")
    assert 1 == answer.returncode
    assert "no record sets of the name 'www'" in answer.stderr
    assert "no record sets" in command("rm", "shop", "@", "--yes").stderr, "a zone keeps its own SOA and NS"


def test_a_zone_goes_into_a_file_and_back(command: Command, folder: Path) -> None:
    said(command("set", "shop", "www", "A", "192.0.2.1", "192.0.2.2"))
    said(command("set", "shop", "t", "TXT", '"a\\\\b" "c"'))
    text = command("export", "shop").stdout
    said(command("export", "shop", "--out", "shop.zone"))
    assert text == (folder / "shop.zone").read_text()
    assert text.startswith("$ORIGIN shop.example.\n")
    said(command("rm", "shop", "t", "--yes"))
    said(command("set", "shop", "www", "A", "192.0.2.2", "192.0.2.3"))
    said(command("set", "shop", "new", "A", "192.0.2.9"))
    changed = ["-www.shop.example. 60 IN A 192.0.2.3", "+www.shop.example. 60 IN A 192.0.2.1"]
    added = ['+t.shop.example. 60 IN TXT "a\\\\b" "c"']
    gone = ["-new.shop.example. 60 IN A 192.0.2.9"]
    assert sorted(added + changed) == sorted(said(command("import", "shop", "shop.zone", "--dry-run")))
    assert sorted(added + changed + gone) == sorted(said(command("diff", "shop", "shop.zone")))
    answer = command("import", "shop", "shop.zone")
    assert 2 == answer.returncode
    assert "say --yes" in answer.stderr
    said(command("import", "shop", "-", "--replace", "--yes", stdin=text))
    assert [] == said(command("diff", "shop", "./shop.zone", "--exit-code"))
    assert text.splitlines()[2:] == command("export", "shop").stdout.splitlines()[2:], "all but the serial"


def test_an_import_that_only_adds_asks_nobody(command: Command) -> None:
    said(command("import", "shop", "-", stdin="www 300 IN A 192.0.2.1\n"))
    assert ["www.shop.example. 300 IN A 192.0.2.1"] == said(command("records", "shop", "www"))


def test_a_file_that_was_cut_off_does_not_empty_a_zone_that_nobody_looks_at(command: Command) -> None:
    hosts = "".join(f"host{number} 300 IN A 192.0.2.{number}\n" for number in range(8))
    said(command("import", "shop", "-", stdin=hosts))  # with its SOA and NS the zone has ten record sets
    cut = "".join(hosts.splitlines(keepends=True)[:4])
    refused = command("import", "shop", "-", "--replace", "--yes", stdin=cut)
    assert 2 == refused.returncode
    assert refused.stderr.startswith("error: 4 of the 10 record sets of shop.example. on here would be replaced"), (
        refused
    )
    assert refused.stderr.endswith("at most 30%; look at the file (--dry-run), or raise that limit (--change-limit)\n")
    assert 8 == command("records", "shop").stdout.count(" A ")
    assert 4 == len(said(command("import", "shop", "-", "--replace", "--yes", "--dry-run", stdin=cut)))
    changed = cut.replace("300", "60")
    assert (
        "at most 3 record sets" in command("import", "shop", "-", "--yes", "--change-limit", "3", stdin=changed).stderr
    )
    said(command("import", "shop", "-", "--yes", "--change-limit", "4", stdin=changed))
    said(command("import", "shop", "-", "--yes", "--replace", "--change-limit", "40%", stdin=changed))
    assert 4 == command("records", "shop").stdout.count(" A ")
    said(command("import", "shop", "-", "--yes", "--replace", stdin="host0 300 IN A 192.0.2.9\n"))  # it is small by now


@pytest.mark.parametrize("verb", ["import", "diff"])
def test_a_file_that_cannot_be_read_is_one_error_with_its_name_and_line(
    command: Command, folder: Path, verb: str
) -> None:
    said(command("set", "shop", "www", "A", "192.0.2.1"))
    options = ("--replace", "--yes") if verb == "import" else ()
    for raw, why in ((b"a 9 TXT x\nb 9 TXT \xff\n", "line 2 is not UTF-8"), (b"", "it has no record")):
        (folder / "shop.zone").write_bytes(raw)
        answer = command(verb, "shop", "shop.zone", *options)
        assert (1, 1) == (answer.returncode, answer.stderr.count("\n")), answer.stderr
        assert "shop.zone: " in answer.stderr
        assert why in answer.stderr
    assert ["www.shop.example. 60 IN A 192.0.2.1"] == said(command("records", "shop", "www"))


def test_what_is_neither_a_file_nor_a_zone_is_told_as_that(command: Command) -> None:
    answer = command("diff", "shop", "shop.zonee")
    assert (2, "") == (answer.returncode, answer.stdout)
    assert "'shop.zonee' is neither a file nor a zone" in answer.stderr


def test_a_file_that_an_editor_began_with_a_mark_is_imported(command: Command) -> None:
    said(command("import", "shop", "-", stdin="\ufeffwww 300 IN A 192.0.2.1\r\n"))
    assert [] == said(command("diff", "shop", "-", stdin="\ufeffwww 300 IN A 192.0.2.1\r\n"))


def test_zones_of_two_providers_are_compared(command: Command, shiftable: Command) -> None:
    said(command("set", "shop", "www", "A", "192.0.2.1"))
    assert 0 == shiftable("migrate", "--from", "here", "--to", "there", "dns", "--apply").returncode
    assert [] == said(command("diff", "shop", "there:shop.example", "--exit-code"))
    said(command("set", "there:shop.example", "www", "A", "192.0.2.2", "--ttl", "60"))
    answer = command("diff", "shop", "there:shop.example", "--exit-code")
    lines = ["-www.shop.example. 60 IN A 192.0.2.1", "+www.shop.example. 60 IN A 192.0.2.2"]
    assert (1, lines) == (answer.returncode, answer.stdout.splitlines())
    (line,) = said(command("diff", "shop", "there:shop.example", "--json"))
    assert ("update", ["192.0.2.2"]) == (json.loads(line)["action"], json.loads(line)["after"]["values"])
    answer = command("diff", "shop", "there:other.example")
    assert 2 == answer.returncode
    assert "another zone" in answer.stderr


def test_zones_are_listed(command: Command) -> None:
    assert ["here:shop.example"] == said(command("zones"))
    (line,) = said(command("zones", "--json"))
    found = json.loads(line)
    assert ("here", "shop.example") == (found["provider"], found["zone"])
    assert [f"here:shop.example\t{' '.join(found['nameservers'])}"] == said(command("zones", "-l"))
    assert [] == said(command("zones", "there"))


def test_a_zone_that_is_not_there_is_one_clear_error(command: Command) -> None:
    for place, code, why in (
        ("here:missing.example", 1, "missing.example"),
        ("nobody:shop.example", 2, "nobody"),
        ("shoop", 2, "shop"),
        (":x", 2, "PROVIDER:NAME"),
    ):
        answer = command("records", place)
        assert (code, 1) == (answer.returncode, answer.stderr.count("error: ")), answer.stderr
        assert why in answer.stderr


# the server


@contextlib.contextmanager
def serving(folder: Path, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Start the command, and give it and the port that it tells."""
    command = [str(Path(sys.executable).parent / "shiftable"), "dns", "serve", "--port", "0", *arguments]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        found = re.search(r"127\.0\.0\.1.*\b(\d+)\b", process.stdout.readline())
        assert found is not None, process.communicate()[1]
        yield process, int(found[1])
    finally:
        process.kill()
        process.communicate()


def addresses(port: int, name: str, *, tcp: bool = False) -> set[str]:
    """Ask for the addresses of a name."""
    ask = dns.query.tcp if tcp else dns.query.udp
    answer = ask(dns.message.make_query(name, "A"), "127.0.0.1", port=port, timeout=30)
    return {data.to_text() for found in answer.answer for data in found}


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "sigterm"])
def test_zones_are_answered_until_the_end(command: Command, folder: Path, end: signal.Signals) -> None:
    said(command("set", "shop", "www", "A", "192.0.2.1"))
    with serving(folder) as (process, port):
        assert {"192.0.2.1"} == addresses(port, "www.shop.example")
        said(command("set", "shop", "www", "A", "192.0.2.2"))
        assert {"192.0.2.2"} == addresses(port, "www.shop.example", tcp=True)
        process.send_signal(end)
        assert ("", "") == process.communicate(timeout=60)
        assert 0 == process.returncode


def test_a_served_zone_is_transferred_and_changed_where_that_was_asked_for(command: Command, folder: Path) -> None:
    update = dns.update.UpdateMessage("shop.example")
    update.add("new", 60, "A", "192.0.2.9")
    with serving(folder, "here", "--json") as (_, port):
        refused = dns.query.tcp(update, "127.0.0.1", port=port, timeout=30)
        assert dns.rcode.REFUSED == refused.rcode()
    with serving(folder, "here", "--json", "--update") as (_, port):
        assert dns.rcode.NOERROR == dns.query.tcp(update, "127.0.0.1", port=port, timeout=30).rcode()
        zone = dns.zone.Zone("shop.example")
        dns.query.inbound_xfr("127.0.0.1", zone, port=port, timeout=30)
        assert ["192.0.2.9"] == [data.to_text() for data in zone.find_rdataset("new", "A")]
    assert ["new.shop.example. 60 IN A 192.0.2.9"] == said(command("records", "shop", "new"))


def test_what_cannot_be_served_is_said(command: Command, folder: Path) -> None:
    with serving(folder) as (_, port):
        answer = command("serve", "--port", str(port))
    assert (1, "") == (answer.returncode, answer.stdout)
    assert f"dns.serve on port '{port}' (here): Address already in use" in answer.stderr
    assert "Traceback" not in answer.stderr
    for arguments, why in ((("nowhere",), "nowhere"), (("memory",), "memory"), (("--port", "70000"), "70000")):
        answer = command("serve", *arguments)
        assert 0 != answer.returncode
        assert why in answer.stderr

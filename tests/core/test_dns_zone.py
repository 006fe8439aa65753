"""What the portable zone adds: reading back, compare-and-swap, splitting, files."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import attrs
import pytest

from shiftable.dns import Dns, Policy, RecordChange, RecordSet, Zone, ZoneSpec
from shiftable.dns._text import EXAMPLES
from shiftable.dns.driver import DnsDriver
from shiftable.errors import ConfigError, Conflict, IntegrityError, InvalidArgument, PreconditionFailed, Unsupported
from shiftable.features import Limit
from shiftable.memory.dns import FEATURES, MemoryDnsDriver


@attrs.define
class Watched(MemoryDnsDriver):
    """Notes its calls; ``meddle`` runs before each change, as another writer would."""

    calls: list[str] = attrs.field(factory=list, init=False)
    meddle: Callable[[], None] = attrs.field(default=lambda: None, init=False)

    def records(self, zone, *, name, cursor, limit):  # type: ignore[no-untyped-def]
        self.calls.append("records")
        return MemoryDnsDriver.records(self, zone, name=name, cursor=cursor, limit=limit)

    def change(self, zone: str, changes: tuple[RecordChange, ...]) -> None:
        self.calls.append(f"change {len(changes)}")
        self.meddle()
        MemoryDnsDriver.change(self, zone, changes)


class Deaf(MemoryDnsDriver):
    """Answers success and ignores what a name server would ignore."""

    def change(self, zone: str, changes: tuple[RecordChange, ...]) -> None:
        kept = tuple(change for change in changes if change.key.type != "TXT")
        super().change(zone, kept)


LONG = 256 * "a"
SEVERAL = 'several, "v=DKIM1; p=MIIB" "IjAN"; it is written as "v=spf1 -all"'


def _zone(driver: DnsDriver) -> Zone:
    return Dns(driver).create(ZoneSpec(name="shop.example"))


def test_success_is_not_believed() -> None:
    zone = _zone(Deaf())
    with pytest.raises(IntegrityError, match=r"create t\.shop\.example\. TXT"):
        zone.set("t", "TXT", '"x"')
    with pytest.raises(IntegrityError, match="TXT") as caught:
        zone.change(
            RecordChange(before=None, after=zone.record("t", kind, text)) for kind, text in [("TXT", '"secret"')]
        )
    assert "secret" not in str(caught.value)


def test_what_others_wrote_at_the_same_moment_is_a_conflict() -> None:
    class Overtaken(MemoryDnsDriver):
        def change(self, zone: str, changes: tuple[RecordChange, ...]) -> None:
            super().change(zone, changes)
            theirs = _zone(MemoryDnsDriver()).record("t", "TXT", '"theirs"')
            super().change(zone, tuple(attrs.evolve(change, before=change.after, after=theirs) for change in changes))

    zone = _zone(Overtaken())
    with pytest.raises(Conflict, match=r"at the same moment.*: t\.shop\.example\. TXT") as caught:
        zone.set("t", "TXT", '"secret"')
    assert "secret" not in str(caught.value)
    assert zone.get("t", "TXT").texts == ('"theirs"',)


def test_a_set_that_changes_nothing_sends_nothing() -> None:
    driver = Watched()
    zone = _zone(driver)
    zone.set("www", "MX", ["10 Mail", "20 other"])
    driver.calls.clear()
    zone.set("WWW", "mx", ["20 OTHER", "10 mail"])
    assert driver.calls == ["records"]


def test_a_write_reads_before_and_after() -> None:
    driver = Watched()
    _zone(driver).set("www", "A", "192.0.2.1")
    assert driver.calls == ["records", "change 1", "records"]


def test_a_set_without_a_condition_goes_on_when_another_was_faster() -> None:
    driver = Watched()
    zone, turns = _zone(driver), iter(range(2))

    def meddle() -> None:
        if (turn := next(turns, None)) is not None:
            held = driver._zones[zone.name]
            other = zone.record("www", "A", f"192.0.2.{100 + turn}")
            held[other.key] = other

    driver.meddle = meddle
    zone.set("www", "A", "192.0.2.1")
    assert zone.get("www", "A").texts == ("192.0.2.1",)
    assert driver.calls.count("change 1") == 3


def test_a_set_gives_up_when_others_always_are_faster() -> None:
    driver = Watched()
    zone, turns = _zone(driver), iter(range(100))

    def meddle() -> None:
        other = zone.record("www", "A", f"192.0.2.{100 + next(turns)}")
        driver._zones[zone.name][other.key] = other

    driver.meddle = meddle
    with pytest.raises(Conflict, match="meanwhile"):
        zone.set("www", "A", "192.0.2.1")
    with pytest.raises(PreconditionFailed):
        zone.set("www", "A", "192.0.2.1", if_match=zone.get("www", "A").token)


def test_a_large_batch_is_split_and_keeps_names_together() -> None:
    driver = Watched(attrs.evolve(FEATURES, max_batch=Limit(10, "chosen")))
    zone = _zone(driver)
    names = [f"n{number:02}" for number in range(12)]
    records = [
        zone.record(name, kind, text)
        for name in names
        for kind, text in [("A", "192.0.2.1"), ("AAAA", "::1"), ("TXT", "x")]
    ]
    zone.change(RecordChange(before=None, after=record) for record in records)
    assert [call for call in driver.calls if call.startswith("change")] == ["change 9"] * 4
    assert len(list(zone.records())) == 36 + 2


def test_an_atomic_change_that_does_not_fit_is_refused_before_it_is_sent() -> None:
    driver = Watched(attrs.evolve(FEATURES, max_batch=Limit(2, "chosen")))
    zone = _zone(driver)
    changes = [RecordChange(before=None, after=zone.record(f"n{number}", "A", "192.0.2.1")) for number in range(3)]
    with pytest.raises(Unsupported, match="3 record sets at once"):
        zone.change(changes, atomic=True)
    zone.change(changes[:2], atomic=True)
    assert len(list(zone.records(type="A"))) == 2


def test_a_policy_of_the_provider_is_kept_and_tells_sets_apart() -> None:
    zone = _zone(MemoryDnsDriver())
    plain = zone.record("www", "A", "192.0.2.1")
    routed = [
        attrs.evolve(plain, policy=Policy(provider="memory", data=f'{{"Weight": {weight}}}', set_id=f"w{weight}"))
        for weight in (1, 2)
    ]
    alias = RecordSet(name=zone.origin, type="A", ttl=300, rdatas=(), policy=Policy(provider="memory", data="elb"))
    zone.change(RecordChange(before=None, after=record) for record in (*routed, alias))
    assert zone.get("www", "A", set_id="w2") == routed[1]
    assert zone.get("@", "A") == alias
    with pytest.raises(InvalidArgument, match="with and without a set id"):
        zone.set("www", "A", "192.0.2.9")
    with pytest.raises(Unsupported, match=r"routing of shop\.example\. A, www\.shop\.example\. A 'w1'.* \(--omit"):
        zone.export_file()
    assert [line.split()[3] for line in zone.export_file(omit_policies=True).splitlines()[1:]] == ["SOA", "NS", "NS"]


def test_one_record_set_is_not_changed_twice_in_a_batch() -> None:
    zone = _zone(MemoryDnsDriver())
    both = [RecordChange(before=None, after=zone.record("www", "A", f"192.0.2.{n}")) for n in (1, 2)]
    with pytest.raises(InvalidArgument, match="twice in one batch"):
        zone.change(both)


def test_the_soa_is_changed_but_its_serial_stays_the_servers() -> None:
    zone = _zone(MemoryDnsDriver())
    soa = "ns.example.net. admin.example.net. 2024010101 3600 600 86400 60"
    zone.set("@", "SOA", soa, apex=True)
    zone.set("www", "A", "192.0.2.1")
    assert zone.get("@", "SOA") == zone.record("@", "SOA", soa.replace("2024010101", "1"), ttl=900)
    assert zone.get("@", "SOA") != zone.record("@", "SOA", soa.replace("3600", "3601"), ttl=900)


def test_a_zone_file_is_written_at_once(tmp_path: Path) -> None:
    zone = _zone(MemoryDnsDriver())
    zone.set("www", "A", "192.0.2.1")
    path = tmp_path / "shop.zone"
    path.write_text("old")
    text = zone.export_file(path)
    assert path.read_text() == text
    assert list(tmp_path.iterdir()) == [path]
    other = Dns(MemoryDnsDriver()).create(ZoneSpec(name="shop.example"))
    assert [str(change) for change in other.import_file(path)] == ["create www.shop.example. A"]
    assert other.diff(zone) == ()


SPACES = "without quotes these are several texts, and the spaces between them are lost"
COMMENT = "what follows a semicolon outside quotes is a comment"


@pytest.mark.parametrize(
    ("type", "value", "told"),
    [
        ("A", "1.2.3", "A '1.2.3': it cannot be read; it is written as 192.0.2.1"),
        ("MX", "mail", "MX 'mail': expecting an integer; it is written as 10 mail.shop.example."),
        ("NSEC3PARAM", "1", "NSEC3PARAM '1': expecting an identifier"),
        ("TXT", "v=spf1 -all", f"TXT 'v=spf1 -all': {SPACES}; write it as \"v=spf1 -all\", with the quotes"),
        ("spf", "v=spf1  -all", f"spf 'v=spf1  -all': {SPACES}; write it as \"v=spf1  -all\", with the quotes"),
        (
            "TXT",
            "v=DMARC1;p=none",
            f"TXT 'v=DMARC1;p=none': {COMMENT}; write it as \"v=DMARC1;p=none\", with the quotes",
        ),
        ("TXT", '"a" ;b', f"TXT '\"a\" ;b': {COMMENT}"),
        ("A", "192.0.2.1 ; mine", f"A '192.0.2.1 ; mine': {COMMENT}"),
        ("TXT", LONG, f"TXT '{LONG}': a string has at most 255 bytes; write a longer text as {SEVERAL}"),
    ],
)
def test_a_value_that_is_none_is_refused_with_one_that_would_be(type: str, value: str, told: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        _zone(MemoryDnsDriver()).set("www", type, value)
    assert caught.value.message == told


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        ("word", '"word"'),
        ('"v=DMARC1; p=none"', '"v=DMARC1; p=none"'),
        ('"one" "two"', '"one" "two"'),
        ('"one" two', '"one" "two"'),
        (r"one\ text", '"one text"'),
        (r"one\;text", '"one;text"'),
        (r'"a \" ; b"', r'"a \" ; b"'),
    ],
)
def test_a_text_that_is_as_it_looks_is_kept(value: str, kept: str) -> None:
    zone = _zone(MemoryDnsDriver())
    assert (kept,) == zone.set("www", "TXT", [value]).texts


def test_a_zone_that_is_not_empty_says_how_much_is_left() -> None:
    dns = Dns(MemoryDnsDriver())
    dns.create(ZoneSpec(name="shop.example")).set("www", "A", "192.0.2.1")
    with pytest.raises(Conflict, match="it still has 1 record set; delete them first"):
        dns.delete("shop.example")


@pytest.mark.parametrize("type", sorted(EXAMPLES))
def test_the_values_that_errors_show_are_taken(type: str) -> None:
    zone, owner = _zone(MemoryDnsDriver()), "_25._tcp.www"
    value = EXAMPLES[type].replace("and 64 hexadecimal digits", "ab" * 32)
    zone.set(owner, type, value)
    assert zone.get(owner, type) == zone.record(owner, type, value)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("x 9 A 192.0.2.1\ny 9 A nonsense\n", "line 2: it cannot be read"),
        ("x 9 A 192.0.2.1\ny 9 A nonsense", "line 2: it cannot be read"),
        ("x 9 A nonsense\n\n\n", "line 1: it cannot be read"),
        ("; head\r\nx 9 A 192.0.2.1\r\ny 9 FOO x\r\n", "line 3: unknown rdatatype 'FOO'"),
        (f"{'a.' * 130} 9 A 192.0.2.1\n", "line 1: A DNS name is > 255 octets long"),
        ("x 9 A 192.0.2.1\nbücher 9 A 192.0.2.1\n", r"line 2: 'bücher' is not ASCII; write it in punycode \(xn--"),
        ("x 9 CNAME straße.example.\n", "line 1: 'straße' is not ASCII"),
        ("$INCLUDE /etc/passwd\n", r"line 1: put the lines of that file in the place of \$INCLUDE"),
        (b"\xef\xbb\xbfx 9 A 192.0.2.1\ny 9 A nonsense\n", "line 2: it cannot be read"),
        ("", "it has no record"),
        ("; all of it\n$ORIGIN shop.example.\n", "it has no record"),
        (b"x 9 A 192.0.2.1\ny 9 TXT gr\xfc\xdfe\n", r"line 2 is not UTF-8; write such bytes as \\DDD"),
    ],
)
@pytest.mark.parametrize("given", ["a file", "its text"])
def test_a_file_that_is_no_zone_file_is_refused_with_its_line(
    tmp_path: Path, text: str | bytes, why: str, given: str
) -> None:
    zone, file = _zone(MemoryDnsDriver()), tmp_path / "shop.zone"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InvalidArgument, match=why) as caught:
        zone.import_file(file if given == "a file" else text)
    assert (str(file) in caught.value.message) == (given == "a file")


def test_a_zone_is_exported_behind_a_link_and_into_a_pipe(tmp_path: Path) -> None:
    zone = _zone(MemoryDnsDriver())
    kept, link = tmp_path / "kept.zone", tmp_path / "link.zone"
    kept.write_text("old")
    link.symlink_to(kept)
    text = zone.export_file(link)
    assert link.is_symlink()
    assert kept.read_text() == text

    reader, writer = os.pipe()
    try:
        zone.export_file(Path(f"/dev/fd/{writer}"))
        assert os.read(reader, 65_536).decode() == text
    finally:
        os.close(reader)
        os.close(writer)


def test_a_zone_file_is_read_as_editors_leave_it(tmp_path: Path) -> None:
    zone = _zone(MemoryDnsDriver())
    wanted = (zone.record("www", "TXT", '"grüße"', ttl=9),)
    for text in (
        "www 9 TXT grüße\n",
        "\ufeffwww 9 TXT grüße",
        "www 9 TXT grüße\r\n",
        "\ufeff; x\r\nwww 9 TXT grüße\r\n",
    ):
        (tmp_path / "shop.zone").write_bytes(text.encode())
        assert wanted == zone.parse(text) == zone.parse(text.encode()) == zone.parse(tmp_path / "shop.zone")


@pytest.mark.parametrize("head", ["", "; as people write them\n"], ids=["a-record-a-line", "by-hand"])
def test_nothing_in_a_zone_file_is_dropped(head: str) -> None:
    zone = _zone(MemoryDnsDriver())
    with pytest.raises(InvalidArgument, match=r"www\.elsewhere\.example\. is not in the zone"):
        zone.import_file(f"{head}www.elsewhere.example. 300 IN A 192.0.2.1\n")
    with pytest.raises(InvalidArgument, match="there can be only one CNAME"):
        zone.import_file(f"{head}two.shop.example. 300 IN CNAME a.\ntwo.shop.example. 300 IN CNAME b.\n")
    with pytest.raises(InvalidArgument, match="CNAME cannot stand beside"):
        zone.import_file(f"{head}two.shop.example. 300 IN CNAME a.\ntwo.shop.example. 300 IN A 192.0.2.1\n")
    assert {record.type for record in zone.records()} == {"NS", "SOA"}


@pytest.mark.parametrize("head", ["", "; as people write them\n"], ids=["a-record-a-line", "by-hand"])
def test_values_that_stand_twice_are_one_and_the_shortest_ttl_counts(head: str) -> None:
    zone = _zone(MemoryDnsDriver())
    lines = ["300 IN MX 10 a.", "200 IN MX 10 A.", "400 IN MX 20 a."]
    zone.import_file(head + "".join(f"x.shop.example. {line}\n" for line in lines))
    assert zone.get("x", "MX") == zone.record("x", "MX", ["10 a.", "20 a."], ttl=200)


def test_diff_goes_both_ways() -> None:
    one, other = _zone(MemoryDnsDriver()), _zone(MemoryDnsDriver())
    one.set("a", "A", "192.0.2.1")
    one.set("b", "A", "192.0.2.1")
    other.set("b", "A", "192.0.2.2")
    other.set("c", "A", "192.0.2.3")
    changes = one.diff(other)
    assert [str(change) for change in changes] == [
        "delete a.shop.example. A",
        "update b.shop.example. A",
        "create c.shop.example. A",
    ]
    one.change(changes)
    assert one.diff(other) == ()


def test_a_stale_diff_is_refused() -> None:
    one, other = _zone(MemoryDnsDriver()), _zone(MemoryDnsDriver())
    other.set("b", "A", "192.0.2.2")
    changes = one.diff(other)
    one.set("b", "A", "192.0.2.3")
    with pytest.raises(PreconditionFailed, match="compare again"):
        one.change(changes)


def test_zones_that_are_made_elsewhere_are_not_created_here() -> None:
    driver = MemoryDnsDriver(attrs.evolve(FEATURES, zones=False))
    driver.create(ZoneSpec(name="shop.example"))
    service = Dns(driver)
    with pytest.raises(Unsupported, match="no way to create a zone"):
        service.create(ZoneSpec(name="other.example"))
    with pytest.raises(Unsupported, match="no way to delete a zone"):
        service.delete("shop.example")
    assert service.get("shop.example").set("www", "A", "192.0.2.1").ttl == 300


def test_a_type_may_be_given_by_its_number() -> None:
    zone = _zone(MemoryDnsDriver())
    zone.set("www", "TYPE1", "192.0.2.1")
    assert zone.get("www", "A") == zone.get("www", "type1")
    assert len(list(zone.records(type="TYPE1"))) == 1


def test_a_ttl_that_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="ttl must be 0 to"):
        ZoneSpec(name="shop.example", ttl=-1)


def test_dnspython_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    zone = _zone(MemoryDnsDriver())
    monkeypatch.setitem(sys.modules, "dns", None)
    record = RecordSet(name="www.shop.example.", type="A", ttl=60, rdatas=(b"\xc0\0\2\1",))
    zone.change([RecordChange(before=None, after=record)])
    assert zone.get("www", "A") == record
    assert zone.set("a", "A", "192.0.2.1").texts == ("192.0.2.1",)  # the usual ones do without
    located = RecordSet(name="www.shop.example.", type="LOC", ttl=60, rdatas=(bytes(16),))
    for call in (lambda: zone.set("a", "LOC", "52 N 4 E 0m"), lambda: located.texts):
        with pytest.raises(ConfigError, match=r"pip install 'shiftable\[dns\]'"):
            call()


def test_importing_the_service_does_not_import_dnspython() -> None:
    code = "import shiftable.dns, shiftable.memory.dns, sys; print('dns' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"

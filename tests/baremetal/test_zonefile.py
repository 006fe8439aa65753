"""The driver of zone files: the rules for all drivers, and what files alone can suffer."""

from __future__ import annotations

import errno
import fcntl
import itertools
import os
import random
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dns.name
import dns.rdata
import dns.rdatatype
import dns.zone
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import shiftable
from shiftable.dns import Dns, RecordChange, RecordSet, Zone, ZoneSpec
from shiftable.errors import (
    AlreadyExists,
    ConfigError,
    Conflict,
    IntegrityError,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    PreconditionFailed,
    QuotaExceeded,
)
from shiftable.testing.conformance.dns import DnsConformance, Observed, dns_machine
from shiftable_baremetal import BaremetalSettings
from shiftable_baremetal._zonefile import ZoneContent, file_name, zone_of
from shiftable_baremetal.dns import FEATURES, ZoneFilesDriver


def look(root: Path, zone: str) -> Observed:
    """Read a zone file with dnspython: nothing of the code under test."""
    text = (root / f"{zone.replace('/', '%2F')}.zone").read_text()
    loaded = dns.zone.from_text(text, origin=f"{zone}.", relativize=False)
    return {
        (str(name).lower(), dns.rdatatype.to_text(rdataset.rdtype)): (rdataset.ttl, frozenset(rdataset))
        for name, rdataset in loaded.iterate_rdatasets()
    }


def serial(root: Path, zone: str = "shop.example") -> int:
    """Return the serial in a file, by dnspython."""
    ((soa,),) = (values for (_, kind), (_, values) in look(root, zone).items() if kind == "SOA")
    return int(soa.serial)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "dns"


@pytest.fixture
def service(root: Path) -> Dns:
    return Dns(ZoneFilesDriver(root, fsync=False))


@pytest.fixture
def shop(service: Dns) -> Zone:
    return service.create(ZoneSpec(name="shop.example"))


@pytest.fixture
def file(shop: Zone, root: Path) -> Path:
    return root / f"{shop.name}.zone"


class TestZoneFilesConformance(DnsConformance):
    @pytest.fixture
    def driver(self, root: Path) -> ZoneFilesDriver:
        return ZoneFilesDriver(root, fsync=False)

    @pytest.fixture
    def oracle(self, root: Path) -> Callable[[str], Observed]:
        return lambda zone: look(root, zone)


class TestClasslessZoneConformance(TestZoneFilesConformance):
    """A zone with a name that no file name can hold."""

    zone_name = "0/9.test"


FOLDER = tempfile.TemporaryDirectory(prefix="zones-")  # of all machines' zones; goes with the process


def _machine() -> ZoneFilesDriver:
    return ZoneFilesDriver(Path(tempfile.mkdtemp(dir=FOLDER.name)), fsync=False)


TestMachine = dns_machine(_machine).TestCase
TestMachine.settings = settings(max_examples=25, stateful_step_count=20, deadline=None)


# what the files look like


def test_a_zone_is_a_file_with_a_record_a_line_sorted(shop: Zone, file: Path) -> None:
    shop.set("www", "A", ["192.0.2.2", "192.0.2.1"], ttl=60)
    shop.set("a.b", "TXT", '"x"')
    shop.set("b", "AAAA", "2001:db8::1")
    shop.set("@", "MX", "10 mail")
    assert file.read_text() == (
        "shop.example. 900 IN SOA localhost. hostmaster.shop.example. 5 7200 900 1209600 300\n"
        "shop.example. 300 IN MX 10 mail.shop.example.\n"
        "shop.example. 172800 IN NS localhost.\n"
        "b.shop.example. 300 IN AAAA 2001:db8::1\n"
        'a.b.shop.example. 300 IN TXT "x"\n'
        "www.shop.example. 60 IN A 192.0.2.1\n"
        "www.shop.example. 60 IN A 192.0.2.2\n"
    )


def test_a_change_changes_its_lines_and_the_serial(shop: Zone, file: Path) -> None:
    for number in range(20):
        shop.set(f"n{number}", "A", f"192.0.2.{number}")
    before = file.read_text().splitlines()
    shop.set("n7", "A", "192.0.2.77")
    differing = [(old, new) for old, new in zip(before, file.read_text().splitlines(), strict=True) if old != new]
    assert [(old.split()[0], new.split()[-1]) for old, new in differing] == [
        ("shop.example.", "300"),
        ("n7.shop.example.", "192.0.2.77"),
    ]


def test_the_settings_name_the_servers_of_new_zones(tmp_path: Path) -> None:
    with shiftable.connect(
        "baremetal", root=tmp_path / "data", nameservers=("ns1.example.net.", "ns2.example.net.")
    ) as c:
        zone = c.dns.create(ZoneSpec(name="shop.example"))
        assert zone.info().nameservers == ("ns1.example.net.", "ns2.example.net.")
    assert (tmp_path / "data/dns/shop.example.zone").is_file()


@pytest.mark.parametrize("names", [(), ("ns1",), ("ns1.example.net",), ("a..b.",), ("",)], ids=repr)
def test_a_name_server_in_the_settings_ends_with_a_dot(names: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="dot at the end"):
        BaremetalSettings(nameservers=names)


def test_settings_that_are_wrong_are_told_by_place(tmp_path: Path) -> None:
    with pytest.raises((ConfigError, ValueError), match="nameservers"):
        shiftable.connect("baremetal", root=tmp_path, nameservers=("ns1",))


@pytest.mark.parametrize(
    ("zone", "name"),
    [
        ("shop.example", "shop.example.zone"),
        ("0/25.2.0.192.in-addr.arpa", "0%2F25.2.0.192.in-addr.arpa.zone"),
        (r"a\.b.example", "a%5C.b.example.zone"),
        ("100%.example", "100%25.example.zone"),
        (r"\032.example", "%5C032.example.zone"),
        ("*.example", "%2A.example.zone"),
    ],
)
def test_a_zone_is_found_by_the_name_of_its_file(zone: str, name: str) -> None:
    assert file_name(zone) == name
    assert zone_of(name) == zone


@given(st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1))
def test_every_name_comes_back_from_its_file(zone: str) -> None:
    assert "/" not in file_name(zone)
    assert zone_of(file_name(zone)) in (zone, None if zone.startswith(".") else zone)


@pytest.mark.parametrize("name", [".zone", ".hidden.zone", "a%2fb.zone", "a/b.zone", "shop.example", "%41.zone"])
def test_other_files_are_no_zones(name: str) -> None:
    assert zone_of(name) is None or file_name(zone_of(name) or "") == name
    assert zone_of(".hidden.zone") is None
    assert zone_of("%41.zone") is None


def test_what_is_no_zone_file_is_not_listed(service: Dns, shop: Zone, root: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere.zone").write_text("")
    (root / "link.example.zone").symlink_to(tmp_path / "elsewhere.zone")
    (root / "folder.example.zone").mkdir()
    (root / "Upper.Example.zone").write_text("")
    (root / "shop.example.zone.swp").write_text("")
    (root / ".shop.example.zone").write_text("")
    (root / "README").write_text("")
    assert [zone.name for zone in service.list()] == [shop.name]


def test_a_name_too_long_for_a_file_is_refused(service: Dns) -> None:
    label = "l" * 62
    assert service.create(ZoneSpec(name=".".join([label] * 3 + ["l" * 50]))).name
    with pytest.raises(InvalidArgument, match="254 bytes long"):
        service.create(ZoneSpec(name=".".join([label] * 3 + ["l" * 60])))


def test_permissions_of_a_file_stay(shop: Zone, file: Path) -> None:
    file.chmod(0o640)
    shop.set("www", "A", "192.0.2.1")
    assert stat.S_IMODE(file.stat().st_mode) == 0o640


def test_no_other_file_is_left(shop: Zone, root: Path) -> None:
    shop.set("www", "A", "192.0.2.1")
    assert sorted(path.name for path in root.iterdir()) == [".lock", "shop.example.zone"]


# the serial


def test_each_change_counts_the_serial_up_by_one(shop: Zone, root: Path) -> None:
    assert serial(root) == 1
    shop.set("www", "A", "192.0.2.1")
    shop.set("www", "A", "192.0.2.1")
    assert serial(root) == 2
    shop.change(RecordChange(before=None, after=shop.record(f"n{i}", "A", "192.0.2.1")) for i in range(10))
    assert serial(root) == 3
    shop.delete("www", "A")
    assert serial(root) == 4


@pytest.mark.parametrize(
    ("old", "wanted", "new"),
    [(5, 100, 100), (100, 5, 101), (5, 5, 6), (2**32 - 1, 3, 3), (2**32 - 1, 2**32 - 1, 1), (0, 2**31, 1)],
)
def test_a_serial_that_is_written_is_taken_if_it_is_newer(
    shop: Zone, root: Path, file: Path, old: int, wanted: int, new: int
) -> None:
    file.write_text(file.read_text().replace("hostmaster.shop.example. 1 ", f"hostmaster.shop.example. {old} "))
    shop.set("@", "SOA", f"ns1.example.net. root.example.net. {wanted} 1 2 3 4", apex=True)
    assert serial(root) == new
    assert shop.get("@", "SOA").texts == (f"ns1.example.net. root.example.net. {new} 1 2 3 4",)


# files that people write

BY_HAND = """\
; the zone of the shop
;   ask payments before you change it

$ORIGIN example.
$TTL 1h
shop    IN  SOA ns1.shop (  ; primary
            hostmaster
            2026010101      ; serial
            2h 15m 2w 5m )
        IN  NS  ns1.shop
        IN  NS  ns.example.net.
$ORIGIN shop.example.
ns1         A   192.0.2.53  ; glue
WWW  60  IN A   192.0.2.1
         IN A   192.0.2.2
        IN 60 TXT "quoted ; no comment" plain
mail    MX      10 mail
$TTL 5m
*       CNAME   www
_sip._tcp IN SRV (
    10 60
    5060 sip )
odd     TYPE65400 \\# 4 0a000001
"""


def test_a_file_that_a_person_wrote_is_understood(shop: Zone, root: Path, file: Path) -> None:
    file.write_text(BY_HAND)
    assert {(r.name, r.type): (r.ttl, r.texts) for r in shop.records()} == {
        ("shop.example.", "SOA"): (3600, ("ns1.shop.example. hostmaster.example. 2026010101 7200 900 1209600 300",)),
        ("shop.example.", "NS"): (3600, ("ns1.shop.example.", "ns.example.net.")),
        ("ns1.shop.example.", "A"): (3600, ("192.0.2.53",)),
        ("www.shop.example.", "A"): (60, ("192.0.2.1", "192.0.2.2")),
        ("www.shop.example.", "TXT"): (60, ('"quoted ; no comment" "plain"',)),
        ("mail.shop.example.", "MX"): (3600, ("10 mail.shop.example.",)),
        ("*.shop.example.", "CNAME"): (300, ("www.shop.example.",)),
        ("_sip._tcp.shop.example.", "SRV"): (300, ("10 60 5060 sip.shop.example.",)),
        ("odd.shop.example.", "TYPE65400"): (300, (r"\# 4 0a000001",)),
    }
    before = look(root, shop.name)
    shop.set("new", "A", "192.0.2.9")
    after = dict(look(root, shop.name))
    assert after.pop(("new.shop.example.", "A"))
    assert {key: value for key, value in after.items() if key[1] != "SOA"} == {
        key: value for key, value in before.items() if key[1] != "SOA"
    }
    assert serial(root) == 2026010102


def test_the_comment_at_the_top_stays(shop: Zone, file: Path) -> None:
    file.write_text(BY_HAND)
    shop.set("new", "A", "192.0.2.9")
    assert file.read_text().startswith(
        "; the zone of the shop\n;   ask payments before you change it\n\nshop.example. "
    )
    shop.set("new", "A", "192.0.2.10")
    assert file.read_text().count(";") == 3  # two of the head, one in the TXT


@pytest.mark.parametrize(
    "text", ["\ufeff{}", "{}\n\n\n", "{}; the end"], ids=["byte order mark", "blank lines", "comment"]
)
def test_what_editors_add_is_understood(shop: Zone, file: Path, text: str) -> None:
    file.write_text(text.format(file.read_text()))
    assert {record.type for record in shop.records()} == {"SOA", "NS"}


def test_lines_may_end_as_on_windows(shop: Zone, file: Path) -> None:
    shop.set("www", "TXT", '"x"')
    file.write_bytes(file.read_bytes().replace(b"\n", b"\r\n"))
    assert shop.get("www", "TXT").texts == ('"x"',)


SOA = "@ 60 SOA ns. root. 1 2 3 4 5\n"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"", "no SOA"),
        (b"; nothing\n", "no SOA"),
        (b"www 60 A 192.0.2.1\n", "no SOA"),
        (f"{SOA}www 60 A 192.0.2.256\n".encode(), "line 2"),
        (f"{SOA}\n\nwww 60 A\n".encode(), "line 4"),
        (f"{SOA}www 60 NOSUCH x\n".encode(), "line 2"),
        (f"{SOA}www 60 CH TXT x\n".encode(), "line 2"),
        (f"{SOA}www A 192.0.2.1 )\n".encode(), "line 2"),
        (f"{SOA}www 60 A ( 192.0.2.1\n".encode(), "line"),
        (f'{SOA}www 60 TXT "never ends\n'.encode(), "line 2"),
        (f"{SOA}elsewhere.test. 60 A 192.0.2.1\n".encode(), "not in the zone"),
        (f"{SOA}$INCLUDE /etc/passwd\n".encode(), "line 2"),
        (f"{SOA}@ 60 SOA ns. root. 2 2 3 4 5\n".encode(), "one SOA"),
        (f"{SOA}@ 60 SOA other. root. 1 2 3 4 5\n".encode(), "one SOA"),
        (f"{SOA}www 60 SOA ns. root. 2 2 3 4 5\n".encode(), "one SOA"),
        (f"{SOA}www 60 TXT ".encode() + b"\xff\n", "line 2 is not UTF-8"),
        (f"{SOA}a..b 60 A 192.0.2.1\n".encode(), "line 2"),
        (f"{SOA}{'l' * 64} 60 A 192.0.2.1\n".encode(), "line 2"),
        (f"{SOA}www 99999999999 A 192.0.2.1\n".encode(), "line 2"),
        (b"\0" * 100, "zone"),
    ],
    ids=range(20),
)
def test_a_broken_file_is_one_error_that_names_it_and_breaks_nothing_else(
    service: Dns, shop: Zone, file: Path, text: bytes, why: str
) -> None:
    whole = file.read_bytes()
    other = service.create(ZoneSpec(name="other.example"))
    file.write_bytes(text)
    for call in (
        lambda: list(shop.records()),
        lambda: shop.get("www", "A"),
        shop.info,
        lambda: shop.set("www", "A", "192.0.2.1"),
        lambda: service.delete(shop.name),
    ):
        with pytest.raises(IntegrityError, match=why) as caught:
            call()
        assert str(file) in caught.value.message
        assert "\n" not in caught.value.message
    assert file.read_bytes() == text
    assert [zone.name for zone in service.list()] == ["other.example", "shop.example"]
    assert other.set("www", "A", "192.0.2.1").texts == ("192.0.2.1",)
    file.write_bytes(whole)
    assert shop.set("www", "A", "192.0.2.1").texts == ("192.0.2.1",)


@given(st.binary(max_size=200))
@settings(max_examples=200)
def test_rubbish_is_a_broken_file_or_a_zone(raw: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "shop.example.zone").write_bytes(raw)
        zone = Dns(ZoneFilesDriver(Path(folder))).zone("shop.example")
        with pytest.raises(IntegrityError):
            list(zone.records())


@given(st.lists(st.sampled_from([*BY_HAND.split(), "\n", "(", ")", '"', "$TTL", "\\", ";"]), max_size=30))
@settings(max_examples=300, deadline=None)
def test_words_in_any_order_are_a_broken_file_or_a_zone_that_is_written_as_it_was_read(words: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "shop.example.zone").write_text(f"{SOA}{' '.join(words)}\n")
        zone = Dns(ZoneFilesDriver(Path(folder), fsync=False)).zone("shop.example")
        try:
            before = {record.key: record for record in zone.records()}
        except IntegrityError:
            return
        zone.set("new-name", "A", "192.0.2.1")
        again = Dns(ZoneFilesDriver(Path(folder))).zone("shop.example")
        assert {record.key: record for record in again.records() if record.name != "new-name.shop.example."} == before


# reading a file once, and always what it holds


def test_a_file_that_stays_is_parsed_once(shop: Zone, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parsed = list[str]()
    parse = ZoneContent.parse

    def counted(text: str, origin: str) -> ZoneContent:
        parsed.append(origin)
        return parse(text, origin)

    monkeypatch.setattr(ZoneContent, "parse", counted)
    other = Dns(ZoneFilesDriver(file.parent)).zone(shop.name)
    for _ in range(5):
        list(other.records())
    other.set("www", "A", "192.0.2.1")
    other.set("www", "A", "192.0.2.2")
    list(other.records())
    os.utime(file)
    list(other.records())
    assert parsed == ["shop.example."]


def test_an_edit_of_the_same_size_in_the_same_tick_is_seen(shop: Zone, file: Path) -> None:
    shop.set("www", "A", "192.0.2.0")
    text = file.read_text()
    for number in itertools.islice(itertools.cycle(range(10)), 500):
        with file.open("r+") as stream:
            stream.write(text.replace("192.0.2.0", f"192.0.2.{number}"))
        assert shop.get("www", "A").texts == (f"192.0.2.{number}",)


def test_two_drivers_see_each_others_writes_at_once(shop: Zone, root: Path) -> None:
    other = Dns(ZoneFilesDriver(root, fsync=False)).zone(shop.name)
    for number in range(200):
        writer, reader = (shop, other) if number % 2 else (other, shop)
        writer.set("www", "A", f"192.0.2.{number}")
        assert reader.get("www", "A").texts == (f"192.0.2.{number}",)


# links, and what else may stand in the way


def test_a_zone_file_that_is_a_link_is_refused(service: Dns, root: Path, tmp_path: Path, shop: Zone) -> None:
    target = tmp_path / "target"
    target.write_text((root / "shop.example.zone").read_text().replace("shop", "evil"))
    (root / "evil.example.zone").symlink_to(target)
    before = target.read_bytes()
    evil = service.zone("evil.example")
    for call in (lambda: list(evil.records()), lambda: evil.set("www", "A", "192.0.2.1"), evil.info):
        with pytest.raises(Conflict, match="symbolic link"):
            call()
    with pytest.raises(Conflict, match="symbolic link"):
        service.delete("evil.example")
    with pytest.raises(AlreadyExists):
        service.create(ZoneSpec(name="evil.example"))
    assert target.read_bytes() == before
    assert shop.exists("@", "SOA")


@pytest.mark.parametrize("name", [".lock", ".new"])
def test_a_link_in_the_place_of_our_own_files_is_not_followed(
    shop: Zone, root: Path, tmp_path: Path, name: str
) -> None:
    victim = tmp_path / "victim"
    victim.write_text("untouched")
    (root / name).unlink(missing_ok=True)
    (root / name).symlink_to(victim)
    with pytest.raises(shiftable.errors.OperationError):
        shop.set("www", "A", "192.0.2.1")
    assert victim.read_text() == "untouched"


def test_a_pipe_in_the_place_of_a_zone_is_refused_at_once(service: Dns, root: Path, shop: Zone) -> None:
    os.mkfifo(root / "pipe.example.zone")
    with pytest.raises(Conflict, match="is no file"):
        list(service.zone("pipe.example").records())
    assert shop.exists("@", "SOA")


def test_without_a_folder_there_is_no_zone(service: Dns, root: Path) -> None:
    assert list(service.list()) == []
    with pytest.raises(NotFound):
        service.delete("shop.example")
    assert not root.exists()


def test_a_zone_whose_file_vanishes_is_missing(service: Dns, shop: Zone, file: Path) -> None:
    before = shop.set("www", "A", "192.0.2.1")
    file.unlink()
    with pytest.raises(NotFound):
        list(shop.records())
    driver = service.unwrap(ZoneFilesDriver)
    with pytest.raises(Exception, match="no such zone"):
        driver.change(shop.name, (RecordChange(before=before, after=None),))
    assert service.create(ZoneSpec(name=shop.name)).name == shop.name


# what no name server could load


@pytest.mark.parametrize(
    ("type", "rdata"),
    [
        ("A", b"\1\2\3"),
        ("MX", b"\0"),
        ("TXT", b""),
        ("TXT", b"\5abc"),
        ("SRV", b"x" * 9),
        ("NS", b"\3abc"),
        ("CAA", b""),
    ],
)
def test_a_malformed_value_is_refused_and_never_written(shop: Zone, file: Path, type: str, rdata: bytes) -> None:
    before = file.read_bytes()
    record = RecordSet(name="bad.shop.example.", type=type, ttl=60, rdatas=(rdata,))
    change = RecordChange(before=None, after=record)
    with pytest.raises(InvalidArgument, match=f"no value of {type}"):
        shop.change([change])
    with pytest.raises(Exception, match=f"no value of {type}"):
        ZoneFilesDriver(file.parent).change(shop.name, (change,))
    assert file.read_bytes() == before


def test_a_record_set_that_no_message_can_hold_is_refused(shop: Zone) -> None:
    chunk = f'"{"x" * 250}"'
    values = [f'"{number:03}" {" ".join([chunk] * 10)}' for number in range(27)]
    with pytest.raises(InvalidArgument, match="65,535"):
        shop.set("big", "TXT", values)
    assert len(shop.set("big", "TXT", values[:25]).rdatas) == 25


@given(
    st.sampled_from(["A", "TXT", "MX", "CAA", "SRV", "NAPTR", "SVCB", "LOC", "TYPE65400", "HINFO"]),
    st.binary(max_size=40),
)
@settings(max_examples=300, deadline=None)
def test_any_value_is_refused_or_read_back_byte_equal(type: str, rdata: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        zone = Dns(ZoneFilesDriver(Path(folder), fsync=False)).create(ZoneSpec(name="shop.example"))
        record = RecordSet(name="x.shop.example.", type=type, ttl=60, rdatas=(rdata,))
        if zone.check_record(record) is None:
            zone.change([RecordChange(before=None, after=record)])
            ((_, values),) = [v for (name, _), v in look(Path(folder), zone.name).items() if name.startswith("x.")]
            assert [value.to_wire() for value in values] == [rdata]


# crashes, full disks, other processes

WRITER = """
import itertools, sys
from pathlib import Path
from shiftable.dns import Dns
from shiftable_baremetal.dns import ZoneFilesDriver
zone = Dns(ZoneFilesDriver(Path(sys.argv[1]))).zone("shop.example")
print("ready", flush=True)
for number in itertools.count(int(sys.argv[2])):
    zone.set("www", "TXT", f'"{number}"')
    print(number, flush=True)
"""


def written(root: Path) -> int:
    """Return the number that stands in the file, by dnspython."""
    found = look(root, "shop.example").get(("www.shop.example.", "TXT"))
    return -1 if found is None else int(b"".join(next(iter(found[1])).strings))


def test_a_writer_that_is_killed_leaves_the_zone_old_or_new(shop: Zone, root: Path) -> None:
    moments = random.Random(20)  # noqa: S311  moments, not keys
    shop.change(RecordChange(before=None, after=shop.record(f"n{i}", "A", "192.0.2.1")) for i in range(500))
    done = -1
    for _ in range(12):
        command = [sys.executable, "-c", WRITER, str(root), str(done + 1)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            assert child.stdout.readline() == "ready\n"
            said = [child.stdout.readline() for _ in range(moments.randint(0, 3))]
            time.sleep(moments.uniform(0, 0.03))  # to anywhere in one of the next writes
            child.send_signal(signal.SIGKILL)
            said += child.stdout.read().split()
        done = max([done, *map(int, said)])  # what the writer was told is stored; the next begins after it
        assert done <= written(root) <= done + 1
        assert len(look(root, shop.name)) == 502 + (written(root) >= 0)
    assert done >= 0
    shop.set("after", "A", "192.0.2.1")
    assert not (root / ".new").exists()


COUNTER = """
import sys
from pathlib import Path
from shiftable.dns import Dns, RecordChange
from shiftable.errors import PreconditionFailed
from shiftable_baremetal.dns import ZoneFilesDriver
driver = ZoneFilesDriver(Path(sys.argv[1]), fsync=False)
zone = Dns(driver).zone("shop.example")
for step in range(50):
    zone.set(f"{sys.argv[2]}{step}", "A", "192.0.2.1")
    while True:
        found = zone.get("counter", "TXT")
        number = int(found.texts[0].strip('"')) + 1
        change = RecordChange(before=found, after=zone.record("counter", "TXT", f'"{number}"'))
        try:
            driver.change("shop.example", (change,))
            break
        except Exception as error:
            assert driver.classify(error).error is PreconditionFailed, error
"""


def test_two_processes_that_compare_and_swap_lose_no_step(shop: Zone, root: Path) -> None:
    shop.set("counter", "TXT", '"0"')
    before = serial(root)
    children = [subprocess.Popen([sys.executable, "-c", COUNTER, str(root), name]) for name in "ab"]
    assert [child.wait(timeout=120) for child in children] == [0, 0]
    held = look(root, shop.name)
    assert [b"".join(value.strings) for value in held["counter.shop.example.", "TXT"][1]] == [b"100"]
    names = {name for name, kind in held if kind == "A"}
    assert names == {f"{who}{step}.shop.example." for who in "ab" for step in range(50)}
    assert serial(root) == before + 200


def test_of_two_changes_from_one_state_one_is_refused(shop: Zone, root: Path) -> None:
    first = shop.set("www", "A", "192.0.2.1")
    drivers = [ZoneFilesDriver(root, fsync=False) for _ in range(8)]
    outcomes = list[str]()
    barrier = threading.Barrier(len(drivers))

    def swap(number: int) -> None:
        after = shop.record("www", "A", f"192.0.2.{number + 10}")
        barrier.wait()
        try:
            drivers[number].change(shop.name, (RecordChange(before=first, after=after),))
            outcomes.append("written")
        except Exception as exc:  # noqa: BLE001  what it is, is asserted
            fault = drivers[number].classify(exc)
            outcomes.append(fault.error.__name__ if fault else repr(exc))

    threads = [threading.Thread(target=swap, args=(number,)) for number in range(len(drivers))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["PreconditionFailed"] * 7 + ["written"]


def test_a_refused_batch_changes_nothing_and_names_the_record_set(shop: Zone, file: Path) -> None:
    shop.set("www", "A", "192.0.2.1")
    before = file.read_bytes()
    stale = shop.record("www", "A", "192.0.2.2")
    changes = [RecordChange(before=None, after=shop.record(f"n{i}", "A", "192.0.2.1")) for i in range(20)]
    changes.append(RecordChange(before=stale, after=None))
    with pytest.raises(PreconditionFailed, match=r"www\.shop\.example\. A"):
        shop.change(changes, atomic=True)
    with pytest.raises(Exception, match=r"www\.shop\.example\. A"):
        ZoneFilesDriver(file.parent).change(shop.name, tuple(changes))
    assert file.read_bytes() == before


def test_a_writer_waits_for_the_lock_and_a_reader_does_not(shop: Zone, root: Path) -> None:
    shop.set("www", "TXT", '"-1"')
    with (root / ".lock").open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with subprocess.Popen([sys.executable, "-c", WRITER, str(root), "0"], stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            assert child.stdout.readline() == b"ready\n"
            time.sleep(0.05)
            assert written(root) == -1
            assert shop.get("www", "TXT").texts == ('"-1"',)
            fcntl.flock(lock, fcntl.LOCK_UN)
            assert child.stdout.readline() == b"0\n"
            child.kill()
    assert written(root) >= 0


FULL = """
import resource, signal, sys
from pathlib import Path
from shiftable.dns import Dns
from shiftable_baremetal.dns import ZoneFilesDriver
zone = Dns(ZoneFilesDriver(Path(sys.argv[1]))).zone("shop.example")
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
try:
    zone.set("big", "TXT", '"' + "x" * 250 + '" ' + " ".join(['"' + "y" * 250 + '"'] * 20))
except Exception as error:
    print(type(error).__name__)
"""


def test_a_write_that_finds_no_room_changes_nothing(shop: Zone, file: Path) -> None:
    before = file.read_bytes()
    said = subprocess.run([sys.executable, "-c", FULL, str(file.parent)], capture_output=True, text=True, check=True)
    assert said.stdout == "QuotaExceeded\n"
    assert file.read_bytes() == before
    assert not (file.parent / ".new").exists()
    assert shop.set("www", "A", "192.0.2.1").texts == ("192.0.2.1",)


@pytest.mark.parametrize("step", range(4))
def test_a_disk_that_fails_at_any_step_leaves_a_whole_zone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    zone = Dns(ZoneFilesDriver(tmp_path)).create(ZoneSpec(name="shop.example"))
    zone.set("www", "A", "192.0.2.1")
    left = itertools.count(step, -1)
    sync = os.fsync

    def full(handle: int) -> None:
        if next(left) == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(handle)

    outcomes = list[str]()
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        for address in ("192.0.2.2", "192.0.2.3"):
            try:
                zone.set("www", "A", address)
                outcomes.append("written")
            except QuotaExceeded:
                outcomes.append("refused")
            held = look(tmp_path, zone.name)["www.shop.example.", "A"][1]
            assert {value.to_text() for value in held} == {zone.get("www", "A").texts[0]}
    assert sorted(outcomes) == ["refused", "written"]
    zone.set("www", "A", "192.0.2.4")
    assert zone.get("www", "A").texts == ("192.0.2.4",)


def test_a_folder_that_may_not_be_written_is_a_refused_permission(
    shop: Zone, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = file.read_bytes()

    def refuse(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", refuse)
        with pytest.raises(PermissionDenied):
            shop.set("www", "A", "192.0.2.1")
    assert file.read_bytes() == before
    assert not shop.exists("www", "A")


def test_a_large_zone_is_read_in_pages_and_by_name(service: Dns, shop: Zone, root: Path) -> None:
    lines = [f"n{number:05}.shop.example. 300 IN A 10.0.{number >> 8}.{number & 255}\n" for number in range(10_000)]
    path = root / "shop.example.zone"
    path.write_text(path.read_text() + "".join(lines))
    assert [record.texts[0] for record in shop.records(type="A")] == [line.split()[-1] for line in lines]
    assert shop.get("n09999", "A").texts == ("10.0.39.15",)
    driver = service.unwrap(ZoneFilesDriver)
    page = driver.records(shop.name, name=None, cursor=None, limit=None)
    assert 0 < len(page.items) <= 500
    last = page.items[-1]
    shop.delete(last.name, last.type)
    following = driver.records(shop.name, name=None, cursor=page.next, limit=1)
    assert following.items[0].name == f"n{len(page.items) - 2:05}.shop.example."


def test_the_documented_limits_are_those_of_the_features() -> None:
    assert FEATURES.types is None
    assert FEATURES.any_name
    assert FEATURES.atomic_batch
    assert FEATURES.atomic_if_match
    assert not FEATURES.policy


def test_the_values_of_dnspython_are_those_of_the_driver(shop: Zone, root: Path) -> None:
    """The oracle reads the file, the driver answers from what it keeps: both say the same of each value."""
    shop.set("x", "LOC", "52 22 23.000 N 4 53 32.000 E -2.00m")
    value: Any = next(iter(look(root, shop.name)["x.shop.example.", "LOC"][1]))
    assert value.to_wire() == shop.get("x", "LOC").rdatas[0]

"""What machines of QEMU start from and read: images of distributions, and the seed of cloud-init."""

from __future__ import annotations

import hashlib
import http.server
import json
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from shiftable.compute import ALIASES
from shiftable.errors import Fault, IntegrityError, InvalidArgument, Unavailable
from shiftable.testing.conformance.compute import small_fleet
from shiftable_baremetal._faults import FilesError
from shiftable_baremetal._qemu_files import Area
from shiftable_baremetal._qemu_images import SOURCES, Images, Source
from shiftable_baremetal._qemu_seed import seed
from shiftable_baremetal._qemu_settings import QemuImageSettings, QemuMachineSettings

IMAGE = b"QFI\xfb" + bytes(range(256)) * 20_000


@attrs.define
class Mirror:
    """A distributor's server.

    Args:
        cut: the first answers end after so many bytes each.
        ranges: it answers to Range.
    """

    content: bytes = IMAGE
    listed: str = f"{hashlib.sha512(IMAGE).hexdigest()}  debian.qcow2\n{'0' * 128}  other.qcow2\n"
    cut: list[int] = attrs.field(factory=list)
    ranges: bool = True
    status: int = 200
    asked: list[tuple[str, str | None]] = attrs.field(factory=list)
    port: int = 0

    def source(self) -> Source:
        return Source(f"http://127.0.0.1:{self.port}/debian.qcow2", f"http://127.0.0.1:{self.port}/SHA512SUMS")

    def images(self, root: Path) -> Images:
        return Images(Area(root), {}, {"debian-12": self.source()})


@pytest.fixture
def mirror() -> Iterator[Mirror]:
    told = Mirror()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            wanted = self.headers.get("Range")
            told.asked.append((self.path, wanted))
            if told.status != 200:
                self.send_error(told.status)
                return
            data = told.content if self.path == "/debian.qcow2" else told.listed.encode()
            begin = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and told.ranges else 0
            if begin and begin >= len(data):
                self.send_error(416)
                return
            self.send_response(206 if begin else 200)
            self.send_header("Content-Length", str(len(data) - begin))
            self.end_headers()
            cut = told.cut.pop(0) if self.path == "/debian.qcow2" and told.cut else len(data)
            self.wfile.write(data[begin:][:cut])
            self.close_connection = True

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    told.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield told
    server.shutdown()
    thread.join()
    server.server_close()


def fault_of(caught: pytest.ExceptionInfo[FilesError]) -> Fault:
    return caught.value.fault


def cached(root: Path) -> list[str]:
    return sorted(path.name for path in (root / ".images" / ".cache").iterdir() if path.suffix != ".json")


# downloads


def test_every_alias_has_an_https_source_with_checksums() -> None:
    assert set(SOURCES) == set(ALIASES)
    for source in SOURCES.values():
        assert source.url.startswith("https://")
        assert source.sums.startswith("https://")
        assert source.sums.rpartition("/")[0] == source.url.rpartition("/")[0]


def test_an_image_is_downloaded_once_and_checked(mirror: Mirror, tmp_path: Path) -> None:
    base = mirror.images(tmp_path / "root").base("debian-12")
    assert (base.path.read_bytes(), base.format) == (IMAGE, "qcow2")
    assert base.path.stat().st_mode & 0o777 == 0o400
    assert mirror.images(tmp_path / "root").base("debian-12") == base
    assert [path for path, _ in mirror.asked] == ["/SHA512SUMS", "/debian.qcow2"]


def test_a_download_that_broke_off_goes_on_from_there(mirror: Mirror, tmp_path: Path) -> None:
    images, mirror.cut = mirror.images(tmp_path), [1_000_000, 2_000_000]
    for _ in range(2):
        with pytest.raises(FilesError, match="broke off") as caught:
            images.base("debian-12")
        assert fault_of(caught).error is Unavailable
    assert images.base("debian-12").path.read_bytes() == IMAGE
    assert [wanted for path, wanted in mirror.asked if path == "/debian.qcow2"] == [
        None,
        "bytes=1000000-",
        "bytes=3000000-",
    ]


def test_a_server_without_ranges_is_asked_for_all_of_it(mirror: Mirror, tmp_path: Path) -> None:
    mirror.cut, mirror.ranges = [1_000_000], False
    with pytest.raises(FilesError):
        mirror.images(tmp_path).base("debian-12")
    assert mirror.images(tmp_path).base("debian-12").path.read_bytes() == IMAGE


def test_what_is_longer_than_the_image_is_no_part_of_it(mirror: Mirror, tmp_path: Path) -> None:
    cache = tmp_path / ".images" / ".cache"
    cache.mkdir(parents=True)
    digest = hashlib.sha512(IMAGE).hexdigest()
    (cache / f"part~{digest}").write_bytes(bytes(len(IMAGE) + 5))
    assert mirror.images(tmp_path).base("debian-12").path.read_bytes() == IMAGE
    assert cached(tmp_path) == [digest]


@pytest.mark.parametrize("change", ["altered", "shorter", "longer"])
def test_an_image_that_is_not_what_its_checksum_says_is_refused(mirror: Mirror, tmp_path: Path, change: str) -> None:
    mirror.content = {"altered": b"x" + IMAGE[1:], "shorter": IMAGE[:-1], "longer": IMAGE + b"x"}[change]
    with pytest.raises(FilesError, match="not what its checksum says") as caught:
        mirror.images(tmp_path).base("debian-12")
    assert fault_of(caught).error is IntegrityError
    assert cached(tmp_path) == []
    mirror.content = IMAGE
    assert mirror.images(tmp_path).base("debian-12").path.read_bytes() == IMAGE


@pytest.mark.parametrize("listed", ["", "nonsense", f"{'0' * 128}  other.qcow2\n", f"{'g' * 128}  debian.qcow2\n"])
def test_an_image_without_a_checksum_is_refused(mirror: Mirror, tmp_path: Path, listed: str) -> None:
    mirror.listed = listed
    with pytest.raises(FilesError, match=r"names no checksum of debian\.qcow2"):
        mirror.images(tmp_path).base("debian-12")


def test_a_list_of_sha256_is_as_good(mirror: Mirror, tmp_path: Path) -> None:
    mirror.listed = f"{hashlib.sha256(IMAGE).hexdigest().upper()} *debian.qcow2\n"
    assert mirror.images(tmp_path).base("debian-12").path.read_bytes() == IMAGE


def test_without_the_distributor_what_was_downloaded_is_used(
    mirror: Mirror, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    base = mirror.images(tmp_path).base("debian-12")
    (note,) = (tmp_path / ".images" / ".cache").glob("*.json")
    note.write_text(json.dumps({**json.loads(note.read_text()), "asked": 0}))
    mirror.status = 503
    assert mirror.images(tmp_path).base("debian-12") == base
    assert "checksums cannot be had" in caplog.text
    mirror.status, newer = 200, IMAGE + b"newer"
    mirror.content, mirror.listed = newer, f"{hashlib.sha512(newer).hexdigest()}  debian.qcow2\n"
    assert mirror.images(tmp_path).base("debian-12").path.read_bytes() == newer
    assert base.path.read_bytes() == IMAGE  # machines that were made from it still need it


def test_without_the_distributor_and_without_a_download_there_is_no_image(mirror: Mirror, tmp_path: Path) -> None:
    mirror.status = 404
    with pytest.raises(FilesError, match="it answers 404") as caught:
        mirror.images(tmp_path).base("debian-12")
    assert fault_of(caught).error is Unavailable


def test_only_https_is_asked(tmp_path: Path) -> None:
    for url in ("http://images.example/x.qcow2", "file:///etc/passwd", "ftp://images.example/x"):
        with pytest.raises(FilesError, match="no https address") as caught:
            Images(Area(tmp_path), {"x": Source(url, digest="0" * 64)}).base("x")
        assert fault_of(caught).error is InvalidArgument


def test_two_processes_download_it_once(mirror: Mirror, tmp_path: Path) -> None:
    program = """
import sys
from pathlib import Path
from shiftable_baremetal._qemu_files import Area
from shiftable_baremetal._qemu_images import Images, Source
above = f"http://127.0.0.1:{sys.argv[2]}"
source = Source(above + "/debian.qcow2", above + "/SHA512SUMS")
print(Images(Area(Path(sys.argv[1])), {}, {"debian-12": source}).base("debian-12").path)
"""
    call = [sys.executable, "-c", program, str(tmp_path / "root"), str(mirror.port)]
    both = [subprocess.Popen(call, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    paths = {each.communicate()[0].strip() for each in both}
    assert [each.returncode for each in both] == [0, 0]
    assert [Path(path).read_bytes() for path in paths] == [IMAGE]
    assert sum(path == "/debian.qcow2" for path, _ in mirror.asked) == 1


def test_an_image_of_ones_own_goes_before_an_alias(tmp_path: Path) -> None:
    own = tmp_path / "mine"
    own.write_bytes(bytes(512))
    images = Images(Area(tmp_path), {"debian-12": own})
    assert (images.base("debian-12").path, images.base("debian-12").format) == (own, "raw")
    own.write_bytes((b"QFI\xfb" + struct.pack(">I12xI", 3, 16)).ljust(512, b"\0"))
    assert images.base("debian-12").format == "qcow2"


@pytest.mark.parametrize(
    "wrong",
    [{}, {"file": Path("x"), "url": "https://x.example"}, {"url": "https://x.example"}, {"url": "x", "digest": "0"}],
    ids=["nothing", "both", "no digest", "a short digest"],
)
def test_an_image_is_declared_by_a_file_or_a_url_with_its_digest(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="the image 'x' needs"):
        QemuImageSettings(name="x", **wrong)


def test_what_goes_with_a_kernel_needs_one() -> None:
    with pytest.raises(ValueError, match="go with a kernel"):
        QemuMachineSettings(append="quiet")


# the seed, read as ECMA-119 says


def entries(image: bytes) -> dict[bytes, tuple[bool, bytes]]:
    """Return what is in the root of an image: whether it is a folder, and its content."""
    volume = image[16 * 2048 : 17 * 2048]
    assert volume[:7] == b"\x01CD001\x01"
    assert volume[40:72].rstrip() == b"cidata"
    assert struct.unpack("<I", volume[80:84])[0] * 2048 == len(image)
    assert struct.unpack(">I", volume[84:88])[0] * 2048 == len(image)
    assert struct.unpack("<H", volume[128:130])[0] == 2048
    assert volume[881] == 1
    assert image[17 * 2048 : 17 * 2048 + 7] == b"\xffCD001\x01"
    root = volume[156:190]
    place, size = struct.unpack("<I", root[2:6])[0], struct.unpack("<I", root[10:14])[0]
    assert (place, size) == (struct.unpack(">I", root[6:10])[0], struct.unpack(">I", root[14:18])[0])
    for table, order in (
        (struct.unpack("<I", volume[140:144])[0], "<"),
        (struct.unpack(">I", volume[148:152])[0], ">"),
    ):
        assert struct.unpack(f"{order}BBIH", image[table * 2048 : table * 2048 + 8]) == (1, 0, place, 1)
    found, at = {}, place * 2048
    while image[at]:
        record = image[at : at + image[at]]
        begin, length = struct.unpack("<I", record[2:6])[0] * 2048, struct.unpack("<I", record[10:14])[0]
        assert image[at] % 2 == 0
        found[record[33 : 33 + record[32]]] = bool(record[25] & 2), image[begin : begin + length]
        at += image[at]
    assert at < place * 2048 + size
    return found


@pytest.mark.parametrize("user_data", [b"", b"#cloud-config\n", b"x" * 2048, b"\xff" * 100_001], ids=len)
def test_the_seed_is_an_image_with_two_files(user_data: bytes) -> None:
    image = seed("web-0.ab12", "web-0", user_data)
    found = entries(image)
    assert [name for name in found if len(name) > 1] == [b"meta-data.;1", b"user-data.;1"]
    assert [found[name][0] for name in (b"\0", b"\1")] == [True, True]
    assert found[b"user-data.;1"] == (False, user_data)
    assert json.loads(found[b"meta-data.;1"][1]) == {"instance-id": "web-0.ab12", "local-hostname": "web-0"}
    assert len(image) % 2048 == 0
    assert seed("web-0.ab12", "web-0", user_data) == image


def test_the_seed_holds_the_user_and_the_keys(qemu: Any) -> None:
    key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5 ops@example"
    spec = attrs.evolve(small_fleet(), user="ops", ssh_keys=(key,), user_data_text="#!/bin/sh\ntrue\n")
    qemu.compute().create(spec).wait()
    user_data = entries((qemu.root / "conf-0" / "seed").read_bytes())[b"user-data.;1"][1].decode()
    assert all(part in user_data for part in (key, '"name": "ops"', '"hostname": "conf-0"', "#!/bin/sh\ntrue\n"))

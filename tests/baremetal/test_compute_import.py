"""Objects that become images of machines: what is read of them, what is refused, and what is left of what failed."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import struct
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import attrs
import pytest
from click.testing import CliRunner

from shiftable.blob import BlobStore, Bucket, BucketSpec
from shiftable.blob.driver import Download
from shiftable.cli._main import cli
from shiftable.compute import Compute, DiskImage
from shiftable.errors import (
    AlreadyExists,
    IntegrityError,
    InvalidArgument,
    OperationError,
    PermissionDenied,
    QuotaExceeded,
    Timeout,
    Unavailable,
    Unsupported,
)
from shiftable.memory.blob import MemoryBlobDriver
from shiftable.testing.conformance.compute import small_fleet

MIB, GIB = 2**20, 2**30
SOURCE = DiskImage(bucket="images", key="web", form="raw")
NOW = timedelta(0)


def qcow2(
    disk: int = GIB,
    *,
    version: int = 3,
    backing: int = 0,
    encrypted: int = 0,
    table: int = 0,
    features: int = 0,
    more: bytes = b"",
) -> bytes:
    """Return a file that begins as QEMU's docs/interop/qcow2.txt has it, and whose table has two entries."""
    head = b"QFI\xfb" + struct.pack(">IQIIQIIQ", version, backing, 0, 16, disk, encrypted, 2 if table else 0, table)
    return (head.ljust(72, b"\0") + struct.pack(">Q", features)).ljust(104, b"\0") + more


@attrs.define(eq=False)
class Buckets(MemoryBlobDriver):
    """Buckets of which every piece that is read can be seen, and kept back."""

    seen: Callable[[bytes], None] = attrs.field(default=lambda _: None, kw_only=True)
    closed: int = attrs.field(default=0, init=False)

    def get(self, bucket: str, key: str, **more: Any) -> Download:
        download = super().get(bucket, key, **more)
        return attrs.evolve(download, chunks=self._watched(download.chunks))

    def close(self) -> None:
        self.closed += 1
        super().close()

    def _watched(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        for chunk in chunks:
            for at in range(0, len(chunk), MIB):
                piece = bytes(chunk[at : at + MIB])
                self.seen(piece)
                yield piece


@pytest.fixture
def blobs() -> Buckets:
    return Buckets()


@pytest.fixture
def bucket(blobs: Buckets) -> Bucket:
    return BlobStore(blobs).create(BucketSpec(name="images"))


@pytest.fixture
def compute(qemu: Any, blobs: Buckets) -> Compute:
    found: Compute = qemu.compute(blobs=lambda: blobs)
    return found


def own(compute: Compute) -> list[tuple[str, int | None]]:
    return [(image.name, image.disk_gib) for image in compute.images() if image.own]


# what is taken


def test_an_object_becomes_the_image_byte_for_byte(qemu: Any, compute: Compute, bucket: Bucket, blobs: Buckets) -> None:
    content = os.urandom(MIB) + bytes(3 * MIB) + b"end" + bytes(2 * MIB - 3)
    bucket.put("web", content)
    image = compute.import_image("golden", SOURCE)
    assert ("golden", "golden", 1, True, True) == (image.id, image.name, image.disk_gib, image.own, image.ready)
    assert image.created is not None
    disk = qemu.root / ".images" / "golden" / "disk"
    assert (content, 0o400) == (disk.read_bytes(), disk.stat().st_mode & 0o777)
    assert disk.stat().st_blocks * 512 < 3 * MIB  # what is zero takes no room
    assert blobs.closed == 1
    (machine,) = compute.create(attrs.evolve(small_fleet(), image="golden")).wait()
    assert "golden" == machine.image
    assert f'"-b", "{disk}", "-F", "raw"' in qemu.calls()
    with pytest.raises(OperationError, match="conf-0; delete them first"):
        compute.delete_image("golden")
    compute.delete("conf")
    compute.delete_image("golden")
    assert [".images"] == qemu.left()


@pytest.mark.parametrize(("disk", "gib"), [(512, 1), (GIB, 1), (GIB + 512, 2), (40 * GIB, 40), (2**50, 2**20)])
@pytest.mark.parametrize("version", [2, 3])
def test_a_disk_of_qcow2_is_as_large_as_its_header_says(
    qemu: Any, compute: Compute, bucket: Bucket, disk: int, gib: int, version: int
) -> None:
    bucket.put("web", qcow2(disk, version=version, table=104, more=bytes(16) + os.urandom(1000)))
    assert gib == compute.import_image("golden", attrs.evolve(SOURCE, form="qcow2")).disk_gib
    assert [("golden", gib)] == own(compute)
    made = compute.create(attrs.evolve(small_fleet(), image="golden")).wait()[0]
    assert max(20, gib) == made.disk_gib
    assert f'{qemu.root / ".images/golden/disk"}", "-F", "qcow2"' in qemu.calls()


# what is not


@pytest.mark.parametrize(
    ("content", "form", "why"),
    [
        (b"", "raw", "no disk has 0 bytes"),
        (bytes(513), "raw", "no disk has 513 bytes"),
        (qcow2(), "raw", "'web' is no raw: it begins as a qcow2 file; `shiftable compute convert`"),
        (b"", "qcow2", "'web' is no qcow2: it does not begin as one"),
        (b"QFI", "qcow2", "it does not begin as one"),
        (bytes(1024), "qcow2", "it does not begin as one"),
        (b"QFI\xfb", "qcow2", "of a version that nobody knows, 0"),
        (qcow2(version=4), "qcow2", "of a version that nobody knows, 4"),
        (qcow2(0), "qcow2", "no disk has 0 bytes"),
        (qcow2(GIB + 1), "qcow2", "no disk has 1,073,741,825 bytes"),
        (qcow2(2**50 + 512), "qcow2", "has 1,048,576 GiB, and one of a machine here has at most 1,048,576"),
        (qcow2(2**63), "qcow2", "has 8,589,934,592 GiB"),
        (qcow2(backing=200, more=b"/etc/shadow"), "qcow2", "it reads another file; make it one by qemu-img convert"),
        (qcow2(version=2, backing=200), "qcow2", "it reads another file"),
        (qcow2(features=4), "qcow2", "it reads another file"),
        (qcow2(encrypted=2), "qcow2", "'web' is encrypted"),
        (qcow2(table=104, more=bytes(15)), "qcow2", "'web' was cut off: it names places beyond its end; copy"),
        (qcow2(table=104, more=struct.pack(">QQ", 0, 2**16)), "qcow2", "'web' was cut off"),
    ],
)
def test_what_holds_no_disk_is_refused_and_leaves_nothing(
    qemu: Any, compute: Compute, bucket: Bucket, content: bytes, form: Any, why: str
) -> None:
    bucket.put("web", content)
    with pytest.raises(InvalidArgument, match="import_image on image 'golden'") as caught:
        compute.import_image("golden", attrs.evolve(SOURCE, form=form))
    assert why in str(caught.value)
    assert ([], [], []) == (own(compute), qemu.left(), list(compute.debris()))


def test_what_qemu_cannot_open_is_refused_and_leaves_nothing(qemu: Any, compute: Compute, bucket: Bucket) -> None:
    bucket.put("web", bytes(MIB))
    qemu.order("refuse", "info Active L1 table offset invalid")
    with pytest.raises(InvalidArgument, match="'web' holds no disk that QEMU could read: .*Active L1 table"):
        compute.import_image("golden", SOURCE)
    assert ([], [".images"], []) == (own(compute), qemu.left(), list(compute.debris()))
    qemu.cancel("refuse")
    assert compute.import_image("golden", SOURCE).ready


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"key": "none"}, "there is no object 'none' in the bucket 'images'"),
        ({"bucket": "nowhere"}, "there is no bucket 'nowhere'"),
        ({"bucket": "n"}, "bucket 'n'"),
        ({"version": "other"}, "'web' is another object by now, or gone; import that"),
    ],
)
def test_a_source_that_cannot_be_is_a_wrong_argument(
    qemu: Any, compute: Compute, bucket: Bucket, change: dict[str, Any], why: str
) -> None:
    bucket.put("web", bytes(MIB))
    with pytest.raises(InvalidArgument) as caught:
        compute.import_image("golden", attrs.evolve(SOURCE, **change))
    assert why in str(caught.value)
    assert ([], []) == (own(compute), qemu.left())


@pytest.mark.parametrize("name", ["", "Golden", "../golden", "a/b", ".golden", "x" * 64, "débian", "debian-12"])
def test_a_name_that_no_image_can_have_is_refused_before_anything_is_read(
    qemu: Any, compute: Compute, blobs: Buckets, bucket: Bucket, name: str
) -> None:
    bucket.put("web", bytes(MIB))
    blobs.seen = lambda _: pytest.fail("it was read")
    with pytest.raises(InvalidArgument, match="an image's name has|the name of another image already"):
        compute.import_image(name, SOURCE)
    assert [] == qemu.left()


def test_a_driver_without_buckets_has_no_importer(qemu: Any) -> None:
    compute = qemu.compute()
    assert frozenset() == compute.features.imports
    with pytest.raises(Unsupported, match="importer of disk images in the form raw"):
        compute.import_image("golden", SOURCE)
    with pytest.raises(Unsupported, match="no importer of disk images"):
        qemu.driver().import_image("golden", SOURCE, token="x")


# content


def test_an_object_that_is_not_what_its_metadata_say_is_refused(qemu: Any, compute: Compute, bucket: Bucket) -> None:
    right = hashlib.sha256(bytes(MIB)).hexdigest()
    bucket.put("web", bytes(MIB), metadata={"sha256": "0" * 64})
    with pytest.raises(IntegrityError, match=f"'web' is not what was uploaded: its SHA-256 is {right}, and should be"):
        compute.import_image("golden", SOURCE)
    assert ([], [".images"]) == (own(compute), qemu.left())
    bucket.put("web", bytes(MIB), metadata={"sha256": right.upper()})
    assert compute.import_image("golden", SOURCE).ready


@pytest.mark.parametrize("change", ["replaced", "deleted"])
def test_an_object_that_changes_while_it_is_read_makes_no_image(
    qemu: Any, compute: Compute, blobs: Buckets, bucket: Bucket, change: str
) -> None:
    bucket.put("web", bytes(4 * MIB))
    done: list[str] = []

    def act(_: bytes) -> None:
        if not done:
            done.append(change)
            if change == "replaced":
                bucket.put("web", os.urandom(MIB))
            else:
                bucket.delete("web")

    blobs.seen = act
    with pytest.raises(InvalidArgument, match="another object by now|there is no object 'web'"):
        compute.import_image("golden", SOURCE)
    assert ([], []) == (own(compute), list(compute.debris()))
    bucket.put("web", bytes(4 * MIB))
    assert compute.import_image("golden", SOURCE).ready


@pytest.mark.parametrize("error", [Unavailable, PermissionDenied, OSError])
def test_what_breaks_off_leaves_nothing_and_is_done_again(
    qemu: Any, compute: Compute, blobs: Buckets, bucket: Bucket, error: type[Exception]
) -> None:
    bucket.put("web", b"x" * 3 * MIB)
    read: list[bytes] = []

    def act(piece: bytes) -> None:
        read.append(piece)
        if len(read) > 3:
            raise OSError(28, "No space left on device") if error is OSError else error("no")

    blobs.seen = act
    with pytest.raises(QuotaExceeded if error is OSError else error):
        compute.import_image("golden", SOURCE)
    assert ([], [], [".images"]) == (own(compute), list(compute.debris()), qemu.left())
    blobs.seen = lambda _: None
    assert compute.import_image("golden", SOURCE).ready
    assert b"x" * 3 * MIB == (qemu.root / ".images" / "golden" / "disk").read_bytes()


# once


def test_the_same_import_reads_once_and_another_is_refused(compute: Compute, blobs: Buckets, bucket: Bucket) -> None:
    info = bucket.put("web", bytes(MIB))
    source = attrs.evolve(SOURCE, version=str(info.token))
    first = compute.import_image("golden", source)
    bucket.delete("web")
    blobs.seen = lambda _: pytest.fail("it was read again")
    assert first == compute.import_image("golden", source)
    for other in (SOURCE, attrs.evolve(source, key="other"), attrs.evolve(source, version="2")):
        with pytest.raises(AlreadyExists, match="there is an image 'golden' of something else"):
            compute.import_image("golden", other)
    assert [("golden", 1)] == own(compute)


def test_while_one_imports_others_wait_and_what_else_has_images_goes_on(
    qemu: Any, compute: Compute, blobs: Buckets, bucket: Bucket
) -> None:
    bucket.put("web", bytes(MIB))
    compute.create(small_fleet()).wait()
    begun, go_on, found = threading.Event(), threading.Event(), list[Any]()

    def act(_: bytes) -> None:
        begun.set()
        assert go_on.wait(60)

    blobs.seen = act
    first = threading.Thread(target=lambda: found.append(compute.import_image("golden", SOURCE)))
    first.start()
    assert begun.wait(60)
    other = qemu.compute(blobs=lambda: pytest.fail("it is opened by one"))
    with pytest.raises(Timeout, match="image 'golden' to be imported"):
        other.import_image("golden", SOURCE, timeout=NOW)
    other.fleet("conf").machine("conf-0").snapshot("silver")
    assert ([("silver", 20)], []) == (own(other), list(other.debris()))
    second = threading.Thread(target=lambda: found.append(other.import_image("golden", SOURCE)))
    second.start()
    go_on.set()
    for thread in (first, second):
        thread.join()
    assert 2 == len(found)
    assert found[0] == found[1]
    assert [("golden", 1), ("silver", 20)] == own(other)


def test_who_takes_the_name_meanwhile_keeps_it(qemu: Any, compute: Compute, blobs: Buckets, bucket: Bucket) -> None:
    bucket.put("web", bytes(MIB))
    compute.create(small_fleet()).wait()
    taken: list[Any] = []

    def take(_: bytes) -> None:
        if not taken:
            taken.append(qemu.compute().fleet("conf").machine("conf-0").snapshot("golden"))

    blobs.seen = take
    with pytest.raises(AlreadyExists, match="somebody else has just made 'golden'"):
        compute.import_image("golden", SOURCE)
    assert ([("golden", 20)], []) == (own(compute), list(compute.debris()))
    with pytest.raises(AlreadyExists, match="there is an image 'golden' of something else"):
        compute.import_image("golden", SOURCE)


def test_what_a_killed_process_left_is_debris_and_does_not_stand_in_the_way(qemu: Any, tmp_path: Path) -> None:
    program = """
        import sys, time
        from pathlib import Path
        from shiftable.compute import Compute, DiskImage
        from shiftable_baremetal.blob import FilesDriver
        from shiftable_baremetal import _disk_images
        from shiftable_baremetal.compute import QemuComputeDriver
        read = _disk_images.Content.read
        def slowly(self, most):
            if self.at:
                print("reading", flush=True)
                time.sleep(600)
            return read(self, most)
        _disk_images.Content.read = slowly
        root, programs, blob = map(Path, sys.argv[1:])
        compute = Compute(QemuComputeDriver(root, programs, blobs=lambda: FilesDriver(blob)))
        compute.import_image("golden", DiskImage(bucket="images", key="web", form="raw"))
    """
    from shiftable_baremetal.blob import FilesDriver

    blobs = FilesDriver(tmp_path / "blob")
    BlobStore(blobs).create(BucketSpec(name="images")).put("web", os.urandom(4 * MIB))
    call = [sys.executable, "-c", textwrap.dedent(program), str(qemu.root), str(qemu.programs), str(tmp_path / "blob")]
    with subprocess.Popen(call, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert "reading\n" == process.stdout.readline()
        compute = qemu.compute(blobs=lambda: blobs)
        assert ([], []) == (own(compute), list(compute.debris()))
        process.send_signal(signal.SIGKILL)
    (left,) = compute.debris()
    assert ("folder", ".images.golden") == (left.kind, left.name)
    assert () == compute.sweep()
    assert compute.import_image("golden", SOURCE).ready
    assert [] == list(compute.debris())
    assert {".images", ".images/golden/disk", ".images/golden/facts.json"} == set(qemu.left())


# the command


def test_the_command_takes_an_object_of_the_provider_s_own_buckets(
    qemu: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shiftable.toml").write_text(f"""
[project]
name = "shop"
[environments.development]
provider = "here"
[providers.here]
type = "baremetal"
root = "{tmp_path}/data"
[providers.here.qemu]
programs = "{qemu.programs}"
accelerator = "tcg"
[blob.assets]
bucket = "shop-assets"
[compute.web]
image = "golden"
cpus = 1
memory_gib = 1
""")

    def run(*arguments: str) -> Any:
        return CliRunner().invoke(cli, arguments, catch_exceptions=False)

    (tmp_path / "web.raw").write_bytes(os.urandom(MIB))
    assert 1 == run("apply").exit_code  # there is no such image yet
    assert 0 == run("blob", "cp", "web.raw", "assets:images/").exit_code
    order = ("compute", "import-image", "assets:images/web.raw", "here:golden", "--experimental")
    for _ in range(2):
        made = run(*order)
        assert (0, 'golden: imported; image = "golden" makes machines of it\n') == (made.exit_code, made.output)
    refused = run(*order, "--firmware", "uefi")
    assert (1, True) == (refused.exit_code, "there is an image 'golden' of something else" in refused.output)
    assert 0 == run("apply").exit_code
    assert "golden" == json.loads(run("compute", "show", "web", "--json").stdout)["machines"][0]["image"]
    assert 0 == run("compute", "delete", "web", "--yes", "web").exit_code
    assert 0 == run("compute", "delete-image", "here:golden", "--yes", "golden").exit_code
    deadline = time.monotonic() + 60
    while qemu.living():
        assert time.monotonic() < deadline
        time.sleep(0.05)

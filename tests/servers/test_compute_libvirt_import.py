"""Objects that become images on a hypervisor when things go wrong: what is lost, several at once, no room."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import attrs
import pytest

from shiftable.blob import BlobStore, Bucket, BucketSpec
from shiftable.blob.driver import Download
from shiftable.compute import Compute, DiskImage
from shiftable.compute._rules import import_token
from shiftable.errors import (
    AlreadyExists,
    IntegrityError,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    QuotaExceeded,
    Timeout,
    Unavailable,
)
from shiftable.memory.blob import MemoryBlobDriver
from shiftable.testing.conformance.compute import small_fleet
from shiftable_baremetal._libvirt_session import Session
from shiftable_baremetal.compute_libvirt import LibvirtComputeDriver

from . import hypervisor
from . import test_compute_libvirt as simulated
from . import test_compute_libvirt_hostile as hostile

MIB = 2**20
NOW = timedelta(0)
SOURCE = DiskImage(bucket="images", key="web", form="raw")
TOKEN = import_token("golden", SOURCE)
CONTENT = os.urandom(MIB) + bytes(2 * MIB) + os.urandom(MIB) + bytes(MIB)

libvirt = hostile.libvirt


@attrs.define(eq=False)
class Buckets(MemoryBlobDriver):
    """Buckets where it is seen, and can be kept from happening, how far an object is read."""

    seen: Callable[[int], None] = attrs.field(default=lambda _: None, kw_only=True)

    def get(self, bucket: str, key: str, **more: Any) -> Download:
        download = super().get(bucket, key, **more)
        return download if more["range_"] else attrs.evolve(download, chunks=self._watched(download.chunks))

    def _watched(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        content = b"".join(chunks)
        for at in range(0, len(content), MIB // 4):
            self.seen(at)
            yield content[at : at + MIB // 4]


@attrs.define
class Counted(hostile.RealOnLine):  # type: ignore[misc]  # loaded by its path
    """A session that counts what it sends."""

    sent: int = attrs.field(default=0, init=False)

    def upload(self, volume: Any, content: Any, size: int, *, offset: int = 0) -> None:
        self.sent += size
        super().upload(volume, content, size, offset=offset)


@pytest.fixture(scope="module")
def host(debian: Any, libvirt: Any) -> Iterator[Any]:
    with hypervisor.hypervisor(debian, libvirt) as made:
        yield made


@pytest.fixture
def blobs() -> Buckets:
    return Buckets()


@pytest.fixture
def bucket(blobs: Buckets) -> Bucket:
    made = BlobStore(blobs).create(BucketSpec(name="images"))
    made.put("web", CONTENT)
    return made


@attrs.define
class Bench:
    """A hypervisor, and what makes drivers for it as they are on several computers."""

    host: Any
    libvirt: Any
    blobs: Buckets
    folder: Path
    sessions: list[Any] = attrs.Factory(list)

    def driver(self, line: Any = None, **more: Any) -> LibvirtComputeDriver:
        session = Counted(self.host.uri)
        session.line = line or hostile.Line(self.libvirt)
        self.sessions.append(session)
        root = self.folder / str(len(self.sessions))
        given: dict[str, Any] = {"network": "user", "accelerator": "tcg", "blobs": lambda: self.blobs, **more}
        return LibvirtComputeDriver(session, root, **given)

    def compute(self, line: Any = None, **more: Any) -> Compute:
        return Compute(self.driver(line, **more), sleep=simulated.soon)

    def volumes(self) -> list[str]:
        return [name for name in self.host.volumes() if name.startswith("shiftable.")]

    def part(self) -> Path:
        """Return the file of the one part that there is."""
        (found,) = self.host.pool.glob("shiftable.import.*")
        assert isinstance(found, Path)
        return found

    def written(self) -> int:
        """Wait until something is written to the part, as the daemon does behind the stream; return how much is."""
        part, deadline = self.part(), time.monotonic() + hypervisor.PATIENCE
        while not (size := part.stat().st_size):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        return size

    def make(self, name: str, like: Path | None = None) -> None:
        """Make a volume as another process would."""
        backing = "" if like is None else f"<backingStore><path>{like}</path><format type='raw'/></backingStore>"
        order = f"<volume><name>{name}</name><capacity>{2**30}</capacity><allocation>0</allocation>"
        target = f"<target><format type='{'raw' if like is None else 'qcow2'}'/></target>"
        connection = self.host.connect()
        connection.storagePoolLookupByName("default").createXML(f"{order}{target}{backing}</volume>", 0)
        connection.close()


@pytest.fixture
def bench(host: Any, libvirt: Any, blobs: Buckets, bucket: Bucket, tmp_path: Path) -> Iterator[Bench]:
    assert bucket.name == "images"
    made = Bench(host, libvirt, blobs, tmp_path)
    yield made
    blobs.seen = lambda _: None
    compute = made.compute()
    for fleet in list(compute.list()):
        compute.delete(fleet.name)
    for image in [each for each in compute.images() if each.own]:
        compute.delete_image(image.id)
    compute.sweep(older_than=NOW)
    assert made.volumes() == []


def whole(bench: Bench) -> None:
    """Check that there is the image and nothing else, and that it holds what the object does."""
    part = bench.part()
    assert bench.volumes() == ["shiftable.image.golden", part.name, "shiftable.whole.image.golden"]
    assert part.read_bytes() == CONTENT
    compute = bench.compute()
    assert [(each.name, each.disk_gib, each.ready) for each in compute.images() if each.own] == [("golden", 1, True)]
    assert list(compute.debris()) == []


def test_an_image_is_what_the_object_holds_and_goes_with_all_it_consists_of(bench: Bench) -> None:
    compute = bench.compute()
    image = compute.import_image("golden", SOURCE)
    assert (image.id, image.disk_gib, image.own, image.created is not None) == ("golden", 1, True, True)
    whole(bench)
    (session,) = [each for each in bench.sessions if each.sent]
    assert session.sent == len(CONTENT)
    session.line.calls.clear()
    assert bench.compute().import_image("golden", SOURCE).id == "golden"
    assert [each.sent for each in bench.sessions] == [len(CONTENT), 0, 0]
    compute.create(attrs.evolve(small_fleet(), image="golden")).wait()
    copy = compute.fleet("conf").machine("conf-0").snapshot("copy")
    compute.delete("conf")
    compute.delete_image("golden")
    assert bench.volumes() == ["shiftable.image.copy", "shiftable.whole.image.copy"]  # which is a disk of its own
    compute.create(attrs.evolve(small_fleet(), image=copy.id)).wait()


# answers, connections and processes that are lost


@pytest.mark.parametrize("point", ["before", "after"])
@pytest.mark.parametrize("length", ["once", "from then on"])
def test_an_import_whose_answers_are_lost_at_any_point_is_done_again(
    libvirt: Any, bench: Bench, length: str, point: str
) -> None:
    line = hostile.Line(libvirt)
    bench.compute(line).import_image("golden", SOURCE)
    bench.compute().delete_image("golden")
    assert len(line.calls) > 15
    for lost in range(len(line.calls)):
        broken = hostile.Line(libvirt, lost=lost, after=point == "after", dead=length != "once")
        driver = bench.driver(broken)
        fault = hostile.fault_of(lambda driver=driver: driver.import_image("golden", SOURCE, token=TOKEN))  # type: ignore[misc]  # as it is now
        assert fault is None or fault.error is Unavailable, (lost, broken.calls)
        assert fault is not None or length == "once", (lost, broken.calls)
        assert bench.compute().import_image("golden", SOURCE).ready, (lost, broken.calls)
        whole(bench)
        bench.compute().delete_image("golden")
        assert bench.volumes() == [], (lost, broken.calls)


def test_a_deletion_whose_answers_are_lost_leaves_what_is_swept(libvirt: Any, bench: Bench) -> None:
    lost, ended = 0, False
    while not ended:
        assert bench.compute().import_image("golden", SOURCE).ready, lost
        line = hostile.Line(libvirt, lost=lost, dead=True)
        driver = bench.driver(line)
        hostile.fault_of(lambda driver=driver: driver.delete_image("golden"))  # type: ignore[misc]  # as it is now
        ended = len(line.calls) <= lost
        compute = bench.compute()
        with contextlib.suppress(NotFound):
            compute.delete_image("golden")
        compute.sweep(older_than=NOW)
        assert (bench.volumes(), list(compute.debris())) == ([], []), (lost, line.calls)
        lost += 1
    assert lost > 8


@pytest.mark.parametrize("who", ["daemon", "process"])
def test_what_was_written_is_not_written_again(host: Any, bench: Bench, who: str) -> None:
    def die(at: int) -> None:
        if at == 3 * MIB:
            bench.written()
            if who == "process":
                raise SystemExit("killed")  # as little as a killed one this leads to an error that is handled
            host.kill()

    bench.blobs.seen = die
    with pytest.raises((SystemExit, Unavailable)):
        bench.compute().import_image("golden", SOURCE)
    bench.blobs.seen = lambda _: None
    if who == "daemon":
        host.start()
    part, written = bench.part(), bench.written()
    assert written < len(CONTENT)
    compute = bench.compute()
    assert [(each.kind, each.name) for each in compute.debris()] == [("volume", part.name)]
    assert compute.sweep() == ()  # it is young: somebody may be at it
    assert compute.import_image("golden", SOURCE).ready
    assert 0 < bench.sessions[-1].sent <= len(CONTENT) - written
    whole(bench)


def test_what_was_written_stays_while_it_can_be_tried_again(libvirt: Any, bench: Bench) -> None:
    line = hostile.Line(libvirt)
    bench.compute(line).import_image("golden", SOURCE)
    bench.compute().delete_image("golden")
    lost = hostile.Line(libvirt, lost=line.calls.index("finish"), after=True)
    with pytest.raises(Unavailable):
        bench.compute(lost).import_image("golden", SOURCE)
    assert bench.part().read_bytes() == CONTENT
    assert bench.compute().import_image("golden", SOURCE).ready
    assert bench.sessions[-1].sent == 0
    whole(bench)


def test_what_nobody_goes_on_with_is_swept(bench: Bench) -> None:
    def die(_: int) -> None:
        raise SystemExit("killed")

    bench.blobs.seen = die
    with pytest.raises(SystemExit):
        bench.compute().import_image("golden", SOURCE)
    bench.make("shiftable.image.golden", bench.part())  # as if it had come to its last step
    (first, second) = bench.compute().sweep(older_than=NOW)
    assert (first.name, second.name.startswith("shiftable.import.")) == ("shiftable.image.golden", True)
    assert bench.volumes() == []


def test_a_part_of_another_version_of_the_object_is_not_gone_on_with(bench: Bench, bucket: Bucket) -> None:
    def die(at: int) -> None:
        if at == MIB:
            raise SystemExit("killed")

    bucket.put("web", os.urandom(5 * MIB))
    bench.blobs.seen = die
    with pytest.raises(SystemExit):
        bench.compute().import_image("golden", SOURCE)
    bench.blobs.seen, left = (lambda _: None), bench.part()
    bucket.put("web", CONTENT)
    compute = bench.compute()
    assert compute.import_image("golden", SOURCE).ready
    assert [each.name for each in compute.sweep(older_than=NOW)] == [left.name]
    whole(bench)


def test_what_is_not_what_was_sent_is_found(bench: Bench) -> None:
    def die(at: int) -> None:
        if at == 2 * MIB:
            raise SystemExit("killed")

    bench.blobs.seen = die
    with pytest.raises(SystemExit):
        bench.compute().import_image("golden", SOURCE)
    bench.blobs.seen = lambda _: None
    with bench.part().open("r+b") as file:  # as a disk that lost power does
        file.seek(4096)
        file.write(bytes(4096))
    with pytest.raises(IntegrityError, match=r"'shiftable\.import\.\S+' does not hold what was sent; the same again"):
        bench.compute().import_image("golden", SOURCE)
    assert bench.volumes() == []
    assert bench.compute().import_image("golden", SOURCE).ready
    whole(bench)


def test_a_last_step_that_was_lost_is_taken_again_unless_its_part_was_swept(bench: Bench) -> None:
    bench.compute().import_image("golden", SOURCE)
    mark, part = bench.host.pool / "shiftable.whole.image.golden", bench.part()
    mark.unlink()
    bench.volumes()  # which has the daemon look
    assert bench.compute().import_image("golden", SOURCE).ready
    assert sum(each.sent for each in bench.sessions) == len(CONTENT)
    whole(bench)
    for path in (mark, part):
        path.unlink()
    bench.volumes()
    assert bench.compute().import_image("golden", SOURCE).ready
    assert sum(each.sent for each in bench.sessions) == 2 * len(CONTENT)
    whole(bench)


# several


def test_several_computers_at_once_make_one_image(bench: Bench) -> None:
    found, services = list[Any](), [bench.compute() for _ in range(4)]
    threads = [
        threading.Thread(target=lambda each=each: found.append(each.import_image("golden", SOURCE)))  # type: ignore[misc]  # as it is now
        for each in services
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [each.id for each in found] == ["golden"] * 4
    whole(bench)


@pytest.mark.parametrize("step", ["createXML", "upload"])
def test_while_libvirt_lets_another_write_it_is_waited_for(bench: Bench, step: str) -> None:
    line = hostile.Line(bench.libvirt)

    def refuse(name: str, point: str) -> None:
        if (name, point) == (step, "before"):
            error = bench.libvirt.libvirtError("busy")
            said = "Requested operation is not valid: volume 'x' is still in use."
            error.err = (55, 18, said, 2, None, None, None, -1, -1)
            raise error

    line.when = refuse
    with pytest.raises(Timeout, match="image 'golden' to be imported"):
        bench.compute(line).import_image("golden", SOURCE, timeout=NOW)
    assert len(bench.volumes()) == (step == "upload")  # the part, which is the other's too
    assert bench.compute().import_image("golden", SOURCE).ready


def test_who_is_overtaken_by_another_object_leaves_nothing(bench: Bench, bucket: Bucket) -> None:
    bucket.put("other", os.urandom(MIB))
    other, done = attrs.evolve(SOURCE, key="other"), list[Any]()

    def overtake(at: int) -> None:
        if at == MIB and not done:
            done.append(None)
            done.append(bench.compute().import_image("golden", other))

    bench.blobs.seen = overtake
    with pytest.raises(AlreadyExists, match="there is an image 'golden' of something else"):
        bench.compute().import_image("golden", SOURCE)
    assert bench.part().read_bytes() == bucket.get("other")
    assert len(bench.volumes()) == 3


def test_who_is_overtaken_by_the_same_import_has_its_image(bench: Bench, bucket: Bucket) -> None:
    done: list[Any] = []

    def overtake(at: int) -> None:
        if at == MIB and not done:
            done.append(None)
            done.append(bench.compute().import_image("golden", SOURCE))
            bucket.delete("web")  # as the command does, when the image is there
            raise NotFound("it is gone", provider="memory")

    bench.blobs.seen = overtake
    assert bench.compute().import_image("golden", SOURCE).id == done[1].id
    whole(bench)


def test_an_image_that_is_being_made_of_a_machine_keeps_its_name(bench: Bench) -> None:
    bench.make("shiftable.image.golden")
    with pytest.raises(AlreadyExists, match="there is an image 'golden' of something else, or one that is being made"):
        bench.compute().import_image("golden", SOURCE)
    assert bench.volumes() == ["shiftable.image.golden"]


def test_a_name_of_a_part_says_what_it_is_of(bench: Bench) -> None:
    name = "golden.2726565e-17b2-47e3-83b6-61145c842597.1a2b3c4d.x"
    compute = bench.compute()
    assert compute.import_image(name, SOURCE).id == name
    assert compute.import_image("golden", SOURCE).id == "golden"
    assert list(compute.debris()) == []
    compute.delete_image("golden")
    assert [each.id for each in compute.images() if each.own] == [name]
    assert len(bench.volumes()) == 3


# what cannot be


def test_what_the_hypervisor_cannot_open_is_refused_and_leaves_nothing(
    debian: Any, bench: Bench, bucket: Bucket, tmp_path: Path
) -> None:
    debian.run("qemu-img", "create", "-q", "-f", "qcow2", tmp_path / "disk", "1G")
    good = (tmp_path / "disk").read_bytes()
    bucket.put("web", good[:72] + b"\x80" + good[73:])  # needs something that no QEMU has yet
    source = attrs.evolve(SOURCE, form="qcow2")
    with pytest.raises(InvalidArgument, match="Unknown incompatible feature: 8000000000000000"):
        bench.compute().import_image("golden", source)
    assert bench.volumes() == []
    bucket.put("web", good)
    assert bench.compute().import_image("golden", source).disk_gib == 1
    assert bench.part().read_bytes() == good


def test_a_qcow2_that_names_a_file_of_the_hypervisor_is_refused_before_it_is_there(
    debian: Any, bench: Bench, bucket: Bucket, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_bytes(bytes(MIB))
    more = ("-b", str(tmp_path / "secret"), "-F", "raw")
    debian.run("qemu-img", "create", "-q", "-f", "qcow2", *more, tmp_path / "disk")
    bucket.put("web", (tmp_path / "disk").read_bytes())
    for form, why in (("qcow2", "it reads another file"), ("raw", "it begins as a qcow2 file")):
        line = hostile.Line(bench.libvirt)
        with pytest.raises(InvalidArgument, match=why):
            bench.compute(line).import_image("golden", attrs.evolve(SOURCE, form=form))
        assert "createXML" not in line.calls
    assert bench.volumes() == []


def test_a_pool_that_is_full_is_said_and_left_as_it_was(
    debian: Any, libvirt: Any, blobs: Buckets, bucket: Bucket, tmp_path: Path
) -> None:
    with hypervisor.hypervisor(debian, libvirt, room=3 * MIB) as small:
        bench = Bench(small, libvirt, blobs, tmp_path)
        with pytest.raises(QuotaExceeded, match="No space left on device|its pool is full"):
            bench.compute().import_image("golden", SOURCE)
        assert bench.volumes() == []
        bucket.put("web", CONTENT[:MIB])
        assert bench.compute().import_image("golden", SOURCE).ready


def test_a_pool_that_may_not_be_written_to_is_said(bench: Bench) -> None:
    bench.host.pool.chmod(0o500)
    try:
        with pytest.raises(PermissionDenied, match="Permission denied"):
            bench.compute().import_image("golden", SOURCE)
    finally:
        bench.host.pool.chmod(0o700)
    assert bench.volumes() == []
    assert bench.compute().import_image("golden", SOURCE).ready


def test_a_hypervisor_that_is_not_there_is_not_available(blobs: Buckets, libvirt: Any, tmp_path: Path) -> None:
    assert libvirt is not None
    nowhere = Session(f"qemu+unix:///session?socket={tmp_path}/nowhere")
    compute = Compute(LibvirtComputeDriver(nowhere, tmp_path, blobs=lambda: blobs))
    with pytest.raises(Unavailable, match="Failed to connect socket"):
        compute.import_image("golden", SOURCE)

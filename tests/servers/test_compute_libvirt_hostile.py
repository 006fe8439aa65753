"""Machines of libvirt when things go wrong: answers that are lost, several at once, strangers, full disks, crashes."""

from __future__ import annotations

import hashlib
import http.server
import logging
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import attrs
import pytest

import shiftable
from shiftable.compute import FLEET_LABEL, Compute, Size
from shiftable.compute._rules import token_of
from shiftable.errors import (
    AlreadyExists,
    Conflict,
    Fault,
    IntegrityError,
    InvalidArgument,
    NotFound,
    QuotaExceeded,
    Unavailable,
)
from shiftable.testing.conformance.compute import small_fleet
from shiftable_baremetal._libvirt_errors import classify
from shiftable_baremetal._libvirt_session import Session
from shiftable_baremetal._libvirt_xml import read_domain
from shiftable_baremetal._qemu_images import Source
from shiftable_baremetal.compute_libvirt import FEATURES, LibvirtComputeDriver

from . import hypervisor
from . import test_compute_libvirt as simulated

CANARY = "canary-" + "7a3c" * 4
NOW = timedelta(0)


LOCAL = {"name", "UUIDString", "UUID", "isAlive", "ID", "connect", "c_pointer"}
"""What libvirt's objects tell without asking the hypervisor."""


@attrs.define
class Line:
    """The way to a hypervisor, on which calls are counted and lost.

    Args:
        lost: the number of the call that is lost, before or after it is carried out.
        dead: from then on all are.
    """

    libvirt: Any
    calls: list[str] = attrs.Factory(list)
    lost: int = -1
    after: bool = False
    dead: bool = False
    when: Callable[[str, str], None] = lambda _name, _point: None

    def carry(self, name: str, call: Callable[..., Any], *arguments: Any) -> Any:
        if name in LOCAL:
            return call(*arguments)
        number = len(self.calls)
        self.calls.append(name)
        self.when(name, "before")
        gone = number == self.lost or (self.dead and -1 < self.lost < number)
        if gone and not (self.after and number == self.lost):
            raise self.error()
        answer = call(*(each.__dict__["inner"] if isinstance(each, Wrapped) else each for each in arguments))
        self.when(name, "after")
        if gone:
            raise self.error()
        return self.wrapped(answer)

    def error(self) -> Exception:
        """Return what libvirt raises when the daemon ends."""
        error = self.libvirt.libvirtError("lost")
        error.err = (38, 7, "End of file while reading data: Input/output error", 2, None, None, None, -1, -1)
        return error  # type: ignore[no-any-return]  # libvirt has no types

    def wrapped(self, answer: Any) -> Any:
        if isinstance(answer, list | tuple):
            return type(answer)(map(self.wrapped, answer))
        return Wrapped(answer, self) if type(answer).__module__ == "libvirt" else answer


class Wrapped:
    """One of libvirt's objects, behind the line."""

    def __init__(self, inner: Any, line: Line) -> None:
        self.__dict__.update(inner=inner, line=line)

    def __getattr__(self, name: str) -> Any:
        call = getattr(self.__dict__["inner"], name)
        if name.startswith("_"):
            return call  # what libvirt's other modules hand over to C
        return lambda *arguments: self.__dict__["line"].carry(name, call, *arguments)


class OnLine:
    """What makes a session go through a line."""

    line: Line

    @property
    def connection(self) -> Any:
        return Wrapped(super().connection, self.line)  # type: ignore[misc]  # of the class that stands beside it


class SimulatedOnLine(OnLine, simulated.Simulated):  # type: ignore[misc]  # loaded by its path
    """libvirt's test driver behind a line; addresses are told in two calls, as by libvirt's networks."""

    def leases(self, network: Any) -> dict[str, tuple[str, ...]]:
        network.bridgeName()
        connection = simulated.Simulated.connection.fget(self)
        every = [read_domain(domain.XMLDesc(0)) for domain in connection.listAllDomains(0)]
        return {mac: ("192.168.122.2",) for facts in every for mac in facts.networks}


class RealOnLine(OnLine, Session):
    """A session with a daemon behind a line."""


@pytest.fixture(scope="module")
def libvirt(debian: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return hypervisor.binding(debian, tmp_path_factory.mktemp("binding"))


@pytest.fixture(scope="module")
def images(debian: Any, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    folder = tmp_path_factory.mktemp("images")
    debian.run("qemu-img", "create", "-q", "-f", "qcow2", folder / "debian-12", "1M")
    return {"debian-12": folder / "debian-12"}


@attrs.define
class Bench:
    """A hypervisor of libvirt's test driver, and drivers for it behind lines of their own or one."""

    libvirt: Any
    folder: Path
    images: Mapping[str, Path]
    session: Any = None

    def driver(self, line: Line | None = None, **more: Any) -> LibvirtComputeDriver:
        if self.session is None:
            path = self.folder / "node.xml"
            path.write_text(simulated.NODE)
            self.session = SimulatedOnLine(f"test://{path}")
        self.session.line = line or Line(self.libvirt)
        features = attrs.evolve(FEATURES, disks=False, snapshots=False, disk_snapshots=False)
        given = {"own": self.images, "features": features, **more}
        return LibvirtComputeDriver(self.session, self.folder, **given)

    def compute(self, line: Line | None = None, **more: Any) -> Compute:
        return Compute(self.driver(line, **more), sleep=simulated.soon)

    @property
    def native(self) -> Any:
        """The hypervisor itself."""
        return simulated.Simulated.connection.fget(self.session)

    def left(self) -> list[str]:
        """Return what is there beside images that were uploaded."""
        volumes = [volume.name() for volume in self.native.storagePoolLookupByName("default").listAllVolumes(0)]
        domains = [domain.name() for domain in self.native.listAllDomains(0)]
        return sorted([*domains, *(name for name in volumes if ".base." not in name)])


@pytest.fixture
def bench(libvirt: Any, images: Mapping[str, Path], tmp_path: Path) -> Bench:
    return Bench(libvirt, tmp_path, images)


def make(driver: LibvirtComputeDriver, fleet: str = "conf", mark: str = "conf-0") -> str:
    spec = small_fleet(fleet)
    size = driver.choose(spec).size
    return driver.create_machine(spec, "conf-0", size=size, token=token_of(mark), user_data=b"#cloud-config\n").id


def fault_of(act: Callable[[], object]) -> Fault | None:
    """Return what an act fails with, in our words; none if it does not."""
    try:
        act()
    except Exception as exc:
        fault = classify(exc)
        if fault is None:
            raise
        return fault
    return None


def steps(bench: Bench) -> list[str]:
    """Return the calls of one creation, the image's upload included."""
    line = Line(bench.libvirt)
    driver = bench.driver(line)
    make(driver)
    return line.calls


# answers that are lost


@pytest.mark.parametrize("point", ["before", "after"])
@pytest.mark.parametrize("length", ["once", "from then on"])
def test_a_creation_whose_answers_are_lost_at_any_point_is_done_again_or_swept(
    libvirt: Any, images: Mapping[str, Path], tmp_path: Path, length: str, point: str
) -> None:
    (tmp_path / "count").mkdir()
    total = len(steps(Bench(libvirt, tmp_path / "count", images)))
    assert total > 15
    for lost in range(total):
        (tmp_path / str(lost)).mkdir()
        bench = Bench(libvirt, tmp_path / str(lost), images)
        line = Line(libvirt, lost=lost, after=point == "after", dead=length != "once")
        fault = fault_of(lambda line=line, bench=bench: make(bench.driver(line)))  # type: ignore[misc]  # as they are now
        assert fault is None or fault.error is Unavailable, (lost, line.calls)
        assert fault is not None or length == "once", (lost, line.calls)
        before = {domain.UUIDString() for domain in bench.native.listAllDomains(0)}
        assert len(before) <= 1
        compute = bench.compute()
        made = make(bench.driver())
        assert before <= {made}, (lost, line.calls)
        (found,) = compute.fleet("conf").machines()
        assert (found.id, found.seen.state) == (made, "running"), (lost, line.calls)
        assert bench.native.lookupByUUIDString(made).isPersistent(), (lost, line.calls)
        compute.delete("conf")
        compute.sweep(older_than=NOW)
        assert (bench.left(), list(compute.debris())) == ([], []), (lost, line.calls)


@pytest.mark.parametrize("point", ["before", "after"])
def test_a_deletion_whose_answers_are_lost_at_any_point_is_done_again_or_swept(
    libvirt: Any, images: Mapping[str, Path], tmp_path: Path, point: str
) -> None:
    lost, ended = 0, False
    while not ended:
        (tmp_path / str(lost)).mkdir()
        bench = Bench(libvirt, tmp_path / str(lost), images)
        machine = make(bench.driver())
        line = Line(libvirt, lost=lost, after=point == "after", dead=True)
        driver = bench.driver(line)
        fault = fault_of(lambda driver=driver, machine=machine: driver.delete_machine(machine))  # type: ignore[misc]  # now
        assert fault is None or fault.error is Unavailable
        ended = len(line.calls) <= lost
        compute = bench.compute()
        if compute.exists("conf"):
            compute.delete("conf")
        compute.sweep(older_than=NOW)
        assert bench.left() == [], (lost, line.calls)
        lost += 1
    assert lost > 5


def test_a_machine_whose_creator_came_no_further_is_made_to_stay(bench: Bench) -> None:
    line = Line(bench.libvirt)
    number = steps(bench).index("defineXML")
    bench.session = None
    line.lost, line.dead = number, True
    with pytest.raises(Exception, match="lost"):
        make(bench.driver(line))
    (domain,) = bench.native.listAllDomains(0)
    assert (domain.isActive(), domain.isPersistent()) == (1, 0)
    assert make(bench.driver()) == domain.UUIDString()
    assert domain.isPersistent() == 1


# others


def test_what_somebody_else_made_is_seen_and_not_touched(bench: Bench) -> None:
    compute = bench.compute()
    assert list(compute.machines()) == []
    order = "<domain type='test'><name>conf-0</name><memory>1048576</memory><vcpu>2</vcpu><os><type>hvm</type></os>"
    theirs = bench.native.defineXML(f"{order}</domain>")
    theirs.create()
    with pytest.raises(AlreadyExists, match="'conf-0', which nobody made by shiftable"):
        compute.create(small_fleet())
    (seen,) = compute.machines()
    assert (seen.name, seen.seen.fleet, seen.seen.cpus, seen.seen.state) == ("conf-0", None, 2, "running")
    for change in (seen.delete, seen.stop, seen.reboot, lambda: seen.resize(cpus=4), seen.console):
        with pytest.raises(Conflict, match="changes only its own"):
            change()
    assert (theirs.isActive(), compute.exists("conf"), bench.left()) == (1, False, ["conf-0"])


def test_a_copy_of_a_machine_that_somebody_made_is_none_of_ours(bench: Bench) -> None:
    compute = bench.compute()
    machine = compute.create(small_fleet()).machine("conf-0")
    text = bench.native.lookupByName("conf-0").XMLDesc(2)
    other = text.replace(f"<uuid>{machine.id}</uuid>", "").replace("<name>conf-0</name>", "<name>clone</name>")
    bench.native.defineXML(other)
    assert [found.name for found in compute.fleet("conf").machines()] == ["conf-0"]
    compute.delete("conf")
    assert bench.left() == ["clone"]


def test_many_who_make_the_same_machine_get_one(bench: Bench) -> None:
    bench.driver()
    results: list[Any] = []

    def act(number: int) -> None:
        driver = LibvirtComputeDriver(bench.session, bench.folder, own=bench.images)
        whose = ("conf", "conf-0") if number % 2 else ("other", "conf-1")
        fault = fault_of(lambda: results.append(make(driver, *whose)))
        results.extend([fault.error] if fault is not None else [])

    threads = [threading.Thread(target=act, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (domain,) = bench.native.listAllDomains(0)
    assert len(results) == 6
    assert set(results) == {domain.UUIDString(), AlreadyExists}
    assert results.count(AlreadyExists) == 3
    assert len(bench.left()) == 4  # the domain, its disk, its seed, its console
    assert list(bench.compute().debris()) == []


def test_a_machine_that_vanishes_while_it_is_listed_is_not_listed(bench: Bench) -> None:
    line = Line(bench.libvirt)
    bench.compute().create(small_fleet(count=3))
    compute = bench.compute(line)

    def vanish(name: str, point: str) -> None:
        if (name, point) == ("getAllDomainStats", "after"):
            gone = bench.native.lookupByName("conf-1")
            gone.destroy()
            gone.undefine()

    line.when = vanish
    assert [found.name for found in compute.fleet("conf").machines()] == ["conf-0", "conf-2"]


def test_250_machines_are_listed_in_three_calls(bench: Bench) -> None:
    bench.compute().create(small_fleet(count=250))
    line = Line(bench.libvirt)
    driver = bench.driver(line, page_size=250)
    for calls in (253, 3):  # each is read once
        line.calls.clear()
        told = driver.machines("conf", cursor=None, limit=None)
        assert (len(told.items), told.next) == (250, None)
        assert all(machine.addresses and machine.fleet == "conf" for machine in told.items)
        assert len(line.calls) == calls
    assert line.calls == ["getAllDomainStats", "networkLookupByName", "bridgeName"]


# what is refused


@pytest.mark.parametrize("name", ["web/0", "../x", "Web-0", "web 0", "<web>", "web.0", "-", "w" * 64, "wéb-0", ""])
def test_a_name_that_is_none_of_a_host_is_refused_before_anything_is_made(bench: Bench, name: str) -> None:
    driver, spec = bench.driver(), small_fleet()
    with pytest.raises(Exception, match="lower-case letters") as caught:
        driver.create_machine(spec, name, size=driver.choose(spec).size, token=token_of("x"), user_data=None)
    fault = classify(caught.value)
    assert fault is not None
    assert fault.error is InvalidArgument
    assert bench.left() == []


def test_labels_of_all_characters_are_kept(bench: Bench) -> None:
    labels = {"a<b>&\"'": "]]><!-- \t\r\n", "\x00\x1b\ufffe": "\ud800\U0001f600", " ": ""}
    bench.compute().create(attrs.evolve(small_fleet(), labels=labels))
    (machine,) = bench.compute().fleet("conf").machines()
    assert machine.seen.labels == {**labels, FLEET_LABEL: "conf"}


def test_a_network_that_is_missing_makes_no_machine_with_an_address(bench: Bench) -> None:
    compute = bench.compute()
    made = compute.create(attrs.evolve(small_fleet(), network="<nowhere>"))  # libvirt's test driver does not look
    assert made.machine("conf-0").seen.addresses == ()
    with pytest.raises(InvalidArgument, match="cannot hold the character"):
        compute.create(attrs.evolve(small_fleet("other"), network="no\x00where"))
    assert not compute.exists("other")


def test_an_image_that_reads_a_file_of_the_hypervisor_is_refused(bench: Bench, debian: Any, tmp_path: Path) -> None:
    (tmp_path / "base").write_bytes(bytes(2**20))
    backed = ("-b", tmp_path / "base", "-F", "raw", tmp_path / "backed")
    debian.run("qemu-img", "create", "-q", "-f", "qcow2", *backed)
    debian.run("qemu-img", "create", "-q", "-f", "qcow2", "-o", f"data_file={tmp_path}/data", tmp_path / "apart", "1M")
    for name in ("backed", "apart"):
        with pytest.raises(InvalidArgument, match="not all of the image"):
            bench.compute().create(attrs.evolve(small_fleet(), image=str(tmp_path / name)))
    (tmp_path / "later").write_bytes(b"QFI\xfb\x00\x00\x00\x09" + bytes(100))
    with pytest.raises(InvalidArgument, match="a version that nobody knows, 9"):
        bench.compute().create(attrs.evolve(small_fleet(), image=str(tmp_path / "later")))
    assert bench.native.storagePoolLookupByName("default").numOfVolumes() == 0


def test_an_image_that_is_not_what_its_checksum_says_is_not_uploaded(bench: Bench, tmp_path: Path) -> None:
    class Serve(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "5")
            self.end_headers()
            self.wfile.write(b"wrong")

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Serve) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            url = f"http://127.0.0.1:{server.server_address[1]}/image"
            own = {"debian-12": Source(url, digest=hashlib.sha256(b"right").hexdigest())}
            with pytest.raises(IntegrityError, match="not what its checksum says"):
                bench.compute(own=own).create(small_fleet())
        finally:
            server.shutdown()
            thread.join()
    assert bench.native.storagePoolLookupByName("default").numOfVolumes() == 0


def test_what_was_uploaded_is_used_again_and_what_was_not_complete_is_not(bench: Bench) -> None:
    compute = bench.compute()
    compute.create(small_fleet(count=2))
    pool = bench.native.storagePoolLookupByName("default")
    (base,) = (name for name in pool.listVolumes() if name.startswith("shiftable.base."))
    pool.storageVolLookupByName(f"shiftable.whole.{base.removeprefix('shiftable.')}").delete(0)
    compute.create(small_fleet("other"))
    bases = [name for name in pool.listVolumes() if name.startswith("shiftable.base.")]
    assert len(bases) == 2
    assert [found.name for found in compute.sweep(older_than=NOW)] == [base]


def test_of_two_who_make_the_same_image_the_slower_leaves_the_other_s(bench: Bench) -> None:
    features = attrs.evolve(FEATURES, disks=False, disk_snapshots=False)
    driver = bench.driver(features=features)
    machine = make(driver)
    driver.stop(machine)
    line = Line(bench.libvirt)

    def be_faster(name: str, point: str) -> None:
        if (name, point) == ("createXMLFrom", "before") and "shiftable.image.golden" not in bench.left():
            order = "<volume><name>shiftable.image.golden</name><capacity>1</capacity></volume>"
            bench.native.storagePoolLookupByName("default").createXML(order, 0)

    line.when = be_faster
    fault = fault_of(lambda: bench.driver(line, features=features).snapshot(machine, "golden"))
    assert fault is not None
    assert fault.error is AlreadyExists
    assert "shiftable.image.golden" in bench.left()
    fault = fault_of(lambda: bench.driver(features=features).snapshot(machine, "golden"))
    assert fault is not None
    assert (fault.error, "or one that is being made" in fault.message) == (AlreadyExists, True)
    assert [found.name for found in bench.compute().sweep(older_than=NOW)] == ["shiftable.image.golden"]
    assert bench.driver(features=features).snapshot(machine, "golden").own


def test_a_name_that_no_volume_can_have_is_refused(bench: Bench) -> None:
    driver = bench.driver()
    for name in ("x" * 250, "é" * 40, "/" * 80):
        fault = fault_of(lambda name=name: driver.create_disk(name, 1, zone=None, snapshot=None))  # type: ignore[misc]  # now
        assert fault is not None
        assert (fault.error, "too long" in fault.message) == (InvalidArgument, True)
    assert bench.left() == []


def test_ids_that_are_none_are_missing(bench: Bench) -> None:
    driver = bench.driver()
    for id_ in ("", "conf-0", "../x", "0" * 36, "00000000-0000-0000-0000-000000000000"):
        for call in (driver.machine, driver.delete_machine, driver.start, driver.console):
            fault = fault_of(lambda call=call, id_=id_: call(id_))  # type: ignore[misc]  # as they are now
            assert fault is not None
            assert fault.error is NotFound


# a daemon


@pytest.fixture(scope="module")
def host(debian: Any, libvirt: Any) -> Iterator[Any]:
    with hypervisor.hypervisor(debian, libvirt) as made:
        yield made


@pytest.fixture
def real(host: Any, libvirt: Any, images: Mapping[str, Path], tmp_path: Path) -> Iterator[Callable[..., Any]]:
    def driver(line: Line | None = None, **more: Any) -> LibvirtComputeDriver:
        session = RealOnLine(host.uri)
        session.line = line or Line(libvirt)
        given = {"own": images, "network": "user", "accelerator": "tcg", "patience": 0.5, **more}
        return LibvirtComputeDriver(session, tmp_path, **given)

    yield driver
    compute = Compute(driver(), sleep=simulated.soon)
    for fleet in list(compute.list()):
        compute.delete(fleet.name)
    compute.sweep(older_than=NOW)
    assert (host.processes(), [name for name in host.volumes() if ".base." not in name]) == ([], [])


@pytest.mark.parametrize("step", ["createXML", "defineXML"])
@pytest.mark.parametrize("point", ["before", "after"])
def test_a_daemon_that_is_killed_in_a_creation_leaves_what_is_found(
    host: Any, libvirt: Any, real: Callable[..., Any], step: str, point: str
) -> None:
    line, died = Line(libvirt), []
    make(real())  # the image is there
    Compute(real(), sleep=simulated.soon).delete("conf")

    def die(name: str, now: str) -> None:
        volume = step == "createXML" and len([call for call in line.calls if call == "createXML"]) < 4
        if (name, now) == (step, point) and not died and not volume:  # the volumes are made by the same name
            died.append(name)
            host.kill()

    line.when = die
    fault = fault_of(lambda: make(real(line)))
    assert died == [step]
    host.start()
    assert fault is not None
    assert fault.error is Unavailable
    ran = len(host.processes())
    assert ran == (0 if (step, point) == ("createXML", "before") else 1)
    made = make(real())
    assert len(host.processes()) == 1
    (found,) = Compute(real()).fleet("conf").machines()
    assert (found.id, found.seen.state) == (made, "running")
    assert host.connect().lookupByUUIDString(made).isPersistent() == 1


def test_a_connection_that_was_lost_is_made_anew(host: Any, real: Callable[..., Any]) -> None:
    compute = Compute(real(), sleep=simulated.soon)
    compute.create(small_fleet())
    host.kill()
    host.start()
    with pytest.raises(Unavailable):
        list(compute.list())
    (machine,) = compute.fleet("conf").machines()
    assert machine.seen.state == "running"  # it went on meanwhile


def test_a_machine_that_does_not_stop_is_ended_by_whoever_looks(host: Any, real: Callable[..., Any]) -> None:
    patient = Compute(real(patience=3600.0), sleep=simulated.soon)
    machine = patient.create(small_fleet()).machine("conf-0")
    machine.stop()
    assert (machine.info().state, machine.info().raw_state) == ("stopping", "running, told to stop")
    assert [found.seen.state for found in patient.machines()] == ["stopping"]
    assert [found.seen.state for found in Compute(real(patience=3600.0)).machines()] == ["stopping"]
    with pytest.raises(Conflict, match="it is stopping"):
        machine.reboot()
    other = Compute(real(patience=0.0), sleep=simulated.soon)
    assert [found.seen.state for found in other.machines()] == ["stopped"]
    assert (host.processes(), machine.info().state) == ([], "stopped")
    machine.start()
    assert machine.wait().state == "running"  # the mark went with the run


def test_a_machine_that_somebody_paused_goes_on(host: Any, real: Callable[..., Any]) -> None:
    machine = Compute(real(), sleep=simulated.soon).create(small_fleet()).machine("conf-0")
    native = host.connect().lookupByUUIDString(machine.id)
    native.suspend()
    assert (machine.info().state, machine.info().raw_state) == ("suspended", "paused")
    with pytest.raises(Conflict, match="it is suspended"):
        machine.reboot()
    machine.start()
    assert (machine.info().state, native.isActive()) == ("running", 1)
    native.suspend()
    machine.stop()
    assert machine.wait("stopped").state == "stopped"


def test_a_hypervisor_is_declared(host: Any, libvirt: Any, images: Mapping[str, Path], tmp_path: Path) -> None:
    assert libvirt is not None
    own = [{"name": "debian-12", "file": str(images["debian-12"])}]
    settings = {"uri": host.uri, "network": "user", "accelerator": "tcg", "images": own}
    with shiftable.connect("baremetal", root=str(tmp_path / "data"), libvirt=settings) as cloud:
        compute = cloud.compute
        assert compute.create(small_fleet()).wait()[0].addresses == ("127.0.0.1",)
        assert [found.name for found in compute.images() if not found.own][:1] == ["debian-12"]
        compute.delete("conf")
    elsewhere = shiftable.connect("baremetal", libvirt={**settings, "pool": "elsewhere"})
    with elsewhere, pytest.raises(NotFound, match="has no storage pool 'elsewhere': make one .virsh pool-define"):
        elsewhere.compute.create(small_fleet())


def test_a_hypervisor_that_is_not_there_is_not_available(libvirt: Any, images: Any, tmp_path: Path) -> None:
    assert libvirt is not None
    nowhere = Session(f"qemu+unix:///session?socket={tmp_path}/nowhere")
    compute = Compute(LibvirtComputeDriver(nowhere, tmp_path, own=images))
    for call in (lambda: list(compute.machines()), lambda: compute.create(small_fleet())):
        with pytest.raises(Unavailable, match="Failed to connect socket"):
            call()


def test_user_data_is_in_nothing_but_the_seed(
    host: Any, real: Callable[..., Any], caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    driver = real()
    compute = Compute(driver, sleep=simulated.soon)
    machine = compute.create(attrs.evolve(small_fleet(), user_data_text=f"#!/bin/sh\necho {CANARY}\n"))
    (process,) = host.processes()
    told = Path(f"/proc/{process}/cmdline").read_bytes() + Path(f"/proc/{process}/environ").read_bytes()
    text = host.connect().lookupByName("conf-0").XMLDesc(0)
    said = "".join(map(str, (repr(driver), machine.machine("conf-0").seen, caplog.text, *capfd.readouterr(), text)))
    logs = b"".join(path.read_bytes() for path in host.folder.rglob("*.log")) + (host.folder / "log").read_bytes()
    assert CANARY.encode() not in told + logs + said.encode()
    (holder,) = (path for path in host.pool.iterdir() if CANARY.encode() in path.read_bytes())
    assert (holder.suffix, holder.stat().st_mode & 0o777) == (".seed", 0o600)
    assert not any(path.stat().st_mode & 0o077 for path in host.pool.iterdir())


def test_a_pool_that_is_full_is_said_and_left_as_it_was(
    debian: Any, libvirt: Any, images: Mapping[str, Path], tmp_path: Path
) -> None:
    (tmp_path / "large").write_bytes(os.urandom(3 * 2**20))
    own = {**images, "large": tmp_path / "large"}
    with hypervisor.hypervisor(debian, libvirt, room=2 * 2**20) as small:
        driver = LibvirtComputeDriver(Session(small.uri), tmp_path, own=own, network="user", accelerator="tcg")
        compute = Compute(driver, sleep=simulated.soon)
        with pytest.raises(QuotaExceeded, match="No space left on device|its pool is full"):
            compute.create(attrs.evolve(small_fleet(), image="large"))
        assert (small.volumes(), list(compute.list())) == ([], [])
        with pytest.raises(QuotaExceeded):
            compute.create(attrs.evolve(small_fleet(), user_data_text="#!/bin/sh\n" + "x" * 2 * 2**20))
        assert [name for name in small.volumes() if ".base." not in name] == []
        assert (small.processes(), small.connect().listAllDomains()) == ([], [])


def test_machines_that_qemu_refuses_leave_nothing(host: Any, real: Callable[..., Any], tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.write_bytes(b"QFI\xfb\x00\x00\x00\x03" + bytes(15) + b"\x10" + bytes(1000))  # with clusters of 64 KiB
    with pytest.raises(InvalidArgument, match="Image does not contain|Could not open|backing"):
        Compute(real()).create(attrs.evolve(small_fleet(), image=str(broken)))
    huge = Size(name="huge", cpus=1, memory=2**46)
    fault = fault_of(
        lambda: real().create_machine(small_fleet(), "conf-0", size=huge, token=token_of("conf-0"), user_data=None)
    )
    assert fault is not None
    assert fault.error is QuotaExceeded, fault
    assert [name for name in host.volumes() if ".base." not in name] == []
    assert (host.processes(), host.connect().listAllDomains()) == ([], [])

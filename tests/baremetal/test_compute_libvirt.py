"""What is true of libvirt's machines where there is no libvirt: settings, XML, names, errors. See tests/servers too."""

from __future__ import annotations

import re
import struct
import subprocess
import sys
import textwrap
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any
from xml.etree import ElementTree as ET

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shiftable.cloud import connect
from shiftable.compute import FLEET_LABEL, Compute, Rule
from shiftable.errors import (
    AlreadyExists,
    ConfigError,
    Conflict,
    InvalidArgument,
    NotFound,
    OperationError,
    PermissionDenied,
    QuotaExceeded,
    Timeout,
    Unauthenticated,
    Unavailable,
    Unsupported,
)
from shiftable.memory.blob import MemoryBlobDriver
from shiftable.testing.conformance.compute import small_fleet
from shiftable_baremetal import LibvirtSettings
from shiftable_baremetal import _libvirt_xml as xml
from shiftable_baremetal._faults import FilesError
from shiftable_baremetal._libvirt_errors import classify, code_of
from shiftable_baremetal._libvirt_session import Session
from shiftable_baremetal._libvirt_volumes import Item, item_of, machine_of, virtual_size
from shiftable_baremetal._libvirt_xml import Files, Kind
from shiftable_baremetal._qemu_files import Definition
from shiftable_baremetal._qemu_images import Base
from shiftable_baremetal.compute_libvirt import FEATURES, FEATURES_USER, LibvirtComputeDriver, open_libvirt

ID = "2726565e-17b2-47e3-83b6-61145c842597"
KIND = Kind(type="kvm", cpu="host-passthrough", most_cpus=255)
FILES = Files(disk="/pool/disk", seed="/pool/seed", console="/pool/console")
MACHINE = Definition(
    id=ID,
    name="web-0",
    fleet="web",
    token="5d0a",
    image="debian-12",
    cpus=2,
    memory=3 * 2**30,
    disk_gib=20,
    user="ops",
    created=datetime(2026, 11, 21, tzinfo=UTC),
)


@pytest.fixture
def no_libvirt(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have no libvirt, wherever these tests run."""
    monkeypatch.setitem(sys.modules, "libvirt", None)
    monkeypatch.setitem(sys.modules, "libvirt_qemu", None)


# the binding


@pytest.mark.usefixtures("no_libvirt")
def test_where_the_binding_is_missing_it_is_said_how_to_get_it(tmp_path: Path) -> None:
    compute = Compute(open_libvirt(LibvirtSettings(), tmp_path))
    calls = (lambda: compute.create(small_fleet()), lambda: list(compute.machines()), lambda: list(compute.images()))
    for call in calls:
        with pytest.raises(
            ConfigError, match=r"pip install 'shiftable-baremetal\[libvirt\]'.*libvirt-dev.*libvirt-devel"
        ):
            call()


def test_a_driver_is_made_without_the_binding_and_without_a_hypervisor() -> None:
    script = """
        import sys
        from shiftable.cloud import connect
        compute = connect("baremetal", libvirt={"uri": "qemu+ssh://nobody@nowhere.invalid/system"}).compute
        assert compute.features.title == "libvirt", compute.features.title
        assert "libvirt" not in sys.modules
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=True)


class FakeLibvirt(ModuleType):
    """As much of the binding as it takes to open a connection."""

    class Connection:
        def __init__(self, uri: str) -> None:
            self.uri = uri
            self.alive = 1
            self.closed = 0

        def close(self) -> None:
            self.closed += 1

        def isAlive(self) -> int:  # noqa: N802  libvirt's name
            return self.alive

    def __init__(self) -> None:
        super().__init__("libvirt")
        self.opened: list[Any] = []

    def registerErrorHandler(self, handler: Any, context: Any) -> None:  # noqa: N802  libvirt's name
        assert (handler(None, ()), context) == (None, None)

    def open(self, uri: str) -> Any:
        self.opened.append(self.Connection(uri))
        return self.opened[-1]


@pytest.mark.parametrize(
    ("uri", "opened"),
    [
        ("qemu:///system", "qemu:///system"),
        ("qemu+ssh://ops@host/system", "qemu+ssh://ops@host/system?no_tty=1"),
        ("qemu+ssh://ops@host/system?keyfile=/k", "qemu+ssh://ops@host/system?keyfile=/k&no_tty=1"),
        ("qemu+ssh://ops@host/system?no_tty=0", "qemu+ssh://ops@host/system?no_tty=0"),
        ("qemu+tls://host/system", "qemu+tls://host/system"),
    ],
)
def test_ssh_asks_for_nothing_at_a_terminal(monkeypatch: pytest.MonkeyPatch, uri: str, opened: str) -> None:
    fake = FakeLibvirt()
    monkeypatch.setitem(sys.modules, "libvirt", fake)
    assert Session(uri).connection.uri == opened


def test_a_connection_is_kept_until_it_is_lost_and_is_each_process_s_own(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeLibvirt()
    monkeypatch.setitem(sys.modules, "libvirt", fake)
    session = Session("qemu:///system")
    first = session.connection
    assert session.connection is first
    first.alive = 0
    second = session.connection
    assert (second is first, len(fake.opened)) == (False, 2)
    monkeypatch.setattr("os.getpid", lambda: -1)  # as in a child
    assert session.connection is fake.opened[2]
    assert second in session._inherited  # closing it would end the parent's
    monkeypatch.undo()
    session.close()
    assert [each.closed for each in fake.opened] == [0, 0, 0]


def test_a_connection_is_closed_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake = FakeLibvirt()
    monkeypatch.setitem(sys.modules, "libvirt", fake)
    driver = open_libvirt(LibvirtSettings(), tmp_path)
    driver.close()  # it was never opened
    first = driver._session.connection
    driver.close()
    driver.close()
    assert first.closed == 1
    assert driver._session.connection is fake.opened[1]


# settings


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "qemu",
        "test:///default",
        "qemu:///nowhere",
        "xen:///system",
        "qemux:///system",
        "qemu+ssh://host",
        "http://host/system",
    ],
)
def test_an_address_that_is_none_of_a_hypervisor_is_refused(uri: str) -> None:
    with pytest.raises(ValueError, match="the address of a hypervisor"):
        LibvirtSettings(uri=uri)


def test_nothing_goes_over_a_network_without_encryption() -> None:
    with pytest.raises(ValueError, match="without encryption: use qemu.ssh or qemu.tls"):
        LibvirtSettings(uri="qemu+tcp://host/system")


def test_an_address_holds_no_password() -> None:
    secret = "canary" * 3
    with pytest.raises(ValueError, match="must hold no password") as caught:
        LibvirtSettings(uri=f"qemu+ssh://ops:{secret}@host/system")
    assert secret not in str(caught.value)


def test_networks_of_machines_alone_are_of_this_computer() -> None:
    assert LibvirtSettings(uri="qemu:///session", network="user").network == "user"
    with pytest.raises(ValueError, match="it goes with this computer"):
        LibvirtSettings(uri="qemu+ssh://host/session", network="user")


def test_what_can_be_open_goes_with_the_network(tmp_path: Path) -> None:
    own = open_libvirt(LibvirtSettings(uri="qemu:///session", network="user"), tmp_path, MemoryBlobDriver)
    shared = open_libvirt(LibvirtSettings(), tmp_path, MemoryBlobDriver)
    assert (own.features, shared.features) == (FEATURES_USER, FEATURES)
    spec = attrs.evolve(small_fleet(), open_ports=(443,))
    assert (own.missing_features(spec), shared.missing_features(spec)) == ((), ("firewall",))
    spec = attrs.evolve(small_fleet(), network="lan")
    assert (own.missing_features(spec), shared.missing_features(spec)) == (("choice of networks",), ())


@pytest.mark.parametrize(
    "other",
    [{"qemu": {}}, {"hosts": [{"name": "one", "address": "one", "user": "ops", "cpus": 1, "memory_gib": 1}]}],
    ids=["qemu", "hosts"],
)
def test_one_provider_has_one_kind_of_machines(tmp_path: Path, other: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="(libvirt and qemu|hosts and libvirt) are two kinds of machines"):
        connect("baremetal", root=tmp_path, libvirt={}, **other).compute  # noqa: B018  it is made when it is asked for


# XML

_UNFIT = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # XML 1.0, 2.2
texts = st.text(st.characters(codec=None, exclude_categories=()), max_size=20)
fits = st.text(st.characters(exclude_categories=("Cs", "Cc"), exclude_characters="\ufffe\uffff"), max_size=20)


@given(labels=st.dictionaries(texts, texts, max_size=4), image=texts, append=fits, user=texts)
def test_what_a_machine_is_survives_xml(labels: dict[str, str], image: str, append: str, user: str) -> None:
    labels = {**labels, FLEET_LABEL: "web"}
    machine = attrs.evolve(MACHINE, labels=labels, image=image, append=append, user=user)
    for network in (None, "default"):
        text = xml.domain(machine, KIND, attrs.evolve(FILES, kernel="/pool/k", initrd="/pool/i"), network)
        text.encode()  # libvirt takes UTF-8
        found = xml.read_domain(text)
        assert (found.definition, found.id, found.name) == (machine, ID, "web-0")
        assert (found.cpus, found.memory, found.fleet) == (2, 3 * 2**30, "web")
        assert (ET.fromstring(text).findtext("os/cmdline") or "") == append  # noqa: S314  ours


@given(path=texts, name=texts)
def test_names_that_break_parsers_are_kept_or_refused(path: str, name: str) -> None:
    files = attrs.evolve(FILES, disk=path, console=name)
    if _UNFIT.search(path + name):
        with pytest.raises(FilesError, match="cannot hold the character") as caught:
            xml.domain(MACHINE, KIND, files, name)
        assert caught.value.fault.error is InvalidArgument
        return
    text = xml.domain(MACHINE, KIND, files, name)
    top = ET.fromstring(text)  # noqa: S314  ours
    sources = [found.get("file") for found in top.iterfind("devices/disk/source")]
    log = top.find("devices/serial/log")
    assert log is not None
    assert (sources, log.get("file")) == ([path, "/pool/seed"], name)
    assert list(xml.read_domain(text).networks.values()) == [name]
    assert len(top.findall("devices/disk")) == 2


@given(
    id=st.from_regex(r"[0-9a-f]{8}", fullmatch=True), name=texts.filter(lambda text: "\ud800" > text or text > "\udfff")
)
def test_names_of_volumes_say_what_disks_are(id: str, name: str) -> None:
    for kind, begin in (("disk", "disk"), ("snapshot", "snap")):
        item = Item(kind, f"{begin}-{id}", name)
        try:
            volume = item.volume
        except UnicodeEncodeError:
            return
        assert "/" not in volume
        assert item_of(volume) == item_of(f"/pool/a.b/{volume}") == item


@pytest.mark.parametrize(
    "volume", ["disk", "shiftable.disk.x", "shiftable.disk.1a2b3c4.data", "my.shiftable.disk.1a2b3c4d.data", ""]
)
def test_volumes_of_others_are_no_disks(volume: str) -> None:
    assert (item_of(volume), machine_of(volume)) == (None, None)


def test_volumes_of_machines_say_whose_they_are() -> None:
    assert machine_of(f"shiftable.machine.web-0.{ID}.console.0") == ("web-0", ID)
    assert machine_of(f"shiftable.machine.web-0.{ID[:-1]}.disk") is None
    assert machine_of(f"shiftable.machine.web-0.{ID}") is None


def test_a_machine_in_a_network_has_one_address_for_its_life() -> None:
    first, again = (xml.domain(MACHINE, KIND, FILES, "default") for _ in range(2))
    assert first == again
    assert xml.read_domain(first).networks == {"52:54:00:84:25:97": "default"}
    other = xml.domain(attrs.evolve(MACHINE, id=ID[:-1] + "8"), KIND, FILES, "default")
    assert xml.read_domain(other).networks == {"52:54:00:84:25:98": "default"}


def test_what_is_open_is_led_to_a_machine_with_a_network_of_its_own() -> None:
    opened = (Rule(port=53, protocol="udp"), Rule(port=80, last_port=81))
    machine = attrs.evolve(MACHINE, firewall=opened)
    text = xml.domain(machine, KIND, FILES, None)
    forwards = "hostfwd=tcp:127.0.0.1:0-:22,hostfwd=tcp:127.0.0.1:0-:80,hostfwd=tcp:127.0.0.1:0-:81,hostfwd=udp:"
    assert f'value="user,id=net,{forwards}127.0.0.1:0-:53"' in text
    closed = attrs.evolve(MACHINE, cpus=8, memory=2**33)
    found = ET.fromstring(xml.changed(text, closed))  # noqa: S314  ours
    values = [each.get("value") for each in found.iterfind("{http://libvirt.org/schemas/domain/qemu/1.0}commandline/*")]
    assert values[:2] == ["-netdev", "user,id=net,hostfwd=tcp:127.0.0.1:0-:22"]
    assert (found.findtext("vcpu"), found.findtext("memory")) == ("8", str(2**23))
    assert xml.read_domain(xml.changed(text, closed)).definition == closed


@pytest.mark.parametrize(
    "metadata",
    [
        "",
        f'<m:machine xmlns:m="{xml.MACHINE}"/>',
        f'<m:machine xmlns:m="{xml.MACHINE}">not JSON</m:machine>',
        f'<m:machine xmlns:m="{xml.MACHINE}">[]</m:machine>',
        f'<m:machine xmlns:m="{xml.MACHINE}">{{"id": 1}}</m:machine>',
        f'<m:machine xmlns:m="{xml.MACHINE}">null</m:machine>',
        '<m:machine xmlns:m="urn:other">{}</m:machine>',
    ],
)
def test_a_domain_with_other_metadata_is_somebody_else_s(metadata: str) -> None:
    text = f"<domain><name>web-0</name><uuid>{ID}</uuid><metadata>{metadata}</metadata><vcpu>1</vcpu></domain>"
    found = xml.read_domain(text)
    assert (found.definition, found.fleet, found.name) == (None, None, "web-0")


def test_a_domain_with_the_metadata_of_another_is_somebody_else_s() -> None:
    text = xml.domain(MACHINE, KIND, FILES, "default").replace(f"<uuid>{ID}</uuid>", f"<uuid>{ID[::-1]}</uuid>")
    assert xml.read_domain(text).definition is None


def test_a_disk_takes_the_next_name_until_there_is_none() -> None:
    text = xml.data_disk("/pool/d", "disk-1a2b3c4d", ["vda", "vdb", "sda", "sdc"])
    (target,) = ET.fromstring(text).iterfind("target")  # noqa: S314  ours
    assert (target.get("dev"), target.get("bus")) == ("sdb", "scsi")
    with pytest.raises(FilesError, match="at most 26 disks"):
        xml.data_disk("/pool/d", "x", [f"sd{letter}" for letter in "abcdefghijklmnopqrstuvwxyz"])


@pytest.mark.parametrize(
    ("kind", "modes", "expected"),
    [
        ("kvm", "<mode name='host-passthrough' supported='yes'/>", ("kvm", "host-passthrough", 4)),
        ("kvm", "<mode name='host-passthrough' supported='no'/>", ("kvm", None, 4)),
        ("qemu", "<mode name='maximum' supported='yes'/>", ("qemu", "maximum", 4)),
        ("qemu", "", ("qemu", None, 4)),
    ],
)
def test_the_best_processor_is_taken_that_the_hypervisor_has(kind: str, modes: str, expected: Any) -> None:
    told = f"<domainCapabilities><domain>{kind}</domain><vcpu max='4'/><cpu>{modes}</cpu></domainCapabilities>"
    found = xml.read_kind(told)
    assert (found.type, found.cpu, found.most_cpus) == expected


class libvirtError(Exception):  # noqa: N801  as the binding's own
    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code

    def get_error_code(self) -> int:
        return self.code

    def get_error_message(self) -> str:
        return str(self)


libvirtError.__module__ = "libvirt"


class Domain:
    """A domain with a guest agent."""

    def __init__(self, state: str, told: Any) -> None:
        text = xml.domain(MACHINE, KIND, FILES, "default")
        self.text = text.replace('name="org.qemu.guest_agent.0"', f'name="org.qemu.guest_agent.0" state="{state}"')
        self.told = told

    def XMLDesc(self, flags: int) -> str:  # noqa: N802  libvirt's name
        assert flags == 0
        return self.text

    def interfaceAddresses(self, source: int) -> Any:  # noqa: N802  libvirt's name
        assert source == 1
        if isinstance(self.told, Exception):
            raise self.told
        return self.told


def addresses(*found: str) -> dict[str, Any]:
    return {"hwaddr": "52:54:00:00:00:01", "addrs": [{"addr": each, "prefix": 24, "type": 0} for each in found]}


def test_a_machine_s_agent_tells_its_addresses(tmp_path: Path) -> None:
    driver = open_libvirt(LibvirtSettings(), tmp_path)
    told = {
        "lo": addresses("127.0.0.1", "::1"),
        "eth1": addresses("2001:db8::7", "fe80::1"),
        "eth0": addresses("192.0.2.7"),
        "docker0": {"hwaddr": "x", "addrs": None},
    }
    assert driver._inside(Domain("connected", told)) == ("192.0.2.7", "2001:db8::7")
    assert driver._inside(Domain("disconnected", told)) == ()
    for code in (86, 3, 55, 74):
        assert driver._inside(Domain("connected", libvirtError(code, "the agent does not answer"))) == ()
    with pytest.raises(libvirtError):
        driver._inside(Domain("connected", libvirtError(38, "End of file while reading data")))


class Leases:
    """A network that has given addresses."""

    def DHCPLeases(self) -> list[dict[str, Any]]:  # noqa: N802  libvirt's name
        found = (
            ("52:54:00:AA:00:01", "fd00::7"),
            ("52:54:00:aa:00:01", "192.0.2.7"),
            ("52:54:00:aa:00:02", "192.0.2.8"),
        )
        return [{"mac": mac, "ipaddr": address, "expirytime": 0} for mac, address in found]


def test_leases_are_told_by_the_hardware_s_address() -> None:
    known = {"52:54:00:aa:00:01": ("192.0.2.7", "fd00::7"), "52:54:00:aa:00:02": ("192.0.2.8",)}
    assert Session("qemu:///system").leases(Leases()) == known


# images


@pytest.mark.parametrize(
    ("version", "backing", "features", "expected"),
    [(2, 0, 0, 5), (3, 0, 0, 5), (3, 0, 1, 5), (2, 104, 0, None), (3, 104, 0, None), (3, 0, 4, None), (4, 0, 0, None)],
)
def test_an_image_that_is_not_all_of_itself_is_refused(
    tmp_path: Path, version: int, backing: int, features: int, expected: int | None
) -> None:
    head = b"QFI\xfb" + struct.pack(">IQIIQ", version, backing, 0, 16, 5) + bytes(40) + struct.pack(">Q", features)
    (tmp_path / "image").write_bytes(head)
    if expected is not None:
        assert virtual_size(Base(tmp_path / "image", "qcow2")) == expected
        return
    with pytest.raises(FilesError) as caught:
        virtual_size(Base(tmp_path / "image", "qcow2"))
    assert caught.value.fault.error is InvalidArgument


# errors


@pytest.mark.parametrize(
    ("code", "text", "expected"),
    [
        (2, "out of memory", QuotaExceeded),
        (3, "this function is not supported by the connection driver: virNetworkGetDHCPLeases", Unsupported),
        (5, "no connection driver available for qemu:///system", Unavailable),
        (8, "invalid argument: name", InvalidArgument),
        (9, "operation failed: domain 'web-0' already exists with uuid 1", AlreadyExists),
        (1, "internal error: storage volume name 'x' already in use.", AlreadyExists),
        (9, "operation failed: domain 'web-0' is already being started", Unavailable),
        (9, "Failed to terminate process 1 with SIGKILL: Device or resource busy", Unavailable),
        (9, "operation failed: target sda already exists", AlreadyExists),
        (27, "XML error: missing type", InvalidArgument),
        (29, "operation virDomainCreateXML forbidden for read only access", PermissionDenied),
        (38, "Failed to connect socket to '/run/libvirt/libvirt-sock': No such file or directory", Unavailable),
        (38, "Failed to connect socket to '/run/libvirt/libvirt-sock': Connection refused", Unavailable),
        (38, "Failed to connect socket to '/run/libvirt/libvirt-sock': Permission denied", PermissionDenied),
        (38, "Cannot recv data: Permission denied (publickey).: Connection reset by peer", Unauthenticated),
        (38, "Cannot recv data: Host key verification failed.: Connection reset by peer", Unauthenticated),
        (38, "Cannot recv data: ssh: Could not resolve hostname x: Name or service not known", Unavailable),
        (38, "End of file while reading data: Input/output error", Unavailable),
        (38, "Unable to write /pool/x: No space left on device", QuotaExceeded),
        (38, "cannot open file '/pool/x': Permission denied", PermissionDenied),
        (1, "internal error: client socket is closed", Unavailable),
        (1, "internal error: received hangup event on socket", Unavailable),
        (1, "internal error: pool 'default' has asynchronous jobs running.", Conflict),
        (1, "internal error: Not enough free space in pool for volume 'x'", QuotaExceeded),
        (1, "internal error: process exited: cannot set up guest memory: Cannot allocate memory", QuotaExceeded),
        (1, 'internal error: unable to execute: Failed to get "write" lock', Conflict),
        (1, "internal error: Could not set up host forwarding rule 'tcp:127.0.0.1:1-:22'", Conflict),
        (
            1,
            "internal error: Child process failed: qemu-img: Image does not contain a reference count",
            InvalidArgument,
        ),
        (42, "Domain not found: no domain with matching uuid", NotFound),
        (43, "Network not found: no network with matching name 'lan'", NotFound),
        (45, "authentication failed: polkit", Unauthenticated),
        (49, "Storage pool not found", NotFound),
        (50, "Storage volume not found", NotFound),
        (55, "Requested operation is not valid: domain is not running", Conflict),
        (67, "unsupported configuration: KVM is not supported", InvalidArgument),
        (68, "Timed out during operation: cannot acquire state change lock", Timeout),
        (84, "Operation not supported", Unsupported),
        (86, "Guest agent is not responding: Guest agent not available for now", Unavailable),
        (86, "Guest agent is not responding: End of file", Unavailable),
        (87, "Requested operation is not valid: busy", Conflict),
        (88, "access denied", PermissionDenied),
        (90, "storage volume 'x' exists already", AlreadyExists),
        (94, "authentication unavailable: no polkit agent available", Unauthenticated),
        (9999, "something new", Unavailable),
    ],
)
def test_what_libvirt_says_has_a_class(code: int, text: str, expected: type[OperationError]) -> None:
    fault = classify(libvirtError(code, text))
    assert fault is not None
    assert (fault.error, fault.message) == (expected, text)
    assert fault.code


LARGE = "qemu-img: /pool/x: The image size is too large for file format 'qcow2'"


@pytest.mark.parametrize(
    ("code", "text", "error", "plain"),
    [
        (
            1,
            f"internal error: Child process (qemu-img create /pool/x 9K) unexpected exit status 1: noise\n{LARGE}\n",
            InvalidArgument,
            LARGE,
        ),
        (
            1,
            "internal error: Child process (x) unexpected exit status 1: qemu-img: x: not supported: 80\nNot opened.\n",
            InvalidArgument,
            "qemu-img: x: not supported: 80; Not opened.",
        ),
        (
            1,
            "internal error: Child process (/usr/bin/qemu-img convert /x /y) unexpected fatal signal 9: killed",
            Unavailable,
            "killed",
        ),
        (
            55,
            "Requested operation is not valid: storage pool 'vms' is not active",
            Conflict,
            "the storage pool 'vms' is not active; `virsh pool-start vms` starts it",
        ),
        (
            55,
            "Requested operation is not valid: network 'lan' is not active",
            Conflict,
            "the network 'lan' is not active; `virsh net-start lan` starts it",
        ),
    ],
)
def test_what_libvirt_says_is_told_plainly(code: int, text: str, error: type[OperationError], plain: str) -> None:
    fault = classify(libvirtError(code, text))
    assert fault is not None
    assert (error, plain) == (fault.error, fault.message)


def test_what_is_not_of_libvirt_is_not_claimed() -> None:
    class libvirtError(Exception):  # noqa: N801  somebody else's, of the same name
        pass

    assert classify(KeyError("x")) is None
    assert (code_of(libvirtError()), code_of(OSError(2, "x"))) == (0, 0)
    full = classify(OSError(28, "No space left on device"))
    assert full is not None
    assert full.error is QuotaExceeded


def test_a_driver_s_text_tells_where_it_is(tmp_path: Path) -> None:
    text = repr(LibvirtComputeDriver(Session("qemu:///system"), tmp_path))
    assert "qemu:///system" in text

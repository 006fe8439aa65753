"""What libvirt is told in XML, and what it tells.

Rules: libvirt.org, "Domain XML format" and "Storage pool and volume XML format".

What a machine is for us lies as JSON in the metadata of its domain, in a name space of our own, since JSON can escape
every character and XML 1.0 cannot hold them all.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from xml.etree import ElementTree as ET

import attrs

from shiftable.errors import Fault, InvalidArgument
from shiftable_baremetal._faults import FilesError
from shiftable_baremetal._qemu_files import Definition

__all__ = [
    "MACHINE",
    "STOPPING",
    "Facts",
    "Files",
    "Kind",
    "backup",
    "changed",
    "data_disk",
    "domain",
    "machine",
    "read_backing",
    "read_domain",
    "read_kind",
    "read_length",
    "read_written",
    "stopping",
    "volume",
]

MACHINE = "urn:shiftable:machine:1"
"""The name space of what a machine is."""
STOPPING = "urn:shiftable:stopping:1"
"""The name space of the mark that a running machine was told to stop; it ends with the run."""

_QEMU = "http://libvirt.org/schemas/domain/qemu/1.0"
_AGENT = "org.qemu.guest_agent.0"
_UNFIT = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # XML 1.0, 2.2
_DATA = tuple(f"sd{letter}" for letter in "abcdefghijklmnopqrstuvwxyz")


@attrs.frozen(kw_only=True)
class Kind:
    """What a hypervisor runs machines with.

    Args:
        type: in libvirt's word: ``kvm``, ``qemu``.
        machine: the model of computer, or the hypervisor's own.
        cpu: the mode of its processor, or the hypervisor's own.
        most_cpus: of one machine.
    """

    type: str
    arch: str = "x86_64"
    machine: str | None = "q35"
    cpu: str | None = None
    most_cpus: int


@attrs.frozen(kw_only=True)
class Files:
    """Where the parts of one machine lie on the hypervisor."""

    disk: str
    seed: str
    console: str
    kernel: str | None = None
    initrd: str | None = None


@attrs.frozen(kw_only=True)
class Facts:
    """What the XML of a domain tells.

    Args:
        definition: what the machine is; ``None``: nobody made it by shiftable.
        memory: in bytes.
        networks: of libvirt, by the addresses of the interfaces.
        disks: files by the names of the devices.
        agent: one inside of it answers.
        stopping: when it was told to stop, in seconds since 1970.
    """

    id: str
    name: str
    definition: Definition | None
    cpus: int
    memory: int
    networks: Mapping[str, str]
    disks: Mapping[str, str]
    agent: bool
    stopping: float | None

    @property
    def fleet(self) -> str | None:
        """Whose it is."""
        return None if self.definition is None else self.definition.fleet


# written


def domain(definition: Definition, kind: Kind, files: Files, network: str | None) -> str:
    """Return a machine.

    Args:
        network: of libvirt; none: one of its own, whose ports are led to 127.0.0.1.
    """
    top = ET.Element("domain", {"type": kind.type})
    _add(top, "name", definition.name)
    _add(top, "uuid", definition.id)
    _add(_add(top, "metadata"), "shiftable:machine", definition.written(), {"xmlns:shiftable": MACHINE})
    _add(top, "memory", str(definition.memory // 1024), {"unit": "KiB"})
    _add(top, "vcpu", str(definition.cpus))
    _add_start(top, definition, kind, files)
    features = _add(top, "features")
    _add(features, "acpi")
    _add(features, "apic")
    if kind.cpu is not None:
        _add(top, "cpu", attributes={"mode": kind.cpu})
    _add(top, "clock", attributes={"offset": "utc"})
    devices = _add(top, "devices")
    devices.append(_disk(files.disk, "qcow2", {"dev": "vda", "bus": "virtio"}))
    devices.append(_disk(files.seed, "raw", {"dev": "vdb", "bus": "virtio"}, read_only=True))
    _add(devices, "controller", attributes={"type": "scsi", "model": "virtio-scsi"})
    _add(devices, "controller", attributes={"type": "usb", "model": "none"})
    serial = _add(devices, "serial", attributes={"type": "pty"})
    _add(serial, "log", attributes={"file": files.console, "append": "off"})
    agent = _add(devices, "channel", attributes={"type": "unix"})
    _add(agent, "target", attributes={"type": "virtio", "name": _AGENT})
    random = _add(devices, "rng", attributes={"model": "virtio"})
    _add(random, "backend", "/dev/urandom", {"model": "random"})
    _add(devices, "memballoon", attributes={"model": "none"})
    if network is None:
        top.set("xmlns:qemu", _QEMU)
        _add_own_network(_add(top, "qemu:commandline"), definition, "qemu:arg")
    else:
        interface = _add(devices, "interface", attributes={"type": "network"})
        _add(interface, "mac", attributes={"address": _mac(definition.id)})
        _add(interface, "source", attributes={"network": network})
        _add(interface, "model", attributes={"type": "virtio"})
    return _written(top)


def changed(text: str, definition: Definition) -> str:
    """Return a machine's XML with another definition: its size, what is open, what it is for us."""
    top = _read(text)
    for found in top.iterfind(f"metadata/{{{MACHINE}}}machine"):
        found.text = definition.written()
    for tag in ("memory", "currentMemory"):
        for found in top.iterfind(tag):
            found.text = str(definition.memory // 1024)
    for found in top.iterfind("vcpu"):
        found.text = str(definition.cpus)
        found.attrib.pop("current", None)
    for found in top.iterfind(f"{{{_QEMU}}}commandline"):
        for argument in list(found):
            found.remove(argument)
        _add_own_network(found, definition, f"{{{_QEMU}}}arg")
    return _written(top)


def volume(name: str, size: int, *, kind: str = "qcow2", backing: tuple[str, str] | None = None) -> str:
    """Return a volume that only its owner can read.

    Args:
        size: in bytes.
        backing: path and format of what it differs from.
    """
    top = ET.Element("volume")
    _add(top, "name", name)
    _add(top, "capacity", str(size), {"unit": "bytes"})
    _add(top, "allocation", "0", {"unit": "bytes"})
    target = _add(top, "target")
    _add(target, "format", attributes={"type": kind})
    _add(_add(target, "permissions"), "mode", "0600")
    if kind == "qcow2":
        _add(target, "compat", "1.1")  # else that of 2010
    if backing is not None:
        below = _add(top, "backingStore")
        _add(below, "path", backing[0])
        _add(below, "format", attributes={"type": backing[1]})
    return _written(top)


def data_disk(path: str, serial: str, taken: Iterable[str], *, device: str | None = None) -> str:
    """Return a disk that is attached beside the first, as that device or the next that is not taken."""
    free = [device] if device is not None else sorted(set(_DATA) - set(taken))
    if not free:
        raise _invalid(f"a machine has at most {len(_DATA)} disks beside its first")
    return _written(_disk(path, "qcow2", {"dev": free[0], "bus": "scsi"}, serial=serial))


def backup(device: str, devices: Iterable[str], path: str) -> str:
    """Return the order to copy one disk of a running machine, as it is at this moment, into a file."""
    top = ET.Element("domainbackup", {"mode": "push"})
    disks = _add(top, "disks")
    for each in devices:
        disk = _add(disks, "disk", attributes={"name": each, "backup": "yes" if each == device else "no"})
        if each == device:
            disk.set("type", "file")
            _add(disk, "driver", attributes={"type": "qcow2"})
            _add(disk, "target", attributes={"file": path})
    return _written(top)


def machine(definition: Definition) -> str:
    """Return what a machine is, for its metadata."""
    top = ET.Element("machine")
    top.text = definition.written()
    return _written(top)


def stopping(since: float) -> str:
    """Return the mark of a machine that was told to stop."""
    return _written(ET.Element("stopping", {"since": str(since)}))


# read


def read_domain(text: str) -> Facts:
    """Return what the XML of a domain tells."""
    top = _read(text)
    marked = top.find(f"metadata/{{{STOPPING}}}stopping")
    return Facts(
        id=top.findtext("uuid", ""),
        name=top.findtext("name", ""),
        definition=_definition(top),
        cpus=int(top.findtext("vcpu") or 0),
        memory=int(top.findtext("memory") or 0) * 1024,  # it writes KiB, whatever it read
        networks=dict(_networks(top)),
        disks=dict(_disks(top)),
        agent=any(
            found.get("name") == _AGENT and found.get("state") == "connected"
            for found in top.iterfind("devices/channel/target")
        ),
        stopping=None if marked is None else float(marked.get("since") or 0),
    )


def read_kind(text: str) -> Kind:
    """Return what the capabilities for domains tell: whether it is KVM, and the best processor there."""
    top = _read(text)
    modes = {mode.get("name") for mode in top.iterfind("cpu/mode") if mode.get("supported") == "yes"}
    kind = top.findtext("domain", "qemu")
    wanted = "maximum" if kind == "qemu" else "host-passthrough"
    most = top.find("vcpu")
    return Kind(
        type=kind,
        cpu=wanted if wanted in modes else None,
        most_cpus=int((most.get("max") if most is not None else None) or 1),
    )


def read_length(text: str) -> int:
    """Return how many bytes the file of a volume has, whatever the disk in it has."""
    return int(_read(text).findtext("physical") or 0)


def read_backing(text: str) -> str | None:
    """Return the path of what a volume differs from; ``None`` if it is whole."""
    return _read(text).findtext("backingStore/path")


def read_written(text: str) -> float | None:
    """Return when a volume was written to the last time, in seconds since 1970, where that is told."""
    found = _read(text).findtext("target/timestamps/mtime")
    return None if found is None else float(found)


# below: one step each


def _definition(top: ET.Element) -> Definition | None:
    text = top.findtext(f"metadata/{{{MACHINE}}}machine")
    if text is None:
        return None
    try:
        found = Definition.read(text)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None  # somebody else wrote it
    return found if found.id == top.findtext("uuid") else None  # a copy of one of ours is not ours


def _networks(top: ET.Element) -> Iterator[tuple[str, str]]:
    for interface in top.iterfind("devices/interface"):
        mac, source = interface.find("mac"), interface.find("source")
        if mac is not None and source is not None:
            yield (mac.get("address") or "").lower(), source.get("network") or ""


def _disks(top: ET.Element) -> Iterator[tuple[str, str]]:
    for disk in top.iterfind("devices/disk"):
        source, target = disk.find("source"), disk.find("target")
        if source is not None and target is not None:
            yield target.get("dev") or "", source.get("file") or ""


def _add_start(top: ET.Element, definition: Definition, kind: Kind, files: Files) -> None:
    start = _add(top, "os")
    model = {} if kind.machine is None else {"machine": kind.machine}
    _add(start, "type", "hvm", {"arch": kind.arch, **model})
    if files.kernel is None:
        _add(start, "boot", attributes={"dev": "hd"})
        return
    _add(start, "kernel", files.kernel)
    if files.initrd is not None:
        _add(start, "initrd", files.initrd)
    if definition.append:
        _add(start, "cmdline", definition.append)


def _disk(
    path: str, kind: str, target: dict[str, str], *, serial: str | None = None, read_only: bool = False
) -> ET.Element:
    disk = ET.Element("disk", {"type": "file", "device": "disk"})
    _add(disk, "driver", attributes={"name": "qemu", "type": kind, **({} if read_only else {"discard": "unmap"})})
    _add(disk, "source", attributes={"file": path})
    _add(disk, "target", attributes=target)
    if serial is not None:
        _add(disk, "serial", serial)
    if read_only:
        _add(disk, "readonly")
    return disk


def _add_own_network(commands: ET.Element, definition: Definition, tag: str) -> None:
    """Add a network as QEMU itself makes it: libvirt has words for forwarded ports only with a program beside it."""
    forwards = "".join(f",hostfwd={protocol}:127.0.0.1:0-:{port}" for protocol, port in sorted(definition.forwarded))
    device = "virtio-net-pci,netdev=net,romfile=,addr=0x10"  # a slot far behind those that libvirt gives
    for word in ("-netdev", f"user,id=net{forwards}", "-device", device):
        _add(commands, tag, attributes={"value": word})


def _mac(id: str) -> str:
    """Return an address of QEMU's range that is the machine's for its life."""
    return ":".join(("52:54:00", id[-6:-4], id[-4:-2], id[-2:]))


def _add(
    above: ET.Element, tag: str, text: str | None = None, attributes: Mapping[str, str] | None = None
) -> ET.Element:
    found = ET.SubElement(above, tag, dict(attributes or {}))
    found.text = text
    return found


def _written(top: ET.Element) -> str:
    text = ET.tostring(top, encoding="unicode")
    unfit = _UNFIT.search(text)
    if unfit is not None:
        raise _invalid(
            f"libvirt's XML cannot hold the character {unfit[0]!r}, as it stands in a name or a command line"
        )
    return text


def _read(text: str) -> ET.Element:
    return ET.fromstring(text)  # noqa: S314  the hypervisor's own, which runs what we tell it


def _invalid(why: str) -> FilesError:
    return FilesError(Fault(InvalidArgument, why))

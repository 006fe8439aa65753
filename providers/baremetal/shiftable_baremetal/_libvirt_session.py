"""The connection to a hypervisor, and what goes through it."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any, Protocol
from urllib.parse import urlsplit

import attrs

from shiftable.errors import ConfigError, Fault, QuotaExceeded
from shiftable_baremetal._faults import FilesError
from shiftable_baremetal._libvirt_xml import Kind, read_kind, read_length

__all__ = ["Readable", "Session", "binding"]

_HOW_TO_GET = (
    "machines of libvirt need its binding for Python: pip install 'shiftable-baremetal[libvirt]', which is built on "
    "this computer and needs apt install libvirt-dev pkg-config gcc python3-dev, or dnf install libvirt-devel gcc "
    "python3-devel, or brew install libvirt pkg-config; Debian's python3-libvirt is for Debian's own Python alone"
)

_EVERYTHING = 1 | 2 | 4 | 16  # saved state, snapshots, variables of the firmware, checkpoints: virDomainUndefineFlags


def binding(name: str = "libvirt") -> Any:  # noqa: ANN401  libvirt has no types
    """Return libvirt's own module.

    Raises:
        ConfigError: it is not here; says how to get it.
    """
    try:
        return importlib.import_module(name)
    except ImportError as exc:
        raise ConfigError(f"{_HOW_TO_GET} ({exc})") from exc


class Readable(Protocol):
    """What a volume is filled with."""

    def read(self, most: int, /) -> bytes:
        """Return the next bytes; none at the end."""
        ...


@attrs.define(eq=False)
class Session:
    """One connection, which any thread may use; opened when it is needed, and again when it was lost.

    Args:
        uri: as libvirt has it. Over ssh nothing is asked at a terminal.
    """

    uri: str
    _lock: threading.RLock = attrs.field(factory=threading.RLock, init=False, repr=False)
    _opened: tuple[int, Any] | None = attrs.field(default=None, init=False, repr=False)
    _inherited: list[Any] = attrs.field(factory=list, init=False, repr=False)

    @property
    def connection(self) -> Any:  # noqa: ANN401  libvirt has no types
        """The connection.

        Raises:
            ConfigError: there is no libvirt for Python.
            libvirtError: the hypervisor cannot be reached.
        """
        with self._lock:
            if self._opened is not None:
                process, connection = self._opened
                if process == os.getpid() and connection.isAlive():
                    return connection
                self._forget()
            libvirt = binding()
            libvirt.registerErrorHandler(_say_nothing, None)  # errors are raised; it would print them as well
            connection = self._open(libvirt)
            self._opened = (os.getpid(), connection)
            return connection

    def close(self) -> None:
        """End the connection. The next use opens another."""
        with self._lock:
            opened = self._forget()
        if opened is not None:
            opened.close()

    def _forget(self) -> Any:  # noqa: ANN401  libvirt has no types
        """Let go of the connection, and return it if it is this process's own."""
        opened, self._opened = self._opened, None
        if opened is not None and opened[0] != os.getpid():
            self._inherited.append(opened[1])  # to close it would end the parent's conversation
            return None
        return None if opened is None else opened[1]

    def _open(self, libvirt: Any) -> Any:  # noqa: ANN401  libvirt has no types
        address = self.uri
        if "ssh" in urlsplit(address).scheme and "no_tty=" not in address:
            address += f"{'&' if urlsplit(address).query else '?'}no_tty=1"
        return libvirt.open(address)

    def upload(self, volume: Any, content: Readable, size: int, *, offset: int = 0) -> None:  # noqa: ANN401  libvirt has no types
        """Fill a volume, from an offset on.

        Its end is read again: libvirt writes behind the stream, and loses the error of a disk that is full (9.0.0).

        Raises:
            FilesError: not all of it is there.
        """
        end = _End(sent=offset)
        with self._stream() as stream:
            volume.upload(stream, offset, size, 0)
            stream.sendAll(lambda _stream, count, file: end.seen(file.read(count)), content)
            stream.finish()
        if end.data and self.download(volume, end.offset, len(end.data)) != end.data:
            why = f"not all that was sent is in the volume {volume.name()!r}: its pool is full, or its disk fails"
            raise FilesError(Fault(QuotaExceeded, why))

    def download(self, volume: Any, offset: int, length: int = 0) -> bytes:  # noqa: ANN401  libvirt has no types
        """Return what a volume holds from an offset on, all or so many bytes."""
        parts: list[bytes] = []
        self._receive(volume, offset, length, parts.append)
        return b"".join(parts)

    def sha256(self, volume: Any, length: int) -> str:  # noqa: ANN401  libvirt has no types
        """Return the digest of the first bytes in a volume."""
        digest = hashlib.sha256()
        self._receive(volume, 0, length, digest.update)
        return digest.hexdigest()

    def length(self, volume: Any) -> int:  # noqa: ANN401  libvirt has no types
        """Return how many bytes the file of a volume has."""
        return read_length(volume.XMLDesc(0))

    def leases(self, network: Any) -> dict[str, tuple[str, ...]]:  # noqa: ANN401  libvirt has no types
        """Return the addresses that a network has given, by the hardware's addresses."""
        found: dict[str, tuple[str, ...]] = {}
        for lease in network.DHCPLeases():
            mac = str(lease["mac"]).lower()
            found[mac] = (*found.get(mac, ()), str(lease["ipaddr"]))
        return {mac: tuple(sorted(set(known), key=lambda each: (":" in each, each))) for mac, known in found.items()}

    def kind(self, accelerator: str) -> Kind:
        """Return what the hypervisor runs machines with.

        Args:
            accelerator: ``kvm``, ``tcg``, or ``auto``: the better one that it has.
        """
        wanted = {"kvm": "kvm", "tcg": "qemu"}.get(accelerator)
        return read_kind(self.connection.getDomainCapabilities(None, "x86_64", "q35", wanted, 0))

    def undefine(self, domain: Any) -> None:  # noqa: ANN401  libvirt has no types
        """Have a domain vanish that does not run, with all that libvirt itself keeps of it."""
        domain.undefineFlags(_EVERYTHING)

    def reset(self, domain: Any) -> None:  # noqa: ANN401  libvirt has no types
        """Restart a domain as by the button at its case."""
        domain.reset(0)

    def _receive(self, volume: Any, offset: int, length: int, take: Callable[[bytes], object]) -> None:  # noqa: ANN401  libvirt has no types
        with self._stream() as stream:
            volume.download(stream, offset, length, 0)
            stream.recvAll(lambda _stream, data, _: take(data), None)
            stream.finish()

    @contextlib.contextmanager
    def _stream(self) -> Iterator[Any]:
        stream = self.connection.newStream(0)
        try:
            yield stream
        except BaseException:
            with contextlib.suppress(Exception):
                stream.abort()
            raise


@attrs.define
class _End:
    """The last of what was sent that is not zero, which is what a volume is full of before."""

    _sent: int
    offset: int = 0
    data: bytes = b""

    def seen(self, data: bytes) -> bytes:
        if data.count(0) < len(data):
            self.offset, self.data = self._sent, data
        self._sent += len(data)
        return data


def _say_nothing(_context: object, _error: object) -> None:
    """Keep libvirt from printing."""

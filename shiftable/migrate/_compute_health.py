"""Whether machines do what they are there for: a port that answers, the banner of ssh, a page of HTTP."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, cast

import attrs

from shiftable.compute import MachineInfo
from shiftable.errors import InvalidArgument
from shiftable.parallel import parallel

__all__ = ["HealthCheck", "address_of", "ailing"]

_FORM = re.compile(r"(tcp|ssh|http)(?::([0-9]{1,5}))?(/[!-~]*?)?(?:=([1-5][0-9]{2}))?")
_PORTS = {"ssh": 22, "http": 80}
_HERE = "127.0.0.1"
_AT_ONCE = 16
_MOST = 4096  # bytes of a first line


@attrs.frozen
class HealthCheck:
    """One look at a machine from here: ``tcp:5432``, ``ssh``, ``ssh:2222``, ``http:8080/health``, ``http:80/=204``.

    ``tcp``: the port takes a connection. ``ssh``: it greets as ssh does; nobody logs in. ``http``: a GET is answered
    with that status, 200 if none is named; no redirection is followed, and TLS is not spoken.
    """

    kind: Literal["tcp", "ssh", "http"]
    port: int
    path: str = "/"
    status: int = 200

    @classmethod
    def parse(cls, text: str) -> HealthCheck:
        """Read one as it is written.

        Raises:
            InvalidArgument: it is none.
        """
        found = _FORM.fullmatch(text)
        kind = found[1] if found else ""
        port = int(found[2] or _PORTS.get(kind, 0)) if found else 0
        if found is None or not 0 < port < 65536 or (kind != "http" and (found[3] or found[4])):
            raise InvalidArgument(f"{text!r} is no check; write tcp:5432, ssh, ssh:2222 or http:8080/health=200")
        kind = cast("Literal['tcp', 'ssh', 'http']", kind)
        return cls(kind, port, found[3] or "/", int(found[4] or 200))

    def failure(self, host: str, timeout: float, *, port: int | None = None) -> str | None:
        """Look once; say what is wrong, or nothing.

        Args:
            port: where the port is reached, if not at itself.
        """
        try:
            line = self._line(host, port or self.port, time.monotonic() + timeout)
        except OSError as exc:
            return f"{self} at {host}: {exc.strerror or str(exc) or type(exc).__name__}"
        if self.kind == "ssh" and not line.startswith(b"SSH-"):
            return f"{self} at {host}: it does not greet as ssh does"
        if self.kind == "http":
            found = re.match(rb"HTTP/[\d.]+ (\d{3})(?: |$)", line)
            if found is None:
                return f"{self} at {host}: it does not answer as HTTP does"
            if int(found[1]) != self.status:
                return f"{self} at {host}: it answers {found[1].decode()}"
        return None

    def _line(self, host: str, port: int, deadline: float) -> bytes:
        """Connect, ask if it is to be asked, and return the first line; never longer than until the deadline."""
        with socket.create_connection((host, port), timeout=max(0.001, deadline - time.monotonic())) as connection:
            if self.kind == "tcp":
                return b""
            if self.kind == "http":
                name = f"[{host}]" if ":" in host else host
                connection.sendall(
                    f"GET {self.path} HTTP/1.1\r\nHost: {name}:{self.port}\r\nConnection: close\r\n\r\n".encode("ascii")
                )
            line = b""
            while b"\n" not in line and len(line) < _MOST:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise TimeoutError("timed out")
                connection.settimeout(left)
                more = connection.recv(_MOST)
                if not more:
                    break
                line += more
            return line.split(b"\n")[0].rstrip(b"\r")

    def __str__(self) -> str:
        if self.kind == "http":
            return f"http:{self.port}{self.path}={self.status}"
        return f"{self.kind}:{self.port}"


def address_of(machine: MachineInfo) -> str | None:
    """Return where a machine is reached: from the internet, if it can be."""
    return next(iter((*machine.public_addresses, *machine.addresses)), None)


def _failure(check: HealthCheck, machine: MachineInfo, host: str, attempt: float) -> str | None:
    """Look at a machine once. A port of this computer that leads to no machine is somebody else's."""
    if host == _HERE and machine.ports and check.port not in machine.ports:
        return f"{check} at {host}: the port leads to no machine; open {check.port} in the declaration"
    return check.failure(host, attempt, port=machine.ports.get(check.port))


def ailing(
    checks: Sequence[HealthCheck],
    machines: Sequence[MachineInfo],
    *,
    timeout: float,
    attempt: float = 5.0,
    interval: float = 2.0,
    clock: Callable[[], float] = time.monotonic,
    pause: Callable[[float], object] = time.sleep,
) -> Mapping[str, str]:
    """Look at all machines, again and again until all are well or the time is over; say what is wrong with which.

    Args:
        timeout: seconds for all of it; one look is always taken.
        attempt: seconds for one look.
    """

    def look(machine: MachineInfo) -> str:
        host = address_of(machine)
        if host is None:
            return "it has no address"
        found = (_failure(check, machine, host, attempt) for check in checks)
        return "; ".join(why for why in found if why is not None)

    deadline, left = clock() + timeout, list(machines) if checks else []
    found: dict[str, str] = {}
    while left:
        told = {machine.name: future.result() for machine, future in parallel(look, left, workers=_AT_ONCE)}
        found = {machine.name: told[machine.name] for machine in left if told[machine.name]}
        left = [machine for machine in left if machine.name in found]
        if left and clock() >= deadline:
            break
        if left:
            pause(interval)
    return found

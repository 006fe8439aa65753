"""QEMU's monitor: QMP over a socket beside the machine's files.

Rules: QEMU's documentation, "QEMU Machine Protocol Specification" and "QEMU QMP Reference Manual".
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

__all__ = ["PATIENCE", "Monitor", "MonitorError"]

PATIENCE = 5.0
"""Seconds in which a monitor that works has answered everything."""

_LONGEST_PATH = 100  # of a socket; the system's limit is 104 or 108
_AT_ONCE = 64 * 1024
_MOST = 16 * 1024 * 1024
_FORWARD = re.compile(r"^\s*(TCP|UDP)\[HOST_FORWARD\]\s+\d+\s+127\.0\.0\.1\s+(\d+)\s+\S+\s+(\d+)\s", re.MULTILINE)


class MonitorError(Exception):
    """What QEMU refuses, or that its monitor does not answer."""

    def __init__(self, message: str, code: str = "") -> None:
        super().__init__(message)
        self.code = code


class Monitor:
    """One conversation with a QEMU. It talks to one client at a time, so it is short.

    Args:
        path: of the socket.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._end = time.monotonic() + PATIENCE
        self._socket = socket.socket(socket.AF_UNIX)
        self._read = b""

    def __enter__(self) -> Self:
        try:
            self._socket.settimeout(self._left())
            with _short(self._path) as path:
                self._socket.connect(path)
            self._message()
            self.ask("qmp_capabilities")
        except OSError as exc:
            self._socket.close()
            raise MonitorError(f"the monitor of QEMU does not answer: {exc.strerror or exc}") from exc
        except BaseException:
            self._socket.close()
            raise
        return self

    def __exit__(self, cls: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self._socket.close()

    def ask(self, command: str, arguments: Mapping[str, Any] | None = None) -> Any:  # noqa: ANN401  as QMP answers
        """Give a command and return the answer.

        Raises:
            MonitorError: QEMU refuses it, has ended, or does not answer.
        """
        asked = {"execute": command, **({"arguments": dict(arguments)} if arguments else {})}
        try:
            self._socket.settimeout(self._left())
            self._socket.sendall(json.dumps(asked).encode() + b"\r\n")
            while True:
                told = self._message()
                if "error" in told:
                    raise MonitorError(str(told["error"].get("desc")), str(told["error"].get("class", "")))
                if "return" in told:
                    return told["return"]
        except OSError as exc:
            raise MonitorError(f"the monitor of QEMU does not answer: {exc.strerror or exc}") from exc

    def status(self) -> str:
        """Return what the machine does, in QEMU's word."""
        return str(self.ask("query-status")["status"])

    def forwards(self) -> dict[tuple[str, int], int]:
        """Return the ports of the machine that are reached from here, and the ports of 127.0.0.1 that lead there."""
        told = self._say("info usernet").replace("\r", "")
        return {(kind.lower(), int(inside)): int(outside) for kind, outside, inside in _FORWARD.findall(told)}

    def lead(self, wanted: frozenset[tuple[str, int]]) -> None:
        """Lead ports of 127.0.0.1 to these of the machine, and none to others."""
        there = self.forwards()
        for protocol, port in sorted(wanted - there.keys()):
            self.forward(protocol, port)
        for protocol, port in sorted(there.keys() - wanted):
            self.close_forward(protocol, there[protocol, port])

    def forward(self, protocol: str, port: int) -> None:
        """Lead a port of 127.0.0.1, which the system chooses, to one of the machine."""
        self._must(f"hostfwd_add net {protocol}:127.0.0.1:0-:{port}")

    def close_forward(self, protocol: str, outside: int) -> None:
        """Lead a port of 127.0.0.1 nowhere any more."""
        self._must(f"hostfwd_remove net {protocol}:127.0.0.1:{outside}", but="removed")

    def _must(self, line: str, *, but: str = "") -> None:
        told = self._say(line).strip()
        if told and not (but and told.endswith(but)):
            raise MonitorError(told)

    def _say(self, line: str) -> str:
        return str(self.ask("human-monitor-command", {"command-line": line}))

    def _message(self) -> dict[str, Any]:
        while b"\n" not in self._read:
            self._socket.settimeout(self._left())
            got = self._socket.recv(_AT_ONCE)
            if not got:
                raise MonitorError("QEMU has ended")
            self._read += got
            if len(self._read) > _MOST:
                raise MonitorError("the monitor of QEMU does not end its answer")
        line, self._read = self._read.split(b"\n", 1)
        try:
            told = json.loads(line)
        except ValueError:
            raise MonitorError("the monitor of QEMU does not speak QMP") from None
        if not isinstance(told, dict):
            raise MonitorError("the monitor of QEMU does not speak QMP")
        return told

    def _left(self) -> float:
        left = self._end - time.monotonic()
        if left <= 0:
            raise TimeoutError("it took too long")
        return left


@contextlib.contextmanager
def _short(path: Path) -> Iterator[str]:
    """Return a path of the socket that is short enough for the system."""
    if len(os.fsencode(path)) <= _LONGEST_PATH:
        yield str(path)
        return
    with tempfile.TemporaryDirectory(prefix="qmp-") as name:
        (Path(name) / "m").symlink_to(path.parent)
        yield f"{name}/m/{path.name}"

"""QEMU's monitor through libvirt, for what libvirt itself has no words: the ports of a network of its own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from shiftable_baremetal._libvirt_session import binding
from shiftable_baremetal._qemu_monitor import Monitor, MonitorError

__all__ = ["DomainMonitor"]


class DomainMonitor(Monitor):
    """One conversation with the QEMU of a domain; libvirt keeps others from talking at the same time.

    Args:
        domain: of libvirt, which runs.
    """

    def __init__(self, domain: Any) -> None:  # noqa: ANN401  libvirt has no types
        self._domain = domain

    def __enter__(self) -> Self:
        return self

    def __exit__(self, cls: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        return

    def ask(self, command: str, arguments: Mapping[str, Any] | None = None) -> Any:  # noqa: ANN401  as QMP answers
        """Give a command and return the answer."""
        asked = {"execute": command, **({"arguments": dict(arguments)} if arguments else {})}
        told = json.loads(binding("libvirt_qemu").qemuMonitorCommand(self._domain, json.dumps(asked), 0))
        if "error" in told:
            raise MonitorError(str(told["error"].get("desc")), str(told["error"].get("class", "")))
        return told["return"]

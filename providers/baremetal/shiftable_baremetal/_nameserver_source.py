"""Where a name server's zones come from: files, which tell when they change, or any driver, which is asked again."""

from __future__ import annotations

import os
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path

import attrs

from shiftable.dns.driver import DnsDriver, RecordChange, RecordKey, RecordSet
from shiftable.errors import Fault
from shiftable.paging import paged
from shiftable_baremetal._zonefile import ZoneFolder
from shiftable_baremetal.dns import ZoneFilesDriver

__all__ = ["Source", "State", "View", "source_of"]

_SETTLED = 50_000_000
"""Nanoseconds, see ``_zonefile``."""


@attrs.frozen(eq=False)
class State:
    """One state of a zone; the same object as long as the zone is the same."""

    records: Mapping[RecordKey, RecordSet] = attrs.field(repr=False)


class Source(ABC):
    """Zones that are served."""

    driver: DnsDriver

    @abstractmethod
    def zones(self) -> frozenset[str]:
        """Return the zones that there are; the same object as long as they are the same."""

    @abstractmethod
    def state(self, zone: str) -> State:
        """Return a zone as it is now. The driver's errors pass."""

    @abstractmethod
    def changed(self, zone: str) -> None:
        """Forget the state of a zone: it was written."""

    def unfit(self, zone: str, changes: tuple[RecordChange, ...]) -> str | None:
        """Say why the driver could not keep what is to be written; ``None`` if it can."""
        for change in changes:
            why = None if change.after is None else self.driver.check_record(zone, change.after)
            if why is not None:
                return f"{change.key}: {why}"
        return None

    def write(self, zone: str, changes: tuple[RecordChange, ...]) -> None:
        """Write changes of one message, all or none. The driver's errors pass."""
        try:
            self.driver.change(zone, changes)
        finally:
            self.changed(zone)

    def fault(self, exc: Exception) -> Fault | None:
        """Say what the driver makes of an error."""
        return self.driver.classify(exc)


@attrs.define(eq=False)
class View:
    """The zones as they are for one moment: each is looked at once."""

    _source: Source
    _zones: frozenset[str] | None = None
    _states: dict[str, State] = attrs.field(factory=dict)

    @property
    def zones(self) -> frozenset[str]:
        """The zones that there are; the same object as long as they are the same."""
        if self._zones is None:
            self._zones = self._source.zones()
        return self._zones

    def state(self, zone: str) -> State:
        """Return a zone as it is. The driver's errors pass."""
        state = self._states.get(zone)
        if state is None:
            state = self._states[zone] = self._source.state(zone)
        return state


@attrs.define(eq=False)
class _Files(Source):
    """Zone files: two calls of the operating system tell whether all is as it was."""

    driver: ZoneFilesDriver
    _folder: ZoneFolder = attrs.field(init=False)
    _root: str = attrs.field(init=False)
    _seen: tuple[int, int] | None = None
    _zones: frozenset[str] = frozenset()
    _states: dict[str, tuple[object, State]] = attrs.field(factory=dict, repr=False)

    @_folder.default
    def _open(self) -> ZoneFolder:
        return self.driver.folder

    @_root.default
    def _find(self) -> str:
        return str(self.driver.folder.root)

    def zones(self) -> frozenset[str]:
        """Look into the folder again if it has changed."""
        try:
            status = os.stat(self._root)  # noqa: PTH116  half the time of Path's
        except FileNotFoundError:
            self._seen, self._zones = None, frozenset()
            return self._zones
        stamp = (status.st_mtime_ns, status.st_ino)
        if stamp != self._seen:
            settled = time.time_ns() - status.st_mtime_ns > _SETTLED
            found = frozenset(self._folder.zones())
            self._zones = found if found != self._zones else self._zones
            self._seen = stamp if settled else None
        return self._zones

    def state(self, zone: str) -> State:
        """Read the file if it has changed."""
        content = self._folder.load(zone)
        known = self._states.get(zone)
        if known is None or known[0] is not content:
            known = self._states[zone] = (content, State(content.records))
        return known[1]

    def changed(self, zone: str) -> None:
        """Do nothing: the file tells."""


@attrs.define(eq=False)
class _Driver(Source):
    """Any driver: read again after a while, and after each update."""

    driver: DnsDriver
    _refresh: float
    _names: tuple[float, frozenset[str]] | None = None
    _states: dict[str, tuple[float, State]] = attrs.field(factory=dict, repr=False)
    _lock: threading.RLock = attrs.field(factory=threading.RLock, repr=False)

    def zones(self) -> frozenset[str]:
        """List the zones again after a while."""
        with self._lock:
            now = time.monotonic()
            if self._names is None or now - self._names[0] > self._refresh:
                found = frozenset(paged(self.driver.names, limit=None))
                same = self._names is not None and self._names[1] == found
                self._names = (now, self._names[1] if same and self._names else found)
            return self._names[1]

    def state(self, zone: str) -> State:
        """Read the zone again after a while."""
        with self._lock:
            now, known = time.monotonic(), self._states.get(zone)
            if known is not None and now - known[0] <= self._refresh:
                return known[1]
            records = {record.key: record for record in self._records(zone)}
            state = known[1] if known is not None and _same(known[1].records, records) else State(records)
            self._states[zone] = (now, state)
            return state

    def _records(self, zone: str) -> Iterator[RecordSet]:
        return paged(lambda cursor, limit: self.driver.records(zone, name=None, cursor=cursor, limit=limit), limit=None)

    def changed(self, zone: str) -> None:
        """Read the zone again when it is next needed."""
        with self._lock:
            self._states.pop(zone, None)


def _same(before: Mapping[RecordKey, RecordSet], after: Mapping[RecordKey, RecordSet]) -> bool:
    """Tell whether two states answer the same, serial included."""
    return before == after and all(before[key].rdatas == after[key].rdatas for key in before)


def source_of(zones: DnsDriver | Path, refresh: float) -> Source:
    """Return the source for a folder of zone files or a driver."""
    driver = ZoneFilesDriver(zones) if isinstance(zones, Path) else zones
    return _Files(driver) if isinstance(driver, ZoneFilesDriver) else _Driver(driver, refresh)

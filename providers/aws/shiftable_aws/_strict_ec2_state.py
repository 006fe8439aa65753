"""What the double of EC2 holds, and how time passes in it."""

from __future__ import annotations

import base64
import itertools
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Any

import attrs

from shiftable_aws._strict_refused import Refused

__all__ = ["Arguments", "Asked", "Data", "Machine", "Region", "page"]

Arguments = Mapping[str, Any]
Data = dict[str, Any]


@attrs.define
class Machine:
    """A machine: what DescribeInstances tells of it, and what it does not.

    Args:
        number: in the order of creation.
        made: when; told to nobody before it is ``seen``.
        epoch: what was begun before the last command does not end.
    """

    data: Data
    number: int
    reservation: str
    made: datetime
    seen: datetime
    user_data: bytes = attrs.field(default=b"", repr=False)
    console: list[str] = attrs.field(factory=list, repr=False)
    is_protected: bool = False
    epoch: int = 0

    @property
    def id(self) -> str:
        return str(self.data["InstanceId"])

    @property
    def state(self) -> str:
        return str(self.data["State"]["Name"])

    @state.setter
    def state(self, name: str) -> None:
        codes = {"pending": 0, "running": 16, "shutting-down": 32, "terminated": 48, "stopping": 64, "stopped": 80}
        self.data["State"] = {"Code": codes[name], "Name": name}
        self.console.append(f"[{name}]")

    @property
    def is_gone(self) -> bool:
        return self.state == "terminated"

    @property
    def name(self) -> str:
        return next((str(tag["Value"]) for tag in self.data["Tags"] if tag["Key"] == "Name"), "")


@attrs.define
class Asked:
    """A request that came with a token: repeated, it makes nothing new."""

    what: str = attrs.field(repr=False)
    made: tuple[str, ...]
    until: datetime | None = None


@attrs.define
class Region:
    """What one region has."""

    name: str
    machines: dict[str, Machine] = attrs.field(factory=dict)
    volumes: dict[str, Data] = attrs.field(factory=dict)
    snapshots: dict[str, Data] = attrs.field(factory=dict)
    images: dict[str, Data] = attrs.field(factory=dict)
    imports: dict[str, Data] = attrs.field(factory=dict)
    placement_groups: dict[str, Data] = attrs.field(factory=dict)
    asked: dict[tuple[str, ...], Asked] = attrs.field(factory=dict)
    numbers: Iterator[int] = attrs.field(factory=lambda: itertools.count(1))
    _ahead: list[tuple[datetime, int, Callable[[], None]]] = attrs.field(factory=list)

    def id(self, prefix: str) -> str:
        """Make an id."""
        return f"{prefix}-{next(self.numbers):017x}"

    def later(self, at: datetime, act: Callable[[], None]) -> None:
        """Let something happen."""
        self._ahead.append((at, next(self.numbers), act))

    def pass_time(self, now: datetime) -> None:
        """Let everything happen that has become due, in its order."""
        while self._ahead:
            first = min(self._ahead, key=lambda entry: entry[:2])
            if first[0] > now:
                return
            self._ahead.remove(first)
            first[2]()

    def machine(self, id_: str, now: datetime) -> Machine:
        """Return a machine that EC2 tells of."""
        found = self.machines.get(id_)
        if found is None or found.seen > now:
            raise Refused("InvalidInstanceID.NotFound", f"The instance ID '{id_}' does not exist")
        return found

    def tagged(self, id_: str) -> Data | None:
        """Return what has that id."""
        if id_ in self.machines:
            return self.machines[id_].data
        cards = (card for machine in self.machines.values() for card in machine.data.get("NetworkInterfaces", ()))
        found = self.volumes.get(id_) or self.snapshots.get(id_) or self.images.get(id_)
        return found or next((card for card in cards if card["NetworkInterfaceId"] == id_), None)


def page(items: list[Any], arguments: Arguments, limits: tuple[int, int], most: int) -> tuple[list[Any], Data]:
    """Cut one page.

    Args:
        limits: of MaxResults.
        most: what the double answers at most.
    """
    least, largest = limits
    size = arguments.get("MaxResults") or largest
    if not least <= size <= largest:
        text = f"Value ( {size} ) for parameter maxResults is invalid. Expecting a value between {least} and {largest}."
        raise Refused("InvalidParameterValue", text)
    token = arguments.get("NextToken")
    try:
        start = int(base64.b64decode(token)) if token else 0
    except ValueError:
        raise Refused("InvalidPaginationToken", "The pagination token is invalid") from None
    stop = start + min(size, most)
    if stop >= len(items):
        return items[start:], {}
    return items[start:stop], {"NextToken": base64.b64encode(str(stop).encode()).decode()}

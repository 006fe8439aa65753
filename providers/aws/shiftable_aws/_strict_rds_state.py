"""What the double of RDS holds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Any

import attrs
from moto.core.models import DEFAULT_ACCOUNT_ID

from shiftable_aws._strict_refused import Refused

__all__ = [
    "Arguments",
    "Data",
    "Group",
    "Region",
    "Server",
    "Step",
    "Taken",
    "filters",
    "group_of",
    "key_of",
    "page",
    "security_groups",
]

Arguments = Mapping[str, Any]
Data = dict[str, Any]

_LEAST_PAGE, _PAGE = 20, 100


@attrs.define
class Step:
    """What happens to a server or a snapshot next."""

    at: datetime
    status: str
    then: Callable[[], None] | None = None


@attrs.define
class Server:
    """A server: what DescribeDBInstances tells of it, and what it does not."""

    data: Data
    password: str = attrs.field(repr=False)
    contents: str | None = attrs.field(default=None, repr=False)
    steps: list[Step] = attrs.field(factory=list)
    pending: Data = attrs.field(factory=dict, repr=False)

    @property
    def status(self) -> str:
        return str(self.data["DBInstanceStatus"])


@attrs.define
class Taken:
    """A snapshot, and the server as it was."""

    data: Data
    server: Data
    password: str = attrs.field(repr=False)
    contents: str | None = attrs.field(default=None, repr=False)
    steps: list[Step] = attrs.field(factory=list)


@attrs.define
class Group:
    """A parameter group."""

    data: Data
    tags: list[Data]
    values: dict[str, str] = attrs.field(factory=dict)


@attrs.define
class Region:
    """What one region has."""

    name: str
    servers: dict[str, Server] = attrs.field(factory=dict)
    snapshots: dict[str, Taken] = attrs.field(factory=dict)
    groups: dict[str, Group] = attrs.field(factory=dict)

    def server(self, name: str) -> Server:
        """Return a server."""
        server = self.servers.get(name.lower())
        if server is None:
            raise Refused("DBInstanceNotFound", f"DBInstance {name} not found.", 404)
        return server

    def snapshot(self, name: str) -> Taken:
        """Return a snapshot."""
        taken = self.snapshots.get(name.lower())
        if taken is None:
            raise Refused("DBSnapshotNotFound", f"DBSnapshot not found: {name}", 404)
        return taken

    def group(self, name: str) -> Group:
        """Return a parameter group."""
        group = self.groups.get(name)
        if group is None:
            raise Refused("DBParameterGroupNotFound", f"DBParameterGroup not found: {name}", 404)
        return group

    def own_group(self, name: str) -> Group:
        """Return a parameter group that may be changed."""
        if name.startswith("default."):
            raise Refused("InvalidDBParameterGroupState", "Default parameter groups cannot be changed or deleted")
        return self.group(name)

    def tags(self, arn: str) -> list[Data]:
        """Return the tags of something, to read and to change."""
        kind, _, name = arn.partition(f"{DEFAULT_ACCOUNT_ID}:")[2].partition(":")
        if kind == "pg":
            return self.group(name).tags
        data = self.server(name).data if kind == "db" else self.snapshot(name).data
        held: list[Data] = data["TagList"]
        return held


def filters(arguments: Arguments) -> dict[str, list[str]]:
    """Return the filters of a request."""
    return {given["Name"]: given["Values"] for given in arguments.get("Filters") or ()}


def page(items: list[Any], arguments: Arguments) -> tuple[list[Any], dict[str, str]]:
    """Cut one page."""
    size = arguments.get("MaxRecords", _PAGE)
    if not _LEAST_PAGE <= size <= _PAGE:
        text = f"Invalid value {size} for MaxRecords. Must be between {_LEAST_PAGE} and {_PAGE}"
        raise Refused("InvalidParameterValue", text)
    start = int(arguments.get("Marker") or 0)
    stop = start + size
    return items[start:stop], ({"Marker": str(stop)} if stop < len(items) else {})


def key_of(region: Region, data: Data) -> str:
    """Return what the listening server of a server goes by."""
    return f"{region.name} {data['DBInstanceIdentifier']}"


def group_of(data: Data) -> str:
    """Return the name of a server's parameter group."""
    return str(data["DBParameterGroups"][0]["DBParameterGroupName"])


def security_groups(data: Data) -> Iterator[str]:
    """Yield the ids of a server's security groups."""
    yield from (group["VpcSecurityGroupId"] for group in data["VpcSecurityGroups"])

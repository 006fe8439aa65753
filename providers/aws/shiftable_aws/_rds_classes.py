"""The instance classes of RDS with their CPUs and memory, which no call of RDS tells.

The table is ``_rds_classes.json``; ``python -m shiftable_aws._rds_classes`` asks AWS for it anew, with the credentials
of boto3's own chain and ``rds:DescribeOrderableDBInstanceOptions`` and ``ec2:DescribeInstanceTypes``.
"""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

import attrs

from shiftable.database.driver import GIB, DatabaseSpec, ServerSize, SizeChoice, choose_size

__all__ = ["Classes", "chosen", "classes", "fetched", "main"]

_FILE = "_rds_classes.json"

# Of two classes of one extent the first one counts: Graviton costs about a tenth less than Intel, and burstable classes
# give a part of their CPUs only. Others (with local disks, for instance) are for who names them.
_FAMILIES = ("m7g", "m8g", "m6g", "m7i", "m6i", "m5", "r7g", "r8g", "r6g", "r7i", "r6i", "r5", "x2g", "t4g", "t3")
_ENGINES = ("postgres", "mysql", "mariadb")
_VALUES_OF_A_FILTER = 200  # Amazon EC2 user guide, Filtering considerations


@attrs.frozen
class Classes:
    """The table.

    Args:
        date: when it was made, ``2026-11-21``.
    """

    date: str
    sizes: Mapping[str, ServerSize]

    @property
    def source(self) -> str:
        """What the table is called in reasons."""
        return f"the table of RDS classes of {self.date}"


@functools.cache
def classes() -> Classes:
    """Read the table."""
    held = json.loads(files("shiftable_aws").joinpath(_FILE).read_text(encoding="utf-8"))
    sizes = {name: ServerSize(name=name, cpus=cpus, memory=gib * GIB) for name, (cpus, gib) in held["classes"].items()}
    return Classes(held["date"], sizes)


def chosen(spec: DatabaseSpec, is_orderable: Callable[[str], bool]) -> SizeChoice:
    """Choose the smallest class that can be had here, asking for as few as possible.

    Raises:
        ValueError: none is large enough.
    """
    refused: set[str] = set()
    while True:
        choice = choose_size(spec, _preferred(refused), source=classes().source)
        if is_orderable(choice.size.name):
            return choice
        refused.add(choice.size.name)


def _preferred(refused: Collection[str]) -> Iterator[ServerSize]:
    """Yield one class of each extent."""
    left = (size for size in classes().sizes.values() if size.name not in refused and _family(size) in _FAMILIES)
    best: dict[tuple[int, int], ServerSize] = {}
    for size in sorted(left, key=lambda size: _FAMILIES.index(_family(size))):
        best.setdefault((size.cpus, size.memory), size)
    return iter(best.values())


def _family(size: ServerSize) -> str:
    return size.name.split(".")[1]


def fetched(rds: Any, ec2: Any) -> dict[str, tuple[int, int]]:  # noqa: ANN401  clients of any boto3
    """Ask AWS for all classes: RDS for their names, EC2 for the CPUs and GiB of the machine behind each."""
    names = {
        option["DBInstanceClass"]
        for engine in _ENGINES
        for page in rds.get_paginator("describe_orderable_db_instance_options").paginate(Engine=engine)
        for option in page["OrderableDBInstanceOptions"]
    }
    types: dict[str, tuple[int, int]] = {}
    machines = sorted({_machine(name) for name in names})
    for start in range(0, len(machines), _VALUES_OF_A_FILTER):
        # A filter, unlike a list of names, is no error where EC2 does not sell one of them.
        filters = [{"Name": "instance-type", "Values": machines[start : start + _VALUES_OF_A_FILTER]}]
        for page in ec2.get_paginator("describe_instance_types").paginate(Filters=filters):
            types |= dict(_extents(page["InstanceTypes"]))
    return {name: types[_machine(name)] for name in sorted(names) if _machine(name) in types}


def _machine(name: str) -> str:
    """Return the machine behind a class; x2g is sold by EC2 with local disks only."""
    return name.removeprefix("db.").replace("x2g.", "x2gd.")


def _extents(found: Iterable[Any]) -> Iterator[tuple[str, tuple[int, int]]]:
    for entry in found:
        yield entry["InstanceType"], (entry["VCpuInfo"]["DefaultVCpus"], entry["MemoryInfo"]["SizeInMiB"] // 1024)


def main(rds: Any, ec2: Any, file: Path, today: str) -> None:  # noqa: ANN401
    """Write the table anew."""
    held = json.loads(file.read_text(encoding="utf-8"))
    rows = ",\n".join(f"    {json.dumps(name)}: {json.dumps(extent)}" for name, extent in fetched(rds, ec2).items())
    head = f'{{\n  "date": {json.dumps(today)},\n  "source": {json.dumps(held["source"])},\n  "classes": {{\n'
    file.write_text(f"{head}{rows}\n  }}\n}}\n", encoding="utf-8")


if __name__ == "__main__":
    import boto3

    main(boto3.client("rds"), boto3.client("ec2"), Path(__file__).with_name(_FILE), f"{datetime.now(UTC):%Y-%m-%d}")
    sys.stderr.write(f"{_FILE} is written\n")

"""Prices of EC2's instance types: US dollars an hour for Linux on demand, which no call of EC2 tells.

The table is ``_ec2_prices.json``. ``python -m shiftable_aws._ec2_prices pricing.json`` makes it anew from the prices
that apache-libcloud publishes: ``libcloud/data/pricing.json`` of its package, or a newer one of its project.

In that of 2 March 2025 a fifth of the rows are prices of dedicated hardware (6, 7 or 10 percent more), and some sizes
are missing. Within a family Amazon's prices are in proportion to the size, but for GPUs; so the lowest price of a
family's unit in a region gives the prices of all its sizes there.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from shiftable.compute.driver import Prices, PriceSource, read_prices, write_prices

__all__ = ["FAMILIES", "REGIONS", "main", "picked", "prices"]

_FILE = "_ec2_prices.json"
_SOURCE = "libcloud/data/pricing.json of apache-libcloud, ec2_linux: Linux on demand"

_UNITS = {"nano": "0.25", "micro": "0.5", "small": "1", "medium": "2", "large": "4", "xlarge": "8"}
_NOT_IN_PROPORTION = ("g", "p")
_PLACES = Decimal("0.00001")

FAMILIES = (
    *("t3", "t3a", "t4g"),
    *("c5", "c6a", "c6g", "c6i", "c7a", "c7g", "c7i", "c7i-flex", "c8g"),
    *("m5", "m6a", "m6g", "m6i", "m7a", "m7g", "m7i", "m7i-flex", "m8g"),
    *("r5", "r6a", "r6g", "r6i", "r7a", "r7g", "r7i", "r8g", "x2gd", "x8g"),
    *("g4dn", "g5", "g5g", "g6", "g6e", "gr6", "p4d", "p5"),
)
"""What sizes are chosen from; others (with local disks or faster networks) are for who names them."""

REGIONS = (
    *("ap-northeast-1", "ap-northeast-2", "ap-northeast-3", "ap-south-1", "ap-southeast-1", "ap-southeast-2"),
    *("ca-central-1", "eu-central-1", "eu-north-1", "eu-south-1", "eu-west-1", "eu-west-2", "eu-west-3"),
    *("sa-east-1", "us-east-1", "us-east-2", "us-west-1", "us-west-2"),
)


def prices() -> Prices:
    """Read the table."""
    return read_prices("shiftable_aws", _FILE)


def picked(published: Mapping[str, Any]) -> Prices:
    """Pick the families and regions of the table from the published prices, and put them right."""
    every: Mapping[str, Any] = published["compute"]["ec2_linux"]
    rows = {name: held for name, held in every.items() if _is_of_table(name)}
    found: dict[str, dict[str, Decimal]] = {}
    for region in REGIONS:
        told = {name: Decimal(str(held[region])) for name, held in rows.items() if held.get(region)}
        found[region] = dict(_put_right(told, rows))
    date = datetime.fromtimestamp(published["updated"], UTC).date()
    return Prices(PriceSource(_SOURCE, date), found)


def _put_right(told: Mapping[str, Decimal], sizes: Iterable[str]) -> Iterator[tuple[str, Decimal]]:
    """Yield the prices of one region.

    Args:
        told: as they are published.
        sizes: all that there are, in any region.
    """
    units: dict[str, Decimal] = {}
    for name, price in told.items():
        family = name.partition(".")[0]
        units[family] = min(units.get(family, price / _units(name)), price / _units(name))
    for name in sizes:
        family = name.partition(".")[0]
        if family.startswith(_NOT_IN_PROPORTION):
            if name in told:
                yield name, told[name]
        elif family in units:
            yield name, (units[family] * _units(name)).quantize(_PLACES)


def _is_of_table(name: str) -> bool:
    family, _, size = name.partition(".")
    return family in FAMILIES and (size in _UNITS or size.endswith("xlarge"))


def _units(name: str) -> Decimal:
    """Return how many times as large a size is as ``small``."""
    size = name.partition(".")[2]
    return Decimal(_UNITS[size]) if size in _UNITS else 8 * Decimal(size.removesuffix("xlarge"))


def main(source: Path, file: Path) -> None:
    """Write the table anew."""
    write_prices(file, picked(json.loads(source.read_text(encoding="utf-8"))))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(__file__).with_name(_FILE))
    sys.stderr.write(f"{_FILE} is written\n")

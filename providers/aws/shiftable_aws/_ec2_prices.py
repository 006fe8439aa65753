"""Prices of EC2's instance types: US dollars an hour for Linux on demand, which no call of EC2 tells.

The table is ``_ec2_prices.json``. ``python -m shiftable_aws._ec2_prices pricing.json`` makes it anew from the prices
that apache-libcloud publishes: ``libcloud/data/pricing.json`` of its package, or a newer one of its project.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from shiftable.compute.driver import Prices, PriceSource, read_prices, write_prices

__all__ = ["FAMILIES", "REGIONS", "main", "picked", "prices"]

_FILE = "_ec2_prices.json"
_SOURCE = "libcloud/data/pricing.json of apache-libcloud, ec2_linux: Linux on demand"

FAMILIES = (
    *("t3", "t3a", "t4g"),
    *("c5", "c5a", "c6a", "c6g", "c6i", "c7a", "c7g", "c7i", "c7i-flex", "c8g"),
    *("m5", "m5a", "m6a", "m6g", "m6i", "m7a", "m7g", "m7i", "m7i-flex", "m8g"),
    *("r5", "r5a", "r6a", "r6g", "r6i", "r7a", "r7g", "r7i", "r8g", "x2gd", "x8g"),
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
    """Pick the families and regions of the table from the published prices."""
    found: dict[str, dict[str, Decimal]] = {region: {} for region in REGIONS}
    for name, of_region in published["compute"]["ec2_linux"].items():
        family, _, size = name.partition(".")
        if family not in FAMILIES or not size or size.startswith("metal"):
            continue
        for region in REGIONS:
            price = Decimal(str(of_region.get(region) or 0))
            if price:
                found[region][name] = price
    date = datetime.fromtimestamp(published["updated"], UTC).date()
    return Prices(PriceSource(_SOURCE, date), found)


def main(source: Path, file: Path) -> None:
    """Write the table anew."""
    write_prices(file, picked(json.loads(source.read_text(encoding="utf-8"))))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(__file__).with_name(_FILE))
    sys.stderr.write(f"{_FILE} is written\n")

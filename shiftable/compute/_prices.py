"""What machines cost: the dated table that a provider's package carries, since few providers tell prices by a call.

The table is one JSON file beside the driver, and a script in the package makes it anew (``write_prices``)::

    {
      "date": "2025-03-02",
      "source": "libcloud/data/pricing.json of apache-libcloud, ec2_linux: Linux on demand",
      "currency": "USD",
      "regions": {
        "eu-central-1": {"t3.micro": 0.012, "t3.small": 0.024}
      }
    }

``date`` is when the prices were published, not when the file was written. Prices are what one machine of a size costs
an hour, on demand, under Linux, in US dollars; a size that is not sold in a region does not stand there. Names of
regions and sizes are the provider's own, in full.
"""

from __future__ import annotations

import datetime as dt
import functools
import json
from collections.abc import Mapping
from datetime import timedelta
from decimal import Decimal
from importlib.resources import files
from pathlib import Path
from typing import Any

import attrs

from shiftable.errors import ConfigError

__all__ = ["PriceSource", "Prices", "read_prices", "write_prices"]

CURRENCY = "USD"  # of Size.price
OLD = timedelta(days=180)


@attrs.frozen
class PriceSource:
    """Where prices are from.

    Args:
        source: in words.
        date: when they were published, where that is known.
    """

    source: str
    date: dt.date | None = None

    def __str__(self) -> str:
        return f"{self.source}, {self.date}" if self.date else self.source

    def warning(self, today: dt.date) -> str | None:
        """Say how old the prices are, if that is so old that they may be wrong."""
        if self.date is None or today - self.date < OLD:
            return None
        months = (today.year - self.date.year) * 12 + today.month - self.date.month
        return f"the prices are {months} months old ({self.date}); what is charged may differ"


@attrs.frozen
class Prices:
    """The table of one provider.

    Args:
        regions: what a size costs an hour in each.
    """

    about: PriceSource
    regions: Mapping[str, Mapping[str, Decimal]] = attrs.field(repr=False)

    def of(self, region: str, size: str) -> Decimal | None:
        """Return what a size costs an hour in US dollars; ``None`` if the table does not know it."""
        return self.regions.get(region, {}).get(size)


@functools.cache
def read_prices(package: str, file: str) -> Prices:
    """Read the table of a provider's package, once.

    Raises:
        ConfigError: it is damaged; names the entry.
    """
    text = files(package).joinpath(file).read_text(encoding="utf-8")
    try:
        return _prices(json.loads(text, parse_float=Decimal, parse_int=Decimal))
    except (ValueError, KeyError, TypeError, AttributeError) as exc:
        why = f"{exc} is missing" if isinstance(exc, KeyError) else str(exc)
        raise ConfigError(f"the prices in {package}/{file} cannot be read: {why}; install the package again") from exc


def _prices(held: Mapping[str, Any]) -> Prices:
    if held["currency"] != CURRENCY:
        raise ValueError(f"they are in {held['currency']}, not in {CURRENCY}")
    if extra := held.keys() - {"date", "source", "currency", "regions"}:
        raise ValueError(f"unknown: {', '.join(sorted(extra))}")
    for region, sizes in held["regions"].items():
        for size, price in sizes.items():
            if not (isinstance(price, Decimal) and price.is_finite() and price > 0):
                raise ValueError(f"{size} in {region} costs {price!r}")
    return Prices(PriceSource(str(held["source"]), dt.date.fromisoformat(held["date"])), held["regions"])


def write_prices(path: Path, prices: Prices) -> None:
    """Write a table, always in the same way: one region a line, everything sorted."""
    if prices.about.date is None:
        raise ValueError("prices are written with their date")
    rows = (f"    {json.dumps(region)}: {{{_row(sizes)}}}" for region, sizes in sorted(prices.regions.items()) if sizes)
    head = {"date": str(prices.about.date), "source": prices.about.source, "currency": CURRENCY}
    lines = "".join(f"  {json.dumps(key)}: {json.dumps(value)},\n" for key, value in head.items())
    table = ",\n".join(rows)
    path.write_text(f'{{\n{lines}  "regions": {{\n{table}\n  }}\n}}\n', encoding="utf-8")


def _row(sizes: Mapping[str, Decimal]) -> str:
    return ", ".join(f"{json.dumps(size)}: {price.normalize():f}" for size, price in sorted(sizes.items()))

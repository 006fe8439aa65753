"""The machine types of Compute Engine as sizes: what Google tells of them, those made to measure, and what they cost.

Google's list of machine types tells no prices. The table ``_compute_prices.json`` holds what one CPU and one GiB of a
family cost in each region, from which Google reckons the price of a machine. ``python -m shiftable_gcp._compute_sizes``
asks the Cloud Billing Catalog for it anew, with Application Default Credentials; it needs no permission but the API
``cloudbilling.googleapis.com`` in the project.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from shiftable.compute.driver import (
    GIB,
    Arch,
    Choice,
    FleetSpec,
    Prices,
    PriceSource,
    Size,
    choose_size,
    read_prices,
    write_prices,
)

__all__ = [
    "CUSTOM_SOURCE",
    "PRICES",
    "best_of",
    "can_be_placed",
    "custom_size",
    "fetched",
    "main",
    "price_of",
    "size_of",
]

Json = Mapping[str, Any]

_FILE = "_compute_prices.json"
PRICES: Prices = read_prices("shiftable_gcp", _FILE)

CUSTOM_SOURCE = "Compute Engine, custom machine types: E2"
_PLACED: Mapping[str, frozenset[str]] = {  # Compute Engine, placement policies: restrictions
    "spread": frozenset({"c2", "g2", "n1", "n2", "n2d"}),
    "close": frozenset({"a2", "c2", "c2d", "g2", "n2", "n2d"}),
}
_MIB = 2**20
_STEP = 256  # MiB
_MOST_CPUS = 32
_LEAST_PER_CPU, _MOST_PER_CPU = 512, 8192  # MiB
_CUSTOM = re.compile(r"(?:(?P<family>[a-z]\d\w*)-)?custom-(?P<cpus>\d+)-(?P<mib>\d+)(?:-ext)?")
_ARCHES: Mapping[str, Arch] = {"ARM64": "arm64", "X86_64": "x86_64"}
_ARM = ("t2a-", "c4a-", "n4a-", "a4x-")
"""Families of ARM; zones that tell no architecture have had these names for them alone."""

# The part of the CPU's price that a machine that shares its cores costs (Compute Engine, VM instance pricing: E2).
_SHARED = {"e2-micro": Decimal("0.25"), "e2-small": Decimal("0.5"), "e2-medium": Decimal(1)}


def size_of(told: Json, region: str) -> Size:
    """Return a machine type of Google's list as a size. Of shared cores it counts as many as Google does."""
    name, cpus, memory = str(told["name"]), int(told["guestCpus"]), int(told["memoryMb"]) * _MIB
    arch = _ARCHES.get(str(told.get("architecture")), "arm64" if name.startswith(_ARM) else "x86_64")
    cards = told.get("accelerators") or ()
    return Size(
        name=name,
        cpus=cpus,
        memory=memory,
        arch=arch,
        gpus=sum(int(card["guestAcceleratorCount"]) for card in cards),
        gpu=str(cards[0]["guestAcceleratorType"]) if cards else None,
        price=None if cards else price_of(region, name, cpus, memory),
    )


def price_of(region: str, name: str, cpus: int, memory: int) -> Decimal | None:
    """Return what a machine type without GPUs costs an hour, if the table knows its family in that region."""
    whole = PRICES.of(region, name)
    if whole is not None:
        return whole
    family = name.partition("-")[0]
    per_cpu, per_gib = PRICES.of(region, f"{family}/cpu"), PRICES.of(region, f"{family}/gib")
    if per_cpu is None or per_gib is None or ("custom" in name and family != "e2"):
        return None  # only of E2 a machine made to measure costs as the others do
    return per_cpu * _SHARED.get(name, Decimal(cpus)) + per_gib * memory / GIB


def custom_size(name: str, region: str) -> Size | None:
    """Return the size of a machine type made to measure, which its name tells; ``None`` if it is none."""
    found = _CUSTOM.fullmatch(name)
    if found is None:
        return None
    cpus, memory = int(found["cpus"]), int(found["mib"]) * _MIB
    arch: Arch = "arm64" if name.startswith(_ARM) else "x86_64"
    return Size(name=name, cpus=cpus, memory=memory, arch=arch, price=price_of(region, name, cpus, memory))


def best_of(spec: FleetSpec, sizes: Iterable[Size], region: str) -> Choice:
    """Choose the cheapest machine type; one made to measure where that costs less than any of Google's own.

    New machine types come without a price until the table is made anew; while there are others that are large enough,
    they are left out, since a choice between known and unknown prices would be by extent alone.

    Raises:
        ValueError: none is large enough.
    """
    every = [size for size in sizes if can_be_placed(size.name, spec.placement)]
    priced = [size for size in every if size.price is not None]
    try:
        choice = choose_size(spec.cpus, spec.memory_gib, spec.arch, priced, gpus=spec.gpus, gpu=spec.gpu)
    except ValueError:
        choice = None
    measured = _measured(spec, region)
    if measured is not None and measured.price is not None and (choice is None or measured.price < _price(choice)):
        return Choice(measured, f"made to measure: cheaper than any other ({CUSTOM_SOURCE})", measured.price)
    if choice is not None:
        return choice
    return choose_size(spec.cpus, spec.memory_gib, spec.arch, every, gpus=spec.gpus, gpu=spec.gpu)


def can_be_placed(name: str, placement: str | None) -> bool:
    """Tell whether machines of a type can be spread, or close to each other."""
    return placement is None or name.partition("-")[0] in _PLACED[placement]


def _price(choice: Choice) -> Decimal:
    return choice.price if choice.price is not None else Decimal("Infinity")


def _measured(spec: FleetSpec, region: str) -> Size | None:
    """Return the smallest E2 made to measure; ``None`` if there is none that large."""
    if spec.gpus or spec.arch != "x86_64" or spec.placement is not None:
        return None
    cpus = max(2, spec.cpus + spec.cpus % 2)
    least = max(spec.memory_gib * 1024, cpus * _LEAST_PER_CPU)
    while least > cpus * _MOST_PER_CPU:
        cpus += 2
    mib = -(-max(least, cpus * _LEAST_PER_CPU) // _STEP) * _STEP
    return custom_size(f"e2-custom-{cpus}-{mib}", region) if cpus <= _MOST_CPUS else None


# making the table anew

_SERVICE = "6F81-5844-456A"  # Compute Engine, in the catalog
_SKU = re.compile(
    r"(?:(?P<family>[A-Z]\d[A-Z]?)(?: AMD| Arm| Predefined)? Instance|(?P<c2>Compute optimized)"
    r"|(?P<m1>Memory-optimized) Instance) (?P<part>Core|Ram) running in .*"
)
_WHOLE = {"Micro": "f1-micro", "Small": "g1-small"}


def fetched(ask: Callable[..., Any], today: datetime) -> Prices:
    """Ask the Cloud Billing Catalog for all prices.

    Args:
        ask: called with a path and the query; returns JSON.
    """
    regions: dict[str, dict[str, Decimal]] = {}
    token = ""
    while True:
        answer = ask(f"/v1/services/{_SERVICE}/skus", pageSize=5000, currencyCode="USD", pageToken=token)
        for sku in answer.get("skus", ()):
            key = _key(sku)
            price = _per_hour(sku) if key else Decimal(0)
            if key and price > 0:
                for region in sku.get("serviceRegions", ()):
                    regions.setdefault(str(region), {})[key] = price
        token = answer.get("nextPageToken", "")
        if not token:
            break
    source = "Cloud Billing Catalog, Compute Engine, on demand: one CPU and one GiB of a family"
    return Prices(PriceSource(source, today.date()), regions)


def _key(sku: Json) -> str | None:
    """Say what a position of the catalog is the price of."""
    if sku.get("category", {}).get("usageType") != "OnDemand":
        return None
    description = str(sku.get("description", ""))
    for word, name in _WHOLE.items():
        if description.startswith(f"{word} Instance with "):
            return name
    found = _SKU.fullmatch(description)
    if found is None:
        return None
    family = "c2" if found["c2"] else "m1" if found["m1"] else found["family"].lower()
    return f"{family}/{'cpu' if found['part'] == 'Core' else 'gib'}"


def _per_hour(sku: Json) -> Decimal:
    """Return the newest price, of the highest step."""
    rates = sku["pricingInfo"][-1]["pricingExpression"].get("tieredRates")
    price: Json = rates[-1].get("unitPrice", {}) if rates else {}
    return Decimal(str(price.get("units", 0) or 0)) + Decimal(int(price.get("nanos", 0))) / 10**9


def main() -> None:
    """Write the table."""
    from shiftable_gcp import GcpSettings
    from shiftable_gcp._rest import Rest
    from shiftable_gcp._session import Session

    session = Session(GcpSettings())
    made = fetched(Rest(session, "https://cloudbilling.googleapis.com").get, datetime.now(UTC))
    write_prices(Path(__file__).with_name(_FILE), made)
    session.close()


if __name__ == "__main__":
    main()

"""Published list prices and request rates, by provider and region, from the data files in ``prices/``."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any, Literal

import attrs

__all__ = [
    "DnsRates",
    "Place",
    "PriceList",
    "Rates",
    "RequestClass",
    "SecretRates",
    "Tier",
    "price_list",
    "price_lists",
    "priced",
]

_FOLDER = Path(__file__).parent / "prices"

RequestClass = Literal["write", "list", "read", "delete"]


@attrs.frozen(kw_only=True)
class Rates:
    """What a provider's documentation says of requests a second.

    Args:
        scope: of what.
        source: URL of that documentation.
    """

    writes: int
    reads: int
    scope: str
    source: str


@attrs.frozen(kw_only=True)
class SecretRates:
    """How many of a driver's calls for secrets a provider's documented quotas admit in a second.

    Args:
        reads: values.
        lists: histories.
        writes: versions.
        scope: of what.
        source: URL of that documentation.
        advice: what the provider says of writing versions often.
    """

    reads: float
    lists: float
    writes: float
    scope: str
    source: str
    advice: str = ""


@attrs.frozen(kw_only=True)
class DnsRates:
    """How many requests for zones a provider's documented limits admit; what counts record sets is a feature.

    Args:
        calls: requests a second, of which each changes many record sets.
        page: record sets of one page of a listing.
        scope: of what.
        source: URL of that documentation.
        dated: when it said so.
    """

    calls: float
    page: int
    scope: str
    source: str
    dated: date


@attrs.frozen(kw_only=True)
class Tier:
    """The price of one unit of outgoing data, up to so many units in a month; the last one has no end."""

    price: float
    up_to: int | None = None


@attrs.frozen(kw_only=True)
class Place:
    """What one region costs.

    Args:
        tier: the storage class that the requests are for.
        dated: when the sources said so.
        sources: URLs.
        per_thousand: price of a thousand requests, by class.
        egress_unit: bytes of the unit in which outgoing data is priced.
        egress: data that leaves for the internet.
    """

    region: str
    tier: str
    dated: date
    sources: tuple[str, ...]
    per_thousand: Mapping[str, float]
    egress_unit: int
    egress: tuple[Tier, ...]

    def requests_cost(self, requests: Mapping[RequestClass, int]) -> float:
        """Return what requests cost."""
        return sum(count / 1_000 * self.per_thousand[kind] for kind, count in requests.items())

    def egress_cost(self, size: int) -> float:
        """Return what so many bytes cost that leave, if nothing else left in that month."""
        units, begun, cost = size / self.egress_unit, 0.0, 0.0
        for tier in self.egress:
            end = units if tier.up_to is None else min(units, tier.up_to)
            cost += max(0.0, end - begun) * tier.price
            begun = max(begun, end)
        return cost


@attrs.frozen(kw_only=True)
class PriceList:
    """One provider's file."""

    provider: str
    currency: str
    rates: Rates
    secrets: SecretRates
    places: tuple[Place, ...]
    dns: DnsRates | None = None


@cache
def price_list(provider: str | None) -> PriceList | None:
    """Return the file of a provider, if there is one."""
    file = _FOLDER / f"{provider}.toml"
    return _structured(tomllib.loads(file.read_text("utf-8"))) if file.is_file() else None


def price_lists() -> Mapping[str, PriceList]:
    """Return all files, by provider."""
    found = [price_list(file.stem) for file in sorted(_FOLDER.glob("*.toml"))]
    return {each.provider: each for each in found if each is not None}


def priced(provider: str | None, region: str | None) -> tuple[Place | None, str]:
    """Return the prices of a place, or ``None`` and why there are none."""
    known = price_list(provider)
    if known is None:
        return None, f"no list prices of {provider or 'this provider'} are known"
    if region is None:
        return None, f"the settings of {provider} name no region, or an endpoint of their own"
    place = next((place for place in known.places if place.region == region), None)
    choices = ", ".join(place.region for place in known.places)
    return place, "" if place else f"no list prices of {provider} {region} are known, only of {choices}"


def _structured(found: Any) -> PriceList:  # noqa: ANN401  what a file holds
    made: PriceList = _converter().structure(found, PriceList)
    return made


@cache
def _converter() -> Any:  # noqa: ANN401  cattrs' converter
    from cattrs import Converter

    converter = Converter(forbid_extra_keys=True)
    converter.register_structure_hook(date, lambda value, _: _dated(value))
    return converter


def _dated(value: object) -> date:
    if not isinstance(value, date):
        raise TypeError(f"{value!r} is no date")
    return value

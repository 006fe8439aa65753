"""What a move would ask for and cost, as far as plans and published prices tell."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import attrs

from shiftable.migrate._prices import RequestClass, price_list, priced
from shiftable.migrate.mover import Action

if TYPE_CHECKING:
    from datetime import date

    from shiftable.blob.driver import BlobFeatures
    from shiftable.features import Limit

__all__ = ["Cost", "Demand", "Estimate", "Source", "estimated", "estimated_secrets", "estimated_zone"]

_LISTED = 1_000
"""Objects a page of a listing, on every provider."""
_PART = 8 * 1024 * 1024


@attrs.frozen(kw_only=True)
class Demand:
    """What copying and verifying asks of one side.

    Args:
        requests: by class, as price lists have them.
        egress: bytes that leave.
    """

    requests: Mapping[RequestClass, int]
    egress: int


@attrs.frozen(kw_only=True)
class Cost:
    """One line of an estimate.

    Args:
        what: ``requests to frankfurt``.
        amount: ``None``: unknown, and ``why``.
    """

    what: str
    amount: float | None
    currency: str = ""
    why: str = ""


@attrs.frozen(kw_only=True)
class Source:
    """Where prices stand that an estimate was made with."""

    provider: str
    region: str
    tier: str
    dated: str
    urls: tuple[str, ...]


@attrs.frozen(kw_only=True)
class Estimate:
    """What moving one resource, and verifying it, would ask for and cost.

    The costs are list prices of requests and of data that leaves for the internet, as from a machine outside of the
    providers' networks; before free allowances, discounts and taxes; storage not counted.

    Args:
        source: what it asks of the source.
        target: what it asks of the target.
        seconds: the least time that the documented rates and the move's own limits allow; ``None``: none is known.
        bound: what makes it so long.
        costs: line by line.
        prices: where the prices stand.
    """

    source: Demand
    target: Demand
    seconds: float | None
    bound: str
    costs: tuple[Cost, ...]
    prices: tuple[Source, ...]

    @property
    def total(self) -> Mapping[str, float]:
        """The sum of what is known, by currency."""
        found: dict[str, float] = {}
        for cost in self.costs:
            if cost.amount is not None:
                found[cost.currency] = found.get(cost.currency, 0.0) + cost.amount
        return found

    @property
    def unknown(self) -> tuple[Cost, ...]:
        """The lines that have no price."""
        return tuple(cost for cost in self.costs if cost.amount is None)


@attrs.define
class Sizes:
    """Counts items and requests of writes as a plan sees them; a few numbers, however many items there are."""

    listed_source: int = 0
    listed_target: int = 0
    created: int = 0
    compared: int = 0
    deleted: int = 0
    writes: int = 0
    bytes: int = 0
    all_bytes: int = 0
    all_count: int = 0
    all_versions: int = 0

    def add(self, action: Action, size: int, *, here: bool, there: bool, versions: int = 0) -> None:
        """Take one item.

        Args:
            here: the source has it.
            there: the target has it.
            versions: of a secret, that are to be on the target.
        """
        self.listed_source += here
        self.listed_target += there
        if action is Action.CREATE or action is Action.REPLACE:
            self.created += 1
            self.bytes += size
            self.writes += versions or (1 if size <= _PART else -(-size // _PART) + 2)
        elif action is Action.COMPARE:
            self.compared += 1
        elif action is not Action.UNCHANGED:
            self.deleted += action is Action.DELETE
            return
        self.all_count += 1
        self.all_bytes += size
        self.all_versions += versions


@attrs.frozen(kw_only=True)
class Limits:
    """What a move keeps itself to: bytes and requests a second."""

    bandwidth: int | None = None
    requests: float | None = None


def estimated(
    sizes: Sizes,
    *,
    labels: tuple[str, str],
    places: tuple[tuple[str | None, str | None], tuple[str | None, str | None]],
    features: tuple[BlobFeatures, BlobFeatures],
    limits: Limits,
) -> Estimate:
    """Estimate a move and its verification.

    Args:
        labels: of source and target, for people.
        places: provider and region of both.
    """
    source, target = _demands(sizes, *features)
    seconds, bound = _time(sizes, source, target, places, labels, limits)
    inside = places[0][0] is not None and places[0][0] == places[1][0]
    costs: list[Cost] = []
    prices: list[Source] = []
    for label, (provider, region), demand in zip(labels, places, (source, target), strict=True):
        place, why = priced(provider, region)
        known = price_list(provider)
        currency = known.currency if known and place else ""
        amount = place.requests_cost(demand.requests) if place else None
        costs.append(Cost(what=f"requests to {label}", amount=amount, currency=currency, why=why))
        if inside and demand.egress:
            told = "data that moves inside one provider may be free or not, by the way that it takes"
            costs.append(Cost(what=f"data that leaves {label}", amount=None, why=told))
        elif demand.egress:
            amount = place.egress_cost(demand.egress) if place else None
            costs.append(Cost(what=f"data that leaves {label}", amount=amount, currency=currency, why=why))
        if place and provider:
            found = Source(
                provider=provider,
                region=place.region,
                tier=place.tier,
                dated=_iso(place.dated),
                urls=place.sources,
            )
            prices.append(found)
    return Estimate(
        source=source,
        target=target,
        seconds=seconds,
        bound=bound,
        costs=tuple(costs),
        prices=tuple(dict.fromkeys(prices)),
    )


def estimated_secrets(
    sizes: Sizes, *, labels: tuple[str, str], places: tuple[str | None, str | None], limits: Limits
) -> Estimate:
    """Estimate a move of secrets and its verification: calls of drivers, of which some are several requests.

    Args:
        labels: of source and target, for people.
        places: their providers.
    """
    moved, every = sizes.created + sizes.compared, sizes.all_count
    source: Mapping[RequestClass, int] = {
        "list": 2 * sizes.listed_source + moved,  # one look to move, one afterwards, one to verify
        "read": sizes.writes + sizes.all_versions,
        "write": 0,
        "delete": 0,
    }
    target: Mapping[RequestClass, int] = {
        "list": sizes.listed_target + 2 * moved + every,
        "read": sizes.all_versions,
        "write": sizes.writes,
        "delete": sizes.deleted,
    }
    found: list[tuple[float, str]] = []
    for label, provider, requests in zip(labels, places, (source, target), strict=True):
        known = price_list(provider)
        if known is None:
            continue
        rates = known.secrets
        looks = requests["read"] / rates.reads + requests["list"] / rates.lists
        told = f"{rates.reads:g} values and {rates.lists:g} histories a second from {label} ({rates.scope})"
        found.append((looks, told))
        writes = (requests["write"] + requests["delete"]) / rates.writes
        found.append((writes, f"{rates.writes:g} versions a second to {label} ({rates.scope})"))
    if limits.requests is not None:
        calls = sum(source.values()) + sum(target.values())
        found.append((calls / limits.requests, "the move's own limit of requests"))
    seconds, bound = max(found, default=(None, ""), key=lambda each: each[0] or 0.0)
    one, other = Demand(requests=source, egress=0), Demand(requests=target, egress=0)
    return Estimate(source=one, target=other, seconds=seconds, bound=bound, costs=(), prices=())


def estimated_zone(
    sizes: Sizes,
    *,
    writes: tuple[int, int],
    per_minute: Limit | None,
    labels: tuple[str, str],
    places: tuple[str | None, str | None],
    limits: Limits,
) -> Estimate:
    """Estimate the move of a zone and its verification: calls, and the time that its writes take.

    Args:
        writes: calls that write, and record sets that they write.
        per_minute: record sets that the target lets be written in a minute.
        labels: of source and target, for people.
        places: their providers.
    """
    rates = [known.dns if (known := price_list(place)) else None for place in places]
    lists = [
        times * max(1, -(-sets // (rate.page if rate else _LISTED)))
        for times, sets, rate in zip(
            (2, 3), (sizes.listed_source, sizes.listed_target + sizes.created), rates, strict=True
        )
    ]
    calls, record_sets = writes
    source: Mapping[RequestClass, int] = {"list": lists[0], "read": 0, "write": 0, "delete": 0}
    target: Mapping[RequestClass, int] = {"list": lists[1], "read": 0, "write": calls, "delete": 0}
    found: list[tuple[float, str]] = []
    if rates[1] is not None:
        rate = rates[1].calls
        found.append((calls / rate, f"{rate:g} calls a second to {labels[1]} ({rates[1].scope})"))
    if per_minute is not None:
        found.append((60 * record_sets / per_minute.value, f"{per_minute} record sets a minute to {labels[1]}"))
    if limits.requests is not None:
        found.append(((sum(lists) + calls) / limits.requests, "the move's own limit of requests"))
    longest, bound = max(found, default=(None, ""), key=lambda each: each[0] or 0.0)
    one, other = Demand(requests=source, egress=0), Demand(requests=target, egress=0)
    return Estimate(source=one, target=other, seconds=longest, bound=bound, costs=(), prices=())


def _demands(sizes: Sizes, here: BlobFeatures, there: BlobFeatures) -> tuple[Demand, Demand]:
    """Count what copying asks for (an object, its tags), and verifying (those of both sides, and a description)."""
    moved, compared, every = sizes.created, sizes.compared, sizes.all_count
    listings = 2  # one to move, one to verify
    source: Mapping[RequestClass, int] = {
        "list": listings * _pages(sizes.listed_source),
        "read": (moved + compared) * (1 + here.tags) + every * (2 + here.tags),
        "write": 0,
        "delete": 0,
    }
    target: Mapping[RequestClass, int] = {
        "list": _pages(sizes.listed_target) + _pages(sizes.listed_target + moved),
        "read": compared * (1 + there.tags) + every * (2 + there.tags),
        "write": sizes.writes,
        "delete": sizes.deleted,
    }
    return (
        Demand(requests=source, egress=sizes.bytes + sizes.all_bytes),
        Demand(requests=target, egress=sizes.all_bytes),
    )


def _pages(items: int) -> int:
    return max(1, -(-items // _LISTED))


def _time(
    sizes: Sizes,
    source: Demand,
    target: Demand,
    places: Iterable[tuple[str | None, str | None]],
    labels: tuple[str, str],
    limits: Limits,
) -> tuple[float | None, str]:
    """Return the longest of the times that rates and limits ask for, and what it comes from."""
    found: list[tuple[float, str]] = []
    for label, (provider, _), demand in zip(labels, places, (source, target), strict=True):
        known = price_list(provider)
        if known is None:
            continue
        rates, requests = known.rates, demand.requests
        reads = requests["read"] + requests["list"]
        found.append((reads / rates.reads, f"{rates.reads:,} reads a second from {label} ({rates.scope})"))
        writes = requests["write"] + requests["delete"]
        found.append((writes / rates.writes, f"{rates.writes:,} writes a second to {label} ({rates.scope})"))
    if limits.bandwidth is not None:
        found.append((sizes.bytes / limits.bandwidth, "the move's own limit of bandwidth"))
    if limits.requests is not None:
        every = sum(source.requests.values()) + sum(target.requests.values())
        found.append((every / limits.requests, "the move's own limit of requests"))
    return max(found, default=(None, ""), key=lambda each: each[0] or 0.0)


def _iso(found: date) -> str:
    return found.isoformat()


def place_of(cloud: Any) -> tuple[str | None, str | None]:  # noqa: ANN401  an application's own clouds may tell nothing
    """Return a cloud's provider and region, as far as it tells."""
    return getattr(cloud, "name", None), getattr(cloud, "region", None)

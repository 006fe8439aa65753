"""Price files, and what plans say that a move would ask for and cost."""

from __future__ import annotations

import json
from datetime import date
from typing import Any

import attrs
import pytest

from shiftable import connect
from shiftable.cloud import Cloud
from shiftable.migrate import Action, Plan
from shiftable.migrate._estimate import Limits, Sizes, estimated, estimated_secrets
from shiftable.migrate._prices import price_lists, priced
from shiftable.provider import Provider

FRANKFURT = ("aws", "eu-central-1")
IOWA = ("gcp", "us-central1")


def test_every_price_file_is_complete_and_says_where_and_when_it_was_read() -> None:
    assert ["aws", "azure", "gcp"] == sorted(price_lists())
    for provider, found in price_lists().items():
        assert (provider, "USD") == (found.provider, found.currency)
        assert found.rates.source.startswith("https://")
        assert found.rates.writes > 0 < found.rates.reads
        assert found.secrets.source.startswith("https://")
        assert min(found.secrets.reads, found.secrets.lists, found.secrets.writes) > 0
        assert len({place.region for place in found.places}) == len(found.places) > 0
        for place in found.places:
            assert date(2025, 1, 1) < place.dated
            assert all(url.startswith("https://") for url in place.sources)
            assert place.sources
            assert {"write", "list", "read", "delete"} == set(place.per_thousand)
            ends = [tier.up_to for tier in place.egress]
            assert ends[-1] is None
            assert None not in ends[:-1]
            assert ends[:-1] == sorted(ends[:-1], key=lambda end: end or 0)
            assert all(tier.price > 0 for tier in place.egress)


@pytest.mark.parametrize(
    ("terabytes", "cost"),
    [(0, 0.0), (1, 90.0), (10, 900.0), (11, 985.0), (50, 4300.0), (150, 11300.0), (250, 16300.0)],
)
def test_outgoing_data_is_priced_tier_by_tier(terabytes: int, cost: float) -> None:
    place, _ = priced(*FRANKFURT)
    assert place is not None
    assert cost == pytest.approx(place.egress_cost(terabytes * 10**12))


@pytest.mark.parametrize(
    ("provider", "region", "why"),
    [
        (None, None, "no list prices of this provider are known"),
        ("baremetal", None, "no list prices of baremetal are known"),
        ("aws", None, "name no region, or an endpoint of their own"),
        ("aws", "xx-nowhere-1", "no list prices of aws xx-nowhere-1 are known, only of eu-central-1, us-east-1"),
    ],
)
def test_what_is_not_known_is_said_and_not_guessed(provider: str | None, region: str | None, why: str) -> None:
    place, told = priced(provider, region)
    assert place is None
    assert why in told


def made(world: Any, sizes: Sizes, *places: tuple[str | None, str | None], **limits: Any) -> Any:
    features = attrs.evolve(world.left.features, tags=True)
    return estimated(
        sizes,
        labels=("here", "there"),
        places=(places[0], places[1]),
        features=(features, attrs.evolve(features, tags=False)),
        limits=Limits(**limits),
    )


def test_requests_data_and_costs_are_those_that_one_counts_by_hand(world: Any) -> None:
    sizes = Sizes()
    for _ in range(2000):
        sizes.add(Action.CREATE, 1_000_000, here=True, there=False)
    sizes.add(Action.CREATE, 100 * 1024 * 1024, here=True, there=False)
    sizes.add(Action.UNCHANGED, 5_000_000, here=True, there=True)
    sizes.add(Action.DELETE, 7, here=False, there=True)

    found = made(world, sizes, FRANKFURT, IOWA)

    copied = 2_000_000_000 + 100 * 1024 * 1024
    # 2,001 are read with their tags; 2,002 are described, tagged and read once more by the verification
    assert {"list": 2 * 3, "read": 2001 * 2 + 2002 * 3, "write": 0, "delete": 0} == found.source.requests
    # 2,000 in one piece; one in 13 parts of 8 MiB, begun and completed
    assert {"list": 1 + 3, "read": 2002 * 2, "write": 2000 + 15, "delete": 1} == found.target.requests
    assert (copied + copied + 5_000_000, copied + 5_000_000) == (found.source.egress, found.target.egress)
    assert {
        "requests to here": pytest.approx((6 * 0.0054 + 10008 * 0.00043) / 1000),
        "data that leaves here": pytest.approx(found.source.egress / 1e9 * 0.09),
        "requests to there": pytest.approx((2015 * 0.005 + 4 * 0.005 + 4004 * 0.0004) / 1000),
        "data that leaves there": pytest.approx(found.target.egress / 2**30 * 0.12),
    } == {cost.what: cost.amount for cost in found.costs}
    assert found.total["USD"] == pytest.approx(sum(cost.amount for cost in found.costs))
    assert [("aws", "2026-08-31"), ("gcp", "2026-09-20")] == [(each.provider, each.dated) for each in found.prices]


def test_an_unknown_price_is_unknown_and_never_nothing(world: Any) -> None:
    sizes = Sizes()
    sizes.add(Action.CREATE, 10, here=True, there=False)
    found = made(world, sizes, ("baremetal", None), FRANKFURT)

    assert ["requests to here", "data that leaves here"] == [cost.what for cost in found.unknown]
    assert all(cost.amount is None and "baremetal" in cost.why for cost in found.unknown)
    assert {"USD"} == set(found.total)


def test_data_that_moves_inside_one_provider_has_no_price_of_the_internet(world: Any) -> None:
    sizes = Sizes()
    sizes.add(Action.CREATE, 10, here=True, there=False)
    found = made(world, sizes, FRANKFURT, ("aws", "us-east-1"))

    assert ["data that leaves here", "data that leaves there"] == [cost.what for cost in found.unknown]


def test_the_time_is_the_longest_that_rates_and_limits_ask_for(world: Any) -> None:
    sizes = Sizes()
    for _ in range(7000):
        sizes.add(Action.CREATE, 1000, here=True, there=False)

    assert 7.0 == pytest.approx(made(world, sizes, FRANKFURT, IOWA).seconds)
    assert "1,000 writes a second to there" in made(world, sizes, FRANKFURT, IOWA).bound
    assert 7000.0 == pytest.approx(made(world, sizes, FRANKFURT, IOWA, bandwidth=1000).seconds)
    assert "requests" in made(world, sizes, FRANKFURT, IOWA, requests=1.0).bound
    assert (None, "") == (
        made(world, sizes, ("memory", None), ("memory", None)).seconds,
        made(world, sizes, ("memory", None), ("memory", None)).bound,
    )


def test_a_plan_carries_its_estimate_and_its_digest_does_not(world: Any) -> None:
    world.source.put("a", b"12345")
    world.source_secrets.put("s", "one")
    plan = world.migration().plan()
    blobs, secrets = plan.resources

    assert (1, (), {}) == (secrets.estimate.target.requests["write"], secrets.estimate.costs, secrets.estimate.total)
    assert (10, 5) == (blobs.estimate.source.egress, blobs.estimate.target.egress)
    assert 4 == len(blobs.estimate.unknown)
    assert Plan.from_json(plan.to_json()) == plan
    assert plan.digest == attrs.evolve(plan, resources=[attrs.evolve(blobs, estimate=None), secrets]).digest
    assert json.loads(plan.to_json())["resources"][0]["estimate"]["costs"][0]["amount"] is None


def test_a_cloud_tells_its_region_unless_it_has_an_endpoint_of_its_own() -> None:
    def region(**settings: str) -> str | None:
        return Cloud(Provider(attrs.make_class("Settings", list(settings))(**settings))).region

    assert "eu-central-1" == region(region="eu-central-1", profile="x")
    assert "eastus" == region(location="eastus")
    assert region(region="eu-central-1", endpoint="http://127.0.0.1:9") is None
    assert connect("memory").region is None


def test_secrets_take_as_long_as_the_quotas_of_requests_ask_for() -> None:
    sizes = Sizes()
    for _ in range(500):
        sizes.add(Action.CREATE, 0, here=True, there=False, versions=3)

    def made(*places: str, requests: float | None = None) -> Any:
        return estimated_secrets(
            sizes, labels=("here", "there"), places=(places[0], places[1]), limits=Limits(requests=requests)
        )

    found = made("aws", "gcp")
    assert {"list": 1500, "read": 3000, "write": 0, "delete": 0} == found.source.requests
    assert {"list": 1500, "read": 1500, "write": 1500, "delete": 0} == found.target.requests
    assert 1500 / 10 + 1500 / 5 == pytest.approx(found.seconds)
    assert "10 values and 5 histories a second from there (a project)" == found.bound
    assert 1500 / 30 == pytest.approx(made("baremetal", "azure").seconds)
    assert made("baremetal", "memory").seconds is None
    assert "requests" in made("aws", "azure", requests=1.0).bound
    assert {} == found.total

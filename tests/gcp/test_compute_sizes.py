"""What a machine of Google's costs: reckoned as Google reckons, from a table that is made of Google's own catalog."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from decimal import Decimal
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from shiftable.compute.driver import GIB, Size, write_prices
from shiftable_gcp import _compute_sizes
from shiftable_gcp._compute_sizes import PRICES, custom_size, fetched, main, price_of, size_of
from shiftable_gcp._discovery import Discovery

from .wire import Json, violations_of

NOW = datetime(2026, 11, 21, tzinfo=UTC)


@pytest.mark.parametrize(
    ("region", "name", "cpus", "gib", "price"),
    [
        # Google's page "VM instance pricing" as of the table's date, rounded as it rounds
        ("us-central1", "e2-micro", 2, 1, "0.0084"),
        ("us-central1", "e2-small", 2, 2, "0.0168"),
        ("us-central1", "e2-medium", 2, 4, "0.0335"),
        ("us-central1", "e2-standard-2", 2, 8, "0.0670"),
        ("us-central1", "e2-standard-32", 32, 128, "1.0722"),
        ("us-central1", "n1-standard-1", 1, Decimal("3.75"), "0.0475"),
        ("us-central1", "n2-standard-4", 4, 16, "0.1942"),
        ("us-central1", "n2d-standard-2", 2, 8, "0.0845"),
        ("us-central1", "c2-standard-4", 4, 16, "0.2088"),
        ("us-central1", "f1-micro", 1, Decimal("0.6"), "0.0076"),
    ],
)
def test_prices_are_google_s(region: str, name: str, cpus: int, gib: Decimal | int, price: str) -> None:
    found = price_of(region, name, cpus, int(gib * GIB))
    assert found is not None
    assert Decimal(price) == round(found, 4)


@pytest.mark.parametrize(
    ("region", "name"),
    [
        ("mars-west1", "e2-small"),
        ("us-central1", "t2a-standard-1"),
        ("us-central1", "n2-custom-4-8192"),  # those made to measure cost more, but for E2
        ("europe-west6", "c2-standard-4"),  # nothing, says the source
    ],
)
def test_a_price_that_nobody_knows_is_none(region: str, name: str) -> None:
    assert price_of(region, name, 4, 8 * GIB) is None


@pytest.mark.parametrize(
    ("name", "cpus", "gib"),
    [("e2-custom-4-8192", 4, 8), ("n2-custom-8-65536-ext", 8, 64), ("custom-2-4096", 2, 4), ("e2-standard-2", 0, 0)],
)
def test_the_name_of_a_machine_made_to_measure_tells_its_size(name: str, cpus: int, gib: int) -> None:
    found = custom_size(name, "us-central1")
    assert (cpus, gib * GIB) == ((found.cpus, found.memory) if found else (0, 0))


def test_a_machine_type_is_a_size() -> None:
    told: Json = {"name": "g2-standard-24", "guestCpus": 24, "memoryMb": 98304}
    cards = [{"guestAcceleratorType": "nvidia-l4", "guestAcceleratorCount": 2}]
    size = size_of(told | {"accelerators": cards}, "us-central1")
    assert Size(name="g2-standard-24", cpus=24, memory=96 * GIB, gpus=2, gpu="nvidia-l4") == size
    assert "arm64" == size_of({"name": "t2a-standard-1", "guestCpus": 1, "memoryMb": 4096}, "us-central1").arch
    assert "arm64" == size_of({"name": "x9", "guestCpus": 1, "memoryMb": 1, "architecture": "ARM64"}, "mars").arch


def test_the_table_says_whose_prices_it_has_and_of_when() -> None:
    assert date(2025, 3, 2) == PRICES.about.date
    assert "apache-libcloud" in PRICES.about.source
    assert len(PRICES.regions) >= 22
    assert all(price > 0 for sizes in PRICES.regions.values() for price in sizes.values())


def sku(description: str, units: str, nanos: int, *regions: str, usage: str = "OnDemand") -> Json:
    rate = {"startUsageAmount": 0, "unitPrice": {"currencyCode": "USD", "units": units, "nanos": nanos}}
    return {
        "name": "services/6F81-5844-456A/skus/x",
        "skuId": "x",
        "description": description,
        "category": {"resourceFamily": "Compute", "resourceGroup": "CPU", "usageType": usage},
        "serviceRegions": list(regions),
        "pricingInfo": [{"pricingExpression": {"usageUnit": "h", "tieredRates": [rate]}}],
    }


PAGES = [
    {
        "skus": [
            sku("E2 Instance Core running in Frankfurt", "0", 28_103_700, "europe-west3"),
            sku("E2 Instance Ram running in Frankfurt", "0", 3_766_020, "europe-west3"),
            sku("Spot Preemptible E2 Instance Core running in Frankfurt", "0", 1, "europe-west3", usage="Preemptible"),
            sku("N2D AMD Instance Core running in Americas", "0", 27_502_000, "us-central1", "us-east1"),
            sku("T2A Arm Instance Core running in Americas", "0", 27_300_000, "us-central1"),
            sku("N1 Predefined Instance Core running in Americas", "0", 31_611_000, "us-central1"),
        ],
        "nextPageToken": "more",
    },
    {
        "skus": [
            sku("Compute optimized Core running in Americas", "0", 33_982_000, "us-central1"),
            sku("Memory-optimized Instance Ram running in Americas", "0", 5_100_000, "us-central1"),
            sku("Micro Instance with burstable CPU running in Americas", "0", 7_600_000, "us-central1"),
            sku("N1 Custom Instance Core running in Americas", "0", 33_174_000, "us-central1"),
            sku("A3 Instance Ram running in Americas", "1", 500_000_000, "us-central1"),
            sku("Nvidia L4 GPU running in Americas", "0", 560_000_000, "us-central1"),
            sku("E2 Instance Core running in Zurich", "0", 0, "europe-west6"),
        ]
    },
]


def test_the_table_is_made_anew_from_google_s_catalog(tmp_path: Path) -> None:
    asked = list[Any]()

    def ask(path: str, **query: Any) -> Any:
        asked.append((path, query["pageToken"]))
        return PAGES[1 if query["pageToken"] else 0]

    made = fetched(ask, NOW)
    path = "/v1/services/6F81-5844-456A/skus"
    assert [(path, ""), (path, "more")] == asked
    assert {
        "europe-west3": {"e2/cpu": Decimal("0.0281037"), "e2/gib": Decimal("0.00376602")},
        "us-central1": {
            "n2d/cpu": Decimal("0.027502"),
            "t2a/cpu": Decimal("0.0273"),
            "n1/cpu": Decimal("0.031611"),
            "c2/cpu": Decimal("0.033982"),
            "m1/gib": Decimal("0.0051"),
            "f1-micro": Decimal("0.0076"),
            "a3/gib": Decimal("1.5"),
        },
        "us-east1": {"n2d/cpu": Decimal("0.027502")},
    } == made.regions
    write_prices(tmp_path / "prices.json", made)
    held = json.loads((tmp_path / "prices.json").read_text())
    assert ("2026-11-21", 0.0281037) == (held["date"], held["regions"]["europe-west3"]["e2/cpu"])


def test_what_the_catalog_is_thought_to_answer_is_what_google_describes() -> None:
    document = Discovery("cloudbilling.v1")
    target = "/v1/services/6F81-5844-456A/skus?pageSize=5000&currencyCode=USD&pageToken="
    schema = {"$ref": "ListSkusResponse"}
    for page in PAGES:
        assert [] == list(document._value("answer", page, schema))
    assert [] == violations_of(document, "GET", target)


def test_the_script_writes_beside_itself(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    hosts = list[str]()

    class Catalog:
        def __init__(self, _session: object, host: str) -> None:
            hosts.append(host)

        def get(self, _path: str, **query: Any) -> Any:
            return PAGES[1 if query["pageToken"] else 0]

    monkeypatch.setattr("shiftable_gcp._rest.Rest", Catalog)
    monkeypatch.setattr(_compute_sizes, "__file__", str(tmp_path / "_compute_sizes.py"))
    main()
    assert ["https://cloudbilling.googleapis.com"] == hosts
    assert "e2/cpu" in (tmp_path / "_compute_prices.json").read_text()
    assert files("shiftable_gcp").joinpath("_compute_prices.json").is_file()

"""Tables of prices: read as they are written, refused when they are damaged, and they say their age."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from shiftable.compute.driver import Prices, PriceSource, read_prices, write_prices
from shiftable.errors import ConfigError

TABLE: dict[str, Any] = {
    "date": "2025-03-02",
    "source": "a list",
    "currency": "USD",
    "regions": {"b": {"small": 0.012, "large": 1}, "a": {"small": 0.0000001}},
}


@pytest.fixture
def reading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Prices]:
    """Return what reads a text as the table of an importable package."""
    package = tmp_path / "priced_provider"
    package.mkdir()
    (package / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "priced_provider", raising=False)

    def read(text: str) -> Prices:
        (package / "prices.json").write_text(text)
        read_prices.cache_clear()
        return read_prices("priced_provider", "prices.json")

    return read


def test_a_price_is_exact(reading: Callable[[str], Prices]) -> None:
    prices = reading(json.dumps(TABLE))
    assert prices.of("b", "small") == Decimal("0.012")
    assert prices.of("b", "large") == Decimal(1)
    assert prices.of("b", "huge") is None
    assert prices.of("c", "small") is None
    assert prices.about == PriceSource("a list", date(2025, 3, 2))
    assert str(prices.about) == "a list, 2025-03-02"


def test_what_is_written_is_read_and_written_the_same(reading: Callable[[str], Prices], tmp_path: Path) -> None:
    prices = reading(json.dumps(TABLE))
    write_prices(tmp_path / "once.json", prices)
    text = (tmp_path / "once.json").read_text()
    assert reading(text) == prices
    write_prices(tmp_path / "twice.json", reading(text))
    assert (tmp_path / "twice.json").read_text() == text
    assert text.splitlines()[5:7] == ['    "a": {"small": 0.0000001},', '    "b": {"large": 1, "small": 0.012}']
    with pytest.raises(ValueError, match="with their date"):
        write_prices(tmp_path / "undated.json", Prices(PriceSource("a list"), {}))


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"currency": "EUR"}, "they are in EUR, not in USD"),
        ({"date": "yesterday"}, "yesterday"),
        ({"date": None}, "argument must be str"),
        ({"regions": {"a": {"small": 0}}}, "small in a costs"),
        ({"regions": {"a": {"small": -0.1}}}, "small in a costs"),
        ({"regions": {"a": {"small": "0.1"}}}, "small in a costs '0.1'"),
        ({"regions": {"a": {"small": True}}}, "small in a costs True"),
        ({"regions": {"a": {"family": {"small": 1}}}}, "family in a costs"),
        ({"regions": ["a"]}, "has no attribute 'items'"),
        ({"spot": {}}, "unknown: spot"),
    ],
)
def test_a_damaged_table_is_refused_by_name(
    reading: Callable[[str], Prices], changed: dict[str, Any], why: str
) -> None:
    with pytest.raises(ConfigError, match=rf"priced_provider/prices\.json cannot be read: .*{why}"):
        reading(json.dumps({**TABLE, **changed}))


@pytest.mark.parametrize("text", ["", "[]", "{", '{"date": "2025-03-02"}', json.dumps(TABLE)[:-3]])
def test_what_is_no_table_is_refused(reading: Callable[[str], Prices], text: str) -> None:
    with pytest.raises(ConfigError, match="install the package again"):
        reading(text)


def test_old_prices_say_so() -> None:
    about = PriceSource("a list", date(2025, 3, 2))
    assert about.warning(date(2025, 8, 1)) is None
    assert about.warning(date(2026, 11, 21)) == (
        "the prices are 20 months old (2025-03-02); what is charged may differ"
    )
    assert PriceSource("chosen").warning(date(2026, 11, 21)) is None

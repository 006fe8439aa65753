"""Listings that come in the order of UTF-16 are handed on in the order of UTF-8."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shiftable_azure._order import Fetched, Stretch, behind, read, restored, units, written


@attrs.frozen
class Named:
    name: str


@attrs.define
class Wire:
    """Lists as Azure does: by UTF-16, in pages, from a marker or from ``startFrom`` if it knows that."""

    names: list[str]
    page: int
    knows_start: bool = True
    calls: int = 0

    def fetch(self, stretch: Stretch) -> Fetched:
        self.calls += 1
        matching = sorted((name for name in self.names if name.startswith(stretch.prefix)), key=units)
        if stretch.marker is not None:
            matching = [name for name in matching if units(name) > bytes.fromhex(stretch.marker)]
        elif self.knows_start:
            matching = [name for name in matching if units(name) >= units(stretch.start)]
        here, rest = matching[: self.page], matching[self.page :]
        return Fetched(tuple(Named(name) for name in here), units(here[-1]).hex() if rest else None)


def listed(wire: Wire, stretches: tuple[Stretch, ...]) -> list[str]:
    found: list[str] = []
    while stretches:
        entries, stretches = read(stretches, wire.fetch)
        cursor = written(stretches)
        assert (restored(cursor) if cursor else ()) == stretches
        found += [entry.name for entry in entries]
    return found


characters = st.sampled_from(
    ["a", "b", "/", "\ud7ff", "\ue000", "\uff5e", "\uffff", "\U00010000", "\U0001f600", "\U0010ffff"]
)
names = st.lists(st.text(characters, min_size=1, max_size=4), max_size=40, unique=True)


@pytest.mark.parametrize("knows_start", [True, False])
@settings(max_examples=400, deadline=None)
@given(
    found=names,
    page=st.integers(1, 7),
    prefix=st.text(characters, max_size=2),
    after=st.none() | st.text(characters, max_size=3),
)
def test_all_names_come_once_in_the_order_of_utf8(
    *, knows_start: bool, found: list[str], page: int, prefix: str, after: str | None
) -> None:
    wire = Wire(found, page, knows_start)
    stretches = (Stretch(prefix, known=len(prefix)),) if after is None else behind(prefix, after)
    expected = sorted((name for name in found if name.startswith(prefix)), key=str.encode)
    assert listed(wire, stretches) == [name for name in expected if after is None or name.encode() > after.encode()]


def test_ordinary_names_cost_no_more_calls_than_pages() -> None:
    wire = Wire([f"k/{number:04d} é日本" for number in range(1000)], 100)
    assert len(listed(wire, (Stretch("k/", known=2),))) == 1000
    assert wire.calls == 10


@pytest.mark.parametrize("page", [10, 100])
def test_names_with_emoji_cost_a_bounded_number_of_calls_more(page: int) -> None:
    names = [f"{number:04d} \U0001f600{number}" for number in range(500)]
    names += [f"\U0001f600/{number:04d}" for number in range(500)] + [f"\uff5e/{number:04d}" for number in range(500)]
    wire = Wire(names, page)
    assert listed(wire, (Stretch(""),)) == sorted(names, key=str.encode)
    assert wire.calls <= 4 * -(-len(names) // page)

"""Azure's listings in the order of UTF-8.

Azure lists names in the order of their UTF-16 units, in which everything above U+FFFF comes before U+E000 to U+FFFF; in
UTF-8 it comes after. So two names are in another order only if they are the same up to a place where one has a
character of the one kind and the other of the other. What lies within a page is sorted here. Where a page ends in the
middle of such a group, its part from U+E000 on is asked for first, by ``startFrom``, then the part above U+FFFF, then
what follows the group. That costs at most three more calls for a page, and no memory.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import attrs

__all__ = ["Entry", "Fetched", "Stretch", "behind", "read", "restored", "units", "written"]

_FIRST_HIGH = "\ue000"  # the part of a group that UTF-16 has last
_FIRST_ASTRAL = "\U00010000"


class Entry(Protocol):
    """What a listing has: a blob or a prefix."""

    @property
    def name(self) -> str:
        """The name, or what names begin with."""


@attrs.frozen
class Stretch:
    """A part of the names that is listed from one end to the other.

    Args:
        prefix: what its names begin with.
        start: the first name that may be in it.
        end: the first name behind it in the order of UTF-16; ``None``: there is none.
        known: up to this place names are of one kind, so that nothing has to be put in order there.
        marker: where the last page ended.
        without_start: whether the first name itself is not wanted.
    """

    prefix: str
    start: str = ""
    end: str | None = None
    known: int = 0
    marker: str | None = None
    without_start: bool = False

    def holds(self, name: str) -> bool:
        """Tell whether a name lies behind the start. A server that does not know ``startFrom`` begins earlier."""
        return units(name) >= units(self.start) and not (self.without_start and name == self.start)


@attrs.frozen
class Fetched:
    """One page as it came: entries in the order of UTF-16, and where to go on.

    Args:
        marker: Azure's own; ``None`` if there is none.
        start: a name to go on from, where there is no marker for that place.
    """

    entries: tuple[Any, ...]
    marker: str | None = None
    start: str | None = None

    @property
    def more(self) -> bool:
        """Whether anything follows."""
        return self.marker is not None or self.start is not None


Fetch = Callable[[Stretch], Fetched]


def units(name: str) -> bytes:
    """Return what Azure compares."""
    return name.encode("utf-16-be", "surrogatepass")


def read(stretches: tuple[Stretch, ...], fetch: Fetch) -> tuple[list[Any], tuple[Stretch, ...]]:
    """Make one call; return what is next in the order of UTF-8, perhaps nothing, and the stretches that are left."""
    stretch, rest = stretches[0], stretches[1:]
    page = fetch(stretch)
    entries = [entry for entry in page.entries if stretch.holds(entry.name)]
    if stretch.end is not None:
        inside = [entry for entry in entries if units(entry.name) < units(stretch.end)]
        if len(inside) < len(entries):
            return _sorted(inside), rest
    if not page.more:
        return _sorted(entries), rest
    place = _open_place(entries, stretch.known)
    if place is None:
        following = attrs.evolve(stretch, marker=page.marker)
        if page.start is not None:
            following = attrs.evolve(following, start=page.start, without_start=False)
        return _sorted(entries), (following, *rest)
    group = entries[-1].name[:place]
    before = [entry for entry in entries if units(entry.name) < units(group + _FIRST_ASTRAL)]
    return _sorted(before), (*_split(stretch, group), *rest)


def behind(prefix: str, start_after: str) -> tuple[Stretch, ...]:
    """Return the stretches of all names of a prefix that come behind a name in the order of UTF-8."""
    if start_after.startswith(prefix):
        return tuple(_behind(prefix, start_after))
    return () if start_after.encode() > prefix.encode() else (Stretch(prefix, known=len(prefix)),)


def written(stretches: tuple[Stretch, ...]) -> str | None:
    """Return stretches as a cursor."""
    return json.dumps([attrs.astuple(stretch) for stretch in stretches]) if stretches else None


def restored(cursor: str) -> tuple[Stretch, ...]:
    """Return the stretches of a cursor."""
    return tuple(Stretch(*fields) for fields in json.loads(cursor))


def _sorted(entries: list[Any]) -> list[Any]:
    return sorted(entries, key=lambda entry: entry.name.encode())


def _open_place(entries: list[Any], known: int) -> int | None:
    """Return where the last name of a page stands in a group of which characters above U+FFFF were seen."""
    if not entries:
        return None
    last = entries[-1].name
    places = [
        place for entry in entries for place in _astral_places(entry.name, known) if last[:place] == entry.name[:place]
    ]
    return min(places, default=None)


def _astral_places(name: str, known: int) -> Iterator[int]:
    return (place for place in range(known, len(name)) if name[place] >= _FIRST_ASTRAL)


def _split(stretch: Stretch, group: str) -> Iterator[Stretch]:
    """Yield the parts of a stretch from the characters above U+FFFF of a group on, in the order of UTF-8."""
    place = len(group)
    yield Stretch(group, group + _FIRST_HIGH, known=place + 1)
    yield _astral(group, group + _FIRST_ASTRAL)
    yield from _behind_group(stretch.prefix, group, stretch.end, stretch.known)


def _behind(prefix: str, name: str) -> Iterator[Stretch]:
    """Yield what comes behind a name of that prefix: where UTF-16 has another order, group by group from within."""
    place = next((at for at in range(len(prefix), len(name)) if name[at] >= _FIRST_HIGH), None)
    if place is None:
        yield Stretch(prefix, name, known=len(prefix), without_start=True)
        return
    group, after = name[:place], _after(name[: place + 1])
    yield from _behind(name[: place + 1], name)
    if name[place] < _FIRST_ASTRAL:
        if after is not None and len(after) > place:
            yield Stretch(group, after, known=place + 1)
        yield _astral(group, group + _FIRST_ASTRAL)
    elif after is not None and after != group + _FIRST_HIGH:
        yield _astral(group, after)
    yield from _behind_group(prefix, group, None, len(prefix))


def _astral(group: str, start: str) -> Stretch:
    return Stretch(group, start, group + _FIRST_HIGH, known=len(group) + 1)


def _behind_group(prefix: str, group: str, end: str | None, known: int) -> Iterator[Stretch]:
    """Yield what has the prefix and comes behind all names of a group, if there can be anything."""
    start = _after(group)
    if start is not None and start.startswith(prefix) and (end is None or units(start) < units(end)):
        yield Stretch(prefix, start, end, known)


def _after(prefix: str) -> str | None:
    """Return the first name that comes behind all names of a prefix in the order of UTF-16."""
    for place in reversed(range(len(prefix))):
        following = _next_character(prefix[place])
        if following is not None:
            return prefix[:place] + following
    return None


def _next_character(character: str) -> str | None:
    special = {"\ud7ff": _FIRST_ASTRAL, "\U0010ffff": _FIRST_HIGH, "\uffff": None}
    return special[character] if character in special else chr(ord(character) + 1)

"""Comments, which are no part of a document's values, and where they stand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs

__all__ = ["Comment", "Found", "Place", "by_place"]

Place = tuple[str | int, ...]
"""The keys and numbers of items on the way to a mapping or list."""


@attrs.frozen
class Comment:
    """One line of comment.

    Args:
        text: what follows the ``#``, its first space included; never shown.
        place: the mapping or list that it stands in.
        before: the key or the number of the item that it stands above; ``None``: at the end.
    """

    text: str = attrs.field(repr=False)
    place: Place = ()
    before: str | int | None = None


@attrs.frozen
class Found:
    """A comment as it was read, with all places that it may belong to, the likeliest first."""

    text: str = attrs.field(repr=False)
    places: tuple[tuple[Place, str | int | None], ...]


def by_place(tree: dict[str, Any], comments: Sequence[Comment]) -> dict[tuple[Place, str | int | None], list[str]]:
    """Sort comments to where they stand. What lost its neighbour goes to the end, what lost its place is dropped."""
    sorted_: dict[tuple[Place, str | int | None], list[str]] = {}
    for comment in comments:
        node: Any = tree
        try:
            for key in comment.place:
                node = node[key]
        except (LookupError, TypeError):
            continue
        if isinstance(node, dict | list | tuple):
            before = (
                comment.before if comment.before in (node if isinstance(node, dict) else range(len(node))) else None
            )
            sorted_.setdefault((comment.place, before), []).append(comment.text)
    return sorted_

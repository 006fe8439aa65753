"""The version of a resource, for compare-and-swap."""

from __future__ import annotations

import attrs

__all__ = ["Token"]


@attrs.frozen
class Token:
    """The version of an object, secret or record set, as its provider names it: an ETag, a generation, a number.

    Opaque: compare it for equality and hand it back as ``if_match``. It means nothing to another resource.
    """

    value: str

    def __str__(self) -> str:
        return self.value

"""What a driver can do, as data, and where each number comes from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import attrs

__all__ = ["Features", "Limit", "feature"]


@attrs.frozen
class Limit:
    """A number that a provider enforces, with the document or measurement it was taken from."""

    value: int
    source: str

    def __str__(self) -> str:
        return f"{self.value:,}"


def feature(about: str, *, default: Any = attrs.NOTHING) -> Any:  # noqa: ANN401  as attrs.field itself
    """Declare one feature; ``about`` is its row in the documentation's support matrix."""
    return attrs.field(default=default, metadata={"about": about})


@attrs.frozen(kw_only=True)
class Features:
    """Facts and limits of one driver. A service adds its own fields with ``feature()``.

    A ``bool`` says whether the optional operation exists: true means that it works, false that it raises
    ``Unsupported`` before anything is sent. A ``Limit`` is a number; ``None`` instead of one means that none is known.
    """

    title: str = feature("what speaks to the provider")

    def rows(self) -> Iterator[tuple[str, str, Any]]:
        """Yield (field, what it means, value) in the order of declaration."""
        for field in attrs.fields(type(self)):
            yield field.name, field.metadata.get("about", ""), getattr(self, field.name)

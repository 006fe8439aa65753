"""The smallest size that has what is needed."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal

import attrs

from shiftable.checks import Arch
from shiftable.wording import counted

__all__ = ["GIB", "Arch", "Choice", "Size", "choose_size"]

GIB = 2**30
HOURS = 730  # of a month, as providers count them


@attrs.frozen(kw_only=True)
class Size:
    """What a provider sells as one machine.

    Args:
        name: the provider's, ``t3.medium``.
        memory: in bytes.
        gpu: kind of its GPUs, in the provider's words.
        price: US dollars an hour, where that is known.
    """

    name: str
    cpus: int
    memory: int
    arch: Arch = "x86_64"
    gpus: int = 0
    gpu: str | None = None
    price: Decimal | None = None

    def __str__(self) -> str:
        gpus = f", {self.gpus} {self.gpu or 'GPU'}" if self.gpus else ""
        return f"{self.name} ({counted(self.cpus, 'CPU')}, {self.memory / GIB:g} GiB{gpus})"


@attrs.frozen
class Choice:
    """A size, and why it is this one.

    Args:
        price: US dollars an hour, where that is known.
    """

    size: Size
    reason: str
    price: Decimal | None = None

    @property
    def monthly(self) -> Decimal | None:
        """What one machine costs a month in US dollars, where that is known."""
        return None if self.price is None else self.price * HOURS


def choose_size(
    cpus: int, memory_gib: int, arch: Arch, sizes: Iterable[Size], *, gpus: int = 0, gpu: str | None = None
) -> Choice:
    """Choose the cheapest size that has at least what is needed; where no price is known, the smallest.

    A size without a price is taken only if none that is enough has one: lists of prices are older than new sizes.
    The same needs and sizes give the same choice, in whatever order the sizes come. A size with more GPUs than needed
    is never taken for a need of none.

    Raises:
        ValueError: none is large enough; names the nearest.
    """
    of_kind = [
        size
        for size in sizes
        if size.arch == arch and bool(size.gpus) is bool(gpus) and (gpu is None or size.gpu == gpu)
    ]
    enough = [s for s in of_kind if s.cpus >= cpus and s.memory >= memory_gib * GIB and s.gpus >= gpus]
    with_gpus = f" and {gpus} {gpu or 'GPU'}" if gpus else ""
    needed = f"{counted(cpus, 'CPU')}, {memory_gib} GiB{with_gpus} of {arch}"
    if not enough:
        largest = max(of_kind, key=_extent, default=None)
        raise ValueError(
            f"no size has {needed}; " + (f"the largest is {largest}" if largest else f"there is none of {arch}")
        )
    priced = [size for size in enough if size.price is not None]
    if priced:
        best = min(priced, key=lambda size: (size.price or Decimal(0), *_extent(size)))
        known = "" if len(priced) == len(enough) else ", among those whose price is known"
        return Choice(best, f"the cheapest of {counted(len(priced), 'size')} with at least {needed}{known}", best.price)
    best = min(enough, key=_extent)
    return Choice(best, f"the smallest of {counted(len(enough), 'size')} with at least {needed}", best.price)


def _extent(size: Size) -> tuple[int, int, int, str]:
    return size.gpus, size.cpus, size.memory, size.name

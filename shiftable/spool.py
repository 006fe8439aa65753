"""Things that come later: few are in memory, many in a file."""

from __future__ import annotations

import contextlib
import pickle
import tempfile
from collections.abc import Iterator
from typing import Generic, Self, TypeVar

from shiftable.errors import Resource, classify_os, translated

__all__ = ["Spool"]

T = TypeVar("T")

_IN_MEMORY = 4 * 1024 * 1024


class Spool(Generic[T]):
    """Keeps things in their order until they are wanted; a million of them are in a file that has no name.

    Args:
        operation: as errors name it, ``blob.sync``.

    Raises:
        OperationError: by ``add`` and by reading, where the folder of temporary files has no room or cannot be used.
    """

    def __init__(self, operation: str) -> None:
        self.count = 0
        self._operation = operation
        self._file = tempfile.SpooledTemporaryFile(_IN_MEMORY)  # noqa: SIM115  closed below

    def add(self, thing: T) -> None:
        """Keep a thing behind those that are kept."""
        with self._translated():
            pickle.dump(thing, self._file)
        self.count += 1

    def __iter__(self) -> Iterator[T]:
        with self._translated():
            self._file.seek(0)
        for _ in range(self.count):
            with self._translated():
                thing: T = pickle.load(self._file)  # noqa: S301  nobody else has written it
            yield thing

    def _translated(self) -> translated:
        folder = Resource("folder", tempfile.gettempdir())
        return translated(classify_os, provider="local", operation=self._operation, resource=folder)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        with contextlib.suppress(OSError):  # what had no room is written once more, and nobody wants it now
            self._file.close()

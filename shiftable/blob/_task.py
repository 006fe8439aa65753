"""What one operation on one object carries along: where it goes and how its errors read."""

from __future__ import annotations

from typing import TypeVar

import attrs

from shiftable.blob.driver import BlobDriver
from shiftable.errors import OperationError, Resource, translated

__all__ = ["Task"]

E = TypeVar("E", bound=OperationError)


@attrs.frozen
class Task:
    """One operation on one object.

    Args:
        operation: as errors name it, ``blob.put``.
    """

    driver: BlobDriver
    bucket: str
    key: str
    operation: str

    @property
    def resource(self) -> Resource:
        """The object."""
        return Resource("object", self.key, Resource("bucket", self.bucket))

    def translated(self) -> translated:
        """Turn native errors into ours."""
        return translated(
            self.driver.classify, provider=self.driver.provider, operation=self.operation, resource=self.resource
        )

    def error(self, cls: type[E], why: str) -> E:
        """Make an error of our own."""
        return cls(why, provider=self.driver.provider, operation=self.operation, resource=self.resource)

"""What one operation on one object carries along: where it goes and how its errors read."""

from __future__ import annotations

from functools import cached_property
from typing import TypeVar

import attrs

from shiftable.blob.driver import BlobDriver, ObjectSummary
from shiftable.errors import NotModified, OperationError, PreconditionFailed, Resource, translated
from shiftable.tokens import Token

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

    @cached_property
    def resource(self) -> Resource:
        """The object."""
        return Resource("object", self.key, Resource("bucket", self.bucket))

    @cached_property
    def translated(self) -> translated:
        """Turns native errors into ours, as often as it is entered."""
        return translated(
            self.driver.classify, provider=self.driver.named, operation=self.operation, resource=self.resource
        )

    def check_token(self, info: ObjectSummary, if_match: Token | None, if_none_match: Token | None = None) -> None:
        """Apply the conditions of a read to what was found."""
        if if_match is not None and info.token != if_match:
            raise self.error(PreconditionFailed, "the object is not in that version")
        if if_none_match is not None and info.token == if_none_match:
            raise self.error(NotModified, "the object is still in that version")

    def error(self, cls: type[E], why: str) -> E:
        """Make an error of our own."""
        return cls(why, provider=self.driver.named, operation=self.operation, resource=self.resource)

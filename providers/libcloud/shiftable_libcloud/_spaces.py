"""DigitalOcean's Spaces: the S3 protocol without tags of objects."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NoReturn

import attrs

from shiftable.errors import Unsupported
from shiftable_s3.driver import S3Driver

__all__ = ["SpacesDriver"]


@attrs.define
class SpacesDriver(S3Driver):
    """An S3 driver that refuses tags before anything is sent: Spaces' own list of what it has names none."""

    def tags(self, bucket: str, key: str, *, version: str | None = None) -> Mapping[str, str]:  # noqa: ARG002  as in S3Driver
        """Refuse."""
        self._no_tags()

    def set_tags(self, bucket: str, key: str, tags: Mapping[str, str]) -> None:  # noqa: ARG002  as in S3Driver
        """Refuse."""
        self._no_tags()

    def _no_tags(self) -> NoReturn:
        raise Unsupported("Spaces keeps no tags of objects", provider=self.provider)

"""The portable service object of blob storage."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import ClassVar

from shiftable.blob._bucket import Bucket
from shiftable.blob.driver import BlobDriver, BlobFeatures, BlobServer, BucketSpec
from shiftable.errors import InvalidArgument, NotFound, Unsupported
from shiftable.service import Service

__all__ = ["BlobStore"]

_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^/?#@*\s]+")


class BlobStore(Service[BucketSpec, BlobDriver, Bucket]):
    """The buckets of one account.

    >>> from shiftable.memory.blob import MemoryBlobDriver
    >>> store = BlobStore(MemoryBlobDriver())
    >>> for change in store.diff(BucketSpec(name="shop")):
    ...     print(change.action, change.name)
    ...     store.apply(change)
    create shop
    >>> [bucket.name for bucket in store.list()]
    ['shop']
    """

    service: ClassVar[str] = "blob"
    resource_type: ClassVar[str] = "bucket"

    @property
    def features(self) -> BlobFeatures:
        """What the driver can do."""
        return self._driver.features

    def lane(self) -> BlobStore:
        """Return the same buckets over the driver's bulk lane: see ``Bucket.lane``. Calls nobody."""
        driver = self._driver.lane()
        return self if driver is self._driver else BlobStore(driver)

    def bucket(self, name: str) -> Bucket:
        """Return the handle of a bucket, whether or not it exists. Calls nobody.

        Raises:
            InvalidArgument: the provider cannot hold a bucket of that name.
        """
        self._checked("bucket", name)
        return Bucket(self._driver, name)

    def open(self, spec: BucketSpec) -> Bucket:
        """Return the handle of a declared bucket. Calls nobody."""
        return self.bucket(spec.name)

    def get(self, name: str) -> Bucket:
        """Return the handle of an existing bucket.

        Raises:
            NotFound: there is none.
        """
        with self._translated("get", self._checked("get", name)):
            self._driver.require(name)
        return self._handle(name)

    def exists(self, name: str) -> bool:
        """Tell whether there is such a bucket. A refused permission is an error, not a no."""
        try:
            self.get(name)
        except NotFound:
            return False
        return True

    def serve(self, port: int | None = None, *, origins: Collection[str] = ()) -> BlobServer:
        """Answer presigned URLs on loopback, where the provider has no server that does; use it in a ``with`` block.

        Args:
            port: 0: any that is free; ``None``: the one that presigned URLs lead to.
            origins: of the pages whose scripts may use the URLs (CORS), ``https://shop.example``; ``*``: of all.

        Raises:
            InvalidArgument: there is no such port or origin.
            Unsupported: the provider has its own.
        """
        if not self.features.serve:
            raise Unsupported(
                "this provider answers presigned URLs itself", provider=self.provider, operation="blob.serve"
            )
        if port is not None and not 0 <= port < 65536:
            raise InvalidArgument(f"there is no port {port}", provider=self.provider, operation="blob.serve")
        wrong = next((origin for origin in origins if origin != "*" and not _ORIGIN.fullmatch(origin)), None)
        if wrong is not None:
            raise InvalidArgument(
                f"{wrong!r} is no origin, such as https://shop.example", provider=self.provider, operation="blob.serve"
            )
        with self._translated("serve", None):
            return self._driver.serve(port, origins=origins)

    def _handle(self, name: str) -> Bucket:
        return Bucket(self._driver, name)

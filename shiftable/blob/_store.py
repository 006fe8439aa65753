"""The portable service object of blob storage."""

from __future__ import annotations

from collections.abc import Collection
from typing import ClassVar

import attrs

from shiftable.blob._bucket import Bucket
from shiftable.blob.driver import BlobDriver, BlobFeatures, BlobServer, BucketSpec, why_no_origin
from shiftable.errors import InvalidArgument, NotFound, Resource, Unsupported
from shiftable.service import Change, Service

__all__ = ["BlobStore"]


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

    def diff(self, spec: BucketSpec) -> tuple[Change[BucketSpec], ...]:
        """Say what would have to change for the bucket to be as declared; nothing, if it is.

        What a provider keeps is more than was declared where it cannot say just that: the change tells all of it.
        A change that ``apply`` will refuse, as object lock is never switched off, says so in its ``reason``.
        """
        changes = super().diff(self._driver.as_kept(spec))
        return tuple(attrs.evolve(change, reason=self._objection(change) or "") for change in changes)

    def apply(self, change: Change[BucketSpec]) -> None:
        """Carry out one change, as ``Service.apply`` does.

        Raises:
            Unsupported: object lock would be switched off, or on where only a new bucket can have it.
        """
        why = self._objection(change)
        if why is not None:
            resource = Resource(self.resource_type, change.name)
            raise Unsupported(why, provider=self.provider, operation="blob.update", resource=resource)
        super().apply(change)

    def _objection(self, change: Change[BucketSpec]) -> str | None:
        """Say why a change of object lock cannot be carried out."""
        before, after = change.before, change.after
        if before is None or after is None:
            return None
        if before.object_lock and not after.object_lock:
            return "object lock is never switched off: what is locked would lose its protection; declare object_lock"
        if before.object_lock and self.features.lock_needs_versioning and before.versioning and not after.versioning:
            return "versioning is not switched off in a bucket with object lock"
        if after.object_lock and not before.object_lock and self.features.object_lock and not self.features.lock_later:
            return self._driver.why_not_later
        return None

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
        why = next(filter(None, map(why_no_origin, origins)), None)
        if why is not None:
            raise InvalidArgument(why, provider=self.provider, operation="blob.serve")
        with self._translated("serve", None if port is None else Resource("port", str(port))):
            return self._driver.serve(port, origins=origins)

    def _handle(self, name: str) -> Bucket:
        return Bucket(self._driver, name)

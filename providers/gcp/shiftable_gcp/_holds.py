"""Objects that are under a hold from their first moment, which the SDK cannot write."""

from __future__ import annotations

from google.cloud.storage.blob import Blob

from shiftable_gcp._session import Untyped

__all__ = ["held"]


class _Held(Blob):  # type: ignore[misc]  # the SDK has no types
    """The SDK's object, whose ``temporaryHold`` is also said in uploads: its list of what may be said lacks it."""

    def _get_writable_metadata(self) -> dict[str, Untyped]:
        return {**super()._get_writable_metadata(), "temporaryHold": True}


def held(key: str, bucket: Untyped) -> Untyped:
    """Return the handle of an object that is to be written under a hold. Calls nobody."""
    blob = _Held(name=key, bucket=bucket)
    blob.temporary_hold = True
    return blob

"""What the files driver raises of its own, beside the operating system's errors."""

from __future__ import annotations

import errno

from shiftable.errors import (
    Conflict,
    Fault,
    IntegrityError,
    InvalidArgument,
    NotFound,
    NotModified,
    PermissionDenied,
    PreconditionFailed,
    classify_os,
)

__all__ = [
    "FilesError",
    "blocked",
    "classify",
    "damaged",
    "denied",
    "invalid",
    "missing_bucket",
    "missing_object",
    "missing_upload",
    "missing_version",
    "unchanged",
    "unmet",
]


class FilesError(Exception):
    """Something that a blob store knows and a file system does not: conditions, buckets, uploads."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.message)
        self.fault = fault


def classify(exc: Exception) -> Fault | None:
    """Claim the driver's own errors and those of the operating system."""
    if isinstance(exc, FilesError):
        return exc.fault
    if isinstance(exc, OSError) and exc.errno == errno.EXDEV:
        message = "the bucket's folder lies on another file system than the root: nothing can be put into it atomically"
        return Fault(Conflict, message, "EXDEV")
    return classify_os(exc)


def missing_bucket(bucket: str) -> FilesError:
    """Say that there is no folder for a bucket."""
    return FilesError(Fault(NotFound, f"there is no folder for the bucket {bucket!r}", missing="bucket"))


def missing_object(key: str) -> FilesError:
    """Say that there is no file for a key."""
    return FilesError(Fault(NotFound, f"there is no object {key!r}"))


def missing_version(key: str, version: str) -> FilesError:
    """Say that an object has no such version, or that the version is a delete marker."""
    return FilesError(Fault(NotFound, f"the object {key!r} has no content in version {version!r}"))


def missing_upload(upload_id: str) -> FilesError:
    """Say that an upload was completed or aborted."""
    return FilesError(Fault(NotFound, f"there is no upload {upload_id!r}: it was completed or aborted"))


def unmet(message: str) -> FilesError:
    """Say which condition of a write did not hold."""
    return FilesError(Fault(PreconditionFailed, message))


def unchanged(message: str) -> FilesError:
    """Say that what the caller has is what there is."""
    return FilesError(Fault(NotModified, message))


def blocked(message: str) -> FilesError:
    """Say what stands in the way."""
    return FilesError(Fault(Conflict, message))


def denied(message: str) -> FilesError:
    """Say why a signed URL does not allow it."""
    return FilesError(Fault(PermissionDenied, message))


def invalid(message: str) -> FilesError:
    """Say what is wrong with an argument."""
    return FilesError(Fault(InvalidArgument, message))


def damaged(message: str) -> FilesError:
    """Say what is not as it was written."""
    return FilesError(Fault(IntegrityError, message))

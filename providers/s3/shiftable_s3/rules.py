"""What S3 can hold, checked before anything is sent: names of buckets, keys, metadata."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping

from shiftable.blob.driver import Headers

__all__ = ["aws_key", "bucket_name", "headers", "metadata", "server_key", "server_metadata", "server_tags", "tags"]

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_IPV4 = re.compile(r"\d+\.\d+\.\d+\.\d+")
_RESERVED_STARTS = ("xn--", "sthree-", "amzn-s3-demo-")
_RESERVED_ENDS = ("-s3alias", "--ol-s3", ".mrap", "--x-s3", "--table-s3")
_BUCKET_RULE = "3 to 63 lower-case letters, digits, dots and hyphens, a letter or digit at both ends"
_BUCKET_SOURCE = "Amazon S3 User Guide, general purpose bucket naming rules"

# XML 1.0 has no way to write these, not even as a reference. A listing could tell them, as it is URL-encoded, but the
# answers to CreateMultipartUpload, the bodies of DeleteObjects and every error that quotes the key could not.
_NOT_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")

_META_NAME = re.compile(r"[a-z0-9!#$%&'*+.^_`|~-]+")
_META_VALUE = re.compile(r"(?:[!-~](?:[ -~]*[!-~])?)?")
_HEADER = re.compile(r"(?:[!-~](?:[\t -~]*[!-~])?)?")

_TAGS = "Amazon S3 User Guide, object tagging"
_TAG_KINDS = frozenset("LZN")  # letters, separators, numbers: first letters of Unicode's categories
_TAG_SIGNS = frozenset("+-=._:/@")


def bucket_name(name: str) -> str | None:
    """Say why S3 has no bucket of that name."""
    if not _BUCKET.fullmatch(name):
        return f"a bucket name is {_BUCKET_RULE} ({_BUCKET_SOURCE})"
    if ".." in name:
        return f"a bucket name has no two dots in a row ({_BUCKET_SOURCE})"
    if _IPV4.fullmatch(name):
        return f"a bucket name is not formatted as an IP address ({_BUCKET_SOURCE})"
    for start in _RESERVED_STARTS:
        if name.startswith(start):
            return f"bucket names that begin with {start} are reserved ({_BUCKET_SOURCE})"
    for end in _RESERVED_ENDS:
        if name.endswith(end):
            return f"bucket names that end in {end} are reserved ({_BUCKET_SOURCE})"
    return None


def aws_key(key: str) -> str | None:
    """Say why Amazon S3 cannot hold that key in every operation."""
    if key == "soap":
        return "Amazon S3 keeps the key 'soap' to itself (User Guide, naming objects)"
    depth = 0
    for segment in key.split("/"):
        depth += -1 if segment == ".." else 1
        if depth < 0:
            return "the key climbs out of the bucket with '..', which Amazon S3 answers with 400 Bad Request"
    return _xml(key)


def server_key(key: str) -> str | None:
    """Say why an S3-compatible server may not hold that key.

    Some servers refuse the segments ``.`` and ``..``, and a proxy in front of any may resolve them: then
    ``DELETE /bucket/..`` would be about something else.
    """
    if any(segment in {".", ".."} for segment in key.split("/")):
        return "the key has a segment '.' or '..', which S3-compatible servers or proxies before them may resolve"
    return _xml(key)


def metadata(items: Mapping[str, str]) -> str | None:
    """Say why S3 would not give that metadata back exactly: it travels in HTTP headers."""
    for name, value in items.items():
        if name != name.lower():
            return f"S3 keeps metadata names in lower case: {name!r} would come back as {name.lower()!r}"
        if not _META_NAME.fullmatch(name):
            return f"the metadata name {name!r} cannot be part of an HTTP header's name"
        if not _META_VALUE.fullmatch(value):
            return f"the value of metadata {name!r} must be printable ASCII without blanks at its ends; encode it"
    return None


def server_metadata(items: Mapping[str, str]) -> str | None:
    """Say why an S3-compatible server may not give that metadata back exactly."""
    for name in items:
        if "_" in name:
            return (
                f"Ceph turns the underscore of the metadata name {name!r} into a hyphen, and proxies drop such headers"
            )
    return metadata(items)


def headers(kept: Headers) -> str | None:
    """Say why S3 would not give those headers back exactly."""
    for name in ("content_type", "cache_control", "content_disposition", "content_encoding", "content_language"):
        value = getattr(kept, name)
        if value is not None and not _HEADER.fullmatch(value):
            return f"the header {name} must be ASCII text without blanks at its ends"
    return None


def tags(items: Mapping[str, str]) -> str | None:
    """Say why Amazon S3 has no such tags."""
    for name, value in items.items():
        if not 1 <= len(name) <= 128 or len(value) > 256:
            return f"the tag {name!r} is too long: names have 1 to 128 characters, values 256 at most ({_TAGS})"
        if name.startswith("aws:"):
            return f"tags whose names begin with aws: are Amazon's own ({_TAGS})"
        if not all(char in _TAG_SIGNS or unicodedata.category(char)[0] in _TAG_KINDS for char in name + value):
            return f"the tag {name!r} has other characters than letters, digits, blanks and + - = . _ : / @ ({_TAGS})"
    return None


def server_tags(items: Mapping[str, str]) -> str | None:
    """Say why an S3-compatible server may have no such tags.

    Some have all of Amazon's rules. Ceph allows more characters, but counts bytes.
    """
    for name, value in items.items():
        if not 1 <= len(name.encode()) <= 128 or len(value.encode()) > 256:
            return f"the tag {name!r} is too long: names have 1 to 128 bytes, values 256 at most (Ceph Object Gateway)"
    return tags(items)


def _xml(key: str) -> str | None:
    found = _NOT_XML.search(key)
    if found is None:
        return None
    return f"the key has the character U+{ord(found.group()):04X}, which S3's XML cannot hold"

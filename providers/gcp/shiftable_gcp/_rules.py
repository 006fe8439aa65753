"""What Cloud Storage can hold, checked before anything is sent: names of buckets, keys, metadata."""

from __future__ import annotations

import re
from collections.abc import Mapping

import attrs

from shiftable.blob.driver import Headers, PutOptions

__all__ = ["bucket_name", "fits_headers", "has_dot_segments", "headers", "metadata", "object_key"]

_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]")
_IPV4 = re.compile(r"\d+\.\d+\.\d+\.\d+")
_BUCKET_RULE = "3 to 63 lower-case letters, digits, dots, hyphens and underscores, a letter or digit at both ends"
_BUCKET_SOURCE = "Cloud Storage, bucket naming guidelines"
_KEY_SOURCE = "Cloud Storage, object naming requirements"
_ACME = ".well-known/acme-challenge/"

_META_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_HEADER_VALUE = re.compile(r"[!-~](?:[ -~]*[!-~])?")


def bucket_name(name: str) -> str | None:
    """Say why Cloud Storage has no bucket of that name."""
    if not _BUCKET.fullmatch(name) or any(len(part) > 63 for part in name.split(".")):
        return f"a bucket name is {_BUCKET_RULE}; with dots up to 222 in all ({_BUCKET_SOURCE})"
    if ".." in name or "-." in name or ".-" in name:
        return f"a bucket name has no dot beside another or beside a hyphen ({_BUCKET_SOURCE})"
    if _IPV4.fullmatch(name):
        return f"a bucket name is not formatted as an IP address ({_BUCKET_SOURCE})"
    if name.startswith("goog") or "google" in name or "g00gle" in name:
        return f"a bucket name does not begin with goog and does not contain google ({_BUCKET_SOURCE})"
    return None


def object_key(key: str) -> str | None:
    """Say why Cloud Storage has no object of that key."""
    if "\r" in key or "\n" in key:
        return f"the key has a line break ({_KEY_SOURCE})"
    if key in {".", ".."}:
        return f"no key is {key!r} ({_KEY_SOURCE})"
    if key.startswith(_ACME):
        return f"no key begins with {_ACME} ({_KEY_SOURCE})"
    return None


def metadata(items: Mapping[str, str]) -> str | None:
    """Say why metadata would not be the same to every reader: that of the XML API sees it in HTTP headers."""
    seen: dict[str, str] = {}
    for name, value in items.items():
        if not _META_NAME.fullmatch(name):
            return f"the metadata name {name!r} cannot be part of an HTTP header's name"
        other = seen.setdefault(name.lower(), name)
        if other != name:
            return f"the metadata names {other!r} and {name!r} are the same HTTP header"
        if value != value.strip():
            return f"the value of metadata {name!r} has blanks at its ends, which HTTP headers lose"
    return None


def headers(stated: Headers) -> str | None:
    """Say why a header would not be the same to every reader."""
    for name, value in attrs.asdict(stated).items():
        if value is not None and (not value or value != value.strip()):
            return f"the header {name} is empty or has blanks at its ends, which HTTP loses"
    return None


def fits_headers(options: PutOptions) -> bool:
    """Tell whether HTTP headers carry exactly what goes with an object.

    They do not where there is upper case in names, an empty value or anything beyond ASCII.
    """
    values = [*attrs.asdict(options.headers).values(), *options.metadata.values()]
    kept = all(value is None or _HEADER_VALUE.fullmatch(value) for value in values)
    return kept and all(name == name.lower() for name in options.metadata)


def has_dot_segments(key: str) -> bool:
    """Tell whether a client that normalizes paths would ask for another key."""
    return any(segment in {".", ".."} for segment in key.split("/"))

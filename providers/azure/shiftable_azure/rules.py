"""What Azure Blob Storage can hold, checked before anything is sent: names, keys, metadata, tags."""

from __future__ import annotations

import re
from collections.abc import Mapping

from shiftable.blob.driver import Headers

__all__ = ["blob_key", "container_name", "headers", "metadata", "tags"]

_NAMING = "Azure Storage, naming and referencing containers, blobs and metadata"
_CONTAINER = re.compile(r"[a-z0-9](?:-?[a-z0-9])+")
_SPECIAL = {"$root", "$web", "$logs"}

_KEY_UNITS = 1024
_KEY_SEGMENTS = 254
_NOT_IN_URLS = re.compile("[\x00-\x1f\x7f-\x9f\ufffe\uffff]")

# C# identifiers as far as HTTP headers have room for them.
_META_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# Runs of blanks are one blank to whoever verifies a shared key's signature: such a request would be answered with 403.
_META_VALUE = re.compile(r"[!-~]+(?: [!-~]+)*")
_HEADER = re.compile(r"(?:[!-~]+(?: [!-~]+)*)?")

_TAGS = "Azure Storage, Set Blob Tags"
_TAG_TEXT = re.compile(r"[A-Za-z0-9 +\-./:=_]*")


def container_name(name: str) -> str | None:
    """Say why Azure has no container of that name."""
    if name in _SPECIAL:
        return None
    if not 3 <= len(name) <= 63 or not _CONTAINER.fullmatch(name):
        return (
            "a container name is 3 to 63 lower-case letters, digits and single hyphens, "
            f"a letter or digit at both ends ({_NAMING})"
        )
    return None


def blob_key(key: str) -> str | None:
    """Say why Azure would refuse or change that key, in an account without hierarchical namespace.

    Slashes are kept wherever they stand, also at the ends and in a row. What is refused here, Azure stores otherwise:
    backslashes as slashes, segments without the dots at their ends; that ``.`` and ``..`` are resolved on the way,
    by HTTP clients too, is a case of the latter.
    """
    units = len(key.encode("utf-16-le")) // 2
    if units > _KEY_UNITS:
        return f"the key has {units:,} UTF-16 units; the limit is {_KEY_UNITS:,} ({_NAMING})"
    segments = key.split("/")
    if len(segments) > _KEY_SEGMENTS:
        return f"the key has {len(segments)} segments between slashes; the limit is {_KEY_SEGMENTS} ({_NAMING})"
    found = _NOT_IN_URLS.search(key)
    if found is not None:
        return f"the key has the character U+{ord(found.group()):04X}, which Azure has in no name ({_NAMING})"
    if "\\" in key:
        return "the key has a backslash, which Azure turns into a slash"
    if any(segment.endswith(".") for segment in segments):
        return "the key has a segment that ends with a dot, which Azure drops"
    return None


def metadata(items: Mapping[str, str]) -> str | None:
    """Say why Azure would not give that metadata back exactly: it travels in HTTP headers, under C#'s names."""
    seen: dict[str, str] = {}
    for name, value in items.items():
        if not _META_NAME.fullmatch(name):
            return f"the metadata name {name!r} is no C# identifier of ASCII letters, digits and _ ({_NAMING})"
        twin = seen.setdefault(name.lower(), name)
        if twin != name:
            return f"Azure compares metadata names without their case: {twin!r} and {name!r} would be one"
        if not _META_VALUE.fullmatch(value):
            return (
                f"the value of metadata {name!r} must be printable ASCII, not empty, "
                "without blanks at its ends or several in a row"
            )
    return None


def headers(kept: Headers) -> str | None:
    """Say why Azure would not give those headers back exactly."""
    for name in ("content_type", "cache_control", "content_disposition", "content_encoding", "content_language"):
        value = getattr(kept, name)
        if value is not None and not _HEADER.fullmatch(value):
            return f"the header {name} must be ASCII text without blanks at its ends or several in a row"
    return None


def tags(items: Mapping[str, str]) -> str | None:
    """Say why Azure has no such tags."""
    for name, value in items.items():
        if not 1 <= len(name) <= 128 or len(value) > 256:
            return f"the tag {name!r} is too long: names have 1 to 128 characters, values 256 at most ({_TAGS})"
        if not _TAG_TEXT.fullmatch(name) or not _TAG_TEXT.fullmatch(value):
            return f"the tag {name!r} has other characters than letters, digits, blanks and + - . / : = _ ({_TAGS})"
    return None

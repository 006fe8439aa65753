"""Addresses of servers with an API over HTTP, and what goes into the head of a request to them."""

from __future__ import annotations

import re
from urllib.parse import SplitResult, urlsplit

from shiftable.errors import ConfigError

__all__ = ["address_parts", "sendable"]

_HOST = re.compile(r"[!-?A-~]+")  # no user before an @
_SENDABLE = re.compile(r"[ -~]*")


def address_parts(setting: str, address: str, example: str) -> SplitResult:
    """Take an address apart that has a host, perhaps a port and a path, and nothing else.

    Raises:
        ConfigError: it is no such address; no password in it is shown.
    """
    try:
        parts = urlsplit(address)
        whole = parts.hostname and parts.port != 0 and _HOST.fullmatch(parts.netloc)
        if whole and parts.scheme in {"http", "https"} and not parts.query and not parts.fragment:
            return parts
    except ValueError:
        pass
    shown = "not to hold a user or password" if "@" in address else f"not {address!r}"
    raise ConfigError(f"{setting} is {shown}: write it {example}")


def sendable(setting: str, text: str) -> str:
    """Return a credential that the head of a request can hold.

    Raises:
        ConfigError: it has a line end or a character that is not ASCII.
    """
    if not _SENDABLE.fullmatch(text):
        raise ConfigError(f"{setting} holds what no header can: is there a line too many in it?")
    return text

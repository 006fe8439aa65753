"""What DNS and machines of Linode share: the connection, and what an error says."""

from __future__ import annotations

import json
from typing import Any

from libcloud.common.linode import LinodeConnectionV4, LinodeResponseV4

from shiftable_libcloud._connection import SafeConnection, SafeResponse
from shiftable_libcloud._dns_hoster import Fields

__all__ = ["LinodeConnection", "LinodeResponse"]


class LinodeResponse(SafeResponse, LinodeResponseV4):  # type: ignore[misc]  # libcloud types by its defaults
    """libcloud's answer, made safe."""

    def error_in(self, body: str) -> tuple[str, str]:
        """Return what Linode says of an error; it has no words for them."""
        try:
            found = json.loads(body)["errors"]
            return "", "; ".join(_said(error) for error in found)
        except (ValueError, TypeError, KeyError, AttributeError):
            return "", ""


def _said(error: Fields) -> str:
    reason = str(error.get("reason") or "")
    return f"{error['field']}: {reason}" if error.get("field") else reason


class LinodeConnection(SafeConnection, LinodeConnectionV4):  # type: ignore[misc]  # the same
    """libcloud's connection, made safe."""

    responseCls = LinodeResponse  # noqa: N815  libcloud's name

    def add_default_params(self, params: dict[str, Any]) -> dict[str, Any]:
        """Add none: libcloud would ask for pages of 25."""
        return params

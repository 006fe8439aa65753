"""What DNS and machines of Vultr share: the connection, the size of a page."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from libcloud.common.vultr import VultrConnectionV2, VultrResponseV2

from shiftable_libcloud._connection import SafeConnection, SafeResponse

__all__ = ["PAGE", "VultrConnection", "VultrResponse", "next_page"]

PAGE = 500  # the most, as libcloud and govultr ask for


class VultrResponse(SafeResponse, VultrResponseV2):  # type: ignore[misc]  # libcloud types by its defaults
    """libcloud's answer, made safe."""

    def error_in(self, body: str) -> tuple[str, str]:
        """Return what Vultr says of an error; it has no words for them."""
        try:
            return "", str(json.loads(body)["error"])
        except (ValueError, TypeError, KeyError):
            return "", ""


class VultrConnection(SafeConnection, VultrConnectionV2):  # type: ignore[misc]  # the same
    """libcloud's connection, made safe."""

    responseCls = VultrResponse  # noqa: N815  libcloud's name

    def add_default_params(self, params: dict[str, Any]) -> dict[str, Any]:
        """Add none: libcloud would ask for a page's size also where there are none."""
        return params


def next_page(answer: Mapping[str, Any]) -> str | None:
    """Return the cursor of the next page."""
    links = (answer.get("meta") or {}).get("links") or {}
    return str(links.get("next") or "") or None

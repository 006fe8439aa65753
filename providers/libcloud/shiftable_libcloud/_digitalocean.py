"""What DNS and droplets of DigitalOcean share: the connection, the size of a page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from libcloud.common.digitalocean import DigitalOcean_v2_Connection, DigitalOcean_v2_Response

from shiftable_libcloud._connection import SafeConnection, SafeDriver, SafeResponse

__all__ = ["PAGE", "DigitalOceanConnection", "DigitalOceanDriver", "has_more"]

PAGE = 200  # the most, API reference, "Links & Pagination"


class _Response(SafeResponse, DigitalOcean_v2_Response):  # type: ignore[misc]  # libcloud types by its defaults
    pass


class DigitalOceanConnection(SafeConnection, DigitalOcean_v2_Connection):  # type: ignore[misc]  # the same
    """libcloud's connection, made safe."""

    responseCls = _Response  # noqa: N815  libcloud's name


class DigitalOceanDriver(SafeDriver):
    """Mixed into libcloud's drivers of DigitalOcean."""

    connectionCls = DigitalOceanConnection  # noqa: N815  libcloud's name
    options: ClassVar[Mapping[str, Any]] = {"ex_per_page": PAGE}


def has_more(answer: Mapping[str, Any]) -> bool:
    """Tell whether another page follows."""
    return bool(((answer.get("links") or {}).get("pages") or {}).get("next"))

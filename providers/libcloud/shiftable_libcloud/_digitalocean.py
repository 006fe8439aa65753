"""What DNS and droplets of DigitalOcean share: the connection, the size of a page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from libcloud.common.digitalocean import DigitalOcean_v2_Connection, DigitalOcean_v2_Response

from shiftable_libcloud._connection import SafeConnection, SafeResponse

__all__ = ["PAGE", "DigitalOceanConnection", "SafeDriver", "has_more"]

PAGE = 200  # the most, API reference, "Links & Pagination"


class _Response(SafeResponse, DigitalOcean_v2_Response):  # type: ignore[misc]  # libcloud types by its defaults
    pass


class DigitalOceanConnection(SafeConnection, DigitalOcean_v2_Connection):  # type: ignore[misc]  # the same
    """libcloud's connection, made safe."""

    responseCls = _Response  # noqa: N815  libcloud's name


class SafeDriver:
    """Mixed into libcloud's drivers of DigitalOcean: made in one way, for one thread at a time.

    Args:
        endpoint: where the API is, if not at DigitalOcean.
        patience: seconds for which a call is tried again.
    """

    connectionCls = DigitalOceanConnection  # noqa: N815  libcloud's name
    connection: Any

    def __new__(cls, *_args: object, **_kwargs: object) -> Self:
        """Make one: the class that libcloud derives its drivers from has no room for keyword arguments."""
        return object.__new__(cls)

    def __init__(self, token: str, *, endpoint: str | None = None, patience: float = 60.0) -> None:
        self._endpoint = endpoint
        super().__init__(token, ex_per_page=PAGE)  # type: ignore[call-arg]  # of libcloud's driver
        self.connection.patience = patience

    def _ex_connection_class_kwargs(self) -> dict[str, Any]:
        """Name the endpoint: libcloud's own driver drops host and port."""
        return {} if self._endpoint is None else {"url": self._endpoint}


def has_more(answer: Mapping[str, Any]) -> bool:
    """Tell whether another page follows."""
    return bool(((answer.get("links") or {}).get("pages") or {}).get("next"))

"""Connections of PyMySQL, whose own time for connecting is over when a server is reached, whether or not it answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pymysql.connections import Connection

__all__ = ["connect"]


def connect(*, connect_timeout: int, **given: Any) -> Connection[Any]:  # noqa: ANN401  what PyMySQL's takes
    """Connect, and give up a server that does not answer until then; statements take as long as they take.

    Args:
        connect_timeout: seconds, for the way to the server and for each of its answers until it has let in.
    """
    import pymysql

    connection: Connection[Any] = pymysql.connect(
        connect_timeout=connect_timeout, **{"read_timeout": connect_timeout, **given}
    )
    # There is no other way to limit the login alone; the stubs do not know the name.
    connection._read_timeout = given.get("read_timeout")  # type: ignore[attr-defined]  # noqa: SLF001
    return connection

"""What the parts of the double share: routes and refusals."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any
from urllib.parse import parse_qsl, unquote

import attrs

from shiftable.testing.harness import Request

__all__ = ["Handler", "Refused", "Routed", "Routes", "Row", "missing", "unprocessable"]

Row = dict[str, Any]
Handler = Callable[["Routed"], "Row | list[Row] | None"]


class Refused(Exception):
    """An answer that says no."""

    def __init__(self, status: int, id: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.id = id
        self.message = message


def unprocessable(message: str) -> Refused:
    """Return the refusal that DigitalOcean has for most things."""
    return Refused(422, "unprocessable_entity", message)


def missing() -> Refused:
    """Return the refusal of what is not there."""
    return Refused(404, "not_found", "The resource you were accessing could not be found.")


@attrs.frozen
class Routed:
    """A request, and what it is for.

    Args:
        operation: as the log calls it.
        names: what stands in the path.
        listed: what a listing is called in the answer.
    """

    operation: str
    handler: Handler = attrs.field(repr=False)
    names: tuple[str, ...]
    query: Mapping[str, str]
    listed: str
    _body: bytes = attrs.field(repr=False)

    @property
    def body(self) -> Row:
        """The JSON that was sent."""
        try:
            found = json.loads(self._body or b"{}")
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise Refused(400, "bad_request", "invalid json body")
        return found


class Routes:
    """Which handler a request is for.

    Args:
        table: verb, path as a regular expression, operation, what is listed, handler.
    """

    def __init__(self, table: Iterable[tuple[str, str, str, str, Handler]]) -> None:
        self._table = [(verb, re.compile(path), what, listed, handler) for verb, path, what, listed, handler in table]

    def find(self, request: Request) -> Routed | None:
        """Return what a request is for; ``None``: nothing that there is."""
        path = request.target.partition("?")[0]
        for verb, pattern, operation, listed, handler in self._table:
            found = pattern.fullmatch(path)
            if found is not None and verb == request.method:
                names = tuple(unquote(name) for name in found.groups())
                query = dict(parse_qsl(request.query, keep_blank_values=True))
                return Routed(operation, handler, names, query, listed, request.body)
        return None

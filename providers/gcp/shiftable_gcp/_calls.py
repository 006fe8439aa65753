"""What the double's JSON services share: a request, taken apart by a table of routes, and answers."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Generic, TypeVar
from urllib.parse import parse_qsl, unquote

import attrs

from shiftable.testing.harness import Headers, Request, Response
from shiftable_gcp._state import Refused

__all__ = ["Call", "Routes", "answered", "served"]

H = TypeVar("H")


@attrs.frozen
class Call:
    """One request.

    Args:
        names: what stands in the path, decoded.
    """

    request: Request
    names: tuple[str, ...]
    query: Mapping[str, str]

    @property
    def body(self) -> dict[str, Any]:
        """The JSON that was sent."""
        try:
            found = json.loads(self.request.body or b"{}")
        except ValueError as exc:
            raise Refused(400, "", "INVALID_ARGUMENT", "Invalid JSON payload received.") from exc
        if not isinstance(found, dict):
            message = "Invalid JSON payload received. Unknown name: Root element must be a message."
            raise Refused(400, "", "INVALID_ARGUMENT", message)
        return found


class Routes(Generic[H]):
    """Which handler a request is for.

    Args:
        table: verb, path as a regular expression, handler.
    """

    def __init__(self, table: Iterable[tuple[str, str, H]]) -> None:
        self._table = tuple((verb, re.compile(path), handler) for verb, path, handler in table)

    def find(self, request: Request) -> tuple[H, Call] | None:
        """Return the handler and what it is to handle; ``None``: the double has none."""
        path = request.target.partition("?")[0]
        for verb, pattern, handler in self._table:
            found = pattern.fullmatch(path)
            if found and verb == request.method:
                names = tuple(unquote(name) for name in found.groups())
                return handler, Call(request, names, dict(parse_qsl(request.query, keep_blank_values=True)))
        return None


def answered(status: int, value: Mapping[str, Any]) -> Response:
    """Return an answer in JSON."""
    headers = Headers({"Content-Type": "application/json; charset=UTF-8"})
    return Response(f"{status} Answered", headers, json.dumps(value).encode())


def served(
    request: Request,
    routes: Routes[Callable[[Call], dict[str, Any]]],
    execute: Callable[[Callable[[Call], dict[str, Any]], Call], dict[str, Any]],
    refused: Refused | None,
    reasons: Mapping[int, str],
) -> Response:
    """Answer a request to an API whose errors have reasons, the older kind of Google's.

    Args:
        execute: called with the handler and what it is to handle.
        refused: what whoever looked at the credentials says.
        reasons: what a refusal for the credentials is called, by its status.
    """
    if refused is not None:
        return _reasoned(Refused(refused.status, reasons[refused.status], "", refused.message))
    found = routes.find(request)
    if found is None:
        return _reasoned(Refused(501, "notImplemented", "", "not in the double"))
    try:
        return answered(200, execute(*found))
    except Refused as exc:
        return _reasoned(exc)


def _reasoned(refused: Refused) -> Response:
    detail = {"message": refused.message, "domain": "global", "reason": refused.reason}
    error = {"code": refused.status, "message": refused.message, "errors": [detail]}
    return answered(refused.status, {"error": error})

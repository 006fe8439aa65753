"""What S3 answers to scripts of pages; moto lets every page in."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import attrs

from shiftable.testing.browsers import Letting, let_in
from shiftable.testing.harness import Headers, Request, Response

__all__ = ["let", "objection", "refused"]

_ORIGIN = re.compile(rb"<AllowedOrigin>(.*?)</AllowedOrigin>")
_HEADER = re.compile(rb"<AllowedHeader>(.*?)</AllowedHeader>")
_EXPOSED = re.compile(rb"<ExposeHeader>(.*?)</ExposeHeader>")


def objection(request: Request) -> str | None:
    """Say why rules are refused that moto would keep."""
    body = request.body if (request.method, request.query) == ("PUT", "cors") else b""
    for name, pattern in (("AllowedOrigin", _ORIGIN), ("AllowedHeader", _HEADER)):
        for found in pattern.findall(body):
            if found.count(b"*") > 1:
                return f'{name} "{found.decode()}" can not have more than one wildcard.'
    for found in _EXPOSED.findall(body):
        if b"*" in found:
            return f'ExposeHeader "{found.decode()}" contains wildcard. We currently do not support wildcard for it.'
    return None


def let(request: Request, response: Response, bucket: Any) -> Response:  # noqa: ANN401  moto's own; None: there is none
    """Return an answer with the headers by which a script may read it, if the bucket's rules say so."""
    kept = {name: value for name, value in response.headers.items() if not name.lower().startswith("access-control-")}
    return attrs.evolve(response, headers=Headers({**kept, **let_in(_rules(bucket), request)}))


def refused(request: Request, bucket: Any) -> str | None:  # noqa: ANN401  the same
    """Say why a browser that asks before a request is refused."""
    if bucket is None or not bucket.cors:
        return "CORSResponse: CORS is not enabled for this bucket."
    if not let_in(_rules(bucket), request):
        return (
            "CORSResponse: This CORS request is not allowed. This is usually because the evalution of Origin, request "
            "method / Access-Control-Request-Method or Access-Control-Request-Headers are not whitelisted by the "
            "resource's CORS spec."
        )
    return None


def _rules(bucket: Any) -> Iterator[Letting]:  # noqa: ANN401  the same
    for rule in bucket.cors if bucket is not None else ():
        yield Letting(
            origins=tuple(rule.allowed_origins),
            methods=tuple(rule.allowed_methods),
            headers=tuple(rule.allowed_headers or ()),
            exposed=tuple(rule.exposed_headers or ()),
            seconds=rule.max_age_seconds,
        )

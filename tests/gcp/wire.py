"""The wire of the double of Google Cloud, without anything of ours: what a client sends, and what comes back."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Protocol

import requests

from shiftable.testing.harness import Request, Response
from shiftable_gcp._discovery import Discovery

Json = dict[str, Any]
Ask = Callable[..., Any]


class Refused(Exception):
    """The service said no: its status, its reason and its words; of newer services, the status and its name."""


def asking(root: str) -> Ask:
    """Return a way to ask over the wire, for paths below a URL."""

    def send(verb: str, path: str = "", body: object = None, **query: object) -> Any:
        answer = requests.request(verb, root + path, params=query, json=body, timeout=10)
        if answer.status_code < 400:
            return answer.json() if answer.content else answer.status_code
        error = answer.json()["error"]
        if "errors" not in error:
            raise Refused(answer.status_code, error["status"])
        first = error["errors"][0]
        assert (error["code"], error["message"]) == (answer.status_code, first["message"])
        raise Refused(answer.status_code, first["reason"], first["message"])

    return send


def request_of(verb: str, target: str, body: object = None) -> Request:
    """Return a request as the double gets it."""
    path, _, query = target.partition("?")
    return Request(
        method=verb,
        host="",
        path=path,
        query=query,
        target=target,
        headers=Response("").headers,
        body=b"" if body is None else json.dumps(body).encode(),
    )


def violations_of(
    document: Discovery, verb: str, target: str, body: object = None, answer: Response | None = None
) -> list[str]:
    """Say what Google's own description has against a request, or against its answer."""
    return list(document.violations(request_of(verb, target, body), answer or Response("200 OK", body=b"{}")))


class Answering(Protocol):
    """One service of the double."""

    def answer(self, request: Request, actor: Any, /) -> Response: ...


class Outsider:
    """Another tool: asks a service of the double as gcloud would, past everything of ours and past the log of calls."""

    def __init__(self, service: Answering, root: str) -> None:
        self._service = service
        self._root = root

    def ask(self, verb: str, path: str, body: Json | None = None) -> Any:
        answer = self._service.answer(request_of(verb, self._root + path, body), None)
        assert answer.code < 300, answer.body
        return json.loads(answer.body or b"null")

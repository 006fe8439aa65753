"""The harness around every double: a log of calls, faults on demand, a clock, and checks of what goes over the wire.

A double is a WSGI application that speaks a provider's protocol, served on loopback so that the provider's own clients
run against it. Nothing here knows a provider or imports an SDK.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Any, ClassVar, Literal, Self
from urllib.parse import parse_qsl, urlencode
from wsgiref.types import WSGIApplication, WSGIEnvironment

import attrs

from shiftable.errors import ConfigError

try:
    from werkzeug.datastructures import Headers
    from werkzeug.exceptions import HTTPException
    from werkzeug.http import HTTP_STATUS_CODES
    from werkzeug.serving import WSGIRequestHandler
    from werkzeug.test import run_wsgi_app
except ImportError as exc:
    raise ConfigError(f'the doubles need werkzeug: pip install "shiftable[testing]" ({exc})') from exc

from shiftable.testing._server import Answer, Loopback, Response

__all__ = ["Call", "Clock", "Double", "Headers", "Injection", "Kind", "Match", "Request", "Response", "Validator"]

Kind = Literal["latency", "status", "drop_before", "drop_after", "truncate"]

_CREDENTIALS = {
    "access_token",
    "awsaccesskeyid",
    "googleaccessid",
    "sig",
    "signature",
    "x-amz-credential",
    "x-amz-security-token",
    "x-amz-signature",
    "x-goog-credential",
    "x-goog-signature",
}


@attrs.frozen(kw_only=True)
class Request:
    """What a client sent, for validators and for the double itself.

    Args:
        path: percent-decoded.
        target: path and query as they came.
        headers: as they came, whatever WSGI makes of them.
    """

    method: str
    host: str
    path: str
    query: str = attrs.field(repr=False)
    target: str = attrs.field(repr=False)
    headers: Headers = attrs.field(repr=False)
    body: bytes = attrs.field(repr=False)


@attrs.frozen(kw_only=True)
class Call:
    """One entry of the log: what was called and how it ended; never a body, never a credential.

    Args:
        query: as it came, with signatures and keys replaced by ``***``.
        status: what the double answered, even if the client never heard it; ``None`` if nothing was executed.
        service: which of the provider's services it was for.
        operation: its name, where the protocol tells it.
        fault: the kind of fault that was injected.
    """

    method: str
    host: str
    path: str
    query: str
    status: int | None = None
    service: str = ""
    operation: str = ""
    fault: Kind | None = None


Match = Callable[[Call], bool]
Validator = Callable[[Request, Response], Iterable[str]]


@attrs.define(kw_only=True)
class Injection:
    """A fault that waits for its calls. ``hits`` counts those that it met."""

    kind: Kind
    match: Match = attrs.field(repr=False)
    times: int | None
    seconds: float
    response: Response
    hits: int = 0

    def meets(self, call: Call) -> bool:
        """Tell whether it is this call's turn."""
        return (self.times is None or self.hits < self.times) and self.match(call)


class Clock:
    """The time at a double: the real one, and whatever a test adds."""

    def __init__(self) -> None:
        self._ahead = timedelta(0)

    def now(self) -> datetime:
        """Return the time; aware, UTC."""
        return datetime.now(UTC) + self._ahead

    def advance(self, by: timedelta | float) -> None:
        """Let time pass, in seconds or as a ``timedelta``."""
        self._ahead += by if isinstance(by, timedelta) else timedelta(seconds=by)

    def reset(self) -> None:
        """Return to the real time."""
        self._ahead = timedelta(0)


class Double:
    """A stand-in for a provider, on loopback, while a ``with`` block runs.

    A subclass hands its WSGI application to ``__init__`` and says in ``config`` how ``shiftable.connect`` reaches it.

    Attributes:
        name: the provider, as in ``type = "aws"``.
        clock: what the double takes for the time.
        calls: what was called, in the order of the answers.
        violations: what validators found; ``check`` fails when there are any.
    """

    name: ClassVar[str] = ""

    def __init__(
        self,
        app: WSGIApplication,
        *,
        validators: Iterable[Validator] = (),
        handler: type[WSGIRequestHandler] = WSGIRequestHandler,
    ) -> None:
        self._app = app
        self._handler = handler
        self._server: Loopback | None = None
        self._lock = threading.RLock()  # a match may look at the calls
        self._over = threading.Event()
        self._injections: list[Injection] = []
        self._calls: list[Call] = []
        self.clock = Clock()
        self.validators = list(validators)
        self.violations: list[str] = []

    # what a subclass says of its provider

    @property
    def config(self) -> dict[str, Any]:
        """The settings that make ``shiftable.connect(double.name, **double.config)`` talk to this double."""
        return {"endpoint": self.url}

    def identify(self, request: Request) -> tuple[str, str]:  # noqa: ARG002  a subclass reads it
        """Name the service and the operation of a request, for the log."""
        return "", ""

    def answer(self, request: Request, environ: WSGIEnvironment) -> Response:  # noqa: ARG002  a subclass reads it
        """Execute a request: by the application, unless a subclass knows better."""
        chunks, status, headers = run_wsgi_app(self._app, environ, buffered=True)
        return Response(status, headers, b"".join(chunks))

    def forget(self) -> None:
        """Empty the provider: no resource is left."""

    # what a test does

    @property
    def url(self) -> str:
        """Where the double listens."""
        return self._running().url

    @property
    def calls(self) -> tuple[Call, ...]:
        """What was called so far."""
        with self._lock:
            return tuple(self._calls)

    def inject(
        self,
        kind: Kind,
        *,
        match: Match | None = None,
        times: int | None = 1,
        seconds: float = 0.0,
        status: int = 503,
        headers: Iterable[tuple[str, str]] = (),
        body: bytes = b"",
    ) -> Injection:
        """Have the next calls go wrong. Faults are taken in the order in which they were injected, one per call.

        Args:
            kind: ``latency`` waits for ``seconds`` and goes on; ``status`` answers without executing; ``drop_before``
                resets the connection without executing; ``drop_after`` executes, and the client never hears of it;
                ``truncate`` announces the whole body and sends half of it.
            match: which calls; all, if absent. The call has no status yet.
            times: how many of them; ``None`` for ever.
        """
        line = f"{status} {HTTP_STATUS_CODES.get(status, 'Unknown')}"
        injection = Injection(
            kind=kind,
            match=match or (lambda _call: True),
            times=times,
            seconds=seconds,
            response=Response(line, Headers(list(headers)), body),
        )
        with self._lock:
            self._injections.append(injection)
        return injection

    def reset(self) -> None:
        """Forget everything: resources, calls, faults, violations and the time that passed.

        A request that still waits for its time, and whose client has long given up, is not executed any more.
        """
        with self._lock:
            self._over.set()
            self._over = threading.Event()
            self._calls.clear()
            self._injections.clear()
            self.violations.clear()
        self.clock.reset()
        self.forget()

    def check(self) -> None:
        """Fail if anything went over the wire that the provider's own rules forbid."""
        __tracebackhide__ = True
        if self.violations:
            raise AssertionError(f"the {self.name} double saw violations:\n" + "\n".join(self.violations))

    def start(self) -> Self:
        """Begin to listen, on a port that the system chooses."""
        if self._server is not None:
            raise ConfigError(f"this {self.name} double runs already, on {self.url}")
        self._over = threading.Event()
        self._server = Loopback(self._serve, self._handler)
        return self

    def close(self) -> None:
        """Stop, and leave no thread and no socket behind. Closing twice is no error."""
        server, self._server = self._server, None
        self._over.set()
        if server is not None:
            server.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, cls: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.close()
        if exc is None:  # else the error that is on its way is the better one to see
            self.check()

    def __repr__(self) -> str:
        where = self._server.url if self._server else "not running"
        return f"<{type(self).__name__} {where}>"

    # one request, in its connection's thread

    def _running(self) -> Loopback:
        if self._server is None:
            raise ConfigError(f"this {self.name} double does not run; use it in a `with` block")
        return self._server

    def _serve(self, environ: WSGIEnvironment, body: bytes) -> Answer:
        request = _request(environ, body)
        service, operation = self.identify(request)
        call = Call(
            method=request.method,
            host=request.host,
            path=request.path,
            query=_without_credentials(request.query),
            service=service,
            operation=operation,
        )
        over, injection = self._over, self._next_injection(call)
        kind = injection.kind if injection else None
        call = attrs.evolve(call, fault=kind)
        if injection is None or kind not in {"status", "drop_before"}:
            if injection is not None and kind == "latency" and over.wait(injection.seconds):
                return Answer(None, "reset")
            response = self._executed(request, environ)
            self._log(call, response.code)
            if kind == "drop_after":
                return Answer(None, "reset")
            return Answer(response, "half" if kind == "truncate" else "whole")
        self._log(call, injection.response.code if kind == "status" else None)
        return Answer(injection.response) if kind == "status" else Answer(None, "reset")

    def _next_injection(self, call: Call) -> Injection | None:
        with self._lock:
            for injection in self._injections:
                if injection.meets(call):
                    injection.hits += 1
                    return injection
        return None

    def _log(self, call: Call, status: int | None) -> None:
        """Note the call before the client hears the answer, so that a test that looks next finds it."""
        with self._lock:
            self._calls.append(attrs.evolve(call, status=status))

    def _executed(self, request: Request, environ: WSGIEnvironment) -> Response:
        try:
            response = self.answer(request, environ)
        except HTTPException as exc:
            response = _from_exception(exc, environ)
        except Exception as exc:  # noqa: BLE001  a bug of the double must fail the test, not hang the client
            self._violated(request, [f"the double itself failed: {type(exc).__name__}: {exc}"])
            return Response("500 Internal Server Error")
        for validator in self.validators:
            self._violated(request, validator(request, response))
        return response

    def _violated(self, request: Request, findings: Iterable[str]) -> None:
        found = [f"{request.method} {request.path}: {finding}" for finding in findings]
        with self._lock:
            self.violations += found


def _request(environ: WSGIEnvironment, body: bytes) -> Request:
    return Request(
        method=environ["REQUEST_METHOD"],
        host=environ.get("HTTP_HOST", ""),
        path=environ["PATH_INFO"].encode("latin-1").decode("utf-8", "replace"),
        query=environ.get("QUERY_STRING", ""),
        target=environ.get("RAW_URI", ""),
        headers=environ["shiftable.headers"],
        body=body,
    )


def _from_exception(exc: HTTPException, environ: WSGIEnvironment) -> Response:
    chunks, status, headers = run_wsgi_app(exc.get_response(environ), environ, buffered=True)
    return Response(status, headers, b"".join(chunks))


def _without_credentials(query: str) -> str:
    pairs = parse_qsl(query, keep_blank_values=True)
    if not any(name.lower() in _CREDENTIALS for name, _ in pairs):
        return query
    return urlencode([(name, "***" if name.lower() in _CREDENTIALS else value) for name, value in pairs], safe="*")

"""The way to a hoster's API: libcloud's connection, made safe for what shiftable promises.

What libcloud 3.9 does, read in its source and measured at the double, and what is done about it here:

* One connection keeps the last answer in itself, so that a second thread reads the answer to the first one's call: no
  driver of libcloud's is used by two threads at once (``Pool``).
* Its retries repeat every call alike, a POST whose answer was lost too, and the environment turns them on for a whole
  process (``LIBCLOUD_RETRY_FAILED_HTTP_REQUESTS``): they stay off, and ``Connection.request`` has its own.
* ``LIBCLOUD_DEBUG`` writes every request with its token into a file: these connections are no part of that.
* A ``.netrc`` that knows the host takes the place of the token, and redirects are followed: neither happens.
* An error that is no JSON, a proxy's page with status 503, becomes "failed to parse JSON", without the status; a
  Retry-After that is no number becomes a ``ValueError``: the status decides here.
"""

from __future__ import annotations

import json
import random
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar, Generic, Self, TypeVar
from urllib.parse import urljoin

import requests
from libcloud.common.exceptions import BaseHTTPError
from libcloud.http import LibcloudConnection

from shiftable.fibers import sleep
from shiftable.waiting import retry_after

__all__ = ["Broken", "Pool", "Refusal", "SafeConnection", "SafeDriver", "SafeResponse"]

_TIMEOUT = (10.0, 60.0)
"""Seconds to connect, and between two bytes of an answer. libcloud's own is one number for both, and 60."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 20.0
_AGAIN = frozenset({429, 500, 502, 503, 504})
_REPEATED = frozenset({"GET", "PUT", "PATCH", "DELETE"})
"""What may be sent again: what is changed here is told as it is to be, never by how much."""
_LONGEST_MESSAGE = 500

T = TypeVar("T")


class Refusal(BaseHTTPError):
    """An answer that says no; one of libcloud's own errors, with what those leave out.

    Attributes:
        code: the HTTP status.
        id: the hoster's word for it, ``unprocessable_entity``.
        retry_after: seconds that the hoster asked to wait.
        doubtful: an earlier try of this call failed in a way that does not tell whether it was executed.
    """

    def __init__(
        self, code: int, id: str, message: str, *, request_id: str | None = None, retry_after: float | None = None
    ) -> None:
        super().__init__(code, message)
        self.id = id
        self.request_id = request_id
        self.retry_after = retry_after
        self.doubtful = False

    @property
    def is_executed_perhaps(self) -> bool:
        """Whether the call may have been executed, in spite of this answer."""
        return bool(self.code >= 500)

    @property
    def passes(self) -> bool:
        """Whether the same call may succeed later."""
        return self.code in _AGAIN


class Broken(Exception):
    """There was no answer, or only a part of one.

    Attributes:
        sent: the request may have arrived.
        late: nothing came in time.
        doubtful: whether the call, in this try or an earlier one, may have been executed.
    """

    passes = True
    retry_after: float | None = None

    def __init__(self, message: str, *, sent: bool = True, late: bool = False) -> None:
        super().__init__(message)
        self.sent = sent
        self.late = late
        self.doubtful = sent

    @property
    def is_executed_perhaps(self) -> bool:
        """Whether the call may have been executed."""
        return self.sent


class Transport(LibcloudConnection):
    """One connection, for one thread at a time."""

    session: Any
    host: str

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401  as in libcloud
        super().__init__(*args, **kwargs)
        self.session.auth = _unchanged  # else requests looks into .netrc

    def request(
        self,
        method: str,
        url: str,
        body: Any = None,  # noqa: ANN401
        headers: dict[str, str] | None = None,
        raw: bool = False,  # noqa: ARG002, FBT001, FBT002  as in libcloud
        stream: bool = False,  # noqa: FBT001, FBT002
        hooks: Any = None,  # noqa: ANN401
    ) -> None:
        """Send a request; follow no redirect."""
        self.response = self.session.request(
            method=method,
            url=urljoin(self.host, url),
            data=body,
            headers=self._normalize_headers(headers=headers),
            allow_redirects=False,
            stream=stream,
            verify=self.verification,
            timeout=self.session.timeout,
            hooks=hooks,
        )


def _unchanged(request: T) -> T:
    return request


class SafeResponse:
    """Mixed into a hoster's class of responses: what is no success is a ``Refusal``, whatever its body is."""

    status: int
    body: str
    headers: dict[str, str]

    def success(self) -> bool:
        """Tell whether it is one; a redirect is none."""
        return 200 <= self.status < 300

    def parse_body(self) -> Any:  # noqa: ANN401  any JSON
        """Return the JSON.

        Raises:
            Broken: it is something else.
        """
        if not self.body:
            return self.body
        try:
            return json.loads(self.body)
        except ValueError:
            pass  # it quotes the answer
        raise Broken("the answer is no JSON: is this the address of the API?")

    def parse_error(self) -> str:
        """Raise what the answer means.

        Raises:
            Refusal: always.
        """
        id_, message = self.error_in(self.body)
        raise Refusal(
            self.status,
            id_,
            (message or f"the answer was {self.status}")[:_LONGEST_MESSAGE],
            request_id=self.headers.get("x-request-id"),
            retry_after=retry_after(self.headers.get("retry-after")),
        )

    def error_in(self, body: str) -> tuple[str, str]:
        """Return the hoster's word for an error, and what it says of it."""
        try:
            found = json.loads(body)
        except ValueError:
            return "", ""
        if not isinstance(found, dict):
            return "", ""
        return str(found.get("id") or ""), str(found.get("message") or "")


class SafeConnection:
    """Mixed into a hoster's class of connections.

    Attributes:
        patience: seconds for which a call is tried again.
    """

    conn_class = Transport
    timeout = _TIMEOUT
    patience: float = 60.0
    driver: Any
    connection: Any
    data: Any

    def hang_up(self) -> None:
        """Close the connection."""
        if self.connection is not None:
            self.connection.session.close()

    def request(
        self,
        action: str,
        params: Mapping[str, Any] | None = None,
        data: Any = None,  # noqa: ANN401
        headers: Mapping[str, str] | None = None,
        method: str = "GET",
        **more: Any,  # noqa: ANN401  as in libcloud
    ) -> Any:  # noqa: ANN401
        """Send a request, again if that is safe: what reads, replaces or deletes, and what came too fast.

        Raises:
            Refusal: the hoster says no.
            Broken: there was no answer.
        """
        send: Callable[..., Any] = super().request  # type: ignore[misc]  # of libcloud's Connection
        more["retry_failed"] = False  # by libcloud, whatever the environment says
        deadline, attempt, doubtful = time.monotonic() + self.patience, 0, False
        while True:
            try:
                return _answered(lambda: send(action, params=params, data=data, headers=headers, method=method, **more))
            except (Refusal, Broken) as exc:
                doubtful = exc.doubtful = doubtful or exc.is_executed_perhaps
                attempt += 1
                jitter = random.uniform(0, min(_LONGEST_PAUSE, _FIRST_PAUSE * 2**attempt))  # noqa: S311  no secret
                pause = max(exc.retry_after or 0.0, jitter)
                is_safe = method in _REPEATED or not exc.is_executed_perhaps
                if not (exc.passes and is_safe) or time.monotonic() + pause > deadline:
                    raise
            finally:
                self.data = None  # libcloud keeps the last body, which may hold a secret
            sleep(pause)


class SafeDriver:
    """Mixed into libcloud's drivers: made in one way, for one thread at a time.

    Args:
        endpoint: where the API is, if not at the hoster.
        patience: seconds for which a call is tried again.
    """

    options: ClassVar[Mapping[str, Any]] = {}
    """What else libcloud's driver is made with."""
    connection: Any

    def __new__(cls, *_args: object, **_kwargs: object) -> Self:
        """Make one: the classes that libcloud derives its drivers from have no room for keyword arguments."""
        return object.__new__(cls)

    def __init__(self, token: str, *, endpoint: str | None = None, patience: float = 60.0) -> None:
        self._endpoint = endpoint
        super().__init__(token, **self.options)  # type: ignore[call-arg]  # of libcloud's driver
        self.connection.patience = patience

    def _ex_connection_class_kwargs(self) -> dict[str, Any]:
        """Name the endpoint: libcloud's own drivers drop host and port."""
        return {} if self._endpoint is None else {"url": self._endpoint}


def _answered(send: Callable[[], T]) -> T:
    """Send, and say of what breaks only what it means: the errors of requests hold the request, and so the token."""
    failure: Broken
    try:
        return send()
    except requests.exceptions.ConnectTimeout:
        failure = Broken("the hoster cannot be reached", sent=False, late=True)
    except requests.exceptions.Timeout:
        failure = Broken("the hoster did not answer in time", late=True)
    except requests.exceptions.SSLError as exc:
        failure = Broken(f"no TLS with the hoster: {exc}", sent=False)
    except requests.exceptions.ConnectionError as exc:
        if re.search("NewConnectionError|NameResolutionError", repr(exc)):
            failure = Broken(
                "the hoster cannot be reached; is there a way from here, and is `endpoint` right?", sent=False
            )
        else:
            failure = Broken("the connection broke")
    except requests.exceptions.RequestException as exc:
        failure = Broken(f"the answer did not arrive whole ({type(exc).__name__})")
    raise failure


class Pool(Generic[T]):
    """Drivers of libcloud's, each for one thread at a time."""

    def __init__(self, make: Callable[[], T], close: Callable[[T], None]) -> None:
        self._make = make
        self._close = close
        self._idle: list[T] = []
        self._lock = threading.Lock()

    @contextmanager
    def one(self) -> Iterator[T]:
        """Hand one out."""
        with self._lock:
            found = self._idle.pop() if self._idle else None
        driver = self._make() if found is None else found
        try:
            yield driver
        finally:
            with self._lock:
                self._idle.append(driver)

    def close(self) -> None:
        """Close what is idle. A pool that is used afterwards makes new ones."""
        with self._lock:
            idle, self._idle = self._idle, []
        for driver in idle:
            self._close(driver)

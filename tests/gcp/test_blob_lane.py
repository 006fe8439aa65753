"""The bulk lane of Cloud Storage where the conformance suite does not look: its oracle is the SDK over the same server.

``SdkObjects`` and ``WireObjects`` make the same calls: what one asks, answers or raises, the other does.
"""

from __future__ import annotations

import gzip
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import attrs
import pytest
from google.auth.credentials import Credentials
from google.auth.transport.requests import AuthorizedSession
from google.cloud.storage.exceptions import InvalidResponse
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from requests.adapters import HTTPAdapter

from shiftable import fibers
from shiftable.blob import BlobStore
from shiftable.blob.driver import Headers, PutOptions, Range, Retention
from shiftable.errors import IntegrityError, NotFound, Timeout, Unauthenticated, Unavailable
from shiftable.parallel import parallel
from shiftable_gcp import GcpSettings, _objects, _session, _wire
from shiftable_gcp._objects import SdkObjects
from shiftable_gcp._session import Session
from shiftable_gcp._wire import WireObjects
from shiftable_gcp.blob import GcsDriver
from shiftable_gcp.errors import classify

from ..scripted import Server

OBJECT = {
    "name": "key",
    "bucket": "shop",
    "generation": "7",
    "size": "3",
    "crc32c": "NksmIA==",
    "timeCreated": "2026-11-20T12:00:00.123Z",
    "contentType": "text/plain",
}
DONE = {"done": True, "totalBytesRewritten": "3", "objectSize": "3", "resource": OBJECT}
MOVING = {"done": False, "totalBytesRewritten": "1", "objectSize": "3", "rewriteToken": "t/o ken"}
Call = Callable[[SdkObjects, Any], Any]


def answer(body: object = OBJECT, status: str = "200 OK", *headers: str) -> bytes:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = "".join(f"{line}\r\n" for line in headers)
    return f"HTTP/1.1 {status}\r\n{lines}Content-Length: {len(data)}\r\n\r\n".encode() + data


def refusal(code: int, reason: str, message: str = "no", *headers: str) -> bytes:
    error = {"code": code, "message": message, "errors": [{"reason": reason, "message": message}]}
    return answer({"error": error}, f"{code} Oh", "Content-Type: application/json", *headers)


@attrs.define
class Token(Credentials):  # type: ignore[misc]  # google-auth has no types
    """Credentials whose tokens are numbered; each is good for an hour, if it is not told otherwise."""

    made: int = 0
    lifetime: timedelta = timedelta(hours=1)
    pause: float = 0.0
    threads: list[str] = attrs.field(factory=list)

    def __attrs_pre_init__(self) -> None:
        super().__init__()

    def refresh(self, request: object) -> None:
        time.sleep(self.pause)
        self.threads.append(threading.current_thread().name)
        self.made += 1
        self.token = f"token-{self.made}"
        self.expiry = datetime.now(UTC).replace(tzinfo=None) + self.lifetime


@attrs.define
class Seen:
    """One request, taken apart."""

    method: str
    path: str
    query: list[tuple[str, str]]
    headers: dict[str, str]
    body: bytes

    @classmethod
    def of(cls, raw: bytes) -> Seen:
        head, _, body = raw.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        method, target, _ = first.split(" ")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        assert len(headers) == len(lines), "a header came twice"
        parts = urlsplit(target)
        return cls(method, parts.path, sorted(parse_qsl(parts.query, strict_parsing=True)), headers, body)

    def said(self) -> tuple[Any, ...]:
        """Return what matters to the service."""
        kind = self.headers.get("content-type", "")
        names = ("authorization", "x-goog-user-project", "range", "host")
        carried = {name: self.headers.get(name) for name in names}
        return (self.method, self.path, self.query, carried, *stated(kind, self.body))


def stated(kind: str, body: bytes) -> tuple[Any, ...]:
    """Return the values that a body holds: of two parts, the metadata, the content's type, and the content."""
    if not kind.startswith("multipart/related"):
        return (json.loads(body) if body else None,)
    boundary = kind.partition('boundary="')[2].rstrip('"').encode()
    before, first, second, end = body.split(b"--" + boundary)
    assert (before, end.strip()) == (b"", b"--")
    (about, described), (type_, content) = (part.split(b"\r\n\r\n", 1) for part in (first, second))
    assert about.strip().lower() == b"content-type: application/json; charset=utf-8"
    return json.loads(described), type_.strip(), content.removesuffix(b"\r\n")


@attrs.define
class Lane:
    """A bulk lane to a server, with both ways to make its calls."""

    server: Server
    session: Session
    sdk: SdkObjects
    wire: WireObjects

    @property
    def seen(self) -> list[Seen]:
        return [Seen.of(raw) for raw in self.server.seen]

    def made(self, call: Call, objects: SdkObjects) -> Any:
        return call(objects, self.session.attempts().policy)

    def failure(self, call: Call, objects: SdkObjects) -> Exception:
        with pytest.raises(Exception) as caught:  # noqa: PT011  compared by who asks
            self.made(call, objects)
        return caught.value


Serve = Callable[..., Lane]


@pytest.fixture
def serve() -> Iterator[Serve]:
    started: list[Callable[[], None]] = []

    def start(
        *answers: bytes, close: bool = False, credentials: Credentials | None = None, path: str = "", **more: Any
    ) -> Lane:
        server = Server(*answers, close=close)
        endpoint = more.pop("endpoint", server.url + path)
        session = Session(GcpSettings(endpoint=endpoint, project="p", **{"retry_seconds": 0, **more})).lane()
        session.transport.credentials = credentials or session.transport.credentials
        started.extend([server.stop, session.close])
        return Lane(server, session, SdkObjects(session), WireObjects(session))

    yield start
    for stop in started:
        stop()


# requests: what the SDK would ask

letters = st.characters(exclude_categories=["Cs"], exclude_characters="\r\n")
keys = st.one_of(st.text(each, min_size=1, max_size=20) for each in (letters, "a1/.~-", "aü日", "a /%+?#&=")).filter(
    lambda key: key not in {".", ".."}
)
generations = st.none() | st.integers(1, 2**63 - 1)
conditions = st.none() | st.integers(0, 2**63 - 1)
printable = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=12)
options = st.builds(
    PutOptions,
    headers=st.builds(
        Headers,
        content_type=st.none() | st.sampled_from(["text/plain", "text/html; charset=utf-8"]),
        cache_control=st.none() | printable,
        content_disposition=st.none() | printable,
        content_encoding=st.none() | st.just("gzip"),
        content_language=st.none() | st.just("de"),
    ),
    metadata=st.dictionaries(printable, st.text(max_size=8), max_size=3),
    storage_class=st.none() | st.just("NEARLINE"),
    md5=st.none() | st.binary(min_size=16, max_size=16),
)
texts = st.none() | keys


@st.composite
def calls(draw: st.DrawFn) -> Call:
    """Return any call."""
    key, other, chosen = draw(keys), draw(keys), draw(options)
    generation, match, not_match = draw(generations), draw(conditions), draw(conditions)
    span = draw(st.none() | st.just((1, 3)))
    data = draw(st.binary(max_size=40))
    custom = draw(st.none() | st.just("2026-11-20T12:00:00.123000Z"))
    page = {"prefix": draw(texts) or "", "delimiter": draw(texts), "start": draw(texts), "cursor": draw(texts)}
    page |= {"fields": "items(name),nextPageToken", "size": draw(st.integers(1, 1000)), "versions": draw(st.booleans())}
    found: Call = draw(
        st.sampled_from(
            [
                lambda o, p: o.look("shop", key, p, generation=generation, match=match, not_match=not_match),
                lambda o, p: o.open("shop", key, p, generation=generation or 1, span=span).read(9),
                lambda o, p: o.open("shop", key, p, match=match or 1, span=span).read(9),
                lambda o, p: o.write("shop", key, data, chosen, p, match=match),
                lambda o, p: o.delete("shop", key, p, generation=generation, match=match),
                lambda o, p: o.page("shop", p, **page),
                lambda o, p: o.rewrite(
                    ("shop", key),
                    ("other", other),
                    chosen,
                    p,
                    custom_time=custom,
                    generation=generation,
                    source_match=generation or 1,
                    match=match,
                ),
            ]
        )
    )
    return found


@given(call=calls(), quota=st.booleans(), path=st.sampled_from(["", "/below"]))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_request_says_what_the_sdk_would_say(serve: Serve, call: Call, *, quota: bool, path: str) -> None:
    credentials = Token()
    if quota:
        credentials._quota_project_id = "payer"
        credentials.apply = lambda headers: _applied(credentials, headers)
    lane = serve(answer({**OBJECT, **DONE}), credentials=credentials, path=path)
    lane.made(call, lane.sdk)
    lane.made(call, lane.wire)
    theirs, ours = lane.seen
    assert ours.said() == theirs.said()
    assert ours.headers["accept-encoding"] == "gzip"  # else what is stored compressed is unpacked
    assert ours.headers["user-agent"] in ours.headers["x-goog-api-client"]
    if "x-goog-api-client" in theirs.headers:
        assert ours.headers["user-agent"] == theirs.headers["user-agent"]
        assert named(ours) == named(theirs)


def _applied(credentials: Credentials, headers: dict[str, str]) -> None:
    credentials._apply(headers)
    headers["x-goog-user-project"] = credentials.quota_project_id


def named(seen: Seen) -> list[str]:
    """Return what a request says of its sender, without the number of the call."""
    words = seen.headers["x-goog-api-client"].split()
    assert words[-1].startswith("gccl-invocation-id/")
    return words[:-1]


def test_tries_of_one_call_have_one_number(serve: Serve, short_waits: None) -> None:
    lane = serve(refusal(503, "backendError"), answer(), retry_seconds=9)
    for _ in range(2):
        lane.made(lambda o, p: o.look("shop", "key", p), lane.wire)
    first, again, other = [seen.headers["x-goog-api-client"].split()[-1] for seen in lane.seen]
    assert first == again != other


def test_a_large_copy_goes_on_with_the_token_it_is_told(serve: Serve) -> None:
    def call(objects: SdkObjects, policy: Any) -> Any:
        places = ("shop", "a"), ("shop", "b")
        return objects.rewrite(
            *places, PutOptions(), policy, custom_time=None, generation=None, source_match=7, match=None
        )

    lane = serve(*[answer(MOVING), answer(MOVING), answer(DONE)] * 2)
    assert lane.made(call, lane.sdk) == lane.made(call, lane.wire) == OBJECT
    said = [seen.said() for seen in lane.seen]
    assert said[3:] == said[:3]
    assert ("rewriteToken", "t/o ken") in said[5][2]


# answers


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda o, p: o.look("shop", "key", p), OBJECT),
        (lambda o, p: o.write("shop", "key", b"abc", PutOptions(), p, match=None), OBJECT),
        (lambda o, p: o.page("shop", p, fields="", size=2), {"items": [OBJECT], "nextPageToken": "n"}),
        (lambda o, p: o.page("shop", p, fields="", size=2), {"prefixes": ["a/"]}),
        (lambda o, p: o.page("shop", p, fields="", size=2), {}),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_an_answer_is_read_as_the_sdk_reads_it(serve: Serve, call: Call, said: Any, *, packed: bool) -> None:
    plain = answer(said)
    lane = serve(
        answer(gzip.compress(json.dumps(said).encode()), "200 OK", "Content-Encoding: gzip") if packed else plain
    )
    theirs, ours = lane.made(call, lane.sdk), lane.made(call, lane.wire)
    if not attrs.has(type(ours)):
        assert ours == said
        theirs = {name: value for name, value in theirs.items() if name in ours}
    assert ours == theirs


def test_what_is_stored_compressed_comes_as_it_is_stored(serve: Serve) -> None:
    stored = gzip.compress(b"content")
    lane = serve(answer(stored, "200 OK", "Content-Encoding: gzip"))
    media = lane.made(lambda o, p: o.open("shop", "key", p, generation=7, span=None), lane.wire)
    assert (media.read(1024), media.read(1024)) == (stored, b"")


def test_one_connection_serves_one_thread(serve: Serve) -> None:
    lane = serve(answer({**OBJECT, **DONE}))
    for _ in range(3):
        lane.made(lambda o, p: o.look("shop", "key", p), lane.wire)
        lane.made(lambda o, p: o.delete("shop", "key", p), lane.wire)
        lane.made(lambda o, p: o.open("shop", "key", p, generation=7, span=None).read(10_000), lane.wire)
    assert lane.server.connections == 1


def test_the_servers_time_is_learnt_from_every_answer(serve: Serve) -> None:
    lane = serve(answer(OBJECT, "200 OK", "Date: Fri, 20 Nov 2026 12:00:00 GMT"))
    lane.made(lambda o, p: o.look("shop", "key", p), lane.wire)
    noon, now = datetime(2026, 11, 20, 12, tzinfo=UTC), time.monotonic()
    assert lane.session.clock.is_before(noon - timedelta(seconds=5), now) is True
    assert lane.session.clock.is_before(noon + timedelta(seconds=5), now) is False


# errors: those of the SDK

READ: Call = lambda o, p: o.look("shop", "key", p)  # noqa: E731
CALLS: dict[str, Call] = {
    "look": READ,
    "open": lambda o, p: o.open("shop", "key", p, generation=7, span=None),
    "write": lambda o, p: o.write("shop", "key", b"abc", PutOptions(), p, match=0),
    "delete": lambda o, p: o.delete("shop", "key", p, generation=7),
    "page": lambda o, p: o.page("shop", p, fields="", size=2),
}
XML = b"<Error><Code>SlowDown</Code><Message>slow</Message></Error>"
REFUSALS = {
    "no such object": refusal(404, "notFound", "No such object: shop/key"),
    "no such bucket": refusal(404, "notFound", "The specified bucket does not exist."),
    "condition": refusal(412, "conditionNotMet"),
    "permission": refusal(403, "forbidden"),
    "slow": refusal(429, "rateLimitExceeded", "no", "Retry-After: 7", "X-GUploader-UploadID: R1"),
    "broken": refusal(503, "backendError"),
    "conflict": refusal(409, "conflict"),
    "not modified": b"HTTP/1.1 304 Not Modified\r\n\r\n",
    "range": refusal(416, "requestedRangeNotSatisfiable"),
    "XML": answer(XML, "503 Oh", "Content-Type: application/xml"),
    "a proxy's page": answer(b"<html>bad gateway</html>", "502 Bad Gateway"),
    "packed": answer(gzip.compress(b'{"error": {"message": "m"}}'), "400 Bad Request", "Content-Encoding: gzip"),
    "nothing": b"HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n",
    "a redirect to nowhere": answer(b"", "307 Temporary Redirect"),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=list(CALLS))
@pytest.mark.parametrize("refused", REFUSALS.values(), ids=list(REFUSALS))
def test_a_refusal_is_the_sdks(serve: Serve, call: Call, refused: bytes) -> None:
    lane = serve(refused)
    theirs, ours = lane.failure(call, lane.sdk), lane.failure(call, lane.wire)
    if not isinstance(unwrapped(theirs), InvalidResponse):  # of an upload, as long as it may be tried again
        assert type(unwrapped(ours)) is type(unwrapped(theirs))
    assert without_text(ours) == without_text(theirs)
    assert lane.server.connections == 1


def unwrapped(exc: Any) -> Any:
    return getattr(exc, "cause", None) or exc


def without_text(exc: Exception) -> Any:
    """Return what an exception means; its text only if it is the service's."""
    fault = classify(exc)
    assert fault is not None
    return fault if fault.message in {"no", "slow", "m"} else attrs.evolve(fault, message="")


BROKEN = {
    "no JSON": answer(b"<html>"),
    "half of it": answer(b'{"name": '),
    "no object": answer(b"[]"),
    "nothing": answer(b""),
    "short": b'HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"name": ',
    "not packed": answer(b"xx", "200 OK", "Content-Encoding: gzip"),
    "cut while it was packed": answer(gzip.compress(b"{}")[:-9], "200 OK", "Content-Encoding: gzip"),
    "no answer": b"",
    "no HTTP": b"SSH-2.0\r\n\r\n",
}


@pytest.mark.parametrize("broken", BROKEN.values(), ids=list(BROKEN))
@pytest.mark.parametrize("name", ["look", "write", "page"])
def test_a_broken_answer_may_pass(serve: Serve, broken: bytes, name: str) -> None:
    lane = serve(broken, close=True)
    fault = classify(lane.failure(CALLS[name], lane.wire))
    assert fault is not None
    assert fault.error is Unavailable


@pytest.mark.parametrize("missing", ["name", "generation", "size", "timeCreated"])
@pytest.mark.parametrize("name", ["look", "write"])
def test_what_tells_of_no_object_may_pass(serve: Serve, missing: str, name: str) -> None:
    told = {"name": "key", "generation": "7", "size": "3", "timeCreated": "2026-11-20T12:00:00Z"}
    del told[missing]
    lane = serve(answer(json.dumps(told).encode()), close=True)
    fault = classify(lane.failure(CALLS[name], lane.wire))
    assert fault is not None
    assert fault.error is Unavailable


def test_nobody_there_is_told_as_the_sdk_tells_it(serve: Serve) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    lane = serve(answer(), endpoint=f"http://127.0.0.1:{port}")
    theirs, ours = (unwrapped(lane.failure(READ, way)) for way in (lane.sdk, lane.wire))
    assert (type(ours), str(ours)) == (type(theirs), str(theirs))


def test_an_answer_that_does_not_come_is_waited_for_no_longer_than_allowed(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (_objects, _wire):
        monkeypatch.setattr(module, "TIMEOUT", (1.0, 0.2))
    lane = serve(b"")
    theirs, ours = (lane.failure(READ, way) for way in (lane.sdk, lane.wire))
    assert type(unwrapped(ours)) is type(unwrapped(theirs))
    assert without_text(ours).error is Timeout


@pytest.mark.parametrize("said", ["short", "silent"])
def test_content_that_breaks_off_is_told_as_the_sdk_tells_it(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    for module in (_objects, _wire):
        monkeypatch.setattr(module, "TIMEOUT", (1.0, 0.2))
    lane = serve(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc", close=said == "short")

    def read(objects: SdkObjects, policy: Any) -> None:
        media = objects.open("shop", "key", policy, generation=7, span=None)
        while media.read(1024):
            pass

    theirs, ours = (lane.failure(read, way) for way in (lane.sdk, lane.wire))
    assert type(ours) is type(theirs)
    assert without_text(ours) == without_text(theirs)


def test_no_token_shows_in_an_error(serve: Serve) -> None:
    lane = serve(refusal(403, "forbidden"), credentials=Token())
    exc: Any = lane.failure(READ, lane.wire)
    assert lane.seen[0].headers["authorization"] == "Bearer token-1"
    assert "token-1" not in f"{exc!r} {exc} {exc.response.request.headers} {vars(exc.response)}"


# credentials


def test_a_token_that_grew_old_is_renewed_once_for_all_threads(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_session, "_ASKED_AGAIN", 0.0)
    credentials = Token(pause=0.1)
    lane = serve(answer(), credentials=credentials)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: lane.made(READ, lane.wire), range(8)))
    assert credentials.made == 1
    assert {seen.headers["authorization"] for seen in lane.seen} == {"Bearer token-1"}
    credentials.expiry = datetime.now(UTC).replace(tzinfo=None) + timedelta(seconds=5)
    lane.made(READ, lane.wire)
    assert lane.seen[-1].headers["authorization"] == "Bearer token-2"


def test_credentials_are_asked_for_their_headers_no_oftener_than_need_be(serve: Serve) -> None:
    credentials, asked = Token(), []
    credentials.apply = lambda headers: asked.append(headers) or credentials._apply(headers)
    lane = serve(answer(), credentials=credentials)
    for _ in range(3):
        lane.made(READ, lane.wire)
    credentials.refresh(None)  # by whoever shares them
    lane.made(READ, lane.wire)
    assert len(asked) == 2
    assert [seen.headers["authorization"] for seen in lane.seen] == ["Bearer token-1"] * 3 + ["Bearer token-2"]


def test_who_renews_a_token_gives_way(serve: Serve) -> None:
    credentials = Token(pause=0.3)
    lane = serve(answer(), credentials=credentials)
    ended: list[str] = []

    def run(what: str) -> None:
        lane.made(READ, lane.wire) if what == "call" else fibers.sleep(0.05)
        ended.append(what)

    for _, future in parallel(run, ["call", "call", "sleep"], workers=3, fibers=True):
        future.result()
    assert ended == ["sleep", "call", "call"]
    assert credentials.made == 1
    assert credentials.threads[0] != threading.current_thread().name


def test_a_token_that_is_refused_is_renewed_and_the_request_sent_again(serve: Serve) -> None:
    credentials = Token()
    lane = serve(refusal(401, "authError"), answer(), credentials=credentials)
    assert lane.made(READ, lane.wire) == OBJECT
    assert [seen.headers["authorization"] for seen in lane.seen] == ["Bearer token-1", "Bearer token-2"]


def test_a_token_that_stays_refused_is_renewed_as_often_as_the_sdk_would(serve: Serve) -> None:
    lane = serve(refusal(401, "authError"), credentials=Token())
    theirs = lane.failure(READ, lane.sdk)
    asked = len(lane.seen)
    ours = lane.failure(READ, lane.wire)
    assert len(lane.seen) == 2 * asked
    assert without_text(ours) == without_text(theirs)
    assert without_text(ours).error is Unauthenticated


def test_many_that_are_refused_with_one_token_fetch_one(serve: Serve) -> None:
    credentials = Token(pause=0.1)
    lane = serve(*[answer()] + [refusal(401, "authError")] * 4 + [answer()], credentials=credentials)
    lane.made(READ, lane.wire)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: lane.made(READ, lane.wire), range(4)))
    assert credentials.made == 2


def test_without_credentials_a_login_that_is_wanted_is_unauthenticated(serve: Serve) -> None:
    lane = serve(refusal(401, "required"))
    theirs, ours = lane.failure(READ, lane.sdk), lane.failure(READ, lane.wire)
    assert type(ours) is type(theirs)
    assert without_text(ours).error is Unauthenticated
    assert "authorization" not in lane.seen[-1].headers


# what is left to the SDK


def noting(found: list[str], name: str, real: Any) -> Any:
    def asked(*args: Any, **more: Any) -> Any:
        found.append(name)
        return real(*args, **more)

    return asked


@pytest.fixture
def left(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return what the SDK is asked to do."""
    found: list[str] = []
    for name in ("look", "open", "write", "rewrite", "delete", "page"):
        monkeypatch.setattr(SdkObjects, name, noting(found, name, getattr(SdkObjects, name)))
    return found


def test_nothing_is_left_to_the_sdk_without_a_reason(serve: Serve, left: list[str]) -> None:
    lane = serve(answer())
    for call in CALLS.values():
        lane.made(call, lane.wire)
    assert left == []


LOCKED = {
    "hold": PutOptions(hold=True),
    "retention": PutOptions(retention=Retention(until=datetime(2027, 1, 1, tzinfo=UTC), mode="governance")),
}


@pytest.mark.parametrize("chosen", LOCKED.values(), ids=list(LOCKED))
def test_locks_are_left_to_the_sdk(serve: Serve, left: list[str], chosen: PutOptions) -> None:
    lane = serve(answer({**OBJECT, **DONE}))
    lane.made(lambda o, p: o.write("shop", "key", b"abc", chosen, p, match=None), lane.wire)
    places = ("shop", "a"), ("shop", "b")
    lane.made(
        lambda o, p: o.rewrite(*places, chosen, p, custom_time=None, generation=None, source_match=7, match=None),
        lane.wire,
    )
    assert left == ["write", "rewrite"]
    assert all(b"temporaryHold" in seen.body or b"Unlocked" in seen.body for seen in lane.seen)


@pytest.mark.parametrize(("size", "expected"), [(8 * 1024 * 1024, []), (8 * 1024 * 1024 + 1, ["write"])])
def test_what_the_sdk_sends_in_pieces_is_left_to_it(
    serve: Serve, left: list[str], size: int, expected: list[str]
) -> None:
    lane = serve(refusal(403, "forbidden"))
    lane.failure(lambda o, p: o.write("shop", "key", bytes(size), PutOptions(), p, match=None), lane.wire)
    assert left == expected
    assert ("uploadType", "resumable" if expected else "multipart") in lane.seen[0].query


@pytest.mark.parametrize("name", CALLS)
def test_a_redirect_is_left_to_the_sdk(serve: Serve, left: list[str], name: str) -> None:
    there = Server(answer())
    lane = serve(answer(b"", "307 Temporary Redirect", f"Location: {there.url}/there"))
    lane.made(CALLS[name], lane.wire)
    assert left == [name]
    assert Seen.of(there.seen[0]).path == "/there"
    there.stop()


@pytest.mark.parametrize("status", ["302 Found", "303 See Other"])
def test_a_write_that_may_have_been_executed_is_not_sent_elsewhere(serve: Serve, left: list[str], status: str) -> None:
    lane = serve(answer(b"", status, "Location: /there"), answer())
    lane.failure(CALLS["write"], lane.wire)
    assert (left, len(lane.seen)) == ([], 1)
    lane.made(CALLS["write"], lane.wire)
    lane.server._answers[:] = [answer(b"", status, "Location: /there"), answer()]
    assert lane.made(READ, lane.wire) == OBJECT
    assert left == ["look"]


@pytest.mark.parametrize("name", CALLS)
def test_a_proxy_is_left_to_requests(serve: Serve, left: list[str], monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    proxy = Server(answer())
    monkeypatch.setenv("http_proxy", proxy.url)
    lane = serve(answer(), endpoint="http://storage.invalid")
    lane.made(CALLS[name], lane.wire)
    assert left == [name]
    assert b" http://storage.invalid/" in proxy.seen[0]
    proxy.stop()


@pytest.mark.parametrize("replaced", [(HTTPAdapter, "send"), (AuthorizedSession, "request")])
def test_who_answers_in_the_place_of_requests_is_asked(
    serve: Serve, left: list[str], monkeypatch: pytest.MonkeyPatch, replaced: tuple[Any, str]
) -> None:
    lane = serve(answer())
    asked: list[str] = []
    real = getattr(*replaced)

    def instead(self: Any, *args: Any, **more: Any) -> Any:
        asked.append(replaced[1])
        return real(self, *args, **more)

    lane.made(READ, lane.wire)
    assert asked == []
    monkeypatch.setattr(*replaced, instead)
    lane.made(READ, lane.wire)
    assert (asked, left) == ([replaced[1]], ["look"])


def test_an_endpoint_with_a_password_is_left_to_requests(serve: Serve, left: list[str]) -> None:
    free = serve(answer())
    lane = serve(answer(), endpoint=free.server.url.replace("//", "//user:word@"))
    with suppress(Exception):  # whatever requests makes of it
        lane.made(READ, lane.wire)
    assert left == ["look"]


# the driver


def test_the_lane_of_a_driver_is_on_the_wire_and_opens_again(serve: Serve, left: list[str]) -> None:
    lane = serve(answer())
    made = GcsDriver(Session(GcpSettings(endpoint=lane.server.url, project="p")))
    bucket = BlobStore(made.lane()).bucket("shop")
    for expected in (1, 2):
        made.lane()._keeps["shop"] = False
        assert bucket.stat("key").token.value == "7"
        assert lane.server.connections == expected
        made.close()
    assert left == []
    made.close()


def test_a_missing_object_is_told_by_the_lane(serve: Serve) -> None:
    lane = serve(refusal(404, "notFound", "No such object: shop/key"))
    made = GcsDriver(Session(GcpSettings(endpoint=lane.server.url, project="p")))
    with pytest.raises(NotFound) as caught:
        BlobStore(made.lane()).bucket("shop").get("key")
    assert "key" in str(caught.value)
    made.close()


@pytest.mark.parametrize("bulk", [False, True])
def test_a_range_that_is_ignored_is_an_integrity_error(serve: Serve, *, bulk: bool) -> None:
    lane = serve(answer(), answer(b"abc"))
    made = GcsDriver(Session(GcpSettings(endpoint=lane.server.url, project="p")))
    driver = made.lane() if bulk else made
    driver._keeps["shop"] = False
    with pytest.raises(IntegrityError, match="range"):
        driver.get("shop", "key", range_=Range(0, 2), if_match=None, version=None)
    made.close()

"""The bulk lane of Azure where the conformance suite does not look: same requests, tokens, when the SDK goes alone."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from azure.core.pipeline import PipelineContext, PipelineRequest
from azure.core.pipeline.transport import HttpRequest, RequestsTransport
from azure.storage.blob._shared.authentication import SharedKeyCredentialPolicy
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from shiftable.blob import BlobStore, Bucket
from shiftable.blob.driver import Headers, PutOptions, Range, Upload
from shiftable.config import Credential
from shiftable.tokens import Token
from shiftable_azure import AzureSettings, _features, rules
from shiftable_azure._session import Session
from shiftable_azure._wire import Wire
from shiftable_azure.blob import AzureBlobDriver
from shiftable_azure.errors import code_of

from ..scripted import InFibers, Scripted, Seen

KEY = base64.b64encode(b"canary-77c1" * 3).decode()
SAS = "sv=2026-10-06&sr=c&sp=racwdl&sig=canary%2F77c1%3D"
DATED = "Last-Modified: Fri, 20 Nov 2026 12:00:00 GMT"
KEYS = [
    "a b",
    "a//b",
    "trailing/",
    "/leading",
    "ü/€",
    "?#%+&=",
    "~x",
    "'()*!",
    "emoji 🐘",
    "%41",
    "a/.b/..c",
    ";@:,$[]",
]
EVERY_TIME = {"x-ms-date", "x-ms-client-request-id", "authorization"}
BY_REQUESTS = {"accept-encoding", "connection"}


def answer(status: str, *headers: str, body: bytes = b"") -> bytes:
    lines = "".join(f"{header}\r\n" for header in headers)
    return f"HTTP/1.1 {status}\r\n{lines}Content-Length: {len(body)}\r\n\r\n".encode() + body


def error(status: str, code: str, *headers: str) -> bytes:
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>no\nTime:x</Message><Extra>y</Extra></Error>"
    return answer(status, f"x-ms-error-code: {code}", "Content-Type: application/xml", *headers, body=body.encode())


def page(entries: str, marker: str = "") -> bytes:
    text = f"<EnumerationResults><Blobs>{entries}</Blobs><NextMarker>{marker}</NextMarker></EnumerationResults>"
    return answer("200 OK", "Content-Type: application/xml", body=text.encode())


CREATED = answer("201 Created", 'ETag: "0x1"', DATED)
FOUND = answer("200 OK", 'ETag: "0x1"', DATED, "x-ms-access-tier: Hot")
DELETED = answer("202 Accepted")


def made(url: str | None, **known: Any) -> AzureBlobDriver:
    account = {"storage_account": "acc", "account_key": Credential.literal(KEY)}
    given = {key: value for key, value in {**account, "max_attempts": 3, **known}.items() if value is not None}
    driver = AzureBlobDriver(Session(AzureSettings(endpoint=url, **given)), _features.BLOB)
    driver._default_asked = True  # what writes do not tell is another test's matter
    driver.lane()._default_asked = True
    return driver


Serve = Callable[..., tuple[Scripted, AzureBlobDriver]]


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    monkeypatch.setattr("shiftable_azure._session.random.uniform", lambda *_: 0.0)
    started: list[Callable[[], None]] = []

    def start(*answers: bytes, close: bool = False, tls: Any = None, **known: Any) -> tuple[Scripted, AzureBlobDriver]:
        server = Scripted(*answers, close=close, tls=tls)
        driver = made(f"{server.url}/acc", **known)
        started.extend([driver.close, server.stop])
        return server, driver

    yield start
    for stop in started:
        stop()


SEEN: dict[str, Callable[[Bucket], Any]] = {"one by one": lambda bucket: bucket, "in fibers": InFibers}


@pytest.fixture(params=SEEN)
def seen(request: pytest.FixtureRequest) -> Callable[[AzureBlobDriver], Any]:
    return lambda driver: SEEN[request.param](BlobStore(driver.lane()).bucket("shop"))


# the same requests: the oracle is the SDK


def outcome(call: Callable[[AzureBlobDriver], Any], driver: AzureBlobDriver) -> Any:
    """Return what a call returns or raises, as far as it does not tell the time."""
    try:
        found = call(driver)
        return (found.info, b"".join(found.chunks)) if hasattr(found, "chunks") else found
    except Exception as exc:  # noqa: BLE001  whatever it is, it must be the same
        response: Any = getattr(exc, "response", None)
        status = None if response is None else (response.status_code, response.reason, dict(response.headers.items()))
        return type(exc), str(exc), code_of(exc), status, driver.classify(exc)


def request_of(seen: Seen) -> Any:
    headers = {name: value for name, value in seen.headers.items() if name not in EVERY_TIME | BY_REQUESTS}
    return seen.method, seen.target, headers, seen.body


def compared(server: Scripted, driver: AzureBlobDriver, call: Callable[[AzureBlobDriver], Any]) -> tuple[Seen, Seen]:
    """Make a call both ways; return the last request of each."""
    assert isinstance(driver.lane()._calls, Wire)
    server.seen.clear()
    expected = outcome(call, driver)
    by_sdk = list(server.seen)
    server.seen.clear()
    assert expected == outcome(call, driver.lane())
    assert list(map(request_of, by_sdk)) == list(map(request_of, server.seen))
    assert server.seen
    for each in server.seen:
        assert set(each.headers).isdisjoint(BY_REQUESTS), "the SDK made the call"
    return by_sdk[-1], server.seen[-1]


def expected_signature(server: Scripted, seen: Seen) -> str:
    names = {"content-length": "Content-Length", "content-md5": "Content-MD5", "content-type": "Content-Type"}
    headers = {names.get(name, name): value for name, value in seen.headers.items() if name != "authorization"}
    request = HttpRequest(seen.method, f"{server.url}{seen.target}", headers)
    policy = SharedKeyCredentialPolicy("acc", KEY)
    policy.on_request(PipelineRequest(request, PipelineContext(RequestsTransport())))
    return request.headers["Authorization"]


names = st.from_regex(rules._META_NAME, fullmatch=True).filter(lambda name: len(name) < 30)
values = st.from_regex(rules._META_VALUE, fullmatch=True)
plain = st.none() | values
metadata = st.dictionaries(names, values, max_size=4).filter(lambda found: rules.metadata(found) is None)
tokens = st.from_regex(r"[!#-~]{1,20}", fullmatch=True).map(Token)
keys = st.text(min_size=1, max_size=40).filter(lambda key: rules.blob_key(key) is None) | st.sampled_from(KEYS)
tags = st.dictionaries(st.from_regex(r"[A-Za-z0-9 +./:=_-]{1,9}", fullmatch=True), st.just("a =/+"), max_size=2)


@st.composite
def put_options(draw: st.DrawFn) -> PutOptions:
    return PutOptions(
        headers=Headers(
            content_type=draw(plain | st.just("")),
            cache_control=draw(plain),
            content_disposition=draw(plain),
            content_encoding=draw(plain),
            content_language=draw(plain),
        ),
        metadata=draw(metadata),
        tags=draw(tags),
        if_absent=draw(st.booleans()),
        if_match=draw(st.none() | tokens),
        storage_class=draw(st.sampled_from([None, "Hot", "Cool", "Cold", "Archive"])),
    )


TRIED = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@TRIED
@given(key=keys, data=st.binary(max_size=40), options=put_options())
@example(key="a", data=b"", options=PutOptions(metadata={"a_b": "1", "a1": "2", "ab": "3", "A2b": "4"}))
def test_a_put_is_the_same_request(serve: Serve, key: str, data: bytes, options: PutOptions) -> None:
    server, driver = serve(CREATED)
    _, ours = compared(server, driver, lambda each: each.put("shop", key, data, options))
    assert ours.headers["authorization"] == expected_signature(server, ours)


@TRIED
@given(key=keys, version=st.none() | st.text(min_size=1, max_size=30), match=st.none() | tokens, other=tokens)
@pytest.mark.parametrize("call", ["stat", "get", "range", "from", "unless", "delete"])
def test_a_read_and_a_deletion_are_the_same_requests(
    serve: Serve, call: str, key: str, version: str | None, match: Token | None, other: Token
) -> None:
    known: dict[str, Any] = {"if_match": match, "version": version}
    calls: dict[str, Callable[[AzureBlobDriver], Any]] = {
        "stat": lambda each: each.stat("shop", key, version=version),
        "get": lambda each: each.get("shop", key, range_=None, **known),
        "range": lambda each: each.get("shop", key, range_=Range(3, 9), **known),
        "from": lambda each: each.get("shop", key, range_=Range(3, None), **known),
        "unless": lambda each: each.get("shop", key, range_=Range(0, 1), **known, if_none_match=other),
        "delete": lambda each: each.delete("shop", key, **known),
    }
    content = answer("200 OK", 'ETag: "0x1"', DATED, "x-ms-meta-Name: a: b", "x-ms-tag-count: 2", body=b"content")
    server, driver = serve({"delete": DELETED, "stat": FOUND}.get(call, content))
    if call == "get":  # the SDK asks for a range that nobody wants
        outcome(calls[call], driver.lane())
        assert not {"range", "x-ms-range"} & set(server.seen[-1].headers)
    else:
        compared(server, driver, calls[call])
    assert server.seen[-1].headers["authorization"] == expected_signature(server, server.seen[-1])


@TRIED
@given(key=keys, data=st.binary(max_size=40), upload=st.text("0123456789abcdef-+/", min_size=1, max_size=32))
def test_a_part_is_the_same_request(serve: Serve, key: str, data: bytes, upload: str) -> None:
    server, driver = serve(CREATED)
    begun = Upload(bucket="shop", key=key, id=upload, options=PutOptions())
    _, ours = compared(server, driver, lambda each: each.upload_part(begun, 7, data, 0))
    assert ours.headers["authorization"] == expected_signature(server, ours)


@TRIED
@given(
    prefix=st.text(max_size=9),
    delimiter=st.none() | st.sampled_from(["/", "é", "a b"]),
    start=st.none() | st.text(max_size=12),
    marker=st.none() | st.text(min_size=1, max_size=20),
)
def test_a_page_is_the_same_request(
    serve: Serve, prefix: str, delimiter: str | None, start: str | None, marker: str | None
) -> None:
    server, driver = serve(page(""))
    cursor = None if marker is None else json.dumps([["", "x", None, 0, marker, False]])
    known: Any = {"prefix": prefix, "delimiter": delimiter, "start_after": None if cursor else start, "cursor": cursor}
    server.seen.clear()
    expected = outcome(lambda each: each.list("shop", **known, limit=7), driver)
    by_sdk = list(map(request_of, server.seen))
    server.seen.clear()
    assert expected == outcome(lambda each: each.list("shop", **known, limit=7), driver.lane())
    assert by_sdk == list(map(request_of, server.seen))
    for each in server.seen:
        assert each.headers["authorization"] == expected_signature(server, each)

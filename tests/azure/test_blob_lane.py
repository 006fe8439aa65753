"""The bulk lane of Azure where the conformance suite does not look: same requests, tokens, when the SDK goes alone."""

from __future__ import annotations

import base64
import gzip
import json
import logging
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, tzinfo
from email.utils import format_datetime, parsedate_to_datetime
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import attrs
import pytest
from azure.core import MatchConditions
from azure.core.credentials import AccessToken
from azure.core.exceptions import (
    AzureError,
    ClientAuthenticationError,
    DecodeError,
    HttpResponseError,
    ServiceRequestError,
    ServiceRequestTimeoutError,
    ServiceResponseError,
)
from azure.core.pipeline import PipelineContext, PipelineRequest
from azure.core.pipeline.transport import HttpRequest, RequestsTransport
from azure.storage.blob import BlobClient
from azure.storage.blob._shared.authentication import SharedKeyCredentialPolicy
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from requests.adapters import HTTPAdapter

from shiftable.blob import BlobStore, Bucket
from shiftable.blob.driver import Headers, PutOptions, Range, Retention, Upload
from shiftable.config import Credential
from shiftable.errors import NotFound, Timeout, Unavailable
from shiftable.tokens import Token
from shiftable_azure import AzureSettings, _features, _wire, rules
from shiftable_azure._calls import Arguments, moment
from shiftable_azure._session import Session
from shiftable_azure._wire import Wire
from shiftable_azure.blob import AzureBlobDriver
from shiftable_azure.errors import CODES, code_of

from ..certificates import certificate, serving_tls
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


SOURCE: Arguments = {
    "include_source_blob_properties": True,
    "source_content_md5": None,
    "source_etag": '"0x1"',
    "source_match_condition": MatchConditions.IfNotModified,
    "metadata": {},
}

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


class Still(datetime):
    """The clock of signatures, which are valid for an hour from the second in which they are made."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> Still:
        return cls(2026, 11, 22, tzinfo=tz)


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
@given(key=keys, to_key=keys, options=st.none() | put_options(), version=st.none() | st.text(min_size=1, max_size=30))
@pytest.mark.parametrize("digest", ["Content-MD5: 1B2M2Y8AsgTpgAmY7PhCfg==", "x-ms-meta-Own: 1"])
def test_a_copy_is_the_same_requests(
    serve: Serve,
    monkeypatch: pytest.MonkeyPatch,
    digest: str,
    key: str,
    to_key: str,
    options: PutOptions | None,
    version: str | None,
) -> None:
    monkeypatch.setattr("shiftable_azure._session.datetime", Still)
    found = answer("200 OK", 'ETag: "0x1"', DATED, "x-ms-access-tier: Hot", digest)
    server, driver = serve(found, CREATED, found, found, CREATED, found)
    _, ours = compared(server, driver, lambda each: each.copy("a", key, "b", to_key, options, version=version))
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


@pytest.mark.parametrize(
    "known",
    [
        {"sas_token": f"?{SAS}"},
        {"connection_string": f"BlobEndpoint={{url}};SharedAccessSignature={SAS}"},
        {"connection_string": f"BlobEndpoint={{url}};AccountName=acc;AccountKey={KEY}"},
    ],
)
def test_whatever_authorizes_the_same_requests_are_sent(known: dict[str, str], serve: Serve) -> None:
    server, _ = serve(CREATED)
    url = f"{server.url}/acc"
    given = {key: Credential.literal(text.format(url=url)) for key, text in known.items()}
    stated = None if "connection_string" in known else url
    driver = made(stated, storage_account=None, account_key=None, **given)
    begun = Upload(bucket="shop", key="k", id="1", options=PutOptions())
    compared(server, driver, lambda each: each.put("shop", "a b", b"1", PutOptions()))
    theirs, ours = compared(server, driver, lambda each: each.upload_part(begun, 1, b"1", 0))
    assert ("authorization" in theirs.headers) == ("authorization" in ours.headers) == ("&sig=" not in ours.target)
    driver.close()


def test_a_signature_is_quoted_in_no_error() -> None:
    driver = made("http://127.0.0.1:1/acc", storage_account=None, account_key=None, sas_token=Credential.literal(SAS))
    with pytest.raises(Unavailable) as caught:
        BlobStore(driver.lane()).bucket("shop").put("key", b"1")
    assert "canary" not in "".join(traceback.format_exception(caught.value))


@TRIED
@given(key=keys)
@pytest.mark.parametrize(("container", "end"), [("$root", ""), ("shop", "/")])
def test_the_url_that_a_copy_reads_is_the_sdks(container: str, end: str, key: str) -> None:
    driver = made(
        f"http://127.0.0.1:1/acc{end}", storage_account=None, account_key=None, sas_token=Credential.literal(SAS)
    )
    expected = driver.session.blobs.get_blob_client(container, key).url
    assert expected == driver.session.url(container, key)
    assert f"{expected}?{SAS}" == driver.session.source(container, key)[0]
    driver.close()


def test_a_copy_shows_a_token_where_no_key_signs(secured: Secured) -> None:
    server, driver, _ = secured(FOUND, CREATED, FOUND)
    driver.copy("a", "k", "b", "k", PutOptions())
    assert f"{server.url}/acc/a/k" == server.seen[1].headers["x-ms-copy-source"]
    assert "Bearer canary-2" == server.seen[1].headers["x-ms-copy-source-authorization"]
    assert all(set(each.headers).isdisjoint(BY_REQUESTS) for each in server.seen)


def test_what_may_be_read_by_a_copy_is_in_no_error(secured: Secured, serve: Serve) -> None:
    refusal = error("403 Forbidden", "CannotVerifyCopySource")
    for driver in (secured(FOUND, refusal)[1], serve(FOUND, refusal)[1].lane()):
        with pytest.raises(HttpResponseError) as caught:
            driver.copy("a", "k", "b", "k", PutOptions())
        response: Any = caught.value.response
        assert "x-ms-source-if-match" in response.request.headers
        assert "canary" not in str(response.request.headers)
        assert "sig=" not in str(response.request.headers)


# the same answers


@pytest.mark.parametrize("call", ["put", "copy", "stat", "get", "delete", "list"])
@pytest.mark.parametrize(
    "said",
    [
        error("404 Not Found", "BlobNotFound"),
        error("404 Not Found", "ContainerNotFound"),
        error("409 Conflict", "BlobAlreadyExists"),
        error("412 Precondition Failed", "ConditionNotMet"),
        error("416 Requested Range Not Satisfiable", "InvalidRange"),
        error("403 Forbidden", "AuthenticationFailed"),
        error("403 Forbidden", "AuthorizationFailure"),
        error("401 Unauthorized", "NoAuthenticationInformation", "WWW-Authenticate: Bearer x"),
        error("400 Bad Request", "NobodyKnowsThis"),
        error("304 Not Modified", "ConditionNotMet").partition(b"Content-Length")[0] + b"\r\n",
        error("408 Request Timeout", "OperationTimedOut"),
        error("429 Too Many Requests", "TooManyRequests"),
        error("409 Conflict", "CannotVerifyCopySource", "x-ms-copy-source-error-code: ServerBusy"),
        error("500 Internal Server Error", "InternalError"),
        error("501 Not Implemented", "NotImplemented"),
        error("503 Service Unavailable", "ServerBusy", "x-ms-request-id: 77"),
        error("505 HTTP Version Not Supported", "NotImplemented"),
        answer("502 Bad Gateway", "Content-Type: text/html", body=b"<html>oops</html>"),
        answer("403 Forbidden"),
    ],
)
def test_what_is_no_success_raises_the_same_after_as_many_tries(serve: Serve, call: str, said: bytes) -> None:
    calls: dict[str, Callable[[AzureBlobDriver], Any]] = {
        "put": lambda each: each.put("shop", "key", b"1", PutOptions(if_absent=True)),
        "copy": lambda each: each._calls.copy("shop", "key", "http://shop.example/c/k", dict(SOURCE)),
        "stat": lambda each: each.stat("shop", "key", version=None),
        "get": lambda each: each.get("shop", "key", range_=Range(7, None), if_match=Token("x"), version=None),
        "delete": lambda each: each.delete("shop", "key", if_match=Token("0x1"), version=None),
        "list": lambda each: each.list("shop", prefix="", delimiter=None, start_after=None, cursor=None, limit=None),
    }
    if call == "stat":
        said = said.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
    # Of a read that it repeats, the SDK does not close the connection.
    server, driver = serve(said, max_attempts=1 if call == "get" else 3)
    compared(server, driver, calls[call])


@pytest.mark.parametrize(
    "body", [b"<Err", b'{"error": {"code": "X"}}', b"\xff", b"<Error><Code>BlobNotFound</Code></Error>"]
)
def test_a_refusal_that_is_not_azures_is_known_by_its_headers(serve: Serve, seen: Any, body: bytes) -> None:
    _, driver = serve(answer("404 Not Found", "x-ms-error-code: BlobNotFound", body=body))
    with pytest.raises(NotFound, match="BlobNotFound"):
        seen(driver).get("key")


def test_a_success_of_another_kind_is_none(serve: Serve) -> None:
    _, driver = serve(answer("204 No Content"))
    with pytest.raises(HttpResponseError, match="invalid status|No Content"):
        driver.lane().put("shop", "key", b"1", PutOptions())


@pytest.mark.parametrize("code", sorted(CODES))
def test_every_code_is_the_same_exception(serve: Serve, code: str) -> None:
    server, driver = serve(error("400 Bad Request", code))
    compared(server, driver, lambda each: each.put("shop", "key", b"1", PutOptions()))


def test_what_an_answer_asks_for_is_waited_for(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr("shiftable_azure._wire.sleep", slept.append)
    busy = error("503 Service Unavailable", "ServerBusy", "x-ms-retry-after-ms: 2500", "Retry-After: 9")
    server, driver = serve(busy, error("500 Internal Server Error", "InternalError", "Retry-After: 7"), CREATED)
    monkeypatch.setattr("shiftable_azure._session.random.uniform", lambda _, longest: longest)
    driver.lane().put("shop", "key", b"1", PutOptions(if_absent=True))
    assert [2.5, 7.0] == slept
    assert 3 == len(server.seen)
    assert len({each.headers["x-ms-client-request-id"] for each in server.seen}) == 3


def test_pauses_double(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr("shiftable_azure._wire.sleep", slept.append)
    server, driver = serve(error("500 Internal Server Error", "InternalError"), max_attempts=4)
    monkeypatch.setattr("shiftable_azure._session.random.uniform", lambda _, longest: longest)
    with pytest.raises(HttpResponseError):
        driver.lane().put("shop", "key", b"1", PutOptions(if_absent=True))
    assert [0.8, 1.6, 3.2] == slept
    assert 4 == len(server.seen)


def test_metadata_is_named_as_it_came_and_content_is_not_decoded(serve: Serve, seen: Any) -> None:
    content = gzip.compress(b"content")
    headers = ["Content-Encoding: gzip", 'ETag: "0x1"', DATED, "x-ms-meta-One: 1", "X-Ms-Meta-tWo: 2 : 3"]
    _, driver = serve(answer("200 OK", *headers, body=content))
    assert content == seen(driver).get("key")
    info = seen(driver).stat("key")
    assert ({"One": "1", "tWo": "2 : 3"}, "gzip") == (info.metadata, info.headers.content_encoding)


def test_a_part_that_the_server_got_otherwise_is_sent_again_and_then_told(serve: Serve) -> None:
    other = answer("201 Created", f"Content-MD5: {base64.b64encode(bytes(16)).decode()}")
    server, driver = serve(other)
    begun = Upload(bucket="shop", key="key", id="1", options=PutOptions())
    for each in (driver, driver.lane()):
        server.seen.clear()
        with pytest.raises(AzureError, match="MD5 mismatch"):
            each.upload_part(begun, 1, b"content", 0)
        assert 3 == len(server.seen)


SHORT = b'HTTP/1.1 200 OK\r\nETag: "0x1"\r\n' + DATED.encode() + b"\r\nContent-Length: 9\r\n\r\nabc"


def test_half_a_content_is_none(serve: Serve) -> None:
    _, driver = serve(SHORT, close=True)
    for each in (driver, driver.lane()):
        download = each.get("shop", "key", range_=None, if_match=None, version=None)
        with pytest.raises(ServiceResponseError):
            list(download.chunks)


def test_half_a_page_is_asked_for_again(serve: Serve, seen: Any) -> None:
    server, driver = serve(SHORT, page(entry("a")), close=True)
    assert ["a"] == [each.key for each in seen(driver).list()]
    assert 2 == len(server.seen)


def test_a_connection_that_the_server_closed_meanwhile_is_made_again(serve: Serve, seen: Any) -> None:
    server, driver = serve(CREATED, close=True)
    bucket = seen(driver)
    for number in range(3):
        bucket.put(f"key{number}", b"1")
    assert {f"/acc/shop/key{number}" for number in range(3)} == {each.target for each in server.seen}


def test_one_connection_serves_one_thread_until_the_driver_is_closed(serve: Serve, seen: Any) -> None:
    server, driver = serve(CREATED)
    bucket = seen(driver)
    for _ in range(3):
        bucket.put("key", b"1")
    assert 1 == server.connections
    driver.close()
    bucket.put("key", b"1")
    assert (2, 4) == (server.connections, len(server.seen))


def test_nobody_there_was_sent_nothing() -> None:
    driver = made("http://127.0.0.1:1/acc", max_attempts=1)
    with pytest.raises(ServiceRequestError) as caught:
        driver.lane().put("shop", "key", b"1", PutOptions())
    assert not isinstance(caught.value, ServiceRequestTimeoutError)
    assert "canary" not in "".join(traceback.format_exception(caught.value))
    driver.close()


@pytest.mark.parametrize("said", [b"", SHORT])
def test_what_does_not_come_is_waited_for_no_longer_than_allowed(
    serve: Serve, seen: Any, monkeypatch: pytest.MonkeyPatch, said: bytes
) -> None:
    monkeypatch.setattr("shiftable_azure._session._TIMEOUTS", (1, 0.2))
    server, driver = serve(said, max_attempts=2)
    with pytest.raises(Timeout):
        list(seen(driver).list())
    assert 2 == len(server.seen)


# listings


def entry(name: str, more: str = "", *, md5: str = "<Content-MD5>1B2M2Y8AsgTpgAmY7PhCfg==</Content-MD5>") -> str:
    return (
        f"<Blob><Name>{name}</Name><VersionId>2026</VersionId><Properties>"
        "<Creation-Time>Thu, 19 Nov 2026 12:00:00 GMT</Creation-Time>"
        "<Last-Modified>Fri, 20 Nov 2026 12:00:01 GMT</Last-Modified><Etag>0x8D1</Etag>"
        "<Content-Length>7</Content-Length>"
        f"<Content-Type>text/plain</Content-Type><Content-Encoding /><Content-CRC64 />{md5}<Cache-Control />"
        f"<BlobType>BlockBlob</BlobType><AccessTier>Cool</AccessTier><AccessTierInferred>true</AccessTierInferred>{more}"
        "<LeaseStatus>unlocked</LeaseStatus></Properties><OrMetadata /></Blob>"
    )


LISTINGS = {
    "plain": entry("a") + entry("b/c"),
    "entities": entry("a&amp;b") + entry("&lt;Blob&gt;") + entry("c"),
    "encoded": entry("a").replace("<Name>a", '<Name Encoded="true">a%EF%BF%BF%25') + entry("b%25"),
    "not encoded": entry("a%20").replace("<Name>", '<Name Encoded="false">'),
    "no md5": entry("a", md5="") + entry("b", md5="<Content-MD5 />") + entry("c", md5="<Content-MD5></Content-MD5>"),
    "no tier": entry("a").replace("<AccessTier>Cool</AccessTier>", "") + entry("b"),
    "another order": entry("a").replace("<Etag>0x8D1</Etag>", "").replace("<BlobType>", "<Etag>0x8D1</Etag><BlobType>"),
    "quoted": entry("a").replace("0x8D1", '"0x8D1"') + entry("b").replace("0x8D1", "&quot;0x8D1&quot;"),
    "metadata": entry("a").replace("<OrMetadata />", "<Metadata><Name>x</Name></Metadata>") + entry("b"),
    "blanks": entry(" a ").replace("><", ">\n  <") + entry("b"),
    "folders": entry("a") + "<BlobPrefix><Name>a/</Name></BlobPrefix>" + entry("b"),
    "encoded folders": '<BlobPrefix><Name Encoded="true">a%EF%BF%BF/</Name></BlobPrefix>' + entry("b"),
    "unknown": entry("a", "<New-Thing>1</New-Thing><Newer />") + entry("b"),
    "nothing": "",
}


@pytest.mark.parametrize("marker", ["", "2!88!MDAw&amp;"])
@pytest.mark.parametrize("kind", LISTINGS)
def test_a_listing_is_read_as_the_sdk_reads_it(serve: Serve, kind: str, marker: str) -> None:
    server, driver = serve(page(LISTINGS[kind], marker))
    known: Any = {"prefix": "", "start_after": None, "cursor": None, "limit": None}
    delimiter = "/" if "folders" in kind else None
    compared(server, driver, lambda each: each.list("shop", **known, delimiter=delimiter))


@TRIED
@given(found=st.lists(st.text(st.characters(codec="utf-8", min_codepoint=32), min_size=1, max_size=9), max_size=5))
def test_names_are_read_as_the_sdk_reads_them(serve: Serve, found: list[str]) -> None:
    entries = [entry(escape(name)) for name in found if not {"\ufffe", "\uffff"} & set(name)]
    server, driver = serve(page("".join(entries)))
    known: Any = {"prefix": "", "start_after": None, "cursor": None, "limit": None, "delimiter": None}
    compared(server, driver, lambda each: each.list("shop", **known))


def test_a_page_of_what_azure_writes_is_not_parsed_as_xml(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    _, driver = serve(page("".join(entry(f"{number:04}") for number in range(1000))))
    read: list[int] = []
    parse = _wire.ET.fromstring
    monkeypatch.setattr("shiftable_azure._wire.ET.fromstring", lambda text: read.append(len(text)) or parse(text))
    listed = driver.lane().list("shop", prefix="", delimiter=None, start_after=None, cursor=None, limit=None).items
    assert [f"{number:04}" for number in range(1000)] == [getattr(each, "key", None) for each in listed]
    assert sum(read) < 200


@pytest.mark.parametrize(
    "body",
    [
        b"<html>",
        b"<html><body><p>Log in, please</p></body></html>",
        b"",
        b"\xff\xfe",
        page(entry("a")).replace(b"<Etag>0x8D1</Etag>", b""),
        page(entry("a")).replace(b"<Name>a</Name>", b""),
        page(entry("a")).replace(b">7<", b">seven<"),
    ],
)
def test_what_is_no_listing_is_refused_once(serve: Serve, seen: Any, body: bytes) -> None:
    text = body.partition(b"\r\n\r\n")[2] or body
    server, driver = serve(answer("200 OK", "Content-Type: application/xml", body=text))
    with pytest.raises(Unavailable, match="no listing"):
        list(seen(driver).list())
    assert 1 == len(server.seen)


def test_entities_are_not_expanded(serve: Serve) -> None:
    bomb = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 12))
    text = f'<!DOCTYPE x [<!ENTITY l0 "lol">{bomb}]><EnumerationResults><Blobs/>&l11;</EnumerationResults>'
    _, driver = serve(answer("200 OK", body=text.encode()), answer("400 Bad Request", body=text.encode()))
    known: Any = {"prefix": "", "start_after": None, "cursor": None, "limit": None, "delimiter": None}
    with pytest.raises(DecodeError, match="document type"):
        driver.lane().list("shop", **known)
    with pytest.raises(HttpResponseError, match="DOCTYPE"):
        driver.lane().list("shop", **known)


@given(st.datetimes(timezones=st.just(UTC)))
def test_times_are_read_as_the_standard_library_reads_them(when: datetime) -> None:
    text = format_datetime(when, usegmt=True)
    for each in (text, text.replace("GMT", "+0100"), text[5:]):
        assert parsedate_to_datetime(each) == moment(each)
    assert UTC is moment(text).tzinfo


@pytest.mark.parametrize("text", ["Fri, 32 Nov 2026 12:00:00 GMT", "Fri, 20 Now 2026 12:00:00 GMT", "yesterday"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"day|Invalid"):
        moment(text)


# tokens


@attrs.define
class Identity:
    """Gives out tokens, each with so many seconds to live."""

    lives: list[float] = attrs.field(factory=lambda: [3600.0])
    asked: list[Any] = attrs.field(factory=list)
    threads: list[int] = attrs.field(factory=list)

    def get_token(self, *scopes: str, **known: Any) -> AccessToken:
        self.threads.append(threading.get_ident())
        self.asked.append((scopes, known))
        if self.lives == [0.0]:
            raise ClientAuthenticationError("no credentials")
        life = self.lives.pop(0) if len(self.lives) > 1 else self.lives[0]
        return AccessToken(f"canary-{len(self.asked)}", int(time.time() + life))


Secured = Callable[..., tuple[Scripted, AzureBlobDriver, Identity]]


@pytest.fixture
def secured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Secured]:
    monkeypatch.setattr("shiftable_azure._session.random.uniform", lambda *_: 0.0)
    path, key = certificate(tmp_path)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(path))
    started: list[Callable[[], None]] = []

    def start(*answers: bytes, lives: list[float] | None = None) -> tuple[Scripted, AzureBlobDriver, Identity]:
        server, identity = Scripted(*answers, tls=serving_tls(path, key)), Identity(lives or [3600.0])
        session = Session(AzureSettings(endpoint=f"{server.url}/acc", max_attempts=3), credential=identity)
        driver = AzureBlobDriver(session, _features.BLOB).lane()
        driver._default_asked = True
        started.extend([driver.close, server.stop])
        return server, driver, identity

    yield start
    for stop in started:
        stop()


def bearers(server: Scripted) -> list[str]:
    return [each.headers["authorization"] for each in server.seen]


def test_a_token_serves_until_shortly_before_it_ends(secured: Secured) -> None:
    server, driver, identity = secured(FOUND, lives=[299.0, 299.0, 310.0])
    for _ in range(5):
        driver.stat("shop", "key", version=None)
    assert [f"Bearer canary-{number}" for number in (1, 2, 3, 3, 3)] == bearers(server)
    assert [(("https://storage.azure.com/.default",), {})] * 3 == identity.asked
    assert all(set(each.headers).isdisjoint(BY_REQUESTS) for each in server.seen)


def test_a_token_is_asked_for_in_a_thread_while_other_fibers_go_on(secured: Secured) -> None:
    server, driver, identity = secured(FOUND)
    InFibers(BlobStore(driver).bucket("shop")).stat("key")
    assert ["Bearer canary-1"] == bearers(server)
    assert threading.get_ident() not in identity.threads


def test_a_refused_token_is_the_sdks_to_replace(secured: Secured) -> None:
    where = "authorization_uri=https://login.microsoftonline.com/tenant-7/oauth2/authorize"
    challenge = f"WWW-Authenticate: Bearer {where} resource_id=https://storage.azure.com"
    refused = answer("401 Unauthorized", "x-ms-error-code: InvalidAuthenticationInfo", challenge)
    server, driver, identity = secured(refused, refused, FOUND)
    for _ in range(2):
        assert "key" == driver.stat("shop", "key", version=None).key
    assert {"tenant_id": "tenant-7"} == identity.asked[2][1]
    assert ["Bearer canary-1", "Bearer canary-2", "Bearer canary-3", "Bearer canary-3"] == bearers(server)


def test_after_a_refused_token_the_lane_shows_the_next_one(secured: Secured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_wire, "_ASIDE", 0.0)
    refused = answer("401 Unauthorized", "x-ms-error-code: InvalidAuthenticationInfo", "WWW-Authenticate: Bearer x")
    server, driver, _ = secured(refused, FOUND)
    for _ in range(3):
        assert "key" == driver.stat("shop", "key", version=None).key
    assert ["Bearer canary-1", "Bearer canary-2", "Bearer canary-3", "Bearer canary-3"] == bearers(server)
    assert [True, False, True, True] == [set(each.headers).isdisjoint(BY_REQUESTS) for each in server.seen]


def test_an_identity_that_fails_is_asked_again(secured: Secured) -> None:
    server, driver, identity = secured(FOUND, lives=[0.0])
    with pytest.raises(ClientAuthenticationError, match="no credentials"):
        driver.stat("shop", "key", version=None)
    assert (3, []) == (len(identity.asked), server.seen)


def test_a_certificate_that_nobody_trusts_is_refused(secured: Secured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REQUESTS_CA_BUNDLE")
    server, driver, _ = secured(FOUND)
    with pytest.raises(ServiceRequestError, match="certificate verify failed"):
        driver.stat("shop", "key", version=None)
    assert [] == server.seen


# when the SDK goes alone


@pytest.fixture
def alone(serve: Serve) -> Callable[..., bool]:
    """Tell whether the SDK makes the next put."""
    server, driver = serve(CREATED)
    lane = driver.lane()

    def call(data: Any = b"1", options: PutOptions = PutOptions()) -> bool:  # noqa: B008  it is frozen
        server.seen.clear()
        lane.put("shop", "key", data, options)
        return not server.seen or not set(server.seen[-1].headers).isdisjoint(BY_REQUESTS)

    return call


def test_the_lane_goes_by_itself(alone: Callable[..., bool]) -> None:
    assert not alone()


@pytest.mark.parametrize(
    ("place", "name", "replacement"),
    [
        (BlobClient, "upload_blob", lambda *_, **__: {"etag": "0x1", "last_modified": datetime.now(UTC)}),
        (RequestsTransport, "send", None),
        (HTTPAdapter, "send", None),
    ],
)
def test_whoever_replaced_what_is_beneath_is_asked(
    alone: Callable[..., bool], monkeypatch: pytest.MonkeyPatch, place: Any, name: str, replacement: Any
) -> None:
    asked: list[Any] = []
    real = getattr(place, name)

    def replaced(*args: Any, **known: Any) -> Any:
        asked.append(args)
        return (replacement or real)(*args, **known)

    monkeypatch.setattr(place, name, replaced)
    assert alone()
    assert 1 == len(asked)


def test_whoever_replaced_a_call_is_asked_for_that_call(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    server, driver = serve(FOUND)
    asked: list[str] = []
    monkeypatch.setattr(BlobClient, "upload_blob_from_url", lambda _, source, **__: asked.append(source))
    driver.lane().copy("a", "k", "b", "k", PutOptions())
    assert [f"{server.url}/acc/a/k"] == [source.partition("?")[0] for source in asked]
    assert ["HEAD", "HEAD"] == [each.method for each in server.seen]


def test_whoever_reads_the_sdks_log_reads_everything(
    alone: Callable[..., bool], caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("azure.core.pipeline.policies.http_logging_policy", "azure"):
        with caplog.at_level(logging.INFO, name):
            assert alone()
        assert "Request method: 'PUT'" in caplog.text
        caplog.clear()
    with caplog.at_level(logging.INFO, "azure"), caplog.at_level(logging.WARNING, "azure.core"):
        assert not alone()
    assert not alone()


def test_an_application_that_logs_at_info_asks_for_no_log_of_the_sdks(
    alone: Callable[..., bool], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        assert not alone()


def test_whoever_traces_sees_everything(alone: Callable[..., bool], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_TRACING_ENABLED", "true")
    assert alone()


@pytest.mark.parametrize(
    "known",
    [
        {"options": PutOptions(hold=True)},
        {"options": PutOptions(retention=Retention(until=datetime(2030, 1, 1, tzinfo=UTC), mode="governance"))},
    ],
)
def test_what_the_lane_does_not_know_is_the_sdks(alone: Callable[..., bool], known: dict[str, Any]) -> None:
    assert alone(**known)


def test_what_are_no_bytes_is_refused_as_the_sdk_refuses_it(serve: Serve) -> None:
    _, driver = serve(CREATED)
    call: Any = lambda each: each.put("shop", "key", bytearray(b"1"), PutOptions())  # noqa: E731
    assert TypeError is outcome(call, driver)[0]
    assert TypeError is outcome(call, driver.lane())[0]


@pytest.mark.parametrize("metadata", [{"name": "ü"}, {"name": " a"}, {"name": "a\x01"}])
def test_what_http_does_not_carry_as_it_is_is_the_sdks(serve: Serve, metadata: dict[str, str]) -> None:
    server, driver = serve(CREATED)
    call: Any = lambda each: each.put("shop", "key", b"1", PutOptions(metadata=metadata))  # noqa: E731
    assert outcome(call, driver) == outcome(call, driver.lane())
    assert all("connection" in each.headers for each in server.seen)


@pytest.mark.parametrize("key", ["a/../b", "./a", "..", "a/."])
def test_keys_that_are_resolved_on_the_way_are_the_sdks(serve: Serve, key: str) -> None:
    server, driver = serve(FOUND)
    driver.lane().stat("shop", key, version=None)
    assert "connection" in server.seen[0].headers


def test_a_redirect_is_followed_by_the_sdk(serve: Serve) -> None:
    server, driver = serve(answer("307 Temporary Redirect", "Location: /elsewhere"), FOUND)
    with suppress(HttpResponseError):
        driver.lane().stat("shop", "key", version=None)
    assert [False, True] == ["connection" in each.headers for each in server.seen[:2]]


def test_a_proxy_is_the_sdks(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    proxy, _ = serve(CREATED)
    monkeypatch.setenv("http_proxy", proxy.url)
    driver = made("http://shop.example/acc", max_attempts=1)
    driver.lane().put("shop", "key", b"1", PutOptions())
    assert "http://shop.example/acc/shop/key" == proxy.seen[0].target
    driver.close()


def test_a_malformed_key_is_told_as_the_sdk_tells_it(serve: Serve) -> None:
    server, driver = serve(CREATED, account_key=Credential.literal("x"))
    call: Any = lambda each: each.put("shop", "key", b"1", PutOptions())  # noqa: E731
    assert outcome(call, driver) == outcome(call, driver.lane())
    assert [] == server.seen

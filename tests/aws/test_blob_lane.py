"""The bulk lane of S3 where the conformance suite does not look: signatures, connections, when the SDK goes alone."""

from __future__ import annotations

import base64
import hashlib
import os
import socket
import ssl
import zlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import boto3
import botocore.client
import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.stub import Stubber
from moto import mock_aws

from shiftable.blob import BlobStore, Bucket, BucketSpec
from shiftable.config import Credential
from shiftable.errors import IntegrityError, NotFound, OperationError, Timeout, Unauthenticated, Unavailable
from shiftable_aws import AwsSettings
from shiftable_aws._session import Session
from shiftable_aws.blob import FEATURES, blob_driver
from shiftable_aws.double import AwsDouble
from shiftable_s3 import wire
from shiftable_s3.driver import S3Driver
from shiftable_s3.wire import is_fast

from ..certificates import certificate, serving_tls
from ..scripted import InFibers, Scripted, Seen

SECRET = "canary-77c1"
KEYS = ["a b", "a//b", "trailing/", "ü/€", "?#%+&=", "~x", "'()*!", "emoji 🐘", "%41"]
CLASS = "<StorageClass>STANDARD</StorageClass>"
EMPTY = b'HTTP/1.1 200 OK\r\nContent-Length: 0\r\nETag: "d41d8cd98f00b204e9800998ecf8427e"\r\n\r\n'


Serve = Callable[..., tuple[Scripted, Bucket]]


SEEN: dict[str, Callable[[Bucket], Any]] = {"one by one": lambda bucket: bucket, "in fibers": InFibers}


@pytest.fixture(params=SEEN)
def serve(request: pytest.FixtureRequest) -> Iterator[Serve]:
    started: list[Any] = []
    seen = SEEN[request.param]

    def start(*answers: bytes, close: bool = False, attempts: int = 3) -> tuple[Scripted, Bucket]:
        server = Scripted(*answers, close=close)
        driver = made(server.url, attempts)
        started.extend([server.stop, driver.close])
        return server, seen(BlobStore(driver).bucket("shop").lane())

    yield start
    for stop in started:
        stop()


def made(url: str | None, attempts: int = 3) -> S3Driver:
    settings = AwsSettings(
        region="eu-central-1",
        endpoint=url,
        access_key=Credential.literal("AKID"),
        secret_key=Credential.literal(SECRET),
        max_attempts=attempts,
    )
    return blob_driver(Session(settings))


def error(status: str, code: str, *headers: str) -> bytes:
    body = f"<Error><Code>{code}</Code><Message>no</Message><Region>eu-west-1</Region></Error>"
    lines = "".join(f"{header}\r\n" for header in headers)
    return f"HTTP/1.1 {status}\r\n{lines}Content-Length: {len(body)}\r\n\r\n{body}".encode()


def xml(body: str) -> bytes:
    return f"HTTP/1.1 200 OK\r\nContent-Length: {len(body.encode())}\r\n\r\n{body}".encode()


# signatures: the oracle is the SDK's own


def expected_signature(server: Scripted, seen: Seen) -> str:
    fields = dict(part.split("=", 1) for part in seen.headers["authorization"].partition(" ")[2].split(","))
    signed = {name: seen.headers[name] for name in fields["SignedHeaders"].split(";")}
    request = AWSRequest(method=seen.method, url=f"{server.url}{seen.target}", headers=signed, data=seen.body)
    request.context["timestamp"] = seen.headers["x-amz-date"]
    auth = S3SigV4Auth(Credentials("AKID", SECRET), "s3", "eu-central-1")
    return auth.signature(auth.string_to_sign(request, auth.canonical_request(request)), request)


@pytest.mark.parametrize("key", KEYS)
def test_every_request_is_signed_as_the_sdk_would(serve: Serve, key: str) -> None:
    server, bucket = serve(EMPTY)
    bucket.put(
        key, b"content", content_type="text/plain; a  b", metadata={"name": "v a"}, tags={"a": "ü /"}, if_absent=True
    )
    bucket.delete(key)
    with pytest.raises(OperationError):
        list(bucket.list(key))  # an empty body is no listing
    assert ["PUT", "DELETE", "GET"] == [seen.method for seen in server.seen[:3]]
    for seen in server.seen:
        assert seen.headers["authorization"].endswith(f"Signature={expected_signature(server, seen)}")


def test_over_http_the_body_is_signed_and_carries_its_crc(serve: Serve) -> None:
    server, bucket = serve(EMPTY)
    bucket.put("key", b"content")
    headers = server.seen[0].headers
    assert hashlib.sha256(b"content").hexdigest() == headers["x-amz-content-sha256"]
    assert base64.b64encode(zlib.crc32(b"content").to_bytes(4, "big")).decode() == headers["x-amz-checksum-crc32"]


# when the SDK goes on alone


def test_a_mocked_sdk_is_not_passed_by() -> None:
    driver = made(None)
    lane = driver.lane()
    assert lane is not driver
    with mock_aws():
        assert driver.lane() is driver
        bucket = BlobStore(lane).create(BucketSpec(name="shop"))
        bucket.put("key", b"1")
        assert b"1" == bucket.get("key")
        assert ["key"] == [item.key for item in bucket.list()]


def test_whoever_listens_to_the_client_hears_everything(aws_double: AwsDouble) -> None:
    driver = made(str(aws_double.config["endpoint"]))
    driver.client.meta.events.register("before-send.s3", lambda **_: None)
    assert driver.lane() is driver


def test_a_stubbed_client_is_not_passed_by() -> None:
    driver = made("http://127.0.0.1:1")
    assert driver.lane() is not driver
    with Stubber(driver.client):
        assert driver.lane() is driver


def test_a_patched_client_is_not_passed_by(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = made("http://127.0.0.1:1")
    monkeypatch.setattr(botocore.client.BaseClient, "_make_api_call", lambda *_: {})
    assert driver.lane() is driver


def test_a_proxy_for_http_is_left_to_the_sdk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    driver = made("http://shop.example")
    assert driver.lane() is driver


def test_a_bucket_elsewhere_is_left_to_the_sdk(serve: Serve) -> None:
    moved = error("400 Bad Request", "AuthorizationHeaderMalformed", "x-amz-bucket-region: eu-west-1")
    server, bucket = serve(moved, moved, EMPTY)
    bucket.put("key", b"1")
    bucket.put("key", b"2")
    regions = [seen.headers["authorization"].split("/")[2] for seen in server.seen if seen.method == "PUT"]
    assert "eu-central-1" == regions[0]
    assert "eu-west-1" == regions[-1]
    assert b"2" in server.seen[-1].body


# connections


def test_a_connection_that_the_server_closed_meanwhile_is_made_again(serve: Serve) -> None:
    server, bucket = serve(EMPTY, close=True)
    for number in range(5):
        bucket.put(f"key{number}", b"1")
    assert [f"/shop/key{number}" for number in range(5)] == [seen.target for seen in server.seen]


def test_one_connection_serves_one_thread(serve: Serve) -> None:
    server, bucket = serve(EMPTY)
    for number in range(5):
        bucket.put(f"key{number}", b"1")
    assert 1 == server.connections


def test_a_forked_process_makes_its_own_connections(serve: Serve) -> None:
    server, bucket = serve(EMPTY)
    bucket.put("parent", b"1")
    child = os.fork()
    if not child:
        status = 1
        try:
            bucket.put("child", b"1")
            status = 0
        finally:
            os._exit(status)
    assert 0 == os.waitpid(child, 0)[1]
    bucket.put("parent", b"2")
    assert 2 == server.connections
    assert 3 == len(server.seen)


def test_close_closes_what_rests(serve: Serve) -> None:
    server, bucket = serve(EMPTY)
    bucket.put("key", b"1")
    driver = bucket.unwrap(S3Driver)
    driver.close()
    bucket.put("key", b"1")
    assert 2 == server.connections


def test_nobody_there_is_unavailable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    bucket = BlobStore(made(f"http://127.0.0.1:{port}", attempts=1)).bucket("shop").lane()
    with pytest.raises(Unavailable, match="Could not connect") as caught:
        bucket.put("key", b"1")
    assert SECRET not in repr(caught.value) + str(caught.value.__cause__)


# TLS, and time limits


@pytest.fixture
def certified(tmp_path: Path) -> tuple[ssl.SSLContext, Path]:
    """Return what a server for 127.0.0.1 needs, and the file that makes a client trust it."""
    path, key = certificate(tmp_path)
    return serving_tls(path, key), path


Over = Callable[..., Bucket]


@pytest.fixture(params=SEEN)
def over(request: pytest.FixtureRequest) -> Iterator[Over]:
    drivers: list[S3Driver] = []
    seen = SEEN[request.param]

    def start(url: str, verify: Path | None = None) -> Bucket:
        client = boto3.client(
            "s3",
            endpoint_url=url,
            region_name="eu-central-1",
            aws_access_key_id="AKID",
            aws_secret_access_key=SECRET,
            verify=str(verify) if verify else None,
            config=Config(signature_version="s3v4", read_timeout=1, retries={"total_max_attempts": 1}),
        )
        drivers.append(S3Driver(client, "aws", FEATURES, "eu-central-1"))
        lane = drivers[-1].lane()
        assert is_fast(lane.client)
        bucket: Bucket = seen(BlobStore(lane).bucket("shop"))
        return bucket

    yield start
    for driver in drivers:
        driver.close()


def test_over_https_the_body_is_not_signed_and_carries_its_crc(
    certified: tuple[ssl.SSLContext, Path], over: Over
) -> None:
    context, path = certified
    big = bytes(range(256)) * 8192
    head = b'HTTP/1.1 200 OK\r\nETag: "x-1"\r\nLast-Modified: Fri, 20 Nov 2026 12:00:00 GMT\r\n'
    server = Scripted(EMPTY, head + b"Content-Length: %d\r\n\r\n" % len(big) + big, tls=context)
    bucket = over(server.url, path)
    bucket.put("key", big)
    assert big == bucket.get("key")
    seen = server.seen[0]
    assert ("UNSIGNED-PAYLOAD", big) == (seen.headers["x-amz-content-sha256"], seen.body)
    assert base64.b64encode(zlib.crc32(big).to_bytes(4, "big")).decode() == seen.headers["x-amz-checksum-crc32"]
    assert 1 == server.connections
    server.stop()


def test_a_certificate_that_nobody_trusts_is_refused(certified: tuple[ssl.SSLContext, Path], over: Over) -> None:
    server = Scripted(EMPTY, tls=certified[0])
    with pytest.raises(Unavailable, match="certificate verify failed"):
        over(server.url).put("key", b"1")
    assert [] == server.seen
    server.stop()


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nETag: x\r\n\r\nab"])
def test_an_answer_that_does_not_come_is_waited_for_no_longer_than_allowed(
    certified: tuple[ssl.SSLContext, Path], over: Over, scheme: str, said: bytes
) -> None:
    context, path = certified
    server = Scripted(said, tls=context if scheme == "https" else None)
    with pytest.raises(Timeout):
        over(server.url, path).put("key", b"1")
    server.stop()


# answers


def test_an_answer_in_chunks_is_read(serve: Serve) -> None:
    chunks = b"4\r\nabcd\r\n3;x=y\r\nefg\r\n0\r\nx-trailer: 1\r\n\r\n"
    head = b'HTTP/1.1 200 OK\r\nETag: "x"\r\nLast-Modified: Fri, 20 Nov 2026 12:00:00 GMT\r\n'
    listing = b"<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>"
    coded = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(listing), listing)
    server, bucket = serve(
        head + b"Content-Length: 3\r\n\r\nabc", coded, head + b"Transfer-Encoding: chunked\r\n\r\n" + chunks
    )
    assert b"abc" == bucket.get("key")
    assert [] == list(bucket.list())
    assert 1 == server.connections
    client: Any = bucket.unwrap(S3Driver).client
    assert b"abcdefg" == client.get_object(Bucket="shop", Key="key")["Body"].read()


def test_a_copy_that_fails_behind_a_200_is_made_again_as_the_sdk_would(serve: Serve) -> None:
    head = (
        b'HTTP/1.1 200 OK\r\nETag: "x-1"\r\nLast-Modified: Fri, 20 Nov 2026 12:00:00 GMT\r\nContent-Length: 3\r\n\r\n'
    )
    late = xml("<Error><Code>InternalError</Code><Message>We encountered an internal error.</Message></Error>")
    modified = "<LastModified>2026-11-20T12:00:00.000Z</LastModified>"
    server, bucket = serve(head, late, xml(f'<CopyObjectResult>{modified}<ETag>"y"</ETag></CopyObjectResult>'))
    assert '"y"' == bucket.copy("key", "copy").token.value
    assert ["HEAD", "PUT", "PUT"] == [seen.method for seen in server.seen]

    server, bucket = serve(head, late)
    with pytest.raises(Unavailable, match="internal error"):
        bucket.copy("key", "copy")
    assert ["HEAD", "PUT", "PUT", "PUT"] == [seen.method for seen in server.seen]


@pytest.mark.parametrize("ask", [lambda bucket: list(bucket.list()), lambda bucket: bucket.tags("key")])
@pytest.mark.parametrize("lane", [True, False])
def test_an_error_behind_a_200_and_a_page_of_a_proxy_are_no_empty_answers(ask: Any, *, lane: bool) -> None:
    late = "<Error><Code>InternalError</Code><Message>We encountered an internal error.</Message></Error>"
    for text in [late, "<html><body><p>Log in, please</p></body></html>"]:
        server = Scripted(xml(text))
        driver = made(server.url, 2)
        bucket = BlobStore(driver.lane() if lane else driver).bucket("shop")
        if text is late or lane:
            with pytest.raises(Unavailable):
                ask(bucket)
            assert 2 == len(server.seen)
        else:
            with pytest.raises(IntegrityError, match="no listing"):
                list(bucket.list())
        driver.close()
        server.stop()


PAGE = b"<html><body><p>Log in, please</p></body></html>"


@pytest.mark.parametrize(
    "work",
    [
        lambda bucket: bucket.get("key"),
        lambda bucket: bucket.stat("key"),
        lambda bucket: bucket.put("key", b"content"),
        lambda bucket: bucket.delete("key"),
        lambda bucket: bucket.delete_many(["key", "other"]),
        lambda bucket: bucket.copy("key", "copy"),
        lambda bucket: list(bucket.uploads()),
    ],
    ids=["get", "stat", "put", "delete", "delete_many", "copy", "uploads"],
)
@pytest.mark.parametrize("lane", [True, False])
def test_a_page_of_a_proxy_is_no_success(work: Callable[[Bucket], object], *, lane: bool) -> None:
    told = f"Content-Type: text/html\r\nContent-Length: {len(PAGE)}\r\nLast-Modified: Fri, 20 Nov 2026 12:00:00 GMT"
    server = Scripted(f"HTTP/1.1 200 OK\r\n{told}\r\n\r\n".encode() + PAGE)
    driver = made(server.url, 2)
    bucket = BlobStore(driver.lane() if lane else driver).bucket("shop")
    with pytest.raises((Unavailable, IntegrityError), match="does a proxy answer in the server's place"):
        work(bucket)
    driver.close()
    server.stop()


def test_an_object_whose_size_is_not_told_is_no_bug(serve: Serve) -> None:
    head = b'HTTP/1.1 200 OK\r\nETag: "x"\r\nLast-Modified: Fri, 20 Nov 2026 12:00:00 GMT\r\n'
    server, bucket = serve(head + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", head + b"\r\n")
    with pytest.raises(IntegrityError, match="size"):
        bucket.get("key")
    with pytest.raises(IntegrityError, match="size"):
        bucket.stat("key")
    assert 2 == len(server.seen)


def test_entities_are_not_expanded(serve: Serve) -> None:
    bomb = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 12))
    text = f'<!DOCTYPE x [<!ENTITY l0 "lol">{bomb}]><ListBucketResult><Name>&l11;</Name></ListBucketResult>'
    _, bucket = serve(xml(text), attempts=1)
    with pytest.raises(Unavailable, match="document type"):
        list(bucket.list())


def test_a_listing_that_others_write_is_the_same(serve: Serve) -> None:
    texts = ["a", "b&amp;c", "%C3%BC"]
    modified = "<LastModified>2026-11-20T12:00:00.000Z</LastModified>"
    amazon = f"<Contents><Key>%s</Key>{modified}<ETag>&quot;%s&quot;</ETag><Size>7</Size>{CLASS}</Contents>"
    other = f"<Contents>\n{CLASS}<Key>%s</Key><Size>7</Size><ETag>&#34;%s&#34;</ETag>{modified}</Contents>"
    found = []
    for form in (amazon, other):
        entries = "".join(form % (text, "0" * 32) for text in texts)
        _, bucket = serve(xml(f"<ListBucketResult><EncodingType>url</EncodingType>{entries}</ListBucketResult>"))
        found.append(list(bucket.list()))
    assert ["a", "b&c", "ü"] == [item.key for item in found[0]]
    assert found[0] == found[1]


def test_a_body_that_is_not_what_its_crc_promises_is_refused(serve: Serve) -> None:
    head = b'HTTP/1.1 200 OK\r\nETag: "x-1"\r\nLast-Modified: Fri, 20 Nov 2026 12:00:00 GMT\r\nContent-Length: 3\r\n'
    _, bucket = serve(head + b"x-amz-checksum-crc32: AAAAAA==\r\n\r\nabc")
    with pytest.raises(IntegrityError, match="CRC32"):
        bucket.get("key")


def test_a_refusal_names_code_and_request_and_no_secret(serve: Serve) -> None:
    _, bucket = serve(error("403 Forbidden", "SignatureDoesNotMatch", "x-amz-request-id: R1"))
    with pytest.raises(Unauthenticated) as caught:
        bucket.put("key", b"1")
    assert ("SignatureDoesNotMatch", "R1") == (caught.value.code, caught.value.request_id)
    assert SECRET not in repr(caught.value) + str(caught.value) + repr(caught.value.__cause__)


def test_a_missing_object_is_found_out_without_a_body(serve: Serve) -> None:
    listing = xml("<ListBucketResult></ListBucketResult>")
    _, bucket = serve(b"HTTP/1.1 404 Not Found\r\nContent-Length: 9\r\n\r\n", listing)
    with pytest.raises(NotFound):
        bucket.stat("key")


# attempts


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    found: list[float] = []
    monkeypatch.setattr(wire, "sleep", found.append)
    return found


def test_what_may_pass_is_tried_again_as_late_as_the_server_asks(serve: Serve, pauses: list[float]) -> None:
    server, bucket = serve(
        error("503 Slow Down", "SlowDown", "Retry-After: 7"), error("500 Oh", "InternalError"), EMPTY
    )
    bucket.put("key", b"1")
    assert 3 == len(server.seen)
    assert pauses[0] >= 7
    assert 0 <= pauses[1] <= 0.1


def test_attempts_are_those_of_the_client(serve: Serve, pauses: list[float]) -> None:
    server, bucket = serve(error("500 Oh", "InternalError"), attempts=4)
    with pytest.raises(Unavailable):
        bucket.put("key", b"1")
    assert (4, 3) == (len(server.seen), len(pauses))


def test_no_attempt_begins_after_the_deadline(serve: Serve, pauses: list[float]) -> None:
    server, bucket = serve(error("503 Slow Down", "SlowDown", "Retry-After: 600"))
    with pytest.raises(OperationError):
        bucket.put("key", b"1")
    assert (1, []) == (len(server.seen), pauses)


def test_what_will_not_pass_is_not_tried_again(serve: Serve, pauses: list[float]) -> None:
    server, bucket = serve(error("403 Forbidden", "AccessDenied"))
    with pytest.raises(OperationError):
        bucket.put("key", b"1")
    assert (1, []) == (len(server.seen), pauses)


def test_a_clock_that_is_wrong_is_corrected(serve: Serve) -> None:
    theirs = datetime.now(UTC) + timedelta(hours=3)
    skewed = error("403 Forbidden", "RequestTimeTooSkewed", f"Date: {format_datetime(theirs, usegmt=True)}")
    server, bucket = serve(skewed, EMPTY)
    bucket.put("key", b"1")
    told = datetime.strptime(server.seen[1].headers["x-amz-date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    assert abs(told - theirs) < timedelta(minutes=5)

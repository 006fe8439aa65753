"""The server behind the signed URLs of files, and what strangers may try on it."""

import base64
import hashlib
import http.client
import json
import logging
import os
import socket
import stat
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from email.utils import format_datetime
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest

from shiftable.blob import BlobStore, Bucket, BucketSpec, CorsRule, Headers
from shiftable.blob.driver import BlobServer, SignedURL
from shiftable.errors import IntegrityError, InvalidArgument, OperationError, Unsupported
from shiftable.memory.blob import MemoryBlobDriver
from shiftable_baremetal._faults import FilesError
from shiftable_baremetal.blob import SIGN_URL, FilesDriver

MIB = 1024 * 1024
START = int(time.time())  # the files that writers stage are of now too


class Clock:
    """Stands still until it is told."""

    def __init__(self) -> None:
        self.now = START * 10**9

    def __call__(self) -> int:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def driver(tmp_path: Path, clock: Clock) -> Iterator[FilesDriver]:
    driver = FilesDriver(tmp_path / "root", fsync=False, clock=clock)
    yield driver
    driver.close()


@pytest.fixture
def server(driver: FilesDriver) -> Iterator[BlobServer]:
    with BlobStore(driver).serve(0) as server:
        driver.sign_url = server.url
        yield server


@pytest.fixture
def bucket(driver: FilesDriver, server: BlobServer) -> Bucket:
    return BlobStore(driver).create(BucketSpec(name="shop"))


def send(
    url: str, method: str = "GET", data: bytes | None = None, **headers: str
) -> tuple[int, http.client.HTTPMessage, bytes]:
    """Send a request as it is, no header more than HTTP needs."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=30)
    try:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, f"{parts.path}?{parts.query}", body=data, headers=named)
        response = connection.getresponse()
        return response.status, response.headers, response.read()
    finally:
        connection.close()


def raw(url: str, request: bytes) -> bytes:
    """Send bytes and return all that comes until the server hangs up."""
    parts = urlsplit(url)
    with socket.create_connection((str(parts.hostname), int(parts.port or 0)), timeout=30) as connection:
        connection.sendall(request)
        connection.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: connection.recv(65536), b""))


def target(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.path}?{parts.query}"


# what is signed


def test_nothing_is_served_that_is_not_signed(bucket: Bucket, server: BlobServer, tmp_path: Path) -> None:
    bucket.put("key", b"content")
    (tmp_path / "outside").write_bytes(b"outside")
    for path in (
        "/", "/shop", "/shop/", "/shop/key", "/shop/key?", "/shop/key?signature=",
        "/shop/key?method=GET&expires=9999999999",
        "/../outside", "/shop/../../outside", "/shop/%2e%2e/%2e%2e/outside", "/.shiftable/signing.key", "//etc/passwd",
        "/shop/key?method=GET&expires=x&signature=0", "/shop/%ff?method=GET&expires=9999999999&signature=0",
        "/shop/key?method=GET&expires=9999999999&signature=%C3%A9", "http://elsewhere/shop/key",
    ):  # fmt: skip
        for method in ("GET", "HEAD", "PUT", "DELETE"):
            url = server.url + path if path[0] == "/" else path.replace("http://elsewhere", server.url)
            status, _, content = send(url, method)
            assert status == 403, (path, method)
            assert b"outside" not in content
    assert bucket.get("key") == b"content"


def test_every_part_of_a_url_is_signed(bucket: Bucket) -> None:
    bucket.put("key", b"content")
    bucket.put("kez", b"other")
    digest = hashlib.md5(b"content", usedforsecurity=False).digest()
    signed = {
        "GET": bucket.sign("key", answer=Headers(content_type="text/x", content_disposition="inline")),
        "PUT": bucket.sign("key", method="PUT", content_type="text/x", md5=digest, size=7),
    }
    for method, url in signed.items():
        path, _, query = url.partition("?")
        pairs = query.split("&")
        for pair in pairs:
            name, _, value = pair.partition("=")
            for changed in (f"{name}={value}0", f"{name}={value}&{pair}", None):
                others = [each for each in pairs if each != pair]
                forged = "&".join([*others, changed] if changed else others)
                status, _, _ = send(f"{path}?{forged}", method, b"content" if method == "PUT" else None, **headers(url))
                assert status == 403, (method, name, changed)
        for forged in (
            f"{path.replace('key', 'kez')}?{query}",
            f"{url}&more=1",
            f"{path.replace('shop', 'shoq')}?{query}",
        ):
            assert send(forged, method, b"content" if method == "PUT" else None, **headers(url))[0] == 403
    assert bucket.get("kez") == b"other"


def headers(url: SignedURL) -> dict[str, str]:
    return {name.replace("-", "_"): value for name, value in url.headers.items()}


def test_a_url_ends_when_it_says(bucket: Bucket, clock: Clock) -> None:
    bucket.put("key", b"content")
    url = bucket.sign("key", expires=timedelta(seconds=60))
    clock.now += 59 * 10**9
    assert send(url)[0] == 200
    clock.now += 10**9
    status, _, why = send(url)
    assert (status, why) == (403, b"the URL has expired\n")


def test_a_url_of_another_root_is_worth_nothing(bucket: Bucket, tmp_path: Path, clock: Clock) -> None:
    bucket.put("key", b"content")
    other = FilesDriver(tmp_path / "other", fsync=False, clock=clock, sign_url=bucket.unwrap(FilesDriver).sign_url)
    theirs = BlobStore(other).create(BucketSpec(name="shop")).sign("key")
    assert send(theirs)[0] == 403


def test_without_the_key_all_urls_are_worth_nothing(bucket: Bucket, tmp_path: Path) -> None:
    bucket.put("key", b"content")
    url = bucket.sign("key")
    assert send(url)[0] == 200
    (tmp_path / "root/.shiftable/signing.key").unlink()
    assert send(url)[0] == 403
    assert not (tmp_path / "root/.shiftable/signing.key").exists()
    again = bucket.sign("key")
    assert (send(url)[0], send(again)[0]) == (403, 200)


def test_the_key_is_for_its_owner_alone(bucket: Bucket, tmp_path: Path) -> None:
    bucket.sign("key")
    path = tmp_path / "root/.shiftable/signing.key"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(path.read_bytes()) == 32
    path.chmod(0o640)
    with pytest.raises(IntegrityError, match="read by others"):
        bucket.sign("key")
    path.chmod(0o600)
    path.write_bytes(b"short")
    with pytest.raises(IntegrityError, match="damaged"):
        bucket.sign("key")
    path.unlink()
    path.symlink_to("/etc/hostname")
    with pytest.raises(Exception, match="symbolic links"):
        bucket.sign("key")


def test_many_that_sign_first_sign_with_one_key(bucket: Bucket, tmp_path: Path, clock: Clock) -> None:
    bucket.put("key", b"content")
    root, base = tmp_path / "root", bucket.unwrap(FilesDriver).sign_url
    barrier, urls = threading.Barrier(8), []

    def sign() -> None:
        own = BlobStore(FilesDriver(root, fsync=False, clock=clock, sign_url=base)).bucket("shop")
        barrier.wait(timeout=30)
        urls.append(own.sign("key"))

    threads = [threading.Thread(target=sign) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(urls)) == 1
    assert [send(url)[0] for url in urls] == [200] * 8


def test_a_key_that_leaves_the_root_is_neither_signed_nor_served(bucket: Bucket, driver: FilesDriver) -> None:
    for key in ("../outside", "a/../../outside", "..", "/etc/passwd", "a\x00b"):
        with pytest.raises(InvalidArgument):
            bucket.sign(key)
    # As if the key had leaked: a signature over what nobody could have had signed.
    from shiftable_baremetal._signing import Grant

    for bucket_name, key in (
        ("..", "outside"),
        ("shop", "../outside"),
        (".shiftable", "signing.key"),
        ("shop", "a//b"),
    ):
        grant = Grant(bucket=bucket_name, key=key, method="GET", expires=START + 60)
        assert send(driver._signer.url(driver.sign_url, grant))[0] == 403, key


def test_no_signature_is_logged_or_answered(bucket: Bucket, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    bucket.put("key", b"content")
    url = bucket.sign("key")
    signature = url.rpartition("=")[2]
    answers = [send(url), send(url + "0"), send(url, "DELETE"), send(url.replace("key", "kez"))]
    assert [status for status, _, _ in answers] == [200, 403, 403, 403]
    assert signature not in caplog.text
    assert not any(signature in str(headers) + content.decode() for _, headers, content in answers)


# reading


def test_ranges_are_those_of_http(bucket: Bucket) -> None:
    data = bytes(range(100))
    bucket.put("key", data)
    bucket.put("empty", b"")
    url = bucket.sign("key")
    for asked, status, content, told in (
        ("bytes=0-9", 206, data[:10], "bytes 0-9/100"),
        ("bytes=90-", 206, data[90:], "bytes 90-99/100"),
        ("bytes=-5", 206, data[95:], "bytes 95-99/100"),
        ("bytes=-500", 206, data, "bytes 0-99/100"),
        ("bytes=50-1000", 206, data[50:], "bytes 50-99/100"),
        ("bytes=100-", 416, None, "bytes */100"),
        ("bytes=-0", 416, None, "bytes */100"),
        ("bytes=9-0", 200, data, None),
        ("bytes=0-1,5-6", 200, data, None),
        ("bytes=-", 200, data, None),
        ("bytes=x-y", 200, data, None),
        ("lines=0-9", 200, data, None),
    ):
        found, headers, body = send(url, Range=asked)
        assert (found, headers["Content-Range"]) == (status, told), asked
        assert content is None or body == content, asked
        found, headers, body = send(bucket.sign("key"), "HEAD", Range=asked)
        assert (found, headers["Content-Range"], body) == (status, told, b""), asked
    assert send(bucket.sign("empty"), Range="bytes=0-")[0] == 416
    assert send(bucket.sign("empty"))[::2] == (200, b"")


def test_conditions_of_reads_are_those_of_http(bucket: Bucket) -> None:
    info = bucket.put("key", b"content")
    etag, other, url = f'"{info.token}"', '"other"', bucket.sign("key")
    when = info.modified.replace(microsecond=0)
    now, before = (format_datetime(each, usegmt=True) for each in (when, when - timedelta(seconds=1)))
    for conditions, status in (
        ({"If_Match": etag}, 200), ({"If_Match": "*"}, 200), ({"If_Match": f"{other}, {etag}"}, 200),
        ({"If_Match": other}, 412), ({"If_None_Match": etag}, 304), ({"If_None_Match": f"W/{etag}"}, 304),
        ({"If_None_Match": "*"}, 304), ({"If_None_Match": other}, 200),
        ({"If_Modified_Since": now}, 304), ({"If_Modified_Since": before}, 200), ({"If_Modified_Since": "never"}, 200),
        ({"If_Unmodified_Since": now}, 200), ({"If_Unmodified_Since": before}, 412),
        ({"If_None_Match": other, "If_Modified_Since": now}, 200),
        ({"If_Match": etag, "If_Unmodified_Since": before}, 200),
        ({"Range": "bytes=0-1", "If_Range": etag}, 206), ({"Range": "bytes=0-1", "If_Range": other}, 200),
        ({"Range": "bytes=0-1", "If_Range": now}, 200),
    ):  # fmt: skip
        found, headers, _ = send(url, "GET", None, **conditions)
        assert found == status, conditions
        assert found == 412 or headers["ETag"] == etag, conditions
    assert send(url, If_None_Match=etag)[2] == b""


def test_an_answer_tells_what_the_object_has(bucket: Bucket) -> None:
    own = Headers(
        content_type="text/plain",
        cache_control="max-age=60",
        content_disposition='attachment; filename="ü.txt"',
        content_encoding="gzip",
        content_language="de",
    )
    bucket.put("key", b"content", headers=own)
    _, told, content = send(bucket.sign("key"))
    assert content == b"content"
    assert told["Content-Type"] == "text/plain"
    assert told["Content-Disposition"].encode("latin-1").decode() == own.content_disposition
    assert (told["Content-Encoding"], told["Content-Language"], told["Cache-Control"]) == ("gzip", "de", "max-age=60")
    assert (told["Content-Length"], told["Accept-Ranges"], told["X-Content-Type-Options"]) == ("7", "bytes", "nosniff")


def test_what_is_missing_is_not_found(bucket: Bucket) -> None:
    assert send(bucket.sign("absent"))[0] == 404
    assert send(bucket.sign("absent"), "HEAD")[::2] == (404, b"")
    assert send(bucket.sign("absent", method="DELETE"), "DELETE")[0] == 204


def test_a_connection_serves_many_requests(bucket: Bucket) -> None:
    bucket.put("key", b"content")
    url = target(bucket.sign("key"))
    request = f"GET {url} HTTP/1.1\r\nHost: x\r\n\r\nHEAD {target(bucket.sign('key'))} HTTP/1.1\r\nHost: x\r\n\r\n"
    last = f"GET {url} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    answer = raw(bucket.sign("key"), (request + last).encode())
    assert answer.count(b"HTTP/1.1 200 OK\r\n") == 3
    assert answer.count(b"content") == 2


# writing


def test_a_large_write_goes_in_parts_and_appears_whole(bucket: Bucket) -> None:
    data = os.urandom(20 * MIB + 5)
    url = bucket.sign("big", method="PUT")
    status, headers, _ = send(url, "PUT", data, Content_Type="video/x", Cache_Control="no-store")
    info = bucket.stat("big")
    assert (status, headers["ETag"]) == (200, f'"{info.token}"')
    assert info.headers == Headers(content_type="video/x", cache_control="no-store")
    assert hashlib.sha256(bucket.get("big")).digest() == hashlib.sha256(data).digest()


@pytest.mark.parametrize("size", [1000, 20 * MIB])
def test_a_write_that_breaks_off_leaves_the_old_object(bucket: Bucket, tmp_path: Path, size: int) -> None:
    bucket.put("key", b"old")
    url = bucket.sign("key", method="PUT")
    head = f"PUT {target(url)} HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\n"
    assert raw(url, head.encode() + b"x" * (size - 1)) == b""
    assert bucket.get("key") == b"old"
    assert list(bucket.uploads()) == []
    assert list((tmp_path / "root/.shiftable/staging").iterdir()) == []


def test_conditions_of_writes_are_those_of_http(bucket: Bucket) -> None:
    url, remove = bucket.sign("key", method="PUT"), bucket.sign("key", method="DELETE")
    assert send(url, "PUT", b"first", If_None_Match="*")[0] == 200
    assert send(url, "PUT", b"second", If_None_Match="*")[0] == 412
    etag = f'"{bucket.stat("key").token}"'
    assert send(url, "PUT", b"third", If_Match='"other"')[0] == 412
    assert send(url, "PUT", b"x" * 9 * MIB, If_Match='"other"')[0] == 412
    assert send(url, "PUT", b"third", If_None_Match=etag)[0] == 501
    assert send(url, "PUT", b"third", If_Match="*")[0] == 501
    assert bucket.get("key") == b"first"
    assert send(url, "PUT", b"fourth", If_Match=etag)[0] == 200
    assert send(remove, "DELETE", If_Match=etag)[0] == 412
    assert bucket.get("key") == b"fourth"
    assert send(remove, "DELETE", If_Match=f'"{bucket.stat("key").token}"')[0] == 204
    assert not bucket.exists("key")


def test_what_arrives_is_what_was_sent(bucket: Bucket) -> None:
    url = bucket.sign("key", method="PUT")
    right = base64.b64encode(hashlib.md5(b"content", usedforsecurity=False).digest()).decode()
    assert send(url, "PUT", b"altered", Content_MD5=right)[0] == 400
    assert send(url, "PUT", b"content", Content_MD5="no base64")[0] == 400
    assert not bucket.exists("key")
    assert send(url, "PUT", b"content", Content_MD5=right)[0] == 200


def test_a_write_needs_its_length(bucket: Bucket) -> None:
    url = bucket.sign("key", method="PUT")
    for line in ("Transfer-Encoding: chunked", "Content-Length: -1", "Content-Length: +5", "X: y"):
        answer = raw(url, f"PUT {target(url)} HTTP/1.1\r\nHost: x\r\n{line}\r\n\r\n5\r\nhello\r\n0\r\n\r\n".encode())
        assert answer.startswith(b"HTTP/1.1 411 "), line
    assert not bucket.exists("key")


def test_a_header_of_two_lines_is_not_stored(bucket: Bucket) -> None:
    url = bucket.sign("key", method="PUT")
    request = f"PUT {target(url)} HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nCache-Control: a\r\n b: c\r\n\r\nx"
    assert raw(url, request.encode()).startswith(b"HTTP/1.1 400 ")
    assert not bucket.exists("key")


def test_whoever_waits_for_permission_gets_it_only_with_a_signature(bucket: Bucket) -> None:
    url = bucket.sign("key", method="PUT")
    lines = "HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5\r\n"
    good = raw(url, f"PUT {target(url)} {lines}Connection: close\r\n\r\nhello".encode())
    assert good.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n")
    assert bucket.get("key") == b"hello"
    bad = raw(url, f"PUT {target(url)}0 {lines}\r\n".encode())
    assert bad.startswith(b"HTTP/1.1 403 ")


def test_other_methods_are_not_known(bucket: Bucket) -> None:
    for method in ("POST", "OPTIONS", "PATCH", "TRACE"):
        assert send(bucket.sign("key"), method)[0] == 501


# the server


def test_a_server_listens_on_loopback_until_it_is_closed(driver: FilesDriver) -> None:
    bucket = BlobStore(driver).create(BucketSpec(name="shop"))
    bucket.put("key", b"content")
    server = BlobStore(driver).serve(0)
    driver.sign_url = server.url
    assert urlsplit(server.url).hostname == "127.0.0.1"
    url = bucket.sign("key")
    assert send(url)[0] == 200
    server.close()
    server.close()
    with pytest.raises(ConnectionRefusedError):
        send(url)


def test_a_port_that_is_taken_or_none_is_told(driver: FilesDriver, server: BlobServer) -> None:
    with pytest.raises(InvalidArgument, match="no port"):
        BlobStore(driver).serve(65536)
    with pytest.raises(Exception, match="in use"):
        BlobStore(driver).serve(urlsplit(server.url).port)


def test_urls_lead_to_the_default_address_or_to_the_one_that_is_set(tmp_path: Path) -> None:
    for base in (SIGN_URL, "https://files.example/prefix/"):
        store = BlobStore(FilesDriver(tmp_path / quote(base, safe=""), fsync=False, sign_url=base))
        url = store.create(BucketSpec(name="shop")).sign("a b/é")
        assert url.startswith(f"{base.rstrip('/')}/shop/a%20b/%C3%A9?method=GET&expires=")


def test_a_provider_that_answers_itself_has_no_server() -> None:
    with pytest.raises(Unsupported, match="itself"):
        BlobStore(MemoryBlobDriver()).serve()


def test_another_process_may_serve_what_this_one_signed(bucket: Bucket, tmp_path: Path, clock: Clock) -> None:
    bucket.put("key", b"content")
    other = FilesDriver(tmp_path / "root", fsync=False, clock=clock)
    with other.serve(0) as server:
        bucket.unwrap(FilesDriver).sign_url = server.url
        assert send(bucket.sign("key"))[::2] == (200, b"content")


def test_old_sidecars_without_new_fields_are_read(bucket: Bucket, tmp_path: Path) -> None:
    bucket.put("key", b"content", metadata={"a": "b"})
    (path,) = (path for path in (tmp_path / "root/.shiftable/buckets/shop/sidecars").rglob("*") if path.is_file())
    kept = json.loads(path.read_bytes())
    del kept["storage_class"]
    path.write_text(json.dumps(kept))
    info = bucket.stat("key")
    assert (info.metadata, info.storage_class) == ({"a": "b"}, "standard")


# scripts of pages in a browser


@pytest.fixture
def pages(driver: FilesDriver) -> Iterator[BlobServer]:
    with BlobStore(driver).serve(0, origins=("https://shop.example", "http://127.0.0.1:3000")) as server:
        driver.sign_url = server.url
        yield server


def asked(url: str, origin: str, method: str, **headers: str) -> tuple[int, http.client.HTTPMessage, bytes]:
    """Ask as a browser does before a script's request."""
    return send(url, "OPTIONS", Origin=origin, Access_Control_Request_Method=method, **headers)


def test_a_page_that_may_is_told_so_before_and_with_the_answer(driver: FilesDriver, pages: BlobServer) -> None:
    bucket = BlobStore(driver).create(BucketSpec(name="shop"))
    url = str(bucket.sign("a", method="PUT", content_type="text/plain"))
    status, headers, _ = asked(url, "https://shop.example", "PUT", Access_Control_Request_Headers="content-type")
    assert (204, "https://shop.example") == (status, headers["Access-Control-Allow-Origin"])
    assert "PUT" in headers["Access-Control-Allow-Methods"].split(", ")
    assert "content-type" in headers["Access-Control-Allow-Headers"].split(", ")
    assert "Access-Control-Allow-Credentials" not in headers
    status, headers, _ = send(url, "PUT", b"x", Origin="https://shop.example", Content_Type="text/plain")
    assert (200, "https://shop.example", "Origin") == (status, headers["Access-Control-Allow-Origin"], headers["Vary"])
    assert "etag" in headers["Access-Control-Expose-Headers"].split(", ")
    assert b"x" == bucket.get("a")


def test_a_page_that_may_reads_the_reason_of_a_refusal(pages: BlobServer) -> None:
    status, headers, body = send(f"{pages.url}/shop/a?signature=x", Origin="http://127.0.0.1:3000")
    assert (403, "http://127.0.0.1:3000") == (status, headers["Access-Control-Allow-Origin"])
    assert body


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "https://shop.example.evil.example", "http://shop.example", "null", "*"]
)
def test_a_page_that_may_not_is_told_nothing(driver: FilesDriver, pages: BlobServer, origin: str) -> None:
    bucket = BlobStore(driver).create(BucketSpec(name="shop"))
    bucket.put("a", b"x")
    url = str(bucket.sign("a"))
    status, headers, _ = asked(url, origin, "GET")
    assert (403, None) == (status, headers["Access-Control-Allow-Origin"])
    status, headers, _ = send(url, Origin=origin)
    assert (200, None, "Origin") == (status, headers["Access-Control-Allow-Origin"], headers["Vary"])


def test_any_page_may_where_all_may(driver: FilesDriver) -> None:
    with BlobStore(driver).serve(0, origins=("*",)) as server:
        status, headers, _ = asked(f"{server.url}/x", "https://any.example", "DELETE")
        assert (204, "*") == (status, headers["Access-Control-Allow-Origin"])
        assert "Vary" not in headers


def test_a_page_of_the_internet_may_ask_for_loopback(pages: BlobServer) -> None:
    asks = {"Access_Control_Request_Private_Network": "true"}
    _, headers, _ = asked(f"{pages.url}/x", "https://shop.example", "GET", **asks)
    assert "true" == headers["Access-Control-Allow-Private-Network"]


def test_without_origins_no_page_may_and_nothing_is_said_of_it(server: BlobServer, bucket: Bucket) -> None:
    bucket.put("a", b"x")
    status, headers, _ = send(str(bucket.sign("a")), Origin="https://shop.example")
    assert (200, None, None) == (status, headers["Access-Control-Allow-Origin"], headers["Vary"])
    assert 501 == asked(f"{server.url}/x", "https://shop.example", "GET")[0]


NUMBER = b'[{"origins": ["*"], "methods": ["GET"], "headers": [1], "exposed": [], "max_age": null}]'
UPLOADS = CorsRule(
    origins=["https://shop.example"],
    methods=["PUT"],
    headers=["content-type"],
    exposed=["etag"],
    max_age=timedelta(hours=1),
)
READERS = CorsRule(origins=["*"], methods=["GET"], headers=["*"])


def test_the_rules_of_a_bucket_say_which_pages_may_use_its_urls(driver: FilesDriver, server: BlobServer) -> None:
    store = BlobStore(driver)
    bucket = store.create(BucketSpec(name="ruled", cors=(UPLOADS, READERS)))
    url = str(bucket.sign("a", method="PUT", content_type="text/plain"))
    status, headers, _ = asked(url, "https://shop.example", "PUT", Access_Control_Request_Headers="Content-Type")
    assert (204, "https://shop.example", "3600", "Origin") == (
        status,
        headers["Access-Control-Allow-Origin"],
        headers["Access-Control-Max-Age"],
        headers["Vary"],
    )
    assert ("PUT", "content-type") == (headers["Access-Control-Allow-Methods"], headers["Access-Control-Allow-Headers"])
    status, headers, _ = send(url, "PUT", b"x", Origin="https://shop.example", Content_Type="text/plain")
    assert (200, "https://shop.example") == (status, headers["Access-Control-Allow-Origin"])
    assert "etag" == headers["Access-Control-Expose-Headers"]
    for origin, method, header in (
        ("https://other.example", "PUT", "content-type"),
        ("https://shop.example", "DELETE", "content-type"),
        ("https://shop.example", "PUT", "content-type, x-other"),
    ):
        status, headers, _ = asked(url, origin, method, Access_Control_Request_Headers=header)
        assert (403, None) == (status, headers["Access-Control-Allow-Origin"])
    status, headers, _ = asked(url, "https://other.example", "GET", Access_Control_Request_Headers="x-a, x-b")
    assert (204, "*", "x-a, x-b", None) == (
        status,
        headers["Access-Control-Allow-Origin"],
        headers["Access-Control-Allow-Headers"],
        headers["Access-Control-Max-Age"],
    )
    _, headers, _ = send(str(bucket.sign("a")), Origin="https://other.example")
    assert ("*", None) == (headers["Access-Control-Allow-Origin"], headers["Access-Control-Expose-Headers"])


def test_the_rules_of_one_bucket_are_not_those_of_another(
    driver: FilesDriver, server: BlobServer, bucket: Bucket
) -> None:
    store = BlobStore(driver)
    store.create(BucketSpec(name="ruled", cors=(READERS,)))
    for place in (f"{bucket.name}/a", "absent/a", "..%2Fruled/a", ".shiftable/a", "%00/a", "%ff/a", ""):
        assert 501 == asked(f"{server.url}/{place}", "https://other.example", "GET")[0]
    assert 204 == asked(f"{server.url}/ruled/a", "https://other.example", "GET")[0]
    store.apply(*store.diff(BucketSpec(name="ruled")))
    assert 501 == asked(f"{server.url}/ruled/a", "https://other.example", "GET")[0]


def test_rules_are_of_the_bucket_that_they_were_made_for(driver: FilesDriver) -> None:
    store = BlobStore(driver)
    store.create(BucketSpec(name="ruled", cors=(READERS,)))
    store.delete("ruled")
    store.create(BucketSpec(name="ruled"))
    assert store.describe("ruled").cors == ()


def test_cors_rules_do_not_make_a_bucket_one_that_had_versions(driver: FilesDriver, tmp_path: Path) -> None:
    store = BlobStore(driver)
    bucket = store.create(BucketSpec(name="ruled"))
    store.apply(*store.diff(BucketSpec(name="ruled", cors=(UPLOADS,))))
    assert ["cors.json"] == [path.name for path in (tmp_path / "root/.shiftable/buckets/ruled").iterdir()]
    assert bucket.put("a", b"x").version is None


def test_rules_that_changed_meanwhile_are_not_overwritten(driver: FilesDriver) -> None:
    before = BucketSpec(name="ruled")
    theirs, ours = (BucketSpec(name="ruled", cors=(rule,)) for rule in (UPLOADS, READERS))
    driver.create(before)
    driver.update(before, theirs)
    with pytest.raises(FilesError):
        driver.update(before, ours)
    assert driver.describe("ruled") == theirs


@pytest.mark.parametrize("content", [b"{", b"[1]", b'[{"origins": []}]', b"[{}]", NUMBER, b"\xff"])
def test_damaged_rules_are_told_and_let_no_page_in(
    driver: FilesDriver, server: BlobServer, tmp_path: Path, content: bytes
) -> None:
    store = BlobStore(driver)
    bucket = store.create(BucketSpec(name="ruled", cors=(READERS,)))
    bucket.put("a", b"x")
    (tmp_path / "root/.shiftable/buckets/ruled/cors.json").write_bytes(content)
    with pytest.raises(OperationError, match=r"cors\.json is damaged"):
        store.describe("ruled")
    status, headers, _ = send(str(bucket.sign("a")), Origin="https://shop.example")
    assert (200, None) == (status, headers["Access-Control-Allow-Origin"])


def test_a_method_that_no_url_signs_is_not_allowed_to_pages(pages: BlobServer) -> None:
    assert 403 == asked(f"{pages.url}/x", "https://shop.example", "POST")[0]


@pytest.mark.parametrize("origin", ["", "shop.example", "https://shop.example/", "https://u@shop.example", "https://*"])
def test_what_is_no_origin_is_refused(driver: FilesDriver, origin: str) -> None:
    with pytest.raises(InvalidArgument, match="is no origin|name each origin"):
        BlobStore(driver).serve(0, origins=(origin,))

"""The double of Cloud Storage keeps the service's rules, and is what any client of it can be pointed at."""

from __future__ import annotations

import gzip
import hashlib
import json
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
import requests
from google.api_core import exceptions as api
from google.auth.credentials import AnonymousCredentials
from google.auth.transport.requests import Request
from google.cloud import storage
from google.oauth2 import service_account

from shiftable_gcp.double import GcpDouble

KIB = 1024
MIB = 1024 * KIB


@pytest.fixture
def client(gcp_double: GcpDouble) -> Iterator[Any]:
    """Return Google's own client without anything of ours."""
    made = storage.Client(
        project=gcp_double.project,
        credentials=AnonymousCredentials(),
        client_options={"api_endpoint": gcp_double.url},
    )
    yield made
    made.close()


@pytest.fixture
def shop(client: Any) -> Any:
    return client.create_bucket("shop", location="europe-west3")


def fetched(url: str, method: str = "GET", body: bytes | None = None, **headers: str) -> tuple[int, bytes]:
    request = urllib.request.Request(url, data=body, method=method, headers=headers)  # noqa: S310  the double's own
    try:
        with urllib.request.urlopen(request, timeout=10) as found:  # noqa: S310  the same
            return found.status, found.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def refused(error: type[Exception], act: Any, *args: Any, **kwargs: Any) -> str:
    with pytest.raises(error) as caught:
        act(*args, **kwargs)
    exc: Any = caught.value
    return str(exc.response.json()["error"]["errors"][0]["reason"])


def key_of(double: GcpDouble) -> Any:
    """Return credentials of Google's own class, with the key of the account that the double knows."""
    key = json.loads(double.config["service_account"].reveal())
    return service_account.Credentials.from_service_account_info(key, scopes=["https://www.googleapis.com/auth/x"])


# buckets


@pytest.mark.parametrize("name", ["ab", "Shop", "goog-shop", "my-google-shop", "1.2.3.4", "a..b", "x" * 64])
def test_a_bucket_name_that_google_refuses_is_refused(client: Any, name: str) -> None:
    assert refused(api.BadRequest, client.create_bucket, name) == "invalid"


def test_a_bucket_exists_once_for_everybody(client: Any, shop: Any, gcp_double: GcpDouble) -> None:
    with pytest.raises(api.Conflict, match="already own it"):
        client.create_bucket("shop")
    gcp_double.state.make_bucket("theirs", "others", "US", {})
    with pytest.raises(api.Conflict, match="not available"):
        client.create_bucket("theirs")
    assert [bucket.name for bucket in client.list_buckets()] == ["shop"]


def test_a_bucket_is_deleted_when_it_is_empty(client: Any, shop: Any) -> None:
    shop.blob("key").upload_from_string(b"x")
    assert refused(api.Conflict, shop.delete) == "conflict"
    shop.delete_blob("key")
    shop.delete()
    with pytest.raises(api.NotFound):
        client.get_bucket("shop")


def test_what_a_bucket_is_made_with_is_kept(client: Any) -> None:
    bucket = client.bucket("shop")
    bucket.versioning_enabled = True
    bucket.iam_configuration.uniform_bucket_level_access_enabled = True
    bucket.iam_configuration.public_access_prevention = "enforced"
    client.create_bucket(bucket, location="europe-west3")
    found = client.get_bucket("shop")
    assert (found.versioning_enabled, found.location, found.metageneration) == (True, "EUROPE-WEST3", 1)
    assert found.iam_configuration.public_access_prevention == "enforced"
    found.versioning_enabled = False
    found.patch(if_metageneration_match=1)
    with pytest.raises(api.PreconditionFailed):
        found.patch(if_metageneration_match=1)


# objects


@pytest.mark.parametrize("name", [".", "..", "a\nb", "a\rb", ".well-known/acme-challenge/x", "x" * 1025, "é" * 513])
def test_a_key_that_google_refuses_is_refused(shop: Any, name: str) -> None:
    assert refused(api.BadRequest, shop.blob(name).upload_from_string, b"x") == "invalid"


def test_an_object_whose_headers_are_no_ascii_is_read(shop: Any) -> None:
    blob = shop.blob("k")
    blob.content_disposition = "日本語"
    blob.upload_from_string(b"x", content_type="text/ü")
    assert shop.get_blob("k").content_disposition == "日本語"
    assert blob.download_as_bytes() == b"x"


def test_metadata_has_a_limit(shop: Any) -> None:
    blob = shop.blob("key")
    blob.metadata = {"n": "x" * (8 * KIB - 1)}
    blob.upload_from_string(b"x")
    blob.metadata = {"n": "x" * (8 * KIB)}
    with pytest.raises(api.BadRequest):
        blob.patch()
    with pytest.raises(api.BadRequest):
        blob.upload_from_string(b"x")


def test_generations_grow_and_conditions_hold(shop: Any) -> None:
    first = shop.blob("key")
    first.upload_from_string(b"1", if_generation_match=0)
    second = shop.blob("key")
    second.upload_from_string(b"2", if_generation_match=first.generation)
    assert second.generation > first.generation
    for wrong in ({"if_generation_match": 0}, {"if_generation_match": first.generation}):
        with pytest.raises(api.PreconditionFailed):
            shop.blob("key").upload_from_string(b"3", **wrong)
        with pytest.raises(api.PreconditionFailed):
            shop.blob("key").reload(**wrong)
    with pytest.raises(api.PreconditionFailed):
        shop.blob("key").upload_from_string(b"3", if_generation_not_match=second.generation)
    with pytest.raises(api.PreconditionFailed):
        shop.delete_blob("key", if_generation_match=first.generation)
    assert shop.blob("key").download_as_bytes() == b"2"
    with pytest.raises(api.NotFound):
        shop.blob("key", generation=first.generation).reload()


def test_a_metageneration_counts_patches(shop: Any) -> None:
    blob = shop.blob("key")
    blob.upload_from_string(b"x")
    blob.metadata = {"a": "1", "b": "2"}
    blob.patch(if_metageneration_match=1)
    assert blob.metageneration == 2
    blob.metadata = {"a": "1", "b": None}
    blob.patch()
    blob.reload()
    assert (blob.metageneration, blob.metadata) == (3, {"a": "1"})
    with pytest.raises(api.PreconditionFailed):
        blob.reload(if_metageneration_match=1)


def test_older_generations_are_kept_where_the_bucket_says_so(client: Any, shop: Any) -> None:
    shop.versioning_enabled = True
    shop.patch()
    generations = []
    for data in (b"1", b"2"):
        blob = shop.blob("key")
        blob.upload_from_string(data)
        generations.append(blob.generation)
    shop.delete_blob("key")
    assert list(client.list_blobs("shop")) == []
    found = list(client.list_blobs("shop", versions=True))
    assert [blob.generation for blob in found] == generations
    assert all(blob.time_deleted is not None for blob in found)
    assert shop.blob("key", generation=generations[0]).download_as_bytes() == b"1"
    shop.delete_blob("key", generation=generations[0])
    assert [blob.generation for blob in client.list_blobs("shop", versions=True)] == generations[1:]


def test_hashes_are_told_and_compared(shop: Any) -> None:
    blob = shop.blob("key")
    blob.upload_from_string(b"hello")
    assert (blob.md5_hash, blob.crc32c) == ("XUFAKrxLKna5cZ2REBfFkg==", "mnG7TA==")
    blob.md5_hash = "XUFAKrxLKna5cZ2REBfFkg=="
    with pytest.raises(api.BadRequest, match="doesn't match calculated MD5 hash"):
        blob.upload_from_string(b"other", checksum=None)


def test_a_second_write_within_a_second_is_refused_on_demand(shop: Any, gcp_double: GcpDouble) -> None:
    gcp_double.limit_writes()
    shop.blob("key").upload_from_string(b"1")
    shop.blob("other").upload_from_string(b"1")
    assert refused(api.TooManyRequests, shop.blob("key").upload_from_string, b"2", retry=None)
    gcp_double.clock.advance(1)
    shop.blob("key").upload_from_string(b"2")


# listing


def test_small_pages_come_in_order_with_prefixes(client: Any, shop: Any, gcp_double: GcpDouble) -> None:
    names = ["a", "b/1", "b/2", "b/c/3", "c", "\uff5e", "\U0001f600"]
    for name in reversed(names):
        shop.blob(name).upload_from_string(b"")
    gcp_double.page_size = 2

    def listed(**options: Any) -> tuple[list[str], list[str]]:
        found = client.list_blobs("shop", **options)
        return [blob.name for blob in found], sorted(found.prefixes)

    assert listed() == (names, [])
    assert listed(delimiter="/") == (["a", "c", "\uff5e", "\U0001f600"], ["b/"])
    assert listed(prefix="b/", delimiter="/") == (["b/1", "b/2"], ["b/c/"])
    assert listed(start_offset="b/2", end_offset="c") == (["b/2", "b/c/3"], [])
    assert listed(start_offset="b/2", delimiter="/") == (["c", "\uff5e", "\U0001f600"], ["b/"])
    shop.blob("b/").upload_from_string(b"")
    assert listed(delimiter="/", include_trailing_delimiter=True) == (["a", "b/", *names[4:]], ["b/"])
    assert listed(max_results=3) == (["a", "b/", "b/1"], [])


def test_only_the_fields_that_are_asked_for_are_told(client: Any, shop: Any) -> None:
    shop.blob("key").upload_from_string(b"x")
    (found,) = client.list_blobs("shop", fields="items(name,size),nextPageToken")
    assert (found.name, found.size, found.generation) == ("key", 1, None)


# resumable uploads


def begun(double: GcpDouble, **query: str) -> str:
    more = "".join(f"&{name}={value}" for name, value in query.items())
    found = requests.post(
        f"{double.url}/upload/storage/v1/b/shop/o?uploadType=resumable{more}", json={"name": "key"}, timeout=10
    )
    assert found.status_code == 200
    return str(found.headers["Location"])


def test_a_resumable_upload_tells_how_far_it_came(shop: Any, gcp_double: GcpDouble) -> None:
    place, data = begun(gcp_double), bytes(600 * KIB)
    first = requests.put(place, data[: 256 * KIB], headers={"Content-Range": f"bytes 0-{256 * KIB - 1}/*"}, timeout=10)
    assert (first.status_code, first.headers["Range"]) == (308, f"bytes=0-{256 * KIB - 1}")
    asked = requests.put(place, headers={"Content-Range": "bytes */*"}, timeout=10)
    assert (asked.status_code, asked.headers["Range"]) == (308, f"bytes=0-{256 * KIB - 1}")
    assert shop.get_blob("key") is None
    rest = {"Content-Range": f"bytes {256 * KIB}-{600 * KIB - 1}/{600 * KIB}"}
    for _ in range(2):  # a finished session tells its object again
        assert requests.put(place, data[256 * KIB :], headers=rest, timeout=10).json()["size"] == str(600 * KIB)
    assert len(shop.blob("key").download_as_bytes()) == 600 * KIB


@pytest.mark.parametrize("size", [256 * KIB + 1, 100])
def test_a_chunk_that_is_no_multiple_of_256_kib_is_refused(shop: Any, gcp_double: GcpDouble, size: int) -> None:
    headers = {"Content-Range": f"bytes 0-{size - 1}/*"}
    assert requests.put(begun(gcp_double), bytes(size), headers=headers, timeout=10).status_code == 400


def test_a_chunk_that_leaves_a_gap_is_refused(shop: Any, gcp_double: GcpDouble) -> None:
    headers = {"Content-Range": "bytes 10-19/20"}
    assert requests.put(begun(gcp_double), bytes(10), headers=headers, timeout=10).status_code == 503


def test_a_resumable_upload_checks_its_condition_at_its_end(shop: Any, gcp_double: GcpDouble) -> None:
    place = begun(gcp_double, ifGenerationMatch="0")
    shop.blob("key").upload_from_string(b"theirs")
    assert requests.put(place, b"ours", timeout=10).status_code == 412
    assert shop.blob("key").download_as_bytes() == b"theirs"


def test_a_cancelled_session_is_gone(shop: Any, gcp_double: GcpDouble) -> None:
    place = begun(gcp_double)
    assert requests.delete(place, timeout=10).status_code == 499
    assert requests.put(place, b"x", timeout=10).status_code == 404


def test_googles_client_uploads_in_chunks(shop: Any, gcp_double: GcpDouble) -> None:
    data = bytes(range(256)) * 4 * 1200
    blob = shop.blob("key", chunk_size=256 * KIB)
    gcp_double.inject("status", status=503, match=lambda call: call.method == "PUT")
    blob.upload_from_string(data, if_generation_match=0)
    assert blob.md5_hash is not None
    assert shop.blob("key").download_as_bytes() == data


# content


def test_ranges_and_what_is_stored_compressed(shop: Any) -> None:
    blob = shop.blob("key")
    blob.content_encoding = "gzip"
    packed = gzip.compress(b"plain" * 100)
    blob.upload_from_string(packed, content_type="text/plain")
    assert blob.download_as_bytes() == b"plain" * 100
    assert blob.download_as_bytes(raw_download=True) == packed
    other = shop.blob("other")
    other.upload_from_string(b"0123456789")
    assert (other.download_as_bytes(start=2, end=4), other.download_as_bytes(start=-3)) == (b"234", b"789")
    with pytest.raises(api.RequestRangeNotSatisfiable):
        other.download_as_bytes(start=10)


def test_copies_rewrites_moves_and_compositions(client: Any, shop: Any, gcp_double: GcpDouble) -> None:
    source = shop.blob("source")
    source.metadata, source.cache_control = {"n": "v"}, "no-store"
    source.upload_from_string(b"x" * 100, content_type="text/x")
    gcp_double.rewrite_bytes = 40
    target, token, steps = shop.blob("target"), None, []
    while True:
        token, done, total = target.rewrite(source, token=token)
        steps.append((done, total))
        if token is None:
            break
    assert steps == [(40, 100), (80, 100), (100, 100)]
    assert (target.metadata, target.cache_control, target.content_type) == ({"n": "v"}, "no-store", "text/x")
    moved = shop.move_blob(target, "moved", if_generation_match=0)
    assert (moved.name, moved.metadata) == ("moved", {"n": "v"})
    assert shop.get_blob("target") is None
    with pytest.raises(api.PreconditionFailed):
        shop.move_blob(moved, "source", if_generation_match=0)
    whole = shop.blob("whole")
    whole.compose([source, moved])
    assert (whole.size, whole.md5_hash, whole.component_count) == (200, None, 2)
    assert shop.copy_blob(source, shop, "copied").download_as_bytes() == b"x" * 100
    for name, wrong in (("bucket", "other"), ("token", "another")):
        with pytest.raises((api.BadRequest, api.NotFound)):
            shop.blob("key").rewrite(source, token=wrong if name == "token" else "none")


# the XML API


def test_parts_make_an_object_under_the_rules_of_the_xml_api(shop: Any, gcp_double: GcpDouble) -> None:
    url = f"{gcp_double.url}/shop/a%20b/%C3%BC"
    begun = requests.post(f"{url}?uploads", headers={"x-goog-meta-n": "v", "Content-Type": "text/x"}, timeout=10).text
    upload = begun.partition("<UploadId>")[2].partition("<")[0]
    parts = {1: bytes(5 * MIB), 2: b"end"}
    etags = {}
    for number, data in parts.items():
        etags[number] = requests.put(f"{url}?partNumber={number}&uploadId={upload}", data, timeout=10).headers["ETag"]
    assert etags[2].strip('"') == hashlib.md5(b"end", usedforsecurity=False).hexdigest()

    def completed(*numbers: int, wrong: str = "", **headers: str) -> tuple[int, str]:
        listed = "".join(
            f"<Part><PartNumber>{number}</PartNumber><ETag>{wrong or etags[number]}</ETag></Part>" for number in numbers
        )
        body = f"<CompleteMultipartUpload>{listed}</CompleteMultipartUpload>"
        found = requests.post(f"{url}?uploadId={upload}", body, headers=headers, timeout=10)
        return found.status_code, found.text.partition("<Code>")[2].partition("<")[0]

    assert completed(1, 2, **{"x-goog-if-generation-match": "0"}) == (400, "NotImplemented")
    assert completed(2, 1) == (400, "InvalidPartOrder")
    assert completed(1, 2, wrong='"x"') == (400, "InvalidPart")
    assert requests.get(f"{gcp_double.url}/shop?uploads", timeout=10).text.count("<Upload>") == 1
    assert shop.get_blob("a b/ü") is None
    assert completed(1, 2) == (200, "")
    assert completed(1, 2) == (404, "NoSuchUpload")
    found = shop.get_blob("a b/ü")
    assert (found.size, found.md5_hash, found.metadata, found.content_type) == (5 * MIB + 3, None, {"n": "v"}, "text/x")


def test_a_part_that_is_too_small_is_refused(shop: Any, gcp_double: GcpDouble) -> None:
    url = f"{gcp_double.url}/shop/key"
    begun = requests.post(f"{url}?uploads", timeout=10).text
    upload = begun.partition("<UploadId>")[2].partition("<")[0]
    listed = ""
    for number in (1, 2):
        etag = requests.put(f"{url}?partNumber={number}&uploadId={upload}", b"x", timeout=10).headers["ETag"]
        listed += f"<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag></Part>"
    body = f"<CompleteMultipartUpload>{listed}</CompleteMultipartUpload>"
    assert "EntityTooSmall" in requests.post(f"{url}?uploadId={upload}", body, timeout=10).text


def test_obstore_works_with_it(shop: Any, gcp_double: GcpDouble) -> None:
    obstore = pytest.importorskip("obstore", reason="a client that shares no line with the SDK: nox -s servers has it")
    from obstore.store import GCSStore  # type: ignore[import-not-found,unused-ignore]  # the same

    credentials = key_of(gcp_double)
    credentials.refresh(Request())
    store: Any = GCSStore(
        "shop",
        config={"base_url": gcp_double.url},
        client_options={"allow_http": True},
        credential_provider=lambda: {"token": credentials.token, "expires_at": None},
    )
    data = bytes(range(256)) * 4096 * 6
    obstore.put(store, "a b/ü+%", b"hello", attributes={"Content-Type": "text/x", "meta": "v"})
    obstore.put(store, "long", data, chunk_size=5 * MIB)
    assert bytes(obstore.get(store, "a b/ü+%").bytes()) == b"hello"
    assert bytes(obstore.get(store, "long").bytes()) == data
    assert bytes(obstore.get_range(store, "long", start=3, end=9)) == data[3:9]
    assert [item["path"] for page in obstore.list(store) for item in page] == ["a b/ü+%", "long"]
    obstore.copy(store, "long", "copied")
    obstore.delete(store, "long")
    assert sorted(gcp_double.state.bucket("shop").objects) == ["a b/ü+%", "copied"]
    with pytest.raises(Exception, match="(?i)already"):
        obstore.put(store, "copied", b"x", mode="create", use_multipart=False)


# who asks


@pytest.fixture
def signed(shop: Any, gcp_double: GcpDouble) -> Any:
    """Return the same bucket of a client with the service account's key."""
    client = storage.Client(
        project=gcp_double.project, credentials=key_of(gcp_double), client_options={"api_endpoint": gcp_double.url}
    )
    return client.bucket("shop")


def test_a_signed_url_does_what_it_was_signed_for(shop: Any, signed: Any) -> None:
    shop.blob("a b/ü%+").upload_from_string(b"content")
    url = signed.blob("a b/ü%+").generate_signed_url(version="v4", expiration=60)
    put = signed.blob("new").generate_signed_url(version="v4", expiration=60, method="PUT", content_type="text/x")
    assert fetched(url) == (200, b"content")
    assert fetched(put, "PUT", b"new", **{"Content-Type": "text/x"})[0] == 200
    assert shop.blob("new").download_as_bytes() == b"new"
    for status, body in (
        fetched(put, "PUT", b"newer", **{"Content-Type": "text/y"}),
        fetched(url, "DELETE"),
        fetched(url.replace("/shop/", "/other/")),
        fetched(url.replace("Expires=60", "Expires=61")),
    ):
        assert (status, b"SignatureDoesNotMatch" in body) == (403, True)


def test_a_signed_url_expires(shop: Any, signed: Any, gcp_double: GcpDouble) -> None:
    url = signed.blob("key").generate_signed_url(version="v4", expiration=timedelta(minutes=1))
    gcp_double.clock.advance(61)
    status, body = fetched(url)
    assert (status, b"ExpiredToken" in body) == (400, True)


def test_a_wrong_token_is_refused_and_none_is_let_in(shop: Any, gcp_double: GcpDouble) -> None:
    for place in ("/storage/v1/b/shop", "/shop/key"):
        status, body = fetched(gcp_double.url + place, Authorization="Bearer wrong")
        assert status == 401
        assert b"authError" in body or b"AuthenticationRequired" in body
    assert fetched(f"{gcp_double.url}/storage/v1/b/shop")[0] == 200


def test_a_token_needs_the_accounts_key(gcp_double: GcpDouble) -> None:
    for form in ("", "grant_type=x&assertion=a.b.c", "assertion=" + ".".join(["e30"] * 3)):
        status, body = fetched(f"{gcp_double.url}/token", "POST", form.encode())
        assert (status, b"invalid_grant" in body) == (400, True)


# the double itself


def test_what_google_does_not_describe_is_a_violation(shop: Any, gcp_double: GcpDouble) -> None:
    base = f"{gcp_double.url}/storage/v1/b"
    bad = [
        ("GET", f"{base}/shop/o?maxResult=1", None),
        ("GET", f"{base}/shop/o?maxResults=many", None),
        ("GET", f"{base}/shop/o?projection=some", None),
        ("GET", f"{base}?prefix=x", None),
        ("POST", f"{base}?project=p", b'{"name": "made", "colour": "red"}'),
        ("POST", f"{base}?project=p", b'{"name": "made2", "versioning": {"enabled": "yes"}}'),
        ("POST", f"{base}?project=p", b'{"name": "made3", "timeCreated": "yesterday"}'),
        ("POST", f"{base}?project=p", b'{"name": "made4", "labels": [1]}'),
    ]
    for number, (method, url, body) in enumerate(bad, 1):
        fetched(url, method, body, **({"Content-Type": "application/json"} if body else {}))
        assert len(gcp_double.violations) >= number, url
    with pytest.raises(AssertionError, match="saw violations"):
        gcp_double.check()
    gcp_double.violations.clear()


def test_what_the_double_answers_is_checked_too(shop: Any, gcp_double: GcpDouble) -> None:
    shop.blob("key").upload_from_string(b"x")
    gcp_double.state.bucket("shop").objects["key"][0].fields["colour"] = "red"
    shop.blob("key").reload()
    assert any("colour" in violation for violation in gcp_double.violations)
    gcp_double.violations.clear()


def test_the_log_names_the_method(shop: Any, gcp_double: GcpDouble, signed: Any) -> None:
    shop.blob("a/b").upload_from_string(b"x")
    fetched(signed.blob("a/b").generate_signed_url(version="v4", expiration=60))
    assert [call.operation for call in gcp_double.calls][-2:] == ["storage.objects.insert", "xml"]
    assert "X-Goog-Signature=***" in gcp_double.calls[-1].query


def test_reset_deletes_everything(shop: Any, client: Any, gcp_double: GcpDouble) -> None:
    shop.blob("key").upload_from_string(b"x")
    gcp_double.page_size = 1
    gcp_double.reset()
    assert list(client.list_buckets()) == []
    assert gcp_double.page_size == 1000


def test_several_run_side_by_side() -> None:
    with GcpDouble() as one, GcpDouble() as other:
        assert one.url != other.url
        one.state.make_bucket("shop", one.project, "US", {})
        assert list(other.state.buckets) == []


def test_another_process_reaches_it_by_the_environment(shop: Any, gcp_double: GcpDouble) -> None:
    code = "from google.cloud import storage; print([b.name for b in storage.Client().list_buckets()])"
    run = subprocess.run(
        [sys.executable, "-c", code], env=gcp_double.environ, capture_output=True, text=True, check=True, timeout=120
    )
    assert run.stdout.strip() == "['shop']"


def test_what_is_not_in_the_double_says_so(shop: Any, gcp_double: GcpDouble) -> None:
    assert fetched(f"{gcp_double.url}/storage/v1/b/shop/o?matchGlob=*")[0] == 501
    assert fetched(f"{gcp_double.url}/storage/v1/b/shop/iam")[0] == 501


def test_a_missing_library_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['googleapiclient'] = None\n"
        "try:\n    import shiftable_gcp.double\n"
        "except Exception as exc:\n    print(type(exc).__name__, exc)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert run.stdout.startswith("ConfigError")
    assert 'pip install "shiftable-gcp[testing]"' in run.stdout

"""The double of Azure keeps Azure's rules, and is what any client of Blob Storage can be pointed at."""

from __future__ import annotations

import base64
import hashlib
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from azure.core import MatchConditions
from azure.core.exceptions import HttpResponseError
from azure.storage.blob import (
    AccountSasPermissions,
    BlobBlock,
    BlobServiceClient,
    ContentSettings,
    LinearRetry,
    ResourceTypes,
    generate_account_sas,
)
from werkzeug.datastructures import Headers

from shiftable.errors import ConfigError
from shiftable_azure._double_blob import _batch_parts
from shiftable_azure._double_wire import Asked, crc64
from shiftable_azure.double import AzureDouble

Client = Any


@pytest.fixture
def client(azure_double: AzureDouble) -> Iterator[Client]:
    """Return a plain client of the SDK: the double is tested without anything of ours."""
    once = LinearRetry(backoff=0, retry_total=0)
    with BlobServiceClient.from_connection_string(azure_double.connection_string, retry_policy=once) as made:
        yield made


@pytest.fixture
def container(client: Client) -> Client:
    return client.create_container("shop")


@pytest.fixture
def blob(container: Client) -> Client:
    container.get_blob_client("a b/ü%+").upload_blob(b"content")
    return container.get_blob_client("a b/ü%+")


def refused(act: Callable[..., object], *arguments: Any, **named: Any) -> str:
    with pytest.raises(HttpResponseError) as caught:
        act(*arguments, **named)
    code = getattr(caught.value.error_code, "value", caught.value.error_code)  # type: ignore[attr-defined]  # the SDK adds it
    return str(code)


def sent(request: urllib.request.Request) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310  the double's URL
            return answer.status, ""
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers.get("x-ms-error-code", "")


# containers


@pytest.mark.parametrize("name", ["ab", "Upper", "a--b", "-ab", "x" * 64, "under_score"])
def test_a_container_with_an_impossible_name_is_refused(client: Client, name: str) -> None:
    assert refused(client.create_container, name) == "InvalidResourceName"


def test_a_container_is_made_once_and_not_for_the_public(client: Client, container: Client) -> None:
    assert refused(client.create_container, "shop") == "ContainerAlreadyExists"
    assert refused(client.create_container, "public", public_access="blob") == "PublicAccessNotPermitted"


def test_a_container_is_deleted_with_all_that_it_holds(client: Client, blob: Client) -> None:
    client.delete_container("shop")
    assert refused(blob.get_blob_properties) == "ContainerNotFound"


def test_containers_are_listed_in_small_pages(client: Client, azure_double: AzureDouble) -> None:
    azure_double.service.page_size = 2
    for number in range(5):
        client.create_container(f"c-{number}")
    pages = [[found.name for found in page] for page in client.list_containers(name_starts_with="c-").by_page()]
    assert pages == [["c-0", "c-1"], ["c-2", "c-3"], ["c-4"]]


# hashes


def test_the_crc64_is_that_of_azure_storage() -> None:
    # The check value of CRC-64/NVME, whose polynomial Azure Storage has.
    assert int.from_bytes(crc64(b"123456789"), "little") == 0xAE8B14860A799888


@pytest.mark.parametrize(
    ("header", "right", "wrong", "code"),
    [
        ("Content-MD5", hashlib.md5(b"x", usedforsecurity=False).digest(), bytes(16), "Md5Mismatch"),
        ("x-ms-content-crc64", crc64(b"x"), bytes(8), "Crc64Mismatch"),
    ],
)
def test_content_that_is_not_what_its_hash_says_is_refused(
    container: Client, header: str, right: bytes, wrong: bytes, code: str
) -> None:
    blob = container.get_blob_client("key")
    blob.upload_blob(b"x", headers={header: base64.b64encode(right).decode()})
    blob.stage_block("1", b"x", headers={header: base64.b64encode(right).decode()})

    def put(**named: Any) -> None:
        blob.upload_blob(b"x", overwrite=True, **named)

    def stage(**named: Any) -> None:
        blob.stage_block("1", b"x", **named)

    for act in (put, stage):
        assert refused(act, headers={header: base64.b64encode(wrong).decode()}) == code
        assert refused(act, headers={header: "no base64!"}) in {"InvalidMd5", "InvalidHeaderValue"}


def test_both_hashes_at_once_are_refused(container: Client) -> None:
    both = {
        "Content-MD5": base64.b64encode(bytes(16)).decode(),
        "x-ms-content-crc64": base64.b64encode(bytes(8)).decode(),
    }
    assert refused(container.get_blob_client("key").upload_blob, b"x", headers=both) == "InvalidInput"


def test_the_md5_of_a_block_list_is_kept_and_not_compared(container: Client) -> None:
    blob = container.get_blob_client("key")
    blob.stage_block("1", b"x")
    blob.commit_block_list([BlobBlock("1")], content_settings=ContentSettings(content_md5=bytearray(16)))
    assert blob.get_blob_properties().content_settings.content_md5 == bytearray(16)


# conditions


def test_conditions_are_those_of_http(blob: Client) -> None:
    etag, modified = (blob.get_blob_properties()[name] for name in ("etag", "last_modified"))
    other: Any = {"etag": '"other"', "match_condition": MatchConditions.IfNotModified}
    assert refused(blob.upload_blob, b"y", overwrite=True, **other) == "ConditionNotMet"
    assert refused(blob.download_blob, **other) == "ConditionNotMet"
    assert refused(blob.delete_blob, **other) == "ConditionNotMet"
    assert refused(blob.upload_blob, b"y") == "BlobAlreadyExists"
    unchanged = {"etag": etag, "match_condition": MatchConditions.IfModified}
    with pytest.raises(HttpResponseError) as caught:
        blob.get_blob_properties(**unchanged)
    assert caught.value.status_code == 304
    assert refused(blob.upload_blob, b"y", overwrite=True, **unchanged) == "ConditionNotMet"
    with pytest.raises(HttpResponseError) as caught:
        blob.get_blob_properties(if_modified_since=modified)
    assert caught.value.status_code == 304
    assert refused(blob.get_blob_properties, if_unmodified_since=modified - timedelta(seconds=1)) == "ConditionNotMet"
    blob.upload_blob(b"y", overwrite=True, etag=etag, match_condition=MatchConditions.IfNotModified)
    assert blob.download_blob().readall() == b"y"


def test_a_write_over_a_missing_blob_in_a_version_fails(container: Client) -> None:
    missing: Any = {"etag": '"x"', "match_condition": MatchConditions.IfNotModified}
    assert (
        refused(container.get_blob_client("absent").upload_blob, b"x", overwrite=True, **missing) == "ConditionNotMet"
    )
    assert refused(container.get_blob_client("absent").delete_blob, **missing) == "BlobNotFound"


# ranges


@pytest.mark.parametrize(("offset", "length", "expected"), [(0, 3, b"con"), (3, None, b"tent"), (5, 100, b"nt")])
def test_ranges_are_answered(blob: Client, offset: int, length: int | None, expected: bytes) -> None:
    assert blob.download_blob(offset=offset, length=length).readall() == expected


def test_a_range_behind_the_end_is_refused(blob: Client) -> None:
    assert refused(blob.download_blob, offset=7) == "InvalidRange"


# blocks


def test_blocks_are_listed_committed_and_found_again(container: Client) -> None:
    blob = container.get_blob_client("key")
    for id_, data in (("1", b"a"), ("2", b"b"), ("3", b"c")):
        blob.stage_block(id_, data)
    assert [found.name for found in container.list_blobs()] == []
    (uncommitted,) = container.list_blobs(include=["uncommittedblobs"])
    assert (uncommitted.name, uncommitted.size) == ("key", 0)
    blob.commit_block_list([BlobBlock("3"), BlobBlock("1")])
    assert blob.download_blob().readall() == b"ca"
    committed, uncommitted = blob.get_block_list("all")
    assert ([(block.id, block.size) for block in committed], uncommitted) == ([("3", 1), ("1", 1)], [])
    blob.stage_block("4", b"d")
    blob.commit_block_list([BlobBlock("4"), BlobBlock("3")])
    assert blob.download_blob().readall() == b"dc"
    assert refused(blob.commit_block_list, [BlobBlock("9")]) == "InvalidBlockList"


def test_blocks_have_ids_of_one_length_and_are_not_empty(container: Client) -> None:
    blob = container.get_blob_client("key")
    blob.stage_block("one", b"a")
    assert refused(blob.stage_block, "three", b"a") == "InvalidBlobOrBlock"
    assert refused(blob.stage_block, "x" * 65, b"a") == "InvalidQueryParameterValue"
    assert refused(blob.stage_block, "two", b"") == "InvalidHeaderValue"
    blob.upload_blob(b"in one piece")
    blob.stage_block("three", b"a")


# what goes with a blob


@pytest.mark.parametrize(
    ("metadata", "code"),
    [({"a-b": "x"}, "InvalidMetadata"), ({"1a": "x"}, "InvalidMetadata"), ({"a": "x" * 9000}, "MetadataTooLarge")],
)
def test_metadata_that_azure_refuses_is_refused(container: Client, metadata: dict[str, str], code: str) -> None:
    assert refused(container.get_blob_client("key").upload_blob, b"x", metadata=metadata) == code


def test_runs_of_blanks_break_the_signature_as_they_do_at_azure(container: Client) -> None:
    assert refused(container.get_blob_client("key").upload_blob, b"x", metadata={"a": "x  y"}) == "AuthenticationFailed"


@pytest.mark.parametrize(
    ("tags", "code"),
    [({"é": "x"}, "InvalidTag"), ({"a": "?"}, "InvalidTag"), ({f"t{n}": "x" for n in range(11)}, "TagsTooLarge")],
)
def test_tags_that_azure_refuses_are_refused(blob: Client, tags: dict[str, str], code: str) -> None:
    assert refused(blob.set_blob_tags, tags) == code
    assert refused(blob.upload_blob, b"x", overwrite=True, tags=tags) == code


def test_an_unknown_tier_is_refused(blob: Client) -> None:
    assert refused(blob.upload_blob, b"x", overwrite=True, headers={"x-ms-access-tier": "Warm"}) == "InvalidHeaderValue"


# listings


def test_blobs_are_listed_in_the_order_of_utf16_in_small_pages(container: Client, azure_double: AzureDouble) -> None:
    azure_double.service.page_size = 3
    names = ["a", "a/b", "Z", "\uff5e", "\U0001f600", "é", "a-b"]
    for name in names:
        container.get_blob_client(name).upload_blob(b"")
    pages = [[found.name for found in page] for page in container.list_blobs().by_page()]
    assert [name for page in pages for name in page] == sorted(names, key=lambda name: name.encode("utf-16-be"))
    assert [len(page) for page in pages] == [3, 3, 1]
    assert [found.name for found in container.list_blobs(start_from="a-c")] == ["a/b", "é", "\U0001f600", "\uff5e"]
    assert {found.name for found in container.walk_blobs(delimiter="/", name_starts_with="a")} == {"a", "a-b", "a/"}


@pytest.mark.parametrize("size", [0, -1])
def test_a_page_has_at_least_one_entry(container: Client, size: int) -> None:
    listing = container.list_blobs(results_per_page=size).by_page()
    assert refused(next, listing) == "OutOfRangeQueryParameterValue"


# copies


def test_a_copy_needs_a_source_that_may_be_read(container: Client, blob: Client, azure_double: AzureDouble) -> None:
    target = container.get_blob_client("target")
    with pytest.raises(HttpResponseError) as caught:
        target.upload_blob_from_url(blob.url)
    headers: Any = caught.value.response.headers  # type: ignore[union-attr]  # there is one
    assert headers["x-ms-copy-source-error-code"] == "NoAuthenticationInformation"
    key = azure_double.config["account_key"].reveal()
    sas = generate_account_sas(
        azure_double.account,
        key,
        ResourceTypes(object=True),
        AccountSasPermissions(read=True),
        datetime.now(UTC) + timedelta(hours=1),
    )
    blob.upload_blob(b"copied", overwrite=True, metadata={"n": "v"}, content_settings=ContentSettings("text/x"))
    target.upload_blob_from_url(f"{blob.url}?{sas}")
    assert target.download_blob().readall() == b"copied"
    properties = target.get_blob_properties()
    assert (properties.content_settings.content_type, properties.metadata) == ("text/x", {})
    changed = {"source_etag": '"other"', "source_match_condition": MatchConditions.IfNotModified}
    assert (
        refused(target.upload_blob_from_url, f"{blob.url}?{sas}", overwrite=True, **changed) == "SourceConditionNotMet"
    )
    missing = container.get_blob_client("absent").url
    assert refused(target.upload_blob_from_url, f"{missing}?{sas}", overwrite=True) == "CannotVerifyCopySource"


# batches


def test_a_batch_has_256_subrequests_at_most(container: Client, azure_double: AzureDouble) -> None:
    names = [f"k{number:03d}" for number in range(257)]
    for name in names:
        azure_double.service.put_raw("shop", name, b"")
    assert refused(container.delete_blobs, *names) == "ExceedsMaxBatchRequestCount"
    answers = list(container.delete_blobs(*names[:255], "absent", raise_on_any_failure=False))
    assert [answer.status_code for answer in answers] == [202] * 255 + [404]
    assert [found.name for found in container.list_blobs()] == names[255:]


# what it does not have


def test_leases_and_snapshots_are_refused(blob: Client) -> None:
    assert refused(blob.acquire_lease) == "FeatureNotSupportedForAccount"
    assert refused(blob.create_snapshot) == "FeatureNotSupportedForAccount"


@pytest.mark.parametrize("kind", ["AppendBlob", "PageBlob"])
def test_other_kinds_of_blobs_are_refused(container: Client, kind: str) -> None:
    found = refused(container.get_blob_client("key").upload_blob, bytes(512), blob_type=kind)
    assert found in {"FeatureNotSupportedForAccount", "APINotImplemented"}  # the latter to comp=appendblock


def test_what_the_double_does_not_know_is_said_to_be_so(client: Client) -> None:
    assert refused(client.get_service_properties) == "APINotImplemented"


# who asks


def test_a_request_without_credentials_is_challenged(azure_double: AzureDouble) -> None:
    request = urllib.request.Request(f"{azure_double.url}/{azure_double.account}/shop/key")  # noqa: S310  the double's
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request, timeout=10)  # noqa: S310  the same
    with caught.value as answer:
        assert answer.code == 401
        assert answer.headers["WWW-Authenticate"].startswith(
            "Bearer authorization_uri=https://login.microsoftonline.com/"
        )
        assert b"<Code>NoAuthenticationInformation</Code>" in answer.read()


def test_a_request_that_is_dated_wrong_is_refused(blob: Client, azure_double: AzureDouble) -> None:
    azure_double.clock.advance(timedelta(minutes=16))
    assert refused(blob.upload_blob, b"x", overwrite=True) == "AuthenticationFailed"


def test_another_account_is_not_here(azure_double: AzureDouble) -> None:
    request = urllib.request.Request(f"{azure_double.url}/somebody/shop/key")  # noqa: S310  the double's
    assert sent(request) == (400, "InvalidUri")


def test_a_signature_covers_headers_and_path(azure_double: AzureDouble, blob: Client) -> None:
    seen: list[Any] = []

    def note(request: Any, _: object) -> list[str]:
        seen.append(request)
        return []

    azure_double.validators.append(note)
    try:
        blob.upload_blob(b"signed", overwrite=True, metadata={"b_c": "1", "bb": "2", "b": "3"})
    finally:
        azure_double.validators.pop()
    request = seen[-1]
    headers = dict(request.headers.items())

    def again(target: str, **changed: str) -> tuple[int, str]:
        url = f"{azure_double.url}{target}"
        return sent(urllib.request.Request(url, b"signed", {**headers, **changed}, method="PUT"))  # noqa: S310  the double's

    assert again(request.target) == (201, "")
    assert again(request.target + "x") == (403, "AuthenticationFailed")
    assert again(request.target, **{"x-ms-meta-bb": "3"}) == (403, "AuthenticationFailed")
    assert again(request.target, **{"Content-Type": "text/evil"}) == (403, "AuthenticationFailed")


def test_the_double_starts_once_and_is_empty_after_a_reset(azure_double: AzureDouble, blob: Client) -> None:
    with pytest.raises(ConfigError, match="runs already"):
        azure_double.start()
    azure_double.reset()
    assert azure_double.service.containers == {}
    assert azure_double.calls == ()
    assert azure_double.environ["AZURE_STORAGE_CONNECTION_STRING"] == azure_double.connection_string


def test_the_log_names_operations_and_no_signatures(azure_double: AzureDouble, blob: Client) -> None:
    blob.download_blob().readall()
    assert [call.operation for call in azure_double.calls] == ["CreateContainer", "PutBlob", "GetBlob"]
    key = azure_double.config["account_key"].reveal()
    sas = generate_account_sas(
        azure_double.account, key, ResourceTypes(object=True), AccountSasPermissions(read=True),
        datetime.now(UTC) + timedelta(hours=1),
    )  # fmt: skip
    request = urllib.request.Request(f"{blob.url}?{sas}")  # noqa: S310  the double's
    assert sent(request) == (200, "")
    assert "sig=%2A%2A%2A" in azure_double.calls[-1].query or "sig=***" in azure_double.calls[-1].query


def test_copy_blob_copies_within_the_account(container: Client, blob: Client) -> None:
    blob.upload_blob(b"copied", overwrite=True, metadata={"n": "v"}, content_settings=ContentSettings("text/x"))
    target = container.get_blob_client("target")
    assert target.start_copy_from_url(blob.url)["copy_status"] == "success"
    properties = target.get_blob_properties()
    assert (properties.content_settings.content_type, properties.metadata) == ("text/x", {"n": "v"})
    assert target.download_blob().readall() == b"copied"


def test_obstore_works_with_it(container: Client, azure_double: AzureDouble) -> None:
    obstore = pytest.importorskip("obstore", reason="a client that shares no line with the SDK: nox -s servers has it")
    from obstore.store import AzureStore  # type: ignore[import-not-found,unused-ignore]  # the same

    config = azure_double.config
    store: Any = AzureStore(
        "shop",
        account_name=config["storage_account"],
        account_key=config["account_key"].reveal(),
        endpoint=config["endpoint"],
        client_options={"allow_http": True},
        retry_config={"max_retries": 0},
    )
    data = bytes(range(256)) * 50_000
    obstore.put(store, "a b/ü+%", b"hello", attributes={"Content-Type": "text/x", "meta": "v"})
    obstore.put(store, "long", data)
    blob = azure_double.service.containers["shop"].blobs["a b/ü+%"]
    assert (blob.content, blob.headers["Content-Type"], blob.metadata) == (b"hello", "text/x", {"meta": "v"})
    assert len(azure_double.service.containers["shop"].blobs["long"].blocks) > 1
    assert bytes(obstore.get(store, "long").bytes()) == data
    assert bytes(obstore.get_range(store, "long", start=3, end=9)) == data[3:9]
    assert [item["path"] for page in obstore.list(store) for item in page] == ["a b/ü+%", "long"]
    obstore.copy(store, "long", "copied")
    with pytest.raises(Exception, match="already exists"):
        obstore.put(store, "copied", b"x", mode="create")
    url = obstore.sign(store, "GET", "long", timedelta(hours=1))
    assert sent(urllib.request.Request(url)) == (200, "")  # noqa: S310  the double's
    assert sent(urllib.request.Request(url.replace("long", "copied"))) == (403, "AuthenticationFailed")  # noqa: S310  the same
    obstore.delete(store, ["long", "copied"])
    assert set(azure_double.service.containers["shop"].blobs) == {"a b/ü+%"}


@pytest.mark.parametrize("boundary", ["batch_1", '"batch_1"', "batch_a/b+c=", "a'(b):,?"])
def test_a_batch_is_read_whatever_its_boundary_is(boundary: str) -> None:
    bare = boundary.strip('"')
    body = f"--{bare}\r\nContent-ID: 0\r\n\r\nDELETE /shop/a%20b HTTP/1.1\r\nx-ms-date: now\r\n\r\n--{bare}--\r\n"
    headers = Headers({"Content-Type": f"multipart/mixed; boundary={boundary}"})
    (part,) = _batch_parts(
        Asked.parse("POST", "account.localhost", "/shop?comp=batch", headers, body.encode(), "account")
    )
    assert part == ("0", ("DELETE", "/shop/a%20b", Headers({"x-ms-date": "now"})))


def test_a_header_that_azure_does_not_know_is_a_violation(container: Client, azure_double: AzureDouble) -> None:
    container.get_blob_client("key").upload_blob(b"x", headers={"x-ms-blob-content-tpye": "text/plain"})
    with pytest.raises(AssertionError, match="Azure knows no x-ms-blob-content-tpye"):
        azure_double.check()
    azure_double.violations.clear()

"""The rules of blob storage: subclass ``BlobConformance``, override ``driver`` and ``oracle``, run pytest."""

from __future__ import annotations

import contextlib
import functools
import gzip
import hashlib
import itertools
import pickle
import random
import threading
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol, cast

import attrs
import pytest

from shiftable.blob import (
    BlobStore,
    Bucket,
    BucketSpec,
    CommonPrefix,
    CorsRule,
    Headers,
    LifecycleRule,
    Lock,
    ObjectSummary,
    Retention,
    Token,
)
from shiftable.blob.driver import (
    BlobDriver,
    BlobFeatures,
    PendingUpload,
    PutOptions,
    RetentionMode,
    SignedURL,
    Upload,
)
from shiftable.errors import (
    AlreadyExists,
    Conflict,
    InvalidArgument,
    NotFound,
    NotModified,
    OperationError,
    ParentNotFound,
    PermissionDenied,
    PreconditionFailed,
    Unsupported,
)
from shiftable.memory.blob import MemoryBlobDriver
from shiftable.paging import Page, paged
from shiftable.testing._checksums import CHECKSUMS
from shiftable.testing.conformance import Conformance
from shiftable.testing.conformance._blob_machine import blob_machine
from shiftable.testing.wrap import Recorded

__all__ = ["AWKWARD_KEYS", "ORDINARY_KEYS", "BlobConformance", "BlobOracle", "blob_machine"]

MIB = 1024 * 1024

ORDINARY_KEYS = (
    "a//b", "folder/", "folder/child", "deep/er/and/deep/er", "/leading", "//", "/", "x/",
    "q?x=1", "h#x", "p%", "p%2F", "p%41", "p+q", "p q", " before", "after ", "a&b=c", "a=b;c", "'", '"', "it's", "`x`",
    "back\\slash", "C:\\x", "a:b", "a*b", "<>|", "~", "$HOME", "${x}", "{x}", "[x]", "(x)", "!", "@", ",", "^", "-x",
    "--", ".hidden", "...", "a..b", "Case", "case", "CON", "nul.txt", "x.tar.gz", "\N{ROCKET}.txt",
    "\U0001F468\u200D\U0001F469",
    "שלום/עולם", "مرحبا", "日本語", "ﬁ", "é", "e\u0301", "Å", "A\u030a", "\u212b", "ß", "İ", "\u00a0",
    "\u202eabc", "\ufffd", "\uff5e", "\U0001d11e", "x" * 300, "é" * 512, "x" * 1024,
)  # fmt: skip
"""Keys that every store with ``features.any_key`` holds, byte for byte."""

AWKWARD_KEYS = (
    ".", "..", "./x", "../x", "a/./b", "a/../b", "a/..", "../../x", "/../x",
    "tab\tx", "line\nx", "line\rx", "\x00", "nul\x00x", "\x01", "\x1f", "\x7f", "\x85", "\u2028", "\ufeff",
    "\ufffe", "\uffff",
)  # fmt: skip
"""Keys that a store may refuse, and must not change."""

METADATA = (
    {"with-dash": "x"}, {"with_underscore": "x"}, {"Upper": "x"}, {"dotted.name": "x"}, {"1st": "x"}, {"class": "x"},
    {"n": ""}, {"n": " x"}, {"n": "x "}, {"n": "a  b"}, {"n": "a,b"}, {"n": "a;b=c"}, {"n": '"q"'}, {"n": "50%"},
    {"n": "é"}, {"n": "日本語"}, {"n": "\N{ROCKET}"}, {"é": "x"}, {"n": "=?UTF-8?B?w6k=?="}, {"with space": "x"},
    {"n": "a\nb"}, {"n": "a\r\nx-evil: 1"}, {"n\n": "x"}, {"": "x"}, {"n": "x", "N": "y"}, {"n": "x" * 1800},
)  # fmt: skip

ODD_HEADERS = (
    Headers(content_type="no slash"), Headers(content_type="text/plain; charset=é"), Headers(cache_control="a  b"),
    Headers(content_disposition='attachment; filename="naïve.txt"'), Headers(content_disposition="日本語"),
    Headers(content_language=" x"), Headers(content_language="x "), Headers(content_encoding="x-own, gzip"),
)  # fmt: skip
"""Headers that a store may refuse, and must not change."""

ODD_TAGS = (
    {"empty": ""}, {"Case": "A", "case": "a"}, {"+-=._:/": "@"}, {"größe": "日本"}, {"amp": "a&b=c%20"}, {"q": '"'},
    {"n" * 129: "x"}, {"n": "x" * 257}, {"n": " x "}, {"": "x"}, {"\N{ROCKET}": "x"},
)  # fmt: skip
"""Tags that a store may refuse, and must not change."""

HEADERS = Headers(
    content_type="text/plain; charset=utf-8",
    cache_control="max-age=60, public",
    content_disposition='attachment; filename="a b.txt"',
    content_encoding="gzip",
    content_language="en-GB",
)


class BlobOracle(Protocol):
    """A second way to the same store, which does not use the code under test: a raw client, the files, the double."""

    def put_raw(self, bucket: str, key: str, data: bytes) -> None:
        """Write an object."""

    def get_raw(self, bucket: str, key: str) -> bytes | None:
        """Return an object's content, ``None`` if there is none."""

    def keys(self, bucket: str) -> list[str]:
        """Return all keys, in any order."""


MakeBucket = Callable[..., Bucket]


class BlobConformance(Conformance):
    """What holds for every blob driver.

    Attributes:
        many_keys: of the tests that page; slow doubles may lower it, but not below what two pages hold.
        multipart_size: of the object that goes in parts.
        threads: that use one bucket at once.
        racers: that write under one condition at once.
    """

    many_keys = 2500
    multipart_size = 20 * MIB
    threads = 32
    racers = 16

    # to be overridden

    @pytest.fixture
    def driver(self) -> BlobDriver:
        """Return the driver under test."""
        raise TypeError("override the fixture `driver`")

    @pytest.fixture
    def oracle(self) -> BlobOracle:
        """Return a second way to the same store."""
        raise TypeError("override the fixture `oracle`")

    def fetch(self, url: str, *, method: str = "GET", data: bytes | None = None, content_type: str = "") -> bytes:
        """Use a presigned URL. Override it where the double's certificate needs trust."""
        headers = {"Content-Type": content_type} if content_type else {}
        request = urllib.request.Request(url, data=data, method=method, headers=headers)  # noqa: S310  the double's URL
        with urllib.request.urlopen(request, timeout=30) as response:  # noqa: S310  the same
            return bytes(response.read())

    def exchange(
        self, url: str, *, method: str = "GET", data: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, Mapping[str, str], bytes]:
        """Use a presigned URL; return status, headers by their names in lower case, and content. Override it likewise.

        Without headers they are those of the URL.
        """
        told = dict(headers if headers is not None else url.headers if isinstance(url, SignedURL) else {})
        if data is not None:  # else urllib would say that it is a form
            told.setdefault("Content-Type", "application/octet-stream")
        request = urllib.request.Request(url, data=data, method=method, headers=told)  # noqa: S310  the double's
        try:
            with urllib.request.urlopen(request, timeout=30) as response:  # noqa: S310  the same
                return response.status, _lowered(response.headers.items()), response.read()
        except urllib.error.HTTPError as exc:
            with exc:
                return exc.code, _lowered(exc.headers.items()), exc.read()

    def advance(self, by: timedelta) -> None:
        """Let time pass at the provider. Override it; what needs it is skipped where time only passes by itself."""
        pytest.skip(f"nobody here waits {by} for the provider")

    def make_lockable(self, store: BlobStore) -> Bucket:
        """Make a bucket with object lock. Override it where that takes more than a declaration."""
        versioning = store.features.lock_needs_versioning
        return store.create(BucketSpec(name=_name(), versioning=versioning, object_lock=True))

    # made of them

    @pytest.fixture
    def lockable(self, store: BlobStore) -> Iterator[Bucket]:
        """Return a bucket with object lock; what is locked by the end of the test is not cleaned up."""
        self._needs(store.features, "object_lock")
        made = self.make_lockable(store)
        yield made
        with contextlib.suppress(OperationError):
            for row in list(made.versions()) if store.features.versioning else ():
                with contextlib.suppress(OperationError):
                    made.delete(row.key, version=row.version)
            made.delete_many(item.key for item in made.list())
            store.delete(made.name)

    @pytest.fixture
    def store(self, driver: BlobDriver) -> BlobStore:
        return BlobStore(driver)

    @pytest.fixture
    def features(self, driver: BlobDriver) -> BlobFeatures:
        return driver.features

    @pytest.fixture
    def make_bucket(self, store: BlobStore) -> Iterator[MakeBucket]:
        made: list[Bucket] = []

        def make(*, versioning: bool = False) -> Bucket:
            bucket = store.create(BucketSpec(name=_name(), versioning=versioning))
            made.append(bucket)
            return bucket

        yield make
        for bucket in made:
            if store.exists(bucket.name):
                _emptied(bucket, versioning=store.describe(bucket.name).versioning)
                store.delete(bucket.name)

    @pytest.fixture
    def bucket(self, make_bucket: MakeBucket) -> Bucket:
        return make_bucket()

    @pytest.fixture
    def missing(self, store: BlobStore) -> Bucket:
        """Return the handle of a bucket that does not exist."""
        return store.bucket(_name())

    @pytest.fixture
    def recorded(self, driver: BlobDriver) -> Recorded[BlobDriver]:
        return Recorded(driver)

    @pytest.fixture
    def watched(self, recorded: Recorded[BlobDriver], bucket: Bucket) -> Bucket:
        """Return the same bucket through a driver that records its calls."""
        return Bucket(recorded.driver, bucket.name)

    # buckets

    def test_a_bucket_is_created_found_listed_and_deleted(self, store: BlobStore, make_bucket: MakeBucket) -> None:
        names = {make_bucket().name for _ in range(3)}
        name = next(iter(names))
        assert store.get(name).name == name
        assert store.exists(name)
        assert names <= {bucket.name for bucket in store.list()}
        assert len(list(store.list(limit=2))) == 2
        store.delete(name)
        assert not store.exists(name)
        assert name not in {bucket.name for bucket in store.list()}

    def test_a_bucket_that_exists_is_not_created_again(self, store: BlobStore, bucket: Bucket) -> None:
        bucket.put("kept", b"x")
        with pytest.raises(AlreadyExists):
            store.create(BucketSpec(name=bucket.name))
        assert bucket.get("kept") == b"x"

    def test_a_missing_bucket_is_not_found_by_the_admin_verbs(self, store: BlobStore, missing: Bucket) -> None:
        for verb in (store.get, store.describe, store.delete):
            with pytest.raises(NotFound) as caught:
                verb(missing.name)
            assert type(caught.value) is NotFound

    def test_a_bucket_that_holds_an_object_is_not_deleted(self, store: BlobStore, bucket: Bucket) -> None:
        bucket.put("kept", b"x")
        with pytest.raises(Conflict):
            store.delete(bucket.name)
        assert bucket.get("kept") == b"x"

    def test_an_impossible_bucket_name_is_refused_before_anything_is_sent(self, recorded: Recorded[BlobDriver]) -> None:
        store = BlobStore(recorded.driver)
        for verb in (store.bucket, store.get, store.delete, lambda name: store.create(BucketSpec(name=name))):
            with pytest.raises(InvalidArgument):
                verb("")
        assert recorded.calls == []

    def test_a_declared_bucket_is_made_once_and_then_as_declared(
        self, store: BlobStore, features: BlobFeatures, make_bucket: MakeBucket
    ) -> None:
        bucket = make_bucket()
        spec = BucketSpec(name=bucket.name)
        store.delete(bucket.name)
        (change,) = store.diff(spec)
        assert (change.action, change.name) == ("create", bucket.name)
        store.apply(change)
        store.apply(change)
        assert store.describe(bucket.name) == spec
        assert store.diff(spec) == ()
        if features.versioning:
            newer = attrs.evolve(spec, versioning=True)
            (change,) = store.diff(newer)
            assert [field.name for field in change.fields] == ["versioning"]
            store.apply(change)
            assert store.describe(bucket.name) == newer
            assert store.diff(newer) == ()

    def test_a_lifecycle_is_declared_told_changed_and_taken_away(
        self, store: BlobStore, features: BlobFeatures, make_bucket: MakeBucket
    ) -> None:
        self._needs(features, "lifecycle")
        bucket = make_bucket()
        older, uploads = features.lifecycle_older, features.lifecycle_uploads
        everything = LifecycleRule(
            prefix="",
            expire_days=400,
            expire_older_days=30 if older else None,
            abort_uploads_days=7 if uploads else None,
        )
        logs = LifecycleRule(prefix="logs/", expire_days=90)
        odd = LifecycleRule(
            prefix="é &<x>/", expire_days=None if uploads else 1, abort_uploads_days=1 if uploads else None
        )
        only_older = (LifecycleRule(expire_older_days=1),) if older else (LifecycleRule(expire_days=1),)
        for rules in ((everything,), (logs, odd, everything), (logs,), only_older, ()):
            spec = BucketSpec(name=bucket.name, lifecycle=rules)
            (change,) = store.diff(spec)
            assert [field.name for field in change.fields] == ["lifecycle"]
            store.apply(change)
            assert store.describe(bucket.name) == spec
            assert store.diff(spec) == ()
        store.delete(bucket.name)
        spec = BucketSpec(name=bucket.name, lifecycle=(logs, everything))
        store.apply(*store.diff(spec))
        assert store.describe(bucket.name) == spec

    def test_what_of_a_lifecycle_the_features_deny_is_refused(self, store: BlobStore, features: BlobFeatures) -> None:
        for rule, has, what in (
            (LifecycleRule(expire_older_days=1), features.lifecycle_older, "older versions"),
            (LifecycleRule(abort_uploads_days=1), features.lifecycle_uploads, "uploads"),
        ):
            spec = BucketSpec(name=_name(), lifecycle=(rule,))
            if features.lifecycle and not has:
                assert store.missing_features(spec) == (f"lifecycle rules for {what}",)
                with pytest.raises(Unsupported):
                    store.create(spec)
                assert not store.exists(spec.name)
            else:
                assert bool(store.missing_features(spec)) is not features.lifecycle

    def test_cors_rules_are_declared_told_changed_and_taken_away(
        self, store: BlobStore, driver: BlobDriver, features: BlobFeatures, make_bucket: MakeBucket
    ) -> None:
        self._needs(features, "cors")
        bucket = make_bucket()
        uploads = CorsRule(
            origins=("https://shop.example", "http://127.0.0.1:3000"),
            methods=("PUT", "POST"),
            headers=("Content-Type", "x-amz-meta-a"),
            exposed=("ETag",),
            max_age=timedelta(hours=1),
        )
        plain = CorsRule(origins=("*",), methods=("GET", "HEAD"))
        sooner = attrs.evolve(uploads, max_age=timedelta(seconds=1), methods=("DELETE",), origins=("app://[::1]:81",))
        alike = attrs.evolve(uploads, headers=(), exposed=("etag", "x-a"))
        for rules in ((uploads,), (plain, uploads), (uploads, plain), (sooner,), (alike, plain), ()):
            spec = BucketSpec(name=bucket.name, cors=rules)
            (change,) = store.diff(spec)
            assert [field.name for field in change.fields] == ["cors"]
            store.apply(change)
            self._assert_cors(rules, store.describe(bucket.name).cors, apart=features.cors_apart)
            assert store.describe(bucket.name) == change.after == driver.as_kept(spec)
            assert store.diff(spec) == ()
        spec = BucketSpec(name=bucket.name, cors=(plain, uploads))
        store.apply(*store.diff(spec))
        if features.lifecycle:  # neither takes the other away
            spec = attrs.evolve(spec, lifecycle=(LifecycleRule(expire_days=1),))
            store.apply(*store.diff(spec))
            assert store.describe(bucket.name) == driver.as_kept(spec)

    def test_cors_rules_that_a_new_bucket_is_made_with_are_there(
        self, store: BlobStore, driver: BlobDriver, features: BlobFeatures, make_bucket: MakeBucket
    ) -> None:
        self._needs(features, "cors")
        rules = (CorsRule(origins=("*",), methods=("GET",), exposed=("etag",)),)
        spec = BucketSpec(name=make_bucket().name, cors=rules)
        store.delete(spec.name)
        store.create(spec)
        self._assert_cors(rules, store.describe(spec.name).cors, apart=features.cors_apart)
        assert store.describe(spec.name) == driver.as_kept(spec)
        assert store.diff(spec) == ()

    def _assert_cors(self, rules: tuple[CorsRule, ...], found: tuple[CorsRule, ...], *, apart: bool) -> None:
        """Check that no rule is lost, and that no more is said than one list of headers makes necessary."""
        if apart:
            assert found == rules
            return
        for rule, other in zip(rules, found, strict=True):
            both = {*rule.headers, *rule.exposed}
            assert attrs.evolve(other, headers=rule.headers, exposed=rule.exposed) == rule
            assert set(other.headers) == set(other.exposed) == both

    def test_a_page_may_use_a_signed_url_as_the_rules_say(
        self, store: BlobStore, features: BlobFeatures, bucket: Bucket
    ) -> None:
        self._needs(features, "cors")
        self._needs(features, "sign")
        shop, other = "https://shop.example", "https://other.example"
        uploads = CorsRule(origins=(shop,), methods=("PUT",), headers=("content-type",), exposed=("etag",))
        rules = (attrs.evolve(uploads, max_age=timedelta(minutes=5)), CorsRule(origins=("*",), methods=("GET",)))
        store.apply(*store.diff(BucketSpec(name=bucket.name, cors=rules)))
        url = bucket.sign("a", method="PUT", content_type="text/plain")

        def asked(origin: str, method: str, headers: str) -> tuple[int, Mapping[str, str]]:
            named = {"Access-Control-Request-Method": method, "Access-Control-Request-Headers": headers}
            status, told, _ = self.exchange(url, method="OPTIONS", headers={"Origin": origin, **named})
            return status, told

        status, told = asked(shop, "PUT", "content-type")
        assert status in range(200, 300)
        assert told["access-control-allow-origin"] == shop
        assert "PUT" in told["access-control-allow-methods"]
        assert "content-type" in told["access-control-allow-headers"].lower()
        assert told["access-control-max-age"] == "300"
        assert asked(other, "GET", "")[1]["access-control-allow-origin"] in {"*", other}
        for origin, method, headers in (
            (other, "PUT", "content-type"),
            (shop, "DELETE", "content-type"),
            (shop, "PUT", "content-type,x-other"),
        ):
            assert "access-control-allow-origin" not in asked(origin, method, headers)[1]

        sent = {"Origin": shop, "Content-Type": "text/plain"}
        status, told, _ = self.exchange(url, method="PUT", data=b"x", headers=sent)
        assert (status, told["access-control-allow-origin"]) == (200, shop)
        assert "etag" in told["access-control-expose-headers"].lower()
        status, told, _ = self.exchange(url, method="PUT", data=b"x", headers=sent | {"Origin": other})
        assert (status, told.get("access-control-allow-origin")) == (200, None)
        status, told, data = self.exchange(bucket.sign("a"), headers={"Origin": other})
        assert (status, data, told["access-control-allow-origin"] in {"*", other}) == (200, b"x", True)

    def test_what_of_cors_the_features_deny_is_refused(self, store: BlobStore, features: BlobFeatures) -> None:
        rule = CorsRule(origins=("https://shop.example",), methods=("PUT",), exposed=("etag",))
        for cors, has in ((rule, features.cors), (attrs.evolve(rule, headers=("*",)), features.cors_any_header)):
            spec = BucketSpec(name=_name(), cors=(cors,))
            missing = store.missing_features(spec)
            assert bool(missing) is not has
            (change,) = store.diff(spec)
            if missing:
                assert all("CORS" in why for why in missing)
                with pytest.raises(Unsupported):
                    store.apply(change)
                assert not store.exists(spec.name)
        assert features.cors or not (features.cors_any_header or features.cors_apart)

    def test_cors_rules_for_any_header_are_kept(self, store: BlobStore, features: BlobFeatures, bucket: Bucket) -> None:
        self._needs(features, "cors_any_header")
        rule = CorsRule(origins=("*",), methods=("PUT",), headers=("*",), exposed=("etag",))
        spec = BucketSpec(name=bucket.name, cors=(rule,))
        store.apply(*store.diff(spec))
        assert store.describe(bucket.name) == spec

    def test_a_change_of_a_bucket_that_changed_meanwhile_is_refused(
        self, store: BlobStore, features: BlobFeatures, bucket: Bucket
    ) -> None:
        self._needs(features, "lifecycle")
        theirs, ours = (BucketSpec(name=bucket.name, lifecycle=(LifecycleRule(expire_days=days),)) for days in (1, 2))
        (change,) = store.diff(ours)
        store.apply(*store.diff(theirs))
        with pytest.raises(Conflict):
            store.apply(change)
        assert store.describe(bucket.name) == theirs

    def test_a_bucket_is_made_closed_to_the_public(self, store: BlobStore, bucket: Bucket) -> None:
        assert not store.describe(bucket.name).public
        assert store.missing_features(BucketSpec(name=bucket.name, public=True)) == ("public buckets",)
        with pytest.raises(Unsupported):
            store.create(BucketSpec(name=_name(), public=True))

    # writing and reading

    @pytest.mark.parametrize("size", [0, 1, 4096, MIB + 1])
    def test_what_is_written_is_read_and_stored(self, bucket: Bucket, oracle: BlobOracle, size: int) -> None:
        data = _content(size)
        info = bucket.put("key", data)
        assert bucket.get("key") == data
        assert oracle.get_raw(bucket.name, "key") == data
        assert (info.key, info.size) == ("key", size)

    def test_a_write_replaces_all_of_the_object(self, bucket: Bucket, features: BlobFeatures) -> None:
        old = bucket.put("key", b"a longer first content", metadata={"old": "1"} if features.metadata else None)
        new = bucket.put("key", b"short")
        assert bucket.get("key") == b"short"
        assert bucket.stat("key").metadata == {}
        assert new.token != old.token

    def test_what_others_wrote_is_read(self, bucket: Bucket, oracle: BlobOracle) -> None:
        oracle.put_raw(bucket.name, "theirs/ö b", b"from elsewhere")
        assert bucket.get("theirs/ö b") == b"from elsewhere"
        assert [item.key for item in bucket.list()] == ["theirs/ö b"]

    def test_all_ways_tell_the_same_of_an_object(self, bucket: Bucket, features: BlobFeatures) -> None:
        data = _content(100_000)
        put = bucket.put("key", data)
        stat = bucket.stat("key")
        with bucket.stream("key") as stream:
            got = stream.info
        (listed,) = bucket.list()
        assert stat == got
        for other in (put, listed):
            assert (other.key, other.size, other.token) == (stat.key, len(data), stat.token)
        for each in (put, stat, listed):
            assert each.modified.utcoffset() == timedelta()
        assert stat.modified.tzinfo is UTC or stat.modified == stat.modified.astimezone(UTC)
        digest = hashlib.md5(data, usedforsecurity=False).digest()
        assert {each.md5 for each in (put, stat, listed)} <= {digest, None}
        assert not features.md5_in_listing or listed.md5 == digest

    def test_checksums_are_those_of_the_whole_content(self, bucket: Bucket, features: BlobFeatures) -> None:
        assert set(features.checksums) <= CHECKSUMS.keys()
        data, long = _content(100_000), self._parts_of(features, 2)
        bucket.put("short", data)
        bucket.put("empty", b"")
        bucket.put("long", iter([long]))
        bucket.copy("long", "copy")
        contents = {"short": data, "empty": b"", "long": long, "copy": long}
        expected = _digests(contents, features.checksums)
        for item in bucket.list():
            told = bucket.stat(item.key).checksums
            with bucket.stream(item.key) as stream:
                also = (stream.info.checksums, item.checksums)
            assert set(features.checksums) <= told.keys(), item.key
            for some in (told, *also):
                expected |= _digests(contents, set(some) - set(features.checksums))
                assert some == {name: expected[item.key, name] for name in some}, item.key

    def test_a_part_of_the_content_has_no_checksum_of_its_own(self, bucket: Bucket) -> None:
        bucket.put("key", b"content")
        whole = bucket.stat("key").checksums
        with bucket.stream("key", start=1, stop=3) as stream:
            assert stream.info.checksums in (whole, {})

    def test_ranges_are_bytes_from_start_to_stop(self, bucket: Bucket) -> None:
        data = bytes(range(100))
        bucket.put("key", data)
        bucket.put("empty", b"")
        for start, stop in (
            (0, None), (10, 20), (0, 1), (99, None), (99, 100), (0, 100), (50, 1000),
            (100, None), (100, 101), (150, 200), (0, 0), (7, 7), (100, 100),
        ):  # fmt: skip
            assert bucket.get("key", start=start, stop=stop) == data[start:stop], (start, stop)
            assert bucket.get("empty", start=start, stop=stop) == b"", (start, stop)
            with bucket.stream("key", start=start, stop=stop) as stream:
                assert stream.info.size == 100, (start, stop)

    def test_an_impossible_range_is_refused_before_anything_is_sent(
        self, watched: Bucket, recorded: Recorded[BlobDriver]
    ) -> None:
        for start, stop in ((-1, None), (5, 4), (0, -1)):
            with pytest.raises(InvalidArgument):
                watched.get("key", start=start, stop=stop)
        assert recorded.calls == []

    def test_headers_and_metadata_come_back(self, bucket: Bucket, features: BlobFeatures) -> None:
        self._needs(features, "headers", "metadata")
        # Really compressed: a client that unpacks it on the way would not return what was written.
        data = gzip.compress(b"plain text" * 100)
        metadata = {"author": "ada", "build": "2026 11"}
        bucket.put("whole", data, headers=HEADERS, metadata=metadata)
        with bucket.open("parts", "wb", headers=HEADERS, metadata=metadata) as file:
            file.write(data)
        long = self._parts_of(features, 2)
        bucket.put("long", iter([long]), headers=HEADERS, metadata=metadata)
        for key, content in (("whole", data), ("parts", data), ("long", long)):
            info = bucket.stat(key)
            assert info.headers == HEADERS, key
            assert info.metadata == metadata, key
            assert bucket.get(key) == content, key
            with bucket.stream(key) as stream:
                assert (stream.info.headers, stream.info.metadata) == (HEADERS, metadata), key

    def test_content_type_is_a_header(self, bucket: Bucket, features: BlobFeatures) -> None:
        self._needs(features, "headers")
        bucket.put("key", b"x", content_type="image/png", headers=Headers(cache_control="no-store"))
        headers = bucket.stat("key").headers
        assert (headers.content_type, headers.cache_control) == ("image/png", "no-store")

    def test_a_header_with_a_line_break_is_refused_before_anything_is_sent(
        self, watched: Bucket, recorded: Recorded[BlobDriver]
    ) -> None:
        for name in attrs.fields_dict(Headers):
            with pytest.raises(InvalidArgument):
                watched.put("key", b"", headers=Headers(**{name: "x\r\nevil: 1"}))
        assert recorded.calls == []

    def test_metadata_is_kept_exactly_or_refused_before_anything_is_sent(
        self, watched: Bucket, recorded: Recorded[BlobDriver], features: BlobFeatures
    ) -> None:
        self._needs(features, "metadata")
        wrong = {}
        for metadata in METADATA:
            recorded.calls.clear()
            refused = watched.check_metadata(metadata)
            try:
                watched.put("key", b"x", metadata=metadata)
            except InvalidArgument:
                if refused is None or recorded.calls:
                    wrong[str(metadata)[:60]] = "refused too late"
            else:
                kept = watched.stat("key").metadata
                if refused is not None or kept != metadata:
                    wrong[str(metadata)[:60]] = f"kept as {kept}, check_metadata said {refused}"
        assert wrong == {}

    def test_headers_are_kept_exactly_or_refused_before_anything_is_sent(
        self, watched: Bucket, recorded: Recorded[BlobDriver], features: BlobFeatures
    ) -> None:
        self._needs(features, "headers")
        wrong = {}
        for headers in ODD_HEADERS:
            recorded.calls.clear()
            refused = watched.check_headers(headers)
            said = {name: value for name, value in attrs.asdict(headers).items() if value is not None}
            try:
                watched.put("key", b"x", headers=headers)
            except InvalidArgument:
                if refused is None or recorded.calls:
                    wrong[str(said)] = "refused too late"
            else:
                kept = attrs.asdict(watched.stat("key").headers)
                if refused is not None or any(kept[name] != value for name, value in said.items()):
                    wrong[str(said)] = f"kept as {kept}, check_headers said {refused}"
        assert wrong == {}

    def test_tags_are_kept_exactly_or_refused_before_anything_is_sent(
        self, watched: Bucket, recorded: Recorded[BlobDriver], features: BlobFeatures
    ) -> None:
        self._needs(features, "tags")
        wrong = {}
        for tags in ODD_TAGS:
            recorded.calls.clear()
            refused = watched.check_tags(tags)
            try:
                watched.put("key", b"x", tags=tags)
            except InvalidArgument:
                if refused is None or recorded.calls:
                    wrong[str(tags)[:60]] = "refused too late"
            else:
                kept = watched.tags("key")
                if refused is not None or kept != tags:
                    wrong[str(tags)[:60]] = f"kept as {kept}, check_tags said {refused}"
        assert wrong == {}

    def test_too_much_metadata_is_refused_before_anything_is_sent(
        self, watched: Bucket, recorded: Recorded[BlobDriver], features: BlobFeatures
    ) -> None:
        self._needs(features, "metadata", "max_metadata")
        assert features.max_metadata is not None
        with pytest.raises(InvalidArgument):
            watched.put("key", b"", metadata={"n": "x" * features.max_metadata.value})
        assert recorded.calls == []

    def test_tags_are_written_read_and_replaced(self, bucket: Bucket, features: BlobFeatures) -> None:
        self._needs(features, "tags")
        bucket.put("key", b"x", tags={"team": "a b", "cost": "1+1=2"})
        assert bucket.tags("key") == {"team": "a b", "cost": "1+1=2"}
        bucket.set_tags("key", {"other": "1"})
        assert bucket.tags("key") == {"other": "1"}
        assert bucket.get("key") == b"x"
        bucket.set_tags("key", {})
        assert bucket.tags("key") == {}
        bucket.put("long", iter([self._parts_of(features, 2)]), tags={"team": "b"})
        assert bucket.tags("long") == {"team": "b"}
        for call in (bucket.tags, lambda key: bucket.set_tags(key, {})):
            with pytest.raises(NotFound) as caught:
                call("absent")
            assert type(caught.value) is NotFound

    def test_reading_an_object_tells_how_many_tags_it_has(self, bucket: Bucket, features: BlobFeatures) -> None:
        self._needs(features, "tags")
        untold = set() if features.tag_count else {None}
        assert bucket.put("two", b"x", tags={"a": "1", "b": "2"}).tag_count in {2} | untold
        assert bucket.put("none", b"x").tag_count in {0} | untold
        long = bucket.put("long", iter([self._parts_of(features, 2)]), tags={"a": "1"})
        assert long.tag_count in {1} | untold
        assert bucket.tags("none") == {}
        bucket.copy("two", "copy")
        bucket.put("fewer", b"x", tags={"a": "1", "b": "2"})
        bucket.set_tags("fewer", {"c": "3"})
        bucket.put("no more", b"x", tags={"a": "1"})
        bucket.set_tags("no more", {})
        # A provider may need to have told once before that nothing told means none: the last come last.
        for key, count in {"two": 2, "long": 1, "copy": 2, "fewer": 1, "none": 0, "no more": 0}.items():
            with bucket.stream(key) as stream:
                assert stream.info.tag_count in {count} | untold, key
            assert bucket.stat(key).tag_count in {count} | untold, key

    def test_a_copy_of_what_has_no_tags_asks_for_none(
        self, watched: Bucket, recorded: Recorded[BlobDriver], features: BlobFeatures
    ) -> None:
        self._needs(features, "tags", "tag_count")
        elsewhere = BlobStore(MemoryBlobDriver()).create(BucketSpec(name="elsewhere"))
        watched.put("key", b"x")
        watched.tags("key")
        recorded.calls.clear()
        watched.copy("key", "key", to=elsewhere)
        assert recorded.named("tags") == []

    def test_too_many_tags_are_refused_before_anything_is_sent(
        self, watched: Bucket, recorded: Recorded[BlobDriver], features: BlobFeatures
    ) -> None:
        self._needs(features, "tags", "max_tags")
        assert features.max_tags is not None
        tags = {f"t{number}": "x" for number in range(features.max_tags.value + 1)}
        with pytest.raises(InvalidArgument):
            watched.put("key", b"", tags=tags)
        with pytest.raises(InvalidArgument):
            watched.set_tags("key", tags)
        assert recorded.calls == []

    # storage classes

    def test_a_storage_class_is_written_by_any_of_its_names_and_told_by_the_providers(
        self, bucket: Bucket, features: BlobFeatures
    ) -> None:
        self._needs(features, "storage_classes")
        first = {each.tier: each.name for each in reversed(features.storage_classes)}
        names = {each.name: each.name for each in features.storage_classes} | first
        for name, native in names.items():
            key = f"in {name}"
            assert bucket.put(key, b"x", storage_class=name).storage_class == native, name
            assert bucket.stat(key).storage_class == native, name
            (listed,) = bucket.list(key, limit=1)
            assert listed.storage_class in {native, None}, name
        plain = bucket.put("plain", b"x").storage_class
        assert bucket.stat("plain").storage_class == plain
        assert plain in {each.name for each in features.storage_classes}

    def test_a_storage_class_holds_for_parts_files_and_copies(self, bucket: Bucket, features: BlobFeatures) -> None:
        self._needs(features, "storage_classes")
        online = [each.name for each in features.storage_classes if each.online]
        default, other = bucket.put("plain", b"x").storage_class, online[-1]
        kept = _everything(features)
        assert bucket.put("long", iter([self._parts_of(features, 2)]), storage_class=other).storage_class == other
        with bucket.open("file", "wb", storage_class=other, **kept) as file:
            file.write(b"content")
        assert bucket.copy("file", "as is").storage_class == default
        assert bucket.copy("plain", "moved", storage_class=other).storage_class == other
        for key, name in {"long": other, "file": other, "as is": default, "moved": other}.items():
            assert bucket.stat(key).storage_class == name, key
        for key in ("file", "as is"):
            assert bucket.get(key) == b"content"
            self._assert_kept(bucket, key, kept)
        bucket.copy("file", "named", storage_class=other)
        self._assert_kept(bucket, "named", kept)

    def test_an_unknown_storage_class_is_refused_before_anything_is_sent(
        self, watched: Bucket, recorded: Recorded[BlobDriver], features: BlobFeatures
    ) -> None:
        self._needs(features, "storage_classes")
        for name in ("", "no such class", features.storage_classes[0].name.swapcase()):
            for use in (
                lambda name=name: watched.put("key", b"", storage_class=name),
                lambda name=name: watched.open("key", "wb", storage_class=name),
                lambda name=name: watched.copy("key", "other", storage_class=name),
            ):
                if features.storage_class(name) is None:
                    caught = _raised(use)
                    assert isinstance(caught, InvalidArgument)
                    assert features.storage_classes[0].name in str(caught)
                    assert features.storage_classes[0].tier in str(caught)
        assert recorded.calls == []

    def test_storage_classes_are_told_apart_and_the_default_is_the_standard(self, features: BlobFeatures) -> None:
        names = [each.name for each in features.storage_classes]
        assert len(set(names)) == len(names)
        assert [each.tier for each in features.storage_classes[:1]] in (["standard"], [])
        for each in features.storage_classes:
            assert features.storage_class(each.name) == each

    # keys

    def test_a_key_is_kept_byte_for_byte_or_refused_before_anything_is_sent(
        self, watched: Bucket, recorded: Recorded[BlobDriver], features: BlobFeatures, oracle: BlobOracle
    ) -> None:
        stored: dict[str, bytes] = {}
        wrong: dict[str, str] = {}
        for number, key in enumerate((*ORDINARY_KEYS, *AWKWARD_KEYS)):
            recorded.calls.clear()
            refused = watched.check_key(key)
            try:
                watched.put(key, b"%d" % number)
            except InvalidArgument:
                if refused is None or recorded.calls:
                    wrong[key] = "refused too late"
                elif features.any_key and key in ORDINARY_KEYS:
                    wrong[key] = f"refused although any_key: {refused}"
            else:
                stored[key] = b"%d" % number
                if refused is not None:
                    wrong[key] = f"stored although check_key said {refused}"
        wrong |= {key: "read otherwise" for key, data in stored.items() if watched.get(key) != data}
        wrong |= {key: "stored otherwise" for key, data in stored.items() if oracle.get_raw(watched.name, key) != data}
        assert wrong == {}
        assert sorted(oracle.keys(watched.name)) == sorted(stored)
        assert [item.key for item in watched.list()] == sorted(stored, key=str.encode)
        assert {key: watched.stat(key).key for key in stored} == {key: key for key in stored}
        for key in stored:
            watched.delete(key)
        assert oracle.keys(watched.name) == []

    def test_a_key_longer_than_the_limit_is_refused_before_anything_is_sent(
        self, watched: Bucket, recorded: Recorded[BlobDriver], features: BlobFeatures
    ) -> None:
        limit = features.max_key.value
        for key in ("x" * (limit + 1), "é" * (limit // 2 + 1), "", "\ud800"):
            assert watched.check_key(key) is not None
            for call in self._uses_of_a_key(watched, key):
                with pytest.raises(InvalidArgument):
                    call()
        assert recorded.calls == []

    def test_a_key_that_continues_another_is_its_own_object(self, bucket: Bucket, features: BlobFeatures) -> None:
        bucket.put("a", b"1")
        try:
            bucket.put("a/b", b"2")
        except (Conflict, InvalidArgument):
            assert not features.any_key
        else:
            assert [item.key for item in bucket.list()] == ["a", "a/b"]
            assert bucket.get("a/b") == b"2"
            bucket.delete("a/b")
        assert bucket.get("a") == b"1"

    # listing

    def test_all_pages_are_listed_in_the_order_of_utf8(
        self, watched: Bucket, recorded: Recorded[BlobDriver], oracle: BlobOracle
    ) -> None:
        keys = self._many(watched, oracle)
        listed = list(watched.list())
        assert [item.key for item in listed] == keys
        assert {item.size for item in listed} == {1}
        assert list(watched.list_folder()) == [CommonPrefix("k/"), *listed[-1:]]
        middle = len(keys) // 2
        assert [item.key for item in watched.list(start_after=keys[middle])] == keys[middle + 1 :]
        assert [item.key for item in watched.list("k/", start_after="k/00007", limit=3)] == keys[8:11]
        recorded.calls.clear()
        assert [item.key for item in watched.list(limit=10)] == keys[:10]
        assert [call.name for call in recorded.calls] == ["list"]
        # More than one page, and no more than that takes.
        assert [item.key for item in watched.list(limit=len(keys) - 1)] == keys[:-1]

    def test_a_listing_goes_on_while_keys_come_and_go(self, bucket: Bucket, oracle: BlobOracle) -> None:
        keys = self._many(bucket, oracle)
        listing = bucket.list("k/")
        first = [item.key for item in itertools.islice(listing, 5)]
        assert first == keys[:5]
        for key in (first[0], first[-1], keys[-3]):
            bucket.delete(key)
        for key in ("k/00000a", "k/~~~~"):
            bucket.put(key, b"x")
        rest = [item.key for item in listing]
        untouched = [key for key in keys[5:-1] if key != keys[-3]]
        # What stays is listed once and in order; what changes meanwhile may or may not be.
        assert [key for key in rest if key in set(untouched)] == untouched
        assert rest == sorted(set(rest), key=str.encode)

    def test_a_prefix_is_text_and_not_a_folder(self, bucket: Bucket) -> None:
        for key in ("logs/1", "logs/2", "logs-old", "logz", "lo"):
            bucket.put(key, b"")
        assert [item.key for item in bucket.list("logs")] == ["logs-old", "logs/1", "logs/2"]
        assert [item.key for item in bucket.list("logs/")] == ["logs/1", "logs/2"]
        assert [item.key for item in bucket.list("logs/1")] == ["logs/1"]
        assert list(bucket.list("absent")) == []
        assert list(bucket.list("zz/top/")) == []

    def test_start_after_needs_no_such_key(self, bucket: Bucket) -> None:
        for key in ("a", "b/1", "b/2", "c"):
            bucket.put(key, b"")
        for start_after, expected in (
            ("", ["a", "b/1", "b/2", "c"]), ("a", ["b/1", "b/2", "c"]), ("aa", ["b/1", "b/2", "c"]),
            ("b/1", ["b/2", "c"]), ("b/1x", ["b/2", "c"]), ("b0", ["c"]), ("c", []), ("d", []),
        ):  # fmt: skip
            assert [item.key for item in bucket.list(start_after=start_after)] == expected, start_after
        assert [item.key for item in bucket.list("b/", start_after="a")] == ["b/1", "b/2"]

    def test_a_folder_rolls_up_what_lies_deeper(self, bucket: Bucket, features: BlobFeatures) -> None:
        for key in ("a", "b-1", "b/1", "b/2", "b/c/3", "b/c/4", "b/d/5", "z-9"):
            bucket.put(key, b"")
        assert _shown(bucket.list_folder()) == ["a", "b-1", "<b/>", "z-9"]
        assert _shown(bucket.list_folder("b/")) == ["b/1", "b/2", "<b/c/>", "<b/d/>"]
        assert _shown(bucket.list_folder("b")) == ["b-1", "<b/>"]
        assert _shown(bucket.list_folder("b/", limit=3)) == ["b/1", "b/2", "<b/c/>"]
        assert _shown(bucket.list_folder(delimiter="-")) == [
            "a",
            "<b->",
            "b/1",
            "b/2",
            "b/c/3",
            "b/c/4",
            "b/d/5",
            "<z->",
        ]
        if features.any_key:
            bucket.put("b/", b"")
            bucket.put("b//x", b"")
            assert _shown(bucket.list_folder("b/")) == ["b/", "<b//>", "b/1", "b/2", "<b/c/>", "<b/d/>"]

    def test_many_folders_are_listed_once_each(self, bucket: Bucket, oracle: BlobOracle) -> None:
        keys = [f"f{number % 40:02d}/{number:05d}" for number in range(max(80, self.many_keys // 5))]
        for key in keys:
            oracle.put_raw(bucket.name, key, b"")
        assert list(bucket.list_folder()) == [CommonPrefix(f"f{number:02d}/") for number in range(40)]
        assert list(bucket.list_folder(limit=7)) == [CommonPrefix(f"f{number:02d}/") for number in range(7)]

    def test_a_negative_limit_is_refused(self, bucket: Bucket) -> None:
        with pytest.raises(InvalidArgument):
            bucket.list(limit=-1)
        assert list(bucket.list(limit=0)) == []

    # errors

    def test_a_missing_key_is_not_found(self, bucket: Bucket) -> None:
        for call in (
            lambda: bucket.get("absent"),
            lambda: bucket.get("absent", start=3, stop=3),
            lambda: bucket.stream("absent"),
            lambda: bucket.open("absent"),
            lambda: bucket.stat("absent"),
            lambda: bucket.copy("absent", "other"),
        ):
            with pytest.raises(NotFound) as caught:
                call()
            assert type(caught.value) is NotFound
        assert not bucket.exists("absent")

    def test_a_missing_bucket_is_never_a_missing_key(self, missing: Bucket, features: BlobFeatures) -> None:
        calls: dict[str, Callable[[], object]] = {
            "get": lambda: missing.get("key"),
            "stat": lambda: missing.stat("key"),
            "exists": lambda: missing.exists("key"),
            "put": lambda: missing.put("key", b""),
            "put in parts": lambda: missing.put("key", iter([self._parts_of(features, 2)])),
            "list": lambda: list(missing.list()),
            "list_folder": lambda: list(missing.list_folder()),
            "delete": lambda: missing.delete("key"),
            "delete_many": lambda: missing.delete_many(["a", "b"]),
            "copy": lambda: missing.copy("key", "other"),
        }
        if features.tags:
            calls["tags"] = lambda: missing.tags("key")
        if features.versioning:
            calls["versions"] = lambda: list(missing.versions())
        outcomes = {name: _outcome(call) for name, call in calls.items()}
        assert outcomes == dict.fromkeys(calls, ParentNotFound)

    def test_an_error_names_operation_resource_and_provider(self, bucket: Bucket, missing: Bucket) -> None:
        for caught, operation, subject in (
            (_raised(lambda: bucket.get("absent")), "blob.get", f"object 'absent' in bucket {bucket.name!r}"),
            (_raised(lambda: missing.put("key", b"")), "blob.put", f"object 'key' in bucket {missing.name!r}"),
            (_raised(lambda: list(missing.list("p/"))), "blob.list", f"in bucket {missing.name!r}"),
        ):
            assert caught.operation == operation
            assert caught.provider == bucket.provider
            for part in (operation, subject, bucket.provider):
                assert part in str(caught)
            assert caught.__cause__ is not None
            assert str(pickle.loads(pickle.dumps(caught))) == str(caught)  # noqa: S301  our own

    def test_a_foreign_exception_is_not_claimed(self, driver: BlobDriver) -> None:
        assert driver.classify(ZeroDivisionError("a bug")) is None

    # conditions

    def test_if_absent_writes_only_what_is_not_there(self, bucket: Bucket, features: BlobFeatures) -> None:
        self._needs(features, "if_absent")
        bucket.put("key", b"first", if_absent=True)
        with pytest.raises(PreconditionFailed):
            bucket.put("key", b"second", if_absent=True)
        with pytest.raises(PreconditionFailed):
            bucket.put("key", iter([self._parts_of(features, 2)]), if_absent=True)
        assert bucket.get("key") == b"first"
        bucket.delete("key")
        bucket.put("key", b"third", if_absent=True)
        assert bucket.get("key") == b"third"

    def test_if_match_writes_only_over_that_version(self, bucket: Bucket, features: BlobFeatures) -> None:
        self._needs(features, "if_match")
        first = bucket.put("key", b"first")
        second = bucket.put("key", b"second", if_match=first.token)
        with pytest.raises(PreconditionFailed):
            bucket.put("key", b"third", if_match=first.token)
        with pytest.raises(PreconditionFailed):
            bucket.put("key", iter([self._parts_of(features, 2)]), if_match=first.token)
        assert bucket.get("key") == b"second"
        assert bucket.stat("key").token == second.token
        long = self._parts_of(features, 2)
        bucket.put("key", iter([long]), if_match=second.token)
        assert bucket.get("key") == long

    def test_if_match_on_a_missing_object_fails(self, bucket: Bucket, features: BlobFeatures) -> None:
        self._needs(features, "if_match")
        token = bucket.put("key", b"x").token
        bucket.delete("key")
        with pytest.raises(PreconditionFailed):
            bucket.put("key", b"y", if_match=token)
        assert not bucket.exists("key")

    def test_reads_can_be_pinned_to_a_version(self, bucket: Bucket) -> None:
        first = bucket.put("key", b"first")
        assert bucket.get("key", if_match=first.token) == b"first"
        assert bucket.get("key", if_match=first.token, start=2, stop=2) == b""
        second = bucket.put("key", b"second")
        for start, stop in ((0, None), (1, 3), (2, 2)):
            with pytest.raises(PreconditionFailed):
                bucket.get("key", if_match=first.token, start=start, stop=stop)
        assert bucket.get("key", if_match=second.token, start=1) == b"econd"

    def test_an_item_is_read_in_its_version(self, bucket: Bucket, tmp_path: Path) -> None:
        bucket.put("empty", b"")
        bucket.put("key", b"first", metadata={"a": "b"}, content_type="text/plain")
        empty, listed = bucket.list()
        for item in (listed, bucket.stat("key")):
            assert bucket.get(item) == b"first"
            assert bucket.get(item, start=1, stop=3) == b"ir"
            assert bucket.get(item, start=2, stop=2) == bucket.get(item, start=5) == b""
            with bucket.stream(item) as stream:
                assert (stream.info.metadata, stream.info.headers.content_type) == ({"a": "b"}, "text/plain")
                assert (stream.info.token, stream.read()) == (listed.token, b"first")
            assert bucket.download(item, tmp_path / "file").metadata == {"a": "b"}
            assert (tmp_path / "file").read_bytes() == b"first"
        assert bucket.get(empty) == b""
        bucket.put("key", b"second")
        bucket.put("empty", b"full")
        for item, start, stop in (
            (listed, 0, None),
            (listed, 1, 3),
            (listed, 2, 2),
            (listed, 9, None),
            (empty, 0, None),
        ):
            with pytest.raises(PreconditionFailed):
                bucket.get(item, start=start, stop=stop)
        bucket.delete("key")
        with pytest.raises((NotFound, PreconditionFailed)):
            bucket.get(listed)
        with pytest.raises(InvalidArgument, match="says its version itself"):
            bucket.get(listed, if_match=listed.token)

    def test_a_read_can_ask_for_what_is_newer(self, bucket: Bucket) -> None:
        first = bucket.put("key", b"first")
        for start, stop in ((0, None), (1, 3), (2, 2), (99, None)):
            with pytest.raises(NotModified):
                bucket.get("key", start=start, stop=stop, if_none_match=first.token)
        with pytest.raises(NotModified):
            bucket.stream("key", if_none_match=first.token)
        with pytest.raises(NotModified):
            bucket.stat("key", if_none_match=first.token)
        second = bucket.put("key", b"second")
        assert bucket.get("key", if_none_match=first.token) == b"second"
        assert bucket.get("key", if_none_match=first.token, start=1, stop=3) == b"ec"
        assert bucket.get("key", if_none_match=first.token, start=2, stop=2) == b""
        assert bucket.stat("key", if_none_match=first.token).token == second.token
        bucket.delete("key")
        for use in (bucket.get, bucket.stat):
            with pytest.raises(NotFound):
                use("key", if_none_match=second.token)

    def test_a_download_of_what_is_not_newer_leaves_the_file(self, bucket: Bucket, tmp_path: Path) -> None:
        info = bucket.put("key", b"content")
        path = tmp_path / "file"
        path.write_bytes(b"mine")
        with pytest.raises(NotModified):
            bucket.download("key", path, if_none_match=info.token)
        assert path.read_bytes() == b"mine"
        assert [each.name for each in tmp_path.iterdir()] == ["file"]

    def test_a_read_of_what_is_not_newer_brings_no_content(
        self, watched: Bucket, recorded: Recorded[BlobDriver], features: BlobFeatures
    ) -> None:
        info = watched.put("key", b"content")
        recorded.calls.clear()
        outcomes: list[object] = []

        def note(_call: object, proceed: Callable[[], Any]) -> Any:  # noqa: ANN401  whatever the driver answers
            outcomes.append(None)
            outcomes[-1] = proceed()
            return outcomes[-1]

        recorded.on("get", note)
        with pytest.raises(NotModified):
            watched.get("key", if_none_match=info.token)
        assert [call.name for call in recorded.calls] == (["get"] if features.if_none_match else ["stat"])
        assert outcomes == ([None] if features.if_none_match else [])  # it raised, and returned nothing

    def test_a_description_can_be_pinned_to_a_version(self, bucket: Bucket) -> None:
        first = bucket.put("key", b"first")
        assert bucket.stat("key", if_match=first.token).size == 5
        second = bucket.put("key", b"second")
        with pytest.raises(PreconditionFailed) as caught:
            bucket.stat("key", if_match=first.token)
        assert type(caught.value) is PreconditionFailed
        assert bucket.stat("key", if_match=second.token).size == 6

    def test_conditions_of_reads_exclude_each_other(self, watched: Bucket, recorded: Recorded[BlobDriver]) -> None:
        for use in (watched.get, watched.stream, watched.stat):
            with pytest.raises(InvalidArgument):
                use("key", if_match=Token("x"), if_none_match=Token("x"))
        assert recorded.calls == []

    def test_delete_if_match_deletes_only_that_version(self, bucket: Bucket, features: BlobFeatures) -> None:
        self._needs(features, "delete_if_match")
        first = bucket.put("key", b"first")
        second = bucket.put("key", b"second")
        with pytest.raises(PreconditionFailed):
            bucket.delete("key", if_match=first.token)
        assert bucket.get("key") == b"second"
        bucket.delete("key", if_match=second.token)
        assert not bucket.exists("key")
        with pytest.raises(PreconditionFailed):
            bucket.delete("key", if_match=second.token)

    def test_conditions_exclude_each_other(self, watched: Bucket, recorded: Recorded[BlobDriver]) -> None:
        with pytest.raises(InvalidArgument):
            watched.put("key", b"", if_absent=True, if_match=Token("x"))
        assert recorded.calls == []

    def test_one_of_many_creators_wins(self, bucket: Bucket, features: BlobFeatures) -> None:
        self._needs(features, "if_absent")
        winner = self._race(lambda number: bucket.put("key", b"%d" % number, if_absent=True))
        assert bucket.get("key") == b"%d" % winner

    def test_one_of_many_writers_over_a_version_wins(self, bucket: Bucket, features: BlobFeatures) -> None:
        self._needs(features, "if_match")
        token = bucket.put("key", b"first").token
        winner = self._race(lambda number: bucket.put("key", b"%d" % number, if_match=token))
        assert bucket.get("key") == b"%d" % winner

    # deleting

    def test_delete_is_idempotent(self, bucket: Bucket) -> None:
        bucket.put("key", b"x")
        bucket.delete("key")
        bucket.delete("key")
        bucket.delete("never was")
        assert list(bucket.list()) == []

    def test_delete_many_deletes_more_than_a_batch_and_names_what_failed(
        self, bucket: Bucket, features: BlobFeatures, oracle: BlobOracle
    ) -> None:
        batch = features.delete_batch.value if features.delete_batch else 30
        keys = [f"d/{number:05d} é&<>" for number in range(min(batch, self.many_keys) + 3)]
        for key in (*keys, "kept"):
            oracle.put_raw(bucket.name, key, b"x")
        too_long = "x" * (features.max_key.value + 1)
        failed = bucket.delete_many(iter([*keys[:2], "missing", too_long, *keys]))
        assert {key: type(error) for key, error in failed.items()} == {too_long: InvalidArgument}
        assert oracle.keys(bucket.name) == ["kept"]
        assert bucket.delete_many([]) == {}

    # parts

    def test_a_long_iterator_goes_in_parts(
        self, watched: Bucket, recorded: Recorded[BlobDriver], features: BlobFeatures, oracle: BlobOracle
    ) -> None:
        size = max(self.multipart_size, 2 * features.part_size.value + 1)
        data = _content(size)
        info = watched.put("long", _cut(data, (1, 65_537, 1_000_003, 7, 3 * MIB + 1)))
        assert info.size == size
        stored = oracle.get_raw(watched.name, "long")
        assert stored is not None
        assert hashlib.sha256(stored).digest() == hashlib.sha256(data).digest()
        assert len(recorded.named("upload_begin")) == len(recorded.named("upload_complete")) == 1
        assert len(recorded.named("upload_part")) > 1
        assert recorded.named("put") == []
        with watched.stream("long") as stream:
            assert hashlib.sha256(b"".join(stream)).digest() == hashlib.sha256(data).digest()
        assert watched.get("long", start=size - 10) == data[-10:]

    def test_parts_come_in_any_order_and_again(self, driver: BlobDriver, bucket: Bucket) -> None:
        size = max(driver.features.part_size.value, MIB)
        first, second, third = _content(size), _content(size)[::-1], b"the end"
        upload = driver.upload_begin(bucket.name, "key", PutOptions())
        assert pickle.loads(pickle.dumps(upload)) == upload  # noqa: S301  our own
        parts = {
            3: driver.upload_part(upload, 3, third, 2 * size),
            1: driver.upload_part(upload, 1, b"!" * size, 0),
            2: driver.upload_part(pickle.loads(pickle.dumps(upload)), 2, second, size),  # noqa: S301  our own
        }
        parts[1] = driver.upload_part(upload, 1, first, 0)
        assert [(number, parts[number].number, parts[number].size) for number in (1, 2, 3)] == [
            (1, 1, size), (2, 2, size), (3, 3, len(third)),
        ]  # fmt: skip
        assert not bucket.exists("key")
        info = driver.upload_complete(upload, (parts[1], parts[2], parts[3]))
        assert info.size == 2 * size + len(third)
        assert bucket.get("key") == first + second + third
        assert bucket.stat("key").token == info.token

    def test_an_aborted_upload_leaves_nothing(self, driver: BlobDriver, bucket: Bucket, oracle: BlobOracle) -> None:
        upload = driver.upload_begin(bucket.name, "key", PutOptions())
        driver.upload_part(upload, 1, _content(max(driver.features.part_size.value, MIB)), 0)
        driver.upload_abort(upload)
        driver.upload_abort(upload)
        assert oracle.get_raw(bucket.name, "key") is None
        assert list(bucket.list()) == []

    def test_uploads_that_are_not_complete_are_listed_until_they_are(
        self, driver: BlobDriver, bucket: Bucket, features: BlobFeatures
    ) -> None:
        self._needs(features, "uploads")
        bucket.put("a", b"x")
        before = datetime.now(UTC) - timedelta(minutes=15)  # clocks differ
        completed, aborted, left = (driver.upload_begin(bucket.name, key, PutOptions()) for key in ("c", "b", "a"))
        found = list(bucket.uploads())
        assert [(upload.key, upload.id) for upload in found] == [("a", left.id), ("b", aborted.id), ("c", completed.id)]
        for upload in found:
            assert upload.started.tzinfo is UTC
            assert before < upload.started < before + timedelta(minutes=30)
        driver.upload_complete(completed, (driver.upload_part(completed, 1, b"x", 0),))
        driver.upload_abort(aborted)
        assert [(upload.key, upload.id) for upload in bucket.uploads()] == [("a", left.id)]
        assert bucket.get("a") == b"x"

    def test_all_pages_of_uploads_are_listed_in_order_and_dropped(
        self, driver: BlobDriver, bucket: Bucket, features: BlobFeatures
    ) -> None:
        self._needs(features, "uploads")
        keys = ["u/Z", "u/a b+c&<d>'\"%2F", "u/same", "u/same", "u/é", "u/\uff5e", "u/\U0001f600", "v"]
        begun = {(upload.key, upload.id) for upload in (self._begun(driver, bucket, key) for key in reversed(keys))}
        for limit in (1, 3, None):

            def fetch(cursor: str | None, _: int | None, limit: int | None = limit) -> Page[PendingUpload]:
                return driver.uploads(bucket.name, prefix="", cursor=cursor, limit=limit)

            found = list(paged(fetch))
            assert {(upload.key, upload.id) for upload in found} == begun
            assert [upload.key for upload in found] == keys
        assert [upload.key for upload in bucket.uploads("u/s")] == ["u/same", "u/same"]
        assert bucket.abort_uploads("u/", older_than=timedelta()) == len(keys) - 1
        assert [upload.key for upload in bucket.uploads()] == ["v"]
        assert list(bucket.list()) == []

    def test_uploads_that_began_just_now_are_not_dropped_by_default(
        self, driver: BlobDriver, bucket: Bucket, features: BlobFeatures
    ) -> None:
        self._needs(features, "uploads")
        upload = driver.upload_begin(bucket.name, "key", PutOptions())
        assert list(bucket.uploads(older_than=timedelta(hours=1))) == []
        assert bucket.abort_uploads() == 0
        driver.upload_complete(upload, (driver.upload_part(upload, 1, b"x", 0),))
        assert bucket.get("key") == b"x"

    def test_uploads_of_a_missing_bucket_are_not_found(self, missing: Bucket, features: BlobFeatures) -> None:
        self._needs(features, "uploads")
        for use in (lambda: list(missing.uploads()), missing.abort_uploads):
            with pytest.raises(ParentNotFound):
                use()

    def test_a_source_that_fails_leaves_the_old_object(
        self, watched: Bucket, recorded: Recorded[BlobDriver], features: BlobFeatures
    ) -> None:
        watched.put("key", b"old")

        def failing() -> Iterator[bytes]:
            yield self._parts_of(features, 2)
            raise ZeroDivisionError("the source broke")

        with pytest.raises(ZeroDivisionError):
            watched.put("key", failing())
        with pytest.raises(ZeroDivisionError), watched.open("key", "wb") as file:
            file.writelines(failing())
        assert len(recorded.named("upload_begin")) == len(recorded.named("upload_abort")) == 2
        assert recorded.named("upload_complete") == []
        assert watched.get("key") == b"old"
        assert [item.key for item in watched.list()] == ["key"]

    # files

    def test_an_object_is_written_and_read_as_a_file(self, bucket: Bucket) -> None:
        data = _content(3 * MIB)
        with bucket.open("key", "wb") as out:
            for chunk in _cut(data, (1, 999_999)):
                out.write(chunk)
            assert not bucket.exists("key")
        with bucket.open("key") as file:
            assert file.read(10) == data[:10]
            assert file.seek(-10, 2) == len(data) - 10
            assert file.read() == data[-10:]
            assert file.read() == b""
            assert file.seek(MIB) == MIB
            assert file.read(MIB) == data[MIB : 2 * MIB]
            assert file.seek(0) == 0
            assert file.read() == data
        assert file.closed

    def test_a_download_replaces_the_file(self, bucket: Bucket, tmp_path: Path) -> None:
        data = _content(2 * MIB)
        put = bucket.put("key", data)
        target = tmp_path / "file"
        target.write_bytes(b"old")
        assert bucket.download("key", target).token == put.token
        assert target.read_bytes() == data
        with pytest.raises(NotFound):
            bucket.download("absent", target)
        assert target.read_bytes() == data
        assert [path.name for path in tmp_path.iterdir()] == ["file"]

    def test_a_path_and_a_file_are_sources(self, bucket: Bucket, tmp_path: Path) -> None:
        data = _content(9 * MIB)
        path = tmp_path / "file"
        path.write_bytes(data)
        bucket.put("path", path)
        with path.open("rb") as file:
            file.seek(5)
            bucket.put("file", file)
        assert bucket.get("path") == data
        assert bucket.get("file") == data[5:]

    # versions

    def test_older_versions_are_listed_read_and_deleted(
        self, store: BlobStore, make_bucket: MakeBucket, features: BlobFeatures
    ) -> None:
        self._needs(features, "versioning")
        bucket = make_bucket(versioning=True)
        assert store.describe(bucket.name).versioning
        infos = [bucket.put("key", b"v%d" % number) for number in range(3)]
        bucket.put("key2", b"other")
        ids = [info.version for info in infos]
        assert None not in ids
        history = [row for row in bucket.versions("key") if row.key == "key"]
        assert [row.version for row in history] == ids[::-1]
        assert [(row.latest, row.deleted, row.size) for row in history] == [
            (True, False, 2), (False, False, 2), (False, False, 2),
        ]  # fmt: skip
        assert [row.token for row in history] == [info.token for info in infos[::-1]]
        assert [bucket.get("key", version=version) for version in ids] == [b"v0", b"v1", b"v2"]
        assert bucket.get("key", version=ids[0], start=1) == b"0"
        assert bucket.stat("key", version=ids[0]).version == ids[0]
        bucket.delete("key", version=ids[0])
        with pytest.raises(NotFound) as caught:
            bucket.get("key", version=ids[0])
        assert type(caught.value) is NotFound
        assert bucket.get("key") == b"v2"
        bucket.delete("key", version=ids[2])
        assert bucket.get("key", version=ids[1]) == b"v1"

    def test_a_deleted_object_keeps_its_versions(self, make_bucket: MakeBucket, features: BlobFeatures) -> None:
        self._needs(features, "versioning")
        bucket = make_bucket(versioning=True)
        info = bucket.put("key", b"kept")
        bucket.delete("key")
        assert not bucket.exists("key")
        assert list(bucket.list()) == []
        assert bucket.get("key", version=info.version) == b"kept"
        rows = list(bucket.versions())
        # Some providers leave a marker on top, others only a history without a latest version.
        assert [row.version for row in rows if not row.deleted] == [info.version]
        assert [row.deleted for row in rows if row.latest] in ([True], [])
        for row in rows:
            bucket.delete(row.key, version=row.version)
        assert list(bucket.versions()) == []

    def test_an_older_version_is_restored_with_all_that_it_has(
        self, make_bucket: MakeBucket, features: BlobFeatures
    ) -> None:
        self._needs(features, "versioning")
        bucket = make_bucket(versioning=True)
        kept = _everything(features) if features.restore else {}
        old = bucket.put("key", b"old", **kept)
        new = bucket.put("key", b"new")
        assert old.version is not None
        restored = bucket.restore("key", old.version)
        assert (restored.key, restored.size) == ("key", 3)
        assert restored.version not in {None, old.version, new.version}
        assert bucket.get("key") == b"old"
        self._assert_kept(bucket, "key", kept)
        if features.restore and features.tags:
            assert bucket.tags("key", version=old.version) == kept["tags"]
            assert bucket.tags("key", version=new.version) == {}
        ids = [row.version for row in bucket.versions("key")]
        assert ids == [restored.version, new.version, old.version]
        bucket.delete("key")
        assert new.version is not None
        bucket.restore("key", new.version)
        assert bucket.get("key") == b"new"
        bucket.delete("key", version=old.version)
        with pytest.raises(NotFound) as caught:
            bucket.restore("key", old.version)
        assert type(caught.value) is NotFound
        assert bucket.get("key") == b"new"

    def test_an_older_version_is_copied_elsewhere(self, make_bucket: MakeBucket, features: BlobFeatures) -> None:
        self._needs(features, "versioning")
        bucket, plain = make_bucket(versioning=True), make_bucket()
        kept = _everything(features) if features.restore else {}
        version = bucket.put("key", b"old", **kept).version
        bucket.put("key", b"new")
        elsewhere = BlobStore(MemoryBlobDriver()).create(BucketSpec(name="elsewhere"))
        for to in (bucket, plain, elsewhere):
            assert bucket.copy("key", "copy", to=to, version=version).size == 3
            assert to.get("copy") == b"old"
            self._assert_kept(to, "copy", kept)
        assert bucket.get("key") == b"new"

    def test_a_delete_marker_has_no_content_and_without_it_the_object_is_back(
        self, make_bucket: MakeBucket, features: BlobFeatures
    ) -> None:
        self._needs(features, "versioning")
        bucket = make_bucket(versioning=True)
        first = bucket.put("key", b"kept")
        bucket.delete("key")
        for marker in [row.version for row in bucket.versions() if row.deleted]:  # some providers leave none
            for use in (bucket.get, bucket.stat, bucket.restore):
                with pytest.raises(NotFound) as caught:
                    use("key", marker) if use == bucket.restore else use("key", version=marker)
                assert type(caught.value) is NotFound
            bucket.delete("key", version=marker)
            assert bucket.get("key") == b"kept"
            assert bucket.stat("key").version == first.version
            assert [row.version for row in bucket.versions()] == [first.version]

    def test_without_versioning_there_is_no_version(self, bucket: Bucket) -> None:
        assert bucket.put("key", b"x").version is None
        assert bucket.stat("key").version is None

    def test_all_pages_of_versions_are_listed_while_they_are_deleted(
        self, make_bucket: MakeBucket, features: BlobFeatures
    ) -> None:
        self._needs(features, "versioning")
        bucket = make_bucket(versioning=True)
        count = max(12, self.many_keys // 50)
        expected = [(f"k/{number:04d}", text) for number in range(count) for text in (b"new", b"old")]
        for key, text in sorted(expected, key=lambda item: item[1], reverse=True):
            bucket.put(key, text)
        assert [(row.key, bucket.get(row.key, version=row.version)) for row in bucket.versions("k/")] == expected
        for row in bucket.versions():
            bucket.delete(row.key, version=row.version)
        assert list(bucket.versions()) == []

    # locks

    def test_a_bucket_says_whether_it_has_object_lock(
        self, store: BlobStore, lockable: Bucket, features: BlobFeatures
    ) -> None:
        spec = store.describe(lockable.name)
        assert spec.object_lock
        assert spec.versioning or not features.lock_needs_versioning
        assert store.diff(spec) == ()

    def test_object_lock_is_never_switched_off(self, store: BlobStore, lockable: Bucket) -> None:
        spec = store.describe(lockable.name)
        (change,) = store.diff(attrs.evolve(spec, object_lock=False))
        assert "never switched off" in change.reason
        with pytest.raises(Unsupported, match="never switched off"):
            store.apply(change)
        assert store.describe(lockable.name) == spec

    def test_object_lock_is_switched_on_later_or_refused_with_what_to_do(
        self, store: BlobStore, make_bucket: MakeBucket, features: BlobFeatures
    ) -> None:
        self._needs(features, "object_lock")
        bucket = make_bucket(versioning=features.lock_needs_versioning)
        spec = attrs.evolve(store.describe(bucket.name), object_lock=True)
        (change,) = store.diff(spec)
        if features.lock_later:
            assert change.reason == ""
            store.apply(change)
            assert store.describe(bucket.name) == spec
            if features.legal_hold:
                bucket.put("key", b"x", hold=True)
                self._assert_locked(bucket, "key")
                bucket.release("key")
        else:
            assert change.reason
            with pytest.raises(Unsupported) as caught:
                store.apply(change)
            assert change.reason in str(caught.value)
            assert not store.describe(bucket.name).object_lock

    def test_what_cannot_have_object_lock_is_refused_before_anything_is_sent(
        self, recorded: Recorded[BlobDriver], features: BlobFeatures
    ) -> None:
        if features.object_lock and not features.lock_needs_versioning:
            pytest.skip(f"{features.title}: every declaration of a bucket may have object lock")
        spec = BucketSpec(name=_name(), object_lock=True)
        why = "object lock without versioning" if features.object_lock else "object lock"
        assert why in BlobStore(recorded.driver).missing_features(spec)
        with pytest.raises(Unsupported, match=why):
            BlobStore(recorded.driver).create(spec)
        assert recorded.calls == []

    def test_a_lock_is_written_with_the_object_and_told(self, lockable: Bucket, features: BlobFeatures) -> None:
        retention, hold = self._retention(features), features.legal_hold
        lock = Lock(retention=retention, hold=hold)
        lockable.put("source", b"x")
        long = self._parts_of(features, 2)
        with lockable.open("file", "wb", retain=retention, hold=hold) as file:
            file.write(b"x")
        infos = [
            lockable.put("whole", b"x", retain=retention, hold=hold),
            lockable.put("long", iter([long]), retain=retention, hold=hold),
            lockable.copy("source", "copy", retain=retention, hold=hold),
        ]
        assert [info.lock for info in infos] == [lock] * 3
        for key in ("whole", "long", "copy", "file"):
            assert lockable.lock_of(key) == lock, key
            assert lockable.stat(key).lock == lock, key
            with lockable.stream(key) as stream:
                assert stream.info.lock == lock, key
        assert (lockable.get("long"), lockable.get("copy")) == (long, b"x")
        for key in ("whole", "long", "copy", "file"):
            self._assert_locked(lockable, key)

    def test_without_a_lock_none_is_told(self, lockable: Bucket) -> None:
        assert lockable.put("key", b"x").lock == Lock()
        assert lockable.stat("key").lock == Lock()
        assert lockable.lock_of("key") == Lock()

    def test_a_copy_is_not_locked_as_its_source_is(self, lockable: Bucket, features: BlobFeatures) -> None:
        lockable.put("key", b"x", retain=self._retention(features), hold=features.legal_hold)
        lockable.copy("key", "copy")
        assert lockable.lock_of("copy") == Lock()

    def test_a_locked_version_stays_until_its_time_has_come(self, lockable: Bucket, features: BlobFeatures) -> None:
        lockable.put("put", b"x", retain=self._retention(features))
        lockable.put("later", b"x")
        retention = self._retention(features)
        lockable.retain("later", retention.until, mode=retention.mode)
        assert lockable.lock_of("later") == Lock(retention=retention)
        for key in ("put", "later"):
            self._assert_locked(lockable, key)
        self.advance(timedelta(minutes=12))
        for key in ("put", "later"):
            self._assert_free(lockable, key)

    def test_a_key_with_a_locked_version_takes_a_newer_one_or_none(
        self, lockable: Bucket, features: BlobFeatures
    ) -> None:
        first = lockable.put("key", b"first", retain=self._retention(features))
        if features.lock_needs_versioning:
            second = lockable.put("key", b"second")
            assert (lockable.get("key"), lockable.get("key", version=first.version)) == (b"second", b"first")
            assert second.lock == lockable.lock_of("key") == Lock()
            assert lockable.lock_of("key", version=first.version) == first.lock
            self._assert_locked(lockable, "key", first.version)
            lockable.delete("key", version=second.version)
        else:
            for write in (
                lambda: lockable.put("key", b"second"),
                lambda: lockable.put("key", iter([self._parts_of(features, 2)])),
                lambda: lockable.delete("key"),
            ):
                assert _outcome(write) in _REFUSED
            assert list(lockable.delete_many(["key"])) == ["key"]
            assert lockable.get("key") == b"first"
        assert lockable.lock_of("key", version=first.version) == first.lock

    def test_a_hold_lasts_until_it_is_released(self, lockable: Bucket, features: BlobFeatures) -> None:
        self._needs(features, "legal_hold")
        lockable.put("key", b"x", hold=True)
        lockable.put("later", b"x")
        lockable.hold("later")
        lockable.hold("later")
        self.advance(timedelta(minutes=12))
        for key in ("key", "later"):
            assert lockable.lock_of(key) == lockable.stat(key).lock == Lock(hold=True)
            self._assert_locked(lockable, key)
            lockable.release(key)
            lockable.release(key)
            assert lockable.lock_of(key) == Lock()
            self._assert_free(lockable, key)

    def test_a_retention_and_a_hold_do_not_touch_each_other(self, lockable: Bucket, features: BlobFeatures) -> None:
        self._needs(features, "legal_hold")
        retention = self._retention(features)
        lockable.put("key", b"x", retain=retention)
        lockable.hold("key")
        assert lockable.lock_of("key") == Lock(retention=retention, hold=True)
        lockable.release("key")
        assert lockable.lock_of("key") == Lock(retention=retention)
        self._assert_locked(lockable, "key")

    def test_a_retention_is_lengthened_and_not_shortened(self, lockable: Bucket, features: BlobFeatures) -> None:
        for mode in self._modes(features):
            first = lockable.put(mode, b"x", retain=self._retention(features, mode=mode))
            long = self._retention(features, minutes=60, mode=mode)
            lockable.retain(mode, long.until, mode=mode)
            lockable.retain(mode, long.until, mode=mode)
            assert lockable.lock_of(mode).retention == long
            assert lockable.stat(mode).token == first.token
            short = self._retention(features, mode=mode)
            other = next((each for each in self._modes(features) if each != mode), mode)
            assert _outcome(lambda: lockable.retain(mode, short.until, mode=mode)) in _REFUSED, mode  # noqa: B023
            if other != mode:
                assert _outcome(lambda: lockable.retain(mode, long.until, mode=other)) in _REFUSED, mode  # noqa: B023
            assert lockable.lock_of(mode).retention == long

    def test_governance_is_shortened_taken_away_and_hardened_only_with_bypass(
        self, lockable: Bucket, features: BlobFeatures
    ) -> None:
        self._needs(features, "governance")
        for key in ("shortened", "gone", "harder"):
            lockable.put(key, b"x", retain=self._retention(features, minutes=60, mode="governance"))
        short = self._retention(features, mode="governance")
        lockable.retain("shortened", short.until, bypass=True)
        assert lockable.lock_of("shortened").retention == short
        with pytest.raises(InvalidArgument, match="bypass"):
            lockable.retain("gone", None)
        lockable.retain("gone", None, bypass=True)
        assert lockable.lock_of("gone") == Lock()
        self._assert_free(lockable, "gone")
        hard = self._retention(features, minutes=60, mode="compliance")
        lockable.retain("harder", hard.until, mode="compliance", bypass=True)
        assert lockable.lock_of("harder").retention == hard
        self._assert_locked(lockable, "harder")

    def test_compliance_is_weakened_by_nobody(self, lockable: Bucket, features: BlobFeatures) -> None:
        hard = self._retention(features, minutes=60, mode="compliance")
        lockable.put("key", b"x", retain=hard)
        short = self._retention(features, mode="compliance")
        weaker: list[Callable[[], object]] = [
            lambda: lockable.retain("key", short.until, mode="compliance", bypass=True),
            lambda: lockable.retain("key", None, bypass=True),
        ]
        if features.governance:
            weaker.append(lambda: lockable.retain("key", hard.until, mode="governance", bypass=True))
        for use in weaker:
            assert _outcome(use) in _REFUSED
        assert lockable.lock_of("key").retention == hard

    def test_an_older_version_is_locked_by_its_id(self, lockable: Bucket, features: BlobFeatures) -> None:
        self._needs(features, "lock_needs_versioning")
        old, new = lockable.put("key", b"old"), lockable.put("key", b"new")
        retention = self._retention(features)
        lockable.retain("key", retention.until, mode=retention.mode, version=old.version)
        if features.legal_hold:
            lockable.hold("key", version=old.version)
        assert lockable.lock_of("key", version=old.version) == Lock(retention=retention, hold=features.legal_hold)
        assert lockable.lock_of("key", version=new.version) == Lock()
        self._assert_locked(lockable, "key", old.version)
        if features.legal_hold:
            lockable.release("key", version=old.version)
        self._assert_locked(lockable, "key", old.version)

    def test_a_retention_that_ends_in_the_past_is_refused(self, lockable: Bucket, features: BlobFeatures) -> None:
        past = self._retention(features, minutes=-60)
        with pytest.raises(InvalidArgument):
            lockable.put("key", b"x", retain=past)
        assert not lockable.exists("key")
        lockable.put("key", b"x")
        with pytest.raises(InvalidArgument):
            lockable.retain("key", past.until, mode=past.mode)
        assert lockable.lock_of("key") == Lock()

    def test_a_bucket_without_object_lock_keeps_no_retention(
        self, make_bucket: MakeBucket, features: BlobFeatures
    ) -> None:
        self._needs(features, "object_lock")
        bucket = make_bucket(versioning=features.lock_needs_versioning)
        retention = self._retention(features)
        refused = {InvalidArgument, Conflict}
        assert _outcome(lambda: bucket.put("key", b"x", retain=retention)) in refused
        assert _outcome(lambda: bucket.put("key", iter([self._parts_of(features, 2)]), retain=retention)) in refused
        assert not bucket.exists("key")
        bucket.put("key", b"x")
        assert _outcome(lambda: bucket.copy("key", "copy", retain=retention)) in refused
        assert _outcome(lambda: bucket.retain("key", retention.until, mode=retention.mode)) in refused
        assert bucket.lock_of("key") == Lock()
        if features.legal_hold:
            held = {None} if features.hold_anywhere else refused
            assert _outcome(lambda: bucket.put("held", b"x", hold=True)) in held
            assert _outcome(lambda: bucket.hold("key")) in held
            assert bucket.lock_of("key") == Lock(hold=features.hold_anywhere)
            if features.hold_anywhere:
                self._assert_locked(bucket, "held")
                bucket.release("held")
                bucket.release("key")

    def test_what_is_missing_is_neither_retained_nor_held(self, lockable: Bucket, features: BlobFeatures) -> None:
        retention = self._retention(features)
        with pytest.raises(NotFound):
            lockable.retain("missing", retention.until, mode=retention.mode)
        with pytest.raises(NotFound):
            lockable.lock_of("missing")
        if features.legal_hold:
            with pytest.raises(NotFound):
                lockable.hold("missing")

    def test_an_impossible_lock_is_refused_before_anything_is_sent(
        self, watched: Bucket, recorded: Recorded[BlobDriver], features: BlobFeatures
    ) -> None:
        self._needs(features, "object_lock")
        naive = datetime(2100, 1, 1)  # noqa: DTZ001  that is what is wrong with it
        with pytest.raises(InvalidArgument, match="zone"):
            watched.retain("key", naive)
        with pytest.raises(InvalidArgument):
            watched.retain("key", datetime.now(UTC), mode=cast("Any", "forever"))
        if features.max_retention is not None:
            late = datetime.now(UTC) + timedelta(days=features.max_retention.value + 1)
            retention = Retention(until=late, mode=self._modes(features)[0])
            for use in (
                lambda: watched.put("key", b"", retain=retention),
                lambda: watched.retain("key", late, mode=retention.mode),
            ):
                with pytest.raises(InvalidArgument, match="limit"):
                    use()
        assert recorded.calls == []

    # copies

    def test_a_copy_keeps_content_headers_metadata_and_tags(
        self, bucket: Bucket, make_bucket: MakeBucket, features: BlobFeatures
    ) -> None:
        data, target = gzip.compress(b"copied"), make_bucket()
        kept = _everything(features)
        source = bucket.put("a b/ü", data, **kept)
        for to, to_key in ((bucket, "c d/é"), (target, "c d/é"), (bucket, "a b/ü2")):
            info = bucket.copy("a b/ü", to_key, to=to)
            assert (info.key, info.size) == (to_key, len(data))
            assert to.get(to_key) == data
            stat = to.stat(to_key)
            assert info.token == stat.token
            self._assert_kept(to, to_key, kept)
        assert bucket.stat("a b/ü").token == source.token

    def test_a_copy_replaces_the_target_only_under_its_conditions(self, bucket: Bucket, features: BlobFeatures) -> None:
        self._needs(features, "if_absent", "if_match")
        kept = _everything(features)
        bucket.put("source", b"new", **kept)
        old = bucket.put("target", b"old")
        with pytest.raises(PreconditionFailed):
            bucket.copy("source", "target", if_absent=True)
        newer = bucket.put("target", b"newer")
        with pytest.raises(PreconditionFailed):
            bucket.copy("source", "target", if_match=old.token)
        assert bucket.get("target") == b"newer"
        bucket.copy("source", "target", if_match=newer.token)
        bucket.copy("source", "fresh", if_absent=True)
        for key in ("target", "fresh"):
            assert bucket.get(key) == b"new"
            self._assert_kept(bucket, key, kept)

    def test_a_copy_names_the_bucket_that_is_missing(self, bucket: Bucket, missing: Bucket) -> None:
        bucket.put("key", b"x")
        for source, target in ((bucket, missing), (missing, bucket)):
            with pytest.raises(ParentNotFound) as caught:
                source.copy("key", "other", to=target)
            assert missing.name in str(caught.value)
            assert f"{missing.resource} does not exist" in str(caught.value)

    def test_an_object_is_not_copied_onto_itself(self, watched: Bucket, recorded: Recorded[BlobDriver]) -> None:
        watched.put("key", b"x")
        recorded.calls.clear()
        with pytest.raises(InvalidArgument):
            watched.copy("key", "key")
        assert recorded.calls == []

    def test_a_copy_goes_to_and_comes_from_another_provider(self, bucket: Bucket, features: BlobFeatures) -> None:
        elsewhere = BlobStore(MemoryBlobDriver()).create(BucketSpec(name="elsewhere"))
        data = self._parts_of(features, 2)
        kept = _everything(features)
        bucket.put("out", data, **kept)
        bucket.copy("out", "there", to=elsewhere)
        assert elsewhere.get("there") == data
        self._assert_kept(elsewhere, "there", kept)
        elsewhere.copy("there", "back", to=bucket)
        assert bucket.get("back") == data
        self._assert_kept(bucket, "back", kept)

    # presigned URLs

    def test_a_presigned_url_reads_writes_and_deletes(self, bucket: Bucket, features: BlobFeatures) -> None:
        self._needs(features, "sign")
        key = "a b/é?#%+&"
        if bucket.check_key(key) is not None:
            key = "a b/é+&"
        bucket.put(key, b"signed")
        assert self.fetch(bucket.sign(key)) == b"signed"
        self.fetch(
            bucket.sign(key, method="PUT", content_type="text/x"), method="PUT", data=b"new", content_type="text/x"
        )
        assert bucket.get(key) == b"new"
        assert not features.headers or bucket.stat(key).headers.content_type == "text/x"
        self.fetch(bucket.sign(key, method="DELETE"), method="DELETE")
        assert not bucket.exists(key)

    def test_a_presigned_url_lives_as_long_as_the_features_say(self, bucket: Bucket, features: BlobFeatures) -> None:
        self._needs(features, "sign")
        limit = features.max_sign
        bucket.put("key", b"content")
        longest = timedelta(days=limit.value if limit else 3650)
        assert self.fetch(bucket.sign("key", expires=longest)) == b"content"
        if limit is not None:
            with pytest.raises(InvalidArgument, match=f"the limit is {limit} days"):
                bucket.sign("key", expires=longest + timedelta(seconds=1))

    def test_a_presigned_url_is_for_one_method_and_one_key(self, bucket: Bucket, features: BlobFeatures) -> None:
        self._needs(features, "sign")
        bucket.put("key", b"kept")
        bucket.put("other", b"not yours")
        for method, others in {"GET": ("PUT", "DELETE"), "PUT": ("GET", "DELETE"), "DELETE": ("GET", "PUT")}.items():
            url = bucket.sign("key", method=method)  # type: ignore[arg-type]  # keys of a dict are any text
            for other in others:
                status, _, _ = self.exchange(url, method=other, data=b"new" if other == "PUT" else None)
                assert status in {400, 401, 403, 405}, (method, other)
            path, question, query = url.partition("?")
            elsewhere = path.removesuffix("key") + "other" + question + query
            status, _, content = self.exchange(elsewhere, method=method, data=b"new" if method == "PUT" else None)
            assert status in {400, 401, 403}, method
            assert b"not yours" not in content
        assert bucket.get("key") == b"kept"
        assert bucket.get("other") == b"not yours"

    def test_a_presigned_url_names_the_headers_that_a_write_must_carry(
        self, bucket: Bucket, features: BlobFeatures
    ) -> None:
        self._needs(features, "sign")
        url = bucket.sign("key", method="PUT", content_type="text/x")
        assert url.headers["Content-Type"] == "text/x"
        status, _, _ = self.exchange(url, method="PUT", data=b"content")
        assert status in {200, 201}
        assert bucket.get("key") == b"content"
        assert not features.headers or bucket.stat("key").headers.content_type == "text/x"
        assert bucket.sign("key").headers == {}

    def test_a_presigned_url_says_the_headers_of_the_answer(self, bucket: Bucket, features: BlobFeatures) -> None:
        self._needs(features, "sign", "sign_answer")
        bucket.put("key", b"content", content_type="text/plain")
        answer = Headers(content_type="text/html; charset=utf-8", content_disposition='attachment; filename="a b.html"')
        status, headers, content = self.exchange(bucket.sign("key", answer=answer))
        assert (status, content) == (200, b"content")
        assert headers["content-type"] == answer.content_type
        assert headers["content-disposition"] == answer.content_disposition
        status, headers, _ = self.exchange(bucket.sign("key", answer=Headers(content_disposition="inline")))
        assert (headers["content-type"], headers["content-disposition"]) == ("text/plain", "inline")
        assert bucket.stat("key").headers.content_type == "text/plain"

    def test_a_presigned_url_is_for_one_content(self, bucket: Bucket, features: BlobFeatures) -> None:
        self._needs(features, "sign", "sign_md5")
        digest = hashlib.md5(b"expected", usedforsecurity=False).digest()
        url = bucket.sign("key", method="PUT", md5=digest)
        bare = {name: value for name, value in url.headers.items() if name.lower() != "content-md5"}
        for headers in (None, bare):
            status, _, _ = self.exchange(url, method="PUT", data=b"another!", headers=headers)
            assert 400 <= status < 500, headers
            assert not bucket.exists("key")
        status, _, _ = self.exchange(url, method="PUT", data=b"expected")
        assert status in {200, 201}
        assert bucket.get("key") == b"expected"

    def test_a_presigned_url_is_for_one_size(self, bucket: Bucket, features: BlobFeatures) -> None:
        self._needs(features, "sign", "sign_size")
        url = bucket.sign("key", method="PUT", size=8)
        headers = {name: value for name, value in url.headers.items() if name.lower() != "content-length"}
        for data in (b"shorter", b"too long!", b""):
            status, _, _ = self.exchange(url, method="PUT", data=data, headers=headers)
            assert 400 <= status < 500, data
            assert not bucket.exists("key")
        status, _, _ = self.exchange(url, method="PUT", data=b"expected", headers=headers)
        assert status in {200, 201}
        assert bucket.get("key") == b"expected"

    def test_what_a_url_cannot_bind_is_refused_before_anything_is_sent(
        self, watched: Bucket, recorded: Recorded[BlobDriver], features: BlobFeatures
    ) -> None:
        self._needs(features, "sign", "sign_answer", "sign_md5", "sign_size")
        for options in (
            {"answer": Headers(cache_control="no-store")},
            {"answer": Headers(content_type="a\r\nb: c")},
            {"answer": Headers(content_type="a"), "method": "PUT"},
            {"md5": b"x" * 16},
            {"md5": b"x" * 15, "method": "PUT"},
            {"size": 1},
            {"size": -1, "method": "PUT"},
        ):
            with pytest.raises(InvalidArgument):
                watched.sign("key", **cast("Any", options))
        assert recorded.calls == []

    def test_a_senseless_url_is_refused_before_anything_is_sent(
        self, watched: Bucket, recorded: Recorded[BlobDriver], features: BlobFeatures
    ) -> None:
        self._needs(features, "sign")
        for options in ({"method": "POST"}, {"expires": timedelta()}, {"content_type": "text/x"}):
            with pytest.raises(InvalidArgument):
                watched.sign("key", **options)
        assert recorded.calls == []

    # threads

    def test_a_bucket_is_used_from_many_threads(self, bucket: Bucket) -> None:
        def work(number: int) -> list[str]:
            for turn in range(3):
                key, data = f"t{number:02d}/{turn}", b"%d-%d" % (number, turn)
                bucket.put(key, data)
                assert bucket.get(key) == data
                assert bucket.stat(key).size == len(data)
            bucket.delete(f"t{number:02d}/0")
            return [item.key for item in bucket.list(f"t{number:02d}/")]

        with ThreadPoolExecutor(self.threads) as pool:
            results = list(pool.map(work, range(self.threads)))
        assert results == [[f"t{number:02d}/1", f"t{number:02d}/2"] for number in range(self.threads)]

    # features

    def test_what_the_features_deny_is_refused_before_anything_is_sent(
        self, driver: BlobDriver, bucket: Bucket, features: BlobFeatures
    ) -> None:
        denied = dict.fromkeys(_OPTIONAL, False)
        recorded = Recorded(driver, features=attrs.evolve(features, **cast("Any", denied)))
        barred = Bucket(recorded.driver, bucket.name)
        for field, uses in _OPTIONAL.items():
            for use in uses:
                assert _outcome(functools.partial(use, barred)) is Unsupported, field
        with pytest.raises(Unsupported):
            BlobStore(recorded.driver).create(BucketSpec(name=_name(), versioning=True))
        barred_store = BlobStore(Recorded(driver, features=attrs.evolve(features, lifecycle=False)).driver)
        with pytest.raises(Unsupported):
            barred_store.create(BucketSpec(name=_name(), lifecycle=(LifecycleRule(expire_days=1),)))
        if not features.serve:
            with pytest.raises(Unsupported):
                BlobStore(recorded.driver).serve(0)
        assert recorded.calls == []

    def test_what_the_features_deny_the_driver_does_not_have(
        self, driver: BlobDriver, bucket: Bucket, features: BlobFeatures
    ) -> None:
        bucket.put("key", b"x")
        uses: dict[str, Callable[[], object]] = {
            "copy": lambda: driver.copy(bucket.name, "key", bucket.name, "other", None),
            "tags": lambda: driver.tags(bucket.name, "key"),
            "object_lock": lambda: driver.set_retention(
                bucket.name, "key", attrs.evolve(_LONG, mode="compliance"), version=None, bypass=False
            ),
            "legal_hold": lambda: driver.set_hold(bucket.name, "key", hold=True, version=None),
            "versioning": lambda: driver.versions(bucket.name, prefix="", cursor=None, limit=None),
            "sign": lambda: driver.sign(
                bucket.name, "key", method="GET", expires=timedelta(hours=1), content_type=None
            ),
            "serve": lambda: driver.serve(0),
            "uploads": lambda: driver.uploads(bucket.name, prefix="", cursor=None, limit=None),
            "delete_batch": lambda: driver.delete_many(bucket.name, ("key",)),
        }
        denied = {name: use for name, use in uses.items() if not getattr(features, name)}
        assert {name: _outcome(use) for name, use in denied.items()} == dict.fromkeys(denied, Unsupported)

    def test_every_limit_names_its_source(self, features: BlobFeatures) -> None:
        limits = {name: value for name, _, value in features.rows() if hasattr(value, "source")}
        assert {name: bool(limit.source) for name, limit in limits.items()} == dict.fromkeys(limits, True)
        assert features.max_key.value > 0
        assert features.part_size.value > 0

    # help

    def _needs(self, features: BlobFeatures, *names: str) -> None:
        """Skip what the driver says it cannot; that it refuses it is a test of its own."""
        for name in names:
            if not getattr(features, name):
                pytest.skip(f"{features.title}: features.{name} says no, and the refusal is tested")

    def _modes(self, features: BlobFeatures) -> tuple[RetentionMode, ...]:
        return ("governance", "compliance") if features.governance else ("compliance",)

    def _retention(self, features: BlobFeatures, *, minutes: int = 10, mode: RetentionMode | None = None) -> Retention:
        """Return one that ends so soon; without a mode, the first that there is."""
        until = datetime.now(UTC) + timedelta(minutes=minutes)
        return Retention(until=until, mode=mode or self._modes(features)[0])

    def _assert_locked(self, bucket: Bucket, key: str, version: str | None = None) -> None:
        """Fail if the version can be deleted; without one that which is there now."""
        info = bucket.stat(key, version=version)
        assert _outcome(lambda: bucket.delete(key, version=info.version)) in _REFUSED, key
        assert bucket.stat(key, version=info.version) == info

    def _assert_free(self, bucket: Bucket, key: str) -> None:
        """Fail if what is there now cannot be deleted for good."""
        info = bucket.stat(key)
        bucket.delete(key, version=info.version)
        assert not bucket.exists(key)

    def _parts_of(self, features: BlobFeatures, count: int) -> bytes:
        """Return content that needs at least so many parts."""
        return _content((count - 1) * max(features.part_size.value, 8 * MIB) + 12_345)

    def _begun(self, driver: BlobDriver, bucket: Bucket, key: str) -> Upload:
        """Begin an upload that is never completed, and send one byte of it."""
        upload = driver.upload_begin(bucket.name, key, PutOptions())
        driver.upload_part(upload, 1, b"x", 0)
        return upload

    def _many(self, bucket: Bucket, oracle: BlobOracle) -> list[str]:
        """Write many keys in a random order and return them sorted; the last one lies outside ``k/``."""
        special = ["k/\uff5e", "k/\U0001f600", "k/Z", "k/é", "k/~", "l"]
        keys = [f"k/{number:05d}" for number in range(self.many_keys - len(special))]
        keys += [key for key in special if bucket.check_key(key) is None]
        for key in random.Random(7).sample(keys, len(keys)):  # noqa: S311  an order, not a secret
            oracle.put_raw(bucket.name, key, b"x")
        return sorted(keys, key=str.encode)

    def _race(self, write: Callable[[int], object]) -> int:
        """Let many write at once; return who won, if it was exactly one."""
        barrier = threading.Barrier(self.racers)

        def run(number: int) -> type[BaseException] | None:
            barrier.wait(timeout=30)
            return _outcome(lambda: write(number))

        with ThreadPoolExecutor(self.racers) as pool:
            outcomes = list(pool.map(run, range(self.racers)))
        winners = [number for number, outcome in enumerate(outcomes) if outcome is None]
        assert len(winners) == 1, outcomes
        assert set(outcomes) <= {None, PreconditionFailed, Conflict}
        return winners[0]

    def _assert_kept(self, bucket: Bucket, key: str, kept: Mapping[str, Any]) -> None:
        info = bucket.stat(key)
        if "headers" in kept:
            assert info.headers == kept["headers"]
        if "metadata" in kept:
            assert info.metadata == kept["metadata"]
        if "tags" in kept:
            assert bucket.tags(key) == kept["tags"]

    def _uses_of_a_key(self, bucket: Bucket, key: str) -> tuple[Callable[[], object], ...]:
        return (
            lambda: bucket.put(key, b""),
            lambda: bucket.get(key),
            lambda: bucket.stream(key),
            lambda: bucket.open(key),
            lambda: bucket.open(key, "wb"),
            lambda: bucket.stat(key),
            lambda: bucket.exists(key),
            lambda: bucket.delete(key),
            lambda: bucket.copy(key, "other"),
            lambda: bucket.copy("other", key),
            lambda: bucket.restore(key, "1"),
            lambda: bucket.download(key, Path("never")),
            lambda: bucket.tags(key),
            lambda: bucket.sign(key),
        )


_LONG = Retention(until=datetime(2030, 1, 1, tzinfo=UTC))
_REFUSED = {PermissionDenied, Conflict}
"""How providers say that something is locked: S3 cannot be told apart from a permission that is missing."""

_OPTIONAL: Mapping[str, tuple[Callable[[Bucket], object], ...]] = {
    "if_absent": (lambda bucket: bucket.put("key", b"", if_absent=True),),
    "if_match": (
        lambda bucket: bucket.put("key", b"", if_match=Token("x")),
        lambda bucket: bucket.open("key", "wb", if_match=Token("x")),
        lambda bucket: bucket.copy("key", "other", if_match=Token("x")),
    ),
    "delete_if_match": (lambda bucket: bucket.delete("key", if_match=Token("x")),),
    "headers": (lambda bucket: bucket.put("key", b"", content_type="text/plain"),),
    "metadata": (lambda bucket: bucket.put("key", b"", metadata={"a": "b"}),),
    "tags": (
        lambda bucket: bucket.put("key", b"", tags={"a": "b"}),
        lambda bucket: bucket.tags("key"),
        lambda bucket: bucket.set_tags("key", {}),
    ),
    "versioning": (
        lambda bucket: bucket.get("key", version="1"),
        lambda bucket: bucket.stat("key", version="1"),
        lambda bucket: bucket.delete("key", version="1"),
        lambda bucket: bucket.copy("key", "other", version="1"),
        lambda bucket: bucket.restore("key", "1"),
        lambda bucket: bucket.versions(),
    ),
    "restore": (lambda bucket: bucket.tags("key", version="1"),),
    "object_lock": (
        lambda bucket: bucket.put("key", b"", retain=_LONG),
        lambda bucket: bucket.open("key", "wb", retain=_LONG),
        lambda bucket: bucket.copy("key", "other", retain=_LONG),
        lambda bucket: bucket.retain("key", _LONG.until),
        lambda bucket: bucket.lock_of("key"),
    ),
    "legal_hold": (
        lambda bucket: bucket.put("key", b"", hold=True),
        lambda bucket: bucket.open("key", "wb", hold=True),
        lambda bucket: bucket.copy("key", "other", hold=True),
        lambda bucket: bucket.hold("key"),
        lambda bucket: bucket.release("key"),
    ),
    "governance": (lambda bucket: bucket.retain("key", _LONG.until),),
    "storage_classes": (
        lambda bucket: bucket.put("key", b"", storage_class="standard"),
        lambda bucket: bucket.open("key", "wb", storage_class="standard"),
        lambda bucket: bucket.copy("key", "other", storage_class="standard"),
    ),
    "sign": (lambda bucket: bucket.sign("key"),),
    "sign_answer": (lambda bucket: bucket.sign("key", answer=Headers(content_type="a/b")),),
    "sign_md5": (lambda bucket: bucket.sign("key", method="PUT", md5=b"x" * 16),),
    "sign_size": (lambda bucket: bucket.sign("key", method="PUT", size=1),),
    "uploads": (lambda bucket: bucket.uploads(), lambda bucket: bucket.abort_uploads()),
}


def _everything(features: BlobFeatures) -> dict[str, Any]:
    """Return what an object can carry beside its content."""
    carried = {"headers": HEADERS, "metadata": {"author": "ada"}, "tags": {"team": "a"}}
    return {name: value for name, value in carried.items() if getattr(features, name)}


def _name() -> str:
    return f"conf-{uuid.uuid4().hex[:12]}"


def _content(size: int) -> bytes:
    return random.Random(size).randbytes(size)  # noqa: S311  content, not a secret


def _cut(data: bytes, sizes: tuple[int, ...]) -> Iterator[bytes]:
    at = 0
    for size in itertools.cycle(sizes):
        if at >= len(data):
            return
        yield data[at : at + size]
        at += size


def _emptied(bucket: Bucket, *, versioning: bool) -> None:
    if bucket.features.uploads:
        bucket.abort_uploads(older_than=timedelta())
    if not versioning:  # in batches, where a version has to be deleted by itself
        assert bucket.delete_many(item.key for item in bucket.list()) == {}
    if bucket.features.versioning:
        for row in bucket.versions():
            bucket.delete(row.key, version=row.version)


def _shown(items: Iterator[ObjectSummary | CommonPrefix]) -> list[str]:
    return [f"<{item.prefix}>" if isinstance(item, CommonPrefix) else item.key for item in items]


def _raised(call: Callable[[], object]) -> OperationError:
    with pytest.raises(OperationError) as caught:
        call()
    return caught.value


def _digests(contents: Mapping[str, bytes], names: Iterable[str]) -> dict[tuple[str, str], bytes]:
    return {(key, name): CHECKSUMS[name](data) for key, data in contents.items() for name in names}


def _lowered(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers}


def _outcome(call: Callable[[], object]) -> type[BaseException] | None:
    try:
        call()
    except OperationError as exc:
        return type(exc)
    return None

"""Objects as plain files: the rules of every blob store, and what only a file system brings."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import pickle
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shiftable.blob import BlobStore, Bucket, BucketSpec, CommonPrefix, Headers
from shiftable.blob.driver import Part, PutOptions, Range, Upload
from shiftable.errors import (
    AlreadyExists,
    Conflict,
    IntegrityError,
    InvalidArgument,
    NotFound,
    OperationError,
    ParentNotFound,
    PermissionDenied,
    PreconditionFailed,
    QuotaExceeded,
)
from shiftable.memory.blob import MemoryBlobDriver
from shiftable.testing.conformance.blob import BlobConformance
from shiftable_baremetal import _tree
from shiftable_baremetal._sidecar import modified
from shiftable_baremetal.blob import FilesDriver

from ..small_disk import small_disk

NOTHING = PutOptions()


class Files:
    """The same store with nothing but ``pathlib``."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def put_raw(self, bucket: str, key: str, data: bytes) -> None:
        path = self.root / bucket / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    def get_raw(self, bucket: str, key: str) -> bytes | None:
        path = self.root / bucket / key
        return path.read_bytes() if path.is_file() else None

    def keys(self, bucket: str) -> list[str]:
        folder = self.root / bucket
        return [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()]


class TestFilesConformance(BlobConformance):
    @pytest.fixture
    def root(self, tmp_path_factory: pytest.TempPathFactory) -> Path:
        return tmp_path_factory.mktemp("root")

    @pytest.fixture
    def driver(self, root: Path) -> Iterator[FilesDriver]:
        driver = FilesDriver(root, fsync=False)
        with driver.serve(0) as server:
            driver.sign_url = server.url
            yield driver
        driver.close()

    @pytest.fixture
    def oracle(self, root: Path) -> Files:
        return Files(root)


@pytest.fixture
def driver(tmp_path: Path) -> Iterator[FilesDriver]:
    driver = FilesDriver(tmp_path, fsync=False)
    yield driver
    driver.close()


@pytest.fixture
def bucket(driver: FilesDriver) -> Bucket:
    return BlobStore(driver).create(BucketSpec(name="shop"))


@pytest.fixture
def folder(tmp_path: Path, bucket: Bucket) -> Path:
    """Return the bucket's folder."""
    return tmp_path / bucket.name


def versioned(root: Path) -> Bucket:
    return BlobStore(FilesDriver(root, fsync=False)).create(BucketSpec(name="kept", versioning=True))


def keys(bucket: Bucket, prefix: str = "", **options: Any) -> list[str]:
    return [item.key for item in bucket.list(prefix, **options)]


def shown(bucket: Bucket, prefix: str = "", delimiter: str = "/") -> list[str]:
    items = bucket.list_folder(prefix, delimiter=delimiter)
    return [f"<{item.prefix}>" if isinstance(item, CommonPrefix) else item.key for item in items]


def files_below(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir())


def sidecars(root: Path, bucket: str = "shop") -> list[str]:
    return files_below(root / ".shiftable" / "buckets" / bucket / "sidecars")


def leftovers(root: Path) -> list[str]:
    """Return what is on its way into place and should not stay."""
    area = root / ".shiftable"
    return [*files_below(area / "staging"), *(str(path) for path in area.glob("buckets/*/uploads/*"))]


# what native tools see


def test_an_object_is_the_plain_file_of_that_path(folder: Path, bucket: Bucket) -> None:
    bucket.put("a/b.txt", b"text", content_type="text/plain", metadata={"n": "1"}, tags={"t": "1"})
    assert files_below(folder) == ["a/b.txt"]
    assert subprocess.check_output(["/bin/cat", folder / "a/b.txt"]) == b"text"


def test_a_large_object_in_parts_is_one_plain_file(folder: Path, tmp_path: Path, bucket: Bucket) -> None:
    data = random.Random(1).randbytes(20 * 1024 * 1024)  # noqa: S311  content
    bucket.put("big", iter([data]))
    assert (folder / "big").read_bytes() == data
    assert leftovers(tmp_path) == []


def test_a_file_that_other_tools_placed_has_default_headers_and_no_md5(folder: Path, bucket: Bucket) -> None:
    (folder / "a").mkdir()
    (folder / "a/b.txt").write_bytes(b"theirs")
    info = bucket.stat("a/b.txt")
    assert (info.size, info.headers, info.metadata, info.md5) == (6, Headers(), {}, None)
    assert bucket.get("a/b.txt", if_match=info.token) == b"theirs"
    assert bucket.tags("a/b.txt") == {}


def test_a_file_that_other_tools_changed_has_another_token_and_no_old_metadata(folder: Path, bucket: Bucket) -> None:
    old = bucket.put("key", b"12345", content_type="text/plain", metadata={"n": "1"}, tags={"t": "1"})
    with (folder / "key").open("r+b") as file:
        file.write(b"abcde")  # in place, same size
    new = bucket.stat("key")
    assert new.token != old.token
    assert (new.headers, new.metadata, new.md5, bucket.tags("key")) == (Headers(), {}, None, {})
    with pytest.raises(PreconditionFailed):
        bucket.put("key", b"", if_match=old.token)
    with pytest.raises(PreconditionFailed):
        bucket.get("key", if_match=old.token)
    bucket.put("key", b"fresh", if_match=new.token, metadata={"n": "2"})
    assert bucket.stat("key").metadata == {"n": "2"}


def test_a_file_that_other_tools_replaced_and_dated_back_has_another_token(folder: Path, bucket: Bucket) -> None:
    old = bucket.put("key", b"12345", metadata={"n": "1"})
    found = (folder / "key").stat()
    (folder / "new").write_bytes(b"abcde")
    os.utime(folder / "new", ns=(found.st_mtime_ns, found.st_mtime_ns))
    (folder / "new").rename(folder / "key")
    assert bucket.stat("key").token != old.token
    assert bucket.stat("key").md5 is None  # its time and size are those of a copy of the root, its content may not be
    assert bucket.get("key") == b"abcde"


def test_tags_of_a_file_that_other_tools_placed_are_kept(folder: Path, bucket: Bucket) -> None:
    (folder / "key").write_bytes(b"theirs")
    token = bucket.stat("key").token
    bucket.set_tags("key", {"team": "a"})
    assert bucket.tags("key") == {"team": "a"}
    assert bucket.stat("key").token == token


def test_a_rename_by_other_tools_moves_the_content_alone(folder: Path, bucket: Bucket) -> None:
    bucket.put("old", b"x", metadata={"n": "1"})
    (folder / "old").rename(folder / "new")
    assert keys(bucket) == ["new"]
    assert bucket.stat("new").metadata == {}


def test_reading_a_file_that_other_tools_change_meanwhile_is_an_integrity_error(folder: Path, bucket: Bucket) -> None:
    bucket.put("key", b"x" * 3_000_000)
    with bucket.stream("key") as stream:
        next(iter(stream))
        os.truncate(folder / "key", 10)
        with pytest.raises(IntegrityError):
            stream.read()


def test_what_is_being_read_stays_whole_when_it_is_replaced(driver: FilesDriver, bucket: Bucket) -> None:
    old = b"a" * 3_000_000
    bucket.put("key", old)
    download = driver.get("shop", "key", range_=None, if_match=None, version=None)
    bucket.put("key", b"new")
    assert b"".join(download.chunks) == old


def test_folders_that_become_empty_are_removed_up_to_the_bucket(folder: Path, bucket: Bucket) -> None:
    bucket.put("a/b/c", b"")
    bucket.put("a/d", b"")
    bucket.delete("a/b/c")
    assert [path.name for path in folder.rglob("*")] == ["a", "d"]
    bucket.delete("a/d")
    assert list(folder.iterdir()) == []


def test_a_failed_condition_leaves_no_folder_behind(folder: Path, bucket: Bucket) -> None:
    token = bucket.put("key", b"").token
    with pytest.raises(PreconditionFailed):
        bucket.put("a/b/c", b"", if_match=token)
    assert [path.name for path in folder.iterdir()] == ["key"]


# keys and names


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        ("", "the key is empty"),
        ("a//b", "the key holds '//': a path cannot keep an empty name"),
        ("/a", "the key begins with '/': no file has such a path"),
        ("a/", "the key ends with '/': no file has such a path"),
        ("a/./b", "the key holds the name '.', which means a folder"),
        ("a/../../etc/passwd", "the key holds the name '..', which means a folder"),
        ("..", "the key holds the name '..', which means a folder"),
        ("a\0b", "a path has no NUL"),
        ("a/" + "x" * 256, "a name in the key has 256 bytes; a folder holds names up to 255"),
        ("é" * 128, "a name in the key has 256 bytes; a folder holds names up to 255"),
        (".shiftable/x", "names that begin with '.shiftable' are kept for shiftable's own files"),
        ("a/.shiftable-x", "names that begin with '.shiftable' are kept for shiftable's own files"),
        ("\ud800", "the key is not Unicode text"),
    ],
)
def test_a_key_that_is_no_path_is_refused_with_the_reason(driver: FilesDriver, key: str, reason: str) -> None:
    assert driver.check_key(key) == reason


def test_a_key_is_refused_when_other_tools_could_not_open_its_path(tmp_path: Path) -> None:
    root = tmp_path
    while len(os.fsencode(root)) < 2000:
        root /= "d" * 200
    key = "/".join(["k" * 200] * 10)
    assert FilesDriver(tmp_path).check_key(key) is None
    assert "paths have room for" in str(FilesDriver(root).check_key(key))


@pytest.mark.parametrize("name", ["", ".", "..", ".hidden", ".shiftable", "a/b", "nul\0", "\ud800", "é" * 101])
def test_a_bucket_that_could_not_be_a_folder_is_refused(driver: FilesDriver, name: str) -> None:
    assert driver.check_name(name)
    with pytest.raises(InvalidArgument):
        BlobStore(driver).create(BucketSpec(name=name))


@pytest.mark.parametrize("name", ["shop", "Shop Ö", "x" * 200, "a.b", "-"])
def test_any_other_folder_is_a_bucket(driver: FilesDriver, name: str) -> None:
    BlobStore(driver).create(BucketSpec(name=name)).put("k", b"x")
    assert [bucket.name for bucket in BlobStore(driver).list()] == [name]


def test_an_object_and_a_folder_of_one_name_exclude_each_other(bucket: Bucket) -> None:
    bucket.put("a", b"kept")
    with pytest.raises(Conflict, match="'a' is an object: beside it there can be no 'a/…'") as caught:
        bucket.put("a/b", b"")
    assert "a/b" in str(caught.value)
    bucket.put("c/d/e", b"kept")
    with pytest.raises(Conflict, match="'c/d/e' is an object: beside it there can be no 'c'"):
        bucket.put("c", b"")
    with pytest.raises(Conflict, match="'c/d/e' is an object: beside it there can be no 'c/d'"):
        bucket.put("c/d", b"", if_absent=True)
    assert keys(bucket) == ["a", "c/d/e"]
    for call in (bucket.get, bucket.stat):
        for key in ("a/b", "c", "c/d"):
            with pytest.raises(NotFound) as missing:
                call(key)
            assert type(missing.value) is NotFound
    bucket.delete("a/b")
    bucket.delete("c")
    assert keys(bucket) == ["a", "c/d/e"]


def test_an_empty_folder_gives_way_to_an_object(folder: Path, bucket: Bucket) -> None:
    (folder / "a/b/c").mkdir(parents=True)
    bucket.put("a", b"x")
    assert bucket.get("a") == b"x"


# links, pipes, strange names


def test_links_are_neither_listed_nor_followed(tmp_path: Path, folder: Path, bucket: Bucket) -> None:
    outside = tmp_path.parent / f"{tmp_path.name}-outside"
    outside.mkdir()
    (outside / "secret").write_bytes(b"secret")
    (folder / "link").symlink_to(outside)
    (folder / "file").symlink_to(outside / "secret")
    (folder / "dangling").symlink_to(outside / "new")
    bucket.put("real/key", b"x")
    (folder / "real/up").symlink_to("..")
    assert keys(bucket) == ["real/key"]
    assert shown(bucket) == ["<real/>"]
    assert keys(bucket, "link/") == []
    for key in ("link/secret", "file", "dangling", "real/up/real/key"):
        with pytest.raises(NotFound):
            bucket.get(key)
        for condition in ({}, {"if_absent": True}):
            with pytest.raises(Conflict):
                bucket.put(key if key != "link/secret" else "link/new", b"evil", **condition)
        bucket.delete(key)
        with pytest.raises(NotFound):
            bucket.set_tags(key, {"a": "b"})
    assert {path.name: path.read_bytes() for path in outside.iterdir()} == {"secret": b"secret"}
    assert sorted(path.name for path in folder.iterdir()) == ["dangling", "file", "link", "real"]


def test_a_folder_that_becomes_a_link_meanwhile_is_not_followed(tmp_path: Path, folder: Path, bucket: Bucket) -> None:
    outside = tmp_path.parent / f"{tmp_path.name}-outside"
    outside.mkdir()
    stop = threading.Event()

    def swap() -> None:
        place, aside = folder / "d", tmp_path / "aside"
        while not stop.is_set():
            with suppress(OSError):
                place.rename(aside)
            with suppress(OSError):
                place.symlink_to(outside)
            with suppress(OSError):
                place.unlink()
            with suppress(OSError):
                aside.rename(place)

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        for number in range(300):
            with suppress(Conflict, NotFound):
                bucket.put(f"d/{number}", b"x")
    finally:
        stop.set()
        thread.join()
    assert list(outside.iterdir()) == []


def test_a_link_beside_the_buckets_is_no_bucket(tmp_path: Path, driver: FilesDriver) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    store = BlobStore(driver)
    assert [bucket.name for bucket in store.list()] == ["real"]
    assert not store.exists("link")
    with pytest.raises(ParentNotFound):
        store.bucket("link").put("key", b"")


def test_no_key_leads_out_of_the_root_even_unchecked(tmp_path: Path, driver: FilesDriver, bucket: Bucket) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    bucket.put("a/key", b"x")
    for key in ("../secret", "a/../../secret", "/etc/passwd", "a//key", "."):
        for call in (
            lambda key=key: driver.get("shop", key, range_=None, if_match=None, version=None),
            lambda key=key: driver.put("shop", key, b"evil", NOTHING),
            lambda key=key: driver.delete("shop", key, if_match=None, version=None),
            lambda key=key: driver.copy("shop", "a/key", "shop", key, None),
        ):
            with pytest.raises(Exception, match="is no path below the bucket"):
                call()
    for name in ("..", ".", ".shiftable", "shop/a", "/"):
        with pytest.raises(Exception, match="no folder for the bucket"):
            driver.put(name, "key", b"evil", NOTHING)
    assert (tmp_path / "secret").read_bytes() == b"secret"
    assert files_below(tmp_path / "shop") == ["a/key"]


def test_a_lock_ends_although_a_child_was_forked_meanwhile(driver: FilesDriver, bucket: Bucket) -> None:
    read, write = os.pipe()
    with driver._area.locked("shop", "key"):
        child = os.fork()
        if child == 0:
            os.close(write)
            os.read(read, 1)  # until the parent is done
            os._exit(0)
    os.close(read)
    bucket.put("key", b"x")
    os.close(write)
    assert os.waitpid(child, 0)[1] == 0
    assert bucket.get("key") == b"x"


def test_pipes_and_sockets_are_no_objects(folder: Path, bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(folder / "pipe")
    monkeypatch.chdir(folder)  # a socket's path must be short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
        assert keys(bucket) == []
        for key in ("pipe", "socket"):
            with pytest.raises(NotFound):
                bucket.get(key)
            with pytest.raises(Conflict):
                bucket.put(key, b"")


def test_names_that_are_not_utf8_are_passed_over_with_one_warning(
    folder: Path, bucket: Bucket, caplog: pytest.LogCaptureFixture
) -> None:
    for name in (b"a", b"\xff1", b"\xff2", b"z"):
        (folder / os.fsdecode(name)).write_bytes(b"")
    (folder / os.fsdecode(b"\xffdir")).mkdir()
    with caplog.at_level(logging.WARNING, "shiftable_baremetal"):
        assert keys(bucket) == ["a", "z"]
    assert len(caplog.records) == 1


# listing


ORDER = ["a", "a b", "a!b", "a-b", "a.b", "a/b", "a/b-", "a/b/c", "a0", "aa", "b/\uff5e", "b/\U0001d11e", "é", "\uffff"]


def test_keys_come_in_the_order_of_their_utf8_bytes(folder: Path, bucket: Bucket) -> None:
    names = [name for name in ORDER if name not in {"a", "a/b"}]
    for name in names:
        bucket.put(name, b"")
    assert keys(bucket) == sorted(names, key=str.encode)
    assert sorted(files_below(folder)) == sorted(names)


segment = st.text(alphabet="a-./0é\uff5e\U0001d11e", min_size=1, max_size=4)


@settings(max_examples=150)
@given(
    st.sets(segment.filter(lambda key: FilesDriver(Path("/x")).check_key(key) is None), max_size=12),
    st.sampled_from(["", "a", "a/", "a-", "a/a", "/", "-", "..", "é", ".shiftable/"]),
    st.sampled_from([None, "/", "-", "a", "//", "/a", "é"]),
    st.one_of(st.none(), segment),
    st.integers(1, 3),
)
def test_a_listing_says_what_the_model_says(
    tmp_path_factory: pytest.TempPathFactory,
    names: set[str],
    prefix: str,
    delimiter: str | None,
    start_after: str | None,
    page: int,
) -> None:
    names = {name for name in names if not any(other.startswith(f"{name}/") for other in names)}
    drivers = FilesDriver(tmp_path_factory.mktemp("root"), fsync=False), MemoryBlobDriver()
    results = []
    for driver in drivers:
        driver.create(BucketSpec(name="b"))
        for name in names:
            driver.put("b", name, b"", NOTHING)
        found: list[str] = []
        cursor = None
        while True:
            answer = driver.list(
                "b", prefix=prefix, delimiter=delimiter, start_after=start_after, cursor=cursor, limit=page
            )
            found += [f"<{item.prefix}>" if isinstance(item, CommonPrefix) else item.key for item in answer.items]
            cursor = answer.next
            if cursor is None:
                break
        results.append(found)
        driver.close()
    assert results[0] == results[1]


def test_an_empty_folder_is_not_listed(folder: Path, bucket: Bucket) -> None:
    (folder / "empty/deeper").mkdir(parents=True)
    (folder / "links").mkdir()
    (folder / "links/x").symlink_to("/etc/passwd")
    bucket.put("full/x", b"")
    assert shown(bucket) == ["<full/>"]


def fill(folder: Path, names: Iterator[str]) -> None:
    for name in names:
        os.close(os.open(folder / name, os.O_CREAT))


@pytest.mark.parametrize(("folders", "each"), [(1, 20_000), (400, 25)])
def test_a_listing_of_many_pages_reads_each_folder_once(
    folder: Path, bucket: Bucket, monkeypatch: pytest.MonkeyPatch, folders: int, each: int
) -> None:
    names = [f"{number:03d}" for number in range(folders)]
    for name in names:
        (folder / name).mkdir()
        fill(folder / name, (f"{number:05d}" for number in range(each)))
    calls = {"scandir": 0, "open": 0}

    def counted(name: str) -> Callable[..., Any]:
        real = getattr(os, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            calls[name] += 1
            return real(*args, **kwargs)

        return call

    for name in calls:
        monkeypatch.setattr(os, name, counted(name))
    found = keys(bucket)
    monkeypatch.undo()
    assert found == [f"{name}/{number:05d}" for name in names for number in range(each)]
    assert calls["scandir"] == 1 + folders
    pages = folders * each // 1000 + 1
    assert calls["open"] <= 3 * folders + 2 * pages + 10


def test_a_listing_goes_on_in_another_process(tmp_path: Path, folder: Path, driver: FilesDriver) -> None:
    (folder / "d").mkdir()
    fill(folder, (f"{number:04d}" for number in range(50)))
    fill(folder / "d", (f"{number:04d}" for number in range(50)))
    found: list[str] = []
    cursor = None
    for _ in range(11):
        fresh = FilesDriver(tmp_path)
        page = fresh.list("shop", prefix="", delimiter=None, start_after=None, cursor=cursor, limit=10)
        fresh.close()
        found += [item.key for item in page.items if not isinstance(item, CommonPrefix)]
        cursor = page.next
        if cursor is None:
            break
    assert found == [f"{number:04d}" for number in range(50)] + [f"d/{number:04d}" for number in range(50)]


def test_a_cursor_may_be_used_twice_and_by_two_listings_at_once(folder: Path, driver: FilesDriver) -> None:
    fill(folder, (f"{number:02d}" for number in range(30)))

    def page(cursor: str | None) -> tuple[list[str], str | None]:
        found = driver.list("shop", prefix="", delimiter=None, start_after=None, cursor=cursor, limit=10)
        return [item.key for item in found.items if not isinstance(item, CommonPrefix)], found.next

    first, cursor = page(None)
    assert page(None) == (first, cursor)
    second = page(cursor)
    assert page(cursor) == second
    assert second[0] == [f"{number:02d}" for number in range(10, 20)]


def descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_listings_that_nobody_finishes_do_not_keep_descriptors(folder: Path, driver: FilesDriver) -> None:
    fill(folder, (f"{number:03d}" for number in range(100)))
    before = descriptors()
    for number in range(100):
        driver.list("shop", prefix="", delimiter=None, start_after=f"{number:03d}", cursor=None, limit=1)
    assert descriptors() - before <= 2 * 16
    driver.close()
    assert descriptors() == before


def test_objects_deleted_while_their_page_waits_are_passed_over(folder: Path, bucket: Bucket) -> None:
    fill(folder, (f"{number:04d}" for number in range(1500)))
    listing = bucket.list()
    seen = [next(listing).key for _ in range(10)]
    for number in range(1200, 1500):
        (folder / f"{number:04d}").unlink()
    assert seen + [item.key for item in listing] == [f"{number:04d}" for number in range(1200)]


def test_an_unreadable_folder_is_an_error_never_an_empty_listing(
    folder: Path, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket.put("a/b", b"")
    real = os.scandir

    def scandir(place: Any) -> Any:
        if isinstance(place, int) and Path(f"/proc/self/fd/{place}").readlink() == folder / "a":
            raise PermissionError(errno.EACCES, "Permission denied")
        return real(place)

    monkeypatch.setattr(_tree.os, "scandir", scandir)
    with pytest.raises(PermissionDenied):
        keys(bucket)
    with pytest.raises(PermissionDenied):
        shown(bucket)


def test_deep_trees_need_few_descriptors_and_no_long_paths(folder: Path, bucket: Bucket) -> None:
    key = "/".join(["d"] * 1500)
    bucket.put(key, b"deep")
    bucket.put("e", b"")
    assert keys(bucket) == [key, "e"]
    assert bucket.get(key) == b"deep"
    bucket.delete(key)
    assert [path.name for path in folder.iterdir()] == ["e"]


# parts


def test_parts_must_lie_end_to_end_and_be_what_was_sent(tmp_path: Path, driver: FilesDriver, bucket: Bucket) -> None:
    upload = driver.upload_begin("shop", "key", NOTHING)
    second = driver.upload_part(upload, 2, b"world", 6)
    first = driver.upload_part(upload, 1, b"hello ", 0)
    stale = driver.upload_part(upload, 1, b"HELLO ", 0)
    for parts, error in (((second,), "InvalidArgument"), ((first, second), "IntegrityError")):
        with pytest.raises(Exception) as caught:  # noqa: PT011  native; the table says what it is
            driver.upload_complete(upload, parts)
        fault = driver.classify(caught.value)
        assert fault is not None
        assert fault.error.__name__ == error
    assert keys(bucket) == []
    info = driver.upload_complete(upload, (stale, second))
    assert bucket.get("key") == b"HELLO world"
    assert info.md5 == bucket.stat("key").md5
    with pytest.raises(Exception, match="was completed or aborted"):
        driver.upload_complete(upload, (stale, second))
    assert leftovers(tmp_path) == []


def test_a_shorter_last_part_sent_again_leaves_nothing_of_the_first(driver: FilesDriver, bucket: Bucket) -> None:
    upload = driver.upload_begin("shop", "key", NOTHING)
    driver.upload_part(upload, 1, b"much too long", 0)
    driver.upload_complete(upload, (driver.upload_part(upload, 1, b"short", 0),))
    assert bucket.get("key") == b"short"


def test_an_aborted_upload_is_gone_and_aborting_again_is_no_error(
    tmp_path: Path, driver: FilesDriver, bucket: Bucket
) -> None:
    upload = driver.upload_begin("shop", "key", NOTHING)
    part = driver.upload_part(upload, 1, b"x", 0)
    driver.upload_abort(upload)
    driver.upload_abort(upload)
    assert leftovers(tmp_path) == []
    for call in (lambda: driver.upload_part(upload, 1, b"x", 0), lambda: driver.upload_complete(upload, (part,))):
        with pytest.raises(Exception) as caught:  # noqa: PT011  native; the table says what it is
            call()
        fault = driver.classify(caught.value)
        assert fault is not None
        assert fault.error is NotFound
    assert keys(bucket) == []


def test_an_upload_leads_nowhere_else(driver: FilesDriver, bucket: Bucket) -> None:
    upload = driver.upload_begin(bucket.name, "key", NOTHING)
    for forged in (attrs.evolve(upload, id="../../../../etc"), attrs.evolve(upload, bucket="..")):
        with pytest.raises(Exception, match="was not begun here"):
            driver.upload_part(forged, 1, b"x", 0)
        with pytest.raises(Exception, match="was not begun here"):
            driver.upload_abort(forged)


def test_a_digest_that_does_not_fit_is_an_integrity_error(tmp_path: Path, driver: FilesDriver, bucket: Bucket) -> None:
    with pytest.raises(Exception) as caught:  # noqa: PT011  native; the table says what it is
        driver.put("shop", "key", b"x", PutOptions(md5=b"0" * 16))
    fault = driver.classify(caught.value)
    assert fault is not None
    assert fault.error is IntegrityError
    assert keys(bucket) == []
    assert leftovers(tmp_path) == []


# versions


def rows(bucket: Bucket) -> list[tuple[str, str, bool, bool]]:
    """Return key, content or ``-``, latest and deleted of all versions."""
    return [
        (row.key, "-" if row.deleted else bucket.get(row.key, version=row.version).decode(), row.latest, row.deleted)
        for row in bucket.versions()
    ]


def test_deleting_the_marker_brings_the_object_back_with_its_metadata(tmp_path: Path) -> None:
    bucket = versioned(tmp_path)
    info = bucket.put("a/key", b"one", metadata={"n": "1"}, tags={"t": "1"})
    bucket.delete("a/key")
    assert files_below(tmp_path / "kept") == []
    (marker, _) = bucket.versions()
    bucket.delete("a/key", version=marker.version)
    assert bucket.stat("a/key") == info
    assert bucket.tags("a/key") == {"t": "1"}
    assert (tmp_path / "kept/a/key").read_bytes() == b"one"


def test_older_versions_are_ordered_by_when_they_were_replaced(tmp_path: Path) -> None:
    bucket = versioned(tmp_path)
    folder = tmp_path / "kept"
    for number, date in enumerate((3_000_000_000, 1_000_000_000, 2_000_000_000)):
        (folder / "new").write_bytes(b"%d" % number)
        os.utime(folder / "new", (date, date))
        if number:
            bucket.put("key", b"between")
        (folder / "new").rename(folder / "key")
    bucket.put("key", b"last")
    found = [content for _, content, _, _ in rows(bucket)]
    assert found[0] == "last"
    assert found[1] == "2"
    assert found[-1] == "0"


def test_versions_of_a_key_and_of_keys_below_it_do_not_mix(tmp_path: Path) -> None:
    bucket = versioned(tmp_path)
    bucket.put("a", b"file")
    bucket.delete("a")
    bucket.put("a/b", b"below")
    bucket.delete("a/b")
    bucket.put("a-b", b"between")
    assert rows(bucket) == [
        ("a", "-", True, True), ("a", "file", False, False), ("a-b", "between", True, False),
        ("a/b", "-", True, True), ("a/b", "below", False, False),
    ]  # fmt: skip
    assert [row.key for row in bucket.versions("a/")] == ["a/b", "a/b"]


def test_a_version_is_not_brought_back_where_a_folder_is_now(tmp_path: Path) -> None:
    bucket = versioned(tmp_path)
    bucket.put("a", b"file")
    bucket.delete("a")
    bucket.put("a/b", b"below")
    marker = next(iter(bucket.versions("a")))
    with pytest.raises(Conflict):
        bucket.delete("a", version=marker.version)
    assert rows(bucket)[0] == ("a", "-", True, True)
    assert bucket.get("a/b") == b"below"


def test_versions_stay_when_versioning_is_switched_off(tmp_path: Path) -> None:
    bucket = versioned(tmp_path)
    store = BlobStore(bucket.unwrap(FilesDriver))
    bucket.put("key", b"one")
    for change in store.diff(BucketSpec(name="kept", versioning=False)):
        store.apply(change)
    bucket.put("key", b"two")
    bucket.put("key", b"three")
    assert [content for _, content, _, _ in rows(bucket)] == ["three", "one"]
    assert bucket.stat("key").version is None
    with pytest.raises(Conflict, match="not empty"):
        store.delete("kept")


def test_a_bucket_with_older_versions_is_not_deleted_and_a_new_one_does_not_inherit_them(tmp_path: Path) -> None:
    bucket = versioned(tmp_path)
    store = BlobStore(bucket.unwrap(FilesDriver))
    bucket.put("key", b"one")
    bucket.delete("key")
    with pytest.raises(Conflict, match="older versions"):
        store.delete("kept")
    for row in list(bucket.versions()):
        bucket.delete(row.key, version=row.version)
    store.delete("kept")
    assert files_below(tmp_path / ".shiftable/buckets") == []
    assert not list(store.create(BucketSpec(name="kept")).versions())


def test_an_older_version_that_is_missing_or_a_marker_is_not_found(tmp_path: Path) -> None:
    bucket = versioned(tmp_path)
    bucket.put("key", b"one")
    bucket.delete("key")
    marker = next(iter(bucket.versions()))
    for version in (marker.version, "no-such-version", "../../x"):
        with pytest.raises(NotFound):
            bucket.get("key", version=version)
    bucket.delete("key", version="no-such-version")


# crashes


CALLS = (
    "open",
    "rename",
    "link",
    "unlink",
    "mkdir",
    "rmdir",
    "pwrite",
    "utime",
    "fsync",
    "ftruncate",
    "copy_file_range",
)


def crash(action: Callable[[], object], number: int) -> bool:
    """Run it in a child that dies right before its n-th call of the system; say whether it came so far."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    left = number

    def dying(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal left
            left -= 1
            if left < 0:
                os._exit(9)
            return real(*args, **kwargs)

        return call

    try:
        for name in CALLS:
            setattr(os, name, dying(getattr(os, name)))
        action()
    except BaseException:  # noqa: BLE001  a child must never return into pytest
        os._exit(2)
    os._exit(0)


def crashes(prepare: Callable[[Bucket], object], action: Callable[[Bucket], object], root: Path) -> Iterator[Bucket]:
    """Yield buckets in which the action was killed at each of its steps in turn, from the first to none."""
    for number in range(200):
        driver = FilesDriver(root / str(number))
        bucket = BlobStore(driver).create(BucketSpec(name="shop", versioning="versioned" in root.name))
        prepare(bucket)
        died = crash(lambda bucket=bucket: action(bucket), number)
        yield bucket
        if not died:
            return
    raise AssertionError("the action does not end")


OLD: dict[str, Any] = {"content_type": "text/old", "metadata": {"n": "old"}, "tags": {"t": "old"}}
NEW: dict[str, Any] = {"content_type": "text/new", "metadata": {"n": "new"}, "tags": {"t": "new"}}


def in_parts(bucket: Bucket, key: str) -> None:
    driver = bucket.unwrap(FilesDriver)
    options = PutOptions(headers=Headers(content_type="text/new"), metadata=NEW["metadata"], tags=NEW["tags"])
    upload = driver.upload_begin(bucket.name, key, options)
    parts = driver.upload_part(upload, 1, b"n", 0), driver.upload_part(upload, 2, b"ew", 1)
    driver.upload_complete(upload, parts)


def state(bucket: Bucket, key: str) -> str | None:
    """Return whether there is the old or the new object, all of it, or none."""
    if not bucket.exists(key):
        return None
    content = bucket.get(key).decode()
    info = bucket.stat(key)
    assert (info.headers.content_type, info.metadata) == (f"text/{content}", {"n": content})
    assert bucket.tags(key) == {"t": content}
    assert info.md5 is not None
    return content


@pytest.mark.parametrize("kind", ["plain", "versioned"])
@pytest.mark.parametrize(
    ("action", "before", "after"),
    [
        (lambda bucket: bucket.put("a/key", b"new", **NEW), "old", "new"),
        (lambda bucket: in_parts(bucket, "a/key"), "old", "new"),
        (lambda bucket: bucket.copy("source", "a/key"), "old", "new"),
        (lambda bucket: bucket.delete("a/key"), "old", None),
        (lambda bucket: bucket.put("b/key", b"new", if_absent=True, **NEW), None, "new"),
    ],
    ids=["put", "parts", "copy", "delete", "create"],
)
def test_a_crash_at_any_step_leaves_the_old_or_the_new_object(
    tmp_path: Path, kind: str, action: Callable[[Bucket], object], before: str | None, after: str | None
) -> None:
    key = "b/key" if before is None else "a/key"

    def prepare(bucket: Bucket) -> None:
        bucket.put("source", b"new", **NEW)
        bucket.put("a/key", b"old", **OLD)

    root = tmp_path / kind
    root.mkdir()
    seen = []
    for bucket in crashes(prepare, action, root):
        seen.append(state(bucket, key))
        assert set(keys(bucket)) <= {"source", "a/key", "b/key"}
        assert [row for row in rows(bucket) if row[2] and row[0] == key] in (
            [(key, seen[-1] or "-", True, seen[-1] is None)],
            [],
        )
        with suppress(PreconditionFailed):
            action(bucket)
        assert state(bucket, key) == after
        history = [row[1] for row in rows(bucket) if row[0] == key and not row[3]]
        assert history.count("old") == (1 if before and kind == "versioned" else 0)
        assert bucket.unwrap(FilesDriver).check_key(key) is None
        found = sidecars(bucket.unwrap(FilesDriver).root)
        assert len(found) == len(keys(bucket))
    assert seen[0] == before
    assert seen[-1] == after
    assert seen == [before] * seen.count(before) + [after] * seen.count(after)
    assert len(seen) > 5


def test_a_crash_while_a_version_is_brought_back_loses_nothing(tmp_path: Path) -> None:
    def prepare(bucket: Bucket) -> None:
        bucket.put("a/key", b"old", **OLD)
        bucket.delete("a/key")

    def action(bucket: Bucket) -> None:
        marker = next(row for row in bucket.versions() if row.deleted)
        bucket.delete("a/key", version=marker.version)

    root = tmp_path / "versioned"
    root.mkdir()
    for bucket in crashes(prepare, action, root):
        assert state(bucket, "a/key") in {None, "old"}
        assert [row[1] for row in rows(bucket) if not row[3]] == ["old"]
        if state(bucket, "a/key") is None:
            action(bucket)
        assert state(bucket, "a/key") == "old"


WRITER = """
import itertools, sys
from pathlib import Path
from shiftable.blob import BlobStore
from shiftable_baremetal.blob import FilesDriver

bucket = BlobStore(FilesDriver(Path(sys.argv[1]))).bucket("shop")
for number in itertools.count(int(sys.argv[2])):
    key = f"d{number % 3}/k{number % 5}"
    size = number * 7919 % 200_000
    if number % 11 == 10:
        bucket.delete(key)
    bucket.put(key, b"%08d" % number * size, metadata={"n": str(number)}, tags={"n": str(number)})
    print(key, number, flush=True)
"""


@pytest.mark.parametrize("versioning", [False, True])
def test_a_killed_writer_leaves_whole_objects_with_their_own_metadata(tmp_path: Path, *, versioning: bool) -> None:
    driver = FilesDriver(tmp_path)
    bucket = BlobStore(driver).create(BucketSpec(name="shop", versioning=versioning))
    moments = random.Random(11)  # noqa: S311  moments
    acknowledged: dict[str, int] = {}
    start = 0
    for _ in range(10):
        command = [sys.executable, "-c", WRITER, str(tmp_path), str(start)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            for _, line in zip(range(moments.randint(1, 40)), writer.stdout, strict=False):
                key, number = line.split()
                acknowledged[key] = int(number)
            writer.kill()
            for line in writer.stdout:
                key, number = line.split()
                acknowledged[key] = int(number)
        start = max(acknowledged.values()) + 1
        for item in bucket.list():
            content, info = bucket.get(item.key), bucket.stat(item.key)
            number = int(info.metadata["n"])
            assert content == b"%08d" % number * (number * 7919 % 200_000)
            assert bucket.tags(item.key) == {"n": str(number)}
            assert number >= acknowledged.get(item.key, 0)
        assert {key for key in acknowledged if not bucket.exists(key)} <= {f"d{start % 3}/k{start % 5}"}
        assert files_below(tmp_path / "shop") == sorted(keys(bucket))
    for number in range(15):
        bucket.put(f"d{number % 3}/k{number % 5}", b"")
    assert len(sidecars(tmp_path)) == len(keys(bucket)) == 15


def test_an_interrupt_right_after_the_last_step_costs_no_metadata(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, options in (("rename", {}), ("link", {"if_absent": True})):
        real = getattr(os, name)

        def interrupted(*args: Any, real: Callable[..., None] = real, **kwargs: Any) -> None:
            real(*args, **kwargs)
            raise KeyboardInterrupt

        monkeypatch.setattr(os, name, interrupted)
        with pytest.raises(KeyboardInterrupt):
            bucket.put(name, b"x", metadata={"n": "1"}, **options)
        monkeypatch.undo()
        assert (bucket.get(name), bucket.stat(name).metadata) == (b"x", {"n": "1"})


def test_everything_is_on_the_disk_before_the_object_is_in_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = BlobStore(FilesDriver(tmp_path)).create(BucketSpec(name="shop"))
    bucket.put("a/key", b"old")
    steps: list[str] = []
    fsync, rename = os.fsync, os.rename

    def seen_fsync(fd: int) -> None:
        steps.append(str(Path(f"/proc/self/fd/{fd}").readlink().relative_to(tmp_path)))
        fsync(fd)

    def seen_rename(*args: Any, **kwargs: Any) -> None:
        steps.append("RENAME")
        rename(*args, **kwargs)

    monkeypatch.setattr(os, "fsync", seen_fsync)
    monkeypatch.setattr(os, "rename", seen_rename)
    bucket.put("a/b/key", b"new", metadata={"n": "1"})
    monkeypatch.undo()
    kinds = [next((kind for kind in ("staging", "sidecars") if f"/{kind}/" in step), step) for step in steps]
    assert kinds.count("RENAME") == 1
    before, after = kinds[: kinds.index("RENAME")], kinds[kinds.index("RENAME") + 1 :]
    assert "staging" in before  # the content
    assert "shop/a" in before  # the name of the folder b
    assert before.count("sidecars") == 2  # the metadata, and the name of its file
    assert ".shiftable/buckets/shop/sidecars" in before  # the name of the folder of that file
    assert after == ["shop/a/b"]  # the object's name in its folder


def later(hours: float) -> Callable[[], int]:
    """Return a clock that is ahead of the file system's."""
    return lambda: time.time_ns() + round(hours * 3600 * 10**9)


def test_files_of_dead_writers_are_removed_and_those_of_living_ones_are_not(tmp_path: Path, bucket: Bucket) -> None:
    first = FilesDriver(tmp_path)
    with first._area.staged() as living:
        dead = living.path.with_name("0" * 32)
        dead.write_bytes(b"half")
        for clock, remains in ((later(0), True), (later(0.9), True), (later(1.1), False)):
            BlobStore(FilesDriver(tmp_path, clock=clock)).bucket("shop").put("key", b"x")
            assert (living.path.exists(), dead.exists()) == (True, remains)


UPLOADER = """
import pickle, sys, time
from pathlib import Path
from shiftable.blob.driver import PutOptions
from shiftable_baremetal.blob import FilesDriver

driver = FilesDriver(Path(sys.argv[1]), fsync=False)
if sys.argv[2] == "begin":
    upload = driver.upload_begin("shop", "large", PutOptions())
    part = driver.upload_part(upload, 1, b"1" * 70_000, 0)
else:
    upload = pickle.loads(bytes.fromhex(sys.argv[2]))
    part = driver.upload_part(upload, 2, b"2" * 70_000, 70_000)
print(pickle.dumps((upload, part)).hex(), flush=True)
sys.stdin.read()  # until it is told to end, or killed
"""


@contextmanager
def uploading(root: Path, upload: Upload | None = None) -> Iterator[tuple[Upload, Part, subprocess.Popen[str]]]:
    """Begin or go on with an upload in another process, which waits in the midst of it."""
    told = pickle.dumps(upload).hex() if upload else "begin"
    command = [sys.executable, "-c", UPLOADER, str(root), told]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield (*pickle.loads(bytes.fromhex(process.stdout.readline())), process)  # noqa: S301  our own
        finally:
            process.kill()


def overwrite(bucket: Bucket) -> None:
    bucket.put("key", b"x")


def overwrite_in_parts(bucket: Bucket) -> None:
    with suppress(ZeroDivisionError), bucket.open("key", "wb") as file:
        file.write(bytes(9 * 1024 * 1024))
        raise ZeroDivisionError


def overwrite_by_copy(bucket: Bucket) -> None:
    bucket.copy("source", "key")


@pytest.mark.parametrize("write", [overwrite, overwrite_in_parts, overwrite_by_copy])
def test_what_a_killed_upload_left_goes_with_the_next_write_when_its_grace_is_over(
    tmp_path: Path, bucket: Bucket, write: Callable[[Bucket], None]
) -> None:
    bucket.put("source", b"x")
    for _ in range(3):
        with uploading(tmp_path) as (_, _, process):
            process.kill()
    for hours, left in ((0.9, 3), (1.1, 0)):
        write(BlobStore(FilesDriver(tmp_path, fsync=False, clock=later(hours))).bucket("shop"))
        assert (len(leftovers(tmp_path)), len(list(bucket.uploads()))) == (left, left)


def test_a_driver_that_stays_looks_again_for_what_others_left(tmp_path: Path, bucket: Bucket) -> None:
    ahead = [0]
    driver = FilesDriver(tmp_path, fsync=False, clock=lambda: time.time_ns() + ahead[0])
    own = BlobStore(driver).bucket("shop")
    own.put("key", b"x")
    with uploading(tmp_path) as (_, _, process):
        process.kill()
    own.put("key", b"x")
    assert len(leftovers(tmp_path)) == 1
    ahead[0] = 3700 * 10**9
    own.put("key", b"x")
    assert leftovers(tmp_path) == []


def test_the_upload_of_a_living_process_is_never_dropped(tmp_path: Path, driver: FilesDriver, bucket: Bucket) -> None:
    own = driver.upload_begin("shop", "own", NOTHING)
    with uploading(tmp_path) as (upload, part, _):
        far = FilesDriver(tmp_path, fsync=False, clock=later(10_000))
        BlobStore(far).bucket("shop").put("key", b"x")
        assert [pending.key for pending in bucket.uploads()] == ["large", "own"]
        driver.upload_complete(upload, (part,))
        driver.upload_complete(own, (driver.upload_part(own, 1, b"x", 0),))
    assert bucket.get("large") == b"1" * 70_000
    assert leftovers(tmp_path) == []


def test_an_upload_from_elsewhere_lives_as_long_as_who_goes_on_with_it(tmp_path: Path, bucket: Bucket) -> None:
    with uploading(tmp_path) as (upload, first, process):
        process.kill()
    with uploading(tmp_path, upload) as (_, second, _):
        far = FilesDriver(tmp_path, fsync=False, clock=later(10_000))
        BlobStore(far).bucket("shop").put("key", b"x")
        third = FilesDriver(tmp_path, fsync=False)
        info = third.upload_complete(upload, (first, second))
    content = b"1" * 70_000 + b"2" * 70_000
    assert bucket.get("large") == content
    assert info.md5 == hashlib.md5(content, usedforsecurity=False).digest()
    assert leftovers(tmp_path) == []


def test_a_forked_child_keeps_its_own_hold_and_not_its_parents(tmp_path: Path, bucket: Bucket) -> None:
    driver = FilesDriver(tmp_path, fsync=False)
    upload = driver.upload_begin("shop", "large", NOTHING)
    first = driver.upload_part(upload, 1, b"a", 0)
    child = os.fork()
    if not child:
        try:
            driver.upload_part(upload, 2, b"b", 1)
            driver.close()
        finally:
            os._exit(0)
    assert os.waitpid(child, 0) == (child, 0)
    BlobStore(FilesDriver(tmp_path, fsync=False, clock=later(9))).bucket("shop").put("key", b"x")
    second = driver.upload_part(upload, 2, b"c", 1)
    info = driver.upload_complete(upload, (first, second))
    assert (bucket.get("large"), info.md5) == (b"ac", hashlib.md5(b"ac", usedforsecurity=False).digest())


def test_a_dropped_upload_is_said_to_whoever_goes_on_with_it(tmp_path: Path, bucket: Bucket) -> None:
    gone = FilesDriver(tmp_path, fsync=False)
    upload = gone.upload_begin("shop", "large", NOTHING)
    gone.close()
    BlobStore(FilesDriver(tmp_path, fsync=False, clock=later(2))).bucket("shop").put("key", b"x")
    assert leftovers(tmp_path) == []
    with pytest.raises(Exception, match="was completed or aborted"):
        gone.upload_part(upload, 1, b"x", 0)
    assert leftovers(tmp_path) == []
    assert list(bucket.uploads()) == []


@pytest.mark.parametrize("left", [(), ("upload.json",), ("data",)])
def test_half_an_upload_is_not_listed_and_goes_with_the_rest(
    tmp_path: Path, bucket: Bucket, left: tuple[str, ...]
) -> None:
    half = tmp_path / ".shiftable/buckets/shop/uploads" / ("0" * 32)
    half.mkdir(parents=True)
    for name in left:
        (half / name).touch()
    assert list(bucket.uploads()) == []
    BlobStore(FilesDriver(tmp_path, fsync=False, clock=later(2))).bucket("shop").put("key", b"x")
    assert leftovers(tmp_path) == []


def test_descriptors_of_uploads_are_given_back(tmp_path: Path, driver: FilesDriver, bucket: Bucket) -> None:
    overwrite(bucket)
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(3):
        overwrite_in_parts(bucket)
        bucket.put("long", iter([bytes(9 * 1024 * 1024)]))
        other = FilesDriver(tmp_path, fsync=False)
        upload = other.upload_begin("shop", "key", NOTHING)
        driver.upload_part(upload, 1, b"x", 0)
        other.upload_abort(upload)
        with pytest.raises(Exception, match="was completed or aborted"):
            driver.upload_part(upload, 2, b"x", 1)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


@pytest.mark.parametrize("seed", range(4))
def test_the_md5_is_right_however_parts_arrive(driver: FilesDriver, bucket: Bucket, seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311  an order, not a secret
    pieces = [chance.randbytes(chance.randrange(1, 2_000_000)) for _ in range(12)]
    offsets = [sum(map(len, pieces[:number])) for number in range(12)]
    upload = driver.upload_begin("shop", "key", NOTHING)
    order = chance.sample(range(12), 12) if seed % 2 else list(range(12))
    with ThreadPoolExecutor(4) as pool:
        if seed > 1:  # one of them comes twice, and differs
            driver.upload_part(upload, 4, bytes(len(pieces[3])), offsets[3])
        sent = {at: pool.submit(driver.upload_part, upload, at + 1, pieces[at], offsets[at]) for at in order}
        parts = tuple(sent[at].result() for at in range(12))
    info = driver.upload_complete(upload, parts)
    assert info.md5 == hashlib.md5(b"".join(pieces), usedforsecurity=False).digest()
    assert bucket.get("key") == b"".join(pieces)


def test_damaged_metadata_is_said_and_a_new_write_heals_it(tmp_path: Path, bucket: Bucket) -> None:
    bucket.put("key", b"x", metadata={"n": "1"})
    (path,) = (tmp_path / ".shiftable/buckets/shop/sidecars").rglob("*.*-*")
    for text in (b"", b"{", b"[]", b"{}", b'{"headers": 3}', b'{"headers": {}, "new": 1}', b"\xff"):
        path.write_bytes(text)
        with pytest.raises(IntegrityError, match="write the object again"):
            bucket.stat("key")
    assert keys(bucket) == ["key"]
    bucket.put("key", b"y", metadata={"n": "2"})
    assert bucket.stat("key").metadata == {"n": "2"}


# many at once


RACER = """
import json, sys
from pathlib import Path
from shiftable.blob import BlobStore, Token
from shiftable.errors import PreconditionFailed
from shiftable_baremetal.blob import FilesDriver

bucket = BlobStore(FilesDriver(Path(sys.argv[1]), fsync=False)).bucket("shop")
name = sys.argv[2].encode()
tokens = json.load(sys.stdin)
print("ready", flush=True)
won = []
while not Path(sys.argv[1], "go").exists():
    pass
for key, token in tokens.items():
    condition = {"if_match": Token(token)} if token else {"if_absent": True}
    try:
        bucket.put(key, name, **condition, metadata={"by": name.decode()})
    except PreconditionFailed:
        continue
    won.append(key)
print(json.dumps(won))
"""


@pytest.mark.parametrize("condition", ["if_absent", "if_match"])
def test_of_two_processes_exactly_one_wins_each_key(tmp_path: Path, bucket: Bucket, condition: str) -> None:
    names = [f"{number % 7}/{number:03d}" for number in range(200)]
    tokens = {name: bucket.put(name, b"0").token.value if condition == "if_match" else None for name in names}
    racers = []
    for name in ("one", "two"):
        command = [sys.executable, "-c", RACER, str(tmp_path), name]
        racer = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert racer.stdin is not None
        assert racer.stdout is not None
        racer.stdin.write(json.dumps(tokens))
        racer.stdin.close()
        racers.append(racer)
    for racer in racers:
        assert racer.stdout is not None
        assert racer.stdout.readline() == "ready\n"
    (tmp_path / "go").touch()
    won = []
    for racer in racers:
        assert racer.stdout is not None
        won.append(json.loads(racer.stdout.read()))
        racer.stdout.close()
        assert racer.wait() == 0
    assert sorted(won[0] + won[1]) == sorted(names)
    for name, keys_ in zip(("one", "two"), won, strict=True):
        for key in keys_:
            assert (bucket.get(key), bucket.stat(key).metadata) == (name.encode(), {"by": name})
    assert len(sidecars(tmp_path)) == 200


def test_writers_and_deleters_of_one_folder_do_not_disturb_each_other(folder: Path, bucket: Bucket) -> None:
    def work(number: int) -> None:
        for _ in range(60):
            bucket.put(f"a/b/{number}", b"x")
            bucket.delete(f"a/b/{number}")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert list(folder.iterdir()) == []


def test_readers_see_content_and_metadata_of_one_and_the_same_write(bucket: Bucket) -> None:
    bucket.put("key", b"0" * 10, metadata={"n": "0"})
    stop = threading.Event()

    def write(seed: int) -> None:
        for number in range(seed, 400, 2):
            bucket.put("key", b"%d" % (number % 10) * (10 + number), metadata={"n": str(number)})

    def read() -> int:
        count = 0
        while not stop.is_set():
            with bucket.stream("key") as stream:
                number = int(stream.info.metadata["n"])
                assert stream.read() == b"%d" % (number % 10) * (10 + number)
            count += 1
        return count

    with ThreadPoolExecutor(4) as pool:
        readers = [pool.submit(read) for _ in range(2)]
        list(pool.map(write, range(2)))
        stop.set()
        assert all(reader.result() for reader in readers)


# disks


def test_a_full_disk_is_a_quota_and_leaves_the_old_object(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 4):
        driver = FilesDriver(tmp_path / "disk")
        bucket = BlobStore(driver).create(BucketSpec(name="shop"))
        old = bucket.put("key", b"old", metadata={"n": "old"})
        for source in (b"x" * 5_000_000, iter([b"x" * 9_000_000])):
            with pytest.raises(QuotaExceeded):
                bucket.put("key", source, metadata={"n": "new"})
            assert leftovers(driver.root) == []
        assert bucket.stat("key") == old
        assert bucket.get("key") == b"old"
        assert len(sidecars(driver.root)) == 1
        filler = os.open(driver.root / "filler", os.O_CREAT | os.O_WRONLY)
        with suppress(OSError):
            while os.write(filler, b"x" * 4096):
                pass
        os.close(filler)
        with pytest.raises(QuotaExceeded):
            bucket.put("key", b"", metadata={"n": "new"})
        assert bucket.stat("key") == old
        assert len(sidecars(driver.root)) == 1
        (driver.root / "filler").unlink()
        bucket.put("key", b"new")
        assert bucket.get("key") == b"new"


LIMITED = """
import resource, sys
from pathlib import Path
from shiftable.blob import BlobStore
from shiftable.errors import QuotaExceeded
from shiftable_baremetal.blob import FilesDriver

resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
bucket = BlobStore(FilesDriver(Path(sys.argv[1]))).bucket("shop")
for source in (b"x" * 2_000_000, iter([b"x" * 9_000_000])):
    try:
        bucket.put("key", source)
    except QuotaExceeded:
        continue
    sys.exit("no error")
"""


def test_a_limit_on_files_is_a_quota_and_leaves_the_old_object(tmp_path: Path, bucket: Bucket) -> None:
    old = bucket.put("key", b"old", metadata={"n": "old"})
    subprocess.run([sys.executable, "-c", LIMITED, str(tmp_path)], check=True)
    assert bucket.stat("key") == old
    assert bucket.get("key") == b"old"
    assert leftovers(tmp_path) == []
    assert len(sidecars(tmp_path)) == 1


def test_a_read_only_disk_can_be_read_and_refuses_writes(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 4):
        bucket = BlobStore(FilesDriver(tmp_path / "disk")).create(BucketSpec(name="shop"))
        bucket.put("a/key", b"x", metadata={"n": "1"})
        subprocess.run(["mount", "-o", "remount,ro", str(tmp_path / "disk")], check=True)
        assert bucket.get("a/key") == b"x"
        assert keys(bucket) == ["a/key"]
        assert bucket.stat("a/key").metadata == {"n": "1"}
        with pytest.raises(NotFound):
            bucket.stat("a/absent")
        for write in (lambda: bucket.put("a/key", b""), lambda: bucket.delete("a/key")):
            with pytest.raises(PermissionDenied):
                write()


def test_a_bucket_on_another_disk_is_a_conflict_that_says_so(tmp_path: Path, driver: FilesDriver) -> None:
    with small_disk(tmp_path / "elsewhere", 4):
        bucket = BlobStore(driver).bucket("elsewhere")
        with pytest.raises(Conflict, match="another file system"):
            bucket.put("key", b"x")
        assert keys(bucket) == []


# buckets


def test_a_folder_that_other_tools_made_is_a_bucket(tmp_path: Path, driver: FilesDriver) -> None:
    (tmp_path / "theirs/a").mkdir(parents=True)
    (tmp_path / "theirs/a/b").write_bytes(b"x")
    (tmp_path / "file").write_bytes(b"")
    store = BlobStore(driver)
    assert [bucket.name for bucket in store.list()] == ["theirs"]
    assert store.describe("theirs") == BucketSpec(name="theirs")
    assert store.bucket("theirs").get("a/b") == b"x"
    with pytest.raises(AlreadyExists):
        store.create(BucketSpec(name="file"))


def test_a_bucket_with_empty_folders_is_deleted_and_one_with_links_is_not(folder: Path, bucket: Bucket) -> None:
    store = BlobStore(bucket.unwrap(FilesDriver))
    (folder / "a/b").mkdir(parents=True)
    (folder / "link").symlink_to("/")
    with pytest.raises(Conflict, match="links"):
        store.delete("shop")
    (folder / "link").unlink()
    store.delete("shop")
    assert not folder.exists()


def test_many_buckets_are_listed_in_pages(tmp_path: Path, driver: FilesDriver) -> None:
    for number in range(1200):
        (tmp_path / f"{number:04d}").mkdir()
    assert [bucket.name for bucket in BlobStore(driver).list()] == [f"{number:04d}" for number in range(1200)]


def test_a_root_that_does_not_exist_has_no_buckets(tmp_path: Path) -> None:
    store = BlobStore(FilesDriver(tmp_path / "absent"))
    assert list(store.list()) == []
    assert not store.exists("shop")
    with pytest.raises(ParentNotFound):
        store.bucket("shop").put("key", b"")
    assert list(tmp_path.iterdir()) == []


def test_a_range_that_begins_behind_the_end_has_no_bytes(driver: FilesDriver, bucket: Bucket) -> None:
    bucket.put("key", b"abc")
    download = driver.get("shop", "key", range_=Range(3), if_match=None, version=None)
    assert list(download.chunks) == []


def test_every_error_names_operation_and_resource(bucket: Bucket) -> None:
    with pytest.raises(OperationError) as caught:
        bucket.get("absent")
    assert str(caught.value) == "blob.get on object 'absent' in bucket 'shop' (baremetal): there is no object 'absent'"


@pytest.mark.parametrize("seconds", [-(10**9), -1, 10**12, -(10**12)])
def test_a_file_of_a_time_before_1970_or_that_no_calendar_has_is_an_object(
    bucket: Bucket, folder: Path, seconds: int
) -> None:
    (folder / "key").write_bytes(b"theirs")
    if abs(seconds) < 10**10:  # what this file system can keep
        os.utime(folder / "key", (seconds, seconds))
        info = bucket.stat("key")
        bucket.set_tags("key", {"team": "a"})
        assert (b"theirs", {"team": "a"}) == (bucket.get("key", if_match=info.token), bucket.tags("key"))
        assert [info.modified] == [item.modified for item in bucket.list()]
    assert {10**12: 9999, -(10**12): 1, -(10**9): 1938, -1: 1969}[seconds] == modified(seconds * 10**9).year


def test_a_root_that_was_copied_with_its_times_keeps_headers_metadata_and_tags(tmp_path: Path) -> None:
    original = BlobStore(FilesDriver(tmp_path / "one", fsync=False)).create(BucketSpec(name="shop"))
    original.put("a/b", b"x", content_type="text/plain", metadata={"m": "1"}, tags={"t": "2"})
    original.put("c", b"y", content_type="text/css")
    subprocess.run(["cp", "-a", str(tmp_path / "one"), str(tmp_path / "two")], check=True)
    copied = BlobStore(FilesDriver(tmp_path / "two", fsync=False)).bucket("shop")
    for key in ("a/b", "c"):
        before, after = original.stat(key), copied.stat(key)
        assert (before.headers, before.metadata) == (after.headers, after.metadata)
        assert original.tags(key) == copied.tags(key)
    (tmp_path / "two/shop/c").write_bytes(b"z")
    assert copied.stat("c").headers.content_type is None
    copied.put("a/b", b"new")
    assert (copied.stat("a/b").headers.content_type, copied.tags("a/b")) == (None, {})

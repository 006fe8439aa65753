"""The portable bucket over a driver that fails on purpose."""

import codecs
import doctest
import gc
import hashlib
import io
import itertools
import logging
import os
import stat
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import attrs
import pytest

import shiftable.blob
from shiftable.blob import (
    BlobFeatures,
    BlobStore,
    Bucket,
    BucketSpec,
    Headers,
    ObjectInfo,
    StorageClass,
    _bucket,
    _store,
    translate_class,
)
from shiftable.blob._upload import part_sizes, size_of
from shiftable.blob.driver import BlobDriver, Download, Part, PutOptions, Upload
from shiftable.errors import (
    Conflict,
    Fault,
    IntegrityError,
    InvalidArgument,
    NotFound,
    NotModified,
    OperationError,
    ParentNotFound,
    PermissionDenied,
    PreconditionFailed,
    Timeout,
    Unavailable,
    Unsupported,
)
from shiftable.features import Limit
from shiftable.memory import blob as memory_blob
from shiftable.memory.blob import FEATURES, MemoryBlobDriver
from shiftable.testing import wrap
from shiftable.testing.wrap import Call, Injected, Recorded, dropped, fault
from shiftable.tokens import Token

MIB = 1024 * 1024
DATA = bytes(range(256)) * 4096  # 1 MiB


@pytest.fixture
def recorded() -> Recorded[BlobDriver]:
    return Recorded(MemoryBlobDriver())


@pytest.fixture
def bucket(recorded: Recorded[BlobDriver]) -> Bucket:
    return BlobStore(recorded.driver).create(BucketSpec(name="shop"))


def with_features(**changes: Any) -> tuple[Recorded[BlobDriver], Bucket]:
    recorded: Recorded[BlobDriver] = Recorded(MemoryBlobDriver(), features=attrs.evolve(FEATURES, **changes))
    return recorded, BlobStore(recorded.driver).create(BucketSpec(name="shop"))


def each_get(recorded: Recorded[BlobDriver], *breaks: Callable[[Download], Download]) -> None:
    """Break the first download as the first function says, the second as the second, the rest not at all."""
    left = iter(breaks)

    def action(_call: Call, proceed: Callable[[], Any]) -> Download:
        return next(left, lambda download: download)(proceed())

    recorded.on("get", action)


def ranges(recorded: Recorded[BlobDriver]) -> list[tuple[int, int | None] | None]:
    return [attrs.astuple(call.kwargs["range_"]) if call.kwargs["range_"] else None for call in recorded.named("get")]


@pytest.mark.parametrize("module", [_bucket, _store, wrap, memory_blob], ids=lambda module: module.__name__)
def test_the_examples_in_the_docstrings_run(module: Any) -> None:
    result = doctest.testmod(module, optionflags=doctest.ELLIPSIS | doctest.IGNORE_EXCEPTION_DETAIL)
    assert result.failed == 0


def test_the_bucket_is_documented_by_examples() -> None:
    assert doctest.testmod(_bucket, optionflags=doctest.ELLIPSIS).attempted > 10


def test_public_names_are_sorted_and_exist() -> None:
    names = shiftable.blob.__all__
    assert names == sorted(names)
    assert [name for name in names if not hasattr(shiftable.blob, name)] == []


# downloads that break


@pytest.mark.parametrize("error", [Unavailable, Timeout, None])
def test_a_dropped_download_goes_on_where_it_broke(
    recorded: Recorded[BlobDriver], bucket: Bucket, error: type[OperationError] | None
) -> None:
    token = bucket.put("key", DATA).token
    each_get(recorded, lambda got: dropped(got, 1000, error=error), lambda got: dropped(got, 500, error=error))
    assert bucket.get("key") == DATA
    assert ranges(recorded) == [None, (1000, len(DATA)), (1500, len(DATA))]
    assert [call.kwargs["if_match"] for call in recorded.named("get")] == [None, token, token]


def test_a_dropped_range_goes_on_to_its_own_end(recorded: Recorded[BlobDriver], bucket: Bucket) -> None:
    bucket.put("key", DATA)
    each_get(recorded, lambda got: dropped(got, 10))
    assert bucket.get("key", start=100, stop=200) == DATA[100:200]
    assert ranges(recorded) == [(100, 200), (110, 200)]


def test_a_drop_behind_the_last_byte_is_none(recorded: Recorded[BlobDriver], bucket: Bucket) -> None:
    bucket.put("key", DATA)
    each_get(recorded, lambda got: dropped(got, len(DATA)))
    assert bucket.get("key") == DATA
    assert len(recorded.named("get")) == 1


def test_progress_is_worth_another_three_attempts(recorded: Recorded[BlobDriver], bucket: Bucket) -> None:
    bucket.put("key", DATA)
    nothing, some = (lambda got: dropped(got, 0)), (lambda got: dropped(got, 7))
    each_get(recorded, some, nothing, nothing, some, nothing, nothing, some)
    assert bucket.get("key") == DATA
    assert len(recorded.named("get")) == 8


def test_three_attempts_without_progress_end_in_the_error(recorded: Recorded[BlobDriver], bucket: Bucket) -> None:
    bucket.put("key", DATA)
    each_get(recorded, lambda got: dropped(got, 7), *itertools.repeat(lambda got: dropped(got, 0), 9))
    with pytest.raises(Unavailable) as caught, bucket.stream("key") as stream:
        list(stream)
    assert len(recorded.named("get")) == 4
    assert isinstance(caught.value.__cause__, Injected)
    assert str(caught.value).startswith("blob.stream on object 'key' in bucket 'shop' (memory)")


def test_an_error_that_is_no_drop_is_raised_at_once(recorded: Recorded[BlobDriver], bucket: Bucket) -> None:
    bucket.put("key", DATA)
    each_get(recorded, lambda got: dropped(got, 7, error=PermissionDenied))
    with pytest.raises(PermissionDenied):
        bucket.get("key")
    assert len(recorded.named("get")) == 1


def test_the_connection_that_cannot_be_made_again_counts_as_an_attempt(
    recorded: Recorded[BlobDriver], bucket: Bucket
) -> None:
    bucket.put("key", DATA)
    recorded.on("get", lambda _call, proceed: dropped(proceed(), 7))
    with bucket.stream("key") as stream:
        assert next(stream) == DATA[:7]
        recorded.on("get", fault(Unavailable))
        with pytest.raises(Unavailable):
            next(stream)
    assert len(recorded.named("get")) == 4


def test_a_truncated_object_is_an_integrity_error(recorded: Recorded[BlobDriver], bucket: Bucket) -> None:
    bucket.put("key", DATA)

    def cut(call: Call, proceed: Callable[[], Any]) -> Download:
        start = call.kwargs["range_"].start if call.kwargs["range_"] else 0
        return dropped(proceed(), max(0, 1000 - start), error=None)

    recorded.on("get", cut)
    with pytest.raises(IntegrityError, match="1,047,576 bytes too early"):
        bucket.get("key")


@pytest.mark.parametrize("extra", [b"!", b"x" * 5000])
@pytest.mark.parametrize("size", [0, 1, MIB])
def test_more_bytes_than_promised_are_an_integrity_error(
    recorded: Recorded[BlobDriver], bucket: Bucket, extra: bytes, size: int
) -> None:
    bucket.put("key", DATA[:size])
    each_get(recorded, lambda got: attrs.evolve(got, chunks=itertools.chain(got.chunks, [extra])))
    with pytest.raises(IntegrityError, match="more bytes"):
        bucket.get("key")


def test_a_flipped_bit_is_an_integrity_error(recorded: Recorded[BlobDriver], bucket: Bucket, tmp_path: Path) -> None:
    bucket.put("key", DATA)

    def flip(got: Download) -> Download:
        data = bytearray(b"".join(got.chunks))
        data[500] ^= 1
        return attrs.evolve(got, chunks=iter([bytes(data)]))

    each_get(recorded, flip, flip)
    with pytest.raises(IntegrityError, match="MD5"):
        bucket.get("key")
    with pytest.raises(IntegrityError, match="MD5"):
        bucket.download("key", tmp_path / "file")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("change", ["replaced", "deleted"])
def test_an_object_that_changes_while_it_is_read_is_an_integrity_error(
    recorded: Recorded[BlobDriver], bucket: Bucket, change: str
) -> None:
    bucket.put("key", DATA)
    each_get(recorded, lambda got: dropped(got, 1000))
    with bucket.stream("key") as stream:
        assert next(stream) == DATA[:1000]
        if change == "replaced":
            bucket.put("key", DATA[::-1])
        else:
            bucket.delete("key")
        with pytest.raises(IntegrityError, match="while it was read"):
            next(stream)


def test_a_provider_that_ignores_the_pin_is_found_out(recorded: Recorded[BlobDriver], bucket: Bucket) -> None:
    bucket.put("key", DATA)
    each_get(recorded, lambda got: dropped(got, 1000))
    with bucket.stream("key") as stream:
        next(stream)
        bucket.put("key", DATA[::-1])
        recorded.on("get", lambda call, _: recorded.inner.get(*call.args, **{**call.kwargs, "if_match": None}))
        with pytest.raises(IntegrityError, match="replaced or deleted while it was read"):
            next(stream)


def test_an_item_that_was_replaced_is_found_out_too(recorded: Recorded[BlobDriver], bucket: Bucket) -> None:
    bucket.put("key", DATA)
    (listed,) = bucket.list()
    bucket.put("key", DATA[::-1])
    recorded.on("get", lambda call, _: recorded.inner.get(*call.args, **{**call.kwargs, "if_match": None}))
    with pytest.raises(PreconditionFailed):
        bucket.get(listed)
    with pytest.raises(PreconditionFailed):
        bucket.stream(listed, start=7)


def test_a_bug_in_the_driver_is_not_dressed_up(recorded: Recorded[BlobDriver], bucket: Bucket) -> None:
    def bug(_call: Call, _proceed: object) -> None:
        raise ZeroDivisionError

    recorded.on("get", bug)
    with pytest.raises(ZeroDivisionError):
        bucket.get("key")


def test_a_stream_that_is_left_gives_its_connection_back(recorded: Recorded[BlobDriver], bucket: Bucket) -> None:
    bucket.put("key", DATA * 3)
    closed: list[str] = []

    def noted(chunks: Iterator[bytes]) -> Iterator[bytes]:
        try:
            yield from chunks
        finally:
            closed.append("closed")

    each_get(recorded, lambda got: attrs.evolve(got, chunks=noted(got.chunks)))
    with bucket.stream("key") as stream:
        next(stream)
        assert closed == []
    assert closed == ["closed"]


@pytest.mark.parametrize("failure", [KeyboardInterrupt, Injected(Fault(PermissionDenied))])
def test_a_stream_that_broke_off_or_was_closed_is_not_at_its_end(
    recorded: Recorded[BlobDriver], bucket: Bucket, failure: Any
) -> None:
    bucket.put("key", DATA * 2)
    each_get(recorded, lambda got: broken(got, failure))
    with bucket.stream("key") as stream:
        with pytest.raises((KeyboardInterrupt, PermissionDenied)):
            list(stream)
        with pytest.raises(ValueError, match="broke off"):
            stream.read()
    with bucket.stream("key") as stream:
        next(stream)
    with pytest.raises(ValueError, match="closed"):
        stream.read()
    with bucket.stream("key") as stream:
        assert (DATA * 2, b"") == (stream.read(), stream.read())


def broken(got: Download, failure: BaseException | type[BaseException]) -> Download:
    """Return a download that ends after its first chunk, by an error that is no drop."""

    def chunks() -> Iterator[bytes]:
        yield next(got.chunks)
        raise failure

    return attrs.evolve(got, chunks=chunks())


def test_a_failed_download_leaves_the_old_file(recorded: Recorded[BlobDriver], bucket: Bucket, tmp_path: Path) -> None:
    target = tmp_path / ("n" * 255)
    target.write_bytes(b"old")
    bucket.put("key", DATA * 2)

    def interrupted(got: Download) -> Download:
        def chunks() -> Iterator[bytes]:
            yield next(got.chunks)
            raise KeyboardInterrupt

        return attrs.evolve(got, chunks=chunks())

    each_get(recorded, interrupted)
    with pytest.raises(KeyboardInterrupt):
        bucket.download("key", target)
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]
    bucket.download("key", target)
    assert target.read_bytes() == DATA * 2


def test_a_pipe_takes_a_download_and_stays(bucket: Bucket, tmp_path: Path) -> None:
    bucket.put("key", b"content")
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDWR | os.O_NONBLOCK)
    bucket.download("key", tmp_path / "pipe")
    assert ((tmp_path / "pipe").is_fifo(), b"content") == (True, os.read(reader, 100))
    os.close(reader)


def test_a_download_is_on_disk_before_it_has_its_name(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket.put("key", DATA)
    synced: list[tuple[bool, bool]] = []
    monkeypatch.setattr(
        os, "fsync", lambda fd: synced.append((stat.S_ISDIR(os.fstat(fd).st_mode), (tmp_path / "file").exists()))
    )
    bucket.download("key", tmp_path / "file")
    assert synced == [(False, False), (True, True)]


# uploads that break


def assert_nothing_is_left(recorded: Recorded[BlobDriver]) -> None:
    assert len(recorded.named("upload_abort")) == len(recorded.named("upload_begin")) == 1
    assert recorded.calls[-1].name == "upload_abort"
    inner = recorded.inner
    assert isinstance(inner, MemoryBlobDriver)
    assert inner._uploads == {}


@pytest.mark.parametrize("after", [0, 1, 3])
def test_a_part_that_fails_aborts_the_upload(recorded: Recorded[BlobDriver], bucket: Bucket, after: int) -> None:
    bucket.put("key", b"old")
    recorded.on("upload_part", fault(Unavailable, after=after, times=1))
    with pytest.raises(Unavailable) as caught:
        bucket.put("key", iter([DATA] * 40))
    assert caught.value.operation == "blob.put"
    assert_nothing_is_left(recorded)
    assert bucket.get("key") == b"old"


def test_a_failed_end_aborts_the_upload(recorded: Recorded[BlobDriver], bucket: Bucket) -> None:
    recorded.on("upload_complete", fault(Conflict))
    with pytest.raises(Conflict):
        bucket.put("key", iter([DATA] * 9))
    assert_nothing_is_left(recorded)


def test_an_interrupt_aborts_the_upload(recorded: Recorded[BlobDriver], bucket: Bucket) -> None:
    def source() -> Iterator[bytes]:
        yield from [DATA] * 20
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bucket.put("key", source())
    assert_nothing_is_left(recorded)
    assert not bucket.exists("key")


def test_the_abort_waits_for_the_parts_that_are_on_their_way(recorded: Recorded[BlobDriver], bucket: Bucket) -> None:
    entered, release = threading.Semaphore(0), threading.Event()
    on_their_way: set[int] = set()

    def slow(call: Call, proceed: Callable[[], Any]) -> Part:
        on_their_way.add(call.args[1])
        entered.release()
        release.wait(30)
        part: Part = proceed()
        on_their_way.discard(call.args[1])
        return part

    def abort(_call: Call, proceed: Callable[[], Any]) -> None:
        left.append(sorted(on_their_way))
        proceed()

    left: list[list[int]] = []
    recorded.on("upload_part", slow)
    recorded.on("upload_abort", abort)
    releasing = threading.Timer(0.05, release.set)

    def source() -> Iterator[bytes]:
        yield from [DATA] * 20
        assert entered.acquire(timeout=30)
        releasing.start()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bucket.put("key", source())
    releasing.join()
    assert left == [[]]
    assert_nothing_is_left(recorded)


def test_an_abort_that_fails_hides_nothing(
    recorded: Recorded[BlobDriver], bucket: Bucket, caplog: pytest.LogCaptureFixture
) -> None:
    recorded.on("upload_part", fault(PermissionDenied))
    recorded.on("upload_abort", fault(Unavailable))
    with caplog.at_level(logging.WARNING), pytest.raises(PermissionDenied):
        bucket.put("key", iter([DATA] * 9))
    assert "the parts of an upload to object 'key' in bucket 'shop' could not be dropped" in caplog.text


def test_the_source_is_read_by_the_caller_alone_and_not_far_ahead(
    recorded: Recorded[BlobDriver], bucket: Bucket
) -> None:
    readers: set[int] = set()
    read = 0
    ahead: list[int] = []
    sent = itertools.count(1)

    def source() -> Iterator[bytes]:
        nonlocal read
        for _ in range(100):
            readers.add(threading.get_ident())
            read += 1
            yield DATA

    def part(_call: Call, proceed: Callable[[], Any]) -> Part:
        ahead.append(read - 8 * next(sent))
        return proceed()  # type: ignore[no-any-return]  # the driver's part

    recorded.on("upload_part", part)
    bucket.put("key", source())
    assert readers == {threading.get_ident()}
    assert max(ahead) <= 6 * 8
    assert bucket.get("key") == DATA * 100


def test_one_piece_goes_in_one_call_and_more_in_parts(recorded: Recorded[BlobDriver], bucket: Bucket) -> None:
    for size, calls in ((8 * MIB, ["put"]), (8 * MIB + 1, ["upload_begin", "upload_complete", *["upload_part"] * 2])):
        for data in (
            bytes(size),
            bytearray(size),
            memoryview(bytes(size)),
            io.BytesIO(bytes(size)),
            iter([bytes(size)]),
        ):
            recorded.calls.clear()
            assert bucket.put("key", data).size == size
            assert sorted(call.name for call in recorded.calls) == calls


def test_parts_tell_their_number_and_place(recorded: Recorded[BlobDriver], bucket: Bucket) -> None:
    bucket.put("key", iter([DATA] * 17))
    calls = sorted(recorded.named("upload_part"), key=lambda call: call.args[1])
    assert [(call.args[1], len(call.args[2]), call.args[3]) for call in calls] == [
        (1, 8 * MIB, 0),
        (2, 8 * MIB, 8 * MIB),
        (3, MIB, 16 * MIB),
    ]


def test_a_known_size_makes_parts_that_suffice() -> None:
    tebi = 1024 * 1024 * MIB
    assert next(part_sizes(FEATURES, 5 * tebi)) == 525 * MIB
    sizes = list(part_sizes(FEATURES, 5 * tebi))
    assert len(sizes) == 10_000
    assert sum(sizes) >= 5 * tebi
    assert next(part_sizes(FEATURES, 100)) == 8 * MIB


def test_an_unknown_size_makes_parts_that_grow() -> None:
    sizes = list(part_sizes(FEATURES, None))
    assert len(sizes) == 10_000
    assert set(sizes[:1250]) == {8 * MIB}
    assert sizes == sorted(sizes)
    assert sum(sizes) > 2 * 1024 * 1024 * MIB
    capped = attrs.evolve(FEATURES, max_part=Limit(100 * MIB, "a test"))
    assert max(part_sizes(capped, None)) == 100 * MIB


def test_parts_are_never_smaller_than_the_provider_wants() -> None:
    wants = attrs.evolve(FEATURES, part_size=Limit(16 * MIB, "a test"), max_parts=None)
    assert next(part_sizes(wants, 1)) == next(part_sizes(wants, None)) == 16 * MIB


def test_more_than_the_last_part_is_refused_and_aborted() -> None:
    recorded, bucket = with_features(max_parts=Limit(2, "a test"))
    with pytest.raises(InvalidArgument, match="parts"):
        bucket.put("key", iter([DATA] * 100))
    assert_nothing_is_left(recorded)


def test_an_object_known_to_be_too_large_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    recorded, bucket = with_features(max_object=Limit(10, "a test"))
    path = tmp_path / "file"
    path.write_bytes(b"x" * 11)
    recorded.calls.clear()
    for data in (b"x" * 11, path, io.BytesIO(b"x" * 11)):
        with pytest.raises(InvalidArgument, match="the limit is 10"):
            bucket.put("key", data)
    with path.open("rb") as file, pytest.raises(InvalidArgument):
        bucket.put("key", file)
    assert recorded.calls == []
    assert bucket.put("key", b"x" * 10).size == 10


@pytest.mark.parametrize("metadata", [{"a": "b\r\nx-evil: 1"}, {"a\n": "b"}, {"a": "\0"}, {"": "b"}])
def test_metadata_that_would_break_a_header_is_refused_before_anything_is_sent(
    recorded: Recorded[BlobDriver], bucket: Bucket, metadata: dict[str, str]
) -> None:
    recorded.calls.clear()
    with pytest.raises(InvalidArgument):
        bucket.put("key", b"", metadata=metadata)
    assert recorded.calls == []


def test_text_is_no_content(bucket: Bucket) -> None:
    for data in ("a path?", ["text"], io.StringIO("text")):
        with pytest.raises(TypeError):
            bucket.put("key", data)  # type: ignore[arg-type]  # that is the point
    assert not bucket.exists("key")


def test_content_type_and_headers_must_not_differ(recorded: Recorded[BlobDriver], bucket: Bucket) -> None:
    recorded.calls.clear()
    with pytest.raises(InvalidArgument):
        bucket.put("key", b"", content_type="a/b", headers=Headers(content_type="c/d"))
    assert recorded.calls == []
    assert bucket.put("key", b"", content_type="a/b", headers=Headers(content_type="a/b")).headers.content_type == "a/b"
    assert bucket.put("key.png", b"").headers.content_type is None


class Counting(MemoryBlobDriver):
    """Keeps only the digest of what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.parts: dict[int, bytes] = {}

    def upload_part(self, upload: Upload, number: int, data: bytes, offset: int) -> Part:
        self.parts[number] = hashlib.sha256(data).digest()
        return Part(number=number, size=len(data), token="")

    def upload_complete(self, upload: Upload, parts: tuple[Part, ...]) -> ObjectInfo:
        return attrs.evolve(self.put(upload.bucket, upload.key, b"", upload.options), size=sum(p.size for p in parts))

    def get(self, *args: Any, **kwargs: Any) -> Download:
        size = 200 * MIB
        info = attrs.evolve(self.put("shop", "long", b"", PutOptions()), size=size, md5=None)
        return Download(info=info, chunks=(bytes(MIB) for _ in range(size // MIB)))


def test_memory_stays_flat_for_200_mib() -> None:
    driver = Counting()
    bucket = BlobStore(driver).create(BucketSpec(name="shop"))
    tracemalloc.start()
    try:
        assert bucket.put("long", (bytes(MIB) for _ in range(200))).size == 200 * MIB
        up = tracemalloc.get_traced_memory()[1]
        tracemalloc.reset_peak()
        with bucket.stream("long") as stream:
            assert sum(map(len, stream)) == 200 * MIB
        down = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(driver.parts) == 25
    assert up < 64 * MIB
    assert down < 8 * MIB


# files


def test_a_file_that_nobody_closes_is_not_published(recorded: Recorded[BlobDriver], bucket: Bucket) -> None:
    file = bucket.open("key", "wb")
    for _ in range(9):
        file.write(DATA)
    del file
    gc.collect()
    assert_nothing_is_left(recorded)
    assert not bucket.exists("key")


def test_a_file_whose_part_failed_is_not_published_by_close(recorded: Recorded[BlobDriver], bucket: Bucket) -> None:
    recorded.on("upload_part", fault(Unavailable))
    file = bucket.open("key", "wb")
    with pytest.raises(Unavailable):
        file.writelines([DATA] * 90)
    file.close()
    with pytest.raises(ValueError, match="closed"):
        file.write(b"more")
    assert_nothing_is_left(recorded)
    assert not bucket.exists("key")


def test_closing_a_file_raises_what_went_wrong(bucket: Bucket) -> None:
    bucket.put("key", b"there")
    file = bucket.open("key", "wb", if_absent=True)
    file.write(b"new")
    with pytest.raises(PreconditionFailed):
        file.close()
    assert file.closed
    file.close()
    assert bucket.get("key") == b"there"


def test_a_reader_stays_with_its_version(bucket: Bucket) -> None:
    bucket.put("key", DATA)
    with bucket.open("key") as file:
        assert file.read(4) == DATA[:4]
        bucket.put("key", DATA[::-1])
        file.seek(MIB // 2)
        with pytest.raises(PreconditionFailed):
            file.read(1)


def test_a_reader_reads_on_through_one_download_and_seeks_by_another(
    recorded: Recorded[BlobDriver], bucket: Bucket
) -> None:
    bucket.put("key", DATA)
    with bucket.open("key") as file:
        assert b"".join(iter(lambda: file.read(1000), b"")) == DATA
        assert ranges(recorded) == [None]
        file.seek(-5, io.SEEK_END)
        assert file.read() == DATA[-5:]
        assert ranges(recorded) == [None, (len(DATA) - 5, None)]
        assert file.seek(len(DATA) + 10) == len(DATA) + 10
        assert file.read() == b""
        with pytest.raises(ValueError, match="negative"):
            file.seek(-1)
    with pytest.raises(ValueError, match="closed"):
        file.read()


@pytest.mark.parametrize("failure", [KeyboardInterrupt, Injected(Fault(PermissionDenied))])
@pytest.mark.parametrize("read", [MIB // 4, MIB])
def test_a_reader_that_failed_is_not_at_its_end_and_goes_on_where_it_is_told_to(
    recorded: Recorded[BlobDriver], bucket: Bucket, read: int, failure: Any
) -> None:
    bucket.put("key", DATA * 3)
    each_get(recorded, lambda got: broken(got, failure))
    with bucket.open("key") as file:
        assert DATA == b"".join(file.read(read) for _ in range(MIB // read))
        with pytest.raises((KeyboardInterrupt, PermissionDenied)):
            file.read(read)
        with pytest.raises(ValueError, match="seek"):
            file.read(read)
        assert MIB == file.seek(MIB)
        assert DATA * 2 == file.read()


def test_a_file_reads_as_text(bucket: Bucket) -> None:
    bucket.put("key", "erste\nzweite ä\n".encode())
    with io.TextIOWrapper(bucket.open("key"), "utf-8") as file:
        assert list(file) == ["erste\n", "zweite ä\n"]


def test_text_is_written_as_the_refusal_says_and_dropped_by_an_exception(bucket: Bucket) -> None:
    with pytest.raises(ValueError, match=r"codecs\.getwriter\('utf-8'\)"):
        bucket.open("key", "w")  # type: ignore[arg-type]  # that is the point
    with pytest.raises(ZeroDivisionError), bucket.open("key", "wb") as file:
        codecs.getwriter("utf-8")(file).writelines(f"{1 / number}\n" for number in (1, 0))
    assert not bucket.exists("key")
    with bucket.open("key", "wb") as file:
        codecs.getwriter("utf-8")(file).writelines(["erste\n", "zweite ä\n"])
    assert "erste\nzweite ä\n".encode() == bucket.get("key")


def test_files_are_binary_and_old_versions_are_not_written(bucket: Bucket) -> None:
    with pytest.raises(ValueError, match="'rb' or 'wb'"):
        bucket.open("key", "w")  # type: ignore[arg-type]  # that is the point
    with pytest.raises(InvalidArgument):
        bucket.open("key", "wb", version="1")
    with pytest.raises(InvalidArgument):
        bucket.open("key", metadata={"a": "b"})


def test_a_pipe_is_a_source_of_unknown_size(bucket: Bucket, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    assert size_of(pipe) is None
    with ThreadPoolExecutor(1) as pool:
        pool.submit(pipe.write_bytes, DATA * 9)
        assert bucket.put("key", pipe).size == 9 * MIB


# copies


def test_a_copy_that_the_provider_refuses_as_unsupported_is_streamed(
    recorded: Recorded[BlobDriver], bucket: Bucket
) -> None:
    bucket.put("key", DATA, content_type="a/b", metadata={"a": "b"}, tags={"t": "1"})
    recorded.on("copy", fault(Unsupported))
    info = bucket.copy("key", "other")
    assert (info.headers.content_type, info.metadata, bucket.tags("other")) == ("a/b", {"a": "b"}, {"t": "1"})
    assert bucket.get("other") == DATA


@pytest.mark.parametrize("lacking", ["headers", "metadata", "tags"])
def test_a_copy_loses_nothing_silently(bucket: Bucket, lacking: str) -> None:
    recorded, poor = with_features(**{lacking: False})
    bucket.put("key", DATA, content_type="a/b", metadata={"a": "b"}, tags={"t": "1"})
    recorded.calls.clear()
    with pytest.raises(Unsupported):
        bucket.copy("key", "key", to=poor)
    assert recorded.calls == []


def test_a_source_that_breaks_in_a_copy_leaves_no_target(recorded: Recorded[BlobDriver], bucket: Bucket) -> None:
    target = BlobStore(MemoryBlobDriver()).create(BucketSpec(name="elsewhere"))
    bucket.put("key", DATA * 20)
    recorded.on("get", lambda call, proceed: dropped(proceed(), 9 * MIB, error=PermissionDenied))
    with pytest.raises(PermissionDenied):
        bucket.copy("key", "key", to=target)
    assert list(target.list()) == []


def test_a_missing_source_is_no_failed_condition(bucket: Bucket) -> None:
    token = bucket.put("target", b"x").token
    with pytest.raises(NotFound) as caught:
        bucket.copy("absent", "target", if_match=token)
    assert type(caught.value) is NotFound


# deletes


def test_without_a_batch_keys_are_deleted_side_by_side() -> None:
    recorded, bucket = with_features(delete_batch=None)
    for number in range(50):
        bucket.put(f"{number}", b"")

    def refuse(call: Call, proceed: Callable[[], Any]) -> None:
        if call.args[1] == "7":
            raise Injected(Fault(PermissionDenied, "not this one"))
        proceed()

    recorded.on("delete", refuse)
    failed = bucket.delete_many(str(number) for number in range(60))
    assert {key: type(error) for key, error in failed.items()} == {"7": PermissionDenied}
    assert str(failed["7"]) == "blob.delete on object '7' in bucket 'shop' (memory): not this one"
    assert [item.key for item in bucket.list()] == ["7"]
    missing = Bucket(recorded.driver, "absent")
    with pytest.raises(ParentNotFound):
        missing.delete_many(["a"])


def test_a_batch_tells_which_keys_failed(recorded: Recorded[BlobDriver], bucket: Bucket) -> None:
    recorded.on("delete_many", lambda _call, _proceed: {"b": Fault(PermissionDenied, "locked", "AccessDenied")})
    failed = bucket.delete_many(["a", "b"])
    assert [str(error) for error in failed.values()] == [
        "blob.delete on object 'b' in bucket 'shop' (memory): locked [AccessDenied]"
    ]
    assert type(failed["b"]) is PermissionDenied


def test_batches_are_no_longer_than_the_limit_and_a_key_goes_once(
    recorded: Recorded[BlobDriver], bucket: Bucket
) -> None:
    bucket.delete_many(f"{number % 2500}" for number in range(5000))
    assert [len(call.args[1]) for call in recorded.named("delete_many")] == [1000, 1000, 500]
    with pytest.raises(TypeError):
        bucket.delete_many("abc")


# errors


def test_only_a_missing_key_makes_exists_say_no(recorded: Recorded[BlobDriver], bucket: Bucket) -> None:
    assert not bucket.exists("key")
    recorded.on("stat", fault(PermissionDenied))
    with pytest.raises(PermissionDenied):
        bucket.exists("key")
    with pytest.raises(ParentNotFound, match="bucket 'absent' does not exist"):
        Bucket(recorded.inner, "absent").exists("key")


@pytest.mark.parametrize("missing", [None, "object"])
def test_a_provider_that_says_404_to_if_match_is_understood(
    recorded: Recorded[BlobDriver], bucket: Bucket, missing: str | None
) -> None:
    def not_found(_call: Call, _proceed: object) -> None:
        raise Injected(Fault(NotFound, missing=missing))

    token = bucket.put("key", b"").token
    for name in ("put", "delete"):
        recorded.on(name, not_found)
    with pytest.raises(PreconditionFailed, match="does not exist"):
        bucket.put("key", b"", if_match=token)
    with pytest.raises(PreconditionFailed, match="does not exist"):
        bucket.delete("key", if_match=token)
    with pytest.raises(ParentNotFound):
        Bucket(recorded.inner, "absent").put("key", b"", if_match=token)


def test_a_handle_shows_where_it_is(bucket: Bucket) -> None:
    bucket.put("key", b"abc")
    assert repr(bucket) == "<Bucket 'shop' on memory>"
    assert repr(bucket.stream("key")) == "<ObjectStream of object 'key' in bucket 'shop', 0 of 3 bytes>"
    assert isinstance(bucket.features, BlobFeatures)
    assert isinstance(bucket.unwrap(object), object)


def test_a_prefix_that_is_no_text_is_refused_before_anything_is_sent(
    recorded: Recorded[BlobDriver], bucket: Bucket
) -> None:
    recorded.calls.clear()
    listings: tuple[Callable[[], object], ...] = (
        lambda: bucket.list("\ud800"),
        lambda: bucket.list(start_after="\ud800"),
        lambda: bucket.list_folder(delimiter=""),
        lambda: bucket.list_folder("\ud800"),
    )
    for listing in listings:
        with pytest.raises(InvalidArgument):
            listing()
    assert recorded.calls == []


def test_the_size_of_data_that_do_not_tell_it_decides_the_size_of_parts() -> None:
    """100 parts of 8 MiB do not hold 1,000 MiB; a stream of unknown length begins small and doubles its parts."""
    features = attrs.evolve(FEATURES, max_parts=Limit(100, "this test"))
    recorded = Recorded(MemoryBlobDriver(), features=features)
    bucket = BlobStore(recorded.driver).create(BucketSpec(name="shop"))
    recorded.on("upload_part", lambda call, _: Part(number=call.args[1], size=len(call.args[2]), token="t"))
    recorded.on("upload_complete", lambda _call, _proceed: stat_of("key"))
    mebibyte = bytes(1024**2)
    for size, first in ((1000 * len(mebibyte), 10), (None, 8)):
        recorded.calls.clear()
        bucket.put("key", itertools.repeat(mebibyte, 1000), size=size)
        parts = [len(call.args[2]) // len(mebibyte) for call in recorded.named("upload_part")]
        assert parts[0] == first
        assert sum(parts) == 1000
        assert (len(set(parts)) == 1) == (size is not None)


def stat_of(key: str) -> ObjectInfo:
    return ObjectInfo(key=key, size=0, token=Token("t"), modified=datetime.now(UTC))


# what a driver does not have, and the portable class does without


def test_a_driver_without_conditional_reads_is_asked_first() -> None:
    recorded, bucket = with_features(if_none_match=False)
    info = bucket.put("key", b"content")
    recorded.calls.clear()
    with pytest.raises(NotModified):
        bucket.get("key", if_none_match=info.token)
    assert [call.name for call in recorded.calls] == ["stat"]
    assert bucket.get("key", if_none_match=Token("another")) == b"content"
    assert recorded.named("get")[0].kwargs.keys() == {"range_", "if_match", "version"}


def test_a_server_that_ignores_the_condition_of_a_read_is_noticed(recorded: Recorded[BlobDriver]) -> None:
    bucket = BlobStore(recorded.driver).create(BucketSpec(name="shop"))
    info = bucket.put("key", b"content")
    closed: list[bool] = []

    def ignoring(call: Call, _proceed: Callable[[], Any]) -> Download:
        told = {**call.kwargs, "if_none_match": None}
        download = recorded.inner.get(*call.args, **told)

        def chunks() -> Iterator[bytes]:
            try:
                yield from download.chunks
            finally:
                closed.append(True)

        opened = chunks()
        next(opened)
        return attrs.evolve(download, chunks=opened)

    recorded.on("get", ignoring)
    with pytest.raises(NotModified):
        bucket.get("key", if_none_match=info.token)
    assert closed == [True]


def test_a_driver_that_cannot_copy_versions_has_them_sent_through_here() -> None:
    recorded, shop = with_features(restore=False, tags=False)
    store = BlobStore(recorded.driver)
    bucket = store.create(BucketSpec(name="versions", versioning=True))
    old = bucket.put("key", b"old", metadata={"a": "b"}).version
    bucket.put("key", b"new")
    assert old is not None
    bucket.restore("key", old)
    assert bucket.get("key") == b"old"
    assert bucket.stat("key").metadata == {"a": "b"}
    bucket.copy("key", "elsewhere", to=shop, version=old)
    assert shop.get("elsewhere") == b"old"
    assert recorded.named("copy") == []


def test_tags_of_an_older_version_are_never_left_behind_unseen() -> None:
    recorded, _ = with_features(restore=False)
    bucket = BlobStore(recorded.driver).create(BucketSpec(name="versions", versioning=True))
    tagged = bucket.put("key", b"old", tags={"a": "b"}).version
    plain = bucket.put("key", b"plain").version
    bucket.put("key", b"new")
    assert tagged is not None
    assert plain is not None
    with pytest.raises(Unsupported, match="tags of older versions"):
        bucket.restore("key", tagged)
    assert bucket.get("key") == b"new"
    bucket.restore("key", plain)
    assert bucket.get("key") == b"plain"


# storage classes

WARM = StorageClass("Hot", "standard"), StorageClass("Cool", "infrequent")
DEEP = (
    *WARM,
    StorageClass("Cold", "cold"),
    StorageClass("Archive", "archive", online=False),
)
FAST_ARCHIVE = (
    StorageClass("STANDARD", "standard"),
    StorageClass("COLDLINE", "cold"),
    StorageClass("ARCHIVE", "archive"),
)


@pytest.mark.parametrize(
    ("name", "source", "target", "expected"),
    [
        ("STANDARD", FAST_ARCHIVE, DEEP, "Hot"),
        ("COLDLINE", FAST_ARCHIVE, DEEP, "Cold"),
        ("Archive", DEEP, FAST_ARCHIVE, "ARCHIVE"),
        ("archive", DEEP, FAST_ARCHIVE, "ARCHIVE"),
        ("ARCHIVE", FAST_ARCHIVE, DEEP, "Cold"),  # never what has to be brought back for what can be read
        ("Archive", DEEP, DEEP, "Archive"),
        ("Archive", DEEP, WARM, "Cool"),  # the nearest warmer one
        ("Cool", DEEP, FAST_ARCHIVE, "STANDARD"),
        ("Cool", DEEP, (), None),
        ("unknown", DEEP, FAST_ARCHIVE, None),
        (None, DEEP, FAST_ARCHIVE, None),
        ("Cool", (), FAST_ARCHIVE, None),
    ],
)
def test_a_storage_class_becomes_the_nearest_of_the_other_provider(
    name: str | None, source: tuple[StorageClass, ...], target: tuple[StorageClass, ...], expected: str | None
) -> None:
    here, there = (attrs.evolve(FEATURES, storage_classes=classes) for classes in (source, target))
    assert translate_class(name, here, there) == expected

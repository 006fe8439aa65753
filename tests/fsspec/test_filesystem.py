"""``shiftable://``: fsspec's own tests, and what they do not ask."""

import errno
import json
import multiprocessing
import pickle
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

fsspec = pytest.importorskip("fsspec", reason="needs shiftable[fsspec]")

from fsspec.tests.abstract import (  # noqa: E402  behind the skip
    AbstractCopyTests,
    AbstractFixtures,
    AbstractGetTests,
    AbstractOpenTests,
    AbstractPipeTests,
    AbstractPutTests,
)

from shiftable.app import App  # noqa: E402  the same
from shiftable.blob import Bucket  # noqa: E402  the same
from shiftable.errors import PermissionDenied, Throttled, Timeout  # noqa: E402  the same
from shiftable.fsspec import ShiftableFileSystem  # noqa: E402  the same

MEMORY = """
[project]
name = "shop"
[environments.development]
provider = "memory"
[blob.assets]
bucket = "shop-assets"
[blob.logs]
"""
FILES = MEMORY.replace('"memory"', '"local"') + '[providers.local]\ntype = "baremetal"\nroot = "local"\nfsync = false\n'


@pytest.fixture(params=["memory", "files"])
def made(request: pytest.FixtureRequest, folder: Path) -> Iterator[ShiftableFileSystem]:
    if request.param == "files":
        pytest.importorskip("shiftable_baremetal", reason="needs shiftable-baremetal")
    (folder / "shiftable.toml").write_text(MEMORY if request.param == "memory" else FILES)
    fs = ShiftableFileSystem()
    home = fs._home
    assert isinstance(home, App)
    for declared in home.declared("blob"):
        home.service(declared).create(home.spec(declared))
    yield fs
    fs.clear_instance_cache()


@pytest.fixture
def fs(made: ShiftableFileSystem) -> ShiftableFileSystem:
    return made


class Fixtures(AbstractFixtures):  # type: ignore[misc]  # fsspec has no types
    @pytest.fixture
    def fs(self, made: ShiftableFileSystem) -> ShiftableFileSystem:
        return made

    @pytest.fixture
    def fs_path(self) -> str:
        return "assets/base"

    @pytest.fixture
    def fs_join(self) -> Callable[..., str]:
        return lambda *parts: "/".join(parts)

    @pytest.fixture
    def supports_empty_directories(self) -> bool:
        return False


class TestCopy(AbstractCopyTests, Fixtures):  # type: ignore[misc]  # the same
    pass


class TestGet(AbstractGetTests, Fixtures):  # type: ignore[misc]  # the same
    pass


class TestOpen(AbstractOpenTests, Fixtures):  # type: ignore[misc]  # the same
    pass


class TestPipe(AbstractPipeTests, Fixtures):  # type: ignore[misc]  # the same
    pass


class TestPut(AbstractPutTests, Fixtures):  # type: ignore[misc]  # the same
    pass


@pytest.fixture
def bucket(fs: ShiftableFileSystem) -> Bucket:
    return fs.bucket("assets")[0]


# what is there


def test_fsspec_finds_it_by_its_scheme(fs: ShiftableFileSystem, folder: Path) -> None:
    assert isinstance(fsspec.filesystem("shiftable"), ShiftableFileSystem)
    found, path = fsspec.core.url_to_fs("shiftable://assets/a/b", file=str(folder / "shiftable.toml"))
    assert ("assets/a/b", "shiftable://assets/a/b") == (path, found.unstrip_protocol(path))
    assert fs.async_impl is False


def test_labels_are_the_first_level(fs: ShiftableFileSystem) -> None:
    assert ["assets", "logs"] == fs.ls("", detail=False)
    assert [("assets", "directory"), ("logs", "directory")] == [(e["name"], e["type"]) for e in fs.ls("shiftable://")]
    assert [True, True, True] == [fs.isdir(""), fs.isdir("assets"), fs.exists("shiftable://logs/")]
    assert not fs.exists("asets")
    with pytest.raises(FileNotFoundError, match="did you mean assets"):
        fs.ls("asets")


def test_folders_are_what_keys_begin_with(fs: ShiftableFileSystem, bucket: Bucket) -> None:
    for key in ("a", "d/b", "d/e/c", "d2/x"):
        bucket.put(key, key.encode())
    assert ["assets/a", "assets/d", "assets/d2"] == fs.ls("assets", detail=False)
    assert ["assets/d/b", "assets/d/e"] == fs.ls("shiftable://assets/d/", detail=False)
    assert ["assets/a"] == fs.ls("assets/a", detail=False)
    assert {"name": "assets/d", "size": 0, "type": "directory"} == fs.info("assets/d")
    assert ("assets/d/b", 3, "file") == tuple(fs.info("assets/d/b")[name] for name in ("name", "size", "type"))
    assert fs.info("assets/d/b") in fs.ls("assets/d")
    assert ["assets/a", "assets/d/b", "assets/d/e/c", "assets/d2/x"] == fs.find("assets")
    assert ["assets/d/b", "assets/d/e/c"] == list(fs.find("assets/d", detail=True))
    assert ["assets/d", "assets/d/b", "assets/d/e", "assets/d/e/c"] == fs.find("assets/d", withdirs=True)
    assert ["assets/d/b"] == fs.find("assets/d", maxdepth=1)
    assert ["assets/a"] == fs.find("assets/a")
    assert fs.find("assets") == fs.find("")
    assert ["assets/d/b", "assets/d/e"] == fs.glob("assets/d/*")
    assert ["assets/d/b", "assets/d/e/c", "assets/d2/x"] == [
        p for p in fs.glob("assets/**") if fs.isfile(p) and "d" in p[7:]
    ]
    assert [("assets/d", ["e"], ["b"]), ("assets/d/e", [], ["c"])] == [
        (p, list(d), list(f)) for p, d, f in fs.walk("assets/d")
    ]
    assert {"assets/d/b": 3, "assets/d/e/c": 5} == fs.du("assets/d", total=False)
    for missing in ("assets/x", "assets/d/x", "assets/a/x"):
        with pytest.raises(FileNotFoundError):
            fs.info(missing)
        with pytest.raises(FileNotFoundError):
            fs.ls(missing)


def test_a_missing_bucket_is_a_missing_file(fs: ShiftableFileSystem) -> None:
    home = fs._home
    assert isinstance(home, App)
    home.service(home.config.resources["blob.logs"]).delete("logs")
    for attempt in (fs.ls, fs.info, fs.cat_file):
        with pytest.raises(FileNotFoundError, match="bucket 'logs'"):
            attempt("logs/x" if attempt == fs.cat_file else "logs")
    assert not fs.exists("logs")


def test_marks_of_folders_are_folders(fs: ShiftableFileSystem, bucket: Bucket) -> None:
    if bucket.check_key("x/") is not None:
        pytest.skip("files have no keys that end in a slash")
    bucket.put("x/", b"")
    bucket.put("x/sub/", b"")
    assert ["assets/x"] == fs.ls("assets", detail=False)
    assert ["assets/x/sub"] == fs.ls("assets/x", detail=False)
    assert [] == fs.ls("assets/x/sub")
    assert "directory" == fs.info("assets/x")["type"]
    assert [] == fs.find("assets/x")
    fs.rm("assets/x", recursive=True)
    assert not fs.exists("assets/x")
    assert [] == list(bucket.list())


def test_keys_that_are_no_paths_are_kept_byte_for_byte(fs: ShiftableFileSystem, bucket: Bucket) -> None:
    keys = [k for k in ("a//b", "a/b", " x ", "ü%20+?#", "e\u0301", "\u00e9") if bucket.check_key(k) is None]
    for key in keys:
        fs.pipe_file(f"assets/{key}", key.encode())
    assert sorted(keys) == sorted(item.key for item in bucket.list())
    assert sorted(f"assets/{key}" for key in keys) == fs.find("assets")
    assert {f"assets/{key}": key.encode() for key in keys} == fs.cat("assets", recursive=True)
    assert ["b"] == [name for _, _, names in fs.walk("assets/a") for name in names]


# reading and writing


def test_parts_of_files_are_read_as_slices(fs: ShiftableFileSystem) -> None:
    data = bytes(range(100))
    fs.pipe_file("assets/a", data)
    for start, end in (
        (None, None),
        (0, 10),
        (90, 200),
        (-10, None),
        (None, -10),
        (-20, -10),
        (5, 5),
        (50, 10),
        (200, 300),
    ):
        assert data[start:end] == fs.cat_file("assets/a", start, end), (start, end)
    assert [data[:5], data[10:20], data[-3:]] == fs.cat_ranges(["assets/a"] * 3, [0, 10, -3], [5, 20, None])
    (error,) = fs.cat_ranges(["assets/none"], 0, 5)
    assert isinstance(error, FileNotFoundError)
    with pytest.raises(FileNotFoundError):
        fs.cat_ranges(["assets/none"], 0, 5, on_error="raise")
    assert {"assets/a": data} == fs.cat(["assets/a", "assets/none"], on_error="omit")
    with pytest.raises(IsADirectoryError):
        fs.cat_file("assets")


def test_a_file_is_read_in_the_version_in_which_it_was_opened(fs: ShiftableFileSystem) -> None:
    fs.pipe_file("assets/a", b"old" * 1000)
    with fs.open("assets/a", block_size=10, cache_type="none") as file:
        assert b"old" == file.read(3)
        fs.pipe_file("assets/a", b"new" * 1000)
        with pytest.raises(OSError, match="not in that version") as caught:
            file.read(3)
    assert errno.ESTALE == caught.value.errno


def test_files_are_seekable_and_end_where_they_should(fs: ShiftableFileSystem) -> None:
    fs.pipe_file("assets/a", b"one\ntwo\nthree")
    with fs.open("assets/a", "rb", block_size=4) as file:
        assert (13, b"one\n") == (file.size, file.readline())
        file.seek(-5, 2)
        assert b"three" == file.read()
    with fs.open("assets/a", "r", newline="\n") as text:
        assert ["one\n", "two\n", "three"] == text.readlines()


def write_half(opened: Any, data: str | bytes) -> None:
    with opened as file:
        file.write(data)
        raise ZeroDivisionError


@pytest.mark.parametrize("mode", ["wb", "w"])
def test_a_block_that_fails_leaves_no_file(fs: ShiftableFileSystem, mode: str) -> None:
    fs.pipe_file("assets/kept", b"kept")
    for path in ("assets/new", "assets/kept"):
        with pytest.raises(ZeroDivisionError):
            write_half(fs.open(path, mode), "x" if mode == "w" else b"x")
    assert {"assets/kept": b"kept"} == fs.cat("assets", recursive=True)


def test_a_file_is_visible_when_it_is_closed(fs: ShiftableFileSystem) -> None:
    with fs.open("assets/a", "wb", block_size=1000, content_type="text/plain") as file:
        for _ in range(50):
            file.write(b"x" * 999)
        assert not fs.exists("assets/a")
    assert 49_950 == fs.size("assets/a")
    with fs.open("assets/empty", "wb"):
        pass
    assert 0 == fs.size("assets/empty")
    with fs.open("assets/z.gz", "wt", compression="gzip") as text:
        text.write("packed")
    del text
    with fs.open("assets/z.gz", "rt", compression="gzip") as text:
        assert "packed" == text.read()


def publish_half(fs: ShiftableFileSystem) -> None:
    with fs.transaction:
        with fs.open("assets/b", "wb") as file:
            file.write(b"1")
        raise ZeroDivisionError


def test_a_transaction_publishes_all_or_nothing(fs: ShiftableFileSystem) -> None:
    with fs.transaction:
        with fs.open("assets/a", "wb") as file:
            file.write(b"1")
        assert not fs.exists("assets/a")
    assert b"1" == fs.cat_file("assets/a")
    with pytest.raises(ZeroDivisionError):
        publish_half(fs)
    assert not fs.exists("assets/b")


def test_create_only_is_refused_by_the_provider_and_not_by_a_look(fs: ShiftableFileSystem, bucket: Bucket) -> None:
    file = fs.open("assets/a", "xb")
    file.write(b"late")
    bucket.put("a", b"first")
    with pytest.raises(FileExistsError):
        file.close()
    assert b"first" == bucket.get("a")
    with pytest.raises(FileExistsError):
        fs.put_file(__file__, "assets/a", mode="create")


def test_nothing_appends(fs: ShiftableFileSystem) -> None:
    for mode in ("ab", "a", "r+b"):
        with pytest.raises(NotImplementedError):
            fs.open("assets/a", mode)


def test_touch_makes_a_file_and_keeps_one_that_is_there(fs: ShiftableFileSystem) -> None:
    fs.touch("assets/a", truncate=False)
    assert 0 == fs.size("assets/a")
    fs.pipe_file("assets/a", b"x")
    with pytest.raises(NotImplementedError, match="cannot be set"):
        fs.touch("assets/a", truncate=False)
    fs.touch("assets/a")
    assert 0 == fs.size("assets/a")


def test_a_version_has_a_time_and_a_checksum(fs: ShiftableFileSystem) -> None:
    fs.pipe_file("assets/a", b"1")
    first = fs.checksum("assets/a")
    assert first == fs.checksum("shiftable://assets/a")
    assert abs(datetime.now(UTC) - fs.modified("assets/a")) < timedelta(minutes=5)
    assert fs.created("assets/a") == fs.modified("assets/a") == fs.info("assets/a")["mtime"]
    fs.pipe_file("assets/a", b"2")
    assert first != fs.checksum("assets/a")
    if not fs.bucket("assets")[0].features.sign:
        with pytest.raises(NotImplementedError):
            fs.sign("assets/a")


def test_files_come_down_whole_and_folders_with_them(fs: ShiftableFileSystem, folder: Path) -> None:
    fs.pipe({"assets/d/a": b"1", "assets/d/e/b": b"2"})
    fs.get("assets/d", str(folder / "down"), recursive=True)
    assert b"2" == (folder / "down/e/b").read_bytes()
    with (folder / "out").open("wb") as file:
        fs.get_file("assets/d/a", file)
    assert b"1" == (folder / "out").read_bytes()
    with pytest.raises(FileNotFoundError):
        fs.get_file("assets/none", str(folder / "none"))
    assert not (folder / "none").exists()


# deleting and moving


def test_rm_says_what_it_cannot_delete(fs: ShiftableFileSystem) -> None:
    fs.pipe({"assets/d/a": b"1", "assets/d/e/b": b"2", "assets/d2": b"3"})
    with pytest.raises(FileNotFoundError):
        fs.rm("assets/none")
    with pytest.raises(FileNotFoundError):
        fs.rm("assets/none", recursive=True)
    with pytest.raises(IsADirectoryError):
        fs.rm("assets/d")
    fs.rm("assets/d", recursive=True, maxdepth=1)
    assert ["assets/d/e/b", "assets/d2"] == fs.find("assets")
    fs.rm(["assets/d", "assets/d2"], recursive=True)
    assert [] == fs.find("assets")
    fs.rm("assets", recursive=True)
    assert fs.exists("assets")


def test_mv_and_cp_go_from_bucket_to_bucket(fs: ShiftableFileSystem, bucket: Bucket) -> None:
    bucket.put("a", b"1", content_type="image/png", metadata={"k": "v"})
    fs.cp("assets/a", "logs/b")
    fs.mv("assets/a", "logs/c")
    assert ["logs/b", "logs/c"] == fs.find("")
    info = fs.bucket("logs")[0].stat("c")
    assert ("image/png", {"k": "v"}) == (info.headers.content_type, dict(info.metadata))
    with pytest.raises(FileNotFoundError):
        fs.cp_file("assets/none", "logs/x")
    with pytest.raises(ValueError, match="itself"):
        fs.mv("logs/b", "shiftable://logs/b")
    assert b"1" == fs.cat_file("logs/b")


# what is kept


def test_a_kept_listing_is_forgotten_when_something_is_written(fs: ShiftableFileSystem, bucket: Bucket) -> None:
    kept = ShiftableFileSystem(use_listings_cache=True)
    writes: list[Callable[[], Any]] = [
        lambda: kept.pipe_file("assets/d/e/new", b"1"),
        lambda: kept.put_file(__file__, "assets/d/e/put"),
        lambda: kept.cp_file("assets/d/e/new", "assets/d/e/copy"),
        lambda: kept.touch("assets/d/e/touched"),
        lambda: kept.open("assets/d/e/file", "wb").close(),
        lambda: kept.rm_file("assets/d/e/new"),
        lambda: kept.rm("assets/d/e", recursive=True),
    ]
    for write in writes:
        before = kept.ls("assets", detail=False), kept.ls("assets/d", detail=False) if kept.isdir("assets/d") else []
        write()
        now = sorted({f"assets/{item.key.split('/')[0]}" for item in bucket.list()})
        assert now == kept.ls("assets", detail=False), before
        assert sorted(item.key for item in bucket.list("d/e/")) == (
            [name.partition("/")[2] for name in kept.ls("assets/d/e", detail=False)] if kept.isdir("assets/d/e") else []
        )
    bucket.put("other", b"1")
    assert [] == kept.ls("assets")
    assert ["assets/other"] == kept.ls("assets", detail=False, refresh=True)
    bucket.delete("other")
    kept.invalidate_cache()
    assert [] == kept.ls("assets")


def test_without_that_others_writes_are_seen_at_once(fs: ShiftableFileSystem, bucket: Bucket) -> None:
    assert [] == fs.ls("assets")
    bucket.put("a", b"1")
    assert ["assets/a"] == fs.ls("assets", detail=False)


# errors


@pytest.mark.parametrize(
    ("error", "expected", "number"),
    [
        (PermissionDenied("no"), PermissionError, errno.EACCES),
        (Throttled("slow"), OSError, errno.EAGAIN),
        (Timeout("late"), TimeoutError, None),
    ],
)
def test_errors_are_those_of_files(
    fs: ShiftableFileSystem, monkeypatch: pytest.MonkeyPatch, error: Exception, expected: type[Exception], number: int
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise error

    for name in ("stat", "get", "put", "list"):
        monkeypatch.setattr(Bucket, name, refused)
    for attempt in (fs.info, fs.exists, fs.cat_file, fs.find, lambda path: fs.pipe_file(path, b"")):
        with pytest.raises(expected) as caught:
            attempt("assets/a")
        if number is not None:
            assert (number, "assets/a", error) == (caught.value.errno, caught.value.filename, caught.value.__cause__)


def test_no_file_is_a_missing_file(folder: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no shiftable.toml"):
        ShiftableFileSystem()


# other processes


def test_another_folder_or_environment_is_another_file_system(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    (folder / "shiftable.toml").write_text(MEMORY)
    first = fsspec.filesystem("shiftable")
    assert first == fsspec.filesystem("shiftable")
    assert first._home is fsspec.filesystem("shiftable", use_listings_cache=True)._home
    monkeypatch.setenv("SHIFTABLE_ENV", "development")
    assert first != fsspec.filesystem("shiftable")
    monkeypatch.delenv("SHIFTABLE_ENV")
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    Path("shiftable.toml").write_text(MEMORY)
    assert first != fsspec.filesystem("shiftable")


def test_threads_share_one_connection(fs: ShiftableFileSystem) -> None:
    with ThreadPoolExecutor(8) as pool:
        homes = set(pool.map(lambda _: id(ShiftableFileSystem()._home), range(32)))
    assert {id(fs._home)} == homes


def test_a_copy_by_pickle_or_json_is_the_same_in_another_folder(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    pytest.importorskip("shiftable_baremetal", reason="needs shiftable-baremetal")
    (folder / "shiftable.toml").write_text(FILES)
    fs = ShiftableFileSystem()
    home = fs._home
    assert isinstance(home, App)
    home.service(home.declared("blob")[0]).create(home.spec(home.declared("blob")[0]))
    fs.pipe_file("assets/a", b"1")
    data = pickle.dumps(fs)
    file = pickle.dumps(fs.open("assets/a"))
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    copy = pickle.loads(data)  # noqa: S301  ours
    assert (fs, hash(fs), fs.fsid) == (copy, hash(copy), copy.fsid)
    assert b"1" == copy.cat_file("assets/a") == pickle.loads(file).read()  # noqa: S301  ours
    assert fs != ShiftableFileSystem(provider="memory")


def test_a_forked_child_connects_for_itself(folder: Path) -> None:
    pytest.importorskip("shiftable_baremetal", reason="needs shiftable-baremetal")
    (folder / "shiftable.toml").write_text(FILES)
    fs = ShiftableFileSystem()
    home = fs._home
    assert isinstance(home, App)
    home.service(home.declared("blob")[0]).create(home.spec(home.declared("blob")[0]))
    fs.pipe_file("assets/a", b"parent")
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe()

    def child() -> None:
        fs.pipe_file("assets/b", b"child")
        sender.send((fs.cat_file("assets/a"), fs._home is home))

    process = context.Process(target=child)
    process.start()
    process.join(60)
    assert (0, (b"parent", False)) == (process.exitcode, receiver.recv())
    assert b"child" == fs.cat_file("assets/b")


def test_without_a_file_paths_begin_with_a_bucket() -> None:
    fs = ShiftableFileSystem(provider="memory", settings={})
    fs._home.blob.create(__import__("shiftable").BucketSpec(name="pictures"))  # type: ignore[union-attr]  # a cloud
    fs.pipe_file("pictures/a", b"1")
    assert (["pictures"], ["pictures/a"]) == (fs.ls("", detail=False), fs.find("pictures"))
    assert json.loads(json.dumps(fs._where))["provider"] == "memory"

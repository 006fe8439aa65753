"""Sync: what is compared, what is left out, and what is never touched."""

import contextlib
import hashlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

import shiftable
from shiftable.blob import BlobStore, Bucket, BucketSpec, SyncStep, sync
from shiftable.blob._sync import _moment, _read
from shiftable.blob.driver import BlobDriver
from shiftable.errors import InvalidArgument, NotFound, PermissionDenied, Unavailable
from shiftable.memory.blob import MemoryBlobDriver
from shiftable.testing.wrap import Call, Recorded


@pytest.fixture
def bucket() -> Iterator[Bucket]:
    with shiftable.connect("memory") as cloud:
        yield cloud.blob.create(BucketSpec(name="shop"))


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in ("a", "b/c", "b-d", "new\nline", "ü"):
        path = tmp_path / "tree" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return tmp_path / "tree"


def done(steps: Iterator[SyncStep]) -> list[tuple[str, str, str]]:
    return sorted((step.action, step.name, type(step.error).__name__ if step.error else "") for step in steps)


def keys(bucket: Bucket) -> list[str]:
    return [item.key for item in bucket.list()]


def test_each_step_is_told_before_it_ends(bucket: Bucket, tree: Path) -> None:
    found: list[SyncStep] = []
    for step in sync(tree, (bucket, "x/"), workers=1, on_found=found.append):
        assert (step.name, step.action, step.size) in [(each.name, each.action, each.size) for each in found]
    assert ["a", "b-d", "b/c", "new\nline", "ü"] == [step.name for step in found]
    assert [] == list(sync(tree, (bucket, "x/"), on_found=found.append))
    assert 5 == len(found)


def test_all_names_go_up_and_come_down_once(bucket: Bucket, tree: Path, tmp_path: Path) -> None:
    copies = [("copy", name, "") for name in ("a", "b-d", "b/c", "new\nline", "ü")]
    assert copies == done(sync(tree, (bucket, "x/"), dry_run=True))
    assert [] == keys(bucket)
    assert copies == done(sync(tree, (bucket, "x/")))
    assert [] == done(sync(tree, (bucket, "x/"), delete=True))
    assert copies == done(sync((bucket, "x/"), tmp_path / "down"))
    assert [] == done(sync((bucket, "x/"), tmp_path / "down", delete=True))
    assert "new\nline" == (tmp_path / "down" / "new\nline").read_text()


def test_another_content_of_the_same_size_and_age_is_copied(bucket: Bucket, tree: Path) -> None:
    list(sync(tree, bucket))
    (tree / "a").write_text("A")
    os.utime(tree / "a", (0, 0))
    assert [("copy", "a", "")] == done(sync(tree, bucket))
    assert b"A" == bucket.get("a")


def test_without_a_digest_the_time_decides(bucket: Bucket, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    list(sync(tree, bucket))
    listed = bucket.list

    def undigested(prefix: str = "") -> Iterator[object]:
        return (attrs.evolve(item, md5=None) for item in listed(prefix))

    monkeypatch.setattr(bucket, "list", undigested)
    os.utime(tree / "a", (0, 0))
    assert [] == done(sync(tree, bucket))
    modified = bucket.stat("a").modified.timestamp()
    os.utime(tree / "a", (modified + 1, modified + 1))
    assert [("copy", "a", "")] == done(sync(tree, bucket, dry_run=True))


@pytest.mark.parametrize("seconds", [-1e9, -1e12, 1e12, 1e20])
def test_a_file_of_a_time_that_no_calendar_has_is_a_file(bucket: Bucket, tree: Path, seconds: float) -> None:
    assert {-1e9: 1938, -1e12: 1}.get(seconds, 9999) == _moment(seconds).year
    os.utime(tree / "a", (-(10**9), -(10**9)))
    assert ("copy", "a", "") in done(sync(tree, bucket))
    assert [] == done(sync(tree, bucket))


def test_what_is_no_regular_file_is_left_out(bucket: Bucket, tree: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "secret").write_text("x")
    (tree / "folder").symlink_to(tmp_path / "elsewhere")
    (tree / "file").symlink_to(tree / "a")
    os.mkfifo(tree / "pipe")
    list(sync(tree, bucket))
    assert ["a", "b-d", "b/c", "new\nline", "ü"] == keys(bucket)


def test_a_missing_source_deletes_nothing(bucket: Bucket, tmp_path: Path) -> None:
    bucket.put("a", b"1")
    with pytest.raises(NotFound):
        list(sync(tmp_path / "absent", bucket, delete=True))
    assert ["a"] == keys(bucket)


def test_what_vanishes_while_it_is_listed_is_not_there(
    bucket: Bucket, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = sync(tree, bucket, delete=True, dry_run=True)
    assert "a" == next(steps).name
    (tree / "b" / "c").unlink()
    (tree / "b").rmdir()
    (tree / "ü").unlink()
    assert ["b-d", "new\nline"] == [step.name for step in steps]


def test_what_vanishes_before_it_is_copied_is_one_error(
    bucket: Bucket, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = os.open

    def late(path: str, *rest: Any) -> int:
        if Path(path) == tree / "a":
            Path(path).unlink()
        return opened(path, *rest)

    monkeypatch.setattr(os, "open", late)
    failed = [step for step in done(sync(tree, bucket)) if step[2]]
    assert [("copy", "a", "NotFound")] == failed
    assert ["b-d", "b/c", "new\nline", "ü"] == keys(bucket)


def test_a_file_that_cannot_be_read_is_one_error(bucket: Bucket, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    list(sync(tree, bucket))
    for where, name in ((Path, "open"), (os, "open")):
        monkeypatch.setattr(where, name, _refusing(getattr(where, name), tree / "a"))
    (tree / "ü").write_text("other")
    assert [("copy", "a", "PermissionDenied"), ("copy", "ü", "")] == done(sync(tree, bucket, delete=True))


def test_what_was_downloaded_is_as_old_as_its_source(bucket: Bucket, tmp_path: Path) -> None:
    info = bucket.put("a", b"1")
    time.sleep(0.01)
    list(sync(bucket, tmp_path))

    assert (tmp_path / "a").stat().st_mtime == pytest.approx(info.modified.timestamp(), abs=1e-6)


@pytest.mark.parametrize("ignoring", [False, True])
def test_what_is_replaced_after_it_was_listed_comes_as_it_is(tmp_path: Path, *, ignoring: bool) -> None:
    recorded: Recorded[BlobDriver] = Recorded(MemoryBlobDriver())
    bucket = BlobStore(recorded.driver).create(BucketSpec(name="shop"))
    for name in ("a", "b", "c"):
        bucket.put(name, b"old")
    recorded.on("lane", lambda *_: recorded.driver)
    if ignoring:
        recorded.on("get", lambda call, _: recorded.inner.get(*call.args, **{**call.kwargs, "if_match": None}))

    def replaced(step: SyncStep) -> None:
        if step.name == "a":
            bucket.put("a", b"newer")
        elif step.name == "b":
            bucket.delete("b")

    steps = sync(bucket, tmp_path, workers=1, on_found=replaced)
    assert [("copy", "a", ""), ("copy", "b", "NotFound"), ("copy", "c", "")] == done(steps)
    assert [b"newer", b"old"] == [(tmp_path / name).read_bytes() for name in ("a", "c")]
    assert [] == list(sync(bucket, tmp_path))


@pytest.mark.parametrize("size", [100, 9 * 1024 * 1024])
def test_a_file_that_is_written_to_while_it_is_copied_comes_as_it_is_in_the_end(tmp_path: Path, size: int) -> None:
    recorded: Recorded[BlobDriver] = Recorded(MemoryBlobDriver())
    bucket = BlobStore(recorded.driver).create(BucketSpec(name="shop"))
    recorded.on("lane", lambda *_: recorded.driver)
    (tmp_path / "a").write_bytes(b"1" * size)
    left = iter(b"23")

    def write(_call: Call, proceed: Callable[[], Any]) -> Any:
        for each in left:
            time.sleep(0.01)
            (tmp_path / "a").write_bytes(bytes([each]) * size)
            break
        return proceed()

    for name in ("put", "upload_complete"):
        recorded.on(name, write)
    assert [("copy", "a", "")] == done(sync(tmp_path, bucket))
    assert b"3" * size == bucket.get("a")
    assert 3 == len(recorded.named("put") + recorded.named("upload_complete"))


def test_a_file_that_does_not_come_to_rest_is_one_error_unless_it_grows(tmp_path: Path) -> None:
    recorded: Recorded[BlobDriver] = Recorded(MemoryBlobDriver())
    bucket = BlobStore(recorded.driver).create(BucketSpec(name="shop"))
    recorded.on("lane", lambda *_: recorded.driver)
    for name in ("flickers", "grows", "vanishes"):
        (tmp_path / name).write_bytes(b"1")

    def write(call: Call, proceed: Callable[[], Any]) -> Any:
        path = tmp_path / call.args[1]
        time.sleep(0.01)
        with path.open("r+b" if path.name == "flickers" else "ab") as file:
            file.write(b"2")
        if path.name == "vanishes":
            path.unlink()
        return proceed()

    recorded.on("put", write)
    assert [("copy", "flickers", "Conflict"), ("copy", "grows", ""), ("copy", "vanishes", "")] == done(
        sync(tmp_path, bucket)
    )
    assert b"1" == bucket.get("grows")
    recorded.on("put", lambda _, proceed: proceed())
    assert [("copy", "grows", ""), ("delete", "vanishes", "")] == done(sync(tmp_path, bucket, delete=True))
    assert b"12" == bucket.get("grows")


@pytest.mark.parametrize("listed", [0, 1, 99, 100, 101, 5000])
def test_a_file_that_has_grown_or_shrunk_is_read_to_its_end(tmp_path: Path, listed: int) -> None:
    (tmp_path / "a").write_bytes(b"x" * 100)

    assert _read(str(tmp_path / "a"), listed) == b"x" * 100


def test_a_folder_that_cannot_be_read_is_one_error_and_nothing_of_it_is_deleted(
    bucket: Bucket, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key in ("b/c", "b/gone", "b/z/y", "b0", "gone"):
        bucket.put(key, b"1")
    monkeypatch.setattr(os, "scandir", _refusing(os.scandir, tree / "b"))
    expected = [
        ("copy", "a", ""),
        ("copy", "b-d", ""),
        ("copy", "b/", "PermissionDenied"),
        ("copy", "new\nline", ""),
        ("copy", "ü", ""),
        ("delete", "b0", "Conflict"),
        ("delete", "gone", "Conflict"),
    ]
    for dry_run in (True, False):
        steps = sync(tree, bucket, delete=True, dry_run=dry_run)
        assert expected == done(steps), dry_run
    assert ["a", "b-d", "b/c", "b/gone", "b/z/y", "b0", "gone", "new\nline", "ü"] == keys(bucket)
    (denied,) = (step.error for step in sync(tree, bucket) if step.error)
    assert f"folder '{tree}/b/'" in str(denied)


def test_a_file_that_may_not_be_looked_at_is_one_error(
    bucket: Bucket, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "d"):
        (tree / "b" / name).write_text("1")
    for key in ("b/a", "b/c", "b/c0", "b/d", "gone"):
        bucket.put(key, b"1")
    scan = os.scandir

    def without_rights(folder: Path) -> Any:
        with scan(folder) as found:
            entries = [_Entry(each) if each.path == str(tree / "b" / "c") else each for each in found]
        return contextlib.nullcontext(entries)

    monkeypatch.setattr(os, "scandir", without_rights)
    steps = done(sync(tree, bucket, delete=True))
    assert [("copy", "b/c", "PermissionDenied")] == [step for step in steps if step[2] not in {"", "Conflict"}]
    assert ["a", "b-d", "b/a", "b/c", "b/c0", "b/d", "gone", "new\nline", "ü"] == keys(bucket)
    assert [("copy", "b/c", "PermissionDenied")] == done(sync(tree, bucket))


class _Entry:
    """An entry of a folder that may be listed, and whose files may not be looked at."""

    def __init__(self, entry: os.DirEntry[str]) -> None:
        self.name, self.path, self.is_dir = entry.name, entry.path, entry.is_dir

    def stat(self, *, follow_symlinks: bool) -> os.stat_result:
        raise PermissionError(13, "Permission denied", self.path)


def test_a_target_that_cannot_be_read_ends_it(bucket: Bucket, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket.put("b/x", b"1")
    monkeypatch.setattr(os, "scandir", _refusing(os.scandir, tree / "b"))
    with pytest.raises(PermissionDenied):
        list(sync(bucket, tree, delete=True))
    assert "b/c" == (tree / "b" / "c").read_text()


def _refusing(opened: Any, locked: Path) -> Any:
    def refused(path: str | Path, *rest: Any, **more: Any) -> Any:
        if Path(path) == locked:
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, *rest, **more)

    return refused


def test_a_folder_in_place_of_a_file_is_one_error(bucket: Bucket, tmp_path: Path) -> None:
    for key in ("a", "b", "c/d"):
        bucket.put(key, b"1")
    (tmp_path / "down" / "a" / "x").mkdir(parents=True)
    (tmp_path / "down" / "c").write_text("a file")
    expected = [("copy", "a", "Conflict"), ("copy", "b", ""), ("copy", "c/d", "AlreadyExists")]
    assert expected == done(sync(bucket, tmp_path / "down"))
    assert ["a", "b", "c"] == sorted(path.name for path in (tmp_path / "down").iterdir())


def test_nothing_is_deleted_before_everything_is_copied(
    bucket: Bucket, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key in ("0 gone", "b-gone", "z\ngone"):
        bucket.put(key, b"1")
    calls: list[str] = []
    for name in ("put", "delete"):
        real = getattr(MemoryBlobDriver, name)

        def told(driver: Any, *given: Any, name: str = name, real: Any = real, **more: Any) -> Any:
            calls.append(name)
            return real(driver, *given, **more)

        monkeypatch.setattr(MemoryBlobDriver, name, told)
    assert [""] * 8 == [error for *_, error in done(sync(tree, bucket, delete=True, workers=4))]
    assert ["put"] * 5 + ["delete"] * 3 == calls
    assert ["a", "b-d", "b/c", "new\nline", "ü"] == keys(bucket)


def test_where_a_copy_fails_nothing_is_deleted_and_the_next_sync_does_it(
    bucket: Bucket, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket.put("0 gone", b"1")
    with monkeypatch.context() as patch:
        patch.setattr(shiftable.blob._sync, "_read", _refusing(_read, tree / "b-d"))
        steps = {step.name: step.error for step in sync(tree, bucket, delete=True)}
    assert isinstance(steps.pop("b-d"), PermissionDenied)
    assert "object '0 gone' in bucket 'shop': stays: 1 name could not be copied, so nothing was deleted" in str(
        steps.pop("0 gone")
    )
    assert {None} == set(steps.values())
    assert [("copy", "b-d", ""), ("delete", "0 gone", "")] == done(sync(tree, bucket, delete=True))
    assert ["a", "b-d", "b/c", "new\nline", "ü"] == keys(bucket)


@pytest.mark.parametrize(
    ("gone", "limit", "most"),
    [
        (30, 0.3, None),
        (31, 0.3, "30%"),
        (100, None, None),
        (100, 1.0, None),
        (20, 20, None),
        (21, 20, "20"),
        (1, 0, "0"),
        (10, 0.01, None),
        (11, 0.1, "10%"),
    ],
)
@pytest.mark.parametrize("dry_run", [False, True])
def test_more_than_a_limit_is_not_deleted(
    bucket: Bucket, tmp_path: Path, gone: int, limit: float | None, most: str | None, *, dry_run: bool
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "new").write_text("1")
    for number in range(100):
        bucket.put(f"k{number:03}", b"")
        if number >= gone:
            (source / f"k{number:03}").write_bytes(b"")
    steps = list(sync(source, bucket, delete=True, delete_limit=limit, dry_run=dry_run))
    assert ("copy", "new", None) == (steps[0].action, steps[0].name, steps[0].error)
    errors = {str(step.error).partition(": stays: ")[2] for step in steps if step.action == "delete"}
    why = f"{gone} of 100 would be deleted, more than {most}: look at the source, or raise that limit"
    assert errors == ({why} if most else {""})
    assert len(keys(bucket)) == 100 + (not dry_run) - (gone if not most and not dry_run else 0)


def test_a_listing_that_breaks_off_deletes_nothing(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(5):
        bucket.put(f"{number}", b"1")
    down = tmp_path / "down"
    down.mkdir()
    (down / "00").write_text("1")
    real = MemoryBlobDriver.list

    def breaks_off(driver: Any, *given: Any, cursor: str | None, limit: int | None, **more: Any) -> Any:
        if cursor:
            raise Unavailable("the line is cut")
        return real(driver, *given, cursor=cursor, limit=2, **more)

    monkeypatch.setattr(MemoryBlobDriver, "list", breaks_off)
    with pytest.raises(Unavailable):
        list(sync(bucket, down, delete=True))
    assert "00" in [path.name for path in down.iterdir()]


def test_files_and_folders_change_places(bucket: Bucket, tmp_path: Path) -> None:
    for key in ("a", "b/c/d", "e", "f"):
        bucket.put(key, b"new")
    down = tmp_path / "down"
    for name in ("a/x/y", "a-", "b", "e/z/1", "e/z/2"):
        (down / name).parent.mkdir(parents=True, exist_ok=True)
        (down / name).write_text("old")
    steps = list(sync(bucket, down, delete=True, workers=1))
    actions = [(step.action, step.name, step.error) for step in steps]
    deletions = [("delete", name, None) for name in ("a-", "a/x/y", "b", "e/z/1", "e/z/2")]
    assert [("copy", "f", None), *deletions, *(("copy", name, None) for name in ("a", "b/c/d", "e"))] == actions
    assert ["a", "b/c/d", "e", "f"] == sorted(
        path.relative_to(down).as_posix() for path in down.rglob("*") if path.is_file()
    )
    assert [] == done(sync(bucket, down, delete=True))


def test_what_is_in_the_way_stays_where_a_copy_failed(bucket: Bucket, tmp_path: Path) -> None:
    for key in ("a", "b/c", "../evil"):
        bucket.put(key, b"new")
    down = tmp_path / "down"
    (down / "a").mkdir(parents=True)
    (down / "a" / "x").write_text("old")
    (down / "b").write_text("old")
    steps = {step.name: str(step.error) for step in sync(bucket, down, delete=True)}
    assert "is not copied, as what has its place stays: 1 name could not be copied" in steps["a"]
    assert steps["b/c"].endswith("stays: 1 name could not be copied, so nothing was deleted")
    assert ["old", "old"] == [(down / name).read_text() for name in ("a/x", "b")]


def test_folders_that_a_sync_empties_are_deleted_and_no_others(bucket: Bucket, tmp_path: Path) -> None:
    bucket.put("keep/a", b"1")
    down = tmp_path / "down"
    for name in ("keep/gone/1", "gone/deep/1", "full/1"):
        (down / name).parent.mkdir(parents=True, exist_ok=True)
        (down / name).write_text("1")
    (down / "empty").mkdir()
    (down / "full" / "link").symlink_to(tmp_path)
    assert {""} == {error for *_, error in done(sync(bucket, down, delete=True))}
    left = sorted(path.relative_to(down).as_posix() for path in down.rglob("*"))
    assert ["empty", "full", "full/link", "keep", "keep/a"] == left
    bucket.delete("keep/a")
    (down / "full" / "link").unlink()
    list(sync(bucket, down, delete=True))
    assert ["empty", "full"] == sorted(path.name for path in down.iterdir())


@pytest.mark.parametrize("key", ["../evil", "a/../../evil", "a//b", "/evil", "./a", "a/", "nul\0"])
def test_a_key_that_is_no_path_leaves_the_folder_alone(bucket: Bucket, tmp_path: Path, key: str) -> None:
    bucket.put(key, b"1")
    bucket.put("good", b"1")
    expected = sorted([("copy", key, "InvalidArgument"), ("copy", "good", "")])
    assert expected == done(sync(bucket, tmp_path / "down"))
    assert ["down"] == [path.name for path in tmp_path.iterdir()]
    assert ["good"] == [path.name for path in (tmp_path / "down").iterdir()]


def test_a_link_within_the_target_is_never_written_through(bucket: Bucket, tmp_path: Path) -> None:
    for key in ("link/a", "deep/link/a", "file", "good"):
        bucket.put(key, b"new")
    down, outside = tmp_path / "down", tmp_path / "outside"
    outside.mkdir()
    (outside / "a").write_text("old")
    (outside / "other").write_text("old")
    (down / "deep").mkdir(parents=True)
    (down / "link").symlink_to(outside)
    (down / "deep" / "link").symlink_to(outside)
    (down / "file").symlink_to(outside / "a")
    expected = [("copy", "deep/link/a", "Conflict"), ("copy", "file", ""), ("copy", "good", "")]
    assert [*expected, ("copy", "link/a", "Conflict")] == done(sync(bucket, down, delete=True))
    assert {"a": "old", "other": "old"} == {path.name: path.read_text() for path in outside.iterdir()}
    assert (down / "file").is_symlink() is False
    (step, *_) = (step for step in sync(bucket, down) if step.error)
    assert "is a symbolic link, which is not followed" in str(step.error)


def test_the_target_itself_may_be_a_link(bucket: Bucket, tmp_path: Path) -> None:
    bucket.put("a/b", b"1")
    (tmp_path / "real").mkdir()
    (tmp_path / "down").symlink_to(tmp_path / "real")
    assert [("copy", "a/b", "")] == done(sync(bucket, tmp_path / "down"))
    assert b"1" == (tmp_path / "real" / "a" / "b").read_bytes()


def test_objects_that_only_mark_folders_become_no_files(bucket: Bucket, tmp_path: Path) -> None:
    for key in ("x/", "x/sub/"):
        bucket.put(key, b"")
    bucket.put("x/sub/a", b"1")
    assert [("copy", "sub/a", "")] == done(sync((bucket, "x/"), tmp_path / "down"))
    assert [] == done(sync((bucket, "x/"), tmp_path / "down", delete=True))


@pytest.mark.parametrize(("source", "target"), [("", "backup/"), ("backup/", ""), ("x", "x")])
def test_a_prefix_is_not_copied_into_itself(bucket: Bucket, source: str, target: str) -> None:
    bucket.put("a", b"1")
    with pytest.raises(InvalidArgument, match="source and target overlap"):
        sync((bucket, source), (bucket, target), delete=True)


def test_prefixes_side_by_side_are_copied(bucket: Bucket) -> None:
    bucket.put("one/a", b"1")
    bucket.put("two/b", b"1")
    assert [("copy", "a", ""), ("delete", "b", "")] == done(sync((bucket, "one/"), (bucket, "two/"), delete=True))
    assert ["one/a", "two/a"] == keys(bucket)
    assert hashlib.md5(b"1").digest() == bucket.stat("two/a").md5  # noqa: S324  as the listing tells it


def test_a_dry_run_tells_which_names_a_folder_cannot_hold(bucket: Bucket, tmp_path: Path) -> None:
    for key in ("a", "../b", "x//y", "link/c"):
        bucket.put(key, b"1")
    (tmp_path / "down").mkdir()
    (tmp_path / "down" / "link").symlink_to(tmp_path)
    foreseen = done(sync(bucket, tmp_path / "down", dry_run=True))
    assert [
        ("copy", "../b", "InvalidArgument"),
        ("copy", "a", ""),
        ("copy", "link/c", "Conflict"),
        ("copy", "x//y", "InvalidArgument"),
    ] == foreseen
    assert foreseen == done(sync(bucket, tmp_path / "down"))


def test_a_dry_run_tells_which_keys_the_target_refuses(tree: Path, bucket: Bucket) -> None:
    prefix = "p" * 1022 + "/"  # 1,024 bytes are the limit
    names = {path.relative_to(tree).as_posix() for path in tree.rglob("*") if path.is_file()}
    foreseen = {step.name: step.error and step.error.message for step in sync(tree, (bucket, prefix), dry_run=True)}
    happened = {step.name: step.error and step.error.message for step in sync(tree, (bucket, prefix))}
    assert foreseen == happened
    assert names - {"a"} == {name for name, why in foreseen.items() if why}

"""Files that appear whole or not at all."""

import errno
import os
import random
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from shiftable.files import check_replaceable, save, save_as


def test_a_file_appears_whole_and_with_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text("old")
    path.chmod(0o644)
    save([b"new", b" value"], path, mode=0o600)
    assert b"new value" == path.read_bytes()
    assert 0o600 == stat.S_IMODE(path.stat().st_mode)
    assert [path] == list(tmp_path.iterdir())


def test_a_file_obeys_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        save([b"x"], tmp_path / "zone")
    finally:
        os.umask(before)
    assert 0o640 == stat.S_IMODE((tmp_path / "zone").stat().st_mode)


def test_what_breaks_off_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text("old")

    def broken() -> Iterator[bytes]:
        yield b"new"
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        save(broken(), path)
    assert "old" == path.read_text()
    assert [path] == list(tmp_path.iterdir())


def test_a_link_that_waits_where_the_file_is_written_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(random, "getrandbits", lambda _bits: 7)
    (tmp_path / "theirs").write_text("theirs")
    (tmp_path / ".0000000000000007.part").symlink_to("theirs")
    with pytest.raises(FileExistsError):
        save([b"secret"], tmp_path / "key")
    assert "theirs" == (tmp_path / "theirs").read_text()


def test_a_folder_that_is_not_there_is_told_by_the_name_that_was_given(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        save([b"x"], tmp_path / "none" / "key")
    assert str(tmp_path / "none" / "key") == caught.value.filename


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    return path


def test_a_pipe_is_not_replaced(pipe: Path) -> None:
    with pytest.raises(FileExistsError, match="no file that could be replaced") as caught:
        save([b"x"], pipe)
    assert str(pipe) == caught.value.filename
    assert pipe.is_fifo()


def test_neither_is_a_link_to_one(pipe: Path) -> None:
    link = pipe.with_name("link")
    link.symlink_to(pipe)
    with pytest.raises(FileExistsError):
        save([b"x"], link)
    assert link.is_symlink()


def test_a_device_could_not_be_replaced() -> None:
    with pytest.raises(FileExistsError):
        check_replaceable("/dev/null")  # asked only: root could


def test_a_link_to_a_descriptor_is_not_replaced_though_a_file_is_behind_it(tmp_path: Path) -> None:
    link = tmp_path / "stdout"
    with (tmp_path / "file").open("wb") as file:
        link.symlink_to(f"/proc/self/fd/{file.fileno()}")
        with pytest.raises(FileExistsError):
            save([b"x"], link)
    assert link.is_symlink()


def test_a_link_to_a_file_is_replaced_and_the_file_stays(tmp_path: Path) -> None:
    (tmp_path / "other").write_text("theirs")
    (tmp_path / "link").symlink_to("other")
    save([b"ours"], tmp_path / "link")
    assert ("ours", "theirs") == ((tmp_path / "link").read_text(), (tmp_path / "other").read_text())
    assert not (tmp_path / "link").is_symlink()


@pytest.mark.parametrize("call", ["write", "fsync"])
def test_a_disk_without_room_is_told_with_the_name_of_the_file(
    call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path = tmp_path / "file"
    path.write_bytes(b"old")
    monkeypatch.setattr(os, call, full)
    with pytest.raises(OSError, match="No space left") as caught:
        save([b"new"], path)
    monkeypatch.undo()
    assert caught.value.filename == str(path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_stream_raises_is_not_told_of_the_file_that_it_was_for(tmp_path: Path) -> None:
    def broken() -> Iterator[bytes]:
        yield b"half"
        raise OSError(errno.EIO, "of the source")

    with pytest.raises(OSError, match="of the source") as caught:
        save(broken(), tmp_path / "file")
    assert caught.value.filename is None


def test_a_device_without_room_is_told_with_its_name() -> None:
    with pytest.raises(OSError, match="No space left") as caught:
        save_as([b"content"], "/dev/full")
    assert caught.value.filename == "/dev/full"

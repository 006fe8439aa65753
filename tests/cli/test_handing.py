"""Files in memory: where memory is, and what is written there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from shiftable.cli import _handing
from shiftable.cli._handing import Folder, Numbers
from shiftable.errors import ConfigError
from shiftable.masking import Masked

MEMORY = Path("/dev/shm")  # noqa: S108  a folder of its own is made there
MOUNTS = [
    "21 1 0:20 / / rw,relatime - overlay overlay rw,lowerdir=/a",
    "22 21 0:21 / /proc rw,nosuid - proc proc rw",
    "23 21 0:22 / /run/user/1000 rw,nosuid shared:3 master:1 - tmpfs tmpfs rw,size=100k",
    r"24 21 0:23 / /mnt/with\040space rw - ramfs none rw",
    "25 21 8:1 / /mnt/over rw - tmpfs tmpfs rw",
    "26 25 8:2 / /mnt/over rw - ext4 /dev/sda1 rw",
]


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "overlay"),
        ("/home/me", "overlay"),
        ("/run/user/1000", "tmpfs"),
        ("/run/user/1000/deep/er", "tmpfs"),
        ("/run/user/10000", "overlay"),
        ("/mnt/with space/x", "ramfs"),
        ("/mnt/over/x", "ext4"),
    ],
)
def test_the_last_mount_on_the_longest_part_of_a_path_says_what_it_is_on(path: str, kind: str) -> None:
    assert kind == _handing._kind(Path(path), MOUNTS)


def test_the_users_own_folder_in_memory_is_taken_before_the_one_of_all(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    own = MEMORY / f"own-{os.getpid()}"
    own.mkdir()
    try:
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(own))
        assert own == _handing._memory()
        monkeypatch.setenv("XDG_RUNTIME_DIR", "/usr")
        assert MEMORY == _handing._memory()
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(own / "no such"))
        assert MEMORY == _handing._memory()
    finally:
        own.rmdir()


def test_without_memory_for_files_a_folder_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_handing, "_in_memory", lambda _: False)
    with pytest.raises(ConfigError, match="are not in memory; say --files-in"):
        Folder({"A": Masked("value")})


def test_a_file_is_replaced_as_a_whole_and_an_open_one_stays() -> None:
    with Folder({"A": Masked("old"), "B": Masked(b"\xff")}, MEMORY) as folder:
        path = Path(folder.paths["A"])
        with path.open() as before:
            folder.write({"A": Masked("new")})
            assert ("old", "new") == (before.read(), path.read_text())
        assert b"\xff" == Path(folder.paths["B"]).read_bytes()
        assert {"A", "B"} == {each.name for each in path.parent.iterdir()}
    assert not path.parent.exists()
    folder.close()


def test_a_value_that_cannot_be_written_leaves_no_folder() -> None:
    before = set(MEMORY.iterdir())
    with pytest.raises(ValueError, match="surrogates"):
        Folder({"A": Masked("fine"), "B": Masked("\ud800")}, MEMORY)
    assert before == set(MEMORY.iterdir())


def test_only_folders_that_nobody_holds_are_removed() -> None:
    mark = os.urandom(4).hex()
    left, young, target = (MEMORY / f"shiftable-run-{mark}-{name}" for name in ("left", "young", "target"))
    link, other = MEMORY / f"shiftable-run-{mark}-link", MEMORY / f"other-{mark}"
    with Folder({"A": Masked("value")}, MEMORY) as living:
        for each in (left, young, target, other):
            each.mkdir()
        (left / "A").write_text("value")
        link.symlink_to(other)
        held = _handing._hold(target)
        for each in (left, target, other, Path(living.paths["A"]).parent):
            os.utime(each, (0, 0))
        try:
            Folder({}, MEMORY).close()
            found = [each.exists() for each in (left, young, target, link, other, Path(living.paths["A"]))]
            assert [False, True, True, True, True, True] == found
        finally:
            os.close(held)
            link.unlink()
            for each in (young, target, other):
                each.rmdir()


def test_files_without_names_have_large_numbers_and_end_with_them() -> None:
    numbers = Numbers({"A": Masked("a" * 200_000), "B": Masked(b"\xff")})
    paths = numbers.paths
    assert all(int(path.removeprefix("/dev/fd/")) >= 60 for path in paths.values())
    assert "a" * 200_000 == Path(paths["A"]).read_text() == Path(paths["A"]).read_text()
    assert b"\xff" == Path(paths["B"]).read_bytes()
    assert all(os.get_inheritable(int(path.removeprefix("/dev/fd/"))) for path in paths.values())
    numbers.close()
    numbers.close()
    assert not any(Path(path).exists() for path in paths.values())


def test_without_such_files_another_way_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "memfd_create")
    with pytest.raises(ConfigError, match="say --files-in DIR"):
        Numbers({"A": Masked("value")})

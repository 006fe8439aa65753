"""``shiftable blob`` on files: what goes where, what stays, what is told."""

import contextlib
import json
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from shiftable.cli._main import cli

FILE = """
[project]
name = "shop"
[environments.development]
provider = "local"
[providers.local]
type = "baremetal"
root = "local"
fsync = false
[providers.cellar]
type = "baremetal"
root = "cellar"
fsync = false
[environments.development.overrides]
"blob.backup" = "cellar"
[blob.assets]
bucket = "shop-assets"
[blob.logs]
[blob.backup]
bucket = "shop-assets"
"""

Run = Callable[..., Result]
HOSTILE = "a\x1b[31m\u202egpj.\nb"


@pytest.fixture
def run(folder: Path) -> Run:
    """Run the command in this process."""

    def started(*arguments: str, stdin: str | bytes = b"") -> Result:
        return CliRunner().invoke(cli, arguments, input=stdin, catch_exceptions=False)

    (folder / "shiftable.toml").write_text(FILE)
    assert 0 == started("apply").exit_code
    return started


@pytest.fixture
def tree(folder: Path, run: Run) -> Path:
    for name in ("tree/a", "tree/sub/b", "tree/sub/deep/c", "tree-2/x"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return folder


def put(run: Run, *places: str) -> None:
    for place in places:
        assert 0 == run("blob", "cp", "-", place, stdin=place).exit_code


def keys(run: Run, label: str = "assets") -> list[str]:
    answer = run("blob", "ls", "-r", label, "--json")
    assert 0 == answer.exit_code
    return [json.loads(line)["key"] for line in answer.stdout.splitlines()]


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


# what goes where


@pytest.mark.parametrize(
    ("source", "target", "expected"),
    [
        ("tree", "assets:", ["tree/a", "tree/sub/b", "tree/sub/deep/c"]),
        ("tree", "assets:x", ["x/tree/a", "x/tree/sub/b", "x/tree/sub/deep/c"]),
        ("tree", "assets:x/", ["x/tree/a", "x/tree/sub/b", "x/tree/sub/deep/c"]),
        ("tree/", "assets:x", ["x/a", "x/sub/b", "x/sub/deep/c"]),
        ("tree/", "assets:", ["a", "sub/b", "sub/deep/c"]),
        ("tree/a", "assets:x", ["x/a"]),
        ("./tree/sub", "assets:", ["sub/b", "sub/deep/c"]),
    ],
)
def test_a_folder_goes_up_by_the_rule_of_the_slash(
    run: Run, tree: Path, source: str, target: str, expected: list[str]
) -> None:
    assert 0 == run("blob", "cp", "-r", source, target).exit_code
    assert expected == keys(run)


@pytest.mark.parametrize(
    ("source", "target", "expected"),
    [
        ("assets:x", "down", ["x/a", "x/sub/b"]),
        ("assets:x/", "down", ["a", "sub/b"]),
        ("assets:x/", "down/", ["a", "sub/b"]),
        ("assets:x/sub", "down", ["sub/b"]),
        ("assets:", "down", ["x/a", "x/sub/b", "x2/a"]),
        ("assets:x/a", "down", ["a"]),
    ],
)
def test_a_folder_comes_down_by_the_same_rule(
    run: Run, folder: Path, source: str, target: str, expected: list[str]
) -> None:
    put(run, "assets:x/a", "assets:x/sub/b", "assets:x2/a")
    assert 0 == run("blob", "cp", "-r", source, target).exit_code
    assert expected == files(folder / "down")


@pytest.mark.parametrize(
    ("source", "target", "expected"),
    [
        ("assets:x", "logs:", ["x/a", "x/sub/b"]),
        ("assets:x/", "logs:y", ["y/a", "y/sub/b"]),
        ("assets:x", "backup:y", ["y/x/a", "y/x/sub/b"]),
    ],
)
def test_a_folder_goes_to_another_bucket_by_the_same_rule(
    run: Run, source: str, target: str, expected: list[str]
) -> None:
    put(run, "assets:x/a", "assets:x/sub/b", "assets:x2/a")
    assert 0 == run("blob", "cp", "-r", source, target).exit_code
    assert expected == keys(run, target.partition(":")[0])


def test_without_r_one_object_goes_to_a_name_or_into_a_folder(run: Run, tree: Path) -> None:
    for target in ("assets:", "assets:x/", "assets:y"):
        assert 0 == run("blob", "cp", "tree/sub/b", target).exit_code
    assert ["b", "x/b", "y"] == keys(run)
    (tree / "down").mkdir()
    for target in ("down", "down/new/", "z"):
        assert 0 == run("blob", "cp", "assets:x/b", target).exit_code
    assert ["b", "new/b"] == files(tree / "down")
    assert "tree/sub/b" == (tree / "z").read_text()


def test_several_go_into_a_folder(run: Run, tree: Path) -> None:
    assert 0 == run("blob", "cp", "tree/a", "tree-2/x", "assets:y").exit_code
    assert ["y/a", "y/x"] == keys(run)
    assert 0 == run("blob", "cp", "assets:y/a", "assets:y/x", "down").exit_code
    assert ["a", "x"] == files(tree / "down")


def test_a_pattern_is_one_only_where_that_is_asked(run: Run, folder: Path) -> None:
    put(
        run,
        "assets:l/2026-1/x.gz",
        "assets:l/2026-2/x.gz",
        "assets:l/2026-2/d/y.gz",
        "assets:l/2025/x.gz",
        "assets:l/*",
    )
    assert 0 == run("blob", "cp", "--glob", "assets:l/2026-*/?.gz", "one").exit_code
    assert ["2026-1/x.gz", "2026-2/x.gz"] == files(folder / "one")
    assert 0 == run("blob", "cp", "--glob", "assets:l/2026-[!1]/**.gz", "all").exit_code
    assert ["2026-2/d/y.gz", "2026-2/x.gz"] == files(folder / "all")
    assert 0 == run("blob", "cp", "assets:l/*", "star").exit_code
    assert "assets:l/*" == (folder / "star").read_text()
    assert "l/*\n" == run("blob", "ls", "--glob", "assets:l/[*]").stdout
    assert 1 == run("blob", "cp", "--glob", "assets:none*", "none").exit_code
    assert 0 == run("blob", "rm", "--glob", "--yes", "assets:l/*/*").exit_code
    assert ["l/*", "l/2026-2/d/y.gz"] == keys(run)


@pytest.mark.parametrize("target", ["assets:", "assets:x/", "assets", "s3://bucket", "s3://bucket/x/"])
def test_what_has_no_name_needs_a_whole_key(run: Run, target: str) -> None:
    answer = run("blob", "cp", "-", target, stdin="x")
    assert 2 == answer.exit_code
    assert [] == keys(run)
    slash = "" if target.endswith((":", "/")) else "/"
    assert (f"write a whole key, {target}{slash}NAME" in answer.stderr) == (target != "assets")


@pytest.mark.parametrize("command", [("cp",), ("mv",), ("sync",)])
def test_a_forgotten_colon_is_hinted_at(run: Run, command: tuple[str, ...]) -> None:
    answer = run("blob", *command, "assets", "logs")
    assert 2 == answer.exit_code
    assert "did you mean assets: logs:?" in answer.stderr
    assert "did you mean" not in run("blob", *command, "one", "two").stderr


@pytest.mark.parametrize(
    ("source", "target"),
    [("assets:x", "assets:"), ("assets:x", "assets:x/y"), ("assets:", "assets:y"), ("assets:x/", "assets:x")],
)
@pytest.mark.parametrize("verb", ["cp", "mv"])
def test_a_folder_is_not_copied_into_itself(run: Run, verb: str, source: str, target: str) -> None:
    put(run, "assets:x/a", "assets:x/x/a")
    answer = run("blob", verb, "-r", source, target)
    assert 2 == answer.exit_code
    assert "lies within the source" in answer.stderr
    assert ["x/a", "x/x/a"] == keys(run)


def test_what_is_still_read_is_not_written(run: Run) -> None:
    put(run, "assets:x/a", "assets:x/x/b")
    answer = run("blob", "mv", "-r", "assets:x/", "assets:")
    assert 1 == answer.exit_code
    assert "the target lies within the source" in answer.stderr
    assert ["a", "x/x/b"] == keys(run)


def test_an_object_is_not_copied_onto_itself(run: Run) -> None:
    put(run, "assets:a")
    for verb in ("cp", "mv"):
        answer = run("blob", verb, "assets:a", "local://shop-assets/a")
        assert (1, True) == (answer.exit_code, "onto itself" in answer.stderr)
    refused = run("blob", "mv", "assets:a", "backup:a")
    assert (1, True) == (refused.exit_code, "if they are two, copy, then delete" in refused.stderr)
    assert ["a"] == keys(run)
    assert 0 == run("blob", "cp", "assets:a", "backup:a").exit_code
    assert ["a"] == keys(run, "backup")


def test_links_and_marks_are_left_out(run: Run, tree: Path) -> None:
    (tree / "tree" / "link").symlink_to("/etc")
    (tree / "tree" / "file").symlink_to("/etc/hostname")
    answer = run("blob", "cp", "-r", "tree/", "assets:")
    assert 0 == answer.exit_code
    assert 2 == answer.stderr.count("left out, it is no regular file")
    assert ["a", "sub/b", "sub/deep/c"] == keys(run)


def test_nothing_is_written_beside_the_target_folder(run: Run, folder: Path) -> None:
    put(run, "assets:x/link/a", "assets:x/good")
    (folder / "outside").mkdir()
    (folder / "down").mkdir()
    (folder / "down" / "link").symlink_to(folder / "outside")
    answer = run("blob", "cp", "-r", "assets:x/", "down")
    assert 1 == answer.exit_code
    assert "is a symbolic link, which is not followed" in answer.stderr
    assert [] == files(folder / "outside")
    assert b"assets:x/good" == (folder / "down" / "good").read_bytes()


def test_a_missing_source_is_a_failure(run: Run, folder: Path) -> None:
    for arguments in (
        ("assets:none", "x"),
        ("-r", "assets:none", "x"),
        ("none", "assets:x"),
        ("-r", "none", "assets:x"),
    ):
        answer = run("blob", "cp", *arguments)
        assert 1 == answer.exit_code, arguments
        assert answer.stderr.startswith("error: ")
    assert not (folder / "x").exists()
    (folder / "d").mkdir()
    assert "it is a folder; -r copies it" in run("blob", "cp", "d", "assets:x").stderr
    whole = run("blob", "cp", "assets:", "x")
    assert (2, True) == (whole.exit_code, "assets: is a whole bucket; -r copies what is in it" in whole.stderr)


def test_a_key_below_a_label_may_hold_what_looks_like_a_url(run: Run, folder: Path) -> None:
    key = "assets:seen/http:/x://y"
    refused = run("blob", "cp", "-", key, stdin="1")
    assert (1, True) == (refused.exit_code, "a path cannot keep an empty name" in refused.stderr)
    assert [0, 0] == [run("blob", "ls", place).exit_code for place in (key, "assets:a://")]
    assert "local://shop-assets/NAME" in run("blob", "cp", "-", "local://shop-assets").stderr
    assert "assets:http://NAME" in run("blob", "cp", "-", "assets:http://").stderr
    assert "unknown URL http://" in run("blob", "ls", "http://x/assets:a").stderr


def test_files_that_go_while_a_folder_is_copied_are_left_out(
    run: Run, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scan = os.scandir

    def vanishing(folder: Any) -> Any:
        with scan(folder) as found:
            entries = list(found)
        for entry in entries:
            if entry.name == "a":
                Path(entry.path).unlink()
            elif entry.name == "deep":
                shutil.rmtree(entry.path)
        return contextlib.nullcontext(entries)

    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", vanishing)
        answer = run("blob", "cp", "-r", "tree/", "assets:")
    assert (0, ["sub/b"]) == (answer.exit_code, keys(run)), answer.stderr


def test_a_folder_that_cannot_be_read_does_not_stop_the_others(
    run: Run, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scan = os.scandir

    def denied(folder: Any) -> Any:
        if str(folder).endswith("/deep"):
            raise PermissionError(13, "Permission denied", str(folder))
        return scan(folder)

    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", denied)
        for verb in ("cp", "mv"):
            answer = run("blob", verb, "-r", "tree/", "assets:")
            assert (1, ["a", "sub/b"]) == (answer.exit_code, keys(run)), answer.stderr
            assert "tree/sub/deep → assets:sub/deep: " in answer.stderr
            assert "Permission denied" in answer.stderr
    assert ["sub/deep/c"] == files(tree / "tree")


def test_a_dry_run_tells_what_would_be_refused(run: Run, tree: Path) -> None:
    (tree / "tree" / "sub" / "b#").write_text("1")
    long = "x" * 1020
    for arguments in (["-r", "tree/", f"assets:{long}"], ["-r", "assets:odd", "down"]):
        put(run, "assets:odd/good", "assets:odd/link/c")
        (tree / "down" / "odd").mkdir(parents=True, exist_ok=True)
        if not (tree / "down" / "odd" / "link").is_symlink():
            (tree / "down" / "odd" / "link").symlink_to(tree)
        foreseen, happened = (run("blob", "cp", *more, *arguments) for more in (["--dry-run"], []))
        assert (1, 1) == (foreseen.exit_code, happened.exit_code), arguments
        errors = [
            sorted(line for line in answer.stderr.splitlines() if line.startswith("error: "))
            for answer in (foreseen, happened)
        ]
        assert errors[0] == errors[1] != []


def test_what_is_there_stays_with_if_absent(run: Run, folder: Path) -> None:
    put(run, "assets:a")
    (folder / "a").write_text("mine")
    assert 1 == run("blob", "cp", "--if-absent", "assets:a", "a").exit_code
    assert "mine" == (folder / "a").read_text()
    assert 1 == run("blob", "cp", "--if-absent", "a", "assets:a").exit_code
    assert "assets:a" == run("blob", "cat", "assets:a").stdout


# moving


def test_a_move_leaves_nothing_at_its_source(run: Run, tree: Path) -> None:
    assert 0 == run("blob", "mv", "-r", "tree/", "assets:x").exit_code
    assert ["x/a", "x/sub/b", "x/sub/deep/c"] == keys(run)
    assert [] == files(tree / "tree")
    assert 0 == run("blob", "mv", "-r", "assets:x/", "logs:").exit_code
    assert ([], ["a", "sub/b", "sub/deep/c"]) == (keys(run), keys(run, "logs"))
    assert 0 == run("blob", "mv", "-r", "logs:", "backup:y").exit_code
    assert ([], ["y/a", "y/sub/b", "y/sub/deep/c"]) == (keys(run, "logs"), keys(run, "backup"))
    assert 0 == run("blob", "mv", "-r", "backup:y/", "down").exit_code
    assert [] == keys(run, "backup")
    assert "tree/sub/deep/c" == (tree / "down/sub/deep/c").read_text()


def test_a_move_keeps_what_is_written_meanwhile(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from shiftable.cli import _transfer

    put(run, "assets:a")
    real = _transfer._compare

    def compared(*arguments: object) -> None:
        real(*arguments)  # type: ignore[arg-type]  # as they came
        put(run, "assets:a")

    monkeypatch.setattr(_transfer, "_compare", compared)
    answer = run("blob", "mv", "assets:a", "logs:a")
    assert 1 == answer.exit_code
    assert ["a"] == keys(run)


def test_a_move_deletes_nothing_when_something_else_has_arrived(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from shiftable.blob import Bucket

    put(run, "assets:a")
    real = Bucket.copy

    def damaged(self: Bucket, key: str, to_key: str, *, to: Bucket, **options: Any) -> object:
        real(self, key, to_key, to=to, **options)
        return to.put(to_key, b"assets:b")

    monkeypatch.setattr(Bucket, "copy", damaged)
    answer = run("blob", "mv", "assets:a", "logs:a")
    assert 1 == answer.exit_code
    assert "what has arrived is not what was sent; the source stays" in answer.stderr
    assert ["a"] == keys(run)


def test_standard_streams_are_not_moved(run: Run) -> None:
    put(run, "assets:a")
    assert 2 == run("blob", "mv", "assets:a", "-").exit_code
    assert 2 == run("blob", "mv", "-", "assets:b", stdin="x").exit_code
    assert ["a"] == keys(run)


# what is told


def test_dry_runs_change_nothing(run: Run, tree: Path) -> None:
    answer = run("blob", "cp", "-rn", "tree/", "assets:x")
    assert "copy tree/a → assets:x/a\n" == answer.stdout.splitlines(keepends=True)[0]
    assert "3 would be copied (31 B), 0 failed\n" == answer.stderr
    assert [] == keys(run)
    run("blob", "cp", "-r", "tree/", "assets:x")
    assert 0 == run("blob", "mv", "-rn", "assets:x", "logs:").exit_code
    assert 0 == run("blob", "rm", "-rn", "assets:x", "assets:").exit_code
    assert 0 == run("blob", "rm", "-n", "assets:x/a").exit_code
    assert ["x/a", "x/sub/b", "x/sub/deep/c"] == keys(run)


def test_json_is_one_object_a_line(run: Run, tree: Path) -> None:
    answer = run("blob", "cp", "-r", "--json", "-j", "1", "tree/", "assets:")
    lines = [json.loads(line) for line in answer.stdout.splitlines()]
    assert {"action": "copy", "source": "tree/a", "target": "assets:a", "size": 6, "error": None} == lines[0]
    assert (3, "") == (len(lines), answer.stderr)
    (failed,) = (json.loads(line) for line in run("blob", "rm", "--json", "assets:none").stdout.splitlines())
    assert ("delete", "none", True) == (failed["action"], failed["key"], "there is no such object" in failed["error"])
    (line, *_) = run("blob", "rm", "-rn", "--json", "assets:").stdout.splitlines()
    assert {"action": "delete", "key": "a", "size": 6, "error": None, "dry_run": True} == json.loads(line)
    (line, *_) = run("blob", "sync", "--json", "tree-2", "assets:").stdout.splitlines()
    assert {"action": "copy", "name": "x", "size": 8, "error": None, "dry_run": True} == json.loads(line)


def test_usage_is_counted_by_folder(run: Run, tree: Path) -> None:
    run("blob", "cp", "-r", "tree/", "assets:x")
    run("blob", "cp", "tree/a", "assets:x2")
    document = json.loads(run("blob", "du", "assets", "--json", "-d", "2").stdout)
    assert {
        "prefix": "",
        "objects": 4,
        "bytes": 37,
        "prefixes": [
            {"prefix": "x/sub/", "objects": 2, "bytes": 25},
            {"prefix": "x/", "objects": 3, "bytes": 31},
        ],
    } == document
    assert ["25", "2", "x/sub/"] == run("blob", "du", "assets:x", "--bytes").stdout.splitlines()[0].split()
    assert ["31", "3", "assets:x/"] == run("blob", "du", "assets:x", "--bytes", "-d", "0").stdout.split()
    assert ["0", "B", "0", "assets:none/"] == run("blob", "du", "assets:none").stdout.split()


def test_rm_deletes_a_folder_and_not_what_begins_alike(run: Run) -> None:
    put(run, "assets:log/1", "assets:logs/1", "assets:log-2")
    refused = run("blob", "rm", "-r", "assets:log")
    assert 2 == refused.exit_code
    assert "1 object (12 B) would be deleted from assets:log; without a terminal, say --yes" in refused.stderr
    assert 0 == run("blob", "rm", "-r", "--yes", "assets:log").exit_code
    assert ["log-2", "logs/1"] == keys(run)


def test_rm_goes_on_behind_what_is_missing(run: Run) -> None:
    put(run, "assets:a", "assets:b")
    answer = run("blob", "rm", "assets:a", "assets:none", "assets:b")
    assert 1 == answer.exit_code
    assert "2 deleted" in answer.stderr
    assert [] == keys(run)


@pytest.mark.parametrize("command", ["cat", "stat", "sign", "rm", "hold", "release", "retain --until 2030-01-01"])
def test_a_bucket_is_no_object(run: Run, command: str) -> None:
    put(run, "assets:a")
    verb, *more = command.split(" ")
    for place in ("assets", "assets:"):
        answer = run("blob", verb, *more, *(["assets:a"] if verb == "rm" else []), place)
        assert 2 == answer.exit_code
        assert f"{place} names a bucket; an object in it is written assets:KEY" in answer.stderr
    assert ["a"] == keys(run)


def test_hostile_keys_are_exact_for_programs(run: Run) -> None:
    assert 0 == run("blob", "cp", "-", f"assets:{HOSTILE}", stdin="x").exit_code
    assert f"{HOSTILE}\n" == run("blob", "ls", "assets").stdout
    assert [HOSTILE] == keys(run)
    assert HOSTILE == json.loads(run("blob", "stat", "--json", f"assets:{HOSTILE}").stdout)["key"]
    told = run("blob", "stat", f"assets:{HOSTILE}").stdout
    assert told.startswith(f"key: {HOSTILE}\n")
    assert re.search(r"^modified: \d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ$", told, re.MULTILINE)
    told = run("blob", "rm", f"assets:{HOSTILE}").stderr
    assert "\x1b" not in told
    assert "a\\x1b[31m\\u202egpj.\\nb" in told


def test_keys_are_completed_folder_by_folder(run: Run, completed) -> None:
    put(run, "assets:pics/a b", "assets:pics/c$(id)", "assets:pics/sub/d", f"assets:pics/{HOSTILE}", "assets:pin")
    assert ["pics/", "pin"] == completed("shiftable blob cat assets:p")
    assert ["assets:pics/", "assets:pin"] == completed("shiftable blob cat assets:p", breaks=" ")
    assert ["pics/a\\ b", "pics/c\\$\\(id\\)", "pics/sub/"] == completed("shiftable blob cp assets:pics/")
    assert ["//shop-assets/pics/", "//shop-assets/pin"] == completed("shiftable blob ls local://shop-assets/p")
    assert [] == completed("shiftable blob cat nothing:p")


# URLs


def test_a_providers_label_is_a_scheme(run: Run, folder: Path) -> None:
    put(run, "local://logs/a", "cellar://shop-assets/b")
    assert ["a"] == keys(run, "logs")
    assert ["b"] == keys(run, "backup")
    assert {"logs", "shop-assets"} == set(run("blob", "ls", "local://").stdout.split())
    assert 0 == run("blob", "cp", "-r", "cellar://shop-assets", "local://logs/all").exit_code
    assert ["a", "all/b"] == keys(run, "logs")


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("locel://logs/a", "unknown URL locel://; there is s3://, gs://, az://, local://, cellar://"),
        ("local:///a", "local:// names no bucket"),
        ("s3:///a", "s3:// names no bucket"),
    ],
)
def test_a_wrong_url_is_one_clear_error(run: Run, place: str, said: str) -> None:
    answer = run("blob", "cat", place)
    assert 2 == answer.exit_code
    assert said in answer.stderr


# interrupted


@pytest.mark.parametrize("direction", ["up", "down", "over"])
def test_ctrl_c_leaves_nothing_half(run: Run, folder: Path, direction: str) -> None:
    (folder / "big").write_bytes(b"")
    os.truncate(folder / "big", 2 << 30)
    source = Path("local/blob/shop-assets/big")
    if direction != "up":
        (folder / "big").rename(folder / source)
    ends = {"up": ("big", "assets:new"), "down": ("assets:big", "new"), "over": ("assets:big", "backup:new")}
    command = [str(Path(sys.executable).parent / "shiftable"), "blob", "cp", *ends[direction]]
    with subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < deadline and not under_way(folder):
            time.sleep(0.002)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert 130 == process.returncode
    assert "Traceback" not in errors
    left = [name for name in files(folder) if re.search(r"\.part$|/new$|^new$|uploads/", name)]
    assert [] == left


def under_way(folder: Path) -> bool:
    return any(re.search(r"\.part$|uploads/", name) for name in files(folder))


# the server of signed URLs


def serving(folder: Path, *arguments: str) -> tuple["subprocess.Popen[str]", str]:
    """Start the command, and return it and the address that it tells."""
    command = [str(Path(sys.executable).parent / "shiftable"), "blob", "serve", *arguments]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    line = process.stdout.readline()
    found = re.search(r"http://127\.0\.0\.1:\d+", line)
    if found is None:
        process.kill()
        raise AssertionError(line + process.communicate()[1])
    return process, found[0]


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("place", ["assets", "local://", "assets:any"])
def test_signed_urls_are_answered_until_the_end(run: Run, folder: Path, place: str, end: signal.Signals) -> None:
    put(run, "assets:a")
    signed = run("blob", "sign", "assets:a").stdout.strip()
    process, url = serving(folder, place, "--port", "0", "--cors", "https://shop.example")
    request = urllib.request.Request(  # noqa: S310  on loopback
        re.sub(r"^http://[^/]+", url, signed), headers={"Origin": "https://shop.example"}
    )
    with urllib.request.urlopen(request) as answer:  # noqa: S310
        assert (b"assets:a", "https://shop.example") == (answer.read(), answer.headers["Access-Control-Allow-Origin"])
    process.send_signal(end)
    assert ("", "") == process.communicate(timeout=60)
    assert 0 == process.returncode


def test_a_server_tells_its_address_to_machines_and_takes_no_port_that_is_in_use(run: Run, folder: Path) -> None:
    process, url = serving(folder, "assets", "--port", "0", "--json")
    port = url.rpartition(":")[2]
    refused = subprocess.run(
        [str(Path(sys.executable).parent / "shiftable"), "blob", "serve", "assets", "--port", port],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (1, "") == (refused.returncode, refused.stdout)
    assert f"port '{port}'" in refused.stderr
    assert "in use" in refused.stderr
    assert "Traceback" not in refused.stderr
    process.terminate()
    process.communicate(timeout=60)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("nonsense",), "nonsense"),
        (("nowhere://",), "unknown URL"),
        (("assets", "--cors", "shop.example"), "is no origin"),
        (("assets", "--port", "70000"), "70000"),
    ],
    ids=["label", "provider", "origin", "port"],
)
def test_what_cannot_be_served_is_said(run: Run, arguments: tuple[str, ...], said: str) -> None:
    answer = run("blob", "serve", *arguments)
    assert answer.exit_code != 0
    assert said in answer.stderr


# on a terminal


def typed(arguments: list[str], answers: list[tuple[str, str]]) -> str:
    """Drive the command through a pseudo-terminal, as a person would, and return what was to be seen."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(str(Path(sys.executable).parent / "shiftable"), ["shiftable", *arguments])  # noqa: S606
    seen, waiting = b"", list(answers)
    while select.select([terminal], [], [], 60)[0]:
        try:
            seen += os.read(terminal, 4096)
        except OSError:
            break
        if waiting and waiting[0][0].encode() in seen:
            os.write(terminal, (waiting.pop(0)[1] + "\n").encode())
    os.close(terminal)
    os.waitpid(pid, 0)
    return seen.decode()


def test_a_terminal_shows_hostile_keys_escaped(run: Run) -> None:
    put(run, f"assets:{HOSTILE}")
    for arguments in (
        ["ls", "assets"],
        ["ls", "-l", "assets"],
        ["ls", "assets", "--json"],
        ["stat", f"assets:{HOSTILE}"],
    ):
        seen = typed(["blob", *arguments], [])
        assert "\x1b" not in seen
        assert "\u202e" not in seen
        assert "gpj." in seen
    assert "\x1b" not in typed(["blob", "cat", f"assets:{HOSTILE}-absent"], [])


def test_a_terminal_sees_how_far_a_sync_is_and_no_line_for_each(run: Run, tree: Path) -> None:
    seen = typed(["blob", "sync", "--apply", "tree", "assets:x"], [])
    assert "\N{BOX DRAWINGS HEAVY HORIZONTAL}" in seen
    assert "3 done" in seen
    assert "copy a" not in seen
    assert ["x/a", "x/sub/b", "x/sub/deep/c"] == keys(run)
    assert "copy a" in typed(["blob", "sync", "tree", "assets:y"], [])  # without --apply nothing takes long


def test_a_pipe_gets_a_line_for_each_step_of_a_sync(run: Run, tree: Path, folder: Path) -> None:
    typed(["blob", "sync", "--apply", "tree", "assets:x"], [])
    (folder / "tree" / "a").unlink()
    answer = run("blob", "sync", "--apply", "--delete", "tree", "assets:x")
    assert "delete a\n" == answer.stdout
    assert "1 done" in answer.stderr


def test_a_terminal_is_asked_before_a_folder_is_deleted(run: Run) -> None:
    put(run, "assets:x/1", "assets:x/2", "assets:y")
    assert "Aborted" in typed(["blob", "rm", "-r", "assets:x"], [("delete 2 objects (20 B) from assets:x on", "n")])
    assert ["x/1", "x/2", "y"] == keys(run)
    assert "2 deleted" in typed(["blob", "rm", "-r", "assets:x"], [("delete 2 objects", "y")])
    assert ["y"] == keys(run)


def test_a_terminal_has_a_bar_and_one_line_at_the_end(run: Run, tree: Path) -> None:
    seen = typed(["blob", "cp", "-r", "tree", "assets:"], [])
    assert "3 copied (31 B), 0 failed" in seen
    assert "\x1b[" in seen
    assert "→" not in seen
    failed = typed(["blob", "cp", "none", "assets:x"], [])
    assert "error: none → assets:x: blob.copy on file" in failed


def test_a_reader_that_goes_away_is_no_error(run: Run, folder: Path) -> None:
    for n in range(1500):  # more than a pipe holds, so that the writer must see its reader go
        (folder / f"local/blob/shop-assets/{'n' * 200}{n}").write_bytes(b"x")
    binary = Path(sys.executable).parent / "shiftable"
    for command in ("ls assets", "ls -r assets --json", "cp -rn assets: x"):
        answer = subprocess.run(
            ["bash", "-c", f"set -o pipefail; {binary} blob {command} | head -1"],
            cwd=folder, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert "" == answer.stderr
        assert 141 == answer.returncode

"""The command where the shell, the terminal or the disk are not as one hopes: one line, an exit code, no traceback."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

FILE = """
[project]
name = "shop"
[environments.development]
provider = "local"
[providers.local]
type = "baremetal"
root = "local"
[blob.assets]
bucket = "shop-assets"
[secrets.app]
prefix = "shop"
"""
CANARY = "canary-0d8f"


@pytest.fixture
def shop(folder: Path, shiftable) -> Path:
    (folder / "shiftable.toml").write_text(FILE)
    assert 0 == shiftable("apply").returncode
    return folder


def shell(line: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[bytes]:
    variables = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"} | environment
    return subprocess.run(
        ["bash", "-c", line],
        cwd=folder,
        env=variables,
        capture_output=True,
        check=False,
        timeout=120,
        stdin=subprocess.DEVNULL,
    )


@pytest.mark.parametrize(
    "arguments",
    [
        "blob cp missing assets:",
        "blob cp folder assets:x",
        "blob cp assets:a missing/b",
        "init shiftable.toml/below",
    ],
)
def test_a_file_that_cannot_be_used_is_one_clear_error(shop: Path, arguments: str) -> None:
    (shop / "folder").mkdir()
    shell("echo 1 | shiftable blob cp - assets:a", shop)
    answer = shell(f"shiftable {arguments}", shop)
    assert answer.returncode in (1, 2)
    assert b"rror: " in answer.stderr
    assert b"Traceback" not in answer.stderr


@pytest.mark.parametrize("command", ["plan", "plan --json", "blob ls assets", "blob cat assets:a", "check", "schema"])
def test_a_full_disk_behind_standard_output_is_a_failure(shop: Path, command: str) -> None:
    shell("echo 1 | shiftable blob cp - assets:a", shop)
    answer = shell(f"shiftable {command} > /dev/full", shop)
    assert (1, b"error: No space left on device\n") == (answer.returncode, answer.stderr)


@pytest.mark.parametrize("command", ["plan", "schema", "blob cat assets:a", "blob ls assets", "secrets list app"])
def test_a_reader_that_has_gone_or_a_closed_stream_is_no_traceback(shop: Path, command: str) -> None:
    shell("head -c 3000000 /dev/zero | shiftable blob cp - assets:a", shop)
    for line in (f"shiftable {command} | true", f"shiftable {command} >&-", f"shiftable {command} 2>&-"):
        assert b"" == shell(line, shop).stderr


def test_closed_standard_input_is_empty(shop: Path) -> None:
    answer = shell("shiftable secrets set app x <&-", shop)
    assert 1 == answer.returncode
    assert b"the value is empty" in answer.stderr


@pytest.mark.parametrize("environment", [{"LC_ALL": "C"}, {"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C.UTF-8"}])
def test_names_are_the_same_in_every_locale(shop: Path, environment: dict[str, str]) -> None:
    shell("echo 1 | shiftable blob cp - assets:ü日本", shop)
    assert "ü日本\n" == shell("shiftable blob ls assets", shop, **environment).stdout.decode()
    about = shell("shiftable blob stat assets:ü日本 --json", shop, **environment)
    assert "ü日本" == json.loads(about.stdout)["key"]
    assert "T" in json.loads(about.stdout)["modified"]
    assert 0 == shell("shiftable blob cp assets:ü日本 .", shop, **environment).returncode


def test_a_file_whose_name_is_no_unicode_is_told_and_the_others_go_on(shop: Path) -> None:
    (shop / "tree").mkdir()
    for name in (b"a", b"\xff\xfe"):
        Path(os.fsdecode(bytes(shop / "tree") + b"/" + name)).write_text("1")
    for command in ("shiftable blob sync tree assets:", "shiftable blob sync tree assets: --apply"):
        answer = shell(command, shop)
        assert (1, b"copy a\n") == (answer.returncode, answer.stdout)
        assert b"is not Unicode" in answer.stderr


def test_a_binary_secret_is_shown_as_bytes_or_base64(shop: Path) -> None:
    shell(r"printf '\xff\x00' | shiftable secrets set app bin --binary", shop)
    assert b"\xff\x00" == shell("shiftable secrets get app bin --reveal", shop).stdout
    about = json.loads(shell("shiftable secrets get app bin --reveal --json", shop).stdout)
    assert "/wA=" == about["value_base64"]
    assert "value" not in about


@pytest.mark.parametrize(
    ("mapped", "value", "said"),
    [
        ('{ KEY = "k" }', rf"{CANARY}\xff", b"the secret for KEY is binary"),
        ('{ KEY = "k" }', rf"{CANARY}\x00", b"the secret for KEY is binary"),
        ('{ "A=B" = "k" }', CANARY, b"[secrets.app] env: 'A=B' cannot be the name of an environment variable"),
        ('{ "" = "k" }', CANARY, b"[secrets.app] env: '' cannot be the name of an environment variable"),
    ],
)
def test_what_an_environment_cannot_hold_is_refused_and_not_shown(
    shop: Path, mapped: str, value: str, said: bytes
) -> None:
    (shop / "shiftable.toml").write_text(FILE + f"env = {mapped}\n")
    shell(f"printf '{value}' | shiftable secrets set app k --binary", shop)
    answer = shell("shiftable run -- env", shop)
    assert 2 == answer.returncode
    assert said in answer.stderr
    assert CANARY.encode() not in answer.stdout + answer.stderr
    assert b"Traceback" not in answer.stderr


def test_a_program_that_cannot_be_run_is_one_clear_error(shop: Path) -> None:
    (shop / "program").write_bytes(b"\x7fELF")
    (shop / "program").chmod(0o755)
    answer = shell("shiftable run -- ./program", shop)
    assert 126 == answer.returncode  # as shells say it
    assert b"error: cannot run ./program: " in answer.stderr

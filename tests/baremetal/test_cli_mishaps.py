"""The command where the shell, the terminal or the disk are not as one hopes: one line, an exit code, no traceback."""

import json
import os
import signal
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


def test_a_pipe_or_a_device_takes_what_is_copied_to_it_and_stays(shop: Path) -> None:
    shell("head -c 300000 /dev/zero | shiftable blob cp - assets:a", shop)
    os.mkfifo(shop / "pipe")
    (shop / "link").symlink_to("pipe")
    for target in ("pipe", "link", "/dev/fd/3"):
        line = f"cat pipe > out & exec 3> pipe; shiftable blob cp assets:a {target}; exec 3>&-; wait"
        answer = shell(f"timeout 20 bash -c '{line}'", shop)
        assert 300_000 == (shop / "out").stat().st_size, answer.stderr
        assert ((shop / "pipe").is_fifo(), (shop / "link").is_symlink()) == (True, True)
        (shop / "out").unlink()

    refused = shell("shiftable blob mv assets:a link", shop)
    assert (1, True) == (refused.returncode, b"it keeps nothing that could be moved; use cp" in refused.stderr)
    assert 0 == shell("shiftable blob stat assets:a", shop).returncode


def test_a_link_that_is_named_as_the_target_stays_and_what_it_leads_to_is_replaced(shop: Path) -> None:
    shell("printf new | shiftable blob cp - assets:a", shop)
    (shop / "real").write_text("old")
    (shop / "link").symlink_to("real")
    assert 0 == shell("shiftable blob cp assets:a link", shop).returncode
    assert ("new", True) == ((shop / "real").read_text(), (shop / "link").is_symlink())


def test_json_is_utf_8_whatever_files_are_called(shop: Path) -> None:
    (shop / "tree").mkdir()
    (shop / os.fsdecode(b"tree/\xff")).write_bytes(b"1")
    answer = shell("shiftable blob cp -r tree/ assets: --json", shop)
    assert os.fsdecode(b"tree/\xff") == json.loads(answer.stdout)["source"]
    document = shell("shiftable blob cp tree/* assets:x && shiftable blob stat assets:x --json", shop)
    assert "x" == json.loads(document.stdout)["key"]
    lines = shell("shiftable blob sync tree assets:", shop)
    assert b"\\udcff" in lines.stderr


def test_keys_are_exact_in_pipes_of_every_locale(shop: Path) -> None:
    key = "é😀\n"
    shell(f"echo 1 | shiftable blob cp - $'assets:{key}'", shop)
    for encoding in ("latin-1", "ascii", "utf-8:strict"):
        answer = shell("shiftable blob ls assets:", shop, PYTHONIOENCODING=encoding)
        assert (f"{key}\n".encode(), b"") == (answer.stdout, answer.stderr)


def test_a_terminal_that_cannot_show_a_key_is_told_its_code(shop: Path) -> None:
    shell("echo 1 | shiftable blob cp - assets:é😀", shop)
    answer = shell("script -qec 'shiftable blob ls assets:' /dev/null", shop, PYTHONIOENCODING="latin-1")
    assert (0, b"\xe9\\U0001f600\r\n") == (answer.returncode, answer.stdout)


def test_a_folder_that_cannot_be_read_is_named(shop: Path) -> None:
    (shop / "tree" / "closed").mkdir(parents=True)
    (shop / "tree" / "closed").chmod(0)
    bounded = "setpriv --bounding-set=-dac_override,-dac_read_search --inh-caps=-dac_override,-dac_read_search"
    for arguments in ("cp -r tree assets:", "sync tree assets:"):
        answer = shell(f"{bounded if os.geteuid() == 0 else ''} shiftable blob {arguments}", shop)
        assert (1, True) == (answer.returncode, b"tree/closed" in answer.stderr), answer.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_what_ends_a_copy_while_it_waits_for_its_source_leaves_nothing_half_done(shop: Path, number: int) -> None:
    command = [Path(sys.executable).with_name("shiftable"), "blob", "cp", "-", "assets:a"]
    with subprocess.Popen(command, cwd=shop, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as copy:
        assert copy.stdin is not None
        copy.stdin.write(b"1" * 1_000_000)  # more than a pipe holds: so it is being read
        copy.stdin.flush()
        copy.send_signal(number)
        assert 130 == copy.wait(timeout=30)  # though nobody has closed its standard input
        assert copy.stderr is not None
        assert b"interrupted\n" == copy.stderr.read()
    assert [] == list((shop / "local" / "blob" / ".shiftable" / "staging").rglob("*"))
    assert b"" == shell("shiftable blob ls assets", shop).stdout

"""``shiftable run``: a command with secrets, in its environment or in memory, that runs as if it ran alone."""

from __future__ import annotations

import base64
import contextlib
import os
import pty
import queue
import select
import shutil
import signal
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import pytest

import shiftable as library

FILE = """
[project]
name = "shop"
[environments.development]
provider = "local"
[providers.local]
type = "baremetal"
root = "local"
[blob.assets]
[secrets.app]
prefix = "shop"
env = { STRIPE_KEY = "stripe/key" }
[secrets.more]
"""
CANARY, FRESH, KEY = "canary-5c1e0f9b7d", "canary-fresh-99ab12", "canary-key\nwith-two-lines\n"
MEMORY = "/dev/shm"  # noqa: S108  a folder of its own is made there
SHIFTABLE = str(Path(sys.executable).parent / "shiftable")
MODES = pytest.mark.parametrize("mode", [(), ("--mask",)], ids=["alone", "below"])
"""The command takes the place of ours, or runs below it."""


@pytest.fixture
def shop(folder: Path, shiftable) -> Path:
    (folder / "shiftable.toml").write_text(FILE)
    with library.load(folder) as app:
        for declared in app.declared("secrets"):
            for change in app.diff(declared):
                app.apply(declared, change)
    put(folder, CANARY)
    put(folder, KEY, key="tls/key")
    return folder


def put(folder: Path, value: str | bytes, *, key: str = "stripe/key") -> None:
    with library.load(folder) as app:
        app.secrets("app").put(key, value)


class Lines:
    """The lines of a stream, as they come; whoever waits for one that never comes is told."""

    def __init__(self, stream: IO[str]) -> None:
        self._queue: queue.Queue[str] = queue.Queue()
        self._stream = stream
        self._thread = threading.Thread(target=self._read, args=(stream,), daemon=True)
        self._thread.start()

    def _read(self, stream: IO[str]) -> None:
        for line in stream:
            self._queue.put(line)
        self._queue.put("")

    def next(self) -> str:
        return self._queue.get(timeout=120).rstrip("\n")

    def rest(self) -> str:
        return "".join(iter(lambda: self._queue.get(timeout=120), ""))

    def close(self) -> None:
        self._thread.join(120)
        self._stream.close()


class Running:
    """A command that was started, whose lines are read one by one."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        assert process.stderr is not None
        self.process = process
        self.out, self.errors = Lines(process.stdout), Lines(process.stderr)

    def line(self) -> str:
        return self.out.next()

    def end(self, number: signal.Signals = signal.SIGTERM) -> tuple[int, str, str]:
        self.process.send_signal(number)
        return self.process.wait(120), self.out.rest(), self.errors.rest()


@pytest.fixture
def started(shop: Path) -> Iterator[Callable[..., Running]]:
    """Start the command, and end it at the end of the test."""
    all_running: list[Running] = []

    def start(*arguments: str, code: str = "") -> Running:
        words = [SHIFTABLE, *arguments, *(("--", sys.executable, "-uc", code) if code else ())]
        streams: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        all_running.append(Running(subprocess.Popen(words, text=True, cwd=shop, **streams)))
        return all_running[-1]

    yield start
    for running in all_running:
        with contextlib.suppress(ProcessLookupError):
            for child in children(running.process.pid):
                os.kill(child, signal.SIGKILL)
        running.process.kill()
        running.process.wait()
        assert running.process.stdin is not None
        running.process.stdin.close()
        running.out.close()
        running.errors.close()


def children(pid: int) -> list[int]:
    """Return the living and the dead children of a process."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            found += [int(stat.parent.name)] if int(fields[1]) == pid else []
    return found


# files in memory


def test_a_file_without_a_name_holds_the_value_and_can_be_read_again(shop: Path, shiftable) -> None:
    code = """
import os
path = os.environ["TLS_KEY"]
print(repr(open(path).read() + open(path).read()))
try:
    os.pwrite(int(path.rpartition("/")[2]), b"x", 0)
except PermissionError:
    print("sealed")
"""
    answer = shiftable("run", "--file", "TLS_KEY=app/tls/key", "--", sys.executable, "-c", code)
    assert (0, f"{KEY * 2!r}\nsealed\n", "") == (answer.returncode, answer.stdout, answer.stderr)


def test_what_the_command_starts_has_the_file_too(shop: Path, shiftable) -> None:
    answer = shiftable("run", "--file", "TLS_KEY=app/tls/key", "--", "sh", "-c", "sh -c 'cat $TLS_KEY'; cat <$TLS_KEY")
    assert KEY * 2 == answer.stdout


def test_files_in_a_folder_are_this_users_alone_and_go_with_the_command(shop: Path, shiftable) -> None:
    code = """
import os, stat
path = os.environ["TLS_KEY"]
folder = os.path.dirname(path)
print(repr(open(path).read()), *(oct(stat.S_IMODE(os.stat(each).st_mode)) for each in (path, folder)), folder)
raise SystemExit(5)
"""
    answer = shiftable("run", "--files-in", MEMORY, "--file", "TLS_KEY=app/tls/key", "--", sys.executable, "-c", code)
    value, *modes, path = answer.stdout.rsplit(maxsplit=3)
    assert (5, repr(KEY), ["0o600", "0o700"]) == (answer.returncode, value, modes)
    assert path.startswith(f"{MEMORY}/shiftable-run-")
    assert not Path(path).exists()


def test_what_a_killed_run_has_left_the_next_one_removes(shop: Path, shiftable, started) -> None:
    arguments = ("run", "--files-in", MEMORY, "--file", "TLS_KEY=app/tls/key")
    running = started(*arguments, code="import os, time; print(os.environ['TLS_KEY']); time.sleep(600)")
    left = Path(running.line())
    beside = started(*arguments, code="import os, time; print(os.environ['TLS_KEY']); time.sleep(600)")
    other = Path(beside.line())
    (child,) = children(running.process.pid)
    running.process.kill()
    running.process.wait()
    os.kill(child, signal.SIGKILL)
    assert left.exists()
    for path in (left, other):
        os.utime(path.parent, (0, 0))
    assert 0 == shiftable(*arguments, "--", "true").returncode
    assert (False, True) == (left.exists(), other.exists())


def test_a_folder_on_a_disk_is_refused(shop: Path, shiftable) -> None:
    disk = next(path for path in (Path("/usr"), Path("/etc")) if path.is_dir())
    answer = shiftable("run", "--files-in", str(disk), "--file", "A=app/tls/key", "--", "true")
    assert 2 == answer.returncode
    assert f"error: {disk} is not in memory but on a disk" in answer.stderr


def test_the_file_declares_files_as_it_declares_variables(shop: Path, shiftable) -> None:
    (shop / "shiftable.toml").write_text(FILE.replace("[secrets.more]", 'files = { TLS_KEY = "tls/key" }\n'))
    assert KEY == shiftable("run", "--", "sh", "-c", "cat $TLS_KEY").stdout


# mapping


def test_secrets_are_mapped_by_options_and_by_the_file(shop: Path, shiftable) -> None:
    answer = shiftable(
        "run", "--secret", "KEY=app/stripe/key", "--", "sh", "-c", "echo $KEY $STRIPE_KEY $SHIFTABLE_ENV"
    )
    assert f"{CANARY} {CANARY} development\n" == answer.stdout


def test_all_missing_secrets_are_named_at_once(shop: Path, shiftable) -> None:
    answer = shiftable(
        *("run", "--secret", "A=app/no/1", "--secret", "B=app/no/1", "--file", "C=more/no/2"), "--", "touch", "ran"
    )
    assert 1 == answer.returncode
    assert "error: run: these secrets do not exist: app/no/1 (for A, B), more/no/2 (for C)\n" == answer.stderr
    assert not (shop / "ran").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--secret", "STRIPE_KEY=app/tls/key"), "[secrets.app] env and --secret STRIPE_KEY both give the variable"),
        (("--secret", "A=app/tls/key", "--file", "A=app/tls/key"), "--secret A and --file A both give the variable A"),
        (("--secret", "BLOB_ASSETS_BUCKET=app/tls/key"), "both give the variable BLOB_ASSETS_BUCKET; rename one"),
        (("--secret", "SHIFTABLE_ENV=app/tls/key"), "both give the variable SHIFTABLE_ENV; rename one"),
        (("--secret", "PATH=app/tls/key"), "set already: PATH; unset them, or say --override"),
        (("--secret", "A"), "--secret A: say NAME=LABEL/KEY"),
        (("--secret", "A=app"), "--secret A=app: say NAME=LABEL/KEY"),
        (("--file", "=app/tls/key"), "--file =app/tls/key: say NAME=LABEL/KEY"),
        (("--file", "../A=app/tls/key"), "'../A' cannot be the name of a file"),
        (("--secret", "A=nobody/tls/key"), "declares no [secrets.nobody]"),
        (("--watch", "reboot"), "--watch reboot: say restart, signal, signal=USR1 or command=COMMAND"),
        (("--watch", "signal=NONE"), "--watch signal=NONE: there is no signal 'NONE'"),
        (("--watch", "command='"), "--watch command=': No closing quotation"),
        (("--every", "soon"), "'soon' is no duration"),
    ],
)
def test_what_is_said_wrong_is_refused_and_nothing_runs(
    shop: Path, shiftable, arguments: tuple[str, ...], message: str
) -> None:
    answer = shiftable("run", *arguments, "--", "touch", "ran")
    assert 2 == answer.returncode
    assert message in answer.stderr
    assert not (shop / "ran").exists()


def test_without_a_secret_there_is_nothing_to_watch(shop: Path, shiftable) -> None:
    (shop / "shiftable.toml").write_text(FILE.replace("env =", "#"))
    answer = shiftable("run", "--watch", "restart", "--", "touch", "ran")
    assert 2 == answer.returncode
    assert "there is no secret to watch" in answer.stderr
    assert not (shop / "ran").exists()


def test_a_binary_secret_is_handed_over_as_a_file_only(shop: Path, shiftable) -> None:
    put(shop, b"\xff\x00binary", key="tls/key")
    answer = shiftable("run", "--secret", "A=app/tls/key", "--", "true")
    assert 2 == answer.returncode
    assert "hand it over as a file, with --file A=app/tls/key" in answer.stderr
    code = "import os; print(open(os.environ['A'], 'rb').read())"
    assert (
        "b'\\xff\\x00binary'\n" == shiftable("run", "--file", "A=app/tls/key", "--", sys.executable, "-c", code).stdout
    )


# as if it ran alone


@MODES
def test_exit_codes_are_those_of_a_shell(shop: Path, shiftable, mode: tuple[str, ...]) -> None:
    (shop / "no-program").write_bytes(b"\x7fELF no program")
    (shop / "no-program").chmod(0o755)
    (shop / "not-executable").write_text("")
    commands: dict[tuple[str, ...], int] = {
        ("true",): 0,
        ("sh", "-c", "exit 7"): 7,
        ("no-such-command-here",): 127,
        ("./no-such-file",): 127,
        ("./not-executable",): 126,
        ("./no-program",): 126,
        (str(shop),): 126,
    }
    assert commands == {words: shiftable("run", *mode, "--", *words).returncode for words in commands}


def test_a_signal_that_ends_the_command_is_told_as_a_shell_does(shop: Path, shiftable) -> None:
    for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV):
        answer = shiftable("run", "--mask", "--", "sh", "-c", f"ulimit -c 0; kill -{int(number)} $$")
        assert 128 + number == answer.returncode


@MODES
def test_a_broken_pipe_ends_the_command_as_it_does_in_a_shell(shop: Path, shiftable, mode: tuple[str, ...]) -> None:
    assert "" == shiftable("run", *mode, "--", "sh", "-c", "kill -PIPE $$; echo alive").stdout
    script = f"{SHIFTABLE} run {' '.join(mode)} -- yes | head -1"
    answer = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=False, timeout=120)
    assert ("y\n", "") == (answer.stdout, answer.stderr)


@MODES
def test_standard_input_reaches_the_command(shop: Path, shiftable, mode: tuple[str, ...]) -> None:
    assert "typed\n" == shiftable("run", *mode, "--", "cat", stdin="typed\n").stdout


SIGNALLED = """
import os, signal, time
names = ("HUP", "INT", "QUIT", "USR1", "USR2", "WINCH", "TERM")
def told(number, frame):
    print(signal.Signals(number).name)
    if number == signal.SIGTERM:
        raise SystemExit(9)
for name in names:
    signal.signal(getattr(signal, "SIG" + name), told)
print(os.getpgrp() == os.getpgid(os.getppid()))
while True:
    time.sleep(600)
"""


def test_signals_are_passed_on_each_once(started) -> None:
    running = started("run", "--mask", code=SIGNALLED)
    assert "True" == running.line()
    for name in ("SIGHUP", "SIGINT", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGWINCH"):
        running.process.send_signal(getattr(signal, name))
        assert name == running.line()
    assert (9, "SIGTERM\n", "") == running.end()


def test_on_a_terminal_the_command_reads_it_and_hears_ctrl_c_once(shop: Path) -> None:
    code = f"import os, sys; print('tty', sys.stdin.isatty(), input())\n{SIGNALLED}"
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(SHIFTABLE, ["shiftable", "run", "--mask", "--", sys.executable, "-uc", code])  # noqa: S606
    seen = ""

    def until(text: str) -> None:
        nonlocal seen
        while text not in seen:
            assert select.select([terminal], [], [], 60)[0], seen
            seen += os.read(terminal, 4096).decode(errors="replace")

    attributes = termios.tcgetattr(terminal)
    attributes[3] &= ~termios.ECHO
    termios.tcsetattr(terminal, termios.TCSANOW, attributes)
    os.write(terminal, b"typed\n")
    until("tty True typed\r\nTrue\r\n")
    os.write(terminal, b"\x03")
    until("SIGINT\r\n")
    termios.tcsetwinsize(terminal, (11, 47))
    until("SIGWINCH\r\n")
    os.kill(pid, signal.SIGTERM)
    until("SIGTERM\r\n")
    _, status = os.waitpid(pid, 0)
    os.close(terminal)
    assert 9 == os.waitstatus_to_exitcode(status)
    assert (1, 1) == (seen.count("SIGINT"), seen.count("SIGWINCH"))


def test_a_command_that_is_stopped_from_the_terminal_stops_with_us_and_goes_on(shop: Path) -> None:
    pid, terminal = pty.fork()
    if pid == 0:
        script = f'set -m; "{SHIFTABLE}" run --mask -- sh -c "echo ready; read line; echo got \\$line"; echo job $?; fg'
        os.execv("/bin/bash", ["bash", "-c", script])  # noqa: S606
    seen = ""
    with contextlib.suppress(OSError):
        stopped = resumed = False
        while select.select([terminal], [], [], 60)[0]:
            seen += os.read(terminal, 4096).decode(errors="replace")
            if "ready" in seen and not stopped:
                stopped = True
                os.write(terminal, b"\x1a")
            if "job 148" in seen and not resumed:
                resumed = True
                os.write(terminal, b"typed\n")
    os.waitpid(pid, 0)
    os.close(terminal)
    assert "job 148" in seen
    assert "got typed" in seen


def test_the_first_process_of_a_container_buries_orphans(shop: Path) -> None:
    code = """
import os, time
out, into = os.pipe()
if (middle := os.fork()) == 0:
    if (orphan := os.fork()) == 0:
        os._exit(0)
    os.write(into, str(orphan).encode())
    os._exit(0)
os.waitpid(middle, 0)
orphan = int(os.read(out, 20))
until = time.monotonic() + 60
while os.path.exists(f"/proc/{orphan}") and time.monotonic() < until:
    time.sleep(0.01)
print(os.getppid(), os.path.exists(f"/proc/{orphan}"))
raise SystemExit(6)
"""
    container = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--mount-proc"]
    allowed = shutil.which(container[0]) and subprocess.run([*container, "true"], capture_output=True, check=False)
    if not allowed or allowed.returncode:
        pytest.skip("this machine lets nobody make a namespace of processes, so ours cannot be the first one")
    command = [*container, SHIFTABLE, "run", "--mask", "--", sys.executable, "-c", code]
    answer = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert (6, "1 False\n", "") == (answer.returncode, answer.stdout, answer.stderr)


# masking


def test_secrets_are_masked_in_both_outputs_whole_in_pieces_and_encoded(shop: Path, shiftable) -> None:
    code = """
import base64, os, sys, time
value = os.environ["STRIPE_KEY"]
print("plain", value, open(os.environ["TLS_KEY"]).read())
print("basic", base64.b64encode(b"user:" + value.encode()).decode(), file=sys.stderr)
sys.stdout.flush()
for letter in f"pieces {value} done\\n":
    sys.stdout.write(letter)
    sys.stdout.flush()
sys.stdout.buffer.write(b"\\xff\\x00 end")
"""
    answer = subprocess.run(
        [SHIFTABLE, "run", "--mask", "--file", "TLS_KEY=app/tls/key", "--", sys.executable, "-c", code],
        capture_output=True,
        check=False,
        timeout=120,
    )
    assert b"plain *** ***\npieces *** done\n\xff\x00 end" == answer.stdout
    assert b"basic dXNlcj***\n" == answer.stderr
    assert base64.b64encode(b"user:").startswith(b"dXNlcj")


def test_a_short_secret_is_not_masked_and_that_is_said(shop: Path, shiftable) -> None:
    put(shop, "1234567")
    answer = shiftable("run", "--mask", "--", "sh", "-c", "echo $STRIPE_KEY")
    assert "1234567\n" == answer.stdout
    assert "stripe/key is shorter than 8 characters and is not masked" in answer.stderr


def test_what_a_masked_command_leaves_running_does_not_keep_us_for_ever(shop: Path, shiftable) -> None:
    began = time.monotonic()
    answer = shiftable("run", "--mask", "--", "sh", "-c", "sleep 300 & echo $!")
    os.kill(int(answer.stdout), signal.SIGKILL)
    assert time.monotonic() - began < 250


# watching

SHOWS = "import os, time; print(os.environ['STRIPE_KEY'][-6:]); time.sleep(600)"
WATCH = ("--every", "1s", "--splay", "0s")


def test_a_command_is_started_again_with_the_new_value(shop: Path, started) -> None:
    running = started("run", "--watch", "restart", *WATCH, code=SHOWS)
    assert CANARY[-6:] == running.line()
    first = children(running.process.pid)
    put(shop, FRESH)
    assert FRESH[-6:] == running.line()
    assert first != children(running.process.pid)
    put(shop, CANARY)
    assert CANARY[-6:] == running.line()
    assert (128 + signal.SIGTERM, "", "") == running.end()


def test_a_command_that_does_not_end_is_killed_after_its_grace(shop: Path, started) -> None:
    code = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {SHOWS}"
    running = started("run", "--watch", "restart", *WATCH, "--grace", "1s", code=code)
    assert CANARY[-6:] == running.line()
    put(shop, FRESH)
    assert FRESH[-6:] == running.line()


def test_a_command_that_was_told_to_end_is_not_started_again(shop: Path, started) -> None:
    code = f"""
import signal, sys
def slow(number, frame):
    print("ending")
    sys.stdin.readline()
    raise SystemExit(3)
signal.signal(signal.SIGTERM, slow)
{SHOWS}
"""
    running = started("run", "--watch", "restart", *WATCH, "--grace", "10w", code=code)
    assert CANARY[-6:] == running.line()
    put(shop, FRESH)
    assert "ending" == running.line()
    running.process.send_signal(signal.SIGHUP)
    assert 128 + signal.SIGHUP == running.process.wait(120)


def test_a_command_that_ends_by_itself_is_not_started_again(shop: Path, shiftable) -> None:
    answer = shiftable("run", "--watch", "restart", *WATCH, "--", "sh", "-c", "echo once; exit 4")
    assert (4, "once\n") == (answer.returncode, answer.stdout)


def test_a_command_gets_a_signal_and_finds_the_new_value_in_its_file(shop: Path, started) -> None:
    code = """
import os, signal, time
def show(*_):
    print(repr(open(os.environ["A"]).read()))
signal.signal(signal.SIGUSR1, show)
show()
while True:
    time.sleep(600)
"""
    running = started("run", "--file", "A=app/stripe/key", "--watch", "signal=usr1", *WATCH, code=code)
    assert repr(CANARY) == running.line()
    put(shop, FRESH)
    assert repr(FRESH) == running.line()
    (child,) = children(running.process.pid)
    assert running.end()[0] == 128 + signal.SIGTERM
    assert not Path(f"/proc/{child}").exists()


def test_another_command_runs_when_a_secret_changes_and_leaves_no_zombie(shop: Path, started) -> None:
    hook = "command=sh -c 'printf %s \"$STRIPE_KEY\" | tail -c 6; echo; exit 3'"
    running = started("run", "--watch", hook, *WATCH, code=SHOWS)
    assert CANARY[-6:] == running.line()
    command = children(running.process.pid)
    for value in (FRESH, CANARY):
        put(shop, value)
        assert value[-6:] == running.line()
    deadline = time.monotonic() + 60
    while children(running.process.pid) != command:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    code, _, errors = running.end()
    assert 128 + signal.SIGTERM == code
    assert "the command for a changed secret ended with 3" in errors


def test_a_new_value_is_masked_too(shop: Path, started) -> None:
    code = "import os, time; print('value', os.environ['STRIPE_KEY'], 'end'); time.sleep(600)"
    running = started("run", "--mask", "--watch", "restart", *WATCH, code=code)
    assert "value *** end" == running.line()
    put(shop, FRESH)
    assert "value *** end" == running.line()
    ours = [Path(f"/proc/{running.process.pid}/{what}").read_bytes() for what in ("cmdline", "environ")]
    assert all(ours)
    assert not any(b"canary" in each for each in ours)
    assert "canary" not in "".join(running.end()[1:])


def test_a_store_that_cannot_be_read_leaves_the_command_alone(shop: Path, started) -> None:
    running = started("run", "--watch", "restart", *WATCH, code=SHOWS)
    assert CANARY[-6:] == running.line()
    (path,) = shop.rglob("stripe/key.yaml")
    content = path.read_bytes()
    path.unlink()
    assert "stripe/key cannot be read" in running.errors.next()
    path.write_bytes(content)
    put(shop, FRESH)
    assert FRESH[-6:] == running.line()
    assert (128 + signal.SIGTERM, "", "") == running.end()


# canaries


@pytest.mark.parametrize(
    "arguments",
    [(), ("--mask", "--watch", "restart", *WATCH), ("--watch", "signal", *WATCH)],
    ids=["alone", "restart", "signal"],
)
def test_no_value_is_in_an_argument_a_log_or_a_file_on_disk(
    shop: Path, started, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, arguments: Any
) -> None:
    (shop / "shiftable.toml").write_text(FILE.replace("env = {", "files = {"))
    temporary = tmp_path_factory.mktemp("tmp")
    monkeypatch.setenv("TMPDIR", str(temporary))
    code = (
        "import os, time; print(os.environ['STRIPE_KEY'], len(open(os.environ['STRIPE_KEY']).read())); time.sleep(600)"
    )
    running = started("-vv", "run", *arguments, code=code)
    path, size = running.line().split()
    assert len(CANARY) == int(size)
    pids = [running.process.pid, *children(running.process.pid)]
    shown = [Path(f"/proc/{pid}/{what}").read_bytes() for pid in pids for what in ("cmdline", "environ")]
    assert len(shown) == (2 if not arguments else 4)
    assert not any(b"canary" in each for each in shown)
    put(shop, FRESH)
    if arguments[:1] == ("--mask",):
        assert str(len(FRESH)) == running.line().split()[1]
    _, out, errors = running.end()
    assert "canary" not in out + errors
    files = [path for base in (shop, temporary) for path in base.rglob("*") if path.is_file()]
    assert files
    assert not any(b"canary" in path.read_bytes() for path in files)
    assert path.startswith(MEMORY if arguments[:2] == ("--watch", "signal") else "/dev/fd/")
    assert path.startswith("/dev/fd/") or not Path(path).parent.exists()

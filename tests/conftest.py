"""What holds for all tests: no network but loopback, nobody's home and no credentials but the test's own."""

import functools
import inspect
import ipaddress
import logging
import os
import platform
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from click.testing import CliRunner, Result

# Modules that several modules of tests share, and that assert: pytest tells why they failed as it does of tests.
pytest.register_assert_rewrite(
    "tests.blob_faults", "tests.migrate.database_moves", "tests.servers.guest", "tests.servers.mysql_pair"
)
hypothesis.settings.register_profile("shiftable", deadline=None, print_blob=True)
hypothesis.settings.load_profile("shiftable")
# Of state machines that drive a driver and the model: the same calls each time, so many as are quick on the wire.
hypothesis.settings.register_profile(
    "machine",
    max_examples=15,
    stateful_step_count=15,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=list(hypothesis.HealthCheck),
)

ACCEPTS = {"x86_64": {43, 288}, "aarch64": {202, 242}}.get(
    platform.machine(), set()
)  # accept and accept4, as Linux has them
FOREIGN = ("AWS_", "AZURE_", "DIGITALOCEAN_", "GOOGLE_", "LIBCLOUD_", "SHIFTABLE_", "SOPS_", "VAULT_")


def pytest_configure() -> None:
    """Let what tests start hear Ctrl-C, SIGHUP and SIGQUIT, also where the tests run in the background.

    And let commands that are run in this process tell errors apart from answers: before 8.2 click has to be told.
    """
    if "mix_stderr" in inspect.signature(CliRunner).parameters:
        CliRunner.__init__ = functools.partialmethod(CliRunner.__init__, mix_stderr=False)  # type: ignore[method-assign]
        Result.output = property(lambda self: self.stdout + self.stderr)  # type: ignore[assignment]
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        signal.signal(signal.SIGQUIT, signal.SIG_DFL)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--servers", action="store_true", help="run tests/servers too: real servers, Debian's packages")
    parser.addoption("--clusters", action="store_true", help="run tests/clusters too: Dask and Ray")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    beside = {name for name in ("clusters", "servers") if not config.getoption(f"--{name}")}
    kept = [item for item in items if beside.isdisjoint(item.path.relative_to(config.rootpath).parts)]
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    items[:] = kept


@pytest.fixture(autouse=True, scope="session")
def _only_loopback() -> Iterator[None]:
    """Let a connection to anywhere else fail the test, whatever library tries it."""
    real = socket.socket.connect

    def connect(self: socket.socket, address: Any) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6) and not _is_loopback(address[0]):
            raise AssertionError(f"a test wants to connect to {address[0]}")
        real(self, address)

    patch = pytest.MonkeyPatch()
    patch.setattr(socket.socket, "connect", connect)
    yield
    patch.undo()


@pytest.fixture(autouse=True, scope="session")
def _nobody_is_left_accepting() -> Iterator[None]:
    """Fail a run that leaves threads in accept() whose sockets were closed.

    The kernel may repeat such a call (a process that is stopped and goes on is enough), and the number of its socket is
    another server's by then: the thread takes one of that one's clients.
    """
    yield
    end = time.monotonic() + 10
    while (
        left := [thread.name for thread in threading.enumerate() if _is_accepting(thread)]
    ) and time.monotonic() < end:
        time.sleep(0.1)
    assert [] == left


def _is_accepting(thread: threading.Thread) -> bool:
    try:
        call = Path(f"/proc/self/task/{thread.native_id}/syscall").read_text().split()[0]
    except OSError:
        return False
    return call.isdecimal() and int(call) in ACCEPTS


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@pytest.fixture(autouse=True)
def _own_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give each test an empty home and an environment without anybody's credentials."""
    home = tmp_path_factory.mktemp("home")
    for name in os.environ:
        if name.startswith(FOREIGN):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    return home


@pytest.fixture(autouse=True)
def _own_levels() -> Iterator[None]:
    """Let no test that runs a command with ``-vv`` in this process decide what the next one logs."""
    yield
    for name in logging.root.manager.loggerDict:
        if name.partition(".")[0].partition("_")[0] == "shiftable":
            logging.getLogger(name).setLevel(logging.NOTSET)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def shiftable(folder: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Start the installed command as a user does, and return what it said and how it ended."""

    def start(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        command = [str(Path(sys.executable).parent / "shiftable"), *arguments]
        return subprocess.run(
            command, input=stdin, capture_output=True, text=True, check=False, cwd=folder, timeout=120
        )

    return start


@pytest.fixture
def completed(folder: Path) -> Callable[..., list[str]]:
    """Source what the help text says in a real bash, and ask its function as bash does."""
    script = """
        eval "$(_SHIFTABLE_COMPLETE=bash_source shiftable)"
        compopt() { :; }
        COMP_WORDBREAKS=$BREAKS
        COMP_POINT=${#COMP_LINE}
        _shiftable_completion shiftable
        [[ ${#COMPREPLY[@]} = 0 ]] || printf '%s\\n' "${COMPREPLY[@]}"
    """

    def ask(line: str, *, breaks: str = " \t\n\"'><=;|&(:") -> list[str]:
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        env = os.environ | {"COMP_LINE": line, "BREAKS": breaks, "PATH": path, "LC_ALL": "C.UTF-8"}
        command = ["bash", "--norc", "-c", script]
        answer = subprocess.run(command, env=env, cwd=folder, capture_output=True, text=True, check=True)
        assert "" == answer.stderr
        return answer.stdout.splitlines()

    return ask

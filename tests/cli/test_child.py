"""What runs a command below this process, without any provider."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest

from shiftable.cli._child import Child, Command, Reaction, reaction_of
from shiftable.errors import ConfigError


def answer(code: str) -> tuple[int, str, str]:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)
    return done.returncode, done.stdout, done.stderr


def test_a_change_that_comes_after_the_end_of_the_command_ends_nothing() -> None:
    code = """
import os, shutil
from shiftable.cli._child import Child, Command
child = Child(Command(shutil.which("true"), ("true",)), lambda: os.environ)
with Child.quiet():
    code = child.run()
    child.changed()
child.changed()
print("alive", code)
"""
    assert (0, "alive 0\n", "") == answer(code)


def test_signals_wait_and_threads_leave_them_alone_but_for_ctrl_c() -> None:
    code = """
import signal, threading
from shiftable.cli._child import Child
def shown():
    return sorted(signal.Signals(number).name for number in signal.pthread_sigmask(signal.SIG_BLOCK, ()) if number < 32)
seen = []
with Child.quiet():
    thread = threading.Thread(target=lambda: seen.append(shown()))
    thread.start()
    thread.join()
print(*seen[0])
print(*shown())
"""
    assert (0, "SIGCHLD SIGCONT SIGHUP SIGQUIT SIGTERM SIGUSR1 SIGUSR2 SIGWINCH\n\n", "") == answer(code)


def test_what_the_command_gets_of_us_is_what_a_shell_would_give_it() -> None:
    code = """
import os
from shiftable.cli._child import Child, Command
with Child.quiet():
    raise SystemExit(Child(Command("/bin/cat", ("cat", "/proc/self/status")), lambda: os.environ).run())
"""
    done, out, errors = answer(code)
    found = dict(line.split(":", 1) for line in out.splitlines() if line.startswith("Sig"))
    assert (0, "") == (done, errors)
    all_but_the_c_librarys_own = 0x7FFF_FFFF
    for name in ("SigBlk", "SigIgn", "SigCgt"):
        assert 0 == int(found[name], 16) & all_but_the_c_librarys_own


def test_a_reaction_comes_at_some_time_of_its_splay() -> None:
    child = Child(Command("/bin/true", ("true",)), dict, reaction=Reaction(signal.SIGHUP, 3600, 0))
    child._changed.set()
    began = time.monotonic()
    child._react()
    assert child._act_at is not None
    assert began <= child._act_at <= time.monotonic() + 3600
    assert child._changed.is_set()
    planned = child._act_at
    child._react()
    assert planned == child._act_at


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("restart", None),
        ("signal", signal.SIGHUP),
        ("signal=USR1", signal.SIGUSR1),
        ("signal=sigterm", signal.SIGTERM),
        ("command=sh -c 'exit 3'", ("sh", "-c", "exit 3")),
    ],
)
def test_reactions_are_read(text: str, what: object) -> None:
    found = reaction_of(text, splay=5, grace=10)
    assert (5, 10) == (found.splay, found.grace)
    assert what == (found.what.words if isinstance(found.what, Command) else found.what)


@pytest.mark.parametrize("text", ["", "restart=now", "signal=KILLER", "command", "command=", "command='", "exec"])
def test_other_reactions_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="--watch"):
        reaction_of(text, splay=0, grace=0)


def test_a_reaction_is_a_value() -> None:
    assert Reaction(None, 1, 2) == reaction_of("restart", splay=1, grace=2)

"""The parent of one private PostgreSQL: a program of its own, run by path in an interpreter without site packages.

It starts the server in the background, tells on standard output how that went, and stops the server when no process
uses it any more. Whoever uses a server holds a shared lock on the file ``users``, which the system releases however
that process ends; so a server outlives no crash. The server and its supervisor hold an exclusive lock on ``alive``.

Its orders come as JSON on standard input: folder, command, environment, uid, gid, data and socket (folders that the
server reaches through open descriptors, since it may be a user to whom the folders above are closed), and linger
(whether the server stays without users).
"""

from __future__ import annotations

import _thread
import contextlib
import fcntl
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any, NoReturn

_PATIENCE = 10  # seconds for the children of a server that was killed to end
_STEP = 0.01
_PR_SET_PDEATHSIG = 1
_ENDED = _thread.allocate_lock()  # of the server's number: taken for good when it has ended


def main() -> None:
    """Leave the caller's session and supervise the server until it ends."""
    orders = json.load(sys.stdin)
    if os.fork():
        os._exit(0)
    os.setsid()
    os.chdir(orders["folder"])
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    _supervise(orders)
    os._exit(0)  # the threads below wait for what no longer matters


def _supervise(orders: dict[str, Any]) -> None:
    alive = os.open("alive", os.O_RDWR | os.O_CREAT, 0o600)
    if not _locked(alive):
        _tell("another server is still running here")
        return
    server = _start(orders, alive)
    _thread.start_new_thread(_stop_when_asked, (server,))
    if not orders["linger"]:
        _thread.start_new_thread(_stop_without_users, (server,))
    _tell(_came_up(server))
    _close_the_pipes()
    os.waitid(os.P_PID, server, os.WEXITED | os.WNOWAIT)
    _ENDED.acquire()
    os.waitpid(server, 0)


def _ask_to_end(server: int) -> None:
    """Ask the server to end, unless it has: then its number may be another process's."""
    with _ENDED:
        os.kill(server, signal.SIGINT)


def _stop_when_asked(server: int) -> None:
    signal.sigwait({signal.SIGTERM})
    _ask_to_end(server)


def _stop_without_users(server: int) -> None:
    users = os.open("users", os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(users, fcntl.LOCK_EX)  # kept until this process ends: who comes now waits, and starts the server again
    _ask_to_end(server)


def _start(orders: dict[str, Any], alive: int) -> int:
    """Start the server, which inherits the lock on ``alive``, and return its process."""
    opened = {each: os.open(orders[each], os.O_RDONLY | os.O_DIRECTORY) for each in ("data", "socket")}
    log = os.open("log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    server = os.fork()
    if server:
        for descriptor in (*opened.values(), log):
            os.close(descriptor)
        return server
    try:
        _become(orders, alive, opened, log)
    except BaseException as exc:  # noqa: BLE001  a child that returned would be a second supervisor
        os.write(log, f"cannot start: {exc}\n".encode())
    os._exit(127)


def _become(orders: dict[str, Any], alive: int, opened: dict[str, int], log: int) -> NoReturn:
    """Turn this process into the server. As another user it may reach its folders through descriptors alone.

    SIGINT stays blocked until the server itself takes it: nobody repeats one that comes before.
    """
    os.setsid()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # Python ignores it, and who is ignored stays ignored
    for descriptor in (alive, *opened.values()):
        os.set_inheritable(descriptor, True)
    for descriptor, number in ((os.open(os.devnull, os.O_RDONLY), 0), (log, 1), (log, 2)):
        os.dup2(descriptor, number)
    places = {each: orders[each] for each in opened}
    die_with_parent = _death_wish()  # another user may not be let to the library, and changing the user undoes it
    if orders["uid"] is not None:
        os.setgroups([])
        os.setgid(orders["gid"])
        os.setuid(orders["uid"])
        places = {each: f"/proc/self/fd/{descriptor}" for each, descriptor in opened.items()}
    die_with_parent()
    os.umask(0o077)
    os.chdir("/")
    command = [argument.format(**places) for argument in orders["command"]]
    os.execve(command[0], command, orders["environment"])  # noqa: S606  PostgreSQL itself


def _death_wish() -> Callable[[], None]:
    """Return what has the system stop the server when its supervisor is killed, where it can."""
    if sys.platform != "linux":
        return lambda: None
    import ctypes

    library = ctypes.CDLL(None)
    return lambda: library.prctl(_PR_SET_PDEATHSIG, signal.SIGINT)


def _came_up(server: int) -> str:
    """Wait until the server lets people in, which it says in the last line of its file, or has ended."""
    while True:
        with contextlib.suppress(OSError), open("data/postmaster.pid") as file:  # noqa: PTH123  pathlib costs more
            lines = file.read().splitlines()
            if len(lines) > 7 and lines[0].strip() == str(server) and lines[7].strip() in {"ready", "standby"}:
                return "ready"
        ended = os.waitid(os.P_PID, server, os.WEXITED | os.WNOWAIT | os.WNOHANG)
        if ended is not None:
            return f"it ended with status {ended.si_status}"
        time.sleep(_STEP)


def _locked(descriptor: int) -> bool:
    """Take the lock; the last children of a server that was killed may hold it for a moment."""
    end = time.monotonic() + _PATIENCE
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > end:
                return False
            time.sleep(_STEP)
        else:
            return True


def _tell(text: str) -> None:
    """Tell whoever started this, if he still listens."""
    with contextlib.suppress(OSError):
        os.write(1, text.encode())


def _close_the_pipes() -> None:
    """Let go of whoever started this: he reads until they are closed."""
    null = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(null, number)
    os.close(null)


if __name__ == "__main__":
    main()

"""A command that runs below this process: as if it ran in its place, but for what is done on its behalf."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import random
import shlex
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

import attrs

from shiftable.errors import ConfigError
from shiftable.secrets import Redactor

__all__ = ["NOT_EXECUTABLE", "NOT_FOUND", "Child", "Command", "Reaction", "found", "reaction_of", "replaced"]

logger = logging.getLogger(__name__)

NOT_FOUND, NOT_EXECUTABLE = 127, 126
"""What a shell exits with where there is no such command, and where it cannot be run."""

_FORWARDED = frozenset(
    getattr(signal, f"SIG{name}") for name in ("HUP", "INT", "QUIT", "TERM", "USR1", "USR2", "WINCH", "CONT")
)
_ENDING = frozenset((signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM))
_OF_PYTHON = (signal.SIGPIPE, signal.SIGXFSZ)
"""Python ignores them, and what it starts would inherit that."""

_OF_THE_KERNEL = 0x80
"""``SI_KERNEL``: a terminal sent the signal to its whole foreground group."""

_LONGEST_SLEEP = 0.5
_LAST_OUTPUT = 5.0


@attrs.frozen
class Command:
    """A program and its arguments."""

    program: str
    words: tuple[str, ...]


@attrs.frozen
class Reaction:
    """What is done when a secret has changed.

    Args:
        what: start the command again, send it a signal, or run another command.
        splay: up to so many seconds later, by chance, so that not all machines do it at once.
        grace: seconds that the command has to end before it is killed.
    """

    what: signal.Signals | Command | None
    splay: float
    grace: float


def found(words: Sequence[str]) -> Command:
    """Find a program as a shell does; exit as it does if there is none."""
    program = shutil.which(words[0])
    if program is not None:
        return Command(program, tuple(words))
    for folder in [""] if "/" in words[0] else os.get_exec_path():
        path = os.path.join(folder, words[0])  # noqa: PTH118  of what may be no path at all
        if os.path.exists(path):  # noqa: PTH110  the same
            raise _left(NOT_EXECUTABLE, f"{path} is a folder" if os.path.isdir(path) else f"{path} may not be executed")  # noqa: PTH112
    raise _left(NOT_FOUND, f"there is no command {words[0]!r}")


def replaced(command: Command, environment: Mapping[str, str]) -> None:
    """Let the command take the place of this process."""
    for number in _OF_PYTHON:
        signal.signal(number, signal.SIG_DFL)
    try:
        os.execve(command.program, command.words, environment)  # noqa: S606  the user's own command, no shell
    except OSError as exc:
        raise _left(NOT_EXECUTABLE, f"cannot run {command.program}: {exc.strerror}") from exc


def _left(code: int, message: str) -> SystemExit:
    """Say why, and return what ends this process with that code."""
    sys.stderr.write(f"error: {message}\n")
    return SystemExit(code)


class Child:
    """Runs a command, and whatever a change of its secrets asks for.

    The command is in the process group of this one, so that it reads the terminal and is stopped and interrupted from
    there as if it ran alone. What a terminal sends reaches both, what somebody sends to this process alone is passed
    on. It ends when the command does, with its exit code, or 128 and the number of the signal that ended it.

    Args:
        environment: called before each start.
        prepare: called after a change, before the reaction to it: writes files.
        redactor: masks what the command writes to standard output and error.
    """

    def __init__(
        self,
        command: Command,
        environment: Callable[[], Mapping[str, str]],
        *,
        reaction: Reaction | None = None,
        prepare: Callable[[], None] = lambda: None,
        redactor: Redactor | None = None,
    ) -> None:
        self._command, self._environment = command, environment
        self._reaction, self._prepare, self._redactor = reaction, prepare, redactor
        self._main = threading.main_thread().ident
        self._changed = threading.Event()
        self._pumps: list[threading.Thread] = []
        self._pid = self._helper = 0
        self._act_at: float | None = None
        self._kill_at: float | None = None
        self._again = self._told_to_end = False

    @staticmethod
    @contextlib.contextmanager
    def quiet() -> Iterator[None]:
        """Let signals wait, but Ctrl-C, so that threads that are started in the block leave them to this class."""
        before = signal.pthread_sigmask(signal.SIG_BLOCK, (_FORWARDED | {signal.SIGCHLD, _wake()}) - {signal.SIGINT})
        try:
            yield
        finally:
            signal.signal(_wake(), signal.SIG_IGN)  # a change that came too late would end this process
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def changed(self) -> None:
        """Say, from any thread, that a secret has changed."""
        self._changed.set()
        if self._main is not None:
            signal.pthread_kill(self._main, _wake())

    def run(self) -> int:
        """Run the command to its end, and return its exit code. To be called from the main thread in ``quiet``."""
        waited = _FORWARDED | {signal.SIGCHLD, _wake()}
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        self._pid = self._start()
        while True:
            info = signal.sigtimedwait(waited, self._sleep())
            if info is not None and info.si_signo in _FORWARDED:
                self._forward(signal.Signals(info.si_signo), info)
            code = self._reap()
            if code is not None and not (self._again and not self._told_to_end):
                return self._drained(code)
            if code is not None:
                self._again, self._kill_at, self._act_at = False, None, None
                self._changed.clear()
                self._prepare()
                self._pid = self._start()
            self._react()

    # starting

    def _start(self) -> int:
        """Start the command with this process's own streams, or with pipes that are masked."""
        actions: list[tuple[int, int, int]] = []
        pipes = [os.pipe() for _ in (1, 2)] if self._redactor is not None else []
        for (_, into), number in zip(pipes, (1, 2), strict=False):
            actions.append((os.POSIX_SPAWN_DUP2, into, number))
        try:
            pid = self._spawned(self._command, actions)
        except OSError as exc:
            raise _left(NOT_EXECUTABLE, f"cannot run {self._command.program}: {exc.strerror}") from exc
        self._pumps = [pump for pump in self._pumps if pump.is_alive()]
        for (out, into), number in zip(pipes, (1, 2), strict=False):
            os.close(into)
            pump = threading.Thread(target=self._pump, args=(out, number), daemon=True)
            pump.start()
            self._pumps.append(pump)
        return pid

    def _spawned(self, command: Command, actions: Sequence[tuple[int, int, int]] = ()) -> int:
        return os.posix_spawn(
            command.program,
            command.words,
            self._environment(),
            file_actions=actions,
            setsigmask=(),
            setsigdef=_OF_PYTHON,
        )

    def _pump(self, out: int, to: int) -> None:
        """Pass on what the command writes. Where nobody reads it any more, the command shall notice."""
        assert self._redactor is not None  # noqa: S101  else there are no pipes

        def chunks() -> Iterator[bytes]:
            while chunk := os.read(out, 65_536):
                yield chunk

        try:
            for piece in self._redactor.pieces(chunks()):
                left = memoryview(piece)
                while left:
                    left = left[os.write(to, left) :]
        except OSError as exc:
            if exc.errno != errno.EPIPE:
                logger.warning("the output of the command cannot be passed on: %s", exc.strerror)
        finally:
            os.close(out)

    def _drained(self, code: int) -> int:
        """Wait for the last output; what others of its processes still write is waited for no longer than a while."""
        until = time.monotonic() + _LAST_OUTPUT
        for pump in self._pumps:
            pump.join(max(0.0, until - time.monotonic()))
        return code

    # signals

    def _forward(self, number: signal.Signals, info: signal.struct_siginfo) -> None:
        self._told_to_end = self._told_to_end or number in _ENDING
        if info.si_code == _OF_THE_KERNEL and self._is_in_this_group():
            return
        self._send(number)

    def _is_in_this_group(self) -> bool:
        try:
            return os.getpgid(self._pid) == os.getpgrp()
        except ProcessLookupError:
            return True

    def _send(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):  # it ended just now
            os.kill(self._pid, number)

    def _reap(self) -> int | None:
        """Return the exit code of the command if it has ended, and see to others that have."""
        code = _ended(self._pid)
        if self._helper:
            ended = _ended(self._helper)
            if ended is not None:
                self._helper = 0
                if ended:
                    logger.warning("the command for a changed secret ended with %d", ended)
        if os.getpid() == 1:  # whatever loses its parent becomes ours
            with contextlib.suppress(ChildProcessError):
                while (other := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) is not None:
                    if other.si_pid in (self._pid, self._helper):
                        break
                    os.waitpid(other.si_pid, 0)
        return code

    # reacting

    def _sleep(self) -> float:
        """Return for how long nothing needs to be done. Never for long, as a signal may go to another thread."""
        times = [at for at in (self._act_at, self._kill_at) if at is not None]
        return max(0.0, min([_LONGEST_SLEEP, *(at - time.monotonic() for at in times)]))

    def _react(self) -> None:
        now = time.monotonic()
        if self._reaction is None:
            return
        if self._changed.is_set() and self._act_at is None:
            self._act_at = now + random.uniform(0, self._reaction.splay)  # noqa: S311  no secret
        if self._act_at is not None and now >= self._act_at and not self._helper and self._kill_at is None:
            self._act_at = None
            self._changed.clear()
            self._prepare()
            self._act(self._reaction)
        if self._kill_at is not None and now >= self._kill_at:
            self._send(signal.SIGKILL)
            self._kill_at = float("inf")

    def _act(self, reaction: Reaction) -> None:
        if isinstance(reaction.what, signal.Signals):
            self._send(reaction.what)
        elif reaction.what is None:
            logger.info("a secret has changed: %s is started again", self._command.words[0])
            self._again = True
            self._kill_at = time.monotonic() + reaction.grace
            self._send(signal.SIGTERM)
            self._send(signal.SIGCONT)
        else:
            try:
                self._helper = self._spawned(reaction.what)
            except OSError as exc:
                logger.warning("the command for a changed secret cannot be run: %s", exc.strerror)


def _ended(pid: int) -> int | None:
    """Return the exit code of a process as a shell tells it, if it has ended."""
    done, status = os.waitpid(pid, os.WNOHANG)
    if not done:
        return None
    return 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def _wake() -> int:
    """Return a signal that nobody else uses here."""
    return signal.SIGRTMIN + 7


def reaction_of(text: str, *, splay: float, grace: float) -> Reaction:
    """Read ``restart``, ``signal``, ``signal=USR1`` or ``command=…``."""
    kind, _, rest = text.partition("=")
    if kind == "restart" and not rest:
        return Reaction(None, splay, grace)
    if kind == "signal":
        name = rest.upper().removeprefix("SIG") or "HUP"
        try:
            return Reaction(signal.Signals[f"SIG{name}"], splay, grace)
        except KeyError:
            raise ConfigError(f"--watch {text}: there is no signal {rest!r}") from None
    if kind == "command" and rest:
        try:
            words = shlex.split(rest)
        except ValueError as exc:
            raise ConfigError(f"--watch {text}: {exc}") from None
        if words:
            return Reaction(found(words), splay, grace)
    raise ConfigError(f"--watch {text}: say restart, signal, signal=USR1 or command=COMMAND")

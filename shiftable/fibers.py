"""Many calls at once in one thread: each in a fiber, which lets the others go on while it waits.

Threads that each do little and wait much fight for the interpreter's lock: with 32 of them an object of 4 KiB costs
three times the CPU that it costs one thread. A fiber runs until it waits for a socket, sleeps or has work done in a
thread, all of them through the functions here; then the thread's loop runs the next that can go on. Everything else, a
file or a lock, holds up all fibers of the thread, so what takes long belongs into ``in_thread``.

Whoever calls these functions outside a fiber waits as usual, and what the thread has under way goes on meanwhile.
"""

from __future__ import annotations

import heapq
import itertools
import os
import select
import socket
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import ParamSpec, TypeVar

try:
    from greenlet import getcurrent, greenlet
except ImportError:  # then everything runs in threads
    getcurrent = greenlet = None  # type: ignore[assignment, misc]

__all__ = ["AVAILABLE", "Loop", "active", "in_thread", "loop", "sleep", "wait"]

P = ParamSpec("P")
R = TypeVar("R")

AVAILABLE = greenlet is not None and hasattr(select, "epoll")
"""Whether there are fibers: they need greenlet and Linux's epoll."""

_THREADS = 32
_GLANCE = 1.0
"""Seconds between looks for those who have waited too long."""
_EVENTS = 256
_LATE = "nothing was sent or came for too long"


class Loop:
    """The fibers of one thread. Only that thread may use it."""

    def __init__(self) -> None:
        self._main = getcurrent()
        self._epoll = select.epoll()
        self._waiting: dict[int, tuple[greenlet, float]] = {}
        self._asleep: list[tuple[float, int, greenlet]] = []
        self._order = itertools.count()
        self._awake: deque[greenlet] = deque()
        self._watched: weakref.WeakSet[socket.socket] = weakref.WeakSet()
        self._bell = -1
        self._threads: ThreadPoolExecutor | None = None
        self._glance = time.monotonic() + _GLANCE
        self.running = 0
        """Fibers that have begun and not ended."""

    @property
    def is_usable(self) -> bool:
        """Whether the caller is where fibers may be started."""
        return getcurrent() is self._main

    def start(self, function: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> None:
        """Run a function, which must not raise, in a fiber of its own until it waits for the first time."""

        def run() -> None:
            try:
                function(*args, **kwargs)
            finally:
                self.running -= 1

        self.running += 1
        greenlet(run, self._main).switch()

    def turn(self) -> None:
        """Wait until a fiber can go on, and run all that can until they wait again."""
        if not self._awake:
            self._look(self._patience())
        while self._awake:
            self._awake.popleft().switch()
        now = time.monotonic()
        while self._asleep and self._asleep[0][0] <= now:
            self._resume(heapq.heappop(self._asleep)[2])
        if now >= self._glance:
            self._give_up(now)

    # what the functions of this module do

    def wait(self, sock: socket.socket, timeout: float | None) -> None:
        """Let others go on until something happens on a socket."""
        if sock not in self._watched:
            self._watch(sock)
        me, number = getcurrent(), sock.fileno()
        self._waiting[number] = (me, time.monotonic() + timeout if timeout is not None else float("inf"))
        try:
            self._let_others(lambda: number not in self._waiting)
        finally:
            self._waiting.pop(number, None)

    def sleep(self, seconds: float) -> None:
        """Let others go on for so long."""
        me, done = getcurrent(), time.monotonic() + seconds
        heapq.heappush(self._asleep, (done, next(self._order), me))
        self._let_others(lambda: time.monotonic() >= done)

    def in_thread(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Let others go on while a thread does the work."""
        if self._threads is None:
            self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="shiftable-fibers")
            self._bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
            weakref.finalize(self, os.close, self._bell)
            self._epoll.register(self._bell, select.EPOLLIN | select.EPOLLET)
        me = getcurrent()

        def ring(_: Future[R]) -> None:
            self._awake.append(me)
            os.eventfd_write(self._bell, 1)

        future = self._threads.submit(function, *args, **kwargs)
        future.add_done_callback(ring)
        self._let_others(future.done)
        return future.result()

    def _let_others(self, over: Callable[[], bool]) -> None:
        """Go on when the loop says so; the thread itself, when it is over."""
        if getcurrent() is not self._main:
            self._main.switch()
            return
        while not over():
            self.turn()

    def _watch(self, sock: socket.socket) -> None:
        # Told once for each change: a socket stays registered, and no call is made for a wait.
        events = select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLET
        try:
            self._epoll.register(sock, events)
        except FileExistsError:
            self._epoll.modify(sock, events)
        self._watched.add(sock)

    def _look(self, timeout: float) -> None:
        for number, _ in self._epoll.poll(timeout, _EVENTS):
            found = self._waiting.pop(number, None)
            if found is not None:
                self._awake.append(found[0])

    def _patience(self) -> float:
        until = min(self._glance, self._asleep[0][0]) if self._asleep else self._glance
        return max(0.0, until - time.monotonic())

    def _give_up(self, now: float) -> None:
        self._glance = now + _GLANCE
        late = [number for number, (_, until) in self._waiting.items() if until <= now]
        for number in late:
            who, _ = self._waiting.pop(number, (None, 0.0))
            if who is self._main:
                raise TimeoutError(_LATE)
            if who is not None:
                who.throw(TimeoutError(_LATE))

    def _resume(self, who: greenlet) -> None:
        if who is not self._main:
            who.switch()


class _Here(threading.local):
    loop: Loop | None = None


_here = _Here()


_parents: list[Loop] = []


def _forget() -> None:
    """In the child of a fork, what is under way is the parent's; nothing of it is ended here, so it is kept."""
    if _here.loop is not None:
        _parents.append(_here.loop)
        _here.loop = None


if AVAILABLE:
    os.register_at_fork(after_in_child=_forget)


def loop() -> Loop | None:
    """Return the thread's loop if the caller may start fibers in it, a new one if need be; ``None`` if it may not."""
    if not AVAILABLE:
        return None
    if _here.loop is None:
        _here.loop = Loop()
    return _here.loop if _here.loop.is_usable else None


def active() -> Loop | None:
    """Return the thread's loop if some of its fibers are under way: then waiting goes through it."""
    found = _here.loop
    return found if found is not None and found.running else None


def wait(sock: socket.socket, *, timeout: float | None, writing: bool = False) -> None:
    """Wait until a socket may have something to read, or to write; now and then it has not.

    Raises:
        TimeoutError: so many seconds have passed, or up to one more.
    """
    here = active()
    if here is not None:
        here.wait(sock, timeout)
        return
    poll = select.poll()
    poll.register(sock, select.POLLOUT if writing else select.POLLIN)
    if not poll.poll(None if timeout is None else timeout * 1000):
        raise TimeoutError(_LATE)


def sleep(seconds: float) -> None:
    """Wait so many seconds."""
    here = active()
    if here is not None:
        here.sleep(seconds)
    else:
        time.sleep(seconds)


def in_thread(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Return what the function returns. Called in a fiber, a thread runs it; else the caller does."""
    here = active()
    return function(*args, **kwargs) if here is None else here.in_thread(function, *args, **kwargs)

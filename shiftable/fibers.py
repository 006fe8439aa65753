"""Many calls at once in one thread: each in a fiber, which lets the others go on while it waits.

Threads that each do little and wait much fight for the interpreter's lock: with 32 of them an object of 4 KiB costs
three times the CPU that it costs one thread. A fiber runs until it waits for a socket, sleeps or has work done in a
thread, all of them through the functions here; then the thread's loop runs the next that can go on. Everything else, a
file or a lock, holds up all fibers of the thread, so what takes long belongs into ``in_thread``.

Whoever calls these functions outside a fiber waits as usual, and what the thread has under way goes on meanwhile.
"""

from __future__ import annotations

import os
import select
import socket
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, TypeVar, cast

try:
    from greenlet import getcurrent, greenlet
except ImportError:  # then everything runs in threads
    getcurrent = greenlet = None  # type: ignore[assignment, misc]

__all__ = ["AVAILABLE", "Fiber", "Loop", "active", "in_thread", "loop", "sleep", "wait"]

P = ParamSpec("P")
R = TypeVar("R")

AVAILABLE = greenlet is not None and hasattr(select, "epoll")
"""Whether there are fibers: they need greenlet and Linux's epoll."""

_THREADS = 1024
"""More than are ever wanted at once: work that waits for work behind it would wait for ever."""
_GLANCE = 1.0
"""Seconds between looks for those who have waited too long."""
_EVENTS = 256
_LATE = "nothing was sent or came for too long"


class Fiber:
    """One function under way in a loop.

    What runs it has run others before and will run more: a greenlet costs more than many a small call.
    """

    __slots__ = ("_ended", "_function", "_server")

    def __init__(self, server: greenlet, function: Callable[[], object]) -> None:
        self._server = server
        self._function = function
        self._ended = False

    @property
    def dead(self) -> bool:
        """Whether it has ended, or an interrupt has ended what ran it."""
        return self._ended or self._server.dead

    def run(self) -> None:
        """Call the function, once."""
        self._function()
        self._ended = True
        del self._function  # and what it was called with, which may be large

    def end(self) -> None:
        """End the function where it waits, unless it has ended, so that it cleans up; it may wait no more for that."""
        if not self.dead:
            self._server.throw()


class Loop:
    """The fibers of one thread. Only that thread may use it.

    An interrupt may come between any two steps here. So nothing is forgotten before it is done, a fiber that is woken
    looks whether what it waits for is there, and after a turn that did not come to its end all are woken.
    """

    def __init__(self) -> None:
        self._main = getcurrent()
        self._epoll = select.epoll()
        self._waiting: dict[int, tuple[greenlet, float]] = {}
        self._asleep: dict[greenlet, float] = {}
        self._awake: deque[greenlet] = deque()
        self._idle: list[greenlet] = []
        self._watched: weakref.WeakSet[socket.socket] = weakref.WeakSet()
        self._bell = -1
        self._threads: ThreadPoolExecutor | None = None
        self._glance = time.monotonic() + _GLANCE
        self._unfinished = False
        self._called = False
        self.running = 0
        """Fibers that have begun and not ended."""

    @property
    def is_usable(self) -> bool:
        """Whether the caller is where fibers may be started."""
        return getcurrent() is self._main

    def start(self, function: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> Fiber:
        """Run a function, which must not raise, in a fiber of its own until it waits for the first time; return it."""
        server = self._idle.pop() if self._idle else None
        if server is None or server.dead:  # an interrupt came while it had nothing to do
            server = greenlet(self._serve, self._main)
        fiber = Fiber(server, partial(function, *args, **kwargs))
        self.running += 1
        server.switch(fiber)
        return fiber

    def rest(self) -> None:
        """Let go of what has served fibers and waits for more."""
        while self._idle:
            self._idle.pop().throw()

    def turn(self) -> None:
        """Wait until a fiber can go on, and run all that can until they wait again."""
        if self._unfinished:
            self._awake.extend(who for who, _ in (*self._waiting.values(), *self._asleep.items()))
        self._unfinished = True
        if not self._awake:
            self._look()
        while self._awake:
            self._resume(self._awake[0])
            self._awake.popleft()
        now = time.monotonic()
        for who in sorted((who for who, until in self._asleep.items() if until <= now), key=self._asleep.__getitem__):
            self._resume(who)
        if now >= self._glance:
            self._give_up(now)
        self._unfinished = False

    # what the functions of this module do

    def wait(self, sock: socket.socket, timeout: float | None) -> None:
        """Let others go on until something may have happened on a socket."""
        if sock not in self._watched:
            self._watch(sock)
        number, until = sock.fileno(), float("inf") if timeout is None else time.monotonic() + timeout
        self._waiting[number] = getcurrent(), until
        try:
            self._let_others()
        finally:
            self._waiting.pop(number, None)

    def sleep(self, seconds: float) -> None:
        """Let others go on for so long."""
        me, until = getcurrent(), time.monotonic() + seconds
        self._asleep[me] = until
        try:
            while time.monotonic() < until:
                self._let_others()
        finally:
            self._asleep.pop(me, None)

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
        while not future.done():
            self._let_others()
        return future.result()

    def _serve(self, fiber: Fiber) -> None:
        """Run fibers, one after the other, until nobody hands one over any more."""
        while True:
            try:
                fiber.run()
            finally:
                self.running -= 1
            del fiber
            self._idle.append(getcurrent())
            fiber = self._handed()

    def _handed(self) -> Fiber:
        """Wait for a fiber to run."""
        while not (found := self._main.switch()):
            pass  # woken for nothing: what a thread did was there before the thread said so
        return cast("Fiber", found)

    def _let_others(self) -> None:
        """Come back when the loop says so, or for no reason."""
        if getcurrent() is not self._main:
            self._main.switch()
            return
        self._called = False
        while not self._called:
            self.turn()

    def _resume(self, who: greenlet) -> None:
        if who is self._main:
            self._called = True
        else:
            who.switch()

    def _watch(self, sock: socket.socket) -> None:
        # Told once for each change: a socket stays registered, and no call is made for a wait.
        events = select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLET
        try:
            self._epoll.register(sock, events)
        except FileExistsError:
            self._epoll.modify(sock, events)
        self._watched.add(sock)

    def _look(self) -> None:
        until = min((self._glance, *self._asleep.values()))
        for number, _ in self._epoll.poll(max(0.0, until - time.monotonic()), _EVENTS):
            found = self._waiting.get(number)
            if found is not None:
                self._awake.append(found[0])

    def _give_up(self, now: float) -> None:
        self._glance = now + _GLANCE
        for who in [who for who, until in self._waiting.values() if until <= now]:
            if who is self._main:
                raise TimeoutError(_LATE)
            who.throw(TimeoutError(_LATE))


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

"""Fibers: many calls at once in one thread."""

from __future__ import annotations

import gc
import os
import signal
import socket
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from shiftable import fibers, parallel
from shiftable.files import save

greenlet = pytest.importorskip("greenlet", reason="fibers need greenlet")
pytestmark = pytest.mark.skipif(
    not fibers.AVAILABLE, reason="fibers need greenlet and Linux; threads are tested elsewhere"
)


@pytest.fixture
def pair() -> Iterator[Callable[[], tuple[socket.socket, socket.socket]]]:
    """Make connected sockets, closed at the end."""
    with ExitStack() as stack:

        def make() -> tuple[socket.socket, socket.socket]:
            here, there = socket.socketpair()
            stack.enter_context(here)
            stack.enter_context(there)
            return here, there

        yield make


def received(sock: socket.socket, timeout: float | None = None) -> bytes:
    while True:
        try:
            return sock.recv(100, socket.MSG_DONTWAIT)
        except BlockingIOError:
            fibers.wait(sock, timeout=timeout)


def everything(lane: Any, items: Any) -> list[tuple[Any, Any]]:
    found = []
    with lane:
        for item in items:
            found += [(item, future.result()) for item, future in lane.put(item)]
        found += [(item, future.result()) for item, future in lane.finish()]
    return found


def lane(function: Callable[[Any], Any], workers: int = 4) -> Any:
    made: Any = parallel.lane(function, workers=workers, fibers=True)
    assert isinstance(made, parallel.Fibers)
    return made


def test_all_items_run_in_the_thread_that_feeds_them() -> None:
    found = everything(lane(lambda item: (item * 2, threading.get_ident())), range(100))

    assert found == [(item, (item * 2, threading.get_ident())) for item in range(100)]


def test_what_waits_for_a_socket_lets_others_go_on_and_ends_in_its_own_time(pair: Any) -> None:
    pairs = [pair() for _ in range(3)]
    order: list[int] = []

    def run(number: int) -> bytes:
        # Each is answered by the one behind it, so the last, which waits for nobody, has to run before the others end.
        answer = received(pairs[number][0]) if number < 2 else b"!"
        order.append(number)
        if number:
            pairs[number - 1][1].sendall(answer + b"!")
        return answer

    assert sorted(everything(lane(run), range(3))) == [(0, b"!!!"), (1, b"!!"), (2, b"!")]
    assert order == [2, 1, 0]


def test_never_more_than_the_width_run_at_once() -> None:
    running = most = 0

    def run(_: int) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        fibers.sleep(0.001)
        running -= 1

    assert len(everything(lane(run, workers=3), range(30))) == 30
    assert (running, most) == (0, 3)


def test_a_width_that_shrinks_holds_back_new_items_only() -> None:
    width = [4]
    running: list[int] = []
    seen: list[int] = []

    def run(item: int) -> None:
        running.append(item)
        seen.append(len(running))
        if item == 3:
            width[0] = 1
        fibers.sleep(0.001)
        running.remove(item)

    made = parallel.lane(run, workers=4, width=lambda: width[0], fibers=True)
    assert len(everything(made, range(10))) == 10
    assert seen == [1, 2, 3, 4, 1, 1, 1, 1, 1, 1]


def test_work_in_threads_lets_others_go_on() -> None:
    gate = threading.Event()

    def run(number: int) -> int:
        if number == 0:
            assert fibers.in_thread(gate.wait, 30)
            return fibers.in_thread(threading.get_ident)
        gate.set()
        return 0

    assert dict(everything(lane(run), range(2)))[0] not in {0, threading.get_ident()}


def test_what_a_thread_raises_is_raised_in_the_fiber() -> None:
    def run(_: int) -> str:
        try:
            fibers.in_thread(int, "no number")
        except ValueError as exc:
            return str(exc)
        return "nothing"

    assert everything(lane(run), [1]) == [(1, "invalid literal for int() with base 10: 'no number'")]


def test_the_feeder_waits_and_what_it_has_under_way_goes_on(pair: Any) -> None:
    (here, there), (left, right) = pair(), pair()
    made = lane(lambda _: right.sendall(received(here)))
    with made:
        list(made.put(1))
        threading.Timer(0.05, there.sendall, (b"x",)).start()

        assert received(left) == b"x"  # outside every fiber; only the one that is under way sends it

        assert [future.result() for _, future in made.finish()] == [None]


def test_what_never_comes_is_a_timeout_of_that_fiber_alone(pair: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fibers, "_GLANCE", 0.01)
    here, _there = pair()

    def run(number: int) -> str:
        try:
            return received(here, timeout=0.02).decode() if number else "fine"
        except TimeoutError as exc:
            return str(exc)

    assert everything(lane(run), range(2)) == [(0, "fine"), (1, "nothing was sent or came for too long")]


def test_without_fibers_waiting_has_the_same_limit(pair: Any) -> None:
    here, there = pair()

    with pytest.raises(TimeoutError):
        fibers.wait(here, timeout=0.01)
    there.sendall(b"now")
    fibers.wait(here, timeout=5)
    fibers.wait(here, timeout=5, writing=True)

    assert here.recv(10) == b"now"


def test_an_error_of_an_item_is_its_own(pair: Any) -> None:
    def run(number: int) -> int:
        fibers.sleep(0.001)
        return 1 // number

    found = dict(parallel.parallel(run, range(3), workers=3, fibers=True))

    assert {item: type(future.exception()) for item, future in found.items()} == {
        0: ZeroDivisionError,
        1: type(None),
        2: type(None),
    }
    assert found[2].result() == 0
    with pytest.raises(ZeroDivisionError):
        found[0].result()


def test_leaving_early_lets_what_runs_come_to_its_end() -> None:
    ended: list[int] = []

    def run(number: int) -> None:
        fibers.sleep(0.01)
        ended.append(number)

    def leave() -> None:
        with lane(run) as made:
            list(made.put(1))
            raise LookupError

    with pytest.raises(LookupError):
        leave()
    assert ended == [1]
    assert fibers.active() is None


@pytest.mark.parametrize("when", ["at once", "while it waits for the rest"])
def test_an_interrupt_does_not_wait_and_what_runs_cleans_up(pair: Any, tmp_path: Path, when: str) -> None:
    loop, found = fibers.loop(), []
    here = [pair()[0] for _ in range(3)]

    def saved(number: int) -> None:
        save(iter(lambda: received(here[number]), b""), tmp_path / str(number))

    def interrupted() -> None:
        with lane(saved) as made:
            for number in range(3):
                list(made.put(number))
            found.extend(tmp_path.iterdir())
            if when == "at once":
                raise KeyboardInterrupt
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            raise LookupError

    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            interrupted()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert loop is not None
    assert (3, [], 0, None) == (len(found), list(tmp_path.iterdir()), loop.running, fibers.active())
    assert [(1, 1)] == everything(lane(abs), [1])


def test_what_waits_again_while_it_is_ended_is_left(pair: Any) -> None:
    here, there = pair()

    def stubborn(_: int) -> bytes:
        with suppress(greenlet.GreenletExit):
            received(here)
        return received(here)

    made = lane(stubborn)

    def interrupted() -> None:
        with made:
            list(made.put(1))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    there.sendall(b"x")
    assert [future.result() for _, future in made.finish()] == [b"x"]


def test_a_lane_within_a_fiber_has_threads() -> None:
    def run(_: int) -> tuple[str, list[int]]:
        made: Any = parallel.lane(abs, workers=2, fibers=True)
        return type(made).__name__, [future.result() for _, future in parallel.parallel(abs, [-1], workers=1)]

    assert everything(lane(run), [1]) == [(1, ("Threads", [1]))]


def test_threads_do_not_share_their_fibers() -> None:
    mine = fibers.loop()
    others: list[Any] = []
    thread = threading.Thread(target=lambda: others.append(fibers.loop()))
    thread.start()
    thread.join()

    assert others[0] is not None
    assert others[0] is not mine
    assert fibers.loop() is mine


def test_a_forked_child_has_fibers_of_its_own(pair: Any) -> None:
    here, there = pair()

    def slowly(item: int) -> int:
        fibers.sleep(0.001)
        return item

    made = lane(lambda _: received(here))
    list(made.put(1))
    child = os.fork()
    if not child:
        # Its parent's fiber is not run here, nor ended; and its own work.
        fine = fibers.active() is None and everything(lane(slowly), [7]) == [(7, 7)]
        os._exit(0 if fine else 1)

    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    there.sendall(b"parent")
    assert [future.result() for _, future in made.finish()] == [b"parent"]


def test_a_socket_whose_number_was_used_before_is_watched_anew(pair: Any) -> None:
    def run(_: int) -> bytes:
        here, there = socket.socketpair()
        with here, there:
            threading.Timer(0.01, there.sendall, (b"x",)).start()
            return received(here)

    assert everything(lane(run, workers=1), range(3)) == [(number, b"x") for number in range(3)]


def test_nobody_wakes_too_early_and_all_sleep_at_once() -> None:
    asleep = most = 0

    def run(seconds: float) -> float:
        nonlocal asleep, most
        asleep += 1
        most = max(most, asleep)
        began = time.monotonic()
        fibers.sleep(seconds)
        asleep -= 1
        return time.monotonic() - began

    found = everything(lane(run, workers=10), [0.2] * 9 + [0.01] * 2)

    assert all(slept >= wanted for wanted, slept in found)
    assert most == 10


def test_an_interrupt_anywhere_in_a_turn_forgets_nobody(pair: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever was told only once is looked at again."""
    (here, there), gate = pair(), threading.Event()

    def run(number: int) -> Any:
        if number == 0:
            return received(here)
        if number == 1:
            return fibers.in_thread(gate.wait, 30)
        return fibers.sleep(0.01)

    made = lane(run)
    for number in range(3):
        list(made.put(number))
    there.sendall(b"x")
    gate.set()
    for place in ("_look", "_resume"):
        original = getattr(fibers.Loop, place)

        def interrupted(*args: Any, original: Any = original) -> None:
            original(*args)
            raise KeyboardInterrupt

        monkeypatch.setattr(fibers.Loop, place, interrupted)
        with pytest.raises(KeyboardInterrupt):
            list(made.finish())
        monkeypatch.undo()

    assert {item: future.result() for item, future in made.finish()} == {0: b"x", 1: True, 2: None}


def test_what_runs_one_item_runs_the_next() -> None:
    seen: set[Any] = set()

    def run(_: int) -> None:
        seen.add(greenlet.getcurrent())
        fibers.sleep(0.0001)

    assert len(everything(lane(run), range(40))) == 40
    assert len(seen) == 4


def test_what_has_nothing_to_do_keeps_no_item() -> None:
    class Item:
        pass

    kept: list[Any] = []
    with lane(lambda item: kept.append(weakref.ref(item))) as made:
        for _ in range(3):
            list(made.put(Item()))
        gc.collect()
        assert [each() for each in kept] == [None] * 3


def test_what_ran_items_ends_with_the_lane() -> None:
    seen: list[Any] = []
    everything(lane(lambda _: seen.append(greenlet.getcurrent())), range(3))

    assert [server.dead for server in seen] == [True] * 3


@pytest.mark.parametrize("killed", [False, True])
def test_who_has_nothing_to_do_may_be_woken_or_die(*, killed: bool) -> None:
    """A late word of a thread wakes it, and an interrupt may come just then."""
    servers: list[Any] = []

    def run(number: int) -> int:
        servers.append(greenlet.getcurrent())
        return number

    with lane(run) as made:
        found = list(made.put(1))
        if killed:
            servers[0].throw()
        else:
            servers[0].switch()
        found += list(made.put(2))
        found += list(made.finish())

    assert [(item, future.result()) for item, future in found] == [(1, 1), (2, 2)]
    assert (servers[0] is servers[1]) is not killed
    assert fibers.active() is None


def test_what_an_interrupt_tears_out_of_its_work_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before it could say that it has ended."""

    def torn(_: fibers.Fiber) -> None:
        raise KeyboardInterrupt

    made = lane(abs)
    monkeypatch.setattr(fibers.Fiber, "run", torn)
    with pytest.raises(KeyboardInterrupt), made:
        list(made.put(1))

    assert list(made.finish()) == []
    assert fibers.active() is None


def test_a_fiber_is_as_dead_as_what_runs_it() -> None:
    server = greenlet.greenlet(lambda: None)
    fiber = fibers.Fiber(server, lambda: None)

    assert not fiber.dead
    server.throw()
    assert fiber.dead


def test_work_in_threads_never_waits_for_work_behind_it() -> None:
    gate = threading.Event()

    def run(number: int) -> bool:
        return bool(fibers.in_thread(gate.wait, 30) if number < 100 else fibers.in_thread(gate.set) is None)

    assert [passed for _, passed in everything(lane(run, workers=101), range(101))] == [True] * 101


def test_what_the_system_told_of_when_an_interrupt_came_is_looked_at_again(
    pair: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = pair()
    made, loop = lane(lambda _: received(here, timeout=1)), fibers.loop()
    assert loop is not None
    list(made.put(1))
    told = loop._epoll

    class Interrupted:
        """Tells each change once, as epoll does, and to nobody."""

        def poll(self, *args: Any) -> None:
            told.poll(*args)
            raise KeyboardInterrupt

    there.sendall(b"x")
    monkeypatch.setattr(loop, "_epoll", Interrupted())
    done: list[Any] = []
    with pytest.raises(KeyboardInterrupt):
        done += made.finish()
    with suppress(KeyboardInterrupt):  # what was told first may have been only that one can write
        done += made.finish()
    monkeypatch.undo()
    done += made.finish()

    assert [future.result() for _, future in done] == [b"x"]

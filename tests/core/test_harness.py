"""The doubles' harness: faults as a client sees them, the log, the clock, violations, and nothing left behind."""

from __future__ import annotations

import http.client
import socket
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import pytest
from werkzeug.wrappers import Request as WsgiRequest
from werkzeug.wrappers import Response as WsgiResponse

from shiftable.errors import ConfigError
from shiftable.testing.harness import Call, Double, Request, Response


class EchoDouble(Double):
    """Answers with what it got; counts what it executed."""

    name = "echo"

    def __init__(self, **options: Any) -> None:
        super().__init__(self.app, **options)
        self.executed: list[bytes] = []

    def app(self, environ: Any, start_response: Any) -> Iterable[bytes]:
        request = WsgiRequest(environ)
        if request.path == "/bug":
            raise KeyError("a bug of the double")
        body = request.get_data()
        self.executed.append(body)
        return WsgiResponse(body or b"0123456789", headers={"X-Method": request.method})(environ, start_response)

    def identify(self, request: Request) -> tuple[str, str]:
        return "echo", request.method.title()

    def forget(self) -> None:
        self.executed.clear()


def called_slowly(double: Double) -> Future[Any]:
    """Call in a thread of its own; return when the double has taken the call, which waits there."""
    injection = double.inject("latency", seconds=600)
    pool = ThreadPoolExecutor()
    slow = pool.submit(call, double)
    pool.shutdown(wait=False)
    while not injection.hits:
        time.sleep(0.001)
    return slow


@pytest.fixture
def double() -> Iterator[EchoDouble]:
    with EchoDouble() as running:
        yield running


def call(
    double: Double, method: str = "GET", path: str = "/", body: Any = None, **headers: str
) -> tuple[int, bytes, dict[str, str]]:
    connection = http.client.HTTPConnection(urlsplit(double.url).netloc, timeout=10)
    try:
        connection.request(method, path, body=body, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read(), {name.lower(): value for name, value in answer.getheaders()}
    finally:
        connection.close()


def test_a_request_without_faults_is_executed_and_answered(double: EchoDouble) -> None:
    status, body, headers = call(double, "PUT", "/a", b"content")

    assert (status, body, headers["x-method"]) == (200, b"content", "PUT")


def test_one_connection_carries_many_requests(double: EchoDouble) -> None:
    connection = http.client.HTTPConnection(urlsplit(double.url).netloc, timeout=10)
    sockets = []
    for number in range(3):
        connection.request("POST", "/", body=str(number).encode())
        assert connection.getresponse().read() == str(number).encode()
        sockets.append(connection.sock)
    connection.close()

    assert len(set(sockets)) == 1
    assert sockets[0] is not None


def test_a_chunked_body_arrives_whole(double: EchoDouble) -> None:
    _, body, _ = call(double, "PUT", "/", iter([b"one,", b"two,", b"three"]))

    assert body == b"one,two,three"


def test_a_client_that_waits_for_permission_to_send_gets_it(double: EchoDouble) -> None:
    with socket.create_connection(("127.0.0.1", urlsplit(double.url).port or 0), timeout=10) as client:
        client.sendall(b"PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n")
        assert client.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(b"body")
        client.shutdown(socket.SHUT_WR)
        answer = b"".join(iter(lambda: client.recv(1000), b""))

    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert answer.endswith(b"\r\n\r\nbody")


def test_head_answers_the_length_and_no_body(double: EchoDouble) -> None:
    status, body, headers = call(double, "HEAD")

    assert (status, body, headers["content-length"]) == (200, b"", "10")


def test_the_log_tells_what_was_called_and_how_it_ended(double: EchoDouble) -> None:
    call(double, "PUT", "/a%20b?x=1", b"content")

    host = urlsplit(double.url).netloc
    expected = Call(method="PUT", host=host, path="/a b", query="x=1", status=200, service="echo", operation="Put")
    assert double.calls == (expected,)


def test_the_log_keeps_neither_bodies_nor_credentials(double: EchoDouble) -> None:
    query = "X-Amz-Signature=CANARY1&sig=CANARY2&X-Amz-Credential=CANARY3&access_token=CANARY4&page=2"
    call(double, "PUT", f"/?{query}", b"CANARY5", authorization="CANARY6")

    assert "CANARY" not in repr(double.calls)
    assert double.calls[0].query.endswith("page=2")


def test_latency_waits_and_then_executes(double: EchoDouble) -> None:
    injection = double.inject("latency", seconds=0.01)

    assert call(double)[1] == b"0123456789"
    assert (injection.hits, double.calls[0].fault, len(double.executed)) == (1, "latency", 1)


def test_what_still_waits_when_the_double_is_emptied_is_never_executed(double: EchoDouble) -> None:
    slow = called_slowly(double)
    double.reset()

    assert isinstance(slow.exception(), ConnectionError)
    assert (double.executed, double.calls) == ([], ())
    assert call(double)[1] == b"0123456789"


def test_a_status_is_answered_without_executing(double: EchoDouble) -> None:
    double.inject("status", status=429, headers=[("Retry-After", "7")], body=b"slow down")

    status, body, headers = call(double)

    assert (status, body, headers["retry-after"]) == (429, b"slow down", "7")
    assert (double.executed, double.calls[0].status) == ([], 429)


def test_drop_before_resets_the_connection_and_executes_nothing(double: EchoDouble) -> None:
    double.inject("drop_before")

    with pytest.raises(ConnectionResetError):
        call(double, "PUT", "/", b"content")

    assert (double.executed, double.calls[0].status) == ([], None)


def test_drop_after_executes_and_the_client_never_hears(double: EchoDouble) -> None:
    double.inject("drop_after")

    with pytest.raises(ConnectionResetError):
        call(double, "PUT", "/", b"content")

    assert (double.executed, double.calls[0].status) == ([b"content"], 200)


def test_truncate_announces_everything_and_sends_half(double: EchoDouble) -> None:
    double.inject("truncate")

    with pytest.raises(http.client.IncompleteRead) as caught:
        call(double)

    assert (caught.value.partial, caught.value.expected) == (b"01234", 5)


def test_truncating_an_answer_without_a_body_resets_the_connection(double: EchoDouble) -> None:
    double.inject("truncate")

    with pytest.raises(ConnectionResetError):
        call(double, "HEAD")


def test_a_fault_meets_only_the_calls_that_match_and_only_so_often(double: EchoDouble) -> None:
    injection = double.inject("status", status=500, times=2, match=lambda made: made.method == "PUT")

    statuses = [call(double, method)[0] for method in ("PUT", "GET", "PUT", "PUT")]

    assert statuses == [500, 200, 500, 200]
    assert injection.hits == 2


def test_a_fault_without_a_number_of_times_stays(double: EchoDouble) -> None:
    double.inject("status", status=503, times=None)

    assert [call(double)[0] for _ in range(5)] == [503] * 5


def test_who_decides_which_call_a_fault_meets_may_look_at_those_before(double: EchoDouble) -> None:
    double.inject("status", status=500, times=None, match=lambda _: len(double.calls) > 1)

    assert [call(double)[0] for _ in range(4)] == [200, 200, 500, 500]


def test_faults_are_taken_in_the_order_in_which_they_were_injected(double: EchoDouble) -> None:
    double.inject("status", status=500)
    double.inject("status", status=503)

    assert [call(double)[0] for _ in range(3)] == [500, 503, 200]


def test_many_clients_at_once_are_all_answered_and_logged(double: EchoDouble) -> None:
    answers: list[bytes] = []
    threads = [
        threading.Thread(target=lambda n=n: answers.append(call(double, "PUT", "/", b"%d" % n)[1])) for n in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(answers) == sorted(b"%d" % n for n in range(20))
    assert len(double.calls) == 20


def test_the_clock_goes_forward_when_told_and_back_at_reset(double: EchoDouble) -> None:
    before = datetime.now(UTC)
    double.clock.advance(timedelta(days=8))
    double.clock.advance(3600)
    ahead = double.clock.now()
    double.reset()

    assert timedelta(days=8, hours=1) <= ahead - before < timedelta(days=8, hours=2)
    assert double.clock.now() - before < timedelta(hours=1)


def test_reset_forgets_resources_calls_faults_and_violations(double: EchoDouble) -> None:
    call(double, "PUT", "/", b"x")
    double.inject("status", status=500)
    double.violations.append("something")

    double.reset()

    assert (double.executed, double.calls, double.violations) == ([], (), [])
    assert call(double)[0] == 200


def says_that_puts_are_bad(request: Request, response: Response) -> Iterable[str]:
    if request.method == "PUT":
        yield f"a PUT of {len(request.body)} bytes, answered {response.code}"


def put_where_puts_are_bad(error: Exception | None = None) -> None:
    with EchoDouble(validators=[says_that_puts_are_bad]) as double:
        call(double, "GET", "/a")
        call(double, "PUT", "/a", b"abc")
        if error:
            raise error


def test_a_violation_fails_at_the_end_of_the_block() -> None:
    with pytest.raises(AssertionError, match="the echo double saw violations:\nPUT /a: a PUT of 3 bytes, answered 200"):
        put_where_puts_are_bad()


def test_a_violation_does_not_hide_the_error_that_ends_the_block() -> None:
    with pytest.raises(LookupError):
        put_where_puts_are_bad(LookupError())


def test_a_bug_of_the_double_is_a_violation_and_not_a_hanging_client(double: EchoDouble) -> None:
    status, _, _ = call(double, path="/bug")

    assert status == 500
    assert double.violations == ["GET /bug: the double itself failed: KeyError: 'a bug of the double'"]
    double.violations.clear()


def test_a_double_that_does_not_run_says_so() -> None:
    with pytest.raises(ConfigError, match="does not run"):
        _ = EchoDouble().url


def test_a_double_is_not_started_twice(double: EchoDouble) -> None:
    with pytest.raises(ConfigError, match="runs already"):
        double.start()


def test_closing_leaves_no_thread_even_with_an_idle_client_and_a_slow_answer() -> None:
    before = set(threading.enumerate())
    with EchoDouble() as double:
        idle = http.client.HTTPConnection(urlsplit(double.url).netloc, timeout=10)
        idle.request("GET", "/")
        idle.getresponse().read()
        slow = called_slowly(double)
    assert isinstance(slow.exception(), ConnectionError)
    idle.close()

    assert set(threading.enumerate()) == before


def test_a_closed_port_is_refused() -> None:
    with EchoDouble() as double:
        address = urlsplit(double.url)
    double.close()

    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", address.port or 0), timeout=10)


def test_a_double_can_run_again_after_it_was_closed() -> None:
    double = EchoDouble()
    for _ in range(2):
        with double:
            assert call(double)[0] == 200

"""The bulk lane's connections under requests: the same answers and errors as requests' own adapter gives."""

from __future__ import annotations

import gc
import gzip
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

requests = pytest.importorskip("requests", reason="it comes with the SDKs of Google and Azure")

from requests.adapters import HTTPAdapter  # noqa: E402
from urllib3 import Timeout  # noqa: E402
from urllib3.exceptions import ProtocolError, ReadTimeoutError  # noqa: E402

from shiftable import fibers  # noqa: E402
from shiftable.http import Connections, Transport, Unreachable  # noqa: E402
from shiftable.http_adapter import BulkAdapter, BulkSession, _head, prepare  # noqa: E402
from shiftable.parallel import parallel  # noqa: E402

from ..scripted import Server  # noqa: E402

EMPTY = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
Serve = Callable[..., "Server"]


@pytest.fixture
def serve() -> Iterator[Serve]:
    servers: list[Server] = []

    def start(*answers: bytes, close: bool = False) -> Server:
        servers.append(Server(*answers, close=close))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


@pytest.fixture
def bulk() -> Iterator[Any]:
    with BulkSession() as session:
        prepare(session, "http://127.0.0.1")
        yield session


@pytest.fixture
def plain() -> Iterator[Any]:
    with requests.Session() as session:
        session.trust_env = False
        yield session


ANSWERS = {
    "headers": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-Ms-Up: A  b\r\nSet-Cookie: a\r\nSet-Cookie: b\r\n\r\nhello",
    "an error": b"HTTP/1.1 404 Not Found\r\nContent-Type: text/x; charset=utf-8\r\nContent-Length: 2\r\n\r\n{}",
    "nothing": b"HTTP/1.1 204 No Content\r\n\r\n",
    "chunks": b"HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x\r\nde\r\n0\r\n\r\n",
    "one before": b"HTTP/1.1 100 Continue\r\n\r\n" + EMPTY,
    "no length": b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nuntil the end",
}


@pytest.mark.parametrize("name", ANSWERS)
@pytest.mark.parametrize("how", ["read at once", "streamed"])
def test_an_answer_is_the_same(serve: Serve, bulk: Any, plain: Any, name: str, how: str) -> None:
    server = serve(ANSWERS[name], close=name == "no length")
    options = {"data": b"body", "headers": {"X-A": "ü"}, "stream": how == "streamed", "timeout": 5}
    found = []
    for session in (bulk, plain):
        with session.put(f"{server.url}/a%2Fb?c=d", **options) as got:
            headers = {name: value for name, value in got.headers.items() if name != "Transfer-Encoding"}
            found.append((got.status_code, got.reason, headers, got.encoding, got.content, got.ok))
    assert found[0] == found[1]
    asked = [sorted(seen.split(b"\r\n")) for seen in server.seen]
    assert asked[0] == asked[1]


WORDS = st.text("aZ09-._~!$&'()*+,;=:@/?%2fF41 #[]\\\"<>^`{|}ü\n\r\t", max_size=12)


@given(
    method=st.sampled_from(["get", "PUT", "Post", "DELETE", "HEAD"]),
    rest=WORDS,
    data=st.none() | st.binary(max_size=3) | st.text(max_size=3),
    headers=st.none()
    | st.dictionaries(
        st.sampled_from(["X-A", "x-a", "user-agent", "Content-Length", "Accept", "b\n", "", " c", "é"]),
        st.none() | WORDS | WORDS.map(lambda text: text.encode()),
    ),
)
@example(method="GET", rest="a%41", data=None, headers=None)
@example(method="GET", rest="a/../b", data=None, headers=None)
@settings(max_examples=200, deadline=None)
def test_what_is_sent_is_what_requests_would_send(
    method: str, rest: str, data: str | bytes | None, headers: dict[str, Any] | None
) -> None:
    """Or it is left to requests."""
    session = BulkSession()
    session.trust_env = False
    url = f"http://127.0.0.1:8080/{rest}"
    found = session._prepared(method, url, data=data, headers=headers)

    if found is None:
        return
    usual = session.prepare_request(requests.Request(method, url, data=data, headers=headers))
    assert (found.method, found.url, found.body) == (usual.method, usual.url, usual.body)
    assert sorted(_head(found).split(b"\r\n")) == sorted(_head(usual).split(b"\r\n"))


@pytest.mark.parametrize(
    ("url", "headers"),
    [
        ("https://storage.googleapis.com/storage/v1/b/shop/o/a%2Fb%20c?projection=noAcl&x=%C3%BC", {"x-a": "1"}),
        ("https://127.0.0.1:1/", {"content-type": b'multipart/related; boundary="=="'}),
        ("http://account.blob.example/c/a/b?comp=block&blockid=QUJD%3D%3D", {"x-ms-meta-name": "\xfc", "x-b": None}),
    ],
)
def test_calls_of_sdks_are_spared_what_requests_does(
    bulk: Any, monkeypatch: pytest.MonkeyPatch, url: str, headers: dict[str, Any]
) -> None:
    sent: list[Any] = []
    monkeypatch.setattr(
        BulkAdapter, "send", lambda _, request, **how: sent.append((request, how)) or requests.Response()
    )
    monkeypatch.setattr(requests.Session, "prepare_request", None)

    bulk.request("PUT", url, data=b"1", headers=headers, timeout=(1, 2), allow_redirects=False, files=None, cert=None)

    ((request, how),) = sent
    assert (request.method, request.url, request.body) == ("PUT", url, b"1")
    assert how == {"stream": False, "timeout": (1, 2), "verify": True, "cert": None, "proxies": bulk.proxies}
    assert "x-b" not in request.headers


def test_what_requests_knows_more_of_is_left_to_it(serve: Serve, bulk: Any) -> None:
    server = serve(EMPTY)
    for more in ({"params": {"a": "b"}}, {"json": {}}, {"cookies": {"a": "b"}}, {"auth": ("a", "b")}):
        bulk.post(f"{server.url}/", timeout=5, **more)
    bulk.get(f"{server.url}/a/../b c", timeout=5)
    bulk.request("GET", f"{server.url}/", {"c": "d"}, timeout=5)
    bulk.hooks["response"].append(lambda answer, **_: setattr(answer, "reason", "hooked"))
    assert bulk.get(f"{server.url}/", timeout=5).reason == "hooked"
    bulk.hooks["response"].clear()

    asked = [seen.partition(b" HTTP/1.1")[0] for seen in server.seen]
    assert asked == [b"POST /?a=b", b"POST /", b"POST /", b"POST /", b"GET /b%20c", b"GET /?c=d", b"GET /"]
    assert [b"Cookie: a=b" in seen for seen in server.seen].count(True) == 1
    assert [b"Authorization: Basic" in seen for seen in server.seen].count(True) == 1
    for odd in ("b\r\nx-c: d", 1):
        with pytest.raises(requests.exceptions.InvalidHeader):
            bulk.get(f"{server.url}/", headers={"x-a": odd})


def test_redirects_are_followed_unless_they_are_asked_for(serve: Serve, bulk: Any) -> None:
    other = serve(EMPTY)
    server = serve(b"HTTP/1.1 302 Found\r\nLocation: %s/b\r\nContent-Length: 0\r\n\r\n" % other.url.encode())

    assert bulk.get(f"{server.url}/a", timeout=5).url == f"{other.url}/b"
    assert bulk.get(f"{server.url}/a", timeout=5, allow_redirects=False).status_code == 302
    assert len(other.seen) == 1


def test_what_is_compressed_comes_raw_or_unpacked_as_it_is_asked_for(serve: Serve, bulk: Any) -> None:
    packed = gzip.compress(b"text" * 100, mtime=0)
    server = serve(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n%s" % (len(packed), packed))
    assert bulk.get(server.url, timeout=5).content == b"text" * 100
    with bulk.get(server.url, stream=True, timeout=5) as answer:
        assert answer.raw.read(7, decode_content=False) + answer.raw.read(decode_content=False) == packed


def test_a_connection_is_used_again_and_a_closed_one_is_not(serve: Serve, bulk: Any) -> None:
    server = serve(EMPTY)
    for _ in range(3):
        assert bulk.get(server.url, timeout=5).status_code == 200
    assert server.connections == 1
    leaving = serve(EMPTY, close=True)
    for _ in range(3):
        bulk.get(leaving.url, timeout=5)
        assert leaving.closed.wait(5)
        leaving.closed.clear()
    assert leaving.connections == 3
    assert [len(each._open) for each in bulk.get_adapter(server.url)._servers.values()] == [
        1,
        1,
    ]  # no closed one is kept


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"", requests.ReadTimeout),
        (b"HTTP/1.1 200 OK\r\nContent-Le", requests.ReadTimeout),
        (b"nonsense\r\n\r\n", requests.ConnectionError),
        (b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", requests.ConnectionError),
    ],
)
def test_no_answer_is_an_error_of_requests(serve: Serve, bulk: Any, answer: bytes, error: type[Exception]) -> None:
    with pytest.raises(error):
        bulk.get(serve(answer).url, timeout=(5, 0.2))


@pytest.mark.parametrize(
    ("version", "header", "connections"),
    [
        ("1.1", "", 1),
        ("1.1", "Connection: Keep-Alive\r\n", 1),
        ("1.1", "Connection: Keep-Alive, Close\r\n", 2),
        ("1.1", "Connection: keep-alive\r\nConnection: close\r\n", 2),
        ("1.0", "", 2),
        ("1.0", "Connection: keep-alive\r\n", 1),
    ],
)
def test_a_server_says_whether_a_connection_is_used_again(
    serve: Serve, bulk: Any, version: str, header: str, connections: int
) -> None:
    server = serve(f"HTTP/{version} 200 OK\r\n{header}Content-Length: 0\r\n\r\n".encode())
    for _ in range(2):
        assert bulk.get(server.url, timeout=5).status_code == 200
    assert server.connections == connections


@pytest.mark.parametrize(
    ("proxy", "place"),
    [
        ("http://[::1]", ("::1", 80)),
        ("http://[::1]:3128", ("::1", 3128)),
        ("http://proxy.example", ("proxy.example", 80)),
    ],
)
def test_a_proxy_is_where_its_url_says(monkeypatch: pytest.MonkeyPatch, proxy: str, place: tuple[str, int]) -> None:
    asked: list[Any] = []

    def connect(address: Any, *_: object, **__: object) -> Any:
        asked.append(address)
        raise ConnectionRefusedError

    monkeypatch.setattr(socket, "create_connection", connect)
    transport = Transport(connect_timeout=5, read_timeout=5, proxy=proxy)
    with pytest.raises(Unreachable):
        Connections("https://storage.example", transport).request("GET", b"", b"")
    assert asked == [place]


def test_a_dropped_connection_and_one_that_cannot_be_made_are_told_apart(serve: Serve, bulk: Any) -> None:
    with pytest.raises(requests.ConnectionError, match="broke") as caught:
        bulk.get(serve(b"HTTP/1.1 2", close=True).url, timeout=5)
    assert isinstance(caught.value.args[0], ProtocolError)
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        with pytest.raises(requests.ConnectionError, match="cannot be reached"):
            bulk.get(f"http://127.0.0.1:{nobody.getsockname()[1]}", timeout=5)


@pytest.mark.parametrize(("how", "error"), [("closed", ProtocolError), ("silent", ReadTimeoutError)])
def test_a_body_that_breaks_off_is_an_error_of_urllib3(
    serve: Serve, bulk: Any, how: str, error: type[Exception]
) -> None:
    server = serve(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nab", close=how == "closed")
    with bulk.get(server.url, stream=True, timeout=(5, 0.2)) as answer, pytest.raises(error):
        list(iter(lambda: answer.raw.read(9, decode_content=False), b""))


def test_bodies_that_are_no_bytes_and_proxies_go_the_usual_way(serve: Serve, bulk: Any) -> None:
    server = serve(EMPTY)
    assert bulk.put(server.url, data=iter([b"a", b"b"]), timeout=5).status_code == 200
    assert b"ransfer-Encoding: chunked" in server.seen[0]
    proxy = serve(EMPTY)
    assert bulk.get("http://nowhere.example/x", proxies={"http": proxy.url}, timeout=5).status_code == 200
    assert proxy.seen[0].startswith(b"GET http://nowhere.example/x HTTP/1.1\r\n")


def test_who_answers_for_requests_in_a_test_is_asked(monkeypatch: pytest.MonkeyPatch, bulk: Any) -> None:
    def answered(*_args: Any, **_kwargs: Any) -> Any:
        found = requests.Response()
        found.status_code = 299
        return found

    monkeypatch.setattr(HTTPAdapter, "send", answered)

    assert bulk.get("http://nowhere.example", timeout=5).status_code == 299


@pytest.mark.skipif(not fibers.AVAILABLE, reason="fibers need greenlet and Linux; threads are tested besides")
def test_calls_in_fibers_wait_together(serve: Serve, bulk: Any) -> None:
    """Each is answered when all have come, so one thread can do it only if it waits for none of them alone."""
    everyone = threading.Barrier(8)

    class Together(Server):
        def _converse(self, client: socket.socket) -> None:
            with client, client.makefile("rb") as stream:
                for _ in iter(stream.readline, b"\r\n"):
                    pass
                everyone.wait(30)
                client.sendall(EMPTY)

    server = Together(EMPTY)
    found = parallel(lambda _: bulk.get(server.url, timeout=30).status_code, range(8), workers=8, fibers=True)
    assert [future.result() for _, future in found] == [200] * 8
    server.stop()


def test_the_environments_settings_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nowhere")
    with requests.Session() as session:
        prepare(session, "https://service.example")
        monkeypatch.delenv("HTTPS_PROXY")
        assert session.proxies["https"] == "http://127.0.0.1:9"
        with pytest.raises(requests.exceptions.ProxyError):
            session.get("https://service.example", timeout=1)
    with closing(BulkAdapter()) as adapter, pytest.raises(OSError, match="/nowhere|No such file"):
        adapter.send(requests.Request("GET", "https://127.0.0.1:9").prepare(), timeout=1)


def test_an_answer_that_nobody_closes_is_closed_when_it_is_garbage(serve: Serve, bulk: Any) -> None:
    server = serve(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nab")
    answer = bulk.get(server.url, stream=True, timeout=5)
    answer.itself = answer  # as a traceback's frames hold each other
    del answer
    gc.collect()  # a socket that is not closed would be a warning here, and so an error

    assert server.closed.wait(5)


def test_a_time_limit_of_urllib3s_own_kind_goes_the_usual_way(serve: Serve, bulk: Any) -> None:
    server = serve(EMPTY)
    assert bulk.get(server.url, timeout=Timeout(connect=5, read=5)).status_code == 200
    assert server.connections == 1


def test_connections_are_those_of_requests_unless_only_requests_can_go_there(
    monkeypatch: pytest.MonkeyPatch, serve: Serve
) -> None:
    server = serve(EMPTY)
    with BulkSession() as session:
        prepare(session, server.url)
        assert session.get(server.url, timeout=5).status_code == 200

        found = session.connections(server.url, 5)
        assert found is not None
        found.request("GET", b"GET / HTTP/1.1\r\n\r\n", b"").body.close()
        assert server.connections == 1

        session.cert = "/client.pem"
        assert session.connections(server.url, 5) is None
        session.cert = None
        session.proxies = {"http": "http://127.0.0.1:9"}
        assert session.connections(server.url, 5) is None
        session.proxies = {}
        monkeypatch.setattr(HTTPAdapter, "send", lambda *_: None)
        assert session.connections(server.url, 5) is None
    with BulkSession() as session:
        assert session.connections(server.url, 5) is None

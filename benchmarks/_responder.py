"""A fast stand-in for S3, Google Cloud Storage or Azure Blob Storage in a process of its own.

It is fast so that what a benchmark measures is the client. It needs httptools, and takes uvloop where it is installed
(15,000 requests a second and more on one core). It knows what a bulk lane and rclone ask for, checks no signature, and
answers each request after the latency that it is told. Of bodies above 1 MiB it keeps the length alone: downloads of
such objects are made up.

    with Responder(latency=0.02, fill={"there": (5_000, 4096)}) as url: ...
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal, cast

from _responder_azure import Azure
from _responder_gcs import Gcs
from _responder_objects import KEPT, Store, content
from _responder_s3 import S3

__all__ = ["Responder", "Service", "content"]

Service = Literal["s3", "gcs", "azure"]
_STORES: dict[str, Callable[[dict[str, tuple[int, int]]], Store]] = {"s3": S3, "gcs": Gcs, "azure": Azure}


@contextmanager
def Responder(  # noqa: N802  reads as what it starts
    service: Service = "s3", *, latency: float = 0.0, fill: dict[str, tuple[int, int]] | None = None
) -> Iterator[str]:
    """Start a responder, tell its URL, stop it.

    Args:
        latency: of each answer, in seconds.
        fill: for each bucket, how many objects of which size are there.
    """
    command = [sys.executable, __file__, service, "--latency", str(latency), "--fill", json.dumps(fill or {})]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None  # noqa: S101  for the type checker
        try:
            if not (port := process.stdout.readline()):
                sys.exit("the responder did not start")
            yield f"http://127.0.0.1:{int(port)}"
        finally:
            process.terminate()


class _Conversation(asyncio.Protocol):
    """One connection; httptools calls the ``on_…`` methods."""

    def __init__(self, store: Store, latency: float) -> None:
        self._store = store
        self._latency = latency
        import httptools

        self._parser = httptools.HttpRequestParser(self)
        self._send: Callable[[list[bytes]], None] = lambda _: None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._send = cast("asyncio.Transport", transport).writelines

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_begin(self) -> None:
        self._headers: dict[str, str] = {}
        self._body: list[bytes] = []
        self._size = 0

    def on_url(self, url: bytes) -> None:
        self._target = url.decode()

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        if self._headers.get("expect") == "100-continue":
            self._send([b"HTTP/1.1 100 Continue\r\n\r\n"])

    def on_body(self, body: bytes) -> None:
        self._size += len(body)
        if self._size <= KEPT:
            self._body.append(body)
        elif self._body:
            self._body.clear()

    def on_message_complete(self) -> None:
        method = self._parser.get_method().decode()
        answer = self._store(method, self._target, self._headers, b"".join(self._body), self._size)
        if self._latency:
            asyncio.get_running_loop().call_later(self._latency, self._send, answer)
        else:
            self._send(answer)


async def _serve(store: Store, latency: float) -> None:
    server = await asyncio.get_running_loop().create_server(
        lambda: _Conversation(store, latency), "127.0.0.1", 0, backlog=1024
    )
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def main() -> None:
    """Serve until the process is told to end."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("service", choices=list(_STORES))
    parser.add_argument("--latency", type=float, default=0.0)
    parser.add_argument("--fill", type=json.loads, default={})
    arguments = parser.parse_args()
    if importlib.util.find_spec("httptools") is None:
        sys.exit("the responder needs httptools: pip install httptools")
    store = _STORES[arguments.service](arguments.fill)
    try:
        import uvloop
    except ImportError:
        asyncio.run(_serve(store, arguments.latency))
    else:
        uvloop.run(_serve(store, arguments.latency))


if __name__ == "__main__":
    main()

"""A server that answers as it is told, whatever it is asked."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from typing import Any


class Server:
    """Answers in turns, whatever is asked; the last answer is that of all that follow."""

    def __init__(self, *answers: bytes, close: bool = False) -> None:
        self.seen: list[bytes] = []
        self.connections = 0
        self.closed = threading.Event()
        self._answers, self._close = list(answers), close
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._socket.accept()
                self.connections += 1
                threading.Thread(target=self._converse, args=(client,), daemon=True).start()

    def _converse(self, client: socket.socket) -> None:
        with client, client.makefile("rb") as stream, suppress(OSError):
            self._answered(client, stream)
        self.closed.set()

    def _answered(self, client: socket.socket, stream: Any) -> None:
        while line := stream.readline():
            head = line + b"".join(iter(stream.readline, b"\r\n"))
            lines = head.lower().split(b"\r\n")
            length = [int(each.split(b":")[1]) for each in lines if each.startswith(b"content-length:")]
            self.seen.append(head + b"\r\n" + stream.read(sum(length)))
            client.sendall(self._answers.pop(0) if len(self._answers) > 1 else self._answers[0])
            if self._close:
                return

    def stop(self) -> None:
        # who waits in accept() would wait on, and take what comes to the next socket of this number
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._socket.close()

"""A line to a name server that breaks when a test wants it to."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from typing import Literal

import attrs

Fault = Literal["before", "after", "cut", "garble"]


@attrs.define
class Line:
    """Carries messages to a server and its answers back, until it is to go wrong.

    Args:
        wrong: which requests go wrong and how: the line breaks before or after the server has them, or within the
            answer; or the answer is altered.
    """

    target: int
    wrong: Callable[[bytes], Fault | None] = lambda _request: None
    requests: list[bytes] = attrs.Factory(list)
    listener: socket.socket = attrs.field(init=False)
    thread: threading.Thread = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.thread = threading.Thread(target=self._accept, daemon=True)
        self.thread.start()

    @property
    def port(self) -> int:
        return int(self.listener.getsockname()[1])

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self.listener.accept()
                threading.Thread(target=self._carry, args=(client,), daemon=True).start()

    def _carry(self, client: socket.socket) -> None:
        with client, socket.create_connection(("127.0.0.1", self.target)) as server, contextlib.suppress(OSError):
            reader, answers = client.makefile("rb"), server.makefile("rb")
            while head := reader.read(2):
                request = reader.read(int.from_bytes(head, "big"))
                self.requests.append(request)
                fault = self.wrong(request)
                if fault == "before":
                    return
                server.sendall(head + request)
                answer = (size := answers.read(2)) + answers.read(int.from_bytes(size, "big"))
                if fault == "after":
                    return
                if fault == "garble":
                    answer = answer[:-1] + bytes([answer[-1] ^ 1])
                client.sendall(answer[: len(answer) // 2] if fault == "cut" else answer)
                if fault == "cut":
                    return

    def close(self) -> None:
        # who waits in accept() would wait on, and take what comes to the next socket of this number
        self.listener.shutdown(socket.SHUT_RDWR)
        self.thread.join()
        self.listener.close()


def is_update(request: bytes) -> bool:
    return request[2] >> 3 & 15 == 5


def once(fault: Fault, when: Callable[[bytes], bool]) -> Callable[[bytes], Fault | None]:
    left = [fault]
    return lambda request: left.pop() if left and when(request) else None

"""What a service of the double answers when it does not do what it was asked."""

from __future__ import annotations

__all__ = ["Refused"]


class Refused(Exception):
    """What the service answers instead."""

    def __init__(self, code: str, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = status

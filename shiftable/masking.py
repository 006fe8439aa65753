"""Values that never show themselves."""

from __future__ import annotations

import hmac
from typing import NoReturn, final

__all__ = ["Masked"]


@final
class Masked:
    """A secret value: ``reveal()`` gives it, and nothing else does: not str, repr, format, pickle or a traceback."""

    __slots__ = ("_value",)

    def __init__(self, value: str | bytes) -> None:
        self._value = value

    def reveal(self) -> str:
        """Return the value as text.

        Raises:
            ValueError: it is binary; use ``reveal_bytes``.
        """
        if isinstance(self._value, str):
            return self._value
        try:
            return self._value.decode()
        except UnicodeDecodeError:
            pass  # it holds the value: ours is raised where that one cannot hang on it
        raise ValueError("the value is not text; use reveal_bytes()")

    def reveal_bytes(self) -> bytes:
        """Return the value as bytes (text as UTF-8).

        Raises:
            ValueError: it is text that UTF-8 cannot hold.
        """
        try:
            return self._value.encode() if isinstance(self._value, str) else self._value
        except UnicodeEncodeError:
            pass  # as above
        raise ValueError("the value is text with lone surrogates, which is not Unicode")

    @property
    def is_text(self) -> bool:
        """Whether the value was given as text."""
        return isinstance(self._value, str)

    def __repr__(self) -> str:
        return "Masked(***)"

    def __str__(self) -> str:
        return "***"

    def __format__(self, spec: str) -> str:
        return "***"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Masked):
            return NotImplemented
        return self.is_text is other.is_text and hmac.compare_digest(self.reveal_bytes(), other.reveal_bytes())

    def __hash__(self) -> NoReturn:
        raise TypeError("a masked value is not hashable")

    def __reduce__(self) -> NoReturn:
        raise TypeError("a masked value is not pickled")

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        self.__reduce__()

    def __getstate__(self) -> NoReturn:
        self.__reduce__()

    def __copy__(self) -> Masked:
        return self

    def __deepcopy__(self, memo: dict[int, object]) -> Masked:
        return self

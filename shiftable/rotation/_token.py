"""Random tokens: session keys, webhook secrets, passwords that are told to nobody else."""

from __future__ import annotations

import base64
import math
import secrets
import string
from typing import ClassVar, Literal

import attrs

from shiftable.masking import Masked
from shiftable.secrets.rotator import Rotator

__all__ = ["RandomToken"]

LETTERS_AND_DIGITS = string.ascii_letters + string.digits

_ENOUGH = 64
"""Bits below which a token can be guessed by trying: what OWASP asks of session identifiers."""


@attrs.frozen(kw_only=True)
class RandomToken(Rotator):
    """A text that nobody can guess, for whatever reads it from the store.

    Nothing has to be set. For ``grace`` the one before can still be read, as the previous version, so that what was
    signed with it can be checked; then its version is disabled.

    Args:
        length: characters of ``alphabet``; bytes, before they are written down, of the other formats.
        format: how random bytes are written down.
        alphabet: what ``format = "alphabet"`` chooses from.
        prefix: stands before the rest, as in ``sk_…``, for people and scanners.
    """

    kind: ClassVar[str] = "random"

    length: int = 40
    format: Literal["alphabet", "hex", "base64", "base64url"] = "alphabet"
    alphabet: str = LETTERS_AND_DIGITS
    prefix: str = ""

    def __attrs_post_init__(self) -> None:
        if self.length < 1:
            raise ValueError(f"length must be at least 1, not {self.length}")
        if len(set(self.alphabet)) < len(self.alphabet) or len(self.alphabet) < 2:
            raise ValueError("alphabet must have at least two characters, each once")
        bits = self.length * (math.log2(len(self.alphabet)) if self.format == "alphabet" else 8)
        if bits < _ENOUGH:
            raise ValueError(f"length {self.length} makes {bits:.0f} bits, which can be guessed; {_ENOUGH} are needed")

    def create(self, current: Masked | None) -> Masked:  # noqa: ARG002  any value is followed by any other
        """Make a token."""
        match self.format:
            case "alphabet":
                text = _chosen(self.length, self.alphabet)
            case "hex":
                text = secrets.token_hex(self.length)
            case "base64":
                text = base64.b64encode(secrets.token_bytes(self.length)).decode()
            case "base64url":
                text = secrets.token_urlsafe(self.length)
        return Masked(self.prefix + text)


def _chosen(length: int, alphabet: str) -> str:
    return "".join(secrets.choice(alphabet) for _ in range(length))

"""CRC32C of parts and of the whole that they make."""

from __future__ import annotations

import base64
from collections.abc import Iterable

import google_crc32c

__all__ = ["combined", "crc32c", "told"]

_POLYNOMIAL = 0x82F63B78  # Castagnoli's, reflected
_ONE = 1 << 31


def crc32c(data: bytes, before: int = 0) -> int:
    """Return the CRC32C of some bytes, or of what has the CRC32C ``before`` and these bytes behind it."""
    return int(google_crc32c.extend(before, data))


def told(value: int) -> str:
    """Write a CRC32C as Google's APIs do: base64 of four bytes, the highest first."""
    return base64.b64encode(value.to_bytes(4, "big")).decode()


def combined(parts: Iterable[tuple[int, int]]) -> int:
    """Return the CRC32C of a whole from those of its parts, each with its length in bytes, without their content.

    A CRC is a remainder of polynomials over GF(2): appending n bytes multiplies it by x to the power of 8n.
    """
    whole = 0
    for value, size in parts:
        whole = _product(_power(8 * size), whole) ^ value
    return whole


def _product(left: int, right: int) -> int:
    """Multiply two polynomials modulo the CRC's."""
    result = 0
    while left:
        if left & _ONE:
            result ^= right
        left = left << 1 & 0xFFFFFFFF
        right = right >> 1 ^ (_POLYNOMIAL if right & 1 else 0)
    return result


def _power(exponent: int) -> int:
    """Return x to that power, modulo the CRC's polynomial."""
    result, square = _ONE, _ONE >> 1
    while exponent:
        if exponent & 1:
            result = _product(square, result)
        square = _product(square, square)
        exponent >>= 1
    return result

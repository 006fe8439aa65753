"""Checksums of content, the plain way: the oracle for what providers tell. No speed is needed, and no library."""

from __future__ import annotations

import functools
import hashlib
import zlib
from collections.abc import Callable, Mapping

__all__ = ["CHECKSUMS"]


@functools.cache
def _table(polynomial: int) -> tuple[int, ...]:
    entries = []
    for byte in range(256):
        value = byte
        for _ in range(8):
            value = value >> 1 ^ (polynomial if value & 1 else 0)
        entries.append(value)
    return tuple(entries)


def _crc(polynomial: int, size: int) -> Callable[[bytes], bytes]:
    """Return a reflected CRC of so many bytes, with all bits set before and turned over after."""

    def digest(data: bytes) -> bytes:
        table, ones = _table(polynomial), (1 << 8 * size) - 1
        value = ones
        for byte in data:
            value = table[(value ^ byte) & 0xFF] ^ value >> 8
        return (value ^ ones).to_bytes(size, "big")

    return digest


CHECKSUMS: Mapping[str, Callable[[bytes], bytes]] = {
    "crc32": lambda data: zlib.crc32(data).to_bytes(4, "big"),
    "crc32c": _crc(0x82F63B78, 4),
    "crc64nvme": _crc(0x9A6C9329AC4BC9B5, 8),
    "sha1": lambda data: hashlib.sha1(data, usedforsecurity=False).digest(),
    "sha256": lambda data: hashlib.sha256(data).digest(),
}
"""By the names that ``ObjectInfo.checksums`` has."""

"""Images of disks as fixed VHDs, and otherwise."""

from __future__ import annotations

import functools
import struct

MIB = 1024**2
SIZE = 21 * MIB
"""Of the disk; Azure takes none below 20 MiB, and this one is five writes and a smaller one."""


def footer(size: int = SIZE, *, cookie: bytes = b"conectix", kind: int = 2) -> bytes:
    """Return the end of a VHD, with what Azure looks at."""
    head = cookie + struct.pack(">IIQI4sI4s", 2, 0x10000, 2**64 - 1, 0, b"test", 0, b"test")
    return (head + struct.pack(">QQII", size, size, 0, kind)).ljust(512, b"\0")


@functools.cache
def vhd(size: int = SIZE, mark: bytes = b"boot") -> bytes:
    """Return a disk with something at its beginning and in its midst."""
    return (mark.ljust(MIB, b"\0") + bytes(9 * MIB) + mark).ljust(size, b"\0") + footer(size)

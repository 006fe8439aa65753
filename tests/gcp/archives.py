"""Archives with a disk of which Compute Engine makes images, small whatever the size of the disk."""

from __future__ import annotations

import gzip

GIB = 1024**3


def archive(name: str = "disk.raw", *, size: int = GIB, magic: bytes = b"ustar  \0", count: int = 1) -> bytes:
    """Return a tar.gz with a disk that is one hole, as GNU's ``tar -S`` writes it."""
    head = bytearray(512)
    head[: len(name)] = name.encode()
    head[100:108], head[108:116], head[116:124] = b"0000644\0", b"0000000\0", b"0000000\0"
    head[124:136], head[136:148] = b"00000000000\0", b"00000000000\0"
    head[156:157], head[257:265] = b"S", magic
    head[386:410] = b"%011o\0%011o\0" % (size, 0)
    head[483:495] = b"%011o\0" % size
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(head)
    return gzip.compress(bytes(head) * count + bytes(1024), mtime=0)

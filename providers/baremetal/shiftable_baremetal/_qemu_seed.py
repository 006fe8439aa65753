"""The disk from which cloud-init's NoCloud reads what a machine shall be: ISO 9660, two files in its root.

It is written here since it takes fifty lines: programs that make such images have other names on each system, and the
library that does it in Python is under the LGPL. Neither Joliet nor Rock Ridge is needed: cloud-init's names are short,
and Linux, BSD and Windows take lower-case letters and hyphens in names, though the standard (ECMA-119) has neither.
"""

from __future__ import annotations

import json
import struct

__all__ = ["seed"]

_SECTOR = 2048
_VOLUME, _END, _LITTLE, _BIG, _ROOT, _FILES = 16, 17, 18, 19, 20, 21  # where each lies, in sectors
_NO_TIME = b"0" * 16 + b"\0"


def seed(instance: str, hostname: str, user_data: bytes) -> bytes:
    """Return the image. The same arguments give the same bytes."""
    meta_data = json.dumps({"instance-id": instance, "local-hostname": hostname}).encode()
    contents = {b"meta-data.;1": meta_data, b"user-data.;1": user_data}  # in the order of their names
    place, files, entries = _FILES, b"", _entry(b"\0", _ROOT, _SECTOR, folder=True)
    entries += _entry(b"\1", _ROOT, _SECTOR, folder=True)
    for name, content in contents.items():
        entries += _entry(name, place, len(content))
        padded = _padded(content)
        files += padded
        place += len(padded) // _SECTOR
    return b"".join(
        (
            bytes(_VOLUME * _SECTOR),
            _padded(_volume(place)),
            _padded(b"\xffCD001\x01"),
            _padded(struct.pack("<BBIH2s", 1, 0, _ROOT, 1, b"\0\0")),
            _padded(struct.pack(">BBIH2s", 1, 0, _ROOT, 1, b"\0\0")),
            _padded(entries),
            files,
        )
    )


def _volume(sectors: int) -> bytes:
    """Return the primary volume descriptor, ECMA-119 8.4."""
    table = struct.pack("<II", _LITTLE, 0) + struct.pack(">II", _BIG, 0)
    return b"".join(
        (
            b"\x01CD001\x01\0",
            b" " * 32,
            b"cidata".ljust(32),
            bytes(8),
            _both32(sectors),
            bytes(32),
            _both16(1),
            _both16(1),
            _both16(_SECTOR),
            _both32(10),
            table,
            _entry(b"\0", _ROOT, _SECTOR, folder=True),
            b" " * (4 * 128 + 3 * 37),
            _NO_TIME * 4,
            b"\x01\0",
        )
    )


def _entry(name: bytes, place: int, size: int, *, folder: bool = False) -> bytes:
    """Return the record of a file, ECMA-119 9.1."""
    times = bytes((70, 1, 1, 0, 0, 0, 0))
    body = b"".join(
        (
            b"\0",
            _both32(place),
            _both32(size),
            times,
            bytes((2 if folder else 0, 0, 0)),
            _both16(1),
            bytes((len(name),)),
            name,
            b"" if len(name) % 2 else b"\0",
        )
    )
    return bytes((len(body) + 1,)) + body


def _both16(number: int) -> bytes:
    return struct.pack("<H", number) + struct.pack(">H", number)


def _both32(number: int) -> bytes:
    return struct.pack("<I", number) + struct.pack(">I", number)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % _SECTOR)

"""Disks with a partition table of GPT, by the UEFI Specification 2.10, chapter 5."""

from __future__ import annotations

import struct
import uuid
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

__all__ = ["BIOS_BOOT", "DATA", "SYSTEM", "write"]

SYSTEM = uuid.UUID("c12a7328-f81f-11d2-ba4b-00a0c93ec93b")
BIOS_BOOT = uuid.UUID("21686148-6449-6e6f-744e-656564454649")
DATA = uuid.UUID("0fc63daf-8483-4772-8e79-3d69d8477de4")

_SECTOR = 512
_FIRST = 2048
_ENTRIES, _ENTRY = 128, 128
_AROUND = 1 + _ENTRIES * _ENTRY // _SECTOR  # a header and the entries


def write(to: Path, partitions: Sequence[tuple[uuid.UUID, bytes]], boot_code: bytes = b"") -> Path:
    """Write a disk with partitions, each a kind and its content."""
    place, entries, contents = _FIRST, b"", list[tuple[int, bytes]]()
    for kind, content in partitions:
        sectors = -(-len(content) // _SECTOR)
        name = "partition".encode("utf-16-le").ljust(72, b"\0")
        extent = struct.pack("<QQQ", place, place + sectors - 1, 0)
        entries += kind.bytes_le + uuid.uuid4().bytes_le + extent + name
        contents.append((place, content))
        place += sectors
    entries = entries.ljust(_ENTRIES * _ENTRY, b"\0")
    last, disk = place + _AROUND - 1, uuid.uuid4().bytes_le
    with to.open("wb") as file:
        _put(file, 0, boot_code.ljust(446, b"\0") + struct.pack("<4B4BII", 0, 0, 2, 0, 0xEE, 255, 255, 255, 1, last))
        _put(file, 0, b"\x55\xaa", offset=510)
        _put(file, 1, _header(1, last, 2, disk, entries) + entries)
        for at, content in contents:
            _put(file, at, content)
        _put(file, last - _AROUND + 1, entries + _header(last, 1, last - _AROUND + 1, disk, entries))
    return to


def _put(file: BinaryIO, sector: int, data: bytes, *, offset: int = 0) -> None:
    file.seek(sector * _SECTOR + offset)
    file.write(data)


def _header(here: int, other: int, place: int, disk: bytes, entries: bytes) -> bytes:
    def packed(checksum: int) -> bytes:
        return struct.pack(
            "<8sIIIIQQQQ16sQIII",
            *(b"EFI PART", 0x10000, 92, checksum, 0, here, other),
            *(1 + _AROUND, max(here, other) - _AROUND, disk, place, _ENTRIES, _ENTRY, zlib.crc32(entries)),
        )

    return packed(zlib.crc32(packed(0))).ljust(_SECTOR, b"\0")

"""What a disk starts by, as its first sectors tell.

Rules: the UEFI Specification 2.10, chapter 5, "GUID Partition Table (GPT) Disk Layout".
"""

from __future__ import annotations

import struct
import uuid

__all__ = ["HEAD", "needs_uefi"]

_SECTOR = 512

HEAD = 34
"""Sectors that tell it: boot code of BIOS, the table's header, and 128 partitions."""

_BOOT_CODE = 440
_SMALLEST = 128  # bytes of an entry
_SYSTEM = uuid.UUID("c12a7328-f81f-11d2-ba4b-00a0c93ec93b").bytes_le  # where UEFI looks for a boot loader
_BIOS_BOOT = uuid.UUID("21686148-6449-6e6f-744e-656564454649").bytes_le  # where GRUB lies that BIOS starts


def needs_uefi(head: bytes) -> bool:
    """Tell whether a disk has something that UEFI starts, and nothing for BIOS.

    Args:
        head: its first sectors; fewer where it ends.
    """
    header = head[_SECTOR : 2 * _SECTOR]
    if not header.startswith(b"EFI PART") or any(head[:_BOOT_CODE]):
        return False
    place, count, size = struct.unpack("<QII", header[72:88])
    entries = head[place * _SECTOR :][: count * size]
    kinds = {entries[at : at + 16] for at in range(0, len(entries), max(size, _SMALLEST))}
    return _SYSTEM in kinds and _BIOS_BOOT not in kinds

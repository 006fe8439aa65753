r"""Which acceleration works on this computer: found out by booting, since a /dev/kvm that opens may run no kernel.

There is none for machines of another architecture than the computer's. An accelerator that does it more slowly than
software is none: where KVM itself is simulated, it takes seconds.

On x86_64, what is booted is one sector that does what every kernel of 64 bits does first, and ends QEMU by a device
that is made for that (isa-debug-exit). The source, for GNU as:

        .code16
        cli
        xor %ax,%ax; mov %ax,%ds; mov %ax,%es; mov %ax,%ss; mov $0x7c00,%sp
        mov $0x1000,%di; mov $0x3000,%cx; cld; rep stosb    # page tables: the first 2 MiB, as one page
        movl $0x2003,0x1000; movl $0x3003,0x2000; movl $0x0083,0x3000
        mov $0x1000,%eax; mov %eax,%cr3
        mov %cr4,%eax; or $0x20,%eax; mov %eax,%cr4         # PAE
        mov $0xc0000080,%ecx; rdmsr; or $0x100,%eax; wrmsr  # EFER.LME
        lgdt gdtr
        mov %cr0,%eax; or $0x80000001,%eax; mov %eax,%cr0
        ljmp $8,$long
        .code64
    long:   mov $16,%eax; mov %eax,%ds; mov %eax,%es; mov %eax,%ss
        xor %eax,%eax; cpuid
        mov $message,%esi                                   # to the serial port
    next:   lodsb; test %al,%al; jz done; mov $0x3f8,%edx; outb %al,%dx; jmp next
    done:   mov $0x21,%eax; mov $0xf4,%edx; outl %eax,%dx; hlt; jmp done
    message: .asciz "shiftable\n"
        .align 8
    gdt:    .quad 0, 0x00209a0000000000, 0x0000920000000000
    gdtr:   .word 23; .long gdt

On arm64 it stands in the place of the firmware, says something by the serial port and switches the machine off (PSCI's
SYSTEM_OFF):

    start:  mrs x0, currentel
            adr x1, message
            mov x2, #0x09000000                                 // the serial port
    next:   ldrb w3, [x1], #1
            cbz w3, done
            strb w3, [x2]
            b next
    done:   movz w0, #0x0008
            movk w0, #0x8400, lsl #16
            hvc #0
    hang:   b hang
    message: .asciz "shiftable\n"
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from shiftable.compute.driver import Arch
from shiftable_baremetal._durable import write

__all__ = ["Accelerator", "accelerator", "board"]

Accelerator = Literal["kvm", "hvf", "tcg"]

_SECTOR = bytes.fromhex(
    "fa31c08ed88ec08ed0bc007cbf0010b90030fcf3aa66c70600100320000066c70600200330000066c70600308300000066b8001000000f22"
    "d80f20e06683c8200f22e066b9800000c00f32660d000100000f300f0116c07c0f20c0660d010000800f22c0ea697c0800b8100000008ed8"
    "8ec08ed031c00fa2be987c0000ac84c07408baf8030000eeebf3b821000000baf4000000eff4ebf2736869667461626c650a000f1f440000"
    "000000000000000000000000009a200000000000009200001700a87c"
)
_DONE = 0x21 * 2 + 1  # isa-debug-exit makes this of what is written to it
_FIRMWARE = bytes.fromhex(
    "404238d5410100100220a1d2231440386300003443000039fdffff17000180520080b072020000d400000014736869667461626c650a00"
)
_SIZE = 1024 * 1024  # of the disk: the firmware starts none of a single sector
_NAMES: Mapping[Arch, frozenset[str]] = {
    "x86_64": frozenset({"x86_64", "amd64"}),
    "arm64": frozenset({"aarch64", "arm64"}),
}
"""How systems call their own architecture."""
_PATIENCE = 20.0  # seconds; software takes a quarter of one


def accelerator(program: str, note: Path, arch: Arch = "x86_64") -> Accelerator:
    """Return what works, and keep it: for this QEMU, this kernel and this computer.

    Args:
        note: the file to keep it in; its folder exists.
        arch: of the machines.
    """
    wanted = _candidate() if platform.machine().lower() in _NAMES[arch] else None
    if wanted is None:
        return "tcg"
    found = Path(program).stat()
    mark = [program, found.st_size, found.st_mtime_ns, *os.uname()]
    with contextlib.suppress(OSError, ValueError):
        known = json.loads(note.read_text(encoding="utf-8"))
        if known["of"] == mark:
            return wanted if known["accelerator"] == wanted else "tcg"
    software = _seconds(program, arch, "tcg", _PATIENCE)
    allowed = _PATIENCE if software is None else 2 * software + 0.5
    chosen: Accelerator = "tcg" if _seconds(program, arch, wanted, allowed) is None else wanted
    write(note, json.dumps({"of": mark, "accelerator": chosen}))
    return chosen


def board(arch: Arch, chosen: Accelerator) -> tuple[str, ...]:
    """Return the words that choose a machine of an architecture, and the processor that goes with an accelerator."""
    if arch == "x86_64":
        machine, simulated = "q35", "max"
    else:
        machine, simulated = "virt,gic-version=max", "max,pauth-impdef=on"  # else signing pointers is most of the work
    cpu = simulated if chosen == "tcg" else "host"
    return ("-machine", f"{machine},accel={chosen}", "-cpu", cpu, "-display", "none")


def _candidate() -> Accelerator | None:
    """Return what this computer may have."""
    if sys.platform == "darwin":
        return "hvf"
    return "kvm" if os.access("/dev/kvm", os.R_OK | os.W_OK) else None


def _seconds(program: str, arch: Arch, chosen: Accelerator, patience: float) -> float | None:
    """Return how long the probe takes; ``None`` if it does not come to its end in time."""
    with tempfile.NamedTemporaryFile(prefix="probe-") as file:
        command = [program, "-nodefaults", "-no-user-config", "-m", "64", *board(arch, chosen)]
        if arch == "x86_64":
            file.write(_SECTOR.ljust(510, b"\0") + b"\x55\xaa" + bytes(_SIZE - 512))
            content = f"driver=file,node-name=probe,read-only=on,filename={file.name.replace(',', ',,')}"
            command += ["-blockdev", content, "-device", "virtio-blk-pci,drive=probe,bootindex=0"]
            command += ["-device", "isa-debug-exit,iobase=0xf4,iosize=4"]
        else:
            file.write(_FIRMWARE.ljust(_SIZE, b"\0"))
            command += ["-bios", file.name, "-serial", "stdio"]
        file.flush()
        begun = time.monotonic()
        try:
            done = subprocess.run(  # noqa: S603  QEMU's own
                command, stdin=subprocess.DEVNULL, capture_output=True, timeout=patience, check=False
            )
        except subprocess.TimeoutExpired:
            return None
        ended = done.returncode == _DONE if arch == "x86_64" else done.stdout.startswith(b"shiftable")
        return time.monotonic() - begun if ended else None

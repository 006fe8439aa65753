"""How much memory this process has used at most."""

from __future__ import annotations

from pathlib import Path

__all__ = ["peak_rss"]


def peak_rss() -> int:
    """Return the most memory that was resident since this program began, in bytes.

    Not ``ru_maxrss``: on Linux a program that was started by a larger one begins with the larger one's peak.
    """
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise OSError("this kernel does not tell VmHWM")

"""Runs a program that ends when whoever started this ends: its own standard input closes then. Run by path.

The first argument is for how many seconds the program may end by itself then, before it is killed.
"""

from __future__ import annotations

import _thread
import contextlib
import os
import signal
import subprocess
import sys
import time


def main() -> int:
    """Run the program that the arguments name, and return its status: 0 also if it ends by a signal sent here.

    A program that is told to end before it has begun to listen to signals ends by the signal itself.
    """
    for number in (signal.SIGINT, signal.SIGTERM):  # sent to all, by a terminal: this ends when the caller has
        signal.signal(number, lambda *_: None)
    child = subprocess.Popen(  # noqa: S603  the caller's
        sys.argv[2:],
        stdin=subprocess.DEVNULL,
        close_fds=False,
        restore_signals=False,  # a file that grows too large is an error to tell, and no signal that kills
    )
    sent = [signal.SIGINT]
    _thread.start_new_thread(_end_with_the_caller, (child.pid, float(sys.argv[1]), sent))
    status = child.wait()
    return 0 if -status in sent else status


def _end_with_the_caller(number: int, patience: float, sent: list[signal.Signals]) -> None:
    with contextlib.suppress(OSError):
        while os.read(0, 1):
            pass
    with contextlib.suppress(ProcessLookupError):
        os.kill(number, signal.SIGINT)
        time.sleep(patience)
        sent.append(signal.SIGKILL)
        os.kill(number, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main())

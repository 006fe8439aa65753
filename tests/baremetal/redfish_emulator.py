"""Serve sushy-tools' emulator with its fake systems: its own program has no port of the kernel's, and its time is ours.

It ends when its standard input does, and so with the test whatever happens to that.
"""

from __future__ import annotations

import sys
import threading
import time
from types import SimpleNamespace

from sushy_tools.emulator import main
from sushy_tools.emulator.resources.systems import fakedriver
from werkzeug.serving import make_server

FASTER = 40
"""Power changes take 1 to 11 seconds of its time."""


def serve(folder: str, count: int) -> None:
    """Serve ``count`` systems that are off; their state lies in the folder."""
    began = time.time()
    fakedriver.time = SimpleNamespace(time=lambda: began + (time.time() - began) * FASTER)
    systems = [
        {"uuid": f"00000000-0000-4000-8000-{number:012}", "name": f"s{number}", "power_state": "Off", "nics": []}
        for number in range(count)
    ]
    main.app.configure(
        extra_config={
            "SUSHY_EMULATOR_FAKE_DRIVER": True,
            "SUSHY_EMULATOR_FAKE_SYSTEMS": systems,
            "SUSHY_EMULATOR_STATE_DIR": f"{folder}/state",
            "SUSHY_EMULATOR_AUTH_FILE": f"{folder}/users",
        }
    )
    server = make_server("127.0.0.1", 0, main.app, threaded=True)
    serving = threading.Thread(target=server.serve_forever)
    serving.start()
    print(server.port, flush=True)  # noqa: T201  the test reads it
    sys.stdin.read()
    server.shutdown()
    serving.join()


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]))

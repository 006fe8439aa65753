"""``shiftable migrate`` from S3 to S3 by other processes, beside the same by threads in the same run.

Two responders in processes of their own play S3 and answer from memory. Each engine is measured from its start to its
end: imports, and what it takes to start processes. The line of an engine has medians of seconds and of the ratios to
threads in the same round.

    python benchmarks/migrate_engines.py [--objects 20000] [--rounds 3] [--latency 0.02] [engine …]
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from _responder import Responder

BUCKET = "shop-assets"
MANIFEST = f"""
[project]
name = "bench"
[environments.production]
provider = "one"
[providers.one]
type = "aws"
endpoint = "ONE"
[providers.two]
type = "aws"
endpoint = "TWO"
[blob.assets]
bucket = "{BUCKET}"
"""
PROGRAM = str(Path(sys.executable).parent / "shiftable")


def run(engine: str, arguments: argparse.Namespace) -> tuple[float, float]:
    """Move everything once; return seconds on the clock, and of the processor with all processes."""
    fill = {BUCKET: (arguments.objects, 4096)}
    with (
        tempfile.TemporaryDirectory() as folder,
        Responder(latency=arguments.latency, fill=fill) as one,
        Responder(latency=arguments.latency) as two,
    ):
        (Path(folder) / "shiftable.toml").write_text(MANIFEST.replace("ONE", one).replace("TWO", two))
        credentials = {"AWS_ACCESS_KEY_ID": "bench", "AWS_SECRET_ACCESS_KEY": "bench"}
        environ = os.environ | credentials | {"AWS_DEFAULT_REGION": "eu-central-1", "HOME": folder}
        command = [PROGRAM, "migrate", "--from", "one", "--to", "two", "--apply", "--no-verify", "--engine", engine]
        before, began = _busy(), time.perf_counter()
        done = subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, check=False)
        seconds, busy = time.perf_counter() - began, _busy() - before
    if done.returncode or f"create: {arguments.objects:,} items" not in done.stdout:
        raise SystemExit(f"{engine}: {done.stdout}{done.stderr[-2000:]}")
    return seconds, busy


def _busy() -> float:
    """Return the processor time of what has ended; responders are still running when it is asked for."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    """Run all engines in turns, in another order each time."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("engines", nargs="*", default=["processes=2"])
    parser.add_argument("--objects", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--latency", type=float, default=0.0)
    arguments = parser.parse_args()
    engines = ["threads", *arguments.engines]
    found: dict[str, list[tuple[float, float]]] = {engine: [] for engine in engines}
    for _ in range(arguments.rounds):
        for engine in random.sample(engines, len(engines)):
            found[engine].append(run(engine, arguments))
    print(
        f"{arguments.objects:,} objects of 4 KiB, answers after {arguments.latency * 1000:g} ms, {os.cpu_count()} CPUs"
    )
    for engine, runs in found.items():
        seconds, busy = (statistics.median(column) for column in zip(*runs, strict=True))
        pairs = zip(found["threads"], runs, strict=True)
        ratio = statistics.median(threads[0] / own[0] for threads, own in pairs)
        print(f"{engine:20}{seconds:8.2f} s{busy:8.2f} s of CPU{ratio:8.2f} times as fast as threads", flush=True)


if __name__ == "__main__":
    main()

"""PostgreSQL's changes followed by shiftable and by a native subscription, and how long writes stop at a cutover.

    python benchmarks/capture.py [--rows 100000] [--repeats 3]

Both read the same changes out of slots of the same source, in turn, each into a database of its own: inserts, updates
and deletes by key, in transactions of 100. Then pgbench writes all the time while a database is moved, and the stop of
writes is measured. Private servers without waits for the disk; read the ratios, not the seconds.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import attrs
import psycopg

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "migrate"))
from capturing import Moving, moving, two_clusters

from shiftable.migrate._capture import Lag, Online

TABLE = "CREATE TABLE item (id int PRIMARY KEY, amount bigint, at timestamptz, name text, note text)"
ROW = "n, n * 3, now(), 'name ' || n, md5(n::text)"
SUBSCRIPTION = "bench"


def write(move: Moving, rows: int) -> int:
    """Insert, update and delete; return how many rows changed."""
    with move.on(move.source) as connection:
        connection.execute(
            f"""DO $$ BEGIN
            FOR step IN 0..{rows // 100 - 1} LOOP
                INSERT INTO item SELECT {ROW} FROM generate_series(step * 100 + 1, step * 100 + 100) AS n;
                COMMIT;
                UPDATE item SET amount = amount + 1, note = note || '.'
                    WHERE id > step * 100 AND id <= step * 100 + 100;
                COMMIT;
                DELETE FROM item WHERE id > step * 100 AND id <= step * 100 + 20;
                COMMIT;
            END LOOP; END $$""".encode()  # noqa: S608  numbers
        )
        connection.execute("CHECKPOINT")
    return rows // 100 * 220


@attrs.frozen
class Cost:
    """What it took to bring all changes, in seconds."""

    wall: float
    cpu: float


def followed(online: Online) -> Cost:
    """Follow with shiftable."""
    began, cpu = time.perf_counter(), time.process_time()
    online.follow()
    return Cost(time.perf_counter() - began, time.process_time() - cpu)


def subscribed(move: Moving, last: str) -> Cost:
    """Follow with a subscription of the target's, from a slot that was made before, until the last change is there."""
    wanted = move.ask(move.source, last)
    where = move.arguments(move.source)
    conninfo = " ".join(f"{key}={value}" for key, value in where.items())
    with move.on(move.target) as connection:
        began = time.perf_counter()
        connection.execute(
            f"CREATE SUBSCRIPTION {SUBSCRIPTION} CONNECTION '{conninfo}' PUBLICATION {SUBSCRIPTION} WITH"
            f" (create_slot = false, slot_name = '{SUBSCRIPTION}', copy_data = false, binary = true)".encode()
        )
        while connection.execute(last.encode()).fetchall() != wanted:
            time.sleep(0.02)
        wall = time.perf_counter() - began
        time.sleep(0.5)  # a deletion may come behind
        connection.execute(f"DROP SUBSCRIPTION {SUBSCRIPTION}".encode())
    return Cost(wall, 0.0)


def applying(clusters: tuple, rows: int, repeats: int) -> None:  # type: ignore[type-arg]  of two clusters
    """Compare how fast changes are applied."""
    ours, binaries, native, changes = [], [], [], 0
    for _ in range(repeats):
        for binary, costs in ((False, ours), (True, binaries)):
            with tempfile.TemporaryDirectory() as folder, moving(clusters, Path(folder)) as move:
                move.both(TABLE)
                online = move.online(binary=binary)
                online.start()
                changes = write(move, rows)
                costs.append(followed(online))
                move.verify()
        with tempfile.TemporaryDirectory() as folder, moving(clusters, Path(folder)) as move:
            move.both(TABLE)
            move.run(
                f"CREATE PUBLICATION {SUBSCRIPTION} FOR ALL TABLES",
                f"SELECT pg_create_logical_replication_slot('{SUBSCRIPTION}', 'pgoutput')",
            )
            write(move, rows)
            there = move.digests(move.source)
            native.append(subscribed(move, f"SELECT id, note FROM item WHERE id = {rows}"))  # noqa: S608  a number
            assert there == move.digests(move.target)  # noqa: S101  both did the same
    print(f"{changes:,} changed rows, medians of {repeats}")
    base = statistics.median(cost.wall for cost in native)
    for name, costs in (("shiftable, text", ours), ("shiftable, binary", binaries), ("native subscription", native)):
        wall = statistics.median(cost.wall for cost in costs)
        cpu = statistics.median(cost.cpu for cost in costs)
        print(
            f"{name:22} {wall:7.2f} s {changes / wall:10,.0f} rows/s   client CPU {cpu:5.2f} s   {base / wall:5.2f} x"
        )


@contextlib.contextmanager
def pgbench(move: Moving, rate: int) -> Iterator[None]:
    """Let pgbench write all the time."""
    where = {"PGHOST": move.source.host, "PGPORT": str(move.source.port), "PGUSER": "postgres"}
    command = [str(move.source.binaries.program("pgbench")), "-n", "-c4", "-j2", f"-R{rate}", "-T600", move.name]
    process = subprocess.Popen(command, env=os.environ | where, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.kill()
        process.wait()


def cutting_over(clusters: tuple, rate: int, repeats: int) -> None:  # type: ignore[type-arg]  of two clusters
    """Measure the stop of writes of a cutover under pgbench."""
    stops, lags, verifying = [], [], []
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as folder, moving(clusters, Path(folder)) as move:
            for cluster in (move.source, move.target):
                cluster.run("pgbench", "-i", "-q", "-s5", "-n", move.name)
            online = move.online(may_identify=True)
            with pgbench(move, rate):
                time.sleep(2)
                online.start()
                online.follow()
                seen: list[Lag] = []
                until = time.monotonic() + 5
                online.follow(until=lambda _lag, until=until: time.monotonic() > until, tell=seen.append)  # type: ignore[misc]
                cut = online.cutover(verify=move.verify, hand_over=lambda: None)
            stops.append(cut.stopped)
            verifying.append(cut.verified)
            lags += [lag.seconds for lag in seen]
    print(f"cutover under pgbench at {rate} transactions/s, {repeats} times")
    median, worst = statistics.median(stops), max(stops)
    print(f"stop of writes until the target has everything: median {median:.3f} s, worst {worst:.3f} s")
    print(f"lag while following: median {statistics.median(lags) * 1000:.0f} ms, worst {max(lags) * 1000:.0f} ms")
    print(f"verification behind it (digests of both, in turn): median {statistics.median(verifying):.2f} s")


def main() -> None:
    """Run both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--rate", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    print(f"psycopg {psycopg.__version__} ({psycopg.pq.__impl__})")
    with two_clusters() as clusters:
        applying(clusters, given.rows, given.repeats)
        cutting_over(clusters, given.rate, given.repeats)


if __name__ == "__main__":
    main()

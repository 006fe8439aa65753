"""Databases between versions of PostgreSQL, and rows of 200 MB: Debian's server and those of the wheel."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from shiftable.errors import ConfigError
from shiftable.migrate._postgresql._move import How, moved
from shiftable.migrate._postgresql._verification import differences
from shiftable.postgresql import Binaries, Cluster, all_binaries, find_binaries, temporary_cluster

BESIDE = Path(__file__).parent.parent / "migrate"
sys.path.insert(0, str(BESIDE))
from pairs import Pair  # noqa: E402  it lies with the other tests of moves

MOVE = """
import json, sys
from shiftable.migrate._postgresql._move import How, moved
from shiftable.migrate._postgresql._side import Side

sides = [Side(lambda each=each: each, "a side") for each in json.loads(sys.argv[1])]
moved(*sides, How(jobs=1))
# What getrusage tells begins with what the parent had when it forked.
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


def installed() -> dict[int, Binaries]:
    """Return one PostgreSQL of each major version that is here; the wheel brings two."""
    found = {binaries.major: binaries for binaries in reversed(all_binaries())}
    for binaries in [*found.values()]:
        try:
            newest = find_binaries(binaries.folder.parent.parent / "pginstall18")
        except ConfigError:
            continue
        found.setdefault(newest.major, newest)
    return found


VERSIONS = installed()


@pytest.fixture(scope="module")
def clusters() -> Iterator[dict[tuple[int, str], Cluster]]:
    made: dict[tuple[int, str], Any] = {}
    yield made
    for _, context in made.values():
        context.__exit__(None, None, None)


def cluster(made: dict[Any, Any], version: int, side: str) -> Cluster:
    if (version, side) not in made:
        context = temporary_cluster(VERSIONS[version])
        made[version, side] = context.__enter__(), context
    found: Cluster = made[version, side][0]
    return found


@pytest.mark.parametrize(
    ("here", "there"),
    [*itertools.permutations(sorted(VERSIONS), 2)],
    ids=[f"{here}-{there}" for here, there in itertools.permutations(sorted(VERSIONS), 2)],
)
def test_the_awkward_database_moves_between_versions(clusters: Any, here: int, there: int) -> None:
    pair = Pair(cluster(clusters, here, "source"), cluster(clusters, there, "target"))
    pair.make()
    pair.fill()
    move = moved(pair.source, pair.target, How(chunk=64 * 1024))

    assert [] == move.notes
    assert pair.contents(pair.source_cluster) == pair.contents(pair.target_cluster)
    assert {} == differences(pair.source, pair.target)
    pair.on_target("UPDATE heavy SET body = set_byte(body, 30000, get_byte(body, 30000) # 1) WHERE id = 77")
    assert ["public.heavy"] == list(differences(pair.source, pair.target))


def test_rows_of_200_megabytes_move(clusters: Any) -> None:
    newest = max(VERSIONS)
    pair = Pair(cluster(clusters, newest, "source"), cluster(clusters, newest, "target"))
    pair.make()
    pair.fill("CREATE TABLE big (id int PRIMARY KEY, body bytea)", "ALTER TABLE big ALTER body SET STORAGE EXTERNAL")
    pair.fill(
        "INSERT INTO big SELECT n, convert_to(repeat(md5(n::text), 6250000), 'UTF8')"
        " FROM generate_series(1, 3) AS s (n)"
    )
    sides = json.dumps([dict(pair.arguments(each)) for each in (pair.source_cluster, pair.target_cluster)])
    done = subprocess.run([sys.executable, "-c", MOVE, sides], capture_output=True, text=True, check=True)

    sums = "SELECT id, length(body), sha256(body) FROM big ORDER BY id"
    assert pair.on_source(sums) == pair.on_target(sums)
    assert [200_000_000] * 3 == [length for _, length, _ in pair.on_target(sums)]
    assert {} == differences(pair.source, pair.target)
    assert int(done.stdout) < 900_000  # kB: libpq has a row as a whole, and its buffer doubles

"""An archive survives kills, failovers and full disks; what is damaged in the bucket makes nothing that is wrong."""

from __future__ import annotations

import contextlib
import gzip
import random
import resource
import subprocess
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import attrs
import pytest

from shiftable.blob import BlobStore, Bucket, BucketSpec
from shiftable.database import Databases
from shiftable.errors import Conflict, IntegrityError, OperationError, QuotaExceeded, Unsupported
from shiftable.memory.blob import MemoryBlobDriver
from shiftable.postgresql import Cluster
from shiftable_baremetal._archive_store import ArchiveStore, Base, Segments
from shiftable_baremetal._archiver import _Follow

from .archived_server import (
    BINARIES,
    MANAGER,
    act,
    archiving,
    archiving_until_killed,
    ask,
    driver_of,
    now_in,
    serving,
    spec_of,
    stored,
    whole_segments,
    within,
)

PROCESS = Path(__file__).with_name("archiver_process.py")


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with serving(max_wal_size="64MB", min_wal_size="32MB") as server:
        yield server


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "servers"


@pytest.fixture
def databases(cluster: Cluster, root: Path) -> Databases:
    return Databases(driver_of(cluster, root))


def fill(cluster: Cluster, segments: int = 1) -> None:
    for _ in range(segments):
        act(cluster, "SELECT pg_current_xact_id()")
        act(cluster, "SELECT pg_switch_wal()")


# kills


def test_archivers_that_are_killed_anywhere_under_writers_lose_nothing(
    databases: Databases, cluster: Cluster, root: Path
) -> None:
    orders = databases.create(spec_of("orders"))
    there = orders.url().database
    cluster.run("pgbench", "--initialize", "--scale=1", "--quiet", there)
    ask(orders, "CREATE TABLE marks (at int)")
    told = {"port": cluster.port, "password": MANAGER, "programs": str(BINARIES.folder), "root": str(root)}
    bench = [
        str(BINARIES.folder / "pgbench"),
        "-n",
        "-c2",
        "-T3600",
        f"-h{cluster.host}",
        f"-p{cluster.port}",
        "-Upostgres",
        there,
    ]
    chance, times = random.Random(7), []  # noqa: S311  where to kill
    writer = subprocess.Popen(bench, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for number in range(8):
            with archiving_until_killed(PROCESS, told, chance.randrange(1, 6)):
                if number == 0:
                    databases.back_up()
                ask(orders, f"INSERT INTO marks VALUES ({number})")  # noqa: S608  a number
                times.append(now_in(cluster))
                time.sleep(chance.random())
        assert writer.poll() is None
    finally:
        writer.terminate()
        writer.wait()
    with archiving(databases):
        numbers = [int(name[16:], 16) for name in whole_segments(root)]
        assert list(range(numbers[0], numbers[-1] + 1)) == numbers
        for number in (0, 3, 7):
            copy = orders.restore(spec_of(f"copy-{number}"), at=times[number])
            assert number == ask(copy, "SELECT max(at) FROM marks")
            assert number + 1 == ask(copy, "SELECT count(*) FROM marks")
            name = copy.url().database
            sums = "SELECT (SELECT sum(abalance) FROM pgbench_accounts) = (SELECT sum(delta) FROM pgbench_history)"
            assert [(True,)] == act(cluster, sums, name)
            databases.delete(copy.name, final_snapshot=False)


def test_a_time_is_not_noted_before_all_segments_until_then_are_stored(tmp_path: Path) -> None:
    store = BlobStore(MemoryBlobDriver())
    store.create(BucketSpec(name="b"))
    archive = ArchiveStore(lambda: store.bucket("b"))

    class Server:
        def segment_size(self) -> int:
            return 2**20

        def received(self, _: str) -> int:
            return 6 * 2**20

        def advance(self, _: str, lsn: int) -> None:
            assert 5 * 2**20 == lsn

    following: Any = _Follow(None, archive, tmp_path, Server(), "slot", 0)  # type: ignore[arg-type]
    following._last = f"00000001{3:016X}"
    (tmp_path / f"00000001{4:016X}").write_bytes(b"\1" * 2**20)
    (tmp_path / f"00000001{5:016X}.partial").write_bytes(b"\1" * 2**20)
    now = datetime.now(UTC)
    assert not following._has_stored(now, 5 * 2**20 + 100)
    assert archive.archived() is None
    following._store_finished()
    assert following._has_stored(now, 5 * 2**20 + 100)
    assert [f"00000001{4:016X}", f"00000001{5:016X}.partial"] == archive.names()


# what is stored is damaged


def last_whole(root: Path) -> Path:
    return root / "snapshots/server/wal" / f"{whole_segments(root)[-1]}.gz"


def the_base(root: Path) -> Path:
    return root / "snapshots/server/base" / stored(root, "base")[0]


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


def replace_by_another(path: Path) -> None:
    path.write_bytes(gzip.compress(b"this is no segment"))


DAMAGES: dict[str, tuple[Callable[[Path], Path], Callable[[Path], None], str]] = {
    "segment-cut": (last_whole, cut, "its end is missing"),
    "segment-flipped": (last_whole, flip, "does not unpack|has a gap"),
    "segment-gone": (last_whole, Path.unlink, "has a gap: segment"),
    "segment-of-another": (last_whole, replace_by_another, "does not come up as it was|has a gap"),
    "base-cut": (the_base, cut, "its end is missing"),
    "base-flipped": (the_base, flip, "does not unpack|is not what|no tar file|no data directory has"),
    "base-gone": (the_base, Path.unlink, "is gone from the bucket"),
}


@pytest.fixture(scope="module")
def archived(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Cluster, Path, datetime]]:
    """Archive some segments with a commit in each, and then no more; hand out a time in the last one."""
    root = tmp_path_factory.mktemp("archive") / "servers"
    with serving() as cluster:
        databases = Databases(driver_of(cluster, root))
        databases.create(spec_of("orders"))
        with archiving(databases) as told:
            databases.back_up()
            count = len(whole_segments(root))
            fill(cluster, 3)
            when = now_in(cluster)
            act(cluster, "SELECT pg_current_xact_id()")
            within(lambda: len(whole_segments(root)) >= count + 3, "segments")
            after = now_in(cluster)
            within(lambda: told[-1].until > after, "the last of the log")
        yield cluster, root, when


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_damaged_is_told_and_nothing_is_made_of_it(
    archived: tuple[Cluster, Path, datetime], tmp_path: Path, damage: str
) -> None:
    cluster, root, when = archived
    where, harm, why = DAMAGES[damage]
    place = where(root)
    content = place.read_bytes()
    databases = Databases(driver_of(cluster, root))
    try:
        harm(place)
        with pytest.raises(IntegrityError, match=why):
            databases.database("orders").restore(spec_of("copy"), at=when)
        assert not databases.exists("copy")
    finally:
        place.write_bytes(content)
    assert "available" == databases.database("orders").restore(spec_of("copy"), at=when).info().state
    databases.delete("copy", final_snapshot=False)


def test_a_connection_to_the_bucket_that_drops_is_told(
    archived: tuple[Cluster, Path, datetime], monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster, root, when = archived
    real = ArchiveStore.fetch

    def fetch(self: ArchiveStore, name: str, path: Path) -> bool:
        if name == whole_segments(root)[-1]:
            raise ConnectionResetError(104, "the connection was reset")
        return real(self, name, path)

    monkeypatch.setattr(ArchiveStore, "fetch", fetch)
    databases = Databases(driver_of(cluster, root))
    with pytest.raises(OperationError, match="reset"):
        databases.database("orders").restore(spec_of("copy"), at=when)
    assert not databases.exists("copy")


# what is old


def complete(root: Path) -> bool:
    """Tell whether each base backup that is listed has all that it needs, by the files."""
    segments, there = Segments(16 * 2**20), {segment[8:] for segment in whole_segments(root)}
    for name in stored(root, "backups"):
        base = Base.read((root / "snapshots/server/backups" / name).read_bytes())
        needed = range(segments.number(base.segment), segments.number(max(whole_segments(root))) + 1)
        if not {segments.named("", number) for number in needed} <= there:
            return False
        if f"{base.backup.name}.tar.gz" not in stored(root, "base"):
            return False
    return True


def test_what_is_too_old_is_deleted_and_never_more_also_by_one_that_is_killed(
    databases: Databases, cluster: Cluster, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    orders, made = databases.create(spec_of("orders")), []
    with archiving(databases):
        for _ in range(4):
            made.append(databases.back_up())
            fill(cluster, 2)
        when = now_in(cluster)
        act(cluster, "SELECT pg_current_xact_id()")
        within(lambda: len(whole_segments(root)) > 8, "segments")
        orders.restore(spec_of("copy"), at=when)
    archive = databases._driver._archive  # type: ignore[attr-defined]
    store, real, calls = archive._store, Bucket.delete_many, [0]
    before = len(whole_segments(root))

    def delete_many(self: Bucket, keys: Any) -> Any:
        for key in keys:
            if calls[0] == 0:
                raise KeyboardInterrupt
            calls[0] -= 1
            real(self, [key])
        return {}

    monkeypatch.setattr(Bucket, "delete_many", delete_many)
    for left in range(30):
        calls[0] = left
        try:
            store.prune(made[2].restorable_from)
        except KeyboardInterrupt:
            assert complete(root)
            continue
        break
    assert [each.name for each in made[2:]] == [each.name for each in databases.backups()]
    assert complete(root)
    assert len(whole_segments(root)) < before
    copy = orders.restore(spec_of("again"), at=when)
    assert "available" == copy.info().state


def test_the_last_base_backup_is_kept_however_old(databases: Databases, root: Path) -> None:
    with archiving(databases):
        made = databases.back_up()
        databases._driver._archive._store.prune(datetime.now(UTC))  # type: ignore[attr-defined]
        assert [made] == list(databases.backups())


def test_a_backup_that_fails_leaves_nothing(databases: Databases, cluster: Cluster, root: Path) -> None:
    with archiving(databases):
        act(cluster, "ALTER SYSTEM SET max_wal_senders = 1")
        with pytest.raises(OperationError):
            Databases(attrs.evolve(databases._driver, archive=broken(databases))).back_up()  # type: ignore[type-var]
        assert [] == stored(root, "base")
        assert [] == stored(root, "backups")


def broken(databases: Databases) -> Any:
    """Return an archive whose pg_basebackup ends in the middle."""
    archive = databases._driver._archive  # type: ignore[attr-defined]
    engine = archive._engine
    folder = Path(engine.programs)

    @attrs.frozen
    class Engine(type(engine)):  # type: ignore[misc]
        def base_backup(self, version: str) -> Any:
            command = super().base_backup(version)
            script = f'"{folder}/pg_basebackup" "$@" | head -c 100000; echo "error: it broke" >&2; exit 1'
            return attrs.evolve(command, program=Path("/bin/sh"), arguments=("-c", script, "sh", *command.arguments))

    return attrs.evolve(archive, engine=Engine(engine.access, engine.programs, archived=True))


def test_tablespaces_are_refused(databases: Databases, cluster: Cluster, tmp_path: Path) -> None:
    with archiving(databases):
        place = Path(cluster.folder) / "elsewhere"
        place.mkdir()
        cluster.owner.take(place)
        act(cluster, f"CREATE TABLESPACE outside LOCATION '{place}'")
        with pytest.raises(Unsupported, match=r"outside its data directory \(outside\)"):
            databases.back_up()


def test_a_full_disk_is_told_and_nothing_is_lost(databases: Databases, cluster: Cluster, root: Path) -> None:
    orders = databases.create(spec_of("orders"))
    with archiving(databases):
        databases.back_up()
    fill(cluster, 2)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024 * 1024, hard))
    try:
        with pytest.raises(QuotaExceeded, match="File too large"):
            databases.archive()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    with archiving(databases):
        assert "available" == orders.restore(spec_of("copy"), at=now_in(cluster)).info().state


# failovers


@contextlib.contextmanager
def standby_of(cluster: Cluster, folder: Path) -> Iterator[Cluster]:
    """Run a standby of a server, which follows it."""
    cluster.back_up(folder / "data")
    source = f"host={cluster.host} port={cluster.port} user=postgres"
    parameters = {**cluster.parameters, "primary_conninfo": source, "wal_keep_size": "512MB"}
    standby = Cluster(folder / "standby", BINARIES, tcp=True, durable=False, parameters=parameters)
    standby.fill(folder / "data")
    (standby.data / "standby.signal").touch()
    standby.owner.take(standby.data / "standby.signal")
    try:
        with standby:
            yield standby
    finally:
        standby.remove()


@pytest.mark.parametrize("end", ["of a segment", "within one"])
def test_after_a_failover_the_archive_goes_on_with_the_new_primary(
    databases: Databases, cluster: Cluster, root: Path, tmp_path: Path, end: str
) -> None:
    orders = databases.create(spec_of("orders"))
    with standby_of(cluster, tmp_path) as standby:
        with archiving(databases):
            databases.back_up()
            ask(orders, "CREATE TABLE t AS SELECT 1 AS a")
            fill(cluster)
            if end == "within one":
                ask(orders, "CREATE TABLE u AS SELECT generate_series(1, 10000) AS a")
        with pytest.raises(Conflict, match="is a standby"):
            Databases(driver_of(standby, root)).archive()
        lsn = act(cluster, "SELECT pg_current_wal_flush_lsn()")[0][0]
        query = f"SELECT pg_last_wal_replay_lsn() >= '{lsn}'"
        within(lambda: bool(act(standby, query)[0][0]), "the standby to come after")
        cluster.stop(immediately=True)
        act(standby, "SELECT pg_promote()")
        moved = Databases(driver_of(standby, root))
        orders = moved.open(spec_of("orders"))
        with archiving(moved):
            ask(orders, "INSERT INTO t VALUES (2)")
            when = now_in(standby)
            ask(orders, "INSERT INTO t VALUES (3)")
            fill(standby)
            copy = orders.restore(spec_of("copy"), at=when)
            assert 2 == ask(copy, "SELECT count(*) FROM t")
        assert "00000002.history.gz" in stored(root, "wal")
        (root / "snapshots/server/wal/00000002.history.gz").unlink()
        with pytest.raises(IntegrityError, match="00000002.history is not in the bucket"):
            orders.restore(spec_of("never"), at=when)


def test_a_primary_that_has_parted_from_what_is_stored_is_refused(
    databases: Databases, cluster: Cluster, root: Path, tmp_path: Path
) -> None:
    with standby_of(cluster, tmp_path) as standby:
        act(standby, "SELECT pg_promote()")
        with archiving(databases):
            databases.back_up()
            count = len(whole_segments(root))
            fill(cluster, 3)
            within(lambda: len(whole_segments(root)) >= count + 3, "segments")
        before = whole_segments(root)
        with pytest.raises(Conflict, match="does not have the log any more that comes after"):
            Databases(driver_of(standby, root)).archive()
        assert before == whole_segments(root)[: len(before)]

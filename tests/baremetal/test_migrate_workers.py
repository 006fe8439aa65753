"""Moves whose objects other processes copy: what travels, what is refused, what a lost worker leaves."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import pytest

from shiftable import __version__, load
from shiftable.app import App
from shiftable.errors import ConfigError, MigrationError
from shiftable.migrate import Migration, Options, Report, Silent, Workers
from shiftable.migrate._crew import work
from shiftable.migrate._workers import Dask, Pool, Processes, Ray

FILE = """
[project]
name = "shop"
[environments.production]
provider = "there"
[providers.there]
type = "baremetal"
root = "there"
fsync = false
[providers.here]
type = "baremetal"
root = "here"
fsync = false
[blob.assets]
bucket = "shop-assets"
"""
LARGE = 8 * 1024 * 1024 + 1


@pytest.fixture
def app(tmp_path: Path) -> App:
    (tmp_path / "shiftable.toml").write_text(FILE)
    found = load(tmp_path)
    found.service(found.declared("blob")[0]).create(found.declared("blob")[0].spec)
    return found


def fill(folder: Path, count: int, size: int = 10) -> None:
    for number in range(count):
        path = folder / "there/blob/shop-assets" / f"{number % 7}" / f"{number:05}"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(f"{number}".encode() * size)


def files(root: Path) -> dict[str, bytes]:
    """Return what the file system says, without shiftable's own area."""
    found = (path for path in root.rglob("*") if path.is_file() and not path.name.startswith("."))
    return {str(path.relative_to(root)): path.read_bytes() for path in found if ".shiftable" not in str(path)}


def there(folder: Path) -> dict[str, bytes]:
    return files(folder / "there/blob/shop-assets")


def here(folder: Path) -> dict[str, bytes]:
    return files(folder / "here/blob/shop-assets")


def migration(app: App, workers: Workers | None, **options: Any) -> Migration:
    return Migration(app, "there", "here", ("blob",), Options(**options), workers=workers)


def troubles(report: Report) -> dict[str, str]:
    return {named.key: named.trouble for resource in report.resources for named in resource.named}


class Inline(Workers):
    """Runs each batch where it is submitted, and keeps what was sent."""

    def __init__(self, change: Callable[..., Any] = lambda *sent: sent, *, slots: int = 2) -> None:
        self.batches: list[Any] = []
        self.jobs: list[Any] = []
        self.opened = self.closed = 0
        self.change = change
        self.slots = slots

    def open(self) -> Pool:
        self.opened += 1
        return Pool(executor=_Inline(self), slots=self.slots, lost=(BrokenProcessPool,), breaks=True, close=self._close)

    def _close(self, _wait: object) -> None:
        self.closed += 1

    def __str__(self) -> str:
        return "inline"


class _Inline(Executor):
    def __init__(self, workers: Inline) -> None:
        self._workers = workers

    def submit(self, function: Any, /, *sent: Any, **_: Any) -> Future[Any]:
        self._workers.jobs.append(pickle.loads(sent[1]))  # noqa: S301  our own
        self._workers.batches.append(pickle.loads(sent[2]))  # noqa: S301  our own
        future: Future[Any] = Future()
        try:
            future.set_result(function(*self._workers.change(*sent)))
        except Exception as exc:  # noqa: BLE001  the future's
            future.set_exception(exc)
        return future


class Counting(Processes):
    """Counts how often the pool was made."""

    opened: int = 0

    def open(self) -> Pool:
        Counting.opened += 1
        return super().open()


def test_processes_move_and_verify_everything(app: App, tmp_path: Path) -> None:
    fill(tmp_path, 700)
    (tmp_path / "there/blob/shop-assets/large").write_bytes(os.urandom(LARGE))

    moved = migration(app, Processes(2)).apply()
    verified = migration(app, Processes(2)).verify()
    again = migration(app, None).apply()

    assert (moved.complete, moved.changed) == (True, 701)
    assert here(tmp_path) == there(tmp_path)
    assert (verified.complete, verified.resources[0].verified.count) == (True, 701)
    assert again.changed == 0


def test_a_killed_worker_costs_nothing_and_writes_nothing_twice(app: App, tmp_path: Path) -> None:
    fill(tmp_path, 1500)
    Counting.opened = 0
    target = tmp_path / "here/blob/shop-assets"
    seen: dict[str, int] = {}
    theirs: list[Path] = []

    def kill() -> None:
        arrived: list[Path] = []
        while len(arrived) < 60:
            time.sleep(0.002)
            arrived = [path for path in target.rglob("0*") if path.is_file()]
        other = target.parent.parent / "theirs"
        other.write_bytes(b"somebody's, and newer")
        other.replace(arrived[-1])
        theirs.append(arrived[-1])
        seen.update({str(path): path.stat().st_ino for path in arrived})
        pid = multiprocessing.active_children()[0].pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    report = migration(app, Counting(2)).apply()
    killer.join()

    key = str(theirs[0].relative_to(target))
    assert Counting.opened == 2
    assert theirs[0].read_bytes() == b"somebody's, and newer"
    assert here(tmp_path) == there(tmp_path) | {key: b"somebody's, and newer"}
    assert {path: Path(path).stat().st_ino for path in seen} == seen
    assert set(troubles(report).values()) <= {"conflict"}
    assert set(troubles(report)) <= {key}


def test_workers_that_die_again_and_again_end_the_move_with_one_error(app: App, tmp_path: Path) -> None:
    fill(tmp_path, 3)

    def die(*_: Any) -> Any:
        raise BrokenProcessPool("gone")

    workers = Inline(die)

    with pytest.raises(MigrationError, match="workers of inline were lost 5 times with the same items"):
        migration(app, workers).apply()

    assert (workers.opened, workers.closed) == (5, 5)


def test_what_a_worker_had_is_tried_again_as_something_that_was_begun(app: App, tmp_path: Path) -> None:
    fill(tmp_path, 2)
    lost = iter([True])

    def die_late(*sent: Any) -> Any:
        if next(lost, False):
            work(*sent)
            raise BrokenProcessPool("gone")
        return sent

    workers = Inline(die_late)
    report = migration(app, workers).apply()
    records = [[item.record for item, _ in batch] for batch in workers.batches]

    assert records[0] == [None, None]
    assert [(record.done, record.target) for record in records[1]] == [(False, None)] * 2
    assert (report.complete, report.changed) == (True, 0)  # all of it was adopted
    assert here(tmp_path) == there(tmp_path)


def test_another_version_in_a_worker_is_refused_with_its_name(app: App, tmp_path: Path) -> None:
    fill(tmp_path, 3)
    workers = Inline(lambda _version, *sent: ("0.0.1", *sent))

    with pytest.raises(MigrationError, match=rf"the worker .+, process \d+, has shiftable {__version__}, and 0\.0\.1"):
        migration(app, workers).apply()

    assert here(tmp_path) == {}


def test_a_worker_without_the_provider_says_which_and_where(app: App, tmp_path: Path) -> None:
    fill(tmp_path, 3)

    def alter(version: str, job: bytes, batch: bytes) -> Any:
        return version, job.replace(b'root = "there"', b'rood = "there"'), batch

    with pytest.raises(MigrationError, match=r"(?s)the worker .+, process \d+: \[?providers\.there.*rood"):
        migration(app, Inline(alter)).apply()


def test_a_worker_without_shiftable_is_told_of(app: App, tmp_path: Path) -> None:
    fill(tmp_path, 3)

    def missing(*_: Any) -> Any:
        raise ModuleNotFoundError("No module named 'shiftable'")

    with pytest.raises(
        MigrationError, match="a worker of inline could not do its part: .*every worker needs shiftable"
    ):
        migration(app, Inline(missing)).apply()


def test_large_objects_and_deletions_stay_with_the_journal(app: App, tmp_path: Path) -> None:
    fill(tmp_path, 20)
    (tmp_path / "there/blob/shop-assets/large").write_bytes(os.urandom(LARGE))
    workers = Inline()

    migration(app, workers).apply()
    sent = [item.key for batch in workers.batches for item, _ in batch]
    for path in (tmp_path / "there/blob/shop-assets/1").iterdir():
        path.unlink()
    workers.batches.clear()
    pruned = migration(app, workers, prune=True).apply()

    assert sorted(sent) == sorted(
        key for key in there(tmp_path) | {"1/00001": b"", "1/00008": b"", "1/00015": b""} if key != "large"
    )
    assert (pruned.changed, workers.batches) == (3, [])
    assert here(tmp_path) == there(tmp_path)


def test_limits_are_divided_and_no_worker_has_a_batch_in_reserve_then(app: App, tmp_path: Path) -> None:
    fill(tmp_path, 3)
    workers = Inline(slots=3)

    migration(app, workers, requests=1000.0).apply()

    assert {job.share for job in workers.jobs} == {0.25}


def test_ctrl_c_waits_for_what_runs_and_writes_it_down(app: App, tmp_path: Path) -> None:
    fill(tmp_path, 1500)

    class Interrupting(Silent):
        def on_progress(self, progress: Any) -> None:
            if progress.items >= 64:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        migration(app, Processes(1)).apply(None, Interrupting())
    arrived = len(here(tmp_path))
    rest = migration(app, None).apply()

    assert 64 <= arrived < 1500
    assert (rest.complete, arrived + rest.changed) == (True, 1500)
    assert here(tmp_path) == there(tmp_path)


def test_processes_end_with_a_move_that_is_killed_and_the_next_one_goes_on(app: App, tmp_path: Path) -> None:
    fill(tmp_path, 1500)
    script = "import sys\nfrom shiftable.cli import main\nif __name__ == '__main__':\n    main()\n"
    (tmp_path / "move.py").write_text(script)
    command = [sys.executable, "move.py", "migrate", "--from", "there", "--to", "here", "--apply"]
    target = tmp_path / "here/blob/shop-assets"
    with subprocess.Popen([*command, "--engine", "processes=2"], cwd=tmp_path, stderr=subprocess.DEVNULL) as process:
        while len(list(target.glob("[0-9]/0*"))) < 60:
            assert process.poll() is None
            time.sleep(0.002)
        children = [int(path.parent.name) for path in Path("/proc").glob("[0-9]*/stat") if parent(path) == process.pid]
        process.kill()
    while any(Path("/proc", str(pid)).exists() for pid in children):
        time.sleep(0.01)  # for ever, if they do not end
    arrived = {path: path.stat().st_ino for path in target.glob("[0-9]/0*")}
    report = migration(app, None).apply()

    assert len(children) >= 2
    assert len(arrived) < 1500
    assert report.complete
    assert here(tmp_path) == there(tmp_path)
    assert {path: path.stat().st_ino for path in arrived} == arrived


def parent(stat: Path) -> int:
    with contextlib.suppress(OSError):  # it has ended meanwhile
        return int(stat.read_text().rpartition(")")[2].split()[1])
    return 0


def test_failures_in_a_row_end_the_move_as_they_do_in_threads(app: App, tmp_path: Path) -> None:
    fill(tmp_path, 50)

    def gone(*sent: Any) -> Any:
        root = tmp_path / "here/blob/shop-assets"
        if root.exists():
            root.rename(tmp_path / "gone")
        return sent

    with pytest.raises(MigrationError, match="10 failures in a row of the kind ParentNotFound"):
        migration(app, Inline(gone)).apply()


def test_an_app_pickles_as_what_its_file_says(app: App, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_ID", "canary-4711")
    monkeypatch.setenv("SHOP_KEY", "canary-4712")
    more = '[providers.far]\ntype = "aws"\naccess_key = { env = "SHOP_ID" }\nsecret_key = { env = "SHOP_KEY" }\n'
    (tmp_path / "shiftable.toml").write_text(FILE + more)
    app = load(tmp_path)
    data = pickle.dumps(app)
    (tmp_path / "shiftable.toml").unlink()
    again = pickle.loads(data)  # noqa: S301  our own

    assert b"canary" not in data
    assert (again.config.path, again.environment) == (app.config.path, app.environment)
    assert again.declared() == app.declared()


@pytest.mark.parametrize(
    ("text", "expected"),
    [("threads", None), ("processes=3", Processes(3)), ("processes", Processes(os.cpu_count() or 1))],
)
def test_an_engine_is_named_by_a_word(text: str, expected: Workers | None) -> None:
    assert Workers.parse(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("proceses", "engines are: threads, processes[=NUMBER], dask=ADDRESS, ray[=ADDRESS]"),
        ("processes=0", "a number between 1 and 256"),
        ("processes=four", "a number between 1 and 256"),
        ("threads=4", "takes no value"),
        ("dask", "takes the scheduler's address"),
    ],
)
def test_a_wrong_engine_is_refused_with_the_choices(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Workers.parse(text)

    assert message in str(caught.value)


@pytest.mark.parametrize("name", ["dask", "ray"])
def test_a_library_that_is_missing_is_told_before_anything_is_done(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)

    with pytest.raises(ConfigError, match=rf'pip install "shiftable\[{name}\]"'):
        Workers.parse(f"{name}=tcp://127.0.0.1:1")


def test_engines_show_as_they_are_written() -> None:
    found = [Processes(2), Dask("tcp://127.0.0.1:8786"), Ray(), Ray("127.0.0.1:6379")]

    assert [*map(str, found)] == ["processes=2", "dask=tcp://127.0.0.1:8786", "ray", "ray=127.0.0.1:6379"]

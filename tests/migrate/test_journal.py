"""The journal: locked, checked before it is touched, and no more than a help to what is compared anyway."""

from __future__ import annotations

import json
import os
import random
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from shiftable.errors import MigrationError
from shiftable.migrate import Action, Trouble
from shiftable.migrate._journal import Journal, Named, Row
from shiftable.migrate.mover import Pin, Record

SCOPE = "blob.assets a>b shop"


def record(key: str, *, done: bool = False, target: str | None = None, before: str | None = None) -> Record:
    return Record(key=key, done=done, source=Pin(token="s", size=1), target=target, before=before, plan="p")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "migrate.sqlite"


def test_records_come_back_in_the_order_of_utf8_bytes_over_many_pages(path: Path) -> None:
    keys = [f"{chr(0x20 + number % 0x3000)}{number}" for number in range(2500)] + ["\U0001f600", "￿", "a/\ud800"]
    random.Random(1).shuffle(keys)  # noqa: S311  an order, no secret
    with Journal.open(path) as journal:
        journal.begin(SCOPE, [record(key) for key in keys])
        found = [each.key for each in journal.records(SCOPE)]
        other = list(journal.records("another"))

    assert found == sorted(keys, key=lambda key: key.encode("utf-8", "surrogatepass"))
    assert other == []


def test_what_arrived_is_known_after_the_journal_is_closed(path: Path) -> None:
    with Journal.open(path) as journal:
        journal.begin(SCOPE, [record("a"), record("b", before="t0"), record("c", target="t1")])
        journal.arrived(SCOPE, Row(key="a", source=Pin(token="s2", size=2, modified="m"), target="t2", sha256=b"h"))
        journal.arrived(SCOPE, Row(key="c", source=Pin(token="s"), target=None))
    with Journal.reading(path) as again:
        assert again is not None
        found = list(again.records(SCOPE))

    arrived = Record(
        key="a", done=True, source=Pin(token="s2", size=2, modified="m"), target="t2", before=None, plan="p"
    )
    assert found == [arrived, record("b", before="t0")]


def test_what_was_much_work_is_written_down_at_once(path: Path) -> None:
    small, large = Pin(token="s", size=1), Pin(token="s", size=8 * 1024 * 1024)
    with Journal.open(path) as journal, Journal.reading(path) as other:
        assert other is not None
        journal.begin(SCOPE, [record(key) for key in "abc"])
        done = []
        for key, pin in (("a", small), ("b", large), ("c", small)):
            journal.arrived(SCOPE, Row(key=key, source=pin, target="t"))
            done.append([each.key for each in other.records(SCOPE) if each.done])

    assert done == [[], ["a", "b"], ["a", "b"]]


def test_a_missing_journal_is_read_as_none_and_not_made(path: Path) -> None:
    with Journal.reading(path) as journal:
        assert journal is None
    assert not path.parent.exists()


def test_two_moves_at_once_are_refused_with_the_other_process(world: Any) -> None:
    world.source.put("a", b"1")
    running, go_on = threading.Event(), threading.Event()

    def wait(operation: str, _key: str) -> None:
        if operation == "put":
            running.set()
            go_on.wait(30)

    world.right.hook = wait
    reports: list[Any] = []
    first = threading.Thread(target=lambda: reports.append(world.migration("blob").apply()))
    first.start()
    running.wait(30)
    try:
        with pytest.raises(MigrationError, match=rf"another move is using the journal .* \(process {os.getpid()}\)"):
            world.migration("blob").apply()
        plan = world.migration("blob").plan()
    finally:
        go_on.set()
        first.join()

    assert plan.resources[0].to_do.count == 1
    assert reports[0].complete
    assert world.migration("blob").apply().changed == 0


def damaged(path: Path, how: str) -> bytes:
    content = path.read_bytes()
    if how == "truncated":
        content = content[: len(content) // 2]
    elif how == "garbage":
        content = os.urandom(len(content))
    elif how == "middle":
        content = content[:4096] + b"\xff" * (len(content) - 4096)
    path.write_bytes(content)
    return content


@pytest.mark.parametrize("how", ["truncated", "garbage", "middle"])
def test_a_damaged_journal_is_one_clear_error_and_stays_as_it_is(world: Any, how: str) -> None:
    for number in range(300):
        world.source.put(str(number), b"1")
    world.migration("blob").apply()
    path = world.migration().journal_path
    content = damaged(path, how)
    world.source.put("new", b"1")

    for call in (world.migration("blob").apply, world.migration("blob").plan):
        with pytest.raises(MigrationError, match=r"is damaged and was left as it is.*move it away and run"):
            call()

    assert path.read_bytes() == content
    assert "new" not in world.contents(world.target)
    path.unlink()
    report = world.migration("blob").apply()
    assert report.resources[0].done[Action.COMPARE].count == 300
    assert report.complete


def test_a_journal_of_another_program_is_refused_and_stays_as_it_is(world: Any) -> None:
    path = world.migration().journal_path
    path.parent.mkdir()
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE theirs (x)")
    db.close()
    content = path.read_bytes()

    with pytest.raises(MigrationError, match="another program's database"):
        world.migration().apply()

    assert path.read_bytes() == content


def test_a_journal_of_a_newer_version_is_refused(path: Path) -> None:
    Journal.open(path).close()
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()

    with pytest.raises(MigrationError, match="has version 99, this shiftable knows 2"):
        Journal.open(path)


def test_an_empty_file_becomes_a_journal(path: Path) -> None:
    path.parent.mkdir()
    path.touch()

    with Journal.open(path) as journal:
        assert list(journal.records(SCOPE)) == []


def test_a_journal_that_may_not_be_written_is_one_sentence(world: Any) -> None:
    world.state_dir.parent.joinpath(".shiftable").write_text("a file in the place of the folder")

    with pytest.raises(MigrationError, match=r"the journal .* cannot be used"):
        world.migration().apply()


FULL = """
import resource, sys
from pathlib import Path
from shiftable.errors import MigrationError
from shiftable.migrate._journal import Journal, Row
from shiftable.migrate.mover import Pin, Record

journal = Journal.open(Path(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
number = 0
try:
    while True:
        keys = [f"{number + at:09}" for at in range(64)]
        pin = Pin(token="t" * 32, size=1)
        journal.begin("s", [Record(key=k, done=False, source=pin, target=None, before=None, plan="") for k in keys])
        for key in keys:
            journal.arrived("s", Row(key=key, source=pin, target="t"))
        number += 64
except MigrationError as exc:
    print(number, exc)
"""


def test_a_full_disk_is_one_sentence_and_what_was_written_stays(path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", FULL, path], capture_output=True, text=True, check=True)
    number, _, message = done.stdout.partition(" ")

    assert "make room or correct the permissions and run the same again" in message
    with Journal.open(path) as journal:
        found = [each.done for each in journal.records("s")]
    assert int(number) > 0
    assert len(found) >= int(number)
    assert sum(found) >= int(number)


def test_a_move_whose_journal_fails_stops_and_the_next_one_adopts_what_arrived(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(200):
        world.source.put(f"{number:03}", b"1")

    def fail(self: Journal) -> Iterator[None]:
        raise MigrationError("the journal cannot be used: database or disk is full")

    monkeypatch.setattr(Journal, "flush", fail)
    with pytest.raises(MigrationError, match="disk is full"):
        world.migration("blob").apply()
    monkeypatch.undo()
    before = len(world.contents(world.target))
    report = world.migration("blob").apply()

    assert 0 < before < 200
    assert report.complete
    assert report.resources[0].done[Action.COMPARE].count == before
    assert len(world.right.writes) == 200


def test_everything_that_is_named_stands_in_the_journal_however_much(world: Any) -> None:
    for number in range(1300):
        world.source.put(f"{number:04}", b"")
    world.right.keys_refused = lambda key: "no" if key != "0000" else None

    report = world.migration("blob").apply()

    assert len(report.resources[0].named) == 1000
    assert report.resources[0].troubles == {Trouble.REFUSED: 1299}
    named = list(world.migration().named())
    assert named[-1] == Named("blob.assets", "1299", Trouble.REFUSED, "no")
    assert len(named) == 1299


def test_a_run_is_recorded_with_what_was_given_up(world: Any) -> None:
    world.source.put("a", b"1")
    world.migration("blob", degrade={"tags", "metadata"}).apply()

    with sqlite3.connect(world.migration().journal_path) as db:
        options, outcome = db.execute("SELECT options, outcome FROM run").fetchone()
    db.close()

    assert json.loads(options)["degrade"] == ["metadata", "tags"]
    assert json.loads(outcome) == {"complete": True, "changed": 1}

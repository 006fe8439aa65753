"""Large objects: parts that arrived stay, whatever happens to the others."""

from __future__ import annotations

import contextlib
import random
import sqlite3
import threading
from typing import Any

import attrs
import pytest

from shiftable.errors import Throttled, Unavailable
from shiftable.features import Limit
from shiftable.migrate import Trouble
from shiftable.migrate._journal import Journal
from shiftable.migrate._parts import Room

MIB = 1024 * 1024
CONTENT = random.Random(0).randbytes(50 * MIB)  # noqa: S311  makes up a content


class Counted:
    """Stands before the target's parts: counts them, and fails some."""

    def __init__(self, driver: Any) -> None:
        self.sent: list[int] = []
        self.fail: Any = lambda _number: None
        self._lock = threading.Lock()
        part = driver.upload_part

        def upload_part(upload: Any, number: int, data: bytes, offset: int) -> Any:
            with self._lock:
                self.fail(number)
            done = part(upload, number, data, offset)
            with self._lock:
                self.sent.append(number)
            return done

        driver.upload_part = upload_part


@pytest.fixture
def counted(world: Any) -> Counted:
    world.source.put("large", CONTENT, metadata={"m": "1"}, tags={"t": "1"})
    return Counted(world.right)


def fail_once(world: Any, counted: Counted, number: int, error: Any) -> None:
    def fail(found: int) -> None:
        if found == number:
            counted.fail = lambda _: None
            raise world.fault(error) if isinstance(error, type) and issubclass(error, Exception) else error

    counted.fail = fail


def test_a_part_that_is_refused_for_a_while_is_sent_again_and_no_other(world: Any, counted: Counted) -> None:
    fail_once(world, counted, 4, Throttled)

    report = world.migration("blob").apply()

    assert report.complete
    assert sorted(counted.sent) == [1, 2, 3, 4, 5, 6, 7]
    assert world.target.get("large") == CONTENT
    assert (world.target.stat("large").metadata, world.target.tags("large")) == ({"m": "1"}, {"t": "1"})


def test_the_next_run_sends_what_a_failed_one_did_not(world: Any, counted: Counted) -> None:
    def fail(number: int) -> None:
        if number == 5:
            raise world.fault(Unavailable)

    counted.fail = fail
    first = world.migration("blob").apply()
    arrived = list(counted.sent)
    counted.fail = lambda _: None
    counted.sent.clear()
    second = world.migration("blob").apply()

    assert [named.trouble for named in first.resources[0].named] == [Trouble.FAILED]
    assert second.complete
    assert sorted(arrived + counted.sent) == [1, 2, 3, 4, 5, 6, 7]
    assert world.target.get("large") == CONTENT


def test_an_upload_that_the_target_has_dropped_begins_anew(world: Any, counted: Counted) -> None:
    def fail(number: int) -> None:
        if number == 5:
            raise world.fault(Unavailable)

    counted.fail = fail
    world.migration("blob").apply()
    world.right._uploads.clear()
    counted.fail = lambda _: None
    counted.sent.clear()

    report = world.migration("blob").apply()

    assert report.complete
    assert {1, 2, 3, 4, 5, 6, 7} <= {*counted.sent}
    assert world.target.get("large") == CONTENT


def test_an_upload_of_another_version_or_with_other_terms_is_dropped(world: Any, counted: Counted) -> None:
    counted.fail = lambda number: (_ for _ in ()).throw(world.fault(Unavailable)) if number == 5 else None
    world.migration("blob").apply()
    counted.fail = lambda _: None
    counted.sent.clear()
    world.source.put("large", CONTENT, metadata={"m": "2"})

    report = world.migration("blob").apply()

    assert report.complete
    assert sorted(counted.sent) == [1, 2, 3, 4, 5, 6, 7]
    assert world.right._uploads == {}
    assert world.target.stat("large").metadata == {"m": "2"}


def test_a_large_object_of_somebody_else_stays_and_no_upload_is_left(world: Any, counted: Counted) -> None:
    world.make_target()

    def write(number: int) -> None:
        if number == 3:
            counted.fail = lambda _: None
            world.target.put("large", b"theirs")

    counted.fail = write
    report = world.migration("blob").apply()

    assert [named.trouble for named in report.resources[0].named] == [Trouble.CONFLICT]
    assert world.target.get("large") == b"theirs"
    assert world.right._uploads == {}


@pytest.mark.parametrize("tells_md5", [True, False])
def test_a_large_source_that_is_damaged_is_not_completed(world: Any, counted: Counted, *, tells_md5: bool) -> None:
    entries = world.left._buckets["shop-assets"].history["large"]
    info = entries[-1].info if tells_md5 else attrs.evolve(entries[-1].info, md5=None)
    entries[-1] = attrs.evolve(entries[-1], data=b"1" + CONTENT[1:] if tells_md5 else CONTENT[:-1], info=info)

    report = world.migration("blob").apply()

    assert "IntegrityError" in report.resources[0].named[0].reason
    assert world.contents(world.target) == {}


def test_a_large_object_that_changes_while_it_is_read_arrives_in_its_newest_version(
    world: Any, counted: Counted
) -> None:
    lock, gets = threading.RLock(), iter(range(100))

    def change(operation: str, _key: str) -> None:
        with lock:
            if operation == "get" and next(gets) == 2:
                world.source.put("large", CONTENT[::-1])

    world.left.hook = change
    report = world.migration("blob", concurrency=1).apply()

    assert report.complete
    assert [named.trouble for named in report.resources[0].named] == [Trouble.CHANGED]
    assert world.target.get("large") == CONTENT[::-1]
    assert world.right._uploads == {}


def test_an_interrupt_ends_a_large_object_after_the_parts_that_are_under_way(world: Any, counted: Counted) -> None:
    world.source.put("small", b"1")
    migration = world.migration("blob")

    def interrupt(number: int) -> None:
        if number == 1:
            counted.fail = lambda _: None
            migration._engine.stopping.set()

    counted.fail = interrupt
    migration.apply()
    arrived = list(counted.sent)
    counted.sent.clear()
    report = world.migration("blob").apply()

    assert report.complete
    assert sorted(arrived + counted.sent) == [1, 2, 3, 4, 5, 6, 7]


def test_parts_are_as_large_as_the_target_wants_them(world: Any, counted: Counted) -> None:
    world.right.chosen = {"max_parts": Limit(2, "the manual")}

    report = world.migration("blob").apply()

    assert report.complete
    assert sorted(counted.sent) == [1, 2]


def test_room_is_never_given_to_more_than_there_is() -> None:
    room = Room(4)
    assert (room.cost(5_000 * MIB), room.cost(1)) == (4, 1)
    assert room.take(3, block=True)
    assert not room.take(2, block=False)
    room.give(3)
    with room.of(4):
        assert not room.take(1, block=False)
    assert room.take(4, block=True)


def test_a_journal_of_the_first_version_is_brought_up_to_date(tmp_path: Any) -> None:
    path = tmp_path / "migrate.sqlite"
    with Journal.open(path) as journal:
        journal.start(plan="", options={}, at="now")
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.executescript("DROP TABLE note; PRAGMA user_version = 1;")

    with Journal.open(path) as journal:
        notes = journal.notes("blob.assets a>b shop")
        notes.write("a", "upload", "1")
        assert (notes.keys(), notes.read("a")) == (("a",), {"upload": "1"})
    with Journal.open(path) as journal:
        notes = journal.notes("blob.assets a>b shop")
        assert notes.read("a") == {"upload": "1"}
        notes.clear("a")
        assert notes.keys() == ()

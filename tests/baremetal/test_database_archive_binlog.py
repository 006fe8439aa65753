"""Parts of a binary log, the order in which they follow each other, and where a time is in it."""

from __future__ import annotations

import contextlib
import struct
import zlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shiftable.blob import BlobStore, BucketSpec
from shiftable.database.driver import BaseBackup
from shiftable.errors import Conflict, IntegrityError
from shiftable.memory.blob import MemoryBlobDriver
from shiftable_baremetal._binlog import (
    MAGIC,
    Cut,
    Event,
    Gtid,
    Join,
    Known,
    Mark,
    Part,
    Place,
    Reached,
    events_of,
    following,
)
from shiftable_baremetal._binlog_session import Stream
from shiftable_baremetal._binlog_store import BinlogStore, LogEnd
from shiftable_baremetal._faults import FilesError
from shiftable_baremetal._servers_archive_mariadb import MariadbArchive

BEGIN = datetime(2026, 11, 22, 5, 0, tzinfo=UTC)
FORMAT, GTID, LIST, ROWS, COMMIT = 15, 162, 163, 23, 16


def event(kind: int, seconds: int, size: int = 40) -> Event:
    """Return an event of so many seconds after the beginning."""
    when = int(BEGIN.timestamp()) + seconds
    return Event(struct.pack("<IBIIIH", when, kind, 1, size, 0, 0) + bytes(size - 19))


def at(seconds: float) -> datetime:
    return BEGIN + timedelta(seconds=seconds)


def transaction(*seconds: int) -> list[Event]:
    return [event(GTID, seconds[0]), *(event(ROWS, each) for each in seconds[:-1]), event(COMMIT, seconds[-1])]


def stop(cut: Cut, events: list[Event], file: int = 1) -> Place:
    offset = 4
    for each in events:
        if (found := cut.before(each, file, offset)) is not None:
            return found
        offset += len(each.data)
    return cut.held or (file, offset)


# events


@given(st.lists(st.integers(19, 100)), st.integers(1, 50))
def test_events_are_read_however_they_are_cut(sizes: list[int], step: int) -> None:
    whole = MAGIC + b"".join(event(ROWS, 0, size).data for size in sizes)
    pieces = [whole[begin : begin + step] for begin in range(0, len(whole), step)]
    assert sizes == [len(each.data) for each in events_of(pieces)]


@pytest.mark.parametrize("damaged", [b"\xfebin" + bytes(30), b"xbin" + bytes(30), MAGIC + event(ROWS, 0).data[:-1]])
def test_what_is_no_log_is_refused(damaged: bytes) -> None:
    with pytest.raises(FilesError):
        list(events_of([damaged]))


class Sending:
    """A connection over which a server sends events for ever."""

    closed = False

    def cursor(self) -> Self:
        return self

    __enter__ = cursor

    def __exit__(self, *_: object) -> None:
        """A cursor ends."""

    def execute(self, _query: str) -> None:
        """Nothing is answered."""

    def _execute_command(self, _command: int, _arguments: bytes) -> None:
        """It is asked for events."""

    def _read_packet(self) -> Self:
        return self

    def get_all_data(self) -> bytes:
        return b"\0" + event(ROWS, 0).data

    @contextlib.contextmanager
    def opened(self) -> Iterator[Any]:
        try:
            yield self
        finally:
            self.closed = True


def test_a_servers_log_that_is_read_in_part_is_closed_at_once_also_by_a_failure() -> None:
    sending = Sending()

    def fail_at_the_first() -> None:
        with Stream(sending.opened).events("log", 1, 0) as events:
            for number, _ in events:
                raise LookupError(number)

    with pytest.raises(LookupError, match="1") as caught:
        fail_at_the_first()
    assert caught.tb is not None  # which keeps what is not closed
    assert sending.closed


def test_the_next_file_is_told_with_and_without_a_checksum() -> None:
    body = struct.pack("<IBIIIH", 0, 4, 1, 19 + 8 + 8, 0, 0x20) + bytes(8) + b"a.b.0001"
    assert "a.b.0001" == Event(body).next_file
    longer = struct.pack("<IBIIIH", 0, 4, 1, 19 + 8 + 8 + 4, 0, 0x20) + bytes(8) + b"a.b.0001"
    assert "a.b.0001" == Event(longer + zlib.crc32(longer).to_bytes(4, "little")).next_file
    assert event(4, 0).next_file is None  # of the file itself: the stream goes on by another


# transactions


def begin(gtid: Gtid) -> Event:
    """Return the event with which a transaction begins."""
    header = struct.pack("<IBIIIH", int(BEGIN.timestamp()) + gtid.sequence % 100, GTID, gtid.server, 42, 0, 0)
    return Event(header + struct.pack("<QI", gtid.sequence, gtid.domain) + bytes(11))


def listed(*before: Gtid) -> Event:
    """Return the event that says what is in the files before."""
    rows = b"".join(struct.pack("<IIQ", each.domain, each.server, each.sequence) for each in before)
    header = struct.pack("<IBIIIH", 0, LIST, 1, 19 + 4 + len(rows), 0, 0)
    return Event(header + struct.pack("<I", len(before) | 0x10000000) + rows)


def reached(*events: Event) -> Reached:
    found = Reached()
    for each in events:
        found.take(each)
    return found


def test_transactions_are_named_as_servers_do() -> None:
    names = [Gtid(0, 7, 2**40), Gtid(70000, 2**31, 1)]
    assert names == [begin(each).gtid for each in names]
    assert ["0-7-1099511627776", "70000-2147483648-1"] == [str(each) for each in names]
    assert names == listed(*names).before
    assert [] == begin(names[0]).before == listed().before


def test_files_that_two_servers_have_made_in_the_same_second_are_not_the_same() -> None:
    header = [struct.pack("<IBIIIH", 5, FORMAT, server, 19, 0, 0) for server in (1, 1, 2)]
    assert [True, False] == [Event(header[0]).origin == Event(each).origin for each in header[1:]]


def test_what_a_log_has_is_told_of_each_server_in_each_domain() -> None:
    log = reached(
        event(FORMAT, 0), listed(Gtid(0, 8, 5), Gtid(0, 7, 9), Gtid(1, 7, 3)), begin(Gtid(0, 7, 10)), event(ROWS, 77)
    )
    assert {0: Gtid(0, 7, 10), 1: Gtid(1, 7, 3)} == log.last
    assert (Gtid(0, 7, 10), int(BEGIN.timestamp()) + 10) == (log.latest, log.when)
    assert all(log.has(each) for each in (Gtid(0, 7, 10), Gtid(0, 8, 5), Gtid(1, 7, 1)))
    assert not any(log.has(each) for each in (Gtid(0, 7, 11), Gtid(0, 8, 6), Gtid(0, 9, 1), Gtid(2, 7, 1)))
    assert reached(event(FORMAT, 0), listed(Gtid(0, 7, 9))).latest is None


def test_what_is_known_of_a_log_is_all_until_one_transaction_of_each_domain() -> None:
    known = Known({0: Gtid(0, 7, 10), 1: Gtid(1, 7, 3)})
    names = [Gtid(0, 8, 9), Gtid(2, 8, 1), Gtid(0, 7, 10), Gtid(0, 8, 4), Gtid(1, 7, 3), Gtid(1, 7, 4)]
    assert not known.knows(listed(Gtid(0, 8, 8)))
    assert [True, False, True, False, True, False] == [known.knows(begin(each)) for each in names]
    assert {} == known.last
    passed = Known({0: Gtid(0, 7, 10)})
    passed.knows(listed(Gtid(0, 7, 10), Gtid(0, 8, 11)))
    assert {} == passed.last


# parts


@given(st.builds(Part, st.integers(1, 99999), st.integers(0, 10**9), st.integers(0, 2**40), st.integers(0, 2**40)))
def test_a_part_is_its_name(part: Part) -> None:
    assert part == Part.read(part.name)


def test_parts_follow_each_other_until_there_is_a_hole() -> None:
    first, last, second = Part(1, 7, 0, 10), Part(1, 7, 10, 15, last=True), Part(1, 8, 0, 9)
    partial, other = Part(1, 8, 9), Part(2, 8, 9, 20)
    parts = [first, last, second, partial, other]
    assert [first, last, second, partial] == [part for part, _ in following(parts, 1, 7)]
    assert [second, partial] == [part for part, _ in following(parts, 1, 8)]
    for lost in (first, last, second):
        left = [part for part in parts if part != lost]
        assert parts[: parts.index(lost)] == [part for part, _ in following(left, 1, 7)]


def test_parts_that_two_archivers_have_stored_overlap() -> None:
    parts = [Part(1, 7, 0, 10), Part(1, 7, 0, 12), Part(1, 7, 10, 20), Part(1, 7, 20, 20, last=True), Part(1, 7, 10)]
    wanted = [(Part(1, 7, 0, 12), 0), (Part(1, 7, 10, 20), 2), (Part(1, 7, 20, 20, last=True), 0)]
    assert wanted == list(following(parts, 1, 7))


# times


def test_a_transaction_counts_by_the_whole_seconds_of_its_statements() -> None:
    log = [event(FORMAT, -9999), *transaction(1, 1), *transaction(2, 3), *transaction(3, 3)]
    ends = [4 + 40, 4 + 40 + 120, 4 + 40 + 240, 4 + 40 + 360]
    for seconds, end in ((1, 0), (1.9, 0), (2, 1), (3, 1), (3.9, 1), (4, 3)):
        assert (1, ends[end]) == stop(Cut(at(seconds), (1, 4), (1, 999)), log)


def test_what_was_seen_counts_more_than_what_events_say() -> None:
    log = [*transaction(500, 500), *transaction(1, 1), *transaction(1, 1)]
    marks = [
        Mark(file=1, offset=124, first=at(3), last=at(4)),
        Mark(file=1, offset=244, first=at(6), last=at(8)),
    ]
    for seconds, end in ((2, 4), (3, 124), (4, 124), (5, 244), (6, 244), (8, 244), (9, 364)):
        assert (1, end) == stop(Cut.at(at(seconds), marks, (1, 4), (1, 364)), log), seconds


@pytest.mark.parametrize(
    ("said", "count"),
    [
        ((500, 3), 2),
        ((500, 500, 3), 3),
        ((500, 3, 500), 2),
        ((500, 7), 0),
        ((3, 500, 7), 1),
        ((500,), 0),
        ((500, 500), 0),
        ((3, 500), 1),
        ((11, 3), 2),
        ((10, 3), 0),  # the clock had that time when they were seen
    ],
)
def test_a_time_that_the_clock_had_not_yet_tells_nothing_but_later_ones_do(said: tuple[int, ...], count: int) -> None:
    end = 4 + 120 * len(said)
    marks = [
        Mark(file=1, offset=4, first=at(1), last=at(2)),
        Mark(file=1, offset=end, first=at(10), last=at(12)),
        Mark(file=1, offset=end + 120, first=at(600), last=at(601)),
    ]
    log = [event for each in (*said, 599) for event in transaction(each, each)]
    assert (1, 4 + 120 * count) == stop(Cut.at(at(5), marks, (1, 4), (1, end + 120)), log)


def test_a_transaction_says_nothing_of_another_time_that_it_has_itself() -> None:
    marks = [Mark(file=1, offset=4, first=at(1), last=at(2)), Mark(file=1, offset=164, first=at(10), last=at(11))]
    assert (1, 4) == stop(Cut.at(at(5), marks, (1, 4), (1, 164)), transaction(500, 3, 3))


def test_a_clock_that_was_set_back_has_a_time_twice_and_the_later_one_counts() -> None:
    log = [*transaction(10, 10), *transaction(20, 20), *transaction(12, 12), *transaction(14, 14), *transaction(16, 16)]
    ends = [4 + 120 * number for number in range(len(log) // 3 + 1)]
    clocks = (11, 21, 13, 15, 17)
    marks = [
        Mark(file=1, offset=offset, first=at(clock + 0.1), last=at(clock))
        for offset, clock in zip(ends[1:], clocks, strict=True)
    ]
    expected = {10: 0, 11.5: 1, 13.5: 3, 15: 4, 16: 4, 17: 5, 18: 1, 19: 1, 21: 2}
    for seconds, count in expected.items():
        assert (1, ends[count]) == stop(Cut.at(at(seconds), marks, (1, 4), (1, ends[-1])), log), seconds


@pytest.mark.parametrize("looked", [False, True])
@pytest.mark.parametrize("first", [13.1, 14.6])
def test_a_base_backup_after_the_clock_was_set_back_begins_there(*, looked: bool, first: float) -> None:
    """Whether or not anybody looked at the log between the two, and however late at what followed."""
    log = [*transaction(20, 20), *transaction(12, 12), *transaction(14, 14)]
    marks = [Mark(file=1, offset=124, first=at(20.6), last=at(21))]
    if looked:
        marks.append(Mark(file=1, offset=124, first=at(11.1), last=at(11)))
    marks += [
        Mark(file=1, offset=244, first=at(first), last=at(first)),
        Mark(file=1, offset=364, first=at(16.1), last=at(17)),
    ]
    for seconds, count in {11: 1, 13: 2, 14: 2, 16: 3, 17: 3}.items():
        cut = Cut.at(at(seconds), marks, (1, 124), (1, 364), since=at(10.9))
        assert (1, 4 + 120 * count) == stop(cut, log), seconds


def test_a_base_backup_of_a_log_that_rests_is_followed_by_nothing() -> None:
    marks = [
        Mark(file=1, offset=124, first=at(3.1), last=at(9)),
        Mark(file=1, offset=244, first=at(10.1), last=at(11)),
    ]
    log = [*transaction(1, 1), *transaction(2, 2)]  # whose session had a clock of its own
    assert (1, 124) == stop(Cut.at(at(8), marks, (1, 124), (1, 244), since=at(5)), log)


@given(st.lists(st.tuples(st.integers(1, 5), st.integers(0, 30)), max_size=20), st.integers(0, 40))
def test_nothing_later_is_there_and_all_that_was_seen_is_if_each_second_is_watched(
    log: list[tuple[int, int]], seconds: int
) -> None:
    """Transactions take seconds; what their events say may be anything: clocks jump, and sessions set theirs."""
    events, commits, clock = list[Event](), list[int](), 0
    for takes, said in log:
        clock += takes
        commits.append(clock)
        events += transaction(said, said)
    marks = []
    for tick in range(clock + 2):
        offset = 4 + 120 * sum(1 for when in commits if when <= tick)
        marks.append(Mark(file=1, offset=offset, first=at(tick + 0.6), last=at(tick + 0.4)))
    _, end = stop(Cut.at(at(seconds), marks, (1, 4), (1, 4 + 120 * len(commits))), events)
    seen = 4 + 120 * sum(1 for when in commits if when <= seconds - 1)
    later = 4 + 120 * sum(1 for when in commits if when <= seconds)
    assert seen <= end <= later


# the bucket


def store() -> BinlogStore:
    blobs = BlobStore(MemoryBlobDriver())
    blobs.create(BucketSpec(name="b"))
    return BinlogStore(lambda: blobs.bucket("b"), "office/")


def test_a_finished_part_takes_the_place_of_the_one_that_was_written() -> None:
    archive, whole = store(), Part(1, 7, 0, 6)
    archive.put_partial(Part(1, 7, 0), b"\xfebina")
    assert b"\xfebina" == b"".join(archive.read(Part(1, 7, 0)))
    archive.put(whole, b"\xfebinab")
    archive.put(whole, b"\xfebinab")  # a killed archiver's, again
    assert [whole] == archive.parts()
    assert b"\xfebinab" == b"".join(archive.read(Part(1, 7, 0)))  # which a reader had listed before
    with pytest.raises(FilesError) as caught:
        archive.put(whole, b"\xfebinxx")
    assert caught.value.fault.error is Conflict
    with pytest.raises(FilesError) as caught:
        list(archive.read(Part(1, 9, 0, 4)))
    assert caught.value.fault.error is IntegrityError


def test_who_was_overtaken_while_it_slept_stores_nothing_over_what_its_successor_has() -> None:
    """One that a lock kept out is let in when the first one's connection is gone."""
    archive, begun = store(), Part(1, 7, 0)
    first = archive.put_partial(begun, b"\xfebina")
    archive.put_partial(begun, b"\xfebinabc")
    with pytest.raises(FilesError, match="another process archives the server") as caught:
        archive.put_partial(begun, b"\xfebinab", first)
    assert caught.value.fault.error is Conflict
    archive.put(Part(1, 7, 0, 6), b"\xfebinab", first)
    assert b"\xfebinabc" == b"".join(archive.read(begun))
    latest = archive.put_partial(begun, b"\xfebinabcd")
    archive.put(Part(1, 7, 0, 8), b"\xfebinabcd", latest)
    assert begun not in archive.parts()
    with pytest.raises(FilesError):
        archive.put_partial(begun, b"\xfebinab", latest)  # it is finished


@pytest.mark.parametrize("feature", ["if_match", "delete_if_match"])
def test_a_bucket_that_knows_no_conditions_is_written_to_as_ever(feature: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MemoryBlobDriver, "features", attrs.evolve(MemoryBlobDriver().features, **{feature: False}))
    archive, begun = store(), Part(1, 7, 0)
    token = archive.put_partial(begun, b"\xfebina")
    archive.put(Part(1, 7, 0, 6), b"\xfebinab", archive.put_partial(begun, b"\xfebinab", token))
    assert [Part(1, 7, 0, 6)] == archive.parts()


def test_notes_are_read_as_they_were_written() -> None:
    archive, end = store(), LogEnd(until=at(1.5), after=at(1.6), latest=at(4), epoch=1, file=7, offset=9)
    marks = [Mark(file=7, offset=9, first=at(1), last=at(1.5))]
    assert archive.archived() is None
    archive.write_archived(end)
    archive.write_times(Part(1, 7, 0), marks)
    archive.write_times(Part(2, 7, 0), [])
    assert (end, at(4)) == (archive.archived(), archive.until())
    assert marks == archive.times(1, 7)
    archive.end_epoch()
    assert [*marks, end.mark] == archive.times(1, 7)
    assert [] == archive.times(1, 8)


def test_joins_are_read_as_they_were_written_and_count_epochs() -> None:
    archive = store()
    assert 1 == archive.next_epoch()
    archive.put(Part(1, 7, 0, 4), MAGIC)
    join = Join(before=1, end=(7, 9), epoch=2, server=8, first=3, to=(4, 99), last=[Gtid(0, 7, 10)])
    archive.write_join(join)
    assert [join] == archive.joins()
    assert 3 == archive.next_epoch()


def test_what_a_stored_log_has_is_told_until_its_end_also_if_its_last_transaction_is_in_another_file() -> None:
    archive, names = store(), [Gtid(0, 7, number) for number in range(1, 4)]
    files = [
        [event(FORMAT, 0), listed(), *map(begin, names[:2])],
        [event(FORMAT, 0), listed(names[1])],
        [event(FORMAT, 0), listed(names[1]), begin(names[2])],
    ]
    for number, events in enumerate(files):
        data = MAGIC + b"".join(each.data for each in events)
        archive.put(Part(1, number, 0, len(data), last=True), data)
    head = 4 + 40 + len(listed(names[1]).data)

    def until(file: int, offset: int) -> Reached:
        return archive.reached(LogEnd(until=at(1), after=at(1), latest=at(1), epoch=1, file=file, offset=offset))

    assert (names[2], {0: names[2]}) == (until(2, head + 42).latest, until(2, head + 42).last)
    for file, offset in ((2, head), (1, head)):
        found = until(file, offset)
        assert (names[1], int(BEGIN.timestamp()) + 2, {0: names[1]}) == (found.latest, found.when, found.last)
    assert until(0, 4 + 40 + 23).latest is None


def test_what_is_too_old_is_told_by_the_servers_clock_whatever_the_names() -> None:
    archive, made = store(), []
    for seconds in (3, 1, 2):
        known = {"version": "10.11.1", "epoch": 1, "file": 1, "offset": 4, "made": 1, "server": 1, "settings": {}}
        finish = {**known, "restorable_from": at(seconds)}
        made.append(archive.add(iter([b"SELECT 1;"]), lambda _, finish=finish: dict(finish)))  # type: ignore[misc]
    archive.prune(at(2.5))
    assert [made[0], made[2]] == archive.bases()
    archive.prune(at(9))
    assert [made[0]] == archive.bases()


def test_a_clock_of_this_machine_that_runs_ahead_deletes_nothing(tmp_path: Path) -> None:
    archive, now, made = store(), datetime.now(UTC), []
    archived = now - timedelta(days=30)
    archive.write_archived(LogEnd(until=archived, after=archived, latest=archived, epoch=1, file=1, offset=4))
    for days in (40, 39, 31):
        known = {"version": "10.11.1", "epoch": 1, "file": 1, "offset": 4, "made": 1, "server": 1, "settings": {}}
        finish = {**known, "restorable_from": now - timedelta(days=days)}
        made.append(archive.add(iter([b"SELECT 1;"]), lambda _, finish=finish: dict(finish)))  # type: ignore[misc]
    nobody: Any = None
    MariadbArchive(nobody, archive, tmp_path, 7)._make_room()
    assert made[1:] == archive.bases()


def test_pruning_leaves_the_log_that_base_backups_need() -> None:
    archive = store()
    for file in (7, 8, 9):
        archive.put(Part(1, file, 0, 4, last=True), MAGIC)
        archive.write_times(Part(1, file, 0), [])
    made = []
    for number, file in enumerate((7, 9)):
        known = {"version": "10.11.1", "epoch": 1, "file": file, "offset": 4, "made": 1, "server": 1, "settings": {}}
        finish = {**known, "restorable_from": at(number)}
        made.append(archive.add(iter([b"SELECT 1;"]), lambda _, finish=finish: dict(finish)))  # type: ignore[misc]
    assert made == archive.bases()
    assert b"SELECT 1;" == b"".join(archive.data(made[0]))
    assert isinstance(made[0].backup, BaseBackup)
    archive.prune(at(0.5))
    assert 2 == len(archive.bases())
    archive.prune(at(9))
    assert [made[1]] == archive.bases()
    assert [9] == [part.file for part in archive.parts()]
    assert 1 == len(list(archive._bucket().list("office/server/times/")))
    archive.remove(made[1].backup.name)
    assert [9] == [part.file for part in archive.parts()]  # the next base backup begins there

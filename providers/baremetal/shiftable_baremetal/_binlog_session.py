"""What an archiver asks a MariaDB server: how far its log is, and for the log."""

from __future__ import annotations

import secrets
import struct
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, closing
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, cast

import attrs

from shiftable.errors import Conflict, IntegrityError, PermissionDenied
from shiftable_baremetal._archive import GapError
from shiftable_baremetal._binlog import MAGIC, Event, Place
from shiftable_baremetal._servers_engine import fail
from shiftable_baremetal._servers_mariadb import MariadbSession

if TYPE_CHECKING:
    from pymysql.connections import Connection

__all__ = ["BinlogSession", "Seen", "Stream"]

_DUMP = 0x12  # COM_BINLOG_DUMP: MariaDB documentation, "COM_BINLOG_DUMP"
_UNTIL_THE_END, _WITH_STATEMENTS = 1, 2  # BINLOG_DUMP_NON_BLOCK, BINLOG_SEND_ANNOTATE_ROWS_EVENT
_NOBODY = 0  # a number that no replica has: none of them is disconnected in favour of this one
_END = 0xFE
_IN_32_BITS = 2**32
_REFUSED = 1236  # ER_MASTER_FATAL_ERROR_READING_BINLOG
_GONE = ("Could not find first log file name", "impossible position")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NEEDED = {"REPLICATION SLAVE", "BINLOG MONITOR"}
_PREPARE = "SET @master_binlog_checksum = @@GLOBAL.binlog_checksum, @mariadb_slave_capability = 4"


@attrs.frozen(kw_only=True)
class Seen:
    """How far the log was.

    Args:
        before: the server's time right before.
        after: the server's time right after.
        stem: what its files are called, but for their numbers.
        place: where it ended.
    """

    before: datetime
    after: datetime
    stem: str
    place: Place


@attrs.frozen
class BinlogSession(MariadbSession):
    """One connection of a user who may read the log."""

    def check(self) -> None:
        """Fail unless the log of this server can be archived by this user, and replayed."""
        self.check_rights()
        ((on, form, encrypted),) = self._rows("SELECT @@log_bin, @@GLOBAL.binlog_format, @@encrypt_binlog")
        if not on:
            fail(Conflict, "the server writes no binary log: give it log_bin and binlog_format = ROW, and restart it")
        if form != "ROW":
            why = f"the server's log has statements (binlog_format = {form}), which do another thing when replayed"
            fail(Conflict, f"{why}: SET GLOBAL binlog_format = 'ROW', and in its configuration")
        if encrypted:
            fail(Conflict, "the server's log is encrypted (encrypt_binlog), and such a log is not archived")
        lacking = self.lacking(_NEEDED)
        if lacking:
            fail(PermissionDenied, f"the server's user has no {', '.join(lacking)}: GRANT {', '.join(lacking)} ON *.*")
        (status,) = self._rows("SHOW MASTER STATUS")
        if any(status[2:4]):
            fail(Conflict, "the server leaves databases out of its log (binlog_do_db, binlog_ignore_db)")
        if self._rows("SHOW ALL SLAVES STATUS"):
            fail(Conflict, "the server is a replica: name its primary")

    def system(self) -> str:
        """Return what names the server and its replicas, and no other one."""
        self.make_table("archive", "id CHAR(16) CHARACTER SET ascii NOT NULL PRIMARY KEY")
        if not self._rows("SELECT id FROM shiftable.archive"):
            query = "INSERT INTO shiftable.archive (id) SELECT %s WHERE NOT EXISTS (SELECT 1 FROM shiftable.archive)"
            self._do(query, secrets.token_hex(8))
        return str(self._rows("SELECT MIN(id) FROM shiftable.archive")[0][0])

    def number(self) -> int:
        """Return the server's number in its log."""
        return int(self._rows("SELECT @@GLOBAL.server_id")[0][0])

    def settings(self) -> dict[str, str]:
        """Return the settings that a server must have, too, which is to hold the same."""
        ((names, page),) = self._rows("SELECT @@lower_case_table_names, @@innodb_page_size")
        return {"lower-case-table-names": str(names), "innodb-page-size": str(page)}

    def alone(self, archive: str) -> bool:
        """Be the only archiver until the session ends; false if there is another one."""
        self._rows("SET SESSION wait_timeout = 604800")
        return self._rows("SELECT GET_LOCK(%s, 0)", f"shiftable archive {archive}") == [(1,)]

    def now(self) -> Seen:
        """Return the server's time, and how far its log is."""
        before = self._time()
        ((name, offset, *_),) = self._rows("SHOW MASTER STATUS")
        stem, number = _split(name)
        return Seen(before=before, after=self._time(), stem=stem, place=(number, int(offset)))

    def files(self) -> tuple[str, list[int]]:
        """Return what the files of its log are called but for their numbers, and those, in order."""
        stem, numbers = "", list[int]()
        for name, *_ in self._rows("SHOW BINARY LOGS"):
            stem, number = _split(name)
            numbers.append(number)
        return stem, numbers

    def _time(self) -> datetime:
        ((seconds,),) = self._rows("SELECT UNIX_TIMESTAMP(SYSDATE(6))")
        return _EPOCH + timedelta(microseconds=int(seconds * 1_000_000))


@attrs.frozen
class Stream:
    """The log as the server sends it to replicas, each time over a connection of its own, which it closes.

    It sends what there is and ends. Replication's other way, to wait for more, would need a number that a replica
    may have: the server would end that one's connection.
    """

    _connect: Callable[[], AbstractContextManager[Connection[Any]]]

    def events(self, stem: str, file: int, offset: int) -> closing[Generator[tuple[int, Event]]]:
        """Open all events from an offset of a file on, each with the number of its file, and how each file begins.

        Raises:
            GapError: while they are read; the server has no such file any more, or not so much of it.
        """
        return closing(self._events(stem, file, offset))

    def _events(self, stem: str, file: int, offset: int) -> Generator[tuple[int, Event]]:
        from pymysql.err import OperationalError

        # Offsets are of 32 bits; a transaction may be larger.
        start = max(offset, len(MAGIC)) if offset < _IN_32_BITS else len(MAGIC)
        skipped, sent = offset > start, start
        number = file
        with self._connect() as connection:
            with connection.cursor() as cursor:
                cursor.execute(_PREPARE)
            name = f"{stem}.{file:06d}"
            asked = struct.pack("<IHI", start, _UNTIL_THE_END | _WITH_STATEMENTS, _NOBODY) + name.encode()
            try:
                for data in _packets(connection, asked):
                    event = Event(data)
                    if (name_of_next := event.next_file) is not None:
                        following = _split(name_of_next)[1]
                        if following not in {number, number + 1}:
                            raise GapError(f"the server's log goes on in {name_of_next} after file {number}")
                        skipped, number = skipped and following == number, following
                        continue
                    if skipped:
                        sent += len(data)
                        skipped = sent < offset
                        if not event.begins_file:
                            continue
                    yield number, event
            except OperationalError as exc:
                if exc.args[0] == _REFUSED and any(words in str(exc) for words in _GONE):
                    why = f"the server does not have its log {name} from {offset} on any more"
                    raise GapError(f"{why}: it was purged or reset (RESET MASTER), or this is another server") from exc
                raise

    def first_event(self, stem: str, file: int) -> Event:
        """Return how a file begins.

        Raises:
            GapError: the server has no such file any more.
        """
        with self.events(stem, file, 0) as events:
            for _, event in events:
                return event
        return fail(IntegrityError, f"the server's log {stem}.{file:06d} is empty")


def _packets(connection: Connection[Any], asked: bytes) -> Iterator[bytes]:
    """Send the command, and yield what each packet of the answer holds."""
    inner: Any = connection  # replication is no part of PyMySQL's interface
    inner._execute_command(_DUMP, asked)  # noqa: SLF001
    while True:
        data = cast("bytes", inner._read_packet().get_all_data())  # noqa: SLF001
        if data[0] == _END and len(data) < 9:  # else it is an event of 16 MiB
            return
        yield data[1:]


def _split(name: str) -> tuple[str, int]:
    stem, _, number = name.rpartition(".")
    return stem, int(number)

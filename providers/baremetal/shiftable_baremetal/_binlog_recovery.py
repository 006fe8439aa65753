"""A whole MariaDB server as it was at a time: a private one, made of a dump and the binary log after it, for a while.

The log is replayed as replicas do: its files lie there as relay logs, and nobody is asked for more. So what is of users
and rights is left out by the server itself: it has none but this one, and nobody else reaches it.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from os import geteuid
from pathlib import Path
from typing import IO, Any, cast

import attrs

from shiftable.errors import ConfigError, IntegrityError
from shiftable.masking import Masked
from shiftable_baremetal._binlog import MAGIC, Cut, Join, Known, Mark, Part, Place, events_of, following
from shiftable_baremetal._binlog_store import BinlogStore, Dump
from shiftable_baremetal._recovery_places import check_room, own_place, watched_room
from shiftable_baremetal._servers_engine import Access, fail
from shiftable_baremetal._servers_mariadb import MariadbEngine
from shiftable_baremetal._servers_programs import Command, leashed, loaded

__all__ = ["recovered"]

_STEP = 0.05
_START = 120  # seconds for an empty server to come up
_REPLAY = 24 * 3600  # seconds for the log to be replayed
_ROOM = 1024 * 1024 * 1024  # bytes beside the data and the log
_OWN = 256 * 1024 * 1024  # bytes of a server that holds nothing, which has to start with that
_GROWN = 3  # a dump's tables are at most so many times as large, with their indexes
_TABLES = ("system_tables.sql", "performance_tables.sql", "system_tables_data.sql")
_FOLDERS = ("/usr/sbin", "/usr/local/sbin")  # which the PATH of a user may lack
_VERSION = re.compile(r"Ver (\d+)\.(\d+)\.\d+-MariaDB")
# A view whose definer may not see it is told with the name of its database before each column, and fits no other one.
_DEFINERS = """
SELECT definer FROM information_schema.views UNION SELECT definer FROM information_schema.triggers
UNION SELECT definer FROM information_schema.routines UNION SELECT definer FROM information_schema.events
"""
_SETTINGS = (
    "--skip-networking",
    "--gdb",  # it ends by the signal that a leash sends
    "--skip-slave-start",
    "--relay-log=relay",
    "--skip-relay-log-purge",
    "--replicate-same-server-id",
    "--replicate-wild-ignore-table=mysql.%",
    "--replicate-wild-ignore-table=sys.%",
    "--event-scheduler=OFF",
    "--max-allowed-packet=1G",
    "--slave-max-allowed-packet=1G",
    "--innodb-strict-mode=OFF",
)


@contextlib.contextmanager
def recovered(
    store: BinlogStore, base: Dump, when: datetime, folder: Path, programs: Path | None
) -> Iterator[MariadbEngine]:
    """Run the server as it was at a time, until the end of the block; then nothing of it is left.

    Args:
        folder: for such servers; each has its own below.
        programs: where MariaDB's are; else on the ``PATH``.

    Raises:
        ConfigError: there is no server of the dump's version or a later one.
        FilesError: the disk is too small; what is stored is damaged, or has a gap.
    """
    program = _server_program(programs, base.backup.version)
    stretches = _stretches(store, base, when)
    log = sum(max(part.end - part.begin, 0) for stretch in stretches for part, _ in stretch.chain)
    check_room(folder, base.unpacked * _GROWN + log + _ROOM)
    with _own_place(folder) as place, watched_room(place) as ends:
        data = place / "data"
        data.mkdir(mode=0o700)
        end = _written(store, base, stretches, data)
        with _running(program, place, base.settings, programs, ends) as engine:
            loaded(engine.load_all(), store.data(base))
            joins = [stretch.join for stretch in stretches if stretch.join is not None]
            _replay(engine, base, [base.server, *(join.server for join in joins)], end)
            yield engine


def _own_place(folder: Path) -> contextlib.AbstractContextManager[Path]:
    return own_place(folder, lambda place: shutil.rmtree(place, ignore_errors=True))


# the log


@attrs.frozen
class _Stretch:
    """What of one server's log is wanted.

    Args:
        join: how it goes on from another one's; ``None``: it follows the base backup.
    """

    chain: Sequence[tuple[Part, int]]
    cut: Cut
    join: Join | None


def _stretches(store: BinlogStore, base: Dump, when: datetime) -> list[_Stretch]:
    """Return where the log of a time is: in that of the base backup's server, and those of servers that took over."""
    found, archived, joins = list[_Stretch](), store.archived(), store.joins()
    epoch, file, least, join = base.epoch, base.file, base.place, None
    since: datetime | None = base.backup.restorable_from
    while True:
        marks, following_join = store.times(epoch, file), None
        if archived is not None and archived.epoch == epoch:
            cut = Cut.at(when, [*marks, archived.mark], least, archived.mark.place, since)
        else:
            following_join = max((each for each in joins if each.before == epoch), key=_epoch, default=None)
            if following_join is None or any(mark.last >= when for mark in marks):
                following_join, cut = None, _cut_of_ended(base, marks, when, least, since)
            else:
                cut = Cut(when, following_join.end, following_join.end)
        chain = list(following(store.parts(), epoch, file))  # listed after what says how far it goes
        found.append(_Stretch(chain, cut, join))
        if following_join is None:
            return found
        join, epoch, since = following_join, following_join.epoch, None
        file, least = following_join.first, following_join.to


def _epoch(join: Join) -> int:
    return join.epoch


def _cut_of_ended(base: Dump, marks: Sequence[Mark], when: datetime, least: Place, since: datetime | None) -> Cut:
    """Return where the log of a time ends, in one after which there is a gap, or a time that is too late."""
    last = max((mark.last for mark in marks), default=base.backup.restorable_from)
    if when > last:
        why = f"the log after the base backup {base.backup.name} has a gap from {last:%Y-%m-%d %H:%M:%S} UTC on"
        fail(IntegrityError, f"{why}; times after it are restored only from a later base backup")
    return Cut.at(when, marks, least, max(mark.place for mark in marks), since)


def _written(store: BinlogStore, base: Dump, stretches: Sequence[_Stretch], data: Path) -> Place:
    """Write the log of a time as relay logs, and return the number of the last one and its size."""
    last, size = 0, 0
    for stretch in stretches:
        known = None if stretch.join is None else stretch.join.known()
        begin = base.place if stretch.join is None else stretch.join.to
        reached, stop = (begin[0], 0), None
        for file in dict.fromkeys(part.file for part, _ in stretch.chain):
            path = data / f"relay.{last + 1:06d}"
            chain = [each for each in stretch.chain if each[0].file == file]
            with path.open("wb") as sink:
                stop, end = _write(store, base, chain, stretch.cut, known, sink)
                written = sink.tell()
            if stop is not None and written == len(MAGIC) and last:
                path.unlink()  # nothing of it is wanted
                break
            reached, last, size = (file, end), last + 1, written
            if stop is not None:
                break
        if reached < begin or (stop is None and reached < stretch.cut.most):
            why = f"the log after the base backup {base.backup.name} has a gap: file {reached[0]} ends at {reached[1]}"
            fail(IntegrityError, f"{why}; times after it are restored only from a later base backup")
    (data / "relay.index").write_text("".join(f"./relay.{number:06d}\n" for number in range(1, last + 1)))
    return last, size


def _write(
    store: BinlogStore, base: Dump, chain: Sequence[tuple[Part, int]], cut: Cut, known: Known | None, sink: IO[bytes]
) -> tuple[Place | None, int]:
    """Write one file until the cut, but for what is known; return the cut, if it is there, and how far this came."""
    part, offset, left_out = chain[0][0], len(MAGIC), False
    sink.write(MAGIC)
    for event in events_of(store.content(chain)):
        if (part.epoch, part.file, offset) == (base.epoch, base.file, len(MAGIC)) and event.when != base.made:
            what = f"file {part.file} of the stored log is not the one after the base backup {base.backup.name}"
            fail(IntegrityError, what)
        if (stop := cut.before(event, part.file, offset)) is not None:
            break
        if known is not None and (event.begins_transaction or event.before):
            left_out = known.knows(event)
        offset += len(event.data)
        if event.of_the_file or not left_out:
            sink.write(event.data)
    else:
        stop = cut.held
    if stop is None:
        return None, offset
    sink.truncate(max(sink.tell() - (offset - stop[1]), len(MAGIC)))
    sink.seek(0, 2)
    return stop, stop[1]


# the server


def _server_program(programs: Path | None, version: str) -> Path:
    """Return the server program, of that version or a later one."""
    wanted = _series(version)
    folders = [programs, programs / "bin", programs / "sbin"] if programs else [None, *map(Path, _FOLDERS)]
    here = []
    for folder in folders:
        for name in ("mariadbd", "mysqld"):
            if (found := shutil.which(name, path=folder)) is not None:
                series = _series_of(found)
                if series >= wanted:
                    return Path(found)
                here.append(".".join(map(str, series)))
    needed = ".".join(map(str, wanted))
    how = f"apt-get install mariadb-server-core, {needed} or later"
    why = f"to restore a time MariaDB {needed} runs on this machine for a while ({how})"
    raise ConfigError(f"{why}; here: {', '.join(here) or 'none'}")


def _series_of(program: str) -> tuple[int, int]:
    """Ask a server program for its version; another one than MariaDB's has 0.0."""
    told = subprocess.run([program, "--version"], capture_output=True, text=True, check=False).stdout  # noqa: S603
    found = _VERSION.search(told)
    return (int(found[1]), int(found[2])) if found is not None else (0, 0)


def _series(version: str) -> tuple[int, int]:
    major, minor, *_ = version.split(".")
    return int(major), int(minor)


def _share(program: Path) -> Path:
    """Return the folder with the statements that make the server's own tables."""
    above = program.resolve().parent.parent
    for folder in (above / "share/mysql", above / "share/mariadb", above / "share"):
        if _scripts(folder):
            return folder
    raise ConfigError(f"{above}/share has no mysql_system_tables.sql: install all of MariaDB's server")


def _scripts(folder: Path) -> list[Path]:
    for stem in ("mariadb", "mysql"):
        found = [folder / f"{stem}_{name}" for name in _TABLES]
        if all(path.is_file() for path in found):
            return found
    return []


@contextlib.contextmanager
def _running(
    program: Path, place: Path, settings: Mapping[str, str], programs: Path | None, ends: list[Callable[[], None]]
) -> Iterator[MariadbEngine]:
    """Make an empty server and run it, with none of this machine's settings, until the end of the block.

    Args:
        ends: gets what ends it earlier.
    """
    check_room(place.parent, _OWN)
    share, nothing = _share(program), place / "nothing"
    nothing.mkdir(mode=0o700)
    plain = [
        "--no-defaults",
        f"--datadir={place / 'data'}",
        f"--tmpdir={place}",
        f"--lc-messages-dir={share}",
        f"--character-sets-dir={share / 'charsets'}",
        f"--plugin-dir={nothing}",  # what comes from a bucket loads no library, and reads and writes no file
        f"--secure-file-priv={nothing}",
        "--innodb-flush-log-at-trx-commit=0",
        "--skip-innodb-doublewrite",
        *(f"--{name}={value}" for name, value in settings.items()),
        *(("--user=root",) if geteuid() == 0 else ()),
    ]
    tables = [path.read_bytes() for path in _scripts(share)]
    loaded(_command(program, *plain, "--bootstrap"), [b"CREATE DATABASE mysql;\nUSE mysql;\n", *tables])
    with tempfile.TemporaryDirectory(prefix="shiftable-") as short:  # a socket's path has at most 107 bytes
        socket = Path(short) / "socket"
        access = Access(host=str(socket), port=3306, user="root", password=None, tls=False, ca=None)
        engine = MariadbEngine(access, programs)
        command = _command(program, *plain, *_SETTINGS, f"--socket={socket}")
        with leashed(command, patience=0) as process:  # nobody needs its files
            ends.append(cast("IO[bytes]", process.stdin).close)
            end = time.monotonic() + _START
            while not socket.exists():
                if process.poll() is not None or time.monotonic() > end:
                    break
                time.sleep(_STEP)
            if process.poll() is None:
                yield engine
                return
        fail(IntegrityError, "the server that was to replay the log has ended")


def _command(program: Path, *arguments: str) -> Command:
    return Command(program=program, arguments=arguments, secret=Masked(""))


def _replay(engine: MariadbEngine, base: Dump, servers: Sequence[int], end: Place) -> None:
    """Have the server replay its relay logs to their end.

    Args:
        servers: the numbers of those whose logs they are.
    """
    last, size = end
    with engine.connection() as connection, connection.cursor() as cursor:
        where = f"RELAY_LOG_FILE = 'relay.000001', RELAY_LOG_POS = {base.offset}"
        cursor.execute(f"CHANGE MASTER TO MASTER_HOST = 'nobody.invalid', MASTER_USE_GTID = no, {where}")
        cursor.execute("START SLAVE SQL_THREAD")
        until = time.monotonic() + _REPLAY
        while True:
            cursor.execute("SHOW SLAVE STATUS")
            values: Any = cursor.fetchone()
            status = dict(zip([each[0] for each in cursor.description], values, strict=True))
            if status["Last_SQL_Errno"]:
                said = str(status["Last_SQL_Error"]).partition(" on query")[0].partition(" Query:")[0]
                fail(
                    IntegrityError,
                    f"the server's log cannot be replayed: error {status['Last_SQL_Errno']}, {said[:300]}",
                )
            if (status["Relay_Log_File"], int(status["Relay_Log_Pos"])) >= (f"relay.{last:06d}", size):
                break
            if status["Slave_SQL_Running"] != "Yes" or time.monotonic() > until:
                fail(IntegrityError, "the server's log cannot be replayed: the replay does not come to its end")
            time.sleep(_STEP)
        cursor.execute("STOP SLAVE")
        # A replica does not run what its primary runs; here nobody else does.
        enable = "UPDATE mysql.event SET status = 'ENABLED' WHERE status = 'SLAVESIDE_DISABLED' AND originator IN %s"
        cursor.execute(enable, (tuple(servers),))
        cursor.execute(_DEFINERS)
        for (definer,) in list(cursor.fetchall()):
            name, _, host = definer.rpartition("@")
            kind, account = ("USER", "%s@%s") if host else ("ROLE", "%s")
            cursor.execute(f"CREATE {kind} IF NOT EXISTS {account}", (name, host) if host else (name,))
            cursor.execute(f"GRANT ALL PRIVILEGES ON *.* TO {account}", (name, host) if host else (name,))

"""The journal: what was begun and what arrived, so that a killed move goes on where it was."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import attrs

from shiftable.errors import MigrationError
from shiftable.migrate.mover import Notes, Pin, Record, Trouble

__all__ = ["Journal", "Named", "Row", "locked"]

_APPLICATION = 0x53686966
"""Marks the file as ours, in SQLite's own header: "Shif"."""
_SCHEMA_VERSION = 2
_PAGE = 1_000
_PATIENCE = 60.0
"""Seconds for the other connection's transaction to end, on a slow disk."""
_BATCH = 64
_BATCH_BYTES = 8 * 1024 * 1024
"""What a lost batch had copied has to be compared, which may be to read it on both sides: it must not be much."""

_SCHEMA = """
CREATE TABLE scope (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE item (
    scope INTEGER NOT NULL REFERENCES scope, key BLOB NOT NULL, done INTEGER NOT NULL,
    source_token TEXT NOT NULL, source_size INTEGER NOT NULL, source_modified TEXT NOT NULL,
    source_content TEXT NOT NULL, target_token TEXT, before TEXT, plan TEXT NOT NULL, sha256 BLOB,
    PRIMARY KEY (scope, key)
) WITHOUT ROWID;
CREATE TABLE run (
    id INTEGER PRIMARY KEY, started TEXT NOT NULL, finished TEXT, plan TEXT NOT NULL,
    options TEXT NOT NULL, outcome TEXT
);
CREATE TABLE named (
    id INTEGER PRIMARY KEY, run INTEGER NOT NULL REFERENCES run, scope INTEGER NOT NULL REFERENCES scope,
    key BLOB NOT NULL, trouble TEXT NOT NULL, reason TEXT NOT NULL
);
"""
_NOTES = """
CREATE TABLE note (
    scope INTEGER NOT NULL REFERENCES scope, key BLOB NOT NULL, name TEXT NOT NULL, value TEXT NOT NULL,
    PRIMARY KEY (scope, key, name)
) WITHOUT ROWID;
"""
_UPGRADES = (_SCHEMA, _NOTES)
"""What makes each version of the one before it."""


@attrs.frozen(kw_only=True)
class Row:
    """An item that has arrived; with ``target=None`` one that is none of ours any more."""

    key: str
    source: Pin
    target: str | None
    sha256: bytes | None = None


@attrs.frozen
class Named:
    """An item that a report names, and why."""

    resource: str
    key: str
    trouble: Trouble
    reason: str


def _encoded(key: str) -> bytes:
    """Return a key as SQLite sorts it. Even what is not Unicode must be namable to be refused."""
    return key.encode("utf-8", "surrogatepass")


def _decoded(key: bytes) -> str:
    return key.decode("utf-8", "surrogatepass")


class Journal:
    """One SQLite file per application. One process writes it at a time, one thread uses it; a kill loses a batch.

    What a lost batch had copied is found again on the target, compared and adopted. No value of a secret and no hash
    of one is ever written here.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection, lock: int | None) -> None:
        self.path = path
        self._db = connection
        self._lock = lock
        self._scopes: dict[str, int] = {}
        self._rows: list[tuple[Any, ...]] = []
        self._bytes = 0
        self._gone: list[tuple[int, bytes]] = []
        self._named: list[tuple[Any, ...]] = []
        self._notes: list[_Notes] = []

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open the journal for writing, and make it if there is none.

        Raises:
            MigrationError: another move uses it; it is damaged, or not ours, and was left as it is.
        """
        with _translated(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = locked(path)
            try:
                _check(path)
                connection = sqlite3.connect(path, isolation_level=None, timeout=_PATIENCE)
                with _closing_on_error(connection):
                    _prepare(connection)
            except BaseException:
                os.close(lock)
                raise
        return cls(path, connection, lock)

    @classmethod
    @contextlib.contextmanager
    def reading(cls, path: Path) -> Iterator[Self | None]:
        """Open the journal to read it, also while a move goes on; ``None`` if there is none yet. Writes nothing."""
        with _translated(path):
            _check(path)
            connection = _read_only(path) if path.exists() and path.stat().st_size else None
        if connection is None:
            yield None
            return
        with contextlib.closing(connection):
            yield cls(path, connection, None)

    # items

    def records(self, scope: str) -> Iterator[Record]:
        """Iterate over what is known of a resource's items, in the order of the keys, while others are written."""
        return self._records(self._db, scope, "")

    def records_behind(self, scope: str, start: str | None) -> Iterator[Record]:
        """Iterate over the items behind a key, in any one thread: through a connection of its own."""
        with _translated(self.path):
            connection = _read_only(self.path)
        with contextlib.closing(connection):
            yield from self._records(connection, scope, start or "")

    def _records(self, db: sqlite3.Connection, scope: str, start: str) -> Iterator[Record]:
        last = _encoded(start)
        while True:
            with _translated(self.path):
                found = db.execute(
                    "SELECT key, done, source_token, source_size, source_modified, source_content, target_token,"
                    " before, plan FROM item WHERE scope = (SELECT id FROM scope WHERE name = ?) AND key > ?"
                    " ORDER BY key LIMIT ?",
                    (scope, last, _PAGE),
                ).fetchall()
            for key, done, token, size, modified, content, target, before, plan in found:
                pin = Pin(token=token, size=size, modified=modified, content=content)
                yield Record(key=_decoded(key), done=bool(done), source=pin, target=target, before=before, plan=plan)
            if len(found) < _PAGE:
                return
            last = found[-1][0]

    def begin(self, scope: str, items: Iterable[Record]) -> None:
        """Write down what is about to be done, before it is."""
        rows = [
            (*self._key(scope, item.key), *_pin(item.source), item.target, item.before, item.plan) for item in items
        ]
        with self._transaction():
            self._db.executemany(
                "INSERT OR REPLACE INTO item (scope, key, done, source_token, source_size, source_modified,"
                " source_content, target_token, before, plan) VALUES (?, ?, 0, ?, ?, ?, ?, ?, ?, ?)",
                rows,
            )

    def arrived(self, scope: str, *rows: Row) -> None:
        """Write down how items ended that ended together; with the next batch."""
        for row in rows:
            place = self._key(scope, row.key)
            if row.target is None:
                self._gone.append(place)
            else:
                self._rows.append((*_pin(row.source), row.target, row.sha256, *place))
                self._bytes += row.source.size
        self._flush_if_full()

    def notes(self, scope: str) -> Notes:
        """Return where a mover keeps notes of a resource's items. Close the journal after the last one is written."""
        number, _ = self._key(scope, "")
        found = _Notes(self.path, number)
        self._notes.append(found)
        return found

    # what is named

    def name(self, run: int, scope: str, named: Named) -> None:
        """Write down an item that the report names; with the next batch."""
        self._named.append((run, *self._key(scope, named.key), str(named.trouble), named.reason))
        self._flush_if_full()

    def named(self, run: int | None = None) -> Iterator[Named]:
        """Iterate over the items that a run names, the last one if none is given."""
        last = 0
        while True:
            with _translated(self.path):
                found = self._db.execute(
                    "SELECT named.id, scope.name, key, trouble, reason FROM named JOIN scope ON scope.id = named.scope"
                    " WHERE run = coalesce(?, (SELECT max(id) FROM run)) AND named.id > ? ORDER BY named.id LIMIT ?",
                    (run, last, _PAGE),
                ).fetchall()
            for last, scope, key, trouble, reason in found:  # noqa: B007  the last one is where the next page begins
                yield Named(scope.split(" ")[0], _decoded(key), Trouble(trouble), reason)
            if len(found) < _PAGE:
                return

    # runs

    def start(self, *, plan: str, options: Mapping[str, Any], at: str) -> int:
        """Write down that a run begins, and how; return its number. What earlier runs named is dropped."""
        with self._transaction():
            self._db.execute("DELETE FROM named")
            run = self._db.execute(
                "INSERT INTO run (started, plan, options) VALUES (?, ?, ?)", (at, plan, json.dumps(options))
            ).lastrowid
        return run or 0

    def finish(self, run: int, *, outcome: Mapping[str, Any], at: str) -> None:
        """Write down how a run ended."""
        self.flush()
        with self._transaction():
            self._db.execute("UPDATE run SET finished = ?, outcome = ? WHERE id = ?", (at, json.dumps(outcome), run))

    # writing

    def flush(self) -> None:
        """Write what waits for its batch."""
        rows, self._rows, self._bytes = self._rows, [], 0
        gone, self._gone = self._gone, []
        named, self._named = self._named, []
        if not (rows or gone or named):
            return
        with self._transaction():
            self._db.executemany(
                "UPDATE item SET done = 1, source_token = ?, source_size = ?, source_modified = ?,"
                " source_content = ?, target_token = ?, sha256 = ? WHERE scope = ? AND key = ?",
                rows,
            )
            self._db.executemany("DELETE FROM item WHERE scope = ? AND key = ?", gone)
            self._db.executemany("INSERT INTO named (run, scope, key, trouble, reason) VALUES (?, ?, ?, ?, ?)", named)

    def close(self) -> None:
        """Write what waits, and let others have the journal."""
        try:
            with _translated(self.path):
                self.flush()
        finally:
            for notes in self._notes:
                notes.close()
            self._db.close()
            if self._lock is not None:
                os.close(self._lock)
                self._lock = None

    def _flush_if_full(self) -> None:
        if len(self._rows) + len(self._gone) + len(self._named) >= _BATCH or self._bytes >= _BATCH_BYTES:
            self.flush()

    def _key(self, scope: str, key: str) -> tuple[int, bytes]:
        if scope not in self._scopes:
            with self._transaction():
                self._db.execute("INSERT OR IGNORE INTO scope (name) VALUES (?)", (scope,))
                row = self._db.execute("SELECT id FROM scope WHERE name = ?", (scope,)).fetchone()
            self._scopes[scope] = row[0]
        return self._scopes[scope], _encoded(key)

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        with _translated(self.path):
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                with contextlib.suppress(sqlite3.Error):  # what made it fail may have ended it
                    self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Journal {self.path}>"


class _Notes(Notes):
    """Notes in the journal's file, through a connection of their own, which all threads share.

    Each is committed at once: there are few, and each stands for megabytes that need not be sent again.
    """

    def __init__(self, path: Path, scope: int) -> None:
        super().__init__()
        self._path = path
        self._scope = scope
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=_PATIENCE)
        self._db.execute("PRAGMA synchronous = NORMAL")

    def read(self, key: str) -> Mapping[str, str]:
        return dict(self._all("SELECT name, value FROM note WHERE scope = ? AND key = ?", _encoded(key)))

    def write(self, key: str, name: str, value: str) -> None:
        self._all(
            "INSERT OR REPLACE INTO note (scope, key, name, value) VALUES (?, ?, ?, ?)", _encoded(key), name, value
        )

    def clear(self, key: str) -> None:
        self._all("DELETE FROM note WHERE scope = ? AND key = ?", _encoded(key))

    def keys(self) -> tuple[str, ...]:
        return tuple(_decoded(key) for (key,) in self._all("SELECT DISTINCT key FROM note WHERE scope = ?"))

    def close(self) -> None:
        with self._lock:
            self._db.close()

    def _all(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        with self._lock, _translated(self._path):
            return self._db.execute(statement, (self._scope, *values)).fetchall()


def _pin(pin: Pin) -> tuple[str, int, str, str]:
    return pin.token, pin.size, pin.modified, pin.content


def _prepare(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")  # a kill loses nothing, a power cut the last batches
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version < _SCHEMA_VERSION:
        steps = "".join(_UPGRADES[version:])
        mark = f"PRAGMA application_id = {_APPLICATION}; PRAGMA user_version = {_SCHEMA_VERSION};"
        connection.executescript(f"BEGIN IMMEDIATE; {steps} {mark} COMMIT;")


def locked(path: Path) -> int:
    """Take the lock beside the journal. The system gives it back when the process ends, however it does."""
    descriptor = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.read(descriptor, 32).decode("ascii", "replace").strip()
        os.close(descriptor)
        raise MigrationError(
            f"another move is using the journal {path} (process {holder or 'unknown'}); wait until it has ended"
        ) from None
    except BaseException:
        os.close(descriptor)
        raise
    with contextlib.suppress(OSError):  # the number is only a help
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return descriptor


def _read_only(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, isolation_level=None, timeout=_PATIENCE)


def _check(path: Path) -> None:
    """Refuse a file that is damaged or not ours, without writing to it: opening it for writing might."""
    if not path.exists() or not path.stat().st_size:
        return
    with contextlib.closing(_read_only(path)) as connection:
        application = connection.execute("PRAGMA application_id").fetchone()[0]
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if not application and not version and not connection.execute("SELECT 1 FROM sqlite_master").fetchone():
            return
        if application != _APPLICATION:
            raise MigrationError(f"{path} is another program's database; move it away or use another folder")
        if version > _SCHEMA_VERSION:
            raise MigrationError(
                f"the journal {path} has version {version}, this shiftable knows {_SCHEMA_VERSION};"
                " use the shiftable that wrote it"
            )
        found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if found != "ok":
            raise sqlite3.DatabaseError(" ".join(found.split()))


@contextlib.contextmanager
def _closing_on_error(connection: sqlite3.Connection) -> Iterator[None]:
    try:
        yield
    except BaseException:
        connection.close()
        raise


@contextlib.contextmanager
def _translated(path: Path) -> Iterator[None]:
    """Turn SQLite's and the system's errors into one sentence that says what to do."""
    try:
        yield
    except sqlite3.OperationalError as exc:
        raise MigrationError(
            f"the journal {path} cannot be used: {exc}; make room or correct the permissions and run the same again:"
            " what was copied meanwhile is compared and not copied twice"
        ) from exc
    except sqlite3.DatabaseError as exc:
        raise MigrationError(
            f"the journal {path} is damaged and was left as it is: {exc}; move it away and run the same again:"
            " what was copied is compared and not copied twice"
        ) from exc
    except OSError as exc:
        raise MigrationError(f"the journal {path} cannot be used: {exc.strerror or exc}; correct that") from exc

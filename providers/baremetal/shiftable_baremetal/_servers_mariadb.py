"""Databases on a MariaDB server: what is asked of it, as a user who has all privileges.

MariaDB has no comments on users, so notes stand in a table, ``shiftable.resources``, which is made with the first
resource. A database says by its comment whose it is.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import attrs

from shiftable import mysql
from shiftable.database.driver import DatabaseFeatures, Engine
from shiftable.errors import AlreadyExists, ConfigError, Conflict, InvalidArgument, PermissionDenied
from shiftable.features import Limit
from shiftable.masking import Masked
from shiftable_baremetal._servers_engine import PATIENCE, Access, ServerEngine, Session, Taken, fail
from shiftable_baremetal._servers_mark import Found, Mark
from shiftable_baremetal._servers_programs import Command, found_program

if TYPE_CHECKING:
    from pymysql.connections import Connection

__all__ = ["FEATURES", "FEATURES_ARCHIVED", "MariadbEngine", "MariadbSession"]

FEATURES = DatabaseFeatures(
    title="MariaDB servers",
    engines=frozenset({"mariadb"}),
    connect=True,
    stop=False,
    snapshots=True,
    final_snapshot=True,
    point_in_time=False,
    high_availability=False,
    storage_autogrow=True,
    deletion_protection=True,
    public=False,
    allow_from=False,
    parameters=False,
    labels=True,
    managed_password=False,
    set_password=True,
    max_name=Limit(63, "chosen, as Amazon RDS"),
)

FEATURES_ARCHIVED = attrs.evolve(
    FEATURES, title="MariaDB servers with `archive_days`", point_in_time=True, archive=True
)

_OLDEST = (10, 5)  # databases have comments since
_OURS = "shiftable: "
_NOTES = "notes of shiftable: whose databases and users these are"
_NEEDED = {  # of `GRANT ALL PRIVILEGES ON a_database.*`: who grants must have what he grants
    *("SELECT", "INSERT", "UPDATE", "DELETE", "CREATE", "DROP", "REFERENCES", "INDEX", "ALTER", "LOCK TABLES"),
    *("CREATE TEMPORARY TABLES", "EXECUTE", "CREATE VIEW", "SHOW VIEW", "CREATE ROUTINE", "ALTER ROUTINE"),
    *("EVENT", "TRIGGER", "DELETE HISTORY", "CREATE USER"),
}
_DUMPED = (
    *("--single-transaction", "--quick", "--hex-blob", "--routines", "--events", "--triggers"),
    "--default-character-set=utf8mb4",
)
_LOADED = ("--batch", "--binary-mode", "--max-allowed-packet=1G", "--default-character-set=utf8mb4")
_KILLED = 1094  # ER_NO_SUCH_THREAD: it has ended by itself
_UNKNOWN_TABLE = {1049, 1146}
_DEFINER_LINE = re.compile(rb"(/\*!50|CREATE )")


def _pymysql() -> Any:  # noqa: ANN401  the module
    try:
        import pymysql
    except ImportError as exc:
        raise ConfigError(f'connecting to MariaDB needs PyMySQL: pip install "shiftable[mysql]" ({exc})') from exc
    return pymysql


def _quoted(name: str) -> str:
    doubled = name.replace("`", "``")
    return f"`{doubled}`"


def _pattern(name: str) -> str:
    """Return a database's name as GRANT wants it: it takes _ and % for wildcards."""
    return _quoted(re.sub(r"([\\_%])", r"\\\1", name))


def _lock_name(name: str) -> str:
    return f"shiftable {hashlib.sha256(name.encode()).hexdigest()[:32]}"  # a lock's name has 64 characters


def _verifier(password: Masked) -> str:
    """Return what ``mysql_native_password`` keeps of a password; the server is never sent the password.

    Other letters than ASCII's are refused: PyMySQL sends them in Latin-1, the server's own programs in UTF-8.
    """
    if not password.reveal_bytes().isascii():
        fail(InvalidArgument, "the password has letters beyond ASCII, which MariaDB's clients do not agree on")
    once = hashlib.sha1(password.reveal_bytes(), usedforsecurity=False).digest()
    return f"*{hashlib.sha1(once, usedforsecurity=False).hexdigest().upper()}"


@attrs.frozen
class MariadbSession(Session):
    """One connection."""

    _connection: Connection[Any]

    @property
    def version(self) -> str:
        """The server's version, without the name that old clients are shown before it."""
        told = str(cast("Any", self._connection).server_version)  # which its stubs do not know
        return told.removeprefix("5.5.5-").partition("-")[0]

    def found(self, name: str | None = None) -> dict[str, Found]:
        """Return resources by the table of notes."""
        query = "SELECT mark, IS_USED_LOCK(CONCAT('shiftable ', LEFT(SHA2(name, 256), 32))) FROM shiftable.resources"
        try:
            rows = self._rows(query) if name is None else self._rows(f"{query} WHERE name = %s", name)
        except _pymysql().err.MySQLError as exc:
            if exc.args[0] in _UNKNOWN_TABLE:
                return {}
            raise
        owners = self._owners()
        found = {}
        for text, lock in rows:
            mark = Mark.read(text)
            if mark is not None and self._has_user(mark):
                present = {each for each in mark.databases.values() if owners.get(each) == f"{_OURS}{mark.name}"}
                found[mark.name] = Found(mark=mark, present=present, parameters={}, busy=lock is not None)
        return found

    def taken(self) -> Taken:
        """Return all users, wherever they come from, and databases."""
        users = self._rows("SELECT DISTINCT user FROM mysql.user")
        return Taken(frozenset(row[0] for row in users), frozenset(self._owners()))

    def lock(self, name: str) -> None:
        """Take a lock of the session, which may be idle for long then: programs dump and load meanwhile."""
        self._rows("SET SESSION wait_timeout = 604800")
        if self._rows("SELECT GET_LOCK(%s, %s)", _lock_name(name), PATIENCE) != [(1,)]:
            fail(Conflict, "another process has been changing it for long; try again later")

    @contextlib.contextmanager
    def locked_names(self) -> Iterator[None]:
        """Hold the lock of those who choose names, which no resource has."""
        self.lock("")
        try:
            yield
        finally:
            if self._connection.open:
                self._rows("SELECT RELEASE_LOCK(%s)", _lock_name(""))

    def check_rights(self) -> None:
        """Fail unless this user has, and may grant, what a user of a database gets, and the server is not too old."""
        if tuple(int(part) for part in self.version.split(".")[:2]) < _OLDEST:
            fail(InvalidArgument, f"the server is MariaDB {self.version}; 10.5 is the oldest that this works with")
        if lacking := self.lacking(_NEEDED, grantable=True):
            ((name,),) = self._rows("SELECT CURRENT_USER()")
            how = "GRANT ALL PRIVILEGES ON *.* TO … WITH GRANT OPTION"
            fail(PermissionDenied, f"the server's user {name} has no {', '.join(lacking)} that he may grant: {how}")

    def lacking(self, needed: AbstractSet[str], *, grantable: bool = False) -> list[str]:
        """Return which of some privileges this user does not have, or may not grant."""
        ((name,),) = self._rows("SELECT CURRENT_USER()")
        user, _, host = name.rpartition("@")
        query = "SELECT privilege_type FROM information_schema.user_privileges WHERE grantee = %s"
        more = " AND is_grantable = 'YES'" if grantable else ""
        return sorted(needed - {row[0] for row in self._rows(query + more, f"'{user}'@'{host}'")})

    def check_parameters(self, parameters: Mapping[str, str]) -> None:
        """Refuse them: MariaDB has variables of the server and of sessions, and none of a database."""
        if parameters:
            fail(InvalidArgument, f"a MariaDB database cannot have the parameters {', '.join(sorted(parameters))}")

    def write(self, mark: Mark) -> None:
        """Write the row of the resource."""
        self._do("REPLACE INTO shiftable.resources (name, mark) VALUES (%s, %s)", mark.name, mark.text())

    def begin(self, mark: Mark, password: Masked) -> None:
        """Note the resource, and then make the user with his password."""
        made = _verifier(password)
        self.make_table("resources", "name VARCHAR(63) COLLATE utf8mb4_bin PRIMARY KEY, mark LONGTEXT NOT NULL")
        self.write(mark)
        how = "IDENTIFIED VIA mysql_native_password USING %s"
        self._do(f"CREATE USER IF NOT EXISTS %s@'%%' {how}", mark.role, made)
        self.set_password(mark.role, password)

    def set_password(self, role: str, password: Masked) -> None:
        """Send the hash of a password."""
        self._do("ALTER USER %s@'%%' IDENTIFIED VIA mysql_native_password USING %s", role, _verifier(password))

    def make_database(self, mark: Mark, database: str) -> None:
        """Make a database that says whose it is, and let the user in."""
        comment = f"{_OURS}{mark.name}"
        owner = self._owners().get(database)
        if owner not in {None, comment}:
            fail(AlreadyExists, f"there is a database {database!r} on the server that was not made for this")
        if owner is None:
            self._do(f"CREATE DATABASE {_escaped(_quoted(database))} CHARACTER SET utf8mb4 COMMENT %s", comment)
        self._do(f"GRANT ALL PRIVILEGES ON {_escaped(_pattern(database))}.* TO %s@'%%'", mark.role)

    def configure(self, mark: Mark, before: Mapping[str, str]) -> None:
        """Do nothing: databases have no parameters."""

    def shut(self, mark: Mark) -> None:
        """Lock the account, and end its sessions."""
        self._do("ALTER USER IF EXISTS %s@'%%' ACCOUNT LOCK", mark.role)
        for (number,) in self._rows("SELECT id FROM information_schema.processlist WHERE user = %s", mark.role):
            try:
                self._do(f"KILL {int(number)}")
            except _pymysql().err.MySQLError as exc:
                if exc.args[0] != _KILLED:
                    raise

    def unshut(self, mark: Mark) -> None:
        """Unlock the account."""
        self._do("ALTER USER IF EXISTS %s@'%%' ACCOUNT UNLOCK", mark.role)

    def drop_database(self, mark: Mark, database: str) -> None:
        """Drop a database of the resource."""
        owner = self._owners().get(database)
        if owner not in {None, f"{_OURS}{mark.name}"}:
            fail(Conflict, f"the database {database!r} is by its comment no longer of this: drop it yourself")
        if owner is not None:
            self._do(f"DROP DATABASE IF EXISTS {_quoted(database)}")

    def drop_role(self, mark: Mark) -> None:
        """Drop the user, and then the note."""
        self._do("DROP USER IF EXISTS %s@'%%'", mark.role)
        self._do("DELETE FROM shiftable.resources WHERE name = %s", mark.name)

    # one step each

    def _has_user(self, mark: Mark) -> bool:
        """Tell whether a resource was begun: a note that was written right before its maker was killed is none."""
        if mark.state not in {"creating", "restoring"}:
            return True
        return bool(self._rows("SELECT 1 FROM mysql.user WHERE user = %s", mark.role))

    def make_table(self, name: str, columns: str) -> None:
        """Make a table of notes, unless it is there."""
        owner = self._owners().get("shiftable")
        if owner not in {None, _NOTES}:
            fail(
                AlreadyExists, "the server has a database `shiftable` that is somebody else's; notes would stand there"
            )
        self._do("CREATE DATABASE IF NOT EXISTS shiftable CHARACTER SET utf8mb4 COMMENT %s", _NOTES)
        self._do(f"CREATE TABLE IF NOT EXISTS shiftable.{name} ({columns}) ENGINE=InnoDB")

    def _owners(self) -> dict[str, str]:
        """Return the comments of all databases."""
        return dict(self._rows("SELECT schema_name, schema_comment FROM information_schema.schemata"))

    def _rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        with self._connection.cursor() as cursor:
            cursor.execute(query, values or None)
            return list(cursor.fetchall())

    def _do(self, statement: str, *values: object) -> None:
        with self._connection.cursor() as cursor:
            cursor.execute(statement, values or None)


def _escaped(text: str) -> str:
    """Return a text for a statement that PyMySQL puts values into."""
    return text.replace("%", "%%")


@attrs.frozen
class MariadbEngine(ServerEngine):
    """A MariaDB server, 10.5 or later: databases have comments since.

    Args:
        programs: the folder of ``mariadb-dump`` and ``mariadb``.
        archived: whether the server's log is, so that times can be restored.
    """

    access: Access
    programs: Path | None = None
    archived: bool = False

    @property
    def name(self) -> Engine:
        """The engine."""
        return "mariadb"

    @property
    def features(self) -> DatabaseFeatures:
        """What databases on a MariaDB server can do."""
        return FEATURES_ARCHIVED if self.archived else FEATURES

    @property
    def default(self) -> str:
        """No database, which clients may name."""
        return ""

    @contextlib.contextmanager
    def session(self) -> Iterator[Session]:
        """Connect."""
        with self.connection() as connection:
            yield MariadbSession(connection)

    @contextlib.contextmanager
    def connection(self, **more: Any) -> Iterator[Connection[Any]]:  # noqa: ANN401  PyMySQL's
        """Connect, to ask what no resource has."""
        arguments: dict[str, Any] = self.access.arguments("mariadb")
        password = self.access.secret().reveal()
        options = {"charset": "utf8mb4", "autocommit": True, "connect_timeout": 10, "program_name": "shiftable"}
        client, given = _pymysql(), {**arguments, **options, **more}
        with self.access.carried():
            connection = mysql.connect(password=password.encode(), **given)
        try:
            yield connection
        finally:
            with contextlib.suppress(client.err.Error):
                connection.close()

    def dump(self, database: str, version: str) -> Command:  # noqa: ARG002  it reads all versions
        """Write the database as statements, as of one moment for tables of InnoDB."""
        return self._command(("mariadb-dump", "mysqldump"), *_DUMPED, "--", database)

    def base_backup(self) -> Command:
        """Write all databases but the server's own as statements, and first where its log was at that moment."""
        whole = ("--all-databases", "--ignore-database=mysql", "--ignore-database=sys", "--master-data=2")
        return self._command(("mariadb-dump", "mysqldump"), *_DUMPED, *whole)

    def time_zones(self) -> Command:
        """Write what the server knows of time zones, which events and tables may name, as rows of its own tables."""
        tables = ("time_zone", "time_zone_name", "time_zone_transition", "time_zone_transition_type")
        options = ("--compact", "--no-create-info", "--skip-triggers", "--skip-lock-tables")
        return self._command(("mariadb-dump", "mysqldump"), *options, "--", "mysql", *tables)

    def load_all(self) -> Command:
        """Carry out the statements of a base backup."""
        return self._command(("mariadb", "mysql"), *_LOADED)

    def load(self, database: str, role: str, version: str) -> Command:  # noqa: ARG002  objects have their definers
        """Carry the statements out."""
        return self._command(("mariadb", "mysql"), "--batch", "--default-character-set=utf8mb4", "--", database)

    def for_user(self, pieces: Iterator[bytes], old: str, new: str) -> Iterator[bytes]:
        """Have routines, triggers and views act for the new user where they acted for the old one.

        Rows are statements of their own that begin with INSERT, and are never touched.
        """
        before, after = (f"DEFINER={_quoted(role)}@`%`".encode() for role in (old, new))
        left = b""
        for piece in pieces:
            *lines, left = (left + piece).split(b"\n")
            for line in lines:
                yield (line.replace(before, after) if _DEFINER_LINE.match(line) else line) + b"\n"
        if left:
            yield left

    def _command(self, programs: tuple[str, str], *arguments: str) -> Command:
        where = self.access.arguments("mariadb")
        options = {"user": self.access.user, "password": self.access.secret().reveal()}
        if "unix_socket" in where:
            options |= {"socket": str(where["unix_socket"])}
        else:
            options |= {"host": str(where["host"]), "port": str(where["port"]), "protocol": "tcp"}
        tls: Any = where.get("ssl")
        if tls is not None:
            options |= {"ssl-ca": tls["ca"], "ssl-verify-server-cert": "1" if tls["check_hostname"] else "0"}
        lines = "".join(f'{name}="{_value(text)}"\n' for name, text in options.items())
        return Command(
            program=found_program(self.programs, *programs),
            arguments=arguments,
            secret=Masked(f"[client]\n{lines}"),
            secret_option="--defaults-file",  # noqa: S106  its name
        )


def _value(text: str) -> str:
    """Return a value as option files have it in quotes."""
    for plain, escaped in (("\\", "\\\\"), ('"', '\\"'), ("\n", "\\n"), ("\r", "\\r"), ("\t", "\\t")):
        text = text.replace(plain, escaped)
    return text

"""Databases on a PostgreSQL server: what is asked of it, as a user who may make roles and databases."""

from __future__ import annotations

import contextlib
import json
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import attrs

from shiftable.database.driver import DatabaseFeatures, Engine
from shiftable.errors import AlreadyExists, ConfigError, Conflict, InvalidArgument, PermissionDenied
from shiftable.features import Limit
from shiftable.masking import Masked
from shiftable.postgresql import all_binaries
from shiftable_baremetal._servers_engine import PATIENCE, Access, ServerEngine, Session, Taken, fail
from shiftable_baremetal._servers_mark import BEGINNING, Found, Mark
from shiftable_baremetal._servers_programs import Command

if TYPE_CHECKING:
    import psycopg
    from psycopg import sql

__all__ = ["FEATURES", "FEATURES_ARCHIVED", "PostgresqlEngine"]

FEATURES = DatabaseFeatures(
    title="PostgreSQL servers",
    engines=frozenset({"postgresql"}),
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
    parameters=True,
    labels=True,
    managed_password=False,
    set_password=True,
    max_name=Limit(63, "chosen, as Amazon RDS"),
)

FEATURES_ARCHIVED = attrs.evolve(
    FEATURES, title="PostgreSQL servers with `archive_days`", point_in_time=True, archive=True
)

_OLDEST = 14  # pg_terminate_backend(pid, timeout)
_HISTORY = re.compile(rb"^(\d+)\s+([0-9A-F]+)/([0-9A-F]+)", re.MULTILINE)
_CLASS = 0x73686966  # of our advisory locks, "shif"
_NAMES = ""  # the lock of whoever chooses names: no resource has none
_ENDED = 10  # seconds for sessions to end
_OF_A_DATABASE = {"user", "superuser"}  # contexts of pg_settings that ALTER DATABASE … SET takes
_LISTS = {"local_preload_libraries", "search_path", "session_preload_libraries", "temp_tablespaces"}

_FOUND = """
SELECT shobj_description(r.oid, 'pg_authid'),
    ARRAY(SELECT d.datname::text FROM pg_database AS d WHERE d.datdba = r.oid AND d.datallowconn),
    ARRAY(SELECT json_build_array(d.datname, s.setconfig)::text FROM pg_database AS d
        JOIN pg_db_role_setting AS s ON s.setdatabase = d.oid AND s.setrole = 0 WHERE d.datdba = r.oid),
    ARRAY(SELECT l.objid::bigint FROM pg_locks AS l WHERE l.locktype = 'advisory' AND l.granted AND l.classid = %s
        AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()))
FROM pg_roles AS r JOIN pg_shdescription AS c ON c.objoid = r.oid AND c.classoid = 'pg_authid'::regclass
WHERE starts_with(c.description, %s)
"""


def _psycopg() -> Any:  # noqa: ANN401  the module
    try:
        import psycopg
    except ImportError as exc:
        raise ConfigError("connecting to PostgreSQL needs psycopg: pip install 'shiftable[postgresql]'") from exc
    return psycopg


def _connected(options: Mapping[str, Any]) -> psycopg.Connection[Any]:
    """Connect; psycopg's own exception holds the password, so a plain one is raised in its place."""
    library = _psycopg()
    try:
        connection: psycopg.Connection[Any] = library.connect(**options)
    except library.OperationalError as exc:
        refusal = str(exc)
    else:
        return connection
    raise library.OperationalError(refusal)


def _number(name: str) -> int:
    """Return the number that stands for a name in the server's locks."""
    return zlib.crc32(name.encode()) & 0x7FFFFFFF


@attrs.frozen
class PostgresqlSession(Session):
    """One connection."""

    _connection: psycopg.Connection[Any]

    @property
    def version(self) -> str:
        """The server's version."""
        return str(self._connection.info.parameter_status("server_version")).partition(" ")[0]

    def found(self, name: str | None = None) -> dict[str, Found]:
        """Return resources by the comments of their roles."""
        beginning = BEGINNING if name is None else f"{BEGINNING}{json.dumps(name)},"
        found = {}
        for text, present, settings, locks in self._rows(_FOUND, _CLASS, beginning):
            mark = Mark.read(text)
            if mark is not None:
                ours = set(present) & set(mark.databases.values())
                parameters = _common(dict(json.loads(each) for each in settings), ours)
                busy = _number(mark.name) in locks
                found[mark.name] = Found(mark=mark, present=ours, parameters=parameters, busy=busy)
        return found

    def taken(self) -> Taken:
        """Return all roles and databases."""
        roles = self._rows("SELECT rolname FROM pg_roles")
        databases = self._rows("SELECT datname FROM pg_database")
        return Taken(frozenset(row[0] for row in roles), frozenset(row[0] for row in databases))

    def lock(self, name: str) -> None:
        """Take an advisory lock of the session, which may be idle for long then: programs dump and load meanwhile."""
        if self._connection.info.server_version >= _OLDEST * 10_000:
            self._connection.execute("SET idle_session_timeout = 0")
        self._connection.execute(f"SET lock_timeout = '{PATIENCE}s'")
        self._rows("SELECT pg_advisory_lock(%s, %s)", _CLASS, _number(name))
        self._connection.execute("RESET lock_timeout")

    @contextlib.contextmanager
    def locked_names(self) -> Iterator[None]:
        """Hold the lock of those who choose names."""
        self.lock(_NAMES)
        try:
            yield
        finally:
            if not self._connection.closed:
                self._rows("SELECT pg_advisory_unlock(%s, %s)", _CLASS, _number(_NAMES))

    def check_rights(self) -> None:
        """Fail unless this is a superuser, or a role with CREATEDB and CREATEROLE, of a server that is not too old."""
        if self._connection.info.server_version < _OLDEST * 10_000:
            fail(
                InvalidArgument,
                f"the server is PostgreSQL {self.version}; {_OLDEST} is the oldest that this works with",
            )
        query = "SELECT rolname, rolsuper, rolcreatedb, rolcreaterole FROM pg_roles WHERE rolname = current_user"
        ((name, everything, databases, roles),) = self._rows(query)
        lacking = [right for right, has in (("CREATEDB", databases), ("CREATEROLE", roles)) if not (everything or has)]
        if lacking:
            how = self._text("ALTER ROLE {} {}", self._name(name), self._raw(" ".join(lacking)))
            fail(PermissionDenied, f"the server's user {name!r} has no {' and no '.join(lacking)}: {how}")

    def check_parameters(self, parameters: Mapping[str, str]) -> None:
        """Fail unless ``ALTER DATABASE … SET`` takes them: names by the catalog, values by a trial that is undone."""
        if not parameters:
            return
        query = "SELECT lower(name), context FROM pg_settings WHERE lower(name) = ANY(%s)"
        contexts = dict(self._rows(query, [name.lower() for name in parameters]))
        for name in parameters:
            context = contexts.get(name.lower())
            if context is None and "." not in name:
                fail(InvalidArgument, f"PostgreSQL has no parameter {name}")
            if context is not None and context not in _OF_A_DATABASE:
                why = f"it is of the whole server (context {context}), which is not only this database's"
                fail(InvalidArgument, f"a database cannot have the parameter {name}: {why}; set it on the server")
            if context is None:
                self._check_may_set(name)
        with self._connection.transaction(force_rollback=True):
            for name, value in parameters.items():
                self._do("SET LOCAL {} = {}", self._parameter(name), self._value(name, value))

    def write(self, mark: Mark) -> None:
        """Write the comment of the role."""
        self._do("COMMENT ON ROLE {} IS {}", self._name(mark.role), self._literal(mark.text()))

    def begin(self, mark: Mark, password: Masked) -> None:
        """Make the role with its password and comment, all at once."""
        with self._connection.transaction():
            if not self._rows("SELECT 1 FROM pg_roles WHERE rolname = %s", mark.role):
                self._do("CREATE ROLE {}", self._name(mark.role))
                self._join(mark.role)
            self.set_password(mark.role, password)
            self.write(mark)

    def set_password(self, role: str, password: Masked) -> None:
        """Send the verifier of a password, which tells nobody the password."""
        made = self._connection.pgconn.encrypt_password(password.reveal_bytes(), role.encode(), b"scram-sha-256")
        self._do("ALTER ROLE {} LOGIN PASSWORD {}", self._name(role), self._literal(made.decode()))

    def make_database(self, mark: Mark, database: str) -> None:
        """Make a database that lets nobody in, and open it together with all that belongs to it."""
        name, role = self._name(database), self._name(mark.role)
        query = "SELECT pg_get_userbyid(datdba), datallowconn FROM pg_database WHERE datname = %s"
        there = self._rows(query, database)
        if there and there[0][0] != mark.role:
            fail(AlreadyExists, f"there is a database {database!r} of {there[0][0]} on the server")
        if not there:
            self._do(f"CREATE DATABASE {{}} OWNER {{}} ALLOW_CONNECTIONS false{self._encoding()}", name, role)
        if there and there[0][1]:
            return
        with self._connection.transaction():
            self._do("REVOKE ALL ON DATABASE {} FROM PUBLIC", name)
            self._do("COMMENT ON DATABASE {} IS {}", name, self._literal(f"shiftable: {mark.name}"))
            self._set(database, mark.spec.parameters)
            self._do("ALTER DATABASE {} ALLOW_CONNECTIONS true", name)

    def configure(self, mark: Mark, before: Mapping[str, str]) -> None:
        """Set and reset parameters of all databases, all at once."""
        gone = [name for name in before if name not in mark.spec.parameters]
        with self._connection.transaction():
            for database in mark.databases.values():
                for name in gone:
                    self._do("ALTER DATABASE {} RESET {}", self._name(database), self._parameter(name))
                self._set(database, mark.spec.parameters)

    def shut(self, mark: Mark) -> None:
        """Take LOGIN from the role, and end its sessions."""
        self._do("ALTER ROLE {} NOLOGIN", self._name(mark.role))
        query = "SELECT pg_terminate_backend(pid, %s) FROM pg_stat_activity WHERE usename = %s"
        if not all(ended for (ended,) in self._rows(query, _ENDED * 1000, mark.role)):
            fail(Conflict, f"sessions of {mark.role} do not end")

    def unshut(self, mark: Mark) -> None:
        """Give LOGIN back to the role."""
        self._do("ALTER ROLE {} LOGIN", self._name(mark.role))

    def drop_database(self, mark: Mark, database: str) -> None:
        """Drop a database of the role."""
        there = self._rows("SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = %s", database)
        if there and there[0][0] != mark.role:
            fail(Conflict, f"the database {database!r} is by now of {there[0][0]}: give it back, or drop it yourself")
        if there:
            self._drop(self._name(database))

    def _drop(self, database: sql.Composable) -> None:
        """Drop a database, and end who is in it. Of autovacuum only a superuser may: without FORCE the server does."""
        from psycopg import errors

        try:
            self._do("DROP DATABASE IF EXISTS {} WITH (FORCE)", database)
        except errors.InsufficientPrivilege:
            self._do("DROP DATABASE IF EXISTS {}", database)

    def drop_role(self, mark: Mark) -> None:
        """Drop the role; its comment goes with it."""
        self._do("DROP ROLE IF EXISTS {}", self._name(mark.role))

    # one step each

    def _join(self, role: str) -> None:
        """Have this user act for the role, whose databases he then may make and drop. A superuser does anyway."""
        if self._rows("SELECT rolsuper FROM pg_roles WHERE rolname = current_user")[0][0]:
            return
        how = " WITH INHERIT TRUE, SET TRUE" if self._connection.info.server_version >= 160000 else ""
        self._do("GRANT {} TO CURRENT_USER{}", self._name(role), self._raw(how))

    def _check_may_set(self, name: str) -> None:
        """Fail unless this user may give a database a parameter that PostgreSQL does not know itself."""
        if self._connection.info.server_version >= 150000:
            ((name_of_user, may),) = self._rows("SELECT current_user, has_parameter_privilege(%s, 'SET')", name)
        else:
            ((name_of_user, may),) = self._rows("SELECT rolname, rolsuper FROM pg_roles WHERE rolname = current_user")
        if not may:
            how = self._text("GRANT SET ON PARAMETER {} TO {}", self._parameter(name), self._name(name_of_user))
            fail(PermissionDenied, f"the server's user {name_of_user!r} may not set {name}: {how} (PostgreSQL 15)")

    def _encoding(self) -> str:
        """Return what makes a database know its characters, on a server that was made without any."""
        query = "SELECT pg_encoding_to_char(encoding) FROM pg_database WHERE datname = 'template1'"
        return " TEMPLATE template0 ENCODING 'UTF8'" if self._rows(query) == [("SQL_ASCII",)] else ""

    def _set(self, database: str, parameters: Mapping[str, str]) -> None:
        for name, value in parameters.items():
            parts = (self._name(database), self._parameter(name), self._value(name, value))
            self._do("ALTER DATABASE {} SET {} = {}", *parts)

    def _rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        return self._connection.execute(query.encode(), values or None).fetchall()

    def _do(self, statement: str, *parts: sql.Composable) -> None:
        from psycopg import sql

        self._connection.execute(sql.SQL(cast("Any", statement)).format(*parts))

    def _text(self, statement: str, *parts: sql.Composable) -> str:
        from psycopg import sql

        return sql.SQL(cast("Any", statement)).format(*parts).as_string(self._connection)

    def _name(self, name: str) -> sql.Composable:
        from psycopg import sql

        return sql.Identifier(name)

    def _parameter(self, name: str) -> sql.Composable:
        from psycopg import sql

        return sql.Identifier(*name.split("."))

    def _literal(self, text: str) -> sql.Composable:
        from psycopg import sql

        return sql.Literal(text)

    def _raw(self, text: str) -> sql.Composable:
        from psycopg import sql

        return sql.SQL(cast("Any", text))

    def _value(self, name: str, value: str) -> sql.Composable:
        from psycopg import sql

        if name.lower() not in _LISTS:
            return sql.Literal(value)
        return sql.SQL(", ").join(sql.Literal(each.strip().strip("\"'")) for each in value.split(","))


@attrs.frozen
class PostgresqlEngine(ServerEngine):
    """A PostgreSQL server, 14 or later.

    Args:
        programs: the folder of PostgreSQL's programs.
        archived: whether the server's log is, so that times can be restored.
    """

    access: Access
    programs: Path | None = None
    archived: bool = False

    @property
    def name(self) -> Engine:
        """The engine."""
        return "postgresql"

    @property
    def features(self) -> DatabaseFeatures:
        """What databases on a PostgreSQL server can do."""
        return FEATURES_ARCHIVED if self.archived else FEATURES

    @property
    def default(self) -> str:
        """The database that always exists, which is nobody's."""
        return "postgres"

    @contextlib.contextmanager
    def session(self) -> Iterator[Session]:
        """Connect to the database ``postgres``."""
        with self.connection() as connection:
            yield PostgresqlSession(connection)

    @contextlib.contextmanager
    def connection(self, **more: Any) -> Iterator[psycopg.Connection[Any]]:  # noqa: ANN401  libpq's
        """Connect to the database ``postgres``, to ask what no resource has."""
        options: dict[str, Any] = {
            **self.access.arguments("postgresql"),
            "application_name": "shiftable",
            "client_encoding": "utf8",  # else a server of SQL_ASCII answers in bytes
            "connect_timeout": 10,
            "keepalives_idle": 30,
            "autocommit": True,
            **more,
        }
        password = self.access.secret().reveal()
        with self.access.carried():
            connection = _connected({**options, **({"password": password} if password else {})})
        try:
            yield connection
        finally:
            connection.close()

    def dump(self, database: str, version: str) -> Command:
        """Write the database in pg_dump's own format, which is compressed."""
        return self._command(self._folder(version) / "pg_dump", database, "--format=custom")

    def load(self, database: str, role: str, version: str) -> Command:
        """Read it in one transaction, as the role, whose it all becomes."""
        options = ("--single-transaction", "--exit-on-error", "--no-owner", "--no-acl", f"--role={role}")
        return self._command(self._folder(version) / "pg_restore", database, *options)

    def base_backup(self, version: str) -> Command:
        """Write the data directory of the whole server, with the WAL that makes it consistent, as a tar file."""
        options = (
            "--pgdata=-",
            "--format=tar",
            "--wal-method=fetch",
            "--checkpoint=fast",
            "--manifest-checksums=SHA256",
        )
        return self._command(self._newer("pg_basebackup", version), "postgres", *options)

    def timelines(self, current: int) -> list[tuple[int, int]]:
        """Return the timelines before the server's current one, each with the position at which the next one begins."""
        if current == 1:
            return []
        with self.connection(replication="true") as connection:
            answer = connection.pgconn.exec_(f"TIMELINE_HISTORY {current}".encode())
            content = answer.get_value(0, 1) if answer.ntuples else None
        if content is None:
            fail(Conflict, f"the server does not tell where its timeline {current} begins")
        return [(int(old), int(high, 16) << 32 | int(low, 16)) for old, high, low in _HISTORY.findall(content)]

    def receive_wal(self, version: str, folder: Path, slot: str) -> Command:
        """Write WAL into a folder as the server writes it, and tell the server at once how far it is on the disk."""
        options = (f"--directory={folder}", f"--slot={slot}", "--synchronous", "--no-loop", "--status-interval=1")
        return self._command(self._newer("pg_receivewal", version), "postgres", *options)

    def _command(self, program: Path, database: str, *options: str) -> Command:
        where = self.access.arguments("postgresql")
        target = database.replace("\\", "\\\\").replace("'", "\\'")
        variables = {"PGHOST": str(where["host"]), "PGPORT": str(where["port"]), "PGUSER": self.access.user}
        if "sslmode" in where:
            variables |= {"PGSSLMODE": str(where["sslmode"]), "PGSSLROOTCERT": str(where["sslrootcert"])}
        password = self.access.secret().reveal().replace("\\", "\\\\").replace(":", "\\:")
        return Command(
            program=program,
            arguments=(*options, f"--dbname=dbname='{target}'", "--no-password"),
            variables=variables,
            secret=Masked(f"*:*:*:*:{password}\n"),
            secret_variable="PGPASSFILE",  # noqa: S106  its name
        )

    def _newer(self, program: str, version: str) -> Path:
        """Return a program of the server's version or a later one, which reads the server all the same."""
        server = int(version.partition(".")[0])
        found = all_binaries(self.programs, programs=(program,))
        fitting = [each for each in found if each.major >= server]
        if not fitting:
            here = ", ".join(each.version for each in found) or "none"
            how = f"apt-get install postgresql-client-{server}"
            raise ConfigError(f"the archive of PostgreSQL {server} needs its {program} ({how}); here: {here}")
        return min(fitting, key=lambda each: each.major).folder / program

    def _folder(self, version: str) -> Path:
        """Return the programs that the server's version goes with.

        A newer pg_dump reads an older server. Since 17 pg_restore says what a server before it does not understand.
        """
        server = int(version.partition(".")[0])
        found = all_binaries(self.programs, programs=("pg_dump", "pg_restore"))
        fitting = [each for each in found if each.major >= server and (each.major < 17) == (server < 17)]
        if not fitting:
            here = ", ".join(each.version for each in found) or "none"
            how = f"apt-get install postgresql-client-{server}"
            raise ConfigError(f"snapshots of PostgreSQL {server} need its pg_dump and pg_restore ({how}); here: {here}")
        return min(fitting, key=lambda each: each.major).folder


def _common(settings: Mapping[str, Sequence[str]], databases: set[str]) -> dict[str, str]:
    """Return the parameters that all databases have with one value."""
    each = [dict(one.split("=", 1) for one in settings.get(database, ())) for database in databases]
    first = each[0] if each else {}
    return {name: value for name, value in first.items() if all(other.get(name) == value for other in each)}

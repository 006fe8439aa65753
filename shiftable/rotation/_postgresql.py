"""Users of PostgreSQL."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, LiteralString

import attrs

from shiftable.accounts import Account, account_of
from shiftable.config import Credential
from shiftable.database._connecting import forget_password
from shiftable.database._tls import system_certificates
from shiftable.errors import (
    ConfigError,
    Conflict,
    Fault,
    InvalidArgument,
    OperationError,
    PermissionDenied,
    Timeout,
    Unauthenticated,
    Unavailable,
    classify_os,
)
from shiftable.masking import Masked
from shiftable.rotation._account import OneUser, admin_account, document_problem, next_turn, whose_turn
from shiftable.secrets.rotator import Rotator, needs_a_first
from shiftable.tls import advised, check_authorities, stays_here

if TYPE_CHECKING:
    import psycopg

__all__ = ["PostgresqlAlternating", "PostgresqlUser"]

_LONGEST = 63
"""Bytes of a name: NAMEDATALEN less one; what is longer the server cuts off with a notice."""

_PATIENCE = 10
"""Seconds for connecting, and for each statement and lock."""


def _is_name(_: object, field: attrs.Attribute[Any], value: str | None) -> None:
    if value is not None and ("\0" in value or not 0 < len(value.encode()) <= _LONGEST):
        raise ValueError(f"{field.name} must be a name of 1 to {_LONGEST} bytes")


def _are_two_names(_: object, field: attrs.Attribute[Any], value: tuple[str, ...]) -> None:
    if len(value) != 2 or value[0] == value[1]:
        raise ValueError(f"{field.name} must be two different names")
    for each in value:
        _is_name(None, field, each)


@attrs.frozen(kw_only=True)
class _Postgresql(Rotator):
    """What both ways have in common: where the server is, and who may change its users.

    The server gets to see a SCRAM-SHA-256 verifier and never a password, so none is in its logs. Connections are made
    by libpq with what is given here, else what the secret's document says, else libpq's own environment.

    Args:
        host: of the server; a folder is that of its Unix socket.
        port: of the server.
        dbname: which database to connect to.
        sslmode: as libpq's; else ``verify-full``, or ``prefer`` where the server is on this machine and no authorities
            are named.
        sslrootcert: the authorities to trust; else those of libpq's own file, or the system's.
    """

    host: str | None = None
    port: int | None = None
    dbname: str | None = None
    sslmode: Literal["disable", "prefer", "require", "verify-ca", "verify-full"] | None = None
    sslrootcert: Path | None = None

    def classify(self, exc: Exception) -> Fault | None:
        """Say what an error of the server or the connection means."""
        return _classify(exc)

    @contextlib.contextmanager
    def _connected(self, account: Account, server: Account | None = None) -> Iterator[psycopg.Connection]:
        """Connect as somebody until the end of the block, which commits.

        Args:
            server: whose document tells where the server is.
        """
        psycopg = _psycopg()
        where = server or account
        host = self.host or where.host
        tls = self._tls(host)
        try:
            connection = psycopg.connect(
                host=host,
                port=self.port or where.port,
                dbname=self.dbname or where.dbname or "postgres",
                user=account.username,
                password=account.password.reveal(),
                **tls,
                connect_timeout=_PATIENCE,
                application_name="shiftable rotation",
            )
        except psycopg.OperationalError as exc:
            forget_password(exc)  # else all that it says would be withheld
            raise
        with connection:
            # Here and not among the options of the connection, which poolers refuse. It counts for locks too.
            connection.execute(f"SET LOCAL statement_timeout = '{_PATIENCE}s'")
            yield connection

    def _tls(self, host: str | None) -> dict[str, str]:
        """Say how the server is to prove itself, in libpq's words. What is not said here, libpq's environment says."""
        if self.sslrootcert is not None:
            check_authorities("sslrootcert", self.sslrootcert)
        known = host or os.environ.get("PGHOST") or os.environ.get("PGHOSTADDR")
        usual = os.environ.get("PGSSLMODE") or ("prefer" if stays_here(known) else "verify-full")
        mode = self.sslmode or ("verify-full" if self.sslrootcert is not None else usual)
        trusted = self.sslrootcert
        if trusted is None and mode.startswith("verify") and "PGSSLROOTCERT" not in os.environ:
            own = Path.home() / ".postgresql" / "root.crt"
            trusted = own if own.exists() else Path(system_certificates("postgresql"))
        return {"sslmode": mode, **({} if trusted is None else {"sslrootcert": str(trusted)})}

    def _accepts(self, account: Account) -> bool:
        """Tell whether the server lets somebody in."""
        try:
            with self._connected(account):
                return True
        except _psycopg().OperationalError as exc:
            fault = _classify(exc)
            if fault is not None and fault.error is Unauthenticated:
                return False
            raise


@attrs.frozen(kw_only=True)
class PostgresqlUser(_Postgresql, OneUser):
    """The password of one PostgreSQL user.

    The value is the password, or a JSON document with ``username`` and ``password``. The old password stops working
    when the new one is set, a moment before it is current: clients that connect in that moment, with a value they
    keep, or after a run that was killed right there, are refused until the next run. ``postgresql-alternating`` has no
    such moment. After ``grace`` only the version is disabled.

    Permissions: none beside logging in, as everybody may change the own password; with ``admin``: CREATEROLE, and
    ADMIN of the user since PostgreSQL 16. Without ``admin`` the old password must still work.

    Args:
        user: the user's name, where the value is a password alone.
        admin: another user who sets the password: a password, or such a document.
        admin_user: the name of that user, where it is a password alone.
    """

    kind: ClassVar[str] = "postgresql-user"

    user: str | None = attrs.field(default=None, validator=_is_name)
    admin: Credential | None = None
    admin_user: str | None = attrs.field(default=None, validator=_is_name)

    def set(self, new: Masked, old: Masked, confirm: Callable[[], object]) -> None:
        """Change the password, as the administrator or as the user."""
        wanted, had = account_of(new, self.user), account_of(old, self.user)
        if self.admin is None and self._accepts(wanted):
            return
        changer = admin_account(self.admin, self.admin_user) if self.admin else had
        with self._connected(changer, wanted) as connection:
            _lock(connection, wanted.username)
            confirm()
            _execute(connection, "ALTER ROLE {} PASSWORD {}", wanted.username, _verifier(connection, wanted))

    def test(self, new: Masked) -> None:
        """Log in."""
        with self._connected(account_of(new, self.user)) as connection:
            connection.execute("SELECT 1")


@attrs.frozen(kw_only=True)
class PostgresqlAlternating(_Postgresql):
    """Two PostgreSQL users that take turns, so that there is always one whose password does not change.

    The value is a JSON document with ``username`` and ``password``, and clients read both. The next value belongs to
    the user who is not current; if the current user is neither, to the first. Both users are members of ``role`` and
    act as it (``ALTER ROLE … SET role``), so that what one of them makes belongs to both: it owns the application's
    tables. A user who is missing is made.

    After ``grace`` the old user can no longer log in (NOLOGIN, no password). Sessions that are open then stay open: let
    the pools of your clients renew connections more often than that.

    Permissions of ``admin``: CREATEROLE, and ADMIN of ``role`` and of both users since PostgreSQL 16, which it has
    of those that it makes.

    Args:
        users: the names of the two.
        role: as whom both act.
        admin: who changes them: a password, or a JSON document with ``username`` and ``password``.
        admin_user: the name of that user, where it is a password alone.
    """

    kind: ClassVar[str] = "postgresql-alternating"
    begins: ClassVar[bool] = False

    users: tuple[str, ...] = attrs.field(validator=_are_two_names)
    role: str = attrs.field(validator=_is_name)
    admin: Credential
    admin_user: str | None = attrs.field(default=None, validator=_is_name)

    def check(self, current: Masked) -> str | None:
        """Say why a value is no document with a user."""
        return document_problem(current)

    def parts(self, value: Masked) -> tuple[Masked, ...]:
        """Return the value and the password in it."""
        return value, account_of(value, None).password

    def create(self, current: Masked | None) -> Masked:
        """Make a password for the user whose turn it is."""
        if current is None:
            raise needs_a_first(self.kind)
        return next_turn(current, self.users)

    def set(self, new: Masked, old: Masked, confirm: Callable[[], object]) -> None:
        """Let the other user log in, as a member of the role."""
        wanted = whose_turn(new, old, self.users)
        with self._connected(admin_account(self.admin, self.admin_user), wanted) as connection:
            _lock(connection, self.role)
            confirm()
            if not _exists(connection, wanted.username):
                _execute(connection, "CREATE ROLE {}", wanted.username)
            _execute(connection, "ALTER ROLE {} LOGIN PASSWORD {}", wanted.username, _verifier(connection, wanted))
            if not _is_member(connection, wanted.username, self.role):
                _grant(connection, self.role, wanted.username)
            _execute(connection, "ALTER ROLE {} SET role TO {}", wanted.username, self.role)

    def test(self, new: Masked) -> None:
        """Log in, and act as the role."""
        with self._connected(account_of(new, None)) as connection:
            # Compared there: from a database without an encoding texts come as bytes.
            if connection.execute("SELECT current_user = %s", [self.role]).fetchone() != (True,):
                raise PermissionDenied(f"the new user does not act as {self.role!r}; is it a member of that role?")

    def retire(self, old: Masked, current: Masked, confirm: Callable[[], object]) -> None:
        """Keep the old user from logging in."""
        had, has = account_of(old, None), account_of(current, None)
        admin = admin_account(self.admin, self.admin_user)
        if had.username in (has.username, admin.username):
            return  # its password has changed already; or the application had the administrator's, who is still needed
        with self._connected(admin, has) as connection:
            _lock(connection, self.role)
            confirm()
            if _exists(connection, had.username):
                _execute(connection, "ALTER ROLE {} NOLOGIN PASSWORD NULL", had.username)


def _psycopg() -> Any:  # noqa: ANN401  a module
    try:
        import psycopg
    except ImportError as exc:
        raise ConfigError(f'PostgreSQL needs psycopg: pip install "shiftable[postgresql]" ({exc})') from exc
    return psycopg


def _lock(connection: psycopg.Connection, name: str) -> None:
    """Keep out other runs until the transaction ends, as it does when this process ends."""
    connection.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [f"shiftable rotation of {name}"])


def _verifier(connection: psycopg.Connection, account: Account) -> str:
    """Compute here what the server would keep of a password."""
    revealed = account.password.reveal().encode()
    return connection.pgconn.encrypt_password(revealed, account.username.encode(), b"scram-sha-256").decode()


def _execute(connection: psycopg.Connection, statement: LiteralString, name: str, *texts: str) -> None:
    """Execute a statement that takes no parameters: about a name, with texts."""
    from psycopg import sql

    connection.execute(sql.SQL(statement).format(sql.Identifier(name), *map(sql.Literal, texts)))


def _grant(connection: psycopg.Connection, role: str, name: str) -> None:
    from psycopg import sql

    connection.execute(sql.SQL("GRANT {} TO {}").format(sql.Identifier(role), sql.Identifier(name)))


def _exists(connection: psycopg.Connection, name: str) -> bool:
    return connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [name]).fetchone() is not None


def _is_member(connection: psycopg.Connection, name: str, role: str) -> bool:
    return connection.execute("SELECT pg_has_role(%s, %s, 'MEMBER')", [name, role]).fetchone() == (True,)


_TLS = {
    "authorities": "sslrootcert",
    "without": '`sslmode = "prefer"` does without',
    "with_tls": '`sslmode = "verify-full"`',
}
_DENIED = "42501"
_STATES: dict[str, type[OperationError]] = {
    "28": Unauthenticated,
    _DENIED: PermissionDenied,
    "42704": InvalidArgument,  # no such role
    "3D000": InvalidArgument,  # no such database
    "0A000": InvalidArgument,
    "55P03": Timeout,  # the lock
    "57014": Timeout,
    "53": Unavailable,
    "57P": Unavailable,
    "08": Unavailable,
    "40": Conflict,
    "23505": Conflict,  # two CREATE ROLE at once
}
"""What SQLSTATEs mean, the longest beginning first: PostgreSQL's Appendix A."""


_TEXTS: dict[str, type[OperationError]] = {
    "does not exist": InvalidArgument,
    "timeout": Timeout,
    "connections": Unavailable,  # too many, or the remaining ones are reserved
    "starting up": Unavailable,
    "shutting down": Unavailable,
    "refused": Unavailable,
    "authentication failed": Unauthenticated,
    "not permitted to log in": Unauthenticated,
    "no password supplied": Unauthenticated,
    "pg_hba.conf": PermissionDenied,
}
"""What libpq says of a connection that failed: it tells no SQLSTATE then."""


def _classify(exc: Exception) -> Fault | None:
    """Say what an error of psycopg means."""
    import psycopg

    if not isinstance(exc, psycopg.Error):
        return classify_os(exc)
    message = advised(str(exc).partition("\n")[0], **_TLS)
    if exc.sqlstate is not None:
        found = (_STATES[exc.sqlstate[:size]] for size in (5, 3, 2) if exc.sqlstate[:size] in _STATES)
        why = exc.diag.message_detail if exc.sqlstate == _DENIED else None  # on which role what is missing
        told = exc.diag.message_primary or message
        return Fault(next(found, OperationError), f"{told}: {why}" if why else told, exc.sqlstate)
    for text, error in _TEXTS.items():
        if text in message.lower():
            return Fault(error, message)
    used = exc.pgconn is not None and exc.pgconn.used_password  # of a server that speaks another language
    return Fault(Unauthenticated if used else Unavailable, message)

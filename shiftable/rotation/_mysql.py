"""Users of MySQL and MariaDB."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import attrs

from shiftable.accounts import Account, account_of
from shiftable.config import Credential
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
    from pymysql.cursors import Cursor

__all__ = ["MysqlAlternating", "MysqlUser"]

logger = logging.getLogger(__name__)

_PATIENCE = 10
"""Seconds for connecting, and for each answer and lock."""


@attrs.frozen(kw_only=True)
class _Mysql(Rotator):
    """What both ways have in common: where the server is, and who changes its users.

    MariaDB gets to see the hash of a password and never the password. MySQL gets the password, over TLS, and keeps it
    out of all of its logs itself (MySQL manual, Passwords and Logging).

    Args:
        host: of the server; else what the secret's document says, else this machine.
        port: of the server.
        dbname: which database clients use.
        account_host: from where the users may come, as the server writes it.
        ssl_mode: as that of MySQL's clients; else ``verify_identity``, or ``preferred`` where the server is on this
            machine and no authorities are named.
        ssl_ca: the authorities to trust; else the system's.
        admin: who changes users (CREATE USER; on MySQL APPLICATION_PASSWORD_ADMIN too; with SELECT on ``mysql.user``
            other accounts of the user are seen): a password, or a JSON document with ``username`` and ``password``.
        admin_user: the name of that user, where it is a password alone.
    """

    admin: Credential
    admin_user: str | None = None
    host: str | None = None
    port: int | None = None
    dbname: str | None = None
    account_host: str = "%"
    ssl_mode: Literal["disabled", "preferred", "required", "verify_ca", "verify_identity"] | None = None
    ssl_ca: Path | None = None

    def classify(self, exc: Exception) -> Fault | None:
        """Say what an error of the server or the connection means."""
        return _classify(exc)

    @contextlib.contextmanager
    def _connected(self, account: Account, server: Account | None = None, *, database: bool = True) -> Iterator[Cursor]:
        """Connect as somebody until the end of the block.

        Args:
            server: whose document tells where the server is.
        """
        pymysql = _pymysql()
        where = server or account
        host = self.host or where.host or "127.0.0.1"
        connection = pymysql.connect(
            host=host,
            port=self.port or where.port or 3306,
            database=(self.dbname or where.dbname) if database else None,
            user=account.username,
            password=account.password.reveal(),
            connect_timeout=_PATIENCE,
            read_timeout=2 * _PATIENCE,
            write_timeout=2 * _PATIENCE,
            autocommit=True,
            **self._tls(host),
        )
        with connection, connection.cursor() as cursor:
            yield cursor

    def _tls(self, host: str) -> dict[str, Any]:
        """Say how the server is to prove itself, in PyMySQL's words."""
        if self.ssl_ca is not None:
            check_authorities("ssl_ca", self.ssl_ca)
        unproved = self.ssl_ca is None and stays_here(host)
        mode = self.ssl_mode or ("preferred" if unproved else "verify_identity")
        if mode in {"disabled", "preferred"}:
            return {"ssl_disabled": True} if mode == "disabled" else {}
        context = ssl.create_default_context(cafile=self.ssl_ca)
        context.check_hostname = mode == "verify_identity"
        context.verify_mode = ssl.CERT_NONE if mode == "required" else ssl.CERT_REQUIRED
        return {"ssl": context}

    @contextlib.contextmanager
    def _administered(self, account: Account, lock: str) -> Iterator[Cursor]:
        """Connect as the administrator, and keep out other runs until the end of the block, or of this process."""
        with self._connected(admin_account(self.admin, self.admin_user), account, database=False) as cursor:
            name = "shiftable " + hashlib.sha256(lock.encode()).hexdigest()[:32]  # a lock's name has 64 characters
            cursor.execute("SELECT GET_LOCK(%s, %s)", (name, _PATIENCE))
            if cursor.fetchone() != (1,):
                raise Timeout(f"waited {_PATIENCE} seconds for another run that changes {lock!r}")
            yield cursor

    @contextlib.contextmanager
    def _logged_in(self, account: Account, *, database: bool = True) -> Iterator[Cursor]:
        """Connect as the user whose password was just set."""
        try:
            with self._connected(account, database=database) as cursor:
                yield cursor
        except _pymysql().err.OperationalError as exc:
            if exc.args[0] != _DENIED:
                raise
            why = f"{exc.args[-1]}, with the password that {self._name(account)} has"
            told = f"{why}: another account of that name counts here (`account_host` says which), or it requires TLS"
            raise type(exc)(_DENIED, told) from exc

    def _others(self, cursor: Cursor, account: Account) -> dict[str, str | None] | None:
        """Return the user's accounts of other hosts, each with the hash of its password where it is one to compare.

        ``None`` where the administrator may not ask.
        """
        comparable = "plugin IN ('', 'mysql_native_password', 'unix_socket', 'auth_socket')"
        others = "User = %s AND Host NOT IN ('', %s)"  # MariaDB's roles have no host
        query = f"SELECT Host, IF({comparable}, authentication_string, NULL) FROM mysql.user WHERE {others}"  # noqa: S608
        try:
            cursor.execute(query, (account.username, self._host))
        except _pymysql().err.OperationalError as exc:
            if exc.args[0] in _UNREADABLE:
                return None
            raise
        return {f"{account.username}@{host}": kept for host, kept in cursor.fetchall()}

    def _log_unknown(self, account: Account, what: str) -> None:
        logger.warning("%s is changed, and nobody can tell here whether %s", self._name(account), what)

    def _name(self, account: Account) -> str:
        return f"{account.username}@{self._host}"

    @property
    def _host(self) -> str:
        return self.account_host.lower()  # as the server keeps it

    def _taken_for(self, account: Account) -> str | None:
        """Say for whom the server takes somebody; ``None`` if it refuses the password."""
        try:
            with self._connected(account, database=False) as cursor:
                cursor.execute("SELECT CURRENT_USER()")
                (found,) = cursor.fetchone() or ("",)
                return str(found)
        except _pymysql().err.OperationalError as exc:
            fault = _classify(exc)
            if fault is None or fault.error is not Unauthenticated:
                raise
            return None if exc.args[0] in _REFUSED else self._name(account)  # else it is locked, or has expired

    def _accepts(self, account: Account) -> bool:
        """Tell whether the server lets somebody in."""
        try:
            with self._connected(account):
                return True
        except _pymysql().err.MySQLError as exc:
            fault = _classify(exc)
            if fault is not None and fault.error is Unauthenticated:
                return False
            raise


@attrs.frozen(kw_only=True)
class MysqlUser(_Mysql, OneUser):
    """The password of one MySQL or MariaDB user, who has two until ``grace`` is over.

    The value is the password, or a JSON document with ``username`` and ``password``. MySQL (8.0.14 and later) keeps the
    old password as the user's second one; MariaDB (10.4 and later) gets both, to be tried in turn, for
    ``mysql_native_password``. So no client is refused; after ``grace`` the old password is.

    Args:
        user: the user's name, where the value is a password alone.
    """

    kind: ClassVar[str] = "mysql-user"

    user: str | None = None

    def set(self, new: Masked, old: Masked, confirm: Callable[[], object]) -> None:
        """Give the user the new password beside the old one."""
        wanted, had = account_of(new, self.user), account_of(old, self.user)
        with self._administered(wanted, wanted.username) as cursor:
            is_good = self._is_good(cursor, had)
            who = (wanted.username, self.account_host)
            if _is_mariadb(cursor):
                confirm()
                cursor.execute(f"ALTER USER %s@%s {_NATIVE} OR {_NATIVE_TOO}", (*who, _hash(wanted), _hash(had)))
            elif not self._accepts(wanted):  # else it would take the place of the old one too
                confirm()
                statement = "ALTER USER %s@%s IDENTIFIED BY %s"
                if is_good and self._has_second(cursor, who):  # the old one, where a pending value was given up
                    cursor.execute(statement, (*who, had.password.reveal()))
                cursor.execute(f"{statement} RETAIN CURRENT PASSWORD", (*who, wanted.password.reveal()))

    def _has_second(self, cursor: Cursor, who: tuple[str, str]) -> bool:
        """Tell whether an account of MySQL has two passwords already; where that cannot be known, it may."""
        told = "JSON_CONTAINS_PATH(COALESCE(User_attributes, '{}'), 'one', '$.additional_password')"
        try:
            cursor.execute(f"SELECT {told} FROM mysql.user WHERE User = %s AND Host = %s", (who[0], self._host))  # noqa: S608
        except _pymysql().err.OperationalError as exc:
            if exc.args[0] in _UNREADABLE:
                return True
            raise
        return cursor.fetchone() not in (None, (0,))

    def _is_good(self, cursor: Cursor, had: Account) -> bool:
        """Tell whether the server takes the current value; fail where clients may log in as another account by it.

        The server takes the account whose host is the most exact, and over a Unix socket ``localhost``.
        """
        name, others, taken = self._name(had), self._others(cursor, had), self._taken_for(had)
        if taken not in (None, name):
            raise Conflict(f"nothing was changed: the current value logs in as {taken}, and `account_host` says {name}")
        if taken is None and others != {}:
            known = " and ".join(others) if others else _UNREAD
            why = f"the server refuses the current value for {name}; is it that of another account ({known})?"
            raise Conflict(f"nothing was changed: {why} `account_host` says which is meant")
        same = [other for other, kept in (others or {}).items() if kept == _hash(had)]
        if same:
            why = f"{' and '.join(same)} has the same password as {name}, and clients whom it lets in would be refused"
            raise Conflict(f"nothing was changed: {why}; drop it, or give it another password and a secret of its own")
        unsure = [other for other, kept in (others or {}).items() if kept is None]
        if unsure:
            self._log_unknown(had, f"{' and '.join(unsure)} has the same password")
        elif others is None:
            self._log_unknown(had, f"other accounts of the user have the same password: {_UNREAD}")
        return taken is not None

    def test(self, new: Masked) -> None:
        """Log in."""
        with self._logged_in(account_of(new, self.user)) as cursor:
            cursor.execute("SELECT 1")

    def retire(self, old: Masked, current: Masked, confirm: Callable[[], object]) -> None:
        """Take the old password from the user."""
        had, has = account_of(old, self.user), account_of(current, self.user)
        if had.username != has.username:
            return  # somebody gave the secret to another user; this one is no business of ours any more
        with self._administered(has, has.username) as cursor:
            confirm()
            who = (has.username, self.account_host)
            if _is_mariadb(cursor):
                cursor.execute(f"ALTER USER %s@%s {_NATIVE}", (*who, _hash(has)))
            else:
                cursor.execute("ALTER USER %s@%s DISCARD OLD PASSWORD", who)


@attrs.frozen(kw_only=True)
class MysqlAlternating(_Mysql):
    """Two MySQL or MariaDB users that take turns, so that there is always one whose password does not change.

    The value is a JSON document with ``username`` and ``password``, and clients read both. The next value belongs to
    the user who is not current; if the current user is neither, to the first. Both have ``role`` as their default
    role, which holds the privileges of the application. A user who is missing is made. After ``grace`` the old user's
    account is locked; sessions that are open then stay open.

    ``admin`` has ``role`` with its admin option, too.

    Args:
        users: the names of the two.
        role: what both may do.
    """

    kind: ClassVar[str] = "mysql-alternating"
    begins: ClassVar[bool] = False

    users: tuple[str, ...] = attrs.field()
    role: str

    @users.validator
    def _are_two_names(self, _: object, value: tuple[str, ...]) -> None:
        if len(value) != 2 or value[0] == value[1] or not all(value):
            raise ValueError("users must be two different names")

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
        """Let the other user log in, with the role."""
        wanted = whose_turn(new, old, self.users)
        with self._administered(wanted, self.role) as cursor:
            self._check_alone(cursor, wanted)
            confirm()
            who = (wanted.username, self.account_host)
            is_mariadb = _is_mariadb(cursor)
            identified = _NATIVE if is_mariadb else "IDENTIFIED BY %s"
            secret = _hash(wanted) if is_mariadb else wanted.password.reveal()
            cursor.execute(f"CREATE USER IF NOT EXISTS %s@%s {identified} ACCOUNT LOCK", (*who, secret))
            cursor.execute(f"ALTER USER %s@%s {identified} ACCOUNT UNLOCK", (*who, secret))
            cursor.execute("GRANT %s TO %s@%s", (self.role, *who))
            if not is_mariadb:
                cursor.execute("ALTER USER %s@%s DEFAULT ROLE %s", (*who, self.role))
                return
            with self._logged_in(wanted, database=False) as own:  # for others it takes UPDATE on all that MariaDB keeps
                own.execute("SET DEFAULT ROLE %s", (self.role,))

    def _check_alone(self, cursor: Cursor, wanted: Account) -> None:
        """Fail where clients may log in as another account of the user, which would refuse the new password."""
        others = self._others(cursor, wanted)
        if others is None:
            self._log_unknown(wanted, f"it is the user's only account: {_UNREAD}")
        elif others:
            why = (
                f"{' and '.join(others)} is another account of that user, and clients whom it lets in would be refused"
            )
            raise Conflict(f"nothing was changed: {why}; drop it, or say by `account_host` which one is meant")

    def test(self, new: Masked) -> None:
        """Log in, and have the role."""
        with self._logged_in(account_of(new, None)) as cursor:
            cursor.execute("SELECT CURRENT_ROLE()")
            (found,) = cursor.fetchone() or (None,)
            if self.role not in str(found).replace("`", "").split("@"):
                raise PermissionDenied(f"the new user does not have the role {self.role!r}")

    def retire(self, old: Masked, current: Masked, confirm: Callable[[], object]) -> None:
        """Lock the old user's account."""
        had, has = account_of(old, None), account_of(current, None)
        if had.username in (has.username, admin_account(self.admin, self.admin_user).username):
            return  # its password has changed already; or the application had the administrator's, who is still needed
        with self._administered(has, self.role) as cursor:
            confirm()
            cursor.execute("ALTER USER IF EXISTS %s@%s ACCOUNT LOCK", (had.username, self.account_host))
            taken, others = self._taken_for(had), self._others(cursor, had) or {}
        name = self._name(had)
        left = {other for other, kept in others.items() if kept == _hash(had)}
        left |= {taken} - {name} if taken is not None else set()
        if left:
            why = f"the old value still lets clients in as {' and '.join(sorted(left))}"
            raise Conflict(f"{name} is locked, and {why}; drop that account, or give it another password")


_DENIED = 1045
_REFUSED = (_DENIED, 1698)
_UNREADABLE = (1142, 1143)
_UNREAD = "the administrator may not SELECT from mysql.user"
_NATIVE = "IDENTIFIED VIA mysql_native_password USING %s"
_NATIVE_TOO = "mysql_native_password USING %s"


def _hash(account: Account) -> str:
    """Compute here what MariaDB would keep of a password. Of random characters no hash can be turned around."""
    inner = hashlib.sha1(account.password.reveal().encode(), usedforsecurity=False).digest()
    return "*" + hashlib.sha1(inner, usedforsecurity=False).hexdigest().upper()


def _is_mariadb(cursor: Cursor) -> bool:
    cursor.execute("SELECT VERSION()")
    (version,) = cursor.fetchone() or ("",)
    return "mariadb" in str(version).lower()


def _pymysql() -> Any:  # noqa: ANN401  a module
    try:
        import pymysql
    except ImportError as exc:
        raise ConfigError(f'MySQL needs PyMySQL: pip install "shiftable[mysql]" ({exc})') from exc
    return pymysql


_CODES: dict[int, type[OperationError]] = {
    1040: Unavailable,  # too many connections
    1044: PermissionDenied,
    1045: Unauthenticated,
    1049: InvalidArgument,  # no such database
    1053: Unavailable,  # it is being stopped
    1064: InvalidArgument,  # the server is too old for it
    1129: Unavailable,  # too many errors of this host
    1130: PermissionDenied,  # the host may not connect
    1142: PermissionDenied,
    1203: Unavailable,  # too many connections of that user
    1205: Timeout,
    1226: Unavailable,  # the same, as the account says
    1227: PermissionDenied,
    1290: PermissionDenied,  # it is read only
    1372: InvalidArgument,  # hashes are refused where passwords have rules: strict_password_validation
    1396: InvalidArgument,  # no such user
    1410: PermissionDenied,
    1698: Unauthenticated,
    1819: InvalidArgument,  # a rule for passwords
    1820: Unauthenticated,  # the password has expired
    1836: PermissionDenied,  # it is read only
    1862: Unauthenticated,  # the password has expired
    1927: Unavailable,  # somebody has ended the connection
    1959: InvalidArgument,  # no such role
    2003: Unavailable,
    2006: Unavailable,
    2013: Unavailable,
    2026: Unavailable,  # TLS
    3118: Unauthenticated,  # locked
    3159: InvalidArgument,  # it wants TLS
    3523: InvalidArgument,  # no such role
    4151: Unauthenticated,  # locked
}
"""What the errors of both servers and of the client mean: their references of messages."""


def _classify(exc: Exception) -> Fault | None:
    """Say what an error of PyMySQL means."""
    import pymysql

    if not isinstance(exc, pymysql.err.MySQLError):
        return classify_os(exc)
    code, message = (*exc.args, "", "")[:2] if exc.args and isinstance(exc.args[0], int) else (0, str(exc))
    told = advised(
        str(message),
        authorities="ssl_ca",
        without='`ssl_mode = "preferred"` does without',
        with_tls='`ssl_mode = "verify_identity"`',
    )
    return Fault(_CODES.get(code, OperationError), told, str(code or ""))

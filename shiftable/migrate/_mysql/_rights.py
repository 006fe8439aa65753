"""What an account may do, and what others may do in a database."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

import attrs

from shiftable.errors import MigrationError
from shiftable.migrate._mysql._side import Session, asking, rows
from shiftable.migrate._mysql._words import account, quoted

__all__ = ["Grant", "Rights", "accounts_of", "apply_grants", "grants_of", "rights_of", "rights_told", "split_account"]

_NAME = r"`(?:[^`]|``)*`"
_LINE = re.compile(rf"^GRANT (?P<what>.+?) ON (?P<where>\*|{_NAME})\.\* TO ", re.DOTALL)
_COLUMN = re.compile(r"\([^)]*\)")
_ALL = "ALL PRIVILEGES"

_GRANTS: Mapping[str, str] = {
    "database": "SELECT grantee, '' AS name, '' AS part, privilege_type AS what, is_grantable = 'YES' AS more"
    " FROM information_schema.schema_privileges WHERE REPLACE(table_schema, '\\\\', '') = DATABASE()",
    "table": "SELECT grantee, table_name AS name, '' AS part, privilege_type AS what, is_grantable = 'YES' AS more"
    " FROM information_schema.table_privileges WHERE table_schema = DATABASE()",
    "column": "SELECT grantee, table_name AS name, column_name AS part, privilege_type AS what,"
    " is_grantable = 'YES' AS more FROM information_schema.column_privileges WHERE table_schema = DATABASE()",
}
_ROUTINES = (
    "SELECT user, host, routine_name AS name, routine_type AS part, proc_priv AS what FROM mysql.procs_priv"
    " WHERE db = DATABASE()"
)
_NOT_GIVEN = frozenset({"USAGE", "GRANT OPTION"})


@attrs.frozen
class Rights:
    """What the mover's account may do.

    Args:
        everywhere: on the whole server.
        here: on the whole database, that included.
    """

    everywhere: frozenset[str]
    here: frozenset[str]

    def lacks(self, *wanted: str) -> list[str]:
        """Return which of some rights on the database are missing."""
        return [] if _ALL in self.here else [each for each in wanted if each not in self.here]

    def has(self, *either: str) -> bool:
        """Tell whether the account has one of some rights on the whole server."""
        return _ALL in self.everywhere or any(each in self.everywhere for each in either)


@attrs.frozen(order=True)
class Grant:
    """What somebody else may do.

    Args:
        kind: ``database``, ``table``, ``column``, ``FUNCTION``, ``PROCEDURE``, ``PACKAGE``, ``PACKAGE BODY``.
        part: a column.
        more: and may give it to others.
    """

    user: str
    host: str
    kind: str
    name: str
    part: str
    what: str
    more: bool = False

    @property
    def account(self) -> str:
        """As people know it."""
        return f"{self.user}@{self.host}"

    def sql(self, database: str) -> str:
        """Return the statement that gives it."""
        what = f"{self.what} ({quoted(self.part)})" if self.kind == "column" else self.what
        where = f"{quoted(database)}.{quoted(self.name) if self.name else '*'}"
        kind = "" if self.kind in {"database", "table", "column"} else f"{self.kind} "
        option = " WITH GRANT OPTION" if self.more else ""
        return f"GRANT {what} ON {kind}{where} TO {account(self.user, self.host)}{option}"

    def __str__(self) -> str:
        on = f" on {self.name}" if self.name else ""
        return f"{self.what}{on} of {self.account}"


def rights_of(session: Session, name: str) -> Rights:
    """Ask what the session's account may do, by itself and by its roles."""
    (who,) = rows(session, name, "SELECT DATABASE() AS db, VERSION() AS version")
    lines = [str(value) for row in rows(session, name, "SHOW GRANTS") for value in row.values()]
    if "mariadb" not in who["version"].lower():
        (role,) = rows(session, name, "SELECT CURRENT_ROLE() AS role")
        if role["role"] and role["role"] != "NONE":
            more = rows(session, name, f"SHOW GRANTS FOR CURRENT_USER() USING {role['role']}")
            lines += [str(value) for row in more for value in row.values()]
    return rights_told(lines, who["db"] or "")


def rights_told(lines: Iterable[str], database: str) -> Rights:
    """Understand what ``SHOW GRANTS`` says."""
    everywhere: set[str] = set()
    here: set[str] = set()
    for line in lines:
        match = _LINE.match(line)
        if match is None:
            continue
        what = {each.strip().upper() for each in _COLUMN.sub("", match["what"]).split(",")}
        if match["where"] == "*":
            everywhere |= what
        elif _covers(match["where"][1:-1].replace("``", "`"), database):
            here |= what
    return Rights(frozenset(everywhere), frozenset(everywhere | here))


def _covers(pattern: str, database: str) -> bool:
    """Tell whether a grant's pattern is good for a database: ``_`` and ``%`` mean others, unless they are escaped."""
    parts = re.findall(r"\\.|.", pattern, re.DOTALL)
    signs = {"_": ".", "%": ".*"}
    told = "".join(signs.get(part) or re.escape(part[-1] if len(part) > 1 else part) for part in parts)
    return re.fullmatch(told, database, re.DOTALL) is not None


def grants_of(session: Session, name: str) -> tuple[Grant, ...] | None:
    """Return what others may do in the database; ``None``: that may not be read."""
    found: list[Grant] = []
    try:
        for kind, query in _GRANTS.items():
            for row in rows(session, name, query):
                user, host = split_account(row["grantee"].replace("'", ""))
                if row["what"] not in _NOT_GIVEN:
                    found.append(Grant(user, host, kind, row["name"], row["part"], row["what"], bool(row["more"])))
        for row in rows(session, name, _ROUTINES):
            what = row["what"] if isinstance(row["what"], str) else ",".join(row["what"])
            rights = [each.strip().upper() for each in what.split(",") if each.strip()]
            more = "GRANT" in rights
            found += [
                Grant(row["user"], row["host"], row["part"], row["name"], "", each, more)
                for each in rights
                if each != "GRANT"
            ]
    except MigrationError:
        return None
    return tuple(sorted(found))


def accounts_of(session: Session, name: str) -> frozenset[str] | None:
    """Return the accounts of a server; ``None``: they may not be read."""
    try:
        return frozenset(
            f"{row['user']}@{row['host']}" for row in rows(session, name, "SELECT user, host FROM mysql.user")
        )
    except MigrationError:
        return None


def apply_grants(session: Session, name: str, database: str, wanted: Iterable[Grant]) -> Iterator[str]:
    """Give others what they had; yield what the server refuses."""
    for grant in wanted:
        try:
            with asking(name), session.cursor() as cursor:
                cursor.execute(grant.sql(database))
        except MigrationError as exc:
            yield f"{grant} was not given: {exc}"


def split_account(text: str) -> tuple[str, str]:
    """Return user and host."""
    user, _, host = text.rpartition("@")
    return (user, host) if user or not host else (host, "")

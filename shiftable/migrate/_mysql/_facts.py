"""What there is on one side, and what of the source the target cannot hold, or would lose."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import attrs
import pymysql

from shiftable.errors import MigrationError
from shiftable.migrate._database_engine import Lost, some
from shiftable.migrate._mysql._marks import phase_of
from shiftable.migrate._mysql._rights import Grant, Rights, accounts_of, grants_of, rights_of, split_account
from shiftable.migrate._mysql._side import Session, rows, warnings_of
from shiftable.migrate._mysql._tables import Table, tables_of, unknown_types
from shiftable.migrate._mysql._words import quoted

__all__ = ["Facts", "facts_of", "losses", "missing_accounts"]

OLDEST = {"mariadb": (10, 5), "mysql": (8, 0)}
"""What is still kept by somebody: MariaDB 10.5 was until June 2025, MySQL 8.0 until April 2026."""

_SERVER = """
SELECT VERSION() AS version, CURRENT_USER() AS who, @@lower_case_table_names AS folds, @@max_allowed_packet AS packet,
    @@global.sql_mode AS modes, @@global.time_zone AS zone, @@system_time_zone AS system_zone, @@log_bin AS logs,
    @@log_bin_trust_function_creators AS trusts, @@global.read_only AS read_only,
    (SELECT default_character_set_name FROM information_schema.schemata WHERE schema_name = DATABASE()) AS charset,
    (SELECT default_collation_name FROM information_schema.schemata WHERE schema_name = DATABASE()) AS collation
"""
_KINDS: Mapping[str, str] = {
    "views": "SELECT table_name AS name, definer FROM information_schema.views WHERE table_schema = DATABASE()",
    "routines": "SELECT routine_name AS name, definer FROM information_schema.routines"
    " WHERE routine_schema = DATABASE()",
    "triggers": "SELECT trigger_name AS name, definer FROM information_schema.triggers"
    " WHERE trigger_schema = DATABASE()",
    "events": "SELECT event_name AS name, definer FROM information_schema.events WHERE event_schema = DATABASE()",
    "sequences": "SELECT table_name AS name, NULL AS definer FROM information_schema.tables"
    " WHERE table_schema = DATABASE() AND table_type = 'SEQUENCE'",
}
_ENGINES = "SELECT engine AS name FROM information_schema.engines WHERE support IN ('YES', 'DEFAULT')"
_COLLATIONS = "SELECT collation_name AS name FROM information_schema.collations"
_FULL = "SELECT full_collation_name AS name FROM information_schema.collation_character_set_applicability"
_USED = """
SELECT DISTINCT collation_name AS name FROM information_schema.columns
WHERE table_schema = DATABASE() AND collation_name IS NOT NULL
UNION SELECT table_collation FROM information_schema.tables
WHERE table_schema = DATABASE() AND table_collation IS NOT NULL AND table_type <> 'VIEW'
UNION SELECT default_collation_name FROM information_schema.schemata WHERE schema_name = DATABASE()
UNION SELECT database_collation FROM information_schema.routines WHERE routine_schema = DATABASE()
UNION SELECT collation_connection FROM information_schema.routines WHERE routine_schema = DATABASE()
UNION SELECT collation_connection FROM information_schema.views WHERE table_schema = DATABASE()
UNION SELECT collation_connection FROM information_schema.triggers WHERE trigger_schema = DATABASE()
"""
_FOREIGN = """
SELECT DISTINCT table_name AS name, unique_constraint_schema AS other
FROM information_schema.referential_constraints
WHERE constraint_schema = DATABASE() AND unique_constraint_schema <> DATABASE()
"""
_READ = ("SELECT", "SHOW VIEW", "TRIGGER", "EVENT")
_WRITE = ("SELECT", "INSERT", "UPDATE", "DELETE", "CREATE", "DROP", "ALTER", "INDEX", "REFERENCES")
_SET_USER = ("SUPER", "SET USER", "SET_USER_ID", "SET_ANY_DEFINER")
_TYPES_OF_MARIADB = frozenset({"uuid", "inet6", "inet4"})
_BROKEN = 1356
_NUMBER = re.compile(r"(\d+)\.(\d+)")


@attrs.frozen(kw_only=True)
class Facts:
    """One side at the moment when it was asked.

    Args:
        server: version, settings and so on.
        things: names of views, routines, triggers, events, sequences, by kind.
        definers: accounts that these run as, with what names them.
        accounts: of the whole server; ``None``: they may not be read.
        grants: of others in this database; ``None``: they may not be read.
        collations: that the server knows.
        used: those that the database uses.
        abroad: tables with keys into other databases.
        present: the first things of users.
        phase: how far a move into this database is.
    """

    name: str
    server: Mapping[str, Any]
    rights: Rights
    tables: tuple[Table, ...]
    things: Mapping[str, tuple[str, ...]]
    definers: Mapping[str, tuple[str, ...]]
    accounts: frozenset[str] | None
    grants: tuple[Grant, ...] | None
    engines: frozenset[str]
    collations: frozenset[str]
    used: frozenset[str]
    abroad: tuple[str, ...]
    phase: str | None
    objects: int = 0
    hidden: int = 0

    @property
    def present(self) -> tuple[str, ...]:
        """The first things of users."""
        kinds = [("table", table.name) for table in self.tables]
        kinds += [(kind.removesuffix("s"), each) for kind, names in self.things.items() for each in names]
        return tuple(f"{kind} {each}" for kind, each in kinds[:5])

    @property
    def flavour(self) -> str:
        """``mariadb`` or ``mysql``."""
        return "mariadb" if "mariadb" in self.server["version"].lower() else "mysql"

    @property
    def version(self) -> tuple[int, int]:
        """The first two numbers of the version."""
        match = _NUMBER.search(self.server["version"])
        return (int(match[1]), int(match[2])) if match else (0, 0)

    @property
    def told(self) -> str:
        """The server as people know it."""
        return f"{'MariaDB' if self.flavour == 'mariadb' else 'MySQL'} {'.'.join(map(str, self.version))}"

    @property
    def who(self) -> str:
        """The mover's account."""
        return str(self.server["who"])

    @property
    def may_set_definer(self) -> bool:
        """Whether the mover makes what runs as somebody else."""
        return self.rights.has(*_SET_USER)


def facts_of(session: Session, name: str) -> Facts:
    """Ask one side for all of it."""
    (server,) = rows(session, name, _SERVER)
    found = {kind: rows(session, name, query) for kind, query in _KINDS.items()}
    found["broken"] = [row for row in found["views"] if _is_broken(session, row["name"])]
    definers: dict[str, tuple[str, ...]] = {}
    for kind, each in found.items():
        for row in each if kind != "broken" else ():
            if row["definer"]:
                label = f"{kind.removesuffix('s')} {row['name']}"
                definers[row["definer"]] = (*definers.get(row["definer"], ()), label)
    return Facts(
        name=name,
        server=server,
        rights=rights_of(session, name),
        tables=tables_of(session, name),
        things={kind: tuple(sorted(row["name"] for row in each)) for kind, each in found.items()},
        definers=definers,
        accounts=accounts_of(session, name),
        grants=grants_of(session, name),
        engines=frozenset(row["name"].upper() for row in rows(session, name, _ENGINES)),
        collations=_collations(session, name),
        used=frozenset(row["name"] for row in rows(session, name, _USED) if row["name"]),
        abroad=tuple(f"{row['name']} to {row['other']}" for row in rows(session, name, _FOREIGN)),
        phase=phase_of(session, name),
    )


def _is_broken(session: Session, view: str) -> bool:
    """Tell whether a view reads what does not exist: its server warns of that."""
    try:
        with session.cursor() as cursor:
            cursor.execute(f"SHOW CREATE VIEW {quoted(view)}")
        return any(code == _BROKEN for code, _ in warnings_of(session))
    except pymysql.MySQLError:
        return False  # rights that are missing are told elsewhere


def _collations(session: Session, name: str) -> frozenset[str]:
    found = {row["name"] for row in rows(session, name, _COLLATIONS)}
    try:
        found |= {row["name"] for row in rows(session, name, _FULL)}
    except MigrationError:  # before MariaDB 10.10 each name is a full one, and MySQL has no others
        return frozenset(found)
    return frozenset(found)


def missing_accounts(source: Facts, target: Facts) -> Mapping[str, tuple[str, ...]]:
    """Return accounts that the source's database names and the target's server does not have.

    Whoever moves is at the source who he is at the target, whatever he is called. Where the target tells nobody its
    accounts, all others are missing.
    """
    named: dict[str, tuple[str, ...]] = dict(source.definers)
    for grant in source.grants or ():
        named[grant.account] = (*named.get(grant.account, ()), str(grant))
    known = (target.accounts or frozenset()) | {source.who}
    return {who: what for who, what in named.items() if _plain(who) not in {_plain(each) for each in known}}


def _plain(who: str) -> tuple[str, str]:
    return split_account(who)


def losses(source: Facts, target: Facts) -> Iterator[Lost]:
    """Say what of the source the target cannot hold, or would lose."""
    yield from _unable(source, target)
    yield from _rights(source, target)
    yield from _foreign(source, target)
    yield from _needs(source, target)
    yield from _told(source, target)


def _unable(source: Facts, target: Facts) -> Iterator[Lost]:
    for side in (source, target):
        if side.version < OLDEST[side.flavour]:
            oldest = "MariaDB 10.5 and MySQL 8.0 are the oldest"
            yield Lost("version", f"{side.name} is {side.told}; {oldest}", fatal=True)
    if int(target.server["read_only"]) and not target.rights.has("SUPER", "READ_ONLY ADMIN"):
        yield Lost("target", f"{target.name} is read-only: nothing can be written there", fatal=True)
    unknown = list(unknown_types(source.tables))
    if unknown:
        yield Lost("types", f"{some(unknown)}: values of this type are not understood", fatal=True)
    engines = {table.engine.upper() for table in source.tables} - target.engines
    for engine in sorted(engines):
        names = [table.name for table in source.tables if table.engine.upper() == engine]
        yield Lost(
            "engines", f"the target has no engine {engine}: {some(names)}; ALTER TABLE … ENGINE first", fatal=True
        )
    absent = sorted(source.used - target.collations)
    if absent:
        yield Lost("collations", f"the target does not know {some(absent)}; ALTER TABLE … CONVERT first", fatal=True)
    if source.abroad:
        yield Lost("keys", f"foreign keys lead into other databases: {some(source.abroad)}", fatal=True)
    if int(target.server["folds"]) and not int(source.server["folds"]):
        names = [table.name for table in source.tables if table.name != table.name.lower()]
        names += [each for each in source.things["views"] if each != each.lower()]
        if names:
            why = "the target's server has all names of tables in lower case (lower_case_table_names)"
            yield Lost("names", f"{why}: {some(names)}", fatal=True)


def _rights(source: Facts, target: Facts) -> Iterator[Lost]:
    missing = source.rights.lacks(*_READ)
    if missing:
        why = "without them a part of the database is not seen"
        yield Lost("source", f"{source.who} lacks {', '.join(missing)} on all of {source.name}; {why}", fatal=True)
    wanted = [*_WRITE]
    wanted += ["CREATE VIEW", "SHOW VIEW"] if source.things["views"] else []
    wanted += ["CREATE ROUTINE", "ALTER ROUTINE", "EXECUTE"] if source.things["routines"] else []
    wanted += ["TRIGGER"] if source.things["triggers"] else []
    wanted += ["EVENT"] if source.things["events"] else []
    wanted += ["DELETE HISTORY"] if any(table.versioned for table in source.tables) else []
    lacking = target.rights.lacks(*wanted)
    if lacking:
        yield Lost("target", f"{target.who} lacks {', '.join(lacking)} on all of {target.name}", fatal=True)
    runs = source.things["triggers"] or source.things["routines"]
    if runs and int(target.server["logs"]) and not int(target.server["trusts"]) and not target.rights.has("SUPER"):
        why = "set log_bin_trust_function_creators = ON there"
        yield Lost(
            "target", f"the target has a binary log and lets only SUPER make functions and triggers; {why}", fatal=True
        )


def _foreign(source: Facts, target: Facts) -> Iterator[Lost]:
    """Tell what MariaDB has and MySQL has not; the other way round, its server says so of each statement."""
    if source.flavour == "mariadb" and target.flavour == "mysql":
        if source.things["sequences"]:
            yield Lost("sequences", f"MySQL has no sequences: {some(source.things['sequences'])}", fatal=True)
        types = [
            f"{table.name}.{column.name} ({column.type})"
            for table in source.tables
            for column in table.columns
            if column.type in _TYPES_OF_MARIADB
        ]
        if types:
            yield Lost("types", f"MySQL has no such types: {some(types)}", fatal=True)
    versioned = [table.name for table in source.tables if table.versioned]
    if versioned:
        if target.flavour == "mysql":
            yield Lost("history", f"MySQL has no system versions: {some(versioned)}", fatal=True)
        else:
            yield Lost("history", f"earlier rows of {some(versioned)} are not moved", refuses=True)


def _needs(source: Facts, target: Facts) -> Iterator[Lost]:
    if source.flavour != target.flavour or target.version < source.version:
        yield Lost("version", f"the target is {target.told} and the source {source.told}", refuses=True)
    for who, what in missing_accounts(source, target).items():
        yield Lost("roles", f"the target has no account {who}: {some(what)}", refuses=True)
    definers = [who for who in source.definers if who != source.who]
    if definers and not target.may_set_definer:
        told = f"{target.who} may make nothing that runs as {some(definers)} (SET USER, SET_ANY_DEFINER)"
        yield Lost("roles", f"{told}: it would run as the mover", refuses=True)


def _told(source: Facts, target: Facts) -> Iterator[Lost]:
    yield from _settings(source, target)
    if source.things["events"]:
        yield Lost(
            "events", f"{some(source.things['events'])}: made, and left disabled, as they would run on both sides"
        )
    if source.things["broken"]:
        yield Lost("views", f"{some(source.things['broken'])} read what does not exist, and are not moved")
    yield from _tables(source)
    if source.grants is None:
        why = f"{source.who} may not read what others may do there (SELECT on mysql.*)"
        yield Lost("roles", f"{why}: no grants are moved")
    if not source.rights.has("RELOAD"):
        how = "one connection" if source.rights.lacks("LOCK TABLES") else "LOCK TABLES for a moment"
        yield Lost("source", f"{source.who} lacks RELOAD: the snapshot is taken by {how}")
    yield Lost("accounts", "accounts and passwords are not moved: make those of the application there")


def _settings(source: Facts, target: Facts) -> Iterator[Lost]:
    names = {
        "modes": "sql_mode",
        "zone": "time_zone",
        "system_zone": "system_time_zone",
        "folds": "lower_case_table_names",
    }
    for key, name in names.items():
        here, there = (side.server[key] for side in (source, target))
        if here != there:
            yield Lost("settings", f"{name} is {here} here and {there} there")
    packet = int(target.server["packet"])
    if packet < int(source.server["packet"]):
        yield Lost("settings", f"max_allowed_packet is only {packet:,} there: longer rows are errors")


def _tables(source: Facts) -> Iterator[Lost]:
    loose = [table.name for table in source.tables if not table.is_transactional and not table.is_elsewhere]
    if loose:
        yield Lost("engines", f"no snapshot holds {some(loose)}: what is written there meanwhile arrives or not")
    elsewhere = [table.name for table in source.tables if table.is_elsewhere]
    if elsewhere:
        yield Lost("engines", f"{some(elsewhere)}: their rows are kept elsewhere, and are not moved")
    keyless = [table.name for table in source.tables if not table.has_key]
    if keyless:
        yield Lost("keys", f"{some(keyless)}: no primary key; after a kill they begin anew")

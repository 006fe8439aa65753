"""What there is on one side, and what of the source the target cannot hold, or would lose."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import attrs

from shiftable.migrate._database_engine import Lost, some
from shiftable.migrate._postgresql._grants import named_roles, roles_of
from shiftable.migrate._postgresql._marks import OWN_SCHEMA, phase_of
from shiftable.migrate._postgresql._side import Session, rows
from shiftable.migrate._postgresql._tables import Table, tables_of

__all__ = ["Facts", "evidence_of", "facts_of", "losses", "missing_roles", "unchanged"]

OLDEST = 110000  # https://www.postgresql.org/docs/11/: procedures, hash partitions, hashtextextended
_INTERNAL = frozenset({"pg_database_owner"})  # roles that mean somebody else in each database

_SERVER = """
SELECT current_setting('server_version_num')::int AS version, current_setting('server_version') AS release,
    current_setting('block_size')::int AS block, pg_encoding_to_char(d.encoding) AS encoding, d.datcollate AS collation,
    d.datctype AS ctype, d.oid::bigint AS database, current_user AS who,
    (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) AS is_superuser,
    pg_is_in_recovery() AS is_standby, has_database_privilege(current_database(), 'CREATE') AS may_create,
    current_setting('default_transaction_read_only')::bool AND EXISTS (
        SELECT 1 FROM pg_settings WHERE name = 'default_transaction_read_only'
            AND source IN ('database', 'configuration file', 'global', 'command line')
    ) AS is_read_only,
    pg_get_userbyid(d.datdba) AS owner
FROM pg_database AS d WHERE d.datname = current_database()
"""
_LOCALE = """
SELECT datlocprovider::text AS provider, coalesce(datcollversion, '') AS collation_version
FROM pg_database WHERE datname = current_database()
"""
_EXTENSIONS = "SELECT extname AS name, extversion AS version, extconfig IS NOT NULL AS keeps FROM pg_extension"
_AVAILABLE = "SELECT name, default_version AS version FROM pg_available_extensions"
_LISTS: Mapping[str, str] = {
    "publications": "SELECT pubname AS name FROM pg_publication",
    "event_triggers": "SELECT evtname AS name FROM pg_event_trigger AS e WHERE NOT EXISTS ("
    "SELECT 1 FROM pg_depend WHERE classid = 'pg_event_trigger'::regclass AND objid = e.oid AND deptype = 'e')",
    "servers": "SELECT srvname AS name FROM pg_foreign_server",
    "tablespaces": "SELECT DISTINCT s.spcname AS name FROM pg_class AS c"
    " JOIN pg_tablespace AS s ON s.oid = c.reltablespace WHERE s.spcname NOT LIKE 'pg\\_%'",
    "statistics": "SELECT 1 AS name FROM pg_stats WHERE schemaname !~ '^pg_' AND schemaname <> 'information_schema'"
    " LIMIT 1",
    "unlogged": "SELECT format('%I.%I', n.nspname, c.relname) AS name FROM pg_class AS c"
    " JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE c.relpersistence = 'u' AND c.relkind = 'r'",
}
# A right to read is that of the owner, of a list, or of a superuser.
_HIDDEN_OBJECTS = """
SELECT count(*) AS hidden FROM pg_largeobject_metadata AS m
WHERE NOT pg_has_role(m.lomowner, 'USAGE') AND NOT current_setting('lo_compat_privileges')::bool
    AND NOT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) AND NOT EXISTS (
        SELECT 1 FROM aclexplode(m.lomacl) AS a WHERE a.privilege_type = 'SELECT'
            AND (a.grantee = 0 OR pg_has_role(nullif(a.grantee, 0), 'USAGE'))
    )
"""
_OBJECTS = """
SELECT (pg_identify_object(classid, objid, 0)).type || ' ' || (pg_identify_object(classid, objid, 0)).identity AS name
FROM (
    SELECT 'pg_class'::regclass::oid AS classid, oid AS objid FROM pg_class AS c
    WHERE relkind IN ('r', 'p', 'v', 'm', 'S', 'f', 'c') AND relpersistence <> 't'
        AND relnamespace IN (SELECT oid FROM mine)
    UNION ALL SELECT 'pg_proc'::regclass::oid, oid FROM pg_proc WHERE pronamespace IN (SELECT oid FROM mine)
    UNION ALL SELECT 'pg_type'::regclass::oid, oid FROM pg_type
    WHERE typtype IN ('d', 'e', 'r') AND typnamespace IN (SELECT oid FROM mine)
    UNION ALL SELECT 'pg_namespace'::regclass::oid, oid FROM mine WHERE nspname <> 'public'
) AS o
WHERE NOT EXISTS (SELECT 1 FROM pg_depend AS d WHERE d.classid = o.classid AND d.objid = o.objid AND d.deptype = 'e')
"""
_PRESENT = f"""
WITH mine AS (
    SELECT oid, nspname FROM pg_namespace
    WHERE nspname !~ '^pg_' AND nspname <> 'information_schema' AND nspname <> '{OWN_SCHEMA}'
) {_OBJECTS} LIMIT 5
"""


@attrs.frozen(kw_only=True)
class Facts:
    """One side at the moment when it was asked.

    Args:
        server: version, encoding, rights and so on.
        extensions: those that are installed, with their versions.
        available: those that can be.
        keeping: extensions that keep rows of users in tables of their own.
        roles: of the whole server.
        named: roles that objects name, with what names them.
        objects: how many large objects there are.
        hidden: how many of them may not be read.
        lists: names of what is told as lost, by kind.
        present: the first objects of users.
        phase: how far a move into this database is.
    """

    name: str
    server: Mapping[str, Any]
    extensions: Mapping[str, str]
    available: Mapping[str, str]
    keeping: tuple[str, ...]
    roles: frozenset[str]
    named: Mapping[str, tuple[str, ...]]
    tables: tuple[Table, ...]
    objects: int
    hidden: int
    lists: Mapping[str, tuple[str, ...]]
    present: tuple[str, ...]
    phase: str | None

    @property
    def version(self) -> int:
        """As ``server_version_num`` has it."""
        return int(self.server["version"])

    @property
    def major(self) -> int:
        """The major version."""
        return self.version // 10000

    @property
    def not_empty(self) -> str:
        """What keeps a move from this database, in a sentence; what a killed move has left does not."""
        found = [*self.present, *([f"{self.objects:,} large objects"] if self.objects else [])]
        if self.phase or not found:
            return ""
        return f"{self.name} is not empty: {', '.join(found)}; move into an empty database"


def facts_of(session: Session, name: str) -> Facts:
    """Ask one side for all of it."""
    (server,) = rows(session, name, _SERVER)
    if server["version"] >= 150000:
        server |= rows(session, name, _LOCALE)[0]
    found = rows(session, name, _EXTENSIONS)
    available = {row["name"]: row["version"] for row in rows(session, name, _AVAILABLE)}
    return Facts(
        name=name,
        server=server,
        extensions={row["name"]: row["version"] for row in found},
        available=available,
        keeping=tuple(row["name"] for row in found if row["keeps"]),
        roles=roles_of(session, name),
        named=named_roles(session, name),
        tables=tables_of(session, name, OWN_SCHEMA),
        objects=rows(session, name, "SELECT count(*) AS found FROM pg_largeobject_metadata")[0]["found"],
        hidden=rows(session, name, _HIDDEN_OBJECTS)[0]["hidden"],
        lists={kind: tuple(str(row["name"]) for row in rows(session, name, query)) for kind, query in _LISTS.items()},
        present=tuple(row["name"] for row in rows(session, name, _PRESENT)),
        phase=phase_of(session, name),
    )


def missing_roles(source: Facts, target: Facts) -> Mapping[str, tuple[str, ...]]:
    """Return roles that the source's objects name and the target does not have.

    Whoever is administrator at the source is the target's administrator there, whatever he is called.
    """
    known = target.roles | _INTERNAL | {source.server["who"]}
    return {role: what for role, what in source.named.items() if role not in known}


def losses(source: Facts, target: Facts) -> Iterator[Lost]:
    """Say what of the source the target cannot hold, or would lose."""
    yield from _unable(source, target)
    yield from _needs(source, target)
    yield from _told(source, target)


def _unable(source: Facts, target: Facts) -> Iterator[Lost]:
    for side in (source, target):
        if side.version < OLDEST:
            yield Lost("version", f"{side.name} is PostgreSQL {side.server['release']}; 11 is the oldest", fatal=True)
    if target.server["is_standby"]:
        yield Lost("target", f"{target.name} is a standby: nothing can be written there", fatal=True)
    if not target.server["may_create"]:
        yield Lost("target", f"{target.name}: {target.server['who']} may not create schemas there", fatal=True)
    for name in sorted(source.extensions.keys() - target.extensions.keys() - target.available.keys()):
        yield Lost("extensions", f"the target has no extension {name}; allow or install it there", fatal=True)
    unreadable = [table.label for table in source.tables if not table.is_readable]
    if unreadable:
        yield Lost(
            "source", f"{source.server['who']} may not read {some(unreadable)}; grant pg_read_all_data", fatal=True
        )
    hidden = [table.label for table in source.tables if table.hides_rows]
    if hidden:
        yield Lost("source", f"row security hides rows of {some(hidden)}; use a role with BYPASSRLS", fatal=True)
    here, there = source.server["encoding"], target.server["encoding"]
    if there not in {here, "UTF8"}:
        yield Lost("encoding", f"the source is {here} and the target {there}; make the target with UTF8", fatal=True)


def _needs(source: Facts, target: Facts) -> Iterator[Lost]:
    if target.major < source.major:
        yield Lost("version", f"the target is PostgreSQL {target.major} and the source {source.major}", refuses=True)
    for role, what in missing_roles(source, target).items():
        yield Lost("roles", f"the target has no role {role}: {some([*what])}", refuses=True)
    if source.hidden:
        told = f"{source.server['who']} may not read {source.hidden:,} of {source.objects:,} large objects"
        yield Lost("large_objects", told, refuses=True)
    if source.lists["event_triggers"] and not target.server["is_superuser"]:
        names = some([*source.lists["event_triggers"]])
        yield Lost("event_triggers", f"{names}: only a superuser makes event triggers", refuses=True)


def _told(source: Facts, target: Facts) -> Iterator[Lost]:
    collations = [side.server.get("collation_version", "") for side in (source, target)]
    locales = [
        (side.server["collation"], side.server["ctype"], side.server.get("provider", "c")) for side in (source, target)
    ]
    if locales[0] != locales[1]:
        told = " and ".join(f"{collation} ({provider})" for collation, _, provider in locales)
        yield Lost("collations", f"the databases sort text otherwise: {told}; indexes are built anew, order may change")
    elif all(collations) and collations[0] != collations[1]:
        yield Lost("collations", f"collation versions are {collations[0]} and {collations[1]}: order may change")
    versions = {
        name: (version, target.extensions.get(name, target.available.get(name)))
        for name, version in source.extensions.items()
    }
    for name, (before, after) in sorted(versions.items()):
        if after is not None and before != after:
            yield Lost("extensions", f"{name} is {before} here and {after} there")
    for name in source.keeping:
        yield Lost("extensions", f"rows in tables of the extension {name} itself are not moved")
    if source.lists["statistics"]:
        yield Lost("statistics", "planner statistics are made anew, by ANALYZE")
    for kind, why in (
        ("publications", "are not moved: they send what subscribers have already"),
        ("tablespaces", "are not moved: what lies there goes to the default one"),
        ("servers", "are moved, passwords of user mappings only where they may be read"),
    ):
        if source.lists[kind]:
            yield Lost(kind, f"{kind.replace('servers', 'foreign servers')} {some([*source.lists[kind]])} {why}")
    keyless = [table.label for table in source.tables if not table.has_key]
    if keyless:
        yield Lost("keys", f"{some(keyless)}: no primary key, which `shiftable db online` needs for updates")


def evidence_of(session: Session, name: str) -> dict[str, Any]:
    """Return what is the same as long as nobody writes anything to a server, in the snapshot that the session sees.

    Each transaction that writes takes a number. Where the next one is still to be given, nothing was written.
    """
    (found,) = rows(
        session,
        name,
        "SELECT txid_snapshot_xmax(txid_current_snapshot())::text AS next,"
        " txid_current_snapshot()::text AS snapshot,"
        " (SELECT system_identifier::text FROM pg_control_system()) AS system,"
        " (SELECT oid::bigint FROM pg_database WHERE datname = current_database()) AS database",
    )
    return found


def unchanged(before: Mapping[str, Any], after: Mapping[str, Any], *, declared: bool) -> bool:
    """Tell whether what was copied under one snapshot goes together with what another one sees.

    Args:
        declared: somebody has said that nobody writes, or the source itself says so.
    """
    same = all(before[key] == after[key] for key in ("system", "database"))
    quiet = before["snapshot"] == after["snapshot"] == f"{after['next']}:{after['next']}:"
    return same and (declared or quiet)

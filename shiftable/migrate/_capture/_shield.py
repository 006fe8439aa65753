# ruff: noqa: S608  names are quoted, values are parameters
"""Lets the target take rows as they are: no trigger, rule or foreign key of its own acts on them a second time.

Where the user may set ``session_replication_role`` (a superuser, or whom one let), nothing of it acts in our session
but what was told to act always, and that is switched off. Where not, the tables' owner switches triggers and rules
off, and puts foreign keys off until each commit: in the order of the source's log a row may come before the one that it
refers to, as one statement wrote both. What was switched is written down on the target in the same transaction, and is
put back from there.
"""

from __future__ import annotations

import json
from typing import Any, LiteralString

import attrs
import psycopg

from shiftable.errors import MigrationError
from shiftable.migrate._capture._server import Connection, quoted

__all__ = ["CAPTURE", "Shield", "lower", "raise_shield"]

CAPTURE = '"shiftable_migrate"."capture"'
"""The table of ours on the target."""

_APPLICATIONS = "n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'shiftable_migrate')"
_TRIGGERS = f"""
SELECT n.nspname, c.relname, t.tgname, t.tgenabled FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_proc p ON p.oid = t.tgfoid
WHERE c.relkind IN ('r', 'p') AND t.tgenabled = ANY (%s::"char"[]) AND {_APPLICATIONS}
    AND NOT (p.pronamespace = 'pg_catalog'::regnamespace AND (p.proname LIKE 'RI_FKey%%' OR p.proname =
    'unique_key_recheck'))
ORDER BY 1, 2, 3
"""
_RULES = f"""
SELECT n.nspname, c.relname, r.rulename, r.ev_enabled FROM pg_rewrite r JOIN pg_class c ON c.oid = r.ev_class
JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND r.ev_type <> '1' AND r.ev_enabled = ANY (%s::"char"[]) AND {_APPLICATIONS}
ORDER BY 1, 2, 3
"""
_IDENTITIES = f"""
SELECT n.nspname, c.relname, a.attname FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND a.attidentity = 'a' AND NOT a.attisdropped
    AND {_APPLICATIONS} ORDER BY 1, 2, 3
"""
_KEYS = f"""
SELECT n.nspname, c.relname, k.conname, k.condeferrable, k.condeferred FROM pg_constraint k
JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE k.contype = 'f' AND k.conparentid = 0 AND NOT k.condeferred AND {_APPLICATIONS} ORDER BY 1, 2, 3
"""
_ACTIONS = f"""
SELECT n.nspname, c.relname, k.conname, k.confupdtype, k.confdeltype,
    (SELECT array_agg(a.attname::text) FROM pg_attribute a
        WHERE a.attrelid = c.oid AND a.attnum = ANY (k.conkey))
FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE k.contype = 'f' AND (k.confupdtype IN ('c', 'n', 'd') OR k.confdeltype IN ('c', 'n', 'd')) AND {_APPLICATIONS}
"""
_WORDS = {"O": "ENABLE", "A": "ENABLE ALWAYS", "R": "ENABLE REPLICA"}


@attrs.frozen
class _Key:
    """A foreign key that changes rows of its own table."""

    name: str
    on_update: str
    on_delete: str
    columns: frozenset[str]


@attrs.frozen
class Shield:
    """How the target's own actions are kept off.

    Args:
        replica: ``session_replication_role`` is set; else foreign keys act, and what they do comes from the source too.
    """

    replica: bool
    keys: dict[tuple[str, str], tuple[_Key, ...]] = attrs.field(factory=dict)

    def may_be_gone(self, schema: str, table: str) -> bool:
        """Tell whether a row that is to be deleted may be gone already: with the one that it referred to."""
        return not self.replica and any(key.on_delete == "c" for key in self.keys.get((schema, table), ()))

    def problem(self, schema: str, table: str, key: frozenset[str], *, whole: bool) -> str:
        """Say why rows of a table could not be found by their key, empty if they can."""
        if self.replica:
            return ""
        for each in self.keys.get((schema, table), ()):
            changes = each.on_update == "c" or {each.on_update, each.on_delete} & {"n", "d"}
            if changes and (whole or (each.on_update == "c" and each.columns & key)):
                return (
                    f"{schema}.{table}: its foreign key {each.name} changes what its rows are named by; that needs a"
                    " user of the target who may set session_replication_role (a superuser grants SET ON PARAMETER)"
                )
        return ""


def raise_shield(connection: Connection, slot: str) -> Shield:
    """Keep the target's own actions off, in this session and, until ``lower``, on the tables."""
    replica = _set_replica(connection)
    states = ["A", "R"] if replica else ["O", "A"]
    with connection.transaction():
        row = connection.execute(f"SELECT undo FROM {CAPTURE} WHERE slot = %s FOR UPDATE".encode(), (slot,)).fetchone()
        undo: list[str] = list(row[0]) if row else []
        for do, back in _switches(connection, states, keys=not replica):
            _alter(connection, do)
            undo.append(back)
        connection.execute(f"UPDATE {CAPTURE} SET undo = %s WHERE slot = %s".encode(), (json.dumps(undo), slot))
    return Shield(replica, {} if replica else _actions(connection))


def lower(connection: Connection, slot: str) -> None:
    """Put back what was switched."""
    with connection.transaction():
        row = connection.execute(f"SELECT undo FROM {CAPTURE} WHERE slot = %s FOR UPDATE".encode(), (slot,)).fetchone()
        for back in row[0] if row else ():
            _alter(connection, back)
        connection.execute(f"UPDATE {CAPTURE} SET undo = '[]' WHERE slot = %s".encode(), (slot,))


def _set_replica(connection: Connection) -> bool:
    try:
        connection.execute("SET session_replication_role = replica")
    except psycopg.errors.InsufficientPrivilege:
        return False
    return True


def _switches(connection: Connection, states: list[str], *, keys: bool) -> list[tuple[str, str]]:
    """Return what to do, and what to do to have it as it was."""
    found = []
    kinds: tuple[tuple[str, LiteralString], ...] = (("TRIGGER", _TRIGGERS), ("RULE", _RULES))
    for kind, query in kinds:
        for schema, table, name, state in connection.execute(query, (states,)).fetchall():
            alter = f"ALTER TABLE {'ONLY ' if kind == 'TRIGGER' else ''}{quoted(schema, table)}"
            found.append(
                (f"{alter} DISABLE {kind} {quoted(name)}", f"{alter} {_WORDS[_letter(state)]} {kind} {quoted(name)}")
            )
    for schema, table, name in connection.execute(_IDENTITIES).fetchall():  # on the source DEFAULT may change them
        alter = f"ALTER TABLE {quoted(schema, table)} ALTER {quoted(name)} SET GENERATED"
        found.append((f"{alter} BY DEFAULT", f"{alter} ALWAYS"))
    for schema, table, name, deferrable, _ in connection.execute(_KEYS).fetchall() if keys else ():
        alter = f"ALTER TABLE {quoted(schema, table)} ALTER CONSTRAINT {quoted(name)}"
        before = "DEFERRABLE INITIALLY IMMEDIATE" if deferrable else "NOT DEFERRABLE"
        found.append((f"{alter} DEFERRABLE INITIALLY DEFERRED", f"{alter} {before}"))
    return found


def _actions(connection: Connection) -> dict[tuple[str, str], tuple[_Key, ...]]:
    found: dict[tuple[str, str], tuple[_Key, ...]] = {}
    for schema, table, name, on_update, on_delete, columns in connection.execute(_ACTIONS).fetchall():
        key = _Key(name, _letter(on_update), _letter(on_delete), frozenset(columns))
        found[schema, table] = (*found.get((schema, table), ()), key)
    return found


def _alter(connection: Connection, statement: str) -> None:
    try:
        connection.execute(statement.encode())
    except psycopg.errors.InsufficientPrivilege as exc:
        raise MigrationError(
            f"the target's triggers and foreign keys would act on what is copied ({exc.diag.message_primary}): use the"
            " tables' owner, or a user who may set session_replication_role"
        ) from exc


def _letter(value: Any) -> str:  # noqa: ANN401  psycopg reads PostgreSQL's "char" as bytes or text
    return value.decode() if isinstance(value, bytes) else str(value)

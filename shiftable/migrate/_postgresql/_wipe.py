"""Empties a database that a killed move has begun to fill, and that was empty before."""

from __future__ import annotations

import psycopg

from shiftable.errors import MigrationError
from shiftable.migrate._postgresql._marks import OWN_SCHEMA
from shiftable.migrate._postgresql._side import Session, asking, rows, said

__all__ = ["wipe"]

_PASSES = 3
_CATALOGUES = (
    ("pg_class", "relnamespace", "relkind IN ('r', 'p', 'v', 'm', 'S', 'f', 'c')"),
    ("pg_proc", "pronamespace", "true"),
    ("pg_type", "typnamespace", "typtype IN ('d', 'e', 'r', 'b') AND typelem = 0"),
    ("pg_type", "typnamespace", "typrelid IN (SELECT oid FROM pg_class WHERE relkind = 'c')"),
    ("pg_operator", "oprnamespace", "true"),
    ("pg_opfamily", "opfnamespace", "true"),
    ("pg_collation", "collnamespace", "true"),
    ("pg_conversion", "connamespace", "true"),
    ("pg_ts_config", "cfgnamespace", "true"),
    ("pg_ts_dict", "dictnamespace", "true"),
    ("pg_ts_parser", "prsnamespace", "true"),
    ("pg_ts_template", "tmplnamespace", "true"),
)
_BESIDE = ("pg_event_trigger", "pg_foreign_server", "pg_foreign_data_wrapper")
_IN_PUBLIC = " UNION ALL ".join(
    f"SELECT '{name}'::regclass AS class, oid FROM {name} WHERE {place} = 'public'::regnamespace AND {which}"
    for name, place, which in _CATALOGUES
)
_ALONE = " UNION ALL ".join(f"SELECT '{name}'::regclass, oid FROM {name}" for name in _BESIDE)
_OBJECTS = f"""
SELECT i.type, i.identity FROM ({_IN_PUBLIC} UNION ALL {_ALONE}) AS o
CROSS JOIN LATERAL pg_identify_object(o.class, o.oid, 0) AS i
WHERE NOT EXISTS (
    SELECT 1 FROM pg_depend AS d WHERE d.classid = o.class AND d.objid = o.oid AND d.objsubid = 0
        AND d.deptype IN ('e', 'i')
)
"""
_SCHEMAS = f"""
SELECT quote_ident(nspname) AS name FROM pg_namespace
WHERE nspname !~ '^pg_' AND nspname NOT IN ('information_schema', 'public', '{OWN_SCHEMA}')
"""
_KINDS = {"server": "SERVER", "foreign-data wrapper": "FOREIGN DATA WRAPPER", "composite type": "TYPE"}


def wipe(session: Session, name: str) -> None:
    """Drop everything of users, but extensions and the marks.

    Raises:
        MigrationError: something cannot be dropped.
    """
    for row in rows(session, name, _SCHEMAS):
        with asking(name):
            session.execute(f"DROP SCHEMA {row['name']} CASCADE")
    why = ""
    for _ in range(_PASSES):
        left = rows(session, name, _OBJECTS)
        if not left:
            break
        for row in left:
            kind = _KINDS.get(row["type"], row["type"])
            try:
                session.execute(f"DROP {kind} IF EXISTS {row['identity']} CASCADE")
            except psycopg.OperationalError:
                with asking(name):
                    raise
            except psycopg.Error as exc:
                why = f"{row['type']} {row['identity']}: {said(exc)}"
    else:
        raise MigrationError(f"{name}: what a killed move has left cannot be dropped: {why}; make the database anew")
    rows(session, name, "SELECT lo_unlink(oid) FROM pg_largeobject_metadata")

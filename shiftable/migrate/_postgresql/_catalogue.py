"""The catalogue of a database as text, so that two can be compared: one line for each thing that the schema has."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import attrs

from shiftable.migrate._postgresql._marks import OWN_SCHEMA
from shiftable.migrate._postgresql._side import Session, rows
from shiftable.migrate._postgresql._tables import named, quoted

__all__ = ["Catalogue", "Sequence", "catalogue_of", "different", "sequences_of"]

_MINE = f"""
mine AS (
    SELECT oid, nspname FROM pg_namespace
    WHERE nspname !~ '^pg_' AND nspname <> 'information_schema' AND nspname <> '{OWN_SCHEMA}'
), member AS (
    SELECT classid, objid FROM pg_depend WHERE deptype = 'e'
), relation AS (
    SELECT c.*, format('%I.%I', n.nspname, c.relname) AS label
    FROM pg_class AS c JOIN mine AS n ON n.oid = c.relnamespace
    WHERE c.relpersistence <> 't'
        AND NOT EXISTS (SELECT 1 FROM member AS m WHERE m.classid = 'pg_class'::regclass AND m.objid = c.oid)
)
"""
_PARTS: Mapping[str, str] = {
    "column": """
        SELECT r.label || '.' || quote_ident(a.attname) AS label, concat_ws(' ', format_type(a.atttypid, a.atttypmod),
            CASE WHEN a.attnotnull THEN 'NOT NULL' END, 'IDENTITY ' || nullif(a.attidentity::text, ''),
            'GENERATED ' || nullif(a.attgenerated::text, ''), 'COLLATE ' || nullif(c.collname, 'default'),
            'DEFAULT ' || pg_get_expr(d.adbin, d.adrelid)) AS told
        FROM relation AS r JOIN pg_attribute AS a ON a.attrelid = r.oid
        LEFT JOIN pg_attrdef AS d ON d.adrelid = r.oid AND d.adnum = a.attnum
        LEFT JOIN pg_collation AS c ON c.oid = a.attcollation
        WHERE a.attnum > 0 AND NOT a.attisdropped AND r.relkind IN ('r', 'p', 'v', 'm', 'f', 'c')""",
    "relation": """
        SELECT r.label, concat_ws(' ', r.relkind::text, r.relpersistence::text,
            CASE WHEN r.relrowsecurity THEN 'row security' END, CASE WHEN r.relforcerowsecurity THEN 'forced' END,
            'replica identity ' || r.relreplident::text, pg_get_partkeydef(r.oid),
            CASE WHEN r.relispartition THEN pg_get_expr(r.relpartbound, r.oid) END,
            (SELECT string_agg(i.inhparent::regclass::text, ', ' ORDER BY inhseqno) FROM pg_inherits AS i
                WHERE i.inhrelid = r.oid),
            array_to_string(r.reloptions, ', ')) AS told
        FROM relation AS r WHERE r.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')""",
    "view": """
        SELECT r.label, pg_get_viewdef(r.oid) AS told FROM relation AS r WHERE r.relkind IN ('v', 'm')""",
    "constraint": """
        SELECT coalesce(r.label, c.contypid::regtype::text) || ' ' || quote_ident(c.conname) AS label,
            pg_get_constraintdef(c.oid) || CASE WHEN c.convalidated THEN '' ELSE ' (not validated)' END AS told
        FROM pg_constraint AS c LEFT JOIN relation AS r ON r.oid = c.conrelid
        LEFT JOIN pg_type AS t ON t.oid = c.contypid AND t.typnamespace IN (SELECT oid FROM mine)
        WHERE c.contype IN ('c', 'f', 'p', 'u', 'x') AND (r.oid IS NOT NULL OR t.oid IS NOT NULL)
            AND NOT (c.contype = 'f' AND c.conparentid <> 0)""",
    "index": """
        SELECT format('%I.%I', n.nspname, x.relname) AS label, pg_get_indexdef(i.indexrelid)
            || CASE WHEN i.indisvalid THEN '' ELSE ' (invalid)' END
            || CASE WHEN i.indisclustered THEN ' (clustered)' ELSE '' END AS told
        FROM pg_index AS i JOIN relation AS r ON r.oid = i.indrelid JOIN pg_class AS x ON x.oid = i.indexrelid
        JOIN pg_namespace AS n ON n.oid = x.relnamespace""",
    "routine": """
        SELECT p.oid::regprocedure::text AS label, CASE p.prokind WHEN 'a' THEN (
            SELECT concat_ws(' ', 'aggregate', a.aggtransfn, a.aggfinalfn, a.aggtranstype::regtype, a.agginitval)
            FROM pg_aggregate AS a WHERE a.aggfnoid = p.oid
        ) ELSE pg_get_functiondef(p.oid) END AS told
        FROM pg_proc AS p JOIN mine ON mine.oid = p.pronamespace
        WHERE NOT EXISTS (SELECT 1 FROM member AS m WHERE m.classid = 'pg_proc'::regclass AND m.objid = p.oid)
            AND NOT EXISTS (
                SELECT 1 FROM pg_depend AS d WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid
                    AND d.deptype = 'i')""",
    "trigger": """
        SELECT r.label || ' ' || quote_ident(t.tgname) AS label,
            pg_get_triggerdef(t.oid) || ' ' || t.tgenabled::text AS told
        FROM pg_trigger AS t JOIN relation AS r ON r.oid = t.tgrelid WHERE NOT t.tgisinternal""",
    "rule": """
        SELECT r.label || ' ' || quote_ident(w.rulename) AS label,
            pg_get_ruledef(w.oid) || ' ' || w.ev_enabled::text AS told
        FROM pg_rewrite AS w JOIN relation AS r ON r.oid = w.ev_class WHERE w.rulename <> '_RETURN'""",
    "policy": """
        SELECT r.label || ' ' || quote_ident(p.polname) AS label, concat_ws(' ', p.polcmd::text, p.polpermissive::text,
            pg_get_expr(p.polqual, p.polrelid), 'CHECK ' || pg_get_expr(p.polwithcheck, p.polrelid)) AS told
        FROM pg_policy AS p JOIN relation AS r ON r.oid = p.polrelid""",
    "type": """
        SELECT format('%I.%I', n.nspname, t.typname) AS label, concat_ws(' ', t.typtype::text,
            format_type(nullif(t.typbasetype, 0), t.typtypmod), CASE WHEN t.typnotnull THEN 'NOT NULL' END,
            t.typdefault,
            (SELECT string_agg(quote_literal(e.enumlabel), ', ' ORDER BY e.enumsortorder)
                FROM pg_enum AS e WHERE e.enumtypid = t.oid),
            (SELECT g.rngsubtype::regtype::text FROM pg_range AS g WHERE g.rngtypid = t.oid)) AS told
        FROM pg_type AS t JOIN mine AS n ON n.oid = t.typnamespace
        WHERE t.typtype IN ('d', 'e', 'r')
            AND NOT EXISTS (SELECT 1 FROM member AS m WHERE m.classid = 'pg_type'::regclass AND m.objid = t.oid)""",
    "sequence": """
        SELECT r.label, concat_ws(' ', s.seqtypid::regtype, s.seqstart, s.seqincrement, s.seqmin, s.seqmax, s.seqcache,
            s.seqcycle) AS told
        FROM pg_sequence AS s JOIN relation AS r ON r.oid = s.seqrelid""",
    "schema": "SELECT quote_ident(nspname) AS label, '' AS told FROM mine",
    "extension": "SELECT quote_ident(extname) AS label, '' AS told FROM pg_extension",
    "statistics": """
        SELECT format('%I.%I', n.nspname, s.stxname) AS label, pg_get_statisticsobjdef(s.oid) AS told
        FROM pg_statistic_ext AS s JOIN mine AS n ON n.oid = s.stxnamespace""",
    "comment": """
        SELECT i.type || ' ' || i.identity AS label, d.description AS told
        FROM pg_description AS d CROSS JOIN LATERAL pg_identify_object(d.classoid, d.objoid, d.objsubid) AS i
        WHERE i.schema IN (SELECT quote_ident(nspname) FROM mine) AND NOT EXISTS (
            SELECT 1 FROM member AS m WHERE m.classid = d.classoid AND m.objid = d.objoid)""",
    "event trigger": """
        SELECT quote_ident(evtname) AS label, concat_ws(' ', evtevent, evtfoid::regprocedure, evtenabled::text) AS told
        FROM pg_event_trigger AS e WHERE NOT EXISTS (
            SELECT 1 FROM member AS m WHERE m.classid = 'pg_event_trigger'::regclass AND m.objid = e.oid)""",
}
_DECOMPILED = frozenset({"view", "rule", "routine", "policy"})
"""What versions of PostgreSQL write down in different words; between versions only its names are compared."""

_SEQUENCES = f"""
WITH {_MINE} SELECT r.oid::bigint AS oid, n.nspname AS schema, r.relname AS name
FROM relation AS r JOIN mine AS n ON n.oid = r.relnamespace WHERE r.relkind = 'S' ORDER BY 2, 3
"""
_AT_ONCE = 200

Catalogue = Mapping[tuple[str, str], str]
"""By kind and name: what it is, in the server's own words."""


@attrs.frozen
class Sequence:
    """A sequence and where it stands."""

    schema: str
    name: str
    value: int
    called: bool

    @property
    def label(self) -> str:
        """As people know it."""
        return named(self.schema, self.name)


def catalogue_of(session: Session, name: str) -> Catalogue:
    """Read the catalogue of everything that users made."""
    return {
        (kind, row["label"]): " ".join((row["told"] or "").split())
        for kind, query in _PARTS.items()
        for row in rows(session, name, f"WITH {_MINE} {query}")
    }


def different(
    source: Catalogue, target: Catalogue, *, same_version: bool, left_out: Callable[[str], bool]
) -> Iterator[str]:
    """Say in what the target's catalogue is not the source's.

    Args:
        left_out: tells kinds that were given up.
    """
    for kind, label in sorted(source.keys() | target.keys()):
        if left_out(kind):
            continue
        here, there = source.get((kind, label)), target.get((kind, label))
        if there is None:
            yield f"{kind} {label} is missing"
        elif here is None:
            yield f"{kind} {label} is there and not at the source"
        elif here != there and (same_version or kind not in _DECOMPILED):
            yield f"{kind} {label} is {_short(there)} and not {_short(here)}"


def sequences_of(session: Session, name: str) -> tuple[Sequence, ...]:
    """Return all sequences and where they stand now; no snapshot holds them."""
    found = rows(session, name, _SEQUENCES)
    values: list[Sequence] = []
    for start in range(0, len(found), _AT_ONCE):
        part = found[start : start + _AT_ONCE]
        query = " UNION ALL ".join(
            f"SELECT {number} AS number, last_value, is_called FROM {quoted(row['schema'], row['name'])}"
            for number, row in enumerate(part)
        )
        values += [
            Sequence(part[row["number"]]["schema"], part[row["number"]]["name"], row["last_value"], row["is_called"])
            for row in sorted(rows(session, name, query), key=lambda row: int(row["number"]))
        ]
    return tuple(values)


def _short(text: str) -> str:
    return repr(text if len(text) <= 120 else f"{text[:120]}…")

"""Owners, grants and settings: read from the catalogue, and applied again for roles that exist on the target."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import attrs
import psycopg

from shiftable.migrate._postgresql._marks import OWN_SCHEMA
from shiftable.migrate._postgresql._side import Session, asking, rows, said
from shiftable.migrate._postgresql._tables import quoted

__all__ = [
    "Default",
    "Grant",
    "Held",
    "Setting",
    "apply_owners",
    "apply_settings",
    "defaults_of",
    "held",
    "named_roles",
    "renamed",
    "roles_of",
    "settings_of",
    "without_role",
]

PUBLIC = ""

# One row for each object that has an owner: what GRANT calls it, what ALTER calls it, its name, owner and list.
_OBJECTS = """
SELECT * FROM (
    SELECT 'pg_class'::regclass AS class, c.oid,
        CASE c.relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END AS grants,
        CASE c.relkind WHEN 'S' THEN 'SEQUENCE' WHEN 'v' THEN 'VIEW' WHEN 'm' THEN 'MATERIALIZED VIEW'
            WHEN 'f' THEN 'FOREIGN TABLE' ELSE 'TABLE' END AS alters,
        format('%I.%I', n.nspname, c.relname) AS name, c.relowner AS owner, c.relacl AS acl,
        c.relkind = 'S' AND EXISTS (
            SELECT 1 FROM pg_depend AS d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid
                AND d.deptype IN ('a', 'i') AND d.refobjsubid > 0
        ) AS follows, n.nspname AS schema
    FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f') AND c.relpersistence <> 't'
    UNION ALL
    SELECT 'pg_namespace'::regclass, oid, 'SCHEMA', 'SCHEMA', format('%I', nspname), nspowner, nspacl, false, nspname
    FROM pg_namespace
    UNION ALL
    SELECT 'pg_proc'::regclass, p.oid, 'ROUTINE',
        CASE p.prokind WHEN 'p' THEN 'PROCEDURE' WHEN 'a' THEN 'AGGREGATE' ELSE 'FUNCTION' END,
        CASE WHEN p.prokind = 'a' THEN (pg_identify_object('pg_proc'::regclass, p.oid, 0)).identity
            ELSE format('%I.%I(%s)', n.nspname, p.proname, pg_get_function_identity_arguments(p.oid)) END,
        p.proowner, p.proacl, false, n.nspname
    FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace
    UNION ALL
    SELECT 'pg_type'::regclass, t.oid, 'TYPE', CASE t.typtype WHEN 'd' THEN 'DOMAIN' ELSE 'TYPE' END,
        format('%I.%I', n.nspname, t.typname), t.typowner, t.typacl, false, n.nspname
    FROM pg_type AS t JOIN pg_namespace AS n ON n.oid = t.typnamespace LEFT JOIN pg_class AS c ON c.oid = t.typrelid
    WHERE (t.typtype IN ('e', 'd', 'r', 'b') OR c.relkind = 'c')
        AND NOT EXISTS (SELECT 1 FROM pg_type AS e WHERE e.typarray = t.oid)
    UNION ALL
    SELECT 'pg_largeobject'::regclass, oid, 'LARGE OBJECT', 'LARGE OBJECT', oid::text, lomowner, lomacl, false, ''
    FROM pg_largeobject_metadata
    UNION ALL
    SELECT 'pg_foreign_data_wrapper'::regclass, oid, 'FOREIGN DATA WRAPPER', 'FOREIGN DATA WRAPPER',
        format('%I', fdwname), fdwowner, fdwacl, false, '' FROM pg_foreign_data_wrapper
    UNION ALL
    SELECT 'pg_foreign_server'::regclass, oid, 'FOREIGN SERVER', 'SERVER', format('%I', srvname), srvowner, srvacl,
        false, '' FROM pg_foreign_server
    UNION ALL
    SELECT 'pg_language'::regclass, oid, 'LANGUAGE', 'LANGUAGE', format('%I', lanname), lanowner, lanacl, false, ''
    FROM pg_language WHERE lanispl
) AS o
WHERE schema !~ '^pg_' AND schema <> 'information_schema' AND schema <> {own} AND NOT EXISTS (
    SELECT 1 FROM pg_depend AS d WHERE d.classid = o.class AND d.objid = o.oid
        AND (d.deptype = 'e' OR d.deptype = 'i' AND o.class = 'pg_proc'::regclass)
)
"""
_HELD = f"""
WITH o AS MATERIALIZED ({_OBJECTS})
SELECT grants, alters, name, pg_get_userbyid(owner) AS owner, follows, acl IS NULL AS is_plain,
    coalesce((
        SELECT json_agg(json_build_array(
            CASE grantee WHEN 0 THEN '' ELSE pg_get_userbyid(grantee) END, privilege_type, is_grantable
        ) ORDER BY grantee, privilege_type)
        FROM aclexplode(acl) WHERE grantee <> owner
    ), '[]'::json) AS given,
    coalesce((
        SELECT json_agg(privilege_type ORDER BY privilege_type) FROM aclexplode(acl) WHERE grantee = owner
    ), '[]'::json) AS kept, NULL::text AS columns
FROM o
UNION ALL
SELECT 'COLUMN', '', o.name, pg_get_userbyid(o.owner), false, false, (
    SELECT json_agg(json_build_array(
        CASE grantee WHEN 0 THEN '' ELSE pg_get_userbyid(grantee) END, privilege_type, is_grantable
    ) ORDER BY grantee, privilege_type)
    FROM aclexplode(a.attacl)
), '[]'::json, format('%I', a.attname)
FROM o JOIN pg_attribute AS a ON a.attrelid = o.oid AND o.class = 'pg_class'::regclass
WHERE a.attacl IS NOT NULL AND a.attnum > 0 AND NOT a.attisdropped AND cardinality(a.attacl) > 0
ORDER BY 1, 3, 9
"""
_DEFAULTS = """
SELECT pg_get_userbyid(defaclrole) AS role, coalesce(n.nspname, '') AS schema, defaclobjtype AS kind,
    coalesce((
        SELECT json_agg(json_build_array(
            CASE grantee WHEN 0 THEN '' ELSE pg_get_userbyid(grantee) END, privilege_type, is_grantable
        ) ORDER BY grantee, privilege_type)
        FROM aclexplode(defaclacl) WHERE grantee <> defaclrole
    ), '[]'::json) AS given
FROM pg_default_acl AS d LEFT JOIN pg_namespace AS n ON n.oid = d.defaclnamespace ORDER BY 1, 2, 3
"""
_SETTINGS = """
SELECT coalesce(pg_get_userbyid(nullif(setrole, 0)), '') AS role, split_part(pair, '=', 1) AS name,
    substr(pair, strpos(pair, '=') + 1) AS value
FROM pg_db_role_setting CROSS JOIN LATERAL unnest(setconfig) AS s (pair)
WHERE setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database()) ORDER BY 1, 2
"""
_POLICIES = """
SELECT DISTINCT pg_get_userbyid(r.role) AS role, p.oid::bigint AS oid
FROM pg_policy AS p CROSS JOIN LATERAL unnest(p.polroles) AS r (role) WHERE r.role <> 0
"""
_MAPPINGS = """
SELECT usename AS role, umid::bigint AS oid FROM pg_user_mappings WHERE umuser <> 0
"""
_KINDS = {"r": "TABLES", "S": "SEQUENCES", "f": "FUNCTIONS", "T": "TYPES", "n": "SCHEMAS", "L": "LARGE OBJECTS"}


@attrs.frozen(order=True)
class Grant:
    """A privilege of one role, or of everybody."""

    role: str
    privilege: str
    grantable: bool

    def __str__(self) -> str:
        return f"{self.privilege} to {self.role or 'everybody'}{' with grant option' if self.grantable else ''}"


@attrs.frozen(kw_only=True)
class Held:
    """An object, or a column of one, and who may do what with it.

    Args:
        grants: what GRANT calls its kind.
        alters: what ALTER calls it.
        follows: its owner is that of the table that it belongs to.
        plain: nothing was ever granted or revoked.
        kept: privileges that its owner has.
    """

    grants: str
    alters: str
    name: str
    columns: str
    owner: str
    follows: bool
    plain: bool
    given: tuple[Grant, ...]
    kept: tuple[str, ...]

    @property
    def label(self) -> str:
        """As people know it."""
        return f"{(self.alters or self.grants).lower()} {self.name}{f'.{self.columns}' if self.columns else ''}"


@attrs.frozen
class Default:
    """What will be granted on objects that a role makes later."""

    role: str
    schema: str
    kind: str
    given: tuple[Grant, ...]


@attrs.frozen
class Setting:
    """A setting of a database, or of one role in it."""

    role: str
    name: str
    value: str


def _grants(found: Iterable[Sequence[object]]) -> tuple[Grant, ...]:
    return tuple(sorted(Grant(str(role), str(what), bool(again)) for role, what, again in found))


def held(session: Session, name: str) -> tuple[Held, ...]:
    """Return all objects of users."""
    query = _HELD.replace("{own}", f"'{OWN_SCHEMA}'")
    return tuple(
        Held(
            grants=row["grants"],
            alters=row["alters"],
            name=row["name"],
            columns=row["columns"] or "",
            owner=row["owner"],
            follows=row["follows"],
            plain=row["is_plain"],
            given=_grants(row["given"]),
            kept=tuple(row["kept"]),
        )
        for row in rows(session, name, query)
    )


def defaults_of(session: Session, name: str) -> tuple[Default, ...]:
    """Return what is granted on objects that are yet to be made."""
    found = rows(session, name, _DEFAULTS)
    return tuple(Default(row["role"], row["schema"], row["kind"], _grants(row["given"])) for row in found)


def settings_of(session: Session, name: str) -> tuple[Setting, ...]:
    """Return what ALTER DATABASE and ALTER ROLE … IN DATABASE have set, but for a stop of the source's writes."""
    found = (Setting(row["role"], row["name"], row["value"]) for row in rows(session, name, _SETTINGS))
    return tuple(each for each in found if each.role or each.name != "default_transaction_read_only")


def named_roles(session: Session, name: str) -> Mapping[str, tuple[str, ...]]:
    """Return the roles that objects of users name, each with the first things that do."""
    found: dict[str, list[str]] = {}
    for each in held(session, name):
        for role in {each.owner, *(grant.role for grant in each.given)}:
            found.setdefault(role, []).append(each.label)
    for default in defaults_of(session, name):
        for role in {default.role, *(grant.role for grant in default.given)}:
            found.setdefault(role, []).append("default privileges")
    for setting in settings_of(session, name):
        found.setdefault(setting.role, []).append(f"setting {setting.name}")
    for row in rows(session, name, _POLICIES):
        found.setdefault(row["role"], []).append("row security")
    for row in rows(session, name, _MAPPINGS):
        found.setdefault(row["role"], []).append("user mapping")
    return {role: tuple(what) for role, what in sorted(found.items()) if role != PUBLIC}


def without_role(session: Session, name: str, missing: frozenset[str]) -> frozenset[tuple[int, int]]:
    """Return policies and user mappings of roles that are missing, by catalogue and number."""
    policies = {row["oid"] for row in rows(session, name, _POLICIES) if row["role"] in missing}
    mappings = {row["oid"] for row in rows(session, name, _MAPPINGS) if row["role"] in missing}
    return frozenset([*((3256, oid) for oid in policies), *((1418, oid) for oid in mappings)])


def roles_of(session: Session, name: str) -> frozenset[str]:
    """Return all roles of a server."""
    return frozenset(row["rolname"] for row in rows(session, name, "SELECT rolname FROM pg_roles"))


def apply_owners(target: Session, name: str, wanted: Iterable[Held], defaults: Iterable[Default]) -> Iterator[str]:
    """Give objects to the owners that they have at the source, and grant again; yield what could not be done.

    Roles that the target does not have are left out: the plan has told of them.
    """
    roles = roles_of(target, name)
    here = {(each.alters, each.name, each.columns): each for each in held(target, name)}
    for each in wanted:
        found = here.get((each.alters, each.name, each.columns))
        if each.columns:
            statements = [*_column_grants(each, found, roles)]
        else:
            statements = [*_owner(each, found, roles), *_object_grants(each, found, roles)]
        yield from _tried(target, name, each.label, statements)
    for default in defaults:
        yield from _tried(target, name, "default privileges", [*_default_grants(default, roles)])


def _tried(target: Session, name: str, label: str, statements: Sequence[str]) -> Iterator[str]:
    if not statements:
        return
    try:
        with target.transaction():
            for statement in statements:
                target.execute(statement)
    except psycopg.OperationalError:
        with asking(name):
            raise
    except psycopg.Error as exc:
        yield f"{label}: {said(exc)}"


def _owner(each: Held, found: Held | None, roles: frozenset[str]) -> Iterator[str]:
    if found is not None and found.owner != each.owner and each.owner in roles and not each.follows:
        yield f"ALTER {each.alters} {each.name} OWNER TO {quoted(each.owner)}"


def _object_grants(each: Held, found: Held | None, roles: frozenset[str]) -> Iterator[str]:
    if each.plain and (found is None or found.plain):
        return
    place = f"ON {each.grants} {each.name}"
    present = found.given if found is not None else ()
    if not each.plain:  # what everybody has by default may have been taken away
        yield f"REVOKE ALL {place} FROM PUBLIC"
    yield from (f"REVOKE ALL {place} FROM {quoted(role)}" for role in sorted({grant.role for grant in present} - {""}))
    owner = each.owner if each.owner in roles else None
    if owner is not None and not each.plain:
        yield f"REVOKE ALL {place} FROM {quoted(owner)}"
        yield from (f"GRANT {privilege} {place} TO {quoted(owner)}" for privilege in each.kept)
    for grant in each.given:
        yield from _grant(grant, grant.privilege, place, roles)


def _column_grants(each: Held, found: Held | None, roles: frozenset[str]) -> Iterator[str]:
    if found is not None and found.given == each.given:
        return
    for grant in each.given:
        yield from _grant(grant, f"{grant.privilege} ({each.columns})", f"ON TABLE {each.name}", roles)


def _grant(grant: Grant, privilege: str, place: str, roles: frozenset[str]) -> Iterator[str]:
    if grant.role != PUBLIC and grant.role not in roles:
        return
    role = quoted(grant.role) if grant.role else "PUBLIC"
    yield f"GRANT {privilege} {place} TO {role}{' WITH GRANT OPTION' if grant.grantable else ''}"


def _default_grants(default: Default, roles: frozenset[str]) -> Iterator[str]:
    if default.role not in roles or default.kind not in _KINDS:
        return
    schema = f" IN SCHEMA {quoted(default.schema)}" if default.schema else ""
    head = f"ALTER DEFAULT PRIVILEGES FOR ROLE {quoted(default.role)}{schema}"
    place = f"ON {_KINDS[default.kind]}"
    if not default.schema:
        yield f"{head} REVOKE ALL {place} FROM PUBLIC"
    for grant in default.given:
        yield from (f"{head} {statement}" for statement in _grant(grant, grant.privilege, place, roles))


def apply_settings(target: Session, name: str, wanted: Iterable[Setting]) -> Iterator[str]:
    """Set again what the source's database has set; yield what could not be."""
    (row,) = rows(target, name, "SELECT quote_ident(current_database()) AS name")
    roles = roles_of(target, name)
    here = {*settings_of(target, name)}
    for setting in wanted:
        if setting in here or (setting.role and setting.role not in roles):
            continue
        whom = f"ROLE {quoted(setting.role)} IN DATABASE {row['name']}" if setting.role else f"DATABASE {row['name']}"
        try:
            with target.transaction():
                target.execute(
                    psycopg.sql.SQL("ALTER " + whom + " SET {} TO {}").format(
                        psycopg.sql.Identifier(*setting.name.split(".")), _value(setting)
                    )
                )
        except psycopg.OperationalError:
            with asking(name):
                raise
        except psycopg.Error as exc:
            yield f"setting {setting.name}: {said(exc)}"


_LISTS = frozenset({"search_path", "temp_tablespaces", "session_preload_libraries", "local_preload_libraries"})


def _value(setting: Setting) -> psycopg.sql.Composable:
    if setting.name in _LISTS:  # a list is stored as SQL has it
        return psycopg.sql.SQL(setting.value or "''")
    return psycopg.sql.Literal(setting.value)


N = TypeVar("N", Held, Default, Setting)


def renamed(found: Iterable[N], roles: Mapping[str, str]) -> tuple[N, ...]:
    """Give roles the names that they have on the target."""
    return tuple(_renamed(each, roles) for each in found)


def _renamed(each: N, roles: Mapping[str, str]) -> N:
    changes: dict[str, Any] = {}
    for field in ("role", "owner"):
        if hasattr(each, field):
            name = getattr(each, field)
            changes[field] = roles.get(name, name)
    if not isinstance(each, Setting):
        given = (attrs.evolve(grant, role=roles.get(grant.role, grant.role)) for grant in each.given)
        changes["given"] = tuple(sorted(given))
    return attrs.evolve(each, **changes)

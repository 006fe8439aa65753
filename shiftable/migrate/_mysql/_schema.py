"""The schema of a database as its server writes it, made again in another one."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import attrs
import pymysql

from shiftable.errors import MigrationError
from shiftable.migrate._mysql._facts import Facts, missing_accounts
from shiftable.migrate._mysql._rights import split_account
from shiftable.migrate._mysql._side import MODES, Session, asking, decoded, encoded, raw, rows
from shiftable.migrate._mysql._tables import OWN
from shiftable.migrate._mysql._words import Statement, account, accounts_in, quoted, stated, with_definer

__all__ = [
    "Schema",
    "Series",
    "Thing",
    "defined",
    "definers",
    "made",
    "made_in_turn",
    "schema_of",
    "sequences_of",
    "wipe",
]

_ROUTINES = (
    "SELECT routine_type, routine_name FROM information_schema.routines WHERE routine_schema = DATABASE()"
    " ORDER BY FIELD(routine_type, 'PACKAGE', 'PACKAGE BODY', 'FUNCTION', 'PROCEDURE'), routine_name"
)
_TRIGGERS = (
    "SELECT 'TRIGGER', trigger_name FROM information_schema.triggers WHERE trigger_schema = DATABASE()"
    " ORDER BY event_object_table, event_manipulation, action_timing, action_order"
)
_EVENTS = (
    "SELECT 'EVENT', event_name FROM information_schema.events WHERE event_schema = DATABASE() ORDER BY event_name"
)
_TABLE_KINDS = "SELECT table_type, table_name FROM information_schema.tables WHERE table_schema = DATABASE()"
# Where the columns of SHOW CREATE are: sql_mode, text, character set, collation; an event's time zone.
_PLACES: Mapping[str, tuple[int | None, int, int, int, int | None]] = {
    "VIEW": (None, 1, 2, 3, None),
    "EVENT": (1, 3, 4, 5, 2),
}
_AGAIN = f"SET NAMES binary, SESSION sql_mode = '{MODES}', SESSION time_zone = '+00:00'".encode()
_USUAL = (1, 2, 3, 4, None)
_ENABLED = re.compile(
    r"\A(CREATE DEFINER=\S+ EVENT .*? ON COMPLETION (?:NOT )?PRESERVE) (?:ENABLE|DISABLE ON \w+)\b",
    re.DOTALL,
)


@attrs.frozen
class Thing:
    """A view, routine, trigger or event.

    Args:
        text: the statement that makes it, in its own character set: see ``decoded``.
        modes: ``sql_mode`` that it was written under; ``None``: it does not matter.
        zone: the time zone of an event.
    """

    kind: str
    name: str
    text: str
    modes: str | None
    charset: str
    collation: str
    zone: str | None = None

    @property
    def label(self) -> str:
        """As people know it."""
        return f"{self.kind.lower()} {self.name}"

    @property
    def facts(self) -> tuple[str | None, ...]:
        """What another one has to have to be the same."""
        return self.text, self.modes, self.charset, self.collation, self.zone


@attrs.frozen
class Series:
    """A sequence and where it stands."""

    name: str
    text: str
    value: str
    rounds: str


@attrs.frozen
class Schema:
    """Everything but rows."""

    tables: Mapping[str, Statement]
    sequences: tuple[Series, ...]
    views: tuple[Thing, ...]
    routines: tuple[Thing, ...]
    triggers: tuple[Thing, ...]
    events: tuple[Thing, ...]

    @property
    def things(self) -> tuple[Thing, ...]:
        """What is made after the rows, in this order."""
        return *self.routines, *self.views, *self.triggers, *self.events

    @property
    def digest(self) -> str:
        """Tell two schemas apart by what they would make."""
        told = [(name, each.head, each.parts, *each.keys.values(), each.foreign, each.options)
                for name, each in sorted(self.tables.items())]  # fmt: skip
        more = [(each.label, *each.facts) for each in self.things]
        sequences = [each.text for each in self.sequences]
        return hashlib.blake2b(encoded(repr((told, more, sequences))), digest_size=16).hexdigest()


def schema_of(session: Session, name: str, facts: Facts, *, whole: bool = False) -> Schema:
    """Read the schema in a plain session.

    Args:
        whole: take all keys apart, also those that a table has from its beginning.
    """
    kept = {table.name: table.kept if table.is_transactional else None for table in facts.tables}
    tables = {}
    for table in facts.tables:
        text = _text(raw(session, name, f"SHOW CREATE TABLE {table.sql}")[0][1])
        keys = kept[table.name]
        apart = stated(text)
        tables[table.name] = apart if whole else stated(text, frozenset(apart.keys) if keys is None else keys)
    broken = {*facts.things["broken"]}
    return Schema(
        tables=tables,
        sequences=sequences_of(session, name, facts.things["sequences"]),
        views=tuple(_things(session, name, [("VIEW", each) for each in facts.things["views"] if each not in broken])),
        routines=tuple(_things(session, name, _asked(session, name, _ROUTINES))),
        triggers=tuple(_things(session, name, _asked(session, name, _TRIGGERS))),
        events=tuple(_things(session, name, _asked(session, name, _EVENTS))),
    )


def sequences_of(session: Session, name: str, names: Iterable[str]) -> tuple[Series, ...]:
    """Return sequences and where they stand now; no snapshot holds them."""
    found = []
    for each in names:
        text = _text(raw(session, name, f"SHOW CREATE SEQUENCE {quoted(each)}")[0][1])
        ((value, rounds),) = raw(session, name, f"SELECT next_not_cached_value, cycle_count FROM {quoted(each)}")
        found.append(Series(each, text, _text(value), _text(rounds)))
    return tuple(found)


def _asked(session: Session, name: str, query: str) -> list[tuple[str, str]]:
    return [(_text(kind), _text(each)) for kind, each in raw(session, name, query)]


def _things(session: Session, name: str, wanted: Iterable[tuple[str, str]]) -> Iterator[Thing]:
    for kind, each in wanted:
        row = raw(session, name, f"SHOW CREATE {kind} {quoted(each)}")[0]
        modes, text, charset, collation, zone = _PLACES.get(kind, _USUAL)
        if row[text] is None:
            why = f"the mover may not read the text of {kind.lower()} {each}"
            raise MigrationError(f"{name}: {why}: grant SELECT on mysql.*, or SHOW_ROUTINE")
        yield Thing(
            kind=kind,
            name=each,
            text=_text(row[text]),
            modes=None if modes is None else _text(row[modes]),
            charset=_text(row[charset]),
            collation=_text(row[collation]),
            zone=None if zone is None else _text(row[zone]),
        )


def _text(value: bytes | None) -> str:
    return decoded(value or b"")


# made again


def defined(session: Session, name: str, text: str) -> None:
    """Carry out a statement that ``SHOW CREATE TABLE`` wrote, which is in UTF-8 whatever a session speaks."""
    with asking(name):
        session.query(b"SET NAMES utf8mb4")
        try:
            session.query(encoded(text))
        finally:
            if session.open:
                session.query(b"SET NAMES binary")


def made(session: Session, name: str, thing: Thing) -> None:
    """Make a view, routine, trigger or event in a plain session, as it was written."""
    chosen = {"character_set_client": thing.charset, "collation_connection": thing.collation}
    chosen |= {} if thing.modes is None else {"sql_mode": thing.modes}
    chosen |= {"time_zone": thing.zone} if thing.zone else {}
    with asking(f"{name}: {thing.label}"):
        session.query(encoded("SET " + ", ".join(f"SESSION {key} = '{value}'" for key, value in chosen.items())))
        try:
            session.query(encoded(_quiet(thing).text))
        finally:
            if session.open:
                session.query(_AGAIN)


def _quiet(thing: Thing) -> Thing:
    """Leave an event disabled: it would run on both sides."""
    if thing.kind != "EVENT":
        return thing
    return attrs.evolve(thing, text=_ENABLED.sub(r"\1 DISABLE", thing.text))


def definers(source: Facts, target: Facts, degrade: frozenset[str]) -> Callable[[Thing], Thing]:
    """Return what puts the right account in the place of the one that a thing runs as; and leaves events disabled."""
    mover = account(*split_account(target.who))
    replaced = {account(*split_account(source.who))}
    if "roles" in degrade:
        gone = missing_accounts(source, target) if target.may_set_definer else source.definers
        replaced |= {account(*split_account(who)) for who in gone}

    def placed(thing: Thing) -> Thing:
        found = accounts_in(thing.text)
        if found is not None and (found in replaced or f"{found}@``" in replaced):
            thing = attrs.evolve(thing, text=with_definer(thing.text, mover))
        return _quiet(thing)

    return placed


def made_in_turn(session: Session, name: str, views: Sequence[Thing]) -> None:
    """Make views, each after those that it reads.

    Raises:
        MigrationError: one cannot be made.
    """
    left = list(views)
    while left:
        failed: list[tuple[Thing, MigrationError]] = []
        for view in left:
            try:
                made(session, name, view)
            except MigrationError as exc:
                if not isinstance(exc.__cause__, pymysql.MySQLError) or exc.__cause__.args[0] not in {1146, 1356}:
                    raise
                failed.append((view, exc))
        if len(failed) == len(left):
            raise failed[0][1]
        left = [view for view, _ in failed]


def wipe(session: Session, plain: Session, name: str) -> None:
    """Drop everything of users, but the marks."""
    for kind, each in [*_asked(plain, name, _EVENTS), *_asked(plain, name, _ROUTINES)]:
        if kind.startswith("PACKAGE"):  # which are understood in this mode only
            rows(session, name, "SET SESSION sql_mode = 'ORACLE'")
        rows(session, name, f"DROP {kind} IF EXISTS {quoted(each)}")
        rows(session, name, f"SET SESSION sql_mode = '{MODES}'")
    for kind, each in _asked(plain, name, _TABLE_KINDS):
        if not each.startswith(OWN):
            word = {"VIEW": "VIEW", "SEQUENCE": "SEQUENCE"}.get(kind, "TABLE")
            rows(session, name, f"DROP {word} IF EXISTS {quoted(each)}")

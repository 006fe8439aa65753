"""A zone and what one does with its records."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import ClassVar, TypeVar

import attrs

from shiftable.dns._rules import broken_rules, is_already, unheld
from shiftable.dns._text import file_text, meant, read_zone, type_name
from shiftable.dns.driver import (
    SERVER_TYPES,
    DnsDriver,
    DnsFeatures,
    RecordChange,
    RecordKey,
    RecordSet,
    ZoneInfo,
    absolute,
    is_within,
    labels,
    zone_name,
)
from shiftable.errors import (
    Conflict,
    IntegrityError,
    NotFound,
    OperationError,
    PreconditionFailed,
    Resource,
    Unsupported,
)
from shiftable.features import Limit
from shiftable.files import save_as
from shiftable.paging import Page, paged
from shiftable.service import Handle
from shiftable.tokens import Token

__all__ = ["Zone"]

E = TypeVar("E", bound=OperationError)

_BY_NAME = 5  # up to so many names are asked for one by one; for more the whole zone is listed
_ATTEMPTS = 4  # of a write without a condition, while others write the same record set


class Zone(Handle[DnsDriver]):
    """One zone, by name. A record's name may be relative to it (``www``, ``@``) or fully qualified (with a dot)."""

    service: ClassVar[str] = "dns"
    resource_type: ClassVar[str] = "zone"

    def __init__(self, driver: DnsDriver, name: str, *, ttl: int = 300) -> None:
        super().__init__(driver, zone_name(name))
        self.origin = f"{self.name}."
        self.ttl = ttl

    @property
    def features(self) -> DnsFeatures:
        """What the driver can do."""
        return self._driver.features

    def info(self) -> ZoneInfo:
        """Return what the provider tells of the zone: its name servers.

        Raises:
            NotFound: there is no such zone.
        """
        with self._translated("info", self.resource):
            return self._driver.info(self.name)

    def max_record_sets(self) -> Limit | None:
        """Return how many record sets the zone may have by now, as far as the provider tells; ``None``: no limit.

        Raises:
            NotFound: there is no such zone, where the provider has to be asked.
        """
        with self._translated("max_record_sets", self.resource):
            return self._driver.max_record_sets(self.name)

    # reading

    def records(
        self, *, name: str | None = None, type: str | None = None, limit: int | None = None
    ) -> Iterator[RecordSet]:
        """Iterate over the record sets, all of them or those of one name or type, in the provider's order.

        Raises:
            NotFound: there is no such zone.
        """
        owner = None if name is None else self._key("records", name, "A").name
        if type is None:
            return self._listing("records", self.resource, owner, limit)
        wanted = self._key("records", "@", type).type
        found = self._listing("records", self.resource, owner, None)
        return islice((record for record in found if record.type == wanted), limit)

    def get(self, name: str, type: str, *, set_id: str = "") -> RecordSet:
        """Return one record set.

        Args:
            set_id: which of several with routing policies.

        Raises:
            NotFound: there is none; ``ParentNotFound``: there is no such zone.
        """
        key = self._key("get", name, type, set_id)
        found = self._state("get", self._resource_of(key), [key.name]).get(key)
        if found is None:
            raise self._refusal(NotFound, "get", self._resource_of(key), "there is no such record set")
        return found

    def exists(self, name: str, type: str, *, set_id: str = "") -> bool:
        """Tell whether there is such a record set. A missing zone is an error, not a no."""
        key = self._key("exists", name, type, set_id)
        return key in self._state("exists", self._resource_of(key), [key.name])

    def record(self, name: str, type: str, values: str | Iterable[str], *, ttl: int | None = None) -> RecordSet:
        """Make a record set of this zone from text, for ``change``. Calls nobody.

        Raises:
            InvalidArgument: a name, type or value that does not parse, or parses as what nobody will have meant.
        """
        given = (values,) if isinstance(values, str) else values
        try:
            texts = [meant(type, text) for text in given]
            return RecordSet.of(name, type, texts, ttl=self.ttl if ttl is None else ttl, origin=self.origin)
        except ValueError as exc:
            raise self._invalid("record", Resource("record", f"{name} {type}", self.resource), str(exc)) from exc

    def check_record(self, record: RecordSet) -> str | None:
        """Say why the zone could not hold that record set exactly; ``None`` if it can. Sends nothing."""
        return unheld(self.origin, record) or self._driver.check_record(self.name, record)

    # writing

    def set(
        self,
        name: str,
        type: str,
        values: str | Iterable[str],
        *,
        ttl: int | None = None,
        if_absent: bool = False,
        if_match: Token | None = None,
        apex: bool = False,
    ) -> RecordSet:
        """Make a record set hold these values and no others.

        Args:
            values: as in a zone file; names in them may be relative to the zone.
            ttl: seconds; ``None``: as it is, or the zone's for a new one.
            if_absent: only if there is none.
            if_match: only if it still is in this version (``RecordSet.token``).
            apex: allow to change the NS or SOA of the zone itself.

        Raises:
            PreconditionFailed: ``if_absent`` or ``if_match`` does not hold.
            InvalidArgument: DNS or the provider cannot hold it; nothing was sent.
            IntegrityError: the provider said yes and did nothing.
            Conflict: read back, it is something else: others wrote it at the same moment.
        """
        wanted = self.record(name, type, values, ttl=ttl)

        def step(before: RecordSet | None) -> RecordSet:
            return attrs.evolve(wanted, ttl=before.ttl) if before is not None and ttl is None else wanted

        return self._swap("set", wanted.key, step, if_absent=if_absent, if_match=if_match, apex=apex) or wanted

    def delete(self, name: str, type: str, *, set_id: str = "", if_match: Token | None = None) -> None:
        """Delete a record set. A missing one is no error, unless ``if_match`` is given.

        Raises:
            PreconditionFailed: it is no longer in the version ``if_match``.
            InvalidArgument: it is the SOA or NS of the zone itself.
        """
        self._swap("delete", self._key("delete", name, type, set_id), lambda _before: None, if_match=if_match)

    def change(self, changes: Iterable[RecordChange], *, atomic: bool = False, apex: bool = False) -> None:
        """Carry out many changes in as few calls as the provider allows, and read back that they happened.

        Args:
            atomic: all or none: refused if the provider cannot, or not so many at once.
            apex: allow to change the NS or SOA of the zone itself.

        Raises:
            InvalidArgument: lists all changes that DNS or the provider forbids; nothing was sent.
            PreconditionFailed: a record set is not what ``before`` says.
            IntegrityError: the provider said yes and did nothing.
            Conflict: read back, it is something else: others wrote it at the same moment.
        """
        wanted = tuple(change for change in changes if not is_already(change.before, change.after))
        if wanted:
            current = self._state("change", self.resource, [change.key.name for change in wanted])
            self._apply("change", self.resource, wanted, current, atomic=atomic, apex=apex)

    # comparing and moving

    def diff(self, other: Zone | Iterable[RecordSet], *, apex: bool = False) -> tuple[RecordChange, ...]:
        """Return the changes that would make this zone's records those of another; ``change`` takes them.

        What a signing server makes itself is left out. Names are taken as they are: the other zone has the same name.

        Args:
            apex: compare the SOA and NS of the zone itself too; they belong to the provider.
        """
        theirs = other.records() if isinstance(other, Zone) else other
        here = _comparable(self.records(), self.origin, apex=apex)
        there = _comparable(theirs, self.origin, apex=apex)
        differing = [key for key in {**here, **there} if here.get(key) != there.get(key)]
        return tuple(RecordChange(before=here.get(k), after=there.get(k)) for k in sorted(differing, key=_order))

    def export_file(self, path: Path | None = None, *, omit_policies: bool = False) -> str:
        """Return the zone as a zone file that any name server loads: a record a line, sorted; and write it to a path.

        Args:
            path: replaced at once, when the text is complete, also behind links; a pipe or a device takes it.
            omit_policies: leave out record sets with routing of the provider's own, which no zone file can hold.

        Raises:
            Unsupported: there are such, and they are not to be left out.
        """
        found = sorted(self.records(), key=lambda record: (record.type != "SOA", _order(record.key)))
        routed = [str(record.key) for record in found if record.policy]
        if routed and not omit_policies:
            raise Unsupported(
                f"a zone file cannot hold the routing of {', '.join(routed)};"
                " pass omit_policies=True (--omit-policies) to leave it out",
                provider=self.provider,
                operation="dns.export_file",
                resource=self.resource,
            )
        lines = "".join(f"{record}\n" for record in found if not record.policy)
        text = f"$ORIGIN {self.origin}\n{lines}"
        if path is not None:
            save_as([text.encode()], path)
        return text

    def import_file(
        self, source: Path | str | bytes, *, replace: bool = False, apex: bool = False
    ) -> tuple[RecordChange, ...]:
        """Read a zone file into the zone and return what had to change.

        Args:
            source: a path, or the text itself.
            replace: delete the record sets that are not in the file.
            apex: take over the SOA and NS of the zone itself too; else the provider's stay.

        Raises:
            InvalidArgument: it is no zone file, or has what DNS or the provider forbids; nothing was sent.
        """
        changes = self.diff(self.parse(source), apex=apex)
        wanted = tuple(change for change in changes if replace or change.after is not None)
        self.change(wanted, apex=apex)
        return wanted

    def parse(self, source: Path | str | bytes) -> tuple[RecordSet, ...]:
        """Return the record sets of a zone file, for ``diff``. Calls nobody.

        Args:
            source: a path, or the text itself.

        Raises:
            InvalidArgument: it is no zone file, one of another zone, or one without a record.
        """
        try:
            text = file_text(source.read_bytes() if isinstance(source, Path) else source)
            records = read_zone(text, self.origin)
            found = tuple(
                RecordSet(name=name, type=kind, ttl=ttl, rdatas=rdatas) for name, kind, ttl, rdatas in records
            )
            if not found:
                raise ValueError("this is no zone file: it has no record")  # noqa: TRY301  said as what else is wrong
        except ValueError as exc:
            where = f"{source}: " if isinstance(source, Path) else ""
            raise self._invalid("parse", self.resource, f"{where}{exc}") from exc
        return found

    # below: one step each

    def _listing(self, operation: str, resource: Resource, name: str | None, limit: int | None) -> Iterator[RecordSet]:
        def fetch(cursor: str | None, left: int | None) -> Page[RecordSet]:
            with self._translated(operation, resource):
                return self._driver.records(self.name, name=name, cursor=cursor, limit=left)

        return paged(fetch, limit=limit)

    def _state(self, operation: str, resource: Resource, names: Iterable[str]) -> dict[RecordKey, RecordSet]:
        """Return all record sets of those names that are in the zone."""
        within = {name for name in names if is_within(name, self.origin)}
        owners = [None] if len(within) > _BY_NAME else sorted(within)
        found = (record for owner in owners for record in self._listing(operation, resource, owner, None))
        return {record.key: record for record in found if record.name in within}

    def _swap(
        self,
        operation: str,
        key: RecordKey,
        step: Callable[[RecordSet | None], RecordSet | None],
        *,
        if_absent: bool = False,
        if_match: Token | None = None,
        apex: bool = False,
    ) -> RecordSet | None:
        """Replace one record set by what ``step`` makes of it; without a condition, again if another was faster."""
        resource = self._resource_of(key)
        for _ in range(_ATTEMPTS):
            current = self._state(operation, resource, [key.name])
            before = current.get(key)
            if if_absent and before is not None:
                raise self._refusal(PreconditionFailed, operation, resource, "there is such a record set already")
            if if_match is not None and (before is None or before.token != if_match):
                raise self._refusal(PreconditionFailed, operation, resource, "it is not in that version")
            after = step(before)
            if is_already(before, after):
                return before
            try:
                change = RecordChange(before=before, after=after)
                self._apply(operation, resource, (change,), current, atomic=False, apex=apex)
            except PreconditionFailed:
                if if_absent or if_match is not None:
                    raise
            else:
                return after
        raise self._refusal(Conflict, operation, resource, f"others changed it {_ATTEMPTS} times meanwhile; try again")

    def _apply(
        self,
        operation: str,
        resource: Resource,
        changes: tuple[RecordChange, ...],
        current: Mapping[RecordKey, RecordSet],
        *,
        atomic: bool,
        apex: bool,
    ) -> None:
        """Check, send and read back. ``current`` has all record sets of the names that change."""
        wrong = [*broken_rules(self.origin, current, changes, apex=apex), *self._unfit(changes)]
        if wrong:
            raise self._invalid(operation, resource, "; ".join(wrong))
        moved = [str(change.key) for change in changes if current.get(change.key) != change.before]
        if moved:
            why = f"not as it was when the change was made: {', '.join(moved)}; compare again"
            raise self._refusal(PreconditionFailed, operation, resource, why)
        batches = tuple(self._driver.batches(changes))
        if atomic:
            possible = self.features.atomic_batch and len(batches) == 1
            self._require(possible, operation, resource, f"way to change {len(changes):,} record sets at once")
        for batch in batches:
            with self._translated(operation, resource):
                self._driver.change(self.name, batch)
        self._verify(operation, resource, changes)

    def _unfit(self, changes: tuple[RecordChange, ...]) -> Iterator[str]:
        for change in changes:
            why = None if change.after is None else self._driver.check_record(self.name, change.after)
            if why is not None:
                yield f"{change.key}: {why}"
            if (change.key.name, change.key.type) == (self.origin, "NS") and not self.features.apex_ns:
                yield f"{change.key}: this provider changes it for nobody"

    def _verify(self, operation: str, resource: Resource, changes: tuple[RecordChange, ...]) -> None:
        """Read back what was changed: name servers answer NOERROR to changes that they ignore."""
        found = self._state(operation, resource, [change.key.name for change in changes])
        wrong = [change for change in changes if found.get(change.key) != change.after]
        ignored = [str(change) for change in wrong if found.get(change.key) == change.before]
        if ignored:
            why = f"the provider answered success and left as they were: {', '.join(ignored)}"
            raise self._refusal(IntegrityError, operation, resource, why)
        if wrong:
            other = ", ".join(str(change.key) for change in wrong)
            why = f"others wrote at the same moment, or the provider changes what it is given: {other}; look at it"
            raise self._refusal(Conflict, operation, resource, why)

    def _key(self, operation: str, name: str, type: str, set_id: str = "") -> RecordKey:
        try:
            key = RecordKey(absolute(name, self.origin), type_name(type), set_id)
        except ValueError as exc:
            raise self._invalid(operation, Resource("record", name, self.resource), str(exc)) from exc
        if not is_within(key.name, self.origin):
            raise self._invalid(operation, self._resource_of(key), f"the name is not in the zone {self.origin}")
        return key

    def _resource_of(self, key: RecordKey) -> Resource:
        return Resource("record", str(key), self.resource)

    def _refusal(self, error: type[E], operation: str, resource: Resource, why: str) -> E:
        return error(why, provider=self.provider, operation=f"dns.{operation}", resource=resource)


def _comparable(records: Iterable[RecordSet], origin: str, *, apex: bool) -> dict[RecordKey, RecordSet]:
    """Return the record sets that a comparison is about, by key."""
    own = frozenset[str]() if apex else frozenset({"NS", "SOA"})
    return {
        record.key: record
        for record in records
        if record.type not in SERVER_TYPES and not (record.name == origin and record.type in own)
    }


def _order(key: RecordKey) -> tuple[tuple[bytes, ...], str, str]:
    """Sort as DNS does, by labels from the right (RFC 4034, 6.1)."""
    return labels(key.name)[::-1], key.type, key.set_id

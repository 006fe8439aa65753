"""What a provider of DNS implements: ``DnsDriver``, its values and its features."""

from __future__ import annotations

import hashlib
import re
from abc import abstractmethod
from collections.abc import Iterable, Iterator
from itertools import groupby
from types import TracebackType
from typing import ClassVar, Literal, NamedTuple, Protocol, Self

import attrs

from shiftable.dns._text import rdata_of, text_of, type_name
from shiftable.dns._wire import (
    absolute,
    canonical_name,
    canonical_rdata,
    canonical_rdatas,
    is_within,
    labels,
    relative,
)
from shiftable.errors import Unsupported
from shiftable.features import Features, Limit, feature
from shiftable.paging import Page
from shiftable.service import Driver, Spec
from shiftable.tokens import Token

__all__ = [
    "SERVER_TYPES",
    "DnsDriver",
    "DnsFeatures",
    "DnsServer",
    "Policy",
    "RecordChange",
    "RecordKey",
    "RecordSet",
    "ZoneInfo",
    "ZoneSpec",
    "absolute",
    "canonical_rdata",
    "is_within",
    "labels",
    "rdata_of",
    "relative",
    "text_of",
    "zone_name",
]

SERVER_TYPES = frozenset({"CDNSKEY", "CDS", "DNSKEY", "NSEC", "NSEC3", "NSEC3PARAM", "RRSIG", "ZONEMD"})
"""Types that a signing server makes itself; they are never copied or written."""

MAX_TTL = 2**31 - 1  # RFC 2181, 8

_PLAIN = re.compile(r"(?:\*\.)?(?:[_-]*[a-z0-9][a-z0-9_-]*\.)*")
"""Names that every provider can hold."""


def zone_name(name: str) -> str:
    """Return a zone's name in its one spelling: lower case, no dot at the end: ``shop.example``."""
    return name.lower().removesuffix(".")


def _is_ttl(_: object, field: attrs.Attribute[int], value: int) -> None:
    if not 0 <= value <= MAX_TTL:
        raise ValueError(f"{field.name} must be 0 to {MAX_TTL:,} seconds, not {value:,}")


@attrs.frozen(kw_only=True)
class ZoneSpec(Spec):
    """``[dns.x]``: a zone. Its records are data, not declarations: they are written through the handle.

    Args:
        name: ``zone`` in the file.
        ttl: seconds, of new record sets that are set without one.
    """

    name_key: ClassVar[str] = "zone"

    name: str = attrs.field(converter=zone_name)
    ttl: int = attrs.field(default=300, eq=False, validator=_is_ttl)


@attrs.frozen(kw_only=True)
class ZoneInfo:
    """What a provider tells of a zone beside its records.

    Args:
        nameservers: who answers for it, fully qualified; what the parent zone has to name.
        id: the provider's own, where it has one.
    """

    name: str
    nameservers: tuple[str, ...] = ()
    id: str | None = None


@attrs.frozen(kw_only=True)
class Policy:
    """How a provider of its own kind answers: weighted, by place, by health, or as an alias of its own resource.

    Opaque: another provider refuses it.

    Args:
        provider: whose it is, ``aws``.
        data: in the provider's words; its driver writes and reads it.
        set_id: tells apart the record sets of one name and type, where the provider lets several exist.
    """

    provider: str
    data: str
    set_id: str | None = None


def _as_tuple(rdatas: Iterable[bytes]) -> tuple[bytes, ...]:
    return tuple(rdatas)


class RecordKey(NamedTuple):
    """What identifies a record set in its zone. A tuple, as zones are sorted and looked up by it."""

    name: str
    type: str
    set_id: str = ""

    def __str__(self) -> str:
        return f"{self.name} {self.type}" + (f" {self.set_id!r}" if self.set_id else "")


@attrs.frozen(kw_only=True)
class RecordSet:
    r"""All records of one name and type: the unit that is read, compared and written.

    Two are equal if a resolver could not tell them apart: the case of names does not count, nor does the order of
    values, nor an SOA's serial; the chunks of a TXT do.

    Args:
        name: fully qualified, with a dot at the end. It is kept in lower case: DNS does not tell the difference, and
            most providers do not keep it.
        type: ``A``, or ``TYPE65400`` for a type without a name.
        ttl: seconds.
        rdatas: the values in wire form, uncompressed, as they came; ``texts`` prints them. Empty only with a policy.
        policy: routing of the provider's own.
        revision: the provider's own mark of this state, for its driver and no one else.
        key: what identifies it in its zone.
    """

    name: str = attrs.field(converter=canonical_name)
    type: str = attrs.field(converter=type_name)
    ttl: int
    rdatas: tuple[bytes, ...] = attrs.field(converter=_as_tuple, eq=False)
    policy: Policy | None = None
    revision: str | None = attrs.field(default=None, eq=False, repr=False)
    key: RecordKey = attrs.field(init=False, eq=False, repr=False)
    _canonical: frozenset[bytes] = attrs.field(init=False, repr=False)

    @key.default
    def _identity(self) -> RecordKey:
        return RecordKey(self.name, self.type, (self.policy.set_id or "") if self.policy else "")

    @_canonical.default
    def _fold(self) -> frozenset[bytes]:
        return canonical_rdatas(self.type, self.rdatas)

    @classmethod
    def of(
        cls, name: str, type: str, values: Iterable[str], *, ttl: int, origin: str = ".", policy: Policy | None = None
    ) -> Self:
        """Make one from text as it stands in a zone file.

        Args:
            origin: completes relative names, the owner's and those in the values; ``@`` is the origin.

        Raises:
            ValueError: a name, type or value that does not parse.
            ConfigError: dnspython is not installed.
        """
        kind = type_name(type)
        rdatas = tuple(rdata_of(kind, value, origin) for value in values)
        return cls(name=absolute(name, origin), type=kind, ttl=ttl, rdatas=rdatas, policy=policy)

    @property
    def texts(self) -> tuple[str, ...]:
        """The values as they stand in a zone file, names fully qualified."""
        return tuple(text_of(self.type, rdata) for rdata in self.rdatas)

    @property
    def canonical(self) -> frozenset[bytes]:
        """The values in wire form with the names in them in lower case: what equality goes by."""
        return self._canonical

    @property
    def token(self) -> Token:
        """Its version for ``if_match``, made of its content: equal sets have equal tokens, at every provider."""
        digest = hashlib.sha256(repr((self.key, self.ttl, self.policy, sorted(self._canonical))).encode())
        return Token(digest.hexdigest()[:32])

    def __str__(self) -> str:
        return "\n".join(f"{self.name} {self.ttl} IN {self.type} {text}" for text in self.texts)


@attrs.frozen(kw_only=True)
class RecordChange:
    """One record set that is to become another.

    Args:
        before: as it must be for the change to happen; ``None``: there must be none.
        after: as it shall be; ``None``: gone.
    """

    before: RecordSet | None
    after: RecordSet | None

    def __attrs_post_init__(self) -> None:
        if self.before is None and self.after is None:
            raise ValueError("a change needs a record set before or after it")
        if self.before and self.after and self.before.key != self.after.key:
            raise ValueError(f"{self.before.key} cannot become {self.after.key}; delete one and create the other")

    @property
    def action(self) -> Literal["create", "update", "delete"]:
        """What has to be done."""
        if self.before is None:
            return "create"
        return "delete" if self.after is None else "update"

    @property
    def key(self) -> RecordKey:
        """Which record set it is about."""
        record = self.after or self.before
        assert record is not None  # noqa: S101  one of them is there
        return record.key

    def __str__(self) -> str:
        return f"{self.action} {self.key}"


@attrs.frozen(kw_only=True)
class DnsFeatures(Features):
    """What a DNS driver can do."""

    zones: bool = feature("zones are created and deleted; if not, they must exist")
    types: frozenset[str] | None = feature("record types that are held; none named: every type there is")
    any_name: bool = feature("every owner name, not only letters, digits, hyphens, underscores and a leading *")
    policy: bool = feature("its own routing policies and aliases are read and written back")
    apex_ns: bool = feature("the NS records of the zone itself can be changed")
    apex_ns_kept: bool = feature("... but the provider's own stay among them", default=False)
    lone_ds: bool = feature("a DS is held without NS of its name", default=True)
    if_match: bool = feature("a record set is changed only if it still is what it was")
    atomic_if_match: bool = feature("... decided by the provider itself, not by a read before the write")
    atomic_batch: bool = feature("all changes of one call happen, or none")
    max_batch: Limit | None = feature("record sets changed in one call", default=None)
    max_values: Limit | None = feature("values of one record set", default=None)
    max_rdata: Limit | None = feature("longest value, bytes of wire form", default=None)
    max_record_sets: Limit | None = feature("record sets of one zone", default=None)
    writes_per_minute: Limit | None = feature("record sets of one zone written in a minute", default=None)
    min_ttl: Limit = feature("shortest time to live, seconds", default=Limit(0, "RFC 1035, 3.2.1"))
    max_ttl: Limit = feature("longest time to live, seconds", default=Limit(MAX_TTL, "RFC 2181, 8"))
    serve: bool = feature(
        "its zones are answered on this machine for development, as there is no server", default=False
    )


class DnsServer(Protocol):
    """A running name server; use it in a ``with`` block.

    Attributes:
        host: the address where it listens.
        port: by UDP and TCP.
    """

    host: str
    port: int

    def close(self) -> None:
        """Stop listening."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, cls: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None, /
    ) -> None: ...


class DnsDriver(Driver[ZoneSpec]):
    """DNS of one provider. The admin verbs of ``Driver`` act on zones, named as ``zone_name`` spells them.

    A new zone has its SOA and NS; ``destroy`` fails if it holds more than those. Nothing here retries, pages or
    validates, or believes that a change has happened: the portable ``Zone`` does.
    """

    @property
    @abstractmethod
    def features(self) -> DnsFeatures:
        """What this driver can do."""

    def check_name(self, name: str) -> str | None:
        """Say why the provider could not hold a zone of that name; ``None`` if it can. Sends nothing."""
        if not name:
            return "the name is empty"
        try:
            canonical = zone_name(canonical_name(f"{name.removesuffix('.')}."))
        except ValueError as exc:
            return str(exc)
        return None if name == canonical else f"write it {canonical!r}"

    def holds_name(self, name: str) -> bool:
        """Tell whether a driver without ``any_name`` holds that owner name. Sends nothing."""
        return _PLAIN.fullmatch(name) is not None

    def check_record(self, zone: str, record: RecordSet) -> str | None:
        """Say why the provider could not keep that record set exactly; ``None`` if it can. Sends nothing."""
        has = self.features
        sizes = (
            ("values", len(record.rdatas), has.max_values),
            ("bytes in one value", max(map(len, record.rdatas), default=0), has.max_rdata),
        )
        if has.types is not None and record.type not in has.types:
            return f"it holds no {record.type} records; it holds {', '.join(sorted(has.types))}"
        if not (has.any_name or self.holds_name(record.name)):
            return f"it cannot hold the name {record.name!r}"
        if record.policy and not (has.policy and record.policy.provider == self.provider):
            return f"it has no routing policy of {record.policy.provider}"
        if not has.min_ttl.value <= record.ttl <= has.max_ttl.value:
            return f"the TTL is {record.ttl:,} s; it must be {has.min_ttl} to {has.max_ttl} ({has.max_ttl.source})"
        for what, size, limit in sizes:
            if limit is not None and size > limit.value:
                return f"there are {size:,} {what}; the limit is {limit} ({limit.source})"
        return None

    def batches(self, changes: tuple[RecordChange, ...]) -> Iterator[tuple[RecordChange, ...]]:
        """Split changes into calls of ``change``, as few as possible. The changes of one name stay together.

        A provider that counts values or bytes overrides this.
        """
        limit, batch = self.features.max_batch, list[RecordChange]()
        for _, group in groupby(sorted(changes, key=lambda change: change.key), key=lambda change: change.key.name):
            together = tuple(group)
            if limit is not None and batch and len(batch) + len(together) > limit.value:
                yield tuple(batch)
                batch = []
            batch += together
        if batch:
            yield tuple(batch)

    @abstractmethod
    def info(self, zone: str) -> ZoneInfo:
        """Return what the provider tells of a zone beside its records."""

    def max_record_sets(self, zone: str) -> Limit | None:
        """Return how many record sets that zone may have; ``None``: as many as one likes.

        A provider that raises the limit of its features when asked, and tells, overrides this.
        """
        return self.features.max_record_sets

    # reading

    @abstractmethod
    def records(self, zone: str, *, name: str | None, cursor: str | None, limit: int | None) -> Page[RecordSet]:
        """Return one page of the zone's record sets, SOA and NS included, in the provider's order.

        A record that is switched off, or answered by rules, comes with a ``policy``, so that nobody takes it for a
        plain one. A type that the provider calls by a name of its own comes as ``TYPEnnn``.

        Args:
            name: only those of this name, canonical.
            cursor: where the last page ended.
            limit: at most so many; more are cut by the caller.
        """

    # writing

    @abstractmethod
    def change(self, zone: str, changes: tuple[RecordChange, ...]) -> None:
        """Carry out one batch, as ``batches`` made it; return when ``records`` shows it.

        Each change is refused as failed precondition if its record set is not ``before`` any more (of a driver with
        ``atomic_if_match``: by the provider, together with the write). With ``atomic_batch`` one refused change
        refuses all. The order in the batch means nothing: where a CNAME becomes an A, the driver deletes first.
        """

    # optional: it goes with a field of the features

    def serve(self, port: int, *, update: bool) -> DnsServer:
        """Answer all zones on loopback by UDP and TCP, with transfers, until the server is closed.

        Args:
            port: 0 for one that is free.
            update: take dynamic updates (RFC 2136) and write them.
        """
        raise Unsupported("this provider has name servers of its own")

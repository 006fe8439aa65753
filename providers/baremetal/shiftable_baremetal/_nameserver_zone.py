"""What a zone answers: names and record sets by wire form, and the search of RFC 1034, 4.3.2.

Nothing here knows messages. A name is its wire form in lower case: a length byte is at most 63, so below every letter.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property

import attrs
import dns.rdatatype

from shiftable.dns.driver import RecordSet, labels

__all__ = ["IN", "NOERROR", "NXDOMAIN", "YXDOMAIN", "Answer", "Rrset", "ZoneIndex", "suffixes", "wire_of"]

IN = 1
NOERROR, NXDOMAIN, YXDOMAIN = 0, 3, 6

_A, _NS, _CNAME, _SOA, _AAAA, _DNAME, _DS, _ANY = 1, 2, 5, 6, 28, 39, 43, 255
_NOT_ALIASED = frozenset({_CNAME, _ANY, 46, 47, 25})  # of these a CNAME has some itself: RRSIG, NSEC, KEY
_HOPS = 16
"""CNAMEs that are followed within a zone; BIND follows as many."""
_LONGEST_NAME = 255


def wire_of(name: str) -> bytes:
    """Return the wire form of a canonical name."""
    return b"".join(b"%c%b" % (len(label), label.lower()) for label in labels(name)) + b"\0"


def suffixes(name: bytes) -> Iterator[bytes]:
    """Yield a name and all names above it, the root last."""
    at = 0
    while name[at]:
        yield name[at:]
        at += 1 + name[at]
    yield b"\0"


@attrs.frozen
class Rrset:
    """The records of one name and type, as they go into a message."""

    owner: bytes
    type: int
    ttl: int
    rdatas: tuple[bytes, ...]

    @property
    def target(self) -> bytes:
        """The name that a CNAME or DNAME leads to."""
        return self.rdatas[0].lower()


@attrs.frozen
class Answer:
    """What is said of a question."""

    rcode: int
    authoritative: bool
    answer: tuple[Rrset, ...] = ()
    authority: tuple[Rrset, ...] = ()
    additional: tuple[Rrset, ...] = ()


_Node = dict[int, Rrset]


@attrs.frozen(slots=False, eq=False)
class ZoneIndex:
    """One state of a zone, for questions.

    Args:
        nodes: the record sets of each name by type; a name that only has names below it has none.
    """

    origin: bytes
    nodes: dict[bytes, _Node] = attrs.field(repr=False)

    @classmethod
    def of(cls, origin: str, records: Iterable[RecordSet]) -> ZoneIndex:
        """Index a zone. What is answered by rules of a provider's own, or lies outside the zone, is left out."""
        top = wire_of(origin)
        nodes: dict[bytes, _Node] = {top: {}}
        numbers = dict[str, int]()
        for record in records:
            if record.policy is not None:
                continue
            number = numbers.get(record.type) or numbers.setdefault(
                record.type, int(dns.rdatatype.from_text(record.type))
            )
            owner = wire_of(record.name)
            if owner not in nodes and not _reach(nodes, owner):
                continue
            nodes[owner][number] = Rrset(owner, number, record.ttl, record.rdatas)
        return cls(top, nodes)

    @property
    def soa(self) -> Rrset:
        """The SOA of the zone."""
        return self.nodes[self.origin][_SOA]

    @cached_property
    def _negative(self) -> tuple[Rrset, ...]:
        """The SOA as it stands beside "there is none": RFC 2308, 3."""
        soa = self.nodes[self.origin].get(_SOA)
        if soa is None:
            return ()
        least = int.from_bytes(soa.rdatas[0][-4:], "big")
        return (attrs.evolve(soa, ttl=min(soa.ttl, least)),)

    def everything(self) -> Iterator[Rrset]:
        """Yield all record sets as a transfer has them: the SOA first and last."""
        yield self.soa
        for owner, node in self.nodes.items():
            yield from (rrset for rrset in node.values() if owner != self.origin or rrset.type != _SOA)
        yield self.soa

    def resolve(self, name: bytes, type: int) -> Answer:
        """Answer a question about a name in the zone, following its aliases within the zone."""
        aliases = list[Rrset]()
        seen = set[bytes]()
        while True:
            found = self._once(name, type)
            if isinstance(found, Answer):
                return attrs.evolve(found, authoritative=True, answer=(*aliases, *found.answer)) if aliases else found
            aliases += found
            seen.add(name)
            name = found[-1].target
            if name in seen or len(seen) > _HOPS or self.origin not in suffixes(name):
                return Answer(NOERROR, True, tuple(aliases))

    def _once(self, name: bytes, type: int) -> Answer | tuple[Rrset, ...]:
        """Answer a question, or return the alias that stands in its way, a CNAME at the end."""
        path = self._path(name)
        for above in path:
            node = self.nodes.get(above)
            if node is None:
                break
            if _NS in node and above != self.origin and not (above == name and type == _DS):
                return self._referral(node[_NS])
            if _DNAME in node and above != name:
                return self._renamed(name, node[_DNAME])
        node = self.nodes.get(name)
        if node is not None:
            return self._at(node, name, type)
        encloser = next(above for above in suffixes(name) if above in self.nodes)
        star = self.nodes.get(b"\1*" + encloser)
        if star is None:
            return Answer(NXDOMAIN, True, authority=self._negative)
        return self._at(star, name, type)

    def _path(self, name: bytes) -> list[bytes]:
        """Return the names from the top of the zone down to one in it."""
        path = []
        for above in suffixes(name):
            path.append(above)
            if above == self.origin:
                break
        path.reverse()
        return path

    def _at(self, node: _Node, name: bytes, type: int) -> Answer | tuple[Rrset, ...]:
        """Answer from the record sets of a name, or from those of the wildcard that stands for it."""
        if _CNAME in node and type not in _NOT_ALIASED:
            return (_owned(node[_CNAME], name),)
        chosen = tuple(node.values()) if type == _ANY else (node[type],) if type in node else ()
        if not chosen:
            return Answer(NOERROR, True, authority=self._negative)
        return Answer(NOERROR, True, tuple(_owned(rrset, name) for rrset in chosen))

    def _referral(self, servers: Rrset) -> Answer:
        glue = [
            rrset
            for rdata in servers.rdatas
            for number in (_A, _AAAA)
            if (rrset := self.nodes.get(rdata.lower(), {}).get(number)) is not None
        ]
        return Answer(NOERROR, False, authority=(servers, *self._signed(servers.owner)), additional=tuple(glue))

    def _signed(self, cut: bytes) -> tuple[Rrset, ...]:
        signer = self.nodes[cut].get(_DS)
        return () if signer is None else (signer,)

    def _renamed(self, name: bytes, rule: Rrset) -> Answer | tuple[Rrset, ...]:
        """Apply a DNAME: RFC 6672, 3.1. The CNAME is made for those who do not know the type."""
        target = name[: -len(rule.owner)] + rule.rdatas[0]
        if len(target) > _LONGEST_NAME:
            return Answer(YXDOMAIN, True, (rule,))
        return rule, Rrset(name, _CNAME, rule.ttl, (target,))


def _owned(rrset: Rrset, name: bytes) -> Rrset:
    return rrset if rrset.owner == name else attrs.evolve(rrset, owner=name)


def _reach(nodes: dict[bytes, _Node], owner: bytes) -> bool:
    """Make a node for a name and for those between it and one that is there; ``False`` if it is below none."""
    path = list[bytes]()
    for name in suffixes(owner):
        if name in nodes:
            nodes.update((each, {}) for each in path)
            return True
        path.append(name)
    return False

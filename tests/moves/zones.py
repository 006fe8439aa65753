"""The providers of a move of a zone as everybody else sees them: the doubles' own objects, files, a server's memory.

Filling goes through drivers, which is what they are for; what a zone really holds is read past them.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import dns.name
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rdtypes.ANY.TXT
import dns.zone

import shiftable
from shiftable.dns import Dns, RecordChange, RecordSet, Zone, ZoneSpec
from shiftable.memory.dns import MemoryDnsDriver
from shiftable.testing.conformance.dns import Observed, observed

from .sides import Side

if TYPE_CHECKING:
    from shiftable_aws.double import AwsDouble
    from shiftable_azure.double import AzureDouble
    from shiftable_gcp.double import GcpDouble

__all__ = ["DECLARED", "ORIGIN", "ZONE", "ZONES", "Backing", "ServerZones", "Zones"]

ZONE = "shop.example"
ORIGIN = f"{ZONE}."
DECLARED = ("[dns.shop]", f'zone = "{ZONE}"')
KEY, SECRET = "moves-key", "bm90LWEtc2VjcmV0LWF0LWFsbC1idXQtbG9uZy1lbm91Z2g="


class Zones(ABC):
    """One provider and one zone.

    Args:
        side: what stands in the file, and where the double is; ``None``: neither is needed.
    """

    name: ClassVar[str]
    side_name: ClassVar[str | None]

    def __init__(self, side: Side | None) -> None:
        self._side = side

    @property
    def side(self) -> Side:
        """The side, where there is one."""
        assert self._side is not None
        return self._side

    @property
    def settings(self) -> Mapping[str, Any]:
        """What stands in ``[providers.NAME]``."""
        return self.side.settings

    @property
    def environ(self) -> Mapping[str, str]:
        """What the settings refer to."""
        return self.side.environ

    @property
    @abstractmethod
    def service(self) -> Dns:
        """The provider's zones."""

    @abstractmethod
    def read(self) -> Observed:
        """Return what the zone really holds."""

    @property
    def zone(self) -> Zone:
        """The zone, which exists."""
        if not self.service.exists(ZONE):
            self.service.create(ZoneSpec(name=ZONE))
        return self.service.zone(ZONE)

    def fill(self, records: Iterable[RecordSet]) -> list[RecordSet]:
        """Put into the zone what the provider can hold, and return that."""
        zone, has = self.zone, self.service.features
        alone = {"DS"} if not has.lone_ds else set()
        held = [each for each in records if each.type not in alone and zone.check_record(each) is None]
        zone.change([RecordChange(before=None, after=each) for each in held])
        return held

    @contextmanager
    def answering(self) -> Iterator[str]:
        """Serve the zone on loopback, as ``--ask`` takes it."""
        from shiftable_baremetal.nameserver import Nameserver

        with Nameserver(self.service.unwrap(object), refresh=3600.0) as server:  # type: ignore[arg-type]  # a driver
            yield f"127.0.0.1@{server.port}"

    @abstractmethod
    def writes(self) -> int:
        """Return how often the zone was written, in any measure."""


class ZonesOnDouble(Zones):
    """A provider that a double stands in for."""

    @property
    def double(self) -> Any:
        """The double."""
        return self.side.double  # type: ignore[attr-defined]  # of those that have one

    @cached_property
    def service(self) -> Dns:
        return shiftable.connect(self.side.name, **self.double.config).dns

    def writes(self) -> int:
        return sum(call.method != "GET" and "/token" not in call.path for call in self.double.calls)


class AwsZones(ZonesOnDouble):
    name = side_name = "aws"
    double: AwsDouble

    def read(self) -> Observed:
        known = self.double.backend("route53", "aws").zones.values()
        (id_,) = (zone.resource_id for zone in known if zone.name == ORIGIN)
        found = {}
        for (name, kind, _), record in self.double.dns.records(id_).items():
            values = [_decimal(entry["Value"]) for entry in record.get("ResourceRecords", ())]
            owner = dns.name.from_text(_decimal(name)).to_text().lower()
            found[owner, kind] = (record.get("TTL", 0), _parsed(kind, values))
        return found


class GcpZones(ZonesOnDouble):
    name = side_name = "gcp"
    double: GcpDouble

    def read(self) -> Observed:
        (found,) = (each for each in self.double.dns.zones.values() if each.dns_name == ORIGIN)
        return {each.key: (each.ttl, _parsed(each.type, each.rrdatas)) for each in found.sets.values()}


class AzureZones(ZonesOnDouble):
    name = side_name = "azure"
    double: AzureDouble

    _FIELDS: ClassVar[Mapping[str, tuple[str, str]]] = {
        "A": ("ARecords", "{ipv4Address}"),
        "AAAA": ("AAAARecords", "{ipv6Address}"),
        "CAA": ("caaRecords", '{flags} {tag} "{value}"'),
        "CNAME": ("CNAMERecord", "{cname}"),
        "MX": ("MXRecords", "{preference} {exchange}"),
        "NAPTR": ("NAPTRRecords", '{order} {preference} "{flags}" "{services}" "{regexp}" {replacement}'),
        "NS": ("NSRecords", "{nsdname}"),
        "PTR": ("PTRRecords", "{ptrdname}"),
        "SOA": ("SOARecord", "{host} {email} {serialNumber} {refreshTime} {retryTime} {expireTime} {minimumTTL}"),
        "SRV": ("SRVRecords", "{priority} {weight} {port} {target}"),
    }

    @property
    def settings(self) -> Mapping[str, Any]:
        config = self.double.config
        found = {name: config[name] for name in ("subscription", "resource_group", "arm_endpoint")}
        return {**super().settings, **found, "arm_token": {"env": "MOVES_ARM_TOKEN"}}

    @property
    def environ(self) -> Mapping[str, str]:
        return {**super().environ, "MOVES_ARM_TOKEN": self.double.config["arm_token"].reveal()}

    def read(self) -> Observed:
        found: dict[tuple[str, str], tuple[int, frozenset[Any]]] = {}
        for (name, kind), stored in self.double.dns.zone(ZONE).sets.items():
            values = stored.properties["TXTRecords" if kind == "TXT" else self._FIELDS[kind][0]]
            owner = ORIGIN if name == "@" else f"{name}.{ORIGIN}"
            rdatas = [self._made(kind, value) for value in (values if isinstance(values, list) else [values])]
            found[owner, kind] = (stored.properties["TTL"], frozenset(rdatas))
        return found

    def _made(self, kind: str, value: Mapping[str, Any]) -> Any:
        number = dns.rdatatype.from_text(kind)
        if kind == "TXT":
            strings = tuple(part.encode() for part in value["value"])
            return dns.rdtypes.ANY.TXT.TXT(dns.rdataclass.IN, number, strings)
        escaped = {name: part.replace("\\", "\\\\") if isinstance(part, str) else part for name, part in value.items()}
        text = self._FIELDS[kind][1].format(**escaped)
        return dns.rdata.from_text(dns.rdataclass.IN, number, text, origin=dns.name.root, relativize=False)


class FileZones(Zones):
    name = side_name = "baremetal"

    @property
    def _root(self) -> Path:
        return Path(str(self.side.settings["root"])) / "dns"

    @cached_property
    def service(self) -> Dns:
        from shiftable_baremetal.dns import ZoneFilesDriver

        return Dns(ZoneFilesDriver(self._root, fsync=False))

    def read(self) -> Observed:
        text = (self._root / f"{ZONE}.zone").read_text(encoding="utf-8")
        zone = dns.zone.from_text(text, origin=ORIGIN, relativize=False)
        return {
            (owner.to_text().lower(), dns.rdatatype.to_text(held.rdtype)): (held.ttl, frozenset(held))
            for owner, held in zone.iterate_rdatasets()
        }

    def writes(self) -> int:
        path = self._root / f"{ZONE}.zone"
        return path.stat().st_mtime_ns if path.exists() else 0


class Backing(MemoryDnsDriver):
    """What the name server keeps: a hook before and after each change, and a count of them."""

    def __init__(self) -> None:
        super().__init__()
        self.hook: Callable[[str], None] = lambda _: None
        self.changes = 0
        Dns(self).create(ZoneSpec(name=ZONE))

    def change(self, zone: str, changes: tuple[RecordChange, ...]) -> None:
        self.hook("before")
        super().change(zone, changes)
        self.changes += 1
        self.hook("after")


class ServerZones(Zones):
    """Any name server that takes updates: ours, over the memory of this process."""

    name = "rfc2136"
    side_name = None

    @cached_property
    def backing(self) -> Backing:
        """What the server keeps."""
        return Backing()

    @cached_property
    def server(self) -> Any:
        """The server; whoever made this closes it."""
        from shiftable_baremetal.nameserver import Nameserver, TsigKey

        return Nameserver(self.backing, update=True, keys=(TsigKey(KEY, SECRET),), refresh=3600.0)

    @property
    def settings(self) -> Mapping[str, Any]:
        place = {"server": f"127.0.0.1:{self.server.port}", "zones": [ZONE]}
        key = {"key_name": KEY, "key_secret": {"env": "MOVES_TSIG"}}
        return {"type": "baremetal", "rfc2136": {**place, **key}}

    @property
    def environ(self) -> Mapping[str, str]:
        return {"MOVES_TSIG": SECRET}

    @cached_property
    def service(self) -> Dns:
        from shiftable.config import Credential
        from shiftable_baremetal import Rfc2136Settings
        from shiftable_baremetal.dns_rfc2136 import open_rfc2136

        settings = Rfc2136Settings(
            server=f"127.0.0.1:{self.server.port}",
            zones=(ZONE,),
            key_name=KEY,
            key_secret=Credential.literal(SECRET),
        )
        return Dns(open_rfc2136(settings))

    def read(self) -> Observed:
        return observed(list(Dns(self.backing).zone(ZONE).records()))

    @contextmanager
    def answering(self) -> Iterator[str]:
        yield f"127.0.0.1@{self.server.port}"

    def writes(self) -> int:
        return self.backing.changes


ZONES: Mapping[str, type[Zones]] = {
    zones.name: zones for zones in (AwsZones, GcpZones, AzureZones, FileZones, ServerZones)
}


def _parsed(kind: str, texts: Iterable[str]) -> frozenset[Any]:
    number = dns.rdatatype.from_text(kind)
    return frozenset(dns.rdata.from_text(dns.rdataclass.IN, number, text) for text in texts)


def _decimal(text: str) -> str:
    """Read Route 53's octal escapes; a backslash that is escaped stays."""
    pieces = re.split(r"(\\\\|\\[0-7]{3})", text)
    return "".join(f"\\{int(p[1:], 8):03d}" if re.fullmatch(r"\\[0-7]{3}", p) else p for p in pieces)

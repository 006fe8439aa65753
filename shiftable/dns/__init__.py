"""DNS: zones of record sets."""

from shiftable.dns._dns import Dns
from shiftable.dns._zone import Zone
from shiftable.dns.driver import (
    DnsFeatures,
    DnsServer,
    Policy,
    RecordChange,
    RecordKey,
    RecordSet,
    ZoneInfo,
    ZoneSpec,
)
from shiftable.tokens import Token

__all__ = [
    "Dns",
    "DnsFeatures",
    "DnsServer",
    "Policy",
    "RecordChange",
    "RecordKey",
    "RecordSet",
    "Token",
    "Zone",
    "ZoneInfo",
    "ZoneSpec",
]

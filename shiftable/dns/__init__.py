"""DNS: zones of record sets."""

from __future__ import annotations

from shiftable.dns._dns import Dns
from shiftable.dns._zone import Zone
from shiftable.dns.driver import (
    DnsFeatures,
    Policy,
    RecordChange,
    RecordKey,
    RecordSet,
    ZoneInfo,
    ZoneSpec,
)

__all__ = [
    "Dns",
    "DnsFeatures",
    "Policy",
    "RecordChange",
    "RecordKey",
    "RecordSet",
    "Zone",
    "ZoneInfo",
    "ZoneSpec",
]

"""What moves which service, and what each may give up. A mover is imported when its service is moved."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from shiftable.migrate.mover import Mover

__all__ = ["FACETS", "mover_of"]

FACETS: Mapping[str, Mapping[str, str]] = {
    "blob": {
        "cors": "rules which pages' scripts may use a bucket, where the target cannot keep them",
        "guards": "writes that cannot overwrite somebody else's",
        "headers": "the headers that the target cannot keep",
        "lock": "retention and legal holds that the target cannot keep",
        "metadata": "the metadata that the target cannot keep",
        "tags": "all tags",
        "versioning": "older versions of what is written from now on",
    },
    "compute": {
        "firewall": "a firewall around machines, where the target has none",
        "identity": "who machines are to the source's provider",
        "labels": "labels of machines that the target cannot keep",
        "network": "the network of machines: the target's default",
        "placement": "where machines are to each other, where the target does not choose that",
        "public_ip": "addresses of machines that are reachable from the internet, where the target has none",
        "spot": "cheaper machines that may be taken away, where the target has none",
        "user_data": "what machines do when they start first, where the target hands it to none",
    },
    "database": {
        "event_triggers": "event triggers of a database, which only a superuser of the target makes",
        "history": "earlier rows of system-versioned tables of MariaDB",
        "large_objects": "large objects of a database, where they may not be read",
        "roles": "owners, grants, definers and policies of roles or accounts that the target's server does not have",
        "version": "a database whose target is older, or MariaDB for MySQL: what it does not know is an error",
    },
    "dns": {
        "alias": "record sets of DNS that are an alias of the provider's own resource: the addresses that it has now",
        "policy": "routing of a DNS provider's own: a plain set with all values, which everybody gets",
        "ttl": "a time to live of DNS that the target cannot keep: the nearest that it can",
    },
    "secrets": {
        "expires": "the date after which a value should not be used",
        "fold": "labels of their own: those that the target cannot keep stand in one, as JSON",
        "guards": "writes that cannot overwrite somebody else's",
        "history": "versions that the target cannot keep, but the current and the pending one",
        "labels": "labels that the target cannot keep",
        "origin": "labels that tell the ids and dates of versions at the source",
    },
}
"""By service: what ``degrade`` may name, and what it gives up."""

_HOMES = {
    "blob": ("_blobs", "BlobMover"),
    "compute": ("_compute", "FleetsMover"),
    "database": ("_database", "DatabaseMover"),
    "dns": ("_dns", "ZonesMover"),
    "secrets": ("_secrets", "SecretsMover"),
}


def mover_of(service: str) -> type[Mover[Any]]:
    """Return what moves a service that has facets."""
    module, name = _HOMES[service]
    found: type[Mover[Any]] = getattr(importlib.import_module(f"shiftable.migrate.{module}"), name)
    return found

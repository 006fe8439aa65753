"""When a server is as declared, and what no provider can change in place."""

from __future__ import annotations

from collections.abc import Iterator

import attrs

from shiftable.database.driver import DatabaseSpec

__all__ = ["impossible_updates", "merged"]


def merged(current: DatabaseSpec, wanted: DatabaseSpec) -> DatabaseSpec:
    """Return what the server should become: as declared, with what the declaration leaves open as it is.

    Left open are updates below the declared version, storage that has grown, and all databases, parameters and labels
    that are not named.
    """
    same_version = current.version == wanted.version or current.version.startswith(f"{wanted.version}.")
    grown = wanted.storage_autogrow and current.storage_gib > wanted.storage_gib
    same_networks = set(current.allow_from) == set(wanted.allow_from)
    return attrs.evolve(
        wanted,
        version=current.version if same_version else wanted.version,
        storage_gib=current.storage_gib if grown else wanted.storage_gib,
        allow_from=current.allow_from if same_networks else wanted.allow_from,
        databases=tuple(dict.fromkeys((*current.databases, *wanted.databases))),
        parameters={**current.parameters, **wanted.parameters},
        labels={**current.labels, **wanted.labels},
    )


def impossible_updates(current: DatabaseSpec, wanted: DatabaseSpec) -> Iterator[str]:
    """Say what cannot be changed while the data stays where it is."""
    if current.engine != wanted.engine:
        yield f"{current.engine} does not become {wanted.engine}"
    elif _numbers(wanted.version) < _numbers(current.version)[: len(_numbers(wanted.version))]:
        yield f"version {current.version} does not go back to {wanted.version}"
    if wanted.storage_gib < current.storage_gib:
        yield f"storage does not shrink from {current.storage_gib:,} to {wanted.storage_gib:,} GiB"


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in version.split("."))

"""What ``compute create`` says where not all of a fleet could be made."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import click

from shiftable.cli._compute_target import Target
from shiftable.cli._context import shown
from shiftable.compute import Compute, FleetSpec
from shiftable.errors import AlreadyExists, Resource, ShiftableError

__all__ = ["telling_what_there_is"]

_FEW = 3


@contextlib.contextmanager
def telling_what_there_is(place: Target, service: Compute, spec: FleetSpec) -> Iterator[None]:
    """Say with what fails which machines there are, which cost, which there are not, and what the next command is."""
    try:
        yield
    except ShiftableError as exc:
        if isinstance(exc, AlreadyExists) and exc.resource == Resource("fleet", spec.name):
            if place.parts:
                exc.message = f"it has machines; `shiftable compute delete {place.text}` deletes them"
            raise
        with contextlib.suppress(ShiftableError):  # what failed is told all the same
            if said := _what_there_is(place, service, spec):
                click.echo(shown(f"{spec.name}: {said}"), err=True)
        raise


def _what_there_is(place: Target, service: Compute, spec: FleetSpec) -> str:
    found = service.fleet(spec.name).info()
    if not found:
        return ""
    names, failed = [info.name for info in found], [info.name for info in found if info.state == "failed"]
    there = [name for name in names if name not in failed]
    missing = [name for number in range(spec.count) if (name := f"{spec.name}-{number}") not in names]
    groups = ((there, f"{_are(there)} there"), (failed, "failed"), (missing, f"{_are(missing)} not there"))
    told = ", ".join(f"{_some(group)} {what}" for group, what in groups if group)
    return f"{told}; {_next(place, failed, missing)}"


def _next(place: Target, failed: Sequence[str], missing: Sequence[str]) -> str:
    if not failed and not missing:
        return f"`shiftable compute show {place.text}` tells how they are"
    if place.parts:
        return f"`shiftable compute delete {place.text}` deletes all, to begin anew"
    if failed:
        return f"`shiftable compute replace {place.text}` makes what failed anew, and what is missing"
    return "`shiftable apply` makes what is missing"


def _some(names: Sequence[str]) -> str:
    more = len(names) - _FEW
    return ", ".join(names) if more < 2 else f"{', '.join(names[:_FEW])} and {more:,} more"


def _are(names: Sequence[str]) -> str:
    return "is" if len(names) == 1 else "are"

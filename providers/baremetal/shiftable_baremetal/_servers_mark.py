"""What is noted on a database server of each resource there: its user, its databases and its declaration.

PostgreSQL holds the note as the comment of the user (``COMMENT ON ROLE``), MariaDB in a table, ``shiftable.resources``.
No password is in it.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Literal

import attrs

from shiftable.database.driver import DatabaseSpec

__all__ = ["BEGINNING", "Found", "Mark", "MarkState"]

MarkState = Literal["available", "creating", "deleting", "restoring"]

BEGINNING = '{"shiftable": '


@attrs.frozen(kw_only=True)
class Mark:
    """The note of one resource.

    Args:
        name: of the resource.
        role: what the server calls its user.
        databases: what the server calls its databases, by the declared name.
        taking: the snapshot that a delete takes, or has taken.
        dropping: a delete saves nothing any more, and drops.
    """

    name: str
    role: str
    databases: Mapping[str, str]
    spec: DatabaseSpec
    created: datetime
    state: MarkState
    taking: str | None = None
    dropping: bool = False

    def text(self) -> str:
        """Return the note as it stands on the server: its name first, so that it can be looked for."""
        told = attrs.asdict(self.spec, filter=attrs.filters.exclude("password", "login", "native"))
        note = {"shiftable": self.name, "role": self.role, "databases": dict(self.databases), "state": self.state}
        going = {"taking": self.taking, "dropping": self.dropping}
        return json.dumps({**note, **going, "created": self.created.isoformat(), "spec": told}, ensure_ascii=False)

    @classmethod
    def read(cls, text: str) -> Mark | None:
        """Read a note; ``None`` if it is none of ours."""
        try:
            known = json.loads(text)
            told = known["spec"]
            listed = {field: tuple(told[field]) for field in ("allow_from", "databases")}
            return cls(
                name=known["shiftable"],
                role=known["role"],
                databases=known["databases"],
                spec=DatabaseSpec(**{**told, **listed}),
                created=datetime.fromisoformat(known["created"]),
                state=known["state"],
                taking=known["taking"],
                dropping=known["dropping"],
            )
        except (KeyError, TypeError, ValueError):
            return None


@attrs.frozen(kw_only=True)
class Found:
    """A resource on the server: its note, and what there is of it.

    Args:
        present: its databases that are there, and complete, as the server calls them.
        parameters: those that all of its databases have, as the server writes them.
        busy: somebody is changing it.
    """

    mark: Mark
    present: Collection[str]
    parameters: Mapping[str, str]
    busy: bool

    @property
    def spec(self) -> DatabaseSpec:
        """The declaration as it is carried out; of what is not complete no database counts."""
        mark = self.mark
        complete = mark.state not in {"creating", "restoring"}
        there = (declared for declared, name in mark.databases.items() if name in self.present)
        declared = {
            name: mark.spec.parameters[name] if _same(mark.spec.parameters.get(name, ""), value) else value
            for name, value in self.parameters.items()
        }
        return attrs.evolve(mark.spec, databases=tuple(there) if complete else (), parameters=declared)


def _same(one: str, other: str) -> bool:
    """Tell whether two texts are one value: servers write lists with spaces and quotes of their own."""

    def plain(text: str) -> str:
        return "".join(text.split()).replace('"', "").replace("'", "")

    return plain(one) == plain(other)

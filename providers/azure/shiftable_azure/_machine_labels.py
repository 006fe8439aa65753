"""Labels of machines as tags of Azure, which replaces all tags of a resource or none."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import attrs

from shiftable_azure._arm import ArmRefusal, ArmSession
from shiftable_azure._machine_resources import PATIENCE, Resources, code_of, provisioning

__all__ = ["Labels", "changed", "impossible_labels"]

_NAME, _VALUE = 512, 256  # characters; Azure Resource Manager, "Use tags to organize your Azure resources", limitations
_FORBIDDEN = re.compile(r"[<>%&\\?/]")  # in names; the same
_WRITES = 40  # that others may do between two calls of ours
_CHANGED = 412
_BUSY = frozenset({"ConcurrentUpdateError", "Conflict"})


def impossible_labels(labels: Mapping[str, str]) -> Iterator[str]:
    """Say what are no tags of Azure's, whose names differ in more than upper and lower case."""
    for name, value in labels.items():
        if len(name) > _NAME or len(value) > _VALUE:
            yield f"label as long as {name!r}: {_NAME} characters of a name and {_VALUE} of a value"
        if _FORBIDDEN.search(name):
            yield f"label {name!r}: no name has <, >, %, &, \\, ? or /"
    for name in sorted({name.lower() for name in labels}):
        alike = sorted(each for each in labels if each.lower() == name)
        if len(alike) > 1:
            yield f"labels {' and '.join(map(repr, alike))}: names in upper and lower case are the same"


def changed(tags: Mapping[str, str], labels: Mapping[str, str], remove: frozenset[str]) -> dict[str, str]:
    """Return tags with some given and some taken away, however their names are written."""
    gone = {name.lower() for name in (*labels, *remove)}
    return {**{name: value for name, value in tags.items() if name.lower() not in gone}, **labels}


@attrs.frozen
class Labels:
    """Changes tags."""

    _session: ArmSession
    _resources: Resources

    def change(self, path: str, version: str, labels: Mapping[str, str], remove: frozenset[str], what: str) -> None:
        """Change tags in the version that was read, where a kind of resource has versions; again, if that is old.

        What is being done to the resource is waited for.
        """
        deadline = self._session.clock() + PATIENCE
        for left in reversed(range(_WRITES)):
            found = self._session.call("GET", path, version).body
            now = found.get("tags") or {}
            wanted = changed(now, labels, remove)
            if wanted == now:
                return
            known = {"If-Match": str(found["etag"])} if found.get("etag") else {}
            try:
                answer = self._session.call("PATCH", path, version, body={"tags": wanted}, headers=known, repeat=True)
                self._session.finish(answer, version, what=what, timeout=PATIENCE)
            except ArmRefusal as exc:
                late = not left or self._session.clock() >= deadline
                if late or not (exc.status_code == _CHANGED or code_of(exc) in _BUSY):
                    raise
                if provisioning(self._resources.settled(path, version, what)) == "deleting":
                    raise
            else:
                return

"""What the file of one secret says, and how it is known that nobody else said it."""

from __future__ import annotations

import base64
import secrets
from datetime import UTC, datetime
from typing import Any

import attrs

from shiftable.errors import IntegrityError
from shiftable.masking import Masked
from shiftable.secrets.driver import STAGES, Stage
from shiftable.sops import SECRET_RULE, Document, sealed

__all__ = ["MAX_VERSIONS", "RULE", "Entry", "Version", "entry_of", "number", "tree_of"]

MAX_VERSIONS = 100
RULE = SECRET_RULE


@attrs.frozen
class Version:
    """One value."""

    value: Masked
    created: datetime
    enabled: bool = True
    idempotency_key: str | None = None


@attrs.define
class Entry:
    """What one file says: a secret, its versions, newest first, and which of them has which stage.

    Args:
        revision: the token; random, so that a secret that is deleted and made again has another one.
    """

    name: str
    revision: str = ""
    labels: dict[str, str] = attrs.Factory(dict)
    expires: datetime | None = None
    stages: dict[Stage, str] = attrs.Factory(dict)
    versions: dict[str, Version] = attrs.Factory(dict)
    deleted: datetime | None = None
    until: datetime | None = None

    def stages_of(self, version: str) -> frozenset[Stage]:
        return frozenset(stage for stage, id_ in self.stages.items() if id_ == version)

    def make_current(self, version: str) -> None:
        """Move the stages as a promotion does."""
        if "current" in self.stages:
            self.stages["previous"] = self.stages["current"]
        self.stages["current"] = version
        if self.stages.get("pending") == version:
            del self.stages["pending"]

    def touch(self) -> None:
        """Give it another token."""
        self.revision = secrets.token_hex(8)

    def add(self, version: Version) -> str:
        """Store a new version and forget the oldest ones above the limit that have no stage.

        Ids begin with a number for people and end at random, so that no id ever comes again with another value.
        """
        id_ = f"{max(map(number, self.versions), default=0) + 1}-{secrets.token_hex(4)}"
        self.versions = {id_: version, **self.versions}
        staged = {id_, *self.stages.values()}
        free = [old for old in self.versions if old not in staged]
        for old in free[max(0, MAX_VERSIONS - len(staged)) :]:
            del self.versions[old]
        return id_


def tree_of(entry: Entry) -> dict[str, Any]:
    """Return an entry as the document of its file, with the seal over all that SOPS's own MAC leaves open."""
    tree: dict[str, Any] = {
        "name": entry.name,
        "revision": entry.revision,
        "labels": dict(entry.labels),
        "expires": _said(entry.expires),
        **{stage: entry.stages.get(stage) for stage in STAGES},
        **({"deleted": _said(entry.deleted), "until": _said(entry.until)} if entry.until else {}),
        "versions": {id_: _said_version(version) for id_, version in entry.versions.items()},
    }
    return sealed(tree)


def _said_version(version: Version) -> dict[str, Any]:
    text = version.value.is_text
    raw = version.value.reveal() if text else base64.b64encode(version.value.reveal_bytes()).decode()
    return {
        "created": _said(version.created),
        "kind": "text" if text else "binary",
        "enabled": version.enabled,
        **({"idempotency_key": version.idempotency_key} if version.idempotency_key is not None else {}),
        "value": raw,
    }


def entry_of(document: Document) -> Entry:
    """Read an entry. Whoever holds the key may have written anything: what this driver would not write is refused."""
    try:
        entry = _parsed(document.data) if document.rule == RULE else None
        if entry is not None and tree_of(entry) == document.data:
            return entry
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError):
        pass
    raise IntegrityError("what stands in clear was changed, or the file was not written by shiftable")


def _parsed(tree: dict[str, Any]) -> Entry:
    stages = {stage: tree[stage] for stage in STAGES if tree[stage] is not None}
    versions = {id_: _parsed_version(version) for id_, version in tree["versions"].items()}
    ordered = sorted(versions, key=number, reverse=True) == list(versions)
    if not ordered or not set(stages.values()) <= set(versions) or "current" not in stages:
        raise ValueError("no history")
    deleted, until = _time(tree.get("deleted")), _time(tree.get("until"))
    return Entry(
        tree["name"], tree["revision"], dict(tree["labels"]), _time(tree["expires"]), stages, versions, deleted, until
    )


def _parsed_version(tree: dict[str, Any]) -> Version:
    raw = tree["value"]
    value = Masked(raw if tree["kind"] == "text" else base64.b64decode(raw, validate=True))
    created = _time(tree["created"])
    if created is None or not isinstance(raw, str):
        raise ValueError("no version")
    return Version(value, created, tree["enabled"], tree.get("idempotency_key"))


def _said(time: datetime | None) -> str | None:
    return None if time is None else time.astimezone(UTC).isoformat()


def _time(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text).astimezone(UTC)


def number(id_: str) -> int:
    """Return what a version's id begins with; newer ones have greater numbers."""
    return int(id_.partition("-")[0])

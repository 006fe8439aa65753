"""Secrets in the memory of this process: the reference model of the driver contract."""

from __future__ import annotations

import bisect
import itertools
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Literal, NoReturn

import attrs

from shiftable.errors import Conflict, Fault, NotFound, OperationError, PreconditionFailed
from shiftable.features import Limit
from shiftable.masking import Masked
from shiftable.memory._faults import MemoryFault, classify
from shiftable.paging import Page
from shiftable.secrets.driver import (
    Secret,
    SecretInfo,
    SecretsDriver,
    SecretsFeatures,
    SecretVersion,
    Stage,
)
from shiftable.tokens import Token

__all__ = ["FEATURES", "MemorySecretsDriver"]

FEATURES = SecretsFeatures(
    title="this process",
    binary=True,
    labels=True,
    expiry=True,
    if_absent=True,
    if_match=True,
    atomic_if_match=True,
    pending=True,
    history=True,
    disable=True,
    recovery=True,
    update=True,
    destroy=True,
    max_name=Limit(512, "chosen, as AWS Secrets Manager"),
    max_value=Limit(65_536, "chosen, as AWS Secrets Manager"),
    max_labels=Limit(50, "chosen, as AWS Secrets Manager"),
)


@attrs.define
class _Version:
    """One value. ``id`` is unique in the driver, so that it also orders."""

    id: int
    value: Masked
    created: datetime
    idempotency_key: str | None
    enabled: bool = True


@attrs.define
class _Entry:
    """One secret: its versions, oldest first, and which of them has which stage."""

    revision: int = 0
    modified: datetime | None = None
    versions: dict[str, _Version] = attrs.Factory(dict)
    stages: dict[Stage, str] = attrs.Factory(dict)
    labels: dict[str, str] = attrs.Factory(dict)
    expires: datetime | None = None
    deleted: datetime | None = None
    purge: datetime | None = None

    def stages_of(self, version: str) -> frozenset[Stage]:
        return frozenset(stage for stage, id_ in self.stages.items() if id_ == version)

    def make_current(self, version: str) -> None:
        """Move the stages as a promotion does."""
        if "current" in self.stages:
            self.stages["previous"] = self.stages["current"]
        self.stages["current"] = version
        if self.stages.get("pending") == version:
            del self.stages["pending"]


@attrs.define
class MemorySecretsDriver(SecretsDriver):
    """Secrets in memory. No credentials, no permissions, nothing survives the process.

    Args:
        clock: tells the time, for dates and recovery.
        page_size: items of one page.
    """

    _clock: Callable[[], datetime] = attrs.field(default=lambda: datetime.now(UTC), repr=False)
    _page_size: int = 100
    _entries: dict[str, _Entry] = attrs.field(factory=dict, init=False, repr=False)
    _numbers: Iterator[int] = attrs.field(factory=lambda: itertools.count(1), init=False, repr=False)
    _lock: threading.RLock = attrs.field(factory=threading.RLock, init=False, repr=False, eq=False)

    @property
    def provider(self) -> str:
        """The provider's name in errors."""
        return "memory"

    @property
    def features(self) -> SecretsFeatures:
        """What this driver can do: everything."""
        return FEATURES

    def classify(self, exc: Exception) -> Fault | None:
        """Say what a native exception means."""
        return classify(exc)

    # prefixes

    # secrets

    def get(self, name: str, *, stage: Stage | None, version: str | None) -> Secret:
        """Return one version."""
        with self._lock:
            entry = self._living(name)
            if stage is not None and stage not in entry.stages:
                _fail(NotFound, f"it has no {stage} version")
            found = _version_of(entry, entry.stages[stage] if stage is not None else version)
            if not found.enabled:
                _fail(Conflict, f"its version {found.id} is disabled")
            return _secret(name, entry, found)

    def put(
        self,
        name: str,
        value: Masked,
        *,
        stage: Literal["current", "pending"],
        if_absent: bool,
        if_match: Token | None,
        labels: Mapping[str, str] | None,
        expires: datetime | None,
        idempotency_key: str | None,
    ) -> Secret:
        """Store a new version."""
        with self._lock:
            entry = self._found(name)
            if entry is not None and entry.deleted is not None:
                _fail(Conflict, "it is deleted and can be recovered; restore it, or purge it")
            if entry is not None and idempotency_key is not None:
                for before in entry.versions.values():
                    if before.idempotency_key == idempotency_key:
                        if before.value.reveal_bytes() != value.reveal_bytes():
                            _fail(Conflict, "the idempotency key was used with another value")
                        if not before.enabled:
                            _fail(Conflict, f"the idempotency key was used for version {before.id}, which is disabled")
                        return _secret(name, entry, before)
            _check_conditions(entry, if_absent=if_absent, if_match=if_match)
            if entry is None and stage == "pending":
                _fail(NotFound, "there is no such secret; store a current version first")
            entry = self._entries.setdefault(name, _Entry())
            new = _Version(next(self._numbers), value, self._clock(), idempotency_key)
            entry.versions[str(new.id)] = new
            if stage == "current":
                entry.make_current(str(new.id))
            else:
                entry.stages["pending"] = str(new.id)
            entry.labels = entry.labels if labels is None else dict(labels)
            entry.expires = entry.expires if expires is None else expires
            self._touch(entry)
            return _secret(name, entry, new)

    def list(self, *, prefix: str, deleted: bool, cursor: str | None, limit: int | None) -> Page[SecretInfo]:
        """Return one page of secrets, in the order of their names."""
        with self._lock:
            page = self._page(self._names(prefix, deleted=deleted), cursor, limit)
            return Page(tuple(_info(name, self._entries[name]) for name in page.items), page.next)

    def history(self, name: str, *, cursor: str | None, limit: int | None) -> Page[SecretVersion]:
        """Return one page of versions, newest first."""
        with self._lock:
            entry = self._living(name)
            left = [id_ for id_ in reversed(entry.versions) if cursor is None or int(id_) < int(cursor)]
            shown = left[: self._size(limit)]
            items = tuple(
                SecretVersion(
                    name=name,
                    version=id_,
                    stages=entry.stages_of(id_),
                    created=entry.versions[id_].created,
                    enabled=entry.versions[id_].enabled,
                )
                for id_ in shown
            )
            return Page(items, shown[-1] if len(left) > len(shown) else None)

    def promote(self, name: str, version: str, *, if_match: Token | None) -> None:
        """Move the stages at once."""
        with self._lock:
            entry = self._living(name)
            found = _version_of(entry, version)
            if entry.stages.get("current") == version:
                return
            _check_conditions(entry, if_absent=False, if_match=if_match)
            if not found.enabled:
                _fail(Conflict, f"its version {version} is disabled")
            entry.make_current(version)
            self._touch(entry)

    def delete(self, name: str, *, recovery: timedelta | None) -> None:
        """Delete a secret, for good or with a recovery."""
        with self._lock:
            if recovery is None and self._found(name) is not None:
                del self._entries[name]
                return
            entry = self._living(name)
            if recovery is not None:
                entry.deleted = self._clock()
                entry.purge = entry.deleted + recovery

    def disable(self, name: str, version: str) -> None:
        """Make one version unreadable."""
        with self._lock:
            _version_of(self._living(name), version).enabled = False

    def destroy_version(self, name: str, version: str) -> None:
        """Forget one version and its stage."""
        with self._lock:
            entry = self._living(name)
            _version_of(entry, version)
            if entry.stages["current"] == version:
                _fail(Conflict, f"its version {version} is current; promote another one first")
            del entry.versions[version]
            entry.stages = {stage: id_ for stage, id_ in entry.stages.items() if id_ != version}
            self._touch(entry)

    def relabel(
        self,
        name: str,
        *,
        labels: Mapping[str, str] | None,
        expires: datetime | Literal["never"] | None,
        if_match: Token | None,
    ) -> None:
        """Change labels and expiry."""
        with self._lock:
            entry = self._living(name)
            _check_conditions(entry, if_absent=False, if_match=if_match)
            entry.labels = entry.labels if labels is None else dict(labels)
            if expires is not None:
                entry.expires = None if expires == "never" else expires
            self._touch(entry)

    def restore(self, name: str) -> None:
        """Bring back a deleted secret."""
        with self._lock:
            entry = self._found(name)
            if entry is None:
                _fail(NotFound, "there is no such secret, or its recovery is over")
            entry.deleted = entry.purge = None

    # what they share; all under the lock

    def _found(self, name: str) -> _Entry | None:
        """Return the secret, also a deleted one, unless its recovery is over: then it ends here."""
        entry = self._entries.get(name)
        if entry is not None and entry.purge is not None and entry.purge <= self._clock():
            del self._entries[name]
            return None
        return entry

    def _living(self, name: str) -> _Entry:
        entry = self._found(name)
        if entry is None or entry.deleted is not None:
            _fail(NotFound, "there is no such secret")
        return entry

    def _names(self, prefix: str, *, deleted: bool) -> tuple[str, ...]:
        here = sorted(name for name in self._entries if name.startswith(prefix))
        found = ((name, self._found(name)) for name in here)
        return tuple(name for name, entry in found if entry is not None and (entry.deleted is not None) is deleted)

    def _page(self, names: Sequence[str], cursor: str | None, limit: int | None) -> Page[str]:
        """Cut one page of sorted names; the cursor is the last name of the page before."""
        left = names if cursor is None else names[bisect.bisect_right(names, cursor) :]
        shown = tuple(left[: self._size(limit)])
        return Page(shown, shown[-1] if len(left) > len(shown) else None)

    def _size(self, limit: int | None) -> int:
        return self._page_size if limit is None else min(limit, self._page_size)

    def _touch(self, entry: _Entry) -> None:
        entry.revision = next(self._numbers)
        entry.modified = self._clock()


def _fail(error: type[OperationError], message: str) -> NoReturn:
    raise MemoryFault(Fault(error, message))


def _check_conditions(entry: _Entry | None, *, if_absent: bool, if_match: Token | None) -> None:
    if if_absent and entry is not None:
        _fail(PreconditionFailed, "the secret exists")
    if if_match is not None and (entry is None or str(entry.revision) != if_match.value):
        _fail(PreconditionFailed, "the secret was changed, or does not exist")


def _version_of(entry: _Entry, version: str | None) -> _Version:
    found = entry.versions.get(version or "")
    if found is None:
        _fail(NotFound, f"it has no version {version!r}")
    return found


def _secret(name: str, entry: _Entry, version: _Version) -> Secret:
    return Secret(
        name=name,
        value=version.value,
        version=str(version.id),
        stages=entry.stages_of(str(version.id)),
        token=Token(str(entry.revision)),
        created=version.created,
        labels=dict(entry.labels),
        expires=entry.expires,
    )


def _info(name: str, entry: _Entry) -> SecretInfo:
    return SecretInfo(
        name=name,
        version=entry.stages.get("current"),
        modified=entry.modified,
        labels=dict(entry.labels),
        expires=entry.expires,
        deleted=entry.deleted,
    )

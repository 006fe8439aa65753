"""The portable handle of the secrets below one prefix."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import ClassVar, Literal

import attrs

from shiftable.errors import NotFound, Resource
from shiftable.masking import Masked
from shiftable.paging import Page, paged
from shiftable.secrets._cache import SecretCache
from shiftable.secrets._names import joined, malformed
from shiftable.secrets._sealing import sealed
from shiftable.secrets._watch import SecretWatch
from shiftable.secrets.driver import (
    STAGES,
    Secret,
    SecretInfo,
    SecretsDriver,
    SecretsFeatures,
    SecretVersion,
    Stage,
)
from shiftable.service import Handle
from shiftable.tokens import Token

__all__ = ["SecretStore"]

_IDEMPOTENCY_KEY = re.compile(r"[!-~]{1,128}")


class SecretStore(Handle[SecretsDriver]):
    """The secrets below one prefix. Keys, here and in results, are relative to it; values never show themselves.

    A secret has versions. One of them is *current*; the one before it is *previous*; one may be *pending*, stored but
    not yet in use.

    >>> import shiftable.memory
    >>> from shiftable.secrets import Secrets
    >>> secrets = Secrets(shiftable.memory.MemoryProvider(shiftable.memory.MemorySettings()).secrets())
    >>> shop = secrets.store("shop")
    >>> first = shop.put("stripe/key", "sk_live_1")
    >>> shop.get("stripe/key").value
    Masked(***)
    >>> shop.get("stripe/key").reveal()
    'sk_live_1'
    >>> [info.name for info in shop.list()]
    ['stripe/key']

    A rotation stores the new value beside the old one, tries it, and then makes it current:

    >>> fresh = shop.put("stripe/key", "sk_live_2", stage="pending")
    >>> shop.get("stripe/key").reveal(), shop.get("stripe/key", stage="pending").reveal()
    ('sk_live_1', 'sk_live_2')
    >>> shop.promote("stripe/key", fresh.version)
    >>> shop.get("stripe/key").reveal(), shop.get("stripe/key", stage="previous").reveal()
    ('sk_live_2', 'sk_live_1')
    """

    service: ClassVar[str] = "secrets"
    resource_type: ClassVar[str] = "prefix"

    def __init__(self, driver: SecretsDriver, name: str, *, observe: Callable[[Secret], object] | None = None) -> None:
        super().__init__(driver, name)
        self._observe = observe

    @property
    def features(self) -> SecretsFeatures:
        """What the provider can do."""
        return self._driver.features

    # checks: they send nothing

    def check_key(self, key: str) -> str | None:
        """Say why the provider could not hold a secret of that key; ``None`` if it can."""
        return malformed("key", key) or self._driver.check_secret(joined(self.name, key))

    def check_labels(self, labels: Mapping[str, str]) -> str | None:
        """Say why the provider could not keep those labels exactly; ``None`` if it can."""
        if labels and not self.features.labels:
            return "this provider has no labels"
        return "a label's name is empty" if "" in labels else self._driver.check_labels(labels)

    # reading

    def get(self, key: str, *, stage: Stage = "current", version: str | None = None) -> Secret:
        """Return one version of a secret, with its value.

        Args:
            stage: current, previous or pending; it does not count when ``version`` is given.
            version: the id of one version.

        Raises:
            NotFound: there is no such secret, or no such version or stage of it.
            Conflict: the version is disabled.
            Unsupported: the provider has no such stage.
        """
        resource = self._checked("get", key)
        if version is None:
            self._check_stage("get", resource, stage, STAGES)
        with self._translated("get", resource):
            found = self._driver.get(self._full(key), stage=stage if version is None else None, version=version)
        return self._observed(attrs.evolve(found, name=key))

    def exists(self, key: str) -> bool:
        """Tell whether there is such a secret. A refused permission is an error, not a no."""
        resource = self._checked("exists", key)
        name = self._full(key)
        try:
            with self._translated("exists", resource):
                if self.features.history:
                    self._driver.history(name, cursor=None, limit=1)
                else:
                    self._driver.get(name, stage="current", version=None)
        except NotFound:
            return False
        return True

    def list(self, prefix: str = "", *, deleted: bool = False, limit: int | None = None) -> Iterator[SecretInfo]:
        """Iterate over the secrets whose keys begin with ``prefix``, in no particular order.

        Args:
            deleted: those that can still be restored instead of the living ones.

        Raises:
            Unsupported: ``deleted``, and the provider has no recovery.
        """
        self._require(self.features.recovery or not deleted, "list", self.resource, "recovery of deleted secrets")
        base = joined(self.name, "")

        def fetch(cursor: str | None, left: int | None) -> Page[SecretInfo]:
            with self._translated("list", self.resource):
                return self._driver.list(prefix=base + prefix, deleted=deleted, cursor=cursor, limit=left)

        return (attrs.evolve(info, name=info.name[len(base) :]) for info in paged(fetch, limit=limit))

    def history(self, key: str) -> Iterator[SecretVersion]:
        """Iterate over the versions of a secret, newest first, without their values.

        Raises:
            NotFound: there is no such secret.
            Unsupported: the provider keeps no older versions.
        """
        resource = self._checked("history", key)
        self._require(self.features.history, "history", resource, "older versions of secrets")

        def fetch(cursor: str | None, left: int | None) -> Page[SecretVersion]:
            with self._translated("history", resource):
                return self._driver.history(self._full(key), cursor=cursor, limit=left)

        return (attrs.evolve(version, name=key) for version in paged(fetch))

    def environment(self, variables: Mapping[str, str]) -> dict[str, Masked]:
        """Return the current values for a process's environment.

        Args:
            variables: environment variable = key.

        Raises:
            NotFound: names all keys that are missing, not only the first.
        """
        for key in variables.values():
            self._checked("environment", key)
        values = {key: self._current(key) for key in dict.fromkeys(variables.values())}
        missing = ", ".join(f"{key} (for {name})" for name, key in variables.items() if values[key] is None)
        if missing:
            raise NotFound(
                f"these secrets do not exist: {missing}",
                provider=self.provider,
                operation="secrets.environment",
                resource=self.resource,
            )
        return {name: value for name, key in variables.items() if (value := values[key]) is not None}

    # seeing new values

    def cached(self, *, ttl: timedelta = timedelta(minutes=5), stale: timedelta = timedelta(hours=1)) -> SecretCache:
        """Return these secrets with a memory. Calls nobody.

        Args:
            ttl: how long a value is kept before it is read again; a tenth of it is left to chance.
            stale: how much longer it is good while the provider cannot be reached.
        """
        return SecretCache(self, ttl=ttl, stale=stale)

    def watch(
        self,
        key: str,
        *more: str,
        every: timedelta = timedelta(seconds=30),
        stage: Stage = "current",
        since: Iterable[Secret] = (),
    ) -> SecretWatch:
        """Return an iterator over the values that secrets have and will have. Calls nobody yet.

        Args:
            every: how often they are read.
            since: what the caller has already, which is no news.

        Raises:
            InvalidArgument: the provider could not hold a secret of that key.
            Unsupported: the provider has no such stage.
        """
        for each in (key, *more):
            self._check_stage("watch", self._checked("watch", each), stage, STAGES)
        return SecretWatch(self, (key, *more), every=every, stage=stage, since=since)

    def observed(self, observe: Callable[[Secret], object]) -> SecretStore:
        """Return the same store, which hands each version that it reads or writes to somebody else first.

        >>> import shiftable.memory
        >>> from shiftable.secrets import Redactor, Secrets
        >>> secrets = Secrets(shiftable.memory.MemoryProvider(shiftable.memory.MemorySettings()).secrets())
        >>> redactor = Redactor()
        >>> shop = secrets.store("shop").observed(redactor.add)
        >>> _ = shop.put("stripe/key", "sk_live_123456")
        >>> redactor.mask("charged with sk_live_123456")
        'charged with ***'
        """
        return SecretStore(self._driver, self.name, observe=observe)

    # writing

    def put(
        self,
        key: str,
        value: str | bytes | Masked,
        *,
        stage: Literal["current", "pending"] = "current",
        if_absent: bool = False,
        if_match: Token | None = None,
        labels: Mapping[str, str] | None = None,
        expires: datetime | None = None,
        idempotency_key: str | None = None,
    ) -> Secret:
        """Store a new version; a current one also makes the secret if it does not exist.

        Args:
            value: bytes that are not UTF-8 text need ``features.binary``.
            stage: ``current`` makes the version before it previous; ``pending`` leaves the current one in use, and
                the secret must exist.
            if_absent: only if there is no secret of that key.
            if_match: only over the secret with this token.
            labels: replace all labels of the secret; ``None`` leaves them.
            expires: aware; when the value should no longer be used; ``None`` leaves it.
            idempotency_key: 1 to 128 printable ASCII characters without a space; the same key with the same value,
                again, makes no second version.

        Raises:
            NotFound: a pending version of a secret that does not exist.
            PreconditionFailed: ``if_absent`` or ``if_match`` did not hold.
            Conflict: the key belongs to a deleted secret (restore it, or delete it for good), or the idempotency key
                was used with another value.
            InvalidArgument: the provider cannot hold the key, the value or the labels. Nothing was sent.
            Unsupported: the provider lacks what an option asks for. Nothing was sent.
        """
        value = value if isinstance(value, Masked) else Masked(value)  # from here on no variable shows it
        resource = self._checked("put", key)
        self._check_put(resource, stage, labels, expires, if_absent=if_absent, if_match=if_match)
        if idempotency_key is not None and not _IDEMPOTENCY_KEY.fullmatch(idempotency_key):
            raise self._invalid("put", resource, "an idempotency key has 1 to 128 printable ASCII characters, no space")
        value, name = self._storable(resource, value), self._full(key)
        try:
            with self._translated("put", resource):
                stored = self._driver.put(
                    name,
                    value,
                    stage=stage,
                    if_absent=if_absent,
                    if_match=if_match,
                    labels=None if labels is None else dict(labels),
                    expires=_utc(expires),
                    idempotency_key=idempotency_key,
                )
        except Exception as exc:  # noqa: BLE001  it is raised below, where no handler's error hangs on it
            failure = sealed(exc, value, name=name, provider=self.provider, operation="secrets.put", resource=resource)
        else:
            return self._observed(attrs.evolve(stored, name=key))
        raise failure

    def promote(self, key: str, version: str, *, if_match: Token | None = None) -> None:
        """Make a version current and the current one previous, in one step; an earlier version is a rollback.

        The current version again changes nothing.

        Args:
            if_match: only if the secret has this token.

        Raises:
            NotFound: there is no such secret or version.
            Conflict: the version is disabled.
            PreconditionFailed: ``if_match`` did not hold.
        """
        resource = self._checked("promote", key)
        self._require(self.features.history or self.features.pending, "promote", resource, "versions of secrets")
        self._require(self.features.if_match or if_match is None, "promote", resource, "compare-and-swap of secrets")
        with self._translated("promote", resource):
            self._driver.promote(self._full(key), version, if_match=if_match)

    def disable(self, key: str, version: str) -> None:
        """Make one version unreadable. Again: no change.

        Raises:
            NotFound: there is no such secret or version.
        """
        resource = self._checked("disable", key)
        self._require(self.features.disable, "disable", resource, "way to disable one version")
        with self._translated("disable", resource):
            self._driver.disable(self._full(key), version)

    def destroy(self, key: str, version: str) -> None:
        """Make one version's value gone for good. The history shows it as disabled, or no longer.

        Raises:
            NotFound: there is no such secret or version.
            Conflict: it is the current version; promote another one first.
            Unsupported: the provider only disables versions, or drops old ones by itself.
        """
        resource = self._checked("destroy", key)
        self._require(self.features.destroy, "destroy", resource, "way to destroy one version")
        with self._translated("destroy", resource):
            self._driver.destroy_version(self._full(key), version)

    def update(
        self,
        key: str,
        *,
        labels: Mapping[str, str] | None = None,
        expires: datetime | Literal["never"] | None = None,
        if_match: Token | None = None,
    ) -> None:
        """Change labels and expiry without a new version.

        Args:
            labels: replace all labels of the secret; ``None`` leaves them.
            expires: aware; ``"never"`` removes the date; ``None`` leaves it.
            if_match: only if the secret has this token.

        Raises:
            NotFound: there is no such secret.
            PreconditionFailed: ``if_match`` did not hold.
            InvalidArgument: the provider cannot hold the labels, or there is nothing to change. Nothing was sent.
            Unsupported: the provider lacks what an option asks for. Nothing was sent.
        """
        resource = self._checked("update", key)
        if labels is None and expires is None:
            raise self._invalid("update", resource, "there is nothing to change; give labels, expires or both")
        self._require(self.features.update, "update", resource, "changes of a secret without a new version")
        self._require(self.features.if_match or if_match is None, "update", resource, "compare-and-swap of secrets")
        self._require(self.features.expiry or expires is None, "update", resource, "expiry of secrets")
        until = None if expires == "never" else expires
        self._check_facts("update", resource, labels, until)
        with self._translated("update", resource):
            self._driver.relabel(
                self._full(key),
                labels=None if labels is None else dict(labels),
                expires="never" if expires == "never" else _utc(until),
                if_match=if_match,
            )

    def delete(self, key: str, *, recovery: timedelta | None = timedelta(days=30)) -> None:
        """Delete a secret with all its versions.

        Args:
            recovery: how long ``restore`` can bring it back; ``None`` deletes it now and for good, also one that was
                deleted with a recovery before.

        Raises:
            NotFound: there is no such secret.
            Unsupported: the provider has no recovery; pass ``recovery=None``.
        """
        resource = self._checked("delete", key)
        if recovery is not None:
            self._check_recovery(resource, recovery)
        with self._translated("delete", resource):
            self._driver.delete(self._full(key), recovery=recovery)

    def purge(self, key: str) -> None:
        """Delete a secret now and for good, also one that was deleted with a recovery.

        Raises:
            NotFound: there is no such secret.
        """
        self.delete(key, recovery=None)

    def restore(self, key: str) -> None:
        """Bring back a deleted secret as it was. A living one: no change.

        Raises:
            NotFound: there is no such secret, or its recovery is over.
        """
        resource = self._checked("restore", key)
        self._require(self.features.recovery, "restore", resource, "recovery of deleted secrets")
        with self._translated("restore", resource):
            self._driver.restore(self._full(key))

    # what they share

    def _observed(self, secret: Secret) -> Secret:
        if self._observe is not None:
            self._observe(secret)
        return secret

    def _current(self, key: str) -> Masked | None:
        try:
            return self.get(key).value
        except NotFound:
            return None

    def _full(self, key: str) -> str:
        return joined(self.name, key)

    def _resource(self, key: str) -> Resource:
        return Resource("secret", key, self.resource if self.name else None)

    def _checked(self, operation: str, key: str) -> Resource:
        resource = self._resource(key)
        why = self.check_key(key)
        if why is not None:
            raise self._invalid(operation, resource, why)
        return resource

    def _check_stage(self, operation: str, resource: Resource, stage: str, allowed: tuple[str, ...]) -> None:
        if stage not in allowed:
            raise self._invalid(operation, resource, f"the stage is one of {', '.join(allowed)}, not {stage!r}")
        self._require(self.features.pending or stage != "pending", operation, resource, "pending versions of secrets")
        self._require(self.features.history or stage != "previous", operation, resource, "older versions of secrets")

    def _check_put(
        self,
        resource: Resource,
        stage: str,
        labels: Mapping[str, str] | None,
        expires: datetime | None,
        *,
        if_absent: bool,
        if_match: Token | None,
    ) -> None:
        """Refuse options that contradict each other or that the provider does not have."""
        features = self.features
        self._check_stage("put", resource, stage, ("current", "pending"))
        if if_absent and if_match is not None:
            raise self._invalid("put", resource, "if_absent and if_match exclude each other")
        if if_absent and stage == "pending":
            raise self._invalid("put", resource, "a pending version needs a current one, so it is never if_absent")
        self._require(features.if_absent or not if_absent, "put", resource, "create-only writes of secrets")
        self._require(features.if_match or if_match is None, "put", resource, "compare-and-swap writes of secrets")
        self._check_facts("put", resource, labels, expires)

    def _check_facts(
        self, operation: str, resource: Resource, labels: Mapping[str, str] | None, expires: datetime | None
    ) -> None:
        """Refuse labels and an expiry that the provider cannot keep."""
        if expires is not None and expires.tzinfo is None:
            raise self._invalid(operation, resource, "expires is without a time zone")
        self._require(self.features.expiry or expires is None, operation, resource, "expiry of secrets")
        self._require(self.features.labels or not labels, operation, resource, "labels of secrets")
        why = self.check_labels(labels) if labels else None
        if why is not None:
            raise self._invalid(operation, resource, why)

    def _storable(self, resource: Resource, value: Masked) -> Masked:
        """Return the value as the driver takes it, or refuse it. No error here may hang on one that holds the value."""
        size, text = _measured(value)
        if size is None:
            raise self._invalid("put", resource, "the value is not Unicode text; give it as bytes")
        if not size:
            raise self._invalid("put", resource, "the value is empty")
        limit = self.features.max_value
        if size > limit.value:
            why = f"the value has {size:,} bytes; the limit is {limit} ({limit.source})"
            raise self._invalid("put", resource, why)
        if value.is_text or self.features.binary:
            return value
        self._require(text is not None, "put", resource, "secrets that are not UTF-8 text")
        return text or value

    def _check_recovery(self, resource: Resource, recovery: timedelta) -> None:
        what = "recovery of deleted secrets (`purge` deletes for good)"
        self._require(self.features.recovery, "delete", resource, what)
        limit = self.features.max_recovery
        if recovery <= timedelta(0):
            why = "recovery is not positive; `purge` deletes for good"
            raise self._invalid("delete", resource, why)
        if limit is not None and recovery > timedelta(days=limit.value):
            why = f"recovery is {recovery.days} days; the limit is {limit} ({limit.source})"
            raise self._invalid("delete", resource, why)


def _utc(time: datetime | None) -> datetime | None:
    return None if time is None else time.astimezone(UTC)


def _measured(value: Masked) -> tuple[int | None, Masked | None]:
    """Return the size in bytes, ``None`` for text that UTF-8 cannot hold, and the value as text if it is any."""
    try:
        size = len(value.reveal_bytes())
    except ValueError:
        return None, None
    try:
        return size, Masked(value.reveal())
    except ValueError:
        return size, None

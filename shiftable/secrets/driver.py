"""What a provider of secrets implements: ``SecretsDriver``, its values and its features."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import ClassVar, Literal

import attrs

from shiftable.errors import Unsupported
from shiftable.features import Features, Limit, feature
from shiftable.masking import Masked
from shiftable.paging import Page
from shiftable.service import Driver, Spec
from shiftable.tokens import Token

__all__ = [
    "STAGES",
    "Secret",
    "SecretInfo",
    "SecretVersion",
    "SecretsDriver",
    "SecretsFeatures",
    "SecretsSpec",
    "Stage",
]

Stage = Literal["current", "previous", "pending"]
STAGES: tuple[Stage, ...] = ("current", "previous", "pending")


@attrs.frozen(kw_only=True)
class SecretsSpec(Spec):
    """``[secrets.x]``: all secrets whose names begin with a prefix.

    Args:
        name: ``prefix`` in the file; names are ``prefix/key``.
        env: which secrets ``shiftable run`` hands over, as environment variable = key.
    """

    name_key: ClassVar[str] = "prefix"

    env: Mapping[str, str] = attrs.field(factory=dict, eq=False)


@attrs.frozen(kw_only=True)
class Secret:
    """One version of a secret, its value masked.

    Args:
        stages: which of current, previous and pending this version is.
        token: of the secret, for ``if_match``.
        created: of this version; aware, UTC.
    """

    name: str
    value: Masked
    version: str
    stages: frozenset[Stage]
    token: Token
    created: datetime | None = None
    labels: Mapping[str, str] = attrs.Factory(dict)
    expires: datetime | None = None

    def reveal(self) -> str:
        """Return the value as text; ``ValueError`` if it is binary."""
        return self.value.reveal()

    def reveal_bytes(self) -> bytes:
        """Return the value as bytes."""
        return self.value.reveal_bytes()


@attrs.frozen(kw_only=True)
class SecretInfo:
    """What a listing tells of a secret: everything but its values.

    Args:
        version: the current one; ``None`` if there is none, or the listing does not tell.
        deleted: when it was scheduled for deletion, ``None`` for a living one.
    """

    name: str
    version: str | None
    modified: datetime | None = None
    labels: Mapping[str, str] = attrs.Factory(dict)
    expires: datetime | None = None
    deleted: datetime | None = None


@attrs.frozen(kw_only=True)
class SecretVersion:
    """One entry of a secret's history, newest first, without the value."""

    name: str
    version: str
    stages: frozenset[Stage]
    created: datetime | None
    enabled: bool = True


@attrs.frozen(kw_only=True)
class SecretsFeatures(Features):
    """What a secrets driver can do."""

    binary: bool = feature("values that are bytes, not text")
    labels: bool = feature("labels")
    expiry: bool = feature("a date after which the value should no longer be used")
    if_absent: bool = feature("create-only writes")
    if_match: bool = feature("compare-and-swap writes")
    atomic_if_match: bool = feature("... decided by the store itself, not by a read before the write")
    pending: bool = feature("a version that is stored but not yet current")
    history: bool = feature("older versions")
    disable: bool = feature("disabling one version")
    recovery: bool = feature("a deleted secret can be restored for a while")
    max_name: Limit = feature("longest name, characters")
    max_value: Limit = feature("largest value, bytes")
    max_labels: Limit | None = feature("labels of one secret", default=None)
    max_versions: Limit | None = feature("versions kept", default=None)


class SecretsDriver(Driver[SecretsSpec]):
    """Secrets of one provider, by full name (prefix and key joined with ``/``).

    The admin verbs of ``Driver`` act on prefixes. A prefix needs no making at most providers: there ``describe``
    answers any prefix and ``create`` does nothing.
    """

    @property
    @abstractmethod
    def features(self) -> SecretsFeatures:
        """What this driver can do."""

    def check_secret(self, name: str) -> str | None:
        """Say why the provider could not hold a secret of that name; ``None`` if it can. Sends nothing."""
        limit = self.features.max_name
        if not name:
            return "the name is empty"
        if len(name) > limit.value:
            return f"the name has {len(name):,} characters; the limit is {limit} ({limit.source})"
        return None

    def check_labels(self, labels: Mapping[str, str]) -> str | None:
        """Say why the provider could not keep those labels exactly; ``None`` if it can. Sends nothing."""
        limit = self.features.max_labels
        if limit is not None and len(labels) > limit.value:
            return f"there are {len(labels):,} labels; the limit is {limit} ({limit.source})"
        return None

    @abstractmethod
    def get(self, name: str, *, stage: Stage | None, version: str | None) -> Secret:
        """Return one version, by exactly one of its stage and its id. A disabled one is refused."""

    @abstractmethod
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
        """Store a new version, and make the secret if it does not exist.

        A version that becomes current makes the one before it previous.

        Args:
            labels: replace all; ``None`` leaves them.
            expires: ``None`` leaves it.
            idempotency_key: the same key with the same value, again, makes no second version.
        """

    @abstractmethod
    def list(self, *, prefix: str, deleted: bool, cursor: str | None, limit: int | None) -> Page[SecretInfo]:
        """Return one page of the secrets whose names begin with ``prefix``, in any order.

        Args:
            deleted: the ones that are scheduled for deletion instead of the living ones.
        """

    @abstractmethod
    def history(self, name: str, *, cursor: str | None, limit: int | None) -> Page[SecretVersion]:
        """Return one page of a secret's versions, newest first."""

    @abstractmethod
    def promote(self, name: str, version: str) -> None:
        """Make that version current and the current one previous. Again: no change."""

    @abstractmethod
    def delete(self, name: str, *, recovery: timedelta | None) -> None:
        """Delete a secret; with ``recovery``, so that ``restore`` brings it back for that long."""

    # optional: each goes with a field of the features

    def disable(self, name: str, version: str) -> None:
        """Make one version unreadable, for good or until the provider's own tools enable it."""
        raise Unsupported("versions cannot be disabled")

    def restore(self, name: str) -> None:
        """Bring back a deleted secret."""
        raise Unsupported("a deleted secret is gone")

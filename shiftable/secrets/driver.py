"""What a provider of secrets implements: ``SecretsDriver``, its values and its features."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import ClassVar, Literal

import attrs

from shiftable.errors import Conflict, Resource, Unsupported
from shiftable.features import Features, Limit, feature
from shiftable.masking import Masked
from shiftable.paging import Page, paged
from shiftable.secrets._names import malformed
from shiftable.secrets.rotator import Rotator
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
        files: which of them it hands over as files in memory, as environment variable for the path = key.
        rotate: which secrets ``shiftable secrets rotate`` replaces, as key = how and when.
    """

    name_key: ClassVar[str] = "prefix"

    env: Mapping[str, str] = attrs.field(factory=dict, eq=False)
    files: Mapping[str, str] = attrs.field(factory=dict, eq=False)
    rotate: Mapping[str, Rotator] = attrs.field(factory=dict, eq=False)


@attrs.frozen(kw_only=True)
class Secret:
    """One version of a secret, its value masked.

    Args:
        value: text, where the provider knows that it is; a provider that keeps bytes only answers bytes.
        version: the provider's own id of it, opaque; another secret may have the same, as may a later one of that
            name, after this one was deleted for good.
        stages: which of current, previous and pending this version is.
        token: of the secret, for ``if_match``: every ``put`` of a version, also a pending one, and every ``promote``
            that changes something makes a new one; what else changes the secret may.
        created: of this version; aware, UTC.
        labels: of the secret; empty where there are none.
        expires: aware, UTC; to the second.
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
        version: the current one; ``None`` where the listing does not tell.
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
    text: bool = feature("... and tells the one from the other", default=True)
    labels: bool = feature("labels")
    expiry: bool = feature("a date after which the value should no longer be used")
    if_absent: bool = feature("create-only writes")
    if_match: bool = feature("compare-and-swap writes")
    atomic_if_match: bool = feature("... decided by the store itself, not by a read before the write")
    pending: bool = feature("a version that is stored but not yet current")
    history: bool = feature("older versions")
    disable: bool = feature("disabling one version")
    recovery: bool = feature("a deleted secret can be restored for a while")
    update: bool = feature("labels and expiry change without a new version", default=False)
    destroy: bool = feature("destroying the value of one version for good", default=False)
    max_name: Limit = feature("longest name, characters")
    max_value: Limit = feature("largest value, bytes")
    max_labels: Limit | None = feature("labels of one secret", default=None)
    max_versions: Limit | None = feature("versions kept", default=None)
    max_recovery: Limit | None = feature("longest recovery of a deleted secret, days", default=None)


class SecretsDriver(Driver[SecretsSpec]):
    """Secrets of one provider, by full name (prefix and key joined with ``/``; below the empty prefix the key alone).

    The admin verbs of ``Driver`` act on prefixes, which need no making at most providers.

    A secret that was deleted with a recovery is to every method as if it were not there, but to three: ``put`` fails
    as a conflict, ``restore`` brings it back, and ``delete`` without a recovery ends it. What is not there fails as
    missing. Values stand in no message: a driver hands them to nothing that would echo them.
    """

    @property
    @abstractmethod
    def features(self) -> SecretsFeatures:
        """What this driver can do."""

    def check_name(self, name: str) -> str | None:
        """Say why no secret could have that prefix; ``None`` if one can. The empty one holds all secrets."""
        return malformed("prefix", name) if name else None

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

    # prefixes

    def create(self, spec: SecretsSpec) -> None:
        """Make what has to be there before the first secret: nothing."""

    def describe(self, name: str) -> SecretsSpec:
        """Return the prefix, whatever it is."""
        return SecretsSpec(name=name)

    def update(self, current: SecretsSpec, spec: SecretsSpec) -> None:
        """Do nothing: a prefix has no settings."""

    def destroy(self, name: str) -> None:
        """Fail, as a conflict, while there is a living secret below the prefix."""
        if next(self._all_below(f"{name}/" if name else ""), None) is not None:
            raise Conflict(
                f"there are secrets below {name!r}; delete them first",
                provider=self.provider,
                operation="secrets.delete",
                resource=Resource("prefix", name),
            )

    def names(self, cursor: str | None, limit: int | None) -> Page[str]:
        """Return the first segments of the names that have several, each once."""
        return Page(tuple(sorted({info.name.split("/")[0] for info in self._all_below("") if "/" in info.name})))

    def _all_below(self, prefix: str) -> Iterator[SecretInfo]:
        return paged(lambda cursor, left: self.list(prefix=prefix, deleted=False, cursor=cursor, limit=left))

    # secrets

    @abstractmethod
    def get(self, name: str, *, stage: Stage | None, version: str | None) -> Secret:
        """Return one version, by exactly one of its stage and its id.

        A stage that no version has is missing, as is an id that the secret never had. A disabled version is refused
        as a conflict.
        """

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
        """Store a new version; a current one also makes the secret if it does not exist.

        A version that becomes current makes the one before it previous, and takes that stage from the one that had
        it; a pending one stays pending. A version stored as pending moves neither current nor previous, and takes
        the stage from an older pending one; it needs a current one beside it, so where there is no secret it fails as
        missing (at AWS the first version is current, whatever is asked for). A value that is stored already makes a
        new version all the same.

        Args:
            value: not empty, not above ``max_value``; bytes only with ``features.binary``.
            if_absent: fails as a precondition where the secret exists; never together with ``pending``.
            if_match: fails as a precondition where the token is another; where there is no secret, so or as missing.
            labels: replace all, so ``{}`` removes them; ``None`` leaves them.
            expires: UTC, may be past; ``None`` leaves it.
            idempotency_key: of this secret. The same key with the same value, again, makes no second version: it
                answers the first one as it is now, before any condition is looked at, and changes nothing. With
                another value it is a conflict, as it is if that version is disabled: not every provider can compare
                it. It is remembered for as long as its version is kept; a driver whose provider takes only certain
                keys derives one of them.
        """

    @abstractmethod
    def list(self, *, prefix: str, deleted: bool, cursor: str | None, limit: int | None) -> Page[SecretInfo]:
        """Return one page of the secrets whose names begin with ``prefix``, in any order, each once.

        Args:
            prefix: of the name as a string, upper and lower case apart; it need not end at a slash.
            deleted: the ones that are scheduled for deletion instead of the living ones.
        """

    @abstractmethod
    def history(self, name: str, *, cursor: str | None, limit: int | None) -> Page[SecretVersion]:
        """Return one page of a secret's versions, newest first; disabled ones too."""

    @abstractmethod
    def promote(self, name: str, version: str, *, if_match: Token | None) -> None:
        """Make that version current and the current one previous, at once for every reader.

        It is no longer pending then; another pending one stays pending. The current one again: no change, also no
        new token, whatever ``if_match``. A disabled one is refused as a conflict.

        Args:
            if_match: fails as a precondition where the token is another.
        """

    @abstractmethod
    def delete(self, name: str, *, recovery: timedelta | None) -> None:
        """Delete a secret with all its versions.

        Args:
            recovery: so that ``restore`` brings it back for that long, or longer where the provider has fixed
                windows; ``None``: at once and for good, also one that was deleted with a recovery before.
        """

    # optional: each goes with a field of the features

    def disable(self, name: str, version: str) -> None:
        """Make one version unreadable, for good or until the provider's own tools enable it. Again: no change."""
        raise Unsupported("versions cannot be disabled")

    def destroy_version(self, name: str, version: str) -> None:
        """Make one version's value gone for good, also for the provider's own tools, and take its stage from it.

        The history shows it as disabled, or no longer; to destroy it again is then no change, or missing. The current
        one is refused as a conflict. Goes with ``features.destroy``.
        """
        raise Unsupported("versions cannot be destroyed")

    def relabel(
        self,
        name: str,
        *,
        labels: Mapping[str, str] | None,
        expires: datetime | Literal["never"] | None,
        if_match: Token | None,
    ) -> None:
        """Change labels and expiry of a secret, and neither its versions nor their stages.

        It may make a new token. Goes with ``features.update``.

        Args:
            labels: replace all, as in ``put``; ``None`` leaves them.
            expires: UTC; ``"never"`` removes it; ``None`` leaves it.
            if_match: fails as a precondition where the token is another.
        """
        raise Unsupported("labels change with a new version only")

    def restore(self, name: str) -> None:
        """Bring back a deleted secret with its versions, stages, labels and expiry. A living one: no change."""
        raise Unsupported("a deleted secret is gone")

"""Two stores that are written as one, while an application moves from one to the other."""

from __future__ import annotations

import hashlib
import hmac
import logging
import secrets as randomness
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any, Literal, TypeVar

import attrs

from shiftable.errors import (
    ConfigError,
    Conflict,
    Fault,
    NotFound,
    Throttled,
    Timeout,
    Unavailable,
)
from shiftable.features import Limit
from shiftable.masking import Masked
from shiftable.paging import Page
from shiftable.secrets._copies import copy_key
from shiftable.secrets._store import SecretStore
from shiftable.secrets.driver import (
    Secret,
    SecretInfo,
    SecretsDriver,
    SecretsFeatures,
    SecretsSpec,
    SecretVersion,
    Stage,
)
from shiftable.tokens import Token

__all__ = ["BEHIND", "Drift", "Mirror"]

logger = logging.getLogger(__name__)

BEHIND = "MirrorBehind"
"""``code`` of the error of a write that the primary has and the secondary has not."""

_THEIRS = "secondary:"
"""Before ids, tokens and cursors that come from the secondary."""
_AWAY = (Unavailable, Timeout, Throttled)
_ROUNDS = 8  # each one more is another writer's success

T = TypeVar("T")


@attrs.frozen
class Drift:
    """How one secret of the secondary differs from the primary's; never what the values are.

    Args:
        what: stages, labels and dates.
    """

    key: str
    what: tuple[str, ...]


class Mirror(SecretStore):
    """A store that is written to two, and read from the first: for the days between a move and its end.

    * A write goes to the primary, whose conditions decide, and then the secondary is made to have the same current and
      pending version, labels and expiry. If that fails, the write fails as a ``Conflict`` whose ``code`` is ``BEHIND``
      and whose message says that the primary has it. Do not repeat the write then, or only under the same idempotency
      key: ``repair`` brings the secondary up, as does the next write of that secret.
    * A read asks the primary; where that is unavailable, throttles or does not answer in time, the secondary, with a
      warning in the log. What comes from there can be read, and is no base for a conditional write.
    * ``drift`` compares both. ``shiftable migrate`` between the two may go on meanwhile: both name a version by one
      idempotency key, so that whoever is second makes no second version.
    * Versions are neither disabled nor destroyed while there are two of them.

    >>> import shiftable.memory
    >>> from shiftable.secrets import Secrets
    >>> here, there = (
    ...     Secrets(shiftable.memory.MemoryProvider(shiftable.memory.MemorySettings()).secrets()).store("shop")
    ...     for _ in range(2)
    ... )
    >>> both = Mirror(here, there)
    >>> _ = both.put("stripe/key", "sk_live_1")
    >>> there.get("stripe/key").reveal()
    'sk_live_1'
    >>> _ = there.put("stripe/key", "somebody else's")
    >>> list(both.drift())
    [Drift(key='stripe/key', what=('current',))]
    >>> both.repair("stripe/key")
    >>> there.get("stripe/key").reveal(), list(both.drift())
    ('sk_live_1', [])

    Args:
        primary: where the application's values are.
        secondary: where they shall be too; of the same prefix.

    Raises:
        ConfigError: they have different prefixes.
    """

    def __init__(self, primary: SecretStore, secondary: SecretStore) -> None:
        if primary.name != secondary.name:
            raise ConfigError(f"a mirror has one prefix, not {primary.name!r} and {secondary.name!r}")
        self.primary = primary
        self.secondary = secondary
        both = _MirrorDriver(primary._driver, secondary._driver)  # noqa: SLF001  of the same class
        both.label = f"{primary.provider.label}+{secondary.provider.label}"
        super().__init__(both, primary.name)

    def drift(self, prefix: str = "") -> Iterator[Drift]:
        """Compare both stores by HMACs under a key of this call, and iterate over what differs, by key.

        Other versions than the current and the pending one do not count.
        """
        run_key = randomness.token_bytes(32)
        names = {info.name for store in (self.primary, self.secondary) for info in store.list(prefix)}
        for key in sorted(names):
            here, there = (_facts(store, key, run_key) for store in (self.primary, self.secondary))
            what = tuple(name for name in here | there if here.get(name) != there.get(name))
            if what:
                yield Drift(key, what)

    def repair(self, key: str) -> None:
        """Make the secondary's secret what the primary's is. What only the secondary has is left to be deleted there.

        Raises:
            NotFound: the primary has no such secret.
            Conflict: with the code ``BEHIND``: it could not be done.
        """
        self.primary.get(key)
        with self._translated("repair", self._checked("repair", key)):
            self.unwrap(_MirrorDriver).bring(self._full(key), "it is")


def _facts(store: SecretStore, key: str, run_key: bytes) -> dict[str, object]:
    """Return what can be compared of a secret; of one that is not there, nothing."""
    facts: dict[str, object] = {}
    stages: tuple[Stage, ...] = ("current", "pending") if store.features.pending else ("current",)
    for stage in stages:
        try:
            found = store.get(key, stage=stage)
        except NotFound:
            continue
        facts[stage] = hmac.digest(run_key, found.reveal_bytes(), hashlib.sha256)
        facts |= {f"label {name}": value for name, value in found.labels.items()}
        facts |= {"expiry": found.expires} if found.expires else {}
    return facts


class _Behind(Exception):
    """The primary has what the secondary has not; ``fault`` says it."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.message)
        self.fault = fault


@attrs.define
class _MirrorDriver(SecretsDriver):
    """Two drivers as one."""

    _first: SecretsDriver
    _second: SecretsDriver

    @property
    def provider(self) -> str:
        return f"{self._first.provider}+{self._second.provider}"

    @property
    def features(self) -> SecretsFeatures:
        """What both can do; conditions are the primary's."""
        mine, theirs = self._first.features, self._second.features
        facts = {name: _both(value, getattr(theirs, name)) for name, _, value in mine.rows() if name != "title"}
        deciding = ("if_absent", "if_match", "atomic_if_match")
        facts |= {name: getattr(mine, name) for name in deciding} | {"disable": False, "destroy": False}
        return attrs.evolve(mine, title=f"{mine.title}, mirrored to {theirs.title}", **facts)

    def classify(self, exc: Exception) -> Fault | None:
        """Say what an exception of either means."""
        return exc.fault if isinstance(exc, _Behind) else self._first.classify(exc) or self._second.classify(exc)

    def check_name(self, name: str) -> str | None:
        """Apply the rules of both."""
        return self._first.check_name(name) or self._second.check_name(name)

    def check_secret(self, name: str) -> str | None:
        """Apply the rules of both."""
        return self._first.check_secret(name) or self._second.check_secret(name)

    def check_labels(self, labels: Mapping[str, str]) -> str | None:
        """Apply the rules of both."""
        return self._first.check_labels(labels) or self._second.check_labels(labels)

    # prefixes

    def create(self, spec: SecretsSpec) -> None:
        """Make the prefix in both."""
        self._first.create(spec)
        self._second.create(spec)

    def describe(self, name: str) -> SecretsSpec:
        """Return the primary's."""
        return self._first.describe(name)

    def update(self, current: SecretsSpec, spec: SecretsSpec) -> None:
        """Change it in both."""
        self._first.update(current, spec)
        self._second.update(current, spec)

    def destroy(self, name: str) -> None:
        """Delete it in both."""
        self._first.destroy(name)
        self._second.destroy(name)

    def names(self, cursor: str | None, limit: int | None) -> Page[str]:
        """Return the primary's."""
        return self._first.names(cursor, limit)

    # reading: the first, or else the second

    def get(self, name: str, *, stage: Stage | None, version: str | None) -> Secret:
        """Read a stage of either, and a version where its id comes from."""
        if version is not None and version.startswith(_THEIRS):
            return _theirs(self._second.get(name, stage=None, version=version.removeprefix(_THEIRS)))
        if version is not None:
            return self._first.get(name, stage=None, version=version)
        return self._either(
            lambda: self._first.get(name, stage=stage, version=None),
            lambda: _theirs(self._second.get(name, stage=stage, version=None)),
        )

    def list(self, *, prefix: str, deleted: bool, cursor: str | None, limit: int | None) -> Page[SecretInfo]:
        """List one of the two, from the first page to the last."""

        def listed(driver: SecretsDriver, cursor: str | None) -> Page[SecretInfo]:
            return driver.list(prefix=prefix, deleted=deleted, cursor=cursor, limit=limit)

        return self._paged(cursor, listed, _info_of_theirs)

    def history(self, name: str, *, cursor: str | None, limit: int | None) -> Page[SecretVersion]:
        """List the versions of one of the two."""

        def listed(driver: SecretsDriver, cursor: str | None) -> Page[SecretVersion]:
            return driver.history(name, cursor=cursor, limit=limit)

        return self._paged(cursor, listed, lambda item: attrs.evolve(item, version=f"{_THEIRS}{item.version}"))

    def _paged(
        self, cursor: str | None, listed: Callable[[SecretsDriver, str | None], Page[T]], marked: Callable[[T], T]
    ) -> Page[T]:
        def theirs(cursor: str | None) -> Page[T]:
            page = listed(self._second, cursor)
            return Page(tuple(marked(item) for item in page.items), f"{_THEIRS}{page.next}" if page.next else None)

        if cursor is None:
            return self._either(lambda: listed(self._first, None), lambda: theirs(None))
        if cursor.startswith(_THEIRS):
            return theirs(cursor.removeprefix(_THEIRS))
        return listed(self._first, cursor)  # a listing is of one of the two

    def _either(self, first: Callable[[], T], second: Callable[[], T]) -> T:
        try:
            return first()
        except Exception as exc:
            fault = self._first.classify(exc)
            if fault is None or not issubclass(fault.error, _AWAY):
                raise
            here, there = self._first.named.label, self._second.named.label
            logger.warning("%s is %s; reading from %s", here, fault.error.__name__, there)
            try:
                return second()
            except Exception as other:
                raise exc from other

    # writing: the first, and then the second is made to have the same

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
        """Store a new version in the first, and carry it to the second."""
        stored = self._first.put(
            name,
            value,
            stage=stage,
            if_absent=if_absent,
            if_match=if_match,
            labels=labels,
            expires=expires,
            idempotency_key=idempotency_key,
        )
        self.bring(name, f"stored as version {stored.version}")
        return stored

    def promote(self, name: str, version: str, *, if_match: Token | None) -> None:
        """Promote in the first, and carry it to the second."""
        self._first.promote(name, version, if_match=if_match)
        self.bring(name, f"version {version} is current")

    def relabel(
        self,
        name: str,
        *,
        labels: Mapping[str, str] | None,
        expires: datetime | Literal["never"] | None,
        if_match: Token | None,
    ) -> None:
        """Change labels and expiry in the first, and carry them to the second."""
        self._first.relabel(name, labels=labels, expires=expires, if_match=if_match)
        self.bring(name, "changed")

    def delete(self, name: str, *, recovery: timedelta | None) -> None:
        """Delete from both; the second may have none."""
        self._first.delete(name, recovery=recovery)
        with _Follows(self, "deleted"):
            self._if_there(lambda: self._second.delete(name, recovery=recovery))

    def restore(self, name: str) -> None:
        """Restore in both; the second may have none to restore."""
        self._first.restore(name)
        with _Follows(self, "restored"):
            self._if_there(lambda: self._second.restore(name))
        self.bring(name, "restored")

    def bring(self, name: str, done: str) -> None:
        """Make the second have the current and the pending version of the first, labels and expiry.

        Other writers do the same. Whoever sees at the end that the first is still what was carried has the last word.

        Args:
            done: what the first has done, for the error.
        """
        with _Follows(self, done):
            for _ in range(_ROUNDS):
                current, pending = (self._found(self._first, name, stage) for stage in ("current", "pending"))
                if current is None:  # somebody deletes it, from both
                    return
                self._carry(name, current, "current")
                self._carry_pending(name, pending)
                self._describe(name, current)
                now = [self._found(self._first, name, stage) for stage in ("current", "pending")]
                if [each and each.token for each in now] == [each and each.token for each in (current, pending)]:
                    return
        raise _Behind(Fault(Conflict, f"{done}, and others write faster than the mirror follows; repair it", BEHIND))

    def _carry(self, name: str, wanted: Secret, stage: Literal["current", "pending"]) -> None:
        """Put one version, or promote it where it is there already."""
        there = self._found(self._second, name, stage)
        if there is not None and _same(there, wanted):
            return
        waiting = self._found(self._second, name, "pending") if stage == "current" else None
        if waiting is not None and _same(waiting, wanted):
            self._second.promote(name, waiting.version, if_match=None)
            return
        try:
            stored = self._stored(name, wanted, stage, again=None)
        except Exception as exc:
            fault = self._second.classify(exc)
            if there is None or fault is None or not issubclass(fault.error, Conflict):
                raise
            stored = self._stored(name, wanted, stage, again=there.token)  # its copy was disabled there
        if stage not in stored.stages and stage == "current":  # it had been carried before, and came back
            self._second.promote(name, stored.version, if_match=None)
        elif stage not in stored.stages:
            self._stored(name, wanted, stage, again=stored.token)

    def _stored(self, name: str, wanted: Secret, stage: Literal["current", "pending"], again: Token | None) -> Secret:
        return self._second.put(
            name,
            wanted.value,
            stage=stage,
            if_absent=False,
            if_match=None,
            labels=dict(wanted.labels) if self._second.features.labels else None,
            expires=wanted.expires if self._second.features.expiry else None,
            idempotency_key=copy_key(self._first.provider, name, wanted.version, wanted.created, again=again),
        )

    def _carry_pending(self, name: str, wanted: Secret | None) -> None:
        there = self._found(self._second, name, "pending")
        if wanted is not None:
            self._carry(name, wanted, "pending")
        elif there is not None and self._second.features.destroy:
            self._second.destroy_version(name, there.version)

    def _describe(self, name: str, wanted: Secret) -> None:
        there = self._found(self._second, name, "current")
        if there is None or not self._second.features.update:
            return
        labels = dict(wanted.labels) if dict(there.labels) != dict(wanted.labels) else None
        expires: datetime | Literal["never"] | None = None
        if there.expires != wanted.expires and self._second.features.expiry:
            expires = wanted.expires or "never"
        if labels is not None or expires is not None:
            self._second.relabel(name, labels=labels, expires=expires, if_match=None)

    def _if_there(self, act: Callable[[], None]) -> None:
        try:
            act()
        except Exception as exc:
            if not self._is_missing(self._second, exc):
                raise

    def _found(self, driver: SecretsDriver, name: str, stage: Stage) -> Secret | None:
        if stage == "pending" and not driver.features.pending:
            return None
        try:
            return driver.get(name, stage=stage, version=None)
        except Exception as exc:
            if not self._is_missing(driver, exc):
                raise
            return None

    @staticmethod
    def _is_missing(driver: SecretsDriver, exc: Exception) -> bool:
        fault = driver.classify(exc)
        return fault is not None and issubclass(fault.error, NotFound)

    def behind(self, done: str, exc: Exception) -> _Behind | None:
        """Return the error that says how far a write came; ``None`` for what is no provider's error."""
        fault = self._second.classify(exc) or self._first.classify(exc)
        if fault is None:
            return None
        here, there = self._first.named.label, self._second.named.label
        why = fault.error.__name__ + (f" {fault.code}" if fault.code else "")
        return _Behind(
            Fault(
                Conflict,
                f"{done} at {here}, but not at its mirror {there} ({why}); call repair, and do not write it again",
                BEHIND,
            )
        )

    def close(self) -> None:
        """Close both."""
        self._first.close()
        self._second.close()


@attrs.frozen
class _Follows:
    """Turns what fails at the second into an error that says what the first has done."""

    _driver: _MirrorDriver
    _done: str

    def __enter__(self) -> None:
        pass

    def __exit__(self, _cls: object, exc: BaseException | None, _tb: object) -> None:
        if isinstance(exc, Exception) and not isinstance(exc, _Behind):
            behind = self._driver.behind(self._done, exc)
            if behind is not None:
                raise behind from exc


def _both(mine: Any, theirs: Any) -> Any:  # noqa: ANN401  a feature's value
    """Return what two stores together can do: the less of both."""
    if isinstance(mine, bool):
        return mine and theirs
    limits = [limit for limit in (mine, theirs) if isinstance(limit, Limit)]
    return min(limits, key=lambda limit: limit.value, default=None)


def _theirs(secret: Secret) -> Secret:
    """Mark what comes from the second, so that nobody takes its ids and tokens for the first's."""
    version, token = f"{_THEIRS}{secret.version}", Token(f"{_THEIRS}{secret.token}")
    return attrs.evolve(secret, version=version, token=token)


def _info_of_theirs(info: SecretInfo) -> SecretInfo:
    return attrs.evolve(info, version=f"{_THEIRS}{info.version}" if info.version else None)


def _same(one: Secret, other: Secret) -> bool:
    return hmac.compare_digest(one.reveal_bytes(), other.reveal_bytes())

"""The machine: create, set, test, finish, retire, with all of its state in the stages of the secret."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Literal, NoReturn, TypeVar

import attrs

from shiftable.errors import (
    ConfigError,
    Conflict,
    InvalidArgument,
    NotFound,
    OperationError,
    PreconditionFailed,
    Resource,
    ShiftableError,
    Unsupported,
    translated,
)
from shiftable.masking import Masked
from shiftable.secrets import Secret, SecretStore, SecretVersion
from shiftable.secrets._sealing import sealed
from shiftable.secrets.rotator import EXPOSED_LABEL, Absent, Rotator, needs_a_first

__all__ = ["RETIRED_LABEL", "Outcome", "Rotation", "Status", "Step"]

Step = Literal["create", "set", "test", "finish", "retire"]

T = TypeVar("T")

RETIRED_LABEL = "shiftable-retired"
"""The label that says which version is retired, in stores that cannot disable one."""

_LOOKS = 5
"""How often a secret is read again when it changes while it is read."""


@attrs.frozen(kw_only=True)
class Status:
    """Where the rotation of one secret stands, without any value.

    Args:
        created: of the current version; ``None`` where there is no secret yet, or its store does not tell.
        pending: the version that a rotation under way has made.
        due: why the current version should be replaced; empty if it should not.
        next_due: when it should be, where that is known.
        retire: the version that still works beside the current one.
        retire_at: when it is retired.
        held: why nothing new is begun, though it is due or was asked for.
        steps: what a run does now.
    """

    key: str
    kind: str
    current: str | None = None
    created: datetime | None = None
    pending: str | None = None
    due: str = ""
    next_due: datetime | None = None
    retire: str | None = None
    retire_at: datetime | None = None
    held: str = ""
    steps: tuple[Step, ...] = ()


@attrs.frozen(kw_only=True)
class Outcome:
    """What one run did.

    Args:
        steps: in their order.
        before: where it stood.
        after: where it stands.
    """

    steps: tuple[Step, ...]
    before: Status
    after: Status


@attrs.frozen
class _State:
    """What the store tells: the current version with its value, and the other two without.

    Args:
        created: of the current version; not every store tells that with the value.
        newest: the version that was stored last.
    """

    current: Secret
    created: datetime | None
    newest: str
    pending: SecretVersion | None
    previous: SecretVersion | None

    @property
    def is_rolled_back(self) -> bool:
        """Whether somebody made an earlier version current again."""
        made = self.previous.created if self.previous else None
        return made is not None and self.created is not None and made > self.created


def _ignore(_: Step) -> None:
    pass


@attrs.define
class Rotation:
    """The rotation of one secret. All of its state is in the store: any number of these may run, anywhere.

    One wins: what follows a state is stored under a condition on that state, and under an idempotency key that is made
    of it, so that a store that only reads before it writes cannot take two of them. The others raise ``Conflict``. What
    a run left when it ended in the middle, the next one goes on with, whoever starts it.

    Stores without pending versions, older versions and compare-and-swap writes cannot rotate, and say so.

    Args:
        store: holds the secret.
        key: of it.
        rotator: how its values are replaced.
        clock: tells the time; it is compared with the store's.
    """

    _store: SecretStore
    key: str
    _rotator: Rotator = attrs.field(repr=False)
    _clock: Callable[[], datetime] = attrs.field(default=lambda: datetime.now(UTC), repr=False)

    @property
    def kind(self) -> str:
        """Which rotator it has."""
        return self._rotator.kind

    def status(self, *, now: bool = False, force: bool = False) -> Status:
        """Say where the rotation stands and what a run would do. Changes nothing.

        Args:
            now: ask as of a run that begins though nothing is due.
            force: the same, also while the value before is still in use.
        """
        self._check()
        state = self._state()
        if state is None:
            return self._unborn(now=now)
        return self._status(state, now=now, force=force)

    def run(self, *, now: bool = False, force: bool = False, on_step: Callable[[Step], object] = _ignore) -> Outcome:
        """Go on with what is under way, retire what has had its time, and begin anew if that is due.

        Args:
            now: begin though nothing is due.
            force: begin also while the value before is still in use, or after a rollback; it is retired first.
            on_step: is told of each step that was done.

        Raises:
            Conflict: another run is at work on it; the value is none of this kind; it changes all the time.
            OperationError: the store or the target failed; another run goes on.
        """
        self._check()
        steps: list[Step] = []

        def did(step: Step) -> None:
            steps.append(step)
            on_step(step)

        state = self._state()
        if state is None:
            before = self._unborn(now=now)
            if before.steps:
                self._begin(did)
            elif now:
                raise self._conflict("create", before.held)
        else:
            before = self._status(state, now=now, force=force)
            self._advance(state, before, did)
        return Outcome(steps=tuple(steps), before=before, after=self.status())

    # what the stages tell

    def _check(self) -> None:
        if isinstance(self._rotator, Absent):
            raise ConfigError(self._rotator.reason)
        features, resource = self._store.features, self._resource
        wanted = {
            "pending versions": features.pending,
            "older versions": features.history,
            "compare-and-swap writes": features.if_match and features.if_absent,
        }
        missing = [name for name, there in wanted.items() if not there]
        if missing:
            raise Unsupported(
                f"this store has no {' and no '.join(missing)} of secrets, which rotation stands on",
                provider=self._store.provider,
                operation="rotation",
                resource=resource,
            )

    def _state(self) -> _State | None:
        """Read the secret, then its stages; again, if it was promoted in between."""
        for _ in range(_LOOKS):
            try:
                current = self._store.get(self.key)
                versions = list(self._store.history(self.key))
            except NotFound:
                if not self._store.exists(self.key):
                    return None
                raise
            staged = {stage: version for version in versions for stage in version.stages}
            if "current" in staged and staged["current"].version == current.version:
                created = staged["current"].created  # in the store's own time zone
                made = created.astimezone(UTC) if created else None
                return _State(current, made, versions[0].version, staged.get("pending"), staged.get("previous"))
        raise self._conflict("state", "it changes whenever it is read; look again")

    def _unborn(self, *, now: bool) -> Status:
        begins = self._rotator.begins
        steps: tuple[Step, ...] = ("create", "finish") if now and begins else ()
        held = "" if begins else needs_a_first(self.kind).message
        return Status(key=self.key, kind=self.kind, due="there is no such secret yet", held=held, steps=steps)

    def _status(self, state: _State, *, now: bool, force: bool) -> Status:
        retire_at = self._retire_at(state)
        due, held = self._due(state), self._held(state, retire_at)
        steps: list[Step] = []
        if state.pending is not None:
            steps += ["set", "test", "finish"]
        elif retire_at is not None and (retire_at <= self._clock() or (force and (now or due))):
            steps += ["retire"]
        begins = state.pending is None and bool(due or now or force)
        if begins and (force or not held):
            steps += ["create", "set", "test", "finish"]
        if "finish" in steps and not self._rotator.grace:
            steps += ["retire"]
        return Status(
            key=self.key,
            kind=self.kind,
            current=state.current.version,
            created=state.created,
            pending=state.pending.version if state.pending else None,
            due=due,
            next_due=self._next_due(state),
            retire=state.previous.version if state.previous and retire_at else None,
            retire_at=retire_at,
            held=held if begins and not force else "",
            steps=tuple(steps),
        )

    def _due(self, state: _State) -> str:
        """Say why the current version should be replaced."""
        exposed = _exposed(state)
        if exposed:
            return exposed
        moment, now = self._next_due(state), self._clock()
        if moment is None or moment > now:
            return ""
        expires = state.current.expires
        if expires is not None and expires - self._rotator.before <= now:
            return f"it expires at {expires:%Y-%m-%d %H:%M}Z"
        return f"it was made at {state.created:%Y-%m-%d %H:%M}Z, and lasts {_text(self._rotator.every)}"

    def _next_due(self, state: _State) -> datetime | None:
        moments = []
        if self._rotator.every is not None and state.created is not None:
            moments.append(state.created + self._rotator.every)
        if state.current.expires is not None:
            moments.append(state.current.expires - self._rotator.before)
        return min(moments, default=None)

    def _retire_at(self, state: _State) -> datetime | None:
        """Say when the previous version is retired; ``None`` if it is already, or there is none that should be.

        What became current was at most one grace old then, see ``_finish``.
        """
        previous, current = state.previous, state.current
        if previous is None or not previous.enabled or state.is_rolled_back:
            return None
        if current.labels.get(RETIRED_LABEL) == previous.version:
            return None
        return (state.created or self._clock()) + 2 * self._rotator.grace

    def _held(self, state: _State, retire_at: datetime | None) -> str:
        if state.is_rolled_back:
            return f"somebody went back to version {state.current.version}; find out why before it is replaced again"
        if retire_at is not None and retire_at > self._clock():
            return f"the version before may be in use until {retire_at:%Y-%m-%d %H:%M:%S}Z"
        return ""

    # the steps

    def _begin(self, did: Callable[[Step], None]) -> None:
        """Make a secret that does not exist yet."""
        value = self._on_target("create", (), lambda: self._rotator.create(None))
        did("create")
        try:
            self._store.put(self.key, value, if_absent=True)
        except PreconditionFailed:
            self._discard(value)
            self._lost("create")
        self._store_beside((value,))
        did("finish")

    def _advance(self, state: _State, plan: Status, did: Callable[[Step], None]) -> None:
        if plan.steps[:1] == ("retire",):
            self._retire(state, did)
            state = self._seen()
        if "finish" not in plan.steps:
            self._mend_beside(state.current.value)
            return
        self._check_value("create", state.current.value)
        pending = self._pending(state, did)
        self._set(pending, state.current, did)
        self._test(pending, did)
        self._finish(pending, did)
        if not self._rotator.grace:
            self._retire(self._seen(), did)

    def _pending(self, state: _State, did: Callable[[Step], None]) -> Secret:
        """Return the version that is pending, or make it."""
        if state.pending is not None and state.pending.enabled:
            try:
                found = self._store.get(self.key, version=state.pending.version)
            except NotFound:
                self._lost("create")
            self._check_value("set", found.value)
            if self._on_target("set", (found.value,), lambda: self._rotator.usable(found.value)):
                return found
        old = state.current.value
        value = self._on_target("create", (old,), lambda: self._rotator.create(old))
        stored = self._put_pending(state, value, discard=True)
        did("create")
        return stored

    def _put_pending(self, state: _State, value: Masked, *, discard: bool = False) -> Secret:
        """Store what follows a state: one run does, and all others lose."""
        mark = hashlib.sha256(f"{state.newest}\0{state.current.version}".encode()).hexdigest()[:32]
        try:
            stored = self._store.put(
                self.key,
                value,
                stage="pending",
                if_match=state.current.token,
                expires=self._expiry(state),
                idempotency_key=f"rotation-{mark}",
            )
        except (Conflict, PreconditionFailed):
            if discard:
                self._discard(value)
            self._lost("create")
        if state.pending is not None and self._store.features.disable:
            self._store.disable(self.key, state.pending.version)  # nothing else would: it has no stage any more
        return stored

    def _expiry(self, state: _State) -> datetime | None:
        """Give the next value as long a life as the one before had, where that one had an end."""
        if state.current.expires is None:
            return None
        if self._rotator.every is not None:
            return self._clock() + self._rotator.every + self._rotator.before
        lived = state.current.expires - state.created if state.created else self._rotator.before
        return self._clock() + max(lived, 2 * self._rotator.before)

    def _set(self, pending: Secret, current: Secret, did: Callable[[Step], None]) -> None:
        values = (pending.value, current.value)
        self._on_target(
            "set",
            values,
            lambda: self._rotator.set(*values, lambda: self._confirm_pending("set", pending.version)),
        )
        self._store_beside(values)
        did("set")

    def _test(self, pending: Secret, did: Callable[[Step], None]) -> None:
        try:
            self._on_target("test", (pending.value,), lambda: self._rotator.test(pending.value))
        except OperationError:
            self._confirm_pending("test", pending.version)  # else another run is why
            raise
        did("test")

    def _finish(self, pending: Secret, did: Callable[[Step], None]) -> None:
        """Promote what was tested.

        When it became current no store tells; when it was stored all do. One that waited longer than a grace is
        therefore stored again before, so that what was current is not retired too early.
        """
        state, grace = self._confirm_pending("finish", pending.version), self._rotator.grace
        made = state.pending.created if state.pending else None
        if grace and (made is None or self._clock() - made > grace):
            pending = self._put_pending(state, pending.value)
            state = self._confirm_pending("finish", pending.version)
        try:
            self._store.promote(self.key, pending.version, if_match=state.current.token)
        except PreconditionFailed:
            self._lost("finish")
        did("finish")

    def _retire(self, state: _State, did: Callable[[Step], None]) -> None:
        """Have the target refuse the previous value, then disable its version, which tells that this was done."""
        previous, current = state.previous, state.current
        if previous is None or self._retire_at(state) is None:
            return
        try:
            old = self._store.get(self.key, version=previous.version).value
        except (Conflict, NotFound):  # disabled, or gone: somebody else has done it
            return

        def confirm() -> None:
            seen = self._seen()
            now = (seen.current.version, seen.previous and seen.previous.version, seen.pending)
            if now != (current.version, previous.version, None):
                self._lost("retire")

        values = (old, current.value)
        self._on_target("retire", values, lambda: self._rotator.retire(*values, confirm))
        self._store_beside((current.value,))
        confirm()
        if self._store.features.disable:
            self._store.disable(self.key, previous.version)
        elif self._store.features.update:
            labels = {**state.current.labels, RETIRED_LABEL: previous.version}
            self._store.update(self.key, labels=labels, if_match=state.current.token)
        did("retire")

    # what they share

    @property
    def _resource(self) -> Resource:
        return Resource("secret", self.key, self._store.resource if self._store.name else None)

    def _seen(self) -> _State:
        state = self._state()
        if state is None:
            raise NotFound(
                "the secret was deleted", provider=self._store.provider, operation="rotation", resource=self._resource
            )
        return state

    def _confirm_pending(self, step: Step, version: str) -> _State:
        """Fail unless that version is still the one that is pending."""
        state = self._seen()
        if state.pending is None or state.pending.version != version:
            self._lost(step)
        return state

    def _check_value(self, step: Step, value: Masked) -> None:
        why = self._on_target(step, (value,), lambda: self._rotator.check(value))
        if why is not None:
            raise InvalidArgument(
                f"the value is none that {self.kind} replaces: {why}",
                provider=self._store.provider,
                operation=f"rotation.{step}",
                resource=self._resource,
            )

    def _on_target(self, step: Step, values: Sequence[Masked], act: Callable[[], T]) -> T:
        """Let the rotator do something; its errors become ours and show no value."""
        operation, resource = f"rotation.{step}", self._resource
        try:
            with translated(self._rotator.classify, provider=self.kind, operation=operation, resource=resource):
                return act()
        except Exception as exc:  # noqa: BLE001  it is raised below, where no handler's error hangs on it
            failure: Exception = exc
        for value in (part for each in values for part in self._parts(each)):
            failure = sealed(failure, value, name=self.key, provider=self.kind, operation=operation, resource=resource)
        # An error that no table knows is a bug and keeps its frames; those of others hold values.
        raise failure.with_traceback(None) if isinstance(failure, ShiftableError) else failure

    def _parts(self, value: Masked) -> tuple[Masked, ...]:
        try:
            return self._rotator.parts(value)
        except ShiftableError:  # a value of another kind
            return (value,)

    def _store_beside(self, values: Sequence[Masked]) -> None:
        for key, text in self._rotator.beside(values).items():
            try:
                found = self._store.get(key)
            except NotFound:
                self._store.put(key, text, if_absent=True)
                continue
            if found.reveal_bytes() != text.encode():
                self._store.put(key, text, if_match=found.token)

    def _mend_beside(self, current: Masked) -> None:
        """Store what a run that ended between two writes has left out."""
        for key, text in self._rotator.beside((current,)).items():
            if not self._store.exists(key):
                self._store.put(key, text, if_absent=True)

    def _discard(self, value: Masked) -> None:
        self._on_target("create", (value,), lambda: self._rotator.discard(value))

    def _lost(self, step: Step) -> NoReturn:
        raise self._conflict(step, "another run is at work on it and was faster; nothing more was done here")

    def _conflict(self, step: str, message: str) -> Conflict:
        return Conflict(message, provider=self._store.provider, operation=f"rotation.{step}", resource=self._resource)


def _exposed(state: _State) -> str:
    """Say since when the current version is known to somebody who should not know it."""
    mark = state.current.labels.get(EXPOSED_LABEL)
    if mark is None:
        return ""
    try:
        moment = datetime.fromisoformat(mark)
    except ValueError:
        moment = None
    if moment is None:
        return f"it is marked as exposed ({mark})"
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    if state.created is not None and state.created > moment:
        return ""
    return f"it was exposed at {moment:%Y-%m-%d %H:%M}Z"


def _text(duration: object) -> str:
    return str(duration).removesuffix(", 0:00:00")

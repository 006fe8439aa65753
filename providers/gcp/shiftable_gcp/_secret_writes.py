"""How a version becomes part of a secret: exactly once, whatever happens to answers and whoever else writes."""

from __future__ import annotations

import base64
import logging
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal

import attrs
from google.api_core import exceptions as api_errors
from google.cloud.storage.exceptions import DataCorruption

from shiftable.errors import AlreadyExists, Conflict, NotFound
from shiftable.masking import Masked
from shiftable.secrets.driver import Secret
from shiftable.secrets.names import NAME_LABEL
from shiftable.tokens import Token
from shiftable_gcp._crc32c import crc32c
from shiftable_gcp._secret_api import ATTEMPTS, NAMES, PAGE, SecretsApi, failure, is_fault, number_of
from shiftable_gcp._secret_state import EMPTY, WRITES, State, label_facts, read_time
from shiftable_gcp._session import Attempts

__all__ = ["Write", "Writes", "check_expiry", "secret_of"]

logger = logging.getLogger(__name__)

_REGION = re.compile(r"[a-z]+-[a-z]+\d+")


@attrs.frozen
class Write:
    """One put."""

    name: str
    native: str
    payload: bytes = attrs.field(repr=False)
    stage: Literal["current", "pending"]
    if_absent: bool
    if_match: Token | None
    labels: Mapping[str, str] | None
    expires: datetime | None
    is_keyed: bool
    mark: str


@attrs.frozen
class Writes:
    """Puts of one driver."""

    _api: SecretsApi

    def put(self, write: Write) -> Secret:
        """Store a new version."""
        for _ in range(ATTEMPTS):
            stored = self._put(write)
            if stored is not None:
                return stored
        raise failure(409, "other writers are faster; try again")

    def _put(self, write: Write) -> Secret | None:
        """Store a version; ``None`` if another writer made it necessary to look again from the beginning."""
        state = self._api.read(write.name)
        repeated = self._repeated(state, write)
        if repeated is not None:
            return repeated
        _check_conditions(state, write)
        if state is None:
            state = self._created(write)
        elif state.current is not None and not state.is_pinned:
            state = self.pinned(state)
        if state is None:
            return None
        added, is_own = self._added(state, write)
        settled = self._settled(state, write, added, is_own=is_own)
        if settled is None:
            return None
        return secret_of(settled, number_of(added), write.payload, read_time(added.get("createTime")))

    def _repeated(self, state: State | None, write: Write) -> Secret | None:
        """Return what an earlier put under the same idempotency key stored."""
        number = state.journal.find(write.mark) if state is not None and state.is_alive else None
        if state is None or number is None:
            return None
        try:
            payload = self._api.payload(state.native, number)
        except api_errors.GoogleAPICallError as exc:
            if is_fault(exc, NotFound):  # destroyed since
                return None
            raise
        if payload != write.payload:
            raise failure(409, "the idempotency key was used with another value")
        return secret_of(state, number, payload, state.journal.made(number))

    def _created(self, write: Write) -> State | None:
        """Make a secret without any version; ``None`` if somebody made it since."""
        region = (self._api.session.region or "").lower()
        there = {"userManaged": {"replicas": [{"location": region}]}}
        original = NAMES.original(write.name)
        annotations = {WRITES: EMPTY} | ({NAME_LABEL: original} if original is not None else {})
        body = {"replication": there if _REGION.fullmatch(region) else {"automatic": {}}, "annotations": annotations}
        try:
            answer = self._api.rest.call("POST", self._api.secrets, query={"secretId": write.native}, body=body)
        except api_errors.GoogleAPICallError as exc:
            if is_fault(exc, AlreadyExists):
                return None
            raise
        return State.read(answer, NAMES)

    def pinned(self, state: State) -> State | None:
        """Say by an alias what is current, so that a version that is added is not."""
        if state.current is None:
            return state
        wanted = dict(state.aliases) | {"current": state.current}
        pinned = self._api.changed(state, {"versionAliases": wanted})
        if pinned is None:
            found = self._api.read(state.name)
            if found is not None and (found.aliases, found.annotations) == (wanted, state.annotations):
                return found  # the try whose answer was lost did it, or somebody else the same
        return pinned

    def _added(self, state: State, write: Write) -> tuple[Any, bool]:
        """Add a version that has no stage yet; return what is told of it, and whether nobody else can have it.

        Adding has no condition. So where an answer was lost, or where an earlier put with the same idempotency key may
        have ended here, it is looked whether the version is there already.
        """
        attempts = self._api.session.attempts()
        data = {"data": base64.b64encode(write.payload).decode(), "dataCrc32c": str(crc32c(write.payload))}

        def once() -> tuple[Any, bool]:
            found = self._adopted(state, write) if attempts.doubtful else None
            if found is not None:
                return found, False
            return self._api.rest.once(
                "POST", f"{self._api.path(write.native)}:addVersion", body={"payload": data}
            ), True

        added, is_own = attempts.policy(once)()
        number = number_of(added)
        is_compared = added.get("clientSpecifiedPayloadChecksum") or not is_own
        if not is_compared and self._api.payload(write.native, number) != write.payload:
            self._discard(write.native, added)
            raise DataCorruption(None, "the service stored something else than was sent")
        if is_own and write.is_keyed and number > state.known + 1:
            earlier = self._adopted(state, write, below=number)
            if earlier is not None:
                self._discard(write.native, added)
                return earlier, False
        return added, is_own

    def _adopted(self, state: State, write: Write, below: int | None = None) -> Any:  # noqa: ANN401  JSON
        """Take over a version with that value which came after a state and has no part in it; ``None``: there is none.

        To enable what is enabled changes nothing but the version's etag. So whoever added it, and gives up, can no
        longer destroy it. Nor may we: it may be another's who goes on.
        """
        fresh = self._api.read(write.name)
        taken = {*fresh.aliases.values(), *(entry.version for entry in fresh.journal.entries)} if fresh else set()
        path = f"{self._api.path(state.native)}/versions"
        for entry in self._api.rest.get(path, pageSize=PAGE, filter="state:ENABLED").get("versions", ()):
            number = number_of(entry)
            if number <= state.known:
                break
            if number in taken or (below is not None and number >= below):
                continue
            try:
                if self._api.payload(state.native, number) == write.payload:
                    return self._api.rest.call("POST", f"{path}/{number}:enable", body={"etag": entry["etag"]})
            except api_errors.GoogleAPICallError as exc:
                if not (
                    is_fault(exc, Conflict) or is_fault(exc, NotFound)
                ):  # destroyed since, or taken over by somebody else
                    raise
        return None

    def _settled(self, state: State, write: Write, added: Mapping[str, Any], *, is_own: bool) -> State | None:
        """Make a version part of the secret; ``None`` if that has to be thought about anew.

        A version that did not become part of it is destroyed, if it is ours alone and we know that it did not.
        """
        settled, doubtful = None, False
        try:
            found: State | None = state
            for _ in range(ATTEMPTS):
                if found is None:
                    break
                attempts = self._api.session.attempts()
                try:
                    settled = self._joined(found, write, added, attempts)
                finally:
                    doubtful = attempts.doubtful
                if settled is not None:
                    return settled
                found, doubtful = self._api.read(write.name), False
                if found is not None:
                    settled, is_open = _outcome(found, write, number_of(added))
                    if settled is not None or not is_open:
                        break
                    if write.if_match is not None or (write.if_absent and found.is_alive):
                        raise failure(412, "another writer was faster")
            else:
                raise failure(409, "other writers are faster; try again")
        except api_errors.ClientError:
            if is_own and not doubtful:
                self._discard(write.native, added)
            raise
        if settled is None and is_own:
            self._discard(write.native, added)
        return settled

    def _joined(self, state: State, write: Write, added: Mapping[str, Any], attempts: Attempts) -> State | None:
        """Try once to make a version part of the secret; ``None`` if that is no longer as it was read."""
        number = number_of(added)
        facts = label_facts(state.annotations, write.labels, write.expires)
        journal = state.journal.added(number, read_time(added.get("createTime")), write.mark)
        facts["annotations"][WRITES] = journal.text
        facts["versionAliases"] = state.moved(number, write.stage)
        return self._api.changed(state, facts, attempts)

    def _discard(self, native: str, added: Mapping[str, Any]) -> None:
        """Destroy a version of ours that lost, if we may and nobody took it over. It has no stage: nobody misses it."""
        number = number_of(added)
        try:
            self._api.destroy(native, number, etag=added["etag"])
        except Exception as exc:  # noqa: BLE001  what made it lose is what counts
            if not is_fault(exc, Conflict):
                logger.warning("version %d of %s is left over: %s", number, native, type(exc).__name__)


def _outcome(state: State, write: Write, number: int) -> tuple[State | None, bool]:
    """Say of a secret that changed since: whether our write did that, and else whether it can still be made.

    It did if the journal has its mark with that version: an answer was lost, or another put with the same idempotency
    key took it over. If the mark has another version, or the version another mark, then it has to begin anew.
    """
    earlier = state.journal.find(write.mark)
    is_wiped = number in state.aliases.values() and number not in state.journal
    if earlier == number or is_wiped:
        return state, False
    return None, earlier is None and number not in state.journal


def _check_conditions(state: State | None, write: Write) -> None:
    alive = state is not None and state.is_alive
    if write.if_absent and alive:
        raise failure(412, "the secret exists")
    if write.if_match is not None and (state is None or not alive or state.token != write.if_match):
        raise failure(412, "the secret was changed, or does not exist")
    if write.stage == "pending" and (state is None or state.current is None):
        raise failure(404, "there is no such secret; store a current version first")
    if state is not None:
        check_expiry(state, write.expires)


def check_expiry(state: State, expires: datetime | Literal["never"] | None) -> None:
    """Refuse an expiry that Google would not let the secret live to see."""
    if expires is None or state.expire_time is None:
        return
    if expires == "never" or expires > state.expire_time:
        raise failure(
            409,
            f"Google deletes the secret at {state.expire_time:%Y-%m-%d %H:%M} UTC; remove its expireTime with gcloud",
        )


def secret_of(state: State, number: int, payload: bytes, created: datetime | None) -> Secret:
    """Return one version of a secret."""
    return Secret(
        name=state.name,
        value=Masked(payload),
        version=str(number),
        stages=state.stages_of(number),
        token=state.token,
        created=created,
        labels=state.labels,
        expires=state.expires,
    )

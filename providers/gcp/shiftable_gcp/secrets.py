"""Secrets in Google Cloud's Secret Manager."""

from __future__ import annotations

import base64
import binascii
import logging
import re
import string
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any, Literal

import attrs
from google.api_core import exceptions as api_errors
from google.cloud.storage.exceptions import DataCorruption

from shiftable.errors import AlreadyExists, Conflict, Fault, NotFound, OperationError
from shiftable.features import Limit
from shiftable.masking import Masked
from shiftable.paging import Page
from shiftable.secrets.driver import (
    Secret,
    SecretInfo,
    SecretsDriver,
    SecretsFeatures,
    SecretsSpec,
    SecretVersion,
    Stage,
)
from shiftable.secrets.names import NAME_LABEL, NameMap
from shiftable.tokens import Token
from shiftable_gcp._crc32c import crc32c
from shiftable_gcp._rest import Rest
from shiftable_gcp._secret_state import (
    EMPTY,
    MAX_LABELS_TEXT,
    WRITES,
    State,
    label_facts,
    labels_text,
    mark_of,
    read_time,
)
from shiftable_gcp._session import Attempts, Session
from shiftable_gcp.errors import classify

__all__ = ["FEATURES", "HOST", "SecretManagerDriver"]

logger = logging.getLogger(__name__)

HOST = "https://secretmanager.googleapis.com"
_REFERENCE = "Secret Manager API reference"
_NAMES = NameMap("__", string.ascii_letters + string.digits + "_-", longest=255)

FEATURES = SecretsFeatures(
    title="Google Cloud Secret Manager",
    binary=True,
    text=False,
    labels=True,
    expiry=True,
    if_absent=True,
    if_match=True,
    atomic_if_match=True,
    pending=True,
    history=True,
    disable=True,
    recovery=False,
    update=True,
    destroy=True,
    max_name=Limit(255, f"{_REFERENCE}, projects.secrets.create; a slash counts twice"),
    max_value=Limit(65_536, "Secret Manager quotas and limits"),
    max_labels=Limit(64, f"{_REFERENCE}, Secret.labels; those that Google refuses share 6 KiB of an annotation"),
)

_PAGE = 500
_ATTEMPTS = 16  # each lost race is another writer's success
_VERSION = re.compile(r"[1-9]\d{0,17}", re.ASCII)
_REGION = re.compile(r"[a-z]+-[a-z]+\d+")

_Facts = dict[str, Any]


@attrs.frozen
class _Write:
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


@attrs.define
class SecretManagerDriver(SecretsDriver):
    """Secret Manager by REST: the official client would bring gRPC for twelve calls.

    Stages are version aliases: ``current``, ``previous``, ``pending``. A secret of another tool's that has no alias
    ``current`` has its newest enabled version as the current one; the first write sets the alias. ``latest`` is
    Google's own, and is whatever version was added last, also a pending one: other tools should ask for ``current``.

    A version is added first, and becomes part of the secret with one change of aliases and annotations that carries the
    secret's etag. That change decides between writers. Versions that lost are destroyed.

    Google's ``expireTime`` deletes a secret when it comes, so ``expires`` is not that but an annotation.
    """

    session: Session
    _rest: Rest = attrs.field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        self._rest = Rest(self.session, HOST)

    @property
    def provider(self) -> str:
        """The provider's name in errors."""
        return "gcp"

    @property
    def features(self) -> SecretsFeatures:
        """What this driver can do."""
        return FEATURES

    def classify(self, exc: Exception) -> Fault | None:
        """Say what a native exception means."""
        return classify(exc)

    # checks: they send nothing

    def check_secret(self, name: str) -> str | None:
        """Say why no secret could have that name."""
        return super().check_secret(name) or _NAMES.refusal(name)

    def check_labels(self, labels: Mapping[str, str]) -> str | None:
        """Say why those labels could not be kept: those that are none for Google stand together in one annotation."""
        if NAME_LABEL in labels:
            return f"the label {NAME_LABEL!r} is reserved"
        try:
            size = len(labels_text(labels).encode())
        except UnicodeEncodeError:
            return "a label is not Unicode text"
        if size > MAX_LABELS_TEXT:
            return (
                f"labels that are not all lower case, digits, _ and - have {size:,} bytes together; "
                f"the limit is {MAX_LABELS_TEXT:,} (chosen, of Google's 16 KiB of annotations)"
            )
        return super().check_labels(labels)

    # prefixes

    def create(self, spec: SecretsSpec) -> None:
        """Do nothing: a prefix needs no making."""

    def describe(self, name: str) -> SecretsSpec:
        """Return any prefix."""
        return SecretsSpec(name=name)

    def update(self, current: SecretsSpec, spec: SecretsSpec) -> None:
        """Do nothing: a prefix has no settings."""

    def destroy(self, name: str) -> None:
        """Fail while there are living secrets below the prefix."""
        if any(True for _ in self._all(f"{name}/" if name else "")):
            raise _failure(409, f"there are secrets below {name!r}; delete them first")

    def names(self, cursor: str | None, limit: int | None) -> Page[str]:  # noqa: ARG002  one page holds all
        """Return the first segments of all names, in one page: Google tells names only."""
        return Page(tuple(sorted({info.name.split("/")[0] for info in self._all("") if "/" in info.name})))

    # secrets

    def get(self, name: str, *, stage: Stage | None, version: str | None) -> Secret:
        """Return one version. What it is and what it holds are two calls; when another tool made it is a third."""
        state = self._living(name)
        number = state.stages.get(stage) if stage is not None else _number(version)
        if number is None:
            raise _failure(404, f"the secret has no {stage} version" if stage else "no such version")
        payload = self._payload(state.native, number)
        made = state.journal.made(number) or read_time(self._version(state.native, number).get("createTime"))
        return _secret(state, number, payload, made)

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
        """Store a new version. Idempotency keys are remembered beside the stages, at least the last 180 of a secret."""
        write = _Write(
            name,
            _NAMES.native(name),
            value.reveal_bytes(),
            stage,
            if_absent,
            if_match,
            labels,
            expires,
            is_keyed=idempotency_key is not None,
            mark=mark_of(idempotency_key),
        )
        for _ in range(_ATTEMPTS):
            stored = self._put(write)
            if stored is not None:
                return stored
        raise _failure(409, "other writers are faster; try again")

    def list(self, *, prefix: str, deleted: bool, cursor: str | None, limit: int | None) -> Page[SecretInfo]:
        """Return one page of secrets. Google matches parts of ids; names are looked at again here."""
        if deleted:
            return Page(())
        query: dict[str, str | int] = {"pageSize": min(limit or _PAGE, _PAGE)}
        beginning = _NAMES.beginning(prefix)
        if beginning and not beginning.startswith("-"):  # there it could mean: not
            query["filter"] = f"name:{beginning}"
        if cursor is not None:
            query["pageToken"] = cursor
        answer = self._rest.get(self._secrets, **query)
        states = (State.read(entry, _NAMES) for entry in answer.get("secrets", ()))
        found = (_info(state) for state in states if state.name.startswith(prefix) and not state.is_half_made)
        return Page(tuple(found), answer.get("nextPageToken") or None)

    def history(self, name: str, *, cursor: str | None, limit: int | None) -> Page[SecretVersion]:
        """Return one page of versions in Google's order, newest first. Destroyed ones are no longer shown."""
        state = self._living(name)
        query: dict[str, str | int] = {"pageSize": min(limit or _PAGE, _PAGE)}
        if cursor is not None:
            query["pageToken"] = cursor
        answer = self._rest.get(f"{self._path(state.native)}/versions", **query)
        entries = (entry for entry in answer.get("versions", ()) if entry["state"] != "DESTROYED")
        items = (_version(state, entry) for entry in entries)
        return Page(tuple(items), answer.get("nextPageToken") or None)

    def promote(self, name: str, version: str) -> None:
        """Move the aliases in one call."""
        number = self._existing(name, version)
        for _ in range(_ATTEMPTS):
            state = self._living(name)
            if state.current == number:
                return
            if self._version(state.native, number)["state"] != "ENABLED":
                raise _failure(409, f"its version {number} is disabled")
            if self._changed(state, {"versionAliases": _moved(state, number, "current")}) is not None:
                return
        raise _failure(409, "other writers are faster; try again")

    def delete(self, name: str, *, recovery: timedelta | None) -> None:  # noqa: ARG002  the features have none
        """Delete a secret for good."""
        native = _NAMES.native(name)
        if not _NAMES.is_certain(name):
            self._living(name)  # it may be another name's
        attempts = self.session.attempts()
        try:
            self._rest.call("DELETE", self._path(native), attempts=attempts)
        except api_errors.GoogleAPICallError as exc:
            if not (attempts.doubtful and _is(exc, NotFound)):  # else the try whose answer was lost did it
                raise

    # optional

    def disable(self, name: str, version: str) -> None:
        """Disable one version; Google's tools can enable it again. The current one stays current."""
        number = self._existing(name, version)
        for _ in range(_ATTEMPTS):
            state = self._living(name)
            # without an alias the one before it would become current
            if state.is_pinned or state.current != number or self._pinned(state) is not None:
                break
        else:
            raise _failure(409, "other writers are faster; try again")
        try:
            self._rest.call("POST", f"{self._path(state.native)}/versions/{number}:disable", body={})
        except api_errors.GoogleAPICallError as exc:
            if not _is(exc, Conflict) or self._version(state.native, number)["state"] != "DISABLED":
                raise

    def destroy_version(self, name: str, version: str) -> None:
        """Destroy one version, after its stage is taken from it."""
        number = self._existing(name, version)
        for _ in range(_ATTEMPTS):
            state = self._living(name)
            if state.current == number:
                raise _failure(409, "it is the current version; promote another one first")
            left = {alias: kept for alias, kept in state.aliases.items() if kept != number}
            if left == state.aliases or self._changed(state, {"versionAliases": left}) is not None:
                break
        else:
            raise _failure(409, "other writers are faster; try again")
        self._destroy(state.native, number)

    def relabel(
        self,
        name: str,
        *,
        labels: Mapping[str, str] | None,
        expires: datetime | Literal["never"] | None,
        if_match: Token | None,
    ) -> None:
        """Change labels and expiry in one call."""
        lost = False
        for _ in range(_ATTEMPTS):
            state = self._living(name)
            if if_match is not None and state.token != if_match:
                if lost and labels in (None, state.labels) and expires in (None, state.expires or "never"):
                    return  # the try whose answer was lost did it
                raise _failure(412, "the secret was changed")
            _check_expiry(state, expires)
            attempts = self.session.attempts()
            if self._changed(state, label_facts(state.annotations, labels, expires), attempts) is not None:
                return
            lost = attempts.doubtful
        raise _failure(409, "other writers are faster; try again")

    # reading

    @property
    def _secrets(self) -> str:
        return f"/v1/projects/{self.session.require_project()}/secrets"

    def _path(self, native: str) -> str:
        return f"{self._secrets}/{native}"

    def _read(self, name: str) -> State | None:
        """Return a secret, dead or alive; ``None`` if there is none."""
        native = _NAMES.native(name)
        try:
            state = State.read(self._rest.get(self._path(native)), _NAMES)
        except api_errors.GoogleAPICallError as exc:
            if _is(exc, NotFound):
                return None
            raise
        if state.name != name:
            raise _failure(409, f"its id {native!r} is taken by the secret {state.name!r}")
        return state if state.is_pinned or state.is_half_made else self._looked_through(state)

    def _etag(self, native: str) -> str:
        try:
            return str(self._rest.get(self._path(native)).get("etag", ""))
        except api_errors.GoogleAPICallError as exc:
            if _is(exc, NotFound):
                return ""
            raise

    def _looked_through(self, state: State) -> State:
        """Find the current version of a secret of which no alias tells it."""
        for query in ({"filter": "state:ENABLED", "pageSize": 1}, {"pageSize": _PAGE}):
            answer = self._rest.get(f"{self._path(state.native)}/versions", **query)
            living = [entry for entry in answer.get("versions", ()) if entry["state"] != "DESTROYED"]
            if living:
                newest = _number_of(living[0]) if living[0]["state"] == "ENABLED" else None
                return attrs.evolve(state, newest=newest, exists=True)
        return state

    def _living(self, name: str) -> State:
        state = self._read(name)
        if state is None or not state.is_alive:
            raise _failure(404, "there is no such secret")
        return state

    def _version(self, native: str, number: int) -> Any:  # noqa: ANN401  JSON
        """Return what is told of a version; a destroyed one is missing."""
        found = self._rest.get(f"{self._path(native)}/versions/{number}")
        if found["state"] == "DESTROYED":
            raise _failure(404, f"its version {number} is destroyed")
        return found

    def _existing(self, name: str, version: str) -> int:
        """Return the number of a version that may exist."""
        number = _number(version)
        if number is None:
            self._living(name)
            raise _failure(404, "no such version")
        return number

    def _payload(self, native: str, number: int) -> bytes:
        try:
            answer = self._rest.get(f"{self._path(native)}/versions/{number}:access")
        except api_errors.GoogleAPICallError as exc:
            if _is(exc, Conflict):
                self._version(native, number)  # destroyed is missing
            raise
        return _checked(answer)

    def _all(self, prefix: str) -> Iterator[SecretInfo]:
        cursor: str | None = None
        while True:
            page = self.list(prefix=prefix, deleted=False, cursor=cursor, limit=None)
            yield from page.items
            cursor = page.next
            if cursor is None:
                return

    # writing

    def _put(self, write: _Write) -> Secret | None:
        """Store a version; ``None`` if another writer made it necessary to look again from the beginning."""
        state = self._read(write.name)
        repeated = self._repeated(state, write)
        if repeated is not None:
            return repeated
        _check_conditions(state, write)
        if state is None:
            state = self._created(write)
        elif state.current is not None and not state.is_pinned:
            state = self._pinned(state)
        if state is None:
            return None
        added, is_own = self._added(state, write)
        settled = self._settled(state, write, added, is_own=is_own)
        if settled is None:
            return None
        return _secret(settled, _number_of(added), write.payload, read_time(added.get("createTime")))

    def _repeated(self, state: State | None, write: _Write) -> Secret | None:
        """Return what an earlier put under the same idempotency key stored."""
        number = state.journal.find(write.mark) if state is not None and state.is_alive else None
        if state is None or number is None:
            return None
        try:
            payload = self._payload(state.native, number)
        except api_errors.GoogleAPICallError as exc:
            if _is(exc, NotFound):  # destroyed since
                return None
            raise
        if payload != write.payload:
            raise _failure(409, "the idempotency key was used with another value")
        return _secret(state, number, payload, state.journal.made(number))

    def _created(self, write: _Write) -> State | None:
        """Make a secret without any version; ``None`` if somebody made it since."""
        region = (self.session.region or "").lower()
        there = {"userManaged": {"replicas": [{"location": region}]}}
        original = _NAMES.original(write.name)
        annotations = {WRITES: EMPTY} | ({NAME_LABEL: original} if original is not None else {})
        body = {"replication": there if _REGION.fullmatch(region) else {"automatic": {}}, "annotations": annotations}
        try:
            answer = self._rest.call("POST", self._secrets, query={"secretId": write.native}, body=body)
        except api_errors.GoogleAPICallError as exc:
            if _is(exc, AlreadyExists):
                return None
            raise
        return State.read(answer, _NAMES)

    def _pinned(self, state: State) -> State | None:
        """Say by an alias what is current, so that a version that is added is not."""
        if state.current is None:
            return state
        wanted = dict(state.aliases) | {"current": state.current}
        pinned = self._changed(state, {"versionAliases": wanted})
        if pinned is None:
            found = self._read(state.name)
            if found is not None and (found.aliases, found.annotations) == (wanted, state.annotations):
                return found  # the try whose answer was lost did it, or somebody else the same
        return pinned

    def _added(self, state: State, write: _Write) -> tuple[Any, bool]:
        """Add a version that has no stage yet; return what is told of it, and whether nobody else can have it.

        Adding has no condition. So where an answer was lost, or where an earlier put with the same idempotency key may
        have ended here, it is looked whether the version is there already.
        """
        attempts = self.session.attempts()
        data = {"data": base64.b64encode(write.payload).decode(), "dataCrc32c": str(crc32c(write.payload))}

        def once() -> tuple[Any, bool]:
            found = self._adopted(state, write) if attempts.doubtful else None
            if found is not None:
                return found, False
            return self._rest.once("POST", f"{self._path(write.native)}:addVersion", body={"payload": data}), True

        added, is_own = attempts.policy(once)()
        number = _number_of(added)
        is_compared = added.get("clientSpecifiedPayloadChecksum") or not is_own
        if not is_compared and self._payload(write.native, number) != write.payload:
            self._discard(write.native, added)
            raise DataCorruption(None, "the service stored something else than was sent")
        if is_own and write.is_keyed and number > state.known + 1:
            earlier = self._adopted(state, write, below=number)
            if earlier is not None:
                self._discard(write.native, added)
                return earlier, False
        return added, is_own

    def _adopted(self, state: State, write: _Write, below: int | None = None) -> Any:  # noqa: ANN401  JSON
        """Take over a version with that value which came after a state and has no part in it; ``None``: there is none.

        To enable what is enabled changes nothing but the version's etag. So whoever added it, and gives up, can no
        longer destroy it. Nor may we: it may be another's who goes on.
        """
        fresh = self._read(write.name)
        taken = {*fresh.aliases.values(), *(entry.version for entry in fresh.journal.entries)} if fresh else set()
        path = f"{self._path(state.native)}/versions"
        for entry in self._rest.get(path, pageSize=_PAGE, filter="state:ENABLED").get("versions", ()):
            number = _number_of(entry)
            if number <= state.known:
                break
            if number in taken or (below is not None and number >= below):
                continue
            try:
                if self._payload(state.native, number) == write.payload:
                    return self._rest.call("POST", f"{path}/{number}:enable", body={"etag": entry["etag"]})
            except api_errors.GoogleAPICallError as exc:
                if not (_is(exc, Conflict) or _is(exc, NotFound)):  # destroyed since, or taken over by somebody else
                    raise
        return None

    def _settled(self, state: State, write: _Write, added: Mapping[str, Any], *, is_own: bool) -> State | None:
        """Make a version part of the secret; ``None`` if that has to be thought about anew.

        A version that did not become part of it is destroyed, if it is ours alone and we know that it did not.
        """
        settled, doubtful = None, False
        try:
            found: State | None = state
            for _ in range(_ATTEMPTS):
                if found is None:
                    break
                attempts = self.session.attempts()
                try:
                    settled = self._joined(found, write, added, attempts)
                finally:
                    doubtful = attempts.doubtful
                if settled is not None:
                    return settled
                found, doubtful = self._read(write.name), False
                if found is not None:
                    settled, is_open = _outcome(found, write, _number_of(added))
                    if settled is not None or not is_open:
                        break
                    if write.if_match is not None or (write.if_absent and found.is_alive):
                        raise _failure(412, "another writer was faster")
            else:
                raise _failure(409, "other writers are faster; try again")
        except api_errors.ClientError:
            if is_own and not doubtful:
                self._discard(write.native, added)
            raise
        if settled is None and is_own:
            self._discard(write.native, added)
        return settled

    def _joined(self, state: State, write: _Write, added: Mapping[str, Any], attempts: Attempts) -> State | None:
        """Try once to make a version part of the secret; ``None`` if that is no longer as it was read."""
        number = _number_of(added)
        facts = label_facts(state.annotations, write.labels, write.expires)
        journal = state.journal.added(number, read_time(added.get("createTime")), write.mark)
        facts["annotations"][WRITES] = journal.text
        facts["versionAliases"] = _moved(state, number, write.stage)
        return self._changed(state, facts, attempts)

    def _changed(self, state: State, facts: Mapping[str, Any], attempts: Attempts | None = None) -> State | None:
        """Set fields of a secret that is as it was read; ``None`` if it no longer is."""
        mask = ",".join(sorted(facts))
        body = {**facts, "etag": state.etag}
        if "versionAliases" in body:
            body["versionAliases"] = {alias: str(number) for alias, number in facts["versionAliases"].items()}
        try:
            answer = self._rest.call(
                "PATCH", self._path(state.native), query={"updateMask": mask}, body=body, attempts=attempts
            )
        except api_errors.GoogleAPICallError as exc:
            if _is(exc, NotFound) or (_is(exc, Conflict) and self._etag(state.native) != state.etag):
                return None
            raise
        return State.read(answer, _NAMES)

    def _destroy(self, native: str, number: int, **etag: str) -> None:
        place = f"{self._path(native)}/versions/{number}"
        try:
            self._rest.call("POST", f"{place}:destroy", body=etag)
        except api_errors.GoogleAPICallError as exc:
            if not _is(exc, Conflict) or self._rest.get(place)["state"] != "DESTROYED":
                raise

    def _discard(self, native: str, added: Mapping[str, Any]) -> None:
        """Destroy a version of ours that lost, if we may and nobody took it over. It has no stage: nobody misses it."""
        number = _number_of(added)
        try:
            self._destroy(native, number, etag=added["etag"])
        except Exception as exc:  # noqa: BLE001  what made it lose is what counts
            if not _is(exc, Conflict):
                logger.warning("version %d of %s is left over: %s", number, native, type(exc).__name__)


def _outcome(state: State, write: _Write, number: int) -> tuple[State | None, bool]:
    """Say of a secret that changed since: whether our write did that, and else whether it can still be made.

    It did if the journal has its mark with that version: an answer was lost, or another put with the same idempotency
    key took it over. If the mark has another version, or the version another mark, then it has to begin anew.
    """
    earlier = state.journal.find(write.mark)
    is_wiped = number in state.aliases.values() and number not in state.journal
    if earlier == number or is_wiped:
        return state, False
    return None, earlier is None and number not in state.journal


def _check_conditions(state: State | None, write: _Write) -> None:
    alive = state is not None and state.is_alive
    if write.if_absent and alive:
        raise _failure(412, "the secret exists")
    if write.if_match is not None and (state is None or not alive or state.token != write.if_match):
        raise _failure(412, "the secret was changed, or does not exist")
    if write.stage == "pending" and (state is None or state.current is None):
        raise _failure(404, "there is no such secret; store a current version first")
    if state is not None:
        _check_expiry(state, write.expires)


def _check_expiry(state: State, expires: datetime | Literal["never"] | None) -> None:
    """Refuse an expiry that Google would not let the secret live to see."""
    if expires is None or state.expire_time is None:
        return
    if expires == "never" or expires > state.expire_time:
        raise _failure(
            409,
            f"Google deletes the secret at {state.expire_time:%Y-%m-%d %H:%M} UTC; remove its expireTime with gcloud",
        )


def _moved(state: State, number: int, stage: Literal["current", "pending"]) -> dict[str, int]:
    """Return the aliases with one stage moved, as the contract of promote and put says."""
    aliases = dict(state.aliases)
    if stage == "pending":
        return aliases | {"pending": number}
    if state.current not in (None, number):
        aliases["previous"] = state.current
    if aliases.get("pending") == number:
        del aliases["pending"]
    return aliases | {"current": number}


def _secret(state: State, number: int, payload: bytes, created: datetime | None) -> Secret:
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


def _info(state: State) -> SecretInfo:
    current = state.aliases.get("current")
    return SecretInfo(
        name=state.name,
        version=str(current) if current is not None else None,
        labels=state.labels,
        expires=state.expires,
    )


def _version(state: State, entry: Mapping[str, Any]) -> SecretVersion:
    number = _number_of(entry)
    return SecretVersion(
        name=state.name,
        version=str(number),
        stages=state.stages_of(number),
        created=read_time(entry.get("createTime")),
        enabled=entry["state"] == "ENABLED",
    )


def _number_of(entry: Mapping[str, Any]) -> int:
    return int(entry["name"].rpartition("/")[2])


def _number(version: str | None) -> int | None:
    return int(version) if version is not None and _VERSION.fullmatch(version) else None


def _checked(answer: Mapping[str, Any]) -> bytes:
    """Return the value of an answer, if it is what its checksum says."""
    try:
        payload = base64.b64decode(answer["payload"]["data"], validate=True)
        stated = answer["payload"].get("dataCrc32c")
        if stated is None or int(stated) == crc32c(payload):
            return payload
    except (KeyError, TypeError, ValueError, binascii.Error):
        pass  # it may quote the value: ours is raised where that one cannot hang on it
    raise DataCorruption(None, "the value does not match its checksum")


def _is(exc: Exception, error: type[OperationError]) -> bool:
    fault = classify(exc)
    return fault is not None and fault.error is error


def _failure(status: int, message: str) -> api_errors.GoogleAPICallError:
    """Return what the service would answer."""
    made: api_errors.GoogleAPICallError = api_errors.from_http_status(status, message)
    return made

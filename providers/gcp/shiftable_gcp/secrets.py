"""Secrets in Google Cloud's Secret Manager."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Literal

import attrs
from google.api_core import exceptions as api_errors

from shiftable.errors import Conflict, Fault, NotFound
from shiftable.masking import Masked
from shiftable.paging import Page
from shiftable.secrets.driver import (
    Secret,
    SecretInfo,
    SecretsDriver,
    SecretsFeatures,
    SecretVersion,
    Stage,
)
from shiftable.secrets.names import NAME_LABEL
from shiftable.tokens import Token
from shiftable_gcp import _features
from shiftable_gcp._secret_api import ATTEMPTS, NAMES, PAGE, SecretsApi, failure, is_fault, number_in, number_of
from shiftable_gcp._secret_state import MAX_LABELS_TEXT, State, label_facts, labels_text, mark_of, read_time
from shiftable_gcp._secret_writes import Write, Writes, check_expiry, secret_of
from shiftable_gcp._session import Session
from shiftable_gcp.errors import classify

__all__ = ["SecretManagerDriver"]


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
    _api: SecretsApi = attrs.field(init=False, repr=False)
    _writes: Writes = attrs.field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        self._api = SecretsApi(self.session)
        self._writes = Writes(self._api)

    @property
    def provider(self) -> str:
        """The provider's name in errors."""
        return "gcp"

    @property
    def features(self) -> SecretsFeatures:
        """What this driver can do."""
        return _features.SECRETS

    def classify(self, exc: Exception) -> Fault | None:
        """Say what a native exception means."""
        return classify(exc)

    # checks: they send nothing

    def check_secret(self, name: str) -> str | None:
        """Say why no secret could have that name."""
        return super().check_secret(name) or NAMES.refusal(name)

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

    # secrets

    def get(self, name: str, *, stage: Stage | None, version: str | None) -> Secret:
        """Return one version. What it is and what it holds are two calls; when another tool made it is a third."""
        state = self._api.living(name)
        number = state.stages.get(stage) if stage is not None else number_in(version)
        if number is None:
            raise failure(404, f"the secret has no {stage} version" if stage else "no such version")
        payload = self._api.payload(state.native, number)
        made = state.journal.made(number) or read_time(self._api.version(state.native, number).get("createTime"))
        return secret_of(state, number, payload, made)

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
        write = Write(
            name,
            NAMES.native(name),
            value.reveal_bytes(),
            stage,
            if_absent,
            if_match,
            labels,
            expires,
            is_keyed=idempotency_key is not None,
            mark=mark_of(idempotency_key),
        )
        return self._writes.put(write)

    def list(self, *, prefix: str, deleted: bool, cursor: str | None, limit: int | None) -> Page[SecretInfo]:
        """Return one page of secrets. Google matches parts of ids; names are looked at again here."""
        if deleted:
            return Page(())
        query: dict[str, str | int] = {"pageSize": min(limit or PAGE, PAGE)}
        beginning = NAMES.beginning(prefix)
        if beginning and not beginning.startswith("-"):  # there it could mean: not
            query["filter"] = f"name:{beginning}"
        if cursor is not None:
            query["pageToken"] = cursor
        answer = self._api.rest.get(self._api.secrets, **query)
        states = (State.read(entry, NAMES) for entry in answer.get("secrets", ()))
        found = (_info(state) for state in states if state.name.startswith(prefix) and not state.is_half_made)
        return Page(tuple(found), answer.get("nextPageToken") or None)

    def history(self, name: str, *, cursor: str | None, limit: int | None) -> Page[SecretVersion]:
        """Return one page of versions in Google's order, newest first. Destroyed ones are no longer shown."""
        state = self._api.living(name)
        query: dict[str, str | int] = {"pageSize": min(limit or PAGE, PAGE)}
        if cursor is not None:
            query["pageToken"] = cursor
        answer = self._api.rest.get(f"{self._api.path(state.native)}/versions", **query)
        entries = (entry for entry in answer.get("versions", ()) if entry["state"] != "DESTROYED")
        items = (_version(state, entry) for entry in entries)
        return Page(tuple(items), answer.get("nextPageToken") or None)

    def promote(self, name: str, version: str, *, if_match: Token | None) -> None:
        """Move the aliases in one call."""
        number = self._api.existing(name, version)
        for _ in range(ATTEMPTS):
            state = self._api.living(name)
            if state.current == number:
                return
            if if_match is not None and state.token != if_match:
                raise failure(412, "the secret was changed")
            if self._api.version(state.native, number)["state"] != "ENABLED":
                raise failure(409, f"its version {number} is disabled")
            if self._api.changed(state, {"versionAliases": state.moved(number, "current")}) is not None:
                return
        raise failure(409, "other writers are faster; try again")

    def delete(self, name: str, *, recovery: timedelta | None) -> None:  # noqa: ARG002  the features have none
        """Delete a secret for good."""
        native = NAMES.native(name)
        if not NAMES.is_certain(name):
            self._api.living(name)  # it may be another name's
        attempts = self.session.attempts()
        try:
            self._api.rest.call("DELETE", self._api.path(native), attempts=attempts)
        except api_errors.GoogleAPICallError as exc:
            if not (attempts.doubtful and is_fault(exc, NotFound)):  # else the try whose answer was lost did it
                raise

    # optional

    def disable(self, name: str, version: str) -> None:
        """Disable one version; Google's tools can enable it again. The current one stays current."""
        number = self._api.existing(name, version)
        for _ in range(ATTEMPTS):
            state = self._api.living(name)
            # without an alias the one before it would become current
            if state.is_pinned or state.current != number or self._writes.pinned(state) is not None:
                break
        else:
            raise failure(409, "other writers are faster; try again")
        try:
            self._api.rest.call("POST", f"{self._api.path(state.native)}/versions/{number}:disable", body={})
        except api_errors.GoogleAPICallError as exc:
            if not is_fault(exc, Conflict) or self._api.version(state.native, number)["state"] != "DISABLED":
                raise

    def destroy_version(self, name: str, version: str) -> None:
        """Destroy one version, after its stage is taken from it."""
        number = self._api.existing(name, version)
        for _ in range(ATTEMPTS):
            state = self._api.living(name)
            if state.current == number:
                raise failure(409, "it is the current version; promote another one first")
            left = {alias: kept for alias, kept in state.aliases.items() if kept != number}
            if left == state.aliases or self._api.changed(state, {"versionAliases": left}) is not None:
                break
        else:
            raise failure(409, "other writers are faster; try again")
        self._api.destroy(state.native, number)

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
        for _ in range(ATTEMPTS):
            state = self._api.living(name)
            if if_match is not None and state.token != if_match:
                if lost and labels in (None, state.labels) and expires in (None, state.expires or "never"):
                    return  # the try whose answer was lost did it
                raise failure(412, "the secret was changed")
            check_expiry(state, expires)
            attempts = self.session.attempts()
            if self._api.changed(state, label_facts(state.annotations, labels, expires), attempts) is not None:
                return
            lost = attempts.doubtful
        raise failure(409, "other writers are faster; try again")

    # what they share


def _info(state: State) -> SecretInfo:
    current = state.aliases.get("current")
    return SecretInfo(
        name=state.name,
        version=str(current) if current is not None else None,
        labels=state.labels,
        expires=state.expires,
    )


def _version(state: State, entry: Mapping[str, Any]) -> SecretVersion:
    number = number_of(entry)
    return SecretVersion(
        name=state.name,
        version=str(number),
        stages=state.stages_of(number),
        created=read_time(entry.get("createTime")),
        enabled=entry["state"] == "ENABLED",
    )

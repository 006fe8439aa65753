"""Secret Manager's calls, as the driver and its writes need them: by our names, and answered as states."""

from __future__ import annotations

import base64
import binascii
import re
import string
from collections.abc import Mapping
from typing import Any

import attrs
from google.api_core import exceptions as api_errors
from google.cloud.storage.exceptions import DataCorruption

from shiftable.errors import Conflict, NotFound, OperationError
from shiftable.secrets.names import NameMap
from shiftable_gcp._crc32c import crc32c
from shiftable_gcp._rest import Rest
from shiftable_gcp._secret_state import State
from shiftable_gcp._session import Attempts, Session
from shiftable_gcp.errors import classify

__all__ = ["ATTEMPTS", "HOST", "NAMES", "PAGE", "SecretsApi", "failure", "is_fault", "number_in", "number_of"]

HOST = "https://secretmanager.googleapis.com"
NAMES = NameMap("__", string.ascii_letters + string.digits + "_-", longest=255)
PAGE = 500
ATTEMPTS = 16
"""How often a lost race is run again: each is another writer's success."""

_VERSION = re.compile(r"[1-9]\d{0,17}", re.ASCII)


class SecretsApi:
    """The calls of one project."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.rest = Rest(session, HOST)

    @property
    def secrets(self) -> str:
        """The path of all secrets."""
        return f"/v1/projects/{self.session.require_project()}/secrets"

    def path(self, native: str) -> str:
        """Return the path of a secret."""
        return f"{self.secrets}/{native}"

    def read(self, name: str) -> State | None:
        """Return a secret, dead or alive; ``None`` if there is none."""
        native = NAMES.native(name)
        try:
            state = State.read(self.rest.get(self.path(native)), NAMES)
        except api_errors.GoogleAPICallError as exc:
            if is_fault(exc, NotFound):
                return None
            raise
        if state.name != name:
            raise failure(409, f"its id {native!r} is taken by the secret {state.name!r}")
        return state if state.is_pinned or state.is_half_made else self._looked_through(state)

    def _etag(self, native: str) -> str:
        try:
            return str(self.rest.get(self.path(native)).get("etag", ""))
        except api_errors.GoogleAPICallError as exc:
            if is_fault(exc, NotFound):
                return ""
            raise

    def _looked_through(self, state: State) -> State:
        """Find the current version of a secret of which no alias tells it."""
        for query in ({"filter": "state:ENABLED", "pageSize": 1}, {"pageSize": PAGE}):
            answer = self.rest.get(f"{self.path(state.native)}/versions", **query)
            living = [entry for entry in answer.get("versions", ()) if entry["state"] != "DESTROYED"]
            if living:
                newest = number_of(living[0]) if living[0]["state"] == "ENABLED" else None
                return attrs.evolve(state, newest=newest, exists=True)
        return state

    def living(self, name: str) -> State:
        """Return a secret that can be read."""
        state = self.read(name)
        if state is None or not state.is_alive:
            raise failure(404, "there is no such secret")
        return state

    def version(self, native: str, number: int) -> Any:  # noqa: ANN401  JSON
        """Return what is told of a version; a destroyed one is missing."""
        found = self.rest.get(f"{self.path(native)}/versions/{number}")
        if found["state"] == "DESTROYED":
            raise failure(404, f"its version {number} is destroyed")
        return found

    def existing(self, name: str, version: str) -> int:
        """Return the number of a version that may exist."""
        number = number_in(version)
        if number is None:
            self.living(name)
            raise failure(404, "no such version")
        return number

    def payload(self, native: str, number: int) -> bytes:
        """Return a version's value."""
        try:
            answer = self.rest.get(f"{self.path(native)}/versions/{number}:access")
        except api_errors.GoogleAPICallError as exc:
            if is_fault(exc, Conflict):
                self.version(native, number)  # destroyed is missing
            raise
        return _checked(answer)

    def changed(self, state: State, facts: Mapping[str, Any], attempts: Attempts | None = None) -> State | None:
        """Set fields of a secret that is as it was read; ``None`` if it no longer is."""
        mask = ",".join(sorted(facts))
        body = {**facts, "etag": state.etag}
        if "versionAliases" in body:
            body["versionAliases"] = {alias: str(number) for alias, number in facts["versionAliases"].items()}
        try:
            answer = self.rest.call(
                "PATCH", self.path(state.native), query={"updateMask": mask}, body=body, attempts=attempts
            )
        except api_errors.GoogleAPICallError as exc:
            if is_fault(exc, NotFound) or (is_fault(exc, Conflict) and self._etag(state.native) != state.etag):
                return None
            raise
        return State.read(answer, NAMES)

    def destroy(self, native: str, number: int, **etag: str) -> None:
        """Destroy a version. Again: no change."""
        place = f"{self.path(native)}/versions/{number}"
        try:
            self.rest.call("POST", f"{place}:destroy", body=etag)
        except api_errors.GoogleAPICallError as exc:
            if not is_fault(exc, Conflict) or self.rest.get(place)["state"] != "DESTROYED":
                raise


def number_of(entry: Mapping[str, Any]) -> int:
    """Return the number of a version that is told of."""
    return int(entry["name"].rpartition("/")[2])


def number_in(version: str | None) -> int | None:
    """Return the number that a version's id is; ``None`` if it is none."""
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


def is_fault(exc: Exception, error: type[OperationError]) -> bool:
    """Tell whether an exception means exactly that."""
    fault = classify(exc)
    return fault is not None and fault.error is error


def failure(status: int, message: str) -> api_errors.GoogleAPICallError:
    """Return what the service would answer."""
    made: api_errors.GoogleAPICallError = api_errors.from_http_status(status, message)
    return made

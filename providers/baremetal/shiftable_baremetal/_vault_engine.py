"""The calls of one KV engine of version 2, each with the rule of a policy that allows it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from hvac import exceptions
from hvac.utils import format_url

from shiftable.errors import Conflict
from shiftable_baremetal._vault_layout import CasMismatch, Document, Meta, Refusal
from shiftable_baremetal._vault_session import VaultSession

__all__ = ["KvEngine"]

_MERGE_PATCH = {"Content-Type": "application/merge-patch+json"}


class KvEngine:
    """What is stored below a mount. Paths are those of secrets, without a slash at either end.

    A path that is not there is ``None``, or has no entries; what fails otherwise is raised as hvac does.
    """

    def __init__(self, session: VaultSession) -> None:
        self._session = session
        self._mount = session.mount
        self._kv: Any = session.client.secrets.kv.v2
        self._checked = False

    def read(self, path: str, number: int | None = None) -> Document | None:
        """Return what a number holds, else the newest one; without its fields if it is deleted or destroyed."""

        def act() -> Any:  # noqa: ANN401  hvac has no types
            return self._kv.read_secret_version(path, number, self._mount, raise_on_deleted_version=True)

        answer = self._found(act, "data", path, "read")
        if answer is not None and "metadata" not in answer["data"]:
            raise self._version_1()
        return None if answer is None else Document.of(answer)

    def meta(self, path: str) -> Meta | None:
        """Return the metadata of a path; ``None`` also where nothing was ever stored."""
        answer = self._found(lambda: self._kv.read_secret_metadata(path, self._mount), "metadata", path, "read")
        if answer is not None and "current_version" not in answer["data"]:
            raise self._version_1()
        found = None if answer is None else Meta.of(answer)
        return found if found is not None and found.newest else None

    def write(self, path: str, fields: Mapping[str, Any], newest: int) -> Document:
        """Store fields if that is the newest number; 0: if there is none.

        Raises:
            CasMismatch: it is another.
        """
        self._check()
        rule = self._rule("data", path, "update" if newest else "create")
        try:
            answer = self._session.call(
                lambda: self._kv.create_or_update_secret(path, dict(fields), newest, self._mount), rule
            )
        except exceptions.InvalidRequest as exc:
            if "check-and-set parameter did not match" in str(exc):
                raise CasMismatch from exc
            raise
        return Document.of({"data": {"data": fields, "metadata": answer["data"]}})

    def annotate(self, path: str, custom: Mapping[str, str | None]) -> None:
        """Change some of the custom metadata of a path; ``None`` removes one. hvac has no call for it."""
        url = format_url("/v1/{mount}/metadata/{path}", mount=self._mount, path=path)
        adapter, body = self._session.client.adapter, {"custom_metadata": dict(custom)}
        self._session.call(
            lambda: adapter.request("patch", url, headers=dict(_MERGE_PATCH), json=body),
            self._rule("metadata", path, "patch"),
        )

    def delete(self, path: str, numbers: Iterable[int]) -> None:
        """Make some numbers unreadable; none is no call."""
        self._change("delete", self._kv.delete_secret_versions, path, numbers)

    def undelete(self, path: str, numbers: Iterable[int]) -> None:
        """Make some numbers readable again."""
        self._change("undelete", self._kv.undelete_secret_versions, path, numbers)

    def destroy(self, path: str, numbers: Iterable[int]) -> None:
        """End the values of some numbers for good."""
        self._change("destroy", self._kv.destroy_secret_versions, path, numbers)

    def erase(self, path: str) -> None:
        """End a path with everything in it. There may be none."""
        self._session.call(
            lambda: self._kv.delete_metadata_and_all_versions(path, self._mount), self._rule("metadata", path, "delete")
        )

    def entries(self, folder: str) -> tuple[str, ...]:
        """Return what lies in a folder, in order; folders end with a slash. The empty one is the mount."""
        answer = self._found(lambda: self._kv.list_secrets(folder, self._mount), "metadata", f"{folder}/", "list")
        return () if answer is None else tuple(sorted(answer["data"]["keys"]))

    # what they share

    def _found(self, act: Callable[[], Any], area: str, path: str, capability: str) -> Any:  # noqa: ANN401
        try:
            return self._session.call(act, self._rule(area, path.lstrip("/"), capability))
        except exceptions.InvalidPath as exc:
            told = exc.json or {}
            if told.get("data"):  # deleted or destroyed: with metadata, and 404
                return told
            if told.get("errors"):  # nothing is mounted there
                raise
            return None

    def _change(self, area: str, act: Callable[..., Any], path: str, numbers: Iterable[int]) -> None:
        wanted = sorted(numbers)
        if wanted:
            self._session.call(lambda: act(path, wanted, self._mount), self._rule(area, path, "update"))

    def _rule(self, area: str, path: str, capability: str) -> str:
        return f'path "{self._mount}/{area}/{path}" {{ capabilities = ["{capability}"] }}'

    def _check(self) -> None:
        """Refuse an engine of version 1 before the first write: it would store what was sent as it is, elsewhere."""
        if self._checked:
            return
        url = format_url("/v1/sys/internal/ui/mounts/{mount}", mount=self._mount)
        answer = self._session.call(lambda: self._session.client.adapter.get(url), self._rule("data", "*", "create"))
        told = answer["data"]
        if told.get("type") != "kv" or (told.get("options") or {}).get("version") != "2":
            raise self._version_1()
        self._checked = True

    def _version_1(self) -> Refusal:
        return Refusal(
            Conflict, f"the mount {self._mount!r} is no KV engine of version 2; `vault kv enable-versioning` makes one"
        )

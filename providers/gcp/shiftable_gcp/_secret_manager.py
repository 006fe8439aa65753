"""The double's Secret Manager: secrets, their versions and aliases, with the limits and refusals of the service."""

from __future__ import annotations

import base64
import binascii
import json
import re
import unicodedata
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import attrs

from shiftable.testing.harness import Request, Response
from shiftable_gcp._calls import Call, Routes, answered
from shiftable_gcp._crc32c import crc32c
from shiftable_gcp._state import Refused

__all__ = ["SecretManager", "StoredSecret", "StoredVersion"]

PAGE = 25_000
_ID = re.compile(r"[A-Za-z0-9_-]{1,255}")
_ALIAS = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,62}")
_ANNOTATION = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?")
_FILTER = re.compile(r'(name|state)[:=]"?([A-Za-z0-9_/*-]+)"?')
_MAX_PAYLOAD = 64 * 1024
_MAX_ANNOTATIONS = 16 * 1024
_MAX_LABELS, _MAX_ALIASES = 64, 50
_SETTABLE = ("annotations", "expireTime", "labels", "rotation", "topics", "ttl", "versionAliases", "versionDestroyTtl")
_CODES = {400: "INVALID_ARGUMENT", 401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED", 404: "NOT_FOUND"}
_KINDS = {"access": "access", "get": "read", "list": "read"}


@attrs.define
class StoredVersion:
    """One version of a secret; destroyed ones have no payload."""

    number: int
    created: datetime
    etag: str
    payload: bytes | None = attrs.field(repr=False)
    checksum_sent: bool = False
    state: str = "ENABLED"
    destroyed: datetime | None = None
    scheduled: datetime | None = None


@attrs.define
class StoredSecret:
    """One secret. ``facts`` are the fields that a caller may set, as the API names them."""

    id: str
    project: str
    created: datetime
    etag: str
    replication: dict[str, Any]
    facts: dict[str, Any] = attrs.Factory(dict)
    versions: dict[int, StoredVersion] = attrs.Factory(dict)

    @property
    def aliases(self) -> dict[str, int]:
        """Which version each alias stands for."""
        return {alias: int(number) for alias, number in self.facts.get("versionAliases", {}).items()}


_Handler = Callable[[Call], dict[str, Any]]


@attrs.define
class SecretManager:
    """Answers Secret Manager's API, one request at a time.

    Attributes:
        secrets: by project and id.
        page_size: how much a page of a listing holds at most.
        quotas: calls a minute of one project, by kind: ``access``, ``read``, ``write``; the service's own are 90,000,
            600 and 600. Absent: not counted.
    """

    now: Callable[[], datetime]
    page_size: int = PAGE
    quotas: dict[str, int] = attrs.Factory(dict)
    secrets: dict[tuple[str, str], StoredSecret] = attrs.Factory(dict)
    _used: Counter[tuple[str, str, int]] = attrs.field(factory=Counter, init=False)
    _etags: int = attrs.field(default=0x1619B2C0E5B3C8, init=False)
    _routes: Routes[tuple[str, _Handler]] = attrs.field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        one = "([^/:]+)"
        secrets = f"/v1/projects/{one}/secrets"
        secret, versions = f"{secrets}/{one}", f"{secrets}/{one}/versions"
        table: tuple[tuple[str, str, str, _Handler], ...] = (
            ("GET", secrets, "list", self._list),
            ("POST", secrets, "create", self._create),
            ("GET", secret, "get", self._get),
            ("PATCH", secret, "patch", self._patch),
            ("DELETE", secret, "delete", self._delete),
            ("POST", f"{secret}:addVersion", "addVersion", self._add),
            ("GET", versions, "list", self._list_versions),
            ("GET", f"{versions}/{one}", "get", self._get_version),
            ("GET", f"{versions}/{one}:access", "access", self._access),
            ("POST", f"{versions}/{one}:enable", "enable", lambda call: self._turn(call, "ENABLED")),
            ("POST", f"{versions}/{one}:disable", "disable", lambda call: self._turn(call, "DISABLED")),
            ("POST", f"{versions}/{one}:destroy", "destroy", self._destroy),
        )
        self._routes = Routes((verb, path, (kind, handler)) for verb, path, kind, handler in table)

    def forget(self) -> None:
        """Delete everything, and count nothing."""
        self.secrets.clear()
        self.quotas.clear()
        self._used.clear()
        self.page_size = PAGE

    def answer(self, request: Request, refused: Refused | None) -> Response:
        """Execute a request, or refuse it as whoever looked at the credentials says."""
        if refused is not None:
            return _refusal(Refused(refused.status, "", _CODES[refused.status], refused.message))
        found = self._routes.find(request)
        if found is None:
            return _refusal(Refused(501, "", "UNIMPLEMENTED", "not in the double"))
        (kind, handler), call = found
        try:
            self._count(call.names[0], _KINDS.get(kind, "write"))
            self._expire()
            return answered(200, handler(call))
        except Refused as exc:
            return _refusal(exc)

    def number(self, project: str) -> str:
        """Return the number of a project: answers have it where requests have the id."""
        return project if project.isdigit() else str(100_000_000_000 + zlib.crc32(project.encode()))

    # secrets

    def _list(self, call: Call) -> dict[str, Any]:
        project = self.number(call.names[0])
        found = [each for (owner, _), each in self.secrets.items() if owner == project]
        wanted = _filter(call.query, "name")
        if wanted is not None:
            found = [each for each in found if _contains(self._place(each), wanted)]
        rows, token = self._paged(call, sorted(found, key=_order, reverse=True))
        return _page("secrets", [self._secret(each) for each in rows], token, None if wanted else len(found))

    def _create(self, call: Call) -> dict[str, Any]:
        id_, body, project = call.query.get("secretId", ""), call.body, self.number(call.names[0])
        if not _ID.fullmatch(id_):
            raise _invalid(f"The provided Secret ID [{id_}] does not match the expected format [[a-zA-Z_0-9]+].")
        if (project, id_) in self.secrets:
            raise Refused(409, "", "ALREADY_EXISTS", f"Secret [projects/{project}/secrets/{id_}] already exists.")
        replication = body.get("replication", {})
        if len({"automatic", "userManaged"} & set(replication)) != 1:
            raise _invalid("Field [secret.replication] must have exactly one replication policy.")
        if "userManaged" in replication and not replication["userManaged"].get("replicas"):
            raise _invalid("Field [secret.replication.user_managed.replicas] cannot be empty.")
        facts = {name: body[name] for name in _SETTABLE if name in body}
        _check(facts, versions=())
        made = StoredSecret(id_, project, self.now(), self._etag(), replication, self._timed(facts))
        self.secrets[project, id_] = made
        return self._secret(made)

    def _get(self, call: Call) -> dict[str, Any]:
        return self._secret(self._found(call))

    def _patch(self, call: Call) -> dict[str, Any]:
        secret, body = self._found(call), call.body
        mask = [_camel(name) for name in call.query.get("updateMask", "").split(",") if name]
        if not mask:
            raise _invalid("Field [update_mask] must be specified.")
        unknown = [name for name in mask if name not in (*_SETTABLE, "etag")]
        if unknown:
            raise _invalid(f"Field [update_mask] contains unknown or immutable paths: {', '.join(unknown)}")
        self._match(body.get("etag"), secret.etag)
        changed = {name: body[name] for name in mask if name in body and name != "etag"}
        _check(changed, secret.versions)
        kept = {name: value for name, value in secret.facts.items() if name not in mask}
        secret.facts = kept | self._timed(changed)
        secret.etag = self._etag()
        return self._secret(secret)

    def _delete(self, call: Call) -> dict[str, Any]:
        secret = self._found(call)
        self._match(call.query.get("etag"), secret.etag)
        del self.secrets[secret.project, secret.id]
        return {}

    # versions

    def _add(self, call: Call) -> dict[str, Any]:
        secret, stated = self._found(call), call.body.get("payload") or {}
        try:
            payload = base64.b64decode(stated.get("data", ""), validate=True)
        except (binascii.Error, ValueError) as exc:
            raise _invalid("Invalid value at 'payload.data' (TYPE_BYTES), Base64 decoding failed.") from exc
        if not payload:
            raise _invalid("Secret Payload cannot be empty.")
        if len(payload) > _MAX_PAYLOAD:
            raise _invalid(f"The payload has {len(payload)} bytes; the limit is {_MAX_PAYLOAD}.")
        checksum = stated.get("dataCrc32c")
        if checksum is not None and int(checksum) != crc32c(payload):
            raise _invalid("The payload does not match its checksum [payload.data_crc32c].")
        number = max(secret.versions, default=0) + 1
        made = StoredVersion(number, self.now(), self._etag(), payload, checksum is not None)
        secret.versions[number] = made
        return self._version(secret, made)

    def _list_versions(self, call: Call) -> dict[str, Any]:
        secret = self._found(call)
        found = [secret.versions[number] for number in sorted(secret.versions, reverse=True)]
        wanted = _filter(call.query, "state")
        if wanted is not None:
            found = [each for each in found if each.state == wanted]
        rows, token = self._paged(call, found)
        return _page("versions", [self._version(secret, each) for each in rows], token, None if wanted else len(found))

    def _get_version(self, call: Call) -> dict[str, Any]:
        secret = self._found(call)
        return self._version(secret, self._version_of(secret, call.names[2], aliases=True))

    def _access(self, call: Call) -> dict[str, Any]:
        secret = self._found(call)
        version = self._version_of(secret, call.names[2], aliases=True)
        if version.state != "ENABLED" or version.payload is None:
            raise _wrong_state(f"Secret Version [{self._place(secret, version)}] is in {version.state} state.")
        payload = {
            "data": base64.b64encode(version.payload).decode(),
            "dataCrc32c": str(crc32c(version.payload)),
        }
        return {"name": self._place(secret, version), "payload": payload}

    def _turn(self, call: Call, state: str) -> dict[str, Any]:
        secret, version = self._writable(call)
        version.state, version.etag = state, self._etag()
        if state == "ENABLED":
            version.scheduled = None
        return self._version(secret, version)

    def _destroy(self, call: Call) -> dict[str, Any]:
        secret, version = self._writable(call)
        delay = secret.facts.get("versionDestroyTtl")
        version.etag = self._etag()
        if delay:
            version.state, version.scheduled = "DISABLED", self.now() + _seconds(delay)
        else:
            self._shred(version, self.now())
        return self._version(secret, version)

    # what they share

    def _found(self, call: Call) -> StoredSecret:
        project, id_ = self.number(call.names[0]), call.names[1]
        found = self.secrets.get((project, id_))
        if found is None:
            raise Refused(404, "", "NOT_FOUND", f"Secret [projects/{project}/secrets/{id_}] not found.")
        return found

    def _version_of(self, secret: StoredSecret, name: str, *, aliases: bool) -> StoredVersion:
        number = secret.aliases.get(name) if aliases else None
        if aliases and name == "latest":  # whatever its state
            number = max(secret.versions, default=None)
            if number is None:
                raise Refused(404, "", "NOT_FOUND", f"Secret [{self._place(secret)}] not found or has no versions.")
        if number is None and re.fullmatch(r"\d{1,18}", name):
            number = int(name)
        found = secret.versions.get(number or 0)
        if found is None:
            place = f"{self._place(secret)}/versions/{name}"
            raise Refused(404, "", "NOT_FOUND", f"Secret Version [{place}] not found.")
        return found

    def _writable(self, call: Call) -> tuple[StoredSecret, StoredVersion]:
        secret = self._found(call)
        version = self._version_of(secret, call.names[2], aliases=False)
        self._match(call.body.get("etag"), version.etag)
        if version.state == "DESTROYED":
            raise _wrong_state(f"Secret Version [{self._place(secret, version)}] is in DESTROYED state.")
        return secret, version

    def _timed(self, facts: Mapping[str, Any]) -> dict[str, Any]:
        """Turn a lifetime into the time at which it ends."""
        facts = dict(facts)
        if "ttl" in facts:
            facts["expireTime"] = _time(self.now() + _seconds(facts.pop("ttl")))
        return {name: value for name, value in facts.items() if value not in ({}, None, "")}

    def _expire(self) -> None:
        """Delete what has expired: whole secrets, and versions whose destruction was delayed."""
        now = self.now()
        for key, secret in list(self.secrets.items()):
            expires = secret.facts.get("expireTime")
            if expires and datetime.fromisoformat(expires) <= now:
                del self.secrets[key]
            for version in secret.versions.values():
                if version.scheduled and version.scheduled <= now:
                    self._shred(version, version.scheduled)

    def _shred(self, version: StoredVersion, moment: datetime) -> None:
        version.state, version.destroyed, version.scheduled, version.payload = "DESTROYED", moment, None, None

    def _match(self, stated: str | None, etag: str) -> None:
        if stated is not None and stated != etag:
            raise _wrong_state("The etag provided does not match the etag of the current resource.")

    def _etag(self) -> str:
        """Return one that never was: the service changes it with every modification, also one that changes nothing."""
        self._etags += 1
        return f'"{self._etags:x}"'

    def _count(self, project: str, kind: str) -> None:
        limit = self.quotas.get(kind)
        if limit is None:
            return
        window = (self.number(project), kind, int(self.now().timestamp()) // 60)
        self._used[window] += 1
        if self._used[window] > limit:
            message = f"Quota exceeded for quota metric '{kind} requests' and limit '{limit} per minute per project'."
            raise Refused(429, "RATE_LIMIT_EXCEEDED", "RESOURCE_EXHAUSTED", message)

    def _paged(self, call: Call, rows: list[Any]) -> tuple[list[Any], str | None]:
        """Cut one page. The token names the last item that was shown, so that a deletion in between loses none."""
        stated = call.query.get("pageSize", "0")
        if int(stated) < 0:
            raise _invalid("Field [page_size] must not be negative.")
        size = min(int(stated) or PAGE, self.page_size)
        token = call.query.get("pageToken")
        if token:
            try:
                after = json.loads(base64.urlsafe_b64decode(token))
            except ValueError as exc:
                raise _invalid("The page token is invalid.") from exc
            rows = [each for each in rows if _order(each) < tuple(after)]
        shown = rows[:size]
        if len(rows) <= size:
            return shown, None
        return shown, base64.urlsafe_b64encode(json.dumps(_order(shown[-1])).encode()).decode()

    # what is answered

    def _place(self, secret: StoredSecret, version: StoredVersion | None = None) -> str:
        tail = f"/versions/{version.number}" if version else ""
        return f"projects/{secret.project}/secrets/{secret.id}{tail}"

    def _secret(self, secret: StoredSecret) -> dict[str, Any]:
        told = {
            "name": self._place(secret),
            "replication": secret.replication,
            "createTime": _time(secret.created),
            "etag": secret.etag,
        }
        facts = dict(secret.facts)
        if "versionAliases" in facts:
            facts["versionAliases"] = {alias: str(number) for alias, number in facts["versionAliases"].items()}
        return told | facts

    def _version(self, secret: StoredSecret, version: StoredVersion) -> dict[str, Any]:
        told: dict[str, Any] = {
            "name": self._place(secret, version),
            "createTime": _time(version.created),
            "state": version.state,
            "replicationStatus": {"automatic": {}},
            "etag": version.etag,
        }
        if version.checksum_sent:
            told["clientSpecifiedPayloadChecksum"] = True
        if version.destroyed:
            told["destroyTime"] = _time(version.destroyed)
        if version.scheduled:
            told["scheduledDestroyTime"] = _time(version.scheduled)
        return told


def _check(facts: Mapping[str, Any], versions: Iterable[int]) -> None:
    """Refuse labels, annotations and aliases that the service refuses."""
    _check_labels(facts.get("labels", {}))
    _check_annotations(facts.get("annotations", {}))
    _check_aliases(facts.get("versionAliases", {}), versions)


def _check_labels(labels: Mapping[str, str]) -> None:
    if len(labels) > _MAX_LABELS:
        raise _invalid(f"No more than {_MAX_LABELS} labels can be assigned to a given resource.")
    for name, value in labels.items():
        if not _is_label(name, value):
            raise _invalid(f"Label [{name}] does not match the expected format.")


def _check_annotations(annotations: Mapping[str, str]) -> None:
    for name in annotations:
        if not _ANNOTATION.fullmatch(name):
            raise _invalid(f"Annotation key [{name}] does not match the expected format.")
    size = sum(len(name.encode()) + len(value.encode()) for name, value in annotations.items())
    if size >= _MAX_ANNOTATIONS:
        raise _invalid(f"The total size of annotations is {size}; it must be less than {_MAX_ANNOTATIONS}.")


def _check_aliases(aliases: Mapping[str, Any], versions: Iterable[int]) -> None:
    if len(aliases) > _MAX_ALIASES:
        raise _invalid(f"No more than {_MAX_ALIASES} aliases can be assigned to a given secret.")
    for alias, number in aliases.items():
        if not _ALIAS.fullmatch(alias) or alias in {"latest", "NEW"}:
            raise _invalid(f"Version alias [{alias}] does not match the expected format.")
        if int(number) not in versions:
            raise _invalid(f"Version alias [{alias}] stands for a version that does not exist: {number}.")


def _order(row: StoredSecret | StoredVersion) -> tuple[Any, ...]:
    """Return what listings descend by."""
    return (row.created.timestamp(), row.id if isinstance(row, StoredSecret) else row.number)


def _filter(query: Mapping[str, str], field: str) -> str | None:
    """Return what a field must contain or be; other filters than on that one field are not in the double."""
    stated = query.get("filter", "")
    if not stated:
        return None
    found = _FILTER.fullmatch(stated)
    if found is None or found[1] != field:
        raise _invalid(f"The filter is invalid, or not in the double: {stated}")
    return found[2]


def _contains(text: str, wanted: str) -> bool:
    return re.search(".*".join(re.escape(part) for part in wanted.split("*")), text) is not None


def _is_label(name: str, value: str) -> bool:
    """Tell whether a label's name and value are made of what the service allows."""

    def made_of(text: str, more: str) -> bool:
        return all(each in more or unicodedata.category(each) in {"Ll", "Lo", "Nd", "Nl", "No"} for each in text)

    begins = unicodedata.category(name[:1] or " ") in {"Ll", "Lo"}
    short = all(len(text) <= 63 and len(text.encode()) <= 128 for text in (name, value))
    return begins and short and made_of(name, "_-") and made_of(value, "_-")


def _page(name: str, rows: list[Any], token: str | None, total: int | None) -> dict[str, Any]:
    told: dict[str, Any] = {name: rows} if rows else {}
    if token:
        told["nextPageToken"] = token
    return told | {"totalSize": total or 0}


def _camel(name: str) -> str:
    head, *tail = name.strip().split("_")
    return head + "".join(part.title() for part in tail)


def _seconds(duration: str) -> timedelta:
    return timedelta(seconds=float(duration.removesuffix("s")))


def _time(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _invalid(message: str) -> Refused:
    return Refused(400, "", "INVALID_ARGUMENT", message)


def _wrong_state(message: str) -> Refused:
    return Refused(400, "", "FAILED_PRECONDITION", message)


def _refusal(refused: Refused) -> Response:
    error: dict[str, Any] = {"code": refused.status, "message": refused.message, "status": refused.code}
    if refused.reason:
        detail = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": refused.reason}
        error["details"] = [detail | {"domain": "googleapis.com"}]
    return answered(refused.status, {"error": error})

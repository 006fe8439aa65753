"""The secrets of a Key Vault in memory: versions, soft delete, paging, and who may do what."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

import attrs
from werkzeug.datastructures import Headers

from shiftable.testing.harness import Clock, Request, Response

__all__ = ["ALL", "StoredSecret", "StoredVersion", "VaultService", "is_vault", "vault_refused"]

ALL = frozenset({"get", "list", "set", "delete", "recover", "purge"})
"""The permissions for secrets, as access policies name them."""

_TENANT = "00000000-0000-0000-0000-000000000000"
_CHALLENGE = f'Bearer authorization="https://login.microsoftonline.com/{_TENANT}", resource="https://vault.azure.net"'
_API_VERSIONS = frozenset({"7.0", "7.1", "7.2", "7.3", "7.4", "7.5", "7.6", "2025-07-01", "2026-04-01"})
_ACTIONS = {
    "get": "getSecret/action",
    "list": "readMetadata/action",
    "set": "setSecret/action",
    "delete": "delete",
    "recover": "recover/action",
    "purge": "purge/action",
}
_WORDS = {"versions", "recover"}
_NAME = re.compile(r"[0-9a-zA-Z-]{1,127}")
_VERSION = re.compile(r"[0-9a-f]{32}")
_PAGE = 25
_VALUE = 25_600
_TAGS = 15
_TAG = 512
_TYPE = 255
_PHRASES = {
    200: "OK", 204: "No Content", 400: "Bad Request", 401: "Unauthorized", 403: "Forbidden", 404: "Not Found",
    405: "Method Not Allowed", 409: "Conflict", 429: "Too Many Requests", 501: "Not Implemented",
}  # fmt: skip


class VaultRefusal(Exception):
    """What the vault answers in place of a success."""

    def __init__(
        self, status: int, code: str, message: str, inner: str = "", headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.inner = inner
        self.headers = dict(headers or {})


@attrs.define
class StoredVersion:
    """One version: its value and what describes it. Times are whole seconds."""

    id: str
    value: str = attrs.field(repr=False)
    created: int
    updated: int
    content_type: str | None = None
    tags: dict[str, str] = attrs.field(factory=dict)
    enabled: bool = True
    nbf: int | None = None
    exp: int | None = None


@attrs.define
class StoredSecret:
    """A secret: its versions, oldest first.

    Attributes:
        name: in the case in which it was made.
        managed: it belongs to a certificate.
        deleted: since when it is soft-deleted.
        busy: how many looks it takes until its deletion, recovery or purge is done.
    """

    name: str
    versions: dict[str, StoredVersion] = attrs.field(factory=dict)
    managed: bool = False
    deleted: datetime | None = None
    busy: int = 0

    @property
    def latest(self) -> StoredVersion:
        """The version that a request without one means."""
        return list(self.versions.values())[-1]


@attrs.frozen
class _Asked:
    """A request, taken apart."""

    method: str
    vault: str
    parts: tuple[str, ...]
    query: Mapping[str, str]
    body: bytes = attrs.field(repr=False)

    @classmethod
    def read(cls, request: Request) -> _Asked:
        url = urlsplit(request.target)
        parts = tuple(unquote(part) for part in url.path.split("/") if part)
        query = {name: values[-1] for name, values in parse_qs(url.query, keep_blank_values=True).items()}
        return cls(request.method, f"https://{request.host}", parts, query, request.body)

    @property
    def content(self) -> dict[str, Any]:
        try:
            found = json.loads(self.body)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise _bad("The request body is no JSON object.")
        return found


_Route = tuple[str, str, Callable[[_Asked], Response]]
"""Name of an operation, the permission that it takes, and what executes it."""


def is_vault(request: Request) -> bool:
    """Tell whether a request is for a vault: its host may be any, as private endpoints' are."""
    return request.target.lstrip("/").partition("?")[0].partition("/")[0] in {"secrets", "deletedsecrets"}


class VaultService:
    """Executes requests, one at a time.

    Attributes:
        secrets: living and soft-deleted ones, by name in lower case.
        gone: names that were purged, and how many writes are refused until such a name is free.
        tokens: what each bearer may do.
        access: ``rbac`` or ``policy``; it decides how a refusal reads.
        retention: days for which deleted secrets are kept; ``None``: the vault has no soft delete.
        purge_protection: nobody can purge.
        looks: how many looks each deletion, recovery or purge takes.
        throttled: how many requests are refused with 429 from now on.
        page_size: the most that a listing has in one page, whatever is asked for.
    """

    def __init__(self, token: str, clock: Clock) -> None:
        self._clock = clock
        self._token = token
        self.secrets: dict[str, StoredSecret] = {}
        self.gone: dict[str, int] = {}
        self.reset()

    def reset(self) -> None:
        """Forget all secrets; be an ordinary vault again."""
        self.secrets.clear()
        self.gone.clear()
        self.tokens: dict[str, frozenset[str]] = {self._token: ALL}
        self.access = "rbac"
        self.retention: int | None = 90
        self.purge_protection = False
        self.looks = 0
        self.throttled = 0
        self.page_size = _PAGE

    def put_raw(self, name: str, value: str, **facts: Any) -> StoredVersion:  # noqa: ANN401  a version's fields
        """Store a version past the protocol, as another tool would."""
        secret = self.secrets.setdefault(name.lower(), StoredSecret(name))
        now = int(self._clock.now().timestamp())
        given: dict[str, Any] = {"id": uuid.uuid4().hex, "value": value, "created": now, "updated": now, **facts}
        version = StoredVersion(**given)
        secret.versions[version.id] = version
        return version

    def operation(self, request: Request) -> str:
        """Name the operation, as the REST reference does."""
        route = self._route(_Asked.read(request))
        return route[0] if route else ""

    def execute(self, request: Request) -> Response:
        """Answer a request."""
        asked = _Asked.read(request)
        try:
            return self._answered(asked, request)
        except VaultRefusal as refusal:
            return vault_refused(refusal)

    def _answered(self, asked: _Asked, request: Request) -> Response:
        self._expire()
        if self.throttled:
            self.throttled -= 1
            message = "Request was not processed because too many requests were received."
            raise VaultRefusal(429, "Throttled", f"{message} Reason: VaultRequestTypeLimitReached", "", _AGAIN)
        permitted = self._permitted(request)
        version = asked.query.get("api-version")
        if version is None:
            raise _bad("api-version must be specified")
        if version not in _API_VERSIONS:
            raise _bad(f"The specified version ({version}) is not recognized. Consider using the latest version.")
        route = self._route(asked)
        if route is None:
            raise VaultRefusal(405, "MethodNotAllowed", "The double has no such operation.")
        _, permission, run = route
        if permission not in permitted:
            raise self._forbidden(permission)
        if len(asked.parts) > 1 and not _NAME.fullmatch(asked.parts[1]):
            raise _bad(f"The request URI contains an invalid name: {asked.parts[1]}")
        return run(asked)

    def _permitted(self, request: Request) -> frozenset[str]:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme == "Bearer" and token in self.tokens:
            return self.tokens[token]
        code = "AKV10000: Request is missing a Bearer or PoP token." if not token else "AKV10032: Invalid issuer."
        raise VaultRefusal(401, "Unauthorized", code, "", {"WWW-Authenticate": _CHALLENGE})

    def _forbidden(self, permission: str) -> VaultRefusal:
        if self.access == "policy":
            message = (
                f"The user, group or application 'appid=0' does not have secrets {permission} permission on key vault"
            )
            return VaultRefusal(403, "Forbidden", f"{message} 'double;location=none'.", "AccessDenied")
        action = f"Microsoft.KeyVault/vaults/secrets/{_ACTIONS[permission]}"
        message = f"Caller is not authorized to perform action on resource.\r\nCaller: appid=0\r\nAction: '{action}'"
        return VaultRefusal(403, "Forbidden", message, "ForbiddenByRbac")

    def _route(self, asked: _Asked) -> _Route | None:
        kind, *rest = asked.parts
        shape = "/".join([kind, *(part if number and part in _WORDS else "*" for number, part in enumerate(rest))])
        routes: dict[str, _Route] = {
            "GET secrets": ("GetSecrets", "list", self._list),
            "PUT secrets/*": ("SetSecret", "set", self._set),
            "DELETE secrets/*": ("DeleteSecret", "delete", self._delete),
            "GET secrets/*": ("GetSecret", "get", self._get),
            "GET secrets/*/*": ("GetSecret", "get", self._get),
            "GET secrets/*/versions": ("GetSecretVersions", "list", self._versions),
            "PATCH secrets/*": ("UpdateSecret", "set", self._update),
            "PATCH secrets/*/*": ("UpdateSecret", "set", self._update),
            "GET deletedsecrets": ("GetDeletedSecrets", "list", self._list_deleted),
            "GET deletedsecrets/*": ("GetDeletedSecret", "get", self._get_deleted),
            "DELETE deletedsecrets/*": ("PurgeDeletedSecret", "purge", self._purge),
            "POST deletedsecrets/*/recover": ("RecoverDeletedSecret", "recover", self._recover),
        }
        return routes.get(f"{asked.method} {shape}")

    # living secrets

    def _list(self, asked: _Asked) -> Response:
        living = {name: secret for name, secret in self.secrets.items() if not secret.deleted and not secret.busy}
        return self._page(asked, living, lambda secret: self._item(asked, secret, secret.latest, versioned=False))

    def _versions(self, asked: _Asked) -> Response:
        secret = self.secrets.get(asked.parts[1].lower())
        known = secret.versions if secret and not secret.deleted and not secret.busy else {}
        # of ids, not of age
        return self._page(asked, known, lambda version: self._item(asked, _sure(secret), version, versioned=True))

    def _get(self, asked: _Asked) -> Response:
        secret, version = self._version(asked)
        if not version.enabled:
            raise VaultRefusal(403, "Forbidden", "Operation get is not allowed on a disabled secret.", "SecretDisabled")
        return _json(self._bundle(asked, secret, version))

    def _set(self, asked: _Asked) -> Response:
        name, content = asked.parts[1], asked.content
        key = name.lower()
        found = self.secrets.get(key)
        if found is not None and found.deleted:
            raise _deleted(name)
        if self.gone.get(key, 0) or (found is not None and found.busy):
            self.gone[key] = max(0, self.gone.get(key, 0) - 1)
            raise VaultRefusal(409, "Conflict", f"Secret {name} is currently being deleted.", "ObjectIsBeingDeleted")
        if found is not None and found.managed:
            raise VaultRefusal(403, "Forbidden", "Operation set is not allowed on a managed secret.", "Managed")
        value = content.get("value")
        if not isinstance(value, str) or not value:
            raise _bad("The request body has no value.")
        if len(value.encode()) > _VALUE:
            raise _bad(f"Secret is beyond the maximum permitted length of {_VALUE} characters.")
        facts = _facts(content)
        version = self.put_raw(name, value, **facts)
        return _json(self._bundle(asked, self.secrets[key], version))

    def _update(self, asked: _Asked) -> Response:
        secret, version = self._version(asked)
        if secret.managed:
            raise VaultRefusal(403, "Forbidden", "Operation update is not allowed on a managed secret.", "Managed")
        for name, value in _facts(asked.content).items():
            setattr(version, name, value)
        version.updated = int(self._clock.now().timestamp())
        return _json(self._bundle(asked, secret, version, value=False))

    def _delete(self, asked: _Asked) -> Response:
        secret = self._living(asked)
        if self.retention is None:
            del self.secrets[secret.name.lower()]
            return _json(self._bundle(asked, secret, secret.latest, value=False))
        secret.deleted, secret.busy = self._clock.now(), self.looks
        return _json(self._deleted_bundle(asked, secret))

    # deleted ones

    def _list_deleted(self, asked: _Asked) -> Response:
        def item(secret: StoredSecret) -> dict[str, Any]:
            return self._item(asked, secret, secret.latest, versioned=False) | self._deletion(asked, secret)

        dead = {name: secret for name, secret in self.secrets.items() if secret.deleted and not secret.busy}
        return self._page(asked, dead, item)

    def _get_deleted(self, asked: _Asked) -> Response:
        return _json(self._deleted_bundle(asked, self._dead(asked)))

    def _purge(self, asked: _Asked) -> Response:
        secret = self._dead(asked)
        if self.purge_protection:
            message = 'Operation "purge" is not allowed because purge protection is enabled for this vault.'
            raise VaultRefusal(403, "Forbidden", f"{message} Key Vault service will automatically purge it.")
        del self.secrets[secret.name.lower()]
        self.gone[secret.name.lower()] = self.looks
        return Response("204 No Content")

    def _recover(self, asked: _Asked) -> Response:
        secret = self._dead(asked)
        secret.deleted, secret.busy = None, self.looks
        return _json(self._bundle(asked, secret, secret.latest, value=False))

    # what they share

    def _expire(self) -> None:
        """Let the vault purge what was deleted long ago."""
        if self.retention is None:
            return
        end = self._clock.now() - timedelta(days=self.retention)
        for name in [name for name, secret in self.secrets.items() if secret.deleted and secret.deleted <= end]:
            del self.secrets[name]

    def _living(self, asked: _Asked) -> StoredSecret:
        name = asked.parts[1]
        found = self.secrets.get(name.lower())
        if found is not None and not found.deleted and found.busy:
            found.busy -= 1
            found = None
        if found is None or found.deleted:
            message = f"A secret with (name/id) {'/'.join(asked.parts[1:])} was not found in this key vault."
            raise VaultRefusal(
                404, "SecretNotFound", f"{message} If you recently deleted this secret you may be able to"
            )
        return found

    def _version(self, asked: _Asked) -> tuple[StoredSecret, StoredVersion]:
        secret = self._living(asked)
        if len(asked.parts) == 2:
            return secret, secret.latest
        if not _VERSION.fullmatch(asked.parts[2]):
            raise _bad(f"Invalid version '{asked.parts[2]}'.")
        if asked.parts[2] not in secret.versions:
            message = f"A secret with (name/id) {asked.parts[1]}/{asked.parts[2]} was not found in this key vault."
            raise VaultRefusal(404, "SecretNotFound", message)
        return secret, secret.versions[asked.parts[2]]

    def _dead(self, asked: _Asked) -> StoredSecret:
        name = asked.parts[1]
        found = self.secrets.get(name.lower())
        if found is not None and found.deleted and found.busy:
            found.busy -= 1
            found = None
        if found is None or not found.deleted:
            raise VaultRefusal(404, "SecretNotFound", f"Deleted Secret not found: {name}")
        return found

    @property
    def _level(self) -> dict[str, Any]:
        if self.retention is None:
            return {"recoveryLevel": "Purgeable", "recoverableDays": 0}
        level = "Recoverable" if self.retention == 90 else "CustomizedRecoverable"
        return {
            "recoveryLevel": level if self.purge_protection else f"{level}+Purgeable",
            "recoverableDays": self.retention,
        }

    def _item(self, asked: _Asked, secret: StoredSecret, version: StoredVersion, *, versioned: bool) -> dict[str, Any]:
        attributes = {"enabled": version.enabled, "created": version.created, "updated": version.updated}
        attributes |= {name: at for name, at in (("nbf", version.nbf), ("exp", version.exp)) if at is not None}
        item: dict[str, Any] = {
            "id": f"{asked.vault}/secrets/{secret.name}" + (f"/{version.id}" if versioned else ""),
            "attributes": attributes | self._level,
        }
        item |= {"tags": version.tags} if version.tags else {}
        item |= {"contentType": version.content_type} if version.content_type is not None else {}
        return item | ({"managed": True} if secret.managed else {})

    def _bundle(
        self, asked: _Asked, secret: StoredSecret, version: StoredVersion, *, value: bool = True
    ) -> dict[str, Any]:
        bundle = self._item(asked, secret, version, versioned=True)
        bundle |= {"kid": f"{asked.vault}/keys/{secret.name}/{version.id}"} if secret.managed else {}
        return {"value": version.value} | bundle if value else bundle

    def _deletion(self, asked: _Asked, secret: StoredSecret) -> dict[str, Any]:
        deleted = secret.deleted or self._clock.now()
        return {
            "recoveryId": f"{asked.vault}/deletedsecrets/{secret.name}",
            "deletedDate": int(deleted.timestamp()),
            "scheduledPurgeDate": int((deleted + timedelta(days=self.retention or 0)).timestamp()),
        }

    def _deleted_bundle(self, asked: _Asked, secret: StoredSecret) -> dict[str, Any]:
        return self._bundle(asked, secret, secret.latest, value=False) | self._deletion(asked, secret)

    def _page(self, asked: _Asked, known: Mapping[str, Any], item: Callable[[Any], dict[str, Any]]) -> Response:
        """Answer one page, in the order of names or ids; the token is the last one of the page before."""
        try:
            wanted = int(asked.query.get("maxresults", _PAGE))
        except ValueError:
            wanted = 0
        if not 1 <= wanted <= _PAGE:
            raise _bad(f"maxresults is from 1 to {_PAGE}.")
        left = [name for name in sorted(known) if name > asked.query.get("$skiptoken", "")]
        here = left[: min(wanted, self.page_size)]
        following = f"{asked.vault}/{'/'.join(asked.parts)}?api-version={asked.query['api-version']}"
        following += f"&$skiptoken={quote(here[-1])}&maxresults={wanted}" if here else ""
        rest = following if len(left) > len(here) else None
        return _json({"value": [item(known[name]) for name in here], "nextLink": rest})


_AGAIN = {"Retry-After": "1"}


def _facts(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a body says of a version beside its value, as fields of ``StoredVersion``.

    Raises:
        VaultRefusal: a limit is passed, or a type is wrong.
    """
    facts: dict[str, Any] = {}
    if content.get("contentType") is not None:
        facts["content_type"] = _text(content["contentType"], "contentType", _TYPE)
    if content.get("tags") is not None:
        tags = content["tags"]
        if not isinstance(tags, dict) or len(tags) > _TAGS:
            raise _bad(f"A secret has {_TAGS} tags at most.")
        facts["tags"] = {_text(name, "tag", _TAG): _text(value, "tag", _TAG) for name, value in tags.items()}
    attributes = content.get("attributes") or {}
    for name in ("enabled", "nbf", "exp"):
        value = attributes.get(name)
        if value is not None and type(value) is not (bool if name == "enabled" else int):
            raise _bad(f"The attribute {name} has a wrong type.")
        facts |= {} if value is None else {name: value}
    return facts


def _text(value: object, what: str, longest: int) -> str:
    if not isinstance(value, str) or len(value) > longest:
        raise _bad(f"Property {what} has an invalid value.")
    return value


def _sure(secret: StoredSecret | None) -> StoredSecret:
    if secret is None:
        raise VaultRefusal(404, "SecretNotFound", "there is none")
    return secret


def _bad(message: str) -> VaultRefusal:
    return VaultRefusal(400, "BadParameter", message)


def _deleted(name: str) -> VaultRefusal:
    message = (
        f"Secret {name} is currently in a deleted but recoverable state, and its name cannot be reused; "
        "in this state, the secret can only be recovered or purged."
    )
    return VaultRefusal(409, "Conflict", message, "ObjectIsDeletedButRecoverable")


def _json(content: Mapping[str, Any], status: int = 200, headers: Iterable[tuple[str, str]] = ()) -> Response:
    told = Headers(
        [
            ("Content-Type", "application/json; charset=utf-8"),
            ("x-ms-request-id", str(uuid.uuid4())),
            ("x-ms-keyvault-service-version", "1.9.0.0"),
            *headers,
        ]
    )
    return Response(f"{status} {_PHRASES[status]}", told, json.dumps(content).encode())


def vault_refused(refusal: VaultRefusal) -> Response:
    """Return the answer of a refusal."""
    error: dict[str, Any] = {"code": refusal.code, "message": refusal.message}
    if refusal.inner:
        error["innererror"] = {"code": refusal.inner}
    return _json({"error": error}, refusal.status, refusal.headers.items())

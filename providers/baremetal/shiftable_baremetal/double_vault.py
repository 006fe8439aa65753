"""A stand-in for Vault and OpenBao on loopback: KV version 2, logins, tokens and policies in memory.

It is as strict as the engine's source is: check-and-set, versions that are pruned, what custom metadata may be, which
capability each call needs. A request with fields or parameters that the engine does not know fails the test.
"""

from __future__ import annotations

import itertools
import json
import re
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any, ClassVar, Self
from urllib.parse import parse_qsl
from wsgiref.types import WSGIEnvironment

import attrs

from shiftable.config import Credential
from shiftable.testing.harness import Double, Headers, Request, Response

__all__ = ["Login", "Rule", "VaultDouble"]

_KEYS, _KEY, _VALUE = 64, 128, 512  # of custom metadata
_ENTRY = 1_048_576  # bytes of a storage entry, on integrated storage
_KEPT = 10
_JSON = {"Content-Type": "application/json"}


class _Refused(Exception):
    """An answer that is no success."""

    def __init__(self, status: int, *errors: str, data: Mapping[str, Any] | None = None) -> None:
        super().__init__(status)
        self.status = status
        self.body: dict[str, Any] = {"errors": list(errors)} if data is None else {"data": data}


@attrs.frozen
class Rule:
    """One rule of a policy: a path, where ``+`` is any segment and a ``*`` at the end anything, and capabilities."""

    path: str
    capabilities: Collection[str]

    def meets(self, path: str) -> bool:
        """Tell whether the rule is about a path."""
        pattern = re.escape(self.path).replace(r"\+", "[^/]+")
        pattern = pattern.removesuffix(r"\*") + (".*" if self.path.endswith("*") else "")
        return re.fullmatch(pattern, path) is not None


_ANYTHING = (Rule("*", {"create", "read", "update", "patch", "delete", "list"}),)


@attrs.define
class _Token:
    rules: tuple[Rule, ...]
    expires: datetime | None
    renewable: bool
    ttl: float
    greatest: datetime | None


@attrs.frozen
class Login:
    """What a login needs and gives: an AppRole's ids, or a role and a JWT."""

    rules: tuple[Rule, ...] = _ANYTHING
    ttl: float = 3600.0
    greatest_ttl: float | None = None
    renewable: bool = True


@attrs.define
class _Number:
    data: dict[str, Any]
    created: str
    deleted: str = ""
    destroyed: bool = False


@attrs.define
class _Path:
    """The metadata of one path, and what its numbers hold."""

    created: str
    updated: str
    newest: int = 0
    oldest: int = 0
    max_versions: int = 0
    cas_required: bool = False
    custom: dict[str, str] | None = None
    numbers: dict[int, _Number] = attrs.Factory(dict)


class VaultDouble(Double):
    """One Vault in this process, with a KV engine of version 2 at ``secret`` and one of version 1 at ``old``.

    Attributes:
        token: may do everything.
        sealed: answer 503 to everything.
        standby: say so when asked for the state of health.
        max_versions: of the engine; 0 is its default, ten.
        delete_after: how long versions live; zero is for ever.
        namespaces: those that there are; "" is the root.
    """

    name: ClassVar[str] = "baremetal"
    token: ClassVar[str] = "double-root"  # noqa: S105  of this double alone

    def __init__(self) -> None:
        super().__init__(_never)
        self._state = threading.Lock()
        self._ticks = itertools.count()
        self.forget()

    @property
    def config(self) -> dict[str, Any]:
        """The settings for ``shiftable.connect("baremetal", **double.config)``."""
        return {"vault": {"address": self.url, "token": Credential.literal(self.token)}}

    @property
    def environ(self) -> dict[str, str]:
        """The environment variables that bring any client of Vault, in any process, to this double."""
        return {"VAULT_ADDR": self.url, "VAULT_TOKEN": self.token}

    def forget(self) -> None:
        """Empty the engine; only the first token is left."""
        self.sealed = False
        self.standby = False
        self.max_versions = 0
        self.delete_after = timedelta(0)
        self.namespaces: set[str] = {""}
        self._paths: dict[tuple[str, str], _Path] = {}
        self._old: dict[str, Any] = {}
        self._tokens: dict[str, _Token] = {self.token: _Token(_ANYTHING, None, False, 0.0, None)}
        self._approles: dict[tuple[str, str], Login] = {}
        self._jwts: dict[tuple[str, str, str], Login] = {}

    def start(self) -> Self:
        """Begin to listen, with an empty engine."""
        super().start()
        self.forget()
        return self

    # what a test does

    def make_token(self, *rules: Rule, ttl: float = 3600.0, renewable: bool = True) -> str:
        """Return a new token with these rules alone."""
        return self._issue(Login(rules, ttl, None, renewable))

    def revoke(self, token: str) -> None:
        """End a token."""
        del self._tokens[token]

    def allow_approle(self, role_id: str, secret_id: str, login: Login) -> None:
        """Let an AppRole log in."""
        self._approles[role_id, secret_id] = login

    def allow_jwt(self, role: str, jwt: str, login: Login, *, mount: str = "jwt") -> None:
        """Let a JWT log in for a role; at ``kubernetes`` that of a service account."""
        self._jwts[mount, role, jwt] = login

    def names(self, namespace: str = "") -> list[str]:
        """Return all paths whose newest number can be read."""
        return [path for space, path in self._paths if space == namespace and self.fields(path, namespace) is not None]

    def fields(self, path: str, namespace: str = "") -> dict[str, Any] | None:
        """Return what ``vault kv get`` shows."""
        entry = self._paths.get((namespace, path))
        number = entry.numbers.get(entry.newest) if entry else None
        return number.data if number and not number.destroyed and not self._past(number.deleted) else None

    def custom(self, path: str) -> dict[str, str]:
        """Return the custom metadata of a path."""
        return dict(self._paths["", path].custom or {})

    def stored(self, text: str) -> list[str]:
        """Return where a text stands, in any number that is not destroyed: ``shop/key@3``."""
        return [
            f"{path}@{number}"
            for (_, path), entry in self._paths.items()
            for number, each in entry.numbers.items()
            if not each.destroyed and text in json.dumps(each.data)
        ]

    # the harness

    def identify(self, request: Request) -> tuple[str, str]:
        """Name the area of a request: data, metadata, delete, login."""
        parts = request.path.split("/")
        area = parts[-1] if parts[2:3] == ["auth"] else parts[3] if len(parts) > 3 else ""
        verb = "list" if request.method == "LIST" else request.method.lower()
        return "vault", f"{verb} {area}"

    def answer(self, request: Request, environ: WSGIEnvironment) -> Response:  # noqa: ARG002  there is no application
        """Check who asks, then execute, one request at a time."""
        with self._state:
            try:
                told = self._answered(request)
                status, body = (204, b"") if told is None else (200, json.dumps(told).encode())
            except _Refused as refused:
                status, body = refused.status, json.dumps(refused.body).encode()
        headers = Headers({**_JSON, "Date": format_datetime(self.clock.now(), usegmt=True)})
        return Response(f"{status} {'OK' if status < 300 else 'Refused'}", headers, body)

    def _answered(self, request: Request) -> dict[str, Any] | None:
        if request.path == "/v1/sys/health":
            return self._health()
        namespace = request.headers.get("X-Vault-Namespace", "").strip("/")
        path = request.path.removeprefix("/v1/")
        self._check_request(request, namespace, path)
        if path.startswith("auth/") and path.endswith("/login"):
            return self._login(path.removeprefix("auth/").removesuffix("/login"), self._body(request, "login"))
        token = self._holder(request)
        if path.startswith("auth/token/"):
            return self._own_token(path.removeprefix("auth/token/"), token)
        if path.startswith("sys/internal/ui/mounts/"):
            return self._mount(path.removeprefix("sys/internal/ui/mounts/"), token)
        if path.startswith("old/"):
            return self._version_1(request, path.removeprefix("old/"))
        area, _, name = path.removeprefix("secret/").partition("/")
        if not path.startswith("secret/") or area not in {known for _, known in _AREAS}:
            raise _Refused(404, f'no handler for route "{path}". route entry not found.')
        act = _AREAS.get((request.method, area))
        if act is None:
            raise _Refused(405, "unsupported operation")
        key = namespace, name.rstrip("/")
        self._permit(token, path + ("/" if request.method == "LIST" and not path.endswith("/") else ""), request, key)
        return act(self, key, request)

    def _check_request(self, request: Request, namespace: str, path: str) -> None:
        if self.sealed:
            raise _Refused(503, "Vault is sealed")
        if namespace not in self.namespaces:
            raise _Refused(404, f'no handler for route "{namespace}{request.path}". route entry not found.')
        if not path.isprintable() or ".." in path:
            raise _Refused(400, "path contains unprintable characters")
        if request.headers.get("X-Vault-Request") != "true":
            raise _Refused(412, "missing 'X-Vault-Request' header")

    def _health(self) -> dict[str, Any] | None:
        told = {"initialized": True, "sealed": self.sealed, "standby": self.standby}
        if self.sealed or self.standby:
            raise _Refused(503 if self.sealed else 429, data=told)
        return told

    # who asks

    def _issue(self, login: Login) -> str:
        now, token = self.clock.now(), f"double-token-{next(self._ticks)}"
        greatest = now + timedelta(seconds=login.greatest_ttl) if login.greatest_ttl is not None else None
        self._tokens[token] = _Token(
            login.rules, now + timedelta(seconds=login.ttl), login.renewable, login.ttl, greatest
        )
        return token

    def _login(self, mount: str, body: Mapping[str, Any]) -> dict[str, Any]:
        if mount == "approle":
            login = self._approles.get((body.get("role_id", ""), body.get("secret_id") or ""))
            why = "invalid role or secret ID"
        else:
            login = self._jwts.get((mount, body.get("role", ""), body.get("jwt", "")))
            why = "error validating token"
        if login is None:
            raise _Refused(400, why)
        token = self._issue(login)
        return {
            "auth": {"client_token": token, "lease_duration": int(login.ttl), "renewable": login.renewable},
        }

    def _holder(self, request: Request) -> _Token:
        given = request.headers.get("X-Vault-Token", "")
        if not given:
            raise _Refused(400, "missing client token")
        token = self._tokens.get(given)
        if token is None or (token.expires is not None and token.expires <= self.clock.now()):
            raise _Refused(403, "2 errors occurred:\n\t* permission denied\n\t* invalid token\n\n")
        return token

    def _own_token(self, verb: str, token: _Token) -> dict[str, Any]:
        now = self.clock.now()
        if verb == "renew-self":
            if not token.renewable or token.expires is None:
                raise _Refused(400, "lease is not renewable")
            token.expires = now + timedelta(seconds=token.ttl)
            if token.greatest is not None:
                token.expires = min(token.expires, token.greatest)
        elif verb != "lookup-self":
            raise _Refused(404, f'no handler for route "auth/token/{verb}". route entry not found.')
        left = int((token.expires - now).total_seconds()) if token.expires else 0
        if verb == "renew-self":
            return {"auth": {"lease_duration": left, "renewable": token.renewable}}
        return {"data": {"ttl": left, "renewable": token.renewable}}

    def _permit(self, token: _Token, path: str, request: Request, key: tuple[str, str]) -> None:
        wanted = {"GET": "read", "LIST": "list", "PATCH": "patch", "DELETE": "delete"}.get(request.method, "update")
        if wanted == "update" and path.startswith(("secret/data/", "secret/metadata/")) and key not in self._paths:
            wanted = "create"
        rules = [rule for rule in token.rules if rule.meets(path)]
        best = max(rules, key=lambda rule: len(rule.path.rstrip("*")), default=None)
        if best is None or wanted not in best.capabilities:
            raise _Refused(403, "1 error occurred:\n\t* permission denied\n\n")

    def _mount(self, mount: str, token: _Token) -> dict[str, Any]:
        if mount not in {"secret", "old"} or not any(rule.path.startswith((mount, "*")) for rule in token.rules):
            raise _Refused(403, "preflight capability check returned 403, please ensure client's policies grant access")
        return {"data": {"type": "kv", "path": f"{mount}/", "options": {"version": "2" if mount == "secret" else "1"}}}

    def _version_1(self, request: Request, path: str) -> dict[str, Any] | None:
        if request.method == "GET":
            if path not in self._old:
                raise _Refused(404)
            return {"data": self._old[path]}
        self._old[path] = json.loads(request.body)
        return None

    # the engine

    def _read(self, key: tuple[str, str], request: Request) -> dict[str, Any]:
        asked = self._query(request, "version")
        entry = self._known(key)
        number = int(asked.get("version", 0)) or entry.newest
        found = entry.numbers.get(number)
        if found is None:
            raise _Refused(404)
        about = {**self._about(number, found), "custom_metadata": entry.custom}
        if found.destroyed or self._past(found.deleted):
            raise _Refused(404, data={"data": None, "metadata": about})
        return {"data": {"data": found.data, "metadata": about}}

    def _write(self, key: tuple[str, str], request: Request) -> dict[str, Any]:
        body = self._body(request, "data", "options")
        if not isinstance(body.get("data"), dict):
            raise _Refused(400, "no data provided")
        entry = self._paths.get(key) or _Path(now := self._now(), now)
        cas = (body.get("options") or {}).get("cas")
        if cas is None and entry.cas_required:
            raise _Refused(400, "check-and-set parameter required for this call")
        if cas is not None and cas != entry.newest:
            raise _Refused(400, "check-and-set parameter did not match the current version")
        if len(request.body) > _ENTRY:
            raise _Refused(500, "1 error occurred:\n\t* put failed due to value being too large\n\n")
        self._paths[key] = entry
        entry.newest += 1
        entry.updated = self._now()
        dies = self._text(self.clock.now() + self.delete_after) if self.delete_after else ""
        entry.numbers[entry.newest] = _Number(body["data"], entry.updated, dies)
        kept = max(entry.max_versions, self.max_versions) or _KEPT
        for old in [number for number in entry.numbers if number <= entry.newest - kept]:
            del entry.numbers[old]
        entry.oldest = min(entry.numbers)
        return {"data": {**self._about(entry.newest, entry.numbers[entry.newest]), "custom_metadata": entry.custom}}

    def _delete_newest(self, key: tuple[str, str], request: Request) -> None:  # noqa: ARG002  one signature for all
        if key in self._paths:
            self._delete_numbers(self._paths[key], [self._paths[key].newest])

    def _metadata(self, key: tuple[str, str], request: Request) -> dict[str, Any]:
        if self._query(request, "list").get("list") == "true":
            return self._list(key, request)
        entry = self._known(key)
        numbers = {str(number): self._about(number, each) for number, each in entry.numbers.items()}
        for each in numbers.values():
            del each["version"]
        return {
            "data": {
                "versions": numbers,
                "current_version": entry.newest,
                "oldest_version": entry.oldest,
                "created_time": entry.created,
                "updated_time": entry.updated,
                "max_versions": entry.max_versions,
                "cas_required": entry.cas_required,
                "delete_version_after": "0s",
                "custom_metadata": entry.custom,
            }
        }

    def _list(self, key: tuple[str, str], request: Request) -> dict[str, Any]:
        self._query(request, "list")
        namespace, folder = key
        within = f"{folder}/" if folder else ""
        inside = [path[len(within) :] for space, path in self._paths if space == namespace and path.startswith(within)]
        found = {head + slash for head, slash, _ in (path.partition("/") for path in inside)}
        if not found:
            raise _Refused(404)
        return {"data": {"keys": sorted(found, key=str.encode)}}

    def _configure(self, key: tuple[str, str], request: Request) -> None:
        body = self._body(request, "custom_metadata", "max_versions", "cas_required", "delete_version_after")
        custom = body.get("custom_metadata")
        _check_custom(custom or {})
        entry = self._paths.setdefault(key, _Path(now := self._now(), now))
        entry.custom = custom if custom is not None else entry.custom
        entry.max_versions = body.get("max_versions", entry.max_versions)
        entry.cas_required = body.get("cas_required", entry.cas_required)

    def _patch(self, key: tuple[str, str], request: Request) -> None:
        if request.headers.get("Content-Type") != "application/merge-patch+json":
            raise _Refused(415, "PATCH requires Content-Type of application/merge-patch+json")
        body = self._body(request, "custom_metadata", "max_versions", "cas_required", "delete_version_after")
        changes = body.get("custom_metadata") or {}
        _check_custom({name: value for name, value in changes.items() if value is not None})
        entry = self._known(key)
        after = {**(entry.custom or {}), **changes}
        entry.custom = {name: value for name, value in after.items() if value is not None}
        if len(entry.custom) > _KEYS:
            self._violated(request, [f"{len(entry.custom)} custom metadata, {_KEYS} are the limit"])

    def _erase(self, key: tuple[str, str], request: Request) -> None:  # noqa: ARG002
        self._paths.pop(key, None)

    def _delete(self, key: tuple[str, str], request: Request) -> None:
        numbers = self._numbers(request)
        if key in self._paths:
            self._delete_numbers(self._paths[key], numbers)

    def _delete_numbers(self, entry: _Path, numbers: list[int]) -> None:
        for number in numbers:
            found = entry.numbers.get(number)
            if found is not None and not found.destroyed and not self._past(found.deleted):
                found.deleted = self._now()

    def _undelete(self, key: tuple[str, str], request: Request) -> None:
        numbers = self._numbers(request)
        entry = self._paths.get(key) or _Path("", "")
        for number in numbers:
            if number in entry.numbers and not entry.numbers[number].destroyed:
                entry.numbers[number].deleted = ""

    def _destroy(self, key: tuple[str, str], request: Request) -> None:
        numbers = self._numbers(request)
        entry = self._paths.get(key) or _Path("", "")
        for number in numbers:
            if number in entry.numbers:
                entry.numbers[number] = attrs.evolve(entry.numbers[number], data={}, destroyed=True)

    # what they share

    def _known(self, key: tuple[str, str]) -> _Path:
        if key not in self._paths:
            raise _Refused(404)
        return self._paths[key]

    def _about(self, number: int, found: _Number) -> dict[str, Any]:
        return {
            "version": number,
            "created_time": found.created,
            "deletion_time": found.deleted,
            "destroyed": found.destroyed,
        }

    def _numbers(self, request: Request) -> list[int]:
        numbers = self._body(request, "versions").get("versions")
        if not numbers:
            raise _Refused(400, "No version number provided")
        return [int(number) for number in numbers]

    def _body(self, request: Request, *known: str) -> dict[str, Any]:
        self._query(request)
        try:
            body = json.loads(request.body or b"{}")
        except ValueError:
            raise _Refused(400, "failed to parse JSON input") from None
        strange = set(body) - {*known, *(("role", "jwt", "role_id", "secret_id") if known == ("login",) else ())}
        if strange:
            self._violated(request, [f"unknown fields in the body: {', '.join(sorted(strange))}"])
        return dict(body)

    def _query(self, request: Request, *known: str) -> dict[str, str]:
        pairs = dict(parse_qsl(request.query))
        if set(pairs) - set(known):
            self._violated(request, [f"unknown parameters: {', '.join(sorted(set(pairs) - set(known)))}"])
        return pairs

    def _now(self) -> str:
        return self._text(self.clock.now())

    def _text(self, moment: datetime) -> str:
        """Write a time as Go does, to the nanosecond, so that no two are the same."""
        return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%f}{next(self._ticks) % 1000:03}Z"

    def _past(self, text: str) -> bool:
        return bool(text) and datetime.fromisoformat(text) <= self.clock.now()


def _check_custom(custom: Mapping[str, Any]) -> None:
    errors = list(_wrong(custom))
    if errors:
        raise _Refused(400, f"{len(errors)} error occurred:\n\t* " + "\n\t* ".join(errors) + "\n\n")


def _wrong(custom: Mapping[str, Any]) -> Iterator[str]:
    prefix = "custom_metadata validation failed"
    if len(custom) > _KEYS:
        yield f"{prefix}: payload must contain at most {_KEYS} keys, provided {len(custom)}"
        return
    for name, value in custom.items():
        if not 0 < len(name.encode()) <= _KEY:
            yield f"{prefix}: length of key is {len(name.encode())} but must be 0 < len(key) <= {_KEY}"
        if not isinstance(value, str) or not 0 < len(value.encode()) <= _VALUE:
            yield f"{prefix}: length of value for key {name!r} must be 0 < len(value) <= {_VALUE}"
        elif not (name.isprintable() and value.isprintable()):
            yield f"{prefix}: {name!r} contains unprintable characters"


_Act = Callable[[VaultDouble, tuple[str, str], Request], dict[str, Any] | None]

_AREAS: Mapping[tuple[str, str], _Act] = {
    ("GET", "data"): VaultDouble._read,  # noqa: SLF001  its own table
    ("POST", "data"): VaultDouble._write,  # noqa: SLF001
    ("PUT", "data"): VaultDouble._write,  # noqa: SLF001
    ("DELETE", "data"): VaultDouble._delete_newest,  # noqa: SLF001
    ("GET", "metadata"): VaultDouble._metadata,  # noqa: SLF001
    ("LIST", "metadata"): VaultDouble._list,  # noqa: SLF001
    ("POST", "metadata"): VaultDouble._configure,  # noqa: SLF001
    ("PUT", "metadata"): VaultDouble._configure,  # noqa: SLF001
    ("PATCH", "metadata"): VaultDouble._patch,  # noqa: SLF001
    ("DELETE", "metadata"): VaultDouble._erase,  # noqa: SLF001
    ("POST", "delete"): VaultDouble._delete,  # noqa: SLF001
    ("POST", "undelete"): VaultDouble._undelete,  # noqa: SLF001
    ("PUT", "undelete"): VaultDouble._undelete,  # noqa: SLF001
    ("POST", "destroy"): VaultDouble._destroy,  # noqa: SLF001
    ("PUT", "destroy"): VaultDouble._destroy,  # noqa: SLF001
}


def _never(_environ: WSGIEnvironment, _start_response: object) -> list[bytes]:
    raise AssertionError("the double answers without an application")

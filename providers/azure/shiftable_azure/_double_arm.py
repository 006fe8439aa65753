"""Resource Manager at the double: who asks, for which api-version, in which resource group, and long operations."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Mapping
from typing import Any, Protocol
from urllib.parse import parse_qs, unquote, urlsplit

import attrs
from werkzeug.datastructures import Headers

from shiftable.testing.harness import Request, Response

__all__ = ["ArmAsked", "ArmRefusalAnswer", "ArmService", "Operations", "ResourceService", "arm_json", "is_arm"]

HOST = "https://management.azure.com"
_CHALLENGE = 'Bearer authorization_uri="https://login.windows.net/00000000-0000-0000-0000-000000000000", error="{}"'
_PHRASES = {
    200: "OK", 201: "Created", 202: "Accepted", 204: "No Content", 400: "Bad Request", 401: "Unauthorized",
    403: "Forbidden", 404: "Not Found", 405: "Method Not Allowed", 409: "Conflict", 412: "Precondition Failed",
    429: "Too Many Requests",
}  # fmt: skip
_OPERATIONS = re.compile(r"(?i)/subscriptions/[^/]+/providers/([^/]+)/(?:locations/[^/]+/)?operations/([0-9a-f-]+)")
_RESOURCE = re.compile(r"(?i)/subscriptions/([^/]+)(?:/resourceGroups/([^/]+))?/providers/([^/]+)(/.*)")


class ArmRefusalAnswer(Exception):
    """What Resource Manager, or a service behind it, answers in place of a success.

    Args:
        flat: the code stands at the top of the body, as Azure DNS has it, and not in ``error``.
    """

    def __init__(
        self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None, *, flat: bool = False
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.headers = dict(headers or {})
        self.flat = flat


@attrs.frozen
class ArmAsked:
    """A request for a resource, taken apart.

    Args:
        subscription: its id.
        group: the resource group as the URL spells it; ``None``: the request is for the subscription.
        parts: of the path below the resource provider.
        url: without the query, as it came.
    """

    method: str
    subscription: str
    group: str | None
    parts: tuple[str, ...]
    version: str
    query: Mapping[str, str]
    headers: Headers
    url: str
    body: bytes = attrs.field(repr=False)

    @property
    def content(self) -> dict[str, Any]:
        """The JSON object of the body."""
        try:
            found = json.loads(self.body)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise ArmRefusalAnswer(400, "InvalidRequestContent", "The request content was invalid JSON.")
        return found


class ResourceService(Protocol):
    """A service behind Resource Manager: one resource provider."""

    namespace: str
    versions: frozenset[str]

    def execute(self, asked: ArmAsked) -> Response:
        """Answer a request.

        Raises:
            ArmRefusalAnswer: no.
        """

    def operation(self, method: str, parts: tuple[str, ...]) -> tuple[str, str]:
        """Return the name of an operation, as the REST reference has it, and the action that it takes."""

    def reset(self) -> None:
        """Forget everything."""


class Operations:
    """Long operations.

    Attributes:
        looks: how often one is still running when it is looked at.
        failure: code and message that one ends with, in place of success.
    """

    def __init__(self) -> None:
        self._running: dict[str, tuple[int, tuple[str, str] | None]] = {}
        self.reset()

    def reset(self) -> None:
        """Forget all; let them succeed at once."""
        self.looks = 0
        self.failure: tuple[str, str] | None = None
        self._running.clear()

    def begin(self, subscription: str, namespace: str) -> dict[str, str]:
        """Note one; return the headers that tell where to ask for it."""
        id_ = str(uuid.uuid4())
        self._running[id_] = (self.looks, self.failure)
        link = f"{HOST}/subscriptions/{subscription}/providers/{namespace}/operations/{id_}?api-version=2018-05-01"
        return {"Azure-AsyncOperation": link, "Retry-After": "2"}

    def status(self, id_: str) -> Response:
        """Answer a look at one."""
        if id_ not in self._running:
            raise ArmRefusalAnswer(404, "NotFound", "There is no such operation.")
        looks, failure = self._running[id_]
        self._running[id_] = (looks - 1, failure)
        if looks > 0:
            return arm_json(200, {"status": "InProgress"}, {"Retry-After": "3"})
        if failure is None:
            return arm_json(200, {"status": "Succeeded"})
        return arm_json(200, {"status": "Failed", "error": {"code": failure[0], "message": failure[1]}})


def is_arm(request: Request) -> bool:
    """Tell whether a request is for Resource Manager."""
    here = request.host.lower().startswith(("management.", "127.0.0.1"))
    return here and request.target.startswith("/subscriptions/")


class ArmService:
    """Executes requests, one at a time.

    Attributes:
        subscriptions: which there are.
        groups: resource groups by name in lower case, each as it was made.
        tokens: those that are good.
        denied: actions that nobody may, as roles name them.
        operations: those that take long.
        throttled: how many requests are refused with 429 from now on.
    """

    def __init__(
        self, token: str, subscription: str, group: str, operations: Operations, *services: ResourceService
    ) -> None:
        self._token = token
        self._subscription = subscription
        self._group = group
        self._services = {service.namespace.lower(): service for service in services}
        self.operations = operations
        self.reset()

    def reset(self) -> None:
        """Forget all resources; be an ordinary subscription again."""
        self.subscriptions = {self._subscription}
        self.groups = {self._group.lower(): self._group}
        self.tokens = {self._token}
        self.denied: set[str] = set()
        self.throttled = 0
        self.operations.reset()
        for service in self._services.values():
            service.reset()

    def operation(self, request: Request) -> str:
        """Name the operation."""
        path = urlsplit(request.target).path
        if _OPERATIONS.fullmatch(path):
            return "GetOperationStatus"
        found = _RESOURCE.fullmatch(path)
        service = self._services.get(found[3].lower()) if found else None
        return service.operation(request.method, _parts(found[4]))[0] if found and service else ""

    def execute(self, request: Request) -> Response:
        """Answer a request."""
        try:
            return self._answered(request)
        except ArmRefusalAnswer as refusal:
            error = {"code": refusal.code, "message": refusal.message}
            return arm_json(refusal.status, error if refusal.flat else {"error": error}, refusal.headers)

    def _answered(self, request: Request) -> Response:
        self._authenticated(request)
        if self.throttled:
            self.throttled -= 1
            message = "Number of requests for subscription exceeded the limit. Please try again after '5' seconds."
            raise ArmRefusalAnswer(429, "SubscriptionRequestsThrottled", message, {"Retry-After": "5"})
        url = urlsplit(request.target)
        query = {name: values[-1] for name, values in parse_qs(url.query, keep_blank_values=True).items()}
        version = query.get("api-version", "")
        if not version:
            raise ArmRefusalAnswer(400, "MissingApiVersionParameter", "The api-version query parameter is required.")
        running = _OPERATIONS.fullmatch(url.path)
        if running is not None:
            return self.operations.status(running[2])
        found = _RESOURCE.fullmatch(url.path)
        service = self._services.get(found[3].lower()) if found else None
        if found is None or service is None:
            raise ArmRefusalAnswer(404, "InvalidResourceType", "The double has no such resource provider.")
        if found[1] not in self.subscriptions:
            raise ArmRefusalAnswer(404, "SubscriptionNotFound", f"The subscription '{found[1]}' could not be found.")
        if version not in service.versions:
            known = ", ".join(sorted(service.versions))
            message = f"No registered resource provider found for API version '{version}'. The supported are '{known}'."
            raise ArmRefusalAnswer(400, "NoRegisteredProviderFound", message)
        group, parts = found[2], _parts(found[4])
        self._permitted(service, request.method, parts, url.path)
        if group is not None and unquote(group).lower() not in self.groups:
            raise ArmRefusalAnswer(404, "ResourceGroupNotFound", f"Resource group '{group}' could not be found.")
        asked = ArmAsked(
            request.method,
            found[1],
            group and unquote(group),
            parts,
            version,
            query,
            request.headers,
            url.path,
            request.body,
        )
        return service.execute(asked)

    def _authenticated(self, request: Request) -> None:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme == "Bearer" and token in self.tokens:
            return
        if not token:
            code, message = "AuthenticationFailed", "Authentication failed. The 'Authorization' header is missing."
        else:
            code, message = "InvalidAuthenticationToken", "The access token is invalid."
        challenge = {"WWW-Authenticate": _CHALLENGE.format("invalid_token")}
        raise ArmRefusalAnswer(401, code, message, challenge)

    def _permitted(self, service: ResourceService, method: str, parts: tuple[str, ...], path: str) -> None:
        action = service.operation(method, parts)[1]
        if action in self.denied:
            message = (
                f"The client '0' with object id '0' does not have authorization to perform action '{action}' over "
                f"scope '{path}' or the scope is invalid."
            )
            raise ArmRefusalAnswer(403, "AuthorizationFailed", message)


def arm_json(status: int, content: Any, headers: Mapping[str, str] | None = None) -> Response:  # noqa: ANN401  JSON
    """Return an answer with what all answers have."""
    made = Headers({"x-ms-request-id": "00000000-d0b1-0000-0000-000000000000", "Cache-Control": "private"})
    made.extend(headers or {})
    line = f"{status} {_PHRASES[status]}"
    if content is None:
        return Response(line, made)
    made["Content-Type"] = "application/json; charset=utf-8"
    return Response(line, made, json.dumps(content).encode())


def _parts(path: str) -> tuple[str, ...]:
    return tuple(unquote(part) for part in path.split("/") if part)

"""Stand-ins for hosters on loopback: what this provider speaks of DigitalOcean's, Linode's and Vultr's API."""

from __future__ import annotations

import json
import secrets
import threading
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar
from wsgiref.types import WSGIEnvironment

import attrs

from shiftable.config import Credential
from shiftable.testing.harness import Double, Headers, Request, Response
from shiftable_libcloud._double_domains import Domains
from shiftable_libcloud._double_droplets import DropletCloud
from shiftable_libcloud._double_linode import LinodeDomains
from shiftable_libcloud._double_linodes import LinodeCloud
from shiftable_libcloud._double_state import Refused, Routed, Row, missing
from shiftable_libcloud._double_vultr import VultrDomains, paged

__all__ = ["DigitalOceanDouble", "HosterDouble", "LinodeDouble", "VultrDouble"]


class HosterDouble(Double):
    """One account at a hoster, in this process.

    Attributes:
        token: the account's; ``reading_token`` may only read.
        domains: what the account has.
        page_size: how much a page holds at most, whatever is asked for.
    """

    name: ClassVar[str] = "libcloud"
    domains: Domains | LinodeDomains | VultrDomains
    page_size: int
    prefix: ClassVar[str] = ""
    """What the hoster's tokens begin with."""
    made: ClassVar[int] = 201
    """The status of a creation, unless ``made_as`` has another for it."""
    made_as: ClassVar[Mapping[str, int]] = {}
    unknown: ClassVar[str] = ""
    forbidden: ClassVar[str] = ""

    def __init__(self) -> None:
        super().__init__(_never, validators=[self._violations])
        self.token = f"{self.prefix}{secrets.token_hex(32)}"
        self.reading_token = f"{self.prefix}{secrets.token_hex(32)}"
        self._state = threading.Lock()

    def identify(self, request: Request) -> tuple[str, str]:
        """Name what a request is about, and what it does: ``records.create``."""
        found = self._found(request)
        return ("", "") if found is None else (found[0], found[1].operation)

    def answer(self, request: Request, environ: WSGIEnvironment) -> Response:  # noqa: ARG002  there is no application
        """Execute a request, one at a time."""
        with self._state:
            try:
                return self._executed_as(request, self._routed(request))
            except Refused as exc:
                return _answered(exc.status, self._no(exc))

    def _routed(self, request: Request) -> Routed:
        sent = request.headers.get("Authorization", "")
        known = {f"Bearer {self.token}": True, f"Bearer {self.reading_token}": False}
        if sent not in known:
            raise Refused(401, self.unknown, self._words_of(401))
        found = self._found(request)
        if found is None:
            raise missing()
        if request.method != "GET" and not known[sent]:
            raise Refused(403, self.forbidden, self._words_of(403))
        return found[1]

    def _executed_as(self, request: Request, routed: Routed) -> Response:
        told = routed.handler(routed)
        if told is None:
            return Response("204 No Content", Headers())
        if isinstance(told, list):
            return _answered(200, self._page(request, routed, told))
        made = self.made_as.get(routed.operation, self.made)
        return _answered(made if request.method == "POST" else 200, told)

    @abstractmethod
    def _found(self, request: Request) -> tuple[str, Routed] | None:
        """Return what a request is for."""

    @abstractmethod
    def _no(self, refused: Refused) -> Row:
        """Return what the hoster says of an error."""

    @abstractmethod
    def _words_of(self, status: int) -> str:
        """Return what the hoster says of a token."""

    @abstractmethod
    def _page(self, request: Request, routed: Routed, rows: list[Row]) -> Row | list[Row]:
        """Return one page of a listing, with the way to the next one."""

    def _violations(self, request: Request, response: Response) -> list[str]:  # noqa: ARG002  the harness passes both
        """Say what no client should send."""
        found = []
        if self.token in request.target or self.reading_token in request.target:
            found.append("the token stands in the URL")
        if request.body and request.headers.get("Content-Type") != "application/json":
            found.append("a body that is not announced as JSON")
        if b'"data": null' in request.body or b'"target": null' in request.body:
            found.append("a record without data")
        return found


class DigitalOceanDouble(HosterDouble):
    """DigitalOcean in this process: the domains, records, droplets and firewalls of one account.

    Attributes:
        machines: what the account has beside its domains.
    """

    domains: Domains

    prefix: ClassVar[str] = "dop_v1_"
    unknown: ClassVar[str] = "Unauthorized"
    forbidden: ClassVar[str] = "Forbidden"

    def __init__(self) -> None:
        super().__init__()
        self.page_size = 200
        self.domains = Domains()
        self.machines = DropletCloud(self.clock.now)

    @property
    def config(self) -> dict[str, Any]:
        """The settings for ``shiftable.connect("libcloud", **double.config)``, with little patience: five seconds."""
        token = Credential.literal(self.token)
        return {
            "hoster": "digitalocean",
            "region": "fra1",
            "endpoint": self.url,
            "token": token,
            "retry_seconds": 5.0,
        }

    def forget(self) -> None:
        """Delete all that the account has, and return to large pages."""
        with self._state:
            self.domains.forget()
            self.machines.forget()
            self.page_size = 200

    def _found(self, request: Request) -> tuple[str, Routed] | None:
        for service, part in (("dns", self.domains), ("compute", self.machines)):
            found = part.routes.find(request)
            if found is not None:
                return service, found
        return None

    def _no(self, refused: Refused) -> Row:
        return {"id": refused.id, "message": refused.message, "request_id": "r-1"}

    def _words_of(self, status: int) -> str:
        known = {401: "Unable to authenticate you", 403: "You are not authorized to perform this operation"}
        return known[status]

    def _page(self, request: Request, routed: Routed, rows: list[Row]) -> Row:
        size = min(int(routed.query.get("per_page", 20)), self.page_size)
        page, last = int(routed.query.get("page", 1)), max(1, -(-len(rows) // size))
        if size < 1 or page < 1:
            raise Refused(400, "bad_request", "Invalid paging parameters")
        base = f"{self.url}{request.path}?per_page={size}&page="
        ahead = {"next": f"{base}{page + 1}", "last": f"{base}{last}"} if page < last else {}
        back = {"first": f"{base}1", "prev": f"{base}{page - 1}"} if page > 1 else {}
        links = {"pages": {**ahead, **back}} if ahead or back else {}
        shown = rows[(page - 1) * size : page * size]
        return {routed.listed: shown, "links": links, "meta": {"total": len(rows)}}


class LinodeDouble(HosterDouble):
    """Linode in this process: the domains, records, Linodes and Cloud Firewalls of one account.

    Attributes:
        machines: what the account has beside its domains.
    """

    domains: LinodeDomains

    made: ClassVar[int] = 200

    def __init__(self) -> None:
        super().__init__()
        self.page_size = 500
        self.domains = LinodeDomains()
        self.machines = LinodeCloud(self.clock.now)

    @property
    def config(self) -> dict[str, Any]:
        """The settings for ``shiftable.connect("libcloud", **double.config)``, with little patience: five seconds."""
        token = Credential.literal(self.token)
        return {
            "hoster": "linode",
            "region": "eu-central",
            "endpoint": self.url,
            "token": token,
            "retry_seconds": 5.0,
        }

    def forget(self) -> None:
        """Delete all that the account has, and return to large pages."""
        with self._state:
            self.domains.forget()
            self.machines.forget()
            self.page_size = 500

    def _found(self, request: Request) -> tuple[str, Routed] | None:
        found = self.domains.find(request)
        if found is not None:
            return "dns", found
        found = self.machines.routes.find(request)
        if found is None:
            return None
        wanted = json.loads(request.headers.get("X-Filter") or "{}")
        return "compute", attrs.evolve(found, query={**found.query, **wanted})

    def _no(self, refused: Refused) -> Row:
        return {
            "errors": [
                {"reason": refused.message, **({"field": refused.id} if refused.status == 400 and refused.id else {})}
            ]
        }

    def _words_of(self, status: int) -> str:
        return {401: "Invalid Token", 403: "Your OAuth token is not authorized to use this endpoint."}[status]

    def _page(self, request: Request, routed: Routed, rows: list[Row]) -> Row | list[Row]:  # noqa: ARG002  as all hosters'
        if not routed.listed:
            return rows  # what Linode tells without pages
        return self.domains.paged(routed, rows, self.page_size)


class VultrDouble(HosterDouble):
    """Vultr in this process: the domains and records of one account."""

    domains: VultrDomains

    made_as: ClassVar[Mapping[str, int]] = {"domains.create": 200}

    def __init__(self) -> None:
        super().__init__()
        self.page_size = 500
        self.domains = VultrDomains()

    @property
    def config(self) -> dict[str, Any]:
        """The settings for ``shiftable.connect("libcloud", **double.config)``, with little patience: five seconds."""
        token = Credential.literal(self.token)
        return {"hoster": "vultr", "endpoint": self.url, "token": token, "retry_seconds": 5.0}

    def forget(self) -> None:
        """Delete all that the account has, and return to large pages."""
        with self._state:
            self.domains.forget()
            self.page_size = 500

    def _found(self, request: Request) -> tuple[str, Routed] | None:
        found = self.domains.routes.find(request)
        return None if found is None else ("dns", found)

    def _no(self, refused: Refused) -> Row:
        return {"error": refused.message, "status": refused.status}

    def _words_of(self, status: int) -> str:
        return {401: "Invalid API token.", 403: "Forbidden"}[status]

    def _page(self, request: Request, routed: Routed, rows: list[Row]) -> Row:  # noqa: ARG002  as all hosters'
        return paged(routed, rows, self.page_size, "domain" if routed.listed == "domains" else "id")


def _answered(status: int, told: Row | list[Row]) -> Response:
    headers = Headers({"Content-Type": "application/json; charset=utf-8", "x-request-id": "r-1"})
    headers["ratelimit-limit"], headers["ratelimit-remaining"] = "5000", "4999"
    return Response(f"{status} Answered", headers, json.dumps(told).encode())


def _never(_environ: WSGIEnvironment, _start_response: object) -> list[bytes]:
    raise AssertionError("the double answers by itself")

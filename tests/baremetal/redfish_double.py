"""A Redfish service with what sushy-tools' fake one lacks: sessions, processors, tasks, and power that lags."""

from __future__ import annotations

import base64
import itertools
import json
import re
import secrets
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any, ClassVar
from wsgiref.types import WSGIEnvironment

import attrs

from shiftable.testing.harness import Double, Headers, Request, Response

ALL_RESETS = ("On", "ForceOff", "GracefulShutdown", "GracefulRestart", "ForceRestart")
V1 = "/redfish/v1"


@attrs.define
class Server:
    """One system, as it is, and what its BMC says of it.

    Attributes:
        power: as it is.
        said: what the BMC says instead, until it is ``None``.
        deaf: its operating system ignores the power button.
        started: what it was started from, each time; ``disk``, ``network`` or a URL.
        told: all reset types that were executed.
    """

    power: str = "Off"
    said: str | None = None
    coming: tuple[str, Any] | None = None
    deaf: bool = False
    image: str | None = None
    media_user: str | None = None
    boot_once: str | None = None
    resets: int = 0
    started: list[str] = attrs.field(factory=list)
    told: list[str] = attrs.field(factory=list)


class RedfishDouble(Double):
    """One BMC with some systems.

    Attributes:
        lag: until power changes.
        allowed: reset types.
        sessions: tokens by id; ``limit`` of them at most.
        task_state: resets become tasks that end so.
        seen_as: its own address, as it knows it.
    """

    name: ClassVar[str] = "redfish"

    def __init__(
        self, count: int = 1, *, user: str = "ops", password: str = "", cpus: int = 8, memory: int = 32
    ) -> None:
        super().__init__(lambda *_: [])
        self.user, self.password = user, password or secrets.token_hex(8)
        self.cpus, self.memory = cpus, memory
        self.servers = [Server() for _ in range(count)]
        self.lag = timedelta(0)
        self.allowed: tuple[str, ...] | None = ALL_RESETS
        self.has_sessions = True
        self.tells_resets = True
        self.sessions: dict[str, str] = {}
        self.logins = 0
        self.limit = 8
        self.task_state: str | None = None
        self.seen_as = ""
        self._tasks: dict[str, str] = {}
        self._numbers = itertools.count(1)
        self._one_at_a_time = threading.Lock()

    def expire(self) -> None:
        """End all sessions, as a restart of the BMC does."""
        self.sessions.clear()

    def answer(self, request: Request, environ: WSGIEnvironment) -> Response:
        with self._one_at_a_time:
            return self._answer(request)

    def _answer(self, request: Request) -> Response:
        path = request.path.rstrip("/")
        body = json.loads(request.body) if request.body else {}
        if path == V1:
            return _json(200, self._root())
        if path == f"{V1}/SessionService/Sessions" and request.method == "POST":
            return self._login(body)
        if not self._knows(request):
            return _error(401, "Base.1.8.NoValidSession", "There is no valid session established")
        routes: tuple[tuple[str, str, Callable[..., Response]], ...] = (
            ("DELETE", r"/SessionService/Sessions/(\w+)", self._logout),
            ("GET", r"/Systems", self._systems),
            ("GET", r"/Systems/(\d+)", self._system),
            ("PATCH", r"/Systems/(\d+)", self._boot),
            ("POST", r"/Systems/(\d+)/Actions/ComputerSystem\.Reset", self._reset),
            ("GET", r"/Systems/(\d+)/VirtualMedia", self._drives),
            ("GET", r"/Systems/(\d+)/VirtualMedia/Cd", self._drive),
            ("POST", r"/Systems/(\d+)/VirtualMedia/Cd/Actions/VirtualMedia\.InsertMedia", self._insert),
            ("POST", r"/Systems/(\d+)/VirtualMedia/Cd/Actions/VirtualMedia\.EjectMedia", self._eject),
            ("GET", r"/TaskService/TaskMonitors/(\w+)", self._task),
        )
        for method, pattern, act in routes:
            found = re.fullmatch(V1 + pattern, path)
            if found and method == request.method:
                return act(*found.groups(), **({"body": body} if method in {"PATCH", "POST"} else {}))
        return _error(404, "Base.1.8.ResourceMissingAtURI", f"no resource at {path}")

    # sessions

    def _root(self) -> dict[str, Any]:
        told: dict[str, Any] = {"@odata.id": V1, "Id": "Root", "Name": "Root", "RedfishVersion": "1.15.0"}
        told["Systems"] = {"@odata.id": f"{V1}/Systems"}
        if self.has_sessions:
            told["SessionService"] = {"@odata.id": f"{V1}/SessionService"}
            told["Links"] = {"Sessions": {"@odata.id": f"{V1}/SessionService/Sessions"}}
        return told

    def _login(self, body: dict[str, Any]) -> Response:
        if (body.get("UserName"), body.get("Password")) != (self.user, self.password):
            why = f"The login with {body.get('Password')} failed"  # a BMC that says too much
            return _error(401, "Base.1.8.NoValidSession", why)
        if len(self.sessions) >= self.limit:
            return _error(503, "Base.1.8.SessionLimitExceeded", "The session establishment failed")
        number, token = str(next(self._numbers)), secrets.token_hex(16)
        self.sessions[number] = token
        self.logins += 1
        where = f"{V1}/SessionService/Sessions/{number}"
        return _json(
            201, {"@odata.id": where, "Id": number}, {"X-Auth-Token": token, "Location": f"{self.seen_as}{where}"}
        )

    def _knows(self, request: Request) -> bool:
        token = request.headers.get("X-Auth-Token")
        if token is not None:
            return token in self.sessions.values()
        both = base64.b64encode(f"{self.user}:{self.password}".encode()).decode()
        return request.headers.get("Authorization") == f"Basic {both}"

    def _logout(self, number: str) -> Response:
        if self.sessions.pop(number, None) is None:
            return _error(404, "Base.1.8.ResourceMissingAtURI", "no such session")
        return _json(204, None)

    # systems

    def _systems(self) -> Response:
        members = [{"@odata.id": f"{V1}/Systems/{number}"} for number in range(len(self.servers))]
        found = {"Name": "Systems", "Members": members, "Members@odata.count": len(members)}
        return _json(200, {"@odata.id": f"{V1}/Systems", **found})

    def _system(self, number: str) -> Response:
        server = self._now(number)
        reset: dict[str, Any] = {"target": f"{V1}/Systems/{number}/Actions/ComputerSystem.Reset"}
        if self.allowed is not None:
            reset["ResetType@Redfish.AllowableValues"] = list(self.allowed)
        told = {
            "@odata.id": f"{V1}/Systems/{number}",
            "Id": number,
            "Name": f"System {number}",
            "PowerState": server.said or server.power,
            "ProcessorSummary": {"Count": 2, "CoreCount": self.cpus // 2, "LogicalProcessorCount": self.cpus},
            "MemorySummary": {"TotalSystemMemoryGiB": self.memory},
            "Boot": {
                "BootSourceOverrideEnabled": "Once" if server.boot_once else "Disabled",
                "BootSourceOverrideTarget": server.boot_once or "None",
                "BootSourceOverrideTarget@Redfish.AllowableValues": ["None", "Pxe", "Cd", "Hdd"],
            },
            "Actions": {"#ComputerSystem.Reset": reset},
            "VirtualMedia": {"@odata.id": f"{V1}/Systems/{number}/VirtualMedia"},
            "Links": {},
        }
        if self.tells_resets:
            told["LastResetTime"] = f"2026-01-01T00:00:{server.resets:02}Z"
        return _json(200, told)

    def _boot(self, number: str, body: dict[str, Any]) -> Response:
        boot = body["Boot"]
        if boot["BootSourceOverrideEnabled"] != "Once" or boot["BootSourceOverrideTarget"] not in {"Pxe", "Cd"}:
            return _error(400, "Base.1.8.PropertyValueNotInList", str(boot))
        self._now(number).boot_once = boot["BootSourceOverrideTarget"]
        return _json(204, None)

    def _reset(self, number: str, body: dict[str, Any]) -> Response:
        server, kind = self._now(number), body["ResetType"]
        if kind not in (self.allowed or ALL_RESETS):
            return _error(400, "Base.1.8.ActionParameterNotSupported", kind)
        server.told.append(kind)
        if self.task_state in {None, "Completed"}:
            self._turn(server, kind)
            self._now(number)
        if self.task_state is None:
            return _json(204, None)
        task = secrets.token_hex(4)
        self._tasks[task] = self.task_state
        return _json(202, None, {"Location": f"{self.seen_as}{V1}/TaskService/TaskMonitors/{task}"})

    def _turn(self, server: Server, kind: str) -> None:
        if kind == "On" and server.power == "Off":
            server.coming = ("On", self.clock.now() + self.lag)
        elif kind == "ForceOff" or (kind == "GracefulShutdown" and not server.deaf):
            server.coming = ("Off", self.clock.now() + self.lag)
        elif kind == "ForceRestart" or (kind == "GracefulRestart" and not server.deaf):
            server.coming = ("Restart", self.clock.now() + self.lag)

    def _now(self, number: str) -> Server:
        """Return a system with what its time has brought."""
        server = self.servers[int(number)]
        if server.coming is not None and server.coming[1] <= self.clock.now():
            kind, _ = server.coming
            server.coming = None
            if kind == "Restart" or (kind == "On" and server.power == "Off"):
                server.resets += 1
                source = {"Cd": server.image or "an empty drive", "Pxe": "network"}.get(server.boot_once or "", "disk")
                server.started.append(source)
                server.boot_once = None
            server.power = "Off" if kind == "Off" else "On"
        return server

    # media and tasks

    def _drives(self, number: str) -> Response:
        where = f"{V1}/Systems/{number}/VirtualMedia"
        return _json(200, {"@odata.id": where, "Name": "Media", "Members": [{"@odata.id": f"{where}/Cd"}]})

    def _drive(self, number: str) -> Response:
        server, where = self._now(number), f"{V1}/Systems/{number}/VirtualMedia/Cd"
        actions = {
            f"#VirtualMedia.{name}Media": {"target": f"{where}/Actions/VirtualMedia.{name}Media"}
            for name in ("Insert", "Eject")
        }
        told = {"@odata.id": where, "Id": "Cd", "Name": "Virtual CD", "MediaTypes": ["CD", "DVD"], "Actions": actions}
        return _json(200, {**told, "Inserted": server.image is not None, "Image": server.image})

    def _insert(self, number: str, body: dict[str, Any]) -> Response:
        server = self._now(number)
        if server.image is not None:
            return _error(400, "Base.1.8.GeneralError", f"{server.image} is inserted")
        if "refused" in body["Image"]:
            image, (_, _, target) = body["Image"], body["Image"].partition("://")[2].partition("/")
            why = f"no answer to /{target}, {target.partition('?')[2]}"
            said = f"{image} with {body.get('Password')} cannot be read: {why}"
            return _error(400, "Base.1.8.GeneralError", said)
        server.image, server.media_user = body["Image"], body.get("UserName")
        return _json(204, None)

    def _eject(self, number: str, body: dict[str, Any]) -> Response:
        self._now(number).image = None
        return _json(204, None)

    def _task(self, task: str) -> Response:
        state = self._tasks[task]
        if state == "Gone":
            return _error(404, "Base.1.8.ResourceMissingAtURI", "no such task")
        if state == "Silent":
            return _json(204, None)
        messages = [{"Message": "The fans do not turn"}] if state == "Exception" else []
        return _json(200, {"@odata.id": "", "Id": task, "Name": "Reset", "TaskState": state, "Messages": messages})


def _json(code: int, told: dict[str, Any] | None, headers: dict[str, str] | None = None) -> Response:
    names = {200: "OK", 201: "Created", 202: "Accepted", 204: "No Content"}
    body = b"" if told is None else json.dumps(told).encode()
    shown = Headers([("Content-Type", "application/json"), *(headers or {}).items()])
    return Response(f"{code} {names[code]}", shown, body)


def _error(code: int, id: str, message: str) -> Response:
    info = [{"MessageId": id, "Message": message, "Severity": "Critical"}]
    told = {"error": {"code": id, "message": message, "@Message.ExtendedInfo": info}}
    return Response(f"{code} Error", Headers([("Content-Type", "application/json")]), json.dumps(told).encode())

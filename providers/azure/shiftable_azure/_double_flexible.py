"""Azure Database's flexible servers in memory: what they are, what takes long, and what is refused meanwhile."""

from __future__ import annotations

import ipaddress
import re
import uuid
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import quote

import attrs

from shiftable.testing.harness import Clock, Response
from shiftable_azure._double_arm import HOST, ArmAsked, ArmRefusalAnswer, arm_json
from shiftable_azure._double_offers import configurations_of, offer_of
from shiftable_azure._double_postgresql import Backends
from shiftable_azure._double_wire import http_date
from shiftable_azure._flexible import LOCKS, MYSQL, POSTGRESQL, Flavour, moment, time_text

__all__ = ["FlexibleServers", "FlexibleService", "StoredServer"]

_NAME = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*", re.IGNORECASE)
_CHILD = re.compile(r"[-\w.]+")
_RULE = re.compile(r"[a-zA-Z0-9][-_a-zA-Z0-9]{0,79}(?<!-)")
_DATABASE = re.compile(r"[a-zA-Z_][\w-]{0,62}")
_RESERVED = {"azure_superuser", "azure_pg_admin", "admin", "administrator", "root", "guest", "public", "postgres"}
_MINORS = {"14": "20", "15": "15", "16": "11", "17": "7", "18": "1", "8.0.21": "8.0.42", "8.4": "8.4.5"}
_HOSTS = {"postgresql": "postgres.database.azure.com", "mysql": "mysql.database.azure.com"}
_VERBS = {"start": ("Stopped", "Starting", "Ready"), "stop": ("Ready", "Stopping", "Stopped"),
          "restart": ("Ready", "Restarting", "Ready")}  # fmt: skip
_GROUPS = {"databases": "Databases", "firewallRules": "FirewallRules", "configurations": "Configurations",
           "backups": "Backups", "backupsV2": "LongRunningBackups", "administrators": "Administrators"}  # fmt: skip
_METHODS = {"GET": "Get", "PUT": "Create", "PATCH": "Update", "DELETE": "Delete"}
_PASSWORD = range(8, 129)


@attrs.define(eq=False)
class StoredServer:
    """One server: ``properties`` as Azure tells them, and what belongs to it by name.

    Attributes:
        until: when what it is doing ends; then comes ``effect``.
        automatic: of the backups, those that Azure took itself.
    """

    flavour: Flavour
    name: str
    group: str
    location: str
    sku: dict[str, str]
    properties: dict[str, Any]
    created: datetime
    password: str = attrs.field(repr=False)
    tags: dict[str, str] = attrs.field(factory=dict)
    databases: dict[str, dict[str, Any]] = attrs.field(factory=dict)
    rules: dict[str, dict[str, Any]] = attrs.field(factory=dict)
    configurations: dict[str, dict[str, Any]] = attrs.field(factory=dict)
    backups: dict[str, dict[str, Any]] = attrs.field(factory=dict)
    administrators: dict[str, dict[str, Any]] = attrs.field(factory=dict)
    locks: dict[str, dict[str, Any]] = attrs.field(factory=dict)
    until: datetime | None = None
    effect: Callable[[], None] | None = attrs.field(default=None, repr=False)

    @property
    def state(self) -> str:
        """What Azure calls its state."""
        return str(self.properties["state"])

    @state.setter
    def state(self, value: str) -> None:
        self.properties["state"] = value

    @property
    def admin(self) -> str:
        """The administrator's name."""
        return str(self.properties["administratorLogin"])

    @property
    def overrides(self) -> dict[str, str]:
        """The parameters that are not as Azure made them."""
        found = self.configurations.items()
        return {name: each["value"] for name, each in found if each["source"] == "user-override"}


@attrs.frozen
class _Operation:
    until: datetime
    error: tuple[str, str] | None


class FlexibleServers:
    """All servers of the subscription, for both engines.

    What Azure answers to a write at a stopped server and to an eighth backup on demand, and which settings a restored
    server takes along beside its databases and parameters, is stated nowhere, and an assumption here.

    Attributes:
        servers: by engine, resource group and name, the latter in lower case.
        delay: how long each operation takes, by ``clock``.
        taken: names that servers of others have, or lately had.
        cpus: the quota of the subscription in the location.
        on_demand: how many backups on demand a server has at most.
        page_size: the most that a listing has in one page.
        closed: sizes that the subscription does not get.
        restricted: locations that offer nothing to the subscription.
        group_locks: locks of the resource group, by name, with their level.
        location_only: operations are told of by ``Location`` alone.
    """

    def __init__(self, clock: Clock, backends: Backends) -> None:
        self.clock = clock
        self._backends = backends
        self.servers: dict[tuple[str, str, str], StoredServer] = {}
        self._operations: dict[str, _Operation] = {}
        self._failures: list[tuple[str, tuple[str, str]]] = []
        self.reset()

    def reset(self) -> None:
        """Forget all servers; be an ordinary subscription again."""
        for server in self.servers.values():
            self._unplug(server)
        self.servers.clear()
        self._operations.clear()
        self._failures.clear()
        self.delay = timedelta(0)
        self.taken: set[str] = set()
        self.cpus = 1000
        self.on_demand = 7
        self.page_size = 100
        self.restricted: set[str] = set()
        self.closed: set[str] = set()
        self.group_locks: dict[str, str] = {}
        self.location_only = False

    def server(self, name: str) -> StoredServer:
        """Return the server of that name, as it is now."""
        found = next(server for (_, _, key), server in self.servers.items() if key == name)
        self.settle(found)
        return found

    def fail(self, operation: str, code: str, message: str) -> None:
        """Have the next operation of that name end with an error: ``Servers_Create``."""
        self._failures.append((operation, (code, message)))

    def put_backup(self, name: str, backup: str, completed: datetime) -> None:
        """Store an automatic backup, as Azure takes them daily."""
        said = {"backupType": "Full", "completedTime": time_text(completed), "source": "Automatic"}
        self.server(name).backups[backup] = {"name": backup, "properties": said}

    # what takes long

    def begin(
        self, asked: ArmAsked, server: StoredServer, name: str, effect: Callable[[], None], meanwhile: str | None = None
    ) -> Response:
        """Begin an operation at a server; return the answer that tells where to look."""
        error = next((error for operation, error in self._failures if operation == name), None)
        if error is not None:
            self._failures.remove((name, error))
        before, server.until = server.state, self.clock.now() + self.delay
        server.state = meanwhile or before

        def ended() -> None:
            server.state = before
            if error is None:
                effect()
            elif name == "Servers_Create":
                self.forget(server)

        server.effect = ended
        id_ = str(uuid.uuid4())
        self._operations[id_] = _Operation(server.until, error)
        provider = f"{HOST}/subscriptions/{asked.subscription}/providers/{server.flavour.namespace}"
        base = f"{provider}/locations/{server.location}"
        headers = {"Location": f"{base}/operationResults/{id_}?api-version={asked.version}", "Retry-After": "10"}
        if not self.location_only:
            headers["Azure-AsyncOperation"] = f"{base}/azureAsyncOperation/{id_}?api-version={asked.version}"
        return arm_json(202, None, headers)

    def look(self, id_: str, *, result: bool) -> Response:
        """Answer a look at an operation."""
        operation = self._operations.get(id_)
        if operation is None:
            raise ArmRefusalAnswer(404, "NotFound", "There is no such operation.")
        self.settle_all()
        running = self.clock.now() < operation.until
        if result:
            if running:
                return arm_json(202, None, {"Retry-After": "10"})
            if operation.error is not None:
                raise ArmRefusalAnswer(409, *operation.error)
            return arm_json(204, None)
        said: dict[str, Any] = {"name": id_, "status": "InProgress" if running else "Succeeded"}
        if not running and operation.error is not None:
            code, message = operation.error
            said |= {"status": "Failed", "error": {"code": code, "message": message}}
        return arm_json(200, said, {"Retry-After": "10"} if running else None)

    def settle(self, server: StoredServer) -> None:
        """Let happen what has ended by now."""
        if server.until is not None and server.until <= self.clock.now():
            effect, server.until, server.effect = server.effect, None, None
            if effect is not None:
                effect()

    def settle_all(self) -> None:
        """Let happen what has ended by now at all servers."""
        for server in tuple(self.servers.values()):
            self.settle(server)

    def forget(self, server: StoredServer) -> None:
        """Take a server away."""
        del self.servers[_key(server.flavour, server.group, server.name)]
        self._unplug(server)

    def add(self, server: StoredServer, data: str | None) -> None:
        """Keep a new server, and listen for it."""
        self.servers[_key(server.flavour, server.group, server.name)] = server
        if server.flavour is POSTGRESQL:
            self._backends.add(server.name, server, data)

    def dump(self, server: StoredServer) -> str | None:
        """Return what somebody has put into a server, if anybody ever connected."""
        return self._backends.private.dump(server.name)

    def rearrange(self, server: StoredServer, *, on: bool = True) -> None:
        """Let those who connect to a server find it as it is now; or nobody connect."""
        if not on:
            self._backends.private.switch(server.name, on=False)
        else:
            self._backends.private.switch(server.name, on=True)
            self._backends.private.rearrange(server.name)

    def _unplug(self, server: StoredServer) -> None:
        if server.flavour is POSTGRESQL:
            self._backends.remove(server.name)

    def count_cpus(self) -> int:
        """Return how many CPUs all servers have."""
        return sum(_cpus(server.sku["name"]) for server in self.servers.values())


class FlexibleService:
    """Executes the requests for one engine, one at a time."""

    def __init__(self, flavour: Flavour, servers: FlexibleServers) -> None:
        self._flavour = flavour
        self._all = servers
        self.namespace = flavour.namespace
        self.versions = frozenset({flavour.version, LOCKS})

    def reset(self) -> None:
        """Forget all servers."""
        self._all.reset()

    def operation(self, method: str, parts: tuple[str, ...]) -> tuple[str, str]:
        """Name an operation and the action that it takes."""
        verb = {"GET": "read", "DELETE": "delete", "POST": "action"}.get(method, "write")
        base = f"{self.namespace}/flexibleServers"
        if parts == ("checkNameAvailability",):
            return "CheckNameAvailability", f"{self.namespace}/checkNameAvailability/action"
        if parts and parts[0] == "locations":
            name = {"azureAsyncOperation": "GetOperationStatus", "operationResults": "GetOperationResult"}
            return name.get(parts[2], "Capabilities_List"), f"{self.namespace}/locations/{parts[2]}/read"
        if not parts or parts[0] != "flexibleServers":
            return "", ""
        return _operation(base, method, verb, parts)

    def execute(self, asked: ArmAsked) -> Response:
        """Answer a request."""
        self._all.settle_all()
        answer = self._executed(asked)
        answer.headers["Date"] = http_date(self._all.clock.now())
        return answer

    def _executed(self, asked: ArmAsked) -> Response:
        parts, lock = asked.parts, "providers" in asked.parts
        if asked.version != (LOCKS if lock else self._flavour.version):
            known = LOCKS if lock else self._flavour.version
            raise ArmRefusalAnswer(400, "NoRegisteredProviderFound", f"The supported api-version is '{known}'.")
        if asked.group is None:
            return self._of_subscription(asked)
        if parts[0] != "flexibleServers" or (len(parts) == 3 and asked.method not in {"GET", "POST"}):
            raise ArmRefusalAnswer(404, "InvalidResourceType", "The resource type could not be found.")
        if len(parts) <= 2:
            return self._server_verbs(asked) if len(parts) == 2 else self._list(asked)
        run = self._lock_verbs if lock else self._switch if asked.method == "POST" else self._child_verbs
        return run(asked, self._server(asked))

    def _list(self, asked: ArmAsked) -> Response:
        group = str(asked.group).lower()
        here = [server for server in self._all.servers.values() if _is_of(server, self._flavour, group)]
        return self._page(asked, [self._json(asked, server) for server in sorted(here, key=lambda one: one.name)])

    # of the subscription

    def _of_subscription(self, asked: ArmAsked) -> Response:
        parts = asked.parts
        if parts == ("checkNameAvailability",) and asked.method == "POST":
            return self._check_name(asked)
        if len(parts) == 4 and parts[0] == "locations" and parts[2] in {"azureAsyncOperation", "operationResults"}:
            return self._all.look(parts[3], result=parts[2] == "operationResults")
        if parts[0] == "locations" and "/".join(parts[2:]) == self._flavour.capabilities:
            restricted = parts[1] in self._all.restricted
            return arm_json(200, offer_of(self._flavour, restricted=restricted, closed=self._all.closed))
        raise ArmRefusalAnswer(404, "InvalidResourceType", "The resource type could not be found.")

    def _check_name(self, asked: ArmAsked) -> Response:
        name = str(asked.content["name"])
        answer: dict[str, Any] = {"name": name, "type": self._flavour.type, "nameAvailable": True, "message": ""}
        if self._flavour.engine == "mysql":
            del answer["name"], answer["type"]
        if not _NAME.fullmatch(name) or not 3 <= len(name) <= 63:
            answer |= {"nameAvailable": False, "reason": "Invalid", "message": "The server name is not valid."}
        elif self._is_taken(name):
            text = "Specified server name is already used."
            answer |= {"nameAvailable": False, "reason": "AlreadyExists", "message": text}
        return arm_json(200, answer)

    def _is_taken(self, name: str) -> bool:
        held = {key for engine, _, key in self._all.servers if engine == self._flavour.engine}
        return name.lower() in self._all.taken | held

    # servers

    def _server_verbs(self, asked: ArmAsked) -> Response:
        found = self._all.servers.get(_key(self._flavour, str(asked.group), asked.parts[1]))
        if asked.method == "PUT":
            return self._put(asked, found)
        if found is None:
            if asked.method == "DELETE":
                return arm_json(204, None)
            raise _missing(asked)
        if asked.method == "GET":
            return arm_json(200, self._json(asked, found))
        if asked.method == "DELETE":
            self._check_locks(found)
            self._check_idle(found, "Ready", "Stopped", "Disabled", "Inaccessible")
            forget = lambda: self._all.forget(found)  # noqa: E731  the effect of this one
            return self._all.begin(asked, found, "Servers_Delete", forget, "Dropping")
        if asked.method == "PATCH":
            return self._patch(asked, found)
        raise ArmRefusalAnswer(405, "MethodNotAllowed", "The double has no such operation.")

    def _put(self, asked: ArmAsked, found: StoredServer | None) -> Response:
        name, content = asked.parts[1], asked.content
        said = content.get("properties") or {}
        if found is not None:
            return self._patch(asked, found)  # Azure takes it for a change
        if not _NAME.fullmatch(name) or not 3 <= len(name) <= 63:
            raise _invalid("The server name is not valid.")
        if self._is_taken(name):
            raise ArmRefusalAnswer(
                409, "ServerNameAlreadyExists", "Specified server name is already used by another server."
            )
        location = str(content.get("location"))
        if location in self._all.restricted:
            raise ArmRefusalAnswer(
                400, "LocationIsOfferRestricted", "The location is restricted for this subscription."
            )
        restoring = said.get("createMode") == "PointInTimeRestore"
        made, data = self._restored(asked, content) if restoring else (self._made(asked, content), None)
        if self._all.count_cpus() + _cpus(made.sku["name"]) > self._all.cpus:
            text = f"Operation could not be completed as it exceeds the approved {made.sku['tier']} Cores quota."
            raise ArmRefusalAnswer(409, "OperationNotAllowed", text)
        self._all.add(made, data)
        ready = lambda: setattr(made, "state", "Ready")  # noqa: E731  the effect of this one
        return self._all.begin(asked, made, "Servers_Create", ready, "Provisioning")

    def _made(self, asked: ArmAsked, content: Mapping[str, Any]) -> StoredServer:
        said = dict(content["properties"])
        admin, password = str(said.pop("administratorLogin", "")), str(said.pop("administratorLoginPassword", ""))
        if admin.lower() in _RESERVED or admin.lower().startswith("pg_") or not admin:
            raise _invalid(f"The administrator login '{admin}' is not valid.")
        if len(password) not in _PASSWORD or admin in password:
            raise ArmRefusalAnswer(400, "PasswordNotComplex", "The password does not meet the policy.")
        if said.get("version") not in _MINORS or (said["version"].startswith("8") is not (self._flavour is MYSQL)):
            raise _invalid(f"The version '{said.get('version')}' is not supported.")
        if said.pop("createMode", "Default") not in {"Default", "Create"}:
            raise _invalid("The create mode is not valid.")
        now = self._all.clock.now()
        sku = dict(content.get("sku") or {})
        made = StoredServer(
            self._flavour, asked.parts[1], str(asked.group), str(content["location"]), sku,
            {"administratorLogin": admin, "state": "Ready"}, now, password, dict(content.get("tags") or {}),
        )  # fmt: skip
        made.configurations = configurations_of(self._flavour)
        self._told(made, now)
        self._apply(made, {"storage": {}, "backup": {}, **said}, new=True)
        return made

    def _told(self, server: StoredServer, now: datetime) -> None:
        """Add what Azure adds to each new server."""
        server.properties["fullyQualifiedDomainName"] = f"{server.name}.{_HOSTS[self._flavour.engine]}"
        server.properties["replicationRole"] = "Primary" if self._flavour is POSTGRESQL else "None"
        server.properties.setdefault("backup", {})["earliestRestoreDate"] = time_text(now)
        if self._flavour is MYSQL:
            server.properties["databasePort"] = 3306

    def _restored(self, asked: ArmAsked, content: Mapping[str, Any]) -> tuple[StoredServer, str | None]:
        """Return a new server, and what it holds: what a backup of just that time does, or else the source by now."""
        said = content["properties"]
        source_name = str(said["sourceServerResourceId"]).rpartition("/")[2]
        source = self._all.servers.get(_key(self._flavour, str(asked.group), source_name))
        if source is None:
            raise ArmRefusalAnswer(404, "ServerNotFound", "The source server does not exist.")
        when = moment(said[self._flavour.point])
        earliest = moment(source.properties["backup"]["earliestRestoreDate"])
        now = self._all.clock.now()
        if when is None or earliest is None or not earliest <= when <= now:
            raise ArmRefusalAnswer(400, "InvalidRestoreTime", "The point in time is not within the retention period.")
        kept = {name: _copied(value) for name, value in source.properties.items() if name != "highAvailability"}
        made = StoredServer(
            self._flavour, asked.parts[1], str(asked.group), str(content["location"]), dict(source.sku),
            {**kept, "state": "Ready", "highAvailability": {"mode": "Disabled", "state": "NotEnabled"}},
            now, source.password, dict(content.get("tags") or {}), _copied(source.databases), {},
            _copied(source.configurations),
        )  # fmt: skip
        self._told(made, now)
        if "network" in said:
            made.properties["network"] = {"publicNetworkAccess": "Disabled", **said["network"]}
        dumps = [each["dump"] for each in source.backups.values() if "dump" in each and _completed(each) == when]
        return made, dumps[0] if dumps else self._all.dump(source)

    def _patch(self, asked: ArmAsked, server: StoredServer) -> Response:
        self._check_idle(server, "Ready")
        content = asked.content
        said = {name: value for name, value in (content.get("properties") or {}).items() if name != "createMode"}
        trial = attrs.evolve(server, properties=_copied(server.properties), sku=dict(server.sku))
        trial.sku = dict(content.get("sku") or server.sku)
        said.pop("administratorLogin", None)
        password = said.pop("administratorLoginPassword", None)
        if password is not None and len(password) not in _PASSWORD:
            raise ArmRefusalAnswer(400, "PasswordNotComplex", "The password does not meet the policy.")
        self._apply(trial, said, new=False)
        properties = {name: value for name, value in trial.properties.items() if name != "state"}

        def effect() -> None:
            server.properties |= properties
            server.sku, server.tags = trial.sku, dict(content.get("tags", server.tags))
            server.password = password or server.password
            self._all.rearrange(server)

        return self._all.begin(asked, server, "Servers_Update", effect, "Updating")

    def _apply(self, server: StoredServer, said: Mapping[str, Any], *, new: bool) -> None:
        """Check settings against the offer, and put them into a server."""
        offered = _offered(self._flavour)
        held, name = server.properties, server.sku.get("name", "")
        if name not in offered or offered[name]["tier"] != server.sku.get("tier"):
            raise ArmRefusalAnswer(
                400, "InvalidSku", f"The sku '{name}' of tier '{server.sku.get('tier')}' is not offered."
            )
        for field, value in said.items():
            if field == "storage":
                self._apply_storage(held, value, new=new)
            elif field == "backup":
                days = value.get("backupRetentionDays", held["backup"].get("backupRetentionDays", 7))
                if not (7 if self._flavour is POSTGRESQL else 1) <= days <= 35:
                    raise _invalid("The backup retention is not within 7 and 35 days.")
                held["backup"] = {
                    "geoRedundantBackup": "Disabled",
                    **held["backup"],
                    **value,
                    "backupRetentionDays": days,
                }
            elif field == "version" and not new and int(value.split(".")[0]) < int(held["version"].split(".")[0]):
                raise _invalid("A server is not downgraded.")
            elif field == "network":
                held["network"] = {"publicNetworkAccess": "Disabled", **value}
            else:
                held[field] = dict(value) if isinstance(value, Mapping) else value
        mode = held.setdefault("highAvailability", {"mode": "Disabled"})["mode"]
        if mode != "Disabled" and mode not in offered[name]["modes"]:
            raise _invalid(f"The sku '{name}' has no high availability '{mode}'.")
        held["highAvailability"]["state"] = "NotEnabled" if mode == "Disabled" else "Healthy"
        minor = _MINORS[held["version"]]
        held["minorVersion" if self._flavour is POSTGRESQL else "fullVersion"] = minor

    def _apply_storage(self, held: dict[str, Any], value: Mapping[str, Any], *, new: bool) -> None:
        before = (held.get("storage") or {}).get("storageSizeGB", 0)
        size = value.get("storageSizeGB", before or 32)
        steps = {32, 64, 128, 256, 512, 1024, 2048, 4095, 4096, 8192, 16384, 32767}
        if (self._flavour is POSTGRESQL and size not in steps) or not 20 <= size <= 32_767:
            raise _invalid(f"The storage size '{size}' is not offered.")
        if not new and size < before:
            raise ArmRefusalAnswer(400, "StorageSizeDecreaseNotSupported", "The storage size cannot be decreased.")
        held["storage"] = {"autoGrow": "Disabled", **(held.get("storage") or {}), **value, "storageSizeGB": size}

    def _switch(self, asked: ArmAsked, server: StoredServer) -> Response:
        verb = asked.parts[2]
        if verb not in _VERBS:
            raise ArmRefusalAnswer(404, "InvalidResourceType", "The double has no such action.")
        needed, meanwhile, then = _VERBS[verb]
        if server.until is None and server.state != needed:
            text = f"{verb} can only be performed on {needed} servers. Current Server State = {server.state}"
            raise ArmRefusalAnswer(409, "ServerIsNotReady", text)
        self._check_idle(server, needed)

        def effect() -> None:
            server.state = then
            self._all.rearrange(server, on=False)
            if then == "Ready":
                self._all.rearrange(server)
            for each in server.configurations.values():
                each["pending"] = each["pending"] and verb == "stop"

        return self._all.begin(asked, server, f"Servers_{verb.capitalize()}", effect, meanwhile)

    def _check_idle(self, server: StoredServer, *states: str) -> None:
        if server.until is not None:
            text = f"Cannot complete operation while server '{server.name}' is busy processing another operation."
            raise ArmRefusalAnswer(409, "ServerIsBusy", text)
        if server.state not in states:
            raise ArmRefusalAnswer(409, "ServerIsStopped", f"The server '{server.name}' is in state '{server.state}'.")

    def _check_locks(self, server: StoredServer) -> None:
        if server.locks or self._all.group_locks:
            text = f"The scope '{server.name}' cannot perform delete operation because following scope(s) are locked."
            raise ArmRefusalAnswer(409, "ScopeLocked", text)

    # what belongs to a server

    def _child_verbs(self, asked: ArmAsked, server: StoredServer) -> Response:
        kind = asked.parts[2]
        held = self._children(server, kind)
        if len(asked.parts) == 3:
            return self._page(asked, [self._child(asked, server, name, each) for name, each in held.items()])
        name = asked.parts[3]
        if asked.method == "GET":
            if name not in held:
                raise _missing(asked)
            return arm_json(200, self._child(asked, server, name, held[name]))
        self._check_idle(server, "Ready")
        if asked.method == "DELETE":
            self._check_locks(server)
            if name not in held:
                return arm_json(204, None)
            if kind == "backupsV2" or (kind == "backups" and held[name]["properties"]["source"] == "Automatic"):
                raise ArmRefusalAnswer(400, "FeatureNotSupported", "The backup cannot be deleted.")

            def drop() -> None:
                held.pop(name, None)

            return self._all.begin(asked, server, f"{_GROUPS[kind]}_Delete", drop)
        run = {"databases": self._put_database, "firewallRules": self._put_rule, "backups": self._put_backup,
               "configurations": self._put_configuration, "backupsV2": self._put_backup,
               "administrators": self._put_administrator}  # fmt: skip
        return self._all.begin(asked, server, f"{_GROUPS[kind]}_Create", run[kind](asked, server, name))

    def _children(self, server: StoredServer, kind: str) -> dict[str, dict[str, Any]]:
        if kind == "configurations":
            return server.configurations
        by_kind = {
            "databases": server.databases,
            "firewallRules": server.rules,
            "administrators": server.administrators,
            self._flavour.backups: server.backups,
        }
        if kind not in by_kind:
            raise ArmRefusalAnswer(404, "InvalidResourceType", "The resource type could not be found.")
        if kind == "databases":
            own = {name: {"properties": dict(self._flavour.database)} for name in sorted(self._flavour.own)}
            return {**own, **server.databases}
        return by_kind[kind]

    def _put_database(self, asked: ArmAsked, server: StoredServer, name: str) -> Callable[[], None]:
        if not _DATABASE.fullmatch(name) or name in self._flavour.own:
            raise _invalid(f"The database name '{name}' is not valid.")
        said = asked.content.get("properties") or {}

        def effect() -> None:
            server.databases[name] = {"properties": {**self._flavour.database, **said}}
            self._all.rearrange(server)

        return effect

    def _put_rule(self, asked: ArmAsked, server: StoredServer, name: str) -> Callable[[], None]:
        said = asked.content["properties"]
        try:
            first, last = (ipaddress.IPv4Address(said[end]) for end in ("startIpAddress", "endIpAddress"))
        except (KeyError, ValueError):
            raise _invalid("The IP address is not valid.") from None
        if first > last or not _RULE.fullmatch(name):
            raise _invalid("The firewall rule is not valid.")
        if server.properties["network"].get("delegatedSubnetResourceId"):
            raise ArmRefusalAnswer(
                400, "FeatureNotSupported", "Firewall rules are not for servers in a virtual network."
            )
        return lambda: server.rules.update({name: {"properties": dict(said)}})

    def _put_configuration(self, asked: ArmAsked, server: StoredServer, name: str) -> Callable[[], None]:
        found = server.configurations.get(name)
        if found is None:
            raise ArmRefusalAnswer(404, "ConfigurationNotFound", f"The configuration '{name}' does not exist.")
        value = str(asked.content["properties"]["value"])
        if found["read_only"] or not re.fullmatch(found["allowed"], value):
            raise _invalid(f"The value '{value}' of '{name}' is not allowed; allowed are '{found['allowed']}'.")

        def effect() -> None:
            changed = found["value"] != value
            found.update(value=value, source="user-override", pending=changed and not found["dynamic"])

        return effect

    def _put_backup(self, _asked: ArmAsked, server: StoredServer, name: str) -> Callable[[], None]:
        if not _CHILD.fullmatch(name) or len(name) > 128:
            raise _invalid(f"The backup name '{name}' is not valid.")
        if server.sku["tier"] == "Burstable" and self._flavour is POSTGRESQL:
            raise ArmRefusalAnswer(400, "OnDemandBackupNotSupported", "Burstable servers have no backups on demand.")
        taken = [each for each in server.backups.values() if each["properties"]["source"] != "Automatic"]
        if len(taken) >= self._all.on_demand:
            raise ArmRefusalAnswer(400, "MaximumOnDemandBackupsReached", f"There are {len(taken)} backups already.")
        if name in server.backups:
            raise ArmRefusalAnswer(409, "BackupAlreadyExists", f"The backup '{name}' exists.")
        stamp = self._all.clock.now()
        key = name if self._flavour is POSTGRESQL else f"customer_{stamp:%Y%m%dt%H%M%S}_{uuid.uuid4()}_{name}"
        kind = "Customer On-Demand" if self._flavour is POSTGRESQL else "FULL"
        said: dict[str, Any] = {"backupType": kind, "source": "Full"}
        if self._flavour is MYSQL:
            server.backups[key] = {"properties": {**said, "provisioningState": "Creating"}}

        def effect() -> None:
            done = {**said, "completedTime": time_text(self._all.clock.now())}
            if self._flavour is MYSQL:
                done["provisioningState"] = "Succeeded"
            server.backups[key] = {"properties": done, "dump": self._all.dump(server)}

        return effect

    def _put_administrator(self, asked: ArmAsked, server: StoredServer, name: str) -> Callable[[], None]:
        if (server.properties.get("authConfig") or {}).get("activeDirectoryAuth") != "Enabled":
            raise ArmRefusalAnswer(400, "FeatureNotSupported", "Microsoft Entra authentication is not enabled.")
        said = {**asked.content["properties"], "objectId": name}
        said.pop("tenantId", None)
        return lambda: server.administrators.update({name: {"properties": said}})

    def _lock_verbs(self, asked: ArmAsked, server: StoredServer) -> Response:
        if asked.parts[3:5] != ("Microsoft.Authorization", "locks"):
            raise ArmRefusalAnswer(404, "InvalidResourceType", "The resource type could not be found.")
        own = f"{self._id(asked, server)}/providers/Microsoft.Authorization/locks"
        above = (
            f"/subscriptions/{asked.subscription}/resourceGroups/{server.group}/providers/Microsoft.Authorization/locks"
        )
        if len(asked.parts) == 5:
            found = [_lock(f"{own}/{name}", name, each) for name, each in server.locks.items()]
            for name, level in self._all.group_locks.items():
                found.append(_lock(f"{above}/{name}", name, {"level": level}))
            return self._page(asked, found)
        name = asked.parts[5]
        if asked.method == "PUT":
            status = 200 if name in server.locks else 201
            server.locks[name] = dict(asked.content["properties"])
            return arm_json(status, _lock(f"{own}/{name}", name, server.locks[name]))
        if asked.method == "DELETE":
            return arm_json(200 if server.locks.pop(name, None) else 204, None)
        raise ArmRefusalAnswer(405, "MethodNotAllowed", "The double has no such operation.")

    # what they share

    def _server(self, asked: ArmAsked) -> StoredServer:
        found = self._all.servers.get(_key(self._flavour, str(asked.group), asked.parts[1]))
        if found is None:
            raise _missing(asked)
        return found

    def _id(self, asked: ArmAsked, server: StoredServer) -> str:
        group = f"/subscriptions/{asked.subscription}/resourceGroups/{server.group}"
        return f"{group}/providers/{self._flavour.type}/{server.name}"

    def _json(self, asked: ArmAsked, server: StoredServer) -> dict[str, Any]:
        return {
            "id": self._id(asked, server),
            "name": server.name,
            "type": self._flavour.type,
            "location": "Germany West Central" if server.location == "germanywestcentral" else server.location,
            "tags": server.tags,
            "sku": server.sku,
            "properties": _copied(server.properties),
            "systemData": {"createdAt": time_text(server.created), "createdByType": "Application"},
        }

    def _child(self, asked: ArmAsked, server: StoredServer, name: str, each: Mapping[str, Any]) -> dict[str, Any]:
        kind = asked.parts[2]
        said = _configuration(self._flavour, each) if kind == "configurations" else each["properties"]
        id_ = f"{self._id(asked, server)}/{kind}/{name}"
        return {"id": id_, "name": name, "type": f"{self._flavour.type}/{kind}", "properties": said}

    def _page(self, asked: ArmAsked, items: list[dict[str, Any]]) -> Response:
        start = int(asked.query.get("$skiptoken", "0"))
        content: dict[str, Any] = {"value": items[start : start + self._all.page_size]}
        if len(items) > start + self._all.page_size:
            token = quote(str(start + self._all.page_size))
            content["nextLink"] = f"{HOST}{asked.url}?api-version={asked.version}&$skiptoken={token}"
        return arm_json(200, content)


def _operation(base: str, method: str, verb: str, parts: tuple[str, ...]) -> tuple[str, str]:
    """Name an operation at a server, and the action that it takes."""
    name = _METHODS.get(method, "")
    if len(parts) <= 2:
        return f"Servers_{name if len(parts) == 2 else 'List'}", f"{base}/{verb}"
    if parts[2] == "providers":
        return f"Locks_{name}", f"Microsoft.Authorization/locks/{verb}"
    if method == "POST":
        return f"Servers_{parts[2].capitalize()}", f"{base}/{parts[2]}/action"
    return f"{_GROUPS.get(parts[2], '')}_{name if len(parts) == 4 else 'List'}", f"{base}/{parts[2]}/{verb}"


def _configuration(flavour: Flavour, each: Mapping[str, Any]) -> dict[str, Any]:
    plain: Callable[[bool], Any] = bool if flavour is POSTGRESQL else str
    return {
        "value": each["value"],
        "defaultValue": each["default"],
        "source": each["source"],
        "dataType": each["type"],
        "allowedValues": each["allowed"],
        "isDynamicConfig": plain(each["dynamic"]),
        "isReadOnly": plain(each["read_only"]),
        "isConfigPendingRestart": plain(each["pending"]),
    }


def _offered(flavour: Flavour) -> dict[str, dict[str, Any]]:
    """Return tier and modes of each size."""
    answer = offer_of(flavour)
    if flavour is POSTGRESQL:
        editions: Iterable[Any] = answer["value"][0]["supportedServerEditions"]
        skus, modes = "supportedServerSkus", "supportedHaMode"
    else:
        editions, skus, modes = (
            answer["properties"]["supportedFlexibleServerEditions"],
            "supportedSkus",
            "supportedHAMode",
        )
    return {
        sku["name"]: {"tier": edition["name"], "modes": sku[modes]} for edition in editions for sku in edition[skus]
    }


def _completed(backup: Mapping[str, Any]) -> datetime | None:
    return moment(backup["properties"].get("completedTime"))


def _cpus(sku: str) -> int:
    found = re.search(r"\d+", sku)
    return int(found[0]) if found else 0


def _key(flavour: Flavour, group: str, name: str) -> tuple[str, str, str]:
    return flavour.engine, group.lower(), name.lower()


def _is_of(server: StoredServer, flavour: Flavour, group: str) -> bool:
    return server.flavour is flavour and server.group.lower() == group


def _lock(id_: str, name: str, said: Mapping[str, Any]) -> dict[str, Any]:
    return {"id": id_, "name": name, "type": "Microsoft.Authorization/locks", "properties": dict(said)}


def _missing(asked: ArmAsked) -> ArmRefusalAnswer:
    text = f"The Resource '{'/'.join(asked.parts)}' under resource group '{asked.group}' was not found."
    return ArmRefusalAnswer(404, "ResourceNotFound", text)


def _invalid(message: str) -> ArmRefusalAnswer:
    return ArmRefusalAnswer(400, "InvalidParameterValue", message)


def _copied(value: Any) -> Any:  # noqa: ANN401  JSON
    if isinstance(value, dict):
        return {name: _copied(each) for name, each in value.items()}
    return [_copied(each) for each in value] if isinstance(value, list) else value

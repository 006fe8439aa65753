"""The double's Cloud SQL: instances, one operation after another on each, users, databases and backups."""

from __future__ import annotations

import base64
import copy
import functools
import json
import re
import uuid
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import Any, TypeVar

import attrs
from cryptography.hazmat.primitives import hashes

from shiftable.testing.harness import Request, Response
from shiftable_gcp._calls import Call, Routes, served
from shiftable_gcp._sql_rules import (
    TIERS,
    VERSIONS,
    absent,
    check_instance,
    check_name,
    defaults,
    exists,
    flag_rows,
    invalid,
)
from shiftable_gcp._sql_servers import Contents, Servers
from shiftable_gcp._sql_state import StoredBackup, StoredInstance, StoredOperation, told_time
from shiftable_gcp._state import Refused

__all__ = ["CloudSql"]

PAGE = 500
_INSTANCES = 1000
_NAME_DELAY = timedelta(days=7)
_REASONS = {401: "authError", 403: "notAuthorized"}
_NETWORKS = frozenset({"default"})
_FIRST = {"POSTGRES": "postgres", "MYSQL": "root"}
_FIRST_DATABASES = {"POSTGRES": ("postgres",), "MYSQL": ("information_schema", "mysql", "performance_schema", "sys")}
_MINOR = "4"

T = TypeVar("T")
Json = dict[str, Any]


_Handler = Callable[[Call], Json]


@attrs.define(eq=False)
class CloudSql:
    """Answers the Cloud SQL Admin API, version 1, one request at a time.

    Attributes:
        instances: by project and name.
        page_size: how much a page of a listing holds at most.
        polls: how often an operation is looked at before it is done; a look at its instance is one, too.
        quota: how many instances a project has at most.
        name_delay: how long nobody gets the name of a deleted instance.
        networks: VPCs with private services access.
        backups: by id.
        servers: the databases behind the addresses.
        token: what accounts log in with, who have no password there.
    """

    now: Callable[[], datetime]
    token: Callable[[], str] = str
    page_size: int = PAGE
    polls: int = 1
    quota: int = _INSTANCES
    name_delay: timedelta = _NAME_DELAY
    networks: frozenset[str] = _NETWORKS
    instances: dict[tuple[str, str], StoredInstance] = attrs.Factory(dict)
    backups: dict[str, StoredBackup] = attrs.Factory(dict)
    operations: dict[str, StoredOperation] = attrs.Factory(dict)
    servers: Servers = attrs.Factory(Servers)
    _deleted: dict[tuple[str, str], datetime] = attrs.field(factory=dict, init=False)
    _failing: dict[str, tuple[str, str]] = attrs.field(factory=dict, init=False)
    _numbers: int = attrs.field(default=1_700_000_000_000, init=False)
    _routes: Routes[_Handler] = attrs.field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        one = "([^/:]+)"
        project = f"/v1/projects/{one}"
        instances, operations, backups = f"{project}/instances", f"{project}/operations", f"{project}/backups"
        instance = f"{instances}/{one}"
        users, databases, runs = f"{instance}/users", f"{instance}/databases", f"{instance}/backupRuns"
        table: tuple[tuple[str, str, _Handler], ...] = (
            ("GET", "/v1/flags", _flags),
            ("GET", f"{project}/tiers", _tiers),
            ("GET", instances, self._list),
            ("POST", instances, self._insert),
            ("GET", instance, self._get),
            ("PATCH", instance, functools.partial(self._update, whole=False)),
            ("PUT", instance, functools.partial(self._update, whole=True)),
            ("DELETE", instance, self._delete),
            ("GET", f"{instance}/getLatestRecoveryTime", self._recovery_time),
            ("POST", f"{instance}/restart", self._restart),
            ("POST", f"{instance}/clone", self._clone),
            ("POST", f"{instance}/restoreBackup", self._restore),
            ("GET", operations, self._list_operations),
            ("GET", f"{operations}/{one}", self._get_operation),
            ("GET", users, self._list_users),
            ("POST", users, self._insert_user),
            ("PUT", users, self._update_user),
            ("DELETE", users, self._delete_user),
            ("GET", f"{users}/{one}", self._get_user),
            ("GET", databases, self._list_databases),
            ("POST", databases, self._insert_database),
            ("GET", f"{databases}/{one}", self._get_database),
            ("DELETE", f"{databases}/{one}", self._delete_database),
            ("GET", backups, self._list_backups),
            ("POST", backups, self._create_backup),
            ("GET", f"{backups}/{one}", lambda call: self._backup_told(self._backup_of(call), call.names[0])),
            ("DELETE", f"{backups}/{one}", self._delete_backup),
            ("GET", runs, self._list_runs),
            ("POST", runs, self._insert_run),
            ("GET", f"{runs}/{one}", lambda call: _run_told(self._run_of(call))),
            ("DELETE", f"{runs}/{one}", self._delete_run),
        )
        self._routes = Routes(table)

    def forget(self) -> None:
        """Delete everything, and be as the service is."""
        self.servers.close()
        for held in (self.instances, self.backups, self.operations, self._deleted, self._failing):
            held.clear()
        self.page_size, self.polls, self.quota = PAGE, 1, _INSTANCES
        self.name_delay, self.networks = _NAME_DELAY, _NETWORKS

    def fail_next(self, kind: str, code: str = "INTERNAL_ERROR", message: str = "An unknown error occurred.") -> None:
        """Have the next operation of a kind, ``CREATE``, end in an error."""
        self._failing[kind] = (code, message)

    def answer(self, request: Request, refused: Refused | None) -> Response:
        """Execute a request, or refuse it as whoever looked at the credentials says."""
        return served(request, self._routes, lambda handler, call: handler(call), refused, _REASONS)

    # instances

    def _list(self, call: Call) -> Json:
        wanted = call.query.get("filter", "instanceType:CLOUD_SQL_INSTANCE")
        if wanted != "instanceType:CLOUD_SQL_INSTANCE":
            raise invalid(f"The double knows no filter {wanted}")
        found = sorted(name for project, name in self.instances if project == call.names[0])
        rows, token = self._paged(call, found, "maxResults", lambda name: name)
        for name in rows:
            self._look(self.instances[call.names[0], name])
        living = [self.instances[call.names[0], name] for name in rows if (call.names[0], name) in self.instances]
        return _page("items", "sql#instancesList", [self._told(each) for each in living], token)

    def _get(self, call: Call) -> Json:
        self._look(self._found(call))
        return self._told(self._found(call))

    def _insert(self, call: Call) -> Json:
        project, body = call.names[0], call.body
        name = check_name(project, body.get("name"))
        self._check_free(project, name)
        version = body.get("databaseVersion", "MYSQL_8_0")
        if version not in VERSIONS:
            raise invalid(f"Unknown database version {version}")
        sent = body.get("settings", {})
        settings = _merged(defaults(version, sent.get("edition")), sent)
        check_instance(version, settings, self.networks)
        made = self._make(project, name, version, body.get("region", "us-central1"), settings)
        made.databases |= set(_FIRST_DATABASES[made.engine])
        first = _FIRST[made.engine]
        made.users[first] = _user(made, first, body.get("rootPassword"))
        return self._begin(made, "CREATE", functools.partial(self._created, made))

    def _make(self, project: str, name: str, version: str, region: str, settings: Json) -> StoredInstance:
        made = StoredInstance(project, name, version, region, self.now(), settings)
        self.instances[project, name] = made
        return made

    def _created(self, made: StoredInstance) -> None:
        made.state = "RUNNABLE"
        self.servers.open(made.key, functools.partial(self._contents, made), postgresql=made.engine == "POSTGRES")

    def _check_free(self, project: str, name: str) -> None:
        since = self._deleted.get((project, name))
        if (project, name) in self.instances or (since is not None and self.now() < since + self.name_delay):
            raise exists("instance")
        if sum(owner == project for owner, _ in self.instances) >= self.quota:
            message = "Failed to create instance because the project has reached the max instance per project limit."
            raise Refused(403, "errorMaxInstancePerLabel", "", message)

    def _update(self, call: Call, *, whole: bool) -> Json:
        instance, body = self._idle(call), call.body
        for name, kept in (("name", instance.name), ("region", instance.region), ("project", instance.project)):
            if body.get(name, kept) != kept:
                raise invalid(f"The field {name} cannot be updated")
        sent = dict(body.get("settings", {}))
        stated = sent.pop("settingsVersion", None)
        if stated is not None and int(stated) != instance.settings_version:
            raise Refused(412, "staleData", "", "Condition does not match.")
        base = defaults(instance.version, sent.get("edition")) if whole else instance.settings
        settings = _merged(base, sent)
        version = body.get("databaseVersion", instance.version)
        if version.split("_")[0] != instance.engine or VERSIONS.index(version) < VERSIONS.index(instance.version):
            raise invalid(f"{instance.version} cannot be upgraded to {version}")
        if int(settings["dataDiskSizeGb"]) < int(instance.settings["dataDiskSizeGb"]):
            raise invalid("The disk size can only be increased")
        kept = instance.settings["ipConfiguration"].get("privateNetwork")
        if kept and settings["ipConfiguration"].get("privateNetwork") != kept:
            raise invalid("The private network cannot be removed or changed")
        check_instance(version, settings, self.networks)

        def become() -> None:
            restarted = instance.settings.get("databaseFlags") != settings.get("databaseFlags")
            instance.settings, instance.version = settings, version
            instance.settings_version += 1
            self.servers.switch(instance.key, on=instance.running, restarted=restarted)

        return self._begin(instance, "UPDATE", become)

    def _delete(self, call: Call) -> Json:
        instance, query = self._idle(call), call.query
        if instance.settings["deletionProtectionEnabled"]:
            raise invalid(
                "The instance is protected. Please disable the deletion protection and try again. To disable deletion"
                " protection, update the instance settings with deletionProtectionEnabled set to false"
            )
        days = int(query.get("finalBackupTtlDays", "30"))
        if not 1 <= days <= 365:
            raise invalid("The final backup is kept for 1 to 365 days")
        if query.get("enableFinalBackup", "false").lower() == "true":
            made = self._take(instance, "FINAL", query.get("finalBackupDescription", ""))
            made.expires = self.now() + timedelta(days=days)
        instance.state = "PENDING_DELETE"

        def vanish() -> None:
            del self.instances[instance.project, instance.name]
            self._deleted[instance.project, instance.name] = self.now()
            for backup in list(self.backups.values()):
                if (backup.project, backup.instance) == (instance.project, instance.name) and backup.gone is None:
                    backup.gone = self.now()
                    if backup.kind == "FINAL":
                        backup.state = "SUCCESSFUL"
                    elif not instance.settings.get("retainBackupsOnDelete"):
                        del self.backups[backup.id]
            self.servers.shut(instance.key)

        return self._begin(instance, "DELETE", vanish)

    def _restart(self, call: Call) -> Json:
        instance = self._idle(call)
        _require_running(instance)
        again = functools.partial(self.servers.switch, instance.key, on=True, restarted=True)
        return self._begin(instance, "RESTART", again)

    def _clone(self, call: Call) -> Json:
        source, context = self._idle(call), call.body.get("cloneContext", {})
        project = call.names[0]
        name = check_name(project, context.get("destinationInstanceName"))
        self._check_free(project, name)
        moment = context.get("pointInTime")
        if moment is not None:
            when, earliest = datetime.fromisoformat(moment), self._earliest(source)
            if not earliest - timedelta(milliseconds=1) <= when <= self.now():
                raise invalid(f"The point in time {moment} is not within the time that can be recovered")
        made = self._make(project, name, source.version, source.region, copy.deepcopy(source.settings))
        made.databases, made.users = set(source.databases), copy.deepcopy(source.users)
        made.restored_from = source.name
        self.servers.copy(source.key, made.key)
        return self._begin(made, "CLONE", functools.partial(self._created, made))

    def _recovery_time(self, call: Call) -> Json:
        times = {"earliestRecoveryTime": self._earliest(self._found(call)), "latestRecoveryTime": self.now()}
        return {"kind": "sql#getLatestRecoveryTime", **{name: told_time(time) for name, time in times.items()}}

    def _earliest(self, instance: StoredInstance) -> datetime:
        """Return the earliest time that can be recovered."""
        backups = instance.settings["backupConfiguration"]
        if not (backups.get("pointInTimeRecoveryEnabled") or backups.get("binaryLogEnabled")):
            raise invalid("Point in time recovery is not enabled for the source instance")
        return max(instance.created, self.now() - timedelta(days=backups["transactionLogRetentionDays"]))

    def _restore(self, call: Call) -> Json:
        """Overwrite an instance."""
        instance, body = self._idle(call), call.body
        _require_running(instance)
        context = body.get("restoreBackupContext")
        if (context is None) is ("backup" not in body):
            raise invalid("Give one of restoreBackupContext and backup")
        if context is not None:
            numbers = {str(each.number): each for each in self.backups.values()}
            backup = numbers.get(str(context.get("backupRunId")))
            if backup is not None and backup.instance != context.get("instanceId", instance.name):
                backup = None
        else:
            backup = self.backups.get(str(body["backup"]).rpartition("/")[2])
        if backup is None:
            raise absent("backup")
        if backup.state != "SUCCESSFUL":
            raise invalid("The backup is not complete")
        if backup.version != instance.version:
            raise invalid(f"The backup is of {backup.version}, and the instance is {instance.version}")
        found = backup

        def overwrite() -> None:
            instance.databases, instance.users = set(found.databases), copy.deepcopy(found.users)
            size = max(int(instance.settings["dataDiskSizeGb"]), int(found.settings["dataDiskSizeGb"]))
            instance.settings["dataDiskSizeGb"] = str(size)
            instance.restored_from = found.id
            instance.overwritten += 1
            self.servers.fill(instance.key, found.data)

        return self._begin(instance, "RESTORE_VOLUME", overwrite)

    # operations

    def _begin(self, instance: StoredInstance, kind: str, effect: Callable[[], None]) -> Json:
        made = StoredOperation(instance.project, str(uuid.uuid4()), kind, instance.name, self.now(), self.polls, effect)
        made.failure = self._failing.pop(kind, None)
        instance.operations.append(made)
        self.operations[made.id] = made
        return made.told()

    def _list_operations(self, call: Call) -> Json:
        project, name = call.names[0], call.query.get("instance")
        if name is None:
            found = [(key, each) for (owner, key), each in self.instances.items() if owner == project]
        else:
            found = [(name, self.instances[project, name])] if (project, name) in self.instances else []
        for _, instance in found:
            self._look(instance)
        rows = [
            operation
            for operation in self.operations.values()
            if operation.project == project and name in {None, operation.target}
        ][::-1]
        shown, token = self._paged_by_place(call, rows)
        return _page("items", "sql#operationsList", [each.told() for each in shown], token)

    def _get_operation(self, call: Call) -> Json:
        found = self.operations.get(call.names[1])
        if found is None or found.project != call.names[0]:
            raise absent("operation")
        instance = self.instances.get((call.names[0], found.target))
        if instance is not None and found.ended is None:
            self._look(instance)
        return found.told()

    def _look(self, instance: StoredInstance) -> None:
        """Let the time of one look pass for what is being done to an instance."""
        operation = instance.current
        if operation is None:
            return
        if operation.polls > 0:
            operation.polls -= 1
            return
        operation.ended = self.now()
        if operation.failure is None:
            operation.effect()
        elif operation.kind in {"CREATE", "CLONE"}:
            instance.state = "FAILED"
        elif operation.kind == "DELETE":
            instance.state = "RUNNABLE"

    # users and databases

    def _contents(self, instance: StoredInstance) -> Contents:
        """Return what the server of an instance has to have."""
        users = {name: user["password"] for name, user in instance.users.items() if "type" not in user}
        accounts = {name: self.token() for name in instance.users.keys() - users.keys()}
        flags = {flag["name"]: flag.get("value", "") for flag in instance.settings.get("databaseFlags", ())}
        return Contents(users, accounts, set(instance.databases), flags)

    def renew_tokens(self) -> None:
        """Have the servers take the newest token from accounts."""
        for instance in self.instances.values():
            if any("type" in user for user in instance.users.values()):
                self.servers.arrange(instance.key)

    def _list_users(self, call: Call) -> Json:
        instance = self._open(call)
        told = [_public(user) for user in instance.users.values()]
        return {"kind": "sql#usersList", "items": told}

    def _get_user(self, call: Call) -> Json:
        found = self._open(call).users.get(call.names[2])
        if found is None:
            raise absent("user")
        return _public(found)

    def _insert_user(self, call: Call) -> Json:
        instance, body = self._open(call, idle=True), call.body
        name, kind = body.get("name"), body.get("type", "BUILT_IN")
        if not name:
            raise invalid("Missing parameter: User name")
        if (
            kind == "CLOUD_IAM_SERVICE_ACCOUNT"
            and name.endswith(".gserviceaccount.com")
            and instance.engine == "POSTGRES"
        ):
            raise invalid(
                "Database username for Cloud IAM service account should be without .gserviceaccount.com suffix"
            )
        if kind != "BUILT_IN" and "@" not in name:
            raise invalid(f'Provided Cloud IAM user account "{name}" is not in valid format')
        flag = "cloudsql.iam_authentication" if instance.engine == "POSTGRES" else "cloudsql_iam_authentication"
        flags = {each["name"]: each.get("value") for each in instance.settings.get("databaseFlags", ())}
        if kind != "BUILT_IN" and flags.get(flag) != "on":
            raise invalid(f"The flag {flag} is not on")
        if kind != "BUILT_IN" and body.get("password"):
            raise invalid("A Cloud IAM user has no password")
        known = name.partition("@")[0] if kind != "BUILT_IN" and instance.engine == "MYSQL" else name
        made = _user(instance, known, body.get("password")) | {
            each: body[each] for each in ("databaseRoles", "host", "type") if each in body
        }

        def add() -> None:
            instance.users[known] = made
            self.servers.arrange(instance.key)

        return self._begin(instance, "CREATE_USER", add)

    def _update_user(self, call: Call) -> Json:
        instance, name = self._open(call, idle=True), call.query.get("name", "")
        found, body = instance.users.get(name), call.body
        if found is None:
            raise absent("user")

        def change() -> None:
            if body.get("password"):
                found["password"] = body["password"]
                self.servers.arrange(instance.key)

        return self._begin(instance, "UPDATE_USER", change)

    def _delete_user(self, call: Call) -> Json:
        instance, name = self._open(call, idle=True), call.query.get("name", "")
        if name not in instance.users:
            raise absent("user")
        return self._begin(instance, "DELETE_USER", functools.partial(_forgotten, instance, name))

    def _list_databases(self, call: Call) -> Json:
        instance = self._open(call)
        told = [_database_told(instance, name) for name in sorted(instance.databases)]
        return {"kind": "sql#databasesList", "items": told}

    def _get_database(self, call: Call) -> Json:
        instance, name = self._open(call), call.names[2]
        if name not in instance.databases:
            raise absent("database")
        return _database_told(instance, name)

    def _insert_database(self, call: Call) -> Json:
        instance, name = self._open(call, idle=True), call.body.get("name")
        if not name or len(name) > 63:
            raise invalid(f"Invalid database name ({name})")
        if name in instance.databases:
            raise exists("database")

        def add() -> None:
            instance.databases.add(name)
            self.servers.arrange(instance.key)

        return self._begin(instance, "CREATE_DATABASE", add)

    def _delete_database(self, call: Call) -> Json:
        instance, name = self._open(call, idle=True), call.names[2]
        if name not in instance.databases:
            raise absent("database")
        return self._begin(instance, "DELETE_DATABASE", lambda: instance.databases.discard(name))

    # backups

    def _take(self, instance: StoredInstance, kind: str, description: str) -> StoredBackup:
        self._numbers += 1
        made = StoredBackup(
            instance.project,
            str(uuid.uuid4()),
            self._numbers,
            instance.name,
            kind,
            description,
            self.now(),
            instance.version,
            copy.deepcopy(instance.settings),
            copy.deepcopy(instance.users),
            set(instance.databases),
        )
        made.data = self.servers.dump(instance.key)
        self.backups[made.id] = made
        return made

    def take_automatic(self, project: str, name: str) -> StoredBackup:
        """Take a backup of an instance as Cloud SQL does by itself."""
        made = self._take(self.instances[project, name], "AUTOMATED", "")
        made.state = "SUCCESSFUL"
        return made

    def _back_up(self, instance: StoredInstance, description: str) -> Json:
        if instance.current is not None:
            raise _busy()
        if instance.state != "RUNNABLE":
            raise invalid("Invalid request since instance is not running")
        made = self._take(instance, "ON_DEMAND", description)

        def complete() -> None:
            made.state = "SUCCESSFUL"

        self._begin(instance, "BACKUP_VOLUME", complete)
        operation = instance.operations[-1]
        if operation.failure is not None:
            made.state = "FAILED"
        operation.backup = f"projects/{instance.project}/backups/{made.id}"
        return operation.told()

    def _create_backup(self, call: Call) -> Json:
        body, project = call.body, call.names[0]
        instance = self.instances.get((project, str(body.get("instance"))))
        if instance is None:
            raise absent("instance")
        return self._back_up(instance, body.get("description", ""))

    def _list_backups(self, call: Call) -> Json:
        for instance in list(self.instances.values()):
            self._look(instance)
        for backup in list(self.backups.values()):
            if backup.expires is not None and backup.expires <= self.now():
                del self.backups[backup.id]
        wanted = dict(re.findall(r"(instance|type):(\S+)", call.query.get("filter", "")))
        rows = [
            backup
            for backup in self.backups.values()
            if backup.project == call.names[0]
            and wanted.get("instance") in {None, backup.instance}
            and wanted.get("type") in {None, backup.kind}
        ][::-1]
        shown, token = self._paged_by_place(call, rows, "pageSize")
        told: Json = {"backups": [self._backup_told(each, call.names[0]) for each in shown]} if shown else {}
        return told | ({"nextPageToken": token} if token else {})

    def _backup_told(self, backup: StoredBackup, project: str) -> Json:
        told: Json = {
            "kind": "sql#backup",
            "name": f"projects/{project}/backups/{backup.id}",
            "instance": backup.instance,
            "type": backup.kind,
            "state": backup.state,
            "databaseVersion": backup.version,
            "backupInterval": {"startTime": told_time(backup.started), "endTime": told_time(backup.started)},
            "instanceSettings": {"name": backup.instance, "settings": {**backup.settings, "settingsVersion": "1"}},
            "location": "eu",
        }
        if backup.description:
            told["description"] = backup.description
        if backup.gone is not None:
            told["instanceDeletionTime"] = told_time(backup.gone)
        if backup.expires is not None:
            told["expiryTime"] = told_time(backup.expires)
        return told

    def _backup_of(self, call: Call) -> StoredBackup:
        found = self.backups.get(call.names[1])
        if found is None or found.project != call.names[0]:
            raise absent("backup")
        return found

    def _delete_backup(self, call: Call) -> Json:
        return self._remove(call.names[0], self._backup_of(call))

    def _remove(self, project: str, backup: StoredBackup) -> Json:
        """Delete a backup, which holds up nothing else."""
        if backup.state == "RUNNING":
            raise _busy()
        del self.backups[backup.id]
        made = StoredOperation(
            project, str(uuid.uuid4()), "DELETE_BACKUP", backup.instance, self.now(), 0, lambda: None
        )
        made.ended = self.now()
        self.operations[made.id] = made
        return made.told()

    def _list_runs(self, call: Call) -> Json:
        instance = self._found(call)
        self._look(instance)
        rows = [each for each in self._backups_of(instance) if each.kind != "FINAL"][::-1]
        shown, token = self._paged_by_place(call, rows)
        return _page("items", "sql#backupRunsList", [_run_told(each) for each in shown], token)

    def _backups_of(self, instance: StoredInstance) -> list[StoredBackup]:
        mine = (instance.project, instance.name)
        return [each for each in self.backups.values() if (each.project, each.instance) == mine]

    def _insert_run(self, call: Call) -> Json:
        return self._back_up(self._found(call), call.body.get("description", ""))

    def _run_of(self, call: Call) -> StoredBackup:
        for backup in self._backups_of(self._found(call)):
            if str(backup.number) == call.names[2]:
                return backup
        raise absent("backupRun")

    def _delete_run(self, call: Call) -> Json:
        return self._remove(call.names[0], self._run_of(call))

    # what they share

    def _told(self, instance: StoredInstance) -> Json:
        project, name = instance.project, instance.name
        settings = {**copy.deepcopy(instance.settings), "settingsVersion": str(instance.settings_version)}
        told: Json = {
            "kind": "sql#instance",
            "backendType": "SECOND_GEN",
            "instanceType": "CLOUD_SQL_INSTANCE",
            "connectionName": f"{project}:{instance.region}:{name}",
            "createTime": told_time(instance.created),
            "databaseVersion": instance.version,
            "name": name,
            "project": project,
            "region": instance.region,
            "selfLink": f"https://sqladmin.googleapis.com/v1/projects/{project}/instances/{name}",
            "settings": settings,
            "state": instance.state,
        }
        if instance.state in {"PENDING_CREATE", "FAILED"}:
            return told
        address, public = self.servers.address(instance.key), settings["ipConfiguration"].get("ipv4Enabled")
        told |= {
            "databaseInstalledVersion": f"{instance.version}_{_MINOR}",
            "dnsName": f"{_dns_label(name)}.{instance.region}.sql.goog.",
            "ipAddresses": [
                *(
                    [{"type": "PRIMARY", "ipAddress": address}, {"type": "OUTGOING", "ipAddress": "192.0.2.1"}]
                    * bool(public)
                ),
                *(
                    [{"type": "PRIVATE", "ipAddress": address}]
                    * bool(settings["ipConfiguration"].get("privateNetwork"))
                ),
            ],
            "serverCaCert": {
                "kind": "sql#sslCert",
                "cert": instance.authority.pem,
                "certSerialNumber": "0",
                "commonName": "C=US,O=Google\\, Inc,CN=Google Cloud SQL Server CA",
                "createTime": told_time(instance.created),
                "expirationTime": told_time(instance.created + timedelta(days=3650)),
                "instance": name,
                "sha1Fingerprint": instance.authority.certificate.fingerprint(hashes.SHA1()).hex(),  # noqa: S303  as Google tells it
            },
        }
        return told

    def _found(self, call: Call) -> StoredInstance:
        found = self.instances.get((call.names[0], call.names[1]))
        if found is None:
            raise absent("instance")
        return found

    def _idle(self, call: Call) -> StoredInstance:
        """Return an instance to which nothing is being done."""
        found = self._found(call)
        if found.current is not None:
            raise _busy()
        return found

    def _open(self, call: Call, *, idle: bool = False) -> StoredInstance:
        """Return an instance that runs."""
        found = self._idle(call) if idle else self._found(call)
        _require_running(found)
        return found

    def _paged(self, call: Call, rows: list[str], size: str, key: Callable[[str], str]) -> tuple[list[str], str | None]:
        """Cut one page. The token names the last item that was shown."""
        token = call.query.get("pageToken")
        if token:
            after = _read_token(token)
            rows = [row for row in rows if key(row) > after]
        most = min(int(call.query.get(size, PAGE)), self.page_size)
        shown = rows[:most]
        return shown, _token(key(shown[-1])) if len(rows) > most else None

    def _paged_by_place(self, call: Call, rows: list[T], size: str = "maxResults") -> tuple[list[T], str | None]:
        """Cut one page of what is listed the newest first."""
        token = call.query.get("pageToken")
        begin = int(_read_token(token)) if token else 0
        most = min(int(call.query.get(size, PAGE)), self.page_size)
        shown = rows[begin : begin + most]
        return shown, _token(str(begin + most)) if len(rows) > begin + most else None


def _user(instance: StoredInstance, name: str, password: str | None) -> Json:
    host = {"host": "%"} if instance.engine == "MYSQL" else {"host": ""}
    facts = {"kind": "sql#user", "name": name, "instance": instance.name, "project": instance.project, **host}
    return {**facts, "password": password}


def _forgotten(instance: StoredInstance, user: str) -> None:
    instance.users.pop(user, None)


def _public(user: Json) -> Json:
    return {name: value for name, value in user.items() if name != "password"}


def _database_told(instance: StoredInstance, name: str) -> Json:
    charset = (
        {"charset": "UTF8", "collation": "en_US.UTF8"} if instance.engine == "POSTGRES" else {"charset": "utf8mb4"}
    )
    return {"kind": "sql#database", "name": name, "instance": instance.name, "project": instance.project, **charset}


def _run_told(backup: StoredBackup) -> Json:
    told: Json = {
        "kind": "sql#backupRun",
        "id": str(backup.number),
        "instance": backup.instance,
        "type": backup.kind,
        "status": backup.state,
        "databaseVersion": backup.version,
        "backupKind": "SNAPSHOT",
        "enqueuedTime": told_time(backup.started),
        "location": "eu",
    }
    return told | ({"description": backup.description} if backup.description else {})


def _flags(call: Call) -> Json:
    return {"kind": "sql#flagsList", "items": list(flag_rows(call.query.get("databaseVersion")))}


def _tiers(_call: Call) -> Json:
    items = [
        {"kind": "sql#tier", "tier": tier, "RAM": str(memory), "DiskQuota": str(2**46), "region": ["europe-west3"]}
        for tier, memory in TIERS.items()
    ]
    return {"kind": "sql#tiersList", "items": items}


def _merged(before: Json, sent: Json) -> Json:
    """Merge as a patch does: what is in tables by name, lists as a whole."""
    made = copy.deepcopy(before)
    for name, value in sent.items():
        if value is None:
            made.pop(name, None)
        elif isinstance(value, dict) and isinstance(made.get(name), dict) and name != "userLabels":
            made[name] = _merged(made[name], value)
        else:
            made[name] = copy.deepcopy(value)
    return made


def _require_running(instance: StoredInstance) -> None:
    if not instance.running:
        raise invalid("Invalid request since instance is not running")


def _busy() -> Refused:
    message = "Operation failed because another operation was already in progress."
    return Refused(409, "operationInProgress", "", message)


def _page(name: str, kind: str, rows: Iterable[Any], token: str | None) -> Json:
    found = list(rows)
    told: Json = {"kind": kind, name: found} if found else {"kind": kind}
    return told | {"nextPageToken": token} if token else told


def _token(mark: str) -> str:
    return base64.urlsafe_b64encode(json.dumps(mark).encode()).decode()


def _read_token(token: str) -> str:
    try:
        return str(json.loads(base64.urlsafe_b64decode(token)))
    except ValueError as exc:
        raise invalid("Invalid page token") from exc


def _dns_label(name: str) -> str:
    """Return the first label of an instance's DNS name."""
    return uuid.uuid5(uuid.NAMESPACE_DNS, name).hex[:12]

"""Databases in Google's Cloud SQL: PostgreSQL and MySQL."""

from __future__ import annotations

import functools
import hashlib
import secrets
import time
from datetime import UTC, datetime
from typing import Any

import attrs
from google.api_core import exceptions as api_errors
from google.auth import credentials as auth_credentials
from google.auth.transport.requests import Request

from shiftable.config import Credential
from shiftable.database.driver import (
    GIB,
    DatabaseDriver,
    DatabaseFeatures,
    DatabaseInfo,
    DatabaseSpec,
    DatabaseState,
    LoginToken,
    ServerSize,
    SizeChoice,
    Snapshot,
    choose_size,
)
from shiftable.errors import AlreadyExists, Conflict, Fault, InvalidArgument, Unsupported
from shiftable.masking import Masked
from shiftable.paging import Page
from shiftable.wording import counted
from shiftable_gcp import _features
from shiftable_gcp._session import Session
from shiftable_gcp._signing import account_of
from shiftable_gcp._sql_api import CloudSqlFault, Json, SqlApi, failure, meaning
from shiftable_gcp._sql_sizes import CUSTOM_SOURCE, fitting_custom, size_of
from shiftable_gcp._sql_spec import (
    ADMIN,
    BUSY,
    DONE,
    SETUP,
    changed_settings,
    engine_of,
    impossible_labels,
    info_of,
    is_hidden,
    native_of,
    own_engine,
    recovers,
    settings_of,
    snapshot_of,
    spec_of,
    state_of,
    version_of,
)
from shiftable_gcp._sql_work import Step, Works

__all__ = ["CloudSqlDriver", "CloudSqlFault"]

_FINAL_BACKUP_DAYS = 365  # the most that Backup.ttlDays takes
_LOGIN_SCOPE = "https://www.googleapis.com/auth/sqlservice.login"
_REGION = "us-central1"  # Google's own default, which the API reference promises
_PER_CPU = "machine types of Cloud SQL, by its tiers.list"


@attrs.define(eq=False)
class CloudSqlDriver(DatabaseDriver):
    """Cloud SQL by REST: Google has no client for it that could be used here.

    An instance carries out one operation at a time, and users, databases and restored data come after it exists. So
    ``create`` and ``restore`` begin what has to be done, and each ``info`` takes the next step; until the last one the
    server is ``creating``. A label says so to other processes. A server whose maker died before it had its users and
    databases gets them from ``update``; one that was to be restored, from the same ``restore`` again.

    Restores make the new instance first, under a name that only one can take, as Cloud SQL overwrites the instance
    that a backup is restored into.
    """

    session: Session
    _api: SqlApi = attrs.field(init=False, repr=False)
    _works: Works = attrs.field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        self._api = SqlApi.of(self.session)
        self._works = Works(self._api)

    @property
    def provider(self) -> str:
        """The provider's name in errors."""
        return "gcp"

    @property
    def features(self) -> DatabaseFeatures:
        """What this driver can do."""
        return _features.DATABASE

    def classify(self, exc: Exception) -> Fault | None:
        """Say what a native exception means."""
        return meaning(exc)

    # checks: they send nothing

    def missing_features(self, spec: DatabaseSpec) -> tuple[str, ...]:
        """Say what a declaration needs and Cloud SQL does not have."""
        missing = [*super().missing_features(spec), *impossible_labels(spec)]
        native = native_of(spec)
        if (
            native.tier is None
            and native.edition == "enterprise"
            and fitting_custom(spec.cpus, spec.memory_gib) is None
        ):
            missing.append(f"machines of {counted(spec.cpus, 'CPU')} and {spec.memory_gib} GiB ({CUSTOM_SOURCE})")
        if spec.high_availability and not spec.backup_days:
            missing.append("high availability without backups (Cloud SQL, requirements of high availability)")
        return tuple(missing)

    def rounded(self, spec: DatabaseSpec) -> DatabaseSpec:
        """Return the declaration as ``describe`` would tell it.

        Nobody sees the databases of a server that is stopped, or makes any there: it is compared without them.
        """
        instance = self._api.find(spec.name)
        size = self._chosen(spec, instance).size
        major = ".".join(version_of(spec).split("_")[1:])
        unseen = instance is not None and state_of(instance) != "available"
        return attrs.evolve(
            spec,
            cpus=size.cpus,
            memory_gib=max(1, size.memory // GIB),
            version=major,
            databases=() if unseen else spec.databases,
        )

    def size(self, spec: DatabaseSpec) -> SizeChoice:
        """Choose the machine type: to measure, or in the larger edition the smallest of its steps."""
        return self._size(spec, None)

    # servers

    def create(self, spec: DatabaseSpec) -> None:
        """Begin to create an instance, its administrator and databases. Google takes a name again a week after."""
        password = _password_of(spec)
        self._create(spec, "create", self._setting_up(spec, password))

    def describe(self, name: str) -> DatabaseSpec:
        """Return the instance as a declaration would say it; while it does not run, without its databases."""
        return self._described(self._api.instance(name))

    def update(self, current: DatabaseSpec, spec: DatabaseSpec) -> None:
        """Begin to change an instance. Google decides between writers by the version of its settings."""
        self._works.require_idle(spec.name, even_failed=True)
        instance = self._api.instance(spec.name)
        if self._described(instance) != current:
            raise failure(Conflict, "it was changed meanwhile; compare again")
        mark = _mark(instance)
        if mark.startswith("restore"):
            raise failure(Conflict, "it was to be restored, and that was given up; restore again, or delete it")
        tier = str(instance["settings"]["tier"])
        if (spec.cpus, spec.memory_gib) != (current.cpus, current.memory_gib):
            tier = self._chosen(spec, instance).size.name
        changed = changed_settings(instance, current, spec, tier, self._api.project)
        body: dict[str, Any] = {}
        if changed:
            body["settings"] = {**changed, "settingsVersion": instance["settings"]["settingsVersion"]}
        if version_of(spec) != version_of(current):
            body["databaseVersion"] = version_of(spec)
        steps: list[Step] = []
        if mark not in {"", DONE}:
            if spec.password is None:
                raise failure(Conflict, "it was never set up to its end; apply its declaration, or delete it")
            steps += self._setting_up(spec, _password_of(spec))
        else:
            steps += [self._database_step(spec, name) for name in spec.databases if name not in current.databases]
            if spec.token_login and not current.token_login:
                steps.append(self._token_user_step(spec))
        operation = None
        if body:
            sure = functools.partial(self._check_became, attrs.evolve(spec, databases=current.databases))
            operation, doubtful = self._api.begin("PATCH", self._api.path(spec.name), spec.name, "UPDATE", body)
            steps = [*([sure] if doubtful else []), *steps]
        self._works.begin(spec.name, "updating", operation, steps)

    def delete(self, name: str, *, final_snapshot: str | None) -> None:
        """Begin to delete an instance. The last snapshot is kept for 365 days, which is Google's most."""
        query: dict[str, str | int] = {}
        if final_snapshot is not None:
            query = {
                "enableFinalBackup": "true",
                "finalBackupDescription": final_snapshot,
                "finalBackupTtlDays": _FINAL_BACKUP_DAYS,
            }
        attempts = self.session.attempts()
        try:
            operation, _ = self._api.begin(
                "DELETE", self._api.path(name), name, "DELETE", None, query=query, attempts=attempts
            )
        except api_errors.NotFound:
            if not attempts.doubtful:  # else the try whose answer was lost did it, and it is gone already
                raise
            self._works.forget(name)
            return
        self._works.begin(name, "deleting", operation)

    def names(self, cursor: str | None, limit: int | None) -> Page[str]:
        """Return one page of the names of all instances of PostgreSQL and MySQL that are no replicas."""
        answer = self._api.page(cursor, limit)
        found = (each["name"] for each in answer.get("items", ()) if engine_of(each["databaseVersion"]))
        return Page(tuple(found), answer.get("nextPageToken") or None)

    def info(self, name: str) -> DatabaseInfo:
        """Return the state of an instance, and take the next step of what this process began."""
        doing = self._works.progress(name)
        instance = self._api.instance(name)
        failed = state_of(instance) == "failed"
        if doing is None:
            doing = self._busy(instance)
        elif failed:
            self._works.progress(name)  # it says why
        return info_of(instance, doing, self._api.last_error(name) if failed else "")

    def restorable(self, name: str) -> tuple[datetime, datetime] | None:
        """Return the times that Google says; none while there is no backup yet, or no log is kept."""
        if not recovers(self._api.instance(name)):
            return None
        try:
            found = self._api.recovery(name)
        except api_errors.BadRequest:  # the first backup is not complete
            return None
        earliest, latest = found.get("earliestRecoveryTime"), found.get("latestRecoveryTime")
        return (datetime.fromisoformat(earliest), datetime.fromisoformat(latest)) if earliest and latest else None

    def password(self, name: str, given: Credential | None, *, fresh: bool) -> Masked:  # noqa: ARG002  nothing is kept
        """Return the password that the declaration refers to now."""
        self._api.instance(name)
        if given is None:
            raise failure(InvalidArgument, "Google keeps no password; declare password = { … } or token_login = true")
        return Masked(given.reveal())

    # changing state

    def login_token(self, name: str, user: str | None) -> LoginToken:
        """Return an access token; it is good for nothing but to log in, where the credentials can make such a one.

        The token says whose it is: as somebody else than that the server lets nobody in.
        """
        me = user or _database_user(self._email, own_engine(self._api.instance(name)))
        made: Any = self.session.transport.credentials
        if isinstance(made, auth_credentials.Scoped):
            made = made.with_scopes([_LOGIN_SCOPE])
        if not made.valid or isinstance(made, auth_credentials.Scoped):
            made.refresh(Request())
        expires = made.expiry.replace(tzinfo=UTC) if made.expiry else datetime.now(UTC)
        return LoginToken(user=me, value=Masked(made.token), expires=expires)

    def set_password(self, name: str, password: Masked | None) -> None:
        """Begin to change the administrator's password."""
        if password is None:
            raise failure(InvalidArgument, "Google keeps no password; give one")
        self._works.require_idle(name)
        spec = spec_of(instance := self._api.instance(name), self._size_of(instance), ())
        self._works.begin(name, "updating", self._set_admin(spec, password))

    def restart(self, name: str) -> None:
        """Begin to restart an instance."""
        self._works.require_idle(name)
        operation, _ = self._api.begin("POST", self._api.path(name, "restart"), name, "RESTART", None)
        self._works.begin(name, "updating", operation)

    def start(self, name: str) -> None:
        """Begin to start a stopped instance."""
        self._activate(name, "ALWAYS", "starting")

    def stop(self, name: str) -> None:
        """Begin to stop an instance."""
        self._activate(name, "NEVER", "stopping")

    # snapshots

    def snapshot(self, name: str, snapshot: str) -> Snapshot:
        """Begin to take a backup, whose description is the snapshot's name."""
        self._works.require_idle(name)
        instance = self._api.instance(name)
        if self._api.backup(name, snapshot) is not None:
            raise failure(AlreadyExists, f"there is a snapshot {snapshot!r}")
        attempts = self.session.attempts()

        def take() -> None:
            if not (attempts.doubtful and self._api.backup(name, snapshot) is not None):
                body = {"instance": name, "description": snapshot}
                self._api.rest.once("POST", self._api.backups_path, body=body)

        attempts.policy(take)()
        spec = spec_of(instance, self._size_of(instance), ())
        return Snapshot(
            name=snapshot,
            database=name,
            state="creating",
            engine=spec.engine,
            version=spec.version,
            storage_gib=spec.storage_gib,
        )

    def snapshots(self, name: str | None, *, cursor: str | None, limit: int | None) -> Page[Snapshot]:
        """Return one page of the backups of an instance, which may be gone, or of all."""
        answer = self._api.backups(name, cursor, limit)
        found = (snapshot_of(each) for each in answer.get("backups", ()) if name in {None, each.get("instance")})
        return Page(tuple(each for each in found if each is not None), answer.get("nextPageToken") or None)

    def delete_snapshot(self, name: str, snapshot: str) -> None:
        """Delete a backup."""
        attempts = self.session.attempts()
        try:
            self._api.rest.call(
                "DELETE", f"{self._api.backups_path}/{_id_of(self._api.snapshot(name, snapshot))}", attempts=attempts
            )
        except api_errors.NotFound:
            if not attempts.doubtful:
                raise

    def restore(self, name: str, snapshot: str, spec: DatabaseSpec) -> None:
        """Begin to make a new instance, and to restore a backup into it; or go on where somebody gave that up."""
        backup = self._api.snapshot(name, snapshot)
        taken = snapshot_of(backup)
        if taken is None or taken.state != "available":
            raise failure(Conflict, f"the snapshot {snapshot!r} is not complete")
        if version_of(spec) != backup["databaseVersion"]:
            raise failure(InvalidArgument, f"the snapshot is of {taken.engine} {taken.version}")
        if spec.storage_gib < (taken.storage_gib or 0):
            raise failure(InvalidArgument, f"the snapshot needs {taken.storage_gib} GiB")
        password = _password_of(spec, kept=True)
        why = f"restore-{hashlib.sha256(str(backup['name']).encode()).hexdigest()[:16]}"
        fill = functools.partial(self._fill, spec.name, str(backup["name"]), why)
        self._create(spec, why, [fill, *self._setting_up(spec, password)])

    def restore_at(self, name: str, when: datetime, spec: DatabaseSpec) -> None:
        """Begin to clone an instance as it was, and then to give the clone the settings of ``spec``.

        A clone bears no mark of who made it. So when the answer is lost, it is not asked for again, and the error says
        unavailable: whose a clone of that name is has to be looked up.
        """
        password = _password_of(spec, kept=True)
        self._works.require_idle(name)
        source = self._api.instance(name)
        if version_of(spec) != source["databaseVersion"]:
            raise failure(
                InvalidArgument, f"the server is {source['databaseVersion']}, and so is what is restored of it"
            )
        moment = when.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        body = {"cloneContext": {"destinationInstanceName": spec.name, "pointInTime": moment}}
        attempts = self.session.attempts(repeatable=False)
        try:
            answer = self._api.rest.call("POST", self._api.path(name, "clone"), body=body, attempts=attempts)
        except api_errors.Conflict as exc:
            raise self._taken(exc, spec.name) from exc
        steps: list[Step] = [functools.partial(self._adapt, spec), *self._setting_up(spec, password)]
        self._works.begin(spec.name, "creating", str(answer["name"]), steps)

    # one operation after another

    def _create(self, spec: DatabaseSpec, why: str, steps: list[Step]) -> None:
        mark = f"{why}-{secrets.token_hex(8)}"
        settings = settings_of(spec, self._chosen(spec, None).size.name, self._api.project)
        settings["userLabels"][SETUP] = mark
        body = {
            "name": spec.name,
            "region": self.session.region or _REGION,
            "databaseVersion": version_of(spec),
            "rootPassword": secrets.token_urlsafe(32),  # of Google's own administrator, whom nobody is to be
            "settings": settings,
        }
        attempts, began = self.session.attempts(), time.monotonic()
        try:
            answer = self._api.rest.call("POST", self._api.path(), body=body, attempts=attempts)
            operation = str(answer["name"])
        except api_errors.Conflict as exc:
            found = self._api.find(spec.name)
            if found is not None and attempts.doubtful and _mark(found) == mark:
                operation = self._api.begun(spec.name, "CREATE", began) or ""
            elif found is not None and _is_given_up(found, why) and self._works.progress(spec.name) in {None, "failed"}:
                operation, steps = "", [functools.partial(self._adapt, spec), *steps]
            else:
                raise self._taken(exc, spec.name) from exc
        self._works.begin(spec.name, "creating", operation or None, steps)

    def _setting_up(self, spec: DatabaseSpec, password: Masked | None) -> list[Step]:
        """Return the steps from an instance that runs to a server as declared."""
        steps: list[Step] = []
        if password is not None:
            steps.append(functools.partial(self._set_admin, spec, password))
        if spec.token_login:
            steps.append(self._token_user_step(spec))
        steps += [self._database_step(spec, name) for name in spec.databases]
        return [*steps, functools.partial(self._finish, spec)]

    def _database_step(self, spec: DatabaseSpec, database: str) -> Step:
        def add() -> str | None:
            if database in self._api.databases(spec.name):
                return None
            body = {"project": self._api.project, "instance": spec.name, "name": database}
            path = self._api.path(spec.name, "databases")
            return self._api.begin("POST", path, spec.name, "CREATE_DATABASE", body)[0]

        return add

    def _set_admin(self, spec: DatabaseSpec, password: Masked) -> str:
        """Begin to make the administrator, or to set the password of one that exists."""
        path = self._api.path(spec.name, "users")
        host = {"host": "%"} if spec.engine == "mysql" else {}
        body = {"name": spec.admin, "password": password.reveal(), **host}
        if spec.admin in self._api.users(spec.name):
            query = {"name": spec.admin, **host}
            return self._api.begin("PUT", path, spec.name, "UPDATE_USER", body, query=query)[0]
        return self._api.begin("POST", path, spec.name, "CREATE_USER", body)[0]

    def _token_user_step(self, spec: DatabaseSpec) -> Step:
        """Let an account log in with its tokens, as an administrator: the declared user, or that of this process."""
        email = spec.user if spec.user and "@" in spec.user else self._email
        is_service = email.endswith((".gserviceaccount.com", ".iam"))
        user = _database_user(email, spec.engine)

        def add() -> str | None:
            if {user, email} & set(self._api.users(spec.name)):
                return None
            body = {
                "name": user if spec.engine == "postgresql" else email,
                "type": "CLOUD_IAM_SERVICE_ACCOUNT" if is_service else "CLOUD_IAM_USER",
                "databaseRoles": ["cloudsqlsuperuser"],
            }
            return self._api.begin("POST", self._api.path(spec.name, "users"), spec.name, "CREATE_USER", body)[0]

        return add

    def _fill(self, name: str, backup: str, why: str) -> str | None:
        """Begin to restore a backup into the instance that was made for it, unless that was done already."""
        if not _mark(self._api.instance(name)).startswith(f"{why}-"):
            raise failure(Conflict, "it is not the server that was made to be restored into; nothing was overwritten")
        kind = "RESTORE_VOLUME"
        last = next((each for each in self._api.operations(name) if each["operationType"] == kind), None)
        if last is not None and not last.get("error"):
            return None if last.get("status") == "DONE" else str(last["name"])
        return self._api.begin("POST", self._api.path(name, "restoreBackup"), name, kind, {"backup": backup})[0]

    def _adapt(self, spec: DatabaseSpec) -> str | None:
        """Begin to give a clone the settings that are declared for it."""
        instance = self._api.instance(spec.name)
        current = attrs.evolve(self._described(instance), databases=())
        tier = self._chosen(spec, instance).size.name
        changed = changed_settings(instance, current, spec, tier, self._api.project)
        if current.admin != spec.admin:
            labels = changed.get("userLabels") or dict(instance["settings"].get("userLabels", {}))
            changed["userLabels"] = {**labels, ADMIN: spec.admin}
        if instance["settings"].get("activationPolicy") == "NEVER":
            changed["activationPolicy"] = "ALWAYS"
        if not changed:
            return None
        body = {"settings": {**changed, "settingsVersion": instance["settings"]["settingsVersion"]}}
        return self._api.begin("PATCH", self._api.path(spec.name), spec.name, "UPDATE", body)[0]

    def _finish(self, spec: DatabaseSpec) -> str | None:
        """Begin to say to all processes that the server is as declared."""
        instance = self._api.instance(spec.name)
        labels = instance["settings"].get("userLabels", {})
        if labels.get(SETUP) == DONE:
            return None
        body = {
            "settings": {
                "userLabels": {**labels, SETUP: DONE},
                "settingsVersion": instance["settings"]["settingsVersion"],
            }
        }
        return self._api.begin("PATCH", self._api.path(spec.name), spec.name, "UPDATE", body)[0]

    def _check_became(self, spec: DatabaseSpec) -> None:
        """Look whether an update whose answer was lost was the one that was carried out."""
        if attrs.evolve(self.describe(spec.name), databases=spec.databases) != spec:
            raise failure(Conflict, "another writer changed it at the same moment; compare again")

    def _activate(self, name: str, policy: str, state: DatabaseState) -> None:
        self._works.require_idle(name)
        body = {"settings": {"activationPolicy": policy}}
        operation, _ = self._api.begin("PATCH", self._api.path(name), name, "UPDATE", body)
        self._works.begin(name, state, operation)

    def _busy(self, instance: Json) -> DatabaseState | None:
        """Return what is being done to an instance by anybody."""
        if state_of(instance) not in {"available", "stopped"}:
            return None
        if _mark(instance) not in {"", DONE}:
            return "creating"
        for operation in self._api.operations(instance["name"], limit=5):
            if operation.get("status") != "DONE" and operation["operationType"] in BUSY:
                stopping = instance["settings"].get("activationPolicy") == "NEVER"
                found = BUSY[operation["operationType"]]
                return "stopping" if found == "updating" and stopping else found
        return None

    # asking

    def _described(self, instance: Json) -> DatabaseSpec:
        databases: tuple[str, ...] = ()
        if _is_open(instance):
            try:
                databases = self._api.databases(instance["name"])
            except api_errors.BadRequest as exc:  # it stopped meanwhile, or is about to start
                fault = self.classify(exc)
                if fault is None or fault.error is not Conflict:
                    raise
        seen = tuple(sorted(name for name in databases if not is_hidden(own_engine(instance), name)))
        return spec_of(instance, self._size_of(instance), seen)

    def _size_of(self, instance: Json) -> ServerSize:
        tier = str(instance["settings"]["tier"])
        found = size_of(tier, {}) or size_of(tier, self._api.tiers())
        if found is None:
            raise failure(Unsupported, f"nothing tells how large the machine type {tier} is")
        return found

    def _size(self, spec: DatabaseSpec, instance: Json | None) -> SizeChoice:
        """Choose the machine type of a new instance, or of one that exists, whose edition stays."""
        native = native_of(spec)
        if native.tier is not None:
            size = size_of(native.tier, {}) or size_of(native.tier, self._api.tiers())
            if size is None:
                raise ValueError(f"Google has no machine type {native.tier!r}")
            return SizeChoice(size, "it is declared")
        larger = native.edition == "enterprise-plus"
        if instance is not None:
            larger = instance["settings"].get("edition") == "ENTERPRISE_PLUS"
        if larger:
            memory = self._api.tiers()
            sizes = [size_of(tier, memory) for tier in memory if tier.startswith("db-perf-optimized-N-")]
            return choose_size(spec, [size for size in sizes if size is not None], source=_PER_CPU)
        found = fitting_custom(spec.cpus, spec.memory_gib)
        now = self._size_of(instance) if instance is not None else None
        if now and found and _is_enough(now, spec) and now.cpus <= found.cpus and now.memory <= found.memory:
            return SizeChoice(now, "it is enough, and not larger")  # one that shares its CPU with others
        if found is None:
            raise ValueError(f"no machine has {counted(spec.cpus, 'CPU')} and {spec.memory_gib} GiB ({CUSTOM_SOURCE})")
        return SizeChoice(found, f"made to measure: the smallest that is allowed ({CUSTOM_SOURCE})")

    def _chosen(self, spec: DatabaseSpec, instance: Json | None) -> SizeChoice:
        try:
            return self._size(spec, instance)
        except ValueError as exc:
            raise failure(InvalidArgument, str(exc)) from exc

    @property
    def _email(self) -> str:
        credentials = self.session.transport.credentials
        email = account_of(credentials) or getattr(credentials, "account", None)
        if not isinstance(email, str) or not email:
            why = (
                'the credentials do not tell whose they are; use a service account, or declare user = "me@example.com"'
            )
            raise failure(InvalidArgument, why)
        return email

    def _taken(self, exc: api_errors.Conflict, name: str) -> Exception:
        """Say whether a name is taken, or was lately."""
        fault = self.classify(exc)
        if fault is None or fault.error is not AlreadyExists or self._api.find(name) is not None:
            return exc
        why = "a server of that name was deleted less than a week ago, and Google gives the name to nobody until then"
        return CloudSqlFault(attrs.evolve(fault, message=f"{why}; choose another one"))


def _password_of(spec: DatabaseSpec, *, kept: bool = False) -> Masked | None:
    """Read the administrator's password.

    Args:
        kept: what is restored may keep the one that it had.
    """
    if spec.password is not None:
        return Masked(spec.password.reveal())
    if kept:
        return None
    raise failure(InvalidArgument, "Google makes no password; declare password = { … }")


def _is_open(instance: Json) -> bool:
    """Tell whether databases can be seen. What is not set up yet is told to have none, so that ``diff`` sees that."""
    return state_of(instance) == "available" and _mark(instance) in {"", DONE}


def _is_given_up(instance: Json, why: str) -> bool:
    """Tell whether an instance was made to hold just that backup, and never came to. A new one could not be told."""
    return why.startswith("restore-") and _mark(instance).startswith(f"{why}-")


def _mark(instance: Json) -> str:
    return str(instance["settings"].get("userLabels", {}).get(SETUP, ""))


def _is_enough(size: ServerSize, spec: DatabaseSpec) -> bool:
    return size.cpus >= spec.cpus and max(1, size.memory // GIB) >= spec.memory_gib


def _database_user(email: str, engine: str) -> str:
    """Return what an account is called in the engine (Cloud SQL, IAM database authentication)."""
    if engine == "mysql":
        return email.partition("@")[0]
    return email.removesuffix(".gserviceaccount.com")


def _id_of(backup: Json) -> str:
    return str(backup["name"]).rpartition("/")[2]

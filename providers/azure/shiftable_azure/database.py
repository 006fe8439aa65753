"""Databases in Azure Database: the flexible servers for PostgreSQL and for MySQL."""

from __future__ import annotations

import base64
import json
import logging
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import attrs

from shiftable.config import Credential
from shiftable.database.driver import (
    GIB,
    DatabaseDriver,
    DatabaseFeatures,
    DatabaseInfo,
    DatabaseSpec,
    DatabaseState,
    LoginToken,
    Server,
    SizeChoice,
    Snapshot,
)
from shiftable.errors import Fault
from shiftable.masking import Masked
from shiftable.paging import Page
from shiftable_azure._arm import ArmRefusal
from shiftable_azure._database_settings import AzureDatabaseSettings
from shiftable_azure._errands import Errand, Errands, Kind, Step, is_busy
from shiftable_azure._features import DATABASE
from shiftable_azure._flexible import (
    FLAVOURS,
    LOCKS,
    TLS,
    Flavour,
    Rule,
    check_admin,
    check_declaration,
    check_password,
    moment,
    networks_of,
    shown,
    state_of,
    time_text,
)
from shiftable_azure._identity import GivenToken
from shiftable_azure._plans import LEAST_BACKUP_DAYS, Plan
from shiftable_azure._sizes import Offer
from shiftable_azure.errors import ArmFailure, classify_database

if TYPE_CHECKING:
    from shiftable_azure import AzureSettings
    from shiftable_azure._arm import ArmSession
    from shiftable_azure._identity import Identity

__all__ = ["AzureDatabaseDriver"]

logger = logging.getLogger(__name__)

_LEAST_NAME = 3
_MISSING = 404
_DELETION = 600.0  # seconds, of a backup
_ON_DEMAND = frozenset({"Customer On-Demand"})
_MYSQL_BACKUP = re.compile(r"customer_\d{8}t\d{6}_[0-9a-f-]{36}_(.+)", re.IGNORECASE)
_SCOPES = {
    "chinacloudapi.cn": "https://ossrdbms-aad.database.chinacloudapi.cn/.default",
    "usgovcloudapi.net": "https://ossrdbms-aad.database.usgovcloudapi.net/.default",
}
_SCOPE = "https://ossrdbms-aad.database.windows.net/.default"
_TOKEN_LIFE = timedelta(hours=1)  # at most counted on: Microsoft Entra, access token lifetime, 60 minutes at least
_NAMES = ("upn", "preferred_username", "unique_name")  # claims that name a user
_OF_NO_SERVER = frozenset({"ResourceNotFound", "NotFound", "ParentResourceNotFound", "ServerNotFound"})
_BACKUP_STATES: Mapping[str, DatabaseState] = {
    "Creating": "creating",
    "Deleting": "deleting",
    "Failed": "failed",
    "Canceled": "failed",
}  # which PostgreSQL's do not tell: there is no backup before it is complete
_NOT_REGISTERED = "MissingSubscriptionRegistration"


@attrs.define(eq=False)
class AzureDatabaseDriver(DatabaseDriver):
    """Flexible servers of Azure Database for PostgreSQL and for MySQL, through Resource Manager.

    Credentials are those of ``AzureProvider``; the servers are those of the settings' ``resource_group``, new ones are
    made in ``location``.

    Permissions: the role *Contributor* on the resource group, and for deletion protection, which is a lock,
    ``Microsoft.Authorization/locks/*`` (*User Access Administrator* has it); the provider's README names each single
    action. What only reads needs *Reader*.

    * A server has databases, firewall rules, parameters and a lock once it is ready, one after the other. Azure waits
      for nobody's order, so the driver does: each ``info`` looks how far it is, and sends what is next. Until all is
      there the state is ``creating`` or ``updating``. A process that ends before leaves a server that differs from its
      declaration, which the next ``diff`` says. An error of a step is raised by the ``info`` that meets it.
    * One operation at a time: a server that is busy refuses others, which is a conflict.
    * Names are global, for each engine; a name may be taken by anybody.
    * A create whose answer is lost is asked for again; one that is refused then, and is there as declared, is ours.
    * Snapshots are backups on demand. They live as long as ``backup_days`` says, at most seven of a server, and go with
      it. They are restored as the time at which they were complete. Burstable sizes have none.
    * Sizes are those that Azure offers in the location now. Storage of PostgreSQL comes in steps that double.
    * Azure tells no password. A token of Microsoft Entra takes its place with ``token_login``, for PostgreSQL.
    """

    _session: ArmSession
    _identity: Identity
    _settings: AzureSettings
    _features: DatabaseFeatures = attrs.field(default=DATABASE, repr=False)
    _errands: Errands = attrs.field(init=False, repr=False)
    _taking: dict[str, Snapshot] = attrs.field(factory=dict, init=False, repr=False)
    _kinds: dict[str, Flavour] = attrs.field(factory=dict, init=False, repr=False)
    _offers: dict[tuple[str, str], tuple[float, Offer]] = attrs.field(factory=dict, init=False, repr=False)
    _lock: threading.Lock = attrs.field(factory=threading.Lock, init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        self._errands = Errands(self._session)

    @property
    def provider(self) -> str:
        """The provider's name in errors."""
        return "azure"

    @property
    def features(self) -> DatabaseFeatures:
        """What this driver can do."""
        return self._features

    def classify(self, exc: Exception) -> Fault | None:
        """Say what a native exception means."""
        return classify_database(exc)

    def check_name(self, name: str) -> str | None:
        """Say why Azure could not hold a server of that name."""
        short = 0 < len(name) < _LEAST_NAME
        return f"the name must have at least {_LEAST_NAME} characters" if short else super().check_name(name)

    def missing_features(self, spec: DatabaseSpec) -> tuple[str, ...]:
        """Say what a declaration needs and Azure does not have: tokens are for PostgreSQL."""
        found = super().missing_features(spec)
        # MySQL would need an identity of the server's own, with rights in the directory.
        return (*found, "logins by token to MySQL") if spec.token_login and spec.engine == "mysql" else found

    def rounded(self, spec: DatabaseSpec) -> DatabaseSpec:
        """Return the declaration with the size, the storage and the days of backups that Azure has for it.

        Databases that Azure makes itself are there anyway.
        """
        flavour = FLAVOURS.get(spec.engine)
        if flavour is None:
            return spec  # which no server of Azure's becomes
        offer = self._offer(flavour, self._session.location)
        size = offer.held(spec)
        return attrs.evolve(
            spec,
            cpus=size.cpus,
            memory_gib=size.memory // GIB,
            storage_gib=offer.storage(spec.storage_gib),
            backup_days=max(spec.backup_days, LEAST_BACKUP_DAYS),
            databases=tuple(name for name in spec.databases if name not in flavour.own),
        )

    def size(self, spec: DatabaseSpec) -> SizeChoice | None:
        """Choose among the sizes that Azure offers in the location now."""
        flavour = FLAVOURS.get(spec.engine)
        if flavour is None:
            raise ArmFailure("FeatureNotSupported", f"Azure Database has no {spec.engine}")
        return self._offer(flavour, self._session.location).choose(spec)

    # servers

    def create(self, spec: DatabaseSpec) -> None:
        """Begin to create a server."""
        check_declaration(spec)
        check_admin(spec)
        flavour = FLAVOURS[spec.engine]
        if spec.password is None:
            raise ArmFailure("InvalidParameterValue", "Azure makes no password; declare one")
        password = spec.password.reveal()
        check_password(password, spec.admin)
        plan = self._plan(flavour, spec.name, self._session.location)
        self._check_free(flavour, spec.name)
        self._put(flavour, spec, plan.creation(spec, password), lambda: plan.furnishing(spec))

    def describe(self, name: str) -> DatabaseSpec:
        """Return the server as a declaration would say it."""
        flavour, found = self._found(name)
        said = found["properties"]
        offer = self._offer(flavour, _plain(str(found["location"])))
        size = offer.size(str(found["sku"]["name"]))
        network, storage, mode = said.get("network") or {}, said.get("storage") or {}, _mode_of(said)
        public = network.get("publicNetworkAccess") == "Enabled" and not network.get("delegatedSubnetResourceId")
        settings = self._parameters(flavour, name, found)
        spec = DatabaseSpec(
            name=name,
            engine=flavour.engine,
            version=_version(said),
            cpus=size.cpus,
            memory_gib=size.memory // GIB,
            storage_gib=int(storage["storageSizeGB"]),
            storage_autogrow=storage.get("autoGrow") == "Enabled",
            high_availability=mode is not None,
            backup_days=int((said.get("backup") or {}).get("backupRetentionDays") or LEAST_BACKUP_DAYS),
            deletion_protection=bool(self._locks(flavour, name)),
            public=public,
            allow_from=networks_of(self._rules(flavour, name, found)) if public else (),
            tls="optional" if settings.pop(TLS, "on").lower() == "off" else "required",
            databases=tuple(self._databases(flavour, name, found)),
            parameters=settings,
            labels=dict(found.get("tags") or {}),
            admin=str(said.get("administratorLogin") or ""),
            token_login=(said.get("authConfig") or {}).get("activeDirectoryAuth") == "Enabled",
            native=AzureDatabaseSettings(
                subnet=network.get("delegatedSubnetResourceId"),
                private_dns_zone=network.get(flavour.dns_zone),
                high_availability_mode=mode,
                geo_redundant_backup=(said.get("backup") or {}).get("geoRedundantBackup") == "Enabled",
            ),
        )
        return _with_odd_size(offer, spec, size.name)

    def update(self, current: DatabaseSpec, spec: DatabaseSpec) -> None:
        """Begin to change a server."""
        check_declaration(spec)
        self._check_idle(spec.name)
        flavour, found = self._found(spec.name)
        self._start_errand(spec.name, Errand("updating", lambda: self._changes(flavour, found, current, spec)))

    def delete(self, name: str, *, final_snapshot: str | None) -> None:  # noqa: ARG002  the features know of none
        """Begin to delete a server, with its backups."""
        flavour, _ = self._found(name)
        what, path = f"the deletion of the server {name}", self._path(flavour, name)
        self._begin_once(name, "deleting", {"deleting"}, Step(what, "DELETE", path, flavour.version, again=False))

    def names(self, cursor: str | None, limit: int | None) -> Page[str]:  # noqa: ARG002  Azure's pages have its size
        """Return one page of the names of the resource group's servers: those for PostgreSQL, then those for MySQL."""
        first, second = FLAVOURS.values()
        flavour = second if cursor is not None and f"/{second.namespace.lower()}/" in cursor.lower() else first
        try:
            page = self._session.call("GET", cursor or self._path(flavour), flavour.version).body
        except ArmRefusal as exc:
            if _code(exc) != _NOT_REGISTERED:
                raise
            page = {}
        following = page.get("nextLink") or (self._path(second) if flavour is first else None)
        return Page(tuple(str(each["name"]) for each in page.get("value") or ()), following)

    def info(self, name: str) -> DatabaseInfo:
        """Return the state of a server and where it listens; and go on with what is left to do there."""
        errand = self._errands.look(name)
        try:
            flavour, found = self._found(name)
        except ArmRefusal as exc:
            if not _is_absent(exc):
                raise
            known = self._kinds.get(name)
            if errand is None or errand.kind != "creating" or known is None:
                self._errands.drop(name)
                raise
            return DatabaseInfo(name=name, state="creating", raw_state="Accepted", engine=known.engine, version="")
        return self._told(name, flavour, found, errand)

    def restorable(self, name: str) -> tuple[datetime, datetime] | None:
        """Return the times of a server's backups: until now by Azure's clock, of which its log is never far behind."""
        flavour, _ = self._found(name)
        answer = self._session.call("GET", self._path(flavour, name), flavour.version)
        earliest = moment((answer.body["properties"].get("backup") or {}).get("earliestRestoreDate"))
        told = answer.headers.get("Date")
        return None if earliest is None or told is None else (earliest, max(earliest, parsedate_to_datetime(told)))

    def password(self, name: str, given: Credential | None, *, fresh: bool) -> Masked:  # noqa: ARG002  nothing is kept
        """Return the password that the declaration refers to now: Azure tells none."""
        if given is not None:
            return Masked(given.reveal())
        self._found(name)
        why = "Azure tells no password; declare password = { … }, or token_login = true"
        raise ArmFailure("InvalidParameterValue", why)

    def login_token(self, name: str, user: str | None) -> LoginToken:
        """Return a token of Microsoft Entra for a user of the server.

        Args:
            user: whom to log in as; ``None``: whom the token names, or the administrator with its id.
        """
        given = self._settings.database_token
        credential = GivenToken(given) if given is not None else self._identity.credential
        token = credential.get_token(self._scope)
        claims = _claims(token.token)
        soon = datetime.now(UTC) + _TOKEN_LIFE
        stated = claims.get("exp", token.expires_on)
        expires = min(soon, datetime.fromtimestamp(stated, UTC)) if stated < soon.timestamp() else soon
        return LoginToken(user=user or self._entra_name(name, claims), value=Masked(token.token), expires=expires)

    def set_password(self, name: str, password: Masked | None) -> None:
        """Begin to change the administrator's password."""
        if password is None:
            raise ArmFailure("InvalidParameterValue", "Azure makes no password; give one")
        self._check_idle(name)
        flavour, found = self._found(name)
        value = password.reveal()
        check_password(value, str(found["properties"].get("administratorLogin") or "\0"))
        plan = self._plan(flavour, name, _plain(str(found["location"])))
        self._start_errand(name, Errand("updating", lambda: [plan.password(value)]))

    # changing state

    def start(self, name: str) -> None:
        """Begin to start a stopped server."""
        self._switch_state(name, "start", "starting", {"starting", "available"})

    def stop(self, name: str) -> None:
        """Begin to stop an available server. Azure starts it again after seven days."""
        self._switch_state(name, "stop", "stopping", {"stopping", "stopped"})

    def restart(self, name: str) -> None:
        """Begin to restart an available server."""
        self._switch_state(name, "restart", "updating", {"updating", "available"}, {})

    # snapshots

    def snapshot(self, name: str, snapshot: str) -> Snapshot:
        """Begin to take a backup on demand."""
        self._check_idle(name)
        flavour, found = self._found(name)
        if found["sku"].get("tier") == "Burstable" and flavour.engine == "postgresql":
            raise ArmFailure("OnDemandBackupNotSupported", "Azure takes no backup on demand of a burstable server")
        if self._backup(flavour, name, snapshot) is not None:
            raise ArmFailure("BackupAlreadyExists", f"there is a snapshot {snapshot!r}")
        path = f"{self._path(flavour, name)}/{flavour.backups}/{quote(snapshot, safe='')}"
        body: Mapping[str, Any] | None = None if flavour.engine == "postgresql" else {}
        step = Step(f"the snapshot {snapshot}", "PUT", path, flavour.version, body, again=False)
        errand = Errand("updating", lambda: [step])
        try:
            self._start_errand(name, errand)
        except ArmRefusal as exc:
            if not (exc.doubtful and is_busy(exc)):
                raise
            # What keeps it busy is the backup itself, whose answer was lost; when it is not, it will say so.
            self._errands.put(name, Errand("updating", lambda: [attrs.evolve(step, there=True)]))
        begun = Snapshot(
            name=snapshot,
            database=name,
            state="creating",
            engine=flavour.engine,
            version=_version(found["properties"]),
            storage_gib=int(found["properties"]["storage"]["storageSizeGB"]),
        )
        if flavour.engine == "postgresql":
            self._taking[name] = begun  # Azure tells of a backup of PostgreSQL once it is complete
        return begun

    def snapshots(self, name: str | None, *, cursor: str | None, limit: int | None) -> Page[Snapshot]:  # noqa: ARG002
        """Return one page of backups, also of the automatic ones; of all servers, those of one server a page."""
        if name is not None:
            return self._backups(name, cursor)
        names = sorted(self._all_names())
        left = [each for each in names if cursor is None or each > cursor]
        if not left:
            return Page(())
        items: list[Snapshot] = []
        link: str | None = None
        while True:
            page = self._backups(left[0], link)
            items += page.items
            if (link := page.next) is None:
                return Page(tuple(items), left[0] if len(left) > 1 else None)

    def delete_snapshot(self, name: str, snapshot: str) -> None:
        """Delete a backup that was taken on demand."""
        flavour, found = self._found(name)
        taken = self._complete(flavour, name, snapshot)
        if flavour.engine == "mysql":
            why = f"Azure keeps backups of MySQL for {found['properties']['backup']['backupRetentionDays']} days"
            raise ArmFailure("FeatureNotSupported", f"{why}, and deletes none earlier")
        if not _is_on_demand(flavour, taken):
            raise ArmFailure("InvalidParameterValue", "Azure deletes automatic backups itself")
        path = f"{self._path(flavour, name)}/{flavour.backups}/{quote(snapshot, safe='')}"
        answer = self._session.call("DELETE", path, flavour.version)
        what = f"the deletion of the snapshot {snapshot}"
        self._session.finish(answer, flavour.version, what=what, timeout=_DELETION)

    def restore(self, name: str, snapshot: str, spec: DatabaseSpec) -> None:
        """Begin to make a new server of what the server was when the backup was complete."""
        flavour, found = self._found(name)
        taken = self._complete(flavour, name, snapshot)
        when = moment((taken["properties"] or {}).get("completedTime"))
        if when is None:
            raise ArmFailure("ServerIsBusy", f"the snapshot {snapshot!r} is not complete")
        self._restore(flavour, found, when, spec)

    def restore_at(self, name: str, when: datetime, spec: DatabaseSpec) -> None:
        """Begin to make a new server as another one was."""
        flavour, found = self._found(name)
        self._restore(flavour, found, when, spec)

    # what those share: making and changing

    def _put(
        self, flavour: Flavour, spec: DatabaseSpec, body: Mapping[str, Any], rest: Callable[[], Iterable[Step]]
    ) -> None:
        """Send what makes a server, and note what is left to do."""
        step = Step(f"the server {spec.name}", "PUT", self._path(flavour, spec.name), flavour.version, body)
        errand = Errand("creating", rest)
        try:
            errand.follow(step, self._session.call(step.method, step.path, step.version, body=body))
        except ArmRefusal as exc:
            if not exc.doubtful:
                raise
            self._check_as_sent(flavour, spec.name, body, exc)
            logger.info("%s: the answer to its creation was lost, and it is there as declared", spec.name)
        with self._lock:
            self._kinds[spec.name] = flavour
        self._errands.put(spec.name, errand)

    def _check_as_sent(self, flavour: Flavour, name: str, body: Mapping[str, Any], refusal: ArmRefusal) -> None:
        """Find out whose server there is, which was not there before the request.

        Raises:
            ArmRefusal: there is none; it is the one that was given.
            ArmFailure: it is not the one of the request.
        """
        try:
            found = self._session.call("GET", self._path(flavour, name), flavour.version).body
        except ArmRefusal as exc:
            raise refusal from exc
        sent, held = body["properties"], found["properties"]
        same = (
            _plain(str(found["location"])) == body["location"]
            and (found.get("tags") or {}) == body["tags"]
            and ("sku" not in body or found["sku"]["name"] == body["sku"]["name"])
            and all(held.get(field) == sent[field] for field in ("administratorLogin", "version") if field in sent)
            and ("storage" not in sent or held["storage"]["storageSizeGB"] == sent["storage"]["storageSizeGB"])
        )
        if not same:
            raise ArmFailure("ServerAlreadyExists", "somebody else has made such a server meanwhile") from refusal

    def _restore(self, flavour: Flavour, found: Mapping[str, Any], when: datetime, spec: DatabaseSpec) -> None:
        said = found["properties"]
        if spec.engine != flavour.engine:
            raise ArmFailure("InvalidParameterValue", f"the server is of {flavour.engine}, not of {spec.engine}")
        plan = self._plan(flavour, spec.name, _plain(str(found["location"])))
        if plan.offer.storage(spec.storage_gib) < int(said["storage"]["storageSizeGB"]):
            why = (
                f"the new server needs {said['storage']['storageSizeGB']:,} GiB as the old one; storage does not shrink"
            )
            raise ArmFailure("InvalidParameterValue", why)
        if spec.admin != said.get("administratorLogin"):
            why = f"the administrator of the new server is the old one's, {said.get('administratorLogin')}"
            raise ArmFailure("InvalidParameterValue", why)
        earliest = moment((said.get("backup") or {}).get("earliestRestoreDate"))
        if earliest is None or not earliest <= when:
            since = f"from {earliest:%Y-%m-%d %H:%M:%S} UTC on" if earliest else "not yet; wait some minutes"
            raise ArmFailure("InvalidRestoreTime", f"the server can be restored {since}")
        check_declaration(spec)
        self._check_free(flavour, spec.name)
        body = plan.restoration(spec, str(found["id"]), time_text(when))
        self._put(flavour, spec, body, lambda: self._converging(flavour, spec))

    def _converging(self, flavour: Flavour, spec: DatabaseSpec) -> Iterator[Step]:
        """Say what a restored server lacks of its declaration."""
        _, found = self._found(spec.name)
        if spec.password is not None:
            password = spec.password.reveal()
            check_password(password, spec.admin)
            yield self._plan(flavour, spec.name, _plain(str(found["location"]))).password(password)
        current, wanted = self.describe(spec.name), self.rounded(spec)
        same = f"{current.version}.".startswith(f"{spec.version}.")
        wanted = attrs.evolve(wanted, version=current.version if same else spec.version)
        yield from self._changes(flavour, found, current, wanted)

    def _changes(
        self, flavour: Flavour, found: Mapping[str, Any], current: DatabaseSpec, spec: DatabaseSpec
    ) -> Iterator[Step]:
        """Say what has to change of a server, by what there is."""
        plan = self._plan(flavour, spec.name, _plain(str(found["location"])))
        rules = self._rules(flavour, spec.name, found) if spec.public else ()
        locks = self._locks(flavour, spec.name)
        return plan.changes(current, spec, sku=str(found["sku"]["name"]), rules=rules, locks=locks)

    def _plan(self, flavour: Flavour, name: str, location: str) -> Plan:
        return Plan(flavour, self._path(flavour, name), self._settings.tenant, self._offer(flavour, location))

    def _start_errand(self, name: str, errand: Errand) -> None:
        errand.begin(self._session)
        self._errands.put(name, errand)

    def _switch_state(
        self, name: str, verb: str, kind: Kind, reached: set[DatabaseState], body: Mapping[str, Any] | None = None
    ) -> None:
        self._check_idle(name)
        flavour, _ = self._found(name)
        path = f"{self._path(flavour, name)}/{verb}"
        self._begin_once(name, kind, reached, Step(f"to {verb}", "POST", path, flavour.version, body, again=False))

    def _begin_once(self, name: str, kind: Kind, reached: set[DatabaseState], step: Step) -> None:
        """Begin what is not to be done twice. A second try that the first one is in the way of has begun it."""
        try:
            self._start_errand(name, Errand(kind, lambda: [step]))
        except ArmRefusal as exc:
            if not (exc.doubtful and is_busy(exc)):
                raise
            self._errands.drop(name)
            if state_of(str(self._found(name)[1]["properties"].get("state"))) not in reached:
                raise

    def _check_idle(self, name: str) -> None:
        """Refuse a second errand. One that has ended meanwhile is none."""
        if self._errands.look(name) is not None:
            raise ArmFailure("ServerIsBusy", "what was asked of it before is not complete; wait() for it")

    def _check_free(self, flavour: Flavour, name: str) -> None:
        """Refuse a name that is taken: a PUT would change the server that has it."""
        try:
            self._found(name)
        except ArmRefusal as exc:
            if not _is_absent(exc):
                raise
        else:
            raise ArmFailure("ServerAlreadyExists", "the resource group has such a server")
        path = f"{self._session.subscription}/providers/{flavour.namespace}/checkNameAvailability"
        said = self._session.call("POST", path, flavour.version, body={"name": name, "type": flavour.type}).body
        if said.get("nameAvailable") is False:
            if said.get("reason") == "Invalid":
                raise ArmFailure("InvalidServerName", str(said.get("message") or "Azure does not take the name"))
            why = f"the name {name} is taken, by a server of somebody, or lately was; names are global"
            raise ArmFailure("ServerNameAlreadyExists", why)

    # what they share: reading

    def _told(self, name: str, flavour: Flavour, found: Mapping[str, Any], errand: Errand | None) -> DatabaseInfo:
        said = found["properties"]
        raw = str(said.get("state") or "")
        state = state_of(raw)
        if errand is not None and state in {"available", "updating", "creating"}:
            state = errand.kind
        elif errand is not None and state in {"stopped", "failed"} and errand.kind in {"creating", "updating"}:
            self._errands.drop(name)  # somebody stopped it: what is left undone, the next diff says
        host = said.get("fullyQualifiedDomainName")
        server = None if state == "creating" or not host else self._server(flavour, name, said, str(host))
        restart = state == "available" and any(_waits(each) for each in self._configurations(flavour, name))
        return DatabaseInfo(
            name=name,
            state=state,
            raw_state=raw,
            engine=flavour.engine,
            version=_version(said),
            size=str(found["sku"]["name"]),
            server=server,
            created=moment((found.get("systemData") or {}).get("createdAt")),
            id=str(found["id"]),
            restart_needed=restart,
            restorable_from=moment((said.get("backup") or {}).get("earliestRestoreDate")),
        )

    def _server(self, flavour: Flavour, name: str, said: Mapping[str, Any], host: str) -> Server:
        admin = str(said.get("administratorLogin") or "")
        stand_in, ca = self._settings.database_endpoint, self._settings.database_ca
        port = int(said.get("databasePort") or flavour.port)
        if stand_in is not None:
            return Server(host=f"{stand_in}/{name}", port=port, admin=admin, tls=False)
        return Server(host=host, port=port, admin=admin, ca=Path(ca) if ca else None)

    def _found(self, name: str) -> tuple[Flavour, Mapping[str, Any]]:
        """Return a server, of whichever engine.

        Raises:
            ArmRefusal: there is none.
            ArmFailure: there is one of each engine.
        """
        known = self._kinds.get(name)
        if known is not None:
            try:
                return known, self._session.call("GET", self._path(known, name), known.version).body
            except ArmRefusal as exc:
                if not _is_absent(exc):
                    raise
        held, absent = list[tuple[Flavour, Mapping[str, Any]]](), None
        for flavour in FLAVOURS.values():
            try:
                held.append((flavour, self._session.call("GET", self._path(flavour, name), flavour.version).body))
            except ArmRefusal as exc:
                if not _is_absent(exc) and _code(exc) != _NOT_REGISTERED:
                    raise
                absent = exc if absent is None or _is_absent(exc) else absent
        if len(held) > 1:
            why = "there is such a server for PostgreSQL and one for MySQL; keep them in two resource groups"
            raise ArmFailure("Conflict", why)
        if not held:
            raise absent or ArmFailure("ServerNotFound", "there is no such server")
        with self._lock:
            self._kinds[name] = held[0][0]
        return held[0]

    def _items(self, path: str, version: str) -> Iterator[Mapping[str, Any]]:
        """Yield the items of all pages."""
        link: str | None = path
        while link is not None:
            page = self._session.call("GET", link, version).body
            yield from page.get("value") or ()
            link = page.get("nextLink")

    def _children(
        self, flavour: Flavour, name: str, found: Mapping[str, Any], kind: str
    ) -> Iterator[Mapping[str, Any]]:
        """Yield what belongs to a server; of one that is not ready, what Azure tells then."""
        try:
            yield from self._items(f"{self._path(flavour, name)}/{kind}", flavour.version)
        except ArmRefusal as exc:
            if found["properties"].get("state") == "Ready" or not is_busy(exc):
                raise

    def _databases(self, flavour: Flavour, name: str, found: Mapping[str, Any]) -> Iterator[str]:
        for each in self._children(flavour, name, found, "databases"):
            if each["name"] not in flavour.own:
                yield str(each["name"])

    def _rules(self, flavour: Flavour, name: str, found: Mapping[str, Any]) -> tuple[Rule, ...]:
        return tuple(map(Rule.read, self._children(flavour, name, found, "firewallRules")))

    def _parameters(self, flavour: Flavour, name: str, found: Mapping[str, Any]) -> dict[str, str]:
        """Return the parameters that are not as Azure made them."""
        return {
            str(each["name"]): str(each["properties"].get("value") or "")
            for each in self._children(flavour, name, found, "configurations")
            if each["properties"].get("source") == "user-override"
        }

    def _configurations(self, flavour: Flavour, name: str) -> Iterator[Mapping[str, Any]]:
        try:
            yield from self._items(f"{self._path(flavour, name)}/configurations", flavour.version)
        except ArmRefusal as exc:
            if not is_busy(exc) and not _is_absent(exc):
                raise

    def _locks(self, flavour: Flavour, name: str) -> tuple[str, ...]:
        """Return the ids of all locks that keep the server from being deleted, also of those above it."""
        return tuple(str(each["id"]) for each in self._items(self._locks_path(flavour, name), LOCKS))

    def _backups(self, name: str, link: str | None) -> Page[Snapshot]:
        try:
            flavour, found = self._found(name)
        except ArmRefusal as exc:
            if not _is_absent(exc):
                raise
            return Page(())  # backups go with their server
        path = link or f"{self._path(flavour, name)}/{flavour.backups}"
        begun = self._taking.get(name) if link is None else None
        page = self._session.call("GET", path, flavour.version).body
        if begun is not None and self._errands.look(name) is None:
            self._taking.pop(name, None)
            begun, page = None, self._session.call("GET", path, flavour.version).body
        items = tuple(_snapshot(flavour, found, name, each) for each in page.get("value") or ())
        return Page(items if begun is None else (begun, *items), page.get("nextLink"))

    def _backup(self, flavour: Flavour, name: str, snapshot: str) -> Mapping[str, Any] | None:
        """Return a backup by the name that it was given, or that Azure gave."""
        if flavour.engine == "postgresql":
            path = f"{self._path(flavour, name)}/{flavour.backups}/{quote(snapshot, safe='')}"
            try:
                return self._session.call("GET", path, flavour.version).body
            except ArmRefusal as exc:
                if exc.status_code != _MISSING:
                    raise
                return None
        items = self._items(f"{self._path(flavour, name)}/{flavour.backups}", flavour.version)
        return next((each for each in items if snapshot in {each["name"], _given(flavour, each)}), None)

    def _complete(self, flavour: Flavour, name: str, snapshot: str) -> Mapping[str, Any]:
        found = self._backup(flavour, name, snapshot)
        if found is None:
            raise ArmFailure("BackupNotFound", f"there is no snapshot {snapshot!r}")
        return found

    def _all_names(self) -> Iterator[str]:
        page = self.names(None, None)
        yield from page.items
        while page.next is not None:
            page = self.names(page.next, None)
            yield from page.items

    def _offer(self, flavour: Flavour, location: str) -> Offer:
        """Return what a location offers; an answer counts for an hour."""
        key, now = (flavour.engine, location), self._session.clock()
        kept = self._offers.get(key)
        if kept is not None and now - kept[0] < 3600:
            return kept[1]
        base = f"{self._session.subscription}/providers/{flavour.namespace}/locations/{quote(location)}"
        answer = self._session.call("GET", f"{base}/{flavour.capabilities}", flavour.version).body
        offer = Offer.read(flavour, location, answer)
        with self._lock:
            self._offers[key] = (now, offer)
        return offer

    def _entra_name(self, name: str, claims: Mapping[str, Any]) -> str:
        """Return the name under which the bearer of a token is known to a server."""
        for claim in _NAMES:
            if claims.get(claim):
                return str(claims[claim])
        flavour, _ = self._found(name)
        for each in self._items(f"{self._path(flavour, name)}/administrators", flavour.version):
            said = each["properties"]
            if claims.get("oid") and str(said.get("objectId") or "").lower() == str(claims["oid"]).lower():
                return str(said["principalName"])
        why = "nothing says under which name the server knows the bearer of this token; declare user = …"
        raise ArmFailure("InvalidParameterValue", why)

    @property
    def _scope(self) -> str:
        return next((scope for cloud, scope in _SCOPES.items() if self._session.url.endswith(cloud)), _SCOPE)

    def _path(self, flavour: Flavour, name: str | None = None) -> str:
        base = f"{self._session.group}/providers/{flavour.type}"
        return base if name is None else f"{base}/{quote(name, safe='')}"

    def _locks_path(self, flavour: Flavour, name: str) -> str:
        return f"{self._path(flavour, name)}/providers/Microsoft.Authorization/locks"


# Azure's words


def _plain(location: str) -> str:
    """Return a location as paths have it: answers may have its name for people."""
    return location.replace(" ", "").lower()


def _mode_of(said: Mapping[str, Any]) -> Any:  # noqa: ANN401  one of Azure's two words, or nothing
    mode = (said.get("highAvailability") or {}).get("mode")
    return mode if mode in {"ZoneRedundant", "SameZone"} else None


def _version(said: Mapping[str, Any]) -> str:
    return shown(str(said.get("version") or "0"), said.get("minorVersion") or said.get("fullVersion"))


def _with_odd_size(offer: Offer, spec: DatabaseSpec, sku: str) -> DatabaseSpec:
    """Name the size where another one would be chosen, so that a change of something else does not change it too."""
    try:
        chosen = offer.choose(spec).size
    except ArmFailure:
        chosen = None
    if chosen is not None and (chosen.cpus, chosen.memory // GIB) == (spec.cpus, spec.memory_gib):
        return spec
    return attrs.evolve(spec, native=attrs.evolve(AzureDatabaseSettings.of(spec), sku=sku))


def _waits(configuration: Mapping[str, Any]) -> bool:
    """Tell whether a parameter waits for a restart; MySQL says it in a word."""
    return configuration["properties"].get("isConfigPendingRestart") in {True, "True"}


def _given(flavour: Flavour, backup: Mapping[str, Any]) -> str:
    """Return the name that a backup was given; Azure puts time and id before those of MySQL."""
    if flavour.engine == "postgresql":
        return str(backup["name"])
    said = (backup.get("properties") or {}).get("backupNameV2") or backup["name"]
    found = _MYSQL_BACKUP.fullmatch(str(said))
    return found[1] if found else str(said)


def _is_on_demand(flavour: Flavour, backup: Mapping[str, Any]) -> bool:
    if flavour.engine == "mysql":
        return _MYSQL_BACKUP.fullmatch(str(backup["name"])) is not None
    return (backup.get("properties") or {}).get("backupType") in _ON_DEMAND


def _snapshot(flavour: Flavour, found: Mapping[str, Any], name: str, backup: Mapping[str, Any]) -> Snapshot:
    said = backup.get("properties") or {}
    return Snapshot(
        name=_given(flavour, backup),
        database=name,
        state=_BACKUP_STATES.get(str(said.get("provisioningState")), "available"),
        engine=flavour.engine,
        version=_version(found["properties"]),
        created=moment(said.get("completedTime")),
        storage_gib=int(found["properties"]["storage"]["storageSizeGB"]),
        automatic=not _is_on_demand(flavour, backup),
    )


def _claims(token: str) -> dict[str, Any]:
    """Return what a token says of its bearer; nothing, of one that nobody but Entra can read."""
    part = token.split(".")[1] if token.count(".") == 2 else ""
    try:
        found = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _code(exc: ArmRefusal) -> str:
    return str(getattr(exc.error, "code", None) or "")


def _is_absent(exc: ArmRefusal) -> bool:
    """Tell whether a refusal says that there is no such server; the resource group may be missing as well."""
    return exc.status_code == _MISSING and _code(exc) in _OF_NO_SERVER

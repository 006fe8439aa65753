"""Database servers in Amazon RDS."""

from __future__ import annotations

import json
import logging
import threading
import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
from botocore.exceptions import BotoCoreError, ClientError

from shiftable.config import Credential
from shiftable.database.driver import (
    ENGINES,
    GIB,
    DatabaseDriver,
    DatabaseFeatures,
    DatabaseInfo,
    DatabaseSpec,
    DatabaseState,
    Engine,
    LoginToken,
    Server,
    SizeChoice,
    Snapshot,
)
from shiftable.errors import Fault
from shiftable.features import Limit
from shiftable.masking import Masked
from shiftable.paging import Page
from shiftable_aws import _rds_classes, _rds_storage
from shiftable_aws._errors import classify_database
from shiftable_aws._rds_groups import Groups, code_of, failure, tags_of
from shiftable_aws._rds_offers import Offers, Version, is_within, numbers_of
from shiftable_aws._rds_settings import RdsSettings
from shiftable_aws._rds_told import (
    NAMES,
    NATIVE,
    PORTS,
    engine_of,
    parameter_group_of,
    pending_of,
    settings_of,
    snapshot_of,
    state_of,
    utc,
)

if TYPE_CHECKING:
    from mypy_boto3_rds import RDSClient

    from shiftable_aws._session import Session

__all__ = ["CA_BUNDLE", "FEATURES", "RdsDriver"]

logger = logging.getLogger(__name__)

_API = "Amazon RDS API reference"

FEATURES = DatabaseFeatures(
    title="Amazon RDS",
    engines=frozenset(ENGINES),
    connect=True,
    stop=True,
    snapshots=True,
    final_snapshot=True,
    point_in_time=True,
    high_availability=True,
    storage_autogrow=True,
    deletion_protection=True,
    public=True,
    allow_from=True,
    parameters=True,
    labels=True,
    managed_password=True,
    set_password=True,
    token_login=True,
    optional_tls=True,
    restart=True,
    sizes=True,
    max_name=Limit(63, f"{_API}, CreateDBInstance"),
    min_storage=Limit(_rds_storage.MIN_GIB, f"{_API}, CreateDBInstance: gp3"),
    max_storage=Limit(_rds_storage.MAX_GIB, f"{_API}, CreateDBInstance: gp3"),
    max_backup_days=Limit(35, f"{_API}, CreateDBInstance"),
)

CA_BUNDLE = Path("~/.aws/rds-global-bundle.pem")


# The parameter that refuses connections without TLS, and the first version where it does so unless told otherwise.
_TLS: Mapping[Engine, tuple[str, tuple[int, ...]]] = {
    "postgresql": ("rds.force_ssl", (15,)),
    "mysql": ("require_secure_transport", (8, 4)),
    "mariadb": ("require_secure_transport", (11, 8)),
}
_ON = {"1", "on", "true"}

_OWN_TAGS = "shiftable-"
_REQUEST_TAG = "shiftable-request"  # tells a server that was made by a call whose answer was lost from another's
_FIREWALL_TAG = "shiftable-firewall"
_LEAST_PAGE, _PAGE = 20, 100  # of all Describe calls
_TOKEN_LIFE = timedelta(minutes=15)  # user guide, "IAM database authentication"

# The stubs type each argument of the client; these are filled step by step.
_Arguments = dict[str, Any]


@attrs.frozen
class _Own:
    """Which groups of its own a server has, that go with it."""

    firewall: bool
    parameters: bool


@attrs.define(eq=False)
class RdsDriver(DatabaseDriver):
    """Database servers in Amazon RDS, through boto3. Clusters, Aurora's and others, and their members are not seen.

    Credentials and permissions are those of ``AwsProvider``.

    * A size is the smallest instance class that RDS has here for the version, by the package's own table: no call of
      RDS tells the CPUs and the memory of a class.
    * Without a declared password AWS makes one, keeps it in Secrets Manager and rotates it every seven days.
    * ``allow_from`` becomes a security group of the server's own, which lets these networks in on its port and nobody
      else; parameters become a parameter group of its own. Both carry the tag ``shiftable-server``, and go when the
      server is gone and this process waits for it; else the next server of the name takes them over, or ``sweep``
      deletes them.
    * Labels are tags, all but those that begin with ``shiftable-`` or ``aws:``.
    * RDS makes one database; others are made in SQL.
    * A change is sent to be applied at once. RDS tells of it as pending until it begins: the server counts as
      ``updating`` then, also by what somebody else put off to the maintenance window.
    * What a restore cannot take along (a declared password, how far storage grows) is changed by ``info`` as soon as
      the server is up, in the process that began the restore.
    * A stopped server is started by AWS after seven days, and can be neither changed nor copied before.
    * Storage grows by a tenth at least, and then not again for six hours.

    Args:
        ca: the certificates of RDS: https://truststore.pki.rds.amazonaws.com/global/global-bundle.pem, fetched by the
            user; else ``~/.aws/rds-global-bundle.pem``.
    """

    _session: Session
    _ca: Path | None = None
    _lock: threading.Lock = attrs.field(factory=threading.Lock, init=False, repr=False)
    _offers: Offers = attrs.field(
        default=attrs.Factory(lambda self: Offers(self._session), takes_self=True), init=False, repr=False
    )
    _left: dict[str, _Arguments] = attrs.field(factory=dict, init=False, repr=False)
    _deleted: dict[str, _Own] = attrs.field(factory=dict, init=False, repr=False)

    @property
    def provider(self) -> str:
        """The provider's name in errors."""
        return "aws"

    @property
    def features(self) -> DatabaseFeatures:
        """What this driver can do."""
        return FEATURES

    @property
    def client(self) -> RDSClient:
        """The client that does the work."""
        return self._session.client("rds")

    def classify(self, exc: Exception) -> Fault | None:
        """Say what a native exception means."""
        return classify_database(exc)

    def missing_features(self, spec: DatabaseSpec) -> tuple[str, ...]:
        """Say what RDS does not have of a declaration."""
        more = ("databases but the first; make others in SQL",) if len(spec.databases) > 1 else ()
        return (*super().missing_features(spec), *more)

    def size(self, spec: DatabaseSpec) -> SizeChoice:
        """Choose the smallest class that RDS has here for the version."""
        native = RdsSettings.of(spec)
        if native.instance_class is not None:
            size = _rds_classes.classes().sizes.get(native.instance_class)
            if size is None:
                raise ValueError(f"{native.instance_class} is not in {_rds_classes.classes().source}")
            return SizeChoice(size, "it is declared")
        version = self._offers.offered(spec.engine, spec.version)
        return _rds_classes.chosen(spec, lambda name: self._offers.is_orderable(spec, version, name))

    def rounded(self, spec: DatabaseSpec) -> DatabaseSpec:
        """Round the size up to a class, and storage that grows up to what RDS lets it grow by."""
        size = self._size(spec)
        try:
            current = self._instance(spec.name)["AllocatedStorage"]
        except ClientError as exc:
            if code_of(exc) != "DBInstanceNotFound":
                raise
            current = 0
        storage = _rds_storage.grown(current, spec.storage_gib)
        if storage < current <= _rds_storage.grown(storage, storage + 1):
            storage = current  # it was rounded up when it grew
        return attrs.evolve(spec, cpus=size.size.cpus, memory_gib=size.size.memory // GIB, storage_gib=storage)

    # servers

    def create(self, spec: DatabaseSpec) -> None:
        """Begin to create a server, after its groups."""
        native = RdsSettings.of(spec)
        version = self._offers.version(spec.engine, spec.version)
        arguments: _Arguments = {
            "Engine": NATIVE[spec.engine],
            "EngineVersion": version.name,
            "MasterUsername": spec.admin,
            "StorageEncrypted": True,
            "MaxAllocatedStorage": _rds_storage.ceiling(spec, native.max_storage_gib),
            **({"DBName": spec.databases[0]} if spec.databases else {}),
            **({"KmsKeyId": native.kms_key} if native.kms_key else {}),
            **({"PreferredMaintenanceWindow": native.maintenance_window} if native.maintenance_window else {}),
        }
        if not spec.storage_autogrow:
            del arguments["MaxAllocatedStorage"]
        arguments |= _kept_password(native) if spec.password is None else _given_password(spec.password)

        def call(common: _Arguments) -> None:
            self.client.create_db_instance(DBInstanceIdentifier=spec.name, **common, **arguments)

        self._begin(spec, version, call)

    def describe(self, name: str) -> DatabaseSpec:
        """Return the server as a declaration would say it. What is pending does not count."""
        found = self._instance(name)
        engine = engine_of(found)
        group = parameter_group_of(found)
        parameters = self._groups.parameters(group)
        switch = parameters.pop(_TLS[engine][0], None) or self._default_switch(engine, group)
        tags = tags_of(found.get("TagList"))
        firewall = tags.get(_FIREWALL_TAG)
        size = self._offers.extent(found["DBInstanceClass"])
        storage = found["AllocatedStorage"]
        return DatabaseSpec(
            name=name,
            engine=engine,
            version=found["EngineVersion"],
            cpus=size[0],
            memory_gib=size[1],
            storage_gib=storage,
            storage_autogrow=found.get("MaxAllocatedStorage", 0) > storage,
            high_availability=found.get("MultiAZ", False),
            backup_days=found.get("BackupRetentionPeriod", 0),
            deletion_protection=found.get("DeletionProtection", False),
            public=found.get("PubliclyAccessible", False),
            allow_from=self._groups.networks(firewall) if firewall else (),
            databases=(found["DBName"],) if found.get("DBName") else (),
            parameters=parameters,
            labels={key: value for key, value in tags.items() if not key.startswith((_OWN_TAGS, "aws:"))},
            admin=found.get("MasterUsername", ""),
            tls="required" if switch.lower() in _ON else "optional",
            token_login=found.get("IAMDatabaseAuthenticationEnabled", False),
            native=settings_of(found, engine, firewall),
        )

    def update(self, current: DatabaseSpec, spec: DatabaseSpec) -> None:
        """Begin to change a server: who may connect and its parameters first, then the server, then its labels."""
        found = self._instance(spec.name)
        arguments = self._changes(found, current, spec)
        parameters_change = (spec.parameters, spec.tls) != (current.parameters, current.tls)
        if (arguments or parameters_change or spec.allow_from != current.allow_from) and state_of(found) != "available":
            text = f"it is {found['DBInstanceStatus']}, with changes pending: {sorted(pending_of(found))}"
            raise failure("InvalidDBInstanceState", text)
        if set(spec.allow_from) != set(current.allow_from):
            arguments |= self._let_in(found, spec)
        if parameters_change or "EngineVersion" in arguments:
            arguments |= self._set_parameters(found, current, spec, arguments.get("EngineVersion"))
        if arguments:
            self._modify(spec.name, arguments)
        self._label(found, current.labels, spec.labels)

    def delete(self, name: str, *, final_snapshot: str | None) -> None:
        """Begin to delete a server, with its automatic backups; its groups go when it is gone."""
        found = self._instance(name)
        groups = [group["DBParameterGroupName"] for group in found.get("DBParameterGroups", ())]
        own = _Own(_FIREWALL_TAG in tags_of(found.get("TagList")), any(group.startswith(_OWN_TAGS) for group in groups))
        last = {"FinalDBSnapshotIdentifier": final_snapshot} if final_snapshot else {}
        try:
            self.client.delete_db_instance(
                DBInstanceIdentifier=name, SkipFinalSnapshot=not final_snapshot, DeleteAutomatedBackups=True, **last
            )
        except ClientError as exc:
            if not (_retried(exc) and self._is_going(name)):  # by the first attempt, whose answer was lost
                raise
        with self._lock:
            self._deleted[name] = own
            self._left.pop(name, None)

    def names(self, cursor: str | None, limit: int | None) -> Page[str]:
        """Return one page of the names of all servers."""
        engines: Any = [{"Name": "engine", "Values": sorted(NAMES)}]
        answer = self.client.describe_db_instances(Filters=engines, **_page(cursor, limit))
        own = (found for found in answer["DBInstances"] if not found.get("DBClusterIdentifier"))
        return Page(tuple(found["DBInstanceIdentifier"] for found in own), answer.get("Marker"))

    def info(self, name: str) -> DatabaseInfo:
        """Return the state of a server; finish what could not be done before it was up, or was gone."""
        try:
            found = self._instance(name)
        except ClientError as exc:
            if code_of(exc) == "DBInstanceNotFound":
                self._sweep_deleted(name)
            raise
        state = self._finished(name, state_of(found))
        pending = sorted(pending_of(found))
        raw = found["DBInstanceStatus"] + (f" (pending: {', '.join(pending)})" if pending else "")
        until = found.get("LatestRestorableTime")
        return DatabaseInfo(
            name=name,
            state=state,
            raw_state=raw,
            engine=engine_of(found),
            version=found["EngineVersion"],
            size=found["DBInstanceClass"],
            server=self._server(found),
            created=utc(found.get("InstanceCreateTime")),
            id=found.get("DbiResourceId"),
            restart_needed=any(
                group["ParameterApplyStatus"] == "pending-reboot" for group in found.get("DBParameterGroups", ())
            ),
            restorable_until=utc(until),
        )

    def restorable(self, name: str) -> tuple[datetime, datetime] | None:
        """Return the times that the automated backups of a server hold; ``None`` too for who may not see them."""
        id_ = self._instance(name)["DbiResourceId"]  # of its name there may be backups of a server that is gone
        try:
            found = self.client.describe_db_instance_automated_backups(DbiResourceId=id_)["DBInstanceAutomatedBackups"]
        except ClientError as exc:
            if code_of(exc) != "AccessDenied":
                raise
            return None
        for backup in found:
            window = backup.get("RestoreWindow", {})
            earliest, latest = utc(window.get("EarliestTime")), utc(window.get("LatestTime"))
            if earliest is not None and latest is not None:
                return earliest, latest
        return None

    def password(self, name: str, given: Credential | None, *, fresh: bool) -> Masked:  # noqa: ARG002  nothing is kept
        """Return the password that AWS keeps of the server, or else the declared one."""
        secret = self._instance(name).get("MasterUserSecret")
        if secret is not None:
            return self._kept(secret["SecretArn"], "AWSCURRENT")
        if given is None:
            text = "AWS does not keep its password, and none is declared: declare password = { … }, or let AWS make one"
            raise failure("MasterUserSecretNotFound", f"{text} (set_password)")
        return Masked(given.reveal())

    def pending_password(self, name: str) -> Masked | None:
        """Return the password that a rotation is about to set."""
        secret = self._instance(name).get("MasterUserSecret")
        if secret is None:
            return None
        try:
            return self._kept(secret["SecretArn"], "AWSPENDING")
        except ClientError as exc:
            if code_of(exc) != "ResourceNotFoundException":
                raise
            return None

    def login_token(self, name: str, user: str | None) -> LoginToken:
        """Sign a token for a user who has the role ``rds_iam``, else for the administrator.

        Nothing is sent for it but the question where the server is.
        """
        found = self._instance(name)
        server = self._server(found)
        if server is None:
            raise failure("InvalidDBInstanceState", f"it has no address yet; it is {found['DBInstanceStatus']}")
        chosen = user or server.admin
        now = datetime.now(UTC)
        host = "localhost" if server.host.startswith("/") else server.host  # the socket of a double
        token = self.client.generate_db_auth_token(DBHostname=host, Port=server.port, DBUsername=chosen)
        return LoginToken(user=chosen, value=Masked(token), expires=now + _TOKEN_LIFE)

    # changing state

    def set_password(self, name: str, password: Masked | None) -> None:
        """Begin to change the administrator's password: to a given one, or to a new one that AWS makes and keeps."""
        kept = "MasterUserSecret" in self._instance(name)
        if password is None:
            arguments: _Arguments = {"RotateMasterUserPassword": True} if kept else {"ManageMasterUserPassword": True}
        else:
            arguments = {"MasterUserPassword": password.reveal()} | (
                {"ManageMasterUserPassword": False} if kept else {}
            )
        self._modify(name, arguments)

    def start(self, name: str) -> None:
        """Begin to start a stopped server."""
        self._switch(self.client.start_db_instance, name, "starting", "available")

    def stop(self, name: str) -> None:
        """Begin to stop an available server."""
        self._switch(self.client.stop_db_instance, name, "stopping", "stopped")

    def restart(self, name: str) -> None:
        """Begin to restart an available server."""
        self._switch(self.client.reboot_db_instance, name, "updating")

    # snapshots

    def snapshot(self, name: str, snapshot: str) -> Snapshot:
        """Begin to take a snapshot. Its name is taken once in the account and region, not once per server."""
        request = str(uuid.uuid4())
        tags: Any = [{"Key": _REQUEST_TAG, "Value": request}]
        try:
            answer = self.client.create_db_snapshot(DBInstanceIdentifier=name, DBSnapshotIdentifier=snapshot, Tags=tags)
        except ClientError as exc:
            if not _retried(exc):
                raise
            found = self._taken(name, snapshot, exc)
            if tags_of(found.get("TagList")).get(_REQUEST_TAG) != request:
                raise
            return snapshot_of(found)
        return snapshot_of(answer["DBSnapshot"])

    def snapshots(self, name: str | None, *, cursor: str | None, limit: int | None) -> Page[Snapshot]:
        """Return one page of snapshots, the automatic ones too, in AWS's order."""
        which: Any = {"DBInstanceIdentifier": name} if name is not None else {"Filters": _ENGINE_FILTER}
        answer = self.client.describe_db_snapshots(**which, **_page(cursor, limit))
        return Page(tuple(snapshot_of(found) for found in answer["DBSnapshots"]), answer.get("Marker"))

    def delete_snapshot(self, name: str, snapshot: str) -> None:
        """Delete a snapshot of a server."""
        self._taken(name, snapshot)
        try:
            self.client.delete_db_snapshot(DBSnapshotIdentifier=snapshot)
        except ClientError as exc:  # gone by the first attempt, whose answer was lost
            if code_of(exc) != "DBSnapshotNotFound" or not _retried(exc):
                raise

    def restore(self, name: str, snapshot: str, spec: DatabaseSpec) -> None:
        """Begin to make a new server of a snapshot, with the declaration applied."""
        taken = self._taken(name, snapshot)
        if taken["Engine"] != NATIVE[spec.engine]:
            raise failure("InvalidRestoreFault", f"the snapshot is of {taken['Engine']}")
        if spec.storage_gib < taken["AllocatedStorage"]:
            raise failure("InvalidRestoreFault", f"the snapshot needs {taken['AllocatedStorage']:,} GiB")
        native = RdsSettings.of(spec)

        def call(common: _Arguments) -> None:
            self.client.restore_db_instance_from_db_snapshot(
                DBInstanceIdentifier=spec.name, DBSnapshotIdentifier=snapshot, **common
            )

        left = {"MaxAllocatedStorage": _rds_storage.ceiling(spec, native.max_storage_gib)}
        self._restored(spec, self._offers.offered(spec.engine, taken["EngineVersion"]), call, left)

    def restore_at(self, name: str, when: datetime, spec: DatabaseSpec) -> None:
        """Begin to make a new server as another one was, with the declaration applied."""
        source = self._instance(name)
        if source["Engine"] != NATIVE[spec.engine]:
            raise failure("InvalidRestoreFault", f"the server is of {source['Engine']}")
        if spec.storage_gib < source["AllocatedStorage"]:
            raise failure("InvalidRestoreFault", f"the server has {source['AllocatedStorage']:,} GiB")
        most = _rds_storage.ceiling(spec, RdsSettings.of(spec).max_storage_gib)

        def call(common: _Arguments) -> None:
            self.client.restore_db_instance_to_point_in_time(
                SourceDBInstanceIdentifier=name,
                TargetDBInstanceIdentifier=spec.name,
                RestoreTime=when,
                MaxAllocatedStorage=most,
                **common,
            )

        self._restored(spec, self._offers.offered(spec.engine, source["EngineVersion"]), call, {})

    # beside the contract

    def sweep(self, name: str) -> None:
        """Delete the groups that a server left behind: where no process waited until it was gone."""
        self._groups.sweep(name, firewall=True, parameters=True)

    # making servers

    def _begin(self, spec: DatabaseSpec, version: Version, call: Callable[[_Arguments], None]) -> None:
        """Make the groups of a server, and the server; no groups are left if RDS refuses."""
        native = RdsSettings.of(spec)
        for problem in _rds_storage.problems(spec, native):
            raise failure("InvalidParameterCombination", problem)
        if _TLS[spec.engine][0] in spec.parameters:
            text = f"declare tls = … in place of the parameter {_TLS[spec.engine][0]}"
            raise failure("InvalidParameterCombination", text)
        if self._exists(spec.name):
            raise failure("DBInstanceAlreadyExists", "there is such a server")
        with self._lock:
            self._deleted.pop(spec.name, None)
        common = self._common(spec, native, attrs.evolve(spec, version=version.name))
        request = str(uuid.uuid4())
        undo: list[Callable[[], None]] = []
        try:
            tags = {**spec.labels, _REQUEST_TAG: request, **self._own_groups(spec, native, version, common, undo)}
            call({**common, "Tags": _tags(tags)})
        except ClientError as exc:
            if code_of(exc) == "DBInstanceAlreadyExists" and _retried(exc) and self._is_of(spec.name, request):
                return  # it was made by the first attempt, whose answer was lost
            if not _is_unsure(exc):
                for step in undo:
                    step()
            raise

    def _common(self, spec: DatabaseSpec, native: RdsSettings, sized: DatabaseSpec) -> _Arguments:
        """Return what a server is created and restored with alike."""
        optional = {
            "DBSubnetGroupName": native.subnet_group,
            "VpcSecurityGroupIds": list(native.security_groups) or None,
            "Port": native.port,
            "AvailabilityZone": native.availability_zone,
            "CACertificateIdentifier": native.ca_certificate,
            "PreferredBackupWindow": native.backup_window,
        }
        return {
            "DBInstanceClass": self._size(sized).size.name,
            "AllocatedStorage": spec.storage_gib,
            "MultiAZ": spec.high_availability,
            "BackupRetentionPeriod": spec.backup_days,
            "DeletionProtection": spec.deletion_protection,
            "PubliclyAccessible": spec.public,
            "EnableIAMDatabaseAuthentication": spec.token_login,
            "AutoMinorVersionUpgrade": native.auto_minor_upgrades,
            **_rds_storage.performance(native),
            **{name: value for name, value in optional.items() if value is not None},
        }

    def _own_groups(
        self,
        spec: DatabaseSpec,
        native: RdsSettings,
        version: Version,
        arguments: _Arguments,
        undo: list[Callable[[], None]],
    ) -> dict[str, str]:
        """Make the groups that a declaration needs, put them among the arguments, and return the tag of one."""
        tags = {}
        if spec.allow_from:
            port = native.port or PORTS[spec.engine]
            vpc = self._groups.vpc(native.subnet_group)
            firewall, made = self._groups.firewall(spec.name, port, spec.allow_from, vpc)
            if made:
                undo.append(lambda: self._groups.delete_firewall(firewall))
            arguments["VpcSecurityGroupIds"] = [firewall, *native.security_groups]
            tags[_FIREWALL_TAG] = firewall
        parameters = {**spec.parameters, **_switch_of(spec.engine, version.name, spec.tls)}
        if parameters:
            group, made = self._groups.parameter_group(spec.name, version.family, parameters)
            if made:
                undo.append(lambda: self._groups.delete_parameter_group(group))
            arguments["DBParameterGroupName"] = group
        return tags

    def _restored(
        self, spec: DatabaseSpec, version: Version, call: Callable[[_Arguments], None], left: _Arguments
    ) -> None:
        """Begin a restore, and note what it cannot take along."""
        kept = _kept_password(RdsSettings.of(spec)) if spec.password is None else {}
        self._begin(spec, version, lambda common: call({**common, **kept}))
        if spec.password is not None:
            left |= _given_password(spec.password)
        if left:
            with self._lock:
                self._left[spec.name] = left

    def _finished(self, name: str, state: DatabaseState) -> DatabaseState:
        """Carry out what was left to do once a server is up."""
        if state != "available":
            return state
        with self._lock:
            left = self._left.pop(name, None)
        if left is None:
            return state
        try:
            self._modify(name, left)
        except ClientError as exc:
            with self._lock:
                self._left.setdefault(name, left)
            if code_of(exc) != "InvalidDBInstanceState":
                raise
        return "updating"

    def _sweep_deleted(self, name: str) -> None:
        """Delete what a server left. That it is gone is true even where this fails."""
        with self._lock:
            own = self._deleted.pop(name, None)
        if own is None:
            return
        try:
            self._groups.sweep(name, firewall=own.firewall, parameters=own.parameters)
        except (BotoCoreError, ClientError) as exc:
            logger.warning("the groups of %s, which is gone, stay: %s; RdsDriver.sweep deletes them later", name, exc)

    # changing servers

    def _changes(self, found: Any, current: DatabaseSpec, spec: DatabaseSpec) -> _Arguments:  # noqa: ANN401
        """Return the arguments that make ``current`` what ``spec`` says, but for groups."""
        arguments: _Arguments = {}
        if (spec.cpus, spec.memory_gib) != (current.cpus, current.memory_gib):
            arguments["DBInstanceClass"] = self._size(spec).size.name
        if not is_within(current.version, spec.version):
            arguments["EngineVersion"] = self._offers.version(spec.engine, spec.version).name
            arguments["AllowMajorVersionUpgrade"] = True
        if spec.storage_gib != current.storage_gib:
            arguments |= _rds_storage.enlarged(found, spec.storage_gib)
        if (spec.storage_gib, spec.storage_autogrow) != (current.storage_gib, current.storage_autogrow):
            native = spec.native if isinstance(spec.native, RdsSettings) else None
            most = native.max_storage_gib if native else found.get("MaxAllocatedStorage")
            most = most if current.storage_autogrow or native else None
            arguments["MaxAllocatedStorage"] = _rds_storage.ceiling(spec, most)
        plain = {
            "MultiAZ": (spec.high_availability, current.high_availability),
            "BackupRetentionPeriod": (spec.backup_days, current.backup_days),
            "DeletionProtection": (spec.deletion_protection, current.deletion_protection),
            "PubliclyAccessible": (spec.public, current.public),
            "EnableIAMDatabaseAuthentication": (spec.token_login, current.token_login),
        }
        return arguments | {name: wanted for name, (wanted, has) in plain.items() if wanted != has}

    def _let_in(self, found: Any, spec: DatabaseSpec) -> _Arguments:  # noqa: ANN401
        """Change the server's security group; make one, if it has none."""
        port = found["Endpoint"]["Port"]
        firewall = tags_of(found.get("TagList")).get(_FIREWALL_TAG)
        if firewall is not None:
            self._groups.set_networks(firewall, port, spec.allow_from)
            return {}
        firewall, _ = self._groups.firewall(spec.name, port, spec.allow_from, found["DBSubnetGroup"]["VpcId"])
        self.client.add_tags_to_resource(ResourceName=found["DBInstanceArn"], Tags=_tags({_FIREWALL_TAG: firewall}))
        others = [group["VpcSecurityGroupId"] for group in found.get("VpcSecurityGroups", ())]
        return {"VpcSecurityGroupIds": list(dict.fromkeys([*others, firewall]))}

    def _set_parameters(
        self,
        found: Any,  # noqa: ANN401
        current: DatabaseSpec,
        spec: DatabaseSpec,
        version: str | None,
    ) -> _Arguments:
        """Set parameters in the server's own group; make one, if it has none, or none of the new major version.

        A group that others may use is never changed: what it says is copied.
        """
        group = parameter_group_of(found)
        target = self._offers.offered(spec.engine, version or found["EngineVersion"])
        (held,) = self.client.describe_db_parameter_groups(DBParameterGroupName=group)["DBParameterGroups"]
        switch = _TLS[spec.engine][0]
        same_family = held["DBParameterGroupFamily"] == target.family
        if same_family and self._groups.owns(spec.name, group):
            changed = {name: value for name, value in spec.parameters.items() if current.parameters.get(name) != value}
            if spec.tls != current.tls:
                changed[switch] = "1" if spec.tls == "required" else "0"
            self._groups.set_parameters(group, changed)
            return {}
        parameters = {**spec.parameters, **_switch_of(spec.engine, target.name, spec.tls)}
        if same_family and (spec.parameters, spec.tls) == (current.parameters, current.tls):
            return {}
        if not parameters and group.startswith("default."):
            return {}
        made, _ = self._groups.parameter_group(spec.name, target.family, parameters)
        return {"DBParameterGroupName": made}

    def _label(self, found: Any, current: Mapping[str, str], wanted: Mapping[str, str]) -> None:  # noqa: ANN401
        surplus = [name for name in current if name not in wanted]
        changed = {name: value for name, value in wanted.items() if current.get(name) != value}
        if surplus:
            self.client.remove_tags_from_resource(ResourceName=found["DBInstanceArn"], TagKeys=surplus)
        if changed:
            self.client.add_tags_to_resource(ResourceName=found["DBInstanceArn"], Tags=_tags(changed))

    def _modify(self, name: str, arguments: _Arguments) -> None:
        try:
            self.client.modify_db_instance(DBInstanceIdentifier=name, ApplyImmediately=True, **arguments)
        except ClientError as exc:
            # The first attempt, whose answer was lost, has brought it into the state that forbids another one.
            if code_of(exc) != "InvalidDBInstanceState" or not (_retried(exc) and self._is_state(name, "updating")):
                raise

    def _switch(self, call: Callable[..., object], name: str, *reached: DatabaseState) -> None:
        try:
            call(DBInstanceIdentifier=name)
        except ClientError as exc:  # the same
            if code_of(exc) != "InvalidDBInstanceState" or not (_retried(exc) and self._is_state(name, *reached)):
                raise

    # asking

    @property
    def _groups(self) -> Groups:
        return Groups(self._session)

    def _instance(self, name: str) -> Any:  # noqa: ANN401  of the stubs, where almost nothing is sure to be there
        (found,) = self.client.describe_db_instances(DBInstanceIdentifier=name)["DBInstances"]
        return found

    def _exists(self, name: str) -> bool:
        try:
            self._instance(name)
        except ClientError as exc:
            if code_of(exc) != "DBInstanceNotFound":
                raise
            return False
        return True

    def _is_of(self, name: str, request: str) -> bool:
        return tags_of(self._instance(name).get("TagList")).get(_REQUEST_TAG) == request

    def _is_state(self, name: str, *states: DatabaseState) -> bool:
        return state_of(self._instance(name)) in states

    def _is_going(self, name: str) -> bool:
        try:
            return self._is_state(name, "deleting")
        except ClientError as exc:
            if code_of(exc) != "DBInstanceNotFound":
                raise
            return True

    def _taken(self, name: str, snapshot: str, cause: ClientError | None = None) -> Any:  # noqa: ANN401  as above
        try:
            found = self.client.describe_db_snapshots(DBInstanceIdentifier=name, DBSnapshotIdentifier=snapshot)
        except ClientError as exc:
            if cause is not None and code_of(exc) == "DBSnapshotNotFound":
                raise cause from exc
            raise
        if not found["DBSnapshots"]:
            raise cause or failure("DBSnapshotNotFound", f"there is no snapshot {snapshot} of this server")
        return found["DBSnapshots"][0]

    def _kept(self, arn: str, stage: str) -> Masked:
        answer = self._session.client("secretsmanager").get_secret_value(SecretId=arn, VersionStage=stage)
        try:
            return Masked(json.loads(answer["SecretString"])["password"])
        except (ValueError, KeyError, TypeError):
            pass  # it holds the value: ours is raised where that one cannot hang on it
        raise failure("MasterUserSecretNotFound", f"the secret {arn} does not hold a password as RDS writes it")

    def _server(self, found: Any) -> Server | None:  # noqa: ANN401
        where = found.get("Endpoint") or {}
        if not where.get("Address"):
            return None
        ca = (self._ca or CA_BUNDLE).expanduser()
        return Server(host=where["Address"], port=where["Port"], admin=found.get("MasterUsername", ""), ca=ca)

    def _default_switch(self, engine: Engine, group: str) -> str:
        """Return the parameter that refuses connections without TLS, of a group where nobody set it."""
        held = self._groups.parameter(group, _TLS[engine][0])
        return (held and held.value) or "0"

    def _size(self, spec: DatabaseSpec) -> SizeChoice:
        try:
            return self.size(spec)
        except ValueError as exc:
            raise failure("InvalidParameterValue", str(exc)) from None


_ENGINE_FILTER: Any = [{"Name": "engine", "Values": sorted(NAMES)}]


def _kept_password(native: RdsSettings) -> _Arguments:
    key = {"MasterUserSecretKmsKeyId": native.secret_kms_key} if native.secret_kms_key else {}
    return {"ManageMasterUserPassword": True, **key}


def _given_password(password: Credential) -> _Arguments:
    return {"MasterUserPassword": password.reveal()}


def _switch_of(engine: Engine, version: str, tls: str) -> dict[str, str]:
    """Return the parameter that makes TLS a must, or not, where the version's default is the other."""
    name, since = _TLS[engine]
    default = "required" if numbers_of(version) >= since else "optional"
    return {} if tls == default else {name: "1" if tls == "required" else "0"}


def _page(cursor: str | None, limit: int | None) -> _Arguments:
    size = _PAGE if limit is None else min(max(limit, _LEAST_PAGE), _PAGE)
    return {"MaxRecords": size} | ({"Marker": cursor} if cursor is not None else {})


def _tags(tags: Mapping[str, str]) -> Any:  # noqa: ANN401
    return [{"Key": key, "Value": value} for key, value in tags.items()]


def _retried(exc: ClientError) -> bool:
    return bool(exc.response.get("ResponseMetadata", {}).get("RetryAttempts"))


def _is_unsure(exc: ClientError) -> bool:
    """Tell whether the service may have done it although it answers with an error."""
    status = exc.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return status >= 500 or code_of(exc) == "RequestTimeoutException"

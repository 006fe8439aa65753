"""What Amazon RDS does and moto 5.2 does not: servers that take their time, and a service that says no.

moto's servers are available at once, whatever their class, version, storage or password; nothing is ever pending; its
restores forget the declaration. So servers, their snapshots, parameter groups and tags are answered here, from a state
of this module's own, read and written by botocore's model of the service. Groups of subnets, clusters and all else stay
moto's. Not here: replicas, blue/green deployments, proxies, option groups.
"""

from __future__ import annotations

import json
import secrets
import uuid
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any, cast
from urllib.parse import parse_qsl
from xml.sax.saxutils import escape

from moto.backends import get_backend
from moto.core.models import DEFAULT_ACCOUNT_ID

from shiftable.postgresql import Cluster
from shiftable.testing.databases import PrivateServers
from shiftable.testing.harness import Clock, Headers, Response
from shiftable_aws import _strict_rds_groups as groups
from shiftable_aws import _strict_rds_rules as rules
from shiftable_aws import _strict_rds_servers as servers
from shiftable_aws._strict_query import operation_of, read, written
from shiftable_aws._strict_rds_state import (
    Arguments,
    Data,
    Region,
    Server,
    Step,
    Taken,
    filters,
    group_of,
    key_of,
    page,
    security_groups,
)
from shiftable_aws._strict_refused import Refused

__all__ = ["StrictRds"]


_NAMESPACE = "http://rds.amazonaws.com/doc/2014-10-31/"
_PORTS = {"postgres": 5432, "mysql": 3306, "mariadb": 3306}
_CHANGEABLE = {"available", "storage-optimization", "storage-full", "incompatible-parameters"}
_LISTENING = _CHANGEABLE | {"backing-up", "modifying"}
_LONGEST_STOP = timedelta(days=7)
_MAX_TAGS = 50
_DELETED_AFTER = "(deleted)"

# What ModifyDBInstance changes while the server goes on, whatever ApplyImmediately says, and what it carries out.
_AT_ONCE = ("DeletionProtection", "MaxAllocatedStorage", "AutoMinorVersionUpgrade", "PubliclyAccessible")
_CARRIED_OUT = (
    "AllocatedStorage",
    "BackupRetentionPeriod",
    "DBInstanceClass",
    "EngineVersion",
    "Iops",
    "MultiAZ",
    "StorageThroughput",
    "StorageType",
)


class StrictRds:
    """Stands in front of moto and answers for RDS. Not for use from several threads at once.

    Attributes:
        delay: how long everything takes, by the double's clock, that takes minutes at AWS.
        quota: servers of the account in a region.
        failing: statuses that servers of these names end in when they are made: ``{"orders": "incompatible-network"}``.
        private: what listens at the addresses of PostgreSQL.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._regions: dict[str, Region] = {}
        self.private = PrivateServers()
        self._answers: Mapping[str, Callable[[Region, Arguments], Data]] = {
            "AddTagsToResource": self.add_tags,
            "CreateDBInstance": self.create,
            "CreateDBParameterGroup": groups.create,
            "CreateDBSnapshot": self.create_snapshot,
            "DeleteDBInstance": self.delete,
            "DeleteDBParameterGroup": groups.delete,
            "DeleteDBSnapshot": self.delete_snapshot,
            "DescribeDBEngineVersions": describe_versions,
            "DescribeDBInstanceAutomatedBackups": self.describe_automated_backups,
            "DescribeDBInstances": self.describe,
            "DescribeDBParameterGroups": groups.describe,
            "DescribeDBParameters": groups.describe_parameters,
            "DescribeDBSnapshots": self.describe_snapshots,
            "DescribeOrderableDBInstanceOptions": describe_orderable,
            "ListTagsForResource": self.list_tags,
            "ModifyDBInstance": self.modify,
            "ModifyDBParameterGroup": groups.modify,
            "RebootDBInstance": self.reboot,
            "RemoveTagsFromResource": self.remove_tags,
            "ResetDBParameterGroup": groups.reset,
            "RestoreDBInstanceFromDBSnapshot": self.restore,
            "RestoreDBInstanceToPointInTime": self.restore_at,
            "StartDBInstance": self.start,
            "StopDBInstance": self.stop,
        }
        self._set_out()

    def _set_out(self) -> None:
        self.delay = timedelta(0)
        self.quota = 40  # Amazon RDS quotas, DB instances
        self.failing: dict[str, str] = {}

    def forget(self) -> None:
        """Forget everything, and stop what listens."""
        self.private.close()
        self._regions.clear()
        self._set_out()

    # to look behind the protocol

    def server(self, name: str, region: str = "eu-central-1") -> Data:
        """Return what DescribeDBInstances would tell of a server, to read and to change."""
        return self._region(region).servers[name].data

    def servers(self, region: str = "eu-central-1") -> tuple[str, ...]:
        """Return the names of all servers."""
        return tuple(sorted(self._region(region).servers))

    def password(self, name: str, region: str = "eu-central-1") -> str:
        """Return the administrator's password."""
        return self._region(region).servers[name].password

    def parameter_groups(self, region: str = "eu-central-1") -> dict[str, dict[str, str]]:
        """Return all parameter groups that somebody made, with what is set in them."""
        held = self._region(region).groups
        return {name: dict(group.values) for name, group in held.items() if not name.startswith("default.")}

    def rotate(self, name: str, password: str, region: str = "eu-central-1") -> None:
        """Change the kept password of a server, as AWS does every seven days."""
        self._keep(self._region(region).servers[name], password, region)

    def carry_out(self, name: str, region: str = "eu-central-1") -> None:
        """Carry out what waits for the maintenance window."""
        held = self._region(region)
        self._carry_out(held, held.servers[name])

    # one request

    def answer(self, region: str, body: bytes, forward: Callable[[], Response]) -> Response:
        """Answer a request; leave to moto what is not of servers, snapshots and parameter groups."""
        operation = operation_of(body)
        answering = self._answers.get(operation)
        if answering is None:
            return forward()
        arguments = read("rds", body)
        held = self._region(region)
        self._pass_time(held)
        try:
            return written("rds", operation, answering(held, arguments))
        except Refused as exc:
            return error(exc.code, exc.message, exc.status)

    def refusal(self, operation: str, region: str, body: bytes) -> Response | None:
        """Refuse what EC2 refuses on account of RDS: to delete a security group that a server is in."""
        if operation != "DeleteSecurityGroup":
            return None
        held = self._region(region)
        self._pass_time(held)
        group = dict(parse_qsl(body.decode())).get("GroupId")
        if not any(group == used for server in held.servers.values() for used in security_groups(server.data)):
            return None
        text = f"resource {group} has a dependent object"
        inner = f"<Error><Code>DependencyViolation</Code><Message>{text}</Message></Error>"
        answer = f"<Response><Errors>{inner}</Errors><RequestID>double-request</RequestID></Response>"
        return Response("400 Bad Request", Headers({"Content-Type": "text/xml"}), answer.encode())

    # servers

    def create(self, region: Region, arguments: Arguments) -> Data:
        """CreateDBInstance."""
        engine = arguments["Engine"]
        version = rules.resolved(engine, arguments.get("EngineVersion", ""))
        name = self._check_new(region, arguments["DBInstanceIdentifier"])
        rules.check_class(engine, version, arguments["DBInstanceClass"])
        rules.check_admin(engine, arguments.get("MasterUsername", ""))
        rules.check_password(engine, arguments)
        now = self._now()
        data = self._data(region, name, engine, version)
        data |= {"MasterUsername": arguments["MasterUsername"], "InstanceCreateTime": now}
        if "DBName" in arguments:
            data["DBName"] = arguments["DBName"]
        self._put(region, data, arguments)
        data["StorageEncrypted"] = bool(arguments.get("StorageEncrypted"))
        return self._made(region, data, arguments, arguments.get("MasterUserPassword", ""))

    def describe(self, region: Region, arguments: Arguments) -> Data:
        """DescribeDBInstances."""
        name = arguments.get("DBInstanceIdentifier")
        if name is not None:
            return {"DBInstances": [self._seen(region.server(name))]}
        wanted = filters(arguments)
        engines = wanted.get("engine")
        names = sorted(n for n, server in region.servers.items() if engines is None or server.data["Engine"] in engines)
        shown, marker = page(names, arguments)
        return {"DBInstances": [self._seen(region.servers[found]) for found in shown], **marker}

    def modify(self, region: Region, arguments: Arguments) -> Data:
        """ModifyDBInstance."""
        server = region.server(arguments["DBInstanceIdentifier"])
        data, engine = server.data, server.data["Engine"]
        if server.status not in _CHANGEABLE:
            text = f"Instance is currently {server.status} and cannot be modified."
            raise Refused("InvalidDBInstanceState", text)
        wanted: Data = {name: arguments[name] for name in _CARRIED_OUT if name in arguments}
        if "EnableIAMDatabaseAuthentication" in arguments:
            wanted["IAMDatabaseAuthenticationEnabled"] = arguments["EnableIAMDatabaseAuthentication"]
        wanted = {name: value for name, value in wanted.items() if value != data.get(name)}
        if "EngineVersion" in wanted:
            wanted["EngineVersion"] = self._upgraded(data, wanted["EngineVersion"], arguments)
        rules.check_class(
            engine,
            (data | wanted)["EngineVersion"],
            (data | wanted)["DBInstanceClass"],
        )
        if "AllocatedStorage" in wanted:
            wanted["AllocatedStorage"] = rules.grown(data["AllocatedStorage"], wanted["AllocatedStorage"])
        storage = {**_storage(data), **wanted}
        if "MaxAllocatedStorage" in arguments:
            storage["MaxAllocatedStorage"] = arguments["MaxAllocatedStorage"]
        rules.check_storage(engine, storage)
        _check_backups(wanted)
        group = groups.asked(region, arguments, (data | wanted)["EngineVersion"], data)
        self._set_password(region, server, arguments)
        data |= {name: arguments[name] for name in _AT_ONCE if name in arguments}
        if "VpcSecurityGroupIds" in arguments:
            data["VpcSecurityGroups"] = self._firewalls(region, arguments["VpcSecurityGroupIds"])
        if group is not None and group != group_of(data):
            data["DBParameterGroups"] = [{"DBParameterGroupName": group, "ParameterApplyStatus": "pending-reboot"}]
        if "EngineVersion" in wanted and group is None:
            family = rules.family_of(engine, wanted["EngineVersion"])
            wanted["DBParameterGroups"] = [
                {"DBParameterGroupName": groups.default(region, family), "ParameterApplyStatus": "in-sync"}
            ]
        server.pending |= wanted
        if server.pending and arguments.get("ApplyImmediately"):
            now = self._clock.now()
            server.steps = [
                Step(now + self.delay / 4, "modifying"),
                Step(now + self.delay, "available", lambda: self._carry_out(region, server)),
            ]
        self._pass_time(region)
        return {"DBInstance": self._seen(server)}

    def delete(self, region: Region, arguments: Arguments) -> Data:
        """DeleteDBInstance."""
        server = region.server(arguments["DBInstanceIdentifier"])
        last, skip = arguments.get("FinalDBSnapshotIdentifier"), arguments.get("SkipFinalSnapshot", False)
        if server.data["DeletionProtection"]:
            text = "Cannot delete protected DB Instance, please disable deletion protection and try again."
            raise Refused("InvalidParameterCombination", text)
        if server.status == "deleting":
            raise Refused("InvalidDBInstanceState", "Instance is already being deleted.")
        if skip is (last is not None):
            text = "FinalDBSnapshotIdentifier is required unless SkipFinalSnapshot is specified."
            raise Refused("InvalidParameterCombination", text)
        if last is not None:
            if server.status in {"creating", "failed", "incompatible-network", "incompatible-restore"}:
                text = (
                    f"Cannot create a snapshot because the database instance is currently in the {server.status} state."
                )
                raise Refused("InvalidDBInstanceState", text)
            self._take(region, server, last, [])
        name = server.data["DBInstanceIdentifier"]
        self._begin(region, server, "deleting", _DELETED_AFTER, lambda: self._remove(region, name))
        seen = self._seen(server)
        self._pass_time(region)
        return {"DBInstance": seen}

    def start(self, region: Region, arguments: Arguments) -> Data:
        """StartDBInstance."""
        return self._switched(region, arguments, ("stopped",), "starting", "available")

    def stop(self, region: Region, arguments: Arguments) -> Data:
        """StopDBInstance: for seven days, and then AWS starts it."""
        answer = self._switched(region, arguments, ("available",), "stopping", "stopped")
        server = region.server(arguments["DBInstanceIdentifier"])
        end = self._clock.now() + _LONGEST_STOP
        server.steps += [Step(end, "starting"), Step(end + self.delay, "available")]
        return answer

    def reboot(self, region: Region, arguments: Arguments) -> Data:
        """RebootDBInstance: static parameters count from then on."""
        server = region.server(arguments["DBInstanceIdentifier"])

        def restarted() -> None:
            for group in server.data["DBParameterGroups"]:
                group["ParameterApplyStatus"] = "in-sync"

        return self._switched(region, arguments, ("available",), "rebooting", "available", restarted)

    # snapshots

    def create_snapshot(self, region: Region, arguments: Arguments) -> Data:
        """CreateDBSnapshot."""
        server = region.server(arguments["DBInstanceIdentifier"])
        if server.status not in {"available", "storage-optimization"}:
            text = f"Cannot create a snapshot because the database instance is currently in the {server.status} state."
            raise Refused("InvalidDBInstanceState", text)
        taken = self._take(region, server, arguments["DBSnapshotIdentifier"], arguments.get("Tags", []))
        self._begin(region, server, "backing-up", "available")
        seen = dict(taken.data)
        self._pass_time(region)
        return {"DBSnapshot": seen}

    def describe_snapshots(self, region: Region, arguments: Arguments) -> Data:
        """DescribeDBSnapshots."""
        database, one = arguments.get("DBInstanceIdentifier"), arguments.get("DBSnapshotIdentifier")
        if one is not None:
            taken = region.snapshot(one)
            if database not in {None, taken.data["DBInstanceIdentifier"]}:
                raise Refused("DBSnapshotNotFound", f"DBSnapshot {one} not found.", 404)
            return {"DBSnapshots": [taken.data]}
        engines = filters(arguments).get("engine")
        found = sorted(
            name
            for name, taken in region.snapshots.items()
            if database in {None, taken.data["DBInstanceIdentifier"]}
            and (engines is None or taken.data["Engine"] in engines)
        )
        shown, marker = page(found, arguments)
        return {"DBSnapshots": [region.snapshots[name].data for name in shown], **marker}

    def delete_snapshot(self, region: Region, arguments: Arguments) -> Data:
        """DeleteDBSnapshot."""
        taken = region.snapshot(arguments["DBSnapshotIdentifier"])
        if taken.data["Status"] != "available" or taken.data["SnapshotType"] != "manual":
            text = (
                f"Cannot delete the snapshot because it is currently in the {taken.data['Status']} state or automated."
            )
            raise Refused("InvalidDBSnapshotState", text)
        del region.snapshots[taken.data["DBSnapshotIdentifier"]]
        return {"DBSnapshot": {**taken.data, "Status": "deleted"}}

    def restore(self, region: Region, arguments: Arguments) -> Data:
        """RestoreDBInstanceFromDBSnapshot."""
        name = self._check_new(region, arguments["DBInstanceIdentifier"])
        taken = region.snapshot(arguments["DBSnapshotIdentifier"])
        if taken.data["Status"] != "available":
            text = f"Cannot restore the snapshot because it is currently in the {taken.data['Status']} state."
            raise Refused("InvalidDBSnapshotState", text)
        return self._restored(region, name, taken.server, taken.password, taken.contents, arguments)

    def restore_at(self, region: Region, arguments: Arguments) -> Data:
        """RestoreDBInstanceToPointInTime; the last five minutes are there at once, what it holds is as of now."""
        name = self._check_new(region, arguments["TargetDBInstanceIdentifier"])
        source = region.server(arguments["SourceDBInstanceIdentifier"])
        if not source.data["BackupRetentionPeriod"]:
            text = "Point in time restore is not enabled for this instance: its backup retention period is 0."
            raise Refused("PointInTimeRestoreNotEnabled", text)
        when, earliest = arguments.get("RestoreTime") or self._clock.now(), self._earliest(source)
        if not earliest <= when <= self._clock.now():
            text = f"The specified instance cannot be restored to {when}: it can from {earliest} on."
            raise Refused("InvalidParameterValue", text)
        contents = self.private.dump(key_of(region, source.data))
        return self._restored(region, name, source.data, source.password, contents, arguments)

    def describe_automated_backups(self, region: Region, arguments: Arguments) -> Data:
        """DescribeDBInstanceAutomatedBackups; none stay when a server is deleted."""
        wanted = {
            key: arguments[name]
            for name, key in (("DbiResourceId", "DbiResourceId"), ("DBInstanceIdentifier", "DBInstanceIdentifier"))
            if name in arguments
        }
        found = [
            server
            for _, server in sorted(region.servers.items())
            if server.data["BackupRetentionPeriod"] and wanted.items() <= server.data.items()
        ]
        shown, marker = page([self._backed_up(region, server) for server in found], arguments)
        return {"DBInstanceAutomatedBackups": shown, **marker}

    def _backed_up(self, region: Region, server: Server) -> Data:
        data = server.data
        told = ("AllocatedStorage", "BackupRetentionPeriod", "DbiResourceId", "DBInstanceArn", "DBInstanceIdentifier")
        more: Data = {"Status": "creating"}
        if _is_backed_up(server):
            window = {"EarliestTime": self._earliest(server), "LatestTime": self._now()}
            more = {"Status": "active", "RestoreWindow": window}
        same = {name: data[name] for name in (*told, "Engine", "EngineVersion", "InstanceCreateTime", "StorageType")}
        return {**same, **more, "Region": region.name, "Encrypted": data["StorageEncrypted"]}

    def _earliest(self, server: Server) -> datetime:
        """Return the earliest time that can be restored."""
        days = timedelta(days=server.data["BackupRetentionPeriod"])
        return max(cast("datetime", server.data["InstanceCreateTime"]), self._now() - days)

    # tags

    def list_tags(self, region: Region, arguments: Arguments) -> Data:
        """ListTagsForResource."""
        return {"TagList": region.tags(arguments["ResourceName"])}

    def add_tags(self, region: Region, arguments: Arguments) -> Data:
        """AddTagsToResource."""
        held = region.tags(arguments["ResourceName"])
        added = {tag["Key"]: tag for tag in (*held, *arguments["Tags"])}
        _check_tags(list(added.values()))
        held[:] = added.values()
        return {}

    def remove_tags(self, region: Region, arguments: Arguments) -> Data:
        """RemoveTagsFromResource."""
        held = region.tags(arguments["ResourceName"])
        held[:] = [tag for tag in held if tag["Key"] not in arguments["TagKeys"]]
        return {}

    # the state

    def _region(self, name: str) -> Region:
        return self._regions.setdefault(name, Region(name))

    def _now(self) -> datetime:
        return self._clock.now().replace(microsecond=0)  # as the answers tell times

    def _pass_time(self, region: Region) -> None:
        """Carry out the steps whose time has come."""
        now = self._clock.now()
        for server in list(region.servers.values()):
            while server.steps and server.steps[0].at <= now:
                step = server.steps.pop(0)
                server.data["DBInstanceStatus"] = step.status
                self.private.switch(key_of(region, server.data), on=step.status in _LISTENING)
                if step.then is not None:
                    step.then()
        for taken in list(region.snapshots.values()):
            while taken.steps and taken.steps[0].at <= now:
                taken.data["Status"] = taken.steps.pop(0).status

    def _begin(
        self, region: Region, server: Server, status: str, end: str, then: Callable[[], None] | None = None
    ) -> None:
        server.data["DBInstanceStatus"] = status
        self.private.switch(key_of(region, server.data), on=status in _LISTENING)
        server.steps = [Step(self._clock.now() + self.delay, end, then)]

    def _remove(self, region: Region, name: str) -> None:
        self.private.shut(key_of(region, region.servers[name].data))
        del region.servers[name]
        for taken in [taken for taken in region.snapshots.values() if taken.data["SnapshotType"] == "automated"]:
            if taken.data["DBInstanceIdentifier"] == name:
                del region.snapshots[taken.data["DBSnapshotIdentifier"]]

    def _check_new(self, region: Region, name: str) -> str:
        rules.check_name(name, "DBInstanceIdentifier", 63)
        if name.lower() in region.servers:
            raise Refused("DBInstanceAlreadyExists", "DB instance already exists")
        if len(region.servers) >= self.quota:
            raise Refused("InstanceQuotaExceeded", "You have reached the maximum number of DB instances.")
        return name.lower()

    def _data(self, region: Region, name: str, engine: str, version: str) -> Data:
        """Return what is alike of all new servers."""
        vpc = self._ec2(region).get_default_vpc()
        known = get_backend("rds")[DEFAULT_ACCOUNT_ID][region.name]
        if vpc and "default" not in known.subnet_groups:  # made with the first server
            known.create_subnet_group("default", "default", list(self._ec2(region).get_default_subnets().values()), [])
        return {
            "DBInstanceIdentifier": name,
            "DbiResourceId": f"db-{secrets.token_hex(13).upper()}",
            "DBInstanceArn": f"arn:aws:rds:{region.name}:{DEFAULT_ACCOUNT_ID}:db:{name}",
            "DBInstanceStatus": "creating",
            "Engine": engine,
            "EngineVersion": version,
            "DBSubnetGroup": {"DBSubnetGroupName": "default", "VpcId": vpc.id if vpc else ""},
            "BackupRetentionPeriod": 1,
            "MultiAZ": False,
            "PubliclyAccessible": False,
            "DeletionProtection": False,
            "IAMDatabaseAuthenticationEnabled": False,
            "AutoMinorVersionUpgrade": True,
            "CACertificateIdentifier": "rds-ca-rsa2048-g1",
            "PreferredBackupWindow": "02:10-02:40",
            "PreferredMaintenanceWindow": "sun:04:10-sun:04:40",
            "TagList": [],
        }

    def _put(self, region: Region, data: Data, arguments: Arguments) -> None:
        """Set what a request declares of a new server, after checking it."""
        subnets = arguments.get("DBSubnetGroupName")
        if subnets is not None and subnets != "default":
            found = get_backend("rds")[DEFAULT_ACCOUNT_ID][region.name].subnet_groups.get(subnets)
            if found is None:
                raise Refused("DBSubnetGroupNotFoundFault", f"DB subnet group '{subnets}' does not exist.", 404)
            data["DBSubnetGroup"] = {"DBSubnetGroupName": subnets, "VpcId": found.vpc_id}
        group = groups.asked(region, arguments, data["EngineVersion"], data)
        family = rules.family_of(data["Engine"], data["EngineVersion"])
        chosen = group or groups.default(region, family)
        data["DBParameterGroups"] = [{"DBParameterGroupName": chosen, "ParameterApplyStatus": "in-sync"}]
        ids = arguments.get("VpcSecurityGroupIds") or self._default_firewalls(region, data)
        data["VpcSecurityGroups"] = self._firewalls(region, ids)
        for name in (
            *_AT_ONCE,
            *_CARRIED_OUT,
            "CACertificateIdentifier",
            "PreferredBackupWindow",
            "PreferredMaintenanceWindow",
        ):
            if name in arguments and name != "EngineVersion":
                data[name] = arguments[name]
        data["IAMDatabaseAuthenticationEnabled"] = bool(arguments.get("EnableIAMDatabaseAuthentication"))
        data["DbInstancePort"] = arguments.get("Port") or _PORTS[data["Engine"]]
        rules.check_storage(data["Engine"], data)
        if data.get("StorageType") == "gp3" and "Iops" not in data:
            large = data["AllocatedStorage"] >= 400
            data |= {"Iops": 12_000 if large else 3_000, "StorageThroughput": 500 if large else 125}
        _check_backups(data)
        tags = list(arguments.get("Tags", []))
        _check_tags(tags)
        data["TagList"] = tags

    def _made(
        self, region: Region, data: Data, arguments: Arguments, password: str, contents: str | None = None
    ) -> Data:
        """Add a new server, which takes its time."""
        name = data["DBInstanceIdentifier"]
        server = region.servers[name] = Server(data, password, contents)
        if arguments.get("ManageMasterUserPassword"):
            self._keep(server, secrets.token_urlsafe(24), region.name)
        end = self.failing.get(name, "available")
        now = self._clock.now()
        server.steps = [Step(now + self.delay, end, lambda: self._open(region, server))]
        seen = self._seen(server)
        self._pass_time(region)
        return {"DBInstance": seen}

    def _open(self, region: Region, server: Server) -> None:
        """Give a server its address."""
        data = server.data
        host = f"{data['DBInstanceIdentifier']}.{data['DbiResourceId'][3:15].lower()}.rds.invalid"
        port = data["DbInstancePort"]
        if data["Engine"] == "postgres":

            def parameters() -> dict[str, str]:
                return servers.parameters(region.groups[group_of(data)].values)

            def arrange(cluster: Cluster) -> None:
                servers.arrange(cluster, data, lambda: server.password)

            host, port = self.private.open(key_of(region, data), arrange, parameters=parameters, data=server.contents)
        data["Endpoint"] = {"Address": host, "Port": port, "HostedZoneId": "Z1RLNUO7B9Q6NB"}

    def _restored(
        self, region: Region, name: str, source: Data, password: str, contents: str | None, arguments: Arguments
    ) -> Data:
        """Add a server that is made of another one: with that one's own name, password and version."""
        data = self._data(region, name, source["Engine"], source["EngineVersion"])
        data |= {"MasterUsername": source["MasterUsername"], "InstanceCreateTime": self._now()}
        data["StorageEncrypted"] = source["StorageEncrypted"]
        if "DBName" in source:
            data["DBName"] = source["DBName"]
        given: Data = {
            key: source[key]
            for key in ("DBInstanceClass", "AllocatedStorage", "StorageType", "BackupRetentionPeriod")
            if key in source
        }
        rules.check_class(
            data["Engine"], data["EngineVersion"], arguments.get("DBInstanceClass", given["DBInstanceClass"])
        )
        if arguments.get("AllocatedStorage", given["AllocatedStorage"]) < given["AllocatedStorage"]:
            raise Refused("InvalidParameterCombination", "The allocated storage is less than that of the source.")
        self._put(region, data, {**given, **arguments})
        return self._made(region, data, arguments, password, contents)

    def _seen(self, server: Server) -> Data:
        """Return what DescribeDBInstances tells."""
        pending = {key: value for key, value in server.pending.items() if key != "DBParameterGroups"}
        if "MasterUserPassword" in pending:
            pending["MasterUserPassword"] = "****"  # as AWS writes it
        latest = {"LatestRestorableTime": self._now()} if _is_backed_up(server) else {}
        return {**server.data, **latest, "PendingModifiedValues": pending}

    def _carry_out(self, region: Region, server: Server) -> None:
        server.data |= {name: value for name, value in server.pending.items() if name != "MasterUserPassword"}
        if "MasterUserPassword" in server.pending:
            server.password = server.pending["MasterUserPassword"]
            self.private.rearrange(key_of(region, server.data))
        if server.data["AllocatedStorage"] >= 400 and server.data.get("StorageType") == "gp3":
            server.data["Iops"] = max(server.data.get("Iops") or 0, 12_000)
        server.pending.clear()

    def _upgraded(self, data: Data, version: str, arguments: Arguments) -> str:
        """Return the version that a server is to have, if it can have it."""
        wanted = rules.resolved(data["Engine"], version)
        numbers = [[int(number) for number in name.split(".")] for name in (data["EngineVersion"], wanted)]
        if numbers[1] < numbers[0]:
            text = f"Cannot upgrade {data['Engine']} from {data['EngineVersion']} to {wanted}"
            raise Refused("InvalidParameterCombination", text)
        if rules.family_of(data["Engine"], wanted) != rules.family_of(data["Engine"], data["EngineVersion"]):
            if not arguments.get("AllowMajorVersionUpgrade"):
                text = "The AllowMajorVersionUpgrade flag must be present when upgrading to a new major version."
                raise Refused("InvalidParameterCombination", text)
            if "DBParameterGroupName" not in arguments and not group_of(data).startswith("default."):
                text = "The current DB instance parameter group is custom. You must specify one of the new family."
                raise Refused("InvalidParameterCombination", text)
        return wanted

    def _set_password(self, region: Region, server: Server, arguments: Arguments) -> None:
        manage, given = arguments.get("ManageMasterUserPassword"), arguments.get("MasterUserPassword")
        kept = "MasterUserSecret" in server.data
        if arguments.get("RotateMasterUserPassword"):
            if not kept:
                text = "You can't rotate the master user password: it is not managed in Secrets Manager."
                raise Refused("InvalidParameterCombination", text)
            self._keep(server, secrets.token_urlsafe(24), region.name)
        elif manage:
            rules.check_password(server.data["Engine"], arguments)
            self._keep(server, secrets.token_urlsafe(24), region.name)
        elif given is not None:
            if kept and manage is None:
                text = "You can't specify MasterUserPassword for an instance with ManageMasterUserPassword enabled."
                raise Refused("InvalidParameterCombination", text)
            rules.check_password(server.data["Engine"], arguments)
            if kept:
                del server.data["MasterUserSecret"]
            server.pending["MasterUserPassword"] = given

    def _keep(self, server: Server, password: str, region: str) -> None:
        """Keep a password in Secrets Manager."""
        server.password = password
        self.private.rearrange(key_of(self._region(region), server.data))
        text = json.dumps({"username": server.data["MasterUsername"], "password": password})
        backend: Any = get_backend("secretsmanager")[DEFAULT_ACCOUNT_ID][region]
        kept = server.data.get("MasterUserSecret")
        if kept is None:
            name = f"rds!db-{uuid.uuid4()}"
            made = backend.create_managed_secret("rds", name, secret_string=text, tags=[])
            server.data["MasterUserSecret"] = {"SecretArn": made.arn, "SecretStatus": "active"}
        else:
            backend.put_secret_value(kept["SecretArn"], text, None, str(uuid.uuid4()), ["AWSCURRENT"])

    def _switched(
        self,
        region: Region,
        arguments: Arguments,
        allowed: tuple[str, ...],
        status: str,
        end: str,
        then: Callable[[], None] | None = None,
    ) -> Data:
        server = region.server(arguments["DBInstanceIdentifier"])
        if server.status not in allowed:
            text = f"Instance {server.data['DBInstanceIdentifier']} is not in {' or '.join(allowed)} state."
            raise Refused("InvalidDBInstanceState", text)
        self._begin(region, server, status, end, then)
        seen = self._seen(server)
        self._pass_time(region)
        return {"DBInstance": seen}

    def _take(self, region: Region, server: Server, name: str, tags: list[Data]) -> Taken:
        rules.check_name(name, "DBSnapshotIdentifier", 255)
        if name.lower() in region.snapshots:
            text = f"Cannot create the snapshot because a snapshot with the identifier {name} already exists."
            raise Refused("DBSnapshotAlreadyExists", text)
        data = server.data
        copied = (
            "DBInstanceIdentifier",
            "Engine",
            "EngineVersion",
            "AllocatedStorage",
            "DbiResourceId",
            "MasterUsername",
        )
        taken = {key: data[key] for key in copied}
        taken |= {"DBSnapshotIdentifier": name.lower(), "Status": "creating", "SnapshotType": "manual"}
        taken |= {"SnapshotCreateTime": self._now(), "TagList": list(tags)}
        taken["DBSnapshotArn"] = f"arn:aws:rds:{region.name}:{DEFAULT_ACCOUNT_ID}:snapshot:{name.lower()}"
        step = Step(self._clock.now() + self.delay, "available")
        made = region.snapshots[name.lower()] = Taken(
            taken, dict(data), server.password, self.private.dump(key_of(region, data)), [step]
        )
        return made

    # security groups

    def _ec2(self, region: Region) -> Any:  # noqa: ANN401  moto has no types
        return get_backend("ec2")[DEFAULT_ACCOUNT_ID][region.name]

    def _firewalls(self, region: Region, ids: list[str]) -> list[Data]:
        for id_ in ids:
            if self._ec2(region).get_security_group_from_id(id_) is None:
                raise Refused("InvalidParameterValue", f"Invalid security group , groupId= {id_}, groupName=.")
        return [{"VpcSecurityGroupId": id_, "Status": "active"} for id_ in ids]

    def _default_firewalls(self, region: Region, data: Data) -> list[str]:
        vpc = data["DBSubnetGroup"]["VpcId"]
        found = self._ec2(region).groups.get(vpc, {}).values()
        return [group.id for group in found if group.name == "default"]


def describe_versions(_region: Region, arguments: Arguments) -> Data:
    """DescribeDBEngineVersions."""
    engine, wanted = arguments.get("Engine"), arguments.get("EngineVersion")
    engines = [engine] if engine is not None else sorted(rules.FAMILIES)
    found = [
        {"Engine": name, "EngineVersion": version, "DBParameterGroupFamily": family, "Status": "available"}
        for name in engines
        for version, family in rules.versions(name)
        if wanted is None or f"{version}.".startswith(f"{wanted}.")
    ]
    shown, marker = page(found, arguments)
    return {"DBEngineVersions": shown, **marker}


def describe_orderable(_region: Region, arguments: Arguments) -> Data:
    """DescribeOrderableDBInstanceOptions."""
    engine, version, one = arguments["Engine"], arguments.get("EngineVersion"), arguments.get("DBInstanceClass")
    versions = [name for name, _ in rules.versions(engine) if version in {None, name}]
    found = [
        option
        for name in versions
        for option in rules.options(engine, name)
        if one in {None, option["DBInstanceClass"]}
    ]
    shown, marker = page(found, arguments)
    return {"OrderableDBInstanceOptions": shown, **marker}


def error(code: str, message: str, status: int) -> Response:
    """Answer as services with the query protocol do."""
    inner = f"<Type>Sender</Type><Code>{code}</Code><Message>{escape(message)}</Message>"
    request = "<RequestId>double-request</RequestId>"
    body = f'<ErrorResponse xmlns="{_NAMESPACE}"><Error>{inner}</Error>{request}</ErrorResponse>'
    headers = Headers({"Content-Type": "text/xml", "x-amzn-RequestId": "double-request"})
    return Response({400: "400 Bad Request", 404: "404 Not Found"}[status], headers, body.encode())


def _is_backed_up(server: Server) -> bool:
    """Tell whether there is a backup of a server: the first is made when it is."""
    return bool(server.data["BackupRetentionPeriod"]) and "Endpoint" in server.data


def _check_backups(data: Arguments) -> None:
    if not 0 <= data.get("BackupRetentionPeriod", 0) <= rules.MAX_BACKUP_DAYS:
        text = f"Invalid backup retention period: {data['BackupRetentionPeriod']}. Must be between 0 and 35"
        raise Refused("InvalidParameterValue", text)


def _check_tags(tags: list[Data]) -> None:
    if len(tags) > _MAX_TAGS:
        raise Refused("InvalidParameterValue", f"A resource can have at most {_MAX_TAGS} tags.")
    if any(tag["Key"].lower().startswith("aws:") for tag in tags):
        raise Refused("InvalidParameterValue", "Tag keys can't begin with aws:.")


def _storage(data: Data) -> Data:
    kept = ("StorageType", "AllocatedStorage", "MaxAllocatedStorage")
    found = {name: data[name] for name in kept if name in data}
    return found | ({"Iops": data["Iops"]} if data.get("StorageType") in {"io1", "io2"} else {})

"""What Amazon EC2 does and moto 5.2 does not: machines that take their time, and a service that says no.

moto's machines run at once, whatever their image, type, disk or network; a client token makes a second one; nothing is
in use, nothing is the wrong state; it knows no image of Debian and no placement group. So machines, disks, snapshots,
images, placement groups and types are answered here, from a state of this module's own, read and written by botocore's
model of the service. Networks, security groups, key pairs and all else stay moto's.

Not here: elastic addresses, further interfaces, fleets and requests of spot machines, launch templates, hibernation.
"""

from __future__ import annotations

import base64
import itertools
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from ipaddress import ip_network
from typing import Any
from xml.sax.saxutils import escape

from moto.backends import get_backend
from moto.core.models import DEFAULT_ACCOUNT_ID

from shiftable.testing.harness import Clock, Headers, Response
from shiftable_aws import _strict_ec2_rules as rules
from shiftable_aws._strict_ec2_disks import Disks, fingerprint
from shiftable_aws._strict_ec2_imports import Imports
from shiftable_aws._strict_ec2_state import Arguments, Asked, Data, Machine, Region, page
from shiftable_aws._strict_query import operation_of, read, written
from shiftable_aws._strict_refused import Refused

__all__ = ["StrictEc2"]

_TOLD_AFTER_END = timedelta(hours=1)  # user guide, "Terminate Amazon EC2 instances"
_TOKEN_AFTER_END = timedelta(days=1)  # API reference, "Ensuring idempotency"
_GROUP_NAME = re.compile(r"[A-Za-z0-9 ._\-:/()#,@\[\]+=&;{}!$*]{1,255}")
_TOPMOST = ("SecurityGroupIds", "SecurityGroups", "SubnetId", "PrivateIpAddress")


class StrictEc2:
    """Stands in front of moto and answers for machines. Not for use from several threads at once.

    Attributes:
        delay: how long everything takes, by the double's clock, that takes minutes at AWS.
        unseen: how long nobody is told of a new machine.
        quota: vCPUs of all machines that run on demand in a region.
        spot_quota: of those that run as spot.
        failing: reasons why machines of these names end while they are made: ``{"web-0": "Client.InternalError: …"}``.
        full: zones and types without capacity.
        page_size: how many entries one answer has at most.
        returns_ended: answer a token whose machine is gone with that machine, as EC2 did before 2025.
        disks: how long disks, snapshots and images take: ``disks.delay``.
        imports: how long imports of snapshots take: ``imports.delay``.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._regions: dict[str, Region] = {}
        self._addresses = itertools.count(1)
        self.disks = Disks(clock)
        self.imports = Imports(clock)
        self._set_out()

    def _set_out(self) -> None:
        self.delay = timedelta(0)
        self.unseen = timedelta(0)
        self.quota = 2_000
        self.spot_quota = 2_000
        self.failing: dict[str, str] = {}
        self.full: set[str] = set()
        self.returns_ended = False
        self.page_size = 1000
        self.disks.delay = timedelta(0)
        self.disks.page_size = 1000
        self.imports.delay = self.imports.unseen = timedelta(0)

    def forget(self) -> None:
        """Forget everything."""
        self._regions.clear()
        self._set_out()

    # to look behind the protocol

    def machines(self, region: str = "eu-central-1") -> dict[str, Data]:
        """Return what DescribeInstances would tell of all machines that are not gone, by id, to read and to change."""
        held = self._region(region)
        return {id_: machine.data for id_, machine in held.machines.items() if not machine.is_gone}

    def user_data(self, id_: str, region: str = "eu-central-1") -> bytes:
        """Return what cloud-init of a machine got."""
        return self._region(region).machines[id_].user_data

    def volumes(self, region: str = "eu-central-1") -> dict[str, Data]:
        """Return all disks, by id."""
        return self._region(region).volumes

    def interfaces(self, region: str = "eu-central-1") -> dict[str, Data]:
        """Return the network interfaces of all machines that are not gone, by id."""
        cards = (card for data in self.machines(region).values() for card in data["NetworkInterfaces"])
        return {card["NetworkInterfaceId"]: card for card in cards}

    def snapshots(self, region: str = "eu-central-1") -> dict[str, Data]:
        """Return all snapshots, by id."""
        return self._region(region).snapshots

    def images(self, region: str = "eu-central-1") -> dict[str, Data]:
        """Return the account's images, by id."""
        return self._region(region).images

    def import_tasks(self, region: str = "eu-central-1") -> dict[str, Data]:
        """Return all tasks that import snapshots, by id."""
        return self._region(region).imports

    def placement_groups(self, region: str = "eu-central-1") -> dict[str, Data]:
        """Return all placement groups, by name."""
        return self._region(region).placement_groups

    def reclaim(self, id_: str, region: str = "eu-central-1") -> None:
        """Take a spot machine away."""
        held = self._region(region)
        self._end(held, held.machines[id_], "Server.SpotInstanceTermination: Spot instance termination")

    def protect(self, id_: str, region: str = "eu-central-1") -> None:
        """Protect a machine from being terminated."""
        self._region(region).machines[id_].is_protected = True

    # one request

    def answer(self, region: str, body: bytes, forward: Callable[[], Response]) -> Response:
        """Answer a request; leave to moto what is not of machines and disks."""
        operation = operation_of(body)
        answering = _ANSWERS.get(operation)
        if answering is None:
            return forward()
        arguments = read("ec2", body)
        held = self._region(region)
        try:
            answer = answering(self, held, arguments)
        except Refused as exc:
            return error(exc.code, exc.message, exc.status)
        return forward() if answer is None else written("ec2", operation, answer)

    # machines

    def run(self, region: Region, arguments: Arguments) -> Data:
        """RunInstances."""
        token, zone = arguments.get("ClientToken", ""), self._asked_zone(region, arguments)
        what = fingerprint(arguments)
        key = ("machine", token, zone or "")  # API reference: where a zone is told, tokens are of that zone
        asked = region.asked.get(key) if token else None
        if asked is not None and asked.until is not None and asked.until < self._clock.now():
            del region.asked[key]
            asked = None
        if asked is not None:
            return self._repeated(region, asked, what)
        made = self._made(region, arguments, zone)
        if token:
            region.asked[key] = Asked(what, tuple(machine.id for machine in made))
        answer = self._reservation(region, made)
        region.pass_time(self._clock.now())
        return answer

    def _repeated(self, region: Region, asked: Asked, what: str) -> Data:
        if asked.what != what:
            text = "Arguments on this idempotent request are inconsistent with arguments used in previous request(s)."
            raise Refused("IdempotentParameterMismatch", text)
        if asked.until is not None and not self.returns_ended:
            text = "The client token you have provided is associated with a terminated instance."
            raise Refused("IdempotentInstanceTerminated", f"{text} Please use a different client token.")
        found = [region.machines[id_] for id_ in asked.made if id_ in region.machines]
        return self._reservation(region, found)

    def _made(self, region: Region, arguments: Arguments, zone: str | None) -> list[Machine]:
        wanted = arguments["MaxCount"]
        image = self.disks.image(region, arguments["ImageId"])
        kind = rules.kind_of(region.name, arguments.get("InstanceType", "m1.small"))
        rules.check_arch(kind, image["Architecture"])
        rules.check_virtualization(kind, image)
        subnet, groups = self._network(region, arguments, zone, kind["InstanceType"])
        user_data = rules.user_data(arguments.get("UserData", ""))
        spot = arguments.get("InstanceMarketOptions", {}).get("MarketType") == "spot"
        self._check_options(region, arguments, kind, spot=spot)
        self._check_room(region, kind, wanted, spot=spot)
        if self.full & {subnet.availability_zone, kind["InstanceType"]}:
            text = f"We currently do not have sufficient {kind['InstanceType']} capacity in the Availability Zone"
            raise Refused("InsufficientInstanceCapacity", f"{text} you requested ({subnet.availability_zone}).", 500)
        reservation = region.id("r")
        disks = self._disks_of(image, arguments)
        tags = rules.tags_for(arguments, "instance")
        return [
            self._machine(region, arguments, image, kind, subnet, groups, disks, tags, user_data, reservation)
            for _ in range(wanted)
        ]

    def _machine(
        self,
        region: Region,
        arguments: Arguments,
        image: Data,
        kind: Data,
        subnet: Any,  # noqa: ANN401  moto's have no types
        groups: list[Any],
        disks: list[Data],
        tags: list[Data],
        user_data: bytes,
        reservation: str,
    ) -> Machine:
        now, id_ = self._clock.now(), region.id("i")
        interface: Data = next(iter(arguments.get("NetworkInterfaces", ())), {})
        public = interface.get("AssociatePublicIpAddress", subnet.map_public_ip_on_launch)
        shown = [{"GroupId": group.id, "GroupName": group.name} for group in groups]
        address = _address(subnet.cidr_block, next(self._addresses))
        vcpu = kind["VCpuInfo"]
        data: Data = {
            "InstanceId": id_,
            "ImageId": arguments["ImageId"],
            "InstanceType": kind["InstanceType"],
            "LaunchTime": now,
            "Placement": {
                "AvailabilityZone": subnet.availability_zone,
                "Tenancy": arguments.get("Placement", {}).get("Tenancy", "default"),
                "GroupName": arguments.get("Placement", {}).get("GroupName", ""),
            },
            "PrivateIpAddress": address,
            "SubnetId": subnet.id,
            "VpcId": subnet.vpc_id,
            "Architecture": image["Architecture"],
            "RootDeviceName": image["RootDeviceName"],
            "RootDeviceType": "ebs",
            "BlockDeviceMappings": [],
            "SecurityGroups": shown,
            "NetworkInterfaces": [
                {
                    "NetworkInterfaceId": region.id("eni"),
                    "Tags": rules.tags_for(arguments, "network-interface"),  # told to nobody: see `interfaces`
                    "PrivateIpAddress": address,
                    "SubnetId": subnet.id,
                    "VpcId": subnet.vpc_id,
                    "Groups": shown,
                    "Attachment": {
                        "AttachTime": now,
                        "DeviceIndex": 0,
                        "Status": "attached",
                        "DeleteOnTermination": arguments.get("NetworkInterfaces", [{}])[0].get(
                            "DeleteOnTermination", True
                        ),
                    },
                }
            ],
            "MetadataOptions": {
                "State": "applied",
                "HttpTokens": "optional",
                "HttpEndpoint": "enabled",
                "HttpPutResponseHopLimit": 1,
                **arguments.get("MetadataOptions", {}),
            },
            "CpuOptions": {"CoreCount": vcpu["DefaultCores"], "ThreadsPerCore": vcpu["DefaultThreadsPerCore"]},
            "ClientToken": arguments.get("ClientToken", ""),
            "Tags": tags,
            "asks_public": public,  # of this double alone; told to nobody
        }
        if "KeyName" in arguments:
            data["KeyName"] = arguments["KeyName"]
        if "IamInstanceProfile" in arguments:
            data["IamInstanceProfile"] = {"Arn": self._profile(arguments["IamInstanceProfile"]).arn}
        if arguments.get("InstanceMarketOptions", {}).get("MarketType") == "spot":
            data |= {"InstanceLifecycle": "spot", "SpotInstanceRequestId": region.id("sir")}
        machine = Machine(data, next(region.numbers), reservation, now, now + self.unseen, user_data)
        region.machines[id_] = machine
        for disk in disks:
            volume = self.disks.add(region, subnet.availability_zone, disk)
            volume["Tags"] = rules.tags_for(arguments, "volume")
            self.disks.hold(volume, machine, disk["device"], deleted=disk.get("DeleteOnTermination", True))
        self._begin(region, machine, "pending", self._come_up)
        return machine

    def _come_up(self, region: Region, machine: Machine) -> None:
        reason = self.failing.get(machine.name)
        if reason is not None:
            self._end(region, machine, reason)
            return
        machine.state = "running"

    def describe(self, region: Region, arguments: Arguments) -> Data:
        """DescribeInstances."""
        now, ids = self._clock.now(), arguments.get("InstanceIds")
        if ids is not None and "MaxResults" in arguments:
            text = "The parameter instancesSet cannot be used with the parameter maxResults"
            raise Refused("InvalidParameterCombination", text)
        for id_ in ids or ():
            rules.check_id("i", id_)
            region.machine(id_, now)
        found = [
            machine
            for machine in sorted(region.machines.values(), key=lambda machine: machine.number)
            if (ids is None or machine.id in ids)
            and machine.seen <= now
            and rules.fits(_values(machine), machine.data["Tags"], arguments.get("Filters", ()))
        ]
        shown, more = page(found, arguments, (5, 1000), self.page_size)
        held = itertools.groupby(shown, key=lambda machine: machine.reservation)
        return {"Reservations": [self._reservation(region, list(machines)) for _, machines in held], **more}

    def terminate(self, region: Region, arguments: Arguments) -> Data:
        """TerminateInstances."""
        machines = self._named(region, arguments)
        for machine in machines:
            if machine.is_protected:
                text = (
                    f"The instance '{machine.id}' may not be terminated. Modify its 'disableApiTermination' attribute"
                )
                raise Refused("OperationNotPermitted", f"{text} and try again.")
        for machine in machines:
            if machine.state not in {"shutting-down", "terminated"}:
                machine.data["StateReason"] = _reason("Client.UserInitiatedShutdown: User initiated shutdown")
                self._begin(region, machine, "shutting-down", self._gone)
        return self._changed(region, machines, "TerminatingInstances")

    def start(self, region: Region, arguments: Arguments) -> Data:
        """StartInstances."""
        machines = self._named(region, arguments)
        for machine in machines:
            _check_state(machine, {"stopped", "running", "pending"}, "started")
        for machine in machines:
            if machine.state == "stopped":
                self._check_room(region, rules.kind_of(region.name, machine.data["InstanceType"]), 1, spot=False)
                machine.data["LaunchTime"] = self._clock.now()
                self._begin(region, machine, "pending", self._come_up)
        return self._changed(region, machines, "StartingInstances")

    def stop(self, region: Region, arguments: Arguments) -> Data:
        """StopInstances."""
        machines = self._named(region, arguments)
        for machine in machines:
            if "SpotInstanceRequestId" in machine.data:
                text = f"You can't stop the Spot Instance '{machine.id}' because it is associated with a one-time Spot"
                raise Refused("UnsupportedOperation", f"{text} Instance request.")
            _check_state(machine, {"running", "stopping", "stopped"}, "stopped")
        for machine in machines:
            if machine.state == "running":
                self._begin(region, machine, "stopping", lambda _, stopping: setattr(stopping, "state", "stopped"))
        return self._changed(region, machines, "StoppingInstances")

    def reboot(self, region: Region, arguments: Arguments) -> Data:
        """RebootInstances: the state does not tell of it, and one that is gone is passed over."""
        for machine in self._named(region, arguments):
            if not machine.is_gone:
                _check_state(machine, {"running"}, "rebooted")
                machine.console.append("[reboot]")
        return {}

    def modify(self, region: Region, arguments: Arguments) -> Data:
        """ModifyInstanceAttribute: of the type and the protection."""
        (machine,) = self._named(region, {"InstanceIds": [arguments["InstanceId"]]})
        if "DisableApiTermination" in arguments:
            machine.is_protected = bool(arguments["DisableApiTermination"]["Value"])
        if "InstanceType" in arguments:
            kind = rules.kind_of(region.name, arguments["InstanceType"]["Value"])
            if machine.state != "stopped":
                text = f"The instance '{machine.id}' is not in the 'stopped' state."
                raise Refused("IncorrectInstanceState", text)
            rules.check_arch(kind, machine.data["Architecture"])
            machine.data["InstanceType"] = kind["InstanceType"]
        return {}

    def attribute(self, region: Region, arguments: Arguments) -> Data:
        """DescribeInstanceAttribute: user data, type, protection."""
        (machine,) = self._named(region, {"InstanceIds": [arguments["InstanceId"]]})
        found: dict[str, Data] = {
            "userData": {"UserData": {"Value": base64.b64encode(machine.user_data).decode()}},
            "instanceType": {"InstanceType": {"Value": machine.data["InstanceType"]}},
            "disableApiTermination": {"DisableApiTermination": {"Value": machine.is_protected}},
        }
        name = arguments["Attribute"]
        if name not in found:
            raise Refused("InvalidParameterValue", f"Value ({name}) for parameter attribute is invalid.")
        return {"InstanceId": machine.id, **found[name]}

    def console(self, region: Region, arguments: Arguments) -> Data:
        """GetConsoleOutput."""
        (machine,) = self._named(region, {"InstanceIds": [arguments["InstanceId"]]})
        kind = rules.kind_of(region.name, machine.data["InstanceType"])
        if arguments.get("Latest") and kind.get("Hypervisor") != "nitro":
            raise Refused("UnsupportedOperation", "This instance type does not support retrieving the latest console")
        text = "".join(f"{line}\r\n" for line in machine.console).encode()
        told = base64.b64encode(text).decode()
        return {"InstanceId": machine.id, "Output": told, "Timestamp": self._clock.now()}

    # disks

    def attach(self, region: Region, arguments: Arguments) -> Data:
        """AttachVolume."""
        (machine,) = self._named(region, {"InstanceIds": [arguments["InstanceId"]]})
        return self.disks.attach(region, arguments, machine)

    def create_image(self, region: Region, arguments: Arguments) -> Data:
        """CreateImage."""
        (machine,) = self._named(region, {"InstanceIds": [arguments["InstanceId"]]})
        if not arguments.get("NoReboot"):
            machine.console.append("[reboot]")
        return self.disks.create_image(region, arguments, machine)

    # groups

    def create_group(self, _region: Region, arguments: Arguments) -> Data | None:
        """CreateSecurityGroup: moto takes any name."""
        for key in ("GroupName", "Description"):
            if not _GROUP_NAME.fullmatch(arguments.get(key, "")):
                text = f"Value ({arguments.get(key, '')}) for parameter {key} is invalid. Character sets beyond ASCII"
                raise Refused("InvalidParameterValue", f"{text} are not supported.")
        return None

    def delete_group(self, region: Region, arguments: Arguments) -> Data | None:
        """DeleteSecurityGroup: not one that a machine is in."""
        id_ = arguments.get("GroupId")
        for machine in region.machines.values():
            if not machine.is_gone and any(group["GroupId"] == id_ for group in machine.data["SecurityGroups"]):
                raise Refused("DependencyViolation", f"resource {id_} has a dependent object")
        return None

    def delete_subnet(self, region: Region, arguments: Arguments) -> Data | None:
        """DeleteSubnet: not one that a machine is in."""
        id_ = arguments["SubnetId"]
        if any(not machine.is_gone and machine.data["SubnetId"] == id_ for machine in region.machines.values()):
            text = f"The subnet '{id_}' has dependencies and cannot be deleted."
            raise Refused("DependencyViolation", text)
        return None

    def create_placement_group(self, region: Region, arguments: Arguments) -> Data:
        """CreatePlacementGroup."""
        name = arguments["GroupName"]
        if name in region.placement_groups:
            raise Refused("InvalidPlacementGroup.Duplicate", f"The placement group '{name}' already exists.")
        made: Data = {"GroupName": name, "GroupId": region.id("pg"), "Strategy": arguments["Strategy"]}
        made |= {"State": "available", "Tags": rules.tags_for(arguments, "placement-group")}
        region.placement_groups[name] = made
        return {"PlacementGroup": made}

    def describe_placement_groups(self, region: Region, arguments: Arguments) -> Data:
        """DescribePlacementGroups."""
        filters = arguments.get("Filters", ())
        every = region.placement_groups.values()
        found = [g for g in every if rules.fits({"group-name": [g["GroupName"]]}, g["Tags"], filters)]
        return {"PlacementGroups": found}

    def delete_placement_group(self, region: Region, arguments: Arguments) -> Data:
        """DeletePlacementGroup."""
        name = arguments["GroupName"]
        if name not in region.placement_groups:
            raise Refused("InvalidPlacementGroup.Unknown", f"The Placement Group '{name}' is unknown.")
        for machine in region.machines.values():
            if not machine.is_gone and machine.data["Placement"]["GroupName"] == name:
                raise Refused("InvalidPlacementGroup.InUse", f"The placement group '{name}' is in use.")
        del region.placement_groups[name]
        return {}

    # types and tags

    def describe_types(self, region: Region, arguments: Arguments) -> Data:
        """DescribeInstanceTypes: moto tells of types that the region does not have, and all at once."""
        here, names = rules.offered(region.name), arguments.get("InstanceTypes")
        unknown = [name for name in names or () if name not in here]
        if unknown:
            raise Refused("InvalidInstanceType", f"The following supplied instance types do not exist: {unknown}")
        found = []
        for name in sorted(here):
            told = rules.told_type(name)
            if (names is None or name in names) and rules.fits(_type_values(told), (), arguments.get("Filters", ())):
                found.append(told)
        shown, more = page(found, arguments, (5, 100), self.page_size)
        return {"InstanceTypes": shown, **more}

    def create_tags(self, region: Region, arguments: Arguments) -> Data | None:
        """CreateTags."""
        held = self._tagged(region, arguments["Resources"])
        given = [{"Key": tag["Key"], "Value": tag.get("Value", "")} for tag in arguments["Tags"]]
        keys = {tag["Key"] for tag in given}
        after = [[tag for tag in data["Tags"] if tag["Key"] not in keys] + given for data in held]
        for tags in after:  # all, or none
            rules.check_tags(tags)
        for data, tags in zip(held, after, strict=True):
            data["Tags"] = tags
        return {} if held else None

    def _tagged(self, region: Region, ids: list[str]) -> list[Data]:
        """Return what has those ids; nothing, if moto has it."""
        found = {id_: region.tagged(id_) for id_ in ids}
        held = [data for data in found.values() if data is not None]
        missing = [id_ for id_, data in found.items() if data is None]
        if held and missing:
            raise Refused("InvalidID", f"The ID '{missing[0]}' is not valid")
        return held

    def delete_tags(self, region: Region, arguments: Arguments) -> Data | None:
        """DeleteTags."""
        held = self._tagged(region, arguments["Resources"])
        for data in held:
            keys = {tag["Key"] for tag in arguments.get("Tags", ())}
            data["Tags"] = [tag for tag in data["Tags"] if keys and tag["Key"] not in keys]
        return {} if held else None

    # what is asked for

    def _asked_zone(self, region: Region, arguments: Arguments) -> str | None:
        """Return the zone that a request names, by itself or by its subnet."""
        subnet = self._asked_subnet(region, arguments)
        zone = arguments.get("Placement", {}).get("AvailabilityZone")
        if subnet is not None and zone not in {None, subnet.availability_zone}:
            raise Refused("InvalidParameterValue", f"The subnet {subnet.id} is not in the zone {zone}")
        if zone is not None and zone not in _backend("ec2", region.name).subnets:
            text = f"Invalid availability zone: [{zone}]"
            raise Refused("InvalidParameterValue", text)
        return str(subnet.availability_zone) if subnet is not None else zone

    def _asked_subnet(self, region: Region, arguments: Arguments) -> Any:  # noqa: ANN401  moto's have no types
        interface: Data = next(iter(arguments.get("NetworkInterfaces", ())), {})
        id_ = interface.get("SubnetId") or arguments.get("SubnetId")
        if id_ is None:
            return None
        every = _backend("ec2", region.name).subnets.values()
        found = next((subnets[id_] for subnets in every if id_ in subnets), None)
        if found is None:
            raise Refused("InvalidSubnetID.NotFound", f"The subnet ID '{id_}' does not exist")
        return found

    def _network(self, region: Region, arguments: Arguments, zone: str | None, type_: str) -> tuple[Any, list[Any]]:
        """Return the subnet and the security groups of a new machine."""
        backend = _backend("ec2", region.name)
        interfaces = arguments.get("NetworkInterfaces", ())
        if interfaces and any(key in arguments for key in _TOPMOST):
            text = "Network interfaces and an instance-level"
            what = "subnet ID" if "SubnetId" in arguments else "security groups"
            raise Refused("InvalidParameterCombination", f"{text} {what} may not be specified on the same request")
        subnet = self._asked_subnet(region, arguments) or self._default_subnet(region, zone, type_)
        if not rules.is_offered(region.name, subnet.availability_zone, type_):
            text = f"Your requested instance type ({type_}) is not supported in your requested Availability Zone"
            raise Refused("Unsupported", f"{text} ({subnet.availability_zone}).")
        ids = [id_ for one in interfaces for id_ in one.get("Groups", ())] or arguments.get("SecurityGroupIds", [])
        groups = []
        for id_ in ids:
            group = backend.get_security_group_from_id(id_)
            if group is None:
                raise Refused("InvalidGroup.NotFound", f"The security group '{id_}' does not exist")
            if group.vpc_id != subnet.vpc_id:
                text = f"Security group {id_} and subnet {subnet.id} belong to different networks."
                raise Refused("InvalidParameter", text)
            groups.append(group)
        return subnet, groups or [backend.get_default_security_group(subnet.vpc_id)]

    def _default_subnet(self, region: Region, zone: str | None, type_: str) -> Any:  # noqa: ANN401
        backend = _backend("ec2", region.name)
        vpc = backend.get_default_vpc()
        if vpc is None:
            text = "No default VPC for this user. GroupName is only supported for EC2-Classic and default VPC"
            raise Refused("VPCIdNotSpecified", text)
        every = [subnet for subnets in backend.subnets.values() for subnet in subnets.values() if subnet.default_for_az]
        here = [s for s in every if s.vpc_id == vpc.id and zone in {None, s.availability_zone}]
        if not here:
            raise Refused("MissingInput", f"No subnets found for the default VPC '{vpc.id}'. Please specify a subnet.")
        fitting = [s for s in here if rules.is_offered(region.name, s.availability_zone, type_)]
        return (fitting or here)[0]

    def _check_options(self, region: Region, arguments: Arguments, kind: Data, *, spot: bool) -> None:
        backend = _backend("ec2", region.name)
        if "KeyName" in arguments and arguments["KeyName"] not in backend.key_pairs:
            raise Refused("InvalidKeyPair.NotFound", f"The key pair '{arguments['KeyName']}' does not exist")
        if "IamInstanceProfile" in arguments:
            self._profile(arguments["IamInstanceProfile"])
        if spot and "spot" not in kind["SupportedUsageClasses"]:
            raise Refused("Unsupported", f"The instance type {kind['InstanceType']} is not sold as spot.")
        if not spot and any(s["ResourceType"] == "spot-instances-request" for s in _specified(arguments)):
            text = "spot-instances-request is not supported as a resource type of tags without spot market options"
            raise Refused("InvalidParameterCombination", text)
        if "CreditSpecification" in arguments and not kind.get("BurstablePerformanceSupported"):
            text = "The T2 Unlimited feature is supported for burstable instance types only."
            raise Refused("InvalidParameterCombination", text)
        hops = arguments.get("MetadataOptions", {}).get("HttpPutResponseHopLimit", 1)
        if not 1 <= hops <= 64:
            raise Refused("InvalidParameterValue", f"Value ({hops}) for parameter HttpPutResponseHopLimit is invalid.")
        group = arguments.get("Placement", {}).get("GroupName")
        if group:
            self._check_placed(region, group, kind)

    def _check_placed(self, region: Region, group: str, kind: Data) -> None:
        held = region.placement_groups.get(group)
        if held is None:
            raise Refused("InvalidPlacementGroup.Unknown", f"The Placement Group '{group}' is unknown.")
        strategy = held["Strategy"]
        if strategy not in kind.get("PlacementGroupInfo", {}).get("SupportedStrategies", ()):
            text = (
                f"{strategy.title()} placement groups are not supported by the '{kind['InstanceType']}' instance type."
            )
            raise Refused("InvalidParameterCombination", f"{text} Specify a supported instance type and try again.")

    def _check_room(self, region: Region, kind: Data, wanted: int, *, spot: bool) -> None:
        used = sum(
            rules.kind_of(region.name, machine.data["InstanceType"])["VCpuInfo"]["DefaultVCpus"]
            for machine in region.machines.values()
            if machine.state in {"pending", "running"} and ("SpotInstanceRequestId" in machine.data) is spot
        )
        quota = self.spot_quota if spot else self.quota
        if used + wanted * kind["VCpuInfo"]["DefaultVCpus"] <= quota:
            return
        if spot:
            raise Refused("MaxSpotInstanceCountExceeded", "Max spot instance count exceeded")
        text = f"You have requested more vCPU capacity than your current vCPU limit of {quota} allows for the instance"
        raise Refused("VcpuLimitExceeded", f"{text} bucket that the specified instance type belongs to.")

    def _profile(self, given: Data) -> Any:  # noqa: ANN401
        profiles = get_backend("iam")[DEFAULT_ACCOUNT_ID]["aws"].instance_profiles.values()
        wanted = given.get("Name") or given.get("Arn")
        found = next((profile for profile in profiles if wanted in {profile.name, profile.arn}), None)
        if found is None:
            text = (
                f"Value ({wanted}) for parameter iamInstanceProfile.{'name' if 'Name' in given else 'arn'} is invalid."
            )
            raise Refused("InvalidParameterValue", f"{text} Invalid IAM Instance Profile")
        return found

    def _disks_of(self, image: Data, arguments: Arguments) -> list[Data]:
        """Return what the disks of a new machine are: those of the image, as the request changes them, and others."""
        found = {mapping["DeviceName"]: dict(mapping["Ebs"]) for mapping in image["BlockDeviceMappings"]}
        for mapping in arguments.get("BlockDeviceMappings", ()):
            device, ebs = mapping["DeviceName"], mapping.get("Ebs", {})
            least = found.get(device, {}).get("VolumeSize", 1)
            rules.check_ebs(ebs, least)
            found[device] = {**found.get(device, {}), "VolumeSize": least, **ebs}
        return [{**ebs, "device": device} for device, ebs in found.items()]

    # what happens

    def _begin(self, region: Region, machine: Machine, state: str, then: Callable[[Region, Machine], None]) -> None:
        """Let a machine be in a state, and then in another, unless it is told otherwise before."""
        machine.state = state
        machine.epoch += 1
        epoch = machine.epoch
        self._address(machine)

        def act() -> None:
            if machine.epoch == epoch:
                then(region, machine)
                self._address(machine)

        region.later(self._clock.now() + self.delay, act)

    def _address(self, machine: Machine) -> None:
        """Give a machine its public address while it has power, a new one each time."""
        data = machine.data
        if machine.state in {"stopped", "shutting-down", "terminated"}:
            data.pop("PublicIpAddress", None)
        elif data["asks_public"] and "PublicIpAddress" not in data:
            data["PublicIpAddress"] = _address("198.51.100.0/24", next(self._addresses))

    def _end(self, region: Region, machine: Machine, reason: str) -> None:
        machine.epoch += 1
        machine.data["StateReason"] = _reason(reason)
        self._gone(region, machine)

    def _gone(self, region: Region, machine: Machine) -> None:
        machine.state = "terminated"
        now = self._clock.now()
        for mapping in list(machine.data["BlockDeviceMappings"]):
            volume = region.volumes[mapping["Ebs"]["VolumeId"]]
            self.disks.release(region, volume)
            if mapping["Ebs"]["DeleteOnTermination"]:
                del region.volumes[volume["VolumeId"]]
        machine.data |= {"SecurityGroups": [], "NetworkInterfaces": []}
        machine.data.pop("PrivateIpAddress", None)
        machine.data.pop("PublicIpAddress", None)
        for asked in region.asked.values():
            if machine.id in asked.made:
                asked.until = now + _TOKEN_AFTER_END

        def vanish() -> None:
            region.machines.pop(machine.id)

        region.later(now + _TOLD_AFTER_END, vanish)

    # what they share

    def _region(self, name: str) -> Region:
        held = self._regions.setdefault(name, Region(name))
        held.pass_time(self._clock.now())
        return held

    def _named(self, region: Region, arguments: Arguments) -> list[Machine]:
        for id_ in arguments["InstanceIds"]:
            rules.check_id("i", id_)
        return [region.machine(id_, self._clock.now()) for id_ in arguments["InstanceIds"]]

    def _reservation(self, _region: Region, machines: list[Machine]) -> Data:
        instances = [{**machine.data, "State": dict(machine.data["State"])} for machine in machines]
        return {
            "ReservationId": machines[0].reservation if machines else "",
            "OwnerId": DEFAULT_ACCOUNT_ID,
            "Instances": instances,
        }

    def _changed(self, region: Region, machines: list[Machine], key: str) -> Data:
        told = [{"InstanceId": machine.id, "CurrentState": dict(machine.data["State"])} for machine in machines]
        region.pass_time(self._clock.now())
        return {key: told}


Answering = Callable[[StrictEc2, Region, Arguments], Data | None]


def _of_disks(name: str, part: str = "disks") -> Answering:
    def answer(ec2: StrictEc2, region: Region, arguments: Arguments) -> Data | None:
        found: Data | None = getattr(getattr(ec2, part), name)(region, arguments)
        return found

    return answer


_ANSWERS: Mapping[str, Answering] = {
    "AttachVolume": StrictEc2.attach,
    "CancelImportTask": _of_disks("cancel", "imports"),
    "CreateImage": StrictEc2.create_image,
    "CreatePlacementGroup": StrictEc2.create_placement_group,
    "CreateSecurityGroup": StrictEc2.create_group,
    "CreateSnapshot": _of_disks("create_snapshot"),
    "CreateTags": StrictEc2.create_tags,
    "CreateVolume": _of_disks("create"),
    "DeletePlacementGroup": StrictEc2.delete_placement_group,
    "DeleteSecurityGroup": StrictEc2.delete_group,
    "DeleteSnapshot": _of_disks("delete_snapshot"),
    "DeleteSubnet": StrictEc2.delete_subnet,
    "DeleteTags": StrictEc2.delete_tags,
    "DeleteVolume": _of_disks("delete"),
    "DeregisterImage": _of_disks("deregister"),
    "DescribeImages": _of_disks("describe_images"),
    "DescribeImportSnapshotTasks": _of_disks("describe", "imports"),
    "DescribeInstanceAttribute": StrictEc2.attribute,
    "DescribeInstanceTypes": StrictEc2.describe_types,
    "DescribeInstances": StrictEc2.describe,
    "DescribePlacementGroups": StrictEc2.describe_placement_groups,
    "DescribeSnapshots": _of_disks("describe_snapshots"),
    "DescribeVolumes": _of_disks("describe"),
    "DetachVolume": _of_disks("detach"),
    "GetConsoleOutput": StrictEc2.console,
    "ImportSnapshot": _of_disks("begin", "imports"),
    "ModifyInstanceAttribute": StrictEc2.modify,
    "RebootInstances": StrictEc2.reboot,
    "RegisterImage": _of_disks("register_image"),
    "RunInstances": StrictEc2.run,
    "StartInstances": StrictEc2.start,
    "StopInstances": StrictEc2.stop,
    "TerminateInstances": StrictEc2.terminate,
}


def error(code: str, message: str, status: int) -> Response:
    """Answer as EC2 does."""
    inner = f"<Error><Code>{code}</Code><Message>{escape(message)}</Message></Error>"
    body = f"<Response><Errors>{inner}</Errors><RequestID>double-request</RequestID></Response>"
    lines = {400: "400 Bad Request", 404: "404 Not Found", 500: "500 Internal Server Error"}
    return Response(lines[status], Headers({"Content-Type": "text/xml"}), body.encode())


def _backend(service: str, region: str) -> Any:  # noqa: ANN401  moto's backends have no types
    return get_backend(service)[DEFAULT_ACCOUNT_ID][region]  # type: ignore[call-overload]


def _address(network: str, number: int) -> str:
    """Return an address of a network; the first ones are Amazon's."""
    held = ip_network(network)
    return str(held[4 + number % (held.num_addresses - 5)])


def _reason(text: str) -> Data:
    code, _, _ = text.partition(":")
    return {"Code": code, "Message": text}


def _check_state(machine: Machine, states: set[str], verb: str) -> None:
    if machine.state not in states:
        text = f"The instance '{machine.id}' is not in a state from which it can be {verb}."
        raise Refused("IncorrectInstanceState", text)


def _specified(arguments: Arguments) -> Iterator[Data]:
    yield from arguments.get("TagSpecifications", ())


def _values(machine: Machine) -> dict[str, list[str]]:
    data = machine.data
    return {
        "instance-state-name": [machine.state],
        "client-token": [data["ClientToken"]],
        "instance-id": [machine.id],
        "instance-type": [data["InstanceType"]],
        "image-id": [data["ImageId"]],
        "subnet-id": [data["SubnetId"]],
        "vpc-id": [data["VpcId"]],
        "availability-zone": [data["Placement"]["AvailabilityZone"]],
        "instance.group-id": [group["GroupId"] for group in data["SecurityGroups"]],
    }


def _type_values(told: Data) -> dict[str, list[str]]:
    return {
        "instance-type": [told["InstanceType"]],
        "current-generation": [str(told["CurrentGeneration"]).lower()],
        "bare-metal": [str(told["BareMetal"]).lower()],
        "hypervisor": [told.get("Hypervisor", "")],
        "supported-usage-class": told["SupportedUsageClasses"],
        "processor-info.supported-architecture": told["ProcessorInfo"]["SupportedArchitectures"],
    }

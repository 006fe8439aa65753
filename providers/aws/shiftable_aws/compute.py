"""Machines in Amazon EC2."""

from __future__ import annotations

import itertools
import json
import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

import attrs
from botocore.exceptions import ClientError

from shiftable.compute import cloud_init
from shiftable.compute.driver import (
    FLEET_LABEL,
    Choice,
    ComputeDriver,
    ComputeFeatures,
    Debris,
    Disk,
    DiskImage,
    DiskSnapshot,
    FleetSpec,
    Image,
    MachineInfo,
    Rule,
    Size,
    choose_size,
)
from shiftable.errors import Fault, NotFound, Resource
from shiftable.features import Limit
from shiftable.paging import Page
from shiftable_aws import _ec2_groups
from shiftable_aws._ec2_images import Ami, Images, ami
from shiftable_aws._ec2_imports import DEBRIS, FORMATS, Imports, left
from shiftable_aws._ec2_prices import prices
from shiftable_aws._ec2_settings import Ec2Settings
from shiftable_aws._ec2_told import (
    DISK,
    GONE,
    IMAGE,
    NAME,
    SOURCE,
    STATES,
    USER,
    disk_of,
    disk_snapshot_of,
    goes,
    holder_of,
    info_of,
    is_of_image,
    is_own,
    wall_ids,
    with_it,
)
from shiftable_aws._ec2_types import Types
from shiftable_aws._errors import classify_compute
from shiftable_aws._rds_groups import code_of, failure, tags_of

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client

    from shiftable_aws._session import Session

__all__ = ["FEATURES", "STATES", "Ec2Driver"]

logger = logging.getLogger(__name__)

_API = "Amazon EC2 API reference"

_REQUEST = "shiftable-request"
_OWN_TAGS = 4  # beside the fleet's: NAME, IMAGE, USER, DISK
_TAGS, _KEY, _VALUE = 50, 128, 256  # Amazon EC2 user guide, "Tag restrictions"; characters

FEATURES = ComputeFeatures(
    title="Amazon EC2",
    create=True,
    arches=frozenset({"x86_64", "arm64"}),
    gpus=True,
    stop=True,
    resize=True,
    console=True,
    disks=True,
    snapshots=True,
    spot=True,
    public_ip=True,
    open_ports=True,
    user_data=True,
    zones=True,
    network=True,
    identity=True,
    prices=True,
    placements=frozenset({"spread", "close"}),
    disk_snapshots=True,
    debris=True,
    relabel=True,
    imports=frozenset(FORMATS),
    ssh=True,
    max_name=Limit(58, "RFC 1035: a host name of 63 characters, with a number of four digits"),
    max_user_data=Limit(16_384, f"{_API}, RunInstances: UserData"),
    max_labels=Limit(_TAGS - _OWN_TAGS, 'Amazon EC2 user guide, "Tag restrictions", less four tags of shiftable\'s'),
    price_list=prices().about,
)

_ENDING = {GONE, "shutting-down"}
_PAGE, _LEAST_PAGE = 1000, 5  # API reference, DescribeInstances
_DISKS_PAGE = 500  # API reference, DescribeVolumes
_UNSEEN = 60.0  # seconds after which a new machine is surely told of; API reference, "Eventual consistency"
_STRATEGIES: Mapping[str, Literal["cluster", "spread"]] = {"spread": "spread", "close": "cluster"}
_DEVICES = tuple(f"/dev/sd{letter}" for letter in "fghijklmnop")  # user guide, "Device names for volumes"
_MOST_LIVES = 1000

# The stubs type each argument of the client; these are filled step by step.
_Arguments = dict[str, Any]


@attrs.frozen
class _Place:
    """Where machines of a fleet go.

    Args:
        subnets: ids and zones; without any, EC2 chooses one of the default network.
    """

    vpc: str
    subnets: tuple[tuple[str, str], ...] = ()


@attrs.frozen
class _Shared:
    """What the machines of a fleet share: where they go, and their security group."""

    place: _Place
    group: str
    placement_group: str | None


@attrs.define(eq=False)
class Ec2Driver(ComputeDriver):
    """Machines in Amazon EC2, through boto3.

    Credentials and permissions are those of ``AwsProvider``.

    * Labels are tags. Beside them a machine has ``Name`` and three that begin with ``shiftable-``, which tell what EC2
      does not: its image as it was declared, its user, the size of its first disk. Its disk and its network interface
      have the same tags, and go with it; when labels change, so do theirs in the same call, as bills are split by tags.
    * The firewall of a fleet is a security group ``shiftable-fleet/<fleet>`` with the label of the fleet. It lets in
      ``open_ports`` and nothing else; nothing goes out otherwise than AWS has it. It is deleted with the fleet; what an
      interrupted create left is taken over by the next one, or ``sweep`` deletes it.
    * A machine has no public address unless it is asked for, tokens for its metadata (IMDSv2), an encrypted disk.
    * ``network`` is a VPC or a subnet; of a VPC, the machines go round its zones, if each has one subnet.
    * ``identity`` is the name or the ARN of an instance profile.
    * A spot machine belongs to a one-time request: EC2 takes it away for good, and lets nobody stop or resize it.
    * A machine whose making fails (no capacity, a key that is off) is gone at once; the error tells EC2's reason.
    * A disk is in one zone, and must be in that of its machine.
    * An image of a machine is made while the machine runs on, as after a power cut: stop it first for more. EC2 lets
      nobody start from it before it is ready.
    * User data is told to whoever may call ``ec2:DescribeInstanceAttribute``, and to every process on the machine.
    * botocore's own logger shows user data at level DEBUG: leave it at INFO or above.
    """

    _session: Session
    _clock: Callable[[], float] = attrs.field(default=time.monotonic, repr=False, kw_only=True)
    _types: Types = attrs.field(init=False, repr=False)
    _images: Images = attrs.field(init=False, repr=False)
    _imports: Imports = attrs.field(factory=Imports, init=False, repr=False)
    _lock: threading.Lock = attrs.field(factory=threading.Lock, init=False, repr=False)
    _shared: dict[tuple[str | None, ...], _Shared] = attrs.field(factory=dict, init=False, repr=False)
    _young: dict[str, tuple[float, MachineInfo]] = attrs.field(factory=dict, init=False, repr=False)
    _lives: dict[str, int] = attrs.field(factory=dict, init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        self._types = Types(self._clock)
        self._images = Images(self._clock)

    @property
    def provider(self) -> str:
        """The provider's name in errors."""
        return "aws"

    @property
    def features(self) -> ComputeFeatures:
        """What this driver can do."""
        return FEATURES

    @property
    def client(self) -> EC2Client:
        """The client that does the work."""
        return self._session.client("ec2")

    def classify(self, exc: Exception) -> Fault | None:
        """Say what a native exception means."""
        return classify_compute(exc)

    def missing_labels(self, labels: Mapping[str, str]) -> tuple[str, ...]:
        """Say which labels are no tags."""
        odd = (key for key, value in sorted(labels.items()) if len(key) > _KEY or len(value) > _VALUE)
        long = (f"label as long as {key!r}: {_KEY} characters of a name and {_VALUE} of a value" for key in odd)
        return (*super().missing_labels(labels), *long)

    def is_own_label(self, name: str) -> bool:
        """Tell whether a tag is AWS's, or tells what EC2 does not."""
        return super().is_own_label(name) or is_own(name)

    # fleets

    def create(self, spec: FleetSpec) -> None:
        """Make the security group of a fleet, unless there is one, and let in who is declared."""
        image = self._images.find(self.client, _native(spec).ami or spec.image, spec.arch).image
        if not image.ready:  # else the group would be left, or a machine be gone
            raise failure(
                "InvalidAMIID.Unavailable", f"image {image.name or image.id!r} is not ready; try again when it is"
            )
        self._share(spec)

    def update(self, current: FleetSpec, spec: FleetSpec) -> None:  # noqa: ARG002  the groups tell how it is
        """Change who may connect, by the differences."""
        groups = _ec2_groups.of_fleet(self.client, spec.name)
        if not groups:
            text = f"no security group {_ec2_groups.group_name(spec.name)} with the label of the fleet is there"
            raise failure("IncorrectState", text)
        for group in groups:
            _ec2_groups.set_rules(self.client, group, spec)

    def destroy(self, name: str) -> None:
        """Delete the security groups and the placement groups of a fleet."""
        with self._lock:
            self._shared = {key: shared for key, shared in self._shared.items() if key[0] != name}
        _ec2_groups.delete(self.client, name)
        for group in self._placement_groups(name):
            try:
                self.client.delete_placement_group(GroupName=group["GroupName"])
            except ClientError as exc:
                if code_of(exc) == "InvalidPlacementGroup.InUse":
                    logger.warning("the placement group %s is still in use and stays", group["GroupName"])
                elif code_of(exc) != "InvalidPlacementGroup.Unknown":  # by the first attempt, whose answer was lost
                    raise

    # sizes and images

    def sizes(self, *, cursor: str | None, limit: int | None) -> Page[Size]:  # noqa: ARG002  one page holds all
        """Return all types of the table's families that there are here."""
        return Page(self._types.offered(self.client)[:limit])

    def images(self, *, cursor: str | None, limit: int | None) -> Page[Image]:  # noqa: ARG002  pages have EC2's size
        """Return the newest of each alias, then one page of the account's own."""
        if cursor is None:
            return Page(self._images.aliases(self.client), "")
        more: _Arguments = {"NextToken": cursor} if cursor else {}
        answer = self.client.describe_images(Owners=["self"], MaxResults=_PAGE, **more)
        return Page(tuple(ami(entry).image for entry in answer["Images"]), answer.get("NextToken"))

    def image(self, id: str) -> Image:
        """Return one image."""
        filters: Any = [{"Name": "image-id", "Values": [id]}]
        found = self.client.describe_images(Filters=filters, IncludeDeprecated=True)["Images"]
        if not found:
            raise self._missing("image", id)
        alias = next((image.name for image in self._images.aliases(self.client) if image.id == id), None)
        return ami(found[0], alias).image

    def choose(self, spec: FleetSpec) -> Choice:
        """Choose the cheapest type that there is in the zone, or take the declared one."""
        name = _native(spec).instance_type
        if name is not None:
            size = self._types.known(self.client, [name]).get(name)
            if size is None:
                raise ValueError(f"EC2 has no type {name} here")
            if size.arch != spec.arch:
                raise ValueError(f"{name} is of {size.arch}, and {spec.arch} is declared")
            return Choice(size, "it is declared", size.price)
        every: Iterable[Size] = self._types.offered(self.client)
        if spec.zone is not None:
            here = self._types.of_zone(self.client, spec.zone)
            if not here:
                raise ValueError(f"EC2 has no types in a zone {spec.zone!r} of {self.client.meta.region_name}")
            every = [size for size in every if size.name in here]
        needed = {*(["spot"] if spec.spot else []), *([_STRATEGIES[spec.placement]] if spec.placement else [])}
        if needed:
            every = [size for size in every if all(self._types.can(size.name, trait) for trait in needed)]
        return choose_size(spec.cpus, spec.memory_gib, spec.arch, every, gpus=spec.gpus, gpu=spec.gpu)

    # machines

    def user_data(self, spec: FleetSpec, name: str, given: bytes | None) -> bytes | None:
        """Return the user, the keys and the host name with what the user gave: EC2 has no way of its own for them."""
        return cloud_init(spec, name, given)

    def create_machine(
        self, spec: FleetSpec, name: str, *, size: Size, token: str, user_data: bytes | None
    ) -> MachineInfo:
        """Begin to make a machine, or return the one that this token has made."""
        native, shared = _native(spec), self._shared.get(_key(spec)) or self._share(spec)
        image = self._images.find(self.client, native.ami or spec.image, size.arch)
        disk_gib = max(spec.disk_gib, image.image.disk_gib or 0)
        tags = {**spec.labels, FLEET_LABEL: spec.name, NAME: name}
        own = {IMAGE: spec.image, USER: spec.user, DISK: str(disk_gib)}
        tagged = ["instance", "volume", "network-interface"] + (["spot-instances-request"] if spec.spot else [])
        arguments: _Arguments = {
            "ImageId": image.image.id,
            "InstanceType": size.name,
            "MinCount": 1,
            "MaxCount": 1,
            "NetworkInterfaces": [_interface(spec, native, shared.group, self._subnet(shared.place, name, size))],
            "BlockDeviceMappings": [_root(native, image, disk_gib)],
            "MetadataOptions": {
                "HttpTokens": "required",
                "HttpEndpoint": "enabled",
                "HttpPutResponseHopLimit": native.metadata_hop_limit,
            },
            "TagSpecifications": [{"ResourceType": kind, "Tags": _tags({**tags, **own})} for kind in tagged],
            **_optional(spec, native, shared.placement_group),
        }
        if user_data is not None:
            arguments["UserData"] = user_data
        try:
            made = self._run(arguments, token)
        except ClientError as exc:
            if code_of(exc) in {"InvalidGroup.NotFound", "InvalidSubnetID.NotFound"}:  # somebody deleted it meanwhile
                with self._lock:
                    self._shared.pop(_key(spec), None)
            raise
        found = {**made, "Tags": made.get("Tags") or _tags({**tags, **own})}
        info = info_of(found, {shared.group: spec.firewall}, self._types.known(self.client, [found["InstanceType"]]))
        with self._lock:
            young = self._young.items()
            self._young = {id_: held for id_, held in young if self._clock() - held[0] <= _UNSEEN}
            self._young[info.id] = self._clock(), info
        return info

    def machines(self, fleet: str | None, *, cursor: str | None, limit: int | None) -> Page[MachineInfo]:
        """Return one page of machines: a call for them, one for their security groups, one for types not yet known.

        What the groups of earlier pages let in comes along in the cursor.
        """
        token, told = json.loads(cursor) if cursor else (None, {})
        filters: Any = [{"Name": "instance-state-name", "Values": list(STATES)}]
        filters += [{"Name": f"tag:{FLEET_LABEL}", "Values": [fleet]}] if fleet is not None else []
        more: _Arguments = {"NextToken": token} if token else {}
        size = _PAGE if limit is None else min(max(limit, _LEAST_PAGE), _PAGE)
        answer = self.client.describe_instances(Filters=filters, MaxResults=size, **more)
        found = [machine for held in answer["Reservations"] for machine in held["Instances"]]
        walls: dict[str, Iterable[Rule]] = {id_: [Rule(**rule) for rule in rules] for id_, rules in told.items()}
        walls |= _ec2_groups.walls(self.client, {id_ for m in found for id_ in wall_ids(m)} - walls.keys())
        types = self._types.known(self.client, {machine["InstanceType"] for machine in found})
        shown = [info_of(machine, walls, types) for machine in found]
        self._see(info.id for info in shown)
        following = answer.get("NextToken")
        if not following:
            return Page((*shown, *self._unseen(fleet)))
        return Page(
            tuple(shown), json.dumps((following, {id_: [attrs.asdict(rule) for rule in walls[id_]] for id_ in walls}))
        )

    def machine(self, id: str) -> MachineInfo:
        """Return one machine; if it was made a moment ago and EC2 does not tell of it yet, as it was made."""
        try:
            found = self._living(id)
        except ClientError as exc:
            unseen = next((info for info in self._unseen(None) if info.id == id), None)
            if code_of(exc) != "InvalidInstanceID.NotFound" or unseen is None:
                raise
            return unseen
        walls = _ec2_groups.walls(self.client, set(wall_ids(found)))
        return info_of(found, walls, self._types.known(self.client, [found["InstanceType"]]))

    def delete_machine(self, id: str) -> None:
        """Begin to delete a machine, with its first disk and its network interface."""
        try:
            self.client.terminate_instances(InstanceIds=[id])
        except ClientError as exc:
            raise self._too_young(id, exc) from exc
        self._see([id])

    def reboot(self, id: str) -> None:
        """Begin to restart a running machine. EC2 would pass over one that is gone."""
        state = self._living(id)["State"]["Name"]
        if state != "running":
            raise failure("IncorrectInstanceState", f"it is {state}; it must be running")
        self.client.reboot_instances(InstanceIds=[id])

    def start(self, id: str) -> None:
        """Begin to start a stopped machine."""
        self.client.start_instances(InstanceIds=[id])

    def stop(self, id: str) -> None:
        """Begin to stop a running machine."""
        self.client.stop_instances(InstanceIds=[id])

    def resize(self, id: str, size: Size) -> None:
        """Change the type of a stopped machine."""
        self.client.modify_instance_attribute(InstanceId=id, InstanceType={"Value": size.name})

    def relabel(self, id: str, *, labels: Mapping[str, str], remove: frozenset[str]) -> None:
        """Change tags of a machine, its first disk and its network interface. EC2 changes each tag by itself."""
        try:
            resources = [id, *with_it(self._living(id))]
        except ClientError as exc:
            raise self._too_young(id, exc) from exc
        if remove:
            self.client.delete_tags(Resources=resources, Tags=[{"Key": name} for name in sorted(remove)])
        if labels:
            tags: Any = _tags(labels)
            self.client.create_tags(Resources=resources, Tags=tags)

    def console(self, id: str) -> bytes:
        """Return the console; the latest of it where the type can tell, else as it was a while after the start."""
        self._living(id)
        try:
            answer = self.client.get_console_output(InstanceId=id, Latest=True)
        except ClientError as exc:
            if code_of(exc) != "UnsupportedOperation":  # the type is not of Nitro
                raise
            answer = self.client.get_console_output(InstanceId=id)
        return answer.get("Output", "").encode()

    # images of machines

    def snapshot(self, id: str, name: str) -> Image:
        """Begin to make an image of a machine, which runs on; EC2 would take its other disks into it, too."""
        machine = self.machine(id)
        more = {"BlockDeviceMappings": _without_disks(self._living(id))} if machine.disks else {}
        tags = _tags({NAME: name, SOURCE: machine.name})
        kinds: Any = [{"ResourceType": kind, "Tags": tags} for kind in ("image", "snapshot")]
        try:
            how: _Arguments = {"NoReboot": True, "TagSpecifications": kinds, **more}
            made = self.client.create_image(InstanceId=id, Name=name, **how)["ImageId"]
        except ClientError as exc:
            if not (code_of(exc) == "InvalidAMIName.Duplicate" and _retried(exc)):
                raise
            made = self._own_image(name, id, exc)
        return Image(
            id=made,
            name=name,
            arch=machine.arch,
            disk_gib=machine.disk_gib,
            own=True,
            ready=False,
            created=datetime.now(UTC),
        )

    def import_image(self, name: str, source: DiskImage, *, token: str) -> Image:
        """Begin to import a snapshot, or register an image of it; the service's role ``vmimport`` reads the bucket."""
        return self._imports.go_on(self.client, name, source, token)

    def delete_image(self, image: str) -> None:
        """Delete an image of the account's own, then the snapshots that it consists of."""
        filters: Any = [{"Name": "image-id", "Values": [image]}]
        found = self.client.describe_images(Owners=["self"], Filters=filters)["Images"]
        if not found:
            raise self._missing("image", image)
        try:
            self.client.deregister_image(ImageId=image)
        except ClientError as exc:
            if not (code_of(exc) in {"InvalidAMIID.NotFound", "InvalidAMIID.Unavailable"} and _retried(exc)):
                raise
        snapshots = (disk.get("Ebs", {}).get("SnapshotId") for disk in found[0].get("BlockDeviceMappings", ()))
        for snapshot in filter(None, snapshots):
            self._delete_snapshot(snapshot)

    # disks

    def disks(self, *, cursor: str | None, limit: int | None) -> Page[Disk]:  # noqa: ARG002  the same
        """Return one page of the disks that no machine takes with it when it goes."""
        more: _Arguments = {"NextToken": cursor} if cursor else {}
        answer = self.client.describe_volumes(MaxResults=_DISKS_PAGE, **more)
        stay = (volume for volume in answer["Volumes"] if not any(goes(held) for held in volume["Attachments"]))
        return Page(tuple(disk_of(volume) for volume in stay), answer.get("NextToken"))

    def disk(self, disk: str) -> Disk:
        """Return one disk."""
        return disk_of(self._volume(disk))

    def create_disk(self, name: str, size_gib: int, *, zone: str | None, snapshot: str | None) -> Disk:
        """Begin to make an encrypted disk in a zone."""
        if zone is None:
            raise failure("MissingParameter", "a disk of EC2 is in one zone: name it, the one of the machine")
        tags: Any = [{"ResourceType": "volume", "Tags": _tags({NAME: name})}]
        of: _Arguments = {"SnapshotId": snapshot} if snapshot else {}
        return disk_of(
            self.client.create_volume(
                AvailabilityZone=zone, Size=size_gib, VolumeType="gp3", Encrypted=True, TagSpecifications=tags, **of
            )
        )

    def delete_disk(self, disk: str) -> None:
        """Delete a disk."""
        self._volume(disk)
        try:
            self.client.delete_volume(VolumeId=disk)
        except ClientError as exc:
            if not (code_of(exc) == "InvalidVolume.NotFound" and _retried(exc)):  # the first attempt did it
                raise

    def attach(self, id: str, disk: str) -> None:
        """Attach a disk, by the next device that is free."""
        if holder_of(self._volume(disk)) == id:
            return
        machine = self._living(id)
        taken = {mapping["DeviceName"] for mapping in machine.get("BlockDeviceMappings", ())}
        device = next((name for name in _DEVICES if name not in taken), None)
        if device is None:
            raise failure("AttachmentLimitExceeded", f"it has {len(taken)} disks; there are no more device names")
        try:
            self.client.attach_volume(InstanceId=id, VolumeId=disk, Device=device)
        except ClientError as exc:
            if not (code_of(exc) == "VolumeInUse" and holder_of(self._volume(disk)) == id):  # the same
                raise

    def detach(self, id: str, disk: str) -> None:
        """Detach a disk."""
        self._living(id)
        holder = holder_of(self._volume(disk))
        if holder is None:
            return
        if holder != id:
            raise failure("VolumeInUse", f"it is attached to another machine, {holder}")
        try:
            self.client.detach_volume(InstanceId=id, VolumeId=disk)
        except ClientError as exc:
            if not (code_of(exc) == "IncorrectState" and holder_of(self._volume(disk)) is None):  # the same
                raise

    # snapshots of disks

    def disk_snapshots(self, *, cursor: str | None, limit: int | None) -> Page[DiskSnapshot]:  # noqa: ARG002  the same
        """Return one page of the account's snapshots, without those that images consist of."""
        more: _Arguments = {"NextToken": cursor} if cursor else {}
        answer = self.client.describe_snapshots(OwnerIds=["self"], MaxResults=_PAGE, **more)
        own = (disk_snapshot_of(entry) for entry in answer["Snapshots"] if not is_of_image(entry))
        return Page(tuple(own), answer.get("NextToken"))

    def disk_snapshot(self, snapshot: str) -> DiskSnapshot:
        """Return one snapshot."""
        filters: Any = [{"Name": "snapshot-id", "Values": [snapshot]}]
        found = self.client.describe_snapshots(OwnerIds=["self"], Filters=filters)["Snapshots"]
        if not found:
            raise self._missing("snapshot", snapshot)
        return disk_snapshot_of(found[0])

    def snapshot_disk(self, disk: str, name: str) -> DiskSnapshot:
        """Begin to make a snapshot. EC2 has no token for it: what a lost answer made twice is found by its tag."""
        self._volume(disk)
        request = str(uuid.uuid4())
        tags: Any = [{"ResourceType": "snapshot", "Tags": _tags({NAME: name, _REQUEST: request})}]
        made = self.client.create_snapshot(VolumeId=disk, TagSpecifications=tags)
        if made["ResponseMetadata"]["RetryAttempts"]:
            filters: Any = [{"Name": f"tag:{_REQUEST}", "Values": [request]}]
            twins = self.client.describe_snapshots(OwnerIds=["self"], Filters=filters)["Snapshots"]
            for twin in twins:
                if twin["SnapshotId"] != made["SnapshotId"]:
                    self._delete_snapshot(twin["SnapshotId"])
        return disk_snapshot_of(made)

    def delete_disk_snapshot(self, snapshot: str) -> None:
        """Delete a snapshot."""
        self.disk_snapshot(snapshot)
        self._delete_snapshot(snapshot)

    # what was left behind

    def debris(self, *, cursor: str | None, limit: int | None) -> Page[Debris]:  # noqa: ARG002  one page holds all
        """Return the groups of fleets without machines, and snapshots of imports without an image, in one page."""
        living = {machine.fleet for machine in self._all(None)}
        filters: Any = [{"Name": "tag-key", "Values": [FLEET_LABEL]}]
        pages = self.client.get_paginator("describe_security_groups").paginate(Filters=filters)
        walls = [(group, "security group", group["GroupId"]) for page in pages for group in page["SecurityGroups"]]
        placed = [(group, "placement group", group["GroupName"]) for group in self._placement_groups(None)]
        found: list[tuple[Any, str, str]] = [*walls, *placed]
        groups = (
            Debris(id=id_, kind=kind, name=group["GroupName"], fleet=tags_of(group.get("Tags")).get(FLEET_LABEL))
            for group, kind, id_ in found
        )
        return Page((*(group for group in groups if group.fleet not in living), *left(self.client)))

    def delete_debris(self, debris: Debris) -> None:
        """Delete a group or a snapshot; EC2 refuses one that an image consists of by now."""
        if debris.kind == DEBRIS:
            self._delete_snapshot(debris.id)
            return
        try:
            if debris.kind == "placement group":
                self.client.delete_placement_group(GroupName=debris.id)
            else:
                self.client.delete_security_group(GroupId=debris.id)
        except ClientError as exc:
            if code_of(exc) not in {"InvalidGroup.NotFound", "InvalidPlacementGroup.Unknown"}:
                raise
        with self._lock:
            self._shared = {key: shared for key, shared in self._shared.items() if key[0] != debris.fleet}

    # how a place is found

    def _place(self, spec: FleetSpec) -> _Place:
        wanted = _native(spec).subnet or spec.network
        if wanted is None:
            filters: Any = [{"Name": "is-default", "Values": ["true"]}]
            found = self.client.describe_vpcs(Filters=filters)["Vpcs"]
            if not found:
                text = "there is no default VPC here; name a VPC or a subnet as network of [compute.x]"
                raise failure("VPCIdNotSpecified", text)
            return _Place(found[0]["VpcId"])
        key = {"subnet": "subnet-id", "vpc": "vpc-id"}.get(wanted.partition("-")[0])
        if key is None:
            raise failure("InvalidParameterValue", f"the network {wanted!r} is neither a VPC (vpc-…) nor a subnet-…")
        filters = [{"Name": key, "Values": [wanted]}]
        subnets = self.client.describe_subnets(Filters=filters)["Subnets"]
        here = [subnet for subnet in subnets if spec.zone in {None, subnet["AvailabilityZone"]}]
        if not here:
            where = f" in the zone {spec.zone}" if spec.zone and subnets else ""
            raise failure("InvalidSubnetID.NotFound", f"{wanted} has no subnet{where}")
        zones = {subnet["AvailabilityZone"] for subnet in here}
        if len(zones) < len(here):
            raise failure("InvalidParameterValue", f"{wanted} has more than one subnet in a zone: name one as network")
        ordered = sorted(here, key=lambda subnet: subnet["AvailabilityZone"])
        return _Place(ordered[0]["VpcId"], tuple((s["SubnetId"], s["AvailabilityZone"]) for s in ordered))

    def _subnet(self, place: _Place, name: str, size: Size) -> str | None:
        """Return the subnet of a machine: its number goes round those whose zone has the type."""
        if len(place.subnets) < 2:
            return place.subnets[0][0] if place.subnets else None
        fitting = [id_ for id_, zone in place.subnets if size.name in self._types.of_zone(self.client, zone)]
        if not fitting:
            raise failure("Unsupported", f"no zone of the network has {size.name}")
        number = name.rpartition("-")[2]
        return fitting[int(number) % len(fitting) if number.isdecimal() else 0]

    def _share(self, spec: FleetSpec) -> _Shared:
        place = self._place(spec)
        together = _native(spec).placement_group or (self._make_placement_group(spec) if spec.placement else None)
        shared = _Shared(place, _ec2_groups.create(self.client, spec, place.vpc), together)
        with self._lock:
            self._shared[_key(spec)] = shared
        return shared

    def _make_placement_group(self, spec: FleetSpec) -> str:
        """Make the group of a fleet's placement, unless there is one. Its name tells its strategy."""
        strategy = _STRATEGIES[spec.placement or "spread"]
        name = f"{_ec2_groups.group_name(spec.name)}/{strategy}"
        tags: Any = [{"ResourceType": "placement-group", "Tags": _tags({FLEET_LABEL: spec.name})}]
        how: Any = {"GroupName": name, "Strategy": strategy}
        try:
            self.client.create_placement_group(**how, TagSpecifications=tags)
        except ClientError as exc:
            if code_of(exc) != "InvalidPlacementGroup.Duplicate":
                raise
            if name not in {group["GroupName"] for group in self._placement_groups(spec.name)}:
                text = f"there is a placement group {name} that is not of shiftable; delete it"
                raise failure("InvalidPlacementGroup.Duplicate", text) from exc
        return name

    def _placement_groups(self, fleet: str | None) -> list[Any]:
        """Return the placement groups of one fleet, or of all."""
        name, value = ("tag-key", FLEET_LABEL) if fleet is None else (f"tag:{FLEET_LABEL}", fleet)
        filters: Any = [{"Name": name, "Values": [value]}]
        return list(self.client.describe_placement_groups(Filters=filters)["PlacementGroups"])

    # how a machine is made and found

    def _run(self, arguments: _Arguments, token: str) -> Any:  # noqa: ANN401
        """Make a machine, or return the living one that this token made.

        EC2 remembers a token for a day after its machine is gone, and then refuses it or answers with what is gone
        (API reference, "Ensuring idempotency"; IdempotentInstanceTerminated since 2025). So each further life of a name
        has a token of its own, made of the first one: whoever repeats a call finds the same.
        """
        for life in itertools.count(self._lives.get(token, 0)):
            this = token if life == 0 else str(uuid.uuid5(uuid.UUID(token), str(life)))
            made: Any = None
            try:
                made = self.client.run_instances(ClientToken=this, **arguments)["Instances"][0]
            except ClientError as exc:
                code = code_of(exc)
                if life >= _MOST_LIVES or code not in {"IdempotentInstanceTerminated", "IdempotentParameterMismatch"}:
                    raise
                if code == "IdempotentParameterMismatch":  # made with another image or size: still the one
                    made = next(self._of_token(this), None)
            if made is not None and made["State"]["Name"] not in _ENDING:
                with self._lock:
                    self._lives[token] = life
                return made
        raise AssertionError  # pragma: no cover  the count has no end

    def _see(self, ids: Iterable[str]) -> None:
        """Take note that EC2 tells of machines."""
        with self._lock:
            for id_ in ids:
                self._young.pop(id_, None)

    def _unseen(self, fleet: str | None) -> list[MachineInfo]:
        """Return the machines that were made a moment ago, and of which EC2 has not told yet."""
        with self._lock:
            now = self._clock()
            young = [info for made, info in self._young.values() if now - made <= _UNSEEN]
        return [info for info in young if fleet in {None, info.fleet}]

    def _too_young(self, id: str, exc: ClientError) -> ClientError:
        """Return what an error is of a machine that was made a moment ago, and of which EC2 does not tell yet."""
        if code_of(exc) == "InvalidInstanceID.NotFound" and any(info.id == id for info in self._unseen(None)):
            text = "it was made a moment ago, and EC2 does not tell of it yet; try again"
            return failure("IncorrectInstanceState", text)
        return exc

    def _missing(self, kind: str, id: str) -> NotFound:
        text = "there is none of that id"
        return NotFound(text, provider=self.provider, operation=f"compute.{kind}", resource=Resource(kind, id))

    def _of_token(self, token: str) -> Iterator[Any]:
        filters: Any = [{"Name": "client-token", "Values": [token]}]
        answer = self.client.describe_instances(Filters=filters)
        yield from (machine for held in answer["Reservations"] for machine in held["Instances"])

    def _living(self, id: str) -> Any:  # noqa: ANN401
        answer = self.client.describe_instances(InstanceIds=[id])
        found = next((machine for held in answer["Reservations"] for machine in held["Instances"]), None)
        if found is None:
            raise failure("InvalidInstanceID.NotFound", "there is no such machine")
        self._see([id])
        if found["State"]["Name"] == GONE:
            reason = found.get("StateReason", {}).get("Message", "")
            raise failure("InvalidInstanceID.NotFound", f"it is gone ({reason})" if reason else "it is gone")
        return found

    # how disks and images are found

    def _volume(self, id: str) -> Any:  # noqa: ANN401
        filters: Any = [{"Name": "volume-id", "Values": [id]}]  # which, unlike a list of ids, may be any text
        found = self.client.describe_volumes(Filters=filters)["Volumes"]
        if not found:
            raise failure("InvalidVolume.NotFound", f"there is no disk {id!r}")
        return found[0]

    def _delete_snapshot(self, snapshot: str) -> None:
        try:
            self.client.delete_snapshot(SnapshotId=snapshot)
        except ClientError as exc:
            if code_of(exc) != "InvalidSnapshot.NotFound":
                raise

    def _own_image(self, name: str, machine: str, exc: ClientError) -> str:
        """Return the image that the first attempt made, whose answer was lost."""
        filters: Any = [{"Name": "name", "Values": [name]}]
        for entry in self.client.describe_images(Owners=["self"], Filters=filters)["Images"]:
            if entry.get("SourceInstanceId") == machine:
                return str(entry["ImageId"])
        raise exc


def _native(spec: FleetSpec) -> Ec2Settings:
    return spec.native if isinstance(spec.native, Ec2Settings) else Ec2Settings()


def _key(spec: FleetSpec) -> tuple[str | None, ...]:
    return spec.name, _native(spec).subnet or spec.network, spec.zone, spec.placement


def _interface(spec: FleetSpec, native: Ec2Settings, group: str, subnet: str | None) -> _Arguments:
    return {
        "DeviceIndex": 0,
        "AssociatePublicIpAddress": spec.public_ip,
        "DeleteOnTermination": True,
        "Groups": [group, *native.security_groups],
        **({"SubnetId": subnet} if subnet else {}),
    }


def _root(native: Ec2Settings, image: Ami, disk_gib: int) -> _Arguments:
    ebs: _Arguments = {
        "VolumeSize": disk_gib,
        "VolumeType": native.root_volume_type,
        "Encrypted": True,
        "DeleteOnTermination": True,
        "KmsKeyId": native.kms_key,
        "Iops": native.iops,
        "Throughput": native.throughput,
    }
    return {"DeviceName": image.device, "Ebs": {key: value for key, value in ebs.items() if value is not None}}


def _without_disks(machine: Any) -> list[_Arguments]:  # noqa: ANN401
    """Return the mappings that leave all disks of a machine out of its image but the first."""
    devices = (mapping["DeviceName"] for mapping in machine["BlockDeviceMappings"])
    return [{"DeviceName": device, "NoDevice": ""} for device in devices if device != machine["RootDeviceName"]]


def _optional(spec: FleetSpec, native: Ec2Settings, together: str | None) -> _Arguments:
    """Return the arguments that are there only if something asks for them."""
    placement = {
        "AvailabilityZone": spec.zone,
        "GroupName": together,
        "Tenancy": native.tenancy if native.tenancy != "default" else None,
    }
    placed = {key: value for key, value in placement.items() if value is not None}
    profile = {"Arn" if (spec.identity or "").startswith("arn:") else "Name": spec.identity}
    once = {"SpotInstanceType": "one-time", "InstanceInterruptionBehavior": "terminate"}
    return {
        **({"Placement": placed} if placed else {}),
        **({"KeyName": native.key_name} if native.key_name else {}),
        **({"IamInstanceProfile": profile} if spec.identity else {}),
        **({"InstanceMarketOptions": {"MarketType": "spot", "SpotOptions": once}} if spec.spot else {}),
        **({"CreditSpecification": {"CpuCredits": native.cpu_credits}} if native.cpu_credits else {}),
    }


def _tags(tags: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in tags.items()]


def _retried(exc: ClientError) -> bool:
    return bool(exc.response.get("ResponseMetadata", {}).get("RetryAttempts"))

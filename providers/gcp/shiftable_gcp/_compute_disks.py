"""Disks, images and snapshots of the double's Compute Engine."""

from __future__ import annotations

from typing import Any

import attrs

from shiftable_gcp._calls import Call
from shiftable_gcp._compute_archives import archive_named, disk_within
from shiftable_gcp._compute_catalogue import LINK
from shiftable_gcp._compute_held import Held, base_of, check_zone, last, path_of
from shiftable_gcp._compute_rules import check_disk, check_labels, check_name, resolved
from shiftable_gcp._compute_state import Failure, absent, exists, fingerprint, in_use, invalid, not_ready, told_time

__all__ = ["Disks"]

Json = dict[str, Any]


@attrs.frozen(eq=False)
class Disks:
    """Answers for disks, images and snapshots."""

    held: Held

    def insert(self, call: Call) -> Json:
        """Answer disks.insert."""
        (project, zone), body = call.names, call.body
        check_zone(zone)
        name, kind = check_name(body.get("name")), last(body.get("type", "pd-standard"))
        check_disk(kind, body.get("sizeGb", "500"))
        check_labels(body.get("labels", {}))
        path = f"projects/{project}/zones/{zone}/disks/{name}"
        if path in self.held.resources:
            raise exists(path)
        if "sourceSnapshot" in body:
            where = resolved(body["sourceSnapshot"], project, "sourceSnapshot")
            snapshot = self.held.found(where)
            if snapshot["status"] != "READY":
                raise not_ready(where)
            if int(body.get("sizeGb") or snapshot["diskSizeGb"]) < int(snapshot["diskSizeGb"]):
                raise invalid("sizeGb", body["sizeGb"], "It cannot be smaller than the snapshot.")
        made = self._made(path, str(body.get("sizeGb", "500")), kind) | {
            "status": "CREATING",
            "labels": body.get("labels", {}),
            "labelFingerprint": fingerprint(body.get("labels", {})),
        }
        self.held.resources[path] = made

        def effect() -> Failure | None:
            made["status"] = "READY"
            return self.held.over_quota(zone)

        return self.held.begin("insert", path, effect, lambda _failure: self.held.drop(path))

    def delete(self, call: Call) -> Json:
        """Answer disks.delete."""
        path, found = self.held.idle(call)
        if found.get("users"):
            raise in_use(path, found["users"][0].removeprefix(LINK))
        return self.held.begin("delete", path, lambda: self.held.drop(path))

    def attach(self, call: Call) -> Json:
        """Answer instances.attachDisk."""
        path, found = self.held.idle(call, "RUNNING", "TERMINATED")
        where = resolved(call.body.get("source"), call.names[0], "source")
        disk = self.held.found(where)
        if disk.get("users"):
            raise in_use(where, disk["users"][0])
        if disk["zone"] != found["zone"]:
            raise invalid("source", where, "It is in another zone.")
        device = call.body.get("deviceName", f"persistent-disk-{len(found['disks'])}")
        if any(each["deviceName"] == device for each in found["disks"]):
            raise invalid("deviceName", device, "It is already in use.")
        attached = {
            "kind": "compute#attachedDisk",
            "type": "PERSISTENT",
            "mode": call.body.get("mode", "READ_WRITE"),
            "source": LINK + where,
            "deviceName": device,
            "index": len(found["disks"]),
            "boot": False,
            "autoDelete": call.body.get("autoDelete", False),
            "diskSizeGb": disk["sizeGb"],
            "interface": "SCSI",
        }

        def effect() -> None:
            found["disks"].append(attached)
            disk["users"] = [found["selfLink"]]

        return self.held.begin("attachDisk", path, effect)

    def detach(self, call: Call) -> Json:
        """Answer instances.detachDisk."""
        path, found = self.held.idle(call, "RUNNING", "TERMINATED")
        device = call.query.get("deviceName", "")
        attached = next((each for each in found["disks"] if each["deviceName"] == device), None)
        if attached is None:
            raise invalid("deviceName", device, "No attached disk found with that device name.")
        if attached["boot"] and found["status"] == "RUNNING":
            raise not_ready(path)

        def effect() -> None:
            found["disks"].remove(attached)
            self.held.resources[str(attached["source"]).removeprefix(LINK)].pop("users", None)

        return self.held.begin("detachDisk", path, effect)

    def boot(self, project: str, zone: str, body: Json, kind: Json) -> Json:
        """Return the disk that an instance is to start from."""
        wanted = body["disks"][0].get("initializeParams", {})
        check_labels(wanted.get("labels", {}))
        image = self.image(resolved(wanted.get("sourceImage"), project, "disks[0].initializeParams.sourceImage"))
        if image["status"] != "READY":
            raise not_ready(path_of(image))
        if "shieldedInstanceConfig" in body and {"type": "UEFI_COMPATIBLE"} not in image.get("guestOsFeatures", ()):
            why = "Shielded VM Config can only be set when using a UEFI-compatible disk."
            raise invalid("shieldedInstanceConfig", image["name"], why)
        if image.get("architecture", "X86_64") != kind["architecture"]:
            raise invalid("disks[0]", image["name"], f"It is not of the architecture of {kind['name']}.")
        size, disk_type = wanted.get("diskSizeGb", image["diskSizeGb"]), last(wanted.get("diskType", "pd-standard"))
        check_disk(disk_type, size)
        if int(size) < int(image["diskSizeGb"]):
            least = image["diskSizeGb"]
            raise invalid(
                "disks[0].initializeParams.diskSizeGb", size, f"It cannot be smaller than the image: {least} GB."
            )
        if kind["name"].startswith("n4-") and not disk_type.startswith("hyperdisk"):
            raise invalid("disks[0]", disk_type, f"{kind['name']} supports hyperdisks only.")
        name = check_name(wanted.get("diskName", body["name"]))
        path = f"projects/{project}/zones/{zone}/disks/{name}"
        if path in self.held.resources:
            raise exists(path)
        return self._made(path, str(size), disk_type) | {
            "sourceImage": image["selfLink"],
            "architecture": kind["architecture"],
            "licenses": image.get("licenses", []),
            "guestOsFeatures": image.get("guestOsFeatures", []),
            "labels": wanted.get("labels", {}),
            "labelFingerprint": fingerprint(wanted.get("labels", {})),
            "users": [f"{LINK}projects/{project}/zones/{zone}/instances/{body['name']}"],
        }

    def _made(self, path: str, size: str, kind: str) -> Json:
        _, project, _, zone, _, name = path.split("/")
        return {
            "kind": "compute#disk",
            "id": str(self.held.number()),
            "creationTimestamp": told_time(self.held.now()),
            "name": name,
            "sizeGb": size,
            "status": "READY",
            "type": f"{LINK}projects/{project}/zones/{zone}/diskTypes/{kind}",
            "zone": f"{LINK}projects/{project}/zones/{zone}",
            "selfLink": LINK + path,
        }

    def family(self, call: Call) -> Json:
        """Answer images.getFromFamily."""
        return self.image(f"{base_of(call)}/images/family/{call.names[-1]}")

    def image(self, path: str) -> Json:
        """Return an image, or the newest of a family."""
        base, _, family = path.partition("/images/family/")
        if family:
            found = [
                each
                for where, each in self.held.resources.items()
                if where.startswith(f"{base}/images/") and each.get("family") == family
            ]
            if not found:
                raise absent(path)
            return max(found, key=lambda each: str(each["creationTimestamp"]))
        self.held.look(path)
        return self.held.found(path)

    def insert_image(self, call: Call) -> Json:
        """Answer images.insert."""
        (project,), body = call.names, call.body
        name = check_name(body.get("name"))
        path = f"projects/{project}/global/images/{name}"
        if path in self.held.resources:
            raise exists(path)
        if "rawDisk" in body:
            return self._import(path, body)
        where = resolved(body.get("sourceDisk"), project, "sourceDisk")
        disk = self.held.found(where)
        users = [self.held.resources[str(user).removeprefix(LINK)] for user in disk.get("users", ())]
        if any(user["status"] == "RUNNING" for user in users) and call.query.get("forceCreate") != "true":
            raise in_use(where, users[0]["selfLink"])
        made = self._image(path, name) | {
            "sourceDisk": disk["selfLink"],
            "diskSizeGb": disk["sizeGb"],
            "architecture": disk.get("architecture", "X86_64"),
            "licenses": disk.get("licenses", []),
            "guestOsFeatures": disk.get("guestOsFeatures", []),
        }
        self.held.resources[path] = made
        return self.held.begin(
            "insert", path, lambda: made.update(status="READY"), lambda _failure: self.held.drop(path)
        )

    def _import(self, path: str, body: Json) -> Json:
        """Make an image of an archive, which is looked into only when there is time for it."""
        if "sourceDisk" in body:
            raise invalid("rawDisk", "", "Exactly one of the sources must be specified.")
        check_labels(body.get("labels", {}))
        bucket, name = archive_named(body["rawDisk"].get("source"))
        archive = self.held.read(bucket, name)
        if archive is None:
            raise absent(f"storage.googleapis.com/{bucket}/{name}")
        made = self._image(path, body["name"]) | {
            "rawDisk": body["rawDisk"],
            "archiveSizeBytes": str(len(archive)),
            "architecture": body.get("architecture", "X86_64"),
            "guestOsFeatures": body.get("guestOsFeatures", []),
            "labels": body.get("labels", {}),
            "labelFingerprint": fingerprint(body.get("labels", {})),
        }
        self.held.resources[path] = made

        def effect() -> Failure | None:
            now = self.held.read(bucket, name)
            disk = disk_within(now) if now is not None else f"The archive {bucket}/{name} was not found."
            if isinstance(disk, str):
                return Failure("INVALID_FIELD_VALUE", disk)  # Google documents the words, and not the code
            made.update(status="READY", diskSizeGb=str(disk))
            return None

        return self.held.begin("insert", path, effect, lambda failure: self._undone(path, failure))

    def _undone(self, path: str, failure: Failure) -> None:
        """Leave nothing of an image that failed, or the image as failed."""
        if failure.leaves == "nothing":
            self.held.drop(path)
        else:
            self.held.resources[path]["status"] = "FAILED"

    def _image(self, path: str, name: str) -> Json:
        return {
            "kind": "compute#image",
            "id": str(self.held.number()),
            "creationTimestamp": told_time(self.held.now()),
            "name": name,
            "status": "PENDING",
            "sourceType": "RAW",
            "selfLink": LINK + path,
        }

    def insert_snapshot(self, call: Call) -> Json:
        """Answer snapshots.insert."""
        (project,), body = call.names, call.body
        path = f"projects/{project}/global/snapshots/{check_name(body.get('name'))}"
        if path in self.held.resources:
            raise exists(path)
        disk = self.held.found(resolved(body.get("sourceDisk"), project, "sourceDisk"))
        made = {
            "kind": "compute#snapshot",
            "id": str(self.held.number()),
            "creationTimestamp": told_time(self.held.now()),
            "name": body["name"],
            "status": "CREATING",
            "sourceDisk": disk["selfLink"],
            "diskSizeGb": disk["sizeGb"],
            "selfLink": LINK + path,
        }
        self.held.resources[path] = made
        return self.held.begin(
            "insert", path, lambda: made.update(status="READY"), lambda _failure: self.held.drop(path)
        )

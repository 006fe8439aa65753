"""Instances of the double's Compute Engine."""

from __future__ import annotations

import copy
from typing import Any

import attrs

from shiftable_gcp._calls import Call
from shiftable_gcp._compute_catalogue import LINK, machine_type
from shiftable_gcp._compute_disks import Disks
from shiftable_gcp._compute_held import PAGE, Held, check_zone, last, path_of
from shiftable_gcp._compute_rules import check_instance, check_labels, resolved
from shiftable_gcp._compute_state import Failure, exists, fingerprint, invalid, not_ready, told_time
from shiftable_gcp._state import Refused

__all__ = ["Instances"]

_CONSOLE = 2**20

Json = dict[str, Any]


@attrs.frozen(eq=False)
class Instances:
    """Answers for instances."""

    held: Held
    disks: Disks

    def insert(self, call: Call) -> Json:
        """Answer instances.insert."""
        (project, zone), body = call.names, copy.deepcopy(call.body)
        check_zone(zone)
        check_instance(body)
        path = f"projects/{project}/zones/{zone}/instances/{body['name']}"
        if path in self.held.resources:
            raise exists(path)
        kind = self._checked_type(project, zone, body)
        cards = self._checked_cards(body, kind)
        self._check_network(project, zone, body)
        self._check_policies(project, zone, body, kind)
        disk = self.disks.boot(project, zone, body, kind)
        made = self._made(path, zone, body, kind, cards, disk)
        self.held.resources[path] = made
        self.held.resources[path_of(disk)] = disk

        def effect() -> Failure | None:
            return self._shortage(zone, kind) or self.held.over_quota(zone) or self._run(made)

        def undo(failure: Failure) -> None:
            if failure.leaves == "machine":
                made["status"] = "TERMINATED"
                return
            self.held.resources.pop(path, None)
            if failure.leaves == "disk":
                disk.pop("users", None)
            else:
                self.held.resources.pop(path_of(disk), None)

        return self.held.begin("insert", path, effect, undo)

    def _checked_type(self, project: str, zone: str, body: Json) -> Json:
        link = resolved(body.get("machineType"), project, "machineType")
        found = machine_type(project, zone, link.rpartition("/")[2])
        if found is None or link != f"projects/{project}/zones/{zone}/machineTypes/{found['name']}":
            raise invalid("machineType", body.get("machineType"), "The referenced resource does not exist.")
        return found

    def _checked_cards(self, body: Json, kind: Json) -> list[Json]:
        """Return the GPUs of an instance."""
        cards = [
            {"acceleratorType": card["acceleratorType"], "acceleratorCount": card["acceleratorCount"]}
            for card in body.get("guestAccelerators", ())
        ]
        if cards and not kind["name"].startswith("n1-"):
            raise invalid("guestAccelerators", cards, f"{kind['name']} takes no GPUs besides its own.")
        cards += [
            {"acceleratorType": card["guestAcceleratorType"], "acceleratorCount": card["guestAcceleratorCount"]}
            for card in kind.get("accelerators", ())
        ]
        if cards and body.get("scheduling", {}).get("onHostMaintenance") != "TERMINATE":
            why = "Instances with guest accelerators do not support live migration."
            raise Refused(400, "invalid", "", why)
        return cards

    def _check_network(self, project: str, zone: str, body: Json) -> None:
        for each in body["networkInterfaces"]:
            network = resolved(
                each.get("network") or "global/networks/default", project, "networkInterfaces[0].network"
            )
            if "network" in each or "subnetwork" not in each:
                self.held.check_network(network)
            if "subnetwork" in each:
                subnetwork = resolved(each["subnetwork"], project, "networkInterfaces[0].subnetwork")
                if f"/regions/{zone.rpartition('-')[0]}/" not in subnetwork:
                    raise invalid("networkInterfaces[0].subnetwork", subnetwork, "It is in another region.")

    def _check_policies(self, project: str, zone: str, body: Json, kind: Json) -> None:
        """Refuse policies of placement that there are not, or that such a machine cannot have."""
        family = kind["name"].partition("-")[0]
        for link in body.get("resourcePolicies", ()):
            policy = self.held.found(resolved(link, project, "resourcePolicies"))
            if f"/regions/{zone.rpartition('-')[0]}/" not in policy["selfLink"]:
                raise invalid("resourcePolicies", link, "It is in another region.")
            group = policy.get("groupPlacementPolicy", {})
            if group and family not in {"a2", "c2", "c2d", "g2", "n1", "n2", "n2d"}:
                raise invalid("machineType", kind["name"], "It does not support placement policies.")
            if group.get("collocation") and body.get("scheduling", {}).get("onHostMaintenance") != "TERMINATE":
                why = "Instances with a compact placement policy do not support live migration."
                raise Refused(400, "invalid", "", why)

    def _made(self, path: str, zone: str, body: Json, kind: Json, cards: list[Json], disk: Json) -> Json:
        project = path.split("/")[1]
        number = self.held.number()
        boot = {
            "kind": "compute#attachedDisk",
            "type": "PERSISTENT",
            "mode": "READ_WRITE",
            "source": disk["selfLink"],
            "deviceName": body["disks"][0].get("deviceName", "persistent-disk-0"),
            "index": 0,
            "boot": True,
            "autoDelete": body["disks"][0].get("autoDelete", False),
            "diskSizeGb": disk["sizeGb"],
            "architecture": kind["architecture"],
            "licenses": disk["licenses"],
            "interface": "SCSI",
        }
        network = body["networkInterfaces"][0].get("network", "global/networks/default")
        interface = {
            **body["networkInterfaces"][0],
            "kind": "compute#networkInterface",
            "name": "nic0",
            "network": LINK + resolved(network, project, "network"),
        }
        metadata = body.get("metadata", {})
        return {
            **{
                key: value
                for key, value in body.items()
                if key not in {"disks", "networkInterfaces", "guestAccelerators"}
            },
            "kind": "compute#instance",
            "id": str(number),
            "creationTimestamp": told_time(self.held.now()),
            "status": "PROVISIONING",
            "machineType": kind["selfLink"],
            "zone": f"{LINK}projects/{project}/zones/{zone}",
            "selfLink": LINK + path,
            "disks": [boot],
            "networkInterfaces": [interface],
            "labelFingerprint": fingerprint(body.get("labels", {})),
            "metadata": {
                **metadata,
                "kind": "compute#metadata",
                "fingerprint": fingerprint(metadata.get("items", [])),
            },
            "tags": {**body.get("tags", {}), "fingerprint": fingerprint(body.get("tags", {}))},
            "deletionProtection": body.get("deletionProtection", False),
            "resourcePolicies": [LINK + resolved(each, project, "") for each in body.get("resourcePolicies", ())],
            "startRestricted": False,
            **({"guestAccelerators": cards} if cards else {}),
        }

    def _run(self, made: Json) -> Failure | None:
        made["status"] = "RUNNING"
        made["lastStartTimestamp"] = told_time(self.held.now())
        number = int(made["id"])
        for interface in made["networkInterfaces"]:
            interface.setdefault("networkIP", f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}")
            for access in interface.get("accessConfigs", ()):
                access |= {
                    "kind": "compute#accessConfig",
                    "natIP": f"203.0.113.{number % 254 + 1}",
                    "networkTier": "PREMIUM",
                }
        self.held.consoles.setdefault(path_of(made), (0, b"Booting...\n"))
        return None

    def _shortage(self, zone: str, kind: Json) -> Failure | None:
        if not {zone, (zone, kind["name"])} & self.held.exhausted:
            return None
        project = kind["selfLink"].removeprefix(LINK).split("/")[1]
        message = (
            f"The zone 'projects/{project}/zones/{zone}' does not have enough resources available to fulfill the"
            " request.  Try a different zone, or try again later."
        )
        return Failure("ZONE_RESOURCE_POOL_EXHAUSTED", message, 503)

    def delete(self, call: Call) -> Json:
        """Answer instances.delete."""
        path, found = self.held.idle(call)
        if found["deletionProtection"]:
            message = "Invalid resource usage: 'Resource cannot be deleted if it's protected against deletion.'."
            raise Refused(400, "invalidUsage", "", message)
        before, found["status"] = found["status"], "STOPPING"

        def effect() -> None:
            del self.held.resources[path]
            self.held.consoles.pop(path, None)
            for each in found["disks"]:
                where = str(each["source"]).removeprefix(LINK)
                if each["autoDelete"]:
                    self.held.resources.pop(where, None)
                elif where in self.held.resources:
                    self.held.resources[where].pop("users", None)

        return self.held.begin("delete", path, effect, lambda _failure: found.update(status=before))

    def start(self, call: Call) -> Json:
        """Answer instances.start."""
        path, found = self.held.idle(call, "TERMINATED", "RUNNING")
        if found["status"] == "RUNNING":
            return self.held.begin("start", path, lambda: None)
        found["status"] = "PROVISIONING"
        zone, kind = call.names[1], last(found["machineType"])

        def effect() -> Failure | None:
            told = machine_type(call.names[0], zone, kind) or {}
            return self._shortage(zone, told) or self.held.over_quota(zone) or self._run(found)

        return self.held.begin("start", path, effect, lambda _failure: found.update(status="TERMINATED"))

    def stop(self, call: Call) -> Json:
        """Answer instances.stop."""
        path, found = self.held.idle(call, "RUNNING", "TERMINATED")
        before, found["status"] = found["status"], "STOPPING"

        def effect() -> None:
            found["status"], found["lastStopTimestamp"] = "TERMINATED", told_time(self.held.now())
            for interface in found["networkInterfaces"]:
                for access in interface.get("accessConfigs", ()):
                    access.pop("natIP", None)

        return self.held.begin("stop", path, effect, lambda _failure: found.update(status=before))

    def suspend(self, call: Call) -> Json:
        """Answer instances.suspend."""
        path, found = self.held.idle(call, "RUNNING")
        found["status"] = "SUSPENDING"
        return self.held.begin("suspend", path, lambda: found.update(status="SUSPENDED"))

    def resume(self, call: Call) -> Json:
        """Answer instances.resume."""
        path, found = self.held.idle(call, "SUSPENDED")
        return self.held.begin("resume", path, lambda: self._run(found))

    def reset(self, call: Call) -> Json:
        """Answer instances.reset."""
        path, _ = self.held.idle(call, "RUNNING")
        start, text = self.held.consoles.get(path, (0, b""))
        self.held.consoles[path] = (start, text + b"Booting again...\n")
        return self.held.begin("reset", path, lambda: None)

    def set_type(self, call: Call) -> Json:
        """Answer instances.setMachineType."""
        path, found = self.held.idle(call, "TERMINATED")
        kind = self._checked_type(call.names[0], call.names[1], call.body)
        if kind["architecture"] != found["disks"][0]["architecture"]:
            raise invalid("machineType", kind["name"], "It is of another architecture.")
        return self.held.begin("setMachineType", path, lambda: found.update(machineType=kind["selfLink"]))

    def set_labels(self, call: Call) -> Json:
        """Answer instances.setLabels, and disks.setLabels, which does the same."""
        path, found = self.held.idle(call)
        if call.body.get("labelFingerprint") != found["labelFingerprint"]:
            message = "Labels fingerprint either invalid or resource labels have changed"
            raise Refused(412, "conditionNotMet", "", message)
        labels = call.body.get("labels", {})
        check_labels(labels)
        return self.held.begin(
            "setLabels", path, lambda: found.update(labels=labels, labelFingerprint=fingerprint(labels))
        )

    def serial_port(self, call: Call) -> Json:
        """Answer instances.getSerialPortOutput."""
        path = self.held.path(call)
        found = self.held.found(path)
        if found["status"] not in {"RUNNING", "STAGING", "STOPPING"}:
            raise not_ready(path)
        lost, text = self.held.consoles.get(path, (0, b""))
        start = int(call.query.get("start", 0))
        first = max(lost, start if start >= 0 else lost + len(text) + start)
        cut = text[first - lost :][: self.held.page_size * 100 if self.held.page_size < PAGE else _CONSOLE]
        return {
            "kind": "compute#serialPortOutput",
            "contents": cut.decode(),
            "start": str(first),
            "next": str(first + len(cut)),
            "selfLink": f"{LINK}{path}/serialPort",
        }

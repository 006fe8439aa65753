"""The Linodes, types, images and Cloud Firewalls of the double of Linode, as far as this provider speaks of them.

What Linode takes is known from its API reference (v4) and from libcloud's recorded answers; the words of refusals are
Linode's where its own guides and clients quote them: a taken label, a full account, a Linode that is busy. The types
and their prices are a few of Linode's, of 2020 and 2024.
"""

from __future__ import annotations

import binascii
import re
from base64 import b64decode
from collections.abc import Callable
from datetime import datetime
from ipaddress import ip_network
from typing import Any

import attrs

from shiftable_libcloud._double_state import Refused, Routed, Routes, Row

__all__ = ["LinodeCloud"]

_REGION = "eu-central"
_REGIONS = tuple(
    {"id": id_, "country": country, "status": "ok", "site_type": "core", "capabilities": [*capabilities]}
    for id_, country, *capabilities in (
        (_REGION, "de", "Linodes", "Cloud Firewall", "Metadata"),
        ("us-east", "us", "Linodes", "Cloud Firewall", "Metadata"),
        ("storage-only", "us", "Object Storage"),
    )
)
_LABEL = re.compile(r"(?=.{3,64}$)[a-zA-Z0-9](?:(?!--|__|\.\.)[a-zA-Z0-9._-])*[a-zA-Z0-9]")
_WALL_LABEL = re.compile(r"(?=.{3,32}$)[a-zA-Z0-9](?:(?!--|__|\.\.)[a-zA-Z0-9._-])*[a-zA-Z0-9]")
_RULE_LABEL = re.compile(r"[a-zA-Z0-9._-]{3,32}")
_PORTS = re.compile(r"\d{1,5}(?:-\d{1,5})?(?:, ?\d{1,5}(?:-\d{1,5})?)*")
_MOST_USER_DATA, _MOST_RULES, _MOST_NETWORKS = 16 * 1024, 25, 255
_LEAST_TAG, _LONGEST_TAG = 3, 50
_IMAGES = ("linode/debian12", "linode/debian13", "linode/ubuntu22.04", "linode/ubuntu24.04", "linode/fedora42")


def _refused(reason: str, field: str = "") -> Refused:
    return Refused(400, field, reason)


def _missing() -> Refused:
    return Refused(404, "", "Not found")


def _type(id: str, cpus: int, memory: int, disk: int, hourly: float, **more: Any) -> Row:  # noqa: ANN401  JSON
    return {
        "id": id,
        "label": id,
        "class": id.split("-")[1],
        "vcpus": cpus,
        "memory": memory,
        "disk": disk,
        "gpus": 0,
        "transfer": 1000,
        "network_out": 1000,
        "price": {"hourly": hourly, "monthly": round(hourly * 666.7)},
        "region_prices": [{"id": "br-gru", "hourly": hourly * 1.4, "monthly": 7.0}],
        "successor": None,
        **more,
    }


_TYPES = (
    _type("g6-nanode-1", 1, 1024, 25_600, 0.0075),
    _type("g6-standard-1", 1, 2048, 51_200, 0.018),
    _type("g6-standard-2", 2, 4096, 81_920, 0.036),
    _type("g6-standard-4", 4, 8192, 163_840, 0.072),
    _type("g6-standard-6", 8, 16_384, 327_680, 0.144),
    _type("g7-premium-2", 2, 4096, 81_920, 0.0001),  # sold out in the region
    _type("g1-gpu-rtx6000-1", 8, 32_768, 655_360, 0.0001, gpus=1),
    _type(
        "g6-dedicated-16",
        16,
        32_768,
        655_360,
        0.432,
        region_prices=[{"id": _REGION, "hourly": 0.5, "monthly": 333.0}],
    ),
)


@attrs.define
class LinodeCloud:
    """Answers for machines and what belongs to them.

    Attributes:
        linodes: by id, as the API tells them.
        firewalls: by id.
        user_data: what each Linode was given, which no call tells.
        passwords: of root, which no call tells.
        events: of the account, the newest first.
        polls: how often a new Linode is looked at before it boots.
        erring: labels of Linodes whose creation ends in an error.
        limit: how many Linodes the account may have.
    """

    now: Callable[[], datetime]
    linodes: dict[int, Row] = attrs.Factory(dict)
    firewalls: dict[int, Row] = attrs.Factory(dict)
    user_data: dict[int, bytes | None] = attrs.Factory(dict)
    passwords: dict[int, str] = attrs.Factory(dict)
    events: list[Row] = attrs.Factory(list)
    polls: int = 1
    erring: frozenset[str] = frozenset()
    limit: int = 1000
    _looks: dict[int, int] = attrs.Factory(dict)
    _numbers: int = 60_000_000
    routes: Routes = attrs.field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        linode, wall = r"/v4/linode/instances/(\d+)", r"/v4/networking/firewalls/(\d+)"
        self.routes = Routes(
            (
                ("GET", "/v4/linode/instances", "linodes.list", "data", self._list),
                ("POST", "/v4/linode/instances", "linodes.create", "", self._create),
                ("GET", linode, "linodes.get", "", lambda call: self._looked(self._linode(call)) or _gone()),
                ("PUT", linode, "linodes.update", "", self._update),
                ("DELETE", linode, "linodes.delete", "", self._delete),
                ("POST", f"{linode}/reboot", "linodes.reboot", "", self._reboot),
                ("GET", "/v4/linode/types", "types.list", "data", lambda _call: list(_TYPES)),
                ("GET", "/v4/regions", "regions.list", "data", lambda _call: list(_REGIONS)),
                ("GET", "/v4/regions/([a-z0-9-]+)/availability", "regions.availability", "", self._available),
                ("GET", "/v4/images", "images.list", "data", lambda _call: [*map(_image, _IMAGES)]),
                ("GET", "/v4/images/(.+)", "images.get", "", self._one_image),
                ("GET", "/v4/account/events", "events.list", "data", self._events),
                ("GET", "/v4/networking/firewalls", "firewalls.list", "data", lambda _call: [*self.firewalls.values()]),
                ("POST", "/v4/networking/firewalls", "firewalls.create", "", self._create_wall),
                ("PUT", wall, "firewalls.update", "", self._update_wall),
                ("DELETE", wall, "firewalls.delete", "", self._delete_wall),
                ("PUT", f"{wall}/rules", "firewalls.rules", "", self._set_rules),
                ("POST", f"{wall}/devices", "firewalls.attach", "", self._attach),
            )
        )

    def forget(self) -> None:
        """Delete everything."""
        for held in (self.linodes, self.firewalls, self.user_data, self.passwords, self.events, self._looks):
            held.clear()
        self.polls, self.erring, self.limit = 1, frozenset(), 1000

    # Linodes

    def _one_image(self, call: Routed) -> Row:
        return _image(call.names[0]) if call.names[0] in _IMAGES else _gone()

    def _list(self, call: Routed) -> list[Row]:
        wanted = call.query
        rows = [
            row
            for row in self.linodes.values()
            if wanted.get("tags", "").lower() in {"", *map(str.lower, row["tags"])}
            and wanted.get("label", row["label"]) == row["label"]
        ]
        return [seen for seen in map(self._looked, rows) if seen is not None]

    def _create(self, call: Routed) -> Row:
        return self.made(call.body)

    def made(self, body: Row) -> Row:
        """Make a Linode."""
        self._check(body)
        wall = self.firewalls.get(body.get("firewall_id") or 0)
        if body.get("firewall_id") is not None and wall is None:
            raise _refused("The firewall does not exist", "firewall_id")
        if len(self.linodes) >= self.limit:
            raise _refused("Account Limit reached. Please open a support ticket.")
        size = next(each for each in _TYPES if each["id"] == body["type"])
        number = self._number()
        self._looks[number] = self.polls
        self.user_data[number] = _decoded((body.get("metadata") or {}).get("user_data"))
        self.passwords[number] = body["root_pass"]
        self.linodes[number] = row = {
            "id": number,
            "label": body["label"],
            "group": "",
            "hypervisor": "kvm",
            "watchdog_enabled": True,
            "alerts": {"cpu": 90, "io": 10_000, "network_in": 10, "network_out": 10, "transfer_quota": 80},
            "backups": {"enabled": False, "last_successful": None, "schedule": {"day": None, "window": None}},
            "status": "provisioning",
            "created": self._time(),
            "updated": self._time(),
            "type": size["id"],
            "ipv4": [f"203.0.113.{number % 250 + 2}"],
            "ipv6": f"2001:db8::f03c:{number:x}/128".replace(f"{number:x}", f"{number & 0xFFFF:x}"),
            "image": body["image"],
            "region": body["region"],
            "specs": {each: size[each] for each in ("disk", "memory", "vcpus", "gpus", "transfer")},
            "tags": list(body.get("tags") or ()),
            "disk_encryption": body.get("disk_encryption", "enabled"),
            "interface_generation": body.get("interface_generation", "legacy_config"),
        }
        if body.get("private_ip"):
            row["ipv4"].append(f"192.168.{128 + number // 250 % 100}.{number % 250 + 2}")
        if wall is not None:
            wall["entities"].append({"id": number, "type": "linode", "label": row["label"], "url": ""})
        status = "failed" if row["label"] in self.erring else "finished"
        entity = {"id": number, "type": "linode", "label": row["label"]}
        self.events.insert(0, {"id": self._number(), "action": "linode_create", "status": status, "entity": entity})
        return dict(row)

    def _check(self, body: Row) -> None:
        """Refuse what Linode would."""
        label, tags = body.get("label"), body.get("tags") or []
        known = {each["id"] for each in _TYPES} - {"g7-premium-2"}
        password = str(body.get("root_pass") or "")
        rules = (
            (isinstance(label, str) and bool(_LABEL.fullmatch(label)), "label", "Label is not valid"),
            (body.get("region") == _REGION, "region", "region is not valid"),
            (body.get("type") in known, "type", "A valid plan type by that ID was not found"),
            (body.get("image") in _IMAGES, "image", "Image is not valid"),
            (7 <= len(password) <= 128 and password != password.lower(), "root_pass", "Password is too weak"),
            (body.get("disk_encryption") in {None, "enabled", "disabled"}, "disk_encryption", "Must be one of"),
            (body.get("interface_generation") in {None, "legacy_config"}, "interface_generation", "not in the double"),
        )
        for holds, field, reason in rules:
            if not holds:
                raise _refused(reason, field)
        _check_tags(tags)
        if label in {row["label"] for row in self.linodes.values()}:
            raise _refused("Label must be unique among your linodes", "label")

    def _looked(self, row: Row) -> Row | None:
        """Let a Linode come nearer to where it is going, and return it, unless it is gone."""
        number = row["id"]
        self._looks[number] = self._looks.get(number, 0) - 1
        if self._looks[number] < 0:
            if row["status"] == "deleting":
                del self.linodes[number]
                return None
            if row["label"] not in self.erring:
                following = {"provisioning": "booting", "booting": "running", "rebooting": "running"}
                row["status"] = following.get(row["status"], row["status"])
        return dict(row)

    def _linode(self, call: Routed) -> Row:
        row = self.linodes.get(int(call.names[0]))
        if row is None:
            raise _missing()
        return row

    def _update(self, call: Routed) -> Row:
        row = self._linode(call)
        _check_tags(call.body.get("tags") or [])
        row["tags"] = list(call.body.get("tags") or ())
        return dict(row)

    def _delete(self, call: Routed) -> Row:
        row = self._linode(call)
        row["status"] = "deleting"
        self._looks[row["id"]] = 1
        for wall in self.firewalls.values():
            wall["entities"] = [each for each in wall["entities"] if each["id"] != row["id"]]
        return {}

    def _reboot(self, call: Routed) -> Row:
        row = self._linode(call)
        if row["status"] != "running":
            raise _refused("Linode busy.")
        row["status"], self._looks[row["id"]] = "rebooting", 1
        return {}

    def _available(self, call: Routed) -> list[Row]:
        plans = ("g7-premium-2", "g6-dedicated-16")
        return [{"region": call.names[0], "plan": plan, "available": plan != "g7-premium-2"} for plan in plans]

    def _events(self, call: Routed) -> list[Row]:
        wanted = call.query
        return [
            each
            for each in self.events
            if wanted.get("action", each["action"]) == each["action"]
            and str(wanted.get("entity.id", each["entity"]["id"])) == str(each["entity"]["id"])
        ]

    # firewalls

    def _create_wall(self, call: Routed) -> Row:
        body = call.body
        label = str(body.get("label") or "")
        if not _WALL_LABEL.fullmatch(label):
            raise _refused("Label is not valid", "label")
        if label in {wall["label"] for wall in self.firewalls.values()}:
            raise _refused("Label must be unique among your Cloud Firewalls", "label")
        _check_tags(body.get("tags") or [])
        number = self._number()
        self.firewalls[number] = wall = {
            "id": number,
            "label": label,
            "status": "enabled",
            "created": self._time(),
            "updated": self._time(),
            "tags": list(body.get("tags") or ()),
            "rules": _checked_rules(body.get("rules") or {}),
            "entities": [],
        }
        return dict(wall)

    def _wall(self, call: Routed) -> Row:
        wall = self.firewalls.get(int(call.names[0]))
        if wall is None:
            raise _missing()
        return wall

    def _update_wall(self, call: Routed) -> Row:
        wall = self._wall(call)
        if call.body.get("status") not in {"enabled", "disabled"}:
            raise _refused("Must be one of enabled, disabled", "status")
        wall["status"] = call.body["status"]
        return dict(wall)

    def _delete_wall(self, call: Routed) -> Row:
        del self.firewalls[self._wall(call)["id"]]
        return {}

    def _set_rules(self, call: Routed) -> Row:
        wall = self._wall(call)
        wall["rules"] = _checked_rules(call.body)
        return dict(wall["rules"])

    def _attach(self, call: Routed) -> Row:
        wall, row = self._wall(call), self.linodes.get(int(call.body.get("id") or 0))
        if row is None or call.body.get("type") != "linode":
            raise _refused("The device does not exist", "id")
        if any(each["id"] == row["id"] for other in self.firewalls.values() for each in other["entities"]):
            raise _refused("The device is already assigned to a firewall", "id")
        wall["entities"].append({"id": row["id"], "type": "linode", "label": row["label"], "url": ""})
        return {"id": self._number(), "entity": wall["entities"][-1]}

    def _number(self) -> int:
        self._numbers += 1
        return self._numbers

    def _time(self) -> str:
        return f"{self.now():%Y-%m-%dT%H:%M:%S}"


def _gone() -> Row:
    raise _missing()


def _decoded(data: str | None) -> bytes | None:
    if data is None:
        return None
    try:
        found = b64decode(data, validate=True)
    except (binascii.Error, ValueError) as exc:
        raise _refused("user_data must be base64", "metadata.user_data") from exc
    if len(found) > _MOST_USER_DATA:
        raise _refused("user_data is too long", "metadata.user_data")
    return found


def _check_tags(tags: list[str]) -> None:
    for number, tag in enumerate(tags):
        if not _LEAST_TAG <= len(tag) <= _LONGEST_TAG:
            raise _refused(f"Tag '{tag}' must be between 3 and 50 characters", f"tags[{number}]")


def _checked_rules(rules: Row) -> Row:
    if rules.get("inbound_policy") not in {"ACCEPT", "DROP"} or rules.get("outbound_policy") not in {"ACCEPT", "DROP"}:
        raise _refused("Must be one of ACCEPT, DROP", "rules.inbound_policy")
    every = [*(rules.get("inbound") or ()), *(rules.get("outbound") or ())]
    if len(every) > _MOST_RULES:
        raise _refused("A Firewall can have up to 25 rules across its inbound and outbound rulesets.", "rules")
    for rule in every:
        addresses = [each for found in (rule.get("addresses") or {}).values() for each in found]
        if rule.get("protocol") not in {"TCP", "UDP", "ICMP"} or rule.get("action") not in {"ACCEPT", "DROP"}:
            raise _refused("Must be one of", "rules.inbound")
        if not _PORTS.fullmatch(rule.get("ports") or "") or not _RULE_LABEL.fullmatch(rule.get("label") or ""):
            raise _refused("Ports and label are not valid", "rules.inbound")
        if not addresses or len(addresses) > _MOST_NETWORKS:
            raise _refused("A rule needs 1 to 255 addresses", "rules.inbound")
        for network in addresses:
            ip_network(network)
    kept = {"inbound": list(rules.get("inbound") or ()), "outbound": list(rules.get("outbound") or ())}
    return {**kept, "inbound_policy": rules["inbound_policy"], "outbound_policy": rules["outbound_policy"]}


def _image(id: str) -> Row:
    return {
        "id": id,
        "label": id,
        "is_public": True,
        "size": 1500,
        "status": "available",
        "created": "2026-01-05T12:00:00",
        "capabilities": ["cloud-init"],
        "deprecated": False,
    }

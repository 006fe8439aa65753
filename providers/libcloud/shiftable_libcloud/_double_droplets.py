"""The double's droplets, sizes, images, tags and Cloud Firewalls, as far as this provider speaks of them."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime
from typing import Any

import attrs

from shiftable_libcloud._double_state import Refused, Routed, Routes, Row, missing, unprocessable

__all__ = ["DropletCloud"]

_REGION = {"slug": "fra1", "name": "Frankfurt 1", "available": True, "features": [], "sizes": []}
_HOST = re.compile(r"[a-zA-Z0-9](?:[a-zA-Z0-9.-]{0,253}[a-zA-Z0-9])?")
_TAG = re.compile(r"[a-zA-Z0-9:_-]{1,255}")
_MOST_USER_DATA = 64 * 1024
_IMAGES = ("debian-12-x64", "debian-13-x64", "ubuntu-22-04-x64", "ubuntu-24-04-x64", "fedora-42-x64")


def _size(cpus: int, memory: int, disk: int, monthly: float, **more: Any) -> Row:  # noqa: ANN401  JSON
    gib = f"{memory // 1024}gb" if memory >= 1024 else f"{memory}mb"
    return {
        "slug": f"s-{cpus}vcpu-{gib}" + ("-10gb" if disk == 10 else ""),
        "memory": memory,
        "vcpus": cpus,
        "disk": disk,
        "transfer": 1.0,
        "price_monthly": monthly,
        "price_hourly": round(monthly / 672, 5),
        "regions": ["fra1", "nyc3"],
        "available": True,
        "description": "Basic",
        **more,
    }


_SIZES = (
    _size(1, 512, 10, 4.0),
    _size(1, 1024, 25, 6.0),
    _size(1, 2048, 50, 12.0),
    _size(2, 2048, 60, 18.0),
    _size(2, 4096, 80, 24.0),
    _size(4, 8192, 160, 48.0),
    _size(8, 16384, 320, 96.0),
    _size(16, 32768, 400, 1.0, available=False, slug="s-sold-out"),
    _size(16, 32768, 400, 1.0, regions=["sfo3"], slug="s-elsewhere"),
    _size(8, 131_072, 400, 1.0, slug="gpu-h100x1-80gb", gpu_info={"count": 1, "model": "nvidia_h100"}),
)


@attrs.define
class DropletCloud:
    """Answers for machines and what belongs to them.

    Attributes:
        droplets: by id, as the API tells them.
        firewalls: by id.
        tags: those that exist; they stay when nothing bears them any more.
        user_data: what each droplet was given, which no call tells.
        polls: how often a new droplet is looked at before it runs.
        erring: names of droplets whose creation ends in an error.
        limit: how many droplets the account may have.
    """

    now: Callable[[], datetime]
    droplets: dict[int, Row] = attrs.Factory(dict)
    firewalls: dict[str, Row] = attrs.Factory(dict)
    tags: set[str] = attrs.Factory(set)
    user_data: dict[int, str | None] = attrs.Factory(dict)
    polls: int = 1
    erring: frozenset[str] = frozenset()
    limit: int = 1000
    _looks: dict[int, int] = attrs.Factory(dict)
    _numbers: int = 500_000_000
    routes: Routes = attrs.field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        droplet, wall = r"/v2/droplets/(\d+)", "/v2/firewalls/([a-z0-9-]+)"
        self.routes = Routes(
            (
                ("GET", "/v2/droplets", "droplets.list", "droplets", self._list),
                ("POST", "/v2/droplets", "droplets.create", "", self._create),
                ("GET", droplet, "droplets.get", "", lambda call: {"droplet": self._looked(self._droplet(call))}),
                ("DELETE", droplet, "droplets.delete", "", self._delete),
                ("GET", f"{droplet}/actions", "actions.list", "actions", self._actions),
                ("POST", f"{droplet}/actions", "actions.create", "", self._act),
                ("GET", "/v2/sizes", "sizes.list", "sizes", lambda _call: list(_SIZES)),
                ("GET", "/v2/images", "images.list", "images", self._images),
                ("GET", "/v2/images/([^/]+)", "images.get", "", self._one_image),
                ("POST", "/v2/tags", "tags.create", "", self._create_tag),
                ("DELETE", "/v2/tags/([^/]+)", "tags.delete", "", self._delete_tag),
                ("POST", "/v2/tags/([^/]+)/resources", "tags.attach", "", self._attach_tag),
                ("DELETE", "/v2/tags/([^/]+)/resources", "tags.detach", "", self._detach_tag),
                ("GET", "/v2/firewalls", "firewalls.list", "firewalls", lambda _call: list(self.firewalls.values())),
                ("POST", "/v2/firewalls", "firewalls.create", "", self._create_wall),
                ("PUT", wall, "firewalls.update", "", self._update_wall),
                ("DELETE", wall, "firewalls.delete", "", self._delete_wall),
            )
        )

    def forget(self) -> None:
        """Delete everything."""
        for held in (self.droplets, self.firewalls, self.tags, self.user_data, self._looks):
            held.clear()
        self.polls, self.erring, self.limit = 1, frozenset(), 1000

    # droplets

    def _list(self, call: Routed) -> list[Row]:
        wanted = call.query
        found = [
            row
            for row in self.droplets.values()
            if wanted.get("tag_name", "").lower() in {"", *map(str.lower, row["tags"])}
            and wanted.get("name", row["name"]) == row["name"]
        ]
        return [self._looked(row) for row in found]

    def _create(self, call: Routed) -> Row:
        body = call.body
        name, tags, data = body.get("name"), body.get("tags") or [], body.get("user_data")
        size = next((each for each in _SIZES if each["slug"] == body.get("size")), None)
        if not isinstance(name, str) or not _HOST.fullmatch(name):
            raise unprocessable("Only valid hostname characters are allowed. (a-z, A-Z, 0-9, . and -)")
        if body.get("region") != _REGION["slug"]:
            raise unprocessable("You specified an invalid region for Droplet creation.")
        if size is None or not size["available"] or _REGION["slug"] not in size["regions"]:
            raise unprocessable("You specified an invalid size for Droplet creation.")
        if body.get("image") not in _IMAGES:
            raise unprocessable("You specified an invalid image for Droplet creation.")
        if not all(_TAG.fullmatch(tag) for tag in tags):
            raise unprocessable("Tag names may only contain letters, numbers, colons, dashes and underscores")
        if data is not None and (not isinstance(data, str) or len(data.encode()) > _MOST_USER_DATA):
            raise unprocessable("User data may not exceed 64 KiB")
        if len(self.droplets) >= self.limit:
            raise unprocessable("creating this/these droplet(s) will exceed your droplet limit")
        self._numbers += 1
        number = self._numbers
        self.tags |= set(tags)
        self._looks[number] = self.polls
        self.user_data[number] = data
        v4 = [{"ip_address": f"10.114.{number // 250 % 250}.{number % 250 + 2}", "type": "private"}]
        if body.get("public_networking", True):
            v4.append({"ip_address": f"203.0.113.{number % 250 + 2}", "type": "public"})
        self.droplets[number] = {
            "id": number,
            "name": name,
            "memory": size["memory"],
            "vcpus": size["vcpus"],
            "disk": size["disk"],
            "locked": False,
            "status": "new",
            "created_at": f"{self.now():%Y-%m-%dT%H:%M:%SZ}",
            "features": ["droplet_agent", "private_networking"],
            "backup_ids": [],
            "snapshot_ids": [],
            "volume_ids": [],
            "image": _image(body["image"]),
            "size": size,
            "size_slug": size["slug"],
            "networks": {"v4": v4, "v6": []},
            "region": _REGION,
            "tags": list(tags),
            "vpc_uuid": body.get("vpc_uuid") or "5a4981aa-9653-4bd1-bef5-d6bff52042e4",
        }
        return {"droplet": {**self.droplets[number], "networks": {"v4": [], "v6": []}}}

    def _looked(self, row: Row) -> Row:
        """Let a new droplet come nearer to its end, and return it."""
        number = row["id"]
        if row["status"] == "new" and row["name"] not in self.erring:
            self._looks[number] -= 1
            if self._looks[number] < 0:
                row["status"] = "active"
        return dict(row)

    def _delete(self, call: Routed) -> None:
        del self.droplets[self._droplet(call)["id"]]

    def _actions(self, call: Routed) -> list[Row]:
        row = self._droplet(call)
        status = {"new": "errored" if row["name"] in self.erring else "in-progress"}.get(row["status"], "completed")
        return [{"id": 1, "type": "create", "status": status, "resource_id": row["id"]}]

    def _act(self, call: Routed) -> Row:
        row = self._droplet(call)
        if call.body.get("type") != "reboot":
            raise unprocessable("not in the double")
        if row["status"] != "active":
            raise unprocessable("Droplet is currently off. Please power it on to run this event.")
        return {"action": {"id": 2, "type": "reboot", "status": "in-progress", "resource_id": row["id"]}}

    def _droplet(self, call: Routed) -> Row:
        row = self.droplets.get(int(call.names[0]))
        if row is None:
            raise missing()
        return row

    def _images(self, call: Routed) -> list[Row]:
        return [] if call.query.get("private") == "true" else [_image(slug) for slug in _IMAGES]

    def _one_image(self, call: Routed) -> Row:
        if call.names[0] not in _IMAGES:
            raise missing()
        return {"image": _image(call.names[0])}

    # tags and firewalls

    def _create_tag(self, call: Routed) -> Row:
        name = str(call.body.get("name") or "")
        if not _TAG.fullmatch(name):
            raise unprocessable("Tag names may only contain letters, numbers, colons, dashes and underscores")
        if name.lower() in set(map(str.lower, self.tags)):
            raise unprocessable("Tag name already exists")
        self.tags.add(name)
        return {"tag": {"name": name, "resources": {"count": 0}}}

    def _delete_tag(self, call: Routed) -> None:
        (name,) = call.names
        if name not in self.tags:
            raise missing()
        self.tags.discard(name)
        for row in (*self.droplets.values(), *self.firewalls.values()):
            row["tags"] = [tag for tag in row["tags"] if tag != name]

    def _attach_tag(self, call: Routed) -> None:
        for row in self._borne(call):
            row["tags"] = [*row["tags"], *(name for name in call.names if name not in row["tags"])]

    def _detach_tag(self, call: Routed) -> None:
        for row in self._borne(call):
            row["tags"] = [tag for tag in row["tags"] if tag not in call.names]

    def _borne(self, call: Routed) -> list[Row]:
        """Return the droplets that a call about a tag names."""
        if call.names[0] not in self.tags:
            raise missing()
        named = [each for each in call.body.get("resources") or [] if each["resource_type"] == "droplet"]
        found = [self.droplets.get(int(each["resource_id"])) for each in named]
        if None in found or not found:
            raise missing()
        return [row for row in found if row is not None]

    def _create_wall(self, call: Routed) -> Row:
        body = self._wall(call, None)
        self._numbers += 1
        id_ = f"fb6045f1-cf1d-4ca3-bfac-{self._numbers:012}"
        created = f"{self.now():%Y-%m-%dT%H:%M:%SZ}"
        self.firewalls[id_] = {"id": id_, "status": "succeeded", "created_at": created, **body}
        return {"firewall": self.firewalls[id_]}

    def _update_wall(self, call: Routed) -> Row:
        row = self._found_wall(call)
        row.update(self._wall(call, row["id"]))
        return {"firewall": row}

    def _delete_wall(self, call: Routed) -> None:
        del self.firewalls[self._found_wall(call)["id"]]

    def _found_wall(self, call: Routed) -> Row:
        row = self.firewalls.get(call.names[0])
        if row is None:
            raise missing()
        return row

    def _wall(self, call: Routed, id: str | None) -> Row:
        body = call.body
        inbound, outbound = body.get("inbound_rules") or [], body.get("outbound_rules") or []
        if any(row["name"] == body.get("name") and row["id"] != id for row in self.firewalls.values()):
            raise Refused(409, "conflict", "duplicate name")
        if not set(body.get("tags") or ()) <= self.tags:
            raise unprocessable("tag does not exist")
        if not inbound and not outbound:
            raise unprocessable("must have at least one inbound or outbound rule")
        kept = [
            {**rule, "ports": "0"} if rule.get("ports") in {"all", "1-65535"} else dict(rule) for rule in inbound
        ]  # as the API tells "all"
        return {
            "name": body["name"],
            "inbound_rules": kept,
            "outbound_rules": outbound,
            "droplet_ids": [],
            "tags": list(body.get("tags") or ()),
        }


def _image(slug: str) -> Row:
    return {
        "id": 100_000_000 + _IMAGES.index(slug),
        "name": slug,
        "distribution": slug.split("-", maxsplit=1)[0].capitalize(),
        "slug": slug,
        "public": True,
        "regions": [_REGION["slug"]],
        "created_at": "2026-01-05T12:00:00Z",
        "min_disk_size": 7,
        "type": "base",
        "status": "available",
    }

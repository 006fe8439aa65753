"""Machines of Linode, through libcloud.

libcloud 3.9's driver lists, deletes and reboots. Its ``create_node`` knows no Cloud Firewall and no encrypted disk,
takes no name that begins with a digit, and wants a password of the caller; its listings have pages of 25, which are
counted once, and cannot be asked for one tag or one label: those are calls over its connection here.
"""

from __future__ import annotations

import json
import re
import secrets
import threading
from base64 import b64encode
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import cache
from ipaddress import IPv4Network, ip_address, ip_interface, ip_network
from typing import Any, ClassVar, cast

import attrs
from libcloud.compute.drivers.linode import LinodeNodeDriverV4

from shiftable.compute import cloud_init
from shiftable.compute._firewall import Protocol, normal
from shiftable.compute.driver import (
    ComputeFeatures,
    Debris,
    FleetSpec,
    Image,
    MachineInfo,
    MachineState,
    PriceSource,
    Rule,
    Size,
)
from shiftable.errors import AlreadyExists, Conflict, InvalidArgument
from shiftable.features import Limit
from shiftable.paging import Page
from shiftable_libcloud._connection import Broken, Refusal, SafeDriver
from shiftable_libcloud._linode import LinodeConnection
from shiftable_libcloud._machines import (
    FLEET,
    MIB,
    OPEN,
    TRIES,
    Calls,
    HosterCompute,
    Json,
    fail,
    gone,
    labels_of,
    number_id,
    own_tags,
    persistently,
    tagged,
    tags_changed,
    token_of,
    told_image,
    user_of,
)

__all__ = ["FEATURES", "LinodeDriver", "Linodes"]

_FIREWALL = "fleet-"
_LONGEST_FIREWALL, _LONGEST_TAG, _MOST_RULES = 32, 50, 25

FEATURES = ComputeFeatures(
    title="Linode",
    create=True,
    arches=frozenset({"x86_64"}),
    gpus=False,
    stop=False,  # a Linode that is off costs as much as one that runs
    resize=False,
    console=False,
    disks=False,
    snapshots=False,
    spot=False,
    public_ip=True,
    open_ports=True,
    user_data=True,
    zones=False,
    network=False,  # in a VPC cloud-init gets no user data (Linode's guide to VPCs, May 2024)
    identity=False,
    prices=True,
    debris=True,
    relabel=True,
    ssh=True,
    max_name=Limit(_LONGEST_FIREWALL - len(_FIREWALL), "Linode API reference, Create a firewall, label: 32 characters"),
    max_user_data=Limit(16 * 1024, "chosen, as Amazon EC2; Linode's reference was not found to name one"),
    price_list=PriceSource("Linode's API, /v4/linode/types, asked once an hour"),
)

_ALIASES = {
    "debian-12": "linode/debian12",
    "debian-13": "linode/debian13",
    "ubuntu-22.04": "linode/ubuntu22.04",
    "ubuntu-24.04": "linode/ubuntu24.04",
}
_STATES: Mapping[str, MachineState] = {
    "provisioning": "creating",
    "booting": "starting",
    "running": "running",
    "offline": "stopped",
    "rebooting": "rebooting",
    "shutting_down": "stopping",
    "deleting": "deleting",
    "stopped": "suspended",  # by Linode, for a bill
    "billing_suspension": "suspended",
}
_PAGE = 200  # 500 are allowed; 250 machines are two calls all the same
_LATE = timedelta(minutes=15)
_GUARD = "not-from-outside"
"""What the rules are labelled with that keep the internet out of a fleet without public addresses."""
_INSIDE = "shiftable-inside:"
"""Begins a tag of machines that the internet is kept out of."""
_PRIVATE = IPv4Network("192.168.128.0/17")
"""Linode's private addresses, of one data centre."""
_PORTS = re.compile(r"(\d+)(?:-(\d+))?")


class Linodes(Calls, SafeDriver, LinodeNodeDriverV4):
    """libcloud's driver with more calls."""

    connectionCls = LinodeConnection  # noqa: N815  libcloud's name

    def page(self, path: str, listed: str, number: int, **query: str | int) -> tuple[list[Json], bool]:
        """Return one page of a listing, and whether more follow; what is looked for goes into a header."""
        headers = {"X-Filter": json.dumps(query)} if query else {}
        params = {"page": number, "page_size": _PAGE}
        found = self.connection.request(path, params=params, headers=headers).object
        return found[listed], found["page"] < found["pages"]


@attrs.define
class LinodeDriver(HosterCompute[Linodes]):
    """Linodes in one region.

    A fleet is a tag, ``shiftable-fleet:web``; labels are tags, too. The Cloud Firewall ``fleet-web`` is around each
    machine from the moment that it is made, and lets in what is declared and nothing else. Tags, firewalls and the
    names of machines belong to the account: a fleet of one name stands in one region only. If somebody deletes or
    disables the firewall, or takes away its rules that keep the internet out, the machines tell that all ports are
    open, and the next ``apply`` mends it.

    Every Linode has a public address, since without one cloud-init gets no user data. Unless ``public_ip`` is declared,
    the first rules of the firewall keep out whatever does not come from Linode's private network in the same data
    centre, and the address, which only leads out then, is not told.

    Names of Linodes are unique in an account, so that a lost answer makes no second machine: it is looked for by name,
    and bears its token as a tag. Another machine of that name, whoever made it, is in the way.

    User, keys and host name come by cloud-init. Linode wants a password for root: it gets a random one that nobody
    keeps, and ssh takes no passwords. Disks are encrypted, as large as the size has them, without swap.

    Linode replaces all tags of a machine at once and knows no conditions: they are read just before, and again after.
    Whoever changes them elsewhere in the same moment may have to do it again.
    """

    pictures: ClassVar[str] = "/v4/images"
    walls: ClassVar[tuple[str, str, str]] = ("/v4/networking/firewalls", "data", "label")
    wall: ClassVar[str] = _FIREWALL
    _labelling: threading.Lock = attrs.field(factory=threading.Lock, init=False, repr=False, eq=False)

    def _longest_tag(self) -> int:
        return _LONGEST_TAG  # API reference, Create a tag

    def missing_features(self, spec: FleetSpec) -> tuple[str, ...]:
        """Say what a declaration needs and Linode does not have."""
        room = _MOST_RULES - len(_guards())
        many = (f"room for {len(spec.firewall)} rules in a firewall, but for {room}",)
        return (*super().missing_features(spec), *(many if len(spec.firewall) > room else ()))

    # fleets

    def create(self, spec: FleetSpec) -> None:
        """Make the firewall of a fleet, or have it keep the internet out as declared, or let it in."""
        with self._pool.one() as api:
            if spec.image not in _ALIASES:
                self._require_image(api, spec.image)
            wall = self._all_walls(api).get(spec.name)
            if wall is None:
                self._make_wall(api, spec)
            elif (
                _is_guarded(wall) is spec.public_ip
                or not _is_shut(wall)
                or (_told_rules(wall) != spec.firewall and not self._of_fleet(api, spec.name))
            ):
                _set(api, wall, spec)

    def update(self, current: FleetSpec, spec: FleetSpec) -> None:
        """Change the firewall of a fleet, and have it around all of its machines."""
        with self._pool.one() as api:
            wall = self._all_walls(api).get(current.name)
            if wall is None:
                self._make_wall(api, spec)
            else:
                _set(api, wall, spec)
            self._attach(api, spec.name)

    def destroy(self, name: str) -> None:
        """Delete the firewall of a fleet, unless it has machines."""
        with self._pool.one() as api:
            if self._of_fleet(api, name):
                fail(Conflict, "the firewall is in use by machines")
            wall = self._all_walls(api).get(name)
            if wall is not None:
                gone(api, f"/v4/networking/firewalls/{wall['id']}")

    # images

    def images(self, *, cursor: str | None, limit: int | None) -> Page[Image]:  # noqa: ARG002  all come at once
        """Return the aliases that there are, and the account's own images; one page."""
        with self._pool.one() as api:
            rows = {str(row["id"]): row for row in api.all("/v4/images", "data")}
        known = [_image(rows[id_], alias) for alias, id_ in _ALIASES.items() if id_ in rows]
        return Page((*known, *(_image(row, str(row["label"])) for row in rows.values() if not row["is_public"])))

    # machines

    def user_data(self, spec: FleetSpec, name: str, given: bytes | None) -> bytes | None:
        """Add the user, the keys and the host name."""
        return cloud_init(spec, name, given)

    def create_machine(
        self, spec: FleetSpec, name: str, *, size: Size, token: str, user_data: bytes | None
    ) -> MachineInfo:
        """Begin to make a Linode, or return the one that this token has made."""
        token = token.replace("-", "")  # a tag has 50 characters
        with self._pool.one() as api:
            found = self._made(api, name, token)
            if found is None:
                wall = self._all_walls(api).get(spec.name) or self._make_wall(api, spec)
                body = self._body(spec, name, size, token, user_data, wall)
                found = persistently(
                    lambda: cast("Json", api.post("/v4/linode/instances", body)), lambda: self._made(api, name, token)
                )
            walls = self._all_walls(api)
            return _machine(found, walls, is_inside=True)

    def _body(
        self, spec: FleetSpec, name: str, size: Size, token: str, user_data: bytes | None, wall: Json
    ) -> dict[str, Any]:
        asked = spec.image if spec.image in _ALIASES else None
        data = {} if user_data is None else {"metadata": {"user_data": b64encode(user_data).decode()}}
        return {
            "label": name,
            "region": self._region,
            "type": size.name,
            "image": _ALIASES.get(spec.image, spec.image),
            "root_pass": secrets.token_urlsafe(48),  # wanted, and known to nobody
            "tags": own_tags(spec, token, asked, *(() if spec.public_ip else (f"{_INSIDE}yes",))),
            "firewall_id": wall["id"],
            "interface_generation": "legacy_config",
            "private_ip": True,
            "disk_encryption": "enabled",
            "backups_enabled": False,
            "swap_size": 0,
            "booted": True,
            **data,
        }

    def machines(self, fleet: str | None, *, cursor: str | None, limit: int | None) -> Page[MachineInfo]:  # noqa: ARG002  a page has 200
        """Return one page of Linodes. The firewalls are asked for with the first."""
        number, query = int(cursor or 1), {} if fleet is None else {"tags": f"{FLEET}{fleet}"}
        with self._pool.one() as api:
            rows, more = api.page("/v4/linode/instances", "data", number, **query)
            walls = self._walls if cursor else self._all_walls(api)
            here = (row for row in rows if row["region"] == self._region and fleet in {None, tagged(row, FLEET)})
            found = tuple(_machine(row, walls, _end(api, row) if _is_late(row) else None) for row in here)
        return Page(found, str(number + 1) if more else None)

    def machine(self, id: str) -> MachineInfo:
        """Return one Linode; one whose creation failed is ``failed``."""
        with self._pool.one() as api:
            row = api.get(self._path(id))
            return _machine(row, self._all_walls(api), _end(api, row) if row["status"] == "provisioning" else None)

    def reboot(self, id: str) -> None:
        """Begin to restart a Linode that runs."""
        with self._pool.one() as api:
            row = api.get(self._path(id))
            if row["status"] != "running":
                fail(Conflict, f"it is {_STATES.get(row['status'], 'unknown')}; it must be running")
            api.post(f"{self._path(id)}/reboot", {})

    def relabel(self, id: str, *, labels: Mapping[str, str], remove: frozenset[str]) -> None:
        """Give labels to a Linode and take others from it."""
        with self._labelling, self._pool.one() as api:
            for _ in range(TRIES):
                row = api.get(self._path(id))
                new, old = tags_changed(row, labels, remove)
                if not new and not old:
                    return
                kept = [tag for tag in row["tags"] if tag not in old]
                api.put(self._path(id), {"tags": [*kept, *new]})
            fail(Conflict, "others change its tags all the time; try again")

    # debris

    def debris(self, *, cursor: str | None, limit: int | None) -> Page[Debris]:  # noqa: ARG002  all come at once
        """Return the firewalls of fleets without machines; one page."""
        with self._pool.one() as api:
            return Page(tuple(self._left(api)))

    def delete_debris(self, debris: Debris) -> None:
        """Delete what was left, if it still is."""
        with self._pool.one() as api:
            left = {each.id for each in self._left(api)}
            there = {str(wall["id"]) for wall in self._all_walls(api).values()}
        if debris.id in left:
            self.destroy(debris.fleet or "")
        elif debris.id in there:
            fail(Conflict, "it is in use by now")

    def _left(self, api: Linodes) -> Iterator[Debris]:
        """Yield what belongs to no machine, in whatever region."""
        used = {tagged(row, FLEET) for row in api.all("/v4/linode/instances", "data")}
        for fleet, wall in self._all_walls(api).items():
            if fleet not in used:
                made = _time(wall["created"])
                yield Debris(id=str(wall["id"]), kind="firewall", name=str(wall["label"]), fleet=fleet, created=made)

    # below: what the account has

    def _of_fleet(self, api: Linodes, fleet: str) -> list[Json]:
        """Return the Linodes of a fleet in all regions."""
        rows = api.all("/v4/linode/instances", "data", tags=f"{FLEET}{fleet}")
        return [row for row in rows if tagged(row, FLEET) == fleet]

    def _make_wall(self, api: Linodes, spec: FleetSpec) -> Json:
        """Make a fleet's firewall; when an answer is lost, look whether it is there."""
        body = {"label": f"{_FIREWALL}{spec.name}", "tags": [f"{FLEET}{spec.name}"], "rules": _rules(spec)}
        return persistently(
            lambda: cast("Json", api.post("/v4/networking/firewalls", body)),
            lambda: self._all_walls(api).get(spec.name),
        )

    def _attach(self, api: Linodes, fleet: str) -> None:
        """Put the machines of a fleet behind its firewall that are not."""
        for left in reversed(range(TRIES)):
            wall = self._all_walls(api)[fleet]
            missing = [row["id"] for row in self._of_fleet(api, fleet) if row["id"] not in _behind(wall)]
            try:
                for number in missing:
                    api.post(f"/v4/networking/firewalls/{wall['id']}/devices", {"type": "linode", "id": number})
            except (Refusal, Broken) as exc:
                if not (exc.is_executed_perhaps and left):
                    raise
            else:
                return

    def _path(self, id: str) -> str:
        return f"/v4/linode/instances/{number_id(id, 'Linodes')}"

    def _made(self, api: Linodes, name: str, token: str) -> Json | None:
        """Return the machine that a token has made, by the machine's name.

        Raises:
            HosterFault: another machine of the account has that name, or that one is being deleted.
        """
        rows = [row for row in api.all("/v4/linode/instances", "data", label=name) if row["label"] == name]
        if not rows:
            return None
        (row,) = rows  # labels are unique
        if token_of(row) != token or row["region"] != self._region:
            fail(AlreadyExists, f"there is a machine {name!r} in {row['region']}, which another creation made")
        if row["status"] == "deleting":
            fail(Conflict, f"the machine {name!r} is still being deleted; try again")
        return row

    def _sold_here(self, api: Linodes) -> Iterable[Json]:
        regions = {str(row["id"]) for row in api.all("/v4/regions", "data") if "Linodes" in row["capabilities"]}
        if self._region not in regions:  # its availability may be told all the same
            fail(InvalidArgument, f"there is no region {self._region!r}; there is: {', '.join(sorted(regions))}")
        lacking = {
            row["plan"]
            for row in cast("Iterable[Json]", api.get(f"/v4/regions/{self._region}/availability"))
            if not row["available"]
        }
        rows = api.all("/v4/linode/types", "data")
        return (row for row in rows if not row["gpus"] and row["id"] not in lacking)

    def _size(self, row: Json) -> Size:
        prices = [each for each in row.get("region_prices") or () if each["id"] == self._region]
        price = Decimal(str((prices or [row["price"]])[0]["hourly"]))
        return Size(name=str(row["id"]), cpus=int(row["vcpus"]), memory=int(row["memory"]) * MIB, price=price)

    def _disk_gib(self, row: Json) -> int:
        return int(row["disk"]) // 1024


# what is told


def _behind(wall: Json | None) -> set[int]:
    """Return the Linodes that a firewall is around."""
    entities = () if wall is None else wall.get("entities") or ()
    return {each["id"] for each in entities if each["type"] == "linode"}


def _is_late(row: Json) -> bool:
    """Tell whether a Linode is being made for longer than that takes."""
    return bool(row["status"] == "provisioning" and datetime.now(UTC) - _time(row["created"]) > _LATE)


def _end(api: Linodes, row: Json) -> MachineState | None:
    """Return how the creation of a Linode ended that is still going on: ``failed``, or not at all."""
    wanted = {"action": "linode_create", "entity.type": "linode", "entity.id": row["id"]}
    events, _ = api.page("/v4/account/events", "data", 1, **wanted)
    ours = [each for each in events if (each.get("entity") or {}).get("id") == row["id"]]
    return "failed" if any(each["status"] == "failed" for each in ours) else None


def _machine(
    row: Json, walls: Mapping[str, Json], end: MachineState | None = None, *, is_inside: bool = False
) -> MachineInfo:
    """Return a machine as it is told.

    Args:
        is_inside: it was made just now, with its firewall, which may not name it yet.
    """
    fleet, specs = tagged(row, FLEET), row["specs"]
    wall = walls.get(fleet or "")
    if wall is not None and not is_inside and row["id"] not in _behind(wall):
        wall = None
    every = [ip_address(each) for each in row["ipv4"]]
    every += [ip_interface(row["ipv6"]).ip] if row.get("ipv6") else []
    private = [each for each in every if each in _PRIVATE]
    is_kept_inside = tagged(row, _INSIDE) is not None
    public = [] if is_kept_inside else [each for each in every if each not in private]
    is_open = wall is None or (is_kept_inside and not _is_guarded(wall))
    return MachineInfo(
        id=str(row["id"]),
        name=str(row["label"]),
        fleet=fleet,
        state=end or _STATES.get(row["status"], "unknown"),
        raw_state=str(row["status"]),
        size=str(row["type"]),
        cpus=int(specs["vcpus"]),
        memory=int(specs["memory"]) * MIB,
        image=told_image(row, str(row["image"] or "")),
        disk_gib=int(specs["disk"]) // 1024,
        addresses=tuple(map(str, private)),
        public_addresses=tuple(map(str, public)),
        user=user_of(row),
        firewall=OPEN if is_open or wall is None else _told_rules(wall),
        labels=labels_of(row),
        created=_time(row["created"]),
    )


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)  # told in UTC, and without saying so


def _image(row: Json, name: str) -> Image:
    return Image(
        id=str(row["id"]),
        name=name,
        disk_gib=-(-int(row["size"]) // 1024),
        own=not row["is_public"],
        ready=row.get("status", "available") == "available",
        created=_time(row["created"]),
    )


# firewalls


@cache
def _guards() -> tuple[Json, ...]:
    """Return the rules that keep out what does not come from Linode's private network."""
    outside = [str(each) for each in IPv4Network("0.0.0.0/0").address_exclude(_PRIVATE)]
    addresses = {"ipv4": sorted(outside), "ipv6": ["::/0"]}
    return tuple(
        {"label": _GUARD, "action": "DROP", "protocol": protocol, "ports": "1-65535", "addresses": addresses}
        for protocol in ("TCP", "UDP")
    )


def _rules(spec: FleetSpec) -> dict[str, Any]:
    """Return the rules of a fleet's firewall; the first that fits counts."""
    guards = [] if spec.public_ip else list(_guards())
    return {
        "inbound": [*guards, *map(_rule, spec.firewall)],
        "inbound_policy": "DROP",
        "outbound": [],
        "outbound_policy": "ACCEPT",
    }


def _rule(rule: Rule) -> Json:
    networks = [ip_network(each) for each in rule.allow_from]
    both = {f"ipv{version}": [str(each) for each in networks if each.version == version] for version in (4, 6)}
    return {
        "label": f"{rule.protocol}-{rule.port}",
        "action": "ACCEPT",
        "protocol": rule.protocol.upper(),
        "ports": str(rule.port) if rule.last == rule.port else f"{rule.port}-{rule.last}",
        "addresses": {version: found for version, found in both.items() if found},
    }


def _set(api: Linodes, wall: Json, spec: FleetSpec) -> None:
    """Give a firewall the rules of a fleet, and enable it."""
    path = f"/v4/networking/firewalls/{wall['id']}"
    api.put(f"{path}/rules", _rules(spec))
    if wall["status"] != "enabled":
        api.put(path, {"status": "enabled"})


def _is_guarded(wall: Json) -> bool:
    """Tell whether a firewall keeps the internet out."""
    kept = {rule["protocol"] for rule in wall["rules"].get("inbound") or () if rule.get("label") == _GUARD}
    return _is_shut(wall) and kept == {"TCP", "UDP"}


def _is_shut(wall: Json) -> bool:
    return bool(wall["status"] == "enabled" and wall["rules"].get("inbound_policy") == "DROP")


def _told_rules(wall: Json) -> tuple[Rule, ...]:
    """Return what a firewall lets in."""
    return normal(_let_in(wall)) if _is_shut(wall) else normal(OPEN)


def _let_in(wall: Json) -> Iterator[Rule]:
    for rule in wall["rules"].get("inbound") or ():
        found = rule.get("addresses") or {}
        networks = tuple(str(ip_network(each, strict=False)) for version in found.values() for each in version or ())
        if rule["action"] != "ACCEPT" or rule["protocol"] not in {"TCP", "UDP"} or not networks:
            continue
        protocol: Protocol = "tcp" if rule["protocol"] == "TCP" else "udp"
        for first, last in _PORTS.findall(rule.get("ports") or "1-65535"):
            until = int(last) if last else None
            yield Rule(port=int(first), last_port=until, protocol=protocol, allow_from=networks)

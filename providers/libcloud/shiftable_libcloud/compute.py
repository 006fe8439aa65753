"""Machines of hosters, through libcloud: DigitalOcean's droplets, Linode's Linodes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from ipaddress import ip_network
from typing import Any, ClassVar, Literal, TypeVar, cast

import attrs

from shiftable.compute import cloud_init
from shiftable.compute._firewall import ANYWHERE, normal
from shiftable.compute.driver import (
    ComputeDriver,
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
from shiftable.config import Credential
from shiftable.errors import AlreadyExists, ConfigError, Conflict, InvalidArgument, NotFound
from shiftable.features import Limit
from shiftable.paging import Page
from shiftable_libcloud import LibcloudSettings
from shiftable_libcloud import _compute_linode as linode
from shiftable_libcloud._connection import Broken, Pool, Refusal
from shiftable_libcloud._droplets import Droplets
from shiftable_libcloud._machines import (
    FLEET,
    MIB,
    OPEN,
    TRIES,
    Calls,
    HosterCompute,
    Json,
    Walls,
    as_text,
    fail,
    gone,
    is_taken,
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
from shiftable_libcloud._token import token_of_account

__all__ = ["FEATURES", "DropletDriver", "open_compute"]

FEATURES: Mapping[str, ComputeFeatures] = {
    "digitalocean": ComputeFeatures(
        title="DigitalOcean Droplets",
        create=True,
        arches=frozenset({"x86_64"}),
        gpus=False,
        stop=False,  # a droplet that is off costs as much as one that runs
        resize=False,
        console=False,
        disks=False,
        snapshots=False,
        spot=False,
        public_ip=True,
        open_ports=True,
        user_data=True,
        zones=False,
        network=True,
        identity=False,
        prices=True,
        debris=True,
        ssh=True,
        max_name=Limit(58, "host names have labels of 63 characters (RFC 1035, 2.3.4), and a number follows"),
        max_user_data=Limit(64 * 1024, "DigitalOcean API reference, Droplets"),
        relabel=True,
        price_list=PriceSource("DigitalOcean's API, /v2/sizes, asked once an hour"),
    ),
    "linode": linode.FEATURES,
}

_ALIASES = {
    "debian-12": "debian-12-x64",
    "debian-13": "debian-13-x64",
    "ubuntu-22.04": "ubuntu-22-04-x64",
    "ubuntu-24.04": "ubuntu-24-04-x64",
}
_STATES: Mapping[str, MachineState] = {"new": "creating", "active": "running", "off": "stopped", "archive": "deleted"}
_ALL_OUT = tuple(
    {"protocol": protocol, "ports": "all", "destinations": {"addresses": list(ANYWHERE)}} for protocol in ("tcp", "udp")
)
_LATE = timedelta(minutes=15)
_MISSING = 404

A = TypeVar("A", bound=Calls)


@attrs.define
class DropletDriver(HosterCompute[Droplets]):
    """Droplets in one region.

    A fleet is a tag, ``shiftable-fleet:web``; labels are tags, too. The Cloud Firewall ``shiftable-web`` is for all
    that bears the fleet's tag, and lets in what is declared and nothing else; it is made before the first machine. Tags
    and firewalls belong to the account: fleets of one name in two regions share theirs. A droplet gets its tags right
    after it was made, so that for a moment it may be without; nothing but ssh listens then, and takes no passwords. If
    somebody deletes the firewall, the machines tell that all ports are open, and the next ``apply`` makes it again.

    DigitalOcean has no tokens for creations, and its names are not unique. So a machine bears its token as a tag, is
    looked for by name before it is made, and again after it was, or when an answer was lost: of two that were made in
    the same moment, the older stays. What remains: if DigitalOcean executes a
    lost creation after that look, there are two droplets with one token. The younger is not listed, as long as both
    stand on one page of 200, and is debris, which ``sweep`` deletes.

    Whether a droplet got a public address is told as DigitalOcean tells it, not as it was asked for.

    User, keys and host name come by cloud-init. DigitalOcean makes a password for root, and mails it to the account, as
    the droplet has no key of the account's; ssh takes no passwords. Disks are as large as the size has them. Tags that
    nothing bears any more stay, and cost nothing.

    Args:
        region: ``fra1``.
    """

    pictures: ClassVar[str] = "/v2/images"
    walls: ClassVar[tuple[str, str, str]] = ("/v2/firewalls", "firewalls", "name")
    wall: ClassVar[str] = "shiftable-"

    def _longest_tag(self) -> int:
        return 255  # API reference, Tags

    # fleets

    def create(self, spec: FleetSpec) -> None:
        """Make the firewall of a fleet, unless there is one; one that no machine has any more is made as declared."""
        with self._pool.one() as api:
            if spec.image not in _ALIASES:
                self._require_image(api, spec.image)
            wall = self._all_walls(api).get(spec.name)
            if wall is None:
                self._make_wall(api, spec)
            elif normal(_rules(wall)) != spec.firewall and not self._tagged(api, spec.name):
                api.put(f"/v2/firewalls/{wall['id']}", _wall(spec))

    def update(self, current: FleetSpec, spec: FleetSpec) -> None:
        """Change the firewall of a fleet."""
        with self._pool.one() as api:
            wall = self._all_walls(api).get(current.name)
            if wall is None:
                self._make_wall(api, spec)
            else:
                api.put(f"/v2/firewalls/{wall['id']}", _wall(spec))

    def destroy(self, name: str) -> None:
        """Delete the firewall of a fleet and its tag, unless it has machines."""
        with self._pool.one() as api:
            rows = self._tagged(api, name)
            if any(map(self._is_here, rows)):
                fail(Conflict, "the firewall is in use by machines")
            if rows:
                return  # a fleet of that name in another region has it, too
            wall = self._all_walls(api).get(name)
            if wall is not None:
                gone(api, f"/v2/firewalls/{wall['id']}")
            _untag(api, f"{FLEET}{name}")

    # sizes and images

    def images(self, *, cursor: str | None, limit: int | None) -> Page[Image]:  # noqa: ARG002  all come at once
        """Return the aliases that there are, and the account's own images; one page."""
        with self._pool.one() as api:
            public = {row.get("slug"): row for row in api.all("/v2/images", "images", type="distribution")}
            own = api.all("/v2/images", "images", private="true")
        known = [_image(public[slug], alias) for alias, slug in _ALIASES.items() if slug in public]
        return Page((*known, *(_image(row, str(row["name"])) for row in own)))

    # machines

    def user_data(self, spec: FleetSpec, name: str, given: bytes | None) -> bytes | None:
        """Add the user, the keys and the host name."""
        return as_text("DigitalOcean", cloud_init(spec, name, given))

    def create_machine(
        self, spec: FleetSpec, name: str, *, size: Size, token: str, user_data: bytes | None
    ) -> MachineInfo:
        """Begin to make a droplet, or return the one that this token has made."""
        body = {
            "name": name,
            "region": self._region,
            "size": size.name,
            "image": _number(_ALIASES.get(spec.image, spec.image)),
            "tags": own_tags(spec, token, spec.image),
            "public_networking": spec.public_ip,  # as godo, DigitalOcean's own client, calls it
            "ipv6": spec.public_ip,
            "monitoring": False,
            "backups": False,
            **({} if spec.network is None else {"vpc_uuid": spec.network}),
            **({} if user_data is None else {"user_data": user_data.decode()}),
        }
        with self._pool.one() as api:
            found = self._made(api, spec, name, token) or persistently(
                lambda: cast("Json", api.post("/v2/droplets", body)["droplet"]),
                lambda: self._made(api, spec, name, token),
            )
            older = self._made(api, spec, name, token)
            if older is not None and older["id"] < found["id"]:  # two made it in the same moment
                gone(api, self._path(str(found["id"])))
                found = older
            return _machine(found, self._walls if spec.name in self._walls else self._all_walls(api))

    def machines(self, fleet: str | None, *, cursor: str | None, limit: int | None) -> Page[MachineInfo]:  # noqa: ARG002  a page has 200
        """Return one page of droplets. The firewalls are asked for with the first."""
        number, query = int(cursor or 1), {} if fleet is None else {"tag_name": f"{FLEET}{fleet}"}
        with self._pool.one() as api:
            rows, more = api.page("/v2/droplets", "droplets", number, **query)
            walls = self._walls if cursor else self._all_walls(api)
            second = {row["id"] for row in _second(filter(self._is_here, rows))}
            here = (row for row in rows if self._is_here(row) and row["id"] not in second)
            found = tuple(_machine(row, walls, _end(api, row) if _is_late(row) else None) for row in here)
        return Page(found, str(number + 1) if more else None)

    def machine(self, id: str) -> MachineInfo:
        """Return one droplet; one whose creation failed is ``failed``."""
        with self._pool.one() as api:
            row = self._living(api, id)
            return _machine(row, self._all_walls(api), _end(api, row) if row["status"] == "new" else None)

    def reboot(self, id: str) -> None:
        """Begin to restart a droplet that runs."""
        with self._pool.one() as api:
            row = api.get(self._path(id), "droplet")
            if row["status"] != "active":
                fail(Conflict, f"it is {_STATES.get(row['status'], 'unknown')}; it must be running")
            api.post(f"{self._path(id)}/actions", {"type": "reboot"})

    def relabel(self, id: str, *, labels: Mapping[str, str], remove: frozenset[str]) -> None:
        """Give labels to a droplet and take others from it, tag by tag."""
        with self._pool.one() as api:
            row = self._living(api, id)
            new, old = tags_changed(row, labels, remove)
            for tag in new:
                self._bear(api, row, tag)
            for tag in old:
                _missing_is_fine(lambda tag=tag: api.bear(tag, row["id"], bears=False))  # type: ignore[misc]  # each its own

    # debris

    def debris(self, *, cursor: str | None, limit: int | None) -> Page[Debris]:  # noqa: ARG002  all come at once
        """Return the second droplets of one token, and the firewalls of fleets without machines; one page."""
        with self._pool.one() as api:
            return Page(tuple(self._left(api, api.all("/v2/droplets", "droplets"))))

    def delete_debris(self, debris: Debris) -> None:
        """Delete what was left, if it still is."""
        with self._pool.one() as api:
            rows = api.all("/v2/droplets", "droplets")
            if debris.id not in {left.id for left in self._left(api, rows)}:
                if debris.id in {str(each["id"]) for each in (*rows, *self._walls.values())}:
                    fail(Conflict, "it is in use by now")
                return
            if debris.kind == "droplet":
                gone(api, self._path(debris.id))
                return
        self.destroy(debris.fleet or "")

    def _left(self, api: Droplets, rows: Iterable[Json]) -> Iterator[Debris]:
        """Yield what belongs to no machine. Droplets of other regions use the firewall of their fleet, too."""
        rows = list(rows)
        for row in _second(filter(self._is_here, rows)):
            fleet, made = tagged(row, FLEET), _time(row["created_at"])
            yield Debris(id=str(row["id"]), kind="droplet", name=str(row["name"]), fleet=fleet, created=made)
        used = {tagged(row, FLEET) for row in rows}
        for fleet, wall in self._all_walls(api).items():
            if fleet not in used:
                made = _time(wall["created_at"])
                yield Debris(id=str(wall["id"]), kind="firewall", name=str(wall["name"]), fleet=fleet, created=made)

    # below: what the account has

    def _tagged(self, api: Droplets, fleet: str) -> list[Json]:
        """Return the droplets of a fleet in all regions."""
        return api.all("/v2/droplets", "droplets", tag_name=f"{FLEET}{fleet}")

    def _bear(self, api: Droplets, row: Json, tag: str) -> None:
        def bear() -> bool:
            _tag(api, tag)
            api.bear(tag, row["id"], bears=True)
            return True

        persistently(bear, lambda: tag in self._living(api, str(row["id"]))["tags"] or None)

    def _path(self, id: str) -> str:
        return f"/v2/droplets/{number_id(id, 'droplets')}"

    def _living(self, api: Droplets, id: str) -> Json:
        row = api.get(self._path(id), "droplet")
        if row["status"] == "archive":
            fail(NotFound, "it is in the archive")
        return row

    def _is_here(self, row: Json) -> bool:
        return bool(row["region"]["slug"] == self._region and row["status"] != "archive")

    def _sold_here(self, api: Droplets) -> Iterable[Json]:
        rows = api.all("/v2/sizes", "sizes")
        if self._region not in (regions := {region for row in rows for region in row["regions"]}):
            fail(
                InvalidArgument, f"nothing is sold in a region {self._region!r}; there is: {', '.join(sorted(regions))}"
            )
        sold = (row for row in rows if row.get("available", True) and self._region in row["regions"])
        return (row for row in sold if not row.get("gpu_info"))

    def _size(self, row: Json) -> Size:
        price = Decimal(str(row["price_hourly"]))
        return Size(name=str(row["slug"]), cpus=int(row["vcpus"]), memory=int(row["memory"]) * MIB, price=price)

    def _disk_gib(self, row: Json) -> int:
        return int(row["disk"])

    def _make_wall(self, api: Droplets, spec: FleetSpec) -> None:
        """Make a fleet's tag and its firewall; when an answer is lost, look whether it is there."""
        for left in reversed(range(TRIES)):
            try:
                _tag(api, f"{FLEET}{spec.name}")
                api.post("/v2/firewalls", _wall(spec))
            except (Refusal, Broken) as exc:
                if spec.name in self._all_walls(api):
                    return
                if not (exc.is_executed_perhaps and left):
                    raise
            else:
                return

    def _made(self, api: Droplets, spec: FleetSpec, name: str, token: str) -> Json | None:
        """Return the machine that a token has made, by the machine's name.

        Raises:
            HosterFault: another machine of the fleet has that name.
        """
        rows = sorted(api.all("/v2/droplets", "droplets", name=name), key=lambda row: int(row["id"]))
        here = [row for row in rows if row["name"] == name and self._is_here(row)]
        for row in here:
            if token_of(row) == token:
                return row
        if any(tagged(row, FLEET) == spec.name for row in here):
            fail(AlreadyExists, f"there is a machine {name!r}, which another creation made")
        return None


# what is told


def _second(rows: Iterable[Json]) -> list[Json]:
    """Return the droplets whose token an older one has."""
    tokens, found = set[str](), list[Json]()
    for row in sorted(rows, key=lambda row: int(row["id"])):
        token = token_of(row)
        if token in tokens:
            found.append(row)
        elif token is not None:
            tokens.add(token)
    return found


def _is_late(row: Json) -> bool:
    """Tell whether a droplet has been new for longer than that takes."""
    return bool(row["status"] == "new" and datetime.now(UTC) - _time(row["created_at"]) > _LATE)


def _end(api: Droplets, row: Json) -> MachineState | None:
    """Return how the creation of a droplet ended that is still new: ``failed``, or not at all."""
    actions, _ = api.page(f"/v2/droplets/{row['id']}/actions", "actions", 1)
    return "failed" if any(each["type"] == "create" and each["status"] == "errored" for each in actions) else None


def _machine(row: Json, walls: Walls, end: MachineState | None = None) -> MachineInfo:
    fleet = tagged(row, FLEET)
    wall = walls.get(fleet or "")
    told = row["image"] or {}
    image = told_image(row, str(told.get("slug") or told.get("id") or ""))
    return MachineInfo(
        id=str(row["id"]),
        name=str(row["name"]),
        fleet=fleet,
        state=end or _STATES.get(row["status"], "unknown"),
        raw_state=str(row["status"]),
        size=str(row["size_slug"]),
        cpus=int(row["vcpus"]),
        memory=int(row["memory"]) * MIB,
        image=image,
        disk_gib=int(row["disk"]),
        addresses=_addresses(row, "private"),
        public_addresses=_addresses(row, "public"),
        user=user_of(row),
        firewall=OPEN if wall is None else tuple(_rules(wall)),
        network=row.get("vpc_uuid"),
        disks=tuple(map(str, row.get("volume_ids") or ())),
        labels=labels_of(row),
        created=_time(row["created_at"]),
    )


def _addresses(row: Json, kind: Literal["private", "public"]) -> tuple[str, ...]:
    networks = row.get("networks") or {}
    both = [*(networks.get("v4") or ()), *(networks.get("v6") or ())]
    return tuple(str(each["ip_address"]) for each in both if each["type"] == kind)


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _image(row: Json, name: str) -> Image:
    return Image(
        id=str(row.get("slug") or row["id"]),
        name=name,
        disk_gib=row.get("min_disk_size"),
        own=not row.get("public"),
        ready=row.get("status", "available") == "available",
        created=_time(row["created_at"]),
    )


# what is sent


def _number(image: str) -> str | int:
    """Return an image as the API takes it: a slug is text, an id a number."""
    return int(image) if image.isdecimal() else image


def _wall(spec: FleetSpec) -> dict[str, Any]:
    inbound = [
        {
            "protocol": rule.protocol,
            "ports": str(rule.port) if rule.last == rule.port else f"{rule.port}-{rule.last}",
            "sources": {"addresses": list(rule.allow_from)},
        }
        for rule in spec.firewall
    ]
    icmp = {"protocol": "icmp", "destinations": {"addresses": list(ANYWHERE)}}
    return {
        "name": f"{DropletDriver.wall}{spec.name}",
        "tags": [f"{FLEET}{spec.name}"],
        "inbound_rules": inbound,
        "outbound_rules": [*_ALL_OUT, icmp],
    }


def _rules(wall: Json) -> Iterable[Rule]:
    """Return what a firewall lets in. Sources that are no networks, as another tool may name them, are left out."""
    for rule in wall.get("inbound_rules") or ():
        networks = tuple(str(ip_network(each, strict=False)) for each in rule["sources"].get("addresses") or ())
        if rule["protocol"] not in {"tcp", "udp"} or not networks:
            continue
        first, _, last = str(rule["ports"]).partition("-")
        if first in {"0", "all"}:
            first, last = "1", "65535"
        yield Rule(
            port=int(first), last_port=int(last) if last else None, protocol=rule["protocol"], allow_from=networks
        )


def _tag(api: Droplets, tag: str) -> None:
    """Make a tag, unless there is one."""
    try:
        api.post("/v2/tags", {"name": tag})
    except Refusal as exc:
        if not is_taken(exc):
            raise


def _untag(api: Droplets, tag: str) -> None:
    _missing_is_fine(lambda: api.delete_tag(tag))


def _missing_is_fine(delete: Callable[[], None]) -> None:
    try:
        delete()
    except Refusal as exc:
        if exc.code != _MISSING:
            raise


def open_compute(settings: LibcloudSettings) -> ComputeDriver:
    """Make the driver that the settings describe. Connects to nobody.

    Raises:
        ConfigError: there is no token, or no region.
    """
    if settings.region is None:
        example = {"linode": "eu-central"}.get(settings.hoster, "fra1")
        raise ConfigError(f"libcloud: machines of {settings.hoster} need a `region` in the provider's table: {example}")
    token, region, has = token_of_account(settings), settings.region, FEATURES[settings.hoster]
    if settings.hoster == "linode":
        return linode.LinodeDriver(_pool(linode.Linodes, token, settings), region, features=has)
    return DropletDriver(_pool(Droplets, token, settings), region, features=has)


def _pool(driver: Callable[..., A], token: Credential, settings: LibcloudSettings) -> Pool[A]:
    def make() -> A:
        return driver(token.reveal(), endpoint=settings.endpoint, patience=settings.retry_seconds)

    return Pool(make, lambda api: api.connection.hang_up())

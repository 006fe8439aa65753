"""Machines: hosts that are there already, claimed and released by ssh."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import ClassVar, TypeVar

import attrs

from shiftable.compute._ssh import Completed, run
from shiftable.compute.driver import (
    ALIASES,
    FLEET_LABEL,
    GIB,
    ComputeDriver,
    ComputeFeatures,
    FleetSpec,
    Image,
    MachineInfo,
    MachineState,
    Size,
    relabelled,
)
from shiftable.errors import (
    AlreadyExists,
    Conflict,
    Fault,
    InvalidArgument,
    NotFound,
    OperationError,
    PermissionDenied,
    QuotaExceeded,
    Timeout,
    Unavailable,
)
from shiftable.features import Limit
from shiftable.paging import Page
from shiftable.parallel import parallel
from shiftable.wording import counted
from shiftable_baremetal import _hosts_scripts as scripts
from shiftable_baremetal._failures import all_of
from shiftable_baremetal._faults import FilesError, classify
from shiftable_baremetal._hosts_scripts import Seen
from shiftable_baremetal._hosts_settings import HostSettings

__all__ = ["FEATURES", "HostsComputeDriver"]

FEATURES = ComputeFeatures(
    title="hosts by ssh",
    create=False,
    arches=frozenset({"x86_64", "arm64"}),
    gpus=False,
    stop=False,
    resize=False,
    console=False,
    disks=False,
    snapshots=False,
    spot=False,
    public_ip=False,
    open_ports=False,
    user_data=True,
    zones=False,
    network=False,
    identity=False,
    prices=False,
    relabel=True,
    ssh=True,
    max_name=Limit(58, "chosen, as Compute Engine with a number of four digits"),
)

_PATIENCE = timedelta(minutes=2)
_AT_ONCE = 16
_TRIES = 5
_WRITES = 40  # that others may do between two looks of ours
_SSH = 22

T = TypeVar("T")


@attrs.define(eq=False)
class HostsComputeDriver(ComputeDriver):
    """An inventory of hosts. A machine is a claim, which lies on its host: nobody else keeps it.

    A claim takes the first host that is free, large enough and has the image that is asked for; keys are added to the
    user's, user data that is a script is run as root, once. Releasing a host removes the keys; what was done on it
    stays. Who is let in by ssh already, stays let in. A host that cannot be reached may be anybody's: until it can, or
    is taken out of the inventory, no fleet is listed or changed.

    Credentials: those of ``ssh``, whose configuration, agent and jump hosts count. Permissions: to log in as each
    host's user, whose home folder no other host shares; for user data and reboots to be root, or ``sudo`` without a
    password.

    Args:
        hosts: in the order in which they are claimed.
        page_size: items of one page.
    """

    claims: ClassVar[bool] = True

    _hosts: tuple[HostSettings, ...]
    _page_size: int = attrs.field(default=100, kw_only=True)

    def __attrs_post_init__(self) -> None:
        if len({host.name for host in self._hosts}) < len(self._hosts):
            raise ValueError("two hosts of the inventory have the same name")

    @property
    def provider(self) -> str:
        """The provider's name in errors."""
        return "baremetal"

    @property
    def features(self) -> ComputeFeatures:
        """What hosts can do that are there already."""
        return FEATURES

    def classify(self, exc: Exception) -> Fault | None:
        """Say what a native exception means."""
        return classify(exc)

    # fleets

    def create(self, spec: FleetSpec) -> None:
        """Make nothing; refuse an image that no host of the inventory has."""
        if not any(host.image in (None, spec.image) for host in self._hosts):
            known = ", ".join(sorted({host.image for host in self._hosts if host.image is not None})) or "none"
            raise _fault(InvalidArgument, f"no host of the inventory has the image {spec.image!r}; they have: {known}")

    # sizes and images

    def sizes(self, *, cursor: str | None, limit: int | None) -> Page[Size]:
        """Return one page of what the hosts are, each kind once."""
        found = {(host.cpus, host.memory_gib, host.arch): _size(host) for host in self._hosts}
        return self._page([found[key] for key in sorted(found)], cursor, limit)

    def images(self, *, cursor: str | None, limit: int | None) -> Page[Image]:
        """Return one page of names of what is installed: hosts that do not say it have whatever is asked for."""
        told = ((host.arch, (host.image,) if host.image is not None else tuple(ALIASES)) for host in self._hosts)
        found = dict.fromkeys((name, arch) for arch, names in told for name in names)
        return self._page([Image(id=name, name=name, arch=arch) for name, arch in found], cursor, limit)

    # machines

    def user_data(self, spec: FleetSpec, name: str, given: bytes | None) -> bytes | None:  # noqa: ARG002  as it is
        """Return the script that is run once; more than that a host that runs already cannot be told."""
        if given is not None and not given.startswith(b"#!"):
            raise ValueError("a host of an inventory runs already: its user data is a script that begins with #!")
        return given

    def create_machine(
        self, spec: FleetSpec, name: str, *, size: Size, token: str, user_data: bytes | None
    ) -> MachineInfo:
        """Claim a host, or return the one that this token has claimed."""
        for _ in range(len(self._hosts) + _TRIES):
            claimed = self._claimed()
            mine = [(host, seen) for host, seen in claimed if seen.facts["token"] == token]
            if mine:
                host, seen = mine[0]
                if seen.facts["fleet"] != spec.name:
                    raise _fault(AlreadyExists, f"the fleet {seen.facts['fleet']!r} has a machine {name!r}")
                return _info(host, seen)
            if any(seen.facts["name"] == name for _, seen in claimed):
                raise _fault(AlreadyExists, f"there is a machine {name!r}")
            taken = {host.name for host, _ in claimed}
            made = self._claim_one(spec, name, size, token, user_data, taken)
            if made is None:
                continue
            others = [host for host, seen in self._claimed() if seen.facts["token"] == token and host != made[0]]
            if not others:
                return _info(*made)
            self._do(made[0], scripts.release(made[1].facts["mark"], made[1].number))  # two made the same at once
        raise _fault(Conflict, "others claim hosts at the same time; try again")

    def machines(self, fleet: str | None, *, cursor: str | None, limit: int | None) -> Page[MachineInfo]:
        """Return one page of claims, in the order of the inventory."""
        start = int(cursor or 0)
        looked = self._looked(self._hosts[start:], start)
        claimed = [(number, _info(host, seen)) for number, host, seen in looked if seen is not None]
        found = [(number, machine) for number, machine in claimed if fleet in (None, machine.fleet)]
        shown, left = found[: self._count(limit)], found[self._count(limit) :]
        return Page(tuple(machine for _, machine in shown), str(left[0][0]) if left else None)

    def machine(self, id: str) -> MachineInfo:
        """Return one claim. A host that cannot be reached, as while it reboots, is in a state that is not known."""
        host, name, _ = self._of(id)
        try:
            return _info(host, self._seen(id, host))
        except (Unavailable, Timeout) as exc:
            return MachineInfo(
                id=id,
                name=name,
                fleet=name.rpartition("-")[0] or None,
                state="unknown",
                raw_state=exc.message,
                size=_size(host).name,
                cpus=host.cpus,
                memory=host.memory_gib * GIB,
                image=host.image or "",
                arch=host.arch,
                user=host.user,
            )

    def delete_machine(self, id: str) -> None:
        """Release a host."""
        host, _, _ = self._of(id)
        seen = self._seen(id, host)
        if self._do(host, scripts.release(seen.facts["mark"], seen.number)).exit_code == scripts.LOST:
            raise _gone()

    def reboot(self, id: str) -> None:
        """Restart a host."""
        host, _, _ = self._of(id)
        seen = self._seen(id, host)
        state = _state(seen)[0]
        if state != "running":
            raise _fault(Conflict, f"it is {state}; it must be running")
        code = self._do(host, scripts.reboot(seen.facts["mark"], seen.number)).exit_code
        if code == scripts.DENIED:
            raise _fault(
                PermissionDenied, f"{host.user} may not restart {host.name}: let it use sudo without a password"
            )
        if code == scripts.LOST:
            raise _gone()

    def relabel(self, id: str, *, labels: Mapping[str, str], remove: frozenset[str]) -> None:
        """Change labels of a claim; those of the inventory are not the claim's to lose."""
        host, _, _ = self._of(id)
        if kept := sorted(host.labels.keys() & remove):
            raise _fault(Conflict, f"the inventory gives {host.name} the label {kept[0]!r}; take it away there")
        for _ in range(_WRITES):
            seen = self._seen(id, host)
            after = relabelled(seen.labels, labels, remove)
            if after == seen.labels:
                return
            order = scripts.relabel(seen.facts["mark"], seen.number, seen.version, after)
            code = self._do(host, order).exit_code
            if code == scripts.LOST:
                raise _gone()
            if code != scripts.TAKEN:
                return
        raise _fault(Conflict, "others change its labels at the same time; try again")

    # what they share

    def _claim_one(
        self, spec: FleetSpec, name: str, size: Size, token: str, user_data: bytes | None, taken: set[str]
    ) -> tuple[HostSettings, Seen] | None:
        """Claim the first host that fits and is free; ``None`` if somebody was faster, also for the same machine."""
        fitting = [host for host in self._hosts if _fits(host, spec, size)]
        free = [host for host in fitting if host.name not in taken]
        kind = f"{counted(size.cpus, 'CPU')}, {size.memory // GIB} GiB and {spec.image}"
        if not fitting:
            raise _fault(InvalidArgument, f"no host of the inventory has {kind}, and a disk of {spec.disk_gib} GiB")
        if not free:
            why = f"{all_of(len(fitting), 'host', kind)} claimed; add some to the inventory"
            raise _fault(QuotaExceeded, why)
        mark = secrets.token_hex(8)
        facts = {
            "mark": mark,
            "fleet": spec.name,
            "name": name,
            "token": token,
            "image": spec.image,
            "size": size.name,
            "cpus": size.cpus,
            "memory": size.memory,
            "disk_gib": spec.disk_gib,
            "labels": dict(spec.labels),
            "created": datetime.now(UTC).isoformat(),
        }
        done = self._do(free[0], scripts.claim(mark, facts, spec.ssh_keys, user_data))
        seen = None if done.exit_code == scripts.TAKEN else self._look(free[0])
        return (free[0], seen) if seen is not None and seen.facts["mark"] == mark else None

    def _claimed(self) -> list[tuple[HostSettings, Seen]]:
        return [(host, seen) for _, host, seen in self._looked(self._hosts, 0) if seen is not None]

    def _looked(self, hosts: Sequence[HostSettings], start: int) -> list[tuple[int, HostSettings, Seen | None]]:
        """Look at hosts, many at once."""
        numbered = {host.name: number for number, host in enumerate(hosts, start)}
        done = {host.name: (host, future) for host, future in parallel(self._look, hosts, workers=_AT_ONCE)}
        return [(number, done[name][0], done[name][1].result()) for name, number in numbered.items()]

    def _look(self, host: HostSettings) -> Seen | None:
        try:
            return Seen.read(self._do(host, scripts.look()).stdout.decode())
        except (ValueError, KeyError) as exc:
            why = f"what lies in ~/.shiftable on the host {host.name} is no claim of this program"
            raise FilesError(Fault(Conflict, why)) from exc

    def _seen(self, id: str, host: HostSettings) -> Seen:
        seen = self._look(host)
        if seen is None or seen.facts["mark"] != self._of(id)[2]:
            raise _gone()
        return seen

    def _of(self, id: str) -> tuple[HostSettings, str, str]:
        """Return host, name and mark of an id."""
        place, _, rest = id.partition("/")
        name, _, mark = rest.partition("/")
        for host in self._hosts:
            if host.name == place and re.fullmatch("[0-9a-f]{16}", mark):
                return host, name, mark
        raise _gone()

    def _do(self, host: HostSettings, script: str) -> Completed:
        """Run a script on a host.

        Raises:
            Unavailable: it cannot be reached, lets nobody in, or has no shell that we know.
        """
        reached = MachineInfo(
            id=host.name,
            name=host.name,
            fleet=None,
            state="running",
            raw_state="",
            size="",
            cpus=host.cpus,
            memory=0,
            image="",
            addresses=(host.address,),
            ports={} if host.port == _SSH else {_SSH: host.port},
            user=host.user,
        )
        try:
            done = run(reached, self.provider, "sh", stdin=script.encode(), timeout=_PATIENCE)
        except (Unavailable, Timeout) as exc:
            why = f"the host {host.name} cannot be reached, and whose it is, is known there alone: {exc.message}"
            raise type(exc)(why, provider=self.provider) from exc
        if done.exit_code not in {0, scripts.TAKEN, scripts.LOST, scripts.DENIED}:
            said = done.stderr.decode(errors="replace").strip()
            raise Unavailable(f"the host {host.name} failed ({done.exit_code}): {said}", provider=self.provider)
        return done

    def _page(self, items: Sequence[T], cursor: str | None, limit: int | None) -> Page[T]:
        start = int(cursor or 0)
        end = start + self._count(limit)
        return Page(tuple(items[start:end]), str(end) if end < len(items) else None)

    def _count(self, limit: int | None) -> int:
        return self._page_size if limit is None else min(limit, self._page_size)


def _size(host: HostSettings) -> Size:
    name = f"{host.cpus}-{host.memory_gib}" + ("-arm64" if host.arch == "arm64" else "")
    return Size(name=name, cpus=host.cpus, memory=host.memory_gib * GIB, arch=host.arch)


def _fits(host: HostSettings, spec: FleetSpec, size: Size) -> bool:
    """Tell whether a host has what is asked for; what it does not tell, it has."""
    return (
        host.arch == size.arch
        and host.cpus >= size.cpus
        and host.memory_gib * GIB >= size.memory
        and host.image in (None, spec.image)
        and (host.disk_gib is None or host.disk_gib >= spec.disk_gib)
    )


def _state(seen: Seen) -> tuple[MachineState, str]:
    if seen.status is None:
        return ("failed", "restarted before its user data ended") if seen.rebooted else ("creating", "user data runs")
    if seen.status:
        return "failed", f"its user data ended with status {seen.status}; see ~/.shiftable/run.{seen.number}/log there"
    return ("rebooting", "told to restart") if seen.rebooting else ("running", "claimed")


def _info(host: HostSettings, seen: Seen) -> MachineInfo:
    state, raw = _state(seen)
    facts = seen.facts
    return MachineInfo(
        id=f"{host.name}/{facts['name']}/{facts['mark']}",
        name=facts["name"],
        fleet=facts["fleet"],
        state=state,
        raw_state=raw,
        size=facts["size"],
        cpus=facts["cpus"],
        memory=facts["memory"],
        image=facts["image"],
        arch=host.arch,
        disk_gib=host.disk_gib or facts["disk_gib"],
        addresses=(host.address,),
        ports={} if host.port == _SSH else {_SSH: host.port},
        user=host.user,
        labels={**host.labels, **seen.labels, FLEET_LABEL: facts["fleet"]},
        created=datetime.fromisoformat(facts["created"]),
    )


def _gone() -> FilesError:
    return _fault(NotFound, "no host is claimed for it any more")


def _fault(error: type[OperationError], message: str) -> FilesError:
    return FilesError(Fault(error, message))

"""Machines: real servers, whose power and boot are controlled through their BMCs by Redfish."""

from __future__ import annotations

import contextlib
import logging
import re
import secrets
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, TypeVar

import attrs

from shiftable.blob import BlobStore, Bucket, BucketSpec
from shiftable.compute.driver import (
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
    ConfigError,
    Conflict,
    Fault,
    InvalidArgument,
    NotFound,
    Problem,
    QuotaExceeded,
)
from shiftable.features import Limit
from shiftable.paging import Page
from shiftable.parallel import parallel
from shiftable.tls import authorities_problem
from shiftable.wording import counted
from shiftable_baremetal._failures import Stopped, all_of
from shiftable_baremetal._redfish_claims import Aim, Book, Claim, Claims
from shiftable_baremetal._redfish_errors import classify, is_away, is_unsure
from shiftable_baremetal._redfish_settings import RedfishImageSettings, RedfishServerSettings, RedfishSettings
from shiftable_baremetal.blob import FilesDriver

if TYPE_CHECKING:  # sushy is there if servers are
    from shiftable_baremetal._redfish_bmc import Bmc, Seen

__all__ = ["FEATURES", "RedfishComputeDriver", "open_redfish"]

FEATURES = ComputeFeatures(
    title="servers by Redfish",
    create=False,
    arches=frozenset({"x86_64", "arm64"}),
    gpus=False,
    stop=True,
    resize=False,
    console=False,
    disks=False,
    snapshots=False,
    spot=False,
    public_ip=False,
    open_ports=False,
    user_data=False,
    zones=True,
    network=False,
    identity=False,
    prices=False,
    relabel=True,
    ssh=True,
    max_name=Limit(58, "chosen, as Compute Engine with a number of four digits"),
)

logger = logging.getLogger(__name__)

_AT_ONCE = 16
_OWN_BUCKET = "claims"
_MOST_TRIES = 5
"""How often a server is told to start from its image before it has failed."""
_LONGEST_STEP = timedelta(minutes=10)
"""What one tells a BMC takes less: some requests, of which each ends after a minute. Whoever takes longer is dead."""
_HOUR = timedelta(hours=1)

_POWERS: Mapping[str, MachineState] = {
    "On": "running",
    "Off": "stopped",
    "PoweringOn": "starting",
    "PoweringOff": "stopping",
    "Paused": "suspended",
}
"""DMTF's PowerState (ComputerSystem, DSP0268)."""

_ON_THE_WAY: Mapping[str, MachineState] = {
    "boot": "creating",
    "on": "starting",
    "off": "stopping",
    "restart": "rebooting",
    "gone": "deleting",
}

T = TypeVar("T")


@attrs.define(eq=False)
class RedfishComputeDriver(ComputeDriver):
    """An inventory of servers with BMCs. A machine is a claim on one, which is kept in a bucket.

    A claim takes the first server that is free, turned off, large enough and in the zone that is asked for; one that is
    on is somebody's, and never taken. It starts from the image once, and from its own disk ever after. Deleting a
    machine turns its server off at once, ejects the image and releases it; what is on its disks stays there. Users,
    keys and names of hosts are those of the image: Redfish brings nothing to the system that runs. A listing asks the
    BMC of each server once: there is nobody who knows of all.

    Nobody watches over what was asked of a BMC: whoever looks at a machine next sees that it came true, asks again if
    it did not after ``force_after`` seconds, and by force where a server does not shut down.

    Credentials: user and password at each BMC, by which a session is opened there, and ended by ``close``. Permissions:
    the role ``Operator`` (``ConfigureComponents`` for power, boot and virtual media, ``Login``), and to read and write
    the bucket of claims.

    Args:
        images: what can be started.
        bmcs: one for each server.
        claims: who has which server.
        force_after: after how long what was asked is asked again.
        page_size: items of one page.
        clock: tells the time; aware.
    """

    claims: ClassVar[bool] = True

    _servers: tuple[RedfishServerSettings, ...]
    _images: tuple[RedfishImageSettings, ...]
    _bmcs: Mapping[str, Bmc]
    _claims: Claims
    _force_after: timedelta = attrs.field(default=timedelta(minutes=2), kw_only=True)
    _page_size: int = attrs.field(default=100, kw_only=True)
    _clock: Callable[[], datetime] = attrs.field(default=partial(datetime.now, UTC), kw_only=True)
    _known: dict[str, tuple[datetime, Size]] = attrs.field(factory=dict, init=False)

    def __attrs_post_init__(self) -> None:
        weakref.finalize(self, _log_out, tuple(self._bmcs.values()))  # also when nobody closes us

    @property
    def provider(self) -> str:
        """The provider's name in errors."""
        return "baremetal"

    @property
    def features(self) -> ComputeFeatures:
        """What servers can do whose power is controlled."""
        return FEATURES

    def classify(self, exc: Exception) -> Fault | None:
        """Say what a native exception means."""
        return classify(exc)

    def close(self) -> None:
        """Log out of all BMCs."""
        _log_out(tuple(self._bmcs.values()))

    # fleets

    def create(self, spec: FleetSpec) -> None:
        """Make nothing; refuse an image that is not declared, and say what Redfish does not bring to a server."""
        self._image(spec)
        if spec.ssh_keys:
            logger.warning(
                "fleet %s: the servers let in whom their image lets in; ssh_keys are not brought there", spec.name
            )

    # sizes and images

    def sizes(self, *, cursor: str | None, limit: int | None) -> Page[Size]:
        """Return one page of what the servers are, each kind once; without those that do not tell now."""
        found = {size.name: size for size in self._sizes_of(self._servers).values()}
        return self._page([found[name] for name in sorted(found)], cursor, limit)

    def images(self, *, cursor: str | None, limit: int | None) -> Page[Image]:
        """Return one page of what is declared."""
        named = [Image(id=image.name, name=image.name, arch=image.arch, own=False) for image in self._images]
        return self._page(named, cursor, limit)

    # machines

    def create_machine(
        self,
        spec: FleetSpec,
        name: str,
        *,
        size: Size,
        token: str,
        user_data: bytes | None,  # noqa: ARG002  refused
    ) -> MachineInfo:
        """Claim a server and start it from its image, or return the one that this token has claimed."""
        image = self._image(spec)
        for _ in range(len(self._servers) + 1):
            book = self._claims.read()
            known = _of_machine(book, name, token)
            if known is not None and known.token == token and known.fleet != spec.name:
                raise Stopped(AlreadyExists, f"the fleet {known.fleet!r} has a machine {name!r}")
            if known is not None and known.token != token:
                raise Stopped(AlreadyExists, f"there is a machine {name!r}")
            if known is not None:
                seen = self._observed(known)
                if seen is not None and seen.state == "deleting":
                    raise Stopped(Conflict, f"the machine {name!r} is being deleted; make it again when it is gone")
                if seen is not None:
                    return seen
                continue
            claim = self._claim_one(book, spec, name, size, token)
            if claim is not None:
                return self._begin(claim, image)
        raise Stopped(Conflict, "others claim servers at the same time; try again")

    def machines(self, fleet: str | None, *, cursor: str | None, limit: int | None) -> Page[MachineInfo]:
        """Return one page of claims, by the name of their server; each BMC is asked what it does."""
        book = self._claims.read()
        left = [book[server] for server in sorted(book) if cursor is None or server > cursor]
        wanted = [claim for claim in left if fleet in (None, claim.fleet)]
        shown = wanted[: self._page_size if limit is None else min(limit, self._page_size)]
        done = {claim.server: future for claim, future in parallel(self._listed, shown, workers=_AT_ONCE)}
        found = [done[claim.server].result() for claim in shown]
        more = len(shown) < len(wanted)
        return Page(tuple(machine for machine in found if machine is not None), shown[-1].server if more else None)

    def machine(self, id: str) -> MachineInfo:
        """Return one claim and what its server does. While the BMC cannot be reached, that is not known."""
        found = self._observed(self._claim_of(id))
        if found is None:
            raise _gone()
        return found

    def delete_machine(self, id: str) -> None:
        """Turn a server off at once; it is released when its BMC says that it is."""
        seen = self._claim_of(id)
        server = self._server_of(seen)
        claim = self._claims.alter(seen, _leaving)
        if claim is None:
            raise _gone()
        if self._look(server).power == "Off":
            self._observed(claim)
        elif (mine := self._taken(claim)) is not None:  # else whoever has it will see what is wanted
            with self._returning(mine, asked=self._clock(), rising=False):
                self._bmcs[server.name].reset(server.system, "off")

    def reboot(self, id: str) -> None:
        """Restart a server: by its own system if that listens."""
        self._order(id, "running", "restart", "restart")

    def start(self, id: str) -> None:
        """Turn a server on that is off."""
        self._order(id, "stopped", "on", "on")

    def stop(self, id: str) -> None:
        """Have a server shut down; it is turned off if it does not."""
        self._order(id, "running", "off", "shut down")

    def relabel(self, id: str, *, labels: Mapping[str, str], remove: frozenset[str]) -> None:
        """Change labels of a claim, without its BMC; those of the inventory are not the claim's to lose."""
        claim = self._claim_of(id)
        given = next((server.labels for server in self._servers if server.name == claim.server), {})
        if kept := sorted(given.keys() & remove):
            raise Stopped(Conflict, f"the inventory gives {claim.server} the label {kept[0]!r}; take it away there")
        if self._claims.alter(claim, lambda now: _evolved(now, labels=relabelled(now.labels, labels, remove))) is None:
            raise _gone()

    # making

    def _claim_one(self, book: Book, spec: FleetSpec, name: str, size: Size, token: str) -> Claim | None:
        """Claim the first server that fits and is free; ``None`` if somebody was faster, also for the same machine."""
        sizes = self._sizes_of(self._servers)
        fitting = [s for s in self._servers if s.name not in sizes or _fits(s, sizes[s.name], spec, size)]
        silent: list[Exception] = []
        on: list[str] = []
        for server in fitting:
            if server.name in book:
                continue
            try:
                power = self._look(server).power
            except Exception as exc:
                if not is_away(exc):
                    raise
                silent.append(exc)
                continue
            if power != "Off":
                on.append(server.name)
            elif server.name in sizes:
                return self._claimed(server, spec, name, size, token)
        if silent:
            raise silent[0]
        claimed = self._claims.read()  # by now: what was turned on meanwhile is somebody's
        on = [name for name in on if name not in claimed]
        kind = f"{counted(size.cpus, 'CPU')}, {size.memory // GIB} GiB" + (f" in zone {spec.zone}" if spec.zone else "")
        if not fitting:
            raise Stopped(InvalidArgument, f"no server of the inventory has {kind} and a disk of {spec.disk_gib} GiB")
        busy = f" or on without being claimed ({', '.join(on)}: turn them off to have them)" if on else ""
        raise Stopped(QuotaExceeded, f"{all_of(len(fitting), 'server', kind)} claimed{busy}")

    def _claimed(
        self, server: RedfishServerSettings, spec: FleetSpec, name: str, size: Size, token: str
    ) -> Claim | None:
        now = self._clock()
        claim = Claim(
            server=server.name,
            mark=secrets.token_hex(8),
            fleet=spec.name,
            name=name,
            token=token,
            image=spec.image,
            size=size.name,
            cpus=size.cpus,
            memory=size.memory,
            disk_gib=spec.disk_gib,
            labels=dict(spec.labels),
            created=now,
            busy=now,
        )

        def edit(book: Book) -> Book | None:
            taken = server.name in book or _of_machine(book, name, token) is not None
            return None if taken else {**book, server.name: claim}

        return claim if self._claims.change(edit).get(server.name) == claim else None

    def _begin(self, claim: Claim, image: RedfishImageSettings) -> MachineInfo:
        """Start a server that was just claimed; release it if it certainly was not turned on."""
        server, bmc = self._server_of(claim), self._bmcs[claim.server]
        try:
            bmc.prepare(server.system, image)
        except BaseException as exc:
            if isinstance(exc, Exception) and not is_away(exc):
                self._ejected(claim, server, last=True)
            self._claims.alter(claim, lambda _: None)
            raise
        try:
            task = bmc.reset(server.system, "on")
        except Exception as exc:
            if is_unsure(exc):
                self._returned(claim)
            else:
                self._claims.alter(claim, lambda _: None)
            raise
        begun = self._returned(claim, asked=self._clock(), tries=1, task=task)
        return self._info(begun, _unseen(begun, "creating"), "told to start")

    # what was asked, and what came of it

    def _order(self, id: str, needed: MachineState, aim: Aim, way: str) -> None:
        """Tell a server what to do if its state allows it."""
        claim = self._claim_of(id)
        server = self._server_of(claim)
        seen = self._look(server)
        now = self._advanced(claim, server, seen)
        if now is None:
            raise _gone()
        state = _state(now, seen)[0]
        if state != needed:
            raise Stopped(Conflict, f"it is {state}; it must be {needed}")
        mine = self._taken(now)
        if mine is None:
            raise Stopped(Conflict, "somebody else tells its BMC something in this moment; try again")
        before = seen.reset_at if aim == "restart" else None
        with self._returning(mine, aim=aim, reached=False, tries=1, before=before, failed="") as result:
            task = self._bmcs[server.name].reset(server.system, way)
            result |= {"asked": self._clock(), "task": task}

    def _listed(self, claim: Claim) -> MachineInfo | None:
        """Look at a server among others, of which none may hide the rest."""
        try:
            return self._observed(claim)
        except Exception as exc:
            fault = classify(exc)
            if fault is None:
                raise
            return None if fault.error is NotFound else self._info(claim, _unseen(claim), fault.message)

    def _observed(self, claim: Claim) -> MachineInfo | None:
        """Look at a server and go on with what was asked of it; ``None`` if that was to be released, and is."""
        server = next((server for server in self._servers if server.name == claim.server), None)
        if server is None:
            return self._info(claim, "unknown", "its server is no longer in the inventory")
        try:
            seen = self._look(server)
            now = self._advanced(claim, server, seen)
        except Exception as exc:
            fault = classify(exc)
            if fault is None or not is_away(exc):
                raise
            return self._info(claim, _unseen(claim), fault.message)
        return None if now is None else self._info(now, *_state(now, seen))

    def _advanced(self, claim: Claim, server: RedfishServerSettings, seen: Seen) -> Claim | None:
        """Go on with what was asked of a server; return its claim then, ``None`` when it was released."""
        if claim.aim == "gone":
            return self._released(claim, server, seen)
        return claim if claim.reached or claim.failed else self._awaited(claim, server, seen)

    def _awaited(self, claim: Claim, server: RedfishServerSettings, seen: Seen) -> Claim:
        """Note what has come true of what was asked last, or ask again for it when it is due."""
        if claim.task is not None and (why := self._bmcs[server.name].task_error(claim.task)) is not None:
            return self._changed(claim, task=None, failed=why, reached=claim.aim != "boot")
        if _came_true(claim, seen):
            return self._changed(claim, reached=True, task=None)
        if not self._is_due(claim):
            return claim
        if claim.aim == "boot" and claim.tries >= _MOST_TRIES:
            return self._changed(claim, failed=f"it was told {claim.tries} times to start, and is {seen.power}")
        return self._again(claim, server, seen)

    def _again(self, claim: Claim, server: RedfishServerSettings, seen: Seen) -> Claim:
        """Ask again, unless somebody else does in this moment."""
        mine = self._taken(claim, asked=self._clock(), tries=claim.tries + 1, task=None)
        if mine is None:
            return claim
        image = self._image_of(claim)
        way = {"off": "off", "restart": "force restart" if seen.power != "Off" else "on"}.get(claim.aim, "on")
        with self._returning(mine) as result:
            if claim.aim == "boot" and claim.tries == 0 and image is not None:  # whoever made it was interrupted
                self._bmcs[server.name].prepare(server.system, image)
            result["task"] = self._retold(server, way)
        return attrs.evolve(mine, busy=None)

    def _retold(self, server: RedfishServerSettings, way: str) -> str | None:
        """Tell a BMC again; one that lags may refuse it, since it is so already."""
        try:
            return self._bmcs[server.name].reset(server.system, way)
        except Exception as exc:
            fault = classify(exc)
            if fault is None or is_away(exc):
                raise
            logger.info("the BMC of %s does not %s again: %s", server.name, way, fault.message)
            return None

    def _released(self, claim: Claim, server: RedfishServerSettings, seen: Seen) -> Claim | None:
        """Release a server that is off; one that was being turned on may say so before it is on."""
        due, off = self._is_due(claim), seen.power == "Off"
        if off is claim.rising and not due:
            return claim
        mine = self._taken(claim, **({} if off else {"asked": self._clock(), "rising": False}))
        if mine is None:
            return claim
        with self._returning(mine):
            if not off:
                self._retold(server, "off")
                return mine
            self._ejected(claim, server, last=due)
            self._claims.alter(mine, lambda _: None)
            return None

    def _ejected(self, claim: Claim, server: RedfishServerSettings, *, last: bool) -> None:
        """Take out what it was started from; a BMC that will not does not keep the server from being released.

        Args:
            last: nobody will try again.
        """
        image = self._image_of(claim)
        if image is not None and image.boot != "media":
            return
        try:
            self._bmcs[server.name].eject(server.system)
        except Exception as exc:
            fault = classify(exc)
            if fault is None or (is_away(exc) and not last):
                raise
            logger.warning("the image stays in a virtual drive of the server %s: %s", server.name, fault.message)

    def _taken(self, claim: Claim, **changes: object) -> Claim | None:
        """Have a BMC for oneself, so that nothing is told to it for one who has lost the server meanwhile.

        Returns:
            the claim as it is then; ``None`` if somebody else has it, or the claim has changed.
        """
        now = self._clock()
        if claim.busy is not None and now - claim.busy < _LONGEST_STEP:
            return None
        mine = _evolved(claim, busy=now, **changes)
        return mine if self._claims.replace(claim, mine) else None

    def _returned(self, mine: Claim, **changes: object) -> Claim:
        """Let others have the BMC. What is wanted of the machine by now stands: who deletes it has the last word."""

        def alter(now: Claim) -> Claim:
            told = _evolved(now, **changes) if now.aim == mine.aim else now
            return _evolved(told, busy=None) if now.busy == mine.busy else told

        return self._claims.alter(mine, alter) or mine

    @contextlib.contextmanager
    def _returning(self, mine: Claim, **changes: object) -> Iterator[dict[str, object]]:
        """Let others have the BMC afterwards; note the changes, and those that the block adds, if it did not fail."""
        result = dict(changes)
        try:
            yield result
        except BaseException:
            self._returned(mine)
            raise
        self._returned(mine, **result)

    def _is_due(self, claim: Claim) -> bool:
        return self._clock() - (claim.asked or claim.created) >= self._force_after

    # what they share

    def _look(self, server: RedfishServerSettings) -> Seen:
        return self._bmcs[server.name].look(server.system)

    def _image(self, spec: FleetSpec) -> RedfishImageSettings:
        for image in self._images:
            if image.name == spec.image:
                if image.arch != spec.arch:
                    raise Stopped(InvalidArgument, f"the image {spec.image!r} is for {image.arch}, not {spec.arch}")
                return image
        known = ", ".join(image.name for image in self._images) or "none"
        raise Stopped(InvalidArgument, f"no image {spec.image!r} is declared for these servers; declared are: {known}")

    def _sizes_of(self, servers: Sequence[RedfishServerSettings]) -> dict[str, Size]:
        """Return what servers have, as declared or as their BMCs tell; that is kept for an hour.

        Those whose BMCs do not tell now are left out, unless none does.
        """
        now, silent = self._clock(), list[Exception]()
        asked = [s for s in servers if s.name not in self._known or now - self._known[s.name][0] >= _HOUR]
        for server, future in parallel(self._size_of, asked, workers=_AT_ONCE):
            try:
                self._known[server.name] = (now, future.result())
            except Exception as exc:
                if not is_away(exc):
                    raise
                silent.append(exc)
        found = {server.name: self._known[server.name][1] for server in servers if server.name in self._known}
        if silent and not found:
            raise silent[0]
        return found

    def _size_of(self, server: RedfishServerSettings) -> Size:
        cpus, memory = server.cpus, server.memory_gib
        if cpus is None or memory is None:
            seen = self._look(server)
            cpus, memory = cpus or seen.cpus, memory or seen.memory_gib
            if cpus is None or memory is None:
                why = f"the BMC of {server.name} does not tell its CPUs and memory: declare cpus and memory_gib"
                raise Stopped(InvalidArgument, why)
        name = f"{cpus}-{memory}" + ("-arm64" if server.arch == "arm64" else "")
        return Size(name=name, cpus=cpus, memory=memory * GIB, arch=server.arch)

    def _image_of(self, claim: Claim) -> RedfishImageSettings | None:
        return next((image for image in self._images if image.name == claim.image), None)

    def _claim_of(self, id: str) -> Claim:
        place, _, rest = id.partition("/")
        mark = rest.rpartition("/")[2]
        claim = self._claims.read().get(place)
        if claim is None or not re.fullmatch("[0-9a-f]{16}", mark) or claim.mark != mark:
            raise _gone()
        return claim

    def _server_of(self, claim: Claim) -> RedfishServerSettings:
        for server in self._servers:
            if server.name == claim.server:
                return server
        raise Stopped(Conflict, f"the server {claim.server!r} is claimed, but no longer in the inventory")

    def _changed(self, claim: Claim, **changes: object) -> Claim:
        """Note what was seen of a claim; somebody who was faster has the last word.

        Raises:
            Stopped: it is gone.
        """
        after = _evolved(claim, **changes)
        if self._claims.replace(claim, after):
            return after
        now = self._claims.read().get(claim.server)
        if now is None or now.mark != claim.mark:
            raise _gone()
        return now

    def _info(self, claim: Claim, state: MachineState, raw: str) -> MachineInfo:
        server = next((server for server in self._servers if server.name == claim.server), None)
        image = self._image_of(claim)
        return MachineInfo(
            id=f"{claim.server}/{claim.name}/{claim.mark}",
            name=claim.name,
            fleet=claim.fleet,
            state=state,
            raw_state=raw,
            size=claim.size,
            cpus=claim.cpus,
            memory=claim.memory,
            image=claim.image,
            arch=server.arch if server is not None else "x86_64",
            disk_gib=(server.disk_gib if server is not None else None) or claim.disk_gib,
            zone=server.zone if server is not None else None,
            addresses=(server.host,) if server is not None and server.host is not None else (),
            user=image.user if image is not None else "root",
            labels={**(server.labels if server is not None else {}), **claim.labels, FLEET_LABEL: claim.fleet},
            created=claim.created,
        )

    def _page(self, items: Sequence[T], cursor: str | None, limit: int | None) -> Page[T]:
        start = int(cursor or 0)
        end = start + (self._page_size if limit is None else min(limit, self._page_size))
        return Page(tuple(items[start:end]), str(end) if end < len(items) else None)


def open_redfish(settings: RedfishSettings, root: Path, *, fsync: bool = True) -> RedfishComputeDriver:
    """Make the driver for an inventory.

    Args:
        root: where claims lie if the settings name no bucket.
        fsync: whether a claim waits there until the disk has it.

    Raises:
        ConfigError: the settings are wrong.
    """
    try:
        from shiftable_baremetal._redfish_bmc import Bmc
    except ImportError as exc:
        raise ConfigError(f'servers need sushy: pip install "shiftable-baremetal[redfish]" ({exc})') from exc
    problems = list(_problems(settings))
    if problems:
        raise ConfigError(problems)
    verify = str(settings.ca_bundle) if settings.tls and settings.ca_bundle is not None else settings.tls
    made: dict[tuple[str, str], Bmc] = {}
    bmcs = {}
    for server in settings.servers:
        username, password = server.username or settings.username, server.password or settings.password
        key = (server.bmc, username)
        bmcs[server.name] = made.setdefault(key, Bmc(server.bmc, username, password, verify=verify))
    given = settings.claims
    claims = Claims(partial(_own_bucket, root, fsync=fsync)) if given is None else Claims(given.open, given.prefix)
    wait = timedelta(seconds=settings.force_after)
    return RedfishComputeDriver(settings.servers, settings.images, bmcs, claims, force_after=wait)


def _problems(settings: RedfishSettings) -> Iterator[Problem]:
    for kind, names in (
        ("servers", [server.name for server in settings.servers]),
        ("images", [image.name for image in settings.images]),
    ):
        if len(set(names)) < len(names):
            yield Problem(f"redfish.{kind}", "two of them have the same name")
    systems = [(server.bmc, server.system) for server in settings.servers]
    if len(set(systems)) < len(systems):
        yield Problem("redfish.servers", "two of them are the same system of the same BMC")
    for server in settings.servers:
        if settings.tls and not server.bmc.startswith("https://"):
            yield Problem("redfish.servers", f"{server.name} is without TLS: the password would be read on the way")
    why = None if settings.ca_bundle is None else authorities_problem(settings.ca_bundle)
    if why is not None:
        yield Problem("redfish.ca_bundle", why)


def _own_bucket(root: Path, *, fsync: bool) -> Bucket:
    """Return the bucket of files below the root, which only this user reads."""
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    store = BlobStore(FilesDriver(root, fsync=fsync))
    with contextlib.suppress(AlreadyExists):
        if not store.exists(_OWN_BUCKET):
            store.create(BucketSpec(name=_OWN_BUCKET))
    return store.bucket(_OWN_BUCKET)


def _log_out(bmcs: Sequence[Bmc]) -> None:
    for bmc in bmcs:
        bmc.close()


def _of_machine(book: Book, name: str, token: str) -> Claim | None:
    """Return the claim of that token, else of that name."""
    claims = sorted(book.values(), key=lambda claim: claim.token != token)
    return next((claim for claim in claims if claim.token == token or claim.name == name), None)


def _fits(server: RedfishServerSettings, has: Size, spec: FleetSpec, size: Size) -> bool:
    """Tell whether a server has what is asked for; what it does not tell of its disks, it has."""
    return (
        has.arch == size.arch
        and has.cpus >= size.cpus
        and has.memory >= size.memory
        and spec.zone in (None, server.zone)
        and (server.disk_gib is None or server.disk_gib >= spec.disk_gib)
    )


def _came_true(claim: Claim, seen: Seen) -> bool:
    """Tell whether a server is as it was asked to be."""
    if claim.aim == "off":
        return seen.power == "Off"
    if claim.aim == "restart" and claim.before is not None:
        return seen.power == "On" and seen.reset_at != claim.before
    return seen.power == "On"


def _state(claim: Claim, seen: Seen) -> tuple[MachineState, str]:
    if claim.failed and not claim.reached:
        return "failed", claim.failed
    if claim.aim == "gone" or not claim.reached:
        return _ON_THE_WAY[claim.aim], seen.power
    return _POWERS.get(seen.power, "unknown"), f"{seen.power}; {claim.failed}" if claim.failed else seen.power


def _leaving(claim: Claim) -> Claim:
    """Return a claim that is to be released."""
    if claim.aim == "gone":
        return claim
    rising = not claim.reached and claim.aim in {"boot", "on", "restart"}
    return _evolved(claim, aim="gone", reached=False, rising=rising, task=None, failed="")


def _evolved(claim: Claim, **changes: object) -> Claim:
    return attrs.evolve(claim, **changes)  # type: ignore[arg-type]  # each of its own type


def _unseen(claim: Claim, state: MachineState = "unknown") -> MachineState:
    """Return the state of a machine whose BMC says nothing."""
    return "deleting" if claim.aim == "gone" else state


def _gone() -> Stopped:
    return Stopped(NotFound, "no server is claimed for it any more")

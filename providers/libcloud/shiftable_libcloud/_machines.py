"""What machines of every hoster here have in common: tags that keep facts, sizes by need, calls over libcloud."""

from __future__ import annotations

import json
import re
import threading
import time
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, Generic, NoReturn, TypeVar
from urllib.parse import quote

import attrs

from shiftable.compute.driver import (
    FLEET_LABEL,
    Choice,
    ComputeDriver,
    ComputeFeatures,
    FleetSpec,
    Rule,
    Size,
    choose_size,
)
from shiftable.errors import AlreadyExists, Conflict, Fault, InvalidArgument, NotFound, OperationError
from shiftable.paging import Page
from shiftable_libcloud._connection import Broken, Pool, Refusal
from shiftable_libcloud.errors import HosterFault, classify

__all__ = [
    "FLEET",
    "MIB",
    "OPEN",
    "TRIES",
    "Calls",
    "HosterCompute",
    "Json",
    "Walls",
    "as_text",
    "fail",
    "gone",
    "is_taken",
    "labels_of",
    "number_id",
    "own_tags",
    "persistently",
    "tagged",
    "tags_changed",
    "token_of",
    "told_image",
    "user_of",
]

Json = Mapping[str, Any]
Walls = Mapping[str, Json]
"""The firewalls that shiftable made, by fleet."""
T = TypeVar("T")
A = TypeVar("A", bound="Calls")

FLEET = f"{FLEET_LABEL}:"
OPEN = (Rule(port=1, last_port=65_535), Rule(port=1, last_port=65_535, protocol="udp"))
"""What is open without a firewall: everything."""
MIB = 2**20
TRIES = 4

_OURS = "shiftable-"
_TOKEN, _IMAGE, _USER = "shiftable-token:", "shiftable-image:", "shiftable-user:"
_LABEL = re.compile(r"[a-z0-9_-]+")
_HOUR = 3600.0
_MISSING = 404
_READY = "available"


class Calls:
    """Mixed into libcloud's drivers: calls that those have no words for, over their connection.

    Attributes:
        page: returns one page of a listing: of a path, its name in the answer, its number, and what is looked for; and
            whether more follow.
    """

    connection: Any
    page: Callable[..., tuple[list[Json], bool]]

    def all(self, path: str, listed: str, **query: str | int) -> list[Json]:
        """Return all pages of a listing, each thing once."""
        found, number, more = list[Json](), 1, True
        while more:
            rows, more = self.page(path, listed, number, **query)
            found += (row for row in rows if row not in found)
            number += 1
        return found

    def get(self, path: str, told: str | None = None) -> Json:
        """Return one thing, which may stand in a field of the answer."""
        found = self.connection.request(path).object
        thing: Json = found if told is None else found[told]
        return thing

    def post(self, path: str, body: Json) -> Any:  # noqa: ANN401  JSON
        """Send something new, once, unless the hoster says that it came too fast."""
        return self.connection.request(path, data=json.dumps(body), method="POST").object

    def put(self, path: str, body: Json) -> None:
        """Replace something."""
        self.connection.request(path, data=json.dumps(body), method="PUT")

    def delete(self, path: str) -> None:
        """Delete something."""
        self.connection.request(path, method="DELETE")


@attrs.define
class HosterCompute(ComputeDriver, Generic[A]):
    """Machines of a hoster in one region, with what all hosters have in common.

    Args:
        region: the hoster's name of it.

    Attributes:
        pictures: where images are.
        walls: where firewalls are listed: the path, the listing's name in the answer, the field with their names.
        wall: what the names of those begin with that are fleets'.
    """

    pictures: ClassVar[str]
    walls: ClassVar[tuple[str, str, str]]
    wall: ClassVar[str]
    _pool: Pool[A] = attrs.field(repr=False)
    _region: str
    _features: ComputeFeatures = attrs.field(repr=lambda features: features.title, kw_only=True)
    _sold: tuple[float, tuple[Json, ...]] | None = attrs.field(default=None, init=False, repr=False)
    _walls: Walls = attrs.field(factory=dict, init=False, repr=False)
    _lock: threading.Lock = attrs.field(factory=threading.Lock, init=False, repr=False, eq=False)

    @property
    def provider(self) -> str:
        """The provider's name in errors."""
        return "libcloud"

    @property
    def features(self) -> ComputeFeatures:
        """What this driver can do."""
        return self._features

    def classify(self, exc: Exception) -> Fault | None:
        """Say what a native exception means."""
        return classify(exc)

    def close(self) -> None:
        """Close the connections."""
        self._pool.close()

    # labels are tags, and the driver keeps facts of its own as tags

    def missing_labels(self, labels: Mapping[str, str]) -> tuple[str, ...]:
        """Say which labels can be no tags: those do not tell upper from lower case, and have few other characters."""
        named = ((key, value) for key, value in labels.items() if key)
        odd = (f"tag for the label {key}={value}" for key, value in named if not self._fits(key, value))
        return (*super().missing_labels(labels), *odd)

    def is_own_label(self, name: str) -> bool:
        """Tell whether a label is no user's to give or to take away."""
        return name.startswith(_OURS)

    def _fits(self, key: str, value: str) -> bool:
        tag = f"{key}:{value}"
        return bool(_LABEL.fullmatch(key) and _LABEL.fullmatch(value)) and 3 <= len(tag) <= self._longest_tag()

    @abstractmethod
    def _longest_tag(self) -> int:
        """Return how long a tag may be."""

    # machines

    def delete_machine(self, id: str) -> None:
        """Delete a machine, with its disk and addresses."""
        path = self._path(id)
        with self._pool.one() as api:
            gone(api, path)

    @abstractmethod
    def _path(self, id: str) -> str:
        """Return where a machine is in the API.

        Raises:
            HosterFault: that is no machine's id.
        """

    def _require_image(self, api: A, image: str) -> None:
        """Refuse an image that there is not, or not yet, before a firewall is made or a machine is replaced."""
        try:
            told = api.get(f"{self.pictures}/{quote(image)}")
        except Refusal as exc:
            if exc.code != _MISSING:
                raise
            fail(InvalidArgument, f"there is no image {image!r}; `shiftable compute images` lists what there is")
        state = str(told.get("image", told).get("status", _READY)).lower()
        if state != _READY:
            fail(Conflict, f"image {image!r} is {state}, so not ready; try again when it is")

    # firewalls

    def _all_walls(self, api: A) -> Walls:
        """Ask for the firewalls that shiftable made, by fleet."""
        path, listed, named = self.walls
        self._walls = {
            fleet: row
            for row in api.all(path, listed)
            for fleet in (str(row[named]).removeprefix(self.wall),)
            if row[named] == f"{self.wall}{fleet}" and f"{FLEET}{fleet}" in (row.get("tags") or ())
        }
        return self._walls

    # sizes

    def sizes(self, *, cursor: str | None, limit: int | None) -> Page[Size]:  # noqa: ARG002  all come at once
        """Return the sizes that are sold in the region; one page."""
        return Page(tuple(map(self._size, self._sizes())))

    def choose(self, spec: FleetSpec) -> Choice:
        """Choose the size; a disk that is large enough comes with it alone."""
        sizes = [self._size(row) for row in self._sizes() if self._disk_gib(row) >= spec.disk_gib]
        try:
            return choose_size(spec.cpus, spec.memory_gib, spec.arch, sizes)
        except ValueError as exc:
            raise ValueError(f"{exc}, among those with a disk of {spec.disk_gib:,} GiB in {self._region}") from exc

    def _sizes(self) -> tuple[Json, ...]:
        """Return the sizes of the region without GPUs, as they were at most an hour ago."""
        with self._lock:
            kept = self._sold
        if kept is None or time.monotonic() - kept[0] > _HOUR:
            with self._pool.one() as api:
                kept = time.monotonic(), tuple(self._sold_here(api))
            with self._lock:
                self._sold = kept
        return kept[1]

    @abstractmethod
    def _sold_here(self, api: A) -> Iterable[Json]:
        """Ask for the sizes of the region without GPUs."""

    @abstractmethod
    def _size(self, row: Json) -> Size:
        """Return a size as it is told."""

    @abstractmethod
    def _disk_gib(self, row: Json) -> int:
        """Return the disk that comes with a size."""


# tags


def own_tags(spec: FleetSpec, token: str, image: str | None, *more: str) -> list[str]:
    """Return the tags of a new machine: the driver's own, and the user's labels."""
    own = [f"{FLEET}{spec.name}", f"{_TOKEN}{token}", f"{_USER}{spec.user}", *more]
    asked = [] if image is None else [f"{_IMAGE}{image.replace('.', '_')}"]
    return [*own, *asked, *(f"{key}:{value}" for key, value in spec.labels.items())]


def tagged(row: Json, prefix: str) -> str | None:
    """Return what stands behind a prefix in a thing's tags."""
    return next((tag.removeprefix(prefix) for tag in row.get("tags") or () if tag.startswith(prefix)), None)


def token_of(row: Json) -> str | None:
    """Return the token that a machine was made with."""
    return tagged(row, _TOKEN)


def user_of(row: Json) -> str:
    """Return who logs in."""
    return tagged(row, _USER) or "root"


def told_image(row: Json, otherwise: str) -> str:
    """Return the image as it was asked for, where that is kept."""
    return (tagged(row, _IMAGE) or "").replace("_", ".") or otherwise


def labels_of(row: Json) -> dict[str, str]:
    """Return the labels of a machine, with the fleet's own."""
    own = (tag for tag in row.get("tags") or () if tag.startswith(FLEET) or not tag.startswith(_OURS))
    return dict(tag.split(":", 1) for tag in own if ":" in tag)


def tags_changed(row: Json, labels: Mapping[str, str], remove: frozenset[str]) -> tuple[list[str], list[str]]:
    """Return which tags a machine is to be given for labels, and which are to be taken from it."""
    has = [str(tag) for tag in row.get("tags") or ()]
    wanted = [f"{key}:{value}" for key, value in labels.items()]
    goes = {*labels, *remove}
    old = [tag for tag in has if ":" in tag and tag.split(":", 1)[0] in goes and tag not in wanted]
    return [tag for tag in wanted if tag not in has], old


def as_text(hoster: str, data: bytes) -> bytes:
    """Return user data if it is text.

    Raises:
        ValueError: it is not.
    """
    try:
        data.decode()
    except UnicodeDecodeError:
        raise ValueError(f"{hoster} takes user data as text only; do not compress it") from None
    return data


# calls


def fail(error: type[OperationError], message: str) -> NoReturn:
    """Say what the driver found out itself.

    Raises:
        HosterFault: always.
    """
    raise HosterFault(Fault(error, message))


def number_id(id: str, what: str) -> int:
    """Return an id as it stands in a path: a number, so that nothing else gets there."""
    if not (id.isascii() and id.isdecimal()):
        fail(NotFound, f"{what} have numbers as ids")
    return int(id)


def gone(api: Calls, path: str) -> None:
    """Delete something; if it is missing after a try whose answer was lost, that one did it."""
    try:
        api.delete(path)
    except Refusal as exc:
        if not (exc.code == _MISSING and exc.doubtful):
            raise


def is_taken(exc: Exception) -> bool:
    """Tell whether a refusal says that there is something of that name."""
    fault = classify(exc)
    return fault is not None and fault.error is AlreadyExists


def persistently(make: Callable[[], T], look: Callable[[], T | None]) -> T:
    """Make something; whenever that fails, look whether it is there; if an answer was lost and it is not, once more."""
    for left in reversed(range(TRIES)):
        try:
            return make()
        except (Refusal, Broken) as exc:
            if not (exc.is_executed_perhaps or is_taken(exc)):
                raise
            found = look()
            if found is not None:
                return found
            if not (exc.is_executed_perhaps and left):
                raise
    raise AssertionError("the last try returns or raises")

"""What moves one service: ``Mover``, its five steps and the values that pass between it and what drives it."""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Any, ClassVar, Generic, TypeVar, cast

import attrs

from shiftable.errors import MigrationError, ShiftableError
from shiftable.migrate._filters import Filter
from shiftable.migrate._inventory import Inventory
from shiftable.migrate._shards import Shard
from shiftable.service import Change, Service, Spec

__all__ = [
    "Action",
    "Finding",
    "Item",
    "Loss",
    "Mover",
    "Notes",
    "Options",
    "Outcome",
    "Pin",
    "Record",
    "Refusal",
    "Step",
    "Trouble",
    "joined",
]


class Action(StrEnum):
    """What is to be done with one item."""

    CREATE = "create"
    """The target has none: written create-only."""
    REPLACE = "replace"
    """The target's is ours, or may be overwritten: written over exactly the version that was seen."""
    COMPARE = "compare"
    """The target's may be equal: adopted if it is, a conflict if not."""
    UNCHANGED = "unchanged"
    """Nothing to do: the source is what we copied and the target what we wrote."""
    DELETE = "delete"
    """We wrote it and its source is gone: deleted on the target, with ``prune``."""
    STALE = "stale"
    """The same without ``prune``: left alone and named."""
    FOREIGN = "foreign"
    """Only the target has it, and it is not ours: left alone."""
    REFUSE = "refuse"
    """The target cannot hold it, or holds something else: named, never forced."""
    HIDDEN = "hidden"
    """The filter leaves it out: left alone on both sides, whatever it is."""


class Trouble(StrEnum):
    """Why an item is named in a report. The last three do not count against it."""

    REFUSED = "refused"
    """The target cannot hold it without a loss that was not accepted."""
    CONFLICT = "conflict"
    """The target holds something else that we did not write."""
    FAILED = "failed"
    """An error; the next run tries again."""
    DIFFERS = "differs"
    """Verification found another content, header or label."""
    MISSING = "missing"
    """Verification did not find it on the target."""
    CHANGED = "changed"
    """The source changed while it was read; its newest version arrived."""
    VANISHED = "vanished"
    """The source was deleted before it was read."""
    STALE = "stale"
    """It was moved earlier; the source is gone and the target still has it."""

    @property
    def counts(self) -> bool:
        """Whether a move with such an item is incomplete."""
        return self not in {Trouble.CHANGED, Trouble.VANISHED, Trouble.STALE}


def _facets(names: Iterable[str]) -> frozenset[str]:
    return frozenset(names)


@attrs.frozen(kw_only=True)
class Options:
    """How a move is done.

    Args:
        overwrite: replace items of the target that differ and that we did not write.
        degrade: facets that may be lost where the target cannot hold them; recorded in journal and report. The names
            are those of the movers: ``Mover.facets``.
        prune: delete from the target what we wrote and whose source is gone, if nobody changed it since; when all else
            has arrived, and nothing if something failed.
        prune_share: the most of a resource that ``prune`` deletes, between 0 and 1; ten items always. More stops the
            move before it begins: a source that is nearly empty is more often a mistake than a wish.
        prune_limit: the most items of a resource that ``prune`` deletes, instead of that share.
        include_pending: move secrets' pending versions too; without it a rotation in flight is a refusal.
        history: so many of the newest versions of a secret are moved, those with a stage always; ``None``: all.
        origin: labels of the target's secrets tell the ids and dates that versions have at the source.
        inspect: a plan looks at each item that would be written (a call or two), so that it knows every refusal.
        names: another name for a resource on the target, by its name on the source; of buckets.
        concurrency: items at once, at most: it begins with few, and finds out how many there should be.
        listers: ranges of keys that are listed at once.
        bandwidth: bytes of content read in a second, on both sides; ``None``: as many as there are.
        requests: requests in a second, to source and target together; ``None``: as many as there are.
        attempts: how often an item is tried whose error may pass.
        abort_after: so many failures of one kind in a row end the move.
        filter: which objects the move is about; it goes with buckets only.
        inventory: a file that tells the source's objects in place of its listing; it goes with one bucket, and without
            ``prune``: it is older than the bucket.
        apex: the NS records of a zone itself move too.
        change_share: the most of a zone's record sets on the target that a move replaces or deletes, between 0 and 1;
            of a zone with fewer than ten, all. More stops the move before it begins.
        change_limit: the most record sets that it replaces or deletes, instead of that share; of a fleet, the most
            machines that are made, instead of as many as the source has.
        ask: name servers of the target to be asked when zones are verified, ``192.0.2.1@53``; without any those that
            the provider tells, and with ``None`` nobody.
        ask_source: name servers of the source, for aliases whose addresses are wanted; as ``ask``.
        frozen: nobody writes to the databases of the source: a killed move goes on where it stopped, and need not know
            whether somebody did.
        equivalents: what takes the place of names that only the source's provider knows: of images, zones, networks,
            identities and GPUs of machines.
        health: how machines are looked at from outside when they are verified: ``ssh``, ``http:8080/health``.
        health_timeout: seconds until they must be well.
    """

    overwrite: bool = False
    degrade: frozenset[str] = attrs.field(default=frozenset(), converter=_facets)
    prune: bool = False
    prune_share: float = attrs.field(default=0.3, validator=[attrs.validators.ge(0), attrs.validators.le(1)])
    prune_limit: int | None = attrs.field(default=None, validator=attrs.validators.optional(attrs.validators.ge(0)))
    include_pending: bool = False
    history: int | None = attrs.field(
        default=cast("int | None", 0), validator=attrs.validators.optional(attrs.validators.ge(0))
    )
    origin: bool = False
    inspect: bool = True
    names: Mapping[str, str] = attrs.field(factory=dict, hash=False)
    concurrency: int = attrs.field(default=64, validator=attrs.validators.ge(1))
    listers: int = attrs.field(default=8, validator=attrs.validators.ge(1))
    bandwidth: int | None = attrs.field(default=None, validator=attrs.validators.optional(attrs.validators.gt(0)))
    requests: float | None = attrs.field(default=None, validator=attrs.validators.optional(attrs.validators.gt(0)))
    attempts: int = attrs.field(default=4, validator=attrs.validators.ge(1))
    abort_after: int = attrs.field(default=10, validator=attrs.validators.ge(1))
    filter: Filter = attrs.field(factory=Filter)
    inventory: Inventory | None = None
    apex: bool = False
    change_share: float = attrs.field(default=0.3, validator=[attrs.validators.ge(0), attrs.validators.le(1)])
    change_limit: int | None = attrs.field(default=None, validator=attrs.validators.optional(attrs.validators.ge(0)))
    ask: tuple[str, ...] | None = ()
    ask_source: tuple[str, ...] | None = ()
    frozen: bool = False
    equivalents: Mapping[str, str] = attrs.field(factory=dict, hash=False)
    health: tuple[str, ...] = ()
    health_timeout: float = 300.0

    @property
    def facts(self) -> dict[str, Any]:
        """Return the options for JSON."""
        own = {field.name: getattr(self, field.name) for field in attrs.fields(Options)}
        inventory = self.inventory.path if self.inventory else None
        return own | {"degrade": sorted(self.degrade), "filter": self.filter.facts, "inventory": inventory}


@attrs.frozen(kw_only=True)
class Pin:
    """The version of an item on one side, as its listing tells it.

    Args:
        modified: counts for the source, where a token that is a hash of the content says nothing of the metadata.
        content: a digest of the content, where the listing tells one and it is no secret; in the journal several, until
            it is known which of them arrived.
    """

    token: str
    size: int = 0
    modified: str = ""
    content: str = ""

    @property
    def contents(self) -> frozenset[str]:
        """All digests that were to be written, in runs of which nobody knows how they ended."""
        return frozenset(self.content.split())

    def after(self, earlier: Pin) -> Pin:
        """Return this version, and the contents of one whose write may have been the last one that arrived."""
        rest = [each for each in earlier.content.split() if each != self.content]
        return attrs.evolve(self, content=" ".join([self.content, *rest]).strip())

    def is_version_of(self, other: Pin | None) -> bool:
        """Tell whether it is the same version, whatever else was to be written earlier."""
        return other is not None and attrs.evolve(self, content=other.content) == other


@attrs.frozen(kw_only=True)
class Record:
    """What the journal knows of an item.

    Args:
        done: whether it arrived; else it was begun and nobody came back to say how it ended.
        source: the version that was, or was to be, copied.
        target: the last version on the target that we know to be ours.
        before: the version that the target had when this plan began with the item.
        plan: digest of that plan.
    """

    key: str
    done: bool
    source: Pin
    target: str | None
    before: str | None
    plan: str


@attrs.frozen(kw_only=True)
class Item:
    """One item on both sides and in the journal. A mover adds its own fields."""

    key: str
    source: Pin | None
    target: Pin | None
    record: Record | None

    @property
    def size(self) -> int:
        """Bytes to be moved."""
        return self.source.size if self.source else 0

    @property
    def versions(self) -> int:
        """Versions that are to be on the target, where an item has several."""
        return 0

    @property
    def is_ours(self) -> bool:
        """Whether the target's item is the one that we wrote, untouched since.

        Of a write whose answer was lost, the token is not known; then it is the content that we were to write.
        """
        known, here = self.record, self.target
        if known is None or here is None:
            return False
        return known.target == here.token or (not known.done and here.content in known.source.contents)

    @property
    def may_have_arrived(self) -> bool:
        """Whether a copy of this very version was begun, and the target has changed since."""
        known, here = self.record, self.target
        return (
            known is not None
            and here is not None
            and not known.done
            and known.source.is_version_of(self.source)
            and known.target != here.token
        )


@attrs.frozen
class Loss:
    """Something of an item that does not reach the target.

    Args:
        facet: ``tags``; what ``degrade`` names, if it is a facet of the data.
        detail: what is lost, without values.
        accepted: by ``degrade``; ``None``: it is no data, and only told.
    """

    facet: str
    detail: str
    accepted: bool | None = None


@attrs.frozen(kw_only=True)
class Step:
    """What a plan says of one item."""

    action: Action
    reason: str = ""
    trouble: Trouble = Trouble.REFUSED
    losses: tuple[Loss, ...] = ()


@attrs.frozen(kw_only=True)
class Outcome:
    """What became of one item.

    Args:
        action: what was done: created, replaced, adopted (``COMPARE``) or deleted; ``None``: the source vanished.
        target: token of what the target has now.
        changed: the source's version that was moved, if it changed while the listed one was read.
        sha256: of the content that went through, where that is no secret.
    """

    action: Action | None
    target: str | None = None
    size: int = 0
    changed: Pin | None = None
    sha256: bytes | None = None
    losses: tuple[Loss, ...] = ()


@attrs.frozen
class Finding:
    """What a verification found that belongs to no item.

    Args:
        trouble: it counts against the move, as an item's would; ``None``: it is only told.
    """

    key: str
    text: str
    trouble: Trouble | None = None


class Refusal(ShiftableError):
    """An item is not moved, for a reason that trying again does not mend."""

    def __init__(self, reason: str, trouble: Trouble = Trouble.REFUSED, losses: tuple[Loss, ...] = ()) -> None:
        super().__init__(reason)
        self.reason = reason
        self.trouble = trouble
        self.losses = losses


class Notes:
    """What a mover writes down of an item that takes long, and finds again after a kill; from any thread.

    This one forgets all when the process ends. Values are texts without secrets.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._notes: dict[str, dict[str, str]] = {}

    def read(self, key: str) -> Mapping[str, str]:
        """Return the notes of one item, by their names."""
        with self._lock:
            return dict(self._notes.get(key, {}))

    def write(self, key: str, name: str, value: str) -> None:
        """Write one note, for good when this returns."""
        with self._lock:
            self._notes.setdefault(key, {})[name] = value

    def clear(self, key: str) -> None:
        """Drop all notes of one item."""
        with self._lock:
            self._notes.pop(key, None)

    def keys(self) -> tuple[str, ...]:
        """Return the items that have notes."""
        with self._lock:
            return tuple(self._notes)


I = TypeVar("I", bound=Item)  # noqa: E741  as T and R elsewhere


class Mover(ABC, Generic[I]):
    """Moves the items of one resource of one service. Its five steps are driven from outside, in this order.

    ``inventory`` joins both sides, ``delta`` judges an item by what the listings and the journal tell and asks nobody,
    ``plan`` looks closer, ``copy`` does it and ``verify`` believes nothing of what the others said. All but
    ``inventory`` are called from many threads. No step writes to the source.

    Attributes:
        facets: what ``degrade`` may name, and what it gives up.
        confidential: texts of errors that are not ours are not repeated.
        filtered: whether a filter may choose among its items.
        notes: for items that take long.
        stopping: when it is set, items that take long are left as they are, for the next run.
        pause: waits so many seconds.
        gives_way: whether its steps may be made in ``shiftable.fibers``, many at once in one thread.
        bulk: many items are copied by one call, and verified together: ``gathered``, ``copy_many``, ``verify_many``.
        lanes: calls of ``copy_many`` at once, at most; ``None``: as many as the options allow.
        exact: ``delta`` says everything; ``plan`` would add nothing.
        deletes_last: what ``prune`` deletes goes when everything else has arrived, and stays if something failed; else
            it goes with what takes its place.
        native: what ``[service.label.provider]`` adds for the target counts.
        beside: names of all resources of the service that are declared.
    """

    gives_way: bool = False
    lanes: int | None = None

    service: ClassVar[str]
    facets: ClassVar[Mapping[str, str]]
    confidential: ClassVar[bool] = False
    filtered: ClassVar[bool] = False
    bulk: ClassVar[bool] = False
    exact: ClassVar[bool] = False
    deletes_last: ClassVar[bool] = True
    native: ClassVar[bool] = False

    def __init__(
        self,
        source: Service[Any, Any, Any],  # noqa: ARG002  movers keep both with their own types
        target: Service[Any, Any, Any],
        spec: Spec,
        options: Options,
    ) -> None:
        self.spec = self.wanted(target, spec, options)
        self.options = options
        self.notes = Notes()
        self.stopping = threading.Event()
        self.beside: frozenset[str] = frozenset()
        self.pause: Callable[[float], object] = time.sleep

    # before and around the items

    def wanted(self, target: Service[Any, Any, Any], spec: Spec, options: Options) -> Spec:  # noqa: ARG002  for movers
        """Return what is made to exist on the target: the declaration, less what was given up."""
        return spec

    @abstractmethod
    def objections(self) -> tuple[str, ...]:
        """Say why the resource as a whole cannot be moved; nothing, if it can."""

    @abstractmethod
    def changes(self) -> tuple[Change[Any], ...]:
        """Say what has to be done on the target before the first item."""

    @abstractmethod
    def prepare(self) -> None:
        """Do it."""

    def tidy(self) -> None:
        """Drop what killed runs have left half done and nobody goes on with; called after the last item."""

    def general_losses(self) -> Iterable[Loss]:
        """Say what is lost that belongs to no single item that moves; may ask the source."""
        return ()

    def unmet(self) -> Iterable[str]:
        """Return listed items of the filter that the inventories have not met."""
        return ()

    def guard(self) -> str | None:
        """Say why all that the last inventory found to be done should not be done; ``None`` if it may."""
        return None

    def travels(self, item: I, step: Step | None) -> bool:  # noqa: ARG002  for movers
        """Tell whether another process may carry out the step, or verify where it is ``None``.

        Nothing of it may need the notes, and nothing of it may be a secret.
        """
        return False

    # the five steps

    def shards(self) -> tuple[Shard, ...]:
        """Return ranges of keys that may be listed side by side; they make up all keys."""
        return (Shard(),)

    @abstractmethod
    def inventory(self, records: Iterable[Record], shard: Shard = Shard()) -> Iterator[I]:  # noqa: B008  frozen
        """Join both sides and the journal by key, streaming, in the order of the keys' UTF-8 bytes.

        Called from several threads for several shards.

        Args:
            records: those from the shard's beginning on, in that order.
            shard: one of ``shards``.
        """

    def delta(self, item: I) -> Step:
        """Say what is to be done with an item, as far as listings and journal tell.

        What we wrote and nobody touched may be replaced; anything else on the target is compared, and stays if it
        differs, unless ``overwrite`` says otherwise.
        """
        untold = item.source is None and self.options.inventory is not None  # which is no proof that it is gone
        if untold or not self.options.filter.shows(item):
            return Step(action=Action.HIDDEN)
        return self._without_source(item) if item.source is None else self._with_source(item)

    def _with_source(self, item: I) -> Step:
        if item.is_ours and item.record is not None and item.record.done and item.record.source == item.source:
            return Step(action=Action.UNCHANGED)
        why = self.objection(item)
        if why is not None:
            return Step(action=Action.REFUSE, reason=why)
        if item.target is None:
            return Step(action=Action.CREATE)
        if item.is_ours and not item.may_have_arrived:
            return Step(action=Action.REPLACE)
        return Step(action=Action.COMPARE)

    def _without_source(self, item: I) -> Step:
        if not item.is_ours:
            return Step(action=Action.FOREIGN)
        reason = "moved earlier; its source is gone"
        return Step(action=Action.DELETE if self.options.prune else Action.STALE, reason=reason)

    @abstractmethod
    def objection(self, item: I) -> str | None:
        """Say why the target could not hold an item, as far as listings tell. Sends nothing."""

    @abstractmethod
    def plan(self, item: I, step: Step) -> Step:
        """Look at both sides of an item that ``delta`` would write or compare, and say the same more exactly."""

    @abstractmethod
    def copy(self, item: I, step: Step) -> Outcome:
        """Carry out the step; again, after a kill at any point: the same end and nothing twice.

        Raises:
            Refusal: the target cannot hold it, or holds something else.
        """

    @abstractmethod
    def verify(self, item: I, *, quick: bool) -> str | None:
        """Read both sides of an item that the source has and say how they differ; ``None`` if they do not.

        Args:
            quick: where both sides tell a digest of the content, believe it.

        Raises:
            Refusal: the target does not have it.
        """

    # the same, many at once: what ``bulk`` promises

    def gathered(self, tasks: Iterable[tuple[I, Step]]) -> Iterator[tuple[tuple[I, Step], ...]]:
        """Gather tasks into those that one call carries out."""
        return ((task,) for task in tasks)

    def copy_many(self, tasks: Sequence[tuple[I, Step]]) -> Sequence[Outcome | Exception]:
        """Carry out the steps of one call; say of each, in that order, how it ended.

        Again, after a kill or an error at any point: the same end and nothing twice. An error that says nothing of one
        item is raised.
        """
        return [self.copy(item, step) for item, step in tasks]

    def confirm(self, items: Sequence[I]) -> Iterator[tuple[I, Exception]]:  # noqa: ARG002  for movers
        """Read back what was copied, after the last item, and say what is not as it was said to be."""
        return iter(())

    def before_verify(self, *, quick: bool) -> None:
        """Begin what a verification can do while both sides are listed; called before its inventory."""

    def verify_many(self, items: Sequence[I], *, quick: bool) -> Iterator[tuple[I, str | Exception | None]]:
        """Do for each item what ``verify`` does; an error is what became of that item."""
        return ((item, self.verify(item, quick=quick)) for item in items)

    def verified(self) -> Iterable[Finding]:
        """Say what was found that belongs to no item, after the last one was verified."""
        return ()


S = TypeVar("S")
T = TypeVar("T")


def joined(
    source: Iterable[S], target: Iterable[T], records: Iterable[Record], key_of: Callable[[S | T], str]
) -> Iterator[tuple[str, S | None, T | None, Record | None]]:
    """Join two listings and the journal by key, holding one item of each.

    Raises:
        MigrationError: a listing is not in order, which would pair the wrong items.
    """
    left = _Ordered("the source's listing", source, key_of)
    right = _Ordered("the target's listing", target, key_of)
    known = _Ordered("the journal", records, lambda record: record.key)
    while True:
        heads = [head.key for head in (left, right) if head.key is not None]
        if not heads:
            return
        key = min(heads)
        known.skip_to(key)
        yield key, left.take(key), right.take(key), known.take(key)


class _Ordered(Generic[T]):
    """One stream and its next key. Python compares strings by code point, which is the order of UTF-8 bytes."""

    def __init__(self, name: str, items: Iterable[T], key_of: Callable[[T], str]) -> None:
        self._name = name
        self._items = iter(items)
        self._key_of = key_of
        self._head: T | None = None
        self.key: str | None = None
        self._advance()

    def take(self, key: str) -> T | None:
        """Return the next item if it has that key, and go on."""
        if self.key != key:
            return None
        head = self._head
        self._advance()
        return head

    def skip_to(self, key: str) -> None:
        """Drop what comes before that key."""
        while self.key is not None and self.key < key:
            self._advance()

    def _advance(self) -> None:
        before = self.key
        self._head = next(self._items, None)
        self.key = None if self._head is None else self._key_of(self._head)
        if before is not None and self.key is not None and self.key <= before:
            raise MigrationError(f"{self._name} is not in order: {self.key!r} came after {before!r}; nothing was moved")

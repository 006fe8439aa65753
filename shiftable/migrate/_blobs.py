"""Moves the objects of one bucket."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any, ClassVar, cast

import attrs

from shiftable.blob import BlobFeatures, BlobStore, Bucket, BucketSpec, Headers, Lock, ObjectInfo, ObjectSummary
from shiftable.blob._bulk import (
    Facets,
    SourceChanged,
    SourceVanished,
    copy_object,
    digest_object,
    of_the_source,
    read_tags,
)
from shiftable.blob._upload import PART_SIZE
from shiftable.blob.driver import PutOptions, translate_class
from shiftable.errors import (
    AlreadyExists,
    Conflict,
    IntegrityError,
    NotFound,
    ParentNotFound,
    PermissionDenied,
    PreconditionFailed,
    Unsupported,
)
from shiftable.migrate._inside import Inside
from shiftable.migrate._movers import FACETS
from shiftable.migrate._parts import Parts, Room
from shiftable.migrate._ranges import listed, split
from shiftable.migrate._shards import Shard
from shiftable.migrate.mover import (
    Action,
    Item,
    Loss,
    Mover,
    Options,
    Outcome,
    Pin,
    Record,
    Refusal,
    Step,
    Trouble,
    joined,
)
from shiftable.service import Change, Service, Spec
from shiftable.tokens import Token

__all__ = ["BlobItem", "BlobMover"]

_SMALL = 256 * 1024
"""Up to here an object's content is not worth counting its memory."""
_LARGE_AT_ONCE = 4
"""Objects in parts: more would only hold unfinished uploads longer."""
_Fit = Callable[[ObjectInfo, Mapping[str, str]], Facets]
_ANONYMOUS = frozenset({None, "", "application/octet-stream", "binary/octet-stream"})
"""What providers tell of an object that was written without a content type."""
_USUAL_CLASSES = frozenset({None, "", "STANDARD", "Standard", "Hot"})


@attrs.frozen(kw_only=True)
class BlobItem(Item):
    """An object; ``left`` and ``right`` are what the listings of source and target tell.

    Args:
        under: a key that is an object too and would have to be this one's folder.
    """

    left: ObjectSummary | None = None
    right: ObjectSummary | None = None
    under: str | None = None


class BlobMover(Mover[BlobItem]):
    """Moves objects with headers, metadata and tags; compares content by MD5 where both sides tell it, else reads.

    An object on the target that we did not write is adopted if it is equal in content, headers, metadata and tags.
    Of metadata that the target cannot keep whole, ``degrade`` gives up no more than it must. Older versions, storage
    classes and times of modification stay behind; that is told and never refused.

    Retention and legal holds are written with the object, so that it is locked from its first moment; an equal object
    of the target that is locked less is locked as the source's is. Retention that is over stays behind. A locked object
    of the target is never replaced: where its key takes a newer version that comes on top, else it is a refusal, and so
    it is for ``prune``.

    Where the target has no create-only writes, a writer that lives there could be overwritten: the bucket is refused,
    unless ``degrade`` names ``guards``; then a look before each write stands in for the condition.

    Permissions: list and read (objects and tags) on the source; create and configure the bucket, list, read and write
    on the target, and delete for ``prune``; where there are locks, to read the source's and to write the target's.
    """

    service: ClassVar[str] = "blob"
    filtered: ClassVar[bool] = True
    facets: ClassVar[Mapping[str, str]] = FACETS["blob"]

    def __init__(
        self, source: Service[Any, Any, Any], target: Service[Any, Any, Any], spec: Spec, options: Options
    ) -> None:
        super().__init__(source, target, spec, options)
        self._from = cast("BlobStore", source).lane()
        self._to = cast("BlobStore", target).lane()
        self._room = Room()
        self._large = threading.BoundedSemaphore(_LARGE_AT_ONCE)
        self._source: Bucket = self._from.bucket(spec.name)
        self._target: Bucket = self._to.bucket(self.spec.name)
        self._inside = Inside(self._source, self._target)
        keys = self.options.filter.keys
        self._met = bytearray(keys.count) if keys is not None else bytearray()

    @property
    def gives_way(self) -> bool:  # type: ignore[override]  # it depends on the sides
        """Whether both sides do."""
        return self._source.gives_way and self._target.gives_way

    # before and around the items

    def wanted(self, target: Service[Any, Any, Any], spec: Spec, options: Options) -> BucketSpec:
        """Return the declared bucket by its name on the target, without what it has not and was given up."""
        found = cast("BucketSpec", attrs.evolve(spec, name=options.names.get(spec.name, spec.name)))
        features = cast("BlobStore", target).bucket(found.name).features
        if not features.versioning and "versioning" in options.degrade:
            found = attrs.evolve(found, versioning=False)
        if "lock" in options.degrade and not _has_locks(features, found):
            found = attrs.evolve(found, object_lock=False)
        if "cors" in options.degrade:
            alone = (BucketSpec(name=found.name, cors=(rule,)) for rule in found.cors)
            found = attrs.evolve(found, cors=[each.cors[0] for each in alone if not target.missing_features(each)])
        return found

    def objections(self) -> tuple[str, ...]:
        """Refuse a missing source, and a target that cannot be what is declared."""
        found = []
        if not self._from.exists(self._source.name):
            found.append(f"the source has no bucket {self._source.name!r}")
        features = self._target.features
        for what in self._to.missing_features(cast("BucketSpec", self.spec)):
            if what.startswith("CORS rules"):
                found.append(f"the target has no {what}; accept that with degrade 'cors'")
            elif what.startswith("lifecycle rules"):
                found.append(f"the target has no {what}; declare none")
        if cast("BucketSpec", self.spec).versioning and not features.versioning:
            found.append("the target has no versions of objects; accept that with degrade 'versioning'")
        if cast("BucketSpec", self.spec).object_lock and not _has_locks(features, cast("BucketSpec", self.spec)):
            found.append("the target has no object lock; accept that with degrade 'lock'")
        if not features.if_absent and "guards" not in self.options.degrade:
            found.append("the target has no create-only writes; accept that with degrade 'guards'")
        found += [f"the target's bucket would have to be destroyed: {change.reason}" for change in self._destroying()]
        found += [f"the target's bucket cannot be what is declared: {why}" for why in self._refused_changes()]
        return tuple(found)

    def changes(self) -> tuple[Change[Any], ...]:
        """Create or configure the bucket."""
        return self._to.diff(cast("BucketSpec", self.spec))

    def prepare(self) -> None:
        """Make the target's bucket what is declared."""
        for change in self.changes():
            self._to.apply(change)

    def general_losses(self) -> Iterable[Loss]:
        """Tell of every older version and every marker of a deletion: they stay at the source."""
        if not self._source.features.versioning or not self._from.describe(self._source.name).versioning:
            return
        for version in self._source.versions():
            if not version.latest or version.deleted:
                yield Loss("versions", "older versions and deletions are not moved")

    def unmet(self) -> Iterable[str]:
        """Return the listed keys that neither the source nor the journal has, as far as the rest of the filter goes."""
        chosen = self.options.filter
        return (key for key in chosen.keys.but(self._met) if chosen.admits_key(key)) if chosen.keys is not None else ()

    def travels(self, item: BlobItem, step: Step | None) -> bool:
        """Keep here what goes in parts, whose notes are in the journal, and what deletes."""
        return step is None or (step.action is not Action.DELETE and item.size <= PART_SIZE)

    # the five steps

    def shards(self) -> tuple[Shard, ...]:
        """Cut the source's keys, unless a target of paths needs to see them in one order, or a file tells them."""
        if self._target.features.keys_are_paths or self.options.inventory is not None:
            return (Shard(),)
        return split(self._source, self.options.listers, os.path.commonprefix(self._prefixes))  # noqa: RUF071  no paths

    def inventory(self, records: Iterable[Record], shard: Shard = Shard()) -> Iterator[BlobItem]:  # noqa: B008  frozen
        """Join the two listings; a bucket that is still to be made is an empty one."""
        folders = _Folders() if self._target.features.keys_are_paths else None
        keys = self.options.filter.keys
        rows = joined(self._listed_source(shard), self._listed_target(shard), records, lambda found: found.key)
        for key, left, right, record in rows:
            under = folders.object_above(key) if folders else None
            if keys is not None and (left or record) and (place := keys.place(key)) is not None:
                self._met[place] = 1
            yield BlobItem(
                key=key,
                source=_pinned(left) if left else None,
                target=_pinned(right) if right else None,
                record=record,
                left=left,
                right=right,
                under=under,
            )

    def objection(self, item: BlobItem) -> str | None:
        """Refuse keys and sizes that the target does not take, and conflicts that sizes show already."""
        limit = self._target.features.max_object
        if limit is not None and item.size > limit.value:
            return f"the object has {item.size:,} bytes; the target's limit is {limit} ({limit.source})"
        if item.under is not None:
            return f"the target keeps keys as paths, and {item.under!r} is an object and cannot be a folder too"
        return self._target.check_key(item.key) or self._source.check_key(item.key)

    def plan(self, item: BlobItem, step: Step) -> Step:
        """Look at metadata and tags where they decide; contents are not read."""
        try:
            self._require_online(item)
            info, tags = self._described(item.key)
        except NotFound as exc:
            return Step(action=Action.REFUSE, reason=exc.message, trouble=Trouble.VANISHED)
        except Refusal as refusal:
            return Step(action=Action.REFUSE, reason=refusal.reason)
        try:
            facets, losses = self._fitted(info, tags)
            if step.action is Action.COMPARE:
                step = self._compared(item, info, facets)
        except Refusal as refusal:
            return Step(action=Action.REFUSE, reason=refusal.reason, trouble=refusal.trouble, losses=refusal.losses)
        return attrs.evolve(step, losses=losses)

    def copy(self, item: BlobItem, step: Step) -> Outcome:
        """Carry out the step, pinned to the source's version; read the source again if it changed, once."""
        if step.action is Action.DELETE:
            return self._deleted(item)
        self._require_online(item)
        pin = cast("ObjectSummary", item.left).token
        if item.size <= _SMALL:
            return self._pinned_copy(item, step, pin)
        if item.size <= PART_SIZE:
            with self._room.of(item.size):
                return self._pinned_copy(item, step, pin)
        with self._large:
            try:
                return self._pinned_copy(item, step, pin)
            except Exception:
                self._parts.keep(item.key)
                raise

    def tidy(self) -> None:
        """Abort uploads of earlier runs with which nobody goes on."""
        self._parts.tidy()

    def verify(self, item: BlobItem, *, quick: bool) -> str | None:
        """Compare what both sides tell, and the SHA-256 of what they send."""
        try:
            info, tags = self._described(item.key)
        except ParentNotFound:
            raise
        except NotFound:
            raise Refusal("its source was deleted meanwhile", Trouble.VANISHED) from None
        if item.target is None:
            raise Refusal("it is not on the target", Trouble.MISSING)
        facets, _ = self._kept(info, tags)
        other = self._target.stat(item.key)
        difference = self._difference(info, facets, other) or self._weaker(facets, other)
        if difference is not None or (quick and info.md5 is not None and other.md5 is not None):
            return difference
        try:
            return self._content_difference(info, other)
        except IntegrityError as exc:
            return f"what one side sends is not what it tells: {exc.message}"

    # copying

    def _pinned_copy(self, item: BlobItem, step: Step, pin: Token) -> Outcome:
        try:
            return self._carried_out(item, step, pin)
        except SourceVanished:
            return Outcome(action=None)
        except SourceChanged:
            pass
        try:
            now = _pinned(self._source.stat(item.key))
            item = attrs.evolve(item, source=now)
            return attrs.evolve(self._carried_out(item, step, Token(now.token)), changed=now)
        except SourceChanged:
            raise Refusal("its source changed again and again while it was read", Trouble.FAILED) from None
        except ParentNotFound:
            raise
        except NotFound:
            return Outcome(action=None)

    def _carried_out(self, item: BlobItem, step: Step, pin: Token) -> Outcome:
        if step.action is Action.COMPARE:
            return self._adopted(item, pin)
        if_match = cast("ObjectSummary", item.right).token if step.action is Action.REPLACE else None
        try:
            return self._written(item, pin, if_match)
        except (SourceChanged, SourceVanished):
            raise
        except (PreconditionFailed, AlreadyExists):
            # Somebody was here since the listing: perhaps we, before we were killed or after a lost answer.
            return self._adopted(item, pin)

    def _written(self, item: BlobItem, pin: Token, if_match: Token | None) -> Outcome:
        losses: list[Loss] = []

        def fit(info: ObjectInfo, tags: Mapping[str, str]) -> Facets:
            facets, found = self._fitted(info, tags)
            losses[:] = found
            return facets

        guard = self._guard(item.key, if_match)
        copy = self._copied_in_parts if item.size > PART_SIZE else self._copied_whole
        try:
            inside = self._copied_inside(item.key, pin, fit, guard) if item.size > _SMALL else None
            copied = inside or copy(item.key, pin, fit, guard)
        except Unsupported:  # of some servers only a try tells, and for objects in parts (Ceph 16)
            if not guard:
                raise
            self._look(item.key, if_match)
            copied = copy(item.key, pin, fit, {})
        except (PermissionDenied, Conflict):
            self._refuse_locked(item.key, "it cannot be replaced", Trouble.CONFLICT)
            raise
        action = Action.CREATE if if_match is None else Action.REPLACE
        return attrs.evolve(copied, action=action, losses=tuple(losses))

    def _copied_inside(self, key: str, pin: Token, fit: _Fit, guard: Mapping[str, Any]) -> Outcome | None:
        if not self._inside.possible:
            return None
        info, options = self._fitting(key, pin, fit, guard)
        written = self._inside.copy(info, options)
        return Outcome(action=None, target=written.token.value, size=info.size) if written else None

    def _copied_whole(self, key: str, pin: Token, fit: _Fit, guard: Mapping[str, Any]) -> Outcome:
        copied = copy_object(self._source, self._target, key, token=pin, fit=fit, **guard)
        return Outcome(action=None, target=copied.token.value, size=copied.size, sha256=copied.sha256)

    def _copied_in_parts(self, key: str, pin: Token, fit: _Fit, guard: Mapping[str, Any]) -> Outcome:
        info, options = self._fitting(key, pin, fit, guard)
        arrived = self._parts.copy(info, options)
        return Outcome(action=None, target=arrived.target.token.value, size=info.size, sha256=arrived.sha256)

    def _fitting(self, key: str, pin: Token, fit: _Fit, guard: Mapping[str, Any]) -> tuple[ObjectInfo, PutOptions]:
        """Return the source's object in that version, and how it is to be written."""
        with of_the_source(self._source, None):
            info, tags = self._described(key)
        if info.token != pin:
            raise SourceChanged("the object is not in that version")
        facets = fit(info, tags)
        return info, PutOptions(**attrs.asdict(facets, recurse=False), **guard)

    def _guard(self, key: str, if_match: Token | None) -> dict[str, Any]:
        """Return the condition of a write; where the target has none, look now and hope."""
        features = self._target.features
        if if_match is None and features.if_absent:
            return {"if_absent": True}
        if if_match is not None and features.if_match:
            return {"if_match": if_match}
        self._look(key, if_match)
        return {}

    def _look(self, key: str, if_match: Token | None) -> None:
        """Compare now what no condition of the write can compare then."""
        if "guards" not in self.options.degrade:
            raise Refusal("the target has no compare-and-swap writes; accept that with degrade 'guards'")
        found = self._target_now(key)
        if (found.token if found else None) != if_match:
            raise PreconditionFailed("the target's object is not in the version that was seen")

    def _adopted(self, item: BlobItem, pin: Token) -> Outcome:
        """Take what is on the target for ours if it is equal; else it stays, unless it may be overwritten."""
        found = self._target_now(item.key)
        if found is None:
            return self._written(item, pin, None)
        info, tags = self._described(item.key)
        if info.token != pin:
            raise SourceChanged("the object is not in that version")
        facets, losses = self._fitted(info, tags)
        difference = self._difference(info, facets, found)
        if difference is None and (info.md5 is None or found.md5 is None):
            difference = self._content_difference(info, found)
        if difference is None:
            self._strengthen(facets, found)
            return Outcome(action=Action.COMPARE, target=found.token.value, size=info.size, losses=losses)
        if self.options.overwrite or _is_our_half(item, found):
            return self._written(item, pin, found.token)
        raise _conflict(difference)

    def _deleted(self, item: BlobItem) -> Outcome:
        """Delete what we wrote, if nobody changed it and the source is still gone."""
        here = cast("ObjectSummary", item.right)
        if self._source.exists(item.key):
            raise Refusal("its source is back; the next run moves it", Trouble.FAILED)
        try:
            self._delete(item.key, here.token)
        except (PermissionDenied, Conflict):
            self._refuse_locked(item.key, "its source is gone, and it cannot be deleted", Trouble.STALE)
            raise
        return Outcome(action=Action.DELETE, size=here.size)

    def _delete(self, key: str, token: Token) -> None:
        if self._target.features.delete_if_match:
            try:
                self._target.delete(key, if_match=token)
            except PreconditionFailed:
                raise Refusal("its source is gone, and somebody changed it on the target", Trouble.STALE) from None
        else:
            found = self._target_now(key)
            if found is not None and found.token != token:
                raise Refusal("its source is gone, and somebody changed it on the target", Trouble.STALE)
            self._target.delete(key)

    # comparing

    def _compared(self, item: BlobItem, info: ObjectInfo, facets: Facets) -> Step:
        """Judge an object that both sides have, by what they tell."""
        found = self._target_now(item.key)
        if found is None:
            return Step(action=Action.CREATE)
        difference = self._difference(info, facets, found)
        if difference is None:
            return Step(action=Action.COMPARE)
        if self.options.overwrite or _is_our_half(item, found):
            if not cast("BucketSpec", self.spec).versioning:
                self._refuse_locked(item.key, "it cannot be replaced", Trouble.CONFLICT, found)
            return Step(action=Action.REPLACE, reason=difference)
        raise _conflict(difference)

    def _difference(self, info: ObjectInfo, facets: Facets, found: ObjectInfo) -> str | None:
        """Say how an object of the target differs from what it should be, as far as both sides tell."""
        if info.size != found.size:
            return f"the content differs: {info.size:,} bytes, and {found.size:,} on the target"
        if info.md5 is not None and found.md5 is not None and info.md5 != found.md5:
            return "the content differs"
        return (
            _different("headers", _headers(facets.headers), _headers(found.headers))
            or _different("metadata", facets.metadata, found.metadata)
            or _different("tags", facets.tags, read_tags(self._target, found))
        )

    def _content_difference(self, info: ObjectInfo, found: ObjectInfo) -> str | None:
        """Read both sides to their ends and compare."""
        left, wanted = digest_object(self._source, info.key)
        right, present = digest_object(self._target, info.key)
        if left.token != info.token:
            raise SourceChanged("the object changed while it was compared")
        if right.token != found.token:
            return "it changed on the target while it was compared"
        return None if wanted == present else "the content differs"

    @cached_property
    def _parts(self) -> Parts:
        return Parts(self._source, self._target, self.notes, self.stopping, self._room)

    # locks

    def _lock_of(self, info: ObjectInfo) -> Lock:
        """Return how the source's object is locked now; ask for it where reading an object may leave it out."""
        lock = info.lock
        if not self._source.features.lock_told and not self._silence_means_none:
            try:
                lock = self._source.lock_of(info.key, version=info.version)
            except PermissionDenied as exc:
                if "lock" not in self.options.degrade:
                    why = "whether it is locked may not be read at the source; accept that with degrade 'lock'"
                    raise Refusal(f"{why}: {exc.message}") from None
            else:
                # The permission is one of the bucket: from now on reading an object tells.
                self._silence_means_none = True
        return lock if lock.is_active(datetime.now(UTC)) else Lock()

    @cached_property
    def _silence_means_none(self) -> bool:
        """Whether an object of which no lock is told has none: the bucket has no locks, or we are known to be told."""
        if not self._source.features.object_lock:
            return True
        return not self._from.describe(self._source.name).object_lock

    def _lock_kept(self, info: ObjectInfo) -> tuple[Lock, tuple[Loss, ...]]:
        """Return the lock that the target can keep, and what is lost."""
        lock, features, spec = self._lock_of(info), self._target.features, cast("BucketSpec", self.spec)
        lost = []
        retention = lock.retention
        if retention is not None and retention.until <= datetime.now(UTC):
            retention = None
        if retention is not None:
            limit = features.max_retention
            if not features.object_lock or not spec.object_lock:
                without = "the target's bucket has no object lock" if features.object_lock else "the target has none"
                lost.append(f"retention ({retention}) is lost: {without}")
            elif retention.mode == "governance" and not features.governance:
                lost.append(f"retention ({retention}) is lost: the target has only compliance")
            elif limit is not None and retention.until - datetime.now(UTC) > timedelta(days=limit.value):
                lost.append(f"retention ({retention}) is lost: the target's limit is {limit} days ({limit.source})")
        if lost:
            retention = None
        hold = lock.hold
        if hold and not (features.legal_hold and (spec.object_lock or features.hold_anywhere)):
            lost.append("a legal hold is lost: the target keeps none")
            hold = False
        return Lock(retention=retention, hold=hold), tuple(self._loss("lock", why) for why in lost)

    def _lock_there(self, found: ObjectInfo) -> Lock:
        """Return how an object of the target is locked."""
        features = self._target.features
        if features.lock_told or not (features.object_lock or features.legal_hold):
            return found.lock
        return self._target.lock_of(found.key, version=found.version)

    def _weaker(self, facets: Facets, found: ObjectInfo) -> str | None:
        """Say how an object of the target is locked less than it should be."""
        wanted = facets.lock
        if wanted == Lock():
            return None
        there = self._lock_there(found)
        return None if _covers(there, wanted) else f"the lock differs: {wanted}, and {there} on the target"

    def _strengthen(self, facets: Facets, found: ObjectInfo) -> None:
        """Lock an equal object as its source is."""
        wanted = facets.lock
        if wanted == Lock() or _covers(there := self._lock_there(found), wanted):
            return
        retention = wanted.retention
        try:
            if retention is not None and (there.retention is None or not there.retention.covers(retention)):
                self._target.retain(found.key, retention.until, mode=retention.mode, version=found.version)
            if wanted.hold and not there.hold:
                self._target.hold(found.key, version=found.version)
        except (PermissionDenied, Conflict) as exc:
            why = f"it is equal, and cannot be locked as its source is ({wanted}; here {there}): {exc.message}"
            raise Refusal(why, Trouble.CONFLICT) from None

    def _refuse_locked(self, key: str, what: str, trouble: Trouble, found: ObjectInfo | None = None) -> None:
        """Refuse clearly if it is a lock on the target that stands in the way."""
        features = self._target.features
        if not (features.object_lock or features.legal_hold):
            return
        found = found or self._target_now(key)
        lock = self._lock_there(found) if found is not None else Lock()
        if lock.is_active(datetime.now(UTC)):
            raise Refusal(f"{what}: the target's object is locked, {lock}", trouble)

    # what the target can keep

    def _fitted(self, info: ObjectInfo, tags: Mapping[str, str]) -> tuple[Facets, tuple[Loss, ...]]:
        """Return what the target is to keep and what is lost; refuse a loss of data that was not accepted."""
        facets, losses = self._kept(info, tags)
        refused = tuple(loss for loss in losses if loss.accepted is False)
        if refused:
            why = "; ".join(f"{loss.detail}; accept that with degrade {loss.facet!r}" for loss in refused)
            raise Refusal(why, losses=losses)
        return facets, losses

    def _kept(self, info: ObjectInfo, tags: Mapping[str, str]) -> tuple[Facets, tuple[Loss, ...]]:
        losses = []
        features, headers, metadata = self._target.features, info.headers, info.metadata
        if not features.headers and _headers(headers):
            losses.append(self._loss("headers", "the target keeps no headers"))
            headers = Headers()
        elif (why := self._target.check_headers(headers)) is not None:
            losses.append(self._loss("headers", why))
            headers = self._possible_headers(headers)
        if metadata and not features.metadata:
            losses.append(self._loss("metadata", "the target keeps no metadata"))
            metadata = {}
        elif (why := self._target.check_metadata(metadata)) is not None:
            losses.append(self._loss("metadata", why))
            metadata = self._possible(metadata)
        why = self._tags_refused(tags)
        if why is not None:
            losses.append(self._loss("tags", why))
            tags = {}
        storage_class, told = self._class_kept(info.storage_class)
        lock, unlocked = self._lock_kept(info)
        kept = Facets(
            headers=headers,
            metadata=metadata,
            tags=tags,
            storage_class=storage_class,
            retention=lock.retention,
            hold=lock.hold,
        )
        return kept, (*losses, *unlocked, *told)

    def _class_kept(self, name: str | None) -> tuple[str | None, tuple[Loss, ...]]:
        """Return the target's class of the same tier, and tell where it is called otherwise or there is none.

        Nothing is written into a class from which it has to be brought back: it could not be verified.
        """
        features = self._target.features
        known = self._source.features.storage_class(name) if name else None
        if name in _USUAL_CLASSES or (known is not None and known.tier == "standard"):
            return None, ()
        found = translate_class(name, self._source.features, features)
        there = features.storage_class(found) if found else None
        if known is None or there is None or not there.online or there.tier == "standard":
            asleep = known is not None and not known.online
            hint = "; an object that was not brought back before cannot be read" if asleep else ""
            return None, (Loss("storage class", f"{known or name} becomes the target's default{hint}"),)
        return found, () if there.name == name else (Loss("storage class", f"{known} becomes {there}"),)

    def _possible(self, metadata: Mapping[str, str]) -> Mapping[str, str]:
        """Return the metadata that the target can keep; none, if all of it together is too much."""
        check = self._target.check_metadata
        kept = {name: value for name, value in metadata.items() if check({name: value}) is None}
        return kept if check(kept) is None else {}

    def _possible_headers(self, headers: Headers) -> Headers:
        """Return the headers that the target can keep."""
        single = ((name, Headers(**{name: value})) for name, value in attrs.asdict(headers).items())
        return attrs.evolve(headers, **{name: None for name, one in single if self._target.check_headers(one)})

    def _tags_refused(self, tags: Mapping[str, str]) -> str | None:
        features = self._target.features
        if not tags:
            return None
        if not features.tags:
            return "the target keeps no tags"
        return self._target.check_tags(tags)

    def _loss(self, facet: str, detail: str) -> Loss:
        return Loss(facet, detail, accepted=facet in self.options.degrade)

    # reading

    def _require_online(self, item: BlobItem) -> None:
        """Refuse what has to be brought back before it is read. Whether it was, only a try tells."""
        name = item.left.storage_class if item.left else None
        found = self._source.features.storage_class(name) if name else None
        if found is None or found.online:
            return
        try:
            self._source.get(item.key, stop=1)
        except Conflict:
            raise Refusal(f"it is in the storage class {found}: bring it back first, at the source") from None

    def _described(self, key: str) -> tuple[ObjectInfo, Mapping[str, str]]:
        """Return everything about the source's object but its content."""
        info = self._source.stat(key)
        return info, read_tags(self._source, info)

    def _target_now(self, key: str) -> ObjectInfo | None:
        try:
            return self._target.stat(key)
        except ParentNotFound:
            raise
        except NotFound:
            return None

    def _listed_source(self, shard: Shard) -> Iterator[ObjectSummary]:
        inventory = self.options.inventory
        if inventory is None:
            return listed(self._source, self._prefixes, shard)
        return (found for found in inventory.summaries(self._source) if found.key.startswith(self._prefixes))

    def _listed_target(self, shard: Shard) -> Iterator[ObjectSummary]:
        return listed(self._target, self._prefixes, shard) if self._to.exists(self.spec.name) else iter(())

    @property
    def _prefixes(self) -> tuple[str, ...]:
        """What the filter leaves, in order."""
        return self.options.filter.prefixes or ("",)

    def _refused_changes(self) -> list[str]:
        return [change.reason for change in self.changes() if change.reason and not change.destroys]

    def _destroying(self) -> list[Change[Any]]:
        return [change for change in self.changes() if change.destroys]


def _has_locks(features: BlobFeatures, spec: BucketSpec) -> bool:
    """Tell whether a provider can make the bucket with object lock."""
    return features.object_lock and (spec.versioning or not features.lock_needs_versioning)


def _covers(there: Lock, wanted: Lock) -> bool:
    """Tell whether a lock protects at least as well as another."""
    kept = wanted.retention is None or (there.retention is not None and there.retention.covers(wanted.retention))
    return kept and (there.hold or not wanted.hold)


class _Folders:
    """Finds keys that another object's key would have to be a folder of, in a stream of sorted keys."""

    def __init__(self) -> None:
        self._above: list[str] = []

    def object_above(self, key: str) -> str | None:
        """Return the key that would have to be a folder, ``None`` if there is none; remember this one."""
        above = self._above
        while above and not key.startswith(above[-1]):
            above.pop()  # keys are sorted: nothing that follows begins with it either
        found = next((other for other in above if key.startswith(f"{other}/")), None)
        above.append(key)
        return found


def _pinned(found: ObjectSummary) -> Pin:
    content = found.md5.hex() if found.md5 else ""
    return Pin(token=found.token.value, size=found.size, modified=found.modified.isoformat(), content=content)


def _is_our_half(item: BlobItem, found: ObjectInfo) -> bool:
    """Tell whether the target's object is what an earlier run was to write when it was killed."""
    known = item.record
    if known is None or known.done or found.md5 is None:
        return False
    return found.md5.hex() in known.source.contents


def _conflict(difference: str) -> Refusal:
    return Refusal(f"the target has another object there, which is not ours: {difference}", Trouble.CONFLICT)


def _headers(headers: Headers) -> dict[str, str]:
    """Return the headers that say something."""
    found = {name: value for name, value in attrs.asdict(headers).items() if value}
    if found.get("content_type") in _ANONYMOUS:
        found.pop("content_type", None)
    return found


def _different(what: str, wanted: Mapping[str, str], found: Mapping[str, str]) -> str | None:
    """Name what differs, without values."""
    names = sorted(name for name in {*wanted, *found} if wanted.get(name) != found.get(name))
    return f"{what} differ: {', '.join(names)}" if names else None

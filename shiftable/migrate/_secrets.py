"""Moves the secrets below one prefix."""

from __future__ import annotations

import secrets as randomness
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar, cast

import attrs

from shiftable.errors import Conflict, NotFound, ParentNotFound, PreconditionFailed
from shiftable.migrate._histories import (
    ORDER,
    Content,
    Found,
    Kept,
    Marks,
    fitting,
    missing,
    origin_labels,
    surplus,
    unfit,
    unfolded,
    without_origin,
)
from shiftable.migrate._movers import FACETS
from shiftable.migrate._prices import price_list
from shiftable.migrate._shards import Shard
from shiftable.migrate._writing import Writing, is_full, kept_labels
from shiftable.migrate.mover import (
    Action,
    Item,
    Loss,
    Mover,
    Options,
    Outcome,
    Record,
    Refusal,
    Step,
    Trouble,
    joined,
)
from shiftable.parallel import parallel
from shiftable.secrets import Secret, SecretInfo, Secrets, SecretsSpec, SecretStore, SecretVersion
from shiftable.service import Change, Service, Spec

__all__ = ["SecretItem", "SecretsMover"]


@attrs.frozen(kw_only=True)
class SecretItem(Item):
    """A secret; ``left`` and ``right`` are what source and target tell without values.

    Args:
        chosen: versions of the source that move, if they can be read.
        buried: whether the target has a deleted secret of that name, which blocks it.
    """

    left: Found | None = None
    right: Found | None = None
    chosen: int = 0
    buried: bool = False

    @property
    def versions(self) -> int:
        """Versions that move."""
        return self.chosen


class SecretsMover(Mover[SecretItem]):
    """Moves secrets with labels and expiry: versions oldest first, then the stages are put right.

    Those that have a stage move, and with ``history`` so many of the newest, or all. Disabled and destroyed ones, and
    deleted secrets, stay behind; that is told and never refused. A pending version means that a rotation is in flight:
    refused, unless ``include_pending``. Ids and dates of versions are the target's own; with ``origin`` labels tell
    those of the source.

    What the target has already is found by comparing values, so that a killed move goes on in the middle of a secret,
    and each version is written under an idempotency key of its own: whoever writes it twice makes one version.

    No value, and no hash of one that another run could compare, leaves the memory of this process but to the target.

    Permissions: list and read secrets and their versions on the source; the same and write on the target.
    """

    service: ClassVar[str] = "secrets"
    confidential: ClassVar[bool] = True
    facets: ClassVar[Mapping[str, str]] = FACETS["secrets"]

    def __init__(
        self, source: Service[Any, Any, Any], target: Service[Any, Any, Any], spec: Spec, options: Options
    ) -> None:
        super().__init__(source, target, spec, options)
        self._to = cast("Secrets", target)
        prefix = cast("SecretsSpec", self.spec)
        self._source: SecretStore = cast("Secrets", source).open(prefix)
        self._target: SecretStore = self._to.open(prefix)
        self._marks = Marks(randomness.token_bytes(32))

    # before and around the items

    def objections(self) -> tuple[str, ...]:
        """Refuse a source that cannot be listed, and a target that cannot write under a condition."""
        next(self._source.list(limit=1), None)
        features = self._target.features
        if (features.if_absent and features.if_match) or "guards" in self.options.degrade:
            return ()
        return ("the target has no conditional writes of secrets; accept that with degrade 'guards'",)

    def changes(self) -> tuple[Change[Any], ...]:
        """Make the prefix, where one has to be made."""
        return self._to.diff(cast("SecretsSpec", self.spec))

    def prepare(self) -> None:
        """Make it."""
        for change in self.changes():
            self._to.apply(change)

    def general_losses(self) -> Iterable[Loss]:
        """Tell of deleted secrets that the source could still restore, and of what the target's provider advises."""
        known = price_list(self._target.provider)
        if known is not None and known.secrets.advice and self.options.history != 0:
            yield Loss("pace", known.secrets.advice)
        if self._source.features.recovery:
            for _ in self._source.list(deleted=True):
                yield Loss("deleted", "deleted secrets that can be restored are not moved")

    # the five steps

    def inventory(self, records: Iterable[Record], shard: Shard = Shard()) -> Iterator[SecretItem]:  # noqa: ARG002, B008  there is one
        """Join both sides. Secrets are few: they are sorted here, with their histories."""
        known = list(records)
        infos = {info.name: info for info in self._source.list()}
        wanted = {*infos, *(record.key for record in known)}
        others = {info.name: info for info in self._listed_target()}
        left = self._histories(self._source, infos.values())
        right = self._histories(self._target, (info for info in others.values() if info.name in wanted))
        right += [Found(info=info, versions=()) for info in others.values() if info.name not in wanted]
        buried = self._buried()
        rows = joined(_sorted(left), _sorted(right), known, lambda found: found.info.name)
        for key, here, there, record in rows:
            yield SecretItem(
                key=key,
                source=here.pin(self.options.history) if here else None,
                target=there.pin(0) if there else None,
                record=record,
                left=here,
                right=there,
                chosen=sum(version.enabled for version in here.chosen(self.options.history)) if here else 0,
                buried=key in buried,
            )

    def objection(self, item: SecretItem) -> str | None:
        """Refuse names that the target does not take, names that are blocked, and rotations in flight."""
        stages = item.left.stages if item.left else {}
        if "pending" in stages and not self.options.include_pending:
            return "it has a pending version: a rotation is in flight; finish it first, or include pending versions"
        if "pending" in stages and not self._target.features.pending:
            return "it has a pending version, which the target cannot keep; finish the rotation first"
        current = stages.get("current")
        if current is None:
            return "it has no current version"
        if not current.enabled:
            return "its current version is disabled and cannot be read"
        if item.buried:
            return "the target has a deleted secret of that name; restore it there, or delete it for good"
        return self._source.check_key(item.key) or self._target.check_key(item.key)

    def plan(self, item: SecretItem, step: Step) -> Step:
        """Read the values: their sizes and kinds decide, and whether what is on the target is equal."""
        try:
            wanted, losses = self._wanted(cast("Found", item.left))
            if step.action is Action.COMPARE:
                step = self._compared(item, step, wanted)
        except NotFound as exc:
            return Step(action=Action.REFUSE, reason=exc.message, trouble=Trouble.VANISHED)
        except Refusal as refusal:
            return Step(action=Action.REFUSE, reason=refusal.reason, trouble=refusal.trouble, losses=refusal.losses)
        return attrs.evolve(step, losses=(*losses, *step.losses))

    def copy(self, item: SecretItem, step: Step) -> Outcome:
        """Write what the target lacks; look at the source again afterwards, and once more if it changed."""
        if step.action is Action.DELETE:
            return self._deleted(item)
        here = cast("Found", item.left)
        for changed in (False, True):
            outcome, failure = None, None
            try:
                outcome = self._carried_out(item, step, here)
            except ParentNotFound:
                raise
            except (NotFound, Conflict) as exc:
                failure = exc  # perhaps a version went while it was read; what is there now decides
            now = self._find(self._source, item.key)
            if now is None:
                return Outcome(action=None)
            same = now.pin(self.options.history) == here.pin(self.options.history)
            if failure is not None and same:
                raise failure
            if outcome is not None and same:
                return attrs.evolve(outcome, changed=here.pin(self.options.history) if changed else None)
            here = now
            item = self._again(item, here, outcome)
        raise Refusal("its source changed again and again while it was read", Trouble.FAILED)

    def verify(self, item: SecretItem, *, quick: bool) -> str | None:  # noqa: ARG002  no provider tells a digest of a secret
        """Compare versions and stages by HMACs under a key that only this run knows; labels and expiry as they are."""
        there = item.right or self._find(self._target, item.key)
        if there is None:
            raise Refusal("it is not on the target", Trouble.MISSING)
        wanted, _ = self._kept(self._read_source(cast("Found", item.left)))
        return self._difference(item.key, wanted, there, self._read_target(there))

    # copying

    def _carried_out(self, item: SecretItem, step: Step, here: Found) -> Outcome:
        key = item.key
        wanted, losses = self._wanted(here)
        there = self._find(self._target, key)
        present = self._read_target(there) if there else None
        action = Action.CREATE
        if there is not None and present is not None:
            difference = self._difference(key, wanted, there, present)
            if difference is None:
                return Outcome(action=Action.COMPARE, target=self._pin_now(key), losses=losses)
            self._check_may_replace(item, step, there, wanted, present, difference)
            losses += self._disordered(key, wanted, there, present)
            action = Action.REPLACE
        writing = Writing(self._source, self._target, self._marks, key, wanted, self.options.origin)
        try:
            writing.run(there, present)
        except PreconditionFailed:
            raise Refusal("somebody changed it on the target meanwhile; run again", Trouble.FAILED) from None
        return Outcome(action=action, target=self._pin_now(key), losses=losses)

    def _check_may_replace(
        self, item: SecretItem, step: Step, there: Found, wanted: Content, present: Content, difference: str
    ) -> None:
        known = item.record
        ours = known is not None and known.target == there.pin(0).token
        # Between two versions of one secret we were killed, or an answer was lost: what is current there is one that
        # we were to write, now or in an earlier run. What was there before we began is nobody's half.
        begun = step.action is not Action.COMPARE or (known is not None and not known.done)
        halfway = begun and self._is_known(item, wanted, present)
        if not (ours or halfway or self.options.overwrite):
            why = f"the target has another secret there, which is not ours: {difference}"
            raise Refusal(why, Trouble.CONFLICT)
        if present.token is None:
            raise Refusal("none of its versions on the target can be read; enable one there, or delete it")
        if present.expires is not None and wanted.expires is None and not self._target.features.update:
            raise Refusal("the target's secret has an expiry that cannot be taken away; delete it there first")
        if present.at("pending") is not None and wanted.at("pending") is None:
            raise Refusal(
                "the target's secret has a pending version that the source has not; finish or delete it there"
            )

    def _is_known(self, item: SecretItem, wanted: Content, present: Content) -> bool:
        """Tell whether the target's current value is one that the source has too, be it as an older version."""
        key, found = item.key, present.at("current")
        if found is None or any(self._marks.same(key, kept, found) for kept in wanted.versions):
            return found is not None
        read = {kept.version for kept in wanted.versions}
        older = [each for each in cast("Found", item.left).versions if each.enabled and each.version not in read]
        return any(self._marks.same(key, self._one(self._source, each), found) for each in older)

    def _disordered(self, key: str, wanted: Content, there: Found, present: Content) -> tuple[Loss, ...]:
        """Tell of older versions that stand behind newer ones, or nowhere: no store lets one be put before others."""
        places = self._marks.places(key, wanted, present)
        lacking = missing(wanted, places, full=is_full(self._target, there))
        newest = max((at for at, kept in enumerate(wanted.rest) if kept.version in places), default=-1)
        older = [kept for kept in wanted.rest[: newest + 1] if kept.version not in places]
        losses = []
        if any(kept in lacking for kept in older):
            losses.append(Loss("order", "older versions stand behind newer ones, which the target had already"))
        if any(kept not in lacking for kept in older):
            losses.append(Loss("history", "older versions that the target has dropped, or soon would, are not moved"))
        return tuple(losses)

    def _again(self, item: SecretItem, here: Found, outcome: Outcome | None) -> SecretItem:
        """Return the item as it is after a round that the source outran: what was written is ours."""
        if outcome is None or outcome.target is None:
            return attrs.evolve(item, left=here)
        pin = here.pin(self.options.history)
        ours = Record(key=item.key, done=False, source=pin, target=outcome.target, before=None, plan="")
        return attrs.evolve(item, left=here, record=ours)

    def _deleted(self, item: SecretItem) -> Outcome:
        there = self._find(self._target, item.key)
        if self._find(self._source, item.key) is not None:
            raise Refusal("its source is back; the next run moves it", Trouble.FAILED)
        if there is not None and there.pin(0) != item.target:
            raise Refusal("its source is gone, and somebody changed it on the target", Trouble.STALE)
        if there is not None and self._target.features.recovery:
            self._target.delete(item.key)
        elif there is not None:
            self._target.delete(item.key, recovery=None)
        return Outcome(action=Action.DELETE)

    # comparing

    def _compared(self, item: SecretItem, step: Step, wanted: Content) -> Step:
        there = self._find(self._target, item.key)
        if there is None:
            return Step(action=Action.CREATE)
        present = self._read_target(there)
        difference = self._difference(item.key, wanted, there, present)
        if difference is None:
            return Step(action=Action.COMPARE)
        self._check_may_replace(item, step, there, wanted, present, difference)
        return Step(action=Action.REPLACE, losses=self._disordered(item.key, wanted, there, present))

    def _difference(self, key: str, wanted: Content, there: Found, present: Content) -> str | None:
        """Name the stages, versions, labels and dates that differ; never what they are.

        What only the target has is no difference where every write there leaves it: a previous version, and older ones.
        """
        found: list[str] = []
        for stage in ORDER:
            left, right = wanted.at(stage), present.at(stage)
            if not (self._marks.same(key, left, right) or (left is None and stage == "previous")):
                found.append(stage)
        places = self._marks.places(key, wanted, present)
        lacking = missing(wanted, places, full=is_full(self._target, there))
        found += [kept.title for kept in lacking if not kept.stages & {*found}]
        labels, others = (kept_labels(each.labels, origin=self.options.origin) for each in (wanted, present))
        found += [f"label {name}" for name in sorted({*labels, *others}) if labels.get(name) != others.get(name)]
        if wanted.expires != present.expires:
            found.append("the expiry")
        return f"what differs: {', '.join(found)}" if found else None

    # what the target can keep

    def _wanted(self, here: Found) -> tuple[Content, tuple[Loss, ...]]:
        """Read the source; return what the target is to keep and what is lost; refuse what was not accepted."""
        content, losses = self._kept(self._read_source(here))
        for kept in content.versions:
            why = unfit(kept, self._target.features) if kept.stages & {"current", "pending"} else None
            if why is not None:
                raise Refusal(why)
        refused = tuple(loss for loss in losses if loss.accepted is False)
        if refused:
            why = "; ".join(f"{loss.detail}; accept that with degrade {loss.facet!r}" for loss in refused)
            raise Refusal(why, losses=losses)
        return content, losses + self._left_behind(here)

    def _kept(self, content: Content) -> tuple[Content, tuple[Loss, ...]]:
        """Return what the target can keep of a secret, and what is lost, accepted or not."""
        content, losses = self._fitting_versions(content)
        check, degrade = self._target.check_labels, self.options.degrade
        labels, lost = fitting(without_origin(unfolded(content.labels)), check, degrade)
        losses += lost
        if self.options.origin:
            told = labels | origin_labels(content)
            why = check(told)
            if why is not None:
                losses.append(Loss("origin", f"what tells its versions' origin: {why}", accepted="origin" in degrade))
            labels = told if why is None else labels
        content = attrs.evolve(content, labels=labels)
        if content.expires is not None and not self._target.features.expiry:
            losses.append(Loss("expires", "the target keeps no expiry", accepted="expires" in degrade))
            content = attrs.evolve(content, expires=None)
        return content, tuple(losses)

    def _fitting_versions(self, content: Content) -> tuple[Content, list[Loss]]:
        """Leave out versions that the target cannot keep, if that was accepted or nobody asked for them."""
        features, losses = self._target.features, []
        if not features.history:
            older = [kept.version for kept in content.versions if not kept.stages & {"current", "pending"}]
            asked = None if self.options.history == 0 else "history" in self.options.degrade
            losses += [Loss("history", "the target keeps no older versions", accepted=asked)] if older else []
            return content.without(older), losses
        accepted = "history" in self.options.degrade
        out: list[str] = []
        for kept in content.versions:
            why = None if kept.stages & {"current", "pending"} else unfit(kept, features)
            if why is not None:
                losses.append(Loss("history", why, accepted=accepted))
                out.append(kept.version)
        content = content.without(out)
        most = features.max_versions
        many = surplus(content.versions, most.value) if most is not None else ()
        if most is not None and many:
            why = f"it has {len(content.versions):,} versions; the target keeps {most} ({most.source})"
            losses.append(Loss("history", why, accepted=accepted))
        return content.without([kept.version for kept in many]), losses

    def _left_behind(self, here: Found) -> tuple[Loss, ...]:
        chosen = {version.version for version in here.chosen(self.options.history)}
        losses = []
        if any(version.version not in chosen and version.enabled for version in here.versions):
            losses.append(Loss("history", "older versions are not moved"))
        if any(not version.enabled for version in here.versions):
            losses.append(Loss("disabled", "disabled and destroyed versions are not moved"))
        return tuple(losses)

    # reading

    def _read_source(self, found: Found) -> Content:
        """Read the values of the versions that move. Bytes from a store that knows no text are text, if they can be."""
        content = self._read(self._source, found, found.chosen(self.options.history))
        if self._source.features.text:
            return content
        return attrs.evolve(content, versions=tuple(kept.as_text() for kept in content.versions))

    def _read_target(self, found: Found) -> Content:
        """Read the values that those are compared with."""
        return self._read(self._target, found, found.chosen(0 if self.options.history == 0 else None))

    def _read(self, store: SecretStore, found: Found, versions: Iterable[SecretVersion]) -> Content:
        """Read values by the versions that were found; those that are disabled have none."""
        read = [(version, self._secret(store, version)) for version in versions if version.enabled]
        first = read[0][1] if read else None  # its token is not newer than any of the values
        return Content(
            versions=tuple(_kept(version, secret) for version, secret in read),
            disabled=frozenset(version.version for version in found.versions if not version.enabled),
            labels=dict(first.labels) if first else {},
            expires=first.expires if first else None,
            token=first.token if first else None,
        )

    def _one(self, store: SecretStore, version: SecretVersion) -> Kept:
        return _kept(version, self._secret(store, version))

    @staticmethod
    def _secret(store: SecretStore, version: SecretVersion) -> Secret:
        return store.get(version.name, version=version.version) if version.version else store.get(version.name)

    def _find(self, store: SecretStore, key: str) -> Found | None:
        """Return what a side tells of one secret now. It is asked for, as listings lag behind or know no prefixes."""
        info = None
        try:
            found = store.get(key)
        except ParentNotFound:
            raise
        except NotFound:
            return None
        except Conflict:  # its current version is disabled
            info = self._listed(store, key)
        else:
            if not store.features.history:  # there the listing tells which version it is
                info = self._listed(store, key)
            info = info or SecretInfo(name=key, version=found.version, labels=found.labels, expires=found.expires)
        return self._with_history(store, info) if info else None

    @staticmethod
    def _listed(store: SecretStore, key: str) -> SecretInfo | None:
        return next((info for info in store.list(key) if info.name == key), None)

    def _pin_now(self, key: str) -> str:
        """Return the target's token as the next listing will tell it."""
        found = self._find(self._target, key)
        return found.pin(0).token if found else ""

    def _with_history(self, store: SecretStore, info: SecretInfo) -> Found | None:
        if not store.features.history or store.check_key(info.name) is not None:  # others may have named it so
            only = SecretVersion(
                name=info.name, version=info.version or "", stages=frozenset({"current"}), created=None
            )
            return Found(info=info, versions=(only,))
        try:
            return Found(info=info, versions=tuple(store.history(info.name)))
        except ParentNotFound:
            raise
        except NotFound:
            return None

    def _histories(self, store: SecretStore, infos: Iterable[SecretInfo]) -> list[Found]:
        workers = min(8, self.options.concurrency)
        done = parallel(lambda info: self._with_history(store, info), infos, workers=workers)
        return [found for _, future in done if (found := future.result()) is not None]

    def _listed_target(self) -> Iterator[SecretInfo]:
        """List the target; a prefix that is still to be made holds nothing."""
        return iter(()) if any(change.before is None for change in self.changes()) else self._target.list()

    def _buried(self) -> frozenset[str]:
        if not self._target.features.recovery:
            return frozenset()
        return frozenset(info.name for info in self._target.list(deleted=True))


def _sorted(found: Iterable[Found]) -> list[Found]:
    return sorted(found, key=lambda each: each.info.name)


def _kept(version: SecretVersion, secret: Secret) -> Kept:
    created = version.created or secret.created
    return Kept(version=secret.version, value=secret.value, stages=version.stages, created=created)

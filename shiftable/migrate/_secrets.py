"""Moves the secrets below one prefix."""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets as randomness
import uuid
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any, ClassVar, cast

import attrs

from shiftable.errors import NotFound, ParentNotFound, PreconditionFailed
from shiftable.masking import Masked
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
from shiftable.parallel import parallel
from shiftable.secrets import SecretInfo, Secrets, SecretsSpec, SecretStore, SecretVersion
from shiftable.secrets.driver import Stage
from shiftable.service import Change, Service, Spec
from shiftable.tokens import Token

__all__ = ["SecretItem", "SecretsMover"]

_OLDEST_FIRST: tuple[Stage, ...] = ("previous", "current", "pending")
_NAMESPACE = uuid.UUID("5b1e7f0a-3c0d-5d6a-9a56-3f4f0c8f6b21")


@attrs.frozen(kw_only=True)
class _Found:
    """What one side tells of a secret without its values."""

    info: SecretInfo
    versions: tuple[SecretVersion, ...]

    @property
    def stages(self) -> tuple[tuple[Stage, SecretVersion], ...]:
        """The versions that have a stage, oldest first."""
        by_stage = {stage: version for version in self.versions for stage in version.stages}
        return tuple((stage, by_stage[stage]) for stage in _OLDEST_FIRST if stage in by_stage)

    @property
    def pin(self) -> Pin:
        """A token that changes with versions, stages, labels and expiry."""
        stages = [(stage, version.version, version.enabled) for stage, version in self.stages]
        expires = self.info.expires.isoformat() if self.info.expires else None
        facts = json.dumps([stages, sorted(self.info.labels.items()), expires])
        return Pin(token=hashlib.sha256(facts.encode()).hexdigest())


@attrs.frozen(kw_only=True)
class _Content:
    """A secret as it is, or as the target is to keep it.

    Args:
        values: by stage, oldest first.
        ids: the versions' names, in the same order.
        token: for ``if_match``.
    """

    values: tuple[tuple[Stage, Masked], ...]
    ids: tuple[str, ...]
    labels: Mapping[str, str]
    expires: datetime | None
    token: Token | None

    @property
    def current(self) -> Masked | None:
        """The value in use."""
        return dict(self.values).get("current")


@attrs.frozen(kw_only=True)
class SecretItem(Item):
    """A secret; ``left`` and ``right`` are what source and target tell without values.

    Args:
        buried: whether the target has a deleted secret of that name, which blocks it.
    """

    left: _Found | None = None
    right: _Found | None = None
    buried: bool = False


class SecretsMover(Mover[SecretItem]):
    """Moves secrets with labels and expiry: the previous version first, then the current one, so that stages come out.

    Other versions, disabled ones and deleted secrets stay behind; that is told and never refused. A pending version
    means that a rotation is in flight: refused, unless ``include_pending``. No value, and no hash of one that another
    run could compare, leaves the memory of this process but to the target.

    Permissions: list and read secrets and their versions on the source; the same and write on the target.
    """

    service: ClassVar[str] = "secrets"
    confidential: ClassVar[bool] = True
    facets: ClassVar[Mapping[str, str]] = {
        "expires": "the date after which a value should not be used",
        "guards": "writes that cannot overwrite somebody else's",
        "labels": "all labels",
    }

    def __init__(
        self, source: Service[Any, Any, Any], target: Service[Any, Any, Any], spec: Spec, options: Options
    ) -> None:
        super().__init__(source, target, spec, options)
        self._to = cast("Secrets", target)
        prefix = cast("SecretsSpec", self.spec)
        self._source: SecretStore = cast("Secrets", source).open(prefix)
        self._target: SecretStore = self._to.open(prefix)
        self._run_key = randomness.token_bytes(32)

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
        """Tell of deleted secrets that the source could still restore."""
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
        right += [_Found(info=info, versions=()) for info in others.values() if info.name not in wanted]
        buried = self._buried()
        rows = joined(_sorted(left), _sorted(right), known, lambda found: found.info.name)
        for key, here, there, record in rows:
            yield SecretItem(
                key=key,
                source=here.pin if here else None,
                target=there.pin if there else None,
                record=record,
                left=here,
                right=there,
                buried=key in buried,
            )

    def objection(self, item: SecretItem) -> str | None:
        """Refuse names that the target does not take, names that are blocked, and rotations in flight."""
        stages = dict(item.left.stages) if item.left else {}
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
            wanted, losses = self._wanted(cast("_Found", item.left))
            if step.action is Action.COMPARE:
                step = self._compared(item, step, wanted)
        except NotFound as exc:
            return Step(action=Action.REFUSE, reason=exc.message, trouble=Trouble.VANISHED)
        except Refusal as refusal:
            return Step(action=Action.REFUSE, reason=refusal.reason, trouble=refusal.trouble, losses=refusal.losses)
        return attrs.evolve(step, losses=losses)

    def copy(self, item: SecretItem, step: Step) -> Outcome:
        """Write what the target lacks; look at the source again afterwards, and once more if it changed."""
        if step.action is Action.DELETE:
            return self._deleted(item)
        here = cast("_Found", item.left)
        for changed in (False, True):
            outcome, missing = None, None
            try:
                outcome = self._carried_out(item, step, here)
            except ParentNotFound:
                raise
            except NotFound as exc:
                missing = exc  # perhaps a version went while it was read; what is there now decides
            now = self._find(self._source, item.key)
            if now is None:
                return Outcome(action=None)
            if missing is not None and now.pin == here.pin:
                raise missing
            if outcome is not None and now.pin == here.pin:
                return attrs.evolve(outcome, changed=here.pin if changed else None)
            here = now
            item = self._again(item, here, outcome)
        raise Refusal("its source changed again and again while it was read", Trouble.FAILED)

    def verify(self, item: SecretItem, *, quick: bool) -> str | None:  # noqa: ARG002  no provider tells a digest of a secret
        """Compare stages by an HMAC under a key that only this run knows, labels and expiry by what they are."""
        there = item.right or self._find(self._target, item.key)
        if there is None:
            raise Refusal("it is not on the target", Trouble.MISSING)
        wanted, _ = self._kept(self._read(self._source, cast("_Found", item.left)))
        return self._difference(item.key, wanted, self._read(self._target, there))

    # copying

    def _carried_out(self, item: SecretItem, step: Step, here: _Found) -> Outcome:
        key = item.key
        wanted, losses = self._wanted(here)
        there = self._find(self._target, key)
        present = self._read(self._target, there) if there else None
        if present is not None and self._difference(key, wanted, present) is None:
            return Outcome(action=Action.COMPARE, target=self._pin_now(key), losses=losses)
        if there is not None and present is not None:
            self._check_may_replace(item, step, there, wanted, present)
        try:
            self._write(key, wanted, present)
        except PreconditionFailed:
            raise Refusal("somebody changed it on the target meanwhile; run again", Trouble.FAILED) from None
        action = Action.CREATE if present is None else Action.REPLACE
        return Outcome(action=action, target=self._pin_now(key), losses=losses)

    def _check_may_replace(
        self, item: SecretItem, step: Step, there: _Found, wanted: _Content, present: _Content
    ) -> None:
        difference = self._difference(item.key, wanted, present) or ""
        known = item.record
        ours = known is not None and known.target == there.pin.token
        # Between two versions of one secret we were killed, or an answer was lost: what is current there is one that
        # we were to write, now or in an earlier run. What was there before we began is nobody's half.
        begun = step.action is not Action.COMPARE or (known is not None and not known.done)
        halfway = begun and self._is_known(item, wanted, present)
        if not (ours or halfway or self.options.overwrite):
            raise _conflict(difference)
        if present.expires is not None and wanted.expires is None:
            raise Refusal("the target's secret has an expiry that cannot be taken away; delete it there first")
        if "pending" in dict(present.values) and "pending" not in dict(wanted.values):
            raise Refusal(
                "the target's secret has a pending version that the source has not; finish or delete it there"
            )

    def _is_known(self, item: SecretItem, wanted: _Content, present: _Content) -> bool:
        """Tell whether the target's current value is one that the source has too, be it as an older version."""
        found = present.current
        if found is None or any(_same(value, found) for _, value in wanted.values):
            return found is not None
        here = cast("_Found", item.left)
        older = [version.version for version in here.versions if version.enabled and not version.stages]
        return any(_same(self._source.get(item.key, version=version).value, found) for version in older)

    def _write(self, key: str, wanted: _Content, present: _Content | None) -> None:
        """Put the versions that are missing, each over the one before it."""
        done = self._done_already(wanted, present) if present else 0
        features = self._target.features
        token = present.token if present else None
        for (stage, value), version in list(zip(wanted.values, wanted.ids, strict=True))[done:]:
            absent = token is None
            stored = self._target.put(
                key,
                value,
                stage="pending" if stage == "pending" else "current",
                if_absent=absent and features.if_absent,
                if_match=token if features.if_match else None,
                labels=wanted.labels if features.labels else None,
                expires=wanted.expires,
                idempotency_key=self._idempotency_key(key, version, token),
            )
            token = stored.token

    def _idempotency_key(self, key: str, version: str, before: Token | None) -> str:
        """Name one write: this version over that state. A version that comes back later is another write."""
        name = f"{self._source.provider}/{self._source.name}/{key}#{version}"
        return str(uuid.uuid5(_NAMESPACE, f"{name}@{before}" if before else name))

    @staticmethod
    def _done_already(wanted: _Content, present: _Content) -> int:
        """Return how many of the wanted versions the target need not be given again."""
        same_facets = (wanted.labels, wanted.expires) == (present.labels, present.expires)
        begins = len(present.values) <= len(wanted.values) and all(
            stage == other and _same(value, found)
            for (stage, value), (other, found) in zip(wanted.values, present.values, strict=False)
        )
        if begins and same_facets:
            return len(present.values)
        later = [at for at, (stage, _) in enumerate(wanted.values) if stage == "previous"]
        found = present.current
        return next((at + 1 for at in later if found is not None and _same(wanted.values[at][1], found)), 0)

    def _again(self, item: SecretItem, here: _Found, outcome: Outcome | None) -> SecretItem:
        """Return the item as it is after a round that the source outran: what was written is ours."""
        if outcome is None or outcome.target is None:
            return attrs.evolve(item, left=here)
        ours = Record(key=item.key, done=False, source=here.pin, target=outcome.target, before=None, plan="")
        return attrs.evolve(item, left=here, record=ours)

    def _deleted(self, item: SecretItem) -> Outcome:
        there = self._find(self._target, item.key)
        if self._find(self._source, item.key) is not None:
            raise Refusal("its source is back; the next run moves it", Trouble.FAILED)
        if there is not None and there.pin != item.target:
            raise Refusal("its source is gone, and somebody changed it on the target", Trouble.STALE)
        if there is not None and self._target.features.recovery:
            self._target.delete(item.key)
        elif there is not None:
            self._target.delete(item.key, recovery=None)
        return Outcome(action=Action.DELETE)

    # comparing

    def _compared(self, item: SecretItem, step: Step, wanted: _Content) -> Step:
        there = self._find(self._target, item.key)
        if there is None:
            return Step(action=Action.CREATE)
        present = self._read(self._target, there)
        if self._difference(item.key, wanted, present) is None:
            return Step(action=Action.COMPARE)
        self._check_may_replace(item, step, there, wanted, present)
        return Step(action=Action.REPLACE)

    def _difference(self, key: str, wanted: _Content, present: _Content) -> str | None:
        """Name the stages, labels and dates that differ; never what they are.

        A previous version that only the target has is no difference: every write there leaves one.
        """
        left = {stage: self._mac(key, stage, value) for stage, value in wanted.values}
        right = {stage: self._mac(key, stage, value) for stage, value in present.values}
        right = {stage: mac for stage, mac in right.items() if stage in left or stage != "previous"}
        found: list[str] = [
            stage for stage in _OLDEST_FIRST if not hmac.compare_digest(left.get(stage, b""), right.get(stage, b""))
        ]
        names = {*wanted.labels, *present.labels}
        found += [f"label {name}" for name in sorted(names) if wanted.labels.get(name) != present.labels.get(name)]
        if wanted.expires != present.expires:
            found.append("the expiry")
        return f"what differs: {', '.join(found)}" if found else None

    def _mac(self, key: str, stage: str, value: Masked) -> bytes:
        kind = "text" if _is_text(value) else "binary"
        head = json.dumps([key, stage, kind]).encode()
        return hmac.digest(self._run_key, head + b"\0" + value.reveal_bytes(), hashlib.sha256)

    # what the target can keep

    def _wanted(self, here: _Found) -> tuple[_Content, tuple[Loss, ...]]:
        """Read the source; return what the target is to keep and what is lost; refuse what was not accepted."""
        content, losses = self._kept(self._read(self._source, here))
        features = self._target.features
        for stage, value in content.values:
            size = len(value.reveal_bytes())
            if size > features.max_value.value:
                limit = features.max_value
                raise Refusal(f"its {stage} value has {size:,} bytes; the target's limit is {limit} ({limit.source})")
            if not features.binary and not _is_text(value):
                raise Refusal(f"its {stage} value is binary, and the target keeps only text")
        refused = tuple(loss for loss in losses if loss.accepted is False)
        if refused:
            why = "; ".join(f"{loss.detail}; accept that with degrade {loss.facet!r}" for loss in refused)
            raise Refusal(why, losses=losses)
        return content, losses + self._left_behind(here)

    def _kept(self, content: _Content) -> tuple[_Content, tuple[Loss, ...]]:
        features, losses = self._target.features, []
        values = content.values
        if not features.history and len(values) > 1:
            losses.append(Loss("history", "the target keeps no previous version"))
            content = attrs.evolve(
                content,
                values=tuple(pair for pair in values if pair[0] != "previous"),
                ids=tuple(id_ for id_, pair in zip(content.ids, values, strict=True) if pair[0] != "previous"),
            )
        why = self._target.check_labels(content.labels) if content.labels else None
        if why is not None:
            losses.append(Loss("labels", why, accepted="labels" in self.options.degrade))
            content = attrs.evolve(content, labels={})
        if content.expires is not None and not features.expiry:
            losses.append(Loss("expires", "the target keeps no expiry", accepted="expires" in self.options.degrade))
            content = attrs.evolve(content, expires=None)
        return content, tuple(losses)

    def _left_behind(self, here: _Found) -> tuple[Loss, ...]:
        staged = {version.version for _, version in here.stages}
        losses = []
        if any(version.version not in staged and version.enabled for version in here.versions):
            losses.append(Loss("history", "older versions are not moved"))
        if any(not version.enabled for version in here.versions):
            losses.append(Loss("disabled", "disabled versions are not moved"))
        return tuple(losses)

    # reading

    def _read(self, store: SecretStore, found: _Found) -> _Content:
        """Read the values of all stages that are enabled, by the versions that were found."""
        key = found.info.name
        read = [
            (stage, store.get(key, version=version.version) if version.version else store.get(key))
            for stage, version in found.stages
            if version.enabled
        ]
        newest = next((secret for stage, secret in reversed(read) if stage != "pending"), read[-1][1] if read else None)
        return _Content(
            values=tuple((stage, secret.value) for stage, secret in read),
            ids=tuple(secret.version for _, secret in read),
            labels=dict(newest.labels) if newest else {},
            expires=newest.expires if newest else None,
            token=newest.token if newest else None,
        )

    def _find(self, store: SecretStore, key: str) -> _Found | None:
        """Return what a side tells of one secret now."""
        info = next((info for info in store.list(key) if info.name == key), None) or self._unlisted(store, key)
        return self._with_history(store, info) if info else None

    def _unlisted(self, store: SecretStore, key: str) -> SecretInfo | None:
        """Look for a secret that listings, which lag behind writes at some providers, do not show yet."""
        try:
            found = store.get(key)
        except ParentNotFound:
            raise
        except NotFound:
            return None
        return SecretInfo(name=key, version=found.version, labels=found.labels, expires=found.expires)

    def _pin_now(self, key: str) -> str:
        """Return the target's token as the next listing will tell it."""
        found = self._find(self._target, key)
        return found.pin.token if found else ""

    def _with_history(self, store: SecretStore, info: SecretInfo) -> _Found | None:
        if not store.features.history or store.check_key(info.name) is not None:  # others may have named it so
            only = SecretVersion(
                name=info.name, version=info.version or "", stages=frozenset({"current"}), created=info.modified
            )
            return _Found(info=info, versions=(only,))
        try:
            return _Found(info=info, versions=tuple(store.history(info.name)))
        except ParentNotFound:
            raise
        except NotFound:
            return None

    def _histories(self, store: SecretStore, infos: Iterable[SecretInfo]) -> list[_Found]:
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


def _sorted(found: Iterable[_Found]) -> list[_Found]:
    return sorted(found, key=lambda each: each.info.name)


def _is_text(value: Masked) -> bool:
    """Tell whether bytes could be text: providers that know only one kind turn one into the other."""
    try:
        value.reveal()
    except ValueError:
        return False
    return True


def _same(one: Masked, other: Masked) -> bool:
    return hmac.compare_digest(one.reveal_bytes(), other.reveal_bytes())


def _conflict(difference: str) -> Refusal:
    return Refusal(f"the target has another secret there, which is not ours: {difference}", Trouble.CONFLICT)

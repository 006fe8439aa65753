"""Makes one secret of a target what it is to be: versions, labels, expiry, stages, in that order."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Literal

import attrs

from shiftable.errors import Conflict
from shiftable.migrate._histories import Content, Found, Kept, Marks, missing, without_origin
from shiftable.migrate.mover import Refusal, Trouble
from shiftable.secrets import Secret, SecretStore
from shiftable.secrets._copies import copy_key
from shiftable.secrets._names import joined
from shiftable.secrets.driver import Stage
from shiftable.tokens import Token

__all__ = ["Writing", "is_full", "kept_labels"]


@attrs.define
class Writing:
    """One secret on its way; for one use.

    Each version is put over the one before it and under an idempotency key of its own. A kill anywhere leaves a secret
    with which the next run goes on: it has the oldest of the wanted versions, and the newest of them is current.

    Args:
        wanted: what the target is to keep.
        origin: labels that tell the source's versions count.
    """

    source: SecretStore
    target: SecretStore
    marks: Marks
    key: str
    wanted: Content
    origin: bool
    _token: Token | None = attrs.field(default=None, init=False)
    _labels: Mapping[str, str] = attrs.field(factory=dict, init=False)
    _expires: datetime | None = attrs.field(default=None, init=False)
    _disabled: frozenset[str] = attrs.field(default=frozenset(), init=False)
    _places: dict[str, str] = attrs.field(factory=dict, init=False)
    _stages: dict[Stage, str] = attrs.field(factory=dict, init=False)
    _sure: bool = attrs.field(default=True, init=False)

    def run(self, there: Found | None = None, present: Content | None = None) -> None:
        """Write what is missing.

        Args:
            there: what the target tells of the secret, if it has one.
            present: and what that holds.

        Raises:
            PreconditionFailed: somebody else wrote in between.
            Refusal: the same, where no condition could say so.
        """
        if there is not None and present is not None:
            self._places = self.marks.places(self.key, self.wanted, present)
            self._stages = _staged(there)
            self._token, self._labels, self._expires = present.token, present.labels, present.expires
            self._disabled = present.disabled
        waiting = list(missing(self.wanted, self._places, full=is_full(self.target, there)))
        while waiting:
            kept = waiting.pop(0)
            self._make_current(kept)
            waiting = [*self._displaced(kept), *waiting]
        pending, found = self.wanted.at("pending"), present.at("pending") if present else None
        taken = found is not None and found.version in self._places.values()  # it is the copy of another version
        if pending is not None and (taken or not self.marks.same(self.key, pending, found)):
            self._put(pending, "pending")
        self._describe()
        self._arrange()

    def _make_current(self, kept: Kept, *, again: bool = False) -> None:
        stored = self._put(kept, "current", again=again)
        self._sure = self._sure and "current" in stored.stages  # else another mover put it before, and went on
        self._places[kept.version] = stored.version
        before = self._stages.get("current")
        if before not in (None, stored.version):
            self._stages["previous"] = str(before)
        self._stages["current"] = stored.version

    def _displaced(self, kept: Kept) -> list[Kept]:
        """Give up the place of an equal value that turns out to be the copy of this version, and return that value."""
        place = self._places[kept.version]
        taken = [other for other in self.wanted.rest if other != kept and self._places.get(other.version) == place]
        for other in taken:
            del self._places[other.version]
        return taken

    def _put(self, kept: Kept, stage: Literal["current", "pending"], *, again: bool = False) -> Secret:
        try:
            stored = self._stored(kept, stage, again=again)
        except Conflict:
            if again or not self._disabled:
                raise
            stored = self._stored(kept, stage, again=True)  # it had been copied once, and was disabled since
        if stage == "pending" and stage not in stored.stages and not again:  # or took another way
            stored = self._stored(kept, stage, again=True)
        self._token, self._labels, self._expires = stored.token, stored.labels, stored.expires
        return stored

    def _stored(self, kept: Kept, stage: Literal["current", "pending"], *, again: bool) -> Secret:
        features, token = self.target.features, self._token
        return self.target.put(
            self.key,
            kept.value,
            stage=stage,
            if_absent=token is None and features.if_absent,
            if_match=token if features.if_match else None,
            labels=self.wanted.labels if features.labels else None,
            expires=self.wanted.expires,
            idempotency_key=copy_key(
                self.source.provider,
                joined(self.source.name, self.key),
                kept.version,
                kept.created,
                again=token if again else None,
            ),
        )

    def _describe(self) -> None:
        """Put labels and expiry right where no version brought them."""
        wanted, current = self.wanted, self.wanted.at("current")
        relabel = kept_labels(self._labels, origin=self.origin) != kept_labels(wanted.labels, origin=self.origin)
        if not relabel and self._expires == wanted.expires:
            return
        if self.target.features.update:
            self.target.update(
                self.key,
                labels=wanted.labels if relabel else None,
                expires=None if self._expires == wanted.expires else wanted.expires or "never",
                if_match=self._token if self.target.features.if_match else None,
            )
        elif current is not None:
            self._make_current(current, again=True)

    def _arrange(self) -> None:
        """Make current and previous what they are to be, by promoting one after the other."""
        if not self.target.features.history or (self._sure and self._is_arranged()):
            return
        found = {version.version: version.stages for version in self.target.history(self.key)}
        now: dict[Stage, str] = {stage: id_ for id_, stages in found.items() for stage in stages if stage != "pending"}
        if self._sure and now != {stage: id_ for stage, id_ in self._stages.items() if stage != "pending"}:
            raise Refusal("somebody changed it on the target meanwhile; run again", Trouble.FAILED)
        self._stages = now
        current, previous = self._place("current"), self._place("previous")
        if previous is not None and not self._is_arranged() and now.get("current") != previous:
            self.target.promote(self.key, previous)
        if current is not None and not self._is_arranged():
            self.target.promote(self.key, current)

    def _is_arranged(self) -> bool:
        stages: tuple[Stage, ...] = ("current", "previous")
        places = {stage: self._place(stage) for stage in stages}
        return all(place in (None, self._stages.get(stage)) for stage, place in places.items())

    def _place(self, stage: Stage) -> str | None:
        """Return the target's version that is to have a stage."""
        kept = self.wanted.at(stage)
        return self._places.get(kept.version) if kept is not None else None


def is_full(target: SecretStore, there: Found | None) -> bool:
    """Tell whether what a secret lacks may be what the target has dropped.

    Where that begins cannot be seen: some count promotions among the versions that they keep. Half of them will do.
    """
    most = target.features.max_versions
    return most is not None and there is not None and 2 * len(there.versions) >= most.value


def kept_labels(labels: Mapping[str, str], *, origin: bool) -> dict[str, str]:
    """Return the labels that count."""
    return dict(labels) if origin else without_origin(labels)


def _staged(found: Found) -> dict[Stage, str]:
    return {stage: version.version for stage, version in found.stages.items()}

"""What two sides tell of one secret, and what of it is to be on the target: versions, stages, labels, expiry."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import attrs

from shiftable.masking import Masked
from shiftable.migrate.mover import Loss, Pin
from shiftable.secrets import SecretInfo, SecretsFeatures, SecretVersion
from shiftable.secrets.driver import Stage
from shiftable.tokens import Token

__all__ = [
    "ORDER",
    "Content",
    "Found",
    "Kept",
    "Marks",
    "fitting",
    "missing",
    "origin_labels",
    "surplus",
    "unfit",
    "unfolded",
    "without_origin",
]

ORDER: tuple[Stage, ...] = ("previous", "current", "pending")
_FOLDED = "shiftable-labels"
_ORIGIN = "shiftable-origin-"


@attrs.frozen(kw_only=True)
class Found:
    """What one side tells of a secret without its values.

    Args:
        versions: all, newest first.
    """

    info: SecretInfo
    versions: tuple[SecretVersion, ...]

    @property
    def stages(self) -> dict[Stage, SecretVersion]:
        """The versions that have a stage."""
        by_stage = {stage: version for version in self.versions for stage in version.stages}
        return {stage: by_stage[stage] for stage in ORDER if stage in by_stage}

    def chosen(self, history: int | None) -> tuple[SecretVersion, ...]:
        """Return the versions with a stage and the newest so many, oldest first; with ``None`` all."""
        newest = self.versions if history is None else self.versions[:history]
        staged = [version for version in self.versions[len(newest) :] if version.stages]
        return tuple(reversed([*newest, *staged]))

    def pin(self, history: int | None) -> Pin:
        """Return a token that changes with versions, stages, labels and expiry. No value has a part in it."""
        versions = [
            [version.version, sorted(version.stages), version.enabled, _iso(version.created)]
            for version in self.chosen(history)
        ]
        facts = json.dumps([versions, sorted(self.info.labels.items()), _iso(self.info.expires)])
        return Pin(token=hashlib.sha256(facts.encode()).hexdigest())


@attrs.frozen(kw_only=True)
class Kept:
    """One version with its value."""

    version: str
    value: Masked
    stages: frozenset[Stage]
    created: datetime | None

    def as_text(self) -> Kept:
        """Return the same with a value that is text, if its bytes can be: native tools may read only one of the two."""
        return attrs.evolve(self, value=Masked(self.value.reveal())) if is_text(self.value) else self

    @property
    def title(self) -> str:
        """What reports call it."""
        stages = [stage for stage in ORDER if stage in self.stages]
        return f"{' and '.join(stages)} value" if stages else f"version {self.version}"


@attrs.frozen(kw_only=True)
class Content:
    """A secret as it is, or as the target is to keep it.

    Args:
        versions: those that can be read, oldest first.
        disabled: ids of those that cannot.
        token: for ``if_match``.
    """

    versions: tuple[Kept, ...]
    disabled: frozenset[str]
    labels: Mapping[str, str]
    expires: datetime | None
    token: Token | None

    def at(self, stage: Stage) -> Kept | None:
        """Return the version that has a stage."""
        return next((kept for kept in self.versions if stage in kept.stages), None)

    @property
    def rest(self) -> tuple[Kept, ...]:
        """All but the pending version, oldest first."""
        return tuple(kept for kept in self.versions if "pending" not in kept.stages)

    def without(self, left_out: Collection[str]) -> Content:
        """Return the content less some versions."""
        return attrs.evolve(self, versions=tuple(kept for kept in self.versions if kept.version not in left_out))


class Marks:
    """Tells whether values are the same by HMACs under a key that nobody else has and that is written nowhere."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def mark(self, name: str, value: Masked) -> bytes:
        """Return the mark of a value of one secret, by its name, kind and bytes."""
        head = json.dumps([name, "text" if is_text(value) else "binary"]).encode()
        return hmac.digest(self._key, head + b"\0" + value.reveal_bytes(), hashlib.sha256)

    def same(self, name: str, one: Kept | None, other: Kept | None) -> bool:
        """Tell whether both are there with the same value, or neither is."""
        if one is None or other is None:
            return one is other
        return hmac.compare_digest(self.mark(name, one.value), self.mark(name, other.value))

    def places(self, name: str, wanted: Content, present: Content) -> dict[str, str]:
        """Return where the wanted versions are, id by id, each place once: as many as possible in order, then any."""
        left = [(kept.version, self.mark(name, kept.value)) for kept in wanted.rest]
        right = [(kept.version, self.mark(name, kept.value)) for kept in present.rest]
        pairs = _in_order([mark for _, mark in left], [mark for _, mark in right])
        places = {left[at][0]: right[there][0] for at, there in pairs}
        free = [right[there] for there in range(len(right)) if there not in {taken for _, taken in pairs}]
        for id_, mark in left:
            at = next((each for each in free if each[1] == mark), None) if id_ not in places else None
            if at is not None:
                free.remove(at)
                places[id_] = at[0]
        return places


def _in_order(left: Sequence[bytes], right: Sequence[bytes]) -> list[tuple[int, int]]:
    """Return the longest common subsequence as pairs of places; of several, one that begins early on the left."""
    lengths = [[0] * (len(right) + 1) for _ in range(len(left) + 1)]
    for i in range(len(left) - 1, -1, -1):
        for j in range(len(right) - 1, -1, -1):
            same = left[i] == right[j]
            lengths[i][j] = lengths[i + 1][j + 1] + 1 if same else max(lengths[i + 1][j], lengths[i][j + 1])
    pairs: list[tuple[int, int]] = []
    i = j = 0
    while i < len(left) and j < len(right):
        if left[i] == right[j]:
            pairs.append((i, j))
            i, j = i + 1, j + 1
        elif lengths[i + 1][j] > lengths[i][j + 1]:
            i += 1
        else:
            j += 1
    return pairs


def missing(wanted: Content, places: Mapping[str, str], *, full: bool) -> tuple[Kept, ...]:
    """Return the versions that the target lacks, oldest first; the pending one aside.

    Args:
        full: the target drops versions. What it lacks that is older than something it has, it has dropped, and would
            drop others for.
    """
    newest = max((at for at, kept in enumerate(wanted.rest) if kept.version in places), default=-1)
    return tuple(
        kept
        for at, kept in enumerate(wanted.rest)
        if kept.version not in places and (kept.stages or at > newest or not full)
    )


# labels


def fitting(
    labels: Mapping[str, str], check: Callable[[Mapping[str, str]], str | None], degrade: Collection[str]
) -> tuple[dict[str, str], tuple[Loss, ...]]:
    """Return the labels that a target can keep, and what is lost of the others.

    With ``fold`` those that it cannot keep stand together in one label, as JSON; with ``labels`` they are given up.

    Args:
        check: says why some labels could not be kept.
    """
    why = check(labels) if labels else None
    if why is None:
        return dict(labels), ()
    folded = _folded(labels, check)
    if "fold" in degrade and folded is not None:
        return folded, (Loss("fold", f"labels stand in {_FOLDED}: {why}", accepted=True),)
    if "labels" in degrade:
        kept = _some(labels, check)
        return kept, (Loss("labels", why, accepted=True),)
    if folded is not None:
        why += f"; accept that with degrade 'fold', which puts what is too much into {_FOLDED} as JSON, or lose it"
    return {}, (Loss("labels", why, accepted=False),)


def unfolded(labels: Mapping[str, str]) -> dict[str, str]:
    """Return the labels as they were before a move folded them."""
    try:
        found: Any = json.loads(labels.get(_FOLDED, "null"))
    except ValueError:
        return dict(labels)
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        return dict(labels)
    return {name: value for name, value in labels.items() if name != _FOLDED} | found


def _folded(labels: Mapping[str, str], check: Callable[[Mapping[str, str]], str | None]) -> dict[str, str] | None:
    """Return all labels, as few of them as possible in one; ``None`` if that cannot be kept either."""
    alone = sorted(name for name in labels if check({name: labels[name]}) is None)
    for count in range(len(alone), -1, -1):
        kept = {name: labels[name] for name in alone[:count]}
        rest = {name: labels[name] for name in sorted(labels) if name not in kept}
        made = kept | {_FOLDED: json.dumps(rest, ensure_ascii=False, separators=(",", ":"))}
        if check(made) is None:
            return made
    return None


def _some(labels: Mapping[str, str], check: Callable[[Mapping[str, str]], str | None]) -> dict[str, str]:
    """Return as many of the labels as can be kept."""
    kept: dict[str, str] = {}
    for name in sorted(labels):
        more = kept | {name: labels[name]}
        kept = more if check(more) is None else kept
    return kept


def origin_labels(content: Content) -> dict[str, str]:
    """Return labels that say which version of the source each version was, and when it was made: oldest first.

    In lower case, and in at most 63 characters, so that every provider with labels keeps them.
    """
    return {
        f"{_ORIGIN}{number}": f"{kept.version.lower()}_{_compact(kept.created)}"
        for number, kept in enumerate(content.versions, 1)
    }


def without_origin(labels: Mapping[str, str]) -> dict[str, str]:
    """Return the labels less those of ``origin_labels``."""
    return {name: value for name, value in labels.items() if not name.startswith(_ORIGIN)}


def _compact(moment: datetime | None) -> str:
    return moment.astimezone(UTC).strftime("%Y%m%dt%H%M%Sz") if moment else "unknown"


def _iso(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment else None


# values


def is_text(value: Masked) -> bool:
    """Tell whether bytes could be text: providers that know only one kind turn one into the other."""
    try:
        value.reveal()
    except ValueError:
        return False
    return True


def unfit(kept: Kept, features: SecretsFeatures) -> str | None:
    """Say why a target could not hold a value; ``None`` if it can."""
    size, limit = len(kept.value.reveal_bytes()), features.max_value
    if size > limit.value:
        return f"its {kept.title} has {size:,} bytes; the target's limit is {limit} ({limit.source})"
    if not features.binary and not is_text(kept.value):
        return f"its {kept.title} is binary, and the target keeps only text"
    return None


def surplus(versions: Sequence[Kept], most: int) -> tuple[Kept, ...]:
    """Return the oldest versions without a stage that are too many."""
    free = [kept for kept in versions if not kept.stages]
    return tuple(free[: max(0, len(versions) - most)])

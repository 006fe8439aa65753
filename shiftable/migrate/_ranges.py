"""Ranges of a bucket's keys: where they are cut, and what lies in one."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence

from shiftable.blob import Bucket, ObjectSummary
from shiftable.blob.driver import CommonPrefix
from shiftable.migrate._shards import Shard

__all__ = ["listed", "split"]

_WORTH = 2_000
_PROBES = 128
_DEEP = 900
"""Bytes of a prefix: what is behind it must be a key too, and no provider takes more than 1,024."""
_LAST = "\U0010ffff"
"""Sorts behind every other character, in UTF-8 too."""


def split(bucket: Bucket, wanted: int, prefix: str = "") -> tuple[Shard, ...]:
    """Cut the keys of a bucket into about so many ranges, by what a few requests tell; one, where it is not worth it.

    Folders are the natural cuts. Where there are too few, the characters that keys go on with are found one by one: a
    request each, as a listing can begin behind any key. Ranges are not equal in size: nothing tells sizes beforehand.
    """
    if wanted <= 1 or sum(1 for _ in bucket.list(prefix, limit=_WORTH)) < _WORTH:
        return (Shard(),)
    cuts = _folders(bucket, prefix)
    if len(cuts) < wanted:
        cuts = sorted({*cuts, *_characters(bucket, _common(cuts, prefix), wanted)})
    return _between(_thinned(cuts, wanted - 1))


def _folders(bucket: Bucket, prefix: str) -> list[str]:
    """Return where folders end, of the first level that has more than one."""
    while True:
        level = list(bucket.list_folder(prefix, limit=1_000))
        folders = [found.prefix for found in level if isinstance(found, CommonPrefix)]
        if len(level) != 1 or not folders:
            return [folder + _LAST for folder in folders]
        prefix = folders[0]


def _common(cuts: Sequence[str], prefix: str) -> str:
    """Return what to look below: the only folder, or all."""
    return cuts[0].removesuffix(_LAST) if len(cuts) == 1 else prefix


def _characters(bucket: Bucket, prefix: str, wanted: int) -> list[str]:
    """Return where keys end that go on alike: a character more at a time, until there are enough of them."""
    groups, probes = [prefix], iter(range(_PROBES))
    while len(groups) < wanted:
        finer = [longer for group in groups for longer in _longer(bucket, group, probes)]
        if not finer or next(probes, None) is None or any(len(group.encode()) > _DEEP for group in finer):
            break
        groups = finer
    return [group + _LAST for group in groups]


def _longer(bucket: Bucket, prefix: str, probes: Iterator[int]) -> Iterator[str]:
    """Yield a prefix with each character that keys have there, found by a request each."""
    after: str | None = None
    for _ in probes:
        head = next(bucket.list(prefix, start_after=after, limit=1), None)
        if head is None:
            return
        after = head.key  # the prefix itself may be a key
        if len(after) > len(prefix):
            group = after[: len(prefix) + 1]
            after = group + _LAST
            yield group


def _thinned(cuts: Sequence[str], wanted: int) -> list[str]:
    """Keep so many, evenly spread."""
    if len(cuts) <= wanted:
        return list(cuts)
    return [cuts[(place + 1) * len(cuts) // (wanted + 1)] for place in range(wanted)]


def _between(cuts: Iterable[str]) -> tuple[Shard, ...]:
    edges = [None, *cuts, None]
    return tuple(Shard(start, stop) for start, stop in itertools.pairwise(edges))


def listed(bucket: Bucket, prefixes: Sequence[str], shard: Shard) -> Iterator[ObjectSummary]:
    """List what lies below the prefixes, which are in order, and in the range."""
    for prefix in prefixes:
        if shard.stop is not None and prefix > shard.stop:
            return
        for found in bucket.list(prefix, start_after=shard.start):
            if shard.stop is not None and found.key > shard.stop:
                return
            yield found

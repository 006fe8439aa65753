"""What a listing of the provider's would tell of the objects in a listing file."""

from __future__ import annotations

import itertools
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime

import attrs

from shiftable.blob import Bucket, ObjectSummary
from shiftable.errors import NotFound
from shiftable.migrate._listing import Entry
from shiftable.tokens import Token

__all__ = ["summaries"]

_ASKED_AT_ONCE = 32
_SAMPLES = 5

_Telling = Callable[[Entry], ObjectSummary]


def summaries(source: Bucket, entries: Iterator[Entry]) -> Iterator[ObjectSummary]:
    """Yield the objects in their order; those of which the file tells too little are described once each."""
    first = list(itertools.islice(entries, _SAMPLES))
    return _described(source, itertools.chain(first, entries), _trusted(source, first))


def _trusted(source: Bucket, sample: Sequence[Entry]) -> _Telling | None:
    """Find out how the provider's own listing tells what the file tells; ``None``: it does not."""
    for entry in sample:
        here = next(iter(source.list(prefix=entry.key, limit=1)), None)
        if here is None or here.key != entry.key or entry.etag is None:
            continue
        for form in ('"{}"', "{}"):
            hashes = here.md5 is not None
            told = _told(entry, form, hashes=hashes)
            if told is not None and _pinned(told) == _pinned(here):
                return lambda each: _told(each, form, hashes=hashes) or _gone(each)
    return None


def _pinned(found: ObjectSummary) -> tuple[object, ...]:
    """Return what the journal keeps of a version."""
    return found.key, found.size, found.token, found.modified, found.md5


def _told(entry: Entry, form: str, *, hashes: bool) -> ObjectSummary | None:
    if entry.size is None or entry.etag is None or entry.modified is None:
        return None
    bare = entry.etag.strip('"')
    return ObjectSummary(
        key=entry.key,
        size=entry.size,
        token=Token(form.format(bare)),
        modified=entry.modified,
        md5=bytes.fromhex(bare) if hashes and re.fullmatch("[0-9a-f]{32}", bare) else None,
        storage_class=entry.storage_class,
    )


def _gone(entry: Entry) -> ObjectSummary:
    """Return an object of which only the listing file knows; no object has this version."""
    return ObjectSummary(
        key=entry.key,
        size=entry.size or 0,
        token=Token("gone"),
        modified=entry.modified or datetime.fromtimestamp(0, UTC),
    )


def _described(source: Bucket, entries: Iterable[Entry], trusted: _Telling | None) -> Iterator[ObjectSummary]:
    """Tell of the objects, in order: as the file does, or as the provider answers, some questions ahead."""

    def asked(entry: Entry) -> ObjectSummary:
        try:
            found = source.stat(entry.key)
        except NotFound:
            return _gone(entry)
        return ObjectSummary(**{field.name: getattr(found, field.name) for field in attrs.fields(ObjectSummary)})

    waiting: deque[ObjectSummary | Future[ObjectSummary]] = deque()
    with ThreadPoolExecutor(_ASKED_AT_ONCE, thread_name_prefix="shiftable-listing") as pool:
        try:
            for entry in entries:
                complete = entry.size is not None and entry.etag is not None and entry.modified is not None
                waiting.append(trusted(entry) if trusted and complete else pool.submit(asked, entry))
                if len(waiting) > 2 * _ASKED_AT_ONCE:
                    yield _result(waiting.popleft())
            while waiting:
                yield _result(waiting.popleft())
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _result(found: ObjectSummary | Future[ObjectSummary]) -> ObjectSummary:
    return found.result() if isinstance(found, Future) else found

"""Make one place hold what another holds: a folder and a prefix of a bucket, either way, or two prefixes."""

from __future__ import annotations

import hashlib
import logging
import os
import stat
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Literal

import attrs

from shiftable.blob._below import path_below, refusal_below
from shiftable.blob._bucket import Bucket
from shiftable.blob._stream import ObjectStream
from shiftable.blob._upload import PART_SIZE
from shiftable.blob.driver import ObjectSummary
from shiftable.errors import (
    Conflict,
    InvalidArgument,
    NotFound,
    OperationError,
    PreconditionFailed,
    Resource,
    classify_os,
    translated,
)
from shiftable.fibers import in_thread
from shiftable.files import save
from shiftable.parallel import parallel
from shiftable.spool import Spool
from shiftable.wording import counted

__all__ = ["SyncStep", "sync"]

logger = logging.getLogger(__name__)

_READ = 1024 * 1024
_LARGE = 1024 * 1024
_ALWAYS = 10
_UPLOADS = 3
_BEHIND_SLASH = "0"
"""The character behind the slash: what sorts before a name and this may lie below the name."""
_LONG_AGO = datetime.fromtimestamp(0, UTC)

End = Path | Bucket | tuple[Bucket, str]


@attrs.frozen(kw_only=True)
class SyncStep:
    """What was done to one name, or would be; ``error`` says why it was not."""

    name: str
    action: Literal["copy", "delete"]
    size: int
    error: OperationError | None = None
    _item: ObjectSummary | None = attrs.field(default=None, repr=False, eq=False)


def sync(
    source: End,
    target: End,
    *,
    delete: bool = False,
    delete_limit: float | None = None,
    dry_run: bool = False,
    workers: int = 16,
    on_found: Callable[[SyncStep], None] | None = None,
) -> Iterator[SyncStep]:
    """Copy what is missing or differs, so many at once, and yield each step as it ends.

    Names are compared in one pass over two sorted listings, at a memory that does not grow with them. Equal are a
    size and, where both sides can tell it, an MD5; where not, a target that is not older than its source.
    Nothing is written through a symbolic link within a target folder: such a step ends as a ``Conflict``. A folder
    below the source that cannot be read is a step with its error, and what the target has there stays.

    Deletions come when all copies were made. If one failed, nothing is deleted: each deletion ends as a ``Conflict``,
    and the next sync catches up. Last come copies whose place a deletion frees: a file's where a folder was, or the
    other way round.

    Args:
        source: a folder, a bucket, or a bucket and a prefix.
        target: the same; one of the two is not a folder.
        delete: also delete at the target what the source has not, and the folders that it empties.
        delete_limit: the most that is deleted, an ``int``, or the largest share of what the target has, a ``float``
            between 0 and 1, and ten always. Where it would be more, nothing is. ``None``: no limit.
        dry_run: yield the steps without doing them; those whose name the target cannot hold have their error.
        on_found: is told each step before it begins, for a display of how far it is.

    Raises:
        NotFound: the source does not exist; nothing was done.
        InvalidArgument: both are folders, or one prefix lies within the other.
    """
    here, there = _side(source), _side(target, may_be_missing=True)
    if isinstance(here, _Folder) and isinstance(there, _Folder):
        raise InvalidArgument("one of the two must be a bucket", operation="blob.sync")
    if isinstance(here, _Prefix) and isinstance(there, _Prefix) and here.overlaps(there):
        raise InvalidArgument(
            f"source and target overlap: {here.prefix!r} and {there.prefix!r} of one bucket", operation="blob.sync"
        )
    theirs = _Readable(there.entries())
    steps = _steps(here, there, iter(theirs), delete=delete)
    if on_found is not None:
        steps = _told(steps, on_found)

    def run(some: Iterable[SyncStep]) -> Iterator[SyncStep]:
        return (_foreseen(there, step) for step in some) if dry_run else _carried_out(here, there, some, workers)

    if not delete:
        return run(steps)
    return _deleting_last(there, steps, run, lambda count: _is_much(count, theirs.count, delete_limit))


def _told(steps: Iterable[SyncStep], on_found: Callable[[SyncStep], None]) -> Iterator[SyncStep]:
    for step in steps:
        on_found(step)
        yield step


def _deleting_last(
    there: _Side,
    steps: Iterable[SyncStep],
    run: Callable[[Iterable[SyncStep]], Iterator[SyncStep]],
    is_much: Callable[[int], str | None],
) -> Iterator[SyncStep]:
    """Make the copies; then the deletions, unless a copy failed or they are many; then what waited for a deletion."""
    with Spool[SyncStep]("blob.sync") as deletions, Spool[SyncStep]("blob.sync") as waiting:
        failed = 0
        for step in run(_at_once(there, steps, deletions, waiting)):
            failed += step.error is not None
            yield step
        why = (
            f"{counted(failed, 'name')} could not be copied, so nothing was deleted"
            if failed
            else is_much(deletions.count)
        )
        for kept in (deletions, waiting):
            yield from (_left(there, step, why) for step in kept) if why else run(kept)


def _is_much(count: int, there: int, limit: float | None) -> str | None:
    """Say that more would be deleted than is to be; ``None`` if not."""
    if limit is None or count <= (max(there * limit, _ALWAYS) if isinstance(limit, float) else limit):
        return None
    most = f"{limit:.0%}" if isinstance(limit, float) else f"{limit:,}"
    return f"{count:,} of {there:,} would be deleted, more than {most}: look at the source, or raise that limit"


def _at_once(
    there: _Side, steps: Iterable[SyncStep], deletions: Spool[SyncStep], waiting: Spool[SyncStep]
) -> Iterator[SyncStep]:
    """Pass on the copies that wait for no deletion, and keep the other steps."""
    files: list[str] = []
    for step in steps:
        files = [name for name in files if step.name < name + _BEHIND_SLASH]  # those that it may lie below
        if step.action == "delete":
            deletions.add(step)
            files.append(step.name)
        elif step.error is None and isinstance(there, _Folder) and there.is_hindered(step.name, files):
            waiting.add(step)
        else:
            yield step


def _left(there: _Side, step: SyncStep, why: str) -> SyncStep:
    """Return a step that is not made."""
    what = "stays" if step.action == "delete" else "is not copied, as what has its place stays"
    error = Conflict(f"{what}: {why}", operation="blob.sync", resource=there.resource(step.name))
    return attrs.evolve(step, error=error)


def _foreseen(there: _Side, step: SyncStep) -> SyncStep:
    """Return a step, with its error where the target cannot hold its name."""
    if step.action == "delete" or step.error is not None:
        return step
    return attrs.evolve(step, error=there.refusal(step.name))


def _carried_out(here: _Side, there: _Side, steps: Iterable[SyncStep], workers: int) -> Iterator[SyncStep]:
    def carry_out(step: SyncStep) -> None:
        if step.action == "delete":
            there.delete(step.name)
        elif step.error is None:
            _copy(here, there, step)

    def one(step: SyncStep) -> None:
        # Parts of large objects are sent side by side, and digested: that is for threads.
        in_thread(carry_out, step) if step.size > _LARGE else carry_out(step)

    cooperative = here.gives_way and there.gives_way
    for step, future in parallel(one, steps, workers=workers, fibers=cooperative):
        error = future.exception()
        if error is not None and not isinstance(error, OperationError):
            raise error
        yield step if error is None else attrs.evolve(step, error=error)


def _copy(here: _Side, there: _Side, step: SyncStep) -> None:
    name = step.name
    match here, there:
        case _Folder(), _Prefix():
            with here.translated(name):
                _upload(here, there, step)
        case _Prefix(), _Folder():
            with there.translated(name), here.opened(name, step._item) as stream:  # noqa: SLF001  nobody else's
                # It is as old as its source, for the next sync; what a power cut leaves empty has another size then.
                save(stream, there.room(name), durable=False, modified=stream.summary.modified.timestamp())
        case _Prefix(), _Prefix():
            here.bucket.copy(here.prefix + name, there.prefix + name, to=there.bucket)


def _upload(here: _Folder, there: _Prefix, step: SyncStep) -> None:
    """Upload a file, again if it was written to meanwhile: where there is no MD5, the object would seem to be newer.

    One that has another size by now is left to the next sync, which sees that: a log may never come to rest.
    """
    for _ in range(_UPLOADS):
        changed = here.status(step.name).st_mtime_ns
        sent = there.bucket.put(there.prefix + step.name, here.content(step.name, step.size))
        try:
            found = here.status(step.name)
        except FileNotFoundError:
            return
        if found.st_mtime_ns == changed or found.st_size != sent.size:
            return
    why = "the file is written to again and again while it is copied"
    raise Conflict(why, operation="blob.sync", resource=here.resource(step.name))


def _steps(here: _Side, there: _Side, theirs: Iterator[_Entry], *, delete: bool) -> Iterator[SyncStep]:
    """Compare two listings in the order of their names' UTF-8 bytes, which is that of their code points."""
    their = next(theirs, None)
    for mine in here.entries():
        if isinstance(there, _Folder) and mine.name.endswith("/") and not mine.size:
            logger.debug("%s is left out: it only marks a folder", mine.name)
            continue
        while their is not None and their.name < mine.name:
            if delete:
                yield SyncStep(name=their.name, action="delete", size=their.size)
            their = next(theirs, None)
        if mine.error is not None:
            yield SyncStep(name=mine.name, action="copy", size=0, error=mine.error)
            while their is not None and mine.hides(their.name):
                their = next(theirs, None)  # nobody knows whether the source has it
            continue
        if their is None or their.name != mine.name:
            yield SyncStep(name=mine.name, action="copy", size=mine.size, item=mine.item)
            continue
        if not _same(here, mine, there, their):
            yield SyncStep(name=mine.name, action="copy", size=mine.size, item=mine.item)
        their = next(theirs, None)
    while delete and their is not None:
        yield SyncStep(name=their.name, action="delete", size=their.size)
        their = next(theirs, None)


class _Readable:
    """The entries of a target, each of which counts, and is counted."""

    def __init__(self, entries: Iterator[_Entry]) -> None:
        self.count = 0
        self._entries = entries

    def __iter__(self) -> Iterator[_Entry]:
        for entry in self._entries:
            if entry.error is not None:
                raise entry.error
            self.count += 1
            yield entry


def _same(here: _Side, mine: _Entry, there: _Side, their: _Entry) -> bool:
    if mine.size != their.size:
        return False
    if mine.md5 or their.md5:
        try:
            digests = here.md5(mine), there.md5(their)
        except OperationError:
            return False  # whoever copies it says why it cannot be read
        if None not in digests:
            return digests[0] == digests[1]
    return their.modified >= mine.modified


@attrs.frozen
class _Entry:
    name: str
    size: int
    modified: datetime
    md5: bytes | None = None
    item: ObjectSummary | None = None
    error: OperationError | None = None
    """Why it cannot be looked at: a file, or a folder, whose name ends in a slash."""

    def hides(self, name: str) -> bool:
        """Tell whether a name is its own, or below it."""
        return name == self.name or (self.name.endswith("/") and name.startswith(self.name))


class _Side(ABC):
    @property
    @abstractmethod
    def gives_way(self) -> bool:
        """Whether its work may be done in ``shiftable.fibers``."""

    @abstractmethod
    def entries(self) -> Iterator[_Entry]:
        """Yield what is there, in the order of the names."""

    @abstractmethod
    def md5(self, entry: _Entry) -> bytes | None:
        """Return the MD5 of an entry's content, if it can be had without a download."""

    @abstractmethod
    def refusal(self, name: str) -> OperationError | None:
        """Return the error with which writing a name would end; ``None`` if nothing is against it."""

    @abstractmethod
    def delete(self, name: str) -> None:
        """Delete one."""

    @abstractmethod
    def resource(self, name: str) -> Resource:
        """Return what errors name."""


@attrs.frozen
class _Prefix(_Side):
    bucket: Bucket
    prefix: str

    def entries(self) -> Iterator[_Entry]:
        for item in self.bucket.list(self.prefix):
            name = item.key[len(self.prefix) :]
            if name:  # the prefix itself may be an object: a folder's marker
                yield _Entry(name, item.size, item.modified, item.md5, item)

    @property
    def gives_way(self) -> bool:
        return self.bucket.gives_way

    def md5(self, entry: _Entry) -> bytes | None:
        return entry.md5

    def refusal(self, name: str) -> OperationError | None:
        return self.bucket.refusal(self.prefix + name)

    def delete(self, name: str) -> None:
        self.bucket.delete(self.prefix + name)

    def resource(self, name: str) -> Resource:
        return Resource("object", self.prefix + name, Resource("bucket", self.bucket.name))

    def opened(self, name: str, item: ObjectSummary | None) -> ObjectStream:
        """Open an object as it was listed; if that is no more, as it is."""
        if item is not None:
            with suppress(PreconditionFailed):
                return self.bucket.stream(item)
        return self.bucket.stream(self.prefix + name)

    def overlaps(self, other: _Prefix) -> bool:
        """Tell whether some key would be both read and written."""
        same = self.bucket.name == other.bucket.name and self.bucket.unwrap(object) is other.bucket.unwrap(object)
        return same and (self.prefix.startswith(other.prefix) or other.prefix.startswith(self.prefix))


@attrs.frozen
class _Folder(_Side):
    root: Path
    may_be_missing: bool = False
    _walked: set[str] = attrs.field(factory=set, init=False, eq=False)
    _start: str = attrs.field(init=False, eq=False)
    """What names are written behind: to join paths costs as much as a small file."""

    @_start.default
    def _before_names(self) -> str:
        return os.path.join(self.root, "")  # noqa: PTH118

    @property
    def gives_way(self) -> bool:
        return True  # a small file holds nobody up for long

    def entries(self) -> Iterator[_Entry]:
        if self.may_be_missing and not self.root.exists():
            return
        with self.translated(""):
            yield from self._below(self.root, "")

    def _below(self, folder: Path, base: str) -> Iterator[_Entry]:
        with self.translated(base), os.scandir(folder) as found:
            # A folder sorts as its name and a slash, as the keys below it do.
            entries = sorted((entry.name + "/" * entry.is_dir(follow_symlinks=False), entry) for entry in found)
        for name, entry in entries:
            try:
                if name.endswith("/"):
                    yield from self._below(folder / entry.name, base + name)
                    continue
                status = entry.stat(follow_symlinks=False)
            except (FileNotFoundError, NotFound):
                continue  # deleted since its folder was read
            except (OSError, OperationError) as exc:
                yield _Entry(base + name, 0, _LONG_AGO, error=self._told(base + name, exc))
                continue
            if stat.S_ISREG(status.st_mode):
                yield _Entry(base + name, status.st_size, _moment(status.st_mtime))
            else:
                logger.warning("%s is left out: it is no regular file", entry.path)

    def md5(self, entry: _Entry) -> bytes | None:
        with self.translated(entry.name), Path(self.path(entry.name)).open("rb") as file:
            return hashlib.file_digest(file, _md5).digest()

    def refusal(self, name: str) -> OperationError | None:
        return refusal_below(self.root, name, operation="blob.sync")

    def delete(self, name: str) -> None:
        with self.translated(name):
            Path(self.path(name)).unlink(missing_ok=True)
        with suppress(OSError):  # until one has something else in it
            for folder in PurePosixPath(name).parents:
                if folder.name:
                    (self.root / folder).rmdir()

    def is_hindered(self, name: str, files: Collection[str]) -> bool:
        """Tell whether a name has no place: a folder has it, or one of some files is in the way there."""
        if any(name.startswith(f"{file}/") for file in files):
            return True
        try:
            return stat.S_ISDIR(os.lstat(self._start + name).st_mode)
        except (OSError, ValueError):  # nothing is there, or the name is none
            return False

    def content(self, name: str, size: int) -> bytes | Path:
        """Return what is to be uploaded: a small file's content, which takes as little memory as a part of a large."""
        path = self.path(name)
        return _read(path, size) if size <= PART_SIZE else Path(path)

    def status(self, name: str) -> os.stat_result:
        """Look at a file."""
        return os.stat(self.path(name), follow_symlinks=False)  # noqa: PTH116  paths cost as much as a small file

    def room(self, name: str) -> str:
        """Return the file of a name, whose folder exists."""
        path = self.path(name)
        folder = f"{name.rpartition('/')[0]}/"
        if folder not in self._walked:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            self._walked.add(folder)
        return path

    def path(self, name: str) -> str:
        """Return the file of a name, which never lies outside the folder; each folder on the way is looked at once."""
        folder, _, last = name.rpartition("/")
        if folder not in self._walked or last in {"", ".", ".."} or "\0" in last:
            path_below(self.root, name, operation="blob.sync")
            self._walked.add(folder)
        return self._start + name

    def translated(self, name: str) -> translated:
        """Turn the errors of files into ours."""
        return translated(classify_os, provider="local", operation="blob.sync", resource=self.resource(name))

    def _told(self, name: str, exc: OSError | OperationError) -> OperationError:
        """Return an error of a file, or of a folder below, as ours."""
        try:
            with self.translated(name):
                raise exc
        except OperationError as error:
            return error

    def resource(self, name: str) -> Resource:
        return Resource(
            "file" if name[-1:] not in {"", "/"} else "folder", self._start + name if name else str(self.root)
        )


def _side(end: End, *, may_be_missing: bool = False) -> _Side:
    if isinstance(end, Path):
        return _Folder(end, may_be_missing)
    bucket, prefix = (end, "") if isinstance(end, Bucket) else end
    return _Prefix(bucket.lane(), prefix)


def _moment(seconds: float) -> datetime:
    """Return the time of a file; of one that no calendar has, as a file system may tell it, the nearest that has."""
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError):
        return datetime.max.replace(tzinfo=UTC) if seconds > 0 else datetime.min.replace(tzinfo=UTC)


def _read(path: str, size: int) -> bytes:
    """Return a file's content, in one call of the system where it is as long as it was."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        content = os.read(descriptor, size + 1)
        if len(content) == size:
            return content
        pieces = [content]
        while pieces[-1]:
            pieces.append(os.read(descriptor, _READ))
        return b"".join(pieces)
    finally:
        os.close(descriptor)


def _md5() -> hashlib._Hash:
    return hashlib.md5(usedforsecurity=False)

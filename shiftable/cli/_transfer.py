"""Copies and moves of ``blob cp`` and ``blob mv``: what goes where, and carrying it out, many at once."""

from __future__ import annotations

import hashlib
import io
import os
import re
import select
import stat
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, Self, cast

import attrs
import click

from shiftable.blob import Bucket, Lock, ObjectInfo
from shiftable.blob._below import path_below, refusal_below
from shiftable.blob._bulk import digest_object, read_tags
from shiftable.cli._context import Context, json_line, say, shown, size_text
from shiftable.cli._places import Local, Location, Place, matching
from shiftable.errors import (
    AlreadyExists,
    ConfigError,
    Conflict,
    IntegrityError,
    InvalidArgument,
    NotFound,
    OperationError,
    PreconditionFailed,
    Resource,
    classify_os,
    translated,
)
from shiftable.files import is_stream, save, save_as
from shiftable.parallel import parallel
from shiftable.tokens import Token

__all__ = ["Options", "Pair", "Report", "Transfer", "pairs"]

_CHUNK = 1024 * 1024
_WAIT = 200
"""Milliseconds until whoever waits for a pipe looks whether the command was interrupted."""
_AT_ONCE = 8 * 1024 * 1024
"""A file of so many bytes goes in one call; larger ones in parts, which Ctrl-C can end between two."""


@attrs.frozen(kw_only=True)
class Options:
    """How copies are made.

    Args:
        move: delete the source's object, in the version that was copied, when the copy was compared with it.
        if_absent: only where there is nothing at the target yet.
        content_type: of objects made of files.
        jobs: how many at once.
        lock: of objects that are written.
    """

    move: bool = False
    if_absent: bool = False
    content_type: str | None = None
    jobs: int = 16
    lock: Lock = attrs.Factory(Lock)
    dry_run: bool = False


@attrs.frozen
class Below:
    """A file of a name below a folder; it is checked when it is written that it lies there."""

    root: Path
    name: str

    def __str__(self) -> str:
        return str(self.root / self.name)


Source = Location | Local
Target = Location | Local | Below


@attrs.frozen
class Pair:
    """One object or file, and where it goes; ``error`` says why it will not."""

    source: Source
    target: Target
    size: int | None = None
    error: OperationError | None = None


@attrs.frozen
class Found:
    """A source, and its name below the target; a folder with the error for which it cannot be read."""

    source: Source
    name: str
    size: int | None = None
    error: OperationError | None = None


# what goes where


def pairs(
    context: Context, sources: tuple[Place, ...], target: Place, *, recursive: bool, glob: bool
) -> Iterator[Pair]:
    """Yield what is to be copied; listings are read as they are needed.

    The target is a folder if it ends in a slash, is an existing folder or a whole bucket, and always with ``-r``,
    ``--glob`` or several sources. ``-r`` copies a folder under its own name; with a slash at its end, what is in it.

    Raises:
        ConfigError: it is not clear what would go where.
    """
    _check_ends(context, sources, target)
    many = recursive or glob or len(sources) > 1
    into = _opened(context, target, many=many)
    folder = many or _is_folder(into)
    if folder and any(isinstance(source, Local) and source.is_standard for source in sources):
        raise _nameless(target)
    for place in sources:
        source = _opened(context, place, many=many)
        found, reads = _found(source, recursive=recursive, glob=glob)
        if recursive and isinstance(source, Location) and isinstance(into, Location):
            _check_outside(source, into)
        for each in found:
            if each.size == 0 and each.name.endswith("/") and not isinstance(into, Location):
                continue  # it only marks a folder
            to = _within(into, each.name, each.source) if folder else into
            yield Pair(each.source, to, each.size, each.error or _within_itself(each.source, to, reads))


Reads = Callable[[str], bool]
"""Tells whether a listing may yet come to a key."""


def _opened(context: Context, place: Place, *, many: bool) -> Source:
    """Find the bucket; for many objects with the driver's bulk lane."""
    if isinstance(place, Local):
        return place
    location = place.open(context)
    return attrs.evolve(location, bucket=location.bucket.lane()) if many else location


def _found(source: Source, *, recursive: bool, glob: bool) -> tuple[Iterable[Found], Reads]:
    if isinstance(source, Local):
        return (_files(source) if recursive else [Found(source, source.path.name)]), _reads_nothing
    if glob:
        folder, pattern = matching(source)
        return _matches(source, folder, pattern), lambda key: pattern.fullmatch(key) is not None
    if recursive:
        return _objects(source), lambda key: key.startswith(source.folder)
    if not source.key:
        raise ConfigError(f"{source} is a whole bucket; -r copies what is in it")
    return [Found(source, source.key.rpartition("/")[2])], _reads_nothing


def _check_outside(source: Location, into: Location) -> None:
    """Refuse a folder that would be copied into itself before anything is sent."""
    name = source.key.rpartition("/")[2]
    if _same(source.bucket, into.bucket) and f"{into.folder}{name and name + '/'}".startswith(source.folder):
        raise ConfigError(f"the target {into} lies within the source {source}")


def _reads_nothing(_: str) -> bool:
    return False


def _within_itself(source: Source, target: Target, reads: Reads) -> OperationError | None:
    """Refuse to write where the same command still reads: it might go on for ever, or copy copies."""
    if not (isinstance(source, Location) and isinstance(target, Location)):
        return None
    inside = _same(source.bucket, target.bucket) and reads(target.key)
    return Conflict("the target lies within the source", operation="blob.copy") if inside else None


def _same(bucket: Bucket, other: Bucket) -> bool:
    return bucket.name == other.name and bucket.unwrap(object) is other.unwrap(object)


def _check_ends(context: Context, sources: tuple[Place, ...], target: Place) -> None:
    for source in sources:
        if isinstance(source, Local) and isinstance(target, Local):
            raise ConfigError(f"one of the two must be an object, LABEL:KEY{hint(context, source, target)}")
        if isinstance(source, Local) and source.is_standard and not _is_key(target):
            raise _nameless(target)


def _nameless(target: Place) -> ConfigError:
    slash = "" if target.text.endswith((":", "/")) else "/"
    return ConfigError(f"what comes from standard input has no name: write a whole key, {target}{slash}NAME")


def hint(context: Context, *places: Place) -> str:
    """Say where somebody has forgotten the colon behind a label."""
    app = context.app_if_any
    labels = {declared.label for declared in app.declared("blob")} if app is not None else set()
    missing = [f"{p}:" for p in places if isinstance(p, Local) and p.text in labels]
    return f"; did you mean {' '.join(missing)}?" if missing else ""


def _is_key(place: Place) -> bool:
    if isinstance(place, Local):
        return not place.is_folder
    text = place.text.partition("://" if place.is_url else ":")[2]
    return bool(text) and not text.endswith("/") and (not place.is_url or "/" in text)


def _is_folder(target: Source) -> bool:
    if isinstance(target, Location):
        return not target.key or target.key.endswith("/")
    return not target.is_standard and target.is_folder


def _within(target: Source, name: str, source: Source) -> Target:
    if not name:
        raise ConfigError(f"{source} is a folder; -r copies it")
    if isinstance(target, Location):
        return target.at(target.folder + name)
    if target.is_standard:
        raise ConfigError("standard output takes one object")
    return Below(target.path, name)


def _files(source: Local) -> Iterator[Found]:
    if source.is_standard:
        raise ConfigError("-r takes a folder, not standard input")
    root = source.path
    base = "" if source.names_content else f"{root.name}/"
    with _translated(root):
        if stat.S_ISREG(root.stat().st_mode):
            yield Found(source, root.name, root.stat().st_size)
            return
        yield from _walked(root, base)


def _walked(folder: Path, base: str) -> Iterator[Found]:
    with _translated(folder), os.scandir(folder) as found:
        entries = sorted(found, key=lambda entry: entry.name)
    for entry in entries:
        path, name = Path(entry.path), base + entry.name
        try:
            if entry.is_dir(follow_symlinks=False):
                yield from _walked(path, f"{name}/")
            elif entry.is_file(follow_symlinks=False):
                with _translated(path):
                    size = entry.stat(follow_symlinks=False).st_size
                yield Found(Local(str(path)), name, size)
            else:
                click.echo(f"{shown(str(path))}: left out, it is no regular file", err=True)
        except NotFound:
            continue  # deleted since its folder was read
        except OperationError as exc:
            yield Found(Local(str(path)), name, error=exc)


def _objects(source: Location) -> Iterator[Found]:
    """Yield what is in a folder; a key that is no folder but an object is that object."""
    name = source.key.rpartition("/")[2]
    base = f"{name}/" if name else ""
    empty = True
    for item in source.bucket.list(source.folder):
        empty = False
        below = base + item.key[len(source.folder) :]
        if below:
            yield Found(source.at(item.key), below, item.size)
    if empty:
        if not name or not source.bucket.exists(source.key):
            raise NotFound(f"there is nothing below {source}", provider=source.bucket.provider, operation="blob.list")
        yield Found(source, name)


def _matches(source: Location, folder: str, pattern: re.Pattern[str]) -> Iterator[Found]:
    empty = True
    for item in source.bucket.list(folder):
        if pattern.fullmatch(item.key):
            empty = False
            yield Found(source.at(item.key), item.key[len(folder) :], item.size)
    if empty:
        raise NotFound(f"nothing matches {source}", provider=source.bucket.provider, operation="blob.list")


# carrying it out


class Stopped(Exception):
    """The command was interrupted; what was under way is dropped."""


class Report:
    """Tells what is done: bars on a terminal, a line for each elsewhere, or JSON lines.

    Args:
        verb: what is done; empty where the facts of each say it: those are lines of standard output.
    """

    def __init__(self, verb: str, *, as_json: bool, quiet: bool = False, dry_run: bool = False) -> None:
        from rich.console import Console

        self.done = self.failed = self.size = 0
        self._verb = verb
        self.dry_run = dry_run
        self._as_json = as_json
        self._quiet = quiet
        self._console = Console(stderr=True, highlight=False, emoji=False)  # a key may hold ':x:'
        self._bars = Bars(self._console) if sys.stderr.isatty() and not (as_json or quiet or dry_run) else None
        self._tears = self._bars is not None and sys.stdout.isatty()  # asked now: bars put themselves before stdout

    def moved(self, size: int) -> None:
        """So many bytes more went through; called from any thread."""
        if self._bars is not None:
            self._bars.moved(size)

    def expect(self, size: int) -> None:
        """So many bytes more will go through."""
        if self._bars is not None:
            self._bars.expect(size)

    def ended(self, facts: dict[str, object], text: str, size: int, error: Exception | None) -> None:
        """One of them has ended, well or not."""
        if error is None:
            self.done, self.size = self.done + 1, self.size + size
        else:
            self.failed += 1
        if self._bars is not None:
            self._bars.ended()
        if self._as_json:
            mark: dict[str, object] = {"dry_run": True} if self.dry_run else {}
            json_line({"action": self._verb, **facts, "size": size, "error": error and str(error), **mark})
        elif error is not None:
            self._say(f"error: {text}: {error}")
        elif self.dry_run or not self._verb:
            if not self._tears:
                say(f"{self._verb or facts['action']} {text}")
        elif self._bars is None and not self._quiet:
            self._say(text)

    def summary(self, participle: str) -> None:
        """Say how many there were."""
        if self._as_json or (self._quiet and not self.failed):
            return
        if self.dry_run:
            participle = f"would be {participle}"
        if self.done + self.failed != 1 or self.dry_run or self._bars is not None:
            self._say(f"{self.done:,} {participle} ({size_text(self.size)}), {self.failed:,} failed")

    def _say(self, text: str) -> None:
        if self._bars is not None:
            self._console.print(shown(text), markup=False, soft_wrap=True)
        else:
            click.echo(shown(text), err=True)

    def __enter__(self) -> Self:
        if self._bars is not None:
            self._bars.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._bars is not None:
            self._bars.stop()


class Bars:
    """One bar for all that goes through, on standard error, so that results can be piped."""

    def __init__(self, console: object) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TransferSpeedColumn,
        )

        self._progress = Progress(
            TextColumn("{task.fields[items]}"),
            BarColumn(),
            DownloadColumn(binary_units=True),
            TransferSpeedColumn(),
            TimeElapsedColumn(),
            console=cast("Console", console),
            transient=True,
        )
        self._items = 0
        self._expected = 0
        self._task = self._progress.add_task("", total=None, items="")

    def moved(self, size: int) -> None:
        """Move it."""
        self._progress.update(self._task, advance=size)

    def expect(self, size: int) -> None:
        """Make it longer."""
        self._expected += size
        self._progress.update(self._task, total=self._expected)

    def ended(self) -> None:
        """Count one more."""
        self._items += 1
        self._progress.update(self._task, items=f"{self._items:,} done")

    def start(self) -> None:
        """Show it."""
        self._progress.start()

    def stop(self) -> None:
        """Remove it."""
        self._progress.stop()


@attrs.define
class Transfer:
    """Copies or moves of one command."""

    options: Options
    report: Report
    _stop: threading.Event = attrs.Factory(threading.Event)
    _running: int = 0
    _idle: threading.Condition = attrs.Factory(threading.Condition)

    def run(self, work: Iterable[Pair]) -> None:
        """Carry out all; a failure is told and does not keep the others from their turn."""
        if self.options.dry_run:
            for pair in work:
                self._tell(pair, pair.size or 0, pair.error or _refusal(pair.target))
            return
        try:
            for pair, future in parallel(self._counted, self._expected(work), workers=self.options.jobs):
                error = future.exception()
                # A bug, or a reader that has gone, ends all.
                size = future.result() if error is None or not isinstance(error, OperationError) else 0
                self._tell(pair, size, error if isinstance(error, OperationError) else None)
        except BaseException:
            self._stop.set()
            with self._idle:  # whoever drops half of an upload still needs the connection
                self._idle.wait_for(lambda: not self._running)
            raise

    def _expected(self, work: Iterable[Pair]) -> Iterator[Pair]:
        for pair in work:
            if pair.size:
                self.report.expect(pair.size)
            yield pair

    def _tell(self, pair: Pair, size: int, error: Exception | None) -> None:
        facts: dict[str, object] = {"source": str(pair.source), "target": str(pair.target)}
        self.report.ended(facts, f"{pair.source} → {pair.target}", size, error)

    def _counted(self, pair: Pair) -> int:
        with self._idle:
            self._running += 1
        try:
            return self._one(pair)
        finally:
            with self._idle:
                self._running -= 1
                self._idle.notify_all()

    def _one(self, pair: Pair) -> int:
        source, target = pair.source, pair.target
        if pair.error is not None:
            raise pair.error
        if isinstance(source, Location):
            return self._copy(source, target) if isinstance(target, Location) else self._download(source, target)
        if not isinstance(target, Location):
            raise TypeError("one of the two is an object")
        return self._upload(source, target)

    def _upload(self, source: Local, target: Location) -> int:
        if source.is_standard:
            through = Through(self, cast("BinaryIO", sys.stdin.buffer))
            self._put(target, iter(through), None)
            return through.size
        path = source.path
        if path.is_dir():
            resource = Resource("folder", str(path))
            raise InvalidArgument("it is a folder; -r copies it", operation="blob.copy", resource=resource)
        with _translated(path), path.open("rb") as file:
            status = os.fstat(file.fileno())
            through = Through(self, file)
            small = stat.S_ISREG(status.st_mode) and status.st_size <= _AT_ONCE
            written = self._put(target, b"".join(through) if small else iter(through), status.st_size)
            if self.options.move:
                _check(target, written, through)
                _remove(path, status)
        return through.size

    def _put(self, target: Location, data: bytes | Iterator[bytes], size: int | None) -> ObjectInfo:
        options = self.options
        return target.bucket.put(
            target.key,
            data,
            content_type=options.content_type,
            if_absent=options.if_absent,
            size=size or None,
            retain=options.lock.retention,
            hold=options.lock.hold,
        )

    def _download(self, source: Location, target: Local | Below) -> int:
        if isinstance(target, Local) and target.is_standard:
            pour(source, self)
            return 0
        path = target.path if isinstance(target, Local) else _made(target)
        resource = Resource("file", str(path))
        if self.options.if_absent and os.path.lexists(path):
            raise AlreadyExists("the file exists already", operation="blob.copy", resource=resource)
        if self.options.move and is_stream(path):
            raise InvalidArgument(
                "it keeps nothing that could be moved; use cp", operation="blob.move", resource=resource
            )
        with source.bucket.stream(source.key) as stream:
            through = Through(self, stream)
            with _translated(path):
                (save_as if isinstance(target, Local) else save)(iter(through), path)
            if self.options.move:
                delete_pinned(source, stream.summary.token)
        return through.size

    def _copy(self, source: Location, target: Location) -> int:
        bucket, to = source.bucket, target.bucket
        if (bucket.provider, bucket.name, source.key) == (to.provider, to.name, target.key):
            self._check_apart(source, target)
        before = bucket.stat(source.key)
        if bucket.features.copy and bucket.unwrap(object) is to.unwrap(object):
            lock = self.options.lock
            written = bucket.copy(
                source.key,
                target.key,
                to=to,
                if_absent=self.options.if_absent,
                retain=lock.retention,
                hold=lock.hold,
            )
            self.report.moved(before.size)
        else:
            written = self._stream(source, target, before)
        if self.options.move:
            _compare(source, before, target, written)
            delete_pinned(source, before.token)
        return before.size

    def _check_apart(self, source: Location, target: Location) -> None:
        """Refuse to copy an object onto itself, and to move it where nothing tells that it would not be deleted so."""
        if _same(source.bucket, target.bucket):
            why = "an object cannot be copied onto itself"
        elif self.options.move:
            why = f"both are named so on {source.bucket.provider.label}; if they are two, copy, then delete"
        else:
            return
        raise InvalidArgument(why, provider=source.bucket.provider, operation="blob.copy", resource=_object(source))

    def _stream(self, source: Location, target: Location, info: ObjectInfo) -> ObjectInfo:
        with source.bucket.stream(info) as stream:
            return target.bucket.put(
                target.key,
                iter(Through(self, stream)),
                headers=info.headers,
                metadata=info.metadata,
                tags=read_tags(source.bucket, info) or None,
                if_absent=self.options.if_absent,
                size=info.size,
                retain=self.options.lock.retention,
                hold=self.options.lock.hold,
            )

    def check(self, size: int) -> None:
        """Count bytes that went through, and stop where the command was interrupted."""
        if self._stop.is_set():
            raise Stopped
        self.report.moved(size)


class Through:
    """Bytes on their way: counted, digested where they will be compared, and ended by Ctrl-C."""

    def __init__(self, transfer: Transfer, source: BinaryIO | Iterable[bytes]) -> None:
        self._transfer = transfer
        self._chunks = _chunks(source, lambda: transfer.check(0))
        self.size = 0
        self.md5 = hashlib.md5(usedforsecurity=False)
        self.sha256 = hashlib.sha256()

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._chunks:
            self._transfer.check(len(chunk))
            self.size += len(chunk)
            if self._transfer.options.move:
                self.md5.update(chunk)
                self.sha256.update(chunk)
            yield chunk


def _chunks(source: BinaryIO | Iterable[bytes], waiting: Callable[[], None]) -> Iterator[bytes]:
    """Yield bytes; ``waiting`` is called now and then while a pipe or a terminal brings none, and may raise."""
    try:
        descriptor = cast("BinaryIO", source).fileno()
    except (AttributeError, io.UnsupportedOperation):
        yield from source
        return
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    while True:
        while not poll.poll(_WAIT):
            waiting()
        chunk = os.read(descriptor, _CHUNK)
        if not chunk:
            return
        yield chunk


def pour(source: Location, transfer: Transfer | None = None, *, version: str | None = None) -> None:
    """Write an object to standard output."""
    with source.bucket.stream(source.key, version=version) as stream:
        for chunk in stream:
            if transfer is not None:
                transfer.check(len(chunk))
            sys.stdout.buffer.write(chunk)
    sys.stdout.buffer.flush()


def delete_pinned(source: Location, token: Token) -> None:
    """Delete the version that was copied, and none that was written since.

    Where the provider cannot delete by version it is looked at right before, which leaves a moment.
    """
    bucket = source.bucket
    if bucket.features.delete_if_match:
        bucket.delete(source.key, if_match=token)
        return
    if bucket.stat(source.key).token != token:
        raise PreconditionFailed(
            "it was written again since it was copied, and stays",
            provider=bucket.provider,
            operation="blob.delete",
            resource=_object(source),
        )
    bucket.delete(source.key)


def _refusal(target: Target) -> OperationError | None:
    """Return the error with which writing to a target would end, as far as its name tells."""
    if isinstance(target, Location):
        return target.bucket.refusal(target.key)
    if isinstance(target, Below):
        return refusal_below(target.root, target.name, operation="blob.copy")
    return None


def _made(target: Below) -> Path:
    path = path_below(target.root, target.name, operation="blob.copy")
    with _translated(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _check(target: Location, written: ObjectInfo, through: Through) -> None:
    """Compare what has arrived with what was sent: by the MD5 that the target tells, else by reading it."""
    if written.size != through.size:
        raise _differs(target)
    if written.md5 is not None:
        if written.md5 != through.md5.digest():
            raise _differs(target)
    elif digest_object(target.bucket, target.key)[1] != through.sha256.digest():
        raise _differs(target)


def _compare(source: Location, before: ObjectInfo, target: Location, written: ObjectInfo) -> None:
    """Compare two objects: by the MD5 that both tell, else by reading both."""
    if written.size != before.size:
        raise _differs(target)
    if before.md5 is not None and written.md5 is not None:
        if before.md5 != written.md5:
            raise _differs(target)
        return
    if digest_object(source.bucket, source.key)[1] != digest_object(target.bucket, target.key)[1]:
        raise _differs(target)


def _differs(target: Location) -> IntegrityError:
    return IntegrityError(
        "what has arrived is not what was sent; the source stays",
        provider=target.bucket.provider,
        operation="blob.copy",
        resource=_object(target),
    )


def _remove(path: Path, status: os.stat_result) -> None:
    """Delete the file that was copied, and none that was written since."""
    now = path.stat()
    if (now.st_ino, now.st_size, now.st_mtime_ns) != (status.st_ino, status.st_size, status.st_mtime_ns):
        resource = Resource("file", str(path))
        raise Conflict("it was written again since it was copied, and stays", operation="blob.move", resource=resource)
    path.unlink()


def _object(location: Location) -> Resource:
    bucket: Bucket = location.bucket
    return Resource("object", location.key, bucket.resource)


def _translated(path: Path) -> translated:
    return translated(classify_os, provider="local", operation="blob.copy", resource=Resource("file", str(path)))

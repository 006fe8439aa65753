"""``blob``: objects, as files on this machine, below labels of buckets, and by URL."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timedelta
from typing import Any, get_args

import attrs
import click

from shiftable.blob import (
    Bucket,
    CommonPrefix,
    Lock,
    Method,
    ObjectSummary,
    ObjectVersion,
    Retention,
    RetentionMode,
    SyncStep,
)
from shiftable.cli._context import (
    Context,
    Group,
    fact_text,
    json_line,
    json_option,
    pass_context,
    say,
    shown,
    size_text,
    terminable,
)
from shiftable.cli._places import Local, Location, Place, PlaceType, Remote, RemoteType, complete_places, matching
from shiftable.cli._serving import until_told
from shiftable.cli._transfer import Options, Report, Transfer, hint, pairs, pour
from shiftable.cli._units import duration, limit, when
from shiftable.errors import ConfigError, NotFound, OperationError, Resource
from shiftable.parallel import parallel
from shiftable.wording import counted

__all__ = ["blob"]

_DELETE_AT_ONCE = 1_000
_DELETE_WORKERS = 16
_DELETED_SHARE = 0.3


class AgeType(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.4
    """A number with a unit: ``90s``, ``15m``, ``12h``, ``1d``, ``4w``."""

    name = "age"

    def convert(self, value: str | timedelta, *_where: Any) -> timedelta:  # noqa: ANN401  as click
        """Read it as the durations in the file are written."""
        return value if isinstance(value, timedelta) else duration(value)


class TimeType(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.4
    """A date or a time of ISO 8601; without a zone UTC."""

    name = "time"

    def convert(self, value: str | datetime, *_where: Any) -> datetime:  # noqa: ANN401  as click
        """Read it as other times of the command line."""
        return value if isinstance(value, datetime) else when(value)


remote = click.argument("place", type=RemoteType(), metavar="LABEL[:KEY]|URL", shell_complete=complete_places)
remotes = click.argument(
    "places", type=RemoteType(), nargs=-1, required=True, metavar="LABEL:KEY|URL...", shell_complete=complete_places
)
sources = click.argument(
    "sources", type=PlaceType(), nargs=-1, required=True, metavar="SOURCE...", shell_complete=complete_places
)
target_ = click.argument("target", type=PlaceType(), shell_complete=complete_places)
glob_option = click.option(
    "--glob", is_flag=True, help="The key is a pattern: * and ? within a folder, ** across, [a-z]."
)
dry_option = click.option("-n", "--dry-run", is_flag=True, help="Only say what would be done.")
quiet_option = click.option("-q", "--quiet", is_flag=True, help="Say nothing but errors.")
mode_option = click.option(
    "--mode",
    type=click.Choice(get_args(RetentionMode)),
    default="governance",
    show_default=True,
    help="Who may shorten it: whoever has the permission, or nobody at all.",
)
version_option = click.option("--version", metavar="ID", help="An older version of the object.")
lines_option = click.option("--json", "as_json", is_flag=True, help="Answer in JSON, one object a line.")
jobs_option = click.option("-j", "--jobs", type=click.IntRange(1, 256), default=16, show_default=True, help="At once.")


@click.group(cls=Group)
def blob() -> None:
    """List, copy, show and delete objects.

    An object is LABEL:KEY, with the label of [blob.LABEL], or a URL: s3://BUCKET/KEY, gs://BUCKET/KEY,
    az://CONTAINER/KEY or az://ACCOUNT/CONTAINER/KEY, and PROVIDER://BUCKET/KEY with the label of [providers.PROVIDER].
    Without a shiftable.toml a URL uses the provider's own credentials.
    """


@blob.command()
@remote
@click.option("-r", "-R", "--recursive", is_flag=True, help="All keys, not one level of folders.")
@click.option("-l", "--long", is_flag=True, help="Sizes and times too.")
@click.option("--limit", type=click.IntRange(min=1), help="Stop after so many.")
@glob_option
@lines_option
@pass_context
def ls(
    context: Context, place: Remote, recursive: bool, long: bool, limit: int | None, glob: bool, as_json: bool
) -> None:
    """List objects whose keys begin with KEY, in the order of their keys; of s3:// the buckets."""
    if place.lists_buckets():
        for bucket in place.cloud(context).blob.list(limit=limit):
            _told({"bucket": bucket.name}, bucket.name, as_json=as_json)
        return
    location = place.open(context)
    bucket = location.bucket
    found: Iterable[ObjectSummary | CommonPrefix]
    if glob:
        found = itertools.islice(_matching(location), limit)
    elif recursive:
        found = bucket.list(location.key, limit=limit)
    else:
        found = bucket.list_folder(location.key, limit=limit)
    for item in found:
        if isinstance(item, CommonPrefix):
            _told(
                {"prefix": item.prefix}, f"{'':>12}  {'':20}  {item.prefix}" if long else item.prefix, as_json=as_json
            )
        else:
            line = f"{item.size:>12}  {item.modified:%Y-%m-%dT%H:%M:%SZ}  {item.key}" if long else item.key
            _told(_summary(item), line, as_json=as_json)


def _told(facts: dict[str, Any], text: str, *, as_json: bool) -> None:
    if as_json:
        json_line(facts)
    else:
        say(text)


def _summary(item: ObjectSummary) -> dict[str, Any]:
    about = {"key": item.key, "size": item.size, "modified": item.modified, "token": str(item.token)}
    about |= {"md5": item.md5.hex()} if item.md5 else {}
    return about | ({"storage_class": item.storage_class} if item.storage_class else {})


def _matching(location: Location) -> Iterator[ObjectSummary]:
    folder, pattern = matching(location)
    return (item for item in location.bucket.list(folder) if pattern.fullmatch(item.key))


@blob.command()
@sources
@target_
@click.option("-r", "-R", "--recursive", is_flag=True, help="Folders, with all that is in them.")
@glob_option
@click.option("--if-absent", is_flag=True, help="Only where there is nothing at the target yet.")
@click.option("--content-type", help="The content type of objects made of files.")
@click.option("--retain-until", type=TimeType(), metavar="TIME", help="What is written cannot be deleted before.")
@mode_option
@click.option("--hold", is_flag=True, help="What is written cannot be deleted before `release`.")
@jobs_option
@dry_option
@quiet_option
@lines_option
@pass_context
def cp(
    context: Context,
    sources: tuple[Place, ...],
    target: Place,
    recursive: bool,
    glob: bool,
    if_absent: bool,
    content_type: str | None,
    retain_until: datetime | None,
    mode: RetentionMode,
    hold: bool,
    jobs: int,
    dry_run: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Copy files and objects. One of SOURCE and TARGET at least is an object; - is standard input or output.

    TARGET is a folder if it ends in a slash, is a bucket or an existing folder, and always with -r, --glob or several
    sources. -r copies a folder under its own name, and with a slash at its end what is in it: `cp -r tree assets:x`
    makes x/tree/..., `cp -r tree/ assets:x` makes x/.... Symbolic links are left out.

    A copy is locked only as --retain-until and --hold say, whatever its source is.
    """
    lock = Lock(retention=Retention(until=retain_until, mode=mode) if retain_until else None, hold=hold)
    if lock != Lock() and isinstance(target, Local):
        raise ConfigError("files are not locked: --retain-until and --hold are for objects")
    if isinstance(target, Local) and target.is_standard:
        if as_json or dry_run:
            raise ConfigError("standard output takes the content: --json and --dry-run do not go with it")
        quiet = True
    options = Options(if_absent=if_absent, content_type=content_type, jobs=jobs, dry_run=dry_run, lock=lock)
    report = Report("copy", as_json=as_json, quiet=quiet, dry_run=dry_run)
    _transferred(context, options, report, sources, target, recursive=recursive, glob=glob)


@blob.command()
@sources
@target_
@click.option("-r", "-R", "--recursive", is_flag=True, help="Folders, with all that is in them.")
@glob_option
@click.option("--if-absent", is_flag=True, help="Only where there is nothing at the target yet.")
@jobs_option
@dry_option
@quiet_option
@lines_option
@pass_context
def mv(
    context: Context,
    sources: tuple[Place, ...],
    target: Place,
    recursive: bool,
    glob: bool,
    if_absent: bool,
    jobs: int,
    dry_run: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Copy as `cp` does, compare the copy with the source, and delete the source in the version that was copied.

    What was written again meanwhile stays. Of local folders the files are moved, and the empty folders stay.
    """
    if any(isinstance(place, Local) and place.is_standard for place in (*sources, target)):
        raise ConfigError("standard input and output cannot be moved; use cp")
    options = Options(move=True, if_absent=if_absent, jobs=jobs, dry_run=dry_run)
    report = Report("move", as_json=as_json, quiet=quiet, dry_run=dry_run)
    _transferred(context, options, report, sources, target, recursive=recursive, glob=glob)


def _transferred(
    context: Context,
    options: Options,
    report: Report,
    sources: tuple[Place, ...],
    target: Place,
    *,
    recursive: bool,
    glob: bool,
) -> None:
    with terminable(), report:
        Transfer(options, report).run(pairs(context, sources, target, recursive=recursive, glob=glob))
    report.summary("moved" if options.move else "copied")
    sys.exit(1 if report.failed else 0)


@blob.command()
@remotes
@version_option
@pass_context
def cat(context: Context, places: tuple[Remote, ...], version: str | None) -> None:
    """Write objects to standard output, one after another."""
    for place in _of_version(places, version):
        pour(place.object(context), version=version)


@blob.command()
@remote
@version_option
@json_option
@pass_context
def stat(context: Context, place: Remote, version: str | None, as_json: bool) -> None:
    """Show everything about an object but its content."""
    location = place.object(context)
    info = location.bucket.stat(location.key, version=version)
    about = {"key": info.key, "size": info.size, "modified": info.modified, "token": str(info.token)}
    about |= {name: value for name, value in attrs.asdict(info.headers).items() if value is not None}
    about |= {"metadata": dict(info.metadata), "storage_class": info.storage_class, "version": info.version}
    about |= {"md5": info.md5.hex() if info.md5 else None}
    kept = info.retention
    if as_json:
        lock = {"until": kept.until, "mode": kept.mode} if kept is not None else None
        context.json(about | {"retention": lock, "hold": info.hold})
        return
    about |= {"retention": str(kept) if kept is not None else None, "hold": "yes" if info.hold else None}
    for name, value in about.items():
        if value not in (None, {}):
            say(f"{name}: {fact_text(value)}")


@blob.command()
@remote
@click.option("--limit", type=click.IntRange(min=1), help="Stop after so many.")
@lines_option
@pass_context
def versions(context: Context, place: Remote, limit: int | None, as_json: bool) -> None:
    """List the history of objects whose keys begin with KEY: by key, then newest first.

    What is `deleted` marks that the object was deleted there. Some providers keep no such marks: then a deleted object
    has older versions only.
    """
    location = place.open(context)
    for each in itertools.islice(location.bucket.versions(location.key), limit):
        state = "deleted" if each.deleted else "latest" if each.latest else "older"
        line = f"{each.size:>12}  {each.modified:%Y-%m-%dT%H:%M:%SZ}  {state:7}  {each.version}  {each.key}"
        _told(attrs.asdict(each) | {"token": str(each.token)}, line, as_json=as_json)


@blob.command()
@remote
@click.argument("version")
@json_option
@pass_context
def restore(context: Context, place: Remote, version: str, as_json: bool) -> None:
    """Make an older VERSION of an object, as `versions` lists it, the latest again; also of a deleted one.

    All versions stay, and there is one more.
    """
    location = place.object(context)
    info = location.bucket.restore(location.key, version)
    if as_json:
        context.json({"key": info.key, "size": info.size, "version": info.version, "restored": version})
    else:
        say(f"{location}: version {version} is the latest again, as {info.version}")


@blob.command()
@remotes
@click.option("--until", type=TimeType(), metavar="TIME", help="As 2030-01-01, or with a time; without a zone UTC.")
@click.option("--remove", is_flag=True, help="Take the retention away; only with --bypass.")
@mode_option
@click.option("--bypass", is_flag=True, help="Shorten, change or take away a retention in mode governance.")
@version_option
@quiet_option
@lines_option
@pass_context
def retain(
    context: Context,
    places: tuple[Remote, ...],
    until: datetime | None,
    remove: bool,
    mode: RetentionMode,
    bypass: bool,
    version: str | None,
    quiet: bool,
    as_json: bool,
) -> None:
    """Lock objects against deletion until a time.

    They can be locked longer, and that is all. What is in mode governance can also be shortened, with --bypass, by
    whoever has the permission; what is in mode compliance, by nobody. The bucket must have object_lock.
    """
    if (until is None) != remove:
        raise ConfigError("say --until TIME, or --remove")
    report = Report("retain", as_json=as_json, quiet=quiet)
    each = [place.object(context) for place in _of_version(places, version)]
    _locked(
        each,
        report,
        "retained",
        lambda bucket, key: bucket.retain(key, until, mode=mode, version=version, bypass=bypass),
    )


@blob.command()
@remotes
@version_option
@quiet_option
@lines_option
@pass_context
def hold(context: Context, places: tuple[Remote, ...], version: str | None, quiet: bool, as_json: bool) -> None:
    """Put objects under a legal hold: nobody deletes them before `release`."""
    report = Report("hold", as_json=as_json, quiet=quiet)
    each = [place.object(context) for place in _of_version(places, version)]
    _locked(each, report, "held", lambda bucket, key: bucket.hold(key, version=version))


@blob.command()
@remotes
@version_option
@quiet_option
@lines_option
@pass_context
def release(context: Context, places: tuple[Remote, ...], version: str | None, quiet: bool, as_json: bool) -> None:
    """End legal holds of objects; a retention stays."""
    report = Report("release", as_json=as_json, quiet=quiet)
    each = [place.object(context) for place in _of_version(places, version)]
    _locked(each, report, "released", lambda bucket, key: bucket.release(key, version=version))


def _of_version(places: tuple[Remote, ...], version: str | None) -> tuple[Remote, ...]:
    if version is not None and len(places) > 1:
        raise ConfigError("--version is of one object")
    return places


def _locked(
    locations: list[Location], report: Report, participle: str, change: Callable[[Bucket, str], object]
) -> None:
    """Change the lock of each; a failure is told and does not keep the others from their turn."""
    with report:
        for location in locations:
            error = None
            try:
                change(location.bucket, location.key)
            except OperationError as exc:
                error = exc
            report.ended({"key": location.key}, f"{location}", 0, error)
    report.summary(participle)
    sys.exit(1 if report.failed else 0)


@blob.command()
@remotes
@click.option("-r", "-R", "--recursive", is_flag=True, help="All that is in the folder KEY, or in the bucket.")
@glob_option
@click.option("--versions", "history", is_flag=True, help="With all older versions, for good.")
@version_option
@click.option("--yes", is_flag=True, help="Do not ask.")
@dry_option
@quiet_option
@lines_option
@pass_context
def rm(
    context: Context,
    places: tuple[Remote, ...],
    recursive: bool,
    glob: bool,
    history: bool,
    version: str | None,
    yes: bool,
    dry_run: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Delete objects, with -r folders, with --glob what matches. The last two ask on a terminal, and else need --yes.

    A folder is KEY and a slash: `rm -r assets:log` deletes log/1, and neither log nor logs/1.

    A bucket with versioning keeps what is deleted as older versions. --versions deletes these too and --version one of
    them, which nobody brings back, so they ask as well. `rm -r --versions assets:` leaves nothing.
    """
    if version is not None and (recursive or glob or history):
        raise ConfigError("--version is of one object, and goes without -r, --glob and --versions")
    report = Report("delete", as_json=as_json, quiet=quiet, dry_run=dry_run)
    several = recursive or glob
    locations = [place.open(context) if several else place.object(context) for place in _of_version(places, version)]
    with report:
        for location in locations:
            if not (several or history or version):
                _delete_one(location, report)
                continue
            listed = _lister(location, recursive=recursive, glob=glob, history=history, version=version)
            if dry_run or yes or _confirmed(location, listed):
                _delete_many(location, listed(), report, dry_run=dry_run)
    report.summary("deleted")
    sys.exit(1 if report.failed else 0)


Deleted = ObjectSummary | ObjectVersion


def _lister(
    location: Location, *, recursive: bool, glob: bool, history: bool, version: str | None
) -> Callable[[], Iterator[Deleted]]:
    """Return what lists objects that are to be deleted, or versions of objects."""
    bucket = location.bucket
    if version is not None:
        return lambda: _one(location, lambda each: each.version == version, f"there is no version {version!r} of it")
    if not history:
        return lambda: _matching(location) if glob else bucket.list(location.folder)
    if glob:
        folder, pattern = matching(location)
        return lambda: (each for each in bucket.versions(folder) if pattern.fullmatch(each.key))
    if recursive:
        return lambda: bucket.versions(location.folder)
    return lambda: _one(location, lambda _: True, "there is no such object, nor an older version of one")


def _one(location: Location, wanted: Callable[[ObjectVersion], bool], none: str) -> Iterator[ObjectVersion]:
    """List those of one object's versions that are wanted; none is an error."""
    bucket, key = location.bucket, location.key
    # In the order of a listing the key stands before all that begin with it.
    mine = itertools.takewhile(lambda each: each.key == key, bucket.versions(key))
    found = [each for each in mine if wanted(each)]
    if not found:
        resource = Resource("object", key, bucket.resource)
        raise NotFound(none, provider=bucket.provider, operation="blob.delete", resource=resource)
    yield from found


def _confirmed(location: Location, listed: Callable[[], Iterator[Deleted]]) -> bool:
    """Ask, with the number of objects or versions; nothing there is nothing to ask."""
    count = size = 0
    noun, final = "object", ""
    for item in listed():
        count, size = count + 1, size + item.size
        if isinstance(item, ObjectVersion):
            noun, final = "version", " for good"
    what = f"{counted(count, noun)} ({size_text(size)})"
    if count and not sys.stdin.isatty():
        raise ConfigError(f"{what} would be deleted from {location}{final}; without a terminal, say --yes")
    if count:
        where = f"{location} on {location.bucket.provider.label}"
        click.confirm(shown(f"delete {what} from {where}{final}?"), abort=True, err=True)
    return count > 0


def _delete_one(location: Location, report: Report) -> None:
    bucket, error = location.bucket, None
    try:
        if not bucket.exists(location.key):
            raise NotFound(
                "there is no such object; -r deletes what is in a folder",
                provider=bucket.provider,
                operation="blob.delete",
                resource=Resource("object", location.key, bucket.resource),
            )
        if not report.dry_run:
            bucket.delete(location.key)
    except OperationError as exc:
        error = exc
    report.ended({"key": location.key}, f"{location}", 0, error)


def _delete_many(location: Location, items: Iterator[Deleted], report: Report, *, dry_run: bool) -> None:
    """Delete as the listing comes, at a memory of one batch."""
    while batch := list(itertools.islice(items, _DELETE_AT_ONCE)):
        failed = {} if dry_run else _failures(location.bucket, batch)
        for item in batch:
            version = {"version": item.version} if isinstance(item, ObjectVersion) else {}
            text = f"{location.at(item.key)}{' version ' if version else ''}{version.get('version', '')}"
            report.ended({"key": item.key, **version}, text, item.size, failed.get(item))


def _failures(bucket: Bucket, batch: list[Deleted]) -> dict[Deleted, OperationError]:
    """Delete objects in one call where the provider can, versions each by its own; return those that failed."""
    versions = [item for item in batch if isinstance(item, ObjectVersion)]
    if not versions:
        failed = bucket.delete_many([item.key for item in batch])
        return {item: failed[item.key] for item in batch if item.key in failed}

    done = parallel(lambda item: bucket.delete(item.key, version=item.version), versions, workers=_DELETE_WORKERS)
    failures: dict[Deleted, OperationError] = {}
    for item, ended in done:
        error = ended.exception()
        if isinstance(error, OperationError):
            failures[item] = error
        elif error is not None:
            raise error
    return failures


@blob.command()
@click.argument("source", type=PlaceType(), shell_complete=complete_places)
@target_
@click.option(
    "--delete", is_flag=True, help="Then delete at the target what is not at the source; nothing, if a copy failed."
)
@click.option(
    "--delete-limit",
    type=limit,
    metavar="NUMBER|SHARE%",
    help="With --delete: where it would be more, nothing is deleted.  [default: 30%, ten always]",
)
@click.option("--apply", is_flag=True, help="Do it; without this, only say what would be done.")
@lines_option
@pass_context
def sync(
    context: Context,
    source: Place,
    target: Place,
    delete: bool,
    delete_limit: float | None,
    apply: bool,
    as_json: bool,
) -> None:
    """Make TARGET hold what SOURCE holds: a folder and an object folder, either way, or two of the latter.

    It is always what is in them: a slash at the end makes no difference. Without --apply it says what it would do and
    changes nothing.
    """
    from shiftable.blob import sync as synced

    if isinstance(source, Local) and isinstance(target, Local):
        raise ConfigError(f"one of the two must be objects, LABEL:FOLDER{hint(context, source, target)}")
    if delete_limit is not None and not delete:
        raise ConfigError("--delete-limit goes with --delete")
    most = _DELETED_SHARE if delete_limit is None else delete_limit
    ends = _end(context, source), _end(context, target)
    with terminable(), Report("", as_json=as_json, dry_run=not apply) as report:
        for step in synced(
            *ends,
            delete=delete,
            delete_limit=most,
            dry_run=not apply,
            on_found=lambda step: report.expect(_bytes(step)),
        ):
            report.moved(_bytes(step))
            report.ended({"action": step.action, "name": step.name}, step.name, step.size, step.error)
    done = "done" if apply else "to do; --apply does it"
    if not as_json:
        click.echo(f"{report.done:,} {done} ({size_text(report.size)}), {report.failed:,} failed", err=True)
    sys.exit(1 if report.failed else 0)


def _bytes(step: SyncStep) -> int:
    """Return what goes over the wire."""
    return step.size if step.action == "copy" else 0


def _end(context: Context, place: Place) -> Any:  # noqa: ANN401  what sync takes
    if isinstance(place, Local):
        return place.path
    location = place.open(context)
    return location.bucket, location.folder


@blob.command()
@remote
@click.option("-d", "--depth", type=click.IntRange(min=0), default=1, show_default=True, help="Folders so deep.")
@click.option("--bytes", "exact", is_flag=True, help="Sizes in bytes.")
@json_option
@pass_context
def du(context: Context, place: Remote, depth: int, exact: bool, as_json: bool) -> None:
    """Count objects and bytes in a folder or bucket, by the folders in it, and all together."""
    location = place.open(context)
    rows: list[Usage] = []
    total = Usage(location.folder)
    for usage in _usages(location, depth, total):
        rows.append(usage)
        if not as_json:
            _show_usage(usage, exact=exact)
            rows.clear()
    if as_json:
        context.json({**total.to_json(), "prefixes": [usage.to_json() for usage in rows]})
    else:
        _show_usage(attrs.evolve(total, prefix=str(location.at(location.folder))), exact=exact)


@attrs.define
class Usage:
    """What is below a prefix."""

    prefix: str
    objects: int = 0
    bytes: int = 0

    def add(self, size: int) -> None:
        """Count one object."""
        self.objects += 1
        self.bytes += size

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return attrs.asdict(self)


def _usages(location: Location, depth: int, total: Usage) -> Iterator[Usage]:
    """Yield each folder when it is complete: in the order of a listing its keys stand together."""
    open_: list[Usage] = []
    for item in location.bucket.list(location.folder):
        total.add(item.size)
        while open_ and not item.key.startswith(open_[-1].prefix):
            yield open_.pop()
        folders = item.key[len(location.folder) :].split("/")[:-1][:depth]
        new = range(len(open_) + 1, len(folders) + 1)
        open_ += [Usage(f"{location.folder}{'/'.join(folders[:level])}/") for level in new]
        for usage in open_:
            usage.add(item.size)
    yield from reversed(open_)


def _show_usage(usage: Usage, *, exact: bool) -> None:
    size = str(usage.bytes) if exact else size_text(usage.bytes)
    say(f"{size:>12}  {usage.objects:>10,}  {usage.prefix}")


@blob.command()
@remote
@click.option("--method", type=click.Choice(get_args(Method)), default="GET", show_default=True)
@click.option("--expires", type=AgeType(), default="1h", show_default=True, help="How long it is valid: 15m, 12h, 7d.")
@click.option("--content-type", help="For PUT: the header that the request must then carry.")
@json_option
@pass_context
def sign(
    context: Context, place: Remote, method: Method, expires: timedelta, content_type: str | None, as_json: bool
) -> None:
    """Print a URL that lets whoever has it do one thing with an object for a while."""
    location = place.object(context)
    url = location.bucket.sign(location.key, method=method, expires=expires, content_type=content_type)
    headers: dict[str, str] = dict(getattr(url, "headers", {}))
    if as_json:
        context.json({"url": str(url), "method": method, "expires_in": expires.total_seconds(), "headers": headers})
        return
    click.echo(str(url))
    for name, value in headers.items():
        click.echo(f"the request must carry {name}: {value}", err=True)


@blob.command()
@remote
@click.option("--port", type=click.IntRange(0, 65535), help="0: any that is free. Else the one that the URLs lead to.")
@click.option("--cors", "origins", multiple=True, metavar="ORIGIN", help="Scripts of these pages may use the URLs.")
@lines_option
@pass_context
def serve(context: Context, place: Remote, port: int | None, origins: tuple[str, ...], as_json: bool) -> None:
    """Answer the URLs of `blob sign` on loopback, for files, until Ctrl-C or SIGTERM.

    LABEL is that of a bucket, and PROVIDER:// a provider: all buckets of that provider are served. Only what a URL
    signs is answered. ORIGIN is https://shop.example, or * for all (CORS). To let other machines in, put a proxy with
    TLS before it, and its address into the provider's sign_url.
    """
    with until_told() as wait, place.store(context).serve(port, origins=origins) as server:
        if as_json:
            json_line({"url": server.url})
        else:
            say(f"signed URLs are answered at {server.url}; Ctrl-C ends it")
        sys.stdout.flush()
        wait()


@blob.command()
@remote
@click.option("--older-than", type=AgeType(), default="1d", show_default=True, help="Only what began so long ago.")
@click.option("--apply", is_flag=True, help="Do it; without this, only say what would be dropped.")
@lines_option
@pass_context
def clean(context: Context, place: Remote, older_than: timedelta, apply: bool, as_json: bool) -> None:
    """Drop uploads in parts that were never completed: what killed writers left takes space and money, unseen.

    An upload that is still under way would fail at its end; --older-than keeps it. Without --apply nothing changes.
    """
    location = place.open(context)
    bucket = location.bucket
    found = list(bucket.uploads(location.key, older_than=older_than))
    for upload in found:
        line = f"{upload.started:%Y-%m-%dT%H:%M:%SZ}  {upload.key}"
        _told({"key": upload.key, "id": upload.id, "started": upload.started}, line, as_json=as_json)
    dropped = bucket.abort_uploads(location.key, older_than=older_than) if apply else 0
    if not as_json:
        click.echo(f"{dropped:,} dropped" if apply else f"{len(found):,} to drop; --apply does it", err=True)

"""``blob``: objects, as files on this machine and below the labels of buckets."""

from __future__ import annotations

import re
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any, BinaryIO, cast

import attrs
import click

from shiftable.app import App
from shiftable.blob import Bucket, CommonPrefix, ObjectSummary
from shiftable.cli._context import Context, complete_labels, json_option, pass_context, size_text
from shiftable.errors import ConfigError, NotFound, Resource

__all__ = ["blob"]

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


@attrs.frozen
class Remote:
    """``label:key`` on the command line."""

    label: str
    key: str

    def bucket(self, app: App) -> Bucket:
        """Return the bucket of the label."""
        return app.blob(self.label)

    def __str__(self) -> str:
        return f"{self.label}:{self.key}"


class PlaceType(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.4
    """A file, ``-``, or ``label:key``. A file whose name has a colon is written ``./a:b``."""

    name = "place"

    def convert(self, value: str | Path | Remote, *_: object) -> Path | Remote:
        """Tell files from objects."""
        if not isinstance(value, str):
            return value
        label, colon, key = value.partition(":")
        return Remote(label, key) if colon and "/" not in label and label else Path(value)


class RemoteType(click.ParamType):  # type: ignore[type-arg]  # the same
    """``label`` or ``label:key``."""

    name = "label:key"

    def convert(self, value: str | Remote, *_: object) -> Remote:
        """Split at the first colon."""
        if not isinstance(value, str):
            return value
        label, _colon, key = value.partition(":")
        return Remote(label, key)


class AgeType(click.ParamType):  # type: ignore[type-arg]  # the same
    """A number with a unit: ``90s``, ``15m``, ``12h``, ``1d``, ``4w``."""

    name = "age"

    def convert(self, value: str | timedelta, *where: Any) -> timedelta:  # noqa: ANN401  handed on
        """Read it as the durations in the file are written."""
        if isinstance(value, timedelta):
            return value
        found = re.fullmatch(r"([0-9]{1,6})([smhdw])", value)
        if found is None:
            self.fail(f"{value!r} is no duration such as 90s, 15m, 12h, 1d or 4w", *where)
        return timedelta(**{_UNITS[found[2]]: int(found[1])})


remote = click.argument("place", type=RemoteType(), metavar="LABEL[:KEY]", shell_complete=complete_labels("blob", ":"))


@click.group()
def blob() -> None:
    """List, copy, show and delete objects. An object is LABEL:KEY, with the label of [blob.LABEL]."""


@blob.command()
@remote
@click.option("-r", "--recursive", is_flag=True, help="All keys, not one level of folders.")
@click.option("-l", "--long", is_flag=True, help="Sizes and times too.")
@click.option("--limit", type=click.IntRange(min=1), help="Stop after so many.")
@json_option
@pass_context
def ls(context: Context, place: Remote, recursive: bool, long: bool, limit: int | None, as_json: bool) -> None:
    """List objects, in the order of their keys."""
    bucket = place.bucket(context.app)
    found = bucket.list(place.key, limit=limit) if recursive else bucket.list_folder(place.key, limit=limit)
    for item in found:
        if as_json:
            click.echo(_json_line(item))
        elif isinstance(item, CommonPrefix):
            click.echo(f"{'':>12}  {'':20}  {item.prefix}" if long else item.prefix)
        else:
            click.echo(f"{item.size:>12}  {item.modified:%Y-%m-%dT%H:%M:%SZ}  {item.key}" if long else item.key)


def _json_line(item: ObjectSummary | CommonPrefix) -> str:
    import json

    if isinstance(item, CommonPrefix):
        return json.dumps({"prefix": item.prefix}, ensure_ascii=False)
    about = {"key": item.key, "size": item.size, "modified": item.modified.isoformat(), "token": str(item.token)}
    return json.dumps(about | ({"md5": item.md5.hex()} if item.md5 else {}), ensure_ascii=False)


@blob.command()
@click.argument("source", type=PlaceType())
@click.argument("target", type=PlaceType())
@click.option("--if-absent", is_flag=True, help="Only if there is nothing at the target yet.")
@click.option("--content-type", help="The object's content type.")
@pass_context
def cp(
    context: Context,
    source: Path | Remote,
    target: Path | Remote,
    if_absent: bool,
    content_type: str | None,
) -> None:
    """Copy one file or object. One of SOURCE and TARGET at least is LABEL:KEY; - is standard input or output."""
    app = context.app
    match source, target:
        case Remote(), Remote():
            to = attrs.evolve(target, key=_into(target.key, source.key))
            source.bucket(app).copy(source.key, to.key, to=to.bucket(app), if_absent=if_absent)
        case Path(), Remote():
            to = attrs.evolve(target, key=_into(target.key, source.name))
            body = cast("BinaryIO", sys.stdin.buffer) if str(source) == "-" else source
            to.bucket(app).put(to.key, body, content_type=content_type, if_absent=if_absent)
        case Remote(), Path():
            _download(source, target, app, if_absent=if_absent)
            return
        case _:
            raise ConfigError("one of the two must be an object, LABEL:KEY")
    click.echo(f"{source} → {to}", err=True)


def _into(key: str, name: str) -> str:
    """A target that is empty or ends in ``/`` is a folder."""
    return key + name.rpartition("/")[2] if not key or key.endswith("/") else key


def _download(source: Remote, target: Path, app: App, *, if_absent: bool) -> None:
    bucket = source.bucket(app)
    if str(target) == "-":
        _pour(bucket, source.key)
        return
    path = target / _into("", source.key) if target.is_dir() else target
    if if_absent and path.exists():
        raise ConfigError(f"{path} exists already")
    bucket.download(source.key, path)
    click.echo(f"{source} → {path}", err=True)


def _pour(bucket: Bucket, key: str) -> None:
    with bucket.stream(key) as stream:
        for chunk in stream:
            sys.stdout.buffer.write(chunk)
    sys.stdout.buffer.flush()


@blob.command()
@remote
@pass_context
def cat(context: Context, place: Remote) -> None:
    """Write an object to standard output."""
    _pour(place.bucket(context.app), place.key)


@blob.command()
@remote
@json_option
@pass_context
def stat(context: Context, place: Remote, as_json: bool) -> None:
    """Show everything about an object but its content."""
    info = place.bucket(context.app).stat(place.key)
    about = {"key": info.key, "size": info.size, "modified": info.modified, "token": str(info.token)}
    about |= {name: value for name, value in attrs.asdict(info.headers).items() if value is not None}
    about |= {"metadata": dict(info.metadata), "storage_class": info.storage_class, "version": info.version}
    about |= {"md5": info.md5.hex() if info.md5 else None}
    if as_json:
        context.json(about)
    else:
        for name, value in about.items():
            if value not in (None, {}):
                click.echo(f"{name}: {value}")


@blob.command()
@remote
@click.option("-r", "--recursive", is_flag=True, help="All objects whose keys begin with KEY.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@pass_context
def rm(context: Context, place: Remote, recursive: bool, yes: bool) -> None:
    """Delete an object, or with -r all below a prefix."""
    bucket = place.bucket(context.app)
    if not recursive:
        if not bucket.exists(place.key):
            raise NotFound(
                "there is no such object; -r deletes what is below a folder",
                provider=bucket.provider,
                operation="blob.delete",
                resource=Resource("object", place.key, bucket.resource),
            )
        bucket.delete(place.key)
        click.echo(f"{place}: deleted", err=True)
        return
    keys = [item.key for item in bucket.list(place.key)]
    if keys and not yes:
        if not sys.stdin.isatty():
            raise ConfigError(f"{len(keys):,} objects would be deleted; without a terminal, say --yes")
        click.confirm(f"delete {len(keys):,} objects below {place} on {bucket.provider}?", abort=True)
    failed = bucket.delete_many(keys)
    for key, error in sorted(failed.items()):
        click.echo(f"error: {key}: {error}", err=True)
    click.echo(f"{len(keys) - len(failed):,} deleted, {len(failed):,} failed", err=True)
    sys.exit(1 if failed else 0)


@blob.command()
@click.argument("source", type=PlaceType())
@click.argument("target", type=PlaceType())
@click.option("--delete", is_flag=True, help="Delete at the target what is not at the source.")
@click.option("--apply", is_flag=True, help="Do it; without this, only say what would be done.")
@pass_context
def sync(context: Context, source: Path | Remote, target: Path | Remote, delete: bool, apply: bool) -> None:
    """Make TARGET hold what SOURCE holds: a folder and LABEL:PREFIX, either way, or two prefixes.

    Without --apply it says what it would do and changes nothing.
    """
    from shiftable.blob import sync as synced

    ends = [end if isinstance(end, Path) else (end.bucket(context.app), end.key) for end in (source, target)]
    failed = copied = size = 0
    for step in synced(ends[0], ends[1], delete=delete, dry_run=not apply):
        if step.error is not None:
            failed += 1
            click.echo(f"error: {step.name}: {step.error}", err=True)
        else:
            copied, size = copied + 1, size + step.size
            click.echo(f"{step.action} {step.name}")
    done = "done" if apply else "to do; --apply does it"
    click.echo(f"{copied:,} {done} ({size_text(size)}), {failed:,} failed", err=True)
    sys.exit(1 if failed else 0)


@blob.command()
@remote
@click.option("--older-than", type=AgeType(), default="1d", show_default=True, help="Only what began so long ago.")
@click.option("--apply", is_flag=True, help="Do it; without this, only say what would be dropped.")
@pass_context
def clean(context: Context, place: Remote, older_than: timedelta, apply: bool) -> None:
    """Drop uploads in parts that were never completed: what killed writers left takes space and money, unseen.

    An upload that is still under way would fail at its end; --older-than keeps it. Without --apply nothing changes.
    """
    bucket = place.bucket(context.app)
    found = list(bucket.uploads(place.key, older_than=older_than))
    for upload in found:
        click.echo(f"{upload.started:%Y-%m-%dT%H:%M:%SZ}  {upload.key}")
    if apply:
        click.echo(f"{bucket.abort_uploads(place.key, older_than=older_than):,} dropped", err=True)
    else:
        click.echo(f"{len(found):,} to drop; --apply does it", err=True)

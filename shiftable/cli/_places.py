"""Where objects are, as people write it: ``assets:path``, ``s3://bucket/key``, a file, ``-``."""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import click
from click.shell_completion import CompletionItem

from shiftable.app import App
from shiftable.blob import BlobStore, Bucket, CommonPrefix
from shiftable.cli._context import Context, complete_labels
from shiftable.errors import ConfigError, ShiftableError

if TYPE_CHECKING:
    from shiftable.cloud import Cloud

__all__ = ["Local", "Location", "Place", "PlaceType", "Remote", "RemoteType", "complete_places", "matching"]

SCHEMES = {"s3": "aws", "gs": "gcp", "az": "azure"}
"""URL schemes that everybody knows, and whose they are."""

_COMPLETIONS = 100


@attrs.frozen
class Remote:
    """A place in a bucket, as it was written."""

    text: str

    def open(self, context: Context) -> Location:
        """Find the bucket. Calls nobody."""
        if self.is_url:
            scheme, _, rest = self.text.partition("://")
            return _opened(context, scheme, rest)
        label, _colon, key = self.text.partition(":")
        return Location(context.app.blob(label), f"{label}:", key)

    @property
    def is_url(self) -> bool:
        """Whether it names a provider and not a label: a key below a label may have a URL in it."""
        return "://" in self.text and self.text.find(":") == self.text.find("://")

    def object(self, context: Context) -> Location:
        """Find the bucket, as ``open`` does, of what has to be an object."""
        location = self.open(context)
        if not location.key:
            raise ConfigError(f"{self.text} names a bucket; an object in it is written {location.base}KEY")
        return location

    def lists_buckets(self) -> bool:
        """Tell whether it names a provider only: ``s3://``."""
        return self.is_url and self.text.endswith("://")

    def cloud(self, context: Context) -> Cloud:
        """Return the provider of ``s3://``."""
        return _cloud(context, self.text.removesuffix("://"), None)[0]

    def store(self, context: Context) -> BlobStore:
        """Return the blob storage that the bucket, or the provider that is named, belongs to."""
        label = self.text.partition(":")[0]
        if self.is_url:
            return _cloud(context, label, None)[0].blob
        app = context.app
        app.blob(label)  # which says what there is, if there is no such label
        return app.cloud(app.provider_of(app.config.resources[f"blob.{label}"])).blob

    def __str__(self) -> str:
        return self.text


@attrs.frozen
class Location:
    """A key, or what keys begin with, in a bucket.

    Args:
        base: what stands before a key: ``assets:``, ``s3://bucket/``.
    """

    bucket: Bucket
    base: str
    key: str

    @property
    def folder(self) -> str:
        """What the keys of the folder begin with; a slash at its end makes no difference."""
        return self.key if not self.key or self.key.endswith("/") else f"{self.key}/"

    def at(self, key: str) -> Location:
        """Return another key of the same bucket."""
        return attrs.evolve(self, key=key)

    def __str__(self) -> str:
        return f"{self.base}{self.key}"


@attrs.frozen
class Local:
    """A file or folder of this machine, or standard input or output, as it was written."""

    text: str

    @property
    def path(self) -> Path:
        """The path."""
        return Path(self.text)

    @property
    def is_standard(self) -> bool:
        """Whether it is standard input or output."""
        return self.text == "-"

    @property
    def is_folder(self) -> bool:
        """Whether it is a folder that is there, or was written as one."""
        return self.text.endswith("/") or self.path.is_dir()

    @property
    def names_content(self) -> bool:
        """Whether what is in the folder is meant, not the folder: ``tree/``, ``.``, ``..``."""
        return self.text.endswith("/") or self.path.name in {"", ".."}

    def __str__(self) -> str:
        return self.text


Place = Local | Remote


class PlaceType(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.4
    """A file, ``-``, ``label:key`` or a URL. A file whose name has a colon is written ``./a:b``."""

    name = "place"

    def convert(self, value: str | Place, *_: object) -> Place:
        """Tell files from objects."""
        if not isinstance(value, str):
            return value
        label, colon, _key = value.partition(":")
        return Remote(value) if colon and label and "/" not in label else Local(value)


class RemoteType(click.ParamType):  # type: ignore[type-arg]  # the same
    """``label``, ``label:key`` or a URL."""

    name = "label:key"

    def convert(self, value: str | Remote, *_: object) -> Remote:
        """Take it as it is; a label alone is its whole bucket."""
        return Remote(value) if isinstance(value, str) else value


def _opened(context: Context, scheme: str, rest: str) -> Location:
    if not rest:
        raise ConfigError(f"{scheme}:// names no bucket")
    cloud, base, rest = _account(context, scheme, rest) if scheme == "az" else (None, f"{scheme}://", rest)
    bucket, _slash, key = rest.partition("/")
    if not bucket and scheme == "az":
        raise ConfigError(f"{base} is an account and names no container: az://ACCOUNT/CONTAINER/KEY")
    if not bucket:
        raise ConfigError(f"{base} names no bucket")
    found = cloud or _cloud(context, scheme, None)[0]
    return Location(found.blob.bucket(bucket), f"{base}{bucket}/", key)


def _account(context: Context, scheme: str, rest: str) -> tuple[Cloud, str, str]:
    """Tell ``az://account/container/key`` from ``az://container/key``.

    The first name is an account if it has the account's domain (containers have no dots), if it is the account that is
    configured, or if none is.
    """
    first, _slash, after = rest.partition("/")
    name = first.partition(".")[0]
    app = context.app_if_any
    known = _known_account(app) if app is not None else os.environ.get("AZURE_STORAGE_ACCOUNT")
    if "." in first or name == known:
        return _cloud(context, scheme, None if name == known else name)[0], f"az://{first}/", after
    if known is not None:
        return _cloud(context, scheme, known if app is None else None)[0], "az://", rest
    return _cloud(context, scheme, name)[0], f"az://{first}/", after


def _known_account(app: App) -> str | None:
    """Return the storage account of the configured provider; empty if it is within a URL or a connection string."""
    label = _label(app, "az")
    if label is None:
        return os.environ.get("AZURE_STORAGE_ACCOUNT")
    settings = app.config.providers.get(label, {})
    account = settings.get("storage_account")
    if isinstance(account, str):
        return account
    return "" if {"endpoint", "connection_string"} & settings.keys() else None


def _cloud(context: Context, scheme: str, account: str | None) -> tuple[Cloud, str]:
    """Return the provider of a scheme: the application's own, or one with its own chain of credentials."""
    app = context.app_if_any
    label = _label(app, scheme) if app is not None else None
    if app is not None and label is not None and account is None:
        return app.cloud(label), label
    if scheme not in SCHEMES:
        raise ConfigError(_unknown(app, scheme))
    settings = {"storage_account": account or os.environ.get("AZURE_STORAGE_ACCOUNT")} if scheme == "az" else {}
    return context.connected(SCHEMES[scheme], **settings), SCHEMES[scheme]


def _label(app: App, scheme: str) -> str | None:
    """Return the label of the provider that a URL means; ``None`` if the file has none of that type."""
    if scheme in app.config.providers:
        return scheme
    type_ = SCHEMES.get(scheme)
    if type_ is None:
        return None
    own = app.config.environments[app.environment].provider
    labels = [label for label in app.config.providers if app.config.provider_type(label) == type_]
    if own in labels or not labels:
        return own if own in labels else None
    if len(labels) > 1:
        choices = ", ".join(f"{label}://" for label in labels)
        raise ConfigError(f"{scheme}:// is not clear, as there are several providers of type {type_}: write {choices}")
    return labels[0]


def _unknown(app: App | None, scheme: str) -> str:
    known = [f"{each}://" for each in (*SCHEMES, *(app.config.providers if app is not None else ()))]
    return f"unknown URL {scheme}://; there is {', '.join(known)}, LABEL: of a declared bucket, and paths"


# patterns


def matching(location: Location) -> tuple[str, re.Pattern[str]]:
    """Return the folder that a pattern of keys begins with, and what finds the keys.

    ``*`` and ``?`` stop at slashes, ``**`` does not, ``[a-z]`` is one of several characters.
    """
    pattern = location.key
    first = min((at for at in (pattern.find(c) for c in "*?[") if at >= 0), default=len(pattern))
    return pattern[: pattern.rfind("/", 0, first) + 1], re.compile(_expression(pattern), re.DOTALL)


def _expression(pattern: str) -> str:
    parts = re.split(r"(\*\*|\*|\?|\[[^\]]+\])", pattern)
    return "".join(_PARTS.get(part) or (_choice(part) if _is_choice(part) else re.escape(part)) for part in parts)


_PARTS = {"**": ".*", "*": "[^/]*", "?": "[^/]"}


def _is_choice(part: str) -> bool:
    return len(part) > 2 and part.startswith("[") and part.endswith("]")


def _choice(part: str) -> str:
    found = re.fullmatch(r"\(\?s:(.*)\)\\Z", fnmatch.translate(part))
    return found[1] if found else re.escape(part)


# completion


def complete_places(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    """Complete labels, behind a label the keys, one folder at a time, and files where one may stand.

    Whatever fails completes nothing.
    """
    options = context.find_root().params
    found: list[CompletionItem[str]] = []
    if ":" not in incomplete:
        found += map(CompletionItem, complete_labels("blob", ":")(context, parameter, incomplete))
        if isinstance(parameter.type, PlaceType):
            found.append(CompletionItem(incomplete, type="file"))
        return found
    with Context(options.get("file"), options.get("environment")) as here:
        try:
            found += (CompletionItem(text) for text in _completed(here, incomplete))
        except (ShiftableError, ImportError):
            found.clear()
    return found


def _completed(context: Context, incomplete: str) -> Iterator[str]:
    location = Remote(incomplete).open(context)
    for item in location.bucket.list_folder(location.key, limit=_COMPLETIONS):
        key = item.prefix if isinstance(item, CommonPrefix) else item.key
        if key.isprintable():  # a shell cannot be handed the others safely
            yield str(location.at(key))

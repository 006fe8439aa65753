"""``run``: a command, with the declared resources in its environment, and secrets there or in files in memory."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal, NoReturn, Self, cast

import attrs
import click

from shiftable.app import ENVIRONMENT_VARIABLE, App
from shiftable.cli._child import Child, Command, Reaction, found, reaction_of, replaced
from shiftable.cli._context import Context, pass_context
from shiftable.cli._handing import Folder, Numbers
from shiftable.cli._units import duration
from shiftable.errors import ConfigError, NotFound
from shiftable.masking import Masked
from shiftable.secrets import Redactor, Secret, SecretsSpec, SecretWatch

__all__ = ["run"]


@attrs.frozen
class Wanted:
    """A secret that the command shall have: as a variable, or in a file whose path the variable is."""

    variable: str
    label: str
    key: str
    place: Literal["variable", "file"]
    origin: str


def _read_duration(_context: click.Context, _parameter: click.Parameter, text: str) -> timedelta:
    return duration(text)


def _duration_option(name: str, default: str, about: str) -> Callable[[Any], Any]:
    return click.option(name, default=default, show_default=True, metavar="TIME", callback=_read_duration, help=about)


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@click.option("--override", is_flag=True, help="Replace variables that are set already.")
@click.option("--secret", "secrets_", multiple=True, metavar="NAME=LABEL/KEY", help="A secret as the variable NAME.")
@click.option(
    "--file", "files", multiple=True, metavar="NAME=LABEL/KEY", help="A secret as a file; NAME is its path. Repeatable."
)
@click.option(
    "--files-in",
    type=click.Path(path_type=Path, file_okay=False),
    help="Make the files below this folder, which must be in memory (tmpfs); else they are open ones, /dev/fd/N.",
)
@click.option("--watch", metavar="ACTION", help="When a secret changes: restart, signal[=HUP] or command=COMMAND.")
@_duration_option("--every", "30s", "With --watch: how often secrets are read.")
@_duration_option("--splay", "5s", "With --watch: act up to so much later, by chance, not on all machines at once.")
@_duration_option("--grace", "10s", "With --watch restart: time to end after SIGTERM, before SIGKILL.")
@click.option("--mask", is_flag=True, help="Mask the secrets in what the command writes to standard output and error.")
@pass_context
def run(
    context: Context,
    command: tuple[str, ...],
    override: bool,
    secrets_: tuple[str, ...],
    files: tuple[str, ...],
    files_in: Path | None,
    watch: str | None,
    every: timedelta,
    splay: timedelta,
    grace: timedelta,
    mask: bool,
) -> None:
    """Run COMMAND with the declared resources as environment variables.

    \b
    SHIFTABLE_ENV            the environment
    BLOB_ASSETS_BUCKET       the name of each declared resource: SERVICE_LABEL_KEY
    BLOB_ASSETS_PROVIDER     and the type of its provider
    STRIPE_KEY               each secret that [secrets.x] maps with env = { STRIPE_KEY = "stripe/key" },
                             or --secret STRIPE_KEY=app/stripe/key
    TLS_KEY                  the path of a file in memory, with --file TLS_KEY=app/tls/key

    COMMAND gets the terminal, signals and standard input as if it ran alone, and its exit code is that of `run`: 127
    where there is no such command, 126 where it cannot be run, 128 + N where signal N ended it.
    """  # noqa: D301  click's mark for text that keeps its lines
    found_command = found(command)
    reaction = None
    if watch is not None:
        reaction = reaction_of(watch, splay=splay.total_seconds(), grace=grace.total_seconds())
    app = context.app
    plain = resources(app)
    wanted = [*declared_secrets(app), *_options(secrets_, "variable"), *_options(files, "file")]
    _refuse_collisions(plain, wanted)
    if reaction is not None and not wanted:
        raise ConfigError(
            "there is no secret to watch; map one with env or files in [secrets.LABEL], --secret or --file"
        )
    if not override:
        taken = sorted(
            name
            for name in {*plain, *(each.variable for each in wanted)}
            if name in os.environ and name != ENVIRONMENT_VARIABLE
        )
        if taken:
            raise ConfigError(f"set already: {', '.join(taken)}; unset them, or say --override")
    for label in dict.fromkeys(each.label for each in wanted):
        app.secrets(label)  # one that is not declared is refused before any is read
    if reaction is None and not mask and files_in is None:
        handed = Handed(plain, wanted, read(app, wanted))
        context.__exit__()
        sys.stdout.flush()
        replaced(found_command, handed.environment)
    with Child.quiet(), Handed(plain, wanted, read(app, wanted), files_in=files_in, reaction=reaction) as handed:
        if reaction is None:
            context.__exit__()
        code = _supervised(app, found_command, handed, reaction, every, mask=mask)
    sys.exit(code)


def _supervised(
    app: App, command: Command, handed: Handed, reaction: Reaction | None, every: timedelta, *, mask: bool
) -> int:
    redactor = Redactor() if mask else None
    if redactor is not None:
        for secret in handed.secrets.values():
            redactor.add(secret)
    child = Child(command, lambda: handed.environment, reaction=reaction, prepare=handed.prepare, redactor=redactor)

    def changed(label: str, secret: Secret) -> None:
        if redactor is not None:
            redactor.add(secret)
        handed.take(label, secret)
        child.changed()

    with contextlib.ExitStack() as stack:
        if reaction is not None:
            for watch, label in handed.watches(app, every):
                watch.start(functools.partial(changed, label))
                stack.callback(watch.stop)
        return child.run()


class Handed:
    """What the command gets, as it is now: variables, and files in memory."""

    def __init__(
        self,
        plain: Mapping[str, str],
        wanted: Sequence[Wanted],
        secrets: Mapping[tuple[str, str], Secret],
        *,
        files_in: Path | None = None,
        reaction: Reaction | None = None,
    ) -> None:
        self._plain = plain
        self._wanted = wanted
        self._lock = threading.Lock()
        self.secrets = dict(secrets)
        self._folder: Folder | None = None
        self._numbers: Numbers | None = None
        values = self._files()
        if values and (files_in is not None or (reaction is not None and reaction.what is not None)):
            self._folder = Folder(values, files_in)
        elif values:
            self._numbers = Numbers(values)
        self.environment: Mapping[str, str] = {}
        try:
            self.environment = self._made()
        except BaseException:
            self.close()
            raise

    def take(self, label: str, secret: Secret) -> None:
        """Keep a new version, for ``prepare``. From any thread."""
        with self._lock:
            self.secrets[label, secret.name] = secret

    def prepare(self) -> None:
        """Make variables and files of the values that there are now."""
        if self._folder is not None:
            self._folder.write(self._files())
        if self._numbers is not None:
            old, self._numbers = self._numbers, Numbers(self._files())
            old.close()
        self.environment = self._made()

    def watches(self, app: App, every: timedelta) -> Iterator[tuple[SecretWatch, str]]:
        """Return what sees new versions, for each label one."""
        for label in dict.fromkeys(each.label for each in self._wanted):
            known = [secret for (of, _), secret in self.secrets.items() if of == label]
            first, *more = (secret.name for secret in known)
            yield app.secrets(label).watch(first, *more, every=every, since=known), label

    def close(self) -> None:
        """Remove the files."""
        if self._folder is not None:
            self._folder.close()
        if self._numbers is not None:
            self._numbers.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _value(self, wanted: Wanted) -> Masked:
        with self._lock:
            return self.secrets[wanted.label, wanted.key].value

    def _files(self) -> dict[str, Masked]:
        return {each.variable: self._value(each) for each in self._wanted if each.place == "file"}

    def _made(self) -> dict[str, str]:
        paths = (self._folder or self._numbers or _NONE).paths
        revealed = {each.variable: _text(each, self._value(each)) for each in self._wanted if each.place == "variable"}
        return {**os.environ, **self._plain, **paths, **revealed}


class _Nowhere:
    """No files."""

    paths: Mapping[str, str] = {}


_NONE = _Nowhere()


def _text(wanted: Wanted, value: Masked) -> str:
    try:
        text = value.reveal()
    except ValueError:
        text = "\0"
    if "\0" in text:
        raise ConfigError(
            f"the secret for {wanted.variable} is binary, which an environment variable cannot hold; "
            f"hand it over as a file, with --file {wanted.variable}={wanted.label}/{wanted.key}"
        )
    return text


# what the command shall have


def resources(app: App) -> dict[str, str]:
    """Return the variables of all declared resources, their secrets left out.

    Raises:
        ConfigError: two of them have the same name.
    """
    variables = {ENVIRONMENT_VARIABLE: app.environment}
    origins = {ENVIRONMENT_VARIABLE: "the environment"}
    for declared in app.declared():
        prefix, place = variable(declared.service, declared.label), f"[{declared.address}]"
        for name, value in (
            (f"{prefix}_{variable(declared.spec.name_key)}", declared.spec.name),
            (f"{prefix}_PROVIDER", app.config.provider_type(app.provider_of(declared))),
        ):
            if name in origins:
                _collide(name, origins[name], place)
            variables[name], origins[name] = value, place
    return variables


def declared_secrets(app: App) -> Iterator[Wanted]:
    """Yield what ``[secrets.x]`` maps."""
    for declared in app.declared("secrets"):
        spec = cast("SecretsSpec", declared.spec)
        for name, key in spec.env.items():
            yield Wanted(name, declared.label, key, "variable", f"[{declared.address}] env")
        for name, key in spec.files.items():
            yield Wanted(name, declared.label, key, "file", f"[{declared.address}] files")


def _options(given: Iterable[str], place: Literal["variable", "file"]) -> Iterator[Wanted]:
    option = "--secret" if place == "variable" else "--file"
    for text in given:
        name, equals, address = text.partition("=")
        label, slash, key = address.partition("/")
        if not (name and equals and label and slash and key):
            raise ConfigError(f"{option} {text}: say NAME=LABEL/KEY, where LABEL is that of [secrets.LABEL]")
        yield Wanted(name, label, key, place, f"{option} {name}")


def _refuse_collisions(plain: Mapping[str, str], wanted: Iterable[Wanted]) -> None:
    """Refuse names that two things would have, or that nothing can have."""
    origins = dict.fromkeys(plain, "a declared resource")
    for each in wanted:
        if not each.variable or "=" in each.variable or "\0" in each.variable:
            raise ConfigError(f"{each.origin}: {each.variable!r} cannot be the name of an environment variable")
        if each.place == "file" and not re.fullmatch(r"\w+", each.variable, re.ASCII):
            raise ConfigError(f"{each.origin}: {each.variable!r} cannot be the name of a file; use A-Z, 0-9 and _")
        if each.variable in origins:
            _collide(each.variable, origins[each.variable], each.origin)
        origins[each.variable] = each.origin


def _collide(name: str, first: str, second: str) -> NoReturn:
    raise ConfigError(f"{first} and {second} both give the variable {name}; rename one")


def read(app: App, wanted: Sequence[Wanted]) -> dict[tuple[str, str], Secret]:
    """Read all secrets.

    Raises:
        NotFound: names all that are missing, not only the first.
    """
    secrets: dict[tuple[str, str], Secret] = {}
    missing: list[str] = []
    for label, key in dict.fromkeys((each.label, each.key) for each in wanted):
        try:
            secrets[label, key] = app.secrets(label).get(key)
        except NotFound:
            names = ", ".join(each.variable for each in wanted if (each.label, each.key) == (label, key))
            missing.append(f"{label}/{key} (for {names})")
    if missing:
        raise NotFound(f"these secrets do not exist: {', '.join(missing)}", operation="run")
    return secrets


def variable(*words: str) -> str:
    """Make the name of a variable: ``BLOB_ASSETS``."""
    return "_".join(re.sub(r"[^A-Za-z0-9]", "_", word).upper() for word in words)

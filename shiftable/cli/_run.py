"""``run``: a command, with the declared resources in its environment."""

from __future__ import annotations

import os
import re
import shutil
import sys

import click

from shiftable.app import ENVIRONMENT_VARIABLE, App
from shiftable.cli._context import Context, pass_context
from shiftable.errors import ConfigError
from shiftable.masking import Masked

__all__ = ["run"]


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@click.option("--override", is_flag=True, help="Replace variables that are set already.")
@pass_context
def run(context: Context, command: tuple[str, ...], override: bool) -> None:
    """Run COMMAND with the declared resources as environment variables.

    \b
    SHIFTABLE_ENV            the environment
    BLOB_ASSETS_BUCKET       the name of each declared resource: SERVICE_LABEL_KEY
    BLOB_ASSETS_PROVIDER     and the type of its provider
    STRIPE_KEY               each secret that [secrets.x] maps with env = { STRIPE_KEY = "stripe/key" }
    """  # noqa: D301  click's mark for text that keeps its lines
    variables = environment(context.app)
    if not override:
        taken = sorted(name for name in variables if name in os.environ and name != ENVIRONMENT_VARIABLE)
        if taken:
            raise ConfigError(f"set already: {', '.join(taken)}; unset them, or say --override")
    program = shutil.which(command[0])
    if program is None:
        raise ConfigError(f"there is no command {command[0]!r}")
    context.__exit__()
    sys.stdout.flush()
    revealed = {name: _text(name, value) if isinstance(value, Masked) else value for name, value in variables.items()}
    try:
        os.execve(program, list(command), os.environ | revealed)  # noqa: S606  the user's own command, no shell
    except OSError as exc:
        raise ConfigError(f"cannot run {program}: {exc.strerror}") from exc


def _text(name: str, value: Masked) -> str:
    try:
        text = value.reveal()
    except ValueError:
        text = "\0"
    if "\0" in text:
        raise ConfigError(f"the secret for {name} is binary, which an environment variable cannot hold")
    return text


def environment(app: App) -> dict[str, str | Masked]:
    """Return the variables of all declared resources.

    Raises:
        ConfigError: two of them have the same name.
    """
    variables: dict[str, str | Masked] = {ENVIRONMENT_VARIABLE: app.environment}
    origins = {ENVIRONMENT_VARIABLE: "the environment"}

    def add(name: str, value: str | Masked, origin: str) -> None:
        if not name or "=" in name or "\0" in name:
            raise ConfigError(f"{origin}: {name!r} cannot be the name of an environment variable")
        if name in origins:
            raise ConfigError(f"{origins[name]} and {origin} both give the variable {name}; rename one")
        variables[name], origins[name] = value, origin

    for declared in app.declared():
        prefix, place = variable(declared.service, declared.label), f"[{declared.address}]"
        add(f"{prefix}_{variable(declared.spec.name_key)}", declared.spec.name, place)
        add(f"{prefix}_PROVIDER", app.config.provider_type(app.provider_of(declared)), place)
    for declared in app.declared("secrets"):
        wanted = getattr(declared.spec, "env", {})
        for name, value in (app.secrets(declared.label).environment(wanted) if wanted else {}).items():
            add(name, value, f"[{declared.address}] env")
    return variables


def variable(*words: str) -> str:
    """Make the name of a variable: ``BLOB_ASSETS``."""
    return "_".join(re.sub(r"[^A-Za-z0-9]", "_", word).upper() for word in words)

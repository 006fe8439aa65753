"""``secrets``: values come from standard input or a prompt, and are shown only when that is asked for."""

from __future__ import annotations

import base64
import sys
from datetime import timedelta

import click

from shiftable.cli._context import Context, complete_labels, json_option, pass_context
from shiftable.errors import ConfigError, NotFound
from shiftable.masking import Masked
from shiftable.secrets import Secret, SecretStore

__all__ = ["secrets"]

label = click.argument("label", shell_complete=complete_labels("secrets"))


@click.group()
def secrets() -> None:
    """Set, get, list and delete secrets. LABEL is that of [secrets.LABEL]."""


@secrets.command("set")
@label
@click.argument("key")
@click.option("--if-absent", is_flag=True, help="Only if there is no such secret.")
@click.option("--pending", is_flag=True, help="Store it beside the current value; `promote` makes it current.")
@click.option("--binary", is_flag=True, help="Standard input is bytes, not text; its last newline counts.")
@pass_context
def set_(context: Context, label: str, key: str, if_absent: bool, pending: bool, binary: bool) -> None:
    """Store a value from standard input, or from a prompt on a terminal. Never from the command line."""
    store = context.app.secrets(label)
    value = _read(binary=binary)
    secret = store.put(key, value, stage="pending" if pending else "current", if_absent=if_absent)
    click.echo(f"{label}/{key}: version {secret.version} is {'pending' if pending else 'current'}")


def _read(*, binary: bool) -> Masked:
    if sys.stdin.isatty():
        return Masked(click.prompt("value", hide_input=True, confirmation_prompt=True))
    given = sys.stdin.buffer.read()
    if binary:
        return Masked(given)
    try:
        return Masked(given.decode().removesuffix("\n"))
    except UnicodeDecodeError:
        raise ConfigError("standard input is not UTF-8 text; say --binary") from None


@secrets.command()
@label
@click.argument("key")
@click.option("--reveal", is_flag=True, help="Print the value; without this, everything but it.")
@click.option("--stage", type=click.Choice(["current", "previous", "pending"]), default="current", show_default=True)
@click.option("--version", help="This version instead of a stage.")
@json_option
@pass_context
def get(
    context: Context,
    label: str,
    key: str,
    reveal: bool,
    stage: str,
    version: str | None,
    as_json: bool,
) -> None:
    """Show a secret; its value only with --reveal."""
    store = context.app.secrets(label)
    secret = store.get(key, version=version) if version else store.get(key, stage=stage)  # type: ignore[arg-type]  # a choice
    if reveal and not as_json:
        sys.stdout.buffer.write(secret.reveal_bytes())
        if sys.stdout.isatty():
            sys.stdout.buffer.write(b"\n")
        return
    about = {
        "key": key,
        "version": secret.version,
        "stages": sorted(secret.stages),
        "created": secret.created,
        "expires": secret.expires,
        "labels": dict(secret.labels),
    }
    if as_json:
        context.json(about | (_revealed(secret) if reveal else {}))
        return
    for name, value in about.items():
        click.echo(f"{name}: {', '.join(value) if isinstance(value, list) else value or '-'}")
    click.echo("value: *** (--reveal shows it)")


def _revealed(secret: Secret) -> dict[str, str]:
    """Return the value as JSON can hold it."""
    try:
        return {"value": secret.reveal()}
    except ValueError:
        return {"value_base64": base64.b64encode(secret.reveal_bytes()).decode()}


@secrets.command("list")
@label
@click.argument("prefix", default="")
@click.option("--deleted", is_flag=True, help="The ones that can still be restored.")
@json_option
@pass_context
def list_(context: Context, label: str, prefix: str, deleted: bool, as_json: bool) -> None:
    """List the secrets, without their values."""
    store = context.app.secrets(label)
    found = sorted(store.list(prefix, deleted=deleted), key=lambda info: info.name)
    rows = [(info.name, info.modified, info.expires, dict(info.labels)) for info in found]
    if as_json:
        context.json([dict(zip(("key", "modified", "expires", "labels"), row, strict=True)) for row in rows])
        return
    context.table(
        ("key", "modified", "expires", "labels"),
        [(key, _when(m), _when(e), " ".join(f"{n}={v}" for n, v in labels.items())) for key, m, e, labels in rows],
    )


@secrets.command()
@label
@click.argument("key")
@json_option
@pass_context
def history(context: Context, label: str, key: str, as_json: bool) -> None:
    """List the versions of a secret, newest first."""
    found = list(context.app.secrets(label).history(key))
    rows = [(each.version, sorted(each.stages), each.created, each.enabled) for each in found]
    if as_json:
        context.json([dict(zip(("version", "stages", "created", "enabled"), row, strict=True)) for row in rows])
        return
    context.table(
        ("version", "stages", "created", "state"),
        [(v, ", ".join(stages), _when(c), "" if enabled else "disabled") for v, stages, c, enabled in rows],
    )


@secrets.command()
@label
@click.argument("key")
@click.argument("version")
@pass_context
def promote(context: Context, label: str, key: str, version: str) -> None:
    """Make a version current; the one before it becomes previous."""
    context.app.secrets(label).promote(key, version)
    click.echo(f"{label}/{key}: version {version} is current")


@secrets.command()
@label
@click.argument("key")
@click.option("--purge", is_flag=True, help="At once and for good.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@pass_context
def rm(context: Context, label: str, key: str, purge: bool, yes: bool) -> None:
    """Delete a secret; where the provider can, it can be restored for 30 days."""
    store = context.app.secrets(label)
    if not store.exists(key):
        raise NotFound(f"there is no secret {key!r} in {store.name!r}", provider=store.provider)
    final = purge or not store.features.recovery
    if not yes and final:
        _confirm(store, key)
    store.delete(key, recovery=None if final else timedelta(days=30))
    click.echo(f"{label}/{key}: deleted{'' if final else '; `shiftable secrets restore` brings it back for 30 days'}")


def _confirm(store: SecretStore, key: str) -> None:
    if not sys.stdin.isatty():
        raise ConfigError(f"deleting {key!r} from {store.name!r} is final; without a terminal, say --yes")
    click.confirm(f"delete {key!r} from {store.name!r} on {store.provider} for good?", abort=True)


@secrets.command()
@label
@click.argument("key")
@pass_context
def restore(context: Context, label: str, key: str) -> None:
    """Bring back a deleted secret."""
    context.app.secrets(label).restore(key)
    click.echo(f"{label}/{key}: restored")


def _when(time: object) -> str:
    return f"{time:%Y-%m-%d %H:%M:%S}Z" if time else ""

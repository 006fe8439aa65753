"""``secrets``: values come from standard input, a file or a prompt, and are shown only when that is asked for."""

from __future__ import annotations

import base64
import copy
import itertools
import sys
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import click
from click.shell_completion import CompletionItem

from shiftable.cli._context import Context, Group, complete_labels, fact_text, json_line, json_option, pass_context, say
from shiftable.cli._rotate import rotate
from shiftable.cli._secrets_files import commands
from shiftable.cli._units import duration, future
from shiftable.errors import ConfigError, NotFound, ShiftableError
from shiftable.files import save
from shiftable.masking import Masked
from shiftable.secrets import Secret, SecretStore, Stage

__all__ = ["secrets"]

_COMPLETIONS = 100
_RECOVERY = timedelta(days=30)


def complete_keys(context: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    """Complete the keys of the label that was typed. Whatever fails completes nothing."""
    options = context.find_root().params
    with Context(options.get("file"), options.get("environment")) as here:
        try:
            infos = here.app.secrets(context.params["label"]).list(incomplete)
            found = sorted(info.name for info in itertools.islice(infos, _COMPLETIONS))
        except (ShiftableError, ImportError, KeyError):
            return []
    return [CompletionItem(name) for name in found if name.isprintable()]


class _Key(click.Argument):
    """A secret's name, which is an argument of its own: objects are named by one, ``assets:logo.png``."""

    def process_value(self, ctx: click.Context, value: Any) -> Any:  # noqa: ANN401  as click.Argument
        """Return the name; where it stands in the label, say how it is written, and not what it is."""
        joined = ":" in (ctx.params.get("label") or "")
        if joined and self.value_is_missing(value) and not ctx.resilient_parsing:
            ctx.fail("a secret is named by two arguments, LABEL and KEY, with a blank between them and no colon")
        return super().process_value(ctx, value)


label = click.argument("label", shell_complete=complete_labels("secrets"))
key_ = click.argument("key", cls=_Key, shell_complete=complete_keys)
version_ = click.argument("version")
yes_option = click.option("--yes", is_flag=True, help="Do not ask.")


@click.group(cls=Group)
def secrets() -> None:
    """Put, get, list, change and delete secrets. LABEL is that of [secrets.LABEL]."""


secrets.add_command(rotate)
for each in commands:
    secrets.add_command(each)


@secrets.command(context_settings={"allow_extra_args": True})  # which click would show, when it refuses them
@label
@key_
@click.option("--in", "source", type=click.File("rb"), help="Read the value from a file; - is standard input.")
@click.option("--if-absent", is_flag=True, help="Only if there is no such secret.")
@click.option("--pending", is_flag=True, help="Store it beside the current value; `promote` makes it current.")
@click.option("--binary", is_flag=True, help="The value is bytes, not text; its last newline counts.")
@click.option("--label", "labels", multiple=True, metavar="NAME=VALUE", help="Set this label; others stay. Repeatable.")
@click.option(
    "--expires", metavar="TIME", callback=lambda _c, _p, text: text and future(text), help="A date or time, ISO."
)
@click.option("--idempotency-key", metavar="TEXT", help="The same key and value again make no second version.")
@json_option
@pass_context
def put(
    context: Context,
    label: str,
    key: str,
    *,
    source: Any,  # noqa: ANN401  an open file
    if_absent: bool,
    pending: bool,
    binary: bool,
    labels: tuple[str, ...],
    expires: datetime | None,
    idempotency_key: str | None,
    as_json: bool,
) -> None:
    """Store a value from standard input, a file, or a prompt on a terminal. Never from the command line.

    Of text, one newline at the end is not a part of the value.
    """
    if click.get_current_context().args:
        raise ConfigError(
            "a value is never an argument, which others on this machine can read: give it by standard input, by --in "
            "FILE, or at the prompt; if it was a real one, replace it, as the shell may have kept the line"
        )
    store = context.app.secrets(label)
    stage: Literal["current", "pending"] = "pending" if pending else "current"
    wanted = _pairs(labels)
    secret = store.put(
        key,
        _read(source, binary=binary),
        stage=stage,
        if_absent=if_absent,
        labels={**_labels(store, key), **wanted} if wanted else None,
        expires=expires,
        idempotency_key=idempotency_key,
    )
    _told(context, label, key, f"version {secret.version} is {stage}", as_json=as_json, version=secret.version)


def _read(source: Any, *, binary: bool) -> Masked:  # noqa: ANN401  as above
    """Read a value. Nothing that fails here may hang on an error that holds it."""
    if source is None and sys.stdin.isatty():
        return Masked(click.prompt("value", hide_input=True, confirmation_prompt=True))
    given = Masked((source or sys.stdin.buffer).read())
    if binary:
        return given
    try:
        text = given.reveal()
    except ValueError:
        raise ConfigError("the value is not UTF-8 text; say --binary") from None
    return Masked(text[:-2] if text.endswith("\r\n") else text.removesuffix("\n"))


def _pairs(given: tuple[str, ...]) -> dict[str, str]:
    found: dict[str, str] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not name or not equals:
            raise ConfigError(f"{text!r} is no label; say NAME=VALUE")
        found[name] = value
    return found


def _labels(store: SecretStore, key: str) -> Mapping[str, str]:
    try:
        return store.get(key).labels
    except NotFound:
        return {}


@secrets.command()
@label
@key_
@click.option("--reveal", is_flag=True, help="Print the value; without this, everything but it.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Write the value to a file, mode 0600.")
@click.option("--stage", type=click.Choice(["current", "previous", "pending"]), default="current", show_default=True)
@click.option("--version", help="This version instead of a stage.")
@json_option
@pass_context
def get(
    context: Context,
    label: str,
    key: str,
    *,
    reveal: bool,
    out: Path | None,
    stage: Stage,
    version: str | None,
    as_json: bool,
) -> None:
    """Show a secret; its value only with --reveal, or in a file with --out."""
    if out == Path("-"):
        raise ConfigError("--out writes a file; to standard output: --reveal")
    store = context.app.secrets(label)
    secret = store.get(key, version=version) if version else store.get(key, stage=stage)
    if out is not None:
        save([secret.reveal_bytes()], out, mode=0o600)
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
        say(f"{name}: {', '.join(value) if isinstance(value, list) else _shown(value)}")
    say(f"value: in {out}" if out is not None else "value: *** (--reveal shows it)")


def _shown(value: object) -> str:
    if isinstance(value, dict):
        return " ".join(f"{name}={each}" for name, each in value.items()) or "-"
    return fact_text(value or "-")


def _revealed(secret: Secret) -> dict[str, str]:
    """Return the value as JSON can hold it."""
    try:
        return {"value": secret.reveal()}
    except ValueError:
        return {"value_base64": base64.b64encode(secret.reveal_bytes()).decode()}


@secrets.command()
@label
@click.argument("prefix", default="", shell_complete=complete_keys)
@click.option("--deleted", is_flag=True, help="The ones that can still be restored.")
@json_option
@pass_context
def ls(context: Context, label: str, prefix: str, *, deleted: bool, as_json: bool) -> None:
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
@key_
@json_option
@pass_context
def history(context: Context, label: str, key: str, *, as_json: bool) -> None:
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
@key_
@version_
@json_option
@pass_context
def promote(context: Context, label: str, key: str, version: str, *, as_json: bool) -> None:
    """Make a version current; the one before it becomes previous. An earlier version is a rollback."""
    context.app.secrets(label).promote(key, version)
    _told(context, label, key, f"version {version} is current", as_json=as_json, version=version)


@secrets.command()
@label
@key_
@version_
@json_option
@pass_context
def disable(context: Context, label: str, key: str, version: str, *, as_json: bool) -> None:
    """Make one version unreadable. Some providers' own tools can enable it again."""
    context.app.secrets(label).disable(key, version)
    _told(context, label, key, f"version {version} is disabled", as_json=as_json, version=version)


@secrets.command()
@label
@key_
@version_
@yes_option
@json_option
@pass_context
def destroy(context: Context, label: str, key: str, version: str, *, yes: bool, as_json: bool) -> None:
    """Make the value of one version gone for good. The current one is refused."""
    store = context.app.secrets(label)
    _confirm(store, f"version {version} of {key!r}", yes=yes)
    store.destroy(key, version)
    _told(context, label, key, f"version {version} is destroyed", as_json=as_json, version=version)


@secrets.command()
@label
@key_
@click.argument("pairs", nargs=-1, metavar="[NAME=VALUE]...")
@click.option("--remove", "removed", multiple=True, metavar="NAME", help="Remove this label. Repeatable.")
@click.option("--expires", metavar="TIME", help="When the value should no longer be used, ISO; or never.")
@json_option
@pass_context
def labels(
    context: Context,
    label: str,
    key: str,
    *,
    pairs: tuple[str, ...],
    removed: tuple[str, ...],
    expires: str | None,
    as_json: bool,
) -> None:
    """Show or change the labels of a secret and when it expires, without a new version. Other labels stay."""
    store = context.app.secrets(label)
    secret = store.get(key)
    wanted = {name: value for name, value in {**secret.labels, **_pairs(pairs)}.items() if name not in removed}
    until: datetime | Literal["never"] | None = "never" if expires == "never" else future(expires) if expires else None
    changed = wanted != dict(secret.labels)
    if changed or until is not None:
        store.update(
            key,
            labels=wanted if changed else None,
            expires=until,
            if_match=secret.token if store.features.if_match else None,
        )
        secret = store.get(key)
    if as_json:
        context.json({"key": key, "labels": dict(secret.labels), "expires": secret.expires})
        return
    for name, value in sorted(secret.labels.items()):
        say(f"{name}={value}")
    if secret.expires is not None:
        say(f"expires: {_when(secret.expires)}")


@secrets.command()
@label
@key_
@click.option("--purge", is_flag=True, help="At once and for good, also one that was deleted before.")
@click.option("--recovery", metavar="TIME", help="How long it can be restored; 30d unless the provider allows less.")
@yes_option
@json_option
@pass_context
def rm(context: Context, label: str, key: str, *, purge: bool, recovery: str | None, yes: bool, as_json: bool) -> None:
    """Delete a secret; where the provider can, it can be restored for a while."""
    store = context.app.secrets(label)
    if purge and recovery is not None:
        raise ConfigError("--purge leaves nothing to recover; say --purge or --recovery")
    if not store.exists(key) and not purge:
        raise NotFound(f"there is no secret {key!r} in {store.name!r}", provider=store.provider)
    window = _window(store, recovery)
    if purge or window is None:
        _confirm(store, repr(key), yes=yes)
        store.purge(key)
        _told(context, label, key, "deleted for good", as_json=as_json)
        return
    store.delete(key, recovery=window)
    span = f"{window.days} days" if not window.seconds else str(window)
    _told(context, label, key, f"deleted; `shiftable secrets restore` brings it back for {span}", as_json=as_json)


def _window(store: SecretStore, given: str | None) -> timedelta | None:
    if given is not None:
        return duration(given)
    if not store.features.recovery:
        return None
    limit = store.features.max_recovery
    return _RECOVERY if limit is None else min(_RECOVERY, timedelta(days=limit.value))


def _confirm(store: SecretStore, what: str, *, yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise ConfigError(f"deleting {what} from {store.name!r} is final; without a terminal, say --yes")
    click.confirm(f"delete {what} from {store.name!r} on {store.provider.label} for good?", abort=True)


@secrets.command()
@label
@key_
@json_option
@pass_context
def restore(context: Context, label: str, key: str, *, as_json: bool) -> None:
    """Bring back a deleted secret."""
    context.app.secrets(label).restore(key)
    _told(context, label, key, "restored", as_json=as_json)


@secrets.command()
@label
@click.argument("keys", nargs=-1, required=True, metavar="KEY...", shell_complete=complete_keys)
@click.option("--every", default="30s", show_default=True, metavar="TIME", help="How often they are read.")
@json_option
@pass_context
def watch(context: Context, label: str, keys: tuple[str, ...], *, every: str, as_json: bool) -> None:
    """Say which version of secrets is current, now and whenever that changes, until Ctrl-C. No values."""
    with context.app.secrets(label).watch(*keys, every=duration(every)) as changes:
        for secret in changes:
            if as_json:
                json_line({"key": secret.name, "version": secret.version, "created": secret.created})
            else:
                say(f"{label}/{secret.name}: version {secret.version} is current")
                sys.stdout.flush()


def _told(context: Context, label: str, key: str, what: str, *, as_json: bool, **facts: object) -> None:
    if as_json:
        context.json({"key": key, **facts, "result": what})
    else:
        say(f"{label}/{key}: {what}")


def _when(time: object) -> str:
    return f"{time:%Y-%m-%d %H:%M:%S}Z" if time else ""


def _also(name: str, command: click.Command) -> None:
    """Let a command have a second name, which the help does not show."""
    other = copy.copy(command)
    other.name, other.hidden = name, True
    secrets.add_command(other)


_also("set", put)
_also("list", ls)

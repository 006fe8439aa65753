"""What all commands share: the application, the terminal, and how results are shown."""

from __future__ import annotations

import contextlib
import json
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

import click

from shiftable import manifest
from shiftable.app import App, load
from shiftable.cloud import Cloud, connect
from shiftable.config import did_you_mean
from shiftable.errors import ConfigError, ShiftableError
from shiftable.manifest import Declared, Manifest
from shiftable.wording import counted

if TYPE_CHECKING:
    from rich.console import Console

__all__ = [
    "Context",
    "Group",
    "complete_addresses",
    "complete_environments",
    "complete_labels",
    "complete_machines",
    "complete_providers",
    "confirm_name",
    "each_of",
    "fact_text",
    "interruptible",
    "items_text",
    "json_line",
    "json_option",
    "pass_context",
    "say",
    "say_facts",
    "say_failure",
    "shown",
    "size_text",
    "terminable",
    "two_providers",
]


_WHOLE = 1_000
"""Characters: more than any sentence has."""


class Group(click.Group):
    """Commands. Of one that there is not, the near one is named, or else all of them, as of labels and keys."""

    def purposes(self, ctx: click.Context) -> list[tuple[str, str]]:
        """Return commands and what each is for: the first sentence of its help, to its end."""
        commands = ((name, self.get_command(ctx, name)) for name in self.list_commands(ctx))
        shown = ((name, command) for name, command in commands if command is not None and not command.hidden)
        return [(name, command.get_short_help_str(_WHOLE)) for name, command in shown]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write what each command is for."""
        with formatter.section("Commands"):
            formatter.write_dl(self.purposes(ctx))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find a command; those that the help does not show are found, and not proposed."""
        name = args[0]
        known = self.list_commands(ctx)
        if not ctx.resilient_parsing and name not in known and not name.startswith("-"):
            hidden = {each for each, command in self.commands.items() if command.hidden}
            ctx.fail(f"No such command {name!r}{did_you_mean(name, set(known) - hidden)}")
        return super().resolve_command(ctx, args)


F = TypeVar("F", bound=Callable[..., Any])


class Context:
    """The application of this call, read when a command first needs it."""

    def __init__(self, file: Path | None = None, environment: str | None = None) -> None:
        self.file = file
        self.environment = environment
        self._app: App | None = None
        self._clouds: dict[tuple[object, ...], Cloud] = {}
        self._console: Console | None = None

    @property
    def app(self) -> App:
        """The application of ``shiftable.toml``."""
        if self._app is None:
            self._app = load(self.file, environment=self.environment)
        return self._app

    @property
    def app_if_any(self) -> App | None:
        """The application, or ``None`` where there is no file; one that was named must be there."""
        if self._app is None and self.file is None:
            try:
                manifest.find()
            except ConfigError:
                return None
        return self.app

    def connected(self, provider: str, **settings: object) -> Cloud:
        """Return a provider without the file, with its own chain of credentials."""
        key = (provider, *settings.items())
        if key not in self._clouds:
            self._clouds[key] = connect(provider, **settings)
        return self._clouds[key]

    def cloud(self, provider: str) -> Cloud:
        """Return a provider by its label in the file or, without a file, by its type."""
        app = self.app_if_any
        return self.connected(provider) if app is None else app.cloud(provider)

    @property
    def console(self) -> Console:
        """The terminal, or whatever standard output is: then lines are neither coloured nor cut."""
        if self._console is None:
            from rich.console import Console

            self._console = Console(highlight=False, emoji=False, soft_wrap=True)
        return self._console

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        """Show rows: aligned on a terminal, else as lines with tabs."""
        if not self.console.is_terminal:
            for row in rows:
                click.echo("\t".join("" if cell is None else str(cell) for cell in row))
            return
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, pad_edge=False, header_style="bold")
        for column in columns:
            table.add_column(column, overflow="fold")  # a name that is cut would be another one
        for row in rows:
            table.add_row(*(Text("" if cell is None else str(cell)) for cell in row))
        self.console.print(table)

    def json(self, value: Any) -> None:  # noqa: ANN401  anything that JSON has
        """Write one JSON document to standard output."""
        click.echo(_json(value, indent=2))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._app is not None:
            self._app.close()
        for cloud in self._clouds.values():
            cloud.close()


def json_line(value: Mapping[str, Any]) -> None:
    """Write one JSON object as a line to standard output, at once."""
    click.echo(_json(value))
    sys.stdout.flush()


def _json(value: object, indent: int | None = None) -> str:
    r"""Return JSON, in which bytes of a name that are no Unicode stand as Python has them: ``\udcff``."""
    text = json.dumps(value, indent=indent, ensure_ascii=sys.stdout.isatty(), default=_plain)
    return text.encode(errors="backslashreplace").decode()


def shown(text: str) -> str:
    r"""Return a text as a terminal can show it: what would move the cursor or turn the direction becomes ``\x1b``.

    Joiners stay, as emoji and some scripts need them.
    """
    return "".join(char if char in _JOINERS or char.isprintable() else _escaped(char) for char in text)


def say(text: str) -> None:
    """Write a line to standard output: as it is where a program reads it, else as it can be shown."""
    click.echo(shown(text) if sys.stdout.isatty() else text, color=True)  # else click drops what looks like a colour


def say_facts(facts: Mapping[str, object]) -> None:
    """Write what is known of something, a line for each fact, to standard output."""
    for name, value in facts.items():
        if value not in (None, (), [], {}, ""):
            say(f"{name}: {shown(fact_text(value))}")


def fact_text(value: object) -> str:
    """Say a value for people."""
    match value:
        case bool():
            return "yes" if value else "no"
        case datetime():
            return f"{value.astimezone(UTC):%Y-%m-%d %H:%M:%S}Z"
        case tuple():
            return ", ".join(map(str, value))
        case dict():
            return ", ".join(f"{name}={each}" for name, each in value.items())
        case _:
            return f"{value:g}" if isinstance(value, float) else str(value)


_JOINERS = "\u200c\u200d"


def _escaped(char: str) -> str:
    return ascii(char)[1:-1]


def _plain(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)


pass_context = click.make_pass_decorator(Context)

json_option = click.option("--json", "as_json", is_flag=True, help="Answer in JSON.")


def complete_labels(service: str, suffix: str = "") -> Any:  # noqa: ANN401  what click takes
    """Complete the labels of the declared resources of a service."""

    def complete(context: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
        labels = (declared.label + suffix for declared in _declared(context) if declared.service == service)
        return _beginning(incomplete, labels)

    return complete


def complete_machines(context: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """Complete the labels of the declared fleets, and their machines. Asks no provider."""
    fleets = [(each.label, getattr(each.spec, "count", 0)) for each in _declared(context) if each.service == "compute"]
    machines = [f"{label}-{number}" for label, count in fleets for number in range(count)]
    return _beginning(incomplete, [*(label for label, _ in fleets), *machines])


def complete_addresses(context: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """Complete the addresses of declared resources."""
    return _beginning(incomplete, (declared.address for declared in _declared(context)))


def complete_providers(context: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """Complete the labels of the declared providers, and what environments name without a table of its own."""
    found = _manifest(context)
    if found is None:
        return []
    used = {label for each in found.environments.values() for label in (each.provider, *each.overrides.values())}
    return sorted(_beginning(incomplete, {*found.providers, *used}))


def two_providers(source: str, target: str) -> Callable[[F], F]:
    """Return the options that name the two sides of a move: the provider ``source``, the provider ``target``."""

    def decorated(command: F) -> F:
        for option, name, what in (("--to", "target", target), ("--from", "source", source)):
            command = click.option(
                option,
                name,
                required=True,
                metavar="PROVIDER",
                callback=_another,
                shell_complete=complete_providers,
                help=f"Label of the provider {what}",
            )(command)
        return command

    return decorated


def _another(context: click.Context, _: click.Parameter, label: str) -> str:
    """Refuse a side that is the other one too."""
    if label in {context.params.get("source"), context.params.get("target")}:
        raise ConfigError(f"source and target are both {label!r}; name two providers")
    return label


def complete_environments(context: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """Complete the names of the environments."""
    found = _manifest(context)
    return _beginning(incomplete, found.environments if found else ())


def _beginning(incomplete: str, names: Iterable[str]) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]


def _declared(context: click.Context) -> tuple[Declared, ...]:
    found = _manifest(context)
    return tuple(found.resources.values()) if found else ()


def _manifest(context: click.Context) -> Manifest | None:
    """Return what the file says, whichever environment is meant; a wrong file completes nothing and says nothing."""
    try:
        return manifest.nearest(context.find_root().params.get("file"))
    except ConfigError:
        return None


@contextlib.contextmanager
def interruptible(hint: str) -> Iterator[None]:
    """Say on Ctrl-C that what was begun is not taken back, and exit as an interrupted command does."""
    try:
        yield
    except KeyboardInterrupt:
        click.echo(f"interrupted; {hint}", err=True)
        sys.exit(130)


@contextlib.contextmanager
def terminable() -> Iterator[None]:
    """Let whoever ends the process from outside end it as Ctrl-C does: what is under way ends, and is told."""
    if threading.current_thread() is not threading.main_thread():  # where no signal arrives
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def each_of(providers: Iterable[str]) -> Iterator[tuple[str, AbstractContextManager[None]]]:
    """Yield providers, each once, with a block in which it may fail: that is told, and hides none of the others.

    Behind the last one the command ends with exit code 1 if one failed. One provider's error is the command's.
    """
    wanted, failed = tuple(dict.fromkeys(providers)), list[str]()
    if len(wanted) == 1:
        yield wanted[0], contextlib.nullcontext()
        return

    @contextlib.contextmanager
    def asking(provider: str) -> Iterator[None]:
        try:
            yield
        except (ShiftableError, ImportError) as exc:
            say_failure(provider, exc)
            failed.append(provider)

    for provider in wanted:
        yield provider, asking(provider)
    if failed:
        sys.exit(1)


def say_failure(provider: str, exc: BaseException) -> None:
    """Tell that one of several providers failed."""
    click.echo(shown(f"error: {provider}: {'; '.join(str(exc).splitlines())}"), err=True)


def confirm_name(what: str, name: str, yes: str | None) -> None:
    """Go on only if the name of what is to be deleted was typed, or said by ``--yes``.

    Args:
        what: is deleted, with its name.
    """
    if yes is not None:
        if yes != name:
            raise ConfigError(f"--yes says {yes!r}, but this is {name!r}")
        return
    if not sys.stdin.isatty():
        raise ConfigError(f"to delete {what} without a terminal, say --yes {name}")
    if click.prompt(shown(f"{what}: type {name} to delete it"), default="", show_default=False, err=True) != name:
        raise click.Abort


def items_text(count: int) -> str:
    """Say a number of items for people."""
    return counted(count, "item")


def size_text(size: int) -> str:
    """Say a number of bytes for people: ``3.2 MiB``."""
    value = float(size)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if value < 1024 or unit == "TiB":
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    raise AssertionError

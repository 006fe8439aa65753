"""The root command, its options, and what becomes of errors."""

from __future__ import annotations

import importlib
import logging
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

import shiftable
from shiftable.cli._context import Context, Group, complete_environments, shown
from shiftable.errors import ConfigError, ProviderError, ShiftableError

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

__all__ = ["cli"]


COMMANDS: Mapping[str, tuple[str, str]] = {
    "apply": ("_project", "Create what is declared and does not exist; change what differs."),
    "blob": ("_blob", "List, copy, show and delete objects."),
    "check": ("_check", "Check the file, the providers and that resources are reached."),
    "compute": ("_compute", "Make, show, reach, resize and delete fleets of machines."),
    "db": ("_db", "Make, reach, save, restore and delete database servers."),
    "demo": ("_demo", "Watch an application move from AWS to this machine."),
    "destroy": ("_project", "Delete resources, each after its name was typed."),
    "dns": ("_dns", "Show, change, compare and move zones."),
    "init": ("_project", "Write a commented shiftable.toml."),
    "migrate": ("_migrate", "Move what is declared from one provider to another; plan first."),
    "plan": ("_project", "Show what of the file does not exist, or differs."),
    "policy": ("_policy", "Print the least that a login must be allowed."),
    "providers": ("_check", "Show the installed providers, or the features of one."),
    "run": ("_run", "Run a command with the resources as environment variables."),
    "schema": ("_check", "Print the JSON Schema of shiftable.toml, for editors."),
    "secrets": ("_secrets", "Put, get, list, change and delete secrets."),
}
"""Commands, the modules that hold them, imported when they are called, and what is said of them without that."""


class Root(Group):
    """Turns errors of the library into one message and an exit code; anything else is a bug and shows itself."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  as click.Group
        """Name all commands."""
        return list(COMMANDS)

    def purposes(self, ctx: click.Context) -> list[tuple[str, str]]:  # noqa: ARG002  as Group
        """Return commands and what each is for; imports none."""
        return [(name, purpose) for name, (_, purpose) in COMMANDS.items()]

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Propose commands, and what click proposes for the options."""
        from click.shell_completion import CompletionItem

        found = [each for each in self.purposes(ctx) if each[0].startswith(incomplete)]
        commands = [CompletionItem(name, help=purpose) for name, purpose in found]
        return [*commands, *click.Command.shell_complete(self, ctx, incomplete)]

    def main(self, *args: Any, **extra: Any) -> Any:  # noqa: ANN401  as click.Group
        """Run the command line, or complete it."""
        if "_SHIFTABLE_COMPLETE" in os.environ:
            from shiftable.cli import _completion

            _completion.register()
        return super().main(*args, **extra)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002  as click.Group
        """Import one command."""
        if cmd_name not in COMMANDS:
            return None
        module, _ = COMMANDS[cmd_name]
        command: click.Command = getattr(importlib.import_module(f"shiftable.cli.{module}"), cmd_name)
        return command

    def make_context(self, *args: Any, **extra: Any) -> click.Context:  # noqa: ANN401  as click.Group
        """Read the options; --help and --version answer here."""
        with _errors():
            return super().make_context(*args, **extra)

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401  as click.Group
        """Run a command and leave with its exit code."""
        with _errors():
            return super().invoke(ctx)


@contextmanager
def _errors() -> Iterator[None]:
    """Tell an error in one message, and leave with its exit code."""
    try:
        yield
    except KeyboardInterrupt:
        _interrupted()
    except click.Abort as exc:
        if isinstance(exc.__context__, KeyboardInterrupt):  # at a prompt, where click turns it into this
            _interrupted()
        raise
    except ConfigError as exc:
        for problem in exc.problems:
            _complain(str(problem))
        sys.exit(2)
    except ProviderError as exc:
        _complain(str(exc))
        sys.exit(2)
    except ShiftableError as exc:
        _complain(str(exc))
        sys.exit(1)
    except BrokenPipeError:
        sys.stderr.close()  # the reader has gone: `shiftable blob ls | head`
        sys.exit(141)
    except OSError as exc:  # a file that was named, or what standard output goes to
        logging.getLogger(__name__).debug("the operating system refuses", exc_info=True)
        subject = f"{exc.filename}: " if exc.filename is not None else ""
        _complain(f"{subject}{exc.strerror or exc}")
        sys.exit(1)


def _interrupted() -> NoReturn:
    click.echo("interrupted", err=True)
    sys.exit(130)


def _complain(text: str) -> None:
    """Write an error, whose lines may hold names that others have chosen."""
    click.echo("\n".join(shown(line) for line in f"error: {text}".split("\n")), err=True)


@click.group(
    cls=Root,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="""
\b
Exit codes: 0 done, 1 failed or something is left to do, 2 wrong usage or configuration, 130 interrupted.
Completion: eval "$(_SHIFTABLE_COMPLETE=bash_source shiftable)"
""",
)
@click.version_option(shiftable.__version__, "-V", "--version", package_name="shiftable")
@click.option("-f", "--file", type=click.Path(path_type=Path), help="The shiftable.toml; else the nearest one above.")
@click.option(
    "-e",
    "--env",
    "environment",
    shell_complete=complete_environments,
    help="The environment; else SHIFTABLE_ENV, else the only one, else development.",
)
@click.option("-v", "--verbose", count=True, help="Log more of what shiftable does; twice for all of it.")
@click.pass_context
def cli(context: click.Context, file: Path | None, environment: str | None, verbose: int) -> None:
    """Swap clouds by configuration only."""
    _log(verbose)
    context.obj = context.with_resource(Context(file, environment))


def _log(verbose: int) -> None:
    """Log everybody's warnings, and more only of shiftable and its providers.

    At DEBUG the SDKs log what they send and receive, the values of secrets among it.
    """
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    # What the error says in one line, azure-identity without credentials says in a dozen, and urllib3 at each attempt.
    for name in ("azure.identity", "urllib3.connectionpool"):
        logging.getLogger(name).setLevel(logging.WARNING if verbose else logging.ERROR)
    if verbose:
        from shiftable import registry

        targets = (each.target for each in registry.installed())
        for package in {"shiftable", *(target.partition(":")[0].partition(".")[0] for target in targets)}:
            logging.getLogger(package).setLevel(logging.INFO if verbose == 1 else logging.DEBUG)

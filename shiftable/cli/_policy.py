"""``policy``: the least that a login must be allowed."""

from __future__ import annotations

import click

from shiftable.cli._context import Context, complete_providers, pass_context
from shiftable.cli._project import chosen, resources
from shiftable.provider import PURPOSES, Purpose

__all__ = ["policy"]


@click.command()
@resources
@click.option(
    "--for",
    "purposes",
    multiple=True,
    type=click.Choice(PURPOSES),
    default=("write",),
    show_default=True,
    help="What the login is for: to read what resources hold; to write it too, as the application does; to plan; to"
    " apply, which is to make, change and delete resources. May be repeated.",
)
@click.option(
    "--provider",
    metavar="PROVIDER",
    shell_complete=complete_providers,
    help="Write it for another provider than the environment's, to which the resources will move.",
)
@pass_context
def policy(context: Context, resources: tuple[str, ...], purposes: tuple[Purpose, ...], provider: str | None) -> None:
    """Print the least that a login must be allowed for what is declared, as JSON that the provider takes.

    Asks no provider. Of several providers, name the RESOURCEs of one.
    """
    app = context.app
    context.json(app.policy(*purposes, declared=chosen(app, resources), provider=provider))

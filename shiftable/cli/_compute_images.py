"""``compute snapshot`` and ``delete-image``: images of machines, to make others from."""

from __future__ import annotations

from datetime import timedelta

import attrs
import click

from shiftable.cli._compute_kept import Kept, kept, waiting, yes_option
from shiftable.cli._compute_target import Target, machine_
from shiftable.cli._context import Context, interruptible, json_option, pass_context, say, shown
from shiftable.errors import Unsupported

__all__ = ["delete_image", "snapshot"]


@click.command()
@machine_
@click.argument("name")
@waiting("1h")
@json_option
@pass_context
def snapshot(context: Context, place: Target, name: str, *, timeout: timedelta, as_json: bool) -> None:
    """Keep the disk that a machine starts from as the image NAME, to make others from, and wait for it.

    All that is on the disk is in it, secrets among it. Of a machine that runs it has what one that lost its power would
    find, and some providers let it stand still meanwhile: stop it before, for more. Other disks are not in it.
    """
    machine, provider = place.find(context).machine, place.provider(context)
    with interruptible(f"{name}: it goes on at the provider; `shiftable compute images --own {provider}` tells"):
        made = machine.snapshot(name, timeout=timeout)
    if as_json:
        context.json({"provider": provider, **attrs.asdict(made)})
    else:
        say(shown(f'{made.name}: taken; image = "{made.id}" makes machines of it'))


@click.command("delete-image")
@kept("image", "IMAGE")
@yes_option
@pass_context
def delete_image(context: Context, which: Kept, *, yes: str | None) -> None:
    """Delete an image of the account's own, after its name was typed: PROVIDER:NAME or PROVIDER:ID.

    Machines that were made of it stay; a provider whose machines still need it refuses.
    """
    service = which.service(context)
    if not service.features.snapshots:
        raise which.refusal(Unsupported, service, "delete_image", "this provider has no images of machines")
    found = which.find(service, (image for image in service.images() if image.own))
    name = which.confirmed(found, yes)
    service.delete_image(found.id)
    say(shown(f"{name}: deleted"))

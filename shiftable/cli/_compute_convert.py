"""``compute convert``: images of disks in the forms that providers import."""

from __future__ import annotations

from pathlib import Path

import click

from shiftable.cli._context import json_line, json_option, say
from shiftable.compute.convert import SUFFIXES, convert_image, form_of
from shiftable.compute.driver import FORMS, GIB, ImageForm
from shiftable.errors import ConfigError

__all__ = ["convert"]

_path = click.Path(path_type=Path, dir_okay=False)


@click.command()
@click.argument("source", type=_path)
@click.argument("target", type=_path)
@click.option("--to", "form", type=click.Choice(FORMS), help="The form; else what TARGET ends with says it.")
@click.option("--replace", is_flag=True, help="Also if there is such a file.")
@json_option
def convert(*, source: Path, target: Path, form: ImageForm | None, replace: bool, as_json: bool) -> None:
    """Write the image of a disk in another form: vhd for Azure, tar.gz for Compute Engine, vmdk for EC2.

    It takes qemu-img. `shiftable blob cp TARGET LABEL:KEY` brings it to the provider, whose own importer makes an image
    of it: whether a machine starts from that depends on drivers and agents that are in it.
    """
    chosen = form or form_of(target.name)
    if chosen is None:
        raise ConfigError(f"{target} does not say its form: end it with {', '.join(SUFFIXES.values())}, or say --to")
    made = convert_image(source, target, chosen, replace=replace)
    if as_json:
        json_line(
            {"path": str(made.path), "form": made.form, "size": made.size, "disk": made.disk, "sha256": made.sha256}
        )
        return
    say(f"{made.path}: a disk of {made.disk / GIB:,.2f} GiB in {made.size:,} bytes")
    say(f"sha256 {made.sha256}")

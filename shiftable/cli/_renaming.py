"""``--names``: what buckets are called on the other side of a move."""

from __future__ import annotations

from collections.abc import Mapping

from shiftable.app import App
from shiftable.config import did_you_mean
from shiftable.errors import ConfigError

__all__ = ["renamed"]


def renamed(app: App, source: str, wanted: tuple[str, ...]) -> Mapping[str, str]:
    """Return the target's name of each bucket that gets another one, by the source's.

    Args:
        wanted: ``LABEL=BUCKET``.

    Raises:
        ConfigError: there is no such bucket, or two would become one.
    """
    declared = {found.label: found for found in app.declared("blob")}
    given: dict[str, str] = {}
    for text in wanted:
        label, separator, name = text.partition("=")
        label = label.removeprefix("blob.")
        if not separator or not name:
            raise ConfigError(f"--names {text}: write LABEL=BUCKET")
        if label not in declared:
            hint = did_you_mean(label, declared)
            raise ConfigError(f"--names {text}: {app.config.path.name} has no [blob.{label}]{hint}")
        if given.setdefault(label, name) != name:
            raise ConfigError(f"--names: {label} has two names, {given[label]} and {name}")
    names = {app.spec(found, source).name: given.get(label) for label, found in declared.items()}
    ends = [new or old for old, new in names.items()]
    twice = next((name for name in ends if ends.count(name) > 1), None)
    if given and twice is not None:
        raise ConfigError(f"--names: two buckets would become one, {twice}")
    return {old: new for old, new in names.items() if new is not None and new != old}

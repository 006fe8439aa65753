"""The rotations that an application declares."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, cast

from shiftable.config import did_you_mean
from shiftable.errors import ConfigError
from shiftable.rotation._machine import Rotation
from shiftable.secrets import SecretsSpec

if TYPE_CHECKING:
    from shiftable.app import App

__all__ = ["rotations"]


def rotations(
    app: App,
    label: str | None = None,
    key: str | None = None,
    *,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> tuple[tuple[str, Rotation], ...]:
    """Return the declared rotations, each with the label of its secrets, in the order of the file. Calls nobody.

    Args:
        label: only those of ``[secrets.label.rotate]``.
        key: only the one of that key.

    Raises:
        ConfigError: there are no such secrets; the key has no rotation.
    """
    if label is not None:
        app.secrets(label)  # an unknown label is told, with the near one
    found = []
    for declared in app.declared("secrets"):
        if label in (None, declared.label):
            store = app.secrets(declared.label)
            spec = cast("SecretsSpec", app.spec(declared))
            found += [(declared.label, Rotation(store, each, how, clock)) for each, how in spec.rotate.items()]
    if key is None:
        return tuple(found)
    chosen = tuple((owner, rotation) for owner, rotation in found if rotation.key == key)
    if not chosen:
        hint = did_you_mean(key, [rotation.key for _, rotation in found])
        raise ConfigError(f"[secrets.{label}.rotate] says nothing of {key!r}{hint}")
    return chosen

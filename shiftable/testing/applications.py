"""An application as its own file declares it, with all of its resources at a provider that a test brings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs

from shiftable import manifest, registry
from shiftable.app import App
from shiftable.cloud import connect
from shiftable.manifest import Environment
from shiftable.provider import Provider

__all__ = ["TEST", "application"]

TEST = "test"
"""What the environment and its provider are called, whatever the file calls its own."""


def application(
    path: Path | None, provider: str, settings: dict[str, object], *, state: Path, make: bool = True
) -> App:
    """Return the application of a ``shiftable.toml`` at one provider, with what it declares made and ready.

    No provider of the file can be reached by it, and nothing is written beside the file or where one runs it.

    Args:
        path: the file, or a folder to look in and above; ``None``: here.
        settings: as ``shiftable.connect`` takes them.
        state: the folder for journals, and for the data of a provider that keeps them in files.
        make: make what is declared, as ``shiftable apply`` does.
    """
    config = manifest.nearest(path)
    config = attrs.evolve(config, environments={TEST: Environment(provider=TEST)}, providers={TEST: {"type": provider}})
    app = _Application(config, settings, state)
    if make:
        for declared in app.declared():
            for change in app.diff(declared):
                app.apply(declared, change)
        for declared in app.declared():
            app.service(declared).settle(app.spec(declared))
    return app


class _Application(App):
    """An application whose one provider does not stand in its file."""

    def __init__(self, config: manifest.Manifest, settings: dict[str, object], state: Path) -> None:
        super().__init__(config, TEST)
        self._settings = settings
        self._state = state
        if "root" in attrs.fields_dict(registry.load(config.provider_type(TEST)).settings_type):
            self._settings = {"root": state / "data", **settings}  # else the folder that development keeps its data in

    @property
    def state_dir(self) -> Path:
        return self._state

    def _provider(self, label: str) -> Provider[Any]:
        if label != TEST:
            return super()._provider(label)
        return connect(self.config.provider_type(label), **self._settings).unwrap(Provider)

    def __reduce__(self) -> tuple[Any, ...]:
        raise TypeError("an application at a double stays in its process; hand on what it needs instead")

"""What tests of the command share."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from shiftable.config import Credential

if TYPE_CHECKING:
    from shiftable.testing.harness import Double


@pytest.fixture
def table(shiftable_double: Callable[[str], Double], monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], str]:
    """Return what makes the table of a provider, which is its double."""

    def make(label: str, name: str) -> str:
        pytest.importorskip(f"shiftable_{name}", reason=f"needs shiftable-{name}")
        lines = [f"[providers.{label}]", f'type = "{name}"']
        for key, value in shiftable_double(name).config.items():
            if isinstance(value, Credential):
                monkeypatch.setenv(f"{label}_{key}", value.reveal())
                lines.append(f'{key} = {{ env = "{label}_{key}" }}')
            else:
                lines.append(f"{key} = {json.dumps(value)}")
        return "\n".join([*lines, ""])

    return make

"""What tests of the command share."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from shiftable.config import Credential

if TYPE_CHECKING:
    from shiftable.testing.harness import Double


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder of programs, with a stand-in for qemu-img, where commands look first."""
    folder = tmp_path / "programs"
    folder.mkdir()
    program = folder / "qemu-img"
    standin = Path(__file__).with_name("qemu_img_standin.py")
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -I "{standin}" "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


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

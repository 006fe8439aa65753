"""Projects that reach Azure with the double's managed identity: no credential is in the file; and the real command."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from shiftable_azure.double import AzureDouble

__all__ = ["command", "project"]


def project(folder: Path, text: str, double: AzureDouble, monkeypatch: pytest.MonkeyPatch, **environ: str) -> Path:
    """Write a project's file, and set what an application in Azure finds in its environment."""
    for name, value in {**double.environ, **environ}.items():
        monkeypatch.setenv(name, value)
    (folder / "shiftable.toml").write_text(text)
    return folder


def command(folder: Path, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run ``shiftable`` in production."""
    return subprocess.run(
        [Path(sys.executable).with_name("shiftable"), *arguments],
        cwd=folder, env={**os.environ, "SHIFTABLE_ENV": "production"}, input=stdin,
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip

"""``shiftable migrate`` between two sides, and what it says."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import attrs
from click.testing import CliRunner

from shiftable.cli._main import cli

from .sides import BUCKET

__all__ = ["Answer", "Move", "bucket", "facets"]

COMMAND = str(Path(sys.executable).parent / "shiftable")
_FACET = re.compile(r"accept that with degrade '([a-z]+)'")


@attrs.frozen
class Answer:
    """How the command ended and what it said."""

    code: int
    out: str = attrs.field(repr=False)
    err: str

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def results(self) -> list[dict[str, Any]]:
        """The plan, or the reports of the move and of the comparison afterwards."""
        return [event[event["event"]] for event in self.events if event["event"] in {"plan", "report"}]

    def named(self, number: int = 0) -> dict[str, tuple[str, str]]:
        """Return trouble and reason of each object that is named before the first, the second, … result."""
        rounds: list[dict[str, tuple[str, str]]] = [{}]
        for event in self.events:
            if event["event"] == "item":
                assert event["key"] not in rounds[-1], f"{event['key']!r} is named twice"
                rounds[-1][event["key"]] = event["trouble"], event["reason"]
            elif event["event"] in {"plan", "report"}:
                rounds.append({})
        return rounds[number]

    def losses(self, number: int = 0) -> dict[str, tuple[int, set[str]]]:
        """Return of each facet how many objects lose it and some of them."""
        counts: Counter[str] = Counter()
        keys: dict[str, set[str]] = {}
        for resource in self.results[number]["resources"]:
            for loss in resource["losses"]:
                counts[loss["facet"]] += loss["count"]
                keys.setdefault(loss["facet"], set()).update(loss["examples"])
        return {facet: (counts[facet], keys[facet]) for facet in counts}


def facets(reason: str) -> frozenset[str]:
    """Return what would have to be given up for an object to be moved; nothing, if that would not help."""
    return frozenset(_FACET.findall(reason))


class Place(Protocol):
    """One of the two sides, whatever is moved."""

    @property
    def name(self) -> str:
        """Of the provider, in the file too."""

    @property
    def settings(self) -> Mapping[str, Any]:
        """What stands in ``[providers.NAME]``."""

    @property
    def environ(self) -> Mapping[str, str]:
        """What the settings refer to."""


P = TypeVar("P", bound=Place)


def _toml(value: object) -> str:
    """Write a value as TOML: text, numbers and truths are as in JSON, tables are not."""
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {_toml(each)}" for key, each in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value)


def bucket(*, versioning: bool = False) -> tuple[str, ...]:
    """Declare the bucket."""
    return "[blob.assets]", f'bucket = "{BUCKET}"', f"versioning = {_toml(versioning)}"


class Move(Generic[P]):
    """The move of what is declared.

    Args:
        inside: run the command in this process, which starts sooner.
        declared: lines of the file.
    """

    def __init__(
        self, source: P, target: P, folder: Path, *, inside: bool, declared: tuple[str, ...] = bucket()
    ) -> None:
        self.source = source
        self.target = target
        self.folder = folder
        self.inside = inside
        self.environ = dict(source.environ) | dict(target.environ)
        lines = ["[project]", 'name = "shop"', "[environments.production]", f'provider = "{source.name}"']
        for side in (source, target):
            lines += [f"[providers.{side.name}]", *(f"{key} = {_toml(value)}" for key, value in side.settings.items())]
        lines += declared
        (folder / "shiftable.toml").write_text("\n".join(lines) + "\n", encoding="utf-8")

    @property
    def journal(self) -> Path:
        return self.folder / ".shiftable/migrate.sqlite"

    def arguments(self, *more: str, json_lines: bool = True) -> list[str]:
        form = ["--json"] if json_lines else []
        return ["migrate", "--from", self.source.name, "--to", self.target.name, *form, *more]

    def run(self, *more: str) -> Answer:
        """Run the command to its end."""
        if not self.inside:
            with self.start(*more) as process:
                out, err = process.communicate(timeout=1200)
            answer = Answer(process.returncode, out, err)
        else:
            result = CliRunner().invoke(cli, self.arguments(*more), env=self.environ)
            if result.exception is not None and not isinstance(result.exception, SystemExit):
                raise result.exception
            answer = Answer(result.exit_code, result.stdout, result.stderr)
        assert "Traceback" not in answer.err, answer.err
        assert answer.results, answer.err
        return answer

    def start(self, *more: str, json_lines: bool = True) -> subprocess.Popen[str]:
        """Start the command, as a user does."""
        return subprocess.Popen(
            [COMMAND, *self.arguments(*more, json_lines=json_lines)],
            env=os.environ | self.environ,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

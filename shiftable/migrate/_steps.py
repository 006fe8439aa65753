"""Where a move is that is made in steps: one small file, which every step reads and replaces."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import attrs

from shiftable.errors import MigrationError
from shiftable.files import save
from shiftable.migrate._journal import locked

__all__ = ["StepFile"]


class _State(attrs.AttrsInstance, Protocol):
    """What is written down: an attrs class."""

    @property
    def source(self) -> str: ...

    @property
    def target(self) -> str: ...


S = TypeVar("S", bound=_State)


@attrs.frozen
class StepFile(Generic[S]):
    """The file of one move.

    Args:
        what: it is called in messages, ``cutover``.
        own: fields by which a file is told to be this move's.
        over: tells of another move that nothing of it is left to be done, so that its file may be replaced.
    """

    path: Path
    what: str
    own: tuple[str, ...]
    over: Callable[[S], bool]

    def read(self, fresh: S) -> S:
        """Return what stands there, or ``fresh`` if nothing was begun, or another move stands there that is over.

        Raises:
            MigrationError: it is of another move that is not over, or none that is understood.
        """
        from cattrs.preconf.json import make_converter

        try:
            text = self.path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return fresh
        try:
            state: S = make_converter(forbid_extra_keys=True).structure(json.loads(text), type(fresh))
        except Exception as exc:  # cattrs groups whatever is wrong with any field
            raise MigrationError(
                f"{self.path} is no {self.what} that this shiftable knows; look at it, or move it away"
            ) from exc
        if any(getattr(state, name) != getattr(fresh, name) for name in self.own):
            if self.over(state):
                return fresh
            raise MigrationError(
                f"{self.path} tells of a {self.what} from {state.source} to {state.target}; finish it, or move it away"
            )
        return state

    def write(self, state: S) -> None:
        """Replace the file at once."""
        facts: dict[str, Any] = attrs.asdict(state)
        save([(json.dumps(facts, indent=2) + "\n").encode()], self.path, mode=0o600)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Let nobody else work at the same move."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = locked(self.path)
        try:
            yield
        finally:
            os.close(descriptor)

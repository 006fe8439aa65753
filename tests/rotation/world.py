"""Targets that rotations change, and runs that end, or meet another one, at any point."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar, Protocol

import attrs

from shiftable.errors import Conflict, Fault, Timeout, Unauthenticated, Unavailable
from shiftable.masking import Masked
from shiftable.rotation import Rotation
from shiftable.secrets import Secrets, SecretStore
from shiftable.secrets.driver import SecretsDriver
from shiftable.secrets.rotator import Rotator
from shiftable.testing.wrap import Call, Injected, Recorded

GRACE = timedelta(hours=1)
START = datetime(2026, 3, 1, tzinfo=UTC)
METHODS = ("get", "put", "history", "promote", "disable", "relabel")


class Clock:
    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now

    def advance(self, by: timedelta) -> None:
        self.now += by


class Killed(BaseException):
    """The process has ended here."""


class Refused(Exception):
    """The target's own error."""


class Target(Protocol):
    """A server with users; which passwords each of them may log in with."""

    def read(self) -> dict[str, list[str]]: ...

    def write(self, users: dict[str, list[str]]) -> None: ...

    def locked(self) -> contextlib.AbstractContextManager[None]: ...


@attrs.define
class MemoryTarget:
    users: dict[str, list[str]] = attrs.Factory(dict)
    held: bool = False

    def read(self) -> dict[str, list[str]]:
        return {user: list(passwords) for user, passwords in self.users.items()}

    def write(self, users: dict[str, list[str]]) -> None:
        self.users = users

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        if self.held:
            raise Timeout("waited for the lock of the target")
        self.held = True
        try:
            yield
        finally:
            self.held = False


@attrs.frozen
class FileTarget:
    """The same in a file, for processes that are killed; they come one after another and need no lock."""

    path: Path

    def read(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = json.loads(self.path.read_text())
        return found

    def write(self, users: dict[str, list[str]]) -> None:
        new = self.path.with_suffix(".new")
        new.write_text(json.dumps(users))
        new.replace(self.path)

    def locked(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()


def accepts(target: Target, value: str) -> bool:
    user, _, password = value.partition(":")
    return password in target.read().get(user, [])


_made = iter(range(10**9))


def password() -> str:
    return f"pw-{next(_made):06}-pw"


@attrs.frozen(kw_only=True)
class Users(Rotator):
    """What the rotators of tests share. A value is ``user:password``."""

    target: Target
    point: Callable[[str], None] = lambda _name: None

    def check(self, current: Masked) -> str | None:
        return None if ":" in current.reveal() else "it has no colon"

    def classify(self, exc: Exception) -> Fault | None:
        if isinstance(exc, Injected):
            return exc.fault
        return Fault(Unauthenticated, "refused") if isinstance(exc, Refused) else None

    def test(self, new: Masked) -> None:
        self.point("test")
        if not accepts(self.target, new.reveal()):
            raise Refused

    def change(self, user: str, passwords: Callable[[list[str]], list[str]], confirm: Callable[[], object]) -> None:
        with self.target.locked():
            confirm()
            users = self.target.read()
            self.target.write(users | {user: passwords(users.get(user, []))})


@attrs.frozen(kw_only=True)
class Alternating(Users):
    kind: ClassVar[str] = "test-alternating"

    def create(self, current: Masked | None) -> Masked:
        assert current is not None
        self.point("create")
        return Masked(f"{'b' if current.reveal().startswith('a:') else 'a'}:{password()}")

    def set(self, new: Masked, old: Masked, confirm: Callable[[], object]) -> None:
        self.point("set")
        user, _, wanted = new.reveal().partition(":")
        self.change(user, lambda _: [wanted], confirm)
        self.point("was set")

    def retire(self, old: Masked, current: Masked, confirm: Callable[[], object]) -> None:
        self.point("retire")
        user = old.reveal().partition(":")[0]
        if user != current.reveal().partition(":")[0]:
            self.change(user, lambda _: [], confirm)
        self.point("was retired")


@attrs.frozen(kw_only=True)
class Single(Users):
    """One user, whose old password ends when the new one is set."""

    kind: ClassVar[str] = "test-single"

    def create(self, current: Masked | None) -> Masked:
        if current is None:
            raise Conflict("it begins from something")
        return Masked(f"a:{password()}")

    def set(self, new: Masked, old: Masked, confirm: Callable[[], object]) -> None:
        self.point("set")
        self.change("a", lambda _: [new.reveal().partition(":")[2]], confirm)
        self.point("was set")


@attrs.define
class World:
    """A store, a target, a clock, and what happens at the points of a run: before and after each call of either."""

    driver: SecretsDriver
    clock: Clock
    target: Target = attrs.Factory(MemoryTarget)
    grace: timedelta = GRACE
    prefix: str = "shop"
    seen: list[str] = attrs.Factory(list)
    at: dict[int, Callable[[], None]] = attrs.Factory(dict)
    was_current: dict[str, datetime] = attrs.Factory(dict)
    recorded: Recorded[SecretsDriver] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.recorded = Recorded(self.driver)
        for name in METHODS:
            self.recorded.on(name, self._around(name))

    def _around(self, name: str) -> Callable[[Call, Callable[[], Any]], Any]:
        def action(_call: Call, proceed: Callable[[], Any]) -> Any:
            self.point(f"before {name}")
            found = proceed()
            self.point(f"after {name}")
            return found

        return action

    def point(self, name: str) -> None:
        number = len(self.seen)
        self.seen.append(name)
        if number in self.at:
            self.at.pop(number)()

    @property
    def store(self) -> SecretStore:
        return Secrets(self.recorded.driver).store(self.prefix)

    @property
    def plain(self) -> SecretStore:
        """The same secrets without any points."""
        return Secrets(self.driver).store(self.prefix)

    def begin(self, value: str = "a:first") -> None:
        user, _, word = value.partition(":")
        self.target.write({user: [word]})
        self.plain.put("key", value)
        self.look()

    def rotation(self, kind: type[Users] = Alternating, **options: Any) -> Rotation:
        made = kind(target=self.target, point=self.point, grace=self.grace, **options)
        return Rotation(self.store, "key", made, self.clock)

    def again(self, at: dict[int, Callable[[], None]] | None = None) -> None:
        """Count points from 0 again."""
        self.seen, self.at = [], dict(at or {})

    def look(self) -> str:
        """Note what is current now; a client may use it for as long as a grace."""
        current = self.plain.get("key").reveal()
        self.was_current[current] = self.clock()
        return current

    def check(self) -> None:
        """Whatever was current within the grace lets a client in."""
        self.look()
        for value, moment in self.was_current.items():
            if self.clock() - moment < self.grace:
                assert accepts(self.target, value), f"what was current at {moment} is refused at {self.clock()}"


def kill() -> None:
    raise Killed


def drop() -> None:
    raise Injected(Fault(Unavailable, "the connection was dropped"))

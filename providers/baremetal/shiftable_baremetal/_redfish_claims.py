"""Who has which server: one object of a bucket, replaced only in the version that was read.

So of many claimers one succeeds, wherever they run, and what all of them see is of one moment. Redfish itself has no
place for it: see docs/explanation/design.md.
"""

from __future__ import annotations

import contextlib
import json
import random
import threading
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Literal

import attrs

from shiftable.blob import Bucket, Token
from shiftable.errors import Conflict, NotFound, ParentNotFound, PreconditionFailed

__all__ = ["Aim", "Book", "Claim", "Claims"]

Aim = Literal["boot", "on", "off", "restart", "gone"]
"""What was asked of a server last."""

_KEY = "claims.json"
_TIMES = ("created", "asked", "busy")
_ATTEMPTS = 40
_PAUSE = 0.05  # seconds, and longer with each attempt


@attrs.frozen(kw_only=True)
class Claim:
    """One server, and whose it is.

    Args:
        mark: of this claim alone.
        memory: in bytes.
        asked: when the BMC was told; ``None`` before.
        reached: the power has been as asked since.
        tries: how often the BMC was told.
        rising: the power was being turned on when it was asked to go, and may still come.
        before: when it was reset last before it was asked to restart, as the BMC tells.
        task: what the BMC calls its work on it.
        failed: why it will never be as asked.
        busy: since when somebody tells the BMC something, who alone may until that is over or long ago.
    """

    server: str
    mark: str
    fleet: str
    name: str
    token: str
    image: str
    size: str
    cpus: int
    memory: int
    disk_gib: int
    labels: Mapping[str, str]
    created: datetime
    aim: Aim = "boot"
    asked: datetime | None = None
    reached: bool = False
    tries: int = 0
    rising: bool = False
    before: str | None = None
    task: str | None = None
    failed: str = ""
    busy: datetime | None = None


Book = Mapping[str, Claim]
"""All claims, by the name of the server."""


@attrs.define(eq=False)
class Claims:
    """All claims.

    Args:
        open: returns the bucket.
        prefix: of the object.
        sleep: waits between two attempts.
    """

    _open: Callable[[], Bucket]
    _prefix: str = ""
    _sleep: Callable[[float], None] = attrs.field(default=time.sleep, kw_only=True)
    _lock: threading.Lock = attrs.field(factory=threading.Lock, init=False)

    def read(self) -> Book:
        """Return all claims."""
        return self._read(self._open())[0]

    def change(self, edit: Callable[[Book], Book | None]) -> Book:
        """Replace all claims by what ``edit`` makes of them, and return that; ``None`` leaves them as they are.

        Args:
            edit: called again when somebody else was faster.

        Raises:
            Conflict: somebody else always was.
        """
        bucket = self._open()
        for attempt in range(_ATTEMPTS):
            with self._lock:  # threads of one process need not fail each other
                book, token = self._read(bucket)
                edited = edit(book)
                if edited is None:
                    return book
                with contextlib.suppress(PreconditionFailed):
                    bucket.put(self._key, _written(edited), if_absent=token is None, if_match=token)
                    return edited
            self._sleep(random.uniform(0, _PAUSE * (attempt + 1)))  # noqa: S311  it only spreads clients
        raise Conflict("others claim servers at the same time; try again", provider="baremetal")

    def replace(self, claim: Claim, after: Claim) -> bool:
        """Replace one claim if it is still as it was seen; tell whether it was."""
        done = False

        def edit(book: Book) -> Book | None:
            nonlocal done
            done = book.get(claim.server) == claim
            return {**book, after.server: after} if done else None

        self.change(edit)
        return done

    def alter(self, claim: Claim, alter: Callable[[Claim], Claim | None]) -> Claim | None:
        """Replace one claim, however it is by now, by what ``alter`` makes of it, and return that; or remove it."""

        def edit(book: Book) -> Book | None:
            now = book.get(claim.server)
            if now is None or now.mark != claim.mark:
                return None
            after = alter(now)
            rest = {server: each for server, each in book.items() if server != claim.server}
            return rest if after is None else {**rest, after.server: after}

        now = self.change(edit).get(claim.server)
        return now if now is not None and now.mark == claim.mark else None

    @property
    def _key(self) -> str:
        return f"{self._prefix}{_KEY}"

    def _read(self, bucket: Bucket) -> tuple[Book, Token | None]:
        try:
            with bucket.stream(self._key) as stream:
                return _read(stream.read(), f"{bucket.name}/{self._key}"), stream.info.token
        except ParentNotFound:
            raise
        except NotFound:
            return {}, None


def _written(book: Book) -> bytes:
    told = [attrs.asdict(book[server], value_serializer=_plain) for server in sorted(book)]
    return json.dumps({"format": 1, "claims": told}, indent=1).encode()


def _plain(_: object, __: object, value: Any) -> Any:  # noqa: ANN401  any JSON
    return value.isoformat() if isinstance(value, datetime) else value


def _read(content: bytes, place: str) -> Book:
    try:
        told = json.loads(content)
        claims = [
            Claim(**{**each, **{name: datetime.fromisoformat(each[name]) for name in _TIMES if each[name] is not None}})
            for each in told["claims"]
        ]
    except (ValueError, KeyError, TypeError) as exc:
        raise Conflict(f"what lies in {place} are no claims of this program", provider="baremetal") from exc
    return {claim.server: claim for claim in claims}

"""What a bucket holds of a whole server of any engine, to restore any time: base backups, and the log after them.

server/archive.json             whose it is: what only that server knows, and what the archive is called after
server/archived.json            until when all of the log is there
server/backups/NAME.json        a base backup that is complete: written last, with the size and SHA-256 of
server/base/NAME.gz             what a stock program wrote, packed

gzip reads it all. Nothing is changed in place but what says how far the log is stored, and the last part of that.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import secrets
import time
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, Generic, NoReturn, Self, TypeVar

import attrs

from shiftable.blob import Bucket
from shiftable.database.driver import BaseBackup
from shiftable.errors import (
    Conflict,
    IntegrityError,
    NotFound,
    OperationError,
    ParentNotFound,
    PreconditionFailed,
)
from shiftable_baremetal._servers_engine import fail

__all__ = ["Archive", "GapError", "Owner", "StoredBase", "digest_of", "fail_for_gap", "within", "zipped"]

_OLD = timedelta(days=1)  # longer than a base backup stays without its manifest
_NAME = re.compile(r"\d{8}T\d{6}\.\d{6}Z")
_STAMP = "%Y%m%dT%H%M%S.%fZ"
_CHUNK = 1024 * 1024
_STEP = 0.2


class GapError(Exception):
    """The server has deleted what comes next in its log."""


def fail_for_gap(gap: GapError) -> NoReturn:
    """Say what to do about a gap that nobody has accepted."""
    how = "go on with `shiftable db archive --over-gap`, and make a base backup then"
    fail(Conflict, f"{gap}: times from then on cannot be restored from what is stored; {how}")


def within(seconds: float, probe: Callable[[], bool]) -> bool:
    """Wait until something is so; false if it is not for so long."""
    end = time.monotonic() + seconds
    while not probe():
        if time.monotonic() > end:
            return False
        time.sleep(_STEP)
    return True


@attrs.frozen(kw_only=True)
class Owner:
    """Whose archive it is.

    Args:
        system: identifier of the server, which its standbys share and no other server has.
        id: of the archive.
    """

    system: str
    id: str


@attrs.frozen(kw_only=True)
class StoredBase:
    """A complete base backup.

    Args:
        unpacked: bytes of what the stock program wrote.
        sha256: of what is stored.
    """

    backup: BaseBackup
    unpacked: int
    sha256: str

    def text(self) -> str:
        """Return the manifest."""
        told = attrs.asdict(self)
        told["backup"] |= {name: told["backup"][name].isoformat() for name in ("began", "restorable_from")}
        return json.dumps({"format": 1, **told}, indent=2)

    @classmethod
    def read(cls, text: bytes) -> Self:
        """Read a manifest."""
        known: dict[str, Any] = json.loads(text)
        del known["format"]
        told = known.pop("backup")
        times = {name: datetime.fromisoformat(told[name]) for name in ("began", "restorable_from")}
        return cls(backup=BaseBackup(**{**told, **times}), **known)


B = TypeVar("B", bound=StoredBase)


@attrs.frozen
class Archive(ABC, Generic[B]):
    """The archive of one server.

    Args:
        bucket: opens the bucket, which exists.
        prefix: of all keys.
    """

    ending: ClassVar[str]
    """Of the names of base backups."""

    _bucket: Callable[[], Bucket]
    _prefix: str = ""

    @property
    @abstractmethod
    def _kind(self) -> type[B]:
        """What is noted of a base backup."""

    @abstractmethod
    def _unneeded(self, left: Sequence[B]) -> list[str]:
        """Return the keys of what of the log no base backup that is left needs."""

    # whose it is

    def owner(self) -> Owner | None:
        """Return whose archive it is, if there is one."""
        text = self._text("archive.json")
        return None if text is None else Owner(**json.loads(text))

    def claim(self, system: str) -> Owner:
        """Begin an archive for a server, unless it is that server's already; another one's is a conflict."""
        made = Owner(system=system, id=secrets.token_hex(4))
        with contextlib.suppress(PreconditionFailed):
            self._bucket().put(self._key("archive.json"), json.dumps(attrs.asdict(made)).encode(), if_absent=True)
        return self.check(system)

    def check(self, system: str) -> Owner:
        """Return whose archive it is; fail unless it is that server's."""
        owner = self.owner()
        if owner is None:
            fail(Conflict, "its log is not archived: start `shiftable db archive` first, and keep it running")
        if owner.system != system:
            why = f"the bucket has the archive of another server there, {owner.system}, and this one is {system}"
            fail(Conflict, f"{why}: give this one another prefix in `snapshots`")
        return owner

    def until(self) -> datetime | None:
        """Return until when all of the log is there."""
        noted = self._noted("archived.json")
        return None if noted is None else datetime.fromisoformat(noted["until"])

    # base backups

    def bases(self) -> list[B]:
        """Return all base backups that are complete, the oldest first."""
        keys = [each.key for each in self._bucket().list(self._key("backups/"))]
        return [self._kind.read(text) for key in keys if (text := self._get(key)) is not None]

    def names_of_bases(self) -> list[str]:
        """Return the names of all base backups that are complete, the oldest first."""
        above = self._key("backups/")
        return [each.key.removeprefix(above).removesuffix(".json") for each in self._bucket().list(above)]

    def base(self, name: str) -> B:
        """Return a base backup."""
        text = self._text(f"backups/{name}.json") if _NAME.fullmatch(name) else None
        if text is None:
            fail(NotFound, f"there is no base backup {name!r}")
        return self._kind.read(text)

    def add(self, data: Iterator[bytes], finish: Callable[[bytes], dict[str, Any]]) -> B:
        """Store a base backup, and then its manifest; or nothing.

        Args:
            data: what the stock program writes.
            finish: called with its beginning when all of it is stored; says what else is to be noted.
        """
        began = datetime.now(UTC)
        name = began.strftime(_STAMP)
        bucket, key = self._bucket(), self._key_of_base(name)
        with contextlib.suppress(OperationError):  # it can be done another time
            self._sweep(bucket)
        measured = _Measured(data)
        try:
            bucket.put(key, measured.stored())
            known = finish(bytes(measured.head))
            backup = BaseBackup(
                name=name,
                version=known.pop("version"),
                began=began,
                restorable_from=known.pop("restorable_from"),
                size=measured.size,
            )
            sums: dict[str, Any] = {"unpacked": measured.unpacked, "sha256": measured.digest.hexdigest()}
            base = self._kind(backup=backup, **sums, **known)
            bucket.put(self._key(f"backups/{name}.json"), base.text().encode())
        except BaseException:
            with contextlib.suppress(OperationError):  # what cannot be deleted now goes with a later one
                bucket.delete(key)
            raise
        return base

    def data(self, base: B) -> Iterator[bytes]:
        """Yield what the stock program wrote; fail after the last piece unless it is what was stored once.

        Raises:
            IntegrityError: it was changed or cut short.
        """
        digest, size = hashlib.sha256(), 0

        def seen() -> Iterator[bytes]:
            nonlocal size
            for piece in self._stored(key):
                digest.update(piece)
                size += len(piece)
                yield piece

        key = self._key_of_base(base.backup.name)
        try:
            yield from _unzipped(seen(), key)
        except NotFound:
            fail(IntegrityError, f"the base backup's {key!r} is gone from the bucket")
        if (size, digest.hexdigest()) != (base.backup.size, base.sha256):
            fail(IntegrityError, f"{key!r} is not what was stored; nothing is made of it")

    def remove(self, name: str) -> None:
        """Delete a base backup: it vanishes at once, then its data go, and what of the log only it needs."""
        self.base(name)
        self._remove([name])

    def prune(self, earliest: datetime) -> None:
        """Delete what no restore to that time or a later one needs."""
        old = [base.backup for base in self.bases() if base.backup.restorable_from <= earliest]
        old.sort(key=lambda backup: backup.restorable_from)  # their names are of other clocks
        self._remove([backup.name for backup in old[:-1]])

    def _remove(self, names: Sequence[str]) -> None:
        """Delete base backups, manifests first; and the log before the first that is left. None left: all stays."""
        bucket = self._bucket()
        _forget(bucket, [self._key(f"backups/{name}.json") for name in names])
        _forget(bucket, [self._key_of_base(name) for name in names])
        if left := self.bases():
            _forget(bucket, self._unneeded(left))

    def _sweep(self, bucket: Bucket) -> None:
        """Delete what killed backups have left: it is old, and has no manifest."""
        above, until, known = self._key("base/"), datetime.now(UTC) - _OLD, set(self.names_of_bases())
        left = [each.key for each in bucket.list(above) if each.modified < until]
        _forget(bucket, [key for key in left if key.removeprefix(above).removesuffix(self.ending) not in known])
        bucket.abort_uploads(above, older_than=_OLD)

    # one step each

    def _key(self, name: str) -> str:
        return f"{self._prefix}server/{name}"

    def _key_of_base(self, name: str) -> str:
        return self._key(f"base/{name}{self.ending}")

    def _note(self, name: str, told: dict[str, Any]) -> None:
        self._bucket().put(self._key(name), json.dumps(told).encode())

    def _noted(self, name: str) -> dict[str, Any] | None:
        text = self._text(name)
        return None if text is None else dict(json.loads(text))

    def _text(self, name: str) -> bytes | None:
        return self._get(self._key(name))

    def _get(self, key: str) -> bytes | None:
        try:
            return self._bucket().get(key)
        except ParentNotFound:
            raise
        except NotFound:
            return None

    def _pieces(self, key: str) -> Iterator[bytes]:
        return _unzipped(self._stored(key), key)

    def _stored(self, key: str) -> Iterator[bytes]:
        with self._bucket().open(key) as source:
            while piece := source.read(_CHUNK):
                yield piece


@attrs.define
class _Measured:
    """What flows into the bucket, and what is known of it when all has."""

    _data: Iterator[bytes]
    head: bytearray = attrs.field(factory=bytearray, init=False)
    unpacked: int = attrs.field(default=0, init=False)
    size: int = attrs.field(default=0, init=False)
    digest: Any = attrs.field(factory=hashlib.sha256, init=False)

    def stored(self) -> Iterator[bytes]:
        """Yield what is stored."""
        for piece in zipped(self._told()):
            self.digest.update(piece)
            self.size += len(piece)
            yield piece

    def _told(self) -> Iterator[bytes]:
        for piece in self._data:
            self.head += piece[: max(0, 64 * 1024 - len(self.head))]
            self.unpacked += len(piece)
            yield piece


def zipped(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Pack pieces as gzip does."""
    packer = zlib.compressobj(1, wbits=31)  # the fastest: 31 is gzip's format
    for piece in pieces:
        if packed := packer.compress(piece):
            yield packed
    yield packer.flush()


def _unzipped(pieces: Iterable[bytes], key: str) -> Iterator[bytes]:
    unpacker = zlib.decompressobj(wbits=31)
    try:
        for piece in pieces:
            rest = piece
            while rest and not unpacker.eof:
                yield unpacker.decompress(rest, _CHUNK)
                rest = unpacker.unconsumed_tail
        yield unpacker.flush()
    except zlib.error:
        fail(IntegrityError, f"{key!r} is not what was stored: its content does not unpack")
    if not unpacker.eof:
        fail(IntegrityError, f"{key!r} is not what was stored: its end is missing")


def digest_of(pieces: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
    return digest.hexdigest()


def _forget(bucket: Bucket, keys: Sequence[str]) -> None:
    failed = bucket.delete_many(keys)
    for error in failed.values():
        raise error

"""Snapshots of databases on servers, in a bucket: the stock programs' dumps, and a manifest that makes them count.

snapshots/orders/first.json     what it is of, and the size and SHA-256 of each part; written last
parts/orders/first/0            one database, as pg_dump or mariadb-dump writes it
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import attrs

from shiftable.blob import Bucket
from shiftable.database.driver import Snapshot
from shiftable.errors import AlreadyExists, IntegrityError, InvalidArgument, NotFound, OperationError, ParentNotFound
from shiftable_baremetal._servers_engine import fail

__all__ = ["Part", "Snapshots", "Taken"]

_OLD = timedelta(days=1)  # longer than a snapshot takes
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


@attrs.frozen(kw_only=True)
class Part:
    """One database of a snapshot.

    Args:
        database: as it is declared.
        key: of the object.
        size: in bytes.
    """

    database: str
    key: str
    size: int
    sha256: str


@attrs.frozen(kw_only=True)
class Taken:
    """A complete snapshot.

    Args:
        role: whose the databases were, as the server called it.
    """

    snapshot: Snapshot
    role: str
    parts: Sequence[Part]

    def text(self) -> str:
        """Return the manifest."""
        told = attrs.asdict(self.snapshot, filter=attrs.filters.exclude("state", "automatic"))
        created = cast("datetime", self.snapshot.created).isoformat()
        parts = [attrs.asdict(part) for part in self.parts]
        return json.dumps({"format": 1, **told, "created": created, "role": self.role, "parts": parts}, indent=2)

    @classmethod
    def read(cls, text: bytes) -> Taken:
        """Read a manifest."""
        known: dict[str, Any] = json.loads(text)
        snapshot = Snapshot(
            name=known["name"],
            database=known["database"],
            state="available",
            engine=known["engine"],
            version=known["version"],
            created=datetime.fromisoformat(known["created"]),
            storage_gib=known["storage_gib"],
        )
        return cls(snapshot=snapshot, role=known["role"], parts=[Part(**part) for part in known["parts"]])


@attrs.frozen
class Snapshots:
    """The snapshots of one server.

    Args:
        bucket: opens the bucket, which exists.
        prefix: of all keys.
    """

    _bucket: Callable[[], Bucket]
    _prefix: str = ""

    def keys(self, name: str | None) -> list[tuple[str, str]]:
        """Return resources and names of all complete snapshots, in order."""
        above = f"{self._prefix}snapshots/"
        found = self._bucket().list(above if name is None else f"{above}{name}/")
        whole = (each.key.removeprefix(above).removesuffix(".json").partition("/") for each in found)
        return sorted((resource, snapshot) for resource, _, snapshot in whole)

    def get(self, name: str, snapshot: str) -> Taken:
        """Return a snapshot."""
        if not _NAME.fullmatch(snapshot):
            fail(NotFound, f"there is no snapshot {snapshot!r}")
        try:
            text = self._bucket().get(self._manifest(name, snapshot))
        except ParentNotFound:
            raise
        except NotFound:
            fail(NotFound, f"there is no snapshot {snapshot!r}")
        return Taken.read(text)

    def check_new(self, name: str, snapshot: str) -> None:
        """Fail if there cannot be a new snapshot of that name."""
        if not _NAME.fullmatch(snapshot):
            fail(InvalidArgument, f"{snapshot!r} is no name of a snapshot: letters, digits, dot, _ and - (at most 128)")
        if self._bucket().exists(self._manifest(name, snapshot)):
            fail(AlreadyExists, f"there is a snapshot {snapshot!r}")

    def add(self, snapshot: Snapshot, role: str, databases: Mapping[str, Callable[[], Iterator[bytes]]]) -> None:
        """Store the databases one after another, and then the manifest; or nothing."""
        bucket, parts = self._bucket(), []
        with contextlib.suppress(OperationError):  # it can be done another time
            self._sweep(bucket, snapshot.database)
        place = f"{self._prefix}parts/{snapshot.database}/{snapshot.name}"
        try:
            for number, (database, dump) in enumerate(databases.items()):
                key, digest, size = f"{place}/{number}", hashlib.sha256(), 0
                with bucket.open(key, "wb") as sink:
                    for piece in dump():
                        digest.update(piece)
                        size += len(piece)
                        sink.write(piece)
                parts.append(Part(database=database, key=key, size=size, sha256=digest.hexdigest()))
            taken = Taken(snapshot=snapshot, role=role, parts=parts)
            bucket.put(self._manifest(snapshot.database, snapshot.name), taken.text().encode())
        except BaseException:
            with contextlib.suppress(OperationError):  # what cannot be deleted now goes with a later snapshot
                self._forget(bucket, [each.key for each in bucket.list(f"{place}/")])
            raise

    def remove(self, name: str, snapshot: str) -> None:
        """Delete a snapshot: it vanishes at once, and then its parts go."""
        taken, bucket = self.get(name, snapshot), self._bucket()
        bucket.delete(self._manifest(name, snapshot))
        self._forget(bucket, [part.key for part in taken.parts])

    def verify(self, taken: Taken) -> None:
        """Read all of a snapshot, and fail unless it is what was stored."""
        for part in taken.parts:
            for _ in self.pieces(part):
                pass

    def pieces(self, part: Part) -> Iterator[bytes]:
        """Yield what is stored of one database; fail after the last piece unless it is what was stored once.

        Raises:
            IntegrityError: it was changed or cut short.
        """
        digest, size = hashlib.sha256(), 0
        try:
            with self._bucket().open(part.key) as source:
                while piece := source.read(1024 * 1024):
                    digest.update(piece)
                    size += len(piece)
                    yield piece
        except NotFound:
            fail(IntegrityError, f"the snapshot's part {part.key!r} is gone from the bucket")
        if (size, digest.hexdigest()) != (part.size, part.sha256):
            fail(IntegrityError, f"the snapshot's part {part.key!r} is not what was stored; nothing is made of it")

    def _sweep(self, bucket: Bucket, name: str) -> None:
        """Delete what killed snapshots of a resource have left: it is old, and has no manifest."""
        above, until = f"{self._prefix}parts/{name}/", datetime.now(UTC) - _OLD
        known = {snapshot for _, snapshot in self.keys(name)}
        left = [each.key for each in bucket.list(above) if each.modified < until]
        self._forget(bucket, [key for key in left if key.removeprefix(above).partition("/")[0] not in known])
        bucket.abort_uploads(above, older_than=_OLD)

    def _manifest(self, name: str, snapshot: str) -> str:
        return f"{self._prefix}snapshots/{name}/{snapshot}.json"

    def _forget(self, bucket: Bucket, keys: Sequence[str]) -> None:
        failed = bucket.delete_many(keys)
        for error in failed.values():
            raise error

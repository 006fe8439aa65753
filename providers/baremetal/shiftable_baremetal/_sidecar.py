"""What goes with an object and does not fit into a plain file: headers, metadata, tags, MD5.

A sidecar belongs to one *identity* of the object's file: its inode, modification time and size. It is written before
the file is put into place and found only through the file that is there, so content and metadata change in one step.
A file that other tools made or changed has another identity, and so no sidecar; but one that they moved with its root
to another disk (``rsync -a``, ``cp -a``) still has its time and size, to the nanosecond and the byte, and keeps it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import attrs

from shiftable.blob.driver import Headers, ObjectInfo, ObjectSummary
from shiftable.tokens import Token
from shiftable_baremetal._area import Area, write_all
from shiftable_baremetal._faults import damaged

__all__ = ["Sidecar", "Sidecars", "info_of", "modified", "read_sidecar", "summary_of", "token_of"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def token_of(found: os.stat_result) -> Token:
    """Name the identity of a file. Renames and links keep it, every write changes it."""
    return Token(f"{found.st_mtime_ns:x}-{found.st_ino:x}-{found.st_size:x}")


def modified(nanoseconds: int) -> datetime:
    """Return a file's time, exact to the microsecond, which a float is not; the nearest that a calendar has."""
    try:
        return _EPOCH + timedelta(microseconds=nanoseconds // 1000)
    except OverflowError:
        return datetime.max.replace(tzinfo=UTC) if nanoseconds > 0 else datetime.min.replace(tzinfo=UTC)


@attrs.frozen(kw_only=True)
class Sidecar:
    """Everything about an object that its file does not say.

    Args:
        md5: in hex, where the content passed through this driver.
        storage_class: as it was told; a file has none.
        versioned: the object was written while its bucket had versioning: it is kept when it is replaced.
    """

    headers: Headers = attrs.Factory(Headers)
    metadata: Mapping[str, str] = attrs.Factory(dict)
    tags: Mapping[str, str] = attrs.Factory(dict)
    md5: str | None = None
    storage_class: str | None = None
    versioned: bool = False

    def dump(self) -> bytes:
        """Return it as JSON."""
        values = {
            "headers": attrs.asdict(self.headers),
            "metadata": dict(self.metadata),
            "tags": dict(self.tags),
            "md5": self.md5,
            "storage_class": self.storage_class,
            "versioned": self.versioned,
        }
        return json.dumps(values, ensure_ascii=False).encode()

    @classmethod
    def load(cls, text: bytes) -> Sidecar:
        """Read it from JSON."""
        values: dict[str, Any] = json.loads(text)
        return cls(**{**values, "headers": Headers(**values["headers"])})


def summary_of(key: str, found: os.stat_result) -> ObjectSummary:
    """Describe an object by its file alone."""
    return ObjectSummary(key=key, size=found.st_size, token=token_of(found), modified=modified(found.st_mtime_ns))


def info_of(key: str, found: os.stat_result, sidecar: Sidecar, version: str | None) -> ObjectInfo:
    """Describe an object by its file and its sidecar."""
    return ObjectInfo(
        key=key,
        size=found.st_size,
        token=Token(version) if version is not None else token_of(found),
        modified=modified(found.st_mtime_ns),
        md5=bytes.fromhex(sidecar.md5) if sidecar.md5 else None,
        storage_class=sidecar.storage_class or "standard",
        headers=sidecar.headers,
        metadata=sidecar.metadata,
        version=version,
        tag_count=len(sidecar.tags),
    )


def read_sidecar(path: str, *, folder: int | None = None) -> Sidecar | None:
    """Read a sidecar's file; ``None`` if there is none.

    Raises:
        FilesError: the file is not what we wrote.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=folder)
    except FileNotFoundError:
        return None
    try:
        text = os.read(fd, os.fstat(fd).st_size)
    finally:
        os.close(fd)
    try:
        return Sidecar.load(text)
    except (ValueError, KeyError, TypeError) as exc:
        raise damaged(f"the metadata in {path} is damaged; write the object again") from exc


@attrs.frozen
class Sidecars:
    """The sidecars of one bucket: ``sidecars/3f2/<hash of the key>.<token>``."""

    area: Area
    bucket: str

    def path(self, key: str, token: Token) -> str:
        """Return where the sidecar of one identity of an object lies."""
        folder, name = self._place(key)
        return f"{folder}/{name}.{token}"

    def read(self, key: str, token: Token) -> Sidecar | None:
        """Return the sidecar of one identity of an object; ``None`` if there is none."""
        return read_sidecar(self.path(key, token)) or self._of_a_copy(key, token)

    def write(self, key: str, token: Token, sidecar: Sidecar, content: int) -> None:
        """Store the sidecar of a file that is not yet in its place, and make both durable. The key is locked.

        Args:
            content: the file, open. All syncs come last and together: most file systems then write their journal
                once for all of them.
        """
        path = self.path(key, token)
        made: list[Path] = []
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        try:
            try:
                fd = os.open(path, flags, 0o666)
            except FileNotFoundError:
                made = self.area.make_unsynced(Path(path).parent)
                fd = os.open(path, flags, 0o666)
            try:
                write_all(fd, sidecar.dump(), 0)
                self.area.sync(content)
                self.area.sync(fd)
            finally:
                os.close(fd)
            for folder in (Path(path).parent, *made) if self.area.fsync else ():
                self.area.sync_folder(folder)
        except BaseException:
            self.drop(key, token)
            raise

    def drop(self, key: str, token: Token) -> None:
        """Remove the sidecar of a file that did not come into its place."""
        with contextlib.suppress(OSError):
            Path(self.path(key, token)).unlink()

    def replace(self, key: str, token: Token, sidecar: Sidecar) -> None:
        """Change the sidecar of an object that stays as it is. The key is locked."""
        path = Path(self.path(key, token))
        self.area.make(path.parent)
        with self.area.staged() as staged:
            write_all(staged.fd, sidecar.dump(), 0)
            self.area.sync(staged.fd)
            staged.path.rename(path)
        self.area.sync_folder(path.parent)

    def sweep(self, key: str, keep: Token | None) -> None:
        """Remove the sidecars of all other identities: older ones, and those that a crash left. The key is locked."""
        place, name = self._place(key)
        kept = f"{name}.{keep}"
        try:
            folder = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        try:
            for found in os.listdir(folder):  # noqa: PTH208  a descriptor
                if found != kept and found.startswith(name):
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(found, dir_fd=folder)
        finally:
            os.close(folder)

    def _of_a_copy(self, key: str, token: Token) -> Sidecar | None:
        """Return the sidecar of a file of the same time and size: the whole root was copied, and only inodes differ.

        Not its MD5, as time and size can be given to any content.
        """
        place, name = self._place(key)
        time, _, size = token.value.rsplit("-", 2)  # before 1970 the time begins with one, too
        try:
            found = [path.name for path in Path(place).iterdir()]
        except FileNotFoundError:
            return None
        same = [each for each in found if each.startswith(f"{name}.{time}-") and each.endswith(f"-{size}")]
        sidecar = read_sidecar(f"{place}/{same[0]}") if len(same) == 1 else None
        return attrs.evolve(sidecar, md5=None) if sidecar else None

    def _place(self, key: str) -> tuple[str, str]:
        name = hashlib.sha256(key.encode()).hexdigest()[:40]
        return f"{self.area.of(self.bucket)}/sidecars/{name[:3]}", name

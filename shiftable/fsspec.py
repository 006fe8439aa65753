"""``shiftable://assets/path`` for everything that reads and writes through fsspec, as pandas, Polars and Dask do.

Importing this module needs ``shiftable[fsspec]``; fsspec finds it by its entry point.
"""

from __future__ import annotations

import errno
import io
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, cast

import attrs
from fsspec.callbacks import DEFAULT_CALLBACK
from fsspec.spec import AbstractBufferedFile, AbstractFileSystem, make_instance
from fsspec.utils import isfilelike, tokenize

from shiftable import manifest
from shiftable.app import ENVIRONMENT_VARIABLE, App, load
from shiftable.blob import Bucket, CommonPrefix, Method, ObjectInfo, ObjectSummary
from shiftable.cloud import Cloud, connect
from shiftable.errors import (
    AlreadyExists,
    ConfigError,
    InvalidArgument,
    NotFound,
    OperationError,
    ParentNotFound,
    PermissionDenied,
    PreconditionFailed,
    Throttled,
    Timeout,
    Unauthenticated,
    Unsupported,
)
from shiftable.files import save

__all__ = ["ShiftableFile", "ShiftableFileSystem"]

_WORKERS = 16
_CHUNK = 1024 * 1024

Entry = dict[str, Any]


@attrs.define
class Homes:
    """The applications and providers of this process, each connected once, whatever file systems use it."""

    found: list[tuple[Mapping[str, Any], App | Cloud]] = attrs.Factory(list)
    lock: threading.Lock = attrs.Factory(threading.Lock)

    def get(self, where: Mapping[str, Any]) -> App | Cloud:
        """Return the one that is told, connected when it is first asked for."""
        with self.lock:
            for known, home in self.found:
                if known == where:
                    return home
            self.found.append((where, _connected(where)))
            return self.found[-1][1]

    def clear(self) -> None:
        """Close and forget all."""
        with self.lock:
            for _, home in self.found:
                home.close()
            self.found.clear()

    def start_again(self) -> None:
        """Forget all in a forked child, which must use no connection of its parent, nor a lock that it held."""
        self.found = []
        self.lock = threading.Lock()


_homes = Homes()
os.register_at_fork(after_in_child=_homes.start_again)


def _connected(where: Mapping[str, Any]) -> App | Cloud:
    if "provider" in where:
        return connect(where["provider"], **where["settings"])
    return load(where["file"], environment=where["environment"])


class ShiftableFileSystem(AbstractFileSystem):  # type: ignore[misc]  # fsspec has no types
    """The buckets that an application declares, as one file system: the first part of a path is a label.

    Folders are what keys have in common up to a slash: they exist while something is in them, and making one does
    nothing. Keys are kept byte for byte; those that end in a slash only mark folders, and an empty name within a key
    (``a//b``) is found by ``find`` and ``glob`` and opened by its path, and is not a step of ``ls`` and ``walk``.

    Listings are not kept, as others write too; ``use_listings_cache=True`` keeps them until this object writes.
    A file is visible when it is closed, whole; a ``with`` block that ends by an exception leaves none.

    Errors are Python's: ``FileNotFoundError``, ``FileExistsError``, ``PermissionError``, ``TimeoutError``, and
    ``OSError`` for others, each with ours as its cause.

    Args:
        file: the ``shiftable.toml``, else the nearest one above.
        environment: else ``SHIFTABLE_ENV``, else as ``shiftable.load`` chooses.
        provider: a provider's type; then no file is read, ``settings`` are those of ``shiftable.connect``, and the
            first part of a path is a bucket.
    """

    protocol = "shiftable"
    async_impl: ClassVar[bool] = False
    cachable: ClassVar[bool] = (
        False  # fsspec's cache does not see that the folder or SHIFTABLE_ENV is another; ours does
    )

    def __init__(
        self,
        file: str | os.PathLike[str] | None = None,
        environment: str | None = None,
        provider: str | None = None,
        settings: Mapping[str, object] | None = None,
        *,
        use_listings_cache: bool = False,
        **options: Any,  # noqa: ANN401  fsspec's own, as skip_instance_cache
    ) -> None:
        super().__init__(use_listings_cache=use_listings_cache, **options)
        self._options: dict[str, Any] = {"use_listings_cache": use_listings_cache, **options}
        self._where: dict[str, Any]
        if provider is not None:
            self._where = {"provider": provider, "settings": dict(settings or {})}
        else:
            # Where they are now: a worker elsewhere, or this process later, may stand in another folder.
            path = Path(file) if file is not None else _found()
            self._where = {
                "file": str(path.resolve()),
                "environment": environment or os.environ.get(ENVIRONMENT_VARIABLE),
            }

    # which buckets

    @property
    def _home(self) -> App | Cloud:
        return _homes.get(self._where)

    @classmethod
    def clear_instance_cache(cls) -> None:
        """Close all connections; they are made again when they are needed."""
        super().clear_instance_cache()
        _homes.clear()

    def bucket(self, path: str) -> tuple[Bucket, str]:
        """Return the bucket of a path and the key in it, to do what fsspec has no word for."""
        label, _slash, key = cast("str", self._strip_protocol(path)).partition("/")
        if not label:
            raise FileNotFoundError(errno.ENOENT, "a path begins with a label", path)
        home = self._home
        try:
            return (home.blob(label) if isinstance(home, App) else home.blob.bucket(label)), key
        except (ConfigError, InvalidArgument) as exc:
            raise FileNotFoundError(errno.ENOENT, str(exc), path) from exc

    def _labels(self) -> list[str]:
        home = self._home
        if isinstance(home, App):
            return [declared.label for declared in home.declared("blob")]
        with _as_os("", "list"):
            return [bucket.name for bucket in home.blob.list()]

    def _object(self, path: str) -> tuple[Bucket, str]:
        bucket, key = self.bucket(path)
        if not key:
            raise IsADirectoryError(errno.EISDIR, "this is a whole bucket", path)
        return bucket, key

    # what is there

    def ls(self, path: str, detail: bool = True, refresh: bool = False, **_: Any) -> list[Any]:  # noqa: ANN401, FBT001, FBT002  as fsspec
        """List one level."""
        path = cast("str", self._strip_protocol(path))
        found = None if refresh else self._cached_listing(path)
        if found is None:
            found = self._listed(path)
            self.dircache[path] = found
        return [dict(entry) for entry in found] if detail else [entry["name"] for entry in found]

    def _cached_listing(self, path: str) -> list[Entry] | None:
        try:
            return cast("list[Entry]", self.dircache[path])
        except KeyError:
            return None

    def _listed(self, path: str) -> list[Entry]:
        if not path:
            return [_directory(label) for label in self._labels()]
        bucket, key = self.bucket(path)
        base = f"{key}/" if key else ""
        with _as_os(path, "list"):
            items = list(bucket.list_folder(base))
        entries = [_entry(path, base, item) for item in items if _key(item) != base and _key(item)[len(base) :] != "/"]
        if items or not key:
            return sorted(entries, key=lambda entry: str(entry["name"]))
        return [self._file_info(path, bucket, key)]

    def info(self, path: str, **_: Any) -> Entry:  # noqa: ANN401  as fsspec
        """Describe a file or folder; where a key is both, the file."""
        path = cast("str", self._strip_protocol(path))
        if not path:
            return _directory("")
        bucket, key = self.bucket(path)
        if key:
            listed = self._cached_listing(cast("str", self._parent(path)))
            for entry in listed or ():
                if entry["name"] == path:
                    return dict(entry)
            try:
                return self._file_info(path, bucket, key)
            except FileNotFoundError as exc:
                if isinstance(exc.__cause__, ParentNotFound) or not self._has_any(bucket, path, f"{key}/"):
                    raise
        else:
            self._has_any(bucket, path, "")
        return _directory(path)

    def _file_info(self, path: str, bucket: Bucket, key: str) -> Entry:
        with _as_os(path, "stat"):
            return _file(path, bucket.stat(key))

    def _has_any(self, bucket: Bucket, path: str, prefix: str) -> bool:
        with _as_os(path, "list"):
            return next(iter(bucket.list(prefix, limit=1)), None) is not None

    def exists(self, path: str, **_: Any) -> bool:  # noqa: ANN401  as fsspec
        """Tell whether there is such a file or folder. A refused permission is an error, not a no."""
        try:
            self.info(path)
        except FileNotFoundError:
            return False
        return True

    def find(
        self,
        path: str,
        maxdepth: int | None = None,
        withdirs: bool = False,  # noqa: FBT001, FBT002  as fsspec
        detail: bool = False,  # noqa: FBT001, FBT002  as fsspec
        **options: Any,  # noqa: ANN401  as fsspec
    ) -> list[str] | dict[str, Entry]:
        """List all files below a path, in as few calls as the provider has pages."""
        if maxdepth is not None:
            return cast("list[str]", super().find(path, maxdepth, withdirs, detail, **options))
        path = cast("str", self._strip_protocol(path))
        found: dict[str, Entry] = {}
        for label in [path] if path else self._labels():
            found |= self._below(label, withdirs=withdirs)
        if not found and path and self.isfile(path):
            found[path] = self.info(path)
        return {name: found[name] for name in sorted(found)} if detail else sorted(found)

    def _below(self, path: str, *, withdirs: bool) -> dict[str, Entry]:
        bucket, key = self.bucket(path)
        base = f"{key}/" if key else ""
        found: dict[str, Entry] = {}
        any_ = False
        with _as_os(path, "list"):
            for item in bucket.list(base):
                any_ = True
                name = f"{path}/{item.key[len(base) :]}"
                if not name.endswith("/"):
                    found[name] = _file(name, item)
                if withdirs:
                    found |= {each: _directory(each) for each in _folders(path, name) if each not in found}
        if withdirs and (any_ or not key):
            found[path] = _directory(path)
        return found

    def created(self, path: str) -> datetime:
        """Return when the object was written: objects are never changed, only written anew."""
        return self.modified(path)

    def modified(self, path: str) -> datetime:
        """Return when the object was written."""
        bucket, key = self._object(path)
        with _as_os(path, "stat"):
            return bucket.stat(key).modified

    def checksum(self, path: str) -> int:
        """Return a number that is another for each version of an object."""
        bucket, key = self._object(path)
        with _as_os(path, "stat"):
            return int(tokenize(str(bucket.stat(key).token)), 16)

    def sign(self, path: str, expiration: int = 100, method: Method = "GET", **_: Any) -> str:  # noqa: ANN401  as fsspec
        """Return a URL that lets whoever has it do one thing for so many seconds."""
        bucket, key = self._object(path)
        with _as_os(path, "sign"):
            return bucket.sign(key, method=method, expires=timedelta(seconds=expiration))

    # reading

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **_: Any) -> bytes:  # noqa: ANN401  as fsspec
        """Return a file's content, or a part of it; negative positions count from the end."""
        bucket, key = self._object(path)
        with _as_os(path, "read"):
            item: str | ObjectSummary = key
            if (start or 0) < 0 or (end or 0) < 0:
                item = bucket.stat(key)
                start, end, _step = slice(start, end).indices(item.size)
            if end is not None and end <= (start or 0):
                return b""
            return bucket.get(item, start=start or 0, stop=end)

    def cat(
        self,
        path: str | list[str],
        recursive: bool = False,  # noqa: FBT001, FBT002  as fsspec
        on_error: str = "raise",
        **options: Any,  # noqa: ANN401  as fsspec
    ) -> bytes | dict[str, bytes | Exception]:
        """Return the content of a file, or of several, by path, read side by side."""
        paths = self.expand_path(path)
        if recursive:
            paths = sorted({name for each in paths for name in self.find(each)})
        if len(paths) == 1 and isinstance(path, str) and paths[0] == self._strip_protocol(path):
            return self.cat_file(paths[0], **options)
        results = self._side_by_side(lambda each: self.cat_file(each, **options), paths, on_error)
        return {each: found for each, found in zip(paths, results, strict=True) if found is not None}

    def cat_ranges(
        self,
        paths: list[str],
        starts: list[int] | int | None,
        ends: list[int] | int | None,
        max_gap: int | None = None,  # noqa: ARG002  a hint
        on_error: str = "return",
        **_: Any,  # noqa: ANN401  as fsspec
    ) -> list[bytes | Exception | None]:
        """Return parts of files, read side by side."""
        begins = starts if isinstance(starts, list) else [starts] * len(paths)
        stops = ends if isinstance(ends, list) else [ends] * len(paths)
        ranges = list(zip(paths, begins, stops, strict=True))
        return self._side_by_side(lambda each: self.cat_file(*each), ranges, on_error)

    def _side_by_side(
        self, function: Callable[[Any], bytes], items: Iterable[Any], on_error: str
    ) -> list[bytes | Exception | None]:
        def one(item: Any) -> bytes | Exception | None:  # noqa: ANN401  what the function takes
            try:
                return function(item)
            except Exception as exc:
                if on_error == "raise":
                    raise
                return exc if on_error == "return" else None

        with ThreadPoolExecutor(_WORKERS, thread_name_prefix="shiftable-fsspec") as pool:
            return list(pool.map(one, items))

    def get_file(
        self,
        rpath: str,
        lpath: Any,  # noqa: ANN401  a path or a file
        callback: Any = DEFAULT_CALLBACK,  # noqa: ANN401  fsspec's
        outfile: BinaryIO | None = None,
        **_: Any,  # noqa: ANN401  as fsspec
    ) -> None:
        """Copy a file to this machine; it appears whole or not at all. A folder is made there."""
        file = outfile or (lpath if isfilelike(lpath) else None)
        try:
            with self._streamed(rpath, callback) as chunks:
                if file is not None:
                    for chunk in chunks:
                        file.write(chunk)
                    return
                path = Path(os.fspath(lpath))
                path.parent.mkdir(parents=True, exist_ok=True)
                save(chunks, path)
        except (FileNotFoundError, IsADirectoryError):
            if file is not None or not self.isdir(rpath):
                raise
            Path(os.fspath(lpath)).mkdir(parents=True, exist_ok=True)

    @contextmanager
    def _streamed(self, path: str, callback: Any) -> Iterator[Iterator[bytes]]:  # noqa: ANN401  fsspec's
        bucket, key = self._object(path)
        with _as_os(path, "read"), bucket.stream(key) as stream:
            callback.set_size(stream.info.size)
            yield _told(stream, callback)

    # writing

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **options: Any) -> None:  # noqa: ANN401  of put
        """Write a file; ``mode="create"`` only if there is none."""
        self._put(path, value, create=mode == "create", options=options)

    def put_file(
        self,
        lpath: str,
        rpath: str,
        callback: Any = DEFAULT_CALLBACK,  # noqa: ANN401  fsspec's
        mode: str = "overwrite",
        **options: Any,  # noqa: ANN401  of put
    ) -> None:
        """Copy a file from this machine. Of a folder nothing is made: it exists when something is in it."""
        path = Path(lpath)
        if path.is_dir():
            return
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            callback.set_size(size)
            chunks = _told(iter(lambda: file.read(_CHUNK), b""), callback)
            self._put(rpath, chunks, create=mode == "create", options={"size": size or None, **options})

    def _put(self, path: str, data: bytes | Iterator[bytes], *, create: bool, options: dict[str, Any]) -> ObjectInfo:
        bucket, key = self._object(path)
        with _as_os(path, "write"):
            if create and not bucket.features.if_absent and bucket.exists(key):
                raise FileExistsError(errno.EEXIST, "the object exists already", path)
            written = bucket.put(key, data, if_absent=create and bucket.features.if_absent, **options)
        self.invalidate_cache(path)
        return written

    def touch(self, path: str, truncate: bool = True, **options: Any) -> None:  # noqa: ANN401, FBT001, FBT002  as fsspec
        """Make an empty file; without ``truncate`` only where there is none, as objects' times cannot be set."""
        if not truncate and self.exists(path):
            raise NotImplementedError("the time of an object cannot be set; it is that of its writing")
        self._put(path, b"", create=False, options=options)

    def cp_file(self, path1: str, path2: str, **_: Any) -> None:  # noqa: ANN401  as fsspec
        """Copy an object with its headers, metadata and tags, inside the provider where it can."""
        try:
            bucket, key = self._object(path1)
            to, to_key = self._object(path2)
            with _as_os(path1, "copy"):
                bucket.copy(key, to_key, to=to)
        except (FileNotFoundError, IsADirectoryError):
            if not self.isdir(path1):
                raise
        self.invalidate_cache(path2)

    def rm_file(self, path: str) -> None:
        """Delete a file.

        Raises:
            FileNotFoundError: there is none.
            IsADirectoryError: it is a folder.
        """
        bucket, key = self._object(path)
        with _as_os(path, "delete"):
            if not bucket.exists(key):
                if self._has_any(bucket, path, f"{key}/"):
                    raise IsADirectoryError(errno.EISDIR, "this is a folder; recursive=True deletes it", path)
                raise FileNotFoundError(errno.ENOENT, "there is no such object", path)
            bucket.delete(key)
        self.invalidate_cache(path)

    _rm = rm_file

    def rm(self, path: str | list[str], recursive: bool = False, maxdepth: int | None = None) -> None:  # noqa: FBT001, FBT002  as fsspec
        """Delete files, and with ``recursive`` folders with all that is in them; of a bucket all objects."""
        if not recursive:
            for each in self.expand_path(path):
                self.rm_file(each)
            return
        for each in self.expand_path(path, recursive=False):
            self._rm_below(each, maxdepth)

    def _rm_below(self, path: str, maxdepth: int | None) -> None:
        bucket, key = self.bucket(path)
        if maxdepth is None:
            with _as_os(path, "list"):
                keys = [item.key for item in bucket.list(f"{key}/" if key else "")]
                keys += [key] if key and bucket.exists(key) else []
        else:
            keys = [name.partition("/")[2] for name in self.find(path, maxdepth=maxdepth)]
        if not keys and key:
            raise FileNotFoundError(errno.ENOENT, "there is no such object or folder", path)
        with _as_os(path, "delete"):
            failed = bucket.delete_many(keys)
        self.invalidate_cache(path)
        for error in failed.values():
            with _as_os(path, "delete"):
                raise error

    def _open(
        self,
        path: str,
        mode: str = "rb",
        block_size: int | None = None,
        autocommit: bool = True,  # noqa: FBT001, FBT002  as fsspec
        cache_options: dict[str, Any] | None = None,
        **options: Any,  # noqa: ANN401  of put
    ) -> ShiftableFile:
        if mode not in {"rb", "wb", "xb"}:
            raise NotImplementedError(
                f"objects are opened with 'rb', 'wb' or 'xb', not {mode!r}: nothing appends to them"
            )
        self._object(path)
        if mode == "xb" and self.exists(path):
            raise FileExistsError(errno.EEXIST, "the object exists already", path)
        size = {"block_size": block_size} if block_size else {}
        return ShiftableFile(self, path, mode, autocommit=autocommit, cache_options=cache_options, **size, **options)

    def open(self, path: str, mode: str = "rb", **options: Any) -> Any:  # noqa: ANN401  as fsspec
        """Open a file; see ``_open`` for the modes. Text is dropped too when an exception ends its ``with`` block."""
        if "b" in mode:
            return super().open(path, mode, **options)
        text = {name: options.pop(name) for name in ("encoding", "errors", "newline") if name in options}
        return _Text(super().open(path, f"{mode.replace('t', '')}b", **options), **text)

    def invalidate_cache(self, path: str | None = None) -> None:
        """Forget what was listed: of a path, and of all folders that it lies in, which it may have made or ended."""
        super().invalidate_cache(path)
        if path is None:
            self.dircache.clear()
            return
        path = cast("str", self._strip_protocol(path))
        for listed in list(self.dircache):
            if listed == path or path.startswith(f"{listed}/") or listed.startswith(f"{path}/") or not listed:
                self.dircache.pop(listed, None)

    # the same elsewhere

    @property
    def fsid(self) -> str:
        """Name what this file system shows."""
        return f"shiftable-{tokenize(sorted(self._where.items()))}"

    def __dask_tokenize__(self) -> str:
        return self.fsid

    def __reduce__(self) -> tuple[Any, ...]:
        return make_instance, (type(self), (), {**self._where, **self._options})

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ShiftableFileSystem) and self._where == other._where

    def __hash__(self) -> int:
        return hash(self.fsid)


class ShiftableFile(AbstractBufferedFile):  # type: ignore[misc]  # fsspec has no types
    """An object as a file. Reading stays with the version that was there; writing is visible when it is closed."""

    _writer: Any = None

    def _fetch_range(self, start: int, end: int) -> bytes:
        bucket, key = self.fs.bucket(self.path)
        with _as_os(self.path, "read"):
            about = self.details
            item = ObjectSummary(key=key, size=about["size"], token=about["token"], modified=about["mtime"])
            return bytes(bucket.get(item, start=start, stop=end))

    def _initiate_upload(self) -> None:
        bucket, key = self.fs.bucket(self.path)
        with _as_os(self.path, "write"):
            create = self.mode == "xb" and bucket.features.if_absent
            self._writer = bucket.open(key, "wb", if_absent=create, **self.kwargs)

    def _upload_chunk(self, final: bool = False) -> bool:  # noqa: FBT001, FBT002  as fsspec
        with _as_os(self.path, "write"):
            self._writer.write(self.buffer.getbuffer())
        if final and self.autocommit:
            self.commit()
        return True

    def commit(self) -> None:
        """Make the file visible."""
        with _as_os(self.path, "write"):
            self._writer.close()
        self.fs.invalidate_cache(self.path)

    def discard(self) -> None:
        """Drop what was written."""
        if self._writer is not None:
            self._writer.abort()
        self.closed = True

    def __exit__(self, cls: type[BaseException] | None, *exc_info: object) -> None:
        if cls is not None and self.mode != "rb":
            self.discard()
        else:
            self.close()


class _Text(io.TextIOWrapper):
    def __exit__(self, cls: type[BaseException] | None, *exc_info: object) -> None:
        if cls is not None and isinstance(self.buffer, ShiftableFile) and self.buffer.mode != "rb":
            self.detach().discard()  # type: ignore[attr-defined]  # it is one of ours
        else:
            self.close()


def _found() -> Path:
    try:
        return manifest.find()
    except ConfigError as exc:
        raise FileNotFoundError(errno.ENOENT, str(exc), manifest.FILE_NAME) from exc


def _key(item: ObjectSummary | CommonPrefix) -> str:
    return item.prefix if isinstance(item, CommonPrefix) else item.key


def _entry(path: str, base: str, item: ObjectSummary | CommonPrefix) -> Entry:
    name = f"{path}/{_key(item)[len(base) :]}"
    return _directory(name.rstrip("/")) if isinstance(item, CommonPrefix) else _file(name, item)


def _directory(name: str) -> Entry:
    return {"name": name, "size": 0, "type": "directory"}


def _file(name: str, item: ObjectSummary) -> Entry:
    return {"name": name, "size": item.size, "type": "file", "mtime": item.modified, "token": item.token}


def _folders(path: str, name: str) -> Iterator[str]:
    """Yield the folders between a path and what lies below it."""
    at = name.find("/", len(path) + 1)
    while at >= 0:
        if not name[:at].endswith("/"):
            yield name[:at]
        at = name.find("/", at + 1)


def _told(chunks: Iterable[bytes], callback: Any) -> Iterator[bytes]:  # noqa: ANN401  fsspec's
    for chunk in chunks:
        yield chunk
        callback.relative_update(len(chunk))


_ERRORS: tuple[tuple[type[OperationError], type[OSError], int], ...] = (
    (NotFound, FileNotFoundError, errno.ENOENT),
    (AlreadyExists, FileExistsError, errno.EEXIST),
    (PermissionDenied, PermissionError, errno.EACCES),
    (Unauthenticated, PermissionError, errno.EACCES),
    (Throttled, OSError, errno.EAGAIN),
)


@contextmanager
def _as_os(path: str, verb: str) -> Iterator[None]:
    """Raise Python's errors of files in place of ours, which stay as their cause."""
    try:
        yield
    except (Timeout, Unsupported, InvalidArgument):
        raise  # they are Python's TimeoutError, NotImplementedError and ValueError already
    except PreconditionFailed as exc:
        if verb == "write":
            raise FileExistsError(errno.EEXIST, str(exc), path) from exc
        raise OSError(errno.ESTALE, str(exc), path) from exc
    except OperationError as exc:
        cls, number = next(((c, n) for e, c, n in _ERRORS if isinstance(exc, e)), (OSError, errno.EIO))
        raise cls(number, str(exc), path) from exc

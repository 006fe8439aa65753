"""Blob storage in plain files: the object ``a/b.txt`` of the bucket ``shop`` is the file ``<root>/shop/a/b.txt``."""

from __future__ import annotations

import base64
import contextlib
import errno
import hashlib
import heapq
import itertools
import json
import os
import shutil
import stat
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

import attrs

from shiftable.blob.driver import (
    BlobDriver,
    BlobFeatures,
    BucketSpec,
    CommonPrefix,
    CorsRule,
    Download,
    ObjectInfo,
    ObjectSummary,
    ObjectVersion,
    Part,
    PendingUpload,
    PutOptions,
    Range,
    SignedURL,
    SignOptions,
    StorageClass,
    Upload,
)
from shiftable.errors import Fault
from shiftable.features import Limit
from shiftable.paging import Page
from shiftable.tokens import Token
from shiftable_baremetal._area import Area, Staged, write_all
from shiftable_baremetal._faults import (
    blocked,
    classify,
    damaged,
    invalid,
    missing_object,
    missing_upload,
    missing_version,
    unchanged,
    unmet,
)
from shiftable_baremetal._history import Entry, History
from shiftable_baremetal._listings import Listings
from shiftable_baremetal._reading import Chunks, transfer
from shiftable_baremetal._sidecar import Sidecar, Sidecars, info_of, modified, summary_of, token_of
from shiftable_baremetal._signing import Grant, Signer
from shiftable_baremetal._tree import (
    NAME_MAX,
    OWN,
    Walk,
    found_folder,
    make_folder,
    open_file,
    open_folder,
    past,
    prune,
    prune_below,
    regular,
)
from shiftable_baremetal._uploads import Uploads

if TYPE_CHECKING:
    from shiftable_baremetal._server import FilesServer

__all__ = ["FEATURES", "SIGN_URL", "FilesDriver"]

SIGN_URL = "http://127.0.0.1:8759"
"""Where signed URLs lead, if nothing else is said."""

Entries = list[Entry]  # inside the driver, `list` is the method
Rows = list[ObjectVersion]

_PLAIN = SignOptions()
_PATH_MAX = 4095
_MAX_BUCKET = 200
_PAGE = 1_000
_ELSEWHERE = frozenset({b"", b".", b".."})
_TRIES = 100
_GLANCES = 5
_MUCH = 1024 * 1024

FEATURES = BlobFeatures(
    title="files",
    if_absent=True,
    if_match=True,
    delete_if_match=True,
    headers=True,
    metadata=True,
    tags=True,
    versioning=True,
    copy=True,
    sign=True,
    sign_answer=True,
    sign_md5=True,
    sign_size=True,
    cors=True,
    cors_any_header=True,
    cors_apart=True,
    serve=True,
    uploads=True,
    if_none_match=True,
    restore=True,
    tag_count=True,
    storage_classes=(  # kept for the day on which the objects move to where they mean something
        StorageClass("standard", "standard"),
        StorageClass("infrequent", "infrequent"),
        StorageClass("cold", "cold"),
        StorageClass("archive", "archive"),
    ),
    md5_in_listing=False,  # it would open one more file for each object that is listed
    any_key=False,
    keys_are_paths=True,
    max_key=Limit(3072, "PATH_MAX of Linux is 4,096; the rest is for the root and the bucket"),
    part_size=Limit(1, "parts may be of any size"),
)


@attrs.frozen
class _Place:
    """Where an object lies: its folder, open, and its name in it."""

    top: int
    folder: int
    name: bytes


@attrs.define
class _Opened:
    """An object that was found: its file, open, and what goes with it."""

    fd: int
    found: os.stat_result
    sidecar: Sidecar
    info: ObjectInfo


class _OvertakenError(Exception):
    """A writer came between two looks at an object."""


def _absolute(path: Path) -> Path:
    return path.absolute()


@attrs.define(eq=False)
class FilesDriver(BlobDriver):
    """Buckets are folders below one root, objects are plain files in them; other tools may read and write them.

    There are no credentials: who may read and write is up to the permissions of the files. What does not fit into a
    file lies in ``<root>/.shiftable`` and belongs to that very file: when other tools change it, or put another one
    in its place, it has default headers again and no metadata. A copy of the root keeps all of that, if it keeps times
    to the nanosecond (``rsync -a``, ``cp -a``).

    Threads and processes may use one root at once, also over NFS 4. The file system must keep names as they are given
    and support hard links, as those of Linux do.

    An upload in parts belongs to the processes that write it. What a killed one leaves is dropped by a write into the
    same bucket, of any process, when nobody has written to it for an hour; ``uploads`` lists it before.

    Signed URLs are answered by a server on loopback, ``serve``, of any process that may read and write the root.

    Args:
        clock: nanoseconds since 1970, for the modification times of what is written, to tell what is abandoned, and
            when signed URLs expire.
        sign_url: where signed URLs lead: that server, or a proxy with TLS before it.
        fsync: wait until the disk has what was written; without it, a power failure may cost the last writes, and
            their metadata.
    """

    root: Path = attrs.field(converter=_absolute)
    clock: Callable[[], int] = attrs.field(default=time.time_ns, kw_only=True, repr=False)
    fsync: bool = attrs.field(default=True, kw_only=True)
    sign_url: str = attrs.field(default=SIGN_URL, kw_only=True)
    _area: Area = attrs.field(init=False, repr=False)
    _uploads: Uploads = attrs.field(init=False, repr=False)
    _signer: Signer = attrs.field(init=False, repr=False)
    _listings: Listings = attrs.field(factory=Listings, init=False, repr=False)
    _last: int = attrs.field(default=0, init=False, repr=False)
    _lock: threading.Lock = attrs.field(factory=threading.Lock, init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        self._area = Area(self.root, self.fsync, self.clock)
        self._uploads = Uploads(self._area)
        self._signer = Signer(self._area, self.clock)

    @property
    def provider(self) -> str:
        """``baremetal``."""
        return "baremetal"

    @property
    def features(self) -> BlobFeatures:
        """Everything but keys that are no paths."""
        return FEATURES

    def classify(self, exc: Exception) -> Fault | None:
        """Claim the operating system's errors and this driver's own."""
        return classify(exc)

    # what can be held

    def check_name(self, name: str) -> str | None:
        """Say why a folder could not be named like that, or would be hidden."""
        try:
            size = len(name.encode())
        except UnicodeEncodeError:
            return "the name is not Unicode text"
        if not size:
            return "the name is empty"
        if size > _MAX_BUCKET:
            return f"the name has {size} bytes; the limit is {_MAX_BUCKET}, so that paths have room"
        if name.startswith("."):
            return "a name that begins with '.' is hidden, or is no folder's own"
        if "/" in name or "\0" in name:
            return "a bucket is one folder: its name has no '/' and no NUL"
        return None

    def check_key(self, key: str) -> str | None:
        """Say why a file system could not hold the key byte for byte."""
        why = BlobDriver.check_key(self, key)
        if why is not None:
            return why
        if "\0" in key:
            return "a path has no NUL"
        if key.startswith("/") or key.endswith("/"):
            return f"the key {'begins' if key[0] == '/' else 'ends'} with '/': no file has such a path"
        room = _PATH_MAX - len(os.fsencode(self.root)) - _MAX_BUCKET - 2
        if len(key.encode()) > room:
            return f"the key has {len(key.encode()):,} bytes; below this root, paths have room for {room:,}"
        return next((why for segment in key.split("/") if (why := _check_segment(segment))), None)

    def check_metadata(self, metadata: Mapping[str, str]) -> str | None:
        """Refuse what is not Unicode text; there is no other limit."""
        try:
            return BlobDriver.check_metadata(self, metadata)
        except UnicodeEncodeError:
            return "the metadata is not Unicode text"

    # buckets

    def create(self, spec: BucketSpec) -> None:
        """Make a folder. What an earlier bucket of that name left in our area goes."""
        self._area.make(self.root)
        path = self.root / spec.name
        with self._area.locked(spec.name):
            if os.path.lexists(path):
                raise FileExistsError(errno.EEXIST, "there is a folder or file of that name")
            shutil.rmtree(self._area.of(spec.name), ignore_errors=True)
            if spec.versioning:
                self._write_state(spec)
            if spec.cors:
                self._write_cors(spec)
            path.mkdir()
            self._area.sync_folder(self.root)

    def describe(self, name: str) -> BucketSpec:
        """Return the bucket's declaration."""
        with self._area.bucket(name):
            return BucketSpec(name=name, versioning=bool(self._state(name)), cors=self._cors(name))

    def update(self, current: BucketSpec, spec: BucketSpec) -> None:
        """Switch versioning, set CORS; older versions stay."""
        with self._area.locked(spec.name):
            if self.describe(spec.name) != current:
                raise blocked("the bucket is no longer what the change starts from")
            if spec.versioning != current.versioning:
                self._write_state(spec)
            if spec.cors != current.cors:
                self._write_cors(spec)

    def destroy(self, name: str) -> None:
        """Delete a folder that holds no files, and what is ours of it. Older versions count as content."""
        self.describe(name)  # a missing one fails before a lock is made
        with self._area.locked(name):
            with self._area.bucket(name) as top:
                found = _first(top, b"")
                if found is not None:
                    raise blocked(f"the bucket is not empty: it holds {found!r}")
                if not History(self._area, name).is_empty():
                    raise blocked("the bucket is not empty: it holds older versions; delete them first")
                if not prune_below(top):
                    raise blocked("its folder holds what is no object, such as links: remove that first")
            (self.root / name).rmdir()
            self._area.sync_folder(self.root)
            shutil.rmtree(self._area.of(name), ignore_errors=True)

    def names(self, cursor: str | None, limit: int | None) -> Page[str]:
        """Return one page of the folders below the root, sorted; links and hidden ones are no buckets."""
        try:
            with os.scandir(self.root) as entries:
                found = sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
        except FileNotFoundError:
            return Page(())
        names = [name for name in found if self.check_name(name) is None and (cursor is None or name > cursor)]
        most = _most(limit)
        return Page(tuple(names[:most]), names[most - 1] if len(names) > most else None)

    # writing

    def put(self, bucket: str, key: str, data: bytes, options: PutOptions) -> ObjectInfo:
        """Write an object in one piece."""
        self._uploads.sweep(bucket)
        with self._area.bucket(bucket), self._area.staged() as staged:
            write_all(staged.fd, data, 0)
            return self._commit(bucket, key, staged, hashlib.md5(data, usedforsecurity=False).hexdigest(), options)

    def upload_begin(self, bucket: str, key: str, options: PutOptions) -> Upload:
        """Begin a file in our area. It is kept while this driver or another that writes parts of it lives."""
        upload = Upload(bucket=bucket, key=key, id=token_hex(16), options=options)
        with self._area.bucket(bucket):
            self._uploads.sweep(bucket)
            self._uploads.begin(upload)
        return upload

    def upload_part(self, upload: Upload, number: int, data: bytes, offset: int) -> Part:
        """Write one part to where it belongs in that file."""
        return self._uploads.write(upload, number, data, offset)

    def upload_complete(self, upload: Upload, parts: tuple[Part, ...]) -> ObjectInfo:
        """Read the parts once more, for the MD5 and to see that they are what was sent, and put the file into place."""
        with self._uploads.finished(upload, parts) as (staged, md5):
            return self._commit(upload.bucket, upload.key, staged, md5, upload.options)

    def upload_abort(self, upload: Upload) -> None:
        """Remove the file."""
        self._uploads.abort(upload)

    def copy(
        self,
        bucket: str,
        key: str,
        to_bucket: str,
        to_key: str,
        options: PutOptions | None,
        *,
        version: str | None = None,
    ) -> ObjectInfo:
        """Copy inside the kernel; where the file system can, the copy shares the blocks of its source."""
        self._uploads.sweep(to_bucket)
        with self._area.bucket(to_bucket), self._opened(bucket, key, version) as source, self._area.staged() as staged:
            transfer(source.fd, staged.fd, source.found.st_size)
            if token_of(os.fstat(source.fd)) != token_of(source.found):
                raise damaged(f"{key!r} was changed by another program while it was copied; try again")
            kept = source.sidecar
            as_it_is = PutOptions(headers=kept.headers, metadata=kept.metadata, tags=kept.tags)
            return self._commit(to_bucket, to_key, staged, kept.md5, options or as_it_is)

    # reading

    def get(
        self,
        bucket: str,
        key: str,
        *,
        range_: Range | None,
        if_match: Token | None,
        version: str | None,
        if_none_match: Token | None = None,
    ) -> Download:
        """Open an object for reading; what is read is this version, whatever is written meanwhile."""
        opened = self._open(bucket, key, version)
        if if_match is not None and opened.info.token != if_match:
            os.close(opened.fd)
            raise unmet(f"the object {key!r} is not in that version")
        if if_none_match is not None and opened.info.token == if_none_match:
            os.close(opened.fd)
            raise unchanged(f"the object {key!r} is still in that version")
        wanted = range_ or Range(0)
        stop = opened.info.size if wanted.stop is None else min(wanted.stop, opened.info.size)
        return Download(info=opened.info, chunks=Chunks(opened.fd, opened.found, key, wanted.start, stop))

    def stat(self, bucket: str, key: str, *, version: str | None) -> ObjectInfo:
        """Return everything about an object but its content."""
        with self._opened(bucket, key, version) as opened:
            return opened.info

    def list(
        self,
        bucket: str,
        *,
        prefix: str,
        delimiter: str | None,
        start_after: str | None,
        cursor: str | None,
        limit: int | None,
    ) -> Page[ObjectSummary | CommonPrefix]:
        """Return one page. The next one goes on where this one ends, without reading a folder again."""
        about = (bucket, prefix, delimiter)

        def begin() -> tuple[Iterator[ObjectSummary | CommonPrefix], Walk]:
            after = _behind(cursor) if cursor is not None else (start_after or "").encode()
            with self._area.bucket(bucket) as top:
                walk = Walk(top, prefix=prefix.encode(), after=after, deep=delimiter != "/")
            return _items(walk, prefix, delimiter), walk

        most = _most(limit)
        with self._listings.going_on(about, cursor, begin) as listing:
            items = tuple(itertools.islice(listing.items, most))
            if len(items) == most > 0:
                listing.cursor = _cursor(items[-1])
        return Page(items, listing.cursor)

    def uploads(self, bucket: str, *, prefix: str, cursor: str | None, limit: int | None) -> Page[PendingUpload]:
        """Return one page: by key, then the oldest first."""
        with self._area.bucket(bucket):
            found = self._uploads.pending(bucket, prefix)
        if cursor is not None:
            found = [upload for upload in found if _pending_mark(upload) > tuple(json.loads(cursor))]
        most = _most(limit)
        shown = tuple(found[:most])
        return Page(shown, json.dumps(_pending_mark(shown[-1])) if len(found) > most > 0 else None)

    def versions(self, bucket: str, *, prefix: str, cursor: str | None, limit: int | None) -> Page[ObjectVersion]:
        """Return one page: whole histories, so that it may be longer than was asked for."""

        def begin() -> tuple[Iterator[Rows], Walk]:
            after = (cursor or "").encode()
            with self._area.bucket(bucket) as top:
                walk = Walk(top, prefix=prefix.encode(), after=after)
            older = History(self._area, bucket).keys(prefix.encode(), after)
            keys = (key for key, _ in itertools.groupby(heapq.merge(walk, older)))
            return (self._rows(bucket, key.decode()) for key in keys), walk

        rows: Rows = []
        with self._listings.going_on((bucket, prefix), cursor, begin) as listing:
            for history in listing.items:
                rows += history
                if len(rows) >= _most(limit):
                    listing.cursor = rows[-1].key
                    break
        return Page(tuple(rows), listing.cursor)

    # deleting

    def delete(self, bucket: str, key: str, *, if_match: Token | None, version: str | None) -> None:
        """Delete an object, or for good one version of it; folders that are then empty go, too."""
        parents, name = _split(key)
        with self._area.bucket(bucket) as top, self._area.locked(bucket, key):
            with found_folder(top, parents) as folder:
                found = regular(folder, name) if folder is not None else None
                if version is not None:
                    self._delete_version(bucket, key, top, found, version, if_match)
                else:
                    _check_match(key, found, if_match)
                    if folder is not None and found is not None:
                        self._delete_current(bucket, key, _Place(top, folder, name), found)
                    Sidecars(self._area, bucket).sweep(key, None)  # also what a crash left of an earlier delete
            prune(top, parents)

    def close(self) -> None:
        """Give back the descriptors of listings that were not read to their end, and of uploads that were not ended."""
        self._listings.close()
        self._uploads.close()

    # tags

    def tags(self, bucket: str, key: str, *, version: str | None = None) -> Mapping[str, str]:
        """Return an object's tags."""
        with self._opened(bucket, key, version) as opened:
            return opened.sidecar.tags

    def set_tags(self, bucket: str, key: str, tags: Mapping[str, str]) -> None:
        """Replace all tags; the object stays in its version."""
        with self._area.locked(bucket, key), self._opened(bucket, key, None, settled=True) as opened:
            changed = attrs.evolve(opened.sidecar, tags=dict(tags))
            Sidecars(self._area, bucket).replace(key, token_of(opened.found), changed)

    # URLs

    def sign(
        self,
        bucket: str,
        key: str,
        *,
        method: Literal["GET", "PUT", "DELETE"],
        expires: timedelta,
        content_type: str | None,
        options: SignOptions = _PLAIN,
    ) -> SignedURL:
        """Sign a URL, for any time; it works while somebody serves."""
        _split(key)
        grant = Grant(
            bucket=bucket,
            key=key,
            method=method,
            expires=-(-(self.clock() + int(expires.total_seconds() * 10**9)) // 10**9),
            type=content_type,
            md5=options.md5.hex() if options.md5 is not None else None,
            size=options.size,
            answer_type=options.answer.content_type,
            answer_disposition=options.answer.content_disposition,
        )
        carried = {
            "Content-Type": content_type,
            "Content-MD5": base64.b64encode(options.md5).decode() if options.md5 is not None else None,
            "Content-Length": str(options.size) if options.size is not None else None,
        }
        needed = {name: value for name, value in carried.items() if value is not None}
        return SignedURL(self._signer.url(self.sign_url, grant), needed)

    def serve(self, port: int | None = None, *, origins: Collection[str] = ()) -> FilesServer:
        """Answer signed URLs on loopback; without a port on that of ``sign_url``."""
        from shiftable_baremetal._server import FilesServer

        there = (urlsplit(self.sign_url).port or 0) if port is None else port
        return FilesServer(self, self._signer, there, origins)

    # how it is done: reading

    @contextlib.contextmanager
    def _opened(self, bucket: str, key: str, version: str | None, *, settled: bool = False) -> Iterator[_Opened]:
        opened = self._open(bucket, key, version, settled=settled)
        try:
            yield opened
        finally:
            os.close(opened.fd)

    def _open(self, bucket: str, key: str, version: str | None, *, settled: bool = False) -> _Opened:
        """Open an object together with the metadata of exactly this content.

        A writer may come between the two; then what is there now is read instead. Whoever is overtaken again and
        again waits for the lock; ``settled`` says that the caller has it.
        """
        with self._area.bucket(bucket) as top:
            for _ in range(0 if settled else _GLANCES):
                with contextlib.suppress(_OvertakenError):
                    return self._try_open(bucket, top, key, version, settled=False)
            with contextlib.nullcontext() if settled else self._area.locked(bucket, key):
                return self._try_open(bucket, top, key, version, settled=True)

    def _try_open(self, bucket: str, top: int, key: str, version: str | None, *, settled: bool) -> _Opened:
        parents, name = _split(key)
        with found_folder(top, parents) as folder:
            fd = open_file(folder, name) if folder is not None else None
            if folder is not None and fd is not None:
                opened = self._with_sidecar(bucket, key, version, _Place(top, folder, name), fd, settled=settled)
                if opened is not None:
                    return opened
        if version is None:
            raise missing_object(key)
        return self._open_older(bucket, key, version)

    def _with_sidecar(
        self, bucket: str, key: str, version: str | None, place: _Place, fd: int, *, settled: bool
    ) -> _Opened | None:
        """Return an open file with what goes with it, or close it: it is not the version that is wanted."""
        with contextlib.ExitStack() as stack:
            stack.callback(os.close, fd)
            found = os.fstat(fd)
            token = token_of(found)
            if version is not None and token.value != version:
                return None
            sidecar = Sidecars(self._area, bucket).read(key, token)
            if sidecar is None and not settled:
                there = regular(place.folder, place.name)
                if there is None or token_of(there) != token:
                    raise _OvertakenError
            sidecar = sidecar or Sidecar()
            named = token.value if version is not None or sidecar.versioned or self._state(bucket) else None
            stack.pop_all()
            return _Opened(fd, found, sidecar, info_of(key, found, sidecar, named))

    def _open_older(self, bucket: str, key: str, version: str) -> _Opened:
        history = History(self._area, bucket)
        with history.folder(key) as own:
            for entry in history.entries(own, None):
                if own is None or entry.deleted or entry.version != version:
                    continue
                sidecar = history.sidecar(own, entry)
                fd = open_file(own, entry.name.encode())
                if fd is not None:
                    found = os.fstat(fd)
                    return _Opened(fd, found, sidecar, info_of(key, found, sidecar, version))
        raise missing_version(key, version)

    def _rows(self, bucket: str, key: str) -> Rows:
        """Return the history of one key, newest first."""
        rows = []
        history = History(self._area, bucket)
        with self._area.bucket(bucket) as top:
            found = _look(top, key)
        current = token_of(found).value if found is not None else None
        if found is not None and current is not None:
            rows.append(_row(key, current, found, latest=True))
        with history.folder(key) as own:
            for entry in history.entries(own, current):
                latest = entry.deleted and not rows
                if entry.deleted:
                    rows.append(_marker(key, entry, latest=latest))
                elif own is not None and (older := regular(own, entry.name.encode())) is not None:
                    rows.append(_row(key, entry.version, older, latest=False))
        return rows

    # how it is done: writing

    def _commit(self, bucket: str, key: str, staged: Staged, md5: str | None, options: PutOptions) -> ObjectInfo:
        """Put a file into place, with what goes with it, if the conditions hold."""
        if options.md5 is not None and md5 is not None and options.md5.hex() != md5:
            raise damaged("the content does not have the MD5 that came with it")
        stamp = self._stamp()
        os.utime(staged.fd, ns=(stamp, stamp))
        if os.fstat(staged.fd).st_size > _MUCH:
            self._area.sync(staged.fd)  # not while others wait for the lock
        parents, name = _split(key)
        with self._area.locked(bucket, key), self._area.bucket(bucket) as top:
            sidecar = Sidecar(
                headers=options.headers,
                metadata=dict(options.metadata),
                tags=dict(options.tags),
                md5=md5,
                storage_class=options.storage_class,
                versioned=bool(self._state(bucket)),
            )
            try:
                self._within(
                    top,
                    parents,
                    lambda folder: self._replace(bucket, key, _Place(top, folder, name), staged, sidecar, options),
                )
            except BaseException:
                prune(top, parents)
                raise
        found = os.fstat(staged.fd)
        return info_of(key, found, sidecar, token_of(found).value if sidecar.versioned else None)

    def _within(self, top: int, path: tuple[bytes, ...], action: Callable[[int], None]) -> None:
        """Act in a folder that is made if need be; again, if somebody removed it, still empty, meanwhile."""
        for _ in range(_TRIES):
            try:
                folder = make_folder(top, path, sync=self._area.sync)
                try:
                    return action(folder)
                finally:
                    os.close(folder)
            except FileNotFoundError:
                continue
        raise blocked("the folder of the object was removed again and again; try later")

    def _replace(
        self, bucket: str, key: str, place: _Place, staged: Staged, sidecar: Sidecar, options: PutOptions
    ) -> None:
        """Put a file into its open folder. Until the last step, the old object stays as it is."""
        current = self._current(key, place)
        if options.if_absent and current is not None:
            raise unmet(f"there is an object {key!r}")
        _check_match(key, current, options.if_match)
        if current is not None:
            self._keep(bucket, key, place, current)
        sidecars = Sidecars(self._area, bucket)
        token = token_of(os.fstat(staged.fd))
        sidecars.write(key, token, sidecar, staged.fd)
        try:
            if options.if_absent:
                _link(staged.path, place, key)
            else:
                os.rename(staged.path, place.name, dst_dir_fd=place.folder)
        except BaseException:
            there = regular(place.folder, place.name)
            if there is None or token_of(there) != token:  # an interrupt may come when it is done
                sidecars.drop(key, token)
            if there is None and not staged.path.exists():
                raise missing_upload(staged.path.parent.name) from None  # somebody else has just completed it
            raise
        self._area.sync(place.folder)
        staged.path.unlink(missing_ok=True)
        sidecars.sweep(key, token)

    def _current(self, key: str, place: _Place) -> os.stat_result | None:
        """Look at what is in an object's place.

        Raises:
            FilesError: something that is no object.
        """
        try:
            found = os.stat(place.name, dir_fd=place.folder, follow_symlinks=False)
        except FileNotFoundError:
            return None
        if stat.S_ISREG(found.st_mode):
            return found
        if not stat.S_ISDIR(found.st_mode):
            raise blocked(f"the file {key!r} is a link, a pipe or a device: remove it")
        below = _first(place.top, key.encode() + b"/")
        if below is not None:
            raise blocked(f"{below!r} is an object: beside it there can be no {key!r}")
        own = open_folder(place.folder, (place.name,))
        try:
            if not prune_below(own):
                raise blocked(f"{key!r} is a folder that holds what is no object, such as links: remove that first")
        finally:
            os.close(own)
        os.rmdir(place.name, dir_fd=place.folder)
        return None

    def _keep(self, bucket: str, key: str, place: _Place, current: os.stat_result) -> bool:
        """Keep the object as an older version before it goes, if it is to be kept."""
        state = self._state(bucket)
        if state is None:
            return False
        sidecars = Sidecars(self._area, bucket)
        token = token_of(current)
        if not state and not (sidecars.read(key, token) or Sidecar()).versioned:
            return False
        path = sidecars.path(key, token)
        History(self._area, bucket).keep(key, place.folder, place.name, token.value, path, self._stamp())
        return True

    def _delete_current(self, bucket: str, key: str, place: _Place, found: os.stat_result) -> None:
        history = History(self._area, bucket)
        kept = self._keep(bucket, key, place, found)
        if not kept and self._state(bucket) is not None:
            with history.folder(key) as own:
                kept = bool(history.entries(own, None))
        if kept:
            history.mark_deleted(key, token_of(found).value, self._stamp())
        self._area.unlink(place.folder, place.name)

    def _delete_version(
        self,
        bucket: str,
        key: str,
        top: int,
        found: os.stat_result | None,
        version: str,
        if_match: Token | None,
    ) -> None:
        """Delete one version for good. If it was the latest, the one before it is the latest again."""
        history = History(self._area, bucket)
        current = token_of(found).value if found is not None else None
        with history.folder(key) as own:
            entries = history.entries(own, current)
        gone = next((entry for entry in entries if entry.version == version), None)
        holds = version if current == version or (gone is not None and not gone.deleted) else None
        if if_match is not None and if_match.value != holds:
            raise unmet(f"the object {key!r} is not in that version")
        if current == version:
            self._step_back(bucket, key, top, entries)
        elif gone is not None:
            if current is None and gone.deleted and gone is entries[0]:
                self._step_back(bucket, key, top, entries[1:])
            history.remove(key, [gone])

    def _step_back(self, bucket: str, key: str, top: int, entries: Entries) -> None:
        """Put the newest older version in the object's place; if there is none, or a marker, nothing."""
        history, sidecars = History(self._area, bucket), Sidecars(self._area, bucket)
        parents, name = _split(key)

        def restore(folder: int) -> None:
            self._current(key, _Place(top, folder, name))
            history.restore(key, entries[0], folder, name, sidecars)

        if entries and not entries[0].deleted:
            self._within(top, parents, restore)
            history.remove(key, entries[:1])
            return
        with found_folder(top, parents) as folder:
            if folder is not None and regular(folder, name) is not None:
                self._area.unlink(folder, name)
                sidecars.sweep(key, None)

    def _stamp(self) -> int:
        """Return the time, later than any time before: two writes within a tick are two versions."""
        with self._lock:
            self._last = max(self.clock(), self._last + 1)
            return self._last

    # how it is done: buckets

    def _state(self, bucket: str) -> bool | None:
        """Tell whether a bucket has versioning; ``None`` if it never had."""
        path = f"{self._area.of(bucket)}/bucket.json"
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            return bool(json.loads(os.read(fd, 4096))["versioning"])
        except (ValueError, KeyError, TypeError) as exc:
            raise damaged(f"{path} is damaged: does the bucket have versioning?") from exc
        finally:
            os.close(fd)

    def _cors(self, bucket: str) -> tuple[CorsRule, ...]:
        path = Path(self._area.of(bucket)) / "cors.json"
        try:
            return tuple(_cors_rule(**each) for each in json.loads(path.read_bytes()))
        except FileNotFoundError:
            return ()
        except (ValueError, TypeError, AttributeError) as exc:
            raise damaged(f"{path} is damaged: which pages' scripts may use the bucket?") from exc

    def _write_cors(self, spec: BucketSpec) -> None:
        rules = [attrs.asdict(rule) | {"max_age": rule.seconds} for rule in spec.cors]
        self._write_setting(spec.name, "cors.json", rules)

    def _write_state(self, spec: BucketSpec) -> None:
        self._write_setting(spec.name, "bucket.json", {"versioning": spec.versioning})

    def _write_setting(self, bucket: str, file: str, value: object) -> None:
        folder = self._area.make(Path(self._area.of(bucket)))
        with self._area.staged() as staged:
            write_all(staged.fd, json.dumps(value).encode(), 0)
            self._area.sync(staged.fd)
            staged.path.rename(folder / file)
        self._area.sync_folder(folder)


def _check_segment(segment: str) -> str | None:
    if not segment:
        return "the key holds '//': a path cannot keep an empty name"
    if segment in {".", ".."}:
        return f"the key holds the name {segment!r}, which means a folder"
    if segment.startswith(os.fsdecode(OWN)):
        return f"names that begin with {os.fsdecode(OWN)!r} are kept for shiftable's own files"
    size = len(segment.encode())
    return f"a name in the key has {size} bytes; a folder holds names up to {NAME_MAX}" if size > NAME_MAX else None


def _split(key: str) -> tuple[tuple[bytes, ...], bytes]:
    """Split a key into its folders and its name; refuse what leads elsewhere, whoever forgot ``check_key``."""
    *parents, name = key.encode().split(b"/")
    if not _ELSEWHERE.isdisjoint((*parents, name)):
        raise invalid(f"{key!r} is no path below the bucket")
    return tuple(parents), name


def _look(top: int, key: str) -> os.stat_result | None:
    parents, name = _split(key)
    with found_folder(top, parents) as folder:
        return regular(folder, name) if folder is not None else None


def _first(top: int, prefix: bytes) -> str | None:
    """Return the first key that begins with a prefix."""
    with contextlib.closing(Walk(top, prefix=prefix)) as walk:
        return next((key.decode() for key in walk), None)


def _link(path: Path, place: _Place, key: str) -> None:
    """Put a file into a place that must be free, whoever else may write there."""
    try:
        os.link(path, place.name, dst_dir_fd=place.folder, follow_symlinks=False)
    except FileExistsError:
        raise unmet(f"there is an object {key!r}") from None


def _check_match(key: str, found: os.stat_result | None, if_match: Token | None) -> None:
    if if_match is not None and (found is None or token_of(found) != if_match):
        raise unmet(f"the object {key!r} is not in that version")


def _most(limit: int | None) -> int:
    return _PAGE if limit is None else min(limit, _PAGE)


def _items(walk: Walk, prefix: str, delimiter: str | None) -> Iterator[ObjectSummary | CommonPrefix]:
    start, cut, rolled = len(prefix.encode()), (delimiter or "").encode(), b"\xff"
    for key in walk:
        if key.startswith(rolled):
            continue
        if key.endswith(b"/"):
            if walk.holds(key):
                yield CommonPrefix(key.decode())
            continue
        found = walk.stat(key)
        if found is None:
            continue
        end = key.find(cut, start) if cut else -1
        if end >= 0:
            rolled = key[: end + len(cut)]
            yield CommonPrefix(rolled.decode())
        else:
            yield summary_of(key.decode(), found)


def _cursor(item: ObjectSummary | CommonPrefix) -> str:
    return f"p{item.prefix}" if isinstance(item, CommonPrefix) else f"k{item.key}"


def _behind(cursor: str) -> bytes:
    last = cursor[1:].encode()
    return past(last) if cursor[0] == "p" else last


def _pending_mark(upload: PendingUpload) -> tuple[str, str, str]:
    return upload.key, upload.started.isoformat(timespec="microseconds"), upload.id


def _row(key: str, version: str, found: os.stat_result, *, latest: bool) -> ObjectVersion:
    return ObjectVersion(
        key=key,
        version=version,
        size=found.st_size,
        token=Token(version),
        modified=modified(found.st_mtime_ns),
        latest=latest,
    )


def _marker(key: str, entry: Entry, *, latest: bool) -> ObjectVersion:
    return ObjectVersion(
        key=key,
        version=entry.version,
        size=0,
        token=Token(entry.version),
        modified=modified(entry.stamp),
        latest=latest,
        deleted=True,
    )


def _cors_rule(*, max_age: int | None, **lists: Any) -> CorsRule:  # noqa: ANN401  of texts
    return CorsRule(**lists, max_age=timedelta(seconds=max_age) if max_age is not None else None)

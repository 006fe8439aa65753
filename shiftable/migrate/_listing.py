"""Listing files: what tells a bucket's objects in place of its own listing, which for 10^9 of them takes hours."""

from __future__ import annotations

import csv
import gzip
import hashlib
import heapq
import io
import itertools
import json
import re
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast
from urllib.parse import unquote_plus

import attrs

from shiftable.blob.driver import ObjectSummary
from shiftable.errors import MigrationError, NotFound
from shiftable.tokens import Token

if TYPE_CHECKING:
    from shiftable.blob import Bucket

__all__ = ["Entry", "Inventory"]

_SORTED_AT_ONCE = 200_000
"""Entries in memory while a file is sorted; a hundred megabytes at most."""
_ASKED_AT_ONCE = 32
_SAMPLES = 5
_BARE = {2: ("bucket", "key"), 3: ("bucket", "key", "size"), 4: ("bucket", "key", "size", "etag")}
_NAMES = {
    "name": "key",
    "lastmodifieddate": "modified",
    "lastmodified": "modified",
    "updated": "modified",
    "contentlength": "size",
}
_LONGEST_CELL = 1 << 20


@attrs.frozen(kw_only=True, order=False)
class Entry:
    """One object of a listing file; ``None``: the file does not say."""

    key: str
    size: int | None = None
    etag: str | None = None
    modified: datetime | None = None
    storage_class: str | None = None


@attrs.frozen
class Inventory:
    """A listing file, told by its name.

    - ``manifest.json`` of S3 Inventory: its data files, CSV or Parquet, are looked for beside it, in ``data`` beside
      it and in ``data`` beside its folder, and are compared with the MD5 that it tells;
    - ``*.csv``, ``*.csv.gz``: with a line of column names (key or name, size, etag, modified or LastModifiedDate,
      bucket, IsLatest, IsDeleteMarker, StorageClass; the others do not matter), keys as they are; without one the
      columns are bucket, key, size, etag, as many of them as there are, and keys are URL-encoded, as S3 Inventory does;
    - ``*.parquet``: the same columns; needs pyarrow;
    - anything else: keys in UTF-8, one a line or each ended by NUL; ``*.gz`` is unpacked.

    Older versions and delete markers are left out. The order does not matter, and a key that comes again counts once.
    """

    path: str

    def entries(self, bucket: str) -> Iterator[Entry]:
        """Yield the objects in the order of their keys' UTF-8 bytes, at a memory that does not grow.

        Raises:
            MigrationError: it cannot be read, is damaged, or is another bucket's.
        """
        found = _sorted(_read(Path(self.path), bucket))
        return (first for _, first in _distinct(found))

    def summaries(self, source: Bucket) -> Iterator[ObjectSummary]:
        """Yield what a listing of the source would tell, in its order.

        Where the file tells size, ETag and time of modification, and a look at the first objects shows that these are
        what the provider's own listing tells, nobody is asked. Else each object is described once. An object that is
        gone is told with a version that no object has: who reads it finds out.
        """
        entries = self.entries(source.name)
        first = list(itertools.islice(entries, _SAMPLES))
        trusted = _trusted(source, first)
        return _described(source, itertools.chain(first, entries), trusted)


# reading


def _read(path: Path, bucket: str) -> Iterator[Entry]:
    try:
        yield from _reader(path)(path, bucket)
    except (OSError, EOFError, UnicodeDecodeError, csv.Error) as exc:
        why = exc.strerror if isinstance(exc, OSError) and exc.strerror else "it is damaged or no such file"
        raise MigrationError(f"the listing {path} cannot be read: {why}") from exc


def _reader(path: Path) -> Callable[[Path, str], Iterator[Entry]]:
    name = path.name.lower()
    if name == "manifest.json":
        return _manifest
    if name.endswith((".csv", ".csv.gz")):
        return _csv
    return _parquet if name.endswith(".parquet") else _plain


def _open(path: Path) -> BinaryIO:
    """Open a file to read it, unpacked; whoever calls closes it."""
    packed = path.name.lower().endswith(".gz")
    return cast("BinaryIO", gzip.open(path)) if packed else path.open("rb")


def _plain(path: Path, _bucket: str) -> Iterator[Entry]:
    with _open(path) as file:
        end = b"\0" if b"\0" in file.read(_LONGEST_CELL) else b"\n"
        file.seek(0)
        for line in _lines(file, end):
            text = line.removesuffix(b"\r") if end == b"\n" else line
            if text:
                yield Entry(key=text.decode())


def _lines(file: BinaryIO, end: bytes) -> Iterator[bytes]:
    rest = b""
    while block := file.read(_LONGEST_CELL):
        *whole, rest = (rest + block).split(end)
        yield from whole
    yield rest


def _csv(path: Path, bucket: str, columns: Sequence[str] | None = None) -> Iterator[Entry]:
    with _open(path) as raw, io.TextIOWrapper(raw, "utf-8-sig", newline="") as text:
        rows: Iterator[list[str]] = csv.reader(text)
        first = next(rows, None)
        if first is None:
            return
        names = [_column(name) for name in columns or first]
        encoded = columns is not None
        if columns is not None or "key" not in names:
            names = names if columns is not None else list(_bare(path, first))
            rows, encoded = itertools.chain([first], rows), True
        for number, row in enumerate(rows, 2):
            if row:
                if len(row) != len(names):
                    raise MigrationError(f"the listing {path} has {len(row)} columns in row {number}, not {len(names)}")
                yield from _entry(path, bucket, dict(zip(names, row, strict=True)), encoded=encoded)


def _bare(path: Path, first: Sequence[str]) -> Sequence[str]:
    if len(first) not in _BARE:
        raise MigrationError(
            f"the listing {path} has {len(first)} columns and no line that names them; add one (key,size,etag,…), or"
            " give the inventory's manifest.json"
        )
    return _BARE[len(first)]


def _column(name: str) -> str:
    plain = re.sub(r"[^a-z0-9]", "", name.lower())
    return _NAMES.get(plain, plain)


def _parquet(path: Path, bucket: str) -> Iterator[Entry]:
    try:
        from pyarrow import parquet
    except ImportError:
        raise MigrationError(
            f'the listing {path} is a Parquet file, which needs pyarrow: pip install "shiftable[parquet]"'
        ) from None
    from pyarrow.lib import ArrowException

    try:
        with parquet.ParquetFile(path) as file:
            wanted = {_column(name): name for name in file.schema_arrow.names}
            used = [wanted[name] for name in _USED if name in wanted]
            if "key" not in wanted:
                raise MigrationError(f"the listing {path} has no column of keys; it has: {', '.join(wanted.values())}")
            for batch in file.iter_batches(batch_size=10_000, columns=used):
                for row in batch.to_pylist():
                    yield from _entry(path, bucket, {_column(name): value for name, value in row.items()})
    except ArrowException as exc:
        raise MigrationError(f"the listing {path} is damaged or no Parquet file: {exc}") from exc


_USED = ("bucket", "key", "size", "etag", "modified", "storageclass", "islatest", "isdeletemarker")


def _manifest(path: Path, bucket: str) -> Iterator[Entry]:
    try:
        found = json.loads(path.read_bytes())
        files = [(str(each["key"]), each.get("MD5checksum")) for each in found["files"]]
        kind, columns = str(found["fileFormat"]).upper(), [name.strip() for name in str(found["fileSchema"]).split(",")]
    except (ValueError, KeyError, TypeError, AttributeError) as exc:
        raise MigrationError(f"{path} is no manifest of S3 Inventory") from exc
    if found.get("sourceBucket", bucket) != bucket:
        raise MigrationError(f"{path} is the inventory of the bucket {found['sourceBucket']}, not of {bucket}")
    if kind not in {"CSV", "PARQUET"}:
        raise MigrationError(f"{path} is an inventory in the format {kind}; CSV and Parquet can be read")
    for name, digest in files:
        data = _beside(path, name)
        _check(data, digest)
        yield from _csv(data, bucket, columns) if kind == "CSV" else _parquet(data, bucket)


def _beside(manifest: Path, key: str) -> Path:
    name = key.rpartition("/")[2]
    places = [manifest.parent / name, manifest.parent / "data" / name, manifest.parent.parent / "data" / name]
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        raise MigrationError(f"{manifest} names {key}, which is not in {places[0].parent} and not in data beside it")
    return found


def _check(path: Path, expected: object) -> None:
    if expected is None:
        return
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    if digest != expected:
        raise MigrationError(f"{path} is not what the manifest says: its MD5 is {digest}; fetch it again")


def _entry(path: Path, bucket: str, row: dict[str, Any], *, encoded: bool = False) -> Iterator[Entry]:
    """Make an entry of a row, and none of what is no newest version."""
    if row.get("bucket") not in {None, "", bucket}:
        raise MigrationError(f"the listing {path} tells of the bucket {row['bucket']}, not of {bucket}")
    if _truth(row.get("isdeletemarker"), default=False) or not _truth(row.get("islatest"), default=True):
        return
    key = unquote_plus(row["key"], errors="strict") if encoded else row["key"]
    if not isinstance(key, str) or not key:
        raise MigrationError(f"the listing {path} has a row without a key")
    try:
        yield Entry(
            key=key,
            size=int(row["size"]) if row.get("size") not in {None, ""} else None,
            etag=row.get("etag") or None,
            modified=_time(row.get("modified")),
            storage_class=row.get("storageclass") or None,
        )
    except (ValueError, TypeError) as exc:
        raise MigrationError(f"the listing {path} is damaged at the key {key!r}: {exc}") from exc


def _truth(value: object, *, default: bool) -> bool:
    return default if value in {None, ""} else str(value).lower() == "true"


def _time(value: object) -> datetime | None:
    if value in {None, ""}:
        return None
    found = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
    return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)


# sorting


_Row = tuple[bytes, Entry]


def _sorted(entries: Iterable[Entry]) -> Iterator[_Row]:
    """Sort by the keys' bytes: what fits into memory there, the rest in files that the system deletes."""
    rows = ((entry.key.encode(), entry) for entry in entries)
    first = sorted(itertools.islice(rows, _SORTED_AT_ONCE), key=_order)
    if len(first) < _SORTED_AT_ONCE:
        yield from first
        return
    with ExitStack() as stack:
        runs = [iter(first)]
        while run := sorted(itertools.islice(rows, _SORTED_AT_ONCE), key=_order):
            file = stack.enter_context(tempfile.TemporaryFile("w+", encoding="utf-8"))
            file.writelines(_written(entry) for _, entry in run)
            file.seek(0)
            runs.append(_reread(file))
        yield from heapq.merge(*runs, key=_order)


def _order(row: _Row) -> bytes:
    return row[0]


def _written(entry: Entry) -> str:
    modified = entry.modified.isoformat() if entry.modified else None
    return json.dumps([entry.key, entry.size, entry.etag, modified, entry.storage_class]) + "\n"


def _reread(file: Iterable[str]) -> Iterator[_Row]:
    for line in file:
        key, size, etag, modified, storage_class = json.loads(line)
        entry = Entry(key=key, size=size, etag=etag, modified=_time(modified), storage_class=storage_class)
        yield key.encode(), entry


def _distinct(rows: Iterable[_Row]) -> Iterator[_Row]:
    for _, same in itertools.groupby(rows, key=_order):
        yield next(same)


# what a listing of the provider's would tell


_Telling = Callable[[Entry], ObjectSummary]


def _trusted(source: Bucket, sample: Sequence[Entry]) -> _Telling | None:
    """Find out how the provider's own listing tells what the file tells; ``None``: it does not."""
    for entry in sample:
        here = next(iter(source.list(prefix=entry.key, limit=1)), None)
        if here is None or here.key != entry.key or entry.etag is None:
            continue
        for form in ('"{}"', "{}"):
            hashes = here.md5 is not None
            told = _told(entry, form, hashes=hashes)
            if told is not None and _pinned(told) == _pinned(here):
                return lambda each: _told(each, form, hashes=hashes) or _gone(each)
    return None


def _pinned(found: ObjectSummary) -> tuple[object, ...]:
    """Return what the journal keeps of a version."""
    return found.key, found.size, found.token, found.modified, found.md5


def _told(entry: Entry, form: str, *, hashes: bool) -> ObjectSummary | None:
    if entry.size is None or entry.etag is None or entry.modified is None:
        return None
    bare = entry.etag.strip('"')
    return ObjectSummary(
        key=entry.key,
        size=entry.size,
        token=Token(form.format(bare)),
        modified=entry.modified,
        md5=bytes.fromhex(bare) if hashes and re.fullmatch("[0-9a-f]{32}", bare) else None,
        storage_class=entry.storage_class,
    )


def _gone(entry: Entry) -> ObjectSummary:
    """Return an object of which only the listing file knows; no object has this version."""
    return ObjectSummary(
        key=entry.key,
        size=entry.size or 0,
        token=Token("gone"),
        modified=entry.modified or datetime.fromtimestamp(0, UTC),
    )


def _described(source: Bucket, entries: Iterable[Entry], trusted: _Telling | None) -> Iterator[ObjectSummary]:
    """Tell of the objects, in order: as the file does, or as the provider answers, some questions ahead."""

    def asked(entry: Entry) -> ObjectSummary:
        try:
            found = source.stat(entry.key)
        except NotFound:
            return _gone(entry)
        return ObjectSummary(**{field.name: getattr(found, field.name) for field in attrs.fields(ObjectSummary)})

    waiting: deque[ObjectSummary | Future[ObjectSummary]] = deque()
    with ThreadPoolExecutor(_ASKED_AT_ONCE, thread_name_prefix="shiftable-listing") as pool:
        try:
            for entry in entries:
                complete = entry.size is not None and entry.etag is not None and entry.modified is not None
                waiting.append(trusted(entry) if trusted and complete else pool.submit(asked, entry))
                if len(waiting) > 2 * _ASKED_AT_ONCE:
                    yield _result(waiting.popleft())
            while waiting:
                yield _result(waiting.popleft())
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _result(found: ObjectSummary | Future[ObjectSummary]) -> ObjectSummary:
    return found.result() if isinstance(found, Future) else found

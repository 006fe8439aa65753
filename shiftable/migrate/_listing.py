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
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, cast
from urllib.parse import unquote_plus

import attrs

from shiftable.errors import MigrationError

__all__ = ["Entry", "entries"]

_SORTED_AT_ONCE = 200_000
"""Entries in memory while a file is sorted; a hundred megabytes at most."""
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


def entries(path: Path, bucket: str) -> Iterator[Entry]:
    """Yield the objects in the order of their keys' UTF-8 bytes, at a memory that does not grow.

    Raises:
        MigrationError: it cannot be read, is damaged, or is another bucket's.
    """
    return (first for _, first in _distinct(_sorted(_read(path, bucket))))


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

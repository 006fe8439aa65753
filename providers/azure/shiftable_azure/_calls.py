"""The driver's calls for single objects and pages of them, as azure-storage-blob makes them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

import attrs
from azure.storage.blob import BlobPrefix, BlobProperties

from shiftable.blob.driver import CommonPrefix, ObjectSummary
from shiftable.tokens import Token
from shiftable_azure._order import Fetched, Stretch

if TYPE_CHECKING:
    from azure.storage.blob import BlobClient, ContainerClient

    from shiftable_azure._session import Session

__all__ = ["Arguments", "Calls", "Row", "fetch", "moment", "token"]

# What is optional in a call, by name; the SDK itself takes it as **kwargs.
Arguments = dict[str, Any]

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_MOMENT = re.compile(rf"[A-Z][a-z]{{2}}, (\d\d) ({'|'.join(_MONTHS)}) ([1-9]\d{{3}}) (\d\d):(\d\d):([0-5]\d) GMT")
_META = "x-ms-meta-"


class Row(NamedTuple):
    """An entry of a listing."""

    name: str
    item: ObjectSummary | CommonPrefix


class _Opened(Exception):
    """Carries the answer to a GET past the SDK's downloader, which would read all of it, or the first megabytes."""

    def __init__(self, headers: Mapping[str, str], body: Any) -> None:  # noqa: ANN401  azure-core's generator
        super().__init__()
        self.headers = headers
        self.body = body


def _take_over(answer: Any, body: Any, _headers: object) -> NoReturn:  # noqa: ANN401  as the SDK hands it over
    raise _Opened(answer.http_response.headers, body)


@attrs.define
class _Chunks(Iterator[bytes]):
    """The body of an answer, as it comes; unlike a generator's, its ``close`` works before the first chunk too."""

    _body: Any

    def __next__(self) -> bytes:
        return bytes(next(self._body))

    def close(self) -> None:
        """Give the connection back."""
        self._body.response.internal_response.close()


@attrs.define(eq=False)
class Calls:
    """What the driver asks for most. Arguments, answers to writes, and exceptions are the SDK's.

    Headers that are returned have names in lower case, but for those of metadata, which are as they came.
    """

    session: Session

    def properties(self, bucket: str, key: str, arguments: Arguments) -> Mapping[str, str]:
        """Return the headers that tell an object's properties."""
        seen: list[Mapping[str, str]] = []

        def kept(answer: Any, *_: object) -> BlobProperties:  # noqa: ANN401  the transport's
            seen.append(answer.headers)
            return BlobProperties()

        # Not by raw_response_hook, which the SDK forgets once a connection has failed.
        self.blob(bucket, key).get_blob_properties(cls=kept, **arguments)
        return _lowered(seen[-1])

    def open(self, bucket: str, key: str, arguments: Arguments) -> tuple[Mapping[str, str], Iterator[bytes]]:
        """Return an object's headers, and its content; who does not read that to its end closes it."""
        try:
            self.blob(bucket, key).download_blob(cls=_take_over, decompress=False, **arguments)
        except _Opened as opened:
            return _lowered(opened.headers), _Chunks(opened.body)
        raise AssertionError  # the SDK hands each answer over

    def put(self, bucket: str, key: str, data: bytes, arguments: Arguments) -> Mapping[str, Any]:
        """Write an object in one piece."""
        return dict(self.blob(bucket, key).upload_blob(data, overwrite=True, **arguments))

    def put_block(self, bucket: str, key: str, block: str, data: bytes) -> None:
        """Send a block with its MD5, which the answer must tell too."""
        self.blob(bucket, key).stage_block(block, data, length=len(data), validate_content=True)

    def copy(self, bucket: str, key: str, source: str, arguments: Arguments) -> None:
        """Have the service write an object from a URL."""
        self.blob(bucket, key).upload_blob_from_url(source, overwrite=True, **arguments)

    def delete(self, bucket: str, key: str, arguments: Arguments) -> None:
        """Delete an object, or a version of it."""
        self.blob(bucket, key).delete_blob(**arguments)

    def page(self, bucket: str, stretch: Stretch, delimiter: str | None, size: int) -> Fetched:
        """Return one page of a listing; its entries are rows."""
        page = fetch(self.session.blobs.get_container_client(bucket), stretch, delimiter, size)
        return attrs.evolve(page, entries=tuple(Row(entry.name, _item(entry)) for entry in page.entries))

    def blob(self, bucket: str, key: str) -> BlobClient:
        """Return the SDK's client of an object."""
        return self.session.blobs.get_blob_client(bucket, key)


def fetch(
    container: ContainerClient, stretch: Stretch, delimiter: str | None, size: int, **arguments: object
) -> Fetched:
    """Make one call of a listing."""
    known: Arguments = {"name_starts_with": stretch.prefix or None, "results_per_page": size, **arguments}
    if stretch.start > stretch.prefix and stretch.marker is None:
        known["start_from"] = stretch.start
    listing = container.walk_blobs(delimiter=delimiter, **known) if delimiter else container.list_blobs(**known)
    pages: Any = listing.by_page(stretch.marker)  # azure-core types a bare iterator
    entries = tuple(next(pages))
    return Fetched(entries, pages.continuation_token or None)


def token(etag: str) -> Token:
    """Return an ETag without the quotes that headers have around it and listings have not."""
    return Token(etag.strip('"'))


def moment(text: str) -> datetime:
    """Read the time in a header: in the one form that HTTP has, without what else e-mail allows."""
    found = _MOMENT.fullmatch(text)
    if found is None:
        return parsedate_to_datetime(text)
    day, month, year, hour, minute, second = found.groups()
    return datetime(int(year), _MONTHS.index(month) + 1, int(day), int(hour), int(minute), int(second), tzinfo=UTC)


def _lowered(headers: Mapping[str, str]) -> Mapping[str, str]:
    return {name if name.lower().startswith(_META) else name.lower(): value for name, value in headers.items()}


def _item(entry: BlobProperties | BlobPrefix) -> ObjectSummary | CommonPrefix:
    if isinstance(entry, BlobPrefix):
        return CommonPrefix(entry.name)
    digest = entry.content_settings.content_md5
    return ObjectSummary(
        key=entry.name,
        size=entry.size,
        token=token(entry.etag),
        modified=entry.last_modified,
        md5=bytes(digest) if digest else None,
        storage_class=entry.blob_tier,
    )

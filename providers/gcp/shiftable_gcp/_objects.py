"""What one call of Cloud Storage does with an object, through google-cloud-storage.

``blob.GcsDriver`` says what is called, when, and what an answer means; here is how. Objects are told as the service
tells them, as resources of its JSON API. In the bulk lane ``_wire.WireObjects`` makes the same calls.
"""

from __future__ import annotations

import base64
import functools
import re
from collections.abc import Callable
from datetime import datetime
from urllib.parse import quote

import attrs
from google.api_core.exceptions import from_http_response

from shiftable.blob.driver import PutOptions
from shiftable_gcp._blob_told import DEFAULT_TYPE, Resource, retain
from shiftable_gcp._holds import held
from shiftable_gcp._session import TIMEOUT, Session, Untyped

__all__ = ["Media", "Rows", "SdkObjects", "describe", "media_path", "object_path", "resource_of"]

_PLAIN = re.compile(r"[A-Za-z0-9_.~/-]*")


@attrs.frozen
class Media:
    """The bytes of an object, as far as they have come.

    Args:
        read: returns the next ones, so many at most; none at the end.
        close: drops what is left.
    """

    status: int
    read: Callable[[int], bytes]
    close: Callable[[], object]


@attrs.frozen
class Rows:
    """One page of a listing."""

    items: list[Resource]
    prefixes: list[str]
    next: str | None


class SdkObjects:
    """The calls. Each is made under a policy, which repeats it, and raises what the SDK raises."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def look(
        self,
        bucket: str,
        key: str,
        policy: Untyped,
        *,
        generation: int | None = None,
        match: int | None = None,
        not_match: int | None = None,
    ) -> Resource:
        """Return everything about an object or one generation of it."""
        blob = self._session.client.bucket(bucket).blob(key, generation=generation)
        blob.reload(if_generation_match=match, if_generation_not_match=not_match, timeout=TIMEOUT, retry=policy)
        return resource_of(blob)

    def open(
        self,
        bucket: str,
        key: str,
        policy: Untyped,
        *,
        generation: int | None = None,
        match: int | None = None,
        span: tuple[int, int] | None,
    ) -> Media:
        """Ask for bytes of one generation as they are stored: the SDK only pushes them into files."""
        transport = self._session.transport
        url = f"{self._session.client.api_endpoint}{media_path(bucket, key, generation, match)}"
        headers = {"Accept-Encoding": "gzip"}  # else the service unpacks what is stored compressed
        if span is not None:
            headers["Range"] = f"bytes={span[0]}-{span[1] - 1}"

        def once() -> Media:
            answer = transport.request("GET", url, headers=headers, stream=True, timeout=TIMEOUT)
            if not 200 <= answer.status_code < 300:
                with answer:
                    raise from_http_response(answer)
            return Media(answer.status_code, functools.partial(answer.raw.read, decode_content=False), answer.close)

        opened: Media = policy(once)()
        return opened

    def write(
        self, bucket: str, key: str, data: bytes, options: PutOptions, policy: Untyped, *, match: int | None
    ) -> Resource:
        """Write an object in one piece; the service compares its CRC32C, and its MD5 where the options tell it."""
        blob = self._described(bucket, key, options)
        if options.md5 is not None:
            blob.md5_hash = base64.b64encode(options.md5).decode()
        blob.upload_from_string(
            data,
            content_type=options.headers.content_type or DEFAULT_TYPE,
            if_generation_match=match,
            checksum="crc32c",
            timeout=TIMEOUT,
            retry=policy,
        )
        return resource_of(blob)

    def rewrite(
        self,
        place: tuple[str, str],
        target: tuple[str, str],
        options: PutOptions,
        policy: Untyped,
        *,
        custom_time: str | None,
        generation: int | None,
        source_match: int,
        match: int | None,
    ) -> Resource:
        """Copy inside the service, in as many steps as it takes; all is said in full, and nothing taken along.

        Args:
            place: the bucket and the key of the source.
            target: those of the copy.
            generation: the source's, if one that is gone is a missing object.
            source_match: the generation that the source must have.
        """
        client = self._session.client
        origin = client.bucket(place[0]).blob(place[1], generation=generation)
        blob = self._described(*target, options)
        blob.content_type = options.headers.content_type or DEFAULT_TYPE
        if custom_time is not None:
            blob.custom_time = datetime.fromisoformat(custom_time)
        token: str | None = None
        while True:
            token, _, _ = blob.rewrite(
                origin,
                token=token,
                if_generation_match=match,
                if_source_generation_match=source_match,
                timeout=TIMEOUT,
                retry=policy,
            )
            if token is None:
                return resource_of(blob)

    def delete(
        self, bucket: str, key: str, policy: Untyped, *, generation: int | None = None, match: int | None = None
    ) -> None:
        """Delete an object or one generation of it."""
        self._session.client.bucket(bucket).delete_blob(
            key, generation=generation, if_generation_match=match, timeout=TIMEOUT, retry=policy
        )

    def page(
        self,
        bucket: str,
        policy: Untyped,
        *,
        fields: str,
        size: int,
        prefix: str = "",
        delimiter: str | None = None,
        start: str | None = None,
        cursor: str | None = None,
        versions: bool = False,
    ) -> Rows:
        """Return one page of so many objects, from one key on."""
        listing = self._session.client.list_blobs(
            bucket,
            prefix=prefix or None,
            delimiter=delimiter,
            start_offset=start or None,
            versions=versions or None,
            page_token=cursor,
            max_results=size,
            fields=fields,
            timeout=TIMEOUT,
            retry=policy,
        )
        items = [resource_of(blob) for blob in next(listing.pages, ())]
        return Rows(items, list(listing.prefixes), listing.next_page_token)

    def _described(self, bucket: str, key: str, options: PutOptions) -> Untyped:
        holder = self._session.client.bucket(bucket)
        blob = held(key, holder) if options.hold else holder.blob(key)
        describe(blob, options)
        if options.retention is not None:
            retain(blob, options.retention)
        return blob


def describe(blob: Untyped, options: PutOptions) -> None:
    """Set what is stored with an object, but its type, which the SDK wants by itself."""
    headers = options.headers
    for name in ("cache_control", "content_disposition", "content_encoding", "content_language"):
        value = getattr(headers, name)
        if value is not None:
            setattr(blob, name, value)
    if options.metadata:
        blob.metadata = dict(options.metadata)
    if options.storage_class is not None:
        blob.storage_class = options.storage_class


def media_path(bucket: str, key: str, generation: int | None, match: int | None) -> str:
    """Return where the bytes of a generation are, below the endpoint; of the newest one, if that is to be ``match``."""
    known = {"generation": generation, "ifGenerationMatch": match}
    query = "".join(f"&{name}={value}" for name, value in known.items() if value is not None)
    return f"/download/storage/v1{object_path(bucket, key)}?alt=media{query}"


def object_path(bucket: str, key: str) -> str:
    """Return the path of an object; a slash in a key is no slash there."""
    return f"/b/{bucket}/o/{key.replace('/', '%2F') if _PLAIN.fullmatch(key) else quote(key, safe='')}"


def resource_of(blob: Untyped) -> Resource:
    """Return what the service has told of an object: the SDK's own properties leave half of it out."""
    found: Resource = blob._properties  # noqa: SLF001
    return found

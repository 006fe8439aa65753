"""Objects in parts, through the XML API: the only one of Cloud Storage's uploads that takes parts in any order.

The JSON API's resumable uploads know conditions, and take one byte after the other. The XML API's multipart uploads
take parts from many threads, and refuse every condition ("Preconditions are not supported", documentation of XML API
multipart uploads). ``blob.GcsDriver`` makes up for that by an atomic move.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from urllib.parse import quote, urlencode

import attrs
from google.api_core.exceptions import from_http_response

from shiftable.blob.driver import PendingUpload, PutOptions
from shiftable.paging import Page
from shiftable_gcp._crc32c import crc32c, told
from shiftable_gcp._rules import has_dot_segments
from shiftable_gcp._session import TIMEOUT, Attempts, Session, Untyped

__all__ = ["SentPart", "XmlUploads"]

_PAGE = 1_000
_UPLOAD = re.compile(r"<Upload>(.*?)</Upload>", re.DOTALL)
_FIELD = re.compile(r"<(Key|UploadId|Initiated)>(.*?)</\1>", re.DOTALL)
_NAMED = {"amp": "&", "lt": "<", "gt": ">", "quot": '"', "apos": "'"}
_REFERENCE = re.compile(r"&(#[0-9]+|#[xX][0-9a-fA-F]+|amp|lt|gt|quot|apos);")


@attrs.frozen
class SentPart:
    """What the service answers to a part."""

    number: int
    etag: str
    crc32c: int


class XmlUploads:
    """The five calls. They raise what google-api-core makes of an answer."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def begin(self, bucket: str, key: str, options: PutOptions, content_type: str) -> str:
        """Return the id of a new upload. A try whose answer is lost leaves one without parts behind."""
        headers = options.headers
        stated = {
            "Content-Type": content_type,
            "Cache-Control": headers.cache_control,
            "Content-Disposition": headers.content_disposition,
            "Content-Encoding": headers.content_encoding,
            "Content-Language": headers.content_language,
            "x-goog-storage-class": options.storage_class,
        } | {f"x-goog-meta-{name}": value for name, value in options.metadata.items()}
        sent = {name: value for name, value in stated.items() if value is not None}
        answer = self._send("POST", bucket, key, {"uploads": ""}, headers=sent)
        # Not parsed as XML: the key is in it too, and XML cannot write all of them.
        return str(_between(answer.text, "UploadId"))

    def part(self, bucket: str, key: str, upload: str, number: int, data: bytes) -> SentPart:
        """Send one part with its CRC32C, which the service compares."""
        checksum = crc32c(data)
        query = {"partNumber": str(number), "uploadId": upload}
        answer = self._send("PUT", bucket, key, query, headers={"x-goog-hash": f"crc32c={told(checksum)}"}, data=data)
        return SentPart(number, answer.headers["ETag"], checksum)

    def complete(self, bucket: str, key: str, upload: str, parts: list[SentPart], attempts: Attempts) -> None:
        """Make the object, over whatever is there."""
        listed = "".join(
            f"<Part><PartNumber>{part.number}</PartNumber><ETag>{part.etag}</ETag></Part>" for part in parts
        )
        body = f"<CompleteMultipartUpload>{listed}</CompleteMultipartUpload>".encode()
        headers = {"Content-Type": "application/xml"}
        self._send("POST", bucket, key, {"uploadId": upload}, headers=headers, data=body, attempts=attempts)

    def abort(self, bucket: str, key: str, upload: str) -> None:
        """Drop an upload and its parts."""
        self._send("DELETE", bucket, key, {"uploadId": upload})

    def list(self, bucket: str, prefix: str, marker: tuple[str, str] | None, limit: int | None) -> Page[PendingUpload]:
        """Return one page of uploads by key; whoever asks makes a cursor of the last one."""
        # Not URL-encoded: whether a blank is then a plus is documented nowhere. No XML parser reads this, so that it
        # does not matter which characters XML forbids.
        query = {"uploads": "", "max-uploads": str(min(limit or _PAGE, _PAGE))}
        if prefix:
            query["prefix"] = prefix
        if marker is not None:
            query["key-marker"], query["upload-id-marker"] = marker
        text = self._send("GET", bucket, "", query).text
        found = tuple(_pending(dict(_FIELD.findall(entry))) for entry in _UPLOAD.findall(text))
        return Page(found, "more" if _between(text, "IsTruncated") == "true" and found else None)

    def _send(
        self,
        method: str,
        bucket: str,
        key: str,
        query: dict[str, str],
        *,
        headers: dict[str, str] | None = None,
        data: bytes = b"",
        attempts: Attempts | None = None,
    ) -> Untyped:
        transport = self._session.transport
        url = f"{self._session.client.api_endpoint}/{bucket}/{_path(key)}?{urlencode(query, quote_via=quote)}"

        def once() -> Untyped:
            answer = transport.request(method, url, data=data, headers=headers, timeout=TIMEOUT)
            if not 200 <= answer.status_code < 300:
                raise from_http_response(answer)
            return answer

        return (attempts or self._session.attempts()).policy(once)()


def _path(key: str) -> str:
    """Encode a key for a URL; a slash only where the segments beside it would be resolved on the way."""
    return quote(key, safe="~" if has_dot_segments(key) else "/~")


def _between(text: str, name: str) -> str:
    return text.partition(f"<{name}>")[2].partition(f"</{name}>")[0]


def _pending(entry: dict[str, str]) -> PendingUpload:
    started = datetime.fromisoformat(entry["Initiated"]).astimezone(UTC)
    return PendingUpload(key=_REFERENCE.sub(_character, entry["Key"]), id=entry["UploadId"], started=started)


def _character(found: re.Match[str]) -> str:
    """Return what a reference of XML stands for, also where XML itself would not allow it."""
    name = found.group(1)
    if not name.startswith("#"):
        return _NAMED[name]
    return chr(int(f"0{name[1:]}", 16) if name[1] in "xX" else int(name[1:]))

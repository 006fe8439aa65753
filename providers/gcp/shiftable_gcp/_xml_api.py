"""The double's XML API of Cloud Storage: objects, listings, multipart uploads."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from urllib.parse import parse_qsl, unquote
from xml.sax.saxutils import escape, unescape

import attrs

from shiftable.testing.browsers import Letting, let_in
from shiftable.testing.harness import Headers, Request, Response
from shiftable_gcp._crc32c import crc32c, told
from shiftable_gcp._json_api import media, xml_etag
from shiftable_gcp._state import Conditions, Refused, State, Stored, invalid, part_etag

__all__ = ["XmlApi"]

_META = "x-goog-meta-"
_PAGE = 1000
_FIELDS = {
    "cacheControl": "Cache-Control",
    "contentDisposition": "Content-Disposition",
    "contentEncoding": "Content-Encoding",
    "contentLanguage": "Content-Language",
    "contentType": "Content-Type",
    "storageClass": "x-goog-storage-class",
}
_ANSWERED = {"response-content-type": "Content-Type", "response-content-disposition": "Content-Disposition"}
_CONDITIONS = ("x-goog-if-generation-match", "x-goog-if-metageneration-match", "If-Match", "If-None-Match")
_PART = re.compile(rb"<Part>(.*?)</Part>", re.DOTALL)
_NUMBER = re.compile(rb"<PartNumber>\s*(\d+)\s*</PartNumber>")
_ETAG = re.compile(rb"<ETag>(.*?)</ETag>", re.DOTALL)
_ILLEGAL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f]")


@attrs.frozen
class _Call:
    request: Request
    bucket: str
    key: str
    query: Mapping[str, str]

    def header(self, name: str) -> str | None:
        return self.request.headers.get(name)

    def number(self, name: str) -> int | None:
        value = self.header(name)
        return None if value is None else int(value)

    @property
    def conditions(self) -> Conditions:
        return Conditions(
            generation=self.number("x-goog-if-generation-match"),
            metageneration=self.number("x-goog-if-metageneration-match"),
        )


@attrs.define
class XmlApi:
    """Answers the XML API out of a state, one request at a time, with buckets in the path."""

    state: State
    page_size: int = _PAGE

    def answer(self, request: Request) -> Response:
        """Execute a request, and let the scripts of pages read the answer that the bucket's rules let in."""
        bucket, _, key = request.target.partition("?")[0].removeprefix("/").partition("/")
        query = dict(parse_qsl(request.query, keep_blank_values=True))
        call = _Call(request, unquote(bucket), unquote(key), query)
        try:
            response = Response("200 OK", Headers({})) if request.method == "OPTIONS" else self._route(call)(call)
        except Refused as exc:
            response = _refused(exc)
        response.headers.update(let_in(self._letting(call.bucket), request))
        return response

    def _letting(self, bucket: str) -> Iterator[Letting]:
        there = self.state.buckets.get(bucket)
        for rule in there.properties.get("cors", ()) if there is not None else ():
            headers = tuple(rule.get("responseHeader", ()))
            yield Letting(
                origins=tuple(rule.get("origin", ())),
                methods=tuple(rule.get("method", ())),
                headers=headers,
                exposed=headers,
                seconds=rule.get("maxAgeSeconds"),
            )

    def refuse(self, refused: Refused) -> Response:
        """Write an error as this API does."""
        return _refused(refused)

    def _route(self, call: _Call) -> Callable[[_Call], Response]:
        verb, query = call.request.method, call.query
        if not call.key:
            if verb == "GET" and call.bucket:
                return self._uploads if "uploads" in query else self._list
        elif "uploads" in query or "uploadId" in query:
            for name in _CONDITIONS:
                if call.header(name) is not None:
                    message = "A header you provided implies functionality that is not implemented."
                    raise Refused(400, "notImplemented", "NotImplemented", message)
            table = {
                "POST": self._complete if "uploadId" in query else self._begin,
                "PUT": self._part,
                "DELETE": self._abort,
            }
            if verb in table:
                return table[verb]
        elif verb == "PUT":
            return self._copy if call.header("x-goog-copy-source") else self._put
        elif verb in {"GET", "HEAD", "DELETE"}:
            return self._delete if verb == "DELETE" else self._get
        raise Refused(405, "methodNotAllowed", "MethodNotAllowed", "The specified method is not allowed.")

    # objects

    def _get(self, call: _Call) -> Response:
        generation = call.query.get("generation")
        found = self.state.bucket(call.bucket).find(call.key, int(generation) if generation else None)
        call.conditions.require(found, reading=True)
        response = media(found, call.request, xml=True)
        for name, value in found.metadata.items():
            response.headers[_META + name] = value.encode().decode("latin-1")
        for name, header in _ANSWERED.items():
            if name in call.query:
                response.headers[header] = call.query[name]
        if call.request.method == "HEAD":
            response.headers["Content-Length"] = str(len(response.body))
        return response

    def _put(self, call: _Call) -> Response:
        draft = _draft(call)
        _compare(call.request)
        _measure(call)
        made = self.state.write(call.bucket, draft, call.conditions)
        return Response("200 OK", _told(made))

    def _copy(self, call: _Call) -> Response:
        bucket, _, key = unquote(call.header("x-goog-copy-source") or "").removeprefix("/").partition("/")
        source = self.state.bucket(bucket).find(key, call.number("x-goog-copy-source-generation"))
        fields, metadata = dict(source.fields), dict(source.metadata)
        if (call.header("x-goog-metadata-directive") or "COPY") == "REPLACE":
            stated = _draft(call)
            fields, metadata = stated.fields, stated.metadata
        draft = Stored(name=call.key, data=source.data, fields=fields, metadata=metadata, components=source.components)
        made = self.state.write(call.bucket, draft, call.conditions)
        body = (
            f"<CopyObjectResult><ETag>{escape(xml_etag(made))}</ETag><LastModified>{_time(made.updated)}</LastModified>"
        )
        return _xml(f"{body}</CopyObjectResult>", _told(made))

    def _delete(self, call: _Call) -> Response:
        generation = call.query.get("generation")
        self.state.delete(call.bucket, call.key, int(generation) if generation else None, call.conditions)
        return Response("204 No Content", Headers())

    def _list(self, call: _Call) -> Response:
        bucket, query = self.state.bucket(call.bucket), call.query
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
        after = query.get("continuation-token") or query.get("start-after") or query.get("marker") or ""
        size = min(int(query.get("max-keys", _PAGE)), self.page_size)
        found: list[tuple[str, str]] = []
        more = False
        for name in bucket.names():
            live = bucket.live(name)
            rest = name[len(prefix) :]
            if live is None or not name.startswith(prefix) or name.encode() <= after.encode():
                continue
            rolled = prefix + rest[: rest.index(delimiter) + len(delimiter)] if delimiter and delimiter in rest else ""
            if rolled and (after.startswith(rolled) or (found and found[-1][0] == rolled)):
                continue
            if len(found) == size:
                more = True
                break
            found.append((rolled, _rolled(rolled)) if rolled else (name, _contents(live)))
        following = f"<NextContinuationToken>{_text(found[-1][0])}</NextContinuationToken>" if more else ""
        following += f"<NextMarker>{_text(found[-1][0])}</NextMarker>" if more else ""
        head = (
            f"<Name>{bucket.name}</Name><Prefix>{_text(prefix)}</Prefix><IsTruncated>{str(more).lower()}</IsTruncated>"
        )
        entries = "".join(entry for _, entry in found)
        return _xml(f"<ListBucketResult>{head}{following}{entries}</ListBucketResult>")

    # uploads in parts

    def _begin(self, call: _Call) -> Response:
        upload = self.state.begin_upload(call.bucket, _draft(call))
        return _xml(
            f"<InitiateMultipartUploadResult><Bucket>{call.bucket}</Bucket><Key>{_text(call.key)}</Key>"
            f"<UploadId>{upload.id}</UploadId></InitiateMultipartUploadResult>"
        )

    def _part(self, call: _Call) -> Response:
        upload = self.state.upload(call.bucket, call.key, call.query["uploadId"])
        number = int(call.query.get("partNumber", "0"))
        if not 1 <= number <= 10_000:
            raise invalid("Part number must be an integer between 1 and 10000, inclusive.")
        _compare(call.request)
        upload.parts[number] = call.request.body
        headers = Headers({"ETag": part_etag(call.request.body)})
        headers.add("X-Goog-Hash", f"crc32c={told(crc32c(call.request.body))}")
        return Response("200 OK", headers)

    def _complete(self, call: _Call) -> Response:
        upload = self.state.upload(call.bucket, call.key, call.query["uploadId"])
        listed = []
        for part in _PART.findall(call.request.body):
            number, etag = _NUMBER.search(part), _ETAG.search(part)
            if number is None or etag is None:
                raise invalid("The XML you provided was not well-formed.", "MalformedXML")
            listed.append((int(number.group(1)), unescape(etag.group(1).decode(), {"&quot;": '"'})))
        made = self.state.complete_upload(call.bucket, upload, listed)
        etag_text = escape(xml_etag(made))
        return _xml(
            f"<CompleteMultipartUploadResult><Bucket>{call.bucket}</Bucket><Key>{_text(call.key)}</Key>"
            f"<ETag>{etag_text}</ETag></CompleteMultipartUploadResult>",
            _told(made),
        )

    def _abort(self, call: _Call) -> Response:
        upload = self.state.upload(call.bucket, call.key, call.query["uploadId"])
        del self.state.bucket(call.bucket).uploads[upload.id]
        return Response("204 No Content", Headers())

    def _uploads(self, call: _Call) -> Response:
        bucket, query = self.state.bucket(call.bucket), call.query
        marker = (query.get("key-marker", "").encode(), query.get("upload-id-marker") or "\U0010ffff")
        begun = sorted(bucket.uploads.values(), key=lambda each: (each.name.encode(), each.id))
        left = [each for each in begun if each.name.startswith(query.get("prefix", ""))]
        if marker[0]:
            left = [each for each in left if (each.name.encode(), each.id) > marker]
        size = min(int(query.get("max-uploads", _PAGE)), self.page_size)
        entries = "".join(
            f"<Upload><Key>{_text(each.name)}</Key><UploadId>{each.id}</UploadId><StorageClass>STANDARD</StorageClass>"
            f"<Initiated>{_time(each.started)}</Initiated></Upload>"
            for each in left[:size]
        )
        more = len(left) > size
        following = ""
        if more:
            last = left[size - 1]
            following = (
                f"<NextKeyMarker>{_text(last.name)}</NextKeyMarker><NextUploadIdMarker>{last.id}</NextUploadIdMarker>"
            )
        head = f"<Bucket>{bucket.name}</Bucket><IsTruncated>{str(more).lower()}</IsTruncated>{following}"
        return _xml(f"<ListMultipartUploadsResult>{head}{entries}</ListMultipartUploadsResult>")


def _draft(call: _Call) -> Stored:
    headers = call.request.headers
    fields = {key: headers[name] for key, name in _FIELDS.items() if headers.get(name)}
    metadata = {
        name.lower().removeprefix(_META): value.encode("latin-1").decode("utf-8", "replace")
        for name, value in headers.items()
        if name.lower().startswith(_META)
    }
    return Stored(name=call.key, data=call.request.body, fields=fields, metadata=metadata)


def _compare(request: Request) -> None:
    """Compare the hashes that were sent along with what arrived."""
    digest = base64.b64encode(hashlib.md5(request.body, usedforsecurity=False).digest()).decode()
    found = {"crc32c": told(crc32c(request.body)), "md5": digest}
    stated = [each.strip().partition("=") for each in request.headers.get("X-Goog-Hash", "").split(",") if each]
    pairs = [(name, value) for name, _, value in stated]
    if "Content-MD5" in request.headers:
        pairs.append(("md5", request.headers["Content-MD5"]))
    for name, value in pairs:
        if found.get(name) != value:
            message = f"The {name} you specified did not match what we received."
            raise Refused(400, "invalid", "BadDigest", message)


def _measure(call: _Call) -> None:
    """Refuse content of another length than a signed URL says."""
    stated = call.header("x-goog-content-length-range")
    if stated is None:
        return
    least, _, most = stated.partition(",")
    size = len(call.request.body)
    if size < int(least):
        raise Refused(400, "invalid", "EntityTooSmall", "Your proposed upload is smaller than the minimum size.")
    if size > int(most):
        raise Refused(400, "invalid", "EntityTooLarge", "Your proposed upload exceeds the maximum size.")


def _told(made: Stored) -> Headers:
    headers = Headers({"ETag": xml_etag(made), "x-goog-generation": str(made.generation)})
    headers["x-goog-metageneration"] = str(made.metageneration)
    headers.add("x-goog-hash", f"crc32c={made.crc32c}")
    if made.md5 is not None:
        headers.add("x-goog-hash", f"md5={made.md5}")
    return headers


def _contents(found: Stored) -> str:
    return (
        f"<Contents><Key>{_text(found.name)}</Key><Generation>{found.generation}</Generation>"
        f"<MetaGeneration>{found.metageneration}</MetaGeneration><LastModified>{_time(found.updated)}</LastModified>"
        f"<ETag>{escape(xml_etag(found))}</ETag><Size>{len(found.data)}</Size></Contents>"
    )


def _rolled(prefix: str) -> str:
    return f"<CommonPrefixes><Prefix>{_text(prefix)}</Prefix></CommonPrefixes>"


def _text(value: str) -> str:
    """Escape text; what XML cannot say becomes a reference that only a lenient reader takes."""
    return _ILLEGAL.sub(lambda found: f"&#{ord(found.group())};", escape(value, {"\r": "&#13;", "\n": "&#10;"}))


def _time(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _refused(refused: Refused) -> Response:
    if refused.status == 304:
        return Response("304 Not Modified", Headers())
    code, message = escape(refused.code), escape(refused.message)
    return _xml(f"<Error><Code>{code}</Code><Message>{message}</Message></Error>", status=f"{refused.status} Refused")


def _xml(body: str, headers: Headers | None = None, status: str = "200 OK") -> Response:
    headers = headers or Headers()
    headers["Content-Type"] = "application/xml; charset=UTF-8"
    headers["X-GUploader-UploadID"] = "double-request"
    return Response(status, headers, f"<?xml version='1.0' encoding='UTF-8'?>{body}".encode())

"""The double's JSON API of Cloud Storage."""

from __future__ import annotations

import base64
import gzip
import json
import re
import uuid
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any
from urllib.parse import parse_qsl, quote, unquote

import attrs

from shiftable.testing.harness import Headers, Request, Response
from shiftable_gcp._state import Bucket, Conditions, Protection, Refused, Session, State, Stored, invalid

__all__ = ["JsonApi", "media", "rendered"]

_FIELDS = ("cacheControl", "contentDisposition", "contentEncoding", "contentLanguage", "contentType", "storageClass")
_BUCKET_FIELDS = ("cors", "encryption", "iamConfiguration", "labels", "lifecycle", "storageClass", "versioning")
_QUANTUM = 256 * 1024
_PAGE = 1000
_BATCH = 100
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")
_CONTENT_RANGE = re.compile(r"bytes (?:(\d+)-(\d+)|\*)/(\d+|\*)")
_HEADERS = {
    "cacheControl": "Cache-Control",
    "contentDisposition": "Content-Disposition",
    "contentEncoding": "Content-Encoding",
    "contentLanguage": "Content-Language",
    "contentType": "Content-Type",
}
_UNSUPPORTED = ("matchGlob", "softDeleted", "filter", "includeFoldersAsPrefixes", "kmsKeyName", "userProject")


@attrs.frozen
class _Call:
    """One request, taken apart."""

    request: Request
    names: tuple[str, ...]
    query: Mapping[str, str]

    @property
    def body(self) -> dict[str, Any]:
        """The JSON that was sent."""
        if not self.request.body:
            return {}
        try:
            found = json.loads(self.request.body)
        except ValueError as exc:
            raise Refused(400, "parseError", "InvalidArgument", "Parse Error") from exc
        if not isinstance(found, dict):
            raise Refused(400, "parseError", "InvalidArgument", "Parse Error")
        return found

    def number(self, name: str) -> int | None:
        """Return a parameter that is a number."""
        value = self.query.get(name)
        if value is None:
            return None
        if not re.fullmatch(r"-?\d+", value):
            raise Refused(400, "invalidParameter", "InvalidArgument", f"Invalid value for {name}: {value}")
        return int(value)

    def flag(self, name: str) -> bool:
        """Return a parameter that is yes or no."""
        return self.query.get(name, "").lower() == "true"

    def conditions(self, prefix: str = "if") -> Conditions:
        """Return the preconditions; ``ifSource`` are those on the source of a copy."""
        return Conditions(
            generation=self.number(f"{prefix}GenerationMatch"),
            not_generation=self.number(f"{prefix}GenerationNotMatch"),
            metageneration=self.number(f"{prefix}MetagenerationMatch"),
            not_metageneration=self.number(f"{prefix}MetagenerationNotMatch"),
        )


_Handler = Callable[[_Call], Response]


@attrs.define
class JsonApi:
    """Answers the JSON API out of a state, one request at a time.

    Attributes:
        url: tells where the double listens.
        page_size: how much a page of a listing holds at most.
        rewrite_bytes: how many bytes one call of a rewrite copies; ``None``: all.
    """

    state: State
    url: Callable[[], str]
    page_size: int = _PAGE
    rewrite_bytes: int | None = None
    _routes: tuple[tuple[str, re.Pattern[str], _Handler], ...] = attrs.field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        one = "([^/]+)"
        bucket, object_ = f"/b/{one}", f"/b/{one}/o/{one}"
        table: tuple[tuple[str, str, _Handler], ...] = (
            ("POST", "/storage/v1/b", self._insert_bucket),
            ("GET", "/storage/v1/b", self._list_buckets),
            ("GET", f"/storage/v1{bucket}", self._get_bucket),
            ("PATCH", f"/storage/v1{bucket}", self._patch_bucket),
            ("DELETE", f"/storage/v1{bucket}", self._delete_bucket),
            ("POST", f"(?:/resumable)?/upload/storage/v1{bucket}/o", self._insert),
            ("PUT", f"(?:/resumable)?/upload/storage/v1{bucket}/o", self._continue),
            ("DELETE", f"(?:/resumable)?/upload/storage/v1{bucket}/o", self._cancel),
            ("GET", f"/storage/v1{bucket}/o", self._list),
            ("GET", f"(?:/download)?/storage/v1{object_}", self._get),
            ("PATCH", f"/storage/v1{object_}", self._patch),
            ("DELETE", f"/storage/v1{object_}", self._delete),
            ("POST", f"/storage/v1{object_}/rewriteTo{object_}", self._rewrite),
            ("POST", f"/storage/v1{object_}/copyTo{object_}", self._copy),
            ("POST", f"/storage/v1{object_}/moveTo/o/{one}", self._move),
            ("POST", f"/storage/v1{object_}/compose", self._compose),
        )
        self._routes = tuple((verb, re.compile(path), handler) for verb, path, handler in table)

    def answer(self, request: Request) -> Response | None:
        """Execute a request; ``None`` if it is none of this API's."""
        path = request.target.partition("?")[0]
        for verb, pattern, handler in self._routes:
            found = pattern.fullmatch(path)
            if found and verb == request.method:
                query = dict(parse_qsl(request.query, keep_blank_values=True))
                for name in _UNSUPPORTED:
                    if name in query:
                        return rendered(Refused(501, "notImplemented", "NotImplemented", f"not in the double: {name}"))
                try:
                    response = handler(_Call(request, tuple(unquote(name) for name in found.groups()), query))
                except Refused as exc:
                    return rendered(exc)
                return _partial(response, query["fields"]) if "fields" in query else response
        return None

    def batch(self, request: Request) -> Response:
        """Execute up to 100 requests that came in one."""
        found = re.search(r'boundary="?([^";]+)"?', request.headers.get("Content-Type", ""))
        mark = f"--{found.group(1)}" if found else ""
        pieces = request.body.decode().replace("\r\n", "\n").split(mark)[1:-1] if found else []
        if not 1 <= len(pieces) <= _BATCH:
            return rendered(invalid(f"The batch has {len(pieces)} requests; the limit is {_BATCH}."))
        answers = []
        for number, piece in enumerate(pieces, 1):
            _, _, inner = piece.partition("\n\n")
            verb, url, _ = inner.partition("\n")[0].split(" ")
            target = url.removeprefix(self.url())
            single = attrs.evolve(
                request,
                method=verb,
                path=unquote(target.partition("?")[0]),
                query=target.partition("?")[2],
                target=target,
                body=b"",
            )
            answer = self.answer(single) or rendered(invalid("not in the double"))
            head = "".join(f"{name}: {value}\r\n" for name, value in answer.headers)
            answers.append(
                f"--batch_double\r\nContent-Type: application/http\r\nContent-ID: <response-{number}>\r\n\r\n"
                f"HTTP/1.1 {answer.status}\r\n{head}\r\n{answer.body.decode()}\r\n"
            )
        headers = Headers({"Content-Type": "multipart/mixed; boundary=batch_double"})
        return Response("200 OK", headers, ("".join(answers) + "--batch_double--").encode())

    # buckets

    def _insert_bucket(self, call: _Call) -> Response:
        body = call.body
        if "project" not in call.query:
            raise Refused(400, "required", "InvalidArgument", "Required parameter: project")
        if "name" not in body:
            raise Refused(400, "required", "InvalidArgument", "Required parameter: name")
        kept = {name: body[name] for name in _BUCKET_FIELDS if name in body}
        if call.flag("enableObjectRetention"):
            kept["objectRetention"] = {"mode": "Enabled"}
        made = self.state.make_bucket(body["name"], call.query["project"], body.get("location", "US"), kept)
        return _ok(self._bucket(made))

    def _list_buckets(self, call: _Call) -> Response:
        mine = [each for each in self.state.buckets.values() if each.project == call.query.get("project")]
        names = sorted(each.name for each in mine if each.name.startswith(call.query.get("prefix", "")))
        size = min(call.number("maxResults") or _PAGE, self.page_size)
        left = [name for name in names if name > _token(call, "")]
        answer: dict[str, Any] = {"kind": "storage#buckets"}
        if left:
            answer["items"] = [self._bucket(self.state.bucket(name)) for name in left[:size]]
        if len(left) > size:
            answer["nextPageToken"] = _packed(left[size - 1])
        return _ok(answer)

    def _get_bucket(self, call: _Call) -> Response:
        return _ok(self._bucket(self.state.bucket(call.names[0])))

    def _patch_bucket(self, call: _Call) -> Response:
        bucket = self.state.bucket(call.names[0])
        if call.number("ifMetagenerationMatch") not in {None, bucket.metageneration}:
            raise Refused(412, "conditionNotMet", "PreconditionFailed", "Precondition Failed")
        for name, value in call.body.items():
            if name in _BUCKET_FIELDS and value:
                bucket.properties[name] = value
            elif name in _BUCKET_FIELDS:
                bucket.properties.pop(name, None)
        bucket.metageneration += 1
        bucket.updated = self.state.now()
        return _ok(self._bucket(bucket))

    def _delete_bucket(self, call: _Call) -> Response:
        self.state.drop_bucket(call.names[0])
        return _nothing()

    # objects

    def _insert(self, call: _Call) -> Response:
        kind = call.query.get("uploadType")
        if kind == "resumable":
            return self._begin(call)
        if kind == "multipart":
            stated, type_, data = _related(call.request)
        elif kind == "media":
            stated, type_, data = {}, call.request.headers.get("Content-Type", ""), call.request.body
        else:
            raise Refused(400, "wrongUrlForUpload", "InvalidArgument", "Uploads must be sent to the upload URL.")
        bucket = call.names[0]
        self.state.bucket(bucket)
        draft = _draft(call, stated, type_, data)
        _compare({**stated, **_hashes(call.request)}, draft)
        return _ok(self._object(bucket, self.state.write(bucket, draft, call.conditions())))

    def _begin(self, call: _Call) -> Response:
        bucket, stated = call.names[0], call.body
        self.state.bucket(bucket)
        type_ = call.request.headers.get("X-Upload-Content-Type", "")
        draft = _draft(call, stated, type_, b"")
        self.state.require_writable(draft)
        conditions = call.conditions()
        conditions.require(self.state.bucket(bucket).live(draft.name))
        id_ = uuid.uuid4().hex
        self.state.sessions[id_] = Session(bucket=bucket, draft=draft, conditions=conditions, hashes=stated)
        place = f"{self.url()}/upload/storage/v1/b/{bucket}/o?uploadType=resumable&upload_id={id_}"
        return Response("200 OK", Headers({"Location": place, "X-GUploader-UploadID": id_}))

    def _continue(self, call: _Call) -> Response:
        session = self.state.sessions.get(call.query.get("upload_id", ""))
        if session is None:
            raise Refused(404, "notFound", "NoSuchUpload", "Not Found")
        if session.done is not None:
            return _ok(self._object(session.bucket, session.done))
        total = self._received(session, call.request)
        if total is None or len(session.received) < total:
            headers = Headers({"X-GUploader-UploadID": call.query["upload_id"]})
            if session.received:
                headers["Range"] = f"bytes=0-{len(session.received) - 1}"
            return Response("308 Resume Incomplete", headers)
        draft = attrs.evolve(session.draft, data=bytes(session.received), crc32c="", md5=None)
        _compare({**session.hashes, **_hashes(call.request)}, draft)
        session.done = self.state.write(session.bucket, draft, session.conditions)
        return _ok(self._object(session.bucket, session.done))

    def _received(self, session: Session, request: Request) -> int | None:
        """Take a chunk; return how long the whole is, if that is known."""
        stated = request.headers.get("Content-Range")
        if stated is None:
            session.received[:] = request.body
            return len(request.body)
        found = _CONTENT_RANGE.fullmatch(stated)
        if found is None:
            raise invalid(f"Failed to parse Content-Range header: {stated}")
        first, last, whole = found.groups()
        total = None if whole == "*" else int(whole)
        if first is None:
            return total
        start, stop = int(first), int(last) + 1
        if stop - start != len(request.body):
            raise invalid("Content-Range does not match the length of the body.")
        if start > len(session.received):
            raise Refused(503, "backendError", "ServiceUnavailable", "Invalid request: the chunk leaves a gap.")
        if (total is None or stop < total) and len(request.body) % _QUANTUM:
            raise invalid("The size of all chunks but the last must be a multiple of 256 KiB.")
        session.received[start:] = request.body
        return total

    def _cancel(self, call: _Call) -> Response:
        self.state.sessions.pop(call.query.get("upload_id", ""), None)
        return Response("499 Client Closed Request", Headers())

    def _get(self, call: _Call) -> Response:
        bucket, name = call.names
        found = self.state.bucket(bucket).find(name, call.number("generation"))
        call.conditions().require(found, reading=True)
        if call.query.get("alt") == "media":
            return media(found, call.request)
        return _ok(self._object(bucket, found))

    def _list(self, call: _Call) -> Response:
        bucket = self.state.bucket(call.names[0])
        size = min(call.number("maxResults") or _PAGE, self.page_size)
        versions = call.flag("versions")
        items: list[dict[str, Any]] = []
        prefixes: list[str] = []
        last: Any = None
        answer: dict[str, Any] = {"kind": "storage#objects"}
        for name, found, rolled in _entries(bucket, call.query, versions=versions, after=_token(call, None)):
            if len(items) + len(prefixes) == size:
                answer["nextPageToken"] = _packed(last)
                break
            if rolled is not None:
                prefixes.append(rolled)
                last = [rolled, "prefix"]
            if found is not None:
                items.append(self._object(bucket.name, found))
                last = [name, found.generation] if rolled is None else last
        if items:
            answer["items"] = items
        if prefixes:
            answer["prefixes"] = prefixes
        return _ok(answer)

    def _patch(self, call: _Call) -> Response:
        bucket, name = call.names
        found = self.state.bucket(bucket).find(name, call.number("generation"))
        call.conditions().require(found)
        body = call.body
        if "storageClass" in body:
            raise invalid("The storage class of an object is changed by a rewrite, not by a patch.")
        wanted = Protection.stated(body, found.protection)
        override = call.flag("overrideUnlockedRetention")
        found.protection.require_change(wanted, override=override, now=self.state.now())
        self.state.require_protectable(self.state.bucket(bucket), found.protection, wanted)
        found.protection = wanted
        for key in _FIELDS:
            if key in body:
                _put(found.fields, key, body[key])
        if body.get("metadata", {}) is None:
            found.metadata = {}
        for key, value in (body.get("metadata") or {}).items():
            _put(found.metadata, key, value)
        self.state.require_writable(found)
        self.state.count_write(bucket, name)
        found.metageneration += 1
        found.updated = self.state.now()
        return _ok(self._object(bucket, found))

    def _delete(self, call: _Call) -> Response:
        bucket, name = call.names
        self.state.delete(bucket, name, call.number("generation"), call.conditions())
        return _nothing()

    def _rewrite(self, call: _Call) -> Response:
        bucket, name, to_bucket, to_name = call.names
        source = self.state.bucket(bucket).find(name, call.number("sourceGeneration"))
        call.conditions("ifSource").require(source)
        self.state.bucket(to_bucket)
        done = self._progress(call, (call.names, source.generation, json.dumps(call.body)), len(source.data))
        answer: dict[str, Any] = {"kind": "storage#rewriteResponse", "objectSize": str(len(source.data))}
        if done < len(source.data):
            token = uuid.uuid4().hex
            self.state.rewrites[token] = ((call.names, source.generation, json.dumps(call.body)), done)
            return _ok(answer | {"done": False, "rewriteToken": token, "totalBytesRewritten": str(done)})
        made = self.state.write(to_bucket, _copied(source, to_name, call.body), call.conditions())
        resource = self._object(to_bucket, made)
        return _ok(answer | {"done": True, "totalBytesRewritten": str(done), "resource": resource})

    def _progress(self, call: _Call, same: tuple[Any, ...], size: int) -> int:
        """Return how many bytes are copied after this call."""
        token = call.query.get("rewriteToken")
        before = 0
        if token is not None:
            known, before = self.state.rewrites.get(token, (None, 0))  # good for a week, again and again
            if known != same:
                raise invalid("The rewrite token is invalid, or the request is another one than it was given for.")
        step = self.rewrite_bytes
        asked = call.number("maxBytesRewrittenPerCall")
        if asked is not None:
            step = asked if step is None else min(step, asked)
        return size if step is None else min(size, before + step)

    def _copy(self, call: _Call) -> Response:
        bucket, name, to_bucket, to_name = call.names
        source = self.state.bucket(bucket).find(name, call.number("sourceGeneration"))
        call.conditions("ifSource").require(source)
        made = self.state.write(to_bucket, _copied(source, to_name, call.body), call.conditions())
        return _ok(self._object(to_bucket, made))

    def _move(self, call: _Call) -> Response:
        bucket, name, to_name = call.names
        holder = self.state.bucket(bucket)
        source = holder.find(name, None)
        call.conditions("ifSource").require(source)
        source.protection.require_over(f"{bucket}/{name}", self.state.now())
        if name == to_name:
            raise invalid("The source and the destination object names must be different.")
        made = self.state.write(bucket, _copied(source, to_name, {}), call.conditions())
        holder.remove(name, source.generation)
        return _ok(self._object(bucket, made))

    def _compose(self, call: _Call) -> Response:
        bucket, name = call.names
        holder, body = self.state.bucket(bucket), call.body
        sources = [holder.find(each["name"], _whole(each.get("generation"))) for each in body.get("sourceObjects", [])]
        if not 1 <= len(sources) <= 32:
            raise invalid("The number of source components provided must be between 1 and 32.")
        stated = body.get("destination", {})
        draft = Stored(
            name=name,
            data=b"".join(source.data for source in sources),
            fields={key: stated[key] for key in _FIELDS if key in stated},
            metadata=dict(stated.get("metadata", {})),
            protection=Protection.stated(stated),
            components=sum(source.components or 1 for source in sources),
        )
        return _ok(self._object(bucket, self.state.write(bucket, draft, call.conditions())))

    # resources

    def _bucket(self, bucket: Bucket) -> dict[str, Any]:
        return {
            "kind": "storage#bucket",
            "id": bucket.name,
            "name": bucket.name,
            "selfLink": f"{self.url()}/storage/v1/b/{bucket.name}",
            "projectNumber": "123456789012",
            "location": bucket.location,
            "locationType": "multi-region" if len(bucket.location) < 5 else "region",
            "storageClass": "STANDARD",
            "metageneration": str(bucket.metageneration),
            "etag": base64.b64encode(b"%d" % bucket.metageneration).decode(),
            "timeCreated": _time(bucket.created),
            "updated": _time(bucket.updated),
        } | bucket.properties

    def _object(self, bucket: str, found: Stored) -> dict[str, Any]:
        path = f"/b/{bucket}/o/{quote(found.name, safe='')}"
        generation = found.generation
        answer: dict[str, Any] = {
            "kind": "storage#object",
            "id": f"{bucket}/{found.name}/{generation}",
            "selfLink": f"{self.url()}/storage/v1{path}",
            "mediaLink": f"{self.url()}/download/storage/v1{path}?generation={generation}&alt=media",
            "name": found.name,
            "bucket": bucket,
            "generation": str(generation),
            "metageneration": str(found.metageneration),
            "storageClass": "STANDARD",
            "size": str(len(found.data)),
            "crc32c": found.crc32c,
            "etag": found.etag,
            "timeCreated": _time(found.created),
            "updated": _time(found.updated),
            "timeStorageClassUpdated": _time(found.created),
            "timeFinalized": _time(found.created),
        } | found.fields  # among them the storage class
        if found.metadata:
            answer["metadata"] = found.metadata
        if found.md5 is not None:
            answer["md5Hash"] = found.md5
        kept = found.protection
        if kept.until is not None:
            answer["retention"] = {"mode": kept.mode, "retainUntilTime": _time(kept.until)}
            answer["retentionExpirationTime"] = _time(kept.until)
        holds = {"temporaryHold": kept.temporary, "eventBasedHold": kept.event_based}
        answer |= {name: True for name, held in holds.items() if held}
        if found.components is not None:
            answer["componentCount"] = found.components
        if found.deleted is not None:
            answer["timeDeleted"] = _time(found.deleted)
        return answer


# listings


def _entries(
    bucket: Bucket,
    query: Mapping[str, str],
    *,
    versions: bool,
    after: Any,  # noqa: ANN401  what a token holds
) -> Iterator[tuple[str, Stored | None, str | None]]:
    """Yield what a listing has behind ``after``, in order: an object, or a prefix that rolls some up, or both."""
    prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
    start, end = query.get("startOffset", "").encode(), query.get("endOffset", "").encode()
    place, kind = after if after is not None else ("", 0)
    rolled_last = place if kind == "prefix" else None
    for name in bucket.names():
        raw = name.encode()
        if not name.startswith(prefix) or raw < start or (end and raw >= end) or raw < place.encode():
            continue
        rest = name[len(prefix) :]
        rolled = prefix + rest[: rest.index(delimiter) + len(delimiter)] if delimiter and delimiter in rest else None
        generations = [each for each in bucket.objects[name] if versions or each.deleted is None]
        if not generations:
            continue
        if rolled is not None:
            itself = generations[-1] if query.get("includeTrailingDelimiter", "").lower() == "true" else None
            if rolled != rolled_last:
                yield name, itself if name == rolled else None, rolled
            rolled_last = rolled
            continue
        for each in generations:
            if name != place or kind == "prefix" or each.generation > kind:
                yield name, each, None


def _token(call: _Call, default: Any) -> Any:  # noqa: ANN401  what a token holds
    token = call.query.get("pageToken")
    if not token:
        return default
    try:
        return json.loads(base64.urlsafe_b64decode(token))
    except ValueError as exc:
        raise invalid("Invalid page token") from exc


def _packed(value: Any) -> str:  # noqa: ANN401  the same
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode()


# uploads


def _related(request: Request) -> tuple[dict[str, Any], str, bytes]:
    """Take a body of ``multipart/related`` apart: what is stated, the type of the content, the content."""
    found = re.search(r'boundary="?([^";]+)"?', request.headers.get("Content-Type", ""))
    mark = b"--" + found.group(1).encode() if found else b""
    end = request.body.rfind(mark + b"--")
    pieces = request.body[:end].split(mark + b"\r\n", 2) if found and end >= 0 else []
    if len(pieces) != 3:
        raise Refused(400, "badContent", "InvalidArgument", "Malformed multipart body.")
    _, _, stated = pieces[1].partition(b"\r\n\r\n")
    head, _, data = pieces[2].partition(b"\r\n\r\n")
    type_ = re.search(rb"(?i)content-type: *([^\r\n]+)", head)
    return json.loads(stated), type_.group(1).decode() if type_ else "", data.removesuffix(b"\r\n")


def _draft(call: _Call, stated: Mapping[str, Any], type_: str, data: bytes) -> Stored:
    name = stated.get("name") or call.query.get("name")
    if not name:
        raise Refused(400, "required", "InvalidArgument", "Required parameter: name")
    fields = {key: stated[key] for key in _FIELDS if stated.get(key) is not None}
    if type_ and fields.get("contentType") not in {None, type_}:
        raise invalid(
            f"Content-Type specified in the upload ({type_}) does not match Content-Type specified in metadata "
            f"({fields['contentType']})."
        )
    if type_:
        fields["contentType"] = type_
    metadata = {key: value for key, value in (stated.get("metadata") or {}).items() if value is not None}
    return Stored(name=name, data=data, fields=fields, metadata=metadata, protection=Protection.stated(stated))


def _hashes(request: Request) -> dict[str, str]:
    """Read ``X-Goog-Hash``."""
    pairs = (each.strip().partition("=") for each in request.headers.get("X-Goog-Hash", "").split(",") if each)
    return {{"crc32c": "crc32c", "md5": "md5Hash"}.get(name, name): value for name, _, value in pairs}


def _compare(stated: Mapping[str, Any], draft: Stored) -> None:
    for key, name, found in (("md5Hash", "MD5 hash", draft.md5), ("crc32c", "CRC32C", draft.crc32c)):
        given = stated.get(key)
        if given is not None and given != found:
            raise invalid(f'Provided {name} "{given}" doesn\'t match calculated {name} "{found}".')


def _copied(source: Stored, name: str, body: Mapping[str, Any]) -> Stored:
    """Return a copy: with the source's properties, or with those of the body and no others if it has any."""
    stated = {key: value for key, value in body.items() if key not in {"name", "bucket"}}
    return Stored(
        name=name,
        data=source.data,
        fields={key: stated[key] for key in _FIELDS if key in stated} if stated else dict(source.fields),
        metadata=dict(stated.get("metadata", {})) if stated else dict(source.metadata),
        components=source.components,
        protection=Protection.stated(stated),
    )


def _put(target: dict[str, str], key: str, value: str | None) -> None:
    if value is None:
        target.pop(key, None)
    else:
        target[key] = value


def _whole(value: str | int | None) -> int | None:
    return None if value is None else int(value)


# answers


def media(found: Stored, request: Request, *, xml: bool = False) -> Response:
    """Answer the content of an object, or the range of it that was asked for, unpacked for who cannot."""
    headers = Headers(
        {
            "X-Goog-Generation": str(found.generation),
            "X-Goog-Metageneration": str(found.metageneration),
            "X-Goog-Stored-Content-Encoding": found.fields.get("contentEncoding", "identity"),
            "X-Goog-Stored-Content-Length": str(len(found.data)),
            "X-Goog-Storage-Class": found.fields.get("storageClass", "STANDARD"),
            "Last-Modified": format_datetime(found.updated.astimezone(UTC), usegmt=True),
            "ETag": xml_etag(found) if xml else found.etag,
            "Accept-Ranges": "bytes",
        }
    )
    headers.add("X-Goog-Hash", f"crc32c={found.crc32c}")
    if found.md5 is not None:
        headers.add("X-Goog-Hash", f"md5={found.md5}")
    for key, name in _HEADERS.items():
        if key in found.fields:
            headers[name] = found.fields[key].encode().decode("latin-1")  # WSGI's way to say bytes: UTF-8 goes out
    if not xml:  # the JSON API tells no user metadata, no time, and how to cache its answer, not the object
        del headers["Last-Modified"]
        headers["Cache-Control"] = "no-cache, no-store, max-age=0, must-revalidate"
        headers.setdefault("Content-Disposition", "attachment")
    data = found.data
    if found.fields.get("contentEncoding") == "gzip" and "gzip" not in request.headers.get("Accept-Encoding", ""):
        del headers["Content-Encoding"]
        headers["Warning"] = "214 UploadServer gunzipped"
        return Response("200 OK", headers, gzip.decompress(data))
    wanted = _RANGE.fullmatch(request.headers.get("Range", ""))
    if wanted is None:
        return Response("200 OK", headers, data)
    start, stop = _span(wanted.group(1), wanted.group(2), len(data))
    if start >= stop:
        message = "The requested range cannot be satisfied."
        raise Refused(416, "requestedRangeNotSatisfiable", "InvalidRange", message)
    headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(data)}"
    return Response("206 Partial Content", headers, data[start:stop])


def xml_etag(found: Stored) -> str:
    """Return the ETag of the XML API: the MD5 where there is one."""
    if found.md5 is not None:
        return f'"{base64.b64decode(found.md5).hex()}"'
    return f'"{found.generation}"'


def _span(first: str, last: str, size: int) -> tuple[int, int]:
    if not first:
        return max(0, size - int(last or 0)), size
    return int(first), min(int(last) + 1, size) if last else size


def rendered(refused: Refused) -> Response:
    """Write an error as the JSON API does."""
    if refused.status == 304:
        return Response("304 Not Modified", Headers())
    detail = {"message": refused.message, "domain": "global", "reason": refused.reason}
    error = {"code": refused.status, "message": refused.message, "errors": [detail]}
    return _json(f"{refused.status} Refused", {"error": error})


def _ok(value: Mapping[str, Any]) -> Response:
    return _json("200 OK", value)


def _nothing() -> Response:
    return Response("204 No Content", Headers())


def _json(status: str, value: Mapping[str, Any]) -> Response:
    headers = Headers({"Content-Type": "application/json; charset=UTF-8", "X-GUploader-UploadID": "double-request"})
    return Response(status, headers, json.dumps(value).encode())


def _time(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _partial(response: Response, fields: str) -> Response:
    """Keep only what ``fields`` asks for: ``nextPageToken,items(name,size)``."""
    if response.code != 200 or not response.body:
        return response
    return attrs.evolve(response, body=json.dumps(_kept(json.loads(response.body), fields)).encode())


def _kept(value: Any, fields: str) -> Any:  # noqa: ANN401  any JSON
    if isinstance(value, list):
        return [_kept(each, fields) for each in value]
    answer = {}
    for field in _split(fields):
        name, _, inner = field.partition("(")
        if name in value:
            answer[name] = _kept(value[name], inner[:-1]) if inner else value[name]
    return answer


def _split(fields: str) -> Iterator[str]:
    depth, start = 0, 0
    for at, character in enumerate(fields):
        depth += {"(": 1, ")": -1}.get(character, 0)
        if character == "," and not depth:
            yield fields[start:at]
            start = at + 1
    yield fields[start:]

"""The server behind the signed URLs of files: HTTP on loopback, for nothing that is not signed."""

from __future__ import annotations

import base64
import binascii
import contextlib
import logging
import re
import sys
import threading
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime, parsedate_to_datetime
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar, Self, cast
from urllib.parse import unquote

import attrs

from shiftable.blob.driver import BlobDriver, CorsRule, Headers, ObjectInfo, PutOptions, Range, allowing
from shiftable.errors import (
    Conflict,
    Fault,
    IntegrityError,
    InvalidArgument,
    NotFound,
    NotModified,
    OperationError,
    PermissionDenied,
    PreconditionFailed,
    QuotaExceeded,
)
from shiftable.tokens import Token
from shiftable_baremetal._faults import denied, invalid
from shiftable_baremetal._signing import Grant, Signer

__all__ = ["FilesServer"]

logger = logging.getLogger(__name__)

_LOOPBACK = "127.0.0.1"
_PART = 8 * 1024 * 1024
_PATIENCE = 60
_POLL = 0.1
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_NAME = re.compile(r"[!-+\--~]+")
_DEFAULT_TYPE = "application/octet-stream"
_METHODS = ("GET", "HEAD", "PUT", "DELETE")
_KEPT = timedelta(minutes=10)
_ASKABLE = (
    *("Cache-Control", "Content-Disposition", "Content-Encoding", "Content-Language", "Content-MD5", "Content-Type"),
    *("If-Match", "If-Modified-Since", "If-None-Match", "If-Range", "If-Unmodified-Since", "Range"),
)
"""What a script of a page may send that this server lets in."""

_TELLABLE = ("Accept-Ranges", "Content-Disposition", "Content-Encoding", "Content-Length", "Content-Range", "ETag")
"""What it may read, beside what it always may."""

_STATUS: Mapping[type[OperationError], int] = {
    NotFound: 404,
    NotModified: 304,
    PreconditionFailed: 412,
    Conflict: 409,
    InvalidArgument: 400,
    IntegrityError: 400,
    PermissionDenied: 403,
    QuotaExceeded: 507,
}


class FilesServer:
    """Serves the signed URLs of one driver, on loopback, until it is closed; use it in a ``with`` block.

    A GET understands ``Range``, ``If-Match``, ``If-None-Match``, ``If-Modified-Since``, ``If-Unmodified-Since`` and
    ``If-Range``; a PUT ``If-Match``, ``If-None-Match: *``, ``Content-MD5`` and the five headers of objects; a DELETE
    ``If-Match``. A PUT appears whole or not at all.

    Scripts of pages from ``origins`` may do so too (CORS), ``*`` is any; and those that a bucket's own rules allow.
    There are no cookies: the URL is what grants.

    Attributes:
        url: where it listens.
    """

    def __init__(self, driver: BlobDriver, signer: Signer, port: int, origins: Collection[str] = ()) -> None:
        self._server = _Server((_LOOPBACK, port), driver, signer, _let_in(origins))
        self.url = f"http://{_LOOPBACK}:{self._server.server_address[1]}"
        serve = self._server.serve_forever
        self._thread = threading.Thread(target=serve, args=(_POLL,), name="shiftable-files-server", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening. Again: nothing happens."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<FilesServer at {self.url}>"


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(
        self, address: tuple[str, int], driver: BlobDriver, signer: Signer, rules: tuple[CorsRule, ...]
    ) -> None:
        self.driver = driver
        self.signer = signer
        self.rules = rules
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        """Listen, without asking the resolver for our own name, as the base class does."""
        self.allow_reuse_address = True
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def handle_error(self, request: object, client_address: object) -> None:
        """Note what went wrong: a peer that went away, or a bug."""
        del request, client_address
        logger.warning("a request for a signed URL failed", exc_info=sys.exception())


class _Refused(Exception):
    """What HTTP itself forbids."""

    def __init__(self, status: int, why: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(why)
        self.status = status
        self.headers = headers or {}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "shiftable"
    sys_version = ""
    timeout: ClassVar[int] = _PATIENCE
    rbufsize = 256 * 1024

    # The names are those of http.server.

    def do_GET(self) -> None:
        self._answer(self._read)

    def do_HEAD(self) -> None:
        self._answer(self._read)

    def do_PUT(self) -> None:
        self._answer(self._write)

    def do_DELETE(self) -> None:
        self._answer(self._delete)

    def do_OPTIONS(self) -> None:
        """Answer a browser that asks before a script's request."""
        if not self._rules():
            self.send_error(HTTPStatus.NOT_IMPLEMENTED, "Unsupported method ('OPTIONS')")
            return
        rule = self._rule()
        if rule is None:
            self.close_connection = True
            self._begin(HTTPStatus.FORBIDDEN, {}, 0)
            return
        headers = {
            "Access-Control-Allow-Methods": ", ".join(rule.methods),
            "Access-Control-Allow-Headers": ", ".join(self._asked() if "*" in rule.headers else rule.headers),
        }
        if rule.seconds is not None:
            headers["Access-Control-Max-Age"] = str(rule.seconds)
        if self.headers.get("Access-Control-Request-Private-Network") == "true":
            headers["Access-Control-Allow-Private-Network"] = "true"  # a page of the internet asks for loopback
        self._begin(HTTPStatus.NO_CONTENT, headers, None)

    def _rules(self) -> tuple[CorsRule, ...]:
        """Return those of the server and of the bucket; they are no secret, so a signature is not asked for."""
        bucket, driver = unquote(self.path.partition("?")[0]).removeprefix("/").partition("/")[0], self._server.driver
        if driver.check_name(bucket):
            return self._server.rules
        try:
            return (*self._server.rules, *driver.describe(bucket).cors)
        except Exception as exc:
            if driver.classify(exc) is None:
                raise
            return self._server.rules

    def _rule(self) -> CorsRule | None:
        """Return that by which a script may do what it does, or asks for."""
        origin, method, headers = self.headers.get("Origin"), self.command, []
        if method == "OPTIONS":
            method, headers = self.headers.get("Access-Control-Request-Method", ""), self._asked()
        return allowing(self._rules(), origin, method, headers) if origin is not None else None

    def _asked(self) -> list[str]:
        return _NAME.findall(self.headers.get("Access-Control-Request-Headers", ""))

    def handle_expect_100(self) -> bool:
        """Wait with the permission to send the body until the signature is checked."""
        return True

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing here: the base class would log the signature."""

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Log what was asked for, without what grants it."""
        del size
        logger.debug("%s %s: %s", self.command, self.path.partition("?")[0], code)

    def _answer(self, serve: Callable[[Grant], None]) -> None:
        length = self.headers.get("Content-Length", "")
        self._left = int(length) if length.isdecimal() else 0
        try:
            serve(self._granted())
        except _Refused as exc:
            self._refuse(exc.status, str(exc), exc.headers)
        except (ConnectionError, TimeoutError):
            self.close_connection = True
        except Exception as exc:
            fault = self._server.driver.classify(exc)
            if fault is None:
                logger.exception("a request for a signed URL failed")
            self._refuse_fault(fault or Fault(OperationError, "this failed; the server's log says why"))

    def _granted(self) -> Grant:
        grant = self._server.signer.grant(self.path, self.command)
        driver = self._server.driver
        # Nobody signs what cannot be; but if the key leaked, this is what stands before the file system.
        if driver.check_name(grant.bucket) or driver.check_key(grant.key):
            raise denied("there can be no such object")
        return grant

    def _refuse_fault(self, fault: Fault) -> None:
        status = next((status for error, status in _STATUS.items() if fault.error is error), 500)
        self._refuse(status, fault.message if status != 500 else "this failed; the server's log says why")

    def _refuse(self, status: int, why: str, headers: Mapping[str, str] | None = None) -> None:
        """Answer with a reason, and hang up."""
        body = b"" if status == HTTPStatus.NOT_MODIFIED else f"{why}\n".encode()
        self.close_connection = True
        with contextlib.suppress(ConnectionError, TimeoutError):
            self._begin(status, {"Content-Type": "text/plain; charset=utf-8", **(headers or {})}, len(body))
            if self.command != "HEAD":
                self.wfile.write(body)
            # Hanging up on a client that is still sending would take the answer from it.
            if not self._expects_permission() and self._left:
                self.rfile.read(min(self._left, _PART))

    def _begin(self, status: int, headers: Mapping[str, str], size: int | None) -> None:
        self.send_response(status)
        for name, value in {**headers, **self._cors()}.items():
            # A header of an object may be of any text; HTTP's are not.
            self.send_header(name, value.encode("utf-8").decode("latin-1"))
        if size is not None and status != HTTPStatus.NOT_MODIFIED:
            self.send_header("Content-Length", str(size))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()

    def _cors(self) -> dict[str, str]:
        """Return the headers without which a browser keeps an answer from a script, also a refusal."""
        rule = self._rule()
        headers = {"Vary": "Origin"} if any(each.origins != ("*",) for each in self._rules()) else {}
        if rule is not None:
            headers["Access-Control-Allow-Origin"] = "*" if "*" in rule.origins else self.headers["Origin"]
            if rule.exposed:
                headers["Access-Control-Expose-Headers"] = ", ".join(rule.exposed)
        return headers

    @property
    def _server(self) -> _Server:
        return cast("_Server", self.server)

    # reading

    def _read(self, grant: Grant) -> None:
        driver = self._server.driver
        info = driver.stat(grant.bucket, grant.key, version=None)
        self._check_conditions(info)
        part = self._wanted(info)
        start, stop = part if part is not None else (0, info.size)
        headers = _told(info, grant)
        if part is not None:
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{info.size}"
        status = HTTPStatus.OK if part is None else HTTPStatus.PARTIAL_CONTENT
        if self.command == "HEAD":
            self._begin(status, headers, stop - start)
            return
        download = driver.get(grant.bucket, grant.key, range_=Range(start, stop), if_match=info.token, version=None)
        try:
            self._begin(status, headers, stop - start)
            for chunk in download.chunks:
                self.wfile.write(chunk)
        except Exception:
            logger.warning("an answer to a signed URL was cut short", exc_info=True)
            self.close_connection = True  # the only way to say so, after the status
        finally:
            download.close()

    def _check_conditions(self, info: ObjectInfo) -> None:
        """Apply them in the order of RFC 9110, section 13.2.2."""
        etag, modified = _etag(info), info.modified.replace(microsecond=0)
        match, since = self.headers.get("If-Match"), _date(self.headers.get("If-Unmodified-Since"))
        holds = _names(match, etag) if match is not None else since is None or modified <= since
        if not holds:
            raise _Refused(412, "the object is not in that version")
        match, since = self.headers.get("If-None-Match"), _date(self.headers.get("If-Modified-Since"))
        same = _names(match, etag) if match is not None else since is not None and modified <= since
        if same:
            raise _Refused(304, "", {"ETag": etag, "Last-Modified": format_datetime(modified, usegmt=True)})

    def _wanted(self, info: ObjectInfo) -> tuple[int, int] | None:
        """Return the range that is asked for; ``None``: all. Of several ranges all is answered, as RFC 9110 allows."""
        found = _RANGE.fullmatch(self.headers.get("Range", "").strip())
        if found is None or not any(found.groups()) or not self._range_holds(info):
            return None
        first, last = found.groups()
        if first:
            start, stop = int(first), min(int(last) + 1, info.size) if last else info.size
            if last and int(last) < start:
                return None
        else:
            start, stop = max(0, info.size - int(last)), info.size
        if start >= stop:
            raise _Refused(416, "the object has no such bytes", {"Content-Range": f"bytes */{info.size}"})
        return start, stop

    def _range_holds(self, info: ObjectInfo) -> bool:
        condition = self.headers.get("If-Range")
        if condition is None:
            return True
        return condition == _etag(info)  # a date is too coarse to put two parts together

    # writing

    def _write(self, grant: Grant) -> None:
        size, options = self._announced(grant)
        if self._expects_permission():
            self.send_response_only(HTTPStatus.CONTINUE)
            self.end_headers()
        driver = self._server.driver
        if size <= _PART:
            info = driver.put(grant.bucket, grant.key, self._take(size), options)
        else:
            info = self._write_parts(grant, size, options)
        self._begin(HTTPStatus.OK, {"ETag": _etag(info)}, 0)

    def _expects_permission(self) -> bool:
        return self.headers.get("Expect", "").lower() == "100-continue"

    def _announced(self, grant: Grant) -> tuple[int, PutOptions]:
        """Return the size and the options of what is about to come, if the URL allows it."""
        if "Transfer-Encoding" in self.headers or not self.headers.get("Content-Length", "").isdecimal():
            raise _Refused(411, "a PUT needs a Content-Length")
        size = int(self.headers["Content-Length"])
        md5 = _md5(self.headers.get("Content-MD5"))
        for what, bound, found in (
            ("content type", grant.type, self._header("Content-Type")),
            ("MD5", grant.md5, md5.hex() if md5 is not None else None),
            ("size", grant.size, size),
        ):
            if bound is not None and bound != found:
                raise denied(f"the URL is for another {what}")
        names = (field.name for field in attrs.fields(Headers))
        headers = Headers(**{name: self._header(name.replace("_", "-")) for name in names})
        match, absent = self.headers.get("If-Match"), self.headers.get("If-None-Match")
        if absent not in {None, "*"} or (match is not None and not _is_one_etag(match)):
            raise _Refused(501, "a PUT takes If-None-Match: * or If-Match with one ETag")
        options = PutOptions(
            headers=headers,
            if_absent=absent is not None,
            if_match=Token(match.strip('"')) if match is not None else None,
            md5=md5,
        )
        return size, options

    def _header(self, name: str) -> str | None:
        """Return a header that is stored: UTF-8 where it is, and one line."""
        value = self.headers.get(name)
        if value is None:
            return None
        if _CONTROL.search(value):
            raise _Refused(400, f"the header {name} has a control character")
        with contextlib.suppress(UnicodeError):
            return value.encode("latin-1").decode("utf-8")
        return value

    def _write_parts(self, grant: Grant, size: int, options: PutOptions) -> ObjectInfo:
        driver = self._server.driver
        upload = driver.upload_begin(grant.bucket, grant.key, options)
        try:
            parts = tuple(
                driver.upload_part(upload, number, self._take(min(_PART, size - at)), at)
                for number, at in enumerate(range(0, size, _PART), 1)
            )
            return driver.upload_complete(upload, parts)
        except BaseException:
            with contextlib.suppress(OSError):
                driver.upload_abort(upload)
            raise

    def _take(self, size: int) -> bytes:
        data = self.rfile.read(size)
        self._left -= len(data)
        if len(data) != size:
            raise ConnectionError("the content ended too early")
        return data

    def _delete(self, grant: Grant) -> None:
        match = self.headers.get("If-Match")
        if match is not None and not _is_one_etag(match):
            raise _Refused(501, "a DELETE takes If-Match with one ETag")
        if_match = Token(match.strip('"')) if match is not None else None
        self._server.driver.delete(grant.bucket, grant.key, if_match=if_match, version=None)
        self.close_connection = True  # whatever body came with it is not read
        self._begin(HTTPStatus.NO_CONTENT, {}, None)


def _let_in(origins: Collection[str]) -> tuple[CorsRule, ...]:
    """Return the rule for pages that may use all URLs."""
    if not origins:
        return ()
    all_ = ("*",) if "*" in origins else tuple(origins)
    return (CorsRule(origins=all_, methods=_METHODS, headers=_ASKABLE, exposed=_TELLABLE, max_age=_KEPT),)


def _told(info: ObjectInfo, grant: Grant) -> dict[str, str]:
    """Return the headers of an answer."""
    own = info.headers
    headers = {
        "Content-Type": grant.answer_type or own.content_type or _DEFAULT_TYPE,
        "Content-Disposition": grant.answer_disposition or own.content_disposition,
        "Cache-Control": own.cache_control,
        "Content-Encoding": own.content_encoding,
        "Content-Language": own.content_language,
    }
    return {
        **{name: value for name, value in headers.items() if value is not None},
        "Accept-Ranges": "bytes",
        "ETag": _etag(info),
        "Last-Modified": format_datetime(info.modified.replace(microsecond=0), usegmt=True),
        "X-Content-Type-Options": "nosniff",
    }


def _etag(info: ObjectInfo) -> str:
    return f'"{info.token}"'


def _names(condition: str, etag: str) -> bool:
    """Tell whether a list of ETags holds one."""
    return condition.strip() == "*" or etag in {each.strip().removeprefix("W/") for each in condition.split(",")}


def _is_one_etag(text: str) -> bool:
    return re.fullmatch(r'"[^"]+"', text) is not None


def _date(text: str | None) -> datetime | None:
    """Read a date; what is none is as if it was not there, as RFC 9110 says."""
    if text is None:
        return None
    try:
        found = parsedate_to_datetime(text)
    except ValueError:
        return None
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


def _md5(text: str | None) -> bytes | None:
    if text is None:
        return None
    try:
        found = base64.b64decode(text, validate=True)
    except binascii.Error:
        found = b""
    if len(found) != 16:
        raise invalid("Content-MD5 is no MD5 in base64")
    return found

"""Requests and answers of the Blob service as the double reads and writes them."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from datetime import datetime
from email.utils import format_datetime
from typing import Any
from urllib.parse import quote, unquote
from xml.sax.saxutils import escape

import attrs
from werkzeug.datastructures import Headers

from shiftable.testing.harness import Request, Response

__all__ = ["Asked", "Refusal", "answer", "base64_bytes", "crc64", "http_date", "refused", "xml_name"]

REQUEST_ID = "00000000-d0b1-0000-0000-000000000000"
_PHRASES = {
    200: "OK", 201: "Created", 202: "Accepted", 204: "No Content", 206: "Partial Content", 304: "Not Modified",
    400: "Bad Request", 401: "Unauthorized", 403: "Forbidden", 404: "Not Found", 405: "Method Not Allowed",
    409: "Conflict", 411: "Length Required", 412: "Precondition Failed", 413: "Request Entity Too Large",
    416: "Requested Range Not Satisfiable", 500: "Internal Server Error", 501: "Not Implemented",
}  # fmt: skip


class Refusal(Exception):
    """What the service answers in place of a success."""

    def __init__(
        self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None, detail: str = ""
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.headers = dict(headers or {})
        self.detail = detail


@attrs.frozen
class Asked:
    """A request, taken apart.

    Args:
        raw_path: as it came, percent-encoded; with the account on a host that does not name it.
        raw_query: decoded values of each parameter.
        query: the last value of each, names in lower case.
        sent_key: as it came, decoded.
        key: as Azure takes it.
        inner: it is part of a batch, which states the version for all.
    """

    method: str
    raw_path: str
    raw_query: Mapping[str, list[str]]
    query: Mapping[str, str]
    headers: Headers
    body: bytes = attrs.field(repr=False)
    container: str = ""
    sent_key: str = ""
    key: str = ""
    inner: bool = False

    @classmethod
    def read(cls, request: Request, account: str) -> Asked:
        """Take a request apart.

        Raises:
            Refusal: it is for another account, or no URL of the service.
        """
        return cls.parse(request.method, request.host, request.target, request.headers, request.body, account)

    @classmethod
    def parse(cls, method: str, host: str, target: str, headers: Headers, body: bytes, account: str) -> Asked:
        """Take a request apart; see ``read``."""
        raw_path, _, raw_query = target.partition("?")
        path = raw_path[1:]
        if host.partition(".")[0] != account:  # an emulator's URLs begin with the account
            first, _, path = path.partition("/")
            if first != account:
                raise Refusal(400, "InvalidUri", f"the double's account is {account}")
        container, _, key = path.partition("/")
        try:
            pairs = [(unquote(name), unquote(value, errors="strict")) for name, value in _pairs(raw_query)]
            sent_key = unquote(key, errors="strict")
        except UnicodeDecodeError:
            raise Refusal(400, "InvalidUri", "the URL is not UTF-8") from None
        values: dict[str, list[str]] = {}
        for name, value in pairs:
            values.setdefault(name, []).append(value)
        query = {name.lower(): found[-1] for name, found in values.items()}
        return cls(
            method, raw_path, values, query, headers, body, unquote(container), sent_key, _as_azure_has(sent_key)
        )


def _pairs(raw_query: str) -> list[tuple[str, str]]:
    parts = (part.partition("=") for part in raw_query.split("&") if part)
    return [(name, value) for name, _, value in parts]


def _as_azure_has(key: str) -> str:
    """Change a key as Azure does: slashes for backslashes, no dots at the ends of segments."""
    return "/".join(segment.rstrip(".") for segment in key.replace("\\", "/").split("/"))


def answer(
    status: int, headers: Mapping[str, str] | None = None, body: bytes = b"", content_type: str = ""
) -> Response:
    """Return an answer with what all answers have."""
    made = Headers({"x-ms-request-id": REQUEST_ID, "Server": "Windows-Azure-Blob/1.0 Microsoft-HTTPAPI/2.0"})
    if content_type:
        made["Content-Type"] = content_type
    made.extend(headers or {})
    return Response(f"{status} {_PHRASES[status]}", made, body)


def refused(refusal: Refusal) -> Response:
    """Return the answer of a refusal: its code in a header and, but for 304, in XML."""
    headers = {"x-ms-error-code": refusal.code, **refusal.headers}
    if refusal.status == 304:
        return answer(304, headers)
    detail = (
        f"<AuthenticationErrorDetail>{escape(refusal.detail)}</AuthenticationErrorDetail>" if refusal.detail else ""
    )
    body = (
        '<?xml version="1.0" encoding="utf-8"?>'
        f"<Error><Code>{refusal.code}</Code><Message>{escape(refusal.message)}\nRequestId:{REQUEST_ID}</Message>"
        f"{detail}</Error>"
    )
    return answer(refusal.status, headers, body.encode(), "application/xml")


def http_date(moment: datetime) -> str:
    """Return a time as headers and listings have it."""
    return format_datetime(moment, usegmt=True)


def base64_bytes(text: str, length: int, code: str) -> bytes:
    """Return the bytes of a header's base64.

    Raises:
        Refusal: they are not so many.
    """
    try:
        found = base64.b64decode(text, validate=True)
    except binascii.Error:
        found = b""
    if len(found) != length:
        raise Refusal(400, code, f"{text!r} is no base64 of {length} bytes")
    return found


def _crc64_table() -> list[int]:
    table = []
    for number in range(256):
        crc = number
        for _ in range(8):
            crc = (crc >> 1) ^ (0x9A6C9329AC4BC9B5 if crc & 1 else 0)
        table.append(crc)
    return table


_CRC64 = _crc64_table()


def crc64(data: bytes) -> bytes:
    """Return Azure Storage's CRC64, which is that of NVMe, as its headers have it."""
    crc = (1 << 64) - 1
    for byte in data:
        crc = _CRC64[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return (crc ^ ((1 << 64) - 1)).to_bytes(8, "little")


_NOT_XML = re.compile("[\ufffe\uffff]")


def xml_name(name: str) -> str:
    """Return a ``Name`` element: what XML cannot hold is percent-encoded, and said to be."""
    if not _NOT_XML.search(name):
        return f"<Name>{escape(name)}</Name>"
    return f'<Name Encoded="true">{quote(name)}</Name>'


def element(name: str, value: Any) -> str:  # noqa: ANN401  whatever can be said
    """Return an element, nothing for ``None``."""
    return "" if value is None else f"<{name}>{escape(str(value))}</{name}>"

"""A stand-in for PowerDNS's API, as strict about texts as the server is, and the cases that prove it.

``CASES`` run against this and, in ``tests/servers``, against the server itself.
"""

from __future__ import annotations

import ipaddress
import json
import re
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any
from urllib.parse import parse_qs

from werkzeug.wrappers import Request as Wrapped
from werkzeug.wrappers import Response as Answered

from shiftable.config import Credential
from shiftable.testing.harness import Double, Request, Response

KEY = "stand-in-key"

CASES: tuple[tuple[str, str, str | None], ...] = (
    ("A", "192.0.2.1", "192.0.2.1"),
    ("A", "192.0.2.256", None),
    ("AAAA", "2001:db8::1", "2001:db8::1"),
    ("AAAA", "2001:DB8:0:0:0:0:0:1", "2001:db8::1"),
    ("AAAA", "::ffff:c000:201", "::ffff:192.0.2.1"),
    ("AAAA", "0:0:0:0:0:ffff:c000:201", "::ffff:192.0.2.1"),
    ("AAAA", "0:0:0:0:0:0:c000:201", "::192.0.2.1"),
    ("AAAA", "::ffff:192.0.2.1", None),
    ("CNAME", "target.example.net.", "target.example.net."),
    ("CNAME", "Target.Example.NET.", "Target.Example.NET."),
    ("CNAME", "target.example.net", None),
    ("MX", "10 mail.example.net.", "10 mail.example.net."),
    ("MX", "0 .", "0 ."),
    ("MX", "10 mail.example.net", None),
    ("MX", r"10 \200.example.", None),
    ("MX", "10 under_score.example.", None),
    ("MX", "10 -x.example.", None),
    ("SRV", "10 60 5060 sip.example.net.", "10 60 5060 sip.example.net."),
    ("SRV", "10 60 5060 under_score.example.", None),
    ("TXT", '"foo" "bar"', '"foo" "bar"'),
    ("TXT", '""', '""'),
    ("TXT", r'"a\\b" "\"q\"" "\000\255"', r'"a\\b" "\"q\"" "\000\255"'),
    ("TXT", "foo", None),
    ("TXT", r"\# 2 0141", None),
    ("CAA", '0 issue "ca.example.net"', '0 issue "ca.example.net"'),
    ("CAA", "0 issue ca.example.net", None),
    ("TLSA", f"3 1 1 {'AB' * 32}", f"3 1 1 {'ab' * 32}"),
    ("DS", f"60485 5 2 {'d4' * 32}", f"60485 5 2 {'d4' * 32}"),
    ("DS", f"60485 5 2 {'d4' * 16} {'d4' * 16}", None),
    ("SSHFP", "1 1 123456789abcdef67890123456789abcdef67890", "1 1 123456789abcdef67890123456789abcdef67890"),
    ("OPENPGPKEY", "mQENBFVHm5sBCACmNf8=", "mQENBFVHm5sBCACmNf8="),
    ("OPENPGPKEY", "mQENBFVHm5sBC ACmNf8=", None),
    ("CERT", "1 0 0 mQENBFVHm5sBCACmNf8=", "1 0 0 mQENBFVHm5sBCACmNf8="),
    ("CERT", "PKIX 0 0 mQENBFVHm5sBCACmNf8=", None),
    ("LOC", "52 22 23.000 N 4 53 32.000 E -2.00m 1.00m 10000.00m 10.00m", "="),
    ("LOC", "52 22 23.000 N 4 53 32.000 E -2.00m", None),
    ("SVCB", "1 svc.example.net. alpn=h2,h3 port=8443", "="),
    ("SVCB", '1 svc.example.net. alpn="h2,h3"', None),
    ("SVCB", '1 . mandatory=alpn,key7 alpn=h2 key7="/q{?dns}"', "="),
    ("SVCB", '1 . alpn=h2 dohpath="/q{?dns}"', None),
    ("HTTPS", "0 pool.example.net.", "="),
    ("HTTPS", "1 . alpn=h2 no-default-alpn ipv4hint=192.0.2.1,192.0.2.2 ipv6hint=2001:db8::1", "="),
    ("HTTPS", '1 . ech="AAT+DQAA"', "="),
    ("HTTPS", "1 . ech=AAT+DQAA", None),
    ("HTTPS", r'1 . key65333="e\001x\"1"', "="),
    ("HTTPS", "1 . key65333=ex1", None),
    ("HTTPS", '1 . key65333=""', "="),
    ("NAPTR", r'100 50 "u" "E2U+sip" "!^.*$!sip:\\1@example.net!" .', "="),
    ("URI", '10 1 "ftp://ftp.example.net/public"', "="),
    ("HINFO", '"PC" "Linux"', "="),
    ("RP", "admin.example.net. txt.example.net.", "="),
    ("TYPE65300", r"\# 4 0a000001", "="),
    ("TYPE65400", r"\# 4 0a000001", "="),
    ("TYPE65401", r"\# 4 0a000001", None),
    ("AMTRELAY", "10 0 0 .", None),
    ("TYPE260", r"\# 3 0a0000", "="),
)
"""Type, content, and as what it is read back; ``=`` as it is, ``None`` if it is refused."""

NAMES: Mapping[str, bool] = {
    **dict.fromkeys(("plain", "under_score", "a/b", "*", "*.w", "-x-", "7", "l" * 63), True),
    **dict.fromkeys(("x.*", r"a\.b", r"a\032b", r"\@", r"\200", "a+b", "a:b"), False),
}
"""Owner names, and whether they are taken."""

_NAME = r"(?:\.|(?:(?:[A-Za-z0-9_*/-]|\\.|\\\d{3})+\.)+)"
_HOST = r"(?:\.|(?:[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?\.)+)"
_TEXT = r'"(?:[^"\\]|\\.)*"'
_HEX, _BASE64 = r"[0-9A-Fa-f]+", r"[A-Za-z0-9+/]+=*"
_METRES = r"-?\d+\.\d\dm"
_PARAMETER = (
    r"(?: (?:mandatory=[a-z0-9,-]+|alpn=[^ \"]+|no-default-alpn|port=\d+|ipv4hint=[\d.,]+|ipv6hint=[0-9a-f:.,]+"
    rf"|ech=\"{_BASE64}\"|key\d+={_TEXT}))*"
)

_FORMS: Mapping[str, str] = {
    **dict.fromkeys(("CNAME", "DNAME", "PTR", "ALIAS"), _NAME),
    "NS": _HOST,
    "MX": rf"\d+ {_HOST}",
    "SRV": rf"\d+ \d+ \d+ {_HOST}",
    "RP": rf"{_NAME} {_NAME}",
    "SOA": rf"{_NAME} {_NAME}(?: \d+){{5}}",
    **dict.fromkeys(("TXT", "SPF"), rf"{_TEXT}(?: {_TEXT})*"),
    "HINFO": rf"{_TEXT} {_TEXT}",
    "CAA": rf"\d+ [a-z]+ {_TEXT}",
    "URI": rf"\d+ \d+ {_TEXT}",
    "NAPTR": rf"\d+ \d+ {_TEXT} {_TEXT} {_TEXT} {_NAME}",
    "SSHFP": rf"\d+ \d+ {_HEX}",
    **dict.fromkeys(("CDS", "DLV", "DS", "SMIMEA", "TLSA"), rf"\d+ \d+ \d+ {_HEX}"),
    "OPENPGPKEY": _BASE64,
    "CERT": rf"\d+ \d+ \d+ {_BASE64}",
    "LOC": rf"\d+ \d+ \d+\.\d{{3}} [NS] \d+ \d+ \d+\.\d{{3}} [EW](?: {_METRES}){{4}}",
    **dict.fromkeys(("HTTPS", "SVCB"), rf"\d+ {_NAME}{_PARAMETER}"),
    "LUA": r"[A-Z0-9]+ \".*\"",
}


class Unfit(Exception):
    """A request is answered with a status other than success."""

    def __init__(self, status: int, why: str = "") -> None:
        super().__init__(why)
        self.status = status
        self.why = why


def printed(kind: str, content: str) -> str:
    """Return a content as the server reads it back, or fail as it does."""
    form = _FORMS.get(kind)
    if kind in {"A", "AAAA"}:
        return _address(kind, content)
    if form is not None:
        if not re.fullmatch(form, content, re.DOTALL):
            raise Unfit(422, f"Record x./{kind} '{content}': Not in expected format (parsed as '…')")
        return content.lower() if kind in {"CDS", "DLV", "DS", "SMIMEA", "SSHFP", "TLSA"} else content
    number = re.fullmatch(r"TYPE(\d+)", kind)
    if number is None:
        raise Unfit(422, f"RRset x. IN {kind}: unknown type given")
    raw = re.fullmatch(r"\\# (\d+)(?: ([0-9a-f]+))?", content)
    if kind in {"TYPE65401", "TYPE65402"} or raw is None or int(raw[1]) * 2 != len(raw[2] or ""):
        raise Unfit(422, f"Record x./{kind} '{content}': When parsing {kind} trailing data was not parsed")
    return content


def _address(kind: str, content: str) -> str:
    try:
        if kind == "A":
            return str(ipaddress.IPv4Address(content))
        address = ipaddress.IPv6Address(content.replace(".", "no"))
    except ipaddress.AddressValueError:
        raise Unfit(422, f"Record x./{kind} '{content}': Invalid address") from None
    low = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    high = int(address) >> 32
    return f"::ffff:{low}" if high == 0xFFFF else f"::{low}" if high == 0 and int(address) > 0xFFFF else str(address)


def is_name(name: str) -> bool:
    """Tell whether the server takes an owner name."""
    first, *rest = name.removesuffix(".").split(".")
    return all(re.fullmatch(r"[A-Za-z0-9_/-]{1,63}", label) for label in (*(() if first == "*" else (first,)), *rest))


class StandIn(Double):
    """PowerDNS on loopback, with zones in memory.

    Attributes:
        zones: what there is: by name with a dot, by owner and type.
        before: called before a request is executed: another writer.
        limit: bytes of a body.
    """

    name = "powerdns"

    def __init__(self) -> None:
        super().__init__(self._wsgi)
        self.zones: dict[str, dict[tuple[str, str], dict[str, Any]]] = {}
        self.serials: dict[str, int] = {}
        self.before: Callable[[Request], None] = lambda _request: None
        self.limit = 2 * 1024 * 1024
        self.bodies: list[bytes] = []
        self._one = threading.RLock()

    @property
    def config(self) -> dict[str, Any]:
        """The settings of the driver."""
        return {"powerdns": {"address": self.url, "api_key": Credential.literal(KEY)}}

    def forget(self) -> None:
        """Delete all zones."""
        self.zones.clear()

    def answer(self, request: Request, environ: Any) -> Response:
        """Execute a request, one after the other."""
        self.before(request)
        with self._one:
            return super().answer(request, environ)

    def _wsgi(self, environ: Any, start: Any) -> Iterable[bytes]:
        request = Wrapped(environ)
        try:
            status, found = self._executed_one(request)
        except Unfit as exc:
            status, found = exc.status, {"error": exc.why} if exc.why else None
        body = b"" if status == 204 else json.dumps(found).encode() if found is not None else b"Not Found"
        return Answered(body, status, content_type="application/json")(environ, start)

    def _executed_one(self, request: Wrapped) -> tuple[int, Any]:
        if request.headers.get("X-API-Key") != KEY:
            raise Unfit(401)
        body = request.get_data()
        if len(body) > self.limit:
            raise Unfit(400)
        self.bodies.append(body)
        parts = request.path.removeprefix("/api/v1/servers/localhost/zones")
        if parts == request.path:
            raise Unfit(404)
        zone = re.sub("=([0-9A-F]{2})", lambda found: chr(int(found[1], 16)), parts.removeprefix("/"))
        return self._zones(request, body) if not zone else self._zone(request, zone, body)

    def _zones(self, request: Wrapped, body: bytes) -> tuple[int, Any]:
        if request.method == "GET":
            return 200, [self._about(zone) for zone in self.zones]
        if request.method != "POST":
            raise Unfit(405)
        wanted = json.loads(body)
        if wanted["name"] in self.zones:
            raise Unfit(409)
        if not is_name(wanted["name"]):
            raise Unfit(422, f"Name '{wanted['name']}' contains unsupported characters")
        self.zones[wanted["name"]] = {}
        self.serials[wanted["name"]] = 1
        self._patched(wanted["name"], [{**each, "changetype": "REPLACE"} for each in wanted["rrsets"]])
        return 201, self._about(wanted["name"])

    def _zone(self, request: Wrapped, zone: str, body: bytes) -> tuple[int, Any]:
        if zone not in self.zones:
            raise Unfit(404)
        if request.method == "DELETE":
            del self.zones[zone]
            return 204, None
        if request.method == "PATCH":
            self._patched(zone, json.loads(body)["rrsets"])
            return 204, None
        if request.method != "GET":
            raise Unfit(405)
        query = parse_qs(request.query_string.decode())
        about = self._about(zone)
        if query.get("rrsets") != ["false"]:
            wanted = query.get("rrset_name", [None])[0]
            about["rrsets"] = [
                _shown(each, wanted) for each in self.zones[zone].values() if wanted in {None, each["name"]}
            ]
        return 200, about

    def _about(self, zone: str) -> dict[str, Any]:
        serial = self.serials[zone]
        return {"id": zone.replace("/", "=2F"), "name": zone, "serial": serial, "soa_edit_api": "DEFAULT"}

    def _patched(self, zone: str, items: list[dict[str, Any]]) -> None:
        """Change all or nothing, in the order of the request."""
        new, seen = dict(self.zones[zone]), set[tuple[str, str]]()
        for item in items:
            key = (item["name"].lower(), item["type"])
            if key in seen:
                raise Unfit(422, f"Duplicate RRset {item['name']} IN {item['type']} with changetype: REPLACE")
            seen.add(key)
            if not is_name(item["name"]):
                raise Unfit(422, f"Name '{item['name']}' contains unsupported characters")
            if key[0] != zone and not key[0].endswith(f".{zone}"):
                raise Unfit(422, f"RRset {item['name']} IN {item['type']}: Name is out of zone")
            before = new.pop(key, None)
            if item["changetype"] != "DELETE":
                self._replaced(new, key, item, before)
        self.zones[zone] = new
        self.serials[zone] += 1

    def _replaced(
        self,
        zone: dict[tuple[str, str], dict[str, Any]],
        key: tuple[str, str],
        item: dict[str, Any],
        before: dict[str, Any] | None,
    ) -> None:
        name, kind = key
        others = {held for owner, held in zone if owner == name}
        if others and (kind == "CNAME" or "CNAME" in others):
            raise Unfit(422, f"RRset {name} IN {kind}: Conflicts with pre-existing RRset")
        records = [{**each, "content": printed(kind, each["content"])} for each in item["records"]]
        if len({each["content"].lower() if kind == "MX" else each["content"] for each in records}) < len(records):
            raise Unfit(422, f"Duplicate record in RRset {name} IN {kind}")
        comments = item.get("comments", (before or {}).get("comments", []))
        shown = "ADDR" if kind == "TYPE65400" else kind
        zone[key] = {"name": name, "type": shown, "ttl": item["ttl"], "records": records, "comments": comments}


def _shown(item: dict[str, Any], wanted: str | None) -> dict[str, Any]:
    """Show a record set; where one name is asked for, the server leaves out what is off."""
    return item if wanted is None else {**item, "records": [each for each in item["records"] if not each["disabled"]]}

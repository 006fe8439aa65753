"""Awkward objects, always the same ones: keys, sizes, headers, metadata and tags that movers lose, change or trip over.

No provider holds all of them. Whoever wants those of one provider takes the first so many that it holds.
"""

from __future__ import annotations

import gzip
import itertools
import random
from collections.abc import Iterator, Mapping
from typing import Any

import attrs

from shiftable.blob import Headers
from shiftable.testing.conformance.blob import AWKWARD_KEYS, HEADERS, METADATA, ORDINARY_KEYS

__all__ = ["FEW", "FULL", "LARGE", "Scale", "Thing", "candidates", "things"]

MIB = 1024 * 1024
LARGE = 8 * MIB
"""What is larger is moved in parts."""


@attrs.frozen(kw_only=True)
class Scale:
    """How much is moved.

    Args:
        objects: awkward ones, each way.
        large: whether some of them have many megabytes.
        plain: objects of a move that is killed.
        kills: of one such move.
        scenarios: such moves.
        secrets: each way, with three versions each.
        inside: whether the command runs in the process of the test, which starts sooner, or in one of its own.
    """

    objects: int
    large: bool
    plain: int
    kills: int
    scenarios: int
    secrets: int
    inside: bool


FEW = Scale(objects=45, large=False, plain=40, kills=2, scenarios=1, secrets=20, inside=True)
FULL = Scale(objects=2_000, large=True, plain=150, kills=5, scenarios=10, secrets=500, inside=False)

ANONYMOUS = (None, "", "application/octet-stream", "binary/octet-stream")
"""What providers tell of an object that has no content type."""


def _named(content_type: str | None) -> str | None:
    return None if content_type in ANONYMOUS else content_type


@attrs.frozen(kw_only=True)
class Thing:
    """An object as it should be, or as somebody who knows nothing of shiftable reads it.

    Args:
        storage_class: ``infrequent``, ``cold`` or ``archive``, or what a provider calls that; ``None``: its usual one.
    """

    data: bytes = attrs.field(repr=lambda data: f"{len(data):,} bytes")
    content_type: str | None = attrs.field(default=None, converter=_named)
    cache_control: str | None = None
    content_disposition: str | None = None
    content_encoding: str | None = None
    content_language: str | None = None
    metadata: Mapping[str, str] = attrs.Factory(dict)
    tags: Mapping[str, str] = attrs.Factory(dict)
    storage_class: str | None = None

    @property
    def headers(self) -> Headers:
        """The five headers."""
        return Headers(**{name: getattr(self, name) for name in attrs.fields_dict(Headers)})


def _thing(data: bytes, headers: Headers, **more: Any) -> Thing:
    return Thing(data=data, **(attrs.asdict(headers) | more))


# keys

_REPETITIVE = ("folder", "folder/child/deep", "folder/child", "a/b", "a/b/", "a/b/c", "x//y", "x/y", "0", "0/")
_RESERVED = (
    ".shiftable", ".shiftable/x", "deep/.shiftable-y", "key.shiftable-", "key.shiftable-0123456789abcdef",
    ".shiftables", "soap", ".well-known/acme-challenge/x", ".well-known/x", "$root", "$web/index.html", "_SUCCESS",
    "_temporary/0/x", "x_$folder$", "blob", "buckets/shop", "lost+found/x", ".nfs000", "con", "aux.txt",
    ".git/config", "Thumbs.db",
)  # fmt: skip
_XML = (
    "<Key>x</Key>", "]]>", "<![CDATA[x]]>", "&amp;", "&#x41;", "&", "<!-- x -->", '"\'<>&',
    "%3CKey%3E", "\u0378", "\ue000",
)  # fmt: skip
_URLS = (
    "%", "%%", "%2f", "%252F", "%00", "+", "a+b%20c d", "?", "??x", "#", "##", ";", "a;versionId=1", "?uploads",
    "?acl", "http://x/y", "//host/x", "x?X-Amz-Signature=1", "@", ":", "::", "a:/b", "=", "&x=", "~user",
    "\\\\host\\x", "*", "?*[a]",
)  # fmt: skip
_DOTS = (
    "dot.", "dot./x", "dots..", "...", ".../x", "a/...", "a/. /b", ". ", ".x", "..x", "x..",
    "x/..y", "-", "-rf", "--all",
)  # fmt: skip
_TWINS = (
    "Readme", "README", "readme", "straße", "STRASSE", "Straße", "\u0131", "i", "I", "\u0130/i", "\ufb00", "ff",
    "\u03a9", "\u2126", "\u00e9/x", "e\u0301/x", "\uac00", "\u1100\u1161", "a\u0323\u0307", "a\u0307\u0323", "K",
    "\u212a",
)  # fmt: skip
_UNUSUAL = (
    "\U0010ffff", "\ud7ff", "\U00010000", "\ufdd0", "a\u200bb", "\u200e", "\u2029", "\u3000", "x\u00a0",
    "\u0300", "👩‍👩‍👧‍👦/🏳️‍🌈",
    "a\x7fb", "\x80", "bell\x07", "esc\x1b[31m", "tab\t/x", "lf\n/x", "crlf\r\n", "\ufeffbom",
)  # fmt: skip
_LONG = (
    "s" * 255, "s" * 256, "é" * 127, "é" * 128, "/".join("d" * 60), "/".join("d" * 260), f"{'p' * 254}/{'q' * 255}/x",
    "🚀" * 255 + "abc", "🚀" * 256, "日" * 341, "z/" * 511 + "zz",
)  # fmt: skip

_KEYS = (
    *ORDINARY_KEYS, *AWKWARD_KEYS, *_REPETITIVE, *_RESERVED, *_XML, *_URLS, *_DOTS, *_TWINS, *_UNUSUAL, *_LONG,
)  # fmt: skip

# what goes with them

_METADATA: tuple[dict[str, str], ...] = (
    *METADATA,
    {"lower": "x", "more_of-it.9": "y", "_": "z"},
    {"n": "x" * (2048 - 1)},
    {"n": "x" * 2048},
    {"n": "é" * 1023},
    {f"name{number}": "v" * 190 for number in range(10)},
    {"n": "x" * (8 * 1024 - 1)},
    {"n": "x" * (8 * 1024)},
    {"good": "kept", "Bad-One": "lost?", "also_good": "kept"},
    {"good": "kept", "ugly": "\N{ROCKET} lost?"},
    {"name": "a", "Name": "b", "NAME": "c"},
    {"mtime": "1700000000.123456789", "s3cmd-attrs": "atime:1/ctime:2/gid:0"},
    {"json": '{"a": [1, "\\u00e9"]}'},
    {"b64": "4pyT4pyT", "url": "https://x.example/?a=1&b=2#c"},
    {"hdi_isfolder": "true"},
    {"goog-reserved": "x"},
    {"content-type": "x", "content_length": "5", "host": "y"},
    {"n" * 200: "long name"},
    {"tab": "a\tb"},
    {"n": "~!@#$%^&*()_+`-={}|[]\\:\";'<>?,./"},
    {"true": "false", "none": "null", "int": "01"},
)

_HEADERS = (
    HEADERS,
    Headers(content_type="text/html"),
    Headers(content_type="text/plain;charset=UTF-8"),
    Headers(content_type='multipart/related; boundary="=_x;y"; type="text/xml"'),
    Headers(content_type="TEXT/Plain; Charset=utf-8; Format=Flowed"),
    Headers(content_type="application/x-directory"),
    Headers(content_type="no slash"),
    Headers(content_type="x" * 200 + "/y"),
    Headers(content_type="application/json", content_encoding="br"),
    Headers(content_type="application/octet-stream"),
    Headers(content_type="binary/octet-stream"),
    Headers(cache_control='no-cache, no-store, must-revalidate, private="x, y"'),
    Headers(cache_control="public, max-age=31536000, immutable, no-transform"),
    Headers(content_disposition="attachment; filename*=UTF-8''na%C3%AFve%20file.txt"),
    Headers(content_disposition='inline; filename="a\\"b\\\\c.txt"'),
    Headers(content_language="de-CH, en;q=0.5"),
    Headers(content_language="x-klingon"),
    Headers(content_encoding="identity"),
    Headers(content_encoding="deflate, gzip"),
    Headers(content_encoding="x-own"),
    Headers(content_disposition='attachment; filename="naïve.txt"'),
    Headers(content_disposition='attachment; filename="日本語.txt"'),
    Headers(cache_control="a  b"),
    Headers(content_type="text/plain; charset=é"),
)

_TAGS: tuple[dict[str, str], ...] = (
    {"team": "core"},
    {"cost center": "1+1=2", "a/b": "c:d"},
    {"empty": ""},
    {"Case": "A", "case": "a"},
    {f"tag{number}": str(number) for number in range(10)},
    {"name" * 32: "v" * 256},
    {"+-=._:/": "@" * 3},
    {"unicode": "größe"},
    {"ключ": "значение"},
    {"amp": "a&b=c%20"},
)


def _sized(chance: random.Random) -> Iterator[tuple[str, Thing]]:
    """Yield the sizes around which movers change their ways; the first is the one of several parts."""
    about: dict[str, Any] = {"content_type": "video/mp4", "metadata": {"large": "yes"}}
    for name, size in (("parts", 2 * LARGE + 12_345), ("above", LARGE + 1), ("at", LARGE), ("below", LARGE - 1)):
        yield f"size/{name} +%20", Thing(data=chance.randbytes(size), tags={"size": "large"}, **about)
    yield "size/5 MiB", Thing(data=chance.randbytes(5 * MIB), **about)
    yield "size/even parts", Thing(data=chance.randbytes(2 * LARGE), **about)
    for size in (0, 1, 2, 1023, 65_536, MIB + 1):
        yield f"size/{size}", Thing(data=chance.randbytes(size), metadata={"size": str(size)})


def _packed() -> Iterator[tuple[str, Thing]]:
    """Yield what clients unpack although nobody asked, and what only says that it is packed."""
    text = b"the same again and again " * 200
    packed = gzip.compress(text, mtime=0)
    yield "packed/text.gz", Thing(data=packed, content_type="text/plain", content_encoding="gzip")
    yield "packed/not", Thing(data=text, content_type="text/plain", content_encoding="gzip")
    yield "packed/file.gz", Thing(data=packed, content_type="application/gzip")
    yield "packed/empty", Thing(data=b"", content_encoding="gzip")
    yield "packed/quiet", Thing(data=packed, content_encoding="gzip", cache_control="no-transform")


def _specials(chance: random.Random) -> Iterator[tuple[str, Thing]]:
    yield from _sized(chance)
    yield from _packed()
    for tier in ("infrequent", "cold", "archive"):
        yield f"class/{tier}", Thing(data=tier.encode(), storage_class=tier)
        yield f"class/{tier} with all", _thing(tier.encode(), HEADERS, metadata={"a": "b"}, storage_class=tier)
    singles: list[Iterator[tuple[str, Thing]]] = [
        ((key, Thing(data=f"{number}: {key!r}".encode())) for number, key in enumerate(_KEYS)),
        ((f"metadata/{n}", Thing(data=b"m", metadata=found)) for n, found in enumerate(_METADATA)),
        ((f"headers/{n}", _thing(b"h", found)) for n, found in enumerate(_HEADERS)),
        ((f"tags/{n}", Thing(data=b"t", tags=found)) for n, found in enumerate(_TAGS)),
    ]
    # By turns, so that the first few have something of everything.
    for row in itertools.zip_longest(*singles):
        yield from (found for found in row if found is not None)


_FOLDERS = (
    "bulk", "bulk/a b", "bulk/ü", "bulk/%41", "bulk/deep/er/still", "Bulk", "bulk/+", "bulk//x", "bulk/../up", "bulk/.",
)  # fmt: skip
_STEMS = (
    "plain", "with space", "per%cent", "plus+", "q?", "hash#", "ünï", "日本", "🚀", "&amp;",
    "tick'", "semi;", "at@", "Dot.",
)  # fmt: skip


def _filler(chance: random.Random) -> Iterator[tuple[str, Thing]]:
    """Yield without end what is a little awkward in every way."""
    for number in itertools.count():
        usual = chance.random() < 0.9  # most go anywhere: a move that refuses most of it would show little
        folder = _FOLDERS[chance.randrange(7 if usual else len(_FOLDERS))]
        stem = _STEMS[chance.randrange(13 if usual else len(_STEMS))]
        metadata: Mapping[str, str] = {"number": str(number), "part_of": "bulk"} if number % 3 else {}
        yield (
            f"{folder}/{stem} {number}",
            _thing(
                chance.randbytes(chance.choice((0, 1, 17, 700, 5_000, 40_000))),
                chance.choice(_HEADERS[:6]) if number % 2 else Headers(),
                metadata=metadata if usual else chance.choice(_METADATA),
                tags=chance.choice(_TAGS) if number % 11 == 0 else {},
                storage_class=chance.choice(("infrequent", "cold")) if number % 13 == 0 else None,
            ),
        )


def candidates(seed: int = 3, *, large: bool = True) -> Iterator[tuple[str, Thing]]:
    """Yield objects without end, each key once, the most awkward ones first.

    Args:
        large: with those of many megabytes.
    """
    chance = random.Random(seed)  # noqa: S311  makes up contents
    seen = set()
    for key, thing in itertools.chain(_specials(chance), _filler(chance)):
        if key not in seen and (large or len(thing.data) < MIB):
            seen.add(key)
            yield key, thing


def things(seed: int, count: int, *, large: int = 1) -> dict[str, Thing]:
    """Make up objects that every provider holds, so many of them in parts."""
    chance = random.Random(seed)  # noqa: S311  makes up contents
    made = {
        f"folder {number % 7}/{number}+ü": Thing(
            data=chance.randbytes(chance.choice((0, 1, 700, 5_000))),
            content_type=chance.choice(("text/plain; charset=utf-8", "image/png", None)),
            metadata={"number": str(number)} if number % 3 else {},
        )
        for number in range(count - large)
    }
    sized = {f"large/{n}": Thing(data=chance.randbytes(2 * LARGE + n), metadata={"n": str(n)}) for n in range(large)}
    return made | sized

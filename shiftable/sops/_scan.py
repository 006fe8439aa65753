"""Credentials that stand in a repository in clear: known forms, private keys, and values that look random."""

from __future__ import annotations

import bisect
import hashlib
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import attrs

from shiftable.errors import ConfigError, IntegrityError, Problem
from shiftable.sops._policy import FILE, FileRule
from shiftable.sops._text import parsed

__all__ = ["Allowed", "Allowlist", "Leak", "leaks_in", "scan"]

ALLOW_FILE = FILE.parent / "allow.yaml"

_LARGEST = 16 * 2**20
"""Bytes of a file that are looked at; what is larger is data."""

_FORMS: tuple[tuple[str, tuple[bytes, ...], bytes], ...] = (
    (
        "private key",
        (b"PRIVATE KEY",),
        rb"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----[\s\\rn\"'+,]*[A-Za-z0-9+/=:-]{16}",
    ),
    ("age identity", (b"AGE-SECRET-KEY-",), rb"\bAGE-SECRET-KEY-(?:PQ-)?1[0-9A-Z]{40,}"),
    ("AWS access key", (b"AKIA", b"ASIA"), rb"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"),
    (
        "GitHub token",
        (b"ghp_", b"gho_", b"ghu_", b"ghs_", b"ghr_", b"github_pat_"),
        rb"\b(?:gh[opusr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{50,})",
    ),
    (
        "GitLab token",
        (b"glpat-", b"gldt-", b"glrt-", b"glcbt-", b"glptt-", b"glft-", b"glsoat-"),
        rb"\bgl(?:pat|dt|rt|cbt|ptt|ft|soat)-[A-Za-z0-9_-]{20,}",
    ),
    ("Slack token", (b"xox",), rb"\bxox[abeoprs]-[A-Za-z0-9-]{20,}"),
    ("Slack webhook", (b"hooks.slack.com",), rb"hooks\.slack\.com/services/T[A-Z0-9]+/B[A-Z0-9]+/[A-Za-z0-9]{16,}"),
    ("Google API key", (b"AIza",), rb"\bAIza[0-9A-Za-z_-]{35}"),
    ("Google OAuth secret", (b"GOCSPX-",), rb"\bGOCSPX-[A-Za-z0-9_-]{20,}"),
    ("Stripe key", (b"_live_",), rb"\b[sr]k_live_[0-9A-Za-z]{20,}"),
    ("SendGrid key", (b"SG.",), rb"\bSG\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,}"),
    ("npm token", (b"npm_",), rb"\bnpm_[A-Za-z0-9]{36}\b"),
    ("PyPI token", (b"pypi-",), rb"\bpypi-[A-Za-z0-9_-]{80,}"),
    ("OpenAI or Anthropic key", (b"sk-",), rb"\bsk-(?:ant-|proj-|svcacct-)?[A-Za-z0-9_-]{32,}"),
    ("Vault token", (b"hvs.", b"hvb.", b"hvr."), rb"\bhv[sbr]\.[A-Za-z0-9_-]{24,}"),
    ("DigitalOcean token", (b"dop_v1_", b"doo_v1_", b"dor_v1_"), rb"\bdo[opr]_v1_[0-9a-f]{64}"),
    ("Azure storage key", (b"ccountKey=",), rb"\b[Aa]ccountKey=[A-Za-z0-9+/]{86}=="),
    ("JSON web token", (b"eyJ",), rb"\beyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{16,}"),
)
"""Name, of what one must occur for a search to be worth it, and the form, from the providers' documentation."""

_COMPILED = tuple((name, hints, re.compile(form)) for name, hints, form in _FORMS)

_URL = re.compile(rb"://[^\s:/@\"'<>{}$]{0,64}:([^\s/@\"'<>{}()$]{6,128})@[a-zA-Z0-9.\[-]")

_WORDS = (
    *(b"password", b"passwd", b"passphrase", b"pwd", b"secret", b"token", b"credential"),
    *(stem + gap + b"key" for stem in (b"api", b"access", b"private", b"auth") for gap in (b"", b"_", b"-")),
)
_ASSIGNED = re.compile(
    rb"[A-Za-z0-9_.-]{0,24}[\"']?\]?[ \t]*(?::=|=>|=|:)[ \t]*"
    rb"(?:[rbuf]{0,2}([\"'`])([^\"'`\r\n]{8,256})\1|([^\s\"'`#;,(){}\[\]<>$]{8,256})[ \t]*(?:\r?\n|\Z))"
)
"""What follows a word."""

_QUOTED = re.compile(rb"([\"'`])([A-Za-z0-9+/_-]{40,256}={0,2})\1")
_DIGEST = re.compile(rb"(?i)sha\d|md5|hash|digest|integrity|checksum|fingerprint|etag|commit|revision|public|age1|ssh-")

_PLACEHOLDER = re.compile(
    rb"(?i)^(?:\W*|.*(?:example|changeme|change[_-]me|placeholder|dummy|redacted|your[_-]|xxxxx|\*\*\*|\.\.\.|<|\$\{|\{\{|%\().*)$"
)
_WORD = re.compile(rb"(?i)(?:my|the)?(?:pass(?:word|wd|phrase)?|secret|token|credentials?)")
_INLINE = re.compile(rb"shiftable: allow[- ]secret[ :]+\S")
_CIPHERTEXT = re.compile(rb"ENC\[AES256_GCM,[^\]\n]*\]")
_LOCKS = frozenset(
    {"package-lock.json", "yarn.lock", "pnpm-lock.yaml", "poetry.lock", "uv.lock", "Cargo.lock", "go.sum", "flake.lock"}
)


@attrs.frozen
class Leak:
    """A place where a credential stands in clear.

    Args:
        kind: what it looks like.
        mark: of the file, the kind and the value: for the list of what is allowed.
    """

    path: str
    line: int
    kind: str
    mark: str


def leaks_in(content: bytes, path: str) -> Iterator[Leak]:
    """Yield what looks like a credential in one file, each line once, in order."""
    if b"\0" in content[:8192]:
        return
    content = _CIPHERTEXT.sub(b"", content[:_LARGEST])
    found: dict[int, Leak] = {}
    lines = _Lines(content)
    for kind, start, value in _found(content, lock=path.rpartition("/")[2] in _LOCKS):
        line = lines.number(start)
        if line not in found and not _INLINE.search(lines.text(line)):
            mark = hashlib.sha256(b"\0".join((path.encode(errors="replace"), kind.encode(), value))).hexdigest()[:16]
            found[line] = Leak(path, line, kind, mark)
    yield from (found[line] for line in sorted(found))


def _found(content: bytes, *, lock: bool) -> Iterator[tuple[str, int, bytes]]:
    """Yield kinds, places and values, perhaps one of them several times."""
    yield from _known(content)
    for place in _places(content, b"://"):
        match = _URL.match(content, place)
        if match and not _PLACEHOLDER.match(match[1]) and not _WORD.fullmatch(match[1]) and _bits(match[1]) > 2.2:
            yield "password in a URL", place, match[1]
    if not lock:
        yield from _assigned(content)
        yield from _quoted(content)


def _known(content: bytes) -> Iterator[tuple[str, int, bytes]]:
    for kind, hints, form in _COMPILED:
        if any(hint in content for hint in hints):
            for match in form.finditer(content):
                if not _PLACEHOLDER.match(match[0]) or kind == "private key":
                    yield kind, match.start(), match[0]


def _assigned(content: bytes) -> Iterator[tuple[str, int, bytes]]:
    lower = content.lower()
    for word in _WORDS:
        for place in _places(lower, word):
            match = _ASSIGNED.match(content, place + len(word))
            value = b"" if match is None else match[2] or match[3]
            if _random(value, 3.0):
                yield "assigned secret", place, value


def _quoted(content: bytes) -> Iterator[tuple[str, int, bytes]]:
    for match in _QUOTED.finditer(content):
        before = content[max(0, match.start() - 48) : match.start()].rpartition(b"\n")[2]
        if _random(match[2], 4.6) and _mixed(match[2]) and not _DIGEST.search(before + match[2][:16]):
            yield "random text", match.start(), match[2]


def _places(content: bytes, word: bytes) -> Iterator[int]:
    place = content.find(word)
    while place != -1:
        yield place
        place = content.find(word, place + 1)


def _random(value: bytes, bits: float) -> bool:
    """Tell whether a value looks generated: neither words, nor a path, nor a reference to where the value is."""
    if (
        len(value) < 8
        or re.search(rb"(?i)abcdefgh|01234567", value)
        or _PLACEHOLDER.match(value)
        or re.search(rb"[ (){}<>$]|://|^[./~%@]|\.[a-z]{1,5}$", value)
    ):
        return False
    return _bits(value) >= bits and re.search(rb"\d", value) is not None and re.search(rb"[A-Za-z]", value) is not None


def _mixed(value: bytes) -> bool:
    return all(re.search(kind, value) for kind in (rb"[a-z]", rb"[A-Z]", rb"\d")) and value.count(b"/") < 5


def _bits(value: bytes) -> float:
    """Return Shannon's entropy of the bytes, for each of them."""
    return -sum(count / len(value) * math.log2(count / len(value)) for count in Counter(value).values())


class _Lines:
    """Finds lines by the place of a byte."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._ends = [match.start() for match in re.finditer(rb"\n", content)] + [len(content)]

    def number(self, place: int) -> int:
        return bisect.bisect_left(self._ends, place) + 1

    def text(self, number: int) -> bytes:
        start = self._ends[number - 2] + 1 if number > 1 else 0
        return self._content[start : self._ends[number - 1]]


# what is allowed


@attrs.frozen
class Allowed:
    """One entry of ``.shiftable/allow.yaml``.

    Args:
        path: of files, as in rules.
        kind: only leaks of this kind.
        mark: only this leak.
        reason: why it is no credential, or may stand there.
    """

    path: str
    reason: str
    kind: str | None = None
    mark: str | None = None

    def covers(self, leak: Leak) -> bool:
        """Tell whether it is for that leak."""
        fits = FileRule(self.path, ()).fits(leak.path)
        return fits and self.kind in (None, leak.kind) and self.mark in (None, leak.mark)


@attrs.frozen
class Allowlist:
    """All entries."""

    entries: tuple[Allowed, ...] = ()

    @classmethod
    def read(cls, root: Path) -> Allowlist:
        """Read the file of a repository; without one nothing is allowed.

        Raises:
            ConfigError: it is malformed, or an entry has no reason.
        """
        file = root / ALLOW_FILE
        try:
            tree, _ = parsed(file.read_bytes(), "yaml")
        except FileNotFoundError:
            return cls()
        except IntegrityError as exc:
            raise ConfigError(f"{file}: {exc.message}") from exc
        entries = tree.get("allow")
        if set(tree) != {"allow"} or not isinstance(entries, list):
            raise ConfigError(f"{file}: it has 'allow', a list, and nothing else")
        wrong = [f"entry {number}: {why}" for number, each in enumerate(entries, 1) for why in _wrong(each)]
        if wrong:
            raise ConfigError(Problem(str(file), why) for why in wrong)
        return cls(tuple(Allowed(**each) for each in entries))


def _wrong(entry: Any) -> Iterable[str]:  # noqa: ANN401  what the file says
    if not isinstance(entry, dict) or not all(isinstance(value, str) for value in entry.values()):
        yield "it is no mapping of texts"
        return
    unknown = set(entry) - {"path", "reason", "kind", "mark"}
    if unknown:
        yield f"there is no {', '.join(sorted(unknown))}"
    yield from (f"'{name}' is missing" for name in ("path", "reason") if not entry.get(name, "").strip())


def scan(root: Path, paths: Iterable[Path], allowlist: Allowlist) -> tuple[tuple[Leak, ...], tuple[Allowed, ...]]:
    """Look into files.

    Returns:
        the leaks that are not allowed, and the entries that allow nothing.
    """
    leaks: list[Leak] = []
    used: set[Allowed] = set()
    for path in paths:
        if path.is_symlink():
            continue
        try:
            with path.open("rb") as stream:
                content = stream.read(_LARGEST)
        except FileNotFoundError:  # it was removed just now
            continue
        for leak in leaks_in(content, path.relative_to(root).as_posix()):
            covering = [entry for entry in allowlist.entries if entry.covers(leak)]
            used.update(covering)
            if not covering:
                leaks.append(leak)
    return tuple(leaks), tuple(entry for entry in allowlist.entries if entry not in used)

"""Keep secrets out of logs and of what programs write, also in the spellings that encodings give them."""

from __future__ import annotations

import atexit
import base64
import html
import io
import json
import logging
import threading
from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator
from typing import IO, NoReturn
from urllib.parse import quote, quote_plus, unquote, urlsplit

import attrs

from shiftable.masking import Masked
from shiftable.secrets.driver import Secret

__all__ = ["SHORTEST", "RedactingFilter", "RedactingStream", "Redactor"]

logger = logging.getLogger(__name__)

SHORTEST = 8
"""Values with fewer characters stand in too many texts by chance, and are not masked."""

_GRAM = 6
_STEP = SHORTEST - _GRAM + 1
"""A text is looked at in every third place: there, any value has begun or one of its first three grams is."""

_HEAD = 32
"""So many characters of a longer value are masked as a beginning of it: messages are often cut short. Those of a first
line are too often the same (``-----BEGIN PRIVATE KEY-----``) and do not count."""

_LINE = 16
"""A line of so many characters, of a value with several, is masked where it stands alone."""

_START = 3
_DEEPEST = 3
_SECRET_WORDS = ("pass", "pwd", "secret", "token", "key", "credential", "private", "auth", "signature", "dsn")
_MASK = "***"
_BASE64 = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/-_")


@attrs.frozen
class _Needle:
    """One spelling of a value.

    Args:
        head: what must be found; the rest goes with it as far as it agrees.
        inner: a stretch of base64: the characters beside it hold bits of the value too.
    """

    text: str
    head: str
    inner: bool


class Redactor:
    """Masks values in texts: as they are, in base64 (wherever they begin in it), in URLs, JSON, ``repr`` and hex.

    >>> redactor = Redactor()
    >>> redactor.add("correct horse battery")
    True
    >>> redactor.mask("GET /?key=correct%20horse%20battery")
    'GET /?key=***'

    Values may be added at any time and from any thread; none is ever dropped, as old ones still open something until
    they are revoked. To add whatever a store reads and writes, also after a rotation: ``store.observed(redactor.add)``.

    * A value of fewer than eight characters is not masked, and a warning says so: it stands in most texts by chance.
    * A value is masked as a whole, with the beginning of a longer one where the text is cut short. Of one with several
      lines, each line of 16 characters and more is masked too.
    * What is a part of a value is not known as one, but for a password in a URL, and in a JSON document what has a name
      like ``password``, ``token`` or ``key``. Add other parts by themselves.

    The time for a text depends on its length, hardly on the number of values: a dictionary has three pieces of six
    characters of each spelling, and every third place of the text is looked up in it.
    """

    __slots__ = ("_count", "_grams", "_known", "_lock", "_longest", "_ordered", "_starts")

    def __init__(self) -> None:
        self._grams: dict[str, tuple[tuple[int, _Needle], ...]] = {}
        self._known: set[str] = set()
        self._ordered: list[str] = []
        self._starts: set[str] = set()
        self._longest = self._count = 0
        self._lock = threading.Lock()

    def add(self, value: Secret | Masked | str | bytes, *, name: str = "") -> bool:
        """Mask a value from now on; tell whether it will be. Again: no change.

        Args:
            name: what a warning calls it; that of a ``Secret`` is known.
        """
        if isinstance(value, Secret):
            name, value = name or value.name, value.value
        value = value if isinstance(value, Masked) else Masked(value)  # from here on no variable of an error shows it
        raw = value.reveal_bytes()
        parts = [part.encode() for part in _parts(_text(raw)) if len(part) >= SHORTEST]
        long = len(_text(raw)) >= SHORTEST
        if not long:
            logger.warning("%s is shorter than %d characters and is not masked", name or "a value", SHORTEST)
        with self._lock:
            before = len(self._known)
            for each in dict.fromkeys([raw, *parts] if long else parts):
                for text, inner in _spellings(each):
                    self._index(text, inner=inner)
            self._count += len(self._known) > before
        return long

    def mask(self, text: str) -> str:
        """Return a text with stars in place of the values."""
        return _masked(text, self._spans(text))

    def mask_bytes(self, data: bytes) -> bytes:
        """Return bytes with stars in place of the values. What is no text stays as it is."""
        text = data.decode("latin-1")
        masked = self.mask(text)
        return data if masked is text else masked.encode("latin-1")

    def wrap(self, stream: IO[str]) -> RedactingStream:
        """Return a stream that masks what is written through it: ``sys.stdout = redactor.wrap(sys.stdout)``."""
        return RedactingStream(self, stream)

    def pieces(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        """Yield a stream of bytes with stars in place of the values, also of those that two chunks share.

        What could be the beginning of a value is held back until more has come, or the stream ends.
        """
        tail = _Tail(self)
        for chunk in chunks:
            yield tail.feed(chunk.decode("latin-1")).encode("latin-1")
        yield tail.rest().encode("latin-1")

    def _begun(self, text: str) -> int:
        """Return where the end of a text could be the beginning of a value, or its length if it could not."""
        with self._lock:
            first = max(0, len(text) - self._longest + 1)
            for at in range(first, len(text)):
                if len(text) - at < _START or text[at : at + _START] in self._starts:
                    rest = text[at:]
                    place = bisect_left(self._ordered, rest)
                    if place < len(self._ordered) and self._ordered[place].startswith(rest):
                        return at
        return len(text)

    def _index(self, text: str, *, inner: bool) -> None:
        """Put three pieces of a spelling that follow each other into the dictionary: those that fewest others have."""
        if text in self._known:
            return
        needle = _Needle(text, text[: text.find("\n") + 1 + _HEAD], inner)
        best, least = 0, -1
        for at in range(len(needle.head) - SHORTEST + 1):
            shared = sum(len(self._grams.get(gram, ())) for _, gram in _grams(text, at))
            if least < 0 or shared < least:
                best, least = at, shared
            if not shared:
                break
        for at, gram in _grams(text, best):
            self._grams[gram] = (*self._grams.get(gram, ()), (at, needle))
        self._known.add(text)
        self._starts.add(text[:_START])
        self._longest = max(self._longest, len(text))
        insort(self._ordered, text)

    def _spans(self, text: str) -> list[tuple[int, int]]:
        """Return where values begin and end."""
        last = len(text) - _GRAM + 1
        grams = [text[at : at + _GRAM] for at in range(0, last, _STEP)]
        if self._grams.keys().isdisjoint(grams):
            return []
        spans: list[tuple[int, int]] = []
        first, covered = 0, -1  # of the span that reaches farthest
        for number, gram in enumerate(grams):
            for offset, needle in self._grams.get(gram, ()):
                begin = number * _STEP - offset
                if first <= begin and min(begin + len(needle.text), len(text)) < covered:
                    continue  # it could only be within what is masked already
                if begin >= 0 and text.startswith(needle.head, begin):
                    spans.append(_extent(text, begin, needle))
                    if spans[-1][1] > covered:
                        first, covered = spans[-1]
        return _joined(spans)

    def __len__(self) -> int:
        return self._count

    def __bool__(self) -> bool:
        return True

    def __repr__(self) -> str:
        return f"<Redactor of {self._count:,} values>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a redactor is not pickled: it holds the values")

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        self.__reduce__()

    def __getstate__(self) -> NoReturn:
        self.__reduce__()


class _Tail:
    """The end of a stream that is held back.

    Of base64, the one character before a value, which holds two to four of its bits, may be out already.
    """

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor
        self._held = ""

    def feed(self, text: str) -> str:
        """Return what may be shown now that this has come."""
        text = self._held + text
        spans = self._redactor._spans(text)  # noqa: SLF001  two classes, one idea
        end = self._redactor._begun(text)  # noqa: SLF001  the same
        for begin, stop in reversed(spans):
            if begin < end and (end < stop or stop == len(text)):  # it may go on, or its end be another's beginning
                end = begin
        self._held = text[end:]
        return _masked(text[:end], [span for span in spans if span[1] <= end])

    def rest(self) -> str:
        """Return the rest, as nothing more will come."""
        text, self._held = self._held, ""
        return self._redactor.mask(text)


class RedactingStream(io.TextIOBase):
    """A text stream before another one, from which values are masked, also those that are written in pieces.

    What could be the beginning of a value is held back until more is written or the stream is closed; ``flush`` does
    not bring it out. It is closed when the process ends, and never closes the stream behind it.
    """

    def __init__(self, redactor: Redactor, stream: IO[str]) -> None:
        self._tail = _Tail(redactor)
        self._stream = stream
        self._guard = threading.RLock()
        atexit.register(self.close)

    def write(self, text: str, /) -> int:
        """Write what may be shown, and keep the rest."""
        with self._guard:
            if self.closed:
                raise ValueError("the stream is closed")
            self._stream.write(self._tail.feed(text))
        return len(text)

    def flush(self) -> None:
        """Flush what was written."""
        if not self.closed:
            self._stream.flush()

    def close(self) -> None:
        """Write the rest."""
        with self._guard:
            if not self.closed:
                atexit.unregister(self.close)
                self._stream.write(self._tail.rest())
                self._stream.flush()
                super().close()

    def writable(self) -> bool:
        """Say yes."""
        return True

    def isatty(self) -> bool:
        """Tell whether the stream behind it is a terminal."""
        return self._stream.isatty()

    def fileno(self) -> int:
        """Return the number of the stream behind it. What is written there is not masked."""
        return self._stream.fileno()

    @property
    def encoding(self) -> str:  # type: ignore[override]  # typeshed has a variable
        """How the stream behind it encodes text."""
        return getattr(self._stream, "encoding", None) or "utf-8"


class RedactingFilter(logging.Filter):
    """Masks values in log records: message, arguments, traceback, stack and whatever else a record carries.

    Add it to handlers, as filters of a logger do not see the records of the loggers below it::

        for handler in logging.getLogger().handlers:
            handler.addFilter(RedactingFilter(redactor))

    A record that shows a value is changed for all handlers that come later; its exception is then told as text only.
    """

    def __init__(self, redactor: Redactor) -> None:
        super().__init__()
        self._redactor = redactor

    def filter(self, record: logging.LogRecord) -> bool:
        """Mask a record, and let it pass. Fails for none: a record that cannot be formatted stays one."""
        try:
            message = record.getMessage()
        except Exception:  # noqa: BLE001  the handler says what is wrong with it, and shows message and arguments
            record.msg = self._redactor.mask(str(record.msg))
            record.args = tuple(self._redactor.mask(repr(each)) for each in _arguments(record.args))
        else:
            masked = self._redactor.mask(message)
            if masked is not message:
                record.msg, record.args = masked, ()
            elif record.args:
                vars(record)["args"] = self._clean(record.args)
        if record.exc_info and not record.exc_text:
            told = _FORMATTER.formatException(record.exc_info)
            masked = self._redactor.mask(told)
            if masked is not told:
                record.exc_text, record.exc_info = masked, None
        for name, value in list(vars(record).items()):
            if name not in _OWN:
                vars(record)[name] = self._clean(value)
        return True

    def _clean(self, value: object) -> object:
        """Mask what somebody has added to a record."""
        if isinstance(value, str):
            return self._redactor.mask(value)
        if isinstance(value, bytes):
            return self._redactor.mask_bytes(value)
        if isinstance(value, dict):
            pairs = [(self._clean(name), self._clean(each)) for name, each in value.items()]
            same = all(
                new is old
                for pair, item in zip(pairs, value.items(), strict=True)
                for new, old in zip(pair, item, strict=True)
            )
            return value if same else dict(pairs)
        if isinstance(value, list | tuple | set | frozenset):
            cleaned = [self._clean(each) for each in value]
            if all(new is old for new, old in zip(cleaned, value, strict=True)):
                return value
            return cleaned if isinstance(value, list) else tuple(cleaned)
        return value


_FORMATTER = logging.Formatter()
_OWN = frozenset(vars(logging.makeLogRecord({}))) - {"exc_text", "stack_info"}


def _arguments(args: object) -> tuple[object, ...]:
    return args if isinstance(args, tuple) else (args,)


# places in a text


def _grams(text: str, at: int) -> list[tuple[int, str]]:
    return [(here, text[here : here + _GRAM]) for here in range(at, at + _STEP)]


def _extent(text: str, begin: int, needle: _Needle) -> tuple[int, int]:
    """Return where a value that was found begins and ends: as far as it agrees."""
    agree, most = len(needle.head), min(len(text) - begin, len(needle.text))
    if text.startswith(needle.text, begin):
        agree = most
    while agree < most:
        middle = (agree + most + 1) // 2
        if text.startswith(needle.text[:middle], begin):
            agree = middle
        else:
            most = middle - 1
    end = begin + agree
    if needle.inner:
        begin -= begin > 0 and text[begin - 1] in _BASE64
        end += end < len(text) and text[end] in _BASE64
        while end < len(text) and text[end] == "=":
            end += 1
    return begin, end


def _joined(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return spans in order, those that overlap as one."""
    found: list[tuple[int, int]] = []
    for begin, end in sorted(spans):
        if found and begin < found[-1][1]:
            found[-1] = found[-1][0], max(end, found[-1][1])
        else:
            found.append((begin, end))
    return found


def _masked(text: str, spans: list[tuple[int, int]]) -> str:
    if not spans:
        return text
    parts, last = [], 0
    for begin, end in spans:
        parts += [text[last:begin], _MASK]
        last = end
    return "".join([*parts, text[last:]])


# spellings


def _text(raw: bytes) -> str:
    """Return a value as text; one that is none as if each byte were a character."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def _parts(text: str, *, named: bool = True, depth: int = 0) -> Iterator[str]:
    """Yield what is secret by itself in a value that is a URL or a JSON document.

    Args:
        named: whether the name under which it stands says that it is secret.
    """
    if depth and named:
        yield text
    if "://" in text[:_HEAD] and "@" in text:
        try:
            password = urlsplit(text).password
        except ValueError:  # no URL
            password = None
        if password:
            yield password
            yield unquote(password)
    if text.lstrip()[:1] in ("{", "[") and depth < _DEEPEST:
        try:
            document = json.loads(text)
        except (ValueError, RecursionError):
            return
        for leaf, says_so in _leaves(document, named=False):
            yield from _parts(leaf, named=says_so, depth=depth + 1)


def _leaves(document: object, *, named: bool) -> Iterator[tuple[str, bool]]:
    """Yield the texts of a JSON document, and whether a name above them says that they are secret."""
    waiting = [(document, named)]
    while waiting:
        here, says_so = waiting.pop()
        if isinstance(here, str):
            yield here, says_so
        elif isinstance(here, dict):
            waiting += [(each, says_so or _says_so(name)) for name, each in here.items()]
        elif isinstance(here, list):
            waiting += [(each, says_so) for each in here]


def _says_so(name: str) -> bool:
    return any(word in name.lower() for word in _SECRET_WORDS)


def _spellings(raw: bytes) -> Iterator[tuple[str, bool]]:
    """Yield how a value may look, and whether that is a stretch of base64. Each has eight characters at least."""
    stripped = raw.strip()
    whole = [raw, stripped] if len(_text(stripped)) >= SHORTEST else [raw]
    for value in dict.fromkeys(whole):
        for text in dict.fromkeys(_texts(value)):
            yield text, False
            if not text.isascii():
                yield text.encode().decode("latin-1"), False  # as a stream of bytes shows it
        for text in _base64(value):
            yield text, True
    lines = _text(raw).splitlines()
    for line in lines if len(lines) > 1 else ():
        if len(line.strip()) >= _LINE and not line.startswith("-----"):
            yield line.strip(), False
            if not line.isascii():
                yield line.strip().encode().decode("latin-1"), False


def _texts(raw: bytes) -> Iterator[str]:
    text = _text(raw)
    yield text
    yield text.replace("\r\n", "\n").replace("\n", "\r\n")  # as a terminal shows it
    for url in (quote(raw), quote(raw, safe=""), quote_plus(raw), quote_plus(raw, safe="/")):
        yield url
        yield _lower_escapes(url)
    yield repr(raw)[2:-1]
    yield repr(text)[1:-1]
    yield json.dumps(text)[1:-1]
    yield json.dumps(text, ensure_ascii=False)[1:-1]
    yield json.dumps(json.dumps(text)[1:-1])[1:-1]  # JSON in JSON
    yield html.escape(text)
    yield raw.hex()
    yield raw.hex().upper()


def _lower_escapes(url: str) -> str:
    first, *rest = url.split("%")
    return "%".join([first, *(part[:2].lower() + part[2:] for part in rest)])


def _base64(raw: bytes) -> Iterator[str]:
    """Yield what base64 shows of a value whatever stands before and after it, for each of three places to begin at."""
    for before in range(3):
        first, last = -(-8 * before // 6), 8 * (before + len(raw)) // 6
        yield base64.b64encode(bytes(before) + raw).decode()[first:last]
        yield base64.urlsafe_b64encode(bytes(before) + raw).decode()[first:last]

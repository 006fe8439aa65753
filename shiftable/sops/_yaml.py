"""YAML: read strictly, with comments, and written in the style of sops."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import attrs

from shiftable.errors import IntegrityError
from shiftable.sops._age import needed
from shiftable.sops._comments import Comment, Found, Place, by_place

__all__ = ["from_yaml", "to_yaml"]

_SCALARS: tuple[tuple[re.Pattern[str], Callable[[str], Any] | None], ...] = (
    (re.compile(r"~|null|Null|NULL|"), lambda _: None),
    (re.compile(r"true|True|TRUE|false|False|FALSE"), lambda text: text.lower() == "true"),
    (re.compile(r"[-+]?(?:0|[1-9][0-9]{0,18})"), int),
    (re.compile(r"\d{4}-\d\d?-\d\d?(?:[Tt \t].*)?"), None),
    (re.compile(r"[-+]?(?:0[xXoObB][0-9a-fA-F_]+|[0-9][0-9_]*_[0-9_.]*|0[0-9]+)"), None),
    (re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"), float),
    (re.compile(r"[-+]?\.inf|\.nan"), lambda text: float(text.replace(".", ""))),
)
"""How sops reads what is not quoted; the first that matches counts. ``None``: readers differ, so it is refused."""

_COMMENT = re.compile(r"#([^\n\r\x85\u2028\u2029]*)")

_DEEPEST = 100
"""Levels of nesting that are read; the format needs few, and a parser's stack is finite."""


# reading


@attrs.define
class _Open:
    """A mapping or list that is being read."""

    place: Place
    column: int
    last: str | int | None = None


@attrs.define
class _Pending:
    """A comment whose neighbour below has not been read yet."""

    text: str
    column: int
    open: tuple[_Open, ...]
    beside: tuple[Place, str | int | None] | None
    end: int


def from_yaml(text: str) -> tuple[dict[str, Any], tuple[Found, ...]]:
    """Build the one document of a text from the parser's events, and find its comments.

    PyYAML's own composer in C ends the process when a text nests a hundred thousand levels.
    """
    yaml = needed("yaml")
    reader = _Reader(text.removeprefix("\ufeff"))
    events = yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    events = reader.watched(events) if "#" in text else events
    try:
        kinds = [type(next(events)).__name__ for _ in ("stream", "document")]
        tree = reader.value(next(events), events, 0) if kinds[-1] == "DocumentStartEvent" else None
        whole = [type(event).__name__ for event in events] == ["DocumentEndEvent", "StreamEndEvent"]
    except yaml.YAMLError as exc:
        mark = getattr(exc, "problem_mark", None)
        where = f"line {mark.line + 1}" if mark else "it"
    else:
        if isinstance(tree, dict) and whole:
            reader.settle(None, None)
            return tree, tuple(reader.found)
        raise IntegrityError("the text is not one document that is a mapping")
    raise IntegrityError(f"{where} is no YAML")


class _Reader:
    """Builds values from events. PyYAML drops comments: they are what begins with ``#`` between two events."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._read = 0
        self._open: list[_Open] = []
        self._pending: list[_Pending] = []
        self.found: list[Found] = []

    def watched(self, events: Iterator[Any]) -> Iterator[Any]:
        """Pass events on and look between them."""
        for event in events:
            self._look(event.start_mark.index)
            yield event
            self._read = max(self._read, event.end_mark.index)

    def _look(self, end: int) -> None:
        gap = self._text[self._read : end]
        if "#" not in gap:
            return
        for match in _COMMENT.finditer(gap):
            start = self._read + match.start()
            line = self._text.rfind("\n", 0, start) + 1
            line = max(line, self._text.rfind("\r", line, start) + 1)
            alone = not self._text[line:start].strip(" \t")
            owner = self._open[-1] if self._open else None
            beside = None if alone or owner is None else (owner.place, owner.last)
            self._pending.append(_Pending(match[1], start - line, tuple(self._open), beside, self._read + match.end()))

    def settle(self, owner: _Open | None, key: str | int | None, *, item: Any = None) -> None:  # noqa: ANN401  PyYAML's event
        """Say of the comments before a key, or an item, where they may stand: the likeliest place first.

        Which of the mappings that end here a comment belongs to, its column tells; if it is encrypted, its place is
        part of what was encrypted, and only one fits.

        Args:
            item: the event that begins an item. What stands behind the dash of a mapping or list belongs into it.
        """
        inside = len(self._text)
        if self._pending and type(item).__name__ in {"MappingStartEvent", "SequenceStartEvent"}:
            first = self._pending[0].end
            gap = _COMMENT.sub(lambda found: " " * len(found[0]), self._text[first : item.start_mark.index])
            inside = first + gap.rfind("-")
        later = [each for each in self._pending if each.end > inside]
        kept = {id(each) for each in self._open}
        for each in self._pending[: len(self._pending) - len(later)]:
            closed = [(one.place, None) for one in reversed(each.open) if id(one) not in kept]
            fitting = [
                (one.place, None) for one in reversed(each.open) if id(one) not in kept and one.column <= each.column
            ]
            here = [(owner.place, key)] if owner is not None else [((), None)]
            places = dict.fromkeys([*([each.beside] if each.beside else ()), *fitting, *here, *closed])
            self.found.append(Found(each.text, tuple(places)))
        self._pending = later

    def value(self, event: Any, events: Iterator[Any], depth: int, place: Place = ()) -> Any:  # noqa: ANN401  PyYAML's event, and any value
        """Build what begins with an event. Aliases, which can make a small file huge, and repeated keys are refused."""
        line = f"line {event.start_mark.line + 1}"
        if depth > _DEEPEST:
            raise IntegrityError(f"{line} is nested too deeply")
        match type(event).__name__:
            case "ScalarEvent":
                return _scalar(event, line)
            case "SequenceStartEvent":
                return self._sequence(event, events, depth, place)
            case "MappingStartEvent":
                return self._mapping(event, events, depth, place)
        raise IntegrityError(f"{line}: aliases are not read; sops writes none")

    def _sequence(self, start: Any, events: Iterator[Any], depth: int, place: Place) -> list[Any]:  # noqa: ANN401  the same
        items: list[Any] = []
        self._open.append(owner := _Open(place, start.start_mark.column))
        for item in _until("SequenceEndEvent", events):
            owner.last = len(items)
            self.settle(owner, owner.last, item=item)
            items.append(self.value(item, events, depth + 1, (*place, owner.last)))
        self._open.pop()
        return items

    def _mapping(self, start: Any, events: Iterator[Any], depth: int, place: Place) -> dict[str, Any]:  # noqa: ANN401  the same
        tree: dict[str, Any] = {}
        line = f"line {start.start_mark.line + 1}"
        self._open.append(owner := _Open(place, start.start_mark.column))
        for first in _until("MappingEndEvent", events):
            key = self.value(first, events, depth + 1)
            if not isinstance(key, str) or key in tree:
                raise IntegrityError(f"{line}: a key below is not text or occurs twice")
            owner.last = key
            self.settle(owner, key)
            tree[key] = self.value(next(events), events, depth + 1, (*place, key))
        self._open.pop()
        return tree


def _until(end: str, events: Iterator[Any]) -> Iterator[Any]:
    return iter(lambda: None if type(event := next(events)).__name__ == end else event, None)


def _scalar(event: Any, line: str) -> Any:  # noqa: ANN401  PyYAML's event, and any value
    if event.tag not in (None, "!", "tag:yaml.org,2002:str"):
        raise IntegrityError(f"{line}: values of the kind {event.tag} are not read")
    if event.style or event.tag:  # quoted, a block, or said to be text
        return event.value
    found = next((read for pattern, read in _SCALARS if pattern.fullmatch(event.value)), str)
    if found is None:
        raise IntegrityError(f"{line}: readers of YAML differ about this value; quote it")
    return found(event.value)


# writing

_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_./+=@-]*|ENC\[AES256_GCM,[A-Za-z0-9+/=,:_]*\]")
"""What every YAML reader takes for text without quotes, once the words of some readers are excluded."""

_WORDS = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null"})

_ARMOR = re.compile(r"-----BEGIN AGE ENCRYPTED FILE-----\n(?:[A-Za-z0-9+/=]+\n)*-----END AGE ENCRYPTED FILE-----\n?")

_UNSEEN = re.compile(r"[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")
"""What JSON may hold as it is and YAML may not."""

_LONGEST_KEY = 1000
"""A key on one line with its colon has at most 1,024 characters in YAML."""


def to_yaml(tree: dict[str, Any], comments: Sequence[Comment]) -> str:
    """Write a document in blocks, four spaces a level, each comment on a line of its own."""
    writer = _Writer(by_place(tree, comments))
    return "\n".join(writer.mapping(tree, ())) + "\n" if tree else "{}\n"


@attrs.define
class _Writer:
    _comments: dict[tuple[Place, str | int | None], list[str]]

    def mapping(self, node: dict[str, Any], place: Place) -> Iterator[str]:
        for key, value in node.items():
            yield from self._above(place, key)
            name = _text(key)
            start = f"{name}:"
            if len(name) > _LONGEST_KEY:
                yield f"? {name}"
                start = ":"
            yield from self._after(start, value, (*place, key))
        yield from self._above(place, None)

    def sequence(self, node: Sequence[Any], place: Place) -> Iterator[str]:
        for number, value in enumerate(node):
            yield from self._above(place, number)
            here = (*place, number)
            below = self._lines(value, here) if isinstance(value, dict | list | tuple) and value else None
            if below is None:
                yield from self._after("-", value, here)
            elif below[0].startswith("#"):
                yield "-"
                yield from (f"  {line}" for line in below)
            else:
                yield from (f"{'  ' if index else '- '}{line}" for index, line in enumerate(below))
        yield from self._above(place, None)

    def _after(self, start: str, value: Any, place: Place) -> Iterator[str]:  # noqa: ANN401  any value
        if isinstance(value, dict | list | tuple) and value:
            yield start
            yield from (f"    {line}" if line else "" for line in self._lines(value, place))
        elif isinstance(value, str) and _ARMOR.fullmatch(value):
            yield f"{start} |{'' if value.endswith(chr(10)) else '-'}"
            yield from (f"    {line}" for line in value.splitlines())
        else:
            yield f"{start} {_written(value)}"

    def _lines(self, value: Any, place: Place) -> list[str]:  # noqa: ANN401  any value
        return list(self.mapping(value, place) if isinstance(value, dict) else self.sequence(value, place))

    def _above(self, place: Place, before: str | int | None) -> Iterator[str]:
        """Yield the comments there; an empty line after those at an end keeps them from what follows."""
        found = self._comments.get((place, before), ())
        yield from (f"#{text}" for text in found)
        if found and before is None:
            yield ""


def _written(value: Any) -> str:  # noqa: ANN401  any value
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, float) and math.isfinite(value):
        text = repr(value)
        return text if "." in text else text.replace("e", ".0e")  # YAML 1.1 needs the point
    if isinstance(value, dict | list | tuple):
        return "{}" if isinstance(value, dict) else "[]"
    return "null" if value is None else str(value).lower()


def _text(text: str) -> str:
    if _PLAIN.fullmatch(text) and text.lower() not in _WORDS:
        return text
    return _UNSEEN.sub(lambda found: f"\\u{ord(found[0]):04x}", json.dumps(text, ensure_ascii=False))

"""The two texts of a document, YAML and JSON, each read strictly and written so that sops reads the same."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Iterator
from typing import Any, Literal

from shiftable.errors import IntegrityError
from shiftable.sops._age import needed

__all__ = ["Format", "parsed", "rendered"]

Format = Literal["yaml", "json"]

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

_DEEPEST = 100
"""Levels of nesting that are read; the format needs few, and a parser's stack is finite."""

_ONE_LINE = 2**31 - 1

_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_./+=@-]*|ENC\[AES256_GCM,[A-Za-z0-9+/=,:]*\]")
"""What every YAML reader takes for text without quotes, once its reserved words are excluded."""


def parsed(content: bytes, format: Format) -> dict[str, Any]:
    """Read a document; its keys keep their order.

    Raises:
        IntegrityError: says where it is malformed, never what stands there.
    """
    try:
        text = content.decode()
        return _from_json(text) if format == "json" else _from_yaml(text)
    except UnicodeDecodeError:
        why = "it is not UTF-8 text"
    except RecursionError:
        why = "it is nested too deeply"
    raise IntegrityError(why)


def rendered(tree: dict[str, Any], format: Format) -> bytes:
    """Write a document, in the style of sops."""
    if format == "json":
        return (json.dumps(tree, indent="\t", ensure_ascii=False, allow_nan=False) + "\n").encode()
    text = needed("yaml").dump(
        tree, Dumper=_dumper(), sort_keys=False, allow_unicode=True, default_flow_style=False, width=_ONE_LINE, indent=4
    )
    return str(text).encode()


# JSON


def _from_json(text: str) -> dict[str, Any]:
    try:
        tree = json.loads(text, object_pairs_hook=_object, parse_constant=_constant)
    except json.JSONDecodeError as exc:
        where = exc.lineno
    except ValueError:  # a number of thousands of digits
        where = 0
    else:
        if isinstance(tree, dict):
            return tree
        raise IntegrityError("the document is no object")
    raise IntegrityError(f"line {where} is no JSON" if where else "it holds a number that is too long")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    tree = dict(pairs)
    if len(tree) < len(pairs):
        raise IntegrityError("a key occurs twice in one object")
    return tree


def _constant(name: str) -> float:
    raise IntegrityError(f"{name} is no JSON")


# YAML


@functools.cache
def _dumper() -> Any:  # noqa: ANN401  a class made at run time
    yaml = needed("yaml")

    class Dumper(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc]  # C where it is built
        def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002  PyYAML's hook
            return True

    def text(dumper: Any, value: str) -> Any:  # noqa: ANN401  PyYAML's hook
        style = None if _PLAIN.fullmatch(value) else "|" if value.startswith("-----BEGIN AGE") else '"'
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)

    Dumper.add_representer(str, text)
    return Dumper


def _from_yaml(text: str) -> dict[str, Any]:
    """Build the one document of a text from the parser's events.

    PyYAML's own composer in C ends the process when a text nests a hundred thousand levels.
    """
    yaml = needed("yaml")
    events = yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    try:
        kinds = [type(next(events)).__name__ for _ in ("stream", "document")]
        tree = _value(next(events), events, 0) if kinds[-1] == "DocumentStartEvent" else None
        whole = [type(event).__name__ for event in events] == ["DocumentEndEvent", "StreamEndEvent"]
    except yaml.YAMLError as exc:
        mark = getattr(exc, "problem_mark", None)
        where = f"line {mark.line + 1}" if mark else "it"
    else:
        if isinstance(tree, dict) and whole:
            return tree
        raise IntegrityError("the text is not one document that is a mapping")
    raise IntegrityError(f"{where} is no YAML")


def _value(event: Any, events: Iterator[Any], depth: int) -> Any:  # noqa: ANN401  PyYAML's event, and any value
    """Build what begins with an event. Aliases, which can make a small file huge, and repeated keys are refused."""
    line = f"line {event.start_mark.line + 1}"
    if depth > _DEEPEST:
        raise IntegrityError(f"{line} is nested too deeply")
    match type(event).__name__:
        case "ScalarEvent":
            return _scalar(event, line)
        case "SequenceStartEvent":
            return [_value(item, events, depth + 1) for item in _until("SequenceEndEvent", events)]
        case "MappingStartEvent":
            tree: dict[str, Any] = {}
            for first in _until("MappingEndEvent", events):
                key = _value(first, events, depth + 1)
                if not isinstance(key, str) or key in tree:
                    raise IntegrityError(f"{line}: a key below is not text or occurs twice")
                tree[key] = _value(next(events), events, depth + 1)
            return tree
    raise IntegrityError(f"{line}: aliases are not read; sops writes none")


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

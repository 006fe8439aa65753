"""The formats of lines, dotenv and INI: what they hold is text, and the section ``sops`` is flattened into them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from shiftable.errors import IntegrityError, InvalidArgument
from shiftable.sops._comments import Comment, Found, Place, by_place

__all__ = ["flattened", "from_dotenv", "from_ini", "to_dotenv", "to_ini", "unflattened"]

_PREFIX = "sops_"
_STEP = re.compile(r"__(map|list)_")
_MOST_ITEMS = 1000

# dotenv


def from_dotenv(text: str) -> tuple[dict[str, Any], tuple[Found, ...]]:
    r"""Read ``NAME=value`` lines. ``\n`` in a value is a line's end, quotes are part of it, as sops has it."""
    tree: dict[str, Any] = {}
    meta: dict[str, str] = {}
    found: list[Found] = []
    above: list[str] = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line:
            continue
        if line.startswith("#"):
            above.append(line[1:])
            continue
        name, equals, value = line.partition("=")
        if not equals or name in tree or name.removeprefix(_PREFIX) in meta:
            raise IntegrityError(f"line {number} is no NAME=value, or its name occurs twice")
        value = value.replace("\\n", "\n")
        if name.startswith(_PREFIX):
            meta[name.removeprefix(_PREFIX)] = value
        else:
            found += [Found(comment, (((), name),)) for comment in above]
            above.clear()
            tree[name] = value
    found += [Found(comment, (((), None),)) for comment in above]
    return {**tree, **({"sops": unflattened(meta)} if meta else {})}, tuple(found)


def to_dotenv(tree: dict[str, Any], comments: Sequence[Comment]) -> str:
    """Write ``NAME=value`` lines."""
    placed = by_place(tree, comments)
    lines: list[str] = []
    for name, value in tree.items():
        lines += [f"#{comment}" for comment in placed.get(((), name), ())]
        if name == "sops":
            lines += [f"{_PREFIX}{key}={_line(text)}" for key, text in sorted(flattened(value).items())]
            continue
        if not name or name.startswith(("#", _PREFIX)) or re.search(r"[=\n]", name):
            raise InvalidArgument(f"{name!r} is no name that dotenv can hold")
        lines.append(f"{name}={_line(_only_text(value, name))}")
    return "\n".join([*lines, *(f"#{comment}" for comment in placed.get(((), None), ()))]) + "\n"


def _only_text(value: object, place: str) -> str:
    r"""Return a text that comes back as it was: a backslash before an ``n`` would be a line's end."""
    if not isinstance(value, str) or "\\n" in value:
        what = "has a backslash before an n" if isinstance(value, str) else f"is a {type(value).__name__}"
        raise InvalidArgument(f"the value at {place!r} {what}; this format holds text only")
    return value


def _line(text: str) -> str:
    return text.replace("\n", "\\n")


# INI

_SECTION = re.compile(r"\[([^\[\]\"`;#\\\s](?:[^\[\]\"`;#\\\n\r]*[^\[\]\"`;#\\\s])?)\]")
_KEY = re.compile(r"[^\[\]=:\"`;#\\\s](?:[^=:\"`;#\\\n\r]*[^=:\"`;#\\\s])?")
_VALUE = re.compile(r"(?:[^\s\"'`;#\\](?:[^`;#\\\n\r]*[^\s\"'`;#\\])?)?")
_DEFAULT = "DEFAULT"
"""The section of what stands above all sections."""


def from_ini(text: str) -> tuple[dict[str, Any], tuple[Found, ...]]:
    """Read sections of ``key = value`` lines. Quotes, continued lines and comments behind values are refused."""
    tree: dict[str, Any] = {}
    found: list[Found] = []
    above: list[str] = []
    section = _DEFAULT
    lines = enumerate(text.split("\n"), 1)
    for number, raw in lines:
        line = raw.strip()
        if not line:
            continue
        if line[0] in ";#":
            above.append(line[1:].removeprefix(" "))
        elif heading := _SECTION.fullmatch(line):
            section = heading[1]
            if section in tree:
                raise IntegrityError(f"line {number}: the section occurs twice")
            tree[section] = {}
        else:
            key, value = _pair(line, number, lines)
            if key in tree.setdefault(section, {}):
                raise IntegrityError(f"line {number}: the key occurs twice")
            tree[section][key] = value
            found += [Found(comment, (((section,), key),)) for comment in above]
            above.clear()
    found += [Found(comment, (((section,), None),)) for comment in above if section in tree]
    if "sops" in tree:
        tree["sops"] = unflattened({name: value.replace("\\n", "\n") for name, value in tree["sops"].items()})
    return tree, tuple(found)


def _pair(line: str, number: int, lines: Iterator[tuple[int, str]]) -> tuple[str, str]:
    """Read a key and its value, which goes on for some lines where it begins with three quotes."""
    key, equals, value = (part.strip() for part in line.partition("="))
    if value.startswith('"""'):
        value = value[3:]
        while not value.endswith('"""'):
            _, more = next(lines, (0, None))
            if more is None:
                raise IntegrityError(f"line {number}: the value does not end")
            value += f"\n{more.rstrip()}"
        value = value[:-3]
    elif not _VALUE.fullmatch(value.replace("\\n", "")):
        equals = ""
    if not equals or not _KEY.fullmatch(key):
        raise IntegrityError(f"line {number} is no 'key = value' without quotes and comments")
    return key, value


def to_ini(tree: dict[str, Any], comments: Sequence[Comment]) -> str:
    """Write sections of ``key = value`` lines. A comment at the end of a section goes above its last key.

    Readers take what stands above a section's name for a part of that section.
    """
    if _DEFAULT in list(tree)[1:]:
        raise InvalidArgument(f"the section {_DEFAULT} stands above all others in an INI file, so it must be the first")
    return "\n".join(_ini_lines(tree, by_place(tree, comments))) + "\n"


def _ini_lines(tree: dict[str, Any], placed: dict[tuple[Place, str | int | None], list[str]]) -> Iterator[str]:
    for section, values in tree.items():
        if not isinstance(values, dict) or not _SECTION.fullmatch(f"[{section}]"):
            raise InvalidArgument(f"{section!r} is no section of an INI file; it has two levels: sections and keys")
        if section != _DEFAULT:
            yield f"[{section}]"
        if section == "sops":
            yield from (f"{key} = {_line(text)}" for key, text in sorted(flattened(values).items()))
            continue
        above = placed.get(((), section), [])
        for number, (key, value) in enumerate(values.items(), 1):
            above = [*above, *placed.get(((section,), key), [])]
            if number == len(values):
                above += placed.get(((section,), None), [])
            yield from (f"; {comment}" for comment in above)
            above = []
            text = _only_text(value, f"{section}:{key}")
            if not _KEY.fullmatch(key) or not _VALUE.fullmatch(text):
                raise InvalidArgument(f"the key or the value at {section}:{key!r} needs quotes, which are not written")
            yield f"{key} = {text}"
        yield ""


# the section sops as lines


def flattened(meta: dict[str, Any]) -> dict[str, str]:
    """Return nested values as one level: ``age__list_0__map_recipient``."""
    return dict(_flattened("", meta))


def _flattened(name: str, value: Any) -> Iterator[tuple[str, str]]:  # noqa: ANN401  nested
    if isinstance(value, dict):
        for key, below in value.items():
            yield from _flattened(f"{name}__map_{key}" if name else key, below)
    elif isinstance(value, list):
        for number, below in enumerate(value):
            yield from _flattened(f"{name}__list_{number}", below)
    elif value is not None:
        yield name, str(value).lower() if isinstance(value, bool) else str(value)


def unflattened(flat: dict[str, str]) -> dict[str, Any]:
    """Return the nested values of one level of names.

    Raises:
        IntegrityError: two names contradict each other.
    """
    meta: dict[str, Any] = {}
    for name, text in flat.items():
        first, *steps = _STEP.split(name)
        keys: list[str | int] = [first]
        for kind, key in zip(steps[::2], steps[1::2], strict=True):
            if kind == "list" and not (key.isascii() and key.isdigit() and int(key) < _MOST_ITEMS):
                raise IntegrityError("a name in its section 'sops' is none")
            keys.append(int(key) if kind == "list" else key)
        node: Any = meta
        for key in keys[:-1]:
            node = node.setdefault(key, {})
            if not isinstance(node, dict):
                raise IntegrityError("the names in its section 'sops' contradict each other")
        node[keys[-1]] = text
    nested: dict[str, Any] = _listed(meta)
    if isinstance(nested.get("mac_only_encrypted"), str):
        nested["mac_only_encrypted"] = nested["mac_only_encrypted"] == "true"
    return nested


def _listed(node: Any) -> Any:  # noqa: ANN401  nested
    """Turn what has numbers for keys into lists."""
    if not isinstance(node, dict):
        return node
    if node and all(isinstance(key, int) for key in node):
        return [_listed(node[key]) for key in sorted(node)]
    if any(isinstance(key, int) for key in node):
        raise IntegrityError("the names in its section 'sops' contradict each other")
    return {key: _listed(value) for key, value in node.items()}

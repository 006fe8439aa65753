"""The texts of a document, each read strictly and written so that sops reads the same."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import PurePath
from typing import Any, Literal, get_args

from shiftable.errors import IntegrityError
from shiftable.sops._comments import Comment, Found
from shiftable.sops._flat import from_dotenv, from_ini, to_dotenv, to_ini
from shiftable.sops._yaml import from_yaml, to_yaml

__all__ = ["FORMATS", "Format", "format_of", "parsed", "rendered"]

Format = Literal["yaml", "json", "dotenv", "ini", "binary"]
FORMATS: tuple[Format, ...] = get_args(Format)

_SUFFIXES: dict[str, Format] = {".yaml": "yaml", ".yml": "yaml", ".json": "json", ".env": "dotenv", ".ini": "ini"}


def format_of(path: PurePath | str) -> Format:
    """Tell a file's format by its name, as sops does: what it does not know is binary."""
    path = PurePath(path)
    return "dotenv" if path.name == ".env" else _SUFFIXES.get(path.suffix, "binary")


def parsed(content: bytes, format: Format) -> tuple[dict[str, Any], tuple[Found, ...]]:
    """Read a document, whose keys keep their order, and its comments.

    Raises:
        IntegrityError: says where it is malformed, never what stands there.
    """
    try:
        text = content.decode()
        match format:
            case "json" | "binary":
                return _from_json(text, format), ()
            case "yaml":
                return from_yaml(text)
            case "dotenv":
                return from_dotenv(text)
            case "ini":
                return from_ini(text)
    except UnicodeDecodeError:
        why = "it is not UTF-8 text"
    except RecursionError:
        why = "it is nested too deeply"
    raise IntegrityError(why)


def rendered(tree: dict[str, Any], comments: Sequence[Comment], format: Format) -> bytes:
    """Write a document, in the style of sops. JSON has no comments."""
    match format:
        case "yaml":
            text = to_yaml(tree, comments)
        case "dotenv":
            text = to_dotenv(tree, comments)
        case "ini":
            text = to_ini(tree, comments)
        case "json" | "binary":
            text = json.dumps(tree, indent="\t", ensure_ascii=False, allow_nan=False) + "\n"
    return text.encode()


def _from_json(text: str, format: Format) -> dict[str, Any]:
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
    if format == "binary":  # any suffix: it is JSON only once it is encrypted
        raise IntegrityError("it is no SOPS file: it is not encrypted, or not all of it is there")
    raise IntegrityError(f"line {where} is no JSON" if where else "it holds a number that is too long")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    tree = dict(pairs)
    if len(tree) < len(pairs):
        raise IntegrityError("a key occurs twice in one object")
    return tree


def _constant(name: str) -> float:
    raise IntegrityError(f"{name} is no JSON")

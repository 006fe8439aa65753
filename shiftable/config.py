"""From tables of a TOML file to attrs values: exact types, all problems at once, references instead of credentials."""

from __future__ import annotations

import contextlib
import difflib
import functools
import hmac
import json
import os
import re
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn, Protocol, TypeVar, final

import attrs

from shiftable.errors import ConfigError, Problem

if TYPE_CHECKING:
    from cattrs import Converter
    from cattrs.errors import ClassValidationError

__all__ = [
    "BucketReference",
    "Credential",
    "Keeper",
    "Place",
    "as_in_file",
    "default_of",
    "did_you_mean",
    "in_file",
    "line_of",
    "schema",
    "structure",
]

T = TypeVar("T")


class Keeper(Protocol):
    """Keeps the secrets that credentials refer to, by ``label/key``."""

    def pending(self, name: str) -> str | None:
        """Return the value that is stored and not yet current, if there is one."""

    def make(self, name: str, new: Callable[[], str]) -> str:
        """Store a new secret, unless it exists; return the one that exists then."""


@final
class Credential:
    """A credential by reference: read when it is needed, never shown.

    In the file it is ``{ env = "NAME" }``, ``{ file = "path" }`` or ``{ secret = "app/stripe/key" }``; a literal is
    refused there. Code may pass ``Credential.literal(…)``. No attrs class, so that ``attrs.asdict`` of settings does
    not take it apart.
    """

    __slots__ = ("_keeper", "_kind", "_read", "_target")

    def __init__(
        self,
        kind: Literal["env", "file", "secret", "literal"],
        target: str,
        read: Callable[[str], str],
        keeper: Keeper | None = None,
    ) -> None:
        self._kind = kind
        self._target = target
        self._read = read
        self._keeper = keeper

    @classmethod
    def env(cls, name: str) -> Credential:
        """Refer to an environment variable."""
        return cls("env", name, _read_env)

    @classmethod
    def file(cls, path: Path) -> Credential:
        """Refer to a file; one newline at its end does not count."""
        return cls("file", str(path), _read_file)

    @classmethod
    def secret(cls, name: str, read: Callable[[str], str], keeper: Keeper | None = None) -> Credential:
        """Refer to a secret of the application; ``read`` fetches it, and ``keeper`` knows more of it."""
        return cls("secret", name, read, keeper)

    def read_by(self, read: Callable[[str], str], keeper: Keeper | None = None) -> Credential:
        """Return the same reference; a secret that it refers to is fetched by ``read``."""
        return Credential.secret(self._target, read, keeper) if self._kind == "secret" else self

    def mapped(self, convert: Callable[[str], str]) -> Credential:
        """Return the same reference, whose value is what ``convert`` makes of it."""
        read = self._read
        return Credential(self._kind, self._target, lambda target: convert(read(target)))

    @classmethod
    def literal(cls, value: str) -> Credential:
        """Hold a value that code has from elsewhere."""
        return cls("literal", value, str)

    def reveal(self) -> str:
        """Read the credential, now.

        Raises:
            ConfigError: the variable is not set, the file cannot be read.
        """
        return self._read(self._target)

    def pending(self) -> str | None:
        """Read what is about to replace a secret; ``None`` if nothing is, or if it refers to something else."""
        return self._keeper.pending(self._target) if self._keeper is not None else None

    def reveal_or_make(self, new: Callable[[], str]) -> str:
        """Read the credential; where it refers to a secret that does not exist, store a new one first."""
        return self._keeper.make(self._target, new) if self._keeper is not None else self.reveal()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Credential):
            return NotImplemented
        return self._kind == other._kind and hmac.compare_digest(self._target.encode(), other._target.encode())

    def __hash__(self) -> int:
        return hash((self._kind, self._target))

    def __reduce__(self) -> NoReturn:
        raise TypeError("a credential is not pickled")

    def __repr__(self) -> str:
        return "Credential(***)" if self._kind == "literal" else f"Credential({self._kind}={self._target!r})"


@final
class BucketReference:
    """A bucket of the application, for a provider that keeps something in it: opened when it is needed.

    In the file it is ``{ bucket = "LABEL" }``, with ``prefix`` too for what is put there.
    """

    __slots__ = ("_open", "label", "prefix")

    def __init__(self, label: str, open_: Callable[[str], Any], prefix: str = "") -> None:
        self.label = label
        self.prefix = prefix
        self._open = open_

    def open(self) -> Any:  # noqa: ANN401  a shiftable.blob.Bucket, which lies above
        """Return the bucket. Calls nobody."""
        return self._open(self.label)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, BucketReference):
            return NotImplemented
        return (self.label, self.prefix) == (other.label, other.prefix)

    def __hash__(self) -> int:
        return hash((self.label, self.prefix))

    def __repr__(self) -> str:
        return f"BucketReference({self.label!r}, prefix={self.prefix!r})"


def _read_env(name: str) -> str:
    value = os.environ.get(name)
    if not value:
        raise ConfigError(f"the environment variable {name} is not set, and a credential refers to it")
    return value


def _read_file(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").removesuffix("\n")
    except OSError as exc:
        raise ConfigError(f"cannot read the credential file {path}: {exc.strerror}") from exc
    except UnicodeDecodeError:
        raise ConfigError(f"the credential file {path} is not text") from None


@attrs.frozen
class Place:
    """Where a table stands, for messages, and what its references are relative to.

    Args:
        table: its name, ``blob.assets``.
        folder: relative paths are resolved against it.
        secret: reads a secret of the application by ``label/key``.
        text: the file, to find lines in.
        bucket: opens a bucket of the application by its label.
    """

    table: str
    folder: Path = attrs.field(factory=Path.cwd)
    secret: Callable[[str], str] | None = None
    text: str = attrs.field(default="", repr=False)
    bucket: Callable[[str], Any] | None = None

    def problem(self, path: Sequence[str], message: str) -> Problem:
        """Describe what is wrong with one key of the table."""
        keys = [*self.table.split("."), *path] if self.table else [*path]
        place = " ".join(part for part in (f"[{self.table}]" if self.table else "", ".".join(path)) if part)
        return Problem(place, message, line_of(self.text, keys))


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """Return ``; did you mean x?`` for the choice that is near, or else name all choices."""
    known = sorted(choices)
    near = difflib.get_close_matches(word, known, n=1)
    if near:
        return f"; did you mean {near[0]}?"
    return f"; there is: {', '.join(known)}" if known else ""


def structure(cls: type[T], table: Mapping[str, Any], place: Place) -> T:
    """Make an attrs value from a table.

    Types are exact (``"5"`` is no number, ``1`` is no boolean), unknown keys are refused, and attrs validators count.

    Raises:
        ConfigError: with every problem of the table, each with its place.
    """
    from cattrs.errors import BaseValidationError

    try:
        return _converter(place).structure(table, cls)
    except BaseValidationError as exc:
        raise ConfigError(_problems(exc, cls, place, ())) from None
    except _WrongType as exc:
        raise ConfigError([place.problem((), str(exc))]) from None


class _WrongType(ValueError):
    """A value of another type than its field has."""


_KINDS = {str: "text", int: "a whole number", float: "a number", bool: "true or false", datetime: "a date with time"}
_FOUND = {
    bool: "true or false",
    str: "text",
    int: "a whole number",
    float: "a number",
    dict: "a table",
    list: "a list",
    datetime: "a date with time",
    date: "a date",
}


def _wrong(wanted: str, found: object) -> _WrongType:
    return _WrongType(f"must be {wanted}, not {_FOUND.get(type(found), type(found).__name__)}")


def _converter(place: Place) -> Converter:
    from cattrs import Converter

    converter = Converter(forbid_extra_keys=True, detailed_validation=True)
    for kind in _KINDS:
        converter.register_structure_hook(kind, functools.partial(_exact, kind))
    converter.register_structure_hook(Path, lambda value, _: _path(value, place))
    converter.register_structure_hook(timedelta, lambda value, _: _duration(value))
    converter.register_structure_hook(Decimal, lambda value, _: _decimal(value))
    converter.register_structure_hook(Credential, lambda value, _: _credential(value, place))
    converter.register_structure_hook(BucketReference, lambda value, _: _bucket(value, place))
    converter.register_structure_hook_func(_is_literal, _literal)
    converter.register_structure_hook_factory(attrs.has, lambda cls: _class_hook(cls, converter))
    converter.register_structure_hook_func(_has_variants, lambda value, cls: _variant(value, cls, converter))
    converter.register_structure_hook_func(_is_tuple, lambda value, cls: _tuple(value, cls, converter))
    converter.register_structure_hook_func(_is_mapping, lambda value, cls: _mapping(value, cls, converter))
    return converter


def _exact(kind: type[Any], value: Any, _: object = None) -> Any:  # noqa: ANN401  whatever stands in the file
    if type(value) is kind or (kind is float and type(value) is int):
        return value
    raise _wrong(_KINDS[kind], value)


def _is_literal(cls: Any) -> bool:  # noqa: ANN401  any annotation
    return typing.get_origin(cls) is Literal


def _literal(value: object, cls: object) -> object:
    choices = typing.get_args(cls)
    if value not in choices:
        raise _WrongType(f"must be one of {', '.join(map(repr, choices))}")
    return value


def _is_tuple(cls: Any) -> bool:  # noqa: ANN401
    return typing.get_origin(cls) is tuple


def _tuple(value: object, cls: object, converter: Converter) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise _wrong("a list", value)
    return tuple(converter.structure(value, list[typing.get_args(cls)[0]]))  # type: ignore[arg-type,misc]  # of its items


def _is_mapping(cls: Any) -> bool:  # noqa: ANN401
    return typing.get_origin(cls) is Mapping


def _mapping(value: object, cls: object, converter: Converter) -> Mapping[Any, Any]:
    if not isinstance(value, Mapping):
        raise _wrong("a table", value)
    return converter.structure(value, dict[typing.get_args(cls)])  # type: ignore[arg-type,misc]  # of keys and values


def _class_hook(cls: type[Any], converter: Converter) -> Callable[[Any, Any], Any]:
    """Return what reads a class. It is made for the first table: most of what a provider knows stands in no file."""
    from cattrs.errors import ClassValidationError
    from cattrs.gen import make_dict_structure_fn, override

    @functools.cache
    def made() -> Callable[[Mapping[str, Any], Any], Any]:
        overrides = {}
        for field in attrs.fields(cls):
            if field not in in_file(cls):
                overrides[field.name] = override(omit=True)
            elif _key(cls, field.name) != field.name:
                overrides[field.name] = override(rename=_key(cls, field.name))
        return make_dict_structure_fn(cls, converter, **overrides)  # type: ignore[arg-type]  # one for each field

    # A path that is left out lies where it would lie if the default stood in the file: beside the file.
    paths = {
        _key(cls, field.name): str(field.default) for field in attrs.fields(cls) if isinstance(field.default, Path)
    }

    def hook(value: object, _: Any) -> Any:  # noqa: ANN401
        if not isinstance(value, Mapping):
            raise _wrong("a table", value)
        try:
            return made()({**paths, **value}, cls)
        except ClassValidationError as exc:
            raise _of_all_fields(exc, cls, value, converter) from None

    return hook


def _of_all_fields(
    exc: ClassValidationError, cls: type[Any], table: Mapping[str, Any], converter: Converter
) -> ClassValidationError:
    """Return the error with what the validator of each field says: attrs stops at the first one, or before it."""
    from cattrs.errors import AttributeValidationNote, ClassValidationError

    values: dict[str, Any] = {
        field.name: field.default
        for field in attrs.fields(cls)
        if field.default is not attrs.NOTHING and not isinstance(field.default, attrs.Factory)  # type: ignore[arg-type]
    }
    there = [field for field in in_file(cls) if _key(cls, field.name) in table]
    right = []
    for field in there:
        with contextlib.suppress(Exception):  # of these the error tells already
            values[field.name] = converter.structure(table[_key(cls, field.name)], field.type)  # type: ignore[arg-type]
            right.append(field)
    partial: Any = object.__new__(cls)
    for name, value in values.items():
        object.__setattr__(partial, name, value)
    told: list[Exception] = []
    for field in right:
        try:
            if field.validator is not None:
                field.validator(partial, field, values[field.name])
        except AttributeError:  # it asks for another field, which is wrong
            continue
        except ValueError as error:
            error.add_note(AttributeValidationNote(f"{cls.__name__}.{field.name}", field.name, field.type))
            told.append(error)
    texts = {str(error) for error in told}
    before = [error for error in exc.exceptions if str(error) not in texts]
    return ClassValidationError(exc.message, [*before, *told], cls)


# A class with variants of its own stands for them: ``kind`` in the table says which.


def _has_variants(cls: Any) -> bool:  # noqa: ANN401  any annotation
    return isinstance(cls, type) and "variants" in vars(cls)


def _variant(value: object, cls: Any, converter: Converter) -> object:  # noqa: ANN401  a class of that sort
    if not isinstance(value, Mapping):
        raise _wrong("a table", value)
    kind = value.get("kind")
    if not isinstance(kind, str):
        raise _WrongType(f"kind must be text that says which{did_you_mean('', cls.variants())}")
    found = cls.variant(kind)
    rest = {name: each for name, each in value.items() if name != "kind"}
    return converter.structure(rest, found) if isinstance(found, type) else found


# The file has text, numbers, lists and tables; ``connect()`` may also hand over what these become.


def _path(value: object, place: Place) -> Path:
    return value if isinstance(value, Path) else place.folder / Path(_exact(str, value)).expanduser()


def _duration_text(value: timedelta) -> str:
    seconds = int(value.total_seconds())
    number, unit = next(
        (seconds // size, unit) for unit, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)) if not seconds % size
    )
    return f"{number}{unit}"


def _decimal(value: object) -> Decimal:
    return value if isinstance(value, Decimal) else Decimal(str(_exact(float, value)))


_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def _duration(value: object) -> timedelta:
    if isinstance(value, timedelta):
        return value
    match = re.fullmatch(r"(\d+)([smhdw])", value) if isinstance(value, str) else None
    if match is None:
        raise _WrongType('must be a duration such as "90s", "15m", "12h", "30d" or "4w"')
    return timedelta(**{_UNITS[match[2]]: int(match[1])})


def _credential(value: object, place: Place) -> Credential:
    if isinstance(value, Credential):
        return value
    how = '{ env = "NAME" }, { file = "path" } or { secret = "label/key" }'
    if not isinstance(value, Mapping):
        raise _WrongType(f"a credential does not stand in the file; refer to it: {how}")
    match dict(value):
        case {"env": str(name), **rest} if not rest:
            return Credential.env(name)
        case {"file": str(name), **rest} if not rest:
            return Credential.file(place.folder / Path(name).expanduser())
        case {"secret": str(name), **rest} if not rest:
            if place.secret is None:
                raise _WrongType("a secret can be referred to in shiftable.toml only")
            return Credential.secret(name, place.secret)
        case _:
            raise _WrongType(f"must be one of {how}")


def _bucket(value: object, place: Place) -> BucketReference:
    if isinstance(value, BucketReference):
        return value
    if not isinstance(value, Mapping):
        raise _wrong('{ bucket = "LABEL" }', value)
    match dict(value):
        case {"bucket": str(label), **rest} if not rest.keys() - {"prefix"} and isinstance(rest.get("prefix", ""), str):
            if place.bucket is None:
                raise _WrongType("a bucket can be referred to in shiftable.toml only")
            return BucketReference(label, place.bucket, rest.get("prefix", ""))
        case _:
            raise _WrongType('must be { bucket = "LABEL" }, or { bucket = "LABEL", prefix = "…" }')


def _key(cls: type[Any], name: str) -> str:
    """What a field is called in the file: a spec's name is ``bucket`` or ``zone`` there."""
    return str(getattr(cls, "name_key", name)) if name == "name" else name


def in_file(cls: type[Any]) -> tuple[attrs.Attribute[Any], ...]:
    """Return the fields of a class that are keys in the file."""
    return tuple(field for field in attrs.fields(cls) if field.init and field.metadata.get("in_file", True))


_BARE = re.compile(r"[A-Za-z0-9_-]+")


def as_in_file(value: object) -> str:
    """Return a value of a declaration as it stands in the file; ``-`` where nothing would stand.

    >>> as_in_file({"open": True, "from": ("192.0.2.0/24",)})
    '{ open = true, from = ["192.0.2.0/24"] }'
    """
    data = _plain(value)
    if isinstance(data, str | Path):
        return _quoted(str(data))
    if isinstance(data, Mapping):
        pairs = ", ".join(f"{_bare(str(name))} = {as_in_file(each)}" for name, each in data.items())
        return f"{{ {pairs} }}" if pairs else "{}"
    if isinstance(data, list | tuple):
        return f"[{', '.join(map(as_in_file, data))}]"
    if isinstance(data, bool):
        return str(data).lower()
    return "-" if data is None else str(data)


def _plain(value: Any) -> Any:  # noqa: ANN401  of any field
    """Return the text, number, list or table that becomes this value."""
    if isinstance(value, Credential):
        return "***" if value._kind == "literal" else {value._kind: value._target}  # noqa: SLF001
    if isinstance(value, BucketReference):
        return {"bucket": value.label, **({"prefix": value.prefix} if value.prefix else {})}
    if isinstance(value, timedelta):
        return _duration_text(value)
    if isinstance(value, set | frozenset):
        return sorted(value)
    if not attrs.has(type(value)):
        return value
    there = (field for field in in_file(type(value)) if getattr(value, field.name) != default_of(field))
    return {_key(type(value), field.name): getattr(value, field.name) for field in there}


def _quoted(text: str) -> str:
    """Return a string of TOML, with no character in it that a terminal would obey."""
    escaped = json.dumps(text, ensure_ascii=False)
    return "".join(each if each.isprintable() else f"\\U{ord(each):08x}" for each in escaped)


def _bare(name: str) -> str:
    return name if _BARE.fullmatch(name) else _quoted(name)


def default_of(field: attrs.Attribute[Any]) -> object:
    """Return what a field is when nothing is said of it."""
    default: Any = field.default
    return default if not hasattr(default, "factory") or default.takes_self else default.factory()


def _problems(exc: BaseException, cls: Any, place: Place, path: tuple[str, ...]) -> Iterator[Problem]:  # noqa: ANN401
    from cattrs.errors import ClassValidationError, ForbiddenExtraKeysError, IterableValidationError

    match exc:
        case ClassValidationError():
            cls = exc.cl
            inner, rest = exc.group_exceptions()
            for error, note in inner:
                yield from _problems(error, note.type, place, (*path, _key(cls, note.name)))
            for error in rest:
                yield from _problems(error, cls, place, path)
        case IterableValidationError():
            items, rest = exc.group_exceptions()
            for error, item in items:
                yield from _problems(error, item.type, place, (*path, str(item.index)))
            for error in rest:
                yield from _problems(error, cls, place, path)
        case ForbiddenExtraKeysError():
            known = [_key(exc.cl, field.name) for field in in_file(exc.cl)]
            for extra in sorted(exc.extra_fields):
                yield place.problem((*path, extra), f"unknown{did_you_mean(extra, known)}")
        case KeyError():
            yield place.problem(path or (_key(cls, str(exc.args[0])),), "is missing")
        case _:
            name, message = path[-1] if path else "", str(exc)
            alone = message.removeprefix(name).lstrip(": ")  # the place says already which field it is
            yield place.problem(path, alone if message.startswith((f"{name} must ", f"{name}: ")) else message)


_HEADER = re.compile(r"^\s*\[{1,2}\s*(?P<name>[^\]]+?)\s*\]{1,2}\s*(#.*)?$")
_ASSIGNMENT = re.compile(
    r"""^\s*(?P<name>("[^"]*"|'[^']*'|[A-Za-z0-9_-]+)(\s*\.\s*("[^"]*"|'[^']*'|[A-Za-z0-9_-]+))*)\s*="""
)
_NAME_PART = re.compile(r""""([^"]*)"|'([^']*)'|([A-Za-z0-9_-]+)""")


def line_of(text: str, path: Sequence[str]) -> int | None:
    """Find the line (from 1) of a TOML document that sets a key, or the nearest table above it.

    TOML parsers tell no positions. This one knows headers and assignments, which is what configuration consists of;
    a key inside an inline table is found at the line of that table.
    """
    wanted = list(path)
    table: list[str] = []
    best: tuple[int, int | None] = (0, None)
    for number, line in enumerate(text.split("\n"), 1):  # TOML and editors know no other line ends
        header, assignment = _HEADER.match(line), _ASSIGNMENT.match(line)
        if header:
            table = _name_parts(header["name"])
            here = table
        elif assignment:
            here = table + _name_parts(assignment["name"])
        else:
            continue
        if wanted[: len(here)] == here and len(here) > best[0]:
            best = (len(here), number)
    return best[1]


def _name_parts(name: str) -> list[str]:
    return [next(part for part in match.groups() if part is not None) for match in _NAME_PART.finditer(name)]


# The JSON Schema of the file, for editors.

_SCHEMAS: dict[Any, dict[str, Any]] = {
    str: {"type": "string"},
    int: {"type": "integer"},
    float: {"type": "number"},
    bool: {"type": "boolean"},
    Decimal: {"type": "number"},
    Path: {"type": "string", "description": "A path, relative to this file."},
    datetime: {"type": "string", "format": "date-time"},
    timedelta: {"type": "string", "pattern": r"^\d+[smhdw]$"},
    Credential: {
        "description": "A credential by reference; a literal is refused.",
        "oneOf": [
            {
                "type": "object",
                "properties": {kind: {"type": "string"}},
                "required": [kind],
                "additionalProperties": False,
            }
            for kind in ("env", "file", "secret")
        ],
    },
    BucketReference: {
        "description": "A declared bucket, by its label.",
        "type": "object",
        "properties": {"bucket": {"type": "string"}, "prefix": {"type": "string"}},
        "required": ["bucket"],
        "additionalProperties": False,
    },
}


def schema(cls: Any) -> dict[str, Any]:  # noqa: ANN401  any annotation
    """Return the JSON Schema of what ``structure`` takes for a class or another annotation."""
    if cls in _SCHEMAS:
        return dict(_SCHEMAS[cls])
    if attrs.has(cls):
        return _variants_schema(cls) if _has_variants(cls) else _class_schema(cls)
    origin: Any = typing.get_origin(cls)
    args = typing.get_args(cls)
    if origin is Literal:
        return {"enum": list(args)}
    if origin in (typing.Union, types.UnionType):
        options = [schema(arg) for arg in args if arg is not type(None)]
        return options[0] if len(options) == 1 else {"anyOf": options}
    if origin is tuple or (isinstance(origin, type) and issubclass(origin, Sequence)):
        return {"type": "array", "items": schema(args[0])}
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return {"type": "object", "additionalProperties": schema(args[1])}
    raise TypeError(f"no JSON Schema for {cls!r}")


def _class_schema(cls: type[Any]) -> dict[str, Any]:
    hints, about = typing.get_type_hints(cls), _argument_texts(cls)
    properties, required = {}, []
    for field in in_file(cls):
        key = _key(cls, field.name)
        properties[key] = schema(hints[field.name])
        if field.name in about:
            properties[key].setdefault("description", about[field.name])
        if field.default is attrs.NOTHING and not (field.name == "name" and hasattr(cls, "name_key")):
            required.append(key)
        elif isinstance(field.default, str | int | float | bool):
            properties[key]["default"] = field.default
        elif isinstance(field.default, timedelta):
            properties[key]["default"] = _duration_text(field.default)
    result: dict[str, Any] = {"type": "object", "properties": properties, "additionalProperties": False}
    return result | ({"required": required} if required else {})


def _variants_schema(cls: Any) -> dict[str, Any]:  # noqa: ANN401  a class that has variants
    options = []
    for kind, each in sorted(cls.variants().items()):
        found: dict[str, Any] = {"type": "object", "properties": {}} if each is None else _class_schema(each)
        found["properties"] = {"kind": {"const": kind}, **found["properties"]}
        options.append(found | {"required": ["kind", *found.get("required", ())]})
    return {"oneOf": options}


def _argument_texts(cls: type[Any]) -> dict[str, str]:
    """Take the descriptions of the fields from the ``Args:`` of the docstrings, nearest class first."""
    texts: dict[str, str] = {}
    for base in cls.__mro__:
        section = re.search(r"\n\s*(?:Args|Attributes):\n(.*?)(?:\n\s*\n|\Z)", base.__doc__ or "", re.DOTALL)
        if section is None or base.__module__ == "builtins":
            continue
        for match in re.finditer(r"^\s*(\w+): (.*(?:\n(?!\s*\w+: ).*)*)", section[1], re.MULTILINE):
            texts.setdefault(match[1], " ".join(match[2].split()))
    return texts

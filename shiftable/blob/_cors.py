"""Which pages' scripts may use a bucket's URLs: what browsers call cross-origin resource sharing, CORS."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import timedelta
from typing import Any, Literal, get_args

import attrs

__all__ = ["CorsMethod", "CorsRule", "allowing", "cors_rule", "why_no_origin"]

CorsMethod = Literal["DELETE", "GET", "HEAD", "POST", "PUT"]
"""What a script may ask a bucket for."""

_ORIGIN = re.compile(r"([a-z][a-z0-9+.-]*)://(?:[a-z0-9._-]+|\[[0-9a-f:.]+\])(?::([1-9][0-9]{0,4}))?")
_TOKEN = re.compile(r"[!#$%&'+.^_`|~0-9a-z-]+")
_OWN_PORTS = {("http", "80"), ("https", "443")}
_SECOND = timedelta(seconds=1)


def why_no_origin(text: str) -> str | None:
    """Say why a browser would not tell that as a page's origin; ``None`` if it would, and for ``*``, which is any."""
    if text == "*":
        return None
    if "*" in text:
        return f"{text!r} has a wildcard in it; name each origin, or say '*' alone for all"
    found = _ORIGIN.fullmatch(text)
    if found is None:
        return f"{text!r} is no origin, such as https://shop.example: no path, no capitals, as browsers write it"
    if found.groups() in _OWN_PORTS:
        return f"{text!r} is never told by a browser: leave out the port, which is the scheme's own"
    return None


def _unique(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(set(values)))


def _names(values: Iterable[str]) -> tuple[str, ...]:
    """Return names of headers, which are the same in capitals."""
    return _unique(value.lower() for value in values)


def _check_origins(_: object, field: attrs.Attribute[Any], origins: tuple[str, ...]) -> None:
    _check_some(_, field, origins)
    why = next(filter(None, map(why_no_origin, origins)), None)
    if why is not None:
        raise ValueError(f"{field.name}: {why}")
    _check_alone(field, origins)


def _check_some(_: object, field: attrs.Attribute[Any], values: tuple[str, ...]) -> None:
    if not values:
        raise ValueError(f"{field.name}: a CORS rule names at least one")


def _check_alone(field: attrs.Attribute[Any], values: tuple[str, ...]) -> None:
    if "*" in values and len(values) > 1:
        raise ValueError(f"{field.name}: '*' is all of them; leave out the others")


def _check_headers(_: object, field: attrs.Attribute[Any], names: tuple[str, ...]) -> None:
    _check_alone(field, names)
    _check_exposed(_, field, tuple(name for name in names if name != "*"))


def _check_exposed(_: object, field: attrs.Attribute[Any], names: tuple[str, ...]) -> None:
    wrong = next((name for name in names if not _TOKEN.fullmatch(name)), None)
    if wrong is not None:
        raise ValueError(f"{field.name}: {wrong!r} is no name of a header; write each one out, such as content-type")


def _check_age(_: object, field: attrs.Attribute[Any], age: timedelta | None) -> None:
    if age is not None and (age < _SECOND or age % _SECOND):
        raise ValueError(f"{field.name}: must be whole seconds, and at least one")


@attrs.frozen(kw_only=True)
class CorsRule:
    """``[[blob.x.cors]]``: which pages' scripts may use presigned URLs, for what (CORS). The first that fits counts.

    Args:
        origins: of these pages, ``https://shop.example``, as browsers write them. ``*``: of all.
        methods: what the scripts may ask for.
        headers: of requests: what they may send, beside what they always may. ``*``: any.
        exposed: headers of answers: what they may read, beside what they always may, ``etag``.
        max_age: how long a browser need not ask again before such a request; else as long as it likes.
    """

    origins: tuple[str, ...] = attrs.field(converter=_unique, validator=_check_origins)
    methods: tuple[CorsMethod, ...] = attrs.field(
        converter=_unique,
        validator=[_check_some, attrs.validators.deep_iterable(attrs.validators.in_(get_args(CorsMethod)))],
    )
    headers: tuple[str, ...] = attrs.field(default=(), converter=_names, validator=_check_headers)
    exposed: tuple[str, ...] = attrs.field(default=(), converter=_names, validator=_check_exposed)
    max_age: timedelta | None = attrs.field(default=None, validator=_check_age)

    @property
    def seconds(self) -> int | None:
        """``max_age`` as HTTP has it."""
        return int(self.max_age.total_seconds()) if self.max_age is not None else None


def cors_rule(
    origins: Iterable[str], methods: Iterable[str], headers: Iterable[str], exposed: Iterable[str], seconds: int | None
) -> CorsRule | None:
    """Return the declaration of what a provider tells; ``None`` if it says what no declaration can."""
    given: dict[str, Any] = {"origins": origins, "methods": methods, "headers": headers, "exposed": exposed}
    try:
        return CorsRule(**given, max_age=timedelta(seconds=seconds) if seconds is not None else None)
    except ValueError:
        return None


def allowing(rules: Iterable[CorsRule], origin: str, method: str, headers: Iterable[str] = ()) -> CorsRule | None:
    """Return the first rule by which a page's script may send such a request; ``None`` if there is none."""
    sent = set(_names(headers))
    for rule in rules:
        from_there = "*" in rule.origins or origin in rule.origins
        if from_there and method in rule.methods and ("*" in rule.headers or sent <= {*rule.headers}):
            return rule
    return None

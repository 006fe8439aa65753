"""How storage services answer the scripts of pages in browsers (CORS), for doubles."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import attrs

from shiftable.testing.harness import Request

__all__ = ["Letting", "let_in"]


@attrs.frozen(kw_only=True)
class Letting:
    """A rule as a service keeps it; ``*`` in a text is anything."""

    origins: tuple[str, ...]
    methods: tuple[str, ...]
    headers: tuple[str, ...] = ()
    exposed: tuple[str, ...] = ()
    seconds: int | None = None

    def lets(self, origin: str, method: str, headers: Iterable[str]) -> bool:
        """Tell whether a page's script may send such a request."""
        return (
            _fits(self.origins, origin)
            and _fits(self.methods, method)
            and all(_fits(self.headers, name) for name in headers)
        )


def let_in(rules: Iterable[Letting], request: Request) -> Mapping[str, str]:
    """Return the headers without which a browser keeps the answer from the script; none if no rule lets it in."""
    origin, method, asked = request.headers.get("Origin"), request.method, []
    if method == "OPTIONS":
        method = request.headers.get("Access-Control-Request-Method", "")
        named = request.headers.get("Access-Control-Request-Headers", "").lower().split(",")
        asked = [name.strip() for name in named if name.strip()]
    rule = next((rule for rule in rules if origin is not None and rule.lets(origin, method, asked)), None)
    if rule is None or origin is None:
        return {}
    found = {
        "Access-Control-Allow-Origin": "*" if "*" in rule.origins else origin,
        "Access-Control-Expose-Headers": ", ".join(rule.exposed),
        "Vary": "Origin",
    }
    if request.method == "OPTIONS":
        found["Access-Control-Allow-Methods"] = ", ".join(rule.methods)
        found["Access-Control-Allow-Headers"] = ", ".join(asked)
        found["Access-Control-Max-Age"] = str(rule.seconds) if rule.seconds is not None else ""
    return {name: value for name, value in found.items() if value}


def _fits(patterns: Iterable[str], text: str) -> bool:
    joined = (".*".join(map(re.escape, pattern.split("*"))) for pattern in patterns)
    return any(re.fullmatch(pattern, text, re.IGNORECASE) for pattern in joined)

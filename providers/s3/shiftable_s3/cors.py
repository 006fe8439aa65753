"""CORS rules between S3's form and the declared one. Rules that a declaration cannot say are left as they are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from shiftable.blob.driver import CorsRule, cors_rule

__all__ = ["declared", "native"]

Native = Mapping[str, Any]

_KNOWN = frozenset({"ID", "AllowedOrigins", "AllowedMethods", "AllowedHeaders", "ExposeHeaders", "MaxAgeSeconds"})


def declared(rules: Iterable[Native]) -> tuple[CorsRule, ...]:
    """Return the rules that a declaration can say."""
    return tuple(found for rule in rules if (found := _declared(rule)) is not None)


def native(current: Iterable[Native], wanted: Iterable[CorsRule]) -> list[Native]:
    """Return what has to stand in the bucket: what was wanted, then what is there and no declaration can say.

    The first rule that fits counts, so those of others must not come before.
    """
    return [*map(_native, wanted), *(rule for rule in current if _declared(rule) is None)]


def _declared(rule: Native) -> CorsRule | None:
    if rule.keys() - _KNOWN:
        return None
    return cors_rule(
        rule.get("AllowedOrigins", ()),
        rule.get("AllowedMethods", ()),
        rule.get("AllowedHeaders", ()),
        rule.get("ExposeHeaders", ()),
        rule.get("MaxAgeSeconds"),
    )


def _native(rule: CorsRule) -> Native:
    lists = {"AllowedHeaders": rule.headers, "ExposeHeaders": rule.exposed}
    return {
        "AllowedOrigins": list(rule.origins),
        "AllowedMethods": list(rule.methods),
        **{name: list(values) for name, values in lists.items() if values},
        **({"MaxAgeSeconds": rule.seconds} if rule.seconds is not None else {}),
    }

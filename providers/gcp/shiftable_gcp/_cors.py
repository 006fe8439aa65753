"""CORS rules of Cloud Storage, and those of them that a declaration can say.

It has one list of headers, ``responseHeader``: what a page may send is compared with it, and what a page may read is
told by it. So what is declared as one of both becomes both.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import attrs

from shiftable.blob.driver import CorsRule, cors_rule

__all__ = ["declared", "kept", "native"]

_Rule = Mapping[str, Any]

_KNOWN = frozenset({"origin", "method", "responseHeader", "maxAgeSeconds"})


def declared(rules: Iterable[_Rule]) -> tuple[CorsRule, ...]:
    """Return what a declaration would say of a bucket's rules; those that say more are left out."""
    return tuple(found for rule in rules if (found := _declared(rule)) is not None)


def kept(rules: Iterable[CorsRule]) -> tuple[CorsRule, ...]:
    """Return what becomes of declared rules; those for any header are refused."""
    return tuple(
        rule if "*" in rule.headers else attrs.evolve(rule, headers=_both(rule), exposed=_both(rule)) for rule in rules
    )


def native(current: Iterable[_Rule], wanted: Iterable[CorsRule]) -> list[_Rule]:
    """Return the rules that a bucket should have: the wanted ones, then those that no declaration can say.

    The first rule that fits counts, so those of others must not come before.
    """
    return [*map(_native, wanted), *(rule for rule in current if _declared(rule) is None)]


def _both(rule: CorsRule) -> tuple[str, ...]:
    return tuple(sorted({*rule.headers, *rule.exposed}))


def _native(rule: CorsRule) -> _Rule:
    return {
        "origin": list(rule.origins),
        "method": list(rule.methods),
        **({"responseHeader": list(_both(rule))} if _both(rule) else {}),
        **({"maxAgeSeconds": rule.seconds} if rule.seconds is not None else {}),
    }


def _declared(rule: _Rule) -> CorsRule | None:
    if rule.keys() - _KNOWN:
        return None
    headers = rule.get("responseHeader", ())
    # A number that was never set may be told as 0.
    return cors_rule(
        rule.get("origin", ()), rule.get("method", ()), headers, headers, rule.get("maxAgeSeconds") or None
    )

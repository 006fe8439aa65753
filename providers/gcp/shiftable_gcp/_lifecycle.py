"""Lifecycle rules of Cloud Storage, and those of them that a declaration can say."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from shiftable.blob.driver import LifecycleRule

__all__ = ["declared", "native"]

_Rule = Mapping[str, Any]

# One action has one day here: a declared rule becomes up to three.
_DAYS: tuple[tuple[str, str, str, Mapping[str, object]], ...] = (
    # Without isLive older versions would expire by the age of their content, too, and for good.
    ("expire_days", "Delete", "age", {"isLive": True}),
    ("expire_older_days", "Delete", "daysSinceNoncurrentTime", {}),
    ("abort_uploads_days", "AbortIncompleteMultipartUpload", "age", {}),
)


def declared(rules: Iterable[_Rule]) -> Iterator[LifecycleRule]:
    """Yield what a declaration would say of a bucket's rules; those that say more are left out."""
    for rule in rules:
        found = _declared(rule)
        if found is not None:
            yield found


def native(current: Iterable[_Rule], wanted: Iterable[LifecycleRule]) -> list[_Rule]:
    """Return the rules that a bucket should have: the wanted ones, and those that no declaration can say."""
    foreign = [rule for rule in current if _declared(rule) is None]
    return foreign + [made for rule in wanted for made in _natives(rule)]


def _natives(rule: LifecycleRule) -> Iterator[_Rule]:
    prefix = {"matchesPrefix": [rule.prefix]} if rule.prefix else {}
    for field, action, days, more in _DAYS:
        value = getattr(rule, field)
        if value is not None:
            yield {"action": {"type": action}, "condition": {days: value, **more, **prefix}}


def _declared(rule: _Rule) -> LifecycleRule | None:
    condition = dict(rule.get("condition", {}))
    prefixes = condition.pop("matchesPrefix", [""])
    for field, action, days, more in _DAYS:
        value = condition.get(days)
        if (
            len(prefixes) == 1
            and value
            and rule.get("action") == {"type": action}
            and condition == {days: value, **more}
        ):
            return LifecycleRule(prefix=prefixes[0], **{field: value})
    return None

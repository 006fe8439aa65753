"""Lifecycle rules between S3's form and the declared one. Rules that a declaration cannot say are left as they are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from shiftable.blob.driver import LifecycleRule, merged_rules

__all__ = ["declared", "native"]

Native = Mapping[str, Any]

_PREFIX_ONLY = frozenset({"Prefix"})
# What each action may say for a declaration to say the same.
_ACTIONS = {
    "Expiration": frozenset({"Days"}),
    "NoncurrentVersionExpiration": frozenset({"NoncurrentDays"}),
    "AbortIncompleteMultipartUpload": frozenset({"DaysAfterInitiation"}),
}
_FRAME = frozenset({"ID", "Status", "Filter", "Prefix"})


def declared(rules: Iterable[Native]) -> tuple[LifecycleRule, ...]:
    """Return the rules that a declaration can say."""
    return merged_rules(found for rule in rules if (found := _declared(rule)) is not None)


def native(current: Iterable[Native], wanted: Iterable[LifecycleRule]) -> list[Native]:
    """Return what has to stand in the bucket: what was wanted, and of what is there what no declaration can say."""
    return [*(rule for rule in current if _declared(rule) is None), *map(_native, wanted)]


def _declared(rule: Native) -> LifecycleRule | None:
    scope = rule.get("Filter", {})
    if (
        rule.get("Status") != "Enabled"
        or not scope.keys() <= _PREFIX_ONLY
        or not rule.keys() <= _FRAME | _ACTIONS.keys()
    ):
        return None
    if any(rule.get(action, {}).keys() - allowed for action, allowed in _ACTIONS.items()):
        return None
    days = {action: next(iter(rule[action].values()), None) for action in _ACTIONS if action in rule}
    if not any(days.values()):
        return None
    return LifecycleRule(
        prefix=scope.get("Prefix") or rule.get("Prefix") or "",
        expire_days=days.get("Expiration"),
        expire_older_days=days.get("NoncurrentVersionExpiration"),
        abort_uploads_days=days.get("AbortIncompleteMultipartUpload"),
    )


def _native(rule: LifecycleRule) -> Native:
    days = (
        ("Expiration", "Days", rule.expire_days),
        ("NoncurrentVersionExpiration", "NoncurrentDays", rule.expire_older_days),
        ("AbortIncompleteMultipartUpload", "DaysAfterInitiation", rule.abort_uploads_days),
    )
    return {
        "ID": f"shiftable {rule.prefix}"[:255],
        "Status": "Enabled",
        "Filter": {"Prefix": rule.prefix},
        **{action: {unit: number} for action, unit, number in days if number is not None},
    }

"""The lifecycle of a storage account: one policy for all of its containers, which Resource Manager keeps.

Source: Azure Storage, lifecycle management policies; ``managementPolicies`` of Microsoft.Storage.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote

import attrs

from shiftable.blob.driver import LifecycleRule, merged_rules
from shiftable_azure._arm import ArmRefusal, ArmSession

__all__ = ["VERSION", "Lifecycles"]

VERSION = "2026-04-01"

_Rule = Mapping[str, Any]
_DAYS = "daysAfterModificationGreaterThan"
_NO_ACCOUNT = {"ParentResourceNotFound", "ResourceGroupNotFound", "ResourceNotFound", "SubscriptionNotFound"}


@attrs.define(eq=False)
class Lifecycles:
    """Reads and writes the rules of single containers. It is thread-safe.

    The policy has no versions, so what somebody else writes to it in the same moment is lost, or what we write.

    Args:
        account: the storage account, in the resource group of the session.
    """

    _arm: ArmSession
    _account: str
    _lock: threading.Lock = attrs.field(factory=threading.Lock, init=False, repr=False)

    def of(self, container: str) -> tuple[LifecycleRule, ...]:
        """Return the rules of a container that a declaration can say."""
        return merged_rules(found for rule in self._rules() if (found := _declared(rule, container)) is not None)

    def set(self, container: str, wanted: Iterable[LifecycleRule]) -> None:
        """Replace the rules of a container that a declaration can say; all others stay."""
        with self._lock:
            current = self._rules()
            others = [rule for rule in current if _declared(rule, container) is None]
            rules = [*others, *(_native(rule, container) for rule in wanted)]
            if rules == current:
                return
            if rules:
                self._arm.call("PUT", self._path, VERSION, body={"properties": {"policy": {"rules": rules}}})
            else:  # Azure takes no policy without a rule
                self._arm.call("DELETE", self._path, VERSION)

    @property
    def _path(self) -> str:
        account = f"{self._arm.group}/providers/Microsoft.Storage/storageAccounts/{quote(self._account)}"
        return f"{account}/managementPolicies/default"

    def _rules(self) -> list[_Rule]:
        try:
            found = self._arm.call("GET", self._path, VERSION).body
        except ArmRefusal as exc:
            if exc.status_code == 404 and getattr(exc.error, "code", None) not in _NO_ACCOUNT:
                return []  # the account has no policy
            raise
        rules: list[_Rule] = found.get("properties", {}).get("policy", {}).get("rules", [])
        return rules


def _native(rule: LifecycleRule, container: str) -> _Rule:
    prefix = f"{container}/{rule.prefix}"
    return {
        "name": f"shiftable{hashlib.sha256(prefix.encode()).hexdigest()[:32]}",  # letters and digits alone
        "enabled": True,
        "type": "Lifecycle",
        "definition": {
            "filters": {"blobTypes": ["blockBlob"], "prefixMatch": [prefix]},
            "actions": {"baseBlob": {"delete": {_DAYS: rule.expire_days}}},
        },
    }


def _declared(rule: _Rule, container: str) -> LifecycleRule | None:
    """Return what a declaration of that container would say; ``None`` of one that says more, or is of another."""
    definition = rule.get("definition", {})
    filters = {name: value for name, value in definition.get("filters", {}).items() if value}
    days = definition.get("actions", {}).get("baseBlob", {}).get("delete", {}).get(_DAYS)
    prefixes = filters.get("prefixMatch", [])
    if (
        not rule.get("enabled", True)
        or len(prefixes) != 1
        or not prefixes[0].startswith(f"{container}/")
        or not days
        or filters != {"blobTypes": ["blockBlob"], "prefixMatch": prefixes}
        or definition.get("actions") != {"baseBlob": {"delete": {_DAYS: days}}}
    ):
        return None
    return LifecycleRule(prefix=prefixes[0].removeprefix(f"{container}/"), expire_days=int(days))

"""The lifecycle policy of the double's storage account. Nothing expires by it."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

from shiftable.testing.harness import Response
from shiftable_azure._double_arm import ArmAsked, ArmRefusalAnswer, arm_json

__all__ = ["StorageService"]

_RULES = 100
_PREFIXES = 10
_NAME = re.compile(r"[A-Za-z0-9]{1,256}")
_CONTAINER = re.compile(r"[a-z0-9$][a-z0-9-]*(?:/.*)?", re.DOTALL)


class StorageService:
    """Executes requests for the one account.

    What the service answers to a rule that it does not take is an assumption here, but for its status.

    Attributes:
        rules: of the policy; without any, there is no policy.
    """

    namespace = "Microsoft.Storage"
    versions = frozenset({"2026-04-01"})

    def __init__(self, account: str) -> None:
        self._account = account
        self.rules: list[dict[str, Any]] = []

    def reset(self) -> None:
        """Have no policy."""
        self.rules = []

    def operation(self, method: str, parts: tuple[str, ...]) -> tuple[str, str]:
        """Name an operation and the action that it takes."""
        if len(parts) != 4 or parts[2].lower() != "managementpolicies":
            return "", ""
        name = {"GET": "Get", "DELETE": "Delete", "PUT": "CreateOrUpdate"}.get(method, "")
        verb = {"GET": "read", "DELETE": "delete"}.get(method, "write")
        return f"ManagementPolicies_{name}", f"{self.namespace}/storageAccounts/managementPolicies/{verb}"

    def execute(self, asked: ArmAsked) -> Response:
        """Answer a request."""
        kind, account, sub, name = (*asked.parts, "", "", "", "")[:4]
        if kind.lower() != "storageaccounts" or sub.lower() != "managementpolicies" or name != "default":
            raise ArmRefusalAnswer(404, "InvalidResourceType", "The double has policies of storage accounts alone.")
        if account != self._account:
            message = f"The Resource 'Microsoft.Storage/storageAccounts/{account}' was not found."
            raise ArmRefusalAnswer(404, "ResourceNotFound", message)
        if asked.method == "DELETE":
            found, self.rules = self.rules, []
            return arm_json(200 if found else 204, None)
        if asked.method == "PUT":
            self.rules = self._checked(asked.content)
        elif asked.method != "GET":
            raise ArmRefusalAnswer(405, "MethodNotAllowed", f"A policy does not support {asked.method}.")
        if not self.rules:
            message = f"No ManagementPolicy found for account {self._account}"
            raise ArmRefusalAnswer(404, "ManagementPolicyNotFound", message)
        content = {
            "id": asked.url,
            "name": "DefaultManagementPolicy",
            "type": "Microsoft.Storage/storageAccounts/managementPolicies",
            "properties": {"lastModifiedTime": datetime.now(UTC).isoformat(), "policy": {"rules": self.rules}},
        }
        return arm_json(200, content)

    def _checked(self, content: dict[str, Any]) -> list[dict[str, Any]]:
        rules: list[dict[str, Any]] = content.get("properties", {}).get("policy", {}).get("rules", [])
        names = [rule.get("name", "") for rule in rules]
        if not 1 <= len(rules) <= _RULES or len(set(names)) < len(names):
            raise _refused(f"a policy has 1 to {_RULES} rules of different names")
        for rule in rules:
            definition = rule.get("definition", {})
            filters, actions = definition.get("filters", {}), definition.get("actions", {})
            prefixes = filters.get("prefixMatch", [])
            if not _NAME.fullmatch(rule["name"]) or rule.get("type") != "Lifecycle":
                raise _refused("the name or the type of a rule is not valid")
            if not filters.get("blobTypes") or len(prefixes) > _PREFIXES:
                raise _refused("a rule needs blob types, and has ten prefixes at most")
            if not all(_CONTAINER.fullmatch(prefix) for prefix in prefixes):
                raise _refused("a prefix must begin with the name of a container")
            if not any(actions.values()):
                raise _refused("a rule needs an action")
        return rules


def _refused(why: str) -> ArmRefusalAnswer:
    return ArmRefusalAnswer(400, "InvalidRequestPropertyValue", f"The policy is not valid: {why}.")

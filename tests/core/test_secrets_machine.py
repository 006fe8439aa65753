"""The state machine for secrets: the model agrees with itself, and a driver that breaks a rule is found out."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from shiftable.memory.secrets import MemorySecretsDriver, _Entry
from shiftable.secrets import Secret, Secrets, SecretStore
from shiftable.testing.conformance.secrets import secrets_machine

QUICK = settings(max_examples=60, stateful_step_count=25, deadline=None, database=None, derandomize=True)
SEARCH = settings(QUICK, max_examples=500, phases=[Phase.generate], report_multiple_bugs=False)


def store_of(driver: MemorySecretsDriver) -> SecretStore:
    return Secrets(driver).store("machine")


def test_the_model_agrees_with_itself() -> None:
    run_state_machine_as_test(secrets_machine(lambda: store_of(MemorySecretsDriver(page_size=2))), settings=QUICK)


class NeverPrevious(MemorySecretsDriver):
    def put(self, name: str, value: Any, **options: Any) -> Secret:
        found = super().put(name, value, **options)
        self._entries[name].stages.pop("previous", None)
        return found


class PromotesWithoutEndingPending(MemorySecretsDriver):
    def promote(self, name: str, version: str, **options: Any) -> None:
        entry = self._entries.get(name, _Entry())
        pending = entry.stages.get("pending")
        super().promote(name, version, **options)
        if pending:
            entry.stages["pending"] = pending


class IgnoresIfMatch(MemorySecretsDriver):
    def put(self, name: str, value: Any, **options: Any) -> Secret:
        return super().put(name, value, **{**options, "if_match": None})


class ForgetsIdempotency(MemorySecretsDriver):
    def put(self, name: str, value: Any, **options: Any) -> Secret:
        return super().put(name, value, **{**options, "idempotency_key": None})


class RestoresTheDead(MemorySecretsDriver):
    def restore(self, name: str) -> None:
        self._entries.setdefault(name, _Entry())
        super().restore(name)


@pytest.mark.parametrize(
    "broken", [NeverPrevious, PromotesWithoutEndingPending, IgnoresIfMatch, ForgetsIdempotency, RestoresTheDead]
)
def test_a_driver_that_breaks_a_rule_is_found_out(broken: type[MemorySecretsDriver]) -> None:
    with pytest.raises((AssertionError, KeyError)):
        run_state_machine_as_test(secrets_machine(lambda: store_of(broken())), settings=SEARCH)

"""The rules for secrets find a driver that breaks them: each of these breaks one, and one named rule says so."""

from __future__ import annotations

import inspect
import logging
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import attrs
import pytest

from shiftable.errors import AlreadyExists, Conflict, Fault, NotFound, OperationError, PreconditionFailed
from shiftable.masking import Masked
from shiftable.memory._faults import MemoryFault
from shiftable.memory.secrets import MemorySecretsDriver, _Entry
from shiftable.paging import Page
from shiftable.secrets import Secret, SecretInfo, Secrets, SecretStore, SecretVersion
from shiftable.secrets.driver import SecretsDriver
from shiftable.testing.conformance.secrets import TEXTS, SecretsConformance, Untouched


@attrs.define
class Dictionaries:
    driver: MemorySecretsDriver

    def value(self, name: str) -> bytes | None:
        entry = self.driver._entries.get(name)
        return entry.versions[entry.stages["current"]].value.reveal_bytes() if entry and not entry.deleted else None

    def names(self) -> list[str]:
        return [name for name, entry in self.driver._entries.items() if entry.deleted is None]


class StripsText(MemorySecretsDriver):
    def put(self, name: str, value: Masked, **options: Any) -> Secret:
        return super().put(name, Masked(value.reveal_bytes().strip()), **options)


class TranslatesNewlines(MemorySecretsDriver):
    def put(self, name: str, value: Masked, **options: Any) -> Secret:
        return super().put(name, Masked(value.reveal_bytes().replace(b"\r\n", b"\n")), **options)


class Truncates(MemorySecretsDriver):
    def put(self, name: str, value: Masked, **options: Any) -> Secret:
        return super().put(name, Masked(value.reveal_bytes()[:65_535]), **options)


class FoldsCase(MemorySecretsDriver):
    def put(self, name: str, value: Masked, **options: Any) -> Secret:
        return super().put(name.lower(), value, **options)

    def get(self, name: str, **options: Any) -> Secret:
        return super().get(name.lower(), **options)


class SparesSameValues(MemorySecretsDriver):
    def put(self, name: str, value: Masked, **options: Any) -> Secret:
        entry = self._entries.get(name)
        if entry and entry.versions[entry.stages["current"]].value == value:
            return self.get(name, stage="current", version=None)
        return super().put(name, value, **options)


class IgnoresIfAbsent(MemorySecretsDriver):
    def put(self, name: str, value: Masked, **options: Any) -> Secret:
        return super().put(name, value, **{**options, "if_absent": False})


class PromotesOverAnything(MemorySecretsDriver):
    def promote(self, name: str, version: str, **options: Any) -> None:
        super().promote(name, version, **{**options, "if_match": None})


class CallsItExisting(MemorySecretsDriver):
    def classify(self, exc: Exception) -> Fault | None:
        fault = super().classify(exc)
        return attrs.evolve(fault, error=AlreadyExists) if fault and fault.error is PreconditionFailed else fault


class ReadsBeforeItWrites(MemorySecretsDriver):
    def put(self, name: str, value: Masked, **options: Any) -> Secret:
        entry, match = self._entries.get(name), options["if_match"]
        if (options["if_absent"] and entry) or (match and (entry is None or str(entry.revision) != match.value)):
            raise MemoryFault(Fault(PreconditionFailed))
        time.sleep(0.02)  # lets the other writers read too
        return super().put(name, value, **{**options, "if_absent": False, "if_match": None})


class LosesLabels(MemorySecretsDriver):
    def put(self, name: str, value: Masked, **options: Any) -> Secret:
        return super().put(name, value, **{**options, "labels": options["labels"] or {}})


class NeverRemovesLabels(MemorySecretsDriver):
    def put(self, name: str, value: Masked, **options: Any) -> Secret:
        return super().put(name, value, **{**options, "labels": options["labels"] or None})


class LosesExpiry(MemorySecretsDriver):
    def put(self, name: str, value: Masked, **options: Any) -> Secret:
        stored = super().put(name, value, **options)
        self._entries[name].expires = options["expires"]
        return stored


class SharesIdempotencyKeys(MemorySecretsDriver):
    def put(self, name: str, value: Masked, **options: Any) -> Secret:
        for entry in self._entries.values():
            for version in entry.versions.values():
                if version.idempotency_key == options["idempotency_key"] and version.value != value:
                    raise MemoryFault(Fault(Conflict))
        return super().put(name, value, **options)


class LogsValues(MemorySecretsDriver):
    def put(self, name: str, value: Masked, **options: Any) -> Secret:
        logging.getLogger(__name__).debug("put %r", value.reveal_bytes())
        return super().put(name, value, **options)


class EndsAtOnePage(MemorySecretsDriver):
    def list(self, **options: Any) -> Page[SecretInfo]:
        return Page(super().list(**options).items)


class ListsNeighbours(MemorySecretsDriver):
    def list(self, *, prefix: str, **options: Any) -> Page[SecretInfo]:
        return super().list(prefix=prefix.rstrip("/"), **options)


class ListsTheLivingAsDeleted(MemorySecretsDriver):
    def list(self, *, deleted: bool, **options: Any) -> Page[SecretInfo]:
        return super().list(deleted=False, **options)


class OldestFirst(MemorySecretsDriver):
    def history(self, name: str, **options: Any) -> Page[SecretVersion]:
        page = super().history(name, **options)
        return Page(page.items[::-1], page.next)


class KeepsItsToken(MemorySecretsDriver):
    def promote(self, name: str, version: str, **options: Any) -> None:
        before = self._entries[name].revision
        super().promote(name, version, **options)
        self._entries[name].revision = before


class TakesTheTokenFromTheValue(MemorySecretsDriver):
    def _touch(self, entry: _Entry) -> None:
        entry.revision = hash(entry.versions[entry.stages["current"]].value.reveal_bytes())


class DisablesNothing(MemorySecretsDriver):
    def disable(self, name: str, version: str) -> None:
        self._living(name)


class DeletesTheMissing(MemorySecretsDriver):
    def delete(self, name: str, *, recovery: timedelta | None) -> None:
        if name in self._entries:
            super().delete(name, recovery=recovery)


class NeverPurges(MemorySecretsDriver):
    def delete(self, name: str, *, recovery: timedelta | None) -> None:
        if not self._entries[name].deleted:
            super().delete(name, recovery=recovery)


class DestroysWhatIsNotEmpty(MemorySecretsDriver):
    def destroy(self, name: str) -> None:
        """Do not look."""


class BlamesTheParent(MemorySecretsDriver):
    def classify(self, exc: Exception) -> Fault | None:
        fault = super().classify(exc)
        return attrs.evolve(fault, missing="prefix") if fault and fault.error is NotFound else fault


RULES = SecretsConformance
BROKEN: list[tuple[type[MemorySecretsDriver], Callable[..., None]]] = [
    (StripsText, RULES.test_text_is_kept_exactly),
    (TranslatesNewlines, RULES.test_text_is_kept_exactly),
    (Truncates, RULES.test_a_value_of_the_greatest_size_is_kept),
    (FoldsCase, RULES.test_keys_that_differ_only_in_case_are_two_secrets_or_refused),
    (SparesSameValues, RULES.test_the_same_value_again_is_a_new_version),
    (IgnoresIfAbsent, RULES.test_if_absent_writes_once),
    (PromotesOverAnything, RULES.test_a_version_is_promoted_only_over_what_was_seen),
    (CallsItExisting, RULES.test_if_absent_writes_once),
    (ReadsBeforeItWrites, RULES.test_of_many_creators_one_wins),
    (ReadsBeforeItWrites, RULES.test_of_many_writers_over_one_version_one_wins),
    (LosesLabels, RULES.test_labels_are_kept_until_they_are_replaced),
    (NeverRemovesLabels, RULES.test_labels_are_kept_until_they_are_replaced),
    (LosesExpiry, RULES.test_an_expiry_is_kept_until_it_is_replaced),
    (SharesIdempotencyKeys, RULES.test_an_idempotency_key_belongs_to_one_secret),
    (LogsValues, RULES.test_no_value_ever_shows),
    (EndsAtOnePage, RULES.test_a_listing_has_all_pages),
    (ListsNeighbours, RULES.test_a_store_lists_only_what_is_below_its_prefix),
    (ListsTheLivingAsDeleted, RULES.test_a_listing_of_deleted_secrets_tells_when),
    (OldestFirst, RULES.test_a_long_history_has_all_pages_newest_first),
    (KeepsItsToken, RULES.test_every_put_and_promote_makes_a_new_token),
    (TakesTheTokenFromTheValue, RULES.test_every_put_and_promote_makes_a_new_token),
    (DisablesNothing, RULES.test_a_disabled_version_is_not_readable),
    (DeletesTheMissing, RULES.test_what_is_missing_is_not_found),
    (NeverPurges, RULES.test_a_name_in_recovery_is_taken),
    (DestroysWhatIsNotEmpty, RULES.test_a_prefix_is_deleted_only_when_nothing_lives_below_it),
    (BlamesTheParent, RULES.test_what_is_missing_is_not_found),
]


def check(driver: SecretsDriver, rule: Callable[..., None], caplog: pytest.LogCaptureFixture) -> None:
    """Run one rule as pytest would, with every text where it takes one."""
    assert isinstance(driver, MemorySecretsDriver)
    fixtures = {
        "driver": driver,
        "oracle": Dictionaries(driver),
        "store": Secrets(driver).store("conformance"),
        "untouched": SecretStore(Untouched(driver), "conformance"),  # type: ignore[arg-type]  # stands in for a driver
        "caplog": caplog,
    }
    wanted = inspect.signature(rule).parameters
    for text in TEXTS.values() if "text" in wanted else ("",):
        rule(SecretsConformance(), **{name: {**fixtures, "text": text}[name] for name in wanted if name != "self"})


@pytest.mark.parametrize(("broken", "rule"), BROKEN, ids=lambda each: each.__name__.removeprefix("test_"))
def test_a_driver_that_breaks_a_rule_fails_it(
    broken: type[MemorySecretsDriver], rule: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    check(MemorySecretsDriver(page_size=7), rule, caplog)
    caplog.clear()
    with pytest.raises((AssertionError, OperationError, pytest.fail.Exception)):
        check(broken(page_size=7), rule, caplog)

"""The memory driver keeps the rules for secrets, and those that only a clock of one's own can show."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import attrs
import pytest

from shiftable.errors import Conflict, NotFound
from shiftable.features import Limit
from shiftable.memory.secrets import FEATURES, MemorySecretsDriver
from shiftable.secrets import Masked, Secret, Secrets, SecretsFeatures, SecretStore
from shiftable.secrets.driver import SecretsDriver
from shiftable.testing.conformance.secrets import SecretsConformance, SecretsOracle

DAY = timedelta(days=1)


@attrs.define
class Dictionaries:
    """Reads the driver's own dictionaries."""

    driver: MemorySecretsDriver

    def value(self, name: str) -> bytes | None:
        entry = self.driver._entries.get(name)
        if entry is None or entry.deleted is not None:
            return None
        return entry.versions[entry.stages["current"]].value.reveal_bytes()

    def names(self) -> list[str]:
        return [name for name, entry in self.driver._entries.items() if entry.deleted is None]


class TestMemorySecrets(SecretsConformance):
    @pytest.fixture
    def driver(self) -> MemorySecretsDriver:
        return MemorySecretsDriver(page_size=7)

    @pytest.fixture
    def oracle(self, driver: MemorySecretsDriver) -> SecretsOracle:
        return Dictionaries(driver)


class Least(MemorySecretsDriver):
    """A driver that has nothing optional, as its features say."""

    @property
    def features(self) -> SecretsFeatures:
        facts: dict[str, Any] = {name: False for name, _, value in FEATURES.rows() if value is True}
        return attrs.evolve(FEATURES, **facts, max_value=Limit(2_000, "here"), max_labels=None)

    def check_secret(self, name: str) -> str | None:
        if not re.fullmatch(r"[a-z0-9/-]+", name):
            return "a name has lower-case letters, digits, hyphens and slashes"
        return super().check_secret(name)

    def get(self, name: str, **how: Any) -> Secret:
        found = super().get(name, **how)
        return attrs.evolve(found, value=Masked(found.reveal_bytes()))

    def disable(self, name: str, version: str) -> None:
        SecretsDriver.disable(self, name, version)

    def restore(self, name: str) -> None:
        SecretsDriver.restore(self, name)


class TestLeastSecrets(SecretsConformance):
    """The rules hold for a driver that can do little: what it cannot do is refused."""

    @pytest.fixture
    def driver(self) -> MemorySecretsDriver:
        return Least(page_size=7)

    @pytest.fixture
    def oracle(self, driver: MemorySecretsDriver) -> SecretsOracle:
        return Dictionaries(driver)


@attrs.define
class Clock:
    now: datetime = datetime(2030, 1, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(clock: Clock) -> SecretStore:
    return Secrets(MemorySecretsDriver(clock=clock)).store("shop")


def test_a_deleted_secret_can_be_restored_until_its_recovery_is_over(clock: Clock, store: SecretStore) -> None:
    store.put("key", "value")
    store.delete("key", recovery=7 * DAY)
    clock.now += 7 * DAY - timedelta(seconds=1)
    store.restore("key")
    assert store.get("key").reveal() == "value"
    store.delete("key", recovery=7 * DAY)
    clock.now += 7 * DAY
    with pytest.raises(NotFound):
        store.restore("key")
    assert list(store.list(deleted=True)) == []


def test_a_name_is_free_when_its_recovery_is_over(clock: Clock, store: SecretStore) -> None:
    store.put("key", "old", labels={"team": "core"})
    store.delete("key", recovery=DAY)
    with pytest.raises(Conflict, match="restore it"):
        store.put("key", "new")
    clock.now += DAY
    fresh = store.put("key", "new", if_absent=True)
    assert [fresh.version] == [entry.version for entry in store.history("key")]
    assert dict(fresh.labels) == {}


def test_the_listing_of_deleted_secrets_tells_when_they_were_deleted(clock: Clock, store: SecretStore) -> None:
    store.put("key", "value")
    clock.now += DAY
    store.delete("key")
    assert [(info.name, info.deleted) for info in store.list(deleted=True)] == [("key", clock.now)]


def test_times_are_the_clocks(clock: Clock, store: SecretStore) -> None:
    first = store.put("key", "one")
    clock.now += DAY
    store.promote("key", store.put("key", "two", stage="pending").version)
    assert store.get("key", stage="previous").created == first.created == clock.now - DAY
    assert [info.modified for info in store.list()] == [clock.now]


def test_what_was_handed_out_does_not_change(store: SecretStore) -> None:
    labels = {"team": "core"}
    first = store.put("key", "one", labels=labels)
    labels["team"] = "changed by the caller"
    store.put("key", "two", labels={"team": "web"})
    assert dict(first.labels) == {"team": "core"}
    assert first.stages == {"current"}


def test_two_drivers_share_nothing() -> None:
    first, second = (Secrets(MemorySecretsDriver()).store("shop") for _ in range(2))
    first.put("key", "value")
    assert not second.exists("key")

"""Lifecycle rules of containers: one policy of the account holds them all."""

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import attrs
import pytest

from shiftable.blob import BlobStore, Bucket, BucketSpec, LifecycleRule
from shiftable.errors import Conflict, InvalidArgument, NotFound, PermissionDenied, Unsupported
from shiftable.testing.conformance.blob import BlobConformance
from shiftable_azure import AzureProvider, AzureSettings
from shiftable_azure.blob import AzureBlobDriver
from shiftable_azure.double import AzureDouble

LOGS = LifecycleRule(prefix="logs/", expire_days=90)
ALL = LifecycleRule(expire_days=400)


@pytest.fixture
def driver(azure_double: AzureDouble) -> Iterator[AzureBlobDriver]:
    provider = AzureProvider(AzureSettings(**azure_double.config, blob_lifecycle=True))
    made = provider.blob()
    assert isinstance(made, AzureBlobDriver)
    yield made
    provider.close()


@pytest.fixture
def store(driver: AzureBlobDriver) -> BlobStore:
    return BlobStore(driver)


@pytest.fixture
def make_bucket(store: BlobStore) -> Callable[[], Bucket]:
    numbers = itertools.count()
    return lambda: store.create(BucketSpec(name=f"shop-{next(numbers)}"))


def foreign(name: str, **definition: Any) -> dict[str, Any]:
    filters = {"blobTypes": ["blockBlob"], "prefixMatch": ["shop/old/"], **definition.pop("filters", {})}
    actions = definition.pop("actions", {"baseBlob": {"delete": {"daysAfterModificationGreaterThan": 7}}})
    return {"name": name, "type": "Lifecycle", "definition": {"filters": filters, "actions": actions}, **definition}


FOREIGN = (
    foreign("tier", actions={"baseBlob": {"tierToCool": {"daysAfterModificationGreaterThan": 7}}}),
    foreign("access", actions={"baseBlob": {"delete": {"daysAfterLastAccessTimeGreaterThan": 7}}}),
    foreign("versions", actions={"version": {"delete": {"daysAfterCreationGreaterThan": 7}}}),
    foreign("tags", filters={"blobIndexMatch": [{"name": "a", "op": "==", "value": "b"}]}),
    foreign("append", filters={"blobTypes": ["appendBlob"]}),
    foreign("two", filters={"prefixMatch": ["shop/a", "shop/b"]}),
    foreign("whole", filters={"prefixMatch": ["shop"]}),
    foreign("twin", filters={"prefixMatch": ["shop-2/old/"]}),
    foreign("everywhere", filters={"prefixMatch": []}),
    foreign("off", enabled=False),
)


def test_the_rules_of_the_conformance_suite_hold(
    driver: AzureBlobDriver, store: BlobStore, make_bucket: Callable[..., Bucket]
) -> None:
    suite, features = BlobConformance(), driver.features
    suite.test_a_lifecycle_is_declared_told_changed_and_taken_away(store, features, make_bucket)
    suite.test_what_of_a_lifecycle_the_features_deny_is_refused(store, features)
    suite.test_a_change_of_a_bucket_that_changed_meanwhile_is_refused(store, features, make_bucket())


def test_rules_that_say_more_and_those_of_other_containers_stay(azure_double: AzureDouble, store: BlobStore) -> None:
    store.create(BucketSpec(name="shop-2", lifecycle=(LOGS,)))
    azure_double.lifecycles.rules += FOREIGN
    theirs = list(azure_double.lifecycles.rules)
    store.create(BucketSpec(name="shop", lifecycle=(ALL, LOGS)))
    assert store.describe("shop").lifecycle == (ALL, LOGS)
    assert azure_double.lifecycles.rules[: len(theirs)] == theirs
    store.delete("shop")
    assert azure_double.lifecycles.rules == theirs
    assert store.describe("shop-2").lifecycle == (LOGS, LifecycleRule(prefix="old/", expire_days=7))


def test_a_rule_that_others_made_is_told(azure_double: AzureDouble, store: BlobStore) -> None:
    store.create(BucketSpec(name="shop"))
    azure_double.lifecycles.rules.append(foreign("theirs"))
    assert store.describe("shop").lifecycle == (LifecycleRule(prefix="old/", expire_days=7),)
    (change,) = store.diff(BucketSpec(name="shop"))
    store.apply(change)
    assert azure_double.lifecycles.rules == []


def test_a_container_does_not_inherit_the_rules_of_one_that_others_deleted(
    azure_double: AzureDouble, store: BlobStore
) -> None:
    store.create(BucketSpec(name="shop", lifecycle=(ALL,)))
    del azure_double.service.containers["shop"]
    store.create(BucketSpec(name="shop"))
    assert (store.describe("shop").lifecycle, azure_double.lifecycles.rules) == ((), [])


def test_a_container_whose_rules_are_refused_is_not_left_behind(azure_double: AzureDouble, store: BlobStore) -> None:
    azure_double.arm.denied.add("Microsoft.Storage/storageAccounts/managementPolicies/write")
    with pytest.raises(PermissionDenied, match="managementPolicies/write"):
        store.create(BucketSpec(name="shop", lifecycle=(ALL,)))
    assert azure_double.service.containers == {}
    azure_double.arm.denied.add("Microsoft.Storage/storageAccounts/managementPolicies/read")
    with pytest.raises(PermissionDenied, match="managementPolicies/read"):
        store.create(BucketSpec(name="shop"))
    assert azure_double.service.containers == {}


def test_more_rules_than_a_policy_has_change_nothing(azure_double: AzureDouble, store: BlobStore) -> None:
    store.create(BucketSpec(name="shop", lifecycle=(LOGS,)))
    many = tuple(LifecycleRule(prefix=f"{number}/", expire_days=1) for number in range(101))
    (change,) = store.diff(BucketSpec(name="shop", lifecycle=many))
    with pytest.raises(InvalidArgument, match="100 rules"):
        store.apply(change)
    assert store.describe("shop").lifecycle == (LOGS,)


def test_an_account_that_is_not_in_the_resource_group_is_no_account_without_rules(azure_double: AzureDouble) -> None:
    config = {**azure_double.config, "storage_account": "elsewhere", "account_key": None}
    settings = AzureSettings(**config, blob_lifecycle=True)
    provider = AzureProvider(settings)
    driver = provider.blob()
    assert isinstance(driver, AzureBlobDriver)
    assert driver.lifecycles is not None
    with pytest.raises(Exception, match="was not found") as caught:
        driver.lifecycles.of("shop")
    fault = driver.classify(caught.value)
    assert fault is not None
    assert issubclass(fault.error, NotFound)
    provider.close()


def test_what_changed_between_plan_and_apply_is_a_conflict(
    azure_double: AzureDouble, driver: AzureBlobDriver, store: BlobStore
) -> None:
    current = BucketSpec(name="shop")
    store.create(current)
    azure_double.lifecycles.rules.append(foreign("theirs"))
    with pytest.raises(Conflict, match="make a new plan"):
        driver.update(current, attrs.evolve(current, lifecycle=(ALL,)))
    assert [rule["name"] for rule in azure_double.lifecycles.rules] == ["theirs"]


def test_what_the_definitions_do_not_have_is_found(azure_policy_definitions: Any) -> None:
    rule = foreign("theirs")
    assert azure_policy_definitions({"properties": {"policy": {"rules": [rule]}}}, sent=True) == []
    wrong = {**rule, "definition": {**rule["definition"], "filter": {}}}
    (found,) = azure_policy_definitions({"properties": {"policy": {"rules": [wrong]}}}, sent=True)
    assert found.endswith("has no filter")


def test_without_the_setting_there_are_no_rules_and_resource_manager_is_not_asked(azure_double: AzureDouble) -> None:
    with pytest.raises(ValueError, match="blob_lifecycle goes with"):
        AzureSettings(storage_account="shop", blob_lifecycle=True)
    provider = AzureProvider(AzureSettings(**azure_double.config))
    store = BlobStore(provider.blob())
    with pytest.raises(Unsupported, match="lifecycle rules"):
        store.create(BucketSpec(name="shop", lifecycle=(ALL,)))
    store.create(BucketSpec(name="shop"))
    store.delete("shop")
    assert {call.service for call in azure_double.calls} == {"blob"}
    provider.close()

"""Retention and legal holds move between all providers that have them, over their own protocols."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import attrs
import pytest

import shiftable
from shiftable.blob import BlobStore, Bucket, BucketSpec, Lock, Retention
from shiftable.migrate import Migration, Options, Trouble
from shiftable.testing.harness import Double

MIB = 1024 * 1024
SPEC = BucketSpec(name="shop-ledger", versioning=True, object_lock=True)
CLOUDS = ("aws", "gcp", "azure")
SOFT = Retention(until=datetime(2035, 6, 1, 12, tzinfo=UTC))
HARD = Retention(until=datetime(2036, 1, 1, tzinfo=UTC), mode="compliance")
LOCKS = {
    "free": Lock(),
    "hard": Lock(retention=HARD),
    "held": Lock(hold=True),
    "long": Lock(retention=HARD, hold=True),
    "middle": Lock(retention=SOFT),  # large enough for a copy inside one provider
    "soft": Lock(retention=SOFT, hold=True),
}
SIZES = {"long": 9 * MIB, "middle": MIB}


@attrs.frozen
class Declared:
    service: str
    label: str
    spec: BucketSpec


@attrs.define
class World:
    """Two clouds by their names in an application that declares one bucket."""

    clouds: Mapping[str, Any]
    state_dir: Path

    def declared(self) -> tuple[Declared, ...]:
        return (Declared("blob", "ledger", SPEC),)

    def cloud(self, label: str) -> Any:
        return self.clouds[label]

    def store(self, label: str) -> BlobStore:
        found = self.clouds[label].service("blob")
        assert isinstance(found, BlobStore)
        return found

    def migration(self, source: str, target: str, **options: Any) -> Migration:
        return Migration(self, source, target, ("blob",), Options(**options))


@pytest.fixture
def world(shiftable_double: Callable[[str], Double], folder: Path) -> Iterator[World]:
    doubles: dict[str, Any] = {name: shiftable_double(name) for name in CLOUDS}
    doubles["azure"].service.versioning = doubles["azure"].service.immutable = True
    more: Mapping[str, dict[str, Any]] = {"azure": {"blob_versioning": True}}
    clouds = {name: shiftable.connect(name, **doubles[name].config, **more.get(name, {})) for name in CLOUDS}
    again = {f"{name}-2": shiftable.connect(name, **doubles[name].config, **more.get(name, {})) for name in CLOUDS}
    clouds |= again
    clouds["files"] = shiftable.connect("baremetal", root=folder / "files")
    yield World(clouds, folder / ".shiftable")
    for cloud in clouds.values():
        cloud.close()


def filled(bucket: Bucket) -> Bucket:
    for key, lock in LOCKS.items():
        bucket.put(key, b"x" * SIZES.get(key, 5), retain=lock.retention, hold=lock.hold)
    return bucket


def locks(bucket: Bucket) -> dict[str, Lock]:
    return {item.key: bucket.lock_of(item.key) for item in bucket.list()}


@pytest.mark.parametrize(("source", "target"), [*itertools.permutations(CLOUDS, 2)], ids="-".join)
def test_locks_move_between_clouds(world: World, source: str, target: str) -> None:
    filled(world.store(source).create(SPEC))

    report = world.migration(source, target).apply()

    assert report.complete
    assert report.resources[0].losses == ()
    there = world.store(target).bucket(SPEC.name)
    assert locks(there) == LOCKS
    assert {item.key: item.size for item in there.list()} == {key: SIZES.get(key, 5) for key in LOCKS}
    assert world.store(target).describe(SPEC.name) == SPEC
    assert world.migration(source, target).verify().complete


@pytest.mark.parametrize("cloud", CLOUDS)
def test_locks_are_kept_by_copies_inside_a_cloud(world: World, cloud: str) -> None:
    filled(world.store(cloud).create(SPEC))
    elsewhere = "shop-ledger-2"

    report = world.migration(cloud, f"{cloud}-2", names={SPEC.name: elsewhere}).apply()

    assert report.complete
    assert locks(world.store(cloud).bucket(elsewhere)) == LOCKS


@pytest.mark.parametrize("cloud", CLOUDS)
def test_what_is_weaker_on_the_target_is_found_and_locked_again(world: World, cloud: str) -> None:
    source = filled(world.store("aws" if cloud != "aws" else "gcp").create(SPEC))
    there = world.store(cloud).create(SPEC)
    for key, lock in LOCKS.items():
        there.put(key, source.get(key), hold=lock.hold and key != "held")
    there.retain("soft", SOFT.until - timedelta(days=100))

    report = world.migration(source.provider, cloud).apply()

    assert report.complete
    assert locks(there) == LOCKS
    there.release("held")
    there.retain("soft", datetime.now(UTC) + timedelta(days=1), bypass=True)
    named = world.migration(source.provider, cloud).verify().resources[0].named
    assert {each.key: each.trouble for each in named} == {"held": Trouble.DIFFERS, "soft": Trouble.DIFFERS}


def test_files_refuse_locks_unless_their_loss_is_accepted(world: World) -> None:
    filled(world.store("aws").create(attrs.evolve(SPEC)))

    refused = world.migration("aws", "files", degrade={"versioning"}).apply()
    accepted = world.migration("aws", "files", degrade={"versioning", "lock"}).apply()

    assert refused.resources[0].refused == ("the target has no object lock; accept that with degrade 'lock'",)
    assert accepted.complete
    assert len([loss for loss in accepted.resources[0].losses if loss.facet == "lock"]) > 0
    assert {item.key for item in world.store("files").bucket(SPEC.name).list()} == set(LOCKS)

"""What is done for each purpose of a login, with every provider alike: by this its policy is measured."""

from __future__ import annotations

import io
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Protocol

import attrs

from shiftable.blob import BlobStore, BucketSpec, CorsRule, LifecycleRule, Retention
from shiftable.blob.driver import BlobDriver, PutOptions
from shiftable.compute import Compute, FleetSpec
from shiftable.compute.driver import ComputeDriver
from shiftable.database import Databases, DatabaseSpec
from shiftable.database.driver import DatabaseDriver
from shiftable.dns import Dns
from shiftable.dns.driver import DnsDriver, ZoneSpec
from shiftable.secrets import Secrets, SecretsSpec
from shiftable.secrets.driver import SecretsDriver
from shiftable.service import Service, Spec

__all__ = ["SERVER", "WEB", "Buckets", "Machines", "Servers", "Stored", "Work", "Zones"]

MIB = 1024 * 1024
SERVER = DatabaseSpec(name="orders", engine="postgresql", version="16", cpus=2, memory_gib=4, storage_gib=20)
WEB = FleetSpec(name="web", image="debian-12", cpus=2, memory_gib=4)


class Work(Protocol):
    """What one service does for each purpose; ``apply`` leaves the resource, and what comes later finds it."""

    def apply(self) -> object:
        """Make, change, delete and make again what is declared."""

    def plan(self) -> object:
        """Compare it with what there is."""

    def write(self) -> object:
        """Write what it holds, and read."""

    def read(self) -> object:
        """Read what it holds."""


def _made_to_be(service: Service[Spec, object, object], spec: Spec) -> None:  # type: ignore[type-var]
    for change in service.diff(spec):
        service.apply(change)


class Buckets:
    """Objects of one bucket."""

    def __init__(self, driver: BlobDriver, spec: BucketSpec) -> None:
        self._driver = driver
        self._store = BlobStore(driver)
        self._spec = spec
        self._bucket = self._store.bucket(spec.name)

    def apply(self) -> None:
        spec, features = self._spec, self._store.features
        rules = (LifecycleRule(prefix="tmp/", expire_days=7),) if features.lifecycle and not spec.lifecycle else ()
        pages = (
            (CorsRule(origins=("https://shop.example",), methods=("GET",)),) if features.cors and not spec.cors else ()
        )
        for wanted in (spec, attrs.evolve(spec, versioning=features.versioning, lifecycle=rules, cors=pages), spec):
            _made_to_be(self._store, wanted)
        self.plan()
        self._store.delete(spec.name)
        _made_to_be(self._store, spec)

    def plan(self) -> None:
        assert self._store.exists(self._spec.name)
        assert not self._store.diff(self._spec)

    def write(self) -> None:
        bucket = self._bucket
        tags = {"team": "core"} if self._store.features.tag_count else None
        bucket.put("a", b"1", tags=tags)
        bucket.put("a", b"2", tags=tags)
        bucket.put("large", io.BytesIO(bytes(17 * MIB)))
        large = bucket.stat("large")
        bucket.put("large", io.BytesIO(bytes(17 * MIB)), if_match=large.token)
        bucket.copy("a", "b")
        if tags:
            bucket.set_tags("b", {"team": "shop"})
            bucket.set_tags("b", {})
        if self._store.features.uploads:
            self._driver.upload_begin(bucket.name, "left", PutOptions())
            bucket.abort_uploads(older_than=timedelta(0))
        if self._spec.object_lock:
            tomorrow = datetime.now(UTC) + timedelta(days=1)
            kept = bucket.put("kept", b"1", retain=Retention(until=tomorrow), hold=True)
            bucket.release("kept", version=kept.version)
            bucket.retain("kept", tomorrow + timedelta(days=1), version=kept.version)
        if self._spec.versioning:
            for version in list(bucket.versions("b")):
                bucket.delete("b", version=version.version)
        bucket.put("c", b"1")
        bucket.delete("c")
        list(bucket.delete_many(["d", "e"]))
        self.read()

    def read(self) -> None:
        bucket = self._bucket
        assert "a" in [item.key for item in bucket.list()]
        assert bucket.exists("a")
        assert not bucket.exists("missing")
        assert bucket.get("a") == b"2"
        assert bucket.stat("large").size == 17 * MIB
        assert b"".join(bucket.stream("large", start=5, stop=10)) == bytes(5)
        if self._store.features.tag_count:
            bucket.tags("a")
        for version in list(bucket.versions("a")) if self._spec.versioning else ():
            bucket.stat("a", version=version.version)
            bucket.get("a", version=version.version)
            if self._store.features.tag_count:
                bucket.tags("a", version=version.version)
        if self._spec.object_lock:
            bucket.lock_of("a")


class Stored:
    """Secrets below one prefix."""

    def __init__(self, driver: SecretsDriver, spec: SecretsSpec) -> None:
        self._service = Secrets(driver)
        self._spec = spec
        self._store = self._service.open(spec)

    def apply(self) -> None:
        _made_to_be(self._service, self._spec)
        self.plan()

    def plan(self) -> None:
        self._service.exists(self._spec.name)
        assert not self._service.diff(self._spec)

    def write(self) -> None:
        store, features = self._store, self._store.features
        first = store.put("a/key", "one", labels={"team": "core"} if features.labels else None)
        second = store.put("a/key", "two", expires=datetime.now(UTC) + timedelta(days=9))
        if features.labels:
            store.update("a/key", labels={"owner": "core"})
        store.promote("a/key", first.version)
        store.promote("a/key", second.version)
        store.put("a/key", "three", stage="pending")
        if features.recovery:
            store.delete("a/key", recovery=timedelta(days=7))
            store.restore("a/key")
        self.read()
        fourth = store.put("b", "1")
        store.put("b", "2")
        if features.disable:
            store.disable("b", fourth.version)
        if features.destroy:
            store.destroy("b", fourth.version)
        store.delete("b", **({} if features.recovery else {"recovery": None}))
        if features.recovery:
            store.purge("b")

    def read(self) -> None:
        assert self._store.get("a/key").reveal() == "two"
        assert self._store.get("a/key", stage="previous").reveal() == "one"
        assert [info.name for info in self._store.list()] == ["a/key"]
        assert len(list(self._store.history("a/key"))) == 3


class Zones:
    """Records of one zone."""

    def __init__(self, driver: DnsDriver, spec: ZoneSpec) -> None:
        self._service = Dns(driver)
        self._spec = spec
        self._zone = self._service.open(spec)

    def apply(self) -> None:
        _made_to_be(self._service, self._spec)
        self.plan()
        self._service.delete(self._spec.name)
        _made_to_be(self._service, self._spec)

    def plan(self) -> None:
        assert self._service.exists(self._spec.name)
        assert not self._service.diff(self._spec)

    def write(self) -> None:
        self._zone.set("www", "A", ["192.0.2.1"])
        self._zone.set("*", "TXT", ["any"])
        self._zone.delete("*", "TXT")
        assert self._zone.max_record_sets()
        self.read()

    def read(self) -> None:
        found = self._zone.get("www", "A")
        assert found is not None
        assert found.texts == ("192.0.2.1",)
        assert len(list(self._zone.records())) == 3
        assert self._zone.info().nameservers


class Servers:
    """One database server."""

    def __init__(self, driver: DatabaseDriver, spec: DatabaseSpec, sleep: Callable[[float], None]) -> None:
        self._service = Databases(driver, sleep=sleep)
        self._spec = spec

    def apply(self) -> None:
        declared, other = self._spec, attrs.evolve(self._spec, deletion_protection=False, backup_days=1)
        server = self._service.create(other)
        server.wait()
        server.wait_snapshot(server.snapshot("before").name)
        if self._service.features.restart:
            server.restart()
            server.wait()
        server.stop()
        server.wait("stopped")
        server.start()
        server.wait()
        copy = server.restore(f"{declared.name}-2", snapshot="before")
        copy.wait()
        self._service.delete(copy.name, final_snapshot=False)
        copy.wait_deleted()
        server.delete_snapshot("before")
        _made_to_be(self._service, declared)
        server.wait()
        self.plan()

    def plan(self) -> None:
        assert self._service.exists(self._spec.name)
        assert not self._service.diff(self._spec)
        assert self._service.size(self._spec)

    def write(self) -> None:
        self.read()

    def read(self) -> None:
        found = self._service.open(self._spec)
        assert found.url().host
        assert found.password(fresh=True).reveal()


class Machines:
    """One fleet."""

    def __init__(self, driver: ComputeDriver, spec: FleetSpec, sleep: Callable[[float], None]) -> None:
        self._service = Compute(driver, sleep=sleep)
        self._spec = spec

    def apply(self) -> None:
        self._service.create(attrs.evolve(self._spec, open_ports=(80,), labels={"team": "core"})).wait()
        _made_to_be(self._service, self._spec)
        self._service.get(self._spec.name).wait()
        self.plan()
        self._service.delete(self._spec.name)
        self._service.create(self._spec).wait()

    def plan(self) -> None:
        assert self._service.exists(self._spec.name)
        assert not self._service.diff(self._spec)

    def write(self) -> None:
        (machine,) = self._service.get(self._spec.name).machines()
        machine.reboot()
        machine.wait()
        machine.stop()
        machine.wait("stopped")
        machine.start()
        machine.wait()
        self.read()

    def read(self) -> None:
        (machine,) = self._service.get(self._spec.name).machines()
        machine.console()

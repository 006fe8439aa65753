"""What users write, and the types that they get. Checked by mypy and pyright, never run."""

import logging
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import ClassVar, assert_type

import attrs
import sqlalchemy

import shiftable
from shiftable.app import App
from shiftable.blob import (
    BlobStore,
    Bucket,
    CommonPrefix,
    ObjectInfo,
    ObjectStream,
    ObjectSummary,
    SignedURL,
    SyncStep,
    sync,
)
from shiftable.compute import (
    Choice,
    Completed,
    Compute,
    Debris,
    Disk,
    DiskSnapshot,
    Fleet,
    FleetSpec,
    Image,
    Machine,
    MachineInfo,
    Rule,
    cloud_init,
)
from shiftable.config import Credential
from shiftable.database import (
    Connection,
    Database,
    DatabaseInfo,
    Databases,
    DatabaseSpec,
    DatabaseUrl,
    SizeChoice,
    Snapshot,
)
from shiftable.errors import OperationError, Throttled
from shiftable.masking import Masked
from shiftable.migrate import Migration, Plan, Report
from shiftable.rotation import Rotation, Step, rotations
from shiftable.secrets import (
    RedactingFilter,
    Redactor,
    Secret,
    SecretInfo,
    Secrets,
    SecretStore,
    SecretVersion,
    SecretWatch,
)
from shiftable.secrets.rotator import Rotator
from shiftable.service import Change


def application() -> None:
    app = shiftable.load()
    assert_type(app, shiftable.App)
    assert_type(shiftable.load("shiftable.toml", environment="production"), shiftable.App)
    assert_type(app.blob("assets"), Bucket)
    assert_type(app.secrets("app"), SecretStore)
    assert_type(app.dns("shop"), shiftable.Zone)
    assert_type(app.database("orders"), shiftable.Database)
    assert_type(app.compute("web"), shiftable.Fleet)
    assert_type(app.cloud("frankfurt"), shiftable.Cloud)


def clouds() -> None:
    with shiftable.connect("aws", region="eu-central-1") as cloud:
        assert_type(cloud, shiftable.Cloud)
        assert_type(cloud.blob, BlobStore)
        assert_type(cloud.secrets, Secrets)
        assert_type(cloud.blob.bucket("x"), Bucket)
        assert_type(cloud.blob.create(shiftable.BucketSpec(name="x", versioning=True)), Bucket)
        assert_type(cloud.blob.list(), Iterator[Bucket])


def databases(service: Databases, database: Database) -> None:
    spec = DatabaseSpec(name="a", engine="postgresql", version="16", cpus=2, memory_gib=8, storage_gib=50)
    assert_type(service.create(spec), Database)
    assert_type(service.size(spec), SizeChoice | None)
    assert_type(service.snapshots(), Iterator[Snapshot])
    assert_type(database.wait(timeout=timedelta(minutes=5), on_info=lambda info: info.state), DatabaseInfo)
    assert_type(database.url(), DatabaseUrl)
    assert_type(database.url("shop").sqlalchemy(), sqlalchemy.URL)
    assert_type(database.engine("shop", pool_size=10), sqlalchemy.Engine)
    assert_type(database.connect(), Connection)
    assert_type(database.password(), Masked)
    assert_type(database.resize(cpus=4), DatabaseSpec)
    assert_type(database.restore("copy", snapshot="first"), Database)


def machines(compute: Compute, fleet: Fleet) -> None:
    rules = (Rule(port=22, allow_from=("192.0.2.0/24",)), Rule(port=53, last_port=54, protocol="udp"))
    spec = FleetSpec(name="web", image="debian-12", cpus=2, memory_gib=4, rules=rules, zones=("a", "b"))
    assert_type(compute.create(spec), Fleet)
    assert_type(compute.choose(spec), Choice)
    assert_type(compute.choose(spec).monthly, Decimal | None)
    assert_type(compute.diff(spec), tuple[Change[FleetSpec], ...])
    assert_type(compute.machines(limit=10), Iterator[Machine])
    assert_type(compute.create_disk("data", 10, zone="a", snapshot="s"), Disk)
    assert_type(compute.snapshot_disk("d", "daily"), DiskSnapshot)
    assert_type(compute.sweep(older_than=timedelta(hours=2)), tuple[Debris, ...])
    assert_type(fleet.wait(timeout=timedelta(minutes=5)), tuple[MachineInfo, ...])
    assert_type(fleet.run(["ls", "-l"]), dict[str, Completed])
    machine = fleet.machine("web-0")
    assert_type(machine.snapshot("golden"), Image)
    assert_type(machine.attach("d").device, str | None)
    assert_type(machine.ssh_command(["ls"], options=["ForwardAgent=no"]), tuple[str, ...])
    assert_type(cloud_init(spec, "web-0", b"#!/bin/sh\n"), bytes)


def blobs(bucket: Bucket) -> None:
    info = bucket.put("a", b"1", content_type="text/plain", metadata={"a": "b"}, if_absent=True)
    assert_type(info, ObjectInfo)
    assert_type(bucket.put("a", Path("x"), if_match=info.token), ObjectInfo)
    assert_type(bucket.get("a", start=1, stop=2), bytes)
    assert_type(bucket.exists("a"), bool)
    assert_type(bucket.list("x/", limit=10), Iterator[ObjectSummary])
    assert_type(bucket.list_folder("x/"), Iterator[ObjectSummary | CommonPrefix])
    assert_type(bucket.delete_many(["a", "b"]), dict[str, OperationError])
    assert_type(bucket.sign("a", expires=timedelta(minutes=5)), SignedURL)
    with bucket.stream("a") as stream:
        assert_type(stream, ObjectStream)
        for chunk in stream:
            assert_type(chunk, bytes)
    assert_type(sync(Path("here"), (bucket, "prefix/"), delete=True), Iterator[SyncStep])


def secrets(store: SecretStore) -> None:
    secret = store.put("stripe/key", Masked("x"), if_absent=True)
    assert_type(secret, Secret)
    assert_type(store.get("stripe/key", stage="previous").reveal(), str)
    assert_type(secret.reveal_bytes(), bytes)
    assert_type(store.list(), Iterator[SecretInfo])
    assert_type(store.history("stripe/key"), Iterator[SecretVersion])
    store.update("stripe/key", labels={"team": "core"}, expires="never", if_match=secret.token)


def new_secrets(store: SecretStore) -> None:
    cache = store.cached(ttl=timedelta(minutes=5))
    assert_type(cache.get("db/password"), Secret)

    @cache.retrying("db/password", on=OSError)
    def connect(secret: Secret, database: str, *, port: int = 5432) -> bytes:
        return f"{secret.reveal()}@{database}:{port}".encode()

    @cache.retrying("db/password", on=lambda error: "28P01" in str(error), pending=False)
    async def connect_later(secret: Secret, database: str) -> bytes:
        return connect(database)

    async def used() -> None:
        assert_type(await connect_later("orders"), bytes)

    assert_type(connect("orders", port=5433), bytes)
    for attempt in cache.retrying("db/password", on=(OSError, ValueError)):
        with attempt as secret:
            assert_type(secret, Secret)
    for changed in store.watch("db/password", "tls/key", every=timedelta(seconds=30)):
        assert_type(changed, Secret)
    assert_type(store.watch("db/password").start(lambda secret: secret.version), SecretWatch)


@attrs.frozen(kw_only=True)
class StripeKey(Rotator):
    kind: ClassVar[str] = "stripe-key"

    admin: Credential

    def create(self, current: Masked | None) -> Masked:
        return current or Masked(self.admin.reveal())

    def retire(self, old: Masked, current: Masked, confirm: Callable[[], object]) -> None:
        confirm()


def rotation(app: App, store: SecretStore) -> None:
    for label, each in rotations(app, "app"):
        assert_type(label, str)
        assert_type(each.status().retire_at, datetime | None)
        assert_type(each.run(now=True).steps, tuple[Step, ...])
    rotator = StripeKey(admin=Credential.env("STRIPE_ADMIN"), every=timedelta(days=30))
    Rotation(store, "stripe/key", rotator).run(on_step=lambda step: assert_type(step, Step))


def redaction(store: SecretStore) -> None:
    redactor = Redactor()
    assert_type(store.observed(redactor.add), SecretStore)
    assert_type(redactor.mask("text"), str)
    assert_type(redactor.mask_bytes(b"text"), bytes)
    assert_type(redactor.pieces([b"text"]), Iterator[bytes])
    logging.getLogger().handlers[0].addFilter(RedactingFilter(redactor))


def moves(app: shiftable.App) -> None:
    migration = Migration(app, "frankfurt", "local", ("blob.assets",))
    assert_type(migration.plan(), Plan)
    assert_type(migration.apply(), Report)


def errors(error: Throttled) -> None:
    assert_type(error.retry_after, float | None)
    assert_type(error.retryable, bool)

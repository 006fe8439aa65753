"""The rules for database drivers.

Subclass ``DatabaseConformance`` and override its fixtures ``driver`` and, where time can be made to pass, ``sleep``.
``database_machine`` makes a state machine.
"""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

import attrs
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from shiftable.config import Credential
from shiftable.database import STATES, Database, Databases, DatabaseSpec, DatabaseState
from shiftable.database.driver import DatabaseDriver
from shiftable.errors import (
    AlreadyExists,
    Conflict,
    InvalidArgument,
    NotFound,
    OperationError,
    Unsupported,
)
from shiftable.service import Change
from shiftable.testing.conformance import Conformance

__all__ = ["DatabaseConformance", "DatabaseMachine", "database_machine", "small_spec"]

CANARY = "c4n4ry-P#ss?w:rd%+"  # no / @ " or space, and ASCII: Amazon RDS takes no other (CreateDBInstance)

Sleep = Callable[[float], None]


def small_spec(name: str, *, password: str = CANARY) -> DatabaseSpec:
    """Return a declaration that every provider can carry out."""
    return DatabaseSpec(
        name=name,
        engine="postgresql",
        version="16",
        cpus=2,
        memory_gib=8,
        storage_gib=20,
        deletion_protection=False,
        databases=("shop",),
        password=Credential.literal(password),
    )


DECLARED: Mapping[str, Mapping[str, Any]] = {
    "allow_from": {"public": True, "allow_from": ("192.0.2.0/24",)},
    "deletion_protection": {"deletion_protection": True},
    "high_availability": {"high_availability": True},
    "labels": {"labels": {"team": "shop"}},
    "optional_tls": {"tls": "optional"},
    "parameters": {"parameters": {"work_mem": "8192"}},
    "public": {"public": True},
    "token_login": {"token_login": True},
}
"""What a declaration may say, by the feature that it needs."""


class DatabaseConformance(Conformance):
    """What holds for every database driver.

    Attributes:
        many: servers, and snapshots of one server, of the tests that page.
    """

    many: ClassVar[int] = 150

    @pytest.fixture
    def driver(self) -> DatabaseDriver:
        """Return the driver under test."""
        raise TypeError("override the fixture `driver`")

    @pytest.fixture
    def sleep(self) -> Sleep:
        """Return what lets time pass for the driver under test."""
        return time.sleep

    @pytest.fixture
    def databases(self, driver: DatabaseDriver, sleep: Sleep) -> Iterator[Databases]:
        """Return the service, and delete all servers afterwards."""
        service = Databases(driver, sleep=sleep)
        yield service
        for database in list(service.list()):
            _delete(service, database.name)

    @pytest.fixture
    def database(self, databases: Databases) -> Database:
        """Return an available server."""
        database = databases.create(small_spec("conf"))
        database.wait()
        return database

    # creating

    def test_a_new_server_becomes_available(self, databases: Databases) -> None:
        database = databases.create(small_spec("conf"))
        assert database.info().state in {"creating", "available"}
        info = database.wait()
        assert (info.name, info.state, info.engine) == ("conf", "available", small_spec("conf").engine)
        assert info.version.split(".")[0] == small_spec("conf").version
        assert info.server is not None
        assert info.server.admin == "shiftadmin"

    def test_a_declared_server_is_made_and_then_nothing_differs(self, databases: Databases) -> None:
        spec = small_spec("conf")
        (change,) = databases.diff(spec)
        assert change.action == "create"
        databases.apply(change)
        databases.open(spec).wait()
        databases.apply(change)
        assert databases.diff(spec) == ()
        held = databases.describe("conf")
        assert (held.cpus, held.memory_gib, held.storage_gib) >= (spec.cpus, spec.memory_gib, spec.storage_gib)
        assert (held.engine, held.high_availability, held.databases) == (spec.engine, False, ("shop",))

    @pytest.mark.usefixtures("database")
    def test_a_name_is_taken_once(self, databases: Databases) -> None:
        with pytest.raises(AlreadyExists):
            databases.create(small_spec("conf"))

    @pytest.mark.parametrize("name", ["", "Upper", "a_b", "1a", "a--b", "a-", "x" * 300])
    def test_an_impossible_name_is_refused(self, databases: Databases, name: str) -> None:
        with pytest.raises(InvalidArgument):
            databases.create(small_spec(name))
        with pytest.raises(InvalidArgument):
            databases.database(name)

    def test_what_the_provider_does_not_have_is_refused_before_it_is_sent(self, databases: Databases) -> None:
        has, plain = databases.features, small_spec("conf")
        needs = {
            "high_availability": attrs.evolve(plain, high_availability=True),
            "public": attrs.evolve(plain, public=True),
            "allow_from": attrs.evolve(plain, allow_from=("192.0.2.0/24",)),
            "parameters": attrs.evolve(plain, parameters={"work_mem": "8MB"}),
            "labels": attrs.evolve(plain, labels={"team": "shop"}),
            "managed_password": attrs.evolve(plain, password=None),
            "token_login": attrs.evolve(plain, token_login=True),
            "optional_tls": attrs.evolve(plain, tls="optional"),
        }
        for feature, spec in needs.items():
            assert bool(databases.missing_features(spec)) is not getattr(has, feature), feature
        lacking = [spec for spec in needs.values() if databases.missing_features(spec)]
        for spec in (*lacking, attrs.evolve(plain, version="1")):
            if databases.missing_features(spec):
                with pytest.raises(Unsupported):
                    databases.create(spec)
        assert not databases.exists("conf")

    @pytest.mark.parametrize("feature", sorted(DECLARED))
    def test_what_is_declared_is_held(self, databases: Databases, feature: str) -> None:
        if not getattr(databases.features, feature):
            pytest.skip("the provider does not have it, and refuses it")
        spec = attrs.evolve(small_spec("conf"), **DECLARED[feature])
        databases.create(spec).wait()
        held = databases.describe("conf")
        for field, value in DECLARED[feature].items():
            found = getattr(held, field)
            if isinstance(value, dict):
                found = {name: found[name] for name in value}
            assert found == value, field
        assert databases.diff(spec) == ()

    @pytest.mark.parametrize("feature", sorted(DECLARED))
    def test_what_is_declared_later_is_made_so(self, databases: Databases, database: Database, feature: str) -> None:
        if not getattr(databases.features, feature):
            pytest.skip("the provider does not have it, and refuses it")
        spec = attrs.evolve(small_spec("conf"), **DECLARED[feature])
        (change,) = databases.diff(spec)
        assert {field.name for field in change.fields} == set(DECLARED[feature])
        databases.apply(change)
        database.wait()
        assert databases.diff(spec) == ()

    def test_a_size_is_chosen_and_says_why(self, databases: Databases) -> None:
        spec = small_spec("conf")
        choice = databases.size(spec)
        assert (choice is not None) is databases.features.sizes
        if choice is None:
            return
        assert choice.size.cpus >= spec.cpus
        assert choice.size.memory >= spec.memory_gib * 2**30
        assert choice.reason
        assert databases.create(spec).wait().size == choice.size.name
        larger = databases.size(attrs.evolve(spec, cpus=choice.size.cpus + 1))
        assert larger is not None
        assert larger.size.cpus > choice.size.cpus
        for impossible in (
            attrs.evolve(spec, name="huge", cpus=100_000),
            attrs.evolve(spec, name="huge", memory_gib=10**7),
        ):
            with pytest.raises(InvalidArgument, match=r"large|size|most|limit"):
                databases.size(impossible)

    # a missing server

    def test_a_missing_server_is_missing_everywhere(self, databases: Databases) -> None:
        missing = databases.database("missing")
        has = databases.features
        calls: list[Callable[[], object]] = [
            missing.info,
            missing.url,
            missing.password,
            missing.wait,
            lambda: missing.resize(cpus=4),
            lambda: missing.protect(on=True),
            lambda: databases.get("missing"),
            lambda: databases.describe("missing"),
            lambda: databases.delete("missing"),
        ]
        if has.stop:
            calls += [missing.start, missing.stop]
        if has.restart:
            calls += [missing.restart]
        if has.set_password:
            calls += [lambda: missing.set_password(CANARY)]
        if has.snapshots:
            calls += [
                missing.snapshot,
                lambda: missing.delete_snapshot("x"),
                lambda: missing.restore("other", snapshot="x"),
                lambda: missing.restore(small_spec("other"), snapshot="x"),
            ]
        for call in calls:
            with pytest.raises(NotFound):
                call()
        assert not databases.exists("missing")
        missing.wait_deleted()

    # states

    def test_a_server_is_stopped_and_started(self, database: Database) -> None:
        if not database.features.stop:
            for call in (database.start, database.stop):
                with pytest.raises(Unsupported):
                    call()
            return
        database.stop()
        assert database.info().state in {"stopping", "stopped"}
        assert database.wait("stopped").state == "stopped"
        database.start()
        assert database.wait().state == "available"

    def test_stop_and_start_are_idempotent(self, database: Database) -> None:
        if not database.features.stop:
            pytest.skip("servers of this provider cannot be stopped")
        database.start()
        assert database.info().state == "available"
        database.stop()
        database.stop()
        database.wait("stopped")
        database.stop()
        assert database.info().state == "stopped"

    def test_a_server_is_restarted(self, database: Database) -> None:
        if not database.features.restart:
            with pytest.raises(Unsupported):
                database.restart()
            return
        database.restart()
        assert database.wait().state == "available"
        if database.features.stop:
            database.stop()
            database.wait("stopped")
            with pytest.raises(Conflict):
                database.restart()

    def test_what_the_state_forbids_is_a_conflict(self, databases: Databases) -> None:
        database = databases.create(small_spec("conf"))
        if database.info().state == "creating" and database.features.stop:
            with pytest.raises(Conflict):
                database.stop()
            with pytest.raises(Conflict):
                database.resize(storage_gib=40)
        assert database.wait().state == "available"

    # changing

    def test_a_server_grows(self, databases: Databases, database: Database) -> None:
        became = database.resize(cpus=4, memory_gib=16, storage_gib=40)
        database.wait()
        assert databases.describe("conf") == became
        assert (became.cpus, became.memory_gib, became.storage_gib) >= (4, 16, 40)

    def test_storage_does_not_shrink(self, databases: Databases, database: Database) -> None:
        database.resize(storage_gib=40)  # some providers have storage in steps, of which the least is more than 20
        database.wait()
        before = databases.describe("conf")
        with pytest.raises(InvalidArgument, match="shrink"):
            database.resize(storage_gib=10)
        spec = attrs.evolve(small_spec("conf"), storage_gib=10, storage_autogrow=False)
        (change,) = databases.diff(spec)
        assert "shrink" in change.reason
        with pytest.raises(InvalidArgument, match="shrink"):
            databases.apply(change)
        assert databases.describe("conf") == before

    def test_grown_storage_is_no_difference(self, databases: Databases, database: Database) -> None:
        if not databases.features.storage_autogrow:
            pytest.skip("storage of this provider does not grow by itself")
        database.resize(storage_gib=40)
        database.wait()
        assert databases.diff(small_spec("conf")) == ()

    def test_what_is_not_declared_is_left_alone(self, databases: Databases) -> None:
        if not databases.features.labels:
            pytest.skip("the provider has no labels")
        spec = attrs.evolve(small_spec("conf"), labels={"team": "shop", "tier": "1"})
        databases.create(spec).wait()
        (change,) = databases.diff(attrs.evolve(spec, labels={"tier": "2"}))
        assert [field.name for field in change.fields] == ["labels"]
        databases.apply(change)
        databases.open(spec).wait()
        assert databases.describe("conf").labels == {"team": "shop", "tier": "2"}

    @pytest.mark.usefixtures("database")
    def test_an_engine_does_not_become_another(self, databases: Databases) -> None:
        before = databases.describe("conf")
        other = attrs.evolve(before, engine="mysql" if before.engine == "mariadb" else "mariadb", version="11")
        with pytest.raises(InvalidArgument, match=f"become {other.engine}"):
            databases.apply(Change(service="database", before=before, after=other))
        older = str(int(before.version.split(".")[0]) - 1)
        with pytest.raises(InvalidArgument, match=f"back to {older}"):
            databases.apply(Change(service="database", before=before, after=attrs.evolve(before, version=older)))
        assert databases.describe("conf") == before

    def test_a_stale_change_is_a_conflict(self, databases: Databases, database: Database) -> None:
        (change,) = databases.diff(attrs.evolve(small_spec("conf"), backup_days=8))
        database.resize(storage_gib=40)
        database.wait()
        with pytest.raises(Conflict):
            databases.apply(change)

    # deleting

    def test_a_protected_server_is_not_deleted(self, databases: Databases, database: Database) -> None:
        database.protect(on=True)
        database.wait()
        with pytest.raises(Conflict, match="protected"):
            databases.delete("conf")
        assert database.info().state == "available"
        database.protect(on=False)
        database.wait()
        databases.delete("conf", final_snapshot=False)
        database.wait_deleted()
        assert not databases.exists("conf")

    def test_a_last_snapshot_is_taken_and_outlives_the_server(self, databases: Databases, database: Database) -> None:
        if not databases.features.final_snapshot:
            with pytest.raises(Unsupported, match=r"final_snapshot=False \(--no-final-snapshot\)"):
                databases.delete("conf")
            assert database.info().state == "available"
            return
        databases.delete("conf")
        database.wait_deleted()
        last = [snapshot.name for snapshot in database.snapshots()]
        assert [name.startswith("conf-final-") for name in last] == [True]
        restored = database.restore(small_spec("conf-again"), snapshot=last[0])
        assert restored.wait().state == "available"
        database.delete_snapshot(last[0])

    def test_a_change_that_destroys_deletes(self, databases: Databases, database: Database) -> None:
        change = Change(service="database", before=databases.describe("conf"), after=None, destroys=True)
        if not databases.features.final_snapshot:
            with pytest.raises(Unsupported):
                databases.apply(change)
            return
        databases.apply(change)
        database.wait_deleted()
        assert not databases.exists("conf")
        _forget_snapshots(database)

    # snapshots

    def test_a_snapshot_is_restored_into_a_new_server(
        self, databases: Databases, database: Database, sleep: Sleep
    ) -> None:
        if not database.features.snapshots:
            for call in (database.snapshot, database.snapshots, lambda: database.restore("copy", snapshot="x")):
                with pytest.raises(Unsupported):
                    call()
            return
        before = databases.describe("conf")
        taken = database.snapshot("first")
        assert (taken.name, taken.database) == ("first", "conf")
        self._until_complete(database, sleep)
        copy = database.restore("copy", snapshot="first")
        assert copy.wait().name == "copy"
        assert databases.describe("copy") == attrs.evolve(before, name="copy")
        assert databases.describe("conf") == before
        database.delete_snapshot("first")
        assert list(database.snapshots()) == []

    def test_restoring_never_overwrites(self, databases: Databases, database: Database, sleep: Sleep) -> None:
        if not database.features.snapshots:
            pytest.skip("the provider has no snapshots")
        database.snapshot("first")
        self._until_complete(database, sleep)
        databases.create(small_spec("other")).wait()
        with pytest.raises(InvalidArgument, match="new server"):
            database.restore("conf", snapshot="first")
        with pytest.raises(AlreadyExists) as taken:
            database.restore("other", snapshot="first")
        assert str(taken.value.resource) == "database 'other'"
        with pytest.raises(NotFound):
            database.restore("copy", snapshot="missing")
        with pytest.raises(InvalidArgument):
            database.restore("copy")
        assert not databases.exists("copy")
        with pytest.raises(AlreadyExists):
            database.snapshot("first")
        _forget_snapshots(database)

    def test_a_time_is_restored_into_a_new_server(self, database: Database) -> None:
        now = database.info().created or datetime.now(UTC)
        if not database.features.point_in_time:
            with pytest.raises(Unsupported):
                database.restore("copy", at=now)
            return
        assert database.restore("copy", at=now).wait().state == "available"
        times = database.restorable()
        assert times is not None
        assert times[0] <= times[1]
        with pytest.raises(OperationError):
            database.restore("older", at=now - timedelta(days=400))
        with pytest.raises(InvalidArgument, match="time zone"):
            database.restore("naive", at=now.replace(tzinfo=None))

    # whole servers

    def test_base_backups_are_listed_until_they_are_deleted(self, databases: Databases) -> None:
        """A driver that has archives is handed out while its log is archived."""
        if not databases.features.archive:
            for call in (
                databases.back_up,
                databases.backups,
                lambda: databases.delete_backup("x"),
                databases.archive,
                databases.end_archive,
            ):
                with pytest.raises(Unsupported):
                    call()
            return
        before = [each.name for each in databases.backups()]
        made = [databases.back_up() for _ in range(4)]
        assert [*before, *(each.name for each in made)] == [each.name for each in databases.backups()]
        assert list(databases.backups())[-1] == made[-1]
        assert len(list(databases.backups(limit=1))) == 1
        assert all(each.began <= each.restorable_from and each.size > 0 for each in made)
        for each in made:
            databases.delete_backup(each.name)
        assert before == [each.name for each in databases.backups()]
        with pytest.raises(NotFound):
            databases.delete_backup(made[0].name)

    # listing

    def test_many_servers_are_listed_once_each(self, databases: Databases) -> None:
        wanted = [f"many-{number}" for number in range(self.many)]
        for name in wanted:
            databases.create(small_spec(name))
        found = [database.name for database in databases.list()]
        assert sorted(found) == sorted(wanted)
        assert len(list(databases.list(limit=3))) == 3

    def test_the_snapshots_of_all_servers_are_listed_together(
        self, databases: Databases, database: Database, sleep: Sleep
    ) -> None:
        if not databases.features.snapshots:
            with pytest.raises(Unsupported):
                databases.snapshots()
            return
        other = databases.create(small_spec("other"))
        other.wait()
        for each in (database, other):
            each.snapshot(f"of-{each.name}")
            self._until_complete(each, sleep)
        found = [(each.database, each.name) for each in databases.snapshots() if not each.automatic]
        assert sorted(found) == [("conf", "of-conf"), ("other", "of-other")]
        assert len(list(databases.snapshots(limit=1))) == 1
        for each in (database, other):
            _forget_snapshots(each)

    def test_many_snapshots_are_listed_once_each(self, database: Database, sleep: Sleep) -> None:
        if not database.features.snapshots:
            pytest.skip("the provider has no snapshots")
        wanted = [f"s{number}" for number in range(self.many)]
        for name in wanted:
            database.snapshot(name)
            self._until_complete(database, sleep)
        assert sorted(snapshot.name for snapshot in database.snapshots()) == sorted(wanted)
        assert len(list(database.snapshots(limit=3))) == 3
        _forget_snapshots(database)

    # secrets and connections

    def test_the_password_shows_nowhere(self, databases: Databases, database: Database) -> None:
        spec, url = databases.describe("conf"), database.url()
        assert database.password().reveal() == CANARY
        shown = f"{url} {url!r} {spec!r} {database!r} {database.info()!r} {database.password()!r} {small_spec('x')!r}"
        assert CANARY not in shown
        assert "c4n4ry" not in shown
        assert "***" in str(url)
        assert url.reveal().replace("c4n4ry-P%23ss%3Fw%3Ard%25%2B", "***") == str(url)
        with pytest.raises((TypeError, AttributeError, pickle.PicklingError)):
            pickle.dumps(url)

    def test_the_administrators_password_is_changed(self, databases: Databases, database: Database) -> None:
        if not databases.features.set_password:
            with pytest.raises(Unsupported):
                database.set_password("another")
            return
        before = databases.describe("conf")
        database.set_password("4nother-P#ss?w:rd%+")
        assert database.wait().state == "available"
        assert databases.describe("conf") == before
        shown = f"{database!r} {database.info()!r} {databases.describe('conf')!r}"
        assert "4nother" not in shown
        if not databases.features.managed_password:
            with pytest.raises(Unsupported):
                database.set_password()

    def test_a_password_that_the_provider_keeps_is_replaced(self, databases: Databases) -> None:
        has = databases.features
        if not has.managed_password or not has.set_password:
            pytest.skip("the provider keeps no password, or does not replace it")
        database = databases.create(attrs.evolve(small_spec("conf"), password=None))
        database.wait()
        made = database.password()
        database.set_password()
        database.wait()
        assert database.password(fresh=True) != made

    def test_a_token_logs_in_and_shows_nowhere(self, databases: Databases, driver: DatabaseDriver) -> None:
        if not databases.features.token_login:
            with pytest.raises(Unsupported):
                driver.login_token("conf", "shop")
            return
        spec = attrs.evolve(small_spec("conf"), token_login=True, user="shop")
        database = databases.create(spec)
        database.wait()
        token = driver.login_token("conf", "shop")
        now = datetime.now(UTC)
        assert token.user == "shop"
        assert now + timedelta(minutes=1) < token.expires < now + timedelta(days=1)
        value = database.password().reveal()
        assert len(value) >= 16
        assert database.url().user == "shop"
        assert value not in f"{token!r} {database.url()} {database.url()!r} {database.password()!r}"

    def test_a_url_names_the_declared_database_or_another(self, database: Database) -> None:
        assert database.url().database == "shop"
        assert database.url("other").database == "other"
        assert str(database.url("other")).startswith(f"{database.info().engine}://shiftadmin:***@")

    def test_a_simulated_server_says_so(self, database: Database) -> None:
        if database.features.connect:
            pytest.skip("there is a server")
        for call in (database.connect, database.engine):
            with pytest.raises(Unsupported, match="simulated"):
                call()

    def test_every_state_is_one_of_ours(self, database: Database) -> None:
        assert database.info().state in STATES

    def _until_complete(self, database: Database, sleep: Sleep) -> None:
        while any(snapshot.state == "creating" for snapshot in database.snapshots()):
            sleep(1)
        database.wait()


def _forget_snapshots(database: Database) -> None:
    for snapshot in list(database.snapshots()):
        database.delete_snapshot(snapshot.name)


def _delete(service: Databases, name: str) -> None:
    database = service.database(name)
    if (state := database.info().state) in {"creating", "updating"}:
        database.wait()  # some providers delete none that is busy
    if state != "deleting":
        if service.describe(name).deletion_protection:
            database.protect(on=False)
            database.wait()
        service.delete(name, final_snapshot=False)
    database.wait_deleted()


class DatabaseMachine(RuleBasedStateMachine):
    """Any sequence of calls leaves the servers as a plain dictionary says. ``database_machine`` makes it."""

    names = st.sampled_from(["one", "two", "six"])
    storages = st.integers(20, 25)

    def __init__(self) -> None:
        super().__init__()
        self.databases = Databases(self.make_driver(), sleep=self.sleep)
        self.model: dict[str, tuple[DatabaseState, int]] = {}
        self.taken: dict[str, int] = {}

    def make_driver(self) -> DatabaseDriver:
        """Make the driver under test, without any server."""
        raise TypeError("make the machine with `database_machine`")

    def sleep(self, seconds: float) -> None:
        """Let time pass for the driver."""
        time.sleep(seconds)

    def teardown(self) -> None:
        for database in list(self.databases.list()):
            _delete(self.databases, database.name)
            if self.databases.features.snapshots:
                _forget_snapshots(database)

    @rule(name=names, storage=storages)
    def create(self, name: str, storage: int) -> None:
        spec = attrs.evolve(small_spec(name), storage_gib=storage)
        if name in self.model:
            with pytest.raises(AlreadyExists):
                self.databases.create(spec)
            return
        self.databases.create(spec).wait()
        self.model[name] = ("available", self._held(name, storage))

    @rule(name=names)
    def delete(self, name: str) -> None:
        if name not in self.model:
            with pytest.raises(NotFound):
                self.databases.delete(name, final_snapshot=False)
            return
        self.databases.delete(name, final_snapshot=False)
        self.databases.database(name).wait_deleted()
        del self.model[name]

    @rule(name=names, start=st.booleans())
    def switch(self, name: str, *, start: bool) -> None:
        database = self.databases.database(name)
        verb, state = (database.start, "available") if start else (database.stop, "stopped")
        if not database.features.stop or name not in self.model:
            with pytest.raises((NotFound, Unsupported)):
                verb()
            return
        verb()
        reached = database.wait("available" if start else "stopped")
        assert reached.state == state
        self.model[name] = (reached.state, self.model[name][1])

    @rule(name=names, storage=storages)
    def resize(self, name: str, storage: int) -> None:
        database = self.databases.database(name)
        if name not in self.model or storage < self.model[name][1]:
            with pytest.raises((NotFound, InvalidArgument)):
                database.resize(storage_gib=storage)
            return
        try:
            became = database.resize(storage_gib=storage)
        except Conflict:
            assert self.model[name][0] == "stopped"  # which some providers do not change
            return
        assert became.storage_gib >= storage  # some let it grow by steps only
        database.wait(self.model[name][0])
        self.model[name] = (self.model[name][0], became.storage_gib)

    @rule(name=names)
    def apply(self, name: str) -> None:
        """Make the server as declared; storage that has grown is left alone."""
        spec = small_spec(name)
        for change in self.databases.diff(spec):
            assert change.action == "create"
            self.databases.apply(change)
            self.databases.database(name).wait()
            self.model[name] = ("available", self._held(name, spec.storage_gib))
        assert self.databases.diff(spec) == ()

    @invariant()
    def the_servers_are_as_the_model_says(self) -> None:
        held = {
            database.name: (database.info().state, self.databases.describe(database.name).storage_gib)
            for database in self.databases.list()
        }
        assert held == self.model

    def _held(self, name: str, storage: int) -> int:
        """Return the storage that a new server has, which some providers give by steps only."""
        held = self.databases.describe(name).storage_gib
        assert storage <= held <= 2 * storage
        return held


def database_machine(make_driver: Callable[[], DatabaseDriver], sleep: Sleep = time.sleep) -> type[DatabaseMachine]:
    """Make the state machine for a driver; run it with ``database_machine(make_driver).TestCase``.

    Args:
        make_driver: called for each run; the account must have no servers.
        sleep: lets time pass for the driver.
    """
    own = {"make_driver": lambda _: make_driver(), "sleep": lambda _, seconds: sleep(seconds)}
    return type("DatabaseOf", (DatabaseMachine,), own)

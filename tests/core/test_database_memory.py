"""The memory driver of databases keeps the rules, at once and by a clock, and fails as a provider does."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import attrs
import pytest
from hypothesis import Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from shiftable.database import Databases, DatabaseSpec, Engine
from shiftable.database.driver import DatabaseDriver, DatabaseInfo, ServerSize, SizeChoice, Snapshot, choose_size
from shiftable.errors import Conflict, InvalidArgument, NotFound, QuotaExceeded, Timeout, Unsupported
from shiftable.features import Limit
from shiftable.masking import Masked
from shiftable.memory.database import FEATURES, MemoryDatabaseDriver
from shiftable.paging import Page
from shiftable.testing.conformance.database import DatabaseConformance, Sleep, database_machine, small_spec
from shiftable.wording import counted

from .clocks import Clock

LESSER = attrs.evolve(
    FEATURES,
    title="a lesser provider",
    engines=frozenset({"postgresql 15", "postgresql 16", "mysql 8.4"}),
    stop=False,
    snapshots=False,
    final_snapshot=False,
    point_in_time=False,
    high_availability=False,
    storage_autogrow=False,
    public=False,
    allow_from=False,
    parameters=False,
    labels=False,
    managed_password=False,
    set_password=False,
    token_login=False,
    optional_tls=False,
    restart=False,
    max_storage=Limit(100, "chosen"),
)


class TestMemoryDatabase(DatabaseConformance):
    @pytest.fixture
    def driver(self) -> DatabaseDriver:
        return MemoryDatabaseDriver()


class TestSlowDatabase(DatabaseConformance):
    """Everything takes five minutes."""

    many = 25

    @pytest.fixture
    def clock(self) -> Clock:
        return Clock()

    @pytest.fixture
    def driver(self, clock: Clock) -> DatabaseDriver:
        return MemoryDatabaseDriver(clock=clock, delay=timedelta(minutes=5), page_size=10)

    @pytest.fixture
    def sleep(self, clock: Clock) -> Sleep:
        return clock.sleep


class TestLesserDatabase(DatabaseConformance):
    """The rules hold for a driver that can do less, too: what it cannot is refused."""

    @pytest.fixture
    def driver(self) -> DatabaseDriver:
        return MemoryDatabaseDriver(LESSER)


SIZES = tuple(
    ServerSize(name=f"m{cpus}-{cpus * each}", cpus=cpus, memory=cpus * each * 2**30)
    for each in (8, 4)
    for cpus in (8, 4, 2, 1)
)


@attrs.define
class Stepped(MemoryDatabaseDriver):
    """Databases in eight sizes."""

    def size(self, spec: DatabaseSpec) -> SizeChoice:
        return choose_size(spec, SIZES, source="the catalogue of 2026-11-21")

    def rounded(self, spec: DatabaseSpec) -> DatabaseSpec:
        size = self.size(spec).size
        return attrs.evolve(spec, cpus=size.cpus, memory_gib=size.memory // 2**30)

    def create(self, spec: DatabaseSpec) -> None:
        MemoryDatabaseDriver.create(self, self.rounded(spec))

    def info(self, name: str) -> DatabaseInfo:
        found = MemoryDatabaseDriver.info(self, name)
        return attrs.evolve(found, size=self.size(self.describe(name)).size.name)


class TestSteppedDatabase(DatabaseConformance):
    """The rules hold where sizes come in steps."""

    @pytest.fixture
    def driver(self) -> DatabaseDriver:
        return Stepped(attrs.evolve(FEATURES, sizes=True))


@pytest.mark.parametrize(
    ("cpus", "memory_gib", "name"), [(1, 1, "m1-4"), (1, 5, "m1-8"), (2, 8, "m2-8"), (1, 9, "m2-16"), (8, 33, "m8-64")]
)
def test_the_smallest_size_that_has_enough_is_chosen(cpus: int, memory_gib: int, name: str) -> None:
    spec = attrs.evolve(small_spec("conf"), cpus=cpus, memory_gib=memory_gib)
    choice = Databases(Stepped()).size(spec)
    assert choice is not None
    assert name == choice.size.name
    enough = sum(size.cpus >= cpus and size.memory >= memory_gib * 2**30 for size in SIZES)
    needed = f"{counted(cpus, 'CPU')} and {memory_gib} GiB"
    expected = f"the smallest of {enough} sizes with at least {needed} (the catalogue of 2026-11-21)"
    assert expected == choice.reason


def test_a_size_that_nobody_has_names_the_largest() -> None:
    spec = attrs.evolve(small_spec("conf"), cpus=9)
    with pytest.raises(InvalidArgument, match=r"no size has 9 CPUs and 8 GiB; the largest is m8-64 \(8 CPUs, 64 GiB\)"):
        Databases(Stepped()).size(spec)


def _slow(clock: Clock, **more: Any) -> Databases:
    driver = MemoryDatabaseDriver(clock=clock, delay=timedelta(minutes=5), **more)
    return Databases(driver, clock=clock.monotonic, sleep=clock.sleep)


def test_parameters_that_cannot_be_set_are_named_with_what_to_do() -> None:
    spec = attrs.evolve(small_spec("conf"), parameters={"work_mem": "8MB", "max_connections": "100"})
    (missing,) = Databases(MemoryDatabaseDriver(LESSER)).missing_features(spec)
    assert missing.startswith("way to set parameters (max_connections, work_mem): set them on the server")


def test_a_restore_that_the_provider_has_not_is_told() -> None:
    database = Databases(MemoryDatabaseDriver(LESSER)).create(small_spec("conf"))
    with pytest.raises(Unsupported, match="has no restore to a time"):
        database.restore("other", at=datetime.now(UTC))
    with pytest.raises(Unsupported, match="has no snapshots"):
        database.restore("other", snapshot="first")


def test_an_empty_name_of_a_snapshot_is_neither_a_made_one_nor_none() -> None:
    databases = Databases(MemoryDatabaseDriver())
    database = databases.create(small_spec("conf"))
    with pytest.raises(InvalidArgument, match="name is empty"):
        database.snapshot("")
    with pytest.raises(InvalidArgument, match="name is empty"):
        databases.delete("conf", final_snapshot="")
    assert "available" == database.info().state
    assert [] == list(database.snapshots())


@pytest.mark.parametrize(
    ("engine", "version", "missing"),
    [
        ("postgresql", "16", False),
        ("postgresql", "16.4", False),
        ("postgresql", "1", True),
        ("postgresql", "17", True),
        ("mysql", "8.4", False),
        ("mysql", "8", False),
        ("mysql", "8.4.1", False),
        ("mysql", "8.0", True),
        ("mariadb", "11", True),
    ],
)
def test_an_engine_is_held_in_its_versions(engine: Engine, version: str, *, missing: bool) -> None:
    spec = attrs.evolve(small_spec("conf"), engine=engine, version=version)
    expected = (f"{engine} {version}",) if missing else ()
    assert Databases(MemoryDatabaseDriver(LESSER)).missing_features(spec) == expected


def test_states_follow_the_clock() -> None:
    clock = Clock()
    databases = _slow(clock)
    database = databases.create(small_spec("conf"))
    states = [database.info().state]
    for act in (lambda: None, database.stop, database.start, lambda: database.resize(cpus=4)):
        act()
        states.append(database.info().state)
        clock.sleep(300)
        states.append(database.info().state)
    databases.delete("conf", final_snapshot="last")
    states.append(database.info().state)
    clock.sleep(300)
    assert states == [
        "creating",
        "creating",
        "available",
        "stopping",
        "stopped",
        "starting",
        "available",
        "updating",
        "available",
        "deleting",
    ]
    assert not databases.exists("conf")
    assert [snapshot.name for snapshot in database.snapshots()] == ["last"]


def test_a_server_that_failed_ends_the_waiting() -> None:
    clock = Clock()
    database = _slow(clock, failing={"conf"}).create(small_spec("conf"))
    with pytest.raises(Conflict, match="'FAILED'"):
        database.wait()
    assert database.wait("failed").server is None
    with pytest.raises(Conflict, match="no address yet"):
        database.url()


def test_waiting_ends_at_the_deadline_and_says_for_what() -> None:
    clock = Clock()
    database = _slow(clock).create(small_spec("conf"))
    with pytest.raises(Timeout, match=r"0:01:00 for database 'conf' to be available"):
        database.wait(timeout=timedelta(minutes=1))


def test_a_quota_refuses_one_server_too_many_and_counts_the_living() -> None:
    clock = Clock()
    databases = _slow(clock, quota=2)
    databases.create(small_spec("a"))
    databases.create(small_spec("b"))
    with pytest.raises(QuotaExceeded, match="2 servers"):
        databases.create(small_spec("c"))
    clock.sleep(300)
    databases.delete("a", final_snapshot=False)
    with pytest.raises(QuotaExceeded):
        databases.create(small_spec("c"))
    clock.sleep(300)
    databases.create(small_spec("c"))


def test_a_password_that_nobody_gave_is_made() -> None:
    databases = Databases(MemoryDatabaseDriver())
    one, other = (databases.create(attrs.evolve(small_spec(name), password=None)) for name in ("a", "b"))
    assert len(one.password().reveal()) >= 24
    assert one.password().reveal() != other.password().reveal()


def test_any_sequence_of_calls_leaves_the_servers_as_a_dictionary_says() -> None:
    quick = settings(max_examples=40, stateful_step_count=25, deadline=None, database=None, derandomize=True)
    clock = Clock()
    slow = database_machine(
        lambda: MemoryDatabaseDriver(clock=clock, delay=timedelta(minutes=5), page_size=2), clock.sleep
    )
    run_state_machine_as_test(slow, settings=quick)
    run_state_machine_as_test(database_machine(lambda: MemoryDatabaseDriver(LESSER, page_size=2)), settings=quick)


class StartsOnEveryUpdate(MemoryDatabaseDriver):
    """A driver that breaks a rule: a stopped server that is changed is available afterwards."""

    def update(self, current: DatabaseSpec, spec: DatabaseSpec) -> None:
        super().update(current, spec)
        self._entries[spec.name].then = "available"


def test_the_machine_finds_a_driver_that_breaks_a_rule() -> None:
    search = settings(max_examples=200, phases=[Phase.generate], deadline=None, database=None, derandomize=True)
    clock = Clock()

    def impatient(seconds: float) -> None:
        clock.sleep(seconds)
        if clock.now > datetime(2026, 1, 2, tzinfo=UTC):
            raise Timeout("a day passed")

    with pytest.raises(Timeout, match="a day"):
        run_state_machine_as_test(
            database_machine(lambda: StartsOnEveryUpdate(clock=clock), impatient), settings=search
        )


def test_a_snapshot_is_waited_for_or_missing_or_failed() -> None:
    clock = Clock()
    database = _slow(clock).create(small_spec("conf"))
    database.wait()
    taken = database.snapshot("first")
    assert ("creating", "available") == (taken.state, database.wait_snapshot("first").state)
    with pytest.raises(NotFound, match="no snapshot 'second'"):
        database.wait_snapshot("second")
    database.snapshot("third")
    with pytest.raises(Timeout, match=r"0:01:00 for snapshot 'third' of database 'conf'"):
        database.wait_snapshot("third", timeout=timedelta(minutes=1))

    class Failing(MemoryDatabaseDriver):
        def snapshots(self, name: str | None, *, cursor: str | None, limit: int | None) -> Page[Snapshot]:
            page = super().snapshots(name, cursor=cursor, limit=limit)
            return attrs.evolve(page, items=tuple(attrs.evolve(each, state="failed") for each in page.items))

    failed = Databases(Failing()).create(small_spec("conf"))
    failed.snapshot("first")
    with pytest.raises(Conflict, match="'first' failed"):
        failed.wait_snapshot("first")


def test_each_state_that_is_waited_through_is_told() -> None:
    clock, seen = Clock(), []
    databases = _slow(clock)
    database = databases.create(small_spec("conf"))
    database.wait(on_info=lambda info: seen.append(info.state))
    databases.delete("conf", final_snapshot=False)
    database.wait_deleted(on_info=lambda info: seen.append(info.state))
    assert ["creating", "available", "deleting"] == list(dict.fromkeys(seen))


def test_a_restored_server_has_what_no_provider_can_tell_of_the_first_one() -> None:
    spec = attrs.evolve(small_spec("conf"), user="shop", native="its own")
    database = Databases(MemoryDatabaseDriver()).create(spec)
    database.snapshot("first")
    copy = database.restore("copy", snapshot="first")
    assert database.password() == copy.password()
    assert "shop" == copy.url().user


def test_a_time_without_backups_cannot_be_restored() -> None:
    database = Databases(MemoryDatabaseDriver()).create(attrs.evolve(small_spec("conf"), backup_days=0))
    info = database.info()
    assert (None, None) == (info.restorable_from, info.restorable_until)
    with pytest.raises(InvalidArgument, match="backup_days is 0"):
        database.restore("copy", at=datetime.now(UTC))


def test_a_changed_password_is_the_one_of_whoever_declares_it() -> None:
    databases = Databases(MemoryDatabaseDriver())
    spec = attrs.evolve(small_spec("conf"), password=None)
    database = databases.create(spec)
    before = database.password()
    database.set_password("mine")
    assert before == database.password()  # kept until a server refuses it
    assert "mine" == database.password(fresh=True).reveal()
    database.set_password(Masked("other"))
    assert "other" == database.password(fresh=True).reveal()
    database.set_password()
    assert 24 <= len(database.password(fresh=True).reveal())

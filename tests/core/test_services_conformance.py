"""The rules for DNS, databases and compute find a driver that breaks them: each of these breaks one, and it fails."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import attrs
import pytest

from shiftable.compute import Compute, FleetSpec, MachineInfo
from shiftable.database import DatabaseFeatures, DatabaseInfo, Databases, DatabaseSpec, LoginToken, Snapshot
from shiftable.dns import Dns, RecordChange, RecordSet, ZoneSpec
from shiftable.errors import OperationError
from shiftable.masking import Masked
from shiftable.memory.compute import MemoryComputeDriver
from shiftable.memory.database import MemoryDatabaseDriver
from shiftable.memory.dns import MemoryDnsDriver
from shiftable.paging import Page
from shiftable.testing.conformance.compute import ComputeConformance, small_fleet
from shiftable.testing.conformance.database import DatabaseConformance, small_spec
from shiftable.testing.conformance.dns import DnsConformance, observed

Rule = Callable[..., None]


# DNS


class ListsOnePage(MemoryDnsDriver):
    def records(self, zone: str, **options: Any) -> Page[RecordSet]:
        return Page(super().records(zone, **options).items)


class ListsWhatIsBelow(MemoryDnsDriver):
    def records(self, zone: str, *, name: str | None, cursor: str | None, limit: int | None) -> Page[RecordSet]:
        everything = super().records(zone, name=None, cursor=cursor, limit=limit)
        return Page(tuple(record for record in everything.items if record.name.endswith(name or "")), everything.next)


class HasEveryZone(MemoryDnsDriver):
    def records(self, zone: str, **options: Any) -> Page[RecordSet]:
        return super().records(zone, **options) if zone in self._zones else Page(())


class IgnoresBefore(MemoryDnsDriver):
    def change(self, zone: str, changes: tuple[RecordChange, ...]) -> None:
        here = self._zones[zone]
        super().change(zone, tuple(attrs.evolve(change, before=here.get(change.key)) for change in changes))


class ChangesOneByOne(MemoryDnsDriver):
    def change(self, zone: str, changes: tuple[RecordChange, ...]) -> None:
        for change in changes:
            super().change(zone, (change,))


class LowersNames(MemoryDnsDriver):
    """Folds what is text, not a name."""

    def change(self, zone: str, changes: tuple[RecordChange, ...]) -> None:
        super().change(zone, tuple(attrs.evolve(change, after=self._lower(change.after)) for change in changes))

    def _lower(self, record: RecordSet | None) -> RecordSet | None:
        if record is None or record.type != "TXT":
            return record
        return attrs.evolve(record, rdatas=tuple(rdata.lower() for rdata in record.rdatas))


class DestroysWhatIsFull(MemoryDnsDriver):
    def destroy(self, name: str) -> None:
        self._zone(name)
        del self._zones[name]


BROKEN_DNS: list[tuple[type[MemoryDnsDriver], Rule]] = [
    (ListsOnePage, DnsConformance.test_a_long_listing_has_every_record_set_once),
    (ListsWhatIsBelow, DnsConformance.test_records_of_one_name_are_listed_alone),
    (HasEveryZone, DnsConformance.test_a_missing_zone_is_missing_everywhere),
    (IgnoresBefore, DnsConformance.test_a_stale_change_is_refused_by_the_driver_itself),
    (ChangesOneByOne, DnsConformance.test_an_atomic_batch_is_refused_whole_by_the_driver),
    (LowersNames, DnsConformance.test_a_record_set_is_kept_exactly_or_refused),
    (DestroysWhatIsFull, DnsConformance.test_zones_are_created_once_and_deleted_when_empty),
]


def _check_dns(driver: MemoryDnsDriver, rule: Rule) -> None:
    zone = Dns(driver).create(ZoneSpec(name="conf.test"))
    case = {"name": "case", "type": "TXT", "values": ('"AbC"',)}
    _call(
        rule,
        DnsConformance(),
        driver=driver,
        zone=zone,
        oracle=lambda name: observed([*driver._zones[name].values()]),
        **case,
    )


# databases


class RestoresOver(MemoryDatabaseDriver):
    def restore(self, name: str, snapshot: str, spec: DatabaseSpec) -> None:
        self._complete(name, snapshot)
        self._entries.pop(spec.name, None)
        self._add(spec)


class TakesNoLastSnapshot(MemoryDatabaseDriver):
    def delete(self, name: str, *, final_snapshot: str | None) -> None:
        super().delete(name, final_snapshot=None)


class ShowsThePassword(MemoryDatabaseDriver):
    def info(self, name: str) -> DatabaseInfo:
        return attrs.evolve(super().info(name), id=self._found(name).password.reveal())


class ForgetsProtection(MemoryDatabaseDriver):
    def describe(self, name: str) -> DatabaseSpec:
        return attrs.evolve(super().describe(name), deletion_protection=False)


class NamesOnePage(MemoryDatabaseDriver):
    def names(self, cursor: str | None, limit: int | None) -> Page[str]:
        return Page(super().names(cursor, limit).items)


class RestartsIntoSleep(MemoryDatabaseDriver):
    def restart(self, name: str) -> None:
        self._begin(self._in_state(name, "available"), "updating", "stopped")


class RestartsWhatIsStopped(MemoryDatabaseDriver):
    def restart(self, name: str) -> None:
        self._begin(self._in_state(name, "available", "stopped"), "updating", "available")


class TokensForEver(MemoryDatabaseDriver):
    def login_token(self, name: str, user: str | None) -> LoginToken:
        return attrs.evolve(super().login_token(name, user), expires=datetime(9999, 12, 31, tzinfo=UTC))


class TokensOfTheAdministrator(MemoryDatabaseDriver):
    def login_token(self, name: str, user: str | None) -> LoginToken:
        return super().login_token(name, None)


class KeepsTheOldPassword(MemoryDatabaseDriver):
    def set_password(self, name: str, password: Masked | None) -> None:
        self._in_state(name, "available")


class ShowsAChangedPassword(MemoryDatabaseDriver):
    def set_password(self, name: str, password: Masked | None) -> None:
        super().set_password(name, password)
        entry = self._found(name)
        entry.spec = attrs.evolve(entry.spec, labels={"password": entry.password.reveal()})


class SnapshotsOfOneServerOnly(MemoryDatabaseDriver):
    def snapshots(self, name: str | None, *, cursor: str | None, limit: int | None) -> Page[Snapshot]:
        return super().snapshots(name or "conf", cursor=cursor, limit=limit)


class ChoosesNoSize(MemoryDatabaseDriver):
    @property
    def features(self) -> DatabaseFeatures:
        return attrs.evolve(super().features, sizes=True)


class LeavesOutTls(MemoryDatabaseDriver):
    def describe(self, name: str) -> DatabaseSpec:
        return attrs.evolve(super().describe(name), tls="required")


def _declared(rule: Callable[..., None], feature: str) -> Rule:
    @functools.wraps(rule)
    def of_feature(suite: DatabaseConformance, databases: Databases) -> None:
        rule(suite, databases, feature)

    del of_feature.__wrapped__  # whose parameters are others
    return of_feature


BROKEN_DATABASE: list[tuple[type[MemoryDatabaseDriver], Rule]] = [
    (RestoresOver, DatabaseConformance.test_restoring_never_overwrites),
    (TakesNoLastSnapshot, DatabaseConformance.test_a_last_snapshot_is_taken_and_outlives_the_server),
    (ShowsThePassword, DatabaseConformance.test_the_password_shows_nowhere),
    (ForgetsProtection, DatabaseConformance.test_a_protected_server_is_not_deleted),
    (NamesOnePage, DatabaseConformance.test_many_servers_are_listed_once_each),
    (RestartsIntoSleep, DatabaseConformance.test_a_server_is_restarted),
    (RestartsWhatIsStopped, DatabaseConformance.test_a_server_is_restarted),
    (TokensForEver, DatabaseConformance.test_a_token_logs_in_and_shows_nowhere),
    (TokensOfTheAdministrator, DatabaseConformance.test_a_token_logs_in_and_shows_nowhere),
    (KeepsTheOldPassword, DatabaseConformance.test_a_password_that_the_provider_keeps_is_replaced),
    (ShowsAChangedPassword, DatabaseConformance.test_the_administrators_password_is_changed),
    (SnapshotsOfOneServerOnly, DatabaseConformance.test_the_snapshots_of_all_servers_are_listed_together),
    (ChoosesNoSize, DatabaseConformance.test_a_size_is_chosen_and_says_why),
    (LeavesOutTls, _declared(DatabaseConformance.test_what_is_declared_is_held, "optional_tls")),
]


def _check_database(driver: MemoryDatabaseDriver, rule: Rule) -> None:
    passed = [0.0]
    databases = Databases(driver, clock=lambda: sum(passed), sleep=passed.append)
    fixtures = {"databases": databases, "driver": driver, "sleep": lambda _: None}
    if "database" in inspect.signature(rule).parameters:
        fixtures["database"] = databases.create(small_spec("conf"))
    _call(rule, DatabaseConformance(), **fixtures)


# compute


class IgnoresTokens(MemoryComputeDriver):
    def create_machine(self, spec: FleetSpec, name: str, *, token: str, **options: Any) -> MachineInfo:
        for entry in self._living():
            entry.info = attrs.evolve(entry.info, name=f"{entry.info.name}-old")
        return super().create_machine(spec, name, token=f"{token}{len(self._entries)}", **options)


class KeepsTokensForEver(MemoryComputeDriver):
    made: dict[str, MachineInfo]

    def create_machine(self, spec: FleetSpec, name: str, *, token: str, **options: Any) -> MachineInfo:
        self.made = getattr(self, "made", {})
        if token not in self.made:
            self.made[token] = super().create_machine(spec, name, token=token, **options)
        return self.made[token]


class ListsOnePageOfMachines(MemoryComputeDriver):
    def machines(self, fleet: str | None, **options: Any) -> Page[MachineInfo]:
        return Page(super().machines(fleet, **options).items)


class ListsAllFleets(MemoryComputeDriver):
    def machines(self, fleet: str | None, **options: Any) -> Page[MachineInfo]:
        return super().machines(None, **options)


class DeletesDisks(MemoryComputeDriver):
    def delete_machine(self, id: str) -> None:
        entry = self._found(id)
        for disk in entry.info.disks:
            del self._disks[disk]
        entry.info = attrs.evolve(entry.info, disks=())
        super().delete_machine(id)


class TellsAnotherImage(MemoryComputeDriver):
    def create_machine(self, spec: FleetSpec, name: str, **options: Any) -> MachineInfo:
        made = super().create_machine(spec, name, **options)
        self._entries[made.id].info = attrs.evolve(made, image="image-0815")
        return self.machine(made.id)


BROKEN_COMPUTE: list[tuple[type[MemoryComputeDriver], Rule]] = [
    (IgnoresTokens, ComputeConformance.test_a_lost_answer_never_makes_a_second_machine),
    (KeepsTokensForEver, ComputeConformance.test_a_machine_that_somebody_deleted_comes_back),
    (ListsOnePageOfMachines, ComputeConformance.test_many_machines_are_listed_once_each),
    (ListsAllFleets, ComputeConformance.test_a_fleet_is_deleted_with_all_that_was_made_for_it),
    (DeletesDisks, ComputeConformance.test_a_disk_outlives_its_machine),
    (TellsAnotherImage, ComputeConformance.test_a_declared_fleet_is_made_and_then_nothing_differs),
]


def _check_compute(driver: MemoryComputeDriver, rule: Rule) -> None:
    compute = Compute(driver)
    fixtures: dict[str, Any] = {"compute": compute, "driver": driver, "sleep": lambda _: None}
    if {"fleet", "machine"} & inspect.signature(rule).parameters.keys():
        fixtures["fleet"] = compute.create(small_fleet())
        fixtures["machine"] = fixtures["fleet"].machine("conf-0")
    _call(rule, ComputeConformance(), **fixtures)


def _call(rule: Rule, suite: object, **fixtures: Any) -> None:
    rule(suite, **{name: fixtures[name] for name in list(inspect.signature(rule).parameters)[1:]})


CASES = [
    *((_check_dns, MemoryDnsDriver, *case) for case in BROKEN_DNS),
    *((_check_database, MemoryDatabaseDriver, *case) for case in BROKEN_DATABASE),
    *((_check_compute, MemoryComputeDriver, *case) for case in BROKEN_COMPUTE),
]


@pytest.mark.parametrize(
    ("check", "sound", "broken", "rule"), CASES, ids=lambda each: each.__name__.removeprefix("test_")
)
def test_a_driver_that_breaks_a_rule_fails_it(
    check: Callable[[Any, Rule], None], sound: type[Any], broken: type[Any], rule: Rule
) -> None:
    check(sound(), rule)
    with pytest.raises((AssertionError, OperationError, pytest.fail.Exception)):
        check(broken(), rule)

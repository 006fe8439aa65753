"""Servers behind BMCs when things go wrong: lost answers, lies, locks, other claimers. Time is the double's."""

from __future__ import annotations

import gc
import json
import logging
import socket
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import attrs
import pytest

import shiftable
from shiftable.blob import BucketSpec
from shiftable.compute import Compute, FleetSpec
from shiftable.compute._rules import token_of
from shiftable.config import Credential
from shiftable.errors import (
    AlreadyExists,
    ConfigError,
    Conflict,
    InvalidArgument,
    NotFound,
    OperationError,
    PermissionDenied,
    QuotaExceeded,
    Throttled,
    Timeout,
    Unauthenticated,
    Unavailable,
    Unsupported,
)
from shiftable.testing.conformance.compute import small_fleet
from shiftable.testing.harness import Call
from shiftable_baremetal import RedfishImageSettings, RedfishServerSettings, RedfishSettings
from shiftable_baremetal._redfish_claims import Claim
from shiftable_baremetal.compute_redfish import RedfishComputeDriver, open_redfish

from ..certificates import certificate, serving_tls
from .redfish_double import RedfishDouble

CANARY = "canary-" + "9d1e" * 4
MEDIA_CANARY = "canary-" + "44b7" * 4
ISO = "http://images.example/debian-12.iso"
IMAGES = (
    RedfishImageSettings(name="debian-12", url=ISO, user="debian"),
    RedfishImageSettings(name="ubuntu-24.04", url="http://images.example/ubuntu.iso"),
    RedfishImageSettings(name="pxe", boot="network"),
    RedfishImageSettings(name="installed", boot="disk"),
)


@attrs.define
class Rack:
    """Servers r0, r1, … of one BMC, or of one each, and a place for claims that all drivers share."""

    folder: Path
    bmcs: list[RedfishDouble]
    made: list[RedfishComputeDriver] = attrs.field(factory=list)

    @property
    def bmc(self) -> RedfishDouble:
        return self.bmcs[0]

    def settings(self, **more: Any) -> RedfishSettings:
        servers = []
        for bmc in self.bmcs:
            for number in range(len(bmc.servers)):
                path = f"/redfish/v1/Systems/{number}"
                servers.append(RedfishServerSettings(name=f"r{len(servers)}", bmc=bmc.url, system=path))
        told = {"servers": tuple(servers), "images": IMAGES, "username": "ops", "tls": False}
        return RedfishSettings(**{**told, "password": Credential.literal(CANARY), **more})

    def driver(self, **more: Any) -> RedfishComputeDriver:
        """Make a driver, as another process would, whose time is that of the first double."""
        driver = open_redfish(self.settings(**more), self.folder / "claims", fsync=False)
        driver._clock = self.bmc.clock.now
        self.made.append(driver)
        return driver

    def compute(self, **more: Any) -> Compute:
        return self.of(self.driver(**more))

    def of(self, driver: RedfishComputeDriver) -> Compute:
        return Compute(driver, clock=lambda: self.bmc.clock.now().timestamp(), sleep=self.bmc.clock.advance)

    def claims(self) -> dict[str, dict[str, Any]]:
        """Return what is claimed, as the file says."""
        found = [json.loads(path.read_text()) for path in self.folder.rglob("claims.json")]
        return {claim["server"]: claim for told in found for claim in told["claims"]}

    def close(self) -> None:
        for driver in self.made:
            driver.close()


@pytest.fixture
def make_rack(tmp_path: Path) -> Iterator[Callable[..., Rack]]:
    racks: list[Rack] = []

    def make(*counts: int, **more: Any) -> Rack:
        rack = Rack(tmp_path, [RedfishDouble(count, password=CANARY, **more).start() for count in counts])
        racks.append(rack)
        return rack

    yield make
    for rack in racks:
        rack.close()
        for bmc in rack.bmcs:
            assert bmc.sessions == {}  # none is leaked, whatever happened
            bmc.close()
            bmc.check()


@pytest.fixture
def rack(make_rack: Callable[..., Rack]) -> Rack:
    return make_rack(3)


def to(method: str, end: str = "") -> Callable[[Call], bool]:
    return lambda call: call.method == method and call.path.endswith(end)


RESET, LOGIN = "ComputerSystem.Reset", "/Sessions"


# answers that are lost


@pytest.mark.parametrize("kind", ["drop_before", "drop_after", "truncate", "status"])
@pytest.mark.parametrize("number", range(14))
def test_a_creation_that_breaks_anywhere_ends_with_one_machine(rack: Rack, kind: Any, number: int) -> None:
    reached = iter(range(10_000))
    fault = rack.bmc.inject(kind, match=lambda _: next(reached) == number)
    compute, spec = rack.compute(), small_fleet()
    _tried(lambda: compute.create(spec))
    assert fault.hits == 1
    for change in compute.diff(spec):
        compute.apply(change)
    (machine,) = compute.fleet("conf").wait()
    assert [(server.power, server.started) for server in rack.bmc.servers if server.told] == [("On", [ISO])]
    assert list(rack.claims()) == [machine.id.partition("/")[0]]
    compute.delete("conf")
    assert [server.power for server in rack.bmc.servers] == ["Off"] * 3
    assert [server.image for server in rack.bmc.servers] == [None] * 3
    _without_leak(rack, kind)


def _tried(call: Callable[[], object]) -> None:
    """Call; whatever goes wrong may be tried again."""
    try:
        call()
    except (Throttled, Unavailable, Timeout):
        return


def _without_leak(rack: Rack, kind: str) -> None:
    """Close all; a session whose making or ending nobody heard of is the BMC's to end, and the only one left."""
    rack.close()
    lost = [call for call in rack.bmc.calls if call.fault and "/Sessions" in call.path]
    assert len(rack.bmc.sessions) <= (1 if lost and kind != "drop_before" else 0)
    rack.bmc.expire()


def test_the_faults_above_meet_every_call(rack: Rack) -> None:
    compute = rack.compute()
    compute.create(small_fleet())
    assert len(rack.bmc.calls) == 14
    compute.fleet("conf").wait()
    before = len(rack.bmc.calls)
    compute.delete("conf")
    assert len(rack.bmc.calls) - before == 10


@pytest.mark.parametrize("kind", ["drop_before", "drop_after", "truncate", "status"])
@pytest.mark.parametrize("number", range(10))
def test_a_deletion_that_breaks_anywhere_ends_with_a_free_server(rack: Rack, kind: Any, number: int) -> None:
    compute = rack.compute()
    compute.create(small_fleet()).wait()
    reached = iter(range(10_000))
    rack.bmc.inject(kind, match=lambda _: next(reached) == number)
    while list(compute.fleet("conf").machines()):
        _tried(lambda: compute.delete("conf"))
    assert not compute.exists("conf")
    assert rack.claims() == {}
    assert [(server.power, server.image) for server in rack.bmc.servers] == [("Off", None)] * 3
    _without_leak(rack, kind)


@pytest.mark.parametrize("kind", ["drop_before", "drop_after", "status"])
@pytest.mark.parametrize("way", ["stop", "start", "reboot"])
def test_a_command_whose_answer_is_lost_is_given_again_without_harm(rack: Rack, way: str, kind: Any) -> None:
    (machine,) = rack.compute().create(small_fleet()).machines()
    machine.wait()
    if way == "start":
        machine.stop()
        machine.wait("stopped")
    rack.bmc.inject(kind, match=to("POST", RESET))
    command = getattr(machine, way)
    with pytest.raises(Unavailable):
        command()
    if machine.info().state != {"stop": "stopped"}.get(way, "running"):
        command()
    assert machine.wait("stopped" if way == "stop" else "running").id == machine.id
    assert rack.bmc.servers[0].power == ("Off" if way == "stop" else "On")
    assert rack.bmc.servers[0].started[0] == ISO


def test_one_who_was_killed_between_claim_and_start_is_continued(rack: Rack) -> None:
    driver = rack.driver()
    spec = small_fleet()
    size = driver.choose(spec).size
    claim = driver._claimed(driver._servers[0], spec, "conf-0", size, token_of("conf-0"))
    assert claim is not None
    compute = rack.compute()
    assert [m.seen.state for m in compute.fleet("conf").machines()] == ["creating"]
    rack.bmc.clock.advance(121)
    assert [m.seen.state for m in compute.fleet("conf").machines()] == ["creating"]
    assert rack.bmc.servers[0].told == []  # he may only be slow
    (machine,) = compute.fleet("conf").wait()
    assert rack.bmc.clock.now() - claim.created >= timedelta(minutes=10)
    assert (machine.id.split("/")[2], rack.bmc.servers[0].started) == (claim.mark, [ISO])


@pytest.mark.parametrize("told", [False, True], ids=["prepared", "told"])
def test_one_who_was_killed_later_is_continued_too(rack: Rack, *, told: bool) -> None:
    driver = rack.driver()
    spec = small_fleet()
    size = driver.choose(spec).size
    claim = driver._claimed(driver._servers[0], spec, "conf-0", size, token_of("conf-0"))
    assert claim is not None
    driver._bmcs["r0"].prepare("/redfish/v1/Systems/0", IMAGES[0])
    if told:
        driver._bmcs["r0"].reset("/redfish/v1/Systems/0", "on")
    compute = rack.compute()
    (machine,) = compute.fleet("conf").wait()
    assert (machine.id.split("/")[2], rack.bmc.servers[0].started) == (claim.mark, [ISO])
    assert rack.bmc.servers[0].told == ["On"]
    compute.delete("conf")
    assert (rack.claims(), rack.bmc.servers[0].power, rack.bmc.servers[0].image) == ({}, "Off", None)


def test_one_who_was_killed_while_he_released_a_server_is_continued(rack: Rack) -> None:
    driver = rack.driver()
    (machine,) = rack.of(driver).create(small_fleet()).wait()
    driver.delete_machine(machine.id)
    assert driver._taken(driver._claim_of(machine.id)) is not None
    compute = rack.compute()
    compute.delete("conf")
    assert (rack.claims(), rack.bmc.servers[0].image) == ({}, None)
    assert compute.create(small_fleet("other")).wait()[0].state == "running"


# BMCs that are away, slow, full or wrong


def test_servers_whose_bmc_is_away_are_passed_over(make_rack: Callable[..., Rack]) -> None:
    rack = make_rack(1, 1, 1)
    compute = rack.compute()
    compute.choose(small_fleet())  # while all tell what they have
    where = rack.bmcs[1].url
    rack.bmcs[1].expire()
    rack.bmcs[1].close()
    fleet = compute.create(small_fleet(count=2))
    assert [machine.id.partition("/")[0] for machine in fleet.wait()] == ["r0", "r2"]
    with pytest.raises(Unavailable, match=f"the BMC at {where} cannot be reached"):
        compute.create(small_fleet("other"))
    assert sorted(rack.claims()) == ["r0", "r2"]


def test_a_bmc_that_is_away_hides_no_other_machine(make_rack: Callable[..., Rack]) -> None:
    rack = make_rack(1, 1)
    compute = rack.compute()
    fleet = compute.create(small_fleet(count=2))
    fleet.wait()
    away = rack.bmcs[1].inject("status", status=503, times=None)
    assert [(m.name, m.seen.state) for m in fleet.machines()] == [("conf-0", "running"), ("conf-1", "unknown")]
    assert fleet.machine("conf-1").info().state == "unknown"
    assert compute.diff(small_fleet(count=2)) == ()
    away.times = 0
    assert [machine.state for machine in fleet.wait()] == ["running", "running"]


def test_a_machine_that_was_deleted_while_its_bmc_was_away_goes_when_it_is_back(make_rack: Callable[..., Rack]) -> None:
    rack = make_rack(1, 1)
    compute = rack.compute()
    compute.create(small_fleet()).wait()
    away = rack.bmc.inject("status", status=503, times=None)
    with pytest.raises(Unavailable):
        compute.delete("conf")
    assert [m.seen.state for m in compute.fleet("conf").machines()] == ["deleting"]
    away.times = 0
    rack.bmc.clock.advance(121)
    assert [m.seen.state for m in compute.machines()] == ["deleting"]  # and turned off
    assert list(compute.machines()) == []
    assert (rack.bmc.servers[0].power, rack.claims()) == ("Off", {})


def test_a_bmc_that_has_too_much_to_do_says_when_to_come_again(rack: Rack) -> None:
    (machine,) = rack.compute().create(small_fleet()).machines()
    machine.wait()
    rack.bmc.inject("status", status=503, headers=[("Retry-After", "7")], match=to("POST", RESET))
    with pytest.raises(Unavailable) as caught:
        machine.reboot()
    assert (caught.value.retry_after, caught.value.code) == (7.0, "503")
    rack.bmc.inject("status", status=429, headers=[("Retry-After", "soon")], match=to("POST", RESET))
    with pytest.raises(Throttled) as throttled:
        machine.reboot()
    assert throttled.value.retry_after is None


def test_a_wrong_password_is_tried_once(rack: Rack) -> None:
    rack.bmc.password = "another"
    compute = rack.compute()
    for _ in range(3):
        with pytest.raises(Unauthenticated, match="does not know this user and password") as caught:
            compute.create(small_fleet())
        assert CANARY not in str(caught.value) + repr(caught.value) + repr(caught.value.__cause__)
    assert [call.path for call in rack.bmc.calls].count("/redfish/v1/SessionService/Sessions") == 1


def test_a_bmc_without_sessions_gets_the_password_each_time(rack: Rack) -> None:
    rack.bmc.has_sessions = False
    compute = rack.compute()
    (machine,) = compute.create(small_fleet()).wait()
    assert (machine.state, rack.bmc.logins) == ("running", 0)
    rack.bmc.password = "another"
    for _ in range(2):
        before = len(rack.bmc.calls)
        with pytest.raises(Unauthenticated):
            compute.fleet("conf").machine("conf-0").info()
    assert len(rack.bmc.calls) == before


def test_a_session_that_expired_is_replaced_and_none_is_leaked(rack: Rack) -> None:
    compute = rack.compute()
    (machine,) = compute.create(small_fleet()).machines()
    machine.wait()
    assert (rack.bmc.logins, len(rack.bmc.sessions)) == (1, 1)
    rack.bmc.expire()
    machine.stop()
    machine.wait("stopped")
    assert (rack.bmc.logins, len(rack.bmc.sessions)) == (2, 1)
    compute.close()
    assert rack.bmc.sessions == {}
    compute.close()
    assert machine.info().state == "stopped"  # one that is used again logs in again
    assert len(rack.bmc.sessions) == 1


def test_a_bmc_that_refuses_a_good_session_does_not_fill_up(rack: Rack) -> None:
    (machine,) = rack.compute().create(small_fleet()).machines()
    machine.wait()
    rack.bmc.inject("status", status=401, match=to("GET", "/Systems/0"))
    assert machine.info().state == "running"
    assert (rack.bmc.logins, len(rack.bmc.sessions)) == (2, 1)


def test_a_session_ends_also_at_a_bmc_that_knows_itself_by_another_address(rack: Rack) -> None:
    rack.bmc.seen_as = "https://10.11.12.13"
    rack.bmc.task_state = "Completed"
    compute = rack.compute()
    (machine,) = compute.create(small_fleet()).wait()
    compute.close()
    assert (machine.state, rack.bmc.sessions) == ("running", {})


def test_a_command_that_is_given_again_to_a_bmc_that_knows_better_is_no_error(rack: Rack) -> None:
    compute = rack.compute()
    rack.bmc.servers[0].said = "Off"
    fleet = compute.create(small_fleet())
    rack.bmc.clock.advance(121)
    refused = rack.bmc.inject("status", status=409, match=to("POST", RESET))
    assert [m.seen.state for m in fleet.machines()] == ["creating"]
    assert refused.hits == 1
    rack.bmc.servers[0].said = None
    assert [machine.state for machine in fleet.wait()] == ["running"]


def test_sessions_end_with_a_driver_that_nobody_closes(rack: Rack) -> None:
    driver = open_redfish(rack.settings(), rack.folder / "claims")
    list(Compute(driver).sizes())
    assert len(rack.bmc.sessions) == 1
    del driver
    gc.collect()
    assert rack.bmc.sessions == {}


def test_a_bmc_without_a_free_session_says_so(rack: Rack) -> None:
    rack.bmc.limit = 0
    with pytest.raises(QuotaExceeded, match="no session left"):
        list(rack.compute().create(small_fleet()).machines())


@pytest.mark.parametrize("body", [b"[]", b"<html>", b'"x"', b"null"])
def test_what_is_no_redfish_is_no_machine(rack: Rack, body: bytes) -> None:
    (machine,) = rack.compute().create(small_fleet()).machines()
    machine.wait()
    rack.bmc.inject("status", status=200, body=body, match=to("GET", "/Systems/0"), times=None)
    assert (machine.info().state, "no JSON object" in machine.info().raw_state) == ("unknown", True)
    with pytest.raises(Unavailable, match="no JSON object"):
        machine.stop()


@pytest.mark.parametrize(
    "body", [b"{}", b'{"error": []}', b'{"error": {"@Message.ExtendedInfo": [1]}}', b"[1]", b"\xff"]
)
def test_a_refusal_that_is_no_redfish_is_a_refusal(rack: Rack, body: bytes) -> None:
    rack.bmc.inject("status", status=400, body=body, match=to("POST", "InsertMedia"))
    with pytest.raises(InvalidArgument):
        rack.compute().create(small_fleet())
    assert rack.claims() == {}


def test_a_power_state_that_is_wrong_for_a_while_does_no_harm(rack: Rack) -> None:
    compute = rack.compute()
    rack.bmc.lag = timedelta(seconds=40)
    fleet = compute.create(small_fleet())
    rack.bmc.clock.advance(41)
    rack.bmc.servers[0].said = "Off"  # it is on, and the BMC has not noticed
    assert [m.seen.state for m in fleet.machines()] == ["creating"]
    rack.bmc.clock.advance(121)
    assert [m.seen.state for m in fleet.machines()] == ["creating"]
    rack.bmc.servers[0].said = None
    assert [machine.state for machine in fleet.wait()] == ["running"]
    assert (rack.bmc.servers[0].started, rack.bmc.servers[0].told) == ([ISO], ["On", "On"])
    (machine,) = fleet.machines()
    rack.bmc.servers[0].said = "On"
    machine.stop()
    rack.bmc.clock.advance(41)
    assert machine.info().state == "stopping"
    rack.bmc.servers[0].said = None
    assert machine.info().state == "stopped"


@pytest.mark.parametrize(
    ("said", "state"),
    [("PoweringOn", "starting"), ("PoweringOff", "stopping"), ("Paused", "suspended"), ("Burning", "unknown")],
)
def test_the_states_between_are_told(rack: Rack, said: str, state: str) -> None:
    (machine,) = rack.compute().create(small_fleet()).machines()
    machine.wait()
    rack.bmc.servers[0].said = said
    assert (machine.info().state, machine.info().raw_state) == (state, said)
    with pytest.raises(Conflict, match=f"it is {state}"):
        machine.reboot()


def test_a_server_that_was_still_coming_up_is_not_released_before_it_is_off(rack: Rack) -> None:
    rack.bmc.lag = timedelta(seconds=60)
    compute = rack.compute()
    compute.create(small_fleet())
    (machine,) = compute.fleet("conf").machines()
    machine.delete()  # the BMC says Off, and will turn it on nevertheless
    assert machine.info().state == "deleting"
    driver = compute.unwrap(RedfishComputeDriver)
    size = driver.choose(small_fleet()).size
    with pytest.raises(Conflict, match="is being deleted"), compute._translated("create", None):
        driver.create_machine(small_fleet(), "conf-0", size=size, token=token_of("conf-0"), user_data=None)
    machine.wait_deleted()
    assert (rack.bmc.servers[0].power, rack.bmc.servers[0].told, rack.claims()) == ("Off", ["On", "ForceOff"], {})


def test_a_server_that_never_starts_has_failed(rack: Rack) -> None:
    rack.bmc.lag = timedelta(days=1)
    compute = rack.compute()
    fleet = compute.create(small_fleet())
    with pytest.raises(Conflict, match="it was told 5 times to start, and is Off"):
        fleet.wait()
    assert rack.bmc.servers[0].told == ["On"] * 5
    (change,) = compute.diff(small_fleet())
    assert change.destroys


def test_a_task_that_ends_in_an_error_is_told(rack: Rack) -> None:
    compute = rack.compute()
    rack.bmc.task_state = "Exception"
    fleet = compute.create(small_fleet())
    with pytest.raises(Conflict, match="the BMC's task ended as Exception: The fans do not turn"):
        fleet.wait()
    rack.bmc.task_state = "Completed"
    (change,) = compute.diff(small_fleet())
    compute.apply(change)
    (machine,) = fleet.machines()
    machine.wait()
    rack.bmc.task_state = "Killed"
    machine.stop()
    assert (machine.info().state, machine.info().raw_state) == (
        "running",
        "On; the BMC's task ended as Killed: no reason is given",
    )
    rack.bmc.task_state = None
    machine.stop()
    assert machine.wait("stopped").raw_state == "Off"


@pytest.mark.parametrize("state", ["Running", "Gone", "Silent"])
def test_a_task_that_tells_nothing_yet_or_any_more_is_no_error(rack: Rack, state: str) -> None:
    (machine,) = rack.compute().create(small_fleet()).machines()
    machine.wait()
    rack.bmc.task_state = state
    machine.stop()
    assert machine.info().state == "stopping"
    rack.bmc.servers[0].power = "Off"
    assert machine.info().state == "stopped"


def test_a_bmc_that_fails_to_tell_of_a_task_is_away(rack: Rack) -> None:
    (machine,) = rack.compute().create(small_fleet()).machines()
    machine.wait()
    rack.bmc.task_state = "Running"
    machine.stop()
    rack.bmc.inject("status", status=500, match=lambda call: "TaskMonitors" in call.path)
    assert machine.info().state == "unknown"
    rack.bmc.inject("status", status=400, match=lambda call: "TaskMonitors" in call.path)
    assert machine.info().raw_state == "On; the BMC's task failed: 400"


def test_keys_that_nobody_brings_are_told(rack: Rack, caplog: pytest.LogCaptureFixture) -> None:
    rack.compute().create(small_fleet()).wait()
    assert "fleet conf: the servers let in whom their image lets in" in caplog.text
    caplog.clear()
    rack.compute().create(attrs.evolve(small_fleet("other"), ssh_keys=())).wait()
    assert "ssh_keys" not in caplog.text


@pytest.mark.parametrize(
    ("status", "code", "error", "said"),
    [
        (400, "Base.1.8.PropertyValueNotInList", InvalidArgument, "so it says; the BMC is"),
        (401, "Base.1.8.NoValidSession", Unauthenticated, "does not know this user and password (it says: so it says)"),
        (403, "Base.1.8.InsufficientPrivilege", PermissionDenied, "needs the role Operator"),
        (400, "iLO.2.14.InsufficientPrivilege", PermissionDenied, "needs the role Operator"),
        (404, "Base.1.8.ResourceMissingAtURI", NotFound, "is `system` right?"),
        (405, "Base.1.8.ActionNotSupported", Unsupported, "so it says"),
        (409, "Base.1.8.ResourceInUse", Conflict, "so it says"),
        (412, "Base.1.8.PreconditionFailed", Conflict, "somebody else changed it"),
        (429, "", Throttled, "too much to do"),
        (500, "Base.1.8.InternalError", Unavailable, "so it says"),
        (503, "Base.1.8.ServiceTemporarilyUnavailable", Unavailable, "is not ready"),
        (503, "Base.1.8.SessionLimitExceeded", QuotaExceeded, "no session left"),
        (418, "", OperationError, "so it says"),
    ],
)
def test_what_a_bmc_says_has_one_meaning(
    rack: Rack, status: int, code: str, error: type[OperationError], said: str
) -> None:
    (machine,) = rack.compute().create(small_fleet()).machines()
    machine.wait()
    told = {"error": {"code": code, "message": "so\n it says", "@Message.ExtendedInfo": [{"MessageId": code}]}}
    body = json.dumps(told).encode()
    rack.bmc.inject("status", status=status, body=body, match=to("POST", RESET), times=2)
    with pytest.raises(error) as caught:
        machine.stop()
    assert type(caught.value) is error
    assert said in str(caught.value)
    assert (caught.value.code, rack.bmc.url in str(caught.value)) == (str(status), True)


# by force


def test_a_server_that_does_not_listen_is_turned_off(rack: Rack) -> None:
    (machine,) = rack.compute().create(small_fleet()).machines()
    machine.wait()
    rack.bmc.servers[0].deaf = True
    machine.stop()
    rack.bmc.clock.advance(60)
    assert (machine.info().state, rack.bmc.servers[0].told) == ("stopping", ["On", "GracefulShutdown"])
    rack.bmc.clock.advance(60)
    machine.info()
    assert rack.bmc.servers[0].told == ["On", "GracefulShutdown", "ForceOff"]
    assert machine.info().state == "stopped"


def test_a_server_that_does_not_listen_is_restarted(rack: Rack) -> None:
    (machine,) = rack.compute().create(small_fleet()).machines()
    machine.wait()
    rack.bmc.servers[0].deaf = True
    machine.reboot()
    assert machine.info().state == "rebooting"
    rack.bmc.clock.advance(121)
    assert machine.wait().state == "running"
    assert rack.bmc.servers[0].told == ["On", "GracefulRestart", "ForceRestart"]
    assert rack.bmc.servers[0].started == [ISO, "disk"]


def test_a_bmc_that_does_not_tell_of_restarts_is_believed(rack: Rack) -> None:
    rack.bmc.tells_resets = False
    (machine,) = rack.compute().create(small_fleet()).machines()
    machine.wait()
    machine.reboot()
    assert machine.info().state == "running"
    assert rack.bmc.servers[0].started == [ISO, "disk"]


@pytest.mark.parametrize(
    ("allowed", "told"),
    [
        (("On", "ForceOff"), ["On", "ForceOff"]),
        (("ForceOn", "GracefulShutdown"), ["ForceOn", "GracefulShutdown"]),
        (None, ["On", "GracefulShutdown"]),
    ],
)
def test_what_a_bmc_takes_decides_the_way(rack: Rack, allowed: tuple[str, ...] | None, told: list[str]) -> None:
    rack.bmc.allowed = allowed
    rack.bmc.lag = timedelta(0)
    compute = rack.compute()
    (machine,) = compute.create(small_fleet()).machines()
    rack.bmc.servers[0].power = "On"  # the double does not know ForceOn
    machine.wait()
    machine.stop()
    assert rack.bmc.servers[0].told == told


def test_what_a_bmc_does_not_take_is_unsupported(rack: Rack) -> None:
    rack.bmc.allowed = ("On", "ForceOff")
    (machine,) = rack.compute().create(small_fleet()).machines()
    machine.wait()
    with pytest.raises(Unsupported, match="cannot restart it: it takes ForceOff, On"):
        machine.reboot()


# who has what


CLAIMER = """
import sys
from pathlib import Path
from shiftable.blob import BucketSpec
from shiftable.compute import Compute
from shiftable.config import Credential
from shiftable.errors import OperationError
from shiftable.testing.conformance.compute import small_fleet
from shiftable_baremetal import RedfishImageSettings, RedfishServerSettings, RedfishSettings
from shiftable_baremetal.compute_redfish import open_redfish

fleet, folder, url, count = sys.argv[1:5]
servers = tuple(
    RedfishServerSettings(name=f"r{number}", bmc=url, system=f"/redfish/v1/Systems/{number}")
    for number in range(int(count))
)
images = (RedfishImageSettings(name="debian-12", boot="disk"),)
password = Credential.literal(sys.stdin.readline().strip())
driver = open_redfish(
    RedfishSettings(servers=servers, images=images, username="ops", password=password, tls=False), Path(folder)
)
print("ready", flush=True)
sys.stdin.readline()
try:
    Compute(driver).create(small_fleet(fleet, count=4))
except OperationError as exc:
    print(type(exc).__name__)
driver.close()
"""


def test_claimers_in_several_processes_never_get_one_server(make_rack: Callable[..., Rack], tmp_path: Path) -> None:
    rack = make_rack(7)
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", CLAIMER, f"f{number}", str(tmp_path / "claims"), rack.bmc.url, "7"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(3)
    ]
    for process in processes:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(f"{CANARY}\n")
        process.stdin.flush()
        assert process.stdout.readline() == "ready\n"
    said = [process.communicate("go\n")[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert {line for text in said for line in text.split()} <= {"QuotaExceeded", "Conflict"}
    claims = rack.claims()
    started = {f"r{number}": server.started for number, server in enumerate(rack.bmc.servers) if server.started}
    assert started == {server: ["disk"] for server in claims}  # each once
    assert len({claim["name"] for claim in claims.values()}) == len(claims)
    assert len(claims) == 7


def test_a_machine_that_several_make_is_one_server(rack: Rack) -> None:
    drivers, ids = [rack.driver() for _ in range(3)], []
    size = drivers[0].choose(small_fleet()).size

    def claim(driver: RedfishComputeDriver) -> None:
        made = driver.create_machine(small_fleet(), "conf-0", size=size, token=token_of("conf-0"), user_data=None)
        ids.append(made.id)

    threads = [threading.Thread(target=claim, args=(driver,)) for driver in drivers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ids) == 3
    assert len(set(ids)) == 1
    assert [server.started for server in rack.bmc.servers] == [[ISO], [], []]


def test_a_server_that_is_on_is_somebodys(rack: Rack) -> None:
    rack.bmc.servers[0].power = "On"
    compute = rack.compute()
    (machine,) = compute.create(small_fleet()).wait()
    assert machine.id.startswith("r1/")
    rack.bmc.servers[2].power = "On"
    with pytest.raises(QuotaExceeded, match=r"on without being claimed \(r0, r2: turn them off to have them\)"):
        compute.create(small_fleet("other"))
    assert rack.bmc.servers[0].told == rack.bmc.servers[2].told == []


def test_a_name_that_is_taken_by_another_fleet_is_refused(rack: Rack) -> None:
    compute = rack.compute()
    compute.create(small_fleet()).wait()
    driver = compute.unwrap(RedfishComputeDriver)
    size = driver.choose(small_fleet()).size
    for fleet, token in (("other", token_of("conf-0")), ("conf", "another")):
        with pytest.raises(AlreadyExists, match="conf-0"), compute._translated("create", None):
            driver.create_machine(small_fleet(fleet), "conf-0", size=size, token=token, user_data=None)
    assert list(rack.claims()) == ["r0"]


def test_a_deletion_that_comes_late_does_not_end_the_next_claim(rack: Rack) -> None:
    compute = rack.compute()
    (first,) = compute.create(small_fleet("first")).machines()
    first.wait()
    compute.delete("first")
    (second,) = compute.create(small_fleet("second")).machines()
    second.wait()
    first.delete()
    for call in (first.info, first.stop, first.reboot):
        with pytest.raises(NotFound):
            call()
    assert (second.id.partition("/")[0], second.info().state) == ("r0", "running")


def test_two_who_look_at_once_ask_once(rack: Rack) -> None:
    one, two = rack.compute(), rack.compute()
    (machine,) = one.create(small_fleet()).machines()
    machine.wait()
    rack.bmc.servers[0].deaf = True
    machine.stop()
    rack.bmc.clock.advance(121)
    (same,) = two.fleet("conf").machines()  # has just turned it off
    machine.info()
    assert rack.bmc.servers[0].told == ["On", "GracefulShutdown", "ForceOff"]
    assert same.id == machine.id


def test_a_deletion_is_not_lost_to_one_who_looks_at_the_same_time(rack: Rack, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = rack.driver(), rack.driver()
    (machine,) = rack.of(one).create(small_fleet()).machines()
    stale = attrs.evolve(one._claim_of(machine.id), reached=False)  # as it was before somebody noted that it runs
    monkeypatch.setattr(RedfishComputeDriver, "_claim_of", lambda *_: stale)
    one.delete_machine(machine.id)
    monkeypatch.undo()
    assert list(rack.of(two).machines()) == []
    assert (rack.bmc.servers[0].told, rack.claims()) == (["On", "ForceOff"], {})


def test_what_one_tells_a_bmc_never_meets_the_next_who_has_the_server(rack: Rack) -> None:
    one, two = rack.driver(), rack.driver()
    (machine,) = rack.of(one).create(small_fleet()).machines()
    machine.wait()
    mine = one._taken(one._claim_of(machine.id))  # and falls asleep before it tells the BMC anything
    assert mine is not None
    other = rack.of(two)
    other.fleet("conf").machine("conf-0").delete()
    for call in (lambda: list(other.machines()), lambda: rack.bmc.clock.advance(121)) * 3:
        call()
    assert list(rack.claims()) == ["r0"]
    assert rack.bmc.servers[0].told == ["On"]
    one._returned(mine, aim="off")
    assert rack.claims()["r0"]["aim"] == "gone"
    assert [m.seen.state for m in other.machines()] == ["deleting"]
    assert list(other.machines()) == []
    assert rack.claims() == {}
    assert other.create(small_fleet()).wait()[0].state == "running"


def test_who_has_a_bmc_and_dies_is_waited_for_ten_minutes(rack: Rack) -> None:
    one = rack.driver()
    (machine,) = rack.of(one).create(small_fleet()).machines()
    machine.wait()
    assert one._taken(one._claim_of(machine.id)) is not None
    with pytest.raises(Conflict, match="somebody else tells its BMC something"):
        machine.stop()
    assert rack.bmc.servers[0].told == ["On"]
    rack.bmc.clock.advance(600)
    machine.stop()
    assert machine.wait("stopped").state == "stopped"
    assert rack.claims()["r0"]["busy"] is None


@pytest.mark.parametrize("content", ["nonsense", '{"claims": [{}]}', '{"format": 1}', "[]"])
def test_what_is_no_claim_is_a_conflict(rack: Rack, content: str) -> None:
    compute = rack.compute()
    compute.create(small_fleet()).wait()
    (path,) = rack.folder.rglob("claims.json")
    path.write_text(content)
    with pytest.raises(Conflict, match="are no claims of this program"):
        list(compute.list())


def test_labels_are_changed_without_a_bmc(rack: Rack) -> None:
    compute = rack.compute()
    compute.create(attrs.evolve(small_fleet(), labels={"stage": "test"})).wait()
    (machine,) = compute.fleet("conf").machines()
    before = len(rack.bmc.calls)
    machine.relabel({"team": "data"}, remove=["stage"])
    assert (len(rack.bmc.calls), rack.claims()["r0"]["labels"]) == (before, {"team": "data"})
    fewer = rack.compute(servers=rack.settings().servers[1:]).fleet("conf").machine("conf-0")
    fewer.relabel({"team": "shop"})
    assert machine.info().user_labels == {"team": "shop"}


def test_labels_that_others_change_at_the_same_time_are_not_lost(rack: Rack, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = rack.driver(), rack.driver()
    (machine,) = rack.of(one).create(small_fleet()).machines()
    machine.wait()
    (theirs,) = rack.of(two).fleet("conf").machines()
    stale = one._claims.read()
    assert stale["r0"].labels == {}
    real, met = type(one._claims)._read, list[int]()

    def overtaken(claims: Any, bucket: Any) -> Any:
        found = real(claims, bucket)
        if claims is one._claims and len(met) < 3:
            met.append(1)
            theirs.relabel({f"theirs-{len(met)}": "x"})
        return found

    monkeypatch.setattr(type(one._claims), "_read", overtaken)
    machine.relabel({"team": "data"})
    monkeypatch.undo()
    expected = {"team": "data", **{f"theirs-{number}": "x" for number in (1, 2, 3)}}
    assert machine.info().user_labels == expected


def test_a_label_meets_neither_a_restart_nor_the_next_who_has_the_server(rack: Rack) -> None:
    compute = rack.compute()
    compute.create(small_fleet()).wait()
    (machine,) = compute.fleet("conf").machines()
    machine.reboot()
    machine.relabel({"team": "data"})
    assert machine.wait().user_labels == {"team": "data"}
    machine.delete()
    machine.wait_deleted()
    (following,) = compute.create(small_fleet("other")).machines()
    with pytest.raises(NotFound):
        machine.relabel({"team": "late"})
    assert following.info().user_labels == {}


def test_labels_of_the_inventory_are_not_the_claims_to_lose(rack: Rack) -> None:
    servers = tuple(attrs.evolve(server, labels={"rack": "7"}) for server in rack.settings().servers)
    (machine,) = rack.compute(servers=servers).create(small_fleet()).machines()
    with pytest.raises(Conflict, match="inventory gives r0 the label 'rack'"):
        machine.relabel(remove=["rack"])
    machine.relabel({"rack": "8"})
    assert machine.info().user_labels == {"rack": "8"}


def test_a_server_that_left_the_inventory_is_still_claimed(rack: Rack) -> None:
    rack.compute().create(small_fleet()).wait()
    fewer = rack.settings().servers[1:]
    compute = rack.compute(servers=fewer)
    (machine,) = compute.fleet("conf").machines()
    assert (machine.seen.state, machine.seen.raw_state) == ("unknown", "its server is no longer in the inventory")
    with pytest.raises(Conflict, match="no longer in the inventory"):
        machine.delete()
    assert list(rack.claims()) == ["r0"]


# images and needs


@pytest.mark.parametrize(("image", "source"), [("pxe", "network"), ("installed", "disk"), ("debian-12", ISO)])
def test_a_server_starts_from_what_the_image_says_and_then_from_its_disk(rack: Rack, image: str, source: str) -> None:
    compute = rack.compute()
    fleet = compute.create(attrs.evolve(small_fleet(), image=image))
    (machine,) = fleet.wait()
    fleet.reboot()
    assert rack.bmc.servers[0].started == [source, "disk"]
    assert machine.user == ("debian" if image == "debian-12" else "root")
    compute.delete("conf")
    assert rack.bmc.servers[0].image is None


def test_an_image_that_an_earlier_owner_left_is_replaced(rack: Rack) -> None:
    rack.bmc.servers[0].image = "http://old.example/x.iso"
    rack.compute().create(small_fleet()).wait()
    assert rack.bmc.servers[0].started == [ISO]


def test_a_bmc_that_keeps_the_image_does_not_keep_the_server(rack: Rack, caplog: pytest.LogCaptureFixture) -> None:
    compute = rack.compute()
    compute.create(small_fleet()).wait()
    rack.bmc.inject("status", status=500, match=to("POST", "EjectMedia"), times=None)
    compute.delete("conf")
    assert (rack.claims(), rack.bmc.servers[0].power, rack.bmc.servers[0].image) == ({}, "Off", ISO)
    assert "the image stays in a virtual drive of the server r0" in caplog.text


def test_an_image_that_nobody_declared_is_refused(rack: Rack) -> None:
    with pytest.raises(InvalidArgument, match="declared are: debian-12, ubuntu-24.04, pxe, installed"):
        rack.compute().create(attrs.evolve(small_fleet(), image="plan9"))
    images = (RedfishImageSettings(name="debian-12", url=ISO, arch="arm64"),)
    with pytest.raises(InvalidArgument, match="is for arm64, not x86_64"):
        rack.compute(images=images).create(small_fleet())
    assert rack.bmc.servers[0].told == []


def test_what_no_server_has_is_told(rack: Rack) -> None:
    compute = rack.compute()
    with pytest.raises(
        InvalidArgument, match="no server of the inventory has 8 CPUs, 32 GiB in zone nowhere and a disk"
    ):
        compute.create(attrs.evolve(small_fleet(), zone="nowhere"))
    assert rack.claims() == {}


def test_where_no_bmc_can_be_reached_that_is_said_of_sizes_too(rack: Rack) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))  # and does not listen
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        away = RedfishServerSettings(name="away", bmc=address)
        compute = rack.compute(servers=(away,))
        for act in (lambda: list(compute.sizes()), lambda: compute.choose(small_fleet())):
            with pytest.raises(Unavailable, match=f"the BMC at {address} cannot be reached"):
                act()
        both = rack.compute(servers=(away, *rack.settings().servers))
        assert 1 == len(list(both.sizes()))


def test_a_bmc_that_refuses_the_image_leaves_the_server_free_and_the_secrets_secret(rack: Rack) -> None:
    url = f"http://images.example/refused.iso?signature={MEDIA_CANARY}"
    password = Credential.literal(CANARY[::-1])
    images = (RedfishImageSettings(name="debian-12", url=url, username="media", password=password),)
    compute = rack.compute(images=images)
    with pytest.raises(InvalidArgument, match=r"\*{3} with \*{3} cannot be read: no answer to \*{3}, \*{3}") as caught:
        compute.create(small_fleet())
    shown = str(caught.value) + repr(caught.value) + repr(caught.value.__cause__) + repr(rack.settings(images=images))
    assert not {secret for secret in (CANARY, CANARY[::-1], MEDIA_CANARY) if secret in shown}
    assert rack.claims() == {}


def test_nothing_secret_is_logged_or_written(rack: Rack, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    url = f"http://images.example/x.iso?signature={MEDIA_CANARY}"
    image = RedfishImageSettings(name="debian-12", url=url, username="m", password=Credential.literal(CANARY))
    driver = rack.driver(images=(image,))
    compute = rack.of(driver)
    compute.create(small_fleet()).wait()
    assert (rack.bmc.servers[0].started, rack.bmc.servers[0].media_user) == ([url], "m")
    tokens = list(rack.bmc.sessions.values())
    rack.bmc.expire()
    compute.fleet("conf").reboot()
    compute.delete("conf")
    written = "".join(path.read_text(errors="replace") for path in rack.folder.rglob("*") if path.is_file())
    shown = caplog.text + repr(driver) + repr(driver._bmcs) + written
    assert not {secret for secret in (CANARY, MEDIA_CANARY, *tokens) if secret in shown}


def test_what_a_server_has_is_asked_once_an_hour(rack: Rack) -> None:
    driver = rack.driver()
    compute = rack.of(driver)
    assert [(size.name, size.cpus) for size in compute.sizes()] == [("8-32", 8)]
    before = len(rack.bmc.calls)
    list(compute.sizes())
    assert len(rack.bmc.calls) == before
    rack.bmc.clock.advance(3600)
    rack.bmc.cpus = 16
    assert [size.name for size in compute.sizes()] == ["16-32"]


def test_declared_figures_win_over_those_of_the_bmc(rack: Rack) -> None:
    first, *others = rack.settings().servers
    compute = rack.compute(servers=(attrs.evolve(first, cpus=2, memory_gib=4), *others))
    assert sorted(size.name for size in compute.sizes()) == ["2-4", "8-32"]
    (machine,) = compute.create(FleetSpec(name="big", image="pxe", cpus=4, memory_gib=4)).wait()
    assert machine.id.startswith("r1/")


def test_a_bmc_that_tells_no_figures_needs_them_declared(rack: Rack) -> None:
    rack.bmc.memory = 0
    with pytest.raises(InvalidArgument, match="declare cpus and memory_gib"):
        list(rack.compute().sizes())


def test_a_listing_asks_each_server_once(make_rack: Callable[..., Rack]) -> None:
    rack = make_rack(1, 1, 1)
    compute = rack.compute()
    compute.create(small_fleet(count=3)).wait()
    before = [len(bmc.calls) for bmc in rack.bmcs]
    assert len(list(compute.machines())) == 3
    assert [len(bmc.calls) - count for bmc, count in zip(rack.bmcs, before, strict=True)] == [1, 1, 1]


# who is there


@pytest.fixture
def encrypted(rack: Rack, tmp_path: Path) -> Path:
    """Have the BMC speak TLS; return the certificate to trust."""
    trusted, key = certificate(tmp_path / "tls")
    server = rack.bmc._server
    assert server is not None
    server.socket = serving_tls(trusted, key).wrap_socket(server.socket, server_side=True)
    return trusted


def https(rack: Rack) -> tuple[RedfishServerSettings, ...]:
    return tuple(
        attrs.evolve(server, bmc=server.bmc.replace("http://", "https://")) for server in rack.settings().servers
    )


def test_a_bmc_must_prove_who_it_is(rack: Rack, encrypted: Path, tmp_path: Path) -> None:
    servers = https(rack)
    other, _ = certificate(tmp_path / "other")
    for ca_bundle in (None, other):
        with pytest.raises(PermissionDenied, match="does not prove who it is: certificate verify failed"):
            rack.compute(servers=servers, tls=True, ca_bundle=ca_bundle).create(small_fleet())
    assert rack.bmc.calls == ()
    (machine,) = rack.compute(servers=servers, tls=True, ca_bundle=encrypted).create(small_fleet()).wait()
    assert machine.state == "running"


@pytest.mark.filterwarnings("ignore:Unverified HTTPS request")
@pytest.mark.usefixtures("encrypted")
def test_proof_is_waived_only_by_the_settings(rack: Rack) -> None:
    with pytest.warns(Warning, match="Unverified HTTPS request"):
        assert list(rack.compute(servers=https(rack)).sizes())


def test_the_environment_has_no_say(rack: Rack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login evil password evil\n")
    (tmp_path / ".netrc").chmod(0o600)
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    rack.bmc.has_sessions = False
    assert [machine.state for machine in rack.compute().create(small_fleet()).wait()] == ["running"]


class _Elsewhere(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.server.seen.append(self.path)  # type: ignore[attr-defined]
        self.send_error(404)

    do_POST = do_PATCH = do_GET  # noqa: N815  as http.server has it

    def log_message(self, *_: object) -> None:
        """Print nothing."""


@pytest.mark.parametrize("how", ["redirect", "link"])
def test_nobody_is_followed_to_another_address(rack: Rack, how: str) -> None:
    other = ThreadingHTTPServer(("127.0.0.1", 0), _Elsewhere)
    other.seen = []  # type: ignore[attr-defined]
    serving = threading.Thread(target=other.serve_forever, args=(0.01,))
    serving.start()
    try:
        where = f"http://127.0.0.1:{other.server_address[1]}/redfish/v1/Systems/0"
        if how == "redirect":
            rack.bmc.inject("status", status=307, headers=[("Location", where)], match=to("GET", "/Systems/0"), times=9)
        else:
            reset = {"#ComputerSystem.Reset": {"target": where, "ResetType@Redfish.AllowableValues": ["On"]}}
            told = {"@odata.id": where, "Id": "0", "PowerState": "Off", "Actions": reset}
            told |= {"ProcessorSummary": {"Count": 8}, "MemorySummary": {"TotalSystemMemoryGiB": 32}}
            body = json.dumps(told).encode()
            rack.bmc.inject("status", status=200, body=body, match=to("GET", "/Systems/0"), times=9)
        with pytest.raises(Conflict, match="sends us"):
            rack.compute().create(attrs.evolve(small_fleet(), image="installed"))
        assert other.seen == []  # type: ignore[attr-defined]
        assert rack.claims() == {}
    finally:
        other.shutdown()
        serving.join()
        other.server_close()


def test_a_bmc_is_followed_to_another_place_of_its_own(rack: Rack) -> None:
    (machine,) = rack.compute().create(small_fleet()).wait()
    headers = [("Location", "/redfish/v1/Systems/0/")]
    rack.bmc.inject("status", status=308, headers=headers, match=to("GET", "/Systems/0"))
    assert rack.compute().fleet("conf").machine("conf-0").info().id == machine.id
    rack.bmc.inject("status", status=308, headers=headers, match=to("POST", RESET))
    with pytest.raises(Conflict, match="sends us elsewhere"):
        rack.compute().fleet("conf").stop()


# settings


SERVER = {"name": "r1", "bmc": "https://bmc.example"}


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        (RedfishServerSettings, {**SERVER, "name": "a/b"}),
        (RedfishServerSettings, {**SERVER, "bmc": "bmc.example"}),
        (RedfishServerSettings, {**SERVER, "bmc": "https://user@bmc.example"}),
        (RedfishServerSettings, {**SERVER, "bmc": "https://bmc.example/redfish/v1"}),
        (RedfishServerSettings, {**SERVER, "system": "1"}),
        (RedfishServerSettings, {**SERVER, "cpus": 0}),
        (RedfishImageSettings, {"name": "x"}),
        (RedfishImageSettings, {"name": "x", "boot": "network", "url": ISO}),
        (RedfishImageSettings, {"name": "x", "url": "http://u@images.example/x.iso"}),
        (RedfishImageSettings, {"name": "x", "url": ISO, "username": "u"}),
    ],
    ids=["name", "bmc", "user", "path", "system", "cpus", "no-url", "url", "url-user", "no-password"],
)
def test_what_cannot_be_is_refused(kind: Callable[..., Any], wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"must|goes with|go together"):
        kind(**wrong)


def test_settings_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    server, missing = RedfishServerSettings(name="r1", bmc="http://bmc.example"), tmp_path / "missing"
    told = RedfishSettings(
        servers=(server, server),
        images=(IMAGES[0], IMAGES[0]),
        username="ops",
        password=Credential.literal(CANARY),
        ca_bundle=missing,
    )
    with pytest.raises(ConfigError) as caught:
        open_redfish(told, tmp_path)
    assert [(problem.place, problem.message.partition(":")[0]) for problem in caught.value.problems] == [
        ("redfish.servers", "two of them have the same name"),
        ("redfish.images", "two of them have the same name"),
        ("redfish.servers", "two of them are the same system of the same BMC"),
        ("redfish.servers", "r1 is without TLS"),
        ("redfish.servers", "r1 is without TLS"),
        (
            "redfish.ca_bundle",
            f"{tmp_path / 'missing'} is no file of certificates ([Errno 2] No such file or directory)",
        ),
    ]


def test_servers_are_declared_in_the_file_with_a_bucket_for_claims(
    rack: Rack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BMC_PASSWORD", CANARY)
    (tmp_path / "shiftable.toml").write_text(
        textwrap.dedent(f"""
            [project]
            name = "shop"
            [environments.production]
            provider = "rack"
            [environments.production.overrides]
            "blob.state" = "shared"
            [providers.shared]
            type = "baremetal"
            root = "{tmp_path}/shared"
            [providers.rack]
            type = "baremetal"
            [providers.rack.redfish]
            username = "ops"
            password = {{ env = "BMC_PASSWORD" }}
            tls = false
            claims = {{ bucket = "state", prefix = "rack-a/" }}
            [[providers.rack.redfish.servers]]
            name = "r1u07"
            bmc = "{rack.bmc.url}"
            system = "/redfish/v1/Systems/1"
            host = "r1u07.example"
            labels = {{ rack = "a" }}
            [[providers.rack.redfish.images]]
            name = "debian-12"
            url = "{ISO}"
            [blob.state]
            bucket = "state"
            [compute.web]
            image = "debian-12"
            cpus = 2
            memory_gib = 4
        """)
    )
    (tmp_path / "shared").mkdir()
    with shiftable.load(tmp_path, environment="production") as app:
        app.cloud("shared").blob.create(BucketSpec(name="state"))
        fleet = app.compute("web")
        assert fleet.declared is not None
        (change,) = app.cloud("rack").compute.diff(fleet.declared)
        app.cloud("rack").compute.apply(change)
        (info,) = fleet.wait()
    assert (info.id.split("/")[:2], info.labels["rack"], info.addresses) == (
        ["r1u07", "web-0"],
        "a",
        ("r1u07.example",),
    )
    assert rack.bmc.servers[1].started == [ISO]
    (path,) = (tmp_path / "shared").rglob("claims.json")
    assert path.parent.name == "rack-a"


def test_a_claim_is_read_as_it_was_written() -> None:
    now = datetime.now(UTC)
    claim = Claim(
        server="r1",
        mark="0" * 16,
        fleet="f",
        name="f-0",
        token="t",
        image="i",
        size="s",
        cpus=1,
        memory=2,
        disk_gib=3,
        labels={"a": "b"},
        created=now,
        asked=now,
        busy=now,
    )
    from shiftable_baremetal import _redfish_claims

    assert _redfish_claims._read(_redfish_claims._written({"r1": claim}), "here") == {"r1": claim}


def test_what_redfish_cannot_do_is_refused(rack: Rack) -> None:
    compute = rack.compute()
    (machine,) = compute.create(small_fleet()).machines()
    machine.wait()
    calls: list[Callable[[], object]] = [
        machine.console,
        lambda: machine.resize(cpus=8),
        lambda: machine.snapshot("x"),
        lambda: compute.create_disk("x", 1),
        lambda: compute.create(attrs.evolve(small_fleet("other"), user_data_text="#!/bin/sh\n")),
    ]
    for call in calls:
        with pytest.raises(Unsupported):
            call()

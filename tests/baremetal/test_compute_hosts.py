"""An inventory of hosts: claimed once each, whatever breaks. A program stands in for ssh: a host is a folder here."""

from __future__ import annotations

import os
import shutil
import stat
import textwrap
import threading
import time
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import Phase, settings
from hypothesis.stateful import run_state_machine_as_test

import shiftable
from shiftable.compute import ALIASES, Compute, FleetSpec
from shiftable.compute._rules import token_of
from shiftable.compute.driver import ComputeDriver
from shiftable.errors import (
    AlreadyExists,
    ConfigError,
    Conflict,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    QuotaExceeded,
    Unavailable,
    Unsupported,
)
from shiftable.testing.conformance import differs
from shiftable.testing.conformance.compute import ComputeConformance, Sleep, compute_machine, small_fleet
from shiftable_baremetal import HostSettings
from shiftable_baremetal.compute_hosts import HostsComputeDriver

CANARY = "canary-" + "7c2a" * 4

SSH = """#!/bin/sh
# ssh, as far as it is asked for: the host's folder is its user's home, and what is in it orders what goes wrong
echo "$*" >> "{hosts}/calls"
while [ "$1" != -- ]; do shift; done
shift
home="{hosts}/$1"
[ -d "$home" ] && [ ! -e "$home/down" ] || {{ echo "ssh: connect to host $1: No route to host" >&2; exit 255; }}
if [ -e "$home/before" ]; then rm "$home/before"; exit 255; fi
export HOME="$home" PATH="{hosts}/.bin:$PATH"
cd "$home"
echo "Welcome to $1"
shift
if [ -e half ]; then rm half; head -c 700 | sh -c "$*"; exit 255; fi
sh -c "$*"
code=$?
if [ -e after ]; then rm after; exit 255; fi
exit $code
"""
CAT = """#!/bin/sh
if [ "$1" = /proc/sys/kernel/random/boot_id ]; then exec {cat} "$HOME/boot"; fi
exec {cat} "$@"
"""
SUDO = """#!/bin/sh
[ "$1" = -n ] && [ ! -e "$HOME/no-sudo" ] || exit 1
shift
exec "$@"
"""
ID = """#!/bin/sh
echo 1000
"""
REBOOT = """#!/bin/sh
echo second > "$HOME/boot.new" && mv "$HOME/boot.new" "$HOME/boot"  # at once: a reader meets one whole boot or the next
"""


@attrs.frozen
class Hosts:
    """Hosts h0, h1, … that all are alike, unless ``more`` says otherwise."""

    folder: Path

    def make(self, count: int, **more: Any) -> tuple[HostSettings, ...]:
        made = []
        for number in range(count):
            (self.folder / f"h{number}").mkdir(exist_ok=True)
            (self.folder / f"h{number}" / "boot").write_text("first\n")
            given = {"cpus": 4, "memory_gib": 8, **more}
            made.append(HostSettings(name=f"host-{number}", address=f"h{number}", user="ops", **given))
        return tuple(made)

    def home(self, number: int) -> Path:
        return self.folder / f"h{number}"

    def order(self, number: int, what: str) -> None:
        (self.home(number) / what).touch()

    def claimed(self) -> list[str]:
        """Return the hosts that are claimed, as their files say."""
        found = []
        for home in sorted(self.folder.glob("h*")):
            claims = sorted(home.glob(".shiftable/claim.*"), key=lambda path: int(path.suffix[1:]))
            if claims and not claims[-1].with_name(f"released{claims[-1].suffix}").exists():
                found.append(home.name)
        return found


@pytest.fixture
def hosts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hosts:
    folder = tmp_path / "hosts"
    (folder / ".bin").mkdir(parents=True)
    (tmp_path / "bin").mkdir()
    programs = {"cat": CAT, "sudo": SUDO, "id": ID, "reboot": REBOOT}
    for path, text in (
        (tmp_path / "bin" / "ssh", SSH),
        *((folder / ".bin" / name, programs[name]) for name in programs),
    ):
        path.write_text(text.format(hosts=folder, cat=shutil.which("cat")))
        path.chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    return Hosts(folder)


def soon(seconds: float) -> None:
    time.sleep(min(seconds, 0.05))


def compute_of(made: tuple[HostSettings, ...]) -> Compute:
    return Compute(HostsComputeDriver(made), sleep=soon)


class TestHostsCompute(ComputeConformance):
    many = 7
    unknown_images = ()  # these hosts have whatever is asked for

    @pytest.fixture
    def driver(self, hosts: Hosts, request: pytest.FixtureRequest) -> ComputeDriver:
        count = 24 if request.node.name == "test_fleets_are_listed_once_each" else 8
        return HostsComputeDriver(hosts.make(count), page_size=3)

    @pytest.fixture
    def sleep(self) -> Sleep:
        return soon

    @differs("a host runs already: it takes scripts, not cloud-config")
    def test_user_data_is_read_when_a_machine_is_made(self, compute: Compute, tmp_path: Path) -> None:
        spec = attrs.evolve(small_fleet(), user_data=tmp_path / "script")
        with pytest.raises(ConfigError, match="script"):
            compute.create(spec)
        (tmp_path / "script").write_text("#!/bin/sh\ntouch ~/made\n")
        assert len(compute.create(spec).wait()) == 1
        (tmp_path / "script").write_text("#cloud-config\n")
        with pytest.raises(InvalidArgument, match="a script that begins with #!"):
            compute.create(attrs.evolve(spec, name="other"))

    @differs("the sizes are those of the hosts of an inventory, and these are of one kind")
    def test_sizes_are_listed_once_each(self, compute: Compute) -> None:
        assert [size.name for size in compute.sizes()] == ["4-8"]


def test_any_sequence_leaves_what_is_declared(hosts: Hosts) -> None:
    few = settings(max_examples=2, stateful_step_count=6, deadline=None, database=None, derandomize=True)
    machine = compute_machine(lambda: HostsComputeDriver(hosts.make(8)), soon)
    run_state_machine_as_test(machine, settings=settings(few, phases=[Phase.generate]))


# claims


def test_two_claimers_never_get_one_host(hosts: Hosts) -> None:
    made = hosts.make(4)
    names, lost = [], []

    def claim(fleet: str) -> None:
        driver = HostsComputeDriver(made)
        spec = small_fleet(fleet)
        size = driver.choose(spec).size
        try:
            found = driver.create_machine(spec, f"{fleet}-0", size=size, token=token_of(fleet), user_data=None)
        except Exception as exc:  # noqa: BLE001  looked at below
            lost.append(driver.classify(exc))
        else:
            names.append(found.id.partition("/")[0])

    threads = [threading.Thread(target=claim, args=(f"f{number}",)) for number in range(7)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(names)) == len(names) == len(hosts.claimed())
    assert len(names) + len(lost) == 7
    assert {fault.error for fault in lost if fault is not None} <= {QuotaExceeded, Conflict}
    assert len(names) >= 1


def test_a_machine_that_several_make_is_one_host(hosts: Hosts) -> None:
    made, ids = hosts.make(6), []
    driver = HostsComputeDriver(made)
    size = driver.choose(small_fleet()).size

    def claim() -> None:
        ids.append(
            driver.create_machine(small_fleet(), "conf-0", size=size, token=token_of("conf-0"), user_data=None).id
        )

    threads = [threading.Thread(target=claim) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(set(ids)), hosts.claimed()) == (1, ["h0"])


@pytest.mark.parametrize("fault", ["before", "after", "half"])
def test_an_answer_to_the_claim_itself_that_is_lost_makes_no_second_machine(
    hosts: Hosts, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = hosts.make(3)
    driver, real = HostsComputeDriver(made), HostsComputeDriver._do
    claims = []

    def broken(self: HostsComputeDriver, host: HostSettings, script: str) -> Any:
        if "new." in script and not claims:
            claims.append(host.name)
            hosts.order(int(host.name[-1]), fault)
        return real(self, host, script)

    monkeypatch.setattr(HostsComputeDriver, "_do", broken)
    size = driver.choose(small_fleet()).size
    with pytest.raises(Unavailable):
        driver.create_machine(small_fleet(), "conf-0", size=size, token=token_of("conf-0"), user_data=None)
    assert hosts.claimed() == (["h0"] if fault == "after" else [])
    again = driver.create_machine(small_fleet(), "conf-0", size=size, token=token_of("conf-0"), user_data=None)
    assert again.id.startswith("host-0/")
    assert hosts.claimed() == ["h0"]
    assert [path.name for path in hosts.home(0).glob(".shiftable/new.*")] == []


def test_a_release_that_comes_late_does_not_end_the_next_claim(hosts: Hosts) -> None:
    compute = compute_of(hosts.make(1))
    (first,) = compute.create(small_fleet("first")).machines()
    first.delete()
    (second,) = compute.create(small_fleet("second")).machines()
    first.delete()
    with pytest.raises(NotFound):
        first.info()
    assert (second.wait().fleet, hosts.claimed()) == ("second", ["h0"])
    assert sorted(path.name for path in hosts.home(0).glob(".shiftable/claim.*")) == ["claim.2"]


def versions(hosts: Hosts, number: int = 0) -> list[str]:
    return sorted(path.name for path in hosts.home(number).glob(".shiftable/labels.*"))


@pytest.mark.parametrize("fault", ["before", "after", "half"])
def test_labels_whose_change_was_not_answered_are_changed_by_the_same_call_again(
    hosts: Hosts, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    compute, real = compute_of(hosts.make(1)), HostsComputeDriver._do
    (machine,) = compute.create(attrs.evolve(small_fleet(), labels={"stage": "test"})).machines()
    broke = []

    def broken(self: HostsComputeDriver, host: HostSettings, script: str) -> Any:
        if "/labels labels." in script and not broke:
            broke.append(script)
            hosts.order(0, fault)
        return real(self, host, script)

    monkeypatch.setattr(HostsComputeDriver, "_do", broken)
    with pytest.raises(Unavailable):
        machine.relabel({"team": "data", "note": 'it\'s "odd" $HOME'}, remove=["stage"])
    assert versions(hosts) == (["labels.1.1"] if fault == "after" else [])
    for _ in range(2):
        machine.relabel({"team": "data", "note": 'it\'s "odd" $HOME'}, remove=["stage"])
        assert versions(hosts) == ["labels.1.1"]
    assert machine.info().user_labels == {"team": "data", "note": 'it\'s "odd" $HOME'}
    assert [path.name for path in hosts.home(0).glob(".shiftable/new.*")] == []


def test_labels_that_others_change_at_the_same_time_are_not_lost(hosts: Hosts, monkeypatch: pytest.MonkeyPatch) -> None:
    made, real, met = hosts.make(1), HostsComputeDriver._do, list[str]()
    (machine,) = compute_of(made).create(small_fleet()).machines()
    (theirs,) = compute_of(made).fleet("conf").machines()

    def overtaken(self: HostsComputeDriver, host: HostSettings, script: str) -> Any:
        if "/labels labels." in script and len(met) < 3:
            met.append(host.name)
            number = len(met)
            with monkeypatch.context() as alone:
                alone.setattr(HostsComputeDriver, "_do", real)
                for turn in range(number):  # also so that the version that we would make was there, and is no more
                    theirs.relabel({f"theirs-{number}": str(turn)})
        return real(self, host, script)

    monkeypatch.setattr(HostsComputeDriver, "_do", overtaken)
    machine.relabel({"team": "data"})
    expected = {"team": "data", "theirs-1": "0", "theirs-2": "1", "theirs-3": "2"}
    assert (machine.info().user_labels, versions(hosts)) == (expected, ["labels.1.7"])


def test_whoever_is_always_too_late_with_labels_is_told_so(hosts: Hosts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shiftable_baremetal.compute_hosts._WRITES", 3)
    (machine,) = compute_of(hosts.make(1)).create(small_fleet()).machines()
    real = HostsComputeDriver._do

    def overtaken(self: HostsComputeDriver, host: HostSettings, script: str) -> Any:
        if "/labels labels." in script:
            newest = max([int(name.rpartition(".")[2]) for name in versions(hosts)], default=0)
            (hosts.home(0) / f".shiftable/labels.1.{newest + 1}").write_text('{"theirs": "x"}\n')
        return real(self, host, script)

    monkeypatch.setattr(HostsComputeDriver, "_do", overtaken)
    with pytest.raises(Conflict, match="at the same time"):
        machine.relabel({"team": "data"})
    assert machine.info().user_labels == {"theirs": "x"}


def test_labels_that_come_late_are_not_those_of_the_next_claim(hosts: Hosts) -> None:
    compute = compute_of(hosts.make(1))
    (first,) = compute.create(small_fleet("first")).machines()
    first.relabel({"team": "data"})
    first.delete()
    assert versions(hosts) == []
    (second,) = compute.create(small_fleet("second")).machines()
    for late in ({"team": "late"}, {"other": "late"}):
        with pytest.raises(NotFound):
            first.relabel(late)
    assert second.info().user_labels == {}


def test_labels_of_the_inventory_are_not_the_claims_to_lose(hosts: Hosts) -> None:
    (machine,) = compute_of(hosts.make(1, labels={"rack": "7", "team": "ops"})).create(small_fleet()).machines()
    with pytest.raises(Conflict, match="inventory gives host-0 the label 'rack'"):
        machine.relabel(remove=["rack", "other"])
    machine.relabel({"team": "data", "note": "x"})
    machine.relabel(remove=["note"])
    assert machine.info().user_labels == {"rack": "7", "team": "data"}


def test_a_host_that_cannot_be_reached_keeps_its_labels(hosts: Hosts) -> None:
    (machine,) = compute_of(hosts.make(1)).create(attrs.evolve(small_fleet(), labels={"team": "data"})).machines()
    hosts.order(0, "down")
    with pytest.raises(Unavailable, match="host-0 cannot be reached"):
        machine.relabel(remove=["team"])
    (hosts.home(0) / "down").unlink()
    assert machine.info().user_labels == {"team": "data"}


def test_hosts_are_claimed_in_order_by_what_they_have(hosts: Hosts) -> None:
    small, large = hosts.make(2)
    debian = attrs.evolve(large, cpus=16, memory_gib=64, image="debian-12")
    compute = compute_of((small, debian))
    assert compute.choose(FleetSpec(name="big", image="debian-12", cpus=5, memory_gib=1)).size.cpus == 16
    with pytest.raises(
        InvalidArgument, match="no host of the inventory has 16 CPUs, 64 GiB and ubuntu-24.04, and a disk"
    ):
        compute.create(FleetSpec(name="big", image="ubuntu-24.04", cpus=5, memory_gib=1))
    (one,) = compute.create(FleetSpec(name="big", image="debian-12", cpus=5, memory_gib=1)).wait()
    assert one.id.startswith("host-1/")
    with pytest.raises(QuotaExceeded, match="all 2 hosts with 4 CPUs, 8 GiB and debian-12 are claimed"):
        compute.create(small_fleet(count=2))
    assert [machine.name for machine in compute.fleet("conf").wait()] == ["conf-0"]
    assert hosts.claimed() == ["h0", "h1"]


def test_a_host_is_not_released_for_an_image_that_none_has(hosts: Hosts) -> None:
    compute = compute_of(hosts.make(2, image="debian-12"))
    (before,) = compute.create(small_fleet()).wait()
    (change,) = compute.diff(attrs.evolve(small_fleet(), image="debian-99"))
    with pytest.raises(
        InvalidArgument, match="no host of the inventory has the image 'debian-99'; they have: debian-12"
    ):
        compute.apply(change)
    assert [machine.id for machine in compute.fleet("conf").machines()] == [before.id]


def test_images_are_those_that_hosts_have_each_for_its_architecture(hosts: Hosts) -> None:
    one, two, three = hosts.make(3, image="debian-12")
    arm = attrs.evolve(three, arch="arm64")
    assert [(image.name, image.arch) for image in compute_of((one, two, arm)).images()] == [
        ("debian-12", "x86_64"),
        ("debian-12", "arm64"),
    ]
    anything = attrs.evolve(arm, image=None)
    assert [image.name for image in compute_of((one, anything)).images() if image.arch == "arm64"] == list(ALIASES)
    assert len(list(compute_of((one, anything)).images())) == 1 + len(ALIASES)


def test_a_host_that_cannot_be_reached_may_be_anybodys(hosts: Hosts) -> None:
    compute = compute_of(hosts.make(3))
    (machine,) = compute.create(small_fleet()).machines()
    hosts.order(0, "down")
    for call in (
        lambda: list(compute.list()),
        lambda: compute.create(small_fleet("other")),
        lambda: compute.diff(small_fleet()),
    ):
        with pytest.raises(Unavailable, match="host-0 cannot be reached, and whose it is, is known there alone"):
            call()
    assert (machine.info().state, machine.info().fleet) == ("unknown", "conf")
    (hosts.home(0) / "down").unlink()
    assert machine.info().state == "running"


def test_what_is_no_claim_is_a_conflict(hosts: Hosts) -> None:
    compute = compute_of(hosts.make(1))
    (hosts.home(0) / ".shiftable").mkdir()
    (hosts.home(0) / ".shiftable" / "claim.1").write_text("nonsense\n")
    with pytest.raises(Conflict, match="is no claim"):
        list(compute.list())


def test_a_name_that_is_taken_by_another_fleet_is_refused(hosts: Hosts) -> None:
    driver = HostsComputeDriver(hosts.make(2))
    Compute(driver).create(small_fleet())
    size = driver.choose(small_fleet()).size
    for fleet, token in (("other", token_of("conf-0")), ("conf", "another")):
        with pytest.raises(Exception, match="conf-0") as caught:
            driver.create_machine(small_fleet(fleet), "conf-0", size=size, token=token, user_data=None)
        fault = driver.classify(caught.value)
        assert fault is not None
        assert fault.error is AlreadyExists
    assert hosts.claimed() == ["h0"]


# on the host


def test_user_data_runs_once_as_root_and_is_seen_by_nobody_else(hosts: Hosts) -> None:
    compute = compute_of(hosts.make(1))
    script = f"#!/bin/sh\necho {CANARY} >> ~/ran\nsleep 0.3\n"
    fleet = compute.create(attrs.evolve(small_fleet(), user_data_text=script))
    assert fleet.machine("conf-0").info().state in {"creating", "running"}
    (info,) = fleet.wait()
    assert (hosts.home(0) / "ran").read_text() == f"{CANARY}\n"
    assert CANARY not in (hosts.folder / "calls").read_text() + repr(info)
    holders = [path for path in hosts.home(0).rglob("*") if path.is_file() and CANARY in path.read_text()]
    assert sorted(path.name for path in holders) == ["ran", "user-data"]
    assert [oct(path.stat().st_mode & 0o077) for path in holders if path.name == "user-data"] == ["0o0"]
    compute.delete("conf")
    assert [path.name for path in hosts.home(0).rglob("user-data")] == []


def test_user_data_that_fails_is_told(hosts: Hosts) -> None:
    compute = compute_of(hosts.make(2))
    fleet = compute.create(attrs.evolve(small_fleet(), user_data_text="#!/bin/sh\nexit 7\n"))
    with pytest.raises(Conflict, match="its user data ended with status 7"):
        fleet.wait()
    compute.delete("conf")
    hosts.order(0, "no-sudo")
    fleet = compute.create(attrs.evolve(small_fleet(), user_data_text="#!/bin/sh\ntrue\n"))
    with pytest.raises(Conflict, match="its user data ended with status 1"):
        fleet.wait()


def test_a_restart_in_the_middle_of_the_user_data_is_told(hosts: Hosts) -> None:
    compute = compute_of(hosts.make(1))
    fleet = compute.create(attrs.evolve(small_fleet(), user_data_text="#!/bin/sh\nsleep 60\n"))
    (hosts.home(0) / "boot").write_text("second\n")
    with pytest.raises(Conflict, match="restarted before its user data ended"):
        fleet.wait()
    (hosts.home(0) / "boot").write_text("first\n")
    pid = int((hosts.home(0) / ".shiftable" / "run.1" / "pid").read_text())
    compute.delete("conf")
    while True:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            break
        time.sleep(0.05)
    assert hosts.claimed() == []


def test_keys_are_let_in_until_the_release(hosts: Hosts) -> None:
    compute = compute_of(hosts.make(1))
    known = hosts.home(0) / ".ssh" / "authorized_keys"
    known.parent.mkdir()
    known.write_text("ssh-ed25519 AAAAother the owner")  # as an editor leaves it that ends no last line
    key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5 it's ops@example"
    compute.create(attrs.evolve(small_fleet(), ssh_keys=(key,))).wait()
    assert [line[: len(key)] for line in known.read_text().splitlines()] == ["ssh-ed25519 AAAAother the owner", key]
    compute.delete("conf")
    assert known.read_text() == "ssh-ed25519 AAAAother the owner\n"


def test_a_host_reboots(hosts: Hosts) -> None:
    compute = compute_of(hosts.make(1))
    (machine,) = compute.create(small_fleet()).machines()
    machine.reboot()
    assert machine.info().state in {"rebooting", "running"}
    assert machine.wait().id == machine.id
    assert (hosts.home(0) / "boot").read_text() == "second\n"
    hosts.order(0, "no-sudo")
    with pytest.raises(PermissionDenied, match="sudo without a password"):
        machine.reboot()


def test_a_command_runs_there(hosts: Hosts) -> None:
    compute = compute_of(hosts.make(1))
    (machine,) = compute.create(small_fleet()).machines()
    assert machine.run("pwd").stdout.decode().splitlines()[-1] == str(hosts.home(0))
    for call in (machine.stop, machine.start, machine.console, lambda: machine.snapshot("x")):
        with pytest.raises(Unsupported):
            call()


# settings


@pytest.mark.parametrize(
    "wrong",
    [{"address": "-oProxyCommand=x"}, {"name": "a/b"}, {"user": "a b"}, {"cpus": 0}, {"port": 0}],
    ids=lambda value: next(iter(value)),
)
def test_a_host_that_cannot_be_is_refused(wrong: dict[str, Any]) -> None:
    good = {"name": "h", "address": "h.example", "user": "ops", "cpus": 1, "memory_gib": 1}
    with pytest.raises(ValueError, match=next(iter(wrong))):
        HostSettings(**{**good, **wrong})


def test_hosts_are_declared_in_the_file(hosts: Hosts, tmp_path: Path) -> None:
    hosts.make(1)
    (tmp_path / "shiftable.toml").write_text(
        textwrap.dedent("""
            [project]
            name = "shop"
            [environments.production]
            provider = "cellar"
            [providers.cellar]
            type = "baremetal"
            hosts = [{ name = "one", address = "h0", user = "ops", cpus = 2, memory_gib = 4, labels = { rack = "a" } }]
            [compute.web]
            image = "debian-12"
            cpus = 1
            memory_gib = 1
        """)
    )
    with shiftable.load(tmp_path, environment="production") as app:
        fleet = app.compute("web")
        assert fleet.declared is not None
        (change,) = app.cloud("cellar").compute.diff(fleet.declared)
        app.cloud("cellar").compute.apply(change)
        (info,) = fleet.wait()
    assert (info.id.split("/")[:2], info.labels["rack"]) == (["one", "web-0"], "a")


ONE = {"name": "h", "address": "h.example", "user": "ops", "cpus": 1, "memory_gib": 1}


@pytest.mark.parametrize(
    ("given", "why"),
    [({"hosts": [ONE, ONE]}, "the same name"), ({"hosts": [ONE], "qemu": {}}, "two kinds of machines")],
    ids=["twice", "both"],
)
def test_an_inventory_that_cannot_be_is_refused(given: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        list(shiftable.connect("baremetal", **given).compute.list())

"""Declarations, sizes, and commands on machines."""

from __future__ import annotations

import random
import re
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shiftable.compute import Compute, FleetSpec, MachineInfo, Rule, Size, choose_size
from shiftable.compute._rules import MADE_ANEW, SIZE, as_declared, missing, steps, surplus, token_of
from shiftable.compute.driver import FLEET_LABEL, GIB
from shiftable.config import Place, structure
from shiftable.errors import ConfigError, Conflict, Timeout, Unavailable
from shiftable.memory.compute import FEATURES, SIZES, MemoryComputeDriver
from shiftable.service import Change
from shiftable.testing.conformance.compute import small_fleet

# declarations


def test_a_declaration_is_read_from_the_file_and_its_path_later(tmp_path: Path) -> None:
    table = {
        "name": "web",
        "image": "debian-12",
        "cpus": 2,
        "memory_gib": 4,
        "count": 2,
        "user_data": "cloud-init.yaml",
        "open_ports": [80, 443],
        "rules": [{"port": 53, "protocol": "udp", "allow_from": ["192.0.2.0/24"]}],
        "labels": {"team": "shop"},
    }
    spec = structure(FleetSpec, table, Place("compute.web", folder=tmp_path))
    assert (spec.count, spec.user_data, spec.public_ip) == (2, tmp_path / "cloud-init.yaml", False)
    assert spec.rules == (Rule(port=53, protocol="udp", allow_from=("192.0.2.0/24",)),)
    with pytest.raises(ConfigError, match=r"rules\.0\.protocol.*must be one of 'tcp', 'udp'"):
        structure(FleetSpec, {**table, "rules": [{"port": 1, "protocol": "icmp"}]}, Place("compute.web"))
    with pytest.raises(ConfigError, match="either user_data or user_data_text"):
        structure(FleetSpec, {**table, "user_data_text": "x"}, Place("compute.web", folder=tmp_path))
    with pytest.raises(ConfigError, match=r"user data of fleet 'web'.*No such file"):
        spec.read_user_data()
    (tmp_path / "cloud-init.yaml").write_bytes(b"#cloud-config\n\xff")
    assert spec.read_user_data() == b"#cloud-config\n\xff"
    assert attrs.evolve(spec, user_data=None, user_data_text="ü").read_user_data() == "ü".encode()


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"cpus": 0}, "cpus"),
        ({"count": -1}, "count"),
        ({"open_ports": (0,)}, "open_ports"),
        ({"allow_from": ("here",)}, "allow_from"),
        ({"labels": {FLEET_LABEL: "x"}}, FLEET_LABEL),
        ({"user_data": Path("x"), "user_data_text": "y"}, "either"),
    ],
)
def test_a_value_that_cannot_be_is_refused(wrong: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        attrs.evolve(small_fleet(), **wrong)


def test_user_data_that_cannot_be_read_is_told_by_the_plan_of_who_needs_it(tmp_path: Path) -> None:
    compute = Compute(MemoryComputeDriver())
    spec = attrs.evolve(small_fleet("web", count=2), user_data=tmp_path / "cloud-init.yaml")
    with pytest.raises(ConfigError, match="cannot read the user data of fleet 'web'"):
        compute.diff(spec)
    assert () == compute.diff(attrs.evolve(spec, count=0))

    spec.user_data.write_text("#cloud-config\n")  # type: ignore[union-attr]  # it has been set
    for change in compute.diff(spec):
        compute.apply(change)
    spec.user_data.unlink()  # type: ignore[union-attr]  # the same
    assert () == compute.diff(spec)
    assert 1 == len(compute.diff(attrs.evolve(spec, count=1)))
    for more in ({"count": 3}, {"image": "debian-11"}):
        with pytest.raises(ConfigError, match="cannot read the user data"):
            compute.diff(attrs.evolve(spec, **more))


def test_user_data_shows_nowhere() -> None:
    assert "hunter2" not in repr(attrs.evolve(small_fleet(), user_data_text="password: hunter2"))


# sizes

SOME = st.lists(
    st.builds(
        Size,
        name=st.text("abc", min_size=1, max_size=3),
        cpus=st.integers(1, 8),
        memory=st.integers(1, 16).map(lambda gib: gib * GIB // 2),
        arch=st.sampled_from(["x86_64", "arm64"]),
        gpus=st.integers(0, 1),
        price=st.one_of(st.none(), st.integers(1, 20).map(Decimal)),
    ),
    max_size=12,
    unique_by=lambda size: size.name,
)


@given(SOME, st.integers(1, 8), st.integers(1, 8), st.integers(0, 1), st.randoms(use_true_random=False))
def test_the_choice_is_enough_and_nothing_that_is_enough_is_better(
    sizes: list[Size], cpus: int, memory_gib: int, gpus: int, shuffle: random.Random
) -> None:
    enough = [
        size
        for size in sizes
        if size.arch == "x86_64" and size.cpus >= cpus and size.memory >= memory_gib * GIB and size.gpus == gpus
    ]
    if not enough:
        with pytest.raises(ValueError, match=f"no size has {cpus} CPU"):
            choose_size(cpus, memory_gib, "x86_64", sizes, gpus=gpus)
        return
    choice = choose_size(cpus, memory_gib, "x86_64", sizes, gpus=gpus)
    assert choice.size in enough
    known = [size.price for size in enough if size.price is not None]
    if known:
        assert choice.price == min(known)
        assert ("among those whose price is known" in choice.reason) is (len(known) < len(enough))
    else:
        assert choice.size.cpus == min(size.cpus for size in enough)
    shuffle.shuffle(sizes)
    assert choose_size(cpus, memory_gib, "x86_64", sizes, gpus=gpus) == choice


def test_a_choice_says_why() -> None:
    choice = choose_size(2, 3, "x86_64", SIZES)
    assert (choice.size.name, choice.price) == ("m2-4", Decimal("0.10"))
    assert choice.reason == "the cheapest of 23 sizes with at least 2 CPUs, 3 GiB of x86_64"
    assert choose_size(1, 1, "x86_64", SIZES, gpus=1).size.name == "g4-32"
    with pytest.raises(ValueError, match=r"the largest is m64-512 \(64 CPUs, 512 GiB\)"):
        choose_size(65, 1, "x86_64", SIZES)
    with pytest.raises(ValueError, match="there is none"):
        choose_size(1, 1, "arm64", SIZES, gpus=1)


def test_the_memory_driver_has_that_choice() -> None:
    cheapest = [size for size in SIZES if size.arch == "x86_64" and not size.gpus and size.cpus >= 2]
    count = sum(size.memory >= 3 * GIB for size in cheapest)
    choice = Compute(MemoryComputeDriver()).choose(attrs.evolve(small_fleet(), cpus=2, memory_gib=3))
    assert choice.reason.startswith(f"the cheapest of {count} sizes")


def test_a_change_says_what_it_costs_a_month() -> None:
    compute = Compute(MemoryComputeDriver())
    spec = attrs.evolve(small_fleet(count=2), cpus=2, memory_gib=3)
    (made,) = compute.diff(spec)
    assert made.monthly_cost == Decimal("0.10") * 2 * 730
    compute.apply(made)
    fewer, larger = compute.diff(attrs.evolve(spec, count=1, cpus=4, memory_gib=4))
    assert fewer.monthly_cost == Decimal("-0.10") * 730
    assert larger.monthly_cost == (Decimal("0.16") - Decimal("0.10")) * 730
    more, larger = compute.diff(attrs.evolve(spec, count=5, cpus=4, memory_gib=4))
    assert more.monthly_cost == Decimal("0.16") * 3 * 730
    assert larger.monthly_cost == (Decimal("0.16") - Decimal("0.10")) * 2 * 730
    unpriced = Compute(MemoryComputeDriver(attrs.evolve(FEATURES, prices=False)))
    assert [change.monthly_cost for change in unpriced.diff(spec)] == [None]


# firewall


def test_what_is_open_is_said_in_one_way() -> None:
    spec = attrs.evolve(
        small_fleet(),
        open_ports=(443, 22, 443),
        allow_from=("2001:db8::/32", "192.0.2.1"),
        rules=(
            Rule(port=22, allow_from=("10.0.0.0/8",)),
            Rule(port=53, last_port=53, protocol="udp"),
            Rule(port=54, last_port=60, protocol="udp"),
            Rule(port=9, allow_from=()),
        ),
    )
    assert list(map(str, spec.firewall)) == [
        "22/tcp from 10.0.0.0/8, 192.0.2.1/32, 2001:db8::/32",
        "53/udp from 0.0.0.0/0, ::/0",
        "54-60/udp from 0.0.0.0/0, ::/0",
        "443/tcp from 192.0.2.1/32, 2001:db8::/32",
    ]
    assert [rule.last_port for rule in spec.firewall] == [None, None, 60, None]
    assert attrs.evolve(small_fleet(), open_ports=(22,), allow_from=()).firewall == ()


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"port": 0}, "port must be 1 to 65535"),
        ({"port": 5, "last_port": 65536}, "last_port must be 1 to 65535"),
        ({"port": 5, "last_port": 4}, "must not be below port, 5, but is 4"),
        ({"port": 5, "allow_from": ("192.0.2.1/24",)}, "write a network as"),
    ],
)
def test_a_rule_that_cannot_be_is_refused(wrong: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        Rule(**wrong)


RULES = st.builds(
    Rule,
    port=st.integers(1, 3),
    last_port=st.sampled_from([None, 3, 4]),
    protocol=st.sampled_from(["tcp", "udp"]),
    allow_from=st.lists(st.sampled_from(["10.0.0.0/8", "::/0", "192.0.2.1"]), max_size=3).map(tuple),
)


@given(st.lists(RULES, max_size=6), st.lists(RULES, max_size=6), st.lists(st.integers(1, 3), max_size=2).map(tuple))
def test_what_a_machine_has_open_is_said_in_the_declarations_words(
    has: list[Rule], rules: list[Rule], ports: tuple[int, ...]
) -> None:
    spec = attrs.evolve(small_fleet(), open_ports=ports, allow_from=("10.0.0.0/8",), rules=tuple(rules))
    machine = _machine("conf-0", firewall=has)
    size = Size(name="m1-1", cpus=1, memory=GIB)
    said = as_declared(spec, [machine], size)
    assert said.firewall == machine.firewall
    assert (said == spec) is (machine.firewall == spec.firewall)


# rules


def _machine(name: str, **more: Any) -> MachineInfo:
    given = {"fleet": "conf", "state": "running", "raw_state": "", "size": "m1-1", "cpus": 1, "memory": GIB}
    return MachineInfo(**{**given, "id": name, "name": name, "image": "debian-12", "disk_gib": 20, **more})


def test_the_lowest_free_numbers_are_made_and_the_highest_deleted() -> None:
    living = [_machine(f"conf-{number}") for number in (10, 2, 0)]
    names = frozenset(machine.name for machine in living)
    assert missing(small_fleet(count=5), living, names) == ["conf-1", "conf-3"]
    assert missing(small_fleet(count=4), living, names | {"conf-1"}) == ["conf-3"]
    assert missing(small_fleet(count=2), living, names) == []
    assert [machine.name for machine in surplus(small_fleet(count=1), living)] == ["conf-2", "conf-10"]
    assert [m.name for m in surplus(small_fleet(count=3), [*living, _machine("stray")])] == ["stray"]


def test_a_token_is_a_uuid_and_always_the_same() -> None:
    assert token_of("conf-0") == token_of("conf-0") != token_of("conf-1")
    assert str(uuid.UUID(token_of("conf-0"))) == token_of("conf-0")


def _fields(steps_: list[tuple[FleetSpec, FleetSpec]]) -> list[list[str]]:
    return [[field.name for field in Change(service="compute", before=a, after=b).fields] for a, b in steps_]


def test_steps_begin_with_fewer_or_more() -> None:
    current = attrs.evolve(small_fleet(count=3), image="debian-11", open_ports=(22,))
    wanted = attrs.evolve(small_fleet(count=5), cpus=2)
    found = list(steps(current, wanted))
    assert [["count"], ["image"], ["cpus"], ["open_ports"]] == _fields(found)
    assert (attrs.evolve(wanted, count=3), wanted) == found[0]
    assert (attrs.evolve(current, count=5), wanted) == (found[1][0], found[-1][1])
    anew = list(steps(current, wanted, MADE_ANEW | SIZE))
    assert [["count"], ["image", "cpus"], ["open_ports"]] == _fields(anew)
    fewer = list(steps(current, attrs.evolve(wanted, count=1)))
    assert (fewer[0][1].count, fewer[0][1].image) == (1, "debian-11")


def test_machines_take_the_zones_in_turn() -> None:
    compute = Compute(MemoryComputeDriver())
    spec = attrs.evolve(small_fleet(count=3), zones=("a", "b"))
    zones = {machine.name: machine.zone for machine in compute.create(spec).wait()}
    assert zones == {"conf-0": "a", "conf-1": "b", "conf-2": "a"}
    assert compute.diff(spec) == ()
    (change,) = compute.diff(attrs.evolve(spec, zones=("a", "c")))
    assert change.reason == "conf-1 is made anew"
    assert [(field.before, field.after) for field in change.fields] == [(("b",), ("a", "c"))]
    compute.apply(change)
    assert [machine.zone for machine in compute.fleet("conf").wait()] == ["a", "c", "a"]
    (change,) = compute.diff(attrs.evolve(spec, zones=(), zone="a"))
    assert [field.name for field in change.fields] == ["zone"]
    compute.apply(change)
    assert {machine.zone for machine in compute.fleet("conf").wait()} == {"a"}
    with pytest.raises(ValueError, match="either zone or zones"):
        attrs.evolve(spec, zone="a")


def test_another_size_of_the_same_extent_is_no_difference() -> None:
    driver = MemoryComputeDriver()
    compute = Compute(driver)
    compute.create(small_fleet())
    (entry,) = driver._entries.values()
    entry.info = attrs.evolve(entry.info, size="renamed")
    assert compute.diff(small_fleet()) == ()
    entry.info = attrs.evolve(entry.info, memory=2 * GIB)
    assert [field.name for change in compute.diff(small_fleet()) for field in change.fields] == ["memory_gib"]


# commands

SSH = """#!/usr/bin/env python3
import sys, time
host, command = sys.argv[-2:]
if command == "fail to connect":
    print("Permission denied (publickey).", file=sys.stderr)
    sys.exit(255)
if command == "sleep":
    time.sleep(60)
sys.stdout.write(f"{sys.argv[1:-2]} {host} {command} ")
sys.stdout.write(sys.stdin.read())
print("warned", file=sys.stderr)
sys.exit(3 if command == "false" else 0)
"""


@pytest.fixture
def fleet_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Compute]:
    """Put an ssh on the path that says what it was called with."""
    program = tmp_path / "ssh"
    program.write_text(SSH)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return lambda: Compute(MemoryComputeDriver(attrs.evolve(FEATURES, ssh=True)))


def test_a_command_runs_on_all_machines(fleet_of: Callable[..., Compute]) -> None:
    fleet = fleet_of().create(attrs.evolve(small_fleet(count=3), user="ops"))
    done = fleet.run(["echo", "it's; fine"], stdin=b"given")
    assert list(done) == ["conf-0", "conf-1", "conf-2"]
    said = [completed.stdout.decode() for completed in done.values()]
    assert all("'-l', 'ops', '--'" in text and "BatchMode=yes" in text for text in said)
    assert all("'Port" not in text and "'CheckHostIP=no'" in text for text in said)
    keys = {re.search(r"'HostKeyAlias=(shiftable-[0-9a-f]{24})'", text)[1] for text in said}  # type: ignore[index]
    assert len(keys) == 3
    assert all("""echo 'it'"'"'s; fine' given""" in text for text in said)
    assert [text.split("] ")[1].split()[0] for text in said] == ["10.0.0.1", "10.0.0.2", "10.0.0.3"]
    assert {completed.stderr for completed in done.values()} == {b"warned\n"}


def test_an_exit_code_is_an_answer(fleet_of: Callable[..., Compute]) -> None:
    fleet = fleet_of().create(attrs.evolve(small_fleet(), public_ip=True))
    done = fleet.machine("conf-0").run("false")
    assert done.exit_code == 3
    assert "203.0.113." in done.stdout.decode()


def test_a_machine_that_lets_nobody_in_is_unavailable(fleet_of: Callable[..., Compute]) -> None:
    fleet = fleet_of().create(small_fleet())
    with pytest.raises(Unavailable, match=r"Permission denied \(publickey\)"):
        fleet.run("fail to connect")
    with pytest.raises(Timeout, match="may still run there"):
        fleet.run("sleep", timeout=timedelta(milliseconds=300))


def test_a_machine_without_an_address_is_refused(fleet_of: Callable[..., Compute]) -> None:
    compute = fleet_of()
    fleet = compute.create(small_fleet())
    driver = compute.unwrap(MemoryComputeDriver)
    (entry,) = driver._entries.values()
    entry.info = attrs.evolve(entry.info, addresses=())
    with pytest.raises(Conflict, match="no address"):
        fleet.run("true")


def test_the_key_of_a_machine_is_kept_for_it_alone(fleet_of: Callable[..., Compute]) -> None:
    compute = fleet_of()
    driver = compute.unwrap(MemoryComputeDriver)
    machine = compute.create(small_fleet()).machine("conf-0")
    (entry,) = driver._entries.values()
    first = machine.ssh_command()
    assert first == machine.ssh_command()
    assert first[-4:] == ("-l", "shift", "--", "10.0.0.1")
    entry.info = attrs.evolve(entry.info, created=datetime(2020, 1, 1, tzinfo=UTC))  # a later one of the same id
    later = machine.ssh_command()
    assert {a.partition("=")[0] for a, b in zip(first, later, strict=True) if a != b} == {"HostKeyAlias"}


def test_another_port_leads_to_the_machine(fleet_of: Callable[..., Compute]) -> None:
    compute = fleet_of()
    machine = compute.create(small_fleet()).machine("conf-0")
    (entry,) = compute.unwrap(MemoryComputeDriver)._entries.values()
    entry.info = attrs.evolve(entry.info, addresses=("127.0.0.1",), ports={22: 40022})
    assert "'Port=40022'" in machine.run("true").stdout.decode()


def test_what_goes_to_a_machine_is_no_shells(fleet_of: Callable[..., Compute]) -> None:
    machine = fleet_of().create(small_fleet()).machine("conf-0")
    call = machine.ssh_command(["echo", "$(id); `id`", "-n"], options=["LocalForward=1 a:2", "-x"])
    assert call[:5] == ("ssh", "-o", "LocalForward=1 a:2", "-o", "-x")
    assert call[-2:] == ("10.0.0.1", "echo '$(id); `id`' -n")


@pytest.mark.parametrize("address", ["-oProxyCommand=id", "a b", "", "ssh://x", "me@host", "$(id)"])
def test_an_address_that_is_none_is_not_handed_to_ssh(fleet_of: Callable[..., Compute], address: str) -> None:
    compute = fleet_of()
    machine = compute.create(small_fleet()).machine("conf-0")
    (entry,) = compute.unwrap(MemoryComputeDriver)._entries.values()
    entry.info = attrs.evolve(entry.info, addresses=(address,))
    for call in (machine.ssh_command, lambda: machine.run("true")):
        with pytest.raises(Conflict, match="no address"):
            call()


def test_ssh_that_is_missing_is_named(fleet_of: Callable[..., Compute], monkeypatch: pytest.MonkeyPatch) -> None:
    fleet = fleet_of().create(small_fleet())
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ConfigError, match="OpenSSH"):
        fleet.run("true")

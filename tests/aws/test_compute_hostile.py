"""EC2 when something goes wrong: lost answers, tokens, states, quotas, other people's groups, machines that fail."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import attrs
import pytest

from shiftable.compute import FLEET_LABEL, Compute, Fleet, FleetSpec, Machine, Rule
from shiftable.compute._rules import token_of
from shiftable.errors import (
    AlreadyExists,
    Conflict,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    QuotaExceeded,
    Throttled,
    Timeout,
    Unauthenticated,
    Unavailable,
    Unsupported,
)
from shiftable.testing.conformance.compute import small_fleet
from shiftable_aws import AwsProvider, AwsSettings, Ec2Settings
from shiftable_aws.compute import Ec2Driver
from shiftable_aws.double import AwsDouble

from .hostile import FAULTS, calls_of, firewalls, is_

DELAY = timedelta(minutes=1)  # longer than anything that a busy computer takes between two calls
SPEC = small_fleet("web")
CANARY = "CANARY-" + "5c1d"


def body_of(code: str, message: str = "said") -> bytes:
    error = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>"
    return f"<Response><Errors>{error}</Errors><RequestID>r1</RequestID></Response>".encode()


@pytest.fixture
def driver(provider: AwsProvider) -> Ec2Driver:
    made = provider.compute()
    assert isinstance(made, Ec2Driver)
    return made


@pytest.fixture
def compute(driver: Ec2Driver, aws_double: AwsDouble) -> Compute:
    aws_double.ec2.delay = DELAY
    aws_double.ec2.disks.delay = DELAY
    return Compute(driver, sleep=aws_double.clock.advance)


@pytest.fixture
def fleet(compute: Compute) -> Fleet:
    made = compute.create(SPEC)
    made.wait()
    return made


@pytest.fixture
def machine(fleet: Fleet) -> Machine:
    return fleet.machine("web-0")


@pytest.fixture
def impatient(hasty: AwsProvider, aws_double: AwsDouble) -> Compute:
    """Return a client that tries once."""
    return Compute(hasty.compute(), sleep=aws_double.clock.advance)


def make(driver: Ec2Driver, spec: FleetSpec = SPEC, name: str = "web-0") -> str:
    data = driver.user_data(spec, name, None)
    size = driver.choose(spec).size
    return driver.create_machine(spec, name, size=size, token=token_of(name), user_data=data).id


# answers that are lost


@pytest.mark.parametrize("kind", FAULTS)
def test_a_machine_is_made_once_though_the_answer_is_lost(compute: Compute, aws_double: AwsDouble, kind: Any) -> None:
    injected = aws_double.inject(kind, match=is_("RunInstances"))
    compute.create(attrs.evolve(SPEC, open_ports=(22,))).wait()
    assert injected.hits == 1
    assert len(calls_of(aws_double, "RunInstances")) == 2
    assert len(aws_double.ec2.machines()) == 1


def test_a_machine_is_made_once_though_the_client_never_hears_of_it(
    compute: Compute, impatient: Compute, aws_double: AwsDouble
) -> None:
    aws_double.inject("drop_after", match=is_("RunInstances"))
    with pytest.raises(Unavailable):
        impatient.create(attrs.evolve(SPEC, count=2))
    (lost,) = aws_double.ec2.machines()
    (change,) = compute.diff(attrs.evolve(SPEC, count=2))
    compute.apply(change)
    found = compute.fleet("web").wait()
    assert [machine.name for machine in found] == ["web-0", "web-1"]
    assert found[0].id == lost


def test_a_lost_machine_is_found_though_another_size_is_declared_by_now(
    driver: Ec2Driver, aws_double: AwsDouble
) -> None:
    first = make(driver)
    assert make(driver, attrs.evolve(SPEC, cpus=4, memory_gib=16)) == first
    assert len(aws_double.ec2.machines()) == 1


@pytest.mark.parametrize("kind", FAULTS)
def test_every_verb_happens_once_though_its_answer_is_lost(
    compute: Compute, machine: Machine, aws_double: AwsDouble, kind: Any
) -> None:
    held: dict[str, Any] = {}

    def disk() -> None:
        held["disk"] = compute.create_disk("data", 10, zone=machine.info().zone)

    def snapshot() -> None:
        held["snapshot"] = compute.snapshot_disk(held["disk"].id, "daily")

    def image() -> None:
        held["image"] = machine.snapshot("golden")

    steps: list[tuple[str, Callable[[], object]]] = [
        ("CreateVolume", disk),
        ("AttachVolume", lambda: machine.attach(held["disk"].id)),
        ("CreateSnapshot", snapshot),
        ("DetachVolume", lambda: machine.detach(held["disk"].id)),
        ("DeleteSnapshot", lambda: compute.delete_disk_snapshot(held["snapshot"].id)),
        ("DeleteVolume", lambda: compute.delete_disk(held["disk"].id)),
        ("CreateTags", lambda: machine.relabel({"team": "data"}, remove=["stage"])),
        ("DeleteTags", lambda: machine.relabel({"team": "data"}, remove=["stage"])),
        ("RebootInstances", machine.reboot),
        ("CreateImage", image),
        ("DeregisterImage", lambda: compute.delete_image(held["image"].id)),
        ("StopInstances", machine.stop),
        ("ModifyInstanceAttribute", lambda: machine.resize(cpus=4)),
        ("StartInstances", machine.start),
        ("TerminateInstances", machine.delete),
    ]
    for operation, step in steps:
        injected = aws_double.inject(kind, match=is_(operation))
        step()
        assert injected.hits == 1, operation
        if operation == "StopInstances":
            machine.wait("stopped")
        if operation.endswith("Tags"):
            assert machine.info().user_labels == {"team": "data"}
        if operation == "CreateSnapshot":
            assert len(aws_double.ec2.snapshots()) == 1
    machine.wait_deleted()
    assert aws_double.ec2.machines() == {}
    assert (aws_double.ec2.volumes(), aws_double.ec2.snapshots()) == ({}, {})


@pytest.mark.parametrize("kind", FAULTS)
def test_a_group_is_made_and_changed_once_though_answers_are_lost(
    compute: Compute, aws_double: AwsDouble, kind: Any
) -> None:
    before = attrs.evolve(SPEC, open_ports=(22,), placement="spread", cpus=2, memory_gib=8, zone="eu-central-1a")
    operations = ["CreateSecurityGroup", "AuthorizeSecurityGroupIngress", "CreatePlacementGroup"]
    injected = [aws_double.inject(kind, match=is_(operation)) for operation in operations]
    compute.create(before).wait()
    after = attrs.evolve(before, open_ports=(443,))
    injected += [aws_double.inject(kind, match=is_(f"{verb}SecurityGroupIngress")) for verb in ("Authorize", "Revoke")]
    for change in compute.diff(after):
        compute.apply(change)
    assert compute.diff(after) == ()
    injected += [aws_double.inject(kind, match=is_(f"Delete{what}Group")) for what in ("Security", "Placement")]
    compute.delete("web")
    assert [one.hits for one in injected] == [1] * 7
    assert firewalls(aws_double) == []
    assert aws_double.ec2.placement_groups() == {}


def test_an_answer_that_ends_early_is_asked_for_again(machine: Machine, aws_double: AwsDouble) -> None:
    injected = aws_double.inject("truncate", match=is_("DescribeInstances"), times=2)
    assert machine.info().name == "web-0"
    assert injected.hits == 2


# tokens


@pytest.mark.parametrize("answer", ["refused", "ended"])
def test_each_life_of_a_name_has_its_own_token(
    driver: Ec2Driver, aws_double: AwsDouble, provider: AwsProvider, answer: str
) -> None:
    aws_double.ec2.returns_ended = answer == "ended"
    lives = []
    for _ in range(3):
        lives.append(make(driver))
        assert make(driver) == lives[-1]
        driver.delete_machine(lives[-1])
    last = make(driver)
    assert make(provider.compute()) == last  # type: ignore[arg-type]  # another process counts anew
    assert len({*lives, last}) == 4
    assert list(aws_double.ec2.machines()) == [last]


def test_a_machine_that_is_just_ending_is_not_taken_for_the_new_one(driver: Ec2Driver, aws_double: AwsDouble) -> None:
    aws_double.ec2.delay = DELAY
    first = make(driver)
    aws_double.clock.advance(DELAY)
    driver.delete_machine(first)
    second = make(driver, attrs.evolve(SPEC, cpus=4, memory_gib=16))
    third = make(driver)
    assert len({first, second}) == 2
    assert third == second


def test_a_name_whose_machine_nobody_remembers_gets_a_new_one(driver: Ec2Driver, aws_double: AwsDouble) -> None:
    first = make(driver)
    driver.delete_machine(first)
    aws_double.clock.advance(timedelta(hours=2))  # it is told no more, but its token is still remembered
    second = make(driver, attrs.evolve(SPEC, cpus=4, memory_gib=16))
    driver.delete_machine(second)
    aws_double.clock.advance(timedelta(days=2))
    third = make(driver)
    assert len({first, second, third}) == 3


# a new machine of which EC2 does not tell yet


def test_a_new_machine_is_there_before_ec2_tells_of_it(compute: Compute, aws_double: AwsDouble) -> None:
    aws_double.ec2.unseen = timedelta(seconds=50)
    fleet = compute.create(attrs.evolve(SPEC, count=2))
    (first, second) = sorted(fleet.machines(), key=lambda machine: machine.name)
    assert (first.info().state, second.info().state) == ("creating", "creating")
    assert compute.diff(attrs.evolve(SPEC, count=2)) == ()
    assert [machine.state for machine in fleet.wait()] == ["running", "running"]
    assert len(list(fleet.machines())) == 2


def test_a_machine_of_which_ec2_does_not_tell_is_not_gone(compute: Compute, aws_double: AwsDouble) -> None:
    aws_double.ec2.unseen = timedelta(seconds=50)
    (machine,) = compute.create(SPEC).machines()
    with pytest.raises(Conflict, match="try again"):
        machine.delete()
    with pytest.raises(Conflict, match="try again"):
        machine.relabel(remove=["team"])
    aws_double.clock.advance(50)
    machine.relabel({"team": "data"}, remove=["stage"])
    assert machine.info().user_labels == {"team": "data"}
    machine.delete()
    machine.wait_deleted()
    assert aws_double.ec2.machines() == {}


def test_a_machine_that_is_never_told_of_is_gone_after_a_minute(provider: AwsProvider, aws_double: AwsDouble) -> None:
    now = [0.0]
    driver = Ec2Driver(provider.session, clock=lambda: now[0])
    id_ = make(driver)
    aws_double.ec2.forget()
    assert driver.machine(id_).state == "creating"
    assert [info.id for info in driver.machines("web", cursor=None, limit=None).items] == [id_]
    now[0] = 61.0
    with pytest.raises(NotFound):
        Compute(driver).fleet("web").machine("web-0")
    assert driver.machines("web", cursor=None, limit=None).items == ()


# what AWS answers instead


def test_throttling_is_told_with_its_time(impatient: Compute, aws_double: AwsDouble) -> None:
    body = body_of("RequestLimitExceeded", "Request limit exceeded.")
    aws_double.inject("status", status=503, body=body, headers=[("Retry-After", "7")])
    with pytest.raises(Throttled) as caught:
        impatient.describe("web")
    assert caught.value.retry_after == 7.0
    assert caught.value.retryable


def test_throttling_is_waited_for(machine: Machine, aws_double: AwsDouble) -> None:
    injected = aws_double.inject("status", status=503, body=body_of("RequestLimitExceeded"), times=2)
    assert machine.info().state == "running"
    assert injected.hits == 2


@pytest.mark.parametrize(
    ("status", "code", "error"),
    [
        (403, "UnauthorizedOperation", PermissionDenied),
        (403, "InvalidClientTokenId", Unauthenticated),
        (401, "AuthFailure", Unauthenticated),
        (503, "Unavailable", Unavailable),
        (500, "InternalError", Unavailable),
        (400, "OptInRequired", PermissionDenied),
        (400, "RequestExpired", Unauthenticated),
    ],
)
def test_a_refusal_is_never_a_missing_fleet(
    impatient: Compute, aws_double: AwsDouble, status: int, code: str, error: Any
) -> None:
    aws_double.inject("status", status=status, body=body_of(code))
    with pytest.raises(error):
        impatient.describe("web")


def test_wrong_credentials_are_told_as_such(aws_double: AwsDouble) -> None:
    from shiftable.config import Credential

    config = {**aws_double.config, "secret_key": Credential.literal("wrong")}
    provider = AwsProvider(AwsSettings(**config))
    with pytest.raises(Unauthenticated):
        list(Compute(provider.compute()).list())
    provider.close()


def test_a_quota_that_is_reached_leaves_what_was_made_and_goes_on_later(
    compute: Compute, aws_double: AwsDouble
) -> None:
    spec = attrs.evolve(SPEC, count=3)
    cpus = compute.choose(spec).size.cpus
    aws_double.ec2.quota = 2 * cpus
    with pytest.raises(QuotaExceeded, match="vCPU"):
        compute.create(spec)
    assert len(aws_double.ec2.machines()) == 2
    aws_double.ec2.quota = 3 * cpus
    (change,) = compute.diff(spec)
    assert not change.destroys
    compute.apply(change)
    assert [machine.name for machine in compute.fleet("web").wait()] == ["web-0", "web-1", "web-2"]


def test_no_capacity_is_unavailable_and_leaves_no_machine(impatient: Compute, aws_double: AwsDouble) -> None:
    aws_double.ec2.full = {impatient.choose(SPEC).size.name}
    with pytest.raises(Unavailable, match="sufficient"):
        impatient.create(SPEC)
    assert aws_double.ec2.machines() == {}
    assert [(found.kind, found.fleet) for found in impatient.debris()] == [("security group", "web")]
    assert [found.name for found in impatient.sweep(older_than=timedelta(0))] == ["shiftable-fleet/web"]
    assert firewalls(aws_double) == []


def test_a_machine_that_ends_while_it_is_made_tells_why(compute: Compute, aws_double: AwsDouble) -> None:
    reason = "Client.InvalidKMSKey.InvalidState: The KMS key provided is in an incorrect state"
    aws_double.ec2.failing = {"web-1": reason}
    spec = attrs.evolve(SPEC, count=2)
    fleet = compute.create(spec)
    with pytest.raises(NotFound, match="KMS key provided is in an incorrect state"):
        fleet.wait()
    assert [machine.name for machine in fleet.machines()] == ["web-0"]
    assert len(aws_double.ec2.volumes()) == 1
    aws_double.ec2.failing = {}
    (change,) = compute.diff(spec)
    compute.apply(change)
    assert [machine.state for machine in fleet.wait()] == ["running", "running"]


@pytest.mark.parametrize(
    "operation",
    ["DescribeVpcs", "CreateSecurityGroup", "AuthorizeSecurityGroupIngress", "DescribeImages", "RunInstances"],
)
def test_a_create_that_fails_at_any_point_leaves_nothing_that_is_not_found(
    impatient: Compute, aws_double: AwsDouble, operation: str
) -> None:
    spec = attrs.evolve(SPEC, open_ports=(22,), count=2)
    aws_double.inject("status", status=403, body=body_of("UnauthorizedOperation"), match=is_(operation))
    with pytest.raises(PermissionDenied):
        impatient.create(spec)
    assert aws_double.ec2.machines() == {}
    swept = impatient.sweep(older_than=timedelta(0))
    assert firewalls(aws_double) == []
    assert len(swept) == (1 if operation in {"AuthorizeSecurityGroupIngress", "RunInstances"} else 0)
    impatient.create(spec).wait()
    assert len(aws_double.ec2.machines()) == 2


# states


def test_a_machine_on_its_way_is_not_stopped(compute: Compute) -> None:
    (machine,) = compute.create(SPEC).machines()
    with pytest.raises(Conflict):
        machine.stop()
    assert machine.wait().state == "running"


def test_a_stopped_machine_starts_with_a_new_start_but_the_same_birth(machine: Machine, aws_double: AwsDouble) -> None:
    born = machine.info().created
    machine.stop()
    machine.wait("stopped")
    machine.start()
    assert (machine.info().state, machine.info().raw_state) == ("starting", "pending")
    assert machine.wait().created == born
    assert aws_double.ec2.machines()[machine.id]["LaunchTime"] > born


def test_a_state_that_is_new_is_unknown_and_no_error(machine: Machine, aws_double: AwsDouble) -> None:
    aws_double.ec2.machines()[machine.id]["State"] = {"Code": 99, "Name": "polishing"}
    assert (machine.info().state, machine.info().raw_state) == ("unknown", "polishing")


def test_a_protected_machine_is_not_deleted(machine: Machine, aws_double: AwsDouble) -> None:
    aws_double.ec2.protect(machine.id)
    with pytest.raises(Conflict, match="disableApiTermination"):
        machine.delete()
    assert machine.info().state == "running"


def test_a_spot_machine_is_taken_away_and_comes_back(compute: Compute, aws_double: AwsDouble) -> None:
    spec = attrs.evolve(SPEC, spot=True)
    (made,) = compute.create(spec).wait()
    assert made.spot
    with pytest.raises(Conflict, match="one-time"):
        compute.fleet("web").stop()
    aws_double.ec2.reclaim(made.id)
    (change,) = compute.diff(spec)
    compute.apply(change)
    (again,) = compute.fleet("web").wait()
    assert again.id != made.id
    assert again.spot


def test_an_image_that_is_being_made_is_a_conflict(
    compute: Compute, driver: Ec2Driver, machine: Machine, aws_double: AwsDouble
) -> None:
    aws_double.ec2.disks.delay = timedelta(hours=1)
    image = driver.snapshot(machine.id, "golden")
    assert not image.ready
    with pytest.raises(Conflict):
        compute.create(attrs.evolve(SPEC, name="twin", image=image.id))
    with pytest.raises(AlreadyExists):
        machine.snapshot("golden")


def test_a_disk_of_another_zone_is_refused(compute: Compute, machine: Machine) -> None:
    here = machine.info().zone
    other = "eu-central-1b" if here != "eu-central-1b" else "eu-central-1a"
    disk = compute.create_disk("data", 10, zone=other)
    with pytest.raises(InvalidArgument, match="zone"):
        machine.attach(disk.id)
    with pytest.raises(InvalidArgument, match="in one zone"):
        compute.create_disk("data", 10)


def test_a_wait_that_is_too_long_says_so(compute: Compute, aws_double: AwsDouble) -> None:
    aws_double.ec2.delay = timedelta(days=1)
    clock = [0.0]

    def sleep(seconds: float) -> None:
        clock[0] += seconds

    impatient = Compute(compute.unwrap(Ec2Driver), clock=lambda: clock[0], sleep=sleep)
    with pytest.raises(Timeout, match="running"):
        impatient.create(SPEC).wait(timeout=timedelta(minutes=5))


# other people's things


def test_somebody_elses_group_of_the_name_is_not_touched(
    compute: Compute, provider: AwsProvider, aws_double: AwsDouble
) -> None:
    client = provider.session.client("ec2")
    vpc = client.describe_vpcs()["Vpcs"][0]["VpcId"]
    theirs = client.create_security_group(GroupName="shiftable-fleet/web", Description="theirs", VpcId=vpc)["GroupId"]
    with pytest.raises(AlreadyExists, match="not of shiftable"):
        compute.create(attrs.evolve(SPEC, open_ports=(22,)))
    found = client.describe_security_groups(GroupIds=[theirs])["SecurityGroups"][0]
    assert (found["IpPermissions"], found.get("Tags", [])) == ([], [])
    assert aws_double.ec2.machines() == {}


def test_what_somebody_opened_by_hand_is_seen_and_closed(compute: Compute, machine: Machine) -> None:
    client = compute.unwrap(Ec2Driver).client
    (group,) = client.describe_security_groups(Filters=[{"Name": "group-name", "Values": ["shiftable-fleet/web"]}])[
        "SecurityGroups"
    ]
    every: Any = {"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}
    ranged: Any = {"IpProtocol": "tcp", "FromPort": 0, "ToPort": 1023, "Ipv6Ranges": [{"CidrIpv6": "2001:db8::/32"}]}
    ping: Any = {"IpProtocol": "icmp", "FromPort": -1, "ToPort": -1, "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}
    client.authorize_security_group_ingress(GroupId=group["GroupId"], IpPermissions=[every, ranged, ping])
    assert machine.info().firewall == (
        Rule(port=1, last_port=1023, allow_from=("2001:db8::/32",)),
        Rule(port=1, last_port=65535, allow_from=("0.0.0.0/0",)),
        Rule(port=1, last_port=65535, protocol="udp", allow_from=("0.0.0.0/0",)),
    )
    (change,) = compute.diff(SPEC)
    compute.apply(change)
    assert machine.info().firewall == ()
    (left,) = client.describe_security_groups(GroupIds=[group["GroupId"]])["SecurityGroups"]
    assert [rule["IpProtocol"] for rule in left["IpPermissions"]] == ["icmp"]


def test_a_machine_that_nobody_made_by_shiftable_is_told_of_and_left_alone(
    compute: Compute, aws_double: AwsDouble
) -> None:
    client = compute.unwrap(Ec2Driver).client
    image = next(image.id for image in compute.images() if (image.name, image.arch) == ("debian-12", "x86_64"))
    client.run_instances(ImageId=image, InstanceType="m7i.large", MinCount=1, MaxCount=1)
    (info,) = compute.unwrap(Ec2Driver).machines(None, cursor=None, limit=None).items
    assert (info.fleet, info.image, info.cpus, info.name) == (None, image, 2, info.id)
    assert list(compute.list()) == []
    compute.create(SPEC).wait()
    compute.delete("web")
    assert list(aws_double.ec2.machines()) == [info.id]


def test_a_group_that_somebody_deleted_is_made_again(
    compute: Compute, driver: Ec2Driver, aws_double: AwsDouble
) -> None:
    driver.create(SPEC)
    aws_double.backend("ec2").groups.clear()
    aws_double.backend("ec2").create_security_group("default", "default", vpc_id=driver._place(SPEC).vpc)
    with pytest.raises(InvalidArgument):
        Compute(driver)._make(SPEC, "web-0", driver.choose(SPEC).size)
    compute.create(SPEC).wait()
    assert firewalls(aws_double) == ["shiftable-fleet/web"]


def test_a_group_in_use_by_something_else_stays_and_is_told(
    compute: Compute, fleet: Fleet, aws_double: AwsDouble, caplog: pytest.LogCaptureFixture
) -> None:
    client = compute.unwrap(Ec2Driver).client
    filters: Any = [{"Name": "group-name", "Values": ["shiftable-fleet/web"]}]
    (group,) = client.describe_security_groups(Filters=filters)["SecurityGroups"]
    image = next(image.id for image in compute.images() if (image.name, image.arch) == ("debian-12", "x86_64"))
    client.run_instances(
        ImageId=image, InstanceType="m7i.large", MinCount=1, MaxCount=1, SecurityGroupIds=[group["GroupId"]]
    )
    with caplog.at_level(logging.WARNING):
        compute.delete(fleet.name)
    assert "still in use" in caplog.text
    assert firewalls(aws_double) == ["shiftable-fleet/web"]
    (found,) = compute.debris()
    with pytest.raises(Conflict):
        compute.sweep(older_than=timedelta(0))
    assert found.fleet == "web"


def test_labels_that_are_tags_of_its_own_are_refused(compute: Compute) -> None:
    for key in ("Name", "shiftable-image", "aws:x"):
        with pytest.raises(Unsupported, match=key):
            compute.create(attrs.evolve(SPEC, labels={key: "x"}))


# labels that change


def tags_of_all(aws_double: AwsDouble) -> list[dict[str, str]]:
    """Return the tags of what was made with the machines, besides shiftable's own."""
    held = [*aws_double.ec2.machines().values(), *aws_double.ec2.volumes().values()]
    held += aws_double.ec2.interfaces().values()
    return [{tag["Key"]: tag["Value"] for tag in each["Tags"] if tag["Key"] in {"team", "stage", "a"}} for each in held]


def test_what_goes_with_a_machine_has_its_labels_and_nothing_else_has(
    compute: Compute, machine: Machine, aws_double: AwsDouble
) -> None:
    disk = compute.create_disk("data", 10, zone=machine.info().zone)
    machine.attach(disk.id)
    machine.relabel({"team": "data", "stage": "live"})
    before = len(aws_double.calls)
    machine.relabel({"team": "shop"}, remove=["stage"])
    asked = [call.operation for call in aws_double.calls[before:]]
    assert [name for name in asked if name.endswith("Tags")] == ["DeleteTags", "CreateTags"]
    found = {id_: {tag["Key"]: tag["Value"] for tag in held["Tags"]} for id_, held in aws_double.ec2.volumes().items()}
    assert found.pop(disk.id) == {"Name": "data"}
    (first,) = found.values()
    (card,) = aws_double.ec2.interfaces().values()
    (whole,) = aws_double.ec2.machines().values()
    tags = {tag["Key"]: tag["Value"] for tag in whole["Tags"]}
    assert first == {tag["Key"]: tag["Value"] for tag in card["Tags"]} == tags
    assert (tags["team"], tags[FLEET_LABEL], tags["Name"], "stage" in tags) == ("shop", "web", "web-0", False)


@pytest.mark.parametrize("kind", FAULTS)
@pytest.mark.parametrize("operation", ["DeleteTags", "CreateTags"])
def test_a_labelling_that_broke_off_anywhere_is_done_by_the_same_call_again(
    impatient: Compute, machine: Machine, aws_double: AwsDouble, operation: str, kind: Any
) -> None:
    machine.relabel({"team": "shop", "stage": "live"})
    (hasty,) = impatient.fleet("web").machines()
    aws_double.inject(kind, match=is_(operation))
    with pytest.raises((Timeout, Unavailable)):
        hasty.relabel({"team": "data"}, remove=["stage"])
    hasty.relabel({"team": "data"}, remove=["stage"])
    assert [{"team": "data"}] * 3 == tags_of_all(aws_double)


def test_tags_that_appear_meanwhile_stay(machine: Machine, aws_double: AwsDouble) -> None:
    def interfere(_call: object) -> bool:
        if "a" not in (tag["Key"] for tag in aws_double.ec2.machines()[machine.id]["Tags"]):
            aws_double.ec2.machines()[machine.id]["Tags"].append({"Key": "a", "Value": "somebody's"})
        return False

    aws_double.inject("status", status=500, match=lambda call: is_("CreateTags")(call) and interfere(call))
    machine.relabel({"team": "data"})
    assert machine.info().user_labels == {"team": "data", "a": "somebody's"}


def test_a_tag_limit_that_others_reached_first_changes_nothing(machine: Machine, aws_double: AwsDouble) -> None:
    (volume,) = aws_double.ec2.volumes().values()
    volume["Tags"] += [{"Key": f"t{number}", "Value": ""} for number in range(50 - len(volume["Tags"]))]
    with pytest.raises(InvalidArgument, match="maximum number of tags"):
        machine.relabel({"team": "data"})
    assert machine.info().user_labels == {}


@pytest.mark.parametrize(
    ("status", "code", "error"),
    [
        (403, "UnauthorizedOperation", PermissionDenied),
        (401, "AuthFailure", Unauthenticated),
        (503, "RequestLimitExceeded", Throttled),
        (500, "InternalError", Unavailable),
        (400, "InvalidVolume.NotFound", NotFound),
    ],
)
def test_a_refusal_of_tags_is_told_as_what_it_is(
    impatient: Compute, machine: Machine, aws_double: AwsDouble, status: int, code: str, error: Any
) -> None:
    (hasty,) = impatient.fleet("web").machines()
    aws_double.inject("status", status=status, body=body_of(code), match=is_("CreateTags"))
    with pytest.raises(error) as caught:
        hasty.relabel({"team": CANARY})
    assert "machine 'web-0'" in str(caught.value)
    assert CANARY not in str(caught.value)
    assert machine.info().user_labels == {}


def test_a_machine_that_vanishes_while_it_is_labelled_is_missing(
    compute: Compute, machine: Machine, aws_double: AwsDouble
) -> None:
    machine.delete()
    machine.wait_deleted()
    with pytest.raises(NotFound):
        machine.relabel(remove=["team"])
    assert not calls_of(aws_double, "DeleteTags")
    assert not compute.exists("web")


@pytest.mark.parametrize("labels", [{"k" * 129: ""}, {"team": "v" * 257}, {"AWS:x": ""}, {"shiftable-x": ""}])
def test_labels_that_are_no_tags_are_refused_before_they_are_sent(
    machine: Machine, aws_double: AwsDouble, labels: dict[str, str]
) -> None:
    before = len(aws_double.calls)
    with pytest.raises(Unsupported):
        machine.relabel(labels)
    assert before == len(aws_double.calls)
    machine.relabel({"k" * 128: "v" * 256})
    assert machine.info().user_labels == {"k" * 128: "v" * 256}


# secrets


def test_user_data_shows_nowhere(compute: Compute, aws_double: AwsDouble, caplog: pytest.LogCaptureFixture) -> None:
    spec = attrs.evolve(SPEC, user_data_text=f"#!/bin/sh\necho {CANARY}\n", native=Ec2Settings(key_name="missing"))
    with caplog.at_level(logging.DEBUG, logger="shiftable"), pytest.raises(InvalidArgument) as caught:
        compute.create(spec)
    native: Any = caught.value.__cause__
    said = [repr(caught.value), str(caught.value), repr(native), caplog.text, repr(spec), repr(compute)]
    said += [repr(call) for call in aws_double.calls]
    assert not [text for text in said if CANARY in text]
    compute.create(attrs.evolve(spec, native=None)).wait()
    (id_,) = aws_double.ec2.machines()
    assert CANARY.encode() in aws_double.ec2.user_data(id_)
    assert CANARY not in repr(aws_double.ec2._regions)

"""What machines of EC2 are made of: sizes and prices, images, networks, and what is asked for without being asked."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import attrs
import pytest

import shiftable
from shiftable.compute import Compute, FleetSpec
from shiftable.compute.driver import FLEET_LABEL
from shiftable.config import ConfigError
from shiftable.errors import Conflict, InvalidArgument
from shiftable.testing.conformance.compute import small_fleet
from shiftable_aws import AwsProvider, AwsSettings, Ec2Settings, _ec2_prices
from shiftable_aws._ec2_groups import walls
from shiftable_aws._ec2_images import ALIASES
from shiftable_aws._strict_ec2_rules import INSTANCE_TYPES, offered
from shiftable_aws.compute import FEATURES, STATES, Ec2Driver
from shiftable_aws.double import AwsDouble

SPEC = small_fleet("web")
TABLE = Path(_ec2_prices.__file__).with_name("_ec2_prices.json")
GIB = 2**30


@pytest.fixture
def driver(provider: AwsProvider) -> Ec2Driver:
    made = provider.compute()
    assert isinstance(made, Ec2Driver)
    return made


@pytest.fixture
def compute(driver: Ec2Driver, aws_double: AwsDouble) -> Compute:
    return Compute(driver, sleep=aws_double.clock.advance)


@pytest.fixture
def asked(driver: Ec2Driver) -> list[dict[str, Any]]:
    """Return what is asked of RunInstances."""
    found: list[dict[str, Any]] = []

    def keep(params: Mapping[str, Any], **_: object) -> None:
        found.append(dict(params))

    driver.client.meta.events.register("provide-client-params.ec2.RunInstances", keep)
    return found


def chosen(compute: Compute, **declared: Any) -> str:
    return compute.choose(attrs.evolve(SPEC, **declared)).size.name


def calls_of(double: AwsDouble, operation: str) -> int:
    return sum(call.operation == operation for call in double.calls)


# prices


def test_the_table_says_where_it_is_from_and_when() -> None:
    table = _ec2_prices.prices()
    assert table.about.date == date(2025, 3, 2)
    assert FEATURES.price_list == table.about
    assert "apache-libcloud" in table.about.source
    assert set(table.regions) == set(_ec2_prices.REGIONS)
    assert TABLE.stat().st_size < 100_000


@pytest.mark.parametrize(
    ("region", "name", "price"),
    [
        ("us-east-1", "m7g.large", "0.0816"),
        ("us-east-1", "t3.medium", "0.0416"),
        ("eu-central-1", "t3.medium", "0.048"),
        ("us-east-1", "c5.4xlarge", "0.68"),
        ("us-east-1", "m5.xlarge", "0.192"),
        ("eu-central-1", "m6i.large", "0.115"),
        ("us-east-1", "g4dn.xlarge", "0.526"),
    ],
)
def test_a_price_is_the_published_one(region: str, name: str, price: str) -> None:
    found = _ec2_prices.prices().of(region, name)
    assert found is not None
    assert abs(found - Decimal(price)) < Decimal("0.001")


def test_larger_sizes_of_a_family_cost_in_proportion() -> None:
    checked = 0
    for name, price in _ec2_prices.prices().regions["us-east-1"].items():
        family, _, size = name.partition(".")
        large = _ec2_prices.prices().of("us-east-1", f"{family}.large")
        if large is None or family.startswith(("g", "p", "t")) or size == "large":
            continue
        cpus = [INSTANCE_TYPES[one]["VCpuInfo"]["DefaultVCpus"] for one in (name, f"{family}.large")]
        assert abs(price / large / Decimal(cpus[0] / cpus[1]) - 1) < Decimal("0.001"), name
        checked += 1
    assert checked > 100


def test_the_table_is_made_anew_from_the_published_prices(tmp_path: Path) -> None:
    sold = {"us-east-1": 0.1, "eu-central-1": 0.12, "moon-1": 1.0}
    larger, graphics = {"us-east-1": 0.2}, {"us-east-1": 0.5}
    dedicated = {"us-east-1": 0.424, "eu-central-1": 0.48}  # six percent more, in one region
    rows = {"m7g.large": sold, "m7g.2xlarge": dedicated, "m7g.xlarge": larger, "m7g.metal": sold, "c3": sold}
    published = {
        "updated": 1_740_936_978,
        "compute": {"ec2_linux": {**rows, "u-6tb1.metal": sold, "g6.xlarge": graphics, "g6.12xlarge": larger}},
    }
    source, file = tmp_path / "pricing.json", tmp_path / "table.json"
    source.write_text(json.dumps(published))
    _ec2_prices.main(source, file)
    made = json.loads(file.read_text())
    assert made["date"] == "2025-03-02"
    assert made["regions"] == {
        "eu-central-1": {"m7g.large": 0.12, "m7g.xlarge": 0.24, "m7g.2xlarge": 0.48},
        "us-east-1": {"m7g.large": 0.1, "m7g.xlarge": 0.2, "m7g.2xlarge": 0.4, "g6.xlarge": 0.5, "g6.12xlarge": 0.2},
    }


# sizes


def test_sizes_are_those_of_the_region_as_ec2_tells_them(compute: Compute) -> None:
    sizes = {size.name: size for size in compute.sizes()}
    assert len(sizes) > 200
    assert sizes.keys() <= offered("eu-central-1")
    for name, size in sizes.items():
        told = INSTANCE_TYPES[name]
        assert (size.cpus, size.memory) == (told["VCpuInfo"]["DefaultVCpus"], told["MemoryInfo"]["SizeInMiB"] * 2**20)
        assert told["ProcessorInfo"]["SupportedArchitectures"] in ([size.arch], ["i386", "x86_64"])
        assert size.price == _ec2_prices.prices().of("eu-central-1", name)
    assert (sizes["g6.xlarge"].gpus, sizes["g6.xlarge"].gpu) == (1, "L4")


def test_sizes_are_asked_for_once_an_hour(provider: AwsProvider, aws_double: AwsDouble) -> None:
    now = [0.0]
    driver = Ec2Driver(provider.session, clock=lambda: now[0])
    every = driver.sizes(cursor=None, limit=None).items
    asked = calls_of(aws_double, "DescribeInstanceTypes")
    assert 2 <= asked <= 4
    driver.choose(SPEC)
    now[0] = 3599.0
    assert driver.sizes(cursor=None, limit=None).items == every
    assert calls_of(aws_double, "DescribeInstanceTypes") == asked
    now[0] = 3601.0
    driver.choose(SPEC)
    assert calls_of(aws_double, "DescribeInstanceTypes") == 2 * asked


def test_the_cheapest_type_that_has_all_is_taken(compute: Compute) -> None:
    assert chosen(compute, cpus=2, memory_gib=4) == "t3a.medium"
    assert chosen(compute, cpus=2, memory_gib=4, arch="arm64") == "t4g.medium"
    assert chosen(compute, cpus=4, memory_gib=8, gpus=1) == "g4dn.xlarge"
    assert chosen(compute, cpus=4, memory_gib=8, gpus=1, gpu="L4") == "g6.xlarge"
    choice = compute.choose(attrs.evolve(SPEC, cpus=2, memory_gib=4))
    assert choice.price == Decimal("0.0432")
    (change,) = compute.diff(attrs.evolve(SPEC, cpus=2, memory_gib=4, count=2))
    assert change.monthly_cost == Decimal("0.0432") * 2 * 730


def test_a_type_fits_into_the_placement_and_is_in_the_zone(compute: Compute) -> None:
    assert chosen(compute, cpus=2, memory_gib=4, placement="spread") == "t3a.medium"
    assert chosen(compute, cpus=2, memory_gib=4, placement="close").startswith(("c5", "c6", "c7"))
    assert chosen(compute, cpus=2, memory_gib=4, zone="eu-central-1a") == "t3a.medium"
    with pytest.raises(InvalidArgument, match="no types in a zone 'eu-central-1z'"):
        compute.choose(attrs.evolve(SPEC, zone="eu-central-1z"))


def test_a_declared_type_is_taken_whether_or_not_the_table_has_it(compute: Compute) -> None:
    choice = compute.choose(attrs.evolve(SPEC, native=Ec2Settings(instance_type="m7i.large")))
    assert (choice.size.name, choice.reason, choice.price) == ("m7i.large", "it is declared", choice.size.price)
    other = compute.choose(attrs.evolve(SPEC, native=Ec2Settings(instance_type="i4i.large"))).size
    assert (other.cpus, other.memory, other.price) == (2, 16 * GIB, None)
    for name, why in (("m7i.tiny", "no type"), ("m7g.large", "is of arm64")):
        with pytest.raises(InvalidArgument, match=why):
            compute.choose(attrs.evolve(SPEC, native=Ec2Settings(instance_type=name)))


def test_where_the_table_has_no_prices_the_smallest_type_is_taken(aws_double: AwsDouble) -> None:
    provider = AwsProvider(AwsSettings(**{**aws_double.config, "region": "af-south-1"}))
    choice = Compute(provider.compute()).choose(attrs.evolve(SPEC, cpus=2, memory_gib=4))
    assert (choice.size.cpus, choice.size.memory, choice.price) == (2, 4 * GIB, None)
    provider.close()


# images


def test_an_alias_is_the_newest_image_of_its_publisher(compute: Compute) -> None:
    found = {(image.name, image.arch): image.id for image in compute.images()}
    client = compute.unwrap(Ec2Driver).client
    assert len(found) == 2 * len(ALIASES)
    told = {one["ImageId"]: one for one in client.describe_images(ImageIds=list(found.values()))["Images"]}
    assert {key: (told[id_]["Name"], told[id_]["OwnerId"]) for key, id_ in found.items() if key[1] == "x86_64"} == {
        ("debian-12", "x86_64"): ("debian-12-amd64-20261102-2300", "136693071363"),
        ("debian-13", "x86_64"): ("debian-13-amd64-20261109-2300", "136693071363"),
        ("ubuntu-22.04", "x86_64"): (
            "ubuntu/images/hvm-ssd/ubuntu-jammy-22.04-amd64-server-20261101",
            "099720109477",
        ),
        ("ubuntu-24.04", "x86_64"): (
            "ubuntu/images/hvm-ssd-gp3/ubuntu-noble-24.04-amd64-server-20261101",
            "099720109477",
        ),
    }


def test_an_image_is_named_by_its_id_or_ones_own_name(compute: Compute, aws_double: AwsDouble) -> None:
    compute.create(SPEC).wait()
    golden = compute.fleet("web").machine("web-0").snapshot("golden")
    for number, name in enumerate((golden.id, "golden")):
        (made,) = compute.create(attrs.evolve(SPEC, name=f"twin{number}", image=name)).wait()
        assert made.image == name
        assert aws_double.ec2.machines()[made.id]["ImageId"] == golden.id
    for wrong in ("debian-7", "ami-0000000000000abcd"):
        with pytest.raises(InvalidArgument, match="there is no image"):
            compute.create(attrs.evolve(SPEC, name="none", image=wrong))
    assert "none" not in {each.fleet for each in compute.debris(older_than=timedelta())}


def test_an_image_of_another_architecture_is_refused(compute: Compute) -> None:
    arm = next(image.id for image in compute.images() if image.arch == "arm64")
    with pytest.raises(InvalidArgument, match="architecture"):
        compute.create(attrs.evolve(SPEC, image=arm))


# what a machine is made of


def test_a_plain_machine_is_closed(
    compute: Compute, aws_double: AwsDouble, asked: list[dict[str, Any]], provider: AwsProvider
) -> None:
    (made,) = compute.create(SPEC).wait()
    (request,) = asked
    machine = aws_double.ec2.machines()[made.id]
    assert {name: machine["MetadataOptions"][name] for name in ("HttpTokens", "HttpPutResponseHopLimit")} == {
        "HttpTokens": "required",
        "HttpPutResponseHopLimit": 1,
    }
    assert request["NetworkInterfaces"][0]["AssociatePublicIpAddress"] is False
    assert made.public_addresses == ()
    (volume,) = aws_double.ec2.volumes().values()
    assert (volume["Encrypted"], volume["VolumeType"], volume["Size"]) == (True, "gp3", 20)
    (group,) = provider.session.client("ec2").describe_security_groups(
        GroupIds=[machine["SecurityGroups"][0]["GroupId"]]
    )["SecurityGroups"]
    assert (group["GroupName"], group["IpPermissions"]) == ("shiftable-fleet/web", [])
    assert "KeyName" not in request
    assert b'"lock_passwd": true' in aws_double.ec2.user_data(made.id)


def test_all_that_is_made_has_the_label(compute: Compute, aws_double: AwsDouble, asked: list[dict[str, Any]]) -> None:
    spec = attrs.evolve(SPEC, labels={"team": "shop"}, placement="spread", spot=True)
    compute.create(spec).wait()
    (request,) = asked
    kinds = {
        one["ResourceType"]: {tag["Key"]: tag["Value"] for tag in one["Tags"]} for one in request["TagSpecifications"]
    }
    assert set(kinds) == {"instance", "volume", "network-interface", "spot-instances-request"}
    for tags in kinds.values():
        assert (tags["team"], tags[FLEET_LABEL], tags["Name"]) == ("shop", "web", "web-0")
    (volume,) = aws_double.ec2.volumes().values()
    assert {"Key": FLEET_LABEL, "Value": "web"} in volume["Tags"]
    (group,) = aws_double.ec2.placement_groups().values()
    assert (group["Strategy"], group["Tags"]) == ("spread", [{"Key": FLEET_LABEL, "Value": "web"}])
    client = compute.unwrap(Ec2Driver).client
    found = client.describe_security_groups(Filters=[{"Name": f"tag:{FLEET_LABEL}", "Values": ["web"]}])
    assert len(found["SecurityGroups"]) == 1


def test_the_settings_of_ec2_are_asked_for(
    compute: Compute, provider: AwsProvider, aws_double: AwsDouble, asked: list[dict[str, Any]]
) -> None:
    client = provider.session.client("ec2")
    client.create_key_pair(KeyName="ops")
    client.create_placement_group(GroupName="near", Strategy="cluster")
    subnet = client.describe_subnets()["Subnets"][1]
    group = client.create_security_group(GroupName="more", Description="more", VpcId=subnet["VpcId"])["GroupId"]
    iam = provider.session.client("iam")
    profile = iam.create_instance_profile(InstanceProfileName="app")["InstanceProfile"]["Arn"]
    native = Ec2Settings(
        instance_type="m7i.large",
        key_name="ops",
        subnet=subnet["SubnetId"],
        security_groups=(group,),
        tenancy="dedicated",
        placement_group="near",
        kms_key="alias/own",
        root_volume_type="io2",
        iops=4_000,
        metadata_hop_limit=2,
    )
    (made,) = compute.create(attrs.evolve(SPEC, native=native, identity="app", public_ip=True, disk_gib=40)).wait()
    (request,) = asked
    assert request["KeyName"] == "ops"
    assert request["Placement"] == {"GroupName": "near", "Tenancy": "dedicated"}
    assert request["BlockDeviceMappings"] == [
        {
            "DeviceName": "/dev/xvda",
            "Ebs": {
                "VolumeSize": 40,
                "VolumeType": "io2",
                "Encrypted": True,
                "DeleteOnTermination": True,
                "KmsKeyId": "alias/own",
                "Iops": 4_000,
            },
        }
    ]
    assert request["MetadataOptions"]["HttpPutResponseHopLimit"] == 2
    assert (made.size, made.network, made.zone) == ("m7i.large", subnet["SubnetId"], subnet["AvailabilityZone"])
    assert (made.identity, made.disk_gib) == (profile, 40)
    assert made.public_addresses
    assert group in {one["GroupId"] for one in aws_double.ec2.machines()[made.id]["SecurityGroups"]}
    assert made.firewall == ()
    compute.delete("web")
    assert set(aws_double.ec2.placement_groups()) == {"near"}


def test_settings_that_cannot_be_are_refused() -> None:
    for limit in (0, 65):
        with pytest.raises(ValueError, match="metadata_hop_limit"):
            Ec2Settings(metadata_hop_limit=limit)


def test_a_named_identity_may_be_an_arn(compute: Compute, provider: AwsProvider) -> None:
    arn = provider.session.client("iam").create_instance_profile(InstanceProfileName="app")["InstanceProfile"]["Arn"]
    (made,) = compute.create(attrs.evolve(SPEC, identity=arn)).wait()
    assert made.identity == arn
    with pytest.raises(InvalidArgument, match="Instance Profile"):
        compute.create(attrs.evolve(SPEC, name="other", identity="none"))


# networks


def test_without_a_default_network_one_has_to_be_named(compute: Compute, provider: AwsProvider) -> None:
    client = provider.session.client("ec2")
    for subnet in client.describe_subnets()["Subnets"]:
        client.delete_subnet(SubnetId=subnet["SubnetId"])
    client.delete_vpc(VpcId=client.describe_vpcs()["Vpcs"][0]["VpcId"])
    with pytest.raises(InvalidArgument, match="network"):
        compute.create(SPEC)
    vpc = client.create_vpc(CidrBlock="10.9.0.0/16")["Vpc"]["VpcId"]
    with pytest.raises(InvalidArgument, match="has no subnet"):
        compute.create(attrs.evolve(SPEC, network=vpc))
    zones = ("eu-central-1b", "eu-central-1a")
    for number, zone in enumerate(zones):
        client.create_subnet(VpcId=vpc, CidrBlock=f"10.9.{number}.0/24", AvailabilityZone=zone)
    found = compute.create(attrs.evolve(SPEC, network=vpc, count=3)).wait()
    assert [machine.zone for machine in found] == ["eu-central-1a", "eu-central-1b", "eu-central-1a"]
    (one,) = compute.create(attrs.evolve(SPEC, name="one", network=vpc, zone="eu-central-1b")).wait()
    assert one.zone == "eu-central-1b"
    with pytest.raises(InvalidArgument, match="in the zone eu-central-1c"):
        compute.create(attrs.evolve(SPEC, name="two", network=vpc, zone="eu-central-1c"))
    client.create_subnet(VpcId=vpc, CidrBlock="10.9.9.0/24", AvailabilityZone="eu-central-1a")
    with pytest.raises(InvalidArgument, match="more than one subnet in a zone"):
        compute.create(attrs.evolve(SPEC, name="two", network=vpc))
    for wrong in ("vpc-0000000000000000", "default"):
        with pytest.raises(InvalidArgument):
            compute.create(attrs.evolve(SPEC, name="two", network=wrong))


def test_a_fleet_that_moved_to_another_network_leaves_no_group(
    compute: Compute, provider: AwsProvider, aws_double: AwsDouble
) -> None:
    client = provider.session.client("ec2")
    compute.create(SPEC).wait()
    vpc = client.create_vpc(CidrBlock="10.9.0.0/16")["Vpc"]["VpcId"]
    client.create_subnet(VpcId=vpc, CidrBlock="10.9.1.0/24", AvailabilityZone="eu-central-1a")
    wider = attrs.evolve(SPEC, network=vpc, count=2)
    for change in compute.diff(wider):
        compute.apply(change)
    assert len({machine.network for machine in compute.fleet("web").wait()}) == 2
    opened = attrs.evolve(wider, open_ports=(443,))
    for change in compute.diff(opened):
        compute.apply(change)
    assert compute.diff(opened) == ()
    assert all(machine.firewall for machine in compute.fleet("web").wait())
    compute.delete("web")
    assert list(compute.debris()) == []
    groups = aws_double.backend("ec2").groups.values()
    assert not [group for of_vpc in groups for group in of_vpc.values() if group.name.startswith("shiftable")]


# listing


def test_250_machines_are_listed_in_three_calls(provider: AwsProvider, aws_double: AwsDouble) -> None:
    aws_double.ec2.quota = 10_000
    driver = provider.compute()
    Compute(driver).create(attrs.evolve(SPEC, count=250, open_ports=(22,)))
    for again in range(2):
        fresh = AwsProvider(AwsSettings(**aws_double.config)) if again == 0 else provider
        before = len(aws_double.calls)
        found = [machine.seen for machine in Compute(fresh.compute()).fleet("web").machines()]
        assert len(found) == 250
        assert all((m.cpus, m.image, m.user, len(m.firewall)) == (2, "debian-12", "shift", 1) for m in found)
        assert len(aws_double.calls) - before <= 3
        if fresh is not provider:
            fresh.close()


def test_groups_are_asked_for_by_two_hundred_at_most(driver: Ec2Driver, aws_double: AwsDouble) -> None:
    vpc = driver.client.describe_vpcs()["Vpcs"][0]["VpcId"]
    backend = aws_double.backend("ec2")
    ids = {backend.create_security_group(f"g{number}", "g", vpc_id=vpc).id for number in range(201)}
    assert walls(driver.client, ids) == dict.fromkeys(ids, ())
    assert calls_of(aws_double, "DescribeSecurityGroups") == 2


def test_a_machine_costs_one_call_after_the_first(driver: Ec2Driver, aws_double: AwsDouble) -> None:
    compute = Compute(driver)
    compute.create(SPEC)
    before = len(aws_double.calls)
    for change in compute.diff(attrs.evolve(SPEC, count=6)):
        compute.apply(change)
    made = [call.operation for call in aws_double.calls[before:]]
    assert made.count("RunInstances") == 5
    assert len(made) <= 5 + 8


def test_every_state_of_ec2_has_ours() -> None:
    from botocore.session import get_session

    known = get_session().get_service_model("ec2").shape_for("InstanceStateName").enum
    assert set(STATES) | {"terminated"} == set(known)


# declared


FILE = """
[project]
name = "shop"
[environments.d]
provider = "a"
[providers.a]
type = "aws"
region = "eu-central-1"
endpoint = "{url}"
access_key = {{ env = "SHOP_ID" }}
secret_key = {{ env = "SHOP_KEY" }}
[compute.web]
image = "debian-12"
cpus = 2
memory_gib = 4
count = 2
open_ports = [443]
user_data_text = "#!/bin/sh\\necho hello\\n"
labels = {{ team = "shop" }}
[compute.web.aws]
instance_type = "t3.medium"
metadata_hop_limit = 2
"""


@pytest.fixture
def shop(tmp_path: Path, aws_double: AwsDouble, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SHOP_ID", aws_double.config["access_key"].reveal())
    monkeypatch.setenv("SHOP_KEY", aws_double.config["secret_key"].reveal())
    path = tmp_path / "shiftable.toml"
    path.write_text(FILE.format(url=aws_double.url))
    return path


def test_an_application_has_its_machines_there_by_configuration_only(shop: Path, aws_double: AwsDouble) -> None:
    aws_double.ec2.delay = timedelta(0)
    with shiftable.load(shop, environment="d") as app:
        (declared,) = app.declared("compute")
        spec = app.spec(declared)
        assert isinstance(spec, FleetSpec)
        assert spec.native == Ec2Settings(instance_type="t3.medium", metadata_hop_limit=2)
        (change,) = app.diff(declared)
        assert change.action == "create"
        assert change.monthly_cost == Decimal("0.048") * 2 * 730
        app.apply(declared, change)
        found = app.compute("web").wait()
        assert [(machine.name, machine.size) for machine in found] == [("web-0", "t3.medium"), ("web-1", "t3.medium")]
        assert app.diff(declared) == ()
        assert all(b"echo hello" in aws_double.ec2.user_data(machine.id) for machine in found)
    shop.write_text(shop.read_text().replace("count = 2", "count = 1").replace("[443]", "[443, 22]"))
    with shiftable.load(shop, environment="d") as app:
        (declared,) = app.declared("compute")
        changes = app.diff(declared)
        assert [change.destroys for change in changes] == [True, False]
        with pytest.raises(Conflict, match="destroys"):
            app.apply(declared, attrs.evolve(changes[0], destroys=False))
        for change in changes:
            app.apply(declared, change)
        assert app.diff(declared) == ()
        (left,) = app.compute("web").wait()
        assert {rule.port for rule in left.firewall} == {22, 443}
        compute = app.cloud("a").compute
        compute.delete("web")
    assert aws_double.ec2.machines() == {}
    assert aws_double.ec2.volumes() == {}


def test_what_only_ec2_knows_is_checked_with_the_file(shop: Path) -> None:
    shop.write_text(shop.read_text().replace("instance_type =", "instance_typ ="))
    with pytest.raises(ConfigError, match="instance_typ"), shiftable.load(shop, environment="d") as app:
        app.spec(app.declared("compute")[0])

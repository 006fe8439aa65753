"""Azure's virtual machines keep the rules for machines, at a double that keeps Azure's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import attrs
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from shiftable.blob import BlobStore, BucketSpec
from shiftable.compute import Compute, DiskImage, Fleet, FleetSpec, Rule
from shiftable.compute.driver import GIB
from shiftable.errors import AlreadyExists, Conflict, InvalidArgument, NotFound
from shiftable.testing.conformance.compute import ComputeConformance, Sleep, compute_machine, small_fleet
from shiftable_azure import AzureComputeSettings, AzureProvider, AzureSettings
from shiftable_azure.compute import AzureComputeDriver
from shiftable_azure.double import AzureDouble

from .disks import vhd

Make = Callable[..., AzureComputeDriver]


@pytest.fixture
def compute(azure_double: AzureDouble, compute_driver: AzureComputeDriver) -> Compute:
    return Compute(compute_driver, sleep=azure_double.clock.advance)


def declared(name: str = "web", **changed: Any) -> FleetSpec:
    return attrs.evolve(small_fleet(name), **changed)


class AzureMachines(ComputeConformance):
    unknown_images = ("debian-99", "Debian:debian-99:99:latest", "Debian:debian-12:12-gen2:0.0.1")

    @pytest.fixture
    def driver(self, azure_double: AzureDouble, compute_driver: AzureComputeDriver) -> AzureComputeDriver:
        azure_double.machines.page_size = 60
        return compute_driver

    @pytest.fixture
    def sleep(self, azure_double: AzureDouble) -> Sleep:
        return azure_double.clock.advance

    @pytest.fixture
    def disk_image(self, azure_double: AzureDouble, provider: AzureProvider) -> DiskImage:
        BlobStore(provider.blob()).create(BucketSpec(name="images"))
        azure_double.service.put_raw("images", "linux/web.vhd", vhd())
        return DiskImage(bucket="images", key="linux/web.vhd", form="vhd")


class TestAzureMachines(AzureMachines):
    """Everything is done at once."""


class TestSlowAzureMachines(AzureMachines):
    """Each operation takes its time, and pages are small."""

    many = 25
    images_take_time = True

    @pytest.fixture
    def driver(self, azure_double: AzureDouble, compute_driver: AzureComputeDriver) -> AzureComputeDriver:
        azure_double.machines.endings.delay = timedelta(seconds=4)
        azure_double.machines.page_size = 7
        azure_double.network.page_size = 5
        return compute_driver


def test_the_driver_does_what_the_model_does(azure_double: AzureDouble, compute_driver: AzureComputeDriver) -> None:
    def make_driver() -> AzureComputeDriver:
        azure_double.reset()
        azure_double.machines.endings.delay = timedelta(seconds=4)
        return compute_driver

    quick = settings(
        max_examples=8,
        stateful_step_count=10,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    )
    run_state_machine_as_test(compute_machine(make_driver, sleep=azure_double.clock.advance), settings=quick)


# how many calls it takes


def counted(azure_double: AzureDouble, since: int) -> Counter[str]:
    return Counter(call.operation for call in azure_double.calls[since:])


def test_250_machines_are_listed_in_three_calls_with_states_addresses_and_firewall(
    azure_double: AzureDouble, compute: Compute
) -> None:
    compute.create(declared(count=250, open_ports=(443,)))
    compute.create(declared("other"))
    before = len(azure_double.calls)
    found = list(compute.fleet("web").machines())
    assert counted(azure_double, before) == {"VirtualMachines_List": 2, "NetworkSecurityGroups_Get": 1}
    assert {machine.seen.state for machine in found} == {"running"}
    assert len({machine.seen.addresses for machine in found}) == 250
    assert {machine.seen.firewall for machine in found} == {(Rule(port=443),)}
    assert [machine.info() for machine in found[:3]] == [machine.seen for machine in found[:3]]
    before = len(azure_double.calls)
    assert len(list(compute.machines())) == 251
    assert counted(azure_double, before) == {
        "VirtualMachines_List": 2,
        "NetworkSecurityGroups_List": 1,
        "NetworkInterfaces_List": 1,
    }


def test_public_addresses_cost_one_call_more_and_pages_one_each(azure_double: AzureDouble, compute: Compute) -> None:
    compute.create(declared(count=7, public_ip=True)).wait()
    azure_double.machines.page_size = 3
    before = len(azure_double.calls)
    found = list(compute.fleet("web").machines())
    calls = counted(azure_double, before)
    assert calls == {"VirtualMachines_List": 6, "NetworkSecurityGroups_Get": 1, "PublicIPAddresses_List": 1}
    assert len({machine.seen.public_addresses for machine in found}) == 7
    assert [machine.info() for machine in found] == [machine.seen for machine in found]
    before = len(azure_double.calls)
    assert len(list(compute.fleet("web").machines(limit=2))) == 2
    assert counted(azure_double, before)["VirtualMachines_List"] == 4  # one page of machines, three of states


def test_interfaces_are_listed_where_a_security_group_does_not_tell_them(
    azure_double: AzureDouble, compute: Compute
) -> None:
    compute.create(declared(count=3, open_ports=(22,))).wait()
    whole = [machine.seen for machine in compute.fleet("web").machines()]
    azure_double.network.expands = False
    before = len(azure_double.calls)
    assert [machine.seen for machine in compute.fleet("web").machines()] == whole
    assert counted(azure_double, before)["NetworkInterfaces_List"] == 1
    del azure_double.network.resources["networksecuritygroups", "shiftable-double", "shiftable-web"]
    alone = [machine.seen for machine in compute.fleet("web").machines()]
    assert alone == [attrs.evolve(machine, firewall=()) for machine in whole]


def test_machines_that_are_just_being_made_differ_in_nothing(azure_double: AzureDouble, compute: Compute) -> None:
    azure_double.machines.endings.delay = timedelta(minutes=1)
    spec = declared(count=2, open_ports=(443,), public_ip=True)
    compute.create(spec)
    assert {machine.seen.state for machine in compute.fleet("web").machines()} == {"creating"}
    assert compute.diff(spec) == ()


def test_a_machine_is_made_by_one_call(azure_double: AzureDouble, compute: Compute) -> None:
    compute.create(declared(count=1)).wait()
    before = len(azure_double.calls)
    compute.apply(compute.diff(declared(count=6))[0])
    writes = [call.operation for call in azure_double.calls[before:] if call.method not in {"GET", "HEAD"}]
    assert writes == ["VirtualMachines_CreateOrUpdate"] * 5


def test_sizes_are_kept_for_an_hour(azure_double: AzureDouble, compute: Compute) -> None:
    pages = 0
    for minutes in (0, 59, 2):
        azure_double.clock.advance(60 * minutes)
        before = len(azure_double.calls)
        assert len(list(compute.sizes())) > 30
        pages = counted(azure_double, before)["ResourceSkus_List"]
        assert bool(pages) is (minutes != 59)
    assert pages == 3


# what a machine is


def sent(azure_double: AzureDouble, name: str = "web-0") -> dict[str, Any]:
    found = azure_double.machines.machine(name)
    return {**found.properties, "zones": found.zones, "identity": found.identity, "tags": found.tags}


def test_a_machine_is_secure_by_default(azure_double: AzureDouble, compute: Compute) -> None:
    compute.create(declared()).wait()
    made = sent(azure_double)
    profile = made["osProfile"]
    assert profile["linuxConfiguration"]["disablePasswordAuthentication"] is True
    assert "adminPassword" not in profile
    (key,) = profile["linuxConfiguration"]["ssh"]["publicKeys"]
    assert (key["path"], key["keyData"]) == ("/home/shift/.ssh/authorized_keys", small_fleet().ssh_keys[0])
    assert made["securityProfile"] == {
        "encryptionAtHost": False,
        "securityType": "TrustedLaunch",
        "uefiSettings": {"secureBootEnabled": True, "vTpmEnabled": True},
    }
    assert made["diagnosticsProfile"] == {"bootDiagnostics": {"enabled": True}}
    first = made["storageProfile"]["osDisk"]
    assert (first["deleteOption"], first["diskSizeGB"]) == ("Delete", 30)
    assert first["managedDisk"]["storageAccountType"] == "StandardSSD_LRS"
    (wall,) = azure_double.network.of_kind("networkSecurityGroups")
    (rule,) = wall.properties["securityRules"]
    assert (rule["properties"]["access"], rule["properties"]["priority"]) == ("Deny", 4096)
    (network,) = azure_double.network.of_kind("virtualNetworks")
    assert network.properties["subnets"][0]["properties"]["defaultOutboundAccess"] is False
    (card,) = azure_double.network.of_kind("networkInterfaces")
    assert card.properties["networkSecurityGroup"]["id"].endswith("/shiftable-web")
    assert (card.tags["shiftable-fleet"], card.tags["shiftable-machine"]) == ("web", "web-0")


@pytest.mark.parametrize("registered", [True, False])
def test_what_is_temporary_is_encrypted_at_the_host_where_that_can_be(
    azure_double: AzureDouble, compute: Compute, *, registered: bool
) -> None:
    azure_double.machines.registered = registered
    compute.create(declared(count=3)).wait()
    assert sent(azure_double)["securityProfile"]["encryptionAtHost"] is registered
    assert sum(call.operation == "Features_Get" for call in azure_double.calls) == 1
    if not registered:
        insisting = AzureComputeSettings(encryption_at_host=True)
        with pytest.raises(InvalidArgument, match="EncryptionAtHost"):
            compute.create(declared("other", native=insisting))


def test_azures_own_settings_are_kept(azure_double: AzureDouble, compute: Compute) -> None:
    group = f"/subscriptions/{azure_double.config['subscription']}/resourceGroups/shiftable-double/providers"
    keys = f"{group}/Microsoft.Compute/diskEncryptionSets/keys"
    native = AzureComputeSettings(
        vm_size="Standard_D4as_v6",
        image="Debian:debian-12:12-gen2:0.20251117.2299",
        disk_sku="Premium_LRS",
        disk_encryption_set=keys,
        security_type="Standard",
        encryption_at_host=False,
    )
    spec = declared(native=native, zone="2", disk_gib=100, identity="robot", spot=True, user="deploy")
    before = azure_double.clock.now()
    compute.create(spec).wait()
    made = sent(azure_double)
    assert made["hardwareProfile"]["vmSize"] == "Standard_D4as_v6"
    assert made["storageProfile"]["imageReference"]["version"] == "0.20251117.2299"
    first = made["storageProfile"]["osDisk"]
    assert (first["diskSizeGB"], first["managedDisk"]["diskEncryptionSet"]) == (100, {"id": keys})
    assert first["managedDisk"]["storageAccountType"] == "Premium_LRS"
    assert made["securityProfile"] == {"encryptionAtHost": False}
    assert (made["priority"], made["evictionPolicy"], made["billingProfile"]) == (
        "Spot",
        "Deallocate",
        {"maxPrice": -1},
    )
    assert made["zones"] == ["2"]
    robot = f"{group}/Microsoft.ManagedIdentity/userAssignedIdentities/robot"
    assert made["identity"] == {"type": "UserAssigned", "userAssignedIdentities": {robot: {}}}
    info = compute.fleet("web").machine("web-0").info()
    assert (info.image, info.user, info.spot, info.identity, info.zone) == ("debian-12", "deploy", True, robot, "2")
    assert (info.network, info.disk_gib) == ("shiftable-germanywestcentral/machines", 100)
    assert info.created is not None
    assert before <= info.created <= azure_double.clock.now()
    assert compute.diff(spec) == ()


def test_an_image_of_somebody_else_is_not_asked_for_trusted_launch(azure_double: AzureDouble, compute: Compute) -> None:
    compute.create(declared(image="Debian:debian-12:12-gen2:latest")).wait()
    assert sent(azure_double)["securityProfile"] == {"encryptionAtHost": False}
    asked = AzureComputeSettings(security_type="TrustedLaunch")
    compute.create(declared("other", image="Debian:debian-12:12-gen2:latest", native=asked)).wait()
    assert sent(azure_double, "other-0")["securityProfile"]["securityType"] == "TrustedLaunch"


def test_a_location_may_have_its_name_for_people(azure_double: AzureDouble, make_compute: Make) -> None:
    compute = Compute(make_compute(location="Germany West Central"))
    compute.create(declared()).wait()
    assert azure_double.network.of_kind("virtualNetworks")[0].name == "shiftable-germanywestcentral"
    compute.delete("web")
    assert azure_double.network.resources == {}


def test_machines_take_turns_in_the_zones_of_their_size(compute: Compute) -> None:
    assert [m.zone for m in compute.create(declared(count=4)).wait()] == ["1", "2", "3", "1"]
    close = declared("close", count=2, placement="close")
    assert [m.zone for m in compute.create(close).wait()] == [None, None]


def test_what_is_spread_where_there_are_no_zones_is_in_an_availability_set(
    azure_double: AzureDouble, compute: Compute
) -> None:
    spec = declared(placement="spread", native=AzureComputeSettings(vm_size="Standard_DS1_v2"), count=2)
    compute.create(spec).wait()
    assert sent(azure_double)["availabilitySet"]["id"].endswith("/availabilitySets/shiftable-web")
    compute.create(declared("old", native=AzureComputeSettings(vm_size="Standard_D2_v3"))).wait()
    assert "securityType" not in sent(azure_double, "old-0")["securityProfile"]
    compute.delete("old")
    with pytest.raises(InvalidArgument, match="several zones"):
        compute.create(declared("other", placement="spread", zone="1"))
    compute.delete("web")
    assert azure_double.machines.placements == {}


@pytest.mark.parametrize("named", ["office", "office/default", "id"])
def test_machines_are_put_into_a_network_that_is_named(
    azure_double: AzureDouble, compute: Compute, compute_driver: AzureComputeDriver, named: str
) -> None:
    arm = compute_driver._session
    path = f"{arm.group}/providers/Microsoft.Network/virtualNetworks/office"
    subnet = {"name": "default", "properties": {"addressPrefix": "192.168.7.0/24"}}
    inside = {"addressSpace": {"addressPrefixes": ["192.168.0.0/16"]}, "subnets": [subnet]}
    arm.call("PUT", path, "2025-09-01", body={"location": arm.location, "properties": inside})
    network = f"{path}/subnets/default" if named == "id" else named
    (machine,) = compute.create(declared(network=network)).wait()
    assert machine.addresses == ("192.168.7.4",)
    assert machine.network == "office/default"
    assert [each.name for each in azure_double.network.of_kind("virtualNetworks")] == ["office"]
    compute.delete("web")
    assert [each.name for each in azure_double.network.of_kind("virtualNetworks")] == ["office"]
    with pytest.raises(InvalidArgument, match="was not found"):
        compute.create(declared(network="nowhere"))


def test_rules_that_somebody_else_wrote_are_told(azure_double: AzureDouble, compute: Compute) -> None:
    spec = declared(
        open_ports=(22, 443), rules=(Rule(port=5000, last_port=5010, protocol="udp", allow_from=("10.0.0.0/8",)),)
    )
    compute.create(spec).wait()
    (wall,) = azure_double.network.of_kind("networkSecurityGroups")
    ours = wall.properties["securityRules"]
    assert [rule["properties"]["destinationPortRanges"] for rule in ours[:-1]] == [
        ["22", "443"],
        ["22", "443"],
        ["5000-5010"],
    ]
    assert compute.diff(spec) == ()
    theirs = {
        **ours[0]["properties"],
        "priority": 200,
        "protocol": "*",
        "sourceAddressPrefix": "Internet",
        "sourceAddressPrefixes": [],
        "destinationPortRanges": ["8080"],
    }
    outbound = {**theirs, "priority": 201, "direction": "Outbound"}
    inside = {**theirs, "priority": 202, "sourceAddressPrefix": "VirtualNetwork", "destinationPortRanges": ["9090"]}
    wall.properties["securityRules"] = [
        *ours, *({"name": f"theirs-{said['priority']}", "properties": said} for said in (theirs, outbound, inside))
    ]  # fmt: skip
    firewall = compute.fleet("web").machine("web-0").info().firewall
    assert [rule for rule in firewall if rule.port in {8080, 9090}] == [
        Rule(port=8080), Rule(port=8080, protocol="udp")
    ]  # fmt: skip
    (change,) = compute.diff(spec)
    compute.apply(change)
    assert wall.properties["securityRules"] == ours


# sizes


@pytest.mark.parametrize(
    ("wants", "size"),
    [
        ({"cpus": 1, "memory_gib": 1}, "Standard_B1s"),
        ({"cpus": 2, "memory_gib": 4}, "Standard_B2als_v2"),
        ({"cpus": 2, "memory_gib": 8}, "Standard_B2as_v2"),
        ({"cpus": 2, "memory_gib": 8, "spot": True}, "Standard_D2as_v6"),
        ({"cpus": 2, "memory_gib": 8, "spot": True, "zone": "3"}, "Standard_D2s_v5"),
        ({"cpus": 2, "memory_gib": 16}, "Standard_E2s_v5"),
        ({"cpus": 2, "memory_gib": 4, "arch": "arm64"}, "Standard_B2pls_v2"),
        ({"cpus": 64, "memory_gib": 8, "arch": "arm64"}, "Standard_D64ps_v6"),
        ({"cpus": 1, "memory_gib": 1, "gpus": 1}, "Standard_NC4as_T4_v3"),
        ({"cpus": 1, "memory_gib": 1, "gpus": 1, "gpu": "Standard NCASv3_T4 Family"}, "Standard_NC4as_T4_v3"),
    ],
)
def test_the_smallest_current_size_is_chosen(compute: Compute, wants: dict[str, Any], size: str) -> None:
    choice = compute.choose(declared(**wants))
    assert choice.size.name == size
    assert "germanywestcentral" in choice.reason
    assert choice.price is None
    (machine,) = compute.create(declared(**wants)).wait()
    assert (machine.size, machine.cpus >= wants["cpus"], machine.memory >= wants["memory_gib"] * GIB) == (
        size,
        True,
        True,
    )
    assert compute.diff(declared(**wants)) == ()


def test_a_zone_that_is_none_is_told_with_those_that_are(compute: Compute) -> None:
    with pytest.raises(InvalidArgument, match="germanywestcentral has no zone 'nowhere'; it has 1, 2, 3"):
        compute.choose(declared(zone="nowhere"))


def test_sizes_that_the_subscription_cannot_have_are_not_offered(azure_double: AzureDouble, compute: Compute) -> None:
    azure_double.machines.closed.add("Standard_B1s")
    names = {size.name for size in compute.sizes()}
    assert not names & {"Standard_M208s_v2", "Standard_B1s", "Standard_DC2as_v5", "Basic_A1"}
    assert compute.choose(declared()).size.name == "Standard_B1ms"


def test_a_size_that_is_named_must_be_there_and_be_enough(compute: Compute) -> None:
    for name, why in (("Standard_None", "no size"), ("Standard_M208s_v2", "no size"), ("Standard_B1ls", "not enough")):
        with pytest.raises(InvalidArgument, match=why):
            compute.create(declared(native=AzureComputeSettings(vm_size=name)))


# disks and images


def test_a_disk_tells_where_a_machine_finds_it(azure_double: AzureDouble, compute: Compute) -> None:
    fleet = compute.create(declared())
    (machine,) = fleet.wait()
    disks = [compute.create_disk(name, 4, zone=machine.zone) for name in ("a", "b")]
    found = [fleet.attach("web-0", disk.id) for disk in disks]
    assert [disk.device for disk in found] == ["/dev/disk/azure/scsi1/lun0", "/dev/disk/azure/scsi1/lun1"]
    assert [disk.machine for disk in compute.disks()] == [machine.id, machine.id]
    assert azure_double.machines.disks["shiftable-double", "a"].properties["networkAccessPolicy"] == "DenyAll"


def test_an_image_is_a_copy_that_machines_of_the_same_kind_are_made_of(
    azure_double: AzureDouble, compute: Compute
) -> None:
    fleet = compute.create(declared(arch="arm64"))
    fleet.wait()
    image = fleet.machine("web-0").snapshot("golden")
    assert (image.arch, image.disk_gib, image.own) == ("arm64", 30, True)
    with pytest.raises(AlreadyExists, match="has an image"):
        fleet.machine("web-0").snapshot("golden")
    with pytest.raises(InvalidArgument, match="architectures"):
        compute.create(declared("other", image=image.id))
    spec = declared("twin", image=image.id, arch="arm64")
    compute.create(spec).wait()
    assert sent(azure_double, "twin-0")["storageProfile"]["imageReference"] == {"id": image.id}
    assert compute.diff(spec) == ()
    for name in ("no/such", "/subscriptions/x", f"{image.id}/versions/1.0.0"):
        with pytest.raises(NotFound):
            compute.delete_image(name)
    compute.delete_image(image.id)
    assert azure_double.machines.galleries == {}


def test_an_image_whose_copy_is_refused_is_not_there(azure_double: AzureDouble, compute: Compute) -> None:
    fleet = compute.create(declared())
    fleet.wait()
    azure_double.machines.endings.failures["GalleryImageVersions_CreateOrUpdate"] = ("Conflict", "not now")
    with pytest.raises(Conflict, match="not now"):
        fleet.machine("web-0").snapshot("golden")
    assert azure_double.machines.definitions == {}
    assert fleet.machine("web-0").snapshot("golden").ready


# the provider


def test_the_provider_has_one_driver_for_machines(azure_double: AzureDouble) -> None:
    provider = AzureProvider(AzureSettings(**azure_double.config))
    try:
        assert provider.compute() is provider.compute()
        assert provider.compute().features in provider.features()["compute"]
        assert provider.native_types["compute"] is AzureComputeSettings
    finally:
        provider.close()


def test_azures_definitions_find_what_is_wrong(azure_machine_definitions: Any) -> None:
    machine = {"location": "x", "properties": {"hardwareProfil": {"vmSize": "x"}}}
    assert azure_machine_definitions("microsoft.compute/virtualmachines", machine) == [
        "microsoft.compute/virtualmachines.properties has no hardwareProfil"
    ]
    told = {"location": "x", "properties": {"vmId": "x", "priority": 7}}
    assert len(azure_machine_definitions("microsoft.compute/virtualmachines", told, sent="PUT")) == 2
    rule = {"name": "x", "properties": {"priority": "100", "access": "Allow", "protocol": "Tcp"}}
    wall = {"properties": {"securityRules": [rule]}}
    findings = azure_machine_definitions("microsoft.network/networksecuritygroups", wall, sent="PUT")
    assert any("priority" in each for each in findings)
    assert any("needs direction" in each for each in findings)


def test_a_fleet_tells_nothing_of_a_machine_that_is_just_being_made(
    azure_double: AzureDouble, compute: Compute
) -> None:
    azure_double.machines.endings.delay = timedelta(minutes=1)
    fleet: Fleet = compute.create(declared())
    before = len(azure_double.calls)
    assert fleet.machine("web-0").info().state == "creating"
    assert "NetworkInterfaces_Get" not in counted(azure_double, before)
    assert fleet.wait()[0].addresses == ("10.64.0.4",)

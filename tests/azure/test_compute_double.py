"""The double keeps the rules of Azure's machines and networks, asked by bare HTTP requests."""

from __future__ import annotations

import base64
import copy
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import attrs
import pytest
import requests

from shiftable_azure.double import AzureDouble

VERSIONS = {"virtualMachines": "2026-04-01", "disks": "2025-01-02", "snapshots": "2025-01-02",
            "galleries": "2024-03-03", "skus": "2021-07-01"}  # fmt: skip
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGNvbmZvcm1hbmNlLCB3aG9zZSBzZWNyZXQgbm9ib2R5 x"
NETWORK: dict[str, Any] = {
    "location": "germanywestcentral",
    "properties": {
        "addressSpace": {"addressPrefixes": ["10.0.0.0/16"]},
        "subnets": [{"name": "default", "properties": {"addressPrefix": "10.0.0.0/24"}}],
    },
}


@attrs.define
class Client:
    """Asks the double as Azure's tools do."""

    double: AzureDouble
    http: requests.Session

    def __call__(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        version: str | None = None,
        group: bool = True,
        **headers: str,
    ) -> requests.Response:
        if path.startswith("https://"):
            url = path.replace("https://management.azure.com", self.double.url)
        else:
            kind = path.strip("/").split("/")[0].partition("?")[0]
            namespace = "Microsoft.Compute" if kind in {*VERSIONS, "availabilitySets"} else "Microsoft.Network"
            wanted = version or VERSIONS.get(kind, "2026-04-01" if kind == "availabilitySets" else "2025-09-01")
            url = f"{self.double.url}{self.id('', group=group)}/providers/{namespace}{path}"
            url += f"{'&' if '?' in path else '?'}api-version={wanted}"
        token = {"Authorization": f"Bearer {self.double.token}"}
        told = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.http.request(method, url, json=body, headers={**token, **told}, timeout=10)

    def id(self, path: str, *, group: bool = True) -> str:
        config = self.double.config
        base = f"/subscriptions/{config['subscription']}"
        return f"{base}/resourceGroups/{config['resource_group']}{path}" if group else base

    def machine(self, name: str = "a", **changed: Any) -> dict[str, Any]:
        """Return what makes a machine, with its network made before."""
        subnet = self.id("/providers/Microsoft.Network/virtualNetworks/net/subnets/default")
        public = {"name": name, "sku": {"name": "Standard"}, "properties": {"deleteOption": "Delete"}}
        inside = {"name": "x", "properties": {"subnet": {"id": subnet}, "publicIPAddressConfiguration": public}}
        card = {"name": name, "properties": {"deleteOption": "Delete", "ipConfigurations": [inside]}}
        keys = {"publicKeys": [{"path": "/home/me/.ssh/authorized_keys", "keyData": KEY}]}
        image = {"publisher": "Debian", "offer": "debian-12", "sku": "12-gen2", "version": "latest"}
        disk = {"name": f"{name}-os", "createOption": "FromImage", "deleteOption": "Delete",
                "managedDisk": {"storageAccountType": "StandardSSD_LRS"}}  # fmt: skip
        properties: dict[str, Any] = {
            "hardwareProfile": {"vmSize": "Standard_D2s_v5"},
            "storageProfile": {"imageReference": image, "osDisk": disk},
            "osProfile": {
                "computerName": name,
                "adminUsername": "me",
                "linuxConfiguration": {"disablePasswordAuthentication": True, "ssh": keys},
            },
            "networkProfile": {"networkApiVersion": "2022-11-01", "networkInterfaceConfigurations": [card]},
            "diagnosticsProfile": {"bootDiagnostics": {"enabled": True}},
        }
        return {"location": "germanywestcentral", "tags": {}, "properties": properties | changed}

    def make(self, name: str = "a", **changed: Any) -> requests.Response:
        return self("PUT", f"/virtualMachines/{name}", self.machine(name, **changed))


@pytest.fixture
def azure(azure_double: AzureDouble) -> Iterator[Client]:
    with requests.Session() as http:
        client = Client(azure_double, http)
        client("PUT", "/virtualNetworks/net", NETWORK)
        yield client


def refusal(answer: requests.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


def test_a_machine_takes_its_time_and_tells_where_to_ask(azure: Client, azure_double: AzureDouble) -> None:
    azure_double.machines.endings.delay = timedelta(seconds=20)
    answer = azure.make()
    assert (answer.status_code, answer.json()["properties"]["provisioningState"]) == (201, "Creating")
    link = answer.headers["Azure-AsyncOperation"]
    assert azure("GET", link).json()["status"] == "InProgress"
    azure_double.clock.advance(20)
    assert azure("GET", link).json()["status"] == "Succeeded"
    found = azure("GET", "/virtualMachines/a?$expand=instanceView").json()["properties"]
    codes = [each["code"] for each in found["instanceView"]["statuses"]]
    assert codes == ["ProvisioningState/succeeded", "PowerState/running"]
    (card,) = found["networkProfile"]["networkInterfaces"]
    assert azure("GET", card["id"].partition("Microsoft.Network")[2]).json()["properties"]["virtualMachine"]


def test_everything_that_is_made_with_a_machine_is_deleted_with_it(azure: Client) -> None:
    azure.make()
    kinds = ("/networkInterfaces", "/publicIPAddresses", "/disks")
    assert [len(azure("GET", kind).json()["value"]) for kind in kinds] == [1, 1, 1]
    assert azure("DELETE", "/virtualMachines/a").status_code == 202
    assert [azure("GET", kind).json()["value"] for kind in kinds] == [[], [], []]
    assert azure("DELETE", "/virtualMachines/a").status_code == 204


def test_what_is_to_be_detached_stays(azure: Client) -> None:
    body = azure.machine()
    body["properties"]["storageProfile"]["osDisk"]["deleteOption"] = "Detach"
    azure("PUT", "/virtualMachines/a", body)
    azure("DELETE", "/virtualMachines/a")
    (disk,) = azure("GET", "/disks").json()["value"]
    assert (disk["properties"]["diskState"], "managedBy" in disk) == ("Unattached", False)


def test_a_machine_is_made_once(azure: Client) -> None:
    assert azure.make().status_code == 201
    again = azure.machine()
    assert refusal(azure("PUT", "/virtualMachines/a", again, If_None_Match="*")) == (412, "PreconditionFailed")
    assert refusal(azure("PUT", "/virtualMachines/a", again)) == (409, "PropertyChangeNotAllowed")
    assert refusal(azure("PUT", "/virtualMachines/b", again, If_None_Match="x")) == (400, "InvalidParameter")


WRONG: dict[str, tuple[Callable[[dict[str, Any]], object], tuple[int, str]]] = {
    "size": (lambda p: p["hardwareProfile"].update(vmSize="Standard_X"), (400, "InvalidParameter")),
    "restricted": (lambda p: p["hardwareProfile"].update(vmSize="Standard_M208s_v2"), (409, "SkuNotAvailable")),
    "image": (lambda p: p["storageProfile"]["imageReference"].update(sku="x"), (404, "PlatformImageNotFound")),
    "arch": (lambda p: p["storageProfile"]["imageReference"].update(sku="12-arm64"), (400, "InvalidParameter")),
    "gallery": (
        lambda p: p["storageProfile"].update(imageReference={"id": "/subscriptions/x"}),
        (400, "LinkedInvalidPropertyId"),
    ),
    "disk": (lambda p: p["storageProfile"]["osDisk"].update(diskSizeGB=20), (400, "InvalidParameter")),
    "no key": (lambda p: p["osProfile"]["linuxConfiguration"].update(ssh={}), (400, "InvalidParameter")),
    "key": (
        lambda p: p["osProfile"]["linuxConfiguration"]["ssh"]["publicKeys"][0].update(keyData="x"),
        (400, "InvalidParameter"),
    ),
    "user": (lambda p: p["osProfile"].update(adminUsername="admin"), (400, "InvalidParameter")),
    "host": (lambda p: p["osProfile"].update(computerName="a_b"), (400, "InvalidParameter")),
    "data": (
        lambda p: p["osProfile"].update(customData=base64.b64encode(b"x" * 65_536).decode()),
        (400, "InvalidParameter"),
    ),
    "trusted": (lambda p: p.update(securityProfile={"uefiSettings": {"vTpmEnabled": True}}), (400, "InvalidParameter")),
    "host encryption": (lambda p: p.update(securityProfile={"encryptionAtHost": True}), (400, "InvalidParameter")),
    "set": (
        lambda p: p.update(availabilitySet={"id": "/subscriptions/x/resourceGroups/y/providers/z/availabilitySets/q"}),
        (400, "InvalidResourceReference"),
    ),
    "network version": (lambda p: p["networkProfile"].pop("networkApiVersion"), (400, "InvalidParameter")),
}


@pytest.mark.parametrize("what", sorted(WRONG))
def test_what_azure_does_not_make_is_refused(azure: Client, azure_double: AzureDouble, what: str) -> None:
    change, expected = WRONG[what]
    body = copy.deepcopy(azure.machine())
    change(body["properties"])
    assert refusal(azure("PUT", "/virtualMachines/a", body)) == expected
    assert azure_double.machines.machines == {}
    assert azure_double.network.of_kind("networkInterfaces") == []
    azure_double.violations.clear()  # some of it is nothing that Azure's definitions have


def test_names_tags_and_zones_are_checked(azure: Client) -> None:
    body = azure.machine()
    assert refusal(azure("PUT", "/virtualMachines/a_b", body)) == (400, "InvalidParameter")
    assert refusal(azure("PUT", f"/virtualMachines/{'a' * 65}", body)) == (400, "InvalidParameter")
    tags = {**body, "tags": {str(number): "x" for number in range(51)}}
    assert refusal(azure("PUT", "/virtualMachines/a", tags)) == (400, "InvalidTags")
    assert refusal(azure("PUT", "/virtualMachines/a", {**body, "zones": ["9"]})) == (400, "InvalidAvailabilityZone")
    wall = {"location": "x", "properties": {}}
    assert refusal(azure("PUT", "/networkSecurityGroups/-", wall)) == (400, "InvalidResourceName")
    assert refusal(azure("PUT", "/disks/a%20b", {"location": "x", "properties": {"creationData": {}}})) == (
        400,
        "InvalidParameter",
    )


def test_what_is_in_use_is_not_deleted(azure: Client) -> None:
    rules = {"location": "germanywestcentral", "properties": {"securityRules": []}}
    azure("PUT", "/networkSecurityGroups/wall", rules)
    body = azure.machine()
    (card,) = body["properties"]["networkProfile"]["networkInterfaceConfigurations"]
    card["properties"]["networkSecurityGroup"] = {
        "id": azure.id("/providers/Microsoft.Network/networkSecurityGroups/wall")
    }
    azure("PUT", "/virtualMachines/a", body)
    assert refusal(azure("DELETE", "/networkInterfaces/a")) == (400, "NicInUse")
    assert refusal(azure("DELETE", "/publicIPAddresses/a")) == (400, "PublicIPAddressCannotBeDeleted")
    assert refusal(azure("DELETE", "/virtualNetworks/net")) == (400, "InUseSubnetCannotBeDeleted")
    wall = azure("DELETE", "/networkSecurityGroups/wall")
    assert refusal(wall) == (400, "InUseNetworkSecurityGroupCannotBeDeleted")
    assert refusal(azure("DELETE", "/disks/a-os")) == (409, "OperationNotAllowed")
    azure("DELETE", "/virtualMachines/a")
    assert azure("DELETE", "/networkSecurityGroups/wall").status_code == 202
    assert azure("DELETE", "/virtualNetworks/net").status_code == 202


@pytest.mark.parametrize(
    ("rule", "code"),
    [
        ({"priority": 99}, "SecurityRuleInvalidPriority"),
        ({"sourceAddressPrefixes": ["10.0.0.0/8", "::/0"]}, "SecurityRuleParameterContainsUnsupportedValue"),
        ({"destinationPortRange": "22"}, "SecurityRuleParameterContainsUnsupportedValue"),
    ],
)
def test_a_rule_that_azure_does_not_take_is_refused(azure: Client, rule: dict[str, Any], code: str) -> None:
    said = {
        "priority": 100,
        "direction": "Inbound",
        "access": "Allow",
        "protocol": "Tcp",
        "sourcePortRange": "*",
        "sourceAddressPrefixes": ["10.0.0.0/8"],
        "destinationAddressPrefix": "*",
        "destinationPortRanges": ["22"],
    }
    body = {"location": "x", "properties": {"securityRules": [{"name": "r", "properties": {**said, **rule}}]}}
    assert refusal(azure("PUT", "/networkSecurityGroups/wall", body)) == (400, code)
    body["properties"] = {"securityRules": [{"name": "r", "properties": said}]}
    assert azure("PUT", "/networkSecurityGroups/wall", body).status_code == 201


def test_the_interface_of_a_machine_that_failed_is_kept_for_three_minutes(
    azure: Client, azure_double: AzureDouble
) -> None:
    azure_double.machines.fail_create("ZonalAllocationFailed", after="interface", at_once=True)
    assert refusal(azure.make()) == (409, "ZonalAllocationFailed")
    assert refusal(azure("DELETE", "/networkInterfaces/a")) == (400, "NicReservedForAnotherVm")
    azure_double.clock.advance(181)
    assert azure("DELETE", "/networkInterfaces/a").status_code == 202
    assert azure("DELETE", "/publicIPAddresses/a").status_code == 202


def test_machines_of_a_subscription_tell_their_state_and_nothing_else(azure: Client) -> None:
    azure.make()
    (found,) = azure("GET", "/virtualMachines?statusOnly=true", group=False).json()["value"]
    assert set(found["properties"]) == {"vmId", "provisioningState", "instanceView"}
    assert "tags" not in found
    assert refusal(azure("GET", "/virtualMachines?statusOnly=true")) == (400, "InvalidParameter")
    assert refusal(azure("GET", "/virtualMachines?$expand=instanceView")) == (400, "InvalidParameter")
    (listed,) = azure("GET", "/virtualMachines").json()["value"]
    assert "instanceView" not in listed["properties"]
    assert "SHIFTABLE-DOUBLE" in listed["id"]


def test_listings_come_in_pages_whose_links_keep_what_was_asked(azure: Client, azure_double: AzureDouble) -> None:
    for name in ("a", "b", "c"):
        azure.make(name)
    azure_double.machines.page_size = 2
    page = azure("GET", "/virtualMachines?statusOnly=true", group=False).json()
    assert [found["name"] for found in page["value"]] == ["a", "b"]
    rest = azure("GET", page["nextLink"]).json()
    assert [found["name"] for found in rest["value"]] == ["c"]
    assert "instanceView" in rest["value"][0]["properties"]
    assert "nextLink" not in rest


def test_a_quota_counts_the_cpus_of_machines_that_are_not_deallocated(azure: Client, azure_double: AzureDouble) -> None:
    azure_double.machines.cores = 2
    azure.make()
    answer = azure.make("b")
    assert refusal(answer) == (409, "OperationNotAllowed")
    assert "quota" in answer.json()["error"]["message"]
    azure("POST", "/virtualMachines/a/deallocate")
    assert azure.make("b").status_code == 201


def test_states_forbid_what_they_forbid(azure: Client, azure_double: AzureDouble) -> None:
    azure.make()
    azure_double.machines.endings.delay = timedelta(seconds=20)
    assert azure("POST", "/virtualMachines/a/deallocate").status_code == 202
    for verb in ("start", "restart"):
        assert refusal(azure("POST", f"/virtualMachines/a/{verb}")) == (409, "ConcurrentUpdateError")
    azure_double.clock.advance(20)
    assert refusal(azure("POST", "/virtualMachines/a/restart")) == (409, "OperationNotAllowed")
    assert azure("POST", "/virtualMachines/a/deallocate").status_code == 200
    size = {"properties": {"hardwareProfile": {"vmSize": "Standard_D2ps_v6"}}}
    assert refusal(azure("PATCH", "/virtualMachines/a", size)) == (400, "InvalidParameter")
    assert azure("GET", "/virtualMachines/missing").status_code == 404


def test_versions_groups_and_actions_are_checked(azure: Client, azure_double: AzureDouble) -> None:
    assert refusal(azure("GET", "/virtualMachines", version="2024-03-01")) == (400, "NoRegisteredProviderFound")
    assert refusal(azure("GET", "/disks", version="2026-04-01")) == (400, "NoRegisteredProviderFound")
    assert refusal(azure("GET", "/networkInterfaces", version="2018-05-01")) == (404, "InvalidResourceType")
    azure_double.arm.denied.add("Microsoft.Compute/virtualMachines/deallocate/action")
    azure.make()
    assert refusal(azure("POST", "/virtualMachines/a/deallocate")) == (403, "AuthorizationFailed")
    del azure_double.arm.groups["shiftable-double"]
    assert refusal(azure("GET", "/virtualMachines")) == (404, "ResourceGroupNotFound")


def test_a_console_is_read_by_its_signature_alone(azure: Client) -> None:
    azure.make()
    url = azure("POST", "/virtualMachines/a/retrieveBootDiagnosticsData").json()["serialConsoleLogBlobUri"]
    assert requests.get(url, timeout=10).content.startswith(b"Linux version")
    assert requests.get(url.partition("?")[0], timeout=10).status_code == 403
    token = {"Authorization": f"Bearer {azure.double.token}"}
    assert requests.get(url, headers=token, timeout=10).status_code == 403


def test_zones_of_dns_are_beside_the_networks(azure: Client) -> None:
    answer = azure("PUT", "/dnsZones/shop.example", {"location": "global"}, version="2018-05-01")
    assert answer.status_code == 201
    assert azure("GET", "/dnsZones", version="2018-05-01").json()["value"][0]["name"] == "shop.example"

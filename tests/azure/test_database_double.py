"""The double keeps Azure Database's rules, asked by bare HTTP requests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import attrs
import pytest
import requests

from shiftable_azure._flexible import LOCKS, MYSQL, POSTGRESQL, Flavour
from shiftable_azure.double import AzureDouble

PASSWORD = "Ab3-" + "canary" * 3
SKU = {"name": "Standard_D2ds_v5", "tier": "GeneralPurpose"}
SERVER: dict[str, Any] = {
    "location": "germanywestcentral",
    "sku": SKU,
    "tags": {},
    "properties": {
        "version": "16",
        "administratorLogin": "shiftadmin",
        "administratorLoginPassword": PASSWORD,
        "storage": {"storageSizeGB": 32},
        "network": {"publicNetworkAccess": "Enabled"},
    },
}


@attrs.define
class Client:
    """Asks the double as Azure's tools do."""

    double: AzureDouble
    http: requests.Session
    flavour: Flavour = POSTGRESQL

    def __call__(
        self, method: str, path: str, body: Any = None, *, version: str | None = None, group: bool = True
    ) -> requests.Response:
        config = self.double.config
        base = f"{self.double.url}/subscriptions/{config['subscription']}"
        if group:
            base += f"/resourceGroups/{config['resource_group']}"
        if path.startswith("https://"):
            path = path.replace("https://management.azure.com", self.double.url)
        else:
            wanted = version or (LOCKS if "/locks" in path else self.flavour.version)
            path = f"{base}/providers/{self.flavour.namespace}{path}?api-version={wanted}"
        token = {"Authorization": f"Bearer {self.double.token}"}
        return self.http.request(method, path, json=body, headers=token, timeout=10)

    def make(self, name: str = "orders", **properties: Any) -> requests.Response:
        body = {**SERVER, "properties": {**SERVER["properties"], **properties}}
        return self("PUT", f"/flexibleServers/{name}", body)

    def state(self, name: str = "orders") -> str:
        return str(self("GET", f"/flexibleServers/{name}").json()["properties"]["state"])


@pytest.fixture
def azure(azure_double: AzureDouble) -> Iterator[Client]:
    with requests.Session() as http:
        yield Client(azure_double, http)


@pytest.fixture
def mysql(azure: Client) -> Client:
    return attrs.evolve(azure, flavour=MYSQL)


def refusal(answer: requests.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


def test_a_server_takes_its_time_and_tells_where_to_ask(azure: Client, azure_double: AzureDouble) -> None:
    azure_double.databases.delay = timedelta(minutes=4)
    answer = azure.make()
    assert (answer.status_code, answer.text) == (202, "")
    status, result = answer.headers["Azure-AsyncOperation"], answer.headers["Location"]
    assert "/locations/germanywestcentral/azureAsyncOperation/" in status
    assert azure("GET", status).json()["status"] == "InProgress"
    assert azure("GET", result).status_code == 202
    assert azure.state() == "Provisioning"
    azure_double.clock.advance(250)
    assert azure("GET", status).json()["status"] == "Succeeded"
    assert azure("GET", result).status_code == 204
    assert azure.state() == "Ready"
    assert refusal(azure("GET", status[: status.rindex("/") + 1] + f"x?api-version={POSTGRESQL.version}")) == (
        404,
        "NotFound",
    )


def test_an_operation_that_fails_leaves_nothing(azure: Client, azure_double: AzureDouble) -> None:
    azure_double.databases.fail("Servers_Create", "InsufficientCapacity", "none left")
    answer = azure.make()
    told = azure("GET", answer.headers["Azure-AsyncOperation"]).json()
    assert (told["status"], told["error"]) == ("Failed", {"code": "InsufficientCapacity", "message": "none left"})
    assert refusal(azure("GET", answer.headers["Location"])) == (409, "InsufficientCapacity")
    assert refusal(azure("GET", "/flexibleServers/orders")) == (404, "ResourceNotFound")


def test_an_answer_never_tells_the_password(azure: Client) -> None:
    azure.make()
    answers = [azure("GET", "/flexibleServers/orders"), azure("GET", "/flexibleServers")]
    assert [answer.status_code for answer in answers] == [200, 200]
    assert not any("canary" in answer.text for answer in answers)
    assert answers[0].json()["location"] == "Germany West Central"


@pytest.mark.parametrize(
    ("properties", "code"),
    [
        ({"administratorLogin": "admin"}, "InvalidParameterValue"),
        ({"administratorLogin": "pg_me"}, "InvalidParameterValue"),
        ({"administratorLoginPassword": "short"}, "PasswordNotComplex"),
        ({"version": "9.6"}, "InvalidParameterValue"),
        ({"version": "8.4"}, "InvalidParameterValue"),
        ({"storage": {"storageSizeGB": 33}}, "InvalidParameterValue"),
        ({"backup": {"backupRetentionDays": 3}}, "InvalidParameterValue"),
        ({"backup": {"backupRetentionDays": 36}}, "InvalidParameterValue"),
        ({"highAvailability": {"mode": "Elsewhere"}}, "InvalidParameterValue"),
        ({"createMode": "Replica"}, "InvalidParameterValue"),
    ],
)
def test_what_azure_does_not_take_is_refused(azure: Client, properties: dict[str, Any], code: str) -> None:
    assert refusal(azure.make(**properties)) == (400, code)
    assert azure("GET", "/flexibleServers").json() == {"value": []}


def test_a_size_and_its_tier_go_together(azure: Client) -> None:
    body = {**SERVER, "sku": {"name": "Standard_D2ds_v5", "tier": "Burstable"}}
    assert refusal(azure("PUT", "/flexibleServers/orders", body)) == (400, "InvalidSku")


def test_names_are_global_and_checked(azure: Client, azure_double: AzureDouble, mysql: Client) -> None:
    def check(client: Client, name: str) -> tuple[bool, str | None]:
        said = client("POST", "/checkNameAvailability", {"name": name, "type": client.flavour.type}, group=False).json()
        return said["nameAvailable"], said.get("reason")

    azure_double.databases.taken.add("theirs")
    azure.make()
    assert check(azure, "orders") == (False, "AlreadyExists")
    assert check(azure, "ORDERS") == (False, "AlreadyExists")
    assert check(azure, "theirs") == (False, "AlreadyExists")
    assert check(azure, "a") == (False, "Invalid")
    assert check(azure, "free") == (True, None)
    assert check(mysql, "orders") == (True, None)
    assert refusal(azure.make("theirs")) == (409, "ServerNameAlreadyExists")


def test_a_put_over_a_server_changes_it(azure: Client) -> None:
    azure.make()
    assert azure.make(storage={"storageSizeGB": 64}).status_code == 202
    assert azure("GET", "/flexibleServers/orders").json()["properties"]["storage"]["storageSizeGB"] == 64
    shrunk = azure("PATCH", "/flexibleServers/orders", {"properties": {"storage": {"storageSizeGB": 32}}})
    assert refusal(shrunk) == (400, "StorageSizeDecreaseNotSupported")
    older = azure("PATCH", "/flexibleServers/orders", {"properties": {"version": "15"}})
    assert refusal(older) == (400, "InvalidParameterValue")


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("PATCH", "", {"tags": {"a": "b"}}),
        ("DELETE", "", None),
        ("POST", "/stop", None),
        ("PUT", "/databases/shop", {"properties": {}}),
        ("PUT", "/firewallRules/r", {"properties": {"startIpAddress": "192.0.2.1", "endIpAddress": "192.0.2.1"}}),
        ("PATCH", "/configurations/work_mem", {"properties": {"value": "8192"}}),
        ("PUT", "/backups/first", None),
    ],
)
def test_a_busy_server_takes_nothing_else(
    azure: Client, azure_double: AzureDouble, method: str, path: str, body: Any
) -> None:
    azure.make()
    azure_double.databases.delay = timedelta(minutes=1)
    assert azure("PATCH", "/flexibleServers/orders", {"tags": {"x": "y"}}).status_code == 202
    assert azure.state() == "Updating"
    assert refusal(azure(method, f"/flexibleServers/orders{path}", body)) == (409, "ServerIsBusy")
    azure_double.clock.advance(70)
    assert azure(method, f"/flexibleServers/orders{path}", body).status_code == 202


def test_states_follow_each_other(azure: Client, azure_double: AzureDouble) -> None:
    azure.make()
    azure_double.databases.delay = timedelta(minutes=1)
    for verb, meanwhile, then in (
        ("stop", "Stopping", "Stopped"),
        ("start", "Starting", "Ready"),
        ("restart", "Restarting", "Ready"),
    ):
        assert azure("POST", f"/flexibleServers/orders/{verb}").status_code == 202
        assert azure.state() == meanwhile
        azure_double.clock.advance(61)
        assert azure.state() == then
    assert refusal(azure("POST", "/flexibleServers/orders/start")) == (409, "ServerIsNotReady")
    assert azure("DELETE", "/flexibleServers/orders").status_code == 202
    assert azure.state() == "Dropping"
    azure_double.clock.advance(61)
    assert azure("GET", "/flexibleServers/orders").status_code == 404
    assert azure("DELETE", "/flexibleServers/orders").status_code == 204


def test_nothing_is_changed_of_a_stopped_server(azure: Client) -> None:
    azure.make()
    azure("POST", "/flexibleServers/orders/stop")
    calls: list[Callable[[], requests.Response]] = [
        lambda: azure("PATCH", "/flexibleServers/orders", {"tags": {}}),
        lambda: azure("PUT", "/flexibleServers/orders/databases/shop", {"properties": {}}),
        lambda: azure("PUT", "/flexibleServers/orders/backups/first"),
    ]
    assert [refusal(call()) for call in calls] == [(409, "ServerIsStopped")] * 3


def test_a_lock_keeps_the_server_and_what_belongs_to_it(azure: Client, azure_double: AzureDouble) -> None:
    azure.make()
    azure("PUT", "/flexibleServers/orders/databases/shop", {"properties": {}})
    lock = "/flexibleServers/orders/providers/Microsoft.Authorization/locks"
    assert azure("PUT", f"{lock}/mine", {"properties": {"level": "CanNotDelete"}}).status_code == 201
    for path in ("", "/databases/shop"):
        assert refusal(azure("DELETE", f"/flexibleServers/orders{path}")) == (409, "ScopeLocked")
    assert azure("PUT", "/flexibleServers/orders/databases/more", {"properties": {}}).status_code == 202
    azure_double.databases.group_locks["all"] = "ReadOnly"
    found = azure("GET", lock).json()["value"]
    assert [(each["name"], each["properties"]["level"]) for each in found] == [
        ("mine", "CanNotDelete"),
        ("all", "ReadOnly"),
    ]
    assert azure("DELETE", f"{lock}/mine").status_code == 200
    assert azure("DELETE", f"{lock}/mine").status_code == 204
    azure_double.databases.group_locks.clear()
    assert azure("DELETE", "/flexibleServers/orders").status_code == 202


def test_backups_have_a_limit_and_are_told_when_they_are_complete(azure: Client, azure_double: AzureDouble) -> None:
    azure.make()
    azure_double.databases.delay = timedelta(minutes=1)
    assert azure("PUT", "/flexibleServers/orders/backups/b0").status_code == 202
    assert azure("GET", "/flexibleServers/orders/backups").json() == {"value": []}
    azure_double.clock.advance(61)
    azure_double.databases.delay = timedelta(0)
    for number in range(1, 7):
        azure("PUT", f"/flexibleServers/orders/backups/b{number}")
    assert refusal(azure("PUT", "/flexibleServers/orders/backups/b7")) == (400, "MaximumOnDemandBackupsReached")
    kinds = {
        each["properties"]["backupType"] for each in azure("GET", "/flexibleServers/orders/backups").json()["value"]
    }
    assert kinds == {"Customer On-Demand"}
    assert azure("DELETE", "/flexibleServers/orders/backups/b0").status_code == 202
    assert refusal(azure("GET", "/flexibleServers/orders/backups/b0")) == (404, "ResourceNotFound")


def test_mysql_puts_time_and_id_before_the_name_of_a_backup(azure_double: AzureDouble, mysql: Client) -> None:
    body = {**SERVER, "properties": {**SERVER["properties"], "version": "8.4", "storage": {"storageSizeGB": 21}}}
    mysql("PUT", "/flexibleServers/orders", body)
    assert mysql("PUT", "/flexibleServers/orders/backupsV2/first", {}).status_code == 202
    (found,) = mysql("GET", "/flexibleServers/orders/backupsV2").json()["value"]
    assert found["name"].startswith("customer_")
    assert found["name"].endswith("_first")
    refused = mysql("DELETE", f"/flexibleServers/orders/backupsV2/{found['name']}")
    assert refusal(refused) == (400, "FeatureNotSupported")
    assert azure_double.databases.server("orders").properties["databasePort"] == 3306


def test_a_restore_is_a_new_server_as_the_old_one_was(azure: Client, azure_double: AzureDouble) -> None:
    azure.make()
    azure("PUT", "/flexibleServers/orders/databases/shop", {"properties": {}})
    azure_double.clock.advance(timedelta(hours=1))

    def restore(when: str) -> requests.Response:
        said = {
            "createMode": "PointInTimeRestore",
            "pointInTimeUTC": when,
            "sourceServerResourceId": azure("GET", "/flexibleServers/orders").json()["id"],
        }
        return azure("PUT", "/flexibleServers/again", {"location": "germanywestcentral", "properties": said})

    now = azure_double.clock.now()
    for wrong in (now - timedelta(days=8), now + timedelta(minutes=1)):
        assert refusal(restore(wrong.isoformat())) == (400, "InvalidRestoreTime")
    assert restore((now - timedelta(minutes=10)).isoformat()).status_code == 202
    held = azure_double.databases.server("again")
    assert (sorted(held.databases), held.password, held.sku) == (["shop"], PASSWORD, SKU)


def test_parameters_are_checked_and_wait_for_a_restart(azure: Client) -> None:
    azure.make()

    def put(name: str, value: str) -> requests.Response:
        return azure("PATCH", f"/flexibleServers/orders/configurations/{name}", {"properties": {"value": value}})

    def waits(name: str) -> bool:
        found = azure("GET", f"/flexibleServers/orders/configurations/{name}").json()
        return bool(found["properties"]["isConfigPendingRestart"])

    assert refusal(put("nonsense", "1")) == (404, "ConfigurationNotFound")
    assert refusal(put("data_directory", "/x")) == (400, "InvalidParameterValue")
    assert refusal(put("wal_level", "loud")) == (400, "InvalidParameterValue")
    assert put("work_mem", "8192").status_code == put("wal_level", "logical").status_code == 202
    assert (waits("work_mem"), waits("wal_level")) == (False, True)
    azure("POST", "/flexibleServers/orders/restart")
    assert not waits("wal_level")


@pytest.mark.parametrize("path", ["/flexibleServers", "/flexibleServers/orders/databases"])
def test_listings_come_in_pages_with_links(azure: Client, azure_double: AzureDouble, path: str) -> None:
    azure_double.databases.page_size = 2
    for number in range(5):
        azure.make("orders" if number == 0 else f"srv{number}")
    for number in range(2):
        azure("PUT", f"/flexibleServers/orders/databases/d{number}", {"properties": {}})
    names, answer = list[str](), azure("GET", path).json()
    while True:
        names += [each["name"] for each in answer["value"]]
        assert len(answer["value"]) <= 2
        if "nextLink" not in answer:
            break
        answer = azure("GET", answer["nextLink"]).json()
    assert len(names) == len(set(names)) == (5 if path == "/flexibleServers" else 7)


def test_each_service_has_its_own_api_version(azure: Client) -> None:
    azure.make()
    lock = "/flexibleServers/orders/providers/Microsoft.Authorization/locks"
    for path, version in (("/flexibleServers", LOCKS), (lock, POSTGRESQL.version), ("/flexibleServers", "2021-06-01")):
        assert refusal(azure("GET", path, version=version)) == (400, "NoRegisteredProviderFound")


def test_a_quota_of_cpus_is_told_as_azure_tells_it(azure: Client, azure_double: AzureDouble) -> None:
    azure_double.databases.cpus = 2
    azure.make()
    status, code = refusal(azure.make("second"))
    assert (status, code) == (409, "OperationNotAllowed")


def test_a_location_that_is_restricted_offers_nothing(azure: Client, azure_double: AzureDouble, mysql: Client) -> None:
    for client in (azure, mysql):
        path = f"/locations/germanywestcentral/{client.flavour.capabilities}"
        assert "Standard_D2ds_v5" in client("GET", path, group=False).text
        azure_double.databases.restricted.add("germanywestcentral")
        assert "Standard" not in client("GET", path, group=False).text
        azure_double.databases.restricted.clear()
    azure_double.databases.restricted.add("germanywestcentral")
    assert refusal(azure.make()) == (400, "LocationIsOfferRestricted")

"""An application whose machines are in Azure by configuration only, and come back to zero."""

from __future__ import annotations

from pathlib import Path

import pytest

import shiftable
from shiftable.blob import BucketSpec
from shiftable.errors import ConfigError
from shiftable_azure.double import AzureDouble

from .disks import vhd
from .projects import command, project

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGNvbmZvcm1hbmNlLCB3aG9zZSBzZWNyZXQgbm9ib2R5 deploy"
TOML = """
[project]
name = "shop"
[environments.development]
provider = "here"
[environments.production]
provider = "there"
[providers.here]
type = "memory"
[providers.there]
type = "azure"
subscription = "{subscription}"
resource_group = "{resource_group}"
location = "{location}"
arm_endpoint = "{arm_endpoint}"
[compute.web]
image = "debian-12"
cpus = 2
memory_gib = 4
count = 2
public_ip = true
open_ports = [80, 443]
user_data = "cloud-init.yaml"
ssh_keys = ["{key}"]
[compute.web.azure]
disk_sku = "Premium_LRS"
[compute.batch]
image = "ubuntu-24.04"
cpus = 1
memory_gib = 1
spot = true
ssh_keys = ["{key}"]
[compute.batch.azure]
vm_size = "Standard_D2as_v6"
"""


@pytest.fixture
def folder(azure_double: AzureDouble, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a project that reaches Azure with the double's managed identity: no credential is in the file."""
    (tmp_path / "cloud-init.yaml").write_text("#cloud-config\npackages: [nginx]\n")
    return project(tmp_path, TOML.format(**azure_double.config, key=KEY), azure_double, monkeypatch)


def carry_out(app: shiftable.App) -> list[str]:
    """Do what makes the resources what they are declared to be; return what was done."""
    done = []
    for declared in app.declared():
        for change in app.diff(declared):
            app.apply(declared, change)
            done.append(f"{change.action} {change.name}")
    return done


def test_lines_of_the_file_put_machines_into_azure(folder: Path, azure_double: AzureDouble) -> None:
    with shiftable.load(folder, environment="production") as app:
        assert carry_out(app) == ["create web", "create batch"]
        web, batch = app.compute("web").wait(), app.compute("batch").wait()
        assert [machine.name for machine in (*web, *batch)] == ["web-0", "web-1", "batch-0"]
        assert all(machine.public_addresses for machine in web)
        assert [rule.port for rule in web[0].firewall] == [80, 443]
        assert (batch[0].spot, batch[0].size, batch[0].public_addresses) == (True, "Standard_D2as_v6", ())
        assert carry_out(app) == []
    made = azure_double.machines.machine("web-0")
    assert made.data == b"#cloud-config\npackages: [nginx]\n"
    first = made.properties["storageProfile"]["osDisk"]
    assert first["managedDisk"]["storageAccountType"] == "Premium_LRS"
    assert "GetToken" in {call.operation for call in azure_double.calls}


def test_a_line_less_takes_a_machine_away_and_the_rest_with_the_application(
    folder: Path, azure_double: AzureDouble
) -> None:
    file = folder / "shiftable.toml"
    with shiftable.load(folder, environment="production") as app:
        carry_out(app)
    file.write_text(file.read_text().replace("count = 2", "count = 1"))
    with shiftable.load(folder, environment="production") as app:
        assert carry_out(app) == ["update web"]
        assert [machine.name for machine in app.compute("web").wait()] == ["web-0"]
    with shiftable.connect("azure", **azure_double.config) as cloud:
        for name in ("web", "batch"):
            cloud.compute.delete(name)
        assert list(cloud.compute.debris()) == []
    assert azure_double.machines.machines == {}
    assert azure_double.machines.disks == {}
    assert azure_double.network.resources == {}


def test_a_setting_that_azure_does_not_have_is_refused_with_its_line(folder: Path) -> None:
    file = folder / "shiftable.toml"
    file.write_text(file.read_text().replace("disk_sku", "disk_sort"))
    with pytest.raises(ConfigError, match="disk_sort"), shiftable.load(folder, environment="production") as app:
        carry_out(app)


def test_the_same_file_runs_in_memory(folder: Path) -> None:
    with shiftable.load(folder, environment="development") as app:
        assert carry_out(app) == ["create web", "create batch"]
        assert [machine.state for machine in app.compute("web").wait()] == ["running", "running"]


def test_the_command_line_shows_machines_sizes_and_consoles(folder: Path, azure_double: AzureDouble) -> None:
    with shiftable.load(folder, environment="production") as app:
        carry_out(app)

    def said(*arguments: str) -> str:
        done = command(folder, "compute", *arguments)
        assert done.returncode == 0, done.stderr
        assert azure_double.token not in done.stdout + done.stderr
        return done.stdout

    assert "web-0" in said("list", "there")
    assert "Standard_B2als_v2" in said("sizes", "--cpus", "2", "--memory", "4")
    assert "cloud-init: done" in said("console", "web-0")


def test_the_command_line_imports_an_image_from_a_bucket(
    folder: Path, azure_double: AzureDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = folder / "shiftable.toml"
    endpoint = azure_double.config["endpoint"]
    storage = f'storage_account = "{azure_double.account}"\nendpoint = "{endpoint}"\naccount_key = {{ env = "KEY" }}\n'
    text = file.read_text().replace("arm_endpoint", f"{storage}arm_endpoint")
    file.write_text(f'{text}[blob.images]\nbucket = "images"\n')
    monkeypatch.setenv("KEY", azure_double.config["account_key"].reveal())
    with shiftable.connect("azure", **azure_double.config) as cloud:
        cloud.blob.create(BucketSpec(name="images")).put("web.vhd", vhd())
    asked = ("compute", "import-image", "images:web.vhd", "there:golden", "--experimental")
    for _ in range(2):
        done = command(folder, *asked)
        assert (done.returncode, 1) == (0, len(azure_double.machines.definitions)), done.stderr
        assert done.stdout.startswith('golden: imported; image = "/subscriptions/')
        assert "sig=" not in done.stdout + done.stderr
    refused = command(folder, *asked, "--firmware", "uefi")
    assert (refused.returncode, True) == (1, "made of something else" in refused.stderr)
    assert azure_double.machines.disks == {}

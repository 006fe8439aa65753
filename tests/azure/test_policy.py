"""What a custom role allows is what the drivers call for a purpose, and no more."""

from __future__ import annotations

import fnmatch
import re
from pathlib import Path

import attrs
import pytest

from shiftable.blob import BucketSpec
from shiftable.compute import FleetSpec
from shiftable.config import Credential
from shiftable.dns.driver import ZoneSpec
from shiftable.provider import Purpose
from shiftable.secrets import SecretsSpec
from shiftable.service import Spec
from shiftable.testing.harness import Call
from shiftable_azure import AzureProvider, AzureSettings
from shiftable_azure.compute import AzureComputeDriver
from shiftable_azure.dns import AzureDnsDriver
from shiftable_azure.double import AzureDouble
from tests.policies import SERVER, WEB, Buckets, Machines, Servers, Stored, Work, Zones

PURPOSES: tuple[Purpose, ...] = ("apply", "plan", "write", "read")
"""In an order in which each finds what it needs."""
KEPT = attrs.evolve(SERVER, password=Credential.literal("A-long-passw0rd"))
KEYED = attrs.evolve(WEB, ssh_keys=("ssh-ed25519 " + "A" * 68 + " somebody",))
README = Path(__file__).parents[2] / "providers" / "azure" / "README.md"
VERBS = {"GET": "read", "HEAD": "read", "PUT": "write", "PATCH": "write", "DELETE": "delete"}
BLOBS = "Microsoft.Storage/storageAccounts/blobServices/containers/blobs"
CONTAINERS = "Microsoft.Storage/storageAccounts/blobServices/containers"
SECRETS = "Microsoft.KeyVault/vaults/secrets"
OTHERS = {
    "BlobBatch": {f"{BLOBS}/delete"},
    "CreateContainer": {f"{CONTAINERS}/write"},
    "DeleteBlob": {f"{BLOBS}/delete"},
    "DeleteContainer": {f"{CONTAINERS}/delete"},
    "DeleteSecret": {f"{SECRETS}/delete"},
    "GetBlob": {f"{BLOBS}/read"},
    "GetBlobTags": {f"{BLOBS}/tags/read"},
    "GetContainerProperties": {f"{CONTAINERS}/read"},
    "GetDeletedSecret": {f"{SECRETS}/readMetadata/action"},
    "GetSecret": {f"{SECRETS}/getSecret/action"},
    "GetSecretVersions": {f"{SECRETS}/readMetadata/action"},
    "GetSecrets": {f"{SECRETS}/readMetadata/action"},
    "ListBlobs": {f"{BLOBS}/read"},
    "PurgeDeletedSecret": {f"{SECRETS}/purge/action"},
    "PutBlob": {f"{BLOBS}/write", f"{BLOBS}/add/action"},
    "PutBlobFromURL": {f"{BLOBS}/write", f"{BLOBS}/read"},
    "PutBlock": {f"{BLOBS}/write"},
    "PutBlockList": {f"{BLOBS}/write"},
    "RecoverDeletedSecret": {f"{SECRETS}/recover/action"},
    "SetBlobTags": {f"{BLOBS}/tags/write"},
    "SetSecret": {f"{SECRETS}/setSecret/action"},
    "UpdateSecret": {f"{SECRETS}/update/action"},
}


def needed(call: Call) -> set[str]:
    """Say what a call has to be allowed: of Resource Manager by its path, elsewhere by Azure's reference."""
    if call.operation == "GetLog":
        return set()  # its address is signed
    if call.operation == "Features_Get":
        return {"Microsoft.Features/providers/features/read"}
    if call.service == "arm":
        _, _, path = call.path.rpartition("/providers/")
        space, *rest = path.strip("/").split("/")
        kinds = "/".join(rest[::2])
        if call.operation == "GetOperationStatus":
            kinds = {"Microsoft.Network/operations": "dnsOperationStatuses"}.get(
                f"{space}/{kinds}", "locations/operations"
            )
        return {f"{space}/{kinds}/{'action' if call.method == 'POST' else VERBS[call.method]}"}
    return OTHERS[call.operation]


def compared(
    provider: AzureProvider, double: AzureDouble, service: str, spec: Spec, purpose: Purpose, work: Work
) -> set[str]:
    """Do some work; fail if a call of it is not allowed for the purpose; return what is allowed and was not called."""
    role = provider.policy([(service, spec)], [purpose])
    allowed = {*role["Actions"], *role["DataActions"]}
    before = len(double.calls)
    getattr(work, purpose)()
    called = {each for call in double.calls[before:] for each in needed(call)}
    assert [] == [each for each in called if not any(fnmatch.fnmatchcase(each, one) for one in allowed)]
    return {one for one in allowed if not any(fnmatch.fnmatchcase(each, one) for each in called)}


def left_of(
    provider: AzureProvider, double: AzureDouble, service: str, spec: Spec, work: Work
) -> dict[Purpose, set[str]]:
    return {purpose: compared(provider, double, service, spec, purpose, work) for purpose in PURPOSES}


NOTHING: dict[Purpose, set[str]] = {purpose: set() for purpose in PURPOSES}


def test_buckets(provider: AzureProvider, azure_double: AzureDouble) -> None:
    spec = BucketSpec(name="shop-assets")
    assert NOTHING == left_of(provider, azure_double, "blob", spec, Buckets(provider.blob(), spec))


def test_secrets(provider: AzureProvider, azure_double: AzureDouble) -> None:
    spec = SecretsSpec(name="shop")
    assert NOTHING == left_of(provider, azure_double, "secrets", spec, Stored(provider.secrets(), spec))


def test_zones(provider: AzureProvider, azure_double: AzureDouble) -> None:
    spec = ZoneSpec(name="shop.example")
    left = left_of(provider, azure_double, "dns", spec, Zones(provider.dns(), spec))
    assert ({"Microsoft.Network/dnsOperationResults/read"}, set()) == (left["apply"], left["plan"])
    kinds = {each.split("/")[2] for each in (*left["read"], *left["write"])}  # of which there were none
    assert {"AAAA", "CAA", "MX", "NS", "PTR", "SOA", "SRV"} <= kinds <= {*kinds, "A", "CNAME", "TXT"}


def test_servers(provider: AzureProvider, azure_double: AzureDouble) -> None:
    work = Servers(provider.database(), KEPT, azure_double.clock.advance)
    left = left_of(provider, azure_double, "database", KEPT, work)
    assert set() == left["read"] == left["write"]
    assert len(left["apply"]) < 10  # networks, firewall rules, databases and parameters, which were not declared


@pytest.mark.parametrize("spec", [KEYED, attrs.evolve(KEYED, public_ip=True, placement="spread")])
def test_machines(provider: AzureProvider, azure_double: AzureDouble, spec: FleetSpec) -> None:
    work = Machines(provider.compute(), spec, azure_double.clock.advance)
    left = left_of(provider, azure_double, "compute", spec, work)
    assert {"Microsoft.Network/networkInterfaces/read"} == left["read"]  # they come with their group
    assert set() == left["write"]


def test_what_is_allowed_is_documented(provider: AzureProvider) -> None:
    """Of machines and zones each kind of resource, of databases each action."""
    machines = attrs.evolve(KEYED, identity="web")
    role = provider.policy([("compute", machines), ("dns", ZoneSpec(name="shop.example"))], ["write", "apply"])
    told = re.sub(r"\s+", " ", f"{AzureComputeDriver.__doc__} {AzureDnsDriver.__doc__}")
    kinds = {action.removesuffix("/action").split("/")[1] for action in role["Actions"]}
    assert not [kind for kind in kinds if kind not in told]
    servers = provider.policy([("database", attrs.evolve(KEPT, token_login=True))], ["write", "apply"])["Actions"]
    readme = README.read_text()
    last = {
        "/".join(action.removesuffix("/action").split("/")[2:]) for action in servers if "flexibleServers/" in action
    }
    assert not [each for each in last if each not in readme]


def test_machines_are_allowed_all_that_the_driver_names_and_no_more(provider: AzureProvider) -> None:
    """Disks, images and snapshots of them are in no scenario above."""
    spec = attrs.evolve(KEYED, identity="web", public_ip=True)
    actions = provider.policy([("compute", spec)], ["write", "apply"])["Actions"]
    allowed = {action.partition("/")[2] for action in actions}
    _, _, text = re.sub(r"\s+", " ", AzureComputeDriver.__doc__ or "").partition("The single actions of")
    named = {each for token in re.findall(r"``([^`]+)``", text) for each in expanded(token)}
    kinds = ("networkSecurityGroups", "networkInterfaces", "publicIPAddresses", "galleries", "galleries/images")
    verbs = ("read", "write", "delete", "join/action")
    told = {re.sub(r"^Microsoft\.[A-Za-z]+/", "", each) for each in named}
    told |= {f"{kind}/{verb}" for kind in kinds for verb in verbs[: 4 if kind[0] != "g" else 3]}
    of_imports = "storageAccounts/blobServices/generateUserDelegationKey/action"
    assert allowed - {"skus/read"} == {each for each in told if "/" in each.rstrip("/")} - {
        "galleries/images/",
        "join/action",
        of_imports,
    }


def expanded(token: str) -> list[str]:
    """Return what ``disks/{read,write}`` stands for."""
    braces = re.search(r"\{([^}]*)\}", token)
    if braces is None:
        return [token]
    return [each for one in braces[1].split(",") for each in expanded(token.replace(braces[0], one, 1))]


def test_a_role_is_given_in_the_resource_group() -> None:
    settings = AzureSettings(subscription="1111", resource_group="shop", storage_account="shop")
    role = AzureProvider(settings).policy([("blob", BucketSpec(name="shop-assets"))], ["write", "read"])
    assert ["/subscriptions/1111/resourceGroups/shop"] == role["AssignableScopes"]
    assert ("shiftable read, write", True) == (role["Name"], role["IsCustom"])
    elsewhere = AzureProvider(AzureSettings(storage_account="shop"))
    assert ["/subscriptions/SUBSCRIPTION"] == elsewhere.policy([], ["read"])["AssignableScopes"]


def test_with_the_accounts_key_no_other_is_asked_for() -> None:
    def signs(**settings: Credential) -> bool:
        role = AzureProvider(AzureSettings(storage_account="shop", **settings)).policy(
            [("blob", BucketSpec(name="shop-assets"))], ["read"]
        )
        return any("generateUserDelegationKey" in action for action in role["Actions"])

    assert signs()
    assert not signs(account_key=Credential.literal("a2V5"))


def test_older_versions_and_lifecycles_take_more(provider: AzureProvider) -> None:
    def allowed(spec: BucketSpec, **settings: bool) -> set[str]:
        account = AzureSettings(storage_account="shop", subscription="1111", resource_group="shop", **settings)
        role = AzureProvider(account).policy([("blob", spec)], ["write", "apply"])
        return {*role["Actions"], *role["DataActions"]}

    plain = allowed(BucketSpec(name="shop-assets"))
    kept = allowed(BucketSpec(name="shop-assets", versioning=True), blob_versioning=True)
    ruled = allowed(BucketSpec(name="shop-assets"), blob_lifecycle=True)
    rules = "Microsoft.Storage/storageAccounts/managementPolicies"
    assert {f"{BLOBS}/deleteBlobVersion/action"} == kept - plain
    assert {f"{rules}/{what}" for what in ("read", "write", "delete")} == ruled - plain

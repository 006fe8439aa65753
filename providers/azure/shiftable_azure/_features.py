"""What the drivers can do. No SDK is imported for it."""

from __future__ import annotations

import attrs

from shiftable.blob.driver import BlobFeatures, StorageClass
from shiftable.compute.driver import ComputeFeatures
from shiftable.database.driver import DatabaseFeatures
from shiftable.dns.driver import DnsFeatures
from shiftable.features import Limit
from shiftable.secrets.driver import SecretsFeatures

__all__ = ["BLOB", "COMPUTE", "DATABASE", "DNS", "SECRETS", "SIGNED_DNS", "VERSIONED_BLOB", "blob_features"]

_TARGETS = "Azure, scalability and performance targets for Blob storage"
_BLOCKS = 50_000
_BLOCK = 4_000 * 1024**2

BLOB = BlobFeatures(
    title="Azure Blob Storage",
    if_absent=True,
    if_match=True,
    delete_if_match=True,
    headers=True,
    metadata=True,
    tags=True,
    versioning=False,
    copy=True,
    sign=True,
    uploads=False,
    sign_answer=True,
    if_none_match=True,
    tag_count=True,
    storage_classes=(
        StorageClass("Hot", "standard"),
        StorageClass("Cool", "infrequent"),
        StorageClass("Cold", "cold"),
        StorageClass("Archive", "archive", online=False),
    ),
    md5_in_listing=True,
    any_key=False,
    max_key=Limit(3 * 1024, "Azure Storage, naming and referencing containers, blobs and metadata: 1,024 UTF-16 units"),
    max_object=Limit(_BLOCKS * _BLOCK, f"{_TARGETS}: 50,000 blocks of 4,000 MiB"),
    max_metadata=Limit(8 * 1024, "Azure Storage, setting and retrieving properties and metadata for blob resources"),
    max_tags=Limit(10, "Azure Storage, Set Blob Tags"),
    part_size=Limit(1, "Azure Storage, Put Block: a block is not empty"),
    max_part=Limit(_BLOCK, f"{_TARGETS}: maximum size of a block"),
    max_parts=Limit(_BLOCKS, f"{_TARGETS}: blocks in a block blob"),
    delete_batch=Limit(256, "Azure Storage, Blob Batch: subrequests"),
    max_sign=Limit(7, "Azure Storage, user delegation SAS: life of a user delegation key"),
)
"""An account that keeps no versions."""

VERSIONED_BLOB = attrs.evolve(
    BLOB,
    title="Azure Blob Storage with versions",
    versioning=True,
    restore=True,
    object_lock=True,
    legal_hold=True,
    governance=True,
    lock_needs_versioning=True,
    lock_told=True,
    max_retention=Limit(146_000, "Azure Storage, time-based retention policies: 1 to 146,000 days"),
)
"""An account with blob versioning: every container then keeps versions."""


def blob_features(*, versioning: bool, lifecycle: bool) -> BlobFeatures:
    """Return what the driver of a storage account can do.

    A policy can delete older versions too, but counts their days from when they were written, and not from when they
    ceased to be the latest, which is what a declaration says. So it is not asked to.
    """
    found = VERSIONED_BLOB if versioning else BLOB
    if not lifecycle:
        return found
    return attrs.evolve(found, title=f"{found.title}{' and' if versioning else ' with'} a lifecycle", lifecycle=True)


_VAULT = "Azure Key Vault, about secrets"

SECRETS = SecretsFeatures(
    title="Azure Key Vault",
    binary=True,
    labels=True,
    expiry=True,
    if_absent=True,
    if_match=True,
    atomic_if_match=False,
    pending=True,
    history=True,
    disable=True,
    recovery=True,
    update=True,
    destroy=False,
    max_name=Limit(127, "Azure Key Vault, object identifiers; a slash becomes two hyphens"),
    max_value=Limit(25_600, f"{_VAULT}: 25 KB; bytes that are no text are kept as base64, so 19,200 of them"),
    max_labels=Limit(12, f"{_VAULT}: 15 tags, less those for the name, the stages and the encoding"),
    max_recovery=Limit(90, "Azure Key Vault, soft delete: 7 to 90 days, as the vault has it"),
)

_DNS = "Azure DNS, limits"

DNS = DnsFeatures(
    title="Azure DNS",
    zones=True,
    types=frozenset({"A", "AAAA", "CAA", "CNAME", "MX", "NAPTR", "NS", "PTR", "SOA", "SRV", "TXT"}),
    any_name=False,
    policy=True,
    apex_ns=True,
    apex_ns_kept=True,
    if_match=True,
    atomic_if_match=True,
    atomic_batch=False,
    max_batch=Limit(100, "chosen: record sets are written one by one, and put back one by one"),
    max_values=Limit(20, f"{_DNS}: records of a record set; of TXT 400, with 4,096 characters in all"),
    max_rdata=Limit(8_192, f"{_DNS}: 4,096 characters of a TXT record set, at the worst a string for each"),
    max_record_sets=Limit(10_000, f"{_DNS}: record sets of a zone"),
    writes_per_minute=Limit(200, f"{_DNS}: creates, updates and deletes of record sets, 200 of each for a zone"),
    min_ttl=Limit(1, "Azure DNS, zones and records: time-to-live"),
    max_ttl=Limit(2**31 - 1, "Azure DNS, zones and records: time-to-live"),
)
"""Zones that are not signed."""

SIGNED_DNS = attrs.evolve(DNS, title="Azure DNS, signed zones", types=(DNS.types or frozenset()) | {"DS", "TLSA"})
"""Zones with DNSSEC, which Azure needs for DS and TLSA."""

_SERVERS = "Azure Database for PostgreSQL, flexible server"

DATABASE = DatabaseFeatures(
    title="Azure Database, flexible servers",
    engines=frozenset({"mysql 8.0", "mysql 8.4", *(f"postgresql {version}" for version in range(14, 19))}),
    connect=True,
    stop=True,
    snapshots=True,
    final_snapshot=False,
    point_in_time=True,
    high_availability=True,
    storage_autogrow=True,
    deletion_protection=True,
    public=True,
    allow_from=True,
    parameters=True,
    labels=True,
    managed_password=False,
    set_password=True,
    token_login=True,
    optional_tls=True,
    restart=True,
    sizes=True,
    max_name=Limit(63, "Azure, naming rules for resources: flexibleServers, 3 to 63 characters"),
    max_storage=Limit(32_767, f"{_SERVERS}, limits: storage on Premium SSD; of MySQL 16,384"),
    max_backup_days=Limit(35, f"{_SERVERS}, backup and restore: 7 to 35 days"),
)

_MACHINES = "Azure, naming rules for resources: virtualMachines"

COMPUTE = ComputeFeatures(
    title="Azure Virtual Machines",
    create=True,
    arches=frozenset({"x86_64", "arm64"}),
    gpus=True,
    stop=True,
    resize=True,
    console=True,
    disks=True,
    snapshots=True,
    spot=True,
    public_ip=True,
    open_ports=True,
    user_data=True,
    zones=True,
    network=True,
    identity=True,
    prices=False,
    placements=frozenset({"spread", "close"}),
    disk_snapshots=True,
    debris=True,
    relabel=True,
    imports=frozenset({"vhd"}),
    ssh=True,
    max_name=Limit(58, f"{_MACHINES}: 64 characters on Linux, with a number of five digits"),
    max_user_data=Limit(65_535, "Azure Virtual Machines, custom data: 65,535 bytes before they are encoded"),
    max_labels=Limit(45, "Azure Resource Manager, tags: 50 of a resource, less those that are shiftable's own"),
)

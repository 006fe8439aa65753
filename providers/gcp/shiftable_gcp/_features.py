"""What the drivers can do. No SDK is imported for it."""

from __future__ import annotations

from shiftable.blob.driver import BlobFeatures, StorageClass
from shiftable.compute.driver import ComputeFeatures
from shiftable.database.driver import DatabaseFeatures
from shiftable.dns.driver import DnsFeatures
from shiftable.features import Limit
from shiftable.secrets.driver import SecretsFeatures
from shiftable_gcp._compute_sizes import PRICES
from shiftable_gcp._sql_spec import VERSIONS

__all__ = ["BLOB", "COMPUTE", "CRC32C", "DATABASE", "DNS", "DNS_QUOTAS", "SECRETS"]

CRC32C = "crc32c"
DNS_QUOTAS = "Cloud DNS quotas and limits"
_STORAGE = "Cloud Storage quotas and limits"
_METADATA = "Compute Engine, about VM metadata: limitations, bytes of one value"
_SETTINGS = "Cloud SQL, about instance settings"
_REFERENCE = "Secret Manager API reference"

BLOB = BlobFeatures(
    title="Google Cloud Storage",
    if_absent=True,
    if_match=True,
    delete_if_match=True,
    headers=True,
    metadata=True,
    tags=False,
    versioning=True,
    copy=True,
    sign=True,
    uploads=True,
    lifecycle=True,
    lifecycle_older=True,
    lifecycle_uploads=True,
    cors=True,
    sign_answer=True,
    sign_md5=True,
    sign_size=True,
    if_none_match=True,
    restore=True,
    object_lock=True,
    legal_hold=True,
    hold_anywhere=True,
    governance=True,
    lock_told=True,
    storage_classes=(
        StorageClass("STANDARD", "standard"),
        StorageClass("NEARLINE", "infrequent"),
        StorageClass("COLDLINE", "cold"),
        StorageClass("ARCHIVE", "archive"),
    ),
    checksums=(CRC32C,),
    md5_in_listing=True,
    any_key=True,
    max_key=Limit(1024, "Cloud Storage, object naming requirements"),
    max_object=Limit(5 * 1024**4, _STORAGE),
    max_metadata=Limit(8 * 1024, f"{_STORAGE}: all custom keys and values of an object"),
    part_size=Limit(5 * 1024**2, f"{_STORAGE}: XML API multipart uploads"),
    max_part=Limit(5 * 1024**3, f"{_STORAGE}: XML API multipart uploads"),
    max_parts=Limit(10_000, f"{_STORAGE}: XML API multipart uploads"),
    delete_batch=Limit(100, f"{_STORAGE}: calls in one batch request of the JSON API"),
    max_sign=Limit(7, "Cloud Storage, signed URLs: V4 signing"),
    max_retention=Limit(36_525, "Cloud Storage, Object Retention Lock: 3,155,760,000 seconds"),
)

COMPUTE = ComputeFeatures(
    title="Google Compute Engine",
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
    prices=True,
    placements=frozenset({"spread", "close"}),
    disk_snapshots=True,
    debris=True,
    relabel=True,
    imports=frozenset({"gce"}),
    ssh=True,
    max_name=Limit(44, "Compute Engine, naming resources: 63 characters, with what the names of firewall rules add"),
    max_user_data=Limit(262_144, _METADATA),
    max_labels=Limit(64, "Compute Engine, labels: of one resource"),
    price_list=PRICES.about,
)

DATABASE = DatabaseFeatures(
    title="Google Cloud SQL",
    engines=frozenset(f"{engine} {version}" for engine, version in VERSIONS),
    connect=True,
    stop=True,
    snapshots=True,
    final_snapshot=True,
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
    max_name=Limit(67, f"{_SETTINGS}: 98 characters with the project's id and a colon, and that id has up to 30"),
    min_storage=Limit(10, "Cloud SQL Admin API reference, Settings.dataDiskSizeGb"),
    max_storage=Limit(65_536, f"{_SETTINGS}: storage capacity, of machines with dedicated cores"),
    max_backup_days=Limit(365, "Cloud SQL, backup retention: automated backups that are kept, one a day"),
)

DNS = DnsFeatures(
    title="Google Cloud DNS",
    zones=True,
    types=frozenset(
        {"A", "AAAA", "CAA", "CNAME", "DS", "HTTPS", "IPSECKEY", "MX", "NAPTR", "NS", "PTR", "SOA", "SPF", "SRV"}
        | {"SSHFP", "SVCB", "TLSA", "TXT"}
    ),
    any_name=False,
    policy=True,
    apex_ns=True,
    if_match=True,
    atomic_if_match=True,
    atomic_batch=True,
    max_batch=Limit(1000, f"{DNS_QUOTAS}; as many additions and deletions, and 100,000 bytes of values"),
    max_values=Limit(100, DNS_QUOTAS),
    max_record_sets=Limit(10_000, f"{DNS_QUOTAS}; Google raises it when asked"),
)

SECRETS = SecretsFeatures(
    title="Google Cloud Secret Manager",
    binary=True,
    text=False,
    labels=True,
    expiry=True,
    if_absent=True,
    if_match=True,
    atomic_if_match=True,
    pending=True,
    history=True,
    disable=True,
    recovery=False,
    update=True,
    destroy=True,
    max_name=Limit(255, f"{_REFERENCE}, projects.secrets.create; a slash counts twice"),
    max_value=Limit(65_536, "Secret Manager quotas and limits"),
    max_labels=Limit(64, f"{_REFERENCE}, Secret.labels; those that Google refuses share 6 KiB of an annotation"),
)

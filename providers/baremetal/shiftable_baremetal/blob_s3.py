"""Any server that speaks the S3 protocol: Ceph, MinIO, Garage, SeaweedFS, a hoster's object storage."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from shiftable.blob.driver import BlobFeatures, StorageClass
from shiftable.config import Credential
from shiftable.errors import ConfigError
from shiftable.features import Limit
from shiftable.tls import check_authorities

if TYPE_CHECKING:
    from shiftable_s3.driver import S3Driver

__all__ = ["FEATURES", "open_s3"]

_PROTOCOL = "the S3 protocol"

FEATURES = BlobFeatures(
    title="S3-compatible server",
    if_absent=True,
    if_match=True,
    delete_if_match=False,
    headers=True,
    metadata=True,
    tags=True,
    versioning=True,
    copy=True,
    sign=True,
    sign_answer=True,
    sign_md5=True,
    sign_size=True,
    uploads=True,
    if_none_match=True,
    restore=True,
    storage_classes=(StorageClass("STANDARD", "standard"),),  # what others there are is up to the server's operator
    md5_in_listing=True,
    any_key=False,
    keys_are_paths=True,
    max_key=Limit(1024, _PROTOCOL),
    max_object=Limit(5 * 1024**4, "the smallest maximum among current servers"),
    max_metadata=Limit(2048, _PROTOCOL),
    max_tags=Limit(10, _PROTOCOL),
    part_size=Limit(5 * 1024**2, _PROTOCOL),
    max_part=Limit(5 * 1024**3, _PROTOCOL),
    max_parts=Limit(10_000, _PROTOCOL),
    delete_batch=Limit(1_000, _PROTOCOL),
    max_sign=Limit(7, "AWS, Signature Version 4 in the query: X-Amz-Expires"),
)


def open_s3(
    endpoint: str,
    access_key: Credential | None,
    secret_key: Credential | None,
    region: str = "us-east-1",
    *,
    ca_bundle: Path | None = None,
) -> S3Driver:
    """Make the driver for an S3-compatible server.

    Credentials: the two keys, which the server's operator gives out. Without them the SDK's own chain is asked:
    ``AWS_ACCESS_KEY_ID`` and ``AWS_SECRET_ACCESS_KEY``, then ``~/.aws``. The key needs the permissions of ``S3Driver``.

    The features are those of a complete server, such as Ceph. Some ignore conditions (``if_absent``, ``if_match``) and
    overwrite: before the first one the driver tries it on an object of its own, ``.shiftable-probe-…``, which it
    deletes, and raises ``Unsupported`` where the server does not obey. Ceph 16 obeys in buckets without versions, for
    objects in one piece, which is up to 8 MiB.

    Args:
        endpoint: ``https://s3.example.net:9000``, without a bucket.
        region: as the server calls itself; few care.
        ca_bundle: certificates to trust in place of the SDK's; else ``AWS_CA_BUNDLE``.

    Raises:
        ConfigError: shiftable-s3 is not installed, the endpoint is no URL, one of the keys is missing, there are no
            certificates.
    """
    parts = urlsplit(endpoint)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.path.strip("/") or parts.query:
        raise ConfigError(f"endpoint: {_shown(endpoint)!r} is no address of a server, such as https://s3.example.net")
    if parts.username is not None:
        raise ConfigError("endpoint: a credential stands in the URL; give access_key and secret_key instead")
    if (access_key is None) != (secret_key is None):
        missing = "access_key" if access_key is None else "secret_key"
        raise ConfigError(f"{missing} is missing: an S3-compatible server needs both keys, or none here")
    if ca_bundle is not None:
        check_authorities("ca_bundle", ca_bundle)
    try:
        from shiftable_s3 import clients
        from shiftable_s3.driver import S3Driver
    except ImportError as exc:
        raise ConfigError(
            f'an S3-compatible server needs shiftable-s3: pip install "shiftable-baremetal[s3]" ({exc})'
        ) from exc
    client = clients.server_client(
        endpoint,
        None if access_key is None else access_key.reveal(),
        None if secret_key is None else secret_key.reveal(),
        region,
        ca_bundle=None if ca_bundle is None else str(ca_bundle),
    )
    return S3Driver(client, "baremetal", FEATURES, region, compatible=True, authorities="ca_bundle")


def _shown(endpoint: str) -> str:
    """Leave out a password."""
    return endpoint.rpartition("@")[2]

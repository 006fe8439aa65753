"""Object storage of hosters: they speak the S3 protocol, so libcloud is not asked, which speaks it less well."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

import attrs

from shiftable.blob.driver import BlobFeatures, StorageClass
from shiftable.errors import ConfigError
from shiftable.features import Limit
from shiftable_libcloud import LibcloudSettings

if TYPE_CHECKING:
    from shiftable_s3.driver import S3Driver

__all__ = ["ENDPOINTS", "FEATURES", "open_blob"]

ENDPOINTS: Mapping[str, str] = {
    "digitalocean": "https://{region}.digitaloceanspaces.com",  # Spaces: fra1, nyc3
    "linode": "https://{region}.linodeobjects.com",  # Object Storage: eu-central-1, us-ord-1
    "ovh": "https://s3.{region}.io.cloud.ovh.net",  # Object Storage: gra, sbg, de
    "vultr": "https://{region}.vultrobjects.com",  # Object Storage: ewr1, ams1
}
"""Where each hoster's object storage is, by its own documentation in 2025."""

_PROTOCOL = "the S3 protocol"
_REGION = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")

_SPACES = BlobFeatures(
    title="DigitalOcean Spaces",
    if_absent=True,
    if_match=True,
    delete_if_match=False,
    headers=True,
    metadata=True,
    tags=False,  # "S3 compatibility" of Spaces names none of objects
    versioning=True,
    copy=True,
    sign=True,
    sign_answer=True,
    sign_md5=True,
    sign_size=True,
    uploads=True,
    if_none_match=True,
    restore=True,
    storage_classes=(StorageClass("STANDARD", "standard"),),
    md5_in_listing=True,
    any_key=False,
    keys_are_paths=True,
    max_key=Limit(1024, _PROTOCOL),
    max_object=Limit(5 * 1024**4, _PROTOCOL),
    max_metadata=Limit(2048, _PROTOCOL),
    max_tags=Limit(10, _PROTOCOL),
    part_size=Limit(5 * 1024**2, _PROTOCOL),
    max_part=Limit(5 * 1024**3, _PROTOCOL),
    max_parts=Limit(10_000, _PROTOCOL),
    delete_batch=Limit(1_000, _PROTOCOL),
    max_sign=Limit(7, "AWS, Signature Version 4 in the query: X-Amz-Expires"),
)

FEATURES: Mapping[str, BlobFeatures] = {
    "digitalocean": _SPACES,
    "linode": attrs.evolve(_SPACES, title="Linode Object Storage", tags=True),
    "ovh": attrs.evolve(_SPACES, title="OVHcloud Object Storage", tags=True),
    "vultr": attrs.evolve(_SPACES, title="Vultr Object Storage", tags=True),
}


def open_blob(settings: LibcloudSettings) -> S3Driver:
    """Make the driver for a hoster's object storage.

    Credentials: ``access_key`` and ``secret_key``, which the hoster gives out for its object storage alone. They are
    never taken from where Amazon's stand, so that those are sent to nobody else. The key needs the permissions of
    ``S3Driver``. Whether the hoster obeys conditions (``if_absent``, ``if_match``) is tried on an object of the
    driver's own before the first one; where it does not, the error is ``Unsupported``.

    Raises:
        ConfigError: the region or one of the keys is missing, or shiftable-s3 is not installed.
    """
    if settings.access_key is None or settings.secret_key is None:
        raise ConfigError(f"libcloud: object storage of {settings.hoster} needs access_key and secret_key")
    if settings.region is None or not _REGION.fullmatch(settings.region):
        wrong = "no region" if settings.region is None else f"{settings.region!r} is no region"
        raise ConfigError(
            f"libcloud: object storage of {settings.hoster}: {wrong}; say `region` in the provider's table"
        )
    try:
        from shiftable_libcloud._spaces import SpacesDriver
        from shiftable_s3 import clients
        from shiftable_s3.driver import S3Driver
    except ImportError as exc:
        raise ConfigError(f'object storage needs shiftable-s3: pip install "shiftable-libcloud[s3]" ({exc})') from exc
    endpoint = settings.storage_endpoint or ENDPOINTS[settings.hoster].format(region=settings.region)
    keys = settings.access_key.reveal(), settings.secret_key.reveal()
    client = clients.server_client(endpoint, *keys, settings.region)
    has = FEATURES[settings.hoster]
    made = S3Driver if has.tags else SpacesDriver
    return made(client, "libcloud", has, settings.region, compatible=True)

"""Google Cloud: its settings. No service has a driver yet."""

from __future__ import annotations

from typing import ClassVar

import attrs

from shiftable.config import Credential
from shiftable.provider import Provider

__all__ = ["GcpProvider", "GcpSettings"]

__version__ = "0.1.0"


@attrs.frozen(kw_only=True)
class GcpSettings:
    """``[providers.x]`` with ``type = "gcp"``.

    Args:
        project: the project id; else the one of the credentials.
        region: where regional resources are made, ``europe-west3``.
        service_account: a service account's key as JSON; else Application Default Credentials.
        endpoint: another address for all services, for a test double.
    """

    project: str | None = None
    region: str | None = None
    service_account: Credential | None = None
    endpoint: str | None = None


class GcpProvider(Provider[GcpSettings]):
    """Google Cloud.

    Credentials: Application Default Credentials (``gcloud auth application-default login``, workload identity, the
    metadata server), or ``service_account``.
    """

    name: ClassVar[str] = "gcp"
    driver_api: ClassVar[int] = 1
    settings_type: ClassVar[type[GcpSettings]] = GcpSettings

"""What only Azure knows of a database server."""

from __future__ import annotations

from typing import Literal

import attrs

from shiftable.database.driver import DatabaseSpec

__all__ = ["AzureDatabaseSettings"]


@attrs.frozen(kw_only=True)
class AzureDatabaseSettings:
    """``[database.x.azure]``: what only Azure knows of a server.

    Args:
        sku: the size by Azure's name, ``Standard_E4ds_v5``, in place of the smallest that is large enough.
        subnet: id of a subnet that is delegated to the service. A server gets into it when it is made, and never out.
        private_dns_zone: id of the private DNS zone that goes with ``subnet``.
        high_availability_mode: where the second server is; else in another zone where the location has that.
        zone: availability zone, ``1``.
        geo_redundant_backup: keep the backups in the paired region too.
        entra_admin: name of the principal of Microsoft Entra who is made administrator where ``token_login`` is.
        entra_admin_id: its object id.
        entra_admin_type: what it is.
    """

    sku: str | None = None
    subnet: str | None = None
    private_dns_zone: str | None = None
    high_availability_mode: Literal["ZoneRedundant", "SameZone"] | None = None
    zone: str | None = None
    geo_redundant_backup: bool = False
    entra_admin: str | None = None
    entra_admin_id: str | None = None
    entra_admin_type: Literal["ServicePrincipal", "User", "Group"] = "ServicePrincipal"

    @classmethod
    def of(cls, spec: DatabaseSpec) -> AzureDatabaseSettings:
        """Return those of a declaration, or that there are none."""
        return spec.native if isinstance(spec.native, cls) else cls()

    def __attrs_post_init__(self) -> None:
        if (self.entra_admin is None) is not (self.entra_admin_id is None):
            raise ValueError("entra_admin goes with entra_admin_id")
        if self.private_dns_zone is not None and self.subnet is None:
            raise ValueError("private_dns_zone goes with subnet")

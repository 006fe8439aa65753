"""What only RDS knows of a database server: ``[database.x.aws]``. Imports no SDK."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import attrs

if TYPE_CHECKING:
    from shiftable.database.driver import DatabaseSpec

__all__ = ["RdsSettings"]


@attrs.frozen(kw_only=True)
class RdsSettings:
    """What a server is made with, beside its declaration. Of a server that exists, nothing of it is changed.

    Args:
        instance_class: ``db.m7g.large``; else the smallest one that is large enough.
        storage_type: ``gp3`` or ``gp2``, or ``io2`` or ``io1`` with ``iops``.
        iops: of ``io1`` and ``io2``, and of ``gp3`` from 400 GiB on.
        throughput: MiB a second, of ``gp3`` from 400 GiB on.
        max_storage_gib: how far storage grows by itself.
        subnet_group: the subnets to be in; else those of the default VPC.
        security_groups: ids of groups to be in, beside the one that is made for ``allow_from``.
        port: else the engine's own.
        availability_zone: else AWS chooses; not with high availability.
        kms_key: that the storage is encrypted with; else the account's own.
        secret_kms_key: that the kept password is encrypted with; else the account's own.
        ca_certificate: who signs the server's certificate, ``rds-ca-rsa2048-g1``; else the account's default.
        backup_window: UTC, ``03:00-03:30``.
        maintenance_window: UTC, ``sun:04:00-sun:04:30``.
        auto_minor_upgrades: take newer minor versions in the maintenance window.
    """

    instance_class: str | None = None
    storage_type: Literal["gp2", "gp3", "io1", "io2"] = "gp3"
    iops: int | None = None
    throughput: int | None = None
    max_storage_gib: int | None = None
    subnet_group: str | None = None
    security_groups: tuple[str, ...] = ()
    port: int | None = None
    availability_zone: str | None = None
    kms_key: str | None = None
    secret_kms_key: str | None = None
    ca_certificate: str | None = None
    backup_window: str | None = None
    maintenance_window: str | None = None
    auto_minor_upgrades: bool = True

    @classmethod
    def of(cls, spec: DatabaseSpec) -> RdsSettings:
        """Return those of a declaration, or that there are none."""
        return spec.native if isinstance(spec.native, cls) else cls()

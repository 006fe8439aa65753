"""What only EC2 knows of a machine: ``[compute.x.aws]``. Imports no SDK."""

from __future__ import annotations

from typing import Literal

import attrs

__all__ = ["Ec2Settings"]


@attrs.frozen(kw_only=True)
class Ec2Settings:
    """What a machine is made with, beside its declaration. Of a machine that exists, only the type is changed.

    Args:
        instance_type: ``m7g.large``; else the cheapest one that has all that is declared.
        ami: id of the image, for this region; ``image`` then says only what it is called.
        key_name: a key pair of EC2, for the image's own user, who is there only if the user data's ``users`` names
            ``default``; the declared user and keys do not need it.
        subnet: to be in; else ``network`` or the default VPC tells.
        security_groups: ids of groups to be in, beside the fleet's own.
        tenancy: whether the hardware is shared with other accounts.
        placement_group: name of the group.
        kms_key: that the disk is encrypted with; else the account's own.
        root_volume_type: of the disk that it starts from.
        iops: of that disk; of ``io1`` and ``io2`` they must be told.
        throughput: of that disk, MiB a second, of ``gp3``.
        metadata_hop_limit: how far the answers of the metadata service go; containers need 2.
        cpu_credits: of burstable types; else the family's own default.
    """

    instance_type: str | None = None
    ami: str | None = None
    key_name: str | None = None
    subnet: str | None = None
    security_groups: tuple[str, ...] = ()
    tenancy: Literal["default", "dedicated"] = "default"
    placement_group: str | None = None
    kms_key: str | None = None
    root_volume_type: Literal["gp2", "gp3", "io1", "io2"] = "gp3"
    iops: int | None = None
    throughput: int | None = None
    metadata_hop_limit: int = attrs.field(default=1, validator=[attrs.validators.ge(1), attrs.validators.le(64)])
    cpu_credits: Literal["standard", "unlimited"] | None = None

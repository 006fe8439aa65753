"""What names a copy of a version in another store, so that whoever writes it twice makes one version."""

from __future__ import annotations

import uuid
from datetime import datetime

from shiftable.tokens import Token

__all__ = ["copy_key"]

_NAMESPACE = uuid.UUID("5b1e7f0a-3c0d-5d6a-9a56-3f4f0c8f6b21")
"""Of idempotency keys; never to be changed."""


def copy_key(provider: str, name: str, version: str, created: datetime | None, *, again: Token | None = None) -> str:
    """Return the idempotency key under which a version is copied: the same for every mover and mirror.

    The date tells a version from one of the same id of an earlier secret of that name. The value has no part in it.

    Args:
        provider: of the version that is copied.
        name: of its secret, with the prefix.
        again: of the target's secret, where a version that is there already has to be written once more.
    """
    moment = created.isoformat() if created else ""
    told = f"{provider}/{name}#{version}@{moment}"
    return str(uuid.uuid5(_NAMESPACE, f"{told}>{again}" if again else told))

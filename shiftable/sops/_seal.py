"""The seal of a file that holds one secret: a digest of everything in clear, encrypted beside the values.

SOPS's MAC hashes values only. It does not notice when the names of labels are exchanged, when a version's id moves from
``current`` to ``previous`` by way of null, or when a byte moves from one value in clear to the next. The seal does.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from shiftable.sops._leaves import Rule

__all__ = ["EXPOSED_LABEL", "SECRET_RULE", "expose", "is_secret", "seal_fits", "sealed", "unsealed"]

EXPOSED_LABEL = "shiftable-exposed"
"""The label of ``shiftable.secrets.rotator``: since when somebody could read the secret who should not any more."""

SECRET_RULE = Rule("encrypted_regex", "^value$")
"""What the file of a secret encrypts."""


def is_secret(tree: Mapping[str, Any]) -> bool:
    """Tell whether a document is the file of one secret, with its versions."""
    return isinstance(tree.get("seal"), dict) and isinstance(tree.get("versions"), dict) and "revision" in tree


def sealed(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Return the document of a secret with its seal, the last value of all."""
    bare = unsealed(tree)
    return {**bare, "seal": {"value": _digest(bare)}}


def unsealed(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Return the document of a secret without its seal."""
    return {name: value for name, value in tree.items() if name != "seal"}


def seal_fits(tree: Mapping[str, Any]) -> bool:
    """Tell whether what stands in clear is what was sealed."""
    try:
        return sealed(tree) == tree
    except (AttributeError, KeyError, TypeError, ValueError):
        return False


def _digest(tree: dict[str, Any]) -> str:
    """Hash all that stands in clear, names of keys and order included."""
    versions = {id_: {**version, "value": None} for id_, version in tree["versions"].items()}
    return hashlib.sha256(json.dumps({**tree, "versions": versions}).encode()).hexdigest()


def expose(tree: Mapping[str, Any], now: datetime) -> dict[str, Any]:
    """Note that somebody knows the versions who should not any more.

    A version that was made by a clock that runs ahead counts too, so the time noted may be that version's.
    """
    made = (datetime.fromisoformat(version["created"]) for version in tree["versions"].values())
    since = max([now, *made]).astimezone(UTC).isoformat()
    labels = {**tree["labels"], EXPOSED_LABEL: since}
    return sealed({**tree, "labels": labels, "revision": secrets.token_hex(8)})

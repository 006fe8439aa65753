"""Swap clouds by configuration only.

>>> import shiftable
>>> with shiftable.connect("memory") as cloud:
...     bucket = cloud.blob.create(shiftable.BucketSpec(name="pictures"))
...     token = bucket.put("cat.txt", b"meow").token
...     bucket.get("cat.txt")
b'meow'
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shiftable.app import App, load
    from shiftable.blob import Bucket, BucketSpec
    from shiftable.cloud import Cloud, connect
    from shiftable.compute import Fleet, FleetSpec
    from shiftable.config import Credential
    from shiftable.database import Database, DatabaseSpec
    from shiftable.dns import Zone, ZoneSpec
    from shiftable.errors import ConfigError, OperationError, ProviderError, ShiftableError
    from shiftable.secrets import SecretsSpec, SecretStore
    from shiftable.tokens import Token

__all__ = [
    "App",
    "Bucket",
    "BucketSpec",
    "Cloud",
    "ConfigError",
    "Credential",
    "Database",
    "DatabaseSpec",
    "Fleet",
    "FleetSpec",
    "OperationError",
    "ProviderError",
    "SecretStore",
    "SecretsSpec",
    "ShiftableError",
    "Token",
    "Zone",
    "ZoneSpec",
    "connect",
    "load",
]

__version__ = "0.1.0"

_HOMES = {
    "App": "app",
    "Bucket": "blob",
    "BucketSpec": "blob",
    "Cloud": "cloud",
    "ConfigError": "errors",
    "Credential": "config",
    "Database": "database",
    "DatabaseSpec": "database",
    "Fleet": "compute",
    "FleetSpec": "compute",
    "OperationError": "errors",
    "ProviderError": "errors",
    "SecretStore": "secrets",
    "SecretsSpec": "secrets",
    "ShiftableError": "errors",
    "Token": "tokens",
    "Zone": "dns",
    "ZoneSpec": "dns",
    "connect": "cloud",
    "load": "app",
}


def __getattr__(name: str) -> object:
    """Import what is used when it is used, so that ``import shiftable`` costs nothing."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"shiftable.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

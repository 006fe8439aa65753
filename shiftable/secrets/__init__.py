"""Secrets: values that never show themselves, with versions and stages."""

from shiftable.masking import Masked
from shiftable.secrets._secrets import Secrets
from shiftable.secrets._store import SecretStore
from shiftable.secrets.driver import (
    STAGES,
    Secret,
    SecretInfo,
    SecretsFeatures,
    SecretsSpec,
    SecretVersion,
    Stage,
)
from shiftable.tokens import Token

__all__ = [
    "STAGES",
    "Masked",
    "Secret",
    "SecretInfo",
    "SecretStore",
    "SecretVersion",
    "Secrets",
    "SecretsFeatures",
    "SecretsSpec",
    "Stage",
    "Token",
]

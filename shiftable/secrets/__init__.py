"""Secrets: values that never show themselves, with versions and stages."""

from shiftable.masking import Masked
from shiftable.secrets._cache import SecretCache
from shiftable.secrets._mirror import Drift, Mirror
from shiftable.secrets._redaction import RedactingFilter, RedactingStream, Redactor
from shiftable.secrets._secrets import Secrets
from shiftable.secrets._store import SecretStore
from shiftable.secrets._watch import SecretWatch
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
    "Drift",
    "Masked",
    "Mirror",
    "RedactingFilter",
    "RedactingStream",
    "Redactor",
    "Secret",
    "SecretCache",
    "SecretInfo",
    "SecretStore",
    "SecretVersion",
    "SecretWatch",
    "Secrets",
    "SecretsFeatures",
    "SecretsSpec",
    "Stage",
    "Token",
]

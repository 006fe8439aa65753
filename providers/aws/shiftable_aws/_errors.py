"""What Secrets Manager's own error codes mean, on top of the table that all of AWS shares."""

from __future__ import annotations

from collections.abc import Mapping

from shiftable.errors import Conflict, Fault, InvalidArgument, OperationError, PermissionDenied
from shiftable_s3 import errors

__all__ = ["SECRETS_CODES", "classify_secrets"]

SECRETS_CODES: Mapping[str, type[OperationError]] = {
    **errors.CODES,
    "DecryptionFailure": Conflict,  # the KMS key is disabled or gone; a missing permission is AccessDeniedException
    "EncryptionFailure": Conflict,
    "InvalidNextTokenException": InvalidArgument,
    "InvalidRequestException": Conflict,  # in this service: the secret's state forbids it
    "MalformedPolicyDocumentException": InvalidArgument,
    "PreconditionNotMetException": Conflict,
    "PublicPolicyException": PermissionDenied,
    "ResourceExistsException": Conflict,  # a ClientRequestToken that was used with another value
}


def classify_secrets(exc: Exception) -> Fault | None:
    """Claim botocore's exceptions, as raised by a client of Secrets Manager."""
    return errors.classify(exc, SECRETS_CODES)

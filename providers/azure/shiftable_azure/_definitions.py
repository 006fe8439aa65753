"""What goes over the wire to a vault and back, compared with Microsoft's definitions of it.

The SDK's models are generated from the definitions of Key Vault, with the names on the wire and with what is the
service's alone to say.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from azure.keyvault.secrets._generated import models

from shiftable.testing.harness import Clock, Request, Response
from shiftable_azure._double_vault import VaultService, is_vault

__all__ = ["body_violations", "violations"]

_BODIES: Mapping[str, tuple[str | None, str | None]] = {
    "GetSecrets": (None, "SecretItem"),
    "GetSecretVersions": (None, "SecretItem"),
    "GetDeletedSecrets": (None, "DeletedSecretItem"),
    "GetSecret": (None, "SecretBundle"),
    "SetSecret": ("SecretSetParameters", "SecretBundle"),
    "UpdateSecret": ("SecretUpdateParameters", "SecretBundle"),
    "DeleteSecret": (None, "DeletedSecretBundle"),
    "GetDeletedSecret": (None, "DeletedSecretBundle"),
    "RecoverDeletedSecret": (None, "SecretBundle"),
    "PurgeDeletedSecret": (None, None),
}
_LEVELS = {level.value for level in models.DeletionRecoveryLevel}
_TIMES = {"nbf", "exp", "created", "updated", "deletedDate", "scheduledPurgeDate"}
_PARAMETERS = {"api-version", "maxresults", "$skiptoken"}
_VAULT = VaultService("", Clock())  # names operations


def violations(request: Request, response: Response) -> Iterable[str]:
    """Find what Key Vault's definitions do not have; nothing, in requests for other services."""
    if not is_vault(request):
        return
    parameters = {part.partition("=")[0] for part in request.query.split("&") if part}
    yield from (f"Key Vault knows no {name}" for name in sorted(parameters - _PARAMETERS))
    if request.body and "Authorization" not in request.headers:
        yield "a body was sent before the vault had asked for a token"
    sent, answered = _BODIES.get(_VAULT.operation(request), (None, None))
    if sent and request.body:
        yield from body_violations(_content(request.body), sent, sent=True)
    content = _content(response.body)
    if response.code >= 300:
        yield from body_violations(content["error"], "KeyVaultErrorError")
    elif answered is not None:
        for item in content["value"] if answered.endswith("Item") else [content]:
            yield from body_violations(item, answered)


def body_violations(body: Any, model: str, *, sent: bool = False) -> Iterator[str]:  # noqa: ANN401  JSON
    """Compare a body with a model, and its types with what is known of them."""
    if not isinstance(body, dict):
        yield f"{model} is no object"
        return
    known = _fields(model)
    for name, value in body.items():
        if name not in known:
            yield f"{model} has no {name}"
        elif sent and known[name]:
            yield f"{model}.{name} is not the caller's to say"
        elif name == "attributes":
            yield from body_violations(value, "SecretAttributes", sent=sent)
        elif not _is_of_type(name, value):
            yield f"{model}.{name} has a wrong type or value"
    if model == "SecretSetParameters" and not isinstance(body.get("value"), str):
        yield f"{model} needs a value"


def _is_of_type(name: str, value: Any) -> bool:  # noqa: ANN401  JSON
    if name in _TIMES:
        return type(value) is int
    if name == "tags":
        return isinstance(value, dict) and all(type(text) is str for text in value.values())
    if name in {"enabled", "managed"}:
        return type(value) is bool
    return name != "recoveryLevel" or value in _LEVELS


@functools.cache
def _fields(model: str) -> dict[str, bool]:
    """Return the names on the wire, each with whether it is the service's alone to say."""
    kind: Any = getattr(models, model)
    kind()  # its fields are known once one was made
    return {field._rest_name: field._visibility == ["read"] for field in kind._attr_to_rest_field.values()}  # noqa: SLF001  nothing public tells


def _content(body: bytes) -> Any:  # noqa: ANN401  JSON
    try:
        return json.loads(body)
    except ValueError:
        return None
